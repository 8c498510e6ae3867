//! What the aggregator says on channels `ack` and `cmd`; every message is signed.

use serde::{Deserialize, Serialize};

use super::codec::Message;
use super::{Generation, Incarnation, Time};
use crate::id::{HostId, OperationId};
use crate::power::PowerOperation;

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
}

/// A power operation on one host, bound to everything that could make it wrong later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerCommand {
    /// Which operation; with the host, the key against doing it twice.
    pub operation: OperationId,
    /// Which host.
    pub host: HostId,
    /// What to do.
    pub action: PowerOperation,
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
}
