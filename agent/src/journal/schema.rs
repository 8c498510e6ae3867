//! The file's schema, and taking over a file of an older one.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::row::{Row, decode, encode};
use super::table::{HOST, META, OPERATION};
use super::{JournalError, begin};
use crate::rack::host::HostRow;
use crate::rack::operation::Operation;

/// Version of the tables and rows; a file with a higher one is refused.
pub(super) const SCHEMA: u64 = 3;

pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    <[u8; 8]>::try_from(bytes).ok().map(u64::from_be_bytes)
}

/// The schema of a file, unless it is new.
pub(super) fn stored_schema(database: &Database) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get("schema")?.and_then(|value| number(value.value()))),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Keeps the file as the older version left it, for going back to that version by hand.
pub(super) fn keep_copy(path: &Path, schema: u64) -> Result<(), JournalError> {
    let mut copy = path.as_os_str().to_owned();
    copy.push(format!(".schema-{schema}"));
    let copy = PathBuf::from(copy);
    let draft = copy.with_extension("new");
    let written = std::fs::copy(path, &draft)
        .and_then(|_| std::fs::File::open(&draft)?.sync_all())
        .and_then(|()| std::fs::rename(&draft, &copy));
    written.map_err(|source| JournalError::Copy { path: path.to_owned(), copy, source })
}

/// Takes a file of schema `found` over, in one transaction. From 2 on no row changed: there are only new tables.
pub(super) fn take_over(database: &Database, found: u64) -> Result<(), redb::Error> {
    let transaction = begin(database)?;
    if found == 1 {
        rows_of_schema_1(&transaction)?;
    }
    transaction.open_table(META)?.insert("schema", SCHEMA.to_be_bytes().as_slice())?;
    transaction.commit()?;
    Ok(())
}

fn rows_of_schema_1(transaction: &WriteTransaction) -> Result<(), redb::Error> {
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
    }
    Ok(())
}

pub(super) fn rows<K: redb::Key, T: Row>(table: &redb::Table<'_, K, &[u8]>, name: &str) -> Result<Vec<T>, redb::Error> {
    let mut all = Vec::new();
    for entry in table.iter()? {
        let corrupted = || redb::Error::Corrupted(format!("a row of table {name} does not decode"));
        all.push(decode(entry?.1.value()).ok_or_else(corrupted)?);
    }
    Ok(all)
}

/// Rows as schema 1 had them: their times knew no boot, so that the wall clock is all there is to judge them by.
pub(super) mod schema_1 {
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
