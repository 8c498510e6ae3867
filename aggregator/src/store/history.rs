//! Histories: host and sequence → version byte and JSON ([`HistoryEntry`] leaves fields out, which postcard cannot).
//! Bounded per host by count and age; trimmed in the transaction that appends, so no sweep is ever needed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use picket_common::api::HistoryEntry;
use picket_common::id::HostId;
use redb::{ReadTransaction, ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::{Cause, StoreError};
use crate::fleet::Record;
use crate::fleet::view::RowKey;

/// (host, sequence) → [`VERSION`], JSON.
pub(super) const HISTORY: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("history");
/// Host → lines kept, so that nobody has to count.
pub(super) const LINES: TableDefinition<'_, &str, u64> = TableDefinition::new("history_lines");
const VERSION: u8 = 1;

/// Most lines of a host: at 250 bytes a line 2.5 MB a host, 5 GB for 2,000 hosts that all flap.
pub(super) const MAX_LINES: u64 = 10_000;
/// A line older than this goes when a newer one comes; a quiet host keeps its last lines.
pub(super) const MAX_AGE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Most lines dropped for their age in one commit of a host: a commit stays quick after a long silence.
const MAX_AGED_PER_COMMIT: usize = 64;

type Lines<'txn> = Table<'txn, (&'static str, u64), &'static [u8]>;

pub(super) fn make(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(HISTORY).map(drop).map_err(StoreError::failed("making"))?;
    transaction.open_table(LINES).map(drop).map_err(StoreError::failed("making"))
}

/// What one commit does to one host's history.
struct Appended {
    lines: u64,
    newest: Timestamp,
}

pub(super) fn append(transaction: &WriteTransaction, records: &[Record]) -> Result<(), StoreError> {
    let mut history = transaction.open_table(HISTORY).map_err(StoreError::failed("writing"))?;
    let mut lines = transaction.open_table(LINES).map_err(StoreError::failed("writing"))?;
    let mut touched: BTreeMap<&HostId, Appended> = BTreeMap::new();
    for record in records {
        match record {
            Record::History(host, entry) => {
                let fresh = put(&mut history, host, entry)?;
                let kept = match touched.remove(host) {
                    Some(appended) => appended.lines,
                    None => lines.get(host.as_str()).map_err(StoreError::failed("writing"))?.map_or(0, |count| count.value()),
                };
                touched.insert(host, Appended { lines: kept + u64::from(fresh), newest: entry.recorded_at });
            }
            Record::Remove(RowKey::Host(host)) => {
                touched.remove(host);
                forget(&mut history, host)?;
                lines.remove(host.as_str()).map_err(StoreError::failed("writing"))?;
            }
            Record::Put(_) | Record::Remove(_) | Record::Audit(_) | Record::Answer(_) => {}
        }
    }
    for (host, appended) in touched {
        let kept = trim(&mut history, host, &appended)?;
        lines.insert(host.as_str(), kept).map_err(StoreError::failed("writing"))?;
    }
    Ok(())
}

/// Whether the line is new: an event that comes twice in one transaction is written once.
fn put(history: &mut Lines<'_>, host: &HostId, entry: &HistoryEntry) -> Result<bool, StoreError> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, entry).map_err(StoreError::failed("encoding a line of"))?;
    let old = history.insert((host.as_str(), entry.sequence), bytes.as_slice()).map_err(StoreError::failed("writing"))?;
    Ok(old.is_none())
}

fn forget(history: &mut Lines<'_>, host: &HostId) -> Result<(), StoreError> {
    history.retain_in((host.as_str(), 0)..=(host.as_str(), u64::MAX), |_, _| false).map_err(StoreError::failed("writing"))
}

/// Drops the oldest lines of a host that are too many or too old; how many are left.
fn trim(history: &mut Lines<'_>, host: &HostId, appended: &Appended) -> Result<u64, StoreError> {
    let mut kept = appended.lines;
    let mut aged = 0;
    while kept > 1 {
        let Some((sequence, recorded_at)) = oldest(history, host)? else { break };
        let over = kept > MAX_LINES;
        let old = aged < MAX_AGED_PER_COMMIT && appended.newest.duration_since(recorded_at) > MAX_AGE;
        if !over && !old {
            break;
        }
        aged += usize::from(!over);
        history.remove((host.as_str(), sequence)).map_err(StoreError::failed("writing"))?;
        kept -= 1;
    }
    Ok(kept)
}

fn oldest(history: &Lines<'_>, host: &HostId) -> Result<Option<(u64, Timestamp)>, StoreError> {
    let mut range = history.range((host.as_str(), 0)..=(host.as_str(), u64::MAX)).map_err(StoreError::failed("reading"))?;
    let Some(first) = range.next() else { return Ok(None) };
    let (key, value) = first.map_err(StoreError::failed("reading"))?;
    let (_, sequence) = key.value();
    // A line that cannot be read any more is as old as can be.
    let recorded_at = decode(value.value()).map_or(Timestamp::MIN, |entry| entry.recorded_at);
    Ok(Some((sequence, recorded_at)))
}

pub(super) fn read(
    transaction: &ReadTransaction,
    host: &HostId,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<HistoryEntry>, StoreError> {
    let table = transaction.open_table(HISTORY).map_err(StoreError::failed("reading"))?;
    let end = before.map_or(u64::MAX, |before| before.saturating_sub(1));
    let range = table.range((host.as_str(), 0)..=(host.as_str(), end)).map_err(StoreError::failed("reading"))?;
    let mut entries = Vec::new();
    for line in range.rev().take(limit) {
        let (key, value) = line.map_err(StoreError::failed("reading"))?;
        let damaged = |source| StoreError::Damaged { kind: "history".into(), id: format!("{host}/{}", key.value().1), source };
        entries.push(decode(value.value()).map_err(damaged)?);
    }
    Ok(entries)
}

fn decode(bytes: &[u8]) -> Result<HistoryEntry, Cause> {
    match bytes.split_first() {
        Some((&VERSION, json)) => Ok(serde_json::from_slice(json)?),
        Some((version, _)) => Err(format!("line version {version} is not known here").into()),
        None => Err("the line is empty".into()),
    }
}
