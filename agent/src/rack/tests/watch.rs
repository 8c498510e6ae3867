//! Host-HA in virtual time: hosts that die, hang, write, heal and are switched off, each with its whole story.

use std::collections::BTreeMap;

use picket_common::ha::settings::{ActivityCheck, HaSettings, HealthCheck, Mode, NothingToCheck};
use picket_common::ha::{
    By, Degraded, Evidence, Fenced, Fencing, Gate, HaName, HaState, HostStatus, Ineligible, OutagePolicy, Way,
};
use picket_common::wire::Time;
use picket_common::wire::ha::{Act, ClusterHa, HaClosed, HaCommand, HaPart, HaReport, HaVerb, JudgedReport};
use proptest::prelude::*;

use super::*;
use crate::rack::host::Purpose;
use crate::rack::watch::Stepper;
use crate::sign::{Check, Sign, Stamp};

/// How a host answers its checks.
#[derive(Clone, Default)]
pub(super) struct Life {
    /// It does not answer health checks.
    pub(super) hung: bool,
    /// Its files, and when they were written.
    pub(super) files: BTreeMap<String, i128>,
    /// They are written all the time.
    pub(super) writes: bool,
    /// Its storage is too slow to be looked at.
    pub(super) slow_storage: bool,
    /// Its BMC is another machine's: it answers although that reads Off.
    pub(super) elsewhere: bool,
}

impl World {
    /// How a check ends, and when. A host that is off answers nothing, but its files are there.
    pub(super) fn check(&mut self, job: &CheckJob) -> (Duration, CheckDone) {
        let (soon, late) = (Duration::from_millis(3), job.timeout);
        let network = self.network;
        let (after, sign) = match (&job.check, &job.host) {
            (Check::Reference(_), _) if network => (soon, Sign::Alive),
            (Check::Health(_), Some(host)) if network => {
                let is_on = self.bmcs.get(host).is_none_or(|bmc| bmc.power == Reading::On);
                let hung = self.lives.get(host).is_some_and(|life| life.hung);
                let elsewhere = self.lives.get(host).is_some_and(|life| life.elsewhere);
                if (is_on || elsewhere) && !hung { (soon, Sign::Alive) } else { (late, Sign::Dead("no answer".into())) }
            }
            (Check::Activity(check), Some(host)) => {
                self.looked.push((host.clone(), job.check.clone()));
                self.look(host, check, late)
            }
            _ => (late, Sign::Dead("no answer".into())),
        };
        let ends = self.now.boottime + after;
        if let (Check::Health(_), Some(host)) = (&job.check, &job.host) {
            self.healths.push((host.clone(), ends, sign == Sign::Alive));
        }
        (ends, CheckDone { ticket: job.ticket, begun: self.now.boottime, sign })
    }

    fn look(&mut self, host: &HostId, check: &ActivityCheck, late: Duration) -> (Duration, Sign) {
        let now = i128::try_from(self.now.boottime.as_nanos()).unwrap();
        let life = self.lives.entry(host.clone()).or_default();
        if life.slow_storage {
            return (late, Sign::CannotTell("time-out".into()));
        }
        let ActivityCheck::Files { paths } = check else { return (late, Sign::CannotTell("not here".into())) };
        let stamp = |path: &String| {
            let modified = if life.writes { now } else { life.files.get(path).copied()? };
            Some(Stamp { path: path.clone(), modified, length: 1 })
        };
        (Duration::from_millis(3), Sign::Stamps(paths.iter().filter_map(stamp).collect()))
    }

    /// The checks that are over.
    pub(super) fn checked(&mut self) -> Vec<CheckDone> {
        let now = self.now.boottime;
        let (done, checking): (Vec<_>, Vec<_>) = std::mem::take(&mut self.checking).into_iter().partition(|(at, _)| *at <= now);
        self.checking = checking;
        done.into_iter().map(|(_, done)| done).collect()
    }

    /// What a fence or recovery sends goes with the journal of its intent, and so in the instant in which all gates were asked; and
    /// a host that passed its last health check is switched off for a named principal only.
    pub(super) fn sends_what_it_intends(&self, decision: &Decision) {
        for (_, job) in decision.jobs.iter().filter(|(_, job)| matches!(job.ask, Ask::Off | Ask::Reset)) {
            let flight =
                self.rack.hosts.iter().flatten().filter_map(|host| host.in_flight).find(|flight| flight.ticket == job.ticket);
            let intends = |record: &Record| match record {
                Record::Ha(row) => row.host == job.bmc.host && row.stepper.as_ref().is_some_and(Stepper::holds_slot),
                _ => false,
            };
            if flight.is_some_and(|flight| flight.purpose == Purpose::Fence) {
                assert!(decision.records.iter().any(intends), "{:?} is sent, and the gates were asked earlier", job.ask);
                let by_word = |record: &Record| match record {
                    Record::Ha(row) if row.host == job.bmc.host => {
                        matches!(&row.state, HaState::Fencing(Fencing { way: Way::Order(By::Principal(_)), .. }))
                    }
                    _ => false,
                };
                let ended = |(host, ends, _): &&(HostId, Duration, bool)| *host == job.bmc.host && *ends <= self.now.boottime;
                let is_well = self.healths.iter().filter(ended).max_by_key(|(_, ends, _)| *ends).is_some_and(|(.., alive)| *alive);
                assert!(!is_well || decision.records.iter().any(by_word), "{:?} is sent to a host that is well", job.ask);
            }
        }
    }

    /// A rack whose hosts are watched over, and well.
    pub(super) fn watched(hosts: &[&str], change: impl Fn(&mut HaSettings)) -> Self {
        let mut world = Self::new(hosts);
        for host in hosts {
            let files = BTreeMap::from([("/vm/a".to_owned(), 1), ("/vm/b".to_owned(), 1)]);
            world.lives.insert(id(host), Life { files, ..Life::default() });
        }
        // Beyond the quiet time after the start.
        world.run(320);
        let watched = hosts.iter().map(|host| watched_host(host, &change)).collect();
        world.tell_ha(1, watched);
        world.run(15);
        for host in hosts {
            assert_eq!(world.state(host).name(), HaName::Available, "{}", world.why(host));
        }
        world
    }

    fn tell_ha(&mut self, version: u64, hosts: Vec<HostHa>) {
        let part =
            HaPart { version: generation(version), epoch: 1, part: 0, of: 1, agent_cap: 6, clusters: vec![cluster()], hosts };
        self.apply(Event::Assigned(Assign::Ha(part)));
    }

    fn told(&self, host: &str) -> Vec<&HaReport> {
        let told = self.reports.iter().filter_map(|report| if let Report::Ha(told) = report { Some(&**told) } else { None });
        told.filter(|told| told.host.as_str() == host).collect()
    }

    fn last(&self, host: &str) -> &HaReport {
        self.told(host).last().unwrap()
    }

    pub(super) fn state(&self, host: &str) -> HaState {
        self.told(host).last().map_or(HaState::Disabled, |told| told.state.clone())
    }

    pub(super) fn why(&self, host: &str) -> String {
        self.told(host).last().map_or_else(String::new, |told| told.why.clone())
    }

    /// Whether it ever stood in such a state.
    pub(super) fn told_any(&self, host: &str, is: impl Fn(&HaState) -> bool) -> bool {
        self.told(host).iter().any(|told| is(&told.state))
    }

    /// All looks at a host's activity so far.
    pub(super) fn activity_checks(&self, host: &str) -> Vec<Check> {
        self.looked.iter().filter(|(of, _)| of.as_str() == host).map(|(_, check)| check.clone()).collect()
    }

    /// The names of its states, one after another.
    fn story(&self, host: &str) -> Vec<HaName> {
        let mut story: Vec<HaName> = self.told(host).iter().map(|told| told.state.name()).collect();
        story.dedup();
        story
    }

    fn verb(&mut self, number: u128, host: &str, verb: HaVerb) {
        let command = HaCommand {
            operation: OperationId(uuid::Uuid::from_u128(number)),
            host: id(host),
            verb,
            by: "ann".into(),
            reason: "because".into(),
            deadline: self.now.after(Duration::from_secs(60)).wall.into(),
            epoch: 1,
            generation: generation(self.counter),
            enablement: 1,
        };
        self.apply(Event::Commanded(Command::Ha(command)));
    }

    pub(super) fn life(&mut self, host: &str) -> &mut Life {
        self.lives.entry(id(host)).or_default()
    }
}

impl World {
    pub(super) fn run_until(&mut self, host: &str, wanted: HaName, within: u64) {
        for _ in 0..within {
            if self.state(host).name() == wanted {
                return;
            }
            self.run(1);
        }
        panic!("{host} is not {wanted} within {within} s: {:?}, {}", self.story(host), self.why(host));
    }

    /// One turn of [`World::run`].
    fn step(&mut self) {
        let from = self.now.boottime;
        while self.now.boottime == from {
            self.run_for(Duration::from_millis(5));
        }
    }

    /// What the BMC of h said to a request that was begun then.
    fn read_as(&self, begun: Time) -> Option<Reading> {
        self.readings.iter().find(|(at, _)| *at == begun).map(|(_, reading)| *reading)
    }

    fn judged(&self, host: &str) -> Vec<&JudgedReport> {
        let told = self.reports.iter().filter_map(|report| if let Report::Judged(told) = report { Some(told) } else { None });
        told.filter(|told| told.host.as_str() == host).collect()
    }

    fn offs(&mut self, host: &str) -> usize {
        self.orders(host).iter().filter(|ask| **ask == Ask::Off).count()
    }

    fn resets(&mut self, host: &str) -> usize {
        self.orders(host).iter().filter(|ask| **ask == Ask::Reset).count()
    }

    pub(super) fn change_ha(&mut self, version: u64, host: &str, change: impl FnOnce(&mut HostHa)) {
        let hosts = ["h", "other"].map(|name| watched_host(name, |_| ()));
        let mut hosts: Vec<HostHa> = hosts.into_iter().filter(|ha| self.bmcs.contains_key(&ha.host)).collect();
        let ha = hosts.iter_mut().find(|ha| ha.host.as_str() == host).unwrap();
        change(ha);
        self.tell_ha(version, hosts);
    }

    /// The state that the journal would go on from.
    fn row(&self, host: &str) -> crate::rack::watch::HaRow {
        self.journal.watch.rows.iter().find(|row| row.host.as_str() == host).unwrap().clone()
    }
}

fn cluster() -> ClusterHa {
    ClusterHa {
        cluster: "c".parse().unwrap(),
        zone: "z".parse().unwrap(),
        cap: 3,
        cap_window: 3600,
        agents: 1,
        storm: [30, 20, 10],
        cool_down: 600,
        cliff: Some(50),
        somewhere_to_go: true,
        isolation: true,
    }
}

fn watched_host(host: &str, change: impl Fn(&mut HaSettings)) -> HostHa {
    let mut settings = HaSettings {
        health: vec![HealthCheck::Tcp { address: "192.0.2.1".into(), port: 22 }],
        activity: vec![ActivityCheck::Files { paths: vec!["/vm/a".into(), "/vm/b".into()] }],
        ..HaSettings::default()
    };
    change(&mut settings);
    HostHa {
        host: id(host),
        closed: None,
        maintenance: false,
        pause: None,
        identity: Some("guid".into()),
        settings,
        levels: vec![],
    }
}

#[test]
fn a_host_that_is_switched_off_at_the_chassis_is_fenced_within_a_minute() {
    for number in 0..10 {
        let mut world = World::watched(&["h", "other"], |_| ());
        world.run(number);
        world.bmc("h").power = Reading::Off;
        world.bmc("h").order = Some((ErrorClass::Refused, false));
        let lost = world.now.boottime;
        while !matches!(world.state("h"), HaState::Fenced(_)) {
            world.run(1);
            assert!(world.now.boottime - lost < Duration::from_secs(60), "{:?}", world.story("h"));
        }
        assert!(world.now.boottime - lost > Duration::from_secs(30), "a reboot passes through off");
        assert_eq!(world.orders("h"), [], "nothing is sent");
        let told = world.told("h");
        let last = told.last().unwrap();
        assert_eq!(last.state.host_status(), HostStatus::Down);
        let proof = last.proof.as_ref().unwrap();
        assert!(proof.readings.len() >= 3 && !proof.off_sent, "{proof:?}");
        assert_eq!(told.iter().filter(|told| matches!(told.state, HaState::Fenced(_))).count(), 1);
        assert_eq!(world.state("other").name(), HaName::Available);
    }
}

use HaName as N;

#[test]
fn a_hung_host_is_reset_then_fenced_each_step_with_its_reason() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.life("h").hung = true;
    world.run_until("h", N::Checking, 60);
    assert!(world.last("h").quarantined);
    world.run_until("h", N::Recovering, 120);
    world.run(60);
    assert_eq!((world.resets("h"), world.offs("h")), (1, 0), "t02 one reset for one attempt: {}", world.why("h"));
    assert_eq!(world.state("h").host_status(), HostStatus::Disconnected);
    world.run_until("h", N::Fencing, 600);
    assert!(world.why("h").contains("600 s"), "t16 a reset that is acknowledged is no recovery: {}", world.why("h"));
    world.run_until("h", N::Fenced, 60);
    assert_eq!(world.story("h")[2..], [N::Suspect, N::Checking, N::Recovering, N::Fencing, N::Fenced]);
    assert_eq!((world.resets("h"), world.offs("h")), (1, 1));
    let last = world.last("h");
    let proof = last.proof.as_ref().unwrap();
    assert!(proof.off_sent && proof.readings.len() == 3 && proof.attempt == 1, "{proof:?}");
    assert_eq!(last.state.host_status(), HostStatus::Down);
    assert!(world.told("h").iter().all(|told| !told.why.is_empty()));
    let versions: Vec<u64> = world.told("h").iter().map(|told| told.version).collect();
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    let judged: Vec<(Act, Option<Gate>)> = world.judged("h").iter().map(|told| (told.act, told.judgement.held_by())).collect();
    assert_eq!(judged, [(Act::Reset, None), (Act::Off, None)]);
    assert_eq!(world.story("other"), [N::Ineligible, N::Available]);
}

#[test]
fn a_host_whose_file_is_written_is_degraded_and_never_fenced() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.life("h").hung = true;
    world.run(30);
    world.life("h").files.insert("/vm/b".into(), 2);
    world.run_until("h", N::Degraded, 60);
    assert_eq!(world.state("h"), HaState::Degraded(Degraded::Active));
    assert!(world.why("h").contains("/vm/b"), "{}", world.why("h"));
    world.life("h").writes = true;
    world.run(3600);
    assert_eq!(world.orders("h"), [], "{:?}", world.story("h"));
    assert!(
        world.story("h").iter().all(|name| matches!(name, N::Ineligible | N::Available | N::Suspect | N::Checking | N::Degraded))
    );
}

#[test]
fn t05_slow_storage_alone_never_fences() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.life("h").slow_storage = true;
    world.run(600);
    assert_eq!(world.state("h"), HaState::Available { failures: 0 });
    world.life("h").hung = true;
    world.run(3600);
    assert_eq!(world.orders("h"), []);
    assert!(world.told("h").iter().any(|told| told.state == HaState::Degraded(Degraded::CannotTell)), "{:?}", world.story("h"));
}

#[test]
fn t26_the_agents_own_path_that_fails_makes_nobody_suspect() {
    for failures in [1, 3] {
        let mut world = World::watched(&["h", "other"], |settings| settings.failures = failures);
        world.network = false;
        world.run(3600);
        for host in ["h", "other"] {
            assert_eq!(world.story(host), [N::Ineligible, N::Available], "{failures}: {}", world.why(host));
            assert_eq!(world.orders(host), []);
        }
    }
    // A host alone in its rack has nobody who would vouch for the path.
    let mut alone = World::watched(&["h"], |_| ());
    alone.life("h").hung = true;
    alone.run(3600);
    assert_eq!(alone.story("h"), [N::Ineligible, N::Available]);
}

#[test]
fn t07_a_host_with_nothing_to_check_follows_its_policy_and_says_so() {
    let bare = |taken_for| move |settings: &mut HaSettings| (settings.activity, settings.nothing_to_check) = (vec![], taken_for);
    let mut world = World::watched(&["h", "other"], bare(NothingToCheck::AssumeActive));
    world.life("h").hung = true;
    world.run(900);
    assert_eq!(world.orders("h"), []);
    assert!(world.told("h").iter().any(|told| told.why.contains("assume-active")), "{}", world.why("h"));
    let mut world = World::watched(&["h", "other"], bare(NothingToCheck::AssumeInactive));
    world.life("h").hung = true;
    world.run_until("h", N::Recovering, 60);
    assert!(world.why("h").contains("assume-inactive"), "{}", world.why("h"));
}

#[test]
fn a_host_that_heals_is_available_again_wherever_it_stands() {
    for wanted in [N::Checking, N::Recovering, N::Fencing] {
        let mut world = World::watched(&["h", "other"], |_| ());
        world.life("h").hung = true;
        if wanted == N::Fencing {
            // t24: it waits, for people work on it.
            world.run_until("h", N::Recovering, 200);
            world.run(60);
            world.change_ha(2, "h", |ha| {
                ha.pause = Some(picket_common::wire::ha::Pause { owner: "ann".into(), until: Time(i64::MAX) })
            });
        }
        world.run_until("h", wanted, 900);
        world.run(20);
        world.life("h").hung = false;
        world.run_until("h", N::Available, 90);
        assert_eq!(world.offs("h"), 0, "{wanted}");
        let last = world.last("h");
        assert!(!last.quarantined && last.proof.is_none(), "{last:?}");
    }
}

#[test]
fn a_held_fence_says_by_which_gate_and_goes_on_when_it_opens() {
    let mut world = World::watched(&["h", "other"], |settings| settings.recovery_attempts = 0);
    world.life("h").hung = true;
    let pause =
        picket_common::wire::ha::Pause { owner: "ann".into(), until: world.now.after(Duration::from_secs(600)).wall.into() };
    world.change_ha(2, "h", |ha| {
        ha.settings.recovery_attempts = 0;
        ha.pause = Some(pause);
    });
    world.run_until("h", N::Fencing, 200);
    world.run(60);
    let HaState::Fencing(fencing) = world.state("h") else { panic!("{:?}", world.state("h")) };
    assert_eq!((fencing.held, fencing.attempt), (Some(Gate::Maintenance), 1), "no attempt is used");
    assert!(world.why("h").contains("ann"), "{}", world.why("h"));
    let held = world.told("h").iter().filter(|told| matches!(&told.state, HaState::Fencing(f) if f.held.is_some())).count();
    assert_eq!(held, 1, "told once");
    assert_eq!(world.judged("h").len(), 1);
    world.run_until("h", N::Fenced, 600);
    assert_eq!(world.offs("h"), 1);
}

#[test]
fn t18_an_off_that_nobody_ordered_is_proven_without_a_word_to_the_bmc() {
    // Whatever the BMC would say to an off: it is not asked.
    for error in [(ErrorClass::Refused, false), (ErrorClass::Deadline, true), (ErrorClass::Auth, false)] {
        let mut world = World::watched(&["h", "other"], |_| ());
        world.bmc("h").order = Some(error);
        world.bmc("h").power = Reading::Off;
        world.run_until("h", N::Fenced, 60);
        assert_eq!(world.orders("h"), []);
        assert!(matches!(world.state("h"), HaState::Fenced(Fenced { evidence: Evidence::Readings(_), .. })));
        let judged: Vec<Act> = world.judged("h").iter().map(|told| told.act).collect();
        assert_eq!(judged, [Act::Proof]);
        // It is switched on by hand: not down any more, and well again only when it is released.
        world.bmc("h").power = Reading::On;
        world.life("h").hung = true;
        world.run(15);
        assert_eq!(world.state("h").host_status(), HostStatus::Disconnected);
        assert!(matches!(world.state("h"), HaState::Fenced(Fenced { returned: true, .. })));
        world.life("h").hung = false;
        world.run(60);
        assert_eq!(world.state("h").name(), N::Fenced);
        world.verb(1, "h", HaVerb::Release);
        world.run(10);
        assert_eq!(world.state("h"), HaState::Available { failures: 0 });
        assert_eq!(world.outcomes(1), [Outcome::Changed]);
    }
}

#[test]
fn a_reboot_that_passes_through_off_is_none_of_our_business() {
    let mut world = World::watched(&["h", "other"], |_| ());
    for _ in 0..3 {
        world.bmc("h").power = Reading::Off;
        world.run(25);
        world.bmc("h").power = Reading::Transitioning;
        world.run(5);
        world.bmc("h").power = Reading::On;
        world.run(60);
    }
    assert_eq!(world.state("h").name(), N::Available, "{:?}", world.story("h"));
    assert!(!world.story("h").contains(&N::Fencing));
}

#[test]
fn t23_a_bmc_that_says_off_of_a_living_host_is_contradicted() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.bmc("h").power = Reading::Off;
    world.lives.get_mut(&id("h")).unwrap().elsewhere = true;
    world.run_until("h", N::Degraded, 60);
    assert_eq!(world.state("h"), HaState::Degraded(Degraded::Contradiction));
    world.run(1200);
    assert!(world.told("h").iter().all(|told| told.state.host_status() != HostStatus::Down));
    assert_eq!(world.told("h").iter().filter(|told| told.state == HaState::Degraded(Degraded::Contradiction)).count(), 1);
    assert_eq!(world.orders("h"), []);
    world.bmc("h").power = Reading::On;
    world.run_until("h", N::Available, 30);
}

#[test]
fn what_an_operator_switched_off_is_left_alone() {
    for action in [PowerOperation::Off, PowerOperation::Soft] {
        let mut world = World::watched(&["h", "other"], |_| ());
        world.order(1, "h", action);
        world.run(900);
        assert_eq!(world.state("h"), HaState::Ineligible(Ineligible::CommandedOff), "{action}: {}", world.why("h"));
        assert!(!world.story("h").contains(&N::Fencing), "{:?}", world.story("h"));
        world.restart();
        world.run(300);
        assert_eq!(world.state("h"), HaState::Ineligible(Ineligible::CommandedOff));
        world.order(2, "h", PowerOperation::On);
        world.run_until("h", N::Available, 60);
    }
    // A cycle passes through Off; one that fails in the middle may leave it off, and that is for the order path to judge.
    let mut world = World::watched(&["h", "other"], |_| ());
    world.order(1, "h", PowerOperation::Cycle);
    world.run(120);
    assert_eq!(world.story("h"), [N::Ineligible, N::Available]);
}

#[test]
fn t25_nothing_switches_a_fenced_host_on_before_it_is_released() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.order(1, "h", PowerOperation::Status);
    world.verb(2, "h", HaVerb::Fence { overrides: vec![] });
    for (number, action) in [(3, PowerOperation::On), (4, PowerOperation::Cycle), (5, PowerOperation::Reset)] {
        world.order(number, "h", action);
    }
    world.run(60);
    assert_eq!(world.state("h").name(), N::Fenced, "{}", world.why("h"));
    assert_eq!(world.outcomes(2), [Outcome::Changed]);
    world.order(6, "h", PowerOperation::On);
    world.run(10);
    for number in [3, 4, 5, 6] {
        assert_eq!(world.outcomes(number), [Outcome::Refused(Refusal::HostFenced)], "{number}");
    }
    // The mark outlives that host-HA is disabled.
    world.change_ha(2, "h", |ha| ha.closed = Some(HaClosed::Host));
    world.run(5);
    assert_eq!(world.state("h"), HaState::Disabled);
    world.order(7, "h", PowerOperation::On);
    world.change_ha(3, "h", |_| ());
    world.run(5);
    assert_eq!(world.outcomes(7), [Outcome::Refused(Refusal::HostFenced)]);
    assert!(matches!(world.state("h"), HaState::Fenced(Fenced { returned: true, .. })), "{:?}", world.state("h"));
    world.verb(8, "h", HaVerb::Release);
    world.order(9, "h", PowerOperation::On);
    world.run(30);
    assert_eq!(world.outcomes(9), [Outcome::Changed]);
    assert_eq!(world.state("h"), HaState::Available { failures: 0 });
    assert_eq!(world.offs("h"), 1);
}

#[test]
fn entering_a_fence_ends_what_waits_for_the_host() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.bmc("h").lazy = true;
    world.order(1, "h", PowerOperation::Cycle);
    world.order(2, "h", PowerOperation::On);
    world.run(1);
    world.bmc("h").lazy = false;
    world.verb(3, "h", HaVerb::Fence { overrides: vec![] });
    assert!(matches!(&world.outcomes(1)[..], [Outcome::Unknown(_)]), "{:?}", world.outcomes(1));
    assert_eq!(world.outcomes(2), [Outcome::Refused(Refusal::HostFenced)]);
    world.run(90);
    assert_eq!(world.outcomes(3), [Outcome::Changed], "{:?} {}", world.state("h"), world.why("h"));
    assert!(!world.orders("h").contains(&Ask::On), "{:?}", world.orders("h"));
}

#[test]
fn a_named_principal_fences_a_host_that_looks_well() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.verb(1, "h", HaVerb::Fence { overrides: vec![] });
    world.run(30);
    assert_eq!(world.outcomes(1), [Outcome::Changed]);
    let last = world.last("h");
    assert_eq!(last.operation, Some(OperationId(uuid::Uuid::from_u128(1))));
    world.verb(2, "h", HaVerb::Fence { overrides: vec![] });
    world.run(5);
    assert_eq!(world.outcomes(2), [Outcome::Unchanged], "it is proven off already");
    // The same command again does nothing.
    world.verb(1, "h", HaVerb::Fence { overrides: vec![] });
    world.run(30);
    assert_eq!((world.outcomes(1).len(), world.offs("h")), (1, 1));
}

#[test]
fn nothing_is_sent_while_the_bmc_is_busy_and_then_only_with_the_gates_asked_again() {
    let mut world = World::watched(&["h", "other"], |settings| settings.recovery_attempts = 0);
    world.life("h").hung = true;
    world.run_until("h", N::Fencing, 200);
    // A request that hangs.
    let slot = world.rack.by_id[&id("h")];
    let mut decision = Decision::default();
    world.rack.land(slot);
    world.flying.retain(|job| job.bmc.host != id("h"));
    world.rack.send(slot, Ask::Status, Purpose::Poll, Duration::from_secs(30), world.now, &mut decision);
    world.run(25);
    assert_eq!((world.offs("h"), world.judged("h").len()), (0, 0), "{}", world.why("h"));
    // Meanwhile somebody begins to work on it.
    let pause =
        picket_common::wire::ha::Pause { owner: "ann".into(), until: world.now.after(Duration::from_secs(100)).wall.into() };
    world.change_ha(2, "h", |ha| (ha.settings.recovery_attempts, ha.pause) = (0, Some(pause)));
    world.rack.land(slot);
    world.run(60);
    assert_eq!(world.offs("h"), 0);
    world.run_until("h", N::Fenced, 120);
    assert_eq!(world.offs("h"), 1);
}

#[test]
fn a_host_without_a_health_check_can_be_fenced_by_a_person() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.change_ha(2, "h", |ha| ha.settings.health.clear());
    world.run(5);
    assert_eq!(world.state("h").name(), N::Ineligible);
    world.verb(1, "h", HaVerb::Fence { overrides: vec![] });
    world.run(30);
    assert_eq!(world.outcomes(1), [Outcome::Changed], "{}", world.why("h"));
    assert_eq!(world.last("h").proof.as_ref().unwrap().health, "it has no health check");
}

#[test]
fn what_somebody_acknowledged_is_no_storm_any_more() {
    let names: Vec<String> = (0..6).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::watched(&names, |settings| settings.recovery_attempts = 0);
    // Four of six: more than three. One after another, or it would be a cliff.
    for name in &names[..4] {
        world.life(name).hung = true;
        world.run(40);
    }
    let held = |world: &World| match world.state("n3") {
        HaState::Fencing(fencing) => fencing.held,
        state => panic!("{state:?}"),
    };
    world.run(200);
    assert_eq!(held(&world), Some(Gate::Storm));
    world.verb(1, "n0", HaVerb::Ack);
    world.run(590);
    assert_eq!(held(&world), Some(Gate::Storm), "it cools down");
    world.run(60);
    // Nobody leased this agent more than its floor, which the first of them spent.
    assert_eq!(held(&world), Some(Gate::Budget));
}

#[test]
fn a_fence_that_cannot_be_confirmed_says_why_and_goes_on() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.bmc("h").status = Some(ErrorClass::Connection);
    world.bmc("h").order = Some((ErrorClass::Connection, false));
    world.bmc("h").code = "0xc3";
    world.verb(1, "h", HaVerb::Fence { overrides: vec![] });
    world.run(600);
    let [Outcome::Unknown(text)] = &world.outcomes(1)[..] else { panic!("{:?}", world.outcomes(1)) };
    assert!(text.contains("0xc3"), "t19 the driver's own error: {text}");
    let HaState::Fencing(fencing) = world.state("h") else { panic!() };
    assert!(fencing.attempt > 2, "{fencing:?}");
    assert_eq!(world.last("h").error.as_ref().unwrap().code, "0xc3");
    world.verb(2, "h", HaVerb::Confirm { force: false });
    world.run(1);
    // Its health check says Alive all the time.
    assert_eq!(world.outcomes(2), [Outcome::Refused(Refusal::HostIsUp)]);
    world.life("h").hung = true;
    world.run(40);
    world.verb(3, "h", HaVerb::Confirm { force: false });
    assert_eq!(world.outcomes(3), [Outcome::Changed], "{:?}", world.state("h"));
    assert!(matches!(world.state("h"), HaState::Fenced(Fenced { evidence: Evidence::Vouched(_), .. })));
}

#[test]
fn verbs_say_what_they_did() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.verb(1, "h", HaVerb::Plan);
    assert_eq!(world.outcomes(1), [Outcome::Unchanged]);
    assert_eq!(world.judged("h").iter().map(|told| told.act).collect::<Vec<_>>(), [Act::Plan]);
    world.verb(2, "h", HaVerb::Ack);
    world.verb(3, "h", HaVerb::Ack);
    world.verb(4, "h", HaVerb::Release);
    world.verb(5, "h", HaVerb::Abort);
    world.verb(6, "h", HaVerb::EndCliff);
    world.verb(7, "nobody", HaVerb::Ack);
    for (number, wanted) in [
        (2, Outcome::Changed),
        (3, Outcome::Unchanged),
        (4, Outcome::Unchanged),
        (5, Outcome::Unchanged),
        (6, Outcome::Unchanged),
        (7, Outcome::Refused(Refusal::NotAssigned)),
    ] {
        assert_eq!(world.outcomes(number), [wanted], "{number}");
    }
    assert!(world.last("h").acked);
    world.change_ha(2, "h", |ha| ha.closed = Some(HaClosed::Zone));
    world.verb(8, "h", HaVerb::Fence { overrides: vec![] });
    assert_eq!(world.outcomes(8), [Outcome::Refused(Refusal::HaDisabled)]);
    assert_eq!(world.orders("h"), []);
}

#[test]
fn t13_an_order_that_comes_late_fences_nobody() {
    let mut world = World::watched(&["h", "other"], |_| ());
    let command = |world: &World, epoch, deadline: Time| HaCommand {
        operation: OperationId(uuid::Uuid::from_u128(u128::from(epoch))),
        host: id("h"),
        verb: HaVerb::Fence { overrides: vec![] },
        by: "ann".into(),
        reason: "because".into(),
        deadline,
        epoch,
        generation: generation(world.counter),
        enablement: 1,
    };
    let late = command(&world, 1, world.now.wall.into());
    world.apply(Event::Commanded(Command::Ha(late)));
    let stale = command(&world, 0, world.now.after(Duration::from_secs(9)).wall.into());
    world.apply(Event::Commanded(Command::Ha(stale)));
    world.run(60);
    assert_eq!(world.outcomes(1), [Outcome::Expired]);
    assert_eq!(world.outcomes(0), [Outcome::Refused(Refusal::StaleEpoch)]);
    assert_eq!(world.orders("h"), []);
}

#[test]
fn an_aborted_fence_sends_nothing_more() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.bmc("h").order = Some((ErrorClass::Connection, false));
    world.verb(1, "h", HaVerb::Fence { overrides: vec![] });
    world.run(5);
    world.verb(2, "h", HaVerb::Abort);
    let orders = world.orders("h").len();
    assert_eq!(world.state("h"), HaState::Degraded(Degraded::Aborted));
    assert_eq!(world.outcomes(2), [Outcome::Changed]);
    world.run(120);
    assert_eq!(world.orders("h").len(), orders);
    assert_eq!(world.state("h").name(), N::Available, "it answers");
}

#[test]
fn maintenance_ends_the_watch_and_not_a_fence() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.change_ha(2, "h", |ha| ha.maintenance = true);
    assert_eq!(world.state("h"), HaState::Ineligible(Ineligible::Maintenance));
    world.bmc("h").power = Reading::Off;
    world.run(300);
    assert_eq!(world.state("h"), HaState::Ineligible(Ineligible::Maintenance));
    world.bmc("h").power = Reading::On;
    world.change_ha(3, "h", |_| ());
    world.run(20);
    assert_eq!(world.state("h"), HaState::Available { failures: 0 });
}

#[test]
fn other_checks_must_pass_once_before_they_can_fence() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.life("h").hung = true;
    world.change_ha(2, "h", |ha| ha.settings.health = vec![HealthCheck::Tcp { address: "192.0.2.1".into(), port: 23 }]);
    world.run(900);
    assert_eq!(world.state("h"), HaState::Ineligible(Ineligible::NeverHealthy), "a wrong port must not fence a healthy host");
    world.life("h").hung = false;
    world.run(20);
    assert_eq!(world.state("h"), HaState::Available { failures: 0 });
}

#[test]
fn what_is_older_is_ignored_and_parts_apply_together() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.change_ha(1, "h", |ha| ha.closed = Some(HaClosed::Host));
    assert_eq!(world.state("h").name(), N::Available, "the same version again");
    let part = |number, hosts| HaPart {
        version: generation(5),
        epoch: 1,
        part: number,
        of: 2,
        agent_cap: 6,
        clusters: if number == 0 { vec![cluster()] } else { vec![] },
        hosts,
    };
    let closed = |host| HostHa { closed: Some(HaClosed::Host), ..watched_host(host, |_| ()) };
    world.apply(Event::Assigned(Assign::Ha(part(1, vec![closed("h")]))));
    assert_eq!(world.state("h").name(), N::Available, "half of it");
    world.apply(Event::Assigned(Assign::Ha(part(0, vec![]))));
    assert_eq!(world.state("h"), HaState::Disabled);
    assert_eq!(world.state("other"), HaState::Disabled, "nobody has settings for it any more");
    world.restart();
    world.run(30);
    assert_eq!(world.state("h"), HaState::Disabled);
}

#[test]
fn a_host_known_before_it_is_assigned_is_watched_when_it_is() {
    let mut world = World::new(&["h", "other"]);
    world.assign(vec![assignment("other", 1, None)]);
    world.tell_ha(1, vec![watched_host("h", |_| ()), watched_host("other", |_| ())]);
    world.restart();
    world.assign(vec![assignment("other", 1, None), assignment("h", 1, None)]);
    world.run(60);
    assert_eq!(world.state("h"), HaState::Available { failures: 0 });
    let version = world.last("h").version;
    world.assign(vec![assignment("other", 1, None)]);
    world.assign(vec![assignment("other", 1, None), assignment("h", 1, None)]);
    world.run(60);
    assert_eq!(world.state("h"), HaState::Available { failures: 0 });
    assert!(world.last("h").version > version);
}

#[test]
fn what_was_missed_is_told_again_under_its_version() {
    let mut world = World::watched(&["h", "other"], |_| ());
    let before = world.last("h").version;
    let told = world.told("h").len();
    world.apply(Event::Missed);
    assert_eq!(world.told("h").len(), told + 1);
    assert_eq!(world.last("h").version, before);
}

#[test]
fn t03_killed_in_any_state_it_goes_on() {
    for wanted in [N::Checking, N::Recovering, N::Fencing] {
        let mut world = World::watched(&["h", "other"], |settings| settings.boot_wait = 60);
        world.life("h").hung = true;
        world.run_until("h", wanted, 300);
        for _ in 0..3 {
            world.restart();
            world.run(3);
        }
        world.run_until("h", N::Fenced, 600);
        assert_eq!((world.resets("h"), world.offs("h") >= 1), (1, true), "{wanted}: {:?}", world.orders("h"));
    }
    // Fenced, degraded and well hosts are what they were.
    let mut world = World::watched(&["h", "other"], |_| ());
    world.bmc("h").power = Reading::Off;
    world.run_until("h", N::Fenced, 60);
    let before = world.row("h");
    world.restart();
    world.run(300);
    assert_eq!(world.row("h").state, before.state);
    assert_eq!(world.row("h").version, before.version, "nothing new is told");
}

#[test]
fn t10_attempts_survive_a_restart() {
    let mut world = World::watched(&["h", "other"], |_| ());
    world.bmc("h").status = Some(ErrorClass::Connection);
    world.bmc("h").order = Some((ErrorClass::Connection, false));
    world.verb(1, "h", HaVerb::Fence { overrides: vec![] });
    world.run(60);
    let HaState::Fencing(Fencing { attempt: before, .. }) = world.state("h") else { panic!() };
    world.restart();
    world.run(30);
    let HaState::Fencing(Fencing { attempt, way: Way::Order(By::Principal(_)), .. }) = world.state("h") else { panic!() };
    assert!(before > 1 && attempt >= before, "{before} {attempt}");
}

#[test]
fn killed_at_every_step_a_fence_ends_in_its_verdict_and_a_reset_is_sent_once() {
    for step in 0..40 {
        let mut world = World::watched(&["h", "other"], |settings| {
            (settings.boot_wait, settings.startup_quiet) = (30, 0);
        });
        world.life("h").hung = true;
        world.run_until("h", N::Recovering, 200);
        for _ in 0..step {
            world.step();
        }
        world.restart();
        world.run_until("h", N::Fenced, 600);
        assert!(world.resets("h") <= 1, "{step}: {:?}", world.orders("h"));
        let last = world.last("h");
        assert!(last.proof.as_ref().unwrap().readings.len() >= 3);
    }
}

#[test]
fn start_up_is_quiet_and_a_short_restart_does_not_begin_it_again() {
    let mut world = World::watched(&["h", "other"], |settings| settings.recovery_attempts = 0);
    world.life("h").hung = true;
    world.restart();
    world.run_until("h", N::Fenced, 300);
    let mut world = World::watched(&["h", "other"], |settings| settings.recovery_attempts = 0);
    world.life("h").hung = true;
    world.now = world.now.after(Duration::from_secs(100));
    world.restart();
    world.run(250);
    let HaState::Fencing(fencing) = world.state("h") else { panic!("{:?}", world.state("h")) };
    assert_eq!(fencing.held, Some(Gate::StartupQuiet));
    world.run_until("h", N::Fenced, 120);
}

#[test]
fn nothing_and_blink_never_reset_nor_switch_off() {
    for (policy, lit) in [(OutagePolicy::Nothing, 0), (OutagePolicy::Blink, 1)] {
        let mut world = World::watched(&["h", "other"], |settings| settings.policy = policy);
        world.life("h").hung = true;
        world.run_until("h", N::Degraded, 200);
        assert_eq!(world.state("h"), HaState::Degraded(Degraded::Policy));
        world.run(250);
        let orders = world.orders("h");
        assert_eq!(orders.len(), lit, "{policy:?}: {orders:?}");
        assert!(orders.iter().all(|ask| matches!(ask, Ask::Identify { .. })));
    }
}

#[test]
fn a_host_is_switched_on_again_only_after_it_was_proven_off() {
    let mut world = World::watched(&["h", "other"], |settings| {
        (settings.policy, settings.recovery_attempts) = (OutagePolicy::Reboot, 0);
    });
    world.life("h").hung = true;
    world.run_until("h", N::Fenced, 300);
    assert_eq!(world.state("h").host_status(), HostStatus::Down);
    world.run(30);
    assert_eq!(world.orders("h"), [Ask::Off, Ask::On]);
    assert!(matches!(world.state("h"), HaState::Fenced(Fenced { restarting: true, returned: true, .. })), "{:?}", world.state("h"));
    let down = world.told("h").iter().filter(|told| told.state.host_status() == HostStatus::Down).count();
    assert_eq!(down, 2, "proven, then restarting");
    world.run(300);
    assert_eq!(world.orders("h"), [Ask::Off, Ask::On]);
}

#[test]
fn observing_decides_all_the_same_and_sends_nothing() {
    for policy in [OutagePolicy::PowerOff, OutagePolicy::Reboot, OutagePolicy::Blink] {
        let mut world = World::watched(&["h", "other"], |settings| {
            (settings.mode, settings.policy, settings.boot_wait) = (Mode::Observe, policy, 30);
        });
        world.life("h").hung = true;
        world.run(900);
        assert_eq!(world.orders("h"), [], "{policy:?}");
        let wanted = if policy == OutagePolicy::Blink { N::Degraded } else { N::Fencing };
        assert!(world.story("h").contains(&wanted), "{:?}", world.story("h"));
    }
}

#[test]
fn disabling_lets_an_off_be_read_to_its_end_and_sends_nothing_more() {
    // The off works, slowly: it is proven within the minute, and then the host is Disabled with its mark.
    let mut world = World::watched(&["h", "other"], |_| ());
    world.bmc("h").lazy = true;
    world.verb(1, "h", HaVerb::Fence { overrides: vec![] });
    world.run(3);
    world.change_ha(2, "h", |ha| ha.closed = Some(HaClosed::Host));
    assert_eq!(world.state("h").name(), N::Fencing);
    world.bmc("h").power = Reading::Off;
    world.life("h").hung = true;
    world.run(40);
    assert_eq!(world.outcomes(1), [Outcome::Changed]);
    assert_eq!(world.state("h"), HaState::Disabled);
    assert!(world.row("h").mark.is_some());
    // It does not work: after a minute it is over, and nothing more was sent.
    let mut world = World::watched(&["h", "other"], |_| ());
    world.bmc("h").lazy = true;
    world.verb(1, "h", HaVerb::Fence { overrides: vec![] });
    world.run(3);
    let orders = world.orders("h");
    world.change_ha(2, "h", |ha| ha.closed = Some(HaClosed::Host));
    world.run(62);
    assert_eq!(world.state("h"), HaState::Disabled);
    world.run(600);
    assert_eq!(world.orders("h"), orders);
    // Without an off nothing is waited for.
    let mut world = World::watched(&["h", "other"], |_| ());
    world.life("h").hung = true;
    world.run_until("h", N::Recovering, 200);
    world.change_ha(2, "h", |ha| ha.closed = Some(HaClosed::Cluster));
    assert_eq!(world.state("h"), HaState::Disabled);
}

/// What may happen to a host in a random life.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Hang,
    Heal,
    Write,
    SlowStorage(bool),
    Network(bool),
    Power(Reading),
    Unreadable(bool),
    Lazy(bool),
    Restart,
    Fence,
    Abort,
    Release,
    Operation(PowerOperation),
    Maintenance(bool),
    Closed(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening as H;
    let all = vec![
        H::Hang,
        H::Hang,
        H::Hang,
        H::Heal,
        H::Write,
        H::SlowStorage(true),
        H::SlowStorage(false),
        H::Network(false),
        H::Network(true),
        H::Network(true),
        H::Power(Reading::Off),
        H::Power(Reading::Off),
        H::Power(Reading::On),
        H::Power(Reading::Transitioning),
        H::Unreadable(true),
        H::Unreadable(false),
        H::Unreadable(false),
        H::Lazy(true),
        H::Lazy(false),
        H::Restart,
        H::Fence,
        H::Abort,
        H::Release,
        H::Operation(PowerOperation::On),
        H::Operation(PowerOperation::Off),
        H::Operation(PowerOperation::Cycle),
        H::Operation(PowerOperation::Reset),
        H::Maintenance(true),
        H::Maintenance(false),
        H::Closed(true),
        H::Closed(false),
        H::Closed(false),
    ];
    prop::sample::select(all)
}

impl World {
    fn happens(&mut self, number: u128, happening: Happening) {
        use Happening as H;
        let version = u64::try_from(number).unwrap() + 10;
        match happening {
            H::Hang => self.life("h").hung = true,
            H::Heal => self.life("h").hung = false,
            H::Write => drop(self.life("h").files.insert("/vm/a".into(), i128::try_from(number).unwrap() + 5)),
            H::SlowStorage(slow) => self.life("h").slow_storage = slow,
            H::Network(works) => self.network = works,
            H::Power(reading) => self.bmc("h").power = reading,
            H::Unreadable(fails) => self.bmc("h").status = fails.then_some(ErrorClass::Connection),
            H::Lazy(lazy) => self.bmc("h").lazy = lazy,
            H::Restart => self.restart(),
            H::Fence => self.verb(number, "h", HaVerb::Fence { overrides: vec![] }),
            H::Abort => self.verb(number, "h", HaVerb::Abort),
            H::Release => self.verb(number, "h", HaVerb::Release),
            H::Operation(operation) => self.order(number, "h", operation),
            H::Maintenance(maintenance) => self.change_ha(version, "h", |ha| ha.maintenance = maintenance),
            H::Closed(closed) => self.change_ha(version, "h", |ha| ha.closed = closed.then_some(HaClosed::Host)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever happens, Fenced is never reached without as many Off readings that this BMC gave, far enough apart, and what is told
    /// counts up.
    #[test]
    fn fenced_means_proven_whatever_happens(life in prop::collection::vec((happening(), 1_u64..200), 1..25)) {
        let mut world = World::watched(&["h", "other"], |settings| settings.boot_wait = 60);
        for (number, (what, seconds)) in (1..).zip(life) {
            world.happens(number, what);
            world.run(seconds);
        }
        let told = world.told("h");
        for pair in told.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            let is_new = matches!(after.state, HaState::Fenced(_)) && !matches!(before.state, HaState::Fenced(_));
            if is_new && before.state != HaState::Disabled {
                let proof = after.proof.as_ref().unwrap();
                prop_assert!(proof.readings.len() >= 3, "{proof:?}");
                let apart = proof.readings.windows(2).all(|pair| pair[1].0.0 - pair[0].0.0 >= 2_000_000);
                prop_assert!(apart, "{proof:?}");
                let at = |time: Time| world.read_as(time);
                prop_assert!(proof.readings.iter().all(|(time, _)| at(*time) == Some(Reading::Off)), "{proof:?}");
            }
        }
        prop_assert!(told.windows(2).all(|pair| pair[0].version < pair[1].version));
    }
}
