//! What an agent is told of host-HA: whole, when it connects and whenever it changes, in parts that fit a frame.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdSet;
use picket_common::api::ha::Brakes;
use picket_common::clock::Now;
use picket_common::failure_cap::Cap;
use picket_common::ha::settings::{ActivityCheck, HaSettings, HealthCheck, Neighbour};
use picket_common::id::{AgentId, ClusterId, HostId};
use picket_common::wire::Generation;
use picket_common::wire::assign::Assign;
use picket_common::wire::ha::{ClusterHa, HaPart, HostHa, MAX_CLUSTERS, Pause};

use super::settings::{brakes, closed, in_force, is_concerned, pause};
use crate::fleet::assign::cut;
use crate::fleet::request::Gate;
use crate::fleet::view::{HostRow, View};
use crate::fleet::{Effect, Fleet, Told};

/// How many neighbours are asked about a host's files, where nobody names them.
const NEIGHBOURS: usize = 3;

/// What an agent was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fleet) struct ToldHa {
    epoch: u64,
    clusters: Vec<ClusterHa>,
    hosts: Vec<HostHa>,
}

/// The hosts of a cluster that host-HA was ever set up for.
pub(super) fn concerned<'a>(view: &'a View, cluster: &ClusterId) -> impl Iterator<Item = &'a HostRow> + use<'a> {
    let hosts: Vec<&HostRow> = match view.cluster_hosts.get(cluster) {
        Some(ids) => ids.iter().filter(|id| is_concerned(view, id)).filter_map(|id| view.hosts.get(id)).map(|row| &**row).collect(),
        None => Vec::new(),
    };
    hosts.into_iter()
}

/// The agents in charge of those.
pub(super) fn agents_of(view: &View, cluster: &ClusterId) -> BTreeSet<AgentId> {
    concerned(view, cluster).filter_map(|host| view.agent_of(host)).map(|agent| agent.id.clone()).collect()
}

fn told(view: &View, agent: &AgentId, epoch: u64) -> ToldHa {
    let all = view.hosts_of(agent);
    let rows: Vec<&HostRow> =
        all.iter().filter(|id| is_concerned(view, id)).filter_map(|id| view.hosts.get(id)).map(|row| &**row).collect();
    let names: BTreeSet<&ClusterId> = rows.iter().map(|row| &row.cluster).collect();
    let names: BTreeSet<&ClusterId> = names.into_iter().take(MAX_CLUSTERS).collect();
    let clusters = names.iter().filter_map(|id| cluster(view, id)).collect();
    let mut witnesses = BTreeMap::new();
    // A host without its cluster's brakes is not watched over.
    let hosts = rows.iter().filter(|row| names.contains(&row.cluster)).map(|row| host(view, row, &mut witnesses)).collect();
    ToldHa { epoch, clusters, hosts }
}

fn cluster(view: &View, id: &ClusterId) -> Option<ClusterHa> {
    let Brakes { cap, cap_window, storm_rack, storm_cluster, storm_zone, cool_down, cliff, somewhere_to_go, isolation } =
        brakes(view, id);
    Some(ClusterHa {
        cluster: id.clone(),
        zone: view.clusters.get(id)?.zone.clone(),
        cap,
        cap_window,
        agents: u16::try_from(agents_of(view, id).len()).unwrap_or(u16::MAX),
        storm: [storm_rack, storm_cluster, storm_zone],
        cool_down,
        cliff: (cliff > 0).then_some(cliff),
        somewhere_to_go,
        isolation,
    })
}

fn host(view: &View, row: &HostRow, witnesses: &mut BTreeMap<ClusterId, Vec<Neighbour>>) -> HostHa {
    let mut settings = in_force(view, row);
    for check in &mut settings.activity {
        if let ActivityCheck::Witness { neighbours, .. } = check
            && neighbours.is_empty()
        {
            let all = witnesses.entry(row.cluster.clone()).or_insert_with(|| witnesses_of(view, &row.cluster));
            *neighbours = next_to(&row.id, all);
        }
    }
    HostHa {
        host: row.id.clone(),
        closed: closed(view, row),
        maintenance: row.maintenance,
        pause: pause(view, row).map(|pause| Pause { owner: pause.owner.clone(), until: pause.until.into() }),
        identity: view.facts.get(&row.id).and_then(|facts| facts.pinned.clone()),
        settings,
        levels: Vec::new(),
    }
}

/// Hosts of a cluster whose witness answers for their health: it can be asked about others as well.
fn witnesses_of(view: &View, cluster: &ClusterId) -> Vec<Neighbour> {
    let witness = |row: &HostRow| {
        in_force(view, row).health.into_iter().find_map(|check| match check {
            HealthCheck::Witness { address, port } => Some(Neighbour { host: row.id.clone(), address, port }),
            _ => None,
        })
    };
    concerned(view, cluster).filter_map(witness).collect()
}

/// Those that follow a host by name, the first ones after the last: so that not all ask the same.
fn next_to(host: &HostId, all: &[Neighbour]) -> Vec<Neighbour> {
    let after = all.iter().filter(|neighbour| neighbour.host > *host);
    let before = all.iter().filter(|neighbour| neighbour.host < *host);
    after.chain(before).take(NEIGHBOURS).cloned().collect()
}

/// An upper bound of a text's length in postcard.
const fn text(text: &str) -> usize {
    text.len() + 3
}

/// An upper bound of a cluster's length in postcard.
fn cluster_bound(cluster: &ClusterHa) -> usize {
    text(cluster.cluster.as_str()) + text(cluster.zone.as_str()) + 40
}

/// An upper bound of a host's length in postcard.
fn host_bound(host: &HostHa) -> usize {
    let HaSettings { health, activity, .. } = &host.settings;
    let health: usize = health.iter().map(|check| health_bound(check) + 8).sum();
    let activity: usize = activity.iter().map(|check| activity_bound(check) + 8).sum();
    let pause = host.pause.as_ref().map_or(0, |pause| text(&pause.owner) + 10);
    let identity = host.identity.as_deref().map_or(0, text);
    text(host.host.as_str()) + pause + identity + health + activity + 160
}

fn health_bound(check: &HealthCheck) -> usize {
    match check {
        HealthCheck::Witness { address: place, .. }
        | HealthCheck::Tcp { address: place, .. }
        | HealthCheck::Icmp { address: place }
        | HealthCheck::Http { url: place }
        | HealthCheck::Exec { check: place } => text(place),
    }
}

fn activity_bound(check: &ActivityCheck) -> usize {
    let all = |paths: &[String]| paths.iter().map(|path| text(path)).sum::<usize>();
    match check {
        ActivityCheck::Files { paths } => all(paths),
        ActivityCheck::Witness { paths, neighbours } => {
            let neighbour = |neighbour: &Neighbour| text(neighbour.host.as_str()) + text(&neighbour.address) + 4;
            all(paths) + neighbours.iter().map(neighbour).sum::<usize>()
        }
        ActivityCheck::Heartbeat { path: place } | ActivityCheck::Exec { check: place } => text(place),
    }
}

/// Cuts what is told into parts that fit; the clusters are in the first.
fn parts(version: Generation, told: &ToldHa) -> Vec<Assign> {
    let mut clusters = told.clusters.clone();
    let filled = clusters.iter().map(cluster_bound).sum();
    let cut = cut(told.hosts.clone(), filled, host_bound);
    let of = u16::try_from(cut.len()).unwrap_or(u16::MAX);
    let part = |(part, hosts)| HaPart {
        version,
        epoch: told.epoch,
        part,
        of,
        agent_cap: Cap::AGENT.most,
        clusters: std::mem::take(&mut clusters),
        hosts,
    };
    (0..of).zip(cut).map(part).map(Assign::Ha).collect()
}

impl Fleet {
    /// What is known of a host changes, as far as its agent alone is concerned.
    pub(in crate::fleet) fn concern_ha_host(&mut self, host: &HostRow) {
        if is_concerned(&self.view, &host.id) {
            self.draft.ha.extend(self.view.agent_of(host).map(|agent| agent.id.clone()));
        }
    }

    /// A host comes to a place or leaves it: all agents of its cluster may have to know.
    pub(in crate::fleet) fn concern_ha(&mut self, host: &HostRow) {
        if is_concerned(&self.view, &host.id) {
            self.draft.ha.extend(self.view.agent_of(host).map(|agent| agent.id.clone()));
            self.draft.ha.extend(agents_of(&self.view, &host.cluster));
        }
    }

    /// The same for the hosts of a rack, whose agent changes.
    pub(in crate::fleet) fn concern_ha_rack(&mut self, hosts: &OrdSet<HostId>) {
        let rows = hosts.iter().filter(|id| is_concerned(&self.view, id)).filter_map(|id| self.view.hosts.get(id));
        let clusters: BTreeSet<ClusterId> = rows.map(|row| row.cluster.clone()).collect();
        for cluster in &clusters {
            self.draft.ha.extend(agents_of(&self.view, cluster));
        }
        let agents = hosts.iter().filter_map(|id| self.view.hosts.get(id)).filter_map(|row| self.view.agent_of(row));
        self.draft.ha.extend(agents.map(|agent| agent.id.clone()).collect::<BTreeSet<_>>());
    }

    /// Something is set there.
    pub(super) fn concern_ha_at(&mut self, at: &Gate) {
        match at {
            Gate::Zone(id) => {
                let clusters = self.view.clusters.values().filter(|cluster| cluster.zone == *id);
                let agents: BTreeSet<AgentId> = clusters.flat_map(|cluster| agents_of(&self.view, &cluster.id)).collect();
                self.draft.ha.extend(agents);
            }
            Gate::Cluster(id) => self.draft.ha.extend(agents_of(&self.view, id)),
            Gate::Host(id) => {
                if let Some(row) = self.view.hosts.get(id).cloned() {
                    self.concern_ha(&row);
                }
            }
        }
    }

    /// At the end of an event: tells each agent that may be concerned, if it is and hears.
    pub(in crate::fleet) fn retell_ha(&mut self, now: Now) {
        let mut is_told = false;
        for agent in std::mem::take(&mut self.draft.ha) {
            let epoch = self.epoch_of(&agent);
            let Some(link) = self.links.get_mut(&agent).filter(|link| link.session.is_some()) else { continue };
            let told = told(&self.view, &agent, epoch);
            if link.told_ha.as_ref() == Some(&told) {
                continue;
            }
            self.ha_version += 1;
            let parts = parts(Generation { store: self.life, counter: self.ha_version }, &told);
            link.told_ha = Some(told);
            self.draft.assigns.push(Effect::Tell(agent, Told::Assign(parts)));
            is_told = true;
        }
        if is_told && !self.view.ha.is_empty() {
            self.look_around(now);
        }
    }
}
