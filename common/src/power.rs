//! Power: states, operations, and the state machine that turns events into states. Decides nothing about when to ask.
//!
//! ```text
//!            On ◀────────▶ Off          readings move between On, Off and Unknown;
//!              ╲          ╱             a failure or a refused login means Unknown;
//!               ▶ Unknown ◀             disabling wins from everywhere;
//!                    ▲                  enabling starts at Unknown, the first reading follows.
//!  any ──▶ Disabled ─┘
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::OperationId;

/// What is known about a host's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// Read as On.
    On,
    /// Read as Off.
    Off,
    /// Cannot be told.
    Unknown,
    /// Out-of-band management is switched off for the host, its cluster or its zone.
    Disabled,
}

/// What can happen to a power state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerEvent {
    /// The BMC was read: On.
    On,
    /// The BMC was read: Off.
    Off,
    /// The BMC could not be read.
    Unknown,
    /// The BMC refused the login.
    AuthError,
    /// A gate was closed.
    Disabled,
    /// All gates are open again.
    Enabled,
}

impl PowerState {
    /// All states, in the order of the grid.
    pub const ALL: [Self; 4] = [Self::On, Self::Off, Self::Unknown, Self::Disabled];

    /// The state after `event`; `None` when the event means nothing here. The same state again is `Some(self)`.
    #[must_use]
    pub const fn step(self, event: PowerEvent) -> Option<Self> {
        use PowerEvent as E;
        use PowerState::{Disabled, Off, On, Unknown};
        match (self, event) {
            (On | Off | Unknown, E::On) => Some(On),
            (On | Off | Unknown, E::Off) => Some(Off),
            (On | Off | Unknown, E::Unknown | E::AuthError) => Some(Unknown),
            (On | Off | Unknown | Disabled, E::Disabled) => Some(Disabled),
            (Disabled, E::Enabled) => Some(Unknown),
            (Disabled, E::On | E::Off | E::Unknown | E::AuthError) | (On | Off | Unknown, E::Enabled) => None,
        }
    }

    /// Lower-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How well the BMC itself can be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Management {
    /// It answers.
    Reachable,
    /// Some requests fail.
    Degraded,
    /// It refused the login twice; logins are paused.
    AuthBlocked,
    /// It has not answered for several polls.
    Lost,
}

impl Management {
    /// Kebab-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reachable => "reachable",
            Self::Degraded => "degraded",
            Self::AuthBlocked => "auth-blocked",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for Management {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerOperation {
    /// Switch on.
    On,
    /// Switch off hard.
    Off,
    /// Off, at least one second, on.
    Cycle,
    /// Warm reset.
    Reset,
    /// Ask the operating system to shut down.
    Soft,
    /// Read now.
    Status,
    /// Diagnostic interrupt (NMI): the operating system is asked to dump and stop.
    Diag,
}

impl PowerOperation {
    /// All operations.
    pub const ALL: [Self; 7] = [Self::On, Self::Off, Self::Cycle, Self::Reset, Self::Soft, Self::Status, Self::Diag];

    /// Lower-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Cycle => "cycle",
            Self::Reset => "reset",
            Self::Soft => "soft",
            Self::Status => "status",
            Self::Diag => "diag",
        }
    }
}

impl fmt::Display for PowerOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for PowerOperation {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a power operation: use on, off, cycle, reset, soft, status or diag"))
    }
}

/// Why a power state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// A poll found it so: somebody else did it, or the BMC was lost or came back.
    Poll,
    /// Our own operation did it.
    Command(OperationId),
    /// A gate was opened or closed.
    Enablement,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [PowerEvent; 6] =
        [PowerEvent::On, PowerEvent::Off, PowerEvent::Unknown, PowerEvent::AuthError, PowerEvent::Disabled, PowerEvent::Enabled];

    #[test]
    fn the_whole_grid() {
        let mut grid = String::new();
        for state in PowerState::ALL {
            let row: Vec<_> = EVENTS.iter().map(|&event| state.step(event).map_or("-", PowerState::as_str)).collect();
            grid += &format!("{state:<8} | {}\n", row.join(" "));
        }
        let wanted = "\
on       | on off unknown unknown disabled -
off      | on off unknown unknown disabled -
unknown  | on off unknown unknown disabled -
disabled | - - - - disabled unknown
";
        assert_eq!(grid, wanted);
    }

    #[test]
    fn names_are_the_same_in_json() {
        for state in PowerState::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        for operation in PowerOperation::ALL {
            assert_eq!(serde_json::to_string(&operation).unwrap(), format!("\"{operation}\""));
            assert_eq!(operation.as_str().parse(), Ok(operation));
        }
    }
}
