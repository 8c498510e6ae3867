//! Host-HA end to end: racks whose hosts die, in every way there is, and what the whole of Picket makes of it.

#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use picket_tests::bmcsim::{Faults, Refuse, Request};
use picket_tests::eventually::{all_the_while, eventually};
use picket_tests::harness::Site;
use picket_tests::watched::{PATIENCE, Watched};

const REFUSED: i32 = 6;

/// A BMC that refuses any power-off, as one does whose machine is off already.
fn refusing(on: Request, code: Option<u8>, status: Option<u16>) -> Faults {
    let message_id = status.map(|_| "Base.1.8.ActionNotSupported".to_owned());
    Faults { refuse: vec![Refuse { on, code, status, retry_after: None, message_id, times: None }], ..Faults::default() }
}

/// Seed 001: hosts powered off at the chassis while their BMCs stay up and refuse any power-off, each in its own way. They are
/// proven off, nothing is sent, and their consumer knows. How long it took is printed; that it takes less than a minute whenever in the
/// poll's interval it happens is shown in virtual time, by the agent's core (`a_host_that_is_switched_off_at_the_chassis_…`).
#[test]
#[expect(clippy::disallowed_methods, reason = "what is printed is the wall clock's")]
fn seed_001_a_host_that_loses_power_is_down() {
    // The settings of the site are the defaults, all of them.
    let mut stage = Watched::set(Site::start_with("").unwrap(), 24, 24, &[]);
    let victims: Vec<String> = [3, 30, 40].map(|index: usize| stage.bmcs()[index].name().to_owned()).into();
    let set = victims.join(",");
    stage.bmc(&victims[0]).set_faults(refusing(Request::ChassisControl, Some(0xD5), None));
    stage.bmc(&victims[1]).set_faults(refusing(Request::Reset, None, Some(409)));
    stage.bmc(&victims[2]).set_faults(refusing(Request::Reset, None, Some(400)));

    let lost = Instant::now();
    for victim in &victims {
        stage.bmc(victim).set_power(false);
        stage.living.kill(victim).unwrap();
    }
    let wanted: BTreeSet<String> = victims.iter().cloned().collect();
    let until_told = |status: &str| {
        eventually(PATIENCE, || {
            let told = stage.told(status)?;
            ensure!(told == wanted, "{status}: {told:?}, wanted {wanted:?}");
            Ok(())
        })
        .unwrap();
    };
    until_told("down");
    let took = lost.elapsed();
    eprintln!("from the loss to Down at a consumer: {took:?}");
    stage.until_ha(&set, "fenced", "down");

    // One alert each, and it stays at that.
    let one_each = |kind: &str| -> Result<()> {
        let alerts = stage.alerts(kind)?;
        let ids: BTreeSet<String> = alerts.iter().map(|(id, _)| id.clone()).collect();
        let wanted: BTreeSet<String> = victims.iter().map(|victim| format!("{kind}.{victim}")).collect();
        ensure!(alerts.len() == victims.len() && ids == wanted, "{alerts:?}");
        Ok(())
    };
    eventually(PATIENCE, || one_each("fence-succeeded")).unwrap();
    all_the_while(Duration::from_secs(15), || one_each("fence-succeeded")).unwrap();
    for kind in ["fence-failed", "fence-unconfirmed", "fence-refused", "bmc-contradiction", "cap-reached", "storm-held"] {
        assert_eq!(stage.alerts(kind).unwrap(), [], "{kind}");
    }
    assert_eq!(stage.orders(), 0, "nothing was sent");
    assert_eq!(stage.told("down").unwrap(), wanted, "and nobody else is down");
    let said = stage.everything_said(&victims).to_lowercase();
    for never in ["not configured", "not-configured"] {
        assert!(!said.contains(never), "{never}: {:?}", said.split('\n').find(|line| line.contains(never)));
    }

    // Somebody powers them on: they are not down any more, and that is told.
    victims.iter().for_each(|victim| stage.bmc(victim).set_power(true));
    eventually(PATIENCE, || {
        let told = stage.told("down")?;
        ensure!(told.is_empty(), "still down: {told:?}");
        one_each("fence-broken")
    })
    .unwrap();
    victims.iter().for_each(|victim| stage.living.revive(victim).unwrap());
    stage.ok(&["fence", "release", &set, "--reason", "the breaker is mended", "--wait", "--yes"]);
    stage.until_ha(&set, "available", "up");
    assert_eq!((stage.orders(), stage.alerts("fence-succeeded").unwrap().len()), (0, victims.len()));
}

/// What people say of fences, by `picketctl`: asked for, foretold, refused, vouched for, released; with its exit codes.
#[test]
fn people_fence_by_word() {
    let site = Site::start().unwrap();
    let settings = ["startup_quiet=0", "somewhere_to_go=no", "health_interval=1", "settle=5", "stable=5"];
    let mut stage = Watched::set(site, 2, 1, &settings);
    let names: Vec<String> = stage.bmcs().iter().map(|bmc| bmc.name().to_owned()).collect();
    let (first, second, third) = (names[0].as_str(), names[1].as_str(), names[2].as_str());

    // Asked only: nothing is sent. What the BMC is must have been learned.
    let plan = eventually(PATIENCE, || {
        let plan = stage.ctl(&["fence", "plan", first]);
        ensure!(plan.code == 0, "{plan:?}");
        Ok(plan.out)
    })
    .unwrap();
    assert!(plan.starts_with("GATE") && plan.contains("identity") && plan.contains("pass"), "{plan}");
    let paused = stage.ok(&["ha", "pause", "host", first, "--for", "1h", "--reason", "PDU"]);
    assert!(paused.contains("PDU"), "{paused}");
    eventually(PATIENCE, || {
        let plan = stage.ctl(&["-o", "json", "fence", "plan", first]);
        ensure!(plan.code == REFUSED && plan.out.contains("paused"), "{plan:?}");
        Ok(())
    })
    .unwrap();
    stage.ok(&["ha", "unpause", "host", first]);
    assert_eq!(stage.orders(), 0);
    let nobody = stage.ctl(&["fence", first, second, "--reason", "x"]);
    assert!(nobody.code == 2 && nobody.err.contains("--yes"), "{nobody:?}");

    // Ordered: off, and proven.
    stage.living.kill(first).unwrap();
    let fenced = stage.ok(&["fence", first, "--reason", "it beeps", "--wait", "-o", "csv", "--columns", "host,result"]);
    assert_eq!(fenced, format!("host,result\n{first},changed\n"));
    assert_eq!((stage.bmc(first).is_on(), stage.bmc(first).orders("off"), stage.orders()), (false, 1, 1));
    stage.until_ha(first, "fenced", "down");
    let explained = stage.ok(&["ha", "explain", first]);
    for part in ["fenced since", "host status down", "would end it", "an off was sent", "off at ", "GATE"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let on = stage.ctl(&["power", "on", first, "--wait"]);
    assert!(on.code == REFUSED && on.out.contains("fenced"), "{on:?}");
    stage.ok(&["fence", "release", first, "--reason", "mended", "--wait"]);
    stage.ok(&["power", "on", first, "--wait"]);
    stage.living.revive(first).unwrap();
    stage.until_ha(first, "available", "up");

    // Vouched for: not against the evidence, unless somebody insists.
    let vouched = |more: &[&str]| stage.ctl(&[&["fence", "confirm", second, "--reason", "I see it", "--wait"], more].concat());
    let refused = vouched(&[]);
    assert!(refused.code == REFUSED && refused.out.contains("On"), "{refused:?}");
    assert_eq!(vouched(&["--force"]).code, 0);
    let history = stage.ok(&["-o", "json", "history", second]);
    assert!(history.contains("fenced"), "{history}");
    stage.ok(&["fence", "release", second, "--reason", "a slip", "--wait"]);
    stage.until_ha(second, "available", "up");

    // Ended before it was proven: the BMC acknowledges and does nothing.
    stage.bmc(third).set_faults(Faults { ignore: vec![picket_tests::bmcsim::Action::Off], ..Faults::default() });
    stage.ok(&["fence", third, "--reason", "x", "--no-wait"]);
    stage.until_ha(third, "fencing", "disconnected");
    stage.ok(&["fence", "abort", third, "--reason", "wrong one", "--wait"]);
    eventually(PATIENCE, || {
        let row = stage.site.json(&["ha", "show", third])?;
        ensure!(row[0]["state"] != "fencing" && row[0]["host_status"] != "down", "{row}");
        Ok(())
    })
    .unwrap();
    assert!(stage.bmc(third).is_on());
    stage.ok(&["ha", "reset-counters", first, "--reason", "tested", "--wait"]);
    assert_eq!(stage.ctl(&["fence", "r99n-0001", "--reason", "x", "--wait"]).code, 8);
}
