//! A console for the tests of this folder: it drives [`super::handle`] without sockets and in made-up time. The judges that
//! share no code with the simulator are in `tests/bmcsim_judged.rs`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::bmc::{Bmc, Privilege, State, User};
use super::super::faults::{Faults, Late, Lie, Reboot, Refuse, Request, Said, Step, Unplug};
use super::super::profile::Profile;
use super::super::{Action, clock};
use super::crypto::{Keyed, PacketKeys, Suite};
use super::{Scratch, Send, handle, wire};

const GUID: [u8; 16] = [7; 16];
const REMOTE: u32 = 0x1122_3344;

pub(super) struct Console {
    pub(super) id: u32,
    keys: PacketKeys,
    sequence: u32,
    number: u8,
}

/// Everything that came back to a datagram, with its delay.
pub(super) type Wire<'a> = &'a mut dyn FnMut(&[u8]) -> Vec<Vec<u8>>;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fail {
    Silent,
    Status(u8),
    Proof,
}

fn payload(reply: &[u8]) -> &[u8] {
    match wire::parse(reply) {
        Some(wire::Incoming::New { payload, .. }) => payload,
        _ => &[],
    }
}

fn exchange(wire_to: Wire<'_>, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, Fail> {
    let mut packet = Vec::new();
    wire::plain_packet(kind, 0, 0, bytes, &mut packet);
    let replies = wire_to(&packet);
    let reply = payload(replies.first().ok_or(Fail::Silent)?).to_vec();
    match reply.get(1) {
        Some(0) => Ok(reply),
        Some(status) => Err(Fail::Status(*status)),
        None => Err(Fail::Silent),
    }
}

impl Console {
    pub(super) fn log_in(wire_to: Wire<'_>, suite: Suite, user: &str, password: &str, role: u8) -> Result<Self, Fail> {
        let mut open = vec![9, role, 0, 0];
        open.extend(REMOTE.to_le_bytes());
        for (kind, algorithm) in (0u8..).zip(suite.algorithms()) {
            open.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
        }
        let opened = exchange(wire_to, 0x10, &open)?;
        let id: [u8; 4] = opened[8..12].try_into().unwrap();
        let (remote, random) = (REMOTE.to_le_bytes(), [3u8; 16]);
        let role_len = [role | 0x10, u8::try_from(user.len()).unwrap()];
        let rakp1 = [&[9, 0, 0, 0], &id[..], &random, &[role_len[0], 0, 0, role_len[1]], user.as_bytes()].concat();
        let rakp2 = exchange(wire_to, 0x12, &rakp1)?;
        let (bmc_random, guid, code) = (&rakp2[8..24], &rakp2[24..40], &rakp2[40..]);
        let key = Keyed::new(suite, password.as_bytes());
        let proof = key.code(&[&remote, &id, &random, bmc_random, guid, &role_len, user.as_bytes()]);
        if proof.as_slice() != code {
            let refused = [&[9, 0x0F, 0, 0], &id[..]].concat();
            let mut packet = Vec::new();
            wire::plain_packet(0x14, 0, 0, &refused, &mut packet);
            wire_to(&packet);
            return Err(Fail::Proof);
        }
        let mine = key.code(&[bmc_random, &remote, &role_len, user.as_bytes()]);
        let rakp3 = [&[9, 0, 0, 0], &id[..], mine.as_slice()].concat();
        let rakp4 = exchange(wire_to, 0x14, &rakp3)?;
        let sik = Keyed::new(suite, key.code(&[&random, bmc_random, &role_len, user.as_bytes()]).as_slice());
        assert_eq!(&rakp4[8..], sik.code(&[&random, &id, guid]).truncated(suite.code_len()));
        let keys = PacketKeys::new(suite, &sik);
        Ok(Self { id: u32::from_le_bytes(id), keys, sequence: 0, number: 0 })
    }

    pub(super) fn packet(&mut self, netfn: u8, command: u8, data: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        self.number = (self.number + 1) & 0x3F;
        let mut message = vec![0x20, netfn << 2, 0, 0x81, self.number << 2, command];
        message[2] = (message[0].wrapping_add(message[1])).wrapping_neg();
        message.extend(data);
        message.push(message[3..].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg());
        let mut packet = Vec::new();
        wire::header(0xC0, self.id, self.sequence, &mut packet);
        self.keys.encrypt([5; 16], &message, &mut packet);
        let len = packet.len() - wire::PAYLOAD_AT;
        wire::set_length(&mut packet, len);
        wire::trailer(&mut packet);
        self.keys.seal(&mut packet, wire::AUTH_TYPE_AT);
        packet
    }

    /// Completion code and data of an authentic answer.
    pub(super) fn open(&self, reply: &[u8]) -> Option<(u8, Vec<u8>)> {
        let Some(wire::Incoming::New { payload_type: 0xC0, session: REMOTE, payload, from_auth_type, .. }) = wire::parse(reply)
        else {
            return None;
        };
        self.keys.checked(from_auth_type)?;
        let mut plain = Vec::new();
        self.keys.decrypt(payload, &mut plain)?;
        Some((plain[6], plain[7..plain.len() - 1].to_vec()))
    }

    fn ask(&mut self, wire_to: Wire<'_>, netfn: u8, command: u8, data: &[u8]) -> Option<(u8, Vec<u8>)> {
        let packet = self.packet(netfn, command, data);
        wire_to(&packet).iter().find_map(|reply| self.open(reply))
    }
}

struct Rig {
    bmc: Bmc,
    now: Instant,
}

impl Rig {
    fn new(profile: Profile) -> Self {
        let users =
            vec![User::new(2, "admin", "secret", Privilege::Administrator), User::new(3, "op", "secret", Privilege::Operator)];
        let instant = Profile { on_delay_ms: 0, off_delay_ms: 0, ..profile };
        let mut state = State::new(instant, users, true, 1);
        state.guid = uuid::Uuid::from_bytes(GUID);
        Self { bmc: Bmc::new("b".into(), None, None, state), now: clock::now() }
    }

    fn faults(&self, faults: Faults) {
        self.bmc.lock().set_faults(faults);
    }

    fn wire(&self) -> impl FnMut(&[u8]) -> Vec<Vec<u8>> {
        move |datagram| self.timed(datagram).into_iter().map(|(_, bytes)| bytes).collect()
    }

    fn timed(&self, datagram: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut scratch = Scratch::default();
        match handle(&self.bmc, self.now, peer, datagram, &mut scratch) {
            Send::Nothing => Vec::new(),
            Send::Now(bytes) => vec![(Duration::ZERO, bytes.to_vec())],
            Send::Faulty(many) => many.into_iter().map(|one| (one.after, one.bytes)).collect(),
        }
    }

    fn log_in(&self, suite: Suite, user: &str, password: &str, role: u8) -> Result<Console, Fail> {
        Console::log_in(&mut self.wire(), suite, user, password, role)
    }

    fn up(&self) -> Console {
        let mut console = self.log_in(Suite::Seventeen, "admin", "secret", 4).unwrap();
        assert_eq!(console.ask(&mut self.wire(), 6, 0x3B, &[4]), Some((0, vec![4])));
        console
    }

    fn status(&self, console: &mut Console) -> Option<(u8, bool)> {
        let (code, data) = console.ask(&mut self.wire(), 0, 1, &[])?;
        Some((code, data.first().is_some_and(|power| power & 1 == 1)))
    }

    fn control(&self, console: &mut Console, control: u8) -> Option<u8> {
        Some(console.ask(&mut self.wire(), 0, 2, &[control])?.0)
    }

    fn orders(&self, action: &str) -> usize {
        self.bmc.lock().calls.iter().filter(|call| call.action == action).count()
    }
}

fn refuse(on: Request, code: u8, times: Option<u32>) -> Faults {
    Faults {
        refuse: vec![Refuse { on, code: Some(code), status: None, retry_after: None, message_id: None, times }],
        ..Faults::default()
    }
}

#[test]
fn logins_and_refusals() {
    let rig = Rig::new(Profile { suites: vec![3], lockout_after: 2, ..Profile::default() });
    let table = [
        (Suite::Three, "admin", "secret", 4, Ok(())),
        (Suite::Seventeen, "admin", "secret", 4, Err(Fail::Status(0x11))),
        (Suite::Three, "nobody", "secret", 4, Err(Fail::Status(0x0D))),
        (Suite::Three, "op", "secret", 4, Err(Fail::Status(0x0A))),
        (Suite::Three, "op", "secret", 3, Ok(())),
        (Suite::Three, "op", "wrong", 3, Err(Fail::Proof)),
        (Suite::Three, "op", "wrong", 3, Err(Fail::Proof)),
        (Suite::Three, "op", "secret", 3, Err(Fail::Status(0x0D))),
    ];
    for (suite, user, password, role, want) in table {
        assert_eq!(rig.log_in(suite, user, password, role).map(|_| ()), want, "{user} {password} {role}");
    }
    let counters = rig.bmc.lock().counters;
    assert_eq!((counters.logins, counters.logins_refused), (2, 4));
}

#[test]
fn a_lock_ends() {
    let mut rig = Rig::new(Profile { lockout_after: 1, lockout_ms: 5_000, ..Profile::default() });
    assert!(rig.log_in(Suite::Three, "admin", "wrong", 4).is_err());
    assert_eq!(rig.log_in(Suite::Three, "admin", "secret", 4).err(), Some(Fail::Status(0x0D)));
    rig.now += Duration::from_secs(6);
    assert!(rig.log_in(Suite::Three, "admin", "secret", 4).is_ok());
}

#[test]
fn privileges_hold() {
    let rig = Rig::new(Profile::default());
    let mut console = rig.log_in(Suite::Three, "op", "secret", 3).unwrap();
    assert_eq!(rig.control(&mut console, 0), Some(0xD4), "a session begins as user");
    assert_eq!(console.ask(&mut rig.wire(), 6, 0x3B, &[4]), Some((0x81, vec![])));
    assert_eq!(console.ask(&mut rig.wire(), 6, 0x3B, &[3]), Some((0, vec![3])));
    assert_eq!(rig.control(&mut console, 0), Some(0));
    assert_eq!(console.ask(&mut rig.wire(), 6, 0x47, &[2, 1]).unwrap().0, 0xD4);
    assert_eq!(rig.orders("off"), 1);
}

#[test]
fn sessions_are_limited_and_idle_ones_go() {
    let mut rig = Rig::new(Profile { ipmi_sessions: 2, ..Profile::default() });
    let mut first = rig.up();
    rig.up();
    assert_eq!(rig.log_in(Suite::Three, "admin", "secret", 4).err(), Some(Fail::Status(0x01)));
    rig.now += Duration::from_secs(61);
    assert_eq!(rig.status(&mut first), None, "idle for too long");
    rig.up();
    let mut closing = rig.up();
    let id = closing.id.to_le_bytes();
    assert_eq!(closing.ask(&mut rig.wire(), 6, 0x3C, &id), Some((0, vec![])));
    assert_eq!(rig.status(&mut closing), None);
}

#[test]
fn replays_and_forgeries_are_dropped_and_profile_can_let_replays_through() {
    for (replays, resets) in [(false, 1), (true, 2)] {
        let rig = Rig::new(Profile { executes_replays: replays, ..Profile::default() });
        let mut console = rig.up();
        let packet = console.packet(0, 2, &[3]);
        assert_eq!(rig.timed(&packet).len(), 1);
        rig.timed(&packet);
        assert_eq!(rig.bmc.lock().chassis.resets(), resets);
        let mut forged = console.packet(0, 2, &[3]);
        *forged.last_mut().unwrap() ^= 1;
        assert!(rig.timed(&forged).is_empty());
        let mut plain = console.packet(0, 2, &[3]);
        plain[5] = 0;
        assert!(rig.timed(&plain).is_empty());
        assert_eq!(rig.bmc.lock().chassis.resets(), resets);
    }
}

#[test]
fn what_is_so_already() {
    let rig = Rig::new(Profile { off_when_off: 0xD5, ..Profile::default() });
    let mut console = rig.up();
    for (control, want) in [(1, 0), (0, 0), (0, 0xD5), (5, 0xD5), (2, 0xD5), (3, 0xD5), (9, 0xCC), (1, 0), (3, 0)] {
        assert_eq!(rig.control(&mut console, control), Some(want), "{control}");
    }
}

#[test]
fn faults_do_what_they_say() {
    let rig = Rig::new(Profile::default());
    let mut console = rig.up();
    rig.faults(refuse(Request::ChassisControl, 0xC0, Some(1)));
    assert_eq!((rig.control(&mut console, 0), rig.control(&mut console, 0)), (Some(0xC0), Some(0)));
    rig.bmc.lock().set_power(true, rig.now);

    rig.faults(Faults { lie: Some(Lie { readings: vec![Said::Off, Said::Truth], repeat: true }), ..Faults::default() });
    let readings: Vec<_> = (0..4).map(|_| rig.status(&mut console)).collect();
    assert_eq!(readings, [Some((0, false)), Some((0, true)), Some((0, false)), Some((0, true))]);

    rig.faults(Faults { ignore: vec![Action::Off], ..Faults::default() });
    assert_eq!(rig.control(&mut console, 0), Some(0));
    assert_eq!(rig.status(&mut console), Some((0, true)));

    rig.faults(Faults { forge: true, ..Faults::default() });
    let packet = console.packet(0, 1, &[]);
    let replies = rig.timed(&packet);
    assert_eq!(replies.len(), 2);
    assert!(console.open(&replies[0].1).is_none(), "the forged one proves nothing");
    assert!(console.open(&replies[1].1).is_some());

    rig.faults(Faults { late: Some(Late { ms: 700, nth: 2 }), duplicate: 1.0, ..Faults::default() });
    let after: Vec<_> = (0..2)
        .map(|_| rig.timed(&console.packet(0, 1, &[])).iter().map(|(after, _)| after.as_millis()).collect::<Vec<_>>())
        .collect();
    assert_eq!(after, [vec![0, 0], vec![700, 700]]);

    for silent in [
        Faults { unplug: Some(Unplug::Silent), ..Faults::default() },
        Faults { hang_at: Some(Step::Command), ..Faults::default() },
        Faults { loss: 1.0, ..Faults::default() },
    ] {
        rig.faults(silent);
        assert_eq!(rig.status(&mut console), None);
    }
    rig.faults(Faults { wrong_session_id: true, ..Faults::default() });
    assert_eq!(rig.status(&mut console), None);
    rig.faults(Faults::default());
    assert_eq!(rig.status(&mut console), Some((0, true)));
}

#[test]
fn handshake_faults() {
    let rig = Rig::new(Profile::default());
    let table = [
        (Faults { hang_at: Some(Step::OpenSession), ..Faults::default() }, Fail::Silent),
        (Faults { hang_at: Some(Step::Rakp1), ..Faults::default() }, Fail::Silent),
        (Faults { hang_at: Some(Step::Rakp3), ..Faults::default() }, Fail::Silent),
        (Faults { sessions_used_up: true, ..Faults::default() }, Fail::Status(1)),
        (Faults { zero_rakp2: true, ..Faults::default() }, Fail::Proof),
        (refuse(Request::OpenSession, 0x12, None), Fail::Status(0x12)),
        (refuse(Request::Rakp1, 0x09, None), Fail::Status(0x09)),
        (refuse(Request::Rakp3, 0x0F, None), Fail::Status(0x0F)),
    ];
    for (faults, want) in table {
        rig.faults(faults.clone());
        assert_eq!(rig.log_in(Suite::Three, "admin", "secret", 4).err(), Some(want), "{faults:?}");
    }
}

#[test]
fn a_reboot_in_mid_command() {
    for executes in [false, true] {
        let mut rig = Rig::new(Profile::default());
        let mut console = rig.up();
        rig.faults(Faults { reboot: Some(Reboot { silence_ms: 1_000, executes }), ..Faults::default() });
        assert_eq!(rig.control(&mut console, 0), None);
        assert_eq!(rig.log_in(Suite::Three, "admin", "secret", 4).err(), Some(Fail::Silent));
        rig.now += Duration::from_secs(2);
        assert_eq!(rig.status(&mut rig.up()), Some((0, !executes)));
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120), at in 0usize..60, flip in 1u8..) {
        let rig = Rig::new(Profile::default());
        let mut console = rig.up();
        rig.timed(&bytes);
        rig.timed(&[&[6, 0, 0xFF, 7][..], &bytes].concat());
        for kind in [0, 0x10, 0x12, 0x14] {
            let mut packet = Vec::new();
            wire::plain_packet(kind, 0, 0, &bytes, &mut packet);
            rig.timed(&packet);
        }
        let mut packet = console.packet(0, 2, &[3]);
        let at = at.min(packet.len() - 1).max(4);
        packet[at] ^= flip;
        rig.timed(&packet);
        proptest::prop_assert_eq!(rig.bmc.lock().chassis.resets(), 0);
    }
}
