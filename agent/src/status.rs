//! What `picket-agent status` shows: a small file the daemon writes at each heartbeat. Never a secret.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use picket_common::id::AgentId;
use picket_common::power::PowerState;
use serde::{Deserialize, Serialize};

use crate::rack::Rack;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Agent id.
    pub agent: AgentId,
    /// When this was written.
    pub at: Timestamp,
    /// Process id.
    pub pid: u32,
    /// Whether the aggregator is connected.
    pub connected: bool,
    /// Hosts assigned.
    pub hosts: usize,
    /// Of these on.
    pub on: usize,
    /// Of these off.
    pub off: usize,
    /// Of these unknown.
    pub unknown: usize,
    /// Of these disabled.
    pub disabled: usize,
    /// Hosts that need not be asked any more what their BMC is.
    #[serde(default)]
    pub inspected: usize,
    /// Reports not yet acknowledged.
    pub outbox: u64,
    /// Messages of the centre refused for their signature or form.
    pub refused_messages: u64,
    /// Whether the journal can be written.
    pub journal: bool,
}

impl Status {
    /// Counts a rack's hosts.
    pub fn count(&mut self, rack: &Rack) {
        let count = |state| rack.rows().filter(|row| row.power == state).count();
        self.hosts = rack.host_count();
        self.on = count(PowerState::On);
        self.off = count(PowerState::Off);
        self.unknown = count(PowerState::Unknown);
        self.disabled = count(PowerState::Disabled);
        self.inspected = rack.inspected();
    }

    /// Writes the file whole.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        let path = file(state_dir);
        let draft = path.with_extension("new");
        std::fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(draft, path)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The system's; `NotFound` when the daemon never ran here.
    pub fn read(state_dir: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(file(state_dir))?)?)
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("status.json")
}
