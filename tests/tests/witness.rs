//! A host's witness as it is really run: joined with its own line, asked by the rack's agent, killed, started again.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::{Result, ensure};
use picket_tests::eventually::eventually;
use picket_tests::harness::{Site, hosts, simulator};
use picket_tests::ports;

const PATIENCE: Duration = Duration::from_secs(90);

fn until_ha(site: &Site, host: &str, holds: impl Fn(&str) -> bool) {
    let look = || -> Result<()> {
        let rows = site.json(&["ha", "show", host])?;
        let row = if rows.is_array() { &rows[0] } else { &rows };
        ensure!(row["state"].as_str().is_some_and(&holds), "{row}");
        Ok(())
    };
    eventually(PATIENCE, look).unwrap();
}

#[test]
fn a_witness_joins_and_speaks_for_its_host() {
    let simulator = simulator("n", 1, 0).unwrap();
    let bmc = &simulator.fleet().all()[0];
    bmc.set_power(true);
    let host = bmc.name();
    let site = Site::start().unwrap();
    site.place("z1", "c1", "r1").unwrap();
    // The host's silence is believed for the aggregator's port answers.
    let agent = site.join_with("r1", "r1", &format!("reference_addresses = [\"tcp://{}\"]\n", site.mqtt())).unwrap();
    site.import(&hosts(&simulator, "c1", "r1")).unwrap();

    let refused = site.ctl(&["agents", "token", "--host", "nobody"]).unwrap();
    assert!(refused.code != 0 && refused.err.contains("nobody"), "{refused:?}");
    let at = ports::tcp().unwrap();
    let beat = site.path("beat");
    let settings = format!("listen = \"{at}\"\nheartbeat = {{ path = \"{}\", interval = 1 }}\n", beat.display());
    let mut witness = site.witness(host, &settings).unwrap();
    eventually(PATIENCE, || {
        ensure!(beat.exists() && witness.log()?.contains("witness of this host"), "{}", witness.log()?);
        Ok(())
    })
    .unwrap();

    let ok = |words: &[&str]| {
        let answer = site.ctl(words).unwrap();
        assert_eq!(answer.code, 0, "{words:?}: {answer:?}");
    };
    ok(&["ha", "set", "host", host, &format!("health=witness:{at}")]);
    ok(&["oobm", "enable", "host", host]);
    ok(&["ha", "enable", "host", host]);
    until_ha(&site, host, |state| state == "available");
    witness.kill();
    until_ha(&site, host, |state| ["suspect", "checking", "degraded"].contains(&state));
    witness.start().unwrap();
    until_ha(&site, host, |state| state == "available");
    assert!(bmc.is_on(), "nothing was ordered");
    drop(agent);
    witness.stop().unwrap();
}
