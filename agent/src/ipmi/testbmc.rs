//! A small BMC for tests, written from the specification with its own arithmetic: suites 3 and 17, users, faults.
//! It shares no code with the client it judges.

use std::collections::{HashMap, VecDeque};

use aes::Aes128;
use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

/// Faults and peculiarities; all off by default.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Status code of an Open Session with this suite, in a payload of so many bytes.
    pub refuse_suite: HashMap<u8, (u8, usize)>,
    /// Answers every proposal with this suite's algorithms.
    pub answer_suite: Option<u8>,
    pub zero_rakp_2: bool,
    pub silent_rakp_1: bool,
    pub silent_capabilities: bool,
    /// Status of RAKP 2 by the role byte's level.
    pub rakp_2_status: HashMap<u8, u8>,
    pub rakp_4_status: Option<u8>,
    pub no_rmcp_plus: bool,
    /// Makes its codes with the privilege of Open Session.
    pub open_session_privilege: bool,
    pub never_counts: bool,
    pub session_id_zero: bool,
    pub bad_checksums: bool,
    /// ipmisim: tags as ASCII digits.
    pub ascii_tags: bool,
    /// Completion codes of the next commands, before they are executed.
    pub codes: VecDeque<u8>,
    /// Set Session Privilege Level refuses levels other than this one.
    pub exact_privilege: Option<u8>,
    /// Knows sessions by source port only: a second session from a port that has one is not answered.
    pub by_port: bool,
    /// Forgets every session.
    pub forget_sessions: bool,
    pub silent: bool,
    /// Answers no RAKP 1 of a user it does not know.
    pub silent_to_strangers: bool,
    /// Says 0x02 to a second copy of a RAKP 1 that it left without an answer.
    pub forgets_strangers: bool,
    /// Commands (netfn, command) that are executed and not answered.
    pub unanswered: Vec<(u8, u8)>,
    /// Keeps 16 bytes of a password.
    pub short_passwords: bool,
}

pub struct BmcSession {
    pub port: u8,
    suite: u8,
    privilege_asked: u8,
    console_id: u32,
    id: u32,
    console_random: Vec<u8>,
    bmc_random: Vec<u8>,
    role: u8,
    name: Vec<u8>,
    password: Vec<u8>,
    sik: Vec<u8>,
    pub up: bool,
    privilege: u8,
    sequence: u32,
    /// No RAKP 1 came yet.
    fresh: bool,
}

pub struct TestBmc {
    pub suites: Vec<u8>,
    /// Name to password and highest privilege.
    pub users: HashMap<String, (String, u8)>,
    pub kg: Option<Vec<u8>>,
    pub faults: Faults,
    pub power: bool,
    pub sessions: Vec<BmcSession>,
    /// Every command that was executed: netfn, command, data.
    pub executed: Vec<(u8, u8, Vec<u8>)>,
    /// The suites proposed, in order.
    pub proposed: Vec<u8>,
    /// How many RAKP 3 had a wrong code.
    pub bad_logins: usize,
    pub rakp_1: usize,
    /// How many RAKP 1 named a user that does not exist: refused logins, by a BMC's book.
    pub strangers: usize,
    pub guid: [u8; 16],
    /// Boot options by parameter.
    pub boot: HashMap<u8, Vec<u8>>,
    /// The last Chassis Identify.
    pub identify: Vec<u8>,
    seed: u8,
}

pub const PAYLOAD: usize = 16;

impl TestBmc {
    pub fn new() -> Self {
        Self {
            suites: vec![3, 17],
            users: HashMap::from([
                ("admin".into(), ("secret".into(), 4)),
                ("operator".into(), ("oper".into(), 3)),
                ("reader".into(), ("read".into(), 2)),
            ]),
            kg: None,
            faults: Faults::default(),
            power: true,
            sessions: Vec::new(),
            executed: Vec::new(),
            proposed: Vec::new(),
            bad_logins: 0,
            rakp_1: 0,
            strangers: 0,
            guid: *b"guid-of-test-bmc",
            boot: HashMap::new(),
            identify: Vec::new(),
            seed: 1,
        }
    }

    pub fn handle(&mut self, port: u8, bytes: &[u8]) -> Vec<Vec<u8>> {
        if self.faults.silent {
            return Vec::new();
        }
        if std::mem::take(&mut self.faults.forget_sessions) {
            self.sessions.clear();
        }
        let answer = match bytes[4] {
            0 => self.capabilities(&bytes[14..]),
            _ => match bytes[5] {
                0x10 => self.open(port, &bytes[PAYLOAD..]),
                0x12 => self.rakp_1(&bytes[PAYLOAD..]),
                0x14 => self.rakp_3(&bytes[PAYLOAD..]),
                0xC0 => self.message(bytes),
                other => panic!("payload type {other:#x}"),
            },
        };
        answer.into_iter().collect()
    }

    /// How often a chassis control with this number was executed.
    pub fn controls(&self, number: u8) -> usize {
        self.executed.iter().filter(|(netfn, command, data)| (*netfn, *command) == (0, 2) && data == &[number]).count()
    }

    fn capabilities(&self, message: &[u8]) -> Option<Vec<u8>> {
        if self.faults.silent_capabilities {
            return None;
        }
        assert_eq!(&message[..2], [0x20, 0x18]);
        let extended = if self.faults.no_rmcp_plus { 0x01 } else { 0x03 };
        let reply = self.lan(6, message[4], 0x38, 0, &[1, 0x97, if self.kg.is_some() { 0x24 } else { 4 }, extended, 0, 0, 0, 0]);
        let mut out = vec![6, 0, 0xFF, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, u8::try_from(reply.len()).unwrap()];
        out.extend(reply);
        Some(out)
    }

    fn tag(&self, tag: u8) -> u8 {
        assert!(tag < 10, "tags are one digit");
        if self.faults.ascii_tags { b'0' + tag } else { tag }
    }

    fn open(&mut self, port: u8, payload: &[u8]) -> Option<Vec<u8>> {
        let suite = match (payload[12], payload[20], payload[28]) {
            (1, 1, 1) => 3,
            (3, 4, 1) => 17,
            other => panic!("suite {other:?} must never be proposed"),
        };
        self.proposed.push(suite);
        let tag = self.tag(payload[0]);
        let console_id = le(&payload[4..8]);
        let refusal = self.faults.refuse_suite.get(&suite).copied();
        if let Some((status, len)) = refusal.or((!self.suites.contains(&suite)).then_some((0x11, 8))) {
            let mut answer = vec![tag, status, 0, 0];
            answer.extend(console_id.to_le_bytes());
            answer.truncate(len);
            return Some(outside(0x11, &answer));
        }
        if self.faults.by_port && self.sessions.iter().any(|session| session.port == port) {
            return None;
        }
        self.seed = self.seed.wrapping_add(1);
        let id = 0x0200_0000 + u32::from(self.seed);
        let suite = self.faults.answer_suite.unwrap_or(suite);
        self.sessions.push(BmcSession {
            port,
            suite,
            privilege_asked: payload[1],
            console_id,
            id,
            console_random: Vec::new(),
            bmc_random: Vec::new(),
            role: 0,
            name: Vec::new(),
            password: Vec::new(),
            sik: Vec::new(),
            up: false,
            privilege: 2,
            sequence: 0,
            fresh: true,
        });
        let [auth, integrity, confidentiality] = match suite {
            3 => [1, 1, 1],
            17 => [3, 4, 1],
            _ => [0, 0, 0],
        };
        let mut answer = vec![tag, 0, payload[1], 0];
        answer.extend(console_id.to_le_bytes());
        answer.extend(id.to_le_bytes());
        for (kind, algorithm) in [(0, auth), (1, integrity), (2, confidentiality)] {
            answer.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
        }
        Some(outside(0x11, &answer))
    }

    fn rakp_1(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        self.rakp_1 += 1;
        let tag = self.tag(payload[0]);
        let id = le(&payload[4..8]);
        self.seed = self.seed.wrapping_add(1);
        let bmc_random: Vec<u8> = (0..16).map(|n| self.seed.wrapping_mul(31).wrapping_add(n)).collect();
        let name = payload[28..28 + usize::from(payload[27])].to_vec();
        let role = payload[24];
        let user = self.users.get(&String::from_utf8_lossy(&name).into_owned()).cloned();
        let kg_faults = self.faults.clone();
        let guid = self.guid;
        let session = self.sessions.iter_mut().find(|session| session.id == id)?;
        let console_id = session.console_id;
        let refuse = |status: u8| {
            let mut answer = vec![tag, status, 0, 0];
            answer.extend(console_id.to_le_bytes());
            Some(outside(0x13, &answer))
        };
        if kg_faults.forgets_strangers && user.is_none() && !std::mem::take(&mut session.fresh) {
            return refuse(0x02);
        }
        if kg_faults.silent_rakp_1 {
            return None;
        }
        if let Some(status) = kg_faults.rakp_2_status.get(&(role & 0x0F)) {
            return refuse(*status);
        }
        let Some((password, _)) = user else {
            self.strangers += 1;
            let refusal = refuse(0x0D);
            return if kg_faults.silent_to_strangers { None } else { refusal };
        };
        session.console_random = payload[8..24].to_vec();
        session.bmc_random = bmc_random;
        session.role = if kg_faults.open_session_privilege { session.privilege_asked } else { role };
        session.name = name;
        session.password = password.into_bytes();
        if kg_faults.short_passwords {
            session.password.truncate(16);
        }
        let mut code = hmac(
            session.suite,
            &session.password,
            &[
                &session.console_id.to_le_bytes()[..],
                &session.id.to_le_bytes(),
                &session.console_random,
                &session.bmc_random,
                &guid,
                &[session.role, u8::try_from(session.name.len()).unwrap()],
                &session.name,
            ]
            .concat(),
        );
        if kg_faults.zero_rakp_2 {
            code.fill(0);
        }
        let mut answer = vec![tag, 0, 0, 0];
        answer.extend(session.console_id.to_le_bytes());
        answer.extend(&session.bmc_random);
        answer.extend(guid);
        answer.extend(code);
        Some(outside(0x13, &answer))
    }

    fn rakp_3(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let tag = self.tag(payload[0]);
        let id = le(&payload[4..8]);
        let (kg, guid, status) = (self.kg.clone(), self.guid, self.faults.rakp_4_status);
        let session = self.sessions.iter_mut().find(|session| session.id == id)?;
        let name_len = u8::try_from(session.name.len()).unwrap();
        let expected = hmac(
            session.suite,
            &session.password,
            &[&session.bmc_random[..], &session.console_id.to_le_bytes(), &[session.role, name_len], &session.name].concat(),
        );
        let mut answer = vec![tag, 0, 0, 0];
        answer.extend(session.console_id.to_le_bytes());
        if payload[8..] != expected[..] {
            self.bad_logins += 1;
            answer[1] = 0x0F;
            return Some(outside(0x15, &answer));
        }
        if let Some(status) = status {
            answer[1] = status;
            return Some(outside(0x15, &answer));
        }
        session.sik = hmac(
            session.suite,
            kg.as_ref().unwrap_or(&session.password),
            &[&session.console_random[..], &session.bmc_random, &[session.role, name_len], &session.name].concat(),
        );
        session.up = true;
        let proof = hmac(session.suite, &session.sik, &[&session.console_random[..], &session.id.to_le_bytes(), &guid].concat());
        answer.extend(&proof[..code_len(session.suite)]);
        Some(outside(0x15, &answer))
    }

    fn message(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let id = le(&bytes[6..10]);
        let index = self.sessions.iter().position(|session| session.id == id && session.up)?;
        let session = &self.sessions[index];
        let split = bytes.len() - code_len(session.suite);
        let k1 = hmac(session.suite, &session.sik, &[1; 20]);
        assert_eq!(hmac(session.suite, &k1, &bytes[4..split])[..code_len(session.suite)], bytes[split..], "integrity");
        assert_eq!((split - 4) % 4, 0, "the covered part is padded to four bytes");
        let payload = &bytes[PAYLOAD..PAYLOAD + usize::from(u16::from_le_bytes([bytes[14], bytes[15]]))];
        let k2 = hmac(session.suite, &session.sik, &[2; 20]);
        let mut blocks = payload[16..].to_vec();
        cbc::Decryptor::<Aes128>::new_from_slices(&k2[..16], &payload[..16])
            .unwrap()
            .decrypt_padded::<NoPadding>(&mut blocks)
            .unwrap();
        let pad = usize::from(*blocks.last().unwrap());
        assert!(pad < 16);
        let message = &blocks[..blocks.len() - pad - 1];
        assert_eq!(sum(&message[..3]), 0, "first checksum");
        assert_eq!(sum(&message[3..]), 0, "second checksum");
        let (netfn, rq_seq, command) = (message[1] >> 2, message[4], message[5]);
        let data = message[6..message.len() - 1].to_vec();
        let (code, answer) = self.execute(index, netfn, command, &data);
        let reply = self.lan(netfn, rq_seq, command, code, &answer);
        let sealed = self.seal(index, &reply);
        if (netfn, command) == (6, 0x3C) {
            self.sessions.remove(index);
        }
        (!self.faults.unanswered.contains(&(netfn, command))).then_some(sealed)
    }

    /// The users by id, from 1.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.users.keys().cloned().collect();
        names.sort();
        names
    }

    fn execute(&mut self, index: usize, netfn: u8, command: u8, data: &[u8]) -> (u8, Vec<u8>) {
        let session = &mut self.sessions[index];
        let needs = match (netfn, command) {
            (0, 2 | 4 | 8 | 9) | (6, 0x44 | 0x46) => 3,
            (6, 0x47) => 4,
            _ => 2,
        };
        if let Some(code) = self.faults.codes.pop_front()
            && code != 0
        {
            return (code, Vec::new());
        }
        if (netfn, command) == (6, 0x3B) {
            let highest = self.users.get(&String::from_utf8_lossy(&session.name).into_owned()).map_or(0, |user| user.1);
            let inexact = self.faults.exact_privilege.is_some_and(|level| level != data[0]);
            if data[0] > highest || data[0] > session.role & 0x0F || inexact {
                return (0x81, Vec::new());
            }
            session.privilege = data[0];
            return (0, vec![data[0]]);
        }
        if session.privilege < needs {
            return (0xD4, Vec::new());
        }
        self.executed.push((netfn, command, data.to_vec()));
        match (netfn, command) {
            (0, 1) => (0, vec![u8::from(self.power), 0, 0]),
            (0, 2) => {
                match data[0] {
                    0 | 5 => self.power = false,
                    1 => self.power = true,
                    _ => {}
                }
                (0, Vec::new())
            }
            (0, 4) => {
                self.identify = data.to_vec();
                (0, Vec::new())
            }
            (0, 8) => {
                self.boot.insert(data[0], data[1..].to_vec());
                (0, Vec::new())
            }
            (0, 9) => (0, [&[1, data[0]][..], self.boot.get(&data[0]).map_or(&[0; 5][..], Vec::as_slice)].concat()),
            (6, 0x01) => (0, vec![0x20, 1, 2, 0x34, 2, 0, 0xA2, 0x02, 0, 0x00, 0x01]),
            (6, 0x37) => (0, self.guid.to_vec()),
            (6, 0x3C) => (0, Vec::new()),
            (6, 0x44) => {
                let names = self.names();
                let limit = names.get(usize::from(data[1]) - 1).map_or(0x0F, |name| self.users[name].1);
                (0, vec![u8::try_from(names.len()).unwrap(), 1, 0, 0x10 | limit])
            }
            (6, 0x46) => match self.names().get(usize::from(data[0]) - 1) {
                Some(name) => (0, name.bytes().chain(std::iter::repeat(0)).take(16).collect()),
                None => (0xCC, Vec::new()),
            },
            (6, 0x47) => {
                let name = self.names()[usize::from(data[0] & 0x3F) - 1].clone();
                let password = data[2..].iter().copied().take_while(|byte| *byte != 0).collect();
                self.users.get_mut(&name).unwrap().0 = String::from_utf8(password).unwrap();
                (0, Vec::new())
            }
            _ => (0xC1, Vec::new()),
        }
    }

    fn lan(&self, netfn: u8, rq_seq: u8, command: u8, code: u8, data: &[u8]) -> Vec<u8> {
        let mut message = vec![0x81, (netfn | 1) << 2];
        message.push(sum(&message).wrapping_neg());
        let body = [&[0x20, rq_seq, command, code], data].concat();
        message.extend(&body);
        message.push(sum(&body).wrapping_neg().wrapping_add(u8::from(self.faults.bad_checksums)));
        message
    }

    /// An encrypted and authenticated packet of a session.
    pub fn seal(&mut self, index: usize, message: &[u8]) -> Vec<u8> {
        let faults = self.faults.clone();
        let session = &mut self.sessions[index];
        session.sequence += 1;
        let sequence = if faults.never_counts { 0 } else { session.sequence };
        let id = if faults.session_id_zero { 0 } else { session.console_id };
        seal(session.suite, &session.sik, id, sequence, message)
    }
}

/// Encrypts and authenticates one message.
pub fn seal(suite: u8, sik: &[u8], id: u32, sequence: u32, message: &[u8]) -> Vec<u8> {
    let k2 = hmac(suite, sik, &[2; 20]);
    let mut blocks = message.to_vec();
    let pad = (16 - (blocks.len() + 1) % 16) % 16;
    blocks.extend((1..=pad).map(|n| u8::try_from(n).unwrap()));
    blocks.push(u8::try_from(pad).unwrap());
    let iv = [sequence.to_le_bytes()[0] ^ 0x5A; 16];
    let len = blocks.len();
    cbc::Encryptor::<Aes128>::new_from_slices(&k2[..16], &iv).unwrap().encrypt_padded::<NoPadding>(&mut blocks, len).unwrap();
    let mut out = vec![6, 0, 0xFF, 7, 6, 0xC0];
    out.extend(id.to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend(u16::try_from(16 + blocks.len()).unwrap().to_le_bytes());
    out.extend(iv);
    out.extend(blocks);
    let pad = (4 - (out.len() - 4 + 2) % 4) % 4;
    out.extend(vec![0xFF; pad]);
    out.extend([u8::try_from(pad).unwrap(), 7]);
    let k1 = hmac(suite, sik, &[1; 20]);
    let code = hmac(suite, &k1, &out[4..]);
    out.extend(&code[..code_len(suite)]);
    out
}

/// An open or RAKP answer.
pub fn outside(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![6, 0, 0xFF, 7, 6, kind, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
    out.extend(payload);
    out
}

pub fn hmac(suite: u8, key: &[u8], data: &[u8]) -> Vec<u8> {
    if suite == 17 {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(data);
        return mac.finalize().into_bytes().to_vec();
    }
    let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

const fn code_len(suite: u8) -> usize {
    if suite == 17 { 16 } else { 12 }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn le(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}
