//! What the centre says about host-HA: parts are collected and applied as a whole, older ones ignored. Pure.

use std::collections::{BTreeMap, HashMap};

use picket_common::clock::Now;
use picket_common::id::{ClusterId, HostId};
use picket_common::wire::Generation;
use picket_common::wire::assign::MAX_HOSTS;
use picket_common::wire::ha::{ClusterHa, HaPart, HostHa, Surroundings};
use serde::{Deserialize, Serialize};

use super::Watch;
use super::row::HaRow;
use crate::rack::{Decision, Rack, Record};

/// What is in force for all hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Which version.
    pub version: Generation,
    /// Owner epoch it was said under.
    pub epoch: u64,
    /// Most power-downs of this agent within an hour.
    pub agent_cap: u16,
    /// The clusters.
    pub clusters: Vec<ClusterHa>,
}

impl Rules {
    /// A cluster's rules.
    #[must_use]
    pub fn cluster(&self, cluster: &ClusterId) -> Option<&ClusterHa> {
        self.clusters.iter().find(|rules| rules.cluster == *cluster)
    }
}

/// Parts of the next version.
#[derive(Debug)]
pub(super) struct Collecting {
    version: Generation,
    epoch: u64,
    of: u16,
    agent_cap: u16,
    clusters: Vec<ClusterHa>,
    parts: BTreeMap<u16, Vec<HostHa>>,
}

/// What is known of a host that is not assigned to this agent, or not yet.
#[derive(Debug, Default)]
pub struct Absent {
    /// What host-HA needs to know of it.
    pub ha: Option<HostHa>,
    /// Where it stood.
    pub row: Option<HaRow>,
}

impl Rack {
    pub(in crate::rack) fn ha_assigned(&mut self, part: HaPart, now: Now, decision: &mut Decision) {
        let Some((rules, hosts)) = self.collect(part) else { return };
        decision.records.push(Record::HaRules(Box::new(rules.clone())));
        self.watching.rules = Some(rules);
        let mut told: HashMap<HostId, HostHa> = hosts.into_iter().map(|ha| (ha.host.clone(), ha)).collect();
        let watched = self.hosts.iter().enumerate().filter_map(|(slot, host)| Some((slot, host.as_ref()?)));
        let here: Vec<(usize, HostId)> = watched.map(|(slot, host)| (slot, host.row.host.clone())).collect();
        for (slot, id) in here {
            match told.remove(&id) {
                Some(ha) => self.watch(slot, ha, now, decision),
                None => self.unwatch(slot, now, decision),
            }
        }
        self.keep_absent(told, decision);
    }

    /// Takes a part; gives the whole when it is complete.
    fn collect(&mut self, part: HaPart) -> Option<(Rules, Vec<HostHa>)> {
        let HaPart { version, epoch, part: number, of, agent_cap, clusters, hosts } = part;
        let held = self.watching.rules.as_ref();
        let is_newer = held.is_none_or(|held| held.version.store != version.store || version.counter > held.version.counter);
        if epoch < self.assignments.epoch || held.is_some_and(|held| epoch < held.epoch) || !is_newer {
            return None;
        }
        let collecting = &mut self.watching.collecting;
        if !collecting.as_ref().is_some_and(|c| c.version == version && c.of == of && c.epoch == epoch) {
            *collecting = Some(Collecting { version, epoch, of, agent_cap, clusters: vec![], parts: BTreeMap::new() });
        }
        let parts = collecting.as_mut()?;
        if number == 0 {
            parts.clusters = clusters;
            parts.agent_cap = agent_cap;
        }
        parts.parts.insert(number, hosts);
        if parts.parts.values().map(Vec::len).sum::<usize>() > MAX_HOSTS {
            *collecting = None;
            return None;
        }
        let whole = collecting.take_if(|parts| parts.parts.len() >= usize::from(parts.of))?;
        let Collecting { version, epoch, agent_cap, clusters, parts, .. } = whole;
        Some((Rules { version, epoch, agent_cap, clusters }, parts.into_values().flatten().collect()))
    }

    /// Hosts that are not assigned here are remembered until they are.
    fn keep_absent(&mut self, mut told: HashMap<HostId, HostHa>, decision: &mut Decision) {
        self.watching.absent.retain(|host, absent| {
            let ha = told.remove(host);
            if ha.is_none() && absent.ha.is_some() {
                decision.records.push(Record::HostHaGone(host.clone()));
            }
            if ha.is_some() && ha != absent.ha {
                decision.records.extend(ha.clone().map(|ha| Record::HostHa(Box::new(ha))));
            }
            absent.ha = ha;
            absent.ha.is_some() || absent.row.is_some()
        });
        for (host, ha) in told {
            decision.records.push(Record::HostHa(Box::new(ha.clone())));
            self.watching.absent.insert(host, Absent { ha: Some(ha), row: None });
        }
    }

    pub(in crate::rack) fn surroundings_told(&mut self, told: Surroundings, now: Now, decision: &mut Decision) {
        let held = self.watching.surroundings.as_ref();
        if told.epoch < self.assignments.epoch || held.is_some_and(|held| (told.epoch, told.at) <= (held.epoch, held.at)) {
            return;
        }
        decision.records.push(Record::Surroundings(Box::new(told.clone())));
        self.watching.surroundings = Some(told);
        self.attend_all(now, decision);
    }

    /// A host is watched over from now on, or its settings are others.
    fn watch(&mut self, slot: usize, ha: HostHa, now: Now, decision: &mut Decision) {
        let boot = self.settings.machine_boot;
        let Some(host) = self.host_mut(slot) else { return };
        match &mut host.watch {
            Some(watch) if watch.ha == ha => return,
            Some(watch) => watch.change(ha.clone(), now),
            None => {
                let row = HaRow::new(ha.host.clone(), boot, now);
                host.watch = Some(Box::new(Watch::new(ha.clone(), row, now)));
            }
        }
        decision.records.push(Record::HostHa(Box::new(ha)));
        self.begin_watch(slot, now, decision);
    }

    /// Nobody watches over a host any more. That it was fenced is remembered all the same.
    fn unwatch(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(host) = self.host(slot).filter(|host| host.watch.is_some()) else { return };
        let id = host.row.host.clone();
        self.stop_watching(slot, "nobody has settings for it any more", now, decision);
        decision.records.push(Record::HostHaGone(id.clone()));
        let row = self.host_mut(slot).and_then(|host| host.watch.take()).map(|watch| watch.row);
        match row.filter(|row| row.mark.is_some()) {
            Some(row) => drop(self.watching.absent.insert(id, Absent { ha: None, row: Some(row) })),
            None => decision.records.push(Record::HaGone(id)),
        }
    }

    /// A host was assigned: is it to be watched over?
    pub(in crate::rack) fn watch_assigned(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let boot = self.settings.machine_boot;
        let Some(host) = self.hosts.get_mut(slot).and_then(Option::as_mut) else { return };
        if host.watch.is_none() {
            let known = self.watching.absent.get(&host.row.host).is_some_and(|absent| absent.ha.is_some());
            let Some(absent) = self.watching.absent.remove(&host.row.host).filter(|_| known) else { return };
            let Absent { ha: Some(ha), row } = absent else { return };
            let row = row.unwrap_or_else(|| HaRow::new(ha.host.clone(), boot, now));
            host.watch = Some(Box::new(Watch::new(ha, row, now)));
        }
        self.begin_watch(slot, now, decision);
    }

    /// Its gates moved, or it has another BMC: what was read before says nothing any more. The aggregator trusts nothing that was
    /// said under an earlier enablement, so it is said again.
    pub(in crate::rack) fn watch_moved(&mut self, slot: usize, gates_moved: bool, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        watch.seen.forget();
        if gates_moved && watch.row.version > 0 {
            let report = watch.row.report();
            decision.records.push(Record::Report(Box::new(report)));
        }
    }

    /// A host leaves the rack: what is known of it is kept in case it comes back.
    pub(in crate::rack) fn watch_removed(&mut self, slot: usize, decision: &mut Decision) {
        let Some(watch) = self.host_mut(slot).and_then(|host| host.watch.take()) else { return };
        let Watch { ha, mut row, .. } = *watch;
        // Another agent tells of it now; here only the mark counts.
        row.state = picket_common::ha::HaState::Disabled;
        row.orders.clear();
        row.stepper = None;
        decision.records.push(Record::Ha(Box::new(row.clone())));
        self.watching.absent.insert(ha.host.clone(), Absent { ha: Some(ha), row: Some(row) });
    }
}
