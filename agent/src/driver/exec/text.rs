//! Texts with placeholders: read once when the agent's own file is, filled in for each run. Pure.
//!
//! `{name}` is a placeholder; `{{` and `}}` are braces.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use picket_common::secret::Secret;

use crate::bmc::{Ask, Bmc};
use crate::driver::failure::Failure;

/// What stands in a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    Username,
    /// The BMC's address as it was resolved and checked.
    Host,
    /// The same with brackets around IPv6.
    UrlHost,
    /// The BMC's address as it was configured: perhaps a name.
    Address,
    Port,
    Action,
    Seconds,
    Device,
    Persistence,
    Password,
    NewPassword,
    PasswordFile,
    NewPasswordFile,
    /// One of the host's options.
    Option(String),
    /// The path of one of the template's own files.
    File(String),
}

/// The placeholders without a name of their own making, as they are written.
const PLAIN: [(&str, Slot); 13] = [
    ("username", Slot::Username),
    ("host", Slot::Host),
    ("url_host", Slot::UrlHost),
    ("address", Slot::Address),
    ("port", Slot::Port),
    ("action", Slot::Action),
    ("seconds", Slot::Seconds),
    ("device", Slot::Device),
    ("persistence", Slot::Persistence),
    ("password", Slot::Password),
    ("new_password", Slot::NewPassword),
    ("password_file", Slot::PasswordFile),
    ("new_password_file", Slot::NewPasswordFile),
];

/// Where a text is used, and so what it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The command line: everybody on the machine can read it.
    Argument,
    /// The words of an action, which then stand for `{action}`.
    Action,
    /// Standard input.
    Input,
    /// A private file.
    File,
}

impl Slot {
    fn read(name: &str) -> Option<Self> {
        if let Some(key) = name.strip_prefix("option:") {
            return Some(Self::Option(key.to_owned()));
        }
        if let Some(key) = name.strip_prefix("file:") {
            return Some(Self::File(key.to_owned()));
        }
        PLAIN.iter().find(|(known, _)| *known == name).map(|(_, slot)| slot.clone())
    }

    /// Why this may not stand there.
    fn misplaced(&self, place: Place) -> Option<&'static str> {
        match (self, place) {
            (Self::Password | Self::NewPassword, Place::Argument | Place::Action) => Some(
                "a password on a command line can be read by every user of the machine: use {password_file} there, or {password} in stdin",
            ),
            (Self::Seconds | Self::Device | Self::Persistence, _) => None,
            (_, Place::Action) => Some("an action takes {seconds}, {device} and {persistence} only"),
            (Self::File(_) | Self::PasswordFile | Self::NewPasswordFile, Place::File) => Some("a file cannot name a file"),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Words(String),
    Slot(Slot),
}

/// A text as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text(Vec<Piece>);

impl Text {
    /// Reads a text for its place; says what is wrong with it.
    pub(super) fn read(text: &str, place: Place) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut words = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            words.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                words.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                words.push('}');
                rest = after;
            } else {
                let inner = from.strip_prefix('{').and_then(|from| from.split_once('}'));
                let (name, after) = inner.ok_or_else(|| format!("{text:?} has a single brace; write {{{{ or }}}} for a brace"))?;
                if !words.is_empty() {
                    pieces.push(Piece::Words(std::mem::take(&mut words)));
                }
                pieces.push(Piece::Slot(slot(name, place)?));
                rest = after;
            }
        }
        words.push_str(rest);
        if !words.is_empty() {
            pieces.push(Piece::Words(words));
        }
        Ok(Self(pieces))
    }

    /// The placeholders in it.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Slot(slot) => Some(slot),
            Piece::Words(_) => None,
        })
    }

    /// Whether it is the placeholder of the action and nothing else.
    pub(super) fn is_action(&self) -> bool {
        self.0 == [Piece::Slot(Slot::Action)]
    }

    /// Whether its first character comes from outside of the agent's own file.
    fn begins_with_a_value(&self) -> bool {
        matches!(self.0.first(), Some(Piece::Slot(slot)) if !matches!(slot, Slot::Action))
    }

    /// The text with its placeholders filled in.
    pub(super) fn fill(&self, values: &Values<'_>) -> Result<Secret<String>, Failure> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Words(words) => filled.push_str(words),
                Piece::Slot(slot) => filled.push_str(&values.of(slot)?),
            }
        }
        Ok(Secret::new(filled))
    }

    /// The text as one argument: a value cannot turn it into an option of the program, or into a file for it to read.
    pub(super) fn fill_argument(&self, values: &Values<'_>) -> Result<String, Failure> {
        let filled = self.fill(values)?.expose().clone();
        if self.begins_with_a_value() && filled.starts_with(['-', '@']) {
            let text = format!("{filled:?} would be taken for an option of the program");
            return Err(Failure::setting("value-like-option", text));
        }
        Ok(filled)
    }
}

fn slot(name: &str, place: Place) -> Result<Slot, String> {
    let slot = Slot::read(name).ok_or_else(|| {
        let known: Vec<&str> = PLAIN.iter().map(|(known, _)| *known).collect();
        format!("there is no placeholder {{{name}}}; there are {}, option:NAME, file:NAME", known.join(", "))
    })?;
    slot.misplaced(place).map_or(Ok(slot), |why| Err(format!("{{{name}}} cannot stand here: {why}")))
}

/// What placeholders stand for in one run.
pub(super) struct Values<'a> {
    pub bmc: &'a Bmc,
    pub at: SocketAddr,
    /// The port, if the host or the template names one.
    pub port: Option<u16>,
    pub ask: Ask,
    pub action: &'a [String],
    pub new_password: &'a str,
    /// Paths of private files, by name.
    pub files: &'a BTreeMap<String, String>,
}

/// Names of the files that hold a password each, beside the template's own.
pub(super) const PASSWORD_FILE: &str = "password";
pub(super) const NEW_PASSWORD_FILE: &str = "new_password";

impl Values<'_> {
    fn of(&self, slot: &Slot) -> Result<String, Failure> {
        let file = |name: &str| self.files.get(name).cloned().unwrap_or_default();
        Ok(match slot {
            Slot::Username => clean("username", &self.bmc.username)?,
            Slot::Host => self.at.ip().to_string(),
            Slot::UrlHost => match self.at.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            },
            Slot::Address => clean("address", self.bmc.address.trim_matches(['[', ']']))?,
            Slot::Port => self.port.map(|port| port.to_string()).ok_or_else(|| {
                Failure::setting("port-missing", "the template needs a port, and neither the host nor the template names one")
            })?,
            Slot::Action => self.action.join(" "),
            Slot::Seconds => match self.ask {
                Ask::Identify { seconds } => seconds.to_string(),
                _ => String::new(),
            },
            Slot::Device => match self.ask {
                Ask::Bootdev { device, .. } => format!("{device:?}").to_ascii_lowercase(),
                _ => String::new(),
            },
            Slot::Persistence => match self.ask {
                Ask::Bootdev { persistence, .. } => format!("{persistence:?}").to_ascii_lowercase(),
                _ => String::new(),
            },
            Slot::Password => clean("password", self.bmc.password.expose())?,
            Slot::NewPassword => clean("new password", self.new_password)?,
            Slot::PasswordFile => file(PASSWORD_FILE),
            Slot::NewPasswordFile => file(NEW_PASSWORD_FILE),
            Slot::Option(name) => plain_option(self.bmc, name)?,
            Slot::File(name) => file(name),
        })
    }
}

/// A value without line breaks and the like, which would become more than one value.
pub(super) fn clean(what: &str, value: &str) -> Result<String, Failure> {
    if value.chars().any(char::is_control) {
        return Err(Failure::setting("control-character", format!("the {what} has a line break or other control character")));
    }
    Ok(value.to_owned())
}

/// A host's option, of letters, digits and a few signs: whatever the program makes of it, it stays one plain word.
pub(super) fn plain_option(bmc: &Bmc, name: &str) -> Result<String, Failure> {
    let Some(value) = bmc.options.get(name) else {
        return Err(Failure::setting("option-missing", format!("the template needs option `{name}`")));
    };
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "._:/,+=-".contains(c));
    if value.is_empty() || !plain || value.starts_with('-') || value.contains("..") {
        let text = format!("option `{name}` cannot be {value:?}: letters, digits and . _ : / , + = - only, not beginning with -");
        return Err(Failure::setting("bad-option", text));
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bmc() -> Bmc {
        Bmc {
            host: "h1".parse().unwrap(),
            address: "bmc.example".into(),
            port: None,
            username: "admin".into(),
            password: Secret::new("{password}".into()),
            options: [("vm".to_owned(), "a-1".to_owned()), ("evil".to_owned(), "x&y".to_owned())].into(),
            revision: 1,
        }
    }

    fn fill(text: &str, place: Place) -> Result<String, String> {
        let bmc = bmc();
        let values = Values {
            bmc: &bmc,
            at: "[fd00::1]:80".parse().unwrap(),
            port: Some(80),
            ask: Ask::Identify { seconds: 15 },
            action: &["led".to_owned(), "on".to_owned()],
            new_password: "new",
            files: &[("password".to_owned(), "/f".to_owned())].into(),
        };
        let text = Text::read(text, place)?;
        let filled = if place == Place::Argument {
            text.fill_argument(&values)
        } else {
            text.fill(&values).map(|text| text.expose().clone())
        };
        filled.map_err(|failure| format!("{} {}", failure.code, failure.text))
    }

    #[test]
    fn placeholders() {
        for (text, wanted) in [
            ("", ""),
            ("plain", "plain"),
            ("--user={username}", "--user=admin"),
            ("http://{url_host}:{port}/{option:vm}", "http://[fd00::1]:80/a-1"),
            ("{host} {address}", "fd00::1 bmc.example"),
            ("{action}", "led on"),
            ("{password_file}", "/f"),
            ("{{\"a\": \"{seconds}\"}}", "{\"a\": \"15\"}"),
        ] {
            assert_eq!(fill(text, Place::Argument).as_deref(), Ok(wanted), "{text}");
        }
        assert_eq!(fill("{password}\n{new_password}", Place::Input).as_deref(), Ok("{password}\nnew"), "filled in once");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, place, said) in [
            ("--password={password}", Place::Argument, "can be read by every user"),
            ("{password}", Place::Action, "can be read by every user"),
            ("{host}", Place::Action, "an action takes"),
            ("{password_file}", Place::File, "a file cannot name a file"),
            ("{passwd}", Place::Argument, "there is no placeholder {passwd}; there are username, host"),
            ("a{b", Place::Input, "single brace"),
            ("a}b", Place::Input, "single brace"),
            ("{option:evil}", Place::Argument, "bad-option"),
            ("{option:other}", Place::Argument, "option-missing"),
        ] {
            let error = fill(text, place).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_value_stays_a_value() {
        let bmc = Bmc { username: "--config=/etc/x".into(), ..bmc() };
        let values = Values {
            bmc: &bmc,
            at: "10.0.0.1:1".parse().unwrap(),
            port: None,
            ask: Ask::Status,
            action: &[],
            new_password: "",
            files: &BTreeMap::new(),
        };
        let fill = |text: &str| Text::read(text, Place::Argument).unwrap().fill_argument(&values);
        assert_eq!(fill("{username}").unwrap_err().code, "value-like-option");
        assert_eq!(fill("--user={username}").unwrap(), "--user=--config=/etc/x");
        assert_eq!(fill("{port}").unwrap_err().code, "port-missing");
        let bmc = Bmc { username: "a\nb".into(), ..bmc.clone() };
        let values = Values { bmc: &bmc, ..values };
        let failure = Text::read("{username}", Place::Input).unwrap().fill(&values).unwrap_err();
        assert_eq!(failure.code, "control-character");
        for value in ["", "-x", "a b", "a&b", "../x", "$(x)", "a\"", "@x", "a\n"] {
            let bmc = Bmc { options: [("o".to_owned(), value.to_owned())].into(), ..bmc.clone() };
            assert!(plain_option(&bmc, "o").is_err(), "{value:?}");
        }
    }
}
