//! Who may do what, where: principal × request × view → yes, or why not. Decides only; never reads a token's text, a clock or a
//! header.
//!
//! A role says what (`roles` is the table), a scope says where. What lies outside a scope does not exist for its token: it is not
//! listed, and asking for it is answered as if it were not there.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use jiff::Timestamp;
use picket_common::api::{Alert, EventData, Field, Role, Scope};
use picket_common::id::{AgentId, ClusterId, HostId, RackId, ZoneId};

use crate::fleet::classify::{Class, Right, Target, classify, of_silence};
use crate::fleet::request::{BmcChange, Gate, confinement};
use crate::fleet::view::{ApiTokenRow, HostRow, Operation, PartRow, SilenceRow, token_id};
use crate::fleet::{Request, View};

/// Who asks, as its token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// For histories.
    pub name: Arc<str>,
    /// Id of its token.
    pub token: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
    /// Until when.
    pub expires_at: Option<Timestamp>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Something that is no change of the fleet, of the whole site.
    Site(Right),
    /// Something that is no change of the fleet, of a part of it.
    At(Right, Target<'a>),
    /// Change the fleet.
    Change(&'a Request),
}

/// Why a token is no proof of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No token of that hash.
    #[error("the token is not known here")]
    Token,
    /// Too old.
    #[error("the token expired at {0}")]
    Expired(Timestamp),
}

/// Why a known principal may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Its role does not reach.
    #[error("this takes the role {}; the token has {}", names(.needed), role_name(*.has))]
    Role {
        /// The roles that have the right.
        needed: &'static [Role],
        /// The role of the token.
        has: Role,
    },
    /// It lies outside its scope, which says nothing about whether it exists.
    #[error("the token is limited to a scope that {0} is not in")]
    Scope(String),
    /// The same, for what is answered as if it did not exist.
    #[error("no {kind} {id:?}")]
    Hidden {
        /// What kind of thing.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// It would hand on what it does not have.
    #[error("a token cannot be given more than its maker has: {0}")]
    More(&'static str),
}

fn names(roles: &[Role]) -> String {
    roles.iter().map(|role| role_name(*role)).collect::<Vec<_>>().join(" or ")
}

/// Lower-case name, as in JSON.
#[must_use]
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Fencer => "fencer",
        Role::Admin => "admin",
        Role::Auditor => "auditor",
    }
}

/// Which roles have a right: the whole of who may do what. Gates decide whether operators may switch, so they are not an
/// operator's to open.
const fn roles(right: Right) -> &'static [Role] {
    use Role::{Admin, Auditor, Fencer, Operator, Viewer};
    match right {
        Right::Read => &[Viewer, Operator, Fencer, Auditor, Admin],
        Right::Operate => &[Operator, Fencer, Admin],
        Right::Fence => &[Fencer, Admin],
        Right::Configure | Right::Enrol | Right::Grant => &[Admin],
        Right::Audit => &[Auditor, Admin],
        Right::Join => &[],
    }
}

fn has(role: Role, right: Right) -> bool {
    roles(right).contains(&role)
}

/// The principal whose token has this SHA-256 (hex).
///
/// # Errors
/// [`Unknown`].
pub fn principal(view: &View, token_sha256: &str, wall: Timestamp) -> Result<Principal, Unknown> {
    let row = view.api_tokens.get(token_sha256).ok_or(Unknown::Token)?;
    match row.expires_at {
        Some(end) if end <= wall => Err(Unknown::Expired(end)),
        expires_at => Ok(Principal {
            name: row.name.as_str().into(),
            token: token_id(&row.hash).into(),
            role: row.role,
            scope: row.scope.clone(),
            expires_at,
        }),
    }
}

/// Whether `principal` may.
///
/// # Errors
/// [`Denied`].
pub fn authorise(view: &View, principal: &Principal, action: Action<'_>) -> Result<(), Denied> {
    let (right, target) = match action {
        Action::Site(right) => (right, Target::Site),
        Action::At(right, target) => (right, target),
        Action::Change(request) => {
            let Class { right, target, deed: _ } = classify(request);
            (right, target)
        }
    };
    if !has(principal.role, right) {
        return Err(Denied::Role { needed: roles(right), has: principal.role });
    }
    let reach = Reach { view, scope: &principal.scope };
    match action {
        Action::Change(Request::AddApiToken(row)) => reach.grant(principal, row),
        Action::Change(request) => reach.target(&target).and_then(|()| reach.shared_passwords(request)),
        Action::Site(_) | Action::At(..) => reach.target(&target),
    }
}

/// Whether a scope is everywhere.
#[must_use]
pub fn is_everywhere(scope: &Scope) -> bool {
    *scope == Scope::default()
}

/// Whether `row` is a token that `principal` may see: one that reaches no further than its own.
#[must_use]
pub fn sees_token(view: &View, principal: &Principal, row: &ApiTokenRow) -> bool {
    Reach { view, scope: &principal.scope }.contains(&row.scope)
}

/// Whether a host in these places is in a scope.
fn covers(scope: &Scope, zone: &ZoneId, cluster: &ClusterId, host: &HostId) -> bool {
    is_everywhere(scope) || scope.zones.contains(zone) || scope.clusters.contains(cluster) || scope.hosts.contains(host)
}

fn covers_row(scope: &Scope, row: &HostRow) -> bool {
    covers(scope, &row.zone, &row.cluster, &row.id)
}

/// How far a scope reaches, as the fleet is now.
struct Reach<'a> {
    view: &'a View,
    scope: &'a Scope,
}

impl Reach<'_> {
    fn target(&self, target: &Target<'_>) -> Result<(), Denied> {
        if is_everywhere(self.scope) {
            return Ok(());
        }
        let hidden = |kind, id: &dyn std::fmt::Display| Err(Denied::Hidden { kind, id: id.to_string() });
        match target {
            Target::Site | Target::Settings => Err(Denied::Scope("the whole site".into())),
            Target::Zone(id) => self.within(self.zone(id), target),
            // What is not there is where it is put. Put nowhere, it is answered as what is there and outside.
            Target::Cluster(id, to) => {
                let is = self.view.clusters.get(*id).map(|row| &row.zone).or(*to);
                let is = is.map_or_else(|| self.scope.clusters.contains(id), |zone| self.cluster(id, zone));
                self.within(is && to.is_none_or(|zone| self.cluster(id, zone)), target)
            }
            Target::Rack(id, to) => {
                let is = self.view.racks.get(*id).map(|row| &row.zone).or(*to);
                self.within(is.is_some_and(|zone| self.zone(zone)) && to.is_none_or(|zone| self.zone(zone)), target)
            }
            Target::Host(id, cluster, rack) => match self.view.hosts.get(*id) {
                Some(row) if !covers_row(self.scope, row) => hidden("host", id),
                Some(row) => self.place(cluster.filter(|to| **to != row.cluster), rack.filter(|to| **to != row.rack)),
                None if cluster.is_none() => hidden("host", id),
                None => self.place(*cluster, *rack),
            },
            Target::Hosts(ids) => match ids.iter().find(|id| !self.has_host(id)) {
                Some(id) => hidden("host", id),
                None => Ok(()),
            },
            Target::Imported(hosts) => hosts
                .iter()
                .try_for_each(|host| self.target(&Target::Host(&host.id, Some(&host.spec.cluster), Some(&host.spec.rack)))),
            Target::Operation(id) => match self.view.operations.get(*id) {
                Some(operation) => self.operation(operation),
                None => hidden("operation", id),
            },
            Target::Token(id) => match self.view.api_token(id) {
                Some(row) if self.contains(&row.scope) => Ok(()),
                Some(_) | None => hidden("token", id),
            },
            Target::Alert(id) => match self.view.alerts.get(*id) {
                Some(alert) if !self.sees(&place_of(alert)) => hidden("alert", id),
                // That of an agent is seen by all who have a host there, but it is not theirs to take note of for the others.
                Some(alert) => self.within(alert.host.is_some() || self.zone(&alert.zone), target),
                None => hidden("alert", id),
            },
            Target::Silence(id) => match self.view.silences.get(*id) {
                Some(row) if self.sees_silence(row) => Ok(()),
                Some(_) | None => hidden("silence", id),
            },
        }
    }

    /// Whoever says where a host's BMC is decides who is sent its password: where that is the cluster's, it takes the cluster.
    fn shared_passwords(&self, request: &Request) -> Result<(), Denied> {
        match request {
            Request::PutHost(id, spec) => self.shared_password(id, spec.bmc.as_ref(), true),
            Request::PatchHost(id, change) => self.shared_password(id, change.bmc.value(), false),
            Request::ImportHosts(import) => {
                import.hosts.iter().try_for_each(|host| self.shared_password(&host.id, host.spec.bmc.as_ref(), true))
            }
            _ => Ok(()),
        }
    }

    fn shared_password(&self, id: &HostId, change: Option<&BmcChange>, is_whole: bool) -> Result<(), Denied> {
        let Some((change, host)) = change.zip(self.view.hosts.get(id)) else { return Ok(()) };
        let shares = self.view.clusters.get(&host.cluster).is_some_and(|cluster| cluster.bmc.password.is_some());
        if !shares || is_everywhere(self.scope) || self.cluster(&host.cluster, &host.zone) {
            return Ok(());
        }
        let touches_nothing = *change == BmcChange { repin: change.repin, ..BmcChange::default() } && !is_whole;
        let gets_own = matches!(change.password, Field::Set(_));
        let gives_up = matches!(change.password, Field::Unset)
            || matches!(change.username, Field::Unset)
            || (is_whole && change.username.is_keep());
        let keeps_own = host.bmc.as_ref().is_some_and(|bmc| bmc.password.is_some()) && !gives_up;
        if touches_nothing || gets_own || keeps_own {
            return Ok(());
        }
        Err(Denied::Scope(format!("cluster/{}, whose password this BMC would be sent,", host.cluster)))
    }

    fn within(&self, is: bool, target: &Target<'_>) -> Result<(), Denied> {
        if is { Ok(()) } else { Err(Denied::Scope(target.to_string())) }
    }

    fn zone(&self, id: &ZoneId) -> bool {
        self.scope.zones.contains(id)
    }

    fn cluster(&self, id: &ClusterId, zone: &ZoneId) -> bool {
        self.zone(zone) || self.scope.clusters.contains(id)
    }

    /// Whether a host may be put there: into a cluster of the scope, and a rack that the scope sees.
    fn place(&self, cluster: Option<&ClusterId>, rack: Option<&RackId>) -> Result<(), Denied> {
        let cluster = cluster.filter(|id| !self.view.clusters.get(*id).is_some_and(|row| self.cluster(id, &row.zone)));
        let rack = rack.filter(|id| !self.sees_rack(id));
        match (cluster, rack) {
            (Some(id), _) => Err(Denied::Hidden { kind: "cluster", id: id.to_string() }),
            (None, Some(id)) => Err(Denied::Hidden { kind: "rack", id: id.to_string() }),
            (None, None) => Ok(()),
        }
    }

    fn sees_rack(&self, id: &RackId) -> bool {
        let hosts = || self.view.rack_hosts.get(id).into_iter().flatten().filter_map(|host| self.view.hosts.get(host));
        self.view.racks.get(id).is_some_and(|row| self.zone(&row.zone) || hosts().any(|row| covers_row(self.scope, row)))
    }

    /// An operation is in a scope with all its hosts; with some of them it is seen, but not the token's to take back.
    fn operation(&self, operation: &Operation) -> Result<(), Denied> {
        let count = operation.parts.keys().filter(|host| self.has_host(host)).count();
        match count {
            0 => Err(Denied::Hidden { kind: "operation", id: operation.row.id.to_string() }),
            count if count < operation.parts.len() => Err(Denied::Scope("all hosts of the operation".into())),
            _ => Ok(()),
        }
    }

    fn has_host(&self, id: &HostId) -> bool {
        self.view.hosts.get(id).is_some_and(|row| covers_row(self.scope, row))
    }

    /// Whether what happened there is shown: at a host of the scope, or to an agent of a rack that holds one.
    fn sees(&self, place: &Place<'_>) -> bool {
        let Place { host, agent, zone, cluster } = *place;
        let within = || {
            zone.is_some_and(|id| self.zone(id))
                || cluster.is_some_and(|id| self.scope.clusters.contains(id))
                || host.is_some_and(|id| self.scope.hosts.contains(id))
        };
        let of_agent = |id| self.view.agents.get(id).is_some_and(|row| self.sees_rack(&row.rack));
        is_everywhere(self.scope) || within() || (host.is_none() && agent.is_some_and(of_agent))
    }

    /// Whether a silence covers nothing but what is in the scope.
    fn sees_silence(&self, row: &SilenceRow) -> bool {
        self.target(&of_silence(confinement(&row.matchers).as_ref())).is_ok()
    }

    /// Whether another scope lies within this one.
    fn contains(&self, other: &Scope) -> bool {
        let Scope { zones, clusters, hosts } = other;
        if is_everywhere(self.scope) || is_everywhere(other) {
            return is_everywhere(self.scope);
        }
        let cluster =
            |id: &ClusterId| self.scope.clusters.contains(id) || self.view.clusters.get(id).is_some_and(|row| self.zone(&row.zone));
        let host = |id: &HostId| self.scope.hosts.contains(id) || self.has_host(id);
        zones.iter().all(|id| self.zone(id)) && clusters.iter().all(cluster) && hosts.iter().all(host)
    }

    /// Whether `maker` may make this token: no role, scope or life beyond its own.
    fn grant(&self, maker: &Principal, row: &ApiTokenRow) -> Result<(), Denied> {
        let role = Right::ALL.iter().all(|right| !has(row.role, *right) || has(maker.role, *right));
        let outlives = match (maker.expires_at, row.expires_at) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(maker), Some(token)) => token > maker,
        };
        match () {
            () if !role => Err(Denied::More("role")),
            () if !self.contains(&row.scope) => Err(Denied::More("scope")),
            () if outlives => Err(Denied::More("ttl")),
            () => Ok(()),
        }
    }
}

/// The part of the view that a scope shows. Zones, clusters and racks that hold something of the scope are shown too, with nothing
/// in them that is not in it; tokens are not.
#[must_use]
pub fn visible(view: &View, scope: &Scope) -> View {
    let ids = hosts_in(view, scope);
    let hosts: OrdMap<HostId, Arc<HostRow>> =
        ids.iter().filter_map(|id| view.hosts.get(id)).map(|row| (row.id.clone(), Arc::clone(row))).collect();
    let cluster_hosts = indexed(&hosts, |row| row.cluster.clone());
    let rack_hosts = indexed(&hosts, |row| row.rack.clone());
    let reach = Reach { view, scope };
    let clusters = kept(&view.clusters, |id, row| reach.cluster(id, &row.zone) || cluster_hosts.contains_key(id));
    let racks = kept(&view.racks, |id, row| reach.zone(&row.zone) || rack_hosts.contains_key(id));
    let above: BTreeSet<&ZoneId> = clusters.values().map(|row| &row.zone).chain(racks.values().map(|row| &row.zone)).collect();
    let zones = kept(&view.zones, |id, _| reach.zone(id) || above.contains(id));
    let agents = kept(&view.agents, |_, row| racks.contains_key(&row.rack));
    View {
        power: kept(&view.power, |id, _| hosts.contains_key(id)),
        presence: kept(&view.presence, |id, _| agents.contains_key(id)),
        operations: view.operations.iter().filter_map(|(id, row)| Some((*id, part_of(row, &hosts)?))).collect(),
        alerts: kept(&view.alerts, |_, alert| reach.sees(&place_of(alert))),
        silences: kept(&view.silences, |_, row| reach.sees_silence(row)),
        join_tokens: OrdMap::new(),
        witness_tokens: OrdMap::new(),
        api_tokens: OrdMap::new(),
        pending: kept(&view.pending, |id, _| hosts.contains_key(id)),
        facts: kept(&view.facts, |id, _| hosts.contains_key(id)),
        ha: kept(&view.ha, |at, _| match at {
            Gate::Zone(id) => zones.contains_key(id),
            Gate::Cluster(id) => clusters.contains_key(id),
            Gate::Host(id) => hosts.contains_key(id),
        }),
        reported: kept(&view.reported, |id, _| hosts.contains_key(id)),
        settings: view.settings.clone(),
        zones,
        clusters,
        racks,
        hosts,
        agents,
        rack_hosts,
        cluster_hosts,
    }
}

fn kept<K: Ord + Clone, V: Clone>(rows: &OrdMap<K, V>, keep: impl Fn(&K, &V) -> bool) -> OrdMap<K, V> {
    rows.iter().filter(|(id, row)| keep(id, row)).map(|(id, row)| (id.clone(), row.clone())).collect()
}

fn indexed<K: Ord + Clone>(hosts: &OrdMap<HostId, Arc<HostRow>>, key: impl Fn(&HostRow) -> K) -> OrdMap<K, OrdSet<HostId>> {
    let mut index: OrdMap<K, OrdSet<HostId>> = OrdMap::new();
    for row in hosts.values() {
        index.entry(key(row)).or_default().insert(row.id.clone());
    }
    index
}

/// The hosts of a scope, by the indexes: a small scope of a large fleet costs little.
fn hosts_in(view: &View, scope: &Scope) -> OrdSet<HostId> {
    let of_zone = |zone: &ZoneId| view.clusters.values().filter(move |row| row.zone == *zone).map(|row| row.id.clone()).collect();
    let mut clusters: BTreeSet<ClusterId> = scope.zones.iter().flat_map(|zone| -> Vec<ClusterId> { of_zone(zone) }).collect();
    clusters.extend(scope.clusters.iter().cloned());
    let hosts = OrdSet::unions(clusters.iter().map(|cluster| view.hosts_of_cluster(cluster)));
    hosts.union(scope.hosts.iter().filter(|id| view.hosts.contains_key(*id)).cloned().collect())
}

/// An operation with the hosts that are shown; none when none is.
fn part_of(operation: &Arc<Operation>, hosts: &OrdMap<HostId, Arc<HostRow>>) -> Option<Arc<Operation>> {
    let parts: Vec<&Arc<PartRow>> = operation.parts.values().filter(|part| hosts.contains_key(&part.host)).collect();
    match parts.len() {
        0 => None,
        all if all == operation.parts.len() => Some(Arc::clone(operation)),
        _ => Some(Arc::new(Operation::new(operation.row.clone(), parts.into_iter().map(|part| PartRow::clone(part))))),
    }
}

fn place_of(alert: &Alert) -> Place<'_> {
    let Alert { host, agent, zone, cluster, .. } = alert;
    Place { host: host.as_ref(), agent: agent.as_ref(), zone: Some(zone), cluster: cluster.as_ref() }
}

/// Where something happened, as it says itself: the host may be gone or moved since.
struct Place<'a> {
    host: Option<&'a HostId>,
    agent: Option<&'a AgentId>,
    zone: Option<&'a ZoneId>,
    cluster: Option<&'a ClusterId>,
}

/// Whether a scope shows an event.
#[must_use]
pub fn sees_event(view: &View, scope: &Scope, event: &EventData) -> bool {
    let EventData { host, zone, cluster, agent, what: _ } = event;
    let place = Place { host: host.as_ref(), agent: agent.as_ref(), zone: zone.as_ref(), cluster: cluster.as_ref() };
    Reach { view, scope }.sees(&place)
}

#[cfg(test)]
mod tests;
