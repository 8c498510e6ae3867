//! What agents report becomes history, events, the host status, the retained state and alerts: tables and properties.

use picket_common::alert::{AlertKind, AlertState};
use picket_common::api::HistoryWhat;
use picket_common::command::{BmcError, ErrorClass};
use picket_common::ha::{By, Degraded, Evidence, Fenced, Fencing, Gate, HaName, HaState, HostStatus, Ineligible, Way};
use picket_common::id::{HostId, OperationId};
use picket_common::policy::{GateAnswer, Judgement, Verdict};
use picket_common::power::PowerState;
use picket_common::wire::ha::{Act, HaReport, JudgedReport, Proof};
use picket_common::wire::report::{Report, Reports};
use proptest::prelude::*;

use super::{ha_view, host_ha, standing};
use crate::fleet::request::{Gate as At, HostChange};
use crate::fleet::route::Telling;
use crate::fleet::testing::*;
use crate::fleet::view::Reported;
use crate::fleet::{Request, json};

fn fencing(attempt: u16, held: Option<Gate>) -> HaState {
    HaState::Fencing(Fencing { attempt, held, ..Fencing::new(Way::Order(By::Policy)) })
}

fn fenced() -> HaState {
    HaState::Fenced(Fenced { evidence: Evidence::Readings(3), restarting: false, returned: false, released: false })
}

fn returned() -> HaState {
    HaState::Fenced(Fenced { evidence: Evidence::Readings(3), restarting: false, returned: true, released: false })
}

const WELL: HaState = HaState::Available { failures: 0 };

fn wrong() -> BmcError {
    BmcError { driver: "ipmi".into(), class: ErrorClass::Auth, code: "rakp".into(), text: "the BMC refuses the login".into() }
}

fn report(world: &World, host: &str, version: u64, state: HaState) -> HaReport {
    let proof = matches!(state, HaState::Fenced(_)).then(|| Proof {
        readings: vec![(world.wire_now(), "ipmi 10.0.0.1".into()); 3],
        health: "no answer".into(),
        off_sent: true,
        attempt: 1,
    });
    let why = format!("reason {version}");
    let at = world.wire_now();
    HaReport {
        host: id(host),
        version,
        at,
        state,
        why,
        quarantined: false,
        acked: false,
        error: None,
        proof,
        operation: None::<OperationId>,
    }
}

fn judged(world: &World, host: &str, gate: Gate, inputs: &str) -> Report {
    let answer = GateAnswer { gate, verdict: Verdict::Refuse, inputs: inputs.into(), overridden_by: None };
    let judgement = Judgement(vec![answer]);
    Report::Judged(JudgedReport { host: id(host), at: world.wire_now(), act: Act::Off, attempt: 1, operation: None, judgement })
}

impl World {
    /// h1 … with host-HA, off, so that their being fenced is not contradicted.
    fn watched(hosts: usize) -> Self {
        let mut world = Self::running(hosts);
        for n in 1..=hosts {
            world.ask(Request::SetHa(At::Host(id(&format!("h{n}"))), true)).unwrap();
            world.report("r1", vec![world.power_report(&format!("h{n}"), PowerState::Off)]);
        }
        world.event_kinds();
        world
    }

    /// The host's agent says where it stands, under the next version.
    fn stands(&mut self, host: &str, state: HaState) {
        self.stands_so(host, state, |_| {});
    }

    fn stands_so(&mut self, host: &str, state: HaState, edit: impl FnOnce(&mut HaReport)) {
        let version = self.reported(host).report.map_or(1, |report| report.version + 1);
        let mut said = report(self, host, version, state);
        edit(&mut said);
        self.report("r1", vec![Report::Ha(Box::new(said))]);
    }

    fn reported(&self, host: &str) -> Reported {
        self.fleet.view().reported.get(&id::<HostId>(host)).map(|row| (**row).clone()).unwrap_or_default()
    }

    fn status(&self, host: &str) -> HostStatus {
        let document: serde_json::Value =
            serde_json::from_slice(&self.retained[&picket_common::wire::topic::Public::State(id("z1"), id("c1"), id(host))])
                .unwrap();
        assert_eq!(document["host_status"], serde_json::json!(self.reported(host).status), "the retained state says the same");
        self.reported(host).status
    }

    /// Alerts that fire, without those that every fleet has.
    fn firing(&self) -> Vec<String> {
        let alerts = self.fleet.view().alerts;
        let firing = alerts.values().filter(|alert| alert.state == AlertState::Firing);
        firing.filter(|alert| alert.kind != AlertKind::HostPowerChanged).map(|alert| alert.id.clone()).collect()
    }

    fn summary_of(&self, alert: &str) -> String {
        self.fleet.view().alerts[alert].summary.clone()
    }
}

#[test]
fn a_change_reaches_history_events_state_and_api_once() {
    let mut world = World::watched(1);
    world.stands("h1", WELL);
    assert_eq!(world.event_kinds(), ["io.picket.ha.changed.v1 h1", "io.picket.host.status.v1 h1"]);
    assert_eq!(world.status("h1"), HostStatus::Up);
    world.stands("h1", HaState::Available { failures: 1 });
    assert_eq!(world.event_kinds(), Vec::<String>::new(), "a failed check more is no news");
    world.stands("h1", HaState::Suspect);
    assert_eq!(world.event_kinds(), ["io.picket.ha.changed.v1 h1"], "the status is still up");
    world.stands("h1", fencing(1, None));
    world.pass(1);
    world.stands("h1", fenced());
    let events = world.events.clone();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "io.picket.ha.changed.v1",
            "io.picket.host.status.v1",
            "io.picket.ha.changed.v1",
            "io.picket.alert.firing.v1",
            "io.picket.host.status.v1"
        ]
    );
    let down = serde_json::to_value(events.last().unwrap()).unwrap();
    assert_eq!((&down["data"]["old"], &down["data"]["new"]), (&"disconnected".into(), &"down".into()));
    assert_eq!(down["data"]["proof"]["readings"][2]["device"], "ipmi 10.0.0.1");
    assert_eq!((&down["data"]["proof"]["by"], &down["data"]["proof"]["off_sent"]), (&"policy".into(), &true.into()));
    let view = world.fleet.view();
    let host = &view.hosts[&id::<HostId>("h1")];
    let shown = json::host_json(&view, host);
    assert_eq!((shown.host_status, shown.ha.map(|ha| ha.state)), (HostStatus::Down, Some(HaName::Fenced)));
    let whole = ha_view(&view, host);
    assert_eq!((whole.proof.unwrap().readings.len(), whole.ha.unwrap().since), (3, world.now.wall));
    assert!(whole.would_end.iter().any(|end| end.contains("fence release h1")), "{:?}", whole.would_end);
    let counts = json::summary(&view).hosts;
    assert_eq!((counts.ha[&HaName::Fenced], counts.host_status[&HostStatus::Down]), (1, 1));
    let lines = world.history_of("h1");
    assert!(matches!(&lines[lines.len() - 2..], [HistoryWhat::Ha { new: HaName::Fenced, .. }, HistoryWhat::HostStatus { .. }]));
}

#[test]
fn what_is_not_newer_is_no_news() {
    let mut world = World::watched(1);
    world.stands("h1", WELL);
    world.stands("h1", HaState::Suspect);
    world.event_kinds();
    let lines = world.history.len();
    for version in [1, 2] {
        let old = report(&world, "h1", version, fenced());
        world.report("r1", vec![Report::Ha(Box::new(old))]);
    }
    assert_eq!((world.event_kinds().len(), world.history.len()), (0, lines));
    assert_eq!((world.status("h1"), world.fleet.counters().ignored), (HostStatus::Up, 2));
    world.restart();
    world.hello("r1", 2, 1);
    let old = report(&world, "h1", 2, fenced());
    world.report("r1", vec![Report::Ha(Box::new(old))]);
    assert_eq!(world.reported("h1").report.unwrap().state, HaState::Suspect, "also after a restart");
}

#[test]
fn another_journal_begins_anew_and_until_it_speaks_nothing_is_concluded() {
    let mut world = World::watched(1);
    world.stands("h1", fencing(1, None));
    world.stands("h1", fenced());
    assert_eq!(world.status("h1"), HostStatus::Down);
    world.hello("r1", 2, 2);
    assert_eq!(world.status("h1"), HostStatus::Unknown, "the new journal has not said anything");
    world.report("r1", vec![world.power_report("h1", PowerState::Off)]);
    assert_eq!(world.status("h1"), HostStatus::Unknown);
    let first = report(&world, "h1", 1, HaState::Ineligible(Ineligible::NeverHealthy));
    world.report("r1", vec![Report::Ha(Box::new(first))]);
    assert_eq!(world.reported("h1").report.unwrap().version, 1);
    world.stands("h1", WELL);
    assert_eq!(world.status("h1"), HostStatus::Up);
    world.hello_with("r1", 3, 1, 5, None);
    assert_eq!(world.status("h1"), HostStatus::Unknown, "the word of a journal that is not the agent's is not trusted");
}

#[test]
fn a_rolled_back_journal_is_another_one() {
    let mut world = World::watched(1);
    world.stands("h1", WELL);
    world.stands("h1", fencing(1, None));
    world.stands("h1", fenced());
    world.gone("r1", 1);
    world.hello_with("r1", 2, 1, 3, None);
    assert_eq!(world.status("h1"), HostStatus::Unknown);
    let again = report(&world, "h1", 2, fencing(1, None));
    world.report("r1", vec![world.power_report("h1", PowerState::Off), Report::Ha(Box::new(again))]);
    assert_eq!(world.status("h1"), HostStatus::Disconnected, "an older version counts: it is of another life");
}

#[test]
fn after_a_gap_the_same_word_said_again_is_trusted() {
    let mut world = World::watched(1);
    world.stands("h1", fencing(1, None));
    world.stands("h1", fenced());
    let fence = world.reported("h1").report.unwrap();
    world.event_kinds();
    let (lines, alerts) = (world.history.len(), world.firing());
    let next = world.fleet.view().agents.values().next().unwrap().acked + 4;
    let power = world.power_report("h1", PowerState::Off);
    world.batch("r1", Reports { boot: journal(1), oldest: next, first: next, reports: vec![power] });
    assert_eq!(world.status("h1"), HostStatus::Unknown, "it may have come back, and the report of that be lost");
    world.report("r1", vec![Report::Ha(Box::new(fence))]);
    assert_eq!(world.status("h1"), HostStatus::Down);
    let kinds = world.event_kinds();
    assert_eq!(kinds.iter().filter(|kind| kind.contains("ha.changed")).count(), 0, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| kind.contains("host.status")).count(), 2, "{kinds:?}");
    assert_eq!(world.firing(), alerts, "the fence is not told again");
    assert_eq!(world.history.len(), lines + 4, "the gap, the reading, and the status twice");
}

#[test]
fn down_is_withdrawn_when_nobody_vouches_for_it_or_the_host_reads_on() {
    let set_up = || {
        let mut world = World::watched(1);
        world.stands("h1", fencing(1, None));
        world.stands("h1", fenced());
        assert_eq!(world.status("h1"), HostStatus::Down);
        world
    };
    type Case = (&'static str, fn(&mut World), HostStatus);
    let cases: [Case; 8] = [
        ("On is read", |world| world.report("r1", vec![world.power_report("h1", PowerState::On)]), HostStatus::Disconnected),
        ("it returned", |world| world.stands("h1", returned()), HostStatus::Disconnected),
        ("the agent is lost", |world| world.pass(15), HostStatus::Unknown),
        ("the agent is gone", |world| world.gone("r1", 1), HostStatus::Unknown),
        ("its BMC was not read", |world| world.heartbeat("r1", 1, &["h1"], |_| {}), HostStatus::Unknown),
        ("power is disabled", |world| world.enable("h1", false), HostStatus::Unknown),
        ("its agent is another one", |world| world.hello("r1", 2, 7), HostStatus::Unknown),
        ("host-HA is disabled at the rack", |world| world.stands("h1", HaState::Disabled), HostStatus::Unknown),
    ];
    for (name, happens, wanted) in cases {
        let mut world = set_up();
        world.event_kinds();
        happens(&mut world);
        assert_eq!(world.status("h1"), wanted, "{name}");
        let told = world.event_kinds().into_iter().filter(|kind| kind.contains("host.status")).count();
        assert_eq!(told, 1, "{name}");
    }
    let mut world = set_up();
    world.gone("r1", 1);
    world.hello("r1", 2, 1);
    assert_eq!(world.status("h1"), HostStatus::Down, "it is back, and has nothing new to say");
    world.restart();
    world.apply(crate::fleet::Event::Tick);
    assert_eq!(world.status("h1"), HostStatus::Unknown, "until the agent is heard");
    world.hello("r1", 3, 1);
    assert_eq!(world.status("h1"), HostStatus::Down);
}

#[test]
fn a_gate_that_is_closed_here_holds_at_once() {
    for at in [At::Zone(id("z1")), At::Cluster(id("c1")), At::Host(id("h1"))] {
        let mut world = World::watched(1);
        world.stands("h1", fencing(1, None));
        world.stands("h1", fenced());
        assert_eq!((world.status("h1"), world.firing()), (HostStatus::Down, vec!["fence-succeeded.h1".to_owned()]));
        world.event_kinds();
        world.ask(Request::SetHa(at.clone(), false)).unwrap();
        assert_eq!((world.status("h1"), world.firing()), (HostStatus::Unknown, Vec::new()), "{at}");
        assert_eq!(world.event_kinds(), ["io.picket.alert.resolved.v1 h1", "io.picket.host.status.v1 h1"], "{at}");
        let view = world.fleet.view();
        let host = &view.hosts[&id::<HostId>("h1")];
        let shown = ha_view(&view, host);
        assert_eq!(shown.ha.unwrap().state, HaName::Disabled, "{at}");
        assert!(shown.closed.is_some() && shown.explain[0].contains(&shown.closed.unwrap()), "{at}: {:?}", shown.explain);
        assert_eq!(standing(&view, host), None);
        // Opened again before the agent has heard of it: the fence is not told a second time.
        world.ask(Request::SetHa(at.clone(), true)).unwrap();
        assert_eq!((world.status("h1"), world.firing()), (HostStatus::Down, Vec::new()), "{at}");
    }
}

#[test]
fn a_fence_is_told_once_and_resolved_once() {
    let mut world = World::watched(2);
    world.tell(Telling { receivers: vec![receiver("ops")], ..Telling::default() });
    world.hello("r1", 2, 1);
    world.stands("h1", fencing(1, None));
    world.stands("h1", fenced());
    assert_eq!(world.firing(), ["fence-succeeded.h1"]);
    assert_eq!(
        world.summary_of("fence-succeeded.h1"),
        "h1 is fenced by its policy: 3 Off readings of ipmi 10.0.0.1; an off was sent"
    );
    // Sent again, said again with something beside it, and over a restart.
    let again = world.reported("h1").report.unwrap();
    world.report("r1", vec![Report::Ha(Box::new(again))]);
    world.stands_so("h1", fenced(), |report| report.acked = true);
    world.restart();
    world.hello("r1", 3, 1);
    for _ in 0..12 {
        world.pass(5);
        world.settle("r1", 3);
    }
    world.attempted(Ok(()));
    let told = |world: &World| {
        world
            .deliveries
            .iter()
            .flat_map(|delivery| delivery.news.iter())
            .filter(|news| news.alert.kind == AlertKind::FenceSucceeded)
            .count()
    };
    assert_eq!(told(&world), 1);
    world.ask(Request::AckAlert { id: "fence-succeeded.h1".into(), comment: None }).unwrap();
    assert_eq!(world.firing(), Vec::<String>::new(), "who takes note of it ends it");
    world.stands_so("h1", fenced(), |report| report.acked = true);
    assert_eq!(world.firing(), Vec::<String>::new(), "it is not told again");
    world.stands("h1", WELL);
    world.stands("h1", fencing(1, None));
    world.stands("h1", fenced());
    assert_eq!(world.firing(), ["fence-succeeded.h1"], "another fence is");
    world.stands("h1", WELL);
    assert_eq!(world.firing(), Vec::<String>::new(), "released");
}

#[test]
fn t19_attempts_that_fail_are_one_alert_with_the_drivers_own_error() {
    let mut world = World::watched(1);
    for attempt in 1..=12 {
        world.stands_so("h1", fencing(attempt, None), |report| report.error = Some(wrong()));
        let wanted: &[&str] = match attempt {
            1 => &[],
            2..=10 => &["fence-failed.h1"],
            _ => &["fence-failed.h1", "fence-unconfirmed.h1"],
        };
        assert_eq!(world.firing(), wanted, "attempt {attempt}");
    }
    let events: Vec<String> = world.event_kinds().into_iter().filter(|kind| kind.contains("alert")).collect();
    assert_eq!(events, ["io.picket.alert.firing.v1 h1", "io.picket.alert.firing.v1 h1"], "one each");
    let view = world.fleet.view();
    let failed = &view.alerts["fence-failed.h1"];
    assert_eq!((failed.count, failed.bmc_error.as_ref()), (11, Some(&wrong())));
    for alert in ["fence-failed.h1", "fence-unconfirmed.h1"] {
        let summary = world.summary_of(alert);
        assert!(summary.contains("the BMC refuses the login") && !summary.contains("not configured"), "{summary}");
    }
    assert_eq!(world.status("h1"), HostStatus::Disconnected, "never down by itself");
    world.stands("h1", fenced());
    assert_eq!(world.firing(), ["fence-succeeded.h1"]);
}

#[test]
fn a_held_fence_is_one_alert_an_episode() {
    let mut world = World::watched(1);
    world.stands("h1", fencing(1, Some(Gate::InFlight)));
    assert_eq!(world.firing(), Vec::<String>::new(), "waiting for its turn is no refusal");
    world.report("r1", vec![judged(&world, "h1", Gate::Isolation, "nothing answers")]);
    world.stands("h1", fencing(1, Some(Gate::Isolation)));
    assert_eq!(world.summary_of("fence-refused.h1"), "the fence of h1 is held by gate isolation: nothing answers");
    let lines = world.history.len();
    world.pass(10);
    world.settle("r1", 1);
    world.report("r1", vec![judged(&world, "h1", Gate::Isolation, "nothing answers for 10 s")]);
    assert_eq!(world.history.len(), lines, "the same answers are no line more");
    world.stands("h1", fencing(1, Some(Gate::InFlight)));
    world.stands("h1", fencing(1, Some(Gate::SomewhereToGo)));
    let events: Vec<String> = world.event_kinds().into_iter().filter(|kind| kind.contains("alert")).collect();
    assert_eq!(events, ["io.picket.alert.firing.v1 h1"]);
    world.stands("h1", fencing(1, None));
    assert_eq!(world.firing(), Vec::<String>::new());
    let gates =
        world.history_of("h1").into_iter().filter(|what| matches!(what, HistoryWhat::Gates { held_by: Some(Gate::Isolation), .. }));
    assert_eq!(gates.count(), 1);
}

#[test]
fn cap_and_storm_are_one_alert_of_the_cluster_and_explain_the_hosts() {
    for (gate, kind) in
        [(Gate::Cap, "cap-reached"), (Gate::Budget, "cap-reached"), (Gate::Storm, "storm-held"), (Gate::Cliff, "storm-held")]
    {
        let mut world = World::watched(3);
        for host in ["h1", "h2", "h3"] {
            world.report("r1", vec![judged(&world, host, gate, "too many")]);
            world.stands(host, fencing(1, Some(gate)));
        }
        let cluster = format!("{kind}.c1");
        assert!(world.firing().contains(&cluster), "{:?}", world.firing());
        assert_eq!(world.summary_of(&cluster), "cluster c1: h1 and 2 more must wait: too many");
        let view = world.fleet.view();
        let alert = &view.alerts[&*cluster];
        assert_eq!((alert.host.as_ref(), alert.cluster.as_ref(), alert.count), (None, Some(&id("c1")), 3));
        for host in ["h1", "h2", "h3"] {
            assert_eq!(view.alerts[&*format!("fence-refused.{host}")].inhibited_by, std::slice::from_ref(&cluster));
        }
        let told = world.events.iter().filter(|event| event.subject == "c1").count();
        assert_eq!(told, 1, "one an episode");
        world.stands("h1", fencing(1, None));
        world.stands("h2", WELL);
        assert!(world.firing().contains(&cluster), "one still waits");
        world.ask(Request::DeleteHost(id("h3"))).unwrap();
        assert_eq!(world.firing(), Vec::<String>::new());
        assert_eq!(world.events.iter().filter(|event| event.subject == "c1").count(), 2);
    }
}

#[test]
fn what_contradicts_a_fence() {
    for (state, alert, said) in [
        (returned(), "fence-broken.h1", "came back"),
        (HaState::Degraded(Degraded::Contradiction), "bmc-contradiction.h1", "contradicts"),
        (HaState::Degraded(Degraded::StillAlive), "fence-failed.h1", "answers although an off was possibly sent"),
    ] {
        let mut world = World::watched(1);
        world.stands("h1", fencing(1, None));
        world.stands("h1", fenced());
        world.stands("h1", state.clone());
        assert_eq!(world.firing(), [alert], "{state:?}");
        assert!(world.summary_of(alert).contains(said), "{}", world.summary_of(alert));
        assert_eq!(world.status("h1"), HostStatus::Disconnected);
        world.stands("h1", WELL);
        assert_eq!(world.firing(), Vec::<String>::new(), "{state:?}");
    }
}

#[test]
fn a_host_that_may_come_back_does_not_break_its_fence() {
    let so = |restarting, returned, released| {
        HaState::Fenced(Fenced { evidence: Evidence::Readings(3), restarting, returned, released })
    };
    for (name, before, after) in [
        ("released", fenced(), so(false, true, true)),
        ("restarted by its policy", so(true, false, false), so(true, true, false)),
        ("nobody watched", HaState::Disabled, returned()),
    ] {
        let mut world = World::watched(1);
        world.stands("h1", before);
        world.stands("h1", after);
        assert_eq!(world.firing(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn what_host_ha_switches_is_not_somebody_elses_doing() {
    let sent = HaState::Fencing(Fencing { off_possibly_sent: true, ..Fencing::new(Way::Order(By::Policy)) });
    let restarting =
        HaState::Fenced(Fenced { evidence: Evidence::Readings(3), restarting: true, returned: false, released: false });
    let (on, off) = (PowerState::On, PowerState::Off);
    for (state, from, to, is_told) in [
        (sent, on, off, false),
        (fencing(1, None), on, off, true),
        (HaState::Fencing(Fencing::new(Way::Proof)), on, off, true),
        (HaState::Recovering { attempt: 1 }, on, off, false),
        (HaState::Recovering { attempt: 1 }, off, on, false),
        (restarting, off, on, false),
        (fenced(), off, on, true),
    ] {
        let mut world = World::watched(1);
        world.report("r1", vec![world.power_report("h1", from)]);
        world.ask(Request::AckAlert { id: "host-power-changed.h1".into(), comment: None }).ok();
        world.stands("h1", state.clone());
        world.report("r1", vec![world.power_report("h1", to)]);
        let alerts = world.fleet.view().alerts;
        let fires = alerts.get("host-power-changed.h1").is_some_and(|alert| alert.state == AlertState::Firing);
        assert_eq!(fires, is_told, "{state:?}: {from} to {to}");
    }
}

#[test]
fn maintenance_silences_and_a_lost_agent_inhibits() {
    let mut world = World::watched(1);
    world.ask(Request::PatchHost(id("h1"), HostChange { maintenance: Some(true), ..HostChange::default() })).unwrap();
    world.stands("h1", fencing(1, Some(Gate::Maintenance)));
    assert_eq!(world.fleet.view().alerts["fence-refused.h1"].silenced_by, ["maintenance"]);
    world.pass(15);
    assert_eq!(world.fleet.view().alerts["fence-refused.h1"].inhibited_by, ["agent-lost.r1"]);
}

#[test]
fn who_counts_in_storms_and_who_is_somewhere_to_go() {
    let off_by_itself = HaState::Fencing(Fencing::new(Way::Proof));
    for (state, unwell, well) in [
        (HaState::Disabled, false, false),
        (HaState::Ineligible(Ineligible::NoHealthCheck), false, false),
        (WELL, false, true),
        (HaState::Recovered, false, true),
        (HaState::Suspect, true, false),
        (HaState::Checking { dead: 1 }, true, false),
        (HaState::Recovering { attempt: 1 }, true, false),
        (HaState::Degraded(Degraded::Active), false, false),
        (fencing(1, None), true, false),
        (off_by_itself, false, false),
        (fenced(), true, false),
    ] {
        let mut world = World::watched(1);
        let of = |world: &World| {
            let view = world.fleet.view();
            standing(&view, &view.hosts[&id::<HostId>("h1")]).map(|standing| (standing.is_unwell, standing.is_well))
        };
        assert_eq!(of(&world), None, "nobody watches over it");
        world.stands("h1", state.clone());
        assert_eq!(of(&world), Some((unwell, well)), "{state:?}");
        world.stands_so("h1", state.clone(), |report| report.acked = true);
        assert_eq!(of(&world), Some((false, well)), "{state:?}: known to be broken");
        world.stands("h1", state.clone());
        world.gone("r1", 1);
        assert_eq!(of(&world), Some((unwell, false)), "{state:?}: ill as far as anybody knows, well only if somebody says so");
    }
    let mut world = World::watched(1);
    world.stands("h1", HaState::Fencing(Fencing::new(Way::Proof)));
    world.stands_so("h1", fenced(), |report| report.proof.as_mut().unwrap().off_sent = false);
    let view = world.fleet.view();
    let host = &view.hosts[&id::<HostId>("h1")];
    assert!(!standing(&view, host).unwrap().is_unwell, "found off: nothing was sent to it");
    assert_eq!(ha_view(&view, host).proof.unwrap().by, "proof");
    assert_eq!(host_ha(&view, host).unwrap().state, HaName::Fenced);
}

/// What can happen to a host and its agent.
#[derive(Debug, Clone)]
enum Step {
    Stand(u8),
    Power(bool),
    Resend,
    Lost,
    Back,
    Restart,
    NewJournal,
    Gap,
    Oobm(bool),
    Wait,
}

fn state(n: u8) -> HaState {
    match n % 10 {
        0 => HaState::Disabled,
        1 => HaState::Ineligible(Ineligible::CommandedOff),
        2 => WELL,
        3 => HaState::Suspect,
        4 => HaState::Checking { dead: 3 },
        5 => HaState::Degraded(Degraded::Contradiction),
        6 => fencing(u16::from(n) / 10 + 1, (n > 100).then_some(Gate::Cap)),
        7 => returned(),
        _ => fenced(),
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => any::<u8>().prop_map(Step::Stand),
        4 => any::<bool>().prop_map(Step::Power),
        3 => Just(Step::Resend),
        2 => Just(Step::Lost),
        3 => Just(Step::Back),
        1 => Just(Step::Restart),
        1 => Just(Step::NewJournal),
        1 => Just(Step::Gap),
        1 => any::<bool>().prop_map(Step::Oobm),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    /// That a status is what follows from the newest word, and Down only from a fresh one that says Fenced, is asserted after every
    /// event of a world. Here: whatever happens, orchestrators are told each change once and in order, and fences once each.
    #[test]
    fn every_change_is_told_once_and_in_order(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::watched(1);
        let (mut sessions, mut journals) = (1_u128, 1_u128);
        let mut last: Option<(Reports, bool)> = None;
        let mut fences = 0;
        for step in steps {
            match step {
                Step::Stand(n) => {
                    let row = world.fleet.view().agents[&id::<picket_common::id::AgentId>("r1")].clone();
                    let known = world.reported("h1");
                    let is_other = known.journal != format!("r1:{}", journal(journals));
                    let version = known.report.as_ref().map_or(1, |report| report.version + 1);
                    let said = report(&world, "h1", if is_other { 1 } else { version }, state(n));
                    let was = known.report.as_ref().is_some_and(|report| matches!(&report.state, HaState::Fenced(fenced) if !fenced.returned));
                    let is = matches!(&said.state, HaState::Fenced(fenced) if !fenced.returned);
                    fences += usize::from(is && !was);
                    let reports = vec![Report::Ha(Box::new(said))];
                    let reports = Reports { boot: journal(journals), oldest: row.acked + 1, first: row.acked + 1, reports };
                    world.batch("r1", reports.clone());
                    last = Some((reports, true));
                }
                Step::Power(on) => world.report("r1", vec![world.power_report("h1", if on { PowerState::On } else { PowerState::Off })]),
                Step::Resend => {
                    if let Some((reports, _)) = last.clone().filter(|(reports, _)| reports.boot == journal(journals)) {
                        world.batch("r1", reports);
                    }
                }
                Step::Lost => world.pass(20),
                Step::Back => {
                    sessions += 1;
                    world.hello("r1", sessions, journals);
                }
                Step::Restart => world.restart(),
                Step::NewJournal => {
                    sessions += 1;
                    journals += 1;
                    world.hello_with("r1", sessions, journals, 1, None);
                }
                Step::Gap => {
                    let next = world.fleet.view().agents[&id::<picket_common::id::AgentId>("r1")].acked + 3;
                    let power = world.power_report("h1", PowerState::Off);
                    world.batch("r1", Reports { boot: journal(journals), oldest: next, first: next, reports: vec![power] });
                }
                Step::Oobm(open) => world.enable("h1", open),
                Step::Wait => world.pass(2),
            }
        }
        let mut told = HostStatus::Unknown;
        for event in &world.events {
            if let picket_common::api::EventWhat::History(HistoryWhat::HostStatus { old, new, proof, .. }) = &event.data.what {
                prop_assert_eq!(*old, told);
                prop_assert_ne!(old, new);
                prop_assert_eq!(*new == HostStatus::Down, proof.is_some());
                told = *new;
            }
        }
        prop_assert_eq!(told, world.reported("h1").status);
        let fenced = world.events.iter().filter(|event| {
            event.kind == "io.picket.alert.firing.v1" && matches!(&event.data.what, picket_common::api::EventWhat::Alert(alert) if alert.kind == AlertKind::FenceSucceeded)
        });
        prop_assert_eq!(fenced.count(), fences);
    }
}
