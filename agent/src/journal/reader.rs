//! Reading the journal from other threads: the uplink's outbox, and what drivers want to know again.

use std::path::PathBuf;

use picket_common::id::HostId;
use picket_common::wire::report::Report;
use redb::{Database, ReadableDatabase, ReadableTable};

use super::row::decode;
use super::table::{ASSIGNMENT, MEMORY, META, OUTBOX};
use super::{JournalError, Outbox, Shared, begin, database};

/// Reads the journal from other threads, and keeps what drivers want to know again.
#[derive(Clone)]
pub struct Reader {
    pub(super) path: PathBuf,
    pub(super) shared: Shared,
}

impl Reader {
    /// Reports from `from` on, at most `limit`, without a gap between them; and the outbox's bounds. Of reports that do not
    /// decode the oldest one there is lies after them.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn outbox(&self, from: u64, limit: usize) -> Result<(Vec<(u64, Report)>, Outbox), JournalError> {
        let fail =
            |source: redb::Error| JournalError::Redb { path: self.path.clone(), what: "read the outbox", source: Box::new(source) };
        Self::read_outbox(database(&self.shared, &self.path)?.as_ref(), from, limit).map_err(fail)
    }

    fn read_outbox(database: &Database, from: u64, limit: usize) -> Result<(Vec<(u64, Report)>, Outbox), redb::Error> {
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let next = meta.get("next")?.and_then(|value| <[u8; 8]>::try_from(value.value()).ok()).map_or(1, u64::from_be_bytes);
        let outbox = transaction.open_table(OUTBOX)?;
        let mut oldest = outbox.first()?.map_or(next, |(key, _)| key.value());
        let mut reports = Vec::new();
        for entry in outbox.range(from..)? {
            if reports.len() >= limit {
                break;
            }
            let (sequence, value) = entry?;
            match decode(value.value()) {
                Some(report) => reports.push((sequence.value(), report)),
                // As lost as one that was trimmed: the aggregator is told of the gap, and no other report takes its number.
                None if reports.is_empty() => oldest = sequence.value().saturating_add(1),
                None => break,
            }
        }
        Ok((reports, Outbox { oldest, next }))
    }

    /// What a driver stored for a host.
    ///
    /// # Errors
    /// [`JournalError`]: then it is not known whether there is anything.
    pub fn memory(&self, host: &HostId) -> Result<Option<Vec<u8>>, JournalError> {
        let fail = |source: redb::Error| JournalError::Redb {
            path: self.path.clone(),
            what: "read a driver's memory",
            source: Box::new(source),
        };
        Self::read_memory(database(&self.shared, &self.path)?.as_ref(), host).map_err(fail)
    }

    fn read_memory(database: &Database, host: &HostId) -> Result<Option<Vec<u8>>, redb::Error> {
        let memory = database.begin_read()?.open_table(MEMORY)?;
        Ok(memory.get(host.as_str())?.map(|value| value.value().to_vec()))
    }

    /// Stores, or with `None` forgets, what a driver wants to know again.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn set_memory(&self, host: &HostId, bytes: Option<&[u8]>) -> Result<(), JournalError> {
        let fail = |source: redb::Error| JournalError::Redb {
            path: self.path.clone(),
            what: "keep a driver's memory",
            source: Box::new(source),
        };
        Self::write_memory(database(&self.shared, &self.path)?.as_ref(), host, bytes).map_err(fail)
    }

    fn write_memory(database: &Database, host: &HostId, bytes: Option<&[u8]>) -> Result<(), redb::Error> {
        let transaction = begin(database)?;
        {
            // A driver may still be closing a session of a host that left the rack: nothing is kept of such a host.
            let assigned = transaction.open_table(ASSIGNMENT)?.get(host.as_str())?.is_some();
            let mut memory = transaction.open_table(MEMORY)?;
            match bytes {
                Some(bytes) if assigned => drop(memory.insert(host.as_str(), bytes)?),
                _ => drop(memory.remove(host.as_str())?),
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
