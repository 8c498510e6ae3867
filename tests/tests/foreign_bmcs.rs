//! The whole of Picket in front of BMC software that is not ours, judged by clients that are not ours either: OpenIPMI's
//! `ipmi_sim` by `ipmitool`, `ipmisim` by its own state, sushy-tools' emulator by `curl`; and our simulator by the same.

use picket_tests::bmcsim::BmcHandle;
use picket_tests::harness::simulator;
use picket_tests::judged::{CHANGES, ORDERS, PATIENCE, all_on, stand};
use picket_tests::peers::ipmi_sim::IpmiSim;
use picket_tests::peers::ipmisim::Ipmisim;
use picket_tests::peers::ipmitool::Ipmitool;
use picket_tests::peers::sushy::Sushy;
use picket_tests::peers::{Power, Suite, orders};

#[test]
fn ipmi_sim_does_every_operation_once() {
    let bmc = IpmiSim::start().unwrap();
    stand(&[("h1", &bmc)]).operates("h1", &bmc);
    let once = ["power 0", "power 1", "power 0", "power 1", "reset 1", "shutdown 1", "power 1"];
    assert_eq!(orders(bmc.actions().unwrap()), once);
}

/// It refuses suite 17, so everything else here is done with suite 3; told to insist on 17, Picket says why it cannot.
#[test]
fn ipmi_sim_is_reached_by_falling_back_from_suite_17() {
    let bmc = IpmiSim::start().unwrap();
    let of_17 = Ipmitool::new(bmc.address(), &IpmiSim::operator()).unwrap().suite(Suite::Seventeen);
    assert!(of_17.power().is_err(), "it takes suite 17 after all");
    let stand = stand(&[("h1", &bmc)]);
    let suite = |suite: &str| stand.site.ctl(&["hosts", "set", "h1", "--option", &format!("cipher_suite={suite}")]).unwrap();
    assert_eq!(suite("17").code, 0);
    stand.site.until("h1", "power", "unknown", PATIENCE).unwrap();
    let shown = stand.site.host("h1").unwrap();
    assert_eq!(shown["error"]["class"], "setting", "{shown}");
    assert!(shown["error"]["text"].as_str().unwrap().contains("17"), "{shown}");
    for wanted in ["3", "auto"] {
        assert_eq!(suite(wanted).code, 0);
        stand.site.until("h1", "power", "on", PATIENCE).unwrap();
        stand.agrees("h1", &bmc, Power::On, wanted);
    }
}

#[test]
fn ipmi_sim_with_a_wrong_password_and_away() {
    let mut bmc = IpmiSim::start().unwrap();
    let stand = stand(&[("h1", &bmc)]);
    stand.is_blocked_by_a_wrong_password("h1", &bmc);
    stand.is_unknown_while_its_bmc_is_away("h1", &mut bmc);
}

#[test]
fn ipmisim_does_every_operation_once() {
    let bmc = Ipmisim::start().unwrap();
    stand(&[("h1", &bmc)]).operates("h1", &bmc);
    let once = ["power_off", "power_on", "power_off", "power_on", "power_reset", "power_shutdown", "power_on"];
    assert_eq!(orders(bmc.actions().unwrap()), once);
}

#[test]
fn ipmisim_with_a_wrong_password_and_away() {
    let mut bmc = Ipmisim::start().unwrap();
    let stand = stand(&[("h1", &bmc)]);
    stand.is_blocked_by_a_wrong_password("h1", &bmc);
    stand.is_unknown_while_its_bmc_is_away("h1", &mut bmc);
}

/// Two systems behind one BMC: the host is the one its settings name, and the other is left alone.
#[test]
fn sushy_does_every_operation_on_the_named_system() {
    let bmc = Sushy::start_with(2).unwrap();
    stand(&[("h1", &bmc)]).operates("h1", &bmc);
    assert_eq!(bmc.curl().power(&bmc.systems()[1]).unwrap(), Power::On);
}

#[test]
fn sushy_with_a_wrong_password_and_away() {
    let mut bmc = Sushy::start().unwrap();
    let stand = stand(&[("h1", &bmc)]);
    stand.is_blocked_by_a_wrong_password("h1", &bmc);
    stand.is_unknown_while_its_bmc_is_away("h1", &mut bmc);
}

#[test]
fn our_simulator_does_every_operation_once() {
    let simulator = simulator("bmc", 2, 2).unwrap();
    let stand = stand(&all_on(&simulator));
    for bmc in simulator.fleet().all().iter().filter(|bmc| bmc.ipmi().is_some()) {
        assert_eq!(logins(bmc), ["suite-17"], "{}: one login, the stronger suite first", bmc.name());
    }
    std::thread::scope(|scope| {
        for bmc in simulator.fleet().all() {
            let stand = &stand;
            scope.spawn(move || {
                let before = bmc.changes().len();
                stand.operates(bmc.name(), bmc);
                assert_eq!((bmc.changes().len() - before, bmc.truth().resets), (CHANGES, 1), "{}", bmc.name());
                for (order, times) in ORDERS {
                    assert_eq!(bmc.orders(order), *times, "{}: {order}", bmc.name());
                }
            });
        }
    });
}

#[test]
fn our_simulator_with_a_wrong_password_and_away() {
    let simulator = simulator("bmc", 1, 1).unwrap();
    let stand = stand(&all_on(&simulator));
    std::thread::scope(|scope| {
        for bmc in simulator.fleet().all() {
            let stand = &stand;
            scope.spawn(move || {
                stand.is_blocked_by_a_wrong_password(bmc.name(), bmc);
                stand.is_unknown_while_its_bmc_is_away(bmc.name(), &mut bmc.clone());
            });
        }
    });
}

/// How the logins so far ended.
fn logins(bmc: &BmcHandle) -> Vec<String> {
    bmc.calls(0).into_iter().filter(|call| call.action == "login").map(|call| call.result).collect()
}
