//! One BMC's session: what to send, what to believe, what to try next.
//!
//! One request is outstanding at a time. Once the session is up only packets that are authenticated, encrypted and in
//! the sequence window are believed, and only an answer to a copy of the outstanding request ends it: a late answer
//! never answers a later question. Everything else is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use ipmi_rs_core::connection::Message;

use super::Random;
use super::command::{AuthCapabilities, CloseSession, GetAuthCapabilities, GetChassisStatus, SetSessionPrivilege};
use super::failure::Failure;
use super::guard::Guard;
use super::job::{Job, SILENCE};
use super::live::Live;
use super::login::{Established, Login, Rejection, Stage};
use super::quirks::{Quirk, Quirks};
use super::request::{CC_BUSY, CC_PRIVILEGE, Drops, Event, Reply, Request, Resend};
use super::script::About;
use super::settings::{Privilege, Settings};
use super::suite::Suite;
use super::wire::{self, Checksums, LanReply, LanRequest, Packet, Plus};
use crate::bmc::ErrorClass;

/// First wait for an answer; doubled with every copy.
const RETRANSMIT: Duration = Duration::from_millis(400);
/// Silence to Get Channel Authentication Capabilities after which the login goes on without it.
const CAPABILITIES_PATIENCE: Duration = Duration::from_millis(1200);
/// BMCs drop a session after about 60 s without a packet (§6.12.15): past this it is opened anew and not trusted.
const IDLE: Duration = Duration::from_secs(50);
/// A request that must not be sent twice is sent only into a session that spoke this recently.
const FRESH: Duration = Duration::from_secs(3);
/// Copies of Close Session, 400 ms apart and doubling; its answer is often missing.
const CLOSE_COPIES: u8 = 2;
/// Silence at a deadline after which a kept session is not trusted any more.
const SUSPECT: Duration = Duration::from_secs(1);
/// Copies of RAKP 1 without an answer, and answers to other questions meanwhile, that tell a refusal by silence from a
/// lossy network: one lost datagram in three looks like that in one login of thirty.
const UNANSWERED_COPIES: u8 = 3;
const ANSWERED_PROBES: u8 = 2;

/// What was found out about a BMC and outlives its sessions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Learned {
    /// The suite that worked last.
    suite: Option<Suite>,
    /// The level to begin the next login with.
    privilege: Option<Privilege>,
    /// What it told before the last login.
    capabilities: Option<AuthCapabilities>,
    /// Its peculiarities, as its proofs show them.
    detected: Quirks,
}

/// Is the BMC there while RAKP 1 stays without an answer? Asked from another source port, so that nothing is confused.
#[derive(Debug, Clone, Copy, Default)]
struct Probe {
    /// A question is to be sent.
    send: bool,
    /// Copies of RAKP 1 sent.
    copies: u8,
    asked: u8,
    answered: u8,
}

enum State {
    Idle,
    /// Waits for the authentication capabilities, asked for with the IPMI 2.0 bit or without.
    Caps {
        extended: bool,
    },
    /// About to propose a suite; the login's random bytes are drawn when it is sent.
    Propose(Suite),
    Login(Stage, Box<Login>),
    Up(Box<Live>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    SetPrivilege,
    /// Is the session still alive? Asked before what must not be sent twice.
    Probe,
    Command,
    Close,
}

/// The request outstanding in the session.
struct Exchange {
    what: What,
    /// The copies' sequence numbers are this and the following ones.
    first_rq_seq: u8,
    copies: u8,
    begun: Duration,
    /// The BMC said "busy": the timer is for asking again.
    busy: bool,
}

struct Timer {
    at: Duration,
    interval: Duration,
    since: Duration,
}

/// See the module.
pub struct Session {
    settings: Arc<Settings>,
    learned: Learned,
    state: State,
    job: Option<Box<Job>>,
    exchange: Option<Exchange>,
    timer: Option<Timer>,
    send: bool,
    /// A session thrown away, of which the BMC is still to be told.
    farewell: Option<Box<Live>>,
    done: Option<Result<Reply, Failure>>,
    closing: bool,
    closed: bool,
    /// Low half of the console's session ids: which session of the shell this is.
    slot: u16,
    port: u8,
    ports: u8,
    logins: u32,
    /// RAKP 1 or 3 of the present login was sent more than once.
    resent: bool,
    probe: Probe,
    guard: Guard,
    drops: Drops,
}

impl Session {
    /// A session that is not open yet. Its console session ids have `slot + 1` in their low 16 bits; its logins take turns
    /// through `ports` source ports, beginning at `first_port`.
    #[must_use]
    pub fn new(settings: Arc<Settings>, slot: u16, first_port: u8, ports: u8) -> Self {
        Self {
            settings,
            learned: Learned::default(),
            state: State::Idle,
            job: None,
            exchange: None,
            timer: None,
            send: false,
            farewell: None,
            done: None,
            closing: false,
            closed: false,
            slot,
            port: first_port,
            ports: ports.max(1),
            logins: 0,
            resent: false,
            probe: Probe::default(),
            guard: Guard::default(),
            drops: Drops::default(),
        }
    }

    /// What was found out so far.
    #[must_use]
    pub const fn learned(&self) -> Learned {
        self.learned
    }

    /// A session for the same user of the same BMC begins with what another found out.
    #[must_use]
    pub const fn recalling(mut self, learned: Learned) -> Self {
        self.learned = learned;
        self
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// What a script wants to know besides the BMC's answers.
    #[must_use]
    pub fn about(&self) -> About {
        let level = match &self.state {
            State::Up(live) => Some(live.privilege),
            _ => None,
        };
        About {
            suite: self.learned.suite,
            privilege: level.or(self.learned.privilege),
            capabilities: self.learned.capabilities,
            detected: self.learned.detected,
        }
    }

    /// Takes a request; the session opens itself first if need be.
    ///
    /// # Errors
    /// The request, back, when one is outstanding or the session is closing.
    pub fn request(&mut self, now: Duration, request: Request) -> Result<(), Request> {
        if self.job.is_some() || self.closing {
            return Err(request);
        }
        let Request { resend, anew, privilege, .. } = request;
        self.job = Some(Box::new(Job::new(request, now, &self.settings, self.learned.privilege)));
        match &self.state {
            State::Up(live)
                if !anew && privilege.is_none_or(|level| level == live.privilege) && now.saturating_sub(live.last_heard) < IDLE =>
            {
                let stale = now.saturating_sub(live.last_heard) > FRESH;
                let probe = stale && resend == Resend::Never;
                self.begin(now, if probe { What::Probe } else { What::Command });
            }
            _ => self.open(now),
        }
        Ok(())
    }

    /// Throws away a session that is up and free, so that the next request opens another; the BMC is told.
    pub fn leave(&mut self) {
        if self.job.is_none() && self.is_up() {
            self.retire();
        }
    }

    /// Closes the session politely, after the outstanding request; ends in [`Event::Closed`].
    pub fn close(&mut self, now: Duration) {
        self.closing = true;
        if self.job.is_none() {
            self.begin_close(now);
        }
    }

    /// Fails the outstanding request at once.
    pub fn abort(&mut self, now: Duration) {
        if let Some(job) = &self.job {
            let sent = job.sent;
            self.retire();
            self.finish(now, Err(Failure::Closed { sent }));
        }
    }

    /// Whether a login got as far as a session.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Packets that were not believed so far.
    #[must_use]
    pub const fn drops(&self) -> Drops {
        self.drops
    }

    /// The suite that worked last.
    #[must_use]
    pub const fn suite(&self) -> Option<Suite> {
        self.learned.suite
    }

    /// When [`Self::handle_timeout`] is due (time since boot).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let deadline = self.job.as_ref().map(|job| job.request.deadline);
        let timer = self.timer.as_ref().map(|timer| timer.at);
        match (deadline, timer) {
            (Some(deadline), Some(timer)) => Some(deadline.min(timer)),
            (one, other) => one.or(other),
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(result) = self.done.take() {
            return Some(Event::Done(result));
        }
        std::mem::take(&mut self.closed).then_some(Event::Closed)
    }

    /// Writes the next datagram into `out`; the source port (an index) to send it from, or `None` if there is none.
    pub fn poll_transmit(&mut self, now: Duration, random: &mut impl Random, out: &mut Vec<u8>) -> Option<u8> {
        if let Some(mut live) = self.farewell.take() {
            let close = Message::from(CloseSession(live.remote_id));
            live.write(random, &close, out);
            return Some(live.port);
        }
        if !std::mem::take(&mut self.send) {
            return self.write_probe(out);
        }
        match &mut self.state {
            State::Idle => None,
            State::Caps { extended } => {
                let extended = *extended;
                self.write_capabilities(extended, out);
                Some(self.port)
            }
            State::Propose(suite) => {
                let suite = *suite;
                let login = self.new_login(suite, random);
                login.write(Stage::Open, &self.settings, out);
                self.state = State::Login(Stage::Open, Box::new(login));
                Some(self.port)
            }
            State::Login(stage, login) => {
                login.write(*stage, &self.settings, out);
                Some(self.port)
            }
            State::Up(live) => {
                let exchange = self.exchange.as_mut()?;
                if exchange.copies == 0 {
                    exchange.begun = now;
                    exchange.first_rq_seq = live.rq_seq;
                }
                exchange.copies = exchange.copies.saturating_add(1);
                match exchange.what {
                    What::SetPrivilege => live.write(random, &SetSessionPrivilege(live.privilege).into(), out),
                    What::Probe => live.write(random, &GetChassisStatus.into(), out),
                    What::Close => live.write(random, &CloseSession(live.remote_id).into(), out),
                    What::Command => {
                        let job = self.job.as_mut()?;
                        job.sent = true;
                        live.write(random, &job.request.message, out);
                    }
                }
                Some(live.port)
            }
        }
    }

    fn write_capabilities(&self, extended: bool, out: &mut Vec<u8>) {
        let privilege = self.job.as_ref().map_or(Privilege::User, |job| job.level());
        let data = GetAuthCapabilities { extended, privilege }.data();
        let (netfn, command) = GetAuthCapabilities::NUMBERS;
        wire::encode_plain(out, &LanRequest { netfn, rq_seq: 0, command, data: &data });
    }

    fn write_probe(&mut self, out: &mut Vec<u8>) -> Option<u8> {
        if !std::mem::take(&mut self.probe.send) {
            return None;
        }
        self.probe.asked = self.probe.asked.saturating_add(1);
        self.write_capabilities(true, out);
        Some(self.probe_port())
    }

    const fn probe_port(&self) -> u8 {
        (self.port + 1) % self.ports
    }

    fn new_login(&mut self, suite: Suite, random: &mut impl Random) -> Login {
        let privilege = self.job.as_ref().map_or(Privilege::User, |job| job.level());
        let (mut high, mut console_random) = ([0u8; 2], [0u8; 16]);
        random.fill(&mut high);
        random.fill(&mut console_random);
        let local_id = u32::from(u16::from_le_bytes(high)) << 16 | (u32::from(self.slot) + 1);
        let tag = u8::try_from(self.logins % 10).unwrap_or(0);
        self.logins = self.logins.wrapping_add(1);
        self.resent = false;
        Login::new(suite, privilege, self.settings.name_only, tag, local_id, console_random)
    }

    /// Takes a datagram that came in on source port `port` (an index). Anything at all may be in it.
    pub fn handle_datagram(&mut self, now: Duration, port: u8, bytes: &[u8]) {
        let probe_port = self.probe_port();
        let packet = match wire::decode(bytes) {
            Ok(packet) => packet,
            Err(_) => return self.drops.malformed += 1,
        };
        match (&mut self.state, packet) {
            (State::Caps { .. }, Packet::Plain { message }) if port == self.port => self.on_capabilities(now, message),
            (State::Login(Stage::Rakp1, _), Packet::Plain { message }) if port == probe_port => self.on_probe(message),
            (State::Login(stage, login), Packet::Plus(plus)) if port == self.port && plus.session_id == 0 => {
                let heard = match (*stage, plus.kind) {
                    (Stage::Open, wire::PAYLOAD_OPEN_RESPONSE) => login.on_open(plus.payload).map(|answer| answer.map(|()| None)),
                    (Stage::Rakp1, wire::PAYLOAD_RAKP_2) => {
                        login.on_rakp_2(plus.payload, &self.settings).map(|answer| answer.map(|()| None))
                    }
                    (Stage::Rakp3, wire::PAYLOAD_RAKP_4) => {
                        login.on_rakp_4(plus.payload, &self.settings).map(|answer| answer.map(Some))
                    }
                    _ => None,
                };
                match heard {
                    None => self.drops.unexpected += 1,
                    Some(answer) => self.on_login(now, answer),
                }
            }
            (State::Up(live), Packet::Plus(plus)) if port == live.port => self.on_session(now, &plus),
            _ => self.drops.unexpected += 1,
        }
    }

    fn on_probe(&mut self, message: &[u8]) {
        if capabilities_reply(message).is_none() || self.probe.answered >= self.probe.asked {
            return self.drops.unexpected += 1;
        }
        self.probe.answered += 1;
    }

    fn on_capabilities(&mut self, now: Duration, message: &[u8]) {
        let Some(reply) = capabilities_reply(message) else { return self.drops.unexpected += 1 };
        self.heard();
        let capabilities = GetAuthCapabilities::parse(reply.data).ok().filter(|_| reply.completion_code == 0);
        let asked_extended = matches!(self.state, State::Caps { extended: true });
        match capabilities {
            None if asked_extended => {
                self.state = State::Caps { extended: false };
                self.arm(now);
            }
            Some(capabilities) if capabilities.rmcp_plus == Some(false) && !self.settings.tolerates(Quirk::AuthCapabilities) => {
                self.fail(now, Failure::NoRmcpPlus);
            }
            _ => {
                self.learned.capabilities = capabilities;
                self.propose(now);
            }
        }
    }

    fn on_login(&mut self, now: Duration, answer: Result<Option<Established>, Rejection>) {
        self.heard();
        let State::Login(stage, login) = &mut self.state else { return };
        match (answer, *stage) {
            (Err(rejection), stage) => self.reject(now, stage, rejection),
            (Ok(None), Stage::Open) => {
                *stage = Stage::Rakp1;
                self.probe = Probe { copies: 1, ..Probe::default() };
                self.arm(now);
            }
            (Ok(None), _) => {
                *stage = Stage::Rakp3;
                self.probe = Probe::default();
                self.arm(now);
            }
            (Ok(Some(established)), _) => {
                self.learned.suite = Some(login.suite());
                self.learned.detected = established.detected;
                self.guard.succeeded();
                let live = Live::new(established, self.port, login.privilege(), now);
                self.state = State::Up(Box::new(live));
                self.begin(now, What::SetPrivilege);
            }
        }
    }

    /// What a refused login step means and what is tried next. Only what says "wrong name or password" is a refused login.
    fn reject(&mut self, now: Duration, stage: Stage, rejection: Rejection) {
        let status = match rejection {
            Rejection::WrongPassword => return self.fail(now, Failure::WrongPassword),
            Rejection::ZeroCode => return self.fail(now, Failure::ZeroCode),
            Rejection::WrongBmcKey => {
                return self.fail(now, Failure::WrongBmcKey { key_set: self.settings.bmc_key.is_some() });
            }
            Rejection::OtherSuite(algorithms) => return self.next_suite(now, None, algorithms),
            Rejection::ZeroSessionId => 0x02,
            Rejection::Status(status) => status,
        };
        match (stage, status) {
            (Stage::Open, 0x01 | 0x04 | 0x05 | 0x0A | 0x10 | 0x11 | 0x12) | (_, 0x04 | 0x05 | 0x10 | 0x11 | 0x12) => {
                self.next_suite(now, Some(status), [0; 3]);
            }
            (_, 0x01 | 0x0B) => self.fail(now, Failure::SessionsUsedUp { status }),
            (_, 0x09 | 0x0A) => self.next_privilege(now, status),
            // Most often there is no such user; but some say so when the level is too high for theirs. One refused login a
            // request: the next level is the next request's.
            (_, 0x0D) => {
                self.learned.privilege = self.job.as_ref().and_then(|job| job.privileges.get(job.privilege + 1)).copied();
                self.fail(now, Failure::LoginRefused { stage, status });
            }
            // The first RAKP 1 ended the session without a word: a refusal, or its answer was lost.
            (Stage::Rakp1, 0x02 | 0x08) if self.resent => self.unanswered(now),
            // The BMC made new random bytes for a second RAKP 1, or had finished with the first RAKP 3: our doing, not
            // the user's. The password was proven right by then, so another login cannot lock the account.
            (Stage::Rakp3, 0x02 | 0x08 | 0x0F) if self.resent && self.restart(now) => {}
            (_, 0x0C | 0x0E | 0x0F) => self.fail(now, Failure::LoginRefused { stage, status }),
            _ => self.fail(now, Failure::Unexpected { stage, status }),
        }
    }

    /// RAKP 1 was refused by silence: that counts as a refused login, and another may be tried once.
    fn unanswered(&mut self, now: Duration) {
        self.guard.refused(now);
        if self.guard.is_shut(now) {
            self.fail(now, Failure::LoginsPaused);
        } else if !self.restart(now) {
            self.fail(now, Failure::Unanswered);
        }
    }

    /// Whether the BMC is there and leaves RAKP 1 alone.
    fn is_refused_by_silence(&self) -> bool {
        matches!(self.state, State::Login(Stage::Rakp1, _))
            && self.probe.copies >= UNANSWERED_COPIES
            && self.probe.answered >= ANSWERED_PROBES
    }

    /// Whether the one new login after muddled retransmissions was still free, and is begun.
    fn restart(&mut self, now: Duration) -> bool {
        let free = self.job.as_mut().is_some_and(|job| !std::mem::replace(&mut job.restarted, true));
        if free {
            self.open(now);
        }
        free
    }

    fn next_suite(&mut self, now: Duration, status: Option<u8>, algorithms: [u8; 3]) {
        let State::Login(_, login) = &self.state else { return };
        let suite = login.suite();
        let Some(job) = &mut self.job else { return };
        // On a BMC known to accept this suite 0x01 means what it says; at first contact it may mean "no such suite" (Intel M50CYP).
        if self.learned.suite.take() == Some(suite) && status == Some(0x01) {
            self.learned.suite = Some(suite);
            return self.fail(now, Failure::SessionsUsedUp { status: 0x01 });
        }
        job.refuse_suite(suite);
        job.only_resources &= status == Some(0x01);
        let only_resources = job.only_resources;
        match (job.next_suite(&self.settings), status) {
            // The BMC holds a half-open session now, and some know sessions by source port: go on from another.
            (Some(_), None) => self.open(now),
            (Some(_), Some(_)) => self.propose(now),
            (None, Some(_)) if only_resources => self.fail(now, Failure::SessionsUsedUp { status: 0x01 }),
            (None, Some(0x0A)) => self.next_privilege(now, 0x0A),
            (None, Some(status)) => self.fail(now, Failure::NoSuite { suite, status }),
            (None, None) => self.fail(now, Failure::OtherSuite { suite, algorithms }),
        }
    }

    /// Opens a session at the next privilege level; some BMCs want the user's exact maximum.
    fn next_privilege(&mut self, now: Duration, code: u8) {
        let Some(job) = &mut self.job else { return };
        if job.request.privilege.is_none() {
            self.learned.privilege = None;
        }
        job.privilege += 1;
        if job.privilege < job.privileges.len() {
            job.forget_suites();
            self.open(now);
        } else {
            self.fail(now, Failure::Privilege { code });
        }
    }

    fn on_session(&mut self, now: Duration, plus: &Plus<'_>) {
        let State::Up(live) = &mut self.state else { return };
        let ours = plus.session_id == live.local_id || (plus.session_id == 0 && self.settings.tolerates(Quirk::SessionIdZero));
        if !plus.authenticated || !plus.encrypted {
            return self.drops.unprotected += 1;
        }
        if !ours || plus.kind != wire::PAYLOAD_MESSAGE {
            return self.drops.unexpected += 1;
        }
        if !plus.verify(&live.keys) {
            return self.drops.forged += 1;
        }
        if !live.window.take(plus.sequence) {
            return self.drops.replayed += 1;
        }
        live.last_heard = now;
        let checksums = if self.settings.tolerates(Quirk::Checksums) { Checksums::Ignored } else { Checksums::Checked };
        let mut scratch = wire::scratch();
        let reply = plus.decrypt(&live.keys, &mut scratch).and_then(|message| wire::decode_reply(message, checksums));
        match reply {
            Err(_) => self.drops.malformed += 1,
            Ok(reply) if self.answers(&reply) => self.on_reply(now, &reply),
            Ok(_) => self.drops.late += 1,
        }
    }

    /// Whether `reply` answers a copy of the outstanding request.
    fn answers(&self, reply: &LanReply<'_>) -> bool {
        let Some(exchange) = &self.exchange else { return false };
        let numbers = match exchange.what {
            What::SetPrivilege => (0x06, 0x3B),
            What::Close => (0x06, 0x3C),
            What::Probe => (0x00, 0x01),
            What::Command => match &self.job {
                Some(job) => (job.request.message.netfn_raw(), job.request.message.cmd()),
                None => return false,
            },
        };
        let copy = reply.rq_seq.wrapping_sub(exchange.first_rq_seq) & 0x3F;
        (reply.netfn, reply.command) == (numbers.0 | 1, numbers.1) && copy < exchange.copies && !exchange.busy
    }

    fn on_reply(&mut self, now: Duration, reply: &LanReply<'_>) {
        self.heard();
        let Some(exchange) = &mut self.exchange else { return };
        let (what, begun) = (exchange.what, exchange.begun);
        let once = self.job.as_ref().is_some_and(|job| job.request.resend == Resend::Never);
        let escalate = self.job.as_ref().is_some_and(|job| job.request.escalate);
        let own = self.job.as_ref().is_some_and(|job| job.request.privilege.is_some());
        match (what, reply.completion_code) {
            (What::Close, _) => self.finish_close(),
            // What must go out once goes out once, whatever a busy BMC made of it.
            (What::Command, CC_BUSY) if once => self.finish(now, Ok(Reply::new(begun, CC_BUSY, reply.data))),
            (_, CC_BUSY) => self.wait_busy(now),
            (What::SetPrivilege, code @ (0x80 | 0x81 | CC_PRIVILEGE)) => self.next_privilege(now, code),
            (What::SetPrivilege, code) => {
                let State::Up(live) = &self.state else { return };
                if !own {
                    self.learned.privilege = (code == 0).then_some(live.privilege);
                }
                self.begin(now, What::Command);
            }
            (What::Probe, _) => self.begin(now, What::Command),
            (What::Command, CC_PRIVILEGE) if escalate => {
                if let Some(job) = &mut self.job {
                    job.sent = false;
                }
                self.next_privilege(now, CC_PRIVILEGE);
            }
            (What::Command, code) => self.finish(now, Ok(Reply::new(begun, code, reply.data))),
        }
    }

    fn wait_busy(&mut self, now: Duration) {
        if let Some(job) = &mut self.job {
            job.sent = false;
        }
        if let (Some(exchange), Some(timer)) = (&mut self.exchange, &mut self.timer) {
            exchange.busy = true;
            timer.at = now + timer.interval;
        }
    }

    /// Does what is due at `now`; harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.job.as_ref().is_some_and(|job| job.request.deadline <= now) {
            return self.expire(now);
        }
        let Some(timer) = self.timer.as_ref().filter(|timer| timer.at <= now) else { return };
        let silent = now.saturating_sub(timer.since);
        let stage = self.stage();
        match stage {
            Stage::Capabilities if silent >= CAPABILITIES_PATIENCE => {
                let since = timer.since;
                self.propose(now);
                // Nothing was heard: the silence goes on.
                if let Some(timer) = &mut self.timer {
                    timer.since = since;
                }
            }
            Stage::Capabilities => self.resend(now),
            Stage::Rakp1 if silent >= SILENCE && self.is_refused_by_silence() => self.refused_by_silence(now),
            Stage::Open | Stage::Rakp1 | Stage::Rakp3 if silent >= SILENCE => {
                self.fail(now, Failure::Silent { stage, sent: false });
            }
            Stage::Open | Stage::Rakp1 | Stage::Rakp3 => {
                self.resent |= stage != Stage::Open;
                if stage == Stage::Rakp1 {
                    self.probe.copies = self.probe.copies.saturating_add(1);
                    self.probe.send = true;
                }
                self.resend(now);
            }
            Stage::Session => self.on_session_timer(now, silent),
        }
    }

    fn on_session_timer(&mut self, now: Duration, silent: Duration) {
        let Some(exchange) = &self.exchange else { return };
        let (what, copies, busy) = (exchange.what, exchange.copies, exchange.busy);
        let silence = self.job.as_ref().map_or(SILENCE, |job| job.silence);
        match what {
            _ if busy => self.begin_again(now, what),
            What::Close if copies >= CLOSE_COPIES => self.finish_close(),
            What::Close => self.resend(now),
            _ if silent < silence => self.resend(now),
            _ => self.reopen(now),
        }
    }

    /// The session is silent: throws it away and opens another for the same request, once.
    fn reopen(&mut self, now: Duration) {
        let Some(job) = &mut self.job else { return };
        if std::mem::replace(&mut job.reopened, true) {
            let sent = job.sent;
            return self.fail(now, Failure::Silent { stage: Stage::Session, sent });
        }
        self.open(now);
    }

    /// As [`Self::unanswered`], without time for another login.
    fn refused_by_silence(&mut self, now: Duration) {
        self.guard.refused(now);
        self.fail(now, if self.guard.is_shut(now) { Failure::LoginsPaused } else { Failure::Unanswered });
    }

    fn expire(&mut self, now: Duration) {
        if self.is_refused_by_silence() {
            return self.refused_by_silence(now);
        }
        let Some(job) = &self.job else { return };
        let (stage, sent) = (self.stage(), job.sent);
        let failure = if job.heard { Failure::TooSlow { stage, sent } } else { Failure::Silent { stage, sent } };
        let lost = job.request.resend == Resend::Never && sent;
        let silent = self.exchange.as_ref().is_some_and(|exchange| now.saturating_sub(exchange.begun) >= SUSPECT);
        if !self.is_up() || lost || silent {
            self.retire();
        }
        self.finish(now, Err(failure));
    }

    const fn stage(&self) -> Stage {
        match &self.state {
            State::Idle | State::Caps { .. } => Stage::Capabilities,
            State::Propose(_) => Stage::Open,
            State::Login(stage, _) => *stage,
            State::Up(_) => Stage::Session,
        }
    }

    /// Begins a login, from another source port than the last.
    fn open(&mut self, now: Duration) {
        self.retire();
        if self.guard.is_shut(now) {
            return self.fail(now, Failure::LoginsPaused);
        }
        let Some(job) = &mut self.job else { return };
        if let Err(attempts) = job.attempt() {
            return self.fail(now, Failure::Restless { attempts });
        }
        if self.logins > 0 {
            self.port = (self.port + 1) % self.ports;
        }
        self.state = State::Caps { extended: true };
        self.arm(now);
    }

    /// Proposes the remembered suite, or the first that was not refused.
    fn propose(&mut self, now: Duration) {
        let Some(job) = &self.job else { return };
        let suite = self.learned.suite.or_else(|| job.next_suite(&self.settings));
        if let Some(suite) = suite {
            self.state = State::Propose(suite);
            self.arm(now);
        }
    }

    /// Throws the session or login away; of a session the BMC is told, once.
    fn retire(&mut self) {
        self.exchange = None;
        self.timer = None;
        self.send = false;
        self.probe = Probe::default();
        if let State::Up(live) = std::mem::replace(&mut self.state, State::Idle) {
            self.farewell = Some(live);
        }
    }

    fn begin(&mut self, now: Duration, what: What) {
        self.exchange = Some(Exchange { what, first_rq_seq: 0, copies: 0, begun: now, busy: false });
        self.arm(now);
        let once = self.job.as_ref().is_some_and(|job| job.request.resend == Resend::Never);
        if what == What::Command && once {
            self.timer = None;
        }
    }

    /// Asks a busy BMC again, backing off.
    fn begin_again(&mut self, now: Duration, what: What) {
        let interval = self.timer.as_ref().map_or(RETRANSMIT, |timer| timer.interval * 2);
        self.begin(now, what);
        if let Some(timer) = &mut self.timer {
            timer.interval = interval;
        }
    }

    fn arm(&mut self, now: Duration) {
        self.send = true;
        self.timer = Some(Timer { at: now + RETRANSMIT, interval: RETRANSMIT, since: now });
    }

    fn resend(&mut self, now: Duration) {
        self.send = true;
        let silence = self.job.as_ref().filter(|_| self.is_up()).map_or(SILENCE, |job| job.silence);
        if let Some(timer) = &mut self.timer {
            timer.interval *= 2;
            let end = timer.since + silence;
            timer.at = (now + timer.interval).min(if end > now { end } else { now + timer.interval });
        }
    }

    fn heard(&mut self) {
        if let Some(job) = &mut self.job {
            job.heard = true;
        }
    }

    fn fail(&mut self, now: Duration, failure: Failure) {
        self.retire();
        if failure.class() == ErrorClass::Auth && failure != Failure::LoginsPaused {
            self.guard.refused(now);
        }
        self.finish(now, Err(failure));
    }

    fn finish(&mut self, now: Duration, result: Result<Reply, Failure>) {
        self.job = None;
        self.exchange = None;
        self.timer = None;
        self.send = false;
        self.done = Some(result);
        if self.closing {
            self.begin_close(now);
        }
    }

    fn begin_close(&mut self, now: Duration) {
        if self.is_up() {
            self.begin(now, What::Close);
        } else {
            self.retire();
            self.closed = true;
        }
    }

    fn finish_close(&mut self) {
        self.state = State::Idle;
        self.exchange = None;
        self.timer = None;
        self.send = false;
        self.closed = true;
    }
}

/// The answer to Get Channel Authentication Capabilities, if it is one.
fn capabilities_reply(message: &[u8]) -> Option<LanReply<'_>> {
    let (netfn, command) = GetAuthCapabilities::NUMBERS;
    // ipmisim's checksum is wrong here.
    let reply = wire::decode_reply(message, Checksums::Ignored);
    reply.ok().filter(|reply| (reply.netfn, reply.command) == (netfn | 1, command))
}
