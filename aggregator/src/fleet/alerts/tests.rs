//! Alerts as they begin, end, are held back, and are not told.

use picket_common::alert::Severity;
use picket_common::api::{Field, HistoryWhat};
use picket_common::command::{Action, ErrorClass, Outcome};
use picket_common::facts::Facts;
use picket_common::power::{Cause as PowerCause, PowerState};
use picket_common::wire::Time;
use picket_common::wire::report::{FactsReport, PowerReport, Progress, Report, Snapshot};

use super::super::request::{BmcChange, HostChange, Request};
use super::super::route::Telling;
use super::super::testing::*;
use super::*;

fn state(world: &World, id: &str) -> Option<AlertState> {
    world.fleet.view().alerts.get(id).map(|alert| alert.state)
}

fn fires(world: &World, id: &str) -> bool {
    state(world, id) == Some(AlertState::Firing)
}

fn alert(world: &World, id: &str) -> Alert {
    (*world.fleet.view().alerts[id]).clone()
}

#[test]
fn one_alert_per_cause_with_the_true_cause() {
    let error = BmcError { driver: "ipmi".into(), class: ErrorClass::Auth, code: "0x02".into(), text: "unauthorized name".into() };
    let mut world = World::running(1);
    world.event_kinds();
    let topic = |kind: &str| Public::Alert(format!("{kind}.h1"));
    for (management, firing, kinds) in [
        (Management::Degraded, None, &["management.changed"][..]),
        (Management::AuthBlocked, Some("bmc-auth-failed"), &["management.changed", "alert.firing"]),
        (Management::AuthBlocked, Some("bmc-auth-failed"), &["management.changed"]),
        (Management::Lost, Some("bmc-lost"), &["management.changed", "alert.firing", "alert.resolved"]),
        (Management::Reachable, None, &["management.changed", "alert.resolved"]),
        (Management::Lost, Some("bmc-lost"), &["management.changed", "alert.firing"]),
    ] {
        world.pass(1);
        world.settle("r1", 1);
        world.report("r1", vec![world.management_report("h1", management, Some(error.clone()))]);
        for kind in ["bmc-lost", "bmc-auth-failed"] {
            assert_eq!(world.retained.contains_key(&topic(kind)), firing == Some(kind), "{management} {kind}");
        }
        let wanted: Vec<_> = kinds.iter().map(|kind| format!("io.picket.{kind}.v1 h1")).collect();
        assert_eq!(world.event_kinds(), wanted, "{management}");
    }
    let shown = alert(&world, "bmc-lost.h1");
    assert_eq!(shown.summary, "the BMC of h1 does not answer: ipmi: unauthorized name (0x02)");
    assert_eq!((shown.bmc_error, shown.severity), (Some(error), Severity::Warning));
    let labels: Vec<_> = shown.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["cluster=c1", "host=h1", "kind=bmc-lost", "rack=r1", "severity=warning", "zone=z1"]);
    world.enable("h1", false);
    assert_eq!(state(&world, "bmc-lost.h1"), Some(AlertState::Resolved));
    assert!(!world.retained.contains_key(&topic("bmc-lost")));
    world.pass(25 * 3600);
    assert!(world.fleet.view().alerts.values().all(|alert| alert.kind == AlertKind::AgentLost), "gone after a day");
}

#[test]
fn a_thousand_reports_of_one_cause_are_one_alert_with_a_count() {
    let mut world = World::running(1);
    world.event_kinds();
    for _ in 0..1_000 {
        world.report("r1", vec![world.management_report("h1", Management::AuthBlocked, None)]);
    }
    assert_eq!(alert(&world, "bmc-auth-failed.h1").count, 1_000);
    assert_eq!(world.event_kinds().iter().filter(|kind| kind.contains("alert")).count(), 1);
}

#[test]
fn t12_the_first_host_and_the_thousandth_alike() {
    let mut world = World::unchecked(1_000);
    world.tell(Telling { receivers: vec![receiver("mail")], hold: BTreeMap::new() });
    world.hello("r1", 2, 1);
    world.settle("r1", 2);
    for first in (1..=1_000).step_by(250) {
        let reports = (first..first + 250).map(|n| world.management_report(&format!("h{n}"), Management::AuthBlocked, None));
        world.report("r1", reports.collect());
    }
    assert_eq!(world.fleet.view().alerts.values().filter(|alert| alert.state == AlertState::Firing).count(), 1_000);
    for _ in 0..3 {
        world.pass(10);
        world.settle("r1", 2);
    }
    while world.deliveries.len() < 2 {
        world.attempted(Ok(()));
        world.pass(1);
    }
    let news = world.deliveries.iter().flat_map(|delivery| delivery.news.iter());
    let mut told: Vec<String> = news.map(|news| news.alert.id.clone()).collect();
    told.sort();
    let mut wanted: Vec<String> = (1..=1_000).map(|n| format!("bmc-auth-failed.h{n}")).collect();
    wanted.sort();
    assert_eq!(told, wanted, "each told once");
}

#[test]
fn a_cause_has_to_hold_before_anybody_is_told() {
    let mut world = World::running(1);
    let hold = BTreeMap::from([(AlertKind::BmcLost, Duration::from_secs(60))]);
    world.tell(Telling { receivers: Vec::new(), hold });
    world.hello("r1", 2, 1);
    world.event_kinds();
    let lost = |world: &mut World, management| world.report("r1", vec![world.management_report("h1", management, None)]);
    lost(&mut world, Management::Lost);
    assert_eq!(state(&world, "bmc-lost.h1"), Some(AlertState::Pending));
    assert!(!world.retained.keys().any(|topic| matches!(topic, Public::Alert(_))), "nobody is told");
    lost(&mut world, Management::Reachable);
    assert_eq!(state(&world, "bmc-lost.h1"), None, "as if it had never been");
    lost(&mut world, Management::Lost);
    let since = world.now.wall;
    for _ in 0..5 {
        world.pass(10);
        world.settle("r1", 2);
    }
    world.restart();
    world.hello("r1", 3, 1);
    assert_eq!(state(&world, "bmc-lost.h1"), Some(AlertState::Pending));
    world.pass(9);
    assert_eq!(state(&world, "bmc-lost.h1"), Some(AlertState::Pending), "59 s");
    world.pass(1);
    assert!(fires(&world, "bmc-lost.h1"), "a restart does not begin the wait anew");
    assert_eq!(alert(&world, "bmc-lost.h1").starts_at, since);
    let kinds = world.event_kinds();
    assert_eq!(kinds.iter().filter(|kind| kind.contains("alert")).collect::<Vec<_>>(), ["io.picket.alert.firing.v1 h1"]);
}

// ---- power that changed without our doing ----

const POWER: &str = "host-power-changed.h1";

fn read(world: &mut World, power: PowerState) {
    world.report("r1", vec![world.power_report("h1", power)]);
}

fn commanded(world: &mut World, power: PowerState) {
    let Report::Power(report) = world.power_report("h1", power) else { panic!() };
    let cause = PowerCause::Command(operation(77));
    world.report("r1", vec![Report::Power(PowerReport { cause, ..report })]);
}

#[test]
fn power_that_changes_without_our_doing_fires_and_ends() {
    use PowerState::{Off, On, Unknown};
    let mut world = World::running(1);
    read(&mut world, On);
    assert_eq!(state(&world, POWER), None, "the first reading after enabling");
    commanded(&mut world, Off);
    commanded(&mut world, On);
    assert_eq!(state(&world, POWER), None, "our own doing");
    read(&mut world, Off);
    assert!(fires(&world, POWER));
    assert_eq!(alert(&world, POWER).summary, "h1 was switched on → off, and not by Picket");
    read(&mut world, On);
    assert_eq!(state(&world, POWER), Some(AlertState::Resolved), "it is what it was");
    read(&mut world, Unknown);
    read(&mut world, On);
    assert_eq!(state(&world, POWER), Some(AlertState::Resolved), "nothing changed behind the silence");
    read(&mut world, Unknown);
    read(&mut world, Off);
    assert!(fires(&world, POWER), "and now something did");
    commanded(&mut world, On);
    assert_eq!(state(&world, POWER), Some(AlertState::Resolved), "an operation of ours changed it");
    read(&mut world, Off);
    world.enable("h1", false);
    assert_eq!(state(&world, POWER), Some(AlertState::Resolved), "disabled");
    world.enable("h1", true);
    read(&mut world, On);
    assert_eq!(state(&world, POWER), Some(AlertState::Resolved), "the first reading after enabling");
}

#[test]
fn a_power_alert_is_acknowledged_away_and_ends_after_a_day() {
    let mut world = World::running(1);
    read(&mut world, PowerState::On);
    read(&mut world, PowerState::Off);
    assert!(matches!(world.ask(Request::AckAlert { id: "x".into(), comment: None }), Err(Rejection::NotFound { .. })));
    let comment = Some("it was me".to_owned());
    world.ask(Request::AckAlert { id: POWER.into(), comment: comment.clone() }).unwrap();
    let shown = alert(&world, POWER);
    assert_eq!((shown.state, shown.acked_by.as_deref(), shown.ack_comment), (AlertState::Resolved, Some("admin"), comment));
    assert!(matches!(world.ask(Request::AckAlert { id: POWER.into(), comment: None }), Err(Rejection::TooLate(_))));
    read(&mut world, PowerState::On);
    assert!(fires(&world, POWER), "another time");
    assert_eq!(alert(&world, POWER).acked_by, None);
    world.pass(12 * 3600);
    world.restart();
    world.pass(12 * 3600 - 1);
    assert!(fires(&world, POWER));
    world.pass(2);
    assert_eq!(state(&world, POWER), Some(AlertState::Resolved), "a day");
}

#[test]
fn nobody_knows_what_happened_behind_a_gap() {
    use PowerState::{Off, On};
    let mut world = World::running(1);
    read(&mut world, On);
    let at = world.wire_now();
    let Report::Power(report) = world.power_report("h1", Off) else { panic!() };
    let late = picket_common::wire::report::Reports { boot: journal(1), oldest: 5, first: 5, reports: vec![Report::Power(report)] };
    world.batch("r1", late);
    assert!(world.history_of("h1").iter().any(|line| matches!(line, HistoryWhat::Gap { .. })));
    assert_eq!(state(&world, POWER), None, "the order may have been among what was lost");
    read(&mut world, On);
    assert!(fires(&world, POWER), "but now it is known again");
    let enablement = world.fleet.view().hosts.values().next().unwrap().enablement;
    let snapshot = Snapshot {
        host: id("h1"),
        enablement,
        power: Off,
        power_since: Time(at.0),
        management: Some(Management::Reachable),
        management_since: at,
        error: None,
    };
    world.ask(Request::AckAlert { id: POWER.into(), comment: None }).unwrap();
    world.report("r1", vec![Report::Snapshot(snapshot)]);
    assert_eq!(state(&world, POWER), Some(AlertState::Resolved), "a snapshot is no change that was seen");
    read(&mut world, On);
    assert!(fires(&world, POWER));
}

#[test]
fn a_late_effect_of_our_own_order_is_no_news() {
    use PowerState::{Off, On};
    for (outcome, quiet) in
        [(Outcome::Unknown("still on at the deadline".into()), true), (Outcome::Changed, false), (Outcome::Cancelled, false)]
    {
        let mut world = World::running(1);
        read(&mut world, On);
        world.order(1, "h1", Action::Soft).unwrap();
        let progress = Progress::Done(outcome.clone());
        world.report("r1", vec![world.progress(1, "h1", progress)]);
        world.pass(60);
        read(&mut world, Off);
        assert_eq!(fires(&world, POWER), !quiet, "{outcome:?}");
        read(&mut world, On);
        assert_eq!(fires(&world, POWER), quiet, "{outcome:?}: a shutdown does not switch on");
    }
}

// ---- what the facts say ----

fn learned(world: &World, identity: &str, warnings: &[&str]) -> Report {
    let revision = world.fleet.view().hosts.values().next().unwrap().bmc.as_ref().unwrap().revision;
    let warnings = warnings.iter().map(|warning| (*warning).to_owned()).collect();
    let facts = Facts { identity: Some(identity.into()), warnings, ..Facts::default() };
    Report::Facts(FactsReport { host: id("h1"), revision, observed_at: world.wire_now(), facts })
}

#[test]
fn another_machine_and_an_unproven_one_are_told() {
    let mut world = World::running(1);
    world.report("r1", vec![learned(&world, "guid-1", &["cipher-suite-3"])]);
    assert!(world.fleet.view().alerts.is_empty());
    world.report("r1", vec![learned(&world, "guid-2", &["insecure-tls"])]);
    assert!(fires(&world, "bmc-identity-changed.h1") && fires(&world, "bmc-insecure.h1"));
    let shown = alert(&world, "bmc-identity-changed.h1");
    assert_eq!(shown.summary, "the BMC of h1 says that it is machine guid-2, and guid-1 was expected");
    assert_eq!(shown.severity, Severity::Critical);
    world.report("r1", vec![learned(&world, "guid-2", &[])]);
    assert_eq!(state(&world, "bmc-insecure.h1"), Some(AlertState::Resolved));
    assert!(fires(&world, "bmc-identity-changed.h1"));
    let repin = BmcChange { repin: true, ..BmcChange::default() };
    world.ask(Request::PatchHost(id("h1"), HostChange { bmc: Field::Set(repin), ..HostChange::default() })).unwrap();
    assert_eq!(state(&world, "bmc-identity-changed.h1"), Some(AlertState::Resolved));
    world.report("r1", vec![learned(&world, "guid-3", &["insecure-tls"])]);
    world.enable("h1", false);
    assert!(!fires(&world, "bmc-identity-changed.h1") && !fires(&world, "bmc-insecure.h1"), "nobody may touch it");
}

// ---- agents, inhibition, maintenance, silences ----

const LOST: &str = "agent-lost.r1";

#[test]
fn an_agent_that_is_not_heard_fires_once_and_ends_when_it_is_back() {
    let mut world = World::running(2);
    world.event_kinds();
    world.gone("r1", 1);
    assert_eq!(state(&world, LOST), None, "it may only be restarting");
    world.pass(15);
    assert!(fires(&world, LOST));
    let shown = alert(&world, LOST);
    assert_eq!(shown.summary, "agent r1 of rack r1 is not heard: nobody knows how its 2 hosts are");
    assert_eq!((shown.host, shown.agent, shown.zone.as_str()), (None, Some(id("r1")), "z1"));
    assert!(world.retained.contains_key(&Public::Alert(LOST.into())));
    world.restart();
    world.pass(60);
    assert_eq!(world.event_kinds(), ["io.picket.agent.lost.v1 r1", "io.picket.alert.firing.v1 r1"], "a restart tells nothing anew");
    world.hello("r1", 2, 1);
    assert_eq!(state(&world, LOST), Some(AlertState::Resolved));
    assert!(!world.retained.contains_key(&Public::Alert(LOST.into())));
    world.pass(16);
    assert!(fires(&world, LOST), "another time");
    world.join("r2", "r1", 2);
    assert_eq!(state(&world, LOST), Some(AlertState::Resolved), "another agent guards the rack");
    let mut world = World::of(1);
    world.restart();
    world.pass(60);
    assert_eq!(state(&world, LOST), None, "one that was never heard is not missed");
}

#[test]
fn a_lost_agent_explains_what_its_hosts_alerts_say() {
    let mut world = World::running(1);
    world.report("r1", vec![world.management_report("h1", Management::Lost, None)]);
    assert_eq!(alert(&world, "bmc-lost.h1").inhibited_by, [""; 0]);
    world.pass(15);
    assert_eq!(alert(&world, "bmc-lost.h1").inhibited_by, [LOST]);
    world.hello("r1", 2, 1);
    assert_eq!(alert(&world, "bmc-lost.h1").inhibited_by, [""; 0]);
}

fn silence(id: &str, matchers: &[&str], seconds: u64) -> Request {
    let matchers = matchers.iter().map(|text| text.parse().unwrap()).collect();
    let ends_at = Until::After(Duration::from_secs(seconds));
    Request::AddSilence(SilenceSpec::new(id.into(), matchers, None, ends_at, Some("planned".into())))
}

#[test]
fn silences_and_maintenance_cover_while_they_last() {
    let mut world = World::running(2);
    let lost = |world: &World, host| world.management_report(host, Management::Lost, None);
    world.report("r1", vec![lost(&world, "h1"), lost(&world, "h2")]);
    let covered = |world: &World| ["bmc-lost.h1", "bmc-lost.h2"].map(|id| alert(world, id).silenced_by.join(" "));
    world.ask(silence("s1", &["host=h1", "kind=bmc-*"], 600)).unwrap();
    assert_eq!(covered(&world), ["s1", ""]);
    let change = HostChange { maintenance: Some(true), ..HostChange::default() };
    world.ask(Request::PatchHost(id("h2"), change)).unwrap();
    assert_eq!(covered(&world), ["s1", "maintenance"]);
    world.ask(silence("s2", &["zone=z1"], 60)).unwrap();
    assert_eq!(covered(&world), ["s1 s2", "s2 maintenance"]);
    world.pass(59);
    world.restart();
    world.pass(2);
    assert_eq!(covered(&world), ["s1", "maintenance"], "over");
    world.ask(Request::EndSilence("s1".into())).unwrap();
    assert_eq!(covered(&world), ["", "maintenance"], "ended");
    let later = world.now.after(Duration::from_secs(100)).wall;
    let Request::AddSilence(spec) = silence("s3", &["host=*"], 100) else { panic!() };
    world.ask(Request::AddSilence(SilenceSpec { starts_at: Some(later), ..spec })).unwrap();
    assert_eq!(covered(&world), ["", "maintenance"], "not yet");
    world.pass(101);
    assert_eq!(covered(&world), ["s3", "s3 maintenance"]);
    world.report("r1", vec![world.management_report("h1", Management::Reachable, None)]);
    world.report("r1", vec![lost(&world, "h1")]);
    assert_eq!(covered(&world)[0], "s3", "one that fires meanwhile is covered as well");
    world.pass(25 * 3600);
    assert!(world.fleet.view().silences.is_empty(), "gone after a day");
}

#[test]
fn silences_are_checked() {
    let mut world = World::running(1);
    let spec = |matchers: &[&str], starts: i64, ends: i64| {
        let at = |seconds| world.now.wall.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        let matchers = matchers.iter().map(|text| text.parse().unwrap()).collect();
        Request::AddSilence(SilenceSpec::new("s".into(), matchers, Some(at(starts)), Until::At(at(ends)), None))
    };
    let bad = [
        (spec(&[], 0, 60), "matchers"),
        (spec(&["host=h1"; 17], 0, 60), "matchers"),
        (spec(&["host=h1"], 60, 60), "ends_at"),
        (spec(&["host=h1"], -60, -1), "ends_at"),
        (spec(&["host=h1"], 0, 366 * 24 * 3600), "ends_at"),
    ];
    for (request, wanted) in bad {
        let Err(Rejection::Invalid { field, .. }) = world.ask(request) else { panic!("{wanted}: taken") };
        assert_eq!(field, wanted);
    }
    assert!(matches!(world.ask(Request::EndSilence("s".into())), Err(Rejection::NotFound { kind: "silence", .. })));
    let long = Some("x".repeat(MAX_COMMENT + 1));
    assert!(matches!(world.ask(Request::AckAlert { id: "x".into(), comment: long }), Err(Rejection::Invalid { .. })));
}
