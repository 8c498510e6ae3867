//! `picket-bmcsim` as a process of its own, so that its CPU time is nobody else's, and its counters.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::cpu::Used;
use crate::harness::program;
use crate::peers::process::Process;

/// First address of the simulated BMCs, away from those of tests and demo.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 40, 0, 1);
/// IPMI's own port, as all clients expect it.
const IPMI_PORT: u16 = 623;
/// Instead of it, for those who may not open low ports.
const HIGH_PORT: u16 = 6623;

/// A simulator; killed when dropped.
#[derive(Debug)]
pub struct Simulator {
    process: Process,
    control: SocketAddr,
    /// Where its BMCs listen, in order.
    pub bmcs: Vec<Bmc>,
}

/// One simulated BMC.
#[derive(Debug, Clone)]
pub struct Bmc {
    /// Name.
    pub name: String,
    /// Where it speaks IPMI.
    pub ipmi: SocketAddr,
}

/// Sums over all BMCs since the start.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Counters {
    /// Power states read.
    pub status_reads: u32,
    /// Logins that succeeded.
    pub logins: u32,
    /// Sessions closed by their owner.
    pub logouts: u32,
}

#[derive(Deserialize)]
struct Announced {
    control: String,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    ipmi: SocketAddr,
}

impl Simulator {
    /// Starts `count` BMCs, all powered on, each on an address of its own.
    pub fn start(count: usize, folder: &Path) -> Result<Self> {
        let mut command = Command::new(program("picket-bmcsim")?);
        command.args(["--ipmi", &count.to_string(), "--address", &FIRST.to_string(), "--ipmi-port", &port().to_string()]);
        command.arg("--print-inventory");
        let mut process = Process::start(&command, &folder.join(format!("bmcsim-{count}.log")))?;
        let log = folder.join(format!("bmcsim-{count}.log"));
        let (control, bmcs) = process.ready(Duration::from_secs(30), || inventory(&std::fs::read_to_string(&log)?, count))?;
        Ok(Self { process, control, bmcs })
    }

    /// Its counters now.
    pub fn counters(&self) -> Result<Counters> {
        let mut stream = TcpStream::connect(self.control)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /stats HTTP/1.1\r\nHost: bmcsim\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer from the simulator")?;
        serde_json::from_str(body).with_context(|| format!("the simulator's counters: {body}"))
    }

    /// CPU time it has used.
    pub fn used(&self) -> Result<Used> {
        Used::of(self.process.id())
    }
}

/// The port that this user may open.
fn port() -> u16 {
    if UdpSocket::bind((FIRST, IPMI_PORT)).is_ok() { IPMI_PORT } else { HIGH_PORT }
}

/// What the simulator printed, once all of it is there.
fn inventory(text: &str, count: usize) -> Result<(SocketAddr, Vec<Bmc>)> {
    let mut lines = text.lines().filter(|line| line.starts_with('{'));
    let first: Announced = serde_json::from_str(lines.next().context("nothing printed yet")?)?;
    let control = first.control.strip_prefix("http://").context("no control address")?.parse()?;
    let bmcs: Vec<Bmc> =
        lines.map(|line| serde_json::from_str(line).map(|Listed { name, ipmi }| Bmc { name, ipmi })).collect::<Result<_, _>>()?;
    ensure!(bmcs.len() == count, "{} of {count} BMCs listed", bmcs.len());
    Ok((control, bmcs))
}
