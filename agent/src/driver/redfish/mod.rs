//! Driver `redfish`: BMCs over HTTPS. One client and pool for all of them, one kept connection and one session for each.
//!
//! Never repeats a POST, never follows a BMC to another host, never sends credentials before it knows to whom.

mod contact;
mod failure;
mod http;
mod kept;
mod login;
mod memory;
mod settings;
mod tls;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
pub use picket_common::driver::REDFISH as DESCRIPTOR;
use picket_common::id::HostId;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use self::contact::Contact;
use self::failure::{Failure, Progress};
pub use self::kept::{Kept, Unreadable};
pub use self::memory::{Memory, RedfishMemory, RememberedSystem, Volatile};
use self::tls::Peers;
use super::address::AllowedNetworks;
use super::{Completions, Descriptor, Driver};
use crate::bmc::{Answer, Ask, Completion, ErrorClass, Job, SHUTTING_DOWN};
use crate::clock;

const DEFAULT_PORT: u16 = 443;

/// Jobs of one lane at a time. A job in flight is a connection of about 50 KB and two file descriptors at most.
const LANE: usize = 256;

/// How long the polite end of a contact may take when settings have changed.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the agent's own file decides.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where BMCs may live.
    pub allowed: AllowedNetworks,
    /// CA certificates for `tls=ca`, DER.
    pub roots: Vec<Vec<u8>>,
}

/// Why the driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A CA certificate is unusable.
    #[error("the CA bundle for BMCs is unusable")]
    Roots(#[source] rustls::Error),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
}

/// See the module.
pub struct Redfish {
    shared: Arc<Shared>,
    handle: Handle,
}

struct Shared {
    completions: Completions,
    memories: Arc<dyn Memory>,
    client: reqwest::Client,
    peers: Arc<Peers>,
    names: AtomicU64,
    slots: Mutex<HashMap<HostId, Arc<Slot>>>,
    closing: watch::Sender<bool>,
    lanes: Lanes,
}

/// One host. The lock keeps its jobs one after the other.
#[derive(Default)]
struct Slot {
    contact: tokio::sync::Mutex<Option<Contact>>,
    answered: AtomicBool,
    forgotten: Arc<AtomicBool>,
}

/// Bounds on what is in flight. Dead BMCs hold their places until their deadline, so they have a lane of their own; and an order
/// does not queue behind polls.
struct Lanes {
    orders: Semaphore,
    answering: Semaphore,
    doubtful: Semaphore,
}

impl Lanes {
    fn of(&self, ask: Ask, slot: &Slot) -> &Semaphore {
        match ask {
            Ask::Status | Ask::Inspect if slot.answered.load(Ordering::Relaxed) => &self.answering,
            Ask::Status | Ask::Inspect => &self.doubtful,
            Ask::On
            | Ask::Off
            | Ask::Soft
            | Ask::Reset
            | Ask::Diag
            | Ask::Identify { .. }
            | Ask::Bootdev { .. }
            | Ask::TryLogin
            | Ask::SetPassword => &self.orders,
        }
    }
}

impl Redfish {
    /// A driver that works on `handle` and answers into `completions`.
    ///
    /// # Errors
    /// An unusable CA certificate; no HTTP client.
    pub fn new(completions: Completions, config: Config, handle: Handle, memories: Arc<dyn Memory>) -> Result<Self, StartError> {
        let peers = Arc::new(Peers::default());
        let tls = tls::config(Arc::clone(&peers), &config.roots).map_err(StartError::Roots)?;
        let client = {
            let _entered = handle.enter();
            http::client(tls, Arc::clone(&peers), config.allowed).map_err(StartError::Client)?
        };
        let shared = Shared {
            completions,
            memories,
            client,
            peers,
            names: AtomicU64::new(1),
            slots: Mutex::default(),
            closing: watch::Sender::new(false),
            lanes: Lanes { orders: Semaphore::new(LANE), answering: Semaphore::new(LANE), doubtful: Semaphore::new(LANE) },
        };
        Ok(Self { shared: Arc::new(shared), handle })
    }
}

impl Shared {
    /// A name by which a BMC is called inside the client; never used twice.
    fn next_name(&self) -> String {
        format!("b{}.bmc.invalid", self.names.fetch_add(1, Ordering::Relaxed))
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<HostId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Serves one job to its end and answers it.
    async fn run(self: Arc<Self>, job: Job, slot: Arc<Slot>) {
        let progress = Progress::new(Arc::clone(&slot.forgotten));
        let mut closing = self.closing.subscribe();
        let served = tokio::select! {
            biased;
            served = tokio::time::timeout(job.timeout, self.serve(&job, &slot, &progress)) => served,
            // Polls give way to the shutdown, so that their sessions can be deleted; orders are awaited.
            _ = closing.wait_for(|closing| *closing), if matches!(job.ask, Ask::Status | Ask::Inspect) => Ok(Err(shutting_down())),
        };
        let result = served.unwrap_or_else(|_| {
            let text = format!("{:?}: no answer within {} ms, {}", job.ask, job.timeout.as_millis(), progress.step());
            Err(Failure { maybe_sent: progress.is_order_out(), ..Failure::new(ErrorClass::Deadline, "timeout", text) })
        });
        slot.answered.store(result.is_ok(), Ordering::Relaxed);
        let result = result.map_err(|failure| failure.at(&DESCRIPTOR, &job.bmc));
        if let Err(error) = &result {
            tracing::debug!(host = %job.bmc.host, ask = ?job.ask, %error, "redfish request failed");
        }
        (self.completions)(vec![Completion { ticket: job.ticket, begun: progress.begun(), result }]);
    }

    async fn serve(&self, job: &Job, slot: &Slot, progress: &Progress) -> Result<Answer, Failure> {
        let ends = clock::boottime() + job.timeout;
        let mut contact = slot.contact.lock().await;
        let _place = self.lanes.of(job.ask, slot).acquire().await.map_err(|_| shutting_down())?;
        if self.is_closing() {
            return Err(shutting_down());
        }
        progress.still_wanted()?;
        if let Some(old) = contact.take_if(|contact| contact.revision != job.bmc.revision) {
            old.end(FAREWELL.min(job.timeout / 4)).await;
        }
        let contact = match &mut *contact {
            Some(contact) => contact,
            empty => empty.insert(Contact::open(self, &job.bmc).await?),
        };
        contact.ask(job, ends, progress).await
    }

    /// Ends a host's contact after its last job.
    async fn end(&self, slot: &Slot, limit: Duration) {
        let contact = slot.contact.lock().await.take();
        if let Some(contact) = contact {
            contact.end(limit).await;
        }
    }

    async fn forget(self: Arc<Self>, host: HostId, slot: Option<Arc<Slot>>) {
        if let Some(slot) = slot {
            self.end(&slot, FAREWELL).await;
        }
        let forgotten = tokio::task::spawn_blocking(move || {
            // Under the lock, so that a host that was added again meanwhile keeps its new memory.
            let slots = self.slots();
            if !slots.contains_key(&host) {
                self.memories.forget(&host);
            }
        });
        if forgotten.await.is_err() {
            tracing::debug!("memory not dropped: shutting down");
        }
    }
}

fn shutting_down() -> Failure {
    Failure::connection(SHUTTING_DOWN, "the agent is shutting down")
}

impl Driver for Redfish {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn submit(&self, jobs: Vec<Job>) {
        let mut slots = self.shared.slots();
        for job in jobs {
            let slot = Arc::clone(slots.entry(job.bmc.host.clone()).or_default());
            self.handle.spawn(Arc::clone(&self.shared).run(job, slot));
        }
    }

    fn forget(&self, host: &HostId) {
        let slot = self.shared.slots().remove(host);
        if let Some(slot) = &slot {
            slot.forgotten.store(true, Ordering::SeqCst);
        }
        self.handle.spawn(Arc::clone(&self.shared).forget(host.clone(), slot));
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.shared.closing.send_replace(true);
            let slots: Vec<Arc<Slot>> = self.shared.slots().drain().map(|(_, slot)| slot).collect();
            let mut ending: FuturesUnordered<_> = slots.iter().map(|slot| self.shared.end(slot, FAREWELL)).collect();
            let all = async { while ending.next().await.is_some() {} };
            if tokio::time::timeout(FAREWELL, all).await.is_err() {
                tracing::info!("not all redfish sessions could be deleted in time");
            }
        })
    }
}
