//! Alerts: identity is the kind and the thing it speaks of; a repetition is the same alert, and each is resolved once.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an alert says. Names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A BMC has not answered for several polls.
    BmcLost,
    /// A BMC refuses the login.
    BmcAuthFailed,
}

impl AlertKind {
    /// Kebab-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BmcLost => "bmc-lost",
            Self::BmcAuthFailed => "bmc-auth-failed",
        }
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether it still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It holds now.
    Firing,
    /// It ended.
    Resolved,
}
