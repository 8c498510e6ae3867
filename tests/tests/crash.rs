//! Nothing is lost: whatever dies or is cut off while hosts change power by hand, the history ends up with every change once and
//! in order, and the view with the truth. Power never changes again before the last change could be seen, so that each one counts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use picket_tests::bmcsim::{BmcHandle, Profile, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::proxy::{Line, Proxy};
use picket_tests::harness::{Agent, Site, hosts, simulator};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);

/// Reads after which the first of them is in the agent's journal: one poll may read twice, and the next begins after the record.
const SEEN: u64 = 3;

/// Two racks of 48, each half IPMI and half Redfish, with an agent each.
struct Racks {
    site: Site,
    agents: [Agent; 2],
    simulators: [Simulator; 2],
}

impl Racks {
    fn watched(size: usize) -> Self {
        let simulators = ["a", "b"].map(|prefix| simulator(prefix, size / 2, size / 2).unwrap());
        let site = Site::start().unwrap();
        let racks = ["ra", "rb"];
        let agents = racks.map(|rack| {
            site.place("z1", "c1", rack).unwrap();
            site.join(rack).unwrap()
        });
        for (simulator, rack) in simulators.iter().zip(racks) {
            site.import(&hosts(simulator, "c1", rack)).unwrap();
        }
        let racks = Self { site, agents, simulators };
        let names: Vec<&str> = racks.bmcs().map(BmcHandle::name).collect();
        let answer = racks.site.ctl(&[&["oobm", "enable", "host", "--yes"], names.as_slice()].concat()).unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
        racks.until_true();
        racks
    }

    fn bmcs(&self) -> impl Iterator<Item = &BmcHandle> {
        self.simulators.iter().flat_map(|simulator| simulator.fleet().all())
    }

    /// Waits until the view is what the simulator says, and vouched for.
    fn until_true(&self) {
        eventually(PATIENCE, || {
            let listed = self.site.json(&["hosts", "list"])?;
            self.bmcs().try_for_each(|bmc| shows_the_truth(&listed, bmc))
        })
        .unwrap();
    }

    /// Waits until the centre has heard everything the agents have to say.
    fn until_caught_up(&self) {
        eventually(PATIENCE, || {
            let agents = self.site.json(&["agents", "list"])?;
            let quiet = |agent: &Value| agent["connected"] == true && agent["outbox"] == 0;
            ensure!(agents.as_array().is_some_and(|agents| agents.len() == 2 && agents.iter().all(quiet)), "{agents}");
            Ok(())
        })
        .unwrap();
    }

    fn until_connected(&self) {
        eventually(PATIENCE, || {
            let summary = self.site.json(&["summary"])?;
            ensure!(summary["agents_connected"] == 2, "{summary}");
            Ok(())
        })
        .unwrap();
    }

    /// The view is true and no history lacks, repeats or swaps anything.
    fn assert_nothing_lost(&self, at_least: usize) {
        self.until_true();
        self.until_caught_up();
        for bmc in self.bmcs() {
            assert!(
                bmc.changes().len() >= at_least,
                "{} changed only {} times: nothing was tried",
                bmc.name(),
                bmc.changes().len()
            );
            eventually(PATIENCE, || history_is_whole(&self.site, bmc)).unwrap();
        }
        self.until_true();
    }
}

fn shows_the_truth(listed: &Value, bmc: &BmcHandle) -> Result<()> {
    let host = listed.as_array().context("no list")?.iter().find(|host| host["id"] == bmc.name()).context("not listed")?;
    ensure!(host["power"] == power_of(bmc.is_on()) && host["stale"] == false, "not the truth ({}): {host}", bmc.is_on());
    Ok(())
}

const fn power_of(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// A line of a history about power.
struct Step {
    id: String,
    old: String,
    new: String,
    sequence: u64,
}

fn steps(site: &Site, host: &str) -> Result<Vec<Step>> {
    let history = site.json(&["history", host, "--limit", "10000"])?;
    let lines = history.as_array().context("no list")?;
    ensure!(lines.iter().all(|line| line["kind"] != "gap"), "{host}: reports were lost: {history}");
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let power = lines.iter().rev().filter(|line| line["kind"] == "power");
    let step = |line: &Value| Step {
        id: text(line, "id"),
        old: text(line, "old"),
        new: text(line, "new"),
        sequence: line["sequence"].as_u64().unwrap_or_default(),
    };
    Ok(power.map(step).collect())
}

/// Each change of the BMC's own record is there once and in order. Between two of them the state may have been unknown.
fn history_is_whole(site: &Site, bmc: &BmcHandle) -> Result<()> {
    let steps = steps(site, bmc.name())?;
    let told = || steps.iter().map(|step| format!("{} {}→{}", step.id, step.old, step.new)).collect::<Vec<_>>();
    for pair in steps.windows(2) {
        ensure!(pair[0].new == pair[1].old, "{}: a hole or a repetition: {:?}", bmc.name(), told());
        ensure!(pair[0].sequence < pair[1].sequence, "{}: out of order: {:?}", bmc.name(), told());
    }
    let mut ids: Vec<&str> = steps.iter().map(|step| step.id.as_str()).filter(|id| !id.is_empty()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == count, "{}: an id twice: {:?}", bmc.name(), told());
    let mut seen: Vec<&str> = steps.iter().map(|step| step.new.as_str()).filter(|new| matches!(*new, "on" | "off")).collect();
    seen.dedup();
    ensure!(seen == truth(bmc), "{}: not what happened ({:?}): {:?}", bmc.name(), truth(bmc), told());
    Ok(())
}

/// The state at the start and each later one.
fn truth(bmc: &BmcHandle) -> Vec<&'static str> {
    let changes = bmc.changes();
    let first = changes.first().map_or_else(|| bmc.is_on(), |change| !change.on);
    std::iter::once(first).chain(changes.iter().map(|change| change.on)).map(power_of).collect()
}

/// Someone in the machine room who turns one host after another over.
struct Hand<'a> {
    hosts: Vec<Held<'a>>,
    /// Counts the deaths of each rack's agent: what was read just before one may not have been recorded.
    deaths: &'a [AtomicU64; 2],
}

/// One host, and what its BMC had counted when it was last turned over.
struct Held<'a> {
    bmc: &'a BmcHandle,
    rack: usize,
    deaths: u64,
    reads: u64,
}

impl Held<'_> {
    fn turn(&mut self, deaths: &[AtomicU64; 2]) {
        self.bmc.toggle();
        self.rebase(deaths);
    }

    fn rebase(&mut self, deaths: &[AtomicU64; 2]) {
        self.deaths = deaths[self.rack].load(Ordering::SeqCst);
        self.reads = self.bmc.counters().status_reads;
    }

    /// Whether the agent has recorded the last change for certain.
    fn is_recorded(&mut self, deaths: &[AtomicU64; 2]) -> bool {
        let read = self.bmc.counters().status_reads.saturating_sub(self.reads) >= SEEN;
        if deaths[self.rack].load(Ordering::SeqCst) == self.deaths {
            return read;
        }
        self.rebase(deaths);
        false
    }
}

impl<'a> Hand<'a> {
    fn new(racks: &'a [Simulator; 2], deaths: &'a [AtomicU64; 2]) -> Self {
        let held = |(rack, simulator): (usize, &'a Simulator)| {
            simulator.fleet().all().iter().map(move |bmc| Held { bmc, rack, deaths: 0, reads: 0 })
        };
        let mut hosts: Vec<Held<'a>> = racks.iter().enumerate().flat_map(held).collect();
        for host in &mut hosts {
            host.rebase(deaths);
        }
        Self { hosts, deaths }
    }

    /// Turns hosts over, each as soon as its last change is recorded, until told to end; then waits for the last ones.
    fn work(&mut self, end: &AtomicBool) {
        eventually(PATIENCE * 2, || {
            let mut open = 0;
            for host in &mut self.hosts {
                let recorded = host.is_recorded(self.deaths);
                match (recorded, end.load(Ordering::SeqCst)) {
                    (true, false) => host.turn(self.deaths),
                    (true, true) => {}
                    (false, _) => open += 1,
                }
            }
            ensure!(end.load(Ordering::SeqCst) && open == 0, "{open} changes are not seen");
            Ok(())
        })
        .unwrap();
    }
}

/// Runs `chaos` while hosts are turned over. Its end is theirs, also by a panic.
fn while_hosts_change(simulators: &[Simulator; 2], deaths: &[AtomicU64; 2], chaos: impl FnOnce()) {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| Hand::new(simulators, deaths).work(&end));
        let _told = Told(&end);
        chaos();
    });
}

/// Tells the hand to end when dropped.
struct Told<'a>(&'a AtomicBool);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until every BMC has changed so many times more.
fn until_changed(simulators: &[Simulator; 2], times: usize) {
    let begun: Vec<usize> = all(simulators).map(|bmc| bmc.changes().len()).collect();
    eventually(PATIENCE, || {
        for (bmc, begun) in all(simulators).zip(&begun) {
            ensure!(bmc.changes().len() >= begun + times, "{} does not change", bmc.name());
        }
        Ok(())
    })
    .unwrap();
}

fn all(simulators: &[Simulator; 2]) -> impl Iterator<Item = &BmcHandle> {
    simulators.iter().flat_map(|simulator| simulator.fleet().all())
}

#[test]
fn aggregator_killed_while_hosts_change() {
    let mut racks = Racks::watched(48);
    let alive = [const { AtomicU64::new(0) }; 2];
    let Racks { site, simulators, .. } = &mut racks;
    while_hosts_change(simulators, &alive, || {
        for round in 0..4 {
            site.kill_aggregator();
            // Dead for a moment, or for a few changes of everything.
            if round % 2 == 1 {
                until_changed(simulators, 2);
            }
            site.start_aggregator().unwrap();
            // Killed again at once, or after everybody is back.
            if round > 0 {
                eventually(PATIENCE, || {
                    let summary = site.json(&["summary"])?;
                    ensure!(summary["agents_connected"] == 2, "{summary}");
                    Ok(())
                })
                .unwrap();
            }
        }
        until_changed(simulators, 1);
    });
    racks.assert_nothing_lost(6);
}

#[test]
fn agents_killed_while_hosts_change() {
    let mut racks = Racks::watched(48);
    let deaths = [const { AtomicU64::new(0) }; 2];
    let Racks { agents, simulators, .. } = &mut racks;
    while_hosts_change(simulators, &deaths, || {
        for round in 0..8 {
            let rack = round % 2;
            deaths[rack].fetch_add(1, Ordering::SeqCst);
            agents[rack].kill();
            agents[rack].start().unwrap();
            // Killed again in the middle of its start, or when it works again.
            if round >= 2 {
                until_changed(simulators, 1);
            }
        }
        until_changed(simulators, 1);
    });
    racks.assert_nothing_lost(6);
}

#[test]
fn broker_cut_off_while_hosts_change() {
    // A quarter of a minute each: long enough that silence is noticed (three heartbeats), short enough for every test run.
    const CHANGES_IN_A_CUT: usize = 4;
    let mut racks = Racks::watched(48);
    let gate: SocketAddr = racks.site.mqtt().parse().unwrap();
    let proxies = [Proxy::start(gate).unwrap(), Proxy::start(gate).unwrap()];
    for (agent, proxy) in racks.agents.iter_mut().zip(&proxies) {
        agent.stop().unwrap();
        lead_through(agent, proxy);
        agent.start().unwrap();
    }
    racks.until_connected();
    let alive = [const { AtomicU64::new(0) }; 2];
    while_hosts_change(&racks.simulators, &alive, || {
        // One rack's connection is refused, the other's falls silent; then the other way round.
        for lines in [[Line::Refused, Line::Silent], [Line::Silent, Line::Refused]] {
            for (proxy, line) in proxies.iter().zip(lines) {
                proxy.set(line);
            }
            until_changed(&racks.simulators, CHANGES_IN_A_CUT);
            eventually(PATIENCE, || {
                let summary = racks.site.json(&["summary"])?;
                ensure!(summary["agents_connected"] == 0, "not noticed: {summary}");
                Ok(())
            })
            .unwrap();
            for proxy in &proxies {
                proxy.set(Line::Whole);
            }
            racks.until_connected();
        }
        until_changed(&racks.simulators, 1);
    });
    racks.assert_nothing_lost(2 * CHANGES_IN_A_CUT);
}

/// Points a joined agent at the proxy.
fn lead_through(agent: &Agent, proxy: &Proxy) {
    let file = agent.state_dir().join("identity").join("identity.json");
    let mut identity: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(identity["mqtt"].is_string(), "{identity}");
    identity["mqtt"] = proxy.address().to_string().into();
    std::fs::write(&file, identity.to_string()).unwrap();
}

#[test]
fn agents_restarted_without_their_centre() {
    let mut racks = Racks::watched(8);
    racks.site.kill_aggregator();
    for agent in &mut racks.agents {
        agent.kill();
    }
    // While both are dead: one change each, seen as the difference at the restart.
    for bmc in all(&racks.simulators) {
        bmc.toggle();
    }
    let before: Vec<u64> = racks.bmcs().map(|bmc| bmc.counters().status_reads).collect();
    for agent in &mut racks.agents {
        agent.start().unwrap();
    }
    eventually(PATIENCE, || {
        for (bmc, before) in racks.bmcs().zip(&before) {
            ensure!(bmc.counters().status_reads >= before + 2 * SEEN, "{} is not polled", bmc.name());
        }
        Ok(())
    })
    .unwrap();
    let first: Vec<u64> = racks.agents.iter().map(|agent| until_alone(agent, 8, 0)).collect();
    // And changes it sees while alone wait in its outbox, the first of them over one more death.
    let deaths = [const { AtomicU64::new(0) }; 2];
    while_hosts_change(&racks.simulators, &deaths, || until_changed(&racks.simulators, 1));
    for (agent, first) in racks.agents.iter_mut().zip(first) {
        until_alone(agent, 8, first + 8);
        agent.kill();
        agent.start().unwrap();
    }
    while_hosts_change(&racks.simulators, &deaths, || until_changed(&racks.simulators, 1));
    racks.site.start_aggregator().unwrap();
    racks.assert_nothing_lost(3);
}

/// What an agent says of itself: not connected, all hosts, all states known, and at least so many reports waiting. Gives how many.
fn until_alone(agent: &Agent, hosts: u64, waiting: u64) -> u64 {
    eventually(PATIENCE, || {
        let status = agent.status()?;
        let number = |field: &str| status[field].as_u64().unwrap_or_default();
        ensure!(status["pid"].as_u64() == agent.pid().map(u64::from), "an older process wrote {status}");
        ensure!(status["connected"] == false && status["journal"] == true, "{status}");
        ensure!(number("hosts") == hosts && number("on") + number("off") == hosts, "{status}");
        ensure!(number("outbox") >= waiting.max(hosts), "fewer than {waiting} reports wait: {status}");
        Ok(number("outbox"))
    })
    .unwrap()
}

#[test]
fn orders_under_way_survive_either_death() {
    let mut racks = Racks::watched(4);
    for bmc in racks.bmcs() {
        bmc.set_profile(Profile { off_delay_ms: 2_000, ..bmc.profile() });
        bmc.set_power(true);
    }
    racks.until_true();
    let orders: Vec<String> = racks.bmcs().map(|bmc| ordered(&racks.site, bmc.name(), "cycle")).collect();
    eventually(PATIENCE, || {
        ensure!(racks.bmcs().all(|bmc| bmc.counters().orders > 0), "not all BMCs have their order");
        Ok(())
    })
    .unwrap();
    racks.agents[0].kill();
    racks.site.kill_aggregator();
    racks.agents[0].start().unwrap();
    racks.site.start_aggregator().unwrap();
    for (bmc, order) in racks.bmcs().zip(&orders) {
        let operation = racks.site.json(&["op", "wait", order, "--timeout", "60"]);
        let ended = operation.or_else(|_| racks.site.json(&["op", "show", order])).unwrap();
        let result = ended["hosts"][0]["result"].as_str().unwrap_or_default();
        // The agent that died cannot know what became of its request, unless it saw the host go down and up.
        let died = racks.simulators[0].bmc(bmc.name()).is_some();
        assert!(result == "changed" || (died && result == "unknown"), "{}: {ended}", bmc.name());
        assert_cycled_once(bmc);
        eventually(PATIENCE, || tells_once(&racks.site, bmc.name(), order)).unwrap();
    }
    racks.until_true();
}

/// Down once and up again, and no request came twice, whether the cycle was one request or an off and an on.
fn assert_cycled_once(bmc: &BmcHandle) {
    let changes: Vec<bool> = bmc.changes().iter().map(|change| change.on).collect();
    assert!(changes.ends_with(&[false, true]) && changes.len() <= 3, "{}: {changes:?} {:?}", bmc.name(), bmc.calls(0));
    for action in ["off", "on", "cycle"] {
        assert!(bmc.orders(action) <= 1, "{}: {action} was sent again: {:?}", bmc.name(), bmc.calls(0));
    }
}

/// Orders something and does not wait for it; gives the operation's id.
fn ordered(site: &Site, host: &str, action: &str) -> String {
    let rows = site.json(&["power", action, host, "--no-wait"]).unwrap();
    rows[0]["operation"].as_str().unwrap().to_owned()
}

/// The history says once that the operation was accepted, and once how it ended.
fn tells_once(site: &Site, host: &str, operation: &str) -> Result<()> {
    let history = site.json(&["history", host])?;
    let lines = history.as_array().context("no list")?;
    let count = |kind: &str| lines.iter().filter(|line| line["kind"] == kind && line["operation_id"] == operation).count();
    ensure!((count("operation-accepted"), count("operation-done")) == (1, 1), "{host}: {history}");
    Ok(())
}
