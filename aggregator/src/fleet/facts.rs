//! What BMCs are and can do, as agents learned it; and which machine is taken for the right one. Raises no alert: whoever does asks
//! [`FactsRow::identity_differs`].

use std::sync::Arc;

use picket_common::api::HistoryWhat;
use picket_common::clock::Now;
use picket_common::id::HostId;
use picket_common::wire::report::FactsReport;

use super::view::{FactsRow, HostRow, Row, RowKey};
use super::{Fleet, Record};

impl Fleet {
    /// Facts were learned, at first contact or at a test. The identity of the first contact is pinned.
    pub(super) fn facts_report(&mut self, host: &Arc<HostRow>, id: String, report: FactsReport, now: Now) {
        let FactsReport { revision, observed_at, facts, .. } = report;
        let before = self.view.facts.get(&host.id).cloned();
        // One that never was would make all that is learned after it look overtaken, even by another agent.
        let pending = self.view.pending.get(&host.id).map_or(0, |pending| pending.revision);
        let revision = revision.min(host.bmc.as_ref().map_or(0, |bmc| bmc.revision).max(pending));
        // Learned with settings that were in force before: of another BMC, or overtaken.
        if before.as_ref().is_some_and(|row| revision < row.revision.max(row.least_revision)) {
            self.counters.ignored += 1;
            return;
        }
        let at = observed_at.timestamp();
        let row = FactsRow {
            host: host.id.clone(),
            pinned: before.as_ref().and_then(|row| row.pinned.clone()).or_else(|| facts.identity.clone()),
            least_revision: before.as_ref().map_or(0, |row| row.least_revision),
            facts,
            revision,
            observed_at: at,
        };
        let is_news = before
            .as_ref()
            .is_none_or(|before| before.facts.identity != row.facts.identity || before.facts.firmware != row.facts.firmware);
        if is_news {
            let what = HistoryWhat::Facts {
                identity: row.facts.identity.clone(),
                firmware: row.facts.firmware.clone(),
                identity_differs: row.identity_differs(),
            };
            self.history(&host.id, Some(id), at, what, now);
        }
        self.keep_facts(row);
        self.settle_alerts(host, at, now);
    }

    /// The machine that answered last is the right one from now on.
    pub(super) fn repin(&mut self, host: &HostId, now: Now) {
        let Some(facts) = self.view.facts.get(host).cloned() else { return };
        self.keep_facts(FactsRow { pinned: facts.facts.identity.clone(), ..(*facts).clone() });
        if let Some(row) = self.view.hosts.get(host).cloned() {
            self.settle_alerts(&row, now.wall, now);
        }
    }

    /// A host's settings changed: what was learned at another address, or by another driver, must not be taken for its facts.
    pub(super) fn settle_facts(&mut self, before: &HostRow, host: &HostId) {
        let place = |row: &HostRow| row.bmc.as_ref().map(|bmc| (bmc.driver.clone(), bmc.address.clone()));
        let Some(row) = self.view.hosts.get(host) else { return };
        let (moved, revision) = (place(before) != place(row), row.bmc.as_ref().map_or(0, |bmc| bmc.revision));
        if let Some(facts) = self.view.facts.get(host).filter(|_| moved).cloned() {
            self.keep_facts(FactsRow { least_revision: revision, ..(*facts).clone() });
        }
    }

    pub(super) fn forget_facts(&mut self, host: &HostId) {
        if self.view.facts.remove(host).is_some() {
            self.draft.records.push(Record::Remove(RowKey::Facts(host.clone())));
        }
    }

    fn keep_facts(&mut self, row: FactsRow) {
        if let Some(host) = self.view.hosts.get(&row.host).cloned() {
            self.concern_ha_host(&host);
        }
        self.draft.put(Row::Facts(row.clone()));
        self.view.facts.insert(row.host.clone(), Arc::new(row));
    }
}

#[cfg(test)]
mod tests {
    use picket_common::api::Field;
    use picket_common::facts::Facts;
    use picket_common::wire::report::Report;

    use super::super::Request;
    use super::super::request::{BmcChange, HostChange};
    use super::super::testing::*;
    use super::*;

    fn learned(world: &World, identity: &str, firmware: &str, back: u64) -> Report {
        let revision = world.fleet.view().hosts[&id::<HostId>("h1")].bmc.as_ref().unwrap().revision - back;
        let facts = Facts { identity: Some(identity.into()), firmware: Some(firmware.into()), ..Facts::default() };
        Report::Facts(FactsReport { host: id("h1"), revision, observed_at: world.wire_now(), facts })
    }

    fn lines(world: &World) -> Vec<(Option<String>, Option<String>, bool)> {
        let line = |what| match what {
            HistoryWhat::Facts { identity, firmware, identity_differs } => Some((identity, firmware, identity_differs)),
            _ => None,
        };
        world.history_of("h1").into_iter().filter_map(line).collect()
    }

    fn line(identity: &str, firmware: &str, differs: bool) -> (Option<String>, Option<String>, bool) {
        (Some(identity.into()), Some(firmware.into()), differs)
    }

    fn facts(world: &World) -> FactsRow {
        (**world.fleet.view().facts.get(&id::<HostId>("h1")).unwrap()).clone()
    }

    fn patch(bmc: BmcChange) -> Request {
        Request::PatchHost(id("h1"), HostChange { bmc: Field::Set(bmc), ..HostChange::default() })
    }

    #[test]
    fn the_first_machine_is_pinned_and_another_one_is_told_apart() {
        let mut world = World::running(1);
        world.report("r1", vec![learned(&world, "guid-1", "1.0", 0)]);
        world.report("r1", vec![learned(&world, "guid-1", "1.0", 0)]);
        assert_eq!(lines(&world), [line("guid-1", "1.0", false)], "the same facts are no news");
        world.report("r1", vec![learned(&world, "guid-1", "1.1", 0)]);
        world.report("r1", vec![learned(&world, "guid-2", "1.1", 0)]);
        assert_eq!(lines(&world)[1..], [line("guid-1", "1.1", false), line("guid-2", "1.1", true)]);
        assert!(facts(&world).identity_differs());
        world.restart();
        assert_eq!(facts(&world).pinned.as_deref(), Some("guid-1"));
        world.ask(patch(BmcChange { repin: true, ..BmcChange::default() })).unwrap();
        assert_eq!((facts(&world).pinned.as_deref(), facts(&world).identity_differs()), (Some("guid-2"), false));
        world.ask(Request::DeleteHost(id("h1"))).unwrap();
        assert!(world.fleet.view().facts.is_empty());
    }

    #[test]
    fn facts_of_another_address_are_ignored() {
        let mut world = World::running(1);
        world.report("r1", vec![learned(&world, "guid-1", "1.0", 0)]);
        world.ask(patch(BmcChange { address: Field::Set("10.0.0.9".into()), ..BmcChange::default() })).unwrap();
        world.report("r1", vec![learned(&world, "guid-9", "1.0", 1)]);
        assert_eq!(facts(&world).facts.identity.as_deref(), Some("guid-1"));
        world.report("r1", vec![learned(&world, "guid-9", "1.0", 0)]);
        assert!(facts(&world).identity_differs());
    }

    #[test]
    fn a_revision_that_never_was_does_not_shut_out_what_comes_after() {
        let mut world = World::running(1);
        let Report::Facts(report) = learned(&world, "guid-1", "1.0", 0) else { panic!() };
        world.report("r1", vec![Report::Facts(FactsReport { revision: u64::MAX, ..report })]);
        world.report("r1", vec![learned(&world, "guid-2", "1.0", 0)]);
        assert_eq!(facts(&world).facts.identity.as_deref(), Some("guid-2"));
    }
}
