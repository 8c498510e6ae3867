//! Health checks of one host: all of them at once, any Alive is Alive, and Dead only when the path to it is known to work. Pure.

use std::time::Duration;

use picket_common::ha::settings::{HaSettings, HealthCheck};

use super::path::{Kind, PathLog};
use crate::rack::fence::HealthSign;
use crate::sign::{CheckDone, Sign};

/// How long after its time-out an answer is waited for: the shell answers every check.
const GRACE: Duration = Duration::from_secs(5);
/// Most rounds under way: the one of the interval, and those that a fence asked for.
const MOST_ROUNDS: usize = 4;

/// The checks of a host that are under way, and when the next ones are due.
#[derive(Debug, Default)]
pub struct Rounds {
    rounds: Vec<Round>,
    /// When the next round of the interval is due (boottime).
    pub due: Duration,
}

/// All health checks of a host, made at once.
#[derive(Debug)]
struct Round {
    /// Whether it is the one of the interval: only these are counted.
    of_interval: bool,
    begun: Duration,
    /// No answer is waited for after this.
    limit: Duration,
    /// Proof that the path works is waited for until then.
    decide_by: Duration,
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    ticket: u64,
    kind: Kind,
    answer: Option<CheckDone>,
}

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it was the round of the interval.
    pub of_interval: bool,
    /// When it was begun (boottime).
    pub begun: Duration,
    /// What it says.
    pub sign: HealthSign,
    /// The same in one sentence.
    pub said: String,
}

impl Rounds {
    /// Whether a round of the interval is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.rounds.iter().any(|round| round.of_interval)
    }

    /// Whether a round that was begun at `since` or later is under way.
    #[must_use]
    pub fn has_since(&self, since: Duration) -> bool {
        self.rounds.iter().any(|round| round.begun >= since)
    }

    /// Whether one more may be begun.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.rounds.len() < MOST_ROUNDS
    }

    /// A round begins, with a ticket for each check.
    pub fn begin(&mut self, of_interval: bool, tickets: &[(u64, HealthCheck)], settings: &HaSettings, now: Duration) {
        let asked = |(ticket, check): &(u64, HealthCheck)| Asked { ticket: *ticket, kind: Kind::of(check), answer: None };
        let timeout = Duration::from_secs(settings.health_timeout.into());
        // Others are looked at once an interval, with its jitter.
        let interval = Duration::from_secs(settings.health_interval.into()).mul_f64(1.5).saturating_add(Duration::from_secs(1));
        self.rounds.push(Round {
            of_interval,
            begun: now,
            limit: now.saturating_add(timeout).saturating_add(GRACE),
            decide_by: now.saturating_add(interval),
            asked: tickets.iter().map(asked).collect(),
        });
    }

    /// Takes an answer in; gives its kind when it is one of these checks.
    pub fn answered(&mut self, done: &CheckDone) -> Option<Kind> {
        let asked = self.rounds.iter_mut().flat_map(|round| &mut round.asked).find(|asked| asked.ticket == done.ticket)?;
        asked.answer = Some(done.clone());
        Some(asked.kind)
    }

    /// The rounds that came to something.
    pub fn conclude(&mut self, path: &PathLog, slot: usize, now: Duration) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        self.rounds.retain(|round| match round.verdict(path, slot, now) {
            Some(verdict) => {
                verdicts.push(verdict);
                false
            }
            None => true,
        });
        verdicts
    }

    /// When a round must be looked at although nothing is answered.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.rounds.iter().map(Round::next).min()
    }

    /// Forgets what is under way.
    pub fn clear(&mut self) {
        self.rounds.clear();
    }
}

impl Round {
    fn is_answered(&self, now: Duration) -> bool {
        now >= self.limit || self.asked.iter().all(|asked| asked.answer.is_some())
    }

    fn next(&self) -> Duration {
        if self.asked.iter().all(|asked| asked.answer.is_some()) { self.decide_by } else { self.limit }
    }

    fn verdict(&self, path: &PathLog, slot: usize, now: Duration) -> Option<Verdict> {
        let signs = || self.asked.iter().filter_map(|asked| asked.answer.as_ref().map(|done| (asked.kind, done)));
        if let Some((_, alive)) = signs().find(|(_, done)| done.sign == Sign::Alive) {
            return Some(self.says(HealthSign::Alive, alive.begun, "its health check passed".into()));
        }
        if !self.is_answered(now) {
            return None;
        }
        let unclear = self.asked.iter().find_map(|asked| match asked.answer.as_ref().map(|done| &done.sign) {
            Some(Sign::Dead(_) | Sign::Alive) => None,
            Some(Sign::CannotTell(why)) => Some(why.clone()),
            Some(Sign::Stamps(_)) | None => Some("the check gave no answer".into()),
        });
        if let Some(why) = unclear {
            return Some(self.says(HealthSign::CannotTell, self.begun, format!("its health cannot be told: {why}")));
        }
        let reasons: Vec<&str> =
            signs().filter_map(|(_, done)| if let Sign::Dead(why) = &done.sign { Some(why.as_str()) } else { None }).collect();
        let reasons = reasons.join("; ");
        let works = signs().all(|(kind, _)| path.reached_another(kind, slot, self.begun));
        if works {
            return Some(self.says(HealthSign::Dead, self.begun, format!("its health check failed: {reasons}")));
        }
        let said = || format!("its health check failed ({reasons}), but the agent's own path reached nobody else meanwhile");
        (now >= self.decide_by).then(|| self.says(HealthSign::CannotTell, self.begun, said()))
    }

    const fn says(&self, sign: HealthSign, begun: Duration, said: String) -> Verdict {
        Verdict { of_interval: self.of_interval, begun, sign, said }
    }
}
