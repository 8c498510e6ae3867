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

/// Which boot of the machine this is, as the kernel says; where it does not, this process counts as one.
#[must_use]
pub fn machine_boot() -> uuid::Uuid {
    let said = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    said.and_then(|text| text.trim().parse().ok()).unwrap_or_else(uuid::Uuid::new_v4)
}
