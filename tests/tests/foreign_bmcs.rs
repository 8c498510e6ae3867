//! The whole of Picket in front of BMC software that is not ours, judged by clients that are not ours either: OpenIPMI's
//! `ipmi_sim` by `ipmitool`, `ipmisim` by its own state, sushy-tools' emulator by `curl`; and our simulator by the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use picket_tests::bmcsim::{BmcHandle, Faults, Simulator, Unplug};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Site, host_body, simulator};
use picket_tests::peers::curl::Curl;
use picket_tests::peers::ipmi_sim::IpmiSim;
use picket_tests::peers::ipmisim::Ipmisim;
use picket_tests::peers::ipmitool::Ipmitool;
use picket_tests::peers::process::Process;
use picket_tests::peers::sushy::Sushy;
use picket_tests::peers::{Power, Suite, User};
use serde_json::{Value, json};

/// Three silent polls of a busy machine, a login that falls back, sushy's 11 s: all well below.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an operation may take: sushy changes its state up to 11 s after an order.
const TIMEOUT: &str = "60";

/// How much later Picket and an independent client must still say the same.
const LATER: Duration = Duration::from_secs(1);

/// A BMC under test, with a way to the truth about it that shares nothing with Picket.
trait Bmc {
    /// As `hosts import` takes it.
    fn host(&self, id: &str) -> Value;
    /// The power as an independent client is told it.
    fn power(&self) -> Result<Power>;
    /// The BMC dies, and its host is off before it comes back.
    fn dies(&mut self) -> Result<()>;
    /// The BMC is there again.
    fn returns(&mut self) -> Result<()>;
}

fn body(id: &str, driver: &str, address: std::net::SocketAddr, user: &User) -> Value {
    host_body(id, "c1", "r1", driver, address, (&user.name, &user.password))
}

/// Suite 3 only: Picket gets there by falling back from 17, `ipmitool` is told.
impl Bmc for IpmiSim {
    fn host(&self, id: &str) -> Value {
        body(id, "ipmi", self.address(), &Self::operator())
    }

    fn power(&self) -> Result<Power> {
        ensure!(self.power()? == self.chassis_power()?, "ipmitool and the chassis differ");
        self.power()
    }

    fn dies(&mut self) -> Result<()> {
        self.stop();
        self.set_power(Power::Off)
    }

    fn returns(&mut self) -> Result<()> {
        self.restart()
    }
}

/// Takes one client at a time, and that is Picket: the truth comes from the program itself.
impl Bmc for Ipmisim {
    fn host(&self, id: &str) -> Value {
        body(id, "ipmi", self.address(), &Self::operator())
    }

    fn power(&self) -> Result<Power> {
        self.power()
    }

    fn dies(&mut self) -> Result<()> {
        self.set_power(Power::Off)?;
        self.stop();
        Ok(())
    }

    fn returns(&mut self) -> Result<()> {
        self.restart()
    }
}

/// Its certificate is its own, to be pinned at first sight; the host is the first of its systems.
impl Bmc for Sushy {
    fn host(&self, id: &str) -> Value {
        let mut host = body(id, "redfish", self.address(), &Self::admin());
        if let [first, _, ..] = self.systems() {
            host["bmc"]["options"] = json!({ "system": first });
        }
        host
    }

    fn power(&self) -> Result<Power> {
        self.power()
    }

    /// The change goes on while the emulator is stopped.
    fn dies(&mut self) -> Result<()> {
        self.set_power(Power::Off)?;
        self.stop();
        Ok(())
    }

    fn returns(&mut self) -> Result<()> {
        self.restart()
    }
}

/// Ours: `ipmitool` with both suites or `curl`, and the simulator's own state, have to agree.
impl Bmc for BmcHandle {
    fn host(&self, id: &str) -> Value {
        let (driver, address) = self.ipmi().map_or(("redfish", self.redfish()), |address| ("ipmi", Some(address)));
        body(id, driver, address.unwrap(), &User::new("admin", "password"))
    }

    fn power(&self) -> Result<Power> {
        let user = User::new("admin", "password");
        let truth = if self.is_on() { Power::On } else { Power::Off };
        if let Some(address) = self.ipmi() {
            for suite in [Suite::Three, Suite::Seventeen] {
                ensure!(Ipmitool::new(address, &user)?.suite(suite).power()? == truth, "ipmitool with {suite:?} differs");
            }
        }
        if let Some(address) = self.redfish() {
            ensure!(Curl::insecure(address, &user).power("1")? == truth, "curl differs");
        }
        Ok(truth)
    }

    fn dies(&mut self) -> Result<()> {
        self.set_faults(Faults { unplug: Some(Unplug::Silent), ..Faults::default() });
        self.set_power(false);
        Ok(())
    }

    fn returns(&mut self) -> Result<()> {
        self.clear_faults();
        Ok(())
    }
}

/// A site with one rack, whose agent guards the hosts under test.
struct Stand {
    site: Site,
    _agent: Agent,
}

/// A stand with one host per BMC, all open and seen as on.
fn stand(hosts: &[(&str, &dyn Bmc)]) -> Stand {
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let agent = site.join("r1").unwrap();
    let bodies: Vec<Value> = hosts.iter().map(|(id, bmc)| bmc.host(id)).collect();
    site.import(&bodies).unwrap();
    for (id, _) in hosts {
        assert_eq!(site.ctl(&["oobm", "enable", "host", id]).unwrap().code, 0);
    }
    for (id, _) in hosts {
        site.until(id, "power", "on", PATIENCE).unwrap();
    }
    Stand { site, _agent: agent }
}

/// One operation: what is asked of a host, how it has to end, what its power is from then on.
struct Step(&'static [&'static str], &'static str, Power);

/// Every operation from On and from Off. Starts at On and ends there.
const OPERATIONS: &[Step] = &[
    Step(&["status"], "read", Power::On),
    Step(&["on"], "unchanged", Power::On),
    Step(&["off"], "changed", Power::Off),
    Step(&["status"], "read", Power::Off),
    Step(&["off"], "unchanged", Power::Off),
    Step(&["soft"], "unchanged", Power::Off),
    Step(&["cycle"], "refused", Power::Off),
    Step(&["reset"], "refused", Power::Off),
    Step(&["on"], "changed", Power::On),
    Step(&["cycle"], "changed", Power::On),
    Step(&["reset"], "changed", Power::On),
    Step(&["soft"], "changed", Power::Off),
    Step(&["cycle", "--on-if-off"], "changed", Power::On),
];

impl Stand {
    /// `picketctl power …` in JSON: its exit code and the host's row.
    fn power(&self, host: &str, words: &[&str]) -> (i32, Value) {
        let options = ["-o", "json", "power", "--wait", "--timeout", TIMEOUT];
        let answer = self.site.ctl(&[&options[..], words, &[host]].concat()).unwrap();
        (answer.code, answer.json().unwrap()[0].take())
    }

    /// Runs every operation, and after each compares notes with the independent client at once and a second later.
    fn operates(&self, host: &str, bmc: &dyn Bmc) {
        for Step(words, result, power) in OPERATIONS {
            let (code, row) = self.power(host, words);
            assert_eq!(row["result"], *result, "{host} {words:?}: {row}");
            assert_eq!(code, if *result == "refused" { 6 } else { 0 }, "{host} {words:?}: {row}");
            if *result == "refused" {
                assert_eq!(row["refusal"], "host-is-off", "{host} {words:?}: {row}");
            }
            if *result == "read" {
                assert_eq!(row["power"], power.to_string(), "{host} {words:?}: {row}");
            }
            self.agrees(host, bmc, *power, &format!("right after {words:?}"));
            std::thread::sleep(LATER);
            self.agrees(host, bmc, *power, &format!("a second after {words:?}"));
        }
    }

    fn agrees(&self, host: &str, bmc: &dyn Bmc, wanted: Power, when: &str) {
        assert_eq!(bmc.power().unwrap(), wanted, "{host} {when}, as an independent client says");
        let shown = self.site.host(host).unwrap();
        assert_eq!(shown["power"], wanted.to_string(), "{host} {when}, as Picket says: {shown}");
    }

    fn set_password(&self, host: &str, password: &str) {
        let answer = self.site.ctl_with(&["hosts", "set", host, "--password-stdin"], password).unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
    }

    /// A wrong password stops all logins and raises one alert, which ends with the right one.
    fn is_blocked_by_a_wrong_password(&self, host: &str, bmc: &dyn Bmc) {
        let events = self.follow(host);
        self.set_password(host, "not-the-password");
        self.site.until(host, "management", "auth-blocked", PATIENCE).unwrap();
        let shown = self.site.host(host).unwrap();
        assert_eq!((&shown["power"], &shown["error"]["class"]), (&json!("unknown"), &json!("auth")), "{shown}");
        for _ in 0..2 {
            let (code, row) = self.power(host, &["off"]);
            assert_eq!((code, &row["bmc_error"]["code"]), (3, &json!("auth-blocked")), "{row}");
        }
        self.alerts_are(host, &[], &["firing bmc-auth-failed"]);
        self.set_password(host, bmc.host(host)["bmc"]["password"].as_str().unwrap());
        self.site.until(host, "management", "reachable", PATIENCE).unwrap();
        self.site.until(host, "power", "on", PATIENCE).unwrap();
        self.agrees(host, bmc, Power::On, "with the right password again");
        self.alerts_are(host, &[], &[]);
        self.alerts_are(host, &["--all"], &["resolved bmc-auth-failed"]);
        eventually(PATIENCE, || {
            let told = alert_events(&events.log()?);
            ensure!(told == ["firing bmc-auth-failed", "resolved bmc-auth-failed"], "events {told:?}");
            Ok(())
        })
        .unwrap();
    }

    /// A BMC that dies leaves its host unknown; when it is back, the state is what it really is by then.
    fn is_unknown_while_its_bmc_is_away(&self, host: &str, bmc: &mut dyn Bmc) {
        bmc.dies().unwrap();
        self.site.until(host, "power", "unknown", PATIENCE).unwrap();
        self.site.until(host, "management", "lost", PATIENCE).unwrap();
        self.alerts_are(host, &[], &["firing bmc-lost"]);
        bmc.returns().unwrap();
        self.site.until(host, "management", "reachable", PATIENCE).unwrap();
        self.site.until(host, "power", "off", PATIENCE).unwrap();
        self.agrees(host, bmc, Power::Off, "with its BMC back");
        self.alerts_are(host, &[], &[]);
    }

    /// `picketctl alerts` shows exactly these of a host, each as "STATE KIND".
    fn alerts_are(&self, host: &str, arguments: &[&str], wanted: &[&str]) {
        let shown = self.site.json(&[&["alerts"], arguments].concat()).unwrap();
        let of_host = shown.as_array().unwrap().iter().filter(|alert| alert["host"] == host);
        assert_eq!(of_host.map(alert_words).collect::<Vec<_>>(), wanted, "{host}: {shown}");
    }

    /// `picketctl events tail` of a host into a file; follows by the time this returns.
    fn follow(&self, host: &str) -> Process {
        let mut command = self.site.ctl_command().unwrap();
        command.args(["-o", "jsonl", "events", "tail", "--host", host]);
        let log = self.site.path(&format!("events-{host}"));
        let mut process = Process::start(&command, &log).unwrap();
        process
            .ready(PATIENCE, || {
                let (code, row) = self.power(host, &["status"]);
                ensure!(code == 0, "status: {row}");
                let text = std::fs::read_to_string(&log)?;
                text.lines().next().map(drop).context("no event yet")
            })
            .unwrap();
        process
    }
}

fn alert_words(alert: &Value) -> String {
    let word = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
    format!("{} {}", word("state"), word("kind"))
}

/// The alerts among the events of a log, in their order.
fn alert_events(log: &str) -> Vec<String> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let alerts = events.filter(|event| event["type"].as_str().is_some_and(|kind| kind.starts_with("io.picket.alert.")));
    alerts.map(|event| alert_words(&event["data"])).collect()
}

#[test]
fn ipmi_sim_does_every_operation_once() {
    let bmc = IpmiSim::start().unwrap();
    stand(&[("h1", &bmc)]).operates("h1", &bmc);
    let once = ["power 0", "power 1", "power 0", "power 1", "reset 1", "shutdown 1", "power 1"];
    assert_eq!(bmc.actions().unwrap(), once);
}

/// It refuses suite 17, so everything else here is done with suite 3; told to insist on 17, Picket says why it cannot.
#[test]
fn ipmi_sim_is_reached_by_falling_back_from_suite_17() {
    let bmc = IpmiSim::start().unwrap();
    let of_17 = Ipmitool::new(bmc.address(), &IpmiSim::operator()).unwrap().suite(Suite::Seventeen);
    assert!(of_17.power().is_err(), "it takes suite 17 after all");
    let stand = stand(&[("h1", &bmc)]);
    let suite = |suite: &str| stand.site.ctl(&["hosts", "set", "h1", "--option", &format!("cipher_suite={suite}")]).unwrap();
    assert_eq!(suite("17").code, 0);
    stand.site.until("h1", "power", "unknown", PATIENCE).unwrap();
    let shown = stand.site.host("h1").unwrap();
    assert_eq!(shown["error"]["class"], "setting", "{shown}");
    assert!(shown["error"]["text"].as_str().unwrap().contains("17"), "{shown}");
    for wanted in ["3", "auto"] {
        assert_eq!(suite(wanted).code, 0);
        stand.site.until("h1", "power", "on", PATIENCE).unwrap();
        stand.agrees("h1", &bmc, Power::On, wanted);
    }
}

#[test]
fn ipmi_sim_with_a_wrong_password_and_away() {
    let mut bmc = IpmiSim::start().unwrap();
    let stand = stand(&[("h1", &bmc)]);
    stand.is_blocked_by_a_wrong_password("h1", &bmc);
    stand.is_unknown_while_its_bmc_is_away("h1", &mut bmc);
}

#[test]
fn ipmisim_does_every_operation_once() {
    let bmc = Ipmisim::start().unwrap();
    stand(&[("h1", &bmc)]).operates("h1", &bmc);
    let once = ["power_off", "power_on", "power_off", "power_on", "power_reset", "power_shutdown", "power_on"];
    assert_eq!(bmc.actions().unwrap(), once);
}

#[test]
fn ipmisim_with_a_wrong_password_and_away() {
    let mut bmc = Ipmisim::start().unwrap();
    let stand = stand(&[("h1", &bmc)]);
    stand.is_blocked_by_a_wrong_password("h1", &bmc);
    stand.is_unknown_while_its_bmc_is_away("h1", &mut bmc);
}

/// Two systems behind one BMC: the host is the one its settings name, and the other is left alone.
#[test]
fn sushy_does_every_operation_on_the_named_system() {
    let bmc = Sushy::start_with(2).unwrap();
    stand(&[("h1", &bmc)]).operates("h1", &bmc);
    assert_eq!(bmc.curl().power(&bmc.systems()[1]).unwrap(), Power::On);
}

#[test]
fn sushy_with_a_wrong_password_and_away() {
    let mut bmc = Sushy::start().unwrap();
    let stand = stand(&[("h1", &bmc)]);
    stand.is_blocked_by_a_wrong_password("h1", &bmc);
    stand.is_unknown_while_its_bmc_is_away("h1", &mut bmc);
}

/// An order that the simulator counts, and how often the operations give it. A cycle is off, then on.
const ORDERS: &[(&str, usize)] = &[("on", 3), ("off", 2), ("cycle", 0), ("reset", 1), ("soft", 1), ("diag", 0)];

/// How often the operations really change the power.
const CHANGES: usize = 6;

#[test]
fn our_simulator_does_every_operation_once() {
    let simulator = simulator("bmc", 2, 2).unwrap();
    let stand = stand(&all_on(&simulator));
    for bmc in simulator.fleet().all().iter().filter(|bmc| bmc.ipmi().is_some()) {
        assert_eq!(logins(bmc), ["suite-17"], "{}: one login, the stronger suite first", bmc.name());
    }
    std::thread::scope(|scope| {
        for bmc in simulator.fleet().all() {
            let stand = &stand;
            scope.spawn(move || {
                let before = bmc.changes().len();
                stand.operates(bmc.name(), bmc);
                assert_eq!((bmc.changes().len() - before, bmc.truth().resets), (CHANGES, 1), "{}", bmc.name());
                for (order, times) in ORDERS {
                    assert_eq!(bmc.orders(order), *times, "{}: {order}", bmc.name());
                }
            });
        }
    });
}

#[test]
fn our_simulator_with_a_wrong_password_and_away() {
    let simulator = simulator("bmc", 1, 1).unwrap();
    let stand = stand(&all_on(&simulator));
    std::thread::scope(|scope| {
        for bmc in simulator.fleet().all() {
            let stand = &stand;
            scope.spawn(move || {
                stand.is_blocked_by_a_wrong_password(bmc.name(), bmc);
                stand.is_unknown_while_its_bmc_is_away(bmc.name(), &mut bmc.clone());
            });
        }
    });
}

/// How the logins so far ended.
fn logins(bmc: &BmcHandle) -> Vec<String> {
    bmc.calls(0).into_iter().filter(|call| call.action == "login").map(|call| call.result).collect()
}

fn all_on(simulator: &Simulator) -> Vec<(&str, &dyn Bmc)> {
    let bmcs = simulator.fleet().all();
    bmcs.iter().for_each(|bmc| bmc.set_power(true));
    bmcs.iter().map(|bmc| (bmc.name(), bmc as &dyn Bmc)).collect()
}
