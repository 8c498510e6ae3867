//! What stops more than one host's fence: how many power-downs there were, how many hosts fell ill at once, how long the agent has
//! been up, what the centre lets it spend. Pure: counts and remembers; what follows is decided by the gates ([`super::fence`]).
//!
//! Journalled but for what is over within half a minute.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use picket_common::clock::Now;
use picket_common::failure_cap::{Cap, PowerDowns};
use picket_common::ha::{By, Fencing, HaState, Way};
use picket_common::id::{ClusterId, HostId, ZoneId};
use picket_common::policy::{Share, Slot};
use picket_common::wire::Time;
use picket_common::wire::ha::{ClusterHa, ClusterSurroundings, Surroundings};
use serde::{Deserialize, Serialize};

use super::moment::{MachineBoot, Moment};

/// A restart that takes less than this does not begin the quiet time again.
const SHORT_RESTART: Duration = Duration::from_secs(60);
/// How often it is journalled that the agent lives.
const ALIVE_EVERY: Duration = Duration::from_secs(20);
/// Hosts that fall ill within this fall together.
const CLIFF_WITHIN: Duration = Duration::from_secs(30);
/// Fewer hosts than this are never a cliff.
const CLIFF_FLOOR: usize = 3;
/// Power-downs within a window that an agent may have of any cluster without asking.
const FLOOR: u32 = 1;

/// What is journalled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakesRow {
    /// Power-downs by cluster.
    clusters: BTreeMap<ClusterId, PowerDowns>,
    /// Power-downs of this agent.
    agent: PowerDowns,
    /// Storms by the cluster whose shares were exceeded.
    storms: BTreeMap<ClusterId, Storm>,
    /// Hosts that fell together and are not well again, by the cluster whose threshold they passed.
    cliffs: BTreeMap<ClusterId, BTreeSet<HostId>>,
    /// Since when the agent is up, short restarts apart.
    up_since: Option<Moment>,
    /// When it was last known to be up.
    alive: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Storm {
    /// Whether it goes on.
    is_on: bool,
    /// When it began, or ended.
    at: Time,
}

/// See the module.
#[derive(Debug)]
pub struct Brakes {
    row: BrakesRow,
    boot: MachineBoot,
    /// Hosts that fell ill lately, and when (boottime).
    fell: VecDeque<(HostId, Duration)>,
}

/// What there is to look at.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// All hosts of the rack that host-HA knows.
    pub members: &'a [Member<'a>],
    /// What the centre says of the others.
    pub told: Option<&'a Surroundings>,
}

impl<'a> Scene<'a> {
    fn around(self, cluster: &ClusterId) -> Option<&'a ClusterSurroundings> {
        self.told?.clusters.iter().find(|around| around.cluster == *cluster)
    }

    /// Other hosts of the cluster that pass their health checks.
    #[must_use]
    pub fn others_well(self, host: &HostId, cluster: &ClusterId) -> u32 {
        let here = self.members.iter().filter(|member| member.host != host && member.cluster == cluster && member.is_well());
        let elsewhere = self.around(cluster).map_or(0, |around| around.well);
        u32::try_from(here.count()).unwrap_or(u32::MAX).saturating_add(elsewhere)
    }

    /// The unwell among the watched, of the rack, the cluster and the zone.
    #[must_use]
    pub fn shares(self, rules: &ClusterHa) -> [Share; 3] {
        let [rack, cluster, zone] = rules.storm.map(u32::from);
        let around = self.around(&rules.cluster);
        let of_cluster = around.map_or((0, 0), |around| (around.hosts, around.unwell));
        let of_zone = around.map_or((0, 0), |around| (around.zone_hosts, around.zone_unwell));
        let share = |scope, percent, (others, others_unwell): (u32, u32), is_in: &dyn Fn(&Member<'_>) -> bool| {
            let (mut hosts, mut unwell) = (others, others_unwell);
            for member in self.members.iter().filter(|member| member.is_watched() && is_in(member)) {
                hosts = hosts.saturating_add(1);
                unwell = unwell.saturating_add(u32::from(member.is_unwell()));
            }
            Share { scope, unwell, hosts, percent }
        };
        [
            share("rack", rack, (0, 0), &|_| true),
            share("cluster", cluster, of_cluster, &|member| *member.cluster == rules.cluster),
            share("zone", zone, of_zone, &|member| *member.zone == rules.zone),
        ]
    }

    /// Why `host`, last tried at `tried`, must wait for the rack's slot: another one has it, or waits and was tried less recently.
    #[must_use]
    pub fn slot(self, host: &HostId, tried: Option<Time>) -> Option<Slot<'a>> {
        let taken = self.members.iter().find(|member| member.host != host && member.slot == SlotUse::Holds);
        if let Some(taken) = taken {
            return Some(Slot::Taken(taken.host));
        }
        let first = self.next_in_line().filter(|(first_tried, first)| *first != host && (*first_tried, *first) < (tried, host));
        first.map(|(_, host)| Slot::Promised(host))
    }

    /// Who of those that wait for the rack's slot is first: the least recently tried. Once the slot is free it is the one to wake.
    #[must_use]
    pub fn next_in_line(self) -> Option<(Option<Time>, &'a HostId)> {
        let waiting = self.members.iter().filter_map(|member| match member.slot {
            SlotUse::Waits(tried) => Some((tried, member.host)),
            SlotUse::None | SlotUse::Holds => None,
        });
        waiting.min()
    }
}

/// A host of the rack that host-HA knows, as far as it matters to others.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Which.
    pub host: &'a HostId,
    /// Its cluster.
    pub cluster: &'a ClusterId,
    /// Its zone.
    pub zone: &'a ZoneId,
    /// Where it stands.
    pub state: &'a HaState,
    /// It is known to be broken.
    pub is_acked: bool,
    /// It is off by somebody's command, or was proven off and nobody had ordered it.
    pub is_off: bool,
    /// What it has to do with the rack's slot.
    pub slot: SlotUse,
}

/// What a host has to do with the rack's slot for switching off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SlotUse {
    /// Nothing.
    #[default]
    None,
    /// It has it.
    Holds,
    /// It waits for it; when it was last tried.
    Waits(Option<Time>),
}

impl Member<'_> {
    const fn is_watched(&self) -> bool {
        !matches!(self.state, HaState::Disabled)
    }

    const fn is_unwell(&self) -> bool {
        self.state.is_unwell() && !self.is_acked && !self.is_off
    }

    /// Whether it passes its health checks.
    pub(super) const fn is_well(&self) -> bool {
        matches!(self.state, HaState::Available { failures: 0 } | HaState::Recovered)
    }

    /// Whether a host that fell is still down there.
    const fn is_fallen(&self) -> bool {
        let is_up =
            matches!(self.state, HaState::Available { .. } | HaState::Recovered | HaState::Disabled | HaState::Ineligible(_));
        !is_up && !self.is_acked && !self.is_off
    }
}

/// Whether a host went from well to unwell, nobody having asked for it.
#[must_use]
pub const fn fell(old: &HaState, new: &HaState) -> bool {
    let was_well = matches!(old, HaState::Available { .. } | HaState::Recovered);
    let wanted =
        matches!(new, HaState::Fencing(Fencing { way: Way::Proof | Way::Order(By::Principal(_)), .. }) | HaState::Fenced(_));
    was_well && new.is_unwell() && !wanted
}

/// How long ago `then` was; over a reboot of the machine by the wall clock. `None` = it lies ahead, so nobody knows.
fn gap(then: Moment, boot: MachineBoot, now: Now) -> Option<Duration> {
    if then.boot == boot {
        return now.boottime.checked_sub(then.boottime);
    }
    u64::try_from(Time::from(now.wall).0.saturating_sub(then.wall.0)).ok().map(Duration::from_micros)
}

impl Brakes {
    /// Brakes as the journal knew them.
    #[must_use]
    pub fn restore(mut row: BrakesRow, boot: MachineBoot, now: Now) -> Self {
        let was_short = row.alive.and_then(|alive| gap(alive, boot, now)).is_some_and(|gap| gap < SHORT_RESTART);
        row.up_since = Some(row.up_since.filter(|_| was_short).map_or(Moment::at(boot, now), |since| since.seen_from(boot, now)));
        row.alive = Some(Moment::at(boot, now));
        Self { row, boot, fell: VecDeque::new() }
    }

    /// What is to be journalled.
    #[must_use]
    pub const fn row(&self) -> &BrakesRow {
        &self.row
    }

    /// The agent lives. Says whether that is to be journalled.
    pub fn lives(&mut self, now: Now) -> bool {
        let last = self.row.alive.map_or(Duration::ZERO, |alive| alive.boottime);
        if now.boottime.saturating_sub(last) < ALIVE_EVERY {
            return false;
        }
        self.row.alive = Some(Moment::at(self.boot, now));
        true
    }

    /// What is left of the quiet time after the agent's start.
    #[must_use]
    pub fn quiet_left(&self, quiet: Duration, now: Now) -> Duration {
        let since = self.row.up_since.map_or(now.boottime, |since| since.boottime);
        since.saturating_add(quiet).saturating_sub(now.boottime).min(quiet)
    }

    // ---- power-downs ----

    /// Counts a power-down: once for each fence, in the instant in which its intent is journalled.
    pub fn power_down(&mut self, cluster: &ClusterId, cap: Cap, agent_cap: Cap, now: Now) {
        self.row.clusters.entry(cluster.clone()).or_default().note(cap, now.wall);
        self.row.agent.note(agent_cap, now.wall);
    }

    /// The power-downs of a cluster.
    #[must_use]
    pub fn of_cluster(&self, cluster: &ClusterId) -> Option<&PowerDowns> {
        self.row.clusters.get(cluster)
    }

    /// The power-downs of this agent.
    #[must_use]
    pub const fn of_agent(&self) -> &PowerDowns {
        &self.row.agent
    }

    /// Forgets the power-downs of a cluster. Says whether there were any.
    pub fn reset_counters(&mut self, cluster: &ClusterId) -> bool {
        self.row.clusters.remove(cluster).is_some()
    }

    /// How many more power-downs the centre leaves this agent: its floor, and its lease while it lasts by the centre's clock.
    #[must_use]
    pub fn budget(&self, scene: Scene<'_>, cluster: &ClusterId, cap: Cap, centre_now: Option<Time>, now: Now) -> u32 {
        let lease = scene.around(cluster).filter(|around| centre_now.is_some_and(|now| now < around.lease_until));
        let had = self.of_cluster(cluster).map_or(0, |downs| downs.count(cap, now.wall));
        let may_have = FLOOR.saturating_add(lease.map_or(0, |around| u32::from(around.lease)));
        may_have.saturating_sub(u32::try_from(had).unwrap_or(u32::MAX))
    }

    // ---- storms and cliffs ----

    /// Looks around after a host's state, the surroundings or the rules changed, and now and then. `fallen` = a host that just
    /// [`fell`]. Says whether there is something to journal.
    pub fn look<'a>(
        &mut self,
        scene: Scene<'_>,
        clusters: impl Iterator<Item = &'a ClusterHa>,
        fallen: Option<&HostId>,
        now: Now,
    ) -> bool {
        self.fell.retain(|(host, at)| now.boottime.saturating_sub(*at) < CLIFF_WITHIN && Some(host) != fallen);
        self.fell.extend(fallen.map(|host| (host.clone(), now.boottime)));
        let before = (self.row.storms.clone(), self.row.cliffs.clone());
        for rules in clusters {
            self.look_for_storm(scene, rules, now);
            if fallen.is_some() {
                self.look_for_cliff(scene, rules);
            }
        }
        self.end_cliffs(scene);
        before != (self.row.storms.clone(), self.row.cliffs.clone())
    }

    fn look_for_storm(&mut self, scene: Scene<'_>, rules: &ClusterHa, now: Now) {
        let is_on = scene.shares(rules).iter().any(|share| share.unwell > share.most());
        let was_on = self.row.storms.get(&rules.cluster).is_some_and(|storm| storm.is_on);
        if is_on != was_on {
            self.row.storms.insert(rules.cluster.clone(), Storm { is_on, at: now.wall.into() });
        }
    }

    /// What is left of the cool-down after a storm.
    #[must_use]
    pub fn cool_down_left(&self, rules: &ClusterHa, now: Now) -> Duration {
        let cool_down = Duration::from_secs(rules.cool_down.into());
        let Some(storm) = self.row.storms.get(&rules.cluster) else { return Duration::ZERO };
        if storm.is_on {
            return cool_down;
        }
        // A clock that was set back must not prolong it.
        let passed = u64::try_from(Time::from(now.wall).0.saturating_sub(storm.at.0)).unwrap_or(0);
        cool_down.saturating_sub(Duration::from_micros(passed))
    }

    fn look_for_cliff(&mut self, scene: Scene<'_>, rules: &ClusterHa) {
        let Some(percent) = rules.cliff else { return };
        let watched = scene.members.iter().filter(|member| member.is_watched()).count();
        let many = (watched * usize::from(percent)).div_ceil(100).max(CLIFF_FLOOR);
        let together: BTreeSet<HostId> = self.fell.iter().map(|(host, _)| host.clone()).collect();
        let holds = self.row.cliffs.contains_key(&rules.cluster);
        if holds || together.len() >= many {
            self.row.cliffs.entry(rules.cluster.clone()).or_default().extend(together);
        }
    }

    fn end_cliffs(&mut self, scene: Scene<'_>) {
        if self.row.cliffs.is_empty() {
            return;
        }
        let fallen: BTreeSet<&HostId> =
            scene.members.iter().filter(|member| member.is_fallen()).map(|member| member.host).collect();
        self.row.cliffs.retain(|_, hosts| {
            hosts.retain(|host| fallen.contains(host));
            !hosts.is_empty()
        });
    }

    /// How many hosts fell together and are not well again.
    #[must_use]
    pub fn cliff(&self, rules: &ClusterHa) -> Option<u32> {
        rules.cliff?;
        self.row.cliffs.get(&rules.cluster).map(|hosts| u32::try_from(hosts.len()).unwrap_or(u32::MAX))
    }

    /// An administrator looked at it: go on. Says whether there was a cliff.
    pub fn end_cliff(&mut self) -> bool {
        self.fell.clear();
        !std::mem::take(&mut self.row.cliffs).is_empty()
    }
}

#[cfg(test)]
mod tests;
