//! What a server writes, in the client's version.

use bytes::{BufMut as _, BytesMut};

use super::body::{put_text, put_variable, text_len};
use super::{Reason, Version, property};
use crate::broker::{Form, Message, Qos};

/// A SUBACK's code for a filter that is refused, in MQTT 3.1.1 (§3.9.3 there).
const FAILURE: u8 = 0x80;

/// Properties of a JSON document: payload format indicator 1 (UTF-8), content type.
const JSON: &[u8] = b"\x01\x01\x03\x00\x10application/json";

/// What a CONNACK says to a client that is let in. What the gate does not offer is said only where silence would offer it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// The client id it was given.
    pub assigned_client_id: Option<String>,
    /// The keep-alive that holds in place of its own, in seconds.
    pub keep_alive_seconds: Option<u16>,
    /// It asked for a session that outlives its connection: there is none.
    pub expires_at_once: bool,
    /// Longest packet it may send.
    pub max_packet: usize,
    /// Whether its messages may be retained.
    pub retain: bool,
}

/// CONNACK: let in, with a session that is new.
pub(crate) fn welcome(out: &mut BytesMut, version: Version, welcome: &Welcome) {
    if version == Version::Mqtt311 {
        return out.put_slice(&[0x20, 2, 0, 0]);
    }
    let mut properties = BytesMut::new();
    if welcome.expires_at_once {
        properties.put_u8(property::SESSION_EXPIRY);
        properties.put_u32(0);
    }
    properties.put_slice(&[property::MAXIMUM_QOS, 1]);
    if !welcome.retain {
        properties.put_slice(&[property::RETAIN_AVAILABLE, 0]);
    }
    properties.put_u8(property::MAXIMUM_PACKET_SIZE);
    properties.put_u32(u32::try_from(welcome.max_packet).unwrap_or(u32::MAX));
    if let Some(id) = &welcome.assigned_client_id {
        properties.put_u8(property::ASSIGNED_CLIENT_ID);
        put_text(&mut properties, id);
    }
    properties.put_slice(&[property::SUBSCRIPTION_ID_AVAILABLE, 0, property::SHARED_SUBSCRIPTION_AVAILABLE, 0]);
    if let Some(seconds) = welcome.keep_alive_seconds {
        properties.put_u8(property::SERVER_KEEP_ALIVE);
        properties.put_u16(seconds);
    }
    let mut body = BytesMut::from(&[0, Reason::Success.code()][..]);
    put_variable(&mut body, properties.len());
    body.put_slice(&properties);
    put(out, 0x20, &body);
}

/// CONNACK: not let in. In MQTT 3.1.1 nothing, for what it has no code for.
pub(crate) fn refusal(out: &mut BytesMut, version: Version, reason: Reason, text: &str, max: usize) {
    match (version, reason.connect_return_code()) {
        (Version::Mqtt5, _) => put_reason(out, 0x20, &[0, reason.code()], text, max),
        (Version::Mqtt311, Some(code)) => out.put_slice(&[0x20, 2, 0, code]),
        (Version::Mqtt311, None) => {}
    }
}

/// DISCONNECT, which only MQTT 5 lets a server say.
pub(crate) fn disconnect(out: &mut BytesMut, reason: Reason, text: &str, max: usize) {
    put_reason(out, 0xe0, &[reason.code()], text, max);
}

pub(crate) fn puback(out: &mut BytesMut, version: Version, id: u16, reason: Reason) {
    let [high, low] = id.to_be_bytes();
    match (version, reason) {
        (Version::Mqtt311, _) | (_, Reason::Success) => put(out, 0x40, &[high, low]),
        (Version::Mqtt5, reason) => put(out, 0x40, &[high, low, reason.code()]),
    }
}

/// What each filter of a SUBSCRIBE was granted.
pub(crate) fn suback(out: &mut BytesMut, version: Version, id: u16, granted: &[Result<Qos, Reason>]) {
    let code = |granted: &Result<Qos, Reason>| match (granted, version) {
        (Ok(Qos::AtMostOnce), _) => 0,
        (Ok(Qos::AtLeastOnce), _) => 1,
        (Err(_), Version::Mqtt311) => FAILURE,
        (Err(reason), Version::Mqtt5) => reason.code(),
    };
    acknowledgement(out, 0x90, version, id, granted.iter().map(code));
}

/// What became of each filter of an UNSUBSCRIBE; 3.1.1 does not say.
pub(crate) fn unsuback(out: &mut BytesMut, version: Version, id: u16, done: &[Reason]) {
    let said = if version == Version::Mqtt5 { done } else { &[] };
    acknowledgement(out, 0xb0, version, id, said.iter().map(|reason| reason.code()));
}

pub(crate) fn pingresp(out: &mut BytesMut) {
    put(out, 0xd0, &[]);
}

/// A message for a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub topic: &'a str,
    pub message: &'a Message,
    /// At QoS 1 when there is one, else at QoS 0.
    pub id: Option<u16>,
    pub retain: bool,
}

/// PUBLISH. An event is whole in structured mode in 3.1.1, and in binary mode in 5 (CloudEvents MQTT binding §3). A topic longer
/// than MQTT can say is cut off by nobody: the broker takes none.
pub(crate) fn publish(out: &mut BytesMut, version: Version, outgoing: &Outgoing<'_>) {
    let Outgoing { topic, message, id, retain } = outgoing;
    let (properties_len, payload) = match version {
        Version::Mqtt311 => (None, &message.payload()[..]),
        Version::Mqtt5 => (Some(properties_len(message)), message.data()),
    };
    let id_len = if id.is_some() { 2 } else { 0 };
    let properties_room = properties_len.map_or(0, |len| variable_len(len) + len);
    out.put_u8(0x30 | u8::from(id.is_some()) << 1 | u8::from(*retain));
    put_variable(out, text_len(topic) + id_len + properties_room + payload.len());
    put_text(out, topic);
    if let Some(id) = id {
        out.put_u16(*id);
    }
    if let Some(len) = properties_len {
        put_variable(out, len);
        put_properties(out, message);
    }
    out.put_slice(payload);
}

fn properties_len(message: &Message) -> usize {
    match message.form() {
        _ if message.payload().is_empty() => 0,
        Form::Opaque => 0,
        Form::Json => JSON.len(),
        Form::Event { attributes, .. } => {
            let pairs = attributes.iter().map(|(name, value)| 1 + text_len(name) + text_len(value));
            JSON.len() + pairs.sum::<usize>()
        }
    }
}

/// As many bytes as [`properties_len`] says.
fn put_properties(out: &mut BytesMut, message: &Message) {
    match message.form() {
        _ if message.payload().is_empty() => {}
        Form::Opaque => {}
        Form::Json => out.put_slice(JSON),
        Form::Event { attributes, .. } => {
            out.put_slice(JSON);
            for (name, value) in attributes {
                out.put_u8(property::USER_PROPERTY);
                put_text(out, name);
                put_text(out, value);
            }
        }
    }
}

const fn variable_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

fn put(out: &mut BytesMut, first: u8, body: &[u8]) {
    out.put_u8(first);
    put_variable(out, body.len());
    out.put_slice(body);
}

/// A packet that ends in a reason string; without that, and then not at all, when it is too long for the client.
fn put_reason(out: &mut BytesMut, first: u8, codes: &[u8], text: &str, max: usize) {
    let mut reason = BytesMut::from(&[property::REASON_STRING][..]);
    put_text(&mut reason, text);
    for properties in [&reason[..], &[]] {
        let mut body = BytesMut::from(codes);
        put_variable(&mut body, properties.len());
        body.put_slice(properties);
        let mut packet = BytesMut::new();
        put(&mut packet, first, &body);
        if packet.len() <= max {
            return out.put_slice(&packet);
        }
    }
}

fn acknowledgement(out: &mut BytesMut, first: u8, version: Version, id: u16, codes: impl Iterator<Item = u8>) {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if version == Version::Mqtt5 {
        put_variable(&mut body, 0);
    }
    body.extend(codes);
    put(out, first, &body);
}
