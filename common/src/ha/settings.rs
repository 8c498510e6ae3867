//! Host-HA's numbers and checks, as they are in force for one host. The aggregator resolves them; the agent obeys them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{OutagePolicy, Rules};
use crate::id::HostId;

/// Most health checks, and most activity checks, of a host.
pub const MAX_CHECKS: usize = 8;
/// Most files of one activity check.
pub const MAX_FILES: usize = 64;
/// Most neighbours that are asked about a host's files.
pub const MAX_NEIGHBOURS: usize = 8;
/// Least confirmations of anything automatic.
pub const LEAST_CONFIRMATIONS: u8 = 2;

/// All that host-HA obeys for one host. Times in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaSettings {
    /// What is done about a host that is Dead and inactive.
    pub policy: OutagePolicy,
    /// Whether anything is sent at all.
    pub mode: Mode,
    /// Its health checks; any Alive is Alive.
    pub health: Vec<HealthCheck>,
    /// Its activity checks; any Alive is active.
    pub activity: Vec<ActivityCheck>,
    /// What a host without activity checks is taken for.
    pub nothing_to_check: NothingToCheck,
    /// Pause between two health checks.
    pub health_interval: u16,
    /// Longest time of a health check.
    pub health_timeout: u16,
    /// Failed health checks that make it suspect.
    pub failures: u8,
    /// Pause between two samples of its activity.
    pub activity_interval: u16,
    /// Longest time of a sample.
    pub activity_timeout: u16,
    /// Dead samples that make it inactive.
    pub samples: u8,
    /// A degraded host is looked at again after this.
    pub recheck: u32,
    /// Resets before it is switched off.
    pub recovery_attempts: u8,
    /// Time a host is given to boot.
    pub boot_wait: u32,
    /// Time a recovered host is watched.
    pub stable: u32,
    /// Attempts of a fence before it is told to be unconfirmed.
    pub fence_attempts: u16,
    /// Pause between the attempts after those.
    pub fence_retry: u32,
    /// How long an Off that nobody ordered must last before it is looked at as a fence.
    pub settle: u16,
    /// Off readings one after another that prove.
    pub confirmations: u8,
    /// Time one attempt has to read them.
    pub confirm_within: u16,
    /// None of its fences in the first so many seconds after the agent started.
    pub startup_quiet: u32,
    /// Whether its devices need not say which machine they belong to.
    pub identity_waived: bool,
    /// A fenced host that comes back is fenced again.
    pub fence_on_return: bool,
}

impl Default for HaSettings {
    fn default() -> Self {
        Self {
            policy: OutagePolicy::default(),
            mode: Mode::default(),
            health: Vec::new(),
            activity: Vec::new(),
            nothing_to_check: NothingToCheck::default(),
            health_interval: 5,
            health_timeout: 10,
            failures: 3,
            activity_interval: 10,
            activity_timeout: 30,
            samples: 6,
            recheck: 300,
            recovery_attempts: 1,
            boot_wait: 600,
            stable: 60,
            fence_attempts: 10,
            fence_retry: 300,
            settle: 30,
            confirmations: 3,
            confirm_within: 60,
            startup_quiet: 300,
            identity_waived: false,
            fence_on_return: false,
        }
    }
}

impl HaSettings {
    /// What the state machine needs of them.
    #[must_use]
    pub const fn rules(&self) -> Rules {
        Rules { failures: self.failures, samples: self.samples, recovery_attempts: self.recovery_attempts, policy: self.policy }
    }

    /// Longest stay in Checking: 2 × samples × (interval + timeout).
    #[must_use]
    pub fn checking_within(&self) -> Duration {
        let sample = u64::from(self.activity_interval) + u64::from(self.activity_timeout);
        Duration::from_secs(2 * u64::from(self.samples) * sample)
    }
}

/// Whether host-HA acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It acts.
    #[default]
    Act,
    /// It decides all the same, and sends nothing.
    Observe,
}

/// See [`HaSettings::nothing_to_check`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NothingToCheck {
    /// It may be writing: never fenced by policy.
    #[default]
    AssumeActive,
    /// Its health alone decides.
    AssumeInactive,
}

/// How to find out whether a host is well. Alive, or Dead: refused, or silent although the path to it works.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum HealthCheck {
    /// Its own witness, over mutual TLS.
    Witness {
        /// IP address or name.
        address: String,
        /// Port; absent = 8445.
        port: Option<u16>,
    },
    /// A TCP connection is accepted.
    Tcp {
        /// IP address or name.
        address: String,
        /// Port.
        port: u16,
    },
    /// A GET is answered with 2xx or 3xx.
    Http {
        /// `http://` or `https://` without a login.
        url: String,
    },
    /// An ICMP echo is answered.
    Icmp {
        /// IP address or name.
        address: String,
    },
    /// A program of the agent's own file: exit code 0 is Alive, 1 is Dead, any other cannot tell.
    Exec {
        /// Its name there.
        check: String,
    },
}

/// How to find out whether a host still writes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ActivityCheck {
    /// Files of its own that the agent can see.
    Files {
        /// Absolute paths; none = what the host's own witness told while it was well.
        paths: Vec<String>,
    },
    /// Files of its own that the witnesses of its neighbours can see.
    Witness {
        /// Absolute paths; none = what the host's own witness told while it was well.
        paths: Vec<String>,
        /// Whom to ask; absent = chosen by the aggregator.
        #[serde(default)]
        neighbours: Vec<Neighbour>,
    },
    /// The file that its witness writes to shared storage, as the agent sees it.
    Heartbeat {
        /// Absolute path.
        path: String,
    },
    /// A program of the agent's own file: exit code 0 is Alive, 1 is Dead, any other cannot tell.
    Exec {
        /// Its name there.
        check: String,
    },
}

/// A host whose witness can be asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// Which host: its witness's certificate bears this name.
    pub host: HostId,
    /// IP address or name.
    pub address: String,
    /// Port; absent = 8445.
    pub port: Option<u16>,
}

/// Port of a witness.
pub const WITNESS_PORT: u16 = 8445;
