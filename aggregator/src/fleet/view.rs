//! The global view: what the aggregator knows, as rows that are also what the store keeps. Cheap to copy, so readers never wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use jiff::Timestamp;
use picket_common::alert::{AlertKind, Matcher};
use picket_common::api;
use picket_common::api::ha::{BrakesOwn, HaOwn, PauseWindow};
use picket_common::command::{Action, BmcError, OperationState, Outcome};
use picket_common::facts::Facts;
use picket_common::ha::HostStatus;
use picket_common::id::{AgentId, ClusterId, HostId, OperationId, RackId, ReceiverId, ZoneId};
use picket_common::power::{Management, PowerState};
use picket_common::seal::{Sealed, SealingKey};
use picket_common::wire::ha::{HaReport, JudgedReport};
use picket_common::wire::report::InForce;
use picket_common::wire::{Generation, Incarnation, Session};
use serde::{Deserialize, Serialize};

use super::request::Gate;

/// An immutable snapshot; cloning it shares everything.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Zones by id.
    pub zones: OrdMap<ZoneId, Arc<ZoneRow>>,
    /// Clusters by id.
    pub clusters: OrdMap<ClusterId, Arc<ClusterRow>>,
    /// Racks by id.
    pub racks: OrdMap<RackId, Arc<RackRow>>,
    /// Hosts by id.
    pub hosts: OrdMap<HostId, Arc<HostRow>>,
    /// What is known of each host's power: kept apart, it changes far more often than the settings.
    pub power: OrdMap<HostId, Arc<PowerRow>>,
    /// Agents by id.
    pub agents: OrdMap<AgentId, Arc<AgentRow>>,
    /// Presence of agents; not stored.
    pub presence: OrdMap<AgentId, Arc<Presence>>,
    /// Join tokens by id.
    pub join_tokens: OrdMap<Arc<str>, Arc<JoinTokenRow>>,
    /// Tokens of witnesses by id.
    pub witness_tokens: OrdMap<Arc<str>, Arc<WitnessTokenRow>>,
    /// API tokens by hash (SHA-256, hex).
    pub api_tokens: OrdMap<Arc<str>, Arc<ApiTokenRow>>,
    /// Operations that are not done, and the last ones that are.
    pub operations: OrdMap<OperationId, Arc<Operation>>,
    /// Password changes that are not over.
    pub pending: OrdMap<HostId, Arc<PendingPasswordRow>>,
    /// What BMCs are and can do.
    pub facts: OrdMap<HostId, Arc<FactsRow>>,
    /// Where hosts stand in host-HA, as their agents said.
    pub reported: OrdMap<HostId, Arc<Reported>>,
    /// Alerts firing, and the last ones resolved, by id.
    pub alerts: OrdMap<Arc<str>, Arc<api::Alert>>,
    /// Silences, and the last ones that ended, by id.
    pub silences: OrdMap<Arc<str>, Arc<SilenceRow>>,
    /// Index: hosts of each rack that has any.
    pub rack_hosts: OrdMap<RackId, OrdSet<HostId>>,
    /// Index: hosts of each cluster that has any.
    pub cluster_hosts: OrdMap<ClusterId, OrdSet<HostId>>,
    /// What somebody set of host-HA, by where.
    pub ha: OrdMap<Gate, Arc<HaSet>>,
    /// Site-wide settings.
    pub settings: SiteSettings,
}

impl View {
    /// The agent in charge of a host.
    #[must_use]
    pub fn agent_of(&self, host: &HostRow) -> Option<&Arc<AgentRow>> {
        self.agents.get(self.racks.get(&host.rack)?.agent.as_ref()?)
    }

    /// The hosts an agent is in charge of; none when another agent has taken its rack.
    #[must_use]
    pub fn hosts_of(&self, agent: &AgentId) -> OrdSet<HostId> {
        let rack = self.agents.get(agent).and_then(|row| self.racks.get(&row.rack));
        let in_charge = rack.filter(|rack| rack.agent.as_ref() == Some(agent));
        in_charge.and_then(|rack| self.rack_hosts.get(&rack.id)).cloned().unwrap_or_default()
    }

    /// The API token of an id.
    #[must_use]
    pub fn api_token(&self, id: &str) -> Option<&Arc<ApiTokenRow>> {
        let (_, row) = self.api_tokens.range(Arc::<str>::from(id)..).next()?;
        (token_id(&row.hash) == id).then_some(row)
    }

    /// The hosts of a cluster.
    #[must_use]
    pub fn hosts_of_cluster(&self, cluster: &ClusterId) -> OrdSet<HostId> {
        self.cluster_hosts.get(cluster).cloned().unwrap_or_default()
    }
}

/// Site-wide settings of both sources; what the API set goes before the file. See [`super::effective`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SiteSettings {
    /// Of the aggregator's own file.
    pub file: Settings,
    /// Set by the API, stored.
    pub api: Settings,
}

/// Site-wide settings of one source: absent = it does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Poll interval, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sync_interval: Option<u64>,
    /// Time-out of operations, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action_timeout: Option<u64>,
    /// Most polls that an agent may have in flight.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sync_poolsize: Option<u32>,
    /// Option `interface` of the driver `ipmitool`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ipmitool_interface: Option<String>,
    /// Option `retries` of the driver `ipmitool`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ipmitool_retries: Option<u32>,
}

/// A row of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is the row of its name")]
pub enum Row {
    Zone(ZoneRow),
    Cluster(ClusterRow),
    Rack(RackRow),
    Host(HostRow),
    Power(PowerRow),
    Agent(AgentRow),
    JoinToken(JoinTokenRow),
    ApiToken(ApiTokenRow),
    Operation(OperationRow),
    Alert(AlertRow),
    Part(PartRow),
    Pending(PendingPasswordRow),
    Facts(FactsRow),
    Settings(SettingsRow),
    Silence(SilenceRow),
    Outbox(OutboxRow),
    Ha(HaRow),
    Reported(ReportedRow),
    WitnessToken(WitnessTokenRow),
    Budget(BudgetRow),
}

/// Names a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the key of the row of its name")]
pub enum RowKey {
    Zone(ZoneId),
    Cluster(ClusterId),
    Rack(RackId),
    Host(HostId),
    Power(HostId),
    Agent(AgentId),
    JoinToken(String),
    ApiToken(String),
    Operation(OperationId),
    Alert(String),
    Part(OperationId, HostId),
    Pending(HostId),
    Facts(HostId),
    Settings,
    Silence(String),
    Outbox(String),
    Ha(Gate),
    Reported(HostId),
    WitnessToken(String),
    Budget(ClusterId),
}

impl Row {
    /// The key it is kept under.
    #[must_use]
    pub fn key(&self) -> RowKey {
        match self {
            Self::Zone(row) => RowKey::Zone(row.id.clone()),
            Self::Cluster(row) => RowKey::Cluster(row.id.clone()),
            Self::Rack(row) => RowKey::Rack(row.id.clone()),
            Self::Host(row) => RowKey::Host(row.id.clone()),
            Self::Power(row) => RowKey::Power(row.host.clone()),
            Self::Agent(row) => RowKey::Agent(row.id.clone()),
            Self::JoinToken(row) => RowKey::JoinToken(row.id.clone()),
            Self::WitnessToken(row) => RowKey::WitnessToken(row.id.clone()),
            Self::ApiToken(row) => RowKey::ApiToken(row.hash.clone()),
            Self::Operation(row) => RowKey::Operation(row.id),
            Self::Alert(row) => RowKey::Alert(row.id.clone()),
            Self::Part(row) => RowKey::Part(row.operation, row.host.clone()),
            Self::Pending(row) => RowKey::Pending(row.host.clone()),
            Self::Facts(row) => RowKey::Facts(row.host.clone()),
            Self::Settings(_) => RowKey::Settings,
            Self::Silence(row) => RowKey::Silence(row.id.clone()),
            Self::Outbox(row) => row.key(),
            Self::Ha(row) => RowKey::Ha(row.of.clone()),
            Self::Reported(row) => RowKey::Reported(row.host.clone()),
            Self::Budget(row) => RowKey::Budget(row.cluster.clone()),
        }
    }
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRow {
    /// Its id.
    pub id: ZoneId,
    /// Its gate; absent = enabled.
    pub oobm: Option<bool>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// Its id.
    pub id: ClusterId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its gate; absent = enabled.
    pub oobm: Option<bool>,
    /// Poll interval of its hosts, in seconds.
    pub poll_interval: Option<u64>,
    /// Time-out of operations, in seconds.
    pub action_timeout: Option<u64>,
    /// What its hosts inherit where they have no BMC setting of their own.
    pub bmc: DefaultsRow,
}

/// BMC settings that a cluster's hosts inherit; port and options only with the same driver, the password only with the name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultsRow {
    /// Driver name, lower case.
    pub driver: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Login name.
    pub username: Option<String>,
    /// Login password; only beside a login name.
    pub password: Option<SharedPassword>,
    /// The driver's options; only beside a driver.
    pub options: BTreeMap<String, String>,
}

/// A password that several agents can open, and the aggregator cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPassword {
    /// Copies by the key they are sealed to.
    pub copies: Vec<(SealingKey, Sealed)>,
    /// Sealed to the site's recovery key.
    pub recovery: Sealed,
}

impl SharedPassword {
    /// The copy that the agent with this key can open.
    #[must_use]
    pub fn copy_for(&self, key: &SealingKey) -> Option<&Sealed> {
        self.copies.iter().find(|(of, _)| of == key).map(|(_, sealed)| sealed)
    }
}

/// A rack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackRow {
    /// Its id.
    pub id: RackId,
    /// Its zone.
    pub zone: ZoneId,
    /// The agent that guards it.
    pub agent: Option<AgentId>,
    /// Owner epoch: one higher at each join.
    pub epoch: u64,
}

/// A host's settings and gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// Its id.
    pub id: HostId,
    /// Its zone: always its cluster's, kept here because every event and topic names it.
    pub zone: ZoneId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its rack.
    pub rack: RackId,
    /// Its own gate; absent = disabled.
    pub oobm: Option<bool>,
    /// Grows whenever a gate that concerns the host changes.
    pub enablement: u64,
    /// Its BMC.
    pub bmc: Option<BmcRow>,
    /// Whether people work on it.
    pub maintenance: bool,
    /// Poll interval, in seconds.
    pub poll_interval: Option<u64>,
    /// Time-out of operations, in seconds.
    pub action_timeout: Option<u64>,
    /// Free words.
    pub labels: BTreeMap<String, String>,
}

/// A host's own BMC settings; what is absent is inherited: [`super::effective`] says what is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcRow {
    /// Driver name, lower case.
    pub driver: Option<String>,
    /// IP address or name; never inherited.
    pub address: String,
    /// Port.
    pub port: Option<u16>,
    /// Login name.
    pub username: Option<String>,
    /// Login password, sealed twice, for this address and login name; only beside a login name of its own.
    pub password: Option<SealedPassword>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Grows whenever what the agent is told of this BMC changes, whoever set it.
    pub revision: u64,
}

/// A password that the aggregator cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedPassword {
    /// Sealed to this key of the agent in charge …
    pub agent_key: SealingKey,
    /// … as this.
    pub agent: Sealed,
    /// Sealed to the site's recovery key.
    pub recovery: Sealed,
}

/// What is known of a host's power.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerRow {
    /// Which host.
    pub host: HostId,
    /// Power state.
    pub power: PowerState,
    /// Since when, by the observer's clock.
    pub power_since: Timestamp,
    /// Management state.
    pub management: Option<Management>,
    /// Since when.
    pub management_since: Option<Timestamp>,
    /// The driver's last error, while it holds.
    pub error: Option<BmcError>,
    /// Store-wide sequence of the last change.
    pub sequence: u64,
    /// Whether the retained state says stale.
    pub stale: bool,
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRow {
    /// Its id.
    pub id: AgentId,
    /// The rack it guards.
    pub rack: RackId,
    /// Passwords are sealed to this key.
    pub sealing_key: SealingKey,
    /// SHA-256 of its certificate's public key, hex.
    pub public_key: String,
    /// The journal its sequence belongs to.
    pub boot: Option<Incarnation>,
    /// Last durable sequence of that journal.
    pub acked: u64,
    /// Journals it used before, oldest first, with their last durable sequence: a restored one is not counted twice.
    pub earlier: Vec<(Incarnation, u64)>,
    /// How often a journal of it was found to be an older copy of itself, so that its sequences were used again.
    pub rolled_back: u64,
    /// The assignment it should hold; the counter grows with every change of it.
    pub generation: Generation,
}

/// An agent's presence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Its connection.
    pub session: Option<Session>,
    /// Whether it is heard.
    pub connected: bool,
    /// Whether all it had to report when it connected has arrived; before that its hosts stay stale.
    pub caught_up: bool,
    /// When it was last heard.
    pub last_seen: Option<Timestamp>,
    /// When it last vouched for its hosts: its last hello or heartbeat.
    pub vouched_at: Option<Timestamp>,
    /// The same on the monotonic clock.
    pub last_seen_boottime: std::time::Duration,
    /// Its version.
    pub version: Option<String>,
    /// Reports not yet acknowledged, as it last said.
    pub outbox: u64,
    /// The assignment it says it holds.
    pub generation: Option<Generation>,
    /// Hosts it says it could not read in time.
    pub overdue: OrdSet<HostId>,
    /// When each of those was last vouched for, if ever in this aggregator's life.
    pub overdue_vouched: OrdMap<HostId, Timestamp>,
}

/// A join token. Its secret is needed to check the proof, so it is kept until it is used or expired.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRow {
    /// Id part of the token.
    pub id: String,
    /// Secret part, hex.
    pub secret: String,
    /// The agent it is for.
    pub agent: AgentId,
    /// The rack that agent will guard.
    pub rack: RackId,
    /// Not usable after this.
    pub expires_at: Timestamp,
    /// The request that used it and the certificate that was the answer: the same request gets the same answer.
    pub used: Option<(String, String)>,
}

impl std::fmt::Debug for JoinTokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinTokenRow").field("id", &self.id).field("agent", &self.agent).finish_non_exhaustive()
    }
}

/// A token for a host's witness. Its secret is needed to check the proof, so it is kept until it is used or expired.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessTokenRow {
    /// Id part of the token.
    pub id: String,
    /// Secret part, hex.
    pub secret: String,
    /// The host it is for.
    pub host: HostId,
    /// Not usable after this.
    pub expires_at: Timestamp,
    /// The request that used it and the certificate that was the answer: the same request gets the same answer.
    pub used: Option<(String, String)>,
}

impl std::fmt::Debug for WitnessTokenRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WitnessTokenRow").field("id", &self.id).field("host", &self.host).finish_non_exhaustive()
    }
}

/// A bearer token: only its hash is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiTokenRow {
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// Whose it is, for the history.
    pub name: String,
    /// What it may do.
    pub role: api::Role,
    /// Where.
    pub scope: api::Scope,
    /// Not usable after this; absent = for ever.
    pub expires_at: Option<Timestamp>,
}

/// The id of the token with this hash: enough of it to tell tokens apart, far too little to guess one.
#[must_use]
pub fn token_id(hash: &str) -> &str {
    hash.get(..16).unwrap_or(hash)
}

/// An operation with its parts: kept apart, so that a part that goes on costs no more with ten thousand others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub row: OperationRow,
    /// Per host.
    pub parts: OrdMap<HostId, Arc<PartRow>>,
    /// How many parts have not ended.
    pub open: usize,
}

impl Operation {
    /// An operation and its parts.
    #[must_use]
    pub fn new(row: OperationRow, parts: impl IntoIterator<Item = PartRow>) -> Self {
        let parts: OrdMap<HostId, Arc<PartRow>> = parts.into_iter().map(|part| (part.host.clone(), Arc::new(part))).collect();
        let open = parts.values().filter(|part| part.state != OperationState::Done).count();
        Self { row, parts, open }
    }

    /// When the last part ended; absent while one has not. Looks at every part of an operation that has ended.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        if self.open > 0 {
            return None;
        }
        self.parts.values().filter_map(|part| part.done_at).max()
    }
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRow {
    /// Its id.
    pub id: OperationId,
    /// What was asked.
    pub operation: Action,
    /// For cycle and reset of a host that is off.
    pub on_if_off: bool,
    /// Who asked.
    pub principal: String,
    /// Why.
    pub reason: Option<String>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The last of its parts' deadlines.
    pub deadline: Timestamp,
    /// Pause between the starts of two hosts, in milliseconds.
    pub stagger_ms: u64,
}

/// One host's part of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// Of which operation.
    pub operation: OperationId,
    /// Which host.
    pub host: HostId,
    /// How far.
    pub state: OperationState,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Whether somebody wants it taken back and the agent has not said yet what came of it.
    pub cancelling: bool,
    /// Whether people worked on the host when it was accepted.
    pub maintenance: bool,
    /// It is not sent before this.
    pub starts_at: Timestamp,
    /// Nothing is begun after this.
    pub deadline: Timestamp,
    /// When it was handed to the broker.
    pub sent_at: Option<Timestamp>,
    /// The host's enablement then: under another one it is not sent again.
    pub sent_enablement: Option<u64>,
    /// When the agent took it on.
    pub admitted_at: Option<Timestamp>,
    /// When it ended.
    pub done_at: Option<Timestamp>,
}

/// A password change that is not over: what is in force on the BMC is not known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingPasswordRow {
    /// Which host.
    pub host: HostId,
    /// The operation that changes it.
    pub operation: OperationId,
    /// The BMC's address the new password is sealed for.
    pub address: String,
    /// The login name it is sealed for.
    pub username: String,
    /// The new password.
    pub password: SealedPassword,
    /// Revision of the BMC settings that the change starts from.
    pub base_revision: u64,
    /// Revision they will have when the new password is in force.
    pub revision: u64,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// What the agent said last of it, and when: `Neither`, or `Old`, which a BMC that was slow to take the new one may yet make
    /// untrue.
    pub told: Option<(InForce, Timestamp)>,
}

impl PendingPasswordRow {
    /// Whether the old password is the one in force, as far as anybody knows: then nothing needs to wait for this.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        matches!(self.told, Some((InForce::Old, _)))
    }
}

/// What a BMC is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsRow {
    /// Which host.
    pub host: HostId,
    /// What was learned last.
    pub facts: Facts,
    /// Revision of the BMC settings it was learned with.
    pub revision: u64,
    /// When.
    pub observed_at: Timestamp,
    /// What was learned with settings before this revision is of another BMC.
    pub least_revision: u64,
    /// The identity of the machine that is taken for the right one.
    pub pinned: Option<String>,
}

impl FactsRow {
    /// Whether the machine that answered last is not the one that is taken for the right one. A BMC that does not say who it is
    /// contradicts nothing.
    #[must_use]
    pub fn identity_differs(&self) -> bool {
        matches!((&self.pinned, &self.facts.identity), (Some(pinned), Some(found)) if pinned != found)
    }
}

/// Where a host stands in host-HA, as its agent said last, and what was concluded from that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// The journal that the report is of: `{agent}:{journal}`. Another one counts its versions anew, and does not vouch for it.
    pub journal: String,
    /// The newest report.
    pub report: Option<HaReport>,
    /// Whether reports were lost since: what was said last may not hold any more.
    pub doubted: bool,
    /// Since when it is in that state, by the agent's clock.
    pub since: Timestamp,
    /// In whose name its fence was begun: `policy`, `proof` or a principal.
    pub by: Option<String>,
    /// What the gates said last to an act on it.
    pub judged: Option<JudgedReport>,
    /// What they said last to somebody who only wanted to know.
    pub planned: Option<JudgedReport>,
    /// What orchestrators were told last.
    pub status: HostStatus,
    /// Since when.
    pub status_since: Timestamp,
    /// Store-wide sequence of the last change of any of this.
    pub sequence: u64,
}

/// The same as the store keeps it: JSON, which grows. Every field that [`HaReport`] and [`JudgedReport`] get later needs a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedRow {
    /// Which host.
    pub host: HostId,
    /// See [`Reported`].
    pub json: String,
}

/// What the API set of the site's settings: JSON of [`Settings`], which grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRow {
    /// See [`Settings`].
    pub json: String,
}

/// An alert as the store keeps it: JSON, for [`api::Alert`] leaves fields out, which postcard cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRow {
    /// Its id.
    pub id: String,
    /// [`api::Alert`] as JSON.
    pub json: String,
}

/// A silence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceRow {
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
    pub comment: Option<String>,
}

/// What a receiver believes of a group of alerts, and what is under way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Who.
    pub receiver: ReceiverId,
    /// The alerts' zone.
    pub zone: ZoneId,
    /// Their cluster; none for alerts of agents.
    pub cluster: Option<ClusterId>,
    /// Their kind.
    pub kind: AlertKind,
    /// Id of the first delivery.
    pub thread: Option<String>,
    /// When the last one was sent.
    pub last_sent: Option<Timestamp>,
    /// What it was told.
    pub told: Vec<ToldRow>,
    /// What is under way.
    pub letter: Option<LetterRow>,
}

/// An alert that a receiver was told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldRow {
    /// Its id.
    pub alert: String,
    /// Which time of it.
    pub starts_at: Timestamp,
    /// When it ended, if that was told and is told again.
    pub ended: Option<Timestamp>,
}

/// A delivery under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterRow {
    /// Its id.
    pub id: String,
    /// When it was put together.
    pub made_at: Timestamp,
    /// How often it failed.
    pub attempts: u32,
    /// When it is tried again.
    pub next_try: Option<Timestamp>,
    /// Its [`api::News`] as JSON, as with [`AlertRow`].
    pub news: String,
}

/// What somebody set of host-HA for a zone, a cluster or a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HaSet {
    /// Its HA gate; absent = enabled for a zone and a cluster, disabled for a host.
    pub gate: Option<bool>,
    /// Settings of a cluster or a host.
    pub settings: HaOwn,
    /// Brakes of a cluster.
    pub brakes: BrakesOwn,
    /// A window in which nothing disruptive is done by itself.
    pub pause: Option<PauseWindow>,
}

/// The same as the store keeps it: JSON of [`HaSet`], which grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaRow {
    /// Where.
    pub of: Gate,
    /// See [`HaSet`].
    pub json: String,
}

/// What was leased of a cluster's cap, and what its agents had: JSON, which grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetRow {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The ledger.
    pub json: String,
}
