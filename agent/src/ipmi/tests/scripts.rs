//! Whole scripts over a session: which sessions they use, what they leave behind, and what a lost answer means.

use picket_common::command::{BootDevice, Persistence};
use picket_common::facts::Capability;

use super::super::command::GetSystemGuid;
use super::super::login::Stage;
use super::super::request::{Request, Resend};
use super::*;
use crate::bmc::ErrorClass;

const PXE: Ask = Ask::Bootdev { device: BootDevice::Pxe, persistence: Persistence::Once };

impl Pair {
    /// How often a command was executed.
    fn executed(&self, netfn: u8, command: u8) -> usize {
        self.bmc.executed.iter().filter(|(n, c, _)| (*n, *c) == (netfn, command)).count()
    }
}

#[test]
fn identify_boot_device_and_diag_use_the_kept_session() {
    let mut pair = Pair::up();
    assert_eq!(pair.play(Ask::Identify { seconds: 30 }, None, 5 * SECOND), Ok(Answer::Done));
    assert_eq!(pair.bmc.identify, [30, 0]);
    pair.bmc.faults.codes = [0xC7].into();
    assert_eq!(pair.play(Ask::Identify { seconds: 300 }, None, 5 * SECOND), Ok(Answer::Done));
    assert_eq!(pair.bmc.identify, [255], "an old BMC knows the first byte alone");
    pair.bmc.faults.codes = [0xC1].into();
    let unknown = pair.play(Ask::Identify { seconds: 0 }, None, 5 * SECOND).unwrap_err();
    assert!(matches!(&unknown, Broken::Unusable(no) if no.code() == crate::bmc::NOT_SUPPORTED), "{unknown:?}");
    assert_eq!(pair.play(PXE, None, 5 * SECOND), Ok(Answer::Done));
    assert_eq!(pair.bmc.boot[&5][..2], [0xA0, 1 << 2]);
    assert_eq!(pair.bmc.boot[&0], [0], "set complete");
    assert_eq!(pair.play(Ask::Diag, None, 5 * SECOND), Ok(Answer::Power(PowerReply::Accepted)));
    assert_eq!(pair.bmc.controls(4), 1);
    assert_eq!(pair.sent_of(OPEN).len(), 1);
}

#[test]
fn a_diagnostic_interrupt_goes_out_once() {
    let mut pair = Pair::up();
    pair.bmc.faults.unanswered = vec![(0, 2)];
    let broken = pair.play(Ask::Diag, None, 20 * SECOND).unwrap_err();
    assert_eq!(broken, Broken::Failure(Failure::Silent { stage: Stage::Session, sent: true }, true));
    assert_eq!(pair.bmc.controls(4), 1);
}

#[test]
fn inspection_logs_in_anew_and_the_session_is_kept() {
    let mut pair = Pair::new("admin", "secret", &[]);
    assert_eq!(pair.status(), Ok(Reading::On));
    let result = pair.play(Ask::Inspect, None, 10 * SECOND);
    let Ok(Answer::Facts(facts, Reading::On)) = result else { panic!("{result:?}") };
    assert_eq!(pair.sent_of(OPEN).len(), 2, "a session of its own");
    assert_eq!(pair.bmc.sessions.len(), 1, "and the one before was closed");
    assert_eq!(facts.protocol.as_deref(), Some("IPMI 2.0, cipher suite 17"));
    assert_eq!((facts.privilege.as_deref(), facts.manufacturer.as_deref()), (Some("operator"), Some("Dell")));
    assert_eq!((facts.firmware.as_deref(), facts.product.as_deref()), (Some("2.34"), Some("0x0100")));
    assert!(facts.identity.is_some() && facts.latency_us.is_some_and(|latency| latency >= 2000));
    assert!(facts.capabilities.contains(&Capability::ChangePassword) && facts.capabilities.contains(&Capability::Bootdev));
    assert_eq!(pair.status(), Ok(Reading::On));
    assert_eq!(pair.sent_of(OPEN).len(), 2, "polls go on in it");
    let mut operator = Pair::operator();
    let Ok(Answer::Facts(facts, _)) = operator.play(Ask::Inspect, None, 10 * SECOND) else { panic!() };
    assert!(!facts.capabilities.contains(&Capability::ChangePassword), "an operator may not");
    // What is detected is told.
    let mut faulty = Pair::operator();
    faulty.bmc.faults.open_session_privilege = true;
    let Ok(Answer::Facts(facts, _)) = faulty.play(Ask::Inspect, None, 10 * SECOND) else { panic!() };
    assert_eq!(facts.quirks, ["opensesspriv"]);
    let mut strict = Pair::new("operator", "oper", &[("quirks", "no-opensesspriv")]);
    strict.bmc.faults.open_session_privilege = true;
    assert_eq!(strict.status(), Err(Failure::WrongPassword), "the option has the last word");
}

#[test]
fn inspection_survives_a_bmc_that_is_silent_to_what_it_does_not_know() {
    let mut pair = Pair::operator();
    pair.bmc.faults.unanswered = vec![(6, 0x37), (6, 0x44)];
    let result = pair.play(Ask::Inspect, None, 10 * SECOND);
    let Ok(Answer::Facts(facts, Reading::On)) = result else { panic!("{result:?}") };
    assert_eq!((facts.identity.as_deref(), facts.manufacturer.as_deref()), (None, Some("Dell")));
    // A reader may ask for little; nothing of that makes it log in at other levels.
    let mut reader = Pair::new("reader", "read", &[("privilege", "user")]);
    let Ok(Answer::Facts(facts, _)) = reader.play(Ask::Inspect, None, 10 * SECOND) else { panic!() };
    assert_eq!(facts.privilege.as_deref(), Some("user"));
    assert_eq!(reader.sent_of(OPEN).len(), 1);
}

#[test]
fn a_login_is_proven_by_a_login() {
    let mut pair = Pair::up();
    pair.bmc.users.insert("operator".into(), ("changed".into(), 3));
    assert_eq!(pair.status(), Ok(Reading::On), "the kept session knows nothing of the change");
    let refused = pair.play(Ask::TryLogin, None, 5 * SECOND).unwrap_err();
    assert_eq!(refused, Broken::Failure(Failure::WrongPassword, false));
    assert_eq!(pair.bmc.sessions.len(), 1, "the kept session was closed; one is half open at most");
    pair.bmc.users.insert("operator".into(), ("oper".into(), 3));
    assert_eq!(pair.play(Ask::TryLogin, None, 5 * SECOND), Ok(Answer::Done));
    // The BMC is starting: the login is proven all the same.
    pair.bmc.faults.codes = [0xFF].into();
    assert_eq!(pair.play(Ask::TryLogin, None, 5 * SECOND), Ok(Answer::Done));
    let mut silent = Pair::operator();
    silent.bmc.faults.silent = true;
    let Err(Broken::Failure(failure, false)) = silent.play(Ask::TryLogin, None, 5 * SECOND) else { panic!() };
    assert_eq!(failure.class(), ErrorClass::Connection, "silence proves nothing");
}

#[test]
fn a_password_is_set_at_administrator_in_a_session_of_its_own() {
    let mut pair = Pair::new("admin", "secret", &[]);
    assert_eq!(pair.status(), Ok(Reading::On));
    assert_eq!(pair.play(Ask::SetPassword, Some("brand-new"), 10 * SECOND), Ok(Answer::Done));
    assert_eq!(pair.bmc.users["admin"].0, "brand-new");
    assert_eq!(pair.bmc.users["operator"].0, "oper", "and nobody else's");
    assert_eq!((pair.executed(6, 0x47), pair.bmc.sessions.len()), (1, 0), "once, and its session is closed");
    let levels: Vec<u8> = pair.sent_of(OPEN).iter().map(|(_, _, bytes)| bytes[16 + 1]).collect();
    assert_eq!(levels, [3, 4]);
    assert_eq!(pair.status(), Err(Failure::WrongPassword));
    let mut again = Pair::new("admin", "brand-new", &[]);
    again.bmc = pair.bmc;
    assert_eq!(again.play(Ask::TryLogin, None, 5 * SECOND), Ok(Answer::Done));
    assert_eq!(again.sent_of(OPEN)[0].2[16 + 1], 3, "polls are back at the least privilege");
}

#[test]
fn what_cannot_be_set_is_not_sent() {
    let mut pair = Pair::up();
    let sent = pair.sent.len();
    for (new, code) in [(Some("0123456789abcdefghijk"), "too-long"), (Some(""), "bad-new-password"), (None, "bad-new-password")] {
        let Err(Broken::Setting(error)) = pair.play(Ask::SetPassword, new, 5 * SECOND) else { panic!("{new:?}") };
        assert_eq!(error.code(), code);
    }
    assert_eq!(pair.sent.len(), sent, "not one datagram");
    // An operator may not, and the BMC says so before the password is out.
    let Err(Broken::Failure(failure, false)) = pair.play(Ask::SetPassword, Some("new"), 5 * SECOND) else { panic!() };
    assert_eq!(failure, Failure::Privilege { code: 0x81 });
    assert_eq!(pair.executed(6, 0x47), 0);
    assert_eq!(pair.status(), Ok(Reading::On), "polls go on at their own level");
}

#[test]
fn a_lost_answer_to_a_password_is_not_asked_for_again() {
    let mut pair = Pair::new("admin", "secret", &[]);
    pair.bmc.faults.unanswered = vec![(6, 0x47)];
    let Err(Broken::Failure(failure, maybe_sent)) = pair.play(Ask::SetPassword, Some("brand-new"), 10 * SECOND) else { panic!() };
    assert!(maybe_sent && failure.is_silence(), "{failure}");
    assert_eq!((pair.executed(6, 0x47), pair.bmc.users["admin"].0.as_str()), (1, "brand-new"));
    // Silence before the password is out is a plain failure.
    let mut pair = Pair::new("admin", "secret", &[]);
    pair.bmc.faults.unanswered = vec![(6, 0x44)];
    let Err(Broken::Failure(_, maybe_sent)) = pair.play(Ask::SetPassword, Some("brand-new"), 10 * SECOND) else { panic!() };
    assert!(!maybe_sent);
    assert_eq!(pair.bmc.users["admin"].0, "secret");
}

#[test]
fn a_bmc_that_kept_16_bytes_gets_no_longer_password() {
    let mut pair = Pair::new("long", "0123456789abcdefghij", &[]);
    pair.bmc.users.insert("long".into(), ("0123456789abcdefghij".into(), 4));
    pair.bmc.faults.short_passwords = true;
    let Err(Broken::Unusable(no)) = pair.play(Ask::SetPassword, Some("abcdefghij0123456789"), 5 * SECOND) else { panic!() };
    assert_eq!((no.class(), no.code().as_str()), (ErrorClass::Setting, "too-long"));
    assert_eq!(pair.executed(6, 0x47), 0);
    assert_eq!(pair.play(Ask::SetPassword, Some("abcdefghij012345"), 5 * SECOND), Ok(Answer::Done));
}

#[test]
fn what_a_request_holds_is_never_shown() {
    let request = Request::new(GetSystemGuid.into(), Resend::Freely, SECOND);
    assert_eq!(format!("{request:?}"), "Request { command: (6, 55), resend: Freely, .. }");
}
