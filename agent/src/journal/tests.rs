//! The journal on real files: what it keeps, and what it makes of files of other versions.

use picket_common::command::Outcome;
use picket_common::id::HostId;
use picket_common::wire::Generation;
use picket_common::wire::assign::HostAssignment;
use picket_common::wire::report::{OperationReport, Progress, Report};

use super::row::encode;
use super::schema::{rows, schema_1};
use super::table::OUTBOX;
use super::*;
use crate::rack::change::PasswordChange;
use crate::rack::facts::FactsRow;
use crate::rack::host::HostRow;

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
fn a_report_that_does_not_decode_is_a_gap_and_shifts_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let mut journal = Journal::open(&path, uuid::Uuid::nil()).unwrap();
    journal.record(&[report(1), report(2), report(3), report(4)]).unwrap();
    drop(journal);
    {
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(OUTBOX).unwrap().insert(2, b"of another version".as_slice()).unwrap();
        transaction.commit().unwrap();
    }
    let journal = Journal::open(&path, uuid::Uuid::nil()).unwrap();
    for (from, limit, wanted, oldest) in
        [(1, 9, &[1][..], 1), (2, 9, &[3, 4], 3), (2, 1, &[3], 3), (3, 9, &[3, 4], 1), (0, 0, &[], 1)]
    {
        let (reports, outbox) = journal.reader().outbox(from, limit).unwrap();
        let found: Vec<u64> = reports.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!((found.as_slice(), outbox), (wanted, Outbox { oldest, next: 5 }), "from {from}, at most {limit}");
    }
}

#[test]
fn a_journal_that_lost_its_place_is_refused() {
    for name in ["boot", "next"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        Journal::open(&path, uuid::Uuid::nil()).unwrap().record(&[report(1)]).unwrap();
        {
            let database = Database::open(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().remove(name).unwrap();
            transaction.commit().unwrap();
        }
        let error = Journal::open(&path, uuid::Uuid::nil()).err().unwrap();
        assert!(matches!(error, JournalError::Redb { what: "prepare", .. }), "{name}: {error}");
    }
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
    // As the version before wrote them: what rows are made of today must not move them.
    for (written, wanted) in [
        (encode(&row).unwrap(), "0101680301020102040002011204"),
        (encode(&operation).unwrap(), "011000000000000000000000000000000005016802011001100000000000000000000000000000000001031004"),
    ] {
        assert_eq!(hex::encode(written), wanted);
    }
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
