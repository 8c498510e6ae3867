//! What a bench ran on: figures of two machines, or of two builds, are not compared.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// Machine, build and programs.
#[derive(Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    load_before: String,
    build: &'static str,
    ipmitool: String,
    ipmipower: String,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        Self {
            cpu: cpu().unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            load_before: first_line("/proc/loadavg"),
            build: if cfg!(debug_assertions) { "dev (not optimised: compare nothing with these figures)" } else { "release" },
            ipmitool: version("ipmitool", "-V"),
            ipmipower: version("ipmipower", "--version"),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, kernel, load_before, build, ipmitool, ipmipower } = self;
        writeln!(f, "machine  {cores} cores, {cpu}, Linux {kernel}, load before: {load_before}")?;
        writeln!(f, "build    {build}")?;
        write!(f, "peers    {ipmitool}; {ipmipower}")
    }
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(": ")?.1.to_owned())
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or_else(|| "unknown".into())
}

fn version(program: &str, argument: &str) -> String {
    let said = crate::peers::program(program).ok().and_then(|program| Command::new(program).arg(argument).output().ok());
    let line = said.and_then(|said| String::from_utf8_lossy(&said.stdout).lines().next().map(str::to_owned));
    line.unwrap_or_else(|| format!("{program} of unknown version"))
}
