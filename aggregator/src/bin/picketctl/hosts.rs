//! Hosts and their BMCs' settings. A password is read, sent and forgotten.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use picket_common::api::{EffectiveBmc, Host, Origin};
use picket_common::hostset::{fold, fold_last, in_natural_order, natural_order};
use picket_common::id::HostId;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::Ended;
use crate::cli::{HostCommand, HostFilter, HostSettings, SharedSettings, Unset};
use crate::client::Client;
use crate::confirm::confirm;
use crate::failure::{Failure, over_all};
use crate::output::{Column, Output, age, column, maybe, power, print, wide, yes_no};
use crate::places::without_null;
use crate::progress::Progress;
use crate::secret_input;
use crate::select::{self, Known, named};
use crate::transfer;

const HOSTS: &[Column<Host>] = &[
    column("HOST", |h, _| (&h.id).into()),
    column("POWER", |h, _| power(h.power, h.stale)),
    column("SINCE", |h, look| age(h.power_since, look)),
    column("MANAGEMENT", |h, _| maybe(h.management)),
    column("ZONE", |h, _| (&h.zone).into()),
    column("CLUSTER", |h, _| (&h.cluster).into()),
    column("RACK", |h, _| (&h.rack).into()),
    wide("AGENT", |h, _| maybe(h.agent.as_ref())),
    wide("DRIVER", |h, _| maybe(h.bmc.as_ref().map(|bmc| from(&bmc.driver, origin(h, |effective| effective.driver.from))))),
    wide("ADDRESS", |h, _| maybe(h.bmc.as_ref().map(|bmc| with_port(&bmc.address, bmc.port)))),
    wide("USER", |h, _| maybe(h.bmc.as_ref().map(|bmc| from(&bmc.username, origin(h, |effective| effective.username.from))))),
    wide("PASSWORD", |h, _| yes_no(h.bmc.as_ref().is_some_and(|bmc| bmc.password_set))),
    wide("OOBM", |h, _| yes_no(h.oobm_enabled)),
    wide("REFUSAL", |h, _| maybe(h.refusal.as_ref())),
    wide("MAINTENANCE", |h, _| yes_no(h.maintenance)),
    wide("POLL", |h, _| from(&h.poll_interval, h.effective.as_ref().map(|effective| effective.poll_interval.from)).into()),
    wide("TIMEOUT", |h, _| from(&h.action_timeout, h.effective.as_ref().map(|effective| effective.action_timeout.from)).into()),
    wide("LABELS", |h, _| maybe(Some(pairs(&h.labels)).filter(|labels| !labels.is_empty()))),
    wide("PASSWORD-CHANGE", |h, _| maybe(h.password_change.as_ref().map(|change| word(change.state)))),
    wide("ERROR", |h, _| maybe(h.error.as_ref())),
    column("HA", |h, _| maybe(h.ha.as_ref().map(|ha| ha.state))),
    column("STATUS", |h, _| maybe(Some(h.host_status).filter(|_| h.ha.is_some()))),
];

fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn origin(host: &Host, of: impl Fn(&EffectiveBmc) -> Origin) -> Option<Origin> {
    host.effective.as_ref()?.bmc.as_ref().map(of)
}

/// A value, and where it comes from when it is not the host's own: `admin (cluster)`.
fn from(value: &impl std::fmt::Display, origin: Option<Origin>) -> String {
    match origin {
        None | Some(Origin::Host) => value.to_string(),
        Some(origin) => format!("{value} ({})", word(origin)),
    }
}

fn pairs(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn with_port(address: &str, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_owned(), |port| format!("{address}:{port}"))
}

/// Hosts asked for at the same time.
const AT_ONCE: usize = 16;

/// `hosts …`. What needs no aggregator takes none.
pub async fn hosts(client: Result<Client, Failure>, out: &Output, command: HostCommand) -> Ended {
    match command {
        HostCommand::Add { id, cluster, rack, settings } => {
            let mut body = new_host(&settings, prompted(&settings)?)?;
            body["cluster"] = json!(cluster);
            body["rack"] = json!(rack);
            add(&client?, out, &id, &body).await.map(|()| 0)
        }
        HostCommand::List { hosts, filter } => {
            out.list(&list(&client?, &hosts, filter).await?, HOSTS, "id")?;
            Ok(0)
        }
        HostCommand::Show { hosts } => show(&client?, out, &hosts).await,
        HostCommand::Set { hosts, cluster, rack, settings, unset, yes } => {
            let mut body = given(&settings, None)?;
            body.extend(cluster.map(|cluster| ("cluster".to_owned(), json!(cluster))));
            body.extend(rack.map(|rack| ("rack".to_owned(), json!(rack))));
            set(&client?, out, &hosts, &Change { body, settings: *settings, unset }, yes).await
        }
        HostCommand::Rm { hosts, yes } => rm(&client?, &hosts, yes).await,
        HostCommand::Import(args) => transfer::import(&client?, out, &args).await,
        HostCommand::Export(args) => transfer::export(&client?, args).await,
        HostCommand::Expand { hosts } => {
            let hosts = resolved(client, &hosts).await?;
            let rows: Vec<Value> = in_natural_order(&hosts).iter().map(|host| json!({ "id": host })).collect();
            if out.is_table() { print(&names(&rows)) } else { out.list(&rows, NAMES, "id") }?;
            Ok(0)
        }
        HostCommand::Fold { hosts, last } => {
            let hosts = resolved(client, &hosts).await?;
            print(&format!("{}\n", if last { fold_last(&hosts) } else { fold(&hosts) }))?;
            Ok(0)
        }
        HostCommand::Count { hosts } => {
            print(&format!("{}\n", resolved(client, &hosts).await?.len()))?;
            Ok(0)
        }
    }
}

const NAMES: &[Column<Value>] = &[column("HOST", |v, _| v["id"].as_str().unwrap_or_default().into())];

fn names(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{}\n", row["id"].as_str().unwrap_or_default())).collect()
}

/// The hosts of a set, perhaps none; an aggregator is asked only for groups and wildcards.
async fn resolved(client: Result<Client, Failure>, words: &[String]) -> Result<BTreeSet<HostId>, Failure> {
    let set = select::read(words)?;
    let known = if set.groups().is_empty() { Known::default() } else { select::known(&client?, &set).await? };
    select::resolved(&set, &known)
}

/// Makes a host that is not there yet: replacing one by a slip of the finger would forget its settings.
async fn add(client: &Client, out: &Output, id: &HostId, body: &Value) -> Result<(), Failure> {
    let path = format!("/v1/hosts/{id}");
    match client.one(&path).await {
        Ok(_) => return Err(Failure::Usage(format!("host {id} is there already; change it with `picketctl hosts set {id}`"))),
        Err(Failure::Problem(problem)) if problem.status == 404 => {}
        Err(failure) => return Err(failure),
    }
    out.one(&client.json(Method::PUT, &path, Some(body)).await?, HOSTS, "id")
}

/// The API's parameters for a filter.
pub fn query(filter: HostFilter) -> [(&'static str, Option<String>); 6] {
    let HostFilter { zone, cluster, rack, state, ha, status } = filter;
    [
        ("zone", zone.map(|id| id.to_string())),
        ("cluster", cluster.map(|id| id.to_string())),
        ("rack", rack.map(|id| id.to_string())),
        ("state", state),
        ("ha", ha),
        ("host_status", status),
    ]
}

async fn list(client: &Client, words: &[String], filter: HostFilter) -> Result<Vec<Value>, Failure> {
    let mut hosts = client.all("/v1/hosts", &query(filter), usize::MAX).await?;
    if !words.is_empty() {
        let set = select::read(words)?;
        let wanted = select::resolved(&set, &select::known(client, &set).await?)?;
        hosts.retain(|host| host["id"].as_str().is_some_and(|id| wanted.contains(id)));
    }
    let name = |host: &Value| host["id"].as_str().unwrap_or_default().to_owned();
    hosts.sort_by(|left, right| natural_order(&name(left), &name(right)));
    Ok(hosts)
}

/// Asks for each host; what fails is told on stderr. Gives the answers, and an exit code for each host.
pub async fn each<'a, F: Future<Output = Result<Value, Failure>>>(
    hosts: &'a [HostId],
    ask: impl Fn(&'a HostId) -> F,
) -> (Vec<Value>, Vec<u8>) {
    let progress = Progress::new(hosts.len());
    let asked = stream::iter(hosts).map(|host| {
        let (answer, progress) = (ask(host), &progress);
        async move {
            let answer = answer.await;
            progress.step(answer.is_ok());
            (host, answer)
        }
    });
    let answers: Vec<_> = asked.buffered(AT_ONCE).collect().await;
    drop(progress);
    let (mut done, mut codes) = (Vec::new(), Vec::new());
    for (host, answer) in answers {
        codes.push(answer.as_ref().map_or_else(Failure::exit_code, |_| 0));
        match answer {
            Ok(value) => done.push(value),
            Err(failure) if hosts.len() == 1 => eprintln!("picketctl: {failure}"),
            Err(failure) => eprintln!("{host}: {failure}"),
        }
    }
    (done, codes)
}

/// One in full, several as a list.
fn shown(out: &Output, hosts: &[Value], asked: usize) -> Result<(), Failure> {
    match hosts {
        [host] if asked == 1 => out.one(host, HOSTS, "id"),
        [] => Ok(()),
        hosts => out.list(hosts, HOSTS, "id"),
    }
}

async fn show(client: &Client, out: &Output, words: &[String]) -> Ended {
    let hosts = named(client, words).await?;
    let (found, codes) = each(&hosts, |host| async move { client.one(&format!("/v1/hosts/{host}")).await }).await;
    shown(out, &found, hosts.len())?;
    Ok(over_all(&codes))
}

/// What `hosts set` changes.
struct Change {
    body: Map<String, Value>,
    settings: HostSettings,
    unset: Vec<Unset>,
}

impl Change {
    fn unsets(&self, field: Unset) -> bool {
        self.unset.contains(&field)
    }

    fn is_empty(&self) -> bool {
        self.body.is_empty() && self.unset.is_empty() && self.settings.shared.options.is_empty() && self.settings.labels.is_empty()
    }

    /// Whether what a host has now decides what is sent: single options and labels are changed within the whole.
    fn needs_the_host(&self) -> bool {
        !self.settings.shared.options.is_empty() || !self.settings.labels.is_empty()
    }

    /// The body of the change for a host as it is now.
    fn body(&self, host: &Value) -> Value {
        let mut body = Value::Object(self.body.clone());
        for field in &self.unset {
            match unset(*field) {
                Some((true, name)) => body["bmc"][name] = Value::Null,
                Some((false, name)) => body[name] = Value::Null,
                None => {}
            }
        }
        if !self.settings.shared.options.is_empty() {
            let before = if self.unsets(Unset::Options) { Map::new() } else { own_options(host) };
            body["bmc"]["options"] = null_if_empty(changed(before, &self.settings.shared.options));
        }
        if self.unsets(Unset::Labels) || !self.settings.labels.is_empty() {
            let before = if self.unsets(Unset::Labels) { None } else { host["labels"].as_object().cloned() };
            body["labels"] = Value::Object(changed(before.unwrap_or_default(), &self.settings.labels));
        }
        body
    }
}

/// Where a field stands that null takes back: within `bmc` or beside it. Labels have no null.
pub const fn unset(field: Unset) -> Option<(bool, &'static str)> {
    Some(match field {
        Unset::Driver => (true, "driver"),
        Unset::Address => (true, "address"),
        Unset::Port => (true, "port"),
        Unset::Username => (true, "username"),
        Unset::Password => (true, "password"),
        Unset::Options => (true, "options"),
        Unset::PollInterval => (false, "poll_interval"),
        Unset::ActionTimeout => (false, "action_timeout"),
        Unset::Labels => return None,
    })
}

/// The options that are the host's own: those in force may be its cluster's.
fn own_options(host: &Value) -> Map<String, Value> {
    let options = host["effective"]["options"].as_object().into_iter().flatten();
    options.filter(|(_, option)| option["from"] == "host").map(|(key, option)| (key.clone(), option["value"].clone())).collect()
}

/// An empty map of options is none: what is inherited holds again.
pub fn null_if_empty(map: Map<String, Value>) -> Value {
    if map.is_empty() { Value::Null } else { Value::Object(map) }
}

/// A map after `key=value` and `key=`.
pub fn changed(mut map: Map<String, Value>, pairs: &[(String, String)]) -> Map<String, Value> {
    for (key, value) in pairs {
        if value.is_empty() {
            map.remove(key);
        } else {
            map.insert(key.clone(), json!(value));
        }
    }
    map
}

/// How often a change is tried again that met another.
const TRIES: u32 = 3;

/// Changes one host; what it is made of must still be so when it is changed.
async fn set_one(client: &Client, host: &HostId, change: &Change) -> Result<Value, Failure> {
    let path = format!("/v1/hosts/{host}");
    if !change.needs_the_host() {
        return client.json(Method::PATCH, &path, Some(&change.body(&Value::Null))).await;
    }
    let mut tries = 1;
    loop {
        match client.edited(&path, |before| change.body(before)).await {
            Err(Failure::Problem(problem)) if problem.status == 412 && tries < TRIES => tries += 1,
            ended => return ended,
        }
    }
}

async fn set(client: &Client, out: &Output, words: &[String], change: &Change, yes: bool) -> Ended {
    if change.is_empty() {
        return Err(Failure::Usage("nothing to set; see `picketctl hosts set --help`".into()));
    }
    let hosts = named(client, words).await?;
    confirm(client, "Change", &hosts, yes).await?;
    let (done, codes) = each(&hosts, |host| set_one(client, host, change)).await;
    shown(out, &done, hosts.len())?;
    Ok(over_all(&codes))
}

async fn rm(client: &Client, words: &[String], yes: bool) -> Ended {
    let hosts = named(client, words).await?;
    confirm(client, "Remove", &hosts, yes).await?;
    let removed = |host| async move { client.json(Method::DELETE, &format!("/v1/hosts/{host}"), None).await.map(|_| json!(host)) };
    let (done, codes) = each(&hosts, removed).await;
    let done: BTreeSet<HostId> = done.iter().filter_map(|host| host.as_str()?.parse().ok()).collect();
    if !done.is_empty() {
        eprintln!("removed {}", fold(&done));
    }
    Ok(over_all(&codes))
}

type Password = picket_common::secret::Secret<String>;

/// The password of a new host whose user is named and who gave no other source.
fn prompted(settings: &HostSettings) -> Result<Option<Password>, Failure> {
    let SharedSettings { username, password_file, password_stdin, .. } = &settings.shared;
    match username {
        Some(username) if password_file.is_none() && !password_stdin => {
            secret_input::from_prompt(&format!("BMC password of {username} (empty = none): "))
        }
        _ => Ok(None),
    }
}

/// The body's fields for what is given, but for options and labels.
fn given(settings: &HostSettings, prompted: Option<Password>) -> Result<Map<String, Value>, Failure> {
    let mut body = shared(&settings.shared, prompted)?;
    if let Some(address) = &settings.address {
        body["bmc"]["address"] = json!(address);
    }
    if let Some(maintenance) = settings.maintenance {
        body["maintenance"] = json!(maintenance);
    }
    let Value::Object(body) = body else { return Ok(Map::new()) };
    Ok(body)
}

/// The same for what a host has of its own or its cluster gives it.
pub fn shared(settings: &SharedSettings, prompted: Option<Password>) -> Result<Value, Failure> {
    let SharedSettings { driver, port, username, password_file, password_stdin, options: _, poll_interval, action_timeout } =
        settings;
    let password = match password_file {
        Some(path) => Some(secret_input::from_file(path)?),
        None if *password_stdin => Some(secret_input::from_stdin()?),
        None => prompted,
    };
    let password = password.as_ref().map(|password| password.expose());
    let bmc = without_null(json!({ "driver": driver, "port": port, "username": username, "password": password }));
    let bmc = bmc.as_object().is_some_and(|bmc| !bmc.is_empty()).then_some(bmc);
    Ok(without_null(json!({ "bmc": bmc, "poll_interval": poll_interval, "action_timeout": action_timeout })))
}

/// The body of a new host: all that is given.
fn new_host(settings: &HostSettings, prompted: Option<Password>) -> Result<Value, Failure> {
    let mut body = Value::Object(given(settings, prompted)?);
    if !settings.shared.options.is_empty() {
        body["bmc"]["options"] = Value::Object(changed(Map::new(), &settings.shared.options));
    }
    if !settings.labels.is_empty() {
        body["labels"] = Value::Object(changed(Map::new(), &settings.labels));
    }
    Ok(body)
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
        let mut hosts = vec![
            host("r07n01", "on", false),
            host("r07n02", "off", true),
            host("r07n03", "unknown", false),
            host("r07n04", "disabled", false),
        ];
        let fenced = json!({"state": "fenced", "since": "2026-01-01T00:00:00Z", "why": "proven", "quarantined": true});
        (hosts[1]["ha"], hosts[1]["host_status"]) = (fenced, json!("down"));
        hosts
    }

    #[test]
    fn tables_are_as_they_were() {
        let wanted = "\
HOST    POWER          SINCE  MANAGEMENT  ZONE  CLUSTER  RACK  HA      STATUS
r07n01  ● on           30m    reachable   z1    c1       r07   -       -
r07n02  ■ off (stale)  30m    reachable   z1    c1       r07   fenced  down
r07n03  ▲ unknown      30m    reachable   z1    c1       r07   -       -
r07n04  – disabled     30m    reachable   z1    c1       r07   -       -
";
        assert_eq!(shown(&at(Format::Table, true), &fleet(), HOSTS, false), wanted);
        let one = shown(&at(Format::Table, true), &fleet()[..1], HOSTS, true);
        assert!(
            one.starts_with("HOST             r07n01\nPOWER            ● on\n") && one.contains("ADDRESS          10.0.0.1:6230\n"),
            "{one}"
        );
        assert_eq!(shown(&at(Format::Name, false), &fleet()[..2], HOSTS, false), "r07n01\nr07n02\n");
        let json: Value = serde_json::from_str(&shown(&at(Format::Json, false), &fleet(), HOSTS, false)).unwrap();
        assert_eq!(json[0]["later"], 1, "what a newer aggregator adds is passed on");
        assert_eq!(shown(&at(Format::Jsonl, false), &fleet(), HOSTS, false).lines().count(), 4);
        let csv = "\
host,power,since,management,zone,cluster,rack,agent,driver,address,user,password,oobm,refusal,maintenance,poll,timeout,labels,\
password-change,error,ha,status
r07n02,off,2026-01-01T00:00:00Z,reachable,z1,c1,r07,r07,ipmi,10.0.0.1:6230,admin,yes,yes,,no,10,60,,,,fenced,down
";
        assert_eq!(shown(&at(Format::Csv, true), &fleet()[1..2], HOSTS, false), csv);
    }

    #[test]
    fn only_what_is_given_is_sent() {
        assert_eq!(new_host(&HostSettings::default(), None).unwrap(), json!({}));
        let settings = HostSettings {
            address: Some("10.0.0.1".into()),
            shared: SharedSettings { options: vec![("k".into(), "v".into())], ..SharedSettings::default() },
            maintenance: Some(false),
            ..HostSettings::default()
        };
        let body = new_host(&settings, None).unwrap();
        assert_eq!(body, json!({"bmc": {"address": "10.0.0.1", "options": {"k": "v"}}, "maintenance": false}));
    }

    #[test]
    fn what_a_host_has_is_changed_and_cleared() {
        let option = |value: &str, from: &str| json!({"value": value, "from": from});
        let options = json!({"a": option("1", "host"), "b": option("2", "host"), "d": option("4", "cluster")});
        let host = json!({"effective": {"options": options}, "labels": {"os": "linux"}});
        let change = |pairs: &str, unset: &[Unset]| {
            let options = pairs.split_whitespace().filter_map(|pair| pair.split_once('='));
            let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let shared = SharedSettings { options, ..SharedSettings::default() };
            let settings = HostSettings { shared, ..HostSettings::default() };
            let body = given(&settings, None).unwrap();
            Change { body, settings, unset: unset.to_vec() }.body(&host)
        };
        for (pairs, unset, wanted) in [
            ("a= c=3", &[][..], json!({"bmc": {"options": {"b": "2", "c": "3"}}})),
            ("a= b=", &[], json!({"bmc": {"options": null}})),
            ("c=3", &[Unset::Options], json!({"bmc": {"options": {"c": "3"}}})),
            ("", &[Unset::Options, Unset::Port], json!({"bmc": {"options": null, "port": null}})),
            ("", &[Unset::Labels, Unset::PollInterval], json!({"labels": {}, "poll_interval": null})),
        ] {
            assert_eq!(change(pairs, unset), wanted, "{pairs} {unset:?}");
        }
    }
}
