//! The simulator's one place that reads clocks. Never used by the daemons under test.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic now.
#[expect(clippy::disallowed_methods, reason = "the simulator's only monotonic clock")]
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Wall clock in microseconds since the Unix epoch: what call logs carry, so that a harness can compare.
#[expect(clippy::disallowed_methods, reason = "the simulator's only wall clock")]
#[must_use]
pub fn unix_us() -> u64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The wall clock of a monotonic instant that lies near `now`, in microseconds since the Unix epoch.
#[must_use]
pub fn unix_us_at(at: Instant) -> u64 {
    let (now, wall) = (now(), unix_us());
    wall.saturating_sub(micros(now.saturating_duration_since(at))).saturating_add(micros(at.saturating_duration_since(now)))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
