//! What becomes of commands: admitted or refused once, queued, carried out one step at a time, reported. Pure, as all of the rack.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{Action, ErrorClass, Outcome, Refusal};
use picket_common::id::{HostId, OperationId};
use picket_common::wire::Time;
use picket_common::wire::down::{ChangePassword, PowerCommand};
use picket_common::wire::report::{MAX_TEXT, OperationReport, Progress, Report};

use super::admission::{Standing, Verdict, admit};
use super::host::{Host, Purpose};
use super::moment::Moment;
use super::operation::{Input, Operation, Phase, Step};
use super::password::NewPassword;
use super::request::timeout_of;
use super::{Decision, Rack, Record};
use crate::bmc::{Ask, DriverError, cut};

/// How long after its deadline a command's id is remembered, for copies that come late.
const SEEN_MARGIN: Duration = Duration::from_secs(600);
/// Longest time an operation may be given, so the latest deadline that a command still under way can have.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// Time kept back for a driver's last word before an operation's deadline.
const LAST_WORD: Duration = Duration::from_millis(200);
/// Most commands that wait for their assignment.
const MAX_EARLY: usize = 256;

/// A command as it came, with what it sets.
#[derive(Debug)]
pub(super) struct Order {
    /// What to do.
    pub(super) command: PowerCommand,
    /// For a change of password.
    pub(super) password: Option<NewPassword>,
}

impl Order {
    fn is(&self, operation: OperationId, host: &HostId) -> bool {
        self.command.operation == operation && self.command.host == *host
    }
}

impl From<PowerCommand> for Order {
    fn from(command: PowerCommand) -> Self {
        Self { command, password: None }
    }
}

impl From<ChangePassword> for Order {
    fn from(change: ChangePassword) -> Self {
        let ChangePassword { command, password: sealed, base_revision, revision } = change;
        Self { command, password: Some(NewPassword { sealed, base_revision, revision }) }
    }
}

impl Rack {
    pub(super) fn commanded(&mut self, order: Order, now: Now, decision: &mut Decision) {
        let command = &order.command;
        let key = (command.operation, command.host.clone());
        if self.seen.contains_key(&key) {
            return;
        }
        if !self.assignments.covers(command.generation) {
            self.keep_early(order, now, decision);
            return;
        }
        self.remember(command, decision);
        let slot = self.by_id.get(&command.host).copied();
        let host = slot.and_then(|slot| self.host(slot));
        let standing = Standing {
            assignment: host.map(|host| &host.assignment),
            epoch: self.assignments.epoch,
            clock: self.clock,
            queued: host.map_or(0, |host| host.operations.len()),
        };
        let verdict = match host {
            _ if !self.journal_works => Verdict::Refused(Refusal::JournalUnavailable),
            Some(host) if host.is_locked() => Verdict::Refused(Refusal::PasswordNeeded),
            _ => admit(command, standing, now),
        };
        let starts = matches!(command.action, Action::On | Action::Cycle | Action::Reset);
        let is_fenced = host.and_then(|host| host.watch.as_deref()).is_some_and(|watch| watch.is_locked());
        let verdict = match verdict {
            Verdict::Admitted(_) if starts && is_fenced => Verdict::Refused(Refusal::HostFenced),
            verdict => verdict,
        };
        let verdict = match (verdict, &order.password, host) {
            (Verdict::Admitted(_), Some(new), Some(host)) => {
                host.refuse_change(new, &self.settings.sealing_key).map_or(verdict, Verdict::Refused)
            }
            _ => verdict,
        };
        match (verdict, slot) {
            (Verdict::Admitted(left), Some(slot)) => self.admitted(slot, order, left, now, decision),
            (Verdict::Admitted(_), None) => {
                report(decision, command.operation, &command.host, Progress::Done(Outcome::Refused(Refusal::NotAssigned)), now)
            }
            (Verdict::Expired, _) => report(decision, command.operation, &command.host, Progress::Done(Outcome::Expired), now),
            (Verdict::Refused(refusal), _) => {
                report(decision, command.operation, &command.host, Progress::Done(Outcome::Refused(refusal)), now)
            }
        }
    }

    /// A command of a newer assignment than ours waits for it, or for its deadline.
    fn keep_early(&mut self, order: Order, now: Now, decision: &mut Decision) {
        let command = &order.command;
        if self.early.iter().any(|early| early.is(command.operation, &command.host)) {
            return;
        }
        if self.early.len() < MAX_EARLY {
            self.early.push(order);
        } else {
            self.remember(command, decision);
            report(decision, command.operation, &command.host, Progress::Done(Outcome::Refused(Refusal::Busy)), now);
        }
    }

    fn remember(&mut self, command: &PowerCommand, decision: &mut Decision) {
        self.mark_seen(command.operation, &command.host, command.deadline, decision);
    }

    pub(super) fn mark_seen(&mut self, operation: OperationId, host: &HostId, deadline: Time, decision: &mut Decision) {
        let margin = i64::try_from(SEEN_MARGIN.as_micros()).unwrap_or(i64::MAX);
        let until = Time(deadline.0.saturating_add(margin));
        self.seen.insert((operation, host.clone()), until);
        decision.records.push(Record::Seen(operation, host.clone(), until));
    }

    pub(super) fn forget_seen(&mut self, now: Now, decision: &mut Decision) {
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

    fn admitted(&mut self, slot: usize, order: Order, left: Duration, now: Now, decision: &mut Decision) {
        let Order { command, password } = order;
        report(decision, command.operation, &command.host, Progress::Admitted, now);
        if let Some(new) = password {
            self.begin_change(slot, command.operation, new, decision);
        }
        let until = now.after(left);
        let operation = Operation::new(command, Moment::at(self.settings.machine_boot, until));
        decision.records.push(Record::Operation(operation.clone()));
        let Some(host) = self.host_mut(slot) else { return };
        host.operations.push_back(operation);
        if host.operations.len() == 1 {
            self.operate(slot, Input::Start, now, decision);
        }
    }

    pub(super) fn retry_early(&mut self, now: Now, decision: &mut Decision) {
        for order in std::mem::take(&mut self.early) {
            self.commanded(order, now, decision);
        }
    }

    pub(super) fn expire_early(&mut self, now: Now, decision: &mut Decision) {
        let clock = self.clock;
        let centre_now = clock.map_or(Time::from(now.wall), |clock| clock.latest(now.boottime));
        let (late, early) = std::mem::take(&mut self.early).into_iter().partition(|order| order.command.deadline <= centre_now);
        self.early = early;
        let late: Vec<Order> = late;
        for Order { command, .. } in late {
            // A copy that came with the assignment we hold has been judged: this one must not say otherwise.
            if self.seen.contains_key(&(command.operation, command.host.clone())) {
                continue;
            }
            self.remember(&command, decision);
            report(decision, command.operation, &command.host, Progress::Done(Outcome::Expired), now);
        }
    }

    pub(super) fn cancelled(&mut self, operation: OperationId, id: &HostId, now: Now, decision: &mut Decision) {
        self.early.retain(|early| !early.is(operation, id));
        if !self.seen.contains_key(&(operation, id.clone())) {
            // It has not come yet: when it does it is refused as seen, so it can be called cancelled now.
            self.mark_seen(operation, id, now.after(MAX_TIMEOUT).wall.into(), decision);
            report(decision, operation, id, Progress::Done(Outcome::Cancelled), now);
            return;
        }
        let Some(&slot) = self.by_id.get(id) else { return };
        let Some(host) = self.host_mut(slot) else { return };
        let waiting = |op: &Operation| op.command.operation == operation && matches!(op.phase, Phase::Queued);
        let Some(place) = host.operations.iter().position(waiting) else { return };
        if let Some(operation) = host.operations.remove(place) {
            self.finish(slot, &operation, Outcome::Cancelled, now, decision);
        }
    }

    pub(super) fn end_operations(&mut self, slot: usize, refusal: Refusal, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        host.operation_due = None;
        for operation in std::mem::take(&mut host.operations) {
            let outcome = operation.interrupted(refusal);
            self.finish(slot, &operation, outcome, now, decision);
        }
    }

    fn finish(&mut self, slot: usize, operation: &Operation, outcome: Outcome, now: Now, decision: &mut Decision) {
        if operation.command.action == Action::ChangePassword {
            self.withdraw_change(slot, operation.command.operation, now, decision);
        }
        let ended = outcome.clone();
        end(decision, operation, outcome, now);
        self.watch_operation_ended(slot, operation, &ended, now, decision);
    }

    pub(super) fn operate(&mut self, slot: usize, input: Input<'_>, now: Now, decision: &mut Decision) {
        let mut input = Some(input);
        // Bounded: each turn either waits, asks, or takes one operation off the queue.
        while let Some(this) = input.take() {
            let Some(host) = self.host_mut(slot) else { return };
            let Some(operation) = host.operations.front_mut() else { break };
            let before = operation.phase.clone();
            let step = operation.step(this, now.boottime);
            if operation.phase != before {
                decision.records.push(Record::Operation(operation.clone()));
            }
            if step == Step::Ask(Ask::SetPassword) {
                self.send_password(slot, decision);
            }
            let Some(host) = self.host_mut(slot) else { return };
            match step {
                Step::Wait(pause) => host.operation_due = Some(now.boottime.saturating_add(pause)),
                Step::Ask(ask) => self.ask_for_operation(slot, ask, now, decision),
                Step::Prove => self.prove(slot, now, decision),
                Step::Done(outcome) => {
                    host.operation_due = None;
                    host.poll_due = host.poll_due.max(now.boottime.saturating_add(Duration::from_secs(1)));
                    if let Some(operation) = host.operations.pop_front() {
                        self.finish(slot, &operation, outcome, now, decision);
                    }
                    input = Some(Input::Start);
                }
            }
        }
        self.reschedule(slot);
    }

    fn ask_for_operation(&mut self, slot: usize, ask: Ask, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        if host.in_flight.is_some() {
            // A poll is under way: one request at a time. Its end starts this one.
            return;
        }
        if host.is_in_doubt() && ask != Ask::SetPassword {
            // First it must be known which password works; then the operation goes on.
            self.prove(slot, now, decision);
            return;
        }
        if host.blocked(now.boottime).is_some() {
            let error = blocked_error(host);
            host.operation_due = None;
            let input = if ask == Ask::Status { Input::Read(Err(&error), now.boottime) } else { Input::Ordered(Err(&error)) };
            self.operate(slot, input, now, decision);
            return;
        }
        host.operation_due = None;
        let openable = ask != Ask::SetPassword || self.new_password(slot).is_some();
        let Some(host) = self.host_mut(slot) else { return };
        if !openable {
            let error = not_openable(host);
            self.password_answered(slot, Some(&error), now, decision);
            self.operate(slot, Input::Ordered(Err(&error)), now, decision);
            return;
        }
        let Some(operation) = host.operations.front() else { return };
        let purpose = Purpose::Operation(operation.command.operation);
        let timeout = timeout_of(host, ask).min(time_for(operation, now));
        self.send(slot, ask, purpose, timeout, now, decision);
    }
}

/// What is left of an operation's time for one request, with a little kept back: a driver that runs into it still says why.
pub(super) fn time_for(operation: &Operation, now: Now) -> Duration {
    let left = operation.deadline.boottime.saturating_sub(now.boottime);
    if left > LAST_WORD * 2 { left.saturating_sub(LAST_WORD) } else { left }
}

/// Why no request is sent while logins pause.
pub(super) fn blocked_error(host: &Host) -> DriverError {
    let last = host.row.error.as_ref().map_or_else(|| "the login was refused".to_owned(), |error| error.text.clone());
    let text = format!(
        "logins are paused after two refusals, or the account could be locked; set the right password. Last answer: {last}"
    );
    own_error(host, ErrorClass::Auth, "auth-blocked", text)
}

/// The key that the new password was sealed to is not this agent's any more.
fn not_openable(host: &Host) -> DriverError {
    own_error(host, ErrorClass::Setting, Refusal::PasswordNeeded.code(), Refusal::PasswordNeeded.to_string())
}

fn own_error(host: &Host, class: ErrorClass, code: &str, text: String) -> DriverError {
    let address = host.assignment.bmc.as_ref().map(|bmc| bmc.address.clone()).unwrap_or_default();
    DriverError { driver: "picket", address, class, code: code.into(), text, maybe_sent: false }
}

fn report(decision: &mut Decision, operation: OperationId, host: &HostId, progress: Progress, now: Now) {
    let report = OperationReport { operation, host: host.clone(), at: now.wall.into(), progress };
    decision.records.push(Record::Report(Box::new(Report::Operation(report))));
}

pub(super) fn end(decision: &mut Decision, operation: &Operation, outcome: Outcome, now: Now) {
    let command = &operation.command;
    // Texts of BMCs are of any length; a report that the wire refuses would hold up all that come after it.
    let outcome = match outcome {
        Outcome::Unknown(text) => Outcome::Unknown(cut(&text, MAX_TEXT)),
        other => other,
    };
    decision.records.push(Record::OperationEnded(command.operation, command.host.clone()));
    report(decision, command.operation, &command.host, Progress::Done(outcome), now);
}
