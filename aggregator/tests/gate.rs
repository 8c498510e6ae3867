//! The gate over real TLS sockets: who gets in, what they may do, and that nobody's misbehaviour reaches anybody else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops at the first surprise")]

#[path = "waiting/eventually.rs"]
mod eventually;
#[path = "gate/rig.rs"]
mod rig;
#[path = "gate/v5.rs"]
mod v5;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use picket_aggregator::broker::Inbound;
use picket_aggregator::clock;
use picket_aggregator::gate::{LAST_WORDS, Limits};
use picket_aggregator::pki::{Authority, Identity, Role};
use picket_common::wire::topic::Channel;
use rig::{DENIED, Rig, agent, closed, connect, disconnect, publish, subscribe};
use rumqttc::{Event, Packet, QoS};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

/// How fast an agent must get in, whatever goes on elsewhere.
const PROMPT: Duration = Duration::from_secs(1);

async fn assert_serves(rig: &mut Rig, name: &str) {
    let begun = clock::now().boottime;
    let mut raw = rig.agent(name).await;
    raw.send(&publish(&format!("picket/v1/i/{name}/up"), b"here", Some(1), false)).await;
    assert_eq!(raw.packet().await, Some((0x40, vec![0, 1])), "PUBACK");
    let took = clock::now().boottime - begun;
    assert!(took < PROMPT, "{took:?}");
    assert_eq!(rig.message().await, Some((agent(name), Channel::Up, Bytes::from_static(b"here"))));
    raw.send(&disconnect()).await;
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent(name) }));
    rig.broker.probe().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_harms_nobody() {
    let mut rig = Rig::new().await;
    let idle = TcpStream::connect(rig.address).await.unwrap();
    assert_serves(&mut rig, "r07").await;
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_connections_from_one_address_take_its_own_share_only() {
    let mut rig = Rig::new().await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        match socket.connect(rig.address).await {
            Ok(stream) => idle.push(stream),
            Err(_) => assert!(idle.len() > 500, "the machine allows too few sockets for this test"),
        }
        if idle.len().is_multiple_of(250) {
            assert_serves(&mut rig, "r07").await;
        }
    }
    assert_serves(&mut rig, "r08").await;
    let mut open = 0;
    for stream in &mut idle {
        open += usize::from(!closed(stream, Duration::from_millis(1)).await);
    }
    assert!(open <= Limits::default().max_unproved_per_address, "{open} are open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_ended_at_each_stage() {
    let limits = Limits { handshake: Duration::from_millis(300), connect: Duration::from_millis(300), ..Limits::default() };
    let rig = Rig::with(limits, 64).await;
    let mut no_handshake = TcpStream::connect(rig.address).await.unwrap();
    assert!(closed(&mut no_handshake, Duration::from_secs(5)).await);
    let mut no_connect = rig.tls(&rig.agent_tls("r07")).await.unwrap();
    assert_eq!(no_connect.packet().await, None);
    let mut half_connect = rig.tls(&rig.agent_tls("r07")).await.unwrap();
    half_connect.send(&connect("r07", 60, None)[..9]).await;
    assert_eq!(half_connect.packet().await, None);
    let mut no_keep_alive = rig.tls(&rig.agent_tls("r07")).await.unwrap();
    no_keep_alive.send(&connect("r07", 1, None)).await;
    assert_eq!(no_keep_alive.packet().await, Some((0x20, vec![0, 0])));
    assert_eq!(no_keep_alive.packet().await, None, "1.5 s without a word at a keep-alive of 1 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_client_id_harms_nobody() {
    let mut rig = Rig::new().await;
    for bad in ["bad#id", "bad#id", "r08", "", "$x", "a/b", "+"] {
        let mut raw = rig.tls(&rig.agent_tls("r07")).await.unwrap();
        raw.send(&connect(bad, 60, None)).await;
        assert_eq!(raw.packet().await, Some((0x20, vec![0, 2])), "{bad:?} is not r07's name");
        assert_eq!(raw.packet().await, None);
    }
    for fine in ["bad#id", "bad#id", "r07"] {
        let mut raw = rig.tls(&rig.consumer_tls("grafana")).await.unwrap();
        raw.send(&connect(fine, 60, None)).await;
        assert_eq!(raw.packet().await, Some((0x20, vec![0, 0])), "what a consumer calls itself is its own affair");
    }
    assert_serves(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_reaches_no_topic_but_its_own() {
    let mut rig = Rig::new().await;
    let victim = rig.agent("r08").await;
    for (topic, retain) in [
        ("picket/v1/i/r08/up", false),
        ("picket/v1/i/r08/gone", false),
        ("picket/v1/i/r08/cmd", false),
        ("picket/v1/i/r07/cmd", false),
        ("picket/v1/i/r07/up", true),
        ("picket/v1/state/z/c/h", false),
        ("picket/v1/state/z/c/h", true),
        ("$SYS/x", false),
    ] {
        let mut raw = rig.agent("r07").await;
        raw.send(&publish(topic, b"x", Some(1), retain)).await;
        assert_eq!(raw.packet().await, None, "{topic} ends the connection");
        assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r07") }), "{topic}: nothing came through");
    }
    let mut raw = rig.agent("r07").await;
    let denied = [
        "#",
        "+/#",
        "picket/v1/i/+/cmd",
        "picket/v1/i/r08/cmd",
        "picket/v1/i/r07/#",
        "picket/v1/i/r07/up",
        "$share/g/picket/v1/i/r07/cmd",
        "$SYS/#",
        "picket/v1/state/#",
    ];
    raw.send(&subscribe(7, &denied, 1)).await;
    assert_eq!(raw.packet().await, Some((0x90, [vec![0, 7], vec![DENIED; denied.len()]].concat())));
    raw.send(&subscribe(8, &["picket/v1/i/r07/cmd", "picket/v1/i/r07/ack", "picket/v1/i/r07/assign"], 1)).await;
    assert_eq!(raw.packet().await, Some((0x90, vec![0, 8, 1, 1, 1])));
    for will in [("picket/v1/i/r08/gone", false), ("picket/v1/i/r07/up", false), ("picket/v1/i/r07/gone", true), ("a", false)] {
        let mut raw = rig.tls(&rig.agent_tls("r09")).await.unwrap();
        raw.send(&connect("r09", 60, Some((will.0, b"x", will.1)))).await;
        assert_eq!(raw.packet().await, Some((0x20, vec![0, 5])), "{will:?}");
    }
    drop(victim);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_reads_the_public_tree_and_writes_nothing() {
    let mut rig = Rig::new().await;
    let mut raw = rig.consumer("grafana").await;
    let filters = ["#", "picket/v1/#", "picket/v1/i/#", "+/+/+/r07/up", "$share/g/picket/v1/state/#", "picket/v1/state/#"];
    raw.send(&subscribe(1, &filters, 2)).await;
    let wanted = vec![0, 1, DENIED, DENIED, DENIED, DENIED, DENIED, 1];
    assert_eq!(raw.packet().await, Some((0x90, wanted)), "QoS 2 is granted as 1");
    raw.send(&publish("picket/v1/state/z/c/h", b"x", None, true)).await;
    assert_eq!(raw.packet().await, None);
    let mut raw = rig.tls(&rig.consumer_tls("grafana")).await.unwrap();
    raw.send(&connect("x", 60, Some(("picket/v1/status", b"x", false)))).await;
    assert_eq!(raw.packet().await, Some((0x20, vec![0, 5])));
    assert_serves(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_certificates_of_this_site_in_force_get_in() {
    let mut rig = Rig::new().await;
    let long_ago = {
        let mut now = clock::now();
        now.wall = now.wall.checked_sub(Duration::from_secs(60 * 86_400)).unwrap();
        now
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let (foreign, _) = Authority::init(elsewhere.path(), rig.authority.site(), &[], clock::now()).unwrap();
    let site = |site: &str| Identity { site: site.parse().unwrap(), role: Role::Agent(agent("r07")) };
    let refused = [
        ("no certificate", rig.client_tls(None)),
        ("foreign authority", rig.client_tls(Some(Rig::agent_of(&foreign, "r07", clock::now())))),
        ("expired", rig.client_tls(Some(Rig::agent_of(&rig.authority, "r07", long_ago)))),
        ("another site's name", rig.client_tls(Some(rig.named(&[&rig::uri(&site("s2"))], true)))),
        ("no name", rig.client_tls(Some(rig.named(&[], true)))),
        ("two names", rig.client_tls(Some(rig.named(&[&rig::uri(&site("s1")), "picket://s1/agent/r08"], true)))),
        ("a name that is none", rig.client_tls(Some(rig.named(&["picket://s1/agent/r07#"], true)))),
        ("a witness", rig.client_tls(Some(rig.named(&["picket://s1/witness/r07"], true)))),
        ("a server's certificate", rig.client_tls(Some(rig.named(&[&rig::uri(&site("s1"))], false)))),
    ];
    for (what, tls) in refused {
        // TLS 1.3 lets a client finish before the server has looked: the answer to the CONNECT tells.
        if let Ok(mut raw) = rig.tls(&tls).await {
            raw.try_send(&connect("r07", 60, None)).await;
            assert_eq!(raw.packet().await, None, "{what}");
        }
    }
    let right = rig.client_tls(Some(rig.named(&[&rig::uri(&site("s1"))], true)));
    let mut raw = rig.tls(&right).await.unwrap();
    raw.send(&connect("r07", 60, None)).await;
    assert_eq!(raw.packet().await, Some((0x20, vec![0, 0])), "the same made rightly is let in");
    drop(raw);
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r07") }));
    assert_serves(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_list_is_taken_while_running() {
    let rig = Rig::new().await;
    let (tls, serial) = rig.agent_with_serial("r07");
    let mut before = rig.tls(&tls).await.unwrap();
    before.send(&connect("r07", 60, None)).await;
    assert_eq!(before.packet().await, Some((0x20, vec![0, 0])));
    rig.tls_settings.reload(rig.authority.gate_material(vec![rig.crl(&serial)]).unwrap()).unwrap();
    if let Ok(mut after) = rig.tls(&tls).await {
        after.try_send(&connect("r07", 60, None)).await;
        assert_eq!(after.packet().await, None);
    }
    let broken = rig.authority.gate_material(vec![b"nonsense".to_vec().into()]).unwrap();
    assert!(rig.tls_settings.reload(broken).is_err(), "a damaged list changes nothing");
    let _other = rig.agent("r08").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_loses_its_session_at_once() {
    let mut rig = Rig::new().await;
    let (certificate, key, spki) = Rig::agent_of(&rig.authority, "r07", clock::now());
    let tls = rig.client_tls(Some((certificate, key, spki.clone())));
    let mut raw = rig.tls(&tls).await.unwrap();
    raw.send(&connect("r07", 60, Some(("picket/v1/i/r07/gone", b"will", false)))).await;
    assert_eq!(raw.packet().await, Some((0x20, vec![0, 0])));
    let mut other = rig.agent("r08").await;
    rig.handle.revoke(&spki);
    assert_eq!(tokio::time::timeout(PROMPT, raw.packet()).await, Ok(None));
    assert!(raw.ended_politely);
    assert_eq!(rig.message().await, Some((agent("r07"), Channel::Gone, Bytes::from_static(b"will"))));
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r07") }));
    let mut again = rig.tls(&tls).await.unwrap();
    again.try_send(&connect("r07", 60, None)).await;
    assert_eq!(again.packet().await, None);
    rig.handle.cut_agent(&agent("r08"));
    assert_eq!(tokio::time::timeout(PROMPT, other.packet()).await, Ok(None));
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r08") }));
    assert_serves(&mut rig, "r08").await;
    assert_serves(&mut rig, "r09").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_no_longer_the_agents_is_cut_and_kept_out() {
    let mut rig = Rig::new().await;
    let (certificate, key, spki) = Rig::agent_of(&rig.authority, "r07", clock::now());
    let tls = rig.client_tls(Some((certificate, key, spki.clone())));
    let mut old = rig.tls(&tls).await.unwrap();
    old.send(&connect("r07", 60, None)).await;
    assert_eq!(old.packet().await, Some((0x20, vec![0, 0])));
    let other = rig.agent("r08").await;
    rig.disown(&spki);
    assert_eq!(old.packet().await, None, "its live session is cut");
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r07") }));
    let mut again = rig.tls(&tls).await.unwrap();
    again.try_send(&connect("r07", 60, None)).await;
    assert_eq!(again.packet().await, None, "and it gets no other");
    assert_serves(&mut rig, "r07").await;
    drop(other);
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r08") }), "others stayed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_of_one_packet_are_bounded_and_read_once() {
    let mut rig = Rig::new().await;
    let mut raw = rig.consumer("grafana").await;
    raw.send(&subscribe(1, &["picket/v1/state/#"; 64], 0)).await;
    assert_eq!(raw.packet().await, Some((0x90, [vec![0, 1], vec![0; 64]].concat())));
    // The next answer comes after the snapshots.
    raw.send(&subscribe(2, &["picket/v1/i/#"], 0)).await;
    assert_eq!(raw.packet().await, Some((0x90, vec![0, 2, DENIED])));
    assert_eq!(rig.snapshots(), 1, "one filter, one snapshot");
    raw.send(&subscribe(3, &["a"; 65], 0)).await;
    assert_eq!(raw.packet().await, None, "65 filters are malformed");
    let mut raw = rig.consumer("grafana").await;
    raw.send(&[&[0xa2, 0xc5, 1, 0, 1][..], &[0, 1, b'a'].repeat(65)].concat()).await;
    assert_eq!(raw.packet().await, None);
    assert_serves(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquittos_clients_see_every_retained_document() {
    let rig = Rig::new().await;
    rig.fill(5_000);
    for (version, qos) in [("311", "0"), ("311", "1"), ("5", "0"), ("5", "1")] {
        // Named by IP address and by name: both are in the server's certificate.
        for host in ["127.0.0.1", "localhost"] {
            let asking = ["-V", version, "-q", qos, "-t", "picket/v1/state/#", "-C", "5000", "-W", "30"];
            let lines = rig.mosquitto_sub("grafana", host, &asking).await;
            let different = lines.iter().collect::<HashSet<_>>().len();
            assert_eq!(different, 5_000, "MQTT {version}, QoS {qos} from {host}: {:?}", lines.last());
        }
    }
    let lines = rig.mosquitto_sub("grafana", "localhost", &["-t", "picket/v1/state/z1/c1/+", "-W", "2"]).await;
    assert_eq!(lines.iter().filter(|line| line.starts_with("picket/v1/state/z1/c1/h")).count(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquittos_client_with_an_agents_certificate_reads_nothing() {
    let rig = Rig::new().await;
    rig.fill(10);
    for filter in ["#", "picket/v1/state/#", "picket/v1/i/r08/cmd"] {
        let lines = rig.mosquitto(Role::Agent(agent("r07")), "localhost", &["-i", "r07", "-t", filter, "-W", "2"]).await;
        assert!(lines.iter().all(|line| line.contains("denied")), "{filter}: {lines:?}");
    }
}

/// Changes go on while the snapshot is sent: every document arrives, no retained one follows a newer one,
/// and the last word on every host is the newest.
async fn snapshot_amid_changes(qos: QoS) {
    const HOSTS: usize = 12_000;
    let rig = Rig::new().await;
    rig.fill(HOSTS);
    let mut client = rig.client("grafana");
    client.subscribe("picket/v1/state/#", qos).await;
    let mut latest = HashMap::new();
    let mut retained = 0;
    let mut seq = 0;
    while latest.len() < HOSTS || latest.iter().any(|(host, seen)| rig::topic(7) == *host && *seen < seq) {
        // One change for every few documents received: of a host seen, of one to come, and of one over and over.
        if seq < 2_000 {
            seq += 1;
            let n = usize::try_from(seq).unwrap();
            rig.change(n * 5 % HOSTS, seq);
            rig.change(7, seq);
        }
        let message = client.publish().await;
        retained += usize::from(message.retain);
        let seen: u64 = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
        let older = latest.insert(message.topic.clone(), seen).unwrap_or(0);
        assert!(!message.retain || seen >= older, "{}: {seen} after {older}", message.topic);
    }
    assert!(retained > HOSTS / 2 && retained <= HOSTS, "{retained}");
    // Whatever is still under way, the last word on each host is what the documents say.
    rig.change(7, 9_999);
    while latest.get(&rig::topic(7)) != Some(&9_999) {
        let message = client.publish().await;
        latest.insert(message.topic, std::str::from_utf8(&message.payload).unwrap().parse().unwrap());
    }
    for i in 0..HOSTS {
        assert_eq!(latest.get(&rig::topic(i)).map(ToString::to_string), Some(rig.document(i)), "host {i}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_live_changes_mix_at_qos_0() {
    snapshot_amid_changes(QoS::AtMostOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_live_changes_mix_at_qos_1() {
    snapshot_amid_changes(QoS::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_message_erases_nothing_that_is_retained() {
    let rig = Rig::new().await;
    rig.fill(1);
    rig.say(&rig::topic(0), Bytes::new());
    rig.broker.probe().await.unwrap();
    let mut client = rig.client("grafana");
    client.subscribe("picket/v1/state/#", QoS::AtLeastOnce).await;
    let message = client.publish().await;
    assert_eq!((&message.payload[..], message.retain), (&b"0"[..], true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_reach_every_consumer_in_order() {
    let mut rig = Rig::new().await;
    let collecting = ["-q", "1", "-t", "picket/v1/event/z/#", "-C", "10000", "-W", "60"];
    let mosquitto = rig.mosquitto_sub_started("grafana", &collecting).await;
    let mut clients = Vec::new();
    for i in 0..3 {
        let mut client = rig.client(&format!("c{i}"));
        client.subscribe("picket/v1/event/z/#", QoS::AtLeastOnce).await;
        clients.push(client);
    }
    for i in 0..10_000_u32 {
        rig.say("picket/v1/event/z/c/h/power", i.to_string());
    }
    for client in &mut clients {
        for i in 0..10_000_u32 {
            let message = client.publish().await;
            assert_eq!(message.payload, i.to_string());
            assert!(!message.retain);
        }
    }
    let lines = mosquitto.await.unwrap();
    let wanted: Vec<_> = (0..10_000).map(|i| i.to_string()).collect();
    assert!(lines == wanted, "{} lines, from {:?} to {:?}", lines.len(), lines.first(), lines.last());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_says_waits_for_a_slow_core_and_is_not_lost() {
    // The core is to be what it waits for.
    let mut rig = Rig::with(Limits { agent_rate: 10_000, ..Limits::default() }, 4).await;
    let mut client = rig.agent_client("r07");
    client.connected().await;
    let sender = client.sender();
    let sending = tokio::spawn(async move {
        for i in 0..3_000_u32 {
            sender.publish("picket/v1/i/r07/up", QoS::AtLeastOnce, false, i.to_string()).await.unwrap();
        }
    });
    let polling = tokio::spawn(async move {
        let mut acknowledged = 0;
        while acknowledged < 3_000 {
            acknowledged += usize::from(matches!(client.event().await, Event::Incoming(Packet::PubAck(_))));
        }
        client
    });
    for i in 0..3_000_u32 {
        assert_eq!(rig.message().await, Some((agent("r07"), Channel::Up, Bytes::from(i.to_string()))));
        if i.is_multiple_of(100) {
            tokio::task::yield_now().await;
        }
    }
    sending.await.unwrap();
    drop(polling.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_told_what_is_theirs() {
    let rig = Rig::new().await;
    let mut clients = Vec::new();
    for name in ["r07", "r08"] {
        let mut client = rig.agent_client(name);
        client.subscribe(&format!("picket/v1/i/{name}/cmd"), QoS::AtLeastOnce).await;
        clients.push(client);
    }
    assert!(!rig.broker.tell(&agent("r07"), Channel::Ack, Bytes::from_static(b"x")), "not subscribed");
    assert!(!rig.broker.tell(&agent("r09"), Channel::Cmd, Bytes::from_static(b"x")), "not connected");
    for i in 0..200_u32 {
        for name in ["r07", "r08"] {
            assert!(rig.broker.tell(&agent(name), Channel::Cmd, Bytes::from(format!("{name} {i}"))));
        }
    }
    for (client, name) in clients.iter_mut().zip(["r07", "r08"]) {
        for i in 0..200_u32 {
            let message = client.publish().await;
            assert_eq!(
                (message.topic.as_str(), message.payload),
                (&*format!("picket/v1/i/{name}/cmd"), format!("{name} {i}").into())
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wills_are_said_unless_it_said_good_bye() {
    let mut rig = Rig::new().await;
    let gone = Some(Inbound::Disconnected { agent: agent("r07") });
    let with_will = connect("r07", 60, Some(("picket/v1/i/r07/gone", b"session 1", false)));
    let will = Some((agent("r07"), Channel::Gone, Bytes::from_static(b"session 1")));
    for (last, has_will) in [(disconnect(), false), (Vec::new(), true), (b"\xf0\x00".to_vec(), true)] {
        let mut raw = rig.tls(&rig.agent_tls("r07")).await.unwrap();
        raw.send(&with_will).await;
        assert_eq!(raw.packet().await, Some((0x20, vec![0, 0])));
        raw.send(&last).await;
        drop(raw);
        if has_will {
            assert_eq!(rig.message().await, will, "{last:x?}");
        }
        assert_eq!(rig.inbound().await, gone, "{last:x?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_takes_over_in_order() {
    let mut rig = Rig::new().await;
    let mut old = rig.tls(&rig.agent_tls("r07")).await.unwrap();
    for i in 0..20 {
        old.send(&connect("r07", 60, Some(("picket/v1/i/r07/gone", format!("session {i}").as_bytes(), false)))).await;
        assert_eq!(old.packet().await, Some((0x20, vec![0, 0])));
        old.send(&publish("picket/v1/i/r07/hello", format!("hello {i}").as_bytes(), Some(1), false)).await;
        assert_eq!(old.packet().await, Some((0x40, vec![0, 1])));
        let next = rig.tls(&rig.agent_tls("r07")).await.unwrap();
        let mut cut = std::mem::replace(&mut old, next);
        if i < 19 {
            tokio::spawn(async move { while cut.packet().await.is_some() {} });
        }
    }
    for i in 0..20 {
        assert_eq!(rig.message().await, Some((agent("r07"), Channel::Hello, Bytes::from(format!("hello {i}")))));
        assert_eq!(rig.message().await, Some((agent("r07"), Channel::Gone, Bytes::from(format!("session {i}")))));
    }
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r07") }), "once, when the last one ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_connection_waits_for_the_last_words_of_the_older() {
    let mut rig = Rig::with(Limits::default(), 1).await;
    let mut old = rig.tls(&rig.agent_tls("r07")).await.unwrap();
    old.send(&connect("r07", 60, Some(("picket/v1/i/r07/gone", b"will", false)))).await;
    assert_eq!(old.packet().await, Some((0x20, vec![0, 0])));
    old.send(&publish("picket/v1/i/r07/up", b"fills the core's queue", Some(1), false)).await;
    assert_eq!(old.packet().await, Some((0x40, vec![0, 1])));
    let mut new = rig.tls(&rig.agent_tls("r07")).await.unwrap();
    new.send(&connect("r07", 60, None)).await;
    assert_eq!(old.packet().await, None, "the older is cut at once");
    assert!(old.ended_politely);
    let early = tokio::time::timeout(Duration::from_millis(300), new.packet()).await;
    assert!(early.is_err(), "{early:?} although the core has not heard that the older is gone");
    assert_eq!(rig.message().await.map(|(_, channel, _)| channel), Some(Channel::Up));
    assert_eq!(rig.message().await.map(|(_, channel, _)| channel), Some(Channel::Gone));
    assert_eq!(new.packet().await, Some((0x20, vec![0, 0])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_documents_are_complete_after_a_restart_of_everything() {
    let mut rig = Rig::new().await;
    rig.fill(2_000);
    let mut consumer = rig.consumer("grafana").await;
    rig.restart().await;
    assert_eq!(consumer.packet().await, None);
    let mut client = rig.client("grafana");
    client.subscribe("picket/v1/state/#", QoS::AtLeastOnce).await;
    let mut topics = HashSet::new();
    while topics.len() < 2_000 {
        topics.insert(client.publish().await.topic);
    }
    assert_serves(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_is_cut_and_slows_nobody() {
    let limits = Limits { write: Duration::from_secs(2), acknowledge: Duration::from_secs(2), ..Limits::default() };
    let mut rig = Rig::with(limits, 64).await;
    let mut deaf = rig.consumer("deaf").await;
    deaf.send(&subscribe(1, &["picket/v1/event/#"], 0)).await;
    let mut mute = rig.consumer("mute").await;
    mute.send(&subscribe(1, &["picket/v1/event/#"], 1)).await;
    assert_eq!(mute.packet().await, Some((0x90, vec![0, 1, 1])));
    let mut good = rig.client("good");
    good.subscribe("picket/v1/event/#", QoS::AtLeastOnce).await;
    let payload = Bytes::from(vec![b'x'; 2_000]);
    for round in 0..5 {
        for _ in 0..4_000 {
            rig.say("picket/v1/event/z/c/h/k", payload.clone());
        }
        for _ in 0..4_000 {
            assert_eq!(good.publish().await.payload.len(), payload.len(), "round {round}");
        }
    }
    let mut unacknowledged = 0;
    while mute.packet().await.is_some() {
        unacknowledged += 1;
    }
    assert_eq!(unacknowledged, 128, "the window, and then the end");
    rig.until(|rig| rig.handle.sessions() == 1).await;
    assert_serves(&mut rig, "r07").await;
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_capped_in_all_and_per_consumer() {
    let limits = Limits { max_connections: 4, max_per_consumer: 2, ..Limits::default() };
    let mut rig = Rig::with(limits, 64).await;
    let first = rig.consumer("grafana").await;
    let second = rig.consumer("grafana").await;
    let mut third = rig.tls(&rig.consumer_tls("grafana")).await.unwrap();
    third.send(&connect("", 60, None)).await;
    assert_eq!(third.packet().await, Some((0x20, vec![0, 3])));
    drop(third);
    let other = rig.consumer("other").await;
    let agent = rig.agent("r08").await;
    for _ in 0..5 {
        assert!(rig.tls(&rig.agent_tls("r07")).await.is_err(), "full");
    }
    drop((first, second, other, agent));
    rig.until(|rig| rig.handle.sessions() == 0).await;
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: rig::agent("r08") }));
    assert_serves(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_versions_are_refused_in_their_own_words() {
    let mut rig = Rig::new().await;
    let mut six = rig.tls(&rig.consumer_tls("grafana")).await.unwrap();
    six.send(b"\x10\x0e\x00\x04MQTT\x06\x02\x00\x3c\x00\x00\x01x").await;
    let (first, body) = six.packet().await.unwrap();
    assert_eq!((first, &body[..2]), (0x20, &[0, 0x84][..]), "as MQTT 5 says it");
    assert_eq!(six.packet().await, None);
    let mut three = rig.tls(&rig.consumer_tls("grafana")).await.unwrap();
    three.send(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01x").await;
    assert_eq!(three.packet().await, Some((0x20, vec![0, 1])));
    assert_eq!(three.packet().await, None);
    assert!(six.ended_politely && three.ended_politely);
    assert_serves(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_and_malformed_packets_end_their_connection_alone() {
    let mut rig = Rig::new().await;
    let witness = rig.agent("r08").await;
    let max = Limits::default().max_packet;
    let fits = publish("picket/v1/i/r07/up", &vec![0; 65_536], Some(1), false);
    assert!(fits.len() < max);
    let mut raw = rig.agent("r07").await;
    raw.send(&fits).await;
    assert_eq!(raw.packet().await, Some((0x40, vec![0, 1])));
    assert_eq!(rig.message().await.map(|(_, _, payload)| payload.len()), Some(65_536));
    // Refused from the header alone: nobody waits for 256 MB.
    raw.send(b"\x32\xff\xff\xff\x7f").await;
    assert_eq!(raw.packet().await, None);
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r07") }));
    for bytes in [
        &b"\x00\x00"[..],
        b"\x32\xff\xff\xff\xff\x01",
        b"\xf0\x00",
        b"\x34\x05\x00\x01t\x00\x01",
        b"\x10\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut raw = rig.agent("r07").await;
        raw.send(bytes).await;
        assert_eq!(raw.packet().await, None, "{bytes:x?}");
        assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r07") }));
        let mut before_connect = rig.tls(&rig.agent_tls("r07")).await.unwrap();
        before_connect.send(bytes).await;
        assert_eq!(before_connect.packet().await, None, "{bytes:x?}");
    }
    let mut plain = TcpStream::connect(rig.address).await.unwrap();
    plain.write_all(&connect("r07", 60, None)).await.unwrap();
    assert!(closed(&mut plain, Duration::from_secs(5)).await, "MQTT without TLS");
    rig.until(|rig| rig.handle.sessions() == 1).await;
    drop(witness);
    assert_eq!(rig.inbound().await, Some(Inbound::Disconnected { agent: agent("r08") }));
    assert_serves(&mut rig, "r07").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_hostile_packets_leave_the_gate_serving() {
    let mut rig = Rig::new().await;
    rig.fill(100);
    let mut witness = rig.client("witness");
    witness.subscribe("picket/v1/event/#", QoS::AtLeastOnce).await;
    let mut random = rig::Random(41);
    let mut templates: Vec<Vec<u8>> = vec![
        connect("r07", 60, Some(("picket/v1/i/r07/gone", b"w", false))),
        publish("picket/v1/i/r07/up", b"payload", Some(3), false),
        subscribe(9, &["picket/v1/state/#", "picket/v1/i/r07/cmd"], 1),
        b"\xa2\x05\x00\x01\x00\x01a".to_vec(),
        b"\x40\x02\x00\x01".to_vec(),
        b"\xc0\x00".to_vec(),
        b"\x62\x02\x00\x01".to_vec(),
    ];
    templates.push((0..64).map(|_| random.byte()).collect());
    rig.besieged(42, 6_000, &templates, |name| connect(name, 60, None)).await;
    rig.say("picket/v1/event/z/c/h/k", "still here");
    assert_eq!(witness.publish().await.payload, "still here");
    assert_serves(&mut rig, "r08").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_cuts_everybody() {
    let mut rig = Rig::new().await;
    let mut raw = rig.agent("r07").await;
    let mut reader = rig.consumer("grafana").await;
    let _idle = TcpStream::connect(rig.address).await.unwrap();
    let begun = clock::now().boottime;
    rig.stop().await;
    assert!(clock::now().boottime - begun < LAST_WORDS, "nobody holds it up");
    assert_eq!(raw.packet().await, None);
    assert_eq!(reader.packet().await, None);
    assert!(raw.ended_politely && reader.ended_politely, "TLS says that it ends");
    assert_eq!(rig.try_inbound(), None, "the core is not told that its own end ends its agents");
    assert!(TcpStream::connect(rig.address).await.is_err());
}
