//! What happened is on record: the audit log of real requests and of a hand in the file, events over restarts and kill -9, one
//! operation for one key, and what each role and scope may do and see. Over real HTTP, by a client that is not `picketctl`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use picket_tests::bmcsim::{BmcHandle, Faults, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Answer, Event, EventStream, Http, Site, hosts, simulator};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde_json::{Map, Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Exit codes of `picketctl`.
const OK: i32 = 0;
const NONE_SUCCEEDED: i32 = 3;

/// Reads after which the first of them is in the agent's journal: one poll may read twice, and the next begins after the record.
const SEEN: u64 = 3;

/// One rack with its agent, and hosts that speak IPMI, then Redfish, all open and seen.
struct Stage {
    site: Site,
    _agent: Agent,
    simulator: Simulator,
    http: Http,
}

impl Stage {
    fn watched(ipmi: usize, redfish: usize) -> Self {
        let simulator = simulator("h", ipmi, redfish).unwrap();
        simulator.fleet().all().iter().for_each(|bmc| bmc.set_power(true));
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        site.import(&hosts(&simulator, "c1", "r1")).unwrap();
        let http = Http::admin(&site).unwrap();
        let stage = Self { site, _agent: agent, simulator, http };
        for bmc in stage.bmcs() {
            assert_eq!(stage.site.ctl(&["oobm", "enable", "host", bmc.name()]).unwrap().code, OK);
        }
        stage.until_true();
        stage
    }

    fn bmcs(&self) -> &[BmcHandle] {
        self.simulator.fleet().all()
    }

    fn bmc(&self) -> &BmcHandle {
        &self.bmcs()[0]
    }

    /// Waits until the view is what the BMCs say.
    fn until_true(&self) {
        for bmc in self.bmcs() {
            self.site.until(bmc.name(), "power", power_of(bmc.is_on()), PATIENCE).unwrap();
        }
    }

    /// kill -9 of the aggregator, and its next life.
    fn survive(&mut self) {
        self.site.kill_aggregator();
        self.site.start_aggregator().unwrap();
    }
}

const fn power_of(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

// ---- audit ----

const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");

/// The audit log in the store of an aggregator that does not run: what a hand with the file could do.
struct Tampered {
    store: std::path::PathBuf,
}

impl Tampered {
    fn get(&self, sequence: u64) -> Vec<u8> {
        let database = Database::open(&self.store).unwrap();
        let table = database.begin_read().unwrap().open_table(AUDIT).unwrap();
        table.get(sequence).unwrap().unwrap().value().to_vec()
    }

    fn last(&self) -> u64 {
        let database = Database::open(&self.store).unwrap();
        let table = database.begin_read().unwrap().open_table(AUDIT).unwrap();
        table.last().unwrap().unwrap().0.value()
    }

    /// Puts a record in the place of another, or takes it out.
    fn put(&self, sequence: u64, record: Option<&[u8]>) {
        let database = Database::open(&self.store).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(AUDIT).unwrap();
            match record {
                Some(record) => drop(table.insert(sequence, record).unwrap()),
                None => drop(table.remove(sequence).unwrap()),
            }
        }
        transaction.commit().unwrap();
    }
}

/// The record with another principal, and with another hash if its forger knew how it is made.
fn forged(record: &[u8], with_hash: bool) -> Vec<u8> {
    let (version, json) = record.split_first().unwrap();
    let mut record: Map<String, Value> = serde_json::from_slice(json).unwrap();
    record.insert("principal".into(), "mallory".into());
    if with_hash {
        let hash = picket_common::audit::hash(&record);
        record.insert("hash".into(), hash.into());
    }
    let mut bytes = vec![*version];
    serde_json::to_writer(&mut bytes, &record).unwrap();
    bytes
}

fn verify(site: &Site, more: &[&str]) -> (i32, Value) {
    let answer = site.ctl(&[&["-o", "json", "audit", "verify"], more].concat()).unwrap();
    (answer.code, answer.json().unwrap())
}

#[test]
fn the_audit_log_holds_every_request_and_names_the_record_that_a_hand_changed() {
    let mut stage = Stage::watched(1, 0);
    let host = stage.bmc().name().to_owned();
    let answer = stage.site.ctl(&["power", "off", &host, "--wait", "--reason", "PDU swap"]).unwrap();
    assert_eq!(answer.code, OK, "{answer:?}");
    let body = json!({ "name": "looker", "role": "viewer" });
    let secret = stage.http.post("/v1/tokens", &body).unwrap().body["secret"].as_str().unwrap().to_owned();
    let looker = stage.http.with_token(&secret);
    let order = json!({ "operation": "on" });
    assert_eq!(looker.post(&format!("/v1/hosts/{host}/power"), &order).unwrap().status, 403);
    let stranger = stage.http.with_token("pkt_nobody-has-this-token-000000000000000");
    assert_eq!(stranger.get("/v1/hosts").unwrap().status, 401);
    assert_eq!(stage.site.ctl(&["oobm", "disable", "host", &host]).unwrap().code, OK);
    assert_eq!(stage.http.call("DELETE", "/v1/clusters/c1", &[("if-match", "*")], None).unwrap().status, 409);

    // Each is there once: what was granted, how it ended, what was refused to whom.
    let records = stage.site.json(&["audit", "list"]).unwrap();
    let of = |what: &dyn Fn(&Value) -> bool| records.as_array().unwrap().iter().filter(|record| what(record)).cloned().collect();
    let ordered: Vec<Value> = of(&|record| record["reason"] == "PDU swap");
    let words = |record: &Value| (record["result"].clone(), record["resource"].clone(), record["code"].clone());
    let resource = json!(format!("host/{host}"));
    assert_eq!(
        ordered.iter().map(words).collect::<Vec<_>>(),
        [(json!("granted"), resource.clone(), Value::Null), (json!("ended"), resource.clone(), json!("changed"))],
        "{records}"
    );
    assert!(ordered[0]["operation_id"].is_string() && ordered[0]["operation_id"] == ordered[1]["operation_id"], "{records}");
    let refused: Vec<Value> = of(&|record| record["result"] == "refused");
    let who = |record: &Value| (record["principal"].clone(), record["code"].clone(), record["status"].clone());
    let wanted = [
        (json!("looker"), json!("forbidden"), json!(403)),
        (json!("-"), json!("token-refused"), json!(401)),
        (json!("admin"), json!("in-use"), json!(409)),
    ];
    let found: Vec<_> = refused.iter().map(who).collect();
    assert_eq!(found, wanted, "{records}");
    assert!(!records.to_string().contains(&secret), "the log holds a token");

    let (code, verdict) = verify(&stage.site, &[]);
    assert_eq!((code, &verdict["intact"], &verdict["sequence"]), (OK, &json!(true), &verdict["records"]), "{verdict}");
    let export = stage.site.ctl(&["-o", "jsonl", "audit", "list"]).unwrap().out;
    let file = stage.site.path("export.jsonl");
    std::fs::write(&file, &export).unwrap();
    let (code, of_export) = verify(&stage.site, &[file.to_str().unwrap()]);
    assert_eq!((code, &of_export["hash"]), (OK, &verdict["hash"]), "an export says the same without an aggregator");

    assert_a_hand_is_found(&mut stage, ordered[0]["sequence"].as_u64().unwrap());
}

/// What a hand does to the file, and what is said of it.
fn assert_a_hand_is_found(stage: &mut Stage, sequence: u64) {
    let store = Tampered { store: stage.site.path("aggregator/store.redb") };
    stage.site.stop_aggregator().unwrap();
    let (good, last) = (store.get(sequence), store.last());
    let end = store.get(last);
    let next = sequence + 1;
    for (what, place, record, fault) in [
        ("its words", sequence, Some(forged(&good, false)), format!("record {sequence} was changed")),
        ("its words and its hash", sequence, Some(forged(&good, true)), format!("record {next} does not name the hash")),
        ("taken out", sequence, None, format!("record {next} follows record {}", sequence - 1)),
        ("the last taken out", last, None, format!("ends with record {}, but record {last} was written", last - 1)),
    ] {
        store.put(place, record.as_deref());
        stage.site.start_aggregator().unwrap();
        let (code, verdict) = verify(&stage.site, &[]);
        assert_eq!((code, &verdict["intact"]), (NONE_SUCCEEDED, &json!(false)), "{what}: {verdict}");
        assert!(verdict["fault"].as_str().unwrap().contains(&fault), "{what}: not {fault:?}: {verdict}");
        stage.site.stop_aggregator().unwrap();
        store.put(place, Some(if place == last { &end } else { &good }));
    }
    stage.site.start_aggregator().unwrap();
    let (code, verdict) = verify(&stage.site, &[]);
    assert_eq!((code, &verdict["intact"]), (OK, &json!(true)), "put back as it was: {verdict}");
}

// ---- events ----

/// Somebody who follows the events, and takes the stream up again where it broke off.
struct Listener {
    heard: Vec<Event>,
    stream: EventStream,
}

impl Listener {
    fn begin(http: &Http) -> Self {
        Self { heard: Vec::new(), stream: http.follow("/v1/events", None).unwrap() }
    }

    fn all(&self) -> Vec<Event> {
        [self.heard.clone(), self.stream.events()].concat()
    }

    fn take_up_again(&mut self, http: &Http) {
        eventually(PATIENCE, || {
            ensure!(self.stream.is_over(), "the stream outlives its aggregator");
            Ok(())
        })
        .unwrap();
        self.heard = self.all();
        let last = self.heard.last().unwrap().id.clone();
        self.stream = http.follow("/v1/events", Some(&last)).unwrap();
    }
}

/// A cursor's place among all events.
fn place(event: &Event) -> u64 {
    event.id.split_once('-').unwrap().0.parse().unwrap()
}

/// Someone turns all hosts over; returns when the agent has it in its journal for certain, whoever else hears it.
fn turned(stage: &Stage) {
    let before: Vec<u64> = stage.bmcs().iter().map(|bmc| bmc.counters().status_reads).collect();
    for bmc in stage.bmcs() {
        bmc.toggle();
    }
    eventually(PATIENCE, || {
        let mut reads = stage.bmcs().iter().zip(&before).map(|(bmc, before)| bmc.counters().status_reads - before);
        ensure!(reads.all(|reads| reads >= SEEN), "not read yet");
        Ok(())
    })
    .unwrap();
}

#[test]
fn events_are_taken_up_again_over_a_restart_and_kill_9_without_loss_or_repetition() {
    let mut stage = Stage::watched(2, 2);
    let mut listener = Listener::begin(&stage.http);
    let before: Vec<usize> = stage.bmcs().iter().map(|bmc| bmc.changes().len()).collect();
    turned(&stage);
    stage.until_true();

    // Stopped in order; hosts change while nobody listens.
    stage.site.stop_aggregator().unwrap();
    turned(&stage);
    stage.site.start_aggregator().unwrap();
    stage.until_true();
    listener.take_up_again(&stage.http);

    // Killed while the last changes are on their way, twice.
    for _ in 0..2 {
        for bmc in stage.bmcs() {
            bmc.toggle();
        }
        stage.survive();
        stage.until_true();
        listener.take_up_again(&stage.http);
        turned(&stage);
    }
    stage.until_true();

    // One who was there at the beginning and asks for all of it at once hears the same.
    let first = listener.all()[0].clone();
    let whole = stage.http.follow("/v1/events", Some(&first.id)).unwrap();
    eventually(PATIENCE, || {
        let (heard, whole) = (listener.all(), whole.events());
        ensure!(heard[1..] == whole, "{} events heard, {} kept", heard.len() - 1, whole.len());
        for (bmc, before) in stage.bmcs().iter().zip(&before) {
            let changes: Vec<&str> = bmc.changes()[*before..].iter().map(|change| power_of(change.on)).collect();
            let told = states(&heard, bmc.name());
            ensure!(told == changes, "{}: {told:?} was told, {changes:?} happened", bmc.name());
        }
        Ok(())
    })
    .unwrap();
    let heard = listener.all();
    assert!(heard.iter().all(|event| event.kind != "resync"), "something was lost");
    assert!(heard.windows(2).all(|pair| place(&pair[0]) + 1 == place(&pair[1])), "a hole or a repetition");
    let ids: BTreeSet<&str> = heard.iter().map(|event| event.data["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), heard.len(), "an event twice");

    // One who comes with a place that never was is told so, and goes on from now.
    let lost = stage.http.follow("/v1/events", Some("1-00000000")).unwrap();
    for bmc in stage.bmcs() {
        bmc.toggle();
    }
    eventually(PATIENCE, || {
        let kinds: Vec<String> = lost.events().into_iter().map(|event| event.kind).collect();
        ensure!(kinds.len() > 1 && kinds[0] == "resync", "{kinds:?}");
        Ok(())
    })
    .unwrap();
}

/// On and off as a host's events tell it.
fn states<'a>(events: &'a [Event], host: &str) -> Vec<&'a str> {
    let of_host = events.iter().filter(|event| event.kind == "io.picket.power.changed.v1" && event.data["data"]["host"] == host);
    let mut states: Vec<&str> = of_host.filter_map(|event| event.data["data"]["new"].as_str()).collect();
    states.retain(|state| matches!(*state, "on" | "off"));
    states.dedup();
    states
}

// ---- one key, one operation ----

/// Operations of the host, newest first.
fn operations(stage: &Stage) -> Vec<Value> {
    stage.site.json(&["op", "list"]).unwrap().as_array().unwrap().clone()
}

/// When the aggregator dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// As soon as the asker has its answer.
    Answered,
    /// When the order has reached the BMC; the asker still waits for its end.
    Ordered,
    /// At once: the request may or may not have come.
    Blind,
}

#[test]
fn one_key_is_one_operation_and_one_order_over_kill_9() {
    let mut stage = Stage::watched(1, 0);
    let (path, body) = (format!("/v1/hosts/{}/power", stage.bmc().name()), json!({ "operation": "reset", "timeout": 60 }));
    let mut made = BTreeSet::new();
    let deaths = [Death::Answered, Death::Ordered, Death::Blind, Death::Blind];
    for (round, death) in deaths.into_iter().enumerate() {
        let key = format!("round {round}");
        let headers = [("idempotency-key", key.as_str()), ("prefer", "wait=30")];
        let first = killed_meanwhile(&mut stage, death, &path, &headers, &body);
        let again = stage.http.call("POST", &path, &headers, Some(&body)).unwrap();
        let context = format!("{death:?} {first:?} {again:?}");
        let id = again.body["id"].as_str().unwrap_or_else(|| panic!("{context}")).to_owned();
        if let Some(first) = first {
            assert_eq!(first, id, "{context}");
            assert_eq!(again.headers.get("idempotent-replayed").map(String::as_str), Some("true"), "{context}");
        }
        made.insert(id.clone());
        let ended = stage.site.json(&["op", "wait", &id]).unwrap();
        assert_eq!(ended["hosts"][0]["result"], "changed", "{context}: {ended}");
        let third = stage.http.call("POST", &path, &headers, Some(&body)).unwrap();
        assert_eq!(third.body["id"], json!(id), "{context}");
        let all = operations(&stage);
        assert_eq!((made.len(), all.len()), (round + 1, round + 1), "{context}: {all:?}");
        assert_eq!((stage.bmc().orders("reset"), stage.bmc().truth().resets), (round + 1, (round + 1) as u64), "{context}");
    }

    // A key belongs to what was asked under it, and to who asked.
    let headers = [("idempotency-key", "round 0")];
    let other = stage.http.call("POST", &path, &headers, Some(&json!({ "operation": "status" }))).unwrap();
    assert_eq!((other.status, &other.body["code"]), (422, &json!("idempotency-key-used")), "{other:?}");
    let secret = stage.http.post("/v1/tokens", &json!({ "name": "another", "role": "operator" })).unwrap().body["secret"].clone();
    let another = stage.http.with_token(secret.as_str().unwrap());
    let theirs = another.call("POST", &path, &headers, Some(&json!({ "operation": "status" }))).unwrap();
    assert_eq!(theirs.status, 202, "{theirs:?}");
    assert!(!made.contains(theirs.body["id"].as_str().unwrap()), "{theirs:?}");
    assert_eq!(stage.bmc().orders("reset"), deaths.len());
}

/// Asks, kills the aggregator, starts it again; gives the operation that the asker was told of.
fn killed_meanwhile(stage: &mut Stage, death: Death, path: &str, headers: &[(&str, &str)], body: &Value) -> Option<String> {
    let bmc = stage.bmc().clone();
    let orders = bmc.orders("reset");
    let headers = match death {
        Death::Answered => &headers[..1],
        Death::Ordered | Death::Blind => headers,
    };
    if matches!(death, Death::Ordered) {
        // The order is carried out and not answered: the agent has to find out, which takes it some seconds.
        bmc.set_faults(serde_json::from_value::<Faults>(json!({ "slow_ms": 700 })).unwrap());
    }
    let http = stage.http.clone();
    let told = thread::scope(|scope| {
        let asker = scope.spawn(|| http.call("POST", path, headers, Some(body)).ok());
        match death {
            Death::Answered => {
                let told = asker.join().unwrap();
                stage.site.kill_aggregator();
                return told;
            }
            Death::Ordered => eventually(PATIENCE, || {
                ensure!(bmc.orders("reset") > orders, "no order yet");
                Ok(())
            })
            .unwrap(),
            Death::Blind => {}
        }
        stage.site.kill_aggregator();
        asker.join().unwrap()
    });
    bmc.clear_faults();
    stage.site.start_aggregator().unwrap();
    told.and_then(|reply| Some(reply.body["id"].as_str()?.to_owned()))
}

// ---- roles and scopes ----

/// What a request takes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Takes {
    Read,
    Operate,
    Configure,
    Grant,
    Audit,
}

use Takes::{Audit, Configure, Grant, Operate, Read};

const ROLES: [(&str, &[Takes]); 5] = [
    ("viewer", &[Read]),
    ("operator", &[Read, Operate]),
    ("fencer", &[Read, Operate]),
    ("auditor", &[Read, Audit]),
    ("admin", &[Read, Operate, Configure, Grant, Audit]),
];

/// What a scope is, and the hosts in it. h1 and h2 lie in zone z1, h1 in cluster c1; h3 lies in zone z2.
const SCOPES: [(&str, &str, &[&str]); 4] = [
    ("everywhere", "{}", &["h1", "h2", "h3"]),
    ("zone", r#"{"zones":["z1"]}"#, &["h1", "h2"]),
    ("cluster", r#"{"clusters":["c1"]}"#, &["h1"]),
    ("host", r#"{"hosts":["h1"]}"#, &["h1"]),
];

/// Requests about one host, which stands for HOST; what they take, and what is answered to who may, but not there.
const OF_A_HOST: [(&str, &str, &str, Takes, u16); 10] = [
    ("GET", "/v1/hosts/HOST", "", Read, 404),
    ("GET", "/v1/hosts/HOST/history", "", Read, 404),
    ("POST", "/v1/hosts/HOST/power", r#"{"operation":"status"}"#, Operate, 404),
    ("POST", "/v1/hosts/HOST/power", r#"{"operation":"off","dry_run":true}"#, Operate, 404),
    ("POST", "/v1/operations", r#"{"hosts":["HOST"],"operation":"off","dry_run":true}"#, Operate, 404),
    ("POST", "/v1/hosts/HOST/identify", r#"{"seconds":0}"#, Operate, 404),
    ("POST", "/v1/silences", r#"{"matchers":["host=HOST"],"duration":60}"#, Operate, 404),
    ("PATCH", "/v1/hosts/HOST", r#"{"maintenance":false}"#, Configure, 404),
    ("POST", "/v1/hosts/HOST/oobm/enable", "", Configure, 404),
    ("POST", "/v1/tokens", r#"{"name":"sub","role":"viewer","scope":{"hosts":["HOST"]},"ttl":60}"#, Grant, 403),
];

/// Requests about the whole site.
const OF_THE_SITE: [(&str, &str, &str, Takes); 5] = [
    ("GET", "/v1/audit", "", Audit),
    ("GET", "/v1/audit/verify", "", Audit),
    ("PATCH", "/v1/settings", "{}", Configure),
    ("POST", "/v1/agents/tokens", r#"{"rack":"r1"}"#, Configure),
    ("POST", "/v1/tokens", r#"{"name":"sub","role":"viewer","ttl":60}"#, Grant),
];

/// Somebody's token: role, scope, secret.
struct Person {
    name: String,
    takes: &'static [Takes],
    scope: &'static str,
    hosts: &'static [&'static str],
    id: String,
    http: Http,
}

/// Two zones, three clusters, three hosts that are no machines, and an agent for each zone's rack.
fn peopled() -> (Site, [Agent; 2], Http, Vec<Person>) {
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    site.place("z1", "c2", "r1").unwrap();
    site.place("z2", "c3", "r2").unwrap();
    let agents = [site.join("r1").unwrap(), site.join("r2").unwrap()];
    let bodies = [("h1", "c1", "r1"), ("h2", "c2", "r1"), ("h3", "c3", "r2")]
        .map(|(host, cluster, rack)| json!({ "id": host, "cluster": cluster, "rack": rack, "bmc": { "driver": "null" } }));
    site.import(&bodies).unwrap();
    assert_eq!(site.ctl(&["oobm", "enable", "host", "h1,h2,h3", "--yes"]).unwrap().code, OK);
    for host in ["h1", "h2", "h3"] {
        site.until(host, "power", "on", PATIENCE).unwrap();
    }
    let admin = Http::admin(&site).unwrap();
    let mut people = Vec::new();
    for (role, takes) in ROLES {
        for (scope, text, hosts) in SCOPES {
            let name = format!("{role} of {scope}");
            let body = json!({ "name": name, "role": role, "scope": serde_json::from_str::<Value>(text).unwrap() });
            let made = admin.post("/v1/tokens", &body).unwrap();
            assert_eq!(made.status, 201, "{name}: {made:?}");
            let text = |field: &str| made.body[field].as_str().unwrap().to_owned();
            people.push(Person { name, takes, scope, hosts, id: text("id"), http: admin.with_token(&text("secret")) });
        }
    }
    (site, agents, admin, people)
}

impl Person {
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let body = (!body.is_empty()).then(|| serde_json::from_str(body).unwrap());
        let reply = self.http.call(method, path, &[("if-match", "*")], body.as_ref()).unwrap();
        (reply.status, reply.body)
    }

    /// What is answered to a request, `200` for anything that is granted.
    fn answered(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.ask(method, path, body);
        (if (200..300).contains(&status) { 200 } else { status }, body)
    }

    fn is_as_it_should(&self) {
        for (method, path, body, takes, outside) in OF_A_HOST {
            for host in ["h1", "h2", "h3"] {
                let (status, said) = self.answered(method, &path.replace("HOST", host), &body.replace("HOST", host));
                let is_right = match (self.takes.contains(&takes), self.hosts.contains(&host)) {
                    (true, true) => status == 200,
                    (true, false) => status == outside,
                    (false, true) => status == 403,
                    // Two reasons, and neither tells whether there is such a host.
                    (false, false) => status == 403 || status == outside,
                };
                assert!(is_right, "{}: {method} {path} {host}: {status} {said}", self.name);
                let code = match status {
                    403 => "forbidden",
                    404 => "not-found",
                    _ => continue,
                };
                assert_eq!(said["code"], code, "{}: {method} {path} {host}: {said}", self.name);
            }
        }
        for (method, path, body, takes) in OF_THE_SITE {
            let wanted = if self.takes.contains(&takes) && self.scope == "everywhere" { 200 } else { 403 };
            let (status, said) = self.answered(method, path, body);
            assert_eq!(status, wanted, "{}: {method} {path}: {said}", self.name);
        }
        self.sees_its_own();
    }

    /// Lists and sums hold what is in scope, and nothing else.
    fn sees_its_own(&self) {
        let listed = |path: &str, field: &str| -> BTreeSet<String> {
            let (status, page) = self.ask("GET", path, "");
            assert_eq!(status, 200, "{}: {path}: {page}", self.name);
            page["items"].as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
        };
        let set = |ids: &[&str]| -> BTreeSet<String> { ids.iter().map(|id| (*id).to_owned()).collect() };
        assert_eq!(listed("/v1/hosts", "id"), set(self.hosts), "{}", self.name);
        let of_hosts = |parts: [&'static str; 3]| -> BTreeSet<String> {
            ["h1", "h2", "h3"]
                .iter()
                .zip(parts)
                .filter(|(host, _)| self.hosts.contains(host))
                .map(|(_, part)| part.to_owned())
                .collect()
        };
        assert_eq!(listed("/v1/clusters", "id"), of_hosts(["c1", "c2", "c3"]), "{}", self.name);
        assert_eq!(listed("/v1/zones", "id"), of_hosts(["z1", "z1", "z2"]), "{}", self.name);
        assert_eq!(listed("/v1/agents", "id"), of_hosts(["r1", "r1", "r2"]), "{}", self.name);
        let (_, summary) = self.ask("GET", "/v1/summary", "");
        assert_eq!(summary["hosts"]["on"], json!(self.hosts.len()), "{}: {summary}", self.name);
        let (_, operations) = self.ask("GET", "/v1/operations?limit=1000", "");
        let hosts = operations["items"].as_array().unwrap().iter().flat_map(|operation| operation["hosts"].as_array().unwrap());
        let foreign: Vec<&Value> = hosts.filter(|part| !self.hosts.contains(&part["host"].as_str().unwrap())).collect();
        assert!(foreign.is_empty(), "{} sees operations of others: {foreign:?}", self.name);
    }
}

#[test]
fn every_role_and_scope_may_do_and_see_what_it_should() {
    let (site, _agents, admin, people) = peopled();
    thread::scope(|scope| {
        for people in people.chunks(5) {
            scope.spawn(|| people.iter().for_each(Person::is_as_it_should));
        }
    });
    for (method, path, body, ..) in OF_A_HOST {
        let body = (!body.is_empty()).then(|| serde_json::from_str(&body.replace("HOST", "h1")).unwrap());
        let reply = admin.as_stranger().call(method, &path.replace("HOST", "h1"), &[("if-match", "*")], body.as_ref()).unwrap();
        assert_eq!((reply.status, &reply.body["code"]), (401, &json!("unauthenticated")), "{method} {path}: {reply:?}");
    }
    // Everybody may listen; each hears of the hosts in scope.
    let streams: Vec<EventStream> = people.iter().map(|person| person.http.follow("/v1/events", None).unwrap()).collect();
    let answer: Answer = site.ctl(&["power", "off", "h1,h2,h3", "--wait", "--yes"]).unwrap();
    assert_eq!(answer.code, OK, "{answer:?}");
    for (person, stream) in people.iter().zip(&streams) {
        eventually(PATIENCE, || hears_its_own(person, stream)).unwrap();
    }
    // What is revoked is over, in mid-stream too.
    let (person, stream) = (&people[0], &streams[0]);
    let revoked = admin.call("DELETE", &format!("/v1/tokens/{}", person.id), &[("if-match", "*")], None).unwrap();
    assert_eq!(revoked.status, 204, "{revoked:?}");
    assert_eq!(person.http.get("/v1/hosts/h1").unwrap().status, 401);
    eventually(PATIENCE, || {
        ensure!(stream.is_over(), "a revoked token goes on listening");
        Ok(())
    })
    .unwrap();
    assert!(streams[1..].iter().all(|stream| !stream.is_over()));
}

/// Exactly the hosts in scope went off, as far as the stream tells.
fn hears_its_own(person: &Person, stream: &EventStream) -> Result<()> {
    let events = stream.events();
    let hosts = events.iter().filter_map(|event| event.data["data"]["host"].as_str());
    let foreign: Vec<&str> = hosts.filter(|host| !person.hosts.contains(host)).collect();
    assert!(foreign.is_empty(), "{} hears of {foreign:?}", person.name);
    for host in person.hosts {
        let told = states(&events, host);
        ensure!(told == ["off"], "{}: {host}: {told:?}", person.name);
    }
    events.first().context("nothing heard").map(drop)
}
