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
//! | `fleet` | handles: what tests and the control API do by hand |
//! | `control`, `scenario`, `net` | the HTTP API for harnesses and people; faults by the clock; the thread they live on |

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

mod bmc;
mod chassis;
mod clock;
mod config;
mod control;
mod faults;
mod fleet;
mod ipmi;
mod net;
mod profile;
mod redfish;
mod rng;
mod scenario;

pub use bmc::{Boot, Call, Counters, Privilege, Source, User};
pub use chassis::{Action, Change, Phase};
pub use config::{Config, Initial};
pub use faults::{Body, Cut, Faults, Late, Lie, Reboot, Refuse, Request, Said, Step, Unplug};
pub use fleet::{BmcHandle, Fleet, Truth, UserTruth};
pub use profile::{GuidOrder, Led, Profile};
pub use redfish::tls::TlsError;
pub use scenario::{Scenario, ScenarioError, ScenarioPower, ScenarioStep};

use bmc::{Bmc, State};
use ipmi::pump::Pump;
use net::{Net, Served};
use redfish::server::std_listener;
use redfish::tls::Authority;
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
    /// The simulator's CA could not be made.
    #[error("cannot make the simulator's CA")]
    Certificate(#[source] TlsError),
}

/// A running simulator; stops when dropped.
#[derive(Debug)]
pub struct Simulator {
    // Dropped first: the threads end before the BMCs go.
    _net: Option<Net>,
    _pumps: Vec<Pump>,
    control: Option<SocketAddr>,
    fleet: Fleet,
}

impl Simulator {
    /// Starts all BMCs of `config`.
    ///
    /// # Errors
    /// When an address or port is taken or there are not enough of them.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, None)
    }

    /// Starts all BMCs of `config` and plays a scenario.
    ///
    /// # Errors
    /// When an address or port is taken or there are not enough of them.
    pub fn start_with(config: Config, scenario: Option<Scenario>) -> Result<Self, StartError> {
        raise_descriptor_limit();
        let authority = config.authority.then(Authority::new).transpose().map_err(StartError::Certificate)?.map(Arc::new);
        let Opened { bmcs, udp, tcp } = open(&config, authority.as_ref())?;
        let fleet = Fleet { bmcs: Arc::new(bmcs), authority };
        let control = config.control.map(bind_tcp).transpose()?;
        let control_at = control.as_ref().and_then(|listener| listener.local_addr().ok());
        let pumps = pumps(udp, config.ipmi_threads).map_err(StartError::Threads)?;
        let needed = control.is_some() || scenario.is_some() || !tcp.is_empty();
        let served = Served { redfish: tcp, control, scenario, fleet: fleet.clone() };
        let net = needed.then(|| Net::start(config.web_threads, served)).transpose().map_err(StartError::Threads)?;
        Ok(Self { _net: net, _pumps: pumps, control: control_at, fleet })
    }

    /// All BMCs.
    #[must_use]
    pub const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The BMC of this name.
    #[must_use]
    pub fn bmc(&self, name: &str) -> Option<BmcHandle> {
        self.fleet.named(name)
    }

    /// Where the control API listens.
    #[must_use]
    pub const fn control(&self) -> Option<SocketAddr> {
        self.control
    }
}

/// BMCs with their sockets.
#[derive(Default)]
struct Opened {
    bmcs: Vec<BmcHandle>,
    udp: Vec<(UdpSocket, Arc<Bmc>)>,
    tcp: Vec<(BmcHandle, TcpListener)>,
}

fn open(config: &Config, authority: Option<&Arc<Authority>>) -> Result<Opened, StartError> {
    let places = config.places().ok_or(StartError::NoRoom { count: config.count(), address: config.address })?;
    let mut rng = Rng::new(config.seed);
    let mut opened = Opened::default();
    for (index, place) in places.into_iter().enumerate() {
        let udp = place.ipmi.map(bind_udp).transpose()?;
        let tcp = place.redfish.map(bind_tcp).transpose()?;
        let ipmi = udp.as_ref().and_then(|socket| socket.local_addr().ok());
        let redfish = tcp.as_ref().and_then(|listener| listener.local_addr().ok());
        let bmc = Arc::new(Bmc::new(place.name, ipmi, redfish, state(config, index, rng.next())));
        let handle = BmcHandle { bmc: Arc::clone(&bmc), authority: authority.cloned() };
        opened.udp.extend(udp.map(|socket| (socket, bmc)));
        opened.tcp.extend(tcp.map(|listener| (handle.clone(), listener)));
        opened.bmcs.push(handle);
    }
    Ok(opened)
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, StartError> {
    std_listener(address).map_err(|source| StartError::Listen { address, source })
}

fn state(config: &Config, index: usize, seed: u64) -> State {
    let users = (2u8..).zip(&config.users).map(|(id, (name, password, limit))| User::new(id, name, password, *limit)).collect();
    let on = match config.initial {
        Initial::On => true,
        Initial::Off => false,
        Initial::Alternate => index.is_multiple_of(2),
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
