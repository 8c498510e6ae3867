//! Whole Picket sites for tests, demo and benches: the real daemons over real TLS, each with its own ports and folders.
//!
//! Everything is spoken to as a user would: by `picketctl`, by its raw `api` command, or from outside by MQTT.

mod agent;
mod http;
mod living;
pub mod proxy;
mod rogue;
mod site;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bmcsim::{BmcHandle, Body, Config, Cut, Faults, Initial, Simulator, Step, Unplug};
use crate::ports;

pub use agent::Agent;
pub use http::{Event, EventStream, Http, Reply};
pub use living::Living;
pub use rogue::{Rogue, Speaker};
pub use site::{Answer, Site};

/// Settings of an agent with a program of the site's own, `ipmitool`, for driver `exec`: option `template = "by-hand"`.
pub const BY_HAND: &str = r#"
[exec.by-hand]
program = "ipmitool"
args = ["-v", "-I", "lanplus", "-C", "17", "-L", "OPERATOR", "-N", "1", "-R", "3", "-H", "{host}", "-p", "{port}", "-U", "{username}", "-f", "{password_file}", "power", "{action}"]
actions = { status = "status", start = "on", stop = "off", reboot = "reset" }
reading = { on_output = "Chassis Power is on", off_output = "Chassis Power is off" }
auth = { pattern = "RAKP 2 HMAC is invalid" }
"#;

/// A program of this workspace, beside the running one. `cargo build --workspace --bins` makes them all.
///
/// # Errors
/// When it was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("where this program is")?;
    let folder = here.parent().context("folder of this program")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("target folder")? } else { folder };
    let program = folder.join(name);
    ensure!(program.exists(), "{} is missing: run `cargo build --workspace --bins` first", program.display());
    Ok(program)
}

/// How often each step is tried: 3, or what `PICKET_SOAK` says.
#[must_use]
pub fn runs() -> usize {
    std::env::var("PICKET_SOAK").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3)
}

/// A simulator on an address of this test alone: hosts that speak IPMI, then hosts that speak Redfish.
///
/// # Errors
/// When it does not start.
pub fn simulator(prefix: &str, ipmi: usize, redfish: usize) -> Result<Simulator> {
    let config = Config {
        ipmi,
        redfish,
        address: ports::address()?,
        ipmi_port: 0,
        redfish_port: 0,
        port_per_bmc: true,
        name_prefix: prefix.to_owned(),
        initial: Initial::Alternate,
        ..Config::default()
    };
    Simulator::start(config).context("simulator")
}

/// The simulator's hosts as `hosts import` takes them; each is named as its BMC.
#[must_use]
pub fn hosts(simulator: &Simulator, cluster: &str, rack: &str) -> Vec<Value> {
    simulator.fleet().all().iter().map(|bmc| host(bmc, cluster, rack)).collect()
}

fn host(bmc: &BmcHandle, cluster: &str, rack: &str) -> Value {
    let (driver, address) = match (bmc.ipmi(), bmc.redfish()) {
        (Some(address), _) => ("ipmi", address),
        (None, Some(address)) => ("redfish", address),
        (None, None) => return Value::Null,
    };
    host_body(bmc.name(), cluster, rack, driver, address, ("admin", "password"))
}

/// One host as `hosts import` takes it.
#[must_use]
pub fn host_body(id: &str, cluster: &str, rack: &str, driver: &str, address: SocketAddr, login: (&str, &str)) -> Value {
    let (ip, port) = (address.ip().to_string(), address.port());
    let bmc = json!({ "driver": driver, "address": ip, "port": port, "username": login.0, "password": login.1 });
    json!({ "id": id, "cluster": cluster, "rack": rack, "bmc": bmc })
}

/// Every way to hang, cut off or dawdle that the simulator has, for a BMC that speaks IPMI and one that speaks Redfish.
#[must_use]
pub fn ways_to_hang() -> Vec<Faults> {
    let at = |step| Faults { hang_at: Some(step), ..Faults::default() };
    let cut = |step| Faults { drop_at: Some(step), ..Faults::default() };
    let mut ways: Vec<Faults> = [
        Step::Ping,
        Step::AuthCapabilities,
        Step::CipherSuites,
        Step::OpenSession,
        Step::Rakp1,
        Step::Rakp3,
        Step::SetPrivilege,
        Step::Command,
        Step::Close,
        Step::Tls,
        Step::Login,
    ]
    .map(at)
    .into();
    ways.extend([Cut::Accept, Cut::Tls, Cut::Request, Cut::Answer].map(cut));
    ways.extend([Unplug::Silent, Unplug::Refused].map(|unplug| Faults { unplug: Some(unplug), ..Faults::default() }));
    ways.push(Faults { slow_ms: 30_000, ..Faults::default() });
    ways.push(Faults { garble: 1.0, ..Faults::default() });
    ways.push(Faults { body: Some(Body::Endless), ..Faults::default() });
    ways.push(Faults { sessions_used_up: true, ..Faults::default() });
    ways
}
