//! Whether the agent's own network works: an address of its own file answers.

use std::net::IpAddr;

use serde::Deserialize;

use super::dial::Dialler;
use super::turn::Turn;
use super::{icmp, tcp};
use crate::sign::Sign;

/// An address that always answers as long as this machine's network works: `tcp://host:port`, or an IP address to ping.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Reference(String);

enum Kind<'a> {
    Tcp(&'a str, u16),
    Ping(IpAddr),
}

fn kind(text: &str) -> Option<Kind<'_>> {
    let Some(rest) = text.strip_prefix("tcp://") else { return text.parse().ok().map(Kind::Ping) };
    let (host, port) = rest.rsplit_once(':')?;
    let bare = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']'))?;
    let good = !bare.is_empty() && !bare.contains(['/', '@', '[', ']']) && (bare == host) != bare.contains(':');
    let port = port.parse().ok().filter(|port| *port > 0)?;
    good.then_some(Kind::Tcp(bare, port))
}

impl TryFrom<String> for Reference {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match kind(&text) {
            Some(_) => Ok(Self(text)),
            None => Err(format!("reference address {text:?} is neither tcp://HOST:PORT nor an IP address")),
        }
    }
}

impl Reference {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Calls there. A refusal does not count as an answer: it may come from a filter nearer than the address.
pub(super) async fn reach(dialler: &Dialler, text: &str, turn: &Turn<'_>) -> Result<Sign, Sign> {
    match kind(text) {
        Some(Kind::Tcp(host, port)) => tcp::knock(dialler, host, port, turn).await,
        Some(Kind::Ping(ip)) => icmp::ping(dialler, &ip.to_string(), turn).await,
        None => Err(Sign::CannotTell(format!("{text:?} is not an address"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in ["10.0.0.1", "fd00::1", "tcp://10.0.0.1:22", "tcp://gw.example:443", "tcp://[fd00::1]:22"] {
            assert_eq!(Reference::try_from(good.to_owned()).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "gw.example",
            "tcp://",
            "tcp://x",
            "tcp://:22",
            "tcp://x:0",
            "tcp://x:y",
            "tcp://fd00::1:22",
            "tcp://[fd00::1:22",
            "tcp://[x]:1",
            "tcp://a@b:1",
            "udp://x:1",
        ] {
            assert!(Reference::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
