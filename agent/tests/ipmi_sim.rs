//! Drivers `ipmi` and `ipmitool` against a BMC that is not ours: OpenIPMI's `ipmi_sim` (Debian package `openipmi`), which must
//! be installed. It speaks suite 3 only, so every first login here falls back from suite 17.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use picket_agent::bmc::{Answer, Ask, Bmc, Completion, DriverError, ErrorClass, Job, NOT_SUPPORTED, PowerReply, Reading};
use picket_agent::driver::address::AllowedNetworks;
use picket_agent::driver::ipmi::Ipmi;
use picket_agent::driver::ipmitool::{self, Ipmitool};
use picket_agent::driver::process::Runner;
use picket_agent::driver::{Completions, Driver};
use picket_common::command::{BootDevice, Persistence};
use picket_common::facts::Capability;
use picket_common::secret::Secret;

/// Answers and orders `ipmi_sim` gets from its chassis; every order is written down.
const CHASSIS: &str = r#"#!/bin/sh
folder=$1
[ "$2" = set ] && echo "$3 $4" >>"$folder/actions"
case "$2 $3" in
  "get power") echo "power:$(cat "$folder/power")" ;;
  "get boot") echo "boot:$(cat "$folder/boot")" ;;
  "set boot") echo "$4" >"$folder/boot" ;;
  "set power") echo "$4" >"$folder/power" ;;
  "set shutdown") echo 0 >"$folder/power" ;;
esac
"#;

const EMULATOR: &str = "mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
";

struct Sim {
    folder: tempfile::TempDir,
    address: SocketAddr,
    process: Option<Child>,
}

impl Sim {
    fn start() -> Self {
        Self::start_as("5f6f3a2c91d44e02b7a60123456789ab")
    }

    /// With these bytes as its GUID.
    fn start_as(guid: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("state")).unwrap();
        fs::write(path("power"), "1\n").unwrap();
        fs::write(path("actions"), "").unwrap();
        fs::write(path("boot"), "none\n").unwrap();
        fs::write(path("emulator"), EMULATOR).unwrap();
        fs::write(path("chassis"), CHASSIS).unwrap();
        fs::set_permissions(path("chassis"), fs::Permissions::from_mode(0o700)).unwrap();
        let chassis = format!("{} {}", path("chassis").display(), folder.path().display());
        let config = format!(
            "name \"bmc\"\nset_working_mc 0x20\n  startlan 1\n    addr {} {}\n    priv_limit admin\n    \
             allowed_auths_user none md2 md5 straight\n    allowed_auths_operator none md2 md5 straight\n    \
             allowed_auths_admin none md2 md5 straight\n    guid {guid}\n  endlan\n  \
             chassis_control \"{chassis}\"\n  user 1 true \"\" \"test\" user 10\n  \
             user 2 true \"admin\" \"admin-secret\" admin 10\n  \
             user 3 true \"operator\" \"oper-secret\" operator 10\n  \
             user 4 true \"reader\" \"read-secret\" user 10\n",
            address.ip(),
            address.port()
        );
        fs::write(path("lan.conf"), config).unwrap();
        let mut sim = Self { folder, address, process: None };
        sim.run();
        sim
    }

    fn run(&mut self) {
        let path = |name: &str| self.folder.path().join(name);
        let child = Command::new("ipmi_sim")
            .arg("-n")
            .args([std::ffi::OsStr::new("-c"), path("lan.conf").as_os_str()])
            .args([std::ffi::OsStr::new("-f"), path("emulator").as_os_str()])
            .args([std::ffi::OsStr::new("-s"), path("state").as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ipmi_sim of Debian's package openipmi must be installed");
        self.process = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// What `ipmitool` says as administrator, with this password.
    fn ipmitool(&self, password: &str, words: &str) -> std::process::Output {
        let file = self.folder.path().join("password");
        fs::write(&file, password).unwrap();
        let mut command = Command::new("ipmitool");
        command.args(["-I", "lanplus", "-C", "3", "-U", "admin", "-N", "1", "-R", "2"]).arg("-f").arg(file);
        command.arg("-H").arg(self.address.ip().to_string()).arg("-p").arg(self.address.port().to_string());
        command.args(words.split(' ')).output().expect("ipmitool must be installed")
    }

    fn actions(&self) -> Vec<String> {
        fs::read_to_string(self.folder.path().join("actions")).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Client {
    runtime: tokio::runtime::Runtime,
    driver: Box<dyn Driver>,
    answers: Mutex<Receiver<Completion>>,
}

impl Client {
    fn new() -> Self {
        Self::with(|completions, allowed, _| Box::new(Ipmi::new(completions, allowed).unwrap()))
    }

    /// By the program `ipmitool`.
    fn tool() -> Self {
        Self::with(|completions, allowed, handle| {
            let runner = Arc::new(Runner::new(4));
            Box::new(Ipmitool::new(completions, ipmitool::Config::default(), allowed, None, runner, handle))
        })
    }

    fn with(driver: impl FnOnce(Completions, AllowedNetworks, tokio::runtime::Handle) -> Box<dyn Driver>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, answers) = mpsc::channel();
        let sender = Mutex::new(sender);
        let completions = Arc::new(move |batch: Vec<Completion>| {
            let sender = sender.lock().unwrap();
            batch.into_iter().for_each(|completion| sender.send(completion).unwrap());
        });
        let allowed = AllowedNetworks { networks: vec!["127.0.0.0/8".parse().unwrap()] };
        let driver = runtime.block_on(async { driver(completions, allowed, runtime.handle().clone()) });
        Self { runtime, driver, answers: Mutex::new(answers) }
    }

    fn ask(&self, bmc: &Arc<Bmc>, ask: Ask, timeout: Duration) -> Result<Answer, DriverError> {
        self.ask_with(bmc, ask, None, timeout)
    }

    fn ask_with(&self, bmc: &Arc<Bmc>, ask: Ask, new: Option<&str>, timeout: Duration) -> Result<Answer, DriverError> {
        let new_password = new.map(|password| Secret::new(password.to_owned()));
        self.driver.submit(vec![Job { ticket: 7, bmc: Arc::clone(bmc), ask, new_password, timeout }]);
        let answers = self.answers.lock().unwrap();
        let completion = answers.recv_timeout(timeout + Duration::from_secs(5)).expect("every job gets its completion");
        assert_eq!(completion.ticket, 7);
        completion.result
    }

    /// A status that waits for a simulator that starts.
    fn ready(&self, bmc: &Arc<Bmc>) {
        let first = self.ask(bmc, Ask::Status, Duration::from_secs(20));
        assert_eq!(first, Ok(Answer::Reading(Reading::On)));
    }
}

type Options = &'static [(&'static str, &'static str)];

const PATIENT: Duration = Duration::from_secs(10);

fn bmc(address: SocketAddr, username: &str, password: &str, options: &[(&str, &str)], revision: u64) -> Arc<Bmc> {
    let options: BTreeMap<String, String> = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Arc::new(Bmc {
        host: "host-1".parse().unwrap(),
        address: address.ip().to_string(),
        port: Some(address.port()),
        username: username.to_owned(),
        password: Secret::new(password.to_owned()),
        options,
        revision,
    })
}

#[test]
fn power_is_read_and_switched() {
    power_is_read_and_switched_by(&Client::new());
}

#[test]
fn power_is_read_and_switched_by_ipmitool() {
    power_is_read_and_switched_by(&Client::tool());
}

fn power_is_read_and_switched_by(client: &Client) {
    let sim = Sim::start();
    let bmc = bmc(sim.address, "operator", "oper-secret", &[], 1);
    client.ready(&bmc);
    let accepted = Ok(Answer::Power(PowerReply::Accepted));
    let sequence = [
        (Ask::Off, accepted.clone(), Reading::Off),
        (Ask::Off, accepted.clone(), Reading::Off),
        (Ask::On, accepted.clone(), Reading::On),
        (Ask::Reset, accepted.clone(), Reading::On),
        (Ask::Soft, accepted, Reading::Off),
    ];
    for (ask, reply, then) in sequence {
        assert_eq!(client.ask(&bmc, ask, PATIENT), reply, "{ask:?}");
        assert_eq!(client.ask(&bmc, Ask::Status, PATIENT), Ok(Answer::Reading(then)), "after {ask:?}");
    }
    // On and off may be asked again when their answer is late: an effect that is there already. Nothing else may.
    let mut actions = sim.actions();
    assert!(actions.iter().filter(|action| *action == "power 0").count() >= 2, "both offs were sent: {actions:?}");
    actions.dedup_by(|this, before| this == before && this.starts_with("power "));
    assert_eq!(actions, ["power 0", "power 1", "reset 1", "shutdown 1"], "in this order, reset and soft exactly once");
    client.runtime.block_on(client.driver.shutdown());
}

#[test]
fn what_is_refused_is_told_apart() {
    what_is_refused_is_told_apart_by(&Client::new());
}

#[test]
fn what_is_refused_is_told_apart_by_ipmitool() {
    what_is_refused_is_told_apart_by(&Client::tool());
}

fn what_is_refused_is_told_apart_by(client: &Client) {
    let sim = Sim::start();
    client.ready(&bmc(sim.address, "admin", "admin-secret", &[], 1));
    let table: [(&str, &str, Options, Ask, ErrorClass); 5] = [
        ("operator", "wrong", &[], Ask::Status, ErrorClass::Auth),
        ("nobody", "oper-secret", &[], Ask::Status, ErrorClass::Auth),
        ("operator", "oper-secret", &[("cipher_suite", "17")], Ask::Status, ErrorClass::Setting),
        ("reader", "read-secret", &[("privilege", "user")], Ask::Off, ErrorClass::Setting),
        ("operator", "oper-secret", &[("colour", "red")], Ask::Status, ErrorClass::Setting),
    ];
    for (revision, (username, password, options, ask, class)) in (2..).zip(table) {
        let error = client.ask(&bmc(sim.address, username, password, options, revision), ask, PATIENT).unwrap_err();
        println!("{username}: {error}");
        assert_eq!(error.class, class, "{username} {options:?}: {error}");
        assert!(!error.maybe_sent, "{error}");
    }
    let reader = bmc(sim.address, "reader", "read-secret", &[("privilege", "user")], 100);
    assert_eq!(client.ask(&reader, Ask::Status, PATIENT), Ok(Answer::Reading(Reading::On)), "a user may read");
    assert_eq!(sim.actions(), [""; 0], "nothing was ever switched");
}

#[test]
fn a_bmc_that_dies_is_a_connection_error_and_comes_back() {
    let mut sim = Sim::start();
    let client = Client::new();
    let bmc = bmc(sim.address, "operator", "oper-secret", &[], 1);
    client.ready(&bmc);
    sim.kill();
    let error = client.ask(&bmc, Ask::Status, Duration::from_secs(2)).unwrap_err();
    assert_eq!(error.class, ErrorClass::Connection, "{error}");
    sim.run();
    client.ready(&bmc);
}

#[test]
fn a_session_the_bmc_forgot_is_opened_anew_within_one_job() {
    let mut sim = Sim::start();
    let client = Client::new();
    let bmc = bmc(sim.address, "operator", "oper-secret", &[], 1);
    client.ready(&bmc);
    sim.kill();
    sim.run();
    assert_eq!(client.ask(&bmc, Ask::Status, PATIENT), Ok(Answer::Reading(Reading::On)));
}

#[test]
fn sessions_are_closed_politely_and_nothing_is_served_afterwards() {
    let sim = Sim::start();
    let client = Client::new();
    let bmc = bmc(sim.address, "operator", "oper-secret", &[], 1);
    client.ready(&bmc);
    client.driver.forget(&bmc.host);
    client.ready(&bmc);
    client.runtime.block_on(client.driver.shutdown());
    let error = client.ask(&bmc, Ask::Status, PATIENT).unwrap_err();
    assert_eq!(error.class, ErrorClass::Connection);
}

#[test]
fn identify_diag_and_boot_device_reach_the_chassis() {
    identify_diag_and_boot_device_reach_the_chassis_by(&Client::new());
}

#[test]
fn identify_diag_and_boot_device_reach_the_chassis_by_ipmitool() {
    identify_diag_and_boot_device_reach_the_chassis_by(&Client::tool());
}

fn identify_diag_and_boot_device_reach_the_chassis_by(client: &Client) {
    let sim = Sim::start();
    let bmc = bmc(sim.address, "operator", "oper-secret", &[], 1);
    client.ready(&bmc);
    assert_eq!(client.ask(&bmc, Ask::Identify { seconds: 20 }, PATIENT), Ok(Answer::Done));
    assert_eq!(client.ask(&bmc, Ask::Identify { seconds: 0 }, PATIENT), Ok(Answer::Done));
    assert_eq!(sim.actions(), ["identify 20 0", "identify 0 0"]);
    for (device, word, shown) in [
        (BootDevice::Pxe, "pxe", "Force PXE"),
        (BootDevice::Disk, "default", "Force Boot from default Hard-Drive"),
        (BootDevice::None, "none", "No override"),
        (BootDevice::Bios, "bios", "Force Boot into BIOS Setup"),
    ] {
        let ask = Ask::Bootdev { device, persistence: Persistence::Once };
        assert_eq!(client.ask(&bmc, ask, PATIENT), Ok(Answer::Done), "{device:?}");
        assert_eq!(fs::read_to_string(sim.folder.path().join("boot")).unwrap().trim(), word);
        let read = sim.ipmitool("admin-secret", "chassis bootparam get 5");
        let read = String::from_utf8_lossy(&read.stdout).into_owned();
        assert!(read.contains(shown), "{device:?}: {read}");
    }
    // Its Chassis Control has no diagnostic interrupt.
    let diag = client.ask(&bmc, Ask::Diag, PATIENT).unwrap_err();
    assert_eq!((diag.code.as_str(), diag.maybe_sent), (NOT_SUPPORTED, false), "{diag}");
}

#[test]
fn inspection_says_what_ipmitool_says() {
    inspection_says(&Client::new(), "IPMI 2.0, cipher suite 3");
}

#[test]
fn inspection_says_what_ipmitool_says_by_ipmitool() {
    inspection_says(&Client::tool(), "ipmitool 1.8.19 lanplus, cipher suite 3");
}

fn inspection_says(client: &Client, protocol: &str) {
    let sim = Sim::start();
    let bmc = bmc(sim.address, "admin", "admin-secret", &[], 1);
    client.ready(&bmc);
    let answer = client.ask(&bmc, Ask::Inspect, PATIENT);
    let Ok(Answer::Facts(facts, Reading::On)) = answer else { panic!("{answer:?}") };
    let said = |words: &str| String::from_utf8(sim.ipmitool("admin-secret", words).stdout).unwrap();
    let info = said("mc info");
    for (name, value) in
        [("Firmware Revision", &facts.firmware), ("Product ID", &facts.product), ("Manufacturer", &facts.manufacturer)]
    {
        let value = value.as_deref().unwrap().trim_start_matches("IANA ");
        assert!(info.lines().any(|line| line.starts_with(name) && line.contains(value)), "{name} {value}: {info}");
    }
    assert!(
        said("mc guid rfc4122").contains(facts.identity.as_deref().unwrap()),
        "{:?}: {}",
        facts.identity,
        said("mc guid rfc4122")
    );
    assert_eq!(facts.protocol.as_deref(), Some(protocol));
    assert!(facts.warnings.contains(&"cipher-suite-3".to_owned()));
    assert!(facts.capabilities.contains(&Capability::ChangePassword) && facts.capabilities.contains(&Capability::Bootdev));
}

/// Whoever asks it, a BMC is the same one: also where its GUID makes sense in two orders of its bytes, or in none.
#[test]
fn both_drivers_read_the_same_identity() {
    let (native, tool) = (Client::new(), Client::tool());
    let guids = ["a123456789abcdefa123456789abcdef", "44454c4c420010448057b4c04f564433", "ab8967452301a6b7024ed4912c3a6f5f"];
    for (revision, guid) in (1..).zip(guids) {
        let sim = Sim::start_as(guid);
        let identities = [&native, &tool].map(|client| {
            let bmc = bmc(sim.address, "admin", "admin-secret", &[], revision);
            client.ready(&bmc);
            let answer = client.ask(&bmc, Ask::Inspect, PATIENT);
            let Ok(Answer::Facts(facts, _)) = answer else { panic!("{answer:?}") };
            facts.identity.unwrap()
        });
        assert_eq!(identities[0], identities[1], "{guid}");
    }
}

#[test]
fn a_password_is_changed_and_logged_in_with() {
    let sim = Sim::start();
    let client = Client::new();
    let before = bmc(sim.address, "admin", "admin-secret", &[], 1);
    client.ready(&before);
    // It takes 20 bytes and keeps 16 of them, which the login finds out and the facts tell.
    for (revision, old, new, kept) in [
        (10, "admin-secret", "sixteen-bytes-16", "sixteen-bytes-16"),
        (20, "sixteen-bytes-16", "twenty-bytes-of-pass", "twenty-bytes-of-"),
    ] {
        let login = bmc(sim.address, "admin", old, &[], revision);
        assert_eq!(client.ask_with(&login, Ask::SetPassword, Some(new), PATIENT), Ok(Answer::Done), "{new}");
        assert!(sim.ipmitool(kept, "chassis power status").status.success(), "{new}");
        assert!(!sim.ipmitool(old, "chassis power status").status.success(), "{old}");
        let tried = bmc(sim.address, "admin", new, &[], revision + 1);
        assert_eq!(client.ask(&tried, Ask::TryLogin, PATIENT), Ok(Answer::Done));
        let Ok(Answer::Facts(facts, _)) = client.ask(&tried, Ask::Inspect, PATIENT) else { panic!() };
        assert_eq!(facts.quirks == ["shortpassword"], kept != new, "{facts:?}");
        let refused = client.ask(&bmc(sim.address, "admin", old, &[], revision + 2), Ask::TryLogin, PATIENT).unwrap_err();
        assert_eq!(refused.class, ErrorClass::Auth, "{refused}");
    }
    let last = bmc(sim.address, "admin", "twenty-bytes-of-pass", &[], 30);
    let error = client.ask_with(&last, Ask::SetPassword, Some("one-and-twenty-bytes!"), PATIENT).unwrap_err();
    assert_eq!((error.class, error.code.as_str(), error.maybe_sent), (ErrorClass::Setting, "too-long", false));
    assert_eq!(client.ask(&last, Ask::Status, PATIENT), Ok(Answer::Reading(Reading::On)));
}

/// As above, but for what only the native driver knows: how much of a password the BMC keeps.
#[test]
fn a_password_is_changed_by_ipmitool_and_logged_in_with() {
    let sim = Sim::start();
    let client = Client::tool();
    let before = bmc(sim.address, "admin", "admin-secret", &[], 1);
    client.ready(&before);
    let new = "é \"$(x)' 16";
    let error = client.ask_with(&before, Ask::SetPassword, Some("seventeen-bytes-1"), PATIENT).unwrap_err();
    assert_eq!((error.class, error.maybe_sent), (ErrorClass::Setting, false), "{error}");
    assert_eq!(client.ask_with(&before, Ask::SetPassword, Some(new), PATIENT), Ok(Answer::Done));
    assert_eq!(client.ask(&bmc(sim.address, "admin", new, &[], 3), Ask::TryLogin, PATIENT), Ok(Answer::Done));
    assert!(sim.ipmitool(new, "chassis power status").status.success());
    let refused = client.ask(&before, Ask::TryLogin, PATIENT).unwrap_err();
    assert_eq!(refused.class, ErrorClass::Auth, "{refused}");
}
