//! `picket-bmcsim`: thousands of simulated BMCs in one process, over IPMI 2.0 (RMCP+) and Redfish, with scripted faults and
//! a record of every call.
//!
//! It shares no protocol code with `picket-agent`: it is there to judge it, and is itself judged by `ipmitool`, `ipmipower`
//! and `curl` (`tests/bmcsim_judged.rs`). One chassis is one power state; IPMI, Redfish or both show it.
//!
//! As a library:
//!
//! ```no_run
//! use picket_tests::bmcsim::{Config, Faults, Simulator};
//!
//! let sim = Simulator::start(Config { ipmi: 2, redfish: 1, ..Config::default() })?;
//! let bmc = sim.bmc("bmc-0001").ok_or("no such BMC")?;
//! bmc.set_power(false);
//! bmc.set_faults(Faults { slow_ms: 200, ..Faults::default() });
//! assert_eq!(bmc.orders("reset"), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | file | for |
//! |---|---|
//! | `config`, `profile`, `faults` | what is started, what kind of BMC, what is wrong with it |
//! | `bmc`, `chassis` | one BMC's state, users, record of calls; its power with delays |
//! | `ipmi/` | RMCP+ as the managed system: framing, handshake, sessions, commands, sockets |
//! | `redfish/` | HTTP over TLS, resources, sessions |
//! | `control`, `scenario` | the HTTP API for harnesses and people; faults by the clock |

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

mod bmc;
mod chassis;
mod clock;
mod config;
mod faults;
mod ipmi;
mod profile;
mod redfish;
mod rng;

pub use bmc::{Call, Counters, Privilege, Source, User};
pub use chassis::{Action, Change, Phase};
pub use config::{Config, Initial};
pub use faults::{Body, Cut, Faults, Late, Lie, Reboot, Refuse, Request, Said, Step, Unplug};
pub use profile::Profile;

use bmc::{Bmc, State};
use ipmi::pump::Pump;
use rng::Rng;

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The base address or port leaves no room for so many BMCs.
    #[error("{count} BMCs do not fit after {address}")]
    NoRoom {
        /// How many were asked for.
        count: usize,
        /// The first address.
        address: Ipv4Addr,
    },
    /// A socket could not be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A thread or the kernel's event queue could not be had.
    #[error("cannot start the simulator's threads")]
    Threads(#[source] std::io::Error),
}

/// A running simulator; stops when dropped.
#[derive(Debug)]
pub struct Simulator {
    _pumps: Vec<Pump>,
    bmcs: Arc<Vec<Arc<Bmc>>>,
}

impl Simulator {
    /// Starts all BMCs of `config`.
    ///
    /// # Errors
    /// When an address or port is taken or there are not enough of them.
    pub fn start(config: Config) -> Result<Self, StartError> {
        raise_descriptor_limit();
        let places = config.places().ok_or(StartError::NoRoom { count: config.count(), address: config.address })?;
        let mut rng = Rng::new(config.seed);
        let mut bmcs = Vec::with_capacity(places.len());
        let mut sockets = Vec::new();
        for (index, place) in places.into_iter().enumerate() {
            let socket = place.ipmi.map(bind_udp).transpose()?;
            let ipmi = socket.as_ref().and_then(|socket| socket.local_addr().ok());
            let bmc = Arc::new(Bmc::new(place.name, ipmi, place.redfish, rng.bytes16(), state(&config, index, rng.next())));
            sockets.extend(socket.map(|socket| (socket, Arc::clone(&bmc))));
            bmcs.push(bmc);
        }
        let pumps = pumps(sockets, config.ipmi_threads).map_err(StartError::Threads)?;
        Ok(Self { _pumps: pumps, bmcs: Arc::new(bmcs) })
    }

    /// How many BMCs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bmcs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bmcs.is_empty()
    }
}

fn state(config: &Config, index: usize, seed: u64) -> State {
    let users = (2u8..).zip(&config.users).map(|(id, (name, password, limit))| User::new(id, name, password, *limit)).collect();
    let on = match config.initial {
        Initial::On => true,
        Initial::Off => false,
        Initial::Alternate => index % 2 == 0,
    };
    State::new(config.profile.clone(), users, on, seed)
}

fn bind_udp(address: SocketAddr) -> Result<UdpSocket, StartError> {
    UdpSocket::bind(address).map_err(|source| StartError::Listen { address, source })
}

/// Deals the sockets out to the threads.
fn pumps(sockets: Vec<(UdpSocket, Arc<Bmc>)>, threads: usize) -> std::io::Result<Vec<Pump>> {
    let threads = threads.clamp(1, sockets.len().max(1));
    let mut hands: Vec<Vec<_>> = std::iter::repeat_with(Vec::new).take(threads).collect();
    for (index, socket) in sockets.into_iter().enumerate() {
        if let Some(hand) = hands.get_mut(index % threads) {
            hand.push(socket);
        }
    }
    hands.into_iter().filter(|hand| !hand.is_empty()).map(Pump::start).collect()
}

/// Thousands of sockets need more descriptors than the usual soft limit of 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
