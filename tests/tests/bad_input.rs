//! Bad input at every door of both daemons: each time a clear error, nothing changed, nothing crashed.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use picket_common::wire::codec::{MAX_FRAME_LEN, VERSION};
use picket_common::wire::topic::Channel;
use picket_tests::bmcsim::{BmcHandle, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Answer, Rogue, Site, Speaker, hosts, program, simulator};
use picket_tests::peers::certificate::Identity;
use picket_tests::peers::mosquitto::Broker;
use picket_tests::peers::process::run;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// A site with one rack of one IPMI and one Redfish host, both enabled and read.
fn running(simulator: &Simulator) -> (Site, Agent) {
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let agent = site.join("r1").unwrap();
    site.import(&hosts(simulator, "c1", "r1")).unwrap();
    for bmc in simulator.fleet().all() {
        assert_eq!(site.ctl(&["oobm", "enable", "host", bmc.name(), "--yes"]).unwrap().code, 0);
    }
    shows_the_truth(&site, simulator);
    (site, agent)
}

fn shows_the_truth(site: &Site, simulator: &Simulator) {
    for bmc in simulator.fleet().all() {
        site.until(bmc.name(), "power", if bmc.is_on() { "on" } else { "off" }, PATIENCE).unwrap();
        site.until(bmc.name(), "management", "reachable", PATIENCE).unwrap();
    }
}

/// All that an admin has set and all that was observed, without what changes by itself.
fn everything(site: &Site) -> Value {
    let list = |what: &str| {
        let mut items = site.json(&[what, "list"]).unwrap();
        for item in items.as_array_mut().unwrap() {
            for moving in ["fresh_at", "last_seen", "outbox", "connected"] {
                item.as_object_mut().unwrap().remove(moving);
            }
        }
        items
    };
    json!({ "zones": list("zones"), "clusters": list("clusters"), "hosts": list("hosts"), "agents": list("agents"),
        "operations": site.api("GET", "/v1/operations", None).unwrap() })
}

/// The processes, and everything they know: what bad input must leave as it was.
#[derive(Debug, PartialEq)]
struct Before {
    aggregator: Option<u32>,
    agent: Option<u32>,
    everything: Value,
    orders: u64,
}

impl Before {
    fn of(site: &Site, agent: &Agent, simulator: &Simulator) -> Self {
        Self {
            aggregator: running_process(site.aggregator_pid()),
            agent: running_process(agent.pid()),
            everything: everything(site),
            orders: simulator.fleet().totals().orders,
        }
    }
}

fn flip(bmc: &BmcHandle) {
    bmc.toggle();
}

/// The process id, if that process lives.
fn running_process(pid: Option<u32>) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid?)).ok()?;
    (!stat.contains(") Z ")).then_some(pid?)
}

// ---- configuration ----

/// What `check-config` of a daemon says to a file of this text.
fn check_config(daemon: &str, folder: &Path, text: &str) -> Answer {
    let file = folder.join("daemon.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(program(daemon).unwrap());
    command.arg("--config").arg(&file).arg("--state-dir").arg(folder.join("state")).arg("check-config");
    run(&command, "").unwrap().into()
}

#[test]
fn a_wrong_setting_is_named_with_file_line_and_nearest_key() {
    let folder = tempfile::tempdir().unwrap();
    for (daemon, text, wanted) in [
        (
            "picket-agent",
            "# mine\nallowed_bmc_network = []\n",
            "daemon.toml:2: unknown key `allowed_bmc_network`; did you mean `allowed_bmc_networks`?",
        ),
        ("picket-agent", "\n\nmax_in_flight = -1\n", "daemon.toml:3: max_in_flight is -1"),
        ("picket-agent", "log = \n", "daemon.toml:1: "),
        (
            "picket-aggregator",
            "site = \"s1\"\nmqtt_lissten = \"x\"\n",
            "daemon.toml:2: unknown key `mqtt_lissten`; did you mean `mqtt_listen`?",
        ),
        (
            "picket-aggregator",
            "[oobm]\n\nsync_intervall = 3\n",
            "daemon.toml:3: unknown key `sync_intervall`; did you mean `sync_interval`?",
        ),
        ("picket-aggregator", "[oobm]\naction_timeout = -3\n", "daemon.toml:2: must be 1 to 3600 seconds, not -3"),
        ("picket-aggregator", "listen = 8443\n", "daemon.toml:1: "),
    ] {
        let answer = check_config(daemon, folder.path(), text);
        assert!(answer.code != 0 && answer.out.is_empty(), "{daemon}: {answer:?}");
        assert!(answer.err.contains(wanted), "{daemon}: {answer:?}");
        assert!(!answer.err.contains("panicked"), "{answer:?}");
        assert!(!folder.path().join("state").exists(), "a check makes nothing");
    }
    for (daemon, text) in [("picket-agent", ""), ("picket-aggregator", "advertise = \"a.example\"\n")] {
        let answer = check_config(daemon, folder.path(), text);
        assert_eq!(answer.code, 0, "{daemon}: {answer:?}");
    }
}

// ---- the API ----

/// The problem that the API answers with to a body that is sent as it is.
fn problem(site: &Site, method: &str, path: &str, body: &str) -> Value {
    let (file, token) = (site.path("body"), std::fs::read_to_string(site.token_file()).unwrap());
    std::fs::write(&file, body).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "10", "--config", "-", "-X", method, "--cacert"]);
    curl.arg(site.ca_file()).arg("--data-binary").arg(format!("@{}", file.display()));
    curl.args(["--header", "Content-Type: application/json", "--write-out", "\n%{content_type} %{http_code}"]);
    if !path.ends_with("/new") {
        // What is there is changed whatever it is: the body is what this is about.
        curl.args(["--header", "If-Match: *"]);
    }
    curl.arg(format!("{}{path}", site.url()));
    // By standard input: a token is never on a command line.
    let answer: Answer = run(&curl, &format!("header = \"Authorization: Bearer {}\"\n", token.trim())).unwrap().into();
    let (text, end) = answer.out.rsplit_once('\n').unwrap();
    let problem: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{method} {path}: {answer:?}"));
    assert_eq!(end, format!("application/problem+json {}", problem["status"]), "{method} {path}: {answer:?}");
    problem
}

fn is_problem(problem: &Value, status: u16, code: &str, names: &str) {
    assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{problem}");
    assert_eq!(problem["type"], format!("/problems/{code}"), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains(names), "{names}: {problem}");
    assert!(problem["title"].is_string() && problem["request_id"].is_string(), "{problem}");
}

#[test]
fn a_bad_request_is_a_problem_that_names_the_field() {
    let simulator = simulator("bmc", 1, 1).unwrap();
    let (site, agent) = running(&simulator);
    let before = Before::of(&site, &agent, &simulator);
    let host = |bmc: Value| json!({ "cluster": "c1", "rack": "r1", "bmc": bmc }).to_string();
    let ipmi = |address: &str| host(json!({ "driver": "ipmi", "address": address, "username": "u", "password": "hunter2" }));
    let power = |more: &str| format!(r#"{{"operation":"off"{more}}}"#);
    let oversized = format!(r#"{{"cluster":"c1","rack":"r1","labels":{{"a":"{}"}}}}"#, "x".repeat(100_000));
    let (one, new, order) = ("/v1/hosts/bmc-0001", "/v1/hosts/new", "/v1/hosts/bmc-0001/power");
    let table: &[(&str, &str, String, u16, &str, &str)] = &[
        ("PUT", new, ipmi("not an address"), 400, "invalid-value", "bmc.address"),
        ("PUT", new, ipmi("10.0.0.256"), 400, "invalid-value", "bmc.address"),
        ("PUT", one, ipmi("http://bmc/redfish"), 400, "invalid-value", "bmc.address"),
        ("PATCH", one, r#"{"bmc":{"address":"a b"}}"#.into(), 400, "invalid-value", "bmc.address"),
        ("PATCH", one, r#"{"bmc":{"driver":"ipmitool2"}}"#.into(), 400, "invalid-value", "ipmi, redfish"),
        ("PUT", new, host(json!({ "driver": "telepathy", "address": "10.0.0.1" })), 400, "invalid-value", "bmc.driver"),
        ("PATCH", one, r#"{"bmc":{"port":0}}"#.into(), 400, "invalid-value", "bmc.port"),
        ("PATCH", one, r#"{"bmc":{"port":70000}}"#.into(), 400, "invalid-value", "bmc.port"),
        ("POST", order, power(r#","timeout":-5"#), 400, "invalid-value", "timeout"),
        ("POST", order, power(r#","timeout":0"#), 400, "invalid-value", "timeout"),
        ("POST", order, power(r#","timeot":5"#), 400, "unknown-field", "timeot"),
        ("POST", order, r#"{"operation":"explode"}"#.into(), 400, "invalid-value", "operation"),
        ("PUT", "/v1/clusters/c1", r#"{"zone":"z1","action_timeout":-1}"#.into(), 400, "invalid-value", "action_timeout"),
        ("PATCH", one, r#"{"poll_interval":-3}"#.into(), 400, "invalid-value", "poll_interval"),
        ("PUT", one, oversized, 413, "body-too-large", "bytes"),
        ("PUT", new, "{".into(), 400, "malformed-json", "line 1"),
        ("PUT", new, r#"{"cluster":"c1","rack":"r1"} x"#.into(), 400, "malformed-json", "column"),
        ("PUT", new, "\u{0}\u{1}\u{2}".into(), 400, "malformed-json", "JSON"),
        ("PUT", new, "[1,2]".into(), 400, "invalid-value", "body"),
        ("PUT", "/v1/hosts/Not%20An%20Id", host(json!({ "driver": "null" })), 400, "invalid-value", "host"),
        ("PATCH", "/v1/hosts/nobody", r#"{"maintenance":true}"#.into(), 404, "not-found", "nobody"),
        ("POST", "/v1/hosts/nobody/power", power(""), 404, "not-found", "nobody"),
        ("POST", "/v1/hosts/nobody/oobm/enable", String::new(), 404, "not-found", "nobody"),
        ("POST", "/v1/nothing", "{}".into(), 404, "no-such-route", "/v1/nothing"),
    ];
    for (method, path, body, status, code, names) in table {
        let problem = problem(&site, method, path, body);
        is_problem(&problem, *status, code, names);
        assert!(!problem.to_string().contains("hunter2"), "{problem}");
    }
    is_problem(&problem(&site, "GET", "/v1/hosts/nobody", ""), 404, "not-found", "nobody");
    assert_eq!(site.ctl(&["hosts", "show", "nobody"]).unwrap().code, 8);
    assert_eq!(Before::of(&site, &agent, &simulator), before);
    assert!(!site.log().unwrap().contains("hunter2"));
}

#[test]
fn an_address_that_the_agent_does_not_allow_is_told_at_the_host() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let (site, agent) = running(&simulator);
    let pids = (site.aggregator_pid(), agent.pid());
    // The agent's file allows 127.0.0.0/8 alone; these are documentation addresses (RFC 5737).
    for (driver, address) in [("ipmi", "192.0.2.1"), ("redfish", "198.51.100.1")] {
        let bmc = json!({ "driver": driver, "address": address, "username": "admin", "password": "password" });
        let body = json!({ "cluster": "c1", "rack": "r1", "bmc": bmc });
        assert_eq!(site.api("PUT", &format!("/v1/hosts/{driver}"), Some(&body)).unwrap()["id"], driver);
        assert_eq!(site.ctl(&["oobm", "enable", "host", driver, "--yes"]).unwrap().code, 0);
        let is_told = || {
            let host = site.host(driver)?;
            ensure!(host["error"]["code"] == "address-not-allowed" && host["error"]["class"] == "setting", "{host}");
            ensure!(
                host["power"] == "unknown" && host["error"]["text"].as_str().is_some_and(|text| text.contains(address)),
                "{host}"
            );
            Ok(())
        };
        eventually(PATIENCE, is_told).unwrap();
        let ordered = site.ctl(&["-o", "json", "power", "off", driver, "--wait"]).unwrap();
        assert!(ordered.code != 0 && ordered.out.contains("address-not-allowed"), "{ordered:?}");
    }
    shows_the_truth(&site, &simulator);
    assert_eq!((running_process(site.aggregator_pid()), running_process(agent.pid())), pids);
}

// ---- messages ----

/// Bytes that are no messages: another magic, another version, another kind, damaged, too long, nothing at all.
fn no_messages() -> Vec<(&'static str, Vec<u8>)> {
    let frame = |version: u8, kind: u8, rest: &[u8]| [b"PK".as_slice(), &[version, kind], rest].concat();
    vec![
        ("message", Vec::new()),
        ("message", b"XX\x01\x01hello".to_vec()),
        ("message", b"{\"power\":\"off\"}".to_vec()),
        ("version", frame(VERSION + 1, 1, &[0; 64])),
        ("version", frame(0, 1, &[0; 64])),
        ("message", frame(VERSION, 99, &[0; 64])),
        ("message", frame(VERSION, 1, &[0xff; 200])),
        ("message", frame(VERSION, 1, &[0; 4000])),
        ("too-long", frame(VERSION, 1, &vec![0; MAX_FRAME_LEN])),
    ]
}

#[test]
fn what_is_no_message_does_not_reach_the_aggregators_core() {
    let simulator = simulator("bmc", 1, 1).unwrap();
    let (site, agent) = running(&simulator);
    site.place("z1", "c1", "r2").unwrap();
    let mut other = site.join("r2").unwrap();
    other.stop().unwrap();
    let before = Before::of(&site, &agent, &simulator);
    let files = other.state_dir().join("identity");
    let identity = Identity { certificate: files.join("agent.crt"), key: files.join("agent.key") };
    let mut gate = Broker::new(site.mqtt().parse().unwrap(), &site.ca_file(), &identity);
    gate.client_id = Some("r2".into());
    let mut dropped = 0;
    let speaker = Speaker::connect(&gate).unwrap();
    for (reason, payload) in no_messages() {
        for channel in ["up", "hello", "gone"] {
            speaker.publish(&format!("picket/v1/i/r2/{channel}"), payload.clone()).unwrap();
            dropped += 1;
            eventually(PATIENCE, || {
                let log = site.log()?;
                let told: Vec<&str> = log.lines().filter(|line| line.contains("\"message dropped\"")).collect();
                ensure!(told.len() == dropped, "{} of {dropped}", told.len());
                let last = told.last().copied().unwrap_or_default();
                ensure!(
                    last.contains(&format!("\"reason\":\"{reason}\"")) && last.contains("\"agent\":\"r2\""),
                    "{reason}: {last}"
                );
                Ok(())
            })
            .unwrap();
        }
    }
    // Longer than any packet may be: the connection ends, and no other.
    assert!(speaker.publish("picket/v1/i/r2/up", vec![0; 200_000]).is_err());
    assert_eq!(Before::of(&site, &agent, &simulator), before);
    simulator.fleet().all().iter().for_each(flip);
    shows_the_truth(&site, &simulator);
}

#[test]
fn what_is_no_message_does_not_reach_the_agents_core() {
    let simulator = simulator("bmc", 1, 1).unwrap();
    let (_site, mut agent) = running(&simulator);
    let rogue = Rogue::lure(&mut agent).unwrap();
    let pid = running_process(agent.pid()).unwrap();
    let mut refused: u64 = 0;
    for (_, payload) in no_messages() {
        for channel in Channel::DOWN {
            rogue.say(channel, payload.clone()).unwrap();
            refused += 1;
        }
    }
    are_refused(&agent, refused).unwrap();
    // Longer than any packet may be: it leaves this connection and comes back.
    rogue.say(Channel::Cmd, vec![0; 200_000]).unwrap();
    rogue.hello().unwrap();
    rogue.say(Channel::Cmd, b"after it".to_vec()).unwrap();
    are_refused(&agent, refused + 1).unwrap();
    assert_eq!(running_process(agent.pid()), Some(pid));
    assert_eq!(simulator.fleet().totals().orders, 0);
    let status = agent.status().unwrap();
    assert_eq!((&status["hosts"], &status["on"], &status["off"]), (&json!(2), &json!(1), &json!(1)), "{status}");
    assert_eq!(status["connected"], true, "{status}");
}

/// Waits until the agent says how many messages it has refused.
fn are_refused(agent: &Agent, wanted: u64) -> Result<()> {
    eventually(PATIENCE, || {
        let status = agent.status()?;
        ensure!(status["refused_messages"] == wanted, "{wanted}: {status}");
        Ok(())
    })
}

// ---- datagrams ----

/// The UDP ports that a process is bound to, IPv4 (proc_pid_net(5)).
fn udp_ports(pid: u32) -> BTreeSet<u16> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let sockets: BTreeSet<String> = links
        .filter_map(|link| std::fs::read_link(link.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/udp")).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = rows.filter(|row| sockets.contains(row[9]));
    own.map(|row| u16::from_str_radix(row[1].rsplit_once(':').unwrap().1, 16).unwrap()).collect()
}

/// A repeatable sequence (SplitMix64).
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^ (z >> 27)
    }

    /// Up to 300 bytes; half of them begin as RMCP+ packets do.
    fn datagram(&mut self) -> Vec<u8> {
        let length = usize::try_from(self.next() % 300).unwrap();
        let mut bytes: Vec<u8> = (0..length).map(|_| self.next().to_be_bytes()[0]).collect();
        if self.next().is_multiple_of(2) {
            let header = [0x06, 0x00, 0xff, 0x07, 0x06, self.next().to_be_bytes()[0]];
            bytes.iter_mut().zip(header).for_each(|(byte, header)| *byte = header);
        }
        bytes
    }
}

#[test]
fn garbage_at_the_ipmi_sockets_changes_nothing() {
    let simulator = simulator("bmc", 4, 0).unwrap();
    let (site, agent) = running(&simulator);
    let before = Before::of(&site, &agent, &simulator);
    let ports = udp_ports(agent.pid().unwrap());
    assert!(!ports.is_empty(), "the agent speaks IPMI over some socket");
    let anyone = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let neighbour = UdpSocket::bind((simulator.fleet().all()[0].ipmi().unwrap().ip(), 0)).unwrap();
    let mut random = Random(1);
    for _ in 0..1_000 {
        for port in &ports {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            anyone.send_to(&random.datagram(), to).unwrap();
            neighbour.send_to(&random.datagram(), to).unwrap();
        }
    }
    // Each BMC is read again after the flood, and a change is seen.
    let reads = |bmc: usize| simulator.fleet().all()[bmc].counters().status_reads;
    let then: Vec<u64> = (0..4).map(reads).collect();
    eventually(PATIENCE, || {
        ensure!((0..4).all(|bmc| reads(bmc) > then[bmc] + 1));
        Ok(())
    })
    .unwrap();
    assert_eq!(Before::of(&site, &agent, &simulator), before);
    assert_eq!(agent.status().unwrap()["unknown"], 0);
    simulator.fleet().all().iter().for_each(flip);
    shows_the_truth(&site, &simulator);
    let totals = simulator.fleet().totals();
    // To ask a BMC what it is, its session is closed and another opened.
    assert_eq!(totals.logins - totals.logouts, 4, "every session outlives the garbage");
    assert!(!agent.log().unwrap().contains("panicked"));
}
