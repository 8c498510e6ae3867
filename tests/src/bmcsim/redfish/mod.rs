//! The Redfish side of a BMC: a request and the time in, an answer (or a fault) out. Sockets are in [`server`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::bmc::{Bmc, LoginRefusal, Privilege, Source, State};
use super::faults::{Body, Cut, Request, Said, Step, Unplug};

mod http;
mod resources;
pub(crate) mod server;
pub(crate) mod tls;

use http::{HttpReply, HttpRequest};

/// What the Redfish side of one BMC keeps.
#[derive(Debug, Default)]
pub(crate) struct Web {
    sessions: Vec<WebSession>,
    number: u64,
    shown: Option<Shown>,
    pub(crate) identity: Option<Arc<tls::Identity>>,
}

/// The system resource as last shown, to be shown again while nothing about it changes: a poll is the commonest request.
#[derive(Debug)]
struct Shown {
    said: Said,
    restore_policy: u8,
    etag: String,
    body: Vec<u8>,
}

#[derive(Debug)]
struct WebSession {
    id: String,
    token: String,
    user: String,
    used: Instant,
}

impl Web {
    pub(crate) fn forget_sessions(&mut self) {
        self.sessions.clear();
    }

    pub(crate) fn forget_sessions_of(&mut self, user: &str) {
        self.sessions.retain(|session| session.user != user);
    }

    /// The profile changed: what was shown is no longer so.
    pub(crate) fn forget_shown(&mut self) {
        self.shown = None;
    }

    pub(crate) const fn session_count(&self) -> usize {
        self.sessions.len()
    }
}

/// Who asks, and what it may.
#[derive(Debug, Clone)]
struct Caller {
    user: String,
    limit: Privilege,
    /// May do nothing but change its password.
    must_change: bool,
}

/// What the connection does with a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Sends this, after that.
    Reply { reply: HttpReply, after: Duration, spoil: Spoil },
    /// Never answers.
    Hang,
    /// Closes the connection.
    Cut,
}

/// What happens to an answer on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoil {
    /// Nothing.
    No,
    /// Cut short in mid-body.
    Truncate,
    /// So many bytes, announced.
    Huge(u64),
    /// Chunks without end.
    Endless,
}

/// Serves one request.
pub(crate) fn handle(bmc: &Bmc, now: Instant, request: &HttpRequest) -> Outcome {
    let mut state = bmc.lock();
    let state = &mut *state;
    state.counters.http_requests += 1;
    let cut_at = state.faults.as_ref().and_then(|faults| faults.drop_at);
    let unplugged = state.faults.as_ref().and_then(|faults| faults.unplug);
    if state.is_silent(now) || unplugged == Some(Unplug::Silent) {
        return Outcome::Hang;
    }
    if unplugged == Some(Unplug::Refused) || cut_at == Some(Cut::Request) {
        return Outcome::Cut;
    }
    let loss = state.faults.as_ref().map_or(0.0, |faults| faults.loss);
    if state.rng.chance(loss) {
        return Outcome::Cut;
    }
    let kind = resources::kind(state, request);
    if hangs_before(state, kind) {
        return Outcome::Hang;
    }
    let reply = refused(state, kind).unwrap_or_else(|| resources::answer(bmc, state, now, request));
    let hang_after = match kind {
        Request::Reset => hangs(state, Step::Order),
        Request::SetPassword => hangs(state, Step::Password),
        _ => false,
    };
    if hang_after || state.silent_until.is_some() {
        return Outcome::Hang;
    }
    if cut_at == Some(Cut::Answer) || state.rng.chance(loss) {
        return Outcome::Cut;
    }
    spoiled(state, reply)
}

fn hangs(state: &State, step: Step) -> bool {
    state.faults.as_ref().is_some_and(|faults| faults.hang_at == Some(step))
}

fn hangs_before(state: &State, kind: Request) -> bool {
    match kind {
        Request::Root => false,
        Request::Login => hangs(state, Step::Login),
        Request::Logout => hangs(state, Step::Close),
        _ => hangs(state, Step::Command),
    }
}

fn refused(state: &mut State, kind: Request) -> Option<HttpReply> {
    let rule = state.refusal(kind, |rule| rule.status.is_some())?;
    let status = rule.status?;
    let reply = error(status, rule.message_id.as_deref().unwrap_or("Base.1.8.GeneralError"), "Told to refuse.");
    Some(match rule.retry_after {
        Some(seconds) => reply.header("Retry-After", seconds.to_string()),
        None => reply,
    })
}

fn spoiled(state: &mut State, mut reply: HttpReply) -> Outcome {
    let State { faults, fault_memory, rng, .. } = state;
    let Some(faults) = faults else { return Outcome::Reply { reply, after: Duration::ZERO, spoil: Spoil::No } };
    fault_memory.answers += 1;
    let late = faults.late.filter(|late| fault_memory.answers % late.nth.max(1) == 0).map_or(0, |late| late.ms);
    let after = Duration::from_millis(faults.slow_ms.saturating_add(late));
    if rng.chance(faults.garble) {
        let middle = reply.body.len() / 2;
        reply.body.splice(middle..middle, *b"}\x00\xFF{");
    }
    let spoil = match faults.body {
        Some(Body::Huge(bytes)) => Spoil::Huge(bytes),
        Some(Body::Endless) => Spoil::Endless,
        None if rng.chance(faults.truncate) => Spoil::Truncate,
        None => Spoil::No,
    };
    Outcome::Reply { reply, after, spoil }
}

/// A Redfish error body (DSP0266 §8.6).
fn error(status: u16, message_id: &str, message: &str) -> HttpReply {
    error_with(status, message_id, message, &[])
}

fn error_with(status: u16, message_id: &str, message: &str, arguments: &[&str]) -> HttpReply {
    let info = extended_info(message_id, message, arguments);
    HttpReply::json(status, &json!({"error": {"code": message_id, "message": message, "@Message.ExtendedInfo": [info]}}))
}

fn extended_info(message_id: &str, message: &str, arguments: &[&str]) -> Value {
    json!({"@odata.type": "#Message.v1_1_1.Message", "MessageId": message_id, "Message": message, "MessageArgs": arguments,
        "Severity": "Critical", "Resolution": "None."})
}

fn body(request: &HttpRequest) -> Option<Value> {
    serde_json::from_slice::<Value>(&request.body).ok().filter(Value::is_object)
}

/// Finds who asks, by session token or basic authentication.
fn authenticate(state: &mut State, now: Instant, request: &HttpRequest) -> Result<Caller, HttpReply> {
    let denied = || error(401, "Base.1.8.NoValidSession", "There is no valid session.");
    let idle = Duration::from_millis(state.profile.redfish_idle_ms);
    if let Some(token) = &request.token {
        state.web.sessions.retain(|session| now.saturating_duration_since(session.used) < idle);
        let session = state.web.sessions.iter_mut().find(|session| session.token == *token).ok_or_else(denied)?;
        session.used = now;
        let user = state.users.iter().find(|user| user.enabled && user.name == session.user).ok_or_else(denied)?;
        return Ok(Caller { user: user.name.clone(), limit: user.limit, must_change: user.must_change });
    }
    let basic = request.authorization.as_deref().and_then(|value| value.strip_prefix("Basic ")).ok_or_else(denied)?;
    let basic = BASE64_STANDARD.decode(basic.trim()).map_err(|_| denied())?;
    let split = basic.iter().position(|byte| *byte == b':').ok_or_else(denied)?;
    let (name, password) = basic.split_at(split);
    log_in(state, now, &String::from_utf8_lossy(name), password.get(1..).unwrap_or(&[]))
        .map_err(|_| denied().header("WWW-Authenticate", "Basic realm=\"bmc\""))
}

/// Checks a name and password; failures are counted and may lock the user.
fn log_in(state: &mut State, now: Instant, name: &str, password: &[u8]) -> Result<Caller, LoginRefusal> {
    let result = match state.may_log_in(name, now) {
        Ok(user) if user.password == password => {
            Ok(Caller { user: user.name.clone(), limit: user.limit, must_change: user.must_change })
        }
        Ok(_) => Err(LoginRefusal::Password),
        Err(why) => Err(why),
    };
    if let Err(why) = result {
        state.login_failed(Source::Redfish, name, why, now);
    }
    result
}
