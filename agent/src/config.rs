//! The agent's own file: what the centre may not decide. Everything has a working default.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use picket_common::config::{ConfigError, parse};
use picket_common::id::HostId;
use serde::Deserialize;

use crate::check::{self, Reference};
use crate::driver::address::AllowedNetworks;
use crate::driver::process::{self, LEAST_PROCESSES, MOST_PROCESSES};
use crate::driver::{exec, ipmitool};
use crate::witness;

/// Where the file is unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/picket/agent.toml";
/// Where state is unless `--state-dir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/picket-agent";

/// `agent.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,picket_agent::uplink=debug`.
    pub log: String,
    /// Networks BMCs may be in; when given, only these. Absent: any but loopback, link-local, multicast and our own addresses.
    pub allowed_bmc_networks: Vec<IpNet>,
    /// Most polls in flight at once (16 – 65536).
    pub max_in_flight: MaxInFlight,
    /// The host this agent runs on, if it guards itself through `/dev/ipmi0` (driver `ipmi`, option `interface = "open"`).
    pub local_bmc_host: Option<HostId>,
    /// CA bundle (PEM) for BMCs whose option `tls` is `ca`.
    pub bmc_ca: Option<PathBuf>,
    /// Most programs that drivers `ipmitool` and `exec` run at once (4 – 1024).
    pub max_processes: MaxProcesses,
    /// Driver `ipmitool`.
    pub ipmitool: ipmitool::Config,
    /// Templates of driver `exec`, by the name that a host's option `template` gives.
    pub exec: exec::Templates,
    /// Addresses that answer as long as this machine's own network works: `tcp://host:port`, or IP addresses to ping.
    pub reference_addresses: Vec<Reference>,
    /// Programs that tell about a host, by the name that its checks give.
    pub check: check::Programs,
    /// What this host's witness does. Only a witness has this: it runs on the host and guards nothing.
    pub witness: Option<witness::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log: "info".into(),
            allowed_bmc_networks: Vec::new(),
            max_in_flight: MaxInFlight(4096),
            local_bmc_host: None,
            bmc_ca: None,
            max_processes: MaxProcesses(64),
            ipmitool: ipmitool::Config::default(),
            exec: exec::Templates::new(),
            reference_addresses: Vec::new(),
            check: check::Programs::new(),
            witness: None,
        }
    }
}

/// A number within its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct MaxInFlight(pub usize);

impl TryFrom<i64> for MaxInFlight {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        match usize::try_from(value) {
            Ok(count @ 16..=65536) => Ok(Self(count)),
            _ => Err(format!("max_in_flight is {value}; use 16 to 65536")),
        }
    }
}

/// A number within its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct MaxProcesses(pub usize);

impl TryFrom<i64> for MaxProcesses {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        match usize::try_from(value) {
            Ok(count @ LEAST_PROCESSES..=MOST_PROCESSES) => Ok(Self(count)),
            _ => Err(format!("max_processes is {value}; use {LEAST_PROCESSES} to {MOST_PROCESSES}")),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Config {
    /// Reads `file`; without one, the default file if it is there, else the defaults.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(file: Option<&Path>) -> Result<Self, LoadError> {
        let path = file.unwrap_or_else(|| Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(parse(&path.display().to_string(), &text)?),
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(LoadError::Read { path: path.to_owned(), source }),
        }
    }

    /// What is named here and not there: programs that drivers are to run.
    #[must_use]
    pub fn missing_programs(&self) -> Vec<String> {
        let configured = self.ipmitool != ipmitool::Config::default();
        let tool = configured.then_some(("ipmitool.path".to_owned(), &self.ipmitool.path));
        let templates = exec::programs(&self.exec).map(|(name, program)| (format!("exec.{name}"), program));
        let missing = tool.into_iter().chain(templates).filter(|(_, program)| process::find(program).is_none());
        let checks = check::missing(&self.check).map(|(name, program)| (format!("check.{name}"), program));
        missing.chain(checks).map(|(key, program)| format!("{key}: there is no program {}", program.display())).collect()
    }

    /// The rule for BMC addresses.
    #[must_use]
    pub fn allowed(&self) -> AllowedNetworks {
        AllowedNetworks { networks: self.allowed_bmc_networks.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_where_and_what() {
        let check = |text: &str, wanted: &str| {
            let error = parse::<Config>("agent.toml", text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        };
        check("allowed_bmc_network = []", "agent.toml:1: unknown key `allowed_bmc_network`; did you mean `allowed_bmc_networks`?");
        check("log = \"info\"\nmax_in_flight = -1", "agent.toml:2: max_in_flight is -1; use 16 to 65536");
        check("allowed_bmc_networks = [\"10.0.0.0/99\"]", "agent.toml:1:");
        check("max_processes = 3", "agent.toml:1: max_processes is 3; use 4 to 1024");
        check("[ipmitool]\npth = \"x\"", "agent.toml:2: unknown key `pth`; did you mean `path`?");
        check(
            "reference_addresses = [\"gw\"]",
            "agent.toml:1: reference address \"gw\" is neither tcp://HOST:PORT nor an IP address",
        );
        check("[check.a]\nprogram = \"x\"\nargs = [\"{ip}\"]", "there is one placeholder, {host}");
        check("[witness]\nallowed_paths = [\"srv\"]", "agent.toml:2: \"srv\" is not an absolute path without `..`");
        check("[witness]\nheartbeat = { path = \"/x\", interval = 0 }", "agent.toml:2: interval is 0; use 1 to 60 seconds");
        check("[witness]\nallowed_path = []", "agent.toml:2: unknown key `allowed_path`; did you mean `allowed_paths`?");
        check("[check.a]\nprogramme = \"x\"", "agent.toml:2: unknown key `programme`; did you mean `program`?");
        let config: Config = parse("agent.toml", "allowed_bmc_networks = [\"127.0.0.0/8\"]").unwrap();
        assert_eq!(config.max_in_flight, MaxInFlight(4096));
    }

    #[test]
    fn the_packaged_file_shows_the_defaults() {
        let shown: String = include_str!("../../packaging/agent.toml")
            .lines()
            .filter_map(|line| line.strip_prefix("#   ").or_else(|| line.strip_prefix("# ")))
            .filter(|line| {
                line.contains(" = ") || line.starts_with("[exec.") || line.starts_with("[check.") || *line == "[witness]"
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let config = parse::<Config>("agent.toml", &shown).unwrap();
        let defaults = Config {
            bmc_ca: config.bmc_ca.clone(),
            local_bmc_host: config.local_bmc_host.clone(),
            exec: config.exec.clone(),
            check: config.check.clone(),
            witness: config.witness.clone(),
            ..Config::default()
        };
        assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
        assert!(config.bmc_ca.is_some() && config.local_bmc_host.is_some(), "examples of keys without a default");
        assert!(config.exec.len() >= 3 && !config.check.is_empty(), "examples of templates and checks");
        let shown = config.witness.unwrap();
        assert_eq!(shown.listen, witness::Config::default().listen);
        assert_eq!(shown.heartbeat.unwrap().interval, witness::Interval::default());
    }
}
