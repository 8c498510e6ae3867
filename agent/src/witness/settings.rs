//! `[witness]` of the agent's own file: what a host's witness shows, writes and listens on.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use picket_common::ha::settings::WITNESS_PORT;
use serde::Deserialize;

/// `[witness]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where agents call.
    pub listen: SocketAddr,
    /// Folders whose files it may be asked about, after all symbolic links are followed.
    pub allowed_paths: Vec<Absolute>,
    /// Folders whose files are this host's own, and nobody else's.
    pub own_files: Vec<Absolute>,
    /// What it writes as a sign of life.
    pub heartbeat: Option<Heartbeat>,
}

impl Default for Config {
    fn default() -> Self {
        let listen = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), WITNESS_PORT);
        Self { listen, allowed_paths: Vec::new(), own_files: Vec::new(), heartbeat: None }
    }
}

/// A file that is written again and again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// Which.
    pub path: Absolute,
    /// Pause between two times, in seconds.
    #[serde(default)]
    pub interval: Interval,
}

/// An absolute path without `..`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Absolute(pub String);

impl TryFrom<String> for Absolute {
    type Error = String;
    fn try_from(path: String) -> Result<Self, String> {
        let good = path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains('\0');
        if good { Ok(Self(path)) } else { Err(format!("{path:?} is not an absolute path without `..`")) }
    }
}

/// Seconds, 1 to 60.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Interval(Duration);

impl Default for Interval {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl TryFrom<i64> for Interval {
    type Error = String;
    fn try_from(seconds: i64) -> Result<Self, String> {
        match u64::try_from(seconds) {
            Ok(seconds @ 1..=60) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(format!("interval is {seconds}; use 1 to 60 seconds")),
        }
    }
}

impl From<Interval> for Duration {
    fn from(Interval(interval): Interval) -> Self {
        interval
    }
}
