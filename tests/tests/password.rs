//! A password change that is cut in two at every step, by kill -9 of the agent or of the aggregator: afterwards BMC, agent and
//! store agree, every time. A step is "after the k-th request of the change has reached the BMC"; at a BMC that does not count
//! its requests, a share of the time that an undisturbed change takes. Three runs a step; `tests/soak` makes fifty.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use picket_tests::bmcsim::{BmcHandle, Simulator};
use picket_tests::eventually::{eventually, eventually_soon};
use picket_tests::harness::{Agent, Site, host_body, hosts, runs, simulator};
use picket_tests::peers::curl::Curl;
use picket_tests::peers::ipmi_sim::IpmiSim;
use picket_tests::peers::ipmitool::Ipmitool;
use picket_tests::peers::{Suite, User};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
/// Longest wait for the moment of a cut; a change takes less.
const LONGEST: Duration = Duration::from_secs(3);
/// Steps of a change that are tried in an ordinary run; a long one tries every single one.
const STEPS: u64 = 8;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Agent,
    Aggregator,
}

/// A BMC whose password is changed.
trait Subject: Sync {
    fn host(&self) -> &str;
    /// The account and the password it has at first.
    fn user(&self) -> User;
    /// Requests that ever reached it; none when it does not count them.
    fn requests(&self) -> Option<u64>;
    /// Whether an independent client gets in with this password.
    fn takes(&self, password: &str) -> bool;
}

impl Subject for BmcHandle {
    fn host(&self) -> &str {
        self.name()
    }

    fn user(&self) -> User {
        User::new("admin", "password")
    }

    fn requests(&self) -> Option<u64> {
        let counters = self.counters();
        Some(counters.datagrams + counters.http_requests)
    }

    fn takes(&self, password: &str) -> bool {
        let user = User::new("admin", password);
        match (self.ipmi(), self.redfish()) {
            (Some(address), _) => Ipmitool::new(address, &user).unwrap().suite(Suite::Seventeen).power().is_ok(),
            (None, Some(address)) => Curl::insecure(address, &user).power("1").is_ok(),
            (None, None) => false,
        }
    }
}

/// OpenIPMI's, behind the host's name.
struct Foreign(IpmiSim);

impl Subject for Foreign {
    fn host(&self) -> &'static str {
        "openipmi"
    }

    fn user(&self) -> User {
        IpmiSim::admin()
    }

    fn requests(&self) -> Option<u64> {
        None
    }

    fn takes(&self, password: &str) -> bool {
        let user = User::new(&self.user().name, password);
        Ipmitool::new(self.0.address(), &user).unwrap().administrator().power().is_ok()
    }
}

/// A site, its agent, and the BMCs whose passwords change at the same time: one a run.
struct Stand<'a> {
    site: Site,
    agent: Agent,
    subjects: Vec<&'a dyn Subject>,
    passwords: Vec<String>,
    round: usize,
}

impl<'a> Stand<'a> {
    fn new(subjects: Vec<&'a dyn Subject>, bodies: &[Value]) -> Self {
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        site.import(bodies).unwrap();
        let passwords = subjects.iter().map(|subject| subject.user().password).collect();
        let stand = Self { site, agent, subjects, passwords, round: 0 };
        for subject in &stand.subjects {
            assert_eq!(stand.site.ctl(&["oobm", "enable", "host", subject.host(), "--yes"]).unwrap().code, 0);
        }
        stand.until_reachable();
        stand
    }

    /// Waits until every BMC is talked to. A login that a crash cut in two counts as refused, and after two of those logins pause for
    /// a quarter of an hour: an administrator who cannot wait disables and enables the host.
    fn until_reachable(&self) {
        for subject in &self.subjects {
            eventually(PATIENCE, || {
                let host = self.site.host(subject.host())?;
                if host["management"] == "auth-blocked" {
                    self.anew(subject.host());
                }
                ensure!(host["management"] == "reachable", "{host}");
                Ok(())
            })
            .unwrap();
        }
    }

    fn anew(&self, host: &str) {
        for verb in ["disable", "enable"] {
            assert_eq!(self.site.ctl(&["oobm", verb, "host", host, "--yes"]).unwrap().code, 0);
        }
    }

    /// Asks for a change of all, to fresh passwords; what the centre answers, if it lives that long.
    fn ask(&self, fresh: &[String]) -> Vec<Result<String>> {
        let ask = |subject: &dyn Subject, password: &str| -> Result<String> {
            let path = format!("/v1/hosts/{}/bmc/change-password", subject.host());
            let answer = self.site.api("POST", &path, Some(&json!({ "password": password })))?;
            Ok(answer.get("id").and_then(Value::as_str).with_context(|| format!("not accepted: {answer}"))?.to_owned())
        };
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                self.subjects.iter().zip(fresh).map(|(subject, password)| scope.spawn(move || ask(*subject, password))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        })
    }

    fn fresh(&mut self) -> Vec<String> {
        self.round += 1;
        (0..self.subjects.len()).map(|number| format!("Nw{}-{number}-pq", self.round)).collect()
    }

    /// An undisturbed change of all: how many requests it takes at one BMC, and how long.
    fn measure(&mut self) -> (u64, Duration) {
        let fresh = self.fresh();
        let before = self.subjects.iter().map(|subject| subject.requests()).collect::<Vec<_>>();
        let began = now();
        for operation in self.ask(&fresh) {
            let done = self.site.json(&["op", "wait", &operation.unwrap()]).unwrap();
            assert_eq!(done["hosts"][0]["result"], "changed", "{done}");
        }
        let took = began.elapsed();
        let count = |(subject, before): (&&dyn Subject, Option<u64>)| subject.requests().zip(before).map(|(now, then)| now - then);
        let requests = self.subjects.iter().zip(before).filter_map(count).max().unwrap_or_default();
        self.settle(&fresh);
        (requests, took)
    }

    /// A change that is cut at a step.
    fn cut(&mut self, victim: Victim, at: Cut) {
        let fresh = self.fresh();
        let before: u64 = self.subjects.iter().filter_map(|subject| subject.requests()).max().unwrap_or_default();
        let (site, agent, subjects) = (&mut self.site, &mut self.agent, &self.subjects);
        let asked = Asker::of(site, subjects, &fresh);
        let asking = std::thread::spawn(move || asked.ask());
        wait_for(at, before, subjects);
        match victim {
            Victim::Agent => agent.kill(),
            Victim::Aggregator => site.kill_aggregator(),
        }
        asking.join().unwrap();
        match victim {
            Victim::Agent => agent.start().unwrap(),
            Victim::Aggregator => site.start_aggregator().unwrap(),
        }
        self.settle(&fresh);
    }

    /// Waits until nothing is under way, and checks that BMC, agent and store agree on one of the two passwords.
    fn settle(&mut self, fresh: &[String]) {
        self.until_reachable();
        for (number, subject) in self.subjects.iter().enumerate() {
            let host = subject.host();
            eventually(PATIENCE, || {
                let open = self.site.json(&["op", "list"])?;
                let open = open.as_array().context("no list")?.iter().find(|operation| operation["done"] == false);
                ensure!(open.is_none(), "still under way: {open:?}");
                Ok(())
            })
            .unwrap();
            eventually(PATIENCE, || self.logs_in(host)).unwrap();
            let (old, new) = (&mut self.passwords[number], &fresh[number]);
            match (subject.takes(old), subject.takes(new)) {
                (true, false) => {}
                (false, true) => old.clone_from(new),
                both => panic!("{host} takes (old, new): {both:?}"),
            }
            // Refused logins of this cut are not the next one's.
            self.anew(host);
        }
        self.until_reachable();
    }

    /// Picket logs in anew with the password it holds to be in force.
    fn logs_in(&self, host: &str) -> Result<()> {
        let asked = self.site.api("POST", &format!("/v1/hosts/{host}/bmc/test"), Some(&json!({})))?;
        let operation = asked.get("id").and_then(Value::as_str).with_context(|| format!("not accepted: {asked}"))?;
        let done = self.site.ctl(&["-o", "json", "op", "wait", operation])?.json()?;
        if done["hosts"][0]["result"] != "read" {
            bail!("{host}: {done}");
        }
        Ok(())
    }

    /// The store alone knows it too: an agent that has lost its journal logs in with what the centre gives it.
    fn assert_the_store_knows(mut self) {
        self.agent.kill();
        std::fs::remove_file(self.agent.state_dir().join("journal.redb")).unwrap();
        self.agent.start().unwrap();
        eventually(PATIENCE, || self.subjects.iter().try_for_each(|subject| self.logs_in(subject.host()))).unwrap();
    }
}

/// Asks in a thread of its own, for the site is killed and started meanwhile.
struct Asker(Vec<(std::process::Command, String)>);

impl Asker {
    fn of(site: &Site, subjects: &[&dyn Subject], fresh: &[String]) -> Self {
        let call = |(subject, password): (&&dyn Subject, &String)| {
            let mut command = site.ctl_command().unwrap();
            command.args(["api", "POST", &format!("/v1/hosts/{}/bmc/change-password", subject.host()), "--data", "-"]);
            (command, json!({ "password": password }).to_string())
        };
        Self(subjects.iter().zip(fresh).map(call).collect())
    }

    /// What is answered does not matter: the centre may be dead by then.
    fn ask(self) {
        for (command, body) in self.0 {
            drop(picket_tests::peers::process::run(&command, &body));
        }
    }
}

/// When the victim dies.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Requests(u64),
    After(Duration),
}

/// Waits for the moment; a change that is over before that is as good a moment as any.
fn wait_for(at: Cut, before: u64, subjects: &[&dyn Subject]) {
    let began = now();
    let reached = || match at {
        Cut::Requests(count) => {
            let most = subjects.iter().filter_map(|subject| subject.requests()).max().unwrap_or_default();
            ensure!(most >= before + count, "{most} requests");
            Ok(())
        }
        Cut::After(time) => {
            ensure!(began.elapsed() >= time, "too early");
            Ok(())
        }
    };
    let later = if let Cut::After(time) = at { time } else { Duration::ZERO };
    if let Err(error) = eventually_soon(LONGEST + later, reached) {
        println!("{at:?} did not come: {error:#}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test measures real time, outside the daemons' clock")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// BMCs of one protocol, as many as there are runs; each answer takes a moment, so that a step has a length.
fn simulated(ipmi: bool) -> Simulator {
    let count = runs();
    let simulator = simulator("h", if ipmi { count } else { 0 }, if ipmi { 0 } else { count }).unwrap();
    for bmc in simulator.fleet().all() {
        bmc.set_faults(picket_tests::bmcsim::Faults { slow_ms: 15, ..Default::default() });
    }
    simulator
}

fn every_step(simulator: &Simulator, victim: Victim) {
    let subjects: Vec<&dyn Subject> = simulator.fleet().all().iter().map(|bmc| bmc as &dyn Subject).collect();
    let mut stand = Stand::new(subjects, &hosts(simulator, "c1", "r1"));
    let (requests, _) = stand.measure();
    assert!(requests > 3, "a change of {requests} requests is none");
    let stride = if runs() > 3 { 1 } else { requests.div_ceil(STEPS) };
    for step in (0..=requests).step_by(usize::try_from(stride).unwrap()) {
        stand.cut(victim, Cut::Requests(step));
    }
    stand.assert_the_store_knows();
}

#[test]
fn the_agent_dies_at_every_step_of_a_change_over_ipmi() {
    every_step(&simulated(true), Victim::Agent);
}

#[test]
fn the_agent_dies_at_every_step_of_a_change_over_redfish() {
    every_step(&simulated(false), Victim::Agent);
}

#[test]
fn the_aggregator_dies_at_every_step_of_a_change_over_ipmi() {
    every_step(&simulated(true), Victim::Aggregator);
}

#[test]
fn the_aggregator_dies_at_every_step_of_a_change_over_redfish() {
    every_step(&simulated(false), Victim::Aggregator);
}

/// Foreign BMC software: `ipmi_sim`, one BMC, so its runs come one after another.
fn every_moment_at_ipmi_sim(victim: Victim) {
    let bmc = Foreign(IpmiSim::start().unwrap());
    let user = bmc.user();
    let body = host_body(bmc.host(), "c1", "r1", "ipmi", bmc.0.address(), (&user.name, &user.password));
    let mut stand = Stand::new(vec![&bmc], &[body]);
    let (_, took) = stand.measure();
    for _ in 0..runs() {
        for step in 0..=4_u32 {
            stand.cut(victim, Cut::After(took * step / 4));
        }
    }
    stand.assert_the_store_knows();
}

#[test]
fn the_agent_dies_in_a_change_at_ipmi_sim() {
    every_moment_at_ipmi_sim(Victim::Agent);
}

#[test]
fn the_aggregator_dies_in_a_change_at_ipmi_sim() {
    every_moment_at_ipmi_sim(Victim::Aggregator);
}
