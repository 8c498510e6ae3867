//! What is kept beside the view and read when it is asked for: histories, the audit log, answers under idempotency keys, events.
//! Reads without stalling the runtime.

use std::sync::Arc;

use jiff::Timestamp;
use picket_common::api::{AuditVerdict, HistoryEntry};
use picket_common::id::HostId;
use serde_json::{Map, Value};

use super::events::Published;
use crate::fleet::{AnswerKey, KeptAnswer};

/// Why the archive could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what was asked for cannot be read now: {0}")]
pub struct ArchiveError(pub String);

/// Which records of the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Newest first, or oldest first.
    pub newest_first: bool,
    /// Those behind this one, in that order.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: usize,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// By this principal.
    pub principal: Option<String>,
}

/// Records of the audit log, as they were hashed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// In the order asked for.
    pub records: Vec<Map<String, Value>>,
    /// The last one looked at, when there are more behind it.
    pub next: Option<u64>,
}

/// Events of the store.
#[derive(Debug, Default)]
pub struct KeptEvents {
    /// Sequence of the oldest one kept.
    pub oldest: Option<u64>,
    /// In order.
    pub events: Vec<Arc<Published>>,
    /// The last one looked at, readable or not.
    pub through: u64,
}

/// Where all that is kept; implemented by the store.
pub trait ArchiveSource: Send + Sync {
    /// At most `limit` lines of `host`, newest first; with `before`, only lines of a smaller sequence.
    ///
    /// # Errors
    /// [`ArchiveError`], as for all of these, when the store cannot be read.
    fn history(&self, host: &HostId, before: Option<u64>, limit: usize) -> Result<Vec<HistoryEntry>, ArchiveError>;

    /// Records of the audit log.
    ///
    /// # Errors
    /// See [`ArchiveSource::history`].
    fn audit(&self, query: &AuditQuery) -> Result<AuditPage, ArchiveError>;

    /// The whole audit log, verified.
    ///
    /// # Errors
    /// See [`ArchiveSource::history`].
    fn audit_verdict(&self) -> Result<AuditVerdict, ArchiveError>;

    /// What is kept under an idempotency key.
    ///
    /// # Errors
    /// See [`ArchiveSource::history`].
    fn answer(&self, key: &AnswerKey, now: Timestamp) -> Result<Option<KeptAnswer>, ArchiveError>;

    /// At most `limit` events behind `after`.
    ///
    /// # Errors
    /// See [`ArchiveSource::history`].
    fn events(&self, after: u64, limit: usize) -> Result<KeptEvents, ArchiveError>;

    /// Sequence of the last event recorded before `at`.
    ///
    /// # Errors
    /// See [`ArchiveSource::history`].
    fn events_before(&self, at: Timestamp) -> Result<u64, ArchiveError>;
}

/// Reads without stalling the runtime.
#[derive(Clone)]
pub struct Archive(Arc<dyn ArchiveSource>);

impl Archive {
    /// Reads from `source`.
    #[must_use]
    pub fn new(source: Arc<dyn ArchiveSource>) -> Self {
        Self(source)
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn ArchiveSource) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let source = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || read(&*source)).await;
        read.unwrap_or_else(|error| Err(ArchiveError(error.to_string())))
    }

    /// See [`ArchiveSource::history`].
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn history(&self, host: &HostId, before: Option<u64>, limit: usize) -> Result<Vec<HistoryEntry>, ArchiveError> {
        let host = host.clone();
        self.read(move |source| source.history(&host, before, limit)).await
    }

    /// See [`ArchiveSource::audit`].
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditPage, ArchiveError> {
        self.read(move |source| source.audit(&query)).await
    }

    /// See [`ArchiveSource::audit_verdict`].
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn audit_verdict(&self) -> Result<AuditVerdict, ArchiveError> {
        self.read(|source| source.audit_verdict()).await
    }

    /// See [`ArchiveSource::answer`].
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn answer(&self, key: AnswerKey, now: Timestamp) -> Result<Option<KeptAnswer>, ArchiveError> {
        self.read(move |source| source.answer(&key, now)).await
    }

    /// See [`ArchiveSource::events`].
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn events(&self, after: u64, limit: usize) -> Result<KeptEvents, ArchiveError> {
        self.read(move |source| source.events(after, limit)).await
    }

    /// See [`ArchiveSource::events_before`].
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn events_before(&self, at: Timestamp) -> Result<u64, ArchiveError> {
        self.read(move |source| source.events_before(at)).await
    }
}
