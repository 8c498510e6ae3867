//! Events as they were told: sequence → when they were recorded, and their JSON. Bounded by count and age in the transaction that
//! adds them.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use redb::{ReadTransaction, ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::StoreError;
use crate::context::{KeptEvents, Published};

/// Sequence → (recorded at, in microseconds; JSON of the event).
const EVENTS: TableDefinition<'_, u64, (i64, &[u8])> = TableDefinition::new("events");

/// Most events: at 600 bytes each 60 MB.
pub(super) const MAX_EVENTS: u64 = 100_000;
/// How long an event is kept at most.
pub(super) const KEEP: SignedDuration = SignedDuration::from_hours(24);
/// Most events dropped for their age beyond as many as come: a commit stays quick after a long silence.
const MAX_AGED: u64 = 256;

pub(super) fn make(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(EVENTS).map(drop).map_err(StoreError::failed("making"))
}

pub(super) fn append(transaction: &WriteTransaction, events: &[Arc<Published>]) -> Result<(), StoreError> {
    let Some(newest) = events.last() else { return Ok(()) };
    let mut table = transaction.open_table(EVENTS).map_err(StoreError::failed("writing"))?;
    for event in events {
        let value = (event.recorded_at.as_microsecond(), &*event.json);
        table.insert(event.sequence, value).map_err(StoreError::failed("writing"))?;
    }
    trim(&mut table, newest, events.len() as u64)
}

fn trim(table: &mut Table<'_, u64, (i64, &'static [u8])>, newest: &Published, added: u64) -> Result<(), StoreError> {
    let oldest = newest.recorded_at.checked_sub(KEEP).unwrap_or(Timestamp::MIN).as_microsecond();
    for _ in 0..added.saturating_add(MAX_AGED) {
        let Some((sequence, at)) = first(table)? else { break };
        if sequence.saturating_add(MAX_EVENTS) > newest.sequence && at >= oldest {
            break;
        }
        table.remove(sequence).map_err(StoreError::failed("writing"))?;
    }
    Ok(())
}

fn first(table: &Table<'_, u64, (i64, &'static [u8])>) -> Result<Option<(u64, i64)>, StoreError> {
    let first = table.first().map_err(StoreError::failed("reading"))?;
    Ok(first.map(|(key, value)| (key.value(), value.value().0)))
}

/// Sequence of the last event; zero before the first.
pub(super) fn last(transaction: &ReadTransaction) -> Result<u64, StoreError> {
    let table = transaction.open_table(EVENTS).map_err(StoreError::failed("reading"))?;
    Ok(table.last().map_err(StoreError::failed("reading"))?.map_or(0, |(key, _)| key.value()))
}

/// At most `limit` events behind `after`, and the oldest there is.
pub(super) fn after(transaction: &ReadTransaction, after: u64, limit: usize) -> Result<KeptEvents, StoreError> {
    let table = transaction.open_table(EVENTS).map_err(StoreError::failed("reading"))?;
    let oldest = table.first().map_err(StoreError::failed("reading"))?.map(|(key, _)| key.value());
    let (mut events, mut through) = (Vec::new(), after);
    for line in table.range(after.saturating_add(1)..).map_err(StoreError::failed("reading"))?.take(limit) {
        let (key, value) = line.map_err(StoreError::failed("reading"))?;
        let (at, json) = value.value();
        through = key.value();
        let recorded_at = Timestamp::from_microsecond(at).unwrap_or(Timestamp::MIN);
        // One that does not read is skipped like one that was trimmed: whoever needs it is not helped by an error.
        match Published::read(key.value(), recorded_at, json) {
            Ok(event) => events.push(Arc::new(event)),
            Err(error) => tracing::error!(sequence = key.value(), %error, "a stored event cannot be read"),
        }
    }
    Ok(KeptEvents { oldest, events, through })
}

/// Sequence of the last event recorded before `at`: the events since then lie behind it. Events are recorded in the order of their
/// sequence, so halving the interval finds it.
pub(super) fn before(transaction: &ReadTransaction, at: Timestamp) -> Result<u64, StoreError> {
    let table = transaction.open_table(EVENTS).map_err(StoreError::failed("reading"))?;
    let bounds = (table.first().map_err(StoreError::failed("reading"))?, table.last().map_err(StoreError::failed("reading"))?);
    let (Some((first, _)), Some((last, _))) = bounds else { return Ok(0) };
    let (mut low, mut high) = (first.value(), last.value().saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let next = table.range(middle..high).map_err(StoreError::failed("reading"))?.next();
        let Some(next) = next else {
            high = middle;
            continue;
        };
        let (key, value) = next.map_err(StoreError::failed("reading"))?;
        if value.value().0 < at.as_microsecond() {
            low = key.value().saturating_add(1);
        } else {
            high = middle;
        }
    }
    Ok(low.saturating_sub(1))
}
