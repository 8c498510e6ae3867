//! A BMC's options for the `ipmi` driver, read once per revision. Knows names and limits, never a network.

use std::collections::BTreeMap;

use picket_common::driver::IPMI;
use picket_common::secret::Secret;

use super::suite::Suite;

/// Most bytes of a user name (IPMI 2.0 §22.28).
pub const MAX_USERNAME: usize = 16;
/// Most bytes of a password and of a BMC key.
pub const MAX_KEY: usize = 20;
/// Bytes of the short form of a password, which some BMCs keep of a longer one.
const SHORT_PASSWORD: usize = 16;

/// Every quirk's name; any other is refused.
pub const QUIRKS: [&str; 4] = ["opensesspriv", "authcap", "idzero", "nochecksumcheck"];

/// A privilege level of a session (table 22-19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// May read.
    User,
    /// May also control power.
    Operator,
    /// May also change users.
    Administrator,
}

impl Privilege {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::User => 2,
            Self::Operator => 3,
            Self::Administrator => 4,
        }
    }
}

/// Tolerances for known faults. Each that drops a check is off unless the host's options name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Login codes are made with the privilege of Open Session instead of RAKP 1's role byte (Dell C5220, Supermicro
    /// X8DTH, Intel S2600JF, Quanta). Detected without this: both sides still prove the password.
    pub open_session_privilege: bool,
    /// Get Channel Authentication Capabilities answers nonsense: log in whatever it says.
    pub ignore_auth_capabilities: bool,
    /// Packets of a session carry session id 0; the authentication code still tells them apart.
    pub session_id_zero: bool,
    /// The checksums of messages inside a session are wrong; the authentication code still covers the message.
    pub ignore_checksums: bool,
}

/// How the BMC is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// RMCP+ over the network.
    Lanplus,
    /// `/dev/ipmi0` of the agent's own host.
    Open,
}

/// Everything a session needs to know, checked.
pub struct Settings {
    /// Network or local device.
    pub interface: Interface,
    /// User name, at most 16 bytes.
    pub username: Vec<u8>,
    /// Forms of the password, most likely first; which one the BMC holds shows in its own proof, without another login.
    pub passwords: Vec<Secret<Vec<u8>>>,
    /// BMC key; the password takes its place when there is none.
    pub bmc_key: Option<Secret<Vec<u8>>>,
    /// Suites in the order they are proposed.
    pub suites: &'static [Suite],
    /// Privilege levels in the order they are asked for.
    pub privileges: &'static [Privilege],
    /// Whether the user is looked up by name alone (bit 0x10 of the role byte).
    pub name_only: bool,
    /// Tolerances.
    pub quirks: Quirks,
}

/// An option, name or password that cannot work. Never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// An option that does not exist.
    #[error("option `{name}` is not known; known are {}", IPMI.option_names().collect::<Vec<_>>().join(", "))]
    UnknownOption {
        /// As given.
        name: String,
    },
    /// A quirk that does not exist.
    #[error("quirk `{name}` is not known; known are {}", QUIRKS.join(", "))]
    UnknownQuirk {
        /// As given.
        name: String,
    },
    /// A value outside of what the option takes.
    #[error("option `{name}` cannot be `{value}`; it takes {allowed}")]
    BadValue {
        /// The option.
        name: &'static str,
        /// As given.
        value: String,
        /// What it takes.
        allowed: &'static str,
    },
    /// A name or secret longer than IPMI allows.
    #[error("{what} has {len} bytes; IPMI allows {max}")]
    TooLong {
        /// `username`, `password` or `kg`.
        what: &'static str,
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A BMC key that starts like hexadecimal and is not.
    #[error("option `kg` starts with 0x but is not hexadecimal")]
    BadKey,
}

impl SettingError {
    /// Short stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownOption { .. } => "unknown-option",
            Self::UnknownQuirk { .. } => "unknown-quirk",
            Self::BadValue { .. } => "bad-option",
            Self::TooLong { .. } => "too-long",
            Self::BadKey => "bad-kg",
        }
    }
}

impl Settings {
    /// Reads and checks a BMC's name, password and options.
    ///
    /// # Errors
    /// The first thing that cannot work.
    pub fn parse(username: &str, password: &str, options: &BTreeMap<String, String>) -> Result<Self, SettingError> {
        let mut settings = Self {
            interface: Interface::Lanplus,
            username: within("username", username.as_bytes(), MAX_USERNAME)?,
            passwords: Vec::new(),
            bmc_key: None,
            suites: &[Suite::Seventeen, Suite::Three],
            privileges: &[Privilege::Operator, Privilege::Administrator, Privilege::User],
            name_only: true,
            quirks: Quirks::default(),
        };
        let mut password_length = "auto";
        for (name, value) in options {
            match name.as_str() {
                "interface" => settings.interface = interface(value)?,
                "privilege" => settings.privileges = privilege(value)?,
                "cipher_suite" => settings.suites = suites(value)?,
                "kg" => settings.bmc_key = bmc_key(value)?,
                "name_only" => settings.name_only = switch("name_only", value)?,
                "password_length" => password_length = value,
                "quirks" => settings.quirks = quirks(value)?,
                _ => return Err(SettingError::UnknownOption { name: name.clone() }),
            }
        }
        settings.passwords = passwords(password.as_bytes(), password_length)?;
        Ok(settings)
    }

    /// The quirks in force that drop a check, for a warning.
    #[must_use]
    pub fn dropped_checks(&self) -> Vec<&'static str> {
        let all = [(self.quirks.session_id_zero, "idzero"), (self.quirks.ignore_checksums, "nochecksumcheck")];
        all.into_iter().filter_map(|(on, name)| on.then_some(name)).collect()
    }
}

fn interface(value: &str) -> Result<Interface, SettingError> {
    match value {
        "lanplus" => Ok(Interface::Lanplus),
        "open" => Ok(Interface::Open),
        _ => Err(bad("interface", value, "lanplus or open")),
    }
}

/// Operator, the default, falls back: some BMCs want their user's exact maximum. The other two are meant as they are.
fn privilege(value: &str) -> Result<&'static [Privilege], SettingError> {
    match value {
        "operator" => Ok(&[Privilege::Operator, Privilege::Administrator, Privilege::User]),
        "user" => Ok(&[Privilege::User]),
        "administrator" => Ok(&[Privilege::Administrator]),
        _ => Err(bad("privilege", value, "user, operator or administrator")),
    }
}

fn suites(value: &str) -> Result<&'static [Suite], SettingError> {
    match value {
        "auto" => Ok(&[Suite::Seventeen, Suite::Three]),
        "17" => Ok(&[Suite::Seventeen]),
        "3" => Ok(&[Suite::Three]),
        _ => Err(bad("cipher_suite", value, "auto, 17 or 3")),
    }
}

fn switch(name: &'static str, value: &str) -> Result<bool, SettingError> {
    match value {
        "true" | "on" | "yes" => Ok(true),
        "false" | "off" | "no" => Ok(false),
        _ => Err(bad(name, value, "true or false")),
    }
}

fn bmc_key(value: &str) -> Result<Option<Secret<Vec<u8>>>, SettingError> {
    let bytes = match value.strip_prefix("0x") {
        Some(digits) => hex::decode(digits).map_err(|_| SettingError::BadKey)?,
        None if value.len() == 2 * MAX_KEY => hex::decode(value).unwrap_or_else(|_| value.as_bytes().to_vec()),
        None => value.as_bytes().to_vec(),
    };
    let key = Secret::new(within("kg", &bytes, MAX_KEY)?);
    // A key of zeros is how a BMC says that it has none (§13.33).
    let none = key.expose().iter().all(|byte| *byte == 0);
    Ok((!none).then_some(key))
}

fn quirks(value: &str) -> Result<Quirks, SettingError> {
    let mut quirks = Quirks::default();
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name {
            "opensesspriv" => quirks.open_session_privilege = true,
            "authcap" => quirks.ignore_auth_capabilities = true,
            "idzero" => quirks.session_id_zero = true,
            "nochecksumcheck" => quirks.ignore_checksums = true,
            _ => return Err(SettingError::UnknownQuirk { name: name.to_owned() }),
        }
    }
    Ok(quirks)
}

fn passwords(password: &[u8], length: &str) -> Result<Vec<Secret<Vec<u8>>>, SettingError> {
    let short = || Secret::new(password.iter().copied().take(SHORT_PASSWORD).collect::<Vec<u8>>());
    match length {
        "auto" if password.len() <= SHORT_PASSWORD => Ok(vec![short()]),
        "auto" => Ok(vec![Secret::new(within("password", password, MAX_KEY)?), short()]),
        "16" => Ok(vec![short()]),
        "20" => Ok(vec![Secret::new(within("password", password, MAX_KEY)?)]),
        _ => Err(bad("password_length", length, "auto, 16 or 20")),
    }
}

fn within(what: &'static str, bytes: &[u8], max: usize) -> Result<Vec<u8>, SettingError> {
    if bytes.len() > max {
        return Err(SettingError::TooLong { what, len: bytes.len(), max });
    }
    Ok(bytes.to_vec())
}

fn bad(name: &'static str, value: &str, allowed: &'static str) -> SettingError {
    SettingError::BadValue { name, value: value.to_owned(), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(password: &str, options: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::parse("admin", password, &options)
    }

    #[test]
    fn defaults_are_least_privilege_and_the_strongest_suite_first() {
        let settings = parse("secret", &[]).unwrap();
        assert_eq!(settings.suites, [Suite::Seventeen, Suite::Three]);
        assert_eq!(settings.privileges.first(), Some(&Privilege::Operator));
        assert!(settings.name_only && settings.bmc_key.is_none() && settings.dropped_checks().is_empty());
        assert_eq!(settings.interface, Interface::Lanplus);
    }

    #[test]
    fn every_value_of_the_table_is_taken() {
        for option in IPMI.options {
            for value in option.kind.values().iter().copied().chain(option.default) {
                assert!(parse("secret", &[(option.name, value)]).is_ok(), "{} {value}", option.name);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            (("cipher", "17"), "option `cipher` is not known; known are interface, privilege, cipher_suite, kg"),
            (("cipher_suite", "0"), "option `cipher_suite` cannot be `0`; it takes auto, 17 or 3"),
            (("privilege", "root"), "user, operator or administrator"),
            (("quirks", "opensesspriv, sun20"), "quirk `sun20` is not known; known are opensesspriv, authcap"),
            (("kg", "0xzz"), "not hexadecimal"),
            (("kg", "this key is longer than twenty"), "kg has 30 bytes; IPMI allows 20"),
            (("password_length", "8"), "auto, 16 or 20"),
            (("name_only", "maybe"), "true or false"),
            (("interface", "lan"), "lanplus or open"),
        ];
        for (option, text) in table {
            let error = parse("secret", &[option]).err().unwrap().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn the_password_rule() {
        let forms = |password: &str, rule: &str| -> Vec<usize> {
            parse(password, &[("password_length", rule)]).unwrap().passwords.iter().map(|form| form.expose().len()).collect()
        };
        assert_eq!(forms("0123456789abcdef", "auto"), [16]);
        assert_eq!(forms("0123456789abcdefghij", "auto"), [20, 16], "a BMC may have kept 16 bytes of it");
        assert_eq!(forms("0123456789abcdefghij", "16"), [16]);
        assert_eq!(forms("0123456789abcdefghij", "20"), [20]);
        assert!(parse("0123456789abcdefghijk", &[]).is_err());
        assert!(parse("0123456789abcdefghijk", &[("password_length", "16")]).is_ok());
    }

    #[test]
    fn a_bmc_key_is_hex_or_text() {
        let key = |value: &str| parse("x", &[("kg", value)]).unwrap().bmc_key.map(|key| key.expose().clone());
        assert_eq!(key("0x0102ff"), Some(vec![1, 2, 0xff]));
        assert_eq!(key("000102030405060708090a0b0c0d0e0f10111213"), Some((0..20).collect()));
        assert_eq!(key("rack seven"), Some(b"rack seven".to_vec()));
        assert_eq!(key("0x0000"), None, "zeros mean no key");
        assert_eq!(key(""), None);
    }
}
