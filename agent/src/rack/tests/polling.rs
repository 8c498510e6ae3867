//! What is seen by polling: changes, silence, what is overdue, and how much is in flight.

use picket_common::wire::report::MAX_OVERDUE;

use super::*;

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
    world.apply(Event::Configured { max_in_flight: 5 });
    assert_eq!(flying(&mut world), 5, "the file was read again");
    let mut later = Rack::restore(settings(world.machine_boot), Restored::default(), world.now);
    later.inherit(&world.rack);
    assert_eq!(later.max_in_flight(), 5, "and no journal has to keep that");
    let other = SiteSettings { version: Generation { store: uuid::Uuid::max(), counter: 1 }, max_in_flight: 2 };
    world.apply(Event::Assigned(Assign::Settings(other)));
    assert_eq!(flying(&mut world), 2, "versions of another store do not compare");
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
