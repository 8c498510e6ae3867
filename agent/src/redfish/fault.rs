//! What an HTTP status and the error text behind it mean for the one who asked.

use std::time::Duration;

use serde_json::Value;

use super::MAX_RETRY_AFTER_S;
use super::quirks::Quirks;
use crate::bmc::ErrorClass;

/// The longest error text that is passed on, in characters.
const MAX_TEXT_CHARS: usize = 300;

/// What a BMC says about a failure (DSP0266 §8.6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// Message ids without registry and version: `ActionParameterNotSupported`, `RAC0218`.
    pub ids: Vec<String>,
    /// The messages, one line; empty when the BMC says nothing readable.
    pub text: String,
    /// With `PasswordChangeRequired`: the account whose password is to be changed, as the BMC names it.
    pub change_first: Option<String>,
}

impl Fault {
    /// Reads an error body; never fails, the worst result is empty.
    #[must_use]
    pub fn read(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Self::default() };
        let error = body.get("error").unwrap_or(&body);
        let details = ["@Message.ExtendedInfo", "Messages"].iter().find_map(|key| error.get(key).or_else(|| body.get(key)));
        let details = details.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut ids = Vec::new();
        let mut texts = Vec::new();
        let mut change_first = None;
        for detail in details.iter().take(8) {
            ids.extend(detail.get("MessageId").or_else(|| detail.get("MessageID")).and_then(Value::as_str).map(short_id));
            if ids.last().is_some_and(|id: &String| id.eq_ignore_ascii_case("PasswordChangeRequired")) {
                let first = detail.get("MessageArgs").and_then(|arguments| arguments.get(0)).and_then(Value::as_str);
                change_first = change_first.or_else(|| first.map(str::to_owned));
            }
            let message = detail.get("Message").and_then(Value::as_str).or_else(|| detail.as_str());
            match message {
                Some(message) => texts.push(message),
                // iLO 4 leaves the message to its registry and sends only what fills it.
                None => texts
                    .extend(detail.get("MessageArgs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)),
            }
        }
        ids.extend(error.get("code").and_then(Value::as_str).map(short_id));
        if texts.is_empty() {
            texts.extend(error.get("message").and_then(Value::as_str));
        }
        let mut text = one_line(&texts.join(" "));
        if text.is_empty() {
            text = one_line(&ids.join(" "));
        }
        Self { ids, text, change_first }
    }

    /// As [`Fault::read`], but a good answer is not searched: system resources are large and polled often.
    #[must_use]
    pub fn read_of(status: u16, body: &[u8]) -> Self {
        if status < 300 { Self::default() } else { Self::read(body) }
    }

    fn is_any(&self, ids: &[&str]) -> bool {
        self.ids.iter().any(|id| ids.iter().any(|known| id.eq_ignore_ascii_case(known)))
    }

    /// Whether it blames the account's rights or an expired password.
    #[must_use]
    pub fn is_about_rights(&self) -> bool {
        self.is_any(NO_RIGHTS)
    }

    /// Whether it says that all sessions are in use.
    #[must_use]
    pub fn is_sessions_used_up(&self, quirks: &Quirks) -> bool {
        self.is_any(quirks.sessions_used_up)
    }
}

/// `Base.1.8.Success` → `Success`, `IDRAC.2.8.SYS518` → `SYS518`.
fn short_id(id: &str) -> String {
    id.rsplit('.').next().unwrap_or_default().chars().take(80).collect()
}

fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT_CHARS).collect();
    clean.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What was asked when the answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// A GET.
    Read,
    /// The POST of a reset.
    Order,
    /// The POST of a session.
    LogIn,
    /// A PATCH.
    Change,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As asked (an order: accepted, not done).
    Good,
    /// An order that can be refused because it is already so.
    NotInThisState,
    /// The login is not, or no longer, good.
    NotLoggedIn,
    /// There is nothing of that kind here (404, 405, 501).
    NotHere,
    /// Ask again later; nothing was done.
    NotNow,
    /// Nothing was done because of the `If-Match`, or for want of one.
    OtherTag,
    /// Refused for good.
    Failed {
        /// Which kind of failure.
        class: ErrorClass,
        /// Whether an order may have been carried out all the same.
        maybe_done: bool,
    },
}

/// Ids of messages that find fault with the request itself, so that a 400 cannot mean "already there" or "wrong password".
const BAD_REQUEST: &[&str] = &[
    "ActionNotSupported",
    "ActionParameterMissing",
    "ActionParameterNotSupported",
    "ActionParameterUnknown",
    "ActionParameterValueFormatError",
    "ActionParameterValueNotInList",
    "ActionParameterValueTypeError",
    "CreateFailedMissingReqProperties",
    "EmptyJSON",
    "InvalidJSON",
    "MalformedJSON",
    "PropertyMissing",
    "PropertyNotWritable",
    "PropertyUnknown",
    "PropertyValueNotInList",
    "UnrecognizedRequestBody",
];

/// Ids under a 403 that blame rights or an expired password, not the login itself.
const NO_RIGHTS: &[&str] = &["InsufficientPrivilege", "PasswordChangeRequired", "PasswordExpired"];

/// What `status` means.
#[must_use]
pub fn verdict(exchange: Exchange, status: u16, fault: &Fault, quirks: &Quirks) -> Verdict {
    let failed = |class| Verdict::Failed { class, maybe_done: false };
    match status {
        200..=299 => Verdict::Good,
        401 => Verdict::NotLoggedIn,
        400.. if exchange == Exchange::LogIn && fault.is_any(quirks.login_refused) => Verdict::NotLoggedIn,
        403 if exchange == Exchange::LogIn && !fault.is_about_rights() => Verdict::NotLoggedIn,
        403 => failed(ErrorClass::Setting),
        _ if fault.is_any(quirks.not_ready) => Verdict::NotNow,
        _ if exchange == Exchange::Order && fault.is_any(quirks.not_in_this_state) => Verdict::NotInThisState,
        503 | 429 => Verdict::NotNow,
        412 | 428 if exchange == Exchange::Change => Verdict::OtherTag,
        // A session's POST holds a name and a password and nothing else: a 400 that finds no fault with its form is taken for a
        // refused login, whoever made the BMC. Wrongly counting one costs a pause; not counting them can lock the account.
        400 if exchange == Exchange::LogIn && !fault.is_any(BAD_REQUEST) && !fault.is_sessions_used_up(quirks) => {
            Verdict::NotLoggedIn
        }
        409 if exchange == Exchange::Order => Verdict::NotInThisState,
        400 if exchange == Exchange::Order && !fault.is_any(BAD_REQUEST) => Verdict::NotInThisState,
        404 | 405 | 501 => Verdict::NotHere,
        300..=399 => failed(ErrorClass::Protocol),
        500.. => Verdict::Failed { class: ErrorClass::Refused, maybe_done: matches!(exchange, Exchange::Order | Exchange::Change) },
        _ => failed(ErrorClass::Refused),
    }
}

/// How long a BMC wants to be left alone: seconds, or a date measured against the answer's own `Date`, at most
/// [`MAX_RETRY_AFTER_S`].
#[must_use]
pub fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let seconds = match value.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let parse = |text: &str| jiff::fmt::rfc2822::parse(text.trim()).ok().map(|zoned| zoned.timestamp().as_second());
            u64::try_from(parse(value)?.saturating_sub(parse(date?)?)).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds.min(MAX_RETRY_AFTER_S)))
}

#[cfg(test)]
mod tests {
    use super::super::quirks::{self, Machine};
    use super::*;

    #[test]
    fn texts_are_found_wherever_they_stand() {
        for (body, ids, text) in [
            (
                r#"{"error":{"code":"Base.1.8.GeneralError","message":"See ExtendedInfo","@Message.ExtendedInfo":[{"MessageId":"IDRAC.2.8.SYS518","Message":"Unable to\n complete."},null]}}"#,
                "SYS518 GeneralError",
                "Unable to complete.",
            ),
            (r#"{"error":{"code":"iLO.0.10.ExtendedInfo","message":"Not now"}}"#, "ExtendedInfo", "Not now"),
            (
                r#"{"error":{"@Message.ExtendedInfo":[{"MessageArgs":["Power is off"],"MessageID":"iLO.0.10.InvalidOperationForSystemState"}],"code":"iLO.0.10.ExtendedInfo","message":"See more."}}"#,
                "InvalidOperationForSystemState ExtendedInfo",
                "Power is off",
            ),
            (r#"{"@Message.ExtendedInfo":[{"MessageId":"Base.1.0.X"}]}"#, "X", "X"),
            (
                r#"{"Messages":[{"MessageID":"iLO.0.10.UnauthorizedLoginAttempt"}]}"#,
                "UnauthorizedLoginAttempt",
                "UnauthorizedLoginAttempt",
            ),
            (r#"{"error":"broken"}"#, "", ""),
            ("<html>nope</html>", "", ""),
            ("[1]", "", ""),
            ("", "", ""),
        ] {
            let fault = Fault::read(body.as_bytes());
            assert_eq!((fault.ids.join(" ").as_str(), fault.text.as_str()), (ids, text), "{body}");
        }
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "x".repeat(5000));
        assert_eq!(Fault::read(long.as_bytes()).text.len(), MAX_TEXT_CHARS);
    }

    #[test]
    fn statuses() {
        use Exchange::{Change, LogIn, Order, Read};
        let refused = Verdict::Failed { class: ErrorClass::Refused, maybe_done: false };
        let perhaps = Verdict::Failed { class: ErrorClass::Refused, maybe_done: true };
        let rights = Verdict::Failed { class: ErrorClass::Setting, maybe_done: false };
        let protocol = Verdict::Failed { class: ErrorClass::Protocol, maybe_done: false };
        for (status, id, read, order, log_in) in [
            (200, "", Verdict::Good, Verdict::Good, Verdict::Good),
            (202, "", Verdict::Good, Verdict::Good, Verdict::Good),
            (204, "", Verdict::Good, Verdict::Good, Verdict::Good),
            (302, "", protocol, protocol, protocol),
            (400, "", refused, Verdict::NotInThisState, Verdict::NotLoggedIn),
            (400, "InvalidOperationForSystemState", refused, Verdict::NotInThisState, Verdict::NotLoggedIn),
            (400, "SessionLimitExceeded", refused, Verdict::NotInThisState, refused),
            (400, "PropertyMissing", refused, refused, refused),
            (400, "ActionParameterNotSupported", refused, refused, refused),
            (401, "", Verdict::NotLoggedIn, Verdict::NotLoggedIn, Verdict::NotLoggedIn),
            (403, "", rights, rights, Verdict::NotLoggedIn),
            (403, "InsufficientPrivilege", rights, rights, rights),
            (404, "", Verdict::NotHere, Verdict::NotHere, Verdict::NotHere),
            (405, "", Verdict::NotHere, Verdict::NotHere, Verdict::NotHere),
            (409, "", refused, Verdict::NotInThisState, refused),
            (412, "", refused, refused, refused),
            (429, "", Verdict::NotNow, Verdict::NotNow, Verdict::NotNow),
            (500, "", refused, perhaps, refused),
            (500, "SYS518", Verdict::NotNow, Verdict::NotNow, Verdict::NotNow),
            (500, "ResourceInStandby", refused, Verdict::NotInThisState, refused),
            (501, "", Verdict::NotHere, Verdict::NotHere, Verdict::NotHere),
            (503, "", Verdict::NotNow, Verdict::NotNow, Verdict::NotNow),
            (504, "", refused, perhaps, refused),
        ] {
            let dell = quirks::of(&Machine { manufacturer: "Dell".into(), ..Machine::default() });
            let fault = Fault { ids: vec![id.to_owned()], ..Fault::default() };
            // A change is judged as a read is, but for the tag and for what may have been done.
            let change = match status {
                412 | 428 => Verdict::OtherTag,
                500.. if read == refused => perhaps,
                _ => read,
            };
            for (exchange, expected) in [(Read, read), (Order, order), (LogIn, log_in), (Change, change)] {
                assert_eq!(verdict(exchange, status, &fault, &dell), expected, "{status} {id} {exchange:?}");
            }
        }
    }

    #[test]
    fn where_a_password_is_to_be_changed() {
        let body = r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"Base.1.8.Other","MessageArgs":["/x"]},
            {"MessageId":"Base.1.8.PasswordChangeRequired","Message":"Change it.","MessageArgs":["/redfish/v1/AccountService/Accounts/3"]}]}}"#;
        let fault = Fault::read(body.as_bytes());
        assert_eq!(fault.change_first.as_deref(), Some("/redfish/v1/AccountService/Accounts/3"));
        assert!(fault.is_about_rights());
        let without = r#"{"error":{"@Message.ExtendedInfo":[{"MessageId":"Base.1.8.PasswordChangeRequired"}]}}"#;
        assert_eq!(Fault::read(without.as_bytes()).change_first, None);
    }

    #[test]
    fn waits_are_bounded() {
        let date = Some("Sat, 21 Nov 2026 10:00:00 GMT");
        for (value, date, expected) in [
            ("3", None, Some(3)),
            ("0", None, Some(0)),
            ("99999", None, Some(30)),
            ("Sat, 21 Nov 2026 10:00:07 GMT", date, Some(7)),
            ("Sat, 21 Nov 2026 09:00:00 GMT", date, Some(0)),
            ("Sat, 21 Nov 2026 10:00:07 GMT", None, None),
            ("-1", None, None),
            ("soon", date, None),
        ] {
            assert_eq!(retry_after(value, date), expected.map(Duration::from_secs), "{value}");
        }
    }
}
