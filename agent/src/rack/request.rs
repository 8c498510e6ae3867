//! One request to a BMC: how it is sent, and what its answer means for whoever waits for it. Pure.

use std::sync::Arc;
use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::ErrorClass;
use picket_common::facts::Facts;
use picket_common::power::Cause;

use super::host::{Flight, Host, HostRow, Purpose};
use super::moment::Moment;
use super::operation::{Input, Operation};
use super::{Decision, Rack, Record};
use crate::bmc::{Answer, Ask, Bmc, Completion, DriverError, Job, PowerReply, Reading};
use crate::observe::{Observation, observe};

impl Rack {
    pub(super) fn send(&mut self, slot: usize, ask: Ask, purpose: Purpose, timeout: Duration, now: Now, decision: &mut Decision) {
        if let Some(bmc) = self.host(slot).and_then(|host| host.bmc.clone()) {
            self.send_to(slot, bmc, ask, purpose, timeout, now, decision);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a request has as many parts, and this is the one place that makes one")]
    pub(super) fn send_to(
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
    pub(super) fn land(&mut self, slot: usize) {
        if self.host_mut(slot).is_some_and(|host| host.in_flight.take().is_some()) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    pub(super) fn completed(&mut self, completion: Completion, now: Now, decision: &mut Decision) {
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
        if flight.purpose == Purpose::Fence {
            self.fence_answered(slot, flight, &completion, now, decision);
        }
        // A fence goes before what operators ordered.
        self.send_waiting(slot, now, decision);
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

    /// Every answer teaches something about the host, whoever asked.
    fn learn(&mut self, slot: usize, ask: Ask, completion: &Completion, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        host.last_word = now.boottime;
        if completion.result.is_ok() {
            host.last_good = Some(now.boottime);
        }
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
        if let Ok(Answer::Reading(reading) | Answer::Facts(_, reading)) = &completion.result {
            self.watch_reading(slot, *reading, completion.begun, now, decision);
        }
    }
}

/// Slot in the high half, a counter in the low half: an answer to an earlier request of the slot is not taken for a later one.
pub(super) fn ticket(slot: usize, counter: u32) -> u64 {
    (u64::try_from(slot).unwrap_or(u64::MAX) << 32) | u64::from(counter)
}

pub(super) fn slot_of(ticket: u64) -> usize {
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
pub(super) fn timeout_of(host: &Host, ask: Ask) -> Duration {
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

/// Another text of the same failure is not worth a disk write; anything else is.
fn worth_a_write(before: &HostRow, after: &HostRow) -> bool {
    let code = |row: &HostRow| row.error.as_ref().map(|error| (error.class, error.code.clone()));
    let without_error = |row: &HostRow| HostRow { error: None, ..row.clone() };
    code(before) != code(after) || without_error(before) != without_error(after)
}
