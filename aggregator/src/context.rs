//! What the shell hands to its parts, above all to the API: a way to ask the core, snapshots of the view, the events as they
//! happen, the history, and how healthy the daemon is. Never decides anything.
//!
//! [`Context`] is made once in `run.rs`; `api::serve` gets it together with the `pki::Authority`. All fields are cheap to clone.
//!
//! ```text
//! let answer: Result<Answer, Rejection> = context.asker.ask("alice", Request::DeleteZone(zone), Terms::default()).await;
//! let view: Arc<View> = context.view.load_full();
//! let mut events = context.events.subscribe(last_event_id);      // SSE
//! loop { match events.next().await { Next::Event(e) => …e.event.id, e.json…, Next::Resync => …, Next::Closed => break } }
//! let lines: Vec<HistoryEntry> = context.history.read(host, before, limit).await?;   // newest first
//! let checks: Vec<Check> = context.health.checks();              // /readyz
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use picket_common::api::{CloudEvent, HistoryEntry};
use picket_common::id::{HostId, SiteId};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::clock;
use crate::fleet::{Answer, Event, Rejection, Request, RequestId, Terms, View};

/// Everything the API needs beside the certificate authority.
#[derive(Clone)]
pub struct Context {
    /// Name of the site, as in certificates.
    pub site: SiteId,
    /// Where agents and people reach the API: `host:port`, as put into join lines.
    pub advertised_api: Arc<str>,
    /// Where agents and consumers reach MQTT: `host:port`.
    pub advertised_mqtt: Arc<str>,
    /// Asks the core.
    pub asker: Asker,
    /// The last durable view: `load_full()` is a snapshot.
    pub view: Arc<ArcSwap<View>>,
    /// Events as they happen.
    pub events: EventBus,
    /// Reads histories.
    pub history: History,
    /// What works.
    pub health: Arc<Health>,
}

/// Asks the core and waits for its answer: the shell joins them by id, the core holds no channels.
#[derive(Clone)]
pub struct Asker {
    events: mpsc::Sender<Event>,
    waiting: Arc<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: AtomicU64,
    answers: Mutex<HashMap<RequestId, oneshot::Sender<Result<Answer, Rejection>>>>,
}

impl Waiting {
    fn answers(&self) -> MutexGuard<'_, HashMap<RequestId, oneshot::Sender<Result<Answer, Rejection>>>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the asker when its future is dropped: a closed HTTP connection must leave nothing behind.
struct Place {
    id: RequestId,
    waiting: Arc<Waiting>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.answers().remove(&self.id);
    }
}

impl Asker {
    /// An asker that sends to the core through `events`.
    #[must_use]
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, waiting: Arc::default() }
    }

    /// Asks for `request` on behalf of `principal`; the answer comes after the store's commit.
    ///
    /// # Errors
    /// The core's [`Rejection`]; [`Rejection::Store`] when the daemon is stopping.
    pub async fn ask(&self, principal: &str, request: Request, terms: Terms) -> Result<Answer, Rejection> {
        let id = RequestId(self.waiting.next.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.waiting.answers().insert(id, sender);
        let _place = Place { id, waiting: Arc::clone(&self.waiting) };
        let asked = Event::Asked { id, principal: principal.into(), request: Box::new(request), terms: Box::new(terms) };
        let stopping = || Rejection::Store("the aggregator is stopping".into());
        self.events.send(asked).await.map_err(|_| stopping())?;
        receiver.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Hands an answer to whoever waits for it; one who left is no error.
    pub fn answer(&self, id: RequestId, answer: Result<Answer, Rejection>) {
        let waiting = self.waiting.answers().remove(&id);
        if let Some(Err(_gone)) = waiting.map(|sender| sender.send(answer)) {
            tracing::debug!(request = id.0, "asker left before the answer");
        }
    }
}

/// Events kept for `Last-Event-ID`: about 10 MB.
const KEPT_EVENTS: usize = 10_000;
/// Events a slow subscriber may lag behind before it is told to resync.
const LAG: usize = 4_096;

/// An event with its JSON, rendered once for all who get it.
#[derive(Debug)]
pub struct Published {
    /// The event.
    pub event: CloudEvent,
    /// The same in structured mode (CloudEvents JSON event format §3).
    pub json: Bytes,
}

/// The events of this process, the last ones kept for those who come back.
#[derive(Clone)]
pub struct EventBus {
    shared: Arc<Mutex<Recent>>,
}

struct Recent {
    kept: VecDeque<Arc<Published>>,
    live: broadcast::Sender<Arc<Published>>,
}

impl Default for EventBus {
    fn default() -> Self {
        let live = broadcast::Sender::new(LAG);
        Self { shared: Arc::new(Mutex::new(Recent { kept: VecDeque::new(), live })) }
    }
}

impl EventBus {
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who listens, and keeps the event for those who come back.
    pub fn publish(&self, event: Arc<Published>) {
        let mut recent = self.recent();
        if recent.kept.len() == KEPT_EVENTS {
            recent.kept.pop_front();
        }
        recent.kept.push_back(Arc::clone(&event));
        // An error only says that nobody listens.
        drop(recent.live.send(event));
    }

    /// All events from now on; with `after` (an event's id) also those since it. When that one is not kept any more, the
    /// first thing told is [`Next::Resync`].
    #[must_use]
    pub fn subscribe(&self, after: Option<&str>) -> Subscription {
        let recent = self.recent();
        // Under the same lock as `publish`: nothing is missed or doubled between the kept and the live ones.
        let live = recent.live.subscribe();
        let (missed, resync) = match after {
            None => (VecDeque::new(), false),
            Some(id) => match recent.kept.iter().rposition(|kept| kept.event.id == id) {
                Some(at) => (recent.kept.range(at + 1..).cloned().collect(), false),
                None => (VecDeque::new(), true),
            },
        };
        Subscription { missed, resync, live }
    }
}

/// One listener's place in the events.
pub struct Subscription {
    missed: VecDeque<Arc<Published>>,
    resync: bool,
    live: broadcast::Receiver<Arc<Published>>,
}

/// What a listener hears next.
#[derive(Debug)]
pub enum Next {
    /// An event.
    Event(Arc<Published>),
    /// Events were lost to this listener: read the state anew.
    Resync,
    /// The daemon is stopping.
    Closed,
}

impl Subscription {
    /// Waits for the next event. Safe to cancel.
    pub async fn next(&mut self) -> Next {
        if std::mem::take(&mut self.resync) {
            return Next::Resync;
        }
        if let Some(event) = self.missed.pop_front() {
            return Next::Event(event);
        }
        match self.live.recv().await {
            Ok(event) => Next::Event(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Next::Resync,
            Err(broadcast::error::RecvError::Closed) => Next::Closed,
        }
    }
}

/// Why a history could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the history cannot be read now: {0}")]
pub struct HistoryError(pub String);

/// Where histories are read; implemented by the store.
pub trait HistorySource: Send + Sync {
    /// See [`History::read`].
    ///
    /// # Errors
    /// [`HistoryError`].
    fn history(&self, host: &HostId, before: Option<u64>, limit: usize) -> Result<Vec<HistoryEntry>, HistoryError>;
}

/// Reads histories without stalling the runtime.
#[derive(Clone)]
pub struct History(Arc<dyn HistorySource>);

impl History {
    /// Reads from `source`.
    #[must_use]
    pub fn new(source: Arc<dyn HistorySource>) -> Self {
        Self(source)
    }

    /// At most `limit` lines of `host`, newest first; with `before`, only lines of a smaller sequence.
    ///
    /// # Errors
    /// [`HistoryError`] when the store cannot be read.
    pub async fn read(&self, host: &HostId, before: Option<u64>, limit: usize) -> Result<Vec<HistoryEntry>, HistoryError> {
        let (source, host) = (Arc::clone(&self.0), host.clone());
        tokio::task::spawn_blocking(move || source.history(&host, before, limit))
            .await
            .unwrap_or_else(|error| Err(HistoryError(error.to_string())))
    }
}

/// One line of `/readyz?verbose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `store`, `core` or `broker`.
    pub name: &'static str,
    /// What is wrong; absent = nothing.
    pub problem: Option<&'static str>,
}

/// What works, as the daemon's own parts say.
#[derive(Debug, Default)]
pub struct Health {
    store_degraded: AtomicBool,
    core_seen: AtomicU64,
    broker_seen: AtomicU64,
}

/// The core and the broker's self-probe must have been seen within this.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

impl Health {
    /// The store's last commit worked, or did not.
    pub fn store(&self, works: bool) {
        self.store_degraded.store(!works, Ordering::Relaxed);
    }

    /// The core has just made progress.
    pub fn core_progress(&self) {
        self.core_seen.store(seconds(), Ordering::Relaxed);
    }

    /// The broker's self-probe has just come back.
    pub fn broker_probe(&self) {
        self.broker_seen.store(seconds(), Ordering::Relaxed);
    }

    /// Whether nothing hangs: what the watchdog goes by. A degraded store is no reason to be restarted.
    #[must_use]
    pub fn alive(&self) -> bool {
        lately(&self.core_seen) && lately(&self.broker_seen)
    }

    /// All checks; ready when none has a problem.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        let check = |name, works: bool, problem| Check { name, problem: (!works).then_some(problem) };
        vec![
            check("store", !self.store_degraded.load(Ordering::Relaxed), "the store cannot be written"),
            check("core", lately(&self.core_seen), "the core has not answered lately"),
            check("broker", lately(&self.broker_seen), "the broker's self-probe has not come back lately"),
        ]
    }
}

fn seconds() -> u64 {
    clock::now().boottime.as_secs()
}

fn lately(seen: &AtomicU64) -> bool {
    let seen = seen.load(Ordering::Relaxed);
    seen > 0 && seconds().saturating_sub(seen) <= SEEN_WITHIN.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use picket_common::api::{EventData, EventWhat};

    fn event(id: &str) -> Arc<Published> {
        let data = EventData { host: None, zone: None, cluster: None, agent: None, what: EventWhat::Presence { connected: true } };
        let event = CloudEvent {
            specversion: "1.0".into(),
            id: id.into(),
            source: "/agent/a".into(),
            kind: "io.picket.agent.connected.v1".into(),
            subject: "a".into(),
            time: jiff::Timestamp::UNIX_EPOCH,
            datacontenttype: "application/json".into(),
            data,
        };
        Arc::new(Published { json: serde_json::to_vec(&event).unwrap().into(), event })
    }

    async fn heard(subscription: &mut Subscription) -> String {
        match subscription.next().await {
            Next::Event(event) => event.event.id.clone(),
            other => format!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn events_are_resumed_and_lost_ones_are_said() {
        let bus = EventBus::default();
        for id in ["1", "2", "3"] {
            bus.publish(event(id));
        }
        let mut resumed = bus.subscribe(Some("1"));
        let mut lost = bus.subscribe(Some("0"));
        let mut new = bus.subscribe(None);
        bus.publish(event("4"));
        assert_eq!([heard(&mut resumed).await, heard(&mut resumed).await, heard(&mut resumed).await], ["2", "3", "4"]);
        assert_eq!([heard(&mut lost).await, heard(&mut lost).await], ["Resync", "4"]);
        assert_eq!(heard(&mut new).await, "4");
        for i in 0..=LAG {
            bus.publish(event(&i.to_string()));
        }
        assert_eq!(heard(&mut new).await, "Resync");
        drop(bus);
    }

    #[tokio::test]
    async fn askers_get_their_own_answer_and_leave_nothing_behind() {
        let (sender, mut receiver) = mpsc::channel(4);
        let asker = Asker::new(sender);
        let core = asker.clone();
        let zone = || Request::DeleteZone("z".parse().unwrap());
        let answering = async {
            let mut ids = Vec::new();
            while ids.len() < 2 {
                let Some(Event::Asked { id, .. }) = receiver.recv().await else { panic!("not asked") };
                ids.push(id);
            }
            for id in ids.into_iter().rev() {
                core.answer(id, Err(Rejection::Store(id.0.to_string())));
            }
        };
        let (one, two, ()) =
            tokio::join!(asker.ask("a", zone(), Terms::default()), asker.ask("a", zone(), Terms::default()), answering);
        assert_eq!([one.unwrap_err(), two.unwrap_err()], [Rejection::Store("0".into()), Rejection::Store("1".into())]);
        let left =
            tokio::select! { biased; _ = asker.ask("a", zone(), Terms::default()) => false, () = std::future::ready(()) => true };
        assert!(left && asker.waiting.answers().is_empty());
        drop(receiver);
        assert!(matches!(asker.ask("a", zone(), Terms::default()).await, Err(Rejection::Store(_))));
    }
}
