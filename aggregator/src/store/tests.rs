//! The store against its promises: durable, in order, bounded, and honest about what it cannot read.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use picket_common::api::HistoryWhat;
use picket_common::power::{Cause as PowerCause, PowerState};
use redb::{ReadableTableMetadata as _, StorageBackend};

use super::*;
use crate::fleet::view::{PowerRow, RowKey, ZoneRow};

fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

fn zone(name: &str) -> Record {
    Record::Put(Box::new(Row::Zone(ZoneRow { id: name.parse().unwrap(), oobm: Some(false) })))
}

fn line(host_name: &str, sequence: u64, recorded_at: Timestamp) -> Record {
    let what = HistoryWhat::Power { old: PowerState::On, new: PowerState::Off, cause: PowerCause::Poll, bmc_error: None };
    let entry = HistoryEntry { sequence, id: Some(format!("r:1:{sequence}")), at: recorded_at, recorded_at, what };
    Record::History(host(host_name), Box::new(entry))
}

fn power(host_name: &str, sequence: u64) -> Record {
    Record::Put(Box::new(Row::Power(PowerRow {
        host: host(host_name),
        power: PowerState::Off,
        power_since: Timestamp::UNIX_EPOCH,
        management: None,
        management_since: None,
        error: None,
        sequence,
        stale: false,
    })))
}

fn keys(store: &Store) -> Vec<RowKey> {
    store.load().unwrap().rows.iter().map(Row::key).collect()
}

fn sequences(store: &Store, name: &str, before: Option<u64>, limit: usize) -> Vec<u64> {
    store.read_history(&host(name), before, limit).unwrap().iter().map(|entry| entry.sequence).collect()
}

const START: Timestamp = Timestamp::UNIX_EPOCH;

#[test]
fn what_was_committed_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let incarnation = store.incarnation();
    assert_eq!(store.load().unwrap().next_sequence, 1);
    store
        .commit(&[zone("z1"), zone("z2"), line("h", 7, START), power("h", 9), Record::Remove(RowKey::Zone("z1".parse().unwrap()))])
        .unwrap();
    let mode = std::fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    store.reopen().unwrap();
    assert_eq!(store.load().unwrap().next_sequence, 10);
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.incarnation(), incarnation);
    assert_eq!(keys(&store), [RowKey::Power(host("h")), RowKey::Zone("z2".parse().unwrap())]);
    assert_eq!(store.load().unwrap().next_sequence, 10);
    assert_eq!(sequences(&store, "h", None, 10), [7]);
}

#[test]
fn a_newer_schema_and_a_damaged_row_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store
        .with(|database| {
            let transaction = begin(database)?;
            transaction.open_table(rows::ROWS).unwrap().insert(("zone", "z9"), [2, 1].as_slice()).unwrap();
            transaction.commit().map_err(StoreError::failed("writing"))
        })
        .unwrap();
    let error = store.load().unwrap_err();
    assert!(error.is_final());
    assert_eq!(error.to_string(), "zone \"z9\" in the store is damaged");
    store
        .with(|database| {
            let transaction = begin(database)?;
            transaction.open_table(META).unwrap().insert(SCHEMA_KEY, SCHEMA + 1).unwrap();
            transaction.commit().map_err(StoreError::failed("writing"))
        })
        .unwrap();
    drop(store);
    let error = Store::open(folder.path()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 2 }), "{error}");
    assert!(error.to_string().contains("schema 2"), "{error}");
}

#[test]
fn a_replaced_file_is_not_taken_for_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    std::fs::remove_file(folder.path().join(FILE)).unwrap();
    assert!(matches!(store.reopen(), Err(StoreError::Replaced)));
    assert!(matches!(store.commit(&[zone("z")]), Err(StoreError::Closed)));
}

#[test]
fn history_is_newest_first_by_host_and_paged() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let records: Vec<Record> = (1..=9).map(|n| line(if n % 2 == 0 { "b" } else { "a" }, n, START)).collect();
    store.commit(&records).unwrap();
    store.commit(&[line("a", 9, START)]).unwrap();
    for (name, before, limit, wanted) in [
        ("a", None, 10, vec![9, 7, 5, 3, 1]),
        ("a", None, 2, vec![9, 7]),
        ("a", Some(7), 2, vec![5, 3]),
        ("a", Some(1), 2, vec![]),
        ("b", None, 10, vec![8, 6, 4, 2]),
        ("c", None, 10, vec![]),
    ] {
        assert_eq!(sequences(&store, name, before, limit), wanted, "{name} {before:?} {limit}");
    }
    store.commit(&[line("b", 10, START), Record::Remove(RowKey::Host(host("b")))]).unwrap();
    assert!(sequences(&store, "b", None, 10).is_empty());
    assert_eq!(sequences(&store, "a", None, 10).len(), 5);
}

fn counted(store: &Store, name: &str) -> (u64, u64) {
    store
        .with(|database| {
            let transaction = database.begin_read().map_err(StoreError::failed("reading"))?;
            let lines = transaction.open_table(history::LINES).unwrap().get(name).unwrap().map_or(0, |count| count.value());
            Ok((lines, transaction.open_table(history::HISTORY).unwrap().len().unwrap()))
        })
        .unwrap()
}

#[test]
fn history_is_bounded_by_count() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut sequence = 0;
    for _ in 0..3 {
        let records: Vec<Record> = std::iter::repeat_with(|| {
            sequence += 1;
            line("h", sequence, START)
        })
        .take(4_000)
        .collect();
        store.commit(&records).unwrap();
    }
    assert_eq!(counted(&store, "h"), (history::MAX_LINES, history::MAX_LINES));
    assert_eq!(sequences(&store, "h", None, 1), [12_000]);
    assert_eq!(sequences(&store, "h", Some(2_002), 5), [2_001]);
}

#[test]
fn history_is_bounded_by_age_and_a_quiet_host_keeps_its_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.commit(&[line("h", 1, START), line("h", 2, START + SignedDuration::from_hours(48)), line("q", 3, START)]).unwrap();
    let later = START + history::MAX_AGE + SignedDuration::from_hours(1);
    store.commit(&[line("h", 4, later)]).unwrap();
    assert_eq!(sequences(&store, "h", None, 10), [4, 2]);
    assert_eq!(sequences(&store, "q", None, 10), [3]);
    assert_eq!(counted(&store, "h").0, 2);
}

/// A disk in memory that dies: after `left` syncs nothing reaches it any more, and what was not synced is lost or kept by halves.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Platter>);

#[derive(Debug, Default)]
struct Platter {
    synced: Mutex<Vec<u8>>,
    written: Mutex<Vec<u8>>,
    left: AtomicU64,
}

impl Disk {
    fn dies_after(&self, syncs: u64) {
        self.0.left.store(syncs, Ordering::SeqCst);
    }

    /// What the next start finds: every other unsynced 512-byte sector made it.
    fn torn(&self) -> Self {
        let (synced, written) = (self.0.synced.lock().unwrap(), self.0.written.lock().unwrap());
        let mut found = synced.clone();
        found.resize(written.len(), 0);
        for (at, sector) in found.chunks_mut(512).enumerate() {
            if at % 2 == 0 {
                let from = at * 512;
                sector.copy_from_slice(&written[from..from + sector.len()]);
            }
        }
        let platter = Platter { synced: Mutex::new(found.clone()), written: Mutex::new(found), left: AtomicU64::new(u64::MAX) };
        Self(Arc::new(platter))
    }

    fn alive(&self) -> io::Result<()> {
        if self.0.left.load(Ordering::SeqCst) == 0 { Err(io::Error::other("the disk is dead")) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.written.lock().unwrap().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        let written = self.0.written.lock().unwrap();
        let bytes = written.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.alive()?;
        self.0.written.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        self.alive()?;
        if self.0.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(io::Error::other("the disk died in a sync"));
        }
        *self.0.synced.lock().unwrap() = self.0.written.lock().unwrap().clone();
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.alive()?;
        let from = usize::try_from(offset).unwrap();
        self.0.written.lock().unwrap()[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn store_on(disk: &Disk) -> Result<Store, StoreError> {
    let disk = disk.clone();
    let opener = move || -> Result<Database, Cause> { Ok(redb::Builder::new().create_with_backend(disk.clone())?) };
    Store::open_with("memory".into(), Box::new(opener))
}

#[test]
fn after_a_crash_at_any_sync_a_commit_is_whole_or_absent() {
    let mut crashed = 0;
    for syncs in 1..40 {
        let disk = Disk::default();
        disk.dies_after(u64::MAX);
        let store = store_on(&disk).unwrap();
        disk.dies_after(syncs);
        let mut acked = 0;
        for n in 1..=10 {
            if store.commit(&[zone(&format!("z{n}")), line("h", n, START)]).is_err() {
                crashed += 1;
                break;
            }
            acked = n;
        }
        let found = store_on(&disk.torn()).unwrap();
        assert_eq!(found.incarnation(), store.incarnation());
        let kept = sequences(&found, "h", None, 100);
        let count = u64::try_from(kept.len()).unwrap();
        assert!(count == acked || count == acked + 1, "{syncs} syncs: {acked} were promised, {kept:?} are there");
        assert_eq!(found.load().unwrap().rows.len(), kept.len(), "{syncs} syncs: half a commit");
        assert_eq!(found.load().unwrap().next_sequence, count + 1);
    }
    assert!(crashed > 15, "only {crashed} crashes were tried");
}

#[test]
fn a_failed_store_says_so_and_works_again_once_reopened() {
    let disk = Disk::default();
    disk.dies_after(u64::MAX);
    let store = store_on(&disk).unwrap();
    store.commit(&[zone("z1")]).unwrap();
    disk.dies_after(1);
    assert!(matches!(store.commit(&[zone("z2")]), Err(StoreError::Failed { .. })));
    assert!(store.commit(&[zone("z2")]).is_err());
    assert!(store.reopen().is_err());
    disk.dies_after(u64::MAX);
    store.reopen().unwrap();
    store.commit(&[zone("z3")]).unwrap();
    assert!(keys(&store).contains(&RowKey::Zone("z3".parse().unwrap())));
}
