//! Names of things: parsed once at the edge, trusted afterwards. Never holds anything but a checked name.
//!
//! Every id obeys `[a-z0-9][a-z0-9._-]{0,62}`, so it can stand in a topic, a URL, a file name and a metric label as it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id, in bytes: a DNS label, so a host's name always fits.
pub const MAX_ID_LEN: usize = 63;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind} id: use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit")]
pub struct IdError {
    /// What the id would have named: `host`, `zone`, ….
    pub kind: &'static str,
    /// The refused text, cut to 80 characters.
    pub text: String,
}

fn check(kind: &'static str, text: &str) -> Result<(), IdError> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && text.len() <= MAX_ID_LEN { Ok(()) } else { Err(IdError { kind, text: text.chars().take(80).collect() }) }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check($kind, text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A host: the machine a BMC controls.
    HostId = "host";
    /// A rack: the hosts one agent (or a pair) guards.
    RackId = "rack";
    /// A cluster of hosts; lies in one zone.
    ClusterId = "cluster";
    /// A zone of clusters.
    ZoneId = "zone";
    /// An agent; by default its rack's name.
    AgentId = "agent";
    /// A consumer of the public MQTT tree.
    ConsumerId = "consumer";
    /// A receiver of alerts, as the aggregator's settings name it.
    ReceiverId = "receiver";
    /// A site: one aggregator (or one group of them) and its certificate authority.
    SiteId = "site";
}

/// An operation's id, UUIDv7: made by the aggregator, carried to the agent and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub uuid::Uuid);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OperationId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        for good in ["a", "0", "r07n01", "r07.n-01_x", &"a".repeat(63)] {
            assert_eq!(good.parse::<HostId>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "_a", "A", "a b", "a/b", "a#", "a+", "ä", &"a".repeat(64), "a\n"] {
            let error = bad.parse::<HostId>().unwrap_err();
            assert!(error.to_string().contains("host id"), "{error}");
        }
    }

    #[test]
    fn json_is_checked() {
        assert!(serde_json::from_str::<ZoneId>("\"z1\"").is_ok());
        assert!(serde_json::from_str::<ZoneId>("\"Z1\"").is_err());
    }
}
