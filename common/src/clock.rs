//! What time it is, as a value. Never reads a clock: each daemon's `clock` module does, and hands the answer in.

use std::time::Duration;

use jiff::Timestamp;

/// One instant on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since the machine started, suspended time included (`CLOCK_BOOTTIME`): for intervals and deadlines.
    pub boottime: Duration,
    /// UTC: for display, and for what must hold across restarts.
    pub wall: Timestamp,
}

impl Now {
    /// This instant moved forward by `by` on both clocks (the wall clock saturates at its end).
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        let wall = self.wall.saturating_add(by).unwrap_or(Timestamp::MAX);
        Self { boottime: self.boottime.saturating_add(by), wall }
    }
}
