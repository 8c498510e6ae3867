//! FreeIPMI's `ipmipower` as a second independent IPMI client, with an RMCP+ of its own.

use super::process::run;
use super::{Power, PowerAction, Suite, User, program};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use tempfile::NamedTempFile;

/// Whom to ask, as whom, and how. Suite 3 and privilege OPERATOR unless told otherwise.
#[derive(Debug)]
pub struct Ipmipower {
    bmc: SocketAddr,
    config: NamedTempFile,
    suite: Suite,
    workarounds: &'static str,
}

impl Ipmipower {
    /// A client of `bmc`, with suite 3.
    ///
    /// # Errors
    /// When the private file for the password cannot be written.
    pub fn new(bmc: SocketAddr, user: &User) -> Result<Self> {
        let mut config = NamedTempFile::new()?;
        writeln!(config, "username {}\npassword {}", user.name, user.password)?;
        Ok(Self { bmc, config, suite: Suite::Three, workarounds: "none" })
    }

    /// With another cipher suite.
    #[must_use]
    pub fn suite(self, suite: Suite) -> Self {
        Self { suite, ..self }
    }

    /// For BMCs that answer Open Session with another privilege than was asked for, as `ipmi_sim` does.
    #[must_use]
    pub fn open_session_privilege(self) -> Self {
        Self { workarounds: "opensesspriv", ..self }
    }

    /// The chassis power now.
    ///
    /// # Errors
    /// When there is no answer, or no session for this user.
    pub fn power(&self) -> Result<Power> {
        Power::from_word(&self.run("--stat")?)
    }

    /// Sends one chassis control command.
    ///
    /// # Errors
    /// When it was not done.
    pub fn act(&self, action: PowerAction) -> Result<()> {
        let said = self.run(&format!("--{}", action.word()))?;
        ensure!(said == "ok", "ipmipower --{}: {said}", action.word());
        Ok(())
    }

    fn run(&self, argument: &str) -> Result<String> {
        let bmc = self.bmc.to_string();
        let mut command = Command::new(program("ipmipower")?);
        command
            .args(["--driver-type", "LAN_2_0", "--privilege-level", "OPERATOR", "--session-timeout", "5000"])
            .args(["--workaround-flags", self.workarounds])
            .args(["--cipher-suite-id", self.suite.number(), "--hostname", &bmc, "--config-file"])
            .arg(self.config.path())
            .arg(argument);
        let output = run(&command, "")?;
        let said = String::from_utf8(output.stdout)?;
        // One line a host, "host: word"; failures come in the same form.
        let (_, word) = said
            .trim()
            .rsplit_once(": ")
            .with_context(|| format!("ipmipower {argument} said {said:?}, {:?}", String::from_utf8_lossy(&output.stderr).trim()))?;
        Ok(word.to_owned())
    }
}
