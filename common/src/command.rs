//! Operations as both daemons speak of them: how far one is, how it ended, why it was refused, what the BMC said.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ha::GateSet;
use crate::power::{PowerOperation, PowerState};
use crate::wire::ha::HaVerb;

/// Policy said no. Each has a stable code that travels the wire and the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The zone's gate is closed.
    #[error("out-of-band management is disabled for the zone")]
    ZoneDisabled,
    /// The cluster's gate is closed.
    #[error("out-of-band management is disabled for the cluster")]
    ClusterDisabled,
    /// The host's gate is closed.
    #[error("out-of-band management is disabled for the host")]
    HostDisabled,
    /// No BMC settings.
    #[error("the host has no BMC settings")]
    HostNotConfigured,
    /// No password the owning agent could open.
    #[error("the host's BMC password is not sealed to its rack's agent; set it again")]
    PasswordNeeded,
    /// Nobody guards the host's rack.
    #[error("the host's rack has no agent")]
    RackWithoutAgent,
    /// The agent does not have this host.
    #[error("the agent is not in charge of this host")]
    NotAssigned,
    /// Cycle, reset or diag of a host that is off.
    #[error("the host is off; cycle, reset and diag need a running host (cycle and reset take on_if_off)")]
    HostIsOff,
    /// Too many operations wait for this BMC.
    #[error("too many operations are waiting for this BMC")]
    Busy,
    /// The command names an older owner.
    #[error("the command was given to an earlier owner of the rack")]
    StaleEpoch,
    /// A non-idempotent command without a measured clock.
    #[error("the agent has not yet measured the aggregator's clock, so the deadline cannot be trusted")]
    ClockUnknown,
    /// The journal cannot be written.
    #[error("the agent's journal cannot be written; nothing is done that could not be remembered")]
    JournalUnavailable,
    /// The BMC or driver cannot do this operation.
    #[error("the driver or BMC does not support this operation")]
    NotSupported,
    /// It is being fenced, or was and is not released.
    #[error("the host is fenced, or is being fenced; until it is released it is not switched on")]
    HostFenced,
    /// Somebody vouches that it is off, and it is not.
    #[error("the host reads On, or answers its health check")]
    HostIsUp,
    /// Nobody watches over it.
    #[error("host-HA is disabled for the host, its cluster or its zone")]
    HaDisabled,
}

impl Refusal {
    /// All refusals.
    pub const ALL: [Self; 16] = [
        Self::ZoneDisabled,
        Self::ClusterDisabled,
        Self::HostDisabled,
        Self::HostNotConfigured,
        Self::PasswordNeeded,
        Self::RackWithoutAgent,
        Self::NotAssigned,
        Self::HostIsOff,
        Self::Busy,
        Self::StaleEpoch,
        Self::ClockUnknown,
        Self::JournalUnavailable,
        Self::NotSupported,
        Self::HostFenced,
        Self::HostIsUp,
        Self::HaDisabled,
    ];

    /// Stable code: `zone-disabled`, ….
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ZoneDisabled => "zone-disabled",
            Self::ClusterDisabled => "cluster-disabled",
            Self::HostDisabled => "host-disabled",
            Self::HostNotConfigured => "host-not-configured",
            Self::PasswordNeeded => "password-needed",
            Self::RackWithoutAgent => "rack-without-agent",
            Self::NotAssigned => "not-assigned",
            Self::HostIsOff => "host-is-off",
            Self::Busy => "busy",
            Self::StaleEpoch => "stale-epoch",
            Self::ClockUnknown => "clock-unknown",
            Self::JournalUnavailable => "journal-unavailable",
            Self::NotSupported => "not-supported",
            Self::HostFenced => "host-fenced",
            Self::HostIsUp => "host-is-up",
            Self::HaDisabled => "ha-disabled",
        }
    }
}

/// What kind of failure a driver met, and so what may be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorClass {
    /// No answer, or the connection broke: retry, back off.
    Connection,
    /// The login was refused: stop, or the account will be locked.
    Auth,
    /// A setting is wrong (option, suite, privilege, address not allowed): tell, do not retry at once.
    Setting,
    /// The BMC says "not now" or "not supported": read, then decide.
    Refused,
    /// Garbage, or an answer to another question.
    Protocol,
    /// The time given to the request is over.
    Deadline,
}

/// A driver's own error, as it reaches the API, the alert and the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BmcError {
    /// Driver name.
    pub driver: String,
    /// What kind.
    pub class: ErrorClass,
    /// Short stable code: `timeout`, `0xd5`, `http-503`, ….
    pub code: String,
    /// One sentence for people; never a secret.
    pub text: String,
}

impl fmt::Display for BmcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.driver, self.text, self.code)
    }
}

/// All that can be commanded of one BMC. The first ones are the power operations, with the same numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
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
    /// Diagnostic interrupt (NMI).
    Diag,
    /// Light the identify LED.
    Identify {
        /// For how long; 0 puts it out.
        seconds: u16,
    },
    /// Choose what the host boots from.
    Bootdev {
        /// From what.
        device: BootDevice,
        /// For the next boot only, or until changed.
        persistence: Persistence,
    },
    /// Log in anew, learn what the BMC is and can do, read the power.
    Test,
    /// Set a new login password; it travels beside the command.
    ChangePassword,
    /// A person's word about a host that is watched over; it travels as [`crate::wire::ha::HaCommand`].
    Ha(HaAction),
}

/// What a person can order about a host that is watched over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HaAction {
    /// Fence it.
    Fence {
        /// Gates that are overridden.
        overrides: GateSet,
    },
    /// Only ask all gates.
    Plan,
    /// It is off, the principal says.
    Confirm {
        /// Although it reads On or answers.
        force: bool,
    },
    /// End its fence.
    Abort,
    /// It is known to be broken: not counted in storms any more.
    Ack,
    /// It may live again.
    Release,
    /// Forget its counters and the cluster's power-downs that its agent counted.
    ResetCounters,
    /// The sudden loss of many hosts of its rack was looked at: go on.
    EndCliff,
}

impl HaAction {
    /// Kebab-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fence { .. } => "fence",
            Self::Plan => "fence-plan",
            Self::Confirm { .. } => "fence-confirm",
            Self::Abort => "fence-abort",
            Self::Ack => "fence-ack",
            Self::Release => "fence-release",
            Self::ResetCounters => "ha-reset-counters",
            Self::EndCliff => "ha-end-cliff",
        }
    }
}

impl From<HaAction> for HaVerb {
    fn from(action: HaAction) -> Self {
        match action {
            HaAction::Fence { overrides } => Self::Fence { overrides: overrides.into() },
            HaAction::Plan => Self::Plan,
            HaAction::Confirm { force } => Self::Confirm { force },
            HaAction::Abort => Self::Abort,
            HaAction::Ack => Self::Ack,
            HaAction::Release => Self::Release,
            HaAction::ResetCounters => Self::ResetCounters,
            HaAction::EndCliff => Self::EndCliff,
        }
    }
}

/// Longest time the identify LED can be lit, in seconds (IPMI 2.0 §28.5: one byte).
pub const MAX_IDENTIFY_SECONDS: u16 = 255;

impl Action {
    /// Kebab-case name, as in JSON.
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
            Self::Identify { .. } => "identify",
            Self::Bootdev { .. } => "bootdev",
            Self::Test => "test",
            Self::ChangePassword => "change-password",
            Self::Ha(action) => action.as_str(),
        }
    }

    /// Whether doing it twice equals doing it once.
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        match self {
            Self::On | Self::Off | Self::Status | Self::Identify { .. } | Self::Bootdev { .. } | Self::Test => true,
            Self::Cycle | Self::Reset | Self::Soft | Self::Diag | Self::ChangePassword | Self::Ha(_) => false,
        }
    }
}

impl From<PowerOperation> for Action {
    fn from(operation: PowerOperation) -> Self {
        match operation {
            PowerOperation::On => Self::On,
            PowerOperation::Off => Self::Off,
            PowerOperation::Cycle => Self::Cycle,
            PowerOperation::Reset => Self::Reset,
            PowerOperation::Soft => Self::Soft,
            PowerOperation::Status => Self::Status,
            PowerOperation::Diag => Self::Diag,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a host boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootDevice {
    /// What its own settings say.
    None,
    /// The network.
    Pxe,
    /// The first disk.
    Disk,
    /// The firmware's setup.
    Bios,
}

/// For how long a boot device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Persistence {
    /// For the next boot only.
    Once,
    /// Until it is changed.
    Persistent,
}

/// How far an operation on one host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Durable at the aggregator.
    Accepted,
    /// Handed to the broker for the owning agent.
    Sent,
    /// The agent took it on.
    Admitted,
    /// Ended; see the result.
    Done,
}

/// How an operation on one host ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The wanted state was read after the order.
    Changed,
    /// It was there already; nothing was ordered.
    Unchanged,
    /// A status read, with the state.
    Read(PowerState),
    /// Policy said no.
    Refused(Refusal),
    /// It broke; nothing suggests that the order took effect.
    Failed(BmcError),
    /// Its deadline passed before it was begun.
    Expired,
    /// Taken back before it was begun.
    Cancelled,
    /// It may or may not have happened; the text says what was seen.
    Unknown(String),
}

impl Outcome {
    /// Lower-case name, as in JSON: `changed`, ….
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Read(_) => "read",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether the operator got what was asked for.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Changed | Self::Unchanged | Self::Read(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_json_names() {
        for refusal in Refusal::ALL {
            assert_eq!(serde_json::to_string(&refusal).unwrap(), format!("\"{}\"", refusal.code()));
        }
    }
}
