//! The simulator judged by programs that share nothing with it: `ipmitool`, FreeIPMI's `ipmipower`, and `curl`. A program
//! that is not installed fails its test.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests fail by panicking")]

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use picket_tests::bmcsim::{
    BmcHandle, Body, Config, Faults, GuidOrder, Led, Privilege, Profile, Refuse, Request, Simulator, Step, Unplug,
};
use picket_tests::eventually::eventually_soon;
use serde_json::Value;

/// A running simulator and the files the judges read passwords from.
struct Bench {
    sim: Simulator,
    files: tempfile::TempDir,
}

/// A base address of our own: from the process id and a counter, checked by binding.
fn free_address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let slot = NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let [high, low] = u16::from_be_bytes([high, low]).wrapping_mul(31).wrapping_add(slot).to_be_bytes();
        let address = Ipv4Addr::new(127, 100 + high % 100, low, 1);
        if UdpSocket::bind((address, 6230)).is_ok() {
            return address;
        }
    }
}

fn start(config: Config) -> Bench {
    let profile = Profile { on_delay_ms: 50, off_delay_ms: 50, soft_delay_ms: 100, cycle_pause_ms: 50, ..config.profile };
    let users = vec![
        ("admin".into(), "Secret-16-bytes!".into(), Privilege::Administrator),
        ("operator".into(), "twenty-byte-password".into(), Privilege::Operator),
    ];
    let sim = Simulator::start(Config { address: free_address(), users, profile, ..config }).unwrap();
    let files = tempfile::tempdir().unwrap();
    for (name, content) in [("admin", "Secret-16-bytes!"), ("operator", "twenty-byte-password"), ("wrong", "not-the-password")] {
        std::fs::write(files.path().join(name), content).unwrap();
    }
    Bench { sim, files }
}

fn run(program: &str, arguments: &[String]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program} must be installed: {error}"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(String::from).collect()
}

/// Waits for what takes a delay; fails after ten seconds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let tried = || if holds() { Ok(()) } else { Err(anyhow::anyhow!("not yet: {what}")) };
    eventually_soon(Duration::from_secs(10), tried).unwrap();
}

impl Bench {
    fn bmc(&self, number: usize) -> BmcHandle {
        self.sim.bmc(&format!("bmc-{number:04}")).unwrap()
    }

    fn ipmitool(&self, bmc: &BmcHandle, options: &str, user: &str, password: &str, command: &str) -> Output {
        let at = bmc.ipmi().unwrap();
        let file = self.files.path().join(password);
        let line = format!("-I lanplus -H {} -p {} -U {user} -f {} {options} {command}", at.ip(), at.port(), file.display());
        run("ipmitool", &words(&line))
    }

    /// What an administrator gets; it must succeed.
    fn admin(&self, bmc: &BmcHandle, suite: u8, command: &str) -> String {
        let output = self.ipmitool(bmc, &format!("-C {suite}"), "admin", "admin", command);
        assert!(output.status.success(), "{command}: {}", text(&output));
        text(&output)
    }

    fn curl(&self, bmc: &BmcHandle, arguments: &[&str], path: &str) -> (u16, Value, String) {
        let url = format!("https://{}{path}", bmc.redfish().unwrap());
        let mut line = words("-sk -D - --max-time 10");
        line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        line.push(url);
        let output = text(&run("curl", &line));
        let (head, body) = output.split_once("\r\n\r\n").unwrap_or((&output, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, serde_json::from_str(body).unwrap_or(Value::Null), head.to_owned())
    }
}

#[test]
fn ipmitool_gets_every_power_action_in_both_suites() {
    let bench = start(Config { ipmi: 1, ..Config::default() });
    let bmc = bench.bmc(1);
    for suite in [3, 17] {
        bmc.forget_calls();
        bmc.set_power(true);
        assert_eq!(bench.admin(&bmc, suite, "chassis power status").trim(), "Chassis Power is on");
        bench.admin(&bmc, suite, "chassis power off");
        eventually("off", || !bmc.is_on());
        assert_eq!(bench.admin(&bmc, suite, "chassis power status").trim(), "Chassis Power is off");
        bench.admin(&bmc, suite, "chassis power off");
        bench.admin(&bmc, suite, "chassis power on");
        eventually("on", || bmc.is_on());
        let changes = bmc.changes().len();
        bench.admin(&bmc, suite, "chassis power cycle");
        eventually("cycled", || bmc.changes().len() == changes + 2 && bmc.is_on());
        let resets = bmc.truth().resets;
        bench.admin(&bmc, suite, "chassis power reset");
        assert_eq!(bmc.truth().resets, resets + 1);
        bench.admin(&bmc, suite, "chassis power diag");
        bench.admin(&bmc, suite, "chassis power soft");
        eventually("shut down", || !bmc.is_on());
        for (action, times) in [("off", 2), ("on", 1), ("cycle", 1), ("reset", 1), ("diag", 1), ("soft", 1)] {
            assert_eq!(bmc.orders(action), times, "{action} in suite {suite}");
        }
        let logins: Vec<_> = bmc.calls(0).into_iter().filter(|call| call.action == "login").map(|call| call.result).collect();
        assert!(logins.len() >= 8 && logins.iter().all(|result| *result == format!("suite-{suite}")), "{logins:?}");
    }
    let truth = bmc.truth();
    assert_eq!(truth.ipmi_sessions, 0, "ipmitool closes its sessions");
}

#[test]
fn ipmitool_reads_identity_and_sets_what_it_sets() {
    let bench = start(Config { ipmi: 1, ..Config::default() });
    let bmc = bench.bmc(1);
    for suite in [3, 17] {
        let info = bench.admin(&bmc, suite, "mc info");
        assert!(info.contains("Firmware Revision         : 1.23") && info.contains("IPMI Version              : 2.0"), "{info}");
    }
    let status = bench.admin(&bmc, 17, "chassis status");
    for line in ["System Power         : on", "Power Restore Policy : always-off", "Main Power Fault     : false"] {
        assert!(status.contains(line), "{status}");
    }
    bench.admin(&bmc, 17, "chassis policy previous");
    assert!(bench.admin(&bmc, 17, "chassis status").contains("Power Restore Policy : previous"));
    bench.admin(&bmc, 17, "chassis identify force");
    assert!(bmc.truth().identify);
    bench.admin(&bmc, 17, "chassis bootdev pxe");
    assert_eq!(bmc.truth().boot.target, "Pxe");
    assert!(bench.admin(&bmc, 17, "chassis bootparam get 5").contains("Force PXE"));
    let users = bench.admin(&bmc, 17, "user list 1");
    assert!(users.lines().any(|line| line.starts_with("3   operator") && line.contains("OPERATOR")), "{users}");
    bench.admin(&bmc, 17, "user set password 3 changed-by-ipmi 16");
    std::fs::write(bench.files.path().join("changed"), "changed-by-ipmi").unwrap();
    assert!(!bench.ipmitool(&bmc, "-C 17 -L OPERATOR", "operator", "operator", "chassis power status").status.success());
    assert!(bench.ipmitool(&bmc, "-C 17 -L OPERATOR", "operator", "changed", "chassis power status").status.success());
    assert!(bench.admin(&bmc, 3, "sel info").contains("Entries          : 0"));
}

/// What is recorded of one action, in order.
fn recorded(bmc: &BmcHandle, action: &str) -> Vec<String> {
    bmc.calls(0).into_iter().filter(|call| call.action == action).map(|call| call.result).collect()
}

#[test]
fn ipmitool_lights_interrupts_and_chooses_what_boots() {
    let bench = start(Config { ipmi: 1, ..Config::default() });
    let bmc = bench.bmc(1);
    for (words, lit) in [("30", true), ("0", false), ("force", true), ("0", false)] {
        bench.admin(&bmc, 17, &format!("chassis identify {words}"));
        assert_eq!(bmc.truth().identify, lit, "{words}");
    }
    bench.admin(&bmc, 17, "chassis identify 1");
    assert_eq!(recorded(&bmc, "identify"), ["on-30s", "off", "on", "off", "on-1s"]);
    eventually("the light goes out by itself", || !bmc.truth().identify);
    bench.admin(&bmc, 17, "chassis power diag");
    assert_eq!((bmc.orders("diag"), bmc.truth().diags), (1, 1));
    for (words, target, enabled, shown) in [
        ("pxe", "Pxe", "Once", "Force PXE"),
        ("disk options=persistent", "Hdd", "Continuous", "Options apply to all future boots"),
        ("bios options=efiboot", "BiosSetup", "Once", "BIOS EFI boot"),
        ("none", "None", "Once", "No override"),
    ] {
        bench.admin(&bmc, 17, &format!("chassis bootdev {words}"));
        let boot = bmc.truth().boot;
        assert_eq!((boot.target.as_str(), boot.enabled.as_str()), (target, enabled), "{words}");
        let read = bench.admin(&bmc, 17, "chassis bootparam get 5");
        assert!(read.contains(shown), "{words}: {read}");
    }
    bmc.set_faults(Faults { ignore_boot: true, ..Faults::default() });
    bench.admin(&bmc, 17, "chassis bootdev pxe");
    assert_eq!(bmc.truth().boot.target, "None");
    bmc.clear_faults();
    // An old BMC knows one byte; somebody's unfinished setting is told.
    bmc.set_profile(Profile { identify_one_byte: true, ..bmc.profile() });
    let raw = |words: &str| text(&bench.ipmitool(&bmc, "-C 17", "admin", "admin", &format!("raw {words}")));
    assert!(raw("0 4 5 0").contains("rsp=0xc7") && !raw("0 4 5").contains("rsp="));
    assert!(!raw("0 8 0 1").contains("rsp=") && raw("0 8 0 1").contains("rsp=0x81"));
    assert!(raw("0 8 9 1").contains("rsp=0x80"));
}

#[test]
fn ipmitool_reads_who_a_bmc_is() {
    let profile = Profile { manufacturer_id: 674, product_id: 0x0100, firmware: "4.40".into(), ..Profile::default() };
    let bench = start(Config { ipmi: 2, profile, ..Config::default() });
    let bmc = bench.bmc(1);
    let info = bench.admin(&bmc, 17, "mc info");
    for line in ["Manufacturer ID           : 674", "Product ID                : 256 (0x0100)", "Firmware Revision         : 4.40"]
    {
        assert!(info.contains(line), "{info}");
    }
    for order in [GuidOrder::Written, GuidOrder::Reversed, GuidOrder::Smbios] {
        bmc.set_profile(Profile { guid_order: order, ..bmc.profile() });
        let uuid = bmc.truth().uuid;
        let words = match order {
            GuidOrder::Written => uuid.into_bytes(),
            GuidOrder::Smbios => uuid.to_bytes_le(),
            GuidOrder::Reversed => {
                let mut bytes = uuid.into_bytes();
                bytes.reverse();
                bytes
            }
        };
        let raw = bench.admin(&bmc, 17, "raw 6 0x37");
        let sent: Vec<u8> = raw.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        assert_eq!(sent, words, "{order:?}");
    }
    assert_ne!(bmc.truth().uuid, bench.bmc(2).truth().uuid, "each has its own");
    let before = bmc.truth().uuid;
    bmc.swap_guid();
    assert_ne!(bmc.truth().uuid, before);
    bmc.set_profile(Profile { bare: true, ..bmc.profile() });
    assert!(text(&bench.ipmitool(&bmc, "-C 17", "admin", "admin", "raw 6 0x37")).contains("rsp=0xc1"));
}

#[test]
fn ipmitool_sets_passwords_and_faults_spoil_it() {
    let bench = start(Config { ipmi: 1, ..Config::default() });
    let bmc = bench.bmc(1);
    let works = |password: &str| {
        std::fs::write(bench.files.path().join("tried"), password).unwrap();
        let options = "-C 17 -L OPERATOR -N 1 -R 2";
        bench.ipmitool(&bmc, options, "operator", "tried", "chassis power status").status.success()
    };
    let set = |password: &str, length: u8| {
        let words = format!("user set password 3 {password} {length}");
        bench.ipmitool(&bmc, "-C 17 -N 1 -R 1", "admin", "admin", &words)
    };
    assert!(set("sixteen-bytes-16", 16).status.success() && works("sixteen-bytes-16"));
    assert!(set("twenty-bytes-of-pass", 20).status.success() && works("twenty-bytes-of-pass"));
    assert!(!works("sixteen-bytes-16"));
    let rule =
        Refuse { on: Request::SetPassword, code: Some(0xCC), status: None, retry_after: None, message_id: None, times: None };
    bmc.set_faults(Faults { refuse: vec![rule], ..Faults::default() });
    assert!(!set("against-policy", 16).status.success() && !works("against-policy"));
    bmc.set_faults(Faults { hang_at: Some(Step::Password), ..Faults::default() });
    assert!(!set("answer-is-lost", 16).status.success() && works("answer-is-lost"), "done, and the answer lost");
    bmc.set_faults(Faults { ignore_password: true, ..Faults::default() });
    assert!(set("ignored", 16).status.success() && !works("ignored"));
    bmc.set_faults(Faults { password_late_ms: 1_500, ..Faults::default() });
    assert!(set("comes-late", 16).status.success() && works("answer-is-lost"));
    // Each refused login of ipmitool leaves a half-open session behind: not too many of them.
    eventually("the late password takes effect", || {
        std::thread::park_timeout(Duration::from_millis(400));
        works("comes-late")
    });
    bmc.clear_faults();
    bmc.set_profile(Profile { password_max: 16, ..bmc.profile() });
    assert!(!set("twenty-bytes-of-pass", 20).status.success());
    assert_eq!(recorded(&bmc, "set-password"), ["done", "done", "done", "ignored", "late"]);
}

#[test]
fn ipmitool_is_refused_what_it_may_not() {
    let bench = start(Config { ipmi: 1, ..Config::default() });
    let bmc = bench.bmc(1);
    for suite in [3, 17] {
        let options = format!("-C {suite}");
        let before = bmc.counters();
        assert!(!bench.ipmitool(&bmc, &options, "admin", "wrong", "chassis power off").status.success());
        assert!(!bench.ipmitool(&bmc, &options, "nobody", "admin", "chassis power off").status.success());
        let after = bmc.counters();
        // With a wrong password ipmitool falls silent after RAKP 2, so only the unknown name is known to the BMC.
        assert!(after.logins_refused > before.logins_refused && after.logins == before.logins, "{after:?}");
        assert_eq!(after.orders, before.orders);
        // An operator must ask for no more than that.
        assert!(!bench.ipmitool(&bmc, &options, "operator", "operator", "chassis power off").status.success());
        let operator = format!("{options} -L OPERATOR");
        assert!(bench.ipmitool(&bmc, &operator, "operator", "operator", "chassis power status").status.success());
        assert!(bench.ipmitool(&bmc, &operator, "operator", "operator", "chassis power reset").status.success());
        let user = bench.ipmitool(&bmc, &format!("{options} -L USER"), "operator", "operator", "chassis power reset");
        assert!(text(&user).contains("Insufficient privilege level"), "{}", text(&user));
        let names = bench.ipmitool(&bmc, &operator, "operator", "operator", "user set name 4 mallory");
        assert!(text(&names).contains("Insufficient privilege level"), "{}", text(&names));
    }
    assert_eq!(bmc.orders("reset"), 2);
    assert!(bmc.is_on());
}

#[test]
fn ipmitool_meets_refusals_and_faults_as_told() {
    let profile = Profile { off_when_off: 0xD5, suites: vec![3], ..Profile::default() };
    let bench = start(Config { ipmi: 1, profile, ..Config::default() });
    let bmc = bench.bmc(1);
    bmc.set_power(false);
    for command in ["off", "cycle", "reset"] {
        let output = bench.ipmitool(&bmc, "-C 3", "admin", "admin", &format!("chassis power {command}"));
        assert!(text(&output).contains("Command not supported in present state"), "{command}: {}", text(&output));
    }
    let no_suite = bench.ipmitool(&bmc, "-C 17", "admin", "admin", "chassis power status");
    assert!(!no_suite.status.success());
    let rule =
        Refuse { on: Request::ChassisControl, code: Some(0xC0), status: None, retry_after: None, message_id: None, times: Some(1) };
    bmc.set_faults(Faults { refuse: vec![rule], ..Faults::default() });
    let busy = bench.ipmitool(&bmc, "-C 3 -R 1", "admin", "admin", "chassis power on");
    assert!(text(&busy).contains("Node busy"), "{}", text(&busy));
    bmc.set_faults(Faults { unplug: Some(Unplug::Silent), ..Faults::default() });
    assert!(!bench.ipmitool(&bmc, "-C 3 -N 1 -R 1", "admin", "admin", "chassis power status").status.success());
    // Everything twice: ipmitool complains and gets it right.
    bmc.set_faults(Faults { duplicate: 1.0, ..Faults::default() });
    assert!(bench.admin(&bmc, 3, "chassis power status").starts_with("Chassis Power is off"));
}

#[test]
fn ipmitool_uses_the_bmc_key() {
    let profile = Profile { kg: "the-bmc-key".into(), ..Profile::default() };
    let bench = start(Config { ipmi: 1, profile, ..Config::default() });
    let bmc = bench.bmc(1);
    for suite in [3, 17] {
        assert!(
            bench.ipmitool(&bmc, &format!("-C {suite} -k the-bmc-key"), "admin", "admin", "chassis power status").status.success()
        );
        assert!(
            !bench
                .ipmitool(&bmc, &format!("-C {suite} -k another-key -N 1 -R 1"), "admin", "admin", "chassis power status")
                .status
                .success()
        );
    }
}

#[test]
fn ipmipower_sweeps_a_range_in_both_suites() {
    let bench = start(Config { ipmi: 6, ..Config::default() });
    let file = bench.files.path().join("freeipmi.conf");
    std::fs::write(&file, "username admin\npassword Secret-16-bytes!\n").unwrap();
    let hosts: Vec<String> = bench.sim.fleet().all().iter().map(|bmc| bmc.ipmi().unwrap().to_string()).collect();
    let all = |state: &str| hosts.iter().map(|host| format!("{}: {state}", host.split(':').next().unwrap())).collect::<Vec<_>>();
    for suite in [3, 17] {
        let ask = |what: &str| {
            let line = format!("--config-file {} -D LAN_2_0 -I {suite} -h {} {what}", file.display(), hosts.join(","));
            let output = run("ipmipower", &words(&line));
            let mut lines: Vec<_> = text(&output).lines().map(String::from).collect();
            lines.sort();
            lines
        };
        assert_eq!(ask("--stat"), all("on"));
        assert_eq!(ask("--off --wait-until-off"), all("ok"));
        assert_eq!(ask("--stat"), all("off"));
        assert!(bench.sim.fleet().all().iter().all(|bmc| !bmc.is_on()));
        assert_eq!(ask("--on --wait-until-on"), all("ok"));
        bench.bmc(3).set_power(false);
        let mixed = ask("--stat");
        assert_eq!(mixed.iter().filter(|line| line.ends_with(": off")).count(), 1, "{mixed:?}");
        bench.bmc(3).set_power(true);
        assert_eq!(ask("--reset"), all("ok"));
    }
    assert!(bench.sim.fleet().all().iter().all(|bmc| bmc.truth().resets == 2));
}

#[test]
fn curl_reads_and_controls_with_basic_authentication() {
    let bench = start(Config { redfish: 1, ..Config::default() });
    let bmc = bench.bmc(1);
    let (status, root, _) = bench.curl(&bmc, &[], "/redfish/v1/");
    assert_eq!((status, root["Systems"]["@odata.id"].as_str()), (200, Some("/redfish/v1/Systems")));
    assert_eq!(bench.curl(&bmc, &[], "/redfish/v1/Systems").0, 401);
    assert_eq!(bench.curl(&bmc, &["-u", "admin:wrong"], "/redfish/v1/Systems").0, 401);
    let auth = ["-u", "admin:Secret-16-bytes!"];
    let (_, systems, _) = bench.curl(&bmc, &auth, "/redfish/v1/Systems");
    let path = systems["Members"][0]["@odata.id"].as_str().unwrap().to_owned();
    let (_, system, _) = bench.curl(&bmc, &auth, &path);
    assert_eq!(system["PowerState"], "On");
    assert_eq!(system["UUID"], bmc.truth().uuid.to_string());
    let reset = &system["Actions"]["#ComputerSystem.Reset"];
    let target = reset["target"].as_str().unwrap().to_owned();
    assert!(reset["ResetType@Redfish.AllowableValues"].as_array().unwrap().contains(&"ForceOff".into()));
    let post = |user: &str, kind: &str| {
        let body = format!("{{\"ResetType\":\"{kind}\"}}");
        bench.curl(&bmc, &["-u", user, "-H", "Content-Type: application/json", "-d", &body], &target).0
    };
    assert_eq!(post(auth[1], "ForceOff"), 204);
    eventually("off", || !bmc.is_on());
    assert_eq!(bench.curl(&bmc, &auth, &path).1["PowerState"], "Off");
    assert_eq!(bench.curl(&bmc, &auth, "/redfish/v1/Chassis/1").1["PowerState"], "Off");
    assert_eq!(post(auth[1], "ForceOff"), 204, "already off is 204 unless told otherwise");
    for status in [409, 400] {
        bmc.set_profile(Profile { redfish_already: status, ..bmc.profile() });
        assert_eq!(post(auth[1], "ForceOff"), status);
    }
    assert_eq!(post("operator:twenty-byte-password", "On"), 204);
    eventually("on", || bmc.is_on());
    assert_eq!(post(auth[1], "Nonsense"), 400);
    assert_eq!(post(auth[1], "ForceRestart"), 204);
    assert_eq!((bmc.truth().resets, bmc.orders("reset")), (1, 1));
    let rule = Refuse { on: Request::System, code: None, status: Some(503), retry_after: Some(7), message_id: None, times: None };
    bmc.set_faults(Faults { refuse: vec![rule], ..Faults::default() });
    let (status, _, head) = bench.curl(&bmc, &auth, &path);
    assert!(status == 503 && head.contains("Retry-After: 7"), "{head}");
}

#[test]
fn curl_logs_in_changes_the_password_and_out() {
    let bench = start(Config { redfish: 1, profile: Profile { redfish_sessions: 2, ..Profile::default() }, ..Config::default() });
    let bmc = bench.bmc(1);
    let sessions = "/redfish/v1/SessionService/Sessions";
    let log_in =
        |password: &str| bench.curl(&bmc, &["-d", &format!("{{\"UserName\":\"admin\",\"Password\":\"{password}\"}}")], sessions);
    assert_eq!(log_in("wrong").0, 401);
    let (status, session, head) = log_in("Secret-16-bytes!");
    assert_eq!(status, 201);
    let token = head.lines().find_map(|line| line.strip_prefix("X-Auth-Token: ")).unwrap().trim();
    let header = format!("X-Auth-Token: {token}");
    let with = ["-H", header.as_str()];
    assert_eq!(bench.curl(&bmc, &with, "/redfish/v1/Systems/1").1["PowerState"], "On");
    let listed = bench.curl(&bmc, &with, sessions).1;
    assert_eq!(listed["Members"][0]["@odata.id"], session["@odata.id"]);
    assert_eq!(log_in("Secret-16-bytes!").0, 201);
    assert_eq!(log_in("Secret-16-bytes!").0, 503, "two sessions are all");
    assert_eq!(bench.curl(&bmc, &["-X", "DELETE", "-H", &header], session["@odata.id"].as_str().unwrap()).0, 204);
    assert_eq!(bench.curl(&bmc, &with, "/redfish/v1/Systems/1").0, 401);
    assert_eq!(bmc.truth().redfish_sessions, 1);

    bmc.set_profile(Profile { needs_if_match: true, ..bmc.profile() });
    let auth = ["-u", "admin:Secret-16-bytes!"];
    let account = "/redfish/v1/AccountService/Accounts/2";
    let (_, body, head) = bench.curl(&bmc, &auth, account);
    let etag = body["@odata.etag"].as_str().unwrap();
    assert!(head.contains(etag));
    let patch = |matching: Option<&str>| {
        let mut line = vec![auth[0], auth[1], "-X", "PATCH", "-d", "{\"Password\":\"another\"}"];
        let header = matching.map(|etag| format!("If-Match: {etag}"));
        line.extend(header.iter().flat_map(|header| ["-H", header]));
        bench.curl(&bmc, &line, account).0
    };
    assert_eq!((patch(None), patch(Some("\"other\"")), patch(Some(etag))), (428, 412, 204));
    assert_eq!(bench.curl(&bmc, &auth, account).0, 401);
    assert_eq!(bench.curl(&bmc, &["-u", "admin:another"], account).0, 200);
    assert_eq!(bmc.truth().redfish_sessions, 0, "sessions end with the password");
}

#[test]
fn curl_sets_lights_and_boot_overrides() {
    let bench = start(Config { redfish: 1, ..Config::default() });
    let bmc = bench.bmc(1);
    let auth = ["-u", "admin:Secret-16-bytes!"];
    let system = "/redfish/v1/Systems/1";
    let patch = |body: &str| bench.curl(&bmc, &[auth[0], auth[1], "-X", "PATCH", "-d", body], system).0;
    for (led, location, indicator) in
        [(Led::Both, 200, 200), (Led::Location, 200, 400), (Led::Indicator, 400, 200), (Led::None, 400, 400)]
    {
        bmc.set_profile(Profile { led, ..bmc.profile() });
        let shown = bench.curl(&bmc, &auth, system).1;
        assert_eq!(shown.get("LocationIndicatorActive").is_some(), location == 200, "{led:?}");
        assert_eq!(shown.get("IndicatorLED").is_some(), indicator == 200, "{led:?}");
        assert_eq!(patch("{\"LocationIndicatorActive\":true}"), location, "{led:?}");
        assert_eq!(patch("{\"IndicatorLED\":\"Off\"}"), indicator, "{led:?}");
    }
    assert_eq!(recorded(&bmc, "identify"), ["on", "off", "on", "off"]);
    let boot = |target: &str, enabled: &str| {
        patch(&format!("{{\"Boot\":{{\"BootSourceOverrideTarget\":\"{target}\",\"BootSourceOverrideEnabled\":\"{enabled}\"}}}}"))
    };
    assert_eq!((boot("Pxe", "Once"), boot("Floppy", "Once"), boot("Hdd", "Sometimes")), (200, 400, 400));
    let shown = bench.curl(&bmc, &auth, system).1["Boot"].take();
    assert_eq!((&shown["BootSourceOverrideTarget"], &shown["BootSourceOverrideEnabled"]), (&"Pxe".into(), &"Once".into()));
    assert!(shown["BootSourceOverrideTarget@Redfish.AllowableValues"].as_array().unwrap().contains(&"BiosSetup".into()));
    bmc.set_faults(Faults { ignore_boot: true, ..Faults::default() });
    assert_eq!((boot("Hdd", "Once"), bmc.truth().boot.target.as_str()), (200, "Pxe"));
}

#[test]
fn curl_must_change_a_password_first() {
    let bench = start(Config { redfish: 1, profile: Profile { password_min: 8, ..Profile::default() }, ..Config::default() });
    let bmc = bench.bmc(1);
    assert!(bmc.require_password_change("operator"));
    let user = ["-u", "operator:twenty-byte-password"];
    let (status, refusal, _) = bench.curl(&bmc, &user, "/redfish/v1/Systems/1");
    let info = refusal["error"]["@Message.ExtendedInfo"][0].clone();
    assert_eq!((status, &info["MessageId"]), (403, &"Base.1.8.PasswordChangeRequired".into()));
    let account = info["MessageArgs"][0].as_str().unwrap().to_owned();
    let log_in = "{\"UserName\":\"operator\",\"Password\":\"twenty-byte-password\"}";
    let (status, session, _) = bench.curl(&bmc, &["-d", log_in], "/redfish/v1/SessionService/Sessions");
    assert_eq!((status, &session["@Message.ExtendedInfo"][0]["MessageArgs"][0]), (201, &account.as_str().into()));
    let patch = |password: &str| {
        let body = format!("{{\"Password\":\"{password}\"}}");
        bench.curl(&bmc, &[user[0], user[1], "-X", "PATCH", "-d", &body], &account).0
    };
    assert_eq!((patch("short"), patch("long-enough")), (400, 204));
    assert_eq!(bench.curl(&bmc, &["-u", "operator:long-enough"], "/redfish/v1/Systems/1").0, 200);
    assert_eq!(recorded(&bmc, "set-password"), ["refused-400", "done"]);
}

#[test]
fn curl_meets_odd_etags_pages_and_lost_answers() {
    let profile = Profile { needs_if_match: true, weak_etags: true, empty_accounts: 3, account_page: 2, ..Profile::default() };
    let bench = start(Config { redfish: 1, profile, ..Config::default() });
    let bmc = bench.bmc(1);
    let admin = ["-u", "admin:Secret-16-bytes!"];
    let mut names = Vec::new();
    let mut next = Some("/redfish/v1/AccountService/Accounts".to_owned());
    while let Some(page) = next {
        let shown = bench.curl(&bmc, &admin, &page).1;
        for member in shown["Members"].as_array().unwrap() {
            let account = bench.curl(&bmc, &admin, member["@odata.id"].as_str().unwrap()).1;
            names.push(account["UserName"].as_str().unwrap().to_owned());
        }
        next = shown["Members@odata.nextLink"].as_str().map(str::to_owned);
    }
    assert_eq!(names, ["", "", "", "admin", "operator"]);
    let account = "/redfish/v1/AccountService/Accounts/3";
    let head = bench.curl(&bmc, &admin, account).2;
    let etag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().to_owned();
    assert!(etag.starts_with("W/\""), "{head}");
    let patch = |matching: Option<&str>| {
        let header = matching.map(|etag| format!("If-Match: {etag}"));
        let mut line = vec![admin[0], admin[1], "--max-time", "2", "-X", "PATCH", "-d", "{\"Password\":\"another\"}"];
        line.extend(header.iter().flat_map(|header| ["-H", header]));
        bench.curl(&bmc, &line, account).0
    };
    assert_eq!((patch(None), patch(Some(&etag)), patch(Some(etag.trim_start_matches("W/")))), (428, 412, 204));
    bmc.set_profile(Profile { needs_if_match: false, refuses_if_match: true, ..bmc.profile() });
    bmc.set_faults(Faults { hang_at: Some(Step::Password), ..Faults::default() });
    assert_eq!((patch(Some("\"any\"")), patch(None)), (0, 0), "no answer either way");
    assert_eq!(recorded(&bmc, "set-password"), ["done", "done"], "and only the one without If-Match was done");
}

#[test]
fn curl_meets_broken_connections_and_other_certificates() {
    let bench = start(Config { redfish: 1, authority: true, ..Config::default() });
    let bmc = bench.bmc(1);
    let ca = bench.files.path().join("ca.pem");
    std::fs::write(&ca, bench.sim.fleet().authority_pem().unwrap()).unwrap();
    let exit = |options: &str| {
        let line = format!("-s -o /dev/null --max-time 2 {options} https://{}/redfish/v1/", bmc.redfish().unwrap());
        run("curl", &words(&line)).status.code().unwrap()
    };
    let trusted = format!("--cacert {}", ca.display());
    assert_eq!(exit(&trusted), 0, "the simulator's CA vouches for it");
    bmc.swap_certificate().unwrap();
    assert_eq!(exit(&trusted), 60, "another certificate is not trusted");
    assert_eq!(exit("-k"), 0);
    bmc.set_faults(Faults { unplug: Some(Unplug::Refused), ..Faults::default() });
    eventually("refused", || exit("-k") == 7);
    bmc.set_faults(Faults { unplug: Some(Unplug::Silent), ..Faults::default() });
    eventually("hangs", || exit("-k") == 28);
    bmc.set_faults(Faults { hang_at: Some(Step::Tls), ..Faults::default() });
    assert_eq!(exit("-k"), 28);
    bmc.set_faults(Faults { truncate: 1.0, ..Faults::default() });
    assert_eq!(exit("-k"), 18, "cut short in mid-body");
    bmc.set_faults(Faults { body: Some(Body::Huge(5_000_000)), ..Faults::default() });
    assert_eq!((exit("-k"), exit("-k --max-filesize 4999999")), (0, 63));
    bmc.set_faults(Faults { body: Some(Body::Endless), ..Faults::default() });
    assert_eq!(exit("-k"), 28);
    bmc.clear_faults();
    assert_eq!(exit("-k"), 0);
}

#[test]
fn one_chassis_two_protocols_and_the_control_api() {
    let bench = start(Config { dual: 3, ..Config::default() });
    let bmc = bench.bmc(2);
    let control = format!("http://{}", bench.sim.control().unwrap());
    let http = |arguments: &[&str], path: &str| -> Value {
        let mut line = words("-s --max-time 10");
        line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        line.push(format!("{control}{path}"));
        serde_json::from_str(&text(&run("curl", &line))).unwrap()
    };
    assert_eq!(http(&["-d", "{\"toggle\":true}"], "/bmcs/bmc-0002/power")["bmcs"], 1);
    assert_eq!(bench.admin(&bmc, 17, "chassis power status").trim(), "Chassis Power is off");
    assert_eq!(bench.curl(&bmc, &["-u", "admin:Secret-16-bytes!"], "/redfish/v1/Systems/1").1["PowerState"], "Off");
    assert_eq!(http(&["-d", "{\"state\":\"off\",\"select\":\"bmc-*\",\"stagger_ms\":1}"], "/bmcs/power")["bmcs"], 3);
    eventually("all off", || bench.sim.fleet().all().iter().all(|bmc| !bmc.is_on()));
    assert_eq!(http(&["-X", "PUT", "-d", "{\"unplug\":\"silent\"}"], "/bmcs/bmc-0002/faults")["bmcs"], 1);
    assert!(!bench.ipmitool(&bmc, "-C 17 -N 1 -R 1", "admin", "admin", "chassis power status").status.success());
    assert_eq!(http(&["-X", "DELETE"], "/faults")["bmcs"], 3);
    bench.admin(&bmc, 17, "chassis power on");
    eventually("on", || http(&[], "/bmcs/bmc-0002")["power"] == "on");
    let calls = http(&[], "/bmcs/bmc-0002/calls");
    let on: Vec<_> = calls.as_array().unwrap().iter().filter(|call| call["action"] == "on").collect();
    assert!(on.len() == 1 && on[0]["source"] == "ipmi" && on[0]["user"] == "admin", "{calls}");
    assert!(http(&["-X", "PUT", "-d", "{\"unplugged\":1}"], "/faults")["error"].as_str().unwrap().contains("unknown field"));
    assert!(http(&[], "/bmcs/other")["error"].is_string());
    assert_eq!(http(&["-X", "PUT", "-d", "{\"off_when_off\":213}"], "/bmcs/all/profile")["bmcs"], 3);
    assert_eq!(bench.bmc(3).profile().off_when_off, 0xD5);
    assert!(http(&[], "/stats")["status_reads"].as_u64().unwrap() >= 2);
}
