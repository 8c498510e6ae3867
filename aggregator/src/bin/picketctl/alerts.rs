//! What is wrong: seen, taken note of, and silenced for a while.

use picket_common::alert::AlertState;
use picket_common::api::{Alert, Receiver, ReceiverTest, Silence};
use reqwest::Method;
use serde_json::{Value, json};

use crate::Ended;
use crate::cli::{AlertCommand, AlertFilter, Alerts, SilenceCommand};
use crate::client::{Client, escaped};
use crate::failure::{Failure, over_all};
use crate::output::{Column, Output, age, column, maybe, maybe_age, plain, shaped, wide};
use crate::places::{removed, without_null};
use crate::sight::seconds;

const ALERTS: &[Column<Alert>] = &[
    column("ALERT", |a, _| a.kind.into()),
    column("STATE", |a, _| shaped(if a.state == AlertState::Firing { '▲' } else { '–' }, &a.state.to_string())),
    column("SEVERITY", |a, _| a.severity.into()),
    column("HOST", |a, _| maybe(a.host.as_ref())),
    column("ZONE", |a, _| (&a.zone).into()),
    column("CLUSTER", |a, _| maybe(a.cluster.as_ref())),
    column("FOR", |a, look| age(a.starts_at, look)),
    column("SUMMARY", |a, _| (&a.summary).into()),
    wide("ID", |a, _| (&a.id).into()),
    wide("AGENT", |a, _| maybe(a.agent.as_ref())),
    wide("RACK", |a, _| maybe(a.rack.as_ref())),
    wide("COUNT", |a, _| a.count.into()),
    wide("ACKED-BY", |a, _| maybe(a.acked_by.as_ref())),
    wide("SILENCED-BY", |a, _| several(&a.silenced_by)),
    wide("INHIBITED-BY", |a, _| several(&a.inhibited_by)),
];

const RECEIVERS: &[Column<Receiver>] = &[
    column("RECEIVER", |r, _| r.name.as_str().into()),
    column("TYPE", |r, _| (&r.kind).into()),
    column("TARGET", |r, _| (&r.target).into()),
    column("DELIVERED", |r, _| r.delivered.into()),
    column("FAILED", |r, _| r.failed.into()),
    column("GIVEN-UP", |r, _| r.given_up.into()),
    column("LAST", |r, look| maybe_age(r.last_delivered_at, look)),
    column("ERROR", |r, _| maybe(r.last_error.as_ref())),
    wide("SEVERITY", |r, _| r.severity.into()),
    wide("KINDS", |r, _| several(&r.kinds)),
    wide("ZONES", |r, _| several(&r.zones)),
    wide("CLUSTERS", |r, _| several(&r.clusters)),
    wide("ENGINE-ID", |r, _| maybe(r.engine_id.as_ref())),
];

const TESTS: &[Column<ReceiverTest>] = &[
    column("RECEIVER", |t, _| t.receiver.as_str().into()),
    column("DELIVERED", |t, _| if t.delivered { "yes" } else { "no" }.into()),
    column("ERROR", |t, _| maybe(t.error.as_ref())),
];

fn several(ids: &[impl ToString]) -> crate::output::Shown {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    maybe(Some(ids.join(" ")).filter(|ids| !ids.is_empty()))
}

/// `alerts …`.
pub async fn alerts(client: &Client, out: &Output, command: Alerts) -> Ended {
    match command.command {
        None => list(client, out, command.filter).await,
        Some(AlertCommand::List(filter)) => list(client, out, filter).await,
        Some(AlertCommand::Show { id }) => {
            out.one(&client.one(&path(&id)).await?, ALERTS, "id")?;
            Ok(0)
        }
        Some(AlertCommand::Ack { ids, comment }) => {
            let body = without_null(json!({ "comment": comment }));
            let (done, code) = each(client, &ids, "ack", &body).await;
            out.list(&done, ALERTS, "id")?;
            Ok(code)
        }
        Some(AlertCommand::Silence { ids, duration, comment }) => {
            let body = without_null(json!({ "duration": duration, "comment": comment }));
            let (done, code) = each(client, &ids, "silence", &body).await;
            out.list(&done, SILENCES, "id")?;
            Ok(code)
        }
        Some(AlertCommand::Receivers) => {
            out.list(&client.all("/v1/receivers", &[], usize::MAX).await?, RECEIVERS, "name")?;
            Ok(0)
        }
        Some(AlertCommand::Test { receiver }) => {
            let answer = client.json(Method::POST, &format!("/v1/receivers/{receiver}/test"), None).await?;
            out.one(&answer, TESTS, "receiver")?;
            Ok(u8::from(answer["delivered"] != true))
        }
    }
}

fn path(id: &str) -> String {
    format!("/v1/alerts/{}", escaped(id))
}

async fn list(client: &Client, out: &Output, filter: AlertFilter) -> Ended {
    let query = [
        ("state", (!filter.all).then(|| "firing".to_owned())),
        ("kind", filter.kind.map(|kind| kind.to_string())),
        ("severity", filter.severity),
        ("host", filter.host.map(|id| id.to_string())),
        ("cluster", filter.cluster.map(|id| id.to_string())),
        ("zone", filter.zone.map(|id| id.to_string())),
    ];
    out.list(&client.all("/v1/alerts", &query, usize::MAX).await?, ALERTS, "id")?;
    Ok(0)
}

/// Does the same to each alert; what fails is told on stderr.
async fn each(client: &Client, ids: &[String], verb: &str, body: &Value) -> (Vec<Value>, u8) {
    let (mut done, mut codes) = (Vec::new(), Vec::new());
    for id in ids {
        let answer = client.json(Method::POST, &format!("{}/{verb}", path(id)), Some(body)).await;
        codes.push(answer.as_ref().map_or_else(Failure::exit_code, |_| 0));
        match answer {
            Ok(answer) => done.push(answer),
            Err(failure) => eprintln!("{}: {failure}", plain(id)),
        }
    }
    (done, over_all(&codes))
}

const SILENCES: &[Column<Silence>] = &[
    column("SILENCE", |s, _| (&s.id).into()),
    column("STATE", |s, _| (&s.state).into()),
    column("COVERS", |s, _| s.matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ").into()),
    column("FROM", |s, _| seconds(s.starts_at).into()),
    column("UNTIL", |s, _| seconds(s.ends_at).into()),
    column("BY", |s, _| (&s.created_by).into()),
    column("COMMENT", |s, _| maybe(s.comment.as_ref())),
];

/// `silences …`.
pub async fn silences(client: &Client, out: &Output, command: SilenceCommand) -> Ended {
    match command {
        SilenceCommand::List { all } => {
            let mut found = client.all("/v1/silences", &[], usize::MAX).await?;
            found.retain(|silence| all || silence["state"] != "expired");
            out.list(&found, SILENCES, "id")?;
        }
        SilenceCommand::Add { matchers, duration, comment } => {
            let body = without_null(json!({ "matchers": matchers, "duration": duration, "comment": comment }));
            out.one(&client.json(Method::POST, "/v1/silences", Some(&body)).await?, SILENCES, "id")?;
        }
        SilenceCommand::Rm { id } => removed(client, &format!("/v1/silences/{}", escaped(&id))).await?,
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown};

    #[test]
    fn tables_are_as_they_were() {
        let alerts = [
            json!({"id": "bmc-lost.h1", "kind": "bmc-lost", "severity": "warning", "state": "firing", "host": "h1", "zone": "z1",
                "cluster": "c1", "starts_at": "2026-01-01T00:00:00Z", "summary": "the BMC does not answer"}),
            json!({"id": "agent-lost.a1", "kind": "agent-lost", "severity": "critical", "state": "resolved", "agent": "a1", "zone": "z1",
                "starts_at": "2026-01-01T00:00:00Z", "summary": "agent a1 is not heard", "silenced_by": ["maintenance"]}),
        ];
        let wanted = "\
ALERT       STATE       SEVERITY  HOST  ZONE  CLUSTER  FOR  SUMMARY
bmc-lost    ▲ firing    warning   h1    z1    c1       30m  the BMC does not answer
agent-lost  – resolved  critical  -     z1    -        30m  agent a1 is not heard
";
        assert_eq!(shown(&at(Format::Table, true), &alerts, ALERTS, false), wanted);
        let csv = shown(&at(Format::Csv, true), &alerts[1..], ALERTS, false);
        assert!(
            csv.ends_with(
                "\nagent-lost,resolved,critical,,z1,,2026-01-01T00:00:00Z,agent a1 is not heard,agent-lost.a1,a1,,1,,maintenance,\n"
            ),
            "{csv}"
        );
        let silences = [json!({"id": "s1", "matchers": ["host=r07n*", "kind!=agent-lost"], "starts_at": "2026-01-01T00:00:00Z",
            "ends_at": "2026-01-01T01:00:00Z", "created_by": "ann", "created_at": "2026-01-01T00:00:00Z", "state": "active"})];
        let wanted = "\
SILENCE  STATE   COVERS                       FROM                  UNTIL                 BY   COMMENT
s1       active  host=r07n* kind!=agent-lost  2026-01-01T00:00:00Z  2026-01-01T01:00:00Z  ann  -
";
        assert_eq!(shown(&at(Format::Table, true), &silences, SILENCES, false), wanted);
    }
}
