//! The password of a BMC is nowhere. One that can be recognised is planted in every driver's BMC; then, while five hundred
//! operations run on each driver, all drivers at once, command lines and environments of all processes are read over and over; afterwards every log,
//! file, API answer, MQTT message and status is searched for it, plain and in the encodings it could hide in.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use picket_tests::bmcsim::Simulator;
use picket_tests::eventually::eventually;
use picket_tests::harness::{BY_HAND, Site, hosts, program, simulator};
use picket_tests::peers::certificate::Identity;
use picket_tests::peers::mosquitto::Broker;
use picket_tests::peers::mosquitto_sub::MosquittoSub;
use picket_tests::peers::process::run;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
/// Nothing else in the world is called that; it fits the 16 bytes of the oldest BMCs.
const CANARY: &str = "cAnArY-9x7Qz-Wk";
/// Operations on each driver.
const OPERATIONS: usize = 500;
/// Hosts of each driver; an operation is one of a host.
const HOSTS: usize = 10;

/// The canary and what it looks like in other clothes.
fn disguises() -> Vec<Vec<u8>> {
    let plain = CANARY.as_bytes();
    let wide: Vec<u8> = CANARY.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let hexed = |upper: bool| -> String {
        plain.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect()
    };
    let mut all = vec![plain.to_vec(), plain.iter().rev().copied().collect(), wide, hexed(false).into(), hexed(true).into()];
    // Whatever stands before it in the same text moves it by up to two places in base64; the outer digits depend on neighbours.
    for before in 0..3 {
        let padded = [vec![0; before], plain.to_vec()].concat();
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&padded);
        all.push(text.as_bytes()[4..text.len() - 4].to_vec());
    }
    all.push(format!("admin:{CANARY}").into_bytes());
    all
}

fn shows(bytes: &[u8], disguises: &[Vec<u8>]) -> bool {
    disguises.iter().any(|wanted| memchr::memmem::find(bytes, wanted).is_some())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(files_below(&path)),
            Ok(kind) if kind.is_file() => files.push(path),
            _ => {}
        }
    }
    files
}

/// Command lines and environments of every process there is, this test's own apart: it holds the canary by right.
fn read_processes(disguises: &[Vec<u8>], found: &mut BTreeSet<String>) -> u64 {
    let mut read = 0;
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        for file in ["cmdline", "environ"] {
            let Ok(bytes) = std::fs::read(entry.path().join(file)) else { continue };
            read += 1;
            if shows(&bytes, disguises) {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.insert(format!("{file} of {}", String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
    }
    read
}

/// The drivers that reach one of our simulated BMCs, with the options they need.
fn drivers() -> [(&'static str, Value); 4] {
    [
        ("ipmi", json!({})),
        ("redfish", json!({})),
        ("ipmitool", json!({ "cipher_suite": "17" })),
        ("exec", json!({ "template": "by-hand" })),
    ]
}

/// Ten hosts of each driver at their simulated BMCs, all with the canary for a password.
struct Stand {
    site: Site,
    agent: picket_tests::harness::Agent,
    simulators: Vec<(&'static str, Simulator)>,
    said: Vec<String>,
}

impl Stand {
    fn new() -> Self {
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join_with("r1", "r1", BY_HAND).unwrap();
        let mut stand = Self { site, agent, simulators: Vec::new(), said: Vec::new() };
        for (driver, options) in drivers() {
            let over_redfish = driver == "redfish";
            let (ipmi, redfish) = if over_redfish { (0, HOSTS) } else { (HOSTS, 0) };
            let simulator = simulator(driver, ipmi, redfish).unwrap();
            for bmc in simulator.fleet().all() {
                assert!(bmc.set_password("admin", CANARY));
            }
            let mut bodies = hosts(&simulator, "c1", "r1");
            for body in &mut bodies {
                body["bmc"]["driver"] = json!(driver);
                body["bmc"]["password"] = json!(CANARY);
                body["bmc"]["options"] = options.clone();
            }
            stand.site.import(&bodies).unwrap();
            stand.simulators.push((driver, simulator));
        }
        let null: Vec<Value> = (0..HOSTS)
            .map(|number| {
                json!({ "id": format!("null-{number}"), "cluster": "c1", "rack": "r1",
                    "bmc": { "driver": "null", "address": "127.0.0.1", "username": "admin", "password": CANARY } })
            })
            .collect();
        stand.site.import(&null).unwrap();
        stand
    }

    fn names(&self, driver: &str) -> Vec<String> {
        if driver == "null" {
            return (0..HOSTS).map(|number| format!("null-{number}")).collect();
        }
        let simulator = self.simulators.iter().find(|(name, _)| *name == driver);
        simulator.map(|(_, simulator)| simulator.fleet().all().iter().map(|bmc| bmc.name().to_owned()).collect()).unwrap()
    }

    fn all_names(&self) -> Vec<String> {
        drivers().iter().map(|(driver, _)| *driver).chain(["null"]).flat_map(|driver| self.names(driver)).collect()
    }

    /// Runs `picketctl` and keeps what it said for the search.
    fn say(&mut self, arguments: &[&str]) -> Value {
        let answer = self.site.ctl(&[&["-o", "json"], arguments].concat()).unwrap();
        self.said.push(format!("{}\n{}", answer.out, answer.err));
        answer.json().unwrap_or_default()
    }

    /// Five hundred operations of each driver, all drivers at once: reads, and now and then an order.
    fn operate(&mut self) {
        let set = self.all_names().join(",");
        for round in 0..OPERATIONS / HOSTS {
            let operation = match round {
                5 => "off",
                6 => "on",
                7 => "reset",
                _ => "status",
            };
            let answer = self.say(&["power", operation, &set, "--wait", "--yes"]);
            let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            assert_eq!(rows.len(), (drivers().len() + 1) * HOSTS, "{operation}: {answer}");
            let failed =
                rows.iter().find(|row| !["read", "changed", "unchanged"].contains(&row["result"].as_str().unwrap_or_default()));
            assert!(failed.is_none(), "round {round}, {operation}: {failed:?}");
        }
    }
}

#[test]
fn a_bmc_password_is_nowhere() {
    let disguises = disguises();
    assert!(shows(format!("x {CANARY} y").as_bytes(), &disguises), "the search finds nothing");
    let mut stand = Stand::new();
    let listeners = listeners(&stand.site);
    let all = stand.all_names();
    let answer = stand.site.ctl(&["oobm", "enable", "host", &all.join(","), "--yes"]).unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
    for host in &all {
        stand.site.until(host, "management", "reachable", PATIENCE).unwrap();
    }

    let (stop, scans, mut found) = (AtomicBool::new(false), AtomicU64::new(0), BTreeSet::new());
    std::thread::scope(|scope| {
        let scanner = scope.spawn(|| {
            let mut found = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                scans.fetch_add(read_processes(&disguises, &mut found), Ordering::Relaxed);
            }
            found
        });
        stand.operate();
        stop.store(true, Ordering::Relaxed);
        found = scanner.join().unwrap();
    });
    assert!(found.is_empty(), "the password was seen in {found:?}");
    assert!(scans.load(Ordering::Relaxed) > 10_000, "hardly anything was read");

    // Errors, too: a wrong password, which is a secret as well, and a BMC that is gone.
    for (driver, simulator) in &stand.simulators {
        let bmc = &simulator.fleet().all()[0];
        assert!(bmc.set_password("admin", "another"), "{driver}");
        bmc.forget_sessions(); // one that is up stays good
        stand.site.until(bmc.name(), "management", "auth-blocked", PATIENCE).unwrap();
    }
    for host in all.clone() {
        stand.say(&["hosts", "show", &host]);
        stand.say(&["history", &host]);
    }
    for arguments in [
        &["hosts", "list"][..],
        &["clusters", "list"],
        &["alerts"],
        &["op", "list"],
        &["agents", "list"],
        &["summary"],
        &["api", "GET", "/v1/drivers"],
        &["api", "GET", "/v1/settings"],
        &["api", "GET", "/v1/audit"],
        &["api", "GET", "/v1/export/hosts"],
    ] {
        stand.say(arguments);
    }
    for (number, said) in stand.said.iter().enumerate() {
        assert!(!shows(said.as_bytes(), &disguises), "answer {number} shows it: {said}");
    }
    let mut status = Command::new(program("picket-agent").unwrap());
    status.arg("--state-dir").arg(stand.agent.state_dir()).arg("status");
    let status = run(&status, "").unwrap();
    assert!(status.status.success(), "{status:?}");
    assert!(!shows(&status.stdout, &disguises) && !shows(&status.stderr, &disguises));
    for listener in listeners {
        let heard = listener.trace().unwrap();
        assert!(heard.len() > 100, "nothing heard: {heard}");
        assert!(!shows(heard.as_bytes(), &disguises), "an MQTT message shows it");
    }
    let files = files_below(stand.site.folder());
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    for wanted in ["journal.redb", "agent.log", "aggregator.log", ".redb"] {
        assert!(names.iter().any(|name| name.ends_with(wanted)), "{wanted} is not among {names:?}");
    }
    for file in files {
        assert!(!shows(&std::fs::read(&file).unwrap(), &disguises), "{} holds it", file.display());
    }
}

/// A consumer's ears on the branches of the public tree.
fn listeners(site: &Site) -> Vec<MosquittoSub> {
    let folder = site.consumer("searcher").unwrap();
    let identity = Identity { certificate: folder.join("searcher.pem"), key: folder.join("searcher.key") };
    let address = site.mqtt().parse().unwrap();
    let broker =
        Broker { address, ca_file: folder.join("ca.pem"), identity: Some(identity), client_id: None, protocol: Default::default() };
    ["state", "event", "agent", "alert"]
        .map(|branch| MosquittoSub::start(&broker, &format!("picket/v1/{branch}/#")).unwrap())
        .into()
}

/// So that the scan above is known to see what is there to be seen.
#[test]
fn the_scan_sees_a_password_on_a_command_line() -> Result<()> {
    let mut child = Command::new("sleep").args(["30"]).env("SECRET", CANARY).spawn()?;
    // A program that has just begun has no environment yet.
    let seen = eventually(PATIENCE, || {
        let mut found = BTreeSet::new();
        read_processes(&disguises(), &mut found);
        ensure!(found.iter().any(|what| what.contains("environ of sleep")), "{found:?}");
        Ok(())
    });
    child.kill()?;
    child.wait()?;
    seen
}
