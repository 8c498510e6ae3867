//! `picketctl` as people and scripts use it, against a whole site: host sets, every form of output, exit codes, questions with and
//! without a terminal; its host sets judged by ClusterShell, its `pm` by powerman.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::ensure;
use picket_tests::bmcsim::{BmcHandle, Faults, Simulator, Unplug};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Answer, Site, host_body, simulator};
use picket_tests::peers::nodeset;
use picket_tests::peers::powerman::Powerman;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(45);

/// Exit codes of `picketctl`.
const OK: i32 = 0;
const SOME_FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 8;

const HOSTS: usize = 12;

/// Hosts r07n01 … r07n12, all in cluster c1 and on; r08n01 in cluster c2 and off.
struct Stage {
    site: Site,
    _agent: Agent,
    simulator: Simulator,
}

impl Stage {
    fn set() -> Self {
        let simulator = simulator("h", HOSTS + 1, 0).unwrap();
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        site.place("z1", "c2", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        let stage = Self { site, _agent: agent, simulator };
        let bodies = stage.bmcs().iter().enumerate().map(|(index, bmc)| {
            let (name, cluster) = if index < HOSTS { (format!("r07n{:02}", index + 1), "c1") } else { ("r08n01".into(), "c2") };
            bmc.set_power(index < HOSTS);
            host_body(&name, cluster, "r1", "ipmi", bmc.ipmi().unwrap(), ("admin", "password"))
        });
        stage.site.import(&bodies.collect::<Vec<_>>()).unwrap();
        stage.ok(&["oobm", "enable", "host", "@all"]);
        stage.until_listed("@state:on", "r07n[01-12]");
        stage.until_listed("@state:off", "r08n01");
        stage
    }

    fn bmcs(&self) -> &[BmcHandle] {
        self.simulator.fleet().all()
    }

    fn ctl(&self, arguments: &[&str]) -> Answer {
        self.site.ctl(arguments).unwrap()
    }

    /// Runs what must work, and gives what it prints.
    fn ok(&self, arguments: &[&str]) -> String {
        let answer = self.ctl(arguments);
        assert_eq!(answer.code, OK, "{arguments:?}: {answer:?}");
        answer.out
    }

    /// Waits until a set has these hosts.
    fn until_listed(&self, set: &str, hosts: &str) {
        eventually(PATIENCE, || {
            let listed = self.ctl(&["hosts", "list", set, "-o", "folded"]).out;
            ensure!(listed.trim_end() == hosts, "{set} is {listed:?}");
            Ok(())
        })
        .unwrap();
    }

    /// The hosts r07n… that are on, as their BMCs know it.
    fn on(&self) -> Vec<usize> {
        let bmcs = self.bmcs().iter().take(HOSTS).enumerate();
        bmcs.filter(|(_, bmc)| bmc.is_on()).map(|(index, _)| index + 1).collect()
    }

    fn orders(&self) -> usize {
        self.bmcs()
            .iter()
            .map(|bmc| ["off", "on", "cycle", "reset", "soft"].iter().map(|action| bmc.orders(action)).sum::<usize>())
            .sum()
    }
}

#[test]
fn many_hosts_by_one_word() {
    let stage = Stage::set();
    forms_of_output(&stage);
    exit_codes(&stage);
    nobody_to_ask(&stage);
    somebody_to_ask(&stage);
    one_after_the_other(&stage);
    what_bmcs_are_and_inherit(&stage);
}

fn forms_of_output(stage: &Stage) {
    let switched = stage.ok(&[
        "power",
        "off",
        "r07n[01-12]&@state:on!r07n[03-12]",
        "--wait",
        "--yes",
        "-o",
        "csv",
        "--columns",
        "host,result",
    ]);
    assert_eq!(switched, "host,result\nr07n01,changed\nr07n02,changed\n");
    assert_eq!(stage.on(), (3..=HOSTS).collect::<Vec<_>>());

    let read = ["power", "status", "r07n[01-03],r08n01"];
    let form = |format: &str| stage.ok(&[&read[..], &["-o", format]].concat());
    let json: Vec<Value> = serde_json::from_str(&form("json")).unwrap();
    let states: Vec<_> = json
        .iter()
        .map(|row| (row["host"].as_str().unwrap(), row["result"].as_str().unwrap(), row["power"].as_str().unwrap()))
        .collect();
    let wanted = [("r07n01", "read", "off"), ("r07n02", "read", "off"), ("r07n03", "read", "on"), ("r08n01", "read", "off")];
    assert_eq!(states, wanted);
    let lines: Vec<Value> = form("jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert!(form("yaml").contains("  power: \"off\"\n"), "quoted, or YAML 1.1 reads a boolean");
    assert_eq!((form("name").as_str(), form("folded").as_str()), ("r07n01\nr07n02\nr07n03\nr08n01\n", "r07n[01-03],r08n01\n"));
    let table = form("table");
    assert!(table.starts_with("HOST    RESULT  OPERATION") && table.contains("r07n01  off ") && !table.contains('■'), "{table}");

    stage.until_listed("@state:off", "r07n[01-02],r08n01");
    assert_eq!(stage.ok(&["hosts", "expand", "r0*1&@cluster:c1"]), "r07n01\nr07n11\n");
    let through_a_pipe = stage.site.ctl_with(&["power", "on", "-", "--wait", "--yes", "-o", "name"], "r07n01\nr07n02\n").unwrap();
    assert_eq!((through_a_pipe.code, through_a_pipe.out.as_str()), (OK, "r07n01\nr07n02\n"));
    assert_eq!(stage.on().len(), HOSTS);
}

fn exit_codes(stage: &Stage) {
    let state = |set: &str| stage.ctl(&["power", "status", set, "--exit-state"]).code;
    assert_eq!((state("r07n01"), state("r08n01"), state("@cluster:c1"), state("@all")), (0, 2, 0, 2));
    let bmc = stage.bmcs().last().unwrap();
    bmc.set_faults(Faults { unplug: Some(Unplug::Silent), ..Faults::default() });
    assert_eq!(state("r08n01"), 3);
    let some = stage.ctl(&["power", "status", "r07n01,r08n01", "-o", "csv", "--columns", "host,result", "--no-header"]);
    assert_eq!((some.code, some.out.as_str()), (SOME_FAILED, "r07n01,on\nr08n01,failed\n"));
    bmc.clear_faults();
    let absent = stage.ctl(&["power", "off", "r09n[1-2]", "--yes"]);
    assert_eq!(absent.code, NOT_FOUND, "{absent:?}");
    assert_eq!(stage.ctl(&["power", "off", "@rack:r9"]).code, USAGE);
    assert_eq!(stage.ctl(&["power", "off", "r07n[12-01]"]).code, USAGE);
}

fn nobody_to_ask(stage: &Stage) {
    let before = stage.orders();
    for words in [
        &["power", "off", "r07n[01-02]"][..],
        &["power", "cycle", "@rack:r1"],
        &["oobm", "disable", "cluster", "c1"],
        &["pm", "-0", "r07n[01-02]"],
    ] {
        let answer = stage.ctl(words);
        assert!(answer.code == USAGE && answer.err.contains("--yes"), "{words:?}: {answer:?}");
    }
    let plan =
        stage.ok(&["power", "off", "r07n[01-02]", "--dry-run", "-o", "csv", "--columns", "host,power,detail", "--no-header"]);
    assert_eq!(plan, "r07n01,on,would be sent to the agent: off\nr07n02,on,would be sent to the agent: off\n");
    assert_eq!((stage.orders(), stage.on().len()), (before, HOSTS), "and nothing was done");
}

fn somebody_to_ask(stage: &Stage) {
    let typed = |set: &str, typed: &str| stage.site.ctl_on_terminal(&["power", "off", set], typed).unwrap();
    let one = typed("r07n01", "");
    assert!(one.code == OK && !one.out.contains('?') && one.out.contains("changed"), "{one:?}");
    let no = typed("r07n[02-03]", "n\n");
    assert!(
        no.code == USAGE && no.out.contains("Power off 2 hosts (r07n[02-03])? [y/N]") && no.out.contains("nothing was done"),
        "{no:?}"
    );
    let yes = typed("r07n[02-03]", "y\n");
    assert!(yes.code == OK && yes.out.contains("2 done, 0 failed, 0 pending"), "a bar on the terminal: {yes:?}");
    assert_eq!(stage.on(), (4..=HOSTS).collect::<Vec<_>>());
    let y = typed("@cluster:c1", "y\n");
    assert!(y.code == USAGE && y.out.contains("Power off 12 hosts, all of cluster c1 (r07n[01-12])? Type c1:"), "{y:?}");
    assert_eq!(stage.on().len(), HOSTS - 3);

    stage.ok(&["hosts", "set", "r07n05", "--maintenance", "true"]);
    let number = typed("r07n[01-11]", "11\n");
    assert!(number.code == OK && number.out.contains("Power off 11 hosts (r07n[01-11])? Type their number:"), "{number:?}");
    assert!(number.out.contains("in maintenance, somebody may be working on it: r07n05"), "{number:?}");
    assert_eq!(stage.on(), [HOSTS]);
    let shapes = stage.site.ctl_on_terminal(&["power", "status", "r07n[11-12]"], "").unwrap();
    assert!(
        shapes.out.contains("r07n11  ■ off") && shapes.out.contains("r07n12  ● on") && !shapes.out.contains("\u{1b}[3"),
        "{shapes:?}"
    );
}

fn one_after_the_other(stage: &Stage) {
    let id = stage.ok(&["power", "on", "r07n[01-03]", "--stagger", "1", "--yes", "--no-wait"]);
    assert_eq!(id.lines().count(), 1, "one operation: {id}");
    let waited = stage.ok(&["op", "wait", id.trim(), "-o", "csv", "--columns", "hosts,result", "--no-header"]);
    assert_eq!(waited, "r07n[01-03],3 changed\n");
    let operation = stage.site.json(&["op", "show", id.trim()]).unwrap();
    assert_eq!((operation["stagger_ms"].as_u64(), operation["counts"]["results"]["changed"].as_u64()), (Some(1000), Some(3)));
}

fn what_bmcs_are_and_inherit(stage: &Stage) {
    let tested = stage.ok(&["bmc", "test", "r07n[01-02]", "-o", "csv", "--columns", "host,result,power", "--no-header"]);
    assert_eq!(tested, "r07n01,read,on\nr07n02,read,on\n");
    let facts = stage.ok(&["bmc", "facts", "r07n01"]);
    assert!(facts.contains("PROTOCOL") && facts.contains("IPMI 2.0"), "{facts}");

    // A password made at random is shown to who asks for it, and holds from then on.
    let made = stage.ok(&["bmc", "change-password", "r07n01", "--show", "-o", "json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    let password = made[0]["generated_password"].as_str().unwrap();
    assert_eq!((made[0]["result"].as_str(), password.len()), (Some("changed"), 16));
    stage.ok(&["power", "status", "r07n01"]);

    // What a cluster says holds for hosts that say nothing themselves.
    stage.ok(&["clusters", "set", "c1", "--poll-interval", "3", "--option", "note=x", "--driver", "null"]);
    stage.ok(&["clusters", "set", "c1", "--option", "note=", "--unset", "driver"]);
    let host = stage.ok(&["hosts", "show", "r07n03"]);
    assert!(host.contains("POLL             3 (cluster)") && host.contains("DRIVER           ipmi\n"), "{host}");
    stage.ok(&["hosts", "set", "r07n03", "--poll-interval", "5"]);
    stage.ok(&["hosts", "set", "r07n03", "--unset", "poll-interval"]);
    assert_eq!(stage.site.host("r07n03").unwrap()["effective"]["poll_interval"]["from"], "cluster");

    let set = stage.ok(&["settings", "set", "action_timeout=40", "-o", "csv"]);
    assert!(set.lines().any(|line| line == "action_timeout,40,60,api"), "{set}");
    let unset = stage.ok(&["settings", "set", "--unset", "action_timeout", "-o", "csv"]);
    assert!(unset.lines().any(|line| line == "action_timeout,30,60,file"), "{unset}");
    assert!(stage.ok(&["drivers", "list", "-o", "name"]).contains("redfish\n"));
    assert!(stage.ok(&["drivers", "show", "ipmi"]).starts_with("OPTION"));

    let key = stage.site.path("recovery.key").display().to_string();
    let sealed = stage.ok(&["secrets", "reseal", "r1", "--recovery-key-file", &key]);
    assert!(sealed.starts_with("0 sealed to agent r1, ") && sealed.ends_with(", 0 do not open\n"), "{sealed}");
}

/// powerman's own daemon with its own simulated controller, and Picket with its: the same words, one after the other.
#[test]
fn pm_says_what_powerman_says() {
    let stage = Stage::set();
    let names: Vec<String> = (1..=HOSTS).map(|n| format!("r07n{n:02}")).chain(["r08n01".to_owned()]).collect();
    let powerman = Powerman::start(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    for words in [
        "-0 r07n[01-12],r08n01",
        "-q",
        "-l",
        "-l -x",
        "-1 r07n[01-03] r07n05",
        "-Q r07n[01-06],r08n01",
        "-x -Q r07n[03-04]",
        "-Q r07n09",
        "-c r07n01",
        "-r r07n[02-03]",
        "-f r07n[01-02]",
        "-u r07n02",
        "-0 r99n[1-3],r07n01",
        "-Q x1",
        "-q",
    ] {
        let arguments: Vec<&str> = words.split(' ').collect();
        // powerman 2.3 takes an action's targets as one word.
        let joined = words.replace("-1 r07n[01-03] r07n05", "-1 r07n[01-03],r07n05");
        let (code, text) = powerman.pm(&joined.split(' ').collect::<Vec<_>>()).unwrap();
        let ours = stage.ctl(&[&["pm", "--yes"], &arguments[..]].concat());
        assert_eq!((ours.code, ours.out.as_str()), (code, text.as_str()), "pm {words}: {ours:?}");
    }
}

/// What people write, and what ClusterShell makes of it.
#[test]
fn host_sets_mean_what_clustershell_says() {
    let site = Site::start().unwrap();
    let ours = |arguments: &[&str], input: &str| {
        let answer = site.ctl_with(&[&["hosts"], arguments].concat(), input).unwrap();
        assert_eq!(answer.code, OK, "{arguments:?}: {answer:?}");
        answer.out
    };
    for set in [
        "n1",
        "n[1-3]",
        "n[08-11]",
        "n[098-102]",
        "n[8-11]",
        "n[0-6/2]",
        "n[0-10/20]",
        "n[0-9/3,1-2]",
        "n[01-03,4]",
        "n[1,01,001]",
        "dc[1-4]n[1-10]",
        "dc[1-2]r[01-02]n[3,5-6]-bmc",
        "n[1-3]01",
        "n01[0-1]",
        "[1-3]",
        "10.0.0.[1-20]",
        "a,b,a1,a01",
        "n[1-5]!n3",
        "n1!n2,n3",
        "n[1-5]&n[3-9]^n[4-6]",
        "n[1-5] , m[1] ! n3",
        "r[1-3]n1,r2n2,r[1-3]n3!r3n3",
    ] {
        let mut theirs = nodeset::expand(set).unwrap();
        let mut mine: Vec<String> = ours(&["expand", set], "").lines().map(str::to_owned).collect();
        let names = theirs.join("\n");
        theirs.sort();
        mine.sort();
        assert_eq!(mine, theirs, "{set}");
        // Each reads what the other folds.
        let folded = ours(&["fold", "-"], &names);
        let mut back = nodeset::expand(folded.trim()).unwrap();
        back.sort();
        assert_eq!(back, theirs, "{set} became {folded}");
        let folded = nodeset::fold(&theirs).unwrap();
        let mut back: Vec<String> = ours(&["expand", &folded], "").lines().map(str::to_owned).collect();
        back.sort();
        assert_eq!(back, theirs, "{set} became {folded}");
    }
    for wrong in ["n[3-1]", "n[1-", "n1]", "n[1-5/0]", "n[08-100]", "n[]", "n1,,n2", ",n1", "n1!", "n[1-010]"] {
        assert!(nodeset::expand(wrong).is_err(), "{wrong}");
        assert_eq!(site.ctl(&["hosts", "expand", wrong]).unwrap().code, USAGE, "{wrong}");
    }
}
