//! `fence`: where the time of a fence goes. Hosts that were switched off at the chassis, with all defaults (10 s poll, 30 s settle, three
//! readings), from the loss to Down at an MQTT consumer; and hosts that are fenced by word, beside `fence_ipmilan` at the same kind of
//! BMC. Times of the BMC are the simulator's own, those of the consumer `mosquitto_sub`'s: all by the machine's one clock.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::machine::Machine;
use super::sample::Spread;
use crate::bmcsim::{BmcHandle, Simulator};
use crate::eventually::eventually;
use crate::harness::{Site, simulator};
use crate::peers::fence_agent::FenceAgent;
use crate::watched::{PATIENCE, Watched};

/// How long a BMC here takes to switch off, in milliseconds.
const OFF_DELAY: u16 = 1_100;
/// Least time between the first and the last of three Off readings of IPMI.
const CONFIRM: f64 = 4_000.0;
/// The brakes that would hold so many fences at once.
const BRAKES: [&str; 8] = [
    "startup_quiet=0",
    "cap=100",
    "storm_rack=100",
    "storm_cluster=100",
    "storm_zone=100",
    "cliff=0",
    "cool_down=0",
    "somewhere_to_go=no",
];

/// Options of the bench.
#[derive(Debug, Args)]
pub struct Options {
    /// Fences of each kind; an agent switches off no more than six hosts an hour
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=6))]
    rounds: u16,
    /// Also writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// One stretch of time, of all rounds, in milliseconds.
#[derive(Debug, Serialize)]
struct Figure {
    what: &'static str,
    ms: Spread,
    /// What cannot be beaten, in milliseconds, and what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<(f64, &'static str)>,
}

/// Runs the bench and prints its figures.
///
/// # Errors
/// When a daemon does not start, or a host is not fenced.
pub fn run(options: &Options) -> Result<()> {
    // An error only says that there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let (machine, rounds) = (Machine::here(), usize::from(options.rounds));
    let mut stage = Watched::set(Site::start_with("")?, 2 * rounds + 1, 0, &BRAKES);
    for bmc in stage.bmcs() {
        let mut profile = bmc.profile();
        profile.off_delay_ms = u64::from(OFF_DELAY);
        bmc.set_profile(profile);
    }
    let names: Vec<String> = stage.bmcs().iter().map(|bmc| bmc.name().to_owned()).collect();
    let (by_word, lost) = names.split_at(rounds);
    let mut ordered = Vec::new();
    for host in by_word {
        ordered.push(Ordered::measure(&mut stage, host)?);
        eprintln!("{host} fenced by word");
    }
    let mut proven = Vec::new();
    for host in lost.iter().take(rounds) {
        proven.push(Proven::measure(&mut stage, host)?);
        eprintln!("{host} proven off");
    }
    let ipmilan = beside(rounds)?;
    let figures = figures(&ordered, &proven, &ipmilan)?;
    println!("{machine}\n\n{}", table(&figures));
    println!(
        "\nThe readings' distance and the settle time hold the verdict back, on purpose; beyond them it is the distance of the polls."
    );
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&json!({ "machine": machine, "figures": figures }))? + "\n")?;
    }
    Ok(())
}

fn figures(ordered: &[Ordered], proven: &[Proven], ipmilan: &[f64]) -> Result<Vec<Figure>> {
    let of = |what, values: Vec<f64>, limit| -> Result<Figure> {
        Ok(Figure { what, ms: Spread::of(values).context("no round")?, limit })
    };
    let by_word = |what, of_it: fn(&Ordered) -> f64, limit| of(what, ordered.iter().map(of_it).collect(), limit);
    let seen = |what, of_it: fn(&Proven) -> f64, limit| of(what, proven.iter().map(of_it).collect(), limit);
    let off = f64::from(OFF_DELAY);
    Ok(vec![
        by_word("by word: request → off at the BMC", |it| it.request_to_byte, None)?,
        by_word("by word: gates passed → off at the BMC", |it| it.decision_to_byte, None)?,
        by_word("by word: off at the BMC → chassis off", |it| it.byte_to_off, Some((off, "the BMC's own time")))?,
        by_word(
            "by word: off at the BMC → Fenced",
            |it| it.byte_to_fenced,
            Some((off + CONFIRM, "BMC + three readings 2 s apart")),
        )?,
        by_word("by word: Fenced → Down at a consumer", |it| it.fenced_to_told, None)?,
        of("fence_ipmilan -o off, the whole of it", ipmilan.to_vec(), Some((off, "the BMC's own time")))?,
        seen("off at the chassis → first Off reading", |it| it.lost_to_read, Some((10_000.0, "the poll's distance, at most")))?,
        seen("first Off reading → last", |it| it.first_to_last, Some((30_000.0, "settle")))?,
        seen("last Off reading → Fenced", |it| it.last_to_fenced, None)?,
        seen("Fenced → Down at a consumer", |it| it.fenced_to_told, None)?,
        seen("off at the chassis → Down at a consumer", |it| it.lost_to_told, Some((60_000.0, "promised")))?,
    ])
}

fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(["WHAT", "MEDIAN", "LEAST", "MOST", "MEDIAN : LIMIT", "LIMIT"]);
    for Figure { what, ms, limit } in figures {
        let shown = |ms: f64| format!("{ms:.1} ms");
        let (ratio, limit) = limit.map_or_else(Default::default, |(limit, what)| {
            (format!("{:.3}", ms.median / limit), format!("{} ({what})", shown(limit)))
        });
        table.add_row([(*what).to_owned(), shown(ms.median), shown(ms.min), shown(ms.max), ratio, limit]);
    }
    table
}

/// Milliseconds from one to the other.
fn between(from: Timestamp, to: Timestamp) -> f64 {
    (to - from).total(jiff::Unit::Millisecond).unwrap_or(f64::NAN)
}

fn time(of: Option<&Value>) -> Result<Timestamp> {
    Ok(of.and_then(Value::as_str).context("no time")?.parse()?)
}

/// The host as it stands once it is Fenced, and when the consumer was told Down.
fn fenced(stage: &Watched, host: &str) -> Result<(Value, Timestamp)> {
    stage.until_ha(host, "fenced", "down");
    let shown = stage.site.api("GET", &format!("/v1/hosts/{host}/ha"), None)?;
    let told = stage.heard[0].wait_for(PATIENCE, |messages| {
        let of_it = messages.iter().filter(|message| message.topic.ends_with(&format!("/{host}")));
        let down = of_it.filter_map(|message| Some((message.json().ok()?, message)));
        down.into_iter().find(|(state, _)| state["host_status"] == "down").map(|(_, message)| message.time()).context("not told")?
    })?;
    Ok((shown, told))
}

/// A host that is on and fenced by word.
struct Ordered {
    request_to_byte: f64,
    decision_to_byte: f64,
    byte_to_off: f64,
    byte_to_fenced: f64,
    fenced_to_told: f64,
}

impl Ordered {
    fn measure(stage: &mut Watched, host: &str) -> Result<Self> {
        stage.until_fit(host);
        let bmc = stage.bmc(host);
        let changes = bmc.changes().len();
        let asked = super::wall();
        stage.site.api("POST", &format!("/v1/hosts/{host}/fence"), Some(&json!({ "reason": "bench" })))?;
        let off = eventually(PATIENCE, || bmc.changes().get(changes).copied().context("not off"))?;
        stage.living.kill(host)?;
        let (shown, told) = fenced(stage, host)?;
        let order = bmc.calls(0).into_iter().find(|call| call.action == "off").context("no off was sent")?;
        let (sent, off) = (micros(order.at_unix_us)?, micros(off.at_unix_us)?);
        let since = time(shown.get("since"))?;
        Ok(Self {
            request_to_byte: between(asked, sent),
            decision_to_byte: between(time(shown.pointer("/judged/at"))?, sent),
            byte_to_off: between(sent, off),
            byte_to_fenced: between(sent, since),
            fenced_to_told: between(since, told),
        })
    }
}

fn micros(unix: u64) -> Result<Timestamp> {
    Ok(Timestamp::from_microsecond(i64::try_from(unix)?)?)
}

/// A host that was switched off at the chassis.
struct Proven {
    lost_to_read: f64,
    first_to_last: f64,
    last_to_fenced: f64,
    fenced_to_told: f64,
    lost_to_told: f64,
}

impl Proven {
    fn measure(stage: &mut Watched, host: &str) -> Result<Self> {
        let lost = super::wall();
        stage.bmc(host).set_power(false);
        stage.living.kill(host)?;
        let (shown, told) = fenced(stage, host)?;
        let readings = shown.pointer("/proof/readings").and_then(Value::as_array).context("no readings")?;
        let (first, last) =
            (time(readings.first().and_then(|it| it.get("at")))?, time(readings.last().and_then(|it| it.get("at")))?);
        let since = time(shown.get("since"))?;
        ensure!(stage.bmc(host).orders("off") == 0, "an off was sent to {host}");
        Ok(Self {
            lost_to_read: between(lost, first),
            first_to_last: between(first, last),
            last_to_fenced: between(last, since),
            fenced_to_told: between(since, told),
            lost_to_told: between(lost, told),
        })
    }
}

/// What `fence_ipmilan` takes for an off, in milliseconds.
fn beside(rounds: usize) -> Result<Vec<f64>> {
    let machines: Simulator = simulator("peer", rounds, 0)?;
    machines.fleet().all().iter().map(off_by_ipmilan).collect()
}

fn off_by_ipmilan(bmc: &BmcHandle) -> Result<f64> {
    let mut profile = bmc.profile();
    profile.off_delay_ms = u64::from(OFF_DELAY);
    bmc.set_profile(profile);
    bmc.set_power(true);
    let address = bmc.ipmi().context("no IPMI")?;
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let login = [("username", "admin"), ("password", "password"), ("lanplus", "1"), ("cipher", "17")];
    let agent = FenceAgent::ipmilan(&[&login[..], &[("ip", &ip), ("ipport", &port)]].concat())?;
    let began = super::now();
    let answer = agent.act("off", "")?;
    let took: Duration = began.elapsed();
    ensure!(answer.code == 0 && !bmc.is_on(), "{answer:?}");
    Ok(took.as_secs_f64() * 1000.0)
}
