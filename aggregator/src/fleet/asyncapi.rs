//! `docs/asyncapi.yaml`: the public MQTT tree as AsyncAPI 3.0, made of the topics and of what a fleet really publishes there.

use std::path::Path;

use picket_common::command::{Action, ErrorClass, Outcome};
use picket_common::ha::{Evidence, Fenced, HaState};
use picket_common::power::{Cause, Management, PowerState};
use picket_common::wire::ha::{HaReport, Proof};
use picket_common::wire::report::{PowerReport, Progress, Report};
use picket_common::wire::topic::Public;
use serde_json::{Map, Value, json};

use super::Request;
use super::events::Kind;
use super::request::Gate;
use super::testing::*;
use crate::publish::Status;

/// What a branch of the tree is: its channel, and whether its documents are retained. A new branch does not compile without it.
fn branch(topic: &Public) -> (&'static str, bool, &'static str) {
    match topic {
        Public::State(..) => ("state", true, "A host's state as it is now; complete for all hosts at every subscription."),
        Public::Event(..) => ("event", false, "What happened to a host, once, as a CloudEvent 1.0."),
        Public::Agent(_) => ("agent", true, "An agent's presence."),
        Public::Alert(_) => ("alert", true, "An alert while it fires; cleared by an empty payload when it is resolved."),
        Public::Status => ("status", true, "The aggregator itself."),
    }
}

/// Kinds of events of hosts: those of agents are told by their retained presence.
const KINDS: [Kind; 8] = [
    Kind::Power,
    Kind::Management,
    Kind::Operation,
    Kind::Enablement,
    Kind::AlertFiring,
    Kind::AlertResolved,
    Kind::Ha,
    Kind::HostStatus,
];

/// Topics whose ids are the names of their places.
fn topics() -> [Public; 5] {
    [
        Public::State(id("zone"), id("cluster"), id("host")),
        Public::Event(id("zone"), id("cluster"), id("host"), "kind"),
        Public::Agent(id("agent")),
        Public::Alert("id".into()),
        Public::Status,
    ]
}

/// `picket/v1/state/{zone}/{cluster}/{host}`, and its parameters.
fn address(topic: &Public) -> (String, Vec<String>) {
    let text = topic.to_string();
    let fixed = match topic {
        Public::Status => text.len(),
        _ => "picket/v1/".len() + branch(topic).0.len() + 1,
    };
    let (head, tail) = text.split_at(fixed);
    let names: Vec<String> = tail.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let places: Vec<String> = names.iter().map(|name| format!("{{{name}}}")).collect();
    (format!("{head}{}", places.join("/")), names)
}

/// A fleet in which everything happened once.
fn world() -> World {
    let mut world = World::running(2);
    let error = picket_common::command::BmcError {
        driver: "ipmi".into(),
        class: ErrorClass::Connection,
        code: "timeout".into(),
        text: "no answer".into(),
    };
    world.report("r1", vec![world.power_report("h1", PowerState::On)]);
    world.order(1, "h1", Action::Off).unwrap();
    world.report("r1", vec![world.progress(1, "h1", Progress::Done(Outcome::Changed))]);
    world.report("r1", vec![world.management_report("h1", Management::Lost, Some(error))]);
    world.report("r1", vec![world.management_report("h2", Management::Lost, None)]);
    world.report("r1", vec![world.management_report("h2", Management::Reachable, None)]);
    world.ask(Request::SetHa(Gate::Host(id("h1")), true)).unwrap();
    let Report::Power(off) = world.power_report("h1", PowerState::Off) else { panic!("not of power") };
    world.report("r1", vec![Report::Power(PowerReport { cause: Cause::Command(operation(1)), ..off })]);
    for (version, state) in [(1, HaState::Available { failures: 0 }), (2, fenced())] {
        world.report("r1", vec![ha_report(&world, version, state)]);
    }
    world
}

fn fenced() -> HaState {
    HaState::Fenced(Fenced { evidence: Evidence::Readings(3), restarting: false, returned: false, released: false })
}

/// Where h1 stands; that it is fenced by order, after an attempt that failed.
fn ha_report(world: &World, version: u64, state: HaState) -> Report {
    let error = picket_common::command::BmcError {
        driver: "ipmi".into(),
        class: ErrorClass::Deadline,
        code: "timeout".into(),
        text: "no answer to chassis control".into(),
    };
    let (at, is_fenced) = (world.wire_now(), state == fenced());
    let proof = Proof {
        readings: vec![(at, "ipmi 10.0.0.1".into()); 3],
        health: "tcp 10.1.0.1:22: refused".into(),
        off_sent: true,
        attempt: 2,
    };
    Report::Ha(Box::new(HaReport {
        host: id("h1"),
        version,
        at,
        state,
        why: if is_fenced { "3 Off readings, and no answer after them" } else { "its health checks pass" }.into(),
        quarantined: is_fenced,
        acked: false,
        error: is_fenced.then_some(error),
        proof: is_fenced.then_some(proof),
        operation: is_fenced.then(|| operation(2)),
    }))
}

/// The schema that an example has: names and types. What can be absent or null is not told apart from what cannot.
fn schema(example: &Value) -> Value {
    match example {
        Value::Null => json!({}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(_) => json!({"type": "integer"}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(items) => json!({"type": "array", "items": items.first().map_or_else(|| json!({}), schema)}),
        Value::Object(fields) => {
            let fields: Map<String, Value> = fields.iter().map(|(name, value)| (name.clone(), schema(value))).collect();
            json!({"type": "object", "properties": fields})
        }
    }
}

/// Documents of a branch, each with its name.
fn examples(world: &World, topic: &Public) -> Vec<(String, Value)> {
    let retained = |wanted: fn(&Public) -> bool| {
        let body = world.retained.iter().find(|(topic, _)| wanted(topic)).unwrap().1;
        serde_json::from_slice::<Value>(body).unwrap()
    };
    let (name, ..) = branch(topic);
    let one = |example| vec![(name.to_owned(), example)];
    match topic {
        Public::State(..) => one(retained(|topic| matches!(topic, Public::State(..)))),
        Public::Agent(_) => one(retained(|topic| matches!(topic, Public::Agent(_)))),
        Public::Alert(_) => one(retained(|topic| matches!(topic, Public::Alert(_)))),
        Public::Status => {
            let since = jiff::Timestamp::UNIX_EPOCH;
            one(json!(Status { site: id("site1"), status: "running", version: "0.1.0", since }))
        }
        Public::Event(..) => {
            let event = |kind: Kind| {
                let event = world.events.iter().rev().find(|event| event.kind == kind.of_type());
                json!(event.unwrap_or_else(|| panic!("{kind:?} did not happen")))
            };
            KINDS.iter().map(|kind| (kind.of_type().replace('.', "_"), event(*kind))).collect()
        }
    }
}

fn document() -> Value {
    let world = world();
    for event in world.events.iter().filter(|event| event.data.host.is_some()) {
        assert!(KINDS.iter().any(|kind| kind.of_type() == event.kind), "{} is not told of", event.kind);
    }
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for topic in topics() {
        let (name, retain, about) = branch(&topic);
        let (address, parameters) = address(&topic);
        let mut of_channel = Map::new();
        for (message, example) in examples(&world, &topic) {
            of_channel.insert(message.clone(), json!({"$ref": format!("#/components/messages/{message}")}));
            let schema = schema(&example);
            let whole = json!({"contentType": "application/json", "payload": schema, "examples": [{"payload": example}]});
            messages.insert(message, whole);
        }
        let mut segments: Vec<&str> = KINDS.map(Kind::segment).into();
        segments.dedup();
        let parameter = |name: &String| match name.as_str() {
            "kind" => json!({"enum": segments}),
            "id" => json!({"description": "The alert's id."}),
            name => json!({"description": format!("Id of the {name}: [a-z0-9][a-z0-9._-]{{0,62}}")}),
        };
        let parameters: Map<String, Value> = parameters.iter().map(|name| (name.clone(), parameter(name))).collect();
        let mut channel = json!({"address": address, "description": about, "messages": of_channel});
        if !parameters.is_empty() {
            channel["parameters"] = parameters.into();
        }
        channels.insert(name.to_owned(), channel);
        let send = json!({
            "action": "send",
            "channel": {"$ref": format!("#/channels/{name}")},
            "bindings": {"mqtt": {"qos": 1, "retain": retain, "bindingVersion": "0.2.0"}},
        });
        operations.insert(name.to_owned(), send);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Picket, public MQTT tree",
            "version": "1",
            "description": "What an aggregator tells its consumers. Nobody but the aggregator publishes here. Events come in structured \
                mode to MQTT 3.1.1, as shown; to MQTT 5 in binary mode: the payload is `data`, the attributes are user properties. \
                The event's id is the key against counting it twice.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "aggregator": {
                "host": "aggregator:8883",
                "protocol": "mqtts",
                "description": "MQTT 3.1.1 and 5 over mutual TLS; `picketctl consumers issue NAME` makes the certificate.",
                "security": [{"$ref": "#/components/securitySchemes/certificate"}],
            },
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "securitySchemes": {"certificate": {"type": "X509"}}},
    })
}

#[test]
fn asyncapi_is_what_is_published() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/asyncapi.yaml");
    let text = format!(
        "# Made by the test `asyncapi_is_what_is_published`; run it with PICKET_WRITE_DOCS=1 to make it anew.\n{}",
        serde_saphyr::to_string(&document()).unwrap()
    );
    if std::env::var_os("PICKET_WRITE_DOCS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == text, "{} is not what is published: run this test with PICKET_WRITE_DOCS=1", file.display());
    for topic in topics() {
        assert!(picket_common::wire::topic::is_public_filter(&topic.to_string()), "{topic}");
    }
}
