//! Finding out which password a BMC takes: the rack's side of a change ([`super::change`]). Pure. While that is in doubt nothing
//! but logins with one of the two is asked, of which no more than two are refused within a quarter of an hour.

use std::sync::Arc;
use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{Action, Refusal};
use picket_common::id::OperationId;
use picket_common::power::Cause;
use picket_common::seal::{self, Belongs, Sealed};
use picket_common::secret::Secret;
use picket_common::wire::assign::HostAssignment;
use picket_common::wire::report::{InForce, PasswordReport, Report};

use super::assigned::{bmc_of, revision, settings_of};
use super::change::{PasswordChange, Refused, Stage, Which};
use super::commands::{blocked_error, time_for};
use super::host::{Host, Purpose};
use super::moment::Moment;
use super::operation::{Input, Phase};
use super::request::timeout_of;
use super::{Decision, Rack, Record};
use crate::bmc::{Ask, Bmc, Completion, DriverError, ErrorClass, NOT_SUPPORTED, Reading, cut};
use crate::observe::observe;

/// How long after the old password was proven a BMC may yet take on the new one that it was sent.
const LATE: Duration = Duration::from_secs(3600);
/// Most changes remembered of hosts that are not ours any more: they may come back with the same settings.
const MAX_STRAYS: usize = 4096;

/// What a command sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewPassword {
    /// Sealed to this agent.
    pub(super) sealed: Sealed,
    /// Revision of the BMC settings it starts from.
    pub(super) base_revision: u64,
    /// Revision of the BMC settings with it.
    pub(super) revision: u64,
}

/// What became of a refused login.
enum Outlook {
    /// The other password is being tried.
    Trying,
    /// Logins pause; this is why.
    Paused(DriverError),
    /// Both were refused; this is what is told.
    Neither(DriverError),
}

impl Host {
    /// Why a change of its password cannot begin.
    pub(super) fn refuse_change(&self, new: &NewPassword, key: &Secret<[u8; 32]>) -> Option<Refusal> {
        let other_settings = revision(&self.assignment) != new.base_revision;
        if other_settings || self.change.as_deref().is_some_and(PasswordChange::is_open) {
            return Some(Refusal::Busy);
        }
        open_new(&self.assignment, &new.sealed, key).is_none().then_some(Refusal::PasswordNeeded)
    }

    /// Whether it is not known which password its BMC takes.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.doubt().is_some())
    }

    /// Other settings came with the same password: the change starts from these now.
    pub(super) fn rebase_change(&mut self, revision: u64, decision: &mut Decision) {
        if let Some(change) = self.change.as_mut().filter(|change| change.base_revision < revision) {
            change.base_revision = revision;
            self.record_change(decision);
        }
    }

    fn record_change(&self, decision: &mut Decision) {
        decision.records.extend(self.change.clone().map(Record::Password));
    }

    fn tell(&self, in_force: InForce, now: Now, decision: &mut Decision) {
        let report = self.change.as_ref().map(|change| password_report(change, in_force, now));
        decision.records.extend(report.map(|report| Record::Report(Box::new(report))));
    }

    /// What was told of its password, for an aggregator that missed it.
    pub(super) fn password_verdict(&self, now: Now) -> Option<Report> {
        let change = self.change.as_ref()?;
        change.verdict().map(|in_force| password_report(change, in_force, now))
    }
}

fn password_report(change: &PasswordChange, in_force: InForce, now: Now) -> Report {
    Report::Password(PasswordReport {
        host: change.host.clone(),
        operation: change.operation,
        revision: change.revision,
        observed_at: now.wall.into(),
        in_force,
    })
}

impl Rack {
    // ---- the steps of a change ----

    /// What is to be set is durable before anything is sent.
    pub(super) fn begin_change(&mut self, slot: usize, operation: OperationId, new: NewPassword, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        let NewPassword { sealed, base_revision, revision } = new;
        let host_id = host.row.host.clone();
        let old = host.assignment.bmc.as_ref().and_then(|bmc| bmc.password.clone());
        let stage = Stage::Pending;
        let change = PasswordChange { host: host_id, operation, base_revision, revision, old, new: sealed, stage };
        host.change = Some(Box::new(change));
        host.record_change(decision);
    }

    /// The new password is about to be sent.
    pub(super) fn send_password(&mut self, slot: usize, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        if let Some(change) = host.change.as_mut().filter(|change| change.is_pending()) {
            change.send();
            host.record_change(decision);
        }
    }

    /// The password that a job sets.
    pub(super) fn new_password(&self, slot: usize) -> Option<Secret<String>> {
        let host = self.host(slot)?;
        open_new(&host.assignment, &host.change.as_ref()?.new, &self.settings.sealing_key)
    }

    /// The BMC's answer to the new password, which may come after its operation ended.
    pub(super) fn password_answered(&mut self, slot: usize, error: Option<&DriverError>, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        let Some(change) = &mut host.change else { return };
        match error {
            Some(error) if error.code == NOT_SUPPORTED => {
                change.withdraw();
                host.tell(InForce::Old, now, decision);
            }
            Some(error) if !error.maybe_sent => change.guess_old(),
            _ => return,
        }
        host.record_change(decision);
    }

    /// An operation ended: a change of which nothing was sent ends with it.
    pub(super) fn withdraw_change(&mut self, slot: usize, operation: OperationId, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        let pending = host.change.as_mut().filter(|change| change.operation == operation && change.is_pending());
        if let Some(change) = pending {
            change.withdraw();
            host.record_change(decision);
            host.tell(InForce::Old, now, decision);
        }
    }

    // ---- proving ----

    /// Logs in with the password that is to be tried next.
    pub(super) fn prove(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        if !self.journal_works {
            // A login that could not be remembered could be one too many.
            self.rest(slot, now);
            return;
        }
        let Some(host) = self.host_mut(slot).filter(|host| host.in_flight.is_none()) else { return };
        if host.blocked(now.boottime).is_some() {
            let error = blocked_error(host);
            self.unproven(slot, &error, now, decision);
            return;
        }
        let Some((which, bmc)) = self.candidate(slot, decision) else {
            self.rest(slot, now);
            return;
        };
        let Some(host) = self.host_mut(slot) else { return };
        host.operation_due = None;
        let longest = timeout_of(host, Ask::TryLogin);
        let timeout = host.operations.front().map_or(longest, |operation| longest.min(time_for(operation, now)));
        self.send_to(slot, Arc::new(bmc), Ask::TryLogin, Purpose::Proof(which), timeout, now, decision);
    }

    /// The password to try next, as the BMC's settings with it. One that does not open any more is passed over.
    fn candidate(&mut self, slot: usize, decision: &mut Decision) -> Option<(Which, Bmc)> {
        let key = self.settings.sealing_key.clone();
        let host = self.host_mut(slot)?;
        for _ in 0..2 {
            let change = host.change.as_mut()?;
            let which = change.doubt()?;
            let bmc = match which {
                Which::New => with_new(&host.assignment, change, &key),
                Which::Old => bmc_of(&host.assignment, &key),
            };
            if let Some(bmc) = bmc {
                return Some((which, bmc));
            }
            change.refuse();
            host.record_change(decision);
        }
        None
    }

    pub(super) fn proof_ended(&mut self, slot: usize, which: Which, completion: &Completion, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        host.last_word = now.boottime;
        host.row.login_since = None;
        let Err(error) = &completion.result else {
            self.proven(slot, which, now, decision);
            return;
        };
        if error.class != ErrorClass::Auth {
            self.see(slot, Err(error), now, decision);
            self.unproven(slot, error, now, decision);
            return;
        }
        match self.login_refused(slot, error, now, decision) {
            Outlook::Trying => {}
            Outlook::Paused(error) => self.unproven(slot, &error, now, decision),
            Outlook::Neither(error) => {
                if self.is_changing(slot) {
                    self.operate(slot, Input::Proven(InForce::Neither), now, decision);
                } else {
                    self.unproven(slot, &error, now, decision);
                }
            }
        }
    }

    /// A login worked: that password is in force from here on.
    fn proven(&mut self, slot: usize, which: Which, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        let Some(change) = &mut host.change else { return };
        let in_force = change.prove(which, Moment::at(host.boot, now.after(LATE)));
        host.record_change(decision);
        host.tell(in_force, now, decision);
        self.open_bmc(slot);
        self.see(slot, Ok(Reading::Transitioning), now, decision);
        if self.is_changing(slot) {
            self.operate(slot, Input::Proven(in_force), now, decision);
        } else if self.host(slot).is_some_and(|host| !host.operations.is_empty()) {
            self.operate(slot, Input::Start, now, decision);
        } else {
            // That a login works says nothing about the power.
            if let Some(host) = self.host_mut(slot) {
                host.poll_due = now.boottime;
            }
            self.reschedule(slot);
        }
    }

    /// No password was proven now: whoever waits for it is told, and it is tried again.
    fn unproven(&mut self, slot: usize, error: &DriverError, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        host.operation_due = None;
        let input = match host.operations.front().map(|operation| &operation.phase) {
            None => return self.rest(slot, now),
            Some(Phase::Proving { .. }) => Input::Unproven(error),
            Some(Phase::Reading { .. } | Phase::Confirming { .. }) => Input::Read(Err(error), now.boottime),
            Some(_) => Input::Ordered(Err(error)),
        };
        self.operate(slot, input, now, decision);
    }

    /// Whether the active operation is the change itself, and waits to know which password works.
    fn is_changing(&self, slot: usize) -> bool {
        let active = self.host(slot).and_then(|host| host.operations.front());
        active.is_some_and(|operation| {
            operation.command.action == Action::ChangePassword && matches!(operation.phase, Phase::Proving { .. })
        })
    }

    /// A password that was settled is refused: whether the other one may be in force after all.
    pub(super) fn doubt_again(&mut self, slot: usize, error: &DriverError, now: Now, decision: &mut Decision) -> bool {
        let Some(host) = self.host_mut(slot) else { return false };
        let at = Moment::at(host.boot, now);
        if host.change.as_mut().and_then(|change| change.reopen(at)).is_none() {
            return false;
        }
        self.login_refused(slot, error, now, decision);
        true
    }

    /// The password that was to be tried was refused: counts it, and tries the other one if that is still allowed.
    fn login_refused(&mut self, slot: usize, error: &DriverError, now: Now, decision: &mut Decision) -> Outlook {
        let Some(host) = self.host_mut(slot) else { return Outlook::Trying };
        let lately = host.was_refused_lately(now.boottime);
        let refused = host.change.as_deref_mut().and_then(PasswordChange::refuse);
        host.record_change(decision);
        match refused {
            Some(Refused::TryOther) if !lately => {
                host.refuse_login(now);
                self.prove(slot, now, decision);
                Outlook::Trying
            }
            Some(Refused::Neither { first }) => {
                if first {
                    host.tell(InForce::Neither, now, decision);
                }
                let text = "neither the new password nor the old one works; both are tried again every 15 minutes, until one does or \
                            another is set here";
                let error = explained(error, text);
                self.see(slot, Err(&error), now, decision);
                Outlook::Neither(error)
            }
            Some(Refused::TryOther) | None => {
                let text =
                    "after a change of the password one of the two was refused; the other is tried when logins are allowed again";
                let error = explained(error, text);
                self.see(slot, Err(&error), now, decision);
                Outlook::Paused(error)
            }
        }
    }

    /// What a login says of the BMC, whatever it was for.
    fn see(&mut self, slot: usize, result: Result<Reading, &DriverError>, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        let seen = observe(result, host.row.management, host.streak);
        let reports = host.observe(seen, Cause::Poll, now);
        decision.records.push(Record::Host(host.row.clone()));
        decision.records.extend(reports.into_iter().map(|report| Record::Report(Box::new(report))));
    }

    // ---- assignments ----

    /// A host leaves the rack: what is not settled is remembered, for the host may come back with the same settings.
    pub(super) fn stray(&mut self, slot: usize, decision: &mut Decision) {
        let Some(change) = self.host_mut(slot).and_then(|host| host.change.take()) else { return };
        if change.is_open() && self.strays.len() < MAX_STRAYS {
            self.strays.insert(change.host.clone(), change);
        } else {
            decision.records.push(Record::PasswordEnded(change.host));
        }
    }

    /// Gives the changes that the journal kept back to their hosts. One of which nothing was sent and whose operation is gone
    /// is over.
    pub(super) fn restore_changes(&mut self, changes: Vec<PasswordChange>, now: Now) {
        let boot = self.settings.machine_boot;
        for mut change in changes.into_iter().map(Box::new) {
            if let Stage::Old { late_until: Some(until) } = &mut change.stage {
                *until = until.seen_from(boot, now);
            }
            let host = self.by_id.get(&change.host).copied().and_then(|slot| self.host_mut(slot));
            let Some(host) = host else {
                self.strays.insert(change.host.clone(), change);
                continue;
            };
            let carried_out = host.operations.iter().any(|operation| operation.command.operation == change.operation);
            if change.is_pending() && !carried_out {
                change.withdraw();
            }
            host.change = Some(change);
        }
    }
}

/// Whether an assignment leaves a change as it is. Older settings than those it started from do, which an aggregator that was
/// restored may send; later ones only with the same password for the same login. Any other password in them wins.
pub(super) fn goes_on(assignment: &HostAssignment, change: &PasswordChange, key: &Secret<[u8; 32]>) -> bool {
    let Some(bmc) = &assignment.bmc else { return false };
    let same_login = || bmc.password == change.old && open_new(assignment, &change.new, key).is_some();
    bmc.revision <= change.base_revision || same_login()
}

/// The BMC's settings as they are in force: the assignment's, with the new password once that is proven.
pub(super) fn in_force(assignment: &HostAssignment, change: Option<&PasswordChange>, key: &Secret<[u8; 32]>) -> Option<Bmc> {
    let new = change.filter(|change| change.uses_new()).and_then(|change| with_new(assignment, change, key));
    new.or_else(|| bmc_of(assignment, key))
}

/// Of a later revision than the assignment's: a session of the old password must not be used any more.
fn with_new(assignment: &HostAssignment, change: &PasswordChange, key: &Secret<[u8; 32]>) -> Option<Bmc> {
    let bmc = assignment.bmc.as_ref()?;
    let password = open_new(assignment, &change.new, key)?;
    Some(settings_of(&assignment.host, bmc, password, change.revision.max(bmc.revision.saturating_add(1))))
}

/// A new password is sealed for the one host only, never for a whole cluster.
fn open_new(assignment: &HostAssignment, sealed: &Sealed, key: &Secret<[u8; 32]>) -> Option<Secret<String>> {
    let bmc = assignment.bmc.as_ref()?;
    let belongs = Belongs::Host { host: &assignment.host, address: &bmc.address, username: &bmc.username };
    seal::open(key, belongs, sealed).ok()
}

fn explained(error: &DriverError, what: &str) -> DriverError {
    DriverError { text: format!("{what}. The BMC's last answer: {}", cut(&error.text, 512)), ..error.clone() }
}
