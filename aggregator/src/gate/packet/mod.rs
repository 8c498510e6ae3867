//! MQTT packets as a server reads and writes them, in versions 3.1.1 and 5: pure, no sockets.
//!
//! Written here because rumqttd's codec keeps a PUBLISH's packet id and QoS to itself (without them nothing can be
//! acknowledged by anybody but its router) and does not refuse what the standard calls malformed. A server that faces the
//! network reads seven packet types and writes seven; QoS 2 is not spoken. What both versions have is read and written once;
//! what MQTT 5 adds are properties (`property.rs`) and reason codes (`reason.rs`). Sections are those of MQTT 5.

pub(super) mod answer;
mod body;
mod parse;
mod property;
mod reason;

use bytes::{Bytes, BytesMut};

pub(super) use reason::Reason;

use crate::broker::Terms;
use body::{Body, variable};
use parse::packet;

/// What a client speaks, said in its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Mqtt311,
    Mqtt5,
}

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    Connect(Connect),
    Publish(Publish),
    PubAck(u16),
    Subscribe(Subscribe),
    Unsubscribe { id: u16, filters: Vec<String> },
    PingReq,
    Disconnect { leaves_will: bool },
}

/// CONNECT (§3.1). User name and password are read over: the certificate says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connect {
    pub version: Version,
    pub client_id: String,
    pub keep_alive_seconds: u16,
    pub will: Option<Will>,
    pub session_expiry_seconds: u32,
    pub takes: Takes,
}

/// What a client takes at most (§3.1.2.11.3, §3.1.2.11.4); all there is, when it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Takes {
    /// QoS 1 messages it has not acknowledged.
    pub unacknowledged: usize,
    /// Bytes of a packet.
    pub packet_len: usize,
}

/// The last will in a CONNECT. A delay is none here: it ends with the session (§3.1.3.2.2), and a session with its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Will {
    pub topic: String,
    pub payload: Bytes,
    pub retain: bool,
}

/// PUBLISH (§3.3) with QoS 0 (no id) or 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub topic: String,
    pub payload: Bytes,
    pub id: Option<u16>,
    pub retain: bool,
}

/// SUBSCRIBE (§3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscribe {
    pub id: u16,
    pub filters: Vec<Asked>,
    /// It wants its messages marked with a number.
    pub identified: bool,
}

/// One subscription asked for. "No local" is read over: nobody here hears what he says himself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub filter: String,
    pub terms: Terms,
    pub retained: Retained,
}

/// Whether the retained documents are wanted with a subscription ("Retain Handling").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retained {
    Always,
    IfNew,
    Never,
}

/// Why bytes are not a packet; each ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PacketError {
    #[error("packet of {len} bytes is over the limit of {max}")]
    TooLong { len: usize, max: usize },
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error("too many: {0}")]
    TooMany(&'static str),
    #[error("packet type {0} is not for a server, or speaks of QoS 2")]
    Type(u8),
    #[error("QoS 2 is not spoken here")]
    Qos,
    #[error("topic aliases are not spoken here")]
    TopicAlias,
    #[error("the certificate is the only authentication here")]
    Authentication,
    #[error("protocol level {0} is not spoken here; 4 (MQTT 3.1.1) and 5 are")]
    Level(u8),
    #[error("the first packet is not a CONNECT")]
    NotConnect,
}

use PacketError::Malformed;

impl PacketError {
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::TooLong { .. } => Reason::TooLarge,
            Self::Malformed(_) => Reason::Malformed,
            Self::Protocol(_) | Self::Type(_) | Self::NotConnect => Reason::Protocol,
            Self::TooMany(_) => Reason::Quota,
            Self::Qos => Reason::Qos,
            Self::TopicAlias => Reason::TopicAlias,
            Self::Authentication => Reason::AuthenticationMethod,
            Self::Level(_) => Reason::Version,
        }
    }
}

/// Takes the next whole packet off `buffer`; `None` when more bytes are needed. `spoken` is what the client's CONNECT said;
/// before one has come, nothing else is taken.
///
/// A packet over `max` bytes is refused from its header alone, before its body has arrived.
pub(super) fn decode(buffer: &mut BytesMut, max: usize, spoken: Option<Version>) -> Result<Option<Packet>, PacketError> {
    let Some((first, header_len, body_len)) = header(buffer)? else { return Ok(None) };
    let kind = kind(first)?;
    if spoken.is_none() && kind != 1 {
        return Err(PacketError::NotConnect);
    }
    let len = header_len + body_len;
    if len > max {
        return Err(PacketError::TooLong { len, max });
    }
    if buffer.len() < len {
        return Ok(None);
    }
    let mut body = Body::new(buffer.split_to(len).freeze().slice(header_len..));
    let packet = packet(kind, first & 0x0f, &mut body, spoken.unwrap_or(Version::Mqtt311))?;
    if body.is_empty() { Ok(Some(packet)) } else { Err(Malformed("bytes after its end")) }
}

/// The version in which a client understands why its CONNECT, at the beginning of `buffer`, is refused.
pub(super) fn understood(buffer: &[u8]) -> Version {
    let body = header(buffer).ok().flatten().and_then(|(_, header_len, _)| buffer.get(header_len..));
    let level = body.and_then(|body| body.strip_prefix(b"\0\x04MQTT")).and_then(<[u8]>::first);
    if level.is_some_and(|&level| level >= 5) { Version::Mqtt5 } else { Version::Mqtt311 }
}

/// First byte, length of the fixed header, length of the rest (§2.1).
fn header(buffer: &[u8]) -> Result<Option<(u8, usize, usize)>, PacketError> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
    let Some((len, header_len)) = variable(rest)? else { return Ok(None) };
    // What does not fit is longer than any limit.
    Ok(Some((first, 1 + header_len, usize::try_from(len).unwrap_or(usize::MAX / 2))))
}

/// The packet type, when it is one for a server with the flags it must have; known before its body has come.
fn kind(first: u8) -> Result<u8, PacketError> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    match (kind, flags) {
        (3, _) | (8 | 10, 0b0010) | (1 | 4 | 12 | 14, 0) => Ok(kind),
        (1 | 4 | 8 | 10 | 12 | 14, _) => Err(Malformed("reserved flags")),
        _ => Err(PacketError::Type(kind)),
    }
}

#[cfg(test)]
mod tests;
