//! The driver's memory in the agent's journal.

use picket_common::id::HostId;

use super::{Memory, RedfishMemory};

/// Loads a host's bytes; an error means that it is not known whether there are any.
pub type LoadBytes = Box<dyn Fn(&HostId) -> Result<Option<Vec<u8>>, Unreadable> + Send + Sync>;

/// What is remembered cannot be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

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
    /// What cannot be read is a memory of no known version, never "nothing known": the driver then refuses to go on, for it
    /// would take whatever certificate comes for the first.
    fn load(&self, host: &HostId) -> Option<RedfishMemory> {
        let unreadable = || RedfishMemory { version: 0, ..RedfishMemory::new(String::new()) };
        match (self.load)(host) {
            Ok(bytes) => bytes.map(|bytes| postcard::from_bytes(&bytes).unwrap_or_else(|_| unreadable())),
            Err(Unreadable) => Some(unreadable()),
        }
    }

    fn store(&self, host: &HostId, memory: &RedfishMemory) {
        // A memory is bounded text and always encodes.
        if let Ok(bytes) = postcard::to_stdvec(memory) {
            (self.store)(host, &bytes);
        }
    }

    /// Keeps all: the pin holds until the host leaves the rack or its address changes, for a disabled and enabled host, or one
    /// with a new password, must not trust whatever answers first; and a session that could not be closed is closed later.
    fn forget(&self, _host: &HostId) {}
}
