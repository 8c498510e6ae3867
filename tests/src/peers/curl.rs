//! `curl` as an independent Redfish client: basic authentication over TLS, JSON in and out.

use super::process::run;
use super::{Power, PowerAction, User, program};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whom to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Curl {
    server: SocketAddr,
    ca_file: Option<PathBuf>,
    user: User,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when it was empty or not JSON.
    pub body: Value,
}

impl Curl {
    /// A client of `server` that trusts the certificates of `ca_file`.
    #[must_use]
    pub fn new(server: SocketAddr, ca_file: &Path, user: &User) -> Self {
        Self { server, ca_file: Some(ca_file.to_owned()), user: user.clone() }
    }

    /// A client of `server` that takes any certificate: for servers that have a throw-away one.
    #[must_use]
    pub fn insecure(server: SocketAddr, user: &User) -> Self {
        Self { server, ca_file: None, user: user.clone() }
    }

    /// The same client, as somebody else.
    #[must_use]
    pub fn with_user(&self, user: &User) -> Self {
        Self { user: user.clone(), ..self.clone() }
    }

    /// GET of a path.
    ///
    /// # Errors
    /// When no HTTP answer came (no connection, certificate not trusted).
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.ask(path, &[])
    }

    /// POST of a JSON body to a path.
    ///
    /// # Errors
    /// When no HTTP answer came.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.ask(path, &["--json", &body.to_string()])
    }

    /// The power state a Redfish system shows.
    ///
    /// # Errors
    /// When it shows none, or the answer is not 200.
    pub fn power(&self, system: &str) -> Result<Power> {
        let answer = self.get(&format!("/redfish/v1/Systems/{system}"))?;
        ensure!(answer.status == 200, "status {}", answer.status);
        Power::from_word(answer.body["PowerState"].as_str().context("no PowerState")?)
    }

    /// Asks a Redfish system for a reset of the type that means `action`.
    ///
    /// # Errors
    /// When the answer is not 2xx, or Redfish has no type for it (cycle).
    pub fn act(&self, system: &str, action: PowerAction) -> Result<()> {
        let reset_type = match action {
            PowerAction::On => "On",
            PowerAction::Off => "ForceOff",
            PowerAction::Reset => "ForceRestart",
            PowerAction::Soft => "GracefulShutdown",
            PowerAction::Cycle => bail!("Redfish cycle is ForceOff, then On"),
        };
        let path = format!("/redfish/v1/Systems/{system}/Actions/ComputerSystem.Reset");
        let answer = self.post(&path, &json!({ "ResetType": reset_type }))?;
        ensure!((200..300).contains(&answer.status), "{reset_type}: status {}: {}", answer.status, answer.body);
        Ok(())
    }

    /// A Redfish system as it shows itself.
    ///
    /// # Errors
    /// When the answer is not 200.
    pub fn system(&self, system: &str) -> Result<Value> {
        let answer = self.get(&format!("/redfish/v1/Systems/{system}"))?;
        ensure!(answer.status == 200, "status {}", answer.status);
        Ok(answer.body)
    }

    fn ask(&self, path: &str, more: &[&str]) -> Result<Answer> {
        let mut command = Command::new(program("curl")?);
        command
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "10", "--config", "-"])
            .args(["--write-out", "\n%{http_code}"])
            .args(more)
            .arg(format!("https://{}{path}", self.server));
        match &self.ca_file {
            Some(file) => command.arg("--cacert").arg(file),
            None => command.arg("--insecure"),
        };
        // By standard input: a password is never on a command line.
        let output = run(&command, &format!("user = \"{}:{}\"\n", self.user.name, self.user.password))?;
        ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr).trim());
        let text = String::from_utf8(output.stdout)?;
        let (body, status) = text.rsplit_once('\n').context("curl wrote no status")?;
        Ok(Answer { status: status.parse()?, body: serde_json::from_str(body).unwrap_or(Value::Null) })
    }
}
