//! The commands of a BMC, in a session and before one: App, Chassis and a little Storage (IPMI 2.0 §20–§28). Power orders
//! go to the chassis; what is not here is 0xC1.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::bmc::{Identify, Privilege, Source, State, User};
use super::super::chassis::{Action, Taken};
use super::super::faults::{Request, Said};
use super::super::profile::GuidOrder;
use super::wire::Message;

pub(super) const OK: u8 = 0x00;
/// Boot options: the parameter is not supported.
const NO_PARAMETER: u8 = 0x80;
/// Boot options: somebody is setting them.
const SET_IN_PROGRESS: u8 = 0x81;
const BUSY: u8 = 0xC0;
const INVALID_COMMAND: u8 = 0xC1;
const INVALID_LENGTH: u8 = 0xC7;
const NOT_PRESENT: u8 = 0xCB;
const INVALID_FIELD: u8 = 0xCC;
const PRIVILEGE: u8 = 0xD4;

/// Bytes of an answer after its completion code.
pub(super) type Data = Vec<u8>;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) session: u32,
    pub(super) user: Arc<str>,
    pub(super) limit: Privilege,
    pub(super) privilege: Privilege,
}

/// What a command leads to beyond its answer.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) raise_to: Option<Privilege>,
    pub(super) close: Option<u32>,
}

/// Which kind of request a command is, for faults.
pub(super) const fn kind(netfn: u8, command: u8) -> Request {
    match (netfn, command) {
        (0, 0x01) => Request::ChassisStatus,
        (0, 0x02) => Request::ChassisControl,
        (0, 0x04) => Request::Identify,
        (0, 0x08 | 0x09) => Request::Boot,
        (6, 0x01) => Request::DeviceId,
        (6, 0x37) => Request::SystemGuid,
        (6, 0x38) => Request::AuthCapabilities,
        (6, 0x3B) => Request::SetPrivilege,
        (6, 0x3C) => Request::CloseSession,
        (6, 0x47) => Request::SetPassword,
        (6, 0x54) => Request::CipherSuites,
        _ => Request::Other,
    }
}

/// Answers a command sent outside a session.
pub(super) fn outside(state: &mut State, message: &Message<'_>, out: &mut Data) -> u8 {
    if let Some(code) = told(state, kind(message.netfn, message.command)) {
        return code;
    }
    match (message.netfn, message.command) {
        (6, 0x38) => auth_capabilities(state, message.data, out),
        (6, 0x54) => cipher_suites(state, message.data, out),
        (6, 0x37) => guid(state, out),
        _ => PRIVILEGE,
    }
}

/// Answers a command of a session.
pub(super) fn inside(
    state: &mut State,
    now: Instant,
    caller: &Caller,
    message: &Message<'_>,
    out: &mut Data,
    effects: &mut Effects,
) -> u8 {
    if let Some(code) = told(state, kind(message.netfn, message.command)) {
        return code;
    }
    if caller.privilege < needed(message) {
        return PRIVILEGE;
    }
    let data = message.data;
    match (message.netfn, message.command) {
        (0, 0x08 | 0x09) | (6, 0x37 | 0x43..=0x47) if state.profile.bare => INVALID_COMMAND,
        (0, 0x00) => answer(out, &[0x00, 0x20, 0x20, 0x20, 0x20]),
        (0, 0x01) => chassis_status(state, now, out),
        (0, 0x02) => chassis_control(state, now, caller, data),
        (0, 0x04) => identify(state, now, caller, data),
        (0, 0x06) => restore_policy(state, caller, data, out),
        (0, 0x07) => answer(out, &[1, 1]),
        (0, 0x08) => set_boot(state, caller, data),
        (0, 0x09) => boot(state, data, out),
        (0, 0x0F) => answer(out, &[60, 1, 0, 0, 0]),
        (6, 0x01) => device_id(state, out),
        (6, 0x02 | 0x03) => restart(state, now, caller),
        (6, 0x04) => answer(out, &[0x55, 0]),
        (6, 0x37 | 0x08) => guid(state, out),
        (6, 0x38) => auth_capabilities(state, data, out),
        (6, 0x3B) => set_privilege(caller, data, out, effects),
        (6, 0x3C) => close(state, caller, data, effects),
        (6, 0x3D) => session_info(state, caller, out),
        (6, 0x41) => answer(out, &[0x22, 0x04]),
        (6, 0x42) => answer(out, &[1, 4, 1, 0x80 | count(state.ipmi.up_count()), 0xF2, 0x1B, 0, 0, 0]),
        (6, 0x43) => set_user_access(state, caller, data),
        (6, 0x44) => user_access(state, data, out),
        (6, 0x45) => set_user_name(state, caller, data),
        (6, 0x46) => user_name(state, data, out),
        (6, 0x47) => set_password(state, now, caller, data),
        (6, 0x54) => cipher_suites(state, data, out),
        (0x0A, 0x40) => answer(out, &[0x51, 0, 0, 0x00, 0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02]),
        (0x0A, 0x42) => answer(out, &[1, 0]),
        (0x0A, 0x43) => NOT_PRESENT,
        (0x0A, 0x48) => answer(out, &[0, 0, 0, 0]),
        _ => INVALID_COMMAND,
    }
}

fn told(state: &mut State, request: Request) -> Option<u8> {
    state.faults.as_ref()?;
    if state.faults.as_ref().is_some_and(|faults| faults.sessions_used_up) && request == Request::ChassisControl {
        return Some(BUSY);
    }
    // Closing and raising privilege are refused only when named: "any" means what a user asks for.
    let named_only =
        matches!(request, Request::CloseSession | Request::SetPrivilege | Request::AuthCapabilities | Request::CipherSuites);
    state.refusal(request, |rule| rule.code.is_some() && (rule.on != Request::Any || !named_only))?.code
}

/// The privilege a command needs (§G.1).
const fn needed(message: &Message<'_>) -> Privilege {
    match (message.netfn, message.command) {
        (0, 0x02 | 0x04 | 0x06 | 0x08 | 0x09) | (6, 0x44 | 0x46) => Privilege::Operator,
        (6, 0x02 | 0x03 | 0x43 | 0x45 | 0x47) => Privilege::Administrator,
        _ => Privilege::User,
    }
}

fn answer(out: &mut Data, bytes: &[u8]) -> u8 {
    out.extend_from_slice(bytes);
    OK
}

fn count(number: usize) -> u8 {
    u8::try_from(number.min(63)).unwrap_or(63)
}

fn auth_capabilities(state: &State, data: &[u8], out: &mut Data) -> u8 {
    let [channel, _] = data else { return INVALID_LENGTH };
    let extended = if channel & 0x80 != 0 { 0x80 } else { 0 };
    let kg = if state.profile.kg.is_empty() { 0 } else { 0x20 };
    // No 1.5 authentication type is offered, only RMCP+; names are required.
    answer(out, &[1, extended, kg | 0x04, 0x02, 0, 0, 0, 0])
}

fn cipher_suites(state: &State, data: &[u8], out: &mut Data) -> u8 {
    let [_, _, index] = data else { return INVALID_LENGTH };
    let mut records = Vec::with_capacity(16);
    for id in &state.profile.suites {
        if let Some(suite) = super::crypto::Suite::from_id(*id) {
            let [authentication, integrity, confidentiality] = suite.algorithms();
            records.extend_from_slice(&[0xC0, *id, authentication, 0x40 | integrity, 0x80 | confidentiality]);
        }
    }
    out.push(1);
    out.extend(records.chunks(16).nth(usize::from(index & 0x3F)).unwrap_or(&[]));
    OK
}

fn guid(state: &State, out: &mut Data) -> u8 {
    let mut bytes = match state.profile.guid_order {
        GuidOrder::Smbios => state.guid.to_bytes_le(),
        GuidOrder::Written | GuidOrder::Reversed => state.guid.into_bytes(),
    };
    if state.profile.guid_order == GuidOrder::Reversed {
        bytes.reverse();
    }
    answer(out, &bytes)
}

fn device_id(state: &State, out: &mut Data) -> u8 {
    let (major, minor) = state.profile.firmware.split_once('.').unwrap_or(("1", "0"));
    let major = major.parse::<u8>().unwrap_or(1) & 0x7F;
    // The minor revision is BCD.
    let minor = u8::from_str_radix(minor, 16).unwrap_or(0);
    let [m0, m1, m2, _] = state.profile.manufacturer_id.to_le_bytes();
    let [p0, p1] = state.profile.product_id.to_le_bytes();
    answer(out, &[0x20, 0x81, major, minor, 0x02, 0xBF, m0, m1, m2, p0, p1, 0, 0, 0, 0])
}

fn chassis_status(state: &mut State, now: Instant, out: &mut Data) -> u8 {
    let on = matches!(state.reading(now), Said::On | Said::PoweringOff);
    let identify = if state.identify.is_lit(now) { 0x20 } else { 0 };
    let by_command = if on { 0x10 } else { 0 };
    answer(out, &[u8::from(on) | (state.profile.restore_policy & 3) << 5, by_command, 0x40 | identify, 0])
}

fn chassis_control(state: &mut State, now: Instant, caller: &Caller, data: &[u8]) -> u8 {
    let [control] = data else { return INVALID_LENGTH };
    let action = match control & 0x0F {
        0 => Action::Off,
        1 => Action::On,
        2 => Action::Cycle,
        3 => Action::Reset,
        4 => Action::Diag,
        5 => Action::Soft,
        _ => return INVALID_FIELD,
    };
    let taken = state.order(Source::Ipmi, &caller.user, action, now);
    let code = match (taken, action) {
        (Taken::Accepted, _) | (Taken::Unchanged, Action::On) => OK,
        (Taken::Unchanged, _) => state.profile.off_when_off,
        (Taken::WrongState, Action::Cycle) if state.profile.cycle_when_off == OK => {
            state.chassis.act(Action::On, now, state.profile.delays());
            OK
        }
        (Taken::WrongState, Action::Cycle) => state.profile.cycle_when_off,
        (Taken::WrongState, _) => state.profile.reset_when_off,
    };
    if code != OK
        && let Some(call) = state.calls.back_mut()
    {
        call.result = format!("refused-0x{code:02x}");
    }
    code
}

fn identify(state: &mut State, now: Instant, caller: &Caller, data: &[u8]) -> u8 {
    if data.len() > 1 && state.profile.identify_one_byte {
        return INVALID_LENGTH;
    }
    let seconds = |seconds: u8| Identify::Until(now + Duration::from_secs(u64::from(seconds)));
    let (light, what) = match data {
        [_, 1, ..] => (Identify::On, "on".to_owned()),
        [0, ..] => (Identify::Off, "off".to_owned()),
        [time, ..] => (seconds(*time), format!("on-{time}s")),
        [] => (seconds(15), "on-15s".to_owned()),
    };
    state.identify = light;
    state.record(Source::Ipmi, &caller.user, "identify", what);
    OK
}

fn restore_policy(state: &mut State, caller: &Caller, data: &[u8], out: &mut Data) -> u8 {
    let [policy] = data else { return INVALID_LENGTH };
    if policy & 7 < 3 {
        state.profile.restore_policy = policy & 3;
        state.record(Source::Ipmi, &caller.user, "restore-policy", policy.to_string());
    }
    answer(out, &[0x07])
}

fn set_boot(state: &mut State, caller: &Caller, data: &[u8]) -> u8 {
    let [parameter, value @ ..] = data else { return INVALID_LENGTH };
    let parameter = parameter & 0x7F;
    if parameter > 7 {
        return NO_PARAMETER;
    }
    let in_progress = state.boot_parameters.get(&0).is_some_and(|value| value.first() == Some(&1));
    if parameter == 0 && value.first() == Some(&1) && in_progress {
        return SET_IN_PROGRESS;
    }
    if parameter == 5 {
        let [flags, device, ..] = value else { return INVALID_LENGTH };
        if state.faults.as_ref().is_some_and(|faults| faults.ignore_boot) {
            state.record(Source::Ipmi, &caller.user, "boot", "ignored");
            return OK;
        }
        state.boot.target = match device >> 2 & 0x0F {
            0 => "None",
            1 => "Pxe",
            2 | 3 => "Hdd",
            9 => "RemoteDrive",
            5 => "Cd",
            6 => "BiosSetup",
            _ => "Floppy",
        }
        .into();
        state.boot.enabled = match flags & 0xC0 {
            0xC0 => "Continuous",
            0x80 => "Once",
            _ => "Disabled",
        }
        .into();
        let result = format!("{} {}", state.boot.target, state.boot.enabled);
        state.record(Source::Ipmi, &caller.user, "boot", result);
    }
    state.boot_parameters.insert(parameter, value.to_vec());
    OK
}

fn boot(state: &State, data: &[u8], out: &mut Data) -> u8 {
    let [parameter, ..] = data else { return INVALID_LENGTH };
    let parameter = parameter & 0x7F;
    if parameter > 7 {
        return NO_PARAMETER;
    }
    out.extend_from_slice(&[1, parameter]);
    let empty: &[u8] = match parameter {
        5 => &[0; 5],
        4 | 6 => &[0; 2],
        _ => &[0],
    };
    out.extend(state.boot_parameters.get(&parameter).map_or(empty, Vec::as_slice));
    OK
}

fn restart(state: &mut State, now: Instant, caller: &Caller) -> u8 {
    state.record(Source::Ipmi, &caller.user, "bmc-restart", "accepted");
    state.silent_until = Some(now + Duration::from_secs(2));
    state.ipmi.forget_all();
    OK
}

fn set_privilege(caller: &Caller, data: &[u8], out: &mut Data, effects: &mut Effects) -> u8 {
    let [level] = data else { return INVALID_LENGTH };
    let asked = match level & 0x0F {
        0 => caller.privilege,
        level => match Privilege::from_ipmi(level) {
            Some(privilege) => privilege,
            None => return INVALID_FIELD,
        },
    };
    if asked > caller.limit {
        return 0x81;
    }
    effects.raise_to = Some(asked);
    answer(out, &[asked as u8])
}

fn close(state: &mut State, caller: &Caller, data: &[u8], effects: &mut Effects) -> u8 {
    let [a, b, c, d, ..] = data else { return INVALID_LENGTH };
    let id = u32::from_le_bytes([*a, *b, *c, *d]);
    if id != caller.session && (caller.privilege < Privilege::Administrator || state.ipmi.find(id).is_none()) {
        return 0x87;
    }
    state.counters.logouts += 1;
    state.record(Source::Ipmi, &caller.user, "logout", "done");
    effects.close = Some(id);
    OK
}

fn session_info(state: &State, caller: &Caller, out: &mut Data) -> u8 {
    let id = user(state, &caller.user).map_or(0, |user| user.id);
    answer(out, &[1, count(state.profile.ipmi_sessions), count(state.ipmi.up_count()), id, caller.privilege as u8, 0x11])
}

fn user<'a>(state: &'a State, name: &str) -> Option<&'a User> {
    state.users.iter().find(|user| user.name == name)
}

fn user_access(state: &State, data: &[u8], out: &mut Data) -> u8 {
    let [_, id] = data else { return INVALID_LENGTH };
    let id = id & 0x3F;
    if id == 0 || id > USER_SLOTS {
        return INVALID_FIELD;
    }
    let enabled = count(state.users.iter().filter(|user| user.enabled).count());
    let found = state.users.iter().find(|user| user.id == id);
    let status = if found.is_some_and(|user| user.enabled) { 0x40 } else { 0x80 };
    let access = found.map_or(0x0F, |user| 0x10 | user.limit as u8);
    answer(out, &[USER_SLOTS, status | enabled, 0, access])
}

/// How many users a BMC holds.
const USER_SLOTS: u8 = 10;

fn slot(state: &mut State, id: u8) -> Option<&mut User> {
    if !(2..=USER_SLOTS).contains(&id) {
        return None;
    }
    if !state.users.iter().any(|user| user.id == id) {
        let mut user = User::new(id, "", "", Privilege::User);
        user.enabled = false;
        state.users.push(user);
    }
    state.users.iter_mut().find(|user| user.id == id)
}

fn set_user_access(state: &mut State, caller: &Caller, data: &[u8]) -> u8 {
    let [_, id, limit, ..] = data else { return INVALID_LENGTH };
    let Some(limit) = Privilege::from_ipmi(limit & 0x0F) else { return INVALID_FIELD };
    let Some(user) = slot(state, id & 0x3F) else { return INVALID_FIELD };
    user.limit = limit;
    state.record(Source::Ipmi, &caller.user, "set-user-access", format!("{} {}", id & 0x3F, limit.role()));
    OK
}

fn set_user_name(state: &mut State, caller: &Caller, data: &[u8]) -> u8 {
    let Some(([id], name)) = data.split_first_chunk::<1>() else { return INVALID_LENGTH };
    if name.len() != 16 {
        return INVALID_LENGTH;
    }
    let Some(user) = slot(state, id & 0x3F) else { return INVALID_FIELD };
    user.name = String::from_utf8_lossy(until_zero(name)).into_owned();
    state.record(Source::Ipmi, &caller.user, "set-user-name", (id & 0x3F).to_string());
    OK
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(&[])
}

fn user_name(state: &State, data: &[u8], out: &mut Data) -> u8 {
    let [id] = data else { return INVALID_LENGTH };
    let name = state.users.iter().find(|user| user.id == id & 0x3F).map_or("", |user| user.name.as_str());
    out.extend(name.bytes().chain(std::iter::repeat(0)).take(16));
    OK
}

fn set_password(state: &mut State, now: Instant, caller: &Caller, data: &[u8]) -> u8 {
    let [id, operation, password @ ..] = data else { return INVALID_LENGTH };
    let (long, id, operation) = (id & 0x80 != 0, id & 0x3F, operation & 3);
    if long && state.profile.password_max < 20 {
        return INVALID_LENGTH;
    }
    if operation >= 2 && password.len() != if long { 20 } else { 16 } {
        return INVALID_LENGTH;
    }
    let Some(user) = slot(state, id) else { return INVALID_FIELD };
    let password = until_zero(password);
    match operation {
        0 | 1 => {
            user.enabled = operation == 1;
            let name = user.name.clone();
            state.record(Source::Ipmi, &caller.user, if operation == 1 { "enable-user" } else { "disable-user" }, name);
            OK
        }
        2 => {
            let name = user.name.clone();
            state.set_password(Source::Ipmi, &caller.user, &name, password, now);
            OK
        }
        _ if user.password == password => OK,
        _ => 0x80,
    }
}
