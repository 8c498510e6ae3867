//! Switching hosts and gates. Asks before it touches more than one host, and never says done before it was read back.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use picket_common::api::{DryRun, Enablement, Host, Operation};
use picket_common::id::HostId;
use picket_common::power::{PowerOperation, PowerState};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Ended;
use crate::cli::{Gate, GateScope, OobmCommand, Power};
use crate::client::{ANSWER_TIMEOUT, Call, Client, escaped, read, typed};
use crate::failure::{Failure, UNKNOWN, over_all};
use crate::hosts::named;
use crate::op::{exit_code, until_done};
use crate::output::{Column, Output, column, maybe, plain, power as shape, print, yes_no};
use crate::places::without_null;

/// Hosts asked for at the same time.
const AT_ONCE: usize = 32;

/// More hosts than this take their number to be typed.
const TYPE_THE_COUNT: usize = 10;

/// What became of one host; its JSON form is what `-o json` prints.
#[derive(Deserialize)]
struct Row {
    host: HostId,
    result: Option<String>,
    power: Option<PowerState>,
    operation: Option<String>,
    detail: Option<String>,
}

const RESULTS: &[Column<Row>] = &[
    column("HOST", |r, _| (&r.host).into()),
    column("RESULT", |r, _| match r.power {
        Some(power) => shape(power, false),
        None => maybe(r.result.as_ref()),
    }),
    column("OPERATION", |r, _| maybe(r.operation.as_ref())),
    column("DETAIL", |r, _| maybe(r.detail.as_ref())),
];

const PLANS: &[Column<DryRun>] = &[
    column("HOST", |d, _| (&d.host).into()),
    column("POWER", |d, _| shape(d.power, false)),
    column("MAINTENANCE", |d, _| yes_no(d.maintenance)),
    column("REFUSAL", |d, _| maybe(d.refusal.as_ref())),
    column("DETAIL", |d, _| (&d.detail).into()),
];

/// One host's end of the command.
struct Outcome {
    row: Value,
    code: u8,
}

/// `power …`.
pub async fn power(client: &Client, out: &Output, command: Power) -> Ended {
    if command.exit_state && command.operation != PowerOperation::Status {
        return Err(Failure::Usage("--exit-state goes with status".into()));
    }
    let hosts = named(&command.hosts)?;
    let waits = waits(&command);
    if command.operation != PowerOperation::Status && !command.dry_run {
        warn_of_maintenance(client, &hosts).await?;
        confirm(&format!("Power {} {} hosts", command.operation, hosts.len()), hosts.len(), command.yes)?;
    }
    let each = stream::iter(&hosts).map(|host| one(client, &command, host, waits)).buffered(AT_ONCE);
    let outcomes: Vec<Outcome> = each.collect().await;
    let rows: Vec<Value> = outcomes.iter().map(|outcome| outcome.row.clone()).collect();
    if command.dry_run {
        show_plans(out, &rows)?;
    } else if !waits && out.is_table() {
        show_ids(&rows)?;
    } else {
        out.list(&rows, RESULTS, "host")?;
    }
    let codes: Vec<u8> = outcomes.iter().map(|outcome| outcome.code).collect();
    Ok(if command.exit_state { state_code(&rows).unwrap_or_else(|| over_all(&codes)) } else { over_all(&codes) })
}

/// Whether to wait: as told; otherwise on a terminal, and for a status, whose id alone would be of no use.
fn waits(command: &Power) -> bool {
    if command.no_wait {
        return false;
    }
    command.wait || command.operation == PowerOperation::Status || std::io::stdout().is_terminal()
}

async fn one(client: &Client, command: &Power, host: &HostId, waits: bool) -> Outcome {
    match ordered(client, command, host, waits).await {
        Ok(answer) if command.dry_run => {
            let code = if answer.get("refusal").is_some_and(|refusal| !refusal.is_null()) { crate::failure::REFUSED } else { 0 };
            Outcome { row: answer, code }
        }
        Ok(answer) => ended(host, answer),
        Err(failure) => {
            let result = match &failure {
                Failure::Problem(problem) if problem.status == 409 => "refused",
                Failure::TimedOut(_) => "unknown",
                _ => "failed",
            };
            Outcome { row: json!({"host": host, "result": result, "detail": failure.line()}), code: failure.exit_code() }
        }
    }
}

/// The host's part of an operation, with the operation's id.
fn ended(host: &HostId, answer: Value) -> Outcome {
    let operation: Operation = match typed(answer.clone()) {
        Ok(operation) => operation,
        Err(failure) => {
            return Outcome { row: json!({"host": host, "result": "unknown", "detail": failure.line()}), code: UNKNOWN };
        }
    };
    let mut row = answer["hosts"].get(0).cloned().unwrap_or_else(|| json!({ "host": host }));
    row["operation"] = json!(operation.id);
    if row["result"].is_null() && !row["state"].is_null() {
        row["result"] = row["state"].clone();
    }
    let code = if operation.done { exit_code(&operation) } else { 0 };
    Outcome { row, code }
}

/// Longest that one request is held open for an operation, in seconds.
const HELD: u64 = 30;

async fn ordered(client: &Client, command: &Power, host: &HostId, waits: bool) -> Result<Value, Failure> {
    let body = without_null(json!({
        "operation": command.operation,
        "timeout": command.timeout,
        "reason": command.reason,
        "dry_run": command.dry_run,
        "on_if_off": command.on_if_off,
    }));
    let held = command.timeout.unwrap_or(HELD).min(HELD);
    let headers = [("prefer", format!("wait={held}"))];
    let path = format!("/v1/hosts/{host}/power");
    let call = Call {
        headers: if waits { &headers } else { &[] },
        body: Some(body.to_string()),
        timeout: Some(ANSWER_TIMEOUT + Duration::from_secs(held)),
        ..Call::new(Method::POST, &path)
    };
    let answer = match client.ask(call).await {
        Ok(answer) => read(answer).await,
        Err(failure) => Err(failure),
    };
    if command.dry_run {
        return answer;
    }
    let answer = answer.map_err(|failure| match failure {
        Failure::NoAnswer(text) => Failure::TimedOut(format!("{text}; it may have been ordered all the same")),
        failure => failure,
    })?;
    if waits { until_done(client, answer, None).await.map_err(lost_sight) } else { Ok(answer) }
}

/// Accepted, but then not to be followed: what became of it is not known.
fn lost_sight(failure: Failure) -> Failure {
    match failure {
        failure @ Failure::TimedOut(_) => failure,
        failure => Failure::TimedOut(format!("ordered, but its end was not seen: {}", failure.line())),
    }
}

fn show_plans(out: &Output, rows: &[Value]) -> Result<(), Failure> {
    let (plans, failed): (Vec<_>, Vec<_>) = rows.iter().cloned().partition(|row| row.get("maintenance").is_some());
    for row in &failed {
        eprintln!("{}: {}", plain(row["host"].as_str().unwrap_or_default()), plain(row["detail"].as_str().unwrap_or_default()));
    }
    out.list(&plans, PLANS, "host")
}

/// Ids of what was accepted, one a line, and the rest on stderr.
fn show_ids(rows: &[Value]) -> Result<(), Failure> {
    for row in rows {
        match row["operation"].as_str() {
            Some(id) => print(&format!("{}\n", plain(id)))?,
            None => {
                let word = |name: &str| plain(row[name].as_str().unwrap_or_default());
                eprintln!("{}: {}: {}", word("host"), word("result"), word("detail"));
            }
        }
    }
    Ok(())
}

/// `--exit-state`: 3 when any cannot be told, 2 when any is off, 0 when all are on; none when a host was not read at all.
fn state_code(rows: &[Value]) -> Option<u8> {
    let states: Option<Vec<&str>> = rows.iter().map(|row| row["power"].as_str()).collect();
    let states = states?;
    Some(match () {
        () if states.iter().any(|state| !matches!(*state, "on" | "off")) => 3,
        () if states.contains(&"off") => 2,
        () => 0,
    })
}

/// Says which of the hosts people work on. A host that cannot be looked at is told of later, by what it is asked.
async fn warn_of_maintenance(client: &Client, hosts: &[HostId]) -> Result<(), Failure> {
    let looks = stream::iter(hosts).map(|host| async move {
        let seen = client.one(&format!("/v1/hosts/{host}")).await.and_then(typed::<Host>);
        (host, seen)
    });
    let mut looks = std::pin::pin!(looks.buffered(AT_ONCE));
    while let Some((host, seen)) = looks.next().await {
        match seen {
            Ok(seen) if seen.maintenance => eprintln!("warning: {host} is in maintenance: somebody may be working on it"),
            Ok(_) | Err(Failure::Problem(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Asks before more than one host is touched: y/N, or the number when they are many.
fn confirm(what: &str, count: usize, yes: bool) -> Result<(), Failure> {
    if yes || count < 2 {
        return Ok(());
    }
    let (question, wanted) = if count > TYPE_THE_COUNT {
        (format!("{what}? Type their number: "), count.to_string())
    } else {
        (format!("{what}? [y/N] "), "y".to_owned())
    };
    ask(&question, &wanted)
}

fn ask(question: &str, wanted: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("this touches more than one host: say --yes".into()));
    }
    let local = |error: std::io::Error| Failure::Local(format!("the terminal: {error}"));
    eprint!("{question}");
    std::io::stderr().flush().map_err(local)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(local)?;
    let answer = answer.trim();
    if answer == wanted || (wanted == "y" && answer.eq_ignore_ascii_case("yes")) {
        Ok(())
    } else {
        Err(Failure::Usage("not confirmed; nothing was done".into()))
    }
}

const GATES: &[Column<Enablement>] = &[
    column("SCOPE", |e, _| (&e.scope).into()),
    column("ID", |e, _| (&e.id).into()),
    column("OOBM", |e, _| yes_no(e.oobm_enabled)),
];

/// `oobm …`.
pub async fn oobm(client: &Client, out: &Output, command: OobmCommand) -> Ended {
    let (gate, verb) = match &command {
        OobmCommand::Enable(gate) => (gate, "enable"),
        OobmCommand::Disable(gate) => (gate, "disable"),
    };
    let ids = gate_ids(gate)?;
    if verb == "disable" && gate.scope != GateScope::Host && !gate.yes {
        let names = ids.join(" ");
        ask(&format!("Disable all hosts of {names}? Type {names}: "), &names)?;
    } else {
        confirm(&format!("oobm {verb} {} hosts", ids.len()), ids.len(), gate.yes || verb == "enable")?;
    }
    let collection = match gate.scope {
        GateScope::Host => "hosts",
        GateScope::Cluster => "clusters",
        GateScope::Zone => "zones",
    };
    let each = stream::iter(&ids).map(|id| async move {
        let path = format!("/v1/{collection}/{}/oobm/{verb}", escaped(id));
        (id, client.json(Method::POST, &path, None).await)
    });
    let answers: Vec<_> = each.buffered(AT_ONCE).collect().await;
    let mut codes = Vec::new();
    let mut done = Vec::new();
    for (id, answer) in answers {
        codes.push(answer.as_ref().map_or_else(Failure::exit_code, |_| 0));
        match answer {
            Ok(gate) => done.push(gate),
            Err(failure) => eprintln!("{}: {failure}", plain(id)),
        }
    }
    out.list(&done, GATES, "id")?;
    Ok(over_all(&codes))
}

fn gate_ids(gate: &Gate) -> Result<Vec<String>, Failure> {
    match gate.scope {
        GateScope::Host => Ok(named(&gate.ids)?.iter().map(ToString::to_string).collect()),
        GateScope::Cluster | GateScope::Zone => Ok(gate.ids.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_become_exit_codes() {
        let rows = |states: &[Option<&str>]| states.iter().map(|state| json!({ "power": state })).collect::<Vec<_>>();
        for (states, wanted) in [
            (&[Some("on")][..], Some(0)),
            (&[Some("off")], Some(2)),
            (&[Some("on"), Some("off")], Some(2)),
            (&[Some("unknown"), Some("off")], Some(3)),
            (&[Some("disabled")], Some(3)),
            (&[None, Some("on")], None),
        ] {
            assert_eq!(state_code(&rows(states)), wanted, "{states:?}");
        }
    }

    #[tokio::test]
    async fn an_order_that_may_have_been_heard_is_unknown_and_one_that_was_not_failed() {
        let command = Power {
            operation: PowerOperation::Off,
            hosts: vec!["h1".into()],
            wait: true,
            no_wait: false,
            timeout: None,
            reason: None,
            dry_run: false,
            on_if_off: false,
            yes: true,
            exit_state: false,
        };
        let host: HostId = "h1".parse().unwrap();
        let client = crate::client::testing::client(vec![None, Some((502, "a proxy's own page".into()))]).await;
        for (result, code) in [("unknown", 5), ("unknown", 5), ("failed", 7)] {
            let outcome = one(&client, &command, &host, true).await;
            assert_eq!((outcome.row["result"].as_str(), outcome.code), (Some(result), code), "{}", outcome.row);
        }
    }

    #[test]
    fn operations_become_rows() {
        let host: HostId = "h1".parse().unwrap();
        let id = "0190b7a0-0000-7000-8000-000000000000";
        for (part, done, result, code) in [
            (json!({"host": "h1", "state": "done", "result": "changed"}), true, "changed", 0),
            (json!({"host": "h1", "state": "done", "result": "refused", "refusal": "busy"}), true, "refused", 6),
            (json!({"host": "h1", "state": "done", "result": "unknown"}), true, "unknown", 5),
            (json!({"host": "h1", "state": "done", "result": "failed"}), true, "failed", 3),
            (json!({"host": "h1", "state": "sent"}), false, "sent", 0),
        ] {
            let answer = json!({"id": id, "operation": "off", "principal": "ann", "accepted_at": "2026-01-01T00:00:00Z",
                "deadline": "2026-01-01T00:01:00Z", "done": done, "hosts": [part]});
            let outcome = ended(&host, answer);
            assert_eq!((outcome.row["result"].as_str(), outcome.code), (Some(result), code));
            assert_eq!(outcome.row["operation"], id);
        }
    }
}
