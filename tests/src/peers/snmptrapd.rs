//! Net-SNMP's `snmptrapd`: takes version 2c of one community, and version 3 of one user with authentication and encryption.

use super::process::Process;
use super::program;
use crate::eventually::eventually;
use crate::ports;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const START: Duration = Duration::from_secs(20);

/// A notification: its values by object identifier, without the type's name and quotes.
pub type Trap = BTreeMap<String, String>;

/// A running `snmptrapd`.
#[derive(Debug)]
pub struct Snmptrapd {
    process: Process,
    folder: TempDir,
    address: SocketAddr,
}

impl Snmptrapd {
    /// The community it takes.
    pub const COMMUNITY: &'static str = "picket-test";
    /// The user it takes, with the pass phrases for SHA-256 and AES.
    pub const USER: (&'static str, &'static str, &'static str) = ("picket", "auth-pass-phrase", "priv-pass-phrase");

    /// Starts one that knows the user for informs, and for traps of the engine `engine_id` (hex).
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(engine_id: &str) -> Result<Self> {
        let (folder, address) = (TempDir::new()?, ports::udp()?);
        let (user, auth, private) = Self::USER;
        let login = format!("{user} SHA-256 {auth} AES {private}");
        let config = format!(
            "authCommunity log {}\ncreateUser {login}\ncreateUser -e 0x{engine_id} {login}\nauthUser log {user} priv\n",
            Self::COMMUNITY
        );
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("snmptrapd.conf"), config)?;
        let mut command = Command::new(program("snmptrapd")?);
        command.args(["-f", "-n", "-X", "-C", "-m", "", "-On", "-F", "TRAP\t%v\tEND\n"]).arg("-c").arg(file("snmptrapd.conf"));
        command.arg("-Lf").arg(file("traps")).arg(format!("udp:{address}"));
        command.env("SNMP_PERSISTENT_DIR", folder.path()).env("SNMPCONFPATH", folder.path());
        let mut process = Process::start(&command, &file("log"))?;
        let traps = file("traps");
        process.ready(START, || {
            let said = std::fs::read_to_string(&traps)?;
            ensure!(said.contains("NET-SNMP version"), "it has not begun: {said}");
            Ok(())
        })?;
        Ok(Self { process, folder, address })
    }

    /// Where it listens (UDP).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Process, to stop and continue it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// All notifications so far, in order.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn traps(&self) -> Result<Vec<Trap>> {
        read(&self.folder.path().join("traps"))
    }

    /// Waits until the notifications so far satisfy `wanted`, and gives what it makes of them.
    ///
    /// # Errors
    /// The last error of `wanted`.
    pub fn wait_for<T>(&self, timeout: Duration, mut wanted: impl FnMut(&[Trap]) -> Result<T>) -> Result<T> {
        eventually(timeout, || wanted(&self.traps()?))
    }
}

fn read(log: &Path) -> Result<Vec<Trap>> {
    let text = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
    // What is not text is in hex, in lines of its own. The last one may be half written.
    let records = text.split("TRAP\t").skip(1).filter_map(|record| record.trim_end().strip_suffix("END"));
    records.map(|record| trap(&record.replace('\n', ""))).collect()
}

/// `.1.3… = STRING: "text"`, separated by tabs.
fn trap(line: &str) -> Result<Trap> {
    let value = |bound: &str| {
        let (oid, value) = bound.split_once(" = ").with_context(|| format!("no value: {bound:?}"))?;
        let value = value.split_once(": ").map_or(value, |(_, value)| value);
        Ok((oid.trim_start_matches('.').to_owned(), value.trim_matches('"').to_owned()))
    };
    line.split('\t').filter(|bound| !bound.is_empty()).map(value).collect()
}
