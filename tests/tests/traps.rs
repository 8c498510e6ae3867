//! Traps that real systems fell into (T6, T11, T13, T15, T19, T20, T21), with whole daemons and every driver that talks to a BMC. T1 and
//! T12 are in `isolation.rs`, T17 in `process_drivers.rs`; the pure cores have tests of the same names.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use picket_common::api::Operation;
use picket_tests::bmcsim::{BmcHandle, Faults, Profile, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{BY_HAND, simulator};
use picket_tests::judged::{Bmc, By, PATIENCE, Stand, all_on, stand, stand_with};
use rustix::process::Signal;
use serde_json::{Value, json};

const DRIVERS: [&str; 4] = ["ipmi", "redfish", "ipmitool", "exec"];

/// A host of each driver, named after it, at a BMC of its own; all on and seen.
struct Stage {
    stand: Stand,
    simulator: Simulator,
}

impl Stage {
    fn set() -> Self {
        let simulator = simulator("t", 3, 1).unwrap();
        simulator.fleet().all().iter().for_each(|bmc| bmc.set_power(true));
        let options = |driver| if driver == "exec" { json!({ "template": "by-hand" }) } else { json!({}) };
        let by = DRIVERS.map(|driver| By { bmc: bmc_of(&simulator, driver).clone(), driver, options: options(driver) });
        let hosts: Vec<(&str, &dyn Bmc)> = by.iter().map(|by| (by.driver, by as &dyn Bmc)).collect();
        Self { stand: stand_with(BY_HAND, &hosts), simulator }
    }

    fn bmc(&self, driver: &str) -> &BmcHandle {
        bmc_of(&self.simulator, driver)
    }

    fn set_faults(&self, of_ipmi: &Value, of_redfish: &Value) {
        for driver in DRIVERS {
            let faults = if driver == "redfish" { of_redfish } else { of_ipmi };
            self.bmc(driver).set_faults(serde_json::from_value(faults.clone()).unwrap());
        }
    }

    /// Waits until all hosts have this state, within one and the same time.
    fn until(&self, power: &str, limit: Duration) {
        eventually(limit, || {
            let listed = self.stand.site.json(&["hosts", "list"])?;
            let hosts = listed.as_array().context("no list")?;
            ensure!(hosts.len() == DRIVERS.len() && hosts.iter().all(|host| host["power"] == power), "not {power}: {listed}");
            Ok(())
        })
        .unwrap();
    }
}

fn bmc_of<'a>(simulator: &'a Simulator, driver: &str) -> &'a BmcHandle {
    let all = simulator.fleet().all();
    match driver {
        "ipmi" => &all[0],
        "ipmitool" => &all[1],
        "exec" => &all[2],
        _ => &all[3],
    }
}

/// The states that a host's power went through, oldest first.
fn states(stand: &Stand, host: &str) -> Vec<String> {
    let history = stand.site.json(&["history", host, "--limit", "1000"]).unwrap();
    let lines = history.as_array().unwrap().iter().rev().filter(|line| line["kind"] == "power");
    lines.map(|line| line["new"].as_str().unwrap().to_owned()).collect()
}

fn while_read(bmc: &BmcHandle, times: u64) {
    let begun = bmc.counters().status_reads;
    eventually(PATIENCE, || {
        let reads = bmc.counters().status_reads - begun;
        ensure!(reads >= times, "{} was read only {reads} times", bmc.name());
        Ok(())
    })
    .unwrap();
}

/// The host that cannot change comes first of all, and holds up nobody.
#[test]
fn t06_a_zone_with_a_host_that_cannot_change_is_disabled_all_the_same() {
    let simulator = simulator("t", 2, 1).unwrap();
    let hosts = all_on(&simulator);
    let Stand { site, .. } = &stand(&hosts);
    assert_eq!(site.ctl(&["hosts", "add", "bare", "--cluster", "c1", "--rack", "r1"]).unwrap().code, 0);
    for (word, power) in [("disable", "disabled"), ("enable", "on")] {
        let answer = site.ctl(&["oobm", word, "zone", "z1", "--yes"]).unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
        for (host, _) in &hosts {
            site.until(host, "power", power, PATIENCE).unwrap();
        }
        assert_eq!(site.host("bare").unwrap()["power"], "disabled");
    }
}

/// A BMC that is unplugged leaves no stale On: one interval with its jitter, the longest a request may take (10 s), and what a busy
/// machine adds.
#[test]
fn t11_unplugged_every_driver_says_unknown_within_an_interval_and_a_timeout() {
    let stage = Stage::set();
    let faults = json!({ "unplug": "silent" });
    stage.set_faults(&faults, &faults);
    stage.until("unknown", Duration::from_millis(1_200 + 10_000 + 5_000));
    for driver in DRIVERS {
        let shown = stage.stand.site.host(driver).unwrap();
        assert!(shown["error"]["driver"] == driver && shown["management"] != "reachable", "{shown}");
    }
    stage.set_faults(&json!({}), &json!({}));
    stage.until("on", PATIENCE);
}

/// An off that reaches the agent after its deadline, when the host is well again, is not done.
#[test]
fn t13_a_late_off_expires_and_reaches_no_bmc() {
    let simulator = simulator("t", 1, 1).unwrap();
    let bmcs = simulator.fleet().all();
    bmcs.iter().for_each(|bmc| bmc.set_power(true));
    let hosts: Vec<(&str, &dyn Bmc)> = bmcs.iter().map(|bmc| (bmc.name(), bmc as &dyn Bmc)).collect();
    let mut stand = stand(&hosts);
    stand.agent.signal(Signal::STOP).unwrap();
    let operations: Vec<Operation> = bmcs.iter().map(|bmc| ordered(&stand, bmc.name(), "off", 2)).collect();
    let deadline = operations.iter().map(|operation| operation.deadline.as_millisecond()).max().unwrap();
    eventually(PATIENCE, || {
        ensure!(now_ms()? > u128::try_from(deadline)? + 200, "not late yet");
        Ok(())
    })
    .unwrap();
    stand.agent.signal(Signal::CONT).unwrap();
    for (bmc, operation) in bmcs.iter().zip(&operations) {
        eventually(PATIENCE, || {
            let shown = stand.site.json(&["op", "show", &operation.id.to_string()])?;
            ensure!(shown["hosts"][0]["result"] == "expired", "{shown}");
            Ok(())
        })
        .unwrap();
        while_read(bmc, 3);
        assert_eq!((bmc.orders("off"), bmc.counters().orders, bmc.is_on()), (0, 0, true), "{}", bmc.name());
    }
    // One in time is done.
    let (code, row) = stand.power(bmcs[0].name(), &["off"]);
    assert_eq!((code, bmcs[0].orders("off")), (0, 1), "{row}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a deadline is a time of the wall clock, and the test is outside the daemons' clocks"
)]
fn now_ms() -> anyhow::Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())
}

fn ordered(stand: &Stand, host: &str, operation: &str, timeout: u64) -> Operation {
    let body = json!({ "operation": operation, "timeout": timeout });
    let made = stand.site.api("POST", &format!("/v1/hosts/{host}/power"), Some(&body)).unwrap();
    serde_json::from_value(made.clone()).with_context(|| made.to_string()).unwrap()
}

/// What a BMC says when it is in trouble is Unknown, never Off: refusals, a BMC that boots, half an answer, no state, no JSON.
#[test]
fn t15_trouble_is_unknown_and_never_off() {
    let stage = Stage::set();
    let refuses = |code: &str| json!({ "refuse": [{ "on": "chassis-status", "code": code }] });
    let says = |word: &str| json!({ "lie": { "readings": [word], "repeat": true } });
    for (of_ipmi, of_redfish) in [
        (refuses("0xC3"), json!({ "refuse": [{ "on": "system", "status": 500 }] })),
        (refuses("0xFF"), says("absent")),
        (refuses("0xD4"), says("null")),
        (refuses("0xC0"), json!({ "garble": 1.0 })),
        (refuses("0xC1"), json!({ "refuse": [{ "on": "system", "status": 404 }] })),
    ] {
        stage.set_faults(&of_ipmi, &of_redfish);
        stage.until("unknown", PATIENCE);
        stage.set_faults(&json!({}), &json!({}));
        stage.until("on", PATIENCE);
    }
    for driver in DRIVERS {
        let states = states(&stage.stand, driver);
        assert!(states.iter().filter(|state| *state == "unknown").count() >= 5, "{driver}: {states:?}");
        assert!(!states.contains(&"off".to_owned()), "{driver}: {states:?}");
    }
}

/// What a driver found out reaches operation, host, alert, event and log as it was said, not as "not configured".
#[test]
fn t19_the_drivers_own_error_reaches_operation_host_alert_event_and_log() {
    let stage = Stage::set();
    let stand = &stage.stand;
    stage.set_faults(
        &json!({ "refuse": [{ "on": "chassis-control", "code": "0xD4" }] }),
        &json!({ "refuse": [{ "on": "reset", "status": 403, "message_id": "Base.1.0.InsufficientPrivilege" }] }),
    );
    for (driver, code) in [("ipmi", "privilege-0xd4"), ("redfish", "http-403")] {
        let (exit, row) = stand.power(driver, &["off"]);
        let error = &row["bmc_error"];
        assert_eq!(
            (exit, &row["result"], &error["driver"], &error["code"]),
            (3, &json!("failed"), &json!(driver), &json!(code)),
            "{row}"
        );
    }
    let (_, row) = stand.power("ipmitool", &["off"]);
    assert!(row["bmc_error"]["driver"] == "ipmitool" && row["bmc_error"]["code"] == "0xd4", "{row}");
    // What a failure of a program of the site's own means, nobody knows but it: it is told in its words.
    let id = ordered(stand, "exec", "off", 3).id.to_string();
    eventually(PATIENCE, || {
        let shown = stand.site.json(&["op", "show", &id])?;
        let part = &shown["hosts"][0];
        ensure!(part["result"] == "unknown" && part["detail"].to_string().contains("Insufficient privilege level"), "{shown}");
        Ok(())
    })
    .unwrap();
    stage.set_faults(&json!({}), &json!({}));
    for driver in DRIVERS {
        stand.set_password(driver, "not-the-password");
        stand.site.until(driver, "management", "auth-blocked", PATIENCE).unwrap();
        let host = stand.site.host(driver).unwrap();
        let error = &host["error"];
        assert_eq!((&error["driver"], &error["class"]), (&json!(driver), &json!("auth")), "{host}");
        eventually(PATIENCE, || {
            let alerts = stand.site.json(&["alerts", "--host", driver, "--kind", "bmc-auth-failed"])?;
            ensure!(alerts[0]["bmc_error"] == *error, "{alerts} instead of {error}");
            Ok(())
        })
        .unwrap();
        let history = stand.site.json(&["history", driver]).unwrap().to_string();
        let (code, log) = (error["code"].as_str().unwrap(), stand.agent.log().unwrap());
        assert!(history.contains(code), "{driver}: not in its history: {history}");
        assert!(log.contains(code), "{driver}: {code} is not in the log");
    }
}

/// On its way is neither On nor Off: the state stays as it was, and nothing is told.
#[test]
fn t20_powering_off_is_not_off_and_powering_on_not_on() {
    let simulator = simulator("t", 0, 1).unwrap();
    let bmc = &simulator.fleet().all()[0];
    bmc.set_power(true);
    let stand = stand(&[("h1", bmc)]);
    let says = |words: &[&str]| serde_json::from_value::<Faults>(json!({ "lie": { "readings": words, "repeat": true } })).unwrap();
    let stays = |state: &str| {
        let before = states(&stand, "h1");
        for words in [&["powering-off"][..], &["powering-on"], &["paused"]] {
            bmc.set_faults(says(words));
            while_read(bmc, 2);
            let host = stand.site.host("h1").unwrap();
            assert_eq!((&host["power"], &host["management"]), (&json!(state), &json!("reachable")), "{words:?}: {host}");
        }
        assert_eq!(states(&stand, "h1"), before);
        bmc.clear_faults();
    };
    stays("on");
    bmc.set_power(false);
    stand.site.until("h1", "power", "off", PATIENCE).unwrap();
    stays("off");
}

/// A hard off is hard, or it fails: never a graceful shutdown in its place.
#[test]
fn t21_off_is_never_graceful() {
    let stage = Stage::set();
    for driver in DRIVERS {
        let bmc = stage.bmc(driver);
        let (code, row) = stage.stand.power(driver, &["off"]);
        assert_eq!((code, bmc.orders("off"), bmc.orders("soft"), bmc.is_on()), (0, 1, 0, false), "{driver}: {row}");
        let (code, row) = stage.stand.power(driver, &["on"]);
        assert_eq!(code, 0, "{driver}: {row}");
    }
    let bmc = stage.bmc("redfish");
    let only = ["On", "GracefulShutdown", "GracefulRestart"].map(String::from).to_vec();
    bmc.set_profile(Profile { reset_types: only, ..bmc.profile() });
    bmc.forget_sessions();
    let (code, row) = stage.stand.power("redfish", &["off"]);
    assert_ne!(code, 0, "{row}");
    assert!(["failed", "refused"].contains(&row["result"].as_str().unwrap()), "{row}");
    assert_eq!((bmc.orders("soft"), bmc.is_on()), (0, true), "{row}");
}
