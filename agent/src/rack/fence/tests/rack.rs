//! A rack of 40 in a cluster of 60 in a zone of 120, in virtual time: states, steppers, brakes and gates together, with hosts and BMCs
//! that are a few lines each.

use std::collections::BTreeMap;

use picket_common::ha::{Activity, HaName, HaState, Way};
use picket_common::id::{ClusterId, HostId, ZoneId};
use picket_common::policy::{Connection, Judgement};
use picket_common::wire::Time;
use picket_common::wire::ha::{ClusterHa, ClusterSurroundings, Surroundings};

use super::*;
use crate::rack::brakes::{Brakes, BrakesRow, Member, Scene, SlotUse, fell};
use crate::rack::fence::gates::{self, Around, Standing, Subject, agent_cap, cap_of};
use crate::rack::moment::MachineBoot;

/// What is on its way to a host.
enum Coming {
    Input(In),
    Poll,
    Event(HaEvent),
}

struct Sim {
    id: HostId,
    state: HaState,
    attempt: Option<Attempt>,
    seen: OffSeen,
    is_on: bool,
    is_hung: bool,
    /// Its BMC takes orders and does nothing.
    is_lazy: bool,
    is_acked: bool,
    is_off_by_proof: bool,
    judgement: Judgement,
    /// When offs were sent (milliseconds).
    orders: Vec<u64>,
    fenced_at: Option<u64>,
}

struct World {
    hosts: Vec<Sim>,
    cluster: ClusterId,
    zone: ZoneId,
    rules: ClusterHa,
    agent_cap: u16,
    settings: HaSettings,
    brakes: Brakes,
    told: Surroundings,
    connection: Connection,
    /// Milliseconds.
    now: u64,
    coming: BTreeMap<(u64, u64), (usize, Coming)>,
    counter: u64,
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

fn members<'a>(hosts: &'a [Sim], cluster: &'a ClusterId, zone: &'a ZoneId) -> Vec<Member<'a>> {
    let slot = |attempt: &Attempt| match attempt {
        attempt if attempt.holds_slot() => SlotUse::Holds,
        attempt if attempt.waits_for_slot() => SlotUse::Waits(attempt.tried),
        _ => SlotUse::None,
    };
    let member = |sim: &'a Sim| Member {
        host: &sim.id,
        cluster,
        zone,
        state: &sim.state,
        is_acked: sim.is_acked,
        is_off: sim.is_off_by_proof,
        slot: sim.attempt.as_ref().map_or(SlotUse::None, slot),
    };
    hosts.iter().map(member).collect()
}

impl World {
    /// A rack that has been up for long, of a cluster that has hosts elsewhere too if it is a large one.
    fn new(hosts: usize) -> Self {
        let (cluster, zone): (ClusterId, ZoneId) = ("c".parse().unwrap(), "z".parse().unwrap());
        let rules = ClusterHa { cap: 3, agents: 2, ..gates::rules_unheard_of(cluster.clone(), zone.clone()) };
        let well = |number| Sim {
            id: format!("h{number:02}").parse().unwrap(),
            state: HaState::Available { failures: 0 },
            attempt: None,
            seen: OffSeen::default(),
            is_on: true,
            is_hung: false,
            is_lazy: false,
            is_acked: false,
            is_off_by_proof: false,
            judgement: Judgement::default(),
            orders: vec![],
            fenced_at: None,
        };
        let elsewhere = |count| if hosts == 40 { count } else { 0 };
        let around = ClusterSurroundings {
            cluster: cluster.clone(),
            hosts: elsewhere(20),
            unwell: 0,
            well: elsewhere(20),
            zone_hosts: elsewhere(80),
            zone_unwell: 0,
            lease: 2,
            lease_until: Time(i64::MAX),
        };
        let mut world = Self {
            hosts: (0..hosts).map(well).collect(),
            brakes: Brakes::restore(BrakesRow::default(), MachineBoot(uuid::Uuid::nil()), at(0)),
            told: Surroundings { at: Time(0), epoch: 1, clusters: vec![around] },
            settings: HaSettings { recovery_attempts: 0, ..HaSettings::default() },
            cluster,
            zone,
            rules,
            agent_cap: 6,
            connection: Connection::Answers,
            now: 400 * SECOND,
            coming: BTreeMap::new(),
            counter: 0,
        };
        for host in 0..hosts {
            world.later(host, 250 * u64::try_from(host).unwrap(), Coming::Poll);
        }
        world
    }

    /// Nothing limits how many.
    fn unlimited(hosts: usize) -> Self {
        let mut world = Self::new(hosts);
        (world.rules.cap, world.agent_cap) = (1000, 1000);
        world.lease(1000);
        world
    }

    fn lease(&mut self, lease: u16) {
        self.told.clusters.iter_mut().for_each(|around| around.lease = lease);
    }

    fn later(&mut self, host: usize, after: u64, coming: Coming) {
        self.counter += 1;
        self.coming.insert((self.now + after, self.counter), (host, coming));
    }

    fn run(&mut self, milliseconds: u64) {
        let end = self.now + milliseconds;
        while let Some(entry) = self.coming.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((now, _), (host, coming)) = entry.remove_entry();
            self.now = now;
            match coming {
                Coming::Input(input) => self.take(host, input),
                Coming::Poll => self.poll(host),
                Coming::Event(event) => self.happens(host, &event),
            }
        }
        self.now = end;
    }

    /// Its health checks fail, and it is inactive.
    fn hang(&mut self, host: usize) {
        self.hosts[host].is_hung = true;
        (0..3).for_each(|number| self.later(host, 5 * SECOND * (number + 1), Coming::Event(HaEvent::HealthFailed)));
        self.later(host, 15 * SECOND, Coming::Event(HaEvent::StartActivityCheck));
        let dead = |number: u64| (15 + 10 * (number + 1)) * SECOND;
        (0..6).for_each(|number| self.later(host, dead(number), Coming::Event(HaEvent::Activity(Activity::Dead))));
    }

    fn heal(&mut self, host: usize) {
        self.hosts[host].is_hung = false;
        self.take(host, ALIVE);
    }

    fn look(&mut self, fallen: Option<usize>) {
        let members = members(&self.hosts, &self.cluster, &self.zone);
        let scene = Scene { members: &members, told: Some(&self.told) };
        let fallen = fallen.map(|host| &self.hosts[host].id);
        self.brakes.look(scene, [&self.rules].into_iter(), fallen, at(self.now));
    }

    fn happens(&mut self, host: usize, event: &HaEvent) {
        let sim = &mut self.hosts[host];
        let Some(next) = sim.state.step(event, &self.settings.rules()) else { return };
        let old = std::mem::replace(&mut sim.state, next);
        let has_fallen = fell(&old, &sim.state);
        match &sim.state {
            HaState::Fencing(fencing) if sim.attempt.is_none() => {
                let Way::Order(by) = fencing.way.clone() else { return };
                sim.attempt = Some(Attempt::of_order(by, vec![]));
                self.take(host, Start);
            }
            HaState::Fenced(_) => sim.fenced_at = sim.fenced_at.or(Some(self.now)),
            _ => {}
        }
        self.look(has_fallen.then_some(host));
    }

    fn poll(&mut self, host: usize) {
        let now = at(self.now);
        let sim = &mut self.hosts[host];
        let reading = if sim.is_on { Reading::On } else { Reading::Off };
        if sim.attempt.is_none() && sim.state.name() != HaName::Fenced {
            let rules = SeenRules::of(&self.settings, "ipmi");
            let mut sight = sim.seen.read(reading, now.boottime, now, rules);
            if sight == Sight::CheckHealth {
                sight = sim.seen.health(Health { sign: HealthSign::Dead, begun: now.boottime, said: "silent" }, rules);
            }
            if let Sight::Confirmed(offs) = sight {
                sim.attempt = Some(Attempt::of_proof(offs));
                self.happens(host, &HaEvent::OffSeen);
                self.take(host, Start);
            }
        }
        let pause = if self.hosts[host].seen.is_counting() { 2 * SECOND } else { 10 * SECOND };
        self.later(host, pause, Coming::Poll);
    }

    fn judge(&mut self, host: usize, act: Act) -> Option<Gate> {
        let members = members(&self.hosts, &self.cluster, &self.zone);
        let sim = &self.hosts[host];
        let now = at(self.now);
        let subject = Subject {
            host: &sim.id,
            settings: &self.settings,
            pinned: Some("guid"),
            found: Some("guid"),
            can_prove: true,
            power: Ok(()),
            is_watched: true,
            maintenance: false,
            pause: None,
            owns: true,
            is_dead: sim.is_hung || !sim.is_on,
            is_inactive: true,
            standing: sim.attempt.as_ref().map(Standing::of).unwrap_or_default(),
        };
        let around = Around {
            now,
            centre_now: Some(now.wall.into()),
            scene: Scene { members: &members, told: Some(&self.told) },
            cluster: &self.rules,
            agent_cap: self.agent_cap,
            connection: self.connection,
            brakes: &self.brakes,
        };
        let judgement = gates::judge(act, subject, around);
        let held = judgement.held_by();
        self.hosts[host].judgement = judgement;
        held
    }

    fn take(&mut self, host: usize, input: In) {
        let Some(attempt) = &mut self.hosts[host].attempt else { return };
        let (was_counted, had_slot) = (attempt.is_counted, attempt.holds_slot());
        let step = step(attempt, input, at(self.now), rules(&self.settings));
        match step {
            Step::Stay => {}
            Step::Wait(pause) => {
                self.later(host, u64::try_from(pause.as_millis()).unwrap(), Coming::Input(Due));
            }
            Step::CheckHealth => {
                let sim = &self.hosts[host];
                let sign = if sim.is_hung || !sim.is_on { OldHealth(HealthSign::Dead, 1) } else { OldHealth(HealthSign::Alive, 1) };
                self.later(host, SECOND, Coming::Input(sign));
            }
            Step::Judge(act) => {
                let answer = self.judge(host, act).map_or(Passes, Holds);
                self.take(host, answer);
            }
            Step::Ask(Ask::Off) => {
                assert!(self.hosts.iter().filter(|sim| sim.attempt.as_ref().is_some_and(Attempt::holds_slot)).count() == 1);
                if !was_counted {
                    self.brakes.power_down(&self.cluster, cap_of(&self.rules), agent_cap(self.agent_cap), at(self.now));
                }
                self.happens(host, &HaEvent::OffIntended);
                let sim = &mut self.hosts[host];
                sim.orders.push(self.now);
                sim.is_on = sim.is_lazy;
                self.later(host, 300, Coming::Input(Accepts));
            }
            Step::Ask(_) => {
                let reading = if self.hosts[host].is_on { ON } else { OFF };
                self.later(host, 50, Coming::Input(reading));
            }
            Step::Ended(end) => self.ended(host, *end),
        }
        let has_slot = self.hosts[host].attempt.as_ref().is_some_and(Attempt::holds_slot);
        if had_slot && !has_slot {
            let members = members(&self.hosts, &self.cluster, &self.zone);
            let first = Scene { members: &members, told: None }.next_in_line().map(|(_, first)| first.clone());
            if let Some(first) = self.hosts.iter().position(|sim| Some(&sim.id) == first.as_ref()) {
                self.later(first, 0, Coming::Input(Due));
            }
        }
    }

    fn ended(&mut self, host: usize, end: End) {
        if let Some(again) = end.again {
            self.later(host, u64::try_from(again.as_millis()).unwrap(), Coming::Input(Due));
        } else {
            let sim = &mut self.hosts[host];
            let attempt = sim.attempt.take();
            sim.is_off_by_proof = attempt.is_some_and(|attempt| attempt.way == Way::Proof);
        }
        self.happens(host, &end.event);
    }

    fn fenced(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].state.name() == HaName::Fenced).collect()
    }

    /// The gates in the way of a host that waits.
    fn in_the_way(&self, host: usize) -> Vec<Gate> {
        let waits = self.hosts[host].attempt.is_some();
        let answers = self.hosts[host].judgement.0.iter().filter(|answer| waits && !answer.lets_through());
        answers.map(|answer| answer.gate).collect()
    }

    fn orders(&self) -> usize {
        self.hosts.iter().map(|sim| sim.orders.len()).sum()
    }
}

#[test]
fn three_an_hour_then_held_and_the_next_as_the_hour_slides() {
    let mut world = World::new(40);
    for host in 0..6 {
        world.hang(host);
        world.run(MINUTE);
    }
    world.run(10 * MINUTE);
    assert_eq!(world.fenced(), [0, 1, 2]);
    for host in 3..6 {
        assert_eq!(world.in_the_way(host), [Gate::Cap, Gate::Budget], "{host}");
        assert_eq!(world.hosts[host].attempt.as_ref().map(|attempt| attempt.number), Some(1), "no attempt is used");
    }
    let first: Vec<u64> = (0..3).map(|host| world.hosts[host].orders[0]).collect();

    // Ten are switched off at the chassis: nothing is sent, and no cap applies.
    (10..20).for_each(|host| world.hosts[host].is_on = false);
    let lost = world.now;
    world.run(MINUTE);
    assert_eq!(world.fenced(), [0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    assert!((10..20).all(|host| world.hosts[host].orders.is_empty() && world.hosts[host].fenced_at.unwrap() - lost <= MINUTE));
    assert_eq!(world.orders(), 3);

    for (number, first) in first.iter().enumerate() {
        let slides = first + HOUR;
        world.run(slides - world.now - SECOND);
        assert_eq!(world.fenced().len(), 13 + number, "before the hour of {number} is over");
        world.run(MINUTE);
        assert_eq!(world.fenced().len(), 14 + number, "after it");
        assert!(world.hosts.iter().all(|sim| sim.orders.len() <= 1));
    }
    // At no time more than three within an hour.
    let mut orders: Vec<u64> = world.hosts.iter().flat_map(|sim| sim.orders.clone()).collect();
    orders.sort_unstable();
    assert!(orders.len() == 6 && orders.windows(4).all(|four| four[3] - four[0] >= HOUR), "{orders:?}");
}

#[test]
fn held_by_a_storm_until_it_is_over_and_cooled_down() {
    let mut world = World::unlimited(40);
    for host in 0..13 {
        world.hang(host);
        world.run(2 * MINUTE);
    }
    // 30 % of the rack, 20 % of the cluster and 10 % of the zone are all twelve.
    assert_eq!(world.fenced().len(), 12);
    assert_eq!(world.in_the_way(12), [Gate::Storm]);
    world.run(HOUR);
    assert_eq!(world.fenced().len(), 12, "not by time alone");
    world.hosts[0].is_acked = true;
    world.look(None);
    world.run(9 * MINUTE);
    assert_eq!(world.in_the_way(12), [Gate::Storm], "it cools down");
    world.run(2 * MINUTE);
    assert_eq!(world.fenced().len(), 13);
}

#[test]
fn held_by_a_storm_in_other_racks() {
    let mut world = World::unlimited(40);
    world.told.clusters[0].zone_unwell = 12;
    world.hang(0);
    world.run(5 * MINUTE);
    assert_eq!(world.in_the_way(0), [Gate::Storm]);
}

#[test]
fn held_by_a_cliff_until_somebody_says_go_or_the_hosts_are_well() {
    let cliff = || {
        let mut world = World::unlimited(40);
        world.rules.storm = [100; 3];
        (0..20).for_each(|host| world.hang(host));
        world.run(3 * HOUR);
        assert_eq!((world.fenced(), world.in_the_way(7)), (vec![], vec![Gate::Cliff]), "never by time alone");
        world
    };
    let mut world = cliff();
    assert!(world.brakes.end_cliff());
    world.run(10 * MINUTE);
    assert_eq!((world.fenced().len(), world.orders()), (20, 20));

    // T24: they heal while their fences wait.
    let mut world = cliff();
    (0..20).for_each(|host| world.heal(host));
    assert!(world.hosts.iter().all(|sim| sim.state == HaState::Available { failures: 0 } && sim.attempt.is_none()));
    world.hang(30);
    world.run(5 * MINUTE);
    assert_eq!((world.fenced(), world.orders()), (vec![30], 1));
}

#[test]
fn held_while_the_agent_may_be_cut_off_itself() {
    for (connection, held) in [(Connection::Silent, true), (Connection::Nobody, true), (Connection::Answers, false)] {
        let mut world = World::new(40);
        world.connection = connection;
        world.hang(0);
        world.run(10 * MINUTE);
        assert_eq!(world.in_the_way(0), if held { vec![Gate::Isolation] } else { vec![] });
        assert_eq!(world.fenced().is_empty(), held);
        world.connection = Connection::Answers;
        world.run(MINUTE);
        assert_eq!(world.fenced(), [0]);
    }
}

#[test]
fn cut_off_from_the_centre_the_floor_is_left() {
    let mut world = World::new(40);
    world.told.clusters[0].lease_until = at(world.now).wall.into();
    for host in 0..2 {
        world.hang(host);
        world.run(2 * MINUTE);
    }
    world.run(10 * MINUTE);
    assert_eq!((world.fenced(), world.in_the_way(1)), (vec![0], vec![Gate::Budget]));
    world.told.clusters[0].lease_until = Time(i64::MAX);
    world.run(MINUTE);
    assert_eq!(world.fenced(), [0, 1]);
}

#[test]
fn everything_at_once_is_all_shown() {
    let mut world = World::new(40);
    world.hang(39);
    world.run(5 * MINUTE);
    assert_eq!(world.fenced(), [39]);
    world.lease(0);
    world.connection = Connection::Silent;
    (0..25).for_each(|host| world.hang(host));
    world.run(5 * MINUTE);
    for host in 0..25 {
        assert_eq!(world.in_the_way(host), [Gate::Isolation, Gate::Cliff, Gate::Storm, Gate::Budget]);
    }
    assert_eq!(world.orders(), 1);
}

#[test]
fn t22_a_cluster_of_two_can_fence() {
    let mut world = World::new(2);
    world.hang(0);
    world.run(5 * MINUTE);
    assert_eq!((world.fenced(), world.orders()), (vec![0], 1));
    // But not its last host.
    world.hang(1);
    world.run(5 * MINUTE);
    assert_eq!(world.in_the_way(1), [Gate::SomewhereToGo]);
}

#[test]
fn t28_a_fence_that_cannot_be_confirmed_does_not_keep_the_others() {
    let mut world = World::unlimited(10);
    world.rules.storm = [100; 3];
    (0..2).for_each(|host| world.hosts[host].is_lazy = true);
    (0..4).for_each(|host| {
        world.hang(host);
        // Not all at once: that would be a cliff.
        world.run(40 * SECOND);
    });
    world.run(12 * MINUTE);
    assert_eq!(world.fenced(), [2, 3]);
    // And those two take turns.
    let (one, other) = (world.hosts[0].orders.len(), world.hosts[1].orders.len());
    assert!(one >= 3 && other >= 3 && one.abs_diff(other) <= 2, "{one} {other}");
    world.run(HOUR);
    for host in 0..2 {
        assert!(world.hosts[host].attempt.as_ref().unwrap().is_unconfirmed(&world.settings));
        assert_eq!(world.hosts[host].state.name(), HaName::Fencing, "never Down by itself");
    }
    assert_eq!(
        world.brakes.of_cluster(&world.cluster).unwrap().count(cap_of(&world.rules), at(13 * MINUTE).wall),
        4,
        "retries are free"
    );
}

#[test]
fn quiet_after_the_start() {
    let mut world = World::new(40);
    world.now = 0;
    world.hang(0);
    world.run(4 * MINUTE);
    assert_eq!((world.fenced(), world.in_the_way(0)), (vec![], vec![Gate::StartupQuiet]));
    world.run(2 * MINUTE);
    assert_eq!(world.fenced(), [0]);
}
