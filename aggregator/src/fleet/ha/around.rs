//! What goes on around an agent's hosts, and what it may spend: told when it connects, when it changes, and before a lease ends.
//! What is leased is durable before it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use picket_common::api::ha::Brakes;
use picket_common::clock::Now;
use picket_common::failure_cap::Cap;
use picket_common::ha::HaState;
use picket_common::id::{AgentId, ClusterId, HostId, ZoneId};
use picket_common::wire::Time;
use picket_common::wire::assign::Assign;
use picket_common::wire::ha::{ClusterSurroundings, HaReport, MAX_CLUSTERS, Surroundings};

use super::budget::Ledger;
use super::settings::{brakes, closed};
use super::status::standing;
use crate::fleet::request::Gate;
use crate::fleet::view::{BudgetRow, HostRow, Row, RowKey, View};
use crate::fleet::{Effect, Fleet, Record, Timer, Told};

/// How long changes are gathered before agents are told.
const GATHER: Duration = Duration::from_secs(5);
/// How often it is looked while anything is leased.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// When it is looked around next, and what was said last.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Lookout {
    /// The timer that counts.
    due: Option<Duration>,
    /// When agents were last told, by the wall clock: a word that looks older than the last one would be ignored.
    said_at: Option<Time>,
}

/// What an agent was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::fleet) struct ToldAround {
    epoch: u64,
    clusters: Vec<ClusterSurroundings>,
}

/// Hosts as they stand.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    hosts: u32,
    unwell: u32,
    well: u32,
    /// Those that may have to be switched off: also known ones.
    ill: u32,
}

impl Count {
    const fn plus(self, other: Self) -> Self {
        Self {
            hosts: self.hosts + other.hosts,
            unwell: self.unwell + other.unwell,
            well: self.well + other.well,
            ill: self.ill + other.ill,
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            hosts: self.hosts.saturating_sub(other.hosts),
            unwell: self.unwell.saturating_sub(other.unwell),
            well: self.well.saturating_sub(other.well),
            ill: self.ill.saturating_sub(other.ill),
        }
    }
}

/// A cluster's hosts by the agent that watches over them; none = nobody does.
#[derive(Debug, Default)]
struct Scene(BTreeMap<ClusterId, BTreeMap<Option<AgentId>, Count>>);

impl Scene {
    fn of(view: &View) -> Self {
        let mut clusters: BTreeMap<ClusterId, BTreeMap<Option<AgentId>, Count>> = BTreeMap::new();
        let hosts = view.ha.keys().filter_map(|at| match at {
            Gate::Host(id) => view.hosts.get(id),
            Gate::Zone(_) | Gate::Cluster(_) => None,
        });
        for host in hosts {
            let agent = view.agent_of(host).map(|agent| agent.id.clone());
            let count = clusters.entry(host.cluster.clone()).or_default().entry(agent).or_default();
            *count = count.plus(counted(view, host));
        }
        Self(clusters)
    }

    fn whole(&self, cluster: &ClusterId) -> Count {
        let agents = self.0.get(cluster).into_iter().flat_map(BTreeMap::values);
        agents.fold(Count::default(), |sum, count| sum.plus(*count))
    }

    fn of_agent(&self, cluster: &ClusterId, agent: &AgentId) -> Count {
        self.0.get(cluster).and_then(|agents| agents.get(&Some(agent.clone()))).copied().unwrap_or_default()
    }

    fn agents(&self, cluster: &ClusterId) -> BTreeSet<AgentId> {
        self.0.get(cluster).into_iter().flat_map(BTreeMap::keys).flatten().cloned().collect()
    }
}

fn counted(view: &View, host: &HostRow) -> Count {
    if closed(view, host).is_some() {
        return Count::default();
    }
    let standing = standing(view, host);
    let is_ill = view.reported.get(&host.id).and_then(|row| row.state()).is_some_and(HaState::is_unwell);
    Count {
        hosts: 1,
        unwell: u32::from(standing.is_some_and(|standing| standing.is_unwell)),
        well: u32::from(standing.is_some_and(|standing| standing.is_well)),
        ill: u32::from(is_ill),
    }
}

fn cap_of(view: &View, cluster: &ClusterId) -> Cap {
    let Brakes { cap, cap_window, .. } = brakes(view, cluster);
    Cap { most: cap, window: Duration::from_secs(cap_window.into()) }
}

/// Whether a report says that an off was sent, or may have been.
fn is_off_sent(report: &HaReport) -> bool {
    match &report.state {
        HaState::Fencing(fencing) => fencing.off_possibly_sent,
        HaState::Fenced(_) => report.proof.as_ref().is_some_and(|proof| proof.off_sent),
        _ => false,
    }
}

/// Whether a report tells of a power-down that the one before it did not tell of.
pub(super) fn is_power_down(before: Option<&HaReport>, report: &HaReport) -> bool {
    // A fence that is ordered while another one is under way may be counted for itself by its agent.
    let is_another = |before: &HaReport| before.operation != report.operation && matches!(report.state, HaState::Fencing(_));
    let is_same = |before: &HaReport| is_off_sent(before) && !is_another(before);
    is_off_sent(report) && !before.is_some_and(is_same)
}

impl Fleet {
    /// At the end of an event: if hosts may stand otherwise now, agents hear of it soon.
    pub(in crate::fleet) fn look_soon(&mut self, now: Now) {
        let is_news = !self.draft.status.is_empty() || !self.draft.presence.is_empty();
        if is_news && !self.view.ha.is_empty() {
            self.look_at(now.boottime + GATHER);
        }
    }

    fn look_at(&mut self, at: Duration) {
        if self.lookout.due.is_none_or(|due| at < due) {
            self.lookout.due = Some(at);
            self.arm(at, Timer::Around);
        }
    }

    /// The timer; one that was overtaken by another counts no more.
    pub(in crate::fleet) fn around_is_due(&mut self, at: Duration, now: Now) {
        if self.lookout.due == Some(at) {
            self.lookout.due = None;
            self.look_around(now);
        }
    }

    /// Counts, leases, and tells each agent that hears what changed for it.
    pub(in crate::fleet) fn look_around(&mut self, now: Now) {
        let scene = Scene::of(&self.view);
        let clusters: BTreeSet<ClusterId> = scene.0.keys().chain(self.ledgers.keys()).cloned().collect();
        for cluster in &clusters {
            self.lease(cluster, &scene, now);
        }
        let mut zones: BTreeMap<ZoneId, Vec<ClusterId>> = BTreeMap::new();
        for cluster in scene.0.keys() {
            if let Some(row) = self.view.clusters.get(cluster) {
                zones.entry(row.zone.clone()).or_default().push(cluster.clone());
            }
        }
        let hear: Vec<AgentId> = self.links.keys().filter(|agent| self.hears(agent)).cloned().collect();
        for agent in &hear {
            self.tell_around(agent, &scene, &zones, now);
        }
        if !self.ledgers.is_empty() {
            self.look_at(now.boottime + LOOK_EVERY);
        }
    }

    fn hears(&self, agent: &AgentId) -> bool {
        self.links.get(agent).is_some_and(|link| link.session.is_some())
    }

    /// Until when an agent has told all that it did.
    fn has_told(&self, agent: &AgentId) -> Option<Timestamp> {
        let presence = self.view.presence.get(agent)?;
        presence.vouched_at.filter(|_| presence.connected && presence.caught_up && presence.outbox == 0)
    }

    fn lease(&mut self, cluster: &ClusterId, scene: &Scene, now: Now) {
        let (cap, agents) = (cap_of(&self.view, cluster), scene.agents(cluster));
        let mut ledger = self.ledgers.get(cluster).cloned().unwrap_or_default();
        for agent in ledger.agents() {
            if let Some(told) = self.has_told(&agent) {
                ledger.settle(&agent, told);
            }
        }
        let need = |agent: &AgentId| match scene.of_agent(cluster, agent).ill {
            0 => 0,
            ill => ill.saturating_add(ledger.downs_of(agent)),
        };
        let needs = agents.iter().filter(|agent| self.hears(agent)).map(|agent| (agent.clone(), need(agent))).collect();
        ledger.lease(&agents, &needs, cap, now.wall);
        self.keep_ledger(cluster, ledger);
    }

    fn keep_ledger(&mut self, cluster: &ClusterId, ledger: Ledger) {
        if ledger.is_empty() {
            return self.forget_ledger(cluster);
        }
        if self.ledgers.get(cluster) != Some(&ledger) {
            // Rows always have a JSON form.
            let json = serde_json::to_string(&ledger).unwrap_or_default();
            self.draft.put(Row::Budget(BudgetRow { cluster: cluster.clone(), json }));
            self.ledgers.insert(cluster.clone(), ledger);
        }
    }

    /// Nothing is counted of a cluster any more.
    pub(in crate::fleet) fn forget_ledger(&mut self, cluster: &ClusterId) {
        if self.ledgers.remove(cluster).is_some() {
            self.draft.records.push(Record::Remove(RowKey::Budget(cluster.clone())));
        }
    }

    /// A stored row. One that does not read says nothing of what was leased: leases end soon enough.
    pub(in crate::fleet) fn load_ledger(&mut self, row: BudgetRow) {
        let ledger = serde_json::from_str(&row.json).unwrap_or_default();
        self.ledgers.insert(row.cluster, ledger);
    }

    /// The agent in charge of a host told of a power-down.
    pub(super) fn note_power_down(&mut self, host: &HostId, at: Timestamp, now: Now) {
        let Some(row) = self.view.hosts.get(host).cloned() else { return };
        let Some(agent) = self.view.agent_of(&row).map(|agent| agent.id.clone()) else { return };
        let mut ledger = self.ledgers.get(&row.cluster).cloned().unwrap_or_default();
        ledger.note_down(&agent, at, now.wall);
        ledger.forget(cap_of(&self.view, &row.cluster), now.wall);
        self.keep_ledger(&row.cluster, ledger);
    }

    fn tell_around(&mut self, agent: &AgentId, scene: &Scene, zones: &BTreeMap<ZoneId, Vec<ClusterId>>, now: Now) {
        let zone_of = |zone: &ZoneId| {
            let clusters = zones.get(zone).into_iter().flatten();
            clusters.fold(Count::default(), |sum, cluster| sum.plus(scene.whole(cluster).minus(scene.of_agent(cluster, agent))))
        };
        let mine = scene.0.iter().filter(|(_, agents)| agents.contains_key(&Some(agent.clone()))).map(|(cluster, _)| cluster);
        let clusters: Vec<ClusterSurroundings> = mine
            .take(MAX_CLUSTERS)
            .filter_map(|cluster| {
                let around = scene.whole(cluster).minus(scene.of_agent(cluster, agent));
                let zone = zone_of(&self.view.clusters.get(cluster)?.zone);
                let lease = self.ledgers.get(cluster).and_then(|ledger| ledger.grant(agent, now.wall));
                Some(ClusterSurroundings {
                    cluster: cluster.clone(),
                    hosts: around.hosts,
                    unwell: around.unwell,
                    well: around.well,
                    zone_hosts: zone.hosts,
                    zone_unwell: zone.unwell,
                    lease: lease.map_or(0, |lease| lease.count),
                    lease_until: lease.map_or(Time(0), |lease| lease.until.into()),
                })
            })
            .collect();
        let told = ToldAround { epoch: self.epoch_of(agent), clusters };
        let Some(link) = self.links.get_mut(agent) else { return };
        let is_nothing = told.clusters.is_empty() && link.told_around.as_ref().is_none_or(|before| before.clusters.is_empty());
        if is_nothing || link.told_around.as_ref() == Some(&told) {
            return;
        }
        let last = self.lookout.said_at.map_or(i64::MIN, |at| at.0);
        let at = Time(Time::from(now.wall).0.max(last.saturating_add(1)));
        self.lookout.said_at = Some(at);
        let word = Surroundings { at, epoch: told.epoch, clusters: told.clusters.clone() };
        link.told_around = Some(told);
        self.draft.assigns.push(Effect::Tell(agent.clone(), Told::Assign(vec![Assign::Surroundings(word)])));
    }
}
