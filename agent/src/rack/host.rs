//! One host: its state, its poll schedule, its operations. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{BmcError, ErrorClass};
use picket_common::id::{HostId, OperationId};
use picket_common::power::{Cause, Management, PowerEvent, PowerState};
use picket_common::wire::Time;
use picket_common::wire::assign::HostAssignment;
use picket_common::wire::report::{ManagementReport, PowerReport, Report, Snapshot};
use serde::{Deserialize, Serialize};

use super::change::{PasswordChange, Which};
use super::facts::FactsRow;
use super::moment::{MachineBoot, Moment};
use super::operation::Operation;
use super::watch::Watch;
use crate::bmc::{Ask, Bmc};
use crate::observe::{BLOCKED_AFTER, BLOCKED_FOR, Observation, Streak};

/// What the journal keeps of a host beside its assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// Which host.
    pub host: HostId,
    /// Which enablement the state belongs to.
    pub enablement: u64,
    /// Power state.
    pub power: PowerState,
    /// Since when.
    pub power_since: Time,
    /// Management state; absent before the first answer or failure.
    pub management: Option<Management>,
    /// Since when.
    pub management_since: Time,
    /// The last typed error, while it holds.
    pub error: Option<BmcError>,
    /// Refused logins in a row.
    pub refused_logins: u32,
    /// When a login was last refused.
    pub refused_at: Option<Moment>,
    /// A login was begun then that may be refused. Found after a crash it counts as refused.
    pub login_since: Option<Moment>,
    /// No login before this.
    pub blocked_until: Option<Moment>,
    /// Revision of the BMC settings this was learned with.
    pub revision: u64,
}

/// A host in memory.
#[derive(Debug)]
pub struct Host {
    /// As assigned.
    pub assignment: HostAssignment,
    /// Its BMC with the password in force, opened; absent when not configured or not openable.
    pub bmc: Option<Arc<Bmc>>,
    /// Its driver's name.
    pub driver: Arc<str>,
    /// What is journalled.
    pub row: HostRow,
    /// Failures in a row.
    pub streak: Streak,
    /// Which boot of the machine this is.
    pub boot: MachineBoot,
    /// The last change of its password, until another assignment settles it.
    pub change: Option<Box<PasswordChange>>,
    /// What the BMC is, as far as it was learned. Boxed, as the change: most of a host's life nobody looks at them.
    pub facts: Option<Box<FactsRow>>,
    /// When it was last asked what it is.
    pub inspected: Option<Duration>,
    /// When it should be asked what it is; absent while it need not, or cannot.
    pub inspect_due: Option<Duration>,
    /// Its driver, or the BMC itself, cannot say what it is.
    pub cannot_inspect: bool,
    /// When a request last ended, well or not.
    pub last_word: Duration,
    /// When one last ended well.
    pub last_good: Option<Duration>,
    /// When the next poll is due.
    pub poll_due: Duration,
    /// The request in flight.
    pub in_flight: Option<Flight>,
    /// Operations; the first is the active one.
    pub operations: VecDeque<Operation>,
    /// When the active operation looks again.
    pub operation_due: Option<Duration>,
    /// Marks the newest entry of the schedule.
    pub stamp: u64,
    /// Its host-HA; absent when nobody has settings for it.
    pub watch: Option<Box<Watch>>,
}

/// A request in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    /// Its ticket.
    pub ticket: u64,
    /// What was asked.
    pub ask: Ask,
    /// For whom.
    pub purpose: Purpose,
}

/// Who wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The schedule.
    Poll,
    /// This operation.
    Operation(OperationId),
    /// Whether the BMC takes this password.
    Proof(Which),
    /// A fence or recovery of the host.
    Fence,
}

impl Host {
    /// A host that was just assigned: Disabled until its gates are looked at.
    #[must_use]
    pub fn new(assignment: HostAssignment, boot: MachineBoot, now: Now) -> Self {
        let row = HostRow {
            host: assignment.host.clone(),
            enablement: 0,
            power: PowerState::Disabled,
            power_since: now.wall.into(),
            management: None,
            management_since: now.wall.into(),
            error: None,
            refused_logins: 0,
            refused_at: None,
            login_since: None,
            blocked_until: None,
            revision: 0,
        };
        Self::with_row(assignment, row, boot, now)
    }

    /// A host as the journal knew it.
    #[must_use]
    pub fn with_row(assignment: HostAssignment, mut row: HostRow, boot: MachineBoot, now: Now) -> Self {
        let latest = Moment::at(boot, now.after(BLOCKED_FOR));
        let here = |moment: Moment| moment.seen_from(boot, now);
        row.refused_at = row.refused_at.map(here);
        // A clock that was set back must not block for longer than a block lasts.
        row.blocked_until =
            row.blocked_until.map(|until| if here(until).boottime > latest.boottime { latest } else { here(until) });
        let login_since = row.login_since.take();
        let mut host = Self {
            streak: Streak { silent: 0, refused_logins: row.refused_logins },
            boot,
            change: None,
            facts: None,
            inspected: None,
            inspect_due: None,
            cannot_inspect: false,
            assignment,
            bmc: None,
            driver: "".into(),
            row,
            last_word: now.boottime,
            last_good: None,
            poll_due: now.boottime,
            in_flight: None,
            operations: VecDeque::new(),
            operation_due: None,
            stamp: 0,
            watch: None,
        };
        if login_since.is_some() {
            host.refuse_login(now);
        }
        host
    }

    /// Until when no login may be tried, if that is still to come.
    #[must_use]
    pub fn blocked(&self, now: Duration) -> Option<Duration> {
        self.row.blocked_until.map(|until| until.boottime).filter(|until| *until > now)
    }

    /// Counts a refused login. The second one within the length of a pause begins it.
    pub fn refuse_login(&mut self, now: Now) {
        let again = self.was_refused_lately(now.boottime);
        self.streak.refused_logins = self.streak.refused_logins.saturating_add(1);
        self.row.refused_logins = self.streak.refused_logins;
        self.row.refused_at = Some(Moment::at(self.boot, now));
        if again {
            self.pause_logins(now);
        }
    }

    fn pause_logins(&mut self, now: Now) {
        self.row.blocked_until = Some(Moment::at(self.boot, now.after(BLOCKED_FOR)));
    }

    /// Whether one more refused login would be the second within the length of a pause. One that works begins the
    /// count anew.
    #[must_use]
    pub fn was_refused_lately(&self, now: Duration) -> bool {
        let lately = self.row.refused_at.is_some_and(|at| now.saturating_sub(at.boottime) < BLOCKED_FOR);
        self.streak.refused_logins > 0 && lately
    }

    /// Whether the BMC may be talked to at all.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.assignment.refusal.is_none() && self.bmc.is_some()
    }

    /// Whether BMC settings are there, but their password does not open here.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        self.assignment.bmc.is_some() && self.bmc.is_none()
    }

    /// The configured poll interval.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.assignment.poll_interval_ms.into())
    }

    /// Time until the next poll after one ended: failing BMCs wait up to twice as long, and are never dropped.
    #[must_use]
    pub fn pause(&self, jitter: f64) -> Duration {
        let failing = self.streak.silent > 0 || self.row.error.is_some();
        let base = if failing { self.interval().mul_f64(1.6) } else { self.interval() };
        base.mul_f64(jitter)
    }

    /// Whether nothing was heard for longer than three intervals although something should have been.
    #[must_use]
    pub fn is_overdue(&self, now: Duration) -> bool {
        self.is_open()
            && self.row.blocked_until.is_none()
            && now.saturating_sub(self.last_word) > self.interval() * 3 + Duration::from_secs(2)
    }

    /// Takes an observation in; gives the reports if anything changed.
    pub fn observe(&mut self, seen: Observation, cause: Cause, now: Now) -> Vec<Report> {
        self.note_logins(&seen, now);
        let mut reports = Vec::new();
        if self.row.management != Some(seen.management) {
            self.row.management = Some(seen.management);
            self.row.management_since = now.wall.into();
            reports.push(Report::Management(ManagementReport {
                host: self.row.host.clone(),
                enablement: self.row.enablement,
                new: seen.management,
                observed_at: now.wall.into(),
                error: seen.error.clone(),
            }));
        }
        self.row.error = seen.error;
        reports.extend(seen.event.and_then(|event| self.power_event(event, cause, now)));
        reports
    }

    fn note_logins(&mut self, seen: &Observation, now: Now) {
        self.streak = seen.streak;
        self.row.refused_logins = seen.streak.refused_logins;
        if seen.streak.refused_logins == 0 {
            self.row.blocked_until = None;
        }
        // Silence is no refused login: it does not prolong a pause.
        if seen.error.as_ref().is_some_and(|error| error.class == ErrorClass::Auth) {
            self.row.refused_at = Some(Moment::at(self.boot, now));
            if seen.streak.refused_logins >= BLOCKED_AFTER {
                self.pause_logins(now);
            }
        }
    }

    fn power_event(&mut self, event: PowerEvent, cause: Cause, now: Now) -> Option<Report> {
        let old = self.row.power;
        let new = old.step(event)?;
        if new == old {
            return None;
        }
        self.row.power = new;
        self.row.power_since = now.wall.into();
        Some(Report::Power(PowerReport {
            host: self.row.host.clone(),
            enablement: self.row.enablement,
            old,
            new,
            cause,
            observed_at: now.wall.into(),
            error: if new == PowerState::Unknown { self.row.error.clone() } else { None },
        }))
    }

    /// Nothing is known of the power any more: it is another BMC now.
    pub fn unknown(&mut self, now: Now) -> Option<Report> {
        self.power_event(PowerEvent::Unknown, Cause::Poll, now)
    }

    /// Closes the host: no more traffic, state Disabled. The aggregator records the change, so nothing is reported.
    pub fn close(&mut self, now: Now) {
        self.step_silently(PowerEvent::Disabled, now);
        self.forget_bmc(now);
    }

    /// Opens the host anew: Unknown, then the first reading.
    pub fn open(&mut self, now: Now) {
        self.step_silently(PowerEvent::Disabled, now);
        self.step_silently(PowerEvent::Enabled, now);
        self.forget_bmc(now);
    }

    fn step_silently(&mut self, event: PowerEvent, now: Now) {
        let Some(new) = self.row.power.step(event) else { return };
        if new != self.row.power {
            self.row.power = new;
            self.row.power_since = now.wall.into();
        }
    }

    /// Forgets what was learned of the BMC: it is another one now, or has another password.
    pub fn forget_bmc(&mut self, now: Now) {
        self.streak = Streak::default();
        self.row.refused_logins = 0;
        self.row.refused_at = None;
        self.row.login_since = None;
        self.row.blocked_until = None;
        self.inspect_due = None;
        self.inspected = None;
        self.cannot_inspect = false;
        self.row.management = None;
        self.row.management_since = now.wall.into();
        self.row.error = None;
        self.last_word = now.boottime;
    }

    /// All that is known, for an aggregator that missed reports.
    pub fn all_known(&self, now: Now) -> impl Iterator<Item = Report> + '_ {
        let facts = self.facts.as_ref().map(|row| row.report());
        let ha = self.watch.as_ref().filter(|watch| watch.row.version > 0).map(|watch| watch.row.report());
        std::iter::once(self.snapshot()).chain(facts).chain(self.password_verdict(now)).chain(ha)
    }

    /// The state that is known.
    #[must_use]
    pub fn snapshot(&self) -> Report {
        Report::Snapshot(Snapshot {
            host: self.row.host.clone(),
            enablement: self.row.enablement,
            power: self.row.power,
            power_since: self.row.power_since,
            management: self.row.management,
            management_since: self.row.management_since,
            error: self.row.error.clone(),
        })
    }
}
