//! One attempt to recover a host by a reset: sent at most once, however the agent fares. Its answer proves nothing: the host has
//! recovered when it passes a health check begun after it.
//!
//! ```text
//! Queued ─▶ Reading ─▶ Vetting ─▶ Judging ─▶ Ordering ─▶ Sent ─▶ (the host answers, or its time is over)
//!              ▲                     └▶ Held ─┐
//!              └──────────────────────────────┘
//! ```
//! `Ordering` is journalled before the reset is sent; found in it after a restart, it counts as sent.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::{BmcError, ErrorClass};
use picket_common::ha::settings::Mode;
use picket_common::ha::{Gate, HaEvent};
use picket_common::wire::Time;
use picket_common::wire::ha::Act;
use serde::{Deserialize, Serialize};

use super::{End, Health, HealthSign, Input, JUDGED_AGAIN, Rules, Step, logins_paused, own_error};
use crate::bmc::{Ask, DriverError, PowerReply, Reading};

/// Readings that fail before the reset is sent all the same: a BMC that cannot be read may still take orders.
const READ_TRIES: u8 = 2;
/// Readings of a host that is not On before the attempt is given up: an Off is confirmed and fenced long before that.
const NOT_ON: u8 = 60;
/// Pause before a host that is off, or between on and off, is read again.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// Where a recovery stands; journalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It is to begin.
    Queued,
    /// Reads first: what is off is not reset.
    Reading {
        /// Readings that failed.
        tries: u8,
    },
    /// Looks once more whether the host is well.
    Vetting,
    /// The gates are asked.
    Judging,
    /// A gate is in the way; without one, it is only observed.
    Held(Option<Gate>),
    /// The reset may be on its way.
    Ordering,
    /// It was sent, or may have been: the host is given time to boot.
    Sent,
}

/// A recovery with its journalled stage and its memory of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Which attempt, from 1.
    pub number: u8,
    /// Where it stands.
    pub stage: Stage,
    /// When the reset was sent: the host has its time to boot from then on.
    pub sent: Option<Time>,
    /// The driver's last error.
    pub error: Option<BmcError>,
    /// When a health check or the gates were asked for, or the reset was answered (boottime).
    #[serde(skip)]
    asked: Duration,
    /// Readings that were not On.
    #[serde(skip)]
    not_on: u8,
}

impl Recovery {
    /// An attempt that is to begin.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        Self { number, stage: Stage::Queued, sent: None, error: None, asked: Duration::ZERO, not_on: 0 }
    }

    /// Whether it has the rack's slot: while the reset is on its way, not while the host boots.
    #[must_use]
    pub const fn holds_slot(&self) -> bool {
        matches!(self.stage, Stage::Ordering)
    }

    /// Whether a reset may be passing through Off.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Ordering | Stage::Sent)
    }

    /// Takes the next step. An end by [`HaEvent::Overdue`] says that this attempt can do no more.
    pub fn step(&mut self, input: Input<'_>, now: Now, rules: Rules<'_>) -> Step {
        match (self.stage, input) {
            (Stage::Ordering | Stage::Sent, Input::Start) => {
                self.stage = Stage::Sent;
                Step::Stay
            }
            (_, Input::Start) | (Stage::Queued | Stage::Held(_), Input::Due) => self.read(0, rules),
            (Stage::Reading { tries }, Input::Due) => self.read(tries, rules),
            (Stage::Reading { tries }, Input::Read { result, .. }) => self.first_read(result, tries, now),
            (Stage::Vetting, Input::Due) => self.vet(now),
            (Stage::Judging, Input::Due) => self.judge(now),
            (stage, Input::Health(health)) => self.health(stage, health, now),
            (Stage::Judging, Input::Judged(held)) => self.judged(held, now, rules),
            (Stage::Ordering, Input::Ordered(reply)) => self.ordered(reply, now),
            (Stage::Reading { .. } | Stage::Vetting | Stage::Judging, Input::Overdue) => {
                self.spent("what was asked for did not come")
            }
            (
                Stage::Queued | Stage::Vetting | Stage::Judging | Stage::Held(_) | Stage::Ordering | Stage::Sent,
                Input::Read { .. } | Input::Due | Input::Overdue,
            )
            | (_, Input::Ordered(_) | Input::Judged(_)) => Step::Stay,
        }
    }

    fn read(&mut self, tries: u8, rules: Rules<'_>) -> Step {
        self.stage = Stage::Reading { tries };
        if rules.is_blocked {
            self.error = Some(logins_paused());
            return self.spent("the BMC cannot be logged in to");
        }
        Step::Ask(Ask::Status)
    }

    fn first_read(&mut self, result: Result<Reading, &DriverError>, tries: u8, now: Now) -> Step {
        match result {
            Ok(Reading::On) => self.vet(now),
            // What is off is not reset, and not switched on: once the Off is confirmed, it is fenced.
            Ok(Reading::Off | Reading::Transitioning) => {
                self.not_on = self.not_on.saturating_add(1);
                if self.not_on < NOT_ON { Step::Wait(READ_AGAIN) } else { self.spent("the host does not read On") }
            }
            Err(error) => {
                self.error = Some(error.to_wire());
                let tries = tries.saturating_add(1);
                self.stage = Stage::Reading { tries };
                match error.class {
                    ErrorClass::Auth => self.spent("the BMC refuses the login"),
                    _ if tries < READ_TRIES => Step::Wait(READ_AGAIN),
                    _ => self.vet(now),
                }
            }
        }
    }

    fn vet(&mut self, now: Now) -> Step {
        self.stage = Stage::Vetting;
        self.asked = now.boottime;
        Step::CheckHealth
    }

    fn judge(&mut self, now: Now) -> Step {
        self.stage = Stage::Judging;
        self.asked = now.boottime;
        Step::Judge(Act::Reset)
    }

    fn health(&mut self, stage: Stage, health: Health<'_>, now: Now) -> Step {
        let is_alive = health.sign == HealthSign::Alive;
        match stage {
            // Begun before the reset was answered, it may speak of the host before it.
            Stage::Ordering => Step::Stay,
            Stage::Sent if health.begun < self.asked => Step::Stay,
            Stage::Sent if is_alive => self.end(HaEvent::HealthPassed, format!("it answers after a reset: {}", health.said)),
            _ if is_alive => self.end(HaEvent::HealthPassed, format!("it is well, no reset was sent: {}", health.said)),
            Stage::Vetting if health.begun >= self.asked => self.judge(now),
            Stage::Queued | Stage::Reading { .. } | Stage::Vetting | Stage::Judging | Stage::Held(_) | Stage::Sent => Step::Stay,
        }
    }

    fn judged(&mut self, held: Option<Gate>, now: Now, rules: Rules<'_>) -> Step {
        if now.boottime != self.asked {
            return self.judge(now);
        }
        if let Some(gate) = held {
            self.stage = Stage::Held(Some(gate));
            return Step::Wait(JUDGED_AGAIN);
        }
        if rules.is_blocked {
            self.error = Some(logins_paused());
            return self.spent("the BMC cannot be logged in to");
        }
        if rules.settings.mode == Mode::Observe {
            self.stage = Stage::Held(None);
            return Step::Stay;
        }
        self.stage = Stage::Ordering;
        self.sent = Some(now.wall.into());
        Step::Ask(Ask::Reset)
    }

    fn ordered(&mut self, reply: Result<PowerReply, &DriverError>, now: Now) -> Step {
        self.stage = Stage::Sent;
        self.asked = now.boottime;
        match reply {
            Ok(PowerReply::Accepted) => Step::Stay,
            Ok(PowerReply::NotInThisState) => {
                let text = "the BMC refused to reset in the state that the host is in";
                self.error = Some(own_error("not-in-this-state", ErrorClass::Refused, text));
                self.spent("the reset was refused")
            }
            Err(error) => {
                self.error = Some(error.to_wire());
                if error.maybe_sent { Step::Stay } else { self.spent("the reset was not sent") }
            }
        }
    }

    fn spent(&self, what: &str) -> Step {
        let cause = self.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        self.end(HaEvent::Overdue, format!("recovery attempt {} ended: {what}{cause}", self.number))
    }

    fn end(&self, event: HaEvent, why: String) -> Step {
        Step::Ended(Box::new(End { event, why, proof: None, error: self.error.clone(), again: None }))
    }
}
