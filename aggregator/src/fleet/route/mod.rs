//! Who is told what of the alerts, and when: news gathered by group, one delivery at a time to each receiver, each firing and each
//! resolution told once. Decides only: the shell sends, and says what came of it.
//!
//! ```text
//!             group_wait, group_interval          one at a time                 told
//! alert ──▶ waiting ─────────────────▶ ready ──────────────▶ delivery ─────▶ what the receiver believes
//!              ▲                                             │   ▲   │              │
//!              │                             again, later ◀──┘   └───┘ fails        │
//!              └──────────── what differs from it by then ◀─────────────────────────┘
//! ```
//!
//! What a receiver believes is stored with the news under way to it. So nothing waits in a queue that could overflow: what is
//! still to be told is the difference between belief and truth, and a restart finds it again. A delivery keeps its id and its
//! content until it arrives or is given up, so that one that was sent twice (a crash between the sending and the commit) can be
//! told by its id.

mod group;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use jiff::Timestamp;
use picket_common::alert::{AlertKind, Severity};
use picket_common::api::{Alert, News};
use picket_common::clock::Now;
use picket_common::id::{ClusterId, ReceiverId, ZoneId};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::view::{LetterRow, OutboxRow, Row, RowKey};
use super::{Effect, Record};
use group::{Group, Letter, news_of};

/// Most news in one delivery; the rest follows at once.
pub const MAX_NEWS: usize = 500;
/// Pause after the first failure; it doubles up to the last.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LAST_RETRY: Duration = Duration::from_secs(600);
/// A delivery that has not arrived after this is given up.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);
/// The shell ends every attempt within this; one it does not is taken for failed.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(300);

type Alerts = OrdMap<Arc<str>, Arc<Alert>>;

/// What is told to whom, from the aggregator's settings.
#[derive(Debug, Clone, Default)]
pub struct Telling {
    /// Who is told.
    pub receivers: Vec<Receiver>,
    /// How long a cause must hold before its alert fires; absent = not at all.
    pub hold: BTreeMap<AlertKind, Duration>,
}

/// A receiver, as far as the decision goes. An empty list means all.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its name.
    pub id: ReceiverId,
    /// Only alerts of these kinds.
    pub kinds: Vec<AlertKind>,
    /// Only alerts of these zones.
    pub zones: Vec<ZoneId>,
    /// Only alerts of these clusters: none of agents.
    pub clusters: Vec<ClusterId>,
    /// Only alerts that matter at least this much.
    pub severity: Severity,
    /// How long the first news of a group waits for others.
    pub group_wait: Duration,
    /// Least time between two deliveries of a group.
    pub group_interval: Duration,
    /// What still fires is told again after this.
    pub repeat_interval: Duration,
    /// For a receiver that forgets what it is not told again (Alertmanager): acknowledged and silenced alerts are repeated too,
    /// and resolutions for this long.
    pub keep_alive: Option<Duration>,
}

impl Receiver {
    fn wants(&self, alert: &Alert) -> bool {
        let among = |ok: bool, empty: bool| ok || empty;
        among(self.kinds.contains(&alert.kind), self.kinds.is_empty())
            && among(self.zones.contains(&alert.zone), self.zones.is_empty())
            && among(alert.cluster.as_ref().is_some_and(|cluster| self.clusters.contains(cluster)), self.clusters.is_empty())
            && alert.severity >= self.severity
    }
}

/// What the alerts of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Their zone.
    pub zone: ZoneId,
    /// Their cluster; none for alerts of agents.
    pub cluster: Option<ClusterId>,
    /// Their kind.
    pub kind: AlertKind,
}

impl GroupKey {
    fn of(alert: &Alert) -> Self {
        Self { zone: alert.zone.clone(), cluster: alert.cluster.clone(), kind: alert.kind }
    }
}

/// News on their way to one receiver.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The same however often it is sent.
    pub id: Arc<str>,
    /// To whom.
    pub receiver: ReceiverId,
    /// What they have in common.
    pub group: GroupKey,
    /// The id of the first delivery of the same matter: mails with the same are one thread.
    pub thread: Arc<str>,
    /// When it was put together.
    pub made_at: Timestamp,
    /// The news, in order.
    pub news: Arc<[News]>,
}

/// Why a delivery did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// Whether trying again is useless.
    pub is_final: bool,
    /// What went wrong, in one sentence.
    pub why: String,
}

/// A delivery that is not tried again.
#[derive(Debug)]
pub struct GivenUp {
    /// To whom.
    pub receiver: ReceiverId,
    /// Which.
    pub delivery: Arc<str>,
    /// How much it held.
    pub news: usize,
    /// What went wrong last.
    pub why: String,
}

/// Something that is due at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    /// The group's waiting is over.
    Group(ReceiverId, GroupKey),
    /// The delivery under way is tried again, or has taken too long.
    Try(ReceiverId),
}

/// Where one receiver's news are gathered and sent from.
#[derive(Debug)]
struct Desk {
    receiver: Receiver,
    groups: BTreeMap<GroupKey, Group>,
    /// The group that each alert is, was or will be told in: it stays there when the host moves.
    home: BTreeMap<Arc<str>, GroupKey>,
    /// Groups whose waiting is over, longest first.
    ready: VecDeque<GroupKey>,
    under_way: Option<UnderWay>,
}

/// The group whose letter is under way.
#[derive(Debug)]
struct UnderWay {
    group: GroupKey,
    /// When it is tried again, or has taken too long.
    due: Duration,
    in_flight: bool,
}

/// All receivers' desks.
#[derive(Debug, Default)]
pub(super) struct Router {
    store: Uuid,
    receivers: Vec<Receiver>,
    /// What was stored, until the first event says what time it is.
    stored: Vec<OutboxRow>,
    desks: BTreeMap<ReceiverId, Desk>,
    timers: BTreeSet<(Duration, Wake)>,
    out: Out,
}

/// What follows from an event.
#[derive(Debug, Default)]
struct Out {
    dirty: BTreeSet<(ReceiverId, GroupKey)>,
    gone: Vec<RowKey>,
    deliveries: Vec<Delivery>,
    given_up: Vec<GivenUp>,
}

impl Router {
    pub(super) fn new(store: Uuid) -> Self {
        Self { store, ..Self::default() }
    }

    /// Says who is told; before [`Router::start`].
    pub(super) fn set(&mut self, receivers: Vec<Receiver>) {
        self.receivers = receivers;
    }

    /// Takes in a stored row; before [`Router::start`].
    pub(super) fn load(&mut self, row: OutboxRow) {
        self.stored.push(row);
    }

    /// The first event of a process: goes on from what was stored.
    pub(super) fn start(&mut self, alerts: &Alerts, now: Now) {
        let desk = |receiver: Receiver| (receiver.id.clone(), Desk::new(receiver));
        self.desks = std::mem::take(&mut self.receivers).into_iter().map(desk).collect();
        for row in std::mem::take(&mut self.stored) {
            match self.desks.get_mut(&row.receiver) {
                Some(desk) => desk.restore(row, now),
                None => self.out.gone.push(Row::Outbox(row).key()),
            }
        }
        for (id, desk) in &mut self.desks {
            desk.forget_unknown(alerts, &mut self.out);
            let groups: Vec<GroupKey> = desk.groups.keys().cloned().collect();
            groups.iter().for_each(|key| desk.arm(key, &mut self.timers, &mut self.out));
            if let Some(under_way) = &desk.under_way {
                self.timers.insert((under_way.due, Wake::Try(id.clone())));
            }
        }
        for alert in alerts.values() {
            self.changed(alert, now);
        }
    }

    /// Other receivers, or the same with other wishes; after [`Router::start`]. Whoever stays keeps what it believes and what is
    /// under way to it.
    pub(super) fn configure(&mut self, receivers: Vec<Receiver>, alerts: &Alerts, now: Now) {
        let Self { desks, timers, out, .. } = self;
        let mut before = std::mem::take(desks);
        for receiver in receivers {
            let id = receiver.id.clone();
            let desk = match before.remove(&id) {
                Some(mut desk) => {
                    desk.serve(receiver, now, timers, out);
                    desk
                }
                None => Desk::new(receiver),
            };
            desks.insert(id, desk);
        }
        for (id, desk) in &before {
            out.gone.extend(desk.groups.keys().map(|key| outbox_key(id, key)));
        }
        for alert in alerts.values() {
            self.changed(alert, now);
        }
    }

    /// Something about an alert is not what it was.
    pub(super) fn changed(&mut self, alert: &Alert, now: Now) {
        let Self { desks, timers, out, .. } = self;
        desks.values_mut().for_each(|desk| desk.changed(alert, now, timers, out));
    }

    /// When [`Router::tick`] is needed next.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time passed.
    pub(super) fn tick(&mut self, alerts: &Alerts, now: Now) {
        while let Some((at, wake)) = self.timers.pop_first() {
            if at > now.boottime {
                self.timers.insert((at, wake));
                return;
            }
            match wake {
                Wake::Group(receiver, key) => {
                    let Some(desk) = self.desks.get_mut(&receiver) else { continue };
                    desk.is_due(&key, at);
                    self.proceed(&receiver, alerts, now);
                }
                Wake::Try(receiver) => self.try_again(&receiver, at, alerts, now),
            }
        }
    }

    /// What came of an attempt.
    pub(super) fn attempted(
        &mut self,
        receiver: &ReceiverId,
        delivery: &str,
        result: Result<(), Undelivered>,
        alerts: &Alerts,
        now: Now,
    ) {
        let Some(desk) = self.desks.get_mut(receiver) else { return };
        let Some(under_way) = &mut desk.under_way else { return };
        let key = under_way.group.clone();
        let Some(letter) = desk.groups.get_mut(&key).and_then(|group| group.letter.as_mut()) else { return };
        if &*letter.id != delivery || !under_way.in_flight {
            return;
        }
        match result {
            Ok(()) => self.settle(receiver, &key, alerts, now),
            Err(error) => {
                letter.attempts = letter.attempts.saturating_add(1);
                if error.is_final || now.boottime.saturating_sub(letter.made_boottime) >= GIVE_UP {
                    let news = letter.news.len();
                    let (receiver, delivery) = (receiver.clone(), letter.id.clone());
                    self.out.given_up.push(GivenUp { receiver: receiver.clone(), delivery, news, why: error.why });
                    return self.settle(&receiver, &key, alerts, now);
                }
                let pause = pause_after(letter.attempts);
                letter.next_try = Some(now.after(pause).wall);
                under_way.in_flight = false;
                under_way.due = now.boottime.saturating_add(pause);
                self.timers.insert((under_way.due, Wake::Try(receiver.clone())));
                self.out.dirty.insert((receiver.clone(), key));
            }
        }
    }

    fn try_again(&mut self, receiver: &ReceiverId, at: Duration, alerts: &Alerts, now: Now) {
        let Some(desk) = self.desks.get_mut(receiver) else { return };
        let Some(under_way) = desk.under_way.as_mut().filter(|under_way| under_way.due == at) else { return };
        let Some(letter) = desk.groups.get(&under_way.group).and_then(|group| group.letter.as_ref()) else { return };
        if under_way.in_flight {
            let (id, why) = (letter.id.clone(), "the sender did not say what came of it".into());
            return self.attempted(receiver, &id, Err(Undelivered { is_final: false, why }), alerts, now);
        }
        self.send(receiver, now);
    }

    /// Hands the letter under way to the shell.
    fn send(&mut self, receiver: &ReceiverId, now: Now) {
        let Some(desk) = self.desks.get_mut(receiver) else { return };
        let Some(under_way) = &mut desk.under_way else { return };
        let Some(group) = desk.groups.get(&under_way.group) else { return };
        let Some(letter) = &group.letter else { return };
        under_way.in_flight = true;
        under_way.due = now.boottime.saturating_add(ATTEMPT_LIMIT);
        self.timers.insert((under_way.due, Wake::Try(receiver.clone())));
        self.out.deliveries.push(Delivery {
            id: letter.id.clone(),
            receiver: receiver.clone(),
            group: under_way.group.clone(),
            thread: group.thread.clone().unwrap_or_else(|| letter.id.clone()),
            made_at: letter.made_at,
            news: Arc::clone(&letter.news),
        });
    }

    /// The letter under way arrived, or was given up: the receiver believes its news from now on.
    fn settle(&mut self, receiver: &ReceiverId, key: &GroupKey, alerts: &Alerts, now: Now) {
        let Self { desks, timers, out, .. } = self;
        let Some(desk) = desks.get_mut(receiver) else { return };
        desk.under_way = None;
        let Some(group) = desk.groups.get_mut(key) else { return };
        let Some(letter) = group.letter.take() else { return };
        let keeps = desk.receiver.keep_alive.is_some();
        for news in letter.news.iter() {
            let id: Arc<str> = news.alert.id.as_str().into();
            // Looked at anew below, where it may belong to another group by now.
            group.waiting.remove(&id);
            if group.believe(&id, news, keeps) {
                desk.home.insert(id, key.clone());
            } else {
                desk.home.remove(&id);
            }
        }
        group.sent(&letter, &desk.receiver, now);
        out.dirty.insert((receiver.clone(), key.clone()));
        for news in letter.news.iter() {
            match alerts.get(news.alert.id.as_str()) {
                Some(alert) => desk.changed(alert, now, timers, out),
                None => desk.forget(&news.alert.id, out),
            }
        }
        desk.arm(key, timers, out);
        self.proceed(receiver, alerts, now);
    }

    /// Puts the next letter together, if none is under way and there is anything to tell, and sends it.
    fn proceed(&mut self, receiver: &ReceiverId, alerts: &Alerts, now: Now) {
        let store = self.store;
        let Self { desks, timers, out, .. } = self;
        let Some(desk) = desks.get_mut(receiver) else { return };
        while desk.under_way.is_none()
            && let Some(key) = desk.ready.pop_front()
        {
            if desk.write(store, &key, alerts, now, out) {
                return self.send(receiver, now);
            }
            desk.arm(&key, timers, out);
        }
    }

    /// Whether an alert that ended must stay known, for somebody has not been told.
    pub(super) fn needs(&self, alert: &str) -> bool {
        self.desks.values().any(|desk| desk.needs(alert))
    }

    /// What has to be stored, and done afterwards, since the last call.
    pub(super) fn take(&mut self) -> (Vec<Record>, Vec<Effect>) {
        let Out { dirty, gone, deliveries, given_up } = std::mem::take(&mut self.out);
        let rows = dirty.into_iter().map(|(receiver, key)| {
            let group = self.desks.get(&receiver).and_then(|desk| desk.groups.get(&key));
            match group {
                Some(group) => Record::Put(Box::new(Row::Outbox(group.row(&receiver, &key)))),
                None => Record::Remove(outbox_key(&receiver, &key)),
            }
        });
        let records = rows.chain(gone.into_iter().map(Record::Remove)).collect();
        let given_up = given_up.into_iter().map(|given_up| Effect::GaveUp(Box::new(given_up)));
        let deliveries = deliveries.into_iter().map(|delivery| Effect::Notify(Box::new(delivery)));
        (records, given_up.chain(deliveries).collect())
    }
}

impl Desk {
    fn new(receiver: Receiver) -> Self {
        Self { receiver, groups: BTreeMap::new(), home: BTreeMap::new(), ready: VecDeque::new(), under_way: None }
    }

    /// The receiver has other wishes from now on.
    fn serve(&mut self, receiver: Receiver, now: Now, timers: &mut BTreeSet<(Duration, Wake)>, out: &mut Out) {
        self.receiver = receiver;
        let keys: Vec<GroupKey> = self.groups.keys().cloned().collect();
        for key in &keys {
            if let Some(group) = self.groups.get_mut(key) {
                for alert in group.serve(&self.receiver, now) {
                    self.home.remove(&alert);
                    out.dirty.insert((self.receiver.id.clone(), key.clone()));
                }
            }
            self.arm(key, timers, out);
        }
    }

    fn restore(&mut self, row: OutboxRow, now: Now) {
        let key = GroupKey { zone: row.zone.clone(), cluster: row.cluster.clone(), kind: row.kind };
        let mut group = Group::restored(row, &self.receiver, now);
        self.home.extend(group.told.keys().map(|id| (id.clone(), key.clone())));
        // One letter at a time: a second one cannot be, and would be told anew.
        group.letter = group.letter.filter(|_| self.under_way.is_none());
        if let Some(letter) = &group.letter {
            self.home.extend(letter.news.iter().map(|news| (news.alert.id.as_str().into(), key.clone())));
            let left = letter.next_try.map_or(Duration::ZERO, |at| until(at, now.wall)).min(LAST_RETRY);
            self.under_way = Some(UnderWay { group: key.clone(), due: now.boottime.saturating_add(left), in_flight: false });
        }
        self.groups.insert(key, group);
    }

    /// Forgets alerts that were told and are not known any more.
    fn forget_unknown(&mut self, alerts: &Alerts, out: &mut Out) {
        let unknown: Vec<Arc<str>> = self.home.keys().filter(|id| !alerts.contains_key(*id)).cloned().collect();
        unknown.iter().for_each(|id| self.forget(id, out));
    }

    fn forget(&mut self, alert: &str, out: &mut Out) {
        let Some(key) = self.home.remove(alert) else { return };
        if let Some(group) = self.groups.get_mut(&key)
            && group.forget(alert)
        {
            out.dirty.insert((self.receiver.id.clone(), key));
        }
    }

    fn changed(&mut self, alert: &Alert, now: Now, timers: &mut BTreeSet<(Duration, Wake)>, out: &mut Out) {
        let id = alert.id.as_str();
        let key = self.home.get(id).cloned().unwrap_or_else(|| GroupKey::of(alert));
        let told = self.groups.get(&key).and_then(|group| group.told.get(id));
        let is_told = told.is_some();
        if news_of(&self.receiver, told, alert).is_empty() {
            if let Some(group) = self.groups.get_mut(&key) {
                group.waiting.remove(id);
            }
            if !is_told && !self.is_under_way(id) {
                self.home.remove(id);
            }
        } else {
            let id: Arc<str> = id.into();
            let group = self.groups.entry(key.clone()).or_default();
            group.wait(id.clone(), now);
            self.home.insert(id, key.clone());
        }
        self.arm(&key, timers, out);
    }

    /// Sets the group's timer; a group with nothing in it goes.
    fn arm(&mut self, key: &GroupKey, timers: &mut BTreeSet<(Duration, Wake)>, out: &mut Out) {
        let Some(group) = self.groups.get_mut(key) else { return };
        if group.is_empty() {
            self.groups.remove(key);
            out.dirty.insert((self.receiver.id.clone(), key.clone()));
            return;
        }
        let due = group.due_at(&self.receiver);
        if std::mem::replace(&mut group.due, due) != due
            && let Some(due) = due
        {
            timers.insert((due, Wake::Group(self.receiver.id.clone(), key.clone())));
        }
    }

    /// Puts a group's letter together; whether there was anything to tell.
    fn write(&mut self, store: Uuid, key: &GroupKey, alerts: &Alerts, now: Now, out: &mut Out) -> bool {
        let Some(group) = self.groups.get_mut(key) else { return false };
        group.ready = false;
        let forgotten = group.forget_old(&self.receiver, now);
        if !forgotten.is_empty() {
            out.dirty.insert((self.receiver.id.clone(), key.clone()));
        }
        for id in forgotten.into_iter().chain(group.stop_waiting(&self.receiver, alerts)) {
            if !group.told.contains_key(&id) {
                self.home.remove(&id);
            }
        }
        let (news, is_cut) = group.news(&self.receiver, alerts, now);
        if news.is_empty() {
            group.postpone(&self.receiver, now);
            return false;
        }
        let id = letter_id(store, &self.receiver.id, key, now.wall, &news);
        let (made_at, made_boottime) = (now.wall, now.boottime);
        group.thread.get_or_insert_with(|| id.clone());
        group.letter = Some(Letter { id, made_at, made_boottime, attempts: 0, next_try: None, is_cut, news: news.into() });
        self.under_way = Some(UnderWay { group: key.clone(), due: now.boottime, in_flight: false });
        out.dirty.insert((self.receiver.id.clone(), key.clone()));
        true
    }

    fn is_due(&mut self, key: &GroupKey, at: Duration) {
        if let Some(group) = self.groups.get_mut(key)
            && group.due == Some(at)
        {
            group.due = None;
            group.ready = true;
            self.ready.push_back(key.clone());
        }
    }

    fn needs(&self, alert: &str) -> bool {
        self.home.contains_key(alert)
    }

    fn is_under_way(&self, alert: &str) -> bool {
        let group = self.under_way.as_ref().and_then(|under_way| self.groups.get(&under_way.group));
        let letter = group.and_then(|group| group.letter.as_ref());
        letter.is_some_and(|letter| letter.news.iter().any(|news| news.alert.id == alert))
    }
}

fn pause_after(attempts: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LAST_RETRY)
}

/// Time left until `at`.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

fn outbox_key(receiver: &ReceiverId, key: &GroupKey) -> RowKey {
    let GroupKey { zone, cluster, kind } = key;
    let cluster = cluster.as_ref().map_or("-", |cluster| cluster.as_str());
    RowKey::Outbox(format!("{receiver}/{zone}/{cluster}/{kind}"))
}

/// 32 hex digits, different for each delivery of each store.
fn letter_id(store: Uuid, receiver: &ReceiverId, key: &GroupKey, at: Timestamp, news: &[News]) -> Arc<str> {
    let mut hash = Sha256::new();
    hash.update(store.as_bytes());
    hash.update(format!("{receiver}/{key:?}/{}", at.as_nanosecond()));
    for news in news {
        hash.update(format!("{:?} {} {}\n", news.change, news.alert.id, news.alert.starts_at.as_nanosecond()));
    }
    hex::encode(hash.finalize().as_slice().get(..16).unwrap_or_default()).into()
}

impl OutboxRow {
    /// Under which it is kept.
    #[must_use]
    pub fn key(&self) -> RowKey {
        let key = GroupKey { zone: self.zone.clone(), cluster: self.cluster.clone(), kind: self.kind };
        outbox_key(&self.receiver, &key)
    }
}

impl LetterRow {
    fn of(letter: &Letter) -> Self {
        let news: &[News] = &letter.news;
        Self {
            id: letter.id.to_string(),
            made_at: letter.made_at,
            attempts: letter.attempts,
            next_try: letter.next_try,
            news: serde_json::to_string(news).unwrap_or_default(),
        }
    }
}
