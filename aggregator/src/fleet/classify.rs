//! What each request is, at a glance: the right it takes, what it is about, what it does to it. One row per request and no
//! wildcard: a new request does not compile before it is classified.

use std::fmt;

use picket_common::command::{Action, HaAction};
use picket_common::id::{ClusterId, HostId, OperationId, RackId, ZoneId};

use super::request::{Gate, ImportedHost, Request};
use super::view::token_id;

/// What a role may be granted; [`crate::authorise`] has the table of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// See inventory, states, histories, alerts and events.
    Read,
    /// Order operations of BMCs, and take them back.
    Operate,
    /// Fence hosts, vouch that they are off, release them, and let go what brakes hold.
    Fence,
    /// Change the inventory, settings and gates.
    Configure,
    /// Let agents and consumers in.
    Enrol,
    /// Make and revoke tokens.
    Grant,
    /// Read the audit log.
    Audit,
    /// Join as an agent: no role has it, a join token's proof does.
    Join,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Read, Self::Operate, Self::Fence, Self::Configure, Self::Enrol, Self::Grant, Self::Audit, Self::Join];
}

/// What a request is about, and the places it would have then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// All of it: no scope but everywhere reaches it.
    Site,
    /// Its settings.
    Settings,
    /// A zone.
    Zone(&'a ZoneId),
    /// A cluster, and the zone it is put into.
    Cluster(&'a ClusterId, Option<&'a ZoneId>),
    /// A rack, and the zone it is put into.
    Rack(&'a RackId, Option<&'a ZoneId>),
    /// A host, and the cluster and rack it is put into.
    Host(&'a HostId, Option<&'a ClusterId>, Option<&'a RackId>),
    /// These hosts, as they are.
    Hosts(&'a [HostId]),
    /// These hosts, each with the cluster and rack it is put into.
    Imported(&'a [ImportedHost]),
    /// All hosts of an operation.
    Operation(&'a OperationId),
    /// A token, by its id.
    Token(&'a str),
    /// An alert, by its id.
    Alert(&'a str),
    /// A silence, by its id.
    Silence(&'a str),
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site => f.write_str("site"),
            Self::Settings => f.write_str("settings"),
            Self::Zone(id) => write!(f, "zone/{id}"),
            Self::Cluster(id, _) => write!(f, "cluster/{id}"),
            Self::Rack(id, _) => write!(f, "rack/{id}"),
            Self::Host(id, ..) => write!(f, "host/{id}"),
            Self::Hosts(ids) => write!(f, "{} hosts", ids.len()),
            Self::Imported(hosts) => write!(f, "{} hosts", hosts.len()),
            Self::Operation(id) => write!(f, "operation/{id}"),
            Self::Token(id) => write!(f, "token/{id}"),
            Self::Alert(id) => write!(f, "alert/{id}"),
            Self::Silence(id) => write!(f, "silence/{id}"),
        }
    }
}

/// What a request does to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Makes it, or replaces it: replacing takes `If-Match`.
    Put,
    /// Changes or removes what is there: takes `If-Match`.
    Change,
    /// Does something; doing it twice does no harm.
    Act,
    /// Does something that must not happen twice because an answer was lost.
    ActOnce,
}

/// A request's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class<'a> {
    /// The right it takes.
    pub right: Right,
    /// What it is about.
    pub target: Target<'a>,
    /// What it does to it.
    pub deed: Deed,
}

/// The row of `request`.
#[must_use]
pub fn classify(request: &Request) -> Class<'_> {
    let row = |right, target, deed| Class { right, target, deed };
    match request {
        Request::PutZone(id, _) => row(Right::Configure, Target::Zone(id), Deed::Put),
        Request::DeleteZone(id) => row(Right::Configure, Target::Zone(id), Deed::Change),
        Request::PutCluster(id, body) => row(Right::Configure, Target::Cluster(id, Some(&body.zone)), Deed::Put),
        Request::PatchCluster(id, change) => row(Right::Configure, Target::Cluster(id, change.zone.as_ref()), Deed::Change),
        Request::DeleteCluster(id) => row(Right::Configure, Target::Cluster(id, None), Deed::Change),
        Request::PutRack(id, body) => row(Right::Configure, Target::Rack(id, Some(&body.zone)), Deed::Put),
        Request::DeleteRack(id) => row(Right::Configure, Target::Rack(id, None), Deed::Change),
        Request::PutHost(id, spec) => row(Right::Configure, Target::Host(id, Some(&spec.cluster), Some(&spec.rack)), Deed::Put),
        Request::PatchHost(id, change) => {
            row(Right::Configure, Target::Host(id, change.cluster.as_ref(), change.rack.as_ref()), Deed::Change)
        }
        Request::DeleteHost(id) => row(Right::Configure, Target::Host(id, None, None), Deed::Change),
        Request::ImportHosts(import) => row(Right::Configure, Target::Imported(&import.hosts), Deed::Act),
        Request::SetOobm(gate, _) | Request::SetHa(gate, _) => row(Right::Configure, of_gate(gate), Deed::Act),
        Request::Pause(at, _) | Request::Resume(at) => row(Right::Operate, of_gate(at), Deed::Act),
        Request::Power { host, operation, .. } => row(right_to(*operation), Target::Host(host, None, None), Deed::ActOnce),
        Request::Ha { host, action, .. } => row(right_to(Action::Ha(*action)), Target::Host(host, None, None), Deed::ActOnce),
        Request::Operate(bulk) => row(right_to(bulk.operation), Target::Hosts(&bulk.hosts), Deed::ActOnce),
        Request::ChangePassword { host, .. } => row(Right::Configure, Target::Host(host, None, None), Deed::ActOnce),
        Request::ResolvePassword { host, .. } => row(Right::Configure, Target::Host(host, None, None), Deed::Act),
        Request::Reseal(rack, ..) => row(Right::Configure, Target::Rack(rack, None), Deed::Act),
        Request::PatchSettings(_) => row(Right::Configure, Target::Settings, Deed::Change),
        Request::CancelOperation(id) => row(Right::Operate, Target::Operation(id), Deed::Act),
        Request::AddJoinToken(_) => row(Right::Enrol, Target::Site, Deed::ActOnce),
        Request::AddWitnessToken(_) => row(Right::Enrol, Target::Site, Deed::ActOnce),
        Request::JoinWitness { .. } => row(Right::Join, Target::Site, Deed::Act),
        Request::Join { .. } => row(Right::Join, Target::Site, Deed::Act),
        Request::AddApiToken(token) => row(Right::Grant, Target::Token(token_id(&token.hash)), Deed::ActOnce),
        Request::RemoveApiToken(id) => row(Right::Grant, Target::Token(id), Deed::Change),
        Request::AckAlert { id, .. } => row(Right::Operate, Target::Alert(id), Deed::Act),
        Request::AddSilence(spec) => row(Right::Operate, of_silence(spec.within.as_ref()), Deed::ActOnce),
        Request::EndSilence(id) => row(Right::Operate, Target::Silence(id), Deed::Change),
    }
}

/// The right that an operation takes. A plan sends nothing to the host.
const fn right_to(action: Action) -> Right {
    match action {
        Action::Ha(HaAction::Plan) => Right::Operate,
        Action::Ha(_) => Right::Fence,
        Action::ChangePassword => Right::Configure,
        Action::On
        | Action::Off
        | Action::Cycle
        | Action::Reset
        | Action::Soft
        | Action::Status
        | Action::Diag
        | Action::Identify { .. }
        | Action::Bootdev { .. }
        | Action::Test => Right::Operate,
    }
}

/// A silence is about the place that it is confined to.
pub const fn of_silence(within: Option<&Gate>) -> Target<'_> {
    match within {
        Some(gate) => of_gate(gate),
        None => Target::Site,
    }
}

const fn of_gate(gate: &Gate) -> Target<'_> {
    match gate {
        Gate::Zone(id) => Target::Zone(id),
        Gate::Cluster(id) => Target::Cluster(id, None),
        Gate::Host(id) => Target::Host(id, None, None),
    }
}
