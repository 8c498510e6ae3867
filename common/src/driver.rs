//! The drivers that agents of this version have: names, ports, options. Agents obey this table and the centre shows it.
//! Says what there is, never how a driver works.

use std::fmt;

/// What a driver is and can do.
#[derive(Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Name in settings; compared without regard to case.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Port used when none is set.
    pub default_port: Option<u16>,
    /// Its options; any other is an error of class `Setting`, unless [`Self::own_options`] says otherwise.
    pub options: &'static [OptionDescriptor],
    /// Whether more options may exist that only the agent's own file knows.
    pub own_options: bool,
    /// Whether its readings can prove that a host is off.
    pub can_prove: bool,
    /// How far apart two readings must be to count as independent, in milliseconds.
    pub independent_after_ms: u32,
}

/// One option of a driver, set per host.
#[derive(Debug, PartialEq, Eq)]
pub struct OptionDescriptor {
    /// Key in the host's `options`.
    pub name: &'static str,
    /// What its value may be.
    pub kind: OptionKind,
    /// The value when it is not set; absent when unset is something of its own.
    pub default: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

/// What an option's value may be. Drivers check more closely than this; it is enough to build a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any of these words, separated by commas.
    AnyOf(&'static [&'static str]),
    /// A whole number in this range, both ends included.
    Number(u32, u32),
    /// `true` or `false`.
    Switch,
    /// Free text; the help says of what form.
    Text,
    /// Text that is shown to nobody more than necessary: a key.
    Key,
}

impl OptionKind {
    /// Stable name for the API: `one-of`, ….
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OneOf(_) => "one-of",
            Self::AnyOf(_) => "any-of",
            Self::Number(..) => "number",
            Self::Switch => "switch",
            Self::Text => "text",
            Self::Key => "key",
        }
    }

    /// The words it takes; none for numbers and text.
    #[must_use]
    pub const fn values(self) -> &'static [&'static str] {
        match self {
            Self::OneOf(words) | Self::AnyOf(words) => words,
            Self::Switch => &["true", "false"],
            Self::Number(..) | Self::Text | Self::Key => &[],
        }
    }
}

impl OptionKind {
    /// Whether `value` is of this kind. Text is taken as it is.
    #[must_use]
    pub fn takes(self, value: &str) -> bool {
        match self {
            Self::OneOf(words) => words.contains(&value),
            Self::AnyOf(words) => value.split(',').map(str::trim).all(|word| words.contains(&word)),
            Self::Number(least, most) => value.parse().is_ok_and(|number: u32| (least..=most).contains(&number)),
            Self::Switch => matches!(value, "true" | "false"),
            Self::Text | Self::Key => true,
        }
    }
}

/// What it takes, for people: `lanplus, lan or open`, `1 to 10`.
impl fmt::Display for OptionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneOf([rest @ .., last]) if !rest.is_empty() => write!(f, "{} or {last}", rest.join(", ")),
            Self::OneOf(words) => f.write_str(&words.join(", ")),
            Self::AnyOf(words) => write!(f, "a comma list of {}", words.join(", ")),
            Self::Number(least, most) => write!(f, "{least} to {most}"),
            Self::Switch => f.write_str("true or false"),
            Self::Text => f.write_str("text"),
            Self::Key => f.write_str("a key"),
        }
    }
}

impl Descriptor {
    /// The names of its options, in their order.
    pub fn option_names(&self) -> impl Iterator<Item = &'static str> {
        self.options.iter().map(|option| option.name)
    }
}

/// All drivers, in the order they are shown.
pub static DRIVERS: [&Descriptor; 5] = [&IPMI, &REDFISH, &IPMITOOL, &EXEC, &NULL];

/// The driver of this name, in any case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Descriptor> {
    DRIVERS.into_iter().find(|driver| driver.name.eq_ignore_ascii_case(name))
}

/// All names, for people: `ipmi, redfish, …`.
#[must_use]
pub fn names() -> String {
    DRIVERS.map(|driver| driver.name).join(", ")
}

/// IPMI 2.0, spoken by the agent itself.
pub static IPMI: Descriptor = Descriptor {
    name: "ipmi",
    summary: "IPMI 2.0 over the network (RMCP+, cipher suites 17 and 3), or the agent's own BMC",
    default_port: Some(623),
    options: &[
        OptionDescriptor {
            name: "interface",
            kind: OptionKind::OneOf(&["lanplus", "open"]),
            default: Some("lanplus"),
            help: "lanplus: over the network; open: /dev/ipmi0 of the agent's own host",
        },
        OptionDescriptor {
            name: "privilege",
            kind: OptionKind::OneOf(&["operator", "user", "administrator"]),
            default: Some("operator"),
            help: "the level asked for; operator falls back to what the BMC grants",
        },
        OptionDescriptor {
            name: "cipher_suite",
            kind: OptionKind::OneOf(&["auto", "17", "3"]),
            default: Some("auto"),
            help: "auto: 17, then 3",
        },
        OptionDescriptor {
            name: "kg",
            kind: OptionKind::Key,
            default: None,
            help: "BMC key, if the BMC has one: text, or hexadecimal after 0x",
        },
        OptionDescriptor {
            name: "name_only",
            kind: OptionKind::Switch,
            default: Some("true"),
            help: "true: look the user up by name alone; false: by name and privilege",
        },
        OptionDescriptor {
            name: "password_length",
            kind: OptionKind::OneOf(&["auto", "16", "20"]),
            default: Some("auto"),
            help: "bytes of the password that the BMC keeps",
        },
        OptionDescriptor {
            name: "quirks",
            kind: OptionKind::AnyOf(&[
                "opensesspriv",
                "authcap",
                "idzero",
                "nochecksumcheck",
                "uefidisk",
                "shortpassword",
                "no-opensesspriv",
                "no-authcap",
                "no-uefidisk",
                "no-shortpassword",
            ]),
            default: None,
            help: "faults of the BMC to put up with, or not (no-), whatever is detected or known of its kind; idzero and nochecksumcheck each drop a check",
        },
        OptionDescriptor {
            name: "boot_mode",
            kind: OptionKind::OneOf(&["uefi", "legacy"]),
            default: Some("uefi"),
            help: "how the host boots: a boot device is asked for in this way",
        },
    ],
    own_options: false,
    can_prove: true,
    independent_after_ms: 2000,
};

/// Redfish, spoken by the agent itself.
pub static REDFISH: Descriptor = Descriptor {
    name: "redfish",
    summary: "DMTF Redfish over HTTPS: iDRAC, iLO, XCC, OpenBMC and others",
    default_port: Some(443),
    options: &[
        OptionDescriptor {
            name: "tls",
            kind: OptionKind::OneOf(&["pinned", "ca", "insecure"]),
            default: Some("pinned"),
            help: "pinned: the certificate of the first contact is remembered and no other accepted; ca: must verify against the CA bundle in the agent's own file; insecure: any certificate is accepted",
        },
        OptionDescriptor {
            name: "pin",
            kind: OptionKind::Text,
            default: None,
            help: "SHA-256 of the BMC's certificate in hex: the only one accepted (with tls=pinned)",
        },
        OptionDescriptor {
            name: "system",
            kind: OptionKind::Text,
            default: None,
            help: "which system of the BMC: its id, or its path such as /redfish/v1/Systems/1; needed only if there are several",
        },
        OptionDescriptor {
            name: "auth",
            kind: OptionKind::OneOf(&["auto", "session", "basic"]),
            default: Some("auto"),
            help: "auto: a session, or basic where there is no session service",
        },
        OptionDescriptor {
            name: "connection",
            kind: OptionKind::OneOf(&["keep", "close"]),
            default: Some("keep"),
            help: "keep: one connection is kept open; close: a new one for every request",
        },
        OptionDescriptor {
            name: "scheme",
            kind: OptionKind::OneOf(&["https", "http"]),
            default: Some("https"),
            help: "http: without any protection, only together with tls=insecure",
        },
    ],
    own_options: false,
    can_prove: true,
    // BMCs cache the state for some seconds.
    independent_after_ms: 5000,
};

/// The program `ipmitool`.
pub static IPMITOOL: Descriptor = Descriptor {
    name: "ipmitool",
    summary: "runs the program ipmitool: for BMCs that only it can talk to, IPMI 1.5 (lan) among them",
    default_port: Some(623),
    options: &[
        OptionDescriptor {
            name: "interface",
            kind: OptionKind::OneOf(&["lanplus", "lan", "open"]),
            default: Some("lanplus"),
            help: "lanplus: IPMI 2.0; lan: IPMI 1.5, which protects nothing; open: /dev/ipmi0 of the agent's own host",
        },
        OptionDescriptor {
            name: "retries",
            kind: OptionKind::Number(1, 10),
            default: Some("1"),
            help: "how often each packet is sent at most; an order that must not be done twice is sent once whatever this says",
        },
        OptionDescriptor {
            name: "cipher_suite",
            kind: OptionKind::OneOf(&["auto", "17", "3"]),
            default: Some("auto"),
            help: "auto: 17, then 3; only with interface=lanplus",
        },
        OptionDescriptor {
            name: "privilege",
            kind: OptionKind::OneOf(&["operator", "user", "administrator"]),
            default: Some("operator"),
            help: "the level asked for",
        },
        OptionDescriptor {
            name: "kg",
            kind: OptionKind::Key,
            default: None,
            help: "BMC key, if the BMC has one: text, or hexadecimal after 0x; only with interface=lanplus",
        },
    ],
    own_options: false,
    // Within a session it takes an answer that nobody authenticated (version 1.8.19).
    can_prove: false,
    independent_after_ms: 2000,
};

/// Programs of the site's own.
pub static EXEC: Descriptor = Descriptor {
    name: "exec",
    summary: "runs a program of the agent's machine by a template of the agent's own file, or a fence agent",
    default_port: None,
    options: &[OptionDescriptor {
        name: "template",
        kind: OptionKind::Text,
        default: None,
        help: "which [exec.NAME] of the agent's own file; that template says what other options there are",
    }],
    own_options: true,
    // A template may say that its program's word is proof.
    can_prove: false,
    independent_after_ms: 5000,
};

/// No hardware.
pub static NULL: Descriptor = Descriptor {
    name: "null",
    summary: "no hardware: records what it was asked; never proves a fence",
    default_port: None,
    options: &[],
    own_options: false,
    can_prove: false,
    independent_after_ms: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for driver in DRIVERS {
            assert_eq!(driver.name, driver.name.to_ascii_lowercase(), "kept in lower case, found in any");
            assert_eq!(find(&driver.name.to_ascii_uppercase()), Some(driver));
            let names: std::collections::BTreeSet<_> = driver.option_names().collect();
            assert_eq!(names.len(), driver.options.len(), "{}: an option twice", driver.name);
            for option in driver.options {
                let possible = option.default.is_none_or(|default| option.kind.takes(default));
                assert!(possible, "{}: {} has an impossible default", driver.name, option.name);
                assert!(option.kind.values().iter().all(|value| option.kind.takes(value)), "{}", option.name);
            }
        }
        assert_eq!(find("ipmi "), None);
        assert_eq!(names(), "ipmi, redfish, ipmitool, exec, null");
    }
}
