//! OpenIPMI's `ipmi_sim`: one BMC in C, suite 3 only, with a chassis of ours behind its `chassis_control` program.
//!
//! The chassis is a script and three files: what it was told (each action once, in order), what its power is from when on,
//! and how long a change takes. It goes on while the BMC is stopped, as a real one does.

use super::ipmitool::Ipmitool;
use super::process::Process;
use super::{Power, User, program};
use crate::eventually::eventually;
use crate::ports;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{OpenOptions, Permissions, read_to_string, write};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Up in well under a second; ten for a machine that builds at the same time.
const START: Duration = Duration::from_secs(10);

/// The chassis. Called as `chassis FOLDER get|set WHAT [VALUE]`; must not sleep, for ipmi_sim waits for it.
/// `power` holds lines "from-when-ms value"; the last one that is due counts.
const CHASSIS: &str = r#"#!/bin/bash
folder=$1 verb=$2 what=$3 value=$4
now=$((${EPOCHREALTIME/[.,]/} / 1000))
power=1 last=0
while read -r at to; do
  ((at <= now)) && power=$to
  last=$at
done <"$folder/power"
later() {
  local from=$((last > now ? last : now))
  echo "$((from + $(<"$folder/delay"))) $1" >>"$folder/power"
}
[ "$verb" != set ] || echo "$what $value" >>"$folder/actions"
case "$verb $what" in
  "get power") echo "power:$power" ;;
  "get boot") echo "boot:$(<"$folder/boot")" ;;
  "set boot") echo "$value" >"$folder/boot" ;;
  "set power") later "$value" ;;
  "set shutdown") later 0 ;;
esac
"#;

const EMULATOR: &str = "mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
";

/// A running (or stopped) `ipmi_sim`.
#[derive(Debug)]
pub struct IpmiSim {
    process: Option<Process>,
    folder: TempDir,
    address: SocketAddr,
    client: Ipmitool,
}

impl IpmiSim {
    /// Starts a BMC whose chassis is on and changes power at once.
    ///
    /// # Errors
    /// When it is not installed or does not answer an independent client.
    pub fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let address = ports::udp()?;
        lay_out(folder.path(), address)?;
        let mut bmc = Self { process: None, client: Ipmitool::new(address, &Self::operator())?, folder, address };
        bmc.restart()?;
        Ok(bmc)
    }

    /// Where it listens (UDP).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A user with privilege ADMINISTRATOR.
    #[must_use]
    pub fn admin() -> User {
        User::new("admin", "admin-secret")
    }

    /// A user with privilege OPERATOR: enough for power.
    #[must_use]
    pub fn operator() -> User {
        User::new("operator", "oper-secret")
    }

    /// The power as an independent client is told it.
    ///
    /// # Errors
    /// When the BMC does not answer.
    pub fn power(&self) -> Result<Power> {
        self.client.power()
    }

    /// The chassis' own power, BMC running or not.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn chassis_power(&self) -> Result<Power> {
        let now = epoch_ms()?;
        let lines = self.read("power")?;
        let due =
            lines.lines().filter_map(|line| line.split_once(' ')).rfind(|(at, _)| at.parse::<u128>().is_ok_and(|at| at <= now));
        Power::from_word(due.context("the chassis has no power state")?.1)
    }

    /// Changes the chassis' power by hand: nobody's command, at once. Not while a delayed change is under way.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set_power(&self, power: Power) -> Result<()> {
        let value = if power == Power::On { 1 } else { 0 };
        let mut file = OpenOptions::new().append(true).open(self.file("power"))?;
        // One write: the chassis script may read at any time.
        file.write_all(format!("{} {value}\n", epoch_ms()?).as_bytes())?;
        Ok(())
    }

    /// How long a power change takes from now on.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set_delay(&self, delay: Duration) -> Result<()> {
        write(self.file("delay"), format!("{}\n", delay.as_millis())).context("delay of the chassis")
    }

    /// What the BMC told the chassis to do, in order: "power 0", "power 1", "reset 1", "shutdown 1". A cycle is
    /// "power 0", then "power 1".
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn actions(&self) -> Result<Vec<String>> {
        Ok(self.read("actions")?.lines().map(str::to_owned).collect())
    }

    /// Kills the BMC; the chassis stays as it is.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the BMC (again) at the same address, and waits until it answers.
    ///
    /// # Errors
    /// When it is not installed or does not answer an independent client.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let mut command = Command::new(program("ipmi_sim")?);
        command.arg("-n").arg("-c").arg(self.file("lan.conf")).arg("-f").arg(self.file("emulator"));
        command.arg("-s").arg(self.file("state"));
        let mut process = Process::start(&command, &self.file("log"))?;
        process.ready(START, || self.client.power())?;
        self.process = Some(process);
        Ok(())
    }

    /// The running process, to send it signals; none while stopped.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Waits until the chassis has the given power and no change is under way.
    ///
    /// # Errors
    /// When it has not within `timeout`.
    pub fn settled(&self, power: Power, timeout: Duration) -> Result<()> {
        eventually(timeout, || {
            let last = self.read("power")?.lines().last().and_then(|line| line.split_once(' ')?.0.parse().ok()).unwrap_or(0);
            ensure!(last <= epoch_ms()?, "a power change is under way");
            if self.chassis_power()? != power {
                bail!("the chassis is not {power}");
            }
            Ok(())
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Result<String> {
        read_to_string(self.file(name)).with_context(|| format!("{name} of the chassis"))
    }
}

fn lay_out(folder: &Path, address: SocketAddr) -> Result<()> {
    let chassis = folder.join("chassis");
    std::fs::create_dir(folder.join("state"))?;
    write(&chassis, CHASSIS)?;
    std::fs::set_permissions(&chassis, Permissions::from_mode(0o700))?;
    write(folder.join("power"), "0 1\n")?;
    write(folder.join("delay"), "0\n")?;
    write(folder.join("actions"), "")?;
    write(folder.join("boot"), "none\n")?;
    write(folder.join("emulator"), EMULATOR)?;
    write(folder.join("lan.conf"), lan_conf(&format!("{} {}", chassis.display(), folder.display()), address))?;
    Ok(())
}

/// Without `guid` it offers no RMCP+.
fn lan_conf(chassis: &str, address: SocketAddr) -> String {
    let (admin, operator) = (IpmiSim::admin(), IpmiSim::operator());
    format!(
        "name \"bmc\"
set_working_mc 0x20
  startlan 1
    addr {ip} {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control \"{chassis}\"
  user 2 true \"{}\" \"{}\" admin 60
  user 3 true \"{}\" \"{}\" operator 60
",
        admin.name,
        admin.password,
        operator.name,
        operator.password,
        ip = address.ip(),
        port = address.port(),
    )
}

#[expect(clippy::disallowed_methods, reason = "the chassis script reads the same wall clock")]
fn epoch_ms() -> Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())
}
