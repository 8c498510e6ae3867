//! The broker: what the aggregator says reaches agents and consumers, what agents say reaches the aggregator. Opens no socket
//! (the gate does) and keeps no state of the fleet.
//!
//! This is a narrow seam: an external MQTT broker, spoken to as a client, is its second implementation. The embedded one:
//!
//! ```text
//! agent  ─ gate ─ hand_over ───────────────▶ inbound (the core)      back-pressure, PUBACK after the hand-over
//! agent  ◀ gate ─ bounded queue ◀─────────── tell                    full: the connection is cut, the agent resyncs
//! consumer ◀ gate ─ bounded queues ◀─ bus ◀─ publish                 full: that consumer is cut, never the others
//!                                      └ rumqttd's Router
//! ```
//!
//! - What agents say, and what is said to them, does not pass the router: it acknowledges before it stores, its log skips
//!   what a slow reader has not read yet, and neither may happen to a report or a command.
//! - The public tree passes it as a bus (`bus.rs`) in a window small enough that its log can skip nothing. Everything is
//!   numbered, so that if it lost something all the same, every consumer is cut and nobody has a gap he does not know of.
//! - Retained documents are not the router's: it forgets them, cuts them off at 100, and keeps every topic it ever saw. They
//!   come from [`Retained`], complete, at each SUBSCRIBE.
//!
//! **Rule for whoever publishes**: a retained document is in what [`Retained`] reads *before* [`Broker::publish`] says it. A
//! consumer's subscription is registered before its snapshot is read, so it misses nothing; it may see a document twice, a
//! retained one never follows a newer one, and the last one it sees of a topic is always the newest. What was under way when
//! the snapshot was read may follow it though it is older: documents carry `seq` for those who cannot wait a moment.

mod bus;
mod message;
mod seat;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use picket_common::id::{AgentId, ConsumerId};
use picket_common::wire::topic::{Channel, internal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{debug, error, warn};

pub use message::{Form, Message};
pub use seat::{AgentSeat, ConsumerSeat, Cut, Delivery, Link, Qos, Subscribed, Terms};
use seat::{Agents, Consumers};

/// Longest topic, payload and attributes of the public tree together, in bytes. Documents have one or two kilobytes.
pub const MAX_PUBLIC_LEN: usize = 256 * 1024;

/// Public messages waiting for the bus. A whole fleet of 10,000 hosts changing at once is two messages each.
const FEED_LEN: usize = 65_536;
/// How long a probe may take before the broker counts as stuck.
const PROBE_TIME: Duration = Duration::from_secs(5);
/// Snapshots of retained state being read at the same time: each may hold documents of all hosts.
const SNAPSHOTS: usize = 2;

/// What agents cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// An agent said something on one of its upward channels. [`Channel::Gone`] is its will.
    Message {
        /// Who, as its certificate says.
        agent: AgentId,
        /// Where.
        channel: Channel,
        /// What.
        payload: Bytes,
    },
    /// The agent's current connection ended; a will precedes this. Not sent when a newer connection took over.
    Disconnected {
        /// Whose.
        agent: AgentId,
    },
}

/// Where retained documents are read.
pub trait Retained: Send + Sync {
    /// All current documents whose topic matches `filter`, complete. Called on every SUBSCRIBE of a consumer, on a thread
    /// that may block.
    fn matching(&self, filter: &str) -> Vec<(String, Bytes)>;
}

/// Why the broker does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The router's thread is gone, or the bus ended.
    #[error("the router stopped")]
    Stopped,
    /// A message put in does not come out.
    #[error("the router did not pass a message on within {} s", PROBE_TIME.as_secs())]
    Stuck,
    /// The core no longer listens: the daemon is stopping.
    #[error("nobody takes what agents say")]
    Closed,
}

/// The embedded broker; clones are handles on the same one.
#[derive(Clone)]
pub struct Broker(Arc<Shared>);

struct Shared {
    retained: Arc<dyn Retained>,
    snapshots: Arc<Semaphore>,
    inbound: mpsc::Sender<Inbound>,
    feed: mpsc::Sender<bus::Feed>,
    agents: Agents,
    consumers: Arc<Consumers>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts the broker: `retained` answers subscriptions, `inbound` takes what agents say. Call within a tokio runtime.
    ///
    /// # Errors
    /// [`BrokerError::Stopped`] when the router does not start.
    pub fn embedded(retained: Arc<dyn Retained>, inbound: mpsc::Sender<Inbound>) -> Result<Self, BrokerError> {
        let (feed, fed) = mpsc::channel(FEED_LEN);
        let consumers = Arc::new(Consumers::default());
        bus::start(fed, consumers.clone())?;
        let snapshots = Arc::new(Semaphore::new(SNAPSHOTS));
        Ok(Self(Arc::new(Shared { retained, snapshots, inbound, feed, agents: Agents::default(), consumers })))
    }

    /// Says `message` on a public topic to the consumers subscribed to it now. `retain` marks a change of a retained document
    /// (an empty payload: its end); see the rule in the module's description. Never waits.
    pub fn publish(&self, topic: &str, message: Message, retain: bool) {
        let len = message.weight();
        if topic.is_empty() || topic.len() > usize::from(u16::MAX) || topic.len() + len > MAX_PUBLIC_LEN {
            error!(topic_len = topic.len(), len, "public message is over the limit, not published");
            return;
        }
        match self.0.feed.try_send(bus::Feed::Message { topic: topic.into(), message, retain }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                error!("public messages come faster than the bus takes them, all consumers are cut");
                self.0.consumers.cut_all(Cut::Gap);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => error!("public message not published, the router stopped"),
        }
    }

    /// Says `payload` to `agent`, when it is connected and subscribed to `channel`. `false` when it is not, and when its
    /// queue was full (its connection is cut then). Never waits; nothing is kept for later.
    #[must_use]
    pub fn tell(&self, agent: &AgentId, channel: Channel, payload: Bytes) -> bool {
        self.0.agents.tell(agent, channel, internal(agent, channel).into(), Message::opaque(payload).into())
    }

    /// Passes a message through the router and waits for it: for the watchdog.
    ///
    /// # Errors
    /// [`BrokerError::Stopped`], [`BrokerError::Stuck`].
    pub async fn probe(&self) -> Result<(), BrokerError> {
        let (done, arrived) = oneshot::channel();
        let round = async {
            self.0.feed.send(bus::Feed::Probe(done)).await.map_err(|_| BrokerError::Stopped)?;
            arrived.await.map_err(|_| BrokerError::Stopped)
        };
        tokio::time::timeout(PROBE_TIME, round).await.unwrap_or(Err(BrokerError::Stuck))
    }

    /// Seats a connection of `agent`, cutting the one before it. The new one waits for [`AgentSeat::predecessor_gone`], so
    /// that nothing of the old connection follows anything of the new one.
    #[must_use]
    pub fn seat_agent(&self, agent: &AgentId) -> (AgentSeat, Link) {
        self.0.agents.seat(agent)
    }

    /// Ends what [`Broker::seat_agent`] began: hands over the will, then the news that it is gone, unless a newer connection
    /// has the seat.
    /// `cut` is the connection's [`Link::cut`]: its drop at the end tells the next connection to begin.
    pub async fn unseat_agent(&self, seat: &AgentSeat, cut: watch::Receiver<Option<Cut>>, will: Option<Bytes>) {
        let agent = seat.agent().clone();
        if let Some(payload) = will
            && self.hand_over(Inbound::Message { agent: agent.clone(), channel: Channel::Gone, payload }).await.is_err()
        {
            debug!(%agent, "will not handed over, the core has stopped");
        }
        // Said while still seated: a newer connection waits until `cut` is dropped, so its hello comes after this.
        if self.0.agents.is_current(seat) && self.hand_over(Inbound::Disconnected { agent: agent.clone() }).await.is_err() {
            debug!(%agent, "disconnection not handed over, the core has stopped");
        }
        self.0.agents.remove(seat);
        drop(cut);
    }

    /// Seats a connection of a consumer; the same consumer with the same client id cuts its older connection. `None` when the
    /// consumer has `max` connections already.
    #[must_use]
    pub fn seat_consumer(&self, consumer: &ConsumerId, client_id: &str, max: usize) -> Option<(ConsumerSeat, Link)> {
        Consumers::seat(&self.0.consumers, consumer, client_id, max)
    }

    /// Hands what an agent said to the core, waiting while the core is busy.
    ///
    /// # Errors
    /// [`BrokerError::Closed`].
    pub async fn hand_over(&self, inbound: Inbound) -> Result<(), BrokerError> {
        self.0.inbound.send(inbound).await.map_err(|_| BrokerError::Closed)
    }

    /// All retained documents matching `filter`.
    pub async fn retained(&self, filter: String) -> Vec<(String, Bytes)> {
        let Ok(_permit) = self.0.snapshots.clone().acquire_owned().await else { return Vec::new() };
        let retained = self.0.retained.clone();
        tokio::task::spawn_blocking(move || retained.matching(&filter)).await.unwrap_or_else(|error| {
            warn!(%error, "retained documents could not be read");
            Vec::new()
        })
    }
}

#[cfg(test)]
mod tests;
