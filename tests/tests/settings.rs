//! Settings of many hosts at once: a cluster's defaults under 48 hosts of which some override field by field, the site's settings
//! changed while everything runs, and one operation on 48 hosts: staggered, taken back in the middle, only rehearsed. What reaches
//! the hosts is judged by what their BMCs record.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use picket_common::api::Operation;
use picket_tests::bmcsim::{BmcHandle, Config, Faults, Initial, Privilege, Profile, Simulator, Source, Unplug};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Http, Site, hosts, simulator};
use picket_tests::ports;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ports that all BMCs of the big simulator share, each on an address of its own.
const IPMI_PORT: u16 = 6230;
const REDFISH_PORT: u16 = 4430;

fn ok(site: &Site, words: &[&str]) -> String {
    let answer = site.ctl(words).unwrap();
    assert_eq!(answer.code, 0, "{words:?}: {answer:?}");
    answer.out
}

/// Waits until `clock`, which is polled every second whatever happens, was read so often again.
fn while_polled(clock: &BmcHandle, times: u64) {
    let begun = clock.counters().status_reads;
    eventually(PATIENCE, || {
        let reads = clock.counters().status_reads - begun;
        ensure!(reads >= times, "{} was read only {reads} times", clock.name());
        Ok(())
    })
    .unwrap();
}

/// How often each was read while `clock` was read so often.
fn reads_meanwhile(bmcs: &[&BmcHandle], clock: &BmcHandle, times: u64) -> Vec<u64> {
    let before: Vec<u64> = bmcs.iter().map(|bmc| bmc.counters().status_reads).collect();
    while_polled(clock, times);
    bmcs.iter().zip(before).map(|(bmc, before)| bmc.counters().status_reads - before).collect()
}

// ---- what a cluster's hosts inherit ----

/// 48 hosts: n-0001 to n-0042 speak IPMI and n-0043 to n-0047 Redfish, on the cluster's ports; p-0001 speaks IPMI on another.
struct Heirs {
    site: Site,
    _agent: Agent,
    many: Simulator,
    one: Simulator,
}

/// What overrides the cluster: host, field within `effective`, value.
fn overrides(elsewhere: u16) -> Vec<(String, &'static str, Value)> {
    let of = |host: &str, field, value| (host.to_owned(), field, value);
    let mut all = vec![
        of("n-0037", "username", json!("own")),
        of("n-0037", "password_set", json!(true)),
        of("n-0038", "options/cipher_suite", json!("17")),
        of("n-0039", "poll_interval", json!(1)),
        of("n-0040", "action_timeout", json!(25)),
        of("n-0041", "driver", json!("ipmitool")),
        of("n-0041", "port", json!(IPMI_PORT)),
        of("n-0042", "options/boot_mode", json!("legacy")),
        of("p-0001", "port", json!(elsewhere)),
    ];
    for number in 43..=47 {
        let host = format!("n-00{number}");
        all.extend([of(&host, "driver", json!("redfish")), of(&host, "port", json!(REDFISH_PORT))]);
    }
    all
}

impl Heirs {
    fn set() -> Self {
        let config = Config {
            ipmi: 42,
            redfish: 5,
            address: ports::address().unwrap(),
            ipmi_port: IPMI_PORT,
            redfish_port: REDFISH_PORT,
            name_prefix: "n".into(),
            initial: Initial::On,
            ..Config::default()
        };
        let many = Simulator::start(config).unwrap();
        let one = simulator("p", 1, 0).unwrap();
        many.fleet().all()[36].set_user("own", "Own-secret-7", Privilege::Operator);
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        let heirs = Self { site, _agent: agent, many, one };
        heirs.defaults(&["--driver", "ipmi", "--port", "6230", "--username", "admin", "--password-stdin"], "password");
        heirs.defaults(&["--option", "cipher_suite=3", "--poll-interval", "1", "--action-timeout", "40"], "");
        let bodies: Vec<Value> = heirs.bmcs().map(|bmc| heirs.body(bmc)).collect();
        assert_eq!(bodies.len(), 48);
        heirs.site.import(&bodies).unwrap();
        ok(&heirs.site, &["oobm", "enable", "host", "@all", "--yes"]);
        for bmc in heirs.bmcs() {
            heirs.site.until(bmc.name(), "power", if bmc.is_on() { "on" } else { "off" }, PATIENCE).unwrap();
        }
        heirs
    }

    fn bmcs(&self) -> impl Iterator<Item = &BmcHandle> {
        self.many.fleet().all().iter().chain(self.one.fleet().all())
    }

    fn bmc(&self, number: usize) -> &BmcHandle {
        &self.many.fleet().all()[number - 1]
    }

    /// Those that have their login from the cluster.
    fn inheriting_login(&self) -> impl Iterator<Item = &BmcHandle> {
        self.bmcs().filter(|bmc| bmc.name() != "n-0037")
    }

    /// Changes what the cluster hands down.
    fn defaults(&self, words: &[&str], input: &str) {
        let answer = self.site.ctl_with(&[&["clusters", "set", "c1"], words].concat(), input).unwrap();
        assert_eq!(answer.code, 0, "{words:?}: {answer:?}");
    }

    fn elsewhere(&self) -> u16 {
        self.one.fleet().all()[0].ipmi().unwrap().port()
    }

    /// An address, and what the host has of its own.
    fn body(&self, bmc: &BmcHandle) -> Value {
        let address = bmc.ipmi().or(bmc.redfish()).unwrap().ip();
        let mut host = json!({ "id": bmc.name(), "cluster": "c1", "rack": "r1", "bmc": { "address": address } });
        for (of, field, value) in overrides(self.elsewhere()) {
            if of != bmc.name() {
                continue;
            }
            match field.split_once('/') {
                Some((_, option)) => host["bmc"]["options"][option] = value,
                None if field == "password_set" => host["bmc"]["password"] = json!("Own-secret-7"),
                None if field.contains("_") => host[field] = value,
                None => host["bmc"][field] = value,
            }
        }
        host
    }

    /// `hosts show` has each value from where it comes; `inherited` is what the cluster hands down to hosts of its driver.
    fn assert_origins(&self, inherited: &[(&str, Value)]) {
        let overrides = overrides(self.elsewhere());
        for bmc in self.bmcs() {
            let name = bmc.name();
            let shown = self.site.host(name).unwrap();
            let own = |field: &str| overrides.iter().find(|(host, of, _)| host == name && *of == field).map(|(_, _, value)| value);
            let driver = own("driver").unwrap_or(&inherited[0].1);
            for (field, value) in inherited {
                // Port and options belong to a driver: under another one the cluster's do not hold.
                let not_its = *driver != inherited[0].1 && (*field == "port" || field.starts_with("options/"));
                let found = shown.pointer(&format!("/effective/{field}"));
                match own(field) {
                    Some(own) => assert_eq!(found, Some(&json!({ "value": own, "from": "host" })), "{name} {field}: {shown}"),
                    None if not_its => assert!(found.is_none_or(|found| found["from"] == "default"), "{name} {field}: {shown}"),
                    None => assert_eq!(found, Some(&json!({ "value": value, "from": "cluster" })), "{name} {field}: {shown}"),
                }
            }
        }
    }
}

/// The logins at a BMC: user and detail.
fn logins(bmc: &BmcHandle) -> Vec<(String, String)> {
    let calls = bmc.calls(0).into_iter().filter(|call| call.action == "login");
    calls.map(|call| (call.user, call.result)).collect()
}

/// How long an operation of a host may take, as the aggregator reckons it, in seconds.
fn time_of(site: &Site, host: &str) -> i64 {
    let made = site.api("POST", &format!("/v1/hosts/{host}/power"), Some(&json!({ "operation": "status" }))).unwrap();
    let operation: Operation = serde_json::from_value(made.clone()).with_context(|| made.to_string()).unwrap();
    operation.deadline.as_second() - operation.accepted_at.as_second()
}

#[test]
fn forty_eight_hosts_inherit_what_they_do_not_say_themselves() {
    let heirs = Heirs::set();
    let site = &heirs.site;
    let inherited = |driver: &str, user: &str, interval: u64| {
        vec![
            ("driver", json!(driver)),
            ("port", json!(IPMI_PORT)),
            ("username", json!(user)),
            ("password_set", json!(true)),
            ("options/cipher_suite", json!("3")),
            ("poll_interval", json!(interval)),
            ("action_timeout", json!(40)),
        ]
    };
    heirs.assert_origins(&inherited("ipmi", "admin", 1));
    let text = ok(site, &["hosts", "show", "n-0040"]);
    assert!(text.contains("ipmi (cluster)") && text.contains("TIMEOUT          25\n"), "{text}");

    // It is so at the BMCs.
    for bmc in heirs.bmcs().filter(|bmc| bmc.ipmi().is_some()) {
        let user = if bmc.name() == "n-0037" { "own" } else { "admin" };
        let suite = if bmc.name() == "n-0038" { "suite-17" } else { "suite-3" };
        let logins = logins(bmc);
        assert!(!logins.is_empty() && logins.iter().all(|(by, _)| by == user), "{}: {logins:?}", bmc.name());
        if bmc.name() != "n-0041" {
            assert!(logins.iter().all(|(_, with)| with == suite), "{}: {logins:?}", bmc.name());
        }
    }
    assert_eq!((time_of(site, "n-0001"), time_of(site, "n-0040")), (40, 25));

    // Other credentials, given once, reach those that have none of their own.
    for bmc in heirs.bmcs() {
        bmc.set_user("second", "Second-9-key", Privilege::Operator);
    }
    heirs.defaults(&["--username", "second", "--password-stdin"], "Second-9-key");
    for bmc in heirs.inheriting_login() {
        eventually(PATIENCE, || {
            ensure!(logins(bmc).iter().any(|(user, _)| user == "second"), "{}: nobody came", bmc.name());
            Ok(())
        })
        .unwrap();
    }
    assert!(logins(heirs.bmc(37)).iter().all(|(user, _)| user == "own"));
    assert!(heirs.bmcs().all(|bmc| bmc.counters().logins_refused == 0), "a login was tried that could not work");
    heirs.assert_origins(&inherited("ipmi", "second", 1));

    // Another interval: only the host with one of its own is polled as before. Each other is asked once at most what it is.
    heirs.defaults(&["--poll-interval", "3600"], "");
    let clock = heirs.bmc(39);
    let others: Vec<&BmcHandle> = heirs.bmcs().filter(|bmc| bmc.name() != clock.name()).collect();
    while_polled(clock, 2);
    let reads = reads_meanwhile(&others, clock, 5);
    assert!(reads.iter().all(|reads| *reads <= 1), "polled on: {reads:?}");

    // Another driver: hosts that name none are talked to by it.
    heirs.defaults(&["--driver", "ipmitool"], "");
    heirs.assert_origins(&inherited("ipmitool", "second", 3600));
    ok(site, &["bmc", "test", "n-0001,n-0043"]);
    let protocol = |host: &str| site.host(host).unwrap()["facts"]["protocol"].as_str().unwrap().to_owned();
    assert!(protocol("n-0001").starts_with("ipmitool "), "{}", protocol("n-0001"));
    assert!(protocol("n-0043").starts_with("Redfish"), "{}", protocol("n-0043"));
}

// ---- the site's settings ----

/// Four hosts: the first is polled every second whatever the site says, the others as the site says.
struct Sitewide {
    site: Site,
    _agent: Agent,
    simulator: Simulator,
}

const FILE: &str = "[oobm]\nsync_interval = 1\naction_timeout = 30\n";

impl Sitewide {
    fn set() -> Self {
        let simulator = simulator("s", 4, 0).unwrap();
        let site = Site::start_with(FILE).unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        let mut bodies = hosts(&simulator, "c1", "r1");
        bodies[0]["poll_interval"] = json!(1);
        bodies[3]["bmc"]["driver"] = json!("ipmitool");
        site.import(&bodies).unwrap();
        // The last one is only looked at.
        for bmc in &simulator.fleet().all()[..3] {
            ok(&site, &["oobm", "enable", "host", bmc.name()]);
        }
        for bmc in &simulator.fleet().all()[..3] {
            site.until(bmc.name(), "power", if bmc.is_on() { "on" } else { "off" }, PATIENCE).unwrap();
        }
        Self { site, _agent: agent, simulator }
    }

    fn bmc(&self, number: usize) -> &BmcHandle {
        &self.simulator.fleet().all()[number]
    }

    /// Waits until a setting has this value from there, for all hosts that have none of their own.
    fn until(&self, setting: &str, value: u64, source: &str) {
        let (field, from) = (setting.replace("sync", "poll"), if source == "default" { "default" } else { "global" });
        eventually(PATIENCE, || {
            let all = self.site.json(&["api", "GET", "/v1/settings"])?;
            let found = &all[setting];
            ensure!((&found["value"], &found["source"]) == (&json!(value), &json!(source)), "{setting}: {all}");
            let shown = self.site.host(self.bmc(1).name())?;
            ensure!(shown["effective"][&field] == json!({ "value": value, "from": from }), "{setting}: {shown}");
            Ok(())
        })
        .unwrap();
    }

    fn rest_while_polled(&self) -> Vec<u64> {
        while_polled(self.bmc(0), 2);
        reads_meanwhile(&[self.bmc(1), self.bmc(2)], self.bmc(0), 5)
    }
}

#[test]
fn settings_of_the_site_change_while_everything_runs() {
    let mut all = Sitewide::set();
    all.until("sync_interval", 1, "file");
    ok(&all.site, &["settings", "set", "sync_interval=3600"]);
    all.until("sync_interval", 3600, "api");
    let reads = all.rest_while_polled();
    // Each is asked once at most what it is.
    assert!(reads.iter().all(|reads| *reads <= 1), "polled on: {reads:?}");

    // What the API set goes before the file, until it is taken back.
    all.site.reload("[oobm]\nsync_interval = 2\naction_timeout = 77\n").unwrap();
    all.until("action_timeout", 77, "file");
    all.until("sync_interval", 3600, "api");
    assert_eq!(time_of(&all.site, all.bmc(1).name()), 77);
    ok(&all.site, &["settings", "set", "--unset", "sync_interval"]);
    all.until("sync_interval", 2, "file");
    let reads = all.rest_while_polled();
    assert!(reads.iter().all(|reads| (1..=5).contains(reads)), "not every two seconds: {reads:?}");

    // A file with a mistake changes nothing and is told.
    all.site.reload("[oobm]\nsync_interval = 0\naction_timeout = 99\n").unwrap();
    eventually(PATIENCE, || {
        let log = all.site.log()?;
        ensure!(
            log.contains("settings not reloaded, the old ones hold") && log.contains("aggregator.toml:7: must be 1 to 3600"),
            "{log}"
        );
        Ok(())
    })
    .unwrap();
    all.until("action_timeout", 77, "file");
    all.site.reload("").unwrap();
    all.until("action_timeout", 60, "default");
    all.until("sync_interval", 10, "default");

    // Options that the site gives to all hosts of a driver.
    ok(&all.site, &["settings", "set", "ipmitool.retries=3", "ipmitool.interface=lan"]);
    let shown = all.site.host(all.bmc(3).name()).unwrap();
    let options = &shown["effective"]["options"];
    assert_eq!(options["retries"], json!({ "value": "3", "from": "global" }), "{shown}");
    assert_eq!(options["interface"], json!({ "value": "lan", "from": "global" }), "{shown}");
    for wrong in ["sync_interval=0", "sync_interval=3601", "action_timeout=x", "ipmitool.interface=serial", "colour=red"] {
        let answer = all.site.ctl(&["settings", "set", wrong]).unwrap();
        assert_eq!(answer.code, 2, "{wrong}: {answer:?}");
    }
    // They outlive the aggregator.
    all.site.kill_aggregator();
    all.site.start_aggregator().unwrap();
    let shown = all.site.json(&["api", "GET", "/v1/settings"]).unwrap();
    assert_eq!((&shown["ipmitool.retries"]["value"], &shown["ipmitool.retries"]["source"]), (&json!(3), &json!("api")), "{shown}");
}

// ---- one operation on 48 hosts ----

/// 48 hosts that are on and switch quickly, half of each protocol.
struct Many {
    site: Site,
    _agent: Agent,
    simulator: Simulator,
    http: Http,
}

const STAGGER_MS: i64 = 100;

impl Many {
    fn set() -> Self {
        let simulator = simulator("m", 24, 24).unwrap();
        for bmc in simulator.fleet().all() {
            bmc.set_power(true);
            bmc.set_profile(Profile { on_delay_ms: 100, off_delay_ms: 100, ..bmc.profile() });
        }
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        site.import(&hosts(&simulator, "c1", "r1")).unwrap();
        ok(&site, &["oobm", "enable", "host", "@all", "--yes"]);
        let http = Http::admin(&site).unwrap();
        let many = Self { site, _agent: agent, simulator, http };
        many.until_true();
        many
    }

    fn bmcs(&self) -> &[BmcHandle] {
        self.simulator.fleet().all()
    }

    fn until_true(&self) {
        for bmc in self.bmcs() {
            self.site.until(bmc.name(), "power", if bmc.is_on() { "on" } else { "off" }, PATIENCE).unwrap();
        }
    }

    fn orders(&self, order: &str) -> usize {
        self.bmcs().iter().map(|bmc| bmc.orders(order)).sum()
    }

    fn operate(&self, operation: &str, dry_run: bool) -> Value {
        let body =
            json!({ "select": "@cluster:c1", "operation": operation, "stagger_ms": STAGGER_MS, "timeout": 20, "dry_run": dry_run });
        let reply = self.http.post("/v1/operations", &body).unwrap();
        assert_eq!(reply.status, if dry_run { 200 } else { 202 }, "{reply:?}");
        reply.body
    }

    /// The operation once it is over.
    fn ended(&self, id: &str) -> Operation {
        let mut ended = None;
        eventually(PATIENCE, || {
            let shown = self.http.get(&format!("/v1/operations/{id}"))?.body;
            ensure!(shown["done"] == true, "not done: {}", shown["counts"]);
            ended = Some(serde_json::from_value(shown)?);
            Ok(())
        })
        .unwrap();
        ended.unwrap()
    }
}

/// When a BMC was first given this order, in microseconds since the epoch.
fn ordered_at(bmc: &BmcHandle, order: &str) -> Result<i64> {
    let calls = bmc.calls(0);
    let first = calls.iter().find(|call| call.source != Source::Hand && call.action == order);
    Ok(i64::try_from(first.with_context(|| format!("{} was not told {order}", bmc.name()))?.at_unix_us)?)
}

#[test]
fn one_operation_on_48_hosts_is_rehearsed_staggered_and_taken_back() {
    let many = Many::set();
    rehearsed(&many);
    staggered(&many);
    taken_back(&many);
}

fn rehearsed(many: &Many) {
    let plan = many.operate("off", true);
    assert_eq!((&plan["total"], &plan["refused"]), (&json!(48), &json!(0)), "{plan}");
    assert_eq!(plan["duration_ms"], json!(47 * STAGGER_MS), "{plan}");
    let each = plan["hosts"].as_array().unwrap();
    assert!(each.len() == 48 && each.iter().all(|host| host["detail"] == "would be sent to the agent: off"), "{plan}");
    for bmc in many.bmcs().iter().take(3) {
        while_polled(bmc, 2);
    }
    assert_eq!(many.orders("off"), 0, "a rehearsal reached a BMC");
    assert_eq!(many.site.json(&["op", "list"]).unwrap(), json!([]));
}

/// Each host has its own result, and its own time to begin.
fn staggered(many: &Many) {
    let [disabled, already, gone] = [4, 5, 6].map(|number: usize| &many.bmcs()[number]);
    ok(&many.site, &["oobm", "disable", "host", disabled.name()]);
    already.set_power(false);
    many.site.until(already.name(), "power", "off", PATIENCE).unwrap();
    gone.set_faults(Faults { unplug: Some(Unplug::Silent), ..Faults::default() });
    let id = many.operate("off", false)["id"].as_str().unwrap().to_owned();
    let ended = many.ended(&id);
    let results = serde_json::to_value(&ended.counts.results).unwrap();
    assert_eq!(results, json!({ "changed": 45, "unchanged": 1, "refused": 1, "failed": 1 }), "{ended:?}");
    let accepted = ended.accepted_at.as_microsecond();
    let mut starts = Vec::new();
    for part in &ended.hosts {
        let bmc = many.bmcs().iter().find(|bmc| bmc.name() == part.host.as_str()).unwrap();
        let result = part.result.as_deref().unwrap();
        let wanted = match bmc.name() {
            name if name == disabled.name() => "refused",
            name if name == already.name() => "unchanged",
            name if name == gone.name() => "failed",
            _ => "changed",
        };
        assert_eq!(result, wanted, "{part:?}");
        match result {
            "refused" => assert_eq!(part.refusal.as_deref(), Some("host-disabled"), "{part:?}"),
            "failed" => assert!(part.bmc_error.as_ref().is_some_and(|error| error.driver == "ipmi"), "{part:?}"),
            "changed" => {
                let start = part.starts_at.unwrap().as_microsecond();
                let ordered = ordered_at(bmc, "off").unwrap();
                assert!(ordered >= start, "{}: ordered {} µs before its time", bmc.name(), start - ordered);
                assert_eq!((bmc.orders("off"), bmc.is_on()), (1, false), "{}", bmc.name());
            }
            _ => assert_eq!(bmc.orders("off"), 0, "{}", bmc.name()),
        }
        if result != "refused" {
            starts.push(part.starts_at.unwrap().as_microsecond());
        }
    }
    starts.sort_unstable();
    let wanted: Vec<i64> = (0..47).map(|k| accepted + k * STAGGER_MS * 1000).collect();
    assert_eq!(starts, wanted, "not one after the other");
    assert_eq!(disabled.orders("off") + gone.orders("off"), 0);
    ok(&many.site, &["oobm", "enable", "host", disabled.name()]);
    gone.clear_faults();
    for bmc in [disabled, gone] {
        bmc.set_power(false);
    }
    many.until_true();
    many.site.until(gone.name(), "management", "reachable", PATIENCE).unwrap();
}

/// What has not begun when it is cancelled never does.
fn taken_back(many: &Many) {
    let id = many.operate("on", false)["id"].as_str().unwrap().to_owned();
    eventually(PATIENCE, || {
        let orders = many.orders("on");
        ensure!(orders >= 8, "{orders} orders");
        Ok(())
    })
    .unwrap();
    let reply = many.http.call("DELETE", &format!("/v1/operations/{id}"), &[], None).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    let ended = many.ended(&id);
    let of = |result: &str| ended.counts.results.get(result).copied().unwrap_or_default();
    assert_eq!(of("changed") + of("cancelled"), 48, "{:?}", ended.counts);
    assert!(of("changed") >= 8 && of("cancelled") >= 8, "not in the middle: {:?}", ended.counts);
    // Longer than the rest would have taken.
    while_polled(&many.bmcs()[0], 7);
    for part in &ended.hosts {
        let bmc = many.bmcs().iter().find(|bmc| bmc.name() == part.host.as_str()).unwrap();
        let is_done = part.result.as_deref() == Some("changed");
        assert_eq!((bmc.orders("on"), bmc.is_on()), (usize::from(is_done), is_done), "{}: {part:?}", bmc.name());
    }
    many.until_true();
}
