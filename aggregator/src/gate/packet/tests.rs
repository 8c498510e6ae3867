//! The codec against bytes by hand, and against rumqttc's, which knows nothing of it.

use bytes::BufMut as _;
use proptest::collection::vec;
use proptest::prelude::*;
use rumqttc::v5::mqttbytes::{QoS, v5};

use super::answer::{self, Outgoing, Welcome};
use super::body::put_variable;
use super::parse::MAX_FILTERS;
use super::*;
use crate::broker::{Message, Qos};

const OLD: Option<Version> = Some(Version::Mqtt311);
const NEW: Option<Version> = Some(Version::Mqtt5);
const ALL: Takes = Takes { unacknowledged: usize::MAX, packet_len: usize::MAX };
const PLAIN: Terms = Terms { qos: Qos::AtLeastOnce, retain_as_published: false };

fn one(bytes: &[u8], spoken: Option<Version>) -> Result<Option<Packet>, PacketError> {
    decode(&mut bytes.into(), 1024, spoken)
}

fn connect_bytes(name: &[u8], level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u8(0x10);
    put_variable(&mut out, 2 + name.len() + 4 + rest.len());
    out.put_u16(u16::try_from(name.len()).unwrap());
    out.put_slice(name);
    out.put_slice(&[level, flags, 0, 30]);
    out.put_slice(rest);
    out.to_vec()
}

fn asked(filter: &str) -> Asked {
    Asked { filter: filter.into(), terms: PLAIN, retained: Retained::Always }
}

// ---- 3.1.1 ----

#[test]
fn connect_is_read() {
    let bytes = connect_bytes(b"MQTT", 4, 0b1110_0110, b"\0\x01a\0\x01t\0\x02wp\0\x01u\0\x01p");
    let wanted = Connect {
        version: Version::Mqtt311,
        client_id: "a".into(),
        keep_alive_seconds: 30,
        will: Some(Will { topic: "t".into(), payload: "wp".into(), retain: true }),
        session_expiry_seconds: 0,
        takes: ALL,
    };
    assert_eq!(one(&bytes, None), Ok(Some(Packet::Connect(wanted))));
}

#[test]
fn bad_connects_are_refused() {
    let id = b"\0\x01a";
    for (bytes, wanted) in [
        (connect_bytes(b"MQTT", 6, 2, b"\0\0\x01a"), PacketError::Level(6)),
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
        (connect_bytes(b"MQTT", 5, 0b0001_0110, b"\0\0\0\0\0\x01t\0\0"), PacketError::Qos),
        (connect_bytes(b"MQTT", 5, 2, b"\x04\x15\0\x01x\0\x01a"), PacketError::Authentication),
        (connect_bytes(b"MQTT", 5, 2, b"\x05\x18\0\0\0\x01\0\x01a"), Malformed("a property that is not for its packet")),
        (connect_bytes(b"MQTT", 5, 3, b"\0\0\x01a"), Malformed("connect flags")),
        (connect_bytes(b"MQTT", 5, 2, b""), Malformed("too short")),
        (b"\xe0\x00".to_vec(), PacketError::NotConnect),
        (b"\x32\xff\xff\x03".to_vec(), PacketError::NotConnect),
    ] {
        assert_eq!(one(&bytes, None), Err(wanted), "{bytes:x?}");
    }
}

#[test]
fn a_refusal_is_understood_in_the_version_of_the_connect() {
    for (bytes, wanted) in [
        (connect_bytes(b"MQTT", 5, 3, b""), Version::Mqtt5),
        (connect_bytes(b"MQTT", 9, 3, b""), Version::Mqtt5),
        (connect_bytes(b"MQTT", 4, 3, b""), Version::Mqtt311),
        (connect_bytes(b"MQIsdp", 3, 3, b""), Version::Mqtt311),
        (b"\x10\xff\xff\xff\x7f\0\x04MQTT\x05\x02".to_vec(), Version::Mqtt5),
        (b"\x10".to_vec(), Version::Mqtt311),
        (b"GET / HTTP/1.1".to_vec(), Version::Mqtt311),
        (Vec::new(), Version::Mqtt311),
    ] {
        assert_eq!(understood(&bytes), wanted, "{bytes:x?}");
    }
}

#[test]
fn other_packets_are_read() {
    let a_publish = |payload: &'static str, id, retain| Publish { topic: "t".into(), payload: payload.into(), id, retain };
    for (bytes, spoken, wanted) in [
        (&b"\x40\x02\x00\x07"[..], OLD, Packet::PubAck(7)),
        (b"\xc0\x00", OLD, Packet::PingReq),
        (b"\xe0\x00", OLD, Packet::Disconnect { leaves_will: false }),
        (
            b"\x82\x06\x00\x01\x00\x01a\x02",
            OLD,
            Packet::Subscribe(Subscribe { id: 1, filters: vec![asked("a")], identified: false }),
        ),
        (b"\xa2\x05\x00\x01\x00\x01a", OLD, Packet::Unsubscribe { id: 1, filters: vec!["a".into()] }),
        (b"\x30\x04\x00\x01tx", OLD, Packet::Publish(a_publish("x", None, false))),
        (b"\x3b\x05\x00\x01t\x00\x09", OLD, Packet::Publish(a_publish("", Some(9), true))),
        (b"\x40\x02\x00\x07", NEW, Packet::PubAck(7)),
        (b"\x40\x03\x00\x07\x10", NEW, Packet::PubAck(7)),
        (b"\x40\x08\x00\x07\x80\x04\x1f\x00\x01x", NEW, Packet::PubAck(7)),
        (b"\xe0\x00", NEW, Packet::Disconnect { leaves_will: false }),
        (b"\xe0\x01\x00", NEW, Packet::Disconnect { leaves_will: false }),
        (b"\xe0\x01\x04", NEW, Packet::Disconnect { leaves_will: true }),
        (b"\xe0\x07\x81\x05\x11\x00\x00\x00\x00", NEW, Packet::Disconnect { leaves_will: true }),
        (b"\x30\x05\x00\x01t\x00x", NEW, Packet::Publish(a_publish("x", None, false))),
        (
            b"\x82\x0b\x00\x01\x02\x0b\x07\x00\x03a/b\x2d",
            NEW,
            Packet::Subscribe(Subscribe {
                id: 1,
                filters: vec![Asked {
                    filter: "a/b".into(),
                    terms: Terms { retain_as_published: true, ..PLAIN },
                    retained: Retained::Never,
                }],
                identified: true,
            }),
        ),
        (b"\xa2\x06\x00\x01\x00\x00\x01a", NEW, Packet::Unsubscribe { id: 1, filters: vec!["a".into()] }),
    ] {
        assert_eq!(one(bytes, spoken), Ok(Some(wanted)), "{bytes:x?}");
        for cut in 0..bytes.len() {
            assert_eq!(one(&bytes[..cut], spoken), Ok(None), "a part of a packet is waited for");
        }
    }
}

#[test]
fn other_bad_packets_are_refused() {
    for (bytes, spoken, wanted) in [
        (&b"\x30\xff\xff\xff\xff\x01"[..], OLD, Malformed("variable byte integer")),
        (b"\x30\xff\xff\x03", OLD, PacketError::TooLong { len: 65_539, max: 1024 }),
        (b"\x34\x05\x00\x01t\x00\x09", OLD, PacketError::Qos),
        (b"\x36\x05\x00\x01t\x00\x09", OLD, Malformed("QoS 3")),
        (b"\x38\x04\x00\x01tx", OLD, Malformed("a duplicate at QoS 0")),
        (b"\x32\x05\x00\x01t\x00\x00", OLD, PacketError::Protocol("packet id 0")),
        (b"\x30\x03\x00\x01#", OLD, Malformed("topic name")),
        (b"\x30\x02\x00\x00", OLD, Malformed("topic name")),
        (b"\x80\x06\x00\x01\x00\x01a\x01", OLD, Malformed("reserved flags")),
        (b"\x82\x06\x00\x01\x00\x01a\x03", OLD, Malformed("subscription options")),
        (b"\x82\x06\x00\x01\x00\x01a\x05", OLD, Malformed("subscription options")),
        (b"\x82\x02\x00\x01", OLD, PacketError::Protocol("no filter")),
        (b"\xa2\x02\x00\x01", OLD, PacketError::Protocol("no filter")),
        (b"\xc1\x00", OLD, Malformed("reserved flags")),
        (b"\x62\x02\x00\x01", OLD, PacketError::Type(6)),
        (b"GET / HTTP/1.1", OLD, Malformed("reserved flags")),
        (b"\x50\x02\x00\x01", OLD, PacketError::Type(5)),
        (b"\x00\x00", OLD, PacketError::Type(0)),
        (b"\xf0\x00", OLD, PacketError::Type(15)),
        (b"\xe0\x01\x00", OLD, Malformed("bytes after its end")),
        (b"\x40\x03\x00\x07\x00", OLD, Malformed("bytes after its end")),
        (b"\xf0\x02\x18\x00", NEW, PacketError::Type(15)),
        (b"\x30\x08\x00\x01t\x03\x23\x00\x01x", NEW, PacketError::TopicAlias),
        (b"\x30\x07\x00\x00\x03\x23\x00\x01x", NEW, PacketError::TopicAlias),
        (b"\x30\x03\x00\x00\x00", NEW, Malformed("topic name")),
        (b"\x30\x07\x00\x01t\x02\x0b\x01x", NEW, Malformed("a property that is not for its packet")),
        (b"\x34\x06\x00\x01t\x00\x09\x00", NEW, PacketError::Qos),
        (b"\x82\x07\x00\x01\x00\x00\x01a\x30", NEW, Malformed("subscription options")),
        (b"\x82\x07\x00\x01\x00\x00\x01a\x40", NEW, Malformed("subscription options")),
        (b"\x82\x06\x00\x01\x00\x01a\x02", NEW, Malformed("too short")),
        (b"\xc0\x01\x00", NEW, Malformed("bytes after its end")),
        (b"\xe0\x03\x00\x01\x7f", NEW, Malformed("an unknown property")),
    ] {
        assert_eq!(one(bytes, spoken), Err(wanted), "{bytes:x?}");
    }
}

#[test]
fn filters_of_a_packet_are_bounded() {
    for (first, tail) in [(0x82, &b"\0"[..]), (0xa2, b"")] {
        for (count, fits) in [(MAX_FILTERS, true), (MAX_FILTERS + 1, false)] {
            let filters = [&b"\0\x01a"[..], tail].concat().repeat(count);
            let mut out = BytesMut::from(&[first][..]);
            put_variable(&mut out, 2 + filters.len());
            out.put_slice(b"\0\x01");
            out.put_slice(&filters);
            let read = one(&out, OLD);
            assert_eq!(read.is_ok(), fits);
            assert!(fits || read == Err(PacketError::TooMany("more filters than a packet may have")));
        }
    }
}

#[test]
fn answers_of_3_1_1_stay_what_they_were() {
    let written = |write: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        write(&mut out);
        out.to_vec()
    };
    let old = Version::Mqtt311;
    assert_eq!(written(&|out| answer::welcome(out, old, &a_welcome())), [0x20, 2, 0, 0]);
    for (reason, wanted) in [
        (Reason::Version, &[0x20, 2, 0, 1][..]),
        (Reason::ClientId, &[0x20, 2, 0, 2]),
        (Reason::Unavailable, &[0x20, 2, 0, 3]),
        (Reason::Quota, &[0x20, 2, 0, 3]),
        (Reason::NotAuthorized, &[0x20, 2, 0, 5]),
        (Reason::Malformed, &[]),
    ] {
        assert_eq!(written(&|out| answer::refusal(out, old, reason, "why", usize::MAX)), wanted, "{reason:?}");
    }
    assert_eq!(written(&|out| answer::puback(out, old, 258, Reason::Success)), [0x40, 2, 1, 2]);
    let granted = [Ok(Qos::AtMostOnce), Ok(Qos::AtLeastOnce), Err(Reason::NotAuthorized)];
    assert_eq!(written(&|out| answer::suback(out, old, 7, &granted)), [0x90, 5, 0, 7, 0, 1, 0x80]);
    assert_eq!(written(&|out| answer::unsuback(out, old, 7, &[Reason::Success])), [0xb0, 2, 0, 7]);
    assert_eq!(written(&|out| answer::pingresp(out)), [0xd0, 0]);
    let message = Message::document("x".into());
    let outgoing = Outgoing { topic: "t", message: &message, id: Some(9), retain: true };
    assert_eq!(written(&|out| answer::publish(out, old, &outgoing)), b"\x33\x06\0\x01t\0\x09x");
}

// ---- 5, as rumqttc understands it ----

fn a_welcome() -> Welcome {
    Welcome {
        assigned_client_id: Some("auto-1".into()),
        keep_alive_seconds: Some(300),
        expires_at_once: true,
        max_packet: 70_000,
        retain: false,
    }
}

fn foreign(write: impl FnOnce(&mut BytesMut)) -> v5::Packet {
    let mut out = BytesMut::new();
    write(&mut out);
    let packet = v5::Packet::read(&mut out, None).unwrap();
    assert!(out.is_empty());
    packet
}

#[test]
fn a_connack_says_what_is_not_offered() {
    let v5::Packet::ConnAck(ack) = foreign(|out| answer::welcome(out, Version::Mqtt5, &a_welcome())) else { panic!() };
    assert_eq!((ack.code, ack.session_present), (v5::ConnectReturnCode::Success, false));
    let said = ack.properties.unwrap();
    assert_eq!(said.session_expiry_interval, Some(0));
    assert_eq!(said.max_qos, Some(1));
    assert_eq!(said.retain_available, Some(0));
    assert_eq!(said.max_packet_size, Some(70_000));
    assert_eq!(said.assigned_client_identifier.as_deref(), Some("auto-1"));
    assert_eq!(said.topic_alias_max, None, "none: there are no aliases");
    assert_eq!(said.wildcard_subscription_available, None, "they are");
    assert_eq!(said.subscription_identifiers_available, Some(0));
    assert_eq!(said.shared_subscription_available, Some(0));
    assert_eq!(said.server_keep_alive, Some(300));
    let little =
        Welcome { assigned_client_id: None, keep_alive_seconds: None, expires_at_once: false, max_packet: 70_000, retain: true };
    let v5::Packet::ConnAck(ack) = foreign(|out| answer::welcome(out, Version::Mqtt5, &little)) else { panic!() };
    let said = ack.properties.unwrap();
    assert_eq!((said.session_expiry_interval, said.retain_available, said.server_keep_alive), (None, None, None));
    assert_eq!(said.assigned_client_identifier, None);
}

#[test]
fn refusals_and_ends_say_why_as_far_as_there_is_room() {
    for (max, text) in [(usize::MAX, Some("because")), (100, Some("because")), (10, None)] {
        let refusal = foreign(|out| answer::refusal(out, Version::Mqtt5, Reason::ClientId, "because", max));
        let v5::Packet::ConnAck(ack) = refusal else { panic!() };
        assert_eq!(ack.code, v5::ConnectReturnCode::ClientIdentifierNotValid);
        assert_eq!(ack.properties.and_then(|said| said.reason_string).as_deref(), text);
        let v5::Packet::Disconnect(last) = foreign(|out| answer::disconnect(out, Reason::TakenOver, "because", max)) else {
            panic!()
        };
        assert_eq!(last.reason_code, v5::DisconnectReasonCode::SessionTakenOver);
        assert_eq!(last.properties.and_then(|said| said.reason_string).as_deref(), text);
    }
    let mut out = BytesMut::new();
    answer::disconnect(&mut out, Reason::TakenOver, "because", 3);
    assert!(out.is_empty(), "not even its bare form fits");
}

#[test]
fn acknowledgements_say_why() {
    for (reason, wanted) in [(Reason::Success, v5::PubAckReason::Success), (Reason::NotAuthorized, v5::PubAckReason::NotAuthorized)]
    {
        let v5::Packet::PubAck(ack) = foreign(|out| answer::puback(out, Version::Mqtt5, 7, reason)) else { panic!() };
        assert_eq!((ack.pkid, ack.reason), (7, wanted));
    }
    let granted = [Ok(Qos::AtMostOnce), Ok(Qos::AtLeastOnce), Err(Reason::NotAuthorized), Err(Reason::SharedSubscription)];
    let v5::Packet::SubAck(ack) = foreign(|out| answer::suback(out, Version::Mqtt5, 7, &granted)) else { panic!() };
    let codes = [
        v5::SubscribeReasonCode::Success(QoS::AtMostOnce),
        v5::SubscribeReasonCode::Success(QoS::AtLeastOnce),
        v5::SubscribeReasonCode::NotAuthorized,
        v5::SubscribeReasonCode::SharedSubscriptionsNotSupported,
    ];
    assert_eq!((ack.pkid, &ack.return_codes[..]), (7, &codes[..]));
    let done = [Reason::Success, Reason::NoSubscription, Reason::NotAuthorized];
    let v5::Packet::UnsubAck(ack) = foreign(|out| answer::unsuback(out, Version::Mqtt5, 7, &done)) else { panic!() };
    let codes = [v5::UnsubAckReason::Success, v5::UnsubAckReason::NoSubscriptionExisted, v5::UnsubAckReason::NotAuthorized];
    assert_eq!((ack.pkid, &ack.reasons[..]), (7, &codes[..]));
}

#[test]
fn a_message_is_said_in_the_form_of_its_version() {
    let event = Message::event(r#"{"id":"7","data":{"a":1}}"#.into(), vec![("id".into(), "7".into())], 17..24);
    let document = Message::document(r#"{"a":1}"#.into());
    let (end, opaque) = (Message::document(Bytes::new()), Message::opaque("\x01\x02".into()));
    let id = vec![("id".to_owned(), "7".to_owned())];
    for (message, old, new, content_type, pairs) in [
        (&event, r#"{"id":"7","data":{"a":1}}"#, r#"{"a":1}"#, Some("application/json"), id),
        (&document, r#"{"a":1}"#, r#"{"a":1}"#, Some("application/json"), Vec::new()),
        (&end, "", "", None, Vec::new()),
        (&opaque, "\x01\x02", "\x01\x02", None, Vec::new()),
    ] {
        let outgoing = Outgoing { topic: "t/1", message, id: Some(3), retain: false };
        let v5::Packet::Publish(said) = foreign(|out| answer::publish(out, Version::Mqtt5, &outgoing)) else { panic!() };
        assert_eq!((&said.topic[..], said.pkid, &said.payload[..]), (&b"t/1"[..], 3, new.as_bytes()));
        let properties = said.properties.unwrap_or_default();
        assert_eq!(properties.content_type.as_deref(), content_type);
        assert_eq!(properties.payload_format_indicator, content_type.map(|_| 1));
        assert_eq!(properties.user_properties, pairs);
        assert_eq!((properties.topic_alias, properties.message_expiry_interval), (None, None));
        let mut out = BytesMut::new();
        answer::publish(&mut out, Version::Mqtt311, &outgoing);
        let wanted = Publish { topic: "t/1".into(), payload: old.into(), id: Some(3), retain: false };
        assert_eq!(one(&out, OLD), Ok(Some(Packet::Publish(wanted))));
    }
}

// ---- any packet ----

fn text() -> impl Strategy<Value = String> {
    "[a-zäß/]{0,12}"
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..4)
}

fn qos_1() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)]
}

prop_compose! {
    fn connects()(
        client_id in text(), keep_alive: u16, clean_start: bool, user_properties in pairs(),
        session_expiry_interval: Option<u32>, receive_maximum in proptest::option::of(1_u16..),
        max_packet_size in proptest::option::of(1_u32..), topic_alias_max: Option<u16>,
        request_problem_info in proptest::option::of(0_u8..2), has_properties: bool,
        will in proptest::option::of((text(), vec(any::<u8>(), 0..9), qos_1(), any::<bool>(), pairs(), any::<Option<u32>>())),
        login in proptest::option::of((text(), text())),
    ) -> (v5::Connect, Option<v5::LastWill>, Option<v5::Login>) {
        let mut properties = v5::ConnectProperties::new();
        properties.session_expiry_interval = session_expiry_interval;
        properties.receive_maximum = receive_maximum;
        properties.max_packet_size = max_packet_size;
        properties.topic_alias_max = topic_alias_max;
        properties.request_problem_info = request_problem_info;
        properties.user_properties = user_properties;
        let will = will.map(|(topic, message, qos, retain, user_properties, delay_interval)| {
            let properties = v5::LastWillProperties {
                delay_interval,
                payload_format_indicator: Some(1),
                message_expiry_interval: delay_interval,
                content_type: Some("x".into()),
                response_topic: Some("a/b".into()),
                correlation_data: Some("c".into()),
                user_properties,
            };
            v5::LastWill::new(topic, message, qos, retain, Some(properties))
        });
        let connect = v5::Connect { keep_alive, client_id, clean_start, properties: has_properties.then_some(properties) };
        (connect, will, login.map(|(name, password)| v5::Login::new(name, password)))
    }
}

fn filter() -> impl Strategy<Value = v5::Filter> {
    let rules = prop_oneof![
        Just(v5::RetainForwardRule::OnEverySubscribe),
        Just(v5::RetainForwardRule::OnNewSubscribe),
        Just(v5::RetainForwardRule::Never),
    ];
    (text(), 0_u8..3, any::<bool>(), any::<bool>(), rules).prop_map(|(path, qos, nolocal, preserve_retain, retain_forward_rule)| {
        let qos = rumqttc::v5::mqttbytes::qos(qos).unwrap();
        v5::Filter { path, qos, nolocal, preserve_retain, retain_forward_rule }
    })
}

/// A valid packet of a client, by rumqttc.
fn packets() -> impl Strategy<Value = v5::Packet> {
    prop_oneof![
        connects().prop_map(|(connect, will, login)| v5::Packet::Connect(connect, will, login)),
        ("[a-z/]{1,20}", vec(any::<u8>(), 0..200), qos_1(), 1_u16.., any::<bool>(), pairs()).prop_map(
            |(topic, payload, qos, pkid, retain, user_properties)| {
                let properties = v5::PublishProperties { user_properties, ..Default::default() };
                let mut publish = v5::Publish::new(topic, qos, payload, Some(properties));
                publish.retain = retain;
                publish.pkid = if qos == QoS::AtMostOnce { 0 } else { pkid };
                v5::Packet::Publish(publish)
            }
        ),
        (1_u16.., vec(filter(), 1..5), proptest::option::of(1_usize..100_000), pairs()).prop_map(
            |(pkid, filters, id, user_properties)| {
                let properties = Some(v5::SubscribeProperties { id, user_properties });
                v5::Packet::Subscribe(v5::Subscribe { pkid, filters, properties })
            }
        ),
        (1_u16.., vec(text(), 1..5), pairs()).prop_map(|(pkid, filters, user_properties)| {
            let properties = Some(v5::UnsubscribeProperties { user_properties });
            v5::Packet::Unsubscribe(v5::Unsubscribe { pkid, filters, properties })
        }),
        (1_u16..).prop_map(|pkid| v5::Packet::PubAck(v5::PubAck::new(pkid, None))),
        Just(v5::Packet::PingReq(v5::PingReq)),
        Just(v5::Packet::Disconnect(v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnection))),
    ]
}

fn number(value: Option<impl TryInto<usize>>) -> usize {
    value.map_or(usize::MAX, |value| value.try_into().unwrap_or(usize::MAX))
}

/// What the gate is to make of it.
fn read_as(packet: &v5::Packet) -> Packet {
    match packet {
        v5::Packet::Connect(connect, will, _) => {
            let said = connect.properties.clone().unwrap_or_default();
            Packet::Connect(Connect {
                version: Version::Mqtt5,
                client_id: connect.client_id.clone(),
                keep_alive_seconds: connect.keep_alive,
                will: will.as_ref().map(|will| Will {
                    topic: String::from_utf8(will.topic.to_vec()).unwrap(),
                    payload: will.message.clone(),
                    retain: will.retain,
                }),
                session_expiry_seconds: said.session_expiry_interval.unwrap_or(0),
                takes: Takes { unacknowledged: number(said.receive_maximum), packet_len: number(said.max_packet_size) },
            })
        }
        v5::Packet::Publish(publish) => Packet::Publish(Publish {
            topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
            payload: publish.payload.clone(),
            id: (publish.pkid > 0).then_some(publish.pkid),
            retain: publish.retain,
        }),
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe(Subscribe {
            id: subscribe.pkid,
            filters: subscribe.filters.iter().map(filter_read_as).collect(),
            identified: subscribe.properties.as_ref().is_some_and(|said| said.id.is_some()),
        }),
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe { id: unsubscribe.pkid, filters: unsubscribe.filters.clone() },
        v5::Packet::PubAck(ack) => Packet::PubAck(ack.pkid),
        v5::Packet::PingReq(_) => Packet::PingReq,
        v5::Packet::Disconnect(_) => Packet::Disconnect { leaves_will: false },
        other => panic!("{other:?}"),
    }
}

fn filter_read_as(filter: &v5::Filter) -> Asked {
    let qos = if filter.qos == QoS::AtMostOnce { Qos::AtMostOnce } else { Qos::AtLeastOnce };
    let retained = match filter.retain_forward_rule {
        v5::RetainForwardRule::OnEverySubscribe => Retained::Always,
        v5::RetainForwardRule::OnNewSubscribe => Retained::IfNew,
        v5::RetainForwardRule::Never => Retained::Never,
    };
    Asked { filter: filter.path.clone(), terms: Terms { qos, retain_as_published: filter.preserve_retain }, retained }
}

fn spoken(packet: &v5::Packet) -> Option<Version> {
    if matches!(packet, v5::Packet::Connect(..)) { None } else { NEW }
}

fn written(packet: &v5::Packet) -> BytesMut {
    let mut out = BytesMut::new();
    packet.write(&mut out, None).unwrap();
    out
}

proptest! {
    #[test]
    fn whatever_comes_does_no_harm(bytes in vec(any::<u8>(), 0..200), spoken in prop_oneof![Just(None), Just(OLD), Just(NEW)]) {
        understood(&bytes);
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decode(&mut buffer, 150, spoken) {}
    }

    #[test]
    fn what_rumqttc_writes_is_read_as_it_was_meant(packet in packets()) {
        let mut out = written(&packet);
        let whole = out.len();
        out.put_slice(b"\xc0\0");
        prop_assert_eq!(decode(&mut out, 1 << 20, spoken(&packet)), Ok(Some(read_as(&packet))));
        prop_assert_eq!(&out[..], b"\xc0\0", "no more and no less than the {} bytes of the packet", whole);
    }

    /// A packet with a few bytes changed is another packet, or none: never more than its bytes are taken, and nothing panics.
    #[test]
    fn a_damaged_packet_does_no_harm(
        packet in packets(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut: prop::sample::Index,
    ) {
        let mut bytes = written(&packet);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for mut bytes in [bytes.clone(), bytes[..cut.index(bytes.len())].into()] {
            understood(&bytes);
            for spoken in [None, OLD, NEW] {
                let mut again = bytes.clone();
                while let Ok(Some(_)) = decode(&mut again, 4096, spoken) {}
            }
            while let Ok(Some(_)) = decode(&mut bytes, 64, spoken(&packet)) {}
        }
    }

    #[test]
    fn what_is_published_is_read_back(
        topic in "[a-z/]{1,40}", payload in vec(any::<u8>(), 1..400), id in proptest::option::of(1_u16..), retain: bool,
        attributes in pairs(), begin: prop::sample::Index,
    ) {
        let data = begin.index(payload.len())..payload.len();
        for message in [
            Message::document(payload.clone().into()),
            Message::opaque(payload.clone().into()),
            Message::event(payload.clone().into(), attributes, data),
        ] {
            let outgoing = Outgoing { topic: &topic, message: &message, id, retain };
            for (version, payload) in [(Version::Mqtt311, &payload[..]), (Version::Mqtt5, message.data())] {
                let mut out = BytesMut::new();
                answer::publish(&mut out, version, &outgoing);
                let payload = Bytes::copy_from_slice(payload);
                let wanted = Publish { topic: topic.clone(), payload, id, retain };
                prop_assert_eq!(decode(&mut out, 1024, Some(version)), Ok(Some(Packet::Publish(wanted))));
                prop_assert!(out.is_empty());
            }
        }
    }
}
