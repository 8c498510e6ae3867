//! Passwords sealed anew when a rack gets another agent.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, ClusterId, HostId};

/// `GET /v1/racks/{r}/secrets`: what the rack's agent is to be given, sealed to the site's recovery key. Whoever has that key
/// seals each to the agent and hands the result back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackSecrets {
    /// The agent in charge.
    pub agent: AgentId,
    /// Seal to this, hex.
    pub sealing_key: String,
    /// The secrets.
    pub items: Vec<RackSecret>,
}

/// One stored password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackSecret {
    /// Whose, and what its seal is bound to.
    #[serde(flatten)]
    pub belongs: SecretOwner,
    /// The copy sealed to the recovery key, base64.
    pub recovery: String,
    /// Whether the agent has a copy it can open.
    pub sealed: bool,
}

/// Whose a stored password is, and what its seal is bound to (see [`crate::seal::Belongs`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SecretOwner {
    /// A host's own.
    Host {
        /// The host.
        host: HostId,
        /// Its BMC's address.
        address: String,
        /// The login name.
        username: String,
    },
    /// The new one of a password change that is not over.
    Pending {
        /// The host.
        host: HostId,
        /// Its BMC's address.
        address: String,
        /// The login name.
        username: String,
    },
    /// A cluster's, for hosts without one of their own.
    Cluster {
        /// The cluster.
        cluster: ClusterId,
        /// The login name.
        username: String,
    },
}

/// `POST /v1/racks/{r}/secrets`: secrets sealed anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResealRequest {
    /// The key they are sealed to, hex: must be the present agent's.
    pub sealing_key: String,
    /// The secrets.
    pub items: Vec<Resealed>,
}

/// One secret sealed anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resealed {
    /// As it was read.
    #[serde(flatten)]
    pub belongs: SecretOwner,
    /// As it was read: a password that was changed meanwhile is left alone.
    pub recovery: String,
    /// Sealed to the agent, base64.
    pub sealed: String,
}

/// Answer to a resealing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResealAnswer {
    /// How many were taken.
    pub resealed: u64,
    /// How many were changed or removed meanwhile, and left alone.
    pub skipped: u64,
}
