//! What the driver must not forget when the agent ends: pins, chosen systems, sessions to be closed. Never a password or a token.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use picket_common::id::HostId;
use serde::{Deserialize, Serialize};

/// What is remembered of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedfishMemory {
    /// [`RedfishMemory::VERSION`] of the writer.
    pub version: u8,
    /// `address:port` of the BMC; for any other address nothing of this counts.
    pub address: String,
    /// SHA-256 of the end-entity certificate seen at first use.
    pub pin: Option<[u8; 32]>,
    /// The chosen system.
    pub system: Option<RememberedSystem>,
    /// Paths of sessions that may still be open; at most [`RedfishMemory::MAX_SESSIONS`].
    pub sessions: Vec<String>,
}

/// Which system of the BMC the host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedSystem {
    /// The option `system` under which it was chosen; empty for "the only one".
    pub named: String,
    /// Its path.
    pub path: String,
    /// Its UUID, where it has one.
    pub uuid: Option<String>,
}

impl RedfishMemory {
    /// The present layout.
    pub const VERSION: u8 = 1;

    /// The most sessions that are remembered; BMCs allow 5 to 64.
    pub const MAX_SESSIONS: usize = 8;

    /// Nothing known yet about the BMC at `address`.
    #[must_use]
    pub const fn new(address: String) -> Self {
        Self { version: Self::VERSION, address, pin: None, system: None, sessions: Vec::new() }
    }

    pub(super) fn add_session(&mut self, session: &str) {
        self.sessions.retain(|known| known != session);
        if self.sessions.len() >= Self::MAX_SESSIONS {
            self.sessions.remove(0);
        }
        self.sessions.push(session.to_owned());
    }
}

/// Where memories live: the agent's journal. Called from threads that may block shortly, and only when something changed.
pub trait Memory: Send + Sync {
    /// What is remembered of `host`.
    fn load(&self, host: &HostId) -> Option<RedfishMemory>;

    /// Remembers; durable when it returns, as far as the keeper can.
    fn store(&self, host: &HostId, memory: &RedfishMemory);

    /// Forgets all about `host`.
    fn forget(&self, host: &HostId);
}

/// Remembers until the process ends.
#[derive(Debug, Default)]
pub struct Volatile(Mutex<HashMap<HostId, RedfishMemory>>);

impl Memory for Volatile {
    fn load(&self, host: &HostId) -> Option<RedfishMemory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    fn store(&self, host: &HostId, memory: &RedfishMemory) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), memory.clone());
    }

    fn forget(&self, host: &HostId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_bounded_and_unique() {
        let mut memory = RedfishMemory::new("10.0.0.9:443".into());
        for n in 0..20 {
            memory.add_session(&format!("/s/{n}"));
            memory.add_session("/s/again");
        }
        assert_eq!(memory.sessions.len(), RedfishMemory::MAX_SESSIONS);
        assert_eq!(memory.sessions.last().map(String::as_str), Some("/s/again"));
        assert_eq!(memory.sessions.iter().filter(|s| *s == "/s/again").count(), 1);
    }

    #[test]
    fn survives_postcard() {
        let mut memory = RedfishMemory::new("10.0.0.9:443".into());
        memory.pin = Some([7; 32]);
        memory.system = Some(RememberedSystem { named: String::new(), path: "/s/1".into(), uuid: None });
        let bytes = postcard::to_stdvec(&memory).unwrap();
        assert_eq!(bytes.first(), Some(&RedfishMemory::VERSION), "the version is read before all else");
        assert_eq!(postcard::from_bytes::<RedfishMemory>(&bytes).unwrap(), memory);
    }
}
