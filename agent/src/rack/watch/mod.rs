//! Host-HA at the rack: drives each host's state machine ([`picket_common::ha`]) with what its checks and its BMC say, and tells
//! what changes. Pure, as all of the rack: checks and requests leave through the [`Decision`].
//!
//! What is due is always derived from the state: `Rack::attend` looks at a host and starts what is missing, after every event and
//! after a restart alike.

mod activity;
mod eligible;
mod fencing;
mod health;
mod part;
pub mod path;
mod row;
mod sense;
mod verbs;
mod why;

use std::collections::BTreeMap;
use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{BmcError, ErrorClass, Outcome, Refusal};
use picket_common::ha::settings::{HaSettings, Mode};
use picket_common::ha::{By, Degraded, Fenced, Fencing, HaEvent, HaState, OutagePolicy, Way};
use picket_common::id::{HostId, OperationId};
use picket_common::policy::Judgement;
use picket_common::wire::ha::{Act, HostHa, Surroundings};
use picket_common::wire::report::{MAX_TEXT, OperationReport, Progress, Report};

use self::activity::Samples;
pub use self::fencing::Stepper;
use self::fencing::Waiting;
use self::health::{Rounds, Verdict};
use self::part::Collecting;
pub use self::part::{Absent, Rules};
use self::path::PathLog;
pub use self::row::{FenceOrder, HaRow};
use super::brakes::fell;
use super::fence::OffSeen;
use super::moment::{MachineBoot, Moment};
use super::schedule::Schedule;
use super::{Decision, Rack, Record};
use crate::bmc::cut;

/// How often the BMC of a host that is not well is read.
pub const DENSE: Duration = Duration::from_secs(2);
/// Most orders to switch a fenced host on again, and the pause between them.
const MOST_RESTARTS: u8 = 5;
const RESTART_PAUSE: Duration = Duration::from_secs(60);

/// What the rack knows of host-HA beside its hosts.
#[derive(Debug, Default)]
pub struct Watching {
    /// What is in force for all hosts.
    pub rules: Option<Rules>,
    collecting: Option<Collecting>,
    /// What goes on around the agent's hosts.
    pub surroundings: Option<Surroundings>,
    /// What is known of hosts that are not assigned here.
    pub absent: BTreeMap<HostId, Absent>,
    /// Whether the agent's own paths work.
    pub path: PathLog,
    /// When the process started (boottime).
    pub started: Duration,
    schedule: Schedule,
    /// When reference addresses are asked next.
    references_due: Duration,
    verbs_early: Vec<picket_common::wire::ha::HaCommand>,
}

impl Watching {
    /// Of a process that started at `now`.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self { started: now.boottime, ..Self::default() }
    }
}

/// A host that is watched over.
#[derive(Debug)]
pub struct Watch {
    /// What the centre says about it.
    pub ha: HostHa,
    /// Where it stands.
    pub row: HaRow,
    /// What its last health check said.
    pub last: Option<Verdict>,
    rounds: Rounds,
    samples: Samples,
    /// An Off that nobody ordered, being counted.
    pub seen: OffSeen,
    /// When counting it began (boottime).
    counting_since: Duration,
    /// What the gates said last, as far as it was told, and to which attempt.
    judged: Option<(Act, u16, Judgement)>,
    waiting: Waiting,
    /// Its LED is to be lit.
    pub blink: bool,
    /// When a fenced host is ordered on next by its policy.
    restart_due: Duration,
    is_dense: bool,
    stamp: u64,
}

impl Watch {
    fn new(ha: HostHa, row: HaRow, now: Now) -> Self {
        let mut rounds = Rounds::default();
        rounds.due = now.boottime;
        Self {
            ha,
            row,
            last: None,
            rounds,
            samples: Samples::default(),
            seen: OffSeen::default(),
            counting_since: Duration::ZERO,
            judged: None,
            waiting: Waiting::default(),
            blink: false,
            restart_due: now.boottime,
            is_dense: false,
            stamp: 0,
        }
    }

    /// Its settings are others.
    fn change(&mut self, ha: HostHa, now: Now) {
        if self.ha.settings.activity != ha.settings.activity {
            self.samples.clear();
        }
        if self.ha.settings.health != ha.settings.health {
            self.rounds.clear();
            self.rounds.due = now.boottime;
        }
        self.ha = ha;
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &HaSettings {
        &self.ha.settings
    }

    /// Whether its health checks are made.
    const fn is_checked(&self) -> bool {
        !matches!(self.row.state, HaState::Disabled)
    }

    /// Whether an Off that nobody ordered means anything.
    const fn is_watched(&self) -> bool {
        matches!(
            self.row.state,
            HaState::Available { .. }
                | HaState::Suspect
                | HaState::Checking { .. }
                | HaState::Degraded(_)
                | HaState::Recovering { .. }
                | HaState::Recovered
        )
    }

    /// Whether its BMC is worth a dense look.
    #[must_use]
    pub fn wants_dense(&self) -> bool {
        let unwell = matches!(
            self.row.state,
            HaState::Suspect | HaState::Checking { .. } | HaState::Recovering { .. } | HaState::Fencing(_)
        );
        unwell || (self.is_watched() && self.seen.is_counting())
    }

    /// How long the state it is in may last; `None` = it ends by itself.
    fn lasts(&self) -> Option<Duration> {
        let settings = self.settings();
        match self.row.state {
            HaState::Checking { .. } => Some(settings.checking_within()),
            HaState::Degraded(_) => Some(Duration::from_secs(settings.recheck.into())),
            // It has its time to boot from its reset on, not while a gate is in the way.
            HaState::Recovered => Some(Duration::from_secs(settings.stable.into())),
            _ => None,
        }
    }

    /// When it must be looked at although nothing happens.
    fn next(&self, now: Duration) -> Option<Duration> {
        let row = &self.row;
        let checked = self.is_checked() && !self.rounds.is_busy() && !self.ha.settings.health.is_empty();
        let sampled = matches!(row.state, HaState::Checking { .. });
        let restarting = self.is_restarting();
        let due = [
            row.deadline.map(|deadline| deadline.boottime),
            row.closing.map(|closing| closing.boottime),
            row.orders.iter().map(|order| order.deadline.boottime).min(),
            checked.then_some(self.rounds.due),
            self.rounds.next(),
            self.samples.limit(),
            if sampled { self.samples.due(self.settings(), now) } else { None },
            restarting.then_some(self.restart_due),
            self.waiting.due,
            self.waiting.limit,
        ];
        due.into_iter().flatten().min()
    }

    /// Whether its policy is to switch it on again, and it was not read On so far.
    const fn is_restarting(&self) -> bool {
        let still_off = matches!(self.row.state, HaState::Fenced(Fenced { returned: false, released: false, .. }));
        still_off && matches!(self.row.restarts, Some(orders) if orders < MOST_RESTARTS)
    }

    /// Whether it may be switched on: not while it is fenced.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        matches!(self.row.state, HaState::Fencing(_) | HaState::Fenced(Fenced { released: false, .. })) || self.row.mark.is_some()
    }
}

/// Whether a change of state is one that others are told of: counters below their limits are not.
fn told_apart(old: &HaState, new: &HaState) -> bool {
    match (old, new) {
        (HaState::Available { .. }, HaState::Available { .. }) | (HaState::Checking { .. }, HaState::Checking { .. }) => false,
        (old, new) => old != new,
    }
}

impl Rack {
    pub(in crate::rack) fn watch_of(&self, slot: usize) -> Option<&Watch> {
        self.host(slot).and_then(|host| host.watch.as_deref())
    }

    pub(in crate::rack) fn watch_mut(&mut self, slot: usize) -> Option<&mut Watch> {
        self.host_mut(slot).and_then(|host| host.watch.as_deref_mut())
    }

    /// Tells a host's state machine what happened. False when it means nothing there.
    pub(in crate::rack) fn ha_event(
        &mut self,
        slot: usize,
        event: &HaEvent,
        why: impl AsRef<str>,
        now: Now,
        decision: &mut Decision,
    ) -> bool {
        let boot = self.settings.machine_boot;
        let Some(watch) = self.watch_mut(slot) else { return false };
        let Some(next) = watch.row.state.step(event, &watch.ha.settings.rules()) else { return false };
        let old = std::mem::replace(&mut watch.row.state, next);
        if old == watch.row.state {
            return true;
        }
        if !told_apart(&old, &watch.row.state) {
            self.keep_row(slot, decision);
            return true;
        }
        watch.row.why = cut(why.as_ref(), MAX_TEXT);
        if old.name() != watch.row.state.name() {
            watch.row.since = Moment::at(boot, now);
        }
        if old.name() != watch.row.state.name() || matches!(old, HaState::Recovering { .. }) {
            watch.row.deadline = watch.lasts().map(|lasts| Moment::at(boot, now.after(lasts)));
        }
        let fallen = fell(&old, &watch.row.state).then(|| watch.row.host.clone());
        self.entered(slot, &old, now, decision);
        self.tell_ha(slot, now, decision);
        self.look_around(fallen.as_ref(), now, decision);
        true
    }

    /// What a new state brings with it.
    fn entered(&mut self, slot: usize, old: &HaState, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        let state = watch.row.state.clone();
        match (&state, old) {
            (HaState::Checking { .. }, HaState::Suspect) => watch.row.quarantined = true,
            (HaState::Degraded(Degraded::Policy), _) => {
                watch.blink = watch.ha.settings.policy == OutagePolicy::Blink && watch.ha.settings.mode == Mode::Act;
            }
            (HaState::Fencing(_), HaState::Fencing(_)) => {}
            (HaState::Fencing(_), _) => {
                watch.row.proof = None;
                watch.row.error = None;
                self.end_operations(slot, Refusal::HostFenced, now, decision);
            }
            (HaState::Fenced(fenced), HaState::Fenced(_)) if fenced.released => watch.row.mark = None,
            (HaState::Fenced(_), HaState::Fenced(_)) => {}
            (HaState::Fenced(fenced), _) => {
                watch.row.mark = Some(fenced.evidence.clone());
                watch.row.quarantined = true;
                watch.row.error = None;
                watch.row.closing = None;
                watch.row.restarts = None;
            }
            (HaState::Available { .. }, _) => {
                watch.row.mark = None;
                watch.forget_outage();
            }
            (HaState::Disabled | HaState::Ineligible(_), _) => {
                watch.forget_outage();
                watch.samples.clear();
                watch.seen.forget();
            }
            _ => {}
        }
        if matches!(old, HaState::Fencing(_)) && !matches!(state, HaState::Fencing(_)) {
            self.fence_ended(slot, old, now, decision);
        }
    }

    /// A fence is over: whoever ordered it hears how it ended.
    fn fence_ended(&mut self, slot: usize, old: &HaState, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        let off_sent = matches!(old, HaState::Fencing(Fencing { off_possibly_sent: true, .. }));
        let by_policy = matches!(old, HaState::Fencing(Fencing { way: Way::Order(By::Policy), .. }));
        watch.row.closing = None;
        watch.row.overrides.clear();
        let outcome = match &watch.row.state {
            HaState::Fenced(_) => Outcome::Changed,
            HaState::Disabled => Outcome::Refused(Refusal::HaDisabled),
            HaState::Degraded(Degraded::Aborted) if off_sent => Outcome::Unknown("aborted after an off was possibly sent".into()),
            HaState::Degraded(Degraded::Aborted) => Outcome::Cancelled,
            _ => Outcome::Failed(watch.row.error.clone().unwrap_or_else(|| BmcError {
                driver: "picket".into(),
                class: ErrorClass::Refused,
                code: "not-fenced".into(),
                text: watch.row.why.clone(),
            })),
        };
        if by_policy && matches!(watch.row.state, HaState::Fenced(_)) && watch.ha.settings.policy == OutagePolicy::Reboot {
            watch.row.restarts = Some(0);
            watch.restart_due = now.boottime;
        }
        for order in std::mem::take(&mut watch.row.orders) {
            self.tell_operation(slot, order.operation, Progress::Done(outcome.clone()), now, decision);
        }
    }

    pub(in crate::rack) fn tell_operation(
        &mut self,
        slot: usize,
        operation: OperationId,
        progress: Progress,
        now: Now,
        decision: &mut Decision,
    ) {
        let Some(host) = self.host(slot) else { return };
        let report = OperationReport { operation, host: host.row.host.clone(), at: now.wall.into(), progress };
        decision.records.push(Record::Report(Box::new(Report::Operation(report))));
    }

    /// Something that others are told of changed.
    pub(in crate::rack) fn tell_ha(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        watch.row.count_change(now);
        decision.records.push(Record::Ha(Box::new(watch.row.clone())));
        decision.records.push(Record::Report(Box::new(watch.row.report())));
    }

    /// Something that only this agent needs to know changed.
    pub(in crate::rack) fn keep_row(&self, slot: usize, decision: &mut Decision) {
        let Some(watch) = self.watch_of(slot) else { return };
        decision.records.push(Record::Ha(Box::new(watch.row.clone())));
    }

    /// A host is watched over from now on, or something about it is new.
    fn begin_watch(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let is_new = self.watch_of(slot).is_some_and(|watch| watch.row.version == 0);
        self.reconsider(slot, now, decision);
        if is_new && self.watch_of(slot).is_some_and(|watch| watch.row.version == 0) {
            let Some(watch) = self.watch_mut(slot) else { return };
            watch.row.why = watch.ha.closed.map_or(why::ELIGIBLE, why::closed).to_owned();
            self.tell_ha(slot, now, decision);
        }
        self.attend(slot, now, decision);
    }

    fn stop_watching(&mut self, slot: usize, said: &str, now: Now, decision: &mut Decision) {
        if self.watch_of(slot).is_some_and(|watch| watch.row.state != HaState::Disabled) {
            self.ha_event(slot, &HaEvent::Disabled, said, now, decision);
        }
    }

    /// Starts for a host what its state says, and ends what is over. Whatever happens, this is what follows.
    pub(in crate::rack) fn attend(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        if self.watch_of(slot).is_none() {
            return;
        }
        self.reconsider(slot, now, decision);
        self.end_overdue(slot, now, decision);
        self.attend_health(slot, now, decision);
        self.attend_activity(slot, now, decision);
        self.attend_fence(slot, now, decision);
        self.attend_orders(slot, now, decision);
        self.attend_power(slot, now, decision);
        self.reschedule_watch(slot, now);
    }

    pub(in crate::rack) fn attend_all(&mut self, now: Now, decision: &mut Decision) {
        for slot in 0..self.hosts.len() {
            self.attend(slot, now, decision);
        }
    }

    /// The state has lasted as long as it may.
    fn end_overdue(&mut self, slot: usize, now: Now, decision: &mut Decision) {
        let Some(watch) = self.watch_mut(slot) else { return };
        if watch.row.deadline.take_if(|deadline| deadline.boottime <= now.boottime).is_none() {
            return;
        }
        let boot_wait = Duration::from_secs(watch.ha.settings.boot_wait.into());
        let lasted = watch.lasts().unwrap_or(boot_wait).as_secs();
        let (event, said) = match &watch.row.state {
            HaState::Checking { .. } => (HaEvent::Overdue, format!("its activity could not be told within {lasted} s")),
            HaState::Degraded(_) => (HaEvent::RecheckDue, format!("{lasted} s are over: it is looked at again")),
            HaState::Recovering { attempt } => {
                (HaEvent::Overdue, format!("no health check passed within {lasted} s after reset {attempt}"))
            }
            HaState::Recovered => (HaEvent::Stable, format!("well for {lasted} s after its reset")),
            _ => return,
        };
        self.ha_event(slot, &event, said, now, decision);
    }

    fn reschedule_watch(&mut self, slot: usize, now: Now) {
        let Some(watch) = self.watch_mut(slot) else { return };
        watch.stamp += 1;
        let (stamp, next) = (watch.stamp, watch.next(now.boottime));
        let turns_dense = watch.wants_dense() && !watch.is_dense;
        watch.is_dense = watch.wants_dense();
        if let Some(due) = next {
            self.watching.schedule.push(due, slot, stamp);
        }
        if let Some(host) = self.host_mut(slot).filter(|_| turns_dense) {
            host.poll_due = host.poll_due.min(now.boottime.saturating_add(DENSE));
            self.reschedule(slot);
        }
    }

    /// What is due by the clock.
    pub(in crate::rack) fn watch_tick(&mut self, now: Now, decision: &mut Decision) {
        while let Some((slot, stamp)) = self.watching.schedule.pop_due(now.boottime) {
            if self.watch_of(slot).is_some_and(|watch| watch.stamp == stamp) {
                self.attend(slot, now, decision);
            }
        }
        self.ask_references(now, decision);
    }

    /// When the next tick is needed for it (boottime).
    pub(in crate::rack) fn watch_wake(&self) -> Option<Duration> {
        let references = self.asks_references().then_some(self.watching.references_due);
        [self.watching.schedule.next(), references].into_iter().flatten().min()
    }

    /// What a journal kept of host-HA, when the rack is made: each host goes on from its state.
    pub(in crate::rack) fn restore_watch(&mut self, restored: RestoredWatch, boot: MachineBoot, now: Now) {
        self.watching.rules = restored.rules;
        self.watching.surroundings = restored.surroundings;
        for ha in restored.hosts {
            let host = ha.host.clone();
            self.watching.absent.entry(host).or_default().ha = Some(ha);
        }
        for mut row in restored.rows {
            row.see_from(boot, now);
            if let HaState::Checking { dead } = &mut row.state {
                // What its files looked like is forgotten, so its samples begin anew.
                *dead = 0;
            }
            let host = row.host.clone();
            self.watching.absent.entry(host).or_default().row = Some(row);
        }
        for slot in 0..self.hosts.len() {
            let share = (self.draw_jitter() - 0.8) / 0.4;
            let Some(host) = self.hosts.get_mut(slot).and_then(Option::as_mut) else { continue };
            let id = host.row.host.clone();
            if self.watching.absent.get(&id).is_none_or(|absent| absent.ha.is_none()) {
                continue;
            }
            let Some(Absent { ha: Some(ha), row }) = self.watching.absent.remove(&id) else { continue };
            let row = row.unwrap_or_else(|| HaRow::new(id, boot, now));
            let interval = Duration::from_secs(ha.settings.health_interval.into());
            let mut watch = Watch::new(ha, row, now);
            watch.rounds.due = now.boottime.saturating_add(interval.mul_f64(share.clamp(0.0, 1.0)));
            watch.stamp = 1;
            // The first tick looks at it.
            self.watching.schedule.push(now.boottime, slot, 1);
            host.watch = Some(Box::new(watch));
        }
    }
}

impl Watch {
    /// It is well, or nobody watches over it: what was noted of its outage is over.
    fn forget_outage(&mut self) {
        self.samples.clear();
        self.blink = false;
        let row = &mut self.row;
        (row.quarantined, row.acked, row.off_by_proof) = (false, false, false);
        (row.error, row.proof, row.operation, row.closing) = (None, None, None, None);
    }
}

/// What the journal kept of host-HA.
#[derive(Debug, Default, Clone)]
pub struct RestoredWatch {
    /// What is in force for all hosts.
    pub rules: Option<Rules>,
    /// What goes on around them.
    pub surroundings: Option<Surroundings>,
    /// What the centre said about each.
    pub hosts: Vec<HostHa>,
    /// Where each stood.
    pub rows: Vec<HaRow>,
}
