//! One host: its state, its poll schedule, its operations. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::BmcError;
use picket_common::id::HostId;
use picket_common::power::{Cause, Management, PowerEvent, PowerState};
use picket_common::wire::Time;
use picket_common::wire::assign::HostAssignment;
use picket_common::wire::report::{ManagementReport, PowerReport, Report, Snapshot};
use serde::{Deserialize, Serialize};

use super::operation::Operation;
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
    /// No login before this.
    pub blocked_until: Option<Time>,
    /// Revision of the BMC settings this was learned with.
    pub revision: u64,
}

/// A host in memory.
#[derive(Debug)]
pub struct Host {
    /// As assigned.
    pub assignment: HostAssignment,
    /// Its BMC with the password opened; absent when not configured or not openable.
    pub bmc: Option<Arc<Bmc>>,
    /// Its driver's name.
    pub driver: Arc<str>,
    /// What is journalled.
    pub row: HostRow,
    /// Failures in a row.
    pub streak: Streak,
    /// No login before this (boottime).
    pub blocked_until: Option<Duration>,
    /// When a request last ended, well or not.
    pub last_word: Duration,
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
}

/// A request in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    /// Its ticket.
    pub ticket: u64,
    /// What was asked.
    pub ask: Ask,
    /// Whether the active operation asked for it.
    pub for_operation: bool,
}

impl Host {
    /// A host that was just assigned: Disabled until its gates are looked at.
    #[must_use]
    pub fn new(assignment: HostAssignment, now: Now) -> Self {
        let row = HostRow {
            host: assignment.host.clone(),
            enablement: 0,
            power: PowerState::Disabled,
            power_since: now.wall.into(),
            management: None,
            management_since: now.wall.into(),
            error: None,
            refused_logins: 0,
            blocked_until: None,
            revision: 0,
        };
        Self::with_row(assignment, row, now)
    }

    /// A host as the journal knew it.
    #[must_use]
    pub fn with_row(assignment: HostAssignment, row: HostRow, now: Now) -> Self {
        let blocked_until = row.blocked_until.map(|until| {
            let left = u64::try_from(until.0.saturating_sub(Time::from(now.wall).0)).unwrap_or(0);
            now.boottime.saturating_add(Duration::from_micros(left).min(BLOCKED_FOR))
        });
        Self {
            streak: Streak { silent: 0, refused_logins: row.refused_logins },
            assignment,
            bmc: None,
            driver: "".into(),
            row,
            blocked_until,
            last_word: now.boottime,
            poll_due: now.boottime,
            in_flight: None,
            operations: VecDeque::new(),
            operation_due: None,
            stamp: 0,
        }
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
            && self.blocked_until.is_none()
            && now.saturating_sub(self.last_word) > self.interval() * 3 + Duration::from_secs(2)
    }

    /// Takes an observation in; gives the reports if anything changed.
    pub fn observe(&mut self, seen: Observation, cause: Cause, now: Now) -> Vec<Report> {
        self.streak = seen.streak;
        self.row.refused_logins = seen.streak.refused_logins;
        self.block(seen.streak, now);
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

    fn block(&mut self, streak: Streak, now: Now) {
        if streak.refused_logins == 0 {
            self.blocked_until = None;
            self.row.blocked_until = None;
        } else if streak.refused_logins >= BLOCKED_AFTER && self.blocked_until.is_none_or(|until| until <= now.boottime) {
            let until = now.after(BLOCKED_FOR);
            self.blocked_until = Some(until.boottime);
            self.row.blocked_until = Some(until.wall.into());
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
        self.blocked_until = None;
        self.row.refused_logins = 0;
        self.row.blocked_until = None;
        self.row.management = None;
        self.row.management_since = now.wall.into();
        self.row.error = None;
        self.last_word = now.boottime;
    }

    /// All that is known, after a gap.
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
