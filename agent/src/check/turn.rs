//! One check's time: when it began, how much is left, and what it means when nothing is.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::timeout;

use crate::clock;
use crate::sign::{Check, CheckJob, Sign};

/// A timer this late was not late by itself: the agent was held up, and what it did not hear in the meantime says nothing.
const HELD_UP: Duration = Duration::from_secs(1);

/// One job's turn.
pub(super) struct Turn<'a> {
    pub job: &'a CheckJob,
    taken: Duration,
    ends: Duration,
    begun: OnceLock<Duration>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(job: &'a CheckJob, taken: Duration) -> Self {
        Self { job, taken, ends: taken.saturating_add(job.timeout), begun: OnceLock::new() }
    }

    /// Its place is there. A check that waited for more than half of its time could take its own lateness for silence.
    pub(super) fn begin(&self) -> Result<(), Sign> {
        if self.left() < self.job.timeout / 2 || self.left().is_zero() {
            return Err(crowded());
        }
        self.begun.get_or_init(clock::boottime);
        Ok(())
    }

    /// When it was begun (boottime).
    pub(super) fn begun(&self) -> Duration {
        *self.begun.get().unwrap_or(&self.taken)
    }

    pub(super) fn left(&self) -> Duration {
        self.ends.saturating_sub(clock::boottime())
    }

    /// What comes within the time that is left.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        timeout(self.left(), work).await.ok()
    }

    /// The time is over and the other side has said nothing: dead for a health check, unknown for any other.
    pub(super) fn silent(&self, what: String) -> Sign {
        let late = clock::boottime().saturating_sub(self.ends) > HELD_UP;
        match &self.job.check {
            _ if late => Sign::CannotTell(format!("the agent itself was held up ({what})")),
            Check::Health(_) | Check::Reference(_) => Sign::Dead(what),
            Check::Activity(_) => Sign::CannotTell(what),
        }
    }

    /// How long it was given, for people.
    pub(super) fn given(&self) -> String {
        format!("{:.1} s", self.job.timeout.as_secs_f64())
    }
}

/// It was not begun in time.
pub(super) fn crowded() -> Sign {
    Sign::CannotTell("it could not be begun in time: too many checks are under way".into())
}
