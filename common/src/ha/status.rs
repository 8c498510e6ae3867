//! What a state is called, and what it means to whoever runs workloads.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Fenced, HaState};

/// The name of a state, without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is the state of its name")]
pub enum HaName {
    Disabled,
    Ineligible,
    Available,
    Suspect,
    Checking,
    Degraded,
    Recovering,
    Recovered,
    Fencing,
    Fenced,
}

impl HaName {
    /// Lower-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Ineligible => "ineligible",
            Self::Available => "available",
            Self::Suspect => "suspect",
            Self::Checking => "checking",
            Self::Degraded => "degraded",
            Self::Recovering => "recovering",
            Self::Recovered => "recovered",
            Self::Fencing => "fencing",
            Self::Fenced => "fenced",
        }
    }
}

impl fmt::Display for HaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an orchestrator may conclude. Only [`HostStatus::Down`] may release workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostStatus {
    /// It runs.
    Up,
    /// It is not well, and may still be writing.
    Disconnected,
    /// It is proven off.
    Down,
    /// Nobody watches over it, or its word is old.
    Unknown,
}

impl HostStatus {
    /// Lower-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Disconnected => "disconnected",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for HostStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl HaState {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> HaName {
        match self {
            Self::Disabled => HaName::Disabled,
            Self::Ineligible(_) => HaName::Ineligible,
            Self::Available { .. } => HaName::Available,
            Self::Suspect => HaName::Suspect,
            Self::Checking { .. } => HaName::Checking,
            Self::Degraded(_) => HaName::Degraded,
            Self::Recovering { .. } => HaName::Recovering,
            Self::Recovered => HaName::Recovered,
            Self::Fencing(_) => HaName::Fencing,
            Self::Fenced(_) => HaName::Fenced,
        }
    }

    /// What an orchestrator may conclude from it, while it is fresh.
    #[must_use]
    pub const fn host_status(&self) -> HostStatus {
        match self {
            Self::Fenced(Fenced { returned: false, .. }) => HostStatus::Down,
            Self::Degraded(_) | Self::Recovering { .. } | Self::Fencing(_) | Self::Fenced(_) => HostStatus::Disconnected,
            Self::Available { .. } | Self::Suspect | Self::Checking { .. } | Self::Recovered => HostStatus::Up,
            Self::Disabled | Self::Ineligible(_) => HostStatus::Unknown,
        }
    }

    /// Whether it counts towards a storm, unless somebody said that this is known.
    #[must_use]
    pub const fn is_unwell(&self) -> bool {
        matches!(self, Self::Suspect | Self::Checking { .. } | Self::Recovering { .. } | Self::Fencing(_) | Self::Fenced(_))
    }
}
