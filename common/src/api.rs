//! The JSON of the HTTP API and of the public MQTT tree, as both ends of each speak it. Names here are stable; changes only add.
//!
//! Times are RFC 3339 UTC, durations are whole seconds unless the name says otherwise, states are lower case.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};

use crate::alert::{AlertKind, AlertState, Matcher, Severity};
use crate::command::{self, BmcError, BootDevice, OperationState, Persistence};
use crate::id::{AgentId, ClusterId, ConsumerId, HostId, OperationId, RackId, ZoneId};
use crate::power::{Cause, Management, PowerOperation, PowerState};
use crate::secret::Secret;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, by id.
    pub items: Vec<T>,
    /// Give this as `page_token` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
}

/// `PUT /v1/zones/{z}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneBody {}

/// `GET /v1/zones/{z}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its id.
    pub id: ZoneId,
    /// Its gate.
    pub oobm_enabled: bool,
}

/// `PUT /v1/clusters/{c}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterBody {
    /// The zone it lies in.
    pub zone: ZoneId,
    /// Poll interval of its hosts, in seconds (1 – 3600); absent = the global one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds (1 – 3600); absent = the global one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action_timeout: Option<u64>,
}

/// `GET /v1/clusters/{c}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// As put.
    #[serde(flatten)]
    pub body: ClusterBody,
    /// Its gate.
    pub oobm_enabled: bool,
}

/// `PUT /v1/racks/{r}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RackBody {
    /// The zone it stands in.
    pub zone: ZoneId,
}

/// `GET /v1/racks/{r}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rack {
    /// Its id.
    pub id: RackId,
    /// As put.
    #[serde(flatten)]
    pub body: RackBody,
    /// The agent that guards it.
    pub agent: Option<AgentId>,
    /// Owner epoch.
    pub epoch: u64,
}

/// A BMC's settings in `PUT` (whole) and `PATCH` (only what is given changes) of a host.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcBody {
    /// Driver name, in any case: `ipmi`, `redfish`, `null`.
    #[serde(default)]
    pub driver: Option<String>,
    /// IP address or name.
    #[serde(default)]
    pub address: Option<String>,
    /// Port; absent = the driver's default.
    #[serde(default)]
    pub port: Option<u16>,
    /// Login name.
    #[serde(default)]
    pub username: Option<String>,
    /// Login password; write-only.
    #[serde(default)]
    pub password: Option<Secret<String>>,
    /// The driver's options.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
}

/// `PUT /v1/hosts/{h}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostBody {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its zone; when given it must be the cluster's.
    #[serde(default)]
    pub zone: Option<ZoneId>,
    /// Its rack.
    pub rack: RackId,
    /// Its BMC; absent = not configured.
    #[serde(default)]
    pub bmc: Option<BmcBody>,
    /// Whether people work on it.
    #[serde(default)]
    pub maintenance: bool,
    /// Poll interval in seconds (1 – 3600); absent = the cluster's.
    #[serde(default)]
    pub poll_interval: Option<u64>,
    /// Free words for people and programs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// `PATCH /v1/hosts/{h}`: only what is given changes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPatch {
    /// Its cluster.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// Its rack.
    #[serde(default)]
    pub rack: Option<RackId>,
    /// Its BMC, field by field.
    #[serde(default)]
    pub bmc: Option<BmcBody>,
    /// Whether people work on it.
    #[serde(default)]
    pub maintenance: Option<bool>,
    /// Poll interval in seconds (1 – 3600).
    #[serde(default)]
    pub poll_interval: Option<u64>,
    /// Replaces all labels.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A BMC's settings as shown: never the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bmc {
    /// Driver name, lower case.
    pub driver: String,
    /// IP address or name.
    pub address: String,
    /// Port, if set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// Login name.
    pub username: String,
    /// Whether a password is stored and sealed to the agent in charge.
    pub password_set: bool,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
}

/// `GET /v1/hosts/{h}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its rack.
    pub rack: RackId,
    /// The agent in charge.
    pub agent: Option<AgentId>,
    /// Power state.
    pub power: PowerState,
    /// Since when.
    pub power_since: Timestamp,
    /// How the BMC can be talked to; absent before the first answer or failure.
    pub management: Option<Management>,
    /// Since when.
    pub management_since: Option<Timestamp>,
    /// The driver's last error, while it holds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<BmcError>,
    /// When the agent last vouched for this state.
    pub fresh_at: Option<Timestamp>,
    /// The state is older than three polls, or the agent is lost.
    pub stale: bool,
    /// The host's own gate.
    pub oobm_enabled: bool,
    /// Why it may not be touched, by code; absent = it may.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusal: Option<String>,
    /// Whether people work on it.
    pub maintenance: bool,
    /// Its BMC.
    pub bmc: Option<Bmc>,
    /// Effective poll interval, in seconds.
    pub poll_interval: u64,
    /// Effective time-out of operations, in seconds.
    pub action_timeout: u64,
    /// Free words.
    pub labels: BTreeMap<String, String>,
}

/// Answer of `…/oobm/{enable,disable}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enablement {
    /// `host`, `cluster` or `zone`.
    pub scope: String,
    /// Its id.
    pub id: String,
    /// Its gate now.
    pub oobm_enabled: bool,
}

/// `POST /v1/hosts/{h}/power`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// What to do.
    pub operation: PowerOperation,
    /// Time it may take, in seconds (1 – 3600); absent = the cluster's or the global one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why, for the history (at most 500 characters).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// For cycle and reset of a host that is off: switch it on instead of refusing.
    #[serde(default)]
    pub on_if_off: bool,
}

/// What an operation does: the field `operation` names it, parameters stand beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Action {
    /// Switch on.
    On,
    /// Switch off hard.
    Off,
    /// Off, at least one second, on.
    Cycle,
    /// Warm reset.
    Reset,
    /// Ask the operating system to shut down.
    Soft,
    /// Read now.
    Status,
    /// Diagnostic interrupt (NMI).
    Diag,
    /// Light the identify LED.
    Identify {
        /// For how long, in seconds (0 – 255); 0 puts it out.
        seconds: u16,
    },
    /// Choose what the host boots from.
    Bootdev {
        /// From what.
        device: BootDevice,
        /// For the next boot only, or until changed.
        persistence: Persistence,
    },
    /// Log in anew and learn what the BMC is.
    Test,
    /// Set a new login password.
    ChangePassword,
}

impl From<command::Action> for Action {
    fn from(action: command::Action) -> Self {
        match action {
            command::Action::On => Self::On,
            command::Action::Off => Self::Off,
            command::Action::Cycle => Self::Cycle,
            command::Action::Reset => Self::Reset,
            command::Action::Soft => Self::Soft,
            command::Action::Status => Self::Status,
            command::Action::Diag => Self::Diag,
            command::Action::Identify { seconds } => Self::Identify { seconds },
            command::Action::Bootdev { device, persistence } => Self::Bootdev { device, persistence },
            command::Action::Test => Self::Test,
            command::Action::ChangePassword => Self::ChangePassword,
        }
    }
}

impl From<Action> for command::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::On => Self::On,
            Action::Off => Self::Off,
            Action::Cycle => Self::Cycle,
            Action::Reset => Self::Reset,
            Action::Soft => Self::Soft,
            Action::Status => Self::Status,
            Action::Diag => Self::Diag,
            Action::Identify { seconds } => Self::Identify { seconds },
            Action::Bootdev { device, persistence } => Self::Bootdev { device, persistence },
            Action::Test => Self::Test,
            Action::ChangePassword => Self::ChangePassword,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(command::Action::from(*self).as_str())
    }
}

/// An operation, as `GET /v1/operations/{id}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What was asked: `operation`, and its parameters beside it.
    #[serde(flatten)]
    pub action: Action,
    /// Who asked.
    pub principal: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Nothing is begun after this.
    pub deadline: Timestamp,
    /// Whether every host's part has ended.
    pub done: bool,
    /// Per host.
    pub hosts: Vec<OperationHost>,
}

/// One host's part of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationHost {
    /// Which host.
    pub host: HostId,
    /// How far.
    pub state: OperationState,
    /// `changed`, `unchanged`, `read`, `refused`, `failed`, `expired`, `cancelled` or `unknown`, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<String>,
    /// The state read, for result `read`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub power: Option<PowerState>,
    /// The refusal's code, for result `refused`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusal: Option<String>,
    /// One sentence about the result.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// The driver's own error, for result `failed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bmc_error: Option<BmcError>,
    /// When it was handed to the broker.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sent_at: Option<Timestamp>,
    /// When the agent took it on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admitted_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub done_at: Option<Timestamp>,
}

/// Answer of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// Which host.
    pub host: HostId,
    /// What was asked.
    pub operation: PowerOperation,
    /// Its state now.
    pub power: PowerState,
    /// Whether people work on it.
    pub maintenance: bool,
    /// The refusal's code, if it would be refused here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusal: Option<String>,
    /// One sentence.
    pub detail: String,
}

/// `GET /v1/agents/{a}` and the retained `picket/v1/agent/{a}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// The rack it guards.
    pub rack: RackId,
    /// Whether it is heard.
    pub connected: bool,
    /// When it was last heard.
    pub last_seen: Option<Timestamp>,
    /// Its version.
    pub version: Option<String>,
    /// Reports not yet acknowledged, as it last said.
    pub outbox: u64,
    /// Hosts in its charge.
    pub hosts: u64,
    /// Whether its assignment is the newest.
    pub up_to_date: bool,
}

/// `POST /v1/agents/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// The rack the agent will guard; made if it is new and `zone` is given.
    pub rack: RackId,
    /// Agent id; absent = the rack's name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<AgentId>,
    /// How long it may be used, in seconds (60 – 604800); absent = one hour.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ttl: Option<u64>,
}

/// A join token: shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Agent id it is for.
    pub agent: AgentId,
    /// `pkj1.<sha256 of the CA key>.<id>.<secret>@host:port`.
    pub token: String,
    /// The line to paste on the rack controller.
    pub command: String,
    /// Not usable after this.
    pub expires_at: Timestamp,
}

/// `POST /v1/agents/join`: anonymous, proven by the HMAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// Id part of the token.
    pub token_id: String,
    /// Certificate request, PEM.
    pub csr: String,
    /// X25519 public key passwords are sealed to, hex.
    pub sealing_key: String,
    /// [`crate::join::proof`] over all of the above and the CA hash, hex.
    pub proof: String,
}

/// Answer to a join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// Agent id.
    pub agent: AgentId,
    /// Site id.
    pub site: String,
    /// Its certificate and chain, PEM.
    pub certificate: String,
    /// CA bundle, PEM.
    pub ca: String,
    /// The aggregator's Ed25519 keys for signed messages, hex.
    pub verifying_keys: Vec<String>,
    /// Where MQTT is: `host:port`.
    pub mqtt: String,
    /// The same HMAC key over the answer's fields, hex: the server knew the token too.
    pub proof: String,
}

/// `POST /v1/consumers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerRequest {
    /// Name of the consumer.
    pub name: ConsumerId,
    /// How long its certificate is good, in days (1 – 825); absent = 90.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub days: Option<u32>,
}

/// A consumer's certificate and key: shown once, the key is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerCertificate {
    /// Name of the consumer.
    pub name: ConsumerId,
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub private_key: String,
    /// CA bundle, PEM.
    pub ca: String,
    /// Where MQTT is: `host:port`.
    pub mqtt: String,
    /// Not usable after this.
    pub expires_at: Timestamp,
}

/// What a bearer token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Switches power.
    Operator,
    /// Fences.
    Fencer,
    /// Everything.
    Admin,
    /// Reads the audit log.
    Auditor,
}

/// Where a bearer token may do it; all absent = everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Only these zones.
    #[serde(default)]
    pub zones: Vec<ZoneId>,
    /// Only these clusters.
    #[serde(default)]
    pub clusters: Vec<ClusterId>,
    /// Only these hosts.
    #[serde(default)]
    pub hosts: Vec<HostId>,
}

/// `GET /v1/alerts` and, while firing, the retained `picket/v1/alert/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// `{kind}.{host}`, or `{kind}.{agent}` for an alert of an agent.
    pub id: String,
    /// What it says.
    pub kind: AlertKind,
    /// Whether it still holds.
    pub state: AlertState,
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
    /// Which host; absent for alerts of agents.
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

/// `GET /v1/summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// All hosts.
    pub hosts: Counts,
    /// By zone.
    pub zones: BTreeMap<ZoneId, Counts>,
    /// By cluster.
    pub clusters: BTreeMap<ClusterId, Counts>,
    /// By rack.
    pub racks: BTreeMap<RackId, Counts>,
    /// Agents heard now.
    pub agents_connected: u64,
    /// Agents known.
    pub agents: u64,
    /// Alerts firing.
    pub alerts_firing: u64,
}

/// Hosts by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Hosts that are on.
    pub on: u64,
    /// Hosts that are off.
    pub off: u64,
    /// Hosts whose state cannot be told.
    pub unknown: u64,
    /// Hosts that may not be touched.
    pub disabled: u64,
    /// Hosts among these whose state is stale.
    pub stale: u64,
}

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
        #[serde(flatten)]
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
    pub ha: String,
    /// Host status; `unknown` until HA is set up.
    pub host_status: String,
    /// Sequence of the change in the aggregator's store.
    pub seq: u64,
    /// When the change was observed.
    pub observed_at: Timestamp,
    /// Seconds without word from the agent after which this is stale.
    pub stale_after: u64,
    /// Whether it is stale.
    pub stale: bool,
}

/// RFC 9457 `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI reference naming the kind of problem: `/problems/{code}`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short, the same for all problems of this code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What exactly is wrong here, naming the field or thing.
    pub detail: String,
    /// Stable code.
    pub code: String,
    /// To find it in the log.
    pub request_id: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// The driver's own error.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bmc_error: Option<BmcError>,
}

/// `GET /v1/drivers`: none of the centre's business beyond names; agents check the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// Name.
    pub name: String,
    /// One line.
    pub summary: String,
}

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is, for histories and the audit log (1 – 64 characters).
    pub name: String,
    /// What it may do: no more than its maker's.
    pub role: Role,
    /// Where it may do it: nowhere its maker's may not.
    #[serde(default)]
    pub scope: Scope,
    /// How long it may be used, in seconds (60 – 315360000); absent = as long as its maker's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ttl: Option<u64>,
}

/// `GET /v1/tokens/{id}`: never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id: the first 16 digits of its SHA-256.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; all empty = everywhere.
    pub scope: Scope,
    /// Not usable after this; absent = for ever.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used since the aggregator started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_used_at: Option<Timestamp>,
}

/// Answer of `POST /v1/tokens`: the token, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// As it is shown from now on.
    #[serde(flatten)]
    pub token: Token,
    /// `pkt_…`, for `Authorization: Bearer`.
    pub secret: String,
}

/// A line of the audit log, as `GET /v1/audit` shows it, oldest first. Its hash is that of [`crate::audit`], over all other fields
/// as they are here: fields that a newer aggregator adds count too, so verify what was received, not what was understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its place in the chain, from 1.
    pub sequence: u64,
    /// What was done, by whom, and what came of it.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// Hash of the record before it, hex.
    pub previous: String,
    /// Its own hash, hex.
    pub hash: String,
}

/// What a line of the audit log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: a token's name, `join:ID` for a join, `-` for nobody known, `picket` for the aggregator itself.
    pub principal: String,
    /// Id of the token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    /// HTTP path, without its query.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// What it was about: `host/r07n01`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource: Option<String>,
    /// What was asked, in one line, without secrets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub summary: Option<String>,
    /// Why, as the asker said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// What came of it.
    pub result: AuditResult,
    /// HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// The problem's code, or how an operation ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// The request's id, as in `X-Request-Id` and in the log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// The operation that was begun, or that ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operation_id: Option<OperationId>,
    /// Refused requests like this one that were not written down since the last one: there were too many.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suppressed: Option<u64>,
    /// Says that the records through a sequence were pruned for their age.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint: Option<AuditCheckpoint>,
}

/// What came of an audited request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditResult {
    /// It was done, or accepted.
    Granted,
    /// It was not allowed, or made no sense.
    Refused,
    /// It could not be done.
    Failed,
    /// An operation accepted earlier has ended.
    Ended,
}

/// The end of what was pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCheckpoint {
    /// The last record pruned.
    pub through: u64,
    /// Its hash.
    pub hash: String,
}

/// `GET /v1/audit/verify`: the whole chain, walked by the aggregator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditVerdict {
    /// Whether nothing is wrong.
    pub intact: bool,
    /// What is, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<String>,
    /// Records walked.
    pub records: u64,
    /// What record 1 names as the one before it: see [`crate::audit::genesis`].
    pub genesis: String,
    /// Sequence of the last record written.
    pub sequence: u64,
    /// Its hash: keep it elsewhere, and nothing up to here can be changed unnoticed even by who can write the store.
    pub hash: String,
}
