//! What a state is called, and what it means to whoever runs workloads.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Degraded, Fenced, Gate, HaState, Ineligible};

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
    /// All names.
    pub const ALL: [Self; 10] = [
        Self::Disabled,
        Self::Ineligible,
        Self::Available,
        Self::Suspect,
        Self::Checking,
        Self::Degraded,
        Self::Recovering,
        Self::Recovered,
        Self::Fencing,
        Self::Fenced,
    ];

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

impl Ineligible {
    /// Kebab-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PowerDisabled => "power-disabled",
            Self::CannotProve => "cannot-prove",
            Self::Maintenance => "maintenance",
            Self::CommandedOff => "commanded-off",
            Self::NoHealthCheck => "no-health-check",
            Self::NeverHealthy => "never-healthy",
        }
    }
}

impl Degraded {
    /// Kebab-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::CannotTell => "cannot-tell",
            Self::Contradiction => "contradiction",
            Self::StillAlive => "still-alive",
            Self::Aborted => "aborted",
            Self::Policy => "policy",
        }
    }
}

impl Gate {
    /// Kebab-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Driver => "driver",
            Self::Enablement => "enablement",
            Self::Maintenance => "maintenance",
            Self::Ownership => "ownership",
            Self::StartupQuiet => "startup-quiet",
            Self::Isolation => "isolation",
            Self::SomewhereToGo => "somewhere-to-go",
            Self::Cliff => "cliff",
            Self::Storm => "storm",
            Self::Cap => "cap",
            Self::Budget => "budget",
            Self::InFlight => "in-flight",
            Self::Evidence => "evidence",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What an orchestrator may conclude. Only [`HostStatus::Down`] may release workloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostStatus {
    /// It runs.
    Up,
    /// It is not well, and may still be writing.
    Disconnected,
    /// It is proven off.
    Down,
    /// Nobody watches over it, or its word is old.
    #[default]
    Unknown,
}

impl HostStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Up, Self::Disconnected, Self::Down, Self::Unknown];

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

    /// What kind of its state it is, where there are several: what is missing, why nothing is done, how a fenced host goes on.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Ineligible(reason) => Some(reason.as_str()),
            Self::Degraded(why) => Some(why.as_str()),
            Self::Fenced(Fenced { released: true, .. }) => Some("released"),
            Self::Fenced(Fenced { restarting: true, .. }) => Some("restarting"),
            Self::Fenced(Fenced { returned: true, .. }) => Some("returned"),
            _ => None,
        }
    }

    /// Which attempt of a recovery or a fence.
    #[must_use]
    pub const fn attempt(&self) -> Option<u16> {
        match self {
            Self::Recovering { attempt } => Some(*attempt as u16),
            Self::Fencing(fencing) => Some(fencing.attempt),
            _ => None,
        }
    }

    /// The gate that its fence waits for.
    #[must_use]
    pub const fn held(&self) -> Option<Gate> {
        match self {
            Self::Fencing(fencing) => fencing.held,
            _ => None,
        }
    }

    /// Whether it counts towards a storm, unless somebody said that this is known.
    #[must_use]
    pub const fn is_unwell(&self) -> bool {
        matches!(self, Self::Suspect | Self::Checking { .. } | Self::Recovering { .. } | Self::Fencing(_) | Self::Fenced(_))
    }
}
