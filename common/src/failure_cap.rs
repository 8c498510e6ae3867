//! The cap on power-downs: at most so many in a sliding window, per cluster and per agent. It counts; whoever sends asks first.
//!
//! Counted once for each fence, before its first off is sent; retries of the same fence are free. Times are wall-clock, because
//! the count survives restarts; one that lies ahead of the clock counts until the clock has passed it by a window.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A cap's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    /// Most power-downs in a window.
    pub most: u16,
    /// The window.
    pub window: Duration,
}

impl Cap {
    /// Of a cluster: three an hour.
    pub const CLUSTER: Self = Self { most: 3, window: Duration::from_secs(3600) };
    /// Of an agent: six an hour.
    pub const AGENT: Self = Self { most: 6, window: Duration::from_secs(3600) };
}

/// The power-downs that count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerDowns(VecDeque<Timestamp>);

impl PowerDowns {
    /// How many count now.
    #[must_use]
    pub fn count(&self, cap: Cap, now: Timestamp) -> usize {
        self.0.iter().filter(|at| counts(**at, cap, now)).count()
    }

    /// When the next one is allowed: `None` = now.
    #[must_use]
    pub fn next_allowed(&self, cap: Cap, now: Timestamp) -> Option<Timestamp> {
        let mut counting: Vec<Timestamp> = self.0.iter().copied().filter(|at| counts(*at, cap, now)).collect();
        let too_many = (counting.len() + 1).checked_sub(usize::from(cap.most)).filter(|&more| more > 0)?;
        counting.sort_unstable();
        let last_to_go = counting.get(too_many - 1).copied();
        // With a cap of none nothing ever goes.
        Some(last_to_go.map_or(Timestamp::MAX, |at| at.saturating_add(cap.window).unwrap_or(Timestamp::MAX)))
    }

    /// Notes one, and forgets those that do not count any more.
    pub fn note(&mut self, cap: Cap, now: Timestamp) {
        self.0.retain(|at| counts(*at, cap, now));
        self.0.push_back(now);
    }
}

fn counts(at: Timestamp, cap: Cap, now: Timestamp) -> bool {
    at.saturating_add(cap.window).is_ok_and(|end| now < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn three_an_hour_and_the_next_as_the_hour_slides() {
        let mut downs = PowerDowns::default();
        for second in [0, 600, 1200] {
            assert_eq!(downs.next_allowed(Cap::CLUSTER, at(second)), None, "{second}");
            downs.note(Cap::CLUSTER, at(second));
        }
        assert_eq!(downs.next_allowed(Cap::CLUSTER, at(1201)), Some(at(3600)));
        assert_eq!(downs.next_allowed(Cap::CLUSTER, at(3599)), Some(at(3600)));
        assert_eq!(downs.next_allowed(Cap::CLUSTER, at(3600)), None);
        downs.note(Cap::CLUSTER, at(3600));
        assert_eq!(downs.next_allowed(Cap::CLUSTER, at(3601)), Some(at(4200)));
        assert_eq!(downs.count(Cap::CLUSTER, at(3601)), 3);
    }

    #[test]
    fn a_cap_of_none_allows_none() {
        let none = Cap { most: 0, ..Cap::CLUSTER };
        assert_eq!(PowerDowns::default().next_allowed(none, at(0)), Some(Timestamp::MAX));
    }

    #[test]
    fn a_clock_set_back_frees_nothing() {
        let mut downs = PowerDowns::default();
        (0..3).for_each(|_| downs.note(Cap::CLUSTER, at(10_000)));
        assert_eq!(downs.next_allowed(Cap::CLUSTER, at(100)), Some(at(13_600)));
    }
}
