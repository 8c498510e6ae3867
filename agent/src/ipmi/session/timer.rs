//! What is due when: copies of what was not answered, and the ends of patience.

use std::time::Duration;

use super::{RETRANSMIT, Session, State, Timer};
use crate::ipmi::failure::Failure;
use crate::ipmi::job::SILENCE;
use crate::ipmi::login::Stage;
use crate::ipmi::request::Resend;

/// Silence to Get Channel Authentication Capabilities after which the login goes on without it.
const CAPABILITIES_PATIENCE: Duration = Duration::from_millis(1200);
/// Silence at a deadline after which a kept session is not trusted any more.
const SUSPECT: Duration = Duration::from_secs(1);

impl Session {
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

    pub(super) fn arm(&mut self, now: Duration) {
        self.send = true;
        self.timer = Some(Timer { at: now + RETRANSMIT, interval: RETRANSMIT, since: now });
    }

    pub(super) fn resend(&mut self, now: Duration) {
        self.send = true;
        let silence = self.job.as_ref().filter(|_| self.is_up()).map_or(SILENCE, |job| job.silence);
        if let Some(timer) = &mut self.timer {
            timer.interval *= 2;
            let end = timer.since + silence;
            timer.at = (now + timer.interval).min(if end > now { end } else { now + timer.interval });
        }
    }
}
