//! MQTT 5 at the gate, spoken by rumqttc's codec (which shares no code with the gate's) over bytes, and by rumqttc and mosquitto.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use picket_aggregator::broker::{Inbound, Message};
use picket_aggregator::gate::Limits;
use picket_common::wire::topic::Channel;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter, LastWill, LastWillProperties,
    Login, Packet, PingReq, PubAck, PubAckReason, Publish, PublishProperties, RetainForwardRule, Subscribe, SubscribeProperties,
    SubscribeReasonCode, UnsubAckReason, Unsubscribe,
};
use rumqttc::v5::{ConnectionError, StateError};
use rustls::ClientConfig;

use super::rig::{self, Raw, Rig, agent};

const JSON: &str = "application/json";
/// Longer than this machine can be busy.
const LONG: Duration = Duration::from_secs(20);

/// A client that says what it is told to.
struct Five {
    raw: Raw,
}

/// A CONNECT with what one wants changed.
#[derive(Default)]
struct Opening {
    client_id: &'static str,
    keep_alive: u16,
    properties: Option<ConnectProperties>,
    will: Option<LastWill>,
    login: Option<Login>,
}

impl Opening {
    fn of(client_id: &'static str) -> Self {
        Self { client_id, keep_alive: 60, ..Self::default() }
    }

    fn with(mut self, change: impl FnOnce(&mut ConnectProperties)) -> Self {
        change(self.properties.get_or_insert_default());
        self
    }

    fn packet(self) -> Packet {
        let Self { client_id, keep_alive, properties, will, login } = self;
        Packet::Connect(Connect { keep_alive, client_id: client_id.into(), clean_start: true, properties }, will, login)
    }
}

impl Five {
    async fn open(rig: &Rig, tls: &ClientConfig, opening: Opening) -> (Self, ConnAck) {
        let mut client = Self { raw: rig.tls(tls).await.unwrap() };
        client.send(&opening.packet()).await;
        match client.packet().await {
            Some(Packet::ConnAck(ack)) => (client, ack),
            other => panic!("{other:?}"),
        }
    }

    /// One that is let in.
    async fn enter(rig: &Rig, tls: &ClientConfig, opening: Opening) -> Self {
        let (client, ack) = Self::open(rig, tls, opening).await;
        assert_eq!((ack.code, ack.session_present), (ConnectReturnCode::Success, false));
        client
    }

    async fn consumer(rig: &Rig) -> Self {
        Self::enter(rig, &rig.consumer_tls("grafana"), Opening::of("x")).await
    }

    async fn agent(rig: &Rig, name: &'static str) -> Self {
        Self::enter(rig, &rig.agent_tls(name), Opening::of(name)).await
    }

    async fn send(&mut self, packet: &Packet) {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).unwrap();
        self.raw.send(&out).await;
    }

    async fn packet(&mut self) -> Option<Packet> {
        let (first, body) = self.raw.packet().await?;
        let mut bytes = BytesMut::from(&rig::packet(first, &body)[..]);
        Some(Packet::read(&mut bytes, None).unwrap())
    }

    async fn subscribe(&mut self, filters: Vec<Filter>) -> Vec<SubscribeReasonCode> {
        self.send(&Packet::Subscribe(Subscribe { pkid: 7, filters, properties: None })).await;
        self.granted().await
    }

    async fn granted(&mut self) -> Vec<SubscribeReasonCode> {
        match self.packet().await {
            Some(Packet::SubAck(ack)) if ack.pkid == 7 => ack.return_codes,
            other => panic!("{other:?}"),
        }
    }

    /// The next message; at QoS 1 it stays unacknowledged.
    async fn message(&mut self) -> Publish {
        match self.packet().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("{other:?}"),
        }
    }

    async fn acknowledge(&mut self, message: &Publish) {
        self.send(&Packet::PubAck(PubAck::new(message.pkid, None))).await;
    }

    async fn publish(&mut self, topic: &str, qos: QoS, retain: bool) {
        let mut publish = Publish::new(topic, qos, "x", None);
        publish.retain = retain;
        publish.pkid = u16::from(qos != QoS::AtMostOnce);
        self.send(&Packet::Publish(publish)).await;
    }

    /// Nothing is under way to it: an answer comes before anything else.
    async fn is_quiet(&mut self) {
        self.send(&Packet::PingReq(PingReq)).await;
        let packet = self.packet().await;
        assert!(matches!(packet, Some(Packet::PingResp(_))), "{packet:?}");
    }

    /// The DISCONNECT that must come next, and the end of TLS after it.
    async fn ends(&mut self) -> DisconnectReasonCode {
        match self.packet().await {
            Some(Packet::Disconnect(last)) => {
                assert!(last.properties.and_then(|said| said.reason_string).is_some_and(|text| !text.is_empty()));
                assert!(self.raw.packet().await.is_none());
                assert!(self.raw.ended_politely);
                last.reason_code
            }
            other => panic!("{other:?}"),
        }
    }
}

fn filter(path: &str) -> Filter {
    Filter::new(path, QoS::AtLeastOnce)
}

fn will(topic: &str, qos: QoS, retain: bool) -> Option<LastWill> {
    Some(LastWill::new(topic, "will", qos, retain, None))
}

async fn gone(rig: &mut Rig, name: &str) {
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent(name) }));
}

// ---- coming in ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_let_in_is_told_what_is_not_offered() {
    let mut rig = Rig::new().await;
    let opening = Opening::default().with(|said| said.session_expiry_interval = Some(3600));
    let (_one, ack) = Five::open(&rig, &rig.consumer_tls("grafana"), opening).await;
    assert_eq!((ack.code, ack.session_present), (ConnectReturnCode::Success, false));
    let said = ack.properties.unwrap();
    assert_eq!(said.session_expiry_interval, Some(0), "no session outlives its connection");
    assert_eq!((said.max_qos, said.retain_available, said.topic_alias_max), (Some(1), None, None));
    assert_eq!(said.max_packet_size, u32::try_from(Limits::default().max_packet).ok());
    assert_eq!((said.subscription_identifiers_available, said.shared_subscription_available), (Some(0), Some(0)));
    assert_eq!(said.server_keep_alive, Some(300), "0 would be no limit");
    let first = said.assigned_client_identifier.unwrap();
    let (_two, ack) = Five::open(&rig, &rig.consumer_tls("grafana"), Opening::default()).await;
    let second = ack.properties.unwrap().assigned_client_identifier.unwrap();
    assert!(first.starts_with("auto-") && second.starts_with("auto-") && first != second, "{first} {second}");
    let (mut named, ack) = Five::open(&rig, &rig.consumer_tls("grafana"), Opening::of("mine")).await;
    let said = ack.properties.unwrap();
    assert_eq!((said.assigned_client_identifier, said.server_keep_alive, said.session_expiry_interval), (None, None, None));
    named.is_quiet().await;

    let (_agent, ack) = Five::open(&rig, &rig.agent_tls("r07"), Opening::default()).await;
    let said = ack.properties.unwrap();
    assert_eq!((said.assigned_client_identifier.as_deref(), said.retain_available), (Some("r07"), Some(0)));
    drop(_agent);
    gone(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_is_told_why() {
    let rig = Rig::with(Limits { max_per_consumer: 1, farewell: LONG, ..Limits::default() }, 64).await;
    let (agent_tls, consumer_tls) = (rig.agent_tls("r07"), rig.consumer_tls("grafana"));
    let with_will = |client_id, will| Opening { will, ..Opening::of(client_id) };
    let gone_topic = "picket/v1/i/r07/gone";
    let _only = Five::consumer(&rig).await;
    for (tls, opening, wanted) in [
        (&agent_tls, Opening::of("r08"), ConnectReturnCode::ClientIdentifierNotValid),
        (&consumer_tls, Opening::of("y"), ConnectReturnCode::QuotaExceeded),
        (
            &agent_tls,
            Opening::of("r07").with(|said| said.authentication_method = Some("SCRAM-SHA-256".into())),
            ConnectReturnCode::BadAuthenticationMethod,
        ),
        (&agent_tls, with_will("r07", will("picket/v1/i/r08/gone", QoS::AtMostOnce, false)), ConnectReturnCode::NotAuthorized),
        (&agent_tls, with_will("r07", will(gone_topic, QoS::AtMostOnce, true)), ConnectReturnCode::RetainNotSupported),
        (&agent_tls, with_will("r07", will(gone_topic, QoS::ExactlyOnce, false)), ConnectReturnCode::QoSNotSupported),
        (&consumer_tls, with_will("x", will("picket/v1/status", QoS::AtMostOnce, true)), ConnectReturnCode::NotAuthorized),
        (&agent_tls, Opening::of("r07").with(|said| said.receive_maximum = Some(0)), ConnectReturnCode::ProtocolError),
        (
            &agent_tls,
            Opening::of("r07").with(|said| said.user_properties = vec![Default::default(); 65]),
            ConnectReturnCode::QuotaExceeded,
        ),
        (
            &agent_tls,
            Opening::of("r07").with(|said| said.user_properties = vec![("k".into(), "v".repeat(60_000)); 3]),
            ConnectReturnCode::PacketTooLarge,
        ),
        // Nothing else that it says is of consequence.
        (
            &agent_tls,
            Opening { login: Some(Login::new("root", "secret")), ..Opening::of("r07") }.with(|said| {
                said.user_properties = vec![("k".into(), "v".into()); 64];
                said.topic_alias_max = Some(10);
                said.request_response_info = Some(1);
                said.request_problem_info = Some(0);
            }),
            ConnectReturnCode::Success,
        ),
    ] {
        let (mut client, ack) = Five::open(&rig, tls, opening).await;
        assert_eq!(ack.code, wanted);
        if wanted != ConnectReturnCode::Success {
            assert!(ack.properties.and_then(|said| said.reason_string).is_some_and(|text| !text.is_empty()), "{wanted:?}");
            assert_eq!(client.packet().await, None);
            assert!(client.raw.ended_politely, "{wanted:?}");
        }
    }
    let mut malformed = rig.tls(&agent_tls).await.unwrap();
    malformed.send(b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x00").await;
    assert!(matches!(malformed.packet().await, Some((0x20, body)) if body[..2] == [0, 0x81]));
    // Where not even that fits, nothing is said.
    let mut tiny = rig.tls(&agent_tls).await.unwrap();
    let mut out = BytesMut::new();
    Opening::of("r07").with(|said| said.max_packet_size = Some(4)).packet().write(&mut out, None).unwrap();
    tiny.send(&out).await;
    assert_eq!(tiny.packet().await, None);
}

// ---- what consumers hear ----

fn event(n: u32) -> Message {
    let data = format!(r#"{{"n":{n}}}"#);
    let structured = format!(r#"{{"specversion":"1.0","id":"r07:1:{n}","datacontenttype":"application/json","data":{data}}}"#);
    let begin = structured.len() - 1 - data.len();
    let attributes = vec![("specversion".into(), "1.0".into()), ("id".into(), format!("r07:1:{n}"))];
    Message::event(structured.into(), attributes, begin..begin + data.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_is_binary_in_5_and_structured_in_3_1_1() {
    const TOPIC: &str = "picket/v1/event/z/c/h/power";
    let mut rig = Rig::new().await;
    let collecting = ["-V", "5", "-q", "1", "-t", TOPIC, "-C", "100", "-W", "30", "-F", "%C|%F|%P|%p"];
    let mosquitto = rig.mosquitto_sub_started("mosquitto", &collecting).await;
    let mut new = Five::consumer(&rig).await;
    let mut old = rig.client("old");
    assert_eq!(new.subscribe(vec![filter(TOPIC)]).await, [SubscribeReasonCode::Success(QoS::AtLeastOnce)]);
    old.subscribe(TOPIC, rumqttc::QoS::AtLeastOnce).await;
    for n in 0..100 {
        rig.broker.publish(TOPIC, event(n), false);
    }
    for n in 0..100 {
        let said = new.message().await;
        new.acknowledge(&said).await;
        let properties = said.properties.unwrap();
        assert_eq!((&said.topic[..], said.payload), (TOPIC.as_bytes(), format!(r#"{{"n":{n}}}"#).into()));
        assert_eq!((properties.content_type.as_deref(), properties.payload_format_indicator), (Some(JSON), Some(1)));
        let pairs = [("specversion".to_owned(), "1.0".to_owned()), ("id".to_owned(), format!("r07:1:{n}"))];
        assert_eq!(properties.user_properties, pairs);
        assert_eq!(&old.publish().await.payload, event(n).payload());
    }
    let lines = mosquitto.await.unwrap();
    let wanted: Vec<String> = (0..100).map(|n| format!(r#"{JSON}|1|specversion:1.0 id:r07:1:{n}|{{"n":{n}}}"#)).collect();
    assert_eq!(lines, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_documents_come_as_the_subscription_asks() {
    const ALL: &str = "picket/v1/state/#";
    let rig = Rig::new().await;
    rig.fill(3);
    let mut client = Five::consumer(&rig).await;
    let rule = |retain_forward_rule| vec![Filter { retain_forward_rule, ..Filter::new(ALL, QoS::AtMostOnce) }];
    let granted = [SubscribeReasonCode::Success(QoS::AtMostOnce)];
    for (name, filters, wanted) in [
        ("never", rule(RetainForwardRule::Never), 0),
        ("it stands already", rule(RetainForwardRule::OnNewSubscribe), 0),
        ("always", rule(RetainForwardRule::OnEverySubscribe), 3),
    ] {
        assert_eq!(client.subscribe(filters).await, granted, "{name}");
        for _ in 0..wanted {
            let document = client.message().await;
            let properties = document.properties.unwrap();
            assert!(document.retain, "{name}");
            assert_eq!((properties.content_type.as_deref(), properties.payload_format_indicator), (Some(JSON), Some(1)));
            assert!(properties.user_properties.is_empty());
        }
        client.is_quiet().await;
    }
    let unsubscribe = Unsubscribe { pkid: 9, filters: vec![ALL.into(), ALL.into(), "picket/v1/i/#".into()], properties: None };
    client.send(&Packet::Unsubscribe(unsubscribe)).await;
    let Some(Packet::UnsubAck(ack)) = client.packet().await else { panic!() };
    let wanted = [UnsubAckReason::Success, UnsubAckReason::NoSubscriptionExisted, UnsubAckReason::NotAuthorized];
    assert_eq!((ack.pkid, &ack.reasons[..]), (9, &wanted[..]));
    assert_eq!(client.subscribe(rule(RetainForwardRule::OnNewSubscribe)).await, granted);
    for _ in 0..3 {
        assert!(client.message().await.retain, "it is new again");
    }
    // A change is an ordinary message, unless the subscription wants it as it was published.
    rig.change(1, 7);
    assert!(!client.message().await.retain);
    let mut filters = rule(RetainForwardRule::Never);
    filters[0].preserve_retain = true;
    assert_eq!(client.subscribe(filters).await, granted);
    rig.change(1, 8);
    rig.say(&rig::topic(1), "an event");
    assert!(client.message().await.retain);
    assert!(!client.message().await.retain);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_under_way_than_the_client_takes() {
    let rig = Rig::new().await;
    rig.fill(10);
    let opening = Opening::of("x").with(|said| said.receive_maximum = Some(3));
    let mut client = Five::enter(&rig, &rig.consumer_tls("grafana"), opening).await;
    client.subscribe(vec![filter("picket/v1/#"), filter("picket/v1/state/#")]).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(client.message().await);
    }
    client.is_quiet().await;
    for _ in 0..7 {
        client.acknowledge(&waiting.remove(0)).await;
        waiting.push(client.message().await);
        client.is_quiet().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_longer_than_the_client_takes_is_left_out() {
    const TOPIC: &str = "picket/v1/event/z/c/h/power";
    let rig = Rig::new().await;
    let opening = Opening::of("x").with(|said| {
        said.max_packet_size = Some(100);
        said.receive_maximum = Some(1);
    });
    let mut client = Five::enter(&rig, &rig.consumer_tls("grafana"), opening).await;
    client.subscribe(vec![filter(TOPIC)]).await;
    for n in 0..20 {
        rig.say(TOPIC, "x".repeat(1000));
        rig.say(TOPIC, n.to_string());
    }
    for n in 0..20 {
        let message = client.message().await;
        assert_eq!(message.payload, n.to_string());
        client.acknowledge(&message).await;
    }
    // Its own answers it must be able to take.
    client.send(&Packet::Subscribe(Subscribe { pkid: 7, filters: vec![filter("a"); 64], properties: None })).await;
    client.granted().await;
    client.send(&Packet::Subscribe(Subscribe { pkid: 7, filters: vec![filter("a"); 64], properties: None })).await;
    client.granted().await;
    let opening = Opening::of("x").with(|said| said.max_packet_size = Some(60));
    let mut client = Five::enter(&rig, &rig.consumer_tls("grafana"), opening).await;
    client.send(&Packet::Subscribe(Subscribe { pkid: 7, filters: vec![filter("a"); 64], properties: None })).await;
    let last = client.packet().await;
    assert!(
        matches!(&last, Some(Packet::Disconnect(last)) if last.reason_code == DisconnectReasonCode::PacketTooLarge),
        "{last:?}"
    );
}

// ---- what may not be ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_may_not_be_is_answered_with_why() {
    let rig = Rig::new().await;
    let mut client = Five::consumer(&rig).await;
    let paths =
        ["#", "picket/v1/i/#", "picket/v1/i/r07/cmd", "$share/g/picket/v1/state/#", "picket/v1/state/a#", "picket/v1/state/#"];
    let granted = client.subscribe(paths.map(|path| Filter::new(path, QoS::ExactlyOnce)).into()).await;
    let wanted = [
        SubscribeReasonCode::NotAuthorized,
        SubscribeReasonCode::NotAuthorized,
        SubscribeReasonCode::NotAuthorized,
        SubscribeReasonCode::SharedSubscriptionsNotSupported,
        SubscribeReasonCode::TopicFilterInvalid,
        SubscribeReasonCode::Success(QoS::AtLeastOnce),
    ];
    assert_eq!(granted, wanted);
    let properties = Some(SubscribeProperties { id: Some(5), user_properties: Vec::new() });
    let filters = vec![filter("picket/v1/event/#"), filter("picket/v1/status")];
    client.send(&Packet::Subscribe(Subscribe { pkid: 7, filters, properties })).await;
    assert_eq!(client.granted().await, [SubscribeReasonCode::SubscriptionIdNotSupported; 2]);
    rig.say("picket/v1/status", "not subscribed to");
    rig.broker.probe().await.unwrap();
    client.is_quiet().await;
    for i in 1..64 {
        let granted = client.subscribe(vec![filter(&format!("picket/v1/agent/a{i}"))]).await;
        assert_eq!(granted, [SubscribeReasonCode::Success(QoS::AtLeastOnce)], "{i}");
    }
    assert_eq!(client.subscribe(vec![filter("picket/v1/agent/a64")]).await, [SubscribeReasonCode::QuotaExceeded]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_may_not_be_is_answered_with_why() {
    let mut rig = Rig::new().await;
    let mut consumer = Five::consumer(&rig).await;
    for (topic, retain) in [("picket/v1/state/z/c/h", true), ("picket/v1/i/r07/up", false), ("a", false)] {
        consumer.publish(topic, QoS::AtLeastOnce, retain).await;
        let Some(Packet::PubAck(ack)) = consumer.packet().await else { panic!() };
        assert_eq!((ack.pkid, ack.reason), (1, PubAckReason::NotAuthorized), "{topic}");
    }
    consumer.is_quiet().await;
    consumer.publish("a", QoS::AtMostOnce, false).await;
    assert_eq!(consumer.ends().await, DisconnectReasonCode::NotAuthorized, "QoS 0 has no other answer");

    let mut one = Five::agent(&rig, "r07").await;
    for topic in ["picket/v1/i/r08/up", "picket/v1/i/r07/cmd", "picket/v1/state/z/c/h", "$SYS/x"] {
        one.publish(topic, QoS::AtLeastOnce, false).await;
        let Some(Packet::PubAck(ack)) = one.packet().await else { panic!() };
        assert_eq!(ack.reason, PubAckReason::NotAuthorized, "{topic}");
    }
    one.publish("picket/v1/i/r07/up", QoS::AtLeastOnce, false).await;
    assert_eq!(rig.message().await, Some((agent("r07"), Channel::Up, Bytes::from_static(b"x"))), "nothing else came through");
    let Some(Packet::PubAck(ack)) = one.packet().await else { panic!() };
    assert_eq!(ack.reason, PubAckReason::Success);
    one.publish("picket/v1/i/r07/up", QoS::AtLeastOnce, true).await;
    assert_eq!(one.ends().await, DisconnectReasonCode::RetainNotSupported);
    drop(one);
    gone(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_a_connection_is_told() {
    let mut rig = Rig::with(Limits { farewell: LONG, ..Limits::default() }, 64).await;
    let alias = PublishProperties { topic_alias: Some(1), ..PublishProperties::default() };
    let aliased = Packet::Publish(Publish::new("picket/v1/i/r07/up", QoS::AtMostOnce, "x", Some(alias)));
    let mut twice = Publish::new("picket/v1/i/r07/up", QoS::ExactlyOnce, "x", None);
    twice.pkid = 1;
    let bytes = |packet: &Packet| {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).unwrap();
        out.to_vec()
    };
    let large = Publish::new("picket/v1/i/r07/up", QoS::AtMostOnce, vec![b'x'; 1 << 20], None);
    let many = Subscribe { pkid: 7, filters: vec![filter("a"); 65], properties: None };
    for (what, said, wanted) in [
        ("an alias", bytes(&aliased), DisconnectReasonCode::TopicAliasInvalid),
        ("QoS 2", bytes(&Packet::Publish(twice)), DisconnectReasonCode::QoSNotSupported),
        ("a second CONNECT", bytes(&Opening::of("r07").packet()), DisconnectReasonCode::ProtocolError),
        ("AUTH", b"\xf0\x00".to_vec(), DisconnectReasonCode::ProtocolError),
        ("reserved flags", b"\xc1\x00".to_vec(), DisconnectReasonCode::MalformedPacket),
        ("a PUBLISH of 3.1.1", rig::publish("picket/v1/i/r07/up", b"", None, false), DisconnectReasonCode::MalformedPacket),
        ("a megabyte", bytes(&Packet::Publish(large)), DisconnectReasonCode::PacketTooLarge),
        ("65 filters", bytes(&Packet::Subscribe(many)), DisconnectReasonCode::QuotaExceeded),
    ] {
        let mut client = Five::agent(&rig, "r07").await;
        client.raw.send(&said).await;
        assert_eq!(client.ends().await, wanted, "{what}");
        drop(client);
        gone(&mut rig, "r07").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_interrupted_may_finish_and_hears_why() {
    let mut rig = Rig::with(Limits { farewell: LONG, ..Limits::default() }, 64).await;
    let mut client = Five::agent(&rig, "r07").await;
    // The header of a PUBLISH of 524,286 bytes is enough.
    client.raw.send(b"\x30\xfe\xff\x1f").await;
    assert_eq!(client.ends().await, DisconnectReasonCode::PacketTooLarge);
    for _ in 0..8 {
        client.raw.send(&[0; 65_536]).await;
    }
    drop(client);
    gone(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_is_told() {
    let limits = Limits { acknowledge: Duration::from_millis(500), ..Limits::default() };
    let mut rig = Rig::with(limits, 64).await;
    let card = Rig::agent_of(&rig.authority, "r07", picket_aggregator::clock::now());
    let spki = card.2.clone();
    let tls = rig.client_tls(Some(card));
    let mut first = Five::enter(&rig, &tls, Opening::of("r07")).await;
    let mut second = Five::enter(&rig, &tls, Opening::of("r07")).await;
    assert_eq!(first.ends().await, DisconnectReasonCode::SessionTakenOver);
    rig.handle.revoke(&spki);
    assert_eq!(second.ends().await, DisconnectReasonCode::AdministrativeAction);
    gone(&mut rig, "r07").await;

    let mut silent = Five::enter(&rig, &rig.consumer_tls("silent"), Opening { keep_alive: 1, ..Opening::of("x") }).await;
    assert_eq!(silent.ends().await, DisconnectReasonCode::KeepAliveTimeout);

    rig.fill(200);
    let mut mute = Five::consumer(&rig).await;
    mute.subscribe(vec![filter("picket/v1/state/#")]).await;
    for _ in 0..128 {
        mute.message().await;
    }
    assert_eq!(mute.ends().await, DisconnectReasonCode::QuotaExceeded);

    let (mut new, mut old) = (Five::consumer(&rig).await, rig.consumer("old").await);
    rig.stop().await;
    assert_eq!(new.ends().await, DisconnectReasonCode::ServerShuttingDown);
    assert_eq!(old.packet().await, None);
    assert!(old.ended_politely);
}

// ---- agents ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_may_speak_5() {
    let mut rig = Rig::new().await;
    let mut client = Five::agent(&rig, "r07").await;
    let paths = ["picket/v1/i/r07/cmd", "picket/v1/i/r07/ack", "picket/v1/i/r07/up", "picket/v1/state/#"];
    let granted = client.subscribe(paths.map(filter).into()).await;
    let (yes, no) = (SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::NotAuthorized);
    assert_eq!(granted, [yes, yes, no, no]);
    assert!(rig.broker.tell(&agent("r07"), Channel::Cmd, Bytes::from_static(b"\x01\x02")));
    let told = client.message().await;
    assert_eq!((&told.topic[..], &told.payload[..]), (&b"picket/v1/i/r07/cmd"[..], &b"\x01\x02"[..]));
    assert_eq!(told.properties.unwrap_or_default(), PublishProperties::default(), "no JSON, no event");
    let properties = PublishProperties {
        payload_format_indicator: Some(0),
        message_expiry_interval: Some(60),
        response_topic: Some("a/b".into()),
        correlation_data: Some("c".into()),
        user_properties: vec![("k".into(), "v".into())],
        content_type: Some("x".into()),
        ..PublishProperties::default()
    };
    client.send(&Packet::Publish(Publish::new("picket/v1/i/r07/up", QoS::AtMostOnce, "report", Some(properties)))).await;
    assert_eq!(rig.message().await, Some((agent("r07"), Channel::Up, Bytes::from_static(b"report"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_is_said_at_once_unless_it_is_taken_back() {
    let mut rig = Rig::new().await;
    let said = Some((agent("r07"), Channel::Gone, Bytes::from_static(b"will")));
    let normal = Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection));
    let mut goodbye = BytesMut::new();
    normal.write(&mut goodbye, None).unwrap();
    for (last, has_will) in
        [(&goodbye[..], false), (b"\xe0\x01\x00", false), (b"\xe0\x01\x04", true), (b"\xe0\x01\x80", true), (b"", true)]
    {
        let properties = LastWillProperties {
            delay_interval: Some(3600),
            payload_format_indicator: None,
            message_expiry_interval: Some(60),
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: vec![("k".into(), "v".into())],
        };
        let will = LastWill::new("picket/v1/i/r07/gone", "will", QoS::AtLeastOnce, false, Some(properties));
        let opening = Opening { will: Some(will), ..Opening::of("r07") };
        let mut client = Five::enter(&rig, &rig.agent_tls("r07"), opening).await;
        client.raw.send(last).await;
        drop(client);
        if has_will {
            assert_eq!(rig.message().await, said, "{last:x?}");
        }
        gone(&mut rig, "r07").await;
    }
}

// ---- clients of others ----

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rumqttc_reads_everything_and_hears_why_it_is_cut() {
    let mut rig = Rig::new().await;
    rig.fill(2_000);
    let mut options = rumqttc::v5::MqttOptions::new("x", "localhost", rig.address.port());
    let tls = rumqttc::TlsConfiguration::Rustls(rig.consumer_tls("grafana").into());
    options.set_transport(rumqttc::Transport::Tls(tls)).set_receive_maximum(Some(20));
    let (client, mut events) = rumqttc::v5::AsyncClient::new(options, 10);
    client.subscribe("picket/v1/state/#", QoS::AtLeastOnce).await.unwrap();
    let mut topics = std::collections::HashSet::new();
    while topics.len() < 2_000 {
        if let rumqttc::v5::Event::Incoming(Packet::Publish(publish)) = events.poll().await.unwrap() {
            topics.insert(publish.topic);
        }
    }
    let stopping = async { rig.stop().await };
    let listening = async {
        loop {
            if let Err(error) = events.poll().await {
                return error;
            }
        }
    };
    let ((), error) = tokio::join!(stopping, listening);
    let told = matches!(
        error,
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code: DisconnectReasonCode::ServerShuttingDown, .. })
    );
    assert!(told, "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_hostile_packets_of_5_leave_the_gate_serving() {
    let mut rig = Rig::new().await;
    rig.fill(100);
    let mut witness = Five::enter(&rig, &rig.consumer_tls("witness"), Opening::of("w")).await;
    witness.subscribe(vec![filter("picket/v1/event/#")]).await;
    let written = |packet: &Packet| {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).unwrap();
        out.to_vec()
    };
    let publish = |topic: &str| {
        let properties = PublishProperties { user_properties: vec![("k".into(), "v".into())], ..Default::default() };
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, "payload", Some(properties));
        publish.pkid = 3;
        written(&Packet::Publish(publish))
    };
    let with_will = |name| Opening { will: will("picket/v1/i/r07/gone", QoS::AtMostOnce, false), ..Opening::of(name) };
    let filters = vec![filter("picket/v1/state/#"), filter("picket/v1/i/r07/cmd")];
    let properties = Some(SubscribeProperties { id: None, user_properties: vec![("k".into(), "v".into())] });
    let templates: Vec<Vec<u8>> = vec![
        written(&with_will("r07").with(|said| said.receive_maximum = Some(2)).packet()),
        publish("picket/v1/i/r07/up"),
        publish("picket/v1/state/z/c/h"),
        written(&Packet::Subscribe(Subscribe { pkid: 9, filters, properties })),
        written(&Packet::Unsubscribe(Unsubscribe { pkid: 9, filters: vec!["a".into()], properties: None })),
        b"\x40\x04\x00\x01\x10\x00".to_vec(),
        b"\xc0\x00".to_vec(),
        b"\xe0\x02\x04\x00".to_vec(),
        b"\xf0\x02\x18\x00".to_vec(),
    ];
    rig.besieged(43, 4_000, &templates, |name| written(&Opening::of(name).packet())).await;
    rig.say("picket/v1/event/z/c/h/k", "still here");
    assert_eq!(witness.message().await.payload, "still here");
}
