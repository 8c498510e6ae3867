//! Why a request to a BMC failed, in the words of the protocol; each failure knows its class and code.

use super::login::Stage;
use super::suite::Suite;
use crate::bmc::ErrorClass;

/// A request's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The BMC never answered while this request was served.
    #[error("no answer to {stage}{}", hint(*.stage))]
    Silent {
        /// What was not answered.
        stage: Stage,
        /// Whether the request itself was sent.
        sent: bool,
    },
    /// The BMC answers, but the request's time is over.
    #[error("the time was over while waiting for {stage}")]
    TooSlow {
        /// What was being waited for.
        stage: Stage,
        /// Whether the request itself was sent.
        sent: bool,
    },
    /// The driver closed the session while the request was outstanding.
    #[error("the session is being closed")]
    Closed {
        /// Whether the request itself was sent.
        sent: bool,
    },
    /// The BMC's RAKP 2 was not made with this password.
    #[error("login refused: the BMC holds another password for this user (its RAKP 2 code is wrong)")]
    WrongPassword,
    /// The BMC's RAKP 2 code was all zeros.
    #[error("login refused: the BMC's RAKP 2 code is all zeros, which proves nothing")]
    ZeroCode,
    /// The password is right and the BMC's last proof is not.
    #[error("login refused: the password is right but RAKP 4 does not verify; {}", if *.key_set { "check option `kg`" } else { "the BMC seems to have a BMC key: set option `kg`" })]
    WrongBmcKey {
        /// Whether option `kg` is set.
        key_set: bool,
    },
    /// The BMC refused the user in RAKP 2 or 4.
    #[error("login refused: status {status:#04x} ({}) to {stage}", status_text(*.status))]
    LoginRefused {
        /// What was refused.
        stage: Stage,
        /// RMCP+ status code.
        status: u8,
    },
    /// The user may not have any of the privilege levels asked for.
    #[error("the BMC does not grant the privilege level to this user (code {code:#04x}); see option `privilege`")]
    Privilege {
        /// RMCP+ status or completion code.
        code: u8,
    },
    /// RAKP 1 stays without an answer while everything else is answered.
    #[error("RAKP 1 is not answered although the BMC is there; unknown user? locked?")]
    Unanswered,
    /// The guard against lock-outs is shut.
    #[error("no login for now: the BMC refused two, or left them unanswered, within 15 minutes; unknown user? locked?")]
    LoginsPaused,
    /// None of the suites is accepted.
    #[error("the BMC refuses cipher suite {} (status {status:#04x}, {}); see option `cipher_suite`", .suite.number(), status_text(*.status))]
    NoSuite {
        /// The last suite proposed.
        suite: Suite,
        /// The status of the last refusal.
        status: u8,
    },
    /// The BMC answered with algorithms that were not proposed.
    #[error("the BMC answers cipher suite {} with other algorithms ({algorithms:02x?}): refused", .suite.number())]
    OtherSuite {
        /// The last suite proposed.
        suite: Suite,
        /// Authentication, integrity, confidentiality as answered.
        algorithms: [u8; 3],
    },
    /// The BMC offers no RMCP+.
    #[error("the BMC offers no IPMI 2.0 session on this channel (quirk `authcap` tries all the same)")]
    NoRmcpPlus,
    /// The BMC has no session left.
    #[error("the BMC has no free session (status {status:#04x})")]
    SessionsUsedUp {
        /// RMCP+ status code.
        status: u8,
    },
    /// An answer that no BMC should give here.
    #[error("the BMC answers {stage} with status {status:#04x} ({})", status_text(*.status))]
    Unexpected {
        /// What was answered.
        stage: Stage,
        /// RMCP+ status code.
        status: u8,
    },
    /// Logins within one request led nowhere.
    #[error("gave up after {attempts} attempts to open a session")]
    Restless {
        /// How many.
        attempts: u8,
    },
}

impl Failure {
    /// What may be done about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Silent { .. } | Self::Closed { .. } | Self::Unanswered => ErrorClass::Connection,
            Self::TooSlow { .. } => ErrorClass::Deadline,
            Self::WrongPassword | Self::ZeroCode | Self::WrongBmcKey { .. } | Self::LoginRefused { .. } | Self::LoginsPaused => {
                ErrorClass::Auth
            }
            Self::Privilege { .. } | Self::NoSuite { .. } | Self::OtherSuite { .. } | Self::NoRmcpPlus => ErrorClass::Setting,
            Self::SessionsUsedUp { .. } => ErrorClass::Refused,
            Self::Unexpected { .. } | Self::Restless { .. } => ErrorClass::Protocol,
        }
    }

    /// Short stable code.
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::Silent { stage: Stage::Rakp1, .. } | Self::Unanswered => "rakp1-silent".into(),
            Self::LoginsPaused => "logins-paused".into(),
            Self::Silent { .. } => "timeout".into(),
            Self::TooSlow { .. } => "deadline".into(),
            Self::Closed { .. } => "closed".into(),
            Self::WrongPassword => "rakp2-hmac".into(),
            Self::ZeroCode => "rakp2-zero".into(),
            Self::WrongBmcKey { .. } => "rakp4-hmac".into(),
            Self::LoginRefused { status, .. } => format!("rakp-{status:#04x}"),
            Self::Privilege { code } => format!("privilege-{code:#04x}"),
            Self::NoSuite { .. } => "no-common-suite".into(),
            Self::OtherSuite { .. } => "other-suite".into(),
            Self::NoRmcpPlus => "no-ipmi-2.0".into(),
            Self::SessionsUsedUp { .. } => "sessions-used-up".into(),
            Self::Unexpected { status, .. } => format!("status-{status:#04x}"),
            Self::Restless { .. } => "login-loop".into(),
        }
    }

    /// Whether nothing came, as opposed to something that tells why not.
    #[must_use]
    pub const fn is_silence(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::TooSlow { .. })
    }

    /// Whether the request may have reached the BMC.
    #[must_use]
    pub const fn maybe_sent(&self) -> bool {
        matches!(self, Self::Silent { sent: true, .. } | Self::TooSlow { sent: true, .. } | Self::Closed { sent: true })
    }
}

const fn hint(stage: Stage) -> &'static str {
    match stage {
        Stage::Rakp1 => "; unknown user?",
        _ => "",
    }
}

/// RMCP+ status codes (table 13-15).
#[must_use]
pub const fn status_text(status: u8) -> &'static str {
    match status {
        0x00 => "no error",
        0x01 => "insufficient resources to create a session",
        0x02 => "invalid session id",
        0x03 => "invalid payload type",
        0x04 => "invalid authentication algorithm",
        0x05 => "invalid integrity algorithm",
        0x06 => "no matching authentication payload",
        0x07 => "no matching integrity payload",
        0x08 => "inactive session id",
        0x09 => "invalid role",
        0x0A => "unauthorized role or privilege level",
        0x0B => "insufficient resources at the requested role",
        0x0C => "invalid name length",
        0x0D => "unauthorized name",
        0x0E => "unauthorized GUID",
        0x0F => "invalid integrity check value",
        0x10 => "invalid confidentiality algorithm",
        0x11 => "no cipher suite match",
        0x12 => "illegal or unrecognized parameter",
        _ => "unknown status",
    }
}
