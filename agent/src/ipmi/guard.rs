//! Logins that the BMC refused, or left unanswered while it answered everything else: after two within fifteen minutes
//! there is no third, whoever asks and whatever the failures were called, so that no account is locked out from here.

use std::time::Duration;

/// Two refusals within this time are all; longer than the usual lock-out window of a BMC.
const WINDOW: Duration = Duration::from_secs(15 * 60);

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {
    older: Option<Duration>,
    newer: Option<Duration>,
}

impl Guard {
    /// Takes a refusal down.
    pub const fn refused(&mut self, now: Duration) {
        self.older = self.newer;
        self.newer = Some(now);
    }

    /// A login worked: what was before says nothing any more.
    pub const fn succeeded(&mut self) {
        *self = Self { older: None, newer: None };
    }

    /// Whether no login may be begun now.
    #[must_use]
    pub fn is_shut(&self, now: Duration) -> bool {
        self.older.is_some_and(|older| now < older + WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_within_fifteen_minutes_are_all() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let mut guard = Guard::default();
        guard.refused(minutes(1));
        assert!(!guard.is_shut(minutes(1)));
        guard.refused(minutes(9));
        assert!(guard.is_shut(minutes(9)) && guard.is_shut(minutes(15)));
        assert!(!guard.is_shut(minutes(16)), "the first is long ago");
        guard.refused(minutes(16));
        assert!(guard.is_shut(minutes(23)) && !guard.is_shut(minutes(24)));
        guard.succeeded();
        assert!(!guard.is_shut(minutes(16)));
    }
}
