//! The API over a real socket, with the core's part played by the test: every class of error, the frame, sealing, joining.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use picket_common::api::{CloudEvent, EventData, EventWhat, Field, Problem, Role, Scope};
use picket_common::command::Action;
use picket_common::command::{OperationState, Outcome, Refusal};
use picket_common::ha::HostStatus;
use picket_common::seal::{Belongs, key_pair, open};
use picket_common::secret::Secret;
use picket_common::wire::Generation;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

mod audit;
mod once;
mod receivers;
mod roles;
mod transfer;

use super::*;
use crate::config::notify::{Exec, Notify, Way};
use crate::context::{Archive, Asker, EventBus, Health, Published};
use crate::fleet::request::Gate;
use crate::fleet::route::Receiver;
use crate::fleet::view::{
    AgentRow, ApiTokenRow, BmcRow, ClusterRow, DefaultsRow, HaSet, HostRow, Operation, OperationRow, PartRow, RackRow, Reported,
    SealedPassword, ZoneRow,
};
use crate::fleet::{Event, Record, Rejection, Request as Asked};
use crate::notify;
use crate::store::Store;

const TOKEN: &str = "pkt_admin";
const CANARY: &str = "hunter2-canary";

type Answers = Arc<Mutex<VecDeque<Result<Answer, Rejection>>>>;

struct Rig {
    url: String,
    client: reqwest::Client,
    context: Context,
    authority: Arc<Authority>,
    recovery: Secret<[u8; 32]>,
    agent: Secret<[u8; 32]>,
    answers: Answers,
    asked: Arc<Mutex<Vec<(String, Asked)>>>,
    terms: Arc<Mutex<Terms>>,
    /// Held: the core takes in what is asked and does not answer.
    gate: Arc<tokio::sync::Mutex<()>>,
    dir: tempfile::TempDir,
}

/// A line of a host's history.
fn line(sequence: u64) -> Record {
    let line = json!({"sequence": sequence, "at": "2026-01-01T00:00:00Z", "recorded_at": "2026-01-01T00:00:00Z",
                      "kind": "gap", "first": 1, "last": 2});
    Record::History("h1".parse().unwrap(), Box::new(serde_json::from_value(line).unwrap()))
}

fn token(text: &str, role: Role, expires_at: Option<jiff::Timestamp>) -> ApiTokenRow {
    let hash = hex::encode(Sha256::digest(text.as_bytes()));
    ApiTokenRow { hash, name: "ann".into(), role, scope: Scope::default(), expires_at }
}

fn host_row(id: &str, cluster: &str, rack: &str) -> Arc<HostRow> {
    let bmc = BmcRow {
        driver: Some("ipmi".into()),
        address: "10.0.0.1".into(),
        port: None,
        username: Some("admin".into()),
        password: None,
        options: Default::default(),
        revision: 1,
    };
    Arc::new(HostRow {
        id: id.parse().unwrap(),
        zone: "z1".parse().unwrap(),
        cluster: cluster.parse().unwrap(),
        rack: rack.parse().unwrap(),
        oobm: Some(id != "h2"),
        enablement: 1,
        bmc: Some(bmc),
        maintenance: false,
        poll_interval: None,
        action_timeout: None,
        labels: Default::default(),
    })
}

fn small_view(agent_key: SealingKey) -> View {
    let mut view = View::default();
    for (text, role, end) in [
        (TOKEN, Role::Admin, None),
        ("pkt_viewer", Role::Viewer, None),
        ("pkt_operator", Role::Operator, None),
        ("pkt_fencer", Role::Fencer, None),
        ("pkt_auditor", Role::Auditor, None),
        ("pkt_old", Role::Admin, Some(jiff::Timestamp::UNIX_EPOCH)),
    ] {
        let row = token(text, role, end);
        view.api_tokens.insert(row.hash.as_str().into(), Arc::new(row));
    }
    let (zone, agent): (picket_common::id::ZoneId, picket_common::id::AgentId) = ("z1".parse().unwrap(), "r1".parse().unwrap());
    view.zones.insert(zone.clone(), Arc::new(ZoneRow { id: zone.clone(), oobm: None }));
    for id in ["c1", "c2"] {
        let (zone, bmc) = (zone.clone(), DefaultsRow::default());
        let row = ClusterRow { id: id.parse().unwrap(), zone, oobm: None, poll_interval: None, action_timeout: None, bmc };
        view.clusters.insert(row.id.clone(), Arc::new(row));
    }
    for (id, agent) in [("r1", Some(agent.clone())), ("r2", None)] {
        let row = RackRow { id: id.parse().unwrap(), zone: zone.clone(), agent, epoch: 1 };
        view.racks.insert(row.id.clone(), Arc::new(row));
    }
    let row = AgentRow {
        id: agent.clone(),
        rack: "r1".parse().unwrap(),
        sealing_key: agent_key,
        public_key: String::new(),
        boot: None,
        acked: 0,
        rolled_back: 0,
        generation: Generation { store: uuid::Uuid::nil(), counter: 1 },
        earlier: Default::default(),
    };
    view.agents.insert(agent, Arc::new(row));
    for (id, cluster, rack) in [("h1", "c1", "r1"), ("h2", "c1", "r1"), ("h3", "c2", "r2")] {
        let row = host_row(id, cluster, rack);
        view.cluster_hosts.entry(row.cluster.clone()).or_default().insert(row.id.clone());
        view.rack_hosts.entry(row.rack.clone()).or_default().insert(row.id.clone());
        view.hosts.insert(row.id.clone(), row);
    }
    view
}

/// A receiver that is told by a program, and named as it.
fn by_program(path: &str) -> Notify {
    let receiver = Receiver {
        id: path.rsplit('/').next().unwrap().parse().unwrap(),
        kinds: Vec::new(),
        zones: Vec::new(),
        clusters: Vec::new(),
        severity: picket_common::alert::Severity::Info,
        group_wait: Duration::ZERO,
        group_interval: Duration::ZERO,
        repeat_interval: Duration::from_secs(60),
        keep_alive: None,
    };
    let way = Way::Exec(Exec { program: path.into(), arguments: Vec::new() });
    Notify { receiver, timeout: Duration::from_secs(20), way }
}

impl Rig {
    async fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let dir = tempfile::tempdir().unwrap();
        let site = "site1".parse().unwrap();
        let (authority, recovery) = Authority::init(dir.path(), &site, &["localhost".to_owned()], clock::now()).unwrap();
        let authority = Arc::new(authority);
        let (agent, agent_key) = key_pair(&Secret::new([7; 32]));
        let (events, mut core) = mpsc::channel(64);
        let store = Store::open(dir.path()).unwrap();
        store.commit(&(1..=5).map(line).collect::<Vec<_>>()).unwrap();
        let archive = Archive::new(Arc::new(store.clone()));
        let context = Context {
            site,
            advertised_api: "aggr.example:8443".into(),
            advertised_mqtt: "aggr.example:8883".into(),
            asker: Asker::new(events),
            view: Arc::new(ArcSwap::from_pointee(small_view(agent_key))),
            events: EventBus::new(archive.clone(), 0),
            archive,
            health: Arc::new(Health::default()),
        };
        let (answers, asked) = (Answers::default(), Arc::new(Mutex::new(Vec::new())));
        let terms = Arc::<Mutex<Terms>>::default();
        let last_terms = Arc::clone(&terms);
        let gate = Arc::<tokio::sync::Mutex<()>>::default();
        let core_gate = Arc::clone(&gate);
        let (asker, queue, log) = (context.asker.clone(), Arc::clone(&answers), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Some(event) = core.recv().await {
                let asked = matches!(event, Event::Asked { .. });
                let (id, answer, records) = match event {
                    Event::Asked { id, principal, request, terms } => {
                        let answer = queue.lock().unwrap().pop_front().unwrap_or(Ok(Answer::Done { created: true }));
                        log.lock().unwrap().push((principal.to_string(), *request));
                        *last_terms.lock().unwrap() = (*terms).clone();
                        let records = answer.as_ref().map(|answer| terms.records(answer, clock::now()));
                        (id, answer.clone(), records.unwrap_or_default())
                    }
                    Event::Noted { id, note } => (id, Ok(Answer::Done { created: true }), vec![note.record(clock::now())]),
                    other => panic!("{other:?}"),
                };
                let (store, asker) = (store.clone(), asker.clone());
                let finish = move || {
                    store.commit(&records).unwrap();
                    asker.answer(id, answer);
                };
                let gate = Arc::clone(&core_gate);
                if asked && gate.try_lock().is_err() {
                    tokio::spawn(async move {
                        drop(gate.lock().await);
                        finish();
                    });
                } else {
                    finish();
                }
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let place = notify::Place {
            site: context.site.clone(),
            name: "aggr.example".into(),
            api: &context.advertised_api,
            state_dir: dir.path(),
            store: uuid::Uuid::nil(),
        };
        let receivers = ["/bin/true", "/bin/false"].map(by_program).into();
        let (attempts, _) = tokio::sync::mpsc::channel(1);
        let notifier = Notifier::new(place, tokio::runtime::Handle::current(), attempts, receivers);
        let app = router(context.clone(), Arc::clone(&authority), notifier);
        let app = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let (recovery, client) = (recovery.key().clone(), reqwest::Client::new());
        Self { url, client, context, authority, recovery, agent, answers, asked, terms, gate, dir }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(TOKEN)
    }

    async fn send(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.request(method, path).body(body).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, "").await.json().await.unwrap()
    }

    async fn problem(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Problem {
        problem(self.send(method, path, body).await).await
    }

    fn will_answer(&self, answer: Result<Answer, Rejection>) {
        self.answers.lock().unwrap().push_back(answer);
    }

    fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    fn last_asked(&self) -> (String, Asked) {
        self.asked.lock().unwrap().pop().unwrap()
    }

    fn change_view(&self, change: impl Fn(&mut View)) {
        self.context.view.rcu(|view| {
            let mut view = View::clone(view);
            change(&mut view);
            view
        });
    }
}

/// Checks what every error has in common.
async fn problem(response: reqwest::Response) -> Problem {
    let (status, headers) = (response.status(), response.headers().clone());
    assert_eq!(headers["content-type"], "application/problem+json");
    framed(&headers);
    let problem: Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status.as_u16());
    assert_eq!(headers["x-request-id"], problem.request_id.as_str());
    assert_eq!(problem.kind, format!("/problems/{}", problem.code));
    assert!(!problem.title.is_empty() && !problem.detail.is_empty());
    problem
}

fn framed(headers: &header::HeaderMap) {
    assert!(!headers["x-request-id"].is_empty());
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
}

#[tokio::test]
async fn bad_input_is_named_and_changes_nothing() {
    let rig = Rig::new().await;
    let (get, put, post, patch) = (Method::GET, Method::PUT, Method::POST, Method::PATCH);
    let long = "x".repeat(501);
    let big = format!(r#"{{"cluster":"{}"}}"#, "c".repeat(70_000));
    for (method, path, body, status, code, detail) in [
        (&get, "/v1/nothing", "", 404, "no-such-route", "/v1/nothing"),
        (&get, "/", "", 404, "no-such-route", "/"),
        (&post, "/v1/hosts/h1", "", 405, "method-not-allowed", "405"),
        (&get, "/v1/hosts/H1", "", 400, "invalid-value", "host: \"H1\" is not a valid host id"),
        (&get, "/v1/hosts/%ff", "", 400, "invalid-value", "path:"),
        (&get, "/v1/hosts/h9", "", 404, "not-found", "no host \"h9\""),
        (&get, "/v1/operations/7", "", 400, "invalid-value", "operation:"),
        (&get, "/v1/hosts?state=onn", "", 400, "invalid-value", "state: use one of"),
        (&get, "/v1/hosts?limit=0", "", 400, "invalid-value", "limit:"),
        (&get, "/v1/hosts?colour=red", "", 400, "invalid-value", "colour: is not a parameter"),
        (&get, "/v1/hosts?zone=Z", "", 400, "invalid-value", "zone:"),
        (&get, "/v1/hosts?page_token=!", "", 400, "invalid-value", "page_token:"),
        (&get, "/v1/alerts?state=on", "", 400, "invalid-value", "state:"),
        (&get, "/v1/alerts?kind=bmc", "", 400, "invalid-value", "kind: \"bmc\" is not a kind of alert"),
        (&get, "/v1/alerts/x", "", 404, "not-found", "no alert \"x\""),
        (&post, "/v1/alerts/x/silence", r#"{"duration":9}"#, 404, "not-found", "no alert \"x\""),
        (&post, "/v1/alerts/x/ack", r#"{"coment":"x"}"#, 400, "unknown-field", "`coment`"),
        (&get, "/v1/silences/x", "", 404, "not-found", "no silence \"x\""),
        (
            &post,
            "/v1/silences",
            r#"{"matchers":["hots=x"],"duration":9}"#,
            400,
            "invalid-value",
            "matchers[0]: \"hots\" is not a label",
        ),
        (&post, "/v1/silences", r#"{"matchers":["host=x"]}"#, 400, "invalid-value", "duration: is missing"),
        (&post, "/v1/silences", r#"{"matchers":["host=x"],"duration":0}"#, 400, "invalid-value", "duration: use 1 to"),
        (
            &post,
            "/v1/silences",
            r#"{"matchers":["host=x"],"duration":9,"ends_at":"2030-01-01T00:00:00Z"}"#,
            400,
            "invalid-value",
            "ends_at: give either",
        ),
        (&get, "/v1/events?host=H", "", 400, "invalid-value", "host:"),
        (&get, "/v1/events?since=2026-01-01T25:00:00Z", "", 400, "invalid-value", "since:"),
        (&get, "/v1/audit?order=up", "", 400, "invalid-value", "order:"),
        (&get, "/v1/audit?since=yesterday", "", 400, "invalid-value", "since:"),
        (&put, "/v1/hosts/h1", "{", 400, "malformed-json", "line 1"),
        (&put, "/v1/hosts/h1", r#"{"cluster":"c1"}"#, 400, "invalid-value", "rack: is missing"),
        (&put, "/v1/hosts/h1", r#"{"cluster":"c1","rack":"r1","colour":1}"#, 400, "unknown-field", "`colour`"),
        (&put, "/v1/hosts/h1", r#"{"cluster":"c1","rack":"r1","bmc":{"port":"x"}}"#, 400, "invalid-value", "bmc.port:"),
        (&put, "/v1/hosts/h1", &big, 413, "body-too-large", "65536"),
        (&put, "/v1/zones/z1", r#"{"x":1}"#, 400, "unknown-field", "`x`"),
        (
            &put,
            "/v1/hosts/h9",
            r#"{"cluster":"c1","rack":"r9","bmc":{"address":"a","password":"p"}}"#,
            400,
            "invalid-value",
            "rack:",
        ),
        (
            &put,
            "/v1/hosts/h9",
            r#"{"cluster":"c1","rack":"r2","bmc":{"address":"a","password":"p"}}"#,
            409,
            "rack-without-agent",
            "no agent",
        ),
        (&patch, "/v1/hosts/h9", "{}", 404, "not-found", "h9"),
        (&patch, "/v1/hosts/h1", r#"{"bmc":{"password":"a\u0000b"}}"#, 400, "invalid-value", "bmc.password: holds a NUL"),
        (&post, "/v1/hosts/h1/power", r#"{"operation":"explode"}"#, 400, "invalid-value", "operation:"),
        (&post, "/v1/hosts/h1/power", "", 400, "invalid-value", "operation: is missing"),
        (&post, "/v1/hosts/h1/power", r#"{"operation":"on","timeout":-1}"#, 400, "invalid-value", "timeout:"),
        (&post, "/v1/hosts/h1/power", r#"{"operation":"on","timeout":0}"#, 400, "invalid-value", "timeout:"),
        (&post, "/v1/hosts/h1/power", &format!(r#"{{"operation":"on","reason":"{long}"}}"#), 400, "invalid-value", "reason:"),
        (&post, "/v1/agents/tokens", r#"{"rack":"r9"}"#, 404, "not-found", "rack"),
        (&post, "/v1/agents/tokens", r#"{"rack":"r1","ttl":5}"#, 400, "invalid-value", "ttl:"),
        (&post, "/v1/agents/tokens", r#"{"host":"h99"}"#, 404, "not-found", "host"),
        (&post, "/v1/agents/tokens", r#"{"host":"h1","rack":"r1"}"#, 400, "invalid-value", "rack:"),
        (&post, "/v1/agents/tokens", r#"{"host":"h1","agent":"a"}"#, 400, "invalid-value", "agent:"),
        (&post, "/v1/agents/tokens", "{}", 400, "invalid-value", "rack:"),
        (&post, "/v1/consumers", r#"{"name":"n","days":0}"#, 400, "invalid-value", "days:"),
        (&post, "/v1/consumers", r#"{"name":"a/b"}"#, 400, "invalid-value", "name:"),
        (&post, "/v1/agents/join", r#"{"token_id":"aa","csr":"","sealing_key":"","proof":""}"#, 403, "join-refused", "token"),
    ] {
        let problem = rig.problem(method.clone(), path, body.to_owned()).await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{method} {path} {}", problem.detail);
        assert!(problem.detail.contains(detail), "{method} {path}: {}", problem.detail);
    }
    assert!(rig.asked.lock().unwrap().is_empty(), "nothing reached the core");
    let allowed = rig.send(Method::POST, "/v1/hosts/h1", "").await;
    assert!(allowed.headers()["allow"].to_str().unwrap().contains("PATCH"));
}

#[tokio::test]
async fn the_cores_no_is_passed_on() {
    let rig = Rig::new().await;
    for (rejection, status, code) in [
        (Rejection::Refused(Refusal::ZoneDisabled), 409, "zone-disabled"),
        (Rejection::Refused(Refusal::ClusterDisabled), 409, "cluster-disabled"),
        (Rejection::Refused(Refusal::HostDisabled), 409, "host-disabled"),
        (Rejection::ZoneMismatch("z1 is not z2".into()), 400, "zone-mismatch"),
        (Rejection::Store("full".into()), 503, "store-unavailable"),
    ] {
        rig.will_answer(Err(rejection));
        let problem = rig.problem(Method::POST, "/v1/hosts/h1/power", r#"{"operation":"off"}"#).await;
        assert_eq!((problem.status, problem.code.as_str()), (status, code));
    }
}

#[tokio::test]
async fn lists_page_through_and_filter() {
    let rig = Rig::new().await;
    let ids =
        |page: &Value| page["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let first = rig.get("/v1/hosts?limit=2").await;
    assert_eq!(ids(&first), ["h1", "h2"]);
    let token = first["next_page_token"].as_str().unwrap();
    let second = rig.get(&format!("/v1/hosts?limit=2&page_token={token}")).await;
    assert_eq!(ids(&second), ["h3"]);
    assert!(second.get("next_page_token").is_none());
    assert_eq!(ids(&rig.get("/v1/hosts?limit=3").await), ["h1", "h2", "h3"]);
    for (query, wanted) in [
        ("cluster=c2", &["h3"][..]),
        ("rack=r1", &["h1", "h2"]),
        ("zone=z1&state=disabled", &["h1", "h2", "h3"]),
        ("zone=z2", &[]),
        ("state=off", &[]),
    ] {
        assert_eq!(ids(&rig.get(&format!("/v1/hosts?{query}")).await), wanted, "{query}");
    }
    assert_eq!(ids(&rig.get("/v1/clusters?zone=z1").await), ["c1", "c2"]);
    assert_eq!(ids(&rig.get("/v1/racks").await), ["r1", "r2"]);
    let lines = rig.get("/v1/hosts/h1/history?limit=3").await;
    assert_eq!(lines["items"][0]["sequence"], 5);
    let token = lines["next_page_token"].as_str().unwrap();
    let rest = rig.get(&format!("/v1/hosts/h1/history?limit=3&page_token={token}")).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), rest["items"][1]["sequence"].as_u64()), (2, Some(1)));
}

#[tokio::test]
async fn where_hosts_stand_is_shown_and_selects() {
    let rig = Rig::new().await;
    let mut view = (*rig.context.view.load_full()).clone();
    let host: HostId = "h1".parse().unwrap();
    let report = json!({"host": "h1", "version": 3, "at": 0, "why": "three Off readings", "quarantined": true, "acked": false,
        "state": {"Fenced": {"evidence": {"Readings": 3}, "restarting": false, "returned": false, "released": false}},
        "error": null, "operation": null,
        "proof": {"readings": [[0, "ipmi 10.0.0.1"]], "health": "no answer", "off_sent": true, "attempt": 1}});
    let reported = Reported { report: serde_json::from_value(report).unwrap(), status: HostStatus::Down, ..Reported::default() };
    view.reported.insert(host.clone(), Arc::new(reported));
    let set = HaSet { gate: Some(true), ..HaSet::default() };
    view.ha.insert(Gate::Host(host), Arc::new(set));
    rig.context.view.store(Arc::new(view));
    let ids =
        |page: &Value| page["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    for (query, wanted) in [
        ("ha=fenced", &["h1"][..]),
        ("host_status=down", &["h1"]),
        ("select=%40status%3Adown", &["h1"]),
        ("select=%40all%21%40ha%3Afenced", &["h2", "h3"]),
        ("ha=disabled&host_status=unknown", &["h2", "h3"]),
        ("ha=suspect", &[]),
    ] {
        assert_eq!(ids(&rig.get(&format!("/v1/hosts?{query}")).await), wanted, "{query}");
    }
    assert_eq!(rig.send(Method::GET, "/v1/hosts?ha=dead", "").await.status(), 400);
    let shown = rig.get("/v1/hosts/h1").await;
    assert_eq!((&shown["ha"]["state"], &shown["host_status"]), (&json!("fenced"), &json!("down")));
    let whole = rig.get("/v1/hosts/h1/ha").await;
    assert_eq!((&whole["state"], &whole["proof"]["readings"][0]["device"]), (&json!("fenced"), &json!("ipmi 10.0.0.1")));
    assert_eq!(whole["settings"]["policy"], json!({"value": "power-off", "from": "default"}));
    let silent = rig.get("/v1/hosts/h2/ha").await;
    assert_eq!((silent.get("state"), &silent["host_status"], &silent["closed"]), (None, &json!("unknown"), &json!("host")));
    assert_eq!(rig.send(Method::GET, "/v1/hosts/h9/ha", "").await.status(), 404);
    let counts = &rig.get("/v1/summary").await["hosts"];
    assert_eq!((&counts["ha"], &counts["host_status"]), (&json!({"disabled": 2, "fenced": 1}), &json!({"down": 1, "unknown": 2})));
}

#[tokio::test]
async fn puts_make_and_change() {
    let rig = Rig::new().await;
    let made = rig.send(Method::PUT, "/v1/zones/z1", "").await;
    assert_eq!(made.status(), 201);
    assert_eq!(made.json::<Value>().await.unwrap()["oobm_enabled"], true);
    rig.will_answer(Ok(Answer::Done { created: false }));
    assert_eq!(rig.send(Method::PUT, "/v1/clusters/c1", r#"{"zone":"z1","poll_interval":5}"#).await.status(), 200);
    let (principal, request) = rig.last_asked();
    assert_eq!(principal, "ann");
    assert!(matches!(request, Asked::PutCluster(id, body) if id.as_str() == "c1" && body.poll_interval == Some(5)));
    assert_eq!(rig.send(Method::DELETE, "/v1/racks/r2", "").await.status(), 204);
    let gate: Value = rig.send(Method::POST, "/v1/clusters/c1/oobm/disable", "").await.json().await.unwrap();
    assert_eq!(gate, json!({"scope": "cluster", "id": "c1", "oobm_enabled": false}));
}

#[tokio::test]
async fn passwords_are_sealed_at_once_and_never_seen() {
    let (log, _guard) = captured_log();
    let rig = Rig::new().await;
    let body = json!({"cluster": "c1", "rack": "r1", "bmc": {"driver": "ipmi", "address": "10.0.0.9", "username": "root", "password": CANARY}});
    let mut seen = rig.send(Method::PUT, "/v1/hosts/h1", body.to_string()).await.text().await.unwrap();
    let (_, Asked::PutHost(host, spec)) = rig.last_asked() else { panic!("not a host") };
    assert!(!format!("{spec:?}").contains(CANARY));
    let sealed = password_of(spec.bmc.unwrap());
    let belongs = Belongs::Host { host: &host, address: "10.0.0.9", username: "root" };
    assert_eq!(open(&rig.agent, belongs, &sealed.agent).unwrap().expose(), CANARY);
    assert_eq!(open(&rig.recovery, belongs, &sealed.recovery).unwrap().expose(), CANARY);

    // A patch seals for what results: the new address with the old user.
    let body = json!({"bmc": {"address": "10.0.0.7", "password": CANARY}});
    seen += &rig.send(Method::PATCH, "/v1/hosts/h1", body.to_string()).await.text().await.unwrap();
    let (_, Asked::PatchHost(host, change)) = rig.last_asked() else { panic!("not a change") };
    let belongs = Belongs::Host { host: &host, address: "10.0.0.7", username: "admin" };
    let Field::Set(change) = change.bmc else { panic!("no BMC") };
    let sealed = password_of(change);
    assert_eq!(open(&rig.agent, belongs, &sealed.agent).unwrap().expose(), CANARY);

    // In every wrong place it is not repeated.
    let line = json!({"id": "h1", "cluster": "c1", "rack": "r1", "bmc": {"address": "a", "password": [CANARY]}});
    let too_long = json!({"bmc": {"password": format!("{CANARY}{}", "x".repeat(255))}});
    for (method, path, body) in [
        (Method::POST, "/v1/import/hosts", line.to_string()),
        (Method::PATCH, "/v1/hosts/h1", too_long.to_string()),
        (Method::PATCH, "/v1/hosts/h1", json!({"bmc": CANARY}).to_string()),
        (Method::PATCH, "/v1/hosts/h1", json!({"bmc": {"port": CANARY}}).to_string()),
        (Method::PATCH, "/v1/hosts/h1", json!({"bmc": {"options": CANARY}}).to_string()),
        (Method::PATCH, "/v1/hosts/h1", json!({"bmc": {"pasword": CANARY}}).to_string()),
        (Method::PATCH, "/v1/hosts/h1", json!({"labels": CANARY, "bmc": {"password": CANARY}}).to_string()),
        (Method::PATCH, "/v1/hosts/h1", format!(r#"{{"bmc":{{"password":"{CANARY}"}}"#)),
        (
            Method::PUT,
            "/v1/hosts/h3",
            json!({"cluster": "c2", "rack": "r2", "bmc": {"address": "a", "password": CANARY}}).to_string(),
        ),
    ] {
        let response = rig.send(method, path, body.clone()).await;
        assert!(path.contains("import") || !response.status().is_success(), "{body}");
        seen += &response.text().await.unwrap();
    }
    rig.will_answer(Err(Rejection::Store("full".into())));
    let body = json!({"bmc": {"password": CANARY}}).to_string();
    seen += &rig.send(Method::PATCH, "/v1/hosts/h1", body).await.text().await.unwrap();
    assert!(seen.contains("bmc.password") && !seen.contains(CANARY), "{seen}");
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(log.contains("request refused") && log.contains("store") && !log.contains(CANARY), "{log}");
}

fn password_of(change: crate::fleet::request::BmcChange) -> SealedPassword {
    match change.password {
        Field::Set(given) => given.password,
        other => panic!("no password: {other:?}"),
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything this thread logs, at every level; the test's runtime has no other thread.
fn captured_log() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    (log.0, tracing::subscriber::set_default(subscriber))
}

fn operation_row(id: picket_common::id::OperationId, host: &str, done: bool) -> Operation {
    let at = jiff::Timestamp::UNIX_EPOCH;
    let row = OperationRow {
        id,
        operation: Action::Off,
        on_if_off: false,
        principal: "ann".into(),
        reason: None,
        accepted_at: at,
        deadline: at,
        stagger_ms: 0,
    };
    let part = PartRow {
        operation: id,
        host: host.parse().unwrap(),
        state: if done { OperationState::Done } else { OperationState::Sent },
        outcome: done.then_some(Outcome::Changed),
        cancelling: false,
        maintenance: false,
        starts_at: at,
        deadline: at,
        sent_at: Some(at),
        sent_enablement: None,
        admitted_at: None,
        done_at: done.then_some(at),
    };
    Operation::new(row, [part])
}

#[tokio::test]
async fn power_is_accepted_followed_and_cancelled() {
    let rig = Rig::new().await;
    let id = picket_common::id::OperationId(uuid_now());
    rig.change_view(|view| drop(view.operations.insert(id, Arc::new(operation_row(id, "h1", false)))));
    rig.will_answer(Ok(Answer::Accepted(id)));
    let response = rig.send(Method::POST, "/v1/hosts/h1/power", r#"{"operation":"off","reason":"test"}"#).await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (202, "1"));
    assert_eq!(response.headers()["location"], format!("/v1/operations/{id}").as_str());
    assert_eq!(response.json::<Value>().await.unwrap()["done"], false);

    // Waiting: the answer comes when the operation is done, long before the minute is over.
    rig.will_answer(Ok(Answer::Accepted(id)));
    let waiting = rig.request(Method::POST, "/v1/hosts/h1/power").header("prefer", "wait=60").body(r#"{"operation":"off"}"#);
    let waiting = tokio::spawn(waiting.send());
    while rig.asked.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    rig.change_view(|view| drop(view.operations.insert(id, Arc::new(operation_row(id, "h1", true)))));
    let response = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.unwrap()["hosts"][0]["result"], "changed");

    let listed = rig.get("/v1/operations").await;
    assert_eq!(listed["items"][0]["id"], id.to_string());
    assert_eq!(rig.get(&format!("/v1/operations/{id}")).await["operation"], "off");
    rig.will_answer(Err(Rejection::TooLate("it was sent already".into())));
    assert_eq!(rig.problem(Method::DELETE, &format!("/v1/operations/{id}"), "").await.code, "too-late");
}

#[tokio::test]
async fn a_dry_run_asks_nothing() {
    let rig = Rig::new().await;
    for (host, refusal) in [("h1", Value::Null), ("h2", json!("host-disabled"))] {
        let path = format!("/v1/hosts/{host}/power");
        let response = rig.send(Method::POST, &path, r#"{"operation":"off","dry_run":true}"#).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap()["refusal"], refusal);
    }
    assert!(rig.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_agent_joins_with_a_proof() {
    let rig = Rig::new().await;
    let response = rig.send(Method::POST, "/v1/agents/tokens", r#"{"rack":"r2","ttl":600}"#).await;
    assert_eq!(response.status(), 201);
    let shown: picket_common::api::JoinToken = response.json().await.unwrap();
    assert_eq!(shown.command, format!("picket-agent join {}", shown.token));
    let token: picket_common::join::JoinToken = shown.token.parse().unwrap();
    assert_eq!((token.api.as_str(), token.ca_hash.as_str()), ("aggr.example:8443", rig.authority.ca_spki_sha256().as_str()));
    let (_, Asked::AddJoinToken(row)) = rig.last_asked() else { panic!("not a token") };
    assert_eq!((row.agent.as_str(), row.id.as_str()), ("r2", token.id.as_str()));
    rig.change_view(|view| drop(view.join_tokens.insert(row.id.as_str().into(), Arc::new(row.clone()))));

    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let sealing_key = hex::encode([5; 32]);
    let proof = |csr: &str| picket_common::join::proof(&token.secret, "request", &[&token.ca_hash, &token.id, csr, &sealing_key]);
    let body =
        |csr: &str, proof: &str| json!({"token_id": token.id, "csr": csr, "sealing_key": sealing_key, "proof": proof}).to_string();
    let join = async |body: String| rig.client.post(format!("{}/v1/agents/join", rig.url)).body(body).send().await.unwrap();

    let wrong = problem(join(body(&csr, &proof("other"))).await).await;
    let unknown = problem(join(body(&csr, &proof(&csr)).replace(&token.id, "ff")).await).await;
    assert_eq!((&wrong.code, &wrong.detail), (&unknown.code, &unknown.detail));
    assert_eq!(problem(join(body("no csr", &proof("no csr"))).await).await.detail, "csr: not PEM");
    assert!(rig.asked.lock().unwrap().is_empty());
    // However many have no proof, those who have one get in.
    for _ in 0..100 {
        assert_eq!(problem(join(body(&csr, &proof("other"))).await).await.code, wrong.code);
    }

    rig.will_answer(Ok(Answer::Joined { agent: "r2".parse().unwrap(), certificate: "CERT".into() }));
    let response = join(body(&csr, &proof(&csr))).await;
    assert_eq!(response.status(), 200);
    let answer: picket_common::api::JoinResponse = response.json().await.unwrap();
    let keys = answer.verifying_keys.join(",");
    let parts = [&token.ca_hash, &token.id, answer.agent.as_str(), &answer.certificate, &answer.ca, &answer.mqtt, &keys];
    assert!(picket_common::join::verify(&token.secret, "response", &parts, &answer.proof));
    let (_, Asked::Join { certificate, public_key, .. }) = rig.last_asked() else { panic!("not a join") };
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE") && public_key.len() == 64);
    rig.will_answer(Err(Rejection::TokenUsed));
    assert_eq!(problem(join(body(&csr, &proof(&csr))).await).await.code, "token-used");
}

#[tokio::test]
async fn a_witness_joins_as_agents_do() {
    let rig = Rig::new().await;
    let response = rig.send(Method::POST, "/v1/agents/tokens", r#"{"host":"h1"}"#).await;
    assert_eq!(response.status(), 201);
    let shown: picket_common::api::JoinToken = response.json().await.unwrap();
    assert_eq!(shown.agent.as_str(), "h1");
    let token: picket_common::join::JoinToken = shown.token.parse().unwrap();
    let (_, Asked::AddWitnessToken(row)) = rig.last_asked() else { panic!("not a token") };
    rig.change_view(|view| drop(view.witness_tokens.insert(row.id.as_str().into(), Arc::new(row.clone()))));
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let sealing_key = hex::encode([5; 32]);
    let proof = picket_common::join::proof(&token.secret, "request", &[&token.ca_hash, &token.id, &csr, &sealing_key]);
    let body = json!({"token_id": token.id, "csr": csr, "sealing_key": sealing_key, "proof": proof}).to_string();
    rig.will_answer(Ok(Answer::Joined { agent: "h1".parse().unwrap(), certificate: "CERT".into() }));
    let response = rig.client.post(format!("{}/v1/agents/join", rig.url)).body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (_, Asked::JoinWitness { certificate, .. }) = rig.last_asked() else { panic!("not a join") };
    let certificate =
        <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_slice(certificate.as_bytes()).unwrap();
    let role = picket_common::certificate::identity(&certificate).unwrap().identity.role;
    assert_eq!(role, picket_common::certificate::Role::Witness("h1".parse().unwrap()));
}

#[tokio::test]
async fn a_consumer_gets_its_certificate_once() {
    let rig = Rig::new().await;
    let response = rig.send(Method::POST, "/v1/consumers", r#"{"name":"nagios"}"#).await;
    assert_eq!(response.status(), 201);
    let issued: picket_common::api::ConsumerCertificate = response.json().await.unwrap();
    assert!(issued.private_key.contains("PRIVATE KEY") && issued.ca == rig.authority.ca_pem());
    assert_eq!(issued.mqtt, "aggr.example:8883");
}

fn event(sequence: u64, host: &str, kind: &str) -> Arc<Published> {
    let data = EventData {
        host: Some(host.parse().unwrap()),
        zone: Some("z1".parse().unwrap()),
        cluster: Some(if host == "h3" { "c2" } else { "c1" }.parse().unwrap()),
        agent: None,
        what: EventWhat::Presence { connected: true },
    };
    let event = CloudEvent {
        specversion: "1.0".into(),
        id: format!("e{sequence}"),
        source: "/x".into(),
        kind: format!("io.picket.{kind}.v1"),
        subject: host.into(),
        time: jiff::Timestamp::UNIX_EPOCH,
        datacontenttype: "application/json".into(),
        data,
    };
    Arc::new(Published::new(sequence, clock::now().wall, event))
}

async fn told(response: reqwest::Response, wanted: usize) -> String {
    let mut text = String::new();
    let mut stream = response.bytes_stream();
    while text.matches("\n\n").count() < wanted {
        let chunk = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap().unwrap();
        text += std::str::from_utf8(&chunk).unwrap();
    }
    text
}

#[tokio::test]
async fn events_are_streamed_filtered_and_resumed() {
    let rig = Rig::new().await;
    let all = rig.send(Method::GET, "/v1/events", "").await;
    assert_eq!(all.headers()["content-type"], "text/event-stream");
    let some = async |query: &str| rig.send(Method::GET, &format!("/v1/events?{query}"), "").await;
    let narrow = [
        (some("host=h1&kind=power.changed").await, 3),
        (some("kind=alert.firing,power.changed").await, 2),
        (some("cluster=c2").await, 4),
        (some("zone=z1&host=h2").await, 2),
        (some("kind=io.picket.power.changed.v1&zone=z1").await, 2),
    ];
    let events =
        [event(1, "h1", "bmc.lost"), event(2, "h2", "power.changed"), event(3, "h1", "power.changed"), event(4, "h3", "x")];
    for event in &events {
        rig.context.events.publish(Arc::clone(event));
    }
    let text = told(all, 3).await;
    let cursor = events[0].cursor();
    assert!(text.starts_with(&format!("id: {cursor}\nevent: io.picket.bmc.lost.v1\ndata: {{\"specversion\"")), "{text}");
    for (stream, first) in narrow {
        let text = told(stream, 1).await;
        assert!(text.starts_with(&format!("id: {first}-")), "{first}: {text}");
    }
    let resumed = rig.request(Method::GET, "/v1/events").header("last-event-id", events[1].cursor()).send().await.unwrap();
    assert!(told(resumed, 1).await.starts_with("id: 3-"));
    assert!(told(some(&format!("since={}", events[2].cursor())).await, 1).await.starts_with("id: 4-"));
    for unknown in ["gone", "3-00000000", "99-01234567"] {
        let lost = rig.request(Method::GET, "/v1/events").header("last-event-id", unknown).send().await.unwrap();
        assert!(told(lost, 1).await.starts_with("event: resync\n"), "{unknown}");
    }
}

#[tokio::test]
async fn health_is_open_and_says_what_is_wrong() {
    let rig = Rig::new().await;
    let get = async |path: &str| rig.client.get(format!("{}{path}", rig.url)).send().await.unwrap();
    let not_ready = get("/readyz?verbose").await;
    assert_eq!(not_ready.status(), 503);
    assert!(not_ready.text().await.unwrap().contains("[-] broker: "));
    rig.context.health.core_progress();
    rig.context.health.broker_probe();
    let ready = get("/readyz?verbose").await;
    framed(ready.headers());
    assert_eq!(
        (ready.status().as_u16(), ready.text().await.unwrap().as_str()),
        (200, "[+] store ok\n[+] core ok\n[+] broker ok\nready\n")
    );
    assert_eq!(get("/livez").await.status(), 200);
}
