//! What is heard of a host, and what its state machine is told of it: checks of health and activity, readings of its BMC, and how
//! operators' own orders ended. Pure.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{Action, Outcome};
use picket_common::ha::settings::{ActivityCheck, Mode, NothingToCheck};
use picket_common::ha::{Activity, Degraded, Fenced, HaEvent, HaState};
use picket_common::power::PowerState;

use super::activity::is_compared;
use super::health::Verdict;
use super::{DENSE, RESTART_PAUSE};
use crate::bmc::{Ask, Reading};
use crate::rack::fence::{Health, HealthSign, SeenRules, Sight};
use crate::rack::host::Purpose;
use crate::rack::moment::Moment;
use crate::rack::operation::Operation;
use crate::rack::request::{slot_of, ticket, timeout_of};
use crate::rack::{Decision, Rack};
use crate::sign::{Check, CheckDone, CheckJob, Sign};

/// How often reference addresses are asked.
const REFERENCES: Duration = Duration::from_secs(5);
/// Longest time of such a check.
const REFERENCE_TIMEOUT: Duration = Duration::from_secs(5);
/// The slot in their tickets.
const REFERENCE_SLOT: usize = u32::MAX as usize;
/// How long after an order of unknown outcome an Off that is read may be its doing.
const DOUBT: Duration = Duration::from_secs(600);
/// Time the LED is lit.
const BLINK_SECONDS: u16 = 255;

impl Rack {
    // ---- checks ----

    pub(in crate::rack) fn checked(&mut self, done: Vec<CheckDone>, now: Now, decision: &mut Decision) {
        let mut touched = Vec::new();
        for done in done {
            let slot = slot_of(done.ticket);
            if slot == REFERENCE_SLOT {
                if done.sign == Sign::Alive {
                    self.watching.path.reference_reached(done.begun);
                }
                continue;
            }
            let Some(watch) = self.watch_mut(slot) else { continue };
            watch.samples.answered(&done);
            let kind = watch.rounds.answered(&done);
            if let Some(kind) = kind.filter(|_| done.sign == Sign::Alive) {
                self.watching.path.reached(kind, slot, done.begun);
            }
            touched.push(slot);
        }
        touched.sort_unstable();
        touched.dedup();
        for slot in touched {
            self.attend(slot, now, decision);
        }
    }

    /// A round of health checks begins, unless there are too many of them.
    pub(in crate::rack) fn check_health(&mut self, slot: usize, of_interval: bool, now: Now, decision: &mut Decision) {
        let Some(host) = self.host(slot) else { return };
        let Some(watch) = host.watch.as_deref().filter(|watch| watch.rounds.has_room()) else { return };
        let (id, settings) = (host.row.host.clone(), watch.ha.settings.clone());
        let mut tickets = Vec::new();
        for check in &settings.health {
            let ticket = self.check_ticket(slot);
            let timeout = Duration::from_secs(settings.health_timeout.into());
            decision.checks.push(CheckJob { ticket, host: Some(id.clone()), check: Check::Health(check.clone()), timeout });
            tickets.push((ticket, check.clone()));
        }
        if let Some(watch) = self.watch_mut(slot) {
            watch.rounds.begin(of_interval, &tickets, &settings, now.boottime);
        }
    }

    pub(super) fn attend_health(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let jitter = self.draw_jitter();
        let Some(watch) = self.hosts.get_mut(slot).and_then(Option::as_mut).and_then(|host| host.watch.as_deref_mut()) else {
            return;
        };
        let verdicts = watch.rounds.conclude(&self.watching.path, slot, now.boottime);
        if verdicts.iter().any(|verdict| verdict.of_interval) {
            let interval = Duration::from_secs(watch.ha.settings.health_interval.into()).mul_f64(jitter);
            watch.rounds.due = now.boottime.saturating_add(interval);
        }
        for verdict in verdicts {
            self.health_said(slot, &verdict, now, decision);
        }
        let Some(watch) = self.watch_mut(slot) else { return };
        let has_checks = !watch.ha.settings.health.is_empty();
        if watch.is_checked() && has_checks && !watch.rounds.is_busy() && watch.rounds.due <= now.boottime {
            self.check_health(slot, true, now, decision);
        }
    }

    fn health_said(&mut self, slot: usize, verdict: &Verdict, now: Now, decision: &mut Decision) {
        let rules = self.seen_rules(slot);
        let Some(watch) = self.watch_mut(slot) else { return };
        watch.last = Some(verdict.clone());
        // A fence or recovery under way judges by itself what a sign of life means.
        let is_judged = watch.row.stepper.is_some();
        let health = Health { sign: verdict.sign, begun: verdict.begun, said: &verdict.said };
        let sight = if watch.is_watched() { watch.seen.health(health, rules) } else { Sight::Nothing };
        self.fence_health(slot, health, now, decision);
        match verdict.sign {
            HealthSign::Alive => self.health_passed(slot, verdict, is_judged, now, decision),
            HealthSign::Dead if verdict.of_interval => self.health_failed(slot, verdict, now, decision),
            HealthSign::Dead | HealthSign::CannotTell => {}
        }
        self.off_sighted(slot, sight, now, decision);
    }

    fn health_passed(&mut self, slot: usize, verdict: &Verdict, is_judged: bool, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        let power = host.row.power;
        let Some(watch) = host.watch.as_deref_mut() else { return };
        watch.samples.clear();
        if watch.row.passed.as_ref() != Some(&watch.ha.settings.health) {
            watch.row.passed = Some(watch.ha.settings.health.clone());
            self.keep_row(slot, decision);
        }
        let Some(watch) = self.watch_mut(slot) else { return };
        // While the BMC goes on saying Off of a host that is well, they contradict each other, and nobody may rely on it.
        let contradicts = watch.row.state == HaState::Degraded(Degraded::Contradiction) && power == PowerState::Off;
        // What was asked before the fence was proven says nothing about the time after.
        let is_old = matches!(watch.row.state, HaState::Fenced(_)) && verdict.begun < watch.row.since.boottime;
        if !is_judged && !contradicts && !is_old && watch.row.state != (HaState::Available { failures: 0 }) {
            self.ha_event(slot, &HaEvent::HealthPassed, &verdict.said, now, decision);
        }
    }

    fn health_failed(&mut self, slot: usize, verdict: &Verdict, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        let said = format!("{} ({} in a row make it suspect)", verdict.said, watch.ha.settings.failures);
        self.ha_event(slot, &HaEvent::HealthFailed, said, now, decision);
        let Some(watch) = self.watch_of(slot) else { return };
        if watch.row.state == HaState::Suspect {
            let said = format!("{}; its activity is looked at", verdict.said);
            self.ha_event(slot, &HaEvent::StartActivityCheck, said, now, decision);
        }
    }

    fn check_ticket(&mut self, slot: usize) -> u64 {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        ticket(slot, self.next_ticket)
    }

    // ---- activity ----

    pub(super) fn attend_activity(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        let found = watch.samples.conclude(now.boottime);
        let is_checking = matches!(watch.row.state, HaState::Checking { .. });
        if let Some(found) = found.filter(|_| is_checking) {
            self.ha_event(slot, &HaEvent::Activity(found.activity), inactive(&found.said), now, decision);
        }
        let Some(watch) = self.watch_of(slot) else { return };
        let settings = &watch.ha.settings;
        let due = watch.samples.due(settings, now.boottime).is_some_and(|due| due <= now.boottime);
        match &watch.row.state {
            HaState::Checking { .. } if settings.activity.is_empty() => self.nothing_to_check(slot, now, decision),
            HaState::Checking { .. } if due => self.sample(slot, false, now, decision),
            // What is written after the first failed check is a sign of life; what was written before is none.
            HaState::Available { failures } if *failures > 0 && watch.samples.is_blank() => self.sample(slot, true, now, decision),
            HaState::Suspect if watch.samples.is_blank() => self.sample(slot, true, now, decision),
            _ => {}
        }
    }

    fn nothing_to_check(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_of(slot) else { return };
        match watch.ha.settings.nothing_to_check {
            NothingToCheck::AssumeActive => {
                let said = "it has no activity check, and is taken for active (nothing_to_check = assume-active): nothing is done";
                self.ha_event(slot, &HaEvent::Overdue, said, now, decision);
            }
            NothingToCheck::AssumeInactive => {
                let said = "it has no activity check, and is taken for inactive (nothing_to_check = assume-inactive)";
                // Bounded: each of them is one sample of the number that is wanted.
                while matches!(self.watch_of(slot).map(|watch| &watch.row.state), Some(HaState::Checking { .. })) {
                    self.ha_event(slot, &HaEvent::Activity(Activity::Dead), said, now, decision);
                }
            }
        }
    }

    fn sample(&mut self, slot: usize, is_baseline: bool, now: Now, decision: &mut Decision) {
        let Some(host) = self.host(slot) else { return };
        let Some(watch) = host.watch.as_deref() else { return };
        let (id, settings) = (host.row.host.clone(), watch.ha.settings.clone());
        let wanted = |check: &ActivityCheck| !is_baseline || is_compared(check);
        let checks: Vec<(usize, ActivityCheck)> =
            settings.activity.iter().cloned().enumerate().filter(|(_, check)| wanted(check)).collect();
        if checks.is_empty() {
            return;
        }
        let mut tickets = Vec::new();
        for (number, check) in checks {
            let ticket = self.check_ticket(slot);
            let timeout = Duration::from_secs(settings.activity_timeout.into());
            decision.checks.push(CheckJob { ticket, host: Some(id.clone()), check: Check::Activity(check), timeout });
            tickets.push((ticket, number));
        }
        if let Some(watch) = self.watch_mut(slot) {
            watch.samples.begin(is_baseline, &tickets, &settings, now.boottime);
        }
    }

    // ---- readings ----

    fn seen_rules(&self, slot: usize) -> SeenRules {
        let Some(host) = self.host(slot) else { return SeenRules::of(&picket_common::ha::settings::HaSettings::default(), "") };
        let settings = host.watch.as_deref().map(|watch| watch.ha.settings.clone()).unwrap_or_default();
        SeenRules::of(&settings, &host.driver)
    }

    /// The BMC was read, whoever asked.
    pub(in crate::rack) fn watch_reading(
        &mut self,
        slot: usize,
        reading: Reading,
        begun: Duration,
        now: Now,
        decision: &mut Decision,
    ) {
        let rules = self.seen_rules(slot);
        let is_outstanding = self.is_outstanding(slot, now);
        let Some(host) = self.host_mut(slot) else { return };
        let is_ours = host.operations.iter().any(Operation::is_ordered);
        let Some(watch) = host.watch.as_deref_mut() else { return };
        let waits = |until: Option<Moment>| until.is_some_and(|until| now.boottime < until.boottime);
        let row = &mut watch.row;
        let before = (row.commanded_off, row.off_ordered, row.doubt);
        match reading {
            Reading::On => {
                row.doubt = None;
                // Somebody pressed its button: it is not off by command any more.
                row.commanded_off = row.commanded_off && is_ours;
                row.off_ordered = row.off_ordered.filter(|_| waits(row.off_ordered));
            }
            Reading::Off if waits(row.off_ordered) => (row.commanded_off, row.off_ordered) = (true, None),
            Reading::Off | Reading::Transitioning => {}
        }
        let has_changed = before != (row.commanded_off, row.off_ordered, row.doubt);
        let in_doubt = is_ours || is_outstanding || row.commanded_off;
        let sight = if in_doubt || !watch.is_watched() {
            watch.seen.forget();
            Sight::Nothing
        } else {
            let was_counting = watch.seen.is_counting();
            let sight = watch.seen.read(reading, begun, now, rules);
            if watch.seen.is_counting() && !was_counting {
                // Whether it answers is what decides next.
                watch.rounds.due = now.boottime;
                watch.counting_since = now.boottime;
            }
            sight
        };
        if has_changed {
            self.keep_row(slot, decision);
        }
        self.fence_reading(slot, reading, begun, now, decision);
        self.off_sighted(slot, sight, now, decision);
        self.read_on(slot, reading, begun, now, decision);
        self.attend(slot, now, decision);
    }

    fn off_sighted(&mut self, slot: usize, sight: Sight, now: Now, decision: &mut Decision) {
        match sight {
            Sight::Nothing | Sight::Counting(_) => {}
            Sight::CheckHealth => {
                let Some(watch) = self.watch_of(slot) else { return };
                if !watch.rounds.has_since(watch.counting_since) {
                    self.check_health(slot, false, now, decision);
                }
            }
            Sight::Contradicted => {
                let said = "its BMC reads Off, and the host answers its health check: the BMC speaks for another machine, or lies";
                self.ha_event(slot, &HaEvent::Contradicted, said, now, decision);
            }
            Sight::Confirmed(offs) => self.begin_proof(slot, offs, now, decision),
        }
    }

    /// On says that a host is not down.
    fn read_on(&mut self, slot: usize, reading: Reading, begun: Duration, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_of(slot) else { return };
        match &watch.row.state {
            HaState::Fenced(Fenced { restarting, returned: false, released, .. })
                if reading == Reading::On && begun >= watch.row.since.boottime =>
            {
                let said = match (restarting, released) {
                    (true, _) => "it was switched on again, as its policy says",
                    (_, true) => "it was switched on after it was released",
                    (false, false) => "it reads On, and nobody released it: it is not down any more",
                };
                self.ha_event(slot, &HaEvent::SeenOn, said, now, decision);
            }
            _ => {}
        }
    }

    // ---- operators' own orders ----

    /// An operation on the host ended. What an operator switched off stays off.
    pub(in crate::rack) fn watch_operation_ended(
        &mut self,
        slot: usize,
        operation: &Operation,
        outcome: &Outcome,
        now: Now,
        decision: &mut Decision,
    ) {
        let boot = self.settings.machine_boot;
        let Some(watch) = self.watch_mut(slot) else { return };
        let (succeeded, was_ordered) = (outcome.is_success(), operation.is_ordered());
        let until = Moment::at(boot, now.after(DOUBT));
        match operation.command.action {
            Action::Off | Action::Soft if succeeded => (watch.row.commanded_off, watch.row.off_ordered) = (true, None),
            Action::Off | Action::Soft if was_ordered => watch.row.off_ordered = Some(until),
            Action::On | Action::Cycle | Action::Reset if succeeded => {
                (watch.row.commanded_off, watch.row.off_ordered, watch.row.doubt) = (false, None, None);
            }
            Action::On | Action::Cycle | Action::Reset if was_ordered => {
                (watch.row.commanded_off, watch.row.doubt) = (false, Some(until));
            }
            _ => return,
        }
        watch.seen.forget();
        let is_fencing = matches!(watch.row.state, HaState::Fencing(_));
        self.keep_row(slot, decision);
        // Its fence is what ended the operation, and goes on by itself.
        if !is_fencing {
            self.attend(slot, now, decision);
        }
    }

    // ---- what policies send ----

    /// A LED to be lit, a fenced host to be switched on again: when nothing else is under way with its BMC.
    pub(super) fn attend_power(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        self.begin_restart(slot, now, decision);
        let journal_works = self.journal_works;
        let Some(host) = self.host_mut(slot) else { return };
        let is_free = host.is_open() && host.in_flight.is_none() && host.operations.is_empty();
        if !is_free || !journal_works || host.blocked(now.boottime).is_some() || host.is_in_doubt() {
            return;
        }
        let Some(watch) = host.watch.as_deref_mut() else { return };
        let ask = if watch.is_restarting() && watch.restart_due <= now.boottime {
            watch.restart_due = now.boottime.saturating_add(RESTART_PAUSE);
            watch.row.restarts = watch.row.restarts.map(|orders| orders.saturating_add(1));
            Ask::On
        } else if std::mem::take(&mut watch.blink) {
            Ask::Identify { seconds: BLINK_SECONDS }
        } else {
            return;
        };
        self.keep_row(slot, decision);
        let Some(host) = self.host(slot) else { return };
        let timeout = timeout_of(host, ask);
        self.send(slot, ask, Purpose::Poll, timeout, now, decision);
    }

    fn begin_restart(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_of(slot) else { return };
        let is_begun = matches!(watch.row.state, HaState::Fenced(Fenced { restarting: true, .. }));
        if watch.is_restarting() && !is_begun && watch.ha.settings.mode == Mode::Act {
            self.ha_event(slot, &HaEvent::Restarting, "proven off; its policy is to switch it on again", now, decision);
        }
    }

    // ---- reference addresses ----

    pub(super) fn asks_references(&self) -> bool {
        !self.settings.references.is_empty() && self.watching.rules.is_some()
    }

    pub(super) fn ask_references(&mut self, now: Now, decision: &mut Decision) {
        if !self.asks_references() || now.boottime < self.watching.references_due {
            return;
        }
        self.watching.references_due = now.boottime.saturating_add(REFERENCES);
        for address in self.settings.references.clone() {
            let ticket = self.check_ticket(REFERENCE_SLOT);
            decision.checks.push(CheckJob { ticket, host: None, check: Check::Reference(address), timeout: REFERENCE_TIMEOUT });
        }
    }

    /// How soon a host is polled again, when it is looked at closely.
    pub(in crate::rack) fn dense_pause(&self, slot: usize) -> Option<Duration> {
        self.watch_of(slot).filter(|watch| watch.wants_dense()).map(|_| DENSE)
    }
}

fn inactive(said: &str) -> String {
    format!("its health check fails, and of its activity is known: {said}")
}
