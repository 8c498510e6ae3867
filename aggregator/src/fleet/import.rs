//! The hosts of a file, put in one step: all are checked against the fleet as it is, then done in one transaction, or none is.

use std::collections::BTreeMap;

use picket_common::api::{AuditEntry, AuditResult};
use picket_common::clock::Now;
use picket_common::command::Refusal;
use picket_common::id::RackId;
use picket_common::wire::assign::MAX_HOSTS;

use super::request::{Answer, Gate, Import, ImportedHost, Put, Rejection, Request, Way};
use super::settings::{PlannedHost, rack_is_full};
use super::summary::host_line;
use super::{Fleet, Record};

/// A host of an import that can be.
struct Planned {
    host: PlannedHost,
    oobm: Option<bool>,
}

impl Planned {
    fn outcome(&self) -> Put {
        let Some(before) = &self.host.before else { return Put::Created };
        let turns = self.oobm.is_some_and(|open| before.oobm.unwrap_or(false) != open);
        if turns || **before != self.host.row { Put::Changed } else { Put::Unchanged }
    }
}

impl Fleet {
    /// Puts the hosts of an import, as its way is.
    pub(super) fn import_hosts(&mut self, import: Import, now: Now) -> Result<Answer, Rejection> {
        let Import { hosts, way } = import;
        let planned = self.plan_import(hosts, now);
        let refusals = planned.iter().enumerate().filter_map(|(place, host)| Some((place, host.as_ref().err()?.clone())));
        let refused: Vec<(usize, Rejection)> = refusals.collect();
        if way == Way::Whole && !refused.is_empty() {
            return Err(Rejection::Hosts(refused));
        }
        let done = planned.into_iter().map(|planned| match way {
            Way::Check => planned.map(|planned| planned.outcome()),
            Way::Whole | Way::Each => planned.and_then(|planned| self.put_imported(planned, now)),
        });
        Ok(Answer::Imported(done.collect()))
    }

    /// No host of a file changes what another one's place is, but for the room in a rack.
    fn plan_import(&self, hosts: Vec<ImportedHost>, now: Now) -> Vec<Result<Planned, Rejection>> {
        let mut coming = BTreeMap::new();
        let plan = |host: ImportedHost| {
            let ImportedHost { id, spec, oobm } = host;
            let host = self.plan_host(id, spec, now)?;
            if oobm == Some(true) && host.row.bmc.is_none() {
                return Err(Rejection::Refused(Refusal::HostNotConfigured));
            }
            self.take_room(&host, &mut coming)?;
            Ok(Planned { host, oobm })
        };
        hosts.into_iter().map(plan).collect()
    }

    fn take_room(&self, host: &PlannedHost, coming: &mut BTreeMap<RackId, usize>) -> Result<(), Rejection> {
        let there = self.view.rack_hosts.get(&host.row.rack);
        if there.is_some_and(|hosts| hosts.contains(&host.row.id)) {
            return Ok(());
        }
        let coming = coming.entry(host.row.rack.clone()).or_default();
        if there.map_or(0, imbl::OrdSet::len) + *coming >= MAX_HOSTS {
            return Err(rack_is_full(&host.row.rack));
        }
        *coming += 1;
        Ok(())
    }

    fn put_imported(&mut self, planned: Planned, now: Now) -> Result<Put, Rejection> {
        let (outcome, id) = (planned.outcome(), planned.host.row.id.clone());
        self.put_planned(planned.host, now);
        if let Some(open) = planned.oobm {
            self.set_oobm(&Gate::Host(id), open, now)?;
        }
        Ok(outcome)
    }
}

/// What an import says of each host, for the audit log: the resource, and what it is to be.
pub(super) fn about(request: &Request) -> Vec<(String, Option<String>)> {
    match request {
        Request::ImportHosts(import) => {
            import.hosts.iter().map(|host| (format!("host/{}", host.id), host_line(&host.spec, host.oobm))).collect()
        }
        _ => Vec::new(),
    }
}

/// A line of the audit log for each host that an import made or changed, beside that of the import.
pub(super) fn audit(
    entry: &AuditEntry,
    about: Vec<(String, Option<String>)>,
    done: &[Result<Put, Rejection>],
    now: Now,
) -> Vec<Record> {
    let line = |((resource, summary), done): ((String, Option<String>), &Result<Put, Rejection>)| {
        let put = done.as_ref().is_ok_and(|put| *put != Put::Unchanged);
        let line = || AuditEntry { at: now.wall, resource: Some(resource), summary, result: AuditResult::Granted, ..entry.clone() };
        put.then(line).map(|line| Record::Audit(Box::new(line)))
    };
    about.into_iter().zip(done).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use picket_common::id::HostId;
    use picket_common::power::PowerState;

    use super::super::Terms;
    use super::super::request::HostSpec;
    use super::super::testing::*;
    use super::super::view::HostRow;
    use super::*;

    fn host(name: &str, spec: HostSpec) -> ImportedHost {
        ImportedHost { id: id(name), spec, oobm: None }
    }

    fn row(world: &World, name: &str) -> Option<HostRow> {
        world.fleet.view().hosts.get(&id::<HostId>(name)).map(|row| (**row).clone())
    }

    fn import(world: &mut World, way: Way, hosts: Vec<ImportedHost>) -> Result<Vec<String>, Vec<usize>> {
        match world.ask(Request::ImportHosts(Import { hosts, way })) {
            Ok(Answer::Imported(done)) => {
                Ok(done.iter().map(|done| done.as_ref().map_or_else(ToString::to_string, |put| format!("{put:?}"))).collect())
            }
            Err(Rejection::Hosts(refused)) => Err(refused.iter().map(|(place, _)| *place).collect()),
            other => panic!("{other:?}"),
        }
    }

    fn ipmi_host(name: &str, address: &str) -> ImportedHost {
        host(name, spec("c1", "r1", Some(ipmi(address))))
    }

    #[test]
    fn an_import_is_whole_or_nothing() {
        let mut world = World::running(1);
        let before = world.rows.clone();
        let hosts = vec![ipmi_host("a1", "10.1.0.1"), ipmi_host("a2", "not an address"), host("a3", spec("c9", "r1", None))];
        assert_eq!(import(&mut world, Way::Whole, hosts.clone()), Err(vec![1, 2]));
        assert_eq!((world.records, format!("{:?}", world.rows)), (0, format!("{before:?}")), "nothing was done");
        let checked = import(&mut world, Way::Check, hosts.clone()).unwrap();
        assert!(checked[0] == "Created" && checked[1].contains("bmc.address") && checked[2].contains("c9"), "{checked:?}");
        assert_eq!(world.records, 0);
        assert_eq!(import(&mut world, Way::Each, hosts).unwrap()[0], "Created");
        assert!(row(&world, "a1").is_some() && row(&world, "a2").is_none());
    }

    #[test]
    fn the_same_import_again_changes_nothing() {
        let mut world = World::running(1);
        let enabled = |name: &str, address: &str| ImportedHost { oobm: Some(true), ..ipmi_host(name, address) };
        let hosts = || vec![enabled("a1", "10.1.0.1"), ipmi_host("h1", "10.0.0.1")];
        assert_eq!(import(&mut world, Way::Whole, hosts()).unwrap(), ["Created", "Unchanged"]);
        assert_eq!((row(&world, "a1").unwrap().oobm, world.power("a1").power), (Some(true), PowerState::Unknown));
        assert_eq!(import(&mut world, Way::Whole, hosts()).unwrap(), ["Unchanged", "Unchanged"]);
        let closed = ImportedHost { oobm: Some(false), ..ipmi_host("a1", "10.1.0.1") };
        assert_eq!(import(&mut world, Way::Check, vec![closed.clone()]).unwrap(), ["Changed"]);
        assert_eq!(import(&mut world, Way::Whole, vec![closed]).unwrap(), ["Changed"]);
        assert_eq!(world.power("a1").power, PowerState::Disabled);
        let bare = ImportedHost { oobm: Some(true), ..host("a2", spec("c1", "r1", None)) };
        assert_eq!(import(&mut world, Way::Whole, vec![bare]), Err(vec![0]), "nothing to enable");
    }

    #[test]
    fn a_rack_takes_no_more_from_a_file_than_one_by_one() {
        let mut world = World::unchecked(1);
        let many = (0..MAX_HOSTS).map(|n| host(&format!("a{n}"), spec("c1", "r1", None)));
        assert_eq!(import(&mut world, Way::Whole, many.clone().collect()), Err(vec![MAX_HOSTS - 1]), "one is there already");
        let there = std::iter::once(ipmi_host("h1", "10.0.0.1"));
        assert_eq!(import(&mut world, Way::Whole, there.chain(many.skip(1)).collect()).unwrap().len(), MAX_HOSTS);
    }

    #[test]
    fn each_host_leaves_its_line() {
        let mut world = World::running(1);
        let entry = AuditEntry::new(world.now.wall, "ann", AuditResult::Granted);
        let hosts = vec![ipmi_host("a1", "10.1.0.1"), ipmi_host("h1", "10.0.0.1")];
        let request = Request::ImportHosts(Import { hosts, way: Way::Whole });
        let terms = Terms { audit: Some(Box::new(entry)), ..Terms::default() };
        world.ask_under(request, terms).unwrap();
        let resources: Vec<_> = world.audit.iter().map(|line| line.resource.as_deref()).collect();
        assert_eq!(resources, [Some("host/a1"), None], "the unchanged one has none; the last is the import's own");
        assert!(world.audit[0].summary.as_ref().unwrap().contains("bmc.address=10.1.0.1"));
    }
}
