//! RACK: the pure core of the agent. Takes events, decides, and says what must be durable and what must follow.
//! Memory only: no clock, no sockets, no files.

pub mod admission;
mod assignment;
pub mod change;
mod commands;
pub mod facts;
pub mod host;
pub mod moment;
pub mod operation;
mod password;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{BmcError, ErrorClass, Refusal};
use picket_common::facts::Facts;
use picket_common::id::{HostId, OperationId};
use picket_common::power::{Cause, Management, PowerEvent};
use picket_common::seal::{self, Belongs, Sealed};
use picket_common::secret::Secret;
use picket_common::wire::assign::{Assign, BmcAssignment, HostAssignment, SiteSettings};
use picket_common::wire::down::Command;
use picket_common::wire::report::{MAX_OVERDUE, Report};
use picket_common::wire::{Generation, Incarnation, Time};

use self::admission::CentreClock;
use self::assignment::{Assignments, Change, Others};
use self::change::PasswordChange;
use self::commands::Order;
use self::facts::FactsRow;
use self::host::{Flight, Host, HostRow, Purpose};
use self::moment::{MachineBoot, Moment};
use self::operation::{Input, Operation, Phase};
use self::schedule::Schedule;
use crate::bmc::{Answer, Ask, Bmc, Completion, DriverError, Job, PowerReply, Reading};
use crate::observe::{Observation, observe};

/// How often the agent says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// What can happen to the rack.
#[derive(Debug)]
pub enum Event {
    /// Requests to BMCs ended.
    Completed(Vec<Completion>),
    /// The aggregator assigns hosts; the signature was checked.
    Assigned(Assign),
    /// The aggregator commands; the signature was checked.
    Commanded(Command),
    /// The aggregator has these reports for good.
    Acked {
        /// Whose sequence.
        boot: Incarnation,
        /// Last durable one.
        up_to: u64,
    },
    /// The aggregator misses reports that were trimmed: it needs all that is known.
    Missed,
    /// The aggregator's clock was measured.
    Measured(CentreClock),
    /// Time passed.
    Tick,
}

/// What follows from events. `records` are durable before anything else happens.
#[derive(Debug, Default)]
pub struct Decision {
    /// One journal transaction; reports among them get their sequence there.
    pub records: Vec<Record>,
    /// Requests to BMCs, each with its driver's name.
    pub jobs: Vec<(Arc<str>, Job)>,
    /// Kept sessions to close: host and its driver.
    pub forget: Vec<(String, HostId)>,
    /// The agent should say that it lives.
    pub heartbeat: Option<Pulse>,
}

/// What a heartbeat says beside the outbox's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Assignment in force.
    pub generation: Option<Generation>,
    /// Hosts not read in time.
    pub overdue: Vec<HostId>,
}

/// One change to the journal.
#[derive(Debug, Clone)]
pub enum Record {
    /// A host's state.
    Host(HostRow),
    /// A host's assignment.
    Assignment(HostAssignment),
    /// A host is no longer ours.
    Remove(HostId),
    /// Which assignment is in force, and its epoch.
    Generation(Option<Generation>, u64),
    /// An operation's phase.
    Operation(Operation),
    /// An operation ended.
    OperationEnded(OperationId, HostId),
    /// A command's id, remembered until then.
    Seen(OperationId, HostId, Time),
    /// Forget it.
    Unseen(OperationId, HostId),
    /// What a BMC is.
    Facts(Box<FactsRow>),
    /// How far a change of a password is.
    Password(Box<PasswordChange>),
    /// A host's assignment says which password it has.
    PasswordEnded(HostId),
    /// Queue a report.
    Report(Box<Report>),
    /// Reports up to here are durable at the aggregator.
    Trim(u64),
}

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
}

/// Limits and identity.
#[derive(Clone)]
pub struct Settings {
    /// The journal's incarnation.
    pub boot: Incarnation,
    /// Which boot of the machine this is.
    pub machine_boot: MachineBoot,
    /// Opens passwords.
    pub sealing_key: Secret<[u8; 32]>,
    /// Most polls in flight at once, by the agent's own file.
    pub max_in_flight: usize,
    /// Seed of the jitter.
    pub seed: u64,
}

/// See the module.
pub struct Rack {
    settings: Settings,
    site: Option<SiteSettings>,
    assignments: Assignments,
    hosts: Vec<Option<Host>>,
    by_id: HashMap<HostId, usize>,
    free: Vec<usize>,
    schedule: Schedule,
    in_flight: usize,
    waiting: std::collections::VecDeque<usize>,
    early: Vec<Order>,
    /// Changes of passwords of hosts that are not ours now.
    strays: BTreeMap<HostId, Box<PasswordChange>>,
    seen: BTreeMap<(OperationId, HostId), Time>,
    clock: Option<CentreClock>,
    next_heartbeat: Duration,
    overdue_from: usize,
    next_ticket: u32,
    jitter: u64,
    journal_works: bool,
}

impl Rack {
    /// A rack as the journal knew it; what was under way goes on at the first tick.
    #[must_use]
    pub fn restore(settings: Settings, restored: Restored, now: Now) -> Self {
        let jitter = settings.seed | 1;
        let mut rack = Self {
            settings,
            site: None,
            assignments: Assignments::default(),
            hosts: Vec::new(),
            by_id: HashMap::new(),
            free: Vec::new(),
            schedule: Schedule::default(),
            in_flight: 0,
            waiting: std::collections::VecDeque::new(),
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
        };
        rack.assignments.generation = restored.generation;
        rack.assignments.epoch = restored.epoch;
        let boot = rack.settings.machine_boot;
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
    /// locked by a failing journal, and the site's settings.
    pub fn inherit(&mut self, earlier: &Self) {
        self.site.clone_from(&earlier.site);
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

    /// Whether acts are allowed: without a journal nothing is done that could not be remembered.
    pub fn set_journal(&mut self, works: bool) {
        self.journal_works = works;
    }

    /// When the next tick is needed (boottime).
    #[must_use]
    pub fn next_wake(&self) -> Duration {
        self.schedule.next().map_or(self.next_heartbeat, |due| due.min(self.next_heartbeat))
    }

    /// How many hosts there are, for status.
    #[must_use]
    pub fn host_count(&self) -> usize {
        self.by_id.len()
    }

    /// The hosts' journalled rows, for status.
    pub fn rows(&self) -> impl Iterator<Item = &HostRow> {
        self.hosts.iter().flatten().map(|host| &host.row)
    }

    /// Decides.
    pub fn apply(&mut self, event: Event, now: Now, decision: &mut Decision) {
        match event {
            Event::Completed(completions) => {
                for completion in completions {
                    self.completed(completion, now, decision);
                }
                self.start_waiting(now, decision);
            }
            Event::Assigned(message) => self.assigned(message, now, decision),
            Event::Commanded(Command::Power(command)) => self.commanded(command.into(), now, decision),
            Event::Commanded(Command::ChangePassword(change)) => self.commanded(change.into(), now, decision),
            Event::Commanded(Command::Cancel { operation, host }) => self.cancelled(operation, &host, now, decision),
            Event::Acked { boot, up_to } => {
                if boot == self.settings.boot {
                    decision.records.push(Record::Trim(up_to));
                }
            }
            Event::Missed => {
                let known = self.hosts.iter().flatten().flat_map(|host| host.all_known(now));
                decision.records.extend(known.map(|report| Record::Report(Box::new(report))));
            }
            Event::Measured(clock) => self.clock = Some(clock),
            Event::Tick => self.tick(now, decision),
        }
    }

    // ---- assignments ----

    fn assigned(&mut self, message: Assign, now: Now, decision: &mut Decision) {
        let message = match message {
            Assign::Settings(settings) => return self.site_settings(settings, now, decision),
            message => message,
        };
        let Some(Change { upsert, others }) = self.assignments.take(message) else { return };
        decision.records.push(Record::Generation(self.assignments.generation, self.assignments.epoch));
        let gone: Vec<HostId> = match others {
            Others::KeepBut(remove) => remove,
            Others::Remove => {
                let kept: std::collections::HashSet<&HostId> = upsert.iter().map(|assignment| &assignment.host).collect();
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

    /// Most polls in flight at once: the site says, and the agent's own file may say less.
    fn max_in_flight(&self) -> usize {
        let own = self.settings.max_in_flight;
        let site = self.site.as_ref().and_then(|site| usize::try_from(site.max_in_flight).ok());
        site.map_or(own, |site| site.min(own))
    }

    fn remove(&mut self, id: &HostId, now: Now, decision: &mut Decision) {
        let Some(slot) = self.by_id.remove(id) else { return };
        self.end_operations(slot, Refusal::NotAssigned, now, decision);
        self.stray(slot, decision);
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
    fn open_bmc(&mut self, slot: usize) {
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

    // ---- requests ----

    fn send(&mut self, slot: usize, ask: Ask, purpose: Purpose, timeout: Duration, now: Now, decision: &mut Decision) {
        if let Some(bmc) = self.host(slot).and_then(|host| host.bmc.clone()) {
            self.send_to(slot, bmc, ask, purpose, timeout, now, decision);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a request has as many parts, and this is the one place that makes one")]
    fn send_to(
        &mut self,
        slot: usize,
        bmc: Arc<Bmc>,
        ask: Ask,
        purpose: Purpose,
        timeout: Duration,
        now: Now,
        decision: &mut Decision,
    ) {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let ticket = ticket(slot, self.next_ticket);
        let new_password = if ask == Ask::SetPassword { self.new_password(slot) } else { None };
        let Some(host) = self.host_mut(slot) else { return };
        // A refusal that a crash hides must not make room for one more: it is counted before it can come, wherever it matters.
        if ask == Ask::TryLogin || host.was_refused_lately(now.boottime) {
            host.row.login_since = Some(Moment::at(host.boot, now));
            decision.records.push(Record::Host(host.row.clone()));
        }
        host.in_flight = Some(Flight { ticket, ask, purpose });
        let driver = host.driver.clone();
        self.in_flight += 1;
        decision.jobs.push((driver, Job { ticket, bmc, ask, new_password, timeout }));
    }

    /// Forgets the request in flight: its answer is no longer wanted.
    fn land(&mut self, slot: usize) {
        if self.host_mut(slot).is_some_and(|host| host.in_flight.take().is_some()) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    fn completed(&mut self, completion: Completion, now: Now, decision: &mut Decision) {
        let slot = slot_of(completion.ticket);
        let Some(host) = self.host_mut(slot) else { return };
        let Some(flight) = host.in_flight.filter(|flight| flight.ticket == completion.ticket) else { return };
        self.land(slot);
        if let Purpose::Proof(which) = flight.purpose {
            self.proof_ended(slot, which, &completion, now, decision);
            return;
        }
        let was = self.host(slot).and_then(|host| host.row.management);
        if self.refutes_password(slot, flight.ask, &completion, now, decision) {
            return;
        }
        match (&completion.result, flight.purpose) {
            (Ok(Answer::Facts(facts, _)), purpose) => {
                self.learn_facts(slot, Facts::clone(facts), purpose != Purpose::Poll, now, decision);
            }
            (Ok(_), Purpose::Poll) => self.plan_inspection(slot, was, now),
            (Err(error), Purpose::Poll) if flight.ask == Ask::Inspect => self.inspection_failed(slot, error, now),
            _ => {}
        }
        let Some(host) = self.host_mut(slot) else { return };
        match (host.operations.front().map(|operation| operation.command.operation), flight.purpose) {
            (Some(active), Purpose::Operation(asked)) if active == asked => {
                let input = input_of(flight.ask, &completion);
                self.operate(slot, input, now, decision);
            }
            (Some(_), _) => {
                host.operation_due = None;
                self.operate(slot, Input::Start, now, decision);
            }
            (None, _) => self.rest(slot, now),
        }
    }

    /// Learns from an answer. True when it put the password in doubt, and nobody is told before it is known which one works.
    fn refutes_password(&mut self, slot: usize, ask: Ask, completion: &Completion, now: Now, decision: &mut Decision) -> bool {
        let Some(host) = self.host_mut(slot) else { return false };
        let tried_login = host.row.login_since.take().is_some();
        let refused = completion.result.as_ref().err().filter(|error| error.class == ErrorClass::Auth);
        if ask == Ask::SetPassword {
            self.password_answered(slot, completion.result.as_ref().err(), now, decision);
        }
        if refused.is_some_and(|error| self.doubt_again(slot, error, now, decision)) {
            let Some(host) = self.host(slot) else { return false };
            return host.in_flight.is_some() && host.operations.front().is_none_or(Operation::can_begin_again);
        }
        self.learn(slot, ask, completion, now, decision);
        if let Some(host) = self.host(slot).filter(|_| tried_login) {
            decision.records.push(Record::Host(host.row.clone()));
        }
        false
    }

    /// Nothing is asked before the next poll is due.
    fn rest(&mut self, slot: usize, now: Now) {
        let jitter = self.draw_jitter();
        if let Some(host) = self.host_mut(slot) {
            host.poll_due = now.boottime.saturating_add(host.pause(jitter));
            if let Some(due) = host.inspect_due.filter(|due| *due > now.boottime) {
                host.poll_due = host.poll_due.min(due);
            }
        }
        self.reschedule(slot);
    }

    /// Every answer teaches something about the host, whoever asked.
    fn learn(&mut self, slot: usize, ask: Ask, completion: &Completion, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        host.last_word = now.boottime;
        if ask == Ask::SetPassword && completion.result.is_err() {
            // Which password works is found out next; a refused login counts all the same.
            if completion.result.as_ref().is_err_and(|error| error.class == ErrorClass::Auth) {
                host.refuse_login(now);
                decision.records.push(Record::Host(host.row.clone()));
            }
            return;
        }
        let result: Result<Reading, &DriverError> = match &completion.result {
            Ok(Answer::Reading(reading)) => Ok(*reading),
            // An answered order proves that the BMC is well, and says nothing about the state.
            Ok(Answer::Power(PowerReply::Accepted | PowerReply::NotInThisState) | Answer::Done) => Ok(Reading::Transitioning),
            Ok(Answer::Facts(_, reading)) => Ok(*reading),
            Err(error) if ask == Ask::Status || error.class == ErrorClass::Auth => Err(error),
            // What an order's failure means is the operation's business: it reads next.
            Err(_) => return,
        };
        let before = host.row.clone();
        let seen: Observation = observe(result, host.row.management, host.streak);
        let cause = match host.operations.front() {
            Some(operation) if operation.is_ordered() => Cause::Command(operation.command.operation),
            _ => Cause::Poll,
        };
        let reports = host.observe(seen, cause, now);
        if worth_a_write(&before, &host.row) {
            decision.records.push(Record::Host(host.row.clone()));
        }
        decision.records.extend(reports.into_iter().map(|report| Record::Report(Box::new(report))));
    }

    // ---- time ----

    fn tick(&mut self, now: Now, decision: &mut Decision) {
        while let Some((slot, stamp)) = self.schedule.pop_due(now.boottime) {
            if self.host(slot).is_some_and(|host| host.stamp == stamp) {
                self.wake(slot, now, decision);
            }
        }
        if now.boottime >= self.next_heartbeat {
            self.next_heartbeat = now.boottime.saturating_add(HEARTBEAT);
            self.expire_early(now, decision);
            self.forget_seen(now, decision);
            decision.heartbeat = Some(self.pulse(now));
        }
    }

    /// A heartbeat names no more than [`MAX_OVERDUE`] hosts. When there are more, the next one goes on where this one stopped:
    /// a full list is taken as cut, and what was named before it stays overdue.
    fn pulse(&mut self, now: Now) -> Pulse {
        let from = self.overdue_from.min(self.hosts.len());
        let (before, after) = self.hosts.split_at_checked(from).unwrap_or_default();
        let slots = (from..).zip(after).chain((0..).zip(before));
        let overdue = slots.filter_map(|(slot, host)| Some((slot, host.as_ref().filter(|host| host.is_overdue(now.boottime))?)));
        let named: Vec<(usize, HostId)> = overdue.take(MAX_OVERDUE).map(|(slot, host)| (slot, host.row.host.clone())).collect();
        self.overdue_from = named.last().filter(|_| named.len() == MAX_OVERDUE).map_or(0, |(slot, _)| slot + 1);
        Pulse { generation: self.assignments.generation, overdue: named.into_iter().map(|(_, host)| host).collect() }
    }

    fn forget_seen(&mut self, now: Now, decision: &mut Decision) {
        // Deadlines are the aggregator's, so a clock of ours that is ahead must not make a command new again.
        let wall = Time::from(now.wall);
        let wall = self.clock.map_or(wall, |clock| wall.min(clock.latest(now.boottime)));
        let old: Vec<(OperationId, HostId)> =
            self.seen.iter().filter(|(_, until)| **until < wall).map(|(key, _)| key.clone()).collect();
        for (operation, host) in old {
            self.seen.remove(&(operation, host.clone()));
            decision.records.push(Record::Unseen(operation, host));
        }
    }

    fn wake(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        if let Some(operation) = host.operations.front() {
            if now.boottime >= operation.deadline.boottime {
                self.operate(slot, Input::Overdue, now, decision);
            } else if host.in_flight.is_none() && host.operation_due.is_some_and(|due| due <= now.boottime) {
                let input = if matches!(operation.phase, Phase::Ordering(_)) { Input::Start } else { Input::Due };
                host.operation_due = None;
                self.operate(slot, input, now, decision);
            } else {
                self.reschedule(slot);
            }
            return;
        }
        self.poll(slot, now, decision);
    }

    fn poll(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let full = self.in_flight >= self.max_in_flight();
        let journal_works = self.journal_works;
        let Some(host) = self.host_mut(slot) else { return };
        if !host.is_open() || host.in_flight.is_some() {
            return;
        }
        if let Some(until) = host.blocked(now.boottime) {
            host.poll_due = until;
            self.reschedule(slot);
            return;
        }
        if full {
            self.waiting.push_back(slot);
            return;
        }
        if host.is_in_doubt() {
            self.prove(slot, now, decision);
            return;
        }
        let ask = if journal_works && host.wants_inspection(now.boottime) { Ask::Inspect } else { Ask::Status };
        let timeout = timeout_of(host, ask);
        self.send(slot, ask, Purpose::Poll, timeout, now, decision);
    }

    fn start_waiting(&mut self, now: Now, decision: &mut Decision) {
        while self.in_flight < self.max_in_flight() {
            let Some(slot) = self.waiting.pop_front() else { return };
            if self.host(slot).is_some_and(|host| host.operations.is_empty()) {
                self.poll(slot, now, decision);
            }
        }
    }

    /// First poll of a host: soon, but spread so that a whole rack does not start in one packet burst.
    fn poll_soon(&mut self, slot: usize, now: Now) {
        let spread = self.draw_jitter() - 0.8;
        let Some(host) = self.host_mut(slot) else { return };
        host.poll_due = now.boottime.saturating_add(host.interval().min(Duration::from_secs(1)).mul_f64(spread.max(0.0)));
        self.reschedule(slot);
    }

    fn reschedule(&mut self, slot: usize) {
        let Some(host) = self.hosts.get_mut(slot).and_then(Option::as_mut) else { return };
        let due = match host.operations.front() {
            Some(operation) => Some(
                host.operation_due
                    .filter(|_| host.in_flight.is_none())
                    .map_or(operation.deadline.boottime, |due| due.min(operation.deadline.boottime)),
            ),
            None if host.is_open() && host.in_flight.is_none() => Some(host.poll_due),
            None => None,
        };
        host.stamp += 1;
        if let Some(due) = due {
            self.schedule.push(due, slot, host.stamp);
        }
    }

    /// Between 0.8 and 1.2 (xorshift64: jitter needs no more).
    fn draw_jitter(&mut self) -> f64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let sixteen_bits = u16::try_from(self.jitter >> 48).unwrap_or(u16::MAX);
        0.8 + 0.4 * f64::from(sixteen_bits) / f64::from(u16::MAX)
    }

    // ---- slots ----

    fn insert(&mut self, host: Host) -> usize {
        let id = host.row.host.clone();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.hosts.push(None);
            self.hosts.len() - 1
        });
        if let Some(place) = self.hosts.get_mut(slot) {
            *place = Some(host);
        }
        self.by_id.insert(id, slot);
        slot
    }

    fn host(&self, slot: usize) -> Option<&Host> {
        self.hosts.get(slot).and_then(Option::as_ref)
    }

    fn host_mut(&mut self, slot: usize) -> Option<&mut Host> {
        self.hosts.get_mut(slot).and_then(Option::as_mut)
    }
}

/// Slot in the high half, a counter in the low half: an answer to an earlier request of the slot is not taken for a later one.
fn ticket(slot: usize, counter: u32) -> u64 {
    (u64::try_from(slot).unwrap_or(u64::MAX) << 32) | u64::from(counter)
}

fn slot_of(ticket: u64) -> usize {
    usize::try_from(ticket >> 32).unwrap_or(usize::MAX)
}

fn input_of(ask: Ask, completion: &Completion) -> Input<'_> {
    match (&completion.result, ask) {
        (Ok(Answer::Reading(reading)), _) => Input::Read(Ok(*reading), completion.begun),
        (Ok(Answer::Facts(_, reading)), _) => Input::Read(Ok(*reading), completion.begun),
        (Ok(Answer::Power(reply)), _) => Input::Ordered(Ok(*reply)),
        (Ok(Answer::Done), _) => Input::Ordered(Ok(PowerReply::Accepted)),
        (Err(error), Ask::Status) => Input::Read(Err(error), completion.begun),
        (Err(error), _) => Input::Ordered(Err(error)),
    }
}

/// Time one request may take.
fn timeout_of(host: &Host, ask: Ask) -> Duration {
    let seconds = match (ask, host.assignment.bmc.as_ref().map(|bmc| bmc.driver.as_str())) {
        (Ask::Status, Some("ipmi")) => 5,
        // Many requests, in a session that has to be opened first.
        (Ask::Inspect, _) => 30,
        // BMCs write it to their flash memory.
        (Ask::SetPassword, _) => 20,
        (_, _) => 10,
    };
    Duration::from_secs(seconds)
}

fn address_of(assignment: &HostAssignment) -> Option<(&str, &str, Option<u16>)> {
    assignment.bmc.as_ref().map(|bmc| (bmc.driver.as_str(), bmc.address.as_str(), bmc.port))
}

fn revision(assignment: &HostAssignment) -> u64 {
    assignment.bmc.as_ref().map_or(0, |bmc| bmc.revision)
}

fn bmc_of(assignment: &HostAssignment, key: &Secret<[u8; 32]>) -> Option<Bmc> {
    let bmc = assignment.bmc.as_ref()?;
    let password = match &bmc.password {
        None => Secret::new(String::new()),
        Some(sealed) => open(assignment, &bmc.address, &bmc.username, sealed, key)?,
    };
    Some(settings_of(&assignment.host, bmc, password, bmc.revision))
}

fn settings_of(host: &HostId, bmc: &BmcAssignment, password: Secret<String>, revision: u64) -> Bmc {
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

/// Another text of the same failure is not worth a disk write; anything else is.
fn worth_a_write(before: &HostRow, after: &HostRow) -> bool {
    let code = |row: &HostRow| row.error.as_ref().map(|error| (error.class, error.code.clone()));
    let without_error = |row: &HostRow| HostRow { error: None, ..row.clone() };
    code(before) != code(after) || without_error(before) != without_error(after)
}
