//! What is asked of a BMC as a series of requests: each answer decides the next one. No sockets, no clock; the engine and the
//! kernel's interface both drive it.

use std::time::Duration;

use ipmi_rs_core::connection::Message;
use picket_common::secret::Secret;

use super::boot::Setting;
use super::command::{AuthCapabilities, ChassisIdentify};
use super::failure::Failure;
use super::inspect::Inspection;
use super::power;
use super::quirks::{Quirk, Quirks};
use super::request::{Reply, Request, Resend};
use super::settings::{Privilege, SettingError, Settings};
use super::suite::Suite;
use super::unusable::Unusable;
use super::user::Change;
use crate::bmc::{Answer, Ask};

/// How long a question waits whose answer a BMC may lack: some are silent to what they do not know.
const TRY: Duration = Duration::from_secs(2);
/// CC 0xC7 and 0xCC: what BMCs say to a byte they do not know.
const CC_LENGTH: u8 = 0xC7;
const CC_FIELD: u8 = 0xCC;
/// CC 0xC1: the command is not supported.
const CC_NO_COMMAND: u8 = 0xC1;

/// What the session knows of the BMC besides its answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct About {
    /// Of the session; none through the kernel's interface.
    pub suite: Option<Suite>,
    /// Granted to the session.
    pub privilege: Option<Privilege>,
    /// As told before the login.
    pub capabilities: Option<AuthCapabilities>,
    /// Found out at login.
    pub detected: Quirks,
}

/// What follows an answer.
pub enum Turn {
    /// Ask this; it may be repeated.
    Send(Message),
    /// Order this; it is sent once.
    SendOnce(Message),
    /// Ask this, and go on without an answer if there is none.
    Try(Message),
    /// That was all.
    End(Result<Answer, Unusable>),
}

/// What the one who drives the script does next.
pub enum Next {
    /// Send this and come back with its answer.
    Ask(Request),
    /// It ended with an answer or with the BMC's "no".
    End(Result<Answer, Unusable>),
    /// It ended with the failure that was handed in.
    Failed,
}

/// See the module.
pub struct Script {
    ask: Ask,
    work: Work,
    begun: bool,
    /// The request outstanding may stay without an answer.
    trying: bool,
}

enum Work {
    /// One request: status and power orders.
    Single,
    Identify {
        seconds: u8,
        whole: bool,
    },
    Boot(Box<Setting>),
    Inspect(Box<Inspection>),
    TryLogin,
    Password(Box<Change>),
}

impl Script {
    /// For `ask`; what cannot be done with these settings is refused before anything is sent.
    ///
    /// # Errors
    /// A password that is missing or that IPMI, or this BMC by its settings, cannot keep.
    pub fn new(ask: Ask, new_password: Option<&Secret<String>>, settings: &Settings) -> Result<Self, SettingError> {
        let work = match ask {
            Ask::Status | Ask::On | Ask::Off | Ask::Soft | Ask::Reset | Ask::Diag => Work::Single,
            Ask::Identify { seconds } => Work::Identify { seconds: u8::try_from(seconds).unwrap_or(u8::MAX), whole: true },
            Ask::Bootdev { device, persistence } => Work::Boot(Box::new(Setting::new(device, persistence, settings))),
            Ask::Inspect => Work::Inspect(Box::default()),
            Ask::TryLogin => Work::TryLogin,
            Ask::SetPassword => {
                let password = new_password.ok_or(SettingError::BadNewPassword { why: "there is none" })?;
                Work::Password(Box::new(Change::new(settings.new_password(password.expose())?, settings)))
            }
        };
        Ok(Self { ask, work, begun: false, trying: false })
    }

    /// What is asked.
    #[must_use]
    pub const fn ask(&self) -> Ask {
        self.ask
    }

    /// The first request, to be answered by `deadline`.
    pub fn begin(&mut self, now: Duration, deadline: Duration) -> Request {
        let message = match &self.work {
            Work::Single | Work::Inspect(_) | Work::TryLogin => power::message(self.ask),
            Work::Identify { seconds, whole } => ChassisIdentify { seconds: *seconds, whole: *whole }.into(),
            Work::Boot(setting) => setting.first(),
            Work::Password(change) => change.first(),
        };
        let once = matches!(self.work, Work::Single) && !self.ask.is_idempotent();
        let turn = if once { Turn::SendOnce(message) } else { Turn::Send(message) };
        match self.follow(turn, now, deadline) {
            Next::Ask(request) => request,
            // Not reached: a request makes a request.
            Next::End(_) | Next::Failed => power::request(Ask::Status, deadline),
        }
    }

    /// Takes how the request before ended.
    pub fn next(
        &mut self,
        now: Duration,
        deadline: Duration,
        ended: Result<&Reply, &Failure>,
        settings: &Settings,
        about: &About,
    ) -> Next {
        let reply = match ended {
            Ok(reply) => Some(reply),
            Err(failure) if self.trying && failure.is_silence() && now < deadline => None,
            Err(_) => return Next::Failed,
        };
        let turn = match (&mut self.work, reply) {
            (Work::Inspect(inspection), reply) => inspection.next(now, reply, settings, about),
            (_, None) => return Next::Failed,
            (Work::Single, Some(reply)) => Turn::End(power::answer(self.ask, reply)),
            // Whatever the BMC answers, it answered in a session that needed the password.
            (Work::TryLogin, Some(_)) => Turn::End(Ok(Answer::Done)),
            (Work::Identify { seconds, whole }, Some(reply)) => match reply.completion_code {
                0 => Turn::End(Ok(Answer::Done)),
                CC_LENGTH | CC_FIELD if std::mem::take(whole) => {
                    Turn::Send(ChassisIdentify { seconds: *seconds, whole: false }.into())
                }
                code @ CC_NO_COMMAND => Turn::End(Err(Unusable::Unsupported { ask: self.ask, code })),
                code => Turn::End(Err(Unusable::Code { ask: self.ask, code })),
            },
            (Work::Boot(setting), Some(reply)) => setting.next(reply, settings),
            (Work::Password(change), Some(reply)) => {
                let short = settings.wishes.in_force(about.detected, None).has(Quirk::ShortPassword);
                change.next(reply, settings, short)
            }
        };
        self.follow(turn, now, deadline)
    }

    fn follow(&mut self, turn: Turn, now: Duration, deadline: Duration) -> Next {
        let (message, resend, deadline) = match turn {
            Turn::Send(message) => (message, Resend::Freely, deadline),
            Turn::SendOnce(message) => (message, Resend::Never, deadline),
            Turn::Try(message) => {
                self.trying = true;
                return Next::Ask(self.request(message, Resend::Freely, deadline.min(now + TRY)));
            }
            Turn::End(result) => return Next::End(result),
        };
        self.trying = false;
        Next::Ask(self.request(message, resend, deadline))
    }

    fn request(&mut self, message: Message, resend: Resend, deadline: Duration) -> Request {
        let first = !std::mem::replace(&mut self.begun, true);
        Request {
            anew: first && matches!(self.work, Work::Inspect(_) | Work::TryLogin | Work::Password(_)),
            privilege: self.leaves().then_some(Privilege::Administrator),
            escalate: !self.trying,
            ..Request::new(message, resend, deadline)
        }
    }

    /// Whether its session is its own: not to be kept when it is through.
    #[must_use]
    pub const fn leaves(&self) -> bool {
        matches!(self.work, Work::Password(_))
    }

    /// Whether the request outstanding changes something, so that it may have been carried out when its answer is missing.
    #[must_use]
    pub const fn is_order_out(&self) -> bool {
        match &self.work {
            Work::Single => !matches!(self.ask, Ask::Status),
            Work::Identify { .. } => true,
            Work::Boot(setting) => setting.is_order_out(),
            Work::Password(change) => change.is_order_out(),
            Work::Inspect(_) | Work::TryLogin => false,
        }
    }
}
