//! The real daemon over real sockets: made, run, stopped, killed, started again; and an agent's whole way through it.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the helpers of tests fail as tests do")]

#[path = "waiting/eventually.rs"]
mod eventually;
#[path = "waiting/ready.rs"]
mod ready;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use picket_common::api::{JoinRequest, JoinResponse, JoinToken};
use picket_common::id::AgentId;
use picket_common::join::{JoinToken as Token, proof};
use picket_common::wire::assign::Assign;
use picket_common::wire::codec::{VerifyingKey, encode, verify};
use picket_common::wire::report::{Gone, Hello};
use picket_common::wire::topic::{Channel, internal};
use picket_common::wire::{Incarnation, Session};
use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

use eventually::eventually;
use ready::Ready;

/// Far above what any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_picket-aggregator"));
    command.arg("--config").arg(folder.join("aggregator.toml")).arg("--state-dir").arg(folder.join("state"));
    command.stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with settings for loopback and ports that the system chooses.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let settings = "listen = \"127.0.0.1:0\"\nmqtt_listen = \"127.0.0.1:0\"\nadvertise = \"127.0.0.1\"\n";
    std::fs::write(folder.path().join("aggregator.toml"), settings).unwrap();
    folder
}

struct Site {
    folder: TempDir,
    token: String,
}

impl Site {
    fn new() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = folder();
        let output = program(folder.path()).args(["init", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        Self { token: made["token"].as_str().unwrap().to_owned(), folder }
    }

    fn ca(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("state/pki/ca.pem")).unwrap()
    }

    async fn start(&self) -> Daemon {
        let mut daemon = program(self.folder.path());
        let ready = Ready::of(&mut daemon, self.folder.path());
        let child = daemon.stderr(Stdio::null()).spawn().unwrap();
        tokio::task::spawn_blocking(move || ready.wait()).await.unwrap();
        let addresses = std::fs::read(self.folder.path().join("state/addresses.json")).unwrap();
        let addresses: Value = serde_json::from_slice(&addresses).unwrap();
        let (api, mqtt) = (addresses["api"].as_str().unwrap().to_owned(), addresses["mqtt"].as_str().unwrap().to_owned());
        let http = reqwest::Client::builder().tls_backend_preconfigured(trusting(&self.ca())).build().unwrap();
        Daemon { child, api, mqtt, token: self.token.clone(), http }
    }
}

fn roots(ca: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    roots
}

fn trusting(ca: &str) -> rustls::ClientConfig {
    rustls::ClientConfig::builder().with_root_certificates(roots(ca)).with_no_client_auth()
}

struct Daemon {
    child: Child,
    api: String,
    mqtt: String,
    token: String,
    http: reqwest::Client,
}

impl Daemon {
    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("https://{}{path}", self.api)).bearer_auth(&self.token)
    }

    async fn get(&self, path: &str) -> Value {
        self.request(reqwest::Method::GET, path).send().await.unwrap().json().await.unwrap()
    }

    async fn change(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let answer = self.request(method, path).json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    async fn put(&self, path: &str, body: Value) -> Value {
        self.change(reqwest::Method::PUT, path, body).await
    }

    async fn zones(&self) -> BTreeSet<String> {
        let page = self.get("/v1/zones?limit=1000").await;
        page["items"].as_array().unwrap().iter().map(|zone| zone["id"].as_str().unwrap().to_owned()).collect()
    }

    /// SIGTERM; whether it ended well.
    fn stop(mut self) -> bool {
        assert!(Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap().success());
        self.child.wait().unwrap().success()
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

#[test]
fn what_cannot_run_says_why_and_what_to_do() {
    let folder = folder();
    let run = program(folder.path()).output().unwrap();
    assert!(!run.status.success() && said(&run).contains("run `picket-aggregator init` first"), "{}", said(&run));
    let key = folder.path().join("recovery.key");
    let init = || program(folder.path()).arg("init").arg("--recovery-key-file").arg(&key).output().unwrap();
    let first = init();
    assert!(first.status.success(), "{}", said(&first));
    let text = String::from_utf8_lossy(&first.stdout);
    assert!(text.contains("pkt_") && !text.contains("pkr1."), "{text}");
    assert!(std::fs::read_to_string(&key).unwrap().starts_with("pkr1."));
    let second = init();
    assert!(!second.status.success() && said(&second).contains("holds a site already"), "{}", said(&second));
    std::fs::write(folder.path().join("aggregator.toml"), "site = \"other\"\n").unwrap();
    let run = program(folder.path()).output().unwrap();
    assert!(!run.status.success() && said(&run).contains("the settings say other"), "{}", said(&run));
    std::fs::write(folder.path().join("aggregator.toml"), "\n[oobm]\nsync_interval = -1\n").unwrap();
    let check = program(folder.path()).arg("check-config").output().unwrap();
    assert!(!check.status.success() && said(&check).contains("aggregator.toml:3: must be 1 to 3600"), "{}", said(&check));
    let missing = program(&folder.path().join("none")).arg("check-config").output().unwrap();
    assert!(!missing.status.success() && said(&missing).contains("none/aggregator.toml"), "{}", said(&missing));
}

#[tokio::test]
async fn a_restart_keeps_the_state() {
    let site = Site::new();
    let daemon = site.start().await;
    assert_eq!(daemon.request(reqwest::Method::GET, "/livez").send().await.unwrap().status(), 200);
    eventually("ready", async || {
        daemon.http.get(format!("https://{}/readyz", daemon.api)).send().await.ok().filter(|r| r.status() == 200)
    })
    .await;
    daemon.put("/v1/zones/z1", json!({})).await;
    daemon.put("/v1/clusters/c1", json!({ "zone": "z1" })).await;
    daemon.put("/v1/racks/r1", json!({ "zone": "z1" })).await;
    daemon.put("/v1/hosts/h1", json!({ "cluster": "c1", "rack": "r1" })).await;
    assert!(daemon.stop());
    let daemon = site.start().await;
    assert_eq!(daemon.zones().await, BTreeSet::from(["z1".to_owned()]));
    assert_eq!(daemon.get("/v1/hosts/h1").await["zone"], "z1");
    assert!(daemon.stop());
}

#[tokio::test]
async fn what_was_answered_survives_being_killed_in_the_middle() {
    let site = Site::new();
    let mut promised = BTreeSet::new();
    for round in 0..3 {
        let daemon = site.start().await;
        let (answered, mut count) = watch::channel(BTreeSet::new());
        let answered = Arc::new(answered);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (http, token, api) = (daemon.http.clone(), daemon.token.clone(), daemon.api.clone());
                let answered = Arc::clone(&answered);
                tokio::spawn(async move {
                    for n in 0.. {
                        let zone = format!("z{round}-{writer}-{n}");
                        let put = http.put(format!("https://{api}/v1/zones/{zone}")).bearer_auth(&token).json(&json!({}));
                        match put.send().await {
                            Ok(answer) if answer.status() == 201 => answered.send_modify(|zones| zones.extend([zone])),
                            _ => return,
                        }
                    }
                })
            })
            .collect();
        let writes = count.wait_for(|zones: &BTreeSet<String>| zones.len() > 40);
        drop(tokio::time::timeout(PATIENCE, writes).await.expect("writes are answered").unwrap());
        daemon.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        promised.append(&mut answered.send_replace(BTreeSet::new()));
    }
    let daemon = site.start().await;
    let found = daemon.zones().await;
    let lost: Vec<_> = promised.difference(&found).collect();
    assert!(lost.is_empty(), "{} of {} are gone: {lost:?}", lost.len(), promised.len());
}

/// An agent of a few lines: joined, connected, subscribed.
struct Agent {
    id: AgentId,
    client: AsyncClient,
    events: rumqttc::EventLoop,
    keys: Vec<VerifyingKey>,
}

async fn join(daemon: &Daemon, rack: &str) -> (Agent, Hello) {
    let made = daemon.change(reqwest::Method::POST, "/v1/agents/tokens", json!({ "rack": rack })).await;
    let made: JoinToken = serde_json::from_value(made).unwrap();
    let token: Token = made.token.parse().unwrap();
    assert_eq!(token.api, daemon.api);
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let sealing_key = "11".repeat(32);
    let proof = proof(&token.secret, "request", &[&token.ca_hash, &token.id, &csr, &sealing_key]);
    let body = JoinRequest { token_id: token.id, csr, sealing_key, proof };
    let answer = daemon.http.post(format!("https://{}/v1/agents/join", daemon.api)).json(&body).send().await.unwrap();
    let answer: JoinResponse = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(answer.mqtt, daemon.mqtt);
    let keys = answer.verifying_keys.iter().map(|key| {
        let mut bytes = [0; 32];
        hex::decode_to_slice(key, &mut bytes).unwrap();
        VerifyingKey(bytes)
    });
    let chain = CertificateDer::pem_slice_iter(answer.certificate.as_bytes()).map(Result::unwrap).collect();
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots(&answer.ca)).with_client_auth_cert(chain, private);
    let (host, port) = daemon.mqtt.rsplit_once(':').unwrap();
    let mut options = MqttOptions::new(answer.agent.as_str(), host, port.parse().unwrap());
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls.unwrap()))));
    options.set_max_packet_size(70_000, 70_000);
    let session = Session(Uuid::new_v4());
    let will = encode(&Gone { session }).unwrap();
    options.set_last_will(LastWill::new(internal(&answer.agent, Channel::Gone), will, QoS::AtLeastOnce, false));
    let (client, events) = AsyncClient::new(options, 16);
    let hello = Hello {
        session,
        boot: Incarnation(Uuid::new_v4()),
        version: "0.1.0".into(),
        generation: None,
        oldest: 1,
        next: 1,
        nonce: 7,
    };
    (Agent { id: answer.agent, client, events, keys: keys.collect() }, hello)
}

impl Agent {
    /// What comes next on a channel, its signature checked.
    async fn hear<M: picket_common::wire::codec::Message>(&mut self, wanted: Channel) -> M {
        let listening = async {
            loop {
                if let Event::Incoming(Packet::Publish(publish)) = self.events.poll().await.unwrap()
                    && publish.topic == internal(&self.id, wanted)
                {
                    return verify(&self.keys, &self.id, &publish.payload).unwrap();
                }
            }
        };
        tokio::time::timeout(PATIENCE, listening).await.expect("heard nothing")
    }
}

#[tokio::test]
async fn an_agents_whole_way_join_hello_assignment_and_presence() {
    let site = Site::new();
    let daemon = site.start().await;
    daemon.put("/v1/zones/z1", json!({})).await;
    daemon.put("/v1/clusters/c1", json!({ "zone": "z1" })).await;
    daemon.put("/v1/racks/r1", json!({ "zone": "z1" })).await;
    let (mut agent, hello) = join(&daemon, "r1").await;
    for channel in Channel::DOWN {
        agent.client.subscribe(internal(&agent.id, channel), QoS::AtLeastOnce).await.unwrap();
    }
    let said = encode(&hello).unwrap();
    agent.client.publish(internal(&agent.id, Channel::Hello), QoS::AtLeastOnce, false, said).await.unwrap();
    let Assign::Settings(_) = agent.hear(Channel::Assign).await else { panic!("the site's settings come first") };
    let Assign::Part(part) = agent.hear(Channel::Assign).await else { panic!("a new agent has nothing to build on") };
    assert_eq!((part.part, part.of, part.hosts.len()), (0, 1, 0));
    let shown = daemon.get("/v1/agents/r1").await;
    assert_eq!((&shown["connected"], &shown["rack"]), (&json!(true), &json!("r1")));

    let bmc = json!({ "driver": "null", "address": "192.0.2.1", "username": "admin", "password": "secret" });
    daemon.put("/v1/hosts/h1", json!({ "cluster": "c1", "rack": "r1", "bmc": bmc })).await;
    let hosts = loop {
        match agent.hear(Channel::Assign).await {
            Assign::Part(part) => break part.hosts,
            Assign::Delta(delta) => break delta.upsert,
            Assign::Settings(_) => break Vec::new(),
            // What host-HA says is another matter.
            Assign::Ha(_) | Assign::Surroundings(_) => {}
        }
    };
    let [host] = &hosts[..] else { panic!("{hosts:?}") };
    assert_eq!((host.host.as_str(), host.bmc.as_ref().unwrap().address.as_str()), ("h1", "192.0.2.1"));
    let sealed = host.bmc.as_ref().unwrap().password.as_ref().unwrap();
    assert!(!sealed.0.windows(6).any(|bytes| bytes == b"secret"));

    drop(agent);
    eventually("presence ends", async || (daemon.get("/v1/agents/r1").await["connected"] == json!(false)).then_some(())).await;
    assert!(daemon.stop());
}

#[tokio::test]
async fn an_agent_that_joined_again_is_known_by_its_new_key_only() {
    let site = Site::new();
    let daemon = site.start().await;
    daemon.put("/v1/zones/z1", json!({})).await;
    daemon.put("/v1/racks/r1", json!({ "zone": "z1" })).await;
    let (mut old, _) = join(&daemon, "r1").await;
    assert!(matches!(old.events.poll().await, Ok(Event::Incoming(Packet::ConnAck(_)))));
    let (mut new, _) = join(&daemon, "r1").await;
    assert_eq!(old.id, new.id);
    let cut = async { while old.events.poll().await.is_ok() {} };
    tokio::time::timeout(PATIENCE, cut).await.expect("its live session is cut");
    let again = old.events.poll().await;
    assert!(again.is_err(), "{again:?} with a key that was replaced");
    assert!(matches!(new.events.poll().await, Ok(Event::Incoming(Packet::ConnAck(_)))));
}

/// Whether the other side ends the connection.
async fn is_closed(stream: &mut (impl tokio::io::AsyncRead + Unpin), within: Duration) -> bool {
    let mut heard = [0; 64];
    let read = tokio::io::AsyncReadExt::read(stream, &mut heard);
    matches!(tokio::time::timeout(within, read).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn connections_to_the_api_that_say_nothing_are_bounded_and_end() {
    let site = Site::new();
    let daemon = site.start().await;
    let api = daemon.api.parse().unwrap();
    let connect = async || {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(api).await.unwrap()
    };
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(trusting(&site.ca())));
    let mut silent = tls.connect(name, connect().await).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(connect().await);
    }
    let mut refused = 0;
    for stream in &mut idle {
        refused += usize::from(is_closed(stream, Duration::from_millis(5)).await);
    }
    assert!((45..300).contains(&refused), "{refused} of 300 were refused beside one and 255");
    daemon.zones().await;
    for stream in &mut idle {
        assert!(is_closed(stream, PATIENCE).await, "no handshake");
    }
    assert!(is_closed(&mut silent, PATIENCE).await, "no request");
    assert!(daemon.stop());
}
