//! Picket in front of any BMC, judged by a client that shares nothing with it: every operation, a wrong password, a BMC that dies.

#![expect(clippy::unwrap_used, reason = "a judgement fails by panicking")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bmcsim::{BmcHandle, Faults, Simulator, Unplug};
use crate::eventually::{all_the_while, eventually};
use crate::harness::{Agent, Site, host_body};
use crate::peers::curl::Curl;
use crate::peers::ipmi_sim::IpmiSim;
use crate::peers::ipmisim::Ipmisim;
use crate::peers::ipmitool::Ipmitool;
use crate::peers::process::Process;
use crate::peers::sushy::Sushy;
use crate::peers::{Power, Suite, User};

/// Three silent polls of a busy machine, a login that falls back, sushy's 11 s: all well below.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What an operation may take: sushy changes its state up to 11 s after an order.
const TIMEOUT: &str = "60";

/// How long Picket and an independent client must go on saying the same.
pub const LASTING: Duration = Duration::from_secs(1);

/// A BMC under test, with a way to the truth about it that shares nothing with Picket.
pub trait Bmc {
    /// As `hosts import` takes it.
    fn host(&self, id: &str) -> Value;
    /// The power as an independent client is told it.
    ///
    /// # Errors
    /// When it is told none, or another than the BMC's own.
    fn power(&self) -> Result<Power>;
    /// The BMC dies, and its host is off before it comes back.
    ///
    /// # Errors
    /// When it cannot be made to.
    fn dies(&mut self) -> Result<()>;
    /// The BMC is there again.
    ///
    /// # Errors
    /// When it is not.
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

/// A BMC that Picket is to talk to in another way than it would by itself.
#[derive(Debug)]
pub struct By<B> {
    /// The BMC.
    pub bmc: B,
    /// By this driver.
    pub driver: &'static str,
    /// With these options.
    pub options: Value,
}

impl<B: Bmc> Bmc for By<B> {
    fn host(&self, id: &str) -> Value {
        let mut host = self.bmc.host(id);
        if let Some(bmc) = host.get_mut("bmc").and_then(Value::as_object_mut) {
            bmc.insert("driver".into(), self.driver.into());
            bmc.insert("options".into(), self.options.clone());
        }
        host
    }

    fn power(&self) -> Result<Power> {
        self.bmc.power()
    }

    fn dies(&mut self) -> Result<()> {
        self.bmc.dies()
    }

    fn returns(&mut self) -> Result<()> {
        self.bmc.returns()
    }
}

/// A site with one rack, whose agent guards the hosts under test.
#[derive(Debug)]
pub struct Stand {
    /// The site.
    pub site: Site,
    /// The rack's agent.
    pub agent: Agent,
}

/// A stand with one host per BMC, all open and seen as on.
#[must_use]
pub fn stand(hosts: &[(&str, &dyn Bmc)]) -> Stand {
    stand_with("", hosts)
}

/// The same with more in the agent's own file.
#[must_use]
pub fn stand_with(settings: &str, hosts: &[(&str, &dyn Bmc)]) -> Stand {
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let agent = site.join_with("r1", "r1", settings).unwrap();
    let bodies: Vec<Value> = hosts.iter().map(|(id, bmc)| bmc.host(id)).collect();
    if !bodies.is_empty() {
        site.import(&bodies).unwrap();
    }
    for (id, _) in hosts {
        assert_eq!(site.ctl(&["oobm", "enable", "host", id]).unwrap().code, 0);
    }
    for (id, _) in hosts {
        site.until(id, "power", "on", PATIENCE).unwrap();
    }
    Stand { site, agent }
}

/// One operation: what is asked of a host, how it has to end, what its power is from then on.
#[derive(Debug)]
pub struct Step(pub &'static [&'static str], pub &'static str, pub Power);

/// Every operation from On and from Off. Starts at On and ends there.
pub const OPERATIONS: &[Step] = &[
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
    #[must_use]
    pub fn power(&self, host: &str, words: &[&str]) -> (i32, Value) {
        let options = ["-o", "json", "power", "--wait", "--timeout", TIMEOUT];
        let answer = self.site.ctl(&[&options[..], words, &[host]].concat()).unwrap();
        (answer.code, answer.json().unwrap()[0].take())
    }

    /// Runs every operation, and after each compares notes with the independent client at once and for a second.
    pub fn operates(&self, host: &str, bmc: &dyn Bmc) {
        self.takes_steps(host, bmc, OPERATIONS);
    }

    /// The same with other operations.
    pub fn takes_steps(&self, host: &str, bmc: &dyn Bmc, steps: &[Step]) {
        for Step(words, result, power) in steps {
            let (code, row) = self.power(host, words);
            assert_eq!(row["result"], *result, "{host} {words:?}: {row}");
            assert_eq!(code, if *result == "refused" { 6 } else { 0 }, "{host} {words:?}: {row}");
            if *result == "refused" {
                assert_eq!(row["refusal"], "host-is-off", "{host} {words:?}: {row}");
            }
            if *result == "read" {
                assert_eq!(row["power"], power.to_string(), "{host} {words:?}: {row}");
            }
            all_the_while(LASTING, || self.agreement(host, bmc, *power, &format!("after {words:?}"))).unwrap();
        }
    }

    /// Picket and the independent client say this.
    pub fn agrees(&self, host: &str, bmc: &dyn Bmc, wanted: Power, when: &str) {
        // A BMC that was just busy may have let one poll go unanswered.
        eventually(PATIENCE, || self.agreement(host, bmc, wanted, when)).unwrap();
    }

    fn agreement(&self, host: &str, bmc: &dyn Bmc, wanted: Power, when: &str) -> Result<()> {
        let said = bmc.power()?;
        ensure!(said == wanted, "{host} {when} is {said}, as an independent client says, not {wanted}");
        let shown = self.site.host(host)?;
        ensure!(shown["power"] == wanted.to_string(), "{host} {when} is not {wanted}, as Picket says: {shown}");
        Ok(())
    }

    /// Gives Picket another password for the host.
    pub fn set_password(&self, host: &str, password: &str) {
        let answer = self.site.ctl_with(&["hosts", "set", host, "--password-stdin"], password).unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
    }

    /// A wrong password stops all logins and raises one alert, which ends with the right one.
    pub fn is_blocked_by_a_wrong_password(&self, host: &str, bmc: &dyn Bmc) {
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
    pub fn is_unknown_while_its_bmc_is_away(&self, host: &str, bmc: &mut dyn Bmc) {
        bmc.dies().unwrap();
        self.site.until(host, "power", "unknown", PATIENCE).unwrap();
        self.site.until(host, "management", "lost", PATIENCE).unwrap();
        self.alerts_are(host, &[], &["firing bmc-lost"]);
        bmc.returns().unwrap();
        self.site.until(host, "management", "reachable", PATIENCE).unwrap();
        self.site.until(host, "power", "off", PATIENCE).unwrap();
        self.agrees(host, bmc, Power::Off, "with its BMC back");
        // It was on when it was last read, and nobody ordered it off.
        self.alerts_are(host, &[], &["firing host-power-changed"]);
    }

    /// `picketctl alerts` shows exactly these of a host, each as "STATE KIND".
    pub fn alerts_are(&self, host: &str, arguments: &[&str], wanted: &[&str]) {
        let shown = self.site.json(&[&["alerts"], arguments].concat()).unwrap();
        let of_host = shown.as_array().unwrap().iter().filter(|alert| alert["host"] == host && !is_standing(alert));
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

/// Whether an alert speaks of a setting, not of what happens: some BMCs here speak plain HTTP.
fn is_standing(alert: &Value) -> bool {
    alert["kind"] == "bmc-insecure"
}

/// The alerts among the events of a log, in their order.
fn alert_events(log: &str) -> Vec<String> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let alerts = events.filter(|event| event["type"].as_str().is_some_and(|kind| kind.starts_with("io.picket.alert.")));
    let alerts = alerts.filter(|event| !is_standing(&event["data"]));
    alerts.map(|event| alert_words(&event["data"])).collect()
}

/// An order that the simulator counts, and how often the operations give it. A cycle is off, then on.
pub const ORDERS: &[(&str, usize)] = &[("on", 3), ("off", 2), ("cycle", 0), ("reset", 1), ("soft", 1), ("diag", 0)];

/// How often the operations really change the power.
pub const CHANGES: usize = 6;

/// All of a simulator's BMCs, their hosts on.
#[must_use]
pub fn all_on(simulator: &Simulator) -> Vec<(&str, &dyn Bmc)> {
    let bmcs = simulator.fleet().all();
    bmcs.iter().for_each(|bmc| bmc.set_power(true));
    bmcs.iter().map(|bmc| (bmc.name(), bmc as &dyn Bmc)).collect()
}
