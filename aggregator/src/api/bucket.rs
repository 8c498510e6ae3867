//! Token buckets: how much of something is let through at once, and how soon there is more.

use std::time::Duration;

/// A bucket that is full at first.
#[derive(Debug, Clone)]
pub struct Bucket {
    burst: u32,
    refill: Duration,
    used: u32,
    since: Duration,
}

impl Bucket {
    /// Lets `burst` through at once, and one more after each `refill`.
    #[must_use]
    pub const fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, used: 0, since: Duration::ZERO }
    }

    /// How many came back since some were taken last.
    fn back(&self, boottime: Duration) -> u32 {
        let back = boottime.saturating_sub(self.since).as_nanos() / self.refill.as_nanos().max(1);
        u32::try_from(back).unwrap_or(u32::MAX)
    }

    /// Whether it is as if nothing had ever been taken.
    #[must_use]
    pub fn is_full(&self, boottime: Duration) -> bool {
        self.back(boottime) >= self.used
    }

    /// Whether one more may pass at `boottime`.
    pub fn take(&mut self, boottime: Duration) -> bool {
        let back = self.back(boottime);
        if back > 0 {
            self.used = self.used.saturating_sub(back);
            self.since = boottime;
        }
        let free = self.used < self.burst;
        self.used += u32::from(free);
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_fills_and_drains() {
        let refill = Duration::from_millis(100);
        let mut bucket = Bucket::new(64, refill);
        let at = Duration::from_secs(1000);
        assert!((0..64).all(|_| bucket.take(at)));
        assert!(!bucket.take(at) && !bucket.take(at + refill / 2));
        assert!(bucket.take(at + refill) && !bucket.take(at + refill));
        assert!((0..64).all(|_| bucket.take(at + refill * 1000)));
    }
}
