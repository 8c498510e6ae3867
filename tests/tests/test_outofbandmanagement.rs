//! The integration suite of Apache CloudStack's out-of-band management (`test/integration/smoke/test_outofbandmanagement.py`),
//! scenario by scenario under its own names, against the BMC it was written for: `ipmisim`, as `admin`/`password`.
//!
//! Where Picket differs on purpose: `enable` and `disable` name their scope, a port is a number, and the owner of a host is
//! the agent of its rack.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::{Result, ensure};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Answer, Site, host_body, hosts, simulator};
use picket_tests::peers::ipmisim::Ipmisim;
use picket_tests::peers::{Power, User};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const HOST: &str = "h1";

/// Exit codes of `picketctl`.
const OK: i32 = 0;
const USAGE: i32 = 2;
const NONE_SUCCEEDED: i32 = 3;
const REFUSED: i32 = 6;
const NOT_FOUND: i32 = 8;

/// A zone, a cluster, a rack with its agent, and one `ipmisim`.
struct Stage {
    site: Site,
    agent: Agent,
    bmc: Ipmisim,
}

impl Stage {
    fn empty() -> Self {
        let bmc = Ipmisim::start().unwrap();
        let site = Site::start().unwrap();
        site.place("z1", "c1", "r1").unwrap();
        let agent = site.join("r1").unwrap();
        Self { site, agent, bmc }
    }

    /// The host has its BMC settings.
    fn configured() -> Self {
        let stage = Self::empty();
        stage.site.import(&[stage.host_body(&Ipmisim::admin())]).unwrap();
        stage
    }

    /// Configured, enabled, and seen as it is.
    fn enabled(power: Power) -> Self {
        let mut stage = Self::configured();
        stage.bmc.set_power(power).unwrap();
        gate(&stage.site, "enable", "host", HOST);
        stage.until_power(&power.to_string());
        stage
    }

    fn host_body(&self, user: &User) -> Value {
        host_body(HOST, "c1", "r1", "ipmi", self.bmc.address(), (&user.name, &user.password))
    }

    fn until_power(&self, power: &str) {
        self.site.until(HOST, "power", power, PATIENCE).unwrap();
    }

    /// One power action, waited for: exit code and row.
    fn issue(&self, action: &str) -> (i32, Value) {
        let answer = self.site.ctl(&["-o", "json", "power", action, HOST, "--wait"]).unwrap();
        (answer.code, answer.json().unwrap()[0].take())
    }

    /// STATUS has to say this.
    fn assert_issue_status(&self, power: &str) {
        let (code, row) = self.issue("status");
        assert_eq!((code, &row["power"]), (OK, &json!(power)), "{row}");
    }

    /// An action that has to be granted and verified; then STATUS, the view and the BMC itself say the same.
    fn assert_issue(&self, action: &str, power: Power) {
        let (code, row) = self.issue(action);
        assert_eq!((code, &row["result"]), (OK, &json!("changed")), "{action}: {row}");
        self.assert_issue_status(&power.to_string());
        self.until_power(&power.to_string());
        assert_eq!(self.bmc.power().unwrap(), power, "{action}: the BMC itself");
    }

    fn assert_status_refused(&self, refusal: &str) {
        let (code, row) = self.issue("status");
        assert_eq!((code, &row["result"]), (REFUSED, &json!("refused")), "{row}");
        assert!(row["detail"].as_str().unwrap().contains(refusal), "not {refusal}: {row}");
    }
}

fn gate(site: &Site, verb: &str, scope: &str, id: &str) {
    let answer = site.ctl(&["oobm", verb, scope, id, "--yes"]).unwrap();
    assert_eq!(answer.code, OK, "{verb} {scope} {id}: {answer:?}");
}

fn call(site: &Site, method: &str, path: &str, body: &Value) -> Answer {
    site.ctl_with(&["api", method, path, "--data", "-"], &body.to_string()).unwrap()
}

/// Everything that can be wrong with the id of a scope.
fn assert_feature_invalid(verb: &str) {
    let stage = Stage::empty();
    for scope in ["host", "cluster", "zone"] {
        let negative = call(&stage.site, "POST", &format!("/v1/{scope}s/-1/oobm/{verb}"), &json!({}));
        assert!([USAGE, NOT_FOUND].contains(&negative.code), "{verb} {scope} -1: {negative:?}");
        let missing = stage.site.ctl(&["oobm", verb, scope, "--yes"]).unwrap();
        assert_eq!(missing.code, USAGE, "{verb} {scope} without an id: {missing:?}");
        let unknown = stage.site.ctl(&["oobm", verb, scope, "nowhere", "--yes"]).unwrap();
        assert_eq!(unknown.code, NOT_FOUND, "{verb} {scope}: {unknown:?}");
    }
}

#[test]
fn test_oobm_configure_invalid_driver() {
    let stage = Stage::empty();
    let mut body = stage.host_body(&Ipmisim::admin());
    body["bmc"]["driver"] = json!("randomdriver");
    body.as_object_mut().unwrap().remove("id");
    let answer = call(&stage.site, "PUT", "/v1/hosts/h1", &body);
    assert_eq!(answer.code, USAGE, "{answer:?}");
    assert!(answer.err.contains("bmc.driver") && answer.err.contains("randomdriver"), "{answer:?}");
    assert_eq!(stage.site.ctl(&["hosts", "show", HOST]).unwrap().code, NOT_FOUND, "a refused host was made");
}

#[test]
fn test_oobm_configure_default_driver() {
    let stage = Stage::configured();
    let host = stage.site.host(HOST).unwrap();
    let address = stage.bmc.address();
    assert_eq!(host["id"], HOST);
    let found = &host["bmc"];
    let (driver, ip, port, user) = (&found["driver"], &found["address"], &found["port"], &found["username"]);
    assert_eq!((driver, ip), (&json!("ipmi"), &json!(address.ip())), "{host}");
    assert_eq!((port, user), (&json!(address.port()), &json!("admin")), "{host}");
    assert!(!host.to_string().contains("\"password\":"), "the password is echoed: {host}");
}

#[test]
fn test_oobm_enable_feature_invalid() {
    assert_feature_invalid("enable");
}

#[test]
fn test_oobm_disable_feature_invalid() {
    assert_feature_invalid("disable");
}

#[test]
fn test_oobm_enable_feature_valid() {
    let stage = Stage::configured();
    let answer = call(&stage.site, "POST", "/v1/hosts/h1/oobm/enable", &json!({})).json().unwrap();
    assert_eq!((&answer["id"], &answer["oobm_enabled"]), (&json!(HOST), &json!(true)), "{answer}");
}

#[test]
fn test_oobm_disable_feature_valid() {
    let stage = Stage::enabled(Power::On);
    let answer = call(&stage.site, "POST", "/v1/hosts/h1/oobm/disable", &json!({})).json().unwrap();
    assert_eq!((&answer["id"], &answer["oobm_enabled"]), (&json!(HOST), &json!(false)), "{answer}");
    let host = stage.site.host(HOST).unwrap();
    assert_eq!((&host["power"], &host["oobm_enabled"]), (&json!("disabled"), &json!(false)), "{host}");
}

/// The row that the original forces to On in the database is forged by a unit test here
/// (`fleet::enablement::tests::a_row_that_contradicts_its_gates_is_repaired`); this test restarts the aggregator instead.
#[test]
fn test_oobm_enabledisable_across_clusterzones() {
    let mut stage = Stage::enabled(Power::Off);
    for (scope, id) in [("zone", "z1"), ("cluster", "c1"), ("host", HOST)] {
        gate(&stage.site, "disable", scope, id);
    }
    stage.assert_status_refused("zone");
    gate(&stage.site, "enable", "zone", "z1");
    stage.assert_status_refused("cluster");
    stage.until_power("disabled");
    stage.site.stop_aggregator().unwrap();
    stage.site.start_aggregator().unwrap();
    stage.until_power("disabled");
    stage.assert_status_refused("cluster");
    gate(&stage.site, "enable", "cluster", "c1");
    stage.assert_status_refused("host");
    gate(&stage.site, "enable", "host", HOST);
    stage.assert_issue_status("off");
}

#[test]
fn test_oobm_issue_power_status() {
    let stage = Stage::enabled(Power::On);
    stage.assert_issue_status("on");
}

#[test]
fn test_oobm_issue_power_on() {
    Stage::enabled(Power::Off).assert_issue("on", Power::On);
}

#[test]
fn test_oobm_issue_power_off() {
    Stage::enabled(Power::On).assert_issue("off", Power::Off);
}

#[test]
fn test_oobm_issue_power_cycle() {
    Stage::enabled(Power::On).assert_issue("cycle", Power::On);
}

#[test]
fn test_oobm_issue_power_reset() {
    Stage::enabled(Power::On).assert_issue("reset", Power::On);
}

#[test]
fn test_oobm_issue_power_soft() {
    Stage::enabled(Power::On).assert_issue("soft", Power::Off);
}

#[test]
fn test_oobm_background_powerstate_sync() {
    let mut stage = Stage::enabled(Power::On);
    stage.bmc.set_power(Power::Off).unwrap();
    stage.until_power("off");
    stage.bmc.set_power(Power::On).unwrap();
    stage.until_power("on");
    stage.bmc.stop();
    stage.until_power("unknown");
    assert_eq!(stage.site.json(&["op", "list"]).unwrap(), json!([]), "nobody called");
}

/// Ownership lies with the agent that joined last for the rack: the one before is gone, and when it comes back it owns nothing.
#[test]
fn test_oobm_multiple_mgmt_server_ownership() {
    let mut stage = Stage::enabled(Power::On);
    let owner = |stage: &Stage| stage.site.host(HOST).unwrap()["agent"].clone();
    let epoch = |stage: &Stage| stage.site.json(&["racks", "show", "r1"]).unwrap()["epoch"].as_u64().unwrap();
    assert_eq!(owner(&stage), "r1");
    let before = epoch(&stage);
    stage.agent.kill();
    let live = stage.site.join_as("r1", "r1-live").unwrap();
    assert_eq!(owner(&stage), "r1-live");
    assert!(epoch(&stage) > before, "a take-over without a newer epoch");
    // The password was sealed to the lost owner, so the new one cannot have it: it is given again.
    let answer = stage.site.ctl_with(&["hosts", "set", HOST, "--password-stdin"], "password").unwrap();
    assert_eq!(answer.code, OK, "{answer:?}");
    stage.until_power("on");
    stage.agent.start().unwrap();
    stage.bmc.set_power(Power::Off).unwrap();
    stage.until_power("off");
    assert_eq!(owner(&stage), "r1-live");
    stage.assert_issue("on", Power::On);
    assert_eq!(stage.bmc.actions().unwrap(), ["power_on"], "ordered by more than the owner");
    drop(live);
}
/// At a BMC of our own simulator: `ipmisim` falls silent when a session for the change is opened.
#[test]
fn test_oobm_zchange_password() {
    let simulator = simulator("h", 1, 0).unwrap();
    let bmc = &simulator.fleet().all()[0];
    bmc.set_power(true);
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let _agent = site.join("r1").unwrap();
    site.import(&hosts(&simulator, "c1", "r1")).unwrap();
    gate(&site, "enable", "host", bmc.name());
    site.until(bmc.name(), "power", "on", PATIENCE).unwrap();

    let path = format!("/v1/hosts/{}/bmc/change-password", bmc.name());
    let answer = site.api("POST", &path, Some(&json!({ "password": "Kv3-otter" }))).unwrap();
    let operation = answer["id"].as_str().unwrap_or_else(|| panic!("not accepted: {answer}")).to_owned();
    let done = site.json(&["op", "wait", &operation]).unwrap();
    assert_eq!(done["hosts"][0]["result"], "changed", "{done}");
    let status = || {
        let answer = site.ctl(&["-o", "json", "power", "status", bmc.name(), "--wait"]).unwrap();
        (answer.code, answer.json().unwrap()[0].take())
    };
    let (code, row) = status();
    assert_eq!((code, &row["power"]), (OK, &json!("on")), "{row}");

    // The old password again: the BMC has the new one, so logins are refused and exactly one alert says so.
    let set = |password: &str| {
        let answer = site.ctl_with(&["hosts", "set", bmc.name(), "--password-stdin"], password).unwrap();
        assert_eq!(answer.code, OK, "{answer:?}");
    };
    set("password");
    site.until(bmc.name(), "management", "auth-blocked", PATIENCE).unwrap();
    let (code, row) = status();
    assert_eq!((code, &row["result"]), (NONE_SUCCEEDED, &json!("failed")), "{row}");
    auth_alerts(&site, 1).unwrap();
    set("Kv3-otter");
    site.until(bmc.name(), "power", "on", PATIENCE).unwrap();
    auth_alerts(&site, 0).unwrap();
}

/// Waits until so many `bmc-auth-failed` alerts fire.
fn auth_alerts(site: &Site, wanted: usize) -> Result<()> {
    eventually(PATIENCE, || {
        let alerts = site.json(&["alerts"])?;
        let firing = alerts.as_array().into_iter().flatten().filter(|alert| alert["kind"] == "bmc-auth-failed").count();
        ensure!(firing == wanted, "{firing} alerts: {alerts}");
        Ok(())
    })
}
