//! One operation on one host, step by step. Pure: says what to ask next, when to look again, or how it ended.
//!
//! ```text
//! Queued ─▶ Reading ─▶ Ordering ─▶ Confirming ─▶ done          on, off, soft, reset; diag is done by its answer
//!    │         │                       │
//!    │         └▶ done (already there) └▶ Pausing ─▶ Ordering(on) ─▶ Confirming ─▶ done      cycle
//!    ├▶ Asking ─▶ done                                         identify, bootdev, test
//!    └▶ Verifying ─▶ Ordering(set) ─▶ Proving ─▶ done          change-password
//! ```
//! `Ordering` is journalled before the order is sent. Found in it after a restart, the order may or may not have reached the
//! BMC: it is never sent again, the state is read and the operation says what can be known. What `Asking` asks may be asked
//! twice. `Verifying` logs in with the old password, `Proving` finds out which one the BMC takes ([`super::change`]).

use std::time::Duration;

use picket_common::command::{Action, BmcError, ErrorClass, Outcome, Refusal};
use picket_common::power::PowerState;
use picket_common::wire::down::PowerCommand;
use picket_common::wire::report::InForce;
use serde::{Deserialize, Serialize};

use super::moment::Moment;
use crate::bmc::{Ask, DriverError, NOT_SUPPORTED, PowerReply, Reading, cut};

/// Off time of a cycle: the specification's least is one second (IPMI 2.0 §28.3).
pub const CYCLE_PAUSE: Duration = Duration::from_millis(1200);
/// How long a BMC that says "between On and Off" is waited for before the order is sent all the same.
const TRANSITION_TRIES: u8 = 5;
/// Failures of a first request after which an operation gives up.
const READ_TRIES: u8 = 2;
/// Pause before a password is tried that may just be being set.
const SETTLE: Duration = Duration::from_secs(3);
/// Longest text of a driver that is quoted within another.
const QUOTED: usize = 512;

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
    /// What changes no power state is asked; its answer ends the operation.
    Asking {
        /// Requests that failed.
        tries: u8,
    },
    /// Change of password: the old one must work first, or a failure could not be told from the change's.
    Verifying {
        /// Logins that failed.
        tries: u8,
    },
    /// Change of password: the new one was sent; which one the BMC takes is being proven.
    Proving {
        /// What went wrong when it was set.
        error: Option<BmcError>,
    },
}

/// An operation with its journalled phase and its memory of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What was commanded.
    pub command: PowerCommand,
    /// The deadline, the round trip charged.
    pub deadline: Moment,
    /// Where it stands.
    pub phase: Phase,
    /// When the order's answer came: only readings begun after it count.
    #[serde(skip)]
    pub ordered_at: Duration,
    /// Last reading after the order.
    #[serde(skip)]
    pub last_seen: Option<Reading>,
    /// Last failure of a request.
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
    /// The BMC's answer to what it was told or asked to do.
    Ordered(Result<PowerReply, &'a DriverError>),
    /// Which password the BMC takes.
    Proven(InForce),
    /// Which password the BMC takes could not be found out now.
    Unproven(&'a DriverError),
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
    /// Find out which password the BMC takes.
    Prove,
    /// Look again after this long.
    Wait(Duration),
    /// It ended.
    Done(Outcome),
}

impl Operation {
    /// An operation that waits for its turn.
    #[must_use]
    pub const fn new(command: PowerCommand, deadline: Moment) -> Self {
        Self { command, deadline, phase: Phase::Queued, ordered_at: Duration::ZERO, last_seen: None, last_error: None }
    }

    /// Whether an order may have reached the BMC: from then on power changes are its doing.
    #[must_use]
    pub const fn is_ordered(&self) -> bool {
        match self.phase {
            Phase::Ordering(ask) => !matches!(ask, Ask::SetPassword),
            Phase::Confirming { .. } | Phase::Pausing => true,
            Phase::Queued | Phase::Reading { .. } | Phase::Asking { .. } | Phase::Verifying { .. } | Phase::Proving { .. } => false,
        }
    }

    /// Whether what it does next may be done from its beginning: nothing was changed so far that would tell otherwise.
    #[must_use]
    pub const fn can_begin_again(&self) -> bool {
        matches!(self.phase, Phase::Queued | Phase::Reading { .. } | Phase::Asking { .. } | Phase::Verifying { .. })
    }

    /// Takes the next step.
    pub fn step(&mut self, input: Input<'_>, now: Duration) -> Step {
        let late = now >= self.deadline.boottime;
        match (self.phase.clone(), input) {
            (_, Input::Overdue) => Step::Done(self.overdue()),
            (_, Input::Start | Input::Due) if late => Step::Done(self.overdue()),
            (Phase::Queued, _) => self.begin(),
            (Phase::Reading { .. } | Phase::Confirming { .. }, Input::Start | Input::Due) => Step::Ask(Ask::Status),
            (Phase::Asking { .. }, Input::Start | Input::Due) => Step::Ask(self.first_ask()),
            (Phase::Verifying { .. }, Input::Start | Input::Due) => Step::Ask(Ask::TryLogin),
            (Phase::Proving { .. }, Input::Start | Input::Due) => Step::Prove,
            // An answer that comes too late decides nothing: no order may follow it.
            (Phase::Reading { .. }, Input::Read(..)) | (Phase::Verifying { .. }, Input::Read(..) | Input::Ordered(_)) if late => {
                Step::Done(self.overdue())
            }
            (Phase::Reading { tries }, Input::Read(result, _)) => self.first_read(result, tries),
            (Phase::Asking { .. }, Input::Read(Ok(reading), _)) => Step::Done(Outcome::Read(state_of(reading))),
            (Phase::Asking { tries }, Input::Read(Err(error), _)) => self.answered(Err(error), tries),
            (Phase::Asking { tries }, Input::Ordered(reply)) => self.answered(reply, tries),
            (Phase::Verifying { tries }, Input::Read(Err(error), _)) => self.verified(Err(error), tries),
            (Phase::Verifying { tries }, Input::Ordered(reply)) => self.verified(reply, tries),
            (Phase::Ordering(ask), Input::Start) => self.interrupted_order(ask),
            (Phase::Ordering(Ask::Diag), Input::Ordered(reply)) => self.diagnosed(reply, now),
            (Phase::Ordering(Ask::SetPassword), Input::Ordered(reply)) => self.password_set(reply),
            (Phase::Ordering(ask), Input::Ordered(reply)) => self.ordered(ask, reply, now),
            (Phase::Confirming { ask, doubt, refused }, Input::Read(result, begun)) => {
                self.confirm(ask, doubt, refused, result, begun, now)
            }
            (Phase::Pausing, Input::Start) => Step::Wait(CYCLE_PAUSE),
            (Phase::Pausing, Input::Due) => self.order(Ask::On),
            (Phase::Proving { error }, Input::Proven(in_force)) => Step::Done(proven(in_force, error)),
            (Phase::Proving { .. }, Input::Unproven(error)) => self.unproven(error),
            // An answer that this phase did not ask for: wait for the one it did.
            (Phase::Reading { .. }, Input::Ordered(_))
            | (Phase::Confirming { .. }, Input::Ordered(_))
            | (Phase::Ordering(_), Input::Read(..) | Input::Due)
            | (Phase::Verifying { .. }, Input::Read(Ok(_), _))
            | (Phase::Proving { .. } | Phase::Pausing, Input::Read(..) | Input::Ordered(_))
            | (_, Input::Proven(_) | Input::Unproven(_)) => Step::Wait(Duration::from_secs(1)),
        }
    }

    fn begin(&mut self) -> Step {
        self.phase = match self.command.action {
            // A word about host-HA is no operation of a BMC and comes in no such command: it would only be read, and refused.
            Action::On
            | Action::Off
            | Action::Cycle
            | Action::Reset
            | Action::Soft
            | Action::Status
            | Action::Diag
            | Action::Ha(_) => Phase::Reading { tries: 0 },
            Action::Identify { .. } | Action::Bootdev { .. } | Action::Test => Phase::Asking { tries: 0 },
            Action::ChangePassword => Phase::Verifying { tries: 0 },
        };
        match self.phase {
            Phase::Reading { .. } => Step::Ask(Ask::Status),
            _ => Step::Ask(self.first_ask()),
        }
    }

    fn order(&mut self, ask: Ask) -> Step {
        self.phase = Phase::Ordering(ask);
        self.last_seen = None;
        Step::Ask(ask)
    }

    fn first_read(&mut self, result: Result<Reading, &DriverError>, tries: u8) -> Step {
        use Action::{Bootdev, ChangePassword, Cycle, Diag, Ha, Identify, Off, On, Reset, Soft, Status, Test};
        let action = self.command.action;
        match (result, action) {
            (Err(error), _) => match self.try_again(error, tries) {
                Some(tries) => self.read_again(tries),
                None => Step::Done(Outcome::Failed(error.to_wire())),
            },
            // These do not begin with a reading.
            (Ok(_), Identify { .. } | Bootdev { .. } | Test | ChangePassword | Ha(_)) => {
                Step::Done(Outcome::Refused(Refusal::NotSupported))
            }
            (Ok(Reading::On), Status) => Step::Done(Outcome::Read(PowerState::On)),
            (Ok(Reading::Off), Status) => Step::Done(Outcome::Read(PowerState::Off)),
            (Ok(Reading::Transitioning), Status) if tries >= TRANSITION_TRIES => {
                Step::Done(Outcome::Unknown("the BMC says that the host is between on and off".into()))
            }
            (Ok(Reading::Transitioning), On | Off) if tries >= TRANSITION_TRIES => self.order(self.first_ask()),
            (Ok(Reading::Transitioning), _) => self.read_again(tries.saturating_add(1)),
            (Ok(Reading::On), On) | (Ok(Reading::Off), Off | Soft) => Step::Done(Outcome::Unchanged),
            (Ok(Reading::Off), Cycle | Reset) if self.command.on_if_off => self.order(Ask::On),
            (Ok(Reading::Off), Cycle | Reset | Diag) => Step::Done(Outcome::Refused(Refusal::HostIsOff)),
            (Ok(Reading::Off), On) | (Ok(Reading::On), Off | Soft | Cycle | Reset | Diag) => self.order(self.first_ask()),
        }
    }

    /// Whether a failed first request is worth another: gives the failures so far. What a BMC refuses it refuses again.
    fn try_again(&mut self, error: &DriverError, tries: u8) -> Option<u8> {
        self.last_error = Some(error.to_wire());
        let tries = tries.saturating_add(1);
        (tries < READ_TRIES && !matches!(error.class, ErrorClass::Auth | ErrorClass::Setting)).then_some(tries)
    }

    fn read_again(&mut self, tries: u8) -> Step {
        self.phase = Phase::Reading { tries };
        Step::Wait(Duration::from_secs(1))
    }

    /// What its action orders or asks first.
    const fn first_ask(&self) -> Ask {
        match self.command.action {
            Action::On => Ask::On,
            Action::Off | Action::Cycle => Ask::Off,
            Action::Soft => Ask::Soft,
            Action::Reset => Ask::Reset,
            Action::Status | Action::Ha(_) => Ask::Status,
            Action::Diag => Ask::Diag,
            Action::Identify { seconds } => Ask::Identify { seconds },
            Action::Bootdev { device, persistence } => Ask::Bootdev { device, persistence },
            Action::Test => Ask::Inspect,
            Action::ChangePassword => Ask::TryLogin,
        }
    }

    // ---- identify, bootdev, test ----

    fn answered(&mut self, reply: Result<PowerReply, &DriverError>, tries: u8) -> Step {
        match reply {
            Ok(PowerReply::Accepted) => Step::Done(Outcome::Changed),
            Ok(PowerReply::NotInThisState) => Step::Done(Outcome::Failed(self.refused_by_bmc(self.first_ask()))),
            Err(error) if error.code == NOT_SUPPORTED => Step::Done(Outcome::Refused(Refusal::NotSupported)),
            Err(error) => {
                let again = self.try_again(error, tries);
                let lost = matches!(error.class, ErrorClass::Connection | ErrorClass::Deadline);
                // A test tells the first failure there is: whoever tests wants to know of it.
                match again.filter(|_| lost && self.command.action != Action::Test) {
                    Some(tries) => {
                        self.phase = Phase::Asking { tries };
                        Step::Wait(Duration::from_secs(1))
                    }
                    None if error.maybe_sent && self.command.action != Action::Test => {
                        Step::Done(Outcome::Unknown(cut(&error.text, QUOTED)))
                    }
                    None => Step::Done(Outcome::Failed(error.to_wire())),
                }
            }
        }
    }

    // ---- diag ----

    fn diagnosed(&mut self, reply: Result<PowerReply, &DriverError>, now: Duration) -> Step {
        self.ordered_at = now;
        match reply {
            Ok(PowerReply::Accepted) => Step::Done(Outcome::Changed),
            Ok(PowerReply::NotInThisState) => {
                self.phase = Phase::Confirming { ask: Ask::Diag, doubt: None, refused: true };
                Step::Ask(Ask::Status)
            }
            Err(error) if error.code == NOT_SUPPORTED => Step::Done(Outcome::Refused(Refusal::NotSupported)),
            Err(error) if error.maybe_sent => Step::Done(Outcome::Unknown(no_trace(&cut(&error.text, QUOTED), Ask::Diag))),
            Err(error) => Step::Done(Outcome::Failed(error.to_wire())),
        }
    }

    // ---- change of password ----

    fn verified(&mut self, reply: Result<PowerReply, &DriverError>, tries: u8) -> Step {
        let error = match reply {
            Ok(_) => return self.order(Ask::SetPassword),
            Err(error) if error.code == NOT_SUPPORTED => return Step::Done(Outcome::Refused(Refusal::NotSupported)),
            Err(error) => error,
        };
        if let Some(tries) = self.try_again(error, tries) {
            self.phase = Phase::Verifying { tries };
            return Step::Wait(Duration::from_secs(1));
        }
        let text = format!("{}; the new password was not sent", cut(&error.text, QUOTED));
        Step::Done(Outcome::Failed(BmcError { text, ..error.to_wire() }))
    }

    fn password_set(&mut self, reply: Result<PowerReply, &DriverError>) -> Step {
        let unheard = reply.is_err_and(|error| error.maybe_sent);
        let error = match reply {
            Ok(PowerReply::Accepted) => None,
            Ok(PowerReply::NotInThisState) => Some(self.refused_by_bmc(Ask::SetPassword)),
            Err(error) if error.code == NOT_SUPPORTED => return Step::Done(Outcome::Refused(Refusal::NotSupported)),
            Err(error) => Some(error.to_wire()),
        };
        let step = self.prove(error);
        // A BMC that did not answer may still be at it: tried too early, it refuses what it is about to take.
        if unheard { Step::Wait(SETTLE) } else { step }
    }

    fn prove(&mut self, error: Option<BmcError>) -> Step {
        self.phase = Phase::Proving { error };
        Step::Prove
    }

    fn unproven(&mut self, error: &DriverError) -> Step {
        self.last_error = Some(error.to_wire());
        match error.class {
            // Logins pause for longer than any deadline.
            ErrorClass::Auth => Step::Done(self.overdue()),
            _ => Step::Wait(Duration::from_secs(1)),
        }
    }

    // ---- orders ----

    /// The agent was restarted with this order under way: it is not sent again.
    fn interrupted_order(&mut self, ask: Ask) -> Step {
        let doubt = "the agent was interrupted while the order was under way";
        match ask {
            Ask::Diag => Step::Done(Outcome::Unknown(no_trace(doubt, ask))),
            Ask::SetPassword => self.prove(Some(self.own_error("interrupted", ErrorClass::Connection, doubt.into()))),
            _ => {
                self.phase = Phase::Confirming { ask, doubt: Some(doubt.into()), refused: false };
                Step::Ask(Ask::Status)
            }
        }
    }

    fn ordered(&mut self, ask: Ask, reply: Result<PowerReply, &DriverError>, now: Duration) -> Step {
        self.ordered_at = now;
        let (doubt, refused) = match reply {
            Ok(PowerReply::Accepted) => (None, false),
            Ok(PowerReply::NotInThisState) => (None, true),
            Err(error) if error.maybe_sent => (Some(cut(&error.text, QUOTED)), false),
            // The second half of a cycle broke after its first was done: say so, do not call it a mere failure.
            Err(error) if self.is_second_half(ask) => {
                let text = format!("switched off, but not on again: {}", cut(&error.text, QUOTED));
                return Step::Done(Outcome::Unknown(text));
            }
            Err(error) if error.code == NOT_SUPPORTED => return Step::Done(Outcome::Refused(Refusal::NotSupported)),
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
            (Ask::Reset, Some(doubt), _) => Step::Done(Outcome::Unknown(no_trace(&doubt, ask))),
            (Ask::Reset | Ask::Diag, None, true) if reading == Reading::Off => Step::Done(Outcome::Refused(Refusal::HostIsOff)),
            (Ask::Reset | Ask::Diag, None, true) => Step::Done(Outcome::Failed(self.refused_by_bmc(ask))),
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

    // ---- ends ----

    /// How it ended, the deadline being over.
    fn overdue(&self) -> Outcome {
        let error =
            self.last_error.as_ref().map_or(String::new(), |error| format!("; last error: {}", cut(&error.to_string(), QUOTED)));
        match &self.phase {
            Phase::Queued => Outcome::Expired,
            Phase::Reading { .. } => self.failed("the BMC did not say a clear state before the deadline; nothing was ordered"),
            Phase::Verifying { .. } => {
                self.failed("the old password could not be tried before the deadline; the new one was not sent")
            }
            Phase::Asking { .. } if self.command.action == Action::Test => {
                self.failed("the BMC did not answer before the deadline")
            }
            Phase::Asking { .. } => Outcome::Unknown(format!("no answer to {:?} before the deadline{error}", self.first_ask())),
            Phase::Ordering(Ask::SetPassword) | Phase::Proving { .. } => Outcome::Unknown(self.unproven_password(&error)),
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

    /// The driver's own last error; only without one, what we saw of it.
    fn failed(&self, text: &str) -> Outcome {
        let own = || self.own_error("deadline", ErrorClass::Deadline, text.into());
        Outcome::Failed(self.last_error.clone().unwrap_or_else(own))
    }

    fn unproven_password(&self, error: &str) -> String {
        let set = match &self.phase {
            Phase::Proving { error: Some(error) } => format!(" ({})", cut(&error.text, QUOTED)),
            _ => String::new(),
        };
        format!(
            "the new password was sent{set}, but which one the BMC takes is not proven yet: both are kept, and tried until one works{error}"
        )
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
        let may_have_acted = match &self.phase {
            Phase::Ordering(_) | Phase::Confirming { .. } | Phase::Pausing | Phase::Proving { .. } => true,
            Phase::Asking { .. } => self.command.action != Action::Test,
            Phase::Queued | Phase::Reading { .. } | Phase::Verifying { .. } => false,
        };
        if may_have_acted { Outcome::Unknown(format!("interrupted after the order: {refusal}")) } else { Outcome::Refused(refusal) }
    }
}

/// How a change of password ended, once it is known which one the BMC takes.
fn proven(in_force: InForce, error: Option<BmcError>) -> Outcome {
    let text = error
        .as_ref()
        .map_or_else(|| "the BMC accepted the new password, but does not take it".to_owned(), |error| cut(&error.text, QUOTED));
    match in_force {
        InForce::New => Outcome::Changed,
        InForce::Old => {
            let text = format!("{text}; the old password still works");
            let own = || ("picket".to_owned(), ErrorClass::Refused, "not-in-force".to_owned());
            let (driver, class, code) = error.map_or_else(own, |error| (error.driver, error.class, error.code));
            Outcome::Failed(BmcError { driver, class, code, text })
        }
        InForce::Neither => Outcome::Unknown(format!(
            "neither the new password nor the old one works ({text}); both are kept, and tried every 15 minutes"
        )),
    }
}

/// Why an order that leaves no trace cannot be judged by reading.
fn no_trace(doubt: &str, ask: Ask) -> String {
    let name = if ask == Ask::Diag { "diagnostic interrupt" } else { "reset" };
    format!("{doubt}; a {name} leaves no trace in the power state")
}

const fn state_of(reading: Reading) -> PowerState {
    match reading {
        Reading::On => PowerState::On,
        Reading::Off => PowerState::Off,
        Reading::Transitioning => PowerState::Unknown,
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
