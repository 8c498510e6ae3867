//! Power orders as IPMI requests, and their answers read with what completion codes mean. Pure.

use std::time::Duration;

use ipmi_rs_core::connection::{IpmiCommand as _, Message};

use super::command::{ChassisControl, GetChassisStatus};
use super::request::{Reply, Request, Resend};
use super::unusable::Unusable;
use crate::bmc::{Answer, Ask, PowerReply, Reading};

/// The request for `ask`.
#[must_use]
pub fn request(ask: Ask, deadline: Duration) -> Request {
    let resend = if ask.is_idempotent() { Resend::Freely } else { Resend::Never };
    Request::new(message(ask), resend, deadline)
}

/// The command for `ask`.
#[must_use]
pub fn message(ask: Ask) -> Message {
    match ask {
        Ask::On => ChassisControl::PowerUp.into(),
        Ask::Off => ChassisControl::PowerDown.into(),
        Ask::Soft => ChassisControl::SoftShutdown.into(),
        Ask::Reset => ChassisControl::HardReset.into(),
        Ask::Diag => ChassisControl::DiagnosticInterrupt.into(),
        // Whatever begins with a login begins with a question that may be repeated; the rest is in scripts of their own.
        Ask::Status | Ask::Identify { .. } | Ask::Bootdev { .. } | Ask::Inspect | Ask::TryLogin | Ask::SetPassword => {
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
        (Ask::Status, 0) => reading(reply).map(Answer::Reading),
        (Ask::On | Ask::Off | Ask::Soft | Ask::Reset | Ask::Diag, 0) => Ok(Answer::Power(PowerReply::Accepted)),
        (Ask::On | Ask::Off | Ask::Soft | Ask::Reset | Ask::Diag, 0xD5) => Ok(Answer::Power(PowerReply::NotInThisState)),
        // A BMC without the command, or whose Chassis Control has no such operation.
        (Ask::Diag, code @ (0xC1 | 0xCC)) => Err(Unusable::Unsupported { ask, code }),
        (ask, code) => Err(Unusable::Code { ask, code }),
    }
}

/// The power in an answer to Get Chassis Status whose completion code is 0.
///
/// # Errors
/// Too few bytes.
pub fn reading(reply: &Reply) -> Result<Reading, Unusable> {
    match GetChassisStatus::parse_success_response(reply.data()) {
        Ok(status) => Ok(if status.power_on { Reading::On } else { Reading::Off }),
        Err(_) => Err(Unusable::Short { len: reply.data().len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bmc::ErrorClass;

    #[test]
    fn completion_codes_mean_what_they_say() {
        use ErrorClass::{Deadline, Protocol, Refused, Setting};
        let on = [0x01, 0x00, 0x00];
        let off = [0x60, 0x00, 0x00];
        type Expected = Result<Answer, (ErrorClass, &'static str, bool)>;
        let table: [(Ask, u8, &[u8], Expected); 19] = [
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
            (Ask::Diag, 0x00, &[], Ok(Answer::Power(PowerReply::Accepted))),
            (Ask::Diag, 0xD5, &[], Ok(Answer::Power(PowerReply::NotInThisState))),
            (Ask::Diag, 0xCC, &[], Err((Refused, "not-supported", false))),
            (Ask::Diag, 0xCE, &[], Err((Refused, "0xce", true))),
        ];
        for (ask, code, data, expected) in table {
            let got = answer(ask, &Reply::new(Duration::ZERO, code, data));
            let got = got.map_err(|error| (error.class(), error.code(), error.maybe_sent()));
            let expected = expected.map_err(|(class, code, maybe_sent)| (class, code.to_owned(), maybe_sent));
            assert_eq!(got, expected, "{ask:?} {code:#04x}");
        }
    }

    /// An error is never Off: not by its code, whatever the data behind it look like.
    #[test]
    fn t15_no_completion_code_reads_as_a_state() {
        for code in 1..=u8::MAX {
            for data in [&[][..], &[0x00, 0x00, 0x00], &[0x01, 0x00, 0x00]] {
                assert!(answer(Ask::Status, &Reply::new(Duration::ZERO, code, data)).is_err(), "{code:#04x}");
            }
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
            (Ask::Diag, Resend::Never),
        ] {
            assert_eq!(request(ask, Duration::ZERO).resend, resend, "{ask:?}");
        }
    }

    /// Hard off is "power down" and nothing else; a soft shutdown is never a hard one.
    #[test]
    fn t21_off_is_power_down_on_the_wire() {
        for (ask, number) in [(Ask::Off, 0), (Ask::On, 1), (Ask::Reset, 3), (Ask::Diag, 4), (Ask::Soft, 5)] {
            let message = message(ask);
            assert_eq!((message.netfn_raw(), message.cmd(), message.data()), (0, 2, &[number][..]), "{ask:?}");
        }
    }
}
