//! A token bucket: how long to wait before the next packet is taken. Pure: time is handed in.

use std::time::Duration;

/// Tokens come at a steady rate up to a burst; a debt is paid by waiting.
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    /// How far ahead of the steady rate one may run.
    slack: Duration,
    /// When the bucket is full again, in the caller's time.
    full_at: Duration,
}

impl Bucket {
    /// `per_second` tokens a second (0 counts as 1), `burst` at once.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, slack: interval * burst.max(1), full_at: Duration::ZERO }
    }

    /// Takes one token at `now`; the caller waits for what is returned before it goes on.
    pub(super) fn take(&mut self, now: Duration) -> Duration {
        self.full_at = self.full_at.max(now) + self.interval;
        (self.full_at - now).saturating_sub(self.slack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_then_the_rate_holds() {
        let mut bucket = Bucket::new(10, 5);
        let mut now = Duration::from_secs(100);
        for _ in 0..5 {
            assert_eq!(bucket.take(now), Duration::ZERO);
        }
        for _ in 0..20 {
            let wait = bucket.take(now);
            assert_eq!(wait, Duration::from_millis(100));
            now += wait;
        }
        now += Duration::from_secs(60);
        for _ in 0..5 {
            assert_eq!(bucket.take(now), Duration::ZERO, "an idle time refills the burst, no more");
        }
        assert!(bucket.take(now) > Duration::ZERO);
    }
}
