//! A session and a BMC in virtual time: datagrams take time, get lost, come twice or late, as a test wants it.

mod hostile;
mod live;
mod login;
mod scripts;
mod vectors;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use picket_common::secret::Secret;

use super::request::{Event, Reply};
use super::session::Session;
use super::settings::{SettingError, Settings};
use super::testbmc::TestBmc;
use super::unusable::Unusable;
use super::{Failure, Next, Random, Script, power};
use crate::bmc::{Answer, Ask, PowerReply, Reading};

pub const MS: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);

/// Random bytes that only have to differ.
pub struct Counter(pub u64);

impl Random for Counter {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = self.0.to_be_bytes()[0];
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    ToBmc,
    ToConsole,
}

/// What becomes of a datagram.
#[derive(Debug, Clone)]
pub enum Fate {
    After(Duration),
    Lost,
    /// Delivered at each of these times.
    Often(Vec<Duration>),
}

/// Why a script did not end in an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    Setting(SettingError),
    Unusable(Unusable),
    Failure(Failure, bool),
}

pub type Network = Box<dyn FnMut(Way, &[u8]) -> Fate>;

pub struct Pair {
    pub session: Session,
    pub bmc: TestBmc,
    pub now: Duration,
    pub random: Counter,
    pub network: Network,
    flying: Vec<(Duration, Way, u8, Vec<u8>)>,
    /// Every datagram the session sent: when, from which port, what.
    pub sent: Vec<(Duration, u8, Vec<u8>)>,
    /// What came back.
    pub heard: Vec<Vec<u8>>,
    /// When the BMC's power changed to what.
    pub history: Vec<(Duration, bool)>,
}

pub fn settings(username: &str, password: &str, options: &[(&str, &str)]) -> Arc<Settings> {
    let options: BTreeMap<String, String> = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Arc::new(Settings::parse(username, password, &options).unwrap())
}

impl Pair {
    pub fn new(username: &str, password: &str, options: &[(&str, &str)]) -> Self {
        Self {
            session: Session::new(settings(username, password, options), 41, 0, 4),
            bmc: TestBmc::new(),
            now: 100 * SECOND,
            random: Counter(7),
            network: Box::new(|_, _| Fate::After(MS)),
            flying: Vec::new(),
            sent: Vec::new(),
            heard: Vec::new(),
            history: vec![(Duration::ZERO, true)],
        }
    }

    /// The usual: an operator with the right password.
    pub fn operator() -> Self {
        Self::new("operator", "oper", &[])
    }

    /// An operator whose session is up.
    pub fn up() -> Self {
        let mut pair = Self::operator();
        assert_eq!(pair.status(), Ok(Reading::On));
        pair
    }

    pub fn ask(&mut self, ask: Ask, timeout: Duration) -> Result<Reply, Failure> {
        let deadline = self.now + timeout;
        self.session.request(self.now, power::request(ask, deadline)).expect("the session is free");
        loop {
            match self.step(deadline) {
                Some(Event::Done(result)) => {
                    assert!(self.now <= deadline, "the deadline is kept");
                    return result;
                }
                Some(Event::Closed) => panic!("closed"),
                None => assert!(self.now <= deadline, "no end by the deadline"),
            }
        }
    }

    /// Waits for the end of the request outstanding.
    fn ended(&mut self, deadline: Duration) -> Result<Reply, Failure> {
        loop {
            match self.step(deadline) {
                Some(Event::Done(result)) => return result,
                Some(Event::Closed) => panic!("closed"),
                None => assert!(self.now <= deadline, "no end by the deadline"),
            }
        }
    }

    /// Plays a whole script; what the driver would say, and whether something may have been done when it failed.
    pub fn play(&mut self, ask: Ask, new_password: Option<&str>, timeout: Duration) -> Result<Answer, Broken> {
        let deadline = self.now + timeout;
        let new_password = new_password.map(|password| Secret::new(password.to_owned()));
        let mut script = Script::new(ask, new_password.as_ref(), self.session.settings()).map_err(Broken::Setting)?;
        let mut request = script.begin(self.now, deadline);
        let result = loop {
            self.session.request(self.now, request).expect("the session is free");
            let ended = self.ended(deadline);
            let (settings, about) = (Arc::clone(self.session.settings()), self.session.about());
            match script.next(self.now, deadline, ended.as_ref(), &settings, &about) {
                Next::Ask(next) => request = next,
                Next::End(result) => break result.map_err(Broken::Unusable),
                Next::Failed => {
                    let failure = ended.unwrap_err();
                    let maybe_sent = failure.maybe_sent() && script.is_order_out();
                    break Err(Broken::Failure(failure, maybe_sent));
                }
            }
        };
        if script.leaves() {
            self.session.leave();
        }
        self.idle(5 * MS);
        result
    }

    pub fn status(&mut self) -> Result<Reading, Failure> {
        let reply = self.ask(Ask::Status, 5 * SECOND)?;
        match power::answer(Ask::Status, &reply) {
            Ok(Answer::Reading(reading)) => Ok(reading),
            other => panic!("{other:?}"),
        }
    }

    pub fn order(&mut self, ask: Ask) -> Result<PowerReply, Failure> {
        let reply = self.ask(ask, 5 * SECOND)?;
        match power::answer(ask, &reply) {
            Ok(Answer::Power(reply)) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    /// Lets time pass until the session says something or `until` has come.
    pub fn step(&mut self, until: Duration) -> Option<Event> {
        loop {
            self.transmit();
            if let Some(event) = self.session.poll_event() {
                return Some(event);
            }
            let next = self.flying.iter().map(|(at, ..)| *at).chain(self.session.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return None;
            };
            self.now = self.now.max(next);
            self.deliver();
            self.session.handle_timeout(self.now);
        }
    }

    /// Lets time pass and expects the session to say nothing.
    pub fn idle(&mut self, time: Duration) {
        let until = self.now + time;
        assert_eq!(self.step(until), None);
    }

    fn transmit(&mut self) {
        let mut out = Vec::new();
        while let Some(port) = self.session.poll_transmit(self.now, &mut self.random, &mut out) {
            self.sent.push((self.now, port, out.clone()));
            self.fly(Way::ToBmc, port, &out);
        }
    }

    pub fn fly(&mut self, way: Way, port: u8, bytes: &[u8]) {
        let times = match (self.network)(way, bytes) {
            Fate::After(time) => vec![time],
            Fate::Lost => Vec::new(),
            Fate::Often(times) => times,
        };
        for time in times {
            self.flying.push((self.now + time, way, port, bytes.to_vec()));
        }
    }

    fn deliver(&mut self) {
        self.flying.sort_by_key(|(at, ..)| *at);
        while let Some((at, ..)) = self.flying.first()
            && *at <= self.now
        {
            let (_, way, port, bytes) = self.flying.remove(0);
            match way {
                Way::ToBmc => {
                    let answers = self.bmc.handle(port, &bytes);
                    if self.history.last().is_none_or(|(_, power)| *power != self.bmc.power) {
                        self.history.push((self.now, self.bmc.power));
                    }
                    for answer in answers {
                        self.heard.push(answer.clone());
                        self.fly(Way::ToConsole, port, &answer);
                    }
                }
                Way::ToConsole => self.session.handle_datagram(self.now, port, &bytes),
            }
        }
    }

    /// Datagrams of the session with this payload type, the flag bits included.
    pub fn sent_of(&self, kind: u8) -> Vec<&(Duration, u8, Vec<u8>)> {
        self.sent.iter().filter(|(_, _, bytes)| bytes[4] == 6 && bytes[5] == kind).collect()
    }
}

pub const OPEN: u8 = 0x10;
pub const RAKP_1: u8 = 0x12;
pub const RAKP_3: u8 = 0x14;
pub const SEALED: u8 = 0xC0;
