//! One BMC costs the others nothing, and a refused password locks nobody out: a rack full of BMCs that hang at every step of
//! their protocols, and two hundred that refuse the login. Counted by the simulator.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use picket_tests::bmcsim::{BmcHandle, Simulator};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Agent, Site, hosts, simulator, ways_to_hang};
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
