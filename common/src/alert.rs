//! Alerts: identity is the kind and the thing it speaks of; a repetition is the same alert, and each is resolved once.
//! What a silence covers is decided here too. Never tells anybody.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an alert says. Names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A BMC has not answered for several polls.
    BmcLost,
    /// A BMC refuses the login.
    BmcAuthFailed,
    /// A host was switched on or off, and not by Picket.
    HostPowerChanged,
    /// An agent is not heard: nobody knows how its hosts are.
    AgentLost,
    /// A BMC speaks for another machine than the one it was set up for.
    BmcIdentityChanged,
    /// A BMC is talked to without proof of who it is.
    BmcInsecure,
    /// A host was fenced: it is proven off.
    FenceSucceeded,
    /// Attempts to fence a host fail.
    FenceFailed,
    /// A host could not be proven off by all the attempts there are: it may still run.
    FenceUnconfirmed,
    /// The fence of a host is held by a gate.
    FenceRefused,
    /// A fenced host was seen On, and nobody released it.
    FenceBroken,
    /// A BMC says Off while its host answers.
    BmcContradiction,
    /// A cluster has switched off as many hosts as it may within the hour, and another one waits.
    CapReached,
    /// Many hosts of a cluster are unwell at once: nothing disruptive is done to them.
    StormHeld,
}

impl AlertKind {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::BmcLost,
        Self::BmcAuthFailed,
        Self::HostPowerChanged,
        Self::AgentLost,
        Self::BmcIdentityChanged,
        Self::BmcInsecure,
        Self::FenceSucceeded,
        Self::FenceFailed,
        Self::FenceUnconfirmed,
        Self::FenceRefused,
        Self::FenceBroken,
        Self::BmcContradiction,
        Self::CapReached,
        Self::StormHeld,
    ];

    /// Kebab-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BmcLost => "bmc-lost",
            Self::BmcAuthFailed => "bmc-auth-failed",
            Self::HostPowerChanged => "host-power-changed",
            Self::AgentLost => "agent-lost",
            Self::BmcIdentityChanged => "bmc-identity-changed",
            Self::BmcInsecure => "bmc-insecure",
            Self::FenceSucceeded => "fence-succeeded",
            Self::FenceFailed => "fence-failed",
            Self::FenceUnconfirmed => "fence-unconfirmed",
            Self::FenceRefused => "fence-refused",
            Self::FenceBroken => "fence-broken",
            Self::BmcContradiction => "bmc-contradiction",
            Self::CapReached => "cap-reached",
            Self::StormHeld => "storm-held",
        }
    }

    /// How much it matters.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::BmcInsecure => Severity::Info,
            Self::BmcLost | Self::HostPowerChanged | Self::FenceSucceeded | Self::FenceFailed | Self::FenceRefused => {
                Severity::Warning
            }
            Self::BmcAuthFailed
            | Self::AgentLost
            | Self::BmcIdentityChanged
            | Self::FenceUnconfirmed
            | Self::FenceBroken
            | Self::BmcContradiction
            | Self::CapReached
            | Self::StormHeld => Severity::Critical,
        }
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for AlertKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("{text:?} is not a kind of alert: use one of {}", names.join(", "))
        })
    }
}

/// How much an alert matters, least first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    #[default]
    Warning,
    /// Somebody must look: without it hosts cannot be managed, or the wrong one is.
    Critical,
}

impl Severity {
    /// Lower-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether it still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It holds now.
    Firing,
    /// It ended.
    Resolved,
    /// It holds, but not yet for as long as it has to before anybody is told.
    Pending,
}

impl AlertState {
    /// Lower-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Pending => "pending",
        }
    }
}

impl fmt::Display for AlertState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Names of labels, on which silences match.
pub const LABELS: [&str; 7] = ["kind", "severity", "host", "agent", "zone", "cluster", "rack"];

/// Longest matcher, in bytes.
pub const MAX_MATCHER: usize = 512;

/// What a silence asks of one label: `host=r07n*`, `kind=bmc-lost|agent-lost`, `cluster!=c1`. `*` stands for anything, `|`
/// separates alternatives. A label that is absent is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Matcher {
    name: &'static str,
    is_equal: bool,
    value: String,
}

impl Matcher {
    /// A matcher for exactly this value.
    ///
    /// # Errors
    /// As [`Matcher::from_str`].
    pub fn exact(name: &str, value: &str) -> Result<Self, String> {
        format!("{name}={value}").parse()
    }

    /// The one value that this label must have, if there is just one.
    #[must_use]
    pub fn exact_value(&self, name: &str) -> Option<&str> {
        let is_exact = self.name == name && self.is_equal && !self.value.contains(['*', '|']);
        is_exact.then_some(self.value.as_str())
    }

    /// Whether an alert with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(self.name).map_or("", String::as_str);
        self.value.split('|').any(|pattern| glob(pattern, value)) == self.is_equal
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any text. Takes time in the product of both lengths at most.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            match rest.split_once(middle) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.name, if self.is_equal { "=" } else { "!=" }, self.value)
    }
}

impl FromStr for Matcher {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_MATCHER || text.chars().any(char::is_control) {
            return Err(format!("a matcher has at most {MAX_MATCHER} bytes and no control characters"));
        }
        let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not LABEL=VALUE or LABEL!=VALUE"))?;
        let (name, is_equal) = name.strip_suffix('!').map_or((name, true), |name| (name, false));
        let known = LABELS.into_iter().find(|label| *label == name);
        let name = known.ok_or_else(|| format!("{name:?} is not a label of alerts: use one of {}", LABELS.join(", ")))?;
        Ok(Self { name, is_equal, value: value.to_owned() })
    }
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use crate::api::{Alert, EventData, EventWhat, HistoryWhat};
    use crate::power::{Cause, PowerState};

    use super::*;

    #[test]
    fn names_are_the_same_in_json() {
        for kind in AlertKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        for state in [AlertState::Firing, AlertState::Resolved, AlertState::Pending] {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
            assert_eq!(serde_json::to_string(&severity).unwrap(), format!("\"{severity}\""));
        }
        assert!("bmc".parse::<AlertKind>().unwrap_err().contains("agent-lost"));
    }

    #[test]
    fn matchers() {
        let labels: BTreeMap<String, String> =
            [("kind", "bmc-lost"), ("host", "r07n01"), ("zone", "z1")].map(|(name, value)| (name.into(), value.into())).into();
        for (text, wanted) in [
            ("host=r07n01", true),
            ("host=r07n0", false),
            ("host=r07*", true),
            ("host=*01", true),
            ("host=r*n*1", true),
            ("host=*n*n*", false),
            ("host=r07n01*01", false),
            ("host=*", true),
            ("host=", false),
            ("host!=r07n01", false),
            ("host!=r08*", true),
            ("kind=bmc-auth-failed|bmc-lost", true),
            ("kind!=bmc-auth-failed|bmc-lost", false),
            ("agent=", true),
            ("agent=*", true),
            ("agent!=", false),
            ("cluster=c1", false),
        ] {
            let matcher: Matcher = text.parse().unwrap();
            assert_eq!(matcher.matches(&labels), wanted, "{text}");
            assert_eq!(matcher.to_string(), text);
            assert_eq!(serde_json::from_str::<Matcher>(&serde_json::to_string(&matcher).unwrap()).unwrap(), matcher);
        }
        for bad in ["host", "hots=x", "=x", "!=x", "host=\n", &format!("host={}", "x".repeat(MAX_MATCHER))] {
            assert!(bad.parse::<Matcher>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_of_an_alert_is_one_flat_object_and_reads_back() {
        let alert = r#"{"id":"bmc-lost.h1","kind":"bmc-lost","state":"firing","host":"h1","zone":"z1","cluster":"c1",
            "starts_at":"2026-01-01T00:00:00Z","summary":"the BMC of h1 does not answer"}"#;
        let alert: Alert = serde_json::from_str(alert).unwrap();
        assert_eq!((alert.count, alert.severity), (1, Severity::Warning), "an alert as it was written before");
        let place = |what| EventData {
            host: alert.host.clone(),
            zone: Some(alert.zone.clone()),
            cluster: alert.cluster.clone(),
            agent: None,
            what,
        };
        let power = HistoryWhat::Power { old: PowerState::On, new: PowerState::Off, cause: Cause::Poll, bmc_error: None };
        for what in [EventWhat::Alert(Box::new(alert.clone())), EventWhat::History(power), EventWhat::Presence { connected: true }]
        {
            let data = place(what);
            let json = serde_json::to_string(&data).unwrap();
            assert_eq!(json.matches("\"host\":").count(), 1, "{json}");
            assert_eq!(serde_json::from_str::<EventData>(&json).unwrap(), data);
        }
    }
}
