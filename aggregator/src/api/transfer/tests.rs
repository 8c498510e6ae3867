//! What is exported is read back as it was, in both forms, whatever the words are.

use std::collections::BTreeMap;

use picket_common::api::{BmcBody, BmcRecord, HostBody, HostRecord};
use proptest::prelude::*;

use super::entry::Given;
use super::export::written;
use super::form::Form;
use super::import::testing::read;

fn id() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9._-]{0,12}"
}

/// Words with all that means something in CSV, JSON or a map's cell.
fn words() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[ a-z0-9,;=\"'\\\\\\n\\r\\täß€#@{}\\[\\]]{1,12}").unwrap()
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(words(), prop_oneof![Just(String::new()), words()], 0..4)
}

/// Names and addresses have no spaces around them; there is always one of the two.
fn bmc() -> impl Strategy<Value = BmcRecord> {
    let driver = proptest::option::of("[a-z]{1,8}");
    (driver, "[a-z0-9.:_-]{1,20}", any::<Option<u16>>(), proptest::option::of(words()), map()).prop_map(
        |(driver, address, port, username, options)| BmcRecord { driver, address: Some(address), port, username, options },
    )
}

fn host() -> impl Strategy<Value = HostRecord> {
    let places = (id(), id(), id(), id());
    let numbers = (any::<Option<u64>>(), any::<Option<u64>>());
    (places, any::<(bool, bool)>(), proptest::option::of(bmc()), numbers, map()).prop_map(
        |((id, zone, cluster, rack), (oobm_enabled, maintenance), bmc, (poll_interval, action_timeout), labels)| HostRecord {
            id: id.parse().unwrap(),
            zone: zone.parse().unwrap(),
            cluster: cluster.parse().unwrap(),
            rack: rack.parse().unwrap(),
            oobm_enabled,
            bmc,
            maintenance,
            poll_interval,
            action_timeout,
            labels,
        },
    )
}

/// A host that was read, as it would be exported.
fn record(id: picket_common::id::HostId, given: Given) -> HostRecord {
    let HostBody { cluster, zone, rack, bmc, maintenance, poll_interval, action_timeout, labels, ha: _ } = given.body;
    let bmc = bmc.map(|bmc| {
        let BmcBody { driver, address, port, username, password, options } = bmc;
        assert!(password.is_none(), "no password was written");
        BmcRecord { driver, address, port, username, options: options.unwrap_or_default() }
    });
    let oobm_enabled = given.oobm.unwrap();
    let zone = zone.unwrap();
    HostRecord { id, zone, cluster, rack, oobm_enabled, bmc, maintenance, poll_interval, action_timeout, labels }
}

proptest! {
    #[test]
    fn what_is_exported_is_imported_as_it_was(hosts in proptest::collection::vec(host(), 1..5)) {
        let hosts: BTreeMap<_, _> = hosts.into_iter().map(|host| (host.id.clone(), host)).collect();
        let hosts: Vec<HostRecord> = hosts.into_values().collect();
        for form in [Form::Table, Form::Lines] {
            let head = if form == Form::Table { super::table::head() } else { Vec::new() };
            let text = [head, written(form, &hosts)].concat();
            let entries = read(&text).unwrap();
            let read: Vec<HostRecord> =
                entries.into_iter().map(|entry| record(entry.id.unwrap(), entry.host.unwrap())).collect();
            prop_assert_eq!(&read, &hosts, "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), table in any::<bool>()) {
        let head: &[u8] = if table { b"id,cluster,rack,labels\n" } else { b"[" };
        let text = [head, &bytes].concat();
        if let Ok(entries) = read(&text) {
            let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
            prop_assert!(entries.iter().all(|entry| (1..=lines).contains(&entry.line)));
        }
    }
}
