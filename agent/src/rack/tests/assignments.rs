//! Hosts that come, go, close, open, and get another BMC.

use super::*;

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
