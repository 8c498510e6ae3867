//! INGEST: what the bytes on an agent's channel mean. Pure; never judges whether it is true, and trusts the gate for who said it.

use picket_common::id::AgentId;
use picket_common::wire::codec::{WireError, decode};
use picket_common::wire::topic::Channel;

use crate::fleet::{Event, Heard};

/// A message that does not reach the fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Dropped {
    /// Who sent it.
    pub agent: AgentId,
    /// Why.
    pub reason: Reason,
}

/// Why a message does not reach the fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A channel that agents read and do not write.
    #[error("agents do not write to channel {}", .0.as_str())]
    Channel(Channel),
    /// Its bytes are not a message of that channel.
    #[error("not a message: {0}")]
    Message(WireError),
}

impl Reason {
    /// Stable short word, for counters.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Channel(_) => "channel",
            Self::Message(WireError::Version(_)) => "version",
            Self::Message(WireError::TooLong { .. }) => "too-long",
            Self::Message(_) => "message",
        }
    }
}

/// Reads what `agent` wrote to `channel`.
///
/// # Errors
/// [`Dropped`] when agents do not write there or the bytes are not its message.
pub fn read(agent: AgentId, channel: Channel, payload: &[u8]) -> Result<Event, Dropped> {
    match heard(channel, payload) {
        Ok(heard) => Ok(Event::Heard(agent, heard)),
        Err(reason) => Err(Dropped { agent, reason }),
    }
}

fn heard(channel: Channel, payload: &[u8]) -> Result<Heard, Reason> {
    match channel {
        Channel::Hello => decode(payload).map(Heard::Hello),
        Channel::Up => decode(payload).map(Heard::Up),
        Channel::Gone => decode(payload).map(Heard::Gone),
        Channel::Ack | Channel::Cmd | Channel::Assign => return Err(Reason::Channel(channel)),
    }
    .map_err(Reason::Message)
}

#[cfg(test)]
mod tests {
    use picket_common::wire::Session;
    use picket_common::wire::codec::{MAX_FRAME_LEN, encode};
    use picket_common::wire::report::Gone;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_an_agents_own_channels_with_their_own_messages() {
        let gone = Gone { session: Session(Uuid::from_u128(7)) };
        let frame = encode(&gone).unwrap();
        let agent: AgentId = "r07".parse().unwrap();
        match read(agent.clone(), Channel::Gone, &frame).unwrap() {
            Event::Heard(agent, Heard::Gone(heard)) => assert_eq!((agent.as_str(), heard), ("r07", gone)),
            other => panic!("{other:?}"),
        }
        let mut version = frame.clone();
        version[2] = 9;
        let mut longer = frame.clone();
        longer.push(0);
        let huge = vec![0; MAX_FRAME_LEN + 1];
        for (channel, payload, code) in [
            (Channel::Cmd, &frame, "channel"),
            (Channel::Ack, &frame, "channel"),
            (Channel::Assign, &frame, "channel"),
            (Channel::Up, &frame, "message"),
            (Channel::Hello, &frame, "message"),
            (Channel::Gone, &version, "version"),
            (Channel::Gone, &longer, "message"),
            (Channel::Gone, &Vec::new(), "message"),
            (Channel::Gone, &huge, "too-long"),
        ] {
            let dropped = read(agent.clone(), channel, payload).unwrap_err();
            assert_eq!((&dropped.agent, dropped.reason.code()), (&agent, code), "{channel:?}: {dropped}");
        }
    }
}
