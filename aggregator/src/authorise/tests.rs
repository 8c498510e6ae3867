//! The grid of roles and rights against a literal, and scopes against a small fleet of two zones.

use picket_common::api::{RackBody, ZoneBody};
use picket_common::id::OperationId;
use picket_common::power::{Management, PowerOperation};
use picket_common::seal::Sealed;

use super::*;
use crate::fleet::request::{HostChange, SilenceSpec, Until};
use crate::fleet::testing::{self, World, id, ipmi, operation, spec, with_login};
use crate::fleet::view::SharedPassword;

const ROLES: [Role; 5] = [Role::Viewer, Role::Operator, Role::Fencer, Role::Auditor, Role::Admin];

fn row(role: Role, expires_at: Option<Timestamp>) -> Arc<ApiTokenRow> {
    Arc::new(ApiTokenRow { hash: "aa".into(), name: "ann".into(), role, scope: Scope::default(), expires_at })
}

fn who(role: Role, scope: &Scope) -> Principal {
    Principal { name: "x".into(), token: "t".into(), role, scope: scope.clone(), expires_at: None }
}

fn scope(zones: &[&str], clusters: &[&str], hosts: &[&str]) -> Scope {
    fn ids<T: std::str::FromStr<Err = picket_common::id::IdError>>(names: &[&str]) -> Vec<T> {
        names.iter().map(|name| id(name)).collect()
    }
    Scope { zones: ids(zones), clusters: ids(clusters), hosts: ids(hosts) }
}

#[test]
fn tokens_are_known_and_expire() {
    let end: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let before = end - jiff::SignedDuration::from_secs(1);
    let mut view = View::default();
    view.api_tokens.insert("aa".into(), row(Role::Admin, Some(end)));
    assert_eq!(principal(&view, "aa", before).unwrap().name.as_ref(), "ann");
    assert_eq!(principal(&view, "aa", end), Err(Unknown::Expired(end)));
    assert_eq!(principal(&view, "ab", before), Err(Unknown::Token));
}

#[test]
fn the_grid() {
    let mut grid = String::from("            viewer operator fencer auditor admin\n");
    for right in Right::ALL {
        let cells: Vec<_> = ROLES.iter().map(|role| if has(*role, right) { "yes" } else { "-" }).collect();
        let line =
            format!("{:<11} {:<6} {:<8} {:<6} {:<7} {}", format!("{right:?}"), cells[0], cells[1], cells[2], cells[3], cells[4]);
        grid += line.trim_end();
        grid.push('\n');
    }
    let wanted = "            viewer operator fencer auditor admin
Read        yes    yes      yes    yes     yes
Operate     -      yes      yes    -       yes
Fence       -      -        yes    -       yes
Configure   -      -        -      -       yes
Enrol       -      -        -      -       yes
Grant       -      -        -      -       yes
Audit       -      -        -      yes     yes
Join        -      -        -      -       -
";
    assert_eq!(grid, wanted);
}

/// A silence with its matcher as its id.
fn silence(matcher: &str) -> Request {
    let until = Until::After(std::time::Duration::from_secs(60));
    Request::AddSilence(SilenceSpec::new(matcher.into(), vec![matcher.parse().unwrap()], None, until, None))
}

/// z1 has cluster c1 (h1, h2) and c2 (h3), racks r1 (h1, h3) and r2 (h2); z2 has c9 (h9) and r9. An operation for h1 and one for h9,
/// whose BMCs are lost, as are the agents r1 and r9.
fn fleet() -> View {
    let mut world = World::empty();
    for (zone, cluster, rack) in [("z1", "c1", "r1"), ("z1", "c2", "r2"), ("z2", "c9", "r9")] {
        world.ground(zone, cluster, rack);
        world.join(rack, rack, 1);
    }
    for (n, (host, cluster, rack)) in
        [("h1", "c1", "r1"), ("h2", "c1", "r2"), ("h3", "c2", "r1"), ("h9", "c9", "r9")].into_iter().enumerate()
    {
        world.ask(Request::PutHost(id(host), spec(cluster, rack, Some(ipmi(&format!("10.0.0.{n}")))))).unwrap();
        world.enable(host, true);
    }
    world.order(1, "h1", PowerOperation::Off).unwrap();
    world.order(9, "h9", PowerOperation::Off).unwrap();
    world.hello("r1", 1, 1);
    world.hello("r9", 9, 9);
    world.report("r1", vec![world.management_report("h1", Management::Lost, None)]);
    world.report("r9", vec![world.management_report("h9", Management::Lost, None)]);
    world.pass(60);
    for matcher in ["zone=z1", "cluster=c1", "host=h1", "host=h9", "host=h*"] {
        world.ask(silence(matcher)).unwrap();
    }
    world.fleet.view()
}

fn shown(view: &View) -> String {
    fn list<K: std::fmt::Display + Ord, V>(rows: &OrdMap<K, V>) -> String {
        rows.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }
    let operations: Vec<_> = view.operations.keys().map(|id| id.0.as_u128().to_string()).collect();
    let View { zones, clusters, racks, hosts, power, agents, rack_hosts, cluster_hosts, .. } = view;
    assert_eq!(list(hosts), list(power));
    for (rack, of) in rack_hosts {
        assert!(racks.contains_key(rack) && of.iter().all(|host| hosts.contains_key(host)));
    }
    for (cluster, of) in cluster_hosts {
        assert!(clusters.contains_key(cluster) && of.iter().all(|host| hosts.contains_key(host)));
    }
    let alerts = list(&view.alerts).replace("bmc-lost.", "").replace("agent-lost.", "");
    [list(zones), list(clusters), list(racks), list(hosts), list(agents), operations.join(" "), alerts, list(&view.silences)]
        .join(" | ")
}

#[test]
fn a_scope_shows_what_is_in_it_and_where_that_is() {
    let view = fleet();
    for (scope, wanted) in [
        (scope(&["z1"], &[], &[]), "z1 | c1 c2 | r1 r2 | h1 h2 h3 | r1 r2 | 1 | r1 h1 | cluster=c1 host=h1 zone=z1"),
        (scope(&["z2"], &[], &[]), "z2 | c9 | r9 | h9 | r9 | 9 | r9 h9 | host=h9"),
        (scope(&[], &["c2"], &[]), "z1 | c2 | r1 | h3 | r1 |  | r1 | "),
        (scope(&[], &[], &["h2"]), "z1 | c1 | r2 | h2 | r2 |  |  | "),
        (scope(&[], &["c2"], &["h9", "h7"]), "z1 z2 | c2 c9 | r1 r9 | h3 h9 | r1 r9 | 9 | r1 r9 h9 | host=h9"),
        (scope(&["z7"], &["c7"], &["h7"]), " |  |  |  |  |  |  | "),
    ] {
        let seen = visible(&view, &scope);
        assert_eq!(shown(&seen), wanted, "{scope:?}");
        assert!(seen.api_tokens.is_empty() && seen.join_tokens.is_empty());
    }
}

fn told(view: &View, scope: &Scope, request: &Request) -> String {
    match authorise(view, &who(Role::Admin, scope), Action::Change(request)) {
        Ok(()) => "ok".into(),
        Err(Denied::Hidden { kind, id }) => format!("no {kind} {id}"),
        Err(Denied::Scope(what)) => format!("not {what}"),
        Err(other) => other.to_string(),
    }
}

#[test]
fn who_says_where_a_shared_password_goes_reaches_the_cluster() {
    let mut world = World::empty();
    world.ground("z1", "c1", "r1");
    world.join("r1", "r1", 1);
    for (host, bmc) in [("h1", ipmi("10.0.0.1")), ("h2", with_login("10.0.0.2", 1))] {
        world.ask(Request::PutHost(id(host), spec("c1", "r1", Some(bmc)))).unwrap();
    }
    let mut view = world.fleet.view();
    let patch =
        |host: &str, bmc: BmcChange| Request::PatchHost(id(host), HostChange { bmc: Field::Set(bmc), ..HostChange::default() });
    let moved = || patch("h1", ipmi("10.0.0.66"));
    let (host, cluster) = (scope(&[], &[], &["h1", "h2"]), scope(&[], &["c1"], &[]));
    assert_eq!(told(&view, &host, &moved()), "ok", "there is no password to take");

    let c1: ClusterId = id("c1");
    let mut row = (*view.clusters[&c1]).clone();
    row.bmc.username = Some("root".into());
    row.bmc.password = Some(SharedPassword { copies: Vec::new(), recovery: Sealed(vec![0]) });
    view.clusters.insert(c1, Arc::new(row));
    let no = "not cluster/c1, whose password this BMC would be sent,";
    for (request, wanted) in [
        (moved(), no),
        (Request::PutHost(id("h1"), spec("c1", "r1", Some(ipmi("10.0.0.66")))), no),
        (patch("h1", BmcChange { port: Field::Set(624), ..BmcChange::default() }), no),
        (patch("h2", BmcChange { username: Field::Unset, ..BmcChange::default() }), no),
        (patch("h2", BmcChange { password: Field::Unset, ..BmcChange::default() }), no),
        (Request::PutHost(id("h2"), spec("c1", "r1", Some(ipmi("10.0.0.2")))), no),
        (patch("h2", ipmi("10.0.0.66")), "ok"),
        (patch("h1", with_login("10.0.0.66", 1)), "ok"),
        (patch("h1", BmcChange { repin: true, ..BmcChange::default() }), "ok"),
        (Request::PatchHost(id("h1"), HostChange { maintenance: Some(true), ..HostChange::default() }), "ok"),
        (Request::PutHost(id("h1"), spec("c1", "r1", None)), "ok"),
    ] {
        assert_eq!(told(&view, &host, &request), wanted, "{request:?}");
        assert_eq!(told(&view, &cluster, &request), "ok", "{request:?}");
    }
}

#[test]
fn a_scope_reaches_what_is_in_it() {
    let view = fleet();
    let (zone, cluster, host) = (scope(&["z1"], &[], &[]), scope(&[], &["c1"], &[]), scope(&[], &[], &["h1"]));
    let put = |host: &str, cluster: &str, rack: &str| Request::PutHost(id(host), spec(cluster, rack, None));
    let to_cluster = |zone: &str| testing::cluster_spec(zone);
    let power = |host: &str| Request::Power {
        id: operation(5),
        host: id(host),
        operation: PowerOperation::Off.into(),
        timeout: None,
        reason: None,
        on_if_off: false,
    };
    let moved = |cluster: Option<&str>, rack: Option<&str>| HostChange {
        cluster: cluster.map(id),
        rack: rack.map(id),
        ..HostChange::default()
    };
    let ack = |id: &str| Request::AckAlert { id: id.into(), comment: None };
    let cancel = |n| Request::CancelOperation(OperationId(operation(n).0));
    for (request, of_zone, of_cluster, of_host) in [
        (Request::PutZone(id("z1"), ZoneBody {}), "ok", "not zone/z1", "not zone/z1"),
        (Request::PutZone(id("z5"), ZoneBody {}), "not zone/z5", "not zone/z5", "not zone/z5"),
        (Request::DeleteZone(id("z2")), "not zone/z2", "not zone/z2", "not zone/z2"),
        (Request::PutCluster(id("c1"), to_cluster("z1")), "ok", "ok", "not cluster/c1"),
        (Request::PutCluster(id("c1"), to_cluster("z2")), "not cluster/c1", "ok", "not cluster/c1"),
        (Request::PutCluster(id("c9"), to_cluster("z1")), "not cluster/c9", "not cluster/c9", "not cluster/c9"),
        (Request::PutCluster(id("c5"), to_cluster("z1")), "ok", "not cluster/c5", "not cluster/c5"),
        (Request::DeleteCluster(id("c9")), "not cluster/c9", "not cluster/c9", "not cluster/c9"),
        (Request::DeleteCluster(id("c5")), "not cluster/c5", "not cluster/c5", "not cluster/c5"),
        (Request::PutRack(id("r5"), RackBody { zone: id("z1") }), "ok", "not rack/r5", "not rack/r5"),
        (Request::PutRack(id("r9"), RackBody { zone: id("z1") }), "not rack/r9", "not rack/r9", "not rack/r9"),
        (Request::DeleteRack(id("r1")), "ok", "not rack/r1", "not rack/r1"),
        (Request::DeleteRack(id("r9")), "not rack/r9", "not rack/r9", "not rack/r9"),
        (Request::DeleteRack(id("r5")), "not rack/r5", "not rack/r5", "not rack/r5"),
        (put("h5", "c1", "r1"), "ok", "ok", "no cluster c1"),
        (put("h5", "c9", "r9"), "no cluster c9", "no cluster c9", "no cluster c9"),
        (put("h5", "c1", "r9"), "no rack r9", "no rack r9", "no cluster c1"),
        (put("h9", "c1", "r1"), "no host h9", "no host h9", "no host h9"),
        (put("h1", "c1", "r1"), "ok", "ok", "ok"),
        (Request::PatchHost(id("h1"), moved(Some("c2"), None)), "ok", "no cluster c2", "no cluster c2"),
        (Request::PatchHost(id("h1"), moved(None, Some("r2"))), "ok", "ok", "no rack r2"),
        (Request::PatchHost(id("h1"), moved(None, Some("r9"))), "no rack r9", "no rack r9", "no rack r9"),
        (Request::DeleteHost(id("h1")), "ok", "ok", "ok"),
        (Request::DeleteHost(id("h9")), "no host h9", "no host h9", "no host h9"),
        (Request::DeleteHost(id("h5")), "no host h5", "no host h5", "no host h5"),
        (Request::SetOobm(Gate::Zone(id("z1")), false), "ok", "not zone/z1", "not zone/z1"),
        (Request::SetOobm(Gate::Cluster(id("c1")), false), "ok", "ok", "not cluster/c1"),
        (Request::SetOobm(Gate::Cluster(id("c9")), false), "not cluster/c9", "not cluster/c9", "not cluster/c9"),
        (Request::SetOobm(Gate::Cluster(id("c5")), false), "not cluster/c5", "not cluster/c5", "not cluster/c5"),
        (Request::SetOobm(Gate::Host(id("h1")), false), "ok", "ok", "ok"),
        (Request::SetOobm(Gate::Host(id("h3")), false), "ok", "no host h3", "no host h3"),
        (power("h1"), "ok", "ok", "ok"),
        (power("h9"), "no host h9", "no host h9", "no host h9"),
        (power("h5"), "no host h5", "no host h5", "no host h5"),
        (cancel(1), "ok", "ok", "ok"),
        (cancel(9), "no operation", "no operation", "no operation"),
        (cancel(5), "no operation", "no operation", "no operation"),
        (ack("bmc-lost.h1"), "ok", "ok", "ok"),
        (ack("bmc-lost.h9"), "no alert bmc-lost.h9", "no alert bmc-lost.h9", "no alert bmc-lost.h9"),
        (ack("bmc-lost.h5"), "no alert bmc-lost.h5", "no alert bmc-lost.h5", "no alert bmc-lost.h5"),
        (ack("agent-lost.r1"), "ok", "not alert/agent-lost.r1", "not alert/agent-lost.r1"),
        (ack("agent-lost.r9"), "no alert agent-lost.r9", "no alert agent-lost.r9", "no alert agent-lost.r9"),
        (silence("zone=z1"), "ok", "not zone/z1", "not zone/z1"),
        (silence("cluster=c1"), "ok", "ok", "not cluster/c1"),
        (silence("host=h1"), "ok", "ok", "ok"),
        (silence("host=h1|h2"), "not the whole site", "not the whole site", "not the whole site"),
        (silence("host!=h9"), "not the whole site", "not the whole site", "not the whole site"),
        (silence("kind=bmc-lost"), "not the whole site", "not the whole site", "not the whole site"),
        (Request::EndSilence("host=h1".into()), "ok", "ok", "ok"),
        (Request::EndSilence("zone=z1".into()), "ok", "no silence zone=z1", "no silence zone=z1"),
        (Request::EndSilence("host=h9".into()), "no silence host=h9", "no silence host=h9", "no silence host=h9"),
        (Request::EndSilence("host=h*".into()), "no silence host=h*", "no silence host=h*", "no silence host=h*"),
        (Request::RemoveApiToken("aa".into()), "no token aa", "no token aa", "no token aa"),
    ] {
        assert_eq!(told(&view, &Scope::default(), &request).replace("no token aa", "ok"), "ok", "{request:?}");
        for (scope, wanted) in [(&zone, of_zone), (&cluster, of_cluster), (&host, of_host)] {
            let told = told(&view, scope, &request);
            let same = told == wanted || (wanted == "no operation" && told.starts_with(wanted));
            assert!(same, "{request:?} in {scope:?}: {told}, not {wanted}");
        }
    }
    for right in [Right::Audit, Right::Enrol] {
        let narrow = authorise(&view, &who(Role::Admin, &zone), Action::Site(right));
        assert_eq!(narrow, Err(Denied::Scope("the whole site".into())));
        assert_eq!(authorise(&view, &who(Role::Admin, &Scope::default()), Action::Site(right)), Ok(()));
    }
}

#[test]
fn nobody_hands_on_more_than_he_has() {
    let view = fleet();
    let end: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let later = end + jiff::SignedDuration::from_secs(1);
    let everywhere = Scope::default();
    let zone = scope(&["z1"], &[], &[]);
    for (makers, makers_end, new, news_end, wanted) in [
        (&everywhere, None, &everywhere, None, Ok(())),
        (&everywhere, None, &zone, Some(end), Ok(())),
        (&everywhere, Some(end), &zone, Some(end), Ok(())),
        (&everywhere, Some(end), &zone, Some(later), Err(Denied::More("ttl"))),
        (&everywhere, Some(end), &zone, None, Err(Denied::More("ttl"))),
        (&zone, None, &everywhere, None, Err(Denied::More("scope"))),
        (&zone, None, &zone, None, Ok(())),
        (&zone, None, &scope(&[], &["c1"], &["h3"]), None, Ok(())),
        (&zone, None, &scope(&[], &["c1", "c9"], &[]), None, Err(Denied::More("scope"))),
        (&zone, None, &scope(&["z1", "z2"], &[], &[]), None, Err(Denied::More("scope"))),
        (&zone, None, &scope(&[], &[], &["h9"]), None, Err(Denied::More("scope"))),
        (&zone, None, &scope(&[], &[], &["h7"]), None, Err(Denied::More("scope"))),
    ] {
        let token =
            ApiTokenRow { hash: "bb".into(), name: "bob".into(), role: Role::Viewer, scope: new.clone(), expires_at: news_end };
        let maker = Principal { expires_at: makers_end, ..who(Role::Admin, makers) };
        let told = authorise(&view, &maker, Action::Change(&Request::AddApiToken(token.clone())));
        assert_eq!(told, wanted, "{makers:?} {makers_end:?} → {new:?} {news_end:?}");
        assert_eq!(sees_token(&view, &maker, &token), wanted != Err(Denied::More("scope")));
        for role in [Role::Viewer, Role::Operator, Role::Fencer, Role::Auditor] {
            let maker = Principal { role, ..maker.clone() };
            let told = authorise(&view, &maker, Action::Change(&Request::AddApiToken(token.clone())));
            assert!(matches!(told, Err(Denied::Role { .. })), "{role:?}");
        }
    }
}

#[test]
fn events_are_seen_by_where_they_happened() {
    let view = fleet();
    let what = picket_common::api::EventWhat::Presence { connected: true };
    let event = |host: Option<&str>, cluster: &str, agent: Option<&str>| EventData {
        host: host.map(id),
        zone: host.map(|_| id("z1")),
        cluster: host.map(|_| id(cluster)),
        agent: agent.map(id),
        what: what.clone(),
    };
    for (scope, wanted) in [
        (Scope::default(), [true, true, true, true, true]),
        (scope(&["z1"], &[], &[]), [true, true, true, false, false]),
        (scope(&[], &["c1"], &[]), [true, false, true, false, false]),
        (scope(&[], &[], &["gone"]), [false, true, false, false, false]),
        (scope(&["z2"], &[], &[]), [false, false, false, true, false]),
    ] {
        let events = [
            event(Some("h1"), "c1", None),
            event(Some("gone"), "c0", None),
            event(None, "", Some("r1")),
            event(None, "", Some("r9")),
            event(None, "", None),
        ];
        assert_eq!(events.map(|event| sees_event(&view, &scope, &event)), wanted, "{scope:?}");
    }
}
