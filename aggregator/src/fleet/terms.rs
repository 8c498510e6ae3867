//! What comes along with a request beside what is asked, and what that adds to the decision: conditions to be checked, a line of
//! the audit log and the promise of an answer, durable with the change itself.

use jiff::Timestamp;
use picket_common::api::{AuditEntry, AuditResult};
use picket_common::clock::Now;
use picket_common::command::Outcome;
use picket_common::id::{HostId, OperationId};
use serde::{Deserialize, Serialize};

use super::etag::Precondition;
use super::request::{Answer, Rejection, Request};
use super::{Fleet, Record, import};

/// What comes along with a request.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// What must hold of what is there.
    pub precondition: Precondition,
    /// The line of the audit log, as it is when the request is granted; its time is filled in.
    pub audit: Option<Box<AuditEntry>>,
    /// Under which key the answer will be kept.
    pub once: Option<Box<Once>>,
}

/// An idempotency key with what was asked under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// The key.
    pub key: AnswerKey,
    /// SHA-256 of the body, hex.
    pub fingerprint: String,
}

/// Where an answer is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AnswerKey {
    /// Id of the asker's token.
    pub token: String,
    /// SHA-256 of method, path and the asker's key, hex.
    pub key: String,
}

/// An answer to be given again, or the promise of one: then only what came of the request is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// Where.
    pub key: AnswerKey,
    /// SHA-256 of the body it answers, hex.
    pub fingerprint: String,
    /// When it was kept; filled in.
    pub at: Timestamp,
    /// The operation that was begun.
    pub operation: Option<OperationId>,
    /// The answer; absent when the aggregator ended before it was made.
    pub answer: Option<HttpAnswer>,
}

/// An answer of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpAnswer {
    /// Status.
    pub status: u16,
    /// Names and values of its own headers.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

/// Something to be written down that changes nothing of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A line of the audit log; its time is filled in.
    Audit(AuditEntry),
    /// An answer; its time is filled in.
    Answer(KeptAnswer),
}

impl Note {
    pub(crate) fn record(self, now: Now) -> Record {
        match self {
            Self::Audit(entry) => Record::Audit(Box::new(AuditEntry { at: now.wall, ..entry })),
            Self::Answer(answer) => Record::Answer(Box::new(KeptAnswer { at: now.wall, ..answer })),
        }
    }
}

/// HTTP's word for something made, and for something begun: an answer's record says what the API will say.
const CREATED: u16 = 201;
const ACCEPTED: u16 = 202;

impl Terms {
    /// What is written down with a request that is granted.
    pub(crate) fn records(self, answer: &Answer, now: Now) -> Vec<Record> {
        let Self { precondition: _, audit, once } = self;
        let operation = match answer {
            Answer::Accepted(id) => Some(*id),
            Answer::Done { .. } | Answer::Imported(_) | Answer::Resealed { .. } | Answer::Joined { .. } => None,
        };
        let line = audit.map(|entry| {
            let status = match answer {
                Answer::Done { created: true } => Some(CREATED),
                Answer::Accepted(_) => Some(ACCEPTED),
                Answer::Done { created: false } | Answer::Imported(_) | Answer::Resealed { .. } | Answer::Joined { .. } => {
                    entry.status
                }
            };
            Record::Audit(Box::new(AuditEntry { at: now.wall, status, operation_id: operation, ..*entry }))
        });
        let promise = once.map(|once| {
            let Once { key, fingerprint } = *once;
            Record::Answer(Box::new(KeptAnswer { key, fingerprint, at: now.wall, operation, answer: None }))
        });
        line.into_iter().chain(promise).collect()
    }
}

impl Fleet {
    /// Grants a request whose terms hold. Check, change and record are one step: nothing comes between.
    pub(super) fn asked_under(&mut self, principal: &str, request: Request, terms: Terms, now: Now) -> Result<Answer, Rejection> {
        terms.precondition.check(&self.view, &request)?;
        let about = import::about(&request);
        let answer = self.asked(principal, request, now)?;
        if let (Some(entry), Answer::Imported(done)) = (&terms.audit, &answer) {
            self.draft.records.extend(import::audit(entry, about, done, now));
        }
        self.draft.records.extend(terms.records(&answer, now));
        Ok(answer)
    }

    /// The line of the audit log that says how an operation ended on a host.
    pub(super) fn audit_end(&mut self, id: OperationId, host: &HostId, outcome: &Outcome, now: Now) {
        let Some(operation) = self.view.operations.get(&id) else { return };
        let entry = AuditEntry {
            resource: Some(format!("host/{host}")),
            summary: Some(format!("operation={}", operation.row.operation.as_str())),
            reason: operation.row.reason.clone(),
            code: Some(outcome.as_str().to_owned()),
            operation_id: Some(id),
            ..AuditEntry::new(now.wall, operation.row.principal.clone(), AuditResult::Ended)
        };
        self.draft.records.push(Record::Audit(Box::new(entry)));
    }
}
