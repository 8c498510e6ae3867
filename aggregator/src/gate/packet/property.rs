//! Properties (MQTT 5 §2.2.2): read by a table, so that whatever a packet may not have is refused. Only numbers are kept; what
//! a text says changes nothing here.

use super::PacketError::{self, Malformed, Protocol};
use super::Version;
use super::body::Body;

/// User properties a packet may have: they are read over, and a packet must not be all of them.
const MAX_USER_PROPERTIES: usize = 64;

/// Where properties stand. Those of packets that only a server sends are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Connect,
    Will,
    Publish,
    PubAck,
    Subscribe,
    Unsubscribe,
    Disconnect,
}

pub(super) const SESSION_EXPIRY: u8 = 0x11;
pub(super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(super) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(super) const SUBSCRIPTION_ID: u8 = 0x0b;
pub(super) const REASON_STRING: u8 = 0x1f;
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const TOPIC_ALIAS: u8 = 0x23;
pub(super) const MAXIMUM_QOS: u8 = 0x24;
pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
pub(super) const USER_PROPERTY: u8 = 0x26;
pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(super) const SUBSCRIPTION_ID_AVAILABLE: u8 = 0x29;
pub(super) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2a;

/// How a value is written.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A byte that is 0 or 1.
    Flag,
    U16,
    U32,
    /// As `U16`, never 0.
    Positive16,
    /// As `U32`, never 0.
    Positive32,
    /// A variable byte integer, never 0.
    Variable,
    Text,
    /// A text without wildcards.
    Topic,
    Bytes,
    Pair,
}

const MESSAGE: &[Place] = &[Place::Publish, Place::Will];
const CONNECT: &[Place] = &[Place::Connect];

/// What a client may send (§2.2.2.2, table 2-4).
const TABLE: [(u8, Kind, &[Place]); 18] = [
    (0x01, Kind::Flag, MESSAGE),
    (0x02, Kind::U32, MESSAGE),
    (0x03, Kind::Text, MESSAGE),
    (0x08, Kind::Topic, MESSAGE),
    (0x09, Kind::Bytes, MESSAGE),
    (SUBSCRIPTION_ID, Kind::Variable, &[Place::Subscribe]),
    (SESSION_EXPIRY, Kind::U32, &[Place::Connect, Place::Disconnect]),
    (AUTHENTICATION_METHOD, Kind::Text, CONNECT),
    (0x16, Kind::Bytes, CONNECT),
    (0x17, Kind::Flag, CONNECT),
    (0x18, Kind::U32, &[Place::Will]),
    (0x19, Kind::Flag, CONNECT),
    (REASON_STRING, Kind::Text, &[Place::PubAck, Place::Disconnect]),
    (RECEIVE_MAXIMUM, Kind::Positive16, CONNECT),
    (0x22, Kind::U16, CONNECT),
    (TOPIC_ALIAS, Kind::U16, &[Place::Publish]),
    (
        USER_PROPERTY,
        Kind::Pair,
        &[Place::Connect, Place::Will, Place::Publish, Place::PubAck, Place::Subscribe, Place::Unsubscribe, Place::Disconnect],
    ),
    (MAXIMUM_PACKET_SIZE, Kind::Positive32, CONNECT),
];

/// The properties of one packet: which there are, and the numbers among them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Properties(Vec<(u8, u32)>);

impl Properties {
    /// Takes the properties off `body`; in MQTT 3.1.1 there are none.
    pub(super) fn read(body: &mut Body, place: Place, version: Version) -> Result<Self, PacketError> {
        let mut properties = Self::default();
        if version == Version::Mqtt311 {
            return Ok(properties);
        }
        let len = body.variable()?;
        let mut part = body.part(len)?;
        let mut pairs = 0;
        while !part.is_empty() {
            let (id, kind) = kind(&mut part, place)?;
            if properties.has(id) {
                return Err(Protocol("a property twice"));
            }
            let number = value(&mut part, kind)?;
            if matches!(kind, Kind::Pair) {
                pairs += 1;
            } else {
                properties.0.push((id, number));
            }
            if pairs > MAX_USER_PROPERTIES {
                return Err(PacketError::TooMany("more user properties than a packet may have"));
            }
        }
        Ok(properties)
    }

    pub(super) fn has(&self, id: u8) -> bool {
        self.number(id).is_some()
    }

    /// Its value; 0 when that is no number.
    pub(super) fn number(&self, id: u8) -> Option<u32> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, number)| *number)
    }
}

fn kind(part: &mut Body, place: Place) -> Result<(u8, Kind), PacketError> {
    let id = part.variable()?;
    let (id, kind, places) = TABLE.iter().find(|(known, ..)| u32::from(*known) == id).ok_or(Malformed("an unknown property"))?;
    if places.contains(&place) { Ok((*id, *kind)) } else { Err(Malformed("a property that is not for its packet")) }
}

fn value(part: &mut Body, kind: Kind) -> Result<u32, PacketError> {
    let number = match kind {
        Kind::Flag => part.u8()?.into(),
        Kind::U16 | Kind::Positive16 => part.u16()?.into(),
        Kind::U32 | Kind::Positive32 => part.u32()?,
        Kind::Variable => part.variable()?,
        Kind::Bytes => part.bytes().map(|_| 0)?,
        Kind::Text => part.text().map(|_| 0)?,
        Kind::Pair => part.text().and(part.text()).map(|_| 0)?,
        Kind::Topic => {
            let topic = part.text()?;
            if topic.is_empty() || topic.contains(['+', '#']) {
                return Err(Protocol("response topic"));
            }
            0
        }
    };
    match (kind, number) {
        (Kind::Flag, 2..) => Err(Protocol("a property that is neither 0 nor 1")),
        (Kind::Positive16 | Kind::Positive32 | Kind::Variable, 0) => Err(Protocol("a property that must not be 0")),
        _ => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::body::put_variable;
    use super::*;

    fn read(bytes: &[u8], place: Place) -> Result<Properties, PacketError> {
        let mut body = Body::new(bytes.to_vec().into());
        let properties = Properties::read(&mut body, place, Version::Mqtt5)?;
        assert!(body.is_empty());
        Ok(properties)
    }

    #[test]
    fn numbers_are_kept_and_texts_read_over() {
        let all = b"\x22\x11\0\0\0\x3c\x21\0\x14\x27\0\x01\0\0\x22\0\x05\x19\x01\x17\0\x26\0\x01a\0\x01b\x26\0\x01a\0\x01c";
        let properties = read(all, Place::Connect).unwrap();
        for (id, wanted) in [
            (SESSION_EXPIRY, Some(60)),
            (RECEIVE_MAXIMUM, Some(20)),
            (MAXIMUM_PACKET_SIZE, Some(65_536)),
            (0x22, Some(5)),
            (0x19, Some(1)),
            (0x17, Some(0)),
            (USER_PROPERTY, None),
            (AUTHENTICATION_METHOD, None),
        ] {
            assert_eq!(properties.number(id), wanted, "{id:#x}");
        }
        assert!(read(b"\x04\x15\0\x01x", Place::Connect).unwrap().has(AUTHENTICATION_METHOD));
        assert_eq!(read(b"\x02\x0b\x07", Place::Subscribe).unwrap().number(SUBSCRIPTION_ID), Some(7));
        assert_eq!(read(b"\0", Place::Will), Ok(Properties::default()));
        let mut body = Body::new(b"\xff".to_vec().into());
        assert_eq!(Properties::read(&mut body, Place::Connect, Version::Mqtt311), Ok(Properties::default()));
        assert_eq!(body.u8(), Ok(0xff), "3.1.1 has none");
    }

    #[test]
    fn what_is_not_for_its_place_is_refused() {
        for (bytes, place, wanted) in [
            (&b"\x05\x11\0\0\0\x3c"[..], Place::Publish, Malformed("a property that is not for its packet")),
            (b"\x03\x12\0\0", Place::Connect, Malformed("an unknown property")),
            (b"\x01\x7f", Place::Connect, Malformed("an unknown property")),
            (b"\x02\x80\x7f", Place::Connect, Malformed("an unknown property")),
            (b"\x02\x0b\x07", Place::Publish, Malformed("a property that is not for its packet")),
            (b"\x02\x0b\x00", Place::Subscribe, Protocol("a property that must not be 0")),
            (b"\x03\x21\0\0", Place::Connect, Protocol("a property that must not be 0")),
            (b"\x05\x27\0\0\0\0", Place::Connect, Protocol("a property that must not be 0")),
            (b"\x02\x17\x02", Place::Connect, Protocol("a property that is neither 0 nor 1")),
            (b"\x06\x21\0\x01\x21\0\x01", Place::Connect, Protocol("a property twice")),
            (b"\x06\x08\0\x03a/#", Place::Publish, Protocol("response topic")),
            (b"\x03\x08\0\0", Place::Will, Protocol("response topic")),
            (b"\x03\x11\0\0", Place::Connect, Malformed("too short")),
            (b"\x05\x26\0\x01a\0", Place::Connect, Malformed("too short")),
            (b"\x05\x11\0", Place::Connect, Malformed("too short")),
            (b"\xff\xff\xff\xff", Place::Connect, Malformed("variable byte integer")),
            (b"", Place::Connect, Malformed("too short")),
            (b"\x07\x26\0\x01\xff\0\x01b", Place::Connect, Malformed("text that is not UTF-8")),
        ] {
            assert_eq!(read(bytes, place).unwrap_err(), wanted, "{bytes:x?}");
        }
    }

    #[test]
    fn user_properties_are_bounded() {
        let pairs = |count: usize| {
            let mut out = BytesMut::new();
            put_variable(&mut out, 5 * count);
            [&out[..], &b"\x26\0\0\0\0".repeat(count)].concat()
        };
        assert!(read(&pairs(MAX_USER_PROPERTIES), Place::Publish).is_ok());
        let wanted = PacketError::TooMany("more user properties than a packet may have");
        assert_eq!(read(&pairs(MAX_USER_PROPERTIES + 1), Place::Publish), Err(wanted));
    }
}
