//! What is asked of BMCs beyond power, by the whole of Picket, in front of BMC software that is not ours and of our simulator:
//! after each, a client that shares nothing with Picket looks whether it is so.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use anyhow::ensure;
use picket_tests::bmcsim::{BmcHandle, Led, Profile};
use picket_tests::eventually::eventually;
use picket_tests::harness::simulator;
use picket_tests::judged::{PATIENCE, Stand, all_on, stand};
use picket_tests::peers::curl::Curl;
use picket_tests::peers::ipmi_sim::IpmiSim;
use picket_tests::peers::ipmisim::Ipmisim;
use picket_tests::peers::ipmitool::Ipmitool;
use picket_tests::peers::sushy::Sushy;
use picket_tests::peers::{Suite, User};
use serde_json::{Value, json};

/// One operation on one host to its end; how it ended.
fn asks(stand: &Stand, host: &str, operation: &Value) -> Value {
    let mut body = operation.clone();
    body["hosts"] = json!([host]);
    let accepted = stand.site.api("POST", "/v1/operations", Some(&body)).unwrap();
    let id = accepted["id"].as_str().unwrap_or_else(|| panic!("{host} {operation}: {accepted}")).to_owned();
    let mut ended = Value::Null;
    eventually(PATIENCE, || {
        let mut shown = stand.site.api("GET", &format!("/v1/operations/{id}"), None)?;
        ensure!(shown["done"] == true, "not done: {shown}");
        ended = shown["hosts"][0].take();
        Ok(())
    })
    .unwrap();
    ended
}

fn succeeds(stand: &Stand, host: &str, operation: &Value) {
    let ended = asks(stand, host, operation);
    assert_eq!(ended["result"], "changed", "{host} {operation}: {ended}");
}

/// What Picket knows of a BMC after it was asked.
fn facts(stand: &Stand, host: &str) -> Value {
    let ended = asks(stand, host, &json!({"operation": "test"}));
    assert!(["read", "changed"].contains(&ended["result"].as_str().unwrap()), "{host}: {ended}");
    stand.site.host(host).unwrap()["facts"].take()
}

fn boot(device: &str, persistence: &str) -> Value {
    json!({"operation": "bootdev", "device": device, "persistence": persistence})
}

fn identify(seconds: u16) -> Value {
    json!({"operation": "identify", "seconds": seconds})
}

fn has(facts: &Value, list: &str, word: &str) -> bool {
    facts[list].as_array().unwrap().contains(&word.into())
}

#[test]
fn ipmi_sim_identifies_boots_and_says_who_it_is() {
    let bmc = IpmiSim::start().unwrap();
    let stand = stand(&[("h1", &bmc)]);
    let independent = Ipmitool::new(bmc.address(), &IpmiSim::admin()).unwrap().administrator();
    succeeds(&stand, "h1", &identify(20));
    succeeds(&stand, "h1", &identify(0));
    assert_eq!(bmc.actions().unwrap(), ["identify 20 0", "identify 0 0"], "each once");
    for (device, shown) in [("pxe", "Force PXE"), ("bios", "Force Boot into BIOS Setup"), ("none", "No override")] {
        succeeds(&stand, "h1", &boot(device, "once"));
        let read = independent.run(&["chassis", "bootparam", "get", "5"]).unwrap();
        assert!(read.contains(shown), "{device}: {read}");
    }
    let facts = facts(&stand, "h1");
    let info = independent.run(&["mc", "info"]).unwrap();
    let manufacturer = facts["manufacturer"].as_str().unwrap().trim_start_matches("IANA ").to_owned();
    assert!(info.contains(&format!("Manufacturer ID           : {manufacturer}")), "{facts} {info}");
    assert_eq!(facts["protocol"], "IPMI 2.0, cipher suite 3", "{facts}");
    assert!(has(&facts, "warnings", "cipher-suite-3") && has(&facts, "capabilities", "bootdev"), "{facts}");
    assert!(facts["identity"].is_string(), "{facts}");
    // It has no diagnostic interrupt, and Picket says so.
    let ended = asks(&stand, "h1", &json!({"operation": "diag"}));
    assert_eq!((&ended["result"], &ended["refusal"]), (&json!("refused"), &json!("not-supported")), "{ended}");
}

/// The sloppiest of them answers only what the simplest client asks; Picket asks it who it is and goes on polling.
#[test]
fn ipmisim_survives_being_asked_who_it_is() {
    let bmc = Ipmisim::start().unwrap();
    let stand = stand(&[("h1", &bmc)]);
    let facts = facts(&stand, "h1");
    assert_eq!(facts["protocol"], "IPMI 2.0, cipher suite 3", "{facts}");
    stand.site.until("h1", "power", "on", PATIENCE).unwrap();
    stand.site.until("h1", "management", "reachable", PATIENCE).unwrap();
}

#[test]
fn sushy_lights_boots_and_says_who_it_is() {
    let bmc = Sushy::start().unwrap();
    let stand = stand(&[("h1", &bmc)]);
    let system = || bmc.curl().system(&bmc.systems()[0]).unwrap();
    for (device, persistence, target, enabled) in
        [("disk", "persistent", "Hdd", "Continuous"), ("pxe", "persistent", "Pxe", "Continuous")]
    {
        succeeds(&stand, "h1", &boot(device, persistence));
        let shown = system()["Boot"].take();
        let shown = [&shown["BootSourceOverrideTarget"], &shown["BootSourceOverrideEnabled"]];
        assert_eq!(shown, [target, enabled], "{device} {persistence}");
    }
    // It keeps every override for good, and Picket, which reads back, says that this is not what was asked.
    let ended = asks(&stand, "h1", &boot("disk", "once"));
    assert_eq!((&ended["result"], &ended["bmc_error"]["code"]), (&json!("failed"), &json!("not-taken")), "{ended}");
    for (seconds, led) in [(30, "Lit"), (0, "Off")] {
        succeeds(&stand, "h1", &identify(seconds));
        assert_eq!(system()["IndicatorLED"], led);
    }
    let facts = facts(&stand, "h1");
    assert_eq!(facts["identity"], system()["UUID"].as_str().unwrap().to_lowercase(), "{facts}");
    assert!(has(&facts, "warnings", "basic-authentication") && has(&facts, "warnings", "identify-has-no-timer"), "{facts}");
    assert!(facts["certificate"].as_str().is_some_and(|hash| hash.len() == 64), "{facts}");
    assert!(!has(&facts, "capabilities", "change-password"), "it has no account service: {facts}");
}

/// What is recorded of one action, over IPMI or Redfish.
fn recorded(bmc: &BmcHandle, action: &str) -> Vec<String> {
    bmc.calls(0).into_iter().filter(|call| call.action == action).map(|call| call.result).collect()
}

#[test]
fn our_simulator_does_each_once_and_independent_clients_see_it() {
    let simulator = simulator("bmc", 1, 2).unwrap();
    let bmcs = simulator.fleet().all();
    bmcs[2].set_profile(Profile { led: Led::Indicator, weak_etags: true, needs_if_match: true, ..bmcs[2].profile() });
    bmcs[0].set_profile(Profile { manufacturer_id: 10876, product_id: 0x0901, restore_policy: 2, ..bmcs[0].profile() });
    let stand = stand(&all_on(&simulator));
    let user = User::new("admin", "password");
    std::thread::scope(|scope| {
        for bmc in bmcs {
            let (stand, user) = (&stand, &user);
            scope.spawn(move || {
                let name = bmc.name();
                succeeds(stand, name, &identify(200));
                assert!(bmc.truth().identify, "{name}");
                succeeds(stand, name, &identify(0));
                assert!(!bmc.truth().identify, "{name}");
                succeeds(stand, name, &boot("disk", "persistent"));
                let boot = bmc.truth().boot;
                let of_supermicro = bmc.ipmi().is_some();
                let disk = if of_supermicro { "RemoteDrive" } else { "Hdd" };
                assert_eq!((boot.target.as_str(), boot.enabled.as_str()), (disk, "Continuous"), "{name}");
                succeeds(stand, name, &json!({"operation": "diag"}));
                assert_eq!((bmc.orders("diag"), bmc.truth().diags), (1, 1), "{name}");
                let facts = facts(stand, name);
                assert_eq!(facts["identity"], bmc.truth().uuid.to_string(), "{name}: {facts}");
                match (bmc.ipmi(), bmc.redfish()) {
                    (Some(address), _) => {
                        let independent = Ipmitool::new(address, user).unwrap().suite(Suite::Seventeen);
                        let read = independent.run(&["chassis", "bootparam", "get", "5"]).unwrap();
                        assert!(read.contains("all future boots") && read.contains("BIOS EFI boot"), "{read}");
                        assert_eq!(recorded(bmc, "identify"), ["on-200s", "off"]);
                        assert_eq!(facts["quirks"], json!(["uefidisk"]), "{facts}");
                        assert!(has(&facts, "warnings", "power-restore-always-on"), "{facts}");
                        assert_eq!((&facts["manufacturer"], &facts["privilege"]), (&json!("Supermicro"), &json!("operator")));
                    }
                    (None, Some(address)) => {
                        let shown = Curl::insecure(address, user).system("1").unwrap();
                        assert_eq!(shown["Boot"]["BootSourceOverrideTarget"], "Hdd");
                        assert_eq!(recorded(bmc, "identify"), ["on", "off"]);
                        assert_eq!(facts["privilege"], "Administrator", "{facts}");
                        assert_eq!(facts["certificate"], bmc.fingerprint().unwrap(), "{facts}");
                        assert!(facts["protocol"].as_str().unwrap().ends_with("TLS 1.3, session"), "{facts}");
                        assert_eq!(has(&facts, "quirks", "weak-etag"), bmc.profile().weak_etags, "{facts}");
                    }
                    (None, None) => panic!("{name} has no address"),
                }
                assert!(has(&facts, "capabilities", "change-password"), "{facts}");
            });
        }
    });
}
