//! Enablement: gates opened and closed, and what that does to every host they concern. One host never stops the others.

use std::sync::Arc;

use picket_common::api::{EventWhat, HistoryWhat};
use picket_common::clock::Now;
use picket_common::command::Refusal;
use picket_common::enablement::Gates;
use picket_common::id::{AgentId, HostId};
use picket_common::power::{Cause, PowerState};

use super::events::Kind;
use super::request::{Answer, Gate, Rejection};
use super::settings::not_found;
use super::view::{HostRow, Row, View};
use super::{Fleet, effective};

/// The three gates of a host.
#[must_use]
pub fn gates(view: &View, host: &HostRow) -> Gates {
    Gates {
        zone: view.zones.get(&host.zone).and_then(|zone| zone.oobm),
        cluster: view.clusters.get(&host.cluster).and_then(|cluster| cluster.oobm),
        host: host.oobm,
    }
}

/// Why a host may not be touched, as its agent is told: gates, then settings. See [`standing_refusal`] for the rest.
#[must_use]
pub fn refusal(view: &View, host: &HostRow) -> Option<Refusal> {
    if let Err(refusal) = gates(view, host).resolve() {
        return Some(refusal);
    }
    let Some(bmc) = effective::bmc(view, host).filter(effective::Bmc::is_complete) else {
        return Some(Refusal::HostNotConfigured);
    };
    let (password, agent) = (bmc.password?, view.agent_of(host)?);
    password.value.copy_for(&agent.sealing_key).is_none().then_some(Refusal::PasswordNeeded)
}

/// Why an order for a host would be refused now, whatever the order: [`refusal`], then a rack that nobody guards.
#[must_use]
pub fn standing_refusal(view: &View, host: &HostRow) -> Option<Refusal> {
    refusal(view, host).or_else(|| view.agent_of(host).is_none().then_some(Refusal::RackWithoutAgent))
}

/// Whether a host with this refusal is polled at all, once an agent has what it needs.
pub(super) const fn is_open(refusal: Option<Refusal>) -> bool {
    !matches!(refusal, Some(Refusal::ZoneDisabled | Refusal::ClusterDisabled | Refusal::HostDisabled | Refusal::HostNotConfigured))
}

/// Whether nobody vouches for a host's state. Disabled needs nobody: the aggregator itself made it so.
fn is_stale(view: &View, host: &HostRow) -> bool {
    if view.power.get(&host.id).is_none_or(|row| row.power == PowerState::Disabled) {
        return false;
    }
    if refusal(view, host).is_some() {
        return true;
    }
    let presence = view.agent_of(host).and_then(|agent| view.presence.get(&agent.id));
    presence.is_none_or(|presence| !presence.connected || !presence.caught_up || presence.overdue.contains(&host.id))
}

impl Fleet {
    /// Looks again whether a host is stale; true if that flipped.
    pub(super) fn restale(&mut self, host: &HostId) -> bool {
        let Some(row) = self.view.hosts.get(host) else { return false };
        let stale = is_stale(&self.view, row);
        let flipped = self.view.power.get(host).is_some_and(|row| row.stale != stale);
        if flipped {
            self.edit_power(host, |row| row.stale = stale);
        }
        flipped
    }

    /// Looks again at all hosts of an agent; true if any flipped.
    pub(super) fn restale_all(&mut self, agent: &AgentId) -> bool {
        let hosts = self.view.hosts_of(agent);
        hosts.iter().fold(false, |flipped, host| self.restale(host) | flipped)
    }

    /// Opens or closes a gate.
    pub(super) fn set_oobm(&mut self, gate: &Gate, open: bool, now: Now) -> Result<Answer, Rejection> {
        let hosts = self.concerned(gate, open)?;
        if self.gate_state(gate) != Some(open) {
            let before: Vec<_> = hosts.iter().filter_map(|id| self.view.hosts.get(id)).map(|row| self.with_refusal(row)).collect();
            self.turn(gate, open);
            for (host, before) in before {
                self.settle_host(&host, before, now);
            }
        }
        Ok(Answer::Done { created: false })
    }

    pub(super) fn with_refusal(&self, host: &HostRow) -> (HostId, Option<Refusal>) {
        (host.id.clone(), refusal(&self.view, host))
    }

    fn concerned(&self, gate: &Gate, open: bool) -> Result<imbl::OrdSet<HostId>, Rejection> {
        match gate {
            Gate::Zone(id) => {
                if !self.view.zones.contains_key(id) {
                    return Err(not_found("zone", id));
                }
                let clusters = self.view.clusters.values().filter(|cluster| cluster.zone == *id);
                Ok(imbl::OrdSet::unions(clusters.map(|cluster| self.view.hosts_of_cluster(&cluster.id))))
            }
            Gate::Cluster(id) => {
                if !self.view.clusters.contains_key(id) {
                    return Err(not_found("cluster", id));
                }
                Ok(self.view.hosts_of_cluster(id))
            }
            Gate::Host(id) => {
                let host = self.view.hosts.get(id).ok_or_else(|| not_found("host", id))?;
                if open && host.bmc.is_none() {
                    return Err(Rejection::Refused(Refusal::HostNotConfigured));
                }
                Ok(imbl::OrdSet::unit(id.clone()))
            }
        }
    }

    fn gate_state(&self, gate: &Gate) -> Option<bool> {
        match gate {
            Gate::Zone(id) => self.view.zones.get(id).map(|row| row.oobm.unwrap_or(true)),
            Gate::Cluster(id) => self.view.clusters.get(id).map(|row| row.oobm.unwrap_or(true)),
            Gate::Host(id) => self.view.hosts.get(id).map(|row| row.oobm.unwrap_or(false)),
        }
    }

    fn turn(&mut self, gate: &Gate, open: bool) {
        match gate {
            Gate::Zone(id) => {
                if let Some(row) = self.view.zones.get_mut(id) {
                    let row = Arc::make_mut(row);
                    row.oobm = Some(open);
                    self.draft.put(Row::Zone(row.clone()));
                }
            }
            Gate::Cluster(id) => {
                if let Some(row) = self.view.clusters.get_mut(id) {
                    let row = Arc::make_mut(row);
                    row.oobm = Some(open);
                    self.draft.put(Row::Cluster(row.clone()));
                }
            }
            Gate::Host(id) => self.edit_host(id, |row| row.oobm = Some(open)),
        }
    }

    /// After something that may open or close a host: brings its state, its agent, its alerts and operations in line.
    pub(super) fn settle_host(&mut self, host: &HostId, before: Option<Refusal>, now: Now) {
        let Some(row) = self.view.hosts.get(host).cloned() else { return };
        let after = refusal(&self.view, &row);
        if before != after {
            self.touch(&row);
        }
        match (is_open(before), is_open(after)) {
            (false, true) => {
                self.edit_host(host, |row| row.enablement += 1);
                self.set_power(&row, PowerState::Unknown, Cause::Enablement, now);
            }
            (true, false) => {
                self.edit_host(host, |row| row.enablement += 1);
                self.set_power(&row, PowerState::Disabled, Cause::Enablement, now);
                self.refuse_unsent(host, after.unwrap_or(Refusal::HostDisabled), now);
            }
            _ => {
                self.restale(host);
            }
        }
    }

    /// Sets a host's state by our own decision; what was known of its BMC is known no more.
    pub(super) fn set_power(&mut self, host: &HostRow, new: PowerState, cause: Cause, now: Now) {
        let Some(old) = self.view.power.get(&host.id).map(|row| row.power) else { return };
        if old != new {
            let what = HistoryWhat::Power { old, new, cause, bmc_error: None };
            let sequence = self.history(&host.id, None, now.wall, what.clone(), now);
            self.edit_power(&host.id, |row| {
                row.power = new;
                row.power_since = now.wall;
                row.sequence = sequence;
            });
            let id = self.own_id(sequence);
            self.host_event(host, id.clone(), Kind::Power, now.wall, EventWhat::History(what.clone()));
            if cause == Cause::Enablement {
                self.host_event(host, format!("{id}:enablement"), Kind::Enablement, now.wall, EventWhat::History(what));
            }
        }
        self.edit_power(&host.id, |row| {
            row.management = None;
            row.management_since = None;
            row.error = None;
        });
        self.forget_power(&host.id);
        self.settle_alerts(host, now.wall, now);
        self.restale(&host.id);
    }
}

#[cfg(test)]
mod tests {
    use picket_common::wire::assign::Assign;

    use super::super::testing::*;
    use super::super::{Event, Request};
    use super::*;

    fn set(world: &mut World, gate: Gate, open: bool) {
        world.ask(Request::SetOobm(gate, open)).unwrap();
    }

    #[test]
    fn the_grid_of_zone_cluster_and_host() {
        for bits in 0..8_u8 {
            let [zone, cluster, host] = [bits & 4 != 0, bits & 2 != 0, bits & 1 != 0];
            let mut world = World::of(1);
            set(&mut world, Gate::Host(id("h1")), true);
            set(&mut world, Gate::Zone(id("z1")), zone);
            set(&mut world, Gate::Cluster(id("c1")), cluster);
            set(&mut world, Gate::Host(id("h1")), host);
            let view = world.fleet.view();
            let row = view.hosts.values().next().unwrap();
            let wanted = match (zone, cluster, host) {
                (false, ..) => Some(Refusal::ZoneDisabled),
                (_, false, _) => Some(Refusal::ClusterDisabled),
                (.., false) => Some(Refusal::HostDisabled),
                _ => None,
            };
            assert_eq!(refusal(&view, row), wanted);
            assert_eq!(row.oobm, Some(host), "flags do not cascade");
            let power = if wanted.is_none() { PowerState::Unknown } else { PowerState::Disabled };
            assert_eq!(world.power("h1").power, power);
            let ordered = world.order(1, "h1", picket_common::power::PowerOperation::On);
            assert_eq!(ordered.err(), wanted.map(Rejection::Refused));
        }
    }

    #[test]
    fn a_scope_takes_all_its_hosts_along_and_gives_back_what_was() {
        let mut world = World::running(3);
        world.ask(Request::PutHost(id("bare"), spec("c1", "r1", None))).unwrap();
        world.enable("h3", false);
        let generation = |world: &World| world.fleet.view().agents.values().next().unwrap().generation.counter;
        let before = generation(&world);
        world.event_kinds();
        set(&mut world, Gate::Zone(id("z1")), false);
        assert_eq!(generation(&world), before + 1, "one assignment for all");
        let states = |world: &World| ["h1", "h2", "h3", "bare"].map(|host| world.power(host).power);
        assert_eq!(states(&world), [PowerState::Disabled; 4]);
        assert_eq!(
            world.event_kinds(),
            [
                "io.picket.power.changed.v1 h1",
                "io.picket.enablement.changed.v1 h1",
                "io.picket.power.changed.v1 h2",
                "io.picket.enablement.changed.v1 h2"
            ]
        );
        let lines = world.history.len();
        set(&mut world, Gate::Zone(id("z1")), false);
        assert_eq!((world.records, world.effects.len(), world.history.len()), (0, 0, lines), "again changes nothing");
        set(&mut world, Gate::Zone(id("z1")), true);
        assert_eq!(states(&world), [PowerState::Unknown, PowerState::Unknown, PowerState::Disabled, PowerState::Disabled]);
        let what = world.history_of("h1");
        let old = PowerState::Disabled;
        let wanted = HistoryWhat::Power { old, new: PowerState::Unknown, cause: Cause::Enablement, bmc_error: None };
        assert_eq!(what.last(), Some(&wanted));
    }

    #[test]
    fn the_agent_hears_a_difference_and_starts_anew() {
        let mut world = World::running(2);
        let before = world.fleet.view().hosts.values().next().unwrap().enablement;
        world.ask(Request::SetOobm(Gate::Host(id("h1")), false)).unwrap();
        let assigns = world.assigns("r1");
        let [Assign::Delta(delta)] = &assigns[..] else { panic!("{assigns:?}") };
        assert_eq!(delta.generation.counter, delta.base.counter + 1);
        assert_eq!(delta.upsert.len(), 1);
        assert_eq!((delta.upsert[0].refusal, delta.upsert[0].enablement), (Some(Refusal::HostDisabled), before + 1));
        world.enable("h1", true);
        assert_eq!(world.fleet.view().hosts.values().next().unwrap().enablement, before + 2);
    }

    #[test]
    fn rejections() {
        let mut world = World::of(0);
        world.ask(Request::PutHost(id("bare"), spec("c1", "r1", None))).unwrap();
        let gates = [Gate::Zone(id("z9")), Gate::Cluster(id("c9")), Gate::Host(id("h9"))];
        for gate in gates {
            assert!(matches!(world.ask(Request::SetOobm(gate, true)), Err(Rejection::NotFound { .. })));
        }
        let refused = world.ask(Request::SetOobm(Gate::Host(id("bare")), true));
        assert_eq!(refused.err(), Some(Rejection::Refused(Refusal::HostNotConfigured)));
    }

    #[test]
    fn stale_flips_are_published_once_each() {
        let mut world = World::running(2);
        let stale = |world: &World| ["h1", "h2"].map(|host| world.power(host).stale);
        let published = |world: &World| {
            let retained = |effect: &&super::super::Effect| {
                matches!(effect, super::super::Effect::Retain(picket_common::wire::topic::Public::State(..), _))
            };
            world.effects.iter().filter(retained).count()
        };
        assert_eq!(stale(&world), [false, false]);
        world.heartbeat("r1", 1, &["h2", "h9"], |_| {});
        assert_eq!((stale(&world), published(&world)), ([false, true], 1));
        world.heartbeat("r1", 1, &["h2"], |_| {});
        assert_eq!(published(&world), 0);
        world.heartbeat("r1", 1, &[], |_| {});
        assert_eq!((stale(&world), published(&world)), ([false, false], 1));
        world.enable("h2", false);
        world.pass(14);
        assert_eq!(stale(&world), [false, false]);
        world.pass(1);
        assert_eq!(stale(&world), [true, false], "nobody needs to vouch for Disabled");
        assert_eq!(world.power("h1").power, PowerState::Unknown);
        world.hello("r1", 2, 1);
        assert_eq!(stale(&world), [false, false]);
        world.gone("r1", 1);
        assert_eq!(stale(&world), [false, false], "the will of an older connection");
        world.gone("r1", 2);
        assert_eq!(stale(&world), [true, false], "its own will: at once");
    }

    #[test]
    fn a_row_that_contradicts_its_gates_is_repaired() {
        let world = World::running(2);
        let mut rows = world.rows.clone();
        for row in rows.values_mut() {
            if let Row::Host(host) = row
                && host.id.as_str() == "h1"
            {
                host.oobm = Some(false);
            }
        }
        rows.remove(&super::super::view::RowKey::Power(id("h2")));
        let (fleet, records) = Fleet::new(STORE, LIFE, super::super::view::Settings::default(), rows.into_values(), 50);
        let view = fleet.view();
        let states: Vec<_> = view.power.values().map(|row| row.power).collect();
        assert_eq!(states, [PowerState::Disabled, PowerState::Unknown]);
        assert_eq!(records.len(), 5, "two hosts, two states, one agent: {records:?}");
        let other = uuid::Uuid::from_u128(9);
        let (fleet, records) = Fleet::new(STORE, other, super::super::view::Settings::default(), world.rows.into_values(), 50);
        assert_eq!(
            fleet.view().agents.values().next().unwrap().generation.store,
            other,
            "another life, another count of assignments"
        );
        assert_eq!(records.len(), 1);
    }

    #[test]
    fn after_a_restart_hosts_are_stale_until_their_agent_is_heard() {
        let mut world = World::running(2);
        world.enable("h2", false);
        world.restart();
        assert_eq!(world.fleet.next_wake(), Some(std::time::Duration::ZERO));
        world.apply(Event::Tick);
        assert!(world.power("h1").stale, "what happened meanwhile nobody knows");
        assert!(!world.power("h2").stale, "Disabled needs nobody");
        world.event_kinds();
        world.pass(14);
        assert!(world.event_kinds().is_empty(), "agents get their time before they are called lost");
        let mut heard_again = World::running(1);
        heard_again.restart();
        heard_again.hello("r1", 2, 1);
        assert!(!heard_again.power("h1").stale);
        heard_again.event_kinds();
        heard_again.gone("r1", 2);
        assert_eq!(heard_again.event_kinds(), ["io.picket.agent.lost.v1 r1"], "told once");
        world.pass(2);
        assert!(world.power("h1").stale);
        assert_eq!(world.event_kinds(), ["io.picket.agent.lost.v1 r1", "io.picket.alert.firing.v1 r1"]);
    }
}
