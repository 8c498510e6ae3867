//! One request in a session that is up: which answer is believed, and what a busy or silent BMC is asked again.

use std::time::Duration;

use super::{Exchange, RETRANSMIT, Session, State, What};
use crate::ipmi::failure::Failure;
use crate::ipmi::job::SILENCE;
use crate::ipmi::login::Stage;
use crate::ipmi::quirks::Quirk;
use crate::ipmi::request::{CC_BUSY, CC_PRIVILEGE, Reply, Resend};
use crate::ipmi::wire::{self, Checksums, LanReply, Plus};

/// Copies of Close Session, 400 ms apart and doubling; its answer is often missing.
const CLOSE_COPIES: u8 = 2;

impl Session {
    pub(super) fn on_session(&mut self, now: Duration, plus: &Plus<'_>) {
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

    pub(super) fn on_session_timer(&mut self, now: Duration, silent: Duration) {
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

    pub(super) fn begin(&mut self, now: Duration, what: What) {
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

    pub(super) fn begin_close(&mut self, now: Duration) {
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
