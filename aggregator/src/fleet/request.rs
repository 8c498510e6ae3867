//! What the API can ask of the fleet and what the fleet answers: typed, checked, without HTTP.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use picket_common::api::ha::{BrakesPatch, HaPatch};
use picket_common::api::{self, Field};
use picket_common::command::{Action, HaAction, Refusal};
use picket_common::id::{AgentId, ClusterId, HostId, OperationId, RackId, ZoneId};
use picket_common::seal::{Sealed, SealingKey};
use picket_common::wire::report::InForce;
use serde::{Deserialize, Serialize};

pub use super::alerts::{SilenceSpec, Until, confinement};
use super::view::{SealedPassword, SharedPassword};

/// Joins an answer to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Something that changes state. Randomness (ids, sealed passwords, certificates) is made by the asker and comes along.
#[derive(Debug)]
pub enum Request {
    /// Make or change a zone.
    PutZone(ZoneId, api::ZoneBody),
    /// Remove an empty zone.
    DeleteZone(ZoneId),
    /// Make or replace a cluster.
    PutCluster(ClusterId, ClusterSpec),
    /// Change a cluster's given fields.
    PatchCluster(ClusterId, ClusterChange),
    /// Remove an empty cluster.
    DeleteCluster(ClusterId),
    /// Make or change a rack.
    PutRack(RackId, api::RackBody),
    /// Remove an empty rack.
    DeleteRack(RackId),
    /// Make or replace a host.
    PutHost(HostId, HostSpec),
    /// Change a host's given fields.
    PatchHost(HostId, HostChange),
    /// Remove a host.
    DeleteHost(HostId),
    /// Make or replace the hosts of a file, in one step.
    ImportHosts(Import),
    /// Open or close a gate.
    SetOobm(Gate, bool),
    /// Open or close an HA gate.
    SetHa(Gate, bool),
    /// Let nothing disruptive be done by itself for a while.
    Pause(Gate, PauseSpec),
    /// End that.
    Resume(Gate),
    /// Order a power operation; the deadline is reckoned from the event's time.
    Power {
        /// Made by the asker.
        id: OperationId,
        /// Which host.
        host: HostId,
        /// What.
        operation: Action,
        /// Seconds; absent = the cluster's or the global one.
        timeout: Option<u64>,
        /// Why.
        reason: Option<String>,
        /// For cycle and reset of a host that is off.
        on_if_off: bool,
    },
    /// Say a word about a host that is watched over.
    Ha {
        /// Made by the asker.
        id: OperationId,
        /// Which host.
        host: HostId,
        /// What.
        action: HaAction,
        /// Seconds; absent = the action's.
        timeout: Option<u64>,
        /// Why; needed for all but a plan.
        reason: Option<String>,
    },
    /// Order an operation of many hosts: those that are refused are so in their own part.
    Operate(Bulk),
    /// Set a new login password on a host's BMC.
    ChangePassword {
        /// Made by the asker.
        id: OperationId,
        /// Which host.
        host: HostId,
        /// The new password.
        password: Given,
        /// Seconds; absent = the host's.
        timeout: Option<u64>,
        /// Why.
        reason: Option<String>,
    },
    /// Say by hand how a password change ended that is over and was never resolved.
    ResolvePassword {
        /// Which host.
        host: HostId,
        /// Which password is in force.
        in_force: InForce,
    },
    /// Keep passwords that were sealed anew to the agent in charge of a rack.
    Reseal(RackId, SealingKey, Vec<Reseal>),
    /// Change the site's settings.
    PatchSettings(api::SettingsPatch),
    /// Take back what was not begun.
    CancelOperation(OperationId),
    /// Keep a join token.
    AddJoinToken(super::view::JoinTokenRow),
    /// Keep a token of a host's witness.
    AddWitnessToken(super::view::WitnessTokenRow),
    /// A witness joined: the API has verified the proof and signed the certificate.
    JoinWitness {
        /// Which token.
        token_id: String,
        /// The request's CSR, to answer the same one again.
        csr: String,
        /// The certificate made for it, PEM.
        certificate: String,
        /// SHA-256 of its public key, hex.
        public_key: String,
    },
    /// An agent joined: the API has verified the proof and signed the certificate.
    Join {
        /// Which token.
        token_id: String,
        /// The request's CSR, to answer the same one again.
        csr: String,
        /// The certificate made for it, PEM.
        certificate: String,
        /// SHA-256 of its public key, hex.
        public_key: String,
        /// Passwords are sealed to this key from now on.
        sealing_key: SealingKey,
    },
    /// Keep an API token.
    AddApiToken(super::view::ApiTokenRow),
    /// Revoke an API token, by its id.
    RemoveApiToken(String),
    /// Take note of an alert.
    AckAlert {
        /// Which.
        id: String,
        /// For the others.
        comment: Option<String>,
    },
    /// Make a silence.
    AddSilence(SilenceSpec),
    /// End a silence.
    EndSilence(String),
}

impl Request {
    /// Why, as the asker said in the request itself.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Power { reason, .. } | Self::Ha { reason, .. } | Self::ChangePassword { reason, .. } => reason.as_deref(),
            Self::Operate(bulk) => bulk.reason.as_deref(),
            Self::AckAlert { comment, .. } => comment.as_deref(),
            Self::AddSilence(spec) => spec.comment.as_deref(),
            Self::Pause(_, spec) => spec.reason.as_deref(),
            Self::PutZone(..)
            | Self::DeleteZone(_)
            | Self::PutCluster(..)
            | Self::PatchCluster(..)
            | Self::DeleteCluster(_)
            | Self::PutRack(..)
            | Self::DeleteRack(_)
            | Self::PutHost(..)
            | Self::PatchHost(..)
            | Self::DeleteHost(_)
            | Self::ImportHosts(_)
            | Self::SetOobm(..)
            | Self::SetHa(..)
            | Self::Resume(_)
            | Self::ResolvePassword { .. }
            | Self::Reseal(..)
            | Self::PatchSettings(_)
            | Self::CancelOperation(_)
            | Self::AddJoinToken(_)
            | Self::AddWitnessToken(_)
            | Self::JoinWitness { .. }
            | Self::Join { .. }
            | Self::AddApiToken(_)
            | Self::RemoveApiToken(_)
            | Self::EndSilence(_) => None,
        }
    }
}

/// A gate of enablement, or where something is set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Gate {
    /// A zone's.
    Zone(ZoneId),
    /// A cluster's.
    Cluster(ClusterId),
    /// A host's.
    Host(HostId),
}

impl From<ZoneId> for Gate {
    fn from(id: ZoneId) -> Self {
        Self::Zone(id)
    }
}

impl From<ClusterId> for Gate {
    fn from(id: ClusterId) -> Self {
        Self::Cluster(id)
    }
}

impl From<HostId> for Gate {
    fn from(id: HostId) -> Self {
        Self::Host(id)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zone(id) => write!(f, "zone/{id}"),
            Self::Cluster(id) => write!(f, "cluster/{id}"),
            Self::Host(id) => write!(f, "host/{id}"),
        }
    }
}

/// A window in which nothing disruptive is done by itself.
#[derive(Debug, Clone)]
pub struct PauseSpec {
    /// When it ends.
    pub until: Until,
    /// Why.
    pub reason: Option<String>,
}

/// An operation of many hosts.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// Made by the asker.
    pub id: OperationId,
    /// The hosts, each once, in the order they are begun.
    pub hosts: Vec<HostId>,
    /// What.
    pub operation: Action,
    /// Seconds from each host's own start; absent = the host's.
    pub timeout: Option<u64>,
    /// Why.
    pub reason: Option<String>,
    /// For cycle and reset of a host that is off.
    pub on_if_off: bool,
    /// Pause between the starts of two hosts, in milliseconds.
    pub stagger_ms: u64,
}

/// A password that was sealed anew.
#[derive(Debug, Clone)]
pub struct Reseal {
    /// Whose, and what the seal is bound to.
    pub belongs: api::SecretOwner,
    /// The copy for recovery as it was read: another one means that the password was changed meanwhile.
    pub recovery: Sealed,
    /// The copy for the agent.
    pub agent: Sealed,
}

/// A whole cluster, its password already sealed.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// Its zone.
    pub zone: ZoneId,
    /// Poll interval, in seconds.
    pub poll_interval: Option<u64>,
    /// Time-out of operations, in seconds.
    pub action_timeout: Option<u64>,
    /// What its hosts inherit.
    pub bmc: Field<DefaultsChange>,
    /// What they inherit of host-HA.
    pub ha: Field<HaPatch>,
    /// What bounds its power-downs.
    pub brakes: Field<BrakesPatch>,
}

/// Changes to a cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterChange {
    /// Its zone.
    pub zone: Option<ZoneId>,
    /// Poll interval, in seconds.
    pub poll_interval: Field<u64>,
    /// Time-out of operations, in seconds.
    pub action_timeout: Field<u64>,
    /// What its hosts inherit, field by field.
    pub bmc: Field<DefaultsChange>,
    /// What they inherit of host-HA, field by field.
    pub ha: Field<HaPatch>,
    /// What bounds its power-downs, field by field.
    pub brakes: Field<BrakesPatch>,
}

/// BMC settings that a cluster's hosts inherit, field by field.
#[derive(Debug, Clone, Default)]
pub struct DefaultsChange {
    /// Driver name.
    pub driver: Field<String>,
    /// Port.
    pub port: Field<u16>,
    /// Login name.
    pub username: Field<String>,
    /// Login password.
    pub password: Field<GivenShared>,
    /// The driver's options; replaces all.
    pub options: Field<BTreeMap<String, String>>,
}

/// A password as it was given for a host: sealed, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The BMC's address it is sealed for.
    pub address: String,
    /// The login name it is sealed for.
    pub username: String,
    /// The password.
    pub password: SealedPassword,
}

/// A password as it was given for a cluster: sealed, and for what.
#[derive(Debug, Clone)]
pub struct GivenShared {
    /// The login name it is sealed for.
    pub username: String,
    /// The password.
    pub password: SharedPassword,
}

/// A whole host, its password already sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its zone, when the asker named one: must be the cluster's.
    pub zone: Option<ZoneId>,
    /// Its rack.
    pub rack: RackId,
    /// Its BMC.
    pub bmc: Option<BmcChange>,
    /// Whether people work on it.
    pub maintenance: bool,
    /// Poll interval, in seconds.
    pub poll_interval: Option<u64>,
    /// Time-out of operations, in seconds.
    pub action_timeout: Option<u64>,
    /// Free words.
    pub labels: BTreeMap<String, String>,
    /// Its host-HA.
    pub ha: Field<HaPatch>,
}

/// Hosts of a file.
#[derive(Debug, Clone)]
pub struct Import {
    /// The hosts, each once.
    pub hosts: Vec<ImportedHost>,
    /// What becomes of them when one cannot be.
    pub way: Way,
}

/// A host of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedHost {
    /// Its id.
    pub id: HostId,
    /// The whole of it.
    pub spec: HostSpec,
    /// Its own gate; absent = stays as it is.
    pub oobm: Option<bool>,
}

/// How an import is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Not at all: it is only said what would become of each host.
    Check,
    /// As a whole, or not at all.
    Whole,
    /// Each host for itself.
    Each,
}

/// What became of a host that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is new.
    Created,
    /// It was there, otherwise.
    Changed,
    /// It was there just so.
    Unchanged,
}

/// Changes to a host.
#[derive(Debug, Clone, Default)]
pub struct HostChange {
    /// Its cluster.
    pub cluster: Option<ClusterId>,
    /// Its rack.
    pub rack: Option<RackId>,
    /// Its BMC, field by field.
    pub bmc: Field<BmcChange>,
    /// Whether people work on it.
    pub maintenance: Option<bool>,
    /// Poll interval, in seconds.
    pub poll_interval: Field<u64>,
    /// Time-out of operations, in seconds.
    pub action_timeout: Field<u64>,
    /// Replaces all labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its host-HA, field by field.
    pub ha: Field<HaPatch>,
}

/// A host's own BMC settings field by field; an empty text is one left out. Changing address or name without the password is
/// `password-needed-again`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BmcChange {
    /// Driver name.
    pub driver: Field<String>,
    /// IP address or name.
    pub address: Field<String>,
    /// Port.
    pub port: Field<u16>,
    /// Login name.
    pub username: Field<String>,
    /// Login password.
    pub password: Field<Given>,
    /// The driver's options; replaces all.
    pub options: Field<BTreeMap<String, String>>,
    /// Take the machine that answers now for the right one.
    pub repin: bool,
}

/// What a granted request answers.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Done; read the view for the rest. `created` tells 201 from 200.
    Done {
        /// Whether it is new.
        created: bool,
    },
    /// Accepted: the operation.
    Accepted(OperationId),
    /// What became, or would become, of each host of an import, in its order.
    Imported(Vec<Result<Put, Rejection>>),
    /// Sealed anew.
    Resealed {
        /// How many were taken.
        resealed: u64,
        /// How many were changed meanwhile.
        skipped: u64,
    },
    /// Joined: the certificate to hand out (the earlier one for a repeated request), PEM. A witness goes by its host's id.
    Joined {
        /// Which agent.
        agent: AgentId,
        /// PEM.
        certificate: String,
    },
}

/// Why a request was not granted. Maps to a problem in one exhaustive match of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such thing.
    #[error("no {kind} {id:?}")]
    NotFound {
        /// `zone`, `cluster`, `rack`, `host`, `operation`, `token`, `alert`, `silence`.
        kind: &'static str,
        /// The id asked for.
        id: String,
    },
    /// It is named by others.
    #[error("{kind} {id:?} is still used by {by}")]
    InUse {
        /// What.
        kind: &'static str,
        /// Its id.
        id: String,
        /// By what.
        by: String,
    },
    /// A field's value is wrong.
    #[error("{field}: {text}")]
    Invalid {
        /// Name of the field, as in JSON: `bmc.address`.
        field: &'static str,
        /// What is wrong and what to do.
        text: String,
    },
    /// The host's zone is not its cluster's, or not its rack's.
    #[error("{0}")]
    ZoneMismatch(String),
    /// Hosts of an import, by their place in it, that cannot be: none of it was done.
    #[error("{} hosts of the import are refused", .0.len())]
    Hosts(Vec<(usize, Rejection)>),
    /// A sealed password belongs to address and user: give it again when they change, or when the agent changed.
    #[error("the password must be given again: {0}")]
    PasswordNeededAgain(String),
    /// Policy said no.
    #[error("{0}")]
    Refused(Refusal),
    /// What is there may only be changed by who has seen it.
    #[error("{0} is there already: changing it takes the header If-Match with the ETag it was read with, or *")]
    PreconditionRequired(String),
    /// What is there is not what the asker has seen.
    #[error("{0}")]
    PreconditionFailed(String),
    /// Its login password is being changed; until that is over nothing else of its BMC is.
    #[error("the BMC password of host {host} is being changed by operation {operation}")]
    PasswordChanging {
        /// Which host.
        host: HostId,
        /// By which operation.
        operation: OperationId,
    },
    /// The join token was used by another request.
    #[error("the join token was used already")]
    TokenUsed,
    /// The join token is too old.
    #[error("the join token expired at {0}")]
    TokenExpired(Timestamp),
    /// It is too late for that.
    #[error("{0}")]
    TooLate(String),
    /// The store cannot be written now.
    #[error("the store cannot be written now: {0}")]
    Store(String),
}
