//! What an assignment does to the rack: hosts come, go and change their gates or their BMC. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use picket_common::clock::Now;
use picket_common::command::{BmcError, ErrorClass, Refusal};
use picket_common::id::HostId;
use picket_common::power::{Cause, Management, PowerEvent};
use picket_common::seal::{self, Belongs, Sealed};
use picket_common::secret::Secret;
use picket_common::wire::assign::{Assign, BmcAssignment, HostAssignment, SiteSettings};

use super::assignment::{Change, Others};
use super::host::Host;
use super::{Decision, Rack, Record, password};
use crate::bmc::Bmc;
use crate::observe::Observation;

impl Rack {
    pub(super) fn assigned(&mut self, message: Assign, now: Now, decision: &mut Decision) {
        let message = match message {
            Assign::Settings(settings) => return self.site_settings(settings, now, decision),
            Assign::Ha(part) => return self.ha_assigned(part, now, decision),
            Assign::Surroundings(told) => return self.surroundings_told(told, now, decision),
            message => message,
        };
        let Some(Change { upsert, others }) = self.assignments.take(message) else { return };
        decision.records.push(Record::Generation(self.assignments.generation, self.assignments.epoch));
        let gone: Vec<HostId> = match others {
            Others::KeepBut(remove) => remove,
            Others::Remove => {
                let kept: HashSet<&HostId> = upsert.iter().map(|assignment| &assignment.host).collect();
                self.by_id.keys().filter(|host| !kept.contains(host)).cloned().collect()
            }
        };
        for host in gone {
            self.remove(&host, now, decision);
        }
        for assignment in upsert {
            self.upsert(assignment, now, decision);
        }
        self.retry_early(now, decision);
        self.retry_early_verbs(now, decision);
    }

    fn site_settings(&mut self, settings: SiteSettings, now: Now, decision: &mut Decision) {
        let version = settings.version;
        let is_older = |held: &SiteSettings| held.version.store == version.store && held.version.counter > version.counter;
        if self.site.as_ref().is_some_and(is_older) {
            return;
        }
        self.site = Some(settings);
        self.start_waiting(now, decision);
    }

    fn remove(&mut self, id: &HostId, now: Now, decision: &mut Decision) {
        let Some(slot) = self.by_id.remove(id) else { return };
        self.end_operations(slot, Refusal::NotAssigned, now, decision);
        self.stray(slot, decision);
        self.watch_removed(slot, decision);
        self.forget_driver(slot, decision);
        self.land(slot);
        if let Some(place) = self.hosts.get_mut(slot) {
            *place = None;
            self.free.push(slot);
        }
        decision.records.push(Record::Remove(id.clone()));
    }

    fn upsert(&mut self, assignment: HostAssignment, now: Now, decision: &mut Decision) {
        let known = self.by_id.get(&assignment.host).copied();
        if known.and_then(|slot| self.host(slot)).is_some_and(|host| host.assignment == assignment) {
            return;
        }
        let key = self.settings.sealing_key.clone();
        let slot = known.unwrap_or_else(|| {
            let mut host = Host::new(assignment.clone(), self.settings.machine_boot, now);
            host.change = self.strays.remove(&assignment.host);
            self.insert(host)
        });
        let Some(host) = self.host_mut(slot) else { return };
        let goes_on = host.change.as_deref().filter(|change| password::goes_on(&assignment, change, &key));
        let bmc = password::in_force(&assignment, goes_on, &key).map(Arc::new);
        let change_ends = host.change.is_some() && goes_on.is_none();
        let gates_moved =
            known.is_none() || host.row.enablement != assignment.enablement || host.assignment.refusal != assignment.refusal;
        // What is in force counts: an assignment that catches up with a change of the password disturbs nobody.
        let other_bmc = host.bmc != bmc
            || driver_of(&host.assignment) != driver_of(&assignment)
            || (bmc.is_none() && host.assignment.bmc != assignment.bmc);
        let moved = address_of(&host.assignment) != address_of(&assignment);
        let refusal = assignment.refusal;
        decision.records.push(Record::Assignment(assignment.clone()));
        if gates_moved || other_bmc {
            // What the earlier BMC or login still answers says nothing about this one.
            self.end_operations(slot, refusal.unwrap_or(Refusal::HostDisabled), now, decision);
            self.land(slot);
            self.forget_driver(slot, decision);
        }
        let Some(host) = self.host_mut(slot) else { return };
        if change_ends {
            host.change = None;
            decision.records.push(Record::PasswordEnded(host.row.host.clone()));
        }
        host.rebase_change(revision(&assignment), decision);
        host.row.enablement = assignment.enablement;
        host.row.revision = revision(&assignment);
        host.bmc = bmc;
        host.driver = driver_of(&assignment).into();
        host.assignment = assignment;
        match (gates_moved, refusal) {
            (_, Some(_)) => host.close(now),
            (true, None) => host.open(now),
            (false, None) if other_bmc => host.forget_bmc(now),
            (false, None) => {}
        }
        let lost = if moved && !gates_moved && refusal.is_none() { host.unknown(now) } else { None };
        decision.records.extend(lost.map(|report| Record::Report(Box::new(report))));
        decision.records.push(Record::Host(host.row.clone()));
        self.tell_if_locked(slot, now, decision);
        self.poll_soon(slot, now);
        if gates_moved || other_bmc {
            self.watch_moved(slot, gates_moved, decision);
        }
        self.watch_assigned(slot, now, decision);
    }

    /// A password that does not open is told once, as the setting error it is.
    fn tell_if_locked(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot).filter(|host| host.is_locked() && host.assignment.refusal.is_none()) else { return };
        let error = BmcError {
            driver: "picket".into(),
            class: ErrorClass::Setting,
            code: Refusal::PasswordNeeded.code().into(),
            text: Refusal::PasswordNeeded.to_string(),
        };
        let seen = Observation {
            event: Some(PowerEvent::Unknown),
            management: Management::Degraded,
            error: Some(error),
            streak: host.streak,
        };
        let reports = host.observe(seen, Cause::Poll, now);
        decision.records.push(Record::Host(host.row.clone()));
        decision.records.extend(reports.into_iter().map(|report| Record::Report(Box::new(report))));
    }

    /// Opens the password and makes the driver's settings; a password that does not open closes the host.
    pub(super) fn open_bmc(&mut self, slot: usize) {
        let key = self.settings.sealing_key.clone();
        let Some(host) = self.host_mut(slot) else { return };
        host.bmc = password::in_force(&host.assignment, host.change.as_deref(), &key).map(Arc::new);
        host.driver = driver_of(&host.assignment).into();
    }

    fn forget_driver(&self, slot: usize, decision: &mut Decision) {
        let Some(host) = self.host(slot) else { return };
        if let Some(bmc) = &host.assignment.bmc {
            decision.forget.push((bmc.driver.clone(), host.row.host.clone()));
        }
    }
}

fn address_of(assignment: &HostAssignment) -> Option<(&str, &str, Option<u16>)> {
    assignment.bmc.as_ref().map(|bmc| (bmc.driver.as_str(), bmc.address.as_str(), bmc.port))
}

pub(super) fn revision(assignment: &HostAssignment) -> u64 {
    assignment.bmc.as_ref().map_or(0, |bmc| bmc.revision)
}

pub(super) fn bmc_of(assignment: &HostAssignment, key: &Secret<[u8; 32]>) -> Option<Bmc> {
    let bmc = assignment.bmc.as_ref()?;
    let password = match &bmc.password {
        None => Secret::new(String::new()),
        Some(sealed) => open(assignment, &bmc.address, &bmc.username, sealed, key)?,
    };
    Some(settings_of(&assignment.host, bmc, password, bmc.revision))
}

pub(super) fn settings_of(host: &HostId, bmc: &BmcAssignment, password: Secret<String>, revision: u64) -> Bmc {
    Bmc {
        host: host.clone(),
        address: bmc.address.clone(),
        port: bmc.port,
        username: bmc.username.clone(),
        password,
        options: bmc.options.iter().cloned().collect(),
        revision,
    }
}

fn driver_of(assignment: &HostAssignment) -> &str {
    assignment.bmc.as_ref().map_or("", |bmc| bmc.driver.as_str())
}

fn open(
    assignment: &HostAssignment,
    address: &str,
    username: &str,
    sealed: &Sealed,
    key: &Secret<[u8; 32]>,
) -> Option<Secret<String>> {
    let own = Belongs::Host { host: &assignment.host, address, username };
    let shared = Belongs::Cluster { cluster: &assignment.cluster, username };
    seal::open(key, own, sealed).or_else(|_| seal::open(key, shared, sealed)).ok()
}
