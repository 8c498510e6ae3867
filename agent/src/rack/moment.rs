//! Instants that outlive the process: exact within one boot of the machine, by the wall clock beyond it. Reads no clock.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::wire::Time;
use serde::{Deserialize, Serialize};

/// One boot of the machine: monotonic times of another boot mean nothing in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineBoot(pub uuid::Uuid);

/// An instant on both clocks, and the boot that the monotonic one belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Which boot.
    pub boot: MachineBoot,
    /// Time since that boot.
    pub boottime: Duration,
    /// UTC.
    pub wall: Time,
}

impl Moment {
    /// The instant `now` of the machine's boot `boot`.
    #[must_use]
    pub fn at(boot: MachineBoot, now: Now) -> Self {
        Self { boot, boottime: now.boottime, wall: now.wall.into() }
    }

    /// The same instant in the terms of `boot`. Over a reboot it is as right as the wall clock, and what lies before this boot
    /// becomes its start.
    #[must_use]
    pub fn seen_from(self, boot: MachineBoot, now: Now) -> Self {
        if self.boot == boot {
            return self;
        }
        let ahead = self.wall.0.saturating_sub(Time::from(now.wall).0);
        let by = Duration::from_micros(ahead.unsigned_abs());
        let boottime = if ahead < 0 { now.boottime.saturating_sub(by) } else { now.boottime.saturating_add(by) };
        Self { boot, boottime, wall: self.wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_within_a_boot_and_by_the_wall_clock_beyond_it() {
        let (first, second) = (MachineBoot(uuid::Uuid::nil()), MachineBoot(uuid::Uuid::max()));
        let now = |boottime, wall: i64| Now {
            boottime: Duration::from_secs(boottime),
            wall: jiff::Timestamp::from_second(1_800_000_000 + wall).unwrap(),
        };
        let moment = Moment::at(first, now(1000, 0));
        // The wall clock was set back by a day: within a boot that moves nothing.
        assert_eq!(moment.seen_from(first, now(1010, -86_400)).boottime, Duration::from_secs(1000));
        for (boottime, wall, wanted) in [(50, 20, 30), (5, 20, 0), (50, -10, 60)] {
            let seen = moment.seen_from(second, now(boottime, wall));
            assert_eq!((seen.boottime, seen.boot), (Duration::from_secs(wanted), second), "{boottime} {wall}");
        }
    }
}
