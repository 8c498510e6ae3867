//! When Off readings prove something: so many one after another, far enough apart, and then a health check that is not Alive.
//! The one place of that rule, for what is ordered ([`super::Attempt`]) and for what nobody ordered ([`OffSeen`]). Sends nothing.
//!
//! Lives in memory only: after a restart counting starts again.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::ha::settings::{HaSettings, LEAST_CONFIRMATIONS};
use picket_common::wire::Time;

use super::{Health, HealthSign};
use crate::bmc::Reading;

/// Least time between two readings that count.
const APART: Duration = Duration::from_secs(2);
/// Redfish services keep what they read for a few seconds.
const APART_REDFISH: Duration = Duration::from_secs(5);
/// Most readings that are kept as evidence (the wire's bound).
const KEPT: usize = 64;

/// How many readings prove, and how far apart they are begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountRules {
    /// How many.
    pub confirmations: usize,
    /// How far apart.
    pub apart: Duration,
}

impl CountRules {
    /// As set for a host with this driver. What is automatic is never believed after one reading.
    #[must_use]
    pub fn of(settings: &HaSettings, driver: &str, is_automatic: bool) -> Self {
        let least = if is_automatic { LEAST_CONFIRMATIONS } else { 1 };
        let apart = if driver == "redfish" { APART_REDFISH } else { APART };
        Self { confirmations: usize::from(settings.confirmations.max(least)).min(KEPT), apart }
    }
}

/// An Off reading that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Off {
    /// When it was begun (boottime).
    begun: Duration,
    /// When its answer came (boottime).
    heard: Duration,
    /// When it was begun, by the wall clock.
    at: Time,
}

/// Off readings one after another, with nothing else between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offs {
    counted: Vec<Off>,
    /// What the last health check begun after the first of them said.
    health: Option<(HealthSign, String)>,
}

/// What the readings so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Too few, or too short a time: the next one may be begun then (boottime).
    More(Duration),
    /// Enough; a health check begun now decides.
    CheckHealth,
    /// Enough, and the host answers all the same: the BMC speaks for another machine, or lies.
    Contradicted,
    /// The host is off.
    Proven,
}

impl Offs {
    /// Takes a reading in that was begun at `begun`. On and Transitioning start the count again; an Off that was begun too soon
    /// after the last one changes nothing. Failed readings are not given here: they neither count nor reset.
    pub fn read(&mut self, reading: Reading, begun: Duration, now: Now, rules: CountRules) {
        if reading != Reading::Off {
            self.clear();
            return;
        }
        if self.counted.last().is_some_and(|last| begun < last.begun.saturating_add(rules.apart)) {
            return;
        }
        if self.counted.len() == KEPT {
            // The first one stays: it says since when.
            self.counted.remove(1);
        }
        let ago = now.boottime.saturating_sub(begun);
        let at = now.wall.saturating_sub(ago).map_or_else(|_| now.wall.into(), Time::from);
        self.counted.push(Off { begun, heard: now.boottime, at });
    }

    /// Takes a health check in. One begun before the first Off was heard says nothing, and Alive is never taken back.
    pub fn health(&mut self, health: Health<'_>) {
        let is_after = self.since().is_some_and(|since| health.begun >= since);
        let was_alive = self.health.as_ref().is_some_and(|(sign, _)| *sign == HealthSign::Alive);
        if is_after && !was_alive {
            self.health = Some((health.sign, health.said.to_owned()));
        }
    }

    /// What they amount to, when they must have lasted for `settle`.
    #[must_use]
    pub fn count(&self, settle: Duration, rules: CountRules) -> Count {
        let (Some(since), Some(last)) = (self.since(), self.counted.last()) else { return Count::More(Duration::ZERO) };
        let lasts = last.begun.saturating_sub(since) >= settle;
        match &self.health {
            _ if self.counted.len() < rules.confirmations || !lasts => Count::More(last.begun.saturating_add(rules.apart)),
            None => Count::CheckHealth,
            Some((HealthSign::Alive, _)) => Count::Contradicted,
            Some((HealthSign::Dead | HealthSign::CannotTell, _)) => Count::Proven,
        }
    }

    /// When the first one was heard (boottime).
    #[must_use]
    pub fn since(&self) -> Option<Duration> {
        self.counted.first().map(|off| off.heard)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u8 {
        u8::try_from(self.counted.len()).unwrap_or(u8::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }

    /// When each was begun, by the wall clock.
    pub fn times(&self) -> impl Iterator<Item = Time> + '_ {
        self.counted.iter().map(|off| off.at)
    }

    /// What the health check after them said.
    #[must_use]
    pub fn health_said(&self) -> &str {
        self.health.as_ref().map_or("", |(_, said)| said)
    }

    /// Starts again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// An Off that nobody ordered, on its way to being proven: it must last, be read so many times, and the host must not answer.
/// Given every reading of a host that was not commanded off and has no cycle or reset of ours under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffSeen {
    offs: Offs,
    /// What it came to was told; nothing more is told before the host is read On.
    told: bool,
}

/// What an [`OffSeen`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Nothing: it reads On, or all was said.
    Nothing,
    /// It counts: read it again at this time (boottime).
    Counting(Duration),
    /// It counts no further before a health check that is begun now.
    CheckHealth,
    /// It is off: [`super::Attempt::of_proof`] begins with these readings.
    Confirmed(Offs),
    /// The BMC says Off, and the host answers.
    Contradicted,
}

/// How long an Off must last, and how it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRules {
    /// A cycle or a reboot may pass through Off: it must last so long.
    pub settle: Duration,
    /// How it is counted.
    pub count: CountRules,
}

impl SeenRules {
    /// As set for a host with this driver.
    #[must_use]
    pub fn of(settings: &HaSettings, driver: &str) -> Self {
        Self { settle: Duration::from_secs(settings.settle.into()), count: CountRules::of(settings, driver, true) }
    }
}

impl OffSeen {
    /// Takes a reading in that was begun at `begun`.
    pub fn read(&mut self, reading: Reading, begun: Duration, now: Now, rules: SeenRules) -> Sight {
        self.offs.read(reading, begun, now, rules.count);
        if self.offs.is_empty() {
            self.told = false;
        }
        self.sight(rules)
    }

    /// Takes a health check in.
    pub fn health(&mut self, health: Health<'_>, rules: SeenRules) -> Sight {
        self.offs.health(health);
        self.sight(rules)
    }

    /// Whether an Off is being counted: the BMC is worth a dense look.
    #[must_use]
    pub fn is_counting(&self) -> bool {
        !self.offs.is_empty() && !self.told
    }

    /// What was read was ordered, or is another machine's: starts again.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    fn sight(&mut self, rules: SeenRules) -> Sight {
        if !self.is_counting() {
            return Sight::Nothing;
        }
        match self.offs.count(rules.settle, rules.count) {
            Count::More(at) => Sight::Counting(at),
            Count::CheckHealth => Sight::CheckHealth,
            Count::Contradicted => {
                self.told = true;
                Sight::Contradicted
            }
            Count::Proven => {
                self.told = true;
                Sight::Confirmed(self.offs.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn at(second: u64) -> Now {
        Now { boottime: Duration::from_secs(second), wall: Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second) }
    }

    fn rules() -> SeenRules {
        SeenRules::of(&HaSettings::default(), "ipmi")
    }

    fn read(seen: &mut OffSeen, reading: Reading, second: u64) -> Sight {
        seen.read(reading, Duration::from_secs(second), at(second), rules())
    }

    fn check(seen: &mut OffSeen, sign: HealthSign, begun: u64) -> Sight {
        seen.health(Health { sign, begun: Duration::from_secs(begun), said: "said" }, rules())
    }

    fn counting(second: u64) -> Sight {
        Sight::Counting(Duration::from_secs(second))
    }

    #[test]
    fn t18_an_off_that_lasts_is_confirmed_by_a_dead_host() {
        let mut seen = OffSeen::default();
        assert_eq!(read(&mut seen, Reading::On, 90), Sight::Nothing);
        for second in [100, 110, 120] {
            assert_eq!(read(&mut seen, Reading::Off, second), counting(second + 2));
        }
        // Begun before the first Off: it says nothing.
        assert_eq!(check(&mut seen, HealthSign::Dead, 99), counting(122));
        assert_eq!(read(&mut seen, Reading::Off, 130), Sight::CheckHealth);
        let Sight::Confirmed(offs) = check(&mut seen, HealthSign::Dead, 131) else { panic!() };
        assert_eq!((offs.len(), offs.health_said()), (4, "said"));
        assert_eq!(offs.times().next(), Some(at(100).wall.into()));
        // It is said once, until the host is read On.
        assert_eq!(read(&mut seen, Reading::Off, 140), Sight::Nothing);
        assert_eq!(read(&mut seen, Reading::On, 150), Sight::Nothing);
        assert_eq!(read(&mut seen, Reading::Off, 160), counting(162));
    }

    #[test]
    fn a_check_that_cannot_tell_does_not_stand_in_the_way_and_a_living_host_does() {
        for (sign, confirmed) in [(HealthSign::CannotTell, true), (HealthSign::Dead, true), (HealthSign::Alive, false)] {
            let mut seen = OffSeen::default();
            for second in [100, 110, 120, 130] {
                read(&mut seen, Reading::Off, second);
            }
            let sight = check(&mut seen, sign, 131);
            assert_eq!(matches!(sight, Sight::Confirmed(_)), confirmed, "{sign:?}");
            assert_eq!(sight == Sight::Contradicted, !confirmed, "{sign:?}");
        }
    }

    #[test]
    fn t23_a_sign_of_life_while_it_reads_off_is_not_taken_back() {
        let mut seen = OffSeen::default();
        read(&mut seen, Reading::Off, 100);
        assert_eq!(check(&mut seen, HealthSign::Alive, 101), counting(102));
        check(&mut seen, HealthSign::Dead, 110);
        read(&mut seen, Reading::Off, 115);
        assert_eq!(read(&mut seen, Reading::Off, 130), Sight::Contradicted);
        assert_eq!(read(&mut seen, Reading::Off, 140), Sight::Nothing);
    }

    #[test]
    fn a_reboot_passes_through_off() {
        for between in [Reading::On, Reading::Transitioning] {
            let mut seen = OffSeen::default();
            for second in [100, 110, 120] {
                read(&mut seen, Reading::Off, second);
            }
            assert_eq!(read(&mut seen, between, 125), Sight::Nothing);
            assert_eq!(read(&mut seen, Reading::Off, 131), counting(133));
        }
    }

    #[test]
    fn readings_too_close_count_once() {
        let mut offs = Offs::default();
        let count = CountRules::of(&HaSettings::default(), "redfish", true);
        assert_eq!(count.apart, Duration::from_secs(5));
        for second in 100..111 {
            offs.read(Reading::Off, Duration::from_secs(second), at(second), count);
        }
        assert_eq!(offs.len(), 3);
    }

    #[test]
    fn nothing_automatic_believes_one_reading() {
        let settings = HaSettings { confirmations: 1, ..HaSettings::default() };
        assert_eq!(CountRules::of(&settings, "ipmi", true).confirmations, 2);
        assert_eq!(CountRules::of(&settings, "ipmi", false).confirmations, 1);
    }

    #[test]
    fn a_long_off_keeps_its_first_reading_and_stays_small() {
        let mut offs = Offs::default();
        for second in (100..1000).step_by(2) {
            offs.read(Reading::Off, Duration::from_secs(second), at(second), rules().count);
        }
        assert_eq!((offs.len(), offs.times().next()), (64, Some(at(100).wall.into())));
        assert_eq!(offs.times().last(), Some(at(998).wall.into()));
    }

    proptest! {
        /// Confirmed is never said but after N Off readings, far enough apart, over the settling time, with nothing else
        /// between them, and a check after the first of them that did not say Alive.
        #[test]
        fn confirmed_means_all_of_it(happened in prop::collection::vec((0_u8..8, 0_u64..7), 0..120)) {
            let mut seen = OffSeen::default();
            let (mut second, mut offs, mut alive, mut checked) = (1000, Vec::<u64>::new(), false, false);
            for (what, later) in happened {
                second += later;
                let sight = match what {
                    0..=4 => {
                        if offs.last().is_none_or(|last| second >= last + 2) {
                            offs.push(second);
                        }
                        read(&mut seen, Reading::Off, second)
                    }
                    5 => {
                        (offs, alive, checked) = (vec![], false, false);
                        read(&mut seen, if later > 3 { Reading::On } else { Reading::Transitioning }, second)
                    }
                    sign => {
                        (alive, checked) = if offs.is_empty() { (false, false) } else { (alive || sign == 6, true) };
                        check(&mut seen, if sign == 6 { HealthSign::Alive } else { HealthSign::Dead }, second)
                    }
                };
                if let Sight::Confirmed(_) = sight {
                    prop_assert!(offs.len() >= 3 && offs[offs.len() - 1] - offs[0] >= 30, "{offs:?}");
                    prop_assert!(checked && !alive);
                }
            }
        }
    }
}
