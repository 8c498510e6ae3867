//! One `picket-agent` with its own state folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::program;
use crate::peers::process::{Process, run};

/// What stands in every agent's own file.
const USUAL: &str = "allowed_bmc_networks = [\"127.0.0.0/8\"]\nlog = \"info,picket_agent=debug\"\n";

/// An agent; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    name: String,
    folder: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// Joins with `token`, the line that `picketctl agents token` printed, and starts.
    pub(super) fn join(name: &str, folder: &Path, token: &str, settings: &str) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("agent.toml"), format!("{USUAL}{settings}"))?;
        let mut agent = Self { name: name.to_owned(), folder: folder.to_owned(), process: None };
        let output = run(agent.command()?.arg("join").arg(token), "")?;
        ensure!(output.status.success(), "join: {}", String::from_utf8_lossy(&output.stderr));
        agent.start()?;
        Ok(agent)
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(program("picket-agent")?);
        command.arg("--config").arg(self.folder.join("agent.toml")).arg("--state-dir").arg(self.folder.join("state"));
        Ok(command)
    }

    /// Starts it, or starts it again.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.command()?;
        command.arg("run");
        self.process = Some(Process::start(&command, &self.log_file())?);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.terminate(Duration::from_secs(20))?;
        }
        Ok(())
    }

    /// Sends a signal, STOP and CONT among them.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), |process| process.signal(signal))
    }

    /// Writes its own file anew, as it was when it joined but with these settings, and has it read again.
    ///
    /// # Errors
    /// When the file cannot be written, or it is not running.
    pub fn reload(&mut self, settings: &str) -> Result<()> {
        std::fs::write(self.folder.join("agent.toml"), format!("{USUAL}{settings}"))?;
        self.signal(Signal::HUP)
    }

    /// Process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Its id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state folder: journal, identity, status.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// All it ever logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.log_file())?)
    }

    /// What it last said of itself.
    ///
    /// # Errors
    /// When it has not said anything yet.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.state_dir().join("status.json"))?)?)
    }
}
