//! The audit log: read, and its chain checked, by the aggregator or here from an export.

use std::path::Path;

use picket_common::api::{AuditRecord, AuditVerdict};
use picket_common::audit::Chain;
use serde_json::{Map, Value, json};

use crate::Ended;
use crate::cli::AuditCommand;
use crate::client::Client;
use crate::failure::{Failure, NONE_SUCCEEDED};
use crate::output::{Column, Output, column, maybe, shaped, wide};
use crate::sight::seconds;

const RECORDS: &[Column<AuditRecord>] = &[
    column("SEQUENCE", |r, _| r.sequence.into()),
    column("AT", |r, _| seconds(r.entry.at).into()),
    column("WHO", |r, _| (&r.entry.principal).into()),
    column("WHAT", |r, _| maybe(what(r))),
    column("ABOUT", |r, _| maybe(r.entry.resource.as_ref())),
    column("RESULT", |r, _| result(r).into()),
    wide("FROM", |r, _| maybe(r.entry.from.as_ref())),
    wide("STATUS", |r, _| maybe(r.entry.status)),
    wide("REASON", |r, _| maybe(r.entry.reason.as_ref())),
    wide("REQUEST", |r, _| maybe(r.entry.request_id.as_ref())),
    wide("OPERATION", |r, _| maybe(r.entry.operation_id)),
    wide("HASH", |r, _| (&r.hash).into()),
];

fn what(record: &AuditRecord) -> Option<String> {
    let entry = &record.entry;
    let call = || Some(format!("{} {}", entry.method.as_deref()?, entry.path.as_deref()?));
    entry.summary.clone().or_else(call)
}

/// `granted`, `refused (host-disabled)`.
fn result(record: &AuditRecord) -> String {
    let word = serde_json::to_value(record.entry.result).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
    record.entry.code.as_ref().map_or(word.clone(), |code| format!("{word} ({code})"))
}

const VERDICTS: &[Column<AuditVerdict>] = &[
    column("INTACT", |v, _| if v.intact { shaped('●', "yes") } else { shaped('▲', "no") }),
    column("RECORDS", |v, _| v.records.into()),
    column("LAST", |v, _| v.sequence.into()),
    column("HASH", |v, _| (&v.hash).into()),
    column("FAULT", |v, _| maybe(v.fault.as_ref())),
];

/// `audit …`. An export is checked without an aggregator.
pub async fn audit(client: Result<Client, Failure>, out: &Output, command: AuditCommand) -> Ended {
    match command {
        AuditCommand::List { limit } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            out.list(&client?.all("/v1/audit", &[], limit).await?, RECORDS, "sequence")?;
            Ok(0)
        }
        AuditCommand::Verify { export } => {
            let verdict = match &export {
                None => client?.one("/v1/audit/verify").await?,
                Some(file) => verified(&text(file)?)?,
            };
            out.one(&verdict, VERDICTS, "hash")?;
            Ok(if verdict["intact"] == true { 0 } else { NONE_SUCCEEDED })
        }
    }
}

fn text(file: &Path) -> Result<String, Failure> {
    let read = if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    read.map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))
}

/// What an export shows by itself. Whether its end is the log's end, only the aggregator knows.
fn verified(export: &str) -> Result<Value, Failure> {
    let lines = export.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let record = |(index, line): (usize, &str)| {
        serde_json::from_str::<Map<String, Value>>(line)
            .map_err(|error| Failure::Usage(format!("line {}: {error}; give it what `audit list -o jsonl` prints", index + 1)))
    };
    let records: Vec<Map<String, Value>> = lines.map(record).collect::<Result<_, _>>()?;
    let first = records.first().ok_or_else(|| Failure::Usage("there is no record in it".into()))?;
    let genesis = first.get("previous").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut chain = Chain::new(genesis.clone());
    let taken = records.iter().try_for_each(|record| chain.take(record));
    let fault = taken.and_then(|()| chain.end(None)).err();
    let (sequence, hash) = chain.head();
    Ok(
        json!({"intact": fault.is_none(), "fault": fault.map(|fault| fault.to_string()), "records": chain.records(), "genesis": genesis,
        "sequence": sequence, "hash": hash}),
    )
}

#[cfg(test)]
mod tests {
    use picket_common::audit::hash;

    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown, shown_by};

    fn log() -> Vec<Value> {
        let mut previous = "genesis".to_owned();
        let record = |(sequence, what): (u64, &str)| {
            let record = json!({"sequence": sequence, "at": "2026-01-01T00:00:00Z", "principal": "ann", "summary": what,
                "resource": "host/r07n01", "result": "refused", "code": "host-disabled", "previous": previous});
            let Value::Object(mut record) = record else { panic!() };
            previous = hash(&record);
            record.insert("hash".into(), json!(previous));
            Value::Object(record)
        };
        [(1, "power off"), (2, "power on"), (3, "gate open")].into_iter().map(record).collect()
    }

    fn exported(log: &[Value]) -> String {
        log.iter().map(|record| format!("{record}\n")).collect()
    }

    #[test]
    fn an_export_is_checked_here() {
        let log = log();
        let verdict = verified(&exported(&log)).unwrap();
        assert_eq!((verdict["intact"].as_bool(), verdict["records"].as_u64()), (Some(true), Some(3)));
        let mut forged = log.clone();
        forged[1]["principal"] = json!("bob");
        let verdict = verified(&exported(&forged)).unwrap();
        assert_eq!(verdict["fault"], "record 2 was changed: its content does not match its hash");
        let verdict = verified(&exported(&[log[0].clone(), log[2].clone()])).unwrap();
        assert!(verdict["fault"].as_str().unwrap().contains("record 3 follows record 1"));
        let table = shown_by(&at(Format::Table, false), &[verdict], VERDICTS, "hash", false);
        assert!(table.starts_with("INTACT  RECORDS  LAST  HASH") && table.contains("\nno      1        1     "), "{table}");
        assert!(verified("nonsense").is_err() && verified("\n").is_err());
    }

    #[test]
    fn tables_are_as_they_were() {
        let wanted = "\
SEQUENCE  AT                    WHO  WHAT       ABOUT        RESULT
1         2026-01-01T00:00:00Z  ann  power off  host/r07n01  refused (host-disabled)
";
        assert_eq!(shown(&at(Format::Table, true), &log()[..1], RECORDS, false), wanted);
    }
}
