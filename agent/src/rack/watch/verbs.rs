//! What people order about a host that is watched over: admitted or refused once, as power commands are, and reported. Pure.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{Outcome, Refusal};
use picket_common::ha::{Fenced, Gate, HaEvent, HaState};
use picket_common::power::PowerState;
use picket_common::wire::Time;
use picket_common::wire::ha::{HaCommand, HaVerb, Proof};
use picket_common::wire::report::{MAX_TEXT, OperationReport, Progress, Report};

use super::FenceOrder;
use crate::bmc::cut;
use crate::rack::admission::Verdict;
use crate::rack::fence::HealthSign;
use crate::rack::moment::Moment;
use crate::rack::{Decision, Rack, Record};

/// Most orders that wait for the end of one fence.
const MAX_ORDERS: usize = 8;
/// Most commands that wait for their assignment.
const MAX_EARLY: usize = 256;
/// Longest time an order may be given.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

impl Rack {
    pub(in crate::rack) fn ha_commanded(&mut self, command: HaCommand, now: Now, decision: &mut Decision) {
        if self.seen.contains_key(&(command.operation, command.host.clone())) {
            return;
        }
        if !self.assignments.covers(command.generation) {
            self.keep_verb_early(command, now, decision);
            return;
        }
        self.mark_seen(command.operation, &command.host, command.deadline, decision);
        match self.admit_verb(&command, now) {
            Ok((slot, left)) => {
                tell(decision, &command, Progress::Admitted, now);
                if let Some(outcome) = self.carry_out(slot, &command, left, now, decision) {
                    tell(decision, &command, Progress::Done(outcome), now);
                }
                self.attend(slot, now, decision);
            }
            Err(Verdict::Refused(refusal)) => tell(decision, &command, Progress::Done(Outcome::Refused(refusal)), now),
            Err(_) => tell(decision, &command, Progress::Done(Outcome::Expired), now),
        }
    }

    fn keep_verb_early(&mut self, command: HaCommand, now: Now, decision: &mut Decision) {
        let early = &mut self.watching.verbs_early;
        if early.iter().any(|early| early.operation == command.operation && early.host == command.host) {
            return;
        }
        if early.len() < MAX_EARLY {
            early.push(command);
        } else {
            self.mark_seen(command.operation, &command.host, command.deadline, decision);
            tell(decision, &command, Progress::Done(Outcome::Refused(Refusal::Busy)), now);
        }
    }

    /// An assignment came: commands that waited for it are judged.
    pub(in crate::rack) fn retry_early_verbs(&mut self, now: Now, decision: &mut Decision) {
        for command in std::mem::take(&mut self.watching.verbs_early) {
            self.ha_commanded(command, now, decision);
        }
    }

    /// Commands that waited too long for their assignment.
    pub(in crate::rack) fn expire_early_verbs(&mut self, now: Now, decision: &mut Decision) {
        let centre_now = self.centre_now(now);
        let (late, early) =
            std::mem::take(&mut self.watching.verbs_early).into_iter().partition(|early| early.deadline <= centre_now);
        self.watching.verbs_early = early;
        let late: Vec<HaCommand> = late;
        for command in late {
            self.mark_seen(command.operation, &command.host, command.deadline, decision);
            tell(decision, &command, Progress::Done(Outcome::Expired), now);
        }
    }

    /// What the aggregator's clock says, at the latest; without a measurement our own.
    pub(in crate::rack) fn centre_now(&self, now: Now) -> Time {
        self.clock.map_or(Time::from(now.wall), |clock| clock.latest(now.boottime))
    }

    /// Whether it may be carried out here and now; gives the host and how much time is left.
    fn admit_verb(&self, command: &HaCommand, now: Now) -> Result<(usize, Duration), Verdict> {
        let refused = |refusal| Err(Verdict::Refused(refusal));
        if !self.journal_works {
            return refused(Refusal::JournalUnavailable);
        }
        let left = u64::try_from(command.deadline.0.saturating_sub(self.centre_now(now).0)).unwrap_or(0);
        if left == 0 {
            return Err(Verdict::Expired);
        }
        if command.epoch < self.assignments.epoch {
            return refused(Refusal::StaleEpoch);
        }
        let slot = self.by_id.get(&command.host).copied();
        let Some((slot, host)) = slot.and_then(|slot| Some((slot, self.host(slot)?))) else { return refused(Refusal::NotAssigned) };
        let Some(watch) = host.watch.as_deref() else { return refused(Refusal::HaDisabled) };
        let needs_watch = matches!(command.verb, HaVerb::Fence { .. } | HaVerb::Confirm { .. } | HaVerb::Abort);
        if needs_watch && watch.row.state == HaState::Disabled {
            return refused(Refusal::HaDisabled);
        }
        if matches!(command.verb, HaVerb::Fence { .. }) {
            let given_before = command.enablement < host.assignment.enablement;
            let refusals = [
                host.assignment.refusal,
                host.assignment.bmc.is_none().then_some(Refusal::HostNotConfigured),
                host.is_locked().then_some(Refusal::PasswordNeeded),
                given_before.then_some(Refusal::HostDisabled),
                self.clock.is_none().then_some(Refusal::ClockUnknown),
                (watch.row.orders.len() >= MAX_ORDERS).then_some(Refusal::Busy),
            ];
            if let Some(refusal) = refusals.into_iter().flatten().next() {
                return refused(refusal);
            }
        }
        Ok((slot, Duration::from_micros(left).min(MAX_TIMEOUT)))
    }

    /// Does it; gives how it ended, unless that is to come.
    fn carry_out(
        &mut self,
        slot: usize,
        command: &HaCommand,
        left: Duration,
        now: Now,
        decision: &mut Decision,
    ) -> Option<Outcome> {
        match &command.verb {
            HaVerb::Fence { overrides } => return self.fence_ordered(slot, command, overrides, left, now, decision),
            HaVerb::Plan => self.plan(slot, &command.by, command.operation, now, decision),
            HaVerb::Confirm { force } => return Some(self.confirmed(slot, command, *force, now, decision)),
            HaVerb::Abort => {
                let said = format!("{} ended its fence: {}", command.by, command.reason);
                return Some(did(self.ha_event(slot, &HaEvent::Aborted, said, now, decision)));
            }
            HaVerb::Ack => return Some(did(self.acknowledged(slot, command, now, decision))),
            HaVerb::Release => return Some(did(self.released(slot, command, now, decision))),
            HaVerb::ResetCounters => return Some(did(self.reset_counters(slot, now, decision))),
            HaVerb::EndCliff => return Some(did(self.end_cliff(decision))),
        }
        Some(Outcome::Unchanged)
    }

    fn fence_ordered(
        &mut self,
        slot: usize,
        command: &HaCommand,
        overrides: &[Gate],
        left: Duration,
        now: Now,
        decision: &mut Decision,
    ) -> Option<Outcome> {
        let deadline = Moment::at(self.settings.machine_boot, now.after(left));
        let host = self.host_mut(slot)?;
        let reads_off = host.row.power == PowerState::Off;
        let watch = host.watch.as_deref_mut()?;
        let is_down =
            matches!(watch.row.state, HaState::Fenced(Fenced { returned: false, restarting: false, released: false, .. }));
        if is_down && reads_off {
            return Some(Outcome::Unchanged);
        }
        let said = format!("{} ordered its fence: {}", command.by, command.reason);
        watch.row.operation = Some(command.operation);
        watch.row.overrides = overrides.to_vec();
        watch.row.orders.push(FenceOrder { operation: command.operation, deadline });
        if !self.ha_event(slot, &HaEvent::Ordered(command.by.clone()), said, now, decision) {
            return Some(Outcome::Refused(Refusal::HaDisabled));
        }
        self.keep_row(slot, decision);
        self.begin_order(slot, &command.by, overrides, decision);
        None
    }

    fn confirmed(&mut self, slot: usize, command: &HaCommand, force: bool, now: Now, decision: &mut Decision) -> Outcome {
        let Some(host) = self.host(slot) else { return Outcome::Refused(Refusal::NotAssigned) };
        let Some(watch) = host.watch.as_deref() else { return Outcome::Refused(Refusal::HaDisabled) };
        let answers = watch.last.as_ref().is_some_and(|last| last.sign == HealthSign::Alive);
        if !force && (host.row.power == PowerState::On || answers) {
            return Outcome::Refused(Refusal::HostIsUp);
        }
        let said = format!("{} vouches that it is off: {}", command.by, command.reason);
        let (operation, proof) = (command.operation, Proof { health: cut(&said, MAX_TEXT), ..Proof::default() });
        if let Some(watch) = self.watch_mut(slot) {
            watch.row.operation = Some(operation);
            watch.row.proof = Some(proof);
        }
        did(self.ha_event(slot, &HaEvent::Confirmed(command.by.clone()), said, now, decision))
    }

    fn acknowledged(&mut self, slot: usize, command: &HaCommand, now: Now, decision: &mut Decision) -> bool {
        let Some(watch) = self.watch_mut(slot).filter(|watch| !watch.row.acked) else { return false };
        watch.row.acked = true;
        watch.row.why = cut(&format!("{} knows that it is broken: {}", command.by, command.reason), MAX_TEXT);
        self.tell_ha(slot, now, decision);
        true
    }

    fn released(&mut self, slot: usize, command: &HaCommand, now: Now, decision: &mut Decision) -> bool {
        let said = format!("{} released it: {}", command.by, command.reason);
        let Some(watch) = self.watch_mut(slot) else { return false };
        let had_mark = watch.row.mark.take().is_some();
        if had_mark {
            watch.row.quarantined = false;
            watch.row.acked = false;
        }
        let is_fenced = matches!(watch.row.state, HaState::Fenced(Fenced { released: false, .. }));
        if is_fenced {
            self.ha_event(slot, &HaEvent::Released, said, now, decision);
        } else if had_mark {
            watch.row.why = cut(&said, MAX_TEXT);
            self.tell_ha(slot, now, decision);
        }
        is_fenced || had_mark
    }

    /// Tells orders whose time is over how far the fence is; it goes on all the same.
    pub(super) fn attend_orders(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        let (late, waiting) =
            std::mem::take(&mut watch.row.orders).into_iter().partition(|order| order.deadline.boottime <= now.boottime);
        watch.row.orders = waiting;
        let late: Vec<FenceOrder> = late;
        if late.is_empty() {
            return;
        }
        let error = watch.row.error.as_ref().map(|error| format!("; last error: {error}")).unwrap_or_default();
        let held = match &watch.row.state {
            HaState::Fencing(fencing) => fencing.held.map(|gate| format!("; held by {gate:?}")).unwrap_or_default(),
            _ => String::new(),
        };
        let text = cut(&format!("not proven off in time; its fence goes on ({}){held}{error}", watch.row.why), MAX_TEXT);
        for order in late {
            self.tell_operation(slot, order.operation, Progress::Done(Outcome::Unknown(text.clone())), now, decision);
        }
        self.keep_row(slot, decision);
    }
}

const fn did(something: bool) -> Outcome {
    if something { Outcome::Changed } else { Outcome::Unchanged }
}

fn tell(decision: &mut Decision, command: &HaCommand, progress: Progress, now: Now) {
    let report = OperationReport { operation: command.operation, host: command.host.clone(), at: now.wall.into(), progress };
    decision.records.push(Record::Report(Box::new(Report::Operation(report))));
}
