//! What `ipmitool` says, exactly: its output, its exit code, the reasons on its standard error (it runs with one `-v`).
//!
//! Anything but the very words for On and Off is an error, never Off. The failures are those of [`crate::ipmi`], so that a BMC
//! is described alike whoever talks to it.

use picket_common::facts::{Capability, Facts};

use super::settings::{Interface, Settings};
use crate::bmc::{Answer, Ask, ErrorClass, PowerReply, Reading};
use crate::driver::failure::Failure;
use crate::driver::process::{Ended, Exit};
use crate::ipmi;
use crate::ipmi::login::Stage;
use crate::ipmi::suite::Suite;
use crate::ipmi::unusable::Unusable;

const ON: &str = "Chassis Power is on";
const OFF: &str = "Chassis Power is off";

/// How a login step's silence is told; after four of them `ipmitool` goes on as if it were logged in.
const NO_RAKP_ANSWER: &str = "no response from RAKP";
const LOGIN_TRIES: usize = 4;

/// RMCP+ status codes (IPMI 2.0 table 13-15) in the words of `ipmitool`.
const STATUSES: [(&str, u8); 16] = [
    ("insufficient resources for session", 0x01),
    ("invalid session ID", 0x02),
    ("invalid payload type", 0x03),
    ("invalid authentication algorithm", 0x04),
    ("invalid integrity algorithm", 0x05),
    ("no matching authentication payload", 0x06),
    ("no matching integrity payload", 0x07),
    ("inactive session ID", 0x08),
    ("invalid role", 0x09),
    ("unauthorized role requested", 0x0A),
    ("insufficient resources for role", 0x0B),
    ("invalid name length", 0x0C),
    ("unauthorized name", 0x0D),
    ("unauthorized GUID", 0x0E),
    ("invalid integrity check value", 0x0F),
    ("no matching cipher suite", 0x11),
];

/// Completion codes (IPMI 2.0 table 5-2) in the words of `ipmitool`.
const CODES: [(&str, u8); 24] = [
    ("Node busy", 0xC0),
    ("Invalid command", 0xC1),
    ("Invalid command on LUN", 0xC2),
    ("Timeout", 0xC3),
    ("Out of space", 0xC4),
    ("Reservation cancelled or invalid", 0xC5),
    ("Request data truncated", 0xC6),
    ("Request data length invalid", 0xC7),
    ("Request data field length limit exceeded", 0xC8),
    ("Parameter out of range", 0xC9),
    ("Cannot return number of requested data bytes", 0xCA),
    ("Requested sensor, data, or record not found", 0xCB),
    ("Invalid data field in request", 0xCC),
    ("Command illegal for specified sensor or record type", 0xCD),
    ("Command response could not be provided", 0xCE),
    ("Cannot execute duplicated request", 0xCF),
    ("SDR Repository in update mode", 0xD0),
    ("Device firmeware in update mode", 0xD1),
    ("BMC initialization in progress", 0xD2),
    ("Destination unavailable", 0xD3),
    ("Insufficient privilege level", 0xD4),
    ("Command not supported in present state", 0xD5),
    ("Cannot execute command, command disabled", 0xD6),
    ("Unspecified error", 0xFF),
];

/// The lines that tell the BMC's own answer to a command, rather than to one of those `ipmitool` sends by itself.
const ANSWERS: [&str; 6] = [
    "Get Chassis Power Status failed: ",
    "Set Chassis Power Control to ",
    "Set Chassis Identify failed: ",
    "Set Chassis Boot Parameter ",
    "Chassis Identify failed: ",
    "IPMI command failed: ",
];

/// What was done.
pub(super) struct Asked<'a> {
    pub ask: Ask,
    pub interface: Interface,
    pub suite: Option<Suite>,
    pub key_set: bool,
    /// Struck out of whatever is quoted.
    pub secrets: &'a [&'a str],
}

/// The answer in what `ipmitool` said.
pub(super) fn judge(asked: &Asked<'_>, ended: &Ended) -> Result<Answer, Failure> {
    if ended.err.matches(NO_RAKP_ANSWER).count() >= LOGIN_TRIES {
        return Err(of_protocol(&ipmi::Failure::Silent { stage: silent_stage(&ended.err), sent: false }));
    }
    if ended.exit != Exit::Code(0) {
        return refused(asked, ended);
    }
    match asked.ask {
        Ask::Status => reading(&ended.out).map(Answer::Reading).ok_or_else(|| other_output(asked, ended)),
        Ask::TryLogin => reading(&ended.out).map(|_| Answer::Done).ok_or_else(|| other_output(asked, ended)),
        Ask::On | Ask::Off | Ask::Soft | Ask::Reset | Ask::Diag => Ok(Answer::Power(PowerReply::Accepted)),
        Ask::Identify { .. } | Ask::Bootdev { .. } | Ask::SetPassword | Ask::Inspect => Ok(Answer::Done),
    }
}

/// On or Off, if that is all that was said.
fn reading(out: &str) -> Option<Reading> {
    match out.trim() {
        ON => Some(Reading::On),
        OFF => Some(Reading::Off),
        _ => None,
    }
}

fn other_output(asked: &Asked<'_>, ended: &Ended) -> Failure {
    Failure::protocol("other-output", format!("ipmitool said neither on nor off: {}", ended.words(asked.secrets)))
}

/// An unsuccessful end: what the BMC refused, or why it could not be asked.
fn refused(asked: &Asked<'_>, ended: &Ended) -> Result<Answer, Failure> {
    let err = &ended.err;
    if err.contains("Unable to establish") || err.contains("Could not open") {
        return Err(no_session(asked, ended));
    }
    if let Some(code) = completion_code(err) {
        let is_power = matches!(asked.ask, Ask::On | Ask::Off | Ask::Soft | Ask::Reset | Ask::Diag);
        if code == 0xD5 && is_power {
            return Ok(Answer::Power(PowerReply::NotInThisState));
        }
        return Err(of_command(&unusable(asked.ask, code)));
    }
    let sent = !matches!(asked.ask, Ask::Status | Ask::Inspect | Ask::TryLogin);
    if err.contains("Unable to set") || err.contains("Unable to get") || err.contains("command failed") {
        return Err(of_protocol(&ipmi::Failure::Silent { stage: Stage::Session, sent }));
    }
    let how = match ended.exit {
        Exit::Code(code) => format!("exit-{code}"),
        Exit::Signal(signal) => format!("signal-{signal}"),
    };
    let text = format!("ipmitool failed ({how}): {}", ended.words(asked.secrets));
    Err(Failure { maybe_sent: sent, ..Failure::protocol(how, text) })
}

/// Why there was no session; the request was never sent.
fn no_session(asked: &Asked<'_>, ended: &Ended) -> Failure {
    let err = &ended.err;
    let has = |words: &str| err.contains(words);
    let proposed = asked.suite.unwrap_or(Suite::Three);
    let status = |after: &str| said_after(err, after).and_then(|words| number(&STATUSES, words));
    let silent = |stage| of_protocol(&ipmi::Failure::Silent { stage, sent: false });
    if has("RAKP 2 HMAC is invalid") && has(NO_RAKP_ANSWER) {
        // The answer to an earlier try, checked against the values of a later one: it says nothing about the password.
        return Failure::protocol("slow-login", "the BMC's answers come too late for ipmitool to log in");
    }
    if has("RAKP 2 HMAC is invalid") {
        return of_protocol(&ipmi::Failure::WrongPassword);
    }
    if has("RAKP 4 message has invalid integrity check value") {
        return of_protocol(&ipmi::Failure::WrongBmcKey { key_set: asked.key_set });
    }
    for (after, stage) in [
        ("Error in open session response message : ", Stage::Open),
        ("RAKP 2 message indicates an error : ", Stage::Rakp1),
        ("RAKP 4 message indicates an error : ", Stage::Rakp3),
    ] {
        if let Some(status) = status(after) {
            return of_protocol(&of_status(stage, status, proposed));
        }
    }
    if has("is not what we requested") {
        return of_protocol(&ipmi::Failure::OtherSuite { suite: proposed, algorithms: [0; 3] });
    }
    if has("does not support IPMI v2") || has("Authentication type NONE not supported") {
        return no_such_version(asked.interface);
    }
    if let Some(words) = said_after(err, "Set Session Privilege Level to ") {
        let code = words.rsplit(": ").next().and_then(|words| number(&CODES, words));
        return code.map_or_else(|| silent(Stage::Session), |code| of_protocol(&ipmi::Failure::Privilege { code }));
    }
    if has("Requested privilege level exceeds limit") {
        return of_protocol(&ipmi::Failure::Privilege { code: 0x86 });
    }
    if has("Invalid user name") || has("NULL user name not enabled") {
        return Failure::new(ErrorClass::Auth, "user-name", "login refused: the BMC does not know this user");
    }
    if has("No session slot available") {
        return of_protocol(&ipmi::Failure::SessionsUsedUp { status: 0x81 });
    }
    if has("Activate Session command failed") || has("Activate Session error") {
        let text = "login refused: the BMC gave a challenge and then no session, as BMCs do when the password is wrong";
        return Failure::new(ErrorClass::Auth, "activate-session", text);
    }
    if has("Could not open device") {
        let text = "there is no /dev/ipmi0; is the kernel module ipmi_devintf loaded?";
        return Failure::connection("no-device", text);
    }
    if has("Get Auth Capabilities") {
        return silent(Stage::Capabilities);
    }
    if has(NO_RAKP_ANSWER) {
        return silent(silent_stage(err));
    }
    Failure::connection("no-session", format!("ipmitool could not log in: {}", ended.words(asked.secrets)))
}

fn silent_stage(err: &str) -> Stage {
    if err.contains("no response from RAKP 3") { Stage::Rakp3 } else { Stage::Rakp1 }
}

fn of_status(stage: Stage, status: u8, suite: Suite) -> ipmi::Failure {
    match (stage, status) {
        (Stage::Open, 0x04 | 0x05 | 0x06 | 0x07 | 0x10..=0x12) | (_, 0x04 | 0x05 | 0x10..=0x12) => {
            ipmi::Failure::NoSuite { suite, status }
        }
        (_, 0x01 | 0x0B) => ipmi::Failure::SessionsUsedUp { status },
        (_, 0x09 | 0x0A) => ipmi::Failure::Privilege { code: status },
        (_, 0x0C..=0x0F) => ipmi::Failure::LoginRefused { stage, status },
        _ => ipmi::Failure::Unexpected { stage, status },
    }
}

fn no_such_version(interface: Interface) -> Failure {
    let text = match interface {
        Interface::Lan => "the BMC offers no IPMI 1.5 session; use interface=lanplus",
        Interface::Lanplus | Interface::Open => "the BMC offers no IPMI 2.0 session; interface=lan speaks IPMI 1.5",
    };
    Failure::setting("no-such-version", text)
}

/// As the native driver judges the same code.
const fn unusable(ask: Ask, code: u8) -> Unusable {
    match (ask, code) {
        (Ask::Diag, 0xC1 | 0xCC) | (Ask::Identify { .. } | Ask::Bootdev { .. }, 0xC1) => Unusable::Unsupported { ask, code },
        _ => Unusable::Code { ask, code },
    }
}

pub(super) fn of_command(unusable: &Unusable) -> Failure {
    Failure { maybe_sent: unusable.maybe_sent(), ..Failure::new(unusable.class(), unusable.code(), unusable.to_string()) }
}

pub(super) fn of_protocol(failure: &ipmi::Failure) -> Failure {
    let known = Failure::new(failure.class(), failure.code(), failure.to_string());
    Failure { maybe_sent: failure.maybe_sent(), ..known }
}

/// Whether the BMC answered everything but the login itself.
pub(super) fn is_refusal_by_silence(failure: &Failure) -> bool {
    failure.code == "rakp1-silent"
}

/// Whether another suite may do what this one could not.
pub(super) fn is_suite_refusal(failure: &Failure) -> bool {
    matches!(failure.code.as_str(), "no-common-suite" | "other-suite" | "sessions-used-up")
}

fn completion_code(err: &str) -> Option<u8> {
    let answer = err.lines().find(|line| ANSWERS.iter().any(|start| line.contains(start)))?;
    let words = answer.rsplit("failed: ").next()?;
    number(&CODES, words).or_else(|| {
        let digits = words.trim().strip_prefix("Unknown (0x")?.strip_suffix(')')?;
        u8::from_str_radix(digits, 16).ok()
    })
}

fn said_after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.split_once(start)).map(|(_, words)| words.trim())
}

fn number(table: &[(&str, u8)], words: &str) -> Option<u8> {
    table.iter().find(|(known, _)| *known == words.trim()).map(|(_, number)| *number)
}

/// What one session's inspection says of the BMC. Its power has to be among it, once; anything else may be missing.
pub(super) fn facts(settings: &Settings<'_>, suite: Option<Suite>, version: &str, ended: &Ended) -> Option<(Facts, Reading)> {
    let mut readings = ended.out.lines().filter_map(reading);
    let (Some(power), None) = (readings.next(), readings.next()) else { return None };
    let field = |name: &str| {
        let rows = ended.out.lines().filter_map(|line| line.split_once(':'));
        let mut values = rows.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
        values.next().filter(|value| !value.is_empty() && !value.starts_with("Unknown")).map(str::to_owned)
    };
    let mut warnings = Vec::new();
    if suite == Some(Suite::Three) {
        warnings.push("cipher-suite-3".to_owned());
    }
    if settings.interface == Interface::Lan {
        warnings.push("ipmi-1.5".to_owned());
    }
    if field("Power Restore Policy").as_deref() == Some("always-on") {
        warnings.push("power-restore-always-on".to_owned());
    }
    let suite = suite.map_or_else(String::new, |suite| format!(", cipher suite {}", suite.number()));
    let facts = Facts {
        identity: guid(&ended.out).and_then(ipmi::guid::text),
        manufacturer: field("Manufacturer Name").or_else(|| field("Manufacturer ID")),
        product: field("Product Name").or_else(|| field("Product ID")),
        firmware: field("Firmware Revision"),
        protocol: Some(format!("ipmitool {version} {}{suite}", settings.interface.word())),
        privilege: Some(settings.privilege.to_ascii_lowercase()),
        capabilities: capabilities(settings.interface),
        warnings,
        ..Facts::default()
    };
    Some((facts, power))
}

/// The answer to Get System GUID, as `ipmitool raw` writes it: sixteen bytes on a line of their own.
fn guid(out: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    out.lines().find_map(|line| hex::decode_to_slice(line.split_whitespace().collect::<String>(), &mut bytes).ok())?;
    Some(bytes)
}

fn capabilities(interface: Interface) -> Vec<Capability> {
    use Capability::{Bootdev, ChangePassword, Diag, Identify, Power, Reset, Soft};
    let mut all = vec![Power, Soft, Reset, Diag, Identify, Bootdev];
    if interface != Interface::Open {
        all.push(ChangePassword);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, out: &str, err: &str) -> Ended {
        Ended { exit: Exit::Code(code), out: out.into(), err: format!("Loading IANA PEN Registry...\n{err}\n") }
    }

    fn judged(ask: Ask, ended: &Ended) -> Result<Answer, (ErrorClass, String, bool)> {
        let asked =
            Asked { ask, interface: Interface::Lanplus, suite: Some(Suite::Seventeen), key_set: false, secrets: &["hunter2"] };
        judge(&asked, ended).map_err(|failure| (failure.class, failure.code, failure.maybe_sent))
    }

    #[test]
    fn only_the_exact_words_are_a_reading() {
        for (out, wanted) in [("Chassis Power is on\n", Reading::On), (" Chassis Power is off \n\n", Reading::Off)] {
            assert_eq!(judged(Ask::Status, &ended(0, out, "")), Ok(Answer::Reading(wanted)));
        }
        for out in [
            "",
            "\n",
            "Chassis Power is offf",
            "chassis power is off",
            "Chassis Power is Off",
            "Chassis Power is off\nChassis Power is on",
            "Chassis Power is unknown",
            "xChassis Power is off",
            "off",
        ] {
            let got = judged(Ask::Status, &ended(0, out, ""));
            assert_eq!(got, Err((ErrorClass::Protocol, "other-output".into(), false)), "{out:?}");
        }
        assert!(judged(Ask::Status, &ended(1, "Chassis Power is off", "")).is_err(), "not with a bad exit code");
        let unauthenticated = "> Error: no response from RAKP 1 message\n".repeat(4);
        let got = judged(Ask::Status, &ended(0, "Chassis Power is off", &unauthenticated));
        assert_eq!(got, Err((ErrorClass::Connection, "rakp1-silent".into(), false)), "ipmitool asked without a session");
    }

    #[test]
    fn orders() {
        let accepted = ended(0, "Chassis Power Control: Down/Off", "");
        assert_eq!(judged(Ask::Off, &accepted), Ok(Answer::Power(PowerReply::Accepted)));
        let already = ended(1, "", "Set Chassis Power Control to Down/Off failed: Command not supported in present state");
        assert_eq!(judged(Ask::Off, &already), Ok(Answer::Power(PowerReply::NotInThisState)));
        assert_eq!(judged(Ask::Identify { seconds: 5 }, &accepted), Ok(Answer::Done));
    }

    /// As 1.8.19 says it, at our simulator and at OpenIPMI's.
    #[test]
    fn reasons_have_their_class() {
        use ErrorClass::{Auth, Connection, Deadline, Protocol, Refused, Setting};
        let no = "Error: Unable to establish IPMI v2 / RMCP+ session";
        let lan = "Error: Unable to establish LAN session\nError: Unable to establish IPMI v1.5 / RMCP session";
        let table = [
            (Ask::Status, format!("> RAKP 2 HMAC is invalid\n{no}"), (Auth, "rakp2-hmac", false)),
            (Ask::Reset, format!("> RAKP 2 HMAC is invalid\n{no}"), (Auth, "rakp2-hmac", false)),
            (Ask::Status, format!("> Error: no response from RAKP 1 message\n> RAKP 2 HMAC is invalid\n{no}"), (Protocol, "slow-login", false)),
            (Ask::Status, format!("RAKP 2 message indicates an error : unauthorized name\n{no}"), (Auth, "rakp-0x0d", false)),
            (Ask::Status, format!("RAKP 2 message indicates an error : unauthorized role requested\n{no}"), (Setting, "privilege-0x0a", false)),
            (Ask::Status, format!("RAKP 4 message indicates an error : invalid integrity check value\n{no}"), (Auth, "rakp-0x0f", false)),
            (Ask::Status, format!("RAKP 4 message indicates an error : invalid session ID\n{no}"), (Protocol, "status-0x02", false)),
            (Ask::Status, format!("> RAKP 4 message has invalid integrity check value\n{no}"), (Auth, "rakp4-hmac", false)),
            (Ask::Status, format!("Error in open session response message : no matching cipher suite\n\n{no}"), (Setting, "no-common-suite", false)),
            (Ask::Status, format!("Error in open session response message : invalid authentication algorithm\n\n{no}"), (Setting, "no-common-suite", false)),
            (Ask::Off, format!("Error in open session response message : insufficient resources for session\n\n{no}"), (Refused, "sessions-used-up", false)),
            (Ask::Status, format!("Authentication algorithm 0x01 is not what we requested 0x03\n\n{no}"), (Setting, "other-suite", false)),
            (Ask::Status, format!("Set Session Privilege Level to OPERATOR failed: Insufficient privilege level\n{no}"), (Setting, "privilege-0xd4", false)),
            (Ask::Status, format!("Set Session Privilege Level to OPERATOR failed\n{no}"), (Connection, "timeout", false)),
            (Ask::Off, format!("Get Auth Capabilities error\nError issuing Get Channel Authentication Capabilities request\n{no}"), (Connection, "timeout", false)),
            (Ask::Status, format!("This BMC does not support IPMI v2 / RMCP+\n{no}"), (Setting, "no-such-version", false)),
            (Ask::Status, format!("Authentication type NONE not supported\n{lan}"), (Setting, "no-such-version", false)),
            (Ask::Status, format!("Activate Session command failed\n{lan}"), (Auth, "activate-session", false)),
            (Ask::Status, format!("Invalid user name\n{lan}"), (Auth, "user-name", false)),
            (Ask::Status, format!("Activate Session error:\tRequested privilege level exceeds limit\n{lan}"), (Setting, "privilege-0x86", false)),
            (Ask::Status, format!("Get Auth Capabilities command failed\n{lan}"), (Connection, "timeout", false)),
            (Ask::Status, "Could not open device at /dev/ipmi0 or /dev/ipmi/0: No such file or directory".into(), (Connection, "no-device", false)),
            (Ask::Status, "Get Chassis Power Status failed: Unspecified error".into(), (Refused, "0xff", false)),
            (Ask::Status, "Get Chassis Power Status failed: Node busy".into(), (Refused, "0xc0", false)),
            (Ask::On, "Set Chassis Power Control to Up/On failed: Insufficient privilege level".into(), (Setting, "0xd4", false)),
            (Ask::On, "Set Chassis Power Control to Up/On failed: Timeout".into(), (Deadline, "0xc3", true)),
            (Ask::Reset, "Get HPM.x Capabilities request failed, compcode = d4\nSet Chassis Power Control to Reset failed: Invalid data field in request".into(), (Refused, "0xcc", false)),
            (Ask::Diag, "Set Chassis Power Control to Pulse Diag failed: Invalid data field in request".into(), (Refused, "not-supported", false)),
            (Ask::Identify { seconds: 1 }, "Set Chassis Identify failed: Invalid command".into(), (Refused, "not-supported", false)),
            (Ask::SetPassword, "Password for user 2: Password for user 2: IPMI command failed: Request data length invalid\nSet User Password command failed (user 2)".into(), (Refused, "0xc7", false)),
            (Ask::Reset, "Unable to set Chassis Power Control to Reset".into(), (Connection, "timeout", true)),
            (Ask::Reset, "Segmentation fault".into(), (Protocol, "exit-1", true)),
            (Ask::Status, "Segmentation fault".into(), (Protocol, "exit-1", false)),
        ];
        for (ask, err, (class, code, maybe_sent)) in table {
            assert_eq!(judged(ask, &ended(1, "", &err)), Err((class, code.to_owned(), maybe_sent)), "{ask:?} {err}");
        }
    }

    /// As 1.8.19 says it, at OpenIPMI's simulator.
    #[test]
    fn a_guid_is_taken_as_it_was_sent() {
        let around =
            |line: &str| format!("Chassis Power is on\nManufacturer ID           : 4753\n    0x00\n{line}System Power : on\n");
        let sent = guid(&around(" a1 23 45 67 89 ab cd ef a1 23 45 67 89 ab cd ef\n"));
        assert_eq!(sent, Some(0xa123_4567_89ab_cdef_a123_4567_89ab_cdef_u128.to_be_bytes()));
        for line in ["", " a1 23 45\n", "System GUID   : efcdab89-6745-23a1-efcd-ab89674523a1\n"] {
            assert_eq!(guid(&around(line)), None, "{line}");
        }
    }

    #[test]
    fn nothing_of_a_secret_is_quoted() {
        let asked = Asked { ask: Ask::Off, interface: Interface::Lanplus, suite: None, key_set: false, secrets: &["hunter2"] };
        let failure = judge(&asked, &ended(1, "", "bad argument -P hunter2")).unwrap_err();
        assert!(failure.text.contains("bad argument -P (secret)"), "{}", failure.text);
    }
}
