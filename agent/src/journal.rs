//! The agent's memory that survives everything: redb, one durable two-phase transaction per decision. Never decides.
//!
//! | table | key → value |
//! |---|---|
//! | `meta` | name → bytes: schema, incarnation, next sequence, generation and epoch |
//! | `assignment`, `host` | host → row |
//! | `operation` | operation and host → row |
//! | `seen` | operation and host → time until which it is remembered |
//! | `outbox` | sequence → report |
//! | `memory` | host → what a driver wants to know again (pins, sessions, systems) |
//! | `facts` | host → what its BMC is, as far as it was learned |
//! | `password` | host → a change of its password that its assignment knows nothing of; stays when the host leaves the rack |
//!
//! The schema grows by one whenever an older agent could not go on with the file, be it that rows changed their layout or that
//! it would do harm by not knowing a table. A file of an older schema is copied beside itself and taken over row by row in one
//! transaction; one of a newer schema is refused untouched. 1 → 2: rows of hosts and operations know which boot of the
//! machine their times belong to; new steps of operations, facts, changes of passwords.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use picket_common::id::{HostId, OperationId};
use picket_common::wire::assign::HostAssignment;
use picket_common::wire::report::Report;
use picket_common::wire::{Generation, Incarnation, Time};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::rack::change::PasswordChange;
use crate::rack::facts::FactsRow;
use crate::rack::host::HostRow;
use crate::rack::operation::Operation;
use crate::rack::{Record, Restored};

/// Version of the tables and rows; a file with a higher one is refused.
const SCHEMA: u64 = 2;
/// Most reports kept: over a day of a busy rack cut off; beyond it the oldest go, and the aggregator is told of the gap.
pub const MAX_OUTBOX: u64 = 250_000;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const ASSIGNMENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("assignment");
const HOST: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("host");
const OPERATION: TableDefinition<'_, (u128, &str), &[u8]> = TableDefinition::new("operation");
const SEEN: TableDefinition<'_, (u128, &str), i64> = TableDefinition::new("seen");
const OUTBOX: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("outbox");
const MEMORY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("memory");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
const PASSWORD: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("password");

/// A row and the version of its layout, which is its first byte.
trait Row: Serialize + DeserializeOwned {
    const VERSION: u8;
}

impl Row for (Option<Generation>, u64) {
    const VERSION: u8 = 1;
}

impl Row for HostAssignment {
    const VERSION: u8 = 1;
}

impl Row for HostRow {
    const VERSION: u8 = 2;
}

impl Row for Operation {
    const VERSION: u8 = 2;
}

impl Row for Report {
    const VERSION: u8 = 1;
}

impl Row for FactsRow {
    const VERSION: u8 = 1;
}

impl Row for PasswordChange {
    const VERSION: u8 = 1;
}

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
                take_over(&database).map_err(fail("take over an older schema"))?;
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
            let mut meta = transaction.open_table(META)?;
            let number = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| number(&bytes));
            let read = |name: &str, meta: &redb::Table<'_, &str, &[u8]>| -> Result<Option<Vec<u8>>, redb::Error> {
                Ok(meta.get(name)?.map(|value| value.value().to_vec()))
            };
            let is_new = meta.get("schema")?.is_none();
            // Written at each opening: a file that cannot be written is found out here.
            meta.insert("opened", fresh.as_bytes().as_slice())?;
            if is_new {
                meta.insert("schema", SCHEMA.to_be_bytes().as_slice())?;
                meta.insert("boot", fresh.as_bytes().as_slice())?;
                meta.insert("next", 1u64.to_be_bytes().as_slice())?;
            }
            let boot = read("boot", &meta)?.and_then(|bytes| uuid::Uuid::from_slice(&bytes).ok()).unwrap_or(fresh);
            found = (Incarnation(boot), number(read("next", &meta)?).unwrap_or(1));
        }
        transaction.open_table(ASSIGNMENT)?;
        transaction.open_table(HOST)?;
        transaction.open_table(OPERATION)?;
        transaction.open_table(SEEN)?;
        transaction.open_table(OUTBOX)?;
        transaction.open_table(MEMORY)?;
        transaction.open_table(FACTS)?;
        transaction.open_table(PASSWORD)?;
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
        let fail = |source: redb::Error| JournalError::Redb { path: self.path.clone(), what: "load", source: Box::new(source) };
        let transaction = database(&self.shared, &self.path)?.begin_read().map_err(|error| fail(error.into()))?;
        let (generation, epoch) = {
            let meta = transaction.open_table(META).map_err(|error| fail(error.into()))?;
            let value = meta.get("generation").map_err(|error| fail(error.into()))?;
            match value {
                Some(value) => self.row("meta", value.value())?,
                None => (None, 0),
            }
        };
        let mut restored = Restored { generation, epoch, ..Restored::default() };
        let assignments = transaction.open_table(ASSIGNMENT).map_err(|error| fail(error.into()))?;
        for entry in assignments.iter().map_err(|error| fail(error.into()))? {
            restored.assignments.push(self.row("assignment", entry.map_err(|error| fail(error.into()))?.1.value())?);
        }
        let hosts = transaction.open_table(HOST).map_err(|error| fail(error.into()))?;
        for entry in hosts.iter().map_err(|error| fail(error.into()))? {
            restored.rows.push(self.row("host", entry.map_err(|error| fail(error.into()))?.1.value())?);
        }
        let operations = transaction.open_table(OPERATION).map_err(|error| fail(error.into()))?;
        for entry in operations.iter().map_err(|error| fail(error.into()))? {
            restored.operations.push(self.row("operation", entry.map_err(|error| fail(error.into()))?.1.value())?);
        }
        let facts = transaction.open_table(FACTS).map_err(|error| fail(error.into()))?;
        for entry in facts.iter().map_err(|error| fail(error.into()))? {
            restored.facts.push(self.row("facts", entry.map_err(|error| fail(error.into()))?.1.value())?);
        }
        let changes = transaction.open_table(PASSWORD).map_err(|error| fail(error.into()))?;
        for entry in changes.iter().map_err(|error| fail(error.into()))? {
            restored.changes.push(self.row("password", entry.map_err(|error| fail(error.into()))?.1.value())?);
        }
        let seen = transaction.open_table(SEEN).map_err(|error| fail(error.into()))?;
        for entry in seen.iter().map_err(|error| fail(error.into()))? {
            let (key, until) = entry.map_err(|error| fail(error.into()))?;
            let (operation, host) = key.value();
            let host = host.parse().map_err(|_| JournalError::Row { path: self.path.clone(), table: "seen" })?;
            restored.seen.push((OperationId(uuid::Uuid::from_u128(operation)), host, Time(until.value())));
        }
        Ok(restored)
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

fn number(bytes: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(bytes).ok().map(u64::from_be_bytes)
}

/// The schema of a file, unless it is new.
fn stored_schema(database: &Database) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("schema")?.and_then(|value| number(value.value()))),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Keeps the file as the older version left it, for going back to that version by hand.
fn keep_copy(path: &Path, schema: u64) -> Result<(), JournalError> {
    let mut copy = path.as_os_str().to_owned();
    copy.push(format!(".schema-{schema}"));
    let copy = PathBuf::from(copy);
    let draft = copy.with_extension("new");
    let written = std::fs::copy(path, &draft)
        .and_then(|_| std::fs::File::open(&draft)?.sync_all())
        .and_then(|()| std::fs::rename(&draft, &copy));
    written.map_err(|source| JournalError::Copy { path: path.to_owned(), copy, source })
}

/// Schema 1 → 2, in one transaction.
fn take_over(database: &Database) -> Result<(), redb::Error> {
    let transaction = begin(database)?;
    {
        let mut hosts = transaction.open_table(HOST)?;
        let old: Vec<schema_1::HostRow> = rows(&hosts, "host")?;
        for row in old {
            let row = HostRow::from(row);
            hosts.insert(row.host.as_str(), encode(&row)?.as_slice())?;
        }
        let mut operations = transaction.open_table(OPERATION)?;
        let old: Vec<schema_1::Operation> = rows(&operations, "operation")?;
        for row in old {
            let row = Operation::from(row);
            let key = (row.command.operation.0.as_u128(), row.command.host.as_str());
            operations.insert(key, encode(&row)?.as_slice())?;
        }
        transaction.open_table(META)?.insert("schema", SCHEMA.to_be_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

fn rows<K: redb::Key, T: Row>(table: &redb::Table<'_, K, &[u8]>, name: &str) -> Result<Vec<T>, redb::Error> {
    let mut all = Vec::new();
    for entry in table.iter()? {
        let corrupted = || redb::Error::Corrupted(format!("a row of table {name} does not decode"));
        all.push(decode(entry?.1.value()).ok_or_else(corrupted)?);
    }
    Ok(all)
}

/// Rows as schema 1 had them: their times knew no boot, so that the wall clock is all there is to judge them by.
mod schema_1 {
    use std::time::Duration;

    use picket_common::command::BmcError;
    use picket_common::id::HostId;
    use picket_common::power::{Management, PowerState};
    use picket_common::wire::Time;
    use picket_common::wire::down::PowerCommand;
    use serde::{Deserialize, Serialize};

    use super::Row;
    use crate::rack::host;
    use crate::rack::moment::{MachineBoot, Moment};
    use crate::rack::operation::{self, Phase};

    #[derive(Serialize, Deserialize)]
    pub struct HostRow {
        pub host: HostId,
        pub enablement: u64,
        pub power: PowerState,
        pub power_since: Time,
        pub management: Option<Management>,
        pub management_since: Time,
        pub error: Option<BmcError>,
        pub refused_logins: u32,
        pub blocked_until: Option<Time>,
        pub revision: u64,
    }

    #[derive(Serialize, Deserialize)]
    pub struct Operation {
        pub command: PowerCommand,
        pub deadline_wall: Time,
        pub phase: Phase,
    }

    impl Row for HostRow {
        const VERSION: u8 = 1;
    }

    impl Row for Operation {
        const VERSION: u8 = 1;
    }

    const fn of_another_boot(wall: Time) -> Moment {
        Moment { boot: MachineBoot(uuid::Uuid::nil()), boottime: Duration::ZERO, wall }
    }

    impl From<HostRow> for host::HostRow {
        fn from(row: HostRow) -> Self {
            Self {
                host: row.host,
                enablement: row.enablement,
                power: row.power,
                power_since: row.power_since,
                management: row.management,
                management_since: row.management_since,
                error: row.error,
                refused_logins: row.refused_logins,
                refused_at: None,
                login_since: None,
                blocked_until: row.blocked_until.map(of_another_boot),
                revision: row.revision,
            }
        }
    }

    impl From<Operation> for operation::Operation {
        fn from(row: Operation) -> Self {
            Self { phase: row.phase, ..Self::new(row.command, of_another_boot(row.deadline_wall)) }
        }
    }
}

struct Tables<'t> {
    meta: redb::Table<'t, &'static str, &'static [u8]>,
    assignment: redb::Table<'t, &'static str, &'static [u8]>,
    host: redb::Table<'t, &'static str, &'static [u8]>,
    operation: redb::Table<'t, (u128, &'static str), &'static [u8]>,
    seen: redb::Table<'t, (u128, &'static str), i64>,
    outbox: redb::Table<'t, u64, &'static [u8]>,
    memory: redb::Table<'t, &'static str, &'static [u8]>,
    facts: redb::Table<'t, &'static str, &'static [u8]>,
    password: redb::Table<'t, &'static str, &'static [u8]>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            assignment: transaction.open_table(ASSIGNMENT)?,
            host: transaction.open_table(HOST)?,
            operation: transaction.open_table(OPERATION)?,
            seen: transaction.open_table(SEEN)?,
            outbox: transaction.open_table(OUTBOX)?,
            memory: transaction.open_table(MEMORY)?,
            facts: transaction.open_table(FACTS)?,
            password: transaction.open_table(PASSWORD)?,
        })
    }

    fn write(&mut self, record: &Record, next: &mut u64) -> Result<(), redb::Error> {
        match record {
            Record::Host(row) => drop(self.host.insert(row.host.as_str(), encode(row)?.as_slice())?),
            Record::Assignment(row) => drop(self.assignment.insert(row.host.as_str(), encode(row)?.as_slice())?),
            Record::Remove(host) => {
                self.assignment.remove(host.as_str())?;
                self.host.remove(host.as_str())?;
                self.memory.remove(host.as_str())?;
                self.facts.remove(host.as_str())?;
            }
            Record::Generation(generation, epoch) => {
                drop(self.meta.insert("generation", encode(&(*generation, *epoch))?.as_slice())?)
            }
            Record::Operation(row) => {
                let key = (row.command.operation.0.as_u128(), row.command.host.as_str());
                self.operation.insert(key, encode(row)?.as_slice())?;
            }
            Record::OperationEnded(operation, host) => drop(self.operation.remove((operation.0.as_u128(), host.as_str()))?),
            Record::Seen(operation, host, until) => drop(self.seen.insert((operation.0.as_u128(), host.as_str()), until.0)?),
            Record::Unseen(operation, host) => drop(self.seen.remove((operation.0.as_u128(), host.as_str()))?),
            Record::Facts(row) => drop(self.facts.insert(row.host.as_str(), encode(row.as_ref())?.as_slice())?),
            Record::Password(row) => drop(self.password.insert(row.host.as_str(), encode(row.as_ref())?.as_slice())?),
            Record::PasswordEnded(host) => drop(self.password.remove(host.as_str())?),
            Record::Report(report) => {
                self.outbox.insert(*next, encode(report.as_ref())?.as_slice())?;
                *next += 1;
            }
            Record::Trim(up_to) => self.outbox.retain_in(..=*up_to, |_, _| false)?,
        }
        Ok(())
    }

    fn bound_outbox(&mut self, next: u64) -> Result<(), redb::Error> {
        let kept_from = next.saturating_sub(MAX_OUTBOX);
        if self.outbox.len()? > MAX_OUTBOX {
            self.outbox.retain_in(..kept_from, |_, _| false)?;
        }
        Ok(())
    }
}

/// Reads the journal from other threads, and keeps what drivers want to know again.
#[derive(Clone)]
pub struct Reader {
    path: PathBuf,
    shared: Shared,
}

impl Reader {
    /// Reports from `from` on, at most `limit`, and the outbox's bounds.
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
        let oldest = outbox.first()?.map_or(next, |(key, _)| key.value());
        let mut reports = Vec::new();
        for entry in outbox.range(from..)?.take(limit) {
            let (sequence, value) = entry?;
            if let Some(report) = decode(value.value()) {
                reports.push((sequence.value(), report));
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

fn encode<T: Row>(row: &T) -> Result<Vec<u8>, redb::Error> {
    // postcard fails only on types that these rows do not contain; told as corruption rather than hidden.
    postcard::to_extend(row, vec![T::VERSION]).map_err(|error| redb::Error::Corrupted(format!("row does not encode: {error}")))
}

fn decode<T: Row>(bytes: &[u8]) -> Option<T> {
    let (version, row) = bytes.split_first()?;
    let (value, rest) = postcard::take_from_bytes(row).ok()?;
    (*version == T::VERSION && rest.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use picket_common::command::Outcome;
    use picket_common::wire::assign::HostAssignment;
    use picket_common::wire::report::{OperationReport, Progress};

    fn report(n: u128) -> Record {
        Record::Report(Box::new(Report::Operation(OperationReport {
            operation: OperationId(uuid::Uuid::from_u128(n)),
            host: "h".parse().unwrap(),
            at: Time(0),
            progress: Progress::Done(Outcome::Changed),
        })))
    }

    #[test]
    fn sequences_survive_and_trimming_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let boot;
        {
            let mut journal = Journal::open(&path, uuid::Uuid::from_u128(7)).unwrap();
            boot = journal.boot();
            assert_eq!(journal.record(&[report(1), report(2)]).unwrap(), Outbox { oldest: 1, next: 3 });
            assert_eq!(journal.record(&[report(3), Record::Trim(1)]).unwrap(), Outbox { oldest: 2, next: 4 });
        }
        let mut journal = Journal::open(&path, uuid::Uuid::from_u128(8)).unwrap();
        assert_eq!(journal.boot(), boot, "the incarnation belongs to the file");
        let (reports, outbox) = journal.reader().outbox(0, 10).unwrap();
        assert_eq!(reports.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(outbox, Outbox { oldest: 2, next: 4 });
        assert_eq!(journal.record(&[Record::Trim(3)]).unwrap(), Outbox { oldest: 4, next: 4 });
        assert_eq!(journal.record(&[report(4)]).unwrap(), Outbox { oldest: 4, next: 5 });
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        drop(Journal::open(&path, uuid::Uuid::nil()).unwrap());
        {
            let database = Database::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert("schema", 9u64.to_be_bytes().as_slice()).unwrap();
            transaction.commit().unwrap();
        }
        assert!(matches!(Journal::open(&path, uuid::Uuid::nil()), Err(JournalError::Newer { found: 9, .. })));
    }

    #[test]
    fn a_file_of_schema_1_is_taken_over_and_a_copy_is_kept() {
        use crate::rack::operation::Phase;
        use picket_common::command::Action;
        use picket_common::power::{Management, PowerState};
        use picket_common::wire::down::PowerCommand;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let host: HostId = "h".parse().unwrap();
        let mut journal = Journal::open(&path, uuid::Uuid::from_u128(7)).unwrap();
        journal.record(&[report(1)]).unwrap();
        drop(journal);
        let command = PowerCommand {
            operation: OperationId(uuid::Uuid::from_u128(5)),
            host: host.clone(),
            action: Action::Cycle,
            on_if_off: true,
            deadline: Time(8),
            epoch: 1,
            generation: Generation { store: uuid::Uuid::nil(), counter: 1 },
            enablement: 3,
        };
        let row = schema_1::HostRow {
            host: host.clone(),
            enablement: 3,
            power: PowerState::Off,
            power_since: Time(1),
            management: Some(Management::AuthBlocked),
            management_since: Time(2),
            error: None,
            refused_logins: 2,
            blocked_until: Some(Time(9)),
            revision: 4,
        };
        let operation = schema_1::Operation { command: command.clone(), deadline_wall: Time(8), phase: Phase::Pausing };
        {
            let database = Database::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert("schema", 1u64.to_be_bytes().as_slice()).unwrap();
            transaction.open_table(HOST).unwrap().insert("h", encode(&row).unwrap().as_slice()).unwrap();
            transaction.open_table(OPERATION).unwrap().insert((5, "h"), encode(&operation).unwrap().as_slice()).unwrap();
            transaction.delete_table(FACTS).unwrap();
            transaction.commit().unwrap();
        }
        let journal = Journal::open(&path, uuid::Uuid::from_u128(8)).unwrap();
        let restored = journal.load().unwrap();
        assert_eq!(restored.rows, [HostRow::from(row)]);
        assert_eq!(restored.operations[0].command, command);
        assert_eq!(restored.operations[0].phase, Phase::Pausing);
        assert_eq!(journal.boot().0.as_u128(), 7, "the sequence goes on");
        assert_eq!(journal.reader().outbox(0, 10).unwrap().0.len(), 1);
        let copy = dir.path().join("journal.redb.schema-1");
        let kept = Database::open(&copy).unwrap();
        assert_eq!(stored_schema(&kept).unwrap(), Some(1), "the version before can go on with it");
        let rows: Vec<schema_1::HostRow> = rows(&kept.begin_write().unwrap().open_table(HOST).unwrap(), "host").unwrap();
        assert_eq!(rows[0].revision, 4);
        drop(journal);
        assert_eq!(Journal::open(&path, uuid::Uuid::nil()).unwrap().load().unwrap().rows.len(), 1, "once is enough");
    }

    #[test]
    fn everything_recorded_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let host: HostId = "h".parse().unwrap();
        let operation = OperationId(uuid::Uuid::from_u128(5));
        let mut journal = Journal::open(&path, uuid::Uuid::nil()).unwrap();
        journal.record(&[Record::Seen(operation, host.clone(), Time(9)), Record::Generation(None, 4)]).unwrap();
        journal.reader().set_memory(&host, Some(b"pin")).unwrap();
        assert_eq!(journal.reader().memory(&host).unwrap(), None, "nothing is kept of a host that is not ours");
        let assignment = HostAssignment {
            host: host.clone(),
            zone: "z".parse().unwrap(),
            cluster: "c".parse().unwrap(),
            enablement: 1,
            refusal: None,
            bmc: None,
            poll_interval_ms: 1000,
        };
        journal.record(&[Record::Assignment(assignment)]).unwrap();
        journal.reader().set_memory(&host, Some(b"pin")).unwrap();
        let change = PasswordChange {
            host: host.clone(),
            operation,
            base_revision: 1,
            revision: 2,
            old: None,
            new: picket_common::seal::Sealed(vec![1, 2]),
            stage: crate::rack::change::Stage::New,
        };
        let learned = crate::rack::moment::Moment {
            boot: crate::rack::moment::MachineBoot(uuid::Uuid::nil()),
            boottime: std::time::Duration::from_secs(3),
            wall: Time(4),
        };
        let facts = FactsRow { host: host.clone(), revision: 1, learned, facts: picket_common::facts::Facts::default() };
        journal.record(&[Record::Password(Box::new(change.clone())), Record::Facts(Box::new(facts.clone()))]).unwrap();
        let restored = journal.load().unwrap();
        assert_eq!((&restored.changes, &restored.facts), (&vec![change.clone()], &vec![facts]));
        assert_eq!(restored.seen, [(operation, host.clone(), Time(9))]);
        assert_eq!(restored.epoch, 4);
        assert_eq!(journal.reader().memory(&host).unwrap().unwrap(), b"pin");
        journal.record(&[Record::Unseen(operation, host.clone()), Record::Remove(host.clone())]).unwrap();
        let restored = journal.load().unwrap();
        assert!(restored.seen.is_empty() && restored.facts.is_empty());
        assert_eq!(restored.changes, [change], "a host may come back with the password it got here");
        journal.record(&[Record::PasswordEnded(host.clone())]).unwrap();
        assert!(journal.load().unwrap().changes.is_empty());
        assert_eq!(journal.reader().memory(&host).unwrap(), None);
    }
}
