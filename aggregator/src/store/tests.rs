//! The store against its promises: durable, in order, bounded, and honest about what it cannot read.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use picket_common::api::HistoryWhat;
use picket_common::command::{Action, OperationState, Outcome};
use picket_common::power::{Cause as PowerCause, PowerState};
use picket_common::seal::{Sealed, SealingKey};
use redb::{ReadableTableMetadata as _, StorageBackend};

mod archive;

use super::*;
use crate::fleet::view::{DefaultsRow, PartRow, PowerRow, RowKey, ZoneRow};

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
    store.history(&host(name), before, limit).unwrap().iter().map(|entry| entry.sequence).collect()
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
            transaction.open_table(rows::ROWS).unwrap().insert(("zone", "z9"), [9, 1].as_slice()).unwrap();
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
    assert!(matches!(error, StoreError::Newer { found } if found == SCHEMA + 1), "{error}");
    assert!(error.to_string().contains(&format!("schema {}", SCHEMA + 1)), "{error}");
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
    let open = move || -> Result<Database, Cause> { Ok(redb::Builder::new().create_with_backend(disk.clone())?) };
    Store::open_with("memory".into(), Medium { open: Box::new(open), keep_copy: Box::new(|_| Ok(())) })
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

/// Rows as Picket 0.1 wrote them, hex: a zone, a host with a password, one without, an operation of two hosts, and one of each
/// other kind.
const V1_ROWS: [(&str, &str, &str); 11] = [
    ("zone", "z1", "0100027a310100"),
    (
        "host",
        "h1",
        "0103026831027a310263310272310101ac020107726564666973680831302e302e302e3101fb410561646d696e0103030303\
         0303030303030303030303030303030303030303030303030303030302040501060103746c7302636180a0f1c2b134010105\
         01026f73056c696e7578",
    ),
    (
        "host",
        "h2",
        "0103026832027a310263310272310101ac020107726564666973680831302e302e302e3101fb4100000103746c7302636180\
         a0f1c2b13401010501026f73056c696e7578",
    ),
    (
        "operation",
        "00000000-0000-0000-0000-000000000007",
        "01081000000000000000000000000000000007020103616e6e0014323032372d30312d31355430383a30303a30305a143230\
         32372d30312d31355430383a30313a30305a020268310301070178000114323032372d30312d31355430383a30303a30305a\
         01ac0200000268320100000114323032372d30312d31355430383a30303a30305a01ac020000",
    ),
    ("cluster", "c1", "0101026331027a3101010105015a"),
    ("rack", "r1", "0102027231027a3101026131ac02"),
    (
        "power",
        "h1",
        "01040268310214323032372d30312d31355430383a30303a30305a01030114323032372d30312d31355430383a30303a3030\
         5a010469706d6905017401782901",
    ),
    (
        "agent",
        "a1",
        "0105026131027231030303030303030303030303030303030303030303030303030303030303030302616201100000000000\
         0000000000000000000001ac0201100000000000000000000000000000000207011000000000000000000000000000000063\
         ac02",
    ),
    ("join-token", "aa", "010602616102626202613102723114323032372d30312d31355430383a30303a30305a01036373720370656d"),
    ("api-token", "cc", "010702636303616e6e0401027a31000102683100"),
    ("alert", "bmc-lost.h1", "01090b626d632d6c6f73742e6831027b7d"),
];

fn v1_rows() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use super::v1::*;
    let id = picket_common::id::OperationId(Uuid::from_u128(7));
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let host = |name: &str, bmc| HostRow {
        id: name.parse().unwrap(),
        zone: "z1".parse().unwrap(),
        cluster: "c1".parse().unwrap(),
        rack: "r1".parse().unwrap(),
        oobm: Some(true),
        enablement: 300,
        bmc: Some(bmc),
        maintenance: true,
        poll_interval: Some(5),
        labels: [("os".to_owned(), "linux".to_owned())].into(),
    };
    let bmc = |username: &str, password| BmcRow {
        driver: "redfish".into(),
        address: "10.0.0.1".into(),
        port: Some(8443),
        username: username.into(),
        password,
        options: [("tls".to_owned(), "ca".to_owned())].into(),
        revision: 1_800_000_000_000,
    };
    let password = SealedPassword { agent_key: SealingKey([3; 32]), agent: Sealed(vec![4, 5]), recovery: Sealed(vec![6]) };
    let part = |name: &str, state, outcome| OperationHostRow {
        host: name.parse().unwrap(),
        state,
        outcome,
        cancelling: false,
        sent_at: Some(at),
        sent_enablement: Some(300),
        admitted_at: None,
        done_at: None,
    };
    let operation = OperationRow {
        id,
        operation: Action::Cycle,
        on_if_off: true,
        principal: "ann".into(),
        reason: None,
        accepted_at: at,
        deadline: at + SignedDuration::from_secs(60),
        hosts: vec![part("h1", OperationState::Done, Some(Outcome::Unknown("x".into()))), part("h2", OperationState::Sent, None)],
    };
    let rows = [
        ("zone", "z1", super::v1::Row::Zone(super::v1::ZoneRow { id: "z1".parse().unwrap(), oobm: Some(false) })),
        ("host", "h1", super::v1::Row::Host(host("h1", bmc("admin", Some(password))))),
        ("host", "h2", super::v1::Row::Host(host("h2", bmc("", None)))),
        ("operation", "00000000-0000-0000-0000-000000000007", super::v1::Row::Operation(operation)),
    ];
    let rows = rows.into_iter().chain(v1_rows_of_the_others());
    rows.map(|(kind, id, row)| (kind, id, postcard::to_extend(&row, vec![super::v1::VERSION]).unwrap())).collect()
}

/// One of each kind that is taken over as it was.
fn v1_rows_of_the_others() -> Vec<(&'static str, &'static str, super::v1::Row)> {
    use picket_common::command::{BmcError, ErrorClass};
    use picket_common::power::Management;
    use picket_common::wire::{Generation, Incarnation};

    use super::v1::*;
    let at = Timestamp::from_second(1_800_000_000).unwrap();
    let zone = || "z1".parse().unwrap();
    let cluster =
        ClusterRow { id: "c1".parse().unwrap(), zone: zone(), oobm: Some(true), poll_interval: Some(5), action_timeout: Some(90) };
    let rack = RackRow { id: "r1".parse().unwrap(), zone: zone(), agent: Some("a1".parse().unwrap()), epoch: 300 };
    let error = BmcError { driver: "ipmi".into(), class: ErrorClass::Deadline, code: "t".into(), text: "x".into() };
    let power = PowerRow {
        host: host("h1"),
        power: PowerState::Unknown,
        power_since: at,
        management: Some(Management::Lost),
        management_since: Some(at),
        error: Some(error),
        sequence: 41,
        stale: true,
    };
    let agent = AgentRow {
        id: "a1".parse().unwrap(),
        rack: "r1".parse().unwrap(),
        sealing_key: SealingKey([3; 32]),
        public_key: "ab".into(),
        boot: Some(Incarnation(Uuid::from_u128(1))),
        acked: 300,
        earlier: vec![(Incarnation(Uuid::from_u128(2)), 7)],
        rolled_back: 1,
        generation: Generation { store: Uuid::from_u128(99), counter: 300 },
    };
    let join_token = JoinTokenRow {
        id: "aa".into(),
        secret: "bb".into(),
        agent: "a1".parse().unwrap(),
        rack: "r1".parse().unwrap(),
        expires_at: at,
        used: Some(("csr".into(), "pem".into())),
    };
    let scope = Scope { zones: vec![zone()], clusters: Vec::new(), hosts: vec![host("h1")] };
    let api_token = ApiTokenRow { hash: "cc".into(), name: "ann".into(), role: Role::Auditor, scope, expires_at: None };
    vec![
        ("cluster", "c1", super::v1::Row::Cluster(cluster)),
        ("rack", "r1", super::v1::Row::Rack(rack)),
        ("power", "h1", super::v1::Row::Power(power)),
        ("agent", "a1", super::v1::Row::Agent(agent)),
        ("join-token", "aa", super::v1::Row::JoinToken(join_token)),
        ("api-token", "cc", super::v1::Row::ApiToken(api_token)),
        ("alert", "bmc-lost.h1", super::v1::Row::Alert(AlertRow { id: "bmc-lost.h1".into(), json: "{}".into() })),
    ]
}

#[test]
fn the_rows_of_schema_1_stay_what_they_were() {
    let rows = v1_rows();
    let written: Vec<_> = rows.iter().map(|(kind, id, bytes)| (*kind, *id, hex::encode(bytes))).collect();
    assert_eq!(written, V1_ROWS.map(|(kind, id, pinned)| (kind, id, pinned.to_owned())));
}

/// A store as Picket 0.1 left it.
fn fill_v1(database: &Database) {
    let transaction = begin(database).unwrap();
    {
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert(SCHEMA_KEY, 1).unwrap();
        meta.insert(NEXT_SEQUENCE_KEY, 42).unwrap();
        transaction.open_table(IDENTITY).unwrap().insert(INCARNATION_KEY, 99).unwrap();
        let mut table = transaction.open_table(rows::ROWS).unwrap();
        for (kind, id, pinned) in V1_ROWS {
            table.insert((kind, id), hex::decode(pinned).unwrap().as_slice()).unwrap();
        }
    }
    history::make(&transaction).unwrap();
    transaction.commit().unwrap();
}

fn is_migrated(store: &Store) {
    assert_eq!(store.incarnation(), Uuid::from_u128(99));
    let loaded = store.load().unwrap();
    assert_eq!(loaded.next_sequence, 42);
    let row = |key: RowKey| loaded.rows.iter().find(|row| row.key() == key).unwrap_or_else(|| panic!("no {key:?}")).clone();
    assert_eq!(loaded.rows.len(), 13);
    let (Row::Host(h1), Row::Host(h2)) = (row(RowKey::Host(host("h1"))), row(RowKey::Host(host("h2")))) else { panic!() };
    let (own, bare) = (h1.bmc.unwrap(), h2.bmc.unwrap());
    assert_eq!((own.driver.as_deref(), own.port, own.username.as_deref()), (Some("redfish"), Some(8443), Some("admin")));
    assert_eq!((own.revision, own.password.unwrap().agent.0, h1.poll_interval), (1_800_000_000_000, vec![4, 5], Some(5)));
    assert_eq!((bare.username, bare.password, h2.action_timeout), (None, None, None));
    let id = picket_common::id::OperationId(Uuid::from_u128(7));
    let part = |name: &str| match row(RowKey::Part(id, host(name))) {
        Row::Part(part) => part,
        other => panic!("{other:?}"),
    };
    let PartRow { state, starts_at, deadline, sent_enablement, .. } = part("h2");
    let Row::Operation(operation) = row(RowKey::Operation(id)) else { panic!() };
    assert_eq!((state, starts_at, deadline), (OperationState::Sent, operation.accepted_at, operation.deadline));
    assert_eq!((sent_enablement, operation.operation, operation.stagger_ms), (Some(300), Action::Cycle, 0));
    assert_eq!(part("h1").outcome, Some(Outcome::Unknown("x".into())));
    let Row::Cluster(cluster) = row(RowKey::Cluster("c1".parse().unwrap())) else { panic!() };
    assert_eq!((cluster.oobm, cluster.action_timeout, cluster.bmc), (Some(true), Some(90), DefaultsRow::default()));
    let Row::Agent(agent) = row(RowKey::Agent("a1".parse().unwrap())) else { panic!() };
    assert_eq!((agent.acked, agent.earlier.len(), agent.rolled_back, agent.generation.counter), (300, 1, 1, 300));
    let Row::Power(power) = row(RowKey::Power(host("h1"))) else { panic!() };
    assert_eq!((power.power, power.sequence, power.error.unwrap().code.as_str()), (PowerState::Unknown, 41, "t"));
    let Row::ApiToken(token) = row(RowKey::ApiToken("cc".into())) else { panic!() };
    assert_eq!((token.role, token.scope.hosts), (picket_common::api::Role::Auditor, vec![host("h1")]));
    let Row::JoinToken(token) = row(RowKey::JoinToken("aa".into())) else { panic!() };
    assert_eq!((token.secret.as_str(), token.used.is_some()), ("bb", true));
}

#[test]
fn schema_1_is_migrated_and_its_file_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join(FILE), folder.path().join("store.redb.schema-1"));
    fill_v1(&open_file(&path).unwrap());
    is_migrated(&Store::open(folder.path()).unwrap());
    let old = redb::Builder::new().open(&copy).unwrap();
    assert_eq!(schema_of(&old).unwrap(), Some(1));
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    drop(old);
    std::fs::remove_file(&copy).unwrap();
    is_migrated(&Store::open(folder.path()).unwrap());
    assert!(!copy.exists(), "once is enough");
}

#[test]
fn without_a_copy_nothing_is_migrated() {
    let folder = tempfile::tempdir().unwrap();
    fill_v1(&open_file(&folder.path().join(FILE)).unwrap());
    std::fs::create_dir(folder.path().join("store.redb.schema-1")).unwrap();
    let error = Store::open(folder.path()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Copy { .. }), "{error}");
    assert_eq!(schema_of(&open_file(&folder.path().join(FILE)).unwrap()).unwrap(), Some(1));
}

#[test]
fn a_migration_is_whole_or_has_not_begun() {
    let mut crashed = 0;
    for syncs in 0..12 {
        let disk = Disk::default();
        disk.dies_after(u64::MAX);
        fill_v1(&redb::Builder::new().create_with_backend(disk.clone()).unwrap());
        disk.dies_after(syncs);
        crashed += usize::from(store_on(&disk).is_err());
        is_migrated(&store_on(&disk.torn()).unwrap());
    }
    assert!(crashed > 2, "only {crashed} crashes were tried");
}
