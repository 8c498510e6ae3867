//! What the shell hands to its parts, above all to the API: a way to ask the core, snapshots of the view, the events as they
//! happen, the history, and how healthy the daemon is. Never decides anything.
//!
//! [`Context`] is made once in `run.rs`; `api::serve` gets it together with the `pki::Authority`. All fields are cheap to clone.
//!
//! ```text
//! let answer: Result<Answer, Rejection> = context.asker.ask("alice", Request::DeleteZone(zone), Terms::default()).await;
//! let view: Arc<View> = context.view.load_full();
//! context.asker.note(Note::Audit(entry)).await?;                 // durable when it returns
//! let mut events = context.events.subscribe(From::Cursor(last)).await;               // SSE
//! loop { match events.next().await { Next::Event(e) => …e.cursor(), e.json…, Next::Resync => …, Next::Failed => break } }
//! let lines: Vec<HistoryEntry> = context.archive.history(host, before, limit).await?;   // newest first
//! let checks: Vec<Check> = context.health.checks();              // /readyz
//! ```

mod archive;
mod events;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use picket_common::id::SiteId;
use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::fleet::{Answer, Event, Note, Rejection, Request, RequestId, Terms, View};

pub use archive::{Archive, ArchiveError, ArchiveSource, AuditPage, AuditQuery, KeptEvents};
pub use events::{EventBus, From, Next, Published, Subscription};

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
    /// Reads what is kept beside the view: histories, the audit log, answers.
    pub archive: Archive,
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
        let (principal, request, terms) = (principal.into(), Box::new(request), Box::new(terms));
        self.answered(|id| Event::Asked { id, principal, request, terms }).await
    }

    /// Has something written down that changes nothing of the fleet; durable when this returns.
    ///
    /// # Errors
    /// [`Rejection::Store`].
    pub async fn note(&self, note: Note) -> Result<(), Rejection> {
        self.answered(|id| Event::Noted { id, note: Box::new(note) }).await.map(drop)
    }

    async fn answered(&self, event: impl FnOnce(RequestId) -> Event) -> Result<Answer, Rejection> {
        let id = RequestId(self.waiting.next.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.waiting.answers().insert(id, sender);
        let _place = Place { id, waiting: Arc::clone(&self.waiting) };
        let stopping = || Rejection::Store("the aggregator is stopping".into());
        self.events.send(event(id)).await.map_err(|_| stopping())?;
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
