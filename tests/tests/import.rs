//! Hosts from files and into files, with real daemons: a rack's worth imported in each form and polled at once, files that are
//! wrong in every way and change nothing, and a fleet that is exported, wiped and imported again.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use picket_tests::bmcsim::{BmcHandle, Config, Initial, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Answer, Site};
use picket_tests::ports;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
const EACH: usize = 32;
const PORT: u16 = 6230;

/// A zone with a cluster and a rack that is guarded, and one BMC of IPMI for each host to come: each has an address of its own, for
/// HIL's form knows no port.
struct Stage {
    site: Site,
    simulator: Simulator,
    _agent: Agent,
}

impl Stage {
    fn with(count: usize) -> Self {
        // The process's own addresses, from .100 on: the daemons have the first ones.
        let [a, b, c, _] = ports::address().unwrap().octets();
        let simulator = Simulator::start(Config {
            ipmi: count,
            address: Ipv4Addr::new(a, b, c, 100),
            ipmi_port: PORT,
            name_prefix: "n".into(),
            initial: Initial::Alternate,
            ..Config::default()
        })
        .unwrap();
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        let defaults = site.ctl(&["clusters", "set", "c1", "--driver", "ipmi", "--port", &PORT.to_string()]).unwrap();
        assert_eq!(defaults.code, 0, "{defaults:?}");
        Self { site, simulator, _agent: agent }
    }

    /// Writes a file and imports it.
    fn import(&self, name: &str, text: impl AsRef<[u8]>, more: &[&str]) -> Answer {
        let file = self.site.path(name);
        std::fs::write(&file, text).unwrap();
        self.site.ctl(&[&["hosts", "import", &file.display().to_string()], more].concat()).unwrap()
    }

    fn shows_the_truth(&self) -> Result<()> {
        let listed = self.site.json(&["hosts", "list"])?;
        let listed = listed.as_array().unwrap();
        ensure!(listed.len() == self.simulator.fleet().all().len(), "{} hosts are listed", listed.len());
        listed.iter().try_for_each(|host| {
            let bmc = self.simulator.fleet().all().iter().find(|bmc| host["id"] == bmc.name());
            let is_on = bmc.is_some_and(BmcHandle::is_on);
            ensure!(host["power"] == if is_on { "on" } else { "off" } && host["stale"] == false, "{host}");
            Ok(())
        })
    }

    /// What is set, without what was observed.
    fn export(&self, format: &str) -> String {
        let answer = self.site.ctl(&["hosts", "export", "--format", format]).unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.out
    }
}

fn address(bmc: &BmcHandle) -> String {
    bmc.ipmi().unwrap().ip().to_string()
}

#[test]
fn a_rack_from_three_files_is_polled_at_once() {
    let stage = Stage::with(3 * EACH);
    let bmcs = stage.simulator.fleet().all();
    let csv: String = std::iter::once("id,cluster,rack,address,username,password,oobm_enabled,labels\r\n".to_owned())
        .chain(
            bmcs[..EACH]
                .iter()
                .map(|bmc| format!("{},c1,r1,{},admin,\"password\",yes,\"row=7; note=a, b\"\r\n", bmc.name(), address(bmc))),
        )
        .collect();
    let ndjson: String = bmcs[EACH..2 * EACH]
        .iter()
        .map(|bmc| {
            let bmc_body = json!({"address": address(bmc), "username": "admin", "password": "password"});
            let host = json!({"id": bmc.name(), "cluster": "c1", "rack": "r1", "oobm_enabled": true, "bmc": bmc_body});
            format!("{host}\n")
        })
        .collect();
    let obm: Vec<Value> = bmcs[2 * EACH..]
        .iter()
        .map(|bmc| {
            let kind = "http://schema.massopencloud.org/haas/v0/obm/ipmi";
            let obm = json!({"type": kind, "host": address(bmc), "user": "admin", "password": "password"});
            json!({"node": bmc.name(), "oobm_enabled": true, "obm": obm})
        })
        .collect();
    let wanted = "32 created, 0 changed, 0 unchanged, 0 refused\n";
    let dry = stage.import("hosts.csv", &csv, &["--dry-run"]);
    assert_eq!((dry.code, dry.err), (0, format!("dry run: {wanted}")));
    assert_eq!(stage.site.json(&["hosts", "list"]).unwrap(), json!([]), "a dry run does nothing");
    for (name, text, more) in [
        ("hosts.csv", csv, &[][..]),
        ("hosts.ndjson", ndjson, &[]),
        ("hil", Value::from(obm).to_string(), &["--format", "obm", "--cluster", "c1", "--rack", "r1"]),
    ] {
        let answer = stage.import(name, text, more);
        assert_eq!((answer.code, answer.err.as_str()), (0, wanted), "{name}: {answer:?}");
    }
    eventually(PATIENCE, || stage.shows_the_truth()).unwrap();
    let log = stage.site.log().unwrap();
    assert!(!log.contains("\"password\""), "the log holds a password");
}

#[test]
fn a_wrong_file_says_where_and_changes_nothing() {
    let stage = Stage::with(1);
    let bmc = &stage.simulator.fleet().all()[0];
    let head = "id,cluster,rack,driver,address,username\n";
    let good = format!("{},c1,r1,ipmi,{},admin\n", bmc.name(), address(bmc));
    assert_eq!(stage.import("hosts.csv", format!("{head}{good}"), &[]).code, 0);
    let before = (stage.export("csv"), stage.site.json(&["hosts", "list"]).unwrap().as_array().unwrap().len());
    let new = "new1,c1,r1,ipmi,10.9.9.9,admin\n";
    let row = |row: &str| [head.as_bytes(), new.as_bytes(), row.as_bytes()].concat();
    for (what, name, text, code, told) in [
        (
            "bad UTF-8",
            "a.csv",
            [head.as_bytes(), new.as_bytes(), b"new2,c1,r1,ipmi,10.9.9.8,M\xfcller\n"].concat(),
            3,
            "a.csv:3: new2: username: is not UTF-8",
        ),
        ("UTF-16", "b.csv", b"\xff\xfei\0d\0".to_vec(), 2, "UTF-16; save the file as UTF-8"),
        ("a column is missing", "c.csv", b"id,cluster,driver\nnew1,c1,ipmi\n".to_vec(), 2, "line 1: the column rack is missing"),
        ("an unknown column", "d.csv", b"id,cluster,rack,drvier\n".to_vec(), 2, "line 1: cell 4 is not the name of a column"),
        ("a host twice", "e.csv", row("new1,c1,r1,ipmi,10.9.9.8,admin\n"), 3, "e.csv:3: new1: id: host new1 is in line 2 already"),
        (
            "an unknown driver",
            "f.csv",
            row("new2,c1,r1,telnet,10.9.9.8,admin\n"),
            3,
            "f.csv:3: new2: bmc.driver: \"telnet\" is not a driver",
        ),
        ("no such cluster", "g.csv", row("new2,c9,r1,ipmi,10.9.9.8,admin\n"), 3, "g.csv:3: new2: no cluster \"c9\""),
        ("a bad address", "h.csv", row("new2,c1,r1,ipmi,http://x,admin\n"), 3, "h.csv:3: new2: bmc.address: is not an IP address"),
        (
            "a comma too many",
            "i.csv",
            row("new2,c1,r1,ipmi,10.9.9.8,a,b\n"),
            3,
            "i.csv:3: new2: row: has 7 cells where the first line has 6",
        ),
        ("an open quote", "j.csv", row("new2,c1,r1,ipmi,10.9.9.8,\"admin\n"), 3, "j.csv:3: new2: bmc.username: "),
        (
            "not JSON",
            "k.ndjson",
            b"{\"id\":\"new1\",\"cluster\":\"c1\",\"rack\":\"r1\"}\n{\"id\":\n".to_vec(),
            3,
            "k.ndjson:2: the body is not valid JSON",
        ),
        (
            "an unknown field",
            "l.json",
            b"[{\"id\":\"new1\",\"cluster\":\"c1\",\"rack\":\"r1\",\"colour\":1}]".to_vec(),
            3,
            "l.json:1: new1: unknown field `colour`",
        ),
        (
            "an array that ends early",
            "m.json",
            b"[{\"id\":\"new1\",\"cluster\":\"c1\",\"rack\":\"r1\"}".to_vec(),
            2,
            "line 1: expected `,` or `]`",
        ),
        ("nothing", "n.csv", Vec::new(), 2, "holds no host"),
        ("100 MB", "o.csv", vec![b'x'; 100 << 20], 2, "o.csv is larger than 8388608 bytes: split it up"),
    ] {
        let answer = stage.import(name, text, &[]);
        assert!(answer.code == code && answer.err.contains(told), "{what}: {answer:?}");
        let after = (stage.export("csv"), stage.site.json(&["hosts", "list"]).unwrap().as_array().unwrap().len());
        assert_eq!(after, before, "{what} changed something");
    }
    // What only looks wrong is taken: a byte order mark, semicolons, quotes, line ends of Windows, columns in another order.
    let odd = format!("\u{feff}rack;ID;labels;cluster\r\nr1;new1;\"note=say \"\"hi\"\"\";c1\r\nr1;{};;c1\r\n", bmc.name());
    let answer = stage.import("odd.csv", odd, &[]);
    assert_eq!((answer.code, answer.err.as_str()), (0, "1 created, 1 changed, 0 unchanged, 0 refused\n"));
    assert_eq!(stage.site.host("new1").unwrap()["labels"], json!({"note": "say \"hi\""}));
}

#[test]
fn a_body_of_100_mb_is_refused_before_it_is_sent() {
    let site = Site::start().unwrap();
    let mut command = std::process::Command::new("curl");
    command
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--cacert"])
        .arg(site.ca_file())
        .args(["--config", "-", "--header", "Content-Type: text/csv", "--write-out", "\n%{http_code} %{size_upload}"])
        .arg("--data-binary")
        .arg(format!("@{}", site.path("large").display()))
        .arg(format!("{}/v1/import/hosts", site.url()));
    std::fs::File::create(site.path("large")).unwrap().set_len(100 << 20).unwrap();
    let token = std::fs::read_to_string(site.token_file()).unwrap();
    let output = picket_tests::peers::process::run(&command, &format!("header = \"Authorization: Bearer {}\"\n", token.trim()));
    let told = Answer::from(output.unwrap());
    let (body, end) = told.out.rsplit_once('\n').unwrap();
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(413), &json!("body-too-large")), "{told:?}");
    let sent: u64 = end.split_once(' ').unwrap().1.parse().unwrap();
    assert!(sent < 16 << 20, "{sent} bytes were sent");
}

#[test]
fn exported_wiped_and_imported_it_is_the_same_fleet() {
    let stage = Stage::with(4);
    for bmc in stage.simulator.fleet().all() {
        let id = bmc.name();
        let add = ["hosts", "add", id, "--cluster", "c1", "--rack", "r1", "--address", &address(bmc), "--username", "admin"];
        let more = ["--password-stdin", "--label", "note=a;b,\"c\"", "--option", "cipher_suite=17", "--poll-interval", "2"];
        let answer = stage.site.ctl_with(&[&add[..], &more].concat(), "password\n").unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(stage.site.ctl(&["oobm", "enable", "host", id]).unwrap().code, 0);
    }
    assert_eq!(stage.site.ctl(&["hosts", "set", "n-0002", "--maintenance", "true"]).unwrap().code, 0);
    assert_eq!(stage.site.ctl(&["hosts", "add", "bare", "--cluster", "c1", "--rack", "r1"]).unwrap().code, 0);
    for format in ["csv", "ndjson"] {
        let file = stage.export(format);
        assert!(!file.contains("\"password\"") && file.contains("n-0004"), "{file}");
        let again = stage.import(&format!("fleet.{format}"), &file, &[]);
        assert_eq!((again.code, again.err.as_str()), (0, "0 created, 0 changed, 5 unchanged, 0 refused\n"), "its passwords stay");
        assert_eq!(stage.site.ctl(&["hosts", "rm", "@all", "--yes"]).unwrap().code, 0);
        let back = stage.import(&format!("fleet.{format}"), &file, &[]);
        assert_eq!((back.code, back.err.as_str()), (0, "5 created, 0 changed, 0 unchanged, 0 refused\n"));
        assert_eq!(stage.export(format), file, "the same but for what was sealed");
        let host = stage.site.host("n-0001").unwrap();
        assert_eq!((&host["bmc"]["password_set"], &host["oobm_enabled"]), (&json!(false), &json!(true)), "{host}");
        // With the passwords, which are written nowhere, it is the whole fleet again.
        let filled = with_passwords(&file, format);
        assert_eq!(stage.import(&format!("filled.{format}"), filled, &[]).code, 0);
        assert_eq!(stage.site.ctl(&["hosts", "rm", "bare", "--yes"]).unwrap().code, 0);
        eventually(PATIENCE, || stage.shows_the_truth()).unwrap();
        assert_eq!(stage.site.ctl(&["hosts", "add", "bare", "--cluster", "c1", "--rack", "r1"]).unwrap().code, 0);
    }
}

/// An export with the passwords filled in, as an admin does it.
fn with_passwords(file: &str, format: &str) -> String {
    if format == "csv" {
        // `…,admin,,…`: the cell behind the name.
        return file.replace(",admin,,", ",admin,password,");
    }
    file.replace("\"username\":\"admin\"", "\"username\":\"admin\",\"password\":\"password\"")
}
