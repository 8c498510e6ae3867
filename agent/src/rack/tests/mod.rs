//! The rack in virtual time, with BMCs that are two lines of code each.

use std::collections::HashMap;

use picket_common::command::{Action, BootDevice, Outcome, Persistence};
use picket_common::power::{PowerOperation, PowerState};
use picket_common::wire::assign::{BmcAssignment, Part};
use picket_common::wire::down::PowerCommand;
use picket_common::wire::report::{FactsReport, OperationReport, Progress};

mod password;

use super::*;
use crate::bmc::NOT_SUPPORTED;

/// A BMC of the test.
#[derive(Clone)]
struct Bmc {
    power: Reading,
    /// Status requests fail like this.
    status: Option<ErrorClass>,
    /// Orders fail like this; `true` = it may have arrived.
    order: Option<(ErrorClass, bool)>,
    /// Code of those failures.
    code: &'static str,
    /// Orders are accepted and do nothing.
    lazy: bool,
    /// What it says it is; absent = that question fails.
    facts: Option<Facts>,
    /// What it takes.
    password: String,
    /// What it does with a new one.
    set: password::Set,
    /// What it takes from then on.
    late: Option<(Duration, String)>,
    /// When it refused a login.
    refused: Vec<Duration>,
    /// Those since a login worked.
    in_a_row: Vec<Duration>,
    /// Most of those within a pause.
    worst: usize,
    asked: Vec<Ask>,
}

/// A rack, its BMCs, a clock, and everything that was decided.
struct World {
    rack: Rack,
    now: Now,
    bmcs: HashMap<HostId, Bmc>,
    flying: Vec<Job>,
    reports: Vec<Report>,
    journal: Restored,
    heartbeats: Vec<Pulse>,
    counter: u64,
    machine_boot: MachineBoot,
    /// Dies at the so many-th decision that records something.
    crash: Option<(u32, password::Crash)>,
}

fn settings(machine_boot: MachineBoot) -> Settings {
    Settings { boot: Incarnation(uuid::Uuid::nil()), machine_boot, sealing_key: Secret::new([1; 32]), max_in_flight: 8, seed: 42 }
}

fn start() -> Now {
    Now {
        boottime: Duration::from_secs(1000),
        wall: jiff::Timestamp::UNIX_EPOCH.saturating_add(jiff::SignedDuration::from_secs(1_800_000_000)).unwrap(),
    }
}

fn id(text: &str) -> HostId {
    text.parse().unwrap()
}

fn generation(counter: u64) -> Generation {
    Generation { store: uuid::Uuid::nil(), counter }
}

fn assignment(host: &str, enablement: u64, refusal: Option<Refusal>) -> HostAssignment {
    let bmc = BmcAssignment {
        driver: "ipmi".into(),
        address: "10.0.0.1".into(),
        port: None,
        username: "admin".into(),
        password: None,
        options: vec![],
        revision: 1,
    };
    HostAssignment {
        host: id(host),
        zone: "z".parse().unwrap(),
        cluster: "c".parse().unwrap(),
        enablement,
        refusal,
        bmc: Some(bmc),
        poll_interval_ms: 10_000,
    }
}

impl World {
    fn new(hosts: &[&str]) -> Self {
        let now = start();
        let facts = Some(Facts { identity: Some("guid".into()), latency_us: Some(7), ..Facts::default() });
        let bmc = Bmc {
            power: Reading::On,
            status: None,
            order: None,
            code: "c",
            lazy: false,
            facts,
            password: String::new(),
            set: password::Set::Takes,
            late: None,
            refused: vec![],
            in_a_row: vec![],
            worst: 0,
            asked: vec![],
        };
        let machine_boot = MachineBoot(uuid::Uuid::nil());
        let mut world = Self {
            rack: Rack::restore(settings(machine_boot), Restored::default(), now),
            machine_boot,
            now,
            bmcs: hosts.iter().map(|host| (id(host), bmc.clone())).collect(),
            flying: vec![],
            reports: vec![],
            journal: Restored::default(),
            heartbeats: vec![],
            counter: 0,
            crash: None,
        };
        world.apply(Event::Measured(CentreClock { sent: now.boottime, at: now.wall.into() }));
        world.assign(hosts.iter().map(|host| assignment(host, 1, None)).collect());
        world
    }

    fn assign(&mut self, hosts: Vec<HostAssignment>) {
        self.counter += 1;
        let part = Part { generation: generation(self.counter), epoch: 1, part: 0, of: 1, hosts };
        self.apply(Event::Assigned(Assign::Part(part)));
    }

    fn apply(&mut self, event: Event) {
        let mut decision = Decision::default();
        self.rack.apply(event, self.now, &mut decision);
        if !decision.records.is_empty() && self.dies(&mut decision) {
            return;
        }
        for record in decision.records {
            self.keep(record);
        }
        self.flying.extend(decision.jobs.into_iter().map(|(_, job)| job));
        self.heartbeats.extend(decision.heartbeat);
    }

    /// The journal, as far as a restart needs it.
    fn keep(&mut self, record: Record) {
        match record {
            Record::Report(report) => self.reports.push(*report),
            Record::Host(row) => {
                self.journal.rows.retain(|kept| kept.host != row.host);
                self.journal.rows.push(row);
            }
            Record::Assignment(row) => {
                self.journal.assignments.retain(|kept| kept.host != row.host);
                self.journal.assignments.push(row);
            }
            Record::Remove(host) => {
                self.journal.assignments.retain(|kept| kept.host != host);
                self.journal.rows.retain(|kept| kept.host != host);
                self.journal.facts.retain(|kept| kept.host != host);
            }
            Record::Generation(generation, epoch) => (self.journal.generation, self.journal.epoch) = (generation, epoch),
            Record::Operation(operation) => {
                self.journal.operations.retain(|kept| kept.command.operation != operation.command.operation);
                self.journal.operations.push(operation);
            }
            Record::OperationEnded(operation, _) => self.journal.operations.retain(|kept| kept.command.operation != operation),
            Record::Seen(operation, host, until) => self.journal.seen.push((operation, host, until)),
            Record::Unseen(operation, host) => self.journal.seen.retain(|kept| kept.0 != operation || kept.1 != host),
            Record::Facts(row) => {
                self.journal.facts.retain(|kept| kept.host != row.host);
                self.journal.facts.push(*row);
            }
            Record::Password(change) => {
                self.journal.changes.retain(|kept| kept.host != change.host);
                self.journal.changes.push(*change);
            }
            Record::PasswordEnded(host) => self.journal.changes.retain(|kept| kept.host != host),
            Record::Trim(_) => {}
        }
    }

    /// kill -9: all that was not journalled is gone, requests under way included.
    fn restart(&mut self) {
        self.flying.clear();
        let journal = std::mem::take(&mut self.journal);
        self.journal = Restored {
            generation: journal.generation,
            epoch: journal.epoch,
            assignments: journal.assignments.clone(),
            rows: journal.rows.clone(),
            operations: journal.operations.clone(),
            seen: journal.seen.clone(),
            facts: journal.facts.clone(),
            changes: journal.changes.clone(),
        };
        self.rack = Rack::restore(settings(self.machine_boot), journal, self.now);
        self.apply(Event::Measured(CentreClock { sent: self.now.boottime, at: self.now.wall.into() }));
    }

    /// The machine was switched off and on again within no time, and lost its clock: it is `ahead` of the true time.
    fn reboot(&mut self, ahead: jiff::SignedDuration) {
        self.machine_boot = MachineBoot(uuid::Uuid::from_u128(self.machine_boot.0.as_u128() + 1));
        self.now = Now { boottime: Duration::from_secs(20), wall: self.now.wall.saturating_add(ahead).unwrap() };
        self.restart();
    }

    /// Lets time pass; BMCs answer after 5 ms.
    fn run(&mut self, for_seconds: u64) {
        let end = self.now.boottime + Duration::from_secs(for_seconds);
        while self.now.boottime < end {
            self.apply(Event::Tick);
            self.now = self.now.after(Duration::from_millis(5));
            let answers: Vec<Completion> = std::mem::take(&mut self.flying).into_iter().map(|job| self.answer(&job)).collect();
            if answers.is_empty() {
                let next = self.rack.next_wake().min(end).max(self.now.boottime);
                self.now = self.now.after(next.saturating_sub(self.now.boottime));
            } else {
                self.apply(Event::Completed(answers));
            }
        }
    }

    fn answer(&mut self, job: &Job) -> Completion {
        let bmc = self.bmcs.get_mut(&job.bmc.host).unwrap();
        bmc.asked.push(job.ask);
        if let Some((_, password)) = bmc.late.take_if(|(at, _)| *at <= self.now.boottime) {
            bmc.password = password;
        }
        if bmc.status.is_none() && *job.bmc.password.expose() == bmc.password {
            bmc.in_a_row.clear();
        }
        let code = bmc.code.to_owned();
        let error =
            |class, maybe_sent| DriverError { driver: "ipmi", address: "x".into(), class, code, text: "t".into(), maybe_sent };
        let result = match (job.ask, bmc.status, bmc.order) {
            (Ask::Status | Ask::Inspect | Ask::TryLogin | Ask::SetPassword, Some(class), _) => Err(error(class, false)),
            _ if *job.bmc.password.expose() != bmc.password => {
                password::refuse(bmc, self.now.boottime);
                Err(error(ErrorClass::Auth, false))
            }
            (Ask::TryLogin, None, _) => Ok(Answer::Done),
            (Ask::SetPassword, None, _) => password::set(bmc, job.new_password.as_ref().unwrap(), self.now.boottime, error),
            (Ask::Status, None, _) => Ok(Answer::Reading(bmc.power)),
            (Ask::Inspect, None, _) => match &bmc.facts {
                Some(facts) => Ok(Answer::Facts(Box::new(facts.clone()), bmc.power)),
                None => Err(error(ErrorClass::Protocol, false)),
            },
            (Ask::Identify { .. } | Ask::Bootdev { .. }, _, None) => Ok(Answer::Done),
            (ask, _, Some((ErrorClass::Refused, _))) => {
                let _ = ask;
                Ok(Answer::Power(PowerReply::NotInThisState))
            }
            (_, _, Some((class, maybe_sent))) => Err(error(class, maybe_sent)),
            (ask, _, None) => {
                if !bmc.lazy {
                    bmc.power = match ask {
                        Ask::Off | Ask::Soft => Reading::Off,
                        Ask::Diag => bmc.power,
                        _ => Reading::On,
                    };
                }
                Ok(Answer::Power(PowerReply::Accepted))
            }
        };
        Completion { ticket: job.ticket, begun: self.now.boottime, result }
    }

    fn bmc(&mut self, host: &str) -> &mut Bmc {
        self.bmcs.get_mut(host).unwrap()
    }

    fn command(&self, number: u128, host: &str, action: impl Into<Action>) -> PowerCommand {
        PowerCommand {
            operation: OperationId(uuid::Uuid::from_u128(number)),
            host: id(host),
            action: action.into(),
            on_if_off: false,
            deadline: self.now.after(Duration::from_secs(30)).wall.into(),
            epoch: 1,
            generation: generation(self.counter),
            enablement: 1,
        }
    }

    fn order(&mut self, number: u128, host: &str, action: impl Into<Action>) {
        let command = self.command(number, host, action);
        self.apply(Event::Commanded(Command::Power(command)));
    }

    fn outcomes(&self, number: u128) -> Vec<Outcome> {
        self.reports
            .iter()
            .filter_map(|report| match report {
                Report::Operation(OperationReport { operation, progress: Progress::Done(outcome), .. })
                    if operation.0.as_u128() == number =>
                {
                    Some(outcome.clone())
                }
                _ => None,
            })
            .collect()
    }

    fn changes(&self, host: &str) -> Vec<(PowerState, PowerState, Cause)> {
        let power = |report: &Report| match report {
            Report::Power(change) if change.host.as_str() == host => Some((change.old, change.new, change.cause)),
            _ => None,
        };
        self.reports.iter().filter_map(power).collect()
    }

    fn management(&self, host: &str) -> Vec<Management> {
        let management = |report: &Report| match report {
            Report::Management(change) if change.host.as_str() == host => Some(change.new),
            _ => None,
        };
        self.reports.iter().filter_map(management).collect()
    }

    fn orders(&mut self, host: &str) -> Vec<Ask> {
        self.bmc(host).asked.iter().copied().filter(|ask| !matches!(ask, Ask::Status | Ask::Inspect)).collect()
    }

    fn facts(&self) -> Vec<&FactsReport> {
        self.reports.iter().filter_map(|report| if let Report::Facts(facts) = report { Some(facts) } else { None }).collect()
    }

    fn inspections(&mut self, host: &str) -> usize {
        self.bmc(host).asked.iter().filter(|ask| **ask == Ask::Inspect).count()
    }
}

use PowerState::{Off, On, Unknown};

#[test]
fn a_change_by_hand_is_reported_once() {
    let mut world = World::new(&["h"]);
    world.run(60);
    assert_eq!(world.changes("h"), [(Unknown, On, Cause::Poll)]);
    let polls = world.bmc("h").asked.len();
    assert!((5..=8).contains(&polls), "{polls} polls in a minute at 10 s ± 20 %");
    world.bmc("h").power = Reading::Off;
    world.run(60);
    assert_eq!(world.changes("h")[1..], [(On, Off, Cause::Poll)]);
    world.bmc("h").power = Reading::Transitioning;
    world.run(60);
    assert_eq!(world.changes("h").len(), 2, "between on and off moves nothing");
}

#[test]
fn silence_is_unknown_then_lost_then_the_real_state_again() {
    let mut world = World::new(&["h"]);
    world.run(15);
    world.bmc("h").status = Some(ErrorClass::Connection);
    world.run(13);
    assert_eq!(world.changes("h").last().unwrap().1, Unknown, "within one interval");
    world.run(120);
    assert_eq!(world.management("h"), [Management::Reachable, Management::Degraded, Management::Lost]);
    world.bmc("h").status = None;
    world.bmc("h").power = Reading::Off;
    world.run(20);
    assert_eq!(world.changes("h").last().unwrap(), &(Unknown, Off, Cause::Poll), "within two intervals");
    assert_eq!(world.management("h").last(), Some(&Management::Reachable));
}

#[test]
fn t12_two_refused_logins_pause_for_fifteen_minutes_and_survive_a_restart() {
    let mut world = World::new(&["h"]);
    world.bmc("h").status = Some(ErrorClass::Auth);
    world.run(14 * 60);
    assert_eq!(world.bmc("h").asked.len(), 2);
    assert_eq!(world.management("h"), [Management::Degraded, Management::AuthBlocked]);
    world.order(1, "h", PowerOperation::Off);
    world.run(5);
    assert!(matches!(&world.outcomes(1)[..], [Outcome::Failed(error)] if error.class == ErrorClass::Auth));
    world.restart();
    world.run(30);
    assert_eq!(world.bmc("h").asked.len(), 2, "no login for an operation or after a restart");
    world.run(3 * 60);
    assert_eq!(world.bmc("h").asked.len(), 3, "one try after the pause");
    assert_eq!(world.management("h").len(), 2, "still the same alert");

    // New credentials: a new revision lifts the block at once.
    world.bmc("h").status = None;
    let mut renewed = assignment("h", 1, None);
    renewed.bmc.as_mut().unwrap().revision = 2;
    world.assign(vec![renewed]);
    world.run(3);
    assert_eq!(world.management("h").last(), Some(&Management::Reachable));
    assert_eq!(world.changes("h").last().unwrap().1, On);
}

#[test]
fn operations_end_as_they_should() {
    use PowerOperation as P;
    let reading = |reading| move |bmc: &mut Bmc| bmc.power = reading;
    type Prepare = Box<dyn Fn(&mut Bmc)>;
    let fails = |class, maybe_sent, code| {
        move |bmc: &mut Bmc| {
            bmc.order = Some((class, maybe_sent));
            bmc.code = code;
        }
    };
    let lit = Ask::Identify { seconds: 9 };
    let booted = Ask::Bootdev { device: BootDevice::Pxe, persistence: Persistence::Once };
    let identify = Action::Identify { seconds: 9 };
    let bootdev = Action::Bootdev { device: BootDevice::Pxe, persistence: Persistence::Once };
    let table: Vec<(&str, Prepare, P, &str, Vec<Ask>)> = vec![
        ("on when on", Box::new(reading(Reading::On)), P::On, "unchanged", vec![]),
        ("off when off", Box::new(reading(Reading::Off)), P::Off, "unchanged", vec![]),
        ("soft when off", Box::new(reading(Reading::Off)), P::Soft, "unchanged", vec![]),
        ("off", Box::new(reading(Reading::On)), P::Off, "changed", vec![Ask::Off]),
        ("on", Box::new(reading(Reading::Off)), P::On, "changed", vec![Ask::On]),
        ("soft", Box::new(reading(Reading::On)), P::Soft, "changed", vec![Ask::Soft]),
        ("cycle", Box::new(reading(Reading::On)), P::Cycle, "changed", vec![Ask::Off, Ask::On]),
        ("reset", Box::new(reading(Reading::On)), P::Reset, "changed", vec![Ask::Reset]),
        ("cycle when off", Box::new(reading(Reading::Off)), P::Cycle, "refused", vec![]),
        ("reset when off", Box::new(reading(Reading::Off)), P::Reset, "refused", vec![]),
        ("status", Box::new(reading(Reading::Off)), P::Status, "read", vec![]),
        ("accepted but not done", Box::new(|bmc| bmc.lazy = true), P::Off, "failed", vec![Ask::Off]),
        ("unreachable", Box::new(|bmc| bmc.status = Some(ErrorClass::Connection)), P::Off, "failed", vec![]),
        ("wrong password", Box::new(|bmc| bmc.status = Some(ErrorClass::Auth)), P::Off, "failed", vec![]),
        ("refused by the BMC", Box::new(|bmc| bmc.order = Some((ErrorClass::Refused, false))), P::Off, "failed", vec![Ask::Off]),
        (
            "t02 answer to a reset lost",
            Box::new(|bmc| bmc.order = Some((ErrorClass::Deadline, true))),
            P::Reset,
            "unknown",
            vec![Ask::Reset],
        ),
        (
            "answer to an off lost, not done",
            Box::new(|bmc| bmc.order = Some((ErrorClass::Deadline, true))),
            P::Off,
            "unknown",
            vec![Ask::Off],
        ),
        ("off never sent", Box::new(|bmc| bmc.order = Some((ErrorClass::Connection, false))), P::Off, "failed", vec![Ask::Off]),
        ("stuck between", Box::new(reading(Reading::Transitioning)), P::Status, "unknown", vec![]),
        ("stuck between, off all the same", Box::new(reading(Reading::Transitioning)), P::Off, "changed", vec![Ask::Off]),
    ];
    let others: Vec<(&str, Prepare, Action, &str, Vec<Ask>)> = vec![
        ("diag", Box::new(|_| ()), Action::Diag, "changed", vec![Ask::Diag]),
        ("diag when off", Box::new(reading(Reading::Off)), Action::Diag, "refused", vec![]),
        ("diag between on and off", Box::new(reading(Reading::Transitioning)), Action::Diag, "failed", vec![]),
        ("diag unreachable", Box::new(|bmc| bmc.status = Some(ErrorClass::Connection)), Action::Diag, "failed", vec![]),
        ("diag lost", Box::new(fails(ErrorClass::Deadline, true, "c")), Action::Diag, "unknown", vec![Ask::Diag]),
        ("diag not sent", Box::new(fails(ErrorClass::Connection, false, "c")), Action::Diag, "failed", vec![Ask::Diag]),
        ("diag refused", Box::new(fails(ErrorClass::Refused, false, "c")), Action::Diag, "failed", vec![Ask::Diag]),
        (
            "diag unknown here",
            Box::new(fails(ErrorClass::Protocol, false, NOT_SUPPORTED)),
            Action::Diag,
            "refused",
            vec![Ask::Diag],
        ),
        (
            "soft unknown here",
            Box::new(fails(ErrorClass::Protocol, false, NOT_SUPPORTED)),
            P::Soft.into(),
            "refused",
            vec![Ask::Soft],
        ),
        ("identify", Box::new(|_| ()), identify, "changed", vec![lit]),
        ("identify when off", Box::new(reading(Reading::Off)), identify, "changed", vec![lit]),
        ("identify again", Box::new(fails(ErrorClass::Connection, false, "c")), identify, "failed", vec![lit, lit]),
        ("identify lost", Box::new(fails(ErrorClass::Deadline, true, "c")), identify, "unknown", vec![lit, lit]),
        ("identify garbled", Box::new(fails(ErrorClass::Protocol, false, "c")), identify, "failed", vec![lit]),
        ("bootdev", Box::new(|_| ()), bootdev, "changed", vec![booted]),
        ("bootdev unknown here", Box::new(fails(ErrorClass::Setting, false, NOT_SUPPORTED)), bootdev, "refused", vec![booted]),
        ("test", Box::new(reading(Reading::Off)), Action::Test, "read", vec![]),
        ("test between on and off", Box::new(reading(Reading::Transitioning)), Action::Test, "read", vec![]),
        ("test unreachable", Box::new(|bmc| bmc.status = Some(ErrorClass::Connection)), Action::Test, "failed", vec![]),
    ];
    let powers = table.into_iter().map(|(name, prepare, action, result, orders)| (name, prepare, action.into(), result, orders));
    for (name, prepare, action, result, orders) in powers.chain(others) {
        let mut world = World::new(&["h"]);
        prepare(world.bmc("h"));
        world.order(1, "h", action);
        world.run(40);
        let outcomes = world.outcomes(1);
        assert_eq!(outcomes.len(), 1, "{name}: {outcomes:?}");
        assert_eq!(outcomes[0].as_str(), result, "{name}: {outcomes:?}");
        assert_eq!(world.orders("h"), orders, "{name}");
    }
}

#[test]
fn t19_the_drivers_own_error_is_what_an_operation_fails_with() {
    for action in [Action::Status, Action::Off, Action::Diag, Action::Test] {
        for class in [ErrorClass::Connection, ErrorClass::Auth, ErrorClass::Setting, ErrorClass::Protocol, ErrorClass::Deadline] {
            let mut world = World::new(&["h"]);
            world.run(15);
            world.bmc("h").status = Some(class);
            world.bmc("h").code = "0xc3";
            world.order(1, "h", action);
            world.run(20);
            let error = BmcError { driver: "ipmi".into(), class, code: "0xc3".into(), text: "t".into() };
            assert_eq!(world.outcomes(1), [Outcome::Failed(error)], "{action}");
        }
    }
}

#[test]
fn t11_no_failure_leaves_a_stale_on() {
    use ErrorClass::{Auth, Connection, Deadline, Protocol, Refused, Setting};
    for class in [Connection, Auth, Setting, Refused, Protocol, Deadline] {
        let mut world = World::new(&["h"]);
        world.run(30);
        assert_eq!(world.changes("h").last().unwrap().1, On);
        world.bmc("h").status = Some(class);
        // One interval with its jitter; the driver's own limit is not waited for here.
        world.run(12);
        assert_eq!(world.changes("h").last().unwrap().1, Unknown, "{class:?}");
    }
}

#[test]
fn t20_between_on_and_off_moves_nothing() {
    for (before, state) in [(Reading::On, On), (Reading::Off, Off)] {
        let mut world = World::new(&["h"]);
        world.bmc("h").power = before;
        world.run(15);
        world.bmc("h").power = Reading::Transitioning;
        world.run(120);
        assert_eq!(world.changes("h"), [(Unknown, state, Cause::Poll)]);
        assert_eq!(world.management("h"), [Management::Reachable]);
    }
}

#[test]
fn a_bmc_is_asked_once_what_it_is() {
    let mut world = World::new(&["h"]);
    world.run(9);
    assert_eq!(world.inspections("h"), 0, "the host has more urgent things to tell first");
    world.run(60);
    assert_eq!(world.inspections("h"), 1);
    assert_eq!(world.facts().len(), 1);
    assert_eq!((world.facts()[0].revision, &world.facts()[0].facts.identity), (1, &Some("guid".into())));
    world.run(2 * 24 * 3600);
    world.restart();
    world.run(3600);
    assert_eq!((world.inspections("h"), world.facts().len()), (1, 1), "not again, nor after a restart");
    let polls = world.bmc("h").asked.len();
    world.run(60);
    assert!((5..=8).contains(&(world.bmc("h").asked.len() - polls)));

    // A test asks again; what is measured anew each time is no news, but a test wants it.
    world.bmc("h").facts.as_mut().unwrap().latency_us = Some(9);
    world.order(1, "h", Action::Test);
    world.run(5);
    assert_eq!((world.inspections("h"), world.facts().len()), (2, 2));
    assert_eq!(world.outcomes(1), [Outcome::Read(PowerState::On)]);
    let (facts, done) = (world.reports.iter().rposition(|report| matches!(report, Report::Facts(_))), world.reports.len() - 1);
    assert!(matches!(world.reports[done], Report::Operation(_)) && facts < Some(done), "the result comes last");

    // Lost and back: it may be another machine now. The same is not told again, another is.
    for (identity, told) in [("guid", 2), ("other", 3)] {
        world.bmc("h").status = Some(ErrorClass::Connection);
        world.run(24 * 3600);
        world.bmc("h").status = None;
        world.bmc("h").facts.as_mut().unwrap().identity = Some(identity.into());
        world.run(120);
        assert_eq!(world.facts().len(), told, "{identity}");
    }
    assert_eq!(world.inspections("h"), 4);
    world.apply(Event::Missed);
    assert_eq!(world.facts().len(), 4, "an aggregator that missed reports is told all that is known");

    // New settings: perhaps another BMC.
    let mut renewed = assignment("h", 1, None);
    renewed.bmc.as_mut().unwrap().revision = 2;
    world.assign(vec![renewed]);
    world.run(60);
    assert_eq!((world.inspections("h"), world.facts().last().unwrap().revision), (5, 2));
}

#[test]
fn lost_and_back_again_a_bmc_is_asked_at_most_daily() {
    let mut world = World::new(&["h"]);
    world.run(60);
    for _ in 0..20 {
        world.bmc("h").status = Some(ErrorClass::Connection);
        world.run(120);
        world.bmc("h").status = None;
        world.run(3480);
    }
    assert_eq!(world.inspections("h"), 1);
    world.run(5 * 3600);
    assert_eq!(world.inspections("h"), 2, "what was put off is not forgotten");
}

#[test]
fn a_bmc_that_cannot_say_what_it_is_is_left_alone() {
    let mut world = World::new(&["h"]);
    world.bmc("h").facts = None;
    world.run(24 * 3600);
    let tries = world.inspections("h");
    assert!((20..=24).contains(&tries), "{tries} tries in a day");
    assert_eq!(world.changes("h").len(), 1, "and it harms nothing");
    assert_eq!(world.management("h"), [Management::Reachable]);
    world.bmc("h").code = NOT_SUPPORTED;
    world.run(24 * 3600);
    assert_eq!(world.inspections("h"), tries + 1, "one that never can is not asked again");
}

#[test]
fn the_questions_to_many_bmcs_are_spread() {
    let names: Vec<String> = (0..2000).map(|n| format!("h{n}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut most = 0;
    for _ in 0..70 {
        let before: usize = world.facts().len();
        world.run(1);
        most = most.max(world.facts().len() - before);
    }
    assert_eq!(world.facts().len(), 2000);
    assert!(most <= 100, "{most} within a second");
}

#[test]
fn the_site_and_the_agents_own_file_bound_what_is_in_flight() {
    let names: Vec<String> = (0..20).map(|n| format!("h{n}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let told = |counter, max_in_flight| {
        let version = generation(counter);
        Event::Assigned(Assign::Settings(SiteSettings { version, max_in_flight }))
    };
    let flying = |world: &mut World| {
        world.now = world.now.after(Duration::from_secs(60));
        world.apply(Event::Tick);
        let flying = world.flying.len();
        let answers = std::mem::take(&mut world.flying).iter().map(|job| world.answer(job)).collect();
        world.apply(Event::Completed(answers));
        world.run(5);
        flying
    };
    assert_eq!(flying(&mut world), 8, "the file's");
    world.apply(told(5, 3));
    assert_eq!(flying(&mut world), 3);
    world.apply(told(4, 6));
    assert_eq!(flying(&mut world), 3, "an older version is not obeyed");
    world.apply(told(6, 1000));
    assert_eq!(flying(&mut world), 8, "the file may say less");
    let other = SiteSettings { version: Generation { store: uuid::Uuid::max(), counter: 1 }, max_in_flight: 2 };
    world.apply(Event::Assigned(Assign::Settings(other)));
    assert_eq!(flying(&mut world), 2, "versions of another store do not compare");
}

#[test]
fn over_a_reboot_no_deadline_is_trusted() {
    for ahead in [jiff::SignedDuration::ZERO, jiff::SignedDuration::from_hours(-24), jiff::SignedDuration::from_hours(24)] {
        for (action, lazy, result) in [(Action::Cycle, false, "unknown"), (Action::Off, true, "unknown")] {
            let mut world = World::new(&["h"]);
            world.run(5);
            world.bmc("h").lazy = lazy;
            world.order(1, "h", action);
            world.order(2, "h", Action::Reset);
            world.run(1); // The first was sent off, the second waits.
            world.flying.clear();
            world.reboot(ahead);
            world.run(60);
            assert_eq!(world.orders("h"), [Ask::Off], "{action} {ahead}: nothing more is begun");
            assert_eq!(world.outcomes(1).iter().map(Outcome::as_str).collect::<Vec<_>>(), [result], "{action} {ahead}");
            assert_eq!(world.outcomes(2), [Outcome::Expired]);
        }
    }
    // Within a boot the monotonic clock counts, wherever the other one goes meanwhile.
    let mut world = World::new(&["h"]);
    world.run(5);
    world.order(1, "h", PowerOperation::Cycle);
    world.run(1);
    world.now.wall = world.now.wall.saturating_add(jiff::SignedDuration::from_hours(24)).unwrap();
    world.restart();
    world.run(20);
    assert_eq!(world.outcomes(1), [Outcome::Changed]);
}

#[test]
fn a_pause_of_logins_is_the_same_whatever_the_wall_clock_does() {
    let mut world = World::new(&["h"]);
    world.bmc("h").status = Some(ErrorClass::Auth);
    world.run(60);
    world.now.wall = world.now.wall.saturating_add(jiff::SignedDuration::from_hours(24)).unwrap();
    world.restart();
    world.run(13 * 60);
    assert_eq!(world.bmc("h").asked.len(), 2);
    world.run(3 * 60);
    assert_eq!(world.bmc("h").asked.len(), 3);
}

#[test]
fn a_change_of_ours_names_the_command() {
    let mut world = World::new(&["h"]);
    world.run(5);
    world.order(7, "h", PowerOperation::Off);
    world.run(5);
    let cause = Cause::Command(OperationId(uuid::Uuid::from_u128(7)));
    assert_eq!(world.changes("h"), [(Unknown, On, Cause::Poll), (On, Off, cause)]);
}

#[test]
fn a_command_is_carried_out_once_over_copies_and_restarts() {
    let mut world = World::new(&["h"]);
    world.run(5);
    let command = world.command(1, "h", PowerOperation::Reset);
    for _ in 0..3 {
        world.apply(Event::Commanded(Command::Power(command.clone())));
    }
    world.run(10);
    world.apply(Event::Commanded(Command::Power(command.clone())));
    world.restart();
    world.apply(Event::Commanded(Command::Power(command)));
    world.run(10);
    assert_eq!(world.orders("h"), [Ask::Reset]);
    assert_eq!(world.outcomes(1), [Outcome::Changed]);
}

#[test]
fn killed_with_an_order_under_way_it_is_not_sent_again() {
    for action in [PowerOperation::Reset, PowerOperation::Off, PowerOperation::Cycle, PowerOperation::Diag] {
        let mut world = World::new(&["h"]);
        world.bmc("h").lazy = true;
        world.run(5);
        world.order(1, "h", action);
        // Until the order flies: its phase is journalled before.
        while world.flying.iter().all(|job| job.ask == Ask::Status) {
            let answers = std::mem::take(&mut world.flying).iter().map(|job| world.answer(job)).collect();
            world.apply(Event::Completed(answers));
        }
        world.restart();
        world.run(40);
        assert_eq!(world.orders("h"), [], "{action}: the flying order never reached this BMC, and no second is sent");
        assert!(matches!(&world.outcomes(1)[..], [Outcome::Unknown(_)]), "{action}: {:?}", world.outcomes(1));
    }
}

#[test]
fn killed_between_the_halves_of_a_cycle_it_goes_on() {
    let mut world = World::new(&["h"]);
    world.run(5);
    world.order(1, "h", PowerOperation::Cycle);
    while world.bmc("h").power == Reading::On {
        world.apply(Event::Tick);
        world.now = world.now.after(Duration::from_millis(5));
        let answers = std::mem::take(&mut world.flying).iter().map(|job| world.answer(job)).collect();
        world.apply(Event::Completed(answers));
    }
    world.run(1); // Off is read, the pause begins.
    world.restart();
    world.run(20);
    assert_eq!(world.orders("h"), [Ask::Off, Ask::On]);
    assert_eq!(world.outcomes(1), [Outcome::Changed]);
}

#[test]
fn t13_nothing_late() {
    let mut world = World::new(&["h"]);
    world.run(5);
    let command = world.command(1, "h", PowerOperation::Off);
    world.run(31);
    world.apply(Event::Commanded(Command::Power(command)));
    world.run(10);
    assert_eq!(world.outcomes(1), [Outcome::Expired]);
    assert_eq!(world.orders("h"), []);

    // One that waits behind a slow one expires in the queue.
    world.bmc("h").lazy = true;
    world.order(2, "h", PowerOperation::Off);
    world.order(3, "h", PowerOperation::Reset);
    world.run(60);
    assert_eq!(world.outcomes(3), [Outcome::Expired]);
    assert_eq!(world.orders("h"), [Ask::Off]);
}

#[test]
fn a_command_waits_for_its_assignment_or_its_deadline() {
    let mut world = World::new(&["h"]);
    world.run(5);
    let mut early = world.command(1, "h", PowerOperation::Off);
    early.generation = generation(world.counter + 1);
    world.apply(Event::Commanded(Command::Power(early.clone())));
    world.run(5);
    assert_eq!(world.orders("h"), []);
    world.assign(vec![assignment("h", 1, None)]);
    world.run(5);
    assert_eq!(world.outcomes(1), [Outcome::Changed]);
    let mut never = world.command(2, "h", PowerOperation::On);
    never.generation = generation(99);
    world.apply(Event::Commanded(Command::Power(never)));
    world.run(60);
    assert_eq!(world.outcomes(2), [Outcome::Expired]);
}

#[test]
fn a_command_that_waits_for_an_assignment_of_an_earlier_life_is_done_once_when_it_comes_again() {
    let mut world = World::new(&["h"]);
    world.run(5);
    let again = world.command(1, "h", PowerOperation::Off);
    let mut waiting = again.clone();
    waiting.generation.store = uuid::Uuid::max();
    world.apply(Event::Commanded(Command::Power(waiting)));
    world.apply(Event::Commanded(Command::Power(again)));
    world.run(60);
    assert_eq!(world.outcomes(1), [Outcome::Changed], "and it does not expire as well");
    assert_eq!(world.orders("h"), [Ask::Off]);
}

#[test]
fn what_is_cancelled_before_it_begins_never_begins() {
    let mut world = World::new(&["h"]);
    world.run(5);
    let command = world.command(1, "h", PowerOperation::Off);
    let cancel =
        |number| Event::Commanded(Command::Cancel { operation: OperationId(uuid::Uuid::from_u128(number)), host: id("h") });
    // The cancellation overtakes its command.
    world.apply(cancel(1));
    world.apply(Event::Commanded(Command::Power(command)));
    // One waits for its assignment, one behind another operation, one is under way and cannot be taken back.
    let mut early = world.command(2, "h", PowerOperation::Off);
    early.generation = generation(99);
    world.apply(Event::Commanded(Command::Power(early)));
    world.apply(cancel(2));
    world.order(3, "h", PowerOperation::Status);
    world.order(4, "h", PowerOperation::Off);
    world.apply(cancel(4));
    world.apply(cancel(3));
    world.run(30);
    for number in [1, 2, 4] {
        assert_eq!(world.outcomes(number), [Outcome::Cancelled], "{number}");
    }
    assert_eq!(world.outcomes(3), [Outcome::Read(PowerState::On)]);
    assert_eq!(world.orders("h"), []);
}

#[test]
fn disabling_stops_all_traffic_at_once_and_enabling_starts_at_unknown() {
    let mut world = World::new(&["h"]);
    world.run(15);
    world.order(1, "h", PowerOperation::Soft);
    world.assign(vec![assignment("h", 2, Some(Refusal::ClusterDisabled))]);
    let asked = world.bmc("h").asked.len();
    world.flying.clear();
    world.run(120);
    assert_eq!(world.bmc("h").asked.len(), asked);
    assert_eq!(world.outcomes(1), [Outcome::Refused(Refusal::ClusterDisabled)]);
    world.order(2, "h", PowerOperation::On);
    assert_eq!(world.outcomes(2), [Outcome::Refused(Refusal::ClusterDisabled)]);
    world.assign(vec![assignment("h", 3, None)]);
    world.run(3);
    assert_eq!(world.changes("h"), [(Unknown, On, Cause::Poll), (Unknown, On, Cause::Poll)], "the aggregator records the rest");
}

#[test]
fn cut_off_and_restarted_it_polls_from_its_journal() {
    let mut world = World::new(&["a", "b"]);
    world.run(15);
    world.restart();
    world.bmc("a").power = Reading::Off;
    world.run(15);
    assert_eq!(world.changes("a").last().unwrap(), &(On, Off, Cause::Poll), "from the state it knew, not from Unknown");
    assert_eq!(world.changes("b").len(), 1);
}

#[test]
fn t01_hanging_bmcs_do_not_delay_a_healthy_one() {
    // 7 BMCs of 8 in flight hang for the whole time: their jobs never come back within this test.
    let names: Vec<String> = (0..8).map(|n| format!("h{n}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut answered = 0;
    let end = world.now.boottime + Duration::from_secs(100);
    while world.now.boottime < end {
        world.apply(Event::Tick);
        let (healthy, hung): (Vec<Job>, Vec<Job>) =
            std::mem::take(&mut world.flying).into_iter().partition(|job| job.bmc.host.as_str() == "h0");
        world.flying = hung;
        let answers: Vec<Completion> = healthy.iter().map(|job| world.answer(job)).collect();
        answered += answers.len();
        world.apply(Event::Completed(answers));
        world.now = world.now.after(Duration::from_millis(100));
    }
    assert!((8..=13).contains(&answered), "{answered} polls of the healthy one in 100 s");
}

#[test]
fn hosts_not_read_in_time_are_named_overdue() {
    let mut world = World::new(&["h"]);
    world.run(15);
    assert!(world.heartbeats.last().unwrap().overdue.is_empty());
    world.apply(Event::Tick);
    for _ in 0..60 {
        // Nothing answers and nothing times out: a driver that lost a job.
        world.flying.clear();
        world.now = world.now.after(Duration::from_secs(1));
        world.apply(Event::Tick);
    }
    assert_eq!(world.heartbeats.last().unwrap().overdue, [id("h")]);
}

#[test]
fn more_overdue_hosts_than_a_heartbeat_names_are_named_in_turn() {
    let names: Vec<String> = (0..1200).map(|n| format!("h{n}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for _ in 0..60 {
        world.now = world.now.after(Duration::from_secs(5));
        world.apply(Event::Tick);
    }
    let last: Vec<usize> = world.heartbeats.iter().rev().take(3).map(|pulse| pulse.overdue.len()).collect();
    assert_eq!(last, [MAX_OVERDUE; 3], "full lists: they were cut");
    let named: std::collections::HashSet<HostId> =
        world.heartbeats.iter().rev().take(3).flat_map(|pulse| pulse.overdue.clone()).collect();
    assert_eq!(named.len(), 1200);
}

#[test]
fn an_assignment_without_a_host_removes_it() {
    let mut world = World::new(&["a", "b"]);
    world.run(5);
    world.assign(vec![assignment("a", 1, None)]);
    let asked = world.bmc("b").asked.len();
    world.flying.clear();
    world.run(60);
    assert_eq!(world.bmc("b").asked.len(), asked);
    world.order(1, "b", PowerOperation::Off);
    assert_eq!(world.outcomes(1), [Outcome::Refused(Refusal::NotAssigned)]);
}

#[test]
fn without_a_journal_nothing_is_ordered() {
    let mut world = World::new(&["h"]);
    world.run(5);
    world.rack.set_journal(false);
    world.order(1, "h", PowerOperation::Off);
    world.run(5);
    assert_eq!(world.outcomes(1), [Outcome::Refused(Refusal::JournalUnavailable)]);
    assert_eq!(world.orders("h"), []);
}

#[test]
fn another_bmc_is_not_judged_by_answers_of_the_earlier_one() {
    let mut world = World::new(&["h"]);
    world.run(15);
    // An off is under way at the old address when the host gets another one.
    world.bmc("h").lazy = true;
    world.order(1, "h", PowerOperation::Off);
    while world.flying.iter().all(|job| job.ask == Ask::Status) {
        let answers = std::mem::take(&mut world.flying).iter().map(|job| world.answer(job)).collect();
        world.apply(Event::Completed(answers));
    }
    let mut elsewhere = assignment("h", 1, None);
    let bmc = elsewhere.bmc.as_mut().unwrap();
    bmc.address = "10.0.0.2".into();
    bmc.revision = 2;
    world.assign(vec![elsewhere]);
    assert!(matches!(&world.outcomes(1)[..], [Outcome::Unknown(_)]), "{:?}", world.outcomes(1));
    assert_eq!(world.changes("h").last().unwrap().1, Unknown, "nothing is known of the new BMC");
    world.bmc("h").power = Reading::Off;
    let answers =
        std::mem::take(&mut world.flying).iter().filter(|job| job.ask != Ask::Status).map(|job| world.answer(job)).collect();
    world.apply(Event::Completed(answers));
    assert_eq!(world.changes("h").last().unwrap().1, Unknown, "the old one's answer says nothing");
    world.run(5);
    assert_eq!(world.changes("h").last().unwrap().1, Off);
}

#[test]
fn a_fast_clock_does_not_make_a_command_new_again() {
    let mut world = World::new(&["h"]);
    world.run(5);
    let command = world.command(1, "h", PowerOperation::Reset);
    world.apply(Event::Commanded(Command::Power(command.clone())));
    world.run(10);
    world.now.wall = world.now.wall.saturating_add(jiff::SignedDuration::from_hours(1)).unwrap();
    world.run(10);
    world.apply(Event::Commanded(Command::Power(command)));
    world.run(5);
    assert_eq!(world.orders("h"), [Ask::Reset]);
}

#[test]
fn an_answer_that_comes_after_the_deadline_is_followed_by_no_order() {
    let mut world = World::new(&["h"]);
    world.run(15);
    world.order(1, "h", PowerOperation::Off);
    let reading: Vec<Completion> = std::mem::take(&mut world.flying).iter().map(|job| world.answer(job)).collect();
    // The core stood still until the deadline was over; the answer waits in its inbox.
    world.now = world.now.after(Duration::from_secs(31));
    world.apply(Event::Completed(reading));
    world.run(5);
    assert_eq!(world.orders("h"), []);
    assert!(matches!(&world.outcomes(1)[..], [Outcome::Failed(_)]), "{:?}", world.outcomes(1));
}

#[test]
fn no_text_of_a_bmc_makes_a_report_that_the_wire_refuses() {
    use picket_common::wire::codec::encode;
    use picket_common::wire::report::{Reports, Up};
    let command = World::new(&["h"]).command(1, "h", PowerOperation::Off);
    let operation = Operation::new(command, Moment::at(MachineBoot(uuid::Uuid::nil()), start()));
    let mut decision = Decision::default();
    commands::end(&mut decision, &operation, Outcome::Unknown("ß".repeat(4000)), start());
    let report = decision.records.into_iter().find_map(|record| match record {
        Record::Report(report) => Some(*report),
        _ => None,
    });
    let up = Up::Reports(Reports { boot: Incarnation(uuid::Uuid::nil()), oldest: 1, first: 1, reports: vec![report.unwrap()] });
    assert!(encode(&up).is_ok());
}
