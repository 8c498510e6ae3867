//! Zones, racks and hosts put, changed and removed, clusters removed. Everything is checked before anything is changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use picket_common::api::{self, Field};
use picket_common::clock::Now;
use picket_common::id::{AgentId, ClusterId, HostId, RackId, ZoneId};
use picket_common::power::PowerState;
use picket_common::wire::assign::MAX_HOSTS;
use picket_common::wire::topic::Public;

use super::assign::assigned;
use super::bmc::{Ground, Sealing, merge, stays_open};
use super::draft::state_topic;
use super::request::{Answer, BmcChange, Gate, HostChange, HostSpec, Rejection};
use super::view::{BmcRow, HaSet, HostRow, PowerRow, RackRow, Row, RowKey, ZoneRow};
use super::{Fleet, Record};

const MAX_LABELS: usize = 64;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 255;

pub(super) fn not_found(kind: &'static str, id: impl ToString) -> Rejection {
    Rejection::NotFound { kind, id: id.to_string() }
}

fn in_use(kind: &'static str, id: impl ToString, by: impl Into<String>) -> Rejection {
    Rejection::InUse { kind, id: id.to_string(), by: by.into() }
}

pub(super) fn check_seconds(field: &'static str, seconds: Option<u64>) -> Result<(), Rejection> {
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

/// A host as it will be, checked against what is there.
pub(super) struct PlannedHost {
    /// As it is; absent = it is new.
    pub(super) before: Option<Arc<HostRow>>,
    /// As it will be.
    pub(super) row: HostRow,
    ha: HaSet,
    is_new_password: bool,
}

/// Why a rack takes no more hosts.
pub(super) fn rack_is_full(rack: &RackId) -> Rejection {
    Rejection::Invalid { field: "rack", text: format!("rack {rack} has {MAX_HOSTS} hosts, which is the most") }
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
        self.forget_ha(&Gate::Zone(id.clone()));
        self.draft.records.push(Record::Remove(RowKey::Zone(id.clone())));
        Ok(Answer::Done { created: false })
    }

    pub(super) fn delete_cluster(&mut self, id: &ClusterId) -> Result<Answer, Rejection> {
        if !self.view.clusters.contains_key(id) {
            return Err(not_found("cluster", id));
        }
        if let Some(host) = self.view.hosts_of_cluster(id).get_min() {
            return Err(in_use("cluster", id, format!("host {host}")));
        }
        self.view.clusters.remove(id);
        self.forget_ha(&Gate::Cluster(id.clone()));
        self.forget_ledger(id);
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
    pub(super) fn delete_rack(&mut self, id: &RackId, now: Now) -> Result<Answer, Rejection> {
        if !self.view.racks.contains_key(id) {
            return Err(not_found("rack", id));
        }
        if let Some(host) = self.view.rack_hosts.get(id).and_then(imbl::OrdSet::get_min) {
            return Err(in_use("rack", id, format!("host {host}")));
        }
        let agents: Vec<AgentId> = self.view.agents.values().filter(|row| row.rack == *id).map(|row| row.id.clone()).collect();
        for agent in agents {
            self.settle_agent_alert(&agent, false, now);
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
        let planned = self.plan_host(id, spec, now)?;
        let created = planned.before.is_none();
        self.put_planned(planned, now);
        Ok(Answer::Done { created })
    }

    /// What a host will be, if that can be; changes nothing.
    pub(super) fn plan_host(&self, id: HostId, spec: HostSpec, now: Now) -> Result<PlannedHost, Rejection> {
        let HostSpec { cluster, zone, rack, bmc, maintenance, poll_interval, action_timeout, labels, ha } = spec;
        let ha = self.planned_ha(&Gate::Host(id.clone()), ha, Field::Keep, true)?;
        let before = self.view.hosts.get(&id).cloned();
        let place = Place { cluster: &cluster, zone: zone.as_ref(), rack: &rack };
        let zone = self.check_place(&id, &place)?;
        let is_new_password = bmc.as_ref().is_some_and(|bmc| bmc.password.value().is_some());
        let base = before.as_ref().and_then(|row| row.bmc.as_ref());
        let ground = self.ground(before.as_deref(), &cluster, &rack, now);
        let bmc = bmc.map(|change| merge(base, change, true, ground)).transpose()?;
        let (oobm, enablement) = before.as_ref().map_or((None, fresh(now)), |row| (row.oobm, row.enablement));
        let row = HostRow { id, zone, cluster, rack, oobm, enablement, bmc, maintenance, poll_interval, action_timeout, labels };
        check_host(&row)?;
        before.as_ref().map_or(Ok(()), |before| self.may_change(before, &row, is_new_password))?;
        Ok(PlannedHost { before, row, ha, is_new_password })
    }

    /// Does what was planned on the fleet as it is.
    pub(super) fn put_planned(&mut self, planned: PlannedHost, now: Now) {
        let PlannedHost { before, row, ha, is_new_password } = planned;
        let at = Gate::Host(row.id.clone());
        match before {
            Some(before) => self.change_host(&before, row, is_new_password, now),
            None => self.add_host(row, now),
        }
        self.keep_ha(at, ha);
    }

    pub(super) fn patch_host(&mut self, id: &HostId, change: HostChange, now: Now) -> Result<Answer, Rejection> {
        let before = self.view.hosts.get(id).cloned().ok_or_else(|| not_found("host", id))?;
        let ha = self.planned_ha(&Gate::Host(id.clone()), change.ha, Field::Keep, false)?;
        let mut row = (*before).clone();
        row.cluster = change.cluster.unwrap_or(row.cluster);
        row.rack = change.rack.unwrap_or(row.rack);
        row.zone = self.check_place(id, &Place { cluster: &row.cluster, zone: None, rack: &row.rack })?;
        row.maintenance = change.maintenance.unwrap_or(row.maintenance);
        row.poll_interval = change.poll_interval.over(row.poll_interval);
        row.action_timeout = change.action_timeout.over(row.action_timeout);
        row.labels = change.labels.unwrap_or(row.labels);
        let (repin, is_new_password) = match &change.bmc {
            Field::Set(bmc) => (bmc.repin, bmc.password.value().is_some()),
            Field::Keep | Field::Unset => (false, false),
        };
        row.bmc = self.patched_bmc(&before, change.bmc, &row, now)?;
        check_host(&row)?;
        self.may_change(&before, &row, is_new_password)?;
        self.change_host(&before, row, is_new_password, now);
        self.keep_ha(Gate::Host(id.clone()), ha);
        if repin {
            self.repin(id, now);
        }
        Ok(Answer::Done { created: false })
    }

    /// A host's own BMC settings after a change of them, or of its place. A host that stays where it is and says nothing of its
    /// BMC is not held up by what is missing there.
    fn patched_bmc(
        &self,
        before: &HostRow,
        change: Field<BmcChange>,
        row: &HostRow,
        now: Now,
    ) -> Result<Option<BmcRow>, Rejection> {
        let ground = self.ground(Some(before), &row.cluster, &row.rack, now);
        match (change, &before.bmc) {
            (Field::Unset, _) => Ok(None),
            (Field::Set(change), base) => merge(base.as_ref(), change, false, ground).map(Some),
            (Field::Keep, Some(base)) if before.cluster != row.cluster => {
                merge(Some(base), BmcChange::default(), false, ground).map(Some)
            }
            (Field::Keep, Some(base)) => {
                base.password.iter().try_for_each(|password| stays_open(password, ground.sealing))?;
                Ok(Some(base.clone()))
            }
            (Field::Keep, None) => Ok(None),
        }
    }

    /// While its password is being changed, a host's BMC settings stay as they are.
    fn may_change(&self, before: &HostRow, row: &HostRow, is_new_password: bool) -> Result<(), Rejection> {
        let touches_bmc = before.bmc != row.bmc || before.rack != row.rack || before.cluster != row.cluster;
        if touches_bmc { self.may_change_bmc(row, is_new_password) } else { Ok(()) }
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
            return Err(rack_is_full(rack));
        }
        Ok(its.clone())
    }

    fn ground(&self, before: Option<&HostRow>, cluster: &ClusterId, rack: &RackId, now: Now) -> Ground<'_> {
        let cluster = self.view.clusters.get(cluster).map(|cluster| &**cluster);
        Ground { cluster, sealing: self.sealing(before, rack), fresh: fresh(now) }
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

    fn change_host(&mut self, before: &HostRow, row: HostRow, is_new_password: bool, now: Now) {
        if *before == row {
            return;
        }
        let id = row.id.clone();
        let assigned = assigned(&self.view, before);
        let was = self.view.agent_of(before).map(|agent| agent.id.clone());
        self.concern_ha(before);
        self.unindex_host(before);
        self.index_host(&row);
        self.edit_host(&id, |host| *host = row.clone());
        self.concern_ha(&row);
        let is = self.view.agent_of(&row).map(|agent| agent.id.clone());
        if was != is {
            if let Some(was) = &was {
                self.draft.touched.entry(was.clone()).or_default().remove.insert(id.clone());
            }
            if super::enablement::is_open(assigned.refusal) {
                self.start_anew(&id, now);
            }
        }
        if before.rack != row.rack || before.cluster != row.cluster {
            self.touch(&row);
        }
        if before.cluster != row.cluster || before.zone != row.zone {
            self.draft.clear(state_topic(before));
            self.draft.power.insert(id.clone());
            self.reconsider_ha(&Gate::Host(id.clone()));
        }
        if before.cluster != row.cluster || before.rack != row.rack {
            self.move_alerts(&row, now);
            self.settle_cluster_alerts(&before.cluster, false, now);
            self.settle_cluster_alerts(&row.cluster, true, now);
        } else if before.maintenance != row.maintenance {
            self.review_host(&id, now);
        }
        self.retell(&id, &assigned, now);
        self.settle_pending(&id, is_new_password);
        self.settle_facts(before, &id);
        if was != is {
            self.redispatch_host(&id, now);
        }
    }

    /// Removes a host, and with it its history.
    pub(super) fn delete_host(&mut self, id: &HostId, now: Now) -> Result<Answer, Rejection> {
        let row = self.view.hosts.get(id).cloned().ok_or_else(|| not_found("host", id))?;
        self.abandon_operations(&row, now);
        self.resolve_all(&row, now);
        self.concern_ha(&row);
        self.forget_ha(&Gate::Host(id.clone()));
        self.forget_witness(id);
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
        self.forget_pending(id);
        self.forget_facts(id);
        self.forget_reported(&row, now);
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

fn check_host(row: &HostRow) -> Result<(), Rejection> {
    check_seconds("poll_interval", row.poll_interval)?;
    check_seconds("action_timeout", row.action_timeout)?;
    check_labels(&row.labels)
}

/// Where the counters of something new start: a host, BMC, rack or agent removed and made again must not count over the same numbers, or an
/// agent that missed it would take the new one for the old.
pub(super) fn fresh(now: Now) -> u64 {
    now.wall.as_millisecond().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use picket_common::alert::AlertState;
    use picket_common::command::Outcome;
    use picket_common::power::{Management, PowerOperation};
    use picket_common::wire::assign::Assign;
    use picket_common::wire::down::Command;

    use super::super::request::ClusterSpec;
    use super::super::testing::*;
    use super::super::{Effect, Request};
    use super::*;

    fn code(answer: Result<Answer, Rejection>) -> &'static str {
        match answer {
            Ok(Answer::Done { created: true }) => "created",
            Ok(_) => "ok",
            Err(Rejection::NotFound { kind, .. }) => kind,
            Err(Rejection::InUse { .. }) => "in-use",
            Err(Rejection::ZoneMismatch(_)) => "zone-mismatch",
            Err(Rejection::Invalid { field, .. }) => field,
            Err(Rejection::PasswordNeededAgain(_)) => "again",
            Err(other) => panic!("{other}"),
        }
    }

    fn cluster(zone: &str, poll_interval: Option<u64>) -> ClusterSpec {
        ClusterSpec { poll_interval, ..cluster_spec(zone) }
    }

    #[test]
    fn places_must_exist_and_agree() {
        let mut world = World::of(1);
        world.ground("z2", "c2", "r2");
        let in_zone = |zone: &str| HostSpec { zone: Some(id(zone)), ..spec("c1", "r1", None) };
        for (wanted, request) in [
            ("ok", Request::PutZone(id("z1"), api::ZoneBody {})),
            ("zone", Request::PutCluster(id("c3"), cluster("z9", None))),
            ("zone", Request::PutRack(id("r3"), api::RackBody { zone: id("z9") })),
            ("poll_interval", Request::PutCluster(id("c3"), cluster("z1", Some(0)))),
            ("poll_interval", Request::PutCluster(id("c3"), cluster("z1", Some(3601)))),
            ("zone-mismatch", Request::PutCluster(id("c1"), cluster("z2", None))),
            ("zone-mismatch", Request::PutRack(id("r1"), api::RackBody { zone: id("z2") })),
            ("ok", Request::PutCluster(id("c2"), cluster("z1", None))),
            ("ok", Request::PutCluster(id("c2"), cluster("z2", None))),
            ("cluster", Request::PutHost(id("h2"), spec("c9", "r1", None))),
            ("rack", Request::PutHost(id("h2"), spec("c1", "r9", None))),
            ("zone-mismatch", Request::PutHost(id("h2"), spec("c1", "r2", None))),
            ("zone-mismatch", Request::PutHost(id("h2"), in_zone("z2"))),
            ("created", Request::PutHost(id("h2"), in_zone("z1"))),
            ("ok", Request::PutHost(id("h2"), in_zone("z1"))),
            ("in-use", Request::DeleteZone(id("z1"))),
            ("in-use", Request::DeleteCluster(id("c1"))),
            ("in-use", Request::DeleteRack(id("r1"))),
            ("zone", Request::DeleteZone(id("z9"))),
            ("cluster", Request::DeleteCluster(id("c9"))),
            ("rack", Request::DeleteRack(id("r9"))),
            ("host", Request::DeleteHost(id("h9"))),
            ("host", Request::PatchHost(id("h9"), HostChange::default())),
            ("ok", Request::DeleteHost(id("h1"))),
            ("ok", Request::DeleteHost(id("h2"))),
            ("ok", Request::DeleteRack(id("r1"))),
            ("ok", Request::DeleteCluster(id("c1"))),
            ("ok", Request::DeleteZone(id("z1"))),
        ] {
            let name = format!("{request:?}");
            assert_eq!(code(world.ask(request)), wanted, "{name}");
        }
        assert!(world.fleet.view().agents.is_empty(), "an agent goes with its rack");
    }

    #[test]
    fn a_patch_changes_what_it_names() {
        let mut world = World::running(1);
        let patch = |change| Request::PatchHost(id("h1"), change);
        let row = |world: &World| (**world.fleet.view().hosts.get(&id::<HostId>("h1")).unwrap()).clone();
        let before = row(&world);
        world.ask(patch(HostChange::default())).unwrap();
        assert_eq!((world.records, world.effects.len()), (0, 0));
        world.ask(patch(HostChange { maintenance: Some(true), ..HostChange::default() })).unwrap();
        assert_eq!(row(&world), HostRow { maintenance: true, ..before.clone() });
        assert!(world.assigns("r1").is_empty(), "nothing the agent needs to know");
        let bmc = Field::Set(BmcChange { port: Field::Set(6230), ..BmcChange::default() });
        world.ask(patch(HostChange { bmc, poll_interval: Field::Set(30), ..HostChange::default() })).unwrap();
        let assigns = world.assigns("r1");
        let [Assign::Delta(delta)] = &assigns[..] else { panic!("{assigns:?}") };
        assert_eq!(delta.upsert[0].poll_interval_ms, 30_000);
        let bmc = delta.upsert[0].bmc.as_ref().unwrap();
        assert_eq!((bmc.port, bmc.address.as_str()), (Some(6230), "10.0.0.1"));
        assert_eq!(bmc.revision, before.bmc.unwrap().revision + 1);
        let labels = (0..65).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(code(world.ask(patch(HostChange { labels: Some(labels), ..HostChange::default() }))), "labels");
    }

    #[test]
    fn intervals_host_then_cluster_then_settings() {
        let mut world = World::running(2);
        world.ask(Request::PatchHost(id("h1"), HostChange { poll_interval: Field::Set(7), ..HostChange::default() })).unwrap();
        world.ask(Request::PutCluster(id("c1"), cluster("z1", Some(20)))).unwrap();
        let assigns = world.assigns("r1");
        let [Assign::Delta(delta)] = &assigns[..] else { panic!("{assigns:?}") };
        let intervals: Vec<_> = delta.upsert.iter().map(|host| host.poll_interval_ms).collect();
        assert_eq!(intervals, [20_000], "h1 has its own: nothing changes for it");
        world.ask(Request::PutCluster(id("c1"), cluster("z1", None))).unwrap();
        let assigns = world.assigns("r1");
        let [Assign::Delta(delta)] = &assigns[..] else { panic!("{assigns:?}") };
        assert_eq!(delta.upsert[0].poll_interval_ms, 10_000);
    }

    #[test]
    fn moving_a_host() {
        let mut world = World::running(2);
        world.ground("z2", "c2", "r2");
        world.join("r2", "r2", 2);
        world.hello("r2", 5, 5);
        world.settle("r2", 5);
        world.report(
            "r1",
            vec![world.power_report("h1", PowerState::On), world.management_report("h1", Management::Degraded, None)],
        );
        let old = Public::State(id("z1"), id("c1"), id("h1"));
        assert!(world.retained.contains_key(&old));
        let change = HostChange { cluster: Some(id("c2")), rack: Some(id("r2")), ..HostChange::default() };
        world.ask(Request::PatchHost(id("h1"), change)).unwrap();
        assert!(!world.retained.contains_key(&old));
        assert!(
            world.effects.iter().any(|effect| matches!(effect, Effect::Retain(topic, body) if *topic == old && body.is_empty()))
        );
        assert!(world.retained.contains_key(&Public::State(id("z2"), id("c2"), id("h1"))));
        let (lost, got) = (world.assigns("r1"), world.assigns("r2"));
        assert!(
            matches!(&lost[..], [Assign::Delta(delta)] if delta.remove == [id::<HostId>("h1")] && delta.upsert.is_empty()),
            "{lost:?}"
        );
        assert!(matches!(&got[..], [Assign::Delta(delta)] if delta.upsert.len() == 1), "{got:?}");
        let row = world.power("h1");
        assert_eq!((row.power, row.management), (PowerState::Unknown, None), "its new agent has not read it yet");
    }

    #[test]
    fn a_moved_host_takes_its_waiting_operations_along() {
        let mut world = World::running(1);
        world.ground("z1", "c1", "r2");
        world.join("r2", "r2", 2);
        world.hello("r2", 5, 5);
        world.order(1, "h1", PowerOperation::Cycle).unwrap();
        world.gone("r1", 1);
        world.order(2, "h1", PowerOperation::Off).unwrap();
        let change = HostChange { rack: Some(id("r2")), ..HostChange::default() };
        world.ask(Request::PatchHost(id("h1"), change)).unwrap();
        let commands = world.commands();
        let [Command::Power(command)] = &commands[..] else { panic!("not what the other agent was sent: {commands:?}") };
        let view = world.fleet.view();
        let (host, agent) = (&view.hosts[&id::<HostId>("h1")], &view.agents[&id::<AgentId>("r2")]);
        assert_eq!(
            (command.operation, command.enablement, command.generation),
            (operation(2), host.enablement, agent.generation),
            "to be judged with the assignment that has the host"
        );
        let outcome = world.part(1, "h1").outcome;
        assert!(matches!(outcome, Some(Outcome::Unknown(_))), "{outcome:?}");
    }

    #[test]
    fn removing_a_host() {
        let mut world = World::running(2);
        world.report("r1", vec![world.management_report("h1", Management::Lost, None)]);
        world.order(1, "h1", PowerOperation::Off).unwrap();
        world.gone("r1", 1);
        world.order(2, "h1", PowerOperation::Off).unwrap();
        world.ask(Request::DeleteHost(id("h1"))).unwrap();
        let view = world.fleet.view();
        assert!(!view.hosts.contains_key(&id::<HostId>("h1")) && !view.power.contains_key(&id::<HostId>("h1")));
        assert_eq!(view.alerts["bmc-lost.h1"].state, AlertState::Resolved);
        let outcome = |n| world.part(n, "h1").outcome.unwrap();
        assert!(matches!(outcome(1), Outcome::Unknown(_)), "it was sent: nobody knows");
        assert_eq!(outcome(2), Outcome::Cancelled);
        assert!(world.history_of("h1").is_empty());
        assert_eq!(view.hosts_of(&id("r1")).len(), 1);
        world.report("r1", vec![world.power_report("h1", PowerState::On)]);
        assert_eq!(world.fleet.counters().unknown_host, 1);
    }

    #[test]
    fn taking_the_bmc_away_disables() {
        let mut world = World::running(1);
        world.ask(Request::PutHost(id("h1"), spec("c1", "r1", None))).unwrap();
        assert_eq!(world.power("h1").power, PowerState::Disabled);
        world.ask(Request::PutHost(id("h1"), spec("c1", "r1", Some(ipmi("10.0.0.1"))))).unwrap();
        assert_eq!(world.power("h1").power, PowerState::Unknown, "its gate was never closed");
    }
}
