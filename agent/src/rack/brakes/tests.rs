use picket_common::ha::{Degraded, Evidence, Fenced, Ineligible};
use picket_common::wire::ha::ClusterSurroundings;

use super::*;
use crate::rack::fence::gates::rules_unheard_of;

const BOOT: MachineBoot = MachineBoot(uuid::Uuid::nil());
const OTHER_BOOT: MachineBoot = MachineBoot(uuid::Uuid::max());
const QUIET: Duration = Duration::from_secs(300);

fn at(second: u64) -> Now {
    let wall = jiff::Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second);
    Now { boottime: Duration::from_secs(10_000 + second), wall }
}

fn ids(count: usize) -> Vec<HostId> {
    (0..count).map(|number| format!("h{number:03}").parse().unwrap()).collect()
}

/// A rack of one cluster.
struct Hosts {
    ids: Vec<HostId>,
    states: Vec<HaState>,
    acked: Vec<bool>,
    off: Vec<bool>,
    cluster: ClusterId,
    zone: ZoneId,
}

impl Hosts {
    fn new(count: usize) -> Self {
        let (states, no) = (vec![HaState::Available { failures: 0 }; count], vec![false; count]);
        let (cluster, zone) = ("c".parse().unwrap(), "z".parse().unwrap());
        Self { ids: ids(count), states, acked: no.clone(), off: no, cluster, zone }
    }

    fn members(&self) -> Vec<Member<'_>> {
        let each = self.ids.iter().enumerate();
        each.map(|(at, host)| Member {
            host,
            cluster: &self.cluster,
            zone: &self.zone,
            state: &self.states[at],
            is_acked: self.acked[at],
            is_off: self.off[at],
            slot: SlotUse::None,
        })
        .collect()
    }

    /// These become suspect, one after another, in one instant.
    fn fall(&mut self, brakes: &mut Brakes, which: std::ops::Range<usize>, rules: &ClusterHa, now: Now) {
        for number in which {
            let old = std::mem::replace(&mut self.states[number], HaState::Suspect);
            assert!(fell(&old, &HaState::Suspect));
            brakes.look(scene(&self.members()), [rules].into_iter(), Some(&self.ids[number]), now);
        }
    }

    fn look(&self, brakes: &mut Brakes, rules: &ClusterHa, now: Now) -> bool {
        brakes.look(scene(&self.members()), [rules].into_iter(), None, now)
    }
}

fn scene<'a>(members: &'a [Member<'a>]) -> Scene<'a> {
    Scene { members, told: None }
}

fn rules() -> ClusterHa {
    ClusterHa { cap: 3, ..rules_unheard_of("c".parse().unwrap(), "z".parse().unwrap()) }
}

fn brakes() -> Brakes {
    Brakes::restore(BrakesRow::default(), BOOT, at(0))
}

fn restarted(brakes: &Brakes, boot: MachineBoot, now: Now) -> Brakes {
    let row = postcard::from_bytes(&postcard::to_stdvec(brakes.row()).unwrap()).unwrap();
    Brakes::restore(row, boot, now)
}

#[test]
fn quiet_after_a_start_and_not_again_after_a_short_restart() {
    let mut first = brakes();
    assert_eq!(first.quiet_left(QUIET, at(0)), QUIET);
    assert_eq!(first.quiet_left(QUIET, at(299)), Duration::from_secs(1));
    assert_eq!(first.quiet_left(QUIET, at(300)), Duration::ZERO);
    assert!(!first.lives(at(19)) && first.lives(at(20)) && !first.lives(at(21)) && first.lives(at(400)));
    // Down for 59 s, within one boot of the machine and over a reboot.
    for boot in [BOOT, OTHER_BOOT] {
        let now = if boot == BOOT { at(459) } else { Now { boottime: Duration::from_secs(30), ..at(459) } };
        assert_eq!(restarted(&first, boot, now).quiet_left(QUIET, now), Duration::from_secs(if boot == BOOT { 0 } else { 270 }));
    }
    assert_eq!(restarted(&first, BOOT, at(461)).quiet_left(QUIET, at(461)), QUIET);
    // A clock that was set back tells nothing of how long it was away.
    let back = Now { boottime: Duration::from_secs(30), ..at(100) };
    assert_eq!(restarted(&first, OTHER_BOOT, back).quiet_left(QUIET, back), QUIET);
}

#[test]
fn power_downs_survive_and_are_forgotten_when_told() {
    let mut brakes = brakes();
    let (one, other): (ClusterId, ClusterId) = ("c".parse().unwrap(), "d".parse().unwrap());
    for cluster in [&one, &one, &other] {
        brakes.power_down(cluster, Cap::CLUSTER, Cap::AGENT, at(0));
    }
    let mut brakes = restarted(&brakes, BOOT, at(10));
    let count = |brakes: &Brakes, cluster| brakes.of_cluster(cluster).map(|downs| downs.count(Cap::CLUSTER, at(10).wall));
    assert_eq!((count(&brakes, &one), count(&brakes, &other)), (Some(2), Some(1)));
    assert_eq!(brakes.of_agent().count(Cap::AGENT, at(10).wall), 3);
    assert!(brakes.reset_counters(&one) && !brakes.reset_counters(&one));
    assert_eq!((count(&brakes, &one), count(&brakes, &other)), (None, Some(1)));
}

#[test]
fn a_floor_of_one_and_a_lease_while_it_lasts() {
    let cluster: ClusterId = "c".parse().unwrap();
    let around = ClusterSurroundings {
        cluster: cluster.clone(),
        hosts: 0,
        unwell: 0,
        well: 0,
        zone_hosts: 0,
        zone_unwell: 0,
        lease: 1,
        lease_until: at(600).wall.into(),
    };
    let told = Surroundings { at: at(0).wall.into(), epoch: 1, clusters: vec![around] };
    let scene = Scene { members: &[], told: Some(&told) };
    let mut brakes = brakes();
    let budget =
        |brakes: &Brakes, second: u64| brakes.budget(scene, &cluster, Cap::CLUSTER, Some(at(second).wall.into()), at(second));
    assert_eq!((budget(&brakes, 0), budget(&brakes, 599), budget(&brakes, 600)), (2, 2, 1));
    // Without the centre's clock no lease can be trusted.
    assert_eq!(brakes.budget(scene, &cluster, Cap::CLUSTER, None, at(0)), 1);
    brakes.power_down(&cluster, Cap::CLUSTER, Cap::AGENT, at(10));
    assert_eq!((budget(&brakes, 11), budget(&brakes, 600)), (1, 0));
    brakes.power_down(&cluster, Cap::CLUSTER, Cap::AGENT, at(20));
    assert_eq!((budget(&brakes, 21), budget(&brakes, 600)), (0, 0));
    // The floor is one for each window: it comes back as the window slides.
    assert_eq!((budget(&brakes, 3619), budget(&brakes, 3620)), (0, 1));
}

#[test]
fn many_at_once_are_a_cliff_that_ends_when_they_are_well_or_somebody_says_go() {
    let rules = rules();
    for (hosts, falls, held) in
        [(40, 19, false), (40, 20, true), (5, 2, false), (5, 3, true), (2, 2, false), (7, 3, false), (7, 4, true)]
    {
        let (mut rack, mut brakes) = (Hosts::new(hosts), brakes());
        rack.fall(&mut brakes, 0..falls, &rules, at(0));
        assert_eq!(brakes.cliff(&rules), held.then_some(u32::try_from(falls).unwrap()), "{falls} of {hosts}");
    }
    let (mut rack, mut brakes) = (Hosts::new(5), brakes());
    rack.fall(&mut brakes, 0..3, &rules, at(0));
    // Never by time alone, nor by a restart.
    assert!(!rack.look(&mut brakes, &rules, at(100_000)));
    let mut brakes = restarted(&brakes, BOOT, at(100_000));
    rack.states[0] = HaState::Available { failures: 0 };
    rack.states[1] =
        HaState::Fenced(Fenced { evidence: Evidence::Readings(3), restarting: false, returned: false, released: false });
    rack.states[2] = HaState::Degraded(Degraded::Active);
    assert!(rack.look(&mut brakes, &rules, at(100_001)));
    assert_eq!(brakes.cliff(&rules), Some(2));
    (rack.acked[1], rack.states[2]) = (true, HaState::Ineligible(Ineligible::Maintenance));
    assert!(rack.look(&mut brakes, &rules, at(100_002)));
    assert_eq!(brakes.cliff(&rules), None);

    rack.states = vec![HaState::Available { failures: 0 }; 5];
    rack.fall(&mut brakes, 0..3, &rules, at(200_000));
    assert!(brakes.cliff(&rules).is_some() && brakes.end_cliff() && brakes.cliff(&rules).is_none());
    // Those that fell before it said so do not count again.
    rack.fall(&mut brakes, 3..4, &rules, at(200_001));
    assert_eq!(brakes.cliff(&rules), None);
    assert_eq!(brakes.cliff(&ClusterHa { cliff: None, ..rules }), None);
}

#[test]
fn one_after_another_is_no_cliff() {
    let (rules, mut rack, mut brakes) = (rules(), Hosts::new(5), brakes());
    for number in 0..5 {
        rack.fall(&mut brakes, number..number + 1, &rules, at(15 * u64::try_from(number).unwrap()));
        assert_eq!(brakes.cliff(&rules), None);
    }
}

#[test]
fn what_somebody_wanted_is_no_fall() {
    let well = HaState::Available { failures: 2 };
    let fencing = |way| HaState::Fencing(Fencing::new(way));
    assert!(fell(&well, &HaState::Suspect) && fell(&HaState::Recovered, &HaState::Suspect));
    assert!(!fell(&HaState::Suspect, &HaState::Checking { dead: 0 }) && !fell(&well, &HaState::Disabled));
    assert!(!fell(&well, &fencing(Way::Proof)) && !fell(&well, &fencing(Way::Order(By::Principal("ann".into())))));
    assert!(fell(&well, &fencing(Way::Order(By::Policy))));
}

#[test]
fn a_storm_is_followed_by_its_cool_down() {
    let (rules, mut rack, mut brakes) = (rules(), Hosts::new(40), brakes());
    let cool_down = Duration::from_secs(600);
    // 20 % of 40 are 8, of the cluster; 30 % of the rack would be 12, 10 % of the zone 4.
    rack.states[..4].fill(HaState::Suspect);
    rack.look(&mut brakes, &rules, at(0));
    assert_eq!(brakes.cool_down_left(&rules, at(0)), Duration::ZERO);
    rack.states[4] = HaState::Suspect;
    assert!(rack.look(&mut brakes, &rules, at(1)) && !rack.look(&mut brakes, &rules, at(2)));
    assert_eq!(brakes.cool_down_left(&rules, at(5000)), cool_down, "it goes on");
    let mut brakes = restarted(&brakes, BOOT, at(5000));
    rack.states[4] = HaState::Available { failures: 0 };
    assert!(rack.look(&mut brakes, &rules, at(5001)));
    assert_eq!(brakes.cool_down_left(&rules, at(5001)), cool_down);
    assert_eq!(brakes.cool_down_left(&rules, at(5300)), Duration::from_secs(301));
    assert_eq!(brakes.cool_down_left(&rules, at(5601)), Duration::ZERO);
    assert_eq!(brakes.cool_down_left(&rules, at(100)), cool_down, "a clock that was set back");
}

#[test]
fn who_counts_in_a_storm() {
    let rules = rules();
    let mut rack = Hosts::new(10);
    let fenced = HaState::Fenced(Fenced { evidence: Evidence::Readings(3), restarting: false, returned: false, released: false });
    rack.states[..6].clone_from_slice(&[
        HaState::Suspect,
        HaState::Checking { dead: 1 },
        HaState::Recovering { attempt: 1 },
        HaState::Fencing(Fencing::new(Way::Order(By::Policy))),
        fenced.clone(),
        HaState::Degraded(Degraded::Active),
    ]);
    (rack.states[6], rack.acked[6]) = (fenced.clone(), true);
    (rack.states[7], rack.off[7]) = (fenced, true);
    rack.states[8] = HaState::Disabled;
    let around = ClusterSurroundings {
        cluster: rules.cluster.clone(),
        hosts: 20,
        unwell: 2,
        well: 18,
        zone_hosts: 80,
        zone_unwell: 7,
        lease: 0,
        lease_until: Time(0),
    };
    let told = Surroundings { at: Time(0), epoch: 1, clusters: vec![around] };
    let members = rack.members();
    let scene = Scene { members: &members, told: Some(&told) };
    let counts: Vec<(u32, u32)> = scene.shares(&rules).iter().map(|share| (share.unwell, share.hosts)).collect();
    assert_eq!(counts, [(5, 9), (7, 29), (12, 89)]);
    assert_eq!((scene.others_well(&rack.ids[9], &rules.cluster), scene.others_well(&rack.ids[0], &rules.cluster)), (18, 19));
}

#[test]
fn the_slot_goes_to_whoever_was_tried_least_recently() {
    let rack = Hosts::new(4);
    let mut members = rack.members();
    let asks = |members: &[Member<'_>], number: usize, tried| {
        let slot = scene(members).slot(&rack.ids[number], tried);
        slot.map(|slot| match slot {
            Slot::Taken(host) => format!("taken {host}"),
            Slot::Promised(host) => format!("promised {host}"),
        })
    };
    assert_eq!(asks(&members, 0, None), None);
    members[1].slot = SlotUse::Waits(Some(Time(50)));
    members[2].slot = SlotUse::Waits(Some(Time(40)));
    assert_eq!(asks(&members, 0, None), None, "never tried goes first");
    assert_eq!(asks(&members, 0, Some(Time(60))).as_deref(), Some("promised h002"));
    assert_eq!(asks(&members, 1, Some(Time(50))).as_deref(), Some("promised h002"));
    assert_eq!(asks(&members, 2, Some(Time(40))), None, "nobody waits for itself");
    members[3].slot = SlotUse::Holds;
    assert_eq!(asks(&members, 2, Some(Time(40))).as_deref(), Some("taken h003"));
    assert_eq!(asks(&members, 3, Some(Time(70))).as_deref(), Some("promised h002"));
    assert_eq!(scene(&members).next_in_line().map(|(_, host)| host), Some(&rack.ids[2]));
}
