//! The gate: the only MQTT socket that faces the network. It decides who comes in and what they may say; it keeps no messages.
//!
//! Mutual TLS, MQTT 3.1.1 and 5 on one port, as the CONNECT says. Every connection is a task of its own from the first byte on, so none waits for another's
//! handshake, and one that panics ends alone. In order: caps on connections, TLS within 5 s, identity and role from the
//! certificate (of an agent: with the key it joined with last), CONNECT within 5 s, then packets, each checked against the role's rights (`rights.rs`).
//!
//! - An agent's client id must be its agent id; a newer connection takes over. A consumer's client id is its own affair: it
//!   is only compared with those of the same consumer.
//! - A will that is not allowed is refused, a PUBLISH that is not ends the connection (at QoS 1 in MQTT 5 it is answered with
//!   0x87), a filter that is not gets a SUBACK's 0x80, in MQTT 5 why.
//! - Sessions are always clean: nothing is queued for who is away (a command must not be found hours later). So a session
//!   expires with its connection, and a will is said at once.
//! - Keep-alive 0, or over 300 s, counts as 300 s; who is silent for 1.5 times that is cut.
//! - QoS 2 is granted as 1 and refused in a PUBLISH. The PUBACK to an agent means "handed to the core", not "durable".
//! - MQTT 5 without topic aliases, subscription identifiers, shared subscriptions and enhanced authentication: none is offered,
//!   and each is refused with the reason code for it. Who is cut hears why in a DISCONNECT.

mod end;
mod packet;
mod rate;
mod read;
mod rights;
mod seats;
mod session;
mod write;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use picket_common::id::{AgentId, SiteId};
use picket_common::wire::codec;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};
use tracing::{debug, info, warn};

use crate::broker::{Broker, Cut};
use crate::pki::{GateTls, Peer, Role};
pub(crate) use seats::{Caps, Seat, Seats};

/// How often live sessions are compared with whose keys they should be: an agent that was replaced or removed is cut within it.
const LOOK_AT_KEYS: Duration = Duration::from_secs(1);
/// How long the gate takes at most to end its sessions when it stops.
pub const LAST_WORDS: Duration = Duration::from_secs(2);

/// Limits of the gate, each with its reason.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections in all: a bound on memory (some 50 KB each).
    pub max_connections: usize,
    /// Connections from one address: one host cannot take all. Above the agents behind one NAT.
    pub max_per_address: usize,
    /// Connections that have not shown a certificate yet, in all.
    pub max_unproved: usize,
    /// The same from one address.
    pub max_unproved_per_address: usize,
    /// Connections of one consumer.
    pub max_per_consumer: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time from there to a whole CONNECT.
    pub connect: Duration,
    /// Time for one write to get out: who does not read is cut.
    pub write: Duration,
    /// Time for a QoS 1 message to be acknowledged once as many as may be are unacknowledged.
    pub acknowledge: Duration,
    /// Time to tell a client that, and why, its connection ends. Whoever takes its place waits for it.
    pub farewell: Duration,
    /// Longest packet from a client, in bytes.
    pub max_packet: usize,
    /// Packets per second from an agent; beyond it the gate reads more slowly, so that one agent cannot keep the core from
    /// the others. A packet of a backlog carries up to 128 reports.
    pub agent_rate: u32,
    /// Packets per second from a consumer (acknowledgements not counted).
    pub consumer_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8192,
            max_per_address: 1024,
            max_unproved: 1024,
            max_unproved_per_address: 128,
            max_per_consumer: 32,
            handshake: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            write: Duration::from_secs(10),
            acknowledge: Duration::from_secs(30),
            farewell: Duration::from_secs(1),
            max_packet: codec::MAX_PACKET_LEN,
            agent_rate: 100,
            consumer_rate: 20,
        }
    }
}

/// Which key is whose: an agent's certificate counts only while its key is the agent's. Cheap and never waits.
#[derive(Clone)]
pub struct AgentKeys(Arc<IsKeyOf>);

type IsKeyOf = dyn Fn(&AgentId, &str) -> bool + Send + Sync;

impl AgentKeys {
    /// `allowed` says whether the key with this SPKI hash (hex) is the agent's now.
    #[must_use]
    pub fn new(allowed: impl Fn(&AgentId, &str) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(allowed))
    }

    fn allow(&self, peer: &Peer) -> bool {
        match &peer.identity.role {
            Role::Agent(agent) => (self.0)(agent, &peer.spki_sha256),
            Role::Consumer(_) => true,
            Role::Witness(_) => false,
        }
    }
}

impl std::fmt::Debug for AgentKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentKeys").finish_non_exhaustive()
    }
}

/// Settings of the gate.
#[derive(Debug, Clone)]
pub struct GateConfig {
    /// Its limits.
    pub limits: Limits,
    /// The site whose certificates it takes.
    pub site: SiteId,
    /// Which agents' keys it takes.
    pub keys: AgentKeys,
}

/// Why the gate could not open.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The address cannot be listened on.
    #[error("listening for MQTT on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The gate, listening.
#[derive(Debug)]
pub struct Gate {
    listener: TcpListener,
    local: SocketAddr,
    shared: Arc<Shared>,
    seats: Seats,
}

/// What outlives [`Gate::run`]'s start: cuts connections.
#[derive(Debug, Clone)]
pub struct GateHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tls: GateTls,
    config: GateConfig,
    broker: Broker,
    doors: Mutex<Doors>,
}

/// Live sessions, and keys that get none.
#[derive(Debug, Default)]
struct Doors {
    closed: bool,
    next: u64,
    live: HashMap<u64, (Peer, watch::Sender<Option<Cut>>)>,
    revoked: HashSet<String>,
}

impl Gate {
    /// Listens on `address`; connections wait in the kernel until [`Gate::run`].
    ///
    /// # Errors
    /// [`GateError::Bind`].
    pub async fn bind(address: SocketAddr, tls: GateTls, config: GateConfig, broker: Broker) -> Result<Self, GateError> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let local = listener.local_addr()?;
            Ok::<_, std::io::Error>((listener, local))
        };
        let (listener, local) = bound.await.map_err(|source| GateError::Bind { address, source })?;
        let seats = Seats::new(Caps {
            total: config.limits.max_connections,
            per_address: config.limits.max_per_address,
            unproved: config.limits.max_unproved,
            unproved_per_address: config.limits.max_unproved_per_address,
        });
        Ok(Self { listener, local, seats, shared: Arc::new(Shared { tls, config, broker, doors: Mutex::default() }) })
    }

    /// The address listened on.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// A handle that goes on working while the gate runs.
    #[must_use]
    pub fn handle(&self) -> GateHandle {
        GateHandle(self.shared.clone())
    }

    /// Lets connections in until `shutdown`, then cuts them all. They are told, which takes up to [`LAST_WORDS`].
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        tokio::pin!(shutdown);
        let mut sessions = JoinSet::new();
        let mut looks = tokio::time::interval(LOOK_AT_KEYS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                _ = looks.tick() => self.shared.cut_old_keys(),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, from)) => self.let_in(&mut sessions, stream, from),
                    // Out of descriptors, mostly: give running connections time to end instead of spinning.
                    Err(error) => {
                        warn!(%error, "connection not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(ended) = sessions.join_next() => if let Err(error) = ended {
                    warn!(%error, "connection task failed");
                },
            }
        }
        drop(self.listener);
        self.shared.close();
        // Those still at the door have nothing to be told.
        let told = async { while self.shared.has_guests() && sessions.join_next().await.is_some() {} };
        if timeout(LAST_WORDS, told).await.is_err() {
            debug!("not everybody could be told that the daemon stops");
        }
        sessions.shutdown().await;
    }

    fn let_in(&self, sessions: &mut JoinSet<()>, stream: TcpStream, from: SocketAddr) {
        match self.seats.take(from.ip()) {
            Ok(seat) => drop(sessions.spawn(session::run(self.shared.clone(), seat, stream, from))),
            Err(full) => debug!(%from, %full, "connection refused"),
        }
    }
}

impl GateHandle {
    /// Ends all sessions of the key with this SPKI hash (hex) at once, and lets none in until the process ends; the lasting
    /// record is the revocation list given to [`GateTls`].
    pub fn revoke(&self, spki_sha256: &str) {
        let mut doors = self.0.doors();
        doors.revoked.insert(spki_sha256.to_owned());
        cut(&doors, |peer| peer.spki_sha256 == spki_sha256);
    }

    /// Ends the session of `agent` at once. It may come back with a key that is its own and not revoked.
    pub fn cut_agent(&self, agent: &AgentId) {
        cut(&self.0.doors(), |peer| peer.identity.role == Role::Agent(agent.clone()));
    }

    /// Sessions that have shown who they are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.0.doors().live.len()
    }
}

fn cut(doors: &Doors, which: impl Fn(&Peer) -> bool) {
    for (peer, cut) in doors.live.values().filter(|(peer, cut)| cut.borrow().is_none() && which(peer)) {
        info!(peer = %peer.identity.role, "session cut");
        cut.send_replace(Some(Cut::Revoked));
    }
}

impl Shared {
    /// The maps are whole after every change made under the lock, so a panic elsewhere does not spoil them.
    fn doors(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends sessions of agents with a key that is no longer theirs.
    fn cut_old_keys(&self) {
        cut(&self.doors(), |peer| !self.config.keys.allow(peer));
    }

    /// Cuts all sessions and lets none begin.
    fn close(&self) {
        let mut doors = self.doors();
        doors.closed = true;
        for (_, cut) in doors.live.values() {
            cut.send_replace(Some(Cut::Stopping));
        }
    }

    fn has_guests(&self) -> bool {
        !self.doors().live.is_empty()
    }

    /// Registers a session, so that it can be cut; `None` for a key that is revoked or no agent's, and when the
    /// gate closes. Both under one lock: a session is either cut by a revocation or refused because of it.
    fn open(self: &Arc<Self>, peer: &Peer) -> Option<(Open, watch::Receiver<Option<Cut>>)> {
        let mut doors = self.doors();
        if doors.closed || doors.revoked.contains(&peer.spki_sha256) || !self.config.keys.allow(peer) {
            return None;
        }
        let (cut, cutting) = watch::channel(None);
        let id = doors.next;
        doors.next += 1;
        doors.live.insert(id, (peer.clone(), cut));
        Some((Open { shared: self.clone(), id }, cutting))
    }
}

/// A session's entry among the live ones, removed on drop.
struct Open {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.doors().live.remove(&self.id);
    }
}
