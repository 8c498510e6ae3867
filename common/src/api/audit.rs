//! The audit log.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::OperationId;

/// A line of the audit log, as `GET /v1/audit` shows it, oldest first unless `order=newest` is asked for. Its hash is that of [`crate::audit`], over all other fields
/// as they are here: fields that a newer aggregator adds count too, so verify what was received, not what was understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its place in the chain, from 1.
    pub sequence: u64,
    /// What was done, by whom, and what came of it.
    #[serde(flatten)]
    pub entry: AuditEntry,
    /// Hash of the record before it, hex.
    pub previous: String,
    /// Its own hash, hex.
    pub hash: String,
}

/// What a line of the audit log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: a token's name, `join:ID` for a join, `-` for nobody known, `picket` for the aggregator itself.
    pub principal: String,
    /// Id of the token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    /// HTTP path, without its query.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// What it was about: `host/r07n01`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource: Option<String>,
    /// What was asked, in one line, without secrets.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub summary: Option<String>,
    /// Why, as the asker said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// What came of it.
    pub result: AuditResult,
    /// HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// The problem's code, or how an operation ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// The request's id, as in `X-Request-Id` and in the log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// The operation that was begun, or that ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operation_id: Option<OperationId>,
    /// Refused requests like this one that were not written down since the last one: there were too many.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suppressed: Option<u64>,
    /// Says that the records through a sequence were pruned for their age.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint: Option<AuditCheckpoint>,
}

impl AuditEntry {
    /// An entry that says no more than when, by whom and with what result.
    #[must_use]
    pub fn new(at: Timestamp, principal: impl Into<String>, result: AuditResult) -> Self {
        Self {
            at,
            principal: principal.into(),
            token: None,
            from: None,
            method: None,
            path: None,
            resource: None,
            summary: None,
            reason: None,
            result,
            status: None,
            code: None,
            request_id: None,
            operation_id: None,
            suppressed: None,
            checkpoint: None,
        }
    }
}

/// What came of an audited request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditResult {
    /// It was done, or accepted.
    Granted,
    /// It was not allowed, or made no sense.
    Refused,
    /// It could not be done.
    Failed,
    /// An operation accepted earlier has ended.
    Ended,
}

/// The end of what was pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCheckpoint {
    /// The last record pruned.
    pub through: u64,
    /// Its hash.
    pub hash: String,
}

/// `GET /v1/audit/verify`: the whole chain, walked by the aggregator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditVerdict {
    /// Whether nothing is wrong.
    pub intact: bool,
    /// What is, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fault: Option<String>,
    /// Records walked.
    pub records: u64,
    /// What record 1 names as the one before it: see [`crate::audit::genesis`].
    pub genesis: String,
    /// Sequence of the last record written.
    pub sequence: u64,
    /// Its hash: keep it elsewhere, and nothing up to here can be changed unnoticed even by who can write the store.
    pub hash: String,
}
