//! The bytes between agent and aggregator: topics, the frame, and the messages inside it.

pub mod assign;
pub mod codec;
pub mod down;
pub mod ha;
pub mod report;
pub mod topic;

use serde::{Deserialize, Serialize};

/// A time on the wire: microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub i64);

impl From<jiff::Timestamp> for Time {
    fn from(timestamp: jiff::Timestamp) -> Self {
        Self(timestamp.as_microsecond())
    }
}

impl Time {
    /// As a timestamp; a value out of range becomes the nearest one.
    #[must_use]
    pub fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX })
    }
}

/// A journal's incarnation: made with the agent's redb file, not with its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub uuid::Uuid);

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

/// One connection of an agent; a will that carries an older one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(pub uuid::Uuid);

/// Which version of an assignment: a restored backup has another store, so it cannot look newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation {
    /// Incarnation of the aggregator's store.
    pub store: uuid::Uuid,
    /// Counts up within it.
    pub counter: u64,
}
