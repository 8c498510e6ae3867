//! One order to one host or to many at once: sent, followed to its end, shown. Never says done before it was read back, and never
//! calls an order failed that may have been heard.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use picket_common::api::{Operation, OperationCounts, OperationHost};
use picket_common::hostset::natural_order;
use picket_common::id::HostId;
use picket_common::power::PowerState;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::client::operation::{result_code, until_done};
use crate::client::{ANSWER_TIMEOUT, Call, Client, read, typed};
use crate::failure::{Failure, REFUSED, UNKNOWN};
use crate::output::{Column, Output, column, maybe, plain, power as shape, print};
use crate::progress::Progress;

/// Hosts asked one by one at the same time.
const AT_ONCE: usize = 16;

/// Longest that one request is held open for an operation, in seconds.
const HELD: u64 = 30;

/// What is asked of the hosts.
pub struct Order {
    /// What to do, as `POST /v1/operations` calls it.
    pub operation: &'static str,
    /// Where one host is asked for it: `power`, `bmc/test`.
    pub route: &'static str,
    /// Its parameters.
    pub fields: Map<String, Value>,
    /// Pause between the starts of two hosts, in seconds.
    pub stagger: Option<u64>,
    /// Whether to wait for its end.
    pub waits: bool,
    /// Whether nothing is to be done but said.
    pub dry_run: bool,
}

impl Order {
    /// An order whose end is waited for.
    pub fn new(operation: &'static str, route: &'static str, fields: Value) -> Self {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        Self { operation, route, fields, stagger: None, waits: true, dry_run: false }
    }

    /// The body for one host.
    fn of_one(&self) -> Value {
        let mut body = Value::Object(self.fields.clone());
        if self.route == "power" {
            body["operation"] = json!(self.operation);
            body["dry_run"] = json!(self.dry_run);
        }
        body
    }

    /// The body for many hosts.
    fn of_many(&self, hosts: &[HostId]) -> Value {
        let mut body = Value::Object(self.fields.clone());
        body["operation"] = json!(self.operation);
        body["dry_run"] = json!(self.dry_run);
        body["hosts"] = json!(hosts);
        if let Some(stagger) = self.stagger {
            body["stagger"] = json!(stagger);
        }
        body
    }
}

/// What became of one host; its JSON form is what `-o json` prints.
#[derive(Deserialize)]
pub struct Row {
    host: HostId,
    result: Option<String>,
    power: Option<PowerState>,
    operation: Option<String>,
    refusal: Option<String>,
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
    column("DETAIL", |r, _| maybe(r.detail.as_ref().or(r.refusal.as_ref()))),
];

/// One host's end of the order.
pub struct Outcome {
    /// What is shown.
    pub row: Value,
    /// Exit code for this host alone.
    pub code: u8,
}

impl Outcome {
    fn of(host: &HostId, result: &str, failure: &Failure) -> Self {
        Self { row: json!({"host": host, "result": result, "detail": failure.line()}), code: failure.exit_code() }
    }
}

/// Has the order carried out, and gives each host's end, as people count them.
///
/// # Errors
/// What concerns all of many hosts; of one host it is the host's end.
pub async fn carried_out(client: &Client, hosts: &[HostId], order: &Order) -> Result<Vec<Outcome>, Failure> {
    match hosts {
        [host] => Ok(vec![one(client, order, host).await]),
        hosts => many(client, order, hosts).await,
    }
}

/// Has the order carried out where each host is asked by itself.
pub async fn one_by_one(client: &Client, hosts: &[HostId], order: &Order) -> Vec<Outcome> {
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
        Ok(answer) if order.dry_run => planned(answer),
        Ok(answer) => {
            let ended = ends(&answer).ok().and_then(|ends| ends.into_iter().next());
            let not_understood = || Failure::TimedOut("ordered, but the answer is not understood".into());
            ended.unwrap_or_else(|| Outcome::of(host, "unknown", &not_understood()))
        }
        Err(failure) => {
            let result = match &failure {
                Failure::Problem(problem) if problem.status == 409 => "refused",
                Failure::TimedOut(_) => "unknown",
                _ => "failed",
            };
            Outcome::of(host, result, &failure)
        }
    }
}

fn planned(plan: Value) -> Outcome {
    let refused = plan.get("refusal").is_some_and(|refusal| !refusal.is_null());
    Outcome { row: plan, code: if refused { REFUSED } else { 0 } }
}

async fn ordered(client: &Client, order: &Order, host: &HostId) -> Result<Value, Failure> {
    let timeout = order.fields.get("timeout").and_then(Value::as_u64);
    let held = timeout.unwrap_or(HELD).min(HELD);
    let headers = [("prefer", format!("wait={held}"))];
    let path = format!("/v1/hosts/{host}/{}", order.route);
    let call = Call {
        headers: if order.waits { &headers } else { &[] },
        body: Some(order.of_one().to_string().into()),
        timeout: Some(ANSWER_TIMEOUT + Duration::from_secs(held)),
        ..Call::new(Method::POST, &path)
    };
    let answer = answered(client, call).await;
    if order.dry_run {
        return answer;
    }
    let answer = answer.map_err(perhaps_heard)?;
    if order.waits { until_done(client, answer, None, &|_| {}).await.map_err(lost_sight) } else { Ok(answer) }
}

async fn answered(client: &Client, call: Call<'_>) -> Result<Value, Failure> {
    read(client.ask(call).await?).await
}

/// No answer to an order: it may have been taken on.
fn perhaps_heard(failure: Failure) -> Failure {
    match failure {
        Failure::NoAnswer(text) => Failure::TimedOut(format!("{text}; it may have been ordered all the same")),
        failure => failure,
    }
}

/// Accepted, but then not to be followed: what became of it is not known.
fn lost_sight(failure: Failure) -> Failure {
    match failure {
        failure @ Failure::TimedOut(_) => failure,
        failure => Failure::TimedOut(format!("ordered, but its end was not seen: {}", failure.line())),
    }
}

async fn many(client: &Client, order: &Order, hosts: &[HostId]) -> Result<Vec<Outcome>, Failure> {
    let call = Call { body: Some(order.of_many(hosts).to_string().into()), ..Call::new(Method::POST, "/v1/operations") };
    let answer = answered(client, call).await;
    if order.dry_run {
        let plans = answer?["hosts"].as_array().cloned().unwrap_or_default();
        return Ok(plans.into_iter().map(planned).collect());
    }
    let accepted = match answer.map_err(perhaps_heard) {
        Ok(answer) => answer,
        Err(failure @ Failure::TimedOut(_)) => return Ok(all_unknown(hosts, &failure)),
        Err(failure) => return Err(failure),
    };
    if !order.waits {
        return ends(&accepted);
    }
    let progress = Progress::new(hosts.len());
    let seen = |operation: &Value| progress.show(counts(operation));
    seen(&accepted);
    match until_done(client, accepted, None, &seen).await.map_err(lost_sight) {
        Ok(operation) => ends(&operation),
        Err(failure) => Ok(all_unknown(hosts, &failure)),
    }
}

fn all_unknown(hosts: &[HostId], failure: &Failure) -> Vec<Outcome> {
    hosts.iter().map(|host| Outcome::of(host, "unknown", failure)).collect()
}

/// How many hosts ended well, and how many otherwise.
fn counts(operation: &Value) -> (u64, u64) {
    let counts = typed::<OperationCounts>(operation["counts"].clone()).unwrap_or_default();
    let good: u64 = ["changed", "unchanged", "read"].iter().filter_map(|result| counts.results.get(*result)).sum();
    (good, counts.done.saturating_sub(good))
}

/// The hosts' parts of an operation, each with the operation's id.
fn ends(answer: &Value) -> Result<Vec<Outcome>, Failure> {
    let operation: Operation = typed(answer.clone())?;
    let parts = answer["hosts"].as_array().cloned().unwrap_or_default();
    let mut ends: Vec<Outcome> = parts.into_iter().zip(&operation.hosts).map(|(row, part)| end(row, part, &operation)).collect();
    let name = |outcome: &Outcome| outcome.row["host"].as_str().unwrap_or_default().to_owned();
    ends.sort_by(|left, right| natural_order(&name(left), &name(right)));
    Ok(ends)
}

fn end(mut row: Value, part: &OperationHost, operation: &Operation) -> Outcome {
    row["operation"] = json!(operation.id);
    if row["result"].is_null() && !row["state"].is_null() {
        row["result"] = row["state"].clone();
    }
    if let Some(password) = &operation.generated_password {
        row["generated_password"] = json!(password);
    }
    let code = if part.result.is_some() { result_code(part) } else { 0 };
    Outcome { row, code: if operation.done && part.result.is_none() { UNKNOWN } else { code } }
}

/// Ids of what was accepted, one a line, and the rest on stderr.
fn show_ids(rows: &[Value]) -> Result<(), Failure> {
    let mut shown = BTreeSet::new();
    for row in rows {
        match row["operation"].as_str() {
            Some(id) if shown.insert(id) => print(&format!("{}\n", plain(id)))?,
            Some(_) => {}
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
        Order::new("off", "power", json!({}))
    }

    fn hosts(names: &str) -> Vec<HostId> {
        names.split(' ').map(|name| name.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn an_order_that_may_have_been_heard_is_unknown_and_one_that_was_not_failed() {
        let answers = || vec![None, Some((502, "a proxy's own page".into()))];
        let client = crate::testing::client(answers()).await;
        for (result, code) in [("unknown", 5), ("unknown", 5), ("failed", 7)] {
            let outcome = one(&client, &order(), &hosts("h1")[0]).await;
            assert_eq!((outcome.row["result"].as_str(), outcome.code), (Some(result), code), "{}", outcome.row);
        }
        let client = crate::testing::client(answers()).await;
        for _ in 0..2 {
            let outcomes = carried_out(&client, &hosts("h1 h2"), &order()).await.unwrap();
            let unknown = |outcome: &Outcome| (outcome.row["result"].as_str(), outcome.code) == (Some("unknown"), 5);
            assert!(outcomes.len() == 2 && outcomes.iter().all(unknown));
        }
        let failure = carried_out(&client, &hosts("h1 h2"), &order()).await.err().unwrap();
        assert_eq!(failure.exit_code(), 7, "nothing was asked");
    }

    #[test]
    fn bodies_say_what_is_given() {
        let order = Order { stagger: Some(2), ..Order::new("identify", "identify", json!({"seconds": 5})) };
        assert_eq!(order.of_one(), json!({"seconds": 5}));
        let many = json!({"operation": "identify", "seconds": 5, "hosts": ["h1", "h2"], "stagger": 2, "dry_run": false});
        assert_eq!(order.of_many(&hosts("h1 h2")), many);
        let power = Order { dry_run: true, ..Order::new("off", "power", json!({"reason": "x"})) };
        assert_eq!(power.of_one(), json!({"operation": "off", "reason": "x", "dry_run": true}));
    }

    const ID: &str = "0190b7a0-0000-7000-8000-000000000000";

    fn answer(done: bool, parts: Value) -> Value {
        json!({"id": ID, "operation": "off", "principal": "ann", "accepted_at": "2026-01-01T00:00:00Z",
            "deadline": "2026-01-01T00:01:00Z", "done": done, "hosts": parts,
            "counts": {"total": 5, "accepted": 0, "sent": 1, "admitted": 0, "done": 4,
                "results": {"changed": 1, "unchanged": 1, "refused": 1, "failed": 1}}})
    }

    #[test]
    fn operations_become_rows() {
        for (part, done, result, code) in [
            (json!({"host": "h1", "state": "done", "result": "changed"}), true, "changed", 0),
            (json!({"host": "h1", "state": "done", "result": "refused", "refusal": "busy"}), true, "refused", 6),
            (json!({"host": "h1", "state": "done", "result": "unknown"}), true, "unknown", 5),
            (json!({"host": "h1", "state": "done", "result": "failed"}), true, "failed", 3),
            (json!({"host": "h1", "state": "done", "result": "refused", "refusal": "busy"}), false, "refused", 6),
            (json!({"host": "h1", "state": "sent"}), false, "sent", 0),
        ] {
            let outcomes = ends(&answer(done, json!([part]))).unwrap();
            assert_eq!((outcomes[0].row["result"].as_str(), outcomes[0].code), (Some(result), code));
            assert_eq!(outcomes[0].row["operation"], ID);
        }
        assert_eq!(counts(&answer(false, json!([]))), (2, 2));
    }

    #[test]
    fn results_in_every_form() {
        let parts = json!([
            {"host": "h10", "state": "done", "result": "refused", "refusal": "host-disabled"},
            {"host": "h2", "state": "done", "result": "read", "power": "off"},
            {"host": "h1", "state": "done", "result": "failed", "detail": "no answer"},
        ]);
        let rows: Vec<Value> = ends(&answer(true, parts)).unwrap().into_iter().map(|outcome| outcome.row).collect();
        let table = "\
HOST  RESULT   OPERATION                             DETAIL
h1    failed   0190b7a0-0000-7000-8000-000000000000  no answer
h2    ■ off    0190b7a0-0000-7000-8000-000000000000  -
h10   refused  0190b7a0-0000-7000-8000-000000000000  host-disabled
";
        let csv = "\
host,result,operation,detail
h1,failed,0190b7a0-0000-7000-8000-000000000000,no answer
h2,off,0190b7a0-0000-7000-8000-000000000000,
h10,refused,0190b7a0-0000-7000-8000-000000000000,host-disabled
";
        for (format, terminal, wanted) in
            [(Format::Table, true, table), (Format::Csv, false, csv), (Format::Folded, false, "h[1-2,10]\n")]
        {
            assert_eq!(shown_by(&at(format, terminal), &rows, RESULTS, "host", false), wanted);
        }
    }
}
