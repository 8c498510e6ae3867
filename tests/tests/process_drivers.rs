//! Whole daemons whose agent runs programs: `ipmitool` against our simulator and OpenIPMI's, fence agents, and `curl` against
//! an HTTP power API; judged by clients of their own and by the BMCs' own records.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use picket_tests::bmcsim::{BmcHandle, Faults, Privilege, Simulator};
use picket_tests::eventually::{all_the_while, eventually};
use picket_tests::harness::{host_body, program, simulator};
use picket_tests::judged::{Bmc, By, CHANGES, LASTING, OPERATIONS, ORDERS, PATIENCE, Stand, Step, stand, stand_with};
use picket_tests::peers::ipmi_sim::IpmiSim;
use picket_tests::peers::ipmitool::Ipmitool;
use picket_tests::peers::power_api::{MACHINE, PowerApi};
use picket_tests::peers::{Power, User, orders};
use serde_json::{Value, json};

/// A password that no other text on the machine holds.
const CANARY: &str = "c4nary-0f-tools";

fn by_ipmitool<B>(bmc: B, options: Value) -> By<B> {
    By { bmc, driver: "ipmitool", options }
}

/// One simulated BMC whose host is on.
fn one(simulator: &Simulator) -> BmcHandle {
    let bmc = simulator.fleet().all()[0].clone();
    bmc.set_power(true);
    bmc
}

#[test]
fn ipmitool_does_every_operation_once_at_ipmi_sim() {
    let bmc = by_ipmitool(IpmiSim::start().unwrap(), json!({}));
    stand(&[("h1", &bmc)]).operates("h1", &bmc);
    let once = ["power 0", "power 1", "power 0", "power 1", "reset 1", "shutdown 1", "power 1"];
    assert_eq!(orders(bmc.bmc.actions().unwrap()), once);
}

#[test]
fn ipmitool_speaks_ipmi_1_5_at_ipmi_sim() {
    let bmc = by_ipmitool(IpmiSim::start().unwrap(), json!({ "interface": "lan" }));
    stand(&[("h1", &bmc)]).takes_steps("h1", &bmc, &OPERATIONS[..6]);
    assert_eq!(orders(bmc.bmc.actions().unwrap()), ["power 0"]);
}

#[test]
fn ipmitool_with_a_wrong_password_and_away_at_ipmi_sim() {
    let mut bmc = by_ipmitool(IpmiSim::start().unwrap(), json!({}));
    let stand = stand(&[("h1", &bmc)]);
    stand.is_blocked_by_a_wrong_password("h1", &bmc);
    stand.is_unknown_while_its_bmc_is_away("h1", &mut bmc);
}

#[test]
fn ipmitool_does_every_operation_once_at_our_simulator() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let bmc = by_ipmitool(one(&simulator), json!({}));
    let stand = stand(&[("h1", &bmc)]);
    let before = bmc.bmc.changes().len();
    stand.operates("h1", &bmc);
    assert_eq!((bmc.bmc.changes().len() - before, bmc.bmc.truth().resets), (CHANGES, 1));
    for (order, times) in ORDERS {
        assert_eq!(bmc.bmc.orders(order), *times, "{order}");
    }
    let mut logins = bmc.bmc.calls(0).into_iter().filter(|call| call.action == "login");
    assert_eq!(logins.next().map(|call| call.result).as_deref(), Some("suite-17"), "the stronger suite first");
}

#[test]
fn ipmitool_with_a_wrong_password_and_away_at_our_simulator() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let mut bmc = by_ipmitool(one(&simulator), json!({}));
    let stand = stand(&[("h1", &bmc)]);
    stand.is_blocked_by_a_wrong_password("h1", &bmc);
    let log = stand.agent.log().unwrap();
    let refused = log.lines().filter(|line| line.contains("program failed") && line.contains("\"code\":\"rakp2-hmac\""));
    assert_eq!(refused.count(), 2, "two refused logins, then silence");
    stand.is_unknown_while_its_bmc_is_away("h1", &mut bmc);
}

/// What else can be asked of a BMC, and what it is; its password last.
#[test]
fn ipmitool_does_the_rest_as_well() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let bmc = by_ipmitool(one(&simulator), json!({}));
    let stand = stand(&[("h1", &bmc)]);
    let ask = |path: &str, body: Value| {
        let asked = stand.site.api("POST", &format!("/v1/hosts/h1/{path}"), Some(&body)).unwrap();
        let id = asked["id"].as_str().unwrap_or_default();
        assert!(!id.is_empty(), "{path}: {asked}");
        stand.site.json(&["op", "wait", id]).unwrap()["hosts"][0].clone()
    };
    for seconds in [60, 0] {
        assert_eq!(ask("identify", json!({ "seconds": seconds }))["result"], "changed");
        assert_eq!(bmc.bmc.truth().identify, seconds != 0);
    }
    let row = ask("bootdev", json!({ "device": "pxe", "persistence": "persistent" }));
    assert_eq!(row["result"], "changed", "{row}");
    let boot = format!("{:?}", bmc.bmc.truth().boot);
    assert!(boot.contains("Pxe") && boot.contains("Continuous"), "{boot}");
    let (_, row) = stand.power("h1", &["diag"]);
    assert_eq!((bmc.bmc.truth().diags, bmc.bmc.orders("diag")), (1, 1), "{row}");
    let row = ask("bmc/test", json!({}));
    assert_eq!(row["result"], "read", "{row}");
    let shown = stand.site.host("h1").unwrap();
    let facts = &shown["facts"];
    assert_eq!(facts["identity"], bmc.bmc.truth().uuid.to_string(), "as driver ipmi says it: {shown}");
    assert!(facts["protocol"].as_str().unwrap_or_default().starts_with("ipmitool 1."), "{shown}");
    let row = ask("bmc/change-password", json!({ "password": "Kv3 \"otter\" $(x)" }));
    assert_eq!(row["result"], "changed", "{row}");
    let now = Ipmitool::new(bmc.bmc.ipmi().unwrap(), &User::new("admin", "Kv3 \"otter\" $(x)")).unwrap();
    assert_eq!(now.power().unwrap(), Power::On);
    let (code, row) = stand.power("h1", &["off"]);
    assert_eq!(code, 0, "{row}");
}

/// Trap T17: a driver name in another case was taken and never ran.
#[test]
fn t17_a_driver_name_in_any_case_runs() {
    let simulator = simulator("bmc", 2, 0).unwrap();
    let all = simulator.fleet().all();
    let upper = By { bmc: all[0].clone(), driver: "IPMITOOL", options: json!({}) };
    let mixed = By { bmc: all[1].clone(), driver: "Ipmi", options: json!({}) };
    all.iter().for_each(|bmc| bmc.set_power(true));
    let stand = stand(&[("h1", &upper), ("h2", &mixed)]);
    for host in ["h1", "h2"] {
        let (code, row) = stand.power(host, &["off"]);
        assert_eq!((code, &row["result"]), (0, &json!("changed")), "{row}");
    }
    assert!(all.iter().all(|bmc| !bmc.is_on()));
}

/// An order whose answer is lost is not sent again, whatever the host's options say.
#[test]
fn ipmitool_sends_a_reset_once_even_if_nobody_answers() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let bmc = by_ipmitool(one(&simulator), json!({ "retries": "5" }));
    let stand = stand(&[("h1", &bmc)]);
    bmc.bmc.set_faults(serde_json::from_value::<Faults>(json!({ "hang_at": "order" })).unwrap());
    let (_, row) = stand.power("h1", &["reset"]);
    assert_eq!(row["result"], "unknown", "{row}");
    assert_eq!((bmc.bmc.orders("reset"), bmc.bmc.truth().resets), (1, 1));
}

/// A user who is refused by silence is not tried for ever: two logins, then none.
#[test]
fn ipmitool_stops_where_logins_stay_unanswered() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let bmc = by_ipmitool(one(&simulator), json!({}));
    let stand = stand(&[("h1", &bmc)]);
    bmc.bmc.set_faults(serde_json::from_value::<Faults>(json!({ "hang_at": "rakp1" })).unwrap());
    stand.site.until("h1", "management", "auth-blocked", PATIENCE).unwrap();
    let shown = stand.site.host("h1").unwrap();
    assert_eq!(shown["error"]["code"], "logins-paused", "{shown}");
    let asked = || bmc.bmc.counters().datagrams;
    let before = asked();
    all_the_while(5 * LASTING, || {
        ensure!(asked() == before, "asked again");
        Ok(())
    })
    .unwrap();
    bmc.bmc.clear_faults();
    stand.set_password("h1", "password");
    stand.site.until("h1", "management", "reachable", PATIENCE).unwrap();
}

/// Why its readings prove nothing: within a session, the program takes a plain-text answer that anybody may have sent.
#[test]
fn ipmitool_believes_a_forged_answer_so_it_proves_no_fence() {
    let simulator = simulator("bmc", 2, 0).unwrap();
    let all = simulator.fleet().all();
    all.iter().for_each(|bmc| bmc.set_power(true));
    let tool = by_ipmitool(all[0].clone(), json!({}));
    let stand = stand(&[("tool", &tool), ("native", &all[1])]);
    all.iter().for_each(|bmc| bmc.set_faults(Faults { forge: true, ..Faults::default() }));
    stand.site.until("tool", "power", "off", PATIENCE).unwrap();
    assert!(all[0].is_on());
    let (_, row) = stand.power("native", &["status"]);
    assert_eq!(row["power"], "on", "{row}");
    let drivers = stand.site.json(&["api", "GET", "/v1/drivers"]).unwrap();
    assert!(drivers.to_string().contains("ipmitool"), "{drivers}");
    assert!(!picket_common::driver::IPMITOOL.can_prove);
}

#[test]
fn ipmitool_with_a_bmc_key() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let bmc = by_ipmitool(one(&simulator), json!({ "kg": "rack seven" }));
    let mut profile = bmc.bmc.profile();
    profile.kg = "rack seven".into();
    bmc.bmc.set_profile(profile);
    let stand = stand(&[("h1", &bmc)]);
    assert_eq!(stand.site.ctl(&["hosts", "set", "h1", "--option", "kg=another"]).unwrap().code, 0);
    stand.site.until("h1", "management", "auth-blocked", PATIENCE).unwrap();
    let shown = stand.site.host("h1").unwrap();
    assert_eq!(shown["error"]["code"], "rakp4-hmac", "{shown}");
}

/// Without the program its hosts say so, and the others do not care; once it is installed they are read.
#[test]
fn ipmitool_may_be_installed_later() {
    let simulator = simulator("bmc", 2, 0).unwrap();
    let all = simulator.fleet().all();
    all.iter().for_each(|bmc| bmc.set_power(true));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ipmitool");
    let settings = format!("[ipmitool]\npath = \"{}\"\n", path.display());
    let stand = stand_with(&settings, &[("native", &all[0])]);
    let host = by_ipmitool(all[1].clone(), json!({})).host("tool");
    stand.site.import(&[host]).unwrap();
    assert_eq!(stand.site.ctl(&["oobm", "enable", "host", "tool"]).unwrap().code, 0);
    eventually(PATIENCE, || {
        let shown = stand.site.host("tool")?;
        ensure!(shown["error"]["code"] == "ipmitool-missing" && shown["error"]["class"] == "setting", "{shown}");
        ensure!(shown["error"]["text"].as_str().is_some_and(|text| text.contains("install the package ipmitool")), "{shown}");
        Ok(())
    })
    .unwrap();
    assert_eq!(all[1].counters().logins, 0);
    assert!(stand.agent.log().unwrap().contains("ipmitool.path: there is no program"));
    symlink("/usr/bin/ipmitool", &path).unwrap();
    stand.site.until("tool", "power", "on", PATIENCE).unwrap();
}

/// Every command line and environment on the machine that shows the canary.
fn shown() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let files = processes.flat_map(|process| ["cmdline", "environ"].map(|name| process.path().join(name)));
    let canary = |file: &Path| {
        let text = std::fs::read(file).unwrap_or_default();
        text.windows(CANARY.len()).any(|part| part == CANARY.as_bytes())
    };
    files.filter(|file| canary(file)).map(|file| file.display().to_string()).collect()
}

/// While orders are carried out and logins refused, no command line, environment, log or error holds a password.
#[test]
fn ipmitool_shows_no_password_to_anybody() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let bmc = one(&simulator);
    bmc.set_user("operator", CANARY, Privilege::Operator);
    let mut host = by_ipmitool(bmc.clone(), json!({})).host("h1");
    host["bmc"]["username"] = json!("operator");
    host["bmc"]["password"] = json!(CANARY);
    let stand = stand(&[]);
    stand.site.import(&[host]).unwrap();
    assert_eq!(stand.site.ctl(&["oobm", "enable", "host", "h1"]).unwrap().code, 0);
    stand.site.until("h1", "power", "on", PATIENCE).unwrap();
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(Ordering::SeqCst) {
                seen.extend(shown());
            }
            seen
        });
        for word in ["off", "on", "reset"] {
            let (code, row) = stand.power("h1", &[word]);
            assert_eq!(code, 0, "{row}");
        }
        stand.set_password("h1", &format!("{CANARY}2"));
        stand.site.until("h1", "management", "auth-blocked", PATIENCE).unwrap();
        done.store(true, Ordering::SeqCst);
        watch.join().unwrap()
    });
    assert_eq!(seen, Vec::<String>::new());
    let told = stand.agent.log().unwrap() + &stand.site.log().unwrap() + &stand.site.host("h1").unwrap().to_string();
    assert!(!told.contains("c4nary"));
}

/// Picket's words for what fence agents do; a reset is not among them.
const FENCING: &[Step] = &[
    Step(&["status"], "read", Power::On),
    Step(&["on"], "unchanged", Power::On),
    Step(&["off"], "changed", Power::Off),
    Step(&["status"], "read", Power::Off),
    Step(&["cycle"], "refused", Power::Off),
    Step(&["on"], "changed", Power::On),
    Step(&["cycle"], "changed", Power::On),
];

const FENCE_IPMILAN: &str = "[exec.ipmilan]
fence_agent = \"fence_ipmilan\"
set = { lanplus = \"1\", verbose_level = \"2\" }
allow = [\"cipher\", \"privlvl\"]
auth = { pattern = \"RAKP 2 HMAC is invalid|unauthorized name\" }
";

#[test]
fn fence_ipmilan_is_a_driver() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let options = json!({ "template": "ipmilan", "cipher": "17", "privlvl": "operator" });
    let bmc = By { bmc: one(&simulator), driver: "exec", options };
    let stand = stand_with(FENCE_IPMILAN, &[("h1", &bmc)]);
    stand.takes_steps("h1", &bmc, FENCING);
    for (order, times) in [("on", 2), ("off", 2), ("cycle", 0), ("reset", 0)] {
        assert_eq!(bmc.bmc.orders(order), times, "{order}");
    }
    let (code, row) = stand.power("h1", &["reset"]);
    assert_ne!(code, 0, "{row}");
    assert!(row.to_string().contains("not-supported"), "{row}");
    stand.is_blocked_by_a_wrong_password("h1", &bmc);
}

/// What a host's options could do to a fence agent, they cannot: only what the agent's own file allows.
#[test]
fn a_host_chooses_a_template_and_nothing_else() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let good = json!({ "template": "ipmilan" });
    let bmc = By { bmc: one(&simulator), driver: "exec", options: good };
    let stand = stand_with(FENCE_IPMILAN, &[("h1", &bmc)]);
    let trap = tempfile::tempdir().unwrap();
    let script = format!("{}/script", trap.path().display());
    for (option, code) in [
        (format!("password_script={script}"), "unknown-option"),
        (format!("ipmitool_path={script}"), "unknown-option"),
        ("cipher=17 -o x".to_owned(), "bad-option"),
        ("template=ipmilann".to_owned(), "unknown-template"),
    ] {
        assert_eq!(stand.site.ctl(&["hosts", "set", "h1", "--option", &option]).unwrap().code, 0);
        eventually(PATIENCE, || {
            let shown = stand.site.host("h1")?;
            ensure!(shown["error"]["code"] == code && shown["power"] == "unknown", "{option}: {shown}");
            Ok(())
        })
        .unwrap();
        let whole = json!({ "bmc": { "options": { "template": "ipmilan" } } });
        let back = stand.site.api("PATCH", "/v1/hosts/h1", Some(&whole)).unwrap();
        assert_eq!(back["bmc"]["options"]["template"], "ipmilan", "{back}");
        stand.site.until("h1", "power", "on", PATIENCE).unwrap();
    }
}

/// CloudStack's nested plugin as a template: `curl` and a power API.
const NESTED: &str = r#"[exec.nested]
program = "curl"
args = ["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "8", "--netrc-file", "{file:netrc}", "http://{url_host}:{port}/client/api?command={action}&id={option:vm}"]
files = { netrc = "machine {host} login {username} password {password}" }
actions = { status = "listVirtualMachines", start = "startVirtualMachine", stop = "stopVirtualMachine", soft = "stopVirtualMachine", reboot = "rebootVirtualMachine" }
reading = { on_pattern = '"state": "Running"', off_pattern = '"state": "Stopped"' }
auth = { pattern = "error: 401" }
"#;

struct Nested {
    api: PowerApi,
}

impl Bmc for Nested {
    fn host(&self, id: &str) -> Value {
        let user = self.api.user();
        let mut host = host_body(id, "c1", "r1", "exec", self.api.address(), (&user.name, &user.password));
        host["bmc"]["options"] = json!({ "template": "nested", "vm": MACHINE });
        host
    }

    fn power(&self) -> Result<Power> {
        Ok(self.api.power())
    }

    fn dies(&mut self) -> Result<()> {
        anyhow::bail!("it does not")
    }

    fn returns(&mut self) -> Result<()> {
        anyhow::bail!("it was never away")
    }
}

/// One host behind the API, seen as on; an action, what the host is then, what the API saw.
fn nested(action: &str, power: Power, saw: &[&str]) -> (Stand, Nested) {
    let nested = Nested { api: PowerApi::start().unwrap() };
    let stand = stand_with(NESTED, &[("h1", &nested)]);
    assert_eq!(nested.api.commands(), [""; 0], "a poll changes nothing");
    let (code, row) = stand.power("h1", &[action]);
    assert_eq!(code, 0, "{action}: {row}");
    stand.agrees("h1", &nested, power, action);
    assert_eq!(nested.api.commands(), saw, "{action}");
    (stand, nested)
}

#[test]
fn test_oobm_nested_issue_power_status() {
    let (stand, nested) = nested("status", Power::On, &[]);
    stand.is_blocked_by_a_wrong_password("h1", &nested);
    assert_eq!(nested.api.refused(), 2, "two refused logins, then silence");
}

#[test]
fn test_oobm_nested_issue_power_on() {
    let (stand, nested) = nested("off", Power::Off, &["stopVirtualMachine"]);
    let (code, row) = stand.power("h1", &["on"]);
    assert_eq!(code, 0, "{row}");
    stand.agrees("h1", &nested, Power::On, "on");
    assert_eq!(nested.api.commands(), ["startVirtualMachine"]);
}

#[test]
fn test_oobm_nested_issue_power_off() {
    nested("off", Power::Off, &["stopVirtualMachine"]);
}

/// Picket's cycle is off, read, on: never a command that cannot be confirmed.
#[test]
fn test_oobm_nested_issue_power_cycle() {
    nested("cycle", Power::On, &["stopVirtualMachine", "startVirtualMachine"]);
}

#[test]
fn test_oobm_nested_issue_power_reset() {
    nested("reset", Power::On, &["rebootVirtualMachine"]);
}

#[test]
fn test_oobm_nested_issue_power_soft() {
    nested("soft", Power::Off, &["stopVirtualMachine"]);
}

/// At SIGHUP the agent's own file is read again: the next request goes by the new templates. A file that is wrong changes nothing.
#[test]
fn templates_change_by_a_signal_and_a_wrong_file_changes_nothing() {
    let template = |word: &str| {
        let texts = "program = \"echo\"\nargs = [\"{action}\"]\nreading = { on_output = \"lit\", off_output = \"dark\" }\n";
        format!("[exec.word]\n{texts}actions = {{ status = \"{word}\" }}\n")
    };
    let mut stand = stand_with(&template("lit"), &[]);
    let pid = stand.agent.pid();
    let mut host = host_body("h1", "c1", "r1", "exec", "127.0.0.1:9".parse().unwrap(), ("admin", "password"));
    host["bmc"]["options"] = json!({ "template": "word" });
    stand.site.import(&[host]).unwrap();
    assert_eq!(stand.site.ctl(&["oobm", "enable", "host", "h1"]).unwrap().code, 0);
    stand.site.until("h1", "power", "on", PATIENCE).unwrap();
    stand.agent.reload(&format!("max_processes = 9\n{}", template("dark"))).unwrap();
    stand.site.until("h1", "power", "off", PATIENCE).unwrap();
    let log = stand.agent.log().unwrap();
    let fixed = log.lines().find(|line| line.contains("this setting takes a restart"));
    assert!(fixed.is_some_and(|line| line.contains("\"key\":\"max_processes\"")), "{fixed:?}");
    for (count, (wrong, why)) in (1..).zip([
        (format!("max_in_flight = 1\n{}", template("lit")), "agent.toml:3: max_in_flight is 1; use 16 to 65536"),
        (template("lit").replace("args", "argz"), "unknown key `argz`"),
        ("[exec".to_owned(), "agent.toml:3"),
    ]) {
        stand.agent.reload(&wrong).unwrap();
        eventually(PATIENCE, || {
            let log = stand.agent.log()?;
            let told: Vec<&str> = log.lines().filter(|line| line.contains("settings not reloaded")).collect();
            ensure!(told.len() == count && told.iter().any(|line| line.contains(why)), "{why}: {told:?}");
            Ok(())
        })
        .unwrap();
        let (_, row) = stand.power("h1", &["status"]);
        assert_eq!(row["power"], "off", "the old template holds: {row}");
    }
    stand.agent.reload(&template("lit")).unwrap();
    stand.site.until("h1", "power", "on", PATIENCE).unwrap();
    assert_eq!(stand.agent.pid(), pid, "all in one process");
}

/// `picket-agent check-config` names file, line and the nearest key, and programs that are not there.
#[test]
fn a_wrong_template_is_told_before_the_daemon_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new(program("picket-agent").unwrap());
        let output = command.arg("--config").arg(&file).arg("--state-dir").arg(folder.path()).arg("check-config").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    };
    let (good, said) = check(&NESTED.replace("actions", "action"));
    let wanted = format!("{}:5: unknown key `action`; did you mean `actions`?", file.display());
    assert!(!good && said.contains(&wanted), "{said}");
    let (good, said) = check(&NESTED.replace("\"curl\"", "\"/nowhere/curl\""));
    assert!(good && said.contains("warning: exec.nested: there is no program /nowhere/curl"), "{said}");
    let (good, said) = check(NESTED);
    assert!(good && !said.contains("warning"), "{said}");
}
