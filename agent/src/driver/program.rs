//! What the drivers that run programs have in common: one job, from its queue to its answer. Knows no program.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use picket_common::id::HostId;
use picket_common::secret::Secret;
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::address::AllowedNetworks;
use super::failure::Failure;
use super::process::{Broken, Ended, Place, PrivateFile, Program, Runner};
use super::{Completions, Descriptor, Driver};
use crate::bmc::{Answer, Ask, Bmc, Completion, ErrorClass, Job, SHUTTING_DOWN};
use crate::clock;

/// What a driver does with one job, by running programs.
pub trait Recipe: Send + Sync + 'static {
    /// The driver's row.
    const DESCRIPTOR: &'static Descriptor;

    /// Whether the readings of this BMC can prove that its host is off.
    fn can_prove(&self, bmc: &Bmc) -> bool;

    /// Serves one job.
    fn serve(&self, turn: &mut Turn<'_>) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// Drops what is remembered of a host.
    fn forget(&self, host: &HostId);
}

/// A driver of one [`Recipe`].
pub struct Programs<R> {
    shared: Arc<Shared<R>>,
    handle: Handle,
}

struct Shared<R> {
    recipe: R,
    runner: Arc<Runner>,
    allowed: AllowedNetworks,
    completions: Completions,
}

/// One job's turn: its place, its time, and how far it came.
pub struct Turn<'a> {
    job: &'a Job,
    place: Place<'a>,
    allowed: &'a AllowedNetworks,
    /// When its time is over (boottime).
    ends: Duration,
    /// When the last program was started.
    begun: Duration,
}

/// A program is not started with less time than this: it would be cut off in the middle.
const LEAST: Duration = Duration::from_millis(250);

/// Whether it changes something: an order is not cut short by the agent's own stop, and does not queue behind polls.
const fn is_order(ask: Ask) -> bool {
    !matches!(ask, Ask::Status | Ask::Inspect | Ask::TryLogin)
}

/// A program to run in a turn.
pub struct Call<'a> {
    pub path: &'a Path,
    pub arguments: Vec<String>,
    pub input: Secret<Vec<u8>>,
    pub files: Vec<PrivateFile>,
    pub farewell: Signal,
    /// Whether it carries the order itself, so that its failure leaves it unknown whether the order arrived.
    pub carries_order: bool,
    /// It may not take longer than this.
    pub limit: Option<Duration>,
}

impl<R: Recipe> Programs<R> {
    pub(super) fn with(recipe: R, runner: Arc<Runner>, allowed: AllowedNetworks, completions: Completions, handle: Handle) -> Self {
        Self { shared: Arc::new(Shared { recipe, runner, allowed, completions }), handle }
    }
}

impl<R: Recipe> Shared<R> {
    async fn run(self: Arc<Self>, job: Job, taken: Duration) {
        let mut begun = taken;
        let result = self.serve(&job, taken.saturating_add(job.timeout), &mut begun).await;
        if let Err(failure) = &result
            && failure.code != SHUTTING_DOWN
        {
            self.runner.set_answered(&job.bmc.host, !matches!(failure.class, ErrorClass::Connection | ErrorClass::Deadline));
            tracing::debug!(host = %job.bmc.host, ask = ?job.ask, code = failure.code, text = failure.text, "program failed");
        } else {
            self.runner.set_answered(&job.bmc.host, result.is_ok());
        }
        let result = result.map_err(|failure| failure.at(R::DESCRIPTOR, &job.bmc));
        (self.completions)(vec![Completion { ticket: job.ticket, begun, result }]);
    }

    async fn serve(&self, job: &Job, ends: Duration, begun: &mut Duration) -> Result<Answer, Failure> {
        let waiting = self.runner.place(&job.bmc.host, is_order(job.ask));
        let place = timeout(left(ends).saturating_sub(LEAST), waiting).await.map_err(|_| {
            let text = "the time was over before the request's turn came: too many programs are running";
            Failure::new(ErrorClass::Deadline, "queued", text)
        })?;
        let place = place.map_err(|broken| of_broken(broken, job.ask, false))?;
        let mut turn = Turn { job, place, allowed: &self.allowed, ends, begun: *begun };
        let result = self.recipe.serve(&mut turn).await;
        *begun = turn.begun;
        result
    }
}

fn left(ends: Duration) -> Duration {
    ends.saturating_sub(clock::boottime())
}

fn of_broken(broken: Broken, ask: Ask, carries_order: bool) -> Failure {
    let maybe_sent = carries_order && is_order(ask);
    match broken {
        Broken::Missing(path) => Failure::setting("program-missing", format!("there is no program {} here", path.display())),
        Broken::Start { .. } => {
            let cause = std::error::Error::source(&broken).map_or_else(String::new, |cause| format!(": {cause}"));
            Failure::setting("program-start", format!("{broken}{cause}"))
        }
        Broken::Deadline => {
            let text = format!("{ask:?}: the program did not end in time and was stopped");
            Failure { maybe_sent, ..Failure::new(ErrorClass::Deadline, "timeout", text) }
        }
        Broken::Closing => Failure { maybe_sent, ..Failure::connection(SHUTTING_DOWN, "the agent is shutting down") },
    }
}

impl<'a> Turn<'a> {
    pub(super) fn ask(&self) -> Ask {
        self.job.ask
    }

    pub(super) fn job(&self) -> &'a Job {
        self.job
    }

    pub(super) fn bmc(&self) -> &'a Bmc {
        &self.job.bmc
    }

    /// The BMC's address, resolved and allowed.
    pub(super) async fn address(&self, driver: &'static Descriptor, default_port: u16) -> Result<SocketAddr, Failure> {
        let looked_up = self.allowed.resolve(driver.name, self.bmc(), default_port);
        let found = timeout(left(self.ends), looked_up).await.map_err(|_| {
            let text = format!("the name {} was not resolved in time", self.bmc().address);
            Failure::new(ErrorClass::Deadline, "name", text)
        })?;
        found.map_err(|error| Failure::new(error.class, error.code, error.text))
    }

    /// Runs one program within the job's time.
    pub(super) async fn run(&mut self, call: Call<'_>) -> Result<Ended, Failure> {
        let time = call.limit.map_or_else(|| left(self.ends), |limit| limit.min(left(self.ends)));
        if time.is_zero() {
            return Err(Failure::new(ErrorClass::Deadline, "timeout", "the time was over before the program was started"));
        }
        self.begun = clock::boottime();
        let program =
            Program { path: call.path, arguments: call.arguments, input: call.input, files: call.files, farewell: call.farewell };
        self.place.run(program, time).await.map_err(|broken| of_broken(broken, self.job.ask, call.carries_order))
    }
}

impl<R: Recipe> Driver for Programs<R> {
    fn descriptor(&self) -> &'static Descriptor {
        R::DESCRIPTOR
    }

    fn can_prove(&self, bmc: &Bmc) -> bool {
        self.shared.recipe.can_prove(bmc)
    }

    fn submit(&self, jobs: Vec<Job>) {
        let taken = clock::boottime();
        for job in jobs {
            self.handle.spawn(Arc::clone(&self.shared).run(job, taken));
        }
    }

    fn forget(&self, host: &HostId) {
        self.shared.recipe.forget(host);
        self.shared.runner.set_answered(host, false);
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.shared.runner.shutdown())
    }
}
