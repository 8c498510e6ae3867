//! Opening a session: what is proposed, what a refusal means, and what is tried next.

use std::time::Duration;

use super::{Probe, Session, State, What};
use crate::ipmi::Random;
use crate::ipmi::command::GetAuthCapabilities;
use crate::ipmi::failure::Failure;
use crate::ipmi::live::Live;
use crate::ipmi::login::{Established, Login, Rejection, Stage};
use crate::ipmi::quirks::Quirk;
use crate::ipmi::settings::Privilege;
use crate::ipmi::suite::Suite;
use crate::ipmi::wire::{self, Checksums, LanReply, LanRequest};

/// Copies of RAKP 1 without an answer, and answers to other questions meanwhile, that tell a refusal by silence from a
/// lossy network: one lost datagram in three looks like that in one login of thirty.
const UNANSWERED_COPIES: u8 = 3;
const ANSWERED_PROBES: u8 = 2;

impl Session {
    pub(super) fn write_capabilities(&self, extended: bool, out: &mut Vec<u8>) {
        let privilege = self.job.as_ref().map_or(Privilege::User, |job| job.level());
        let data = GetAuthCapabilities { extended, privilege }.data();
        let (netfn, command) = GetAuthCapabilities::NUMBERS;
        wire::encode_plain(out, &LanRequest { netfn, rq_seq: 0, command, data: &data });
    }

    pub(super) fn write_probe(&mut self, out: &mut Vec<u8>) -> Option<u8> {
        if !std::mem::take(&mut self.probe.send) {
            return None;
        }
        self.probe.asked = self.probe.asked.saturating_add(1);
        self.write_capabilities(true, out);
        Some(self.probe_port())
    }

    pub(super) const fn probe_port(&self) -> u8 {
        (self.port + 1) % self.ports
    }

    pub(super) fn new_login(&mut self, suite: Suite, random: &mut impl Random) -> Login {
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

    pub(super) fn on_probe(&mut self, message: &[u8]) {
        if capabilities_reply(message).is_none() || self.probe.answered >= self.probe.asked {
            return self.drops.unexpected += 1;
        }
        self.probe.answered += 1;
    }

    pub(super) fn on_capabilities(&mut self, now: Duration, message: &[u8]) {
        let Some(reply) = capabilities_reply(message) else { return self.drops.unexpected += 1 };
        self.heard();
        self.learned.answers = true;
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

    pub(super) fn on_login(&mut self, now: Duration, answer: Result<Option<Established>, Rejection>) {
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

    /// As [`Self::unanswered`], without time for another login.
    pub(super) fn refused_by_silence(&mut self, now: Duration) {
        self.guard.refused(now);
        self.fail(now, if self.guard.is_shut(now) { Failure::LoginsPaused } else { Failure::Unanswered });
    }

    /// Whether the BMC is there and leaves RAKP 1 alone. One that never answers the probe's question showed that it is there
    /// when it answered Open Session.
    pub(super) fn is_refused_by_silence(&self) -> bool {
        matches!(self.state, State::Login(Stage::Rakp1, _))
            && self.probe.copies >= UNANSWERED_COPIES
            && (self.probe.answered >= ANSWERED_PROBES || !self.learned.answers)
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
    pub(super) fn next_privilege(&mut self, now: Duration, code: u8) {
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

    /// Begins a login, from another source port than the last.
    pub(super) fn open(&mut self, now: Duration) {
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
    pub(super) fn propose(&mut self, now: Duration) {
        let Some(job) = &self.job else { return };
        let suite = self.learned.suite.or_else(|| job.next_suite(&self.settings));
        if let Some(suite) = suite {
            self.state = State::Propose(suite);
            self.arm(now);
        }
    }
}

/// The answer to Get Channel Authentication Capabilities, if it is one.
fn capabilities_reply(message: &[u8]) -> Option<LanReply<'_>> {
    let (netfn, command) = GetAuthCapabilities::NUMBERS;
    // ipmisim's checksum is wrong here.
    let reply = wire::decode_reply(message, Checksums::Ignored);
    reply.ok().filter(|reply| (reply.netfn, reply.command) == (netfn | 1, command))
}
