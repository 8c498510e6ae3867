//! CloudStack's `ipmisim`: one BMC in Python, suite 3 only, sloppy in its own ways, good for one client at a time.
//!
//! So the truth about it is asked behind its back, on a socket of the small program that runs it on loopback.

use super::process::Process;
use super::{Power, User, python_program};
use crate::ports;
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Python's start and its libraries' loading, with room for a machine that builds at the same time.
const START: Duration = Duration::from_secs(20);

/// Runs the server that `ipmisim` itself would run on 0.0.0.0, writes down what the BMC does, and answers on a socket:
/// an empty line asks the power, "on" and "off" set it.
const PROGRAM: &str = r#"
import socketserver, sys, threading
from ipmisim import ipmisim as sim

address, port, power, actions, control = sys.argv[1:]
bmc = sim.IpmiServerContext().bmc
bmc.powerstate = power

def noted(name, act):
    def call():
        with open(actions, 'a') as file:
            file.write(name + '\n')
        return act()
    return call

for name in ('power_on', 'power_off', 'power_cycle', 'power_reset', 'power_shutdown'):
    setattr(bmc, name, noted(name, getattr(bmc, name)))

class Control(socketserver.StreamRequestHandler):
    def handle(self):
        word = self.rfile.readline().decode().strip()
        if word:
            bmc.powerstate = word
        self.wfile.write(bmc.powerstate.encode())

server = sim.ThreadedIpmiServer((address, int(port)), sim.IpmiServer)
server.daemon_threads = True
threading.Thread(target=socketserver.UnixStreamServer(control, Control).serve_forever, daemon=True).start()
server.serve_forever()
"#;

/// A running (or stopped) `ipmisim`.
#[derive(Debug)]
pub struct Ipmisim {
    process: Option<Process>,
    folder: TempDir,
    address: SocketAddr,
    power: Power,
}

impl Ipmisim {
    /// Starts a BMC whose chassis is on.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        std::fs::write(folder.path().join("actions"), "")?;
        let mut bmc = Self { process: None, folder, address: ports::udp()?, power: Power::On };
        bmc.restart()?;
        Ok(bmc)
    }

    /// Where it listens (UDP).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its user with privilege ADMINISTRATOR; the program's own, not configurable.
    #[must_use]
    pub fn admin() -> User {
        User::new("admin", "password")
    }

    /// Its user with privilege OPERATOR.
    #[must_use]
    pub fn operator() -> User {
        User::new("operator", "oppassword")
    }

    /// The power as the program itself knows it, without being a second client.
    ///
    /// # Errors
    /// When it does not run.
    pub fn power(&self) -> Result<Power> {
        self.control("")
    }

    /// Changes the power by hand: nobody's command, at once.
    ///
    /// # Errors
    /// When it does not run.
    pub fn set_power(&mut self, power: Power) -> Result<()> {
        self.control(power.word()).map(drop)
    }

    /// What the BMC did, in order: `power_on`, `power_off`, `power_cycle`, `power_reset`, `power_shutdown`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn actions(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(self.file("actions")).context("actions of ipmisim")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Kills the BMC. Its chassis' power is remembered for the next start.
    pub fn stop(&mut self) {
        if let Ok(power) = self.power() {
            self.power = power;
        }
        self.process = None;
    }

    /// Starts the BMC (again) at the same address with the power it had, and waits until it is up.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        std::fs::remove_file(self.file("control")).ok();
        let mut command = Command::new(python_program("ipmisim", "python")?);
        command.args(["-c", PROGRAM, &self.address.ip().to_string(), &self.address.port().to_string(), self.power.word()]);
        command.arg(self.file("actions")).arg(self.file("control"));
        let mut process = Process::start(&command, &self.file("log"))?;
        // The UDP socket is bound before this one answers.
        process.ready(START, || self.power())?;
        self.process = Some(process);
        Ok(())
    }

    /// The running process, to send it signals; none while stopped.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    fn control(&self, word: &str) -> Result<Power> {
        let mut stream = UnixStream::connect(self.file("control")).context("ipmisim does not run")?;
        stream.set_read_timeout(Some(START))?;
        stream.write_all(format!("{word}\n").as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Power::from_word(&answer)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
