//! `powermand` with its own simulated power controllers (`vpcd`) behind it, and its client.

use super::process::{Process, run};
use super::program;
use crate::ports;
use anyhow::{Context, Result, ensure};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(10);

/// How Debian's package describes `vpcd`.
const DEVICE: &str = "/etc/powerman/vpc.dev";

/// Plugs of one `vpcd`.
pub const PLUGS: usize = 16;

/// A running `powermand`.
#[derive(Debug)]
pub struct Powerman {
    _process: Process,
    _folder: TempDir,
    address: SocketAddr,
}

impl Powerman {
    /// Nodes on the plugs of one controller, at most [`PLUGS`]; all are off.
    ///
    /// # Errors
    /// When it is not installed or does not listen.
    pub fn start(nodes: &[&str]) -> Result<Self> {
        ensure!((1..=PLUGS).contains(&nodes.len()), "{} nodes for {PLUGS} plugs", nodes.len());
        ensure!(Path::new(DEVICE).exists(), "{DEVICE} is missing: run tests/install");
        let folder = TempDir::new()?;
        let address = ports::tcp()?;
        let vpcd = program("vpcd")?;
        let text = format!(
            "include \"{DEVICE}\"\nlisten \"{address}\"\ndevice \"v\" \"vpc\" \"{} |&\"\nnode \"{}\" \"v\" \"[0-{}]\"\n",
            vpcd.display(),
            nodes.join(","),
            nodes.len() - 1,
        );
        let config = folder.path().join("powerman.conf");
        std::fs::write(&config, text)?;
        let mut command = Command::new(program("powermand")?);
        command.args(["--foreground", "--conf"]).arg(&config);
        let mut process = Process::start(&command, &folder.path().join("log"))?;
        process.ready(START, || TcpStream::connect(address).context("powermand does not listen"))?;
        Ok(Self { _process: process, _folder: folder, address })
    }

    /// What `pm` prints, and its exit code.
    ///
    /// # Errors
    /// When it does not start.
    pub fn pm(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let mut command = Command::new(program("powerman")?);
        command.arg("-h").arg(self.address.to_string()).args(arguments);
        let output = run(&command, "")?;
        Ok((output.status.code().unwrap_or(-1), String::from_utf8(output.stdout)?))
    }
}
