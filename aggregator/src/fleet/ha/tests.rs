//! Host-HA downwards: what is set, what is in force, and what agents hear of it.

use std::time::Duration;

use picket_common::api::Field;
use picket_common::api::HistoryWhat;
use picket_common::api::ha::{BrakesPatch, HaPatch};
use picket_common::command::{Action, HaAction, Outcome};
use picket_common::ha::settings::{ActivityCheck, HealthCheck, Neighbour};
use picket_common::ha::{By, Degraded, Fencing, Gate as RefusingGate, GateSet, HaState, OutagePolicy, Way};
use picket_common::id::{ClusterId, HostId};
use picket_common::power::PowerState;
use picket_common::wire::assign::Assign;
use picket_common::wire::down::Command;
use picket_common::wire::ha::{ClusterSurroundings, HaClosed, HaPart, HaReport, HaVerb, HostHa};
use picket_common::wire::report::{Progress, Report};
use proptest::prelude::*;

use super::super::request::{ClusterChange, Gate, HostChange, PauseSpec, Until};
use super::super::testing::*;
use super::super::{Answer, Effect, Rejection, Request, Told};
use super::*;

fn set(world: &mut World, gate: Gate, open: bool) {
    world.ask(Request::SetHa(gate, open)).unwrap();
}

fn host_ha(host: &str, ha: HaPatch) -> Request {
    Request::PatchHost(id(host), HostChange { ha: Field::Set(ha), ..HostChange::default() })
}

fn cluster_ha(ha: HaPatch) -> Request {
    Request::PatchCluster(id("c1"), ClusterChange { ha: Field::Set(ha), ..ClusterChange::default() })
}

fn tcp(address: &str) -> HealthCheck {
    HealthCheck::Tcp { address: address.into(), port: 22 }
}

/// What an agent was told by the last event, if anything.
fn told(world: &World, agent: &str) -> Option<HaPart> {
    let parts = world.effects.iter().filter_map(|effect| match effect {
        Effect::Tell(to, Told::Assign(parts)) if to.as_str() == agent => Some(parts),
        _ => None,
    });
    let mut parts = parts.flatten().filter_map(|assign| match assign {
        Assign::Ha(part) => Some(part.clone()),
        _ => None,
    });
    let first = parts.next();
    assert!(parts.next().is_none(), "one part is enough");
    first
}

fn hosts(part: &HaPart) -> Vec<(&str, Option<HaClosed>)> {
    part.hosts.iter().map(|host| (host.host.as_str(), host.closed)).collect()
}

#[test]
fn the_grid_of_ha_gates() {
    for bits in 0..27_u8 {
        let flag = |bits: u8| [None, Some(false), Some(true)][usize::from(bits % 3)];
        let [zone, cluster, host] = [flag(bits / 9), flag(bits / 3), flag(bits)];
        let mut world = World::of(1);
        for (gate, open) in [(Gate::Zone(id("z1")), zone), (Gate::Cluster(id("c1")), cluster), (Gate::Host(id("h1")), host)] {
            if let Some(open) = open {
                set(&mut world, gate, open);
            }
        }
        let wanted = match (zone, cluster, host) {
            (Some(false), ..) => Some(HaClosed::Zone),
            (_, Some(false), _) => Some(HaClosed::Cluster),
            (.., Some(true)) => None,
            _ => Some(HaClosed::Host),
        };
        let view = world.fleet.view();
        assert_eq!(closed(&view, &world.host("h1")), wanted);
        assert_eq!(gate(&view, &Gate::Host(id("h1"))), host, "flags do not cascade");
        assert_eq!(world.host("h1").oobm, None, "the gates of power are others");
    }
}

#[test]
fn an_agent_hears_all_when_it_comes_and_when_something_changes() {
    let mut world = World::running(2);
    world.hello("r1", 2, 1);
    let first = told(&world, "r1").unwrap();
    assert_eq!((first.part, first.of, first.hosts.len(), first.clusters.len()), (0, 1, 0, 0), "nothing, and no doubt about it");
    set(&mut world, Gate::Host(id("h1")), true);
    let part = told(&world, "r1").unwrap();
    assert_eq!(hosts(&part), [("h1", None)]);
    assert!(part.version.counter > first.version.counter && part.version.store == first.version.store);
    assert_eq!(part.epoch, world.fleet.view().racks.values().next().unwrap().epoch);
    let cluster = &part.clusters[0];
    assert_eq!((cluster.cluster.as_str(), cluster.zone.as_str(), cluster.cap, cluster.agents), ("c1", "z1", 3, 1));
    assert_eq!((cluster.storm, cluster.cliff, part.agent_cap), ([30, 20, 10], Some(50), 6));

    set(&mut world, Gate::Host(id("h1")), true);
    assert_eq!((told(&world, "r1"), world.records), (None, 0), "again changes nothing");
    set(&mut world, Gate::Zone(id("z1")), false);
    assert_eq!(hosts(&told(&world, "r1").unwrap()), [("h1", Some(HaClosed::Zone))]);
    set(&mut world, Gate::Zone(id("z1")), true);
    world.ask(cluster_ha(HaPatch { policy: Field::Set(OutagePolicy::Reboot), ..HaPatch::default() })).unwrap();
    assert_eq!(told(&world, "r1").unwrap().hosts[0].settings.policy, OutagePolicy::Reboot);
    let brakes = BrakesPatch { cap: Field::Set(5), cliff: Field::Set(0), ..BrakesPatch::default() };
    world.ask(Request::PatchCluster(id("c1"), ClusterChange { brakes: Field::Set(brakes), ..ClusterChange::default() })).unwrap();
    let cluster = told(&world, "r1").unwrap().clusters.remove(0);
    assert_eq!((cluster.cap, cluster.cliff), (5, None));
    world.ask(Request::PatchHost(id("h1"), HostChange { maintenance: Some(true), ..HostChange::default() })).unwrap();
    assert!(told(&world, "r1").unwrap().hosts[0].maintenance);
    world.ask(Request::PatchHost(id("h2"), HostChange { maintenance: Some(true), ..HostChange::default() })).unwrap();
    assert_eq!(told(&world, "r1"), None, "h2 is none of it");
    set(&mut world, Gate::Host(id("h1")), false);
    assert_eq!(hosts(&told(&world, "r1").unwrap()), [("h1", Some(HaClosed::Host))], "what was enabled once is told of");

    world.gone("r1", 2);
    set(&mut world, Gate::Host(id("h1")), true);
    assert_eq!(told(&world, "r1"), None);
    world.restart();
    world.hello("r1", 3, 1);
    let part = told(&world, "r1").unwrap();
    assert_eq!((hosts(&part), part.hosts[0].settings.policy), (vec![("h1", None)], OutagePolicy::Reboot));
    world.ask(Request::DeleteHost(id("h1"))).unwrap();
    assert_eq!(told(&world, "r1").unwrap().hosts, []);
}

#[test]
fn a_moved_host_goes_with_its_settings() {
    let mut world = World::running(2);
    world.ground("z1", "c1", "r2");
    world.join("r2", "r2", 2);
    world.hello("r2", 5, 5);
    set(&mut world, Gate::Host(id("h1")), true);
    set(&mut world, Gate::Host(id("h2")), true);
    world.ask(Request::PatchHost(id("h1"), HostChange { rack: Some(id("r2")), ..HostChange::default() })).unwrap();
    let (left, came) = (told(&world, "r1").unwrap(), told(&world, "r2").unwrap());
    assert_eq!((hosts(&left), hosts(&came)), (vec![("h2", None)], vec![("h1", None)]));
    assert_eq!((left.clusters[0].agents, came.clusters[0].agents), (2, 2), "each owns a floor");
    let order: Vec<&str> = world
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Tell(to, Told::Assign(parts)) if to.as_str() == "r2" => Some(match parts[0] {
                Assign::Ha(_) => "watched over",
                Assign::Surroundings(_) => "around",
                _ => "assigned",
            }),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["assigned", "watched over", "around"]);
    world.ask(Request::PatchHost(id("h2"), HostChange { rack: Some(id("r2")), ..HostChange::default() })).unwrap();
    assert_eq!((told(&world, "r1").unwrap().clusters.len(), told(&world, "r2").unwrap().clusters[0].agents), (0, 1));
    world.join("new", "r2", 9);
    assert_eq!(told(&world, "r2").unwrap().hosts, [], "the one before is left with nothing");
    world.hello("new", 7, 7);
    let part = told(&world, "new").unwrap();
    assert_eq!((part.hosts.len(), part.epoch > came.epoch), (2, true));
}

#[test]
fn settings_host_then_cluster_then_default() {
    let mut world = World::running(2);
    let ha = |policy| HaPatch { policy: Field::Set(policy), health: Field::Set(vec![tcp("{host}.example")]), ..HaPatch::default() };
    world.ask(cluster_ha(HaPatch { failures: Field::Set(5), ..ha(OutagePolicy::Reboot) })).unwrap();
    world.ask(host_ha("h1", HaPatch { policy: Field::Set(OutagePolicy::Nothing), ..HaPatch::default() })).unwrap();
    let of = |world: &World, host: &str| in_force(&world.fleet.view(), &world.host(host));
    let (h1, h2) = (of(&world, "h1"), of(&world, "h2"));
    assert_eq!((h1.policy, h1.failures, h1.samples), (OutagePolicy::Nothing, 5, 6));
    assert_eq!((h2.policy, h2.failures, h2.samples), (OutagePolicy::Reboot, 5, 6));
    assert_eq!((h1.health, h2.health), (vec![tcp("h1.example")], vec![tcp("h2.example")]));
    let shown = settings_json(&world.fleet.view(), &world.host("h1"));
    let line = |name: &str| serde_json::to_value(&shown[name]).unwrap().to_string();
    assert_eq!(line("policy"), r#"{"from":"host","value":"nothing"}"#);
    assert_eq!(line("failures"), r#"{"from":"cluster","value":5}"#);
    assert_eq!(line("samples"), r#"{"from":"default","value":6}"#);
    assert_eq!(shown.len(), 23, "all are shown");

    world.ask(host_ha("h1", HaPatch { policy: Field::Unset, ..HaPatch::default() })).unwrap();
    assert_eq!(of(&world, "h1").policy, OutagePolicy::Reboot);
    world.ask(host_ha("h1", HaPatch { samples: Field::Set(2), stable: Field::Set(7), ..HaPatch::default() })).unwrap();
    let put = |ha: Field<HaPatch>| super::super::request::HostSpec { ha, ..spec("c1", "r1", Some(ipmi("10.0.0.1"))) };
    world.ask(Request::PutHost(id("h1"), put(Field::Keep))).unwrap();
    assert_eq!(of(&world, "h1").samples, 2, "whoever says nothing of it takes nothing away");
    world.ask(Request::PutHost(id("h1"), put(Field::Set(HaPatch { stable: Field::Set(9), ..HaPatch::default() })))).unwrap();
    assert_eq!((of(&world, "h1").samples, of(&world, "h1").stable), (6, 9), "what is put is the whole of it");
    world.ask(Request::PatchHost(id("h1"), HostChange { ha: Field::Unset, ..HostChange::default() })).unwrap();
    assert_eq!(of(&world, "h1").stable, 60);
}

fn field(answer: Result<Answer, Rejection>) -> &'static str {
    match answer {
        Err(Rejection::Invalid { field, .. }) => field,
        Ok(_) => "ok",
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn bounds_name_the_field() {
    let mut world = World::of(1);
    let none = HaPatch::default;
    let health = |check: HealthCheck| HaPatch { health: Field::Set(vec![check]), ..none() };
    let activity = |check: ActivityCheck| HaPatch { activity: Field::Set(vec![check]), ..none() };
    let http = |url: &str| health(HealthCheck::Http { url: url.into() });
    let files = |paths: &[&str]| activity(ActivityCheck::Files { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
    let program = |name: &str| health(HealthCheck::Exec { check: name.into() });
    let neighbour = |address: &str| Neighbour { host: id("h2"), address: address.into(), port: None };
    let ask = |neighbours| activity(ActivityCheck::Witness { paths: vec!["/a".into()], neighbours });
    for (wanted, patch) in [
        ("ok", none()),
        ("ha.confirmations", HaPatch { confirmations: Field::Set(1), ..none() }),
        ("ok", HaPatch { confirmations: Field::Set(2), settle: Field::Set(600), ..none() }),
        ("ha.settle", HaPatch { settle: Field::Set(601), ..none() }),
        ("ha.health_interval", HaPatch { health_interval: Field::Set(0), ..none() }),
        ("ha.failures", HaPatch { failures: Field::Set(0), ..none() }),
        ("ok", HaPatch { recovery_attempts: Field::Set(0), startup_quiet: Field::Set(0), ..none() }),
        ("ha.boot_wait", HaPatch { boot_wait: Field::Set(86_401), ..none() }),
        ("ok", HaPatch { health: Field::Set(vec![tcp("a"); 8]), ..none() }),
        ("ha.health", HaPatch { health: Field::Set(vec![tcp("a"); 9]), ..none() }),
        ("ha.health", health(tcp("no such place"))),
        ("ha.health", health(HealthCheck::Tcp { address: "a".into(), port: 0 })),
        ("ok", health(HealthCheck::Icmp { address: "{host}-mgmt".into() })),
        ("ok", http("https://{host}:8443/healthz?a=b")),
        ("ha.health", http("ftp://a")),
        ("ha.health", http("https://")),
        ("ha.health", http("http://user:word@a/")),
        ("ok", program("rbd-status")),
        ("ha.health", program("/bin/sh")),
        ("ha.health", program("")),
        ("ok", files(&["/vm/{host}/disk"])),
        ("ha.activity", files(&["vm/disk"])),
        ("ok", files(&[])),
        ("ha.activity", files(&["/a"; 65])),
        ("ha.activity", files(&[&format!("/{}", "{host}".repeat(20))])),
        ("ha.activity", files(&[format!("/{}", "x".repeat(900)).as_str(); 30])),
        ("ok", ask(vec![neighbour("h2"); 8])),
        ("ha.activity", ask(vec![neighbour("h2"); 9])),
        ("ha.activity", ask(vec![neighbour("h 2")])),
        ("ha.activity", activity(ActivityCheck::Heartbeat { path: "beat".into() })),
    ] {
        let name = format!("{patch:?}");
        assert_eq!(field(world.ask(host_ha("h1", patch.clone()))), wanted, "host: {name}");
        assert_eq!(field(world.ask(cluster_ha(patch))), wanted, "cluster: {name}");
    }
    let none = BrakesPatch::default;
    for (wanted, patch) in [
        ("ok", BrakesPatch { cap: Field::Set(0), cliff: Field::Set(0), ..none() }),
        ("brakes.cap", BrakesPatch { cap: Field::Set(1001), ..none() }),
        ("brakes.cap_window", BrakesPatch { cap_window: Field::Set(59), ..none() }),
        ("brakes.storm_zone", BrakesPatch { storm_zone: Field::Set(101), ..none() }),
        ("brakes.cliff", BrakesPatch { cliff: Field::Set(101), ..none() }),
    ] {
        let change = ClusterChange { brakes: Field::Set(patch), ..ClusterChange::default() };
        assert_eq!(field(world.ask(Request::PatchCluster(id("c1"), change))), wanted);
    }
    for gate in [Gate::Zone(id("z9")), Gate::Cluster(id("c9")), Gate::Host(id("h9"))] {
        assert!(matches!(world.ask(Request::SetHa(gate, true)), Err(Rejection::NotFound { .. })));
    }
}

#[test]
fn a_pause_has_an_owner_and_an_end() {
    let mut world = World::running(1);
    set(&mut world, Gate::Host(id("h1")), true);
    let pause = |until| PauseSpec { until, reason: Some("new switch".into()) };
    let (host, cluster) = (|| Gate::Host(id("h1")), || Gate::Cluster(id("c1")));
    let minutes = |minutes: u64| Until::After(Duration::from_secs(60 * minutes));
    world.ask(Request::Pause(host(), pause(minutes(10)))).unwrap();
    let of = |world: &World| told(world, "r1").unwrap().hosts[0].pause.clone();
    let shown = of(&world).unwrap();
    let end = |world: &World, minutes: u64| world.now.after(Duration::from_secs(60 * minutes)).wall;
    assert_eq!((shown.owner.as_str(), shown.until), ("admin", end(&world, 10).into()));
    world.ask(Request::Pause(cluster(), pause(Until::At(end(&world, 60))))).unwrap();
    assert_eq!(of(&world).unwrap().until, end(&world, 60).into(), "the one that ends last");
    world.ask(Request::Resume(cluster())).unwrap();
    assert_eq!(of(&world).unwrap().until, end(&world, 10).into());
    world.ask(Request::Resume(host())).unwrap();
    assert_eq!(of(&world), None);
    world.ask(Request::Resume(host())).unwrap();
    for until in [minutes(0), minutes(60 * 24 * 32), Until::At(world.now.wall)] {
        assert_eq!(field(world.ask(Request::Pause(host(), pause(until)))), "until");
    }
}

#[test]
fn the_pinned_machine_is_told() {
    use picket_common::facts::Facts;
    use picket_common::wire::report::{FactsReport, Report};
    let mut world = World::running(1);
    set(&mut world, Gate::Host(id("h1")), true);
    let revision = world.host("h1").bmc.unwrap().revision;
    let facts = Facts { identity: Some("guid-1".into()), ..Facts::default() };
    world.report("r1", vec![Report::Facts(FactsReport { host: id("h1"), revision, observed_at: world.wire_now(), facts })]);
    assert_eq!(told(&world, "r1").unwrap().hosts[0].identity.as_deref(), Some("guid-1"));
}

#[test]
fn neighbours_are_chosen_where_nobody_names_them() {
    let mut world = World::running(5);
    let witness = HealthCheck::Witness { address: "{host}.lan".into(), port: None };
    let ask = ActivityCheck::Witness { paths: vec!["/vm/{host}".into()], neighbours: Vec::new() };
    world
        .ask(cluster_ha(HaPatch { health: Field::Set(vec![witness]), activity: Field::Set(vec![ask]), ..HaPatch::default() }))
        .unwrap();
    for host in ["h1", "h2", "h3", "h4", "h5"] {
        set(&mut world, Gate::Host(id(host)), true);
    }
    world.ask(host_ha("h5", HaPatch { health: Field::Set(vec![tcp("h5")]), ..HaPatch::default() })).unwrap();
    let part = told(&world, "r1").unwrap();
    let asked = |host: &HostHa| match &host.settings.activity[0] {
        ActivityCheck::Witness { neighbours, .. } => neighbours.iter().map(|one| one.address.clone()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked(&part.hosts[0]), ["h2.lan", "h3.lan", "h4.lan"]);
    assert_eq!(asked(&part.hosts[2]), ["h4.lan", "h1.lan", "h2.lan"], "never itself, never one without a witness");
}

#[test]
fn a_row_that_does_not_read_closes_its_gate() {
    use super::super::view::{HaRow, Row, RowKey};
    let mut world = World::running(1);
    set(&mut world, Gate::Host(id("h1")), true);
    let of = Gate::Zone(id("z1"));
    world.rows.insert(RowKey::Ha(of.clone()), Row::Ha(HaRow { of, json: "{".into() }));
    world.restart();
    assert_eq!(closed(&world.fleet.view(), &world.host("h1")), Some(HaClosed::Zone));
}

fn word(n: u128, host: &str, action: HaAction) -> Request {
    let reason = (action != HaAction::Plan).then(|| "it hangs".to_owned());
    Request::Ha { id: operation(n), host: id(host), action, timeout: None, reason }
}

const FENCE: HaAction = HaAction::Fence { overrides: GateSet::EMPTY };

#[test]
fn a_word_goes_the_way_of_an_operation() {
    let mut world = World::running(1);
    set(&mut world, Gate::Host(id("h1")), true);
    let overrides = [RefusingGate::Storm, RefusingGate::Cap].into_iter().collect();
    assert!(matches!(world.ask(word(1, "h1", HaAction::Fence { overrides })), Ok(Answer::Accepted(_))));
    let Command::Ha(command) = world.commands().remove(0) else { panic!() };
    let view = world.fleet.view();
    assert_eq!(command.verb, HaVerb::Fence { overrides: vec![RefusingGate::Storm, RefusingGate::Cap] });
    assert_eq!((command.by.as_str(), command.reason.as_str(), command.host.as_str()), ("admin", "it hangs", "h1"));
    assert_eq!(command.epoch, view.racks.values().next().unwrap().epoch);
    assert_eq!(command.enablement, world.host("h1").enablement);
    assert_eq!(command.deadline, world.now.after(Duration::from_secs(600)).wall.into(), "a fence takes its time");
    world.restart();
    world.hello("r1", 2, 1);
    assert!(
        matches!(&world.commands()[..], [Command::Ha(again)] if again.verb == command.verb && again.by == "admin"),
        "sent again: the agent knows what it has seen"
    );
    world.report("r1", vec![world.progress(1, "h1", Progress::Done(Outcome::Changed))]);
    assert_eq!(world.part(1, "h1").outcome, Some(Outcome::Changed));
    let lines = world.history_of("h1");
    assert!(matches!(&lines[lines.len() - 2..], [HistoryWhat::OperationAccepted { .. }, HistoryWhat::OperationDone { .. }]));
    let entry = world.audit.iter().rfind(|entry| entry.operation_id == Some(operation(1))).unwrap();
    assert_eq!((entry.summary.as_deref(), entry.reason.as_deref()), (Some("operation=fence"), Some("it hangs")));
    let asked = super::super::summary::summary(&word(2, "h1", HaAction::Fence { overrides })).unwrap();
    assert_eq!(asked, r#"operation=fence overrides=["storm","cap"]"#);
    for (n, action, verb) in [
        (2, HaAction::Plan, HaVerb::Plan),
        (3, HaAction::Confirm { force: true }, HaVerb::Confirm { force: true }),
        (4, HaAction::Abort, HaVerb::Abort),
        (5, HaAction::Ack, HaVerb::Ack),
        (6, HaAction::Release, HaVerb::Release),
        (7, HaAction::ResetCounters, HaVerb::ResetCounters),
        (8, HaAction::EndCliff, HaVerb::EndCliff),
    ] {
        world.ask(word(n, "h1", action)).unwrap();
        assert!(matches!(&world.commands()[..], [Command::Ha(command)] if command.verb == verb), "{action:?}");
    }
}

#[test]
fn what_is_refused_here() {
    let all = [
        FENCE,
        HaAction::Plan,
        HaAction::Confirm { force: false },
        HaAction::Abort,
        HaAction::Ack,
        HaAction::Release,
        HaAction::ResetCounters,
        HaAction::EndCliff,
    ];
    let told = |world: &mut World, action: HaAction| match world.ask(word(1, "h1", action)) {
        Err(Rejection::Refused(refusal)) => refusal.code(),
        Ok(_) => "ok",
        Err(other) => panic!("{other}"),
    };
    type Case = (&'static str, fn(&mut World), fn(HaAction) -> &'static str);
    let cases: [Case; 5] = [
        ("never set up", |_| {}, |_| "ha-disabled"),
        ("all is well", |world| set(world, Gate::Host(id("h1")), true), |_| "ok"),
        (
            "HA gate closed",
            |world| {
                set(world, Gate::Host(id("h1")), true);
                set(world, Gate::Cluster(id("c1")), false);
            },
            |action| if matches!(action, FENCE | HaAction::Confirm { .. }) { "ha-disabled" } else { "ok" },
        ),
        (
            "power gate closed",
            |world| {
                set(world, Gate::Host(id("h1")), true);
                world.enable("h1", false);
            },
            |action| if action == FENCE { "host-disabled" } else { "ok" },
        ),
        (
            "nobody there",
            |world| {
                set(world, Gate::Host(id("h1")), true);
                world.ask(Request::PutRack(id("r2"), picket_common::api::RackBody { zone: id("z1") })).unwrap();
                world.ask(Request::PatchHost(id("h1"), HostChange { rack: Some(id("r2")), ..HostChange::default() })).unwrap();
            },
            |_| "rack-without-agent",
        ),
    ];
    for (name, prepare, wanted) in cases {
        for action in all {
            let mut world = World::running(1);
            prepare(&mut world);
            assert_eq!(told(&mut world, action), wanted(action), "{name}: {action:?}");
        }
    }
    let mut world = World::running(1);
    set(&mut world, Gate::Host(id("h1")), true);
    let unsaid = Request::Ha { id: operation(1), host: id("h1"), action: FENCE, timeout: None, reason: None };
    assert_eq!(field(world.ask(unsaid)), "reason");
    assert!(matches!(world.ask(word(1, "h9", FENCE)), Err(Rejection::NotFound { .. })));
    let bulk = super::super::request::Bulk {
        id: operation(1),
        hosts: vec![id("h1")],
        operation: Action::Ha(FENCE),
        timeout: None,
        reason: None,
        on_if_off: false,
        stagger_ms: 0,
    };
    assert_eq!(field(world.ask(Request::Operate(bulk))), "operation");
}

/// What an agent was last told of a cluster in this event.
fn around(world: &World, agent: &str) -> Option<ClusterSurroundings> {
    let words = world.effects.iter().filter_map(|effect| match effect {
        Effect::Tell(to, Told::Assign(parts)) if to.as_str() == agent => Some(parts),
        _ => None,
    });
    let word = words.flatten().filter_map(|assign| match assign {
        Assign::Surroundings(word) => Some(word),
        _ => None,
    });
    word.last().and_then(|word| word.clusters.first().cloned())
}

fn stands(world: &World, host: &str, version: u64, state: HaState) -> Report {
    Report::Ha(Box::new(HaReport {
        host: id(host),
        version,
        at: world.wire_now(),
        state,
        why: "it is so".into(),
        quarantined: false,
        acked: false,
        error: None,
        proof: None,
        operation: None,
    }))
}

/// Three racks of one host each, all with HA and connected.
fn racks() -> World {
    let mut world = World::running(3);
    for n in 2..=3_u8 {
        let (rack, host) = (format!("r{n}"), format!("h{n}"));
        world.ground("z1", "c1", &rack);
        world.join(&rack, &rack, n);
        world.ask(Request::PatchHost(id(&host), HostChange { rack: Some(id(&rack)), ..HostChange::default() })).unwrap();
        world.hello(&rack, n.into(), n.into());
    }
    let brakes = BrakesPatch { cap: Field::Set(5), ..BrakesPatch::default() };
    world.ask(Request::PatchCluster(id("c1"), ClusterChange { brakes: Field::Set(brakes), ..ClusterChange::default() })).unwrap();
    for n in 1..=3_u128 {
        set(&mut world, Gate::Host(id(&format!("h{n}"))), true);
    }
    world
}

#[test]
fn agents_hear_how_their_neighbours_are() {
    let mut world = racks();
    let first = around(&world, "r1").unwrap();
    assert_eq!((first.hosts, first.unwell, first.well, first.zone_hosts, first.lease), (2, 0, 0, 2, 0));
    for n in 1..=3_u8 {
        let (rack, host) = (format!("r{n}"), format!("h{n}"));
        world.report(&rack, vec![world.power_report(&host, PowerState::On)]);
        world.report(&rack, vec![stands(&world, &host, 1, HaState::Available { failures: 0 })]);
    }
    assert_eq!(around(&world, "r1"), None, "gathered for a while");
    world.pass(5);
    let told = ["r1", "r2", "r3"].map(|rack| around(&world, rack).map(|told| (told.hosts, told.unwell, told.well)));
    assert_eq!(told, [Some((2, 0, 2)); 3]);
    world.report("r2", vec![stands(&world, "h2", 2, HaState::Suspect)]);
    world.pass(5);
    let (r1, r2) = (around(&world, "r1").unwrap(), around(&world, "r2").unwrap());
    assert_eq!((r1.unwell, r1.well, r1.zone_unwell, r1.lease), (1, 1, 1, 0), "a neighbour is unwell");
    assert_eq!((r2.unwell, r2.well, r2.lease), (0, 2, 1), "it may need one more than its own");
    assert_eq!(r2.lease_until, world.now.after(Duration::from_secs(600)).wall.into());
    world.pass(60);
    assert_eq!(around(&world, "r2"), None, "nothing is new");
}

#[test]
fn a_lease_is_renewed_and_outlives_a_restart() {
    let mut world = racks();
    world.report("r2", vec![stands(&world, "h2", 1, HaState::Suspect)]);
    world.pass(5);
    let first = around(&world, "r2").unwrap();
    let mut told = None;
    for second in 0..360 {
        world.pass(1);
        told = around(&world, "r2").or(told);
        for (rack, session) in [("r1", 1), ("r2", 2), ("r3", 3)] {
            if second % 5 == 0 {
                world.settle(rack, session);
            }
        }
    }
    assert!(told.unwrap().lease_until > first.lease_until, "before it ends");
    world.restart();
    assert_eq!(world.fleet.ledgers.len(), 1);
    world.hello("r2", 7, 2);
    assert_eq!(around(&world, "r2").unwrap().lease, 1);
    world.hello("r3", 8, 3);
    world.report("r3", vec![stands(&world, "h3", 1, HaState::Suspect)]);
    world.pass(5);
    assert_eq!(around(&world, "r3").unwrap().lease, 1, "five, one each, one leased: one is left");
    world.hello("r1", 9, 1);
    assert_eq!(around(&world, "r1").map(|told| (told.unwell, told.lease)), Some((2, 0)));
    world.report("r1", vec![stands(&world, "h1", 1, HaState::Suspect)]);
    world.pass(5);
    assert_eq!(around(&world, "r2").map(|told| (told.unwell, told.lease)), Some((2, 1)), "it was looked around");
    assert_eq!(around(&world, "r1"), None, "nothing is left, so nothing is new to it");
}

#[test]
fn a_power_down_is_counted_once() {
    let mut world = racks();
    let fencing = |off_possibly_sent| HaState::Fencing(Fencing { off_possibly_sent, ..Fencing::new(Way::Order(By::Policy)) });
    let downs = |world: &World| world.fleet.ledgers.get(&id::<ClusterId>("c1")).map_or(0, |ledger| ledger.downs_of(&id("r2")));
    for (version, state, wanted) in [
        (1, fencing(false), 0),
        (2, fencing(true), 1),
        (3, HaState::Fencing(Fencing { attempt: 2, off_possibly_sent: true, ..Fencing::new(Way::Order(By::Policy)) }), 1),
        (4, HaState::Degraded(Degraded::Aborted), 1),
        (5, fencing(true), 2),
    ] {
        world.report("r2", vec![stands(&world, "h2", version, state)]);
        assert_eq!(downs(&world), wanted, "{version}");
    }
    world.pass(7300);
    assert!(world.fleet.ledgers.is_empty(), "the window has passed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn every_part_fits_its_frame(count in 1_usize..60, checks in 0_usize..=8, paths in 1_usize..=8, length in 1_usize..300) {
        use picket_common::wire::codec::{SigningKey, sign};
        let mut world = World::unchecked(count);
        let text = |n: usize| format!("/{}{n}", "x".repeat(length));
        let files = ActivityCheck::Files { paths: (0..paths).map(text).collect() };
        let health = HealthCheck::Http { url: format!("https://{{host}}/{}", "y".repeat(length)) };
        let ha = HaPatch { health: Field::Set(vec![health; checks]), activity: Field::Set(vec![files; checks]), ..HaPatch::default() };
        world.ask(cluster_ha(ha)).unwrap();
        for n in 1..=count {
            set(&mut world, Gate::Host(id(&format!("h{n}"))), true);
        }
        let key = SigningKey::from_seed(&picket_common::secret::Secret::new([7; 32])).unwrap();
        let parts = world.effects.iter().find_map(|effect| match effect {
            Effect::Tell(_, Told::Assign(parts)) => Some(parts.clone()),
            _ => None,
        });
        let mut got: Vec<HostId> = Vec::new();
        let parts = parts.unwrap();
        for (n, assign) in parts.iter().enumerate() {
            sign(&key, &id("r1"), assign).unwrap();
            let Assign::Ha(part) = assign else { panic!("a part") };
            prop_assert_eq!((usize::from(part.part), usize::from(part.of)), (n, parts.len()));
            prop_assert_eq!(part.clusters.len(), usize::from(n == 0));
            got.extend(part.hosts.iter().map(|host| host.host.clone()));
        }
        let wanted: Vec<HostId> = world.fleet.view().hosts.keys().cloned().collect();
        prop_assert_eq!(got, wanted);
    }
}
