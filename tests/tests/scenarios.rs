//! The scenarios of out-of-band management as operators know them, 01 to 07, each end to end on an IPMI and a Redfish host:
//! by `picketctl`, judged by what the simulated BMCs say of themselves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use picket_tests::bmcsim::{BmcHandle, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Answer, Site, hosts, simulator};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(45);

/// Exit codes of `picketctl`.
const OK: i32 = 0;
const USAGE: i32 = 2;
const REFUSED: i32 = 6;
const NOT_FOUND: i32 = 8;

/// A zone, a cluster, a rack with its agent, and two BMCs in it: the first speaks IPMI, the second Redfish.
struct Stage {
    site: Site,
    _agent: Agent,
    simulator: Simulator,
}

impl Stage {
    fn empty() -> Self {
        let simulator = simulator("h", 1, 1).unwrap();
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        Self { site, _agent: agent, simulator }
    }

    fn configured() -> Self {
        let stage = Self::empty();
        stage.site.import(&hosts(&stage.simulator, "c1", "r1")).unwrap();
        stage
    }

    /// Configured, enabled and seen as it is.
    fn watched() -> Self {
        let stage = Self::configured();
        for bmc in stage.bmcs() {
            gate(&stage.site, "enable", "host", bmc.name());
        }
        for bmc in stage.bmcs() {
            until_seen(&stage.site, bmc);
        }
        stage
    }

    fn bmcs(&self) -> &[BmcHandle] {
        self.simulator.fleet().all()
    }
}

const fn power_of(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Waits until the view says what the simulator says.
fn until_seen(site: &Site, bmc: &BmcHandle) {
    site.until(bmc.name(), "power", power_of(bmc.is_on()), PATIENCE).unwrap();
}

/// Opens or closes a gate, which has to be granted.
fn gate(site: &Site, verb: &str, scope: &str, id: &str) {
    let answer = site.ctl(&["oobm", verb, scope, id, "--yes"]).unwrap();
    assert_eq!(answer.code, OK, "{verb} {scope} {id}: {answer:?}");
}

fn order(site: &Site, host: &str, arguments: &[&str]) -> (i32, Value) {
    let (action, options) = arguments.split_first().unwrap();
    let answer = site.ctl(&[&["-o", "json", "power", action, host, "--wait"], options].concat()).unwrap();
    let row = answer.json().unwrap()[0].clone();
    (answer.code, row)
}

/// A raw call of the API with a body.
fn call(site: &Site, method: &str, path: &str, body: &Value) -> Answer {
    site.ctl_with(&["api", method, path, "--data", "-"], &body.to_string()).unwrap()
}

fn assert_problem(answer: &Answer, exit: i32, code: &str, context: &str) {
    assert_eq!(answer.code, exit, "{context}: {answer:?}");
    assert!(answer.err.contains(&format!("[{code}]")), "{context}: not {code}: {answer:?}");
}

/// All that ever reached a BMC.
fn traffic(bmc: &BmcHandle) -> u64 {
    let counters = bmc.counters();
    counters.datagrams + counters.http_requests
}

/// Lets `clock`, a host that goes on being polled, be read so many times more: time as the BMCs know it.
fn while_polled(clock: &BmcHandle, times: u64) {
    let begun = clock.counters().status_reads;
    eventually(PATIENCE, || {
        let reads = clock.counters().status_reads - begun;
        ensure!(reads >= times, "{} was read only {reads} times", clock.name());
        Ok(())
    })
    .unwrap();
}

/// Not a packet reaches these BMCs while `clock` is polled four times; what was under way may end before.
fn assert_left_alone(bmcs: &[&BmcHandle], clock: &BmcHandle) {
    while_polled(clock, 2);
    let before: Vec<u64> = bmcs.iter().map(|bmc| traffic(bmc)).collect();
    while_polled(clock, 4);
    let after: Vec<u64> = bmcs.iter().map(|bmc| traffic(bmc)).collect();
    assert_eq!(before, after, "traffic to BMCs that may not be touched");
}

fn shown(site: &Site, host: &str, field: &str) -> Value {
    site.host(host).unwrap()[field].clone()
}

#[test]
fn s01_configure_invalid() {
    let stage = Stage::configured();
    let site = &stage.site;
    let known = stage.bmcs()[0].name();
    let before = site.host(known).unwrap();
    let new = |bmc: Value| json!({ "cluster": "c1", "rack": "r1", "bmc": bmc });
    let wrong_bmcs = [
        (json!({ "driver": "randomdriverapi", "address": "127.0.0.9" }), "invalid-value", "bmc.driver"),
        (json!({ "address": "127.0.0.9" }), "invalid-value", "bmc.driver"),
        (json!({ "driver": "ipmi" }), "invalid-value", "bmc.address"),
        (json!({ "driver": "ipmi", "address": "256.0.0.1" }), "invalid-value", "bmc.address"),
        (json!({ "driver": "redfish", "address": "https://127.0.0.9/" }), "invalid-value", "bmc.address"),
        (json!({ "driver": "ipmi", "address": "127.0.0.9", "port": 0 }), "invalid-value", "bmc.port"),
        (json!({ "driver": "ipmi", "address": "127.0.0.9", "port": 65536 }), "invalid-value", "port"),
        (json!({ "driver": "ipmi", "address": "127.0.0.9", "portt": 623 }), "unknown-field", "portt"),
        (json!({ "driver": "ipmi", "address": "127.0.0.9", "username": "a\u{7}b" }), "invalid-value", "bmc.username"),
    ];
    for (bmc, code, field) in &wrong_bmcs {
        let answer = call(site, "PUT", "/v1/hosts/new", &new(bmc.clone()));
        assert_problem(&answer, USAGE, code, &bmc.to_string());
        assert!(answer.err.contains(field), "{bmc}: does not name {field}: {answer:?}");
    }
    for place in [json!({ "cluster": "c9", "rack": "r1" }), json!({ "cluster": "c1", "rack": "r9" }), json!({ "cluster": "c1" })] {
        let answer = call(site, "PUT", "/v1/hosts/new", &place);
        assert_ne!(answer.code, OK, "{place}: {answer:?}");
    }
    assert_eq!(site.ctl(&["hosts", "show", "new"]).unwrap().code, NOT_FOUND, "a refused host was made");

    for (bmc, code, _) in wrong_bmcs.iter().filter(|(bmc, ..)| bmc["driver"] == "randomdriverapi" || bmc["portt"].is_u64()) {
        let answer = call(site, "PATCH", &format!("/v1/hosts/{known}"), &json!({ "bmc": bmc }));
        assert_problem(&answer, USAGE, code, &bmc.to_string());
    }
    let moved = call(site, "PATCH", &format!("/v1/hosts/{known}"), &json!({ "bmc": { "address": "127.0.0.9" } }));
    assert_problem(&moved, REFUSED, "password-needed-again", "a stored password must not follow another address");
    assert_eq!(site.host(known).unwrap()["bmc"], before["bmc"], "a refused change was kept");
}

#[test]
fn s02_configure_valid() {
    const PASSWORD: &str = "Kq7-quince-93";
    let stage = Stage::empty();
    let site = &stage.site;
    for (bmc, driver) in stage.bmcs().iter().zip(["IPMI", "RedFish"]) {
        assert!(bmc.set_password("admin", PASSWORD));
        let address = bmc.ipmi().or(bmc.redfish()).unwrap();
        let path = format!("/v1/hosts/{}", bmc.name());
        let first = json!({ "driver": driver, "address": address.ip(), "port": 9, "username": "admin", "password": PASSWORD });
        assert_eq!(call(site, "PUT", &path, &json!({ "cluster": "c1", "rack": "r1", "bmc": first })).code, OK);
        gate(site, "enable", "host", bmc.name());
        // Only the port is given: the rest, the password too, stays.
        let answer = call(site, "PATCH", &path, &json!({ "bmc": { "port": address.port() } }));
        assert_eq!(answer.code, OK, "{answer:?}");
        let found = shown(site, bmc.name(), "bmc");
        let wanted = json!({ "driver": driver.to_lowercase(), "address": address.ip(), "port": address.port(),
            "username": "admin", "password_set": true, "options": {} });
        assert_eq!(found, wanted);
    }
    for bmc in stage.bmcs() {
        until_seen(site, bmc);
        let (code, row) = order(site, bmc.name(), &["status"]);
        assert_eq!((code, &row["power"]), (OK, &json!(power_of(bmc.is_on()))), "{row}");
    }
    assert_never_shown(&stage, PASSWORD);
}

/// In no answer, no log and no file of either daemon.
fn assert_never_shown(stage: &Stage, password: &str) {
    let site = &stage.site;
    let mut said =
        vec![site.ctl(&["-o", "json", "hosts", "list"]).unwrap().out, site.ctl(&["-o", "wide", "hosts", "list"]).unwrap().out];
    for bmc in stage.bmcs() {
        said.push(site.host(bmc.name()).unwrap().to_string());
        said.push(site.json(&["history", bmc.name()]).unwrap().to_string());
    }
    assert!(said.iter().all(|text| !text.contains(password)), "an answer shows the password");
    let files = files_below(site.folder()).unwrap();
    assert!(files.iter().any(|file| file.ends_with("agent.log")) && files.len() > 8, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes.windows(password.len()).any(|window| window == password.as_bytes());
        assert!(!found, "{} holds the password", file.display());
    }
}

fn files_below(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

#[test]
fn s03_enable_disable_invalid() {
    let stage = Stage::empty();
    let site = &stage.site;
    for verb in ["enable", "disable"] {
        for scope in ["host", "cluster", "zone"] {
            let answer = site.ctl(&["oobm", verb, scope, "nowhere", "--yes"]).unwrap();
            assert_eq!(answer.code, NOT_FOUND, "{verb} {scope}: {answer:?}");
            let raw = call(site, "POST", &format!("/v1/{scope}s/-1/oobm/{verb}"), &json!({}));
            assert_ne!(raw.code, OK, "{verb} {scope} -1: {raw:?}");
            let nameless = site.ctl(&["oobm", verb, scope]).unwrap();
            assert_eq!(nameless.code, USAGE, "{verb} {scope} without an id: {nameless:?}");
        }
    }
    assert_eq!(call(site, "PUT", "/v1/hosts/bare", &json!({ "cluster": "c1", "rack": "r1" })).code, OK);
    let answer = site.ctl(&["oobm", "enable", "host", "bare"]).unwrap();
    assert_eq!(answer.code, REFUSED, "{answer:?}");
    assert!((answer.err.clone() + &answer.out).contains("host-not-configured"), "{answer:?}");
    assert_eq!((shown(site, "bare", "oobm_enabled"), shown(site, "bare", "power")), (json!(false), json!("disabled")));
}

#[test]
fn s04_enable_disable_valid() {
    let stage = Stage::configured();
    let site = &stage.site;
    for bmc in stage.bmcs() {
        let host = site.host(bmc.name()).unwrap();
        assert_eq!((&host["oobm_enabled"], &host["power"]), (&json!(false), &json!("disabled")), "{host}");
        assert_eq!(traffic(bmc), 0, "touched before it was enabled");
    }
    // Twice is once.
    for bmc in stage.bmcs().iter().chain(stage.bmcs()) {
        gate(site, "enable", "host", bmc.name());
        assert_eq!(shown(site, bmc.name(), "oobm_enabled"), true);
    }
    for bmc in stage.bmcs() {
        until_seen(site, bmc);
    }
    let (ipmi, redfish) = (&stage.bmcs()[0], &stage.bmcs()[1]);
    for (bmc, clock) in [(ipmi, redfish), (redfish, ipmi)] {
        gate(site, "disable", "host", bmc.name());
        let host = site.host(bmc.name()).unwrap();
        assert_eq!((&host["oobm_enabled"], &host["power"]), (&json!(false), &json!("disabled")), "not at once: {host}");
        assert_left_alone(&[bmc], clock);
        bmc.toggle();
        gate(site, "enable", "host", bmc.name());
        until_seen(site, bmc);
    }
}

/// Two clusters in one zone, each with an IPMI and a Redfish host, and a host of another zone that tells the time.
struct Places {
    site: Site,
    _agents: [Agent; 2],
    simulator: Simulator,
}

impl Places {
    fn watched() -> Self {
        let simulator = simulator("h", 3, 2).unwrap();
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        site.place("z1", "c2", "r1").unwrap();
        site.place("z2", "c3", "r2").unwrap();
        let agents = [site.join("r1").unwrap(), site.join("r2").unwrap()];
        let mut all = hosts(&simulator, "c1", "r1");
        for (host, (cluster, rack)) in all.iter_mut().zip([("c1", "r1"), ("c2", "r1"), ("c3", "r2"), ("c1", "r1"), ("c2", "r1")]) {
            (host["cluster"], host["rack"]) = (json!(cluster), json!(rack));
        }
        site.import(&all).unwrap();
        // A host that can never be polled must not keep the others from being disabled.
        site.import(&[json!({ "id": "a-bare", "cluster": "c1", "rack": "r1" })]).unwrap();
        for bmc in simulator.fleet().all() {
            gate(&site, "enable", "host", bmc.name());
        }
        for bmc in simulator.fleet().all() {
            until_seen(&site, bmc);
        }
        Self { site, _agents: agents, simulator }
    }

    fn bmc(&self, number: usize) -> &BmcHandle {
        &self.simulator.fleet().all()[number]
    }

    fn c1(&self) -> [&BmcHandle; 2] {
        [self.bmc(0), self.bmc(3)]
    }

    fn c2(&self) -> [&BmcHandle; 2] {
        [self.bmc(1), self.bmc(4)]
    }

    fn clock(&self) -> &BmcHandle {
        self.bmc(2)
    }

    /// Disabled by a scope, and by nothing else.
    fn assert_disabled_from_above(&self, bmcs: &[&BmcHandle]) {
        for bmc in bmcs {
            let host = self.site.host(bmc.name()).unwrap();
            assert_eq!((&host["power"], &host["oobm_enabled"]), (&json!("disabled"), &json!(true)), "{host}");
        }
    }

    fn assert_refused(&self, bmcs: &[&BmcHandle], refusal: &str) {
        for bmc in bmcs {
            for action in ["status", "on", "off"] {
                let (code, row) = order(&self.site, bmc.name(), &[action]);
                assert_eq!(code, REFUSED, "{action}: {row}");
                assert_eq!(row["result"], "refused", "{action}: {row}");
                assert!(row["detail"].as_str().unwrap().contains(&format!("({refusal})")), "{action}: not {refusal}: {row}");
            }
            assert_eq!(shown(&self.site, bmc.name(), "refusal"), refusal);
            assert_eq!(shown(&self.site, bmc.name(), "power"), "disabled");
        }
    }
}

#[test]
fn s05_across_cluster_and_zone() {
    let places = Places::watched();
    let (site, clock) = (&places.site, places.clock());
    let (c1, c2) = (places.c1(), places.c2());
    let zone = [c1, c2].concat();

    gate(site, "disable", "zone", "z1");
    places.assert_disabled_from_above(&zone);
    assert_eq!(site.json(&["clusters", "show", "c1"]).unwrap()["oobm_enabled"], true, "the zone's gate fell on its cluster");
    assert_eq!(shown(site, clock.name(), "power"), power_of(clock.is_on()), "another zone's host was disabled");
    assert_left_alone(&zone, clock);

    gate(site, "disable", "cluster", "c1");
    for bmc in c1 {
        gate(site, "disable", "host", bmc.name());
    }
    let orders: u64 = zone.iter().map(|bmc| bmc.counters().orders).sum();
    places.assert_refused(&zone, "zone-disabled");

    // By hand meanwhile: nobody looks, and what comes back is the truth.
    for bmc in &zone {
        bmc.toggle();
    }
    gate(site, "enable", "zone", "z1");
    for bmc in c2 {
        until_seen(site, bmc);
    }
    places.assert_refused(&c1, "cluster-disabled");
    gate(site, "enable", "cluster", "c1");
    places.assert_refused(&c1, "host-disabled");
    assert_left_alone(&c1, clock);
    assert_eq!(zone.iter().map(|bmc| bmc.counters().orders).sum::<u64>(), orders, "a refused order reached a BMC");

    for bmc in c1 {
        gate(site, "enable", "host", bmc.name());
        until_seen(site, bmc);
        let (code, row) = order(site, bmc.name(), &["status"]);
        assert_eq!((code, &row["power"]), (OK, &json!(power_of(bmc.is_on()))), "{row}");
    }
    gate(site, "disable", "cluster", "c2");
    places.assert_disabled_from_above(&c2);
    assert_left_alone(&c2, clock);
    gate(site, "enable", "cluster", "c2");
    for bmc in zone {
        until_seen(site, bmc);
    }
}

#[test]
fn s06_every_power_action() {
    let stage = Stage::watched();
    for bmc in stage.bmcs() {
        bmc.set_power(true);
    }
    for bmc in stage.bmcs() {
        until_seen(&stage.site, bmc);
    }
    thread::scope(|scope| {
        for bmc in stage.bmcs() {
            let site = &stage.site;
            scope.spawn(move || every_power_action(site, bmc));
        }
    });
}

/// One action: its arguments, and what must come of it.
struct Action(&'static [&'static str], Wanted, bool);

/// How an action ends.
#[derive(Debug, PartialEq)]
enum Wanted {
    /// A read: the state.
    Read,
    /// Done, verified.
    Changed,
    /// Nothing to do and nothing sent.
    Unchanged,
    /// Refused for this, nothing sent.
    Refused(&'static str),
}

fn every_power_action(site: &Site, bmc: &BmcHandle) {
    use Wanted::{Changed, Read, Refused, Unchanged};
    let script = [
        Action(&["status"], Read, true),
        Action(&["on"], Unchanged, true),
        Action(&["off"], Changed, false),
        Action(&["off"], Unchanged, false),
        Action(&["status"], Read, false),
        Action(&["soft"], Unchanged, false),
        Action(&["cycle"], Refused("host-is-off"), false),
        Action(&["reset"], Refused("host-is-off"), false),
        Action(&["cycle", "--on-if-off"], Changed, true),
        Action(&["off"], Changed, false),
        Action(&["reset", "--on-if-off"], Changed, true),
        Action(&["cycle"], Changed, true),
        Action(&["reset"], Changed, true),
        Action(&["soft"], Changed, false),
        Action(&["on"], Changed, true),
        Action(&["status"], Read, true),
    ];
    for Action(arguments, wanted, on) in script {
        perform(site, bmc, arguments, &wanted);
        assert_eq!(bmc.is_on(), on, "{arguments:?} of {}", bmc.name());
        site.until(bmc.name(), "power", power_of(on), PATIENCE).unwrap();
    }
}

fn perform(site: &Site, bmc: &BmcHandle, arguments: &[&str], wanted: &Wanted) {
    let (orders, changes, resets) = (bmc.counters().orders, bmc.changes().len(), bmc.truth().resets);
    let (code, row) = order(site, bmc.name(), arguments);
    let sent = bmc.counters().orders - orders;
    let context = format!("{arguments:?} of {}: {sent} orders, {row}", bmc.name());
    match wanted {
        Wanted::Read => assert_eq!((code, &row["power"], sent), (OK, &json!(power_of(bmc.is_on())), 0), "{context}"),
        Wanted::Unchanged => assert_eq!((code, &row["result"], sent), (OK, &json!("unchanged"), 0), "{context}"),
        Wanted::Refused(why) => {
            assert_eq!((code, &row["result"], &row["refusal"], sent), (REFUSED, &json!("refused"), &json!(why), 0), "{context}");
        }
        Wanted::Changed => assert_eq!((code, &row["result"]), (OK, &json!("changed")), "{context}"),
    }
    match (arguments, wanted) {
        (["cycle"], Wanted::Changed) => {
            let seen: Vec<bool> = bmc.changes()[changes..].iter().map(|change| change.on).collect();
            assert_eq!(seen, [false, true], "{context}");
        }
        (["reset"], Wanted::Changed) => {
            assert_eq!((bmc.truth().resets, bmc.changes().len(), sent), (resets + 1, changes, 1), "{context}");
        }
        (["soft"], Wanted::Changed) => assert_eq!((bmc.orders("soft"), sent), (1, 1), "{context}"),
        _ => {}
    }
}

#[test]
fn s07_background_sync() {
    use picket_tests::bmcsim::{Faults, Unplug};
    let stage = Stage::watched();
    let site = &stage.site;
    for _ in 0..2 {
        for bmc in stage.bmcs() {
            bmc.toggle();
        }
        for bmc in stage.bmcs() {
            until_seen(site, bmc);
        }
    }
    for unplug in [Unplug::Silent, Unplug::Refused] {
        for bmc in stage.bmcs() {
            bmc.set_faults(Faults { unplug: Some(unplug), ..Faults::default() });
        }
        for bmc in stage.bmcs() {
            site.until(bmc.name(), "power", "unknown", PATIENCE).unwrap();
            assert!(shown(site, bmc.name(), "error").is_object(), "unknown, and nobody says why");
            bmc.toggle();
        }
        for bmc in stage.bmcs() {
            bmc.clear_faults();
        }
        for bmc in stage.bmcs() {
            until_seen(site, bmc);
            site.until(bmc.name(), "management", "reachable", PATIENCE).unwrap();
        }
    }
    assert_eq!(site.json(&["op", "list"]).unwrap(), json!([]), "nobody called");
    for bmc in stage.bmcs() {
        assert_eq!(bmc.counters().orders, 0, "Picket ordered something by itself");
        let causes = causes(site, bmc.name()).unwrap();
        assert!(causes.iter().filter(|cause| *cause == "poll").count() >= 7, "{causes:?}");
    }
}

/// Why each power change of a host came about.
fn causes(site: &Site, host: &str) -> Result<Vec<String>> {
    let history = site.json(&["history", host])?;
    let lines = history.as_array().context("no list")?.iter().filter(|line| line["kind"] == "power");
    Ok(lines.map(|line| line["cause"].as_str().unwrap_or_default().to_owned()).collect())
}
