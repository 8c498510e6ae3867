//! One receiver's alerts of one zone, cluster and kind: what it believes, what it has not been told, and when it may be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use picket_common::alert::AlertState;
use picket_common::api::{Alert, Change, News};
use picket_common::clock::Now;
use picket_common::id::ReceiverId;

use super::{Alerts, GroupKey, LetterRow, MAX_NEWS, OutboxRow, Receiver, until};
use crate::fleet::view::ToldRow;

/// What a receiver believes of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// Which time of it: an alert that ended and fires again is another.
    pub(super) starts_at: Timestamp,
    /// When it was told that it ended; kept only for a receiver that is told again.
    pub(super) ended: Option<Timestamp>,
}

/// A delivery under way, as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) id: Arc<str>,
    pub(super) made_at: Timestamp,
    pub(super) made_boottime: Duration,
    pub(super) attempts: u32,
    pub(super) next_try: Option<Timestamp>,
    /// Whether there was more than fits.
    pub(super) is_cut: bool,
    pub(super) news: Arc<[News]>,
}

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) told: BTreeMap<Arc<str>, Told>,
    /// Alerts whose truth differs from what is believed.
    pub(super) waiting: BTreeSet<Arc<str>>,
    pub(super) letter: Option<Letter>,
    /// Whether it is in the queue of those whose waiting is over.
    pub(super) ready: bool,
    /// The timer that counts.
    pub(super) due: Option<Duration>,
    pub(super) thread: Option<Arc<str>>,
    last_sent: Option<Timestamp>,
    /// Since when something waits.
    since: Duration,
    /// Not before this, for the last delivery was not long ago.
    not_before: Duration,
    /// When what still fires is told again.
    repeat_at: Duration,
}

/// What a receiver that believes `told` has to be told of an alert.
pub(super) fn news_of(receiver: &Receiver, told: Option<&Told>, alert: &Alert) -> Vec<News> {
    let mut news = Vec::new();
    let believed = told.filter(|told| told.ended.is_none());
    if let Some(told) = believed {
        if told.starts_at == alert.starts_at && alert.state != AlertState::Resolved {
            return news;
        }
        news.push(News { change: Change::Resolved, alert: ended(told, alert) });
    }
    if alert.state == AlertState::Firing && receiver.wants(alert) && !is_hushed(alert) {
        news.push(News { change: Change::Firing, alert: alert.clone() });
    }
    news
}

/// The time of the alert that was told, as it ended: it may have begun again since.
fn ended(told: &Told, alert: &Alert) -> Alert {
    let ends_at = Some(alert.ends_at.unwrap_or(alert.starts_at).max(told.starts_at));
    Alert { state: AlertState::Resolved, starts_at: told.starts_at, ends_at, ..alert.clone() }
}

fn is_hushed(alert: &Alert) -> bool {
    !alert.silenced_by.is_empty() || !alert.inhibited_by.is_empty()
}

impl Group {
    /// As it was stored. What was sent when is reckoned from the wall clock, and never further ahead than the intervals allow.
    pub(super) fn restored(row: OutboxRow, receiver: &Receiver, now: Now) -> Self {
        let after = |interval: Duration| {
            let due = row.last_sent.and_then(|at| at.checked_add(interval).ok());
            now.boottime.saturating_add(due.map_or(Duration::ZERO, |due| until(due, now.wall)).min(interval))
        };
        // Only who is told again remembers what ended; the receiver may have been such a one.
        let kept = row.told.iter().filter(|told| receiver.keep_alive.is_some() || told.ended.is_none());
        let told = kept.map(|told| (told.alert.as_str().into(), Told { starts_at: told.starts_at, ended: told.ended }));
        Self {
            told: told.collect(),
            not_before: after(receiver.group_interval),
            repeat_at: after(receiver.repeat_interval),
            letter: row.letter.and_then(|row| restored_letter(row, now)),
            thread: row.thread.map(Arc::from),
            last_sent: row.last_sent,
            ..Self::default()
        }
    }

    /// The receiver has other wishes from now on: nothing is further off than they allow. Which alerts are forgotten: those that
    /// ended, if it is not told again any more.
    pub(super) fn serve(&mut self, receiver: &Receiver, now: Now) -> Vec<Arc<str>> {
        self.not_before = self.not_before.min(now.boottime.saturating_add(receiver.group_interval));
        self.repeat_at = self.repeat_at.min(now.boottime.saturating_add(receiver.repeat_interval));
        if receiver.keep_alive.is_some() {
            return Vec::new();
        }
        let over = |(id, told): (&Arc<str>, &Told)| told.ended.is_some().then(|| id.clone());
        let mut over: Vec<Arc<str>> = self.told.iter().filter_map(over).collect();
        self.told.retain(|_, told| told.ended.is_none());
        over.retain(|id| !self.waiting.contains(id));
        over
    }

    pub(super) fn row(&self, receiver: &ReceiverId, key: &GroupKey) -> OutboxRow {
        let told = self.told.iter().map(|(alert, told)| ToldRow {
            alert: alert.to_string(),
            starts_at: told.starts_at,
            ended: told.ended,
        });
        OutboxRow {
            receiver: receiver.clone(),
            zone: key.zone.clone(),
            cluster: key.cluster.clone(),
            kind: key.kind,
            thread: self.thread.as_deref().map(str::to_owned),
            last_sent: self.last_sent,
            told: told.collect(),
            letter: self.letter.as_ref().map(LetterRow::of),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty() && self.waiting.is_empty() && self.letter.is_none() && !self.ready
    }

    /// Notes that an alert is not what the receiver believes.
    pub(super) fn wait(&mut self, alert: Arc<str>, now: Now) {
        if self.waiting.is_empty() {
            self.since = now.boottime;
        }
        self.waiting.insert(alert);
    }

    /// Forgets an alert; whether something stored was forgotten.
    pub(super) fn forget(&mut self, alert: &str) -> bool {
        self.waiting.remove(alert);
        self.told.remove(alert).is_some()
    }

    pub(super) fn due_at(&self, receiver: &Receiver) -> Option<Duration> {
        if self.letter.is_some() || self.ready {
            return None;
        }
        if !self.waiting.is_empty() {
            return Some(self.since.saturating_add(receiver.group_wait).max(self.not_before));
        }
        (!self.told.is_empty()).then_some(self.repeat_at)
    }

    /// There is nothing to tell: the next look is an interval away.
    pub(super) fn postpone(&mut self, receiver: &Receiver, now: Now) {
        if self.repeat_at <= now.boottime {
            self.repeat_at = now.boottime.saturating_add(receiver.repeat_interval);
        }
    }

    /// Forgets alerts that ended and need not be told again; which.
    pub(super) fn forget_old(&mut self, receiver: &Receiver, now: Now) -> Vec<Arc<str>> {
        let Some(keep) = receiver.keep_alive else { return Vec::new() };
        let oldest = now.wall.saturating_sub(keep).unwrap_or(Timestamp::MIN);
        let is_old = |(id, told): (&Arc<str>, &Told)| {
            (told.ended.is_some_and(|ended| ended <= oldest) && !self.waiting.contains(id)).then(|| id.clone())
        };
        let old: Vec<Arc<str>> = self.told.iter().filter_map(is_old).collect();
        self.told.retain(|id, _| !old.contains(id));
        old
    }

    /// What waits without having news: nothing may wait for ever.
    pub(super) fn stop_waiting(&mut self, receiver: &Receiver, alerts: &Alerts) -> Vec<Arc<str>> {
        let has_news = |id: &Arc<str>| alerts.get(id).is_some_and(|alert| !news_of(receiver, self.told.get(id), alert).is_empty());
        let idle: Vec<Arc<str>> = self.waiting.iter().filter(|id| !has_news(id)).cloned().collect();
        self.waiting.retain(|id| !idle.contains(id));
        idle
    }

    /// All there is to tell now, and whether there was more than fits.
    pub(super) fn news(&self, receiver: &Receiver, alerts: &Alerts, now: Now) -> (Vec<News>, bool) {
        let mut parts: Vec<Vec<News>> = self
            .waiting
            .iter()
            .filter_map(|id| alerts.get(id).map(|alert| news_of(receiver, self.told.get(id), alert)))
            .filter(|news| !news.is_empty())
            .collect();
        // Each alert's own news stay in their order; alerts come in the order of what happened to them.
        parts.sort_by_key(|news| news.first().map(|first| first.alert.ends_at.unwrap_or(first.alert.starts_at)));
        let mut news: Vec<News> = parts.into_iter().flatten().collect();
        let is_cut = news.len() > MAX_NEWS;
        if is_cut {
            news.truncate(cut_at(&news));
        } else if self.repeat_at <= now.boottime {
            news.extend(self.repeats(receiver, alerts));
            news.truncate(MAX_NEWS);
        }
        (news, is_cut)
    }

    fn repeats<'a>(&'a self, receiver: &'a Receiver, alerts: &'a Alerts) -> impl Iterator<Item = News> + 'a {
        let open = self.told.iter().filter(|(id, _)| !self.waiting.contains(*id));
        open.filter_map(move |(id, told)| {
            let alert = alerts.get(id)?;
            if told.ended.is_some() {
                return Some(News { change: Change::Resolved, alert: ended(told, alert) });
            }
            let is_noted = alert.acked_by.is_some() || is_hushed(alert);
            (receiver.keep_alive.is_some() || !is_noted).then(|| News { change: Change::Repeated, alert: (**alert).clone() })
        })
    }

    /// The receiver believes this from now on; whether there is anything to remember of the alert.
    pub(super) fn believe(&mut self, id: &Arc<str>, news: &News, keeps: bool) -> bool {
        let starts_at = news.alert.starts_at;
        match news.change {
            Change::Firing => drop(self.told.insert(id.clone(), Told { starts_at, ended: None })),
            Change::Repeated => {}
            Change::Resolved if keeps => {
                // Told again, it does not begin to count anew.
                let ended = self.told.get(id).and_then(|told| told.ended).or(news.alert.ends_at);
                self.told.insert(id.clone(), Told { starts_at, ended });
            }
            Change::Resolved => drop(self.told.remove(id)),
        }
        self.told.contains_key(id)
    }

    /// A letter was sent.
    pub(super) fn sent(&mut self, letter: &Letter, receiver: &Receiver, now: Now) {
        self.last_sent = Some(now.wall);
        self.repeat_at = now.boottime.saturating_add(receiver.repeat_interval);
        let pause = if letter.is_cut { Duration::ZERO } else { receiver.group_interval };
        self.not_before = letter.made_boottime.saturating_add(pause);
    }
}

/// Not between the end of one time of an alert and the beginning of the next.
fn cut_at(news: &[News]) -> usize {
    let splits = news.get(MAX_NEWS - 1).zip(news.get(MAX_NEWS)).is_some_and(|(last, next)| last.alert.id == next.alert.id);
    if splits { MAX_NEWS - 1 } else { MAX_NEWS }
}

fn restored_letter(row: LetterRow, now: Now) -> Option<Letter> {
    // One that does not read is told anew: what it would have changed is still different from what is believed.
    let news: Vec<News> = serde_json::from_str(&row.news).ok()?;
    let age = until(now.wall, row.made_at);
    Some(Letter {
        id: row.id.into(),
        made_at: row.made_at,
        made_boottime: now.boottime.saturating_sub(age),
        attempts: row.attempts,
        next_try: row.next_try,
        is_cut: false,
        news: news.into(),
    })
}
