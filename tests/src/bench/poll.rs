//! `poll`: what one status poll costs `picket-agent`, `ipmitool` started for every poll, and `ipmipower`, on the same BMCs.
//!
//! The agent is the real daemon, joined to a real aggregator, with settings as shipped but for the poll interval: 1 s, the
//! shortest there is. All it does in that time counts for it: its upkeep, its journal, its talk with the aggregator.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::cpu::{self, Used};
use super::machine::Machine;
use super::peers::{Numbers, Peers};
use super::poll_report::{self, Figures, Fleet};
use super::sample::{Sample, Watch};
use super::simulator::Simulator;
use crate::eventually::eventually;
use crate::harness::{Agent, Site, host_body};

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const CLUSTER: &str = "c1";
const RACK: &str = "r1";

/// Options of the bench.
#[derive(Debug, Args)]
pub struct Options {
    /// Also writes all figures, each run's too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Shorter runs: to see that it works, not for figures
    #[arg(long)]
    quick: bool,
    /// How many BMCs; several numbers with commas
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 500], value_parser = clap::value_parser!(u32).range(1..=5000))]
    bmcs: Vec<u32>,
    /// Runs, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
}

/// Who reads, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// The agent, with the sessions it keeps.
    AgentKept,
    /// The agent runs, its BMCs are enabled: assignment, logins, first poll of each, reports. What they are is known already.
    AgentEnabled,
    /// The agent starts: journal read, logins, first poll of each.
    AgentStarted,
    /// One ipmitool a poll.
    Ipmitool,
    /// The same, with a short file of enterprise numbers.
    IpmitoolShort,
    /// One ipmipower for all.
    Ipmipower,
}

/// How long and how often.
struct Plan {
    window: Duration,
    idle: Duration,
    peer_cpu: Duration,
    peer_polls: usize,
}

impl Plan {
    const FULL: Self =
        Self { window: Duration::from_secs(10), idle: Duration::from_secs(6), peer_cpu: Duration::from_secs(1), peer_polls: 500 };
    const QUICK: Self =
        Self { window: Duration::from_secs(3), idle: Duration::from_secs(1), peer_cpu: Duration::from_millis(100), peer_polls: 10 };
}

/// Runs the bench and prints its figures.
///
/// # Errors
/// When a program is missing, or a client did not read what it should have.
pub fn run(options: &Options) -> Result<()> {
    let plan = if options.quick { Plan::QUICK } else { Plan::FULL };
    let machine = Machine::here();
    let peers = Peers::new()?;
    let fleets = options.bmcs.iter().map(|count| measure(*count, options.runs, &plan, &peers)).collect::<Result<_>>()?;
    let figures = Figures { machine, quick: options.quick, runs: options.runs, fleets };
    println!("{}", poll_report::text(&figures));
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&poll_report::json(&figures))?;
        std::fs::write(file, text + "\n").with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}

/// All clients on one fleet, one after another, several times over: what the machine does meanwhile hits all alike.
fn measure(count: u32, runs: u32, plan: &Plan, peers: &Peers) -> Result<Fleet> {
    let mut stage = Stage::set(count, peers)?;
    let mut fleet = Fleet { bmcs: count, samples: BTreeMap::new(), idle: Vec::new() };
    for run in 1..=runs {
        eprintln!("{count} BMCs, run {run} of {runs}");
        let mut note = |client, sample| fleet.samples.entry(client).or_default().push(sample);
        note(Client::AgentEnabled, stage.enabled()?);
        note(Client::AgentKept, stage.kept(plan.window)?);
        note(Client::AgentStarted, stage.started()?);
        stage.disable()?;
        note(Client::Ipmitool, stage.ipmitool(plan, Numbers::AsShipped)?);
        note(Client::IpmitoolShort, stage.ipmitool(plan, Numbers::Short)?);
        note(Client::Ipmipower, stage.ipmipower(plan)?);
        fleet.idle.push(stage.idle(plan.idle)?);
    }
    Ok(fleet)
}

/// A simulator, and a site with one agent that has all its BMCs.
struct Stage<'a> {
    count: u32,
    peers: &'a Peers,
    // Ends before the site whose folder it lives in.
    agent: Agent,
    simulator: Simulator,
    site: Site,
}

impl<'a> Stage<'a> {
    /// Everything runs, all hosts are known, none is enabled.
    fn set(count: u32, peers: &'a Peers) -> Result<Self> {
        let site = Site::start()?;
        let simulator = Simulator::start(usize::try_from(count)?, site.folder())?;
        site.place("z1", CLUSTER, RACK)?;
        ctl(&site, &["oobm", "disable", "cluster", CLUSTER, "--yes"])?;
        let mut agent = site.join(RACK)?;
        log_as_shipped(&mut agent)?;
        let login = ("admin", "password");
        let hosts: Vec<Value> =
            simulator.bmcs.iter().map(|bmc| host_body(&bmc.name, CLUSTER, RACK, "ipmi", bmc.ipmi, login)).collect();
        site.import(&hosts)?;
        let names: Vec<&str> = simulator.bmcs.iter().map(|bmc| bmc.name.as_str()).collect();
        ctl(&site, &[&["oobm", "enable", "host"], names.as_slice()].concat())?;
        let stage = Self { count, peers, agent, simulator, site };
        stage.until_known()?;
        stage.inspect()?;
        Ok(stage)
    }

    /// A new BMC is asked once what it is, in a login of its own: not what is measured here.
    fn inspect(&self) -> Result<()> {
        ctl(&self.site, &["oobm", "enable", "cluster", CLUSTER])?;
        // The agent spreads its questions: 20 ms a BMC, at least half a minute.
        eventually(PATIENCE + Duration::from_millis(20) * self.count, || {
            let status = self.agent.status()?;
            let inspected = status.get("inspected").and_then(Value::as_u64) == Some(self.count.into());
            ensure!(inspected, "the agent says {status}");
            Ok(())
        })?;
        self.disable()
    }

    fn until_known(&self) -> Result<()> {
        eventually(PATIENCE, || {
            let status = self.agent.status()?;
            let known = status.get("hosts").and_then(Value::as_u64) == Some(self.count.into());
            ensure!(known && status.get("connected") == Some(&Value::Bool(true)), "the agent says {status}");
            Ok(())
        })
    }

    fn agent_pid(&self) -> Result<u32> {
        self.agent.pid().context("the agent does not run")
    }

    /// From the order that enables all until all are read.
    fn enabled(&self) -> Result<Sample> {
        let pid = self.agent_pid()?;
        let (watch, before) = (Watch::begin(&self.simulator)?, Used::of(pid)?);
        ctl(&self.site, &["oobm", "enable", "cluster", CLUSTER])?;
        self.until_read(&watch)?;
        watch.end(|| Ok(Used::of(pid)?.since(&before)))
    }

    /// A while of polls in the sessions that are there.
    fn kept(&self, window: Duration) -> Result<Sample> {
        let pid = self.agent_pid()?;
        let (watch, before) = (Watch::begin(&self.simulator)?, Used::of(pid)?);
        std::thread::sleep(window);
        let sample = watch.end(|| Ok(Used::of(pid)?.since(&before)))?;
        ensure!(sample.logins == 0, "{} sessions were not kept", sample.logins);
        Ok(sample)
    }

    /// From the agent's start until all are read.
    fn started(&mut self) -> Result<Sample> {
        self.agent.stop()?;
        self.until_closed()?;
        let watch = Watch::begin(&self.simulator)?;
        self.agent.start()?;
        self.until_read(&watch)?;
        let pid = self.agent_pid()?;
        watch.end(|| Ok(Used::of(pid)?.total()))
    }

    fn disable(&self) -> Result<()> {
        ctl(&self.site, &["oobm", "disable", "cluster", CLUSTER, "--yes"])?;
        self.until_closed()
    }

    /// Share of a core that the agent uses while it has nothing to poll.
    fn idle(&self, window: Duration) -> Result<f64> {
        let pid = self.agent_pid()?;
        let (began, before) = (super::now(), Used::of(pid)?);
        std::thread::sleep(window);
        Ok(Used::of(pid)?.since(&before).as_secs_f64() / began.elapsed().as_secs_f64())
    }

    fn until_read(&self, watch: &Watch<'_>) -> Result<()> {
        eventually(PATIENCE, || {
            let (reads, logins) = watch.counted()?;
            ensure!(reads >= self.count && logins >= self.count, "{reads} reads, {logins} logins, {} BMCs", self.count);
            Ok(())
        })
    }

    fn until_closed(&self) -> Result<()> {
        eventually(PATIENCE, || {
            let now = self.simulator.counters()?;
            ensure!(now.logins == now.logouts, "sessions are left: {now:?}");
            Ok(())
        })
    }

    /// Each BMC in turn, as often as there are BMCs.
    fn ipmitool(&self, plan: &Plan, numbers: Numbers) -> Result<Sample> {
        let mut bmcs = self.simulator.bmcs.iter().cycle();
        self.peer(plan.peer_cpu, self.simulator.bmcs.len().min(plan.peer_polls), || {
            self.peers.ipmitool(bmcs.next().context("no BMC")?, numbers)
        })
    }

    fn ipmipower(&self, plan: &Plan) -> Result<Sample> {
        self.peer(plan.peer_cpu, 1, || self.peers.ipmipower(&self.simulator.bmcs))
    }

    /// A peer's program, `at_least` times and until it used so much CPU time that its account is exact enough.
    fn peer(&self, enough: Duration, at_least: usize, mut once: impl FnMut() -> Result<()>) -> Result<Sample> {
        let (watch, before) = (Watch::begin(&self.simulator)?, cpu::of_ended_children()?);
        let mut times = 0;
        while times < at_least || cpu::of_ended_children()?.saturating_sub(before) < enough {
            once()?;
            times += 1;
        }
        watch.end(|| Ok(cpu::of_ended_children()?.saturating_sub(before)))
    }
}

fn ctl(site: &Site, arguments: &[&str]) -> Result<()> {
    let answer = site.ctl(arguments)?;
    ensure!(answer.code == 0, "picketctl {}: {answer:?}", arguments.iter().take(3).copied().collect::<Vec<_>>().join(" "));
    Ok(())
}

/// The harness has agents log more than a user would.
fn log_as_shipped(agent: &mut Agent) -> Result<()> {
    let state = agent.state_dir();
    let folder = state.parent().context("no folder around the agent's state")?;
    std::fs::write(folder.join("agent.toml"), "allowed_bmc_networks = [\"127.0.0.0/8\"]\n")?;
    agent.stop()?;
    agent.start()
}
