//! When a BMC is asked what it is.

use super::*;

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
