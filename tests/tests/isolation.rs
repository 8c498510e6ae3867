//! One BMC costs the others nothing, and a refused password locks nobody out: a rack full of BMCs that hang at every step of
//! their protocols, and two hundred that refuse the login. Counted by the simulator.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use picket_tests::bmcsim::{BmcHandle, Profile, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, BY_HAND, Site, hosts, simulator, ways_to_hang};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);

/// Polls of the healthy hosts that are counted; at 1 s ± 20 % each.
const POLLS: u64 = 20;

/// A site with one rack, whose agent guards all BMCs of these simulators.
fn stand(simulators: &[&Simulator]) -> (Site, Agent) {
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let agent = site.join("r1").unwrap();
    for simulator in simulators {
        site.import(&hosts(simulator, "c1", "r1")).unwrap();
    }
    (site, agent)
}

fn enable<'a>(site: &Site, bmcs: impl IntoIterator<Item = &'a BmcHandle>) {
    let names: Vec<&str> = bmcs.into_iter().map(BmcHandle::name).collect();
    let answer = site.ctl(&[&["oobm", "enable", "host", "--yes"], names.as_slice()].concat()).unwrap();
    assert_eq!(answer.code, 0, "{answer:?}");
}

/// The two healthy hosts get their polls in the time that so many polls take, and are never stale.
fn assert_polled_on_time(site: &Site, healthy: &[BmcHandle]) {
    let reads = |bmc: &BmcHandle| bmc.counters().status_reads;
    let before: Vec<u64> = healthy.iter().map(reads).collect();
    // The longest that so many polls take, and as much again as two more: not one is missed on the way.
    let limit = Duration::from_millis(1200 * (POLLS + 2));
    eventually(limit, || {
        for (bmc, before) in healthy.iter().zip(&before) {
            let shown = site.host(bmc.name())?;
            assert_eq!(shown["stale"], false, "{shown}");
            let polls = reads(bmc) - before;
            ensure!(polls >= POLLS, "{}: only {polls} polls of {POLLS}", bmc.name());
        }
        Ok(())
    })
    .unwrap();
}

/// Trap T1.
#[test]
fn t01_a_hundred_bmcs_that_hang_at_every_step_do_not_delay_two_healthy_ones() {
    let hung = simulator("hung", 60, 40).unwrap();
    let well = simulator("well", 1, 1).unwrap();
    let (site, _agent) = stand(&[&hung, &well]);
    let ways = ways_to_hang();
    // Half of them fail from the start, the others in the middle of a session that was good.
    let (first, later): (Vec<_>, Vec<_>) = hung.fleet().all().iter().enumerate().partition(|(number, _)| number % 2 == 0);
    let fail = |bmcs: &[(usize, &BmcHandle)]| {
        for (number, bmc) in bmcs {
            bmc.set_faults(ways[number / 2 % ways.len()].clone());
            bmc.forget_sessions();
        }
    };
    fail(&first);
    enable(&site, hung.fleet().all().iter().chain(well.fleet().all()));
    for (_, bmc) in &later {
        site.until(bmc.name(), "management", "reachable", PATIENCE).unwrap();
    }
    fail(&later);
    for bmc in well.fleet().all() {
        site.until(bmc.name(), "power", if bmc.is_on() { "on" } else { "off" }, PATIENCE).unwrap();
    }
    assert_polled_on_time(&site, well.fleet().all());
    // The faults are real: half of the hundred cannot be read, the others hang at a step that their protocol does not have.
    eventually(PATIENCE, || {
        let unknown = site.json(&["summary"])?["hosts"]["unknown"].as_u64().context("no count")?;
        ensure!(unknown >= 40, "only {unknown} of the hung hosts are unknown");
        Ok(())
    })
    .unwrap();
    assert_polled_on_time(&site, well.fleet().all());
}

/// Logins with the wrong password: at an IPMI BMC it is the agent that gives up, after RAKP 2.
fn wrong_logins(bmc: &BmcHandle) -> u64 {
    let counters = bmc.counters();
    counters.logins_begun + counters.logins_refused
}

fn firing(site: &Site, kind: &str) -> Result<Vec<String>> {
    let alerts = site.json(&["alerts"])?;
    let of_kind = alerts.as_array().context("no list")?.iter().filter(|alert| alert["kind"] == kind);
    Ok(of_kind.map(|alert| alert["host"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Seen through polls, orders and a restart of the agent: nothing makes it try a third time. And trap T12: each host has its
/// alert, the first as the last.
#[test]
fn t12_two_hundred_wrong_passwords_mean_two_logins_and_one_alert_each() {
    let simulator = simulator("h", 100, 100).unwrap();
    let bmcs = simulator.fleet().all();
    for bmc in bmcs {
        assert!(bmc.set_password("admin", "somebody-changed-it"));
    }
    let (site, mut agent) = stand(&[&simulator]);
    enable(&site, bmcs);
    eventually(PATIENCE, || {
        let alerts = firing(&site, "bmc-auth-failed")?;
        ensure!(alerts.len() == bmcs.len(), "{} alerts of {}", alerts.len(), bmcs.len());
        Ok(())
    })
    .unwrap();
    let alerts = firing(&site, "bmc-auth-failed").unwrap();
    for bmc in bmcs {
        assert_eq!(alerts.iter().filter(|host| *host == bmc.name()).count(), 1, "{}", bmc.name());
    }
    for bmc in [&bmcs[0], &bmcs[199]] {
        let answer = site.ctl(&["-o", "json", "power", "off", bmc.name(), "--wait"]).unwrap();
        let row = answer.json().unwrap()[0].take();
        assert_eq!((&row["result"], &row["bmc_error"]["code"]), (&json!("failed"), &json!("auth-blocked")), "{row}");
    }
    agent.kill();
    agent.start().unwrap();
    until_heartbeats(&site, 3);
    for bmc in bmcs {
        let wrong = wrong_logins(bmc);
        assert!((1..=2).contains(&wrong), "{}: {wrong} logins with the wrong password", bmc.name());
    }
    for bmc in bmcs {
        assert!(bmc.set_password("admin", "password"));
    }
    // The right password is given anew: that, and nothing less, lets the agent try again.
    site.import(&hosts(&simulator, "c1", "r1")).unwrap();
    eventually(PATIENCE, || {
        let alerts = firing(&site, "bmc-auth-failed")?;
        ensure!(alerts.is_empty(), "{} still fire", alerts.len());
        Ok(())
    })
    .unwrap();
}

/// Waits until the agent was heard so often again: 5 s each.
fn until_heartbeats(site: &Site, times: usize) {
    let heard = || -> Result<Value> { Ok(site.json(&["agents", "show", "r1"])?["last_seen"].clone()) };
    for _ in 0..times {
        let before = heard().unwrap();
        eventually(PATIENCE, || {
            ensure!(heard()? != before, "not heard again");
            Ok(())
        })
        .unwrap();
    }
}

/// Counted by the BMCs, for every driver: polls, orders, tests and a killed agent bring no third wrong login, so that a BMC which
/// locks an account at the third has none to lock.
#[test]
fn t12_no_driver_tries_a_third_wrong_login() {
    let simulator = simulator("h", 3, 1).unwrap();
    let bmcs = simulator.fleet().all();
    for bmc in bmcs {
        bmc.set_profile(Profile { lockout_after: 3, lockout_ms: 3_600_000, ..bmc.profile() });
        assert!(bmc.set_password("admin", "somebody-changed-it"));
    }
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let mut agent = site.join_with("r1", "r1", BY_HAND).unwrap();
    let mut bodies = hosts(&simulator, "c1", "r1");
    bodies[1]["bmc"]["driver"] = json!("ipmitool");
    bodies[2]["bmc"]["driver"] = json!("exec");
    bodies[2]["bmc"]["options"] = json!({ "template": "by-hand" });
    site.import(&bodies).unwrap();
    enable(&site, bmcs);
    for bmc in bmcs {
        site.until(bmc.name(), "management", "auth-blocked", PATIENCE).unwrap();
    }
    agent.kill();
    agent.start().unwrap();
    until_heartbeats(&site, 1);
    for bmc in bmcs {
        for words in [&["power", "off", "--wait"][..], &["power", "status"], &["bmc", "test"]] {
            let answer = site.ctl(&[words, &[bmc.name()]].concat()).unwrap();
            assert_ne!(answer.code, 0, "{answer:?}");
        }
        assert_eq!(wrong_logins(bmc), 2, "{}", bmc.name());
        assert!(bmc.truth().users.iter().all(|user| !user.locked), "{}", bmc.name());
    }
}

/// Two refused logins in a row are what stops the next ones: one that works in between begins the count anew, as BMCs do it
/// themselves.
#[test]
fn t12_a_login_that_works_begins_the_count_anew() {
    let simulator = simulator("h", 0, 1).unwrap();
    let bmc = &simulator.fleet().all()[0];
    let (site, _agent) = stand(&[&simulator]);
    enable(&site, [bmc]);
    site.until(bmc.name(), "management", "reachable", PATIENCE).unwrap();
    let refused_once = || {
        let before = bmc.counters().logins_refused;
        // Its sessions end with the password.
        assert!(bmc.set_password("admin", "somebody-changed-it"));
        eventually(PATIENCE, || {
            ensure!(bmc.counters().logins_refused > before, "no login");
            Ok(())
        })
        .unwrap();
    };
    for _ in 0..3 {
        refused_once();
        assert!(bmc.set_password("admin", "password"));
        site.until(bmc.name(), "management", "degraded", PATIENCE).unwrap();
        site.until(bmc.name(), "management", "reachable", PATIENCE).unwrap();
    }
    assert_eq!((bmc.counters().logins_refused, firing(&site, "bmc-auth-failed").unwrap().len()), (3, 0));
    refused_once();
    site.until(bmc.name(), "management", "auth-blocked", PATIENCE).unwrap();
    until_heartbeats(&site, 1);
    assert_eq!((bmc.counters().logins_refused, firing(&site, "bmc-auth-failed").unwrap().len()), (5, 1));
}
