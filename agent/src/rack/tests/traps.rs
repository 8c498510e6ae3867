//! Traps that other systems fell into (T4, T8, T9, T27); the rest of them stand beside what they are about.

use picket_common::ha::settings::ActivityCheck;
use picket_common::ha::{Degraded, Gate, HaName, HaState};

use super::*;
use crate::sign::Check;

fn hung_with(activity: Vec<ActivityCheck>) -> World {
    let mut world = World::watched(&["h", "other"], |settings| settings.activity.clone_from(&activity));
    world.life("h").hung = true;
    world
}

fn files(paths: &[&str]) -> ActivityCheck {
    ActivityCheck::Files { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
}

fn is_active(world: &World) -> bool {
    world.state("h") == HaState::Degraded(Degraded::Active)
}

#[test]
fn t04_what_was_written_before_the_first_failed_check_is_no_life_and_what_comes_after_is() {
    // It wrote up to its last moment, and hangs.
    let mut world = hung_with(vec![files(&["/vm/a", "/vm/b"])]);
    world.life("h").files.insert("/vm/a".into(), 7);
    world.run_until("h", HaName::Recovering, 200);

    // It writes once, after the first failed check and long before its activity is looked at for the first time.
    let mut world = hung_with(vec![files(&["/vm/a", "/vm/b"])]);
    while world.activity_checks("h").is_empty() {
        world.run(1);
    }
    assert_eq!(world.state("h").name(), HaName::Available, "the baseline is read at the first failure");
    world.life("h").files.insert("/vm/a".into(), 7);
    world.run_until("h", HaName::Degraded, 120);
    assert!(is_active(&world), "{}", world.why("h"));
    assert_eq!(world.orders("h"), []);
}

#[test]
fn t08_two_pools_and_one_of_them_is_written() {
    for written in ["/one/disk", "/two/disk"] {
        let mut world = hung_with(vec![files(&["/one/disk"]), files(&["/two/disk"])]);
        for disk in ["/one/disk", "/two/disk"] {
            world.life("h").files.insert(disk.into(), 1);
        }
        for turn in 2..200 {
            world.life("h").files.insert(written.into(), turn);
            world.run(5);
        }
        assert!(world.told_any("h", |state| *state == HaState::Degraded(Degraded::Active)), "{written}: {}", world.why("h"));
        assert_eq!(world.orders("h"), [], "{written}");
    }
}

#[test]
fn t09_a_fence_goes_on_when_the_last_neighbour_is_gone() {
    let mut world = World::watched(&["h", "other"], |settings| settings.recovery_attempts = 0);
    world.bmc("h").order = Some((ErrorClass::Refused, false));
    world.life("h").hung = true;
    world.run_until("h", HaName::Fencing, 200);
    world.change_ha(2, "other", |ha| ha.maintenance = true);
    world.run(400);
    let HaState::Fencing(fencing) = world.state("h") else { panic!("{:?}: {}", world.state("h"), world.why("h")) };
    assert_eq!(fencing.held, Some(Gate::SomewhereToGo), "{}", world.why("h"));
    world.bmc("h").order = None;
    world.change_ha(3, "other", |ha| ha.maintenance = false);
    world.run_until("h", HaName::Fenced, 600);
}

#[test]
fn t27_what_others_write_on_a_shared_mount_is_not_its_life() {
    let mut world = hung_with(vec![files(&["/vm/a", "/vm/b"])]);
    world.life("other").writes = true;
    world.run_until("h", HaName::Recovering, 200);
    for check in world.activity_checks("h") {
        assert_eq!(check, Check::Activity(files(&["/vm/a", "/vm/b"])), "only its own files are looked at");
    }
}
