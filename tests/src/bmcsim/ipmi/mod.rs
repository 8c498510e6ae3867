//! The IPMI side of a BMC: a datagram and the time in, at most a few datagrams out. No sockets here; [`pump`] has them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::bmc::{Bmc, State};
use super::faults::{Request, Step, Unplug};

#[cfg(test)]
mod client;
mod command;
mod crypto;
mod handshake;
pub(crate) mod pump;
mod session;
mod wire;

pub(crate) use session::Sessions;

use command::{Caller, Effects};
use session::Arrival;
use wire::Incoming;

/// How long a reordered answer waits for the next one.
const REORDER_HOLD: Duration = Duration::from_millis(300);

/// Buffers used again for every datagram, and the answers to send.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    plain: Vec<u8>,
    data: Vec<u8>,
    reply: Vec<u8>,
    clear: Vec<u8>,
    forged: Vec<u8>,
}

/// One datagram to send, after a delay when faults say so.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) after: Duration,
    pub(crate) bytes: Vec<u8>,
}

/// What to send.
#[derive(Debug)]
pub(crate) enum Send<'a> {
    Nothing,
    /// The usual case: one datagram at once, in the scratch buffer.
    Now(&'a [u8]),
    /// Faults were at work.
    Faulty(Vec<Outgoing>),
}

/// Serves one datagram.
pub(crate) fn handle<'a>(bmc: &Bmc, now: Instant, peer: SocketAddr, datagram: &[u8], scratch: &'a mut Scratch) -> Send<'a> {
    let mut state = bmc.lock();
    state.counters.datagrams += 1;
    if state.is_silent(now) || is_lost(&mut state) {
        return Send::Nothing;
    }
    scratch.reply.clear();
    scratch.forged.clear();
    let answered = dispatch(&mut state, now, peer, datagram, scratch);
    match answered {
        Some(true) => {}
        Some(false) => return Send::Nothing,
        None => {
            state.counters.datagrams_dropped += 1;
            return Send::Nothing;
        }
    }
    if state.silent_until.is_some() {
        return Send::Nothing;
    }
    if state.faults.is_none() {
        return Send::Now(&scratch.reply);
    }
    Send::Faulty(spoil(&mut state, &scratch.reply, &scratch.forged))
}

fn is_lost(state: &mut State) -> bool {
    let Some(faults) = state.faults.as_ref() else { return false };
    let (unplugged, loss) = (faults.unplug, faults.loss);
    matches!(unplugged, Some(Unplug::Silent | Unplug::Refused)) || state.rng.chance(loss)
}

/// Whether the BMC is told to stop answering at this step.
fn hangs(state: &State, step: Step) -> bool {
    state.faults.as_ref().is_some_and(|faults| faults.hang_at == Some(step))
}

/// `None` for what is dropped as unreadable or not authentic; whether there is an answer otherwise.
fn dispatch(state: &mut State, now: Instant, peer: SocketAddr, datagram: &[u8], scratch: &mut Scratch) -> Option<bool> {
    match wire::parse(datagram)? {
        Incoming::Ping(_) if hangs(state, Step::Ping) => Some(false),
        Incoming::Ping(tag) => {
            wire::pong(tag, &mut scratch.reply);
            Some(true)
        }
        Incoming::Old(message) => outside(state, message, scratch, wire::old_packet),
        Incoming::New { payload_type: 0, session: 0, payload, .. } => {
            outside(state, payload, scratch, |message, reply| wire::plain_packet(0, 0, 0, message, reply))
        }
        Incoming::New { payload_type: 0xC0, session, sequence, payload, from_auth_type } if session != 0 => {
            inside(state, now, Sealed { session, sequence, payload, from_auth_type }, scratch)
        }
        Incoming::New { payload_type: kind @ (0x10 | 0x12 | 0x14), session: 0, payload, .. } => {
            scratch.data.clear();
            let Some(answer) = handshake::answer(state, now, peer, kind, payload, &mut scratch.data) else {
                return Some(false);
            };
            wire::plain_packet(answer, 0, 0, &scratch.data, &mut scratch.reply);
            Some(true)
        }
        Incoming::New { .. } => None,
    }
}

fn outside(state: &mut State, message: &[u8], scratch: &mut Scratch, frame: impl FnOnce(&[u8], &mut Vec<u8>)) -> Option<bool> {
    let message = wire::message(message)?;
    let hung = match command::kind(message.netfn, message.command) {
        Request::AuthCapabilities => hangs(state, Step::AuthCapabilities),
        Request::CipherSuites => hangs(state, Step::CipherSuites),
        _ => false,
    };
    if hung {
        return Some(false);
    }
    scratch.data.clear();
    let code = command::outside(state, &message, &mut scratch.data);
    scratch.plain.clear();
    wire::response(&message, code, if code == command::OK { &scratch.data } else { &[] }, &mut scratch.plain);
    frame(&scratch.plain, &mut scratch.reply);
    Some(true)
}

/// An authenticated and encrypted packet, not yet checked.
struct Sealed<'a> {
    session: u32,
    sequence: u32,
    payload: &'a [u8],
    from_auth_type: &'a [u8],
}

fn inside(state: &mut State, now: Instant, sealed: Sealed<'_>, scratch: &mut Scratch) -> Option<bool> {
    let idle = Duration::from_millis(state.profile.ipmi_idle_ms);
    let replays = state.profile.executes_replays;
    let session = state.ipmi.find(sealed.session)?;
    let up = session.up.as_mut()?;
    let covered = up.keys.checked(sealed.from_auth_type)?;
    if !wire::trailer_is_sound(covered, sealed.payload.len()) {
        return None;
    }
    if now.saturating_duration_since(session.last_heard) >= idle {
        state.ipmi.remove(sealed.session);
        return None;
    }
    match up.arrives(sealed.sequence) {
        Arrival::New => {}
        Arrival::Replay if replays => {}
        Arrival::Replay | Arrival::OutOfWindow => return None,
    }
    let Scratch { plain, data, reply, clear, forged: fake } = scratch;
    up.keys.decrypt(sealed.payload, plain)?;
    let message = wire::message(plain)?;
    session.last_heard = now;
    let caller = Caller { session: sealed.session, user: up.user.clone(), limit: up.limit, privilege: up.privilege };
    let request = command::kind(message.netfn, message.command);
    let step = match request {
        Request::SetPrivilege => Step::SetPrivilege,
        Request::CloseSession => Step::Close,
        _ => Step::Command,
    };
    if hangs(state, step) {
        return Some(false);
    }
    data.clear();
    let mut effects = Effects::default();
    let code = command::inside(state, now, &caller, &message, data, &mut effects);
    let done_and_silent = match request {
        Request::ChassisControl => hangs(state, Step::Order),
        Request::SetPassword => hangs(state, Step::Password),
        _ => false,
    };
    if done_and_silent {
        return Some(false);
    }
    let forge = state.faults.as_ref().is_some_and(|faults| faults.forge);
    let iv = state.rng.bytes16();
    // A reboot met the command: its session is gone, and so is the answer.
    let Some(session) = state.ipmi.find(sealed.session) else { return Some(false) };
    let remote = session.remote;
    let up = session.up.as_mut()?;
    if let Some(privilege) = effects.raise_to {
        up.privilege = privilege;
    }
    let sequence = up.next_sequence();
    if forge {
        forged(&message, request, data, remote, sequence, fake);
    }
    clear.clear();
    wire::response(&message, code, if code == command::OK { data } else { &[] }, clear);
    wire::header(0xC0, remote, sequence, reply);
    up.keys.encrypt(iv, clear, reply);
    let len = reply.len() - wire::PAYLOAD_AT;
    wire::set_length(reply, len);
    wire::trailer(reply);
    up.keys.seal(reply, wire::AUTH_TYPE_AT);
    if let Some(id) = effects.close {
        state.ipmi.remove(id);
    }
    Some(true)
}

/// What an attacker who can write to the network but not read keys would send: the right numbers, the wrong state, no proof.
fn forged(message: &wire::Message<'_>, request: Request, data: &[u8], remote: u32, sequence: u32, out: &mut Vec<u8>) {
    let mut data = data.to_vec();
    if request == Request::ChassisStatus {
        if data.is_empty() {
            data = vec![0, 0, 0x40, 0];
        }
        if let Some(power) = data.first_mut() {
            *power ^= 1;
        }
    }
    let mut clear = Vec::new();
    wire::response(message, command::OK, &data, &mut clear);
    wire::plain_packet(0, remote, sequence, &clear, out);
}

/// Applies the faults that touch answers.
fn spoil(state: &mut State, reply: &[u8], forged: &[u8]) -> Vec<Outgoing> {
    let State { faults: Some(faults), fault_memory, rng, .. } = state else { return Vec::new() };
    fault_memory.answers += 1;
    let mut out = Vec::new();
    if !forged.is_empty() {
        out.push(Outgoing { after: Duration::ZERO, bytes: forged.to_vec() });
    }
    if rng.chance(faults.loss) {
        return out;
    }
    let mut bytes = reply.to_vec();
    if faults.wrong_session_id
        && let Some(id) = bytes.get_mut(6..10)
    {
        id.iter_mut().for_each(|byte| *byte ^= 0x5A);
    }
    if rng.chance(faults.garble) {
        for _ in 0..3 {
            let place = rng.below(bytes.len());
            let mask = rng.bytes16()[0] | 1;
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= mask;
            }
        }
    }
    if rng.chance(faults.truncate) {
        bytes.truncate(rng.below(bytes.len()));
    }
    let late = faults.late.filter(|late| fault_memory.answers % late.nth.max(1) == 0).map_or(0, |late| late.ms);
    let mut after = Duration::from_millis(faults.slow_ms.saturating_add(late));
    if rng.chance(faults.reorder) {
        after += REORDER_HOLD;
    }
    if rng.chance(faults.duplicate) {
        out.push(Outgoing { after, bytes: bytes.clone() });
    }
    out.push(Outgoing { after, bytes });
    out
}
