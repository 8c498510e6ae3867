//! MQTT as consumers and strangers meet it: complete retained state, every event once, and nothing for who may not.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use picket_common::command::Action;
use picket_common::id::{AgentId, OperationId};
use picket_common::secret::Secret;
use picket_common::wire::Time;
use picket_common::wire::codec::{self, SigningKey};
use picket_common::wire::down::{Command, PowerCommand};
use picket_common::wire::topic::Channel;
use picket_tests::bmcsim::Simulator;
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Rogue, Site, Speaker, hosts, simulator};
use picket_tests::peers::certificate::{Authority, Identity};
use picket_tests::peers::mosquitto::{Broker, Protocol};
use picket_tests::peers::mosquitto_pub::publish;
use picket_tests::peers::mosquitto_sub::{Message, MosquittoSub};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, date_time_ymd};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
const STATE: &str = "picket/v1/state/#";
const EVENTS: &str = "picket/v1/event/#";

/// Whoever shows `identity` to the site's gate.
fn at_gate(site: &Site, identity: Option<Identity>) -> Broker {
    Broker { address: site.mqtt().parse().unwrap(), ca_file: site.ca_file(), identity, client_id: None, protocol: Protocol::V311 }
}

fn consumer(site: &Site, name: &str) -> Broker {
    let folder = site.consumer(name).unwrap();
    let identity = Identity { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) };
    Broker { ca_file: folder.join("ca.pem"), ..at_gate(site, Some(identity)) }
}

/// The same consumer, speaking MQTT 5.
fn in_5(consumer: &Broker) -> Broker {
    Broker { protocol: Protocol::V5, ..consumer.clone() }
}

/// Whoever has got hold of an agent's files.
fn thief(site: &Site, agent: &Agent) -> Broker {
    let identity = agent.state_dir().join("identity");
    let card = Identity { certificate: identity.join("agent.crt"), key: identity.join("agent.key") };
    Broker { client_id: Some(agent.name().into()), ..at_gate(site, Some(card)) }
}

fn enable(site: &Site, hosts: &[&str]) {
    let answer = site.ctl(&[&["oobm", "enable", "host", "--yes"], hosts].concat()).unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
}

/// A site with one rack, whose hosts are enabled and read.
fn running(simulator: &Simulator) -> (Site, Agent) {
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let agent = site.join("r1").unwrap();
    site.import(&hosts(simulator, "c1", "r1")).unwrap();
    let names: Vec<&str> = simulator.fleet().all().iter().map(|bmc| bmc.name()).collect();
    enable(&site, &names);
    for bmc in simulator.fleet().all() {
        site.until(bmc.name(), "power", word(bmc.is_on()), PATIENCE).unwrap();
    }
    (site, agent)
}

const fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

// ---- retained state ----

const FLEET: usize = 2_000;
const BATCH: usize = 500;
/// A whole fleet on a busy machine of few cores.
const LONG: Duration = Duration::from_secs(30);

/// The newest document of every host; those that the broker had retained, when `retained`.
fn newest(messages: &[Message], retained: bool) -> Result<BTreeMap<String, Value>> {
    let told = messages.iter().filter(|message| !retained || message.retain == 1);
    told.map(|message| {
        let document = message.json()?;
        let topic = format!("picket/v1/state/z1/c1/{}", document["host"].as_str().unwrap_or_default());
        ensure!(message.topic == topic, "{message:?}");
        Ok((message.topic.clone(), document))
    })
    .collect()
}

/// Whether every host is there with the power that `truth` says.
fn is_complete(documents: &BTreeMap<String, Value>, truth: &[(String, bool)]) -> Result<()> {
    ensure!(documents.len() == truth.len(), "{} documents of {} hosts", documents.len(), truth.len());
    let wrong = truth.iter().filter(|(host, on)| documents[&format!("picket/v1/state/z1/c1/{host}")]["power"] != word(*on));
    let wrong: Vec<&String> = wrong.map(|(host, _)| host).collect();
    ensure!(wrong.is_empty(), "{} hosts are wrong, {:?} among them", wrong.len(), wrong.first());
    Ok(())
}

fn truth(simulator: &Simulator) -> Vec<(String, bool)> {
    simulator.fleet().all().iter().map(|bmc| (bmc.name().to_owned(), bmc.is_on())).collect()
}

/// A consumer that comes now finds the power of all hosts retained.
fn newcomer_finds(broker: &Broker, truth: &[(String, bool)]) {
    let newcomer = MosquittoSub::start(broker, STATE).unwrap();
    newcomer.wait_for(LONG, |messages| is_complete(&newest(messages, true)?, truth)).unwrap();
    let messages = newcomer.messages().unwrap();
    let retained: Vec<&str> = messages.iter().filter(|m| m.retain == 1).map(|m| m.topic.as_str()).collect();
    let different: BTreeSet<&str> = retained.iter().copied().collect();
    assert_eq!(retained.len(), different.len(), "each document is sent once");
}

#[test]
fn two_thousand_hosts_are_retained_and_still_after_a_restart_of_everything() {
    let simulator = simulator("bmc", FLEET, 0).unwrap();
    let mut site = Site::start_with("[oobm]\nsync_interval = 5\n").unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let mut agent = site.join("r1").unwrap();
    for batch in hosts(&simulator, "c1", "r1").chunks(BATCH) {
        site.import(batch).unwrap();
    }
    enable(&site, &[&format!("bmc-[0001-{FLEET}]")]);
    let consumer = consumer(&site, "wall");
    let watcher = MosquittoSub::start(&consumer, STATE).unwrap();
    watcher.wait_for(LONG, |messages| is_complete(&newest(messages, false)?, &truth(&simulator))).unwrap();
    newcomer_finds(&consumer, &truth(&simulator));

    let before = truth(&simulator);
    agent.stop().unwrap();
    site.stop_aggregator().unwrap();
    for bmc in simulator.fleet().all().iter().step_by(100) {
        bmc.toggle();
    }
    site.start_aggregator().unwrap();
    newcomer_finds(&consumer, &before);
    let watcher = MosquittoSub::start(&consumer, STATE).unwrap();
    agent.start().unwrap();
    watcher.wait_for(LONG, |messages| is_complete(&newest(messages, false)?, &truth(&simulator))).unwrap();
    newcomer_finds(&consumer, &truth(&simulator));
}

// ---- events ----

/// The events of a host that are of a kind, as they came.
fn events(messages: &[Message], host: &str, kind: &str) -> Result<Vec<Value>> {
    let all: Vec<Value> = messages.iter().map(Message::json).collect::<Result<_>>()?;
    Ok(all.into_iter().filter(|event| event["subject"] == host && event["type"] == kind).collect())
}

const POWER: &str = "io.picket.power.changed.v1";
const OPERATION: &str = "io.picket.operation.done.v1";
const ENABLEMENT: &str = "io.picket.enablement.changed.v1";

/// CloudEvents 1.0 §3.1, and that it was sent where it belongs.
fn is_cloud_event(message: &Message) {
    let event = message.json().unwrap();
    assert_eq!(event["specversion"], "1.0", "{event}");
    for attribute in ["id", "type", "source", "time"] {
        assert!(event[attribute].as_str().is_some_and(|text| !text.is_empty()), "{attribute}: {event}");
    }
    let time = event["time"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "RFC 3339 in UTC: {time}");
    assert!(event["data"].is_object() && event["datacontenttype"] == "application/json", "{event}");
    let host = event["data"]["host"].as_str().unwrap();
    assert_eq!(event["source"], format!("/z1/c1/{host}"));
    assert!(message.topic.starts_with(&format!("picket/v1/event/z1/c1/{host}/")), "{message:?}");
    assert_eq!(message.retain, 0, "an event is not retained: {message:?}");
}

#[test]
fn every_change_is_one_cloud_event() {
    let simulator = simulator("bmc", 1, 1).unwrap();
    let (site, _agent) = running(&simulator);
    let listener = MosquittoSub::start(&consumer(&site, "log"), EVENTS).unwrap();
    let (by_hand, ordered) = (simulator.bmc("bmc-0001").unwrap(), simulator.bmc("bmc-0002").unwrap());
    let (was, wanted) = (ordered.is_on(), word(!ordered.is_on()));

    let found = word(by_hand.toggle());
    let answer = site.ctl(&["-o", "json", "power", wanted, ordered.name(), "--wait"]).unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
    site.until(by_hand.name(), "power", found, PATIENCE).unwrap();
    site.until(ordered.name(), "power", wanted, PATIENCE).unwrap();
    // Said last: whatever is said twice has been said before it.
    for bmc in simulator.fleet().all() {
        assert_eq!(site.ctl(&["oobm", "disable", "host", bmc.name(), "--yes"]).unwrap().code, 0);
    }
    listener
        .wait_for(PATIENCE, |messages| {
            for bmc in simulator.fleet().all() {
                ensure!(!events(messages, bmc.name(), ENABLEMENT)?.is_empty(), "{}: {messages:?}", bmc.name());
            }
            Ok(())
        })
        .unwrap();

    let messages = listener.messages().unwrap();
    messages.iter().for_each(is_cloud_event);
    let ids: BTreeSet<String> = messages.iter().map(|message| message.json().unwrap()["id"].to_string()).collect();
    assert_eq!(ids.len(), messages.len(), "{messages:?}");
    let changes = |host: &str| {
        let all = events(&messages, host, POWER).unwrap();
        let read = all.into_iter().filter(|event| event["data"]["new"] != "disabled");
        read.map(|event| (event["data"]["old"].clone(), event["data"]["new"].clone(), event["data"]["cause"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(changes(by_hand.name()), [(word(found == "off").into(), found.into(), "poll".into())]);
    assert!(events(&messages, by_hand.name(), OPERATION).unwrap().is_empty());
    let done = events(&messages, ordered.name(), OPERATION).unwrap();
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!(done[0]["data"]["result"], "changed");
    let commanded = changes(ordered.name());
    assert_eq!(commanded.len(), 1, "{commanded:?}");
    let (old, new, cause) = &commanded[0];
    assert_eq!((old, new), (&word(was).into(), &wanted.into()));
    assert_eq!(cause["command"], done[0]["data"]["operation_id"], "it says which operation did it");
}

/// An event in binary mode (CloudEvents MQTT binding §3.1), put together again.
fn structured(message: &Message) -> Value {
    let properties = &message.properties;
    assert_eq!((properties.content_type.as_deref(), properties.payload_format_indicator), (Some(JSON), Some(1)), "{message:?}");
    let attributes = properties.user_properties.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
    let mut event: serde_json::Map<_, _> = attributes.collect();
    assert_eq!(event.keys().collect::<Vec<_>>(), ["id", "source", "specversion", "subject", "time", "type"]);
    event.insert("datacontenttype".into(), JSON.into());
    event.insert("data".into(), message.json().unwrap());
    event.into()
}

const JSON: &str = "application/json";

#[test]
fn consumers_of_both_versions_hear_the_same_and_live_through_a_restart() {
    let simulator = simulator("bmc", 2, 0).unwrap();
    let (mut site, mut agent) = running(&simulator);
    let consumer = consumer(&site, "log");
    let mut old = MosquittoSub::start(&consumer, EVENTS).unwrap();
    let mut new = MosquittoSub::start(&in_5(&consumer), EVENTS).unwrap();
    let states = MosquittoSub::start(&in_5(&consumer), STATE).unwrap();
    let toggle_all = |site: &Site| {
        for bmc in simulator.fleet().all() {
            site.until(bmc.name(), "power", word(bmc.toggle()), PATIENCE).unwrap();
        }
    };
    // Of what the older client heard, the newer one heard all but the beginning.
    let both_hear = |old: &MosquittoSub, before: usize, new: &MosquittoSub| {
        let heard = |sub: &MosquittoSub, count: usize| {
            sub.wait_for(PATIENCE, |messages: &[Message]| {
                ensure!(messages.len() >= count, "{} of {count}", messages.len());
                Ok(messages.to_vec())
            })
        };
        let old: Vec<Value> = heard(old, before + 2).unwrap().iter().map(|message| message.json().unwrap()).collect();
        let new: Vec<Value> = heard(new, 2).unwrap().iter().map(structured).collect();
        assert_eq!(old[before..before + 2], new[..2]);
    };
    toggle_all(&site);
    both_hear(&old, 0, &new);
    states
        .wait_for(PATIENCE, |messages| {
            ensure!(newest(messages, false)?.len() == 2);
            Ok(())
        })
        .unwrap();
    for message in states.messages().unwrap() {
        let properties = &message.properties;
        assert_eq!((properties.content_type.as_deref(), properties.payload_format_indicator), (Some(JSON), Some(1)));
        assert!(properties.user_properties.is_empty(), "{message:?}");
    }

    agent.stop().unwrap();
    site.stop_aggregator().unwrap();
    // Told by name that the server stops, mosquitto_sub ends in good order; of an end without a name it comes back.
    eventually(PATIENCE, || {
        ensure!(!new.is_running()? && new.trace()?.trim_end().ends_with("Received DISCONNECT (139)"), "{}", new.trace()?);
        Ok(())
    })
    .unwrap();
    site.start_aggregator().unwrap();
    eventually(PATIENCE, || {
        ensure!(old.is_running()? && old.trace()?.matches("Subscribed (mid: ").count() == 2, "{}", old.trace()?);
        Ok(())
    })
    .unwrap();
    let heard_before = old.messages().unwrap().len();
    let new = MosquittoSub::start(&in_5(&consumer), EVENTS).unwrap();
    agent.start().unwrap();
    toggle_all(&site);
    both_hear(&old, heard_before, &new);
}

// ---- rights ----

#[test]
fn an_agents_certificate_opens_its_own_topics_only() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let (site, agent) = running(&simulator);
    site.place("z1", "c1", "r2").unwrap();
    let mut stolen = site.join("r2").unwrap();
    stolen.stop().unwrap();
    let thief = thief(&site, &stolen);
    // Its own are open to it, so that it is the right and not the door that is missing for the others.
    drop(MosquittoSub::start(&thief, "picket/v1/i/r2/cmd").unwrap());
    for filter in ["#", "picket/v1/i/r1/cmd", "picket/v1/i/+/cmd", "picket/v1/i/r1/up", "picket/v1/i/#", STATE, "$SYS/#"] {
        assert!(MosquittoSub::start(&thief, filter).is_err(), "{filter}");
    }
    let events = MosquittoSub::start(&consumer(&site, "log"), EVENTS).unwrap();
    for topic in ["picket/v1/i/r1/up", "picket/v1/i/r1/hello", "picket/v1/i/r1/gone", "picket/v1/i/r1/cmd", "picket/v1/i/r2/cmd"] {
        assert!(publish(&thief, topic, "PK", false).is_err(), "{topic}");
    }
    let lie = r#"{"power":"off"}"#;
    let liar = consumer(&site, "liar");
    for (topic, retain) in [("picket/v1/state/z1/c1/bmc-0001", true), ("picket/v1/event/z1/c1/bmc-0001/power", false)] {
        assert!(publish(&thief, topic, lie, retain).is_err(), "{topic}");
        assert!(publish(&liar, topic, lie, retain).is_err(), "{topic}");
        let why = publish(&in_5(&liar), topic, lie, retain).unwrap_err().to_string();
        assert!(why.contains("Not authorized"), "{topic}: {why}");
    }
    assert!(publish(&in_5(&thief), "picket/v1/i/r1/up", "PK", false).unwrap_err().to_string().contains("Not authorized"));
    assert!(MosquittoSub::start(&in_5(&thief), "picket/v1/i/r1/cmd").is_err());
    drop(MosquittoSub::start(&in_5(&thief), "picket/v1/i/r2/cmd").unwrap());
    let other_name = Broker { client_id: Some("r1".into()), ..thief };
    assert!(MosquittoSub::start(&other_name, "picket/v1/i/r1/cmd").is_err(), "another agent's name with this one's certificate");

    goes_on(&site, &simulator);
    events
        .wait_for(PATIENCE, |messages| {
            ensure!(!messages.is_empty());
            Ok(())
        })
        .unwrap();
    assert!(events.messages().unwrap().iter().all(|message| message.payload != lie));
    assert_eq!(agent.status().unwrap()["refused_messages"], 0);
    assert!(!site.log().unwrap().contains("\"message dropped\""), "nothing of the thief's reached the core");
}

/// Events still flow: a change by hand is seen.
fn goes_on(site: &Site, simulator: &Simulator) {
    for bmc in simulator.fleet().all() {
        site.until(bmc.name(), "power", word(bmc.toggle()), PATIENCE).unwrap();
    }
}

/// A consumer's certificate under the site's own authority that ended in `last_year`.
fn issued_by_the_site(site: &Site, name: &str, last_year: i32) -> Identity {
    let pki = site.path("aggregator/pki");
    let read = |name: &str| std::fs::read_to_string(pki.join(name)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI(format!("picket://test/consumer/{name}").try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 12, 31);
    let key = KeyPair::generate().unwrap();
    let identity = Identity { certificate: site.path(&format!("{name}.pem")), key: site.path(&format!("{name}.key")) };
    std::fs::write(&identity.certificate, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(&identity.key, key.serialize_pem()).unwrap();
    identity
}

#[test]
fn strangers_are_refused_and_harm_nobody() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let (site, mut agent) = running(&simulator);
    let events = MosquittoSub::start(&consumer(&site, "log"), EVENTS).unwrap();
    let _idle = TcpStream::connect(site.mqtt()).unwrap();

    drop(MosquittoSub::start(&at_gate(&site, Some(issued_by_the_site(&site, "valid", 2099))), STATE).unwrap());
    let foreign = Authority::new(&std::fs::create_dir(site.path("foreign")).map(|()| site.path("foreign")).unwrap()).unwrap();
    let strangers = [
        ("no certificate", None),
        ("a foreign authority", Some(foreign.client("valid").unwrap())),
        ("an expired one", Some(issued_by_the_site(&site, "expired", 2024))),
    ];
    std::thread::scope(|scope| {
        for (who, identity) in strangers {
            let broker = at_gate(&site, identity);
            scope.spawn(move || {
                assert!(Speaker::connect(&broker).is_err(), "{who}");
                assert!(MosquittoSub::start(&broker, STATE).is_err(), "{who}");
            });
        }
    });

    // Two connects with such a name have ended a broker's listener before.
    let odd = |broker: &Broker| Broker { client_id: Some("bad#id".into()), ..broker.clone() };
    let (reader, thief) = (odd(&consumer(&site, "odd")), odd(&thief(&site, &agent)));
    for _ in 0..2 {
        assert!(Speaker::connect(&thief).is_err(), "an agent's client id is its own");
        drop(MosquittoSub::start(&reader, STATE).unwrap());
    }
    let _both = [Speaker::connect(&reader).unwrap(), Speaker::connect(&reader).unwrap()];

    goes_on(&site, &simulator);
    agent.stop().unwrap();
    agent.start().unwrap();
    eventually(PATIENCE, || {
        ensure!(site.json(&["agents", "list"])?[0]["connected"] == true);
        Ok(())
    })
    .unwrap();
    goes_on(&site, &simulator);
    site.place("z1", "c1", "r2").unwrap();
    let _newcomer = site.join("r2").unwrap();
    eventually(PATIENCE, || {
        ensure!(site.json(&["summary"])?["agents_connected"] == 2);
        Ok(())
    })
    .unwrap();
    let seen = |messages: &[Message]| {
        ensure!(events_of_power(messages)? == 2);
        Ok(())
    };
    events.wait_for(PATIENCE, seen).unwrap();
}

fn events_of_power(messages: &[Message]) -> Result<usize> {
    Ok(events(messages, "bmc-0001", POWER)?.len())
}

// ---- a broker in strange hands ----

fn key(seed: [u8; 32]) -> SigningKey {
    SigningKey::from_seed(&Secret::new(seed)).unwrap()
}

fn seed_of(pki: &Path) -> Result<[u8; 32]> {
    let text = std::fs::read_to_string(pki.join("signing.seed"))?;
    hex::decode(text.trim())?.try_into().ok().context("a seed has 32 bytes")
}

#[test]
fn a_command_is_obeyed_for_its_signature_alone() {
    let simulator = simulator("bmc", 1, 0).unwrap();
    let (site, mut agent) = running(&simulator);
    let bmc = simulator.bmc("bmc-0001").unwrap();
    bmc.set_power(true);
    let rogue = Rogue::lure(&mut agent).unwrap();
    let (mine, other): (AgentId, AgentId) = ("r1".parse().unwrap(), "r2".parse().unwrap());
    let off = |number| {
        Command::Power(PowerCommand {
            operation: OperationId(uuid::Uuid::from_u128(number)),
            host: bmc.name().parse().unwrap(),
            action: Action::Off,
            on_if_off: false,
            // The year 2100.
            deadline: Time(4_102_444_800_000_000),
            epoch: u64::MAX,
            generation: rogue.generation(),
            enablement: u64::MAX,
        })
    };
    let site_key = key(seed_of(&site.path("aggregator/pki")).unwrap());
    let mut damaged = codec::sign(&site_key, &mine, &off(1)).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    let refused = [
        ("unsigned", codec::encode(&off(1)).unwrap()),
        ("signed by another key", codec::sign(&key([7; 32]), &mine, &off(1)).unwrap()),
        ("signed for another agent", codec::sign(&site_key, &other, &off(1)).unwrap()),
        ("changed after it was signed", damaged),
    ];
    for (count, (what, message)) in (1..).zip(refused) {
        rogue.say(Channel::Cmd, message).unwrap();
        refusals(&agent, count).with_context(|| what).unwrap();
    }
    assert!(bmc.is_on() && bmc.orders("off") == 0, "{:?}", bmc.calls(0));

    let signed = codec::sign(&site_key, &mine, &off(1)).unwrap();
    rogue.say(Channel::Cmd, signed.clone()).unwrap();
    eventually(PATIENCE, || {
        ensure!(!bmc.is_on() && bmc.orders("off") == 1);
        Ok(())
    })
    .unwrap();
    // What was rightly signed once is not good twice.
    bmc.set_power(true);
    rogue.say(Channel::Cmd, signed).unwrap();
    rogue.say(Channel::Cmd, b"after it".to_vec()).unwrap();
    refusals(&agent, 5).unwrap();
    assert!(bmc.is_on() && bmc.orders("off") == 1, "{:?}", bmc.calls(0));
}

/// Waits until the agent says how many messages it has refused.
fn refusals(agent: &Agent, wanted: u64) -> Result<()> {
    eventually(PATIENCE, || {
        let status = agent.status()?;
        ensure!(status["refused_messages"] == wanted, "{status}");
        Ok(())
    })
}
