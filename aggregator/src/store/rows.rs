//! Rows: kind and id → version byte and postcard. Knows no meaning of theirs.

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};

use super::{Cause, StoreError, v1};
use crate::fleet::Record;
use crate::fleet::view::{Row, RowKey};

/// (kind, id) → [`VERSION`], postcard of [`Row`].
pub(super) const ROWS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("rows");
/// Form of the rows. A changed form gets the next number together with the schema, and the old one is frozen as [`v1`] is.
const VERSION: u8 = 2;

pub(super) fn make(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(ROWS).map(drop).map_err(StoreError::failed("making"))
}

/// Rewrites the rows of schema 1 as they are kept now.
pub(super) fn migrate_v1(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut table = transaction.open_table(ROWS).map_err(StoreError::failed("migrating"))?;
    let mut rows = Vec::new();
    for entry in table.iter().map_err(StoreError::failed("migrating"))? {
        let (key, value) = entry.map_err(StoreError::failed("migrating"))?;
        let (kind, id) = key.value();
        let damaged = |source| StoreError::Damaged { kind: kind.to_owned(), id: id.to_owned(), source };
        let read = match value.value().split_first() {
            Some((&v1::VERSION, body)) => v1::read(body),
            _ => Err("not a row of schema 1".into()),
        };
        rows.extend(read.map_err(damaged)?);
    }
    for row in rows {
        let (kind, id) = place(&row.key());
        let bytes = encode(&row).map_err(StoreError::failed("encoding a row of"))?;
        table.insert((kind, id.as_str()), bytes.as_slice()).map_err(StoreError::failed("migrating"))?;
    }
    Ok(())
}

pub(super) fn load(transaction: &ReadTransaction) -> Result<Vec<Row>, StoreError> {
    let table = transaction.open_table(ROWS).map_err(StoreError::failed("reading"))?;
    let mut rows = Vec::new();
    for entry in table.iter().map_err(StoreError::failed("reading"))? {
        let (key, value) = entry.map_err(StoreError::failed("reading"))?;
        let (kind, id) = key.value();
        let damaged = |source| StoreError::Damaged { kind: kind.to_owned(), id: id.to_owned(), source };
        rows.push(decode(value.value()).map_err(damaged)?);
    }
    Ok(rows)
}

pub(super) fn apply(transaction: &WriteTransaction, records: &[Record]) -> Result<(), StoreError> {
    let mut table = transaction.open_table(ROWS).map_err(StoreError::failed("writing"))?;
    for record in records {
        match record {
            Record::Put(row) => {
                let (kind, id) = place(&row.key());
                let bytes = encode(row).map_err(StoreError::failed("encoding a row of"))?;
                table.insert((kind, id.as_str()), bytes.as_slice()).map_err(StoreError::failed("writing"))?;
            }
            Record::Remove(key) => {
                let (kind, id) = place(key);
                table.remove((kind, id.as_str())).map_err(StoreError::failed("writing"))?;
            }
            Record::History(..) | Record::Audit(_) | Record::Answer(_) => {}
        }
    }
    Ok(())
}

fn encode(row: &Row) -> Result<Vec<u8>, Cause> {
    Ok(postcard::to_extend(row, vec![VERSION])?)
}

fn decode(bytes: &[u8]) -> Result<Row, Cause> {
    match bytes.split_first() {
        Some((&VERSION, body)) => match postcard::take_from_bytes(body)? {
            (row, []) => Ok(row),
            (_, rest) => Err(format!("{} bytes follow the row", rest.len()).into()),
        },
        Some((version, _)) => Err(format!("row version {version} is not known here").into()),
        None => Err("the row is empty".into()),
    }
}

/// Kind and id of a key. The names of kinds are part of the file: they never change.
fn place(key: &RowKey) -> (&'static str, String) {
    match key {
        RowKey::Zone(id) => ("zone", id.to_string()),
        RowKey::Cluster(id) => ("cluster", id.to_string()),
        RowKey::Rack(id) => ("rack", id.to_string()),
        RowKey::Host(id) => ("host", id.to_string()),
        RowKey::Power(id) => ("power", id.to_string()),
        RowKey::Agent(id) => ("agent", id.to_string()),
        RowKey::JoinToken(id) => ("join-token", id.clone()),
        RowKey::WitnessToken(id) => ("witness-token", id.clone()),
        RowKey::ApiToken(hash) => ("api-token", hash.clone()),
        RowKey::Operation(id) => ("operation", id.to_string()),
        RowKey::Alert(id) => ("alert", id.clone()),
        RowKey::Part(operation, host) => ("operation-part", format!("{operation}/{host}")),
        RowKey::Pending(host) => ("pending-password", host.to_string()),
        RowKey::Facts(host) => ("facts", host.to_string()),
        RowKey::Settings => ("settings", String::new()),
        RowKey::Silence(id) => ("silence", id.clone()),
        RowKey::Outbox(id) => ("outbox", id.clone()),
        RowKey::Ha(of) => ("ha", of.to_string()),
        RowKey::Budget(cluster) => ("ha-budget", cluster.to_string()),
        RowKey::Reported(host) => ("ha-reported", host.to_string()),
    }
}
