//! Whatever happens, in whatever order.

use proptest::prelude::*;

use super::*;

/// What must hold, tracked beside the stepper.
#[derive(Default)]
struct Witness {
    /// Off readings one after another: when begun, when heard.
    offs: Vec<(Duration, Duration)>,
    /// Health checks that ended: when begun, what they said.
    checks: Vec<(Duration, HealthSign)>,
    /// When the last order was answered; `None` while it is on its way.
    ordered_at: Option<Duration>,
    /// When a health check was asked for, and what one begun since said.
    asked_health: Duration,
    fresh: Option<HealthSign>,
    /// When the gates were asked, about what.
    asked_gates: Option<(Duration, Act)>,
    resets: u32,
    proven: u32,
}

impl Witness {
    fn before(&mut self, what: In, input: &Input<'_>, now: Now) {
        match input {
            Input::Read { result: Ok(Reading::Off), begun } => self.offs.push((*begun, now.boottime)),
            Input::Read { result: Ok(Reading::On | Reading::Transitioning), .. } => self.offs.clear(),
            // Its answer, or nobody waits for it any more.
            Input::Ordered(_) | Input::Start | Input::Overdue => self.ordered_at = self.ordered_at.or(Some(now.boottime)),
            Input::Health(health) => {
                if health.begun >= self.asked_health {
                    self.fresh = Some(health.sign);
                }
                self.checks.push((health.begun, health.sign));
            }
            _ => {}
        }
        if matches!(what, Restart) {
            self.offs.clear();
            self.checks.clear();
        }
    }

    fn after(&mut self, step: &Step, input: &Input<'_>, way: Option<&Attempt>, now: Now) -> Result<(), TestCaseError> {
        match step {
            Step::CheckHealth => (self.asked_health, self.fresh) = (now.boottime, None),
            Step::Judge(act) => self.asked_gates = Some((now.boottime, *act)),
            Step::Ask(ask @ (Ask::Off | Ask::Reset)) => {
                let act = if *ask == Ask::Off { Act::Off } else { Act::Reset };
                prop_assert!(matches!(input, Input::Judged(None)), "sent after {:?}", input);
                prop_assert_eq!(self.asked_gates, Some((now.boottime, act)), "of another instant");
                let automatic = way.is_none_or(|attempt| attempt.principal().is_none());
                prop_assert!(
                    !automatic || self.fresh.is_some_and(|sign| sign != HealthSign::Alive),
                    "not looked at: {:?}",
                    self.fresh
                );
                prop_assert!(way.is_none_or(|attempt| attempt.way != picket_common::ha::Way::Proof), "a proof sends");
                (self.fresh, self.ordered_at) = (None, None);
                self.resets += u32::from(*ask == Ask::Reset);
            }
            Step::Ended(end) => {
                if let (HaEvent::Proven(evidence), Some(proof)) = (&end.event, &end.proof) {
                    self.proven += 1;
                    prop_assert_eq!(evidence, &Evidence::Readings(u8::try_from(proof.readings.len()).unwrap()));
                    self.judge_proof(proof)?;
                }
            }
            Step::Ask(_) | Step::Wait(_) | Step::Stay => {}
        }
        Ok(())
    }

    fn judge_proof(&self, proof: &Proof) -> Result<(), TestCaseError> {
        let since_start = |time: picket_common::wire::Time| {
            Duration::from_micros(u64::try_from(time.0 - picket_common::wire::Time::from(at(0).wall).0).unwrap())
        };
        let begun: Vec<Duration> = proof.readings.iter().map(|(time, _)| at(0).boottime + since_start(*time)).collect();
        prop_assert!(begun.len() >= 3, "{:?}", begun);
        prop_assert!(begun.windows(2).all(|pair| pair[1] >= pair[0] + Duration::from_secs(2)), "too close: {:?}", begun);
        prop_assert!(begun.iter().all(|begun| self.offs.iter().any(|off| off.0 == *begun)), "never read, or On since: {:?}", begun);
        prop_assert!(!proof.off_sent || self.ordered_at.is_none_or(|ordered| begun[0] >= ordered), "older than the order");
        let heard = self.offs.iter().find(|off| off.0 == begun[0]).unwrap().1;
        let after: Vec<HealthSign> = self.checks.iter().filter(|check| check.0 >= heard).map(|check| check.1).collect();
        prop_assert!(!after.is_empty() && !after.contains(&HealthSign::Alive), "{:?}", after);
        Ok(())
    }
}

/// What whoever drives it would do next, or something else.
fn next_input(step: &Step, choice: u8, value: u8) -> In {
    let sign = [HealthSign::Dead, HealthSign::Dead, HealthSign::CannotTell, HealthSign::Alive][usize::from(value % 4)];
    let gate = if value.is_multiple_of(3) { Holds(Gate::Cap) } else { Passes };
    let read = [OFF, OFF, OFF, OFF, ON, BETWEEN, Unread(ErrorClass::Deadline), Unread(ErrorClass::Auth)][usize::from(value % 8)];
    let answer = [Accepts, Accepts, Refuses, Lost, NotSent(ErrorClass::Protocol)][usize::from(value % 5)];
    if choice < 200 {
        return match step {
            Step::Ask(Ask::Status) => read,
            Step::Ask(_) => answer,
            Step::CheckHealth => In::Health(sign),
            Step::Judge(_) => gate,
            Step::Wait(_) | Step::Ended(_) => Due,
            Step::Stay => read,
        };
    }
    let old = u64::from(value % 16);
    match choice % 11 {
        0 => Due,
        1 => Overdue,
        2 => read,
        3 => Read([Reading::Off, Reading::On][usize::from(value % 2)], old),
        4 => answer,
        5 => In::Health(sign),
        6 => OldHealth(sign, old),
        7 => gate,
        8 => Restart,
        9 => Start,
        _ => Unread(ErrorClass::Connection),
    }
}

fn any_moves() -> impl Strategy<Value = Vec<(u8, u8, u16)>> {
    prop::collection::vec((any::<u8>(), any::<u8>(), 0_u16..4000), 1..200)
}

fn run<S: Steps>(
    stepper: &mut S,
    moves: Vec<(u8, u8, u16)>,
    rules: Rules<'_>,
    way: impl Fn(&S) -> Option<&Attempt>,
) -> Result<Witness, TestCaseError> {
    let mut witness = Witness::default();
    let mut now = 60_000;
    let mut last = step(stepper, Start, at(now), rules);
    for (choice, value, later) in moves {
        let what = next_input(&last, choice, value);
        // Gates are answered in the same instant, most of the time.
        if !(matches!(last, Step::Judge(_)) && choice < 200) {
            now += u64::from(later);
        }
        let now = at(now);
        let failure = error(ErrorClass::Deadline, true);
        let input = simple(what, now, &failure);
        witness.before(what, &input, now);
        last = step(stepper, what, now, rules);
        witness.after(&last, &input, way(stepper), now)?;
        if let Step::Ended(end) = &last
            && end.again.is_none()
        {
            break;
        }
    }
    Ok(witness)
}

/// The same input for the witness; which failure it is does not matter to it.
fn simple(what: In, now: Now, failure: &DriverError) -> Input<'_> {
    let ago = |seconds| now.boottime - Duration::from_secs(seconds);
    match what {
        Start | Restart => Input::Start,
        Due => Input::Due,
        Overdue => Input::Overdue,
        Reads(reading) => Input::Read { result: Ok(reading), begun: now.boottime },
        Read(reading, seconds) => Input::Read { result: Ok(reading), begun: ago(seconds) },
        Unread(_) => Input::Read { result: Err(failure), begun: now.boottime },
        Accepts | Refuses => Input::Ordered(Ok(PowerReply::Accepted)),
        Lost | NotSent(_) => Input::Ordered(Err(failure)),
        In::Health(sign) => Input::Health(Health { sign, begun: now.boottime, said: "" }),
        OldHealth(sign, seconds) => Input::Health(Health { sign, begun: ago(seconds), said: "" }),
        Passes => Input::Judged(None),
        Holds(gate) => Input::Judged(Some(gate)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Nothing is proven without N Off readings begun after the order, far enough apart, with nothing else between them and a check
    /// after them that is not Alive; nothing is sent but in the instant in which all gates passed, and by a policy only after a look.
    #[test]
    fn fenced_means_proven_and_sent_means_asked(moves in any_moves(), who in 0_u8..3) {
        let settings = HaSettings::default();
        let mut attempt = match who {
            0 => by_policy(),
            1 => by_ann(),
            _ => Attempt::of_proof(Offs::default()),
        };
        run(&mut attempt, moves, rules(&settings), |attempt| Some(attempt))?;
    }

    /// Never two resets for one attempt, whatever is lost and however often the agent dies.
    #[test]
    fn one_attempt_one_reset(moves in any_moves()) {
        let settings = HaSettings::default();
        let witness = run(&mut Recovery::new(1), moves, rules(&settings), |_| None)?;
        prop_assert!(witness.resets <= 1);
    }
}

/// The moves above do get there.
#[test]
fn random_moves_prove_and_reset_now_and_then() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let settings = HaSettings::default();
    let mut runner = TestRunner::deterministic();
    let (mut proven, mut resets) = (0, 0);
    for _ in 0..500 {
        let moves = any_moves().new_tree(&mut runner).unwrap().current();
        proven += run(&mut by_policy(), moves.clone(), rules(&settings), |attempt| Some(attempt)).unwrap().proven;
        resets += run(&mut Recovery::new(1), moves, rules(&settings), |_| None).unwrap().resets;
    }
    assert!(proven > 20 && resets > 20, "{proven} {resets}");
}
