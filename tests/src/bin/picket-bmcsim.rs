//! `picket-bmcsim`: many simulated BMCs in one process, for tests, demos, benches and rehearsals. See `--help`.

use std::io::{IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use picket_tests::bmcsim::{Config, Initial, Privilege, Profile, Scenario, Simulator};
use serde_json::{Value, json};

const EXAMPLES: &str = "\
The first line on stdout is JSON and tells where the control API is:
  {\"bmcs\":96,\"control\":\"http://127.0.0.1:40123\"}

Examples:
  Forty-eight hosts, half IPMI, half Redfish, on 127.20.0.1 and the next addresses:
    picket-bmcsim --ipmi 24 --redfish 24
  The same on one address, one port each:
    picket-bmcsim --ipmi 24 --redfish 24 --address 127.0.0.1 --port-per-bmc
  Ask them:
    ipmitool -I lanplus -C 17 -H 127.20.0.1 -p 6230 -U admin -f pw chassis power status
    curl -sk -u admin:password https://127.20.0.25:4430/redfish/v1/Systems/1
  See, flip and break them (C is the control address):
    curl $C/bmcs/bmc-0001
    curl $C/bmcs/bmc-0001/power -d '{\"toggle\":true}'
    curl $C/bmcs/power -d '{\"select\":\"bmc-00*\",\"state\":\"off\",\"stagger_ms\":10}'
    curl -X PUT $C/bmcs/bmc-0001/faults -d '{\"unplug\":\"silent\"}'
    curl -X PUT $C/bmcs/all/faults -d '{\"refuse\":[{\"on\":\"chassis-control\",\"code\":\"0xD5\",\"times\":1}]}'
    curl -X DELETE $C/faults
    curl $C/bmcs/bmc-0001/calls
  BMCs like Dell's, which refuse off when off:
    picket-bmcsim --ipmi 8 --profile '{\"off_when_off\":213,\"redfish_already\":409}'";

/// Simulated BMCs: IPMI 2.0 (cipher suites 3 and 17) and Redfish over TLS, with faults and a record of every call.
#[derive(Debug, Parser)]
#[command(name = "picket-bmcsim", version, after_help = EXAMPLES)]
struct Arguments {
    /// BMCs that speak IPMI alone.
    #[arg(long, default_value_t = 0)]
    ipmi: usize,
    /// BMCs that speak Redfish alone.
    #[arg(long, default_value_t = 0)]
    redfish: usize,
    /// BMCs that speak both, for one chassis.
    #[arg(long, default_value_t = 0)]
    dual: usize,
    /// Address of the first; the next follow (never .0 or .255).
    #[arg(long, default_value_t = Ipv4Addr::new(127, 20, 0, 1))]
    address: Ipv4Addr,
    /// UDP port of IPMI (623 needs privileges); 0 takes free ones.
    #[arg(long, default_value_t = 6230)]
    ipmi_port: u16,
    /// TCP port of Redfish; 0 takes free ones.
    #[arg(long, default_value_t = 4430)]
    redfish_port: u16,
    /// All on one address, with consecutive ports instead of addresses.
    #[arg(long)]
    port_per_bmc: bool,
    /// Names are this and a number: bmc-0001.
    #[arg(long, default_value = "bmc")]
    name_prefix: String,
    /// Login name of the administrator.
    #[arg(long, default_value = "admin")]
    user: String,
    /// File with the password (its first line); "password" without.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// One more user, NAME:PRIVILEGE (user, operator, administrator), with the same password; may be repeated.
    #[arg(long, value_name = "NAME:PRIVILEGE", value_parser = named_privilege)]
    add_user: Vec<(String, Privilege)>,
    /// From "power up" to On, ms.
    #[arg(long, default_value_t = 500)]
    on_delay_ms: u64,
    /// From "power down" to Off, ms.
    #[arg(long, default_value_t = 500)]
    off_delay_ms: u64,
    /// From a soft shutdown's order to Off, ms; six times off without.
    #[arg(long)]
    soft_delay_ms: Option<u64>,
    /// Refused logins before a user is locked; 0: never.
    #[arg(long, default_value_t = 0)]
    lockout_after: u32,
    /// More of the BMCs' character, as JSON (see GET /bmcs/NAME/profile for the keys).
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    profile: Option<Value>,
    /// Which hosts are on at the start.
    #[arg(long, value_enum, default_value_t = Start::On)]
    initial: Start,
    /// Where the control API listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// No control API.
    #[arg(long, conflicts_with = "control")]
    no_control: bool,
    /// Certificates from one CA of the simulator (GET /ca.pem) instead of self-signed ones.
    #[arg(long)]
    ca: bool,
    /// Faults and power changes by the clock, from a TOML or JSON file.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Prints all BMCs as JSON, one a line, after the first line.
    #[arg(long)]
    print_inventory: bool,
    /// Threads for IPMI.
    #[arg(long, default_value_t = 1)]
    ipmi_threads: usize,
    /// Threads for Redfish and control.
    #[arg(long, default_value_t = 1)]
    web_threads: usize,
    /// Seed of GUIDs and of what faults do by chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Start {
    On,
    Off,
    Alternate,
}

fn named_privilege(text: &str) -> Result<(String, Privilege), String> {
    let (name, privilege) = text.split_once(':').ok_or("not NAME:PRIVILEGE")?;
    let privilege = match privilege {
        "user" => Privilege::User,
        "operator" => Privilege::Operator,
        "administrator" => Privilege::Administrator,
        other => return Err(format!("{other:?} is not user, operator or administrator")),
    };
    Ok((name.into(), privilege))
}

fn json_value(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

impl Arguments {
    fn config(&self) -> anyhow::Result<Config> {
        let password = match &self.password_file {
            None => "password".to_owned(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
        };
        let profile = Profile {
            on_delay_ms: self.on_delay_ms,
            off_delay_ms: self.off_delay_ms,
            soft_delay_ms: self.soft_delay_ms.unwrap_or_else(|| self.off_delay_ms.saturating_mul(6)),
            lockout_after: self.lockout_after,
            ..Profile::default()
        };
        let profile = match &self.profile {
            Some(patch) => profile.patched(patch).context("--profile")?,
            None => profile,
        };
        let first = (self.user.clone(), password.clone(), Privilege::Administrator);
        let more = self.add_user.iter().map(|(name, privilege)| (name.clone(), password.clone(), *privilege));
        Ok(Config {
            ipmi: self.ipmi,
            redfish: self.redfish,
            dual: self.dual,
            address: self.address,
            ipmi_port: self.ipmi_port,
            redfish_port: self.redfish_port,
            port_per_bmc: self.port_per_bmc,
            name_prefix: self.name_prefix.clone(),
            users: std::iter::once(first).chain(more).collect(),
            profile,
            initial: match self.initial {
                Start::On => Initial::On,
                Start::Off => Initial::Off,
                Start::Alternate => Initial::Alternate,
            },
            control: (!self.no_control).then_some(self.control),
            ipmi_threads: self.ipmi_threads,
            web_threads: self.web_threads,
            authority: self.ca,
            seed: self.seed,
        })
    }
}

fn main() -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("a TLS provider was installed already");
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    let arguments = Arguments::parse();
    let config = arguments.config()?;
    anyhow::ensure!(config.count() > 0, "no BMC asked for: give --ipmi N, --redfish N or --dual N");
    let scenario = arguments.scenario.as_deref().map(Scenario::load).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let simulator = Simulator::start_with(config, scenario)?;
    announce(&simulator, arguments.print_inventory)?;
    runtime.block_on(until_told_to_stop())?;
    drop(simulator);
    Ok(())
}

fn announce(simulator: &Simulator, inventory: bool) -> std::io::Result<()> {
    let control = simulator.control().map(|address| format!("http://{address}"));
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({"control": control, "bmcs": simulator.fleet().all().len()}))?;
    if inventory {
        for bmc in simulator.fleet().all() {
            let truth = bmc.truth();
            writeln!(out, "{}", json!({"name": truth.name, "ipmi": truth.ipmi, "redfish": truth.redfish, "uuid": truth.uuid}))?;
        }
    }
    out.flush()
}

async fn until_told_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}
