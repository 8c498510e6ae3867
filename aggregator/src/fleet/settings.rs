//! Zones, clusters, racks and hosts put, changed and removed. Everything is checked before anything is changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use picket_common::api;
use picket_common::clock::Now;
use picket_common::id::{AgentId, ClusterId, HostId, RackId, ZoneId};
use picket_common::power::PowerState;
use picket_common::wire::assign::MAX_HOSTS;
use picket_common::wire::topic::Public;

use super::bmc::{Sealing, merge};
use super::draft::state_topic;
use super::request::{Answer, BmcChange, HostChange, HostSpec, Rejection};
use super::view::{ClusterRow, HostRow, PowerRow, RackRow, Row, RowKey, ZoneRow};
use super::{Fleet, Record};

const MAX_LABELS: usize = 64;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 255;

fn not_found(kind: &'static str, id: impl ToString) -> Rejection {
    Rejection::NotFound { kind, id: id.to_string() }
}

fn in_use(kind: &'static str, id: impl ToString, by: impl Into<String>) -> Rejection {
    Rejection::InUse { kind, id: id.to_string(), by: by.into() }
}

fn check_seconds(field: &'static str, seconds: Option<u64>) -> Result<(), Rejection> {
    match seconds {
        Some(seconds) if !(1..=3600).contains(&seconds) => {
            Err(Rejection::Invalid { field, text: format!("{seconds} is not within 1 to 3600 seconds") })
        }
        _ => Ok(()),
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Rejection> {
    let fits = |(key, value): (&String, &String)| {
        (1..=MAX_LABEL_KEY).contains(&key.len())
            && value.len() <= MAX_LABEL_VALUE
            && !key.chars().chain(value.chars()).any(char::is_control)
    };
    if labels.len() <= MAX_LABELS && labels.iter().all(fits) {
        return Ok(());
    }
    let text = format!(
        "at most {MAX_LABELS} labels with names of 1 to {MAX_LABEL_KEY} bytes and values of at most {MAX_LABEL_VALUE}, no control characters"
    );
    Err(Rejection::Invalid { field: "labels", text })
}

/// A host as it will be, before its BMC is known.
struct Place<'a> {
    cluster: &'a ClusterId,
    zone: Option<&'a ZoneId>,
    rack: &'a RackId,
}

impl Fleet {
    pub(super) fn put_zone(&mut self, id: ZoneId) -> Answer {
        let created = !self.view.zones.contains_key(&id);
        if created {
            let row = ZoneRow { id: id.clone(), oobm: None };
            self.draft.put(Row::Zone(row.clone()));
            self.view.zones.insert(id, Arc::new(row));
        }
        Answer::Done { created }
    }

    pub(super) fn delete_zone(&mut self, id: &ZoneId) -> Result<Answer, Rejection> {
        if !self.view.zones.contains_key(id) {
            return Err(not_found("zone", id));
        }
        if let Some(cluster) = self.view.clusters.values().find(|cluster| cluster.zone == *id) {
            return Err(in_use("zone", id, format!("cluster {}", cluster.id)));
        }
        if let Some(rack) = self.view.racks.values().find(|rack| rack.zone == *id) {
            return Err(in_use("zone", id, format!("rack {}", rack.id)));
        }
        self.view.zones.remove(id);
        self.draft.records.push(Record::Remove(RowKey::Zone(id.clone())));
        Ok(Answer::Done { created: false })
    }

    pub(super) fn put_cluster(&mut self, id: ClusterId, body: api::ClusterBody) -> Result<Answer, Rejection> {
        check_seconds("poll_interval", body.poll_interval)?;
        check_seconds("action_timeout", body.action_timeout)?;
        if !self.view.zones.contains_key(&body.zone) {
            return Err(not_found("zone", &body.zone));
        }
        let before = self.view.clusters.get(&id).cloned();
        let hosts = self.view.hosts_of_cluster(&id);
        if before.as_ref().is_some_and(|row| row.zone != body.zone) && !hosts.is_empty() {
            return Err(Rejection::ZoneMismatch(format!("cluster {id} has hosts, so it stays in its zone; move the hosts first")));
        }
        let api::ClusterBody { zone, poll_interval, action_timeout } = body;
        let oobm = before.as_ref().and_then(|row| row.oobm);
        let row = Arc::new(ClusterRow { id: id.clone(), zone, oobm, poll_interval, action_timeout });
        if before.as_ref() != Some(&row) {
            self.draft.put(Row::Cluster((*row).clone()));
            self.view.clusters.insert(id, row);
        }
        if before.as_ref().is_some_and(|row| row.poll_interval != poll_interval) {
            for host in hosts.iter().filter_map(|id| self.view.hosts.get(id)).cloned().collect::<Vec<_>>() {
                self.touch(&host);
            }
        }
        Ok(Answer::Done { created: before.is_none() })
    }

    pub(super) fn delete_cluster(&mut self, id: &ClusterId) -> Result<Answer, Rejection> {
        if !self.view.clusters.contains_key(id) {
            return Err(not_found("cluster", id));
        }
        if let Some(host) = self.view.hosts_of_cluster(id).get_min() {
            return Err(in_use("cluster", id, format!("host {host}")));
        }
        self.view.clusters.remove(id);
        self.draft.records.push(Record::Remove(RowKey::Cluster(id.clone())));
        Ok(Answer::Done { created: false })
    }

    pub(super) fn put_rack(&mut self, id: RackId, body: api::RackBody) -> Result<Answer, Rejection> {
        if !self.view.zones.contains_key(&body.zone) {
            return Err(not_found("zone", &body.zone));
        }
        let before = self.view.racks.get(&id).cloned();
        if before.as_ref().is_some_and(|row| row.zone != body.zone) && self.view.rack_hosts.contains_key(&id) {
            return Err(Rejection::ZoneMismatch(format!("rack {id} has hosts, so it stays in its zone; move the hosts first")));
        }
        let (agent, epoch) = before.as_ref().map_or((None, 0), |row| (row.agent.clone(), row.epoch));
        let row = Arc::new(RackRow { id: id.clone(), zone: body.zone, agent, epoch });
        if before.as_ref() != Some(&row) {
            self.draft.put(Row::Rack((*row).clone()));
            self.view.racks.insert(id, row);
        }
        Ok(Answer::Done { created: before.is_none() })
    }

    /// Removes a rack without hosts, with its agents and the tokens they might join with.
    pub(super) fn delete_rack(&mut self, id: &RackId) -> Result<Answer, Rejection> {
        if !self.view.racks.contains_key(id) {
            return Err(not_found("rack", id));
        }
        if let Some(host) = self.view.rack_hosts.get(id).and_then(imbl::OrdSet::get_min) {
            return Err(in_use("rack", id, format!("host {host}")));
        }
        let agents: Vec<AgentId> = self.view.agents.values().filter(|row| row.rack == *id).map(|row| row.id.clone()).collect();
        for agent in agents {
            self.view.agents.remove(&agent);
            self.view.presence.remove(&agent);
            self.links.remove(&agent);
            self.draft.clear(Public::Agent(agent.clone()));
            self.draft.records.push(Record::Remove(RowKey::Agent(agent)));
        }
        self.remove_tokens(|token| token.rack == *id);
        self.view.racks.remove(id);
        self.draft.records.push(Record::Remove(RowKey::Rack(id.clone())));
        Ok(Answer::Done { created: false })
    }

    pub(super) fn put_host(&mut self, id: HostId, spec: HostSpec, now: Now) -> Result<Answer, Rejection> {
        let HostSpec { cluster, zone, rack, bmc, maintenance, poll_interval, labels } = spec;
        let before = self.view.hosts.get(&id).cloned();
        let place = Place { cluster: &cluster, zone: zone.as_ref(), rack: &rack };
        let zone = self.check_place(&id, &place)?;
        check_seconds("poll_interval", poll_interval)?;
        check_labels(&labels)?;
        let sealing = self.sealing(before.as_deref(), &rack);
        let base = before.as_ref().and_then(|row| row.bmc.as_ref());
        let bmc = bmc.map(|change| merge(base, change, true, sealing, fresh(now))).transpose()?;
        let (oobm, enablement) = before.as_ref().map_or((None, fresh(now)), |row| (row.oobm, row.enablement));
        let row = HostRow { id, zone, cluster, rack, oobm, enablement, bmc, maintenance, poll_interval, labels };
        let created = before.is_none();
        match before {
            Some(before) => self.change_host(&before, row, now),
            None => self.add_host(row, now),
        }
        Ok(Answer::Done { created })
    }

    pub(super) fn patch_host(&mut self, id: &HostId, change: HostChange, now: Now) -> Result<Answer, Rejection> {
        let before = self.view.hosts.get(id).cloned().ok_or_else(|| not_found("host", id))?;
        let mut row = (*before).clone();
        row.cluster = change.cluster.unwrap_or(row.cluster);
        row.rack = change.rack.unwrap_or(row.rack);
        row.zone = self.check_place(id, &Place { cluster: &row.cluster, zone: None, rack: &row.rack })?;
        row.maintenance = change.maintenance.unwrap_or(row.maintenance);
        row.poll_interval = change.poll_interval.or(row.poll_interval);
        row.labels = change.labels.unwrap_or(row.labels);
        check_seconds("poll_interval", row.poll_interval)?;
        check_labels(&row.labels)?;
        if change.bmc.is_some() || before.bmc.is_some() {
            let sealing = self.sealing(Some(&before), &row.rack);
            let change: BmcChange = change.bmc.unwrap_or_default();
            row.bmc = Some(merge(before.bmc.as_ref(), change, false, sealing, fresh(now))?);
        }
        self.change_host(&before, row, now);
        Ok(Answer::Done { created: false })
    }

    /// The zone of a host's place, if cluster, zone and rack exist, agree and have room.
    fn check_place(&self, id: &HostId, place: &Place<'_>) -> Result<ZoneId, Rejection> {
        let Place { cluster, zone, rack } = *place;
        let cluster_row = self.view.clusters.get(cluster).ok_or_else(|| not_found("cluster", cluster))?;
        let rack_row = self.view.racks.get(rack).ok_or_else(|| not_found("rack", rack))?;
        let its = &cluster_row.zone;
        if let Some(zone) = zone.filter(|zone| *zone != its) {
            return Err(Rejection::ZoneMismatch(format!(
                "host {id} is said to be in zone {zone}, its cluster {cluster} is in {its}"
            )));
        }
        if rack_row.zone != *its {
            let other = &rack_row.zone;
            return Err(Rejection::ZoneMismatch(format!("rack {rack} is in zone {other}, cluster {cluster} is in {its}")));
        }
        let is_full = self.view.rack_hosts.get(rack).is_some_and(|hosts| hosts.len() >= MAX_HOSTS && !hosts.contains(id));
        if is_full {
            return Err(Rejection::Invalid {
                field: "rack",
                text: format!("rack {rack} has {MAX_HOSTS} hosts, which is the most"),
            });
        }
        Ok(its.clone())
    }

    fn sealing(&self, before: Option<&HostRow>, rack: &RackId) -> Sealing {
        let was = before.and_then(|row| self.view.agent_of(row)).map(|agent| &agent.id);
        let will = self.view.racks.get(rack).and_then(|rack| rack.agent.as_ref());
        let key = will.and_then(|agent| self.view.agents.get(agent)).map(|agent| agent.sealing_key);
        Sealing { key, moved: before.is_some() && was != will }
    }

    fn add_host(&mut self, row: HostRow, now: Now) {
        let id = row.id.clone();
        let power = PowerRow {
            host: id.clone(),
            power: PowerState::Disabled,
            power_since: now.wall,
            management: None,
            management_since: None,
            error: None,
            sequence: self.next_sequence,
            stale: false,
        };
        self.index_host(&row);
        self.view.power.insert(id.clone(), Arc::new(power));
        self.view.hosts.insert(id.clone(), Arc::new(row.clone()));
        self.draft.hosts.insert(id.clone());
        self.draft.power.insert(id);
        self.touch(&row);
    }

    fn change_host(&mut self, before: &HostRow, row: HostRow, now: Now) {
        if *before == row {
            return;
        }
        let id = row.id.clone();
        let (_, refused) = self.with_refusal(before);
        let was = self.view.agent_of(before).map(|agent| agent.id.clone());
        self.unindex_host(before);
        self.index_host(&row);
        self.edit_host(&id, |host| *host = row.clone());
        let is = self.view.agent_of(&row).map(|agent| agent.id.clone());
        if was != is {
            if let Some(was) = was {
                self.draft.touched.entry(was).or_default().remove.insert(id.clone());
            }
            if super::enablement::is_open(refused) {
                self.start_anew(&id, now);
            }
        }
        if before.rack != row.rack
            || before.cluster != row.cluster
            || before.poll_interval != row.poll_interval
            || before.bmc != row.bmc
        {
            self.touch(&row);
        }
        if before.cluster != row.cluster || before.zone != row.zone {
            self.draft.clear(state_topic(before));
            self.draft.power.insert(id.clone());
            self.move_alerts(&row);
        }
        self.settle_host(&id, refused, now);
    }

    /// Removes a host. Its history stays.
    pub(super) fn delete_host(&mut self, id: &HostId, now: Now) -> Result<Answer, Rejection> {
        let row = self.view.hosts.get(id).cloned().ok_or_else(|| not_found("host", id))?;
        self.abandon_operations(&row, now);
        self.resolve_all(&row, now);
        if let Some(agent) = self.view.agent_of(&row).map(|agent| agent.id.clone()) {
            self.edit_presence(&agent, |presence| {
                presence.overdue.remove(id);
                presence.overdue_vouched.remove(id);
            });
            self.draft.touched.entry(agent).or_default().remove.insert(id.clone());
        }
        self.unindex_host(&row);
        self.view.hosts.remove(id);
        self.view.power.remove(id);
        self.draft.clear(state_topic(&row));
        self.draft.records.push(Record::Remove(RowKey::Host(id.clone())));
        self.draft.records.push(Record::Remove(RowKey::Power(id.clone())));
        Ok(Answer::Done { created: false })
    }

    pub(super) fn index_host(&mut self, row: &HostRow) {
        self.view.rack_hosts.entry(row.rack.clone()).or_default().insert(row.id.clone());
        self.view.cluster_hosts.entry(row.cluster.clone()).or_default().insert(row.id.clone());
    }

    fn unindex_host(&mut self, row: &HostRow) {
        if let Some(hosts) = self.view.rack_hosts.get_mut(&row.rack) {
            hosts.remove(&row.id);
            if hosts.is_empty() {
                self.view.rack_hosts.remove(&row.rack);
            }
        }
        if let Some(hosts) = self.view.cluster_hosts.get_mut(&row.cluster) {
            hosts.remove(&row.id);
            if hosts.is_empty() {
                self.view.cluster_hosts.remove(&row.cluster);
            }
        }
    }
}

/// Where the counters of a new host or BMC start: a host removed and made again must not count over the same numbers, or an
/// agent that missed it would take the new one for the old.
fn fresh(now: Now) -> u64 {
    now.wall.as_millisecond().unsigned_abs()
}
