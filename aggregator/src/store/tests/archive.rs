//! The audit log, events and kept answers: durable with what they tell of, bounded, and whatever is done to the log behind the
//! store's back shows.

use picket_common::api::{AuditEntry, AuditResult, AuditVerdict, CloudEvent, EventData, EventWhat};
use redb::ReadableTable as _;
use serde_json::{Map, Value};

use super::*;
use crate::context::{AuditPage, AuditQuery};
use crate::fleet::{AnswerKey, HttpAnswer, KeptAnswer};

fn entry(principal: &str, at: Timestamp) -> Record {
    let entry = AuditEntry { summary: Some(format!("by {principal}")), ..AuditEntry::new(at, principal, AuditResult::Granted) };
    Record::Audit(Box::new(entry))
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

fn with_log(count: i64) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    for n in 0..count {
        store.commit(&[zone(&format!("z{n}")), entry(if n % 2 == 0 { "ann" } else { "bob" }, START + days(n))]).unwrap();
    }
    (folder, store)
}

fn verdict(store: &Store) -> AuditVerdict {
    store.audit_verdict().unwrap()
}

fn log(store: &Store, query: AuditQuery) -> (Vec<u64>, Option<u64>) {
    let AuditPage { records, next } = store.audit(&query).unwrap();
    (records.iter().map(|record| record["sequence"].as_u64().unwrap()).collect(), next)
}

#[test]
fn the_log_is_paged_filtered_and_goes_on_after_reopening() {
    let (folder, store) = with_log(5);
    let all = AuditQuery { limit: 10, ..AuditQuery::default() };
    let ann = Some("ann".to_owned());
    for (query, wanted, next) in [
        (all.clone(), vec![1, 2, 3, 4, 5], None),
        (AuditQuery { newest_first: true, ..all.clone() }, vec![5, 4, 3, 2, 1], None),
        (AuditQuery { limit: 2, ..all.clone() }, vec![1, 2], Some(2)),
        (AuditQuery { limit: 2, after: Some(2), ..all.clone() }, vec![3, 4], Some(4)),
        (AuditQuery { limit: 2, newest_first: true, after: Some(4), ..all.clone() }, vec![3, 2], Some(2)),
        (AuditQuery { newest_first: true, after: Some(1), ..all.clone() }, vec![], None),
        (AuditQuery { principal: ann.clone(), ..all.clone() }, vec![1, 3, 5], None),
        (AuditQuery { principal: ann, limit: 1, newest_first: true, ..all.clone() }, vec![5], Some(5)),
        (AuditQuery { since: Some(START + days(1)), until: Some(START + days(3)), ..all.clone() }, vec![2, 3], None),
    ] {
        assert_eq!(log(&store, query.clone()), (wanted, next), "{query:?}");
    }
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    store.commit(&[entry("eve", START + days(9))]).unwrap();
    let told = verdict(&store);
    assert!(told.intact && told.records == 6 && told.sequence == 6, "{told:?}");
    assert_eq!(told.genesis, picket_common::audit::genesis(&store.incarnation()));
}

/// Changes the stored log as somebody could who has the file and a copy of redb.
fn tamper(store: &Store, change: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) -> AuditVerdict {
    store
        .with(|database| {
            let transaction = begin(database)?;
            change(&mut transaction.open_table(audit::AUDIT).unwrap());
            transaction.commit().map_err(StoreError::failed("writing"))
        })
        .unwrap();
    verdict(store)
}

fn record(table: &redb::Table<'_, u64, &'static [u8]>, sequence: u64) -> Map<String, Value> {
    serde_json::from_slice(&table.get(sequence).unwrap().unwrap().value()[1..]).unwrap()
}

fn put(table: &mut redb::Table<'_, u64, &'static [u8]>, sequence: u64, record: &Map<String, Value>) {
    let mut bytes = vec![1];
    bytes.extend(serde_json::to_vec(record).unwrap());
    table.insert(sequence, bytes.as_slice()).unwrap();
}

#[test]
fn whatever_is_done_to_the_file_shows() {
    let edit = |table: &mut redb::Table<'_, u64, &'static [u8]>| {
        let mut changed = record(table, 3);
        changed.insert("principal".into(), "nobody".into());
        put(table, 3, &changed);
    };
    let edit_and_rehash = |table: &mut redb::Table<'_, u64, &'static [u8]>| {
        let mut changed = record(table, 3);
        changed.insert("principal".into(), "nobody".into());
        let hash = picket_common::audit::hash(&changed);
        changed.insert("hash".into(), hash.into());
        put(table, 3, &changed);
    };
    let swap = |table: &mut redb::Table<'_, u64, &'static [u8]>| {
        let (two, three) = (record(table, 2), record(table, 3));
        put(table, 2, &three);
        put(table, 3, &two);
    };
    type Change<'a> = &'a dyn Fn(&mut redb::Table<'_, u64, &'static [u8]>);
    let cases: [(Change<'_>, &str); 7] = [
        (&edit, "record 3 was changed"),
        (&edit_and_rehash, "record 4 does not name the hash"),
        (&|table| drop(table.remove(3).unwrap()), "record 4 follows record 2"),
        (&|table| drop(table.remove(5).unwrap()), "the log ends with record 4, but record 5 was written"),
        (&|table| drop(table.remove(1).unwrap()), "begins with record 2, and no checkpoint"),
        (&swap, "record 3 follows record 1"),
        (&|table| drop(table.insert(3, [1, b'{'].as_slice()).unwrap()), "record 3 cannot be read"),
    ];
    for (change, wanted) in cases {
        let (_folder, store) = with_log(5);
        let told = tamper(&store, change);
        assert!(!told.intact && told.fault.as_ref().unwrap().contains(wanted), "{wanted}: {told:?}");
        // It does not heal: what is written later stands on what was written.
        store.commit(&[entry("eve", START + days(9))]).unwrap();
        assert!(!verdict(&store).intact, "{wanted}");
    }
}

#[test]
fn the_log_is_pruned_after_a_year_and_can_still_be_verified() {
    let (_folder, store) = with_log(5);
    let later = START + audit::KEEP;
    store.commit(&[entry("eve", later + days(1))]).unwrap();
    assert_eq!(verdict(&store).records, 6, "a day of slack");
    store.commit(&[entry("eve", later + days(2) + SignedDuration::from_secs(1))]).unwrap();
    let told = verdict(&store);
    // Records 1 to 3 are of days 0 to 2.
    assert!(told.intact && told.records == 5 && told.sequence == 8, "{told:?}");
    let page = store.audit(&AuditQuery { limit: 10, ..AuditQuery::default() }).unwrap();
    let last = page.records.last().unwrap();
    assert_eq!((page.records[0]["sequence"].as_u64(), last["checkpoint"]["through"].as_u64()), (Some(4), Some(3)));
    assert_eq!(last["checkpoint"]["hash"], page.records[0]["previous"]);
    let told = tamper(&store, |table| drop(table.remove(4).unwrap()));
    assert!(told.fault.unwrap().contains("begins with record 5, and no checkpoint"));
}

#[test]
fn after_a_crash_the_log_is_as_whole_as_what_it_tells_of() {
    let mut crashed = 0;
    for syncs in 1..24 {
        let disk = Disk::default();
        disk.dies_after(u64::MAX);
        let store = store_on(&disk).unwrap();
        disk.dies_after(syncs);
        for n in 1..=8 {
            if store.commit_with(&[zone(&format!("z{n}")), entry("ann", START)], &[event(n, START)]).is_err() {
                crashed += 1;
                break;
            }
        }
        let found = store_on(&disk.torn()).unwrap();
        let (told, rows) = (verdict(&found), found.load().unwrap().rows.len() as u64);
        assert!(told.intact && told.records == rows, "{syncs} syncs: {rows} changes, {told:?}");
        assert_eq!(found.last_event().unwrap(), rows, "{syncs} syncs");
    }
    assert!(crashed > 10, "only {crashed} crashes were tried");
}

fn event(sequence: u64, at: Timestamp) -> Arc<Published> {
    let data = EventData { host: None, zone: None, cluster: None, agent: None, what: EventWhat::Presence { connected: true } };
    let event = CloudEvent {
        specversion: "1.0".into(),
        id: sequence.to_string(),
        source: "/agent/a".into(),
        kind: "io.picket.agent.connected.v1".into(),
        subject: "a".into(),
        time: at,
        datacontenttype: "application/json".into(),
        data,
    };
    Arc::new(Published::new(sequence, at, event))
}

#[test]
fn events_are_numbered_over_restarts_found_by_time_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!((store.last_event().unwrap(), store.events_before(START).unwrap()), (0, 0));
    let minute = |n: u64| START + SignedDuration::from_mins(i64::try_from(n).unwrap());
    let events: Vec<_> = (1..=1_000).map(|n| event(n, minute(n))).collect();
    store.commit_with(&[], &events).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.last_event().unwrap(), 1_000);
    let sequences = |after, limit| {
        let kept = store.events(after, limit).unwrap();
        (kept.oldest.unwrap(), kept.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), kept.through)
    };
    assert_eq!(sequences(997, 2), (1, vec![998, 999], 999));
    assert_eq!(sequences(1_000, 2), (1, vec![], 1_000));
    assert_eq!(store.events(41, 1).unwrap().events[0].json, events[41].json);
    for (at, before) in [(minute(0), 0), (minute(1), 0), (minute(2), 1), (minute(500), 499), (minute(5_000), 1_000)] {
        assert_eq!(store.events_before(at).unwrap(), before, "{at}");
    }
    // A day later the first ones are gone.
    store.commit_with(&[], &[event(1_001, minute(100) + events::KEEP)]).unwrap();
    assert_eq!(sequences(0, 1), (100, vec![100], 100));
    let many: Vec<_> = (1_002..1_002 + events::MAX_EVENTS).map(|n| event(n, minute(1_000))).collect();
    for part in many.chunks(20_000) {
        store.commit_with(&[], part).unwrap();
    }
    let (oldest, _, _) = sequences(0, 1);
    assert_eq!(store.last_event().unwrap() - oldest + 1, events::MAX_EVENTS);
}

fn key(token: &str, key: &str) -> AnswerKey {
    AnswerKey { token: token.into(), key: key.into() }
}

fn kept(token: &str, name: &str, at: Timestamp, answer: Option<&str>) -> Record {
    let answer = answer.map(|body| HttpAnswer { status: 202, headers: vec![("location".into(), "/x".into())], body: body.into() });
    Record::Answer(Box::new(KeptAnswer { key: key(token, name), fingerprint: "f".into(), at, operation: None, answer }))
}

#[test]
fn answers_are_kept_a_day_bounded_and_go_with_their_token() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let found = |store: &Store, token: &str, name: &str, at: Timestamp| {
        store.answer(&key(token, name), at).unwrap().map(|kept| kept.answer.map(|answer| answer.body))
    };
    store.commit(&[kept("t1", "a", START, None)]).unwrap();
    assert_eq!(found(&store, "t1", "a", START), Some(None));
    store.commit(&[kept("t1", "a", START, Some("yes")), kept("t2", "a", START, Some("two"))]).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(found(&store, "t1", "a", START), Some(Some("yes".into())));
    assert_eq!((found(&store, "t1", "b", START), found(&store, "t3", "a", START)), (None, None));
    let later = START + answers::KEEP + SignedDuration::from_secs(1);
    assert_eq!(found(&store, "t1", "a", later), None, "too old, there or not");
    store.commit(&[kept("t1", "b", later, Some("new"))]).unwrap();
    assert_eq!(found(&store, "t1", "a", START), None, "dropped when another came");
    assert_eq!(found(&store, "t2", "a", START), Some(Some("two".into())), "each token by itself");

    for part in 0..21_u64 {
        let records: Vec<_> = (0..500).map(|n| kept("t4", &format!("{:05}", part * 500 + n), later, Some("x"))).collect();
        store.commit(&records).unwrap();
    }
    assert_eq!(found(&store, "t4", "00499", later), None);
    assert_eq!(found(&store, "t4", "00500", later), Some(Some("x".into())), "{} at most", answers::MAX_ANSWERS);

    let hash = format!("t4{}", "0".repeat(62));
    store.commit(&[kept(&hash[..16], "a", later, Some("mine")), Record::Remove(RowKey::ApiToken(hash.clone()))]).unwrap();
    assert_eq!(found(&store, &hash[..16], "a", later), None, "revoked");
    assert_eq!(found(&store, "t4", "00500", later), Some(Some("x".into())), "a token's name may begin another's");
}

/// What the events of a change add to its commit.
#[test]
fn what_a_commit_costs() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut sequence = 0;
    let mut time = |with_events: bool| {
        let begun = crate::clock::now().boottime;
        for round in 0..20_u64 {
            let at = START + SignedDuration::from_secs(i64::try_from(round).unwrap());
            let records: Vec<_> = (0..256)
                .flat_map(|n| [power(&format!("h{n}"), round * 256 + n), line(&format!("h{n}"), round * 256 + n, at)])
                .collect();
            let told: Vec<_> = (0..256).map(|n| event(sequence + n + 1, at)).collect();
            sequence += if with_events { 256 } else { 0 };
            store.commit_with(&records, if with_events { &told } else { &[] }).unwrap();
        }
        crate::clock::now().boottime.saturating_sub(begun) / 20
    };
    let (without, with) = (time(false), time(true));
    println!("256 changes in one commit: {without:?} without their events, {with:?} with them");
    assert!(with < without * 4, "{with:?} instead of {without:?}");
}
