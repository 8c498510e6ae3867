//! The figures of `poll`: tables for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::machine::Machine;
use super::poll::Client;
use super::sample::{Sample, Spread};

/// All that was measured.
pub struct Figures {
    /// Where.
    pub machine: Machine,
    /// Whether in a hurry.
    pub quick: bool,
    /// Runs of each.
    pub runs: u32,
    /// By number of BMCs.
    pub fleets: Vec<Fleet>,
}

/// What was measured on one number of BMCs.
pub struct Fleet {
    /// How many.
    pub bmcs: u32,
    /// Each client's runs.
    pub samples: BTreeMap<Client, Vec<Sample>>,
    /// Share of a core that the agent uses with nothing to poll, each run.
    pub idle: Vec<f64>,
}

/// What a poll of the agent in a kept session may cost, against whom.
const TARGETS: [(Client, u32); 3] = [(Client::Ipmitool, 1000), (Client::IpmitoolShort, 250), (Client::Ipmipower, 15)];

impl Client {
    const fn words(self) -> &'static str {
        match self {
            Self::AgentKept => "agent, sessions kept",
            Self::AgentEnabled => "agent, enabled: first polls",
            Self::AgentStarted => "agent, started: first polls",
            Self::Ipmitool => "ipmitool a poll, as shipped",
            Self::IpmitoolShort => "ipmitool a poll, short numbers file",
            Self::Ipmipower => "ipmipower --stat, all at once",
        }
    }

    const fn is_agent(self) -> bool {
        matches!(self, Self::AgentKept | Self::AgentEnabled | Self::AgentStarted)
    }

    /// What kept this client from being faster.
    fn bottleneck(self, samples: &[Sample]) -> &'static str {
        let median = |of: fn(&Sample) -> f64| Spread::of(samples.iter().map(of)).map_or(0.0, |spread| spread.median);
        match (self, median(Sample::client_busy), median(Sample::simulator_busy)) {
            (_, _, simulator) if simulator > 0.8 => "the simulator",
            (_, client, _) if client > 0.8 => "its own CPU time",
            (Self::AgentKept, ..) => "the poll interval (1 s)",
            (Self::AgentEnabled | Self::AgentStarted, ..) => "start-up, first polls spread by design",
            (Self::Ipmitool | Self::IpmitoolShort, ..) => "process start, replies, one at a time",
            (Self::Ipmipower, ..) => "process start, replies",
        }
    }
}

impl Fleet {
    fn spread(&self, client: Client, of: fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.get(&client)?.iter().map(of))
    }

    /// How many times the agent's CPU time per poll the other's is.
    fn times(&self, agent: Client, other: Client) -> Option<f64> {
        let cpu = |client| self.spread(client, Sample::cpu_per_poll);
        Some(cpu(other)?.median / cpu(agent)?.median)
    }

    /// Share of the polls that were due in the kept sessions and were made, at one a second.
    fn on_time(&self) -> Option<f64> {
        Some(f64::from(self.bmcs) * self.spread(Client::AgentKept, Sample::wall_per_poll)?.median).map(|interval| 1.0 / interval)
    }
}

/// For people.
pub fn text(figures: &Figures) -> String {
    let hurry = if figures.quick { "; --quick, so not for comparison" } else { "" };
    let mut text = format!("{}\nruns     {} of each, medians [least – most]{hurry}\n\n", figures.machine, figures.runs);
    writeln!(text, "{}\n\n{}\n", costs(figures), ratios(figures)).ok();
    for fleet in &figures.fleets {
        let idle = Spread::of(fleet.idle.iter().copied()).map_or(0.0, |spread| spread.median);
        let polls = fleet.on_time().unwrap_or(0.0);
        let (bmcs, idle) = (fleet.bmcs, idle * 100.0);
        writeln!(
            text,
            "{bmcs} BMCs: agent with nothing to poll {idle:.3} % of a core; {polls:.2} polls a BMC and second, 1 asked for"
        )
        .ok();
    }
    text.push_str(
        "\nCPU is user and system time. The agent's holds everything it does meanwhile: upkeep, journal, uplink. A peer's holds \
         fork, exec and login, which is what it does for every poll. \"enabled\" counts from the order at picketctl, \"started\" \
         from the start of the agent's process, until all BMCs are read.",
    );
    text
}

fn table(heads: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(heads);
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn costs(figures: &Figures) -> Table {
    let heads = ["BMCs", "client", "bottleneck", "CPU a poll", "wall a poll", "client", "simulator a poll", "machine"];
    let mut table = table(&heads, 3);
    for fleet in &figures.fleets {
        for (client, samples) in &fleet.samples {
            let of = |of: fn(&Sample) -> f64| fleet.spread(*client, of);
            table.add_row([
                fleet.bmcs.to_string(),
                client.words().to_owned(),
                client.bottleneck(samples).to_owned(),
                of(Sample::cpu_per_poll).map_or_else(String::new, range),
                if *client == Client::AgentKept { "paced".into() } else { median(of(Sample::wall_per_poll), time) },
                median(of(Sample::client_busy), percent),
                median(of(Sample::simulator_per_poll), time),
                median(of(|sample| sample.machine_busy), percent),
            ]);
        }
    }
    table
}

fn ratios(figures: &Figures) -> Table {
    let mut table = table(&["BMCs", "CPU a poll of", "against", "ratio", "reach", ""], 3);
    for fleet in &figures.fleets {
        for agent in fleet.samples.keys().filter(|client| client.is_agent()) {
            for (other, target) in TARGETS {
                let Some(times) = fleet.times(*agent, other) else { continue };
                let (reach, verdict) = match (*agent == Client::AgentKept, times >= f64::from(target)) {
                    (true, true) => (format!("1/{}", thousands(target.into())), "reached"),
                    (true, false) => (format!("1/{}", thousands(target.into())), "NOT reached"),
                    (false, _) => (String::new(), ""),
                };
                let ratio = ratio(times);
                table.add_row([fleet.bmcs.to_string(), agent.words().into(), other.words().into(), ratio, reach, verdict.into()]);
            }
        }
    }
    table
}

fn median(spread: Option<Spread>, shown: fn(f64) -> String) -> String {
    spread.map_or_else(String::new, |spread| shown(spread.median))
}

fn range(spread: Spread) -> String {
    format!("{} [{} – {}]", time(spread.median), time(spread.min), time(spread.max))
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s if s >= 0.000_1 => format!("{:.0} µs", s * 1e6),
        s => format!("{:.1} µs", s * 1e6),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// What share of the other's cost ours is, or how many times as much.
fn ratio(times: f64) -> String {
    match times {
        t if t >= 10.0 => format!("1/{}", thousands(t)),
        t if t >= 1.0 => format!("1/{t:.1}"),
        t => format!("{:.1} times", 1.0 / t),
    }
}

/// Whole, with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// For programs.
pub fn json(figures: &Figures) -> Value {
    let fleets: Vec<Value> = figures.fleets.iter().map(fleet_json).collect();
    json!({
        "bench": "poll",
        "machine": figures.machine,
        "quick": figures.quick,
        "runs": figures.runs,
        "poll_interval_s": 1,
        "fleets": fleets,
    })
}

fn fleet_json(fleet: &Fleet) -> Value {
    let clients: Vec<Value> = fleet.samples.iter().map(|(client, samples)| client_json(fleet, *client, samples)).collect();
    let agents = || fleet.samples.keys().filter(|client| client.is_agent());
    let ratios: Vec<Value> = agents()
        .flat_map(|agent| TARGETS.map(|(other, target)| (agent, other, target)))
        .filter_map(|(agent, other, target)| {
            let times = fleet.times(*agent, other)?;
            let target = (*agent == Client::AgentKept).then(|| 1.0 / f64::from(target));
            Some(json!({ "of": agent, "against": other, "ratio": 1.0 / times, "reach": target }))
        })
        .collect();
    json!({ "bmcs": fleet.bmcs, "clients": clients, "ratios": ratios, "agent_idle_share_of_a_core": fleet.idle })
}

fn client_json(fleet: &Fleet, client: Client, samples: &[Sample]) -> Value {
    json!({
        "client": client,
        "bottleneck": client.bottleneck(samples),
        "cpu_per_poll_s": fleet.spread(client, Sample::cpu_per_poll),
        "wall_per_poll_s": fleet.spread(client, Sample::wall_per_poll),
        "simulator_cpu_per_poll_s": fleet.spread(client, Sample::simulator_per_poll),
        "samples": samples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (value, wanted) in [(7.4, "7"), (999.6, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(thousands(value), wanted);
        }
        for (times, wanted) in [(0.5, "2.0 times"), (4.26, "1/4.3"), (1_069.4, "1/1,069")] {
            assert_eq!(ratio(times), wanted);
        }
        for (seconds, wanted) in [(0.0123, "12 ms"), (0.0012, "1.2 ms"), (0.000_23, "230 µs"), (0.000_012_34, "12.3 µs")] {
            assert_eq!(time(seconds), wanted);
        }
    }
}
