//! The driver's memory in the agent's journal.

use picket_common::id::HostId;

use super::{Memory, RedfishMemory};

/// Loads a host's bytes.
pub type LoadBytes = Box<dyn Fn(&HostId) -> Option<Vec<u8>> + Send + Sync>;
/// Keeps a host's bytes, durably.
pub type StoreBytes = Box<dyn Fn(&HostId, &[u8]) + Send + Sync>;

/// Memories as bytes in somebody else's store.
pub struct Kept {
    load: LoadBytes,
    store: StoreBytes,
}

impl Kept {
    /// Keeps memories by these two functions.
    #[must_use]
    pub const fn new(load: LoadBytes, store: StoreBytes) -> Self {
        Self { load, store }
    }
}

impl Memory for Kept {
    fn load(&self, host: &HostId) -> Option<RedfishMemory> {
        let memory: RedfishMemory = postcard::from_bytes(&(self.load)(host)?).ok()?;
        (memory.version == RedfishMemory::VERSION).then_some(memory)
    }

    fn store(&self, host: &HostId, memory: &RedfishMemory) {
        // A memory is bounded text and always encodes.
        if let Ok(bytes) = postcard::to_stdvec(memory) {
            (self.store)(host, &bytes);
        }
    }

    /// Forgets the sessions only. The pin stays until the host leaves the rack or its address changes: a disabled and enabled
    /// host, or one with a new password, must not trust whatever answers first.
    fn forget(&self, host: &HostId) {
        if let Some(mut memory) = self.load(host).filter(|memory| !memory.sessions.is_empty()) {
            memory.sessions.clear();
            self.store(host, &memory);
        }
    }
}
