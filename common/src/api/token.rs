//! Bearer tokens: what they may do, and where.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, HostId, ZoneId};

/// What a bearer token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Switches power.
    Operator,
    /// Fences.
    Fencer,
    /// Everything.
    Admin,
    /// Reads the audit log.
    Auditor,
}

/// Where a bearer token may do it; all absent = everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Only these zones.
    #[serde(default)]
    pub zones: Vec<ZoneId>,
    /// Only these clusters.
    #[serde(default)]
    pub clusters: Vec<ClusterId>,
    /// Only these hosts.
    #[serde(default)]
    pub hosts: Vec<HostId>,
}

/// `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Whose it is, for histories and the audit log (1 – 64 characters).
    pub name: String,
    /// What it may do: no more than its maker's.
    pub role: Role,
    /// Where it may do it: nowhere its maker's may not.
    #[serde(default)]
    pub scope: Scope,
    /// How long it may be used, in seconds (60 – 315360000); absent = as long as its maker's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ttl: Option<u64>,
}

/// `GET /v1/tokens/{id}`: never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id: the first 16 digits of its SHA-256.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; all empty = everywhere.
    pub scope: Scope,
    /// Not usable after this; absent = for ever.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
    /// When it was last used since the aggregator started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_used_at: Option<Timestamp>,
}

/// Answer of `POST /v1/tokens`: the token, shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewToken {
    /// As it is shown from now on.
    #[serde(flatten)]
    pub token: Token,
    /// `pkt_…`, for `Authorization: Bearer`.
    pub secret: String,
}
