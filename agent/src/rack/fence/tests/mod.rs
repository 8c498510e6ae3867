//! Step by step, as tables; then at random; then a whole rack in virtual time.

mod rack;
mod random;

use std::time::Duration;

use jiff::Timestamp;
use picket_common::clock::Now;
use picket_common::command::ErrorClass;
use picket_common::ha::settings::{HaSettings, Mode};
use picket_common::ha::{By, Evidence, Gate, HaEvent};
use picket_common::wire::ha::Act;

use super::*;

/// What happens, in few words.
#[derive(Debug, Clone, Copy)]
enum In {
    Start,
    Due,
    Overdue,
    Reads(Reading),
    /// A reading begun so many seconds ago.
    Read(Reading, u64),
    Unread(ErrorClass),
    Accepts,
    Refuses,
    /// No answer: it may have arrived.
    Lost,
    /// It did not arrive.
    NotSent(ErrorClass),
    Health(HealthSign),
    /// A health check begun so many seconds ago.
    OldHealth(HealthSign, u64),
    Passes,
    Holds(Gate),
    /// kill -9, and the agent is back.
    Restart,
}
use In::{Accepts, Due, Holds, Lost, NotSent, OldHealth, Overdue, Passes, Read, Reads, Refuses, Restart, Start, Unread};

const ON: In = Reads(Reading::On);
const OFF: In = Reads(Reading::Off);
const BETWEEN: In = Reads(Reading::Transitioning);
const ALIVE: In = In::Health(HealthSign::Alive);
const DEAD: In = In::Health(HealthSign::Dead);
const CANNOT_TELL: In = In::Health(HealthSign::CannotTell);

fn at(milliseconds: u64) -> Now {
    let passed = Duration::from_millis(milliseconds);
    Now { boottime: Duration::from_secs(1000) + passed, wall: Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + passed }
}

fn error(class: ErrorClass, maybe_sent: bool) -> DriverError {
    DriverError { driver: "ipmi", address: "10.0.0.1".into(), class, code: "code".into(), text: "its own words".into(), maybe_sent }
}

fn rules(settings: &HaSettings) -> Rules<'_> {
    Rules { settings, driver: "ipmi", device: "ipmi 10.0.0.1", can_prove: true, is_blocked: false, is_outstanding: false }
}

/// Something that takes steps and is journalled.
trait Steps: serde::Serialize + serde::de::DeserializeOwned {
    fn take(&mut self, input: Input<'_>, now: Now, rules: Rules<'_>) -> Step;
}

impl Steps for Attempt {
    fn take(&mut self, input: Input<'_>, now: Now, rules: Rules<'_>) -> Step {
        self.step(input, now, rules)
    }
}

impl Steps for Recovery {
    fn take(&mut self, input: Input<'_>, now: Now, rules: Rules<'_>) -> Step {
        self.step(input, now, rules)
    }
}

fn restarted<S: Steps>(stepper: &S) -> S {
    postcard::from_bytes(&postcard::to_stdvec(stepper).unwrap()).unwrap()
}

fn step<S: Steps>(stepper: &mut S, what: In, now: Now, rules: Rules<'_>) -> Step {
    let ago = |seconds| now.boottime - Duration::from_secs(seconds);
    let said = "no answer from 10.0.0.2";
    let failure = match what {
        Unread(class) | NotSent(class) => error(class, false),
        _ => error(ErrorClass::Deadline, true),
    };
    let input = match what {
        Start => Input::Start,
        Restart => {
            *stepper = restarted(stepper);
            Input::Start
        }
        Due => Input::Due,
        Overdue => Input::Overdue,
        Reads(reading) => Input::Read { result: Ok(reading), begun: now.boottime },
        Read(reading, seconds) => Input::Read { result: Ok(reading), begun: ago(seconds) },
        Unread(_) => Input::Read { result: Err(&failure), begun: now.boottime },
        Accepts => Input::Ordered(Ok(PowerReply::Accepted)),
        Refuses => Input::Ordered(Ok(PowerReply::NotInThisState)),
        Lost | NotSent(_) => Input::Ordered(Err(&failure)),
        In::Health(sign) => Input::Health(Health { sign, begun: now.boottime, said }),
        OldHealth(sign, seconds) => Input::Health(Health { sign, begun: ago(seconds), said }),
        Passes => Input::Judged(None),
        Holds(gate) => Input::Judged(Some(gate)),
    };
    stepper.take(input, now, rules)
}

fn shown(step: &Step) -> String {
    match step {
        Step::Ask(ask) => format!("{ask:?}"),
        Step::CheckHealth => "health".into(),
        Step::Judge(act) => format!("judge {act:?}"),
        Step::Wait(pause) => format!("wait {}", pause.as_secs_f64()),
        Step::Stay => "stay".into(),
        Step::Ended(end) => {
            let again = end.again.map(|pause| format!(", again in {}", pause.as_secs())).unwrap_or_default();
            format!("{:?}{again}", end.event)
        }
    }
}

/// Plays a script: after so many milliseconds this happens, and that is the step. Gives the last step.
fn play<S: Steps>(stepper: &mut S, rules: Rules<'_>, script: &[(u64, In, &str)]) -> Step {
    let (mut now, mut last) = (0, Step::Stay);
    for (number, (later, what, wanted)) in script.iter().enumerate() {
        now += later;
        last = step(stepper, *what, at(now), rules);
        assert_eq!(shown(&last), *wanted, "line {number}: {what:?}");
    }
    last
}

fn by_policy() -> Attempt {
    Attempt::of_order(By::Policy, vec![])
}

fn by_ann() -> Attempt {
    Attempt::of_order(By::Principal("ann".into()), vec![])
}

/// A policy's fence up to the order.
const ORDERED: [(u64, In, &str); 5] =
    [(0, Start, "Status"), (10, ON, "health"), (0, DEAD, "judge Off"), (0, Passes, "Off"), (200, Accepts, "wait 0.1")];

fn after(first: &[(u64, In, &'static str)], then: &[(u64, In, &'static str)]) -> Vec<(u64, In, &'static str)> {
    [first, then].concat()
}

fn end(step: Step) -> End {
    let Step::Ended(end) = step else { panic!("{step:?}") };
    *end
}

const THREE_OFF: [(u64, In, &str); 6] = [
    (100, Due, "Status"),
    (0, OFF, "wait 2"),
    (2000, Due, "Status"),
    (0, OFF, "wait 2"),
    (2000, Due, "Status"),
    (0, OFF, "health"),
];

#[test]
fn a_host_is_switched_off_and_proven_off() {
    let settings = HaSettings::default();
    let mut attempt = by_policy();
    let last = play(&mut attempt, rules(&settings), &after(&after(&ORDERED, &THREE_OFF), &[(1000, DEAD, "Proven(Readings(3))")]));
    let end = end(last);
    let proof = end.proof.unwrap();
    assert_eq!(end.event, HaEvent::Proven(Evidence::Readings(3)));
    assert_eq!(end.why, "off: it was switched off, read Off 3 times one after another; no answer from 10.0.0.2");
    assert_eq!((proof.off_sent, proof.attempt, proof.health.as_str()), (true, 1, "no answer from 10.0.0.2"));
    assert_eq!(proof.readings.first(), Some(&(at(310).wall.into(), "ipmi 10.0.0.1".to_owned())));
    assert!(attempt.is_counted && attempt.off_possibly_sent && attempt.holds_slot());
}

#[test]
fn t18_off_already_nothing_is_sent() {
    let settings = HaSettings::default();
    for mut attempt in [by_policy(), by_ann()] {
        let last = play(
            &mut attempt,
            rules(&settings),
            &[
                (0, Start, "Status"),
                (0, OFF, "Status"),
                // Begun before step 1 was over: it does not count.
                (1000, Read(Reading::Off, 2), "wait 0.1"),
                (0, Due, "Status"),
                (0, OFF, "wait 2"),
                (2000, OFF, "wait 2"),
                (2000, OFF, "health"),
                (0, CANNOT_TELL, "judge Proof"),
                (0, Passes, "Proven(Readings(3))"),
            ],
        );
        assert!(!attempt.off_possibly_sent && !attempt.is_counted && !end(last).proof.unwrap().off_sent);
    }
}

#[test]
fn an_off_that_is_refused_as_already_there_is_read() {
    let settings = HaSettings::default();
    let refused = [(0, Start, "Status"), (0, ON, "health"), (0, DEAD, "judge Off"), (0, Passes, "Off"), (0, Refuses, "Status")];
    let proven = [(0, OFF, "wait 2"), (2000, OFF, "wait 2"), (2000, OFF, "health"), (0, DEAD, "Proven(Readings(3))")];
    let end_ = end(play(&mut by_policy(), rules(&settings), &after(&refused, &proven)));
    assert_eq!(end_.error, None, "what was refused on the way is over");
    let failed = [(0, BETWEEN, "wait 0.1"), (0, ON, "AttemptFailed, again in 10")];
    let failed = end(play(&mut by_policy(), rules(&settings), &after(&refused, &failed)));
    assert!(failed.why.contains("the BMC refused to switch off, and the host reads On"), "{}", failed.why);
}

#[test]
fn an_answer_that_was_lost_is_read_and_one_that_was_never_sent_is_an_end() {
    let settings = HaSettings::default();
    let start = [(0, Start, "Status"), (0, ON, "health"), (0, DEAD, "judge Off"), (0, Passes, "Off")];
    let lost = after(&after(&start, &[(0, Lost, "wait 0.1")]), &THREE_OFF);
    play(&mut by_policy(), rules(&settings), &after(&lost, &[(0, DEAD, "Proven(Readings(3))")]));
    let mut attempt = by_policy();
    let end = end(play(
        &mut attempt,
        rules(&settings),
        &after(&start, &[(0, NotSent(ErrorClass::Setting), "AttemptFailed, again in 10")]),
    ));
    assert_eq!(end.error.as_ref().map(|error| error.text.as_str()), Some("its own words"));
    assert!(end.why.contains("its own words"), "{}", end.why);
    assert!((attempt.number, attempt.off_possibly_sent, attempt.holds_slot()) == (2, true, false));
}

#[test]
fn an_unreadable_bmc_does_not_stop_an_attempt_but_a_refused_login_does() {
    let settings = HaSettings::default();
    for class in [ErrorClass::Deadline, ErrorClass::Connection, ErrorClass::Protocol, ErrorClass::Refused] {
        play(&mut by_policy(), rules(&settings), &[(0, Start, "Status"), (0, Unread(class), "health")]);
        play(&mut by_ann(), rules(&settings), &[(0, Start, "Status"), (0, Unread(class), "judge Off")]);
    }
    let auth = [(0, Start, "Status"), (0, Unread(ErrorClass::Auth), "AttemptFailed, again in 10")];
    play(&mut by_ann(), rules(&settings), &auth);
    let blocked = Rules { is_blocked: true, ..rules(&settings) };
    let paused = end(play(&mut by_policy(), blocked, &[(0, Start, "AttemptFailed, again in 10")]));
    assert!(paused.why.contains("logins are paused"), "{}", paused.why);
    // Blocked by what was read just before.
    let mut attempt = by_ann();
    play(&mut attempt, rules(&settings), &[(0, Start, "Status"), (0, ON, "judge Off")]);
    assert_eq!(shown(&step(&mut attempt, Passes, at(0), blocked)), "AttemptFailed, again in 10");
    assert!(!attempt.off_possibly_sent);
}

#[test]
fn t24_a_host_that_heals_while_its_fence_waits_is_left_alone() {
    let settings = HaSettings::default();
    let well = "HealthPassed";
    for script in [
        &[(0, Start, "Status"), (0, ON, "health"), (0, ALIVE, well)][..],
        &[(0, Start, "Status"), (0, ALIVE, well)],
        &[(0, Start, "Status"), (0, ON, "health"), (0, DEAD, "judge Off"), (0, Holds(Gate::Cap), "wait 10"), (5000, ALIVE, well)],
        &[
            (0, Start, "Status"),
            (0, ON, "health"),
            (0, DEAD, "judge Off"),
            (0, Holds(Gate::Cap), "wait 10"),
            (10_000, Due, "Status"),
            (0, ON, "health"),
            (0, ALIVE, well),
        ],
    ] {
        let mut attempt = by_policy();
        play(&mut attempt, rules(&settings), script);
        assert!(!attempt.off_possibly_sent && attempt.number == 1);
    }
    // Between two attempts; what was begun before the first one failed says nothing of what came after.
    let failed = [(100, Due, "Status"), (0, ON, "wait 0.1"), (60_000, Due, "AttemptFailed, again in 10")];
    let mut attempt = by_policy();
    let script = after(&after(&ORDERED, &failed), &[(2000, OldHealth(HealthSign::Alive, 3), "stay"), (0, ALIVE, well)]);
    let end = end(play(&mut attempt, rules(&settings), &script));
    assert!(attempt.off_possibly_sent && end.why.contains("possibly sent"), "{}", end.why);
}

#[test]
fn a_principal_fences_a_host_that_looks_well_but_nobody_one_that_answers_while_it_reads_off() {
    let settings = HaSettings::default();
    let mut ann = by_ann();
    let ordered = [(0, Start, "Status"), (0, ALIVE, "stay"), (0, ON, "judge Off"), (0, Passes, "Off"), (0, Accepts, "wait 0.1")];
    let alive = [(0, ALIVE, "Contradicted")];
    let end_ = end(play(&mut ann, rules(&settings), &after(&after(&ordered, &THREE_OFF), &alive)));
    assert_eq!(end_.proof.unwrap().readings.len(), 3, "the readings are told all the same");
    play(&mut by_policy(), rules(&settings), &after(&after(&ORDERED, &THREE_OFF), &alive));
    // At once, not only at the end; a check begun before the Off says nothing.
    let early =
        [(100, Due, "Status"), (0, OFF, "wait 2"), (500, OldHealth(HealthSign::Alive, 1), "stay"), (0, ALIVE, "Contradicted")];
    play(&mut by_policy(), rules(&settings), &after(&ORDERED, &early));
    // While the off takes effect the host may still answer.
    play(&mut by_policy(), rules(&settings), &after(&ORDERED, &[(50, ALIVE, "stay"), (50, Due, "Status"), (0, OFF, "wait 2")]));
}

#[test]
fn on_and_transitioning_start_the_count_again_and_failures_do_not() {
    let settings = HaSettings::default();
    for between in [ON, BETWEEN] {
        let script = [
            (100, Due, "Status"),
            (0, OFF, "wait 2"),
            (2000, OFF, "wait 2"),
            (2000, between, "wait 1"),
            (1000, OFF, "wait 2"),
            (2000, OFF, "wait 2"),
            (2000, OFF, "health"),
        ];
        play(&mut by_policy(), rules(&settings), &after(&ORDERED, &script));
    }
    let failures = [
        (100, Due, "Status"),
        (0, OFF, "wait 2"),
        (2000, OFF, "wait 2"),
        (2000, Unread(ErrorClass::Deadline), "wait 1"),
        (1000, Unread(ErrorClass::Protocol), "wait 1"),
        (1000, OFF, "health"),
        (0, DEAD, "Proven(Readings(3))"),
    ];
    play(&mut by_policy(), rules(&settings), &after(&ORDERED, &failures));
}

#[test]
fn redfish_is_read_more_slowly() {
    let settings = HaSettings::default();
    let redfish = Rules { driver: "redfish", ..rules(&settings) };
    play(&mut by_policy(), redfish, &after(&ORDERED, &[(100, Due, "Status"), (0, OFF, "wait 5"), (2000, OFF, "wait 3")]));
}

#[test]
fn t14_no_answer_is_no_proof_and_ten_attempts_later_people_know() {
    let settings = HaSettings::default();
    let mut attempt = by_policy();
    for number in 1..=12_u16 {
        assert_eq!((attempt.number, attempt.is_unconfirmed(&settings)), (number, number > 10));
        let again = if number < 10 { "AttemptFailed, again in 10" } else { "AttemptFailed, again in 300" };
        let script = [
            (0, if number == 1 { Start } else { Due }, "Status"),
            (0, Unread(ErrorClass::Deadline), "health"),
            (0, DEAD, "judge Off"),
            (0, Passes, "Off"),
            (0, Lost, "wait 0.1"),
            (30_000, Unread(ErrorClass::Deadline), "wait 1"),
            (30_000, Unread(ErrorClass::Deadline), again),
        ];
        let end = end(play(&mut attempt, rules(&settings), &script));
        assert!(end.error.is_some() && end.why.starts_with(&format!("attempt {number} failed")), "{}", end.why);
        // T10: the count survives.
        attempt = restarted(&attempt);
    }
    attempt.reset_counters();
    assert!(!attempt.is_unconfirmed(&settings) && attempt.off_possibly_sent);
}

#[test]
fn killed_with_the_off_on_its_way_it_reads_first() {
    let settings = HaSettings::default();
    let mut attempt = by_policy();
    play(
        &mut attempt,
        rules(&settings),
        &[
            (0, Start, "Status"),
            (0, ON, "health"),
            (0, DEAD, "judge Off"),
            (0, Passes, "Off"),
            (500, Restart, "Status"),
            (0, OFF, "Status"),
            (0, OFF, "wait 2"),
            (2000, Restart, "Status"),
            (0, OFF, "Status"),
            (0, OFF, "wait 2"),
            (2000, OFF, "wait 2"),
            (2000, OFF, "health"),
            (0, Restart, "Status"),
            // It is not off after all: the same attempt sends again, the gates having been asked again.
            (0, ON, "health"),
            (0, DEAD, "judge Off"),
            (0, Passes, "Off"),
        ],
    );
    assert!(attempt.off_possibly_sent && attempt.is_counted && attempt.number == 1);
}

#[test]
fn gates_answer_for_this_instant_only() {
    let settings = HaSettings::default();
    play(
        &mut by_ann(),
        rules(&settings),
        &[(0, Start, "Status"), (0, ON, "judge Off"), (1, Passes, "judge Off"), (0, Passes, "Off")],
    );
    // And a health check for the moment in which it was asked for.
    play(
        &mut by_policy(),
        rules(&settings),
        &[(0, Start, "Status"), (5000, ON, "health"), (100, OldHealth(HealthSign::Dead, 1), "stay"), (0, DEAD, "judge Off")],
    );
}

#[test]
fn off_already_with_a_cycle_outstanding_is_no_reason_to_send_nothing() {
    let settings = HaSettings::default();
    let cycling = Rules { is_outstanding: true, ..rules(&settings) };
    play(&mut by_policy(), cycling, &[(0, Start, "Status"), (0, OFF, "health"), (0, DEAD, "judge Off"), (0, Passes, "Off")]);
}

#[test]
fn an_off_seen_while_it_waits_ends_the_waiting() {
    let settings = HaSettings::default();
    let held = [(0, Start, "Status"), (0, ON, "health"), (0, DEAD, "judge Off"), (0, Holds(Gate::Storm), "wait 10")];
    let mut attempt = by_policy();
    play(
        &mut attempt,
        rules(&settings),
        &after(&held, &[(3000, ON, "stay"), (0, Unread(ErrorClass::Deadline), "stay"), (0, OFF, "Status")]),
    );
    assert!(!attempt.off_possibly_sent);
}

#[test]
fn observing_sends_nothing() {
    let settings = HaSettings { mode: Mode::Observe, ..HaSettings::default() };
    let mut attempt = by_policy();
    let script =
        [(0, Start, "Status"), (0, ON, "health"), (0, DEAD, "judge Off"), (0, Passes, "wait 300"), (300_000, Due, "Status")];
    play(&mut attempt, rules(&settings), &script);
    assert!(!attempt.off_possibly_sent && !attempt.is_counted);
    let mut recovery = Recovery::new(1);
    play(
        &mut recovery,
        rules(&settings),
        &[(0, Start, "Status"), (0, ON, "health"), (0, DEAD, "judge Reset"), (0, Passes, "stay")],
    );
    assert_eq!(recovery.sent, None);
}

#[test]
fn a_driver_that_cannot_prove_never_does() {
    let settings = HaSettings::default();
    let blind = Rules { can_prove: false, ..rules(&settings) };
    let ordered = [(0, Start, "Status"), (0, ON, "judge Off"), (0, Passes, "Off"), (0, Accepts, "wait 0.1")];
    let script = after(&after(&ordered, &THREE_OFF), &[(0, DEAD, "AttemptFailed, again in 10")]);
    assert!(end(play(&mut by_ann(), blind, &script)).why.contains("cannot prove"));
}

#[test]
fn what_was_asked_for_and_never_came_ends_the_attempt() {
    let settings = HaSettings::default();
    for length in 1..=4 {
        let script = after(&ORDERED[..length], &[(0, Overdue, "AttemptFailed, again in 10")]);
        play(&mut by_policy(), rules(&settings), &script);
    }
}

/// The readings of an Off that nobody ordered, begun at 0 s, 10 s, 20 s and 30 s.
fn seen() -> Offs {
    let mut seen = OffSeen::default();
    let seen_rules = SeenRules::of(&HaSettings::default(), "ipmi");
    for second in [0, 10, 20, 30] {
        seen.read(Reading::Off, at(second * 1000).boottime, at(second * 1000), seen_rules);
    }
    let dead = Health { sign: HealthSign::Dead, begun: at(30_000).boottime, said: "no answer from 10.0.0.2" };
    let Sight::Confirmed(offs) = seen.health(dead, seen_rules) else { panic!() };
    offs
}

#[test]
fn a_proof_asks_the_gates_and_sends_nothing() {
    let settings = HaSettings::default();
    let mut attempt = Attempt::of_proof(seen());
    let last = play(&mut attempt, rules(&settings), &[(31_000, Start, "judge Proof"), (0, Passes, "Proven(Readings(4))")]);
    let end = end(last);
    assert_eq!(end.why, "off: nobody ordered it, read Off 4 times one after another; no answer from 10.0.0.2");
    assert!(!end.proof.unwrap().off_sent);

    let held = [
        (31_000, Start, "judge Proof"),
        (0, Holds(Gate::Identity), "wait 10"),
        (3000, OFF, "stay"),
        (7000, Due, "Status"),
        (0, OFF, "judge Proof"),
        (0, Passes, "Proven(Readings(6))"),
    ];
    play(&mut Attempt::of_proof(seen()), rules(&settings), &held);
    // Killed, it counts anew.
    let anew = [
        (31_000, Restart, "Status"),
        (0, OFF, "wait 2"),
        (2000, OFF, "wait 2"),
        (2000, OFF, "health"),
        (0, DEAD, "judge Proof"),
        (0, Passes, "Proven(Readings(3))"),
    ];
    play(&mut Attempt::of_proof(seen()), rules(&settings), &anew);
}

#[test]
fn t23_a_proof_is_vetoed_by_any_other_reading_and_by_a_living_host() {
    let settings = HaSettings::default();
    let held = [(31_000, Start, "judge Proof"), (0, Holds(Gate::Identity), "wait 10")];
    for veto in [ON, BETWEEN, ALIVE] {
        play(&mut Attempt::of_proof(seen()), rules(&settings), &after(&held, &[(5000, veto, "Contradicted")]));
        let script = after(&held, &[(10_000, Due, "Status"), (0, veto, "Contradicted")]);
        play(&mut Attempt::of_proof(seen()), rules(&settings), &script);
        play(&mut Attempt::of_proof(Offs::default()), rules(&settings), &[(0, Start, "Status"), (0, veto, "Contradicted")]);
    }
    // A BMC that falls silent proves nothing more; the attempt ends, nothing is sent.
    let silent = [(0, Start, "Status"), (60_000, Unread(ErrorClass::Deadline), "AttemptFailed, again in 10")];
    play(&mut Attempt::of_proof(Offs::default()), rules(&settings), &silent);
}

#[test]
fn somebody_takes_a_fence_over() {
    let settings = HaSettings::default();
    let mut attempt = by_policy();
    let held = [(0, Start, "Status"), (0, ON, "health"), (0, DEAD, "judge Off"), (0, Holds(Gate::Storm), "wait 10")];
    play(&mut attempt, rules(&settings), &held);
    attempt.taken_over("ann".into(), vec![Gate::Storm]);
    assert_eq!((attempt.principal(), attempt.overrides.as_slice()), (Some(&"ann".to_owned()), &[Gate::Storm][..]));
    play(&mut attempt, rules(&settings), &[(0, Start, "Status"), (0, ALIVE, "stay"), (0, ON, "judge Off"), (0, Passes, "Off")]);
}

// ---- recovery ----

const RESET: [(u64, In, &str); 4] = [(0, Start, "Status"), (0, ON, "health"), (0, DEAD, "judge Reset"), (0, Passes, "Reset")];

#[test]
fn t02_a_slow_bmc_gets_exactly_one_reset() {
    let settings = HaSettings::default();
    for answer in [Accepts, Lost] {
        let mut recovery = Recovery::new(1);
        let script = [(10_000, answer, "stay"), (0, Due, "stay"), (0, ON, "stay"), (20_000, Due, "stay"), (0, Overdue, "stay")];
        play(&mut recovery, rules(&settings), &after(&RESET, &script));
        assert_eq!((recovery.stage, recovery.sent), (Stage::Sent, Some(at(0).wall.into())));
        // Killed before or after the answer: as if sent.
        play(&mut recovery, rules(&settings), &[(0, Restart, "stay"), (0, Passes, "stay"), (0, Due, "stay")]);
    }
    let mut recovery = Recovery::new(1);
    play(&mut recovery, rules(&settings), &after(&RESET, &[(0, Restart, "stay"), (0, ON, "stay"), (0, DEAD, "stay")]));
    assert!(recovery.is_sent() && !recovery.holds_slot());
}

#[test]
fn t16_recovered_takes_a_health_check_begun_after_the_reset() {
    let settings = HaSettings::default();
    let script = [
        (500, ALIVE, "stay"),
        (500, Accepts, "stay"),
        (1000, OldHealth(HealthSign::Alive, 2), "stay"),
        (1000, DEAD, "stay"),
        (60_000, ALIVE, "HealthPassed"),
    ];
    play(&mut Recovery::new(1), rules(&settings), &after(&RESET, &script));
}

#[test]
fn what_is_off_or_well_or_held_is_not_reset() {
    let settings = HaSettings::default();
    for (script, stage) in [
        (
            &[(0, Start, "Status"), (0, OFF, "wait 2"), (2000, Due, "Status"), (0, BETWEEN, "wait 2")][..],
            Stage::Reading { tries: 0 },
        ),
        (&[(0, Start, "Status"), (0, ON, "health"), (0, ALIVE, "HealthPassed")], Stage::Vetting),
        (&[(0, Start, "Status"), (0, ON, "health"), (0, DEAD, "judge Reset"), (1, Passes, "judge Reset")], Stage::Judging),
        (
            &[
                (0, Start, "Status"),
                (0, ON, "health"),
                (0, CANNOT_TELL, "judge Reset"),
                (0, Holds(Gate::Evidence), "wait 10"),
                (10_000, Due, "Status"),
            ],
            Stage::Reading { tries: 0 },
        ),
    ] {
        let mut recovery = Recovery::new(1);
        play(&mut recovery, rules(&settings), script);
        assert_eq!((recovery.stage, recovery.sent), (stage, None));
    }
}

#[test]
fn a_reset_that_cannot_be_is_the_end_of_the_attempt() {
    let settings = HaSettings::default();
    for script in [
        &[(0, Start, "Status"), (0, Unread(ErrorClass::Auth), "Overdue")][..],
        &after(&RESET, &[(0, Refuses, "Overdue")]),
        &after(&RESET, &[(0, NotSent(ErrorClass::Refused), "Overdue")]),
    ] {
        let end = end(play(&mut Recovery::new(1), rules(&settings), script));
        assert!(end.error.is_some() && end.why.starts_with("recovery attempt 1 ended"), "{}", end.why);
    }
    let blocked = Rules { is_blocked: true, ..rules(&settings) };
    play(&mut Recovery::new(1), blocked, &[(0, Start, "Overdue")]);
    // Neither does one that never reads On wait for ever.
    let mut recovery = Recovery::new(1);
    play(&mut recovery, rules(&settings), &[(0, Start, "Status")]);
    let off: Vec<(u64, In, &str)> = (0..59).flat_map(|_| [(0, BETWEEN, "wait 2"), (2000, Due, "Status")]).collect();
    play(&mut recovery, rules(&settings), &after(&off, &[(0, OFF, "Overdue")]));
    // A BMC that does not say may still take orders.
    let unread = (0, Unread(ErrorClass::Deadline), "wait 2");
    play(
        &mut Recovery::new(1),
        rules(&settings),
        &[(0, Start, "Status"), unread, (2000, Due, "Status"), (0, Unread(ErrorClass::Deadline), "health")],
    );
}
