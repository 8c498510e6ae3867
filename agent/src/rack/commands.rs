//! What becomes of commands: admitted or refused once, queued, carried out one step at a time, reported. Pure, as all of the rack.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{ErrorClass, Outcome, Refusal};
use picket_common::id::{HostId, OperationId};
use picket_common::wire::Time;
use picket_common::wire::down::PowerCommand;
use picket_common::wire::report::{MAX_TEXT, OperationReport, Progress, Report};

use super::admission::{Standing, Verdict, admit};
use super::host::{Host, Purpose};
use super::moment::Moment;
use super::operation::{Input, Operation, Phase, Step};
use super::{Decision, Rack, Record, timeout_of};
use crate::bmc::{Ask, DriverError, cut};

/// How long after its deadline a command's id is remembered, for copies that come late.
const SEEN_MARGIN: Duration = Duration::from_secs(600);
/// Longest time an operation may be given, so the latest deadline that a command still under way can have.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// Time kept back for a driver's last word before an operation's deadline.
const LAST_WORD: Duration = Duration::from_millis(200);
/// Most commands that wait for their assignment.
const MAX_EARLY: usize = 256;

impl Rack {
    pub(super) fn commanded(&mut self, command: PowerCommand, now: Now, decision: &mut Decision) {
        let key = (command.operation, command.host.clone());
        if self.seen.contains_key(&key) {
            return;
        }
        if !self.assignments.covers(command.generation) {
            self.keep_early(command, now, decision);
            return;
        }
        self.remember(&command, decision);
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
            _ => admit(&command, standing, now),
        };
        match (verdict, slot) {
            (Verdict::Admitted(left), Some(slot)) => self.admitted(slot, command, left, now, decision),
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
    fn keep_early(&mut self, command: PowerCommand, now: Now, decision: &mut Decision) {
        if self.early.iter().any(|early| early.operation == command.operation && early.host == command.host) {
            return;
        }
        if self.early.len() < MAX_EARLY {
            self.early.push(command);
        } else {
            self.remember(&command, decision);
            report(decision, command.operation, &command.host, Progress::Done(Outcome::Refused(Refusal::Busy)), now);
        }
    }

    fn remember(&mut self, command: &PowerCommand, decision: &mut Decision) {
        self.mark_seen(command.operation, &command.host, command.deadline, decision);
    }

    fn mark_seen(&mut self, operation: OperationId, host: &HostId, deadline: Time, decision: &mut Decision) {
        let margin = i64::try_from(SEEN_MARGIN.as_micros()).unwrap_or(i64::MAX);
        let until = Time(deadline.0.saturating_add(margin));
        self.seen.insert((operation, host.clone()), until);
        decision.records.push(Record::Seen(operation, host.clone(), until));
    }

    fn admitted(&mut self, slot: usize, command: PowerCommand, left: Duration, now: Now, decision: &mut Decision) {
        report(decision, command.operation, &command.host, Progress::Admitted, now);
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
        for command in std::mem::take(&mut self.early) {
            self.commanded(command, now, decision);
        }
    }

    pub(super) fn expire_early(&mut self, now: Now, decision: &mut Decision) {
        let clock = self.clock;
        let centre_now = clock.map_or(Time::from(now.wall), |clock| clock.latest(now.boottime));
        let (late, early) = std::mem::take(&mut self.early).into_iter().partition(|command| command.deadline <= centre_now);
        self.early = early;
        let late: Vec<PowerCommand> = late;
        for command in late {
            // A copy that came with the assignment we hold has been judged: this one must not say otherwise.
            if self.seen.contains_key(&(command.operation, command.host.clone())) {
                continue;
            }
            self.remember(&command, decision);
            report(decision, command.operation, &command.host, Progress::Done(Outcome::Expired), now);
        }
    }

    pub(super) fn cancelled(&mut self, operation: OperationId, id: &HostId, now: Now, decision: &mut Decision) {
        self.early.retain(|command| command.operation != operation || command.host != *id);
        if !self.seen.contains_key(&(operation, id.clone())) {
            // It has not come yet: when it does it is refused as seen, so it can be called cancelled now.
            self.mark_seen(operation, id, now.after(MAX_TIMEOUT).wall.into(), decision);
            report(decision, operation, id, Progress::Done(Outcome::Cancelled), now);
            return;
        }
        let Some(host) = self.by_id.get(id).copied().and_then(|slot| self.host_mut(slot)) else { return };
        let waiting = |op: &Operation| op.command.operation == operation && matches!(op.phase, Phase::Queued);
        let Some(place) = host.operations.iter().position(waiting) else { return };
        if let Some(operation) = host.operations.remove(place) {
            end(decision, &operation, Outcome::Cancelled, now);
        }
    }

    pub(super) fn end_operations(&mut self, slot: usize, refusal: Refusal, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        host.operation_due = None;
        for operation in std::mem::take(&mut host.operations) {
            let outcome = operation.interrupted(refusal);
            end(decision, &operation, outcome, now);
        }
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
            match step {
                Step::Wait(pause) => host.operation_due = Some(now.boottime.saturating_add(pause)),
                Step::Ask(ask) => self.ask_for_operation(slot, ask, now, decision),
                Step::Prove => host.operation_due = Some(now.boottime.saturating_add(Duration::from_secs(1))),
                Step::Done(outcome) => {
                    host.operation_due = None;
                    if let Some(operation) = host.operations.pop_front() {
                        end(decision, &operation, outcome, now);
                    }
                    host.poll_due = host.poll_due.max(now.boottime.saturating_add(Duration::from_secs(1)));
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
        if host.blocked(now.boottime).is_some() {
            let error = blocked_error(host);
            host.operation_due = None;
            let input = if ask == Ask::Status { Input::Read(Err(&error), now.boottime) } else { Input::Ordered(Err(&error)) };
            self.operate(slot, input, now, decision);
            return;
        }
        host.operation_due = None;
        let Some(operation) = host.operations.front() else { return };
        let purpose = Purpose::Operation(operation.command.operation);
        let timeout = timeout_of(host, ask).min(time_for(operation, now));
        self.send(slot, ask, purpose, timeout, decision);
    }
}

/// What is left of an operation's time for one request, with a little kept back: a driver that runs into it still says why.
fn time_for(operation: &Operation, now: Now) -> Duration {
    let left = operation.deadline.boottime.saturating_sub(now.boottime);
    if left > LAST_WORD * 2 { left.saturating_sub(LAST_WORD) } else { left }
}

/// Why no request is sent while logins pause.
fn blocked_error(host: &Host) -> DriverError {
    let last = host.row.error.as_ref().map_or_else(|| "the login was refused".to_owned(), |error| error.text.clone());
    DriverError {
        driver: "picket",
        address: host.assignment.bmc.as_ref().map(|bmc| bmc.address.clone()).unwrap_or_default(),
        class: ErrorClass::Auth,
        code: "auth-blocked".into(),
        text: format!(
            "logins are paused after two refusals, or the account could be locked; set the right password. Last answer: {last}"
        ),
        maybe_sent: false,
    }
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
