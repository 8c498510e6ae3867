//! The rack in virtual time, with BMCs that are two lines of code each.

use std::collections::HashMap;

use picket_common::command::Action;
use picket_common::command::Outcome;
use picket_common::power::{PowerOperation, PowerState};
use picket_common::wire::assign::{BmcAssignment, Part};
use picket_common::wire::report::{OperationReport, Progress};

use super::*;

/// A BMC of the test.
#[derive(Clone)]
struct Bmc {
    power: Reading,
    /// Status requests fail like this.
    status: Option<ErrorClass>,
    /// Orders fail like this; `true` = it may have arrived.
    order: Option<(ErrorClass, bool)>,
    /// Orders are accepted and do nothing.
    lazy: bool,
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
}

fn settings() -> Settings {
    Settings { boot: Incarnation(uuid::Uuid::nil()), sealing_key: Secret::new([1; 32]), max_in_flight: 8, seed: 42 }
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
        let bmc = Bmc { power: Reading::On, status: None, order: None, lazy: false, asked: vec![] };
        let mut world = Self {
            rack: Rack::restore(settings(), Restored::default(), now),
            now,
            bmcs: hosts.iter().map(|host| (id(host), bmc.clone())).collect(),
            flying: vec![],
            reports: vec![],
            journal: Restored::default(),
            heartbeats: vec![],
            counter: 0,
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
            Record::Remove(host) => self.journal.assignments.retain(|kept| kept.host != host),
            Record::Generation(generation, epoch) => (self.journal.generation, self.journal.epoch) = (generation, epoch),
            Record::Operation(operation) => {
                self.journal.operations.retain(|kept| kept.command.operation != operation.command.operation);
                self.journal.operations.push(operation);
            }
            Record::OperationEnded(operation, _) => self.journal.operations.retain(|kept| kept.command.operation != operation),
            Record::Seen(operation, host, until) => self.journal.seen.push((operation, host, until)),
            Record::Unseen(operation, host) => self.journal.seen.retain(|kept| kept.0 != operation || kept.1 != host),
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
        };
        self.rack = Rack::restore(settings(), journal, self.now);
        self.apply(Event::Measured(CentreClock { sent: self.now.boottime, at: self.now.wall.into() }));
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
        let error = |class, maybe_sent| DriverError {
            driver: "ipmi",
            address: "x".into(),
            class,
            code: "c".into(),
            text: "t".into(),
            maybe_sent,
        };
        let result = match (job.ask, bmc.status, bmc.order) {
            (Ask::Status, Some(class), _) => Err(error(class, false)),
            (Ask::Status, None, _) => Ok(Answer::Reading(bmc.power)),
            (ask, _, Some((ErrorClass::Refused, _))) => {
                let _ = ask;
                Ok(Answer::Power(PowerReply::NotInThisState))
            }
            (_, _, Some((class, maybe_sent))) => Err(error(class, maybe_sent)),
            (ask, _, None) => {
                if !bmc.lazy {
                    bmc.power = match ask {
                        Ask::Off | Ask::Soft => Reading::Off,
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

    fn order(&mut self, number: u128, host: &str, action: PowerOperation) {
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
        self.bmc(host).asked.iter().copied().filter(|ask| *ask != Ask::Status).collect()
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
    for (name, prepare, action, result, orders) in table {
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
    for action in [PowerOperation::Reset, PowerOperation::Off, PowerOperation::Cycle] {
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
    let operation = Operation {
        command: World::new(&["h"]).command(1, "h", PowerOperation::Off),
        deadline_wall: Time(0),
        phase: Phase::Queued,
        deadline: Duration::ZERO,
        ordered_at: Duration::ZERO,
        last_seen: None,
        last_error: None,
    };
    let mut decision = Decision::default();
    commands::end(&mut decision, &operation, Outcome::Unknown("ß".repeat(4000)), start());
    let report = decision.records.into_iter().find_map(|record| match record {
        Record::Report(report) => Some(*report),
        _ => None,
    });
    let up = Up::Reports(Reports { boot: Incarnation(uuid::Uuid::nil()), oldest: 1, first: 1, reports: vec![report.unwrap()] });
    assert!(encode(&up).is_ok());
}
