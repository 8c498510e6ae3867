//! Values that others made: a session of ipmitool with OpenIPMI's `ipmi_sim`, as ipmitool logged it, and the same login
//! with SHA-256 and with a BMC key by Python's `hmac`.

use super::super::crypto::{Mac, SessionKeys};
use super::super::login::{Login, Rejection, Stage};
use super::super::settings::Privilege;
use super::super::suite::Suite;
use super::super::wire::{self, Checksums, Packet, Plus};
use super::settings;

const CONSOLE_RANDOM: &str = "918a349c14dc17f672bf24c15a3236e1";
const RAKP_2: &str = "0600ff07061300000000000000003c0000000000a4a3a2a08fd6ea6ff7cb2c942b942821b4835925\
                      a123456789abcdefa123456789abcdef4a8142e031ddd4b9cf9e22f5a908a6101a2ae8c6";
const RAKP_4: &str = "0600ff0706150000000000000000140000000000a4a3a2a0ed126303b4797a64dbaf4c20";
const OPEN_RESPONSE: &str = "0600ff0706110000000000000000240000000300a4a3a2a0020300000000000801000000\
                             01000008010000000200000801000000";

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn plus(datagram: &[u8]) -> Plus<'_> {
    match wire::decode(datagram).unwrap() {
        Packet::Plus(plus) => plus,
        Packet::Plain { .. } => panic!("an IPMI 1.5 packet"),
    }
}

fn login(suite: Suite) -> Login {
    let random = bytes(CONSOLE_RANDOM).try_into().unwrap();
    Login::new(suite, Privilege::Operator, true, 0, 0xA0A2_A3A4, random)
}

#[test]
fn a_login_of_ipmitool_is_reproduced_byte_by_byte() {
    let settings = settings("operator", "oper-secret", &[]);
    let mut login = login(Suite::Three);
    let mut out = Vec::new();
    login.write(Stage::Open, &settings, &mut out);
    let expected = "0600ff0706100000000000000000200000030000a4a3a2a0000000080100000001000008010000000200000801000000";
    assert_eq!(hex::encode(&out), expected);
    login.on_open(plus(&bytes(OPEN_RESPONSE)).payload).unwrap().unwrap();
    login.write(Stage::Rakp1, &settings, &mut out);
    let expected = "0600ff070612000000000000000024000000000002030000918a349c14dc17f672bf24c15a3236e1130000086f70657261746f72";
    assert_eq!(hex::encode(&out), expected);
    login.on_rakp_2(plus(&bytes(RAKP_2)).payload, &settings).unwrap().unwrap();
    login.write(Stage::Rakp3, &settings, &mut out);
    let expected = "0600ff07061400000000000000001c000000000002030000c5b69c60da7d83cb3e32707a33b157070993e974";
    assert_eq!(hex::encode(&out), expected);

    let up = login.on_rakp_4(plus(&bytes(RAKP_4)).payload, &settings).unwrap().ok().unwrap();
    assert_eq!(up.remote_id, 0x0302);
    // The BMC's answer to Set Session Privilege Level, and its chassis status.
    let answers = [
        "0600ff0706c0a4a3a2a001000000200046e8cc9c6a4ac905d8565a65421ae43d2791533f3c4bf5c7dcb1534249081fb3ffff02079a66e537\
         4adb2b3eb7e033f8",
        "0600ff0706c0a4a3a2a0060000002000c0bca162eb4949697626aeb103c96cba86e7370bd5a8b5ca09c9d683ac3614f0ffff0207c14c2e72\
         7067ec40e56c92bc",
    ];
    for (sequence, answer) in [1, 6].into_iter().zip(answers) {
        let datagram = bytes(&answer.replace(' ', ""));
        let packet = plus(&datagram);
        assert!(packet.authenticated && packet.encrypted && packet.verify(&up.keys));
        assert_eq!((packet.session_id, packet.sequence), (0xA0A2_A3A4, sequence));
        let mut scratch = wire::scratch();
        let message = packet.decrypt(&up.keys, &mut scratch).unwrap();
        let reply = wire::decode_reply(message, Checksums::Checked).unwrap();
        println!("{sequence}: {reply:02x?}");
        assert_eq!(reply.completion_code, 0);
    }
}

#[test]
fn the_same_login_with_sha_256() {
    let settings = settings("operator", "oper-secret", &[]);
    let mut login = login(Suite::Seventeen);
    let mut open = bytes(OPEN_RESPONSE);
    (open[32], open[40]) = (3, 4);
    login.on_open(plus(&open).payload).unwrap().unwrap();
    let head = bytes("00000000a4a3a2a08fd6ea6ff7cb2c942b942821b4835925a123456789abcdefa123456789abcdef");
    let code = bytes("3186fb946df4e05982a4cd36329a4330987f7b3b1c750b3f1aa3b97eda4b1a19");
    login.on_rakp_2(&[head, code].concat(), &settings).unwrap().unwrap();
    let mut out = Vec::new();
    login.write(Stage::Rakp3, &settings, &mut out);
    assert_eq!(hex::encode(&out[24..]), "1fb10655ac316ad7e4b0949b7495a1253841fb3e08583a74f9ee3a4a7c9d449b");
    let proof = bytes("00000000a4a3a2a0a929366fba8146070a713d98c888fbc8");
    assert!(login.on_rakp_4(&proof, &settings).unwrap().is_ok());
    let too_short = bytes("00000000a4a3a2a0a929366fba8146070a713d98");
    assert!(login.on_rakp_4(&too_short, &settings).is_none(), "12 bytes are suite 3's");
}

#[test]
fn a_bmc_key_takes_the_passwords_place_in_the_last_proof() {
    for (kg, accepted) in [("rack-key", true), ("other-key", false)] {
        let settings = settings("operator", "oper-secret", &[("kg", kg)]);
        let mut login = login(Suite::Three);
        login.on_open(plus(&bytes(OPEN_RESPONSE)).payload).unwrap().unwrap();
        login.on_rakp_2(plus(&bytes(RAKP_2)).payload, &settings).unwrap().unwrap();
        let proof = bytes("00000000a4a3a2a0cce71bad1e04fe5ac994699e");
        let result = login.on_rakp_4(&proof, &settings).unwrap();
        assert_eq!(result.is_ok(), accepted);
        assert!(accepted || matches!(result, Err(Rejection::WrongBmcKey)));
    }
}

#[test]
fn published_hashes() {
    // RFC 2202 case 2 and RFC 4231 case 2.
    let hash = |suite| hex::encode(Mac::new(suite, b"Jefe").sum(&[b"what do ya want ", b"for nothing?"]).as_slice());
    assert_eq!(hash(Suite::Three), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    assert_eq!(hash(Suite::Seventeen), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    // The AES key is the beginning of K2; one block of FIPS 197 would need a chosen key, so the round trip stands for it.
    let sik = Mac::new(Suite::Three, b"key").sum(&[b"sik"]);
    let keys = SessionKeys::derive(Suite::Three, &sik);
    let mut blocks = *b"sixteen bytes and sixteen more..";
    keys.encrypt([9; 16], &mut blocks);
    assert_ne!(&blocks, b"sixteen bytes and sixteen more..");
    assert!(keys.decrypt([9; 16], &mut blocks));
    assert_eq!(&blocks, b"sixteen bytes and sixteen more..");
    assert!(!keys.decrypt([9; 16], &mut [0; 15]));
}
