//! When each host wants to be looked at. An entry whose stamp is no longer the host's is stale and means nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// A heap of (due, slot, stamp), earliest first.
#[derive(Debug, Default)]
pub struct Schedule(BinaryHeap<Reverse<(Duration, usize, u64)>>);

impl Schedule {
    /// Adds an entry.
    pub fn push(&mut self, due: Duration, slot: usize, stamp: u64) {
        self.0.push(Reverse((due, slot, stamp)));
    }

    /// The earliest entry's time.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.0.peek().map(|Reverse((due, ..))| *due)
    }

    /// Takes the earliest entry if it is due.
    pub fn pop_due(&mut self, now: Duration) -> Option<(usize, u64)> {
        self.next().filter(|due| *due <= now)?;
        self.0.pop().map(|Reverse((_, slot, stamp))| (slot, stamp))
    }
}
