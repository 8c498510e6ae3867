//! Bytes from an enemy, and from nowhere: nothing panics, nothing is believed.

use proptest::prelude::*;

use super::super::testbmc::{outside, seal};
use super::super::wire::{self, Checksums, Packet};
use super::*;

/// Datagrams of real and invented BMCs, one a line in hexadecimal; also the seeds of the fuzz target.
const CORPUS: &str = include_str!("../corpus/datagrams.hex");

fn corpus() -> Vec<Vec<u8>> {
    CORPUS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| hex::decode(line).unwrap()).collect()
}

/// Everything the decoder can be made to do with a datagram.
fn decode_all(bytes: &[u8]) {
    std::hint::black_box(wire::console_id(bytes));
    if let Ok(Packet::Plus(plus)) = wire::decode(bytes) {
        std::hint::black_box((plus.console_id(), wire::decode_reply(plus.payload, Checksums::Checked).is_ok()));
    }
    for checksums in [Checksums::Checked, Checksums::Ignored] {
        std::hint::black_box(wire::decode_reply(bytes, checksums).is_ok());
    }
}

/// A session in each of its states, with a request outstanding.
fn states() -> Vec<Pair> {
    let stop_at = |count: usize| {
        let mut pair = Pair::operator();
        let mut seen = 0;
        pair.network = Box::new(move |way, _| {
            seen += usize::from(way == Way::ToConsole);
            if way == Way::ToConsole && seen > count { Fate::Lost } else { Fate::After(MS) }
        });
        pair.session.request(pair.now, power::request(Ask::Status, pair.now + 60 * SECOND)).unwrap();
        assert_eq!(pair.step(pair.now + 50 * MS), None);
        pair
    };
    // Waiting for capabilities, open response, RAKP 2, RAKP 4, the privilege, the status.
    (0..6).map(stop_at).collect()
}

#[test]
fn the_corpus_is_survived_in_every_state() {
    let corpus = corpus();
    assert!(corpus.len() > 20);
    for datagram in &corpus {
        decode_all(datagram);
        for cut in 0..datagram.len() {
            decode_all(&datagram[..cut]);
        }
    }
    for mut pair in states() {
        for datagram in &corpus {
            pair.session.handle_datagram(pair.now, 0, datagram);
        }
        assert!(!matches!(pair.session.poll_event(), Some(Event::Done(Ok(_)))), "another session's packets were believed");
    }
}

#[test]
fn a_reply_without_protection_is_dropped() {
    let plain_off = [0x81, 0x04, 0x7B, 0x20, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0xDF];
    let mut pair = states().pop().unwrap();
    let sealed = pair.heard.last().unwrap().clone();
    let id = &sealed[6..10];
    for rq_seq in 0..64u8 {
        let mut message = plain_off.to_vec();
        message[4] = rq_seq << 2;
        // The session's id without any protection, in RMCP+ and in IPMI 1.5 framing; and with either bit alone.
        for kind in [0x00, 0x40, 0x80] {
            let mut forged = outside(kind, &message);
            forged[6..10].copy_from_slice(id);
            pair.session.handle_datagram(pair.now, 0, &forged);
            forged.extend([0xFF, 0xFF, 0x02, 0x07]);
            forged.extend([0; 16]);
            pair.session.handle_datagram(pair.now, 0, &forged);
        }
        let mut old = vec![6, 0, 0xFF, 7, 0, 0, 0, 0, 0, id[0], id[1], id[2], id[3], 11];
        old.extend(&message);
        pair.session.handle_datagram(pair.now, 0, &old);
        // Both bits, and a code made with a key the forger made up.
        let forged = seal(17, b"not the key of this session.....", u32::from_le_bytes(id.try_into().unwrap()), 50, &message);
        pair.session.handle_datagram(pair.now, 0, &forged);
    }
    assert_eq!(pair.session.poll_event(), None);
    let drops = pair.session.drops();
    assert_eq!((drops.unprotected, drops.forged, drops.unexpected), (64 * 6, 64, 64));
    // The true answer still counts, once.
    pair.session.handle_datagram(pair.now, 1, &sealed);
    assert_eq!(pair.session.poll_event(), None, "not on another source port");
    pair.session.handle_datagram(pair.now, 0, &sealed);
    assert!(matches!(pair.session.poll_event(), Some(Event::Done(Ok(_)))));
}

#[test]
fn a_recorded_reply_is_not_believed_again() {
    let mut pair = Pair::up();
    let recorded = pair.heard.last().unwrap().clone();
    // As many requests as there are sequence numbers in a message: the same number is outstanding again.
    pair.order(Ask::Off).unwrap();
    for _ in 0..62 {
        assert_eq!(pair.status(), Ok(Reading::Off));
    }
    pair.bmc.faults.silent = true;
    pair.session.request(pair.now, power::request(Ask::Status, pair.now + SECOND)).unwrap();
    assert_eq!(pair.step(pair.now + 10 * MS), None);
    pair.session.handle_datagram(pair.now, 0, &recorded);
    assert_eq!(pair.session.poll_event(), None);
    assert_eq!(pair.session.drops().replayed, 1);
}

#[test]
fn answers_to_other_commands_and_earlier_questions_are_late() {
    let mut pair = Pair::up();
    pair.network = Box::new(|way, _| if way == Way::ToConsole { Fate::After(2 * SECOND) } else { Fate::After(MS) });
    pair.ask(Ask::Status, 300 * MS).unwrap_err();
    pair.network = Box::new(|_, _| Fate::Lost);
    pair.bmc.power = false;
    pair.ask(Ask::Status, 3 * SECOND).unwrap_err();
    assert_eq!(pair.session.drops().late, 1, "the answer of the question before");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        decode_all(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_true_header_are_survived(kind in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut datagram = vec![6, 0, 0xFF, 7, 6, kind];
        datagram.extend(bytes);
        decode_all(&datagram);
    }

    #[test]
    fn a_changed_bit_is_never_believed(bit in 0usize..2000) {
        let mut pair = states().pop().unwrap();
        let mut datagram = pair.heard.last().unwrap().clone();
        let bit = bit % (datagram.len() * 8);
        // RMCP's version is checked, its reserved byte and sequence number mean nothing and are not covered.
        prop_assume!(!(8..24).contains(&bit));
        datagram[bit / 8] ^= 1 << (bit % 8);
        pair.session.handle_datagram(pair.now, 0, &datagram);
        prop_assert_eq!(pair.session.poll_event(), None);
    }

    #[test]
    fn no_state_is_moved_by_noise(state in 0usize..6, kind in prop::sample::select(vec![0u8, 0x11, 0x13, 0x15, 0xC0]),
                                  payload in prop::collection::vec(any::<u8>(), 0..100)) {
        // A refusal may be as short as tag and status, and then has no session id that noise would have to guess.
        let is_short_refusal = matches!(*payload, [0..=9 | b'0'..=b'9', 1..=255, ..]) && payload.len() < 8;
        prop_assume!(!is_short_refusal);
        let mut pair = states().remove(state);
        pair.session.handle_datagram(pair.now, 0, &outside(kind, &payload));
        prop_assert_eq!(pair.session.poll_event(), None, "noise cannot even fail a login: it lacks the session id");
    }
}
