//! Refused logins and the pause after two.

use super::*;

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
