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
use crate::facts::Facts;
use crate::id::{AgentId, ClusterId, ConsumerId, HostId, OperationId, RackId, ZoneId};
use crate::power::{Cause, Management, PowerOperation, PowerState};
use crate::secret::Secret;
use crate::wire::report::InForce;

/// A field of a `PATCH`: left out, `null`, or a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// Left out: stays as it is.
    #[default]
    Keep,
    /// `null`: goes back to what is inherited, or to nothing.
    Unset,
    /// A value.
    Set(T),
}

impl<T> Field<T> {
    /// The value after the change of one that was `kept`.
    pub fn over(self, kept: Option<T>) -> Option<T> {
        match self {
            Self::Keep => kept,
            Self::Unset => None,
            Self::Set(value) => Some(value),
        }
    }

    /// Whether it was left out.
    #[must_use]
    pub const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The value, if there is one.
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Keep | Self::Unset => None,
        }
    }
}

/// A value that may be left out of a body that is taken as a whole.
impl<T> From<Option<T>> for Field<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Keep, Self::Set)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Unset, Self::Set))
    }
}

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
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterBody {
    /// The zone it lies in.
    pub zone: ZoneId,
    /// Poll interval of its hosts, in seconds (1 – 3600); absent = the global one.
    #[serde(default)]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds (1 – 3600); absent = the global one.
    #[serde(default)]
    pub action_timeout: Option<u64>,
    /// What its hosts inherit where they have no BMC setting of their own. Left out = stays as it is, so that whoever knows
    /// nothing of it does not take the login away from a whole cluster; `null` = nothing.
    #[serde(default)]
    pub bmc: Field<BmcDefaultsBody>,
}

/// `PATCH /v1/clusters/{c}`: only what is given changes; `null` = nothing of its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterPatch {
    /// The zone it lies in; changes only while it has no hosts.
    #[serde(default)]
    pub zone: Option<ZoneId>,
    /// Poll interval of its hosts, in seconds (1 – 3600).
    #[serde(default)]
    pub poll_interval: Field<u64>,
    /// Time an operation may take, in seconds (1 – 3600).
    #[serde(default)]
    pub action_timeout: Field<u64>,
    /// What its hosts inherit, field by field.
    #[serde(default)]
    pub bmc: Field<BmcDefaultsBody>,
}

/// BMC settings that a cluster's hosts inherit: whole in `PUT`, field by field in `PATCH`. An address is always a host's own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcDefaultsBody {
    /// Driver name, in any case.
    #[serde(default)]
    pub driver: Field<String>,
    /// Port; inherited by hosts with this driver.
    #[serde(default)]
    pub port: Field<u16>,
    /// Login name. It is inherited together with the password: a host with a name of its own does not get this password.
    #[serde(default)]
    pub username: Field<String>,
    /// Login password; write-only.
    #[serde(default)]
    pub password: Field<Secret<String>>,
    /// The driver's options, inherited key by key by hosts with this driver; replaces all.
    #[serde(default)]
    pub options: Field<BTreeMap<String, String>>,
}

/// `GET /v1/clusters/{c}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// As put.
    #[serde(flatten)]
    pub body: ClusterSettings,
    /// Its gate.
    pub oobm_enabled: bool,
}

/// A cluster's settings as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// The zone it lies in.
    pub zone: ZoneId,
    /// Poll interval of its hosts, in seconds; absent = the global one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds; absent = the global one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action_timeout: Option<u64>,
    /// What its hosts inherit; absent = nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bmc: Option<BmcDefaults>,
}

/// BMC settings that a cluster's hosts inherit, as shown: never the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcDefaults {
    /// Driver name, lower case.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub driver: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// Login name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub username: Option<String>,
    /// Whether a password is stored.
    pub password_set: bool,
    /// Agents of the zone that have no copy of the password: their hosts need `secrets reseal`, or the password again.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub agents_without_password: Vec<AgentId>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
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

/// A BMC's settings in `PUT` of a host: the whole of what is its own. What is left out, `null` or empty is inherited from the
/// cluster, then from the site, then the driver's default; a stored password stays as long as address and name do.
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

/// A BMC's settings in `PATCH` of a host: what is left out or empty stays, `null` is inherited from then on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcPatch {
    /// Driver name, in any case.
    #[serde(default)]
    pub driver: Field<String>,
    /// IP address or name.
    #[serde(default)]
    pub address: Field<String>,
    /// Port.
    #[serde(default)]
    pub port: Field<u16>,
    /// Login name; `null` takes the password along, for the pair is never made of two sources.
    #[serde(default)]
    pub username: Field<String>,
    /// Login password; write-only. A password of its own makes the login name the host's own as well.
    #[serde(default)]
    pub password: Field<Secret<String>>,
    /// The driver's options; replaces all of the host's own.
    #[serde(default)]
    pub options: Field<BTreeMap<String, String>>,
    /// Take the machine that answers now for the right one: its identity is pinned anew.
    #[serde(default)]
    pub repin: bool,
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
    /// Time an operation may take, in seconds (1 – 3600); absent = the cluster's.
    #[serde(default)]
    pub action_timeout: Option<u64>,
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
    /// Its BMC, field by field; `null` = not configured any more.
    #[serde(default)]
    pub bmc: Field<BmcPatch>,
    /// Whether people work on it.
    #[serde(default)]
    pub maintenance: Option<bool>,
    /// Poll interval in seconds (1 – 3600).
    #[serde(default)]
    pub poll_interval: Field<u64>,
    /// Time an operation may take, in seconds (1 – 3600).
    #[serde(default)]
    pub action_timeout: Field<u64>,
    /// Replaces all labels.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A BMC's settings in force, as shown: never the password. See [`Effective`] for where each comes from.
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

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The host's own.
    Host,
    /// Its cluster's.
    Cluster,
    /// The site's settings.
    Global,
    /// Nobody set it.
    Default,
}

/// A value in force, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Valued<T> {
    /// The value.
    pub value: T,
    /// From where.
    pub from: Origin,
}

/// All settings of a host that are in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// Its BMC's; absent when not configured.
    #[serde(flatten)]
    pub bmc: Option<EffectiveBmc>,
    /// Poll interval, in seconds.
    pub poll_interval: Valued<u64>,
    /// Time an operation may take, in seconds.
    pub action_timeout: Valued<u64>,
}

/// See [`Effective::bmc`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveBmc {
    /// Driver name.
    pub driver: Valued<String>,
    /// IP address or name.
    pub address: Valued<String>,
    /// Port; absent where the driver has none.
    pub port: Valued<Option<u16>>,
    /// Login name.
    pub username: Valued<String>,
    /// Whether there is a password that the agent in charge can open.
    pub password_set: Valued<bool>,
    /// The driver's options, its defaults among them.
    pub options: BTreeMap<String, Valued<String>>,
}

/// What a BMC is and can do, as learned at first contact or at the last test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// What was learned.
    #[serde(flatten)]
    pub facts: Facts,
    /// When.
    pub observed_at: Timestamp,
    /// The identity of the machine that is taken for the right one: that of the first contact, or of the last `repin`.
    pub identity_pinned: Option<String>,
    /// Whether the machine that answered last is another one.
    pub identity_differs: bool,
}

/// A password change of a host that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordChange {
    /// The operation.
    pub operation: OperationId,
    /// Since when.
    pub since: Timestamp,
    /// `open`: under way; `unresolved`: the operation ended and nobody knows which password is in force; `neither`: the BMC
    /// takes neither the old nor the new one.
    pub state: PasswordChangeState,
}

/// See [`PasswordChange::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PasswordChangeState {
    /// Under way.
    Open,
    /// Over, without a word on which password is in force.
    Unresolved,
    /// Both are refused.
    Neither,
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
    /// Where each setting comes from; with one host only, not in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effective: Option<Box<Effective>>,
    /// What its BMC is and can do; with one host only, not in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facts: Option<Box<HostFacts>>,
    /// A password change that is not over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub password_change: Option<PasswordChange>,
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

/// `POST /v1/operations`: one operation of many hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationRequest {
    /// Host set: `r07n[01-48],@cluster:c2!@state:off`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub select: Option<String>,
    /// Hosts by name, in place of `select`; they are begun in this order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hosts: Option<Vec<HostId>>,
    /// What to do.
    pub operation: OperationWord,
    /// For `identify`: how long, in seconds (0 – 255); 0 puts it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<u16>,
    /// For `bootdev`: from what.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<BootDevice>,
    /// For `bootdev`: for how long; absent = once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub persistence: Option<Persistence>,
    /// Time each host may take from its own start, in seconds (1 – 3600); absent = the host's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why, for the history (at most 500 characters).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Pause between the starts of two hosts, in seconds (at most 3600).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stagger: Option<u64>,
    /// The same in milliseconds, in place of `stagger`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stagger_ms: Option<u64>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// For cycle and reset of a host that is off: switch it on instead of refusing.
    #[serde(default)]
    pub on_if_off: bool,
}

/// What can be asked of many hosts at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the action of its name")]
pub enum OperationWord {
    On,
    Off,
    Cycle,
    Reset,
    Soft,
    Status,
    Diag,
    Identify,
    Bootdev,
    Test,
}

/// `POST /v1/hosts/{h}/identify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentifyRequest {
    /// How long, in seconds (0 – 255); 0 puts it out, absent = 15.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<u16>,
    /// Time it may take, in seconds (1 – 3600).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// `POST /v1/hosts/{h}/bootdev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootdevRequest {
    /// From what.
    pub device: BootDevice,
    /// For how long; absent = once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub persistence: Option<Persistence>,
    /// Time it may take, in seconds (1 – 3600).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// `POST /v1/hosts/{h}/bmc/test`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestRequest {
    /// Time it may take, in seconds (1 – 3600).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// `POST /v1/hosts/{h}/bmc/change-password`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePasswordRequest {
    /// The new password; absent = one is generated.
    #[serde(default)]
    pub password: Option<Secret<String>>,
    /// Whether the answer shows the generated one. It can never be read again.
    #[serde(default)]
    pub return_generated: bool,
    /// Time it may take, in seconds (1 – 3600).
    #[serde(default)]
    pub timeout: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /v1/hosts/{h}/bmc/resolve-password`: how a password change ended that is over and was never resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolvePasswordRequest {
    /// `new` or `old`.
    pub in_force: InForce,
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
    /// Nothing is begun after this; with a stagger each host has an earlier one of its own.
    pub deadline: Timestamp,
    /// Pause between the starts of two hosts, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stagger_ms: Option<u64>,
    /// Whether every host's part has ended.
    pub done: bool,
    /// How many hosts are how far.
    #[serde(default)]
    pub counts: OperationCounts,
    /// What whoever asked should know.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// Per host; in lists only the first ones of an operation with many.
    pub hosts: Vec<OperationHost>,
    /// The generated password: only in the answer to the request that asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generated_password: Option<String>,
}

/// How many parts of an operation are how far, and how those that ended did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCounts {
    /// All.
    pub total: u64,
    /// Durable here, not sent.
    pub accepted: u64,
    /// Sent to their agents.
    pub sent: u64,
    /// Taken on by their agents.
    pub admitted: u64,
    /// Ended.
    pub done: u64,
    /// Those that ended, by result.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub results: BTreeMap<String, u64>,
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
    /// When it is begun, where the operation has a stagger.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub starts_at: Option<Timestamp>,
    /// When it was handed to the broker.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sent_at: Option<Timestamp>,
    /// When the agent took it on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admitted_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub done_at: Option<Timestamp>,
    /// What whoever asked should know of this host.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// What is known of its BMC, for `test`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facts: Option<Box<HostFacts>>,
}

/// Answer of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// Which host.
    pub host: HostId,
    /// What was asked: `operation`, and its parameters beside it.
    #[serde(flatten)]
    pub action: Action,
    /// Its state now.
    pub power: PowerState,
    /// Whether people work on it.
    pub maintenance: bool,
    /// The refusal's code, if it would be refused here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusal: Option<String>,
    /// One sentence.
    pub detail: String,
    /// What whoever asks should know: maintenance, a state that is stale.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
}

/// Answer of a dry run of many hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkDryRun {
    /// Always true: nothing was done.
    pub dry_run: bool,
    /// How many hosts it would concern.
    pub total: u64,
    /// How many of them would be refused here.
    pub refused: u64,
    /// Time from the first start to the last, in milliseconds.
    pub duration_ms: u64,
    /// What whoever asks should know.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// Per host.
    pub hosts: Vec<DryRun>,
}

/// `GET /v1/settings`, by name.
pub type Settings = BTreeMap<String, Setting>;

/// One setting of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The value in force; `null` = nothing is set.
    pub value: Option<SettingValue>,
    /// The value when nobody sets it.
    pub default: Option<SettingValue>,
    /// Who set it.
    pub source: SettingSource,
}

/// A setting's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SettingValue {
    /// A number.
    Number(u64),
    /// A word.
    Text(String),
}

/// Who set a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingSource {
    /// `PATCH /v1/settings`: goes before the file.
    Api,
    /// The aggregator's own file.
    File,
    /// Nobody.
    Default,
}

/// `PATCH /v1/settings`: what is left out stays, `null` goes back to the file's value, or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    /// Poll interval, in seconds (1 – 3600).
    #[serde(default)]
    pub sync_interval: Field<u64>,
    /// Time an operation may take, in seconds (1 – 3600).
    #[serde(default)]
    pub action_timeout: Field<u64>,
    /// Most polls that an agent may have in flight (1 – 65536).
    #[serde(default)]
    pub sync_poolsize: Field<u64>,
    /// Option `interface` of hosts with the driver `ipmitool`.
    #[serde(default, rename = "ipmitool.interface")]
    pub ipmitool_interface: Field<String>,
    /// Option `retries` of hosts with the driver `ipmitool`.
    #[serde(default, rename = "ipmitool.retries")]
    pub ipmitool_retries: Field<u64>,
}

/// `GET /v1/racks/{r}/secrets`: what the rack's agent is to be given, sealed to the site's recovery key. Whoever has that key
/// seals each to the agent and hands the result back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackSecrets {
    /// The agent in charge.
    pub agent: AgentId,
    /// Seal to this, hex.
    pub sealing_key: String,
    /// The secrets.
    pub items: Vec<RackSecret>,
}

/// One stored password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackSecret {
    /// Whose, and what its seal is bound to.
    #[serde(flatten)]
    pub belongs: SecretOwner,
    /// The copy sealed to the recovery key, base64.
    pub recovery: String,
    /// Whether the agent has a copy it can open.
    pub sealed: bool,
}

/// Whose a stored password is, and what its seal is bound to (see [`crate::seal::Belongs`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SecretOwner {
    /// A host's own.
    Host {
        /// The host.
        host: HostId,
        /// Its BMC's address.
        address: String,
        /// The login name.
        username: String,
    },
    /// The new one of a password change that is not over.
    Pending {
        /// The host.
        host: HostId,
        /// Its BMC's address.
        address: String,
        /// The login name.
        username: String,
    },
    /// A cluster's, for hosts without one of their own.
    Cluster {
        /// The cluster.
        cluster: ClusterId,
        /// The login name.
        username: String,
    },
}

/// `POST /v1/racks/{r}/secrets`: secrets sealed anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResealRequest {
    /// The key they are sealed to, hex: must be the present agent's.
    pub sealing_key: String,
    /// The secrets.
    pub items: Vec<Resealed>,
}

/// One secret sealed anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resealed {
    /// As it was read.
    #[serde(flatten)]
    pub belongs: SecretOwner,
    /// As it was read: a password that was changed meanwhile is left alone.
    pub recovery: String,
    /// Sealed to the agent, base64.
    pub sealed: String,
}

/// Answer to a resealing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResealAnswer {
    /// How many were taken.
    pub resealed: u64,
    /// How many were changed or removed meanwhile, and left alone.
    pub skipped: u64,
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

/// `GET /v1/drivers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// Name.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Port used when none is set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default_port: Option<u16>,
    /// Whether its readings can prove that a host is off.
    #[serde(default)]
    pub can_prove: bool,
    /// Whether there may be more options, which only an agent's own file knows.
    #[serde(default)]
    pub own_options: bool,
    /// Its options.
    #[serde(default)]
    pub options: Vec<DriverOption>,
}

/// One option of a driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverOption {
    /// Key in `options`.
    pub name: String,
    /// `one-of`, `any-of`, `number`, `switch`, `text` or `key`.
    pub kind: String,
    /// The words it takes.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub values: Vec<String>,
    /// Least number it takes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min: Option<u32>,
    /// Greatest number it takes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max: Option<u32>,
    /// The value when it is not set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default: Option<String>,
    /// What it does.
    pub help: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_tells_left_out_from_null() {
        for (json, wanted) in [("{}", Field::Keep), (r#"{"port":null}"#, Field::Unset), (r#"{"port":623}"#, Field::Set(623))] {
            assert_eq!(serde_json::from_str::<BmcPatch>(json).unwrap().port, wanted, "{json}");
        }
        assert_eq!([Field::Keep, Field::Unset, Field::Set(2)].map(|field| field.over(Some(1))), [Some(1), None, Some(2)]);
    }

    #[test]
    fn effective_settings_read_back() {
        let valued = |value: &str| Valued { value: value.to_owned(), from: Origin::Cluster };
        let seconds = Valued { value: 10, from: Origin::Default };
        let bmc = EffectiveBmc {
            driver: valued("ipmi"),
            address: valued("10.0.0.1"),
            port: Valued { value: None, from: Origin::Default },
            username: valued("admin"),
            password_set: Valued { value: true, from: Origin::Host },
            options: [("suite".to_owned(), valued("3"))].into(),
        };
        for bmc in [None, Some(bmc)] {
            let effective = Effective { bmc, poll_interval: seconds, action_timeout: seconds };
            let json = serde_json::to_string(&effective).unwrap();
            assert_eq!(serde_json::from_str::<Effective>(&json).unwrap(), effective, "{json}");
        }
    }
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

/// A line of the audit log, as `GET /v1/audit` shows it, oldest first unless `order=newest` is asked for. Its hash is that of [`crate::audit`], over all other fields
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

impl AuditEntry {
    /// An entry that says no more than when, by whom and with what result.
    #[must_use]
    pub fn new(at: Timestamp, principal: impl Into<String>, result: AuditResult) -> Self {
        Self {
            at,
            principal: principal.into(),
            token: None,
            from: None,
            method: None,
            path: None,
            resource: None,
            summary: None,
            reason: None,
            result,
            status: None,
            code: None,
            request_id: None,
            operation_id: None,
            suppressed: None,
            checkpoint: None,
        }
    }
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
