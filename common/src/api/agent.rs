//! Agents, and how they join.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{AgentId, HostId, RackId};

/// `GET /v1/agents/{a}` and the retained `picket/v1/agent/{a}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// The rack it guards.
    pub rack: RackId,
    /// Whether it is heard.
    pub connected: bool,
    /// When it was last heard.
    pub last_seen: Option<Timestamp>,
    /// Its version.
    pub version: Option<String>,
    /// Reports not yet acknowledged, as it last said.
    pub outbox: u64,
    /// Hosts in its charge.
    pub hosts: u64,
    /// Whether its assignment is the newest.
    pub up_to_date: bool,
}

/// `POST /v1/agents/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// The rack the agent will guard.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rack: Option<RackId>,
    /// In place of a rack: the host whose witness it will be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<HostId>,
    /// Agent id; absent = the rack's name. Not for a witness, which goes by its host's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<AgentId>,
    /// How long it may be used, in seconds (60 – 604800); absent = one hour.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ttl: Option<u64>,
}

/// A join token: shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Agent id it is for; for a witness its host's id.
    pub agent: AgentId,
    /// `pkj1.<sha256 of the CA key>.<id>.<secret>@host:port`.
    pub token: String,
    /// The line to paste on the rack controller, or on the host.
    pub command: String,
    /// Not usable after this.
    pub expires_at: Timestamp,
}

/// `POST /v1/agents/join`: anonymous, proven by the HMAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// Id part of the token.
    pub token_id: String,
    /// Certificate request, PEM.
    pub csr: String,
    /// X25519 public key passwords are sealed to, hex.
    pub sealing_key: String,
    /// [`crate::join::proof`] over all of the above and the CA hash, hex.
    pub proof: String,
}

/// Answer to a join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// Agent id; a witness's is its host's. Which of the two it is, the certificate says.
    pub agent: AgentId,
    /// Site id.
    pub site: String,
    /// Its certificate and chain, PEM.
    pub certificate: String,
    /// CA bundle, PEM.
    pub ca: String,
    /// The aggregator's Ed25519 keys for signed messages, hex.
    pub verifying_keys: Vec<String>,
    /// Where MQTT is: `host:port`.
    pub mqtt: String,
    /// The same HMAC key over the answer's fields, hex: the server knew the token too.
    pub proof: String,
}
