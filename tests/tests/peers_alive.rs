//! Each foreign program starts, tells its power to an independent client, obeys it, stops and comes back.
//!
//! Says nothing about Picket: when one of these fails, the machine lacks something (`tests/install`).

use anyhow::{Result, ensure};
use picket_tests::eventually::eventually;
use picket_tests::peers::certificate::Authority;
use picket_tests::peers::curl::Curl;
use picket_tests::peers::ipmi_sim::IpmiSim;
use picket_tests::peers::ipmipower::Ipmipower;
use picket_tests::peers::ipmisim::Ipmisim;
use picket_tests::peers::ipmitool::Ipmitool;
use picket_tests::peers::mosquitto::{Broker, Mosquitto};
use picket_tests::peers::mosquitto_pub::publish;
use picket_tests::peers::mosquitto_sub::MosquittoSub;
use picket_tests::peers::sushy::Sushy;
use picket_tests::peers::{Power, PowerAction, Suite, User};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

fn shows(power: Power, mut ask: impl FnMut() -> Result<Power>) -> Result<()> {
    eventually(LIMIT, || {
        let found = ask()?;
        ensure!(found == power, "{found} instead of {power}");
        Ok(())
    })
}

#[test]
fn ipmi_sim_obeys_both_clients_and_notes_each_action_once() -> Result<()> {
    let bmc = IpmiSim::start()?;
    let ipmitool = Ipmitool::new(bmc.address(), &IpmiSim::admin())?;
    let ipmipower = Ipmipower::new(bmc.address(), &IpmiSim::operator())?.open_session_privilege();
    assert_eq!(bmc.power()?, Power::On);

    ipmitool.act(PowerAction::Off)?;
    assert_eq!((bmc.power()?, ipmipower.power()?, bmc.chassis_power()?), (Power::Off, Power::Off, Power::Off));
    ipmipower.act(PowerAction::On)?;
    assert_eq!((bmc.power()?, bmc.chassis_power()?), (Power::On, Power::On));
    ipmitool.act(PowerAction::Reset)?;
    ipmitool.act(PowerAction::Soft)?;
    assert_eq!(bmc.power()?, Power::Off);
    assert_eq!(bmc.actions()?, ["power 0", "power 1", "reset 1", "shutdown 1"]);

    bmc.set_power(Power::On)?;
    assert_eq!(bmc.power()?, Power::On, "a change by hand is seen");
    assert_eq!(bmc.actions()?.len(), 4, "and is no action");
    Ok(())
}

#[test]
fn ipmi_sim_takes_its_time_when_told_to() -> Result<()> {
    let bmc = IpmiSim::start()?;
    bmc.set_delay(Duration::from_millis(700))?;
    Ipmitool::new(bmc.address(), &IpmiSim::operator())?.act(PowerAction::Off)?;
    assert_eq!(bmc.chassis_power()?, Power::On, "accepted is not done");
    bmc.settled(Power::Off, LIMIT)?;
    assert_eq!(bmc.power()?, Power::Off);
    Ipmitool::new(bmc.address(), &IpmiSim::operator())?.act(PowerAction::Cycle)?;
    bmc.settled(Power::On, LIMIT)?;
    assert_eq!(bmc.actions()?, ["power 0", "power 0", "power 1"]);
    Ok(())
}

#[test]
fn ipmi_sim_refuses_suite_17_and_strangers_and_comes_back() -> Result<()> {
    let mut bmc = IpmiSim::start()?;
    let seventeen = Ipmitool::new(bmc.address(), &IpmiSim::operator())?.suite(Suite::Seventeen);
    let error = format!("{:#}", seventeen.power().unwrap_err());
    assert!(error.contains("invalid authentication algorithm"), "{error}");
    Ipmitool::new(bmc.address(), &User::new("operator", "wrong"))?.power().unwrap_err();
    let stranger = Ipmipower::new(bmc.address(), &User::new("operator", "wrong"))?.open_session_privilege();
    let error = format!("{:#}", stranger.power().unwrap_err());
    assert!(error.contains("password"), "{error}");

    bmc.set_power(Power::Off)?;
    bmc.stop();
    bmc.power().unwrap_err();
    bmc.set_power(Power::On)?;
    bmc.restart()?;
    assert_eq!(bmc.power()?, Power::On, "the chassis outlives its BMC");
    Ok(())
}

#[test]
fn ipmisim_obeys_ipmitool_and_comes_back() -> Result<()> {
    let mut bmc = Ipmisim::start()?;
    let client = Ipmitool::new(bmc.address(), &Ipmisim::operator())?;
    assert_eq!((client.power()?, bmc.power()?), (Power::On, Power::On));
    client.act(PowerAction::Off)?;
    assert_eq!((client.power()?, bmc.power()?), (Power::Off, Power::Off));
    assert_eq!(bmc.actions()?, ["power_off"]);
    bmc.set_power(Power::On)?;
    assert_eq!(client.power()?, Power::On, "a change by hand is seen");
    Ipmitool::new(bmc.address(), &User::new("operator", "wrong"))?.power().unwrap_err();

    bmc.stop();
    bmc.power().unwrap_err();
    client.power().unwrap_err();
    bmc.restart()?;
    assert_eq!(client.power()?, Power::On);
    Ok(())
}

#[test]
fn sushy_obeys_curl_over_tls_and_comes_back() -> Result<()> {
    let mut emulator = Sushy::start_with(2)?;
    assert_eq!(emulator.power()?, Power::On);
    emulator.set_power(Power::Off)?;
    shows(Power::Off, || emulator.power())?;
    assert_eq!(emulator.curl().power(&emulator.systems()[1])?, Power::On, "the other system is untouched");

    let stranger = emulator.curl().with_user(&User::new("admin", "wrong"));
    assert_eq!(stranger.get("/redfish/v1/Systems")?.status, 401);
    assert_eq!(emulator.curl().get("/redfish/v1/SessionService")?.status, 404);

    assert_eq!(Curl::insecure(emulator.address(), &Sushy::admin()).get("/redfish/v1/Systems")?.status, 200);

    emulator.stop();
    emulator.power().unwrap_err();
    emulator.restart()?;
    assert_eq!(emulator.power()?, Power::Off);
    emulator.set_power(Power::On)?;
    shows(Power::On, || emulator.power())
}

#[test]
fn mosquitto_clients_meet_over_mutual_tls() -> Result<()> {
    let mosquitto = Mosquitto::start()?;
    publish(&mosquitto.broker("writer")?, "rack/r1", r#"{"power":"on"}"#, true)?;
    let subscription = MosquittoSub::start(&mosquitto.broker("reader")?, "rack/#")?;
    publish(&mosquitto.broker("writer")?, "rack/r2", "two\nlines \"quoted\"", false)?;

    let messages = subscription.wait_for(LIMIT, |messages| {
        ensure!(messages.len() == 2, "{messages:?}");
        Ok(messages.to_vec())
    })?;
    assert_eq!((messages[0].topic.as_str(), messages[0].retain, messages[0].json()?["power"].as_str()), ("rack/r1", 1, Some("on")));
    assert_eq!((messages[1].payload.as_str(), messages[1].retain, messages[1].qos), ("two\nlines \"quoted\"", 0, 1));
    Ok(())
}

#[test]
fn mosquitto_clients_are_refused_without_a_certificate_of_the_authority() -> Result<()> {
    let mut mosquitto = Mosquitto::start()?;
    let anonymous = Broker { identity: None, ..mosquitto.broker("reader")? };
    MosquittoSub::start(&anonymous, "#").unwrap_err();
    let folder = tempfile::tempdir()?;
    let foreign = Broker { identity: Some(Authority::new(folder.path())?.client("reader")?), ..mosquitto.broker("reader")? };
    publish(&foreign, "rack/r1", "on", false).unwrap_err();
    mosquitto.stop();
    publish(&mosquitto.broker("writer")?, "rack/r1", "on", false).unwrap_err();
    mosquitto.restart()?;
    publish(&mosquitto.broker("writer")?, "rack/r1", "on", false)
}
