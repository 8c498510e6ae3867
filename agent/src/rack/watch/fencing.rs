//! A host's fence or recovery under way, seen from its watch: begun when its state says so, fed with what is heard, asked what to do
//! next, and told how it ended. What it does is decided by [`crate::rack::fence`]. Pure.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{Action, Refusal};
use picket_common::driver;
use picket_common::ha::settings::Mode;
use picket_common::ha::{By, Fencing, Gate, HaEvent, HaState, Way};
use picket_common::id::{HostId, OperationId};
use picket_common::policy::Judgement;
use picket_common::wire::ha::{Act, ClusterHa, JudgedReport};
use picket_common::wire::report::{MAX_TEXT, Report};
use serde::{Deserialize, Serialize};

use super::Watch;
use crate::bmc::{Answer, Ask, Completion, DriverError, PowerReply, Reading, cut};
use crate::rack::brakes::{Member, Scene, SlotUse};
use crate::rack::fence::gates::{self, Around, Standing, Subject};
use crate::rack::fence::{Attempt, End, Health, HealthSign, Input, Offs, Recovery, Rules, Stage, Step};
use crate::rack::host::{Flight, Host, Purpose};
use crate::rack::moment::Moment;
use crate::rack::request::timeout_of;
use crate::rack::{Decision, Rack, Record};

/// What was asked for and does not come within this never will.
const OVERDUE: Duration = Duration::from_secs(60);
/// How long a reset of ours may be passing through Off.
const RESETTING: Duration = Duration::from_secs(60);
/// Pause before the gates are asked when nothing can be sent to the BMC just now.
const BUSY: Duration = Duration::from_millis(100);
/// The same while nothing can be sent for longer: its gates are closed, or the journal does not work.
const CLOSED: Duration = Duration::from_secs(2);
/// Most steps in one instant: each of them asks, waits or ends but for the gates' answers.
const MOST_STEPS: usize = 16;

/// What is done about a host, step by step; journalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stepper {
    /// It is fenced.
    Fence(Attempt),
    /// It is reset.
    Recover(Recovery),
}

impl Stepper {
    fn step(&mut self, input: Input<'_>, now: Now, rules: Rules<'_>) -> Step {
        match self {
            Self::Fence(attempt) => attempt.step(input, now, rules),
            Self::Recover(recovery) => recovery.step(input, now, rules),
        }
    }

    pub(in crate::rack) const fn holds_slot(&self) -> bool {
        match self {
            Self::Fence(attempt) => attempt.holds_slot(),
            Self::Recover(recovery) => recovery.holds_slot(),
        }
    }

    fn slot_use(&self) -> SlotUse {
        match self {
            _ if self.holds_slot() => SlotUse::Holds,
            Self::Fence(attempt) if attempt.waits_for_slot() => SlotUse::Waits(attempt.tried),
            Self::Fence(_) | Self::Recover(_) => SlotUse::None,
        }
    }

    /// Whether a restart would go on differently: then it is worth a write.
    fn goes_on_differently(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Fence(now), Self::Fence(before)) => {
                let key = |attempt: &Attempt| {
                    (
                        attempt.way.clone(),
                        attempt.number,
                        attempt.phase,
                        attempt.off_possibly_sent,
                        attempt.is_counted,
                        attempt.tried,
                    )
                };
                key(now) != key(before)
            }
            (Self::Recover(now), Self::Recover(before)) => {
                (now.number, now.stage, now.sent) != (before.number, before.stage, before.sent)
            }
            _ => true,
        }
    }

    /// Whether it is what this state calls for.
    fn fits(&self, state: &HaState) -> bool {
        match (self, state) {
            (Self::Fence(attempt), HaState::Fencing(fencing)) => attempt.way == fencing.way,
            (Self::Recover(recovery), HaState::Recovering { attempt }) => recovery.number == *attempt,
            _ => false,
        }
    }
}

/// What a stepper waits for, in memory only.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// It was begun in this process.
    is_begun: bool,
    /// When it looks again (boottime).
    pub(super) due: Option<Duration>,
    /// When what it asked for counts as lost (boottime).
    pub(super) limit: Option<Duration>,
    /// What the BMC is to be asked as soon as nothing else is under way with it.
    ask: Option<Ask>,
}

impl Rack {
    // ---- begin ----

    /// An Off that nobody ordered was confirmed.
    pub(super) fn begin_proof(&mut self, slot: usize, offs: Offs, now: Now, decision: &mut Decision) {
        let said = format!("its BMC reads Off, and nobody ordered it; {}", offs.health_said());
        if !self.ha_event(slot, &HaEvent::OffSeen, &said, now, decision) {
            return;
        }
        let Some(watch) = self.watch_mut(slot) else { return };
        watch.row.stepper = Some(Stepper::Fence(Attempt::of_proof(offs)));
        watch.waiting = Waiting { is_begun: true, ..Waiting::default() };
        self.advance(slot, Input::Start, now, decision);
    }

    /// Somebody ordered a fence; it may be under way already.
    pub(super) fn begin_order(&mut self, slot: usize, by: &str, overrides: &[Gate], decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        match &mut watch.row.stepper {
            Some(Stepper::Fence(attempt)) => attempt.taken_over(by.to_owned(), overrides.to_vec()),
            stepper => {
                *stepper = Some(Stepper::Fence(Attempt::of_order(By::Principal(by.to_owned()), overrides.to_vec())));
                watch.waiting = Waiting::default();
            }
        }
        if watch.waiting.ask.is_none() && watch.waiting.limit.is_none() {
            watch.waiting.is_begun = false;
        }
        self.keep_row(slot, decision);
    }

    /// Does what the state calls for: begins, goes on, or drops what is over.
    pub(super) fn attend_fence(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        // Bounded: an ended recovery leads to the next, or to a fence.
        for _ in 0..4 {
            self.fit_stepper(slot, decision);
            let Some(watch) = self.watch_mut(slot) else { return };
            if watch.row.stepper.is_none() {
                return;
            }
            let is_over = |at: Option<Duration>| at.is_some_and(|at| at <= now.boottime);
            let input = if !watch.waiting.is_begun {
                watch.waiting.is_begun = true;
                Input::Start
            } else if is_over(watch.waiting.limit) {
                watch.waiting.limit = None;
                Input::Overdue
            } else if is_over(watch.waiting.due) {
                watch.waiting.due = None;
                Input::Due
            } else {
                break;
            };
            self.advance(slot, input, now, decision);
        }
        self.send_waiting(slot, now, decision);
    }

    fn fit_stepper(&mut self, slot: usize, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        let state = &watch.row.state;
        if watch.row.stepper.as_ref().is_some_and(|stepper| stepper.fits(state)) {
            return;
        }
        let stepper = match state {
            HaState::Fencing(Fencing { way: Way::Proof, .. }) => Some(Stepper::Fence(Attempt::of_proof(Offs::default()))),
            HaState::Fencing(Fencing { way: Way::Order(by), .. }) => {
                Some(Stepper::Fence(Attempt::of_order(by.clone(), watch.row.overrides.clone())))
            }
            HaState::Recovering { attempt } => Some(Stepper::Recover(Recovery::new(*attempt))),
            _ => None,
        };
        if watch.row.stepper.is_none() && stepper.is_none() {
            return;
        }
        let had_slot = watch.row.stepper.as_ref().is_some_and(Stepper::holds_slot);
        watch.row.stepper = stepper;
        watch.waiting = Waiting::default();
        self.keep_row(slot, decision);
        if had_slot {
            self.pass_slot_on();
        }
    }

    // ---- what is heard ----

    pub(super) fn fence_health(&mut self, slot: usize, health: Health<'_>, now: Now, decision: &mut Decision) {
        self.advance(slot, Input::Health(health), now, decision);
    }

    pub(super) fn fence_reading(&mut self, slot: usize, reading: Reading, begun: Duration, now: Now, decision: &mut Decision) {
        self.advance(slot, Input::Read { result: Ok(reading), begun }, now, decision);
    }

    /// An answer to what a fence or recovery asked. Readings that succeeded were given to it already.
    pub(in crate::rack) fn fence_answered(
        &mut self,
        slot: usize,
        flight: Flight,
        completion: &Completion,
        now: Now,
        decision: &mut Decision,
    ) {
        let ordered: Result<PowerReply, &DriverError> = match &completion.result {
            Ok(Answer::Power(reply)) => Ok(*reply),
            Ok(Answer::Done) => Ok(PowerReply::Accepted),
            Ok(Answer::Reading(_) | Answer::Facts(..)) => return,
            Err(error) => Err(error),
        };
        let input = match (flight.ask, ordered) {
            (Ask::Status, Err(error)) => Input::Read { result: Err(error), begun: completion.begun },
            (Ask::Status, Ok(_)) => return,
            (_, ordered) => Input::Ordered(ordered),
        };
        self.advance(slot, input, now, decision);
        self.attend(slot, now, decision);
    }

    // ---- steps ----

    fn advance(&mut self, slot: usize, input: Input<'_>, now: Now, decision: &mut Decision) {
        let mut input = Some(input);
        for _ in 0..MOST_STEPS {
            let Some(this) = input.take() else { return };
            let Some(step) = self.take_step(slot, this, now, decision) else { return };
            match step {
                Step::Stay => {}
                Step::Wait(pause) => self.set_waiting(slot, |waiting| waiting.due = Some(now.boottime.saturating_add(pause))),
                Step::CheckHealth if self.watch_of(slot).is_some_and(|watch| watch.ha.settings.health.is_empty()) => {
                    let said = "it has no health check";
                    input = Some(Input::Health(Health { sign: HealthSign::CannotTell, begun: now.boottime, said }));
                }
                Step::CheckHealth => {
                    self.set_waiting(slot, |waiting| waiting.limit = Some(now.boottime.saturating_add(OVERDUE)));
                    self.check_health(slot, false, now, decision);
                }
                Step::Judge(act) => match self.cannot_send(slot).filter(|_| matches!(act, Act::Off | Act::Reset)) {
                    // What is sent goes in the instant in which the gates were asked.
                    Some(pause) => self.set_waiting(slot, |waiting| waiting.due = Some(now.boottime.saturating_add(pause))),
                    None => input = Some(Input::Judged(self.ask_gates(slot, act, now, decision))),
                },
                Step::Ask(ask) => self.set_waiting(slot, |waiting| {
                    waiting.limit = Some(now.boottime.saturating_add(OVERDUE));
                    waiting.ask = Some(ask);
                }),
                Step::Ended(end) => self.stepper_ended(slot, *end, now, decision),
            }
        }
    }

    /// How long to wait until something may be sent to the BMC; `None` = it may be now.
    fn cannot_send(&self, slot: usize) -> Option<Duration> {
        let host = self.host(slot)?;
        if !host.is_open() || !self.journal_works {
            return Some(CLOSED);
        }
        (host.in_flight.is_some() || host.is_in_doubt()).then_some(BUSY)
    }

    fn set_waiting(&mut self, slot: usize, change: impl FnOnce(&mut Waiting)) {
        if let Some(watch) = self.watch_mut(slot) {
            change(&mut watch.waiting);
        }
    }

    /// One step, with its traces in the journal, the brakes and the state.
    fn take_step(&mut self, slot: usize, input: Input<'_>, now: Now, decision: &mut Decision) -> Option<Step> {
        let is_outstanding = self.is_outstanding(slot, now);
        let proving = self.settings.proving_templates.clone();
        let host = self.host_mut(slot)?;
        let is_blocked = host.blocked(now.boottime).is_some();
        let can_prove = host.can_prove(&proving);
        let (driver, device) = (host.driver.clone(), host.device());
        let watch = host.watch.as_deref_mut()?;
        let mut stepper = watch.row.stepper.take()?;
        let before = stepper.clone();
        let settings = &watch.ha.settings;
        let rules = Rules { settings, driver: &driver, device: &device, can_prove, is_blocked, is_outstanding };
        // What it waited for is here, or means nothing to it; asking again is its to say.
        let step = stepper.step(input, now, rules);
        if !matches!(step, Step::Stay) {
            (watch.waiting.limit, watch.waiting.due, watch.waiting.ask) = (None, None, None);
        }
        let counts =
            matches!((&before, &stepper), (Stepper::Fence(before), Stepper::Fence(now)) if now.is_counted && !before.is_counted);
        let intends = step == Step::Ask(Ask::Off);
        let resets = step == Step::Ask(Ask::Reset);
        let had_slot = before.holds_slot() && !stepper.holds_slot();
        let differs = stepper.goes_on_differently(&before);
        watch.row.stepper = Some(stepper);
        if differs {
            self.keep_row(slot, decision);
        }
        if counts {
            self.count_power_down(slot, now, decision);
        }
        if intends {
            self.ha_event(slot, &HaEvent::OffIntended, "all gates are open: it is switched off", now, decision);
        }
        if resets || self.only_observes_recovery(slot) {
            self.give_time_to_boot(slot, now, decision);
        }
        if had_slot {
            self.pass_slot_on();
        }
        Some(step)
    }

    fn stepper_ended(&mut self, slot: usize, end: End, now: Now, decision: &mut Decision) {
        let End { event, why, proof, error, again } = end;
        let Some(watch) = self.watch_mut(slot) else { return };
        watch.row.error = error;
        watch.row.proof = proof.or(watch.row.proof.take());
        if let Some(again) = again {
            watch.waiting = Waiting { is_begun: true, due: Some(now.boottime.saturating_add(again)), ..Waiting::default() };
        } else {
            let was_proof = matches!(&watch.row.stepper, Some(Stepper::Fence(attempt)) if attempt.way == Way::Proof);
            watch.row.off_by_proof = was_proof && matches!(event, HaEvent::Proven(_));
            watch.row.stepper = None;
            watch.waiting = Waiting::default();
        }
        if !self.ha_event(slot, &event, why, now, decision) {
            self.keep_row(slot, decision);
        }
    }

    /// Sends what waits, as soon as nothing else is under way with the BMC: before polls and operations.
    pub(in crate::rack) fn send_waiting(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let journal_works = self.journal_works;
        let Some(host) = self.host_mut(slot) else { return };
        let Some(ask) = host.watch.as_deref().and_then(|watch| watch.waiting.ask) else { return };
        if host.in_flight.is_some() || !journal_works {
            return;
        }
        if !host.is_open() {
            // Its power gates are closed: nothing is sent, and nothing comes back.
            return;
        }
        if host.is_in_doubt() {
            self.prove(slot, now, decision);
            return;
        }
        if let Some(watch) = host.watch.as_deref_mut() {
            watch.waiting.ask = None;
        }
        let timeout = timeout_of(host, ask);
        self.send(slot, ask, Purpose::Fence, timeout, now, decision);
    }

    // ---- what holds for it ----

    /// Whether a cycle or reset of ours, or one whose end nobody knows, may be passing through Off.
    pub(super) fn is_outstanding(&self, slot: usize, now: Now) -> bool {
        let Some(host) = self.host(slot) else { return false };
        let cycles = |action: Action| matches!(action, Action::Cycle | Action::Reset);
        let by_operation = host.operations.iter().any(|operation| operation.is_ordered() && cycles(operation.command.action));
        let Some(watch) = host.watch.as_deref() else { return by_operation };
        let in_doubt = watch.row.doubt.is_some_and(|until| now.boottime < until.boottime);
        by_operation || in_doubt || watch.is_resetting(now)
    }

    fn count_power_down(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let rules = self.rules_of(slot);
        let Some(rules) = rules else { return };
        let agent_cap = gates::agent_cap(self.agent_cap());
        self.brakes.power_down(&rules.cluster, gates::cap_of(&rules), agent_cap, now);
        decision.records.push(Record::Brakes(Box::new(self.brakes.row().clone())));
    }

    fn only_observes_recovery(&self, slot: usize) -> bool {
        let Some(watch) = self.watch_of(slot).filter(|watch| watch.row.deadline.is_none()) else { return false };
        matches!(&watch.row.stepper, Some(Stepper::Recover(recovery)) if recovery.stage == Stage::Held(None))
            && watch.ha.settings.mode == Mode::Observe
    }

    fn give_time_to_boot(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let boot = self.settings.machine_boot;
        let Some(watch) = self.watch_mut(slot) else { return };
        let boot_wait = Duration::from_secs(watch.ha.settings.boot_wait.into());
        watch.row.deadline = Some(Moment::at(boot, now.after(boot_wait)));
        self.keep_row(slot, decision);
    }

    fn rules_of(&self, slot: usize) -> Option<ClusterHa> {
        let assignment = &self.host(slot)?.assignment;
        let known = self.watching.rules.as_ref().and_then(|rules| rules.cluster(&assignment.cluster));
        Some(known.cloned().unwrap_or_else(|| gates::rules_unheard_of(assignment.cluster.clone(), assignment.zone.clone())))
    }

    fn agent_cap(&self) -> u16 {
        self.watching.rules.as_ref().map_or(1, |rules| rules.agent_cap)
    }

    // ---- gates ----

    /// Asks all gates; gives the one in the way. The state machine hears of it, and the centre when the answers changed.
    fn ask_gates(&mut self, slot: usize, act: Act, now: Now, decision: &mut Decision) -> Option<Gate> {
        let judgement = self.judge(slot, act, None, now)?;
        let held = judgement.held_by();
        let inputs = |gate: Gate| judgement.0.iter().find(|answer| answer.gate == gate).map(|answer| answer.inputs.clone());
        let said = held.and_then(inputs).unwrap_or_default();
        self.tell_judgement(slot, act, None, judgement.clone(), now, decision);
        match held {
            Some(gate) => self.ha_event(slot, &HaEvent::Held(gate), said, now, decision),
            None => self.ha_event(slot, &HaEvent::Passed, "all gates are open", now, decision),
        };
        held
    }

    fn tell_judgement(
        &mut self,
        slot: usize,
        act: Act,
        operation: Option<OperationId>,
        judgement: Judgement,
        now: Now,
        decision: &mut Decision,
    ) {
        let Some(watch) = self.watch_mut(slot) else { return };
        let attempt = match &watch.row.state {
            HaState::Fencing(fencing) => fencing.attempt,
            HaState::Recovering { attempt } => u16::from(*attempt),
            _ => 0,
        };
        // Numbers in its sentences change all the time; what counts is what each gate says.
        let key = |judgement: &Judgement| -> Vec<_> {
            judgement.0.iter().map(|answer| (answer.gate, answer.verdict, answer.overridden_by.clone())).collect()
        };
        let is_old = watch
            .judged
            .as_ref()
            .is_some_and(|(was, number, told)| (*was, *number) == (act, attempt) && key(told) == key(&judgement));
        if is_old && act != Act::Plan {
            return;
        }
        watch.judged = Some((act, attempt, judgement.clone()));
        let report = JudgedReport {
            host: watch.row.host.clone(),
            at: now.wall.into(),
            act,
            attempt,
            operation: operation.or(watch.row.operation),
            judgement: bounded(judgement),
        };
        decision.records.push(Record::Report(Box::new(Report::Judged(report))));
    }

    /// What all gates say to `act` now; of a plan, as if `planner` had ordered it.
    fn judge(&self, slot: usize, act: Act, planner: Option<&str>, now: Now) -> Option<Judgement> {
        let host = self.host(slot)?;
        let watch = host.watch.as_deref()?;
        let rules = self.rules_of(slot)?;
        let members = self.members();
        let standing = match &watch.row.stepper {
            Some(Stepper::Fence(attempt)) => Standing::of(attempt),
            _ => Standing { principal: planner, ..Standing::default() },
        };
        let found = host.facts.as_ref().filter(|row| row.revision == host.row.revision);
        let power = match (&host.assignment.refusal, &host.assignment.bmc) {
            (Some(refusal), _) => Err(*refusal),
            (None, None) => Err(Refusal::HostNotConfigured),
            (None, Some(_)) => Ok(()),
        };
        let newest = self.watching.surroundings.as_ref().map_or(0, |told| told.epoch);
        let newest = newest.max(self.watching.rules.as_ref().map_or(0, |rules| rules.epoch));
        let is_inactive =
            matches!(watch.row.state, HaState::Recovering { .. } | HaState::Fencing(Fencing { way: Way::Order(By::Policy), .. }));
        let subject = Subject {
            host: &host.row.host,
            settings: &watch.ha.settings,
            pinned: watch.ha.identity.as_deref(),
            found: found.and_then(|row| row.facts.identity.as_deref()),
            can_prove: host.can_prove(&self.settings.proving_templates),
            power,
            is_watched: watch.ha.closed.is_none(),
            maintenance: watch.ha.maintenance,
            pause: watch.ha.pause.as_ref(),
            owns: self.assignments.epoch >= newest,
            is_dead: watch.last.as_ref().is_some_and(|last| last.sign == HealthSign::Dead),
            is_inactive,
            standing,
        };
        let around = Around {
            now,
            centre_now: self.clock.map(|clock| clock.latest(now.boottime)),
            scene: Scene { members: &members, told: self.watching.surroundings.as_ref() },
            cluster: &rules,
            agent_cap: self.agent_cap(),
            connection: gates::connection(self.answers(slot, now)),
            brakes: &self.brakes,
        };
        Some(gates::judge(act, subject, around))
    }

    /// How long ago the reference addresses and each other BMC answered.
    fn answers(&self, slot: usize, now: Now) -> impl Iterator<Item = Option<Duration>> + '_ {
        let ago = move |at: Duration| now.boottime.saturating_sub(at);
        let references = (!self.settings.references.is_empty()).then(|| self.watching.path.reference().map(ago));
        let others = self.hosts.iter().enumerate().filter(move |(other, _)| *other != slot);
        let bmcs = others.filter_map(|(_, host)| host.as_ref()).filter(|host| host.is_open());
        references.into_iter().chain(bmcs.map(move |host| host.last_good.map(ago)))
    }

    /// All hosts of the rack that host-HA knows.
    fn members(&self) -> Vec<Member<'_>> {
        self.hosts.iter().flatten().filter_map(Host::member).collect()
    }

    /// Looks for storms and cliffs after a host's state changed.
    pub(super) fn look_around(&mut self, fallen: Option<&HostId>, now: Now, decision: &mut Decision) {
        let members: Vec<Member<'_>> = self.hosts.iter().flatten().filter_map(Host::member).collect();
        let scene = Scene { members: &members, told: self.watching.surroundings.as_ref() };
        let clusters = self.watching.rules.as_ref().map_or(&[][..], |rules| &rules.clusters);
        if self.brakes.look(scene, clusters.iter(), fallen, now) {
            decision.records.push(Record::Brakes(Box::new(self.brakes.row().clone())));
        }
    }

    /// The agent lives: how long it was away decides about the quiet time after its start. What moves without a host's state, such as
    /// what somebody acknowledged and what the centre says of other racks, is looked at too.
    pub(in crate::rack) fn tell_brakes(&mut self, now: Now, decision: &mut Decision) {
        if self.watching.rules.is_none() {
            return;
        }
        self.look_around(None, now, decision);
        if self.brakes.lives(now) {
            decision.records.push(Record::Brakes(Box::new(self.brakes.row().clone())));
        }
    }

    /// The rack's slot is free: whoever waits for it longest is woken.
    fn pass_slot_on(&mut self) {
        let members = self.members();
        let first = Scene { members: &members, told: None }.next_in_line().map(|(_, host)| host.clone());
        let Some(slot) = first.and_then(|host| self.by_id.get(&host).copied()) else { return };
        let Some(watch) = self.watch_mut(slot) else { return };
        watch.waiting.due = Some(Duration::ZERO);
        watch.stamp += 1;
        let stamp = watch.stamp;
        self.watching.schedule.push(Duration::ZERO, slot, stamp);
    }

    // ---- verbs ----

    /// All gates are asked as if `by` had ordered a fence, and nothing is sent.
    pub(super) fn plan(&mut self, slot: usize, by: &str, operation: OperationId, now: Now, decision: &mut Decision) {
        let Some(judgement) = self.judge(slot, Act::Plan, Some(by), now) else { return };
        self.tell_judgement(slot, Act::Plan, Some(operation), judgement, now, decision);
    }

    pub(super) fn reset_counters(&mut self, slot: usize, now: Now, decision: &mut Decision) -> bool {
        let Some(cluster) = self.host(slot).map(|host| host.assignment.cluster.clone()) else { return false };
        let mut did = self.brakes.reset_counters(&cluster);
        if did {
            decision.records.push(Record::Brakes(Box::new(self.brakes.row().clone())));
        }
        let Some(watch) = self.watch_mut(slot) else { return did };
        if let Some(Stepper::Fence(attempt)) = &mut watch.row.stepper {
            attempt.reset_counters();
        }
        if let HaState::Fencing(fencing) = &mut watch.row.state {
            did |= fencing.attempt != 1;
            fencing.attempt = 1;
            self.tell_ha(slot, now, decision);
        }
        did
    }

    pub(super) fn end_cliff(&mut self, decision: &mut Decision) -> bool {
        let did = self.brakes.end_cliff();
        if did {
            decision.records.push(Record::Brakes(Box::new(self.brakes.row().clone())));
        }
        did
    }
}

impl Watch {
    /// Whether a reset of ours may be passing through Off.
    fn is_resetting(&self, now: Now) -> bool {
        let Some(Stepper::Recover(recovery)) = &self.row.stepper else { return false };
        let lately = |sent: picket_common::wire::Time| now.wall.duration_since(sent.timestamp()).unsigned_abs() < RESETTING;
        recovery.is_sent() && recovery.sent.is_none_or(lately)
    }
}

impl Host {
    /// Whether its driver proves that a host is off.
    pub(super) fn can_prove(&self, templates: &[String]) -> bool {
        let Some(bmc) = &self.assignment.bmc else { return false };
        let template = bmc.options.iter().find(|(name, _)| name == "template").map(|(_, template)| template);
        let by_template = || bmc.driver.eq_ignore_ascii_case("exec") && template.is_some_and(|name| templates.contains(name));
        driver::find(&bmc.driver).is_some_and(|driver| driver.can_prove) || by_template()
    }

    /// Its BMC, as evidence names it.
    fn device(&self) -> String {
        let address = self.assignment.bmc.as_ref().map(|bmc| bmc.address.as_str()).unwrap_or_default();
        format!("{} {address}", self.driver)
    }

    fn member(&self) -> Option<Member<'_>> {
        let watch = self.watch.as_deref()?;
        Some(Member {
            host: &self.row.host,
            cluster: &self.assignment.cluster,
            zone: &self.assignment.zone,
            state: &watch.row.state,
            is_acked: watch.row.acked,
            is_off: watch.row.commanded_off || watch.row.off_by_proof,
            slot: watch.row.stepper.as_ref().map_or(SlotUse::None, Stepper::slot_use),
        })
    }
}

/// Texts cut to what the wire allows.
fn bounded(mut judgement: Judgement) -> Judgement {
    for answer in &mut judgement.0 {
        answer.inputs = cut(&answer.inputs, MAX_TEXT);
    }
    judgement
}
