//! Making checks: of hosts' health and activity, and of the agent's own network. Finds out, and never decides what follows.
//!
//! Every job is answered exactly once and within its time. What fails on the agent's own side (no route, no descriptor, no
//! name server, too much to do, a program that is not there) is "cannot tell"; only what the other side does or fails to do
//! is "dead".

mod dial;
mod exec;
mod files;
mod http;
mod icmp;
mod reference;
mod tcp;
mod told;
mod turn;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use picket_common::ha::settings::{ActivityCheck, HealthCheck};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use self::dial::Dialler;
pub use self::exec::{Program, Programs, missing};
pub use self::reference::Reference;
use self::told::Told;
use self::turn::Turn;
use crate::clock;
use crate::driver::process::Runner;
use crate::sign::{Check, CheckDone, CheckJob, Sign};
use crate::stamps::Looker;
use crate::tls::ToWitness;

/// Most checks over the network at once; each takes one or two descriptors.
const MAX_CONNECTIONS: usize = 512;
/// Most checks taken and not yet answered; what is above is answered at once.
const MAX_WAITING: usize = 16 * 1024;

/// Where the answers go.
pub type Done = Arc<dyn Fn(Vec<CheckDone>) + Send + Sync>;

/// What checks need besides their jobs.
pub struct Tools {
    /// How witnesses are called.
    pub witness: ToWitness,
    /// `[check.NAME]` of the agent's own file. It may change: a check keeps to what it began with.
    pub programs: watch::Receiver<Arc<Programs>>,
    /// Most programs at once.
    pub max_processes: usize,
}

/// Makes checks.
pub struct Checks {
    shared: Arc<Shared>,
    handle: Handle,
}

struct Shared {
    done: Done,
    waiting: Arc<Semaphore>,
    connections: Semaphore,
    dialler: Dialler,
    looker: Looker,
    programs: watch::Receiver<Arc<Programs>>,
    runner: Runner,
    any_server: Arc<rustls::ClientConfig>,
    witness: ToWitness,
    told: Told,
}

impl Checks {
    /// Answers go to `done`; the work is done on `handle`.
    ///
    /// # Errors
    /// When rustls has no protocol version for its own provider.
    pub fn new(tools: Tools, done: Done, handle: Handle) -> Result<Self, rustls::Error> {
        let shared = Shared {
            done,
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            connections: Semaphore::new(MAX_CONNECTIONS),
            dialler: Dialler::new(),
            looker: Looker::new(),
            programs: tools.programs,
            runner: Runner::new(tools.max_processes),
            any_server: http::any_server()?,
            witness: tools.witness,
            told: Told::default(),
        };
        Ok(Self { shared: Arc::new(shared), handle })
    }

    /// Starts checks; returns at once.
    pub fn start(&self, jobs: Vec<CheckJob>) {
        let taken = clock::boottime();
        let mut refused = Vec::new();
        for job in jobs {
            let Ok(place) = Arc::clone(&self.shared.waiting).try_acquire_owned() else {
                let sign = Sign::CannotTell("too many checks are waiting".into());
                refused.push(CheckDone { ticket: job.ticket, begun: taken, sign });
                continue;
            };
            let shared = Arc::clone(&self.shared);
            self.handle.spawn(async move {
                shared.run(job, taken).await;
                drop(place);
            });
        }
        if !refused.is_empty() {
            (self.shared.done)(refused);
        }
    }

    /// Ends the programs that run; nothing is waited for otherwise.
    pub async fn shutdown(&self) {
        self.shared.runner.shutdown().await;
    }
}

impl Shared {
    async fn run(&self, job: CheckJob, taken: Duration) {
        let turn = Turn::new(&job, taken);
        let sign = self.make(&turn).await.unwrap_or_else(|sign| sign);
        let sign = match sign {
            Sign::Dead(why) => Sign::Dead(shortened(why)),
            Sign::CannotTell(why) => Sign::CannotTell(shortened(why)),
            sign => sign,
        };
        tracing::trace!(host = ?job.host, check = ?job.check, ?sign, "checked");
        (self.done)(vec![CheckDone { ticket: job.ticket, begun: turn.begun(), sign }]);
    }

    /// The kinds of checks, each with its module.
    async fn make(&self, turn: &Turn<'_>) -> Result<Sign, Sign> {
        match &turn.job.check {
            Check::Health(HealthCheck::Exec { check }) | Check::Activity(ActivityCheck::Exec { check }) => {
                let programs = Arc::clone(&self.programs.borrow());
                exec::run(&self.runner, &programs, check, turn).await
            }
            Check::Activity(ActivityCheck::Files { paths }) => {
                let paths = self.told.or_told(paths, turn.job.host.as_ref())?;
                files::look(&self.looker, paths, turn).await
            }
            Check::Activity(ActivityCheck::Heartbeat { path }) => files::look(&self.looker, vec![path.clone()], turn).await,
            over_network => {
                let _place = turn.within(self.connections.acquire()).await.ok_or_else(turn::crowded)?;
                turn.begin()?;
                self.call(over_network, turn).await
            }
        }
    }

    async fn call(&self, check: &Check, turn: &Turn<'_>) -> Result<Sign, Sign> {
        let dialler = &self.dialler;
        match check {
            Check::Health(HealthCheck::Tcp { address, port }) => tcp::knock(dialler, address, *port, turn).await,
            Check::Health(HealthCheck::Http { url }) => http::get(dialler, &self.any_server, url, turn).await,
            Check::Health(HealthCheck::Icmp { address }) => icmp::ping(dialler, address, turn).await,
            Check::Health(HealthCheck::Witness { address, port }) => {
                witness::health(dialler, &self.witness, address, *port, &self.told, turn).await
            }
            Check::Activity(ActivityCheck::Witness { paths, neighbours }) => {
                let paths = self.told.or_told(paths, turn.job.host.as_ref())?;
                witness::files(dialler, &self.witness, &paths, neighbours, turn).await
            }
            Check::Reference(address) => reference::reach(dialler, address, turn).await,
            Check::Health(HealthCheck::Exec { .. }) | Check::Activity(_) => Ok(Sign::CannotTell("no such check".into())),
        }
    }
}

/// A reason as it may stand in a report.
fn shortened(why: String) -> String {
    const SHOWN: usize = 300;
    let clean = if why.chars().any(char::is_control) { why.chars().filter(|c| !c.is_control()).collect() } else { why };
    if clean.len() <= SHOWN { clean } else { clean.get(..clean.floor_char_boundary(SHOWN)).unwrap_or_default().to_owned() }
}
