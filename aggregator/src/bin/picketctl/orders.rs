//! One order to many hosts: sent to each, followed to its end, shown. Never says done before it was read back, and never calls an
//! order failed that may have been heard.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use picket_common::api::Operation;
use picket_common::id::HostId;
use picket_common::power::PowerState;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{ANSWER_TIMEOUT, Call, Client, read, typed};
use crate::failure::{Failure, REFUSED, UNKNOWN};
use crate::op::{exit_code, until_done};
use crate::output::{Column, Output, column, maybe, plain, power as shape, print};
use crate::progress::Progress;

/// Hosts asked for at the same time.
const AT_ONCE: usize = 32;

/// Longest that one request is held open for an operation, in seconds.
const HELD: u64 = 30;

/// What every host is asked.
pub struct Order {
    /// Under the host: `power`.
    pub route: &'static str,
    /// The body.
    pub body: Value,
    /// Time it may take, in seconds.
    pub timeout: Option<u64>,
    /// Whether to wait for its end.
    pub waits: bool,
    /// Whether nothing is to be done but said.
    pub dry_run: bool,
}

/// What became of one host; its JSON form is what `-o json` prints.
#[derive(Deserialize)]
pub struct Row {
    host: HostId,
    result: Option<String>,
    power: Option<PowerState>,
    operation: Option<String>,
    detail: Option<String>,
}

/// Columns of results.
pub const RESULTS: &[Column<Row>] = &[
    column("HOST", |r, _| (&r.host).into()),
    column("RESULT", |r, _| match r.power {
        Some(power) => shape(power, false),
        None => maybe(r.result.as_ref()),
    }),
    column("OPERATION", |r, _| maybe(r.operation.as_ref())),
    column("DETAIL", |r, _| maybe(r.detail.as_ref())),
];

/// One host's end of the order.
pub struct Outcome {
    /// What is shown.
    pub row: Value,
    /// Exit code for this host alone.
    pub code: u8,
}

/// Sends the order to each host, and gives the ends in the hosts' order.
pub async fn to_each(client: &Client, hosts: &[HostId], order: &Order) -> Vec<Outcome> {
    let progress = Progress::new(hosts.len());
    let each = stream::iter(hosts).map(|host| async {
        let outcome = one(client, order, host).await;
        progress.step(outcome.code == 0);
        outcome
    });
    each.buffered(AT_ONCE).collect().await
}

/// Shows what became of the hosts: their ends, or the ids of what was begun.
///
/// # Errors
/// As [`Output::list`].
pub fn show(out: &Output, order: &Order, outcomes: &[Outcome]) -> Result<(), Failure> {
    let rows: Vec<Value> = outcomes.iter().map(|outcome| outcome.row.clone()).collect();
    if !order.waits && out.is_table() { show_ids(&rows) } else { out.list(&rows, RESULTS, "host") }
}

async fn one(client: &Client, order: &Order, host: &HostId) -> Outcome {
    match ordered(client, order, host).await {
        Ok(answer) if order.dry_run => {
            let refused = answer.get("refusal").is_some_and(|refusal| !refusal.is_null());
            Outcome { row: answer, code: if refused { REFUSED } else { 0 } }
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

async fn ordered(client: &Client, order: &Order, host: &HostId) -> Result<Value, Failure> {
    let held = order.timeout.unwrap_or(HELD).min(HELD);
    let headers = [("prefer", format!("wait={held}"))];
    let path = format!("/v1/hosts/{host}/{}", order.route);
    let call = Call {
        headers: if order.waits { &headers } else { &[] },
        body: Some(order.body.to_string()),
        timeout: Some(ANSWER_TIMEOUT + Duration::from_secs(held)),
        ..Call::new(Method::POST, &path)
    };
    let answer = match client.ask(call).await {
        Ok(answer) => read(answer).await,
        Err(failure) => Err(failure),
    };
    if order.dry_run {
        return answer;
    }
    let answer = answer.map_err(|failure| match failure {
        Failure::NoAnswer(text) => Failure::TimedOut(format!("{text}; it may have been ordered all the same")),
        failure => failure,
    })?;
    if order.waits { until_done(client, answer, None).await.map_err(lost_sight) } else { Ok(answer) }
}

/// Accepted, but then not to be followed: what became of it is not known.
fn lost_sight(failure: Failure) -> Failure {
    match failure {
        failure @ Failure::TimedOut(_) => failure,
        failure => Failure::TimedOut(format!("ordered, but its end was not seen: {}", failure.line())),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown_by};

    fn order() -> Order {
        Order { route: "power", body: json!({"operation": "off"}), timeout: None, waits: true, dry_run: false }
    }

    #[tokio::test]
    async fn an_order_that_may_have_been_heard_is_unknown_and_one_that_was_not_failed() {
        let host: HostId = "h1".parse().unwrap();
        let client = crate::client::testing::client(vec![None, Some((502, "a proxy's own page".into()))]).await;
        for (result, code) in [("unknown", 5), ("unknown", 5), ("failed", 7)] {
            let outcome = one(&client, &order(), &host).await;
            assert_eq!((outcome.row["result"].as_str(), outcome.code), (Some(result), code), "{}", outcome.row);
        }
    }

    const ID: &str = "0190b7a0-0000-7000-8000-000000000000";

    fn answer(done: bool, part: Value) -> Value {
        json!({"id": ID, "operation": "off", "principal": "ann", "accepted_at": "2026-01-01T00:00:00Z",
            "deadline": "2026-01-01T00:01:00Z", "done": done, "hosts": [part]})
    }

    #[test]
    fn operations_become_rows() {
        let host: HostId = "h1".parse().unwrap();
        for (part, done, result, code) in [
            (json!({"host": "h1", "state": "done", "result": "changed"}), true, "changed", 0),
            (json!({"host": "h1", "state": "done", "result": "refused", "refusal": "busy"}), true, "refused", 6),
            (json!({"host": "h1", "state": "done", "result": "unknown"}), true, "unknown", 5),
            (json!({"host": "h1", "state": "done", "result": "failed"}), true, "failed", 3),
            (json!({"host": "h1", "state": "sent"}), false, "sent", 0),
        ] {
            let outcome = ended(&host, answer(done, part));
            assert_eq!((outcome.row["result"].as_str(), outcome.code), (Some(result), code));
            assert_eq!(outcome.row["operation"], ID);
        }
    }

    #[test]
    fn results_in_every_form() {
        let host: HostId = "h1".parse().unwrap();
        let rows = [
            ended(&host, answer(true, json!({"host": "h1", "state": "done", "result": "changed"}))).row,
            ended(&host, answer(true, json!({"host": "h2", "state": "done", "result": "read", "power": "off"}))).row,
            json!({"host": "h3", "result": "refused", "detail": "host h3 is disabled (host-disabled)"}),
        ];
        let table = "\
HOST  RESULT   OPERATION                             DETAIL
h1    changed  0190b7a0-0000-7000-8000-000000000000  -
h2    ■ off    0190b7a0-0000-7000-8000-000000000000  -
h3    refused  -                                     host h3 is disabled (host-disabled)
";
        let csv = "\
host,result,operation,detail
h1,changed,0190b7a0-0000-7000-8000-000000000000,
h2,off,0190b7a0-0000-7000-8000-000000000000,
h3,refused,,host h3 is disabled (host-disabled)
";
        for (format, terminal, wanted) in
            [(Format::Table, true, table), (Format::Csv, false, csv), (Format::Folded, false, "h[1-3]\n")]
        {
            assert_eq!(shown_by(&at(format, terminal), &rows, RESULTS, "host", false), wanted);
        }
    }
}
