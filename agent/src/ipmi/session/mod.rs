//! One BMC's session: what to send, what to believe, what to try next.
//!
//! One request is outstanding at a time. Once the session is up only packets that are authenticated, encrypted and in
//! the sequence window are believed, and only an answer to a copy of the outstanding request ends it: a late answer
//! never answers a later question. Everything else is dropped and counted.

mod exchange;
mod opening;
mod timer;

use std::sync::Arc;
use std::time::Duration;

use ipmi_rs_core::connection::Message;

use super::Random;
use super::command::{AuthCapabilities, CloseSession, GetChassisStatus, SetSessionPrivilege};
use super::failure::Failure;
use super::guard::Guard;
use super::job::Job;
use super::live::Live;
use super::login::{Login, Stage};
use super::quirks::Quirks;
use super::request::{Drops, Event, Reply, Request, Resend};
use super::script::About;
use super::settings::{Privilege, Settings};
use super::suite::Suite;
use super::wire::{self, Packet};
use crate::bmc::ErrorClass;

/// First wait for an answer; doubled with every copy.
const RETRANSMIT: Duration = Duration::from_millis(400);
/// BMCs drop a session after about 60 s without a packet (§6.12.15): past this it is opened anew and not trusted.
const IDLE: Duration = Duration::from_secs(50);
/// A request that must not be sent twice is sent only into a session that spoke this recently.
const FRESH: Duration = Duration::from_secs(3);

/// What was found out about a BMC and outlives its sessions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Learned {
    /// The suite that worked last.
    suite: Option<Suite>,
    /// The level to begin the next login with.
    privilege: Option<Privilege>,
    /// What it told before the last login.
    capabilities: Option<AuthCapabilities>,
    /// It answered what is asked before a login, once at least.
    answers: bool,
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
}
