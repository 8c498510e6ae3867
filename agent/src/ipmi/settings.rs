//! A BMC's options for the `ipmi` driver, read once per revision. Knows names and limits, never a network.

use std::collections::BTreeMap;

use picket_common::driver::IPMI;
use picket_common::secret::Secret;

use super::quirks::{Quirk, Quirks, Wishes};
use super::suite::Suite;

/// Most bytes of a user name (IPMI 2.0 §22.28).
pub const MAX_USERNAME: usize = 16;
/// Most bytes of a password and of a BMC key.
pub const MAX_KEY: usize = 20;
/// Bytes of the short form of a password, which some BMCs keep of a longer one.
const SHORT_PASSWORD: usize = 16;

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

    /// Its name, as options and facts have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }

    /// This level and no other to fall back to.
    #[must_use]
    pub const fn alone(self) -> &'static [Self] {
        match self {
            Self::User => &[Self::User],
            Self::Operator => &[Self::Operator],
            Self::Administrator => &[Self::Administrator],
        }
    }
}

/// How the BMC is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// RMCP+ over the network.
    Lanplus,
    /// `/dev/ipmi0` of the agent's own host.
    Open,
}

/// How many bytes of a password the BMC keeps (§22.30).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordRule {
    /// Up to 20; a password of up to 16 is set in the short form, which every BMC takes.
    Auto,
    /// 16, always in the short form.
    Sixteen,
    /// 20, always in the long form.
    Twenty,
}

/// A password as Set User Password takes it.
pub struct NewPassword {
    /// Its bytes.
    pub bytes: Secret<Vec<u8>>,
    /// In the long form.
    pub long: bool,
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
    /// What the host's option wants tolerated, and what not.
    pub wishes: Wishes,
    /// How many bytes of a password the BMC keeps.
    pub password_rule: PasswordRule,
    /// The host boots by UEFI, not by a legacy BIOS.
    pub boots_by_uefi: bool,
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
    #[error("quirk `{name}` is not known; known are {}, and no- before each", Quirk::ALL.map(Quirk::name).join(", "))]
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
    /// A password that cannot be set at all.
    #[error("the new password cannot be set: {why}")]
    BadNewPassword {
        /// In words.
        why: &'static str,
    },
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
            Self::BadNewPassword { .. } => "bad-new-password",
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
            wishes: Wishes::default(),
            password_rule: PasswordRule::Auto,
            boots_by_uefi: true,
        };
        for (name, value) in options {
            match name.as_str() {
                "interface" => settings.interface = interface(value)?,
                "privilege" => settings.privileges = privilege(value)?,
                "cipher_suite" => settings.suites = suites(value)?,
                "kg" => settings.bmc_key = bmc_key(value)?,
                "name_only" => settings.name_only = switch("name_only", value)?,
                "password_length" => settings.password_rule = password_rule(value)?,
                "boot_mode" => settings.boots_by_uefi = boots_by_uefi(value)?,
                "quirks" => {
                    settings.wishes = Wishes::read(value).map_err(|name| SettingError::UnknownQuirk { name: name.to_owned() })?;
                }
                _ => return Err(SettingError::UnknownOption { name: name.clone() }),
            }
        }
        let cuts = !settings.wishes.off.has(Quirk::ShortPassword);
        settings.passwords = passwords(password.as_bytes(), settings.password_rule, cuts)?;
        Ok(settings)
    }

    /// The checks that the host's option drops, for a warning.
    pub fn dropped_checks(&self) -> impl Iterator<Item = Quirk> {
        self.wishes.on.iter().filter(|quirk| quirk.drops_a_check())
    }

    /// Whether `quirk` is in force before the BMC is known.
    #[must_use]
    pub fn tolerates(&self, quirk: Quirk) -> bool {
        self.wishes.in_force(Quirks::default(), None).has(quirk)
    }

    /// Checks a password that is to be set, so that nothing is sent that the BMC would cut or could not keep.
    ///
    /// # Errors
    /// Empty, with a zero byte, longer than the rule allows, or for the user without a name.
    pub fn new_password(&self, password: &str) -> Result<NewPassword, SettingError> {
        let bad = |why| Err(SettingError::BadNewPassword { why });
        if self.username.is_empty() {
            return bad("the login has no user name, and the anonymous user's password is not touched");
        }
        if password.is_empty() {
            return bad("it is empty");
        }
        if password.bytes().any(|byte| byte == 0) {
            return bad("it has a zero byte, which ends a password in IPMI");
        }
        let sixteen = self.password_rule == PasswordRule::Sixteen || self.tolerates(Quirk::ShortPassword);
        let max = if sixteen { SHORT_PASSWORD } else { MAX_KEY };
        let bytes = Secret::new(within("new password", password.as_bytes(), max)?);
        let long = self.password_rule == PasswordRule::Twenty || bytes.expose().len() > SHORT_PASSWORD;
        Ok(NewPassword { bytes, long })
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

fn password_rule(value: &str) -> Result<PasswordRule, SettingError> {
    match value {
        "auto" => Ok(PasswordRule::Auto),
        "16" => Ok(PasswordRule::Sixteen),
        "20" => Ok(PasswordRule::Twenty),
        _ => Err(bad("password_length", value, "auto, 16 or 20")),
    }
}

fn boots_by_uefi(value: &str) -> Result<bool, SettingError> {
    match value {
        "uefi" => Ok(true),
        "legacy" => Ok(false),
        _ => Err(bad("boot_mode", value, "uefi or legacy")),
    }
}

/// The forms of a password; `cuts` says that the BMC may have kept less of a long one than it was given.
fn passwords(password: &[u8], rule: PasswordRule, cuts: bool) -> Result<Vec<Secret<Vec<u8>>>, SettingError> {
    let short = || Secret::new(password.iter().copied().take(SHORT_PASSWORD).collect::<Vec<u8>>());
    match rule {
        PasswordRule::Auto if password.len() <= SHORT_PASSWORD => Ok(vec![short()]),
        PasswordRule::Auto if cuts => Ok(vec![Secret::new(within("password", password, MAX_KEY)?), short()]),
        PasswordRule::Sixteen => Ok(vec![short()]),
        PasswordRule::Auto | PasswordRule::Twenty => Ok(vec![Secret::new(within("password", password, MAX_KEY)?)]),
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
        assert!(settings.name_only && settings.bmc_key.is_none() && settings.dropped_checks().next().is_none());
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
            (("boot_mode", "bios"), "uefi or legacy"),
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
    fn a_new_password_is_judged_before_it_is_sent() {
        let judge = |password: &str, rule: &str| {
            let settings = parse("old", &[("password_length", rule)]).unwrap();
            settings.new_password(password).map(|new| (new.bytes.expose().len(), new.long)).map_err(|error| error.code())
        };
        for (password, rule, expected) in [
            ("0123456789abcdef", "auto", Ok((16, false))),
            ("0123456789abcdefg", "auto", Ok((17, true))),
            ("0123456789abcdefghij", "auto", Ok((20, true))),
            ("0123456789abcdefghijk", "auto", Err("too-long")),
            ("0123456789abcdefg", "16", Err("too-long")),
            ("short", "16", Ok((5, false))),
            ("short", "20", Ok((5, true))),
            ("ä123456789abcdef", "16", Err("too-long")),
            ("", "auto", Err("bad-new-password")),
            ("a\0b", "auto", Err("bad-new-password")),
        ] {
            assert_eq!(judge(password, rule), expected, "{password:?} {rule}");
        }
        let nameless = Settings::parse("", "old", &BTreeMap::new()).unwrap();
        assert_eq!(nameless.new_password("new").err().unwrap().code(), "bad-new-password");
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
