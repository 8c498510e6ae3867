//! Fencing one host, and the reset that is tried before: what proves that it is off, and how it is brought there. Pure: says what to
//! ask next, and sends nothing itself.

mod attempt;
pub mod gates;
mod offs;
mod recover;
#[cfg(test)]
mod tests;

use std::time::Duration;

use picket_common::command::{BmcError, ErrorClass};
use picket_common::ha::settings::HaSettings;
use picket_common::ha::{Gate, HaEvent};
use picket_common::wire::ha::{Act, Proof};

pub use self::attempt::{Attempt, Phase};
pub use self::offs::{Count, CountRules, OffSeen, Offs, SeenRules, Sight};
pub use self::recover::{Recovery, Stage};
use crate::bmc::{Ask, DriverError, PowerReply, Reading};

/// Pause before the gates are asked again.
pub const JUDGED_AGAIN: Duration = Duration::from_secs(10);
/// Pause between the attempts before a fence is told to be unconfirmed.
pub const NEXT_ATTEMPT: Duration = Duration::from_secs(10);

/// What a health check said, the path to the host known to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthSign {
    /// The host answers.
    Alive,
    /// It does not, and the same path reaches others.
    Dead,
    /// It could not be found out.
    CannotTell,
}

/// A health check that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health<'a> {
    /// What it said.
    pub sign: HealthSign,
    /// When it was begun (boottime): it says nothing of what came after.
    pub begun: Duration,
    /// The same in one sentence.
    pub said: &'a str,
}

/// What happened. Readings and health checks that it did not ask for are welcome too.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// It is to begin, or the agent was restarted.
    Start,
    /// A reading.
    Read {
        /// What it said.
        result: Result<Reading, &'a DriverError>,
        /// When it was begun (boottime).
        begun: Duration,
    },
    /// The BMC's answer to the order.
    Ordered(Result<PowerReply, &'a DriverError>),
    /// A health check ended.
    Health(Health<'a>),
    /// The gates were asked: the one in the way, if any.
    Judged(Option<Gate>),
    /// The time it asked to wait is over.
    Due,
    /// Something that it asked for never came.
    Overdue,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the BMC; an order only after the phase is durable, and with the power-down counted
    /// ([`crate::rack::brakes::Brakes::power_down`]).
    Ask(Ask),
    /// Begin a health check now.
    CheckHealth,
    /// Ask the gates about this, and give their answer in the same instant.
    Judge(Act),
    /// Look again after this long.
    Wait(Duration),
    /// What was asked for before is still to come.
    Stay,
    /// It ended, or this attempt did.
    Ended(Box<End>),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What follows for the host.
    pub event: HaEvent,
    /// Why, in one sentence.
    pub why: String,
    /// The readings behind it.
    pub proof: Option<Proof>,
    /// The driver's last error.
    pub error: Option<BmcError>,
    /// After a failed attempt: the next one begins after this long, by [`Input::Due`].
    pub again: Option<Duration>,
}

/// What holds for the host in the instant of a step.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Its settings.
    pub settings: &'a HaSettings,
    /// Its driver.
    pub driver: &'a str,
    /// Its device, as evidence names it: driver and address.
    pub device: &'a str,
    /// Whether the driver can prove.
    pub can_prove: bool,
    /// Whether logins at its BMC are paused.
    pub is_blocked: bool,
    /// A cycle or reset of ours, or one whose end nobody knows, may be passing through Off.
    pub is_outstanding: bool,
}

/// An error of our own.
fn own_error(code: &str, class: ErrorClass, text: &str) -> BmcError {
    BmcError { driver: "picket".into(), class, code: code.into(), text: text.into() }
}

fn logins_paused() -> BmcError {
    own_error(
        "logins-paused",
        ErrorClass::Auth,
        "the BMC refused the login; logins are paused for 15 minutes, or until it has a new password",
    )
}
