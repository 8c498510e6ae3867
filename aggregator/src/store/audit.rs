//! The audit log: sequence → version byte and the record's JSON as it is shown, chained by [`picket_common::audit`] in the
//! transaction that appends. Nothing is ever changed; what is older than [`KEEP`] is pruned, and a record of the log says so.

use jiff::{SignedDuration, Timestamp};
use picket_common::api::{AuditCheckpoint, AuditEntry, AuditRecord, AuditResult, AuditVerdict};
use picket_common::audit::{Chain, genesis, hash};
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Cause, StoreError};
use crate::context::{AuditPage, AuditQuery};
use crate::fleet::Record;

/// Sequence → [`VERSION`], JSON.
pub(super) const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// `last` → sequence and hash of the last record: without it nobody would miss the last ones.
pub(super) const HEAD: TableDefinition<'_, &str, (u64, &str)> = TableDefinition::new("audit_head");
const LAST: &str = "last";
const VERSION: u8 = 1;

/// How long records are kept at least: a year, and a month to look back at it.
pub(super) const KEEP: SignedDuration = SignedDuration::from_hours(400 * 24);
/// Pruning waits until this much is too old, so that it happens once a day at most.
const SLACK: SignedDuration = SignedDuration::from_hours(24);
/// Most records, about 5 GB: with fewer than 25,000 a day, age alone decides.
const MAX_RECORDS: u64 = 10_000_000;
/// Most records pruned in one commit: it stays quick.
const MAX_PRUNED: u64 = 1_000;
/// Most records looked at for one page: a filter that matches few is answered in several pages, some of them empty.
const MAX_SCANNED: usize = 10_000;

type Records<'txn> = Table<'txn, u64, &'static [u8]>;

pub(super) fn make(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(AUDIT).map(drop).map_err(StoreError::failed("making"))?;
    transaction.open_table(HEAD).map(drop).map_err(StoreError::failed("making"))
}

/// The end of the chain, to which records are added.
struct Head {
    sequence: u64,
    hash: String,
}

pub(super) fn append(transaction: &WriteTransaction, store: &Uuid, records: &[Record]) -> Result<(), StoreError> {
    let mut entries = records.iter().filter_map(|record| if let Record::Audit(entry) = record { Some(entry) } else { None });
    let Some(first) = entries.next() else { return Ok(()) };
    let mut table = transaction.open_table(AUDIT).map_err(StoreError::failed("writing"))?;
    let mut heads = transaction.open_table(HEAD).map_err(StoreError::failed("writing"))?;
    let mut head = head_of(&heads, store)?;
    for entry in std::iter::once(first).chain(entries) {
        put(&mut table, &mut head, entry)?;
    }
    prune(&mut table, &mut head, first.at)?;
    heads.insert(LAST, (head.sequence, head.hash.as_str())).map_err(StoreError::failed("writing"))?;
    Ok(())
}

fn head_of(heads: &impl ReadableTable<&'static str, (u64, &'static str)>, store: &Uuid) -> Result<Head, StoreError> {
    let last = heads.get(LAST).map_err(StoreError::failed("reading"))?;
    Ok(last.map_or_else(
        || Head { sequence: 0, hash: genesis(store) },
        |last| {
            let (sequence, hash) = last.value();
            Head { sequence, hash: hash.to_owned() }
        },
    ))
}

fn put(table: &mut Records<'_>, head: &mut Head, entry: &AuditEntry) -> Result<(), StoreError> {
    let previous = std::mem::take(&mut head.hash);
    let record = AuditRecord { sequence: head.sequence + 1, entry: entry.clone(), previous, hash: String::new() };
    let record = serde_json::to_value(&record).and_then(serde_json::from_value);
    let mut record: Map<String, Value> = record.map_err(StoreError::failed("encoding an audit record of"))?;
    head.sequence += 1;
    head.hash = hash(&record);
    record.insert("hash".into(), head.hash.as_str().into());
    let bytes = encode(&record)?;
    table.insert(head.sequence, bytes.as_slice()).map_err(StoreError::failed("writing"))?;
    Ok(())
}

/// Drops the oldest records that are too old or too many, and says so in the chain: it can be verified from there on.
fn prune(table: &mut Records<'_>, head: &mut Head, now: Timestamp) -> Result<(), StoreError> {
    let Some((first, at)) = oldest(table)? else { return Ok(()) };
    let many = (head.sequence + 1 - first).saturating_sub(MAX_RECORDS);
    if now.duration_since(at) <= KEEP + SLACK && many == 0 {
        return Ok(());
    }
    let mut gone = None;
    for sequence in first..first + MAX_PRUNED.min(head.sequence - first) {
        let found = table.get(sequence).map_err(StoreError::failed("reading"))?;
        let Some(record) = found.and_then(|found| decode(found.value()).ok()) else { break };
        let old = at_of(&record).is_some_and(|at| now.duration_since(at) > KEEP);
        if !old && sequence >= first + many {
            break;
        }
        let hash = record.get("hash").and_then(Value::as_str).unwrap_or_default().to_owned();
        table.remove(sequence).map_err(StoreError::failed("writing"))?;
        gone = Some(AuditCheckpoint { through: sequence, hash });
    }
    let Some(checkpoint) = gone else { return Ok(()) };
    let entry = AuditEntry {
        summary: Some(format!("records through {} pruned", checkpoint.through)),
        resource: Some("audit".into()),
        checkpoint: Some(checkpoint),
        ..AuditEntry::new(now, "picket", AuditResult::Granted)
    };
    put(table, head, &entry)
}

fn oldest(table: &Records<'_>) -> Result<Option<(u64, Timestamp)>, StoreError> {
    let Some((key, value)) = table.first().map_err(StoreError::failed("reading"))? else { return Ok(None) };
    // One that cannot be read is kept: pruning must not remove the traces of whoever damaged it.
    let at = decode(value.value()).ok().as_ref().and_then(at_of).unwrap_or(Timestamp::MAX);
    Ok(Some((key.value(), at)))
}

fn at_of(record: &Map<String, Value>) -> Option<Timestamp> {
    record.get("at")?.as_str()?.parse().ok()
}

/// The records that are asked for.
pub(super) fn page(transaction: &ReadTransaction, query: &AuditQuery) -> Result<AuditPage, StoreError> {
    let table = transaction.open_table(AUDIT).map_err(StoreError::failed("reading"))?;
    let range = match (query.newest_first, query.after) {
        (_, None) => table.range(0..),
        (true, Some(after)) => table.range(0..after),
        (false, Some(after)) => table.range(after.saturating_add(1)..),
    };
    let range = range.map_err(StoreError::failed("reading"))?;
    let lines: Box<dyn Iterator<Item = _>> = if query.newest_first { Box::new(range.rev()) } else { Box::new(range) };
    let mut page = AuditPage::default();
    let mut last = None;
    for (scanned, line) in lines.enumerate() {
        if page.records.len() == query.limit || scanned == MAX_SCANNED {
            page.next = last;
            break;
        }
        let (key, value) = line.map_err(StoreError::failed("reading"))?;
        let record = decode(value.value()).map_err(damaged(key.value()))?;
        if wanted(&record, query) {
            page.records.push(record);
        }
        last = Some(key.value());
    }
    Ok(page)
}

fn wanted(record: &Map<String, Value>, query: &AuditQuery) -> bool {
    let at = at_of(record);
    let by = record.get("principal").and_then(Value::as_str);
    query.since.is_none_or(|since| at.is_some_and(|at| at >= since))
        && query.until.is_none_or(|until| at.is_some_and(|at| at < until))
        && query.principal.as_deref().is_none_or(|principal| by == Some(principal))
}

/// Walks the whole chain.
pub(super) fn verdict(transaction: &ReadTransaction, store: &Uuid) -> Result<AuditVerdict, StoreError> {
    let table = transaction.open_table(AUDIT).map_err(StoreError::failed("reading"))?;
    let heads = transaction.open_table(HEAD).map_err(StoreError::failed("reading"))?;
    let head = head_of(&heads, store)?;
    let mut chain = Chain::new(genesis(store));
    let mut fault = None;
    for line in table.range(0..).map_err(StoreError::failed("reading"))? {
        let (key, value) = line.map_err(StoreError::failed("reading"))?;
        fault = match decode(value.value()) {
            // Its own words count, not where it lies.
            Ok(record) => chain.take(&record).err().map(|fault| fault.to_string()),
            Err(_) => Some(format!("record {} cannot be read", key.value())),
        };
        if fault.is_some() {
            break;
        }
    }
    let fault = fault.or_else(|| chain.end(Some((head.sequence, &head.hash))).err().map(|fault| fault.to_string()));
    Ok(AuditVerdict {
        intact: fault.is_none(),
        fault,
        records: chain.records(),
        genesis: genesis(store),
        sequence: head.sequence,
        hash: head.hash,
    })
}

fn damaged(sequence: u64) -> impl FnOnce(Cause) -> StoreError {
    move |source| StoreError::Damaged { kind: "audit record".into(), id: sequence.to_string(), source }
}

fn encode(record: &Map<String, Value>) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, record).map_err(StoreError::failed("encoding an audit record of"))?;
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Map<String, Value>, Cause> {
    match bytes.split_first() {
        Some((&VERSION, json)) => Ok(serde_json::from_slice(json)?),
        Some((version, _)) => Err(format!("record version {version} is not known here").into()),
        None => Err("the record is empty".into()),
    }
}
