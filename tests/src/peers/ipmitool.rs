//! `ipmitool -I lanplus` as an independent IPMI client.

use super::process::run;
use super::{Power, PowerAction, Suite, User, program};
use anyhow::{Context, Result, bail, ensure};
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use tempfile::NamedTempFile;

/// Whom to ask, as whom, and how. Suite 3 and privilege OPERATOR unless told otherwise.
#[derive(Debug)]
pub struct Ipmitool {
    bmc: SocketAddr,
    user: String,
    password: NamedTempFile,
    suite: Suite,
    privilege: &'static str,
}

impl Ipmitool {
    /// A client of `bmc`, with suite 3.
    ///
    /// # Errors
    /// When the private file for the password cannot be written.
    pub fn new(bmc: SocketAddr, user: &User) -> Result<Self> {
        let mut password = NamedTempFile::new()?;
        password.write_all(user.password.as_bytes())?;
        Ok(Self { bmc, user: user.name.clone(), password, suite: Suite::Three, privilege: "OPERATOR" })
    }

    /// With another cipher suite.
    #[must_use]
    pub fn suite(self, suite: Suite) -> Self {
        Self { suite, ..self }
    }

    /// With privilege ADMINISTRATOR, to change users.
    #[must_use]
    pub fn administrator(self) -> Self {
        Self { privilege: "ADMINISTRATOR", ..self }
    }

    /// The chassis power now.
    ///
    /// # Errors
    /// When there is no answer, or no session for this user.
    pub fn power(&self) -> Result<Power> {
        let said = self.run(&["power", "status"])?;
        let word = said.trim().strip_prefix("Chassis Power is ").with_context(|| format!("ipmitool said {said:?}"))?;
        Power::from_word(word)
    }

    /// Sends one chassis control command.
    ///
    /// # Errors
    /// When there is no answer, or one with another completion code than 00.
    pub fn act(&self, action: PowerAction) -> Result<()> {
        self.run(&["power", action.word()]).map(drop)
    }

    /// Any ipmitool command; gives what it says.
    ///
    /// # Errors
    /// With what ipmitool wrote to standard error, when it did not succeed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program("ipmitool")?);
        command
            .args(["-I", "lanplus", "-N", "1", "-R", "3", "-C", self.suite.number(), "-L", self.privilege])
            .args(["-H", &self.bmc.ip().to_string(), "-p", &self.bmc.port().to_string(), "-U", &self.user, "-f"])
            .arg(self.password.path())
            .args(arguments);
        let output = run(&command, "")?;
        if !output.status.success() {
            bail!("ipmitool {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        let said = String::from_utf8(output.stdout)?;
        ensure!(!said.is_empty(), "ipmitool {} said nothing", arguments.join(" "));
        Ok(said)
    }
}
