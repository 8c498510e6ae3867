//! What the aggregator says on channels `ack` and `cmd`; every message is signed.

use serde::{Deserialize, Serialize};

use super::codec::{Message, WireError, bound};
use super::{Generation, Incarnation, Time};
use crate::command::{Action, MAX_IDENTIFY_SECONDS};
use crate::id::{HostId, OperationId};
use crate::seal::{MAX_SEALED_LEN, Sealed};

/// Kind 16, channel `ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// All reports up to and including this one are durable: the outbox may be trimmed.
    Ack {
        /// Whose sequence.
        boot: Incarnation,
        /// Last durable sequence.
        up_to: u64,
    },
    /// Reports are missing: send again from here.
    Resend {
        /// Whose sequence.
        boot: Incarnation,
        /// The sequence expected next.
        from: u64,
    },
    /// The aggregator's clock, for a nonce of a hello or heartbeat.
    Clock {
        /// The nonce.
        nonce: u64,
        /// When the aggregator answered.
        at: Time,
    },
}

/// Kind 17, channel `cmd`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Do this.
    Power(PowerCommand),
    /// Take it back if it was not begun.
    Cancel {
        /// Which operation.
        operation: OperationId,
        /// Which host.
        host: HostId,
    },
    /// Set a new login password.
    ChangePassword(ChangePassword),
    /// A person's word about a host that is watched over.
    Ha(super::ha::HaCommand),
}

/// A password change: the command, whose action is [`Action::ChangePassword`], and what it sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangePassword {
    /// Which operation, on which host, until when.
    pub command: PowerCommand,
    /// The new password, sealed to the agent for the same host, address and user.
    pub password: Sealed,
    /// Revision of the BMC settings that the change starts from: under any other it is refused.
    pub base_revision: u64,
    /// Revision the BMC settings will have when the new password is in force.
    pub revision: u64,
}

/// A power operation on one host, bound to everything that could make it wrong later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerCommand {
    /// Which operation; with the host, the key against doing it twice.
    pub operation: OperationId,
    /// Which host.
    pub host: HostId,
    /// What to do.
    pub action: Action,
    /// For cycle and reset of a host that is off: switch it on instead of refusing.
    pub on_if_off: bool,
    /// Nothing is begun after this, by the aggregator's clock.
    pub deadline: Time,
    /// Owner epoch of the rack.
    pub epoch: u64,
    /// Assignment the aggregator had sent when it gave this command.
    pub generation: Generation,
    /// Enablement of the host it was given under.
    pub enablement: u64,
}

impl Message for Reply {
    const KIND: u8 = 16;
}

impl Message for Command {
    const KIND: u8 = 17;

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Power(PowerCommand { action: Action::ChangePassword | Action::Ha(_), .. }) => Err(WireError::Bounds("action")),
            Self::Power(PowerCommand { action: Action::Identify { seconds }, .. }) => {
                bound("seconds", usize::from(*seconds), usize::from(MAX_IDENTIFY_SECONDS))
            }
            Self::Power(_) | Self::Cancel { .. } => Ok(()),
            Self::ChangePassword(change) => {
                if change.command.action != Action::ChangePassword {
                    return Err(WireError::Bounds("action"));
                }
                if change.revision <= change.base_revision {
                    return Err(WireError::Bounds("revision"));
                }
                bound("password", change.password.0.len(), MAX_SEALED_LEN)
            }
            Self::Ha(command) => command.check(),
        }
    }
}
