//! The main job end to end: a rack polled, seen centrally, commanded, over mutual-TLS MQTT.

use std::time::Duration;

use picket_tests::eventually::eventually;
use picket_tests::harness::{Site, hosts, simulator};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_rack_is_polled_seen_and_commanded() {
    let simulator = simulator("bmc", 2, 2).unwrap();
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    let _agent = site.join("r1").unwrap();
    site.import(&hosts(&simulator, "c1", "r1")).unwrap();
    for bmc in simulator.fleet().all() {
        site.until(bmc.name(), "power", "disabled", PATIENCE).unwrap();
        assert_eq!(site.ctl(&["oobm", "enable", "host", bmc.name()]).unwrap().code, 0);
    }
    for bmc in simulator.fleet().all() {
        site.until(bmc.name(), "power", if bmc.is_on() { "on" } else { "off" }, PATIENCE).unwrap();
    }
    for bmc in simulator.fleet().all() {
        let (action, wanted) = if bmc.is_on() { ("off", "off") } else { ("on", "on") };
        let answer = site.ctl(&["-o", "json", "power", action, bmc.name(), "--wait"]).unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(bmc.is_on(), wanted == "on");
        site.until(bmc.name(), "power", wanted, PATIENCE).unwrap();
        bmc.toggle();
        site.until(bmc.name(), "power", if wanted == "on" { "off" } else { "on" }, PATIENCE).unwrap();
        eventually(PATIENCE, || {
            let history = site.json(&["history", bmc.name()])?;
            let text = history.to_string();
            anyhow::ensure!(text.contains("operation-done") && text.contains("changed"), "{text}");
            Ok(())
        })
        .unwrap();
    }
    let summary: Value = site.json(&["summary"]).unwrap();
    assert_eq!(summary["hosts"]["on"], 2, "{summary}");
}
