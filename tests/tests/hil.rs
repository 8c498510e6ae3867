//! The power and OBM scenarios of HIL and of its `obmd`, under their own names, against real BMCs: our simulator by both protocols,
//! OpenIPMI's `ipmi_sim`, and driver `null` in the place of HIL's `mock` and obmd's `dummy`.
//!
//! | there | here |
//! |---|---|
//! | obmd `server_test.go` `TestAdminNoAuth` | `obmd::test_admin_no_auth`; strangers get 401, a token out of its scope 404 |
//! | `TestAdminGoodAuth` | `obmd::test_admin_good_auth` |
//! | `TestViewConsole` | none: Picket has no console |
//! | `TestPowerStatus` | `obmd::test_power_status`; a cycle that is to switch on has to say so (`on_if_off`) |
//! | `TestPowerActions` | `obmd::test_power_actions`; force is `reset`, no force is `cycle` |
//! | obmd `token_test.go` `TestUnmarshal`, `TestUnmarshalInvalid` | `obmd::test_unmarshal`, `obmd::test_unmarshal_invalid` |
//! | HIL `obmd.py` `test_enable_disable_obm` | `hil::test_enable_disable_obm`; for projects, from which a node is detached, stand cluster and rack |
//! | `test_power_operations` | `hil::test_power_operations`; instead of a redirect to the node's obmd the aggregator carries the order there |
//! | `test_show_console` | none: no console |
//! | `client_integration.py` `test_enable_disable_obm` | `client::test_enable_disable_obm` |
//! | `test_power_cycle`, `_force`, `_no_force`, `_bad_arg`, `_reserved_chars` | `client::test_power_cycle` and so on |
//! | `test_power_off`, `_reserved_chars`, `test_power_on` | `client::test_power_off`, `client::test_power_off_reserved_chars`, `client::test_power_on` |
//! | `test_set_bootdev` | `client::test_set_bootdev` |
//! | `test_power_status` ("Mock Status") | `client::test_power_status`, with driver `null` |
//! | `test_node_*_console` | none: no console |

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::ensure;
use picket_tests::bmcsim::{BmcHandle, Profile, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Http, Reply, Site, host_body, hosts, simulator};
use picket_tests::peers::ipmi_sim::IpmiSim;
use picket_tests::peers::{Power, User, orders};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// HIL's own name of the node.
const NODE: &str = "node-99";

/// A zone, a cluster, a rack with its agent, and an admin.
struct Stage {
    site: Site,
    _agent: Agent,
    admin: Http,
}

impl Stage {
    fn empty() -> Self {
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        let admin = Http::admin(&site).unwrap();
        Self { site, _agent: agent, admin }
    }

    /// With hosts that are configured and not enabled.
    fn with(hosts: &[Value]) -> Self {
        let stage = Self::empty();
        stage.site.import(hosts).unwrap();
        stage
    }

    fn enable(&self, host: &str) {
        let reply = self.gate("enable", host);
        assert_eq!((reply.status, &reply.body["oobm_enabled"]), (200, &json!(true)), "{reply:?}");
    }

    fn gate(&self, verb: &str, host: &str) -> Reply {
        self.admin.post(&format!("/v1/hosts/{host}/oobm/{verb}"), &json!({})).unwrap()
    }

    fn until(&self, host: &str, power: Power) {
        self.site.until(host, "power", &power.to_string(), PATIENCE).unwrap();
    }
}

/// One request that is waited for: its status, and how it ended on its only host.
fn ask(http: &Http, host: &str, path: &str, body: &Value) -> (u16, Value) {
    let reply = http.call("POST", &format!("/v1/hosts/{host}/{path}"), &[("prefer", "wait=45")], Some(body)).unwrap();
    let mut said = reply.body;
    (reply.status, if said["hosts"].is_array() { said["hosts"][0].take() } else { said })
}

fn power(http: &Http, host: &str, operation: &str) -> (u16, Value) {
    ask(http, host, "power", &json!({ "operation": operation }))
}

/// It has to be granted, done, and read back.
fn succeeds(http: &Http, host: &str, path: &str, body: &Value) {
    let (status, row) = ask(http, host, path, body);
    assert_eq!((status, &row["result"]), (200, &json!("changed")), "{host} {path} {body}: {row}");
}

/// Two nodes, one for each protocol, that switch quickly.
fn nodes() -> Simulator {
    let simulator = simulator("node", 1, 1).unwrap();
    for bmc in simulator.fleet().all() {
        bmc.set_power(true);
        bmc.set_profile(Profile { on_delay_ms: 100, off_delay_ms: 100, soft_delay_ms: 300, ..bmc.profile() });
    }
    simulator
}

/// Orders of the kinds that disrupt, as the BMC counted them.
fn orders_at(bmc: &BmcHandle) -> usize {
    ["on", "off", "cycle", "reset", "soft"].iter().map(|action| bmc.orders(action)).sum()
}

fn null_node() -> Value {
    json!({ "id": NODE, "cluster": "c1", "rack": "r1", "bmc": { "driver": "null" } })
}

/// A token for one node, as obmd gives them out.
fn node_token(stage: &Stage, host: &str) -> Http {
    let body = json!({ "name": format!("user of {host}"), "role": "operator", "scope": { "hosts": [host] }, "ttl": 3600 });
    let made = stage.admin.post("/v1/tokens", &body).unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    stage.admin.with_token(made.body["secret"].as_str().unwrap())
}

mod obmd {
    use super::*;

    /// obmd's four admin requests: a node put, a token made, the node deleted, the token deleted.
    fn admin_requests(http: &Http, token: &str) -> Vec<Reply> {
        let node = json!({ "cluster": "c1", "rack": "r1", "bmc": { "driver": "ipmi", "address": "127.0.0.9", "username": "ipmiuser", "password": "secret" } });
        let access = json!({ "name": "user", "role": "operator", "scope": { "hosts": ["somenode"] }, "ttl": 3600 });
        let any = [("if-match", "*")];
        let mut replies =
            vec![http.call("PUT", "/v1/hosts/somenode", &[], Some(&node)).unwrap(), http.post("/v1/tokens", &access).unwrap()];
        let made = replies[1].body["id"].as_str().unwrap_or(token).to_owned();
        replies.push(http.call("DELETE", "/v1/hosts/somenode", &any, None).unwrap());
        replies.push(http.call("DELETE", &format!("/v1/tokens/{made}"), &any, None).unwrap());
        replies.push(http.call("DELETE", &format!("/v1/tokens/{made}"), &any, None).unwrap());
        replies
    }

    fn statuses(replies: &[Reply]) -> Vec<u16> {
        replies.iter().map(|reply| reply.status).collect()
    }

    #[test]
    fn test_admin_no_auth() {
        let stage = Stage::with(&[null_node()]);
        let known = stage.admin.get("/v1/tokens").unwrap().body["items"][0]["id"].as_str().unwrap().to_owned();
        let replies = admin_requests(&stage.admin.as_stranger(), &known);
        assert_eq!(statuses(&replies), [401; 5], "{replies:?}");
        // One with a token is told of other nodes what strangers are told by obmd: there is no such thing.
        let user = node_token(&stage, NODE);
        assert_eq!(user.get("/v1/hosts/somenode").unwrap().status, 404);
        assert_eq!(statuses(&admin_requests(&user, &known)), [403; 5]);
        assert_eq!(stage.admin.get("/v1/hosts/somenode").unwrap().status, 404, "a stranger made a node");
        assert_eq!(stage.admin.get(&format!("/v1/tokens/{known}")).unwrap().status, 200, "a stranger deleted a token");
    }

    /// A token of ours outlives its node, and opens nothing then.
    #[test]
    fn test_admin_good_auth() {
        let stage = Stage::empty();
        let replies = admin_requests(&stage.admin, "");
        assert_eq!(statuses(&replies), [201, 201, 204, 204, 404], "{replies:?}");
        stage.site.import(&[null_node()]).unwrap();
        let user = node_token(&stage, NODE);
        assert_eq!(user.get(&format!("/v1/hosts/{NODE}")).unwrap().status, 200);
        let gone = stage.admin.call("DELETE", &format!("/v1/hosts/{NODE}"), &[("if-match", "*")], None).unwrap();
        assert_eq!(gone.status, 204);
        assert_eq!(power(&user, NODE, "off").0, 404);
    }

    #[test]
    fn test_power_status() {
        let simulator = nodes();
        simulator.fleet().all().iter().for_each(|bmc| bmc.set_power(false));
        let mut all = hosts(&simulator, "c1", "r1");
        all.push(null_node());
        let stage = Stage::with(&all);
        let names: Vec<&str> = simulator.fleet().all().iter().map(BmcHandle::name).chain([NODE]).collect();
        for host in &names {
            stage.enable(host);
        }
        // A machine that does not exist begins as on.
        stage.until(NODE, Power::On);
        succeeds(&stage.admin, NODE, "power", &json!({ "operation": "off" }));
        for host in names {
            let user = node_token(&stage, host);
            let is = |wanted: &str| {
                let (status, row) = power(&user, host, "status");
                assert_eq!((status, &row["power"]), (200, &json!(wanted)), "{host}: {row}");
            };
            is("off");
            succeeds(&user, host, "power", &json!({ "operation": "cycle", "on_if_off": true }));
            is("on");
            succeeds(&user, host, "power", &json!({ "operation": "off" }));
            is("off");
        }
        assert!(simulator.fleet().all().iter().all(|bmc| !bmc.is_on()));
    }

    #[test]
    fn test_power_actions() {
        let simulator = nodes();
        let stage = Stage::with(&hosts(&simulator, "c1", "r1"));
        for bmc in simulator.fleet().all() {
            stage.enable(bmc.name());
            stage.until(bmc.name(), Power::On);
            every_action(&stage, bmc);
        }
    }

    fn every_action(stage: &Stage, bmc: &BmcHandle) {
        let host = bmc.name();
        let user = node_token(stage, host);
        let (on, off) = (bmc.orders("on"), bmc.orders("off"));
        succeeds(&user, host, "power", &json!({ "operation": "off" }));
        assert_eq!((bmc.orders("off"), bmc.is_on()), (off + 1, false), "{host}");
        succeeds(&user, host, "power", &json!({ "operation": "on" }));
        assert_eq!((bmc.orders("on"), bmc.is_on()), (on + 1, true), "{host}");
        // With a bad token, all zeros there: refused, and nothing reaches the BMC.
        let before = orders_at(bmc);
        let bad = stage.admin.with_token(&format!("pkt_{}", "0".repeat(43)));
        assert_eq!(power(&bad, host, "reset").0, 401);
        assert_eq!((orders_at(bmc), bmc.truth().resets), (before, 0), "{host}");
        // Force; then without.
        succeeds(&user, host, "power", &json!({ "operation": "reset" }));
        assert_eq!((bmc.orders("reset"), bmc.truth().resets), (1, 1), "{host}");
        let changes = bmc.changes().len();
        succeeds(&user, host, "power", &json!({ "operation": "cycle" }));
        let seen: Vec<bool> = bmc.changes()[changes..].iter().map(|change| change.on).collect();
        assert_eq!(seen, [false, true], "{host}");
        succeeds(&user, host, "bootdev", &json!({ "device": "pxe" }));
        let booted = bmc.truth().boot;
        assert_eq!(booted.target, "Pxe", "{host}");
        let (status, said) = ask(&user, host, "bootdev", &json!({ "device": "invalid" }));
        assert_eq!((status, &said["code"]), (400, &json!("invalid-value")), "{host}: {said}");
        assert_eq!(format!("{:?}", bmc.truth().boot), format!("{booted:?}"), "{host}: a bad device did something");
    }

    #[test]
    fn test_unmarshal() {
        let stage = Stage::with(&[null_node()]);
        assert_eq!(node_token(&stage, NODE).get(&format!("/v1/hosts/{NODE}")).unwrap().status, 200);
    }

    #[test]
    fn test_unmarshal_invalid() {
        let stage = Stage::with(&[null_node()]);
        let good = std::fs::read_to_string(stage.site.token_file()).unwrap().trim().to_owned();
        let (short, long) = (good[..good.len() - 1].to_owned(), format!("{good}A"));
        let (other, bare) = (good.replace("pkt_", "pky_"), good.replace("pkt_", ""));
        let cases = ["1234", "", "abcdef0123456", &short, &long, "212", "1", "pkt_", &other, &bare, "pkt_0123456789$#cdef"];
        for token in cases {
            let reply = stage.admin.with_token(token).get(&format!("/v1/hosts/{NODE}")).unwrap();
            assert_eq!(reply.status, 401, "{token:?}: {reply:?}");
        }
        assert_eq!(stage.admin.get(&format!("/v1/hosts/{NODE}")).unwrap().status, 200);
    }
}

mod hil {
    use super::*;

    /// What holds an enabled node cannot be taken from under it; the node itself, once disabled, is not touched any more and may go.
    #[test]
    fn test_enable_disable_obm() {
        let simulator = nodes();
        let (node, clock) = (&simulator.fleet().all()[0], &simulator.fleet().all()[1]);
        let stage = Stage::with(&hosts(&simulator, "c1", "r1"));
        for bmc in [node, clock] {
            stage.enable(bmc.name());
            stage.until(bmc.name(), Power::On);
        }
        let remove = |path: &str| stage.admin.call("DELETE", path, &[("if-match", "*")], None).unwrap();
        for holder in ["/v1/clusters/c1", "/v1/racks/r1"] {
            let reply = remove(holder);
            assert_eq!((reply.status, &reply.body["code"]), (409, &json!("in-use")), "{holder}: {reply:?}");
        }
        assert_eq!(stage.gate("disable", node.name()).body["oobm_enabled"], false);
        polled(clock, 2);
        let before = node.counters().datagrams;
        polled(clock, 3);
        assert_eq!(node.counters().datagrams, before, "a disabled node is still talked to");
        assert_eq!(remove(&format!("/v1/hosts/{}", node.name())).status, 204);
        assert_eq!(stage.admin.get(&format!("/v1/hosts/{}", node.name())).unwrap().status, 404);
    }

    /// Waits until a BMC was read so often again.
    fn polled(bmc: &BmcHandle, times: u64) {
        let begun = bmc.counters().status_reads;
        eventually(PATIENCE, || {
            ensure!(bmc.counters().status_reads >= begun + times, "not polled");
            Ok(())
        })
        .unwrap();
    }

    /// Against OpenIPMI's simulator.
    #[test]
    fn test_power_operations() {
        let bmc = IpmiSim::start().unwrap();
        let User { name, password } = IpmiSim::operator();
        let stage = Stage::with(&[host_body(NODE, "c1", "r1", "ipmi", bmc.address(), (&name, &password))]);
        let boot = json!({ "device": "pxe" });
        for operation in ["off", "on", "reset", "cycle", "soft", "status"] {
            let (status, said) = power(&stage.admin, NODE, operation);
            assert_eq!((status, &said["code"]), (409, &json!("host-disabled")), "{operation}: {said}");
        }
        let (status, said) = ask(&stage.admin, NODE, "bootdev", &boot);
        assert_eq!((status, &said["code"]), (409, &json!("host-disabled")), "{said}");
        assert_eq!(bmc.actions().unwrap(), [""; 0], "a refused order reached the BMC");

        stage.enable(NODE);
        stage.until(NODE, Power::On);
        succeeds(&stage.admin, NODE, "power", &json!({ "operation": "off" }));
        assert_eq!(bmc.chassis_power().unwrap(), Power::Off);
        succeeds(&stage.admin, NODE, "bootdev", &boot);
        succeeds(&stage.admin, NODE, "power", &json!({ "operation": "on" }));
        succeeds(&stage.admin, NODE, "power", &json!({ "operation": "reset" }));
        succeeds(&stage.admin, NODE, "power", &json!({ "operation": "cycle" }));
        let done: Vec<String> = bmc.actions().unwrap().into_iter().filter(|action| !action.starts_with("boot")).collect();
        assert_eq!(orders(done), ["power 0", "power 1", "reset 1", "power 0", "power 1"], "each once");
    }
}

mod client {
    use super::*;

    /// One enabled node behind a BMC, used as HIL's client library does: by `picketctl`.
    struct Node {
        stage: Stage,
        simulator: Simulator,
    }

    impl Node {
        fn enabled() -> Self {
            let simulator = nodes();
            let stage = Stage::with(&hosts(&simulator, "c1", "r1")[..1]);
            let node = Self { stage, simulator };
            node.stage.enable(node.bmc().name());
            node.stage.until(node.bmc().name(), Power::On);
            node
        }

        fn bmc(&self) -> &BmcHandle {
            &self.simulator.fleet().all()[0]
        }

        fn ctl(&self, words: &[&str]) -> i32 {
            self.stage.site.ctl(words).unwrap().code
        }

        fn power(&self, operation: &str) -> i32 {
            self.ctl(&["power", operation, self.bmc().name(), "--wait"])
        }
    }

    /// Repeated calls in any order succeed silently.
    #[test]
    fn test_enable_disable_obm() {
        let stage = Stage::with(&[null_node()]);
        for verb in ["disable", "enable", "enable", "disable", "disable", "disable", "enable"] {
            let reply = stage.gate(verb, NODE);
            assert_eq!((reply.status, &reply.body["oobm_enabled"]), (200, &json!(verb == "enable")), "{verb}: {reply:?}");
            let shown = stage.site.host(NODE).unwrap();
            assert_eq!(shown["oobm_enabled"], json!(verb == "enable"), "{shown}");
        }
        stage.until(NODE, Power::On);
    }

    #[test]
    fn test_power_cycle() {
        let node = Node::enabled();
        assert_eq!(node.power("cycle"), 0);
        assert_eq!((node.bmc().is_on(), node.bmc().orders("off"), node.bmc().orders("on")), (true, 1, 1));
    }

    #[test]
    fn test_power_cycle_force() {
        let node = Node::enabled();
        assert_eq!(node.power("reset"), 0);
        assert_eq!((node.bmc().truth().resets, orders_at(node.bmc())), (1, 1));
    }

    /// Nothing is forced upon the operating system.
    #[test]
    fn test_power_cycle_no_force() {
        let node = Node::enabled();
        assert_eq!((node.power("soft"), node.bmc().orders("soft")), (0, 1));
        assert_eq!((node.power("on"), node.bmc().is_on()), (0, true));
        assert_eq!((node.bmc().orders("off"), node.bmc().truth().resets), (0, 0));
    }

    #[test]
    fn test_power_cycle_bad_arg() {
        let node = Node::enabled();
        let host = node.bmc().name();
        for body in [
            json!({ "operation": "wrong" }),
            json!({ "operation": "cycle", "force": "wrong" }),
            json!({ "operation": "cycle", "on_if_off": "wrong" }),
            json!({ "operation": "cycle", "timeout": "wrong" }),
            json!({}),
        ] {
            let (status, said) = ask(&node.stage.admin, host, "power", &body);
            assert_eq!(status, 400, "{body}: {said}");
        }
        assert_eq!(node.power("wrong"), 2);
        assert_eq!(orders_at(node.bmc()), 0);
    }

    /// Names that are none are refused by client and server, and mean no other route of the API.
    fn assert_reserved_chars_refused(operation: &str) {
        let stage = Stage::with(&[null_node()]);
        for name in ["node-/%]07", "node-99/oobm", "../node-99", "node-99%2Fpower", "node 99", "NODE-99", "node-99?", ""] {
            let code = stage.site.ctl(&["power", operation, name, "--yes"]).unwrap().code;
            assert!([2, 8].contains(&code), "{name:?}: exit {code}");
        }
        for escaped in ["node-%2F%25%5D07", "%2E%2E%2Fnode-99", "node%2099", "NODE-99", "node-99%00"] {
            let (status, said) = power(&stage.admin, escaped, operation);
            assert!([400, 404].contains(&status), "{escaped}: {status} {said}");
        }
        assert_eq!(stage.site.json(&["op", "list"]).unwrap(), json!([]), "one of them was taken for a node");
    }

    #[test]
    fn test_power_cycle_reserved_chars() {
        assert_reserved_chars_refused("cycle");
    }

    #[test]
    fn test_power_off() {
        let node = Node::enabled();
        assert_eq!((node.power("off"), node.bmc().is_on()), (0, false));
        assert_eq!((node.power("off"), node.bmc().orders("off")), (0, 1), "off when off has no effect");
    }

    #[test]
    fn test_power_off_reserved_chars() {
        assert_reserved_chars_refused("off");
    }

    #[test]
    fn test_power_on() {
        let node = Node::enabled();
        assert_eq!((node.power("on"), node.bmc().orders("on")), (0, 0), "on when on has no effect");
        node.bmc().set_power(false);
        assert_eq!((node.power("on"), node.bmc().is_on()), (0, true));
    }

    #[test]
    fn test_set_bootdev() {
        let node = Node::enabled();
        let host = node.bmc().name();
        for (device, target) in [("pxe", "Pxe"), ("disk", "Hdd"), ("none", "None")] {
            assert_eq!(node.ctl(&["bmc", "bootdev", device, host]), 0, "{device}");
            assert_eq!(node.bmc().truth().boot.target, target);
        }
        assert_eq!(node.ctl(&["bmc", "bootdev", "A", host]), 2);
    }

    #[test]
    fn test_power_status() {
        let stage = Stage::with(&[null_node()]);
        stage.enable(NODE);
        stage.until(NODE, Power::On);
        let (status, row) = power(&stage.admin, NODE, "status");
        assert_eq!((status, &row["result"], &row["power"]), (200, &json!("read"), &json!("on")), "{row}");
        let code = stage.site.ctl(&["power", "status", NODE, "--exit-state"]).unwrap().code;
        assert_eq!(code, 0);
    }
}
