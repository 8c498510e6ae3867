//! How operations end, over failures, crashes and reboots.

use super::*;
use crate::rack::commands::end;
use crate::rack::moment::Moment;

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
fn a_change_of_ours_names_the_command() {
    let mut world = World::new(&["h"]);
    world.run(5);
    world.order(7, "h", PowerOperation::Off);
    world.run(5);
    let cause = Cause::Command(OperationId(uuid::Uuid::from_u128(7)));
    assert_eq!(world.changes("h"), [(Unknown, On, Cause::Poll), (On, Off, cause)]);
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
    end(&mut decision, &operation, Outcome::Unknown("ß".repeat(4000)), start());
    let report = decision.records.into_iter().find_map(|record| match record {
        Record::Report(report) => Some(*report),
        _ => None,
    });
    let up = Up::Reports(Reports { boot: Incarnation(uuid::Uuid::nil()), oldest: 1, first: 1, reports: vec![report.unwrap()] });
    assert!(encode(&up).is_ok());
}
