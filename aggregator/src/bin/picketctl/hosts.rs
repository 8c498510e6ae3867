//! Hosts and their BMCs' settings. A password is read, sent and forgotten.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use picket_common::api::Host;
use picket_common::id::HostId;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Ended;
use crate::cli::{HostCommand, HostFilter, HostSettings};
use crate::client::{Call, Client};
use crate::failure::{Failure, NONE_SUCCEEDED, SOME_FAILED};
use crate::hostset;
use crate::output::{Column, Output, age, column, maybe, power, print, wide, yes_no};
use crate::places::{removed, without_null};
use crate::secret_input;

const HOSTS: &[Column<Host>] = &[
    column("HOST", |h, _| (&h.id).into()),
    column("POWER", |h, _| power(h.power, h.stale)),
    column("SINCE", |h, look| age(h.power_since, look)),
    column("MANAGEMENT", |h, _| maybe(h.management)),
    column("ZONE", |h, _| (&h.zone).into()),
    column("CLUSTER", |h, _| (&h.cluster).into()),
    column("RACK", |h, _| (&h.rack).into()),
    wide("AGENT", |h, _| maybe(h.agent.as_ref())),
    wide("DRIVER", |h, _| maybe(h.bmc.as_ref().map(|bmc| &bmc.driver))),
    wide("ADDRESS", |h, _| maybe(h.bmc.as_ref().map(|bmc| with_port(&bmc.address, bmc.port)))),
    wide("USER", |h, _| maybe(h.bmc.as_ref().map(|bmc| &bmc.username))),
    wide("PASSWORD", |h, _| yes_no(h.bmc.as_ref().is_some_and(|bmc| bmc.password_set))),
    wide("OOBM", |h, _| yes_no(h.oobm_enabled)),
    wide("REFUSAL", |h, _| maybe(h.refusal.as_ref())),
    wide("MAINTENANCE", |h, _| yes_no(h.maintenance)),
    wide("ERROR", |h, _| maybe(h.error.as_ref())),
];

fn with_port(address: &str, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_owned(), |port| format!("{address}:{port}"))
}

/// `hosts …`.
pub async fn hosts(client: &Client, out: &Output, command: HostCommand) -> Ended {
    match command {
        HostCommand::Add { id, cluster, rack, settings } => {
            let mut body = changes(&settings, prompted(&settings)?)?;
            body.insert("cluster".into(), json!(cluster));
            body.insert("rack".into(), json!(rack));
            add(client, out, &id, body).await?;
        }
        HostCommand::List(filter) => out.list(&list(client, filter).await?, HOSTS, "id")?,
        HostCommand::Show { id } => out.one(&client.one(&format!("/v1/hosts/{id}")).await?, HOSTS, "id")?,
        HostCommand::Set { id, cluster, rack, settings } => {
            let mut body = changes(&settings, None)?;
            body.extend(cluster.map(|cluster| ("cluster".to_owned(), json!(cluster))));
            body.extend(rack.map(|rack| ("rack".to_owned(), json!(rack))));
            if body.is_empty() {
                return Err(Failure::Usage("nothing to set; see `picketctl hosts set --help`".into()));
            }
            let changed = client.json(Method::PATCH, &format!("/v1/hosts/{id}"), Some(&Value::Object(body))).await?;
            out.one(&changed, HOSTS, "id")?;
        }
        HostCommand::Rm { id } => removed(client, &format!("/v1/hosts/{id}")).await?,
        HostCommand::Import { file } => return import(client, out, &file).await,
        HostCommand::Expand { hosts } => {
            let names = named(&hosts)?;
            print(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
        }
    }
    Ok(0)
}

/// Makes a host that is not there yet: replacing one by a slip of the finger would forget its settings.
async fn add(client: &Client, out: &Output, id: &HostId, body: Map<String, Value>) -> Result<(), Failure> {
    let path = format!("/v1/hosts/{id}");
    match client.one(&path).await {
        Ok(_) => return Err(Failure::Usage(format!("host {id} is there already; change it with `picketctl hosts set {id}`"))),
        Err(Failure::Problem(problem)) if problem.status == 404 => {}
        Err(failure) => return Err(failure),
    }
    out.one(&client.json(Method::PUT, &path, Some(&Value::Object(body))).await?, HOSTS, "id")
}

async fn list(client: &Client, filter: HostFilter) -> Result<Vec<Value>, Failure> {
    let query = [
        ("zone", filter.zone.map(|id| id.to_string())),
        ("cluster", filter.cluster.map(|id| id.to_string())),
        ("rack", filter.rack.map(|id| id.to_string())),
        ("state", filter.state),
    ];
    client.all("/v1/hosts", &query, usize::MAX).await
}

/// The hosts that words of the command line name.
pub fn named(words: &[String]) -> Result<Vec<HostId>, Failure> {
    let stdin = || {
        let mut text = String::new();
        std::io::stdin().lock().take(16 << 20).read_to_string(&mut text).map_err(|error| format!("stdin: {error}"))?;
        Ok(text)
    };
    hostset::expand(words, stdin).map_err(Failure::Usage)
}

type Password = picket_common::secret::Secret<String>;

/// The password of a new host whose user is named and who gave no other source.
fn prompted(settings: &HostSettings) -> Result<Option<Password>, Failure> {
    match &settings.username {
        Some(username) if settings.password_file.is_none() && !settings.password_stdin => {
            secret_input::from_prompt(&format!("BMC password of {username} (empty = none): "))
        }
        _ => Ok(None),
    }
}

/// The body's fields for what is given.
fn changes(settings: &HostSettings, prompted: Option<Password>) -> Result<Map<String, Value>, Failure> {
    let password = match &settings.password_file {
        Some(path) => Some(secret_input::from_file(path)?),
        None if settings.password_stdin => Some(secret_input::from_stdin()?),
        None => prompted,
    };
    let map = |pairs: &[(String, String)]| {
        (!pairs.is_empty()).then(|| pairs.iter().cloned().collect::<std::collections::BTreeMap<_, _>>())
    };
    let bmc = without_null(json!({
        "driver": settings.driver,
        "address": settings.address,
        "port": settings.port,
        "username": settings.username,
        "password": password.as_ref().map(|password| password.expose()),
        "options": map(&settings.options),
    }));
    let bmc = bmc.as_object().is_some_and(|bmc| !bmc.is_empty()).then_some(bmc);
    let body = without_null(json!({
        "bmc": bmc,
        "maintenance": settings.maintenance,
        "poll_interval": settings.poll_interval,
        "labels": map(&settings.labels),
    }));
    let Value::Object(body) = body else { return Ok(Map::new()) };
    Ok(body)
}

/// A line's result, as the API says it.
#[derive(Deserialize)]
struct Line {
    line: u64,
    id: Option<String>,
    result: String,
    problem: Option<picket_common::api::Problem>,
}

const LINES: &[Column<Line>] = &[
    column("LINE", |l, _| l.line.into()),
    column("HOST", |l, _| maybe(l.id.as_ref())),
    column("RESULT", |l, _| (&l.result).into()),
    column("DETAIL", |l, _| maybe(l.problem.as_ref().map(|problem| format!("{} ({})", problem.detail, problem.code)))),
];

/// An import may take its time: every line is made durable.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(600);

async fn import(client: &Client, out: &Output, file: &Path) -> Ended {
    let text = if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
    let body = ndjson(text)?;
    let call = Call { body: Some(body), timeout: Some(IMPORT_TIMEOUT), ..Call::new(Method::POST, "/v1/import/hosts") };
    let answer = client.ask(call).await?.text().await.map_err(|error| Failure::Unreachable(error.to_string()))?;
    let results: Vec<Value> = answer
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::Unreachable(format!("its answer is not understood ({error})")))?;
    let count = |word: &str| results.iter().filter(|result| result["result"] == word).count();
    let (created, changed, refused) = (count("created"), count("changed"), count("refused"));
    if out.is_table() {
        let refused: Vec<_> = results.iter().filter(|result| result["result"] == "refused").cloned().collect();
        if !refused.is_empty() {
            out.list(&refused, LINES, "id")?;
        }
    } else {
        out.list(&results, LINES, "id")?;
    }
    eprintln!("{created} created, {changed} changed, {refused} refused");
    Ok(match (created + changed, refused) {
        (_, 0) => 0,
        (0, _) => NONE_SUCCEEDED,
        _ => SOME_FAILED,
    })
}

/// A JSON array becomes NDJSON; NDJSON stays as it is.
fn ndjson(text: String) -> Result<String, Failure> {
    if !text.trim_start().starts_with('[') {
        return Ok(text);
    }
    let items: Vec<Value> =
        serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("not a JSON array of hosts: line {}", error.line())))?;
    Ok(items.iter().map(|item| format!("{item}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown};

    fn fleet() -> Vec<Value> {
        let host = |id: &str, power: &str, stale: bool| {
            json!({"id": id, "zone": "z1", "cluster": "c1", "rack": "r07", "agent": "r07", "power": power,
                "power_since": "2026-01-01T00:00:00Z", "management": "reachable", "management_since": null, "fresh_at": null,
                "stale": stale, "oobm_enabled": power != "disabled", "maintenance": false, "poll_interval": 10, "action_timeout": 60,
                "labels": {}, "later": 1,
                "bmc": {"driver": "ipmi", "address": "10.0.0.1", "port": 6230, "username": "admin", "password_set": true, "options": {}}})
        };
        vec![
            host("r07n01", "on", false),
            host("r07n02", "off", true),
            host("r07n03", "unknown", false),
            host("r07n04", "disabled", false),
        ]
    }

    #[test]
    fn tables_are_as_they_were() {
        let wanted = "\
HOST    POWER          SINCE  MANAGEMENT  ZONE  CLUSTER  RACK
r07n01  ● on           30m    reachable   z1    c1       r07
r07n02  ■ off (stale)  30m    reachable   z1    c1       r07
r07n03  ▲ unknown      30m    reachable   z1    c1       r07
r07n04  – disabled     30m    reachable   z1    c1       r07
";
        assert_eq!(shown(&at(Format::Table, false), &fleet(), HOSTS, false), wanted);
        let one = shown(&at(Format::Table, false), &fleet()[..1], HOSTS, true);
        assert!(
            one.starts_with("HOST         r07n01\nPOWER        ● on\n") && one.contains("ADDRESS      10.0.0.1:6230\n"),
            "{one}"
        );
        assert!(shown(&at(Format::Table, true), &fleet()[..1], HOSTS, false).contains("\u{1b}["));
        assert_eq!(shown(&at(Format::Name, false), &fleet()[..2], HOSTS, false), "r07n01\nr07n02\n");
        let json: Value = serde_json::from_str(&shown(&at(Format::Json, false), &fleet(), HOSTS, false)).unwrap();
        assert_eq!(json[0]["later"], 1, "what a newer aggregator adds is passed on");
        assert_eq!(shown(&at(Format::Jsonl, false), &fleet(), HOSTS, false).lines().count(), 4);
    }

    #[test]
    fn only_what_is_given_is_sent() {
        assert!(changes(&HostSettings::default(), None).unwrap().is_empty());
        let settings = HostSettings {
            address: Some("10.0.0.1".into()),
            options: vec![("k".into(), "v".into())],
            maintenance: Some(false),
            ..HostSettings::default()
        };
        let body = Value::Object(changes(&settings, None).unwrap());
        assert_eq!(body, json!({"bmc": {"address": "10.0.0.1", "options": {"k": "v"}}, "maintenance": false}));
    }

    #[test]
    fn arrays_become_lines() {
        assert_eq!(ndjson("{}\n{}".into()).unwrap(), "{}\n{}");
        assert_eq!(ndjson(" [{\"id\":\"a\"},{\"id\":\"b\"}]".into()).unwrap(), "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
        assert!(ndjson("[{]".into()).is_err());
    }
}
