//! What there is to see: histories, the summary, and the API as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use jiff::Timestamp;
use picket_common::api::ha::Proof;
use picket_common::api::{Counts, HistoryEntry, HistoryWhat, Summary};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Ended;
use crate::cli::{ApiArgs, HistoryArgs};
use crate::client::{Call, Client, typed};
use crate::failure::Failure;
use crate::output::{Column, Output, column, maybe, print};

const HISTORY: &[Column<HistoryEntry>] = &[
    column("AT", |h, _| seconds(h.at).into()),
    column("WHAT", |h, _| what(&h.what).into()),
    column("DETAIL", |h, _| maybe(detail(&h.what))),
];

/// `history`.
pub async fn history(client: &Client, out: &Output, command: &HistoryArgs) -> Ended {
    let limit = usize::try_from(command.limit).unwrap_or(usize::MAX);
    let lines = client.all(&format!("/v1/hosts/{}/history", command.host), &[], limit).await?;
    out.list(&lines, HISTORY, "sequence")?;
    Ok(0)
}

/// A time to the second: enough for people.
pub fn seconds(at: Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}

/// What a line of history says, in a few words.
pub fn what(what: &HistoryWhat) -> String {
    match what {
        HistoryWhat::Power { old, new, .. } => format!("power {old} → {new}"),
        HistoryWhat::Management { new, .. } => format!("management {new}"),
        HistoryWhat::OperationAccepted { action, .. } => format!("{action} ordered"),
        HistoryWhat::OperationDone { result, .. } => format!("operation {result}"),
        HistoryWhat::PasswordChange { in_force, .. } => format!("password: {} in force", in_force.as_str()),
        HistoryWhat::Facts { identity_differs: true, .. } => "another machine".to_owned(),
        HistoryWhat::Facts { .. } => "facts".to_owned(),
        HistoryWhat::Gap { first, last } => format!("gap {first}-{last}"),
        HistoryWhat::Snapshot { power, .. } => format!("snapshot {power}"),
        HistoryWhat::Ha { old, new, reason, .. } => {
            let old = old.filter(|old| old != new).map(|old| format!("{old} → ")).unwrap_or_default();
            let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!("ha {old}{new}{reason}")
        }
        HistoryWhat::HostStatus { old, new, .. } => format!("status {old} → {new}"),
        HistoryWhat::Gates { act, held_by: Some(gate), .. } => format!("{act} held by {gate}"),
        HistoryWhat::Gates { act, held_by: None, .. } => format!("{act} let pass"),
    }
}

/// The readings that prove a host off.
fn proven(proof: &Proof) -> String {
    let devices: BTreeSet<&str> = proof.readings.iter().map(|reading| reading.device.as_str()).collect();
    let devices = devices.into_iter().collect::<Vec<_>>().join(", ");
    let sent = if proof.off_sent { "an off was sent" } else { "nothing was sent" };
    format!("{} Off readings of {devices}, {sent}", proof.readings.len())
}

/// Why, by whom, in which operation.
pub fn detail(what: &HistoryWhat) -> Option<String> {
    use picket_common::power::Cause;
    match what {
        HistoryWhat::Power { bmc_error: Some(error), .. } => Some(error.to_string()),
        HistoryWhat::Power { cause, .. } => Some(match cause {
            Cause::Poll => "seen by polling".to_owned(),
            Cause::Command(id) => format!("by operation {id}"),
            Cause::Enablement => "by enablement".to_owned(),
        }),
        HistoryWhat::Management { bmc_error, .. } => bmc_error.as_ref().map(ToString::to_string),
        HistoryWhat::OperationAccepted { operation_id, principal, reason, .. } => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            Some(format!("{operation_id} by {principal}{reason}"))
        }
        HistoryWhat::OperationDone { operation_id, detail, .. } => {
            let detail = detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
            Some(format!("{operation_id}{detail}"))
        }
        HistoryWhat::PasswordChange { operation_id, .. } => Some(operation_id.to_string()),
        HistoryWhat::Facts { identity, firmware, .. } => {
            let of = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {value}"));
            let known: Vec<String> = [of("identity", identity), of("firmware", firmware)].into_iter().flatten().collect();
            Some(known.join(", "))
        }
        HistoryWhat::Gap { .. } => Some("reports were lost for good here".to_owned()),
        HistoryWhat::Snapshot { .. } => Some("as the agent knew it after a gap".to_owned()),
        HistoryWhat::Ha { why, attempt, held, bmc_error, proof, .. } => {
            let attempt = attempt.map(|attempt| format!("attempt {attempt}"));
            let held = held.map(|gate| format!("held by {gate}"));
            let proof = proof.as_ref().map(|proof| proven(proof));
            let parts = [Some(why.clone()), attempt, held, bmc_error.as_ref().map(ToString::to_string), proof];
            Some(parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
        }
        HistoryWhat::HostStatus { why, proof, .. } => Some(
            [Some(why.clone()), proof.as_ref().map(|proof| proven(proof))].into_iter().flatten().collect::<Vec<_>>().join("; "),
        ),
        HistoryWhat::Gates { judgement, .. } => {
            let closed = judgement.0.iter().filter(|answer| !answer.lets_through());
            let closed: Vec<String> = closed.map(|answer| format!("{}: {}", answer.gate, answer.inputs)).collect();
            (!closed.is_empty()).then(|| closed.join("; "))
        }
    }
}

/// A line of the summary.
#[derive(Deserialize)]
struct Line {
    id: String,
    #[serde(flatten)]
    counts: Counts,
}

const SUMMARY: &[Column<Line>] = &[
    column("WHERE", |l, _| (&l.id).into()),
    column("● ON", |l, _| l.counts.on.into()),
    column("■ OFF", |l, _| l.counts.off.into()),
    column("▲ UNKNOWN", |l, _| l.counts.unknown.into()),
    column("– DISABLED", |l, _| l.counts.disabled.into()),
    column("STALE", |l, _| l.counts.stale.into()),
];

/// `summary`.
pub async fn summary(client: &Client, out: &Output) -> Ended {
    let value = client.one("/v1/summary").await?;
    if out.is_document() {
        out.one::<Value>(&value, &[], "hosts")?;
        return Ok(0);
    }
    let summary: Summary = typed(value)?;
    out.list(&summary_lines(&summary), SUMMARY, "id")?;
    if !out.is_table() {
        return Ok(0);
    }
    let Summary { agents_connected, agents, alerts_firing, .. } = summary;
    print(&format!("\nagents {agents_connected} of {agents} connected, {alerts_firing} alerts firing\n"))?;
    Ok(0)
}

fn summary_lines(summary: &Summary) -> Vec<Value> {
    let line = |id: String, counts: &Counts| json!({"id": id, "on": counts.on, "off": counts.off, "unknown": counts.unknown, "disabled": counts.disabled, "stale": counts.stale});
    fn each<'a, K: std::fmt::Display>(
        kind: &'a str,
        places: &'a BTreeMap<K, Counts>,
    ) -> impl Iterator<Item = (String, &'a Counts)> {
        places.iter().map(move |(id, counts)| (format!("{kind} {id}"), counts))
    }
    let all = std::iter::once(("all".to_owned(), &summary.hosts));
    let all = all.chain(each("zone", &summary.zones)).chain(each("cluster", &summary.clusters)).chain(each("rack", &summary.racks));
    all.map(|(id, counts)| line(id, counts)).collect()
}

/// `api …`: prints the body, and exits by the status. What is no success is told in words, unless documents are asked for.
pub async fn api(client: &Client, out: &Output, command: ApiArgs) -> Ended {
    let method: Method = command.method.to_ascii_uppercase().parse().map_err(|_| Failure::Usage("not a method".into()))?;
    if !command.path.starts_with('/') {
        return Err(Failure::Usage("the path starts with /v1/".into()));
    }
    let body = command.data.as_deref().map(data).transpose()?;
    let response = client.send(Call { body: body.map(String::into_bytes), ..Call::new(method, &command.path) }).await?;
    if !response.status().is_success() {
        let failure = crate::client::problem(response).await;
        return match &failure {
            Failure::Problem(problem) if out.is_document() => {
                let problem = serde_json::to_value(problem).map_err(|error| Failure::Local(error.to_string()))?;
                out.one::<Value>(&problem, &[], "code")?;
                Ok(failure.exit_code())
            }
            _ => Err(failure),
        };
    }
    let text = response.text().await.map_err(|error| Failure::Unreachable(error.to_string()))?;
    print(&text)?;
    Ok(0)
}

fn data(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown};

    #[test]
    fn tables_are_as_they_were() {
        let lines = [
            json!({"sequence": 9, "at": "2026-01-01T00:00:01.5Z", "recorded_at": "2026-01-01T00:00:02Z", "kind": "power",
                "old": "on", "new": "off", "cause": "poll"}),
            json!({"sequence": 8, "at": "2026-01-01T00:00:00Z", "recorded_at": "2026-01-01T00:00:02Z", "kind": "gap", "first": 3, "last": 7}),
        ];
        let wanted = "\
AT                    WHAT            DETAIL
2026-01-01T00:00:02Z  power on → off  seen by polling
2026-01-01T00:00:00Z  gap 3-7         reports were lost for good here
";
        assert_eq!(shown(&at(Format::Table, false), &lines, HISTORY, false), wanted);
        let mut summary = Summary { hosts: Counts { on: 2, off: 1, ..Counts::default() }, ..Summary::default() };
        summary.zones.insert("z1".parse().unwrap(), summary.hosts.clone());
        let wanted = "\
WHERE    ● ON  ■ OFF  ▲ UNKNOWN  – DISABLED  STALE
all      2     1      0          0           0
zone z1  2     1      0          0           0
";
        assert_eq!(shown(&at(Format::Table, true), &summary_lines(&summary), SUMMARY, false), wanted);
        let csv = "where,on,off,unknown,disabled,stale\nall,2,1,0,0,0\nzone z1,2,1,0,0,0\n";
        assert_eq!(shown(&at(Format::Csv, false), &summary_lines(&summary), SUMMARY, false), csv);
    }
}
