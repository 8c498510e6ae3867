//! A session that is up: what it costs, what it repeats, what it believes.

use proptest::prelude::*;

use super::super::failure::Failure;
use super::super::login::Stage;
use super::*;
use crate::bmc::ErrorClass;

#[test]
fn a_poll_is_one_request_and_one_reply() {
    let mut pair = Pair::up();
    for _ in 0..100 {
        let (sent, heard) = (pair.sent.len(), pair.heard.len());
        assert_eq!(pair.status(), Ok(Reading::On));
        assert_eq!((pair.sent.len() - sent, pair.heard.len() - heard), (1, 1));
        pair.idle(10 * SECOND);
    }
    assert_eq!(pair.sent_of(OPEN).len(), 1);
}

#[test]
fn one_request_at_a_time() {
    let mut pair = Pair::up();
    let request = power::request(Ask::Status, pair.now + SECOND);
    assert!(pair.session.request(pair.now, request.clone()).is_ok());
    assert!(pair.session.request(pair.now, request).is_err());
}

#[test]
fn a_copy_has_new_numbers_and_begun_is_the_first_ones() {
    let mut pair = Pair::up();
    let from = pair.sent.len();
    let begin = pair.now;
    let mut left = 2;
    pair.network = Box::new(move |way, _| {
        if way == Way::ToConsole && left > 0 {
            left -= 1;
            return Fate::Lost;
        }
        Fate::After(MS)
    });
    let reply = pair.ask(Ask::Off, 10 * SECOND).unwrap();
    assert_eq!(reply.begun, begin, "a reading proves what came before the first copy");
    let copies = &pair.sent[from..];
    assert_eq!(copies.iter().map(|(at, ..)| (*at - begin).as_millis()).collect::<Vec<_>>(), [0, 400, 1200]);
    let numbers: Vec<&[u8]> = copies.iter().map(|(_, _, bytes)| &bytes[10..14]).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "session sequence numbers differ");
    assert_eq!(pair.bmc.controls(0), 3, "off is idempotent");
}

#[test]
fn reset_and_soft_go_out_once_whatever_happens() {
    for (ask, number) in [(Ask::Reset, 3), (Ask::Soft, 5)] {
        let mut pair = Pair::up();
        pair.network = Box::new(|way, _| if way == Way::ToConsole { Fate::Lost } else { Fate::After(MS) });
        let failure = pair.ask(ask, 60 * SECOND).unwrap_err();
        assert_eq!(failure, Failure::Silent { stage: Stage::Session, sent: true });
        assert!(failure.maybe_sent());
        assert_eq!(pair.bmc.controls(number), 1);
        pair.network = Box::new(|_, _| Fate::After(MS));
        pair.status().unwrap();
        assert_eq!(pair.bmc.controls(number), 1, "not by a later session either");
    }
}

#[test]
fn reset_is_sent_only_into_a_session_that_is_alive() {
    let mut pair = Pair::up();
    pair.idle(10 * SECOND);
    pair.bmc.faults.forget_sessions = true;
    assert_eq!(pair.ask(Ask::Reset, 20 * SECOND).map(|reply| reply.completion_code), Ok(0));
    assert_eq!(pair.bmc.controls(3), 1, "the dead session was found out by a question that may be repeated");
}

#[test]
fn a_silent_session_is_opened_anew_from_another_port_within_the_job() {
    for (timeout, at_most) in [(5 * SECOND, 3 * SECOND), (60 * SECOND, 6 * SECOND)] {
        let mut pair = Pair::up();
        pair.idle(10 * SECOND);
        pair.bmc.faults.forget_sessions = true;
        let begin = pair.now;
        let reply = pair.ask(Ask::Status, timeout).unwrap();
        assert!(pair.now - begin <= at_most, "{:?}", pair.now - begin);
        assert!(reply.begun > begin + 2 * SECOND, "begun when the new session asked");
        let ports: Vec<u8> = pair.sent_of(OPEN).iter().map(|(_, port, _)| *port).collect();
        assert_eq!(ports, [0, 1]);
    }
}

#[test]
fn a_session_the_bmc_has_timed_out_is_not_trusted() {
    let mut pair = Pair::up();
    pair.idle(55 * SECOND);
    let begin = pair.now;
    assert_eq!(pair.status(), Ok(Reading::On));
    assert!(pair.now - begin < 100 * MS, "opened anew without waiting for silence");
    assert_eq!(pair.sent_of(OPEN).len(), 2);
}

#[test]
fn busy_is_asked_again_except_for_what_goes_out_once() {
    let mut pair = Pair::up();
    pair.bmc.faults.codes = [0xC0, 0xC0, 0].into();
    let begin = pair.now;
    let reply = pair.ask(Ask::Off, 5 * SECOND).unwrap();
    assert_eq!(reply.completion_code, 0);
    assert!(reply.begun > begin + SECOND, "begun when the question that was answered was asked");
    pair.bmc.faults.codes = [0xC0].into();
    assert_eq!(pair.ask(Ask::Reset, 5 * SECOND).unwrap().completion_code, 0xC0);
    assert_eq!(pair.bmc.controls(3), 0);
    // Busy to the end.
    pair.bmc.faults.codes = std::iter::repeat_n(0xC0, 100).collect();
    let failure = pair.ask(Ask::Status, 5 * SECOND).unwrap_err();
    assert_eq!((failure.class(), failure.maybe_sent()), (ErrorClass::Deadline, false));
}

#[test]
fn other_completion_codes_are_handed_on() {
    let mut pair = Pair::up();
    for code in [0xC1, 0xC3, 0xCC, 0xD5, 0xFF] {
        pair.bmc.faults.codes = [code].into();
        assert_eq!(pair.ask(Ask::Off, 5 * SECOND).unwrap().completion_code, code);
    }
}

#[test]
fn a_lost_answer_ends_at_the_deadline_and_says_that_it_may_have_been_sent() {
    let mut pair = Pair::up();
    pair.network = Box::new(|_, _| Fate::Lost);
    let failure = pair.ask(Ask::Off, 700 * MS).unwrap_err();
    assert_eq!(failure, Failure::Silent { stage: Stage::Session, sent: true });
    pair.network = Box::new(|_, _| Fate::After(MS));
    assert_eq!(pair.status(), Ok(Reading::On), "the session goes on after a short silence");
    assert_eq!(pair.sent_of(OPEN).len(), 1);
}

#[test]
fn a_bmc_that_never_counts_is_believed_until_it_counts() {
    let mut pair = Pair::operator();
    pair.bmc.faults.never_counts = true;
    for _ in 0..100 {
        assert_eq!(pair.status(), Ok(Reading::On));
    }
    pair.bmc.faults.never_counts = false;
    assert_eq!(pair.status(), Ok(Reading::On));
    pair.bmc.faults.never_counts = true;
    pair.ask(Ask::Status, 300 * MS).unwrap_err();
    assert_eq!(pair.session.drops().replayed, 1);
}

#[test]
fn closing_is_polite_and_patient_but_not_for_long() {
    let mut pair = Pair::up();
    pair.session.close(pair.now);
    assert_eq!(pair.step(pair.now + SECOND), Some(Event::Closed));
    assert!(pair.bmc.sessions.is_empty());

    let mut pair = Pair::up();
    pair.bmc.faults.silent = true;
    let begin = pair.now;
    pair.session.close(pair.now);
    assert_eq!(pair.step(pair.now + 10 * SECOND), Some(Event::Closed));
    assert!(pair.now - begin <= 1500 * MS);

    let mut pair = Pair::operator();
    pair.session.close(pair.now);
    assert_eq!(pair.step(pair.now), Some(Event::Closed), "nothing to close");

    // An outstanding request completes first.
    let mut pair = Pair::up();
    pair.session.request(pair.now, power::request(Ask::Status, pair.now + SECOND)).unwrap();
    pair.session.close(pair.now);
    assert!(matches!(pair.step(pair.now + SECOND), Some(Event::Done(Ok(_)))));
    assert_eq!(pair.step(pair.now + SECOND), Some(Event::Closed));
}

#[test]
fn an_abort_fails_the_request_at_once() {
    let mut pair = Pair::up();
    pair.bmc.faults.silent = true;
    pair.session.request(pair.now, power::request(Ask::Off, pair.now + SECOND)).unwrap();
    assert_eq!(pair.step(pair.now + 10 * MS), None);
    pair.session.abort(pair.now);
    assert_eq!(pair.step(pair.now), Some(Event::Done(Err(Failure::Closed { sent: true }))));
}

/// Delays of up to three seconds, losses and copies, from a list that a property test chooses.
fn weather(list: Vec<u16>) -> Network {
    let mut next = 0;
    Box::new(move |_, _| {
        next = (next + 1) % list.len();
        let value = u64::from(list[next]);
        match value % 10 {
            0 | 1 => Fate::Lost,
            2 => Fate::Often(vec![Duration::from_millis(value % 50), Duration::from_millis(value % 3000)]),
            3 => Fate::After(Duration::from_millis(value % 3000)),
            _ => Fate::After(Duration::from_millis(value % 50)),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The one that matters: whatever the network does, a reading is a state the host was in after the question was begun.
    #[test]
    fn a_late_reply_never_answers_a_later_question(
        list in prop::collection::vec(any::<u16>(), 1..60),
        asks in prop::collection::vec(0u8..4, 1..40),
        never_counts in any::<bool>(),
    ) {
        let mut pair = Pair::operator();
        pair.bmc.faults.never_counts = never_counts;
        pair.network = weather(list);
        for ask in asks {
            let ask = [Ask::Status, Ask::On, Ask::Off, Ask::Status][usize::from(ask)];
            let Ok(reply) = pair.ask(ask, 5 * SECOND) else { continue };
            if let Ok(Answer::Reading(reading)) = power::answer(ask, &reply) {
                let end = pair.now;
                let in_time = |index: usize| {
                    let until = pair.history.get(index + 1).map_or(Duration::MAX, |(at, _)| *at);
                    let (from, power) = pair.history[index];
                    from <= end && until >= reply.begun && power == (reading == Reading::On)
                };
                prop_assert!((0..pair.history.len()).any(in_time), "{reading:?} begun {:?}: {:?}", reply.begun, pair.history);
            }
        }
    }

    #[test]
    fn reset_is_executed_at_most_once_in_any_weather(list in prop::collection::vec(any::<u16>(), 1..60), seconds in 1u32..60) {
        // Copies made by the network are the network's: real BMCs execute a replay. Only losses and delays here.
        let list = list.into_iter().map(|value| if value % 10 == 2 { value + 1 } else { value }).collect();
        let mut pair = Pair::operator();
        pair.network = weather(list);
        let result = pair.ask(Ask::Reset, seconds * SECOND);
        pair.network = Box::new(|_, _| Fate::After(MS));
        pair.idle(30 * SECOND);
        prop_assert!(pair.bmc.controls(3) <= 1);
        match result {
            Ok(_) => prop_assert_eq!(pair.bmc.controls(3), 1),
            Err(failure) => prop_assert!(failure.maybe_sent() || pair.bmc.controls(3) == 0, "{}", failure),
        }
    }

    #[test]
    fn no_datagram_of_a_session_is_ever_sent_twice(list in prop::collection::vec(any::<u16>(), 1..60)) {
        let mut pair = Pair::operator();
        pair.network = weather(list);
        for _ in 0..10 {
            drop(pair.ask(Ask::Status, 5 * SECOND));
        }
        let mut seen = std::collections::HashSet::new();
        for (_, _, bytes) in pair.sent_of(SEALED) {
            prop_assert!(seen.insert(bytes[6..14].to_vec()), "session id and sequence number repeat");
        }
    }
}
