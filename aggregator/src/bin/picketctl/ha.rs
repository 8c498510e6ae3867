//! Host-HA: its gates, where hosts stand and why, its settings and pauses.

use jiff::Timestamp;
use picket_common::api::ha::{BrakesPatch, HaPatch, HaView};
use picket_common::id::HostId;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Ended;
use crate::cli::{HaCommand, HaScope};
use crate::client::{Client, escaped, typed};
use crate::confirm::confirm;
use crate::failure::{Failure, over_all};
use crate::fence::{GATES, gate_rows, word};
use crate::hosts::each;
use crate::output::{Column, Output, Shown, column, maybe, maybe_age, plain, print, wide, yes_no};
use crate::places::without_null;
use crate::power::{Gates, turn};
use crate::select::named;
use crate::sight::seconds;

/// A host and where it stands.
#[derive(Deserialize)]
struct Row {
    host: HostId,
    #[serde(flatten)]
    view: HaView,
}

/// A state of a host: colour and shape say no more than the word.
fn state(row: &Row) -> Shown {
    maybe(row.view.ha.as_ref().map(|ha| ha.state))
}

const STANDING: &[Column<Row>] = &[
    column("HOST", |r, _| (&r.host).into()),
    column("HA", |r, _| state(r)),
    column("STATUS", |r, _| r.view.host_status.into()),
    column("SINCE", |r, look| maybe_age(r.view.ha.as_ref().map(|ha| ha.since), look)),
    column("HELD BY", |r, _| maybe(r.view.ha.as_ref().and_then(|ha| ha.held).map(word_of))),
    column("WHY", |r, _| maybe(r.view.ha.as_ref().map(|ha| &ha.why).or(r.view.closed.as_ref()))),
    wide("ATTEMPT", |r, _| maybe(r.view.ha.as_ref().and_then(|ha| ha.attempt))),
    wide("QUARANTINED", |r, _| yes_no(r.view.ha.as_ref().is_some_and(|ha| ha.quarantined))),
    wide("ACKED", |r, _| yes_no(r.view.acked)),
    wide("CLOSED", |r, _| maybe(r.view.closed.as_ref())),
];

/// A word of the API, as in JSON.
fn word_of(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `ha …`.
pub async fn ha(client: &Client, out: &Output, command: HaCommand) -> Ended {
    match command {
        HaCommand::Enable(gate) => turn(client, out, Gates::Ha, &gate, true).await,
        HaCommand::Disable(gate) => turn(client, out, Gates::Ha, &gate, false).await,
        HaCommand::Show { hosts } => show(client, out, &hosts).await,
        HaCommand::Explain { hosts } => explain(client, out, &hosts).await,
        HaCommand::Set { scope, id, values, yes } => {
            let body = set(scope, &values)?;
            changed(client, scope, &id, &body, yes).await
        }
        HaCommand::Unset { scope, id, names, yes } => {
            let body = unset(scope, &names)?;
            changed(client, scope, &id, &body, yes).await
        }
        HaCommand::Pause { scope, id, duration, reason, yes } => {
            let body = without_null(json!({ "minutes": duration.div_ceil(60), "reason": reason }));
            pause(client, out, scope, &id, Some(&body), yes).await
        }
        HaCommand::Unpause { scope, id, yes } => pause(client, out, scope, &id, None, yes).await,
        HaCommand::ResetCounters(said) => {
            word(client, out, "ha/reset-counters", Some("Reset the counters of"), &said, json!({})).await
        }
        HaCommand::EndCliff(said) => word(client, out, "ha/end-cliff", Some("Go on in the racks of"), &said, json!({})).await,
    }
}

/// Where the hosts stand, each with its name; and an exit code for each.
async fn views(client: &Client, words: &[String]) -> Result<(Vec<Value>, Vec<u8>), Failure> {
    let hosts = named(client, words).await?;
    let asked = |host| async move {
        let mut view = client.one(&format!("/v1/hosts/{host}/ha")).await?;
        view["host"] = json!(host);
        Ok(view)
    };
    Ok(each(&hosts, asked).await)
}

async fn show(client: &Client, out: &Output, words: &[String]) -> Ended {
    let (rows, codes) = views(client, words).await?;
    if !rows.is_empty() {
        out.list(&rows, STANDING, "host")?;
    }
    Ok(over_all(&codes))
}

async fn explain(client: &Client, out: &Output, words: &[String]) -> Ended {
    let (rows, codes) = views(client, words).await?;
    if !out.is_table() {
        out.list(&rows, STANDING, "host")?;
        return Ok(over_all(&codes));
    }
    for (index, row) in rows.iter().enumerate() {
        let row: Row = typed(row.clone())?;
        let blank = if index > 0 { "\n" } else { "" };
        print(&format!("{blank}{}", explained(&row)))?;
        if let Some(judged) = &row.view.judged {
            print(&format!(
                "\nGates, asked at {} about {} (attempt {}):\n",
                seconds(judged.at),
                plain(&judged.act),
                judged.attempt
            ))?;
            out.list(&gate_rows(&row.host, judged), GATES, "gate")?;
        }
    }
    Ok(over_all(&codes))
}

/// Why a host stands where it does, for people.
fn explained(row: &Row) -> String {
    let Row { host, view } = row;
    let standing = match &view.ha {
        Some(ha) => format!("{} since {}", ha.state, seconds(ha.since)),
        None => "its agent has said nothing yet".to_owned(),
    };
    let mut lines = vec![format!("{host}: {standing}; host status {}", view.host_status)];
    lines.extend(view.ha.iter().map(|ha| format!("  why: {}", ha.why)));
    lines.extend(view.explain.iter().map(|line| format!("  {line}")));
    lines.extend(view.closed.iter().map(|gate| format!("  the gate of its {gate} is closed")));
    lines.extend(view.ha.iter().filter(|ha| ha.quarantined).map(|_| "  quarantined: place nothing new there".to_owned()));
    lines.extend(view.acked.then(|| "  known to be broken: not counted in a storm".to_owned()));
    lines.extend(view.error.iter().map(|error| format!("  BMC: {error}")));
    lines.extend(view.would_end.iter().map(|line| format!("  would end it: {line}")));
    if let Some(proof) = &view.proof {
        let sent = if proof.off_sent { "an off was sent" } else { "nothing was sent" };
        lines.push(format!("  proof: attempt {}, by {}; {sent}; {}", proof.attempt, proof.by, proof.health));
        lines.extend(proof.readings.iter().map(|reading| format!("    off at {} by {}", reading.at, reading.device)));
    }
    lines.iter().map(|line| plain(line) + "\n").collect()
}

/// The resource whose settings are meant.
fn resource(scope: HaScope, id: &str) -> String {
    match scope {
        HaScope::Host => format!("/v1/hosts/{}", escaped(id)),
        HaScope::Cluster => format!("/v1/clusters/{}", escaped(id)),
    }
}

/// The ids that are meant: hosts as hosts are, asked about when they are many.
async fn ids(client: &Client, scope: HaScope, id: &str, what: &str, yes: bool) -> Result<Vec<String>, Failure> {
    if scope == HaScope::Cluster {
        return Ok(vec![id.to_owned()]);
    }
    let hosts = named(client, &[id.to_owned()]).await?;
    confirm(client, what, &hosts, yes).await?;
    Ok(hosts.iter().map(ToString::to_string).collect())
}

/// Does something about each; what fails is told on stderr. Gives the answers, and the exit code.
async fn each_of<F>(ids: &[String], ask: impl Fn(String) -> F) -> (Vec<Value>, u8)
where
    F: Future<Output = Result<Value, Failure>>,
{
    let (mut done, mut codes) = (Vec::new(), Vec::new());
    for id in ids {
        let answer = ask(id.clone()).await;
        codes.push(answer.as_ref().map_or_else(Failure::exit_code, |_| 0));
        match answer {
            Ok(value) => done.push(value),
            Err(failure) => eprintln!("{}: {failure}", plain(id)),
        }
    }
    (done, over_all(&codes))
}

async fn changed(client: &Client, scope: HaScope, id: &str, body: &Value, yes: bool) -> Ended {
    let ids = ids(client, scope, id, "Change", yes).await?;
    let patched = |id: String| async move { client.json(Method::PATCH, &resource(scope, &id), Some(body)).await };
    let (_, code) = each_of(&ids, patched).await;
    Ok(code)
}

/// A pause, as it is shown.
#[derive(Deserialize)]
struct PauseRow {
    id: String,
    owner: String,
    until: Timestamp,
    reason: Option<String>,
}

const PAUSES: &[Column<PauseRow>] = &[
    column("ID", |p, _| (&p.id).into()),
    column("UNTIL", |p, _| Shown::from(seconds(p.until)).exactly(p.until)),
    column("OWNER", |p, _| (&p.owner).into()),
    column("REASON", |p, _| maybe(p.reason.as_ref())),
];

/// Begins a pause with a body, ends it without.
async fn pause(client: &Client, out: &Output, scope: HaScope, id: &str, body: Option<&Value>, yes: bool) -> Ended {
    let what = if body.is_some() { "Pause host-HA of" } else { "End the pause of" };
    let ids = ids(client, scope, id, what, yes).await?;
    let asked = |id: String| async move {
        let path = format!("{}/pause", resource(scope, &id));
        let method = if body.is_some() { Method::POST } else { Method::DELETE };
        let mut answer = client.json(method, &path, body).await?;
        if !answer.is_null() {
            answer["id"] = json!(id);
        }
        Ok(answer)
    };
    let (done, code) = each_of(&ids, asked).await;
    let windows: Vec<Value> = done.into_iter().filter(|window| !window.is_null()).collect();
    if !windows.is_empty() {
        out.list(&windows, PAUSES, "id")?;
    }
    Ok(code)
}

/// Settings that are the cluster's brakes, and not its hosts' settings.
const BRAKES: [&str; 9] =
    ["cap", "cap_window", "storm_rack", "storm_cluster", "storm_zone", "cool_down", "cliff", "somewhere_to_go", "isolation"];

/// Settings that are lists of checks.
const LISTS: [&str; 2] = ["health", "activity"];

/// `policy=reboot` and its like as the body of a `PATCH`.
fn set(scope: HaScope, values: &[(String, String)]) -> Result<Value, Failure> {
    let mut settings: Map<String, Value> = Map::new();
    for (name, text) in values {
        let name = name.replace('-', "_");
        if LISTS.contains(&name.as_str()) {
            let more = checks(&name, text)?;
            match settings.entry(name).or_insert_with(|| json!([])) {
                Value::Array(all) => all.extend(more),
                other => *other = Value::Array(more),
            }
        } else {
            settings.insert(name, scalar(text));
        }
    }
    body(scope, settings)
}

fn unset(scope: HaScope, names: &[String]) -> Result<Value, Failure> {
    body(scope, names.iter().map(|name| (name.replace('-', "_"), Value::Null)).collect())
}

/// A number or a truth value where it is one, else the word.
fn scalar(text: &str) -> Value {
    match text {
        "yes" | "on" => json!(true),
        "no" | "off" => json!(false),
        text => {
            serde_json::from_str(text).ok().filter(|value: &Value| value.is_number() || value.is_boolean()).unwrap_or(json!(text))
        }
    }
}

/// The body, read once as the aggregator will read it: a slip is told before anything is sent.
fn body(scope: HaScope, settings: Map<String, Value>) -> Result<Value, Failure> {
    let (brakes, ha): (Map<_, _>, Map<_, _>) = settings.into_iter().partition(|(name, _)| BRAKES.contains(&name.as_str()));
    if scope == HaScope::Host && !brakes.is_empty() {
        let names = brakes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(Failure::Usage(format!("{names}: set for a cluster, not for a host")));
    }
    let usage = |error: serde_json::Error| Failure::Usage(format!("settings: {error}"));
    let mut body = json!({});
    if !ha.is_empty() {
        let ha = Value::Object(ha);
        HaPatch::deserialize(&ha).map_err(usage)?;
        body["ha"] = ha;
    }
    if !brakes.is_empty() {
        let brakes = Value::Object(brakes);
        BrakesPatch::deserialize(&brakes).map_err(usage)?;
        body["brakes"] = brakes;
    }
    Ok(body)
}

/// Checks in their short form, or as JSON.
fn checks(list: &str, text: &str) -> Result<Vec<Value>, Failure> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if text.starts_with(['[', '{']) {
        let read: Value = serde_json::from_str(text).map_err(|error| Failure::Usage(format!("{list}: not JSON: {error}")))?;
        return Ok(if let Value::Array(all) = read { all } else { vec![read] });
    }
    let wrong = || {
        let forms = if list == "health" {
            "tcp:ADDRESS:PORT, http://…, https://…, icmp:ADDRESS, witness:ADDRESS[:PORT], exec:NAME"
        } else {
            "files:/PATH,/PATH, heartbeat:/PATH, witness:/PATH,/PATH, exec:NAME"
        };
        Failure::Usage(format!("{list}: {text:?} is not a check; write {forms}, or JSON"))
    };
    let check = if list == "health" { health(text) } else { activity(text) };
    check.map(|check| vec![check]).ok_or_else(wrong)
}

fn health(text: &str) -> Option<Value> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Some(json!({ "http": { "url": text } }));
    }
    let (kind, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty())?;
    Some(match kind {
        "tcp" => {
            let (address, port) = with_port(rest)?;
            json!({ "tcp": { "address": address, "port": port? } })
        }
        "witness" => {
            let (address, port) = with_port(rest)?;
            json!({ "witness": { "address": address, "port": port } })
        }
        "icmp" => json!({ "icmp": { "address": rest.trim_start_matches('[').trim_end_matches(']') } }),
        "exec" => json!({ "exec": { "check": rest } }),
        _ => return None,
    })
}

fn activity(text: &str) -> Option<Value> {
    let (kind, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty())?;
    let paths: Vec<&str> = rest.split(',').collect();
    let are_paths = paths.iter().all(|path| path.starts_with('/'));
    match kind {
        "files" if are_paths => Some(json!({ "files": { "paths": paths } })),
        "witness" if are_paths => Some(json!({ "witness": { "paths": paths } })),
        "heartbeat" if are_paths && paths.len() == 1 => Some(json!({ "heartbeat": { "path": rest } })),
        "exec" => Some(json!({ "exec": { "check": rest } })),
        _ => None,
    }
}

/// `address:port`, `[fd00::1]:port`, or an address alone.
fn with_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        return if rest.is_empty() { Some((address, None)) } else { Some((address, Some(rest.strip_prefix(':')?.parse().ok()?))) };
    }
    match text.rsplit_once(':') {
        // An IPv6 address without brackets has no room for a port.
        Some((address, _)) if address.contains(':') => Some((text, None)),
        Some((address, port)) => Some((address, Some(port.parse().ok()?))),
        None => Some((text, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown_by};
    use picket_common::ha::{HaName, HostStatus};

    fn pairs(text: &str) -> Vec<(String, String)> {
        let pair = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
        text.split(' ').map(pair).collect()
    }

    #[test]
    fn settings_become_a_patch() {
        let words =
            "policy=reboot health=tcp:{host}:22 health=http://{host}/up failures=5 identity-waived=yes cap=4 isolation=false";
        let wanted = json!({
            "ha": {"policy": "reboot", "failures": 5, "identity_waived": true,
                "health": [{"tcp": {"address": "{host}", "port": 22}}, {"http": {"url": "http://{host}/up"}}]},
            "brakes": {"cap": 4, "isolation": false}});
        assert_eq!(set(HaScope::Cluster, &pairs(words)).unwrap(), wanted);
        assert_eq!(set(HaScope::Host, &pairs("activity=")).unwrap(), json!({"ha": {"activity": []}}));
        let wanted = json!({"ha": {"policy": null}, "brakes": {"cap": null}});
        assert_eq!(unset(HaScope::Cluster, &["policy".into(), "cap".into()]).unwrap(), wanted);
        for (scope, wrong, told) in [
            (HaScope::Host, "cap=4", "cap: set for a cluster"),
            (HaScope::Host, "colour=red", "unknown field `colour`"),
            (HaScope::Host, "policy=explode", "unknown variant `explode`"),
            (HaScope::Host, "failures=many", "invalid type"),
            (HaScope::Host, "health=tcp:h1", "is not a check"),
            (HaScope::Host, "activity=files:relative", "is not a check"),
            (HaScope::Host, "health=[{", "not JSON"),
            (HaScope::Host, r#"health=[{"tcp":{"address":"a"}}]"#, "missing field `port`"),
        ] {
            let error = set(scope, &pairs(wrong)).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(told), "{wrong}: {error}");
        }
    }

    #[test]
    fn checks_in_their_short_form() {
        for (list, text, wanted) in [
            ("health", "tcp:10.0.0.1:22", json!({"tcp": {"address": "10.0.0.1", "port": 22}})),
            ("health", "tcp:[fd00::1]:22", json!({"tcp": {"address": "fd00::1", "port": 22}})),
            ("health", "icmp:fd00::1", json!({"icmp": {"address": "fd00::1"}})),
            ("health", "witness:h1", json!({"witness": {"address": "h1", "port": null}})),
            ("health", "witness:fd00::1", json!({"witness": {"address": "fd00::1", "port": null}})),
            ("health", "exec:up", json!({"exec": {"check": "up"}})),
            ("health", r#"{"icmp":{"address":"a"}}"#, json!({"icmp": {"address": "a"}})),
            ("activity", "files:/a,/b", json!({"files": {"paths": ["/a", "/b"]}})),
            ("activity", "heartbeat:/hb/{host}", json!({"heartbeat": {"path": "/hb/{host}"}})),
            ("activity", "exec:rbd", json!({"exec": {"check": "rbd"}})),
        ] {
            assert_eq!(checks(list, text).unwrap(), [wanted], "{text}");
        }
        for (list, text) in [
            ("health", "tcp:a:99999"),
            ("health", "tcp:fd00::1"),
            ("health", "files:/a"),
            ("activity", "tcp:a:1"),
            ("health", "exec:"),
        ] {
            assert!(checks(list, text).is_err(), "{text}");
        }
    }

    fn view() -> Value {
        json!({"host": "h1", "state": "fenced", "since": "2026-01-01T00:00:00Z", "why": "3 off readings", "quarantined": true,
            "host_status": "down", "closed": null, "acked": false, "explain": ["It was proven off."], "would_end": ["release it"],
            "proof": {"readings": [{"at": "2026-01-01T00:00:00Z", "device": "ipmi 10.0.0.1:623"}], "health": "no connection",
                "off_sent": false, "attempt": 1, "by": "policy"}, "settings": {}})
    }

    #[test]
    fn where_hosts_stand() {
        let silent = json!({"host": "h2", "host_status": "unknown", "closed": "cluster", "acked": false, "explain": [], "would_end": [],
            "settings": {}});
        let wanted = "\
HOST  HA      STATUS   SINCE  HELD BY  WHY
h1    fenced  down     30m    -        3 off readings
h2    -       unknown  -      -        cluster
";
        assert_eq!(shown_by(&at(Format::Table, false), &[view(), silent], STANDING, "host", false), wanted);
    }

    #[test]
    fn why_it_stands_there() {
        let row: Row = serde_json::from_value(view()).unwrap();
        let wanted = "\
h1: fenced since 2026-01-01T00:00:00Z; host status down
  why: 3 off readings
  It was proven off.
  quarantined: place nothing new there
  would end it: release it
  proof: attempt 1, by policy; nothing was sent; no connection
    off at 2026-01-01T00:00:00Z by ipmi 10.0.0.1:623
";
        assert_eq!(explained(&row), wanted);
        assert!(row.view.ha.is_some_and(|ha| ha.state == HaName::Fenced) && row.view.host_status == HostStatus::Down);
    }
}
