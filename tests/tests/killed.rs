//! The agent is killed (SIGKILL) at every named point of a fence, and started again: the fence is ended, with evidence, and no attempt
//! has two resets. A point a rack, all at once; three runs each, and as many as `tests/soak` says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use picket_tests::bmcsim::{BmcHandle, Simulator};
use picket_tests::eventually::{eventually, eventually_soon};
use picket_tests::harness::{Agent, Living, Site, hosts, runs, simulator};
use picket_tests::watched::{PATIENCE, QUICK};
use serde_json::Value;

/// Where the agent dies. What the BMC sees is known at once, what the agent logs within some milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// Its health checks failed.
    Suspect,
    /// Its activity is looked at.
    Checking,
    /// No activity: it is to be reset.
    Recovering,
    /// The gates let the reset pass.
    ResetJudged,
    /// The reset is at the BMC, unanswered or nearly so.
    ResetSent,
    /// It boots, as far as anybody knows.
    Booting,
    /// The reset did not help.
    Fencing,
    /// The gates let the off pass.
    OffJudged,
    /// The off is at the BMC.
    OffSent,
    /// It is off; that was read once or not yet.
    Off,
    /// That was read a second time, or nearly.
    Confirming,
    /// It is fenced.
    Fenced,
}

const POINTS: [Point; 12] = [
    Point::Suspect,
    Point::Checking,
    Point::Recovering,
    Point::ResetJudged,
    Point::ResetSent,
    Point::Booting,
    Point::Fencing,
    Point::OffJudged,
    Point::OffSent,
    Point::Off,
    Point::Confirming,
    Point::Fenced,
];

/// An agent may switch six hosts off within an hour.
const VICTIMS: usize = 3;

impl Point {
    fn wait_for(self, agent: &Agent, bmc: &BmcHandle) -> Result<()> {
        let state = |name: &str| logged(agent, bmc, &format!("\"state\":\"{name}\""));
        let judged = |act: &str| logged(agent, bmc, &format!("\"act\":\"{act}\",\"attempt\":1,\"held\":\"None\""));
        match self {
            Self::Suspect => state("suspect"),
            Self::Checking => state("checking"),
            Self::Recovering => state("recovering"),
            Self::ResetJudged => judged("Reset"),
            Self::ResetSent => seen(|| bmc.orders("reset") == 1),
            Self::Booting => {
                seen(|| bmc.orders("reset") == 1)?;
                read_again(bmc, 2)
            }
            Self::Fencing => state("fencing"),
            Self::OffJudged => judged("Off"),
            Self::OffSent => seen(|| bmc.orders("off") == 1),
            Self::Off => seen(|| !bmc.is_on()),
            Self::Confirming => {
                seen(|| !bmc.is_on())?;
                read_again(bmc, 2)
            }
            Self::Fenced => state("fenced"),
        }
    }
}

fn seen(what: impl Fn() -> bool) -> Result<()> {
    eventually_soon(PATIENCE, || {
        ensure!(what(), "the BMC has not seen it");
        Ok(())
    })
}

fn read_again(bmc: &BmcHandle, times: u64) -> Result<()> {
    let before = bmc.counters().status_reads;
    seen(|| bmc.counters().status_reads >= before + times)
}

fn logged(agent: &Agent, bmc: &BmcHandle, what: &str) -> Result<()> {
    eventually(PATIENCE, || {
        let log = agent.log()?;
        let mut of_it = log.lines().filter(|line| line.contains(bmc.name()));
        ensure!(of_it.any(|line| line.contains(what)), "{}: {what} was not logged", bmc.name());
        Ok(())
    })
}

/// A rack whose agent dies at one point, each time that one of its hosts is fenced.
struct Rack {
    point: Point,
    agent: Agent,
    simulator: Simulator,
    living: Living,
}

impl Rack {
    fn set(site: &Site, number: usize, point: Point) -> Result<Self> {
        let rack = format!("k{number:02}");
        let (ipmi, redfish) = if number.is_multiple_of(2) { (VICTIMS + 1, 0) } else { (0, VICTIMS + 1) };
        let simulator = simulator(&format!("{rack}n"), ipmi, redfish)?;
        let bmcs = simulator.fleet().all();
        bmcs.iter().for_each(|bmc| bmc.set_power(true));
        let living = Living::new(bmcs.iter().map(BmcHandle::name))?;
        site.place("z1", &rack, &rack)?;
        let agent = site.join(&rack)?;
        site.import(&hosts(&simulator, &rack, &rack))?;
        ok(site, &[&["ha", "set", "cluster", &rack], &QUICK[..]].concat())?;
        let (disk, stage) = (site.path(&rack), Self { point, agent, simulator, living });
        // A disk that nobody writes.
        std::fs::write(&disk, "")?;
        for bmc in stage.simulator.fleet().all() {
            let health = format!("health=tcp:{}", stage.living.address(bmc.name())?);
            ok(site, &["ha", "set", "host", bmc.name(), &health, &format!("activity=files:{}", disk.display())])?;
        }
        Ok(stage)
    }

    fn victim(&self, round: usize) -> &BmcHandle {
        self.simulator.fleet().all().get(round).unwrap()
    }

    /// A host dies, and at the point its agent; which comes back at once.
    fn lose(&mut self, round: usize) -> Result<()> {
        let bmc = self.victim(round).clone();
        self.living.kill(bmc.name())?;
        self.point.wait_for(&self.agent, &bmc).with_context(|| format!("{:?}", self.point))?;
        self.agent.kill();
        self.agent.start()
    }

    /// Fenced is right: it is off, was reset once at most, and each reading behind the verdict is one of after the off.
    fn judge(&self, site: &Site, round: usize) -> Result<()> {
        let bmc = self.victim(round);
        let shown = site.json(&["ha", "explain", bmc.name()])?;
        let off = bmc.calls(0).into_iter().find(|call| call.action == "off").context("no off was sent")?;
        let readings: Vec<Timestamp> = shown
            .pointer("/0/proof/readings")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|reading| Ok(reading.get("at").and_then(Value::as_str).context("no time")?.parse()?))
            .collect::<Result<_>>()?;
        let after = readings.iter().all(|at| i128::from(off.at_unix_us) / 1000 <= i128::from(at.as_millisecond()));
        ensure!(readings.len() >= 2 && after, "off at {} µs, read at {readings:?}: {shown}", off.at_unix_us);
        let (resets, offs) = (bmc.orders("reset"), bmc.orders("off"));
        ensure!(!bmc.is_on() && resets <= 1 && offs <= 2, "on: {}, {resets} resets, {offs} offs: {shown}", bmc.is_on());
        Ok(())
    }
}

fn ok(site: &Site, words: &[&str]) -> Result<()> {
    let answer = site.ctl(words)?;
    ensure!(answer.code == 0, "{words:?}: {answer:?}");
    Ok(())
}

fn until(site: &Site, state: &str, hosts: &str) {
    eventually(PATIENCE, || {
        let rows = site.json(&["ha", "show", hosts])?;
        let others: Vec<&Value> = rows.as_array().into_iter().flatten().filter(|row| row["state"] != state).collect();
        ensure!(others.is_empty(), "{} are not {state}, as {:?}", others.len(), others.first());
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_agent_is_killed_at_every_point_of_a_fence() {
    let mut left = runs();
    while left > 0 {
        let site = Site::start().unwrap();
        let mut racks: Vec<Rack> =
            POINTS.iter().enumerate().map(|(number, point)| Rack::set(&site, number, *point).unwrap()).collect();
        ok(&site, &["oobm", "enable", "host", "@all", "--yes"]).unwrap();
        ok(&site, &["ha", "enable", "host", "@all", "--yes"]).unwrap();
        until(&site, "available", "@all");
        for round in 0..left.min(VICTIMS) {
            let lost: Vec<Result<()>> = thread::scope(|scope| {
                let dying: Vec<_> = racks.iter_mut().map(|rack| scope.spawn(move || rack.lose(round))).collect();
                dying.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            lost.into_iter().collect::<Result<()>>().unwrap();
            let victims: Vec<&str> = racks.iter().map(|rack| rack.victim(round).name()).collect();
            until(&site, "fenced", &victims.join(","));
            for rack in &racks {
                rack.judge(&site, round).with_context(|| format!("{:?}, round {round}", rack.point)).unwrap();
            }
        }
        left = left.saturating_sub(VICTIMS);
    }
}
