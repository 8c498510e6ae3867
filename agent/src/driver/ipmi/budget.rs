//! How many BMCs may be about to answer at once, so that their answers fit into the receive buffer.
//!
//! A place is taken by sending and given back by the answer, or after [`PATIENCE`]: an answer that late meets an empty
//! buffer, and silent BMCs must not hold up the others.

use std::collections::VecDeque;
use std::time::Duration;

/// What one queued datagram costs of a receive buffer, kernel overhead included.
const DATAGRAM_COST: usize = 1500;
/// How long a place is held for an answer that does not come.
const PATIENCE: Duration = Duration::from_millis(100);

/// A place in the budget; its number tells it from earlier places of the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

/// See the module.
pub struct Budget {
    cap: usize,
    taken: usize,
    serial: u64,
    /// Places by when they end, with their slots.
    ends: VecDeque<(Duration, u16, Place)>,
}

impl Budget {
    /// A budget for a receive buffer of `buffer` bytes.
    pub const fn new(buffer: usize) -> Self {
        let cap = buffer / DATAGRAM_COST;
        Self { cap: if cap == 0 { 1 } else { cap }, taken: 0, serial: 0, ends: VecDeque::new() }
    }

    pub const fn is_full(&self) -> bool {
        self.taken >= self.cap
    }

    /// Takes a place for `slot`, also above the cap: what is open already must go on.
    pub fn take(&mut self, now: Duration, slot: u16) -> Place {
        self.taken += 1;
        self.serial += 1;
        let place = Place(self.serial);
        self.ends.push_back((now + PATIENCE, slot, place));
        place
    }

    /// Gives one place back.
    pub const fn give_back(&mut self) {
        self.taken = self.taken.saturating_sub(1);
    }

    /// The next place whose time is over: its slot and itself, which may have been given back long ago.
    pub fn expired(&mut self, now: Duration) -> Option<(u16, Place)> {
        let (end, slot, place) = *self.ends.front()?;
        if end > now {
            return None;
        }
        self.ends.pop_front();
        Some((slot, place))
    }

    /// When the next place ends.
    pub fn next_end(&self) -> Option<Duration> {
        self.ends.front().map(|(end, _, _)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_by_answers_and_by_time() {
        let mut budget = Budget::new(2 * DATAGRAM_COST);
        let first = budget.take(Duration::ZERO, 1);
        assert!(!budget.is_full());
        budget.take(Duration::ZERO, 2);
        assert!(budget.is_full());
        budget.give_back();
        assert!(!budget.is_full());
        assert_eq!(budget.expired(PATIENCE - Duration::from_millis(1)), None);
        assert_eq!(budget.expired(PATIENCE), Some((1, first)));
        assert_eq!(Budget::new(0).cap, 1, "never nothing");
    }
}
