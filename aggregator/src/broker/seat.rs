//! Who is connected now, and the bounded queue to each. Holds no socket; a queue that is full cuts its connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use picket_common::id::{AgentId, ConsumerId};
use picket_common::wire::assign::{MAX_HOSTS, MAX_PARTS};
use picket_common::wire::topic::{self, Channel};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::Message;

/// Messages waiting for one agent: all parts of the longest assignment there may be, and all commands that may be open for its
/// hosts, which are told at once when it comes (one that did not fit would cut the agent whenever it came), and others beside them.
/// Usually there are a few dozen, and room that is empty costs nothing.
const AGENT_QUEUE_LEN: usize = MAX_PARTS as usize + OPEN_COMMANDS * MAX_HOSTS + 256;
/// Operations of one host that may be open.
const OPEN_COMMANDS: usize = 16;
/// Messages waiting for one consumer: 10,000 hosts changing at once (a state and an event each) with room to spare. Payloads
/// are shared by all queues, so a queue itself costs little.
const CONSUMER_QUEUE_LEN: usize = 32_768;
/// Subscriptions of one consumer's connection.
const MAX_SUBSCRIPTIONS: usize = 64;

/// The two service levels spoken (QoS 2 is granted as 1, and refused in a PUBLISH).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
}

/// How a subscription wants its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The level.
    pub qos: Qos,
    /// Whether a change of a retained document is to be marked as one; else it comes as any message.
    pub retain_as_published: bool,
}

/// A message on its way to one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its topic.
    pub topic: Arc<str>,
    /// What is said.
    pub message: Arc<Message>,
    /// What this connection asked for.
    pub terms: Terms,
    /// Whether it changes the retained document of its topic.
    pub retained: bool,
}

/// Why a connection is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// A newer connection has its place.
    #[error("a newer connection has its place")]
    TakenOver,
    /// Its queue was full.
    #[error("its queue was full")]
    TooSlow,
    /// Something it subscribed to was lost: better a new start than a silent gap.
    #[error("something it subscribed to was lost")]
    Gap,
    /// Its certificate was revoked, or an admin cut it.
    #[error("its certificate is not in force any more")]
    Revoked,
    /// The daemon stops.
    #[error("the daemon stops")]
    Stopping,
}

/// The connection's end of its seat.
#[derive(Debug)]
pub struct Link {
    /// What to send.
    pub queue: mpsc::Receiver<Delivery>,
    /// Becomes `Some` when the connection is to end.
    pub cut: watch::Receiver<Option<Cut>>,
}

#[derive(Debug)]
struct Seat {
    id: u64,
    queue: mpsc::Sender<Delivery>,
    cut: watch::Sender<Option<Cut>>,
}

impl Seat {
    fn new(len: usize) -> (Self, Link) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (queue, queued) = mpsc::channel(len);
        let (cut, cutting) = watch::channel(None);
        (Self { id: NEXT.fetch_add(1, Ordering::Relaxed), queue, cut }, Link { queue: queued, cut: cutting })
    }

    /// Ends the connection; the first reason stays.
    fn cut(&self, why: Cut) {
        self.cut.send_if_modified(|cut| cut.is_none() && cut.replace(why).is_none());
    }

    fn push(&self, delivery: Delivery) -> bool {
        let pushed = self.queue.try_send(delivery);
        if matches!(pushed, Err(mpsc::error::TrySendError::Full(_))) {
            self.cut(Cut::TooSlow);
        }
        pushed.is_ok()
    }
}

/// A map is whole after every change made under its lock, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct AgentState {
    seat: Seat,
    /// Bit per channel subscribed to, in the order of [`Channel::DOWN`].
    subscribed: AtomicU8,
}

/// An agent's place, from the connection's side.
#[derive(Debug)]
pub struct AgentSeat {
    agent: AgentId,
    state: Arc<AgentState>,
    predecessor: Option<Arc<AgentState>>,
}

impl AgentSeat {
    /// Whose it is.
    #[must_use]
    pub const fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Waits until the connection that had the seat before has ended and said its last.
    pub async fn predecessor_gone(&self) {
        if let Some(predecessor) = &self.predecessor {
            predecessor.seat.cut.closed().await;
        }
    }

    /// Has `channel` delivered from now on; `false` for one that is not the agent's to read.
    #[must_use]
    pub fn subscribe(&self, channel: Channel) -> bool {
        bit(channel).map(|bit| self.state.subscribed.fetch_or(bit, Ordering::Relaxed)).is_some()
    }

    /// Ends that; `false` when there was nothing to end.
    pub fn unsubscribe(&self, channel: Channel) -> bool {
        bit(channel).is_some_and(|bit| self.state.subscribed.fetch_and(!bit, Ordering::Relaxed) & bit != 0)
    }
}

fn bit(channel: Channel) -> Option<u8> {
    Channel::DOWN.iter().position(|&down| down == channel).map(|i| 1 << i)
}

/// Agents connected now.
#[derive(Debug, Default)]
pub(super) struct Agents(Mutex<HashMap<AgentId, Arc<AgentState>>>);

impl Agents {
    pub(super) fn seat(&self, agent: &AgentId) -> (AgentSeat, Link) {
        let (seat, link) = Seat::new(AGENT_QUEUE_LEN);
        let state = Arc::new(AgentState { seat, subscribed: AtomicU8::new(0) });
        let predecessor = lock(&self.0).insert(agent.clone(), state.clone());
        if let Some(predecessor) = &predecessor {
            predecessor.seat.cut(Cut::TakenOver);
        }
        (AgentSeat { agent: agent.clone(), state, predecessor }, link)
    }

    pub(super) fn current(&self, agent: &AgentId) -> Option<u64> {
        lock(&self.0).get(agent).map(|state| state.seat.id)
    }

    pub(super) fn is_current(&self, seat: &AgentSeat) -> bool {
        self.current(&seat.agent) == Some(seat.state.seat.id)
    }

    pub(super) fn remove(&self, seat: &AgentSeat) {
        let mut agents = lock(&self.0);
        if agents.get(&seat.agent).is_some_and(|state| state.seat.id == seat.state.seat.id) {
            agents.remove(&seat.agent);
        }
    }

    pub(super) fn tell(&self, agent: &AgentId, channel: Channel, topic: Arc<str>, message: Arc<Message>) -> bool {
        let Some(state) = lock(&self.0).get(agent).cloned() else { return false };
        let wants = bit(channel).is_some_and(|bit| state.subscribed.load(Ordering::Relaxed) & bit != 0);
        let terms = Terms { qos: Qos::AtLeastOnce, retain_as_published: false };
        wants && state.seat.push(Delivery { topic, message, terms, retained: false })
    }
}

#[derive(Debug)]
struct ConsumerState {
    seat: Seat,
    consumer: ConsumerId,
    client_id: String,
    subscriptions: Mutex<Vec<(String, Terms)>>,
}

/// A consumer's place, from the connection's side; dropping it gives it up.
#[derive(Debug)]
pub struct ConsumerSeat {
    state: Arc<ConsumerState>,
    consumers: Arc<Consumers>,
}

impl ConsumerSeat {
    /// Whose it is.
    #[must_use]
    pub fn consumer(&self) -> &ConsumerId {
        &self.state.consumer
    }

    /// Has what matches `filter` delivered from now on.
    #[must_use]
    pub fn subscribe(&self, filter: &str, terms: Terms) -> Subscribed {
        let mut subscriptions = lock(&self.state.subscriptions);
        if let Some(subscription) = subscriptions.iter_mut().find(|(known, _)| known == filter) {
            subscription.1 = terms;
            return Subscribed::Again;
        }
        if subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Subscribed::Full;
        }
        subscriptions.push((filter.to_owned(), terms));
        Subscribed::New
    }

    /// Ends that; `false` when there was nothing to end.
    pub fn unsubscribe(&self, filter: &str) -> bool {
        let mut subscriptions = lock(&self.state.subscriptions);
        let before = subscriptions.len();
        subscriptions.retain(|(known, _)| known != filter);
        subscriptions.len() < before
    }
}

/// What became of a subscription asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// It stands.
    New,
    /// It stood before, and stands at its new terms.
    Again,
    /// There are too many.
    Full,
}

impl Drop for ConsumerSeat {
    fn drop(&mut self) {
        lock(&self.consumers.0).remove(&self.state.seat.id);
    }
}

/// Consumers connected now, by seat.
#[derive(Debug, Default)]
pub(super) struct Consumers(Mutex<HashMap<u64, Arc<ConsumerState>>>);

impl Consumers {
    pub(super) fn seat(this: &Arc<Self>, consumer: &ConsumerId, client_id: &str, max: usize) -> Option<(ConsumerSeat, Link)> {
        let (seat, link) = Seat::new(CONSUMER_QUEUE_LEN);
        let (consumer, client_id) = (consumer.clone(), client_id.to_owned());
        let state = Arc::new(ConsumerState { seat, consumer, client_id, subscriptions: Mutex::default() });
        let mut seats = lock(&this.0);
        let own = || seats.values().filter(|other| other.consumer == state.consumer);
        let same = own().find(|other| !state.client_id.is_empty() && other.client_id == state.client_id).map(|o| o.seat.id);
        if same.is_none() && own().count() >= max {
            return None;
        }
        if let Some(older) = same.and_then(|id| seats.remove(&id)) {
            older.seat.cut(Cut::TakenOver);
        }
        seats.insert(state.seat.id, state.clone());
        drop(seats);
        Some((ConsumerSeat { state, consumers: this.clone() }, link))
    }

    pub(super) fn cut_all(&self, why: Cut) {
        for state in lock(&self.0).values() {
            state.seat.cut(why);
        }
    }

    /// Queues a message for everybody subscribed to `topic`: once each, at the highest terms asked for.
    pub(super) fn deliver(&self, topic: &Arc<str>, message: &Arc<Message>, retained: bool) {
        for state in lock(&self.0).values() {
            let asked = lock(&state.subscriptions)
                .iter()
                .filter(|(filter, _)| topic::matches(filter, topic))
                .map(|(_, terms)| *terms)
                .reduce(Terms::or);
            let Some(terms) = asked else { continue };
            let delivery = Delivery { topic: topic.clone(), message: message.clone(), terms, retained };
            if !state.seat.push(delivery) {
                warn!(consumer = %state.consumer, "consumer does not keep up, its connection is cut");
            }
        }
    }
}

impl Terms {
    fn or(self, other: Self) -> Self {
        Self { qos: self.qos.max(other.qos), retain_as_published: self.retain_as_published || other.retain_as_published }
    }
}
