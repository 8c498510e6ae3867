//! Open Session and RAKP 1 to 4 (§13.17–13.23), as the managed system sees them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::bmc::{LoginRefusal, Privilege, Source, State};
use super::super::faults::{Request, Step};
use super::crypto::{Keyed, PacketKeys, Suite};
use super::hangs;
use super::session::{Rakp, Session, Up};

const NO_RESOURCES: u8 = 0x01;
const INVALID_SESSION: u8 = 0x02;
const INVALID_ROLE: u8 = 0x09;
const INVALID_NAME_LENGTH: u8 = 0x0C;
const UNAUTHORIZED_NAME: u8 = 0x0D;
const INVALID_INTEGRITY_VALUE: u8 = 0x0F;
const NO_SUITE_MATCH: u8 = 0x11;

/// Lets answer a handshake payload: appends the answer's payload to `out` and returns its type; `None` for silence.
pub(super) fn answer(
    state: &mut State,
    now: Instant,
    peer: SocketAddr,
    payload_type: u8,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Option<u8> {
    match payload_type {
        0x10 => open(state, now, peer, payload, out).map(|()| 0x11),
        0x12 => rakp1(state, now, payload, out).map(|()| 0x13),
        0x14 => rakp3(state, now, payload, out).map(|()| 0x15),
        _ => None,
    }
}

/// A refusal: tag, status, two bytes, and whose session it was.
fn refuse(state: &State, tag: u8, status: u8, remote: [u8; 4], out: &mut Vec<u8>) {
    out.extend_from_slice(&[tag, status]);
    if !state.faults.as_ref().is_some_and(|faults| faults.short_errors) {
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&remote);
    }
}

fn told_to_refuse(state: &mut State, request: Request) -> Option<u8> {
    state.refusal(request, |rule| rule.code.is_some() && rule.on != Request::Any)?.code
}

fn open(state: &mut State, now: Instant, peer: SocketAddr, payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if hangs(state, Step::OpenSession) {
        return None;
    }
    let [tag, asked, _, _, r0, r1, r2, r3, algorithms @ ..] = payload else { return None };
    let remote = [*r0, *r1, *r2, *r3];
    let algorithms = algorithms.get(..24)?;
    state.ipmi.expire(now, Duration::from_millis(state.profile.ipmi_idle_ms));
    let suite = match choose(state, algorithms) {
        Ok(suite) => suite,
        Err(status) => {
            refuse(state, *tag, status, remote, out);
            return Some(());
        }
    };
    if let Some(status) = told_to_refuse(state, Request::OpenSession) {
        refuse(state, *tag, status, remote, out);
        return Some(());
    }
    let remote_id = u32::from_le_bytes(remote);
    let again = state.ipmi.reopened(peer, remote_id).map(|session| {
        session.last_heard = now;
        session.suite = suite;
        session.asked = *asked & 0x0F;
        session.id
    });
    let id = match again {
        Some(id) => id,
        None => {
            let used_up = state.faults.as_ref().is_some_and(|faults| faults.sessions_used_up);
            if used_up || state.ipmi.len() >= state.profile.ipmi_sessions {
                refuse(state, *tag, NO_RESOURCES, remote, out);
                return Some(());
            }
            let id = fresh_id(state);
            state.ipmi.push(Session {
                id,
                remote: remote_id,
                peer,
                suite,
                last_heard: now,
                asked: *asked & 0x0F,
                rakp: None,
                up: None,
            });
            id
        }
    };
    let highest = if asked & 0x0F == 0 { Privilege::Administrator as u8 } else { asked & 0x0F };
    out.extend_from_slice(&[*tag, 0, highest, 0]);
    out.extend_from_slice(&remote);
    out.extend_from_slice(&id.to_le_bytes());
    for (kind, algorithm) in (0u8..).zip(suite.algorithms()) {
        out.extend_from_slice(&[kind, 0, 0, 8, algorithm, 0, 0, 0]);
    }
    Some(())
}

/// The suite for a proposal: 24 bytes, three algorithm records. A record of length 0 leaves the choice to the BMC.
fn choose(state: &State, algorithms: &[u8]) -> Result<Suite, u8> {
    let faults = state.faults.as_ref();
    if let Some(suite) = faults.and_then(|faults| faults.answer_suite).and_then(Suite::from_id) {
        return Ok(suite);
    }
    let asked = |index: usize| match algorithms.get(index * 8..index * 8 + 8) {
        Some([_, _, _, 0, ..]) => None,
        Some([_, _, _, _, algorithm, ..]) => Some(algorithm & 0x3F),
        _ => Some(0xFF),
    };
    let mut offered: Vec<Suite> = state.profile.suites.iter().filter_map(|id| Suite::from_id(*id)).collect();
    offered.sort_by_key(|suite| std::cmp::Reverse(suite.id()));
    offered
        .into_iter()
        .find(|suite| (0..3).zip(suite.algorithms()).all(|(index, has)| asked(index).is_none_or(|wants| wants == has)))
        .ok_or_else(|| faults.and_then(|faults| faults.suite_refusal).unwrap_or(NO_SUITE_MATCH))
}

fn fresh_id(state: &mut State) -> u32 {
    loop {
        let id = u32::try_from(state.rng.next() >> 32).unwrap_or(0);
        if id != 0 && state.ipmi.find(id).is_none() {
            return id;
        }
    }
}

fn rakp1(state: &mut State, now: Instant, payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if hangs(state, Step::Rakp1) {
        return None;
    }
    let (head, rest) = payload.split_at_checked(24)?;
    let [tag, _, _, _, i0, i1, i2, i3, random @ ..] = head else { return None };
    let [role, _, _, name_len, name @ ..] = rest else { return None };
    let id = u32::from_le_bytes([*i0, *i1, *i2, *i3]);
    let console_random: [u8; 16] = random.try_into().ok()?;
    let Some(session) = state.ipmi.find(id) else {
        refuse(state, *tag, INVALID_SESSION, [0; 4], out);
        return Some(());
    };
    let (remote, suite, asked) = (session.remote.to_le_bytes(), session.suite, session.asked);
    if session.up.is_some() {
        return None;
    }
    session.last_heard = now;
    let earlier = session.rakp.as_ref().filter(|rakp| rakp.console_random == console_random).map(|rakp| rakp.bmc_random);
    let status = if *name_len > 16 {
        INVALID_NAME_LENGTH
    } else if role & 0x0F == 0 || (asked != 0 && role & 0x0F > asked) {
        INVALID_ROLE
    } else {
        told_to_refuse(state, Request::Rakp1).unwrap_or(0)
    };
    if status != 0 {
        state.ipmi.remove(id);
        refuse(state, *tag, status, remote, out);
        return Some(());
    }
    let name = name.get(..usize::from(*name_len))?;
    let user = match find_user(state, now, name, *role) {
        Ok(user) => user,
        Err(status) => {
            state.ipmi.remove(id);
            if status == UNAUTHORIZED_NAME && !state.profile.tells_unknown_user {
                return None;
            }
            refuse(state, *tag, status, remote, out);
            return Some(());
        }
    };
    state.counters.logins_begun += u64::from(earlier.is_none());
    let bmc_random = earlier.unwrap_or_else(|| state.rng.bytes16());
    let key = Keyed::new(suite, user.password.get(..user.password.len().min(state.profile.password_max)).unwrap_or(&[]));
    let sik_key = if state.profile.kg.is_empty() { key.clone() } else { Keyed::new(suite, state.profile.kg.as_bytes()) };
    // The role byte in the codes; with the fault, the privilege of Open Session.
    let hashed = if state.profile.open_session_privilege && asked != 0 { asked } else { *role };
    let role_and_name: &[&[u8]] = &[&[hashed, *name_len], name];
    let [role_len, name] = role_and_name else { return None };
    let code = key.code(&[&remote, &id.to_le_bytes(), &console_random, &bmc_random, state.guid.as_bytes(), role_len, name]);
    let sik = sik_key.code(&[&console_random, &bmc_random, role_len, name]);
    out.extend_from_slice(&[*tag, 0, 0, 0]);
    out.extend_from_slice(&remote);
    out.extend_from_slice(&bmc_random);
    out.extend_from_slice(state.guid.as_bytes());
    let from = out.len();
    out.extend_from_slice(code.as_slice());
    if state.faults.as_ref().is_some_and(|faults| faults.zero_rakp2) {
        out.get_mut(from..).unwrap_or_default().fill(0);
    }
    let rakp = Rakp {
        console_random,
        bmc_random,
        role: hashed,
        user: user.name,
        key,
        sik: Keyed::new(suite, sik.as_slice()),
        limit: user.limit,
    };
    if let Some(session) = state.ipmi.find(id) {
        session.rakp = Some(rakp);
    }
    Some(())
}

struct Found {
    name: String,
    password: Vec<u8>,
    limit: Privilege,
}

fn find_user(state: &mut State, now: Instant, name: &[u8], role: u8) -> Result<Found, u8> {
    let (exact, privilege_status) = (state.profile.exact_privilege, state.profile.privilege_status);
    let name = String::from_utf8_lossy(name).into_owned();
    match state.may_log_in(&name, now) {
        Ok(user) => {
            let asked = role & 0x0F;
            let limit = user.limit as u8;
            if asked > limit || (exact && asked != limit) {
                return Err(privilege_status);
            }
            let limit = Privilege::from_ipmi(asked).unwrap_or(Privilege::User).min(user.limit);
            Ok(Found { name: user.name.clone(), password: user.password.clone(), limit })
        }
        Err(why) => {
            state.login_failed(Source::Ipmi, &name, why, now);
            Err(UNAUTHORIZED_NAME)
        }
    }
}

fn rakp3(state: &mut State, now: Instant, payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if hangs(state, Step::Rakp3) {
        return None;
    }
    let [tag, status, _, _, i0, i1, i2, i3, code @ ..] = payload else { return None };
    let id = u32::from_le_bytes([*i0, *i1, *i2, *i3]);
    let told = told_to_refuse(state, Request::Rakp3);
    let guid = state.guid;
    let Some(session) = state.ipmi.find(id) else {
        refuse(state, *tag, INVALID_SESSION, [0; 4], out);
        return Some(());
    };
    session.last_heard = now;
    let (remote, suite) = (session.remote.to_le_bytes(), session.suite);
    let rakp = session.rakp.as_ref()?;
    let user = rakp.user.clone();
    if *status != 0 {
        // The console found our RAKP 2 wrong: it does not know the password. It expects no answer.
        state.ipmi.remove(id);
        state.login_failed(Source::Ipmi, &user, LoginRefusal::Password, now);
        return None;
    }
    let name_len = [u8::try_from(user.len()).unwrap_or(0)];
    let expected = rakp.key.code(&[&rakp.bmc_random, &remote, &[rakp.role], &name_len, user.as_bytes()]);
    if expected.as_slice() != code {
        state.ipmi.remove(id);
        state.login_failed(Source::Ipmi, &user, LoginRefusal::Password, now);
        refuse(state, *tag, INVALID_INTEGRITY_VALUE, remote, out);
        return Some(());
    }
    if let Some(status) = told {
        state.ipmi.remove(id);
        refuse(state, *tag, status, remote, out);
        return Some(());
    }
    let check = rakp.sik.code(&[&rakp.console_random, &id.to_le_bytes(), guid.as_bytes()]);
    // RAKP 3 sent again (its answer was lost) gets the same RAKP 4 and changes nothing.
    let first = session.up.is_none();
    if first {
        session.up = Some(Up::new(PacketKeys::new(suite, &rakp.sik), user.as_str().into(), rakp.limit));
    }
    if first {
        state.login_succeeded(Source::Ipmi, &user, if suite == Suite::Seventeen { "suite-17" } else { "suite-3" });
    }
    out.extend_from_slice(&[*tag, 0, 0, 0]);
    out.extend_from_slice(&remote);
    out.extend_from_slice(check.truncated(suite.code_len()));
    Some(())
}
