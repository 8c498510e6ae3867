//! Bytes that are no message of version 1: each is refused for its own reason, none is believed, and nothing panics.

use picket_common::wire::codec::{MAX_FRAME_LEN, WireError, decode, encode, sign, verify};
use picket_common::wire::report::{MAX_OVERDUE, MAX_REPORTS, MAX_TEXT};
use proptest::prelude::*;

use super::*;

/// Where a signed frame's parts begin.
const KEY_ID: usize = 4;
const SIGNATURE: usize = 12;
const BODY: usize = 76;

fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = stored(name);
    assert!(!frame.is_empty(), "{name} is not in the corpus");
    change(&mut frame);
    frame
}

#[test]
fn what_is_no_upward_message() {
    let check = |wanted: WireError, frame: &[u8]| assert_eq!(decode::<Gone>(frame).unwrap_err(), wanted);
    check(WireError::NotAFrame, b"");
    check(WireError::NotAFrame, b"PK\x01");
    check(WireError::NotAFrame, &changed("gone", |frame| frame[0] = b'p'));
    check(WireError::NotAFrame, &changed("gone", |frame| frame[1] = b'k'));
    check(WireError::Version(0), &changed("gone", |frame| frame[2] = 0));
    check(WireError::Version(2), &changed("gone", |frame| frame[2] = 2));
    check(WireError::Kind { expected: 3, got: 1 }, &changed("gone", |frame| frame[3] = 1));
    check(WireError::Kind { expected: 3, got: 2 }, &stored("hello"));
    check(WireError::Kind { expected: 3, got: 16 }, &stored("ack"));
    check(WireError::Trailing(1), &changed("gone", |frame| frame.push(0)));
    check(WireError::TooLong { len: MAX_FRAME_LEN + 1, max: MAX_FRAME_LEN }, &vec![0; MAX_FRAME_LEN + 1]);
    let undecodable = |frame: &[u8]| assert!(matches!(decode::<Up>(frame), Err(WireError::Decode(_))), "{frame:02x?}");
    undecodable(b"PK\x01\x01");
    undecodable(b"PK\x01\x01\x02");
    undecodable(&changed("up-heartbeat", |frame| frame.truncate(frame.len() - 1)));
}

#[test]
fn a_host_name_that_is_none_does_not_decode() {
    let frame = changed("up-heartbeat", |frame| {
        let place = frame.windows(HOST.len()).position(|bytes| bytes == HOST.as_bytes()).unwrap();
        frame[place] = b'/';
    });
    assert!(matches!(decode::<Up>(&frame), Err(WireError::Decode(_))));
}

#[test]
fn what_is_no_downward_message() {
    let check = |wanted: WireError, frame: &[u8]| {
        assert_eq!(verify::<Reply>(&trusted(), &agent(), frame).unwrap_err(), wanted);
    };
    check(WireError::NotAFrame, b"");
    check(WireError::NotAFrame, &changed("ack", |frame| frame.truncate(SIGNATURE - 1)));
    check(WireError::NotAFrame, &changed("ack", |frame| frame.truncate(BODY - 1)));
    check(WireError::Version(2), &changed("ack", |frame| frame[2] = 2));
    check(WireError::Kind { expected: 16, got: 17 }, &stored("cancel"));
    check(WireError::UnknownKey, &changed("ack", |frame| frame[KEY_ID] ^= 1));
    check(WireError::Signature, &changed("ack", |frame| frame[SIGNATURE] ^= 1));
    check(WireError::Signature, &changed("ack", |frame| frame[BODY] ^= 1));
    check(WireError::Signature, &changed("ack", |frame| frame.truncate(BODY)));
    check(WireError::Signature, &changed("ack", |frame| frame.push(0)));
    check(WireError::Signature, &changed("cancel", |frame| frame[3] = 16));
    check(WireError::TooLong { len: MAX_FRAME_LEN + 1, max: MAX_FRAME_LEN }, &vec![0; MAX_FRAME_LEN + 1]);
}

#[test]
fn only_the_trusted_key_and_the_right_agent_count() {
    let frame = stored("ack");
    let stranger = SigningKey::from_seed(&Secret::new([8; 32])).unwrap();
    assert_eq!(verify::<Reply>(&[], &agent(), &frame).unwrap_err(), WireError::UnknownKey);
    assert_eq!(verify::<Reply>(&[stranger.verifying_key()], &agent(), &frame).unwrap_err(), WireError::UnknownKey);
    assert!(verify::<Reply>(&[stranger.verifying_key(), key().verifying_key()], &agent(), &frame).is_ok());
    for other in ["r08", "r0", "r077"] {
        assert_eq!(verify::<Reply>(&trusted(), &id(other), &frame).unwrap_err(), WireError::Signature, "{other}");
    }
    let forged = changed("ack", |frame| {
        let by_stranger = sign(&stranger, &agent(), &Reply::Ack { boot: BOOT, up_to: 300 }).unwrap();
        frame[SIGNATURE..].copy_from_slice(&by_stranger[SIGNATURE..]);
    });
    assert_eq!(verify::<Reply>(&trusted(), &agent(), &forged).unwrap_err(), WireError::Signature);
}

#[test]
fn upward_bounds() {
    let check = |field: &'static str, message: &Up| {
        assert_eq!(encode(message).unwrap_err(), WireError::Bounds(field));
        // One that does not check itself would send it: the receiver refuses it for the same reason.
        let frame = [&b"PK\x01\x01"[..], &postcard::to_stdvec(message).unwrap()].concat();
        assert_eq!(decode::<Up>(&frame).unwrap_err(), WireError::Bounds(field));
    };
    let operation = |outcome| {
        Report::Operation(OperationReport { operation: OPERATION, host: id(HOST), at: AT, progress: Progress::Done(outcome) })
    };
    let failed = |error| reports(vec![operation(Outcome::Failed(error))]);
    let error = error(ErrorClass::Protocol);
    check("reports", &reports(vec![operation(Outcome::Changed); MAX_REPORTS + 1]));
    check("outcome", &reports(vec![operation(Outcome::Unknown("x".repeat(MAX_TEXT + 1)))]));
    check("error.driver", &failed(BmcError { driver: "x".repeat(33), ..error.clone() }));
    check("error.code", &failed(BmcError { code: "x".repeat(65), ..error.clone() }));
    check("error.text", &failed(BmcError { text: "x".repeat(MAX_TEXT + 1), ..error }));
    let sequence = |oldest, first| Up::Reports(Reports { boot: BOOT, oldest, first, reports: Vec::new() });
    check("first", &sequence(2, 1));
    check("first", &sequence(0, u64::MAX));
    let overdue = vec![id(HOST); MAX_OVERDUE + 1];
    let nobody = Heartbeat { session: SESSION, boot: BOOT, generation: None, next: 1, outbox: 0, overdue, nonce: 0 };
    check("overdue", &Up::Heartbeat(nobody));
}

#[test]
fn downward_bounds() {
    let check = |field: &'static str, message: &Assign| {
        assert_eq!(sign(&key(), &agent(), message).unwrap_err(), WireError::Bounds(field));
    };
    let part = |part, of, hosts| Assign::Part(Part { generation: generation(9), epoch: 1, part, of, hosts });
    let delta = |upsert, remove| Assign::Delta(Delta { base: generation(9), generation: generation(10), epoch: 1, upsert, remove });
    check("part", &part(0, 0, Vec::new()));
    check("part", &part(1, 1, Vec::new()));
    check("part", &part(0, 4097, Vec::new()));
    check("hosts", &part(0, 1, vec![bare_host(); 257]));
    check("hosts", &delta(vec![bare_host(); 257], Vec::new()));
    check("remove", &delta(Vec::new(), vec![id(HOST); 257]));
    check("poll_interval_ms", &part(0, 1, vec![HostAssignment { poll_interval_ms: 999, ..bare_host() }]));
    check("poll_interval_ms", &part(0, 1, vec![HostAssignment { poll_interval_ms: 3_600_001, ..bare_host() }]));
    for (field, bmc) in wrong_bmcs() {
        check(field, &part(0, 1, vec![HostAssignment { bmc: Some(bmc), ..host() }]));
    }
}

fn wrong_bmcs() -> Vec<(&'static str, BmcAssignment)> {
    let good = || host().bmc.unwrap();
    let option = |key: usize, value: usize| vec![("k".repeat(key), "v".repeat(value))];
    vec![
        ("driver", BmcAssignment { driver: "x".repeat(33), ..good() }),
        ("address", BmcAssignment { address: "x".repeat(256), ..good() }),
        ("username", BmcAssignment { username: "x".repeat(256), ..good() }),
        ("password", BmcAssignment { password: Some(Sealed(vec![0; 513])), ..good() }),
        ("options", BmcAssignment { options: vec![(String::new(), String::new()); 33], ..good() }),
        ("options key", BmcAssignment { options: option(65, 1), ..good() }),
        ("options value", BmcAssignment { options: option(1, 513), ..good() }),
    ]
}

#[test]
fn a_frame_over_the_cap_is_not_sent() {
    let text = "x".repeat(MAX_TEXT);
    let error = BmcError { driver: "ipmi".into(), class: ErrorClass::Protocol, code: "x".into(), text };
    let done = Progress::Done(Outcome::Failed(error));
    let report = Report::Operation(OperationReport { operation: OPERATION, host: id(HOST), at: AT, progress: done });
    assert!(matches!(encode(&reports(vec![report; MAX_REPORTS])), Err(WireError::TooLong { max: MAX_FRAME_LEN, .. })));
}

/// Hands the bytes to every door; how many let them in.
fn let_in(frame: &[u8]) -> usize {
    let up = [decode::<Up>(frame).is_ok(), decode::<Hello>(frame).is_ok(), decode::<Gone>(frame).is_ok()];
    up.into_iter().chain(signed_doors(frame)).filter(|is_in| *is_in).count()
}

fn signed_doors(frame: &[u8]) -> [bool; 3] {
    let (keys, agent) = (trusted(), agent());
    [
        verify::<Reply>(&keys, &agent, frame).is_ok(),
        verify::<Command>(&keys, &agent, frame).is_ok(),
        verify::<Assign>(&keys, &agent, frame).is_ok(),
    ]
}

fn frames() -> Vec<Vec<u8>> {
    corpus().into_values().filter(|bytes| bytes.starts_with(b"PK")).collect()
}

#[test]
fn every_stored_frame_has_one_door_and_no_part_of_it_has_any() {
    assert!(frames().len() >= 20);
    for frame in frames() {
        assert_eq!(let_in(&frame), 1);
        for len in 0..frame.len() {
            assert_eq!(let_in(&frame[..len]), 0, "{:02x?} cut to {len} bytes", frame);
        }
    }
}

#[test]
fn no_signed_frame_survives_any_flipped_bit() {
    let (key, agent, ack) = (trusted(), agent(), stored("ack"));
    for bit in 0..ack.len() * 8 {
        let mut frame = ack.clone();
        frame[bit / 8] ^= 1 << (bit % 8);
        assert!(verify::<Reply>(&key, &agent, &frame).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let_in(&bytes);
    }

    #[test]
    fn any_body_is_harmless(kind in 1_u8..=18, body in prop::collection::vec(any::<u8>(), 0..512)) {
        let frame = [&[b'P', b'K', 1, kind][..], &body].concat();
        let_in(&frame);
        prop_assert!(!signed_doors(&frame).contains(&true));
    }

    #[test]
    fn damaged_frames_are_harmless(frame in prop::sample::select(frames()), flips in prop::collection::vec(any::<prop::sample::Index>(), 1..8)) {
        let mut damaged = frame.clone();
        for flip in flips {
            let bit = flip.index(damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        let_in(&damaged);
        prop_assert!(damaged == frame || !signed_doors(&damaged).contains(&true));
    }
}
