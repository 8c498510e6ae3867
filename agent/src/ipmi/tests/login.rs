//! Logins: suites, privileges, refusals, lost and repeated handshake messages.

use super::super::failure::Failure;
use super::super::login::Stage;
use super::super::suite::Suite;
use super::*;
use crate::bmc::ErrorClass;

#[test]
fn both_suites_log_in_and_read() {
    for (suite, expected) in [("auto", Suite::Seventeen), ("17", Suite::Seventeen), ("3", Suite::Three)] {
        let mut pair = Pair::new("operator", "oper", &[("cipher_suite", suite)]);
        assert_eq!(pair.status(), Ok(Reading::On), "{suite}");
        assert_eq!(pair.session.suite(), Some(expected));
        assert_eq!(pair.order(Ask::Off), Ok(PowerReply::Accepted));
        assert_eq!(pair.status(), Ok(Reading::Off));
    }
}

#[test]
fn a_refusal_of_17_at_first_contact_leads_to_3_and_is_remembered() {
    for status in [0x01, 0x04, 0x05, 0x0A, 0x10, 0x11, 0x12] {
        for len in [2, 8] {
            let mut pair = Pair::operator();
            pair.bmc.faults.refuse_suite.insert(17, (status, len));
            assert_eq!(pair.status(), Ok(Reading::On), "{status:#x} in {len} bytes");
            assert_eq!(pair.bmc.proposed, [17, 3]);
            assert_eq!((pair.bmc.bad_logins, pair.bmc.rakp_1), (0, 1), "no login was refused");
            pair.idle(60 * SECOND);
            assert_eq!(pair.status(), Ok(Reading::On));
            assert_eq!(pair.bmc.proposed, [17, 3, 3], "17 is not proposed again");
        }
    }
}

#[test]
fn no_free_session_on_a_known_good_bmc_is_no_refused_suite() {
    let mut pair = Pair::up();
    pair.idle(60 * SECOND);
    pair.bmc.faults.refuse_suite.insert(17, (0x01, 8));
    let failure = pair.status().unwrap_err();
    assert_eq!(failure, Failure::SessionsUsedUp { status: 0x01 });
    assert_eq!(failure.class(), ErrorClass::Refused);
    assert_eq!(pair.bmc.proposed, [17, 17]);
    pair.bmc.faults.refuse_suite.clear();
    assert_eq!(pair.status(), Ok(Reading::On));
    assert_eq!(pair.bmc.proposed, [17, 17, 17], "what worked stays remembered");
}

#[test]
fn a_bmc_full_at_first_contact_is_full_and_not_without_suites() {
    let mut pair = Pair::operator();
    pair.bmc.faults.refuse_suite.extend([(17, (0x01, 8)), (3, (0x01, 8))]);
    assert_eq!(pair.status(), Err(Failure::SessionsUsedUp { status: 0x01 }));
}

#[test]
fn a_bmc_without_a_common_suite_is_a_setting() {
    let mut pair = Pair::new("operator", "oper", &[("cipher_suite", "17")]);
    pair.bmc.faults.refuse_suite.insert(17, (0x11, 2));
    let failure = pair.status().unwrap_err();
    assert_eq!(failure, Failure::NoSuite { suite: Suite::Seventeen, status: 0x11 });
    assert_eq!(failure.class(), ErrorClass::Setting);
    assert_eq!(pair.bmc.proposed, [17], "3 was not asked for");
}

#[test]
fn an_answer_with_another_suite_is_refused_and_3_proposed_explicitly() {
    let mut pair = Pair::operator();
    pair.bmc.faults.answer_suite = Some(3);
    pair.bmc.faults.by_port = true;
    assert_eq!(pair.status(), Ok(Reading::On));
    assert_eq!(pair.bmc.proposed, [17, 3]);
    assert_eq!(pair.session.suite(), Some(Suite::Three));

    let mut pair = Pair::operator();
    pair.bmc.faults.answer_suite = Some(0);
    let failure = pair.status().unwrap_err();
    assert_eq!(failure, Failure::OtherSuite { suite: Suite::Three, algorithms: [0, 0, 0] });
    assert_eq!(failure.class(), ErrorClass::Setting);
    assert_eq!(pair.bmc.rakp_1, 0, "not one step further");
}

#[test]
fn refused_logins_are_told_from_silence() {
    let auth = |failure: Failure| {
        assert_eq!(failure.class(), ErrorClass::Auth, "{failure}");
        assert!(!failure.maybe_sent());
    };
    let mut wrong = Pair::new("operator", "wrong", &[]);
    assert_eq!(wrong.status(), Err(Failure::WrongPassword));
    assert_eq!((wrong.bmc.rakp_1, wrong.sent_of(RAKP_3).len()), (1, 0), "one login, and nothing proven to a stranger");
    auth(Failure::WrongPassword);

    let mut unknown = Pair::new("nobody", "oper", &[]);
    let failure = unknown.status().unwrap_err();
    assert_eq!(failure, Failure::LoginRefused { stage: Stage::Rakp1, status: 0x0D });
    auth(failure);

    let mut zero = Pair::operator();
    zero.bmc.faults.zero_rakp_2 = true;
    assert_eq!(zero.status(), Err(Failure::ZeroCode));
    auth(Failure::ZeroCode);

    let mut refused = Pair::operator();
    refused.bmc.faults.rakp_4_status = Some(0x0F);
    let failure = refused.status().unwrap_err();
    assert_eq!(failure, Failure::LoginRefused { stage: Stage::Rakp3, status: 0x0F });
    auth(failure);

    let mut keyed = Pair::operator();
    keyed.bmc.kg = Some(b"rack".to_vec());
    let failure = keyed.status().unwrap_err();
    assert_eq!(failure, Failure::WrongBmcKey { key_set: false });
    assert!(failure.to_string().contains("set option `kg`"));
    auth(failure);
    let mut keyed = Pair::new("operator", "oper", &[("kg", "rack")]);
    keyed.bmc.kg = Some(b"rack".to_vec());
    assert_eq!(keyed.status(), Ok(Reading::On));

    let mut silent = Pair::operator();
    silent.bmc.faults.silent_rakp_1 = true;
    let failure = silent.ask(Ask::Status, 20 * SECOND).unwrap_err();
    assert_eq!(failure, Failure::Unanswered);
    assert_eq!((failure.class(), failure.code().as_str()), (ErrorClass::Connection, "rakp1-silent"));
    assert!(failure.to_string().contains("unknown user?"));
}

/// Whatever a BMC makes of a user it does not know, it counts two refused logins in fifteen minutes at most.
#[test]
fn no_more_than_two_refused_logins_in_fifteen_minutes_whatever_is_asked() {
    for (silent, forgets, mute) in
        [(false, false, false), (true, false, false), (true, true, false), (true, false, true), (true, true, true)]
    {
        // Where nothing else is answered it takes three copies of RAKP 1 to tell a refusal, and these take time.
        for timeout in [2 * SECOND, 5 * SECOND, 10 * SECOND].into_iter().filter(|timeout| !mute || *timeout > 2 * SECOND) {
            let mut pair = Pair::new("nobody", "oper", &[]);
            pair.bmc.faults.silent_capabilities = mute;
            pair.bmc.faults.silent_to_strangers = silent;
            pair.bmc.faults.forgets_strangers = forgets;
            let begin = pair.now;
            let mut classes = Vec::new();
            while pair.now < begin + 14 * 60 * SECOND {
                classes.push(pair.ask(Ask::Status, timeout).unwrap_err().class());
                pair.idle(5 * SECOND);
            }
            // A copy of the one RAKP 1 is no other login.
            let sent = pair.sent_of(RAKP_1);
            let logins: std::collections::BTreeSet<&[u8]> = sent.iter().map(|(_, _, bytes)| &bytes[16 + 8..16 + 24]).collect();
            assert_eq!(logins.len(), 2, "silent {silent}, forgets {forgets}, mute {mute}, {timeout:?}");
            assert_eq!(classes.last(), Some(&ErrorClass::Auth), "the rack is told, so that it pauses over a restart too");
            pair.idle(2 * 60 * SECOND);
            assert!(pair.ask(Ask::Status, timeout).is_err());
            let before = pair.sent_of(RAKP_1).len();
            assert!(before > 2, "tried again after the pause");
            pair.bmc.users.insert("nobody".into(), ("oper".into(), 3));
            pair.idle(16 * 60 * SECOND);
            assert_eq!(pair.status(), Ok(Reading::On), "and the account was made meanwhile");
        }
    }
}

#[test]
fn a_lossy_network_is_seldom_taken_for_a_refusal() {
    let (mut logins, mut paused) = (0, 0);
    for seed in 0..40 {
        let mut pair = Pair::operator();
        let mut dice = Counter(seed);
        pair.network = Box::new(move |_, _| {
            let mut byte = [0];
            dice.fill(&mut byte);
            if byte[0] < 77 { Fate::Lost } else { Fate::After(MS) }
        });
        for _ in 0..10 {
            logins += 1;
            paused += usize::from(pair.ask(Ask::Status, 5 * SECOND) == Err(Failure::LoginsPaused));
            // The session is lost in between, so that each is a login.
            pair.idle(60 * SECOND);
        }
    }
    assert!(paused * 20 < logins, "{paused} of {logins} with three datagrams of ten lost");
}

#[test]
fn t11_a_silent_bmc_is_a_connection_error_within_the_time_given() {
    for timeout in [200 * MS, SECOND, 5 * SECOND, 60 * SECOND] {
        let mut pair = Pair::operator();
        pair.bmc.faults.silent = true;
        let begin = pair.now;
        let failure = pair.ask(Ask::Off, timeout).unwrap_err();
        assert_eq!((failure.class(), failure.maybe_sent()), (ErrorClass::Connection, false));
        assert!(pair.now - begin <= timeout.min(6 * SECOND));
    }
}

#[test]
fn copies_go_out_after_400_ms_backing_off() {
    let mut pair = Pair::operator();
    pair.bmc.faults.silent = true;
    let begin = pair.now;
    pair.status().unwrap_err();
    let times: Vec<u128> = pair.sent.iter().map(|(at, ..)| (*at - begin).as_millis()).collect();
    assert_eq!(times, [0, 400, 1200, 1600, 2400, 4000], "twice the capabilities, then open session");
}

#[test]
fn a_login_survives_lost_and_repeated_messages_without_counting_twice() {
    for lost in 0..8 {
        for way in [Way::ToBmc, Way::ToConsole] {
            let mut pair = Pair::operator();
            let mut count = 0;
            pair.network = Box::new(move |this, _| {
                count += usize::from(this == way);
                if this == way && count == lost + 1 { Fate::Lost } else { Fate::After(MS) }
            });
            assert_eq!(pair.status(), Ok(Reading::On), "number {lost} {way:?} lost");
            assert_eq!(pair.bmc.bad_logins, 0);
        }
    }
    // Every message but RAKP 1 twice, the second copy late.
    let mut pair = Pair::operator();
    pair.network = Box::new(|_, bytes| if bytes[5] == RAKP_1 { Fate::After(MS) } else { Fate::Often(vec![MS, 3 * MS]) });
    assert_eq!(pair.status(), Ok(Reading::On));
    assert_eq!(pair.bmc.bad_logins, 0);
}

#[test]
fn a_slow_bmc_that_makes_new_random_bytes_is_not_a_wrong_password() {
    let mut pair = Pair::operator();
    // The answer to RAKP 1 takes longer than the first copy waits, so that two are under way.
    let mut slow = 1;
    pair.network = Box::new(move |way, bytes| {
        if way == Way::ToConsole && bytes[5] == 0x13 && slow > 0 {
            slow -= 1;
            return Fate::After(450 * MS);
        }
        Fate::After(MS)
    });
    assert_eq!(pair.status(), Ok(Reading::On));
    assert!(pair.bmc.rakp_1 >= 2, "RAKP 1 was repeated");
}

#[test]
fn a_wrong_password_is_never_sent_again() {
    let mut pair = Pair::new("operator", "wrong", &[]);
    let mut count = 0;
    pair.network = Box::new(move |_, _| {
        count += 1;
        if count % 2 == 0 { Fate::Lost } else { Fate::Often(vec![MS, 10 * MS]) }
    });
    assert!(pair.ask(Ask::Status, 30 * SECOND).is_err());
    assert_eq!(pair.sent_of(RAKP_3).len(), 0, "the BMC never sees a wrong proof");
}

#[test]
fn privilege_falls_back_to_the_users_exact_maximum() {
    // RAKP 2 refuses the level. 0x0D can also mean that there is no such user, so the next level is the next request's.
    for (status, refused) in [(0x09, 0), (0x0D, 1)] {
        let mut pair = Pair::new("admin", "secret", &[]);
        pair.bmc.faults.rakp_2_status.insert(3, status);
        for _ in 0..refused {
            assert_eq!(pair.status(), Err(Failure::LoginRefused { stage: Stage::Rakp1, status }));
        }
        assert_eq!(pair.status(), Ok(Reading::On), "{status:#x}");
        assert_eq!(pair.bmc.bad_logins, 0);
        let before = pair.bmc.rakp_1;
        pair.idle(60 * SECOND);
        assert_eq!(pair.status(), Ok(Reading::On));
        assert_eq!(pair.bmc.rakp_1, before + 1, "the level that worked is remembered");
    }
    // The level is refused in the session.
    let mut pair = Pair::new("admin", "secret", &[]);
    pair.bmc.faults.exact_privilege = Some(4);
    assert_eq!(pair.order(Ask::Off), Ok(PowerReply::Accepted));
    // A user who may only read.
    let mut pair = Pair::new("reader", "read", &[]);
    assert_eq!(pair.status(), Ok(Reading::On));
    let failure = pair.order(Ask::Off).unwrap_err();
    assert_eq!(failure, Failure::Privilege { code: 0xD4 });
    assert_eq!((failure.class(), failure.maybe_sent()), (ErrorClass::Setting, false));
    assert!(pair.bmc.power);
    // A named level is meant.
    let mut pair = Pair::new("reader", "read", &[("privilege", "administrator")]);
    assert_eq!(pair.status(), Err(Failure::Privilege { code: 0x81 }));
}

#[test]
fn faulty_bmcs_are_tolerated() {
    // The BMC hashes with the privilege of Open Session: found out without another login.
    for options in [&[][..], &[("quirks", "opensesspriv")][..]] {
        let mut pair = Pair::new("operator", "oper", options);
        pair.bmc.faults.open_session_privilege = true;
        assert_eq!(pair.status(), Ok(Reading::On), "{options:?}");
        assert_eq!((pair.bmc.rakp_1, pair.bmc.bad_logins), (1, 0));
    }
    // 16 of a password's 20 bytes are kept.
    let mut pair = Pair::new("long", "0123456789abcdefghij", &[]);
    pair.bmc.users.insert("long".into(), ("0123456789abcdefghij".into(), 4));
    pair.bmc.faults.short_passwords = true;
    assert_eq!(pair.status(), Ok(Reading::On));
    // ipmisim: tags in ASCII.
    let mut pair = Pair::operator();
    pair.bmc.faults.ascii_tags = true;
    pair.bmc.faults.refuse_suite.insert(17, (0x11, 2));
    assert_eq!(pair.status(), Ok(Reading::On));
    // Bad checksums: before the session they do not matter, inside only by the quirk.
    for (options, works) in [(&[][..], false), (&[("quirks", "nochecksumcheck")][..], true)] {
        let mut pair = Pair::new("operator", "oper", options);
        pair.bmc.faults.bad_checksums = true;
        assert_eq!(pair.status().is_ok(), works);
        assert!(pair.bmc.rakp_1 > 0, "the capabilities were believed");
    }
    // No answer to the capabilities.
    let mut pair = Pair::operator();
    pair.bmc.faults.silent_capabilities = true;
    assert_eq!(pair.status(), Ok(Reading::On));
    // They deny IPMI 2.0.
    for (options, expected) in [(&[][..], Err(Failure::NoRmcpPlus)), (&[("quirks", "authcap")][..], Ok(Reading::On))] {
        let mut pair = Pair::new("operator", "oper", options);
        pair.bmc.faults.no_rmcp_plus = true;
        assert_eq!(pair.status(), expected);
    }
    // Packets with session id 0.
    for (options, works) in [(&[][..], false), (&[("quirks", "idzero")][..], true)] {
        let mut pair = Pair::new("operator", "oper", options);
        pair.bmc.faults.session_id_zero = true;
        assert_eq!(pair.status().is_ok(), works);
    }
}

#[test]
fn tags_stay_one_digit_and_one_handshake_runs_at_a_time() {
    let mut pair = Pair::operator();
    for _ in 0..25 {
        assert_eq!(pair.status(), Ok(Reading::On));
        pair.idle(60 * SECOND);
    }
    let ports: Vec<u8> = pair.sent_of(OPEN).iter().map(|(_, port, _)| *port).collect();
    assert_eq!(&ports[..5], [0, 1, 2, 3, 0], "each session from the next source port");
    assert_eq!(pair.bmc.sessions.len(), 1, "old sessions were closed");
}
