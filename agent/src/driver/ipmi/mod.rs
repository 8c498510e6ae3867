//! Driver `ipmi`: every IPMI 2.0 BMC of the agent from one thread, a few UDP sockets and one heap of timers.
//!
//! The protocol is [`crate::ipmi`]'s; here are sockets, the clock and the mapping of jobs. A job becomes the requests of one
//! script in one session; nothing here decides what a reading means, counts refused logins or begins a login without a job.
//! A host with the option `interface = "open"` is served by [`super::open`] through the agent's own `/dev/ipmi0`.

mod budget;
mod engine;
mod ports;
mod random;
mod slot;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, mem};

pub use picket_common::driver::IPMI as DESCRIPTOR;
use picket_common::id::HostId;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use super::address::AllowedNetworks;
use super::{Completions, Descriptor, Driver};
use crate::bmc::{Completion, DriverError, ErrorClass, Job, SHUTTING_DOWN};
use crate::clock;

/// Port of RMCP.
pub const DEFAULT_PORT: u16 = 623;

/// Why the driver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum IpmiError {
    /// Not called from within a tokio runtime, which resolves names.
    #[error("the ipmi driver must be made inside a tokio runtime")]
    NoRuntime,
    /// No socket, no poller, no thread or no randomness.
    #[error("the ipmi driver's {what} could not be made")]
    Io {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// See the module.
pub struct Ipmi {
    inbox: Arc<Inbox>,
    completions: Completions,
    open: super::open::Open,
    local_host: Option<HostId>,
}

/// What the engine is told.
enum Input {
    Job(Job),
    Forget(HostId),
    /// A name's addresses, for the slot that asked and its how-manieth asking.
    Resolved {
        slot: u16,
        asking: u64,
        addresses: io::Result<Vec<std::net::SocketAddr>>,
    },
    Shutdown(oneshot::Sender<()>),
    /// The driver was dropped.
    Stop,
}

/// The engine's door: a batch of inputs and a descriptor that wakes it.
struct Inbox {
    state: Mutex<InboxState>,
    wake: OwnedFd,
}

#[derive(Default)]
struct InboxState {
    inputs: Vec<Input>,
    closed: bool,
}

impl Inbox {
    /// Adds inputs; gives them back if the engine has ended.
    fn push(&self, inputs: impl IntoIterator<Item = Input>) -> Result<(), Vec<Input>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(inputs.into_iter().collect());
        }
        let was_empty = state.inputs.is_empty();
        state.inputs.extend(inputs);
        drop(state);
        if was_empty {
            self.wake();
        }
        Ok(())
    }

    /// The counter of an eventfd cannot overflow here, so the write cannot fail in a way that matters.
    fn wake(&self) {
        if let Err(error) = rustix::io::write(&self.wake, &1u64.to_ne_bytes()) {
            tracing::debug!(%error, "waking the ipmi engine failed");
        }
    }

    /// Swaps the collected inputs with `into`, which is empty: both buffers keep their room.
    fn drain(&self, into: &mut Vec<Input>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut state.inputs, into);
    }

    /// Takes no more inputs; what came in the meantime is returned.
    fn close(&self) -> Vec<Input> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        mem::take(&mut state.inputs)
    }
}

impl Ipmi {
    /// Opens the sockets and starts the engine's thread; answers go into `completions`.
    ///
    /// # Errors
    /// No tokio runtime around, or the operating system refuses a socket, a poller, a thread or randomness.
    pub fn new(completions: Completions, allowed: AllowedNetworks) -> Result<Self, IpmiError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| IpmiError::NoRuntime)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|cause| IpmiError::Io { what: "wake-up descriptor", cause: cause.into() })?;
        let inbox = Arc::new(Inbox { state: Mutex::default(), wake });
        let engine = engine::Engine::new(Arc::clone(&inbox), Arc::clone(&completions), allowed, runtime)?;
        std::thread::Builder::new()
            .name("ipmi".into())
            .spawn(move || engine.run())
            .map_err(|cause| IpmiError::Io { what: "thread", cause })?;
        let open = super::open::Open::new(Arc::clone(&completions));
        Ok(Self { inbox, completions, open, local_host: None })
    }

    /// Lets interface `open` serve this host and no other: the agent's own, by the word of the agent's own file. The centre
    /// must not be able to switch off the machine the agent runs on by an option of some host.
    #[must_use]
    pub fn serving_local(mut self, host: Option<HostId>) -> Self {
        self.local_host = host;
        self
    }

    fn submit_local(&self, jobs: Vec<Job>) {
        let (ours, others): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| self.local_host.as_ref() == Some(&job.bmc.host));
        if !others.is_empty() {
            (self.completions)(others.iter().map(not_local).collect());
        }
        if !ours.is_empty() {
            self.open.submit(ours);
        }
    }
}

impl Driver for Ipmi {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn submit(&self, jobs: Vec<Job>) {
        let (local, jobs): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(super::open::serves);
        if !local.is_empty() {
            self.submit_local(local);
        }
        if let Err(refused) = self.inbox.push(jobs.into_iter().map(Input::Job)) {
            let refused = refused.iter().filter_map(|input| match input {
                Input::Job(job) => Some(closed(job)),
                _ => None,
            });
            (self.completions)(refused.collect());
        }
    }

    fn forget(&self, host: &HostId) {
        self.open.forget(host);
        if self.inbox.push([Input::Forget(host.clone())]).is_err() {
            tracing::debug!(%host, "nothing to forget: the ipmi engine has ended");
        }
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.open.shutdown().await;
            let (done, ended) = oneshot::channel();
            if self.inbox.push([Input::Shutdown(done)]).is_ok() && ended.await.is_err() {
                tracing::debug!("the ipmi engine ended before it was told to");
            }
        })
    }
}

impl Drop for Ipmi {
    fn drop(&mut self) {
        if self.inbox.push([Input::Stop]).is_err() {
            tracing::trace!("the ipmi engine had ended");
        }
    }
}

/// The answer to a job that comes after the end.
fn closed(job: &Job) -> Completion {
    let error = DriverError {
        driver: DESCRIPTOR.name,
        address: job.bmc.address.clone(),
        class: ErrorClass::Connection,
        code: SHUTTING_DOWN.into(),
        text: "the agent is shutting down".into(),
        maybe_sent: false,
    };
    Completion { ticket: job.ticket, begun: clock::boottime(), result: Err(error) }
}

fn not_local(job: &Job) -> Completion {
    let error = DriverError {
        driver: DESCRIPTOR.name,
        address: job.bmc.address.clone(),
        class: ErrorClass::Setting,
        code: "address-not-allowed".into(),
        text:
            "interface=open reaches the agent's own machine; name this host as local_bmc_host in the agent's own file to allow it"
                .into(),
        maybe_sent: false,
    };
    Completion { ticket: job.ticket, begun: crate::clock::boottime(), result: Err(error) }
}
