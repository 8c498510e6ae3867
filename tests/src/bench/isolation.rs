//! `isolation`: what a hundred BMCs that hang at every step cost one healthy BMC. Its status reads are timed from the API's request
//! to the verified answer, with the hundred well, then hanging, then well again; and its polls are
//! counted in a pause between.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;

use super::machine::Machine;
use crate::bmcsim::{BmcHandle, Simulator};
use crate::eventually::eventually;
use crate::harness::{Agent, Site, hosts, simulator, ways_to_hang};

/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two reads, so that they do not queue behind one another.
const PAUSE: Duration = Duration::from_millis(20);

/// How long its polls are counted.
const WINDOW: Duration = Duration::from_secs(20);

/// Options of the bench.
#[derive(Debug, Args)]
pub struct Options {
    /// Status reads in each stretch
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    reads: u32,
    /// Also writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// One stretch of reads.
#[derive(Debug, Serialize)]
struct Stretch {
    neighbours: &'static str,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Polls a second of the healthy BMC while nobody asks; 1 s ± 20 % is about one.
    polls_per_second: f64,
}

/// Runs the bench and prints its figures.
///
/// # Errors
/// When a daemon does not start, or a read does not say what is.
pub fn run(options: &Options) -> Result<()> {
    // An error only says that there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let machine = Machine::here();
    let stage = Stage::set()?;
    let mut stretches = vec![stage.stretch("100 healthy", options.reads)?];
    stage.hang()?;
    stretches.push(stage.stretch("100 hanging", options.reads)?);
    stage.mend()?;
    stretches.push(stage.stretch("100 healthy again", options.reads)?);
    println!("{machine}\n\n{}", table(&stretches));
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&json!({ "machine": machine, "stretches": stretches }))? + "\n")?;
    }
    Ok(())
}

fn table(stretches: &[Stretch]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "NEIGHBOURS",
        "P50",
        "P99",
        "MAX",
        "POLLS/S",
        "P50 : ALONE",
        "P99 : ALONE",
    ]);
    for stretch in stretches {
        let ratio = |of: fn(&Stretch) -> f64| stretches.first().map_or(1.0, |alone| of(stretch) / of(alone));
        table.add_row([
            stretch.neighbours.to_owned(),
            format!("{:.2} ms", stretch.p50_ms),
            format!("{:.2} ms", stretch.p99_ms),
            format!("{:.2} ms", stretch.max_ms),
            format!("{:.2}", stretch.polls_per_second),
            format!("{:.2}", ratio(|stretch| stretch.p50_ms)),
            format!("{:.2}", ratio(|stretch| stretch.p99_ms)),
        ]);
    }
    table
}

struct Stage {
    // Ends before the site whose folder it lives in.
    _agent: Agent,
    site: Site,
    well: Simulator,
    hung: Simulator,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    token: String,
}

impl Stage {
    fn set() -> Result<Self> {
        let (hung, well) = (simulator("hung", 60, 40)?, simulator("well", 1, 0)?);
        let site = Site::start()?;
        site.place("z1", "c1", "r1")?;
        let agent = site.join("r1")?;
        for simulator in [&hung, &well] {
            site.import(&hosts(simulator, "c1", "r1"))?;
        }
        let names: Vec<&str> = hung.fleet().all().iter().chain(well.fleet().all()).map(BmcHandle::name).collect();
        let answer = site.ctl(&[&["oobm", "enable", "host", "--yes"], names.as_slice()].concat())?;
        ensure!(answer.code == 0, "{answer:?}");
        let ca = reqwest::Certificate::from_pem(&std::fs::read(site.ca_file())?)?;
        let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().timeout(Duration::from_secs(30)).build()?;
        let token = std::fs::read_to_string(site.token_file())?.trim().to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stage = Self { _agent: agent, site, well, hung, client, runtime, token };
        stage.until_known()?;
        Ok(stage)
    }

    fn healthy(&self) -> Result<&BmcHandle> {
        self.well.fleet().all().first().context("no healthy BMC")
    }

    /// Waits until next to no host is unknown: a garbled login looks like a refused one, and logins pause after two of those.
    fn until_known(&self) -> Result<()> {
        eventually(PATIENCE, || {
            let hosts = self.site.json(&["summary"])?;
            let unknown = hosts.pointer("/hosts/unknown").and_then(serde_json::Value::as_u64);
            ensure!(unknown.is_some_and(|unknown| unknown <= 5), "{hosts}");
            Ok(())
        })
    }

    /// Makes the hundred hang, and waits until that shows.
    fn hang(&self) -> Result<()> {
        let ways = ways_to_hang();
        for (bmc, way) in self.hung.fleet().all().iter().zip(ways.iter().cycle()) {
            bmc.set_faults(way.clone());
            bmc.forget_sessions();
        }
        eventually(PATIENCE, || {
            let hosts = self.site.json(&["summary"])?;
            let unknown = hosts.pointer("/hosts/unknown").and_then(serde_json::Value::as_u64);
            ensure!(unknown.is_some_and(|unknown| unknown >= 40), "{hosts}");
            Ok(())
        })
    }

    fn mend(&self) -> Result<()> {
        self.hung.fleet().all().iter().for_each(BmcHandle::clear_faults);
        self.until_known()
    }

    fn stretch(&self, neighbours: &'static str, reads: u32) -> Result<Stretch> {
        eprintln!("{reads} reads, {neighbours}");
        let healthy = self.healthy()?;
        let (began, before) = (super::now(), healthy.counters().status_reads);
        std::thread::sleep(WINDOW);
        let polls = u32::try_from(healthy.counters().status_reads - before)?;
        let polls_per_second = f64::from(polls) / began.elapsed().as_secs_f64();
        let mut times: Vec<f64> = (0..reads).map(|_| self.runtime.block_on(self.read(healthy.name()))).collect::<Result<_>>()?;
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied().unwrap_or_default();
        Ok(Stretch { neighbours, p50_ms: at(50), p99_ms: at(99), max_ms: at(100), polls_per_second })
    }

    /// One status read through the whole of Picket, in milliseconds.
    async fn read(&self, host: &str) -> Result<f64> {
        tokio::time::sleep(PAUSE).await;
        let began = super::now();
        let url = format!("{}/v1/hosts/{host}/power", self.site.url());
        let request = self.client.post(url).bearer_auth(&self.token).header("prefer", "wait=20");
        let answer = request.json(&json!({ "operation": "status" })).send().await?.error_for_status()?;
        let operation: serde_json::Value = answer.json().await?;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        let result = operation.pointer("/hosts/0/result");
        ensure!(result.is_some_and(|result| result == "read"), "not read: {operation}");
        Ok(took)
    }
}
