//! Hosts' histories, events, and the retained state.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};

use super::Alert;
use super::ha::Proof;
use super::operation::ActionJson;
use crate::command::{Action, BmcError};
use crate::ha::{Gate, HaName, HostStatus};
use crate::id::{AgentId, ClusterId, HostId, OperationId, ZoneId};
use crate::policy::Judgement;
use crate::power::{Cause, Management, PowerState};
use crate::wire::report::InForce;

/// One line of a host's history, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Sequence within the aggregator's store.
    pub sequence: u64,
    /// `{agent}:{journal}:{sequence}` for what an agent reported: the key against counting twice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// When it was observed, by the observer's clock.
    pub at: Timestamp,
    /// When the aggregator recorded it.
    pub recorded_at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: HistoryWhat,
}

/// What a line of history says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum HistoryWhat {
    /// The power state changed.
    Power {
        /// Before.
        old: PowerState,
        /// After.
        new: PowerState,
        /// Why.
        cause: Cause,
        /// The error behind Unknown.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        bmc_error: Option<BmcError>,
    },
    /// The management state changed.
    Management {
        /// After.
        new: Management,
        /// The last typed error.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        bmc_error: Option<BmcError>,
    },
    /// An operation was accepted here.
    OperationAccepted {
        /// Which.
        operation_id: OperationId,
        /// What: `operation`, and its parameters beside it.
        #[serde(flatten, with = "ActionJson")]
        action: Action,
        /// Who.
        principal: String,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<String>,
    },
    /// An operation ended.
    OperationDone {
        /// Which.
        operation_id: OperationId,
        /// How.
        result: String,
        /// One sentence.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        detail: Option<String>,
    },
    /// A password change was resolved: which password the BMC takes, proven by a login.
    PasswordChange {
        /// Which operation.
        operation_id: OperationId,
        /// `new`, `old` or `neither`.
        in_force: InForce,
    },
    /// The BMC was met for the first time, or is another one, or has other firmware.
    Facts {
        /// What tells this machine from all others.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        identity: Option<String>,
        /// Firmware version of the BMC.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        firmware: Option<String>,
        /// Whether it is not the machine that is taken for the right one.
        #[serde(default)]
        identity_differs: bool,
    },
    /// Reports of the agent were lost for good: this host's history may miss changes here.
    Gap {
        /// First lost sequence.
        first: u64,
        /// Last lost sequence.
        last: u64,
    },
    /// The state as the agent knew it after a gap.
    Snapshot {
        /// Power state.
        power: PowerState,
        /// Management state.
        management: Option<Management>,
    },
    /// The state of host-HA changed, or what belongs to it.
    Ha {
        /// Before; absent when nothing was known.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        old: Option<HaName>,
        /// After.
        new: HaName,
        /// What kind of that state; see `reason` of [`super::HostHa`].
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<String>,
        /// Why, in one sentence.
        why: String,
        /// Place nothing new there.
        #[serde(default)]
        quarantined: bool,
        /// What its fence waits for.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        held: Option<Gate>,
        /// Which attempt of a fence or a recovery.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        attempt: Option<u16>,
        /// The order it belongs to.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        operation_id: Option<OperationId>,
        /// The driver's last error in its fence.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        bmc_error: Option<BmcError>,
        /// What proves Fenced.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        proof: Option<Box<Proof>>,
    },
    /// What an orchestrator may conclude changed. Only `down` may release workloads.
    HostStatus {
        /// Before.
        old: HostStatus,
        /// After.
        new: HostStatus,
        /// Why, in one sentence.
        why: String,
        /// What proves `down`.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        proof: Option<Box<Proof>>,
    },
    /// The gates were asked about a disruptive act.
    Gates {
        /// About which: `off`, `reset`, `plan`, `proof`.
        act: String,
        /// Which attempt.
        attempt: u16,
        /// The first gate in the way; absent = all let it pass.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        held_by: Option<Gate>,
        /// Each gate's answer.
        judgement: Judgement,
        /// The order it belongs to.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        operation_id: Option<OperationId>,
    },
}

/// Data of an event on SSE (`GET /v1/events`) and MQTT, inside a [`CloudEvent`]: one flat object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventData {
    /// Which host; absent for events of agents.
    pub host: Option<HostId>,
    /// Its zone.
    pub zone: Option<ZoneId>,
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// Which agent, for events of agents.
    pub agent: Option<AgentId>,
    /// What happened; the same form as a line of history, or of an alert or agent.
    pub what: EventWhat,
}

/// The fields of [`EventData`] beside `what`. An alert names some of them itself, so a derived flattening would write a key twice
/// and not read it back.
#[derive(Serialize, Deserialize)]
struct EventPlace {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    host: Option<HostId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    zone: Option<ZoneId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    cluster: Option<ClusterId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    agent: Option<AgentId>,
}

impl Serialize for EventData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { host, zone, cluster, agent, what } = self.clone();
        let place = serde_json::to_value(EventPlace { host, zone, cluster, agent }).map_err(ser::Error::custom)?;
        let what = serde_json::to_value(what).map_err(ser::Error::custom)?;
        let fields = [place, what].into_iter().filter_map(|part| if let Value::Object(map) = part { Some(map) } else { None });
        fields.flatten().collect::<Map<_, _>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EventData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let whole = Value::deserialize(deserializer)?;
        let EventPlace { host, zone, cluster, agent } = EventPlace::deserialize(&whole).map_err(de::Error::custom)?;
        let what = EventWhat::deserialize(whole).map_err(de::Error::custom)?;
        Ok(Self { host, zone, cluster, agent, what })
    }
}

/// See [`EventData::what`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventWhat {
    /// As in the host's history.
    History(HistoryWhat),
    /// An alert fired or was resolved.
    Alert(Box<Alert>),
    /// An agent was heard again, or lost.
    Presence {
        /// Whether it is heard.
        connected: bool,
    },
}

/// A CloudEvent 1.0 in structured mode (CloudEvents JSON event format §3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudEvent {
    /// Always `1.0`.
    pub specversion: String,
    /// `{agent}:{boot}:{seq}` for what an agent reported, `{store}:{seq}` for what the aggregator did: the de-duplication key.
    pub id: String,
    /// `/{zone}/{cluster}/{host}` or `/agent/{agent}`.
    pub source: String,
    /// `io.picket.power.changed.v1` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// The host or agent.
    pub subject: String,
    /// When it was observed.
    pub time: Timestamp,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// The event itself.
    pub data: EventData,
}

/// The retained `picket/v1/state/{zone}/{cluster}/{host}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDocument {
    /// Which host.
    pub host: HostId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Power state.
    pub power: PowerState,
    /// Since when.
    pub since: Timestamp,
    /// Management state.
    pub management: Option<Management>,
    /// HA state; `disabled` until HA is set up.
    pub ha: HaName,
    /// Host status; `unknown` until HA is set up. Only `down` may release workloads.
    pub host_status: HostStatus,
    /// Place nothing new there.
    #[serde(default)]
    pub quarantined: bool,
    /// Sequence of the change in the aggregator's store.
    pub seq: u64,
    /// When the change was observed.
    pub observed_at: Timestamp,
    /// Seconds without word from the agent after which this is stale.
    pub stale_after: u64,
    /// Whether it is stale.
    pub stale: bool,
}
