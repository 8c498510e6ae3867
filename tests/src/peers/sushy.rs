//! sushy-tools' `sushy-emulator` with its fake driver: Redfish over TLS 1.2 with basic authentication and no session service.
//!
//! A power change shows 1 to 11 s after it was accepted; the power of a stopped emulator stands still.

use super::certificate::{Identity, self_signed};
use super::curl::Curl;
use super::process::{Process, run};
use super::{Power, PowerAction, User, python_program};
use crate::ports;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Python's start and its libraries' loading, with room for a machine that builds at the same time.
const START: Duration = Duration::from_secs(30);

/// It checks the password on every request: the fewest rounds bcrypt has.
const HASH: &str = "import bcrypt, sys; print(bcrypt.hashpw(sys.stdin.buffer.read(), bcrypt.gensalt(4)).decode())";

/// A running (or stopped) `sushy-emulator`.
#[derive(Debug)]
pub struct Sushy {
    process: Option<Process>,
    folder: TempDir,
    address: SocketAddr,
    identity: Identity,
    systems: Vec<String>,
    client: Curl,
}

impl Sushy {
    /// Starts an emulator with one system, which is on.
    ///
    /// # Errors
    /// When it is not installed or does not answer an independent client.
    pub fn start() -> Result<Self> {
        Self::start_with(1)
    }

    /// Starts an emulator with so many systems, all of them on.
    ///
    /// # Errors
    /// When it is not installed or does not answer an independent client.
    pub fn start_with(systems: usize) -> Result<Self> {
        let folder = TempDir::new()?;
        let address = ports::tcp()?;
        let identity = self_signed(folder.path(), "bmc", address.ip())?;
        let systems: Vec<String> = (1..=systems).map(|number| format!("5f6f3a2c-0000-4000-8000-{number:012}")).collect();
        std::fs::write(folder.path().join("htpasswd"), htpasswd(&Self::admin())?)?;
        std::fs::write(folder.path().join("emulator.conf"), config(folder.path(), address, &identity, &systems))?;
        let client = Curl::new(address, &identity.certificate, &Self::admin());
        let mut emulator = Self { process: None, folder, address, identity, systems, client };
        emulator.restart()?;
        Ok(emulator)
    }

    /// Where it listens (TCP, TLS).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its self-signed certificate, a PEM file to trust or to pin.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.identity.certificate
    }

    /// The UUIDs of its systems; each system's path is `/redfish/v1/Systems/{uuid}`.
    #[must_use]
    pub fn systems(&self) -> &[String] {
        &self.systems
    }

    /// Its user.
    #[must_use]
    pub fn admin() -> User {
        User::new("admin", "admin-secret")
    }

    /// An independent client of it, as its user.
    #[must_use]
    pub fn curl(&self) -> &Curl {
        &self.client
    }

    /// The first system's power as an independent client is told it.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub fn power(&self) -> Result<Power> {
        self.client.power(self.first()?)
    }

    /// Asks for a power change of the first system by an independent client. It shows within about 12 s.
    ///
    /// # Errors
    /// When the emulator does not accept.
    pub fn set_power(&self, power: Power) -> Result<()> {
        self.client.act(self.first()?, PowerAction::from(power))
    }

    /// Kills the emulator.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the emulator (again) at the same address with the power states it had, and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed or does not answer an independent client.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let mut command = Command::new(python_program("sushy", "sushy-emulator")?);
        command.arg("--config").arg(self.file("emulator.conf"));
        let mut process = Process::start(&command, &self.file("log"))?;
        process.ready(START, || self.power())?;
        self.process = Some(process);
        Ok(())
    }

    /// The running process, to send it signals; none while stopped.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    fn first(&self) -> Result<&str> {
        self.systems.first().map(String::as_str).context("an emulator without systems")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn htpasswd(user: &User) -> Result<String> {
    let mut command = Command::new(python_program("sushy", "python")?);
    command.args(["-c", HASH]);
    let output = run(&command, &user.password)?;
    ensure!(output.status.success(), "bcrypt: {}", String::from_utf8_lossy(&output.stderr));
    Ok(format!("{}:{}", user.name, String::from_utf8(output.stdout)?))
}

/// A Python file; JSON strings and lists are Python's too.
fn config(folder: &Path, address: SocketAddr, identity: &Identity, systems: &[String]) -> String {
    let systems: Vec<_> = systems
        .iter()
        .enumerate()
        .map(|(at, uuid)| json!({ "uuid": uuid, "name": format!("system{at}"), "power_state": "On", "nics": [] }))
        .collect();
    [
        ("FAKE_DRIVER", json!(1)),
        ("LISTEN_IP", json!(address.ip().to_string())),
        ("LISTEN_PORT", json!(address.port())),
        ("SSL_CERT", json!(identity.certificate)),
        ("SSL_KEY", json!(identity.key)),
        ("AUTH_FILE", json!(folder.join("htpasswd"))),
        ("STATE_DIR", json!(folder.join("state"))),
        ("FAKE_SYSTEMS", json!(systems)),
    ]
    .map(|(key, value)| format!("SUSHY_EMULATOR_{key} = {value}\n"))
    .concat()
}
