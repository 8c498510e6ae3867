//! A BMC's options for `ipmitool`, checked, and the command lines made of them. Never puts a secret on one.

use std::net::SocketAddr;

use picket_common::command::{BootDevice, Persistence};
use picket_common::secret::Secret;

use crate::bmc::{Ask, Bmc};
use crate::driver::failure::Failure;
use crate::ipmi;
use crate::ipmi::suite::Suite;
use crate::ipmi::unusable::Unusable;

/// Seconds that `ipmitool` waits for each answer: a slow BMC's late answer would be taken for the next one's.
const WAIT: &str = "2";
/// Most bytes of a password in IPMI 1.5.
const MAX_LAN_PASSWORD: usize = 16;
/// Most seconds of Chassis Identify (IPMI 2.0 §28.5: one byte).
const MAX_IDENTIFY: u16 = 255;

/// How the BMC is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    /// IPMI 2.0.
    Lanplus,
    /// IPMI 1.5.
    Lan,
    /// `/dev/ipmi0` of the agent's own host.
    Open,
}

impl Interface {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Lanplus => "lanplus",
            Self::Lan => "lan",
            Self::Open => "open",
        }
    }
}

/// A BMC's settings after reading.
pub(super) struct Settings<'a> {
    pub interface: Interface,
    /// Suites in the order they are tried; none but for `lanplus`.
    pub suites: &'static [Suite],
    pub privilege: String,
    pub kg: Option<Secret<Vec<u8>>>,
    retries: String,
    username: &'a str,
    password: &'a Secret<String>,
}

impl<'a> Settings<'a> {
    pub(super) fn read(bmc: &'a Bmc) -> Result<Self, Failure> {
        let option = |name: &str| bmc.options.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        for (name, value) in &bmc.options {
            check_option(name, value.trim())?;
        }
        let interface = match option("interface") {
            Some("lan") => Interface::Lan,
            Some("open") => Interface::Open,
            _ => Interface::Lanplus,
        };
        if interface != Interface::Lanplus
            && let Some(name) = ["cipher_suite", "kg"].into_iter().find(|name| option(name).is_some())
        {
            let text = format!("option `{name}` is for interface=lanplus only");
            return Err(Failure::setting("option-conflict", text));
        }
        // The same limits as in the native driver.
        let kg = option("kg").map(|key| ("kg".to_owned(), key.to_owned()));
        let native = ipmi::Settings::parse(&bmc.username, bmc.password.expose(), &kg.into_iter().collect());
        let native = native.map_err(|wrong| Failure::setting(wrong.code(), wrong.to_string()))?;
        if interface == Interface::Lan && bmc.password.expose().len() > MAX_LAN_PASSWORD {
            let text = format!("the password has more than {MAX_LAN_PASSWORD} bytes, the most that IPMI 1.5 allows");
            return Err(Failure::setting("too-long", text));
        }
        one_line("username", &bmc.username)?;
        one_line("password", bmc.password.expose())?;
        let settings = Self {
            interface,
            suites: match (interface, option("cipher_suite")) {
                (Interface::Lan | Interface::Open, _) => &[],
                (_, Some("17")) => &[Suite::Seventeen],
                (_, Some("3")) => &[Suite::Three],
                _ => &[Suite::Seventeen, Suite::Three],
            },
            privilege: option("privilege").unwrap_or("operator").to_ascii_uppercase(),
            kg: native.bmc_key,
            retries: option("retries").unwrap_or("1").to_owned(),
            username: &bmc.username,
            password: &bmc.password,
        };
        settings.typed_key()?;
        Ok(settings)
    }

    /// The key as `ipmitool` reads it: it takes a key only by its command line, by its environment, or as a line typed in.
    fn typed_key(&self) -> Result<&[u8], Failure> {
        let key = self.kg.as_ref().map_or(&[][..], |key| key.expose().as_slice());
        if key.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r')) {
            let text =
                "ipmitool takes a key with NUL or line breaks on its command line only, where all can read it: use driver ipmi";
            return Err(Failure::setting("bad-kg", text));
        }
        Ok(key)
    }

    /// The arguments up to the command. `password` is the path of a file.
    pub(super) fn remote(&self, at: SocketAddr, password: &str, suite: Option<Suite>, ask: Ask) -> Vec<String> {
        let (ip, port) = (at.ip().to_string(), at.port().to_string());
        // One retry is one transmission. ipmitool numbers a repeated request anew, and a BMC carries out both.
        let retries = if ask.is_idempotent() { self.retries.as_str() } else { "1" };
        let privilege = if ask == Ask::SetPassword { "ADMINISTRATOR" } else { &self.privilege };
        let mut words = vec!["-I", self.interface.word(), "-v", "-H", &ip, "-p", &port, "-N", WAIT, "-R", retries, "-L", privilege];
        if !self.username.is_empty() {
            words.extend(["-U", self.username]);
        }
        // Of an empty file ipmitool makes no empty password; an empty line typed in is one.
        if !self.password.expose().is_empty() {
            words.extend(["-f", password]);
        }
        let suite = suite.map(|suite| suite.number().to_string());
        if let Some(suite) = &suite {
            words.extend(["-C", suite]);
        }
        if self.kg.is_some() {
            words.push("-Y");
        }
        words.into_iter().map(str::to_owned).collect()
    }

    /// The content of the password's file.
    pub(super) fn password_line(&self) -> Secret<Vec<u8>> {
        Secret::new([self.password.expose().as_bytes(), b"\n"].concat())
    }

    /// What is typed in before the command reads anything, in the order in which `ipmitool` asks.
    pub(super) fn typed(&self) -> Secret<Vec<u8>> {
        let mut typed = Vec::with_capacity(64);
        if let (Some(key), Interface::Lanplus) = (&self.kg, self.interface) {
            typed.extend_from_slice(key.expose());
            typed.push(b'\n');
        }
        if self.password.expose().is_empty() && self.interface != Interface::Open {
            typed.push(b'\n');
        }
        Secret::new(typed)
    }
}

fn check_option(name: &str, value: &str) -> Result<(), Failure> {
    let options = super::DESCRIPTOR.options;
    let Some(option) = options.iter().find(|option| option.name == name) else {
        let known: Vec<&str> = super::DESCRIPTOR.option_names().collect();
        return Err(Failure::setting("unknown-option", format!("unknown option {name:?}; ipmitool knows {}", known.join(", "))));
    };
    if value.is_empty() || option.kind.takes(value) {
        return Ok(());
    }
    Err(Failure::setting("bad-option", format!("option `{name}` cannot be `{value}`; it takes {}", option.kind)))
}

fn one_line(what: &str, value: &str) -> Result<(), Failure> {
    if value.chars().any(char::is_control) {
        let text = format!("the {what} has a line break, tab or other control character, at which ipmitool would cut it off");
        return Err(Failure::setting("control-character", text));
    }
    Ok(())
}

/// The words of the command for `ask`; none for what takes more than one command.
pub(super) fn command(ask: Ask) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match ask {
        Ask::Status | Ask::TryLogin => words(&["chassis", "power", "status"]),
        Ask::On => words(&["chassis", "power", "on"]),
        Ask::Off => words(&["chassis", "power", "off"]),
        Ask::Soft => words(&["chassis", "power", "soft"]),
        Ask::Reset => words(&["chassis", "power", "reset"]),
        Ask::Diag => words(&["chassis", "power", "diag"]),
        Ask::Identify { seconds } => words(&["chassis", "identify", &seconds.min(MAX_IDENTIFY).to_string()]),
        Ask::Bootdev { device, persistence } => {
            let device = match device {
                BootDevice::None => "none",
                BootDevice::Pxe => "pxe",
                BootDevice::Disk => "disk",
                BootDevice::Bios => "bios",
            };
            match persistence {
                Persistence::Once => words(&["chassis", "bootdev", device]),
                Persistence::Persistent => words(&["chassis", "bootdev", device, "options=persistent"]),
            }
        }
        Ask::Inspect | Ask::SetPassword => Vec::new(),
    }
}

/// The commands of one session that tell what a BMC is; the file that `ipmitool exec` reads. The third is Get System GUID: in
/// its own words versions of the program differ in the order of the bytes.
pub(super) const INSPECTION: &[u8] = b"chassis power status\nmc info\nraw 0x06 0x37\nchassis status\n";

/// The id of the user of this name in the lines of `ipmitool -c user list`.
pub(super) fn user_id(list: &str, username: &str) -> Result<u8, Unusable> {
    let rows = list.lines().filter_map(|line| {
        let (id, rest) = line.split_once(',')?;
        // Five more columns follow the name, which may itself hold commas.
        let name = rest.rsplitn(5, ',').nth(4)?;
        Some((id.trim().parse::<u8>().ok()?, name))
    });
    let ids: Vec<u8> = rows.filter(|(_, name)| *name == username).map(|(id, _)| id).collect();
    match ids[..] {
        [id] => Ok(id),
        [] => Err(Unusable::NoUser { name: username.to_owned() }),
        _ => Err(Unusable::SeveralUsers { name: username.to_owned(), ids }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bmc(username: &str, password: &str, pairs: &[(&str, &str)]) -> Bmc {
        Bmc {
            host: "h1".parse().unwrap(),
            address: "10.0.0.1".into(),
            port: None,
            username: username.into(),
            password: Secret::new(password.into()),
            options: pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            revision: 1,
        }
    }

    fn line(bmc: &Bmc, ask: Ask) -> String {
        let settings = Settings::read(bmc).map_err(|failure| failure.text).unwrap();
        let suite = settings.suites.first().copied();
        settings.remote("10.0.0.1:623".parse().unwrap(), "/proc/1/fd/9", suite, ask).join(" ")
    }

    #[test]
    fn command_lines() {
        let plain = bmc("admin", "secret", &[]);
        let wanted = "-I lanplus -v -H 10.0.0.1 -p 623 -N 2 -R 1 -L OPERATOR -U admin -f /proc/1/fd/9 -C 17";
        assert_eq!(line(&plain, Ask::Status), wanted);
        let lan = bmc("", "", &[("interface", "lan"), ("retries", "3"), ("privilege", "user")]);
        assert_eq!(line(&lan, Ask::Off), "-I lan -v -H 10.0.0.1 -p 623 -N 2 -R 3 -L USER");
        let keyed = bmc("admin", "secret", &[("kg", "0x6b6579"), ("cipher_suite", "3"), ("retries", "4")]);
        for (ask, retries, level) in [
            (Ask::On, 4, "OPERATOR"),
            (Ask::Reset, 1, "OPERATOR"),
            (Ask::Soft, 1, "OPERATOR"),
            (Ask::SetPassword, 1, "ADMINISTRATOR"),
        ] {
            let wanted = format!("-I lanplus -v -H 10.0.0.1 -p 623 -N 2 -R {retries} -L {level} -U admin -f /proc/1/fd/9 -C 3 -Y");
            assert_eq!(line(&keyed, ask), wanted, "{ask:?}: what must not be done twice is sent once");
        }
        assert_eq!(Settings::read(&keyed).unwrap().typed().expose(), b"key\n");
        assert_eq!(Settings::read(&lan).unwrap().typed().expose(), b"\n", "an empty password is typed");
    }

    #[test]
    fn what_cannot_work_is_told_before_anything_runs() {
        let long = "0123456789abcdefg";
        for (bmc, said) in [
            (bmc("admin", "x", &[("retry", "2")]), "ipmitool knows interface, retries, cipher_suite, privilege, kg"),
            (bmc("admin", "x", &[("interface", "serial")]), "it takes lanplus, lan or open"),
            (bmc("admin", "x", &[("retries", "0")]), "it takes 1 to 10"),
            (bmc("admin", "x", &[("retries", "2 -K")]), "it takes 1 to 10"),
            (bmc("admin", "x", &[("cipher_suite", "0")]), "it takes auto, 17 or 3"),
            (bmc("admin", "x", &[("interface", "lan"), ("cipher_suite", "3")]), "interface=lanplus only"),
            (bmc("admin", "x", &[("kg", "0x00ff")]), "where all can read it"),
            (bmc("admin", "x", &[("kg", "0xzz")]), "not hexadecimal"),
            (bmc(long, "x", &[]), "username has 17 bytes"),
            (bmc("admin", &long.repeat(2), &[]), "password has 34 bytes"),
            (bmc("admin", long, &[("interface", "lan")]), "more than 16 bytes"),
            (bmc("admin", "a\nb", &[]), "control character"),
        ] {
            let failure = Settings::read(&bmc).err().unwrap();
            assert!(failure.text.contains(said), "{}", failure.text);
            assert_eq!(failure.class, crate::bmc::ErrorClass::Setting);
        }
        assert!(Settings::read(&bmc("admin", long, &[])).is_ok());
    }

    #[test]
    fn users_by_exact_name() {
        let list = "1,,true,false,false,NO ACCESS\n2,admin,true,false,true,ADMINISTRATOR\n3,Admin,true,false,true,USER\n4,a,b,true,false,true,USER\n5,twice,true,false,true,USER\n6,twice,true,false,true,USER\n";
        assert_eq!(user_id(list, "admin").unwrap(), 2);
        assert_eq!(user_id(list, "a,b").unwrap(), 4);
        assert_eq!(user_id(list, "nobody").unwrap_err().code(), "no-such-user");
        assert_eq!(user_id(list, "twice").unwrap_err().code(), "several-users");
    }
}
