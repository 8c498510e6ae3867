//! The aggregator's durable state: rows by kind and id, histories by host, the audit log, events, answers, and who this store is. One transaction per commit,
//! durable when it returns. Decides nothing; nothing outside this folder knows what database it is.

mod answers;
mod audit;
mod events;
mod history;
mod rows;
#[cfg(test)]
mod tests;
mod v1;

use std::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use picket_common::api::{AuditVerdict, HistoryEntry};
use picket_common::id::HostId;
use redb::backends::FileBackend;
use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use uuid::Uuid;

use crate::context::{ArchiveError, ArchiveSource, AuditPage, AuditQuery, KeptEvents, Published};
use crate::fleet::view::Row;
use crate::fleet::{AnswerKey, KeptAnswer, Record};

/// Schema of this program. Older ones are migrated, and their file kept as it was; newer ones are refused.
const SCHEMA: u64 = 2;
/// Page cache, in bytes: the rows live in the view, only histories are read from here.
const CACHE: usize = 64 << 20;
/// File within the state directory.
const FILE: &str = "store.redb";

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const IDENTITY: TableDefinition<'_, &str, u128> = TableDefinition::new("identity");
const SCHEMA_KEY: &str = "schema";
const NEXT_SEQUENCE_KEY: &str = "next_sequence";
const INCARNATION_KEY: &str = "incarnation";

/// What a database said, whichever it is.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be opened or made.
    #[error("opening the store {path}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Cause,
    },
    /// Written by a newer program: going back would lose what this one does not know.
    #[error("the store has schema {found}, this program knows {SCHEMA}: install the newer program again, or restore a backup")]
    Newer {
        /// Its schema.
        found: u64,
    },
    /// The file of an older schema could not be copied, so it is not migrated either.
    #[error("keeping a copy of the older store {path} before it is migrated")]
    Copy {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Cause,
    },
    /// Another store lies where this one was.
    #[error("the store was replaced while the aggregator ran: restart it")]
    Replaced,
    /// A row does not hold what it should.
    #[error("{kind} {id:?} in the store is damaged")]
    Damaged {
        /// What kind of row.
        kind: String,
        /// Its id.
        id: String,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// The database failed.
    #[error("{action} the store")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: Cause,
    },
    /// It could not be opened again after a failure.
    #[error("the store is closed after a failure")]
    Closed,
}

impl StoreError {
    fn failed<E: Into<Cause>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed { action, source: source.into() }
    }

    /// Whether opening it again cannot help.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Replaced | Self::Damaged { .. })
    }
}

/// All that the fleet starts from.
#[derive(Debug)]
pub struct Loaded {
    /// Every row.
    pub rows: Vec<Row>,
    /// The sequence that comes next.
    pub next_sequence: u64,
}

/// Where the database lies.
struct Medium {
    open: Box<dyn Fn() -> Result<Database, Cause> + Send + Sync>,
    /// Keeps a copy of what lies there, while it is closed, under the number of its schema.
    keep_copy: Box<dyn Fn(u64) -> Result<(), Cause> + Send + Sync>,
}

/// The store; clones are the same store.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    path: PathBuf,
    medium: Medium,
    incarnation: Uuid,
    /// Absent after a failed reopening.
    database: RwLock<Option<Database>>,
}

impl Store {
    /// Opens the store in `state_dir`, or makes it there (mode 0600). One of an older schema is migrated, after a copy of its file
    /// was put beside it as `store.redb.schema-N`.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Newer`], [`StoreError::Failed`].
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE);
        let (file, original) = (path.clone(), path.clone());
        let medium =
            Medium { open: Box::new(move || open_file(&file)), keep_copy: Box::new(move |schema| keep_copy(&original, schema)) };
        Self::open_with(path, medium)
    }

    fn open_with(path: PathBuf, medium: Medium) -> Result<Self, StoreError> {
        let cannot = |source| StoreError::Open { path: path.clone(), source };
        let mut database = (medium.open)().map_err(cannot)?;
        if let Some(older) = schema_of(&database)?.filter(|schema| *schema < SCHEMA) {
            drop(database);
            (medium.keep_copy)(older).map_err(|source| StoreError::Copy { path: path.clone(), source })?;
            database = (medium.open)().map_err(cannot)?;
        }
        let incarnation = prepare(&database)?;
        Ok(Self(Arc::new(Shared { path, medium, incarnation, database: RwLock::new(Some(database)) })))
    }

    /// Closes and opens the file again: the way on after a failed commit.
    ///
    /// # Errors
    /// Any [`StoreError`]; the store is closed until this works.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let mut place = self.0.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one first: it holds the lock on the file.
        drop(place.take());
        let database = (self.0.medium.open)().map_err(|source| StoreError::Open { path: self.0.path.clone(), source })?;
        if prepare(&database)? != self.0.incarnation {
            return Err(StoreError::Replaced);
        }
        *place = Some(database);
        Ok(())
    }

    /// Which store this is: made with its file, so a new one cannot be taken for it.
    #[must_use]
    pub fn incarnation(&self) -> Uuid {
        self.0.incarnation
    }

    /// Reads every row.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Failed`], [`StoreError::Closed`].
    pub fn load(&self) -> Result<Loaded, StoreError> {
        self.read(|transaction| {
            let rows = rows::load(transaction)?;
            let meta = transaction.open_table(META).map_err(StoreError::failed("reading"))?;
            let next = meta.get(NEXT_SEQUENCE_KEY).map_err(StoreError::failed("reading"))?;
            Ok(Loaded { rows, next_sequence: next.map_or(1, |value| value.value()) })
        })
    }

    /// Sequence of the last event; zero before the first.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`StoreError::Closed`].
    pub fn last_event(&self) -> Result<u64, StoreError> {
        self.read(events::last)
    }

    /// Makes `records` durable, all or none, in their order.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`StoreError::Closed`]: nothing is promised of this store any more until [`Store::reopen`].
    pub fn commit(&self, records: &[Record]) -> Result<(), StoreError> {
        self.commit_with(records, &[])
    }

    /// The same, with the events that tell of it.
    ///
    /// # Errors
    /// See [`Store::commit`].
    pub fn commit_with(&self, records: &[Record], told: &[Arc<Published>]) -> Result<(), StoreError> {
        if records.is_empty() && told.is_empty() {
            return Ok(());
        }
        self.with(|database| {
            let transaction = begin(database)?;
            rows::apply(&transaction, records)?;
            history::append(&transaction, records)?;
            audit::append(&transaction, &self.0.incarnation, records)?;
            answers::append(&transaction, records)?;
            events::append(&transaction, told)?;
            keep_sequence(&transaction, records)?;
            transaction.commit().map_err(StoreError::failed("writing"))
        })
    }

    fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|database| read(&database.begin_read().map_err(StoreError::failed("reading"))?))
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let database = self.0.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().ok_or(StoreError::Closed).and_then(work)
    }
}

impl ArchiveSource for Store {
    fn history(&self, host: &HostId, before: Option<u64>, limit: usize) -> Result<Vec<HistoryEntry>, ArchiveError> {
        Ok(self.read(|transaction| history::read(transaction, host, before, limit))?)
    }

    fn audit(&self, query: &AuditQuery) -> Result<AuditPage, ArchiveError> {
        Ok(self.read(|transaction| audit::page(transaction, query))?)
    }

    fn audit_verdict(&self) -> Result<AuditVerdict, ArchiveError> {
        Ok(self.read(|transaction| audit::verdict(transaction, &self.0.incarnation))?)
    }

    fn answer(&self, key: &AnswerKey, now: Timestamp) -> Result<Option<KeptAnswer>, ArchiveError> {
        Ok(self.read(|transaction| answers::find(transaction, key, now))?)
    }

    fn events(&self, after: u64, limit: usize) -> Result<KeptEvents, ArchiveError> {
        Ok(self.read(|transaction| events::after(transaction, after, limit))?)
    }

    fn events_before(&self, at: Timestamp) -> Result<u64, ArchiveError> {
        Ok(self.read(|transaction| events::before(transaction, at))?)
    }
}

impl From<StoreError> for ArchiveError {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

fn open_file(path: &Path) -> Result<Database, Cause> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(redb::Builder::new().set_cache_size(CACHE).create_with_backend(FileBackend::new(file)?)?)
}

/// Puts a copy beside the file. One of an earlier attempt is replaced: the file is still what it was.
fn keep_copy(path: &Path, schema: u64) -> Result<(), Cause> {
    let copy = path.with_file_name(format!("{FILE}.schema-{schema}"));
    let unfinished = path.with_file_name(format!("{FILE}.schema-{schema}.unfinished"));
    std::fs::copy(path, &unfinished)?;
    std::fs::File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, &copy)?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    tracing::info!(copy = %copy.display(), "the store is of an older schema: a copy is kept, then it is migrated");
    Ok(())
}

/// The schema of what is in a database; none if nothing is.
fn schema_of(database: &Database) -> Result<Option<u64>, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::failed("opening"))?;
    match transaction.open_table(META) {
        Ok(meta) => Ok(meta.get(SCHEMA_KEY).map_err(StoreError::failed("opening"))?.map(|value| value.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(StoreError::failed("opening")(error)),
    }
}

/// Two-phase commit and a saved allocator state: a torn write cannot pass for a commit, and opening after a crash is quick.
fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write().map_err(StoreError::failed("writing"))?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Makes the tables of a new store, migrates an older one, refuses a newer one; its incarnation.
fn prepare(database: &Database) -> Result<Uuid, StoreError> {
    let transaction = begin(database)?;
    let incarnation = {
        let mut meta = transaction.open_table(META).map_err(StoreError::failed("opening"))?;
        let found = meta.get(SCHEMA_KEY).map_err(StoreError::failed("opening"))?.map(|value| value.value());
        match found {
            Some(found) if found > SCHEMA => return Err(StoreError::Newer { found }),
            Some(1) => {
                rows::migrate_v1(&transaction)?;
                meta.insert(SCHEMA_KEY, SCHEMA).map_err(StoreError::failed("migrating"))?;
            }
            Some(_) => {}
            None => drop(meta.insert(SCHEMA_KEY, SCHEMA).map_err(StoreError::failed("making"))?),
        }
        let mut identity = transaction.open_table(IDENTITY).map_err(StoreError::failed("opening"))?;
        let known = identity.get(INCARNATION_KEY).map_err(StoreError::failed("opening"))?.map(|value| value.value());
        match known {
            Some(known) => Uuid::from_u128(known),
            None => {
                let new = Uuid::new_v4();
                identity.insert(INCARNATION_KEY, new.as_u128()).map_err(StoreError::failed("making"))?;
                new
            }
        }
    };
    rows::make(&transaction)?;
    history::make(&transaction)?;
    audit::make(&transaction)?;
    answers::make(&transaction)?;
    events::make(&transaction)?;
    transaction.commit().map_err(StoreError::failed("opening"))?;
    Ok(incarnation)
}

/// Sequences are never given twice, even after the lines that bore them were trimmed.
fn keep_sequence(transaction: &WriteTransaction, records: &[Record]) -> Result<(), StoreError> {
    let used = records.iter().filter_map(|record| match record {
        Record::History(_, entry) => Some(entry.sequence),
        Record::Put(row) => match &**row {
            Row::Power(power) => Some(power.sequence),
            _ => None,
        },
        Record::Remove(_) | Record::Audit(_) | Record::Answer(_) => None,
    });
    let Some(next) = used.max().map(|highest| highest.saturating_add(1)) else { return Ok(()) };
    let mut meta = transaction.open_table(META).map_err(StoreError::failed("writing"))?;
    let known = meta.get(NEXT_SEQUENCE_KEY).map_err(StoreError::failed("writing"))?.map_or(1, |value| value.value());
    if next > known {
        meta.insert(NEXT_SEQUENCE_KEY, next).map_err(StoreError::failed("writing"))?;
    }
    Ok(())
}
