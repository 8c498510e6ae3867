//! Every topic in one place: made here, parsed here, and who may do what with it decided here.

use std::fmt;

use crate::id::{AgentId, ClusterId, HostId, ZoneId};

/// The internal tree's channels of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Agent → aggregator: reports and heartbeats.
    Up,
    /// Agent → aggregator: a new connection introduces itself.
    Hello,
    /// Agent → aggregator: its will.
    Gone,
    /// Aggregator → agent: durable acks, resend requests, clock echoes. Signed.
    Ack,
    /// Aggregator → agent: commands. Signed, never retained.
    Cmd,
    /// Aggregator → agent: the assignment. Signed.
    Assign,
}

impl Channel {
    const ALL: [Self; 6] = [Self::Up, Self::Hello, Self::Gone, Self::Ack, Self::Cmd, Self::Assign];

    /// Channels the aggregator writes and the agent reads.
    pub const DOWN: [Self; 3] = [Self::Ack, Self::Cmd, Self::Assign];

    /// Last segment of the topic.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Hello => "hello",
            Self::Gone => "gone",
            Self::Ack => "ack",
            Self::Cmd => "cmd",
            Self::Assign => "assign",
        }
    }

    /// Whether the agent is the one who writes here.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Hello | Self::Gone)
    }
}

const INTERNAL: &str = "picket/v1/i/";

/// Topic of an agent's channel: `picket/v1/i/{agent}/{channel}`.
#[must_use]
pub fn internal(agent: &AgentId, channel: Channel) -> String {
    format!("{INTERNAL}{agent}/{}", channel.as_str())
}

/// The agent and channel of an internal topic.
#[must_use]
pub fn parse_internal(topic: &str) -> Option<(AgentId, Channel)> {
    let (agent, channel) = topic.strip_prefix(INTERNAL)?.split_once('/')?;
    let channel = Channel::ALL.into_iter().find(|c| c.as_str() == channel)?;
    Some((agent.parse().ok()?, channel))
}

/// Filter of all that agents send on one channel, for the aggregator on an external broker.
#[must_use]
pub fn internal_filter(channel: Channel) -> String {
    format!("{INTERNAL}+/{}", channel.as_str())
}

/// A topic of the public tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Public {
    /// Retained state of a host.
    State(ZoneId, ClusterId, HostId),
    /// An event of a host, with its kind.
    Event(ZoneId, ClusterId, HostId, &'static str),
    /// Retained presence of an agent.
    Agent(AgentId),
    /// An alert, retained while firing, by its id.
    Alert(String),
    /// Retained status of the aggregator.
    Status,
}

impl fmt::Display for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(zone, cluster, host) => write!(f, "picket/v1/state/{zone}/{cluster}/{host}"),
            Self::Event(zone, cluster, host, kind) => write!(f, "picket/v1/event/{zone}/{cluster}/{host}/{kind}"),
            Self::Agent(agent) => write!(f, "picket/v1/agent/{agent}"),
            Self::Alert(id) => write!(f, "picket/v1/alert/{id}"),
            Self::Status => f.write_str("picket/v1/status"),
        }
    }
}

const PUBLIC_BRANCHES: [&str; 5] = ["state", "event", "agent", "alert", "status"];

/// Whether `filter` can match nothing but public topics: `picket/v1/{state,event,agent,alert,status}/…`.
///
/// A wildcard at or above the branch would also reach the internal tree, so it is not public.
#[must_use]
pub fn is_public_filter(filter: &str) -> bool {
    let mut segments = filter.split('/');
    segments.next() == Some("picket")
        && segments.next() == Some("v1")
        && segments.next().is_some_and(|branch| PUBLIC_BRANCHES.contains(&branch))
}

/// Whether `filter` is well formed (MQTT 3.1.1 §4.7): `+` alone in its level, `#` alone and last, not empty, no NUL.
#[must_use]
pub fn is_valid_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let last = levels.len() - 1;
    !filter.is_empty()
        && !filter.contains('\0')
        && levels.iter().enumerate().all(|(i, level)| match *level {
            "+" => true,
            "#" => i == last,
            other => !other.contains(['+', '#']),
        })
}

/// Whether `topic` is matched by `filter` (MQTT 3.1.1 §4.7).
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut filter = filter.split('/');
    let mut topic = topic.split('/');
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_topics_round_trip() {
        let agent: AgentId = "r07".parse().unwrap();
        for channel in Channel::ALL {
            assert_eq!(parse_internal(&internal(&agent, channel)), Some((agent.clone(), channel)));
        }
        for bad in ["picket/v1/i/r07/x", "picket/v1/i/r07/up/x", "picket/v1/i/R07/up", "picket/v1/i//up", "picket/v1/i/+/up", "x"] {
            assert_eq!(parse_internal(bad), None, "{bad}");
        }
    }

    #[test]
    fn public_filters_stay_public() {
        for good in ["picket/v1/state/#", "picket/v1/event/+/+/h/+", "picket/v1/status", "picket/v1/agent/+"] {
            assert!(is_public_filter(good) && is_valid_filter(good), "{good}");
        }
        for bad in [
            "#",
            "picket/#",
            "picket/v1/#",
            "picket/v1/+/r07/up",
            "+/v1/state/#",
            "picket/v1/i/r07/up",
            "picket/+/state/#",
            "$SYS/#",
            "$share/g/picket/v1/state/#",
        ] {
            assert!(!is_public_filter(bad), "{bad}");
        }
        for bad in ["", "a/#/b", "a+/b", "a/b#", "a\0"] {
            assert!(!is_valid_filter(bad), "{bad}");
        }
    }

    #[test]
    fn matching() {
        for (filter, topic, wanted) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/b/d", false),
        ] {
            assert_eq!(matches(filter, topic), wanted, "{filter} {topic}");
        }
    }
}
