//! A fence under way: its attempts, one after another, until it is proven, or the host is well after all.
//!
//! ```text
//! Queued ─▶ Reading ─▶ Vetting ─▶ Judging ─▶ Ordering ─▶ Confirming ─▶ Contesting ─▶ proven
//!   ▲          │     (automatic)   │   ▲                   ▲   │           │
//!   │          └── reads Off ──────┼───┼───────────────────┘   └─ failed   └─ contradicted
//!   │                              ▼   │ (nothing was sent: the gates of a proof)
//!   ├──────────────────────────── Held │
//!   └──────────────────────────── Pausing ◀─ failed
//! ```
//! `Ordering` is journalled before the off is sent. Found in it after a restart, the attempt begins with a reading again: an off
//! may be sent twice, for it does nothing to a host that is off. What is to be proven only never gets to `Ordering`.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{BmcError, ErrorClass};
use picket_common::ha::settings::{HaSettings, Mode};
use picket_common::ha::{By, Evidence, Gate, HaEvent, Way};
use picket_common::wire::Time;
use picket_common::wire::ha::{Act, Proof};
use serde::{Deserialize, Serialize};

use super::offs::{Count, CountRules, Offs};
use super::{End, Health, HealthSign, Input, JUDGED_AGAIN, NEXT_ATTEMPT, Rules, Step, logins_paused, own_error};
use crate::bmc::{Ask, DriverError, PowerReply, Reading};

/// Longest text of a driver that is quoted within another.
const QUOTED: usize = 512;

/// Where a fence stands; journalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It is to begin.
    Queued,
    /// Reads first: it may be off already.
    Reading,
    /// An automatic fence looks once more whether the host is well.
    Vetting,
    /// The gates are asked about this.
    Judging(Act),
    /// A gate is in the way; without one, it is only observed.
    Held(Option<Gate>),
    /// The off may be on its way.
    Ordering,
    /// Reads until it is Off often enough.
    Confirming {
        /// Whether this attempt sent an off.
        sent: bool,
        /// The BMC refused it in a way that can mean "already there".
        refused: bool,
    },
    /// It is Off often enough: does the host answer all the same?
    Contesting {
        /// Whether this attempt sent an off.
        sent: bool,
    },
    /// Waits for the next attempt.
    Pausing,
}

/// A fence with its journalled phase and its memory of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Proof or order.
    pub way: Way,
    /// Gates that the principal overrides.
    pub overrides: Vec<Gate>,
    /// Which attempt, from 1.
    pub number: u16,
    /// Where it stands.
    pub phase: Phase,
    /// Whether an off was sent, or may have been.
    pub off_possibly_sent: bool,
    /// Whether it was counted against the caps.
    pub is_counted: bool,
    /// When an off was last sent.
    pub tried: Option<Time>,
    /// The driver's last error.
    pub error: Option<BmcError>,
    #[serde(skip)]
    memory: Memory,
}

/// What a restart forgets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Memory {
    offs: Offs,
    /// Only readings begun after this count (boottime).
    since: Duration,
    /// When the readings must be complete (boottime).
    deadline: Duration,
    /// When a health check or the gates were asked for (boottime).
    asked: Duration,
    /// A host that was well before this may have been switched off since (boottime).
    deaf_until: Duration,
    /// The slot of the rack was taken when the gates were asked last.
    waits_for_slot: bool,
}

impl Attempt {
    /// A host is to be switched off.
    #[must_use]
    pub fn of_order(by: By, overrides: Vec<Gate>) -> Self {
        Self::new(Way::Order(by), overrides, Offs::default())
    }

    /// An Off that nobody ordered is to be proven, with the readings of [`super::OffSeen`]; nothing is ever sent for it.
    #[must_use]
    pub fn of_proof(offs: Offs) -> Self {
        Self::new(Way::Proof, Vec::new(), offs)
    }

    fn new(way: Way, overrides: Vec<Gate>, offs: Offs) -> Self {
        Self {
            way,
            overrides,
            number: 1,
            phase: Phase::Queued,
            off_possibly_sent: false,
            is_counted: false,
            tried: None,
            error: None,
            memory: Memory { offs, ..Memory::default() },
        }
    }

    /// A principal orders what is under way already. Begin with [`Input::Start`], unless a request is in flight.
    pub fn taken_over(&mut self, by: String, overrides: Vec<Gate>) {
        self.way = Way::Order(By::Principal(by));
        self.overrides = overrides;
        self.number = 1;
        if matches!(self.phase, Phase::Held(_) | Phase::Pausing) {
            self.phase = Phase::Queued;
        }
    }

    /// Its attempts are counted from one again.
    pub const fn reset_counters(&mut self) {
        self.number = 1;
    }

    /// Who ordered it, unless it is automatic.
    #[must_use]
    pub const fn principal(&self) -> Option<&String> {
        match &self.way {
            Way::Order(By::Principal(who)) => Some(who),
            Way::Proof | Way::Order(By::Policy) => None,
        }
    }

    /// Whether so many attempts failed that people must know.
    #[must_use]
    pub const fn is_unconfirmed(&self, settings: &HaSettings) -> bool {
        self.number > settings.fence_attempts
    }

    /// Whether it has the rack's slot: from the intent to the end of the attempt, not between attempts.
    #[must_use]
    pub const fn holds_slot(&self) -> bool {
        matches!(self.phase, Phase::Ordering | Phase::Confirming { sent: true, .. } | Phase::Contesting { sent: true })
    }

    /// Whether only the rack's slot was missing when the gates were asked last.
    #[must_use]
    pub const fn waits_for_slot(&self) -> bool {
        self.memory.waits_for_slot
    }

    /// Takes the next step.
    pub fn step(&mut self, input: Input<'_>, now: Now, rules: Rules<'_>) -> Step {
        use Phase as P;
        match (self.phase, input) {
            (_, Input::Start) | (P::Queued | P::Held(_) | P::Pausing, Input::Due) => self.begin(now, rules),
            (phase, Input::Health(health)) => self.health(phase, health, now, rules),
            (P::Reading, Input::Read { result, .. }) => self.first_read(result, now, rules),
            // Read by somebody else while it waits: an Off ends the waiting.
            (P::Queued | P::Held(_) | P::Pausing, Input::Read { result: Ok(Reading::Off), .. }) if !self.is_proof() => {
                self.first_read(Ok(Reading::Off), now, rules)
            }
            (P::Queued | P::Held(_), Input::Read { result: Ok(reading), begun }) if self.is_proof() => {
                self.memory.offs.read(reading, begun, now, self.count_rules(rules));
                if reading == Reading::Off { Step::Stay } else { self.contradicted(now, rules) }
            }
            (P::Judging(act), Input::Judged(held)) => self.judged(act, held, now, rules),
            (P::Ordering, Input::Ordered(reply)) => self.ordered(reply, now, rules),
            (P::Confirming { sent, refused }, Input::Read { result, begun }) => {
                self.confirm(sent, refused, result, begun, now, rules)
            }
            (P::Contesting { sent }, Input::Read { result: Ok(reading), .. }) if reading != Reading::Off => {
                self.not_off(reading, sent, false, now, rules)
            }
            (P::Judging(Act::Proof), Input::Read { result: Ok(reading), .. }) if reading != Reading::Off => {
                self.not_off(reading, false, false, now, rules)
            }

            (P::Reading, Input::Due) => self.read(now, rules),
            (P::Confirming { .. }, Input::Due) if now.boottime >= self.memory.deadline => self.unproven(now, rules),
            (P::Confirming { .. }, Input::Due) => self.read(now, rules),
            (P::Vetting, Input::Due) => self.vet(now),
            (P::Contesting { .. }, Input::Due) => Step::CheckHealth,
            (P::Judging(act), Input::Due) => self.judge(act, now),

            (
                P::Reading | P::Vetting | P::Judging(_) | P::Ordering | P::Confirming { .. } | P::Contesting { .. },
                Input::Overdue,
            ) => self.unproven(now, rules),
            (P::Queued | P::Held(_) | P::Pausing, Input::Overdue | Input::Read { .. })
            | (P::Vetting | P::Judging(_) | P::Ordering | P::Contesting { .. }, Input::Read { .. })
            | (P::Ordering, Input::Due)
            | (_, Input::Ordered(_) | Input::Judged(_)) => Step::Stay,
        }
    }

    const fn is_automatic(&self) -> bool {
        self.principal().is_none()
    }

    fn is_proof(&self) -> bool {
        self.way == Way::Proof
    }

    fn count_rules(&self, rules: Rules<'_>) -> CountRules {
        CountRules::of(rules.settings, rules.driver, self.is_automatic())
    }

    // ---- before anything is sent ----

    fn begin(&mut self, now: Now, rules: Rules<'_>) -> Step {
        if !self.is_proof() {
            self.memory.offs.clear();
            self.phase = Phase::Reading;
            return self.read(now, rules);
        }
        if !matches!(self.phase, Phase::Queued | Phase::Held(_)) {
            self.memory.offs.clear();
        }
        let has_readings = self.phase == Phase::Queued && !self.memory.offs.is_empty();
        self.read_until_off(false, false, now, rules);
        if has_readings { self.weigh(false, now, rules) } else { self.read(now, rules) }
    }

    fn read(&mut self, now: Now, rules: Rules<'_>) -> Step {
        if rules.is_blocked { self.blocked(now, rules) } else { Step::Ask(Ask::Status) }
    }

    /// Logins are paused. What the BMC said to the last one is the true cause.
    fn blocked(&mut self, now: Now, rules: Rules<'_>) -> Step {
        let refused = self.error.clone().filter(|error| error.class == ErrorClass::Auth);
        self.failed_by(refused.unwrap_or_else(logins_paused), now, rules)
    }

    fn first_read(&mut self, result: Result<Reading, &DriverError>, now: Now, rules: Rules<'_>) -> Step {
        match result {
            // An order would be refused likewise, and would be one more refused login.
            Err(error) if error.class == ErrorClass::Auth => self.failed_by(error.to_wire(), now, rules),
            Err(error) => {
                self.error = Some(error.to_wire());
                self.go_on(now)
            }
            Ok(Reading::Off) if !rules.is_outstanding => {
                self.memory.offs.clear();
                self.read_until_off(false, false, now, rules);
                self.read(now, rules)
            }
            Ok(_) => self.go_on(now),
        }
    }

    /// It is to be switched off: is it well after all, and may it be?
    fn go_on(&mut self, now: Now) -> Step {
        if self.is_automatic() { self.vet(now) } else { self.judge(Act::Off, now) }
    }

    fn vet(&mut self, now: Now) -> Step {
        self.phase = Phase::Vetting;
        self.memory.asked = now.boottime;
        Step::CheckHealth
    }

    fn judge(&mut self, act: Act, now: Now) -> Step {
        self.phase = Phase::Judging(act);
        self.memory.asked = now.boottime;
        Step::Judge(act)
    }

    fn judged(&mut self, act: Act, held: Option<Gate>, now: Now, rules: Rules<'_>) -> Step {
        if now.boottime != self.memory.asked {
            // What was so a moment ago is no answer.
            return self.judge(act, now);
        }
        self.memory.waits_for_slot = held == Some(Gate::InFlight);
        match (held, act) {
            (Some(gate), _) => {
                self.phase = Phase::Held(Some(gate));
                Step::Wait(JUDGED_AGAIN)
            }
            (None, Act::Off) if rules.is_blocked => self.blocked(now, rules),
            (None, Act::Off) if rules.settings.mode == Mode::Observe => {
                self.phase = Phase::Held(None);
                Step::Wait(Duration::from_secs(rules.settings.fence_retry.into()))
            }
            (None, Act::Off) if !self.is_proof() => self.order(now),
            (None, _) => self.proven(false, rules),
        }
    }

    fn order(&mut self, now: Now) -> Step {
        self.phase = Phase::Ordering;
        self.off_possibly_sent = true;
        self.is_counted = true;
        self.tried = Some(now.wall.into());
        self.memory.offs.clear();
        Step::Ask(Ask::Off)
    }

    // ---- after it ----

    fn ordered(&mut self, reply: Result<PowerReply, &DriverError>, now: Now, rules: Rules<'_>) -> Step {
        match reply {
            Ok(PowerReply::Accepted) => {}
            Ok(PowerReply::NotInThisState) => {
                self.error = Some(own_error(
                    "not-in-this-state",
                    ErrorClass::Refused,
                    "the BMC refused to switch off in the state that the host is in",
                ));
                self.read_until_off(true, true, now, rules);
                return self.read(now, rules);
            }
            Err(error) if error.maybe_sent => self.error = Some(error.to_wire()),
            Err(error) => return self.failed_by(error.to_wire(), now, rules),
        }
        self.read_until_off(true, false, now, rules);
        self.look_again(now, rules)
    }

    fn read_until_off(&mut self, sent: bool, refused: bool, now: Now, rules: Rules<'_>) {
        self.phase = Phase::Confirming { sent, refused };
        self.memory.since = now.boottime;
        self.memory.deadline = now.boottime.saturating_add(Duration::from_secs(rules.settings.confirm_within.into()));
    }

    fn confirm(
        &mut self,
        sent: bool,
        refused: bool,
        result: Result<Reading, &DriverError>,
        begun: Duration,
        now: Now,
        rules: Rules<'_>,
    ) -> Step {
        match result {
            Err(error) if error.class == ErrorClass::Auth => self.failed_by(error.to_wire(), now, rules),
            Err(error) => {
                self.error = Some(error.to_wire());
                self.look_again(now, rules)
            }
            Ok(Reading::Off) if begun < self.memory.since => self.look_again(now, rules),
            Ok(Reading::Off) => {
                self.memory.offs.read(Reading::Off, begun, now, self.count_rules(rules));
                self.weigh(sent, now, rules)
            }
            Ok(reading) => self.not_off(reading, sent, refused, now, rules),
        }
    }

    /// Read On, or between the two: the count starts again.
    fn not_off(&mut self, reading: Reading, sent: bool, refused: bool, now: Now, rules: Rules<'_>) -> Step {
        self.memory.offs.clear();
        self.phase = Phase::Confirming { sent, refused };
        match reading {
            _ if self.is_proof() => self.contradicted(now, rules),
            Reading::On if refused => self.failed(now, rules, "the BMC refused to switch off, and the host reads On"),
            Reading::On if !sent => self.go_on(now),
            Reading::On | Reading::Off | Reading::Transitioning => self.look_again(now, rules),
        }
    }

    /// How often it is read: densely while a change is likely.
    fn look_again(&mut self, now: Now, rules: Rules<'_>) -> Step {
        if now.boottime >= self.memory.deadline {
            return self.unproven(now, rules);
        }
        let just_ordered = now.boottime.saturating_sub(self.memory.since) < Duration::from_secs(3);
        Step::Wait(if just_ordered { Duration::from_millis(100) } else { Duration::from_secs(1) })
    }

    fn weigh(&mut self, sent: bool, now: Now, rules: Rules<'_>) -> Step {
        match self.memory.offs.count(Duration::ZERO, self.count_rules(rules)) {
            Count::More(_) if now.boottime >= self.memory.deadline => self.unproven(now, rules),
            Count::More(at) => Step::Wait(at.saturating_sub(now.boottime)),
            Count::CheckHealth => {
                self.phase = Phase::Contesting { sent };
                Step::CheckHealth
            }
            Count::Contradicted => self.contradicted(now, rules),
            Count::Proven if !rules.can_prove => {
                self.failed(now, rules, "it reads Off, but this driver cannot prove that a host is off")
            }
            Count::Proven if sent => self.proven(sent, rules),
            // Nothing was sent, so no gate was asked yet.
            Count::Proven => self.judge(Act::Proof, now),
        }
    }

    fn health(&mut self, phase: Phase, health: Health<'_>, now: Now, rules: Rules<'_>) -> Step {
        use Phase as P;
        let is_well = health.sign == HealthSign::Alive && health.begun >= self.memory.deaf_until;
        self.memory.offs.health(health);
        match phase {
            _ if self.is_contradicted(rules) => self.contradicted(now, rules),
            _ if is_well && self.is_proof() && self.memory.offs.is_empty() => self.contradicted(now, rules),
            // Step 1 read Off.
            P::Confirming { sent: false, .. } if is_well && health.begun >= self.memory.since => self.contradicted(now, rules),
            P::Queued | P::Reading | P::Vetting | P::Judging(_) | P::Held(_) | P::Pausing
                if is_well && self.is_automatic() && !self.is_proof() =>
            {
                self.well_after_all(health)
            }
            P::Vetting if health.begun >= self.memory.asked => self.judge(Act::Off, now),
            P::Contesting { sent } => self.weigh(sent, now, rules),
            P::Queued | P::Reading | P::Vetting | P::Judging(_) | P::Held(_) | P::Ordering | P::Confirming { .. } | P::Pausing => {
                Step::Stay
            }
        }
    }

    fn is_contradicted(&self, rules: Rules<'_>) -> bool {
        let one = CountRules { confirmations: 1, ..self.count_rules(rules) };
        self.memory.offs.count(Duration::ZERO, one) == Count::Contradicted
    }

    // ---- ends ----

    fn proven(&mut self, sent: bool, rules: Rules<'_>) -> Step {
        let offs = &self.memory.offs;
        let how = match (&self.way, sent) {
            (Way::Proof, _) => "nobody ordered it",
            (Way::Order(_), false) => "it was off already",
            (Way::Order(_), true) => "it was switched off",
        };
        let why = format!("off: {how}, read Off {} times one after another; {}", offs.len(), offs.health_said());
        let event = HaEvent::Proven(Evidence::Readings(offs.len()));
        let proof = Some(self.evidence(rules));
        // What went wrong on the way is over.
        Step::Ended(Box::new(End { event, why, proof, error: None, again: None }))
    }

    fn evidence(&self, rules: Rules<'_>) -> Proof {
        Proof {
            readings: self.memory.offs.times().map(|at| (at, rules.device.to_owned())).collect(),
            health: self.memory.offs.health_said().to_owned(),
            off_sent: self.off_possibly_sent,
            attempt: self.number,
        }
    }

    fn contradicted(&mut self, now: Now, rules: Rules<'_>) -> Step {
        let why = if self.memory.offs.is_empty() {
            "it was read Off, and now it is not: it is on, or answers"
        } else {
            "its BMC says Off, and the host answers: the BMC speaks for another machine, or lies"
        };
        self.memory.deaf_until = now.boottime;
        let proof = (!self.memory.offs.is_empty()).then(|| self.evidence(rules));
        self.end(HaEvent::Contradicted, why.into(), proof)
    }

    fn well_after_all(&self, health: Health<'_>) -> Step {
        let sent = if self.off_possibly_sent { "an off was possibly sent" } else { "no off was sent" };
        self.end(HaEvent::HealthPassed, format!("it is well: {}; {sent}", health.said), None)
    }

    /// No proof in time.
    fn unproven(&mut self, now: Now, rules: Rules<'_>) -> Step {
        let why = match (self.phase, &self.error) {
            (Phase::Confirming { .. } | Phase::Contesting { .. }, None) if self.memory.offs.is_empty() => {
                "the BMC took the order, but the host was not read Off in time"
            }
            (Phase::Confirming { .. } | Phase::Contesting { .. }, _) => "it was not read Off often enough in time",
            _ => "what was asked for did not come in time",
        };
        self.failed(now, rules, why)
    }

    fn failed_by(&mut self, error: BmcError, now: Now, rules: Rules<'_>) -> Step {
        self.error = Some(error);
        self.failed(now, rules, "the BMC did not do it")
    }

    fn failed(&mut self, now: Now, rules: Rules<'_>, what: &str) -> Step {
        let cause =
            self.error.as_ref().map(|error| format!(": {}", crate::bmc::cut(&error.to_string(), QUOTED))).unwrap_or_default();
        let why = format!("attempt {} failed: {what}{cause}", self.number);
        let again = if self.number < rules.settings.fence_attempts {
            NEXT_ATTEMPT
        } else {
            Duration::from_secs(rules.settings.fence_retry.into()).max(NEXT_ATTEMPT)
        };
        if self.holds_slot() {
            self.memory.deaf_until = now.boottime;
        }
        self.number = self.number.saturating_add(1);
        self.phase = Phase::Pausing;
        self.memory.offs.clear();
        self.memory.waits_for_slot = false;
        let end = End { event: HaEvent::AttemptFailed, why, proof: None, error: self.error.clone(), again: Some(again) };
        Step::Ended(Box::new(end))
    }

    fn end(&self, event: HaEvent, why: String, proof: Option<Proof>) -> Step {
        Step::Ended(Box::new(End { event, why, proof, error: self.error.clone(), again: None }))
    }
}
