//! Fencing one host, step by step: what proves that it is off, and how it is brought there. Pure: says what to ask next.

mod offs;

use std::time::Duration;

pub use self::offs::{Count, CountRules, OffSeen, Offs, SeenRules, Sight};

/// What a health check said, the path to the host known to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthSign {
    /// The host answers.
    Alive,
    /// It does not, and the same path reaches others.
    Dead,
    /// It could not be found out.
    CannotTell,
}

/// A health check that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health<'a> {
    /// What it said.
    pub sign: HealthSign,
    /// When it was begun (boottime): it says nothing of what came after.
    pub begun: Duration,
    /// The same in one sentence.
    pub said: &'a str,
}
