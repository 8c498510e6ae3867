//! The agent's memory that survives everything: redb, one durable two-phase transaction per decision. Never decides.
//!
//! | table | key → value |
//! |---|---|
//! | `meta` | name → bytes: schema, incarnation, next sequence, generation and epoch, what host-HA obeys for all hosts |
//! | `assignment`, `host` | host → row |
//! | `operation` | operation and host → row |
//! | `seen` | operation and host → time until which it is remembered |
//! | `outbox` | sequence → report |
//! | `memory` | host → what a driver wants to know again (pins, sessions, systems) |
//! | `facts` | host → what its BMC is, as far as it was learned |
//! | `password` | host → a change of its password that its assignment knows nothing of; stays when the host leaves the rack |
//! | `ha_settings` | host → what host-HA needs to know of it |
//! | `ha` | host → where it stands in host-HA; stays when the host leaves the rack |
//!
//! The schema grows by one whenever an older agent could not go on with the file, be it that rows changed their layout or that
//! it would do harm by not knowing a table. A file of an older schema is copied beside itself and taken over row by row in one
//! transaction; one of a newer schema is refused untouched. 1 → 2: rows of hosts and operations know which boot of the
//! machine their times belong to; new steps of operations, facts, changes of passwords. 2 → 3: host-HA; an agent that does not
//! know it would switch on what is fenced.

mod reader;
mod row;
mod schema;
mod table;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use picket_common::id::{HostId, OperationId};
use picket_common::wire::{Incarnation, Time};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

pub use self::reader::Reader;
use self::row::{Row, decode};
use self::schema::{SCHEMA, keep_copy, number, stored_schema, take_over};
pub use self::table::MAX_OUTBOX;
use self::table::{ASSIGNMENT, FACTS, HA, HA_SETTINGS, HOST, META, OPERATION, PASSWORD, SEEN, Tables};
use crate::rack::watch::RestoredWatch;
use crate::rack::{Record, Restored};

/// Why the journal could not do it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// redb said no.
    #[error("journal {path}: {what} failed")]
    Redb {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// redb's error.
        #[source]
        source: Box<redb::Error>,
    },
    /// The file could not be made.
    #[error("journal {path} could not be made")]
    Create {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// Written by a newer Picket.
    #[error(
        "journal {path} has schema {found}, this picket-agent knows up to {SCHEMA}: install the newer version again \
         (what it was before that version took it over lies beside it)"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
    },
    /// An older file could not be copied before it is taken over.
    #[error("journal {path} could not be copied to {copy} before it is taken over")]
    Copy {
        /// The file.
        path: PathBuf,
        /// Its copy.
        copy: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// It is being reopened.
    #[error("journal {path} is not open")]
    Unavailable {
        /// The file.
        path: PathBuf,
    },
    /// A row that does not decode.
    #[error("journal {path}: a row of table {table} does not decode")]
    Row {
        /// The file.
        path: PathBuf,
        /// Which table.
        table: &'static str,
    },
}

/// The open journal.
pub struct Journal {
    path: PathBuf,
    shared: Shared,
    boot: Incarnation,
    next: u64,
}

/// The open database, absent while it is being reopened: redb allows one opening at a time.
type Shared = Arc<RwLock<Option<Arc<Database>>>>;

fn database(shared: &Shared, path: &Path) -> Result<Arc<Database>, JournalError> {
    let database = shared.read().unwrap_or_else(PoisonError::into_inner).clone();
    database.ok_or_else(|| JournalError::Unavailable { path: path.to_owned() })
}

/// What a commit did to the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outbox {
    /// Oldest sequence still there; equals `next` when it is empty.
    pub oldest: u64,
    /// Sequence the next report will get.
    pub next: u64,
}

impl Journal {
    /// Opens or makes the journal. `fresh` becomes its incarnation if it is new.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path, fresh: uuid::Uuid) -> Result<Self, JournalError> {
        let (database, boot, next) = Self::open_file(path, fresh)?;
        Ok(Self { path: path.to_owned(), shared: Arc::new(RwLock::new(Some(Arc::new(database)))), boot, next })
    }

    fn open_file(path: &Path, fresh: uuid::Uuid) -> Result<(Database, Incarnation, u64), JournalError> {
        let create = |source| JournalError::Create { path: path.to_owned(), source };
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(create)?;
        let fail = |what| move |source: redb::Error| JournalError::Redb { path: path.to_owned(), what, source: Box::new(source) };
        let open = || Database::create(path).map_err(redb::Error::from).map_err(fail("open"));
        let mut database = open()?;
        match stored_schema(&database).map_err(fail("read the schema"))? {
            Some(found) if found > SCHEMA => return Err(JournalError::Newer { path: path.to_owned(), found }),
            Some(found) if found < SCHEMA => {
                // Closed, the file is whole: only then it is copied.
                drop(database);
                keep_copy(path, found)?;
                database = open()?;
                take_over(&database, found).map_err(fail("take over an older schema"))?;
            }
            _ => {}
        }
        let (boot, next) = Self::prepare(&database, fresh).map_err(fail("prepare"))?;
        Ok((database, boot, next))
    }

    /// Opens the file again after a failure: redb refuses everything once a write went wrong.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn reopen(&mut self) -> Result<(), JournalError> {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        *shared = None;
        let (database, boot, next) = Self::open_file(&self.path, self.boot.0)?;
        *shared = Some(Arc::new(database));
        self.boot = boot;
        self.next = next;
        Ok(())
    }

    fn prepare(database: &Database, fresh: uuid::Uuid) -> Result<(Incarnation, u64), redb::Error> {
        let transaction = begin(database)?;
        let found;
        {
            let mut tables = Tables::open(&transaction)?;
            let is_new = tables.meta.get("schema")?.is_none();
            // Written at each opening: a file that cannot be written is found out here.
            tables.meta.insert("opened", fresh.as_bytes().as_slice())?;
            if is_new {
                tables.meta.insert("schema", SCHEMA.to_be_bytes().as_slice())?;
                tables.meta.insert("boot", fresh.as_bytes().as_slice())?;
                tables.meta.insert("next", 1u64.to_be_bytes().as_slice())?;
            }
            let boot = tables.meta.get("boot")?.and_then(|bytes| uuid::Uuid::from_slice(bytes.value()).ok());
            let next = tables.meta.get("next")?.and_then(|bytes| number(bytes.value()));
            // Without them sequences would begin anew, and the aggregator would take new reports for ones that it has.
            let (Some(boot), Some(next)) = (boot, next) else {
                return Err(redb::Error::Corrupted("the journal's incarnation or its next sequence is missing".into()));
            };
            found = (Incarnation(boot), next);
        }
        transaction.commit()?;
        Ok(found)
    }

    /// Its incarnation: part of the key of every report.
    #[must_use]
    pub const fn boot(&self) -> Incarnation {
        self.boot
    }

    /// A handle that other threads read the outbox and the drivers' memory through.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { path: self.path.clone(), shared: self.shared.clone() }
    }

    /// All that the rack needs to go on.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn load(&self) -> Result<Restored, JournalError> {
        let transaction = database(&self.shared, &self.path)?.begin_read().map_err(|error| self.unloadable(error.into()))?;
        let (generation, epoch) = self.value(&transaction, "generation")?.unwrap_or_default();
        Ok(Restored {
            generation,
            epoch,
            assignments: self.all(&transaction, "assignment", ASSIGNMENT)?,
            rows: self.all(&transaction, "host", HOST)?,
            operations: self.all(&transaction, "operation", OPERATION)?,
            seen: self.seen(&transaction)?,
            facts: self.all(&transaction, "facts", FACTS)?,
            changes: self.all(&transaction, "password", PASSWORD)?,
            watch: RestoredWatch {
                rules: self.value(&transaction, "ha")?,
                surroundings: self.value(&transaction, "surroundings")?,
                hosts: self.all(&transaction, "ha_settings", HA_SETTINGS)?,
                rows: self.all(&transaction, "ha", HA)?,
            },
            brakes: self.value(&transaction, "brakes")?,
        })
    }

    /// One value of table `meta`.
    fn value<T: Row>(&self, transaction: &ReadTransaction, name: &str) -> Result<Option<T>, JournalError> {
        let meta = transaction.open_table(META).map_err(|error| self.unloadable(error.into()))?;
        let value = meta.get(name).map_err(|error| self.unloadable(error.into()))?;
        value.map(|value| self.row("meta", value.value())).transpose()
    }

    fn seen(&self, transaction: &ReadTransaction) -> Result<Vec<(OperationId, HostId, Time)>, JournalError> {
        let table = transaction.open_table(SEEN).map_err(|error| self.unloadable(error.into()))?;
        let entries = table.iter().map_err(|error| self.unloadable(error.into()))?;
        let seen = entries.map(|entry| {
            let (key, until) = entry.map_err(|error| self.unloadable(error.into()))?;
            let (operation, host) = key.value();
            let host = host.parse().map_err(|_| JournalError::Row { path: self.path.clone(), table: "seen" })?;
            Ok((OperationId(uuid::Uuid::from_u128(operation)), host, Time(until.value())))
        });
        seen.collect()
    }

    /// All rows of a table.
    fn all<K: redb::Key, T: Row>(
        &self,
        transaction: &ReadTransaction,
        name: &'static str,
        table: TableDefinition<'_, K, &[u8]>,
    ) -> Result<Vec<T>, JournalError> {
        let table = transaction.open_table(table).map_err(|error| self.unloadable(error.into()))?;
        let entries = table.iter().map_err(|error| self.unloadable(error.into()))?;
        let rows = entries.map(|entry| self.row(name, entry.map_err(|error| self.unloadable(error.into()))?.1.value()));
        rows.collect()
    }

    fn unloadable(&self, source: redb::Error) -> JournalError {
        JournalError::Redb { path: self.path.clone(), what: "load", source: Box::new(source) }
    }

    fn row<T: Row>(&self, table: &'static str, bytes: &[u8]) -> Result<T, JournalError> {
        decode(bytes).ok_or_else(|| JournalError::Row { path: self.path.clone(), table })
    }

    /// Makes a decision's records durable in one transaction; reports get their sequence here.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing of it is durable.
    pub fn record(&mut self, records: &[Record]) -> Result<Outbox, JournalError> {
        if records.is_empty() {
            return Ok(Outbox { oldest: 0, next: self.next });
        }
        let fail = |source: redb::Error| JournalError::Redb { path: self.path.clone(), what: "commit", source: Box::new(source) };
        let (next, oldest) = self.commit(database(&self.shared, &self.path)?.as_ref(), records).map_err(fail)?;
        self.next = next;
        Ok(Outbox { oldest, next })
    }

    fn commit(&self, database: &Database, records: &[Record]) -> Result<(u64, u64), redb::Error> {
        let transaction = begin(database)?;
        let mut next = self.next;
        let oldest;
        {
            let mut tables = Tables::open(&transaction)?;
            for record in records {
                tables.write(record, &mut next)?;
            }
            tables.bound_outbox(next)?;
            oldest = tables.outbox.first()?.map_or(next, |(key, _)| key.value());
            tables.meta.insert("next", next.to_be_bytes().as_slice())?;
        }
        transaction.commit()?;
        Ok((next, oldest))
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    // Safety rests on these tables: a commit must survive a crash during the recovery from a crash.
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}
