//! Alerts, silences, and what receivers are told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{AlertKind, AlertState, Matcher, Severity};
use crate::command::BmcError;
use crate::id::{AgentId, ClusterId, HostId, RackId, ReceiverId, ZoneId};

/// `GET /v1/alerts` and, while firing, the retained `picket/v1/alert/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// `{kind}.{host}`, or `{kind}.{agent}` for an alert of an agent, or `{kind}.{cluster}` for one of a cluster.
    pub id: String,
    /// What it says.
    pub kind: AlertKind,
    /// Whether it still holds.
    pub state: AlertState,
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
    /// Which host; absent for alerts of agents and clusters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<HostId>,
    /// Which agent, for alerts of agents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<AgentId>,
    /// Its zone.
    pub zone: ZoneId,
    /// Its cluster; absent for alerts of agents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterId>,
    /// Its rack.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rack: Option<RackId>,
    /// `kind`, `severity`, `zone`, and of `host`, `agent`, `cluster`, `rack` those it has: what silences match.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Since when it holds.
    pub starts_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ends_at: Option<Timestamp>,
    /// The true cause, in one sentence.
    pub summary: String,
    /// The driver's own error.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bmc_error: Option<BmcError>,
    /// How often its cause was reported since it began.
    #[serde(default = "once")]
    pub count: u64,
    /// Who has taken note of it; it is not repeated any more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acked_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub acked_at: Option<Timestamp>,
    /// What they said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ack_comment: Option<String>,
    /// Ids of the silences that cover it now; `maintenance` stands for the host's.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub silenced_by: Vec<String>,
    /// Ids of the firing alerts that explain it.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub inhibited_by: Vec<String>,
}

const fn once() -> u64 {
    1
}

impl Alert {
    /// Sets what follows from the rest: severity and labels. Alerts kept by an older version have neither.
    pub fn complete(&mut self) {
        self.severity = self.kind.severity();
        let named = [
            ("kind", Some(self.kind.as_str())),
            ("severity", Some(self.severity.as_str())),
            ("host", self.host.as_ref().map(HostId::as_str)),
            ("agent", self.agent.as_ref().map(AgentId::as_str)),
            ("zone", Some(self.zone.as_str())),
            ("cluster", self.cluster.as_ref().map(ClusterId::as_str)),
            ("rack", self.rack.as_ref().map(RackId::as_str)),
        ];
        self.labels = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    }
}

/// `POST /v1/alerts/{id}/ack`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckRequest {
    /// For the others (at most 500 characters).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comment: Option<String>,
}

/// `POST /v1/alerts/{id}/silence`: answers with the silence made for just this alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertSilenceRequest {
    /// For how long, in seconds (1 – 31536000).
    pub duration: u64,
    /// Why (at most 500 characters).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comment: Option<String>,
}

/// `POST /v1/silences`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SilenceRequest {
    /// All must match: `["host=r07n*", "kind!=agent-lost"]`.
    pub matchers: Vec<Matcher>,
    /// From when on; absent = now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub starts_at: Option<Timestamp>,
    /// Until when; this or `duration`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ends_at: Option<Timestamp>,
    /// For how long, in seconds (1 – 31536000); this or `ends_at`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration: Option<u64>,
    /// Why (at most 500 characters).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comment: Option<String>,
}

/// `GET /v1/silences/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// From when on.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// Whose it is.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comment: Option<String>,
    /// `pending`, `active` or `expired`.
    pub state: String,
}

/// What a webhook gets as its body and an exec hook on its standard input: news of alerts that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Always `1`.
    pub version: String,
    /// The key against taking it twice: the same when it is sent again.
    pub delivery: String,
    /// Name of the receiver, as in the settings.
    pub receiver: String,
    /// Name of the site.
    pub site: String,
    /// What the alerts have in common: `zone`, `kind`, and `cluster` where there is one.
    pub group: BTreeMap<String, String>,
    /// The news, in the order in which they are to be taken.
    pub alerts: Vec<News>,
}

/// One alert's part of a [`Notification`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// What is new about it.
    pub change: Change,
    /// The alert as it was then.
    #[serde(flatten)]
    pub alert: Alert,
}

/// What is new about an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It fires.
    Firing,
    /// It still fires, and nobody has taken note of it.
    Repeated,
    /// It ended.
    Resolved,
}

/// `GET /v1/receivers`: who is told of alerts, as the aggregator's settings say, and how it went since the aggregator started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// Its name.
    pub name: ReceiverId,
    /// `email`, `webhook`, `alertmanager`, `snmp` or `exec`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it leads; of a URL only the origin.
    pub target: String,
    /// Only alerts of these kinds; empty = all.
    #[serde(default)]
    pub kinds: Vec<AlertKind>,
    /// Only alerts of these zones; empty = all.
    #[serde(default)]
    pub zones: Vec<ZoneId>,
    /// Only alerts of these clusters; empty = all.
    #[serde(default)]
    pub clusters: Vec<ClusterId>,
    /// Only alerts that matter at least this much.
    pub severity: Severity,
    /// How long the first news of a group waits for others, in seconds.
    pub group_wait: u64,
    /// Least time between two deliveries of a group, in seconds.
    pub group_interval: u64,
    /// What still fires is told again after this, in seconds.
    pub repeat_interval: u64,
    /// The engine id of SNMPv3 traps, in hex: the receiver has to know the user of this engine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub engine_id: Option<String>,
    /// Whether something is being sent now.
    pub under_way: bool,
    /// Deliveries that arrived.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// News that could not be delivered and are not tried again.
    pub given_up: u64,
    /// When a delivery arrived last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_delivered_at: Option<Timestamp>,
    /// Why the last attempt failed; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error: Option<String>,
    /// When an attempt failed last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_error_at: Option<Timestamp>,
}

/// `POST /v1/receivers/{receiver}/test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverTest {
    /// Which.
    pub receiver: ReceiverId,
    /// Whether it took what was sent.
    pub delivered: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}
