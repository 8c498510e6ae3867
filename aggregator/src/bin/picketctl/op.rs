//! Operations: looked at, waited for, taken back.

use std::time::Duration;

use picket_common::api::{Operation, OperationHost};
use picket_common::hostset::fold;
use picket_common::id::OperationId;
use reqwest::Method;

use crate::Ended;
use crate::cli::OpCommand;
use crate::client::operation::{result_code, until_done};
use crate::client::{Client, typed};
use crate::failure::over_all;
use crate::output::{Column, Output, age, column, maybe};

const OPERATIONS: &[Column<Operation>] = &[
    column("OPERATION", |o, _| o.id.into()),
    column("WHAT", |o, _| o.action.to_string().into()),
    column("HOSTS", |o, _| hosts(o).into()),
    column("RESULT", |o, _| results(o).into()),
    column("AGE", |o, look| age(o.accepted_at, look)),
    column("BY", |o, _| (&o.principal).into()),
    column("REASON", |o, _| maybe(o.reason.as_ref())),
    column("DETAIL", |o, _| maybe(o.hosts.iter().find_map(|host| host.detail.as_ref()))),
];

fn state(host: &OperationHost) -> String {
    serde_json::to_value(host.state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The hosts' names as a set; of a list's operation with many, their number.
fn hosts(operation: &Operation) -> String {
    let total = operation.counts.total;
    let shown = operation.hosts.len();
    if u64::try_from(shown).is_ok_and(|shown| shown < total) {
        return format!("{total} hosts");
    }
    fold(&operation.hosts.iter().map(|host| host.host.clone()).collect())
}

/// `changed`, or `46 changed, 2 failed` of many; how far it is while it is not done.
fn results(operation: &Operation) -> String {
    if let [host] = operation.hosts.as_slice() {
        return host.result.clone().unwrap_or_else(|| state(host));
    }
    let counts = &operation.counts;
    let pending = [("pending", counts.total.saturating_sub(counts.done))].into_iter().filter(|(_, count)| *count > 0);
    let ended = counts.results.iter().map(|(result, count)| (result.as_str(), *count));
    ended.chain(pending).map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

/// `op …`.
pub async fn op(client: &Client, out: &Output, command: OpCommand) -> Ended {
    let path = |id: OperationId| format!("/v1/operations/{id}");
    let shown = match command {
        OpCommand::List => {
            out.list(&client.all("/v1/operations", &[], 100).await?, OPERATIONS, "id")?;
            return Ok(0);
        }
        OpCommand::Show { id } => {
            out.one(&client.one(&path(id)).await?, OPERATIONS, "id")?;
            return Ok(0);
        }
        OpCommand::Cancel { id } => client.json(Method::DELETE, &path(id), None).await?,
        OpCommand::Wait { id, timeout } => {
            let first = client.one(&path(id)).await?;
            until_done(client, first, timeout.map(Duration::from_secs), &|_| {}).await?
        }
    };
    out.one(&shown, OPERATIONS, "id")?;
    let operation: Operation = typed(shown)?;
    Ok(if operation.done { exit_code(&operation) } else { 0 })
}

/// The exit code that says how an operation ended.
pub fn exit_code(operation: &Operation) -> u8 {
    let codes: Vec<u8> = operation.hosts.iter().map(result_code).collect();
    over_all(&codes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::failure::{Failure, UNKNOWN};
    use crate::output::tests::{at, shown};
    use serde_json::Value;

    #[test]
    fn tables_are_as_they_were() {
        let part = |host: &str| serde_json::json!({"host": host, "state": "done", "result": "changed"});
        let of = |parts: &[Value], total: u64, results: Value| {
            serde_json::json!({"id": "0190b7a0-0000-7000-8000-000000000000", "operation": "identify", "seconds": 15, "principal": "ann",
                "accepted_at": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T00:01:00Z", "done": false, "hosts": parts,
                "counts": {"total": total, "accepted": 0, "sent": 0, "admitted": 0, "done": 46, "results": results}})
        };
        let operations = [
            of(&[part("h1")], 1, serde_json::json!({"changed": 1})),
            of(&[part("h1"), part("h2")], 48, serde_json::json!({"changed": 44, "failed": 2})),
            of(&[part("h1"), part("h2")], 2, serde_json::json!({"changed": 2})),
        ];
        let wanted = "\
OPERATION                             WHAT      HOSTS     RESULT                         AGE  BY   REASON  DETAIL
0190b7a0-0000-7000-8000-000000000000  identify  h1        changed                        30m  ann  -       -
0190b7a0-0000-7000-8000-000000000000  identify  48 hosts  44 changed, 2 failed, 2 pending  30m  ann  -       -
0190b7a0-0000-7000-8000-000000000000  identify  h[1-2]    2 changed                      30m  ann  -       -
";
        let squeezed = |text: &str| text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let shown = shown(&at(Format::Table, false), &operations, OPERATIONS, false);
        assert_eq!(squeezed(&shown), squeezed(wanted));
    }

    fn operation(done: bool) -> Value {
        let deadline = picket_aggregator::clock::now().after(Duration::from_secs(60)).wall;
        serde_json::json!({"id": "0190b7a0-0000-7000-8000-000000000000", "operation": "off", "principal": "ann",
            "accepted_at": "2026-01-01T00:00:00Z", "deadline": deadline, "done": done,
            "hosts": [{"host": "h1", "state": "sent"}]})
    }

    #[tokio::test]
    async fn waiting_outlasts_an_aggregator_that_starts_anew() {
        let broken = r#"{"type": "/problems/store-unavailable", "title": "T", "status": 503, "detail": "d",
            "code": "store-unavailable", "request_id": "r", "retryable": true}"#;
        let done = || Some((200, operation(true).to_string()));
        let answers = [None, Some((503, broken.to_owned())), Some((200, operation(false).to_string())), done(), None, done()];
        let client = crate::testing::client(answers.to_vec()).await;
        let looks = std::cell::Cell::new(0);
        let seen = |_: &Value| looks.set(looks.get() + 1);
        assert_eq!(until_done(&client, operation(false), None, &seen).await.unwrap()["done"], true);
        assert_eq!(looks.get(), 2);
        // Nobody is there any more: that ends with the patience, and is not a failure of the operation.
        let gone = until_done(&client, operation(false), Some(Duration::from_secs(1)), &|_| {}).await.unwrap_err();
        assert!(matches!(&gone, Failure::TimedOut(_)) && gone.exit_code() == UNKNOWN, "{gone}");
    }
}
