//! One power operation on one host, step by step. Pure: says what to ask next, when to look again, or how it ended.
//!
//! ```text
//! Queued ─▶ Reading ─▶ Ordering ─▶ Confirming ─▶ done        on, off, soft, reset
//!              │                       │
//!              └▶ done (already there) └▶ Pausing ─▶ Ordering(on) ─▶ Confirming ─▶ done      cycle
//! ```
//! `Ordering` is journalled before the order is sent. Found in it after a restart, the order may or may not have reached the
//! BMC: it is never sent again, the state is read and the operation says what can be known.

use std::time::Duration;

use picket_common::command::{Action, BmcError, ErrorClass, Outcome, Refusal};
use picket_common::power::PowerState;
use picket_common::wire::Time;
use picket_common::wire::down::PowerCommand;
use serde::{Deserialize, Serialize};

use crate::bmc::{Ask, DriverError, PowerReply, Reading, cut};

/// Off time of a cycle: the specification's least is one second (IPMI 2.0 §28.3).
pub const CYCLE_PAUSE: Duration = Duration::from_millis(1200);
/// How long a BMC that says "between On and Off" is waited for before the order is sent all the same.
const TRANSITION_TRIES: u8 = 5;
/// Failed first readings after which an operation gives up.
const READ_TRIES: u8 = 2;
/// Time one order may take at the BMC.
pub const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where an operation stands; journalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waits for its turn.
    Queued,
    /// Reads first: it may be there already.
    Reading {
        /// Readings that did not decide.
        tries: u8,
    },
    /// The order may be on its way.
    Ordering(Ask),
    /// Ordered; reads until the wanted state shows.
    Confirming {
        /// What was ordered.
        ask: Ask,
        /// Why it is not known whether the order arrived.
        doubt: Option<String>,
        /// The BMC refused in a way that can mean "already there".
        refused: bool,
    },
    /// Cycle: off is read, on is not yet due.
    Pausing,
}

/// An operation with its journalled phase and its memory of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What was commanded.
    pub command: PowerCommand,
    /// The deadline by the agent's own wall clock, the round trip charged.
    pub deadline_wall: Time,
    /// Where it stands.
    pub phase: Phase,
    /// The deadline on the monotonic clock.
    #[serde(skip)]
    pub deadline: Duration,
    /// When the order's answer came: only readings begun after it count.
    #[serde(skip)]
    pub ordered_at: Duration,
    /// Last reading after the order.
    #[serde(skip)]
    pub last_seen: Option<Reading>,
    /// Last failure to read.
    #[serde(skip)]
    pub last_error: Option<BmcError>,
}

/// What happened to the operation.
#[derive(Debug)]
pub enum Input<'a> {
    /// Its turn came, or the agent was restarted.
    Start,
    /// A reading it asked for, with when it was begun.
    Read(Result<Reading, &'a DriverError>, Duration),
    /// The BMC's answer to its order.
    Ordered(Result<PowerReply, &'a DriverError>),
    /// The time it asked to wait is over.
    Due,
    /// Its deadline passed.
    Overdue,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the BMC; an order only after its phase is durable.
    Ask(Ask),
    /// Look again after this long.
    Wait(Duration),
    /// It ended.
    Done(Outcome),
}

impl Operation {
    /// Whether an order may have reached the BMC: from then on changes are its doing.
    #[must_use]
    pub const fn is_ordered(&self) -> bool {
        matches!(self.phase, Phase::Ordering(_) | Phase::Confirming { .. } | Phase::Pausing)
    }

    /// Takes the next step.
    pub fn step(&mut self, input: Input<'_>, now: Duration) -> Step {
        match (self.phase.clone(), input) {
            (_, Input::Overdue) => Step::Done(self.overdue()),
            (_, Input::Start | Input::Due) if now >= self.deadline => Step::Done(self.overdue()),
            (Phase::Queued, _) => {
                self.phase = Phase::Reading { tries: 0 };
                Step::Ask(Ask::Status)
            }
            (Phase::Reading { .. } | Phase::Confirming { .. }, Input::Start | Input::Due) => Step::Ask(Ask::Status),
            // A reading that comes too late decides nothing: no order may follow it.
            (Phase::Reading { .. }, Input::Read(..)) if now >= self.deadline => Step::Done(self.overdue()),
            (Phase::Reading { tries }, Input::Read(result, _)) => self.first_read(result, tries),
            (Phase::Ordering(ask), Input::Start) => {
                let doubt = Some("the agent was interrupted while the order was under way".to_owned());
                self.phase = Phase::Confirming { ask, doubt, refused: false };
                Step::Ask(Ask::Status)
            }
            (Phase::Ordering(ask), Input::Ordered(reply)) => self.ordered(ask, reply, now),
            (Phase::Confirming { ask, doubt, refused }, Input::Read(result, begun)) => {
                self.confirm(ask, doubt, refused, result, begun, now)
            }
            (Phase::Pausing, Input::Start) => Step::Wait(CYCLE_PAUSE),
            (Phase::Pausing, Input::Due) => self.order(Ask::On),
            // An answer that this phase did not ask for: wait for the one it did.
            (Phase::Reading { .. }, Input::Ordered(_))
            | (Phase::Confirming { .. }, Input::Ordered(_))
            | (Phase::Ordering(_), Input::Read(..) | Input::Due)
            | (Phase::Pausing, Input::Read(..) | Input::Ordered(_)) => Step::Wait(Duration::from_secs(1)),
        }
    }

    fn order(&mut self, ask: Ask) -> Step {
        self.phase = Phase::Ordering(ask);
        self.last_seen = None;
        Step::Ask(ask)
    }

    fn first_read(&mut self, result: Result<Reading, &DriverError>, tries: u8) -> Step {
        use Action::{Bootdev, ChangePassword, Cycle, Diag, Identify, Off, On, Reset, Soft, Status, Test};
        let action = self.command.action;
        match (result, action) {
            (_, Diag | Identify { .. } | Bootdev { .. } | Test | ChangePassword) => {
                Step::Done(Outcome::Refused(Refusal::NotSupported))
            }
            (Err(error), _) => {
                let last_try =
                    tries.saturating_add(1) >= READ_TRIES || matches!(error.class, ErrorClass::Auth | ErrorClass::Setting);
                if last_try {
                    return Step::Done(Outcome::Failed(error.to_wire()));
                }
                self.last_error = Some(error.to_wire());
                self.read_again(tries)
            }
            (Ok(Reading::On), Status) => Step::Done(Outcome::Read(PowerState::On)),
            (Ok(Reading::Off), Status) => Step::Done(Outcome::Read(PowerState::Off)),
            (Ok(Reading::Transitioning), Status) if tries >= TRANSITION_TRIES => {
                Step::Done(Outcome::Unknown("the BMC says that the host is between on and off".into()))
            }
            (Ok(Reading::Transitioning), On | Off) if tries >= TRANSITION_TRIES => self.order(self.first_order()),
            (Ok(Reading::Transitioning), _) => self.read_again(tries),
            (Ok(Reading::On), On) | (Ok(Reading::Off), Off | Soft) => Step::Done(Outcome::Unchanged),
            (Ok(Reading::Off), Cycle | Reset) if self.command.on_if_off => self.order(Ask::On),
            (Ok(Reading::Off), Cycle | Reset) => Step::Done(Outcome::Refused(Refusal::HostIsOff)),
            (Ok(Reading::Off), On) | (Ok(Reading::On), Off | Soft | Cycle | Reset) => self.order(self.first_order()),
        }
    }

    fn read_again(&mut self, tries: u8) -> Step {
        self.phase = Phase::Reading { tries: tries.saturating_add(1) };
        Step::Wait(Duration::from_secs(1))
    }

    const fn first_order(&self) -> Ask {
        match self.command.action {
            Action::On => Ask::On,
            Action::Off | Action::Cycle => Ask::Off,
            Action::Soft => Ask::Soft,
            Action::Reset => Ask::Reset,
            Action::Status
            | Action::Diag
            | Action::Identify { .. }
            | Action::Bootdev { .. }
            | Action::Test
            | Action::ChangePassword => Ask::Status,
        }
    }

    fn ordered(&mut self, ask: Ask, reply: Result<PowerReply, &DriverError>, now: Duration) -> Step {
        self.ordered_at = now;
        let (doubt, refused) = match reply {
            Ok(PowerReply::Accepted) => (None, false),
            Ok(PowerReply::NotInThisState) => (None, true),
            Err(error) if error.maybe_sent => (Some(cut(&error.text, 512)), false),
            // The second half of a cycle broke after its first was done: say so, do not call it a mere failure.
            Err(error) if self.is_second_half(ask) => {
                let text = format!("switched off, but not on again: {}", cut(&error.text, 512));
                return Step::Done(Outcome::Unknown(text));
            }
            Err(error) => return Step::Done(Outcome::Failed(error.to_wire())),
        };
        self.phase = Phase::Confirming { ask, doubt, refused };
        if refused { Step::Ask(Ask::Status) } else { Step::Wait(self.look_again(now)) }
    }

    fn is_second_half(&self, ask: Ask) -> bool {
        self.command.action == Action::Cycle && ask == Ask::On && !self.command.on_if_off
    }

    /// Dense polling: often while a change is likely, then about once a second.
    fn look_again(&self, now: Duration) -> Duration {
        if now.saturating_sub(self.ordered_at) < Duration::from_secs(3) {
            Duration::from_millis(100)
        } else {
            Duration::from_secs(1)
        }
    }

    fn confirm(
        &mut self,
        ask: Ask,
        doubt: Option<String>,
        refused: bool,
        result: Result<Reading, &DriverError>,
        begun: Duration,
        now: Duration,
    ) -> Step {
        let reading = match result {
            Ok(reading) if begun >= self.ordered_at => reading,
            Ok(_) => return Step::Wait(self.look_again(now)),
            Err(error) => {
                self.last_error = Some(error.to_wire());
                return match error.class {
                    ErrorClass::Auth => Step::Done(self.overdue()),
                    _ => Step::Wait(self.look_again(now)),
                };
            }
        };
        self.last_seen = Some(reading);
        if reading == Reading::Transitioning {
            return Step::Wait(self.look_again(now));
        }
        let reached = reading == wanted(ask);
        match (ask, doubt, refused) {
            (Ask::Reset, Some(doubt), _) => {
                Step::Done(Outcome::Unknown(format!("{doubt}; a reset leaves no trace in the power state")))
            }
            (Ask::Reset, None, true) if reading == Reading::Off => Step::Done(Outcome::Refused(Refusal::HostIsOff)),
            (Ask::Reset, None, true) => Step::Done(Outcome::Failed(self.refused_by_bmc(ask))),
            (_, _, true) if !reached && self.is_second_half(ask) => {
                Step::Done(Outcome::Unknown("switched off, but the BMC refused to switch on again".into()))
            }
            (_, _, true) if !reached => Step::Done(Outcome::Failed(self.refused_by_bmc(ask))),
            (Ask::Off, _, _) if reached && self.command.action == Action::Cycle => {
                self.phase = Phase::Pausing;
                Step::Wait(CYCLE_PAUSE)
            }
            (_, _, true) if self.command.action != Action::Cycle => Step::Done(Outcome::Unchanged),
            (..) if reached => Step::Done(Outcome::Changed),
            (..) => Step::Wait(self.look_again(now)),
        }
    }

    fn refused_by_bmc(&self, ask: Ask) -> BmcError {
        self.own_error("not-in-this-state", ErrorClass::Refused, format!("the BMC refused {ask:?} in the state it is in"))
    }

    fn own_error(&self, code: &str, class: ErrorClass, text: String) -> BmcError {
        BmcError { driver: "picket".into(), class, code: code.into(), text }
    }

    /// How it ended, the deadline being over.
    fn overdue(&self) -> Outcome {
        let error =
            self.last_error.as_ref().map_or(String::new(), |error| format!("; last error: {}", cut(&error.to_string(), 512)));
        match &self.phase {
            Phase::Queued => Outcome::Expired,
            Phase::Reading { .. } => Outcome::Failed(self.last_error.clone().unwrap_or_else(|| {
                self.own_error(
                    "deadline",
                    ErrorClass::Deadline,
                    "the BMC did not say a clear state before the deadline; nothing was ordered".into(),
                )
            })),
            Phase::Ordering(ask) => Outcome::Unknown(format!("no answer to {ask:?} before the deadline{error}")),
            Phase::Confirming { doubt: Some(doubt), .. } => Outcome::Unknown(format!("{doubt}; {}{error}", self.seen())),
            Phase::Confirming { ask, .. } if self.command.action == Action::Cycle && *ask == Ask::On => {
                Outcome::Unknown(format!("switched off, ordered on; {}{error}", self.seen()))
            }
            Phase::Confirming { ask, .. } => match self.last_seen {
                Some(seen) if seen != wanted(*ask) && seen != Reading::Transitioning => Outcome::Failed(self.own_error(
                    "not-reached",
                    ErrorClass::Deadline,
                    format!("the BMC accepted {ask:?}, but {} at the deadline", self.seen()),
                )),
                _ => Outcome::Unknown(format!("ordered {ask:?}, but {}{error}", self.seen())),
            },
            Phase::Pausing => Outcome::Unknown("switched off; the deadline passed before it could be switched on again".into()),
        }
    }

    fn seen(&self) -> &'static str {
        match self.last_seen {
            Some(Reading::On) => "the host is still read as on",
            Some(Reading::Off) => "the host is still read as off",
            Some(Reading::Transitioning) => "the host is still between on and off",
            None => "it could not be read back",
        }
    }

    /// How it ends when the host may no longer be touched.
    #[must_use]
    pub fn interrupted(&self, refusal: Refusal) -> Outcome {
        if self.is_ordered() {
            Outcome::Unknown(format!("interrupted after the order: {refusal}"))
        } else {
            Outcome::Refused(refusal)
        }
    }
}

const fn wanted(ask: Ask) -> Reading {
    match ask {
        Ask::Off | Ask::Soft => Reading::Off,
        Ask::On
        | Ask::Reset
        | Ask::Status
        | Ask::Diag
        | Ask::Identify { .. }
        | Ask::Bootdev { .. }
        | Ask::Inspect
        | Ask::TryLogin
        | Ask::SetPassword => Reading::On,
    }
}
