//! The peers' ways to read the power of many BMCs: `ipmitool` started for every reading, `ipmipower` for all at once.
//!
//! Both log in with cipher suite 17 as the agent does, and read passwords from files.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::simulator::Bmc;
use crate::peers::program;

/// Where ipmitool looks for enterprise numbers first, below the home folder; then it takes the system's 4.7 MB.
const ENTERPRISE_NUMBERS: &str = ".local/usr/share/misc";
/// The same in short.
const SHORT: &str = "PRIVATE ENTERPRISE NUMBERS\n\n0\n  Reserved\n    IANA\n      iana\n2\n  IBM\n    none\n      none\n";

/// The peers' programs and files.
#[derive(Debug)]
pub struct Peers {
    folder: TempDir,
    ipmitool: PathBuf,
    ipmipower: PathBuf,
}

/// Which enterprise numbers ipmitool reads at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// Those of its package.
    AsShipped,
    /// A file of two entries.
    Short,
}

impl Peers {
    /// Finds the programs, writes their files.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("picket-bench-").tempdir()?;
        let file = |name: &str, text: &str| std::fs::File::create(folder.path().join(name))?.write_all(text.as_bytes());
        file("password", "password")?;
        file("ipmipower.conf", "username admin\npassword password\n")?;
        std::fs::create_dir_all(folder.path().join("shipped"))?;
        std::fs::create_dir_all(folder.path().join("short").join(ENTERPRISE_NUMBERS))?;
        file(&format!("short/{ENTERPRISE_NUMBERS}/enterprise-numbers.txt"), SHORT)?;
        Ok(Self { folder, ipmitool: program("ipmitool")?, ipmipower: program("ipmipower")? })
    }

    /// One reading of one BMC by one ipmitool.
    pub fn ipmitool(&self, bmc: &Bmc, numbers: Numbers) -> Result<()> {
        let home = if numbers == Numbers::Short { "short" } else { "shipped" };
        let mut command = Command::new(&self.ipmitool);
        command
            .env("HOME", self.folder.path().join(home))
            .args(["-I", "lanplus", "-C", "17", "-L", "OPERATOR", "-U", "admin", "-f"])
            .arg(self.folder.path().join("password"))
            .args(["-H", &bmc.ipmi.ip().to_string(), "-p", &bmc.ipmi.port().to_string(), "chassis", "power", "status"]);
        let output = command.output()?;
        ensure!(text(&output).trim() == "Chassis Power is on", "ipmitool at {}: {output:?}", bmc.ipmi);
        Ok(())
    }

    /// One reading of every BMC by one ipmipower.
    pub fn ipmipower(&self, bmcs: &[Bmc]) -> Result<()> {
        let hosts: Vec<String> = bmcs.iter().map(|bmc| bmc.ipmi.to_string()).collect();
        let mut command = Command::new(&self.ipmipower);
        command
            .args(["--driver-type", "LAN_2_0", "--cipher-suite-id", "17", "--privilege-level", "OPERATOR", "--config-file"])
            .arg(self.folder.path().join("ipmipower.conf"))
            .args(["--hostname", &hosts.join(","), "--stat"]);
        let output = command.output()?;
        let on = text(&output).lines().filter(|line| line.ends_with(": on")).count();
        ensure!(on == bmcs.len(), "ipmipower read {on} of {}: {output:?}", bmcs.len());
        Ok(())
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
