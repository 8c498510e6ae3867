//! A rack as the journal knew it, and what it takes over from an earlier rack of the same process. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use picket_common::clock::Now;
use picket_common::id::{HostId, OperationId};
use picket_common::wire::assign::HostAssignment;
use picket_common::wire::{Generation, Time};

use super::assignment::Assignments;
use super::brakes::{Brakes, BrakesRow};
use super::change::PasswordChange;
use super::facts::FactsRow;
use super::host::{Host, HostRow};
use super::moment::Moment;
use super::operation::{self, Operation, Phase};
use super::schedule::Schedule;
use super::watch::{RestoredWatch, Watching};
use super::{Rack, Settings};

/// All that the journal kept.
#[derive(Debug, Default)]
pub struct Restored {
    /// Assignment in force.
    pub generation: Option<Generation>,
    /// Newest epoch.
    pub epoch: u64,
    /// Assigned hosts.
    pub assignments: Vec<HostAssignment>,
    /// Their states.
    pub rows: Vec<HostRow>,
    /// Operations not ended.
    pub operations: Vec<Operation>,
    /// Ids of commands, with how long they are remembered.
    pub seen: Vec<(OperationId, HostId, Time)>,
    /// What BMCs are.
    pub facts: Vec<FactsRow>,
    /// Changes of passwords that assignments know nothing of.
    pub changes: Vec<PasswordChange>,
    /// Host-HA.
    pub watch: RestoredWatch,
    /// What stops more than one host's fence.
    pub brakes: Option<BrakesRow>,
}

impl Rack {
    /// A rack as the journal knew it; what was under way goes on at the first tick.
    #[must_use]
    pub fn restore(settings: Settings, restored: Restored, now: Now) -> Self {
        let jitter = settings.seed | 1;
        let boot = settings.machine_boot;
        let mut rack = Self {
            settings,
            site: None,
            assignments: Assignments::default(),
            hosts: Vec::new(),
            by_id: HashMap::new(),
            free: Vec::new(),
            schedule: Schedule::default(),
            in_flight: 0,
            waiting: VecDeque::new(),
            early: Vec::new(),
            strays: BTreeMap::new(),
            seen: restored.seen.into_iter().map(|(operation, host, until)| ((operation, host), until)).collect(),
            clock: None,
            next_heartbeat: now.boottime,
            overdue_from: 0,
            // Drivers may still answer tickets of a rack before this one.
            next_ticket: u32::try_from(now.boottime.as_nanos() & u128::from(u32::MAX)).unwrap_or(0),
            jitter,
            journal_works: true,
            watching: Watching::new(now),
            brakes: Brakes::restore(restored.brakes.unwrap_or_default(), boot, now),
        };
        rack.assignments.generation = restored.generation;
        rack.assignments.epoch = restored.epoch;
        let mut rows: HashMap<HostId, HostRow> = restored.rows.into_iter().map(|row| (row.host.clone(), row)).collect();
        let mut facts: HashMap<HostId, FactsRow> = restored.facts.into_iter().map(|row| (row.host.clone(), row)).collect();
        for assignment in restored.assignments {
            let id = assignment.host.clone();
            let mut host = match rows.remove(&id) {
                Some(row) => Host::with_row(assignment, row, boot, now),
                None => Host::new(assignment, boot, now),
            };
            host.facts = facts.remove(&id).map(Box::new);
            host.inspected = host.facts.as_ref().map(|row| row.learned.seen_from(boot, now).boottime);
            rack.insert(host);
        }
        for operation in restored.operations {
            rack.resume(operation, now);
        }
        rack.restore_changes(restored.changes, now);
        rack.restore_watch(restored.watch, boot, now);
        for slot in 0..rack.hosts.len() {
            rack.open_bmc(slot);
            rack.poll_soon(slot, now);
        }
        rack
    }

    fn resume(&mut self, mut operation: Operation, now: Now) {
        let boot = self.settings.machine_boot;
        if operation.deadline.boot != boot {
            // Over a reboot no clock can be trusted with a deadline: nothing more is begun, and it ends as overdue.
            operation.deadline = Moment::at(boot, now);
        }
        let Some(&slot) = self.by_id.get(&operation.command.host) else { return };
        let Some(host) = self.host_mut(slot) else { return };
        // One that was begun goes before those that wait.
        if matches!(operation.phase, Phase::Queued) {
            host.operations.push_back(operation);
        } else {
            host.operations.push_front(operation);
        }
        host.operation_due = Some(now.boottime.saturating_add(operation::CYCLE_PAUSE));
        self.reschedule(slot);
    }

    /// Takes over what an earlier rack of this process knew and no journal keeps: refused logins, for an account must not be
    /// locked by a failing journal, and the site's and the agent's settings.
    pub fn inherit(&mut self, earlier: &Self) {
        self.site.clone_from(&earlier.site);
        self.settings.max_in_flight = earlier.settings.max_in_flight;
        self.watching.started = earlier.watching.started;
        for host in self.hosts.iter_mut().flatten() {
            let before = earlier.by_id.get(&host.row.host).and_then(|&slot| earlier.host(slot));
            if let Some(before) = before.filter(|before| before.row.revision == host.row.revision) {
                let later = |one: Option<Moment>, other: Option<Moment>| one.into_iter().chain(other).max_by_key(|at| at.boottime);
                host.streak.refused_logins = host.streak.refused_logins.max(before.streak.refused_logins);
                host.row.blocked_until = later(host.row.blocked_until, before.row.blocked_until);
                host.row.refused_at = later(host.row.refused_at, before.row.refused_at);
            }
        }
    }
}
