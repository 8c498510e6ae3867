//! What is in a client's packet (§3), once all of it has come.

use bytes::Bytes;

use super::PacketError::{self, Malformed};
use super::body::Body;
use super::property::{self, Place, Properties};
use super::{Asked, Connect, Packet, Publish, Retained, Subscribe, Takes, Version, Will};
use crate::broker::{Qos, Terms};

/// Filters a SUBSCRIBE or UNSUBSCRIBE may have: as many as a consumer may have subscriptions.
pub(super) const MAX_FILTERS: usize = 64;

/// A packet of this type and these flags, from all that follows its fixed header.
pub(super) fn packet(kind: u8, flags: u8, body: &mut Body, version: Version) -> Result<Packet, PacketError> {
    match kind {
        1 => connect(body).map(Packet::Connect),
        3 => publish(flags, body, version).map(Packet::Publish),
        4 => puback(body, version),
        8 => subscribe(body, version).map(Packet::Subscribe),
        10 => unsubscribe(body, version),
        12 => Ok(Packet::PingReq),
        14 => disconnect(body, version),
        other => Err(PacketError::Type(other)),
    }
}

fn connect(body: &mut Body) -> Result<Connect, PacketError> {
    let version = level(body)?;
    let flags = body.u8()?;
    let has = |bit: u8| flags & (1 << bit) != 0;
    let will_qos = flags >> 3 & 0b11;
    // Since MQTT 5 there may be a password without a user name (§3.1.2.9).
    let password_alone = version == Version::Mqtt311 && has(6) && !has(7);
    if has(0) || will_qos == 3 || (!has(2) && (will_qos != 0 || has(5))) || password_alone {
        return Err(Malformed("connect flags"));
    }
    let keep_alive_seconds = body.u16()?;
    let properties = Properties::read(body, Place::Connect, version)?;
    if properties.has(property::AUTHENTICATION_METHOD) {
        return Err(PacketError::Authentication);
    }
    let client_id = body.text()?;
    if version == Version::Mqtt311 && client_id.is_empty() && !has(1) {
        return Err(Malformed("no client id, and not a clean session"));
    }
    let will = if has(2) { Some(will(body, will_qos, has(5), version)?) } else { None };
    if has(7) {
        body.text()?;
    }
    if has(6) {
        body.bytes()?;
    }
    let at_most = |id| properties.number(id).and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX);
    let takes = Takes { unacknowledged: at_most(property::RECEIVE_MAXIMUM), packet_len: at_most(property::MAXIMUM_PACKET_SIZE) };
    let session_expiry_seconds = properties.number(property::SESSION_EXPIRY).unwrap_or(0);
    Ok(Connect { version, client_id, keep_alive_seconds, will, session_expiry_seconds, takes })
}

fn level(body: &mut Body) -> Result<Version, PacketError> {
    let name = body.bytes()?;
    match (&name[..], body.u8()?) {
        (b"MQTT", 4) => Ok(Version::Mqtt311),
        (b"MQTT", 5) => Ok(Version::Mqtt5),
        (b"MQTT" | b"MQIsdp", other) => Err(PacketError::Level(other)),
        _ => Err(Malformed("protocol name")),
    }
}

fn will(body: &mut Body, qos: u8, retain: bool, version: Version) -> Result<Will, PacketError> {
    // The CONNACK has not been able to say so yet: refused as it (§3.2.2.3.4).
    if version == Version::Mqtt5 && qos > 1 {
        return Err(PacketError::Qos);
    }
    Properties::read(body, Place::Will, version)?;
    Ok(Will { topic: body.text()?, payload: Bytes::copy_from_slice(&body.bytes()?), retain })
}

fn publish(flags: u8, body: &mut Body, version: Version) -> Result<Publish, PacketError> {
    let qos = flags >> 1 & 0b11;
    let dup = flags & 0b1000 != 0;
    let topic = body.text()?;
    let id = match qos {
        0 if dup => return Err(Malformed("a duplicate at QoS 0")),
        0 => None,
        1 => Some(body.id()?),
        2 => return Err(PacketError::Qos),
        _ => return Err(Malformed("QoS 3")),
    };
    if Properties::read(body, Place::Publish, version)?.has(property::TOPIC_ALIAS) {
        return Err(PacketError::TopicAlias);
    }
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(Malformed("topic name"));
    }
    Ok(Publish { topic, payload: body.rest(), id, retain: flags & 1 != 0 })
}

/// Whatever it says of the message: it is done with (§4.3.2).
fn puback(body: &mut Body, version: Version) -> Result<Packet, PacketError> {
    let id = body.id()?;
    reason_code(body, Place::PubAck, version)?;
    Ok(Packet::PubAck(id))
}

/// Only a normal end takes the will back (§3.14.2.1).
fn disconnect(body: &mut Body, version: Version) -> Result<Packet, PacketError> {
    let reason = reason_code(body, Place::Disconnect, version)?;
    Ok(Packet::Disconnect { leaves_will: reason != 0 })
}

/// A reason code and properties; either may be left out when it says nothing.
fn reason_code(body: &mut Body, place: Place, version: Version) -> Result<u8, PacketError> {
    if version == Version::Mqtt311 || body.is_empty() {
        return Ok(0);
    }
    let reason = body.u8()?;
    if !body.is_empty() {
        Properties::read(body, place, version)?;
    }
    Ok(reason)
}

fn subscribe(body: &mut Body, version: Version) -> Result<Subscribe, PacketError> {
    let id = body.id()?;
    let identified = Properties::read(body, Place::Subscribe, version)?.has(property::SUBSCRIPTION_ID);
    let filters = filters(body, |body| {
        let filter = body.text()?;
        let (terms, retained) = options(body.u8()?, version)?;
        Ok(Asked { filter, terms, retained })
    })?;
    Ok(Subscribe { id, filters, identified })
}

/// Subscription options (§3.8.3.1); 3.1.1 has the QoS alone.
fn options(byte: u8, version: Version) -> Result<(Terms, Retained), PacketError> {
    let reserved = match version {
        Version::Mqtt311 => 0b1111_1100,
        Version::Mqtt5 => 0b1100_0000,
    };
    let qos = match byte & 0b11 {
        0 => Qos::AtMostOnce,
        1 | 2 => Qos::AtLeastOnce,
        _ => return Err(Malformed("subscription options")),
    };
    let retained = match byte >> 4 & 0b11 {
        0 => Retained::Always,
        1 => Retained::IfNew,
        2 => Retained::Never,
        _ => return Err(Malformed("subscription options")),
    };
    if byte & reserved != 0 {
        return Err(Malformed("subscription options"));
    }
    Ok((Terms { qos, retain_as_published: byte & 0b1000 != 0 }, retained))
}

fn unsubscribe(body: &mut Body, version: Version) -> Result<Packet, PacketError> {
    let id = body.id()?;
    Properties::read(body, Place::Unsubscribe, version)?;
    Ok(Packet::Unsubscribe { id, filters: filters(body, Body::text)? })
}

fn filters<T>(body: &mut Body, one: impl Fn(&mut Body) -> Result<T, PacketError>) -> Result<Vec<T>, PacketError> {
    let mut filters = Vec::new();
    while !body.is_empty() {
        if filters.len() == MAX_FILTERS {
            return Err(PacketError::TooMany("more filters than a packet may have"));
        }
        filters.push(one(body)?);
    }
    if filters.is_empty() { Err(PacketError::Protocol("no filter")) } else { Ok(filters) }
}
