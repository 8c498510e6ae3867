//! The driver's options, read from the host's settings and checked as a whole. Nothing here is a path on this machine.

use std::net::IpAddr;

use super::failure::Failure;
use crate::bmc::Bmc;
use crate::redfish::link::{Origin, Path};

/// How the BMC's certificate is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Exactly one certificate: the named one, or the one of the first contact.
    Pinned { named: Option<[u8; 32]> },
    /// Issued by one of the agent's CAs, for the BMC's address.
    Ca,
    /// Whatever it is.
    Insecure,
}

/// How to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Auth {
    Auto,
    Session,
    Basic,
}

/// Which system is the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// The only one.
    Only,
    /// The one with this id.
    Id(String),
    /// The one at this path.
    Path(Path),
}

/// A BMC's settings after reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub scheme: &'static str,
    pub port: u16,
    pub origin: Origin,
    pub trust: Trust,
    pub auth: Auth,
    pub system: Named,
    /// Ask for a new connection every time.
    pub close: bool,
}

impl Settings {
    pub(super) fn read(bmc: &Bmc) -> Result<Self, Failure> {
        let known: Vec<&str> = super::DESCRIPTOR.option_names().collect();
        if let Some(name) = bmc.options.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(Failure::setting("unknown-option", format!("unknown option {name:?}; redfish knows {}", known.join(", "))));
        }
        let option = |name: &'static str| Choice { name, value: bmc.options.get(name).map_or("", |value| value.trim()) };
        let pin = option("pin").pin()?;
        let trust =
            option("tls").one_of(&[("pinned", Trust::Pinned { named: pin }), ("ca", Trust::Ca), ("insecure", Trust::Insecure)])?;
        if pin.is_some() && !matches!(trust, Trust::Pinned { .. }) {
            return Err(Failure::setting("option-conflict", "option pin needs tls=pinned"));
        }
        let scheme = option("scheme").one_of(&[("https", "https"), ("http", "http")])?;
        if scheme == "http" && trust != Trust::Insecure {
            return Err(Failure::setting("option-conflict", "option scheme=http needs tls=insecure: nothing would be protected"));
        }
        let port = bmc.port.unwrap_or(if scheme == "http" { 80 } else { super::DEFAULT_PORT });
        Ok(Self {
            scheme,
            port,
            origin: Origin::new(scheme, host(&bmc.address)?, port),
            trust,
            auth: option("auth").one_of(&[("auto", Auth::Auto), ("session", Auth::Session), ("basic", Auth::Basic)])?,
            system: option("system").system()?,
            close: option("connection").one_of(&[("keep", false), ("close", true)])?,
        })
    }

    /// The option `system` as it was given, to see whether a remembered choice still stands.
    pub(super) fn named(&self) -> &str {
        match &self.system {
            Named::Only => "",
            Named::Id(id) => id,
            Named::Path(path) => path.as_str(),
        }
    }
}

/// The address without brackets, if it is an IP address or can be a name.
fn host(address: &str) -> Result<&str, Failure> {
    let bare = address.trim_matches(['[', ']']);
    let name = bare.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if bare.parse::<IpAddr>().is_ok() || (name && !bare.is_empty() && bare.len() <= 253) {
        return Ok(bare);
    }
    Err(Failure::setting("bad-address", format!("{address:?} is neither an IP address nor a host name")))
}

struct Choice<'a> {
    name: &'static str,
    value: &'a str,
}

impl Choice<'_> {
    /// The value that goes with the given word; the first for an absent option.
    fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Failure> {
        let word = if self.value.is_empty() { choices.first().map_or("", |(word, _)| *word) } else { self.value };
        choices.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            Failure::setting("bad-option", format!("option {}={word:?} is none of {}", self.name, words.join(", ")))
        })
    }

    fn pin(&self) -> Result<Option<[u8; 32]>, Failure> {
        if self.value.is_empty() {
            return Ok(None);
        }
        let digits = self.value.trim_start_matches("sha256:").replace(':', "");
        let mut pin = [0; 32];
        hex::decode_to_slice(digits, &mut pin)
            .map_err(|_| Failure::setting("bad-option", "option pin is not a SHA-256 in hex (64 digits)"))?;
        Ok(Some(pin))
    }

    fn system(&self) -> Result<Named, Failure> {
        match self.value {
            "" => Ok(Named::Only),
            path if path.starts_with('/') => Path::parse(path)
                .map(Named::Path)
                .ok_or_else(|| Failure::setting("bad-option", format!("option system={path:?} is not a path"))),
            id => Ok(Named::Id(id.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(address: &str, options: &[(&str, &str)]) -> Result<Settings, String> {
        let bmc = Bmc {
            host: "h1".parse().unwrap(),
            address: address.into(),
            port: None,
            username: "u".into(),
            password: picket_common::secret::Secret::new("p".into()),
            options: options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            revision: 1,
        };
        Settings::read(&bmc).map_err(|failure| format!("{} {}", failure.code, failure.text))
    }

    #[test]
    fn defaults_are_the_safe_ones() {
        let settings = read("10.0.0.9", &[]).unwrap();
        assert_eq!((settings.scheme, settings.port, settings.close), ("https", 443, false));
        assert_eq!((settings.trust, settings.auth, settings.system), (Trust::Pinned { named: None }, Auth::Auto, Named::Only));
        let http = read("[::1]", &[("scheme", "http"), ("tls", "insecure")]).unwrap();
        assert_eq!((http.port, http.origin.to_string().as_str()), (80, "[::1]:80"));
    }

    #[test]
    fn every_value_of_the_table_is_taken() {
        for option in super::super::DESCRIPTOR.options {
            for value in option.kind.values().iter().copied().chain(option.default) {
                let trust = ("tls", if option.name == "tls" { value } else { "insecure" });
                assert!(read("10.0.0.9", &[trust, (option.name, value)]).is_ok(), "{} {value}", option.name);
            }
        }
    }

    #[test]
    fn every_wrong_option_is_named() {
        let digest = "ab".repeat(32);
        for (address, options, said) in [
            ("10.0.0.9", &[("tsl", "ca")][..], "\"tsl\""),
            ("10.0.0.9", &[("tsl", "ca")], "tls, pin, system, auth, connection, scheme"),
            ("10.0.0.9", &[("tls", "off")], "pinned, ca, insecure"),
            ("10.0.0.9", &[("pin", "12")], "64 digits"),
            ("10.0.0.9", &[("pin", &digest), ("tls", "ca")], "tls=pinned"),
            ("10.0.0.9", &[("scheme", "http")], "tls=insecure"),
            ("10.0.0.9", &[("auth", "digest")], "auto, session, basic"),
            ("10.0.0.9", &[("system", "/a b")], "not a path"),
            ("10.0.0.9", &[("connection", "open")], "keep, close"),
            ("", &[], "neither"),
            ("evil/../x", &[], "neither"),
            ("user@10.0.0.9", &[], "neither"),
            ("fe80::1%eth0", &[], "neither"),
        ] {
            let error = read(address, options).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let colons = digest.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap()).collect::<Vec<_>>().join(":");
        assert_eq!(read("10.0.0.9", &[("pin", &colons)]).unwrap().trust, Trust::Pinned { named: Some([0xab; 32]) });
    }
}
