//! The one place that reads a clock.

use std::time::Duration;

use picket_common::clock::Now;
use rustix::time::{ClockId, clock_gettime};

/// The present instant on both clocks.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
pub fn now() -> Now {
    Now { boottime: boottime(), wall: jiff::Timestamp::now() }
}

/// Time since the machine started, suspended time included.
#[must_use]
pub fn boottime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
