//! The `mosquitto` broker, mutual TLS only, and how its two clients are told where a broker is.

use super::certificate::{Authority, Identity};
use super::process::Process;
use super::program;
use crate::ports;
use anyhow::{Context, Result};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(10);

/// What `mosquitto_sub` and `mosquitto_pub` speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1.
    #[default]
    V311,
    /// MQTT 5.
    V5,
}

/// A broker and who one is to it, for `mosquitto_sub` and `mosquitto_pub`.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Where it listens (TCP, TLS); its certificate must name this IP address.
    pub address: SocketAddr,
    /// The authority it is trusted under, a PEM file.
    pub ca_file: PathBuf,
    /// The client's certificate, if it shall show one.
    pub identity: Option<Identity>,
    /// The client id; mosquitto's clients choose one when it is `None`.
    pub client_id: Option<String>,
    /// What they speak to it.
    pub protocol: Protocol,
}

impl Broker {
    /// A broker at `address`, to be met with a certificate.
    #[must_use]
    pub fn new(address: SocketAddr, ca_file: &Path, identity: &Identity) -> Self {
        Self { address, ca_file: ca_file.to_owned(), identity: Some(identity.clone()), client_id: None, protocol: Protocol::V311 }
    }

    /// The options both clients share. What they say is written at once, line by line: into a file they would
    /// keep it to themselves for a while.
    pub(super) fn client(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(program("stdbuf")?);
        command.arg("-oL").arg(program(name)?);
        let version = match self.protocol {
            Protocol::V311 => "311",
            Protocol::V5 => "5",
        };
        command.args(["-V", version, "-h", &self.address.ip().to_string(), "-p", &self.address.port().to_string()]);
        command.arg("--cafile").arg(&self.ca_file);
        if let Some(identity) = &self.identity {
            command.arg("--cert").arg(&identity.certificate).arg("--key").arg(&identity.key);
        }
        if let Some(client_id) = &self.client_id {
            command.args(["-i", client_id]);
        }
        Ok(command)
    }
}

/// A running (or stopped) `mosquitto` that takes every client of its authority.
#[derive(Debug)]
pub struct Mosquitto {
    process: Option<Process>,
    folder: TempDir,
    address: SocketAddr,
    authority: Authority,
}

impl Mosquitto {
    /// Starts a broker with an authority of its own.
    ///
    /// # Errors
    /// When it is not installed or does not listen.
    pub fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let address = ports::tcp()?;
        let authority = Authority::new(folder.path())?;
        let server = authority.server("broker", address.ip())?;
        std::fs::write(folder.path().join("mosquitto.conf"), config(address, &authority, &server))?;
        let mut broker = Self { process: None, folder, address, authority };
        broker.restart()?;
        Ok(broker)
    }

    /// This broker, for a client called `name`.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn broker(&self, name: &str) -> Result<Broker> {
        Ok(Broker::new(self.address, self.authority.certificate(), &self.authority.client(name)?))
    }

    /// Its authority, to issue more certificates.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Kills the broker.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the broker (again) at the same address, without what it retained, and waits until it listens.
    ///
    /// # Errors
    /// When it is not installed or does not listen.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let mut command = Command::new(program("mosquitto")?);
        command.arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        let mut process = Process::start(&command, &self.folder.path().join("log"))?;
        process.ready(START, || TcpStream::connect(self.address).context("mosquitto does not listen"))?;
        self.process = Some(process);
        Ok(())
    }
}

/// `user root` keeps it what it was started as: as the user mosquitto it could not read the test's folder.
fn config(address: SocketAddr, authority: &Authority, server: &Identity) -> String {
    format!(
        "user root
persistence false
log_dest stderr
listener {port} {ip}
cafile {ca}
certfile {certificate}
keyfile {key}
require_certificate true
use_identity_as_username true
",
        port = address.port(),
        ip = address.ip(),
        ca = authority.certificate().display(),
        certificate = server.certificate.display(),
        key = server.key.display(),
    )
}
