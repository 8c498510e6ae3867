//! MQTT 3.1.1 packets as a server reads and writes them: pure, no sockets.
//!
//! Written here because rumqttd's codec keeps a PUBLISH's packet id and QoS to itself (without them nothing can be
//! acknowledged by anybody but its router) and does not refuse what the standard calls malformed. A server that faces the
//! network reads seven packet types and writes six; QoS 2 is not spoken.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::broker::Qos;

/// Filters a SUBSCRIBE or UNSUBSCRIBE may have: as many as a consumer may have subscriptions.
const MAX_FILTERS: usize = 64;

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    Connect(Connect),
    Publish(Publish),
    PubAck(u16),
    Subscribe { id: u16, filters: Vec<(String, Qos)> },
    Unsubscribe { id: u16, filters: Vec<String> },
    PingReq,
    Disconnect,
}

/// CONNECT (§3.1). User name and password are read over: the certificate says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Connect {
    pub client_id: String,
    pub clean_session: bool,
    pub keep_alive_seconds: u16,
    pub will: Option<Will>,
}

/// The last will in a CONNECT.
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

/// Why bytes are not a packet; each ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PacketError {
    #[error("packet of {len} bytes is over the limit of {max}")]
    TooLong { len: usize, max: usize },
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    #[error("packet type {0} is not for a server, or speaks of QoS 2")]
    Type(u8),
    #[error("protocol level {0} is not spoken here, 4 (MQTT 3.1.1) is")]
    Level(u8),
}

use PacketError::Malformed;

/// Takes the next whole packet off `buffer`; `None` when more bytes are needed.
///
/// A packet over `max` bytes is refused from its header alone, before its body has arrived.
pub(super) fn decode(buffer: &mut BytesMut, max: usize) -> Result<Option<Packet>, PacketError> {
    let Some((first, header_len, body_len)) = header(buffer)? else { return Ok(None) };
    let kind = kind(first)?;
    let len = header_len + body_len;
    if len > max {
        return Err(PacketError::TooLong { len, max });
    }
    if buffer.len() < len {
        return Ok(None);
    }
    let mut body = Body(buffer.split_to(len).freeze());
    body.0.advance(header_len);
    let packet = packet(kind, first & 0x0f, &mut body)?;
    if body.0.is_empty() { Ok(Some(packet)) } else { Err(Malformed("bytes after its end")) }
}

/// First byte, length of the fixed header, length of the rest (§2.2).
fn header(buffer: &[u8]) -> Result<Option<(u8, usize, usize)>, PacketError> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
    let mut len = 0;
    for (i, &byte) in rest.iter().take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((first, i + 2, len)));
        }
    }
    if rest.len() < 4 { Ok(None) } else { Err(Malformed("remaining length")) }
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

fn packet(kind: u8, flags: u8, body: &mut Body) -> Result<Packet, PacketError> {
    match kind {
        1 => connect(body).map(Packet::Connect),
        3 => publish(flags, body).map(Packet::Publish),
        4 => body.id().map(Packet::PubAck),
        8 => subscribe(body),
        10 => unsubscribe(body),
        12 => Ok(Packet::PingReq),
        14 => Ok(Packet::Disconnect),
        other => Err(PacketError::Type(other)),
    }
}

fn connect(body: &mut Body) -> Result<Connect, PacketError> {
    let name = body.bytes()?;
    let level = body.u8()?;
    match (&name[..], level) {
        (b"MQTT", 4) => {}
        (b"MQTT" | b"MQIsdp", other) => {
            body.0.clear();
            return Err(PacketError::Level(other));
        }
        _ => return Err(Malformed("protocol name")),
    }
    let flags = body.u8()?;
    let has = |bit: u8| flags & (1 << bit) != 0;
    let will_qos = flags >> 3 & 0b11;
    if has(0) || will_qos == 3 || (!has(2) && (will_qos != 0 || has(5))) || (has(6) && !has(7)) {
        return Err(Malformed("connect flags"));
    }
    let keep_alive_seconds = body.u16()?;
    let client_id = body.text()?;
    if client_id.is_empty() && !has(1) {
        return Err(Malformed("no client id, and not a clean session"));
    }
    let will = if has(2) {
        Some(Will { topic: body.text()?, payload: Bytes::copy_from_slice(&body.bytes()?), retain: has(5) })
    } else {
        None
    };
    if has(7) {
        body.text()?;
    }
    if has(6) {
        body.bytes()?;
    }
    Ok(Connect { client_id, clean_session: has(1), keep_alive_seconds, will })
}

fn publish(flags: u8, body: &mut Body) -> Result<Publish, PacketError> {
    let qos = flags >> 1 & 0b11;
    let dup = flags & 0b1000 != 0;
    let topic = body.text()?;
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(Malformed("topic name"));
    }
    let id = match qos {
        0 if dup => return Err(Malformed("a duplicate at QoS 0")),
        0 => None,
        1 => Some(body.id()?),
        2 => return Err(PacketError::Type(3)),
        _ => return Err(Malformed("QoS 3")),
    };
    // Copied: a slice would keep the connection's whole read buffer alive for as long as the message lives.
    let payload = Bytes::copy_from_slice(&body.0);
    body.0.clear();
    Ok(Publish { topic, payload, id, retain: flags & 1 != 0 })
}

fn subscribe(body: &mut Body) -> Result<Packet, PacketError> {
    let id = body.id()?;
    let mut filters = Vec::new();
    while !body.0.is_empty() {
        let filter = body.text()?;
        let qos = match body.u8()? {
            0 => Qos::AtMostOnce,
            1 | 2 => Qos::AtLeastOnce,
            _ => return Err(Malformed("requested QoS")),
        };
        push_filter(&mut filters, (filter, qos))?;
    }
    if filters.is_empty() { Err(Malformed("no filter")) } else { Ok(Packet::Subscribe { id, filters }) }
}

fn unsubscribe(body: &mut Body) -> Result<Packet, PacketError> {
    let id = body.id()?;
    let mut filters = Vec::new();
    while !body.0.is_empty() {
        push_filter(&mut filters, body.text()?)?;
    }
    if filters.is_empty() { Err(Malformed("no filter")) } else { Ok(Packet::Unsubscribe { id, filters }) }
}

fn push_filter<T>(filters: &mut Vec<T>, filter: T) -> Result<(), PacketError> {
    if filters.len() == MAX_FILTERS {
        return Err(Malformed("more filters than a packet may have"));
    }
    filters.push(filter);
    Ok(())
}

/// What is left of a packet's variable header and payload.
struct Body(Bytes);

impl Body {
    fn u8(&mut self) -> Result<u8, PacketError> {
        self.0.try_get_u8().map_err(|_| Malformed("too short"))
    }

    fn u16(&mut self) -> Result<u16, PacketError> {
        self.0.try_get_u16().map_err(|_| Malformed("too short"))
    }

    /// A packet id is never 0 (§2.3.1).
    fn id(&mut self) -> Result<u16, PacketError> {
        match self.u16()? {
            0 => Err(Malformed("packet id 0")),
            id => Ok(id),
        }
    }

    fn bytes(&mut self) -> Result<Bytes, PacketError> {
        let len = usize::from(self.u16()?);
        if len > self.0.len() { Err(Malformed("too short")) } else { Ok(self.0.split_to(len)) }
    }

    /// UTF-8 without U+0000 (§1.5.3).
    fn text(&mut self) -> Result<String, PacketError> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Malformed("text that is not UTF-8"))?;
        if text.contains('\0') { Err(Malformed("U+0000 in a text")) } else { Ok(text.to_owned()) }
    }
}

/// Answer to a CONNECT (§3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnAck {
    Accepted = 0,
    Level = 1,
    ClientId = 2,
    Unavailable = 3,
    NotAuthorized = 5,
}

/// A SUBACK's code for a filter that is not allowed (§3.9.3).
pub(super) const DENIED: u8 = 0x80;

pub(super) fn connack(out: &mut BytesMut, code: ConnAck) {
    out.put_slice(&[0x20, 2, 0, code as u8]);
}

/// The refusal an MQTT 5 client understands: CONNACK, reason 0x84 Unsupported Protocol Version, no properties.
pub(super) fn connack_v5_refusal(out: &mut BytesMut) {
    out.put_slice(&[0x20, 3, 0, 0x84, 0]);
}

pub(super) fn puback(out: &mut BytesMut, id: u16) {
    out.put_slice(&[0x40, 2]);
    out.put_u16(id);
}

pub(super) fn suback(out: &mut BytesMut, id: u16, codes: &[u8]) {
    out.put_u8(0x90);
    remaining_length(out, 2 + codes.len());
    out.put_u16(id);
    out.put_slice(codes);
}

pub(super) fn unsuback(out: &mut BytesMut, id: u16) {
    out.put_slice(&[0xb0, 2]);
    out.put_u16(id);
}

pub(super) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xd0, 0]);
}

/// A PUBLISH at QoS 1 when there is an `id`, else at QoS 0. A topic longer than MQTT can say is cut off by nobody: the broker
/// takes none.
pub(super) fn publish_out(out: &mut BytesMut, topic: &str, payload: &[u8], id: Option<u16>, retain: bool) {
    let Ok(topic_len) = u16::try_from(topic.len()) else { return };
    out.put_u8(0x30 | u8::from(id.is_some()) << 1 | u8::from(retain));
    remaining_length(out, 2 + topic.len() + usize::from(id.is_some()) * 2 + payload.len());
    out.put_u16(topic_len);
    out.put_slice(topic.as_bytes());
    if let Some(id) = id {
        out.put_u16(id);
    }
    out.put_slice(payload);
}

fn remaining_length(out: &mut BytesMut, mut len: usize) {
    loop {
        let low = u8::try_from(len & 0x7f).unwrap_or_default();
        len >>= 7;
        out.put_u8(if len > 0 { low | 0x80 } else { low });
        if len == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(bytes: &[u8]) -> Result<Option<Packet>, PacketError> {
        decode(&mut bytes.into(), 1024)
    }

    fn connect_bytes(name: &[u8], level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_u8(0x10);
        remaining_length(&mut out, 2 + name.len() + 4 + rest.len());
        out.put_u16(u16::try_from(name.len()).unwrap());
        out.put_slice(name);
        out.put_slice(&[level, flags, 0, 30]);
        out.put_slice(rest);
        out.to_vec()
    }

    #[test]
    fn connect_is_read() {
        let bytes = connect_bytes(b"MQTT", 4, 0b1110_0110, b"\0\x01a\0\x01t\0\x02wp\0\x01u\0\x01p");
        let will = Some(Will { topic: "t".into(), payload: "wp".into(), retain: true });
        let wanted = Connect { client_id: "a".into(), clean_session: true, keep_alive_seconds: 30, will };
        assert_eq!(one(&bytes), Ok(Some(Packet::Connect(wanted))));
    }

    #[test]
    fn bad_connects_are_refused() {
        let id = b"\0\x01a";
        for (bytes, wanted) in [
            (connect_bytes(b"MQTT", 5, 2, b"\0\0\x01a"), PacketError::Level(5)),
            (connect_bytes(b"MQIsdp", 3, 2, id), PacketError::Level(3)),
            (connect_bytes(b"HTTP", 4, 2, id), Malformed("protocol name")),
            (connect_bytes(b"MQTT", 4, 3, id), Malformed("connect flags")),
            (connect_bytes(b"MQTT", 4, 0b0001_1110, id), Malformed("connect flags")),
            (connect_bytes(b"MQTT", 4, 0b0010_0010, id), Malformed("connect flags")),
            (connect_bytes(b"MQTT", 4, 0b0100_0010, id), Malformed("connect flags")),
            (connect_bytes(b"MQTT", 4, 0, b"\0\0"), Malformed("no client id, and not a clean session")),
            (connect_bytes(b"MQTT", 4, 2, b"\0\x01\xff"), Malformed("text that is not UTF-8")),
            (connect_bytes(b"MQTT", 4, 2, b"\0\x01\0"), Malformed("U+0000 in a text")),
            (connect_bytes(b"MQTT", 4, 2, b"\0\x02a"), Malformed("too short")),
            (connect_bytes(b"MQTT", 4, 2, b"\0\x01ax"), Malformed("bytes after its end")),
        ] {
            assert_eq!(one(&bytes), Err(wanted), "{bytes:x?}");
        }
    }

    #[test]
    fn other_packets_are_read() {
        for (bytes, wanted) in [
            (&b"\x40\x02\x00\x07"[..], Packet::PubAck(7)),
            (b"\xc0\x00", Packet::PingReq),
            (b"\xe0\x00", Packet::Disconnect),
            (b"\x82\x06\x00\x01\x00\x01a\x02", Packet::Subscribe { id: 1, filters: vec![("a".into(), Qos::AtLeastOnce)] }),
            (b"\xa2\x05\x00\x01\x00\x01a", Packet::Unsubscribe { id: 1, filters: vec!["a".into()] }),
            (b"\x30\x04\x00\x01tx", Packet::Publish(Publish { topic: "t".into(), payload: "x".into(), id: None, retain: false })),
            (
                b"\x3b\x05\x00\x01t\x00\x09",
                Packet::Publish(Publish { topic: "t".into(), payload: Bytes::new(), id: Some(9), retain: true }),
            ),
        ] {
            assert_eq!(one(bytes), Ok(Some(wanted)));
            for cut in 0..bytes.len() {
                assert_eq!(one(&bytes[..cut]), Ok(None), "a part of a packet is waited for");
            }
        }
    }

    #[test]
    fn other_bad_packets_are_refused() {
        for (bytes, wanted) in [
            (&b"\x30\xff\xff\xff\xff\x01"[..], Malformed("remaining length")),
            (b"\x30\xff\xff\x03", PacketError::TooLong { len: 65_539, max: 1024 }),
            (b"\x34\x05\x00\x01t\x00\x09", PacketError::Type(3)),
            (b"\x36\x05\x00\x01t\x00\x09", Malformed("QoS 3")),
            (b"\x38\x04\x00\x01tx", Malformed("a duplicate at QoS 0")),
            (b"\x32\x05\x00\x01t\x00\x00", Malformed("packet id 0")),
            (b"\x30\x03\x00\x01#", Malformed("topic name")),
            (b"\x30\x02\x00\x00", Malformed("topic name")),
            (b"\x80\x06\x00\x01\x00\x01a\x01", Malformed("reserved flags")),
            (b"\x82\x06\x00\x01\x00\x01a\x03", Malformed("requested QoS")),
            (b"\x82\x02\x00\x01", Malformed("no filter")),
            (b"\xa2\x02\x00\x01", Malformed("no filter")),
            (b"\xc1\x00", Malformed("reserved flags")),
            (b"\x62\x02\x00\x01", PacketError::Type(6)),
            (b"GET / HTTP/1.1", Malformed("reserved flags")),
            (b"\x50\x02\x00\x01", PacketError::Type(5)),
            (b"\x00\x00", PacketError::Type(0)),
            (b"\xf0\x00", PacketError::Type(15)),
        ] {
            assert_eq!(one(bytes), Err(wanted), "{bytes:x?}");
        }
    }

    #[test]
    fn lengths_are_written_as_they_are_read() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = BytesMut::new();
            out.put_u8(0x30);
            remaining_length(&mut out, len);
            assert_eq!(header(&out), Ok(Some((0x30, out.len(), len))));
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer, 150) {}
        }

        #[test]
        fn what_is_published_is_read_back(
            topic in "[a-z/]{1,40}", payload in proptest::collection::vec(any::<u8>(), 0..400),
            id in proptest::option::of(1_u16..), retain: bool,
        ) {
            let mut out = BytesMut::new();
            publish_out(&mut out, &topic, &payload, id, retain);
            let wanted = Publish { topic, payload: payload.into(), id, retain };
            prop_assert_eq!(decode(&mut out, 1024), Ok(Some(Packet::Publish(wanted))));
            prop_assert!(out.is_empty());
        }
    }
}
