//! Which commands are carried out: once, in time, and under the right assignment.

use super::*;

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
