//! RACK: the pure core of the agent. Takes events, decides, and says what must be durable and what must follow.
//! Memory only: no clock, no sockets, no files.

pub mod admission;
mod assigned;
mod assignment;
pub mod brakes;
pub mod change;
mod commands;
pub mod facts;
pub mod fence;
mod heartbeat;
pub mod host;
pub mod moment;
pub mod operation;
mod password;
mod poll;
mod request;
mod restore;
mod schedule;
#[cfg(test)]
mod tests;
pub mod watch;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use picket_common::clock::Now;
use picket_common::id::{HostId, OperationId};
use picket_common::secret::Secret;
use picket_common::wire::assign::{Assign, HostAssignment, SiteSettings};
use picket_common::wire::down::Command;
use picket_common::wire::ha::{HostHa, Surroundings};
use picket_common::wire::report::Report;
use picket_common::wire::{Generation, Incarnation, Time};

use self::admission::CentreClock;
use self::assignment::Assignments;
use self::brakes::{Brakes, BrakesRow};
use self::change::PasswordChange;
use self::commands::Order;
use self::facts::FactsRow;
pub use self::heartbeat::{HEARTBEAT, Pulse};
use self::host::{Host, HostRow};
use self::moment::MachineBoot;
use self::operation::Operation;
pub use self::restore::Restored;
use self::schedule::Schedule;
use self::watch::{HaRow, Watching};
use crate::bmc::{Completion, Job};
use crate::sign::{CheckDone, CheckJob};

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
    /// Checks ended.
    Checked(Vec<CheckDone>),
    /// The agent's own file says something else.
    Configured {
        /// Most polls in flight at once.
        max_in_flight: usize,
    },
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
    /// Checks of health and activity.
    pub checks: Vec<CheckJob>,
    /// Kept sessions to close: host and its driver.
    pub forget: Vec<(String, HostId)>,
    /// The agent should say that it lives.
    pub heartbeat: Option<Pulse>,
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
    /// What is in force in host-HA for all hosts.
    HaRules(Box<watch::Rules>),
    /// What goes on around the agent's hosts.
    Surroundings(Box<Surroundings>),
    /// What host-HA needs to know of a host.
    HostHa(Box<HostHa>),
    /// Nobody has settings for it any more.
    HostHaGone(HostId),
    /// Where a host stands in host-HA.
    Ha(Box<HaRow>),
    /// Forget it.
    HaGone(HostId),
    /// What stops more than one host's fence.
    Brakes(Box<BrakesRow>),
    /// Queue a report.
    Report(Box<Report>),
    /// Reports up to here are durable at the aggregator.
    Trim(u64),
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
    /// Addresses that answer as long as the agent's own network works, by its own file.
    pub references: Vec<String>,
    /// Templates of driver `exec` that prove that a host is off, by the agent's own file.
    pub proving_templates: Vec<String>,
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
    waiting: VecDeque<usize>,
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
    /// Host-HA, its hosts apart.
    watching: Watching,
    brakes: Brakes,
}

impl Rack {
    /// Whether acts are allowed: without a journal nothing is done that could not be remembered.
    pub fn set_journal(&mut self, works: bool) {
        self.journal_works = works;
    }

    /// When the next tick is needed (boottime).
    #[must_use]
    pub fn next_wake(&self) -> Duration {
        let due = [self.schedule.next(), self.watch_wake()];
        due.into_iter().flatten().fold(self.next_heartbeat, Duration::min)
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
            Event::Commanded(Command::Ha(command)) => self.ha_commanded(command, now, decision),
            Event::Checked(done) => self.checked(done, now, decision),
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
            Event::Configured { max_in_flight } => {
                self.settings.max_in_flight = max_in_flight;
                self.start_waiting(now, decision);
            }
            Event::Tick => self.tick(now, decision),
        }
    }

    fn tick(&mut self, now: Now, decision: &mut Decision) {
        while let Some((slot, stamp)) = self.schedule.pop_due(now.boottime) {
            if self.host(slot).is_some_and(|host| host.stamp == stamp) {
                self.wake(slot, now, decision);
            }
        }
        self.watch_tick(now, decision);
        if now.boottime >= self.next_heartbeat {
            self.next_heartbeat = now.boottime.saturating_add(HEARTBEAT);
            self.expire_early(now, decision);
            self.expire_early_verbs(now, decision);
            self.tell_brakes(now, decision);
            self.forget_seen(now, decision);
            decision.heartbeat = Some(self.pulse(now));
        }
    }

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
