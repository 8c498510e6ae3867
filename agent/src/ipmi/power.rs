//! Power orders as IPMI requests, and their answers read with what completion codes mean. Pure.

use std::time::Duration;

use ipmi_rs_core::connection::{IpmiCommand as _, Message};

use super::command::{ChassisControl, GetChassisStatus};
use super::request::{Reply, Request, Resend};
use crate::bmc::{Answer, Ask, ErrorClass, PowerReply, Reading};

/// A BMC's "no", or an answer that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A completion code other than success.
    #[error("the BMC answers {ask:?} with completion code {code:#04x} ({})", code_text(*.code))]
    Code {
        /// What was asked.
        ask: Ask,
        /// Completion code.
        code: u8,
    },
    /// Success, with fewer bytes than Get Chassis Status has.
    #[error("the BMC's chassis status has {len} bytes")]
    Short {
        /// Bytes received.
        len: usize,
    },
}

impl Unusable {
    /// What may be done about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Code { code: 0xC3, .. } => ErrorClass::Deadline,
            Self::Code { code: 0xD4, .. } => ErrorClass::Setting,
            Self::Code { .. } => ErrorClass::Refused,
            Self::Short { .. } => ErrorClass::Protocol,
        }
    }

    /// Short stable code.
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::Code { code, .. } => format!("{code:#04x}"),
            Self::Short { .. } => "short-answer".into(),
        }
    }

    /// Whether an order may have been carried out all the same: the code does not say that nothing was done.
    #[must_use]
    pub fn maybe_sent(&self) -> bool {
        matches!(self, Self::Code { ask, code: 0xC3 | 0xCE | 0xFF } if *ask != Ask::Status)
    }
}

/// The request for `ask`.
#[must_use]
pub fn request(ask: Ask, deadline: Duration) -> Request {
    let resend = if ask.is_idempotent() { Resend::Freely } else { Resend::Never };
    Request { message: message(ask), resend, deadline }
}

/// The command for `ask`.
#[must_use]
pub fn message(ask: Ask) -> Message {
    match ask {
        Ask::Status => GetChassisStatus.into(),
        Ask::On => ChassisControl::PowerUp.into(),
        Ask::Off => ChassisControl::PowerDown.into(),
        Ask::Soft => ChassisControl::SoftShutdown.into(),
        Ask::Reset => ChassisControl::HardReset.into(),
        // Not served by this driver yet, so never asked (`Driver::serves`).
        Ask::Diag | Ask::Identify { .. } | Ask::Bootdev { .. } | Ask::Inspect | Ask::TryLogin | Ask::SetPassword => {
            GetChassisStatus.into()
        }
    }
}

/// What the BMC's answer to `ask` says. A completion code is never a reading: 0xFF is a BMC that boots, not a host that is off.
///
/// # Errors
/// [`Unusable`].
pub fn answer(ask: Ask, reply: &Reply) -> Result<Answer, Unusable> {
    match (ask, reply.completion_code) {
        (Ask::Status, 0) => match GetChassisStatus::parse_success_response(reply.data()) {
            Ok(status) => Ok(Answer::Reading(if status.power_on { Reading::On } else { Reading::Off })),
            Err(_) => Err(Unusable::Short { len: reply.data().len() }),
        },
        (Ask::On | Ask::Off | Ask::Soft | Ask::Reset, 0) => Ok(Answer::Power(PowerReply::Accepted)),
        (Ask::On | Ask::Off | Ask::Soft | Ask::Reset, 0xD5) => Ok(Answer::Power(PowerReply::NotInThisState)),
        (ask, code) => Err(Unusable::Code { ask, code }),
    }
}

/// Generic completion codes (table 5-2).
const fn code_text(code: u8) -> &'static str {
    match code {
        0xC0 => "busy",
        0xC1 => "command not supported",
        0xC2 => "command not supported for this unit",
        0xC3 => "timeout",
        0xC7 => "wrong request length",
        0xC9 => "parameter out of range",
        0xCC => "invalid data field",
        0xCE => "no response could be provided",
        0xD0 | 0xD1 => "a firmware or repository update is going on",
        0xD2 => "the BMC is starting",
        0xD3 => "destination unavailable",
        0xD4 => "insufficient privilege level",
        0xD5 => "not possible in this state",
        0xD6 => "command disabled",
        0xFF => "unspecified error; a BMC that is starting says this",
        _ => "see IPMI table 5-2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_codes_mean_what_they_say() {
        use ErrorClass::{Deadline, Protocol, Refused, Setting};
        let on = [0x01, 0x00, 0x00];
        let off = [0x60, 0x00, 0x00];
        type Expected = Result<Answer, (ErrorClass, &'static str, bool)>;
        let table: [(Ask, u8, &[u8], Expected); 15] = [
            (Ask::Status, 0x00, &on, Ok(Answer::Reading(Reading::On))),
            (Ask::Status, 0x00, &off, Ok(Answer::Reading(Reading::Off))),
            (Ask::Status, 0x00, &[], Err((Protocol, "short-answer", false))),
            (Ask::Status, 0xFF, &off, Err((Refused, "0xff", false))),
            (Ask::Status, 0xD2, &[], Err((Refused, "0xd2", false))),
            (Ask::Status, 0xD5, &[], Err((Refused, "0xd5", false))),
            (Ask::Status, 0xC3, &[], Err((Deadline, "0xc3", false))),
            (Ask::On, 0x00, &[], Ok(Answer::Power(PowerReply::Accepted))),
            (Ask::Off, 0xD5, &[], Ok(Answer::Power(PowerReply::NotInThisState))),
            (Ask::Soft, 0xC1, &[], Err((Refused, "0xc1", false))),
            (Ask::Reset, 0xC0, &[], Err((Refused, "0xc0", false))),
            (Ask::Reset, 0xCC, &[], Err((Refused, "0xcc", false))),
            (Ask::Off, 0xC3, &[], Err((Deadline, "0xc3", true))),
            (Ask::Off, 0xFF, &[], Err((Refused, "0xff", true))),
            (Ask::Off, 0xD4, &[], Err((Setting, "0xd4", false))),
        ];
        for (ask, code, data, expected) in table {
            let got = answer(ask, &Reply::new(Duration::ZERO, code, data));
            let got = got.map_err(|error| (error.class(), error.code(), error.maybe_sent()));
            let expected = expected.map_err(|(class, code, maybe_sent)| (class, code.to_owned(), maybe_sent));
            assert_eq!(got, expected, "{ask:?} {code:#04x}");
        }
    }

    #[test]
    fn only_what_may_be_repeated_is_repeated() {
        for (ask, resend) in [
            (Ask::Status, Resend::Freely),
            (Ask::On, Resend::Freely),
            (Ask::Off, Resend::Freely),
            (Ask::Soft, Resend::Never),
            (Ask::Reset, Resend::Never),
        ] {
            assert_eq!(request(ask, Duration::ZERO).resend, resend, "{ask:?}");
        }
    }
}
