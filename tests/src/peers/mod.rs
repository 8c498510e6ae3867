//! Programs that are not ours: BMC software to speak to, and clients that judge what Picket says.
//!
//! `tests/install` brings them. A missing one is an error, never a skipped test. Everything listens on loopback only.

pub mod certificate;
pub mod curl;
pub mod fence_agent;
pub mod ipmi_sim;
pub mod ipmipower;
pub mod ipmisim;
pub mod ipmitool;
pub mod mosquitto;
pub mod mosquitto_pub;
pub mod mosquitto_sub;
pub mod nodeset;
pub mod power_api;
pub mod powerman;
pub mod process;
pub mod smtp;
pub mod snmptrapd;
pub mod sushy;

use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::{Path, PathBuf};

/// What a chassis is, as an independent client or the program itself tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Powered on.
    On,
    /// Powered off.
    Off,
}

impl Power {
    fn from_word(word: &str) -> Result<Self> {
        match word.trim().to_ascii_lowercase().as_str() {
            "on" | "1" => Ok(Self::On),
            "off" | "0" => Ok(Self::Off),
            other => bail!("neither on nor off: {other:?}"),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The orders behind what a chassis did: an on or off that was asked again because its answer was late is one order. Nothing
/// else may be asked again.
#[must_use]
pub fn orders(mut actions: Vec<String>) -> Vec<String> {
    let may_repeat = ["power 0", "power 1", "power_off", "power_on"];
    actions.dedup_by(|again, before| again == before && may_repeat.contains(&again.as_str()));
    actions
}

/// What a client can ask of a chassis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerAction {
    /// Power on.
    On,
    /// Power off at once.
    Off,
    /// Off, then on.
    Cycle,
    /// Hard reset.
    Reset,
    /// Ask the operating system to shut down.
    Soft,
}

impl PowerAction {
    fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Cycle => "cycle",
            Self::Reset => "reset",
            Self::Soft => "soft",
        }
    }
}

impl From<Power> for PowerAction {
    fn from(power: Power) -> Self {
        match power {
            Power::On => Self::On,
            Power::Off => Self::Off,
        }
    }
}

/// The RMCP+ cipher suites a client may be told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
    /// HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

impl Suite {
    fn number(self) -> &'static str {
        match self {
            Self::Three => "3",
            Self::Seventeen => "17",
        }
    }
}

/// A user of a BMC, as the program is configured with.
#[derive(Clone, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

impl User {
    /// A user from its two words.
    #[must_use]
    pub fn new(name: &str, password: &str) -> Self {
        Self { name: name.to_owned(), password: password.to_owned() }
    }
}

/// A program of the machine, looked for where Debian puts it even when `PATH` lacks sbin.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not installed: run tests/install"))
}

/// A program of one of the Python environments under `PICKET_CACHE`, or `target/peers` without it.
fn python_program(environment: &str, name: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("PICKET_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers"), PathBuf::from);
    let file = cache.join(environment).join("bin").join(name);
    if !file.is_file() {
        bail!("{} is not there: run tests/install", file.display());
    }
    Ok(file)
}
