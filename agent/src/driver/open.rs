//! Interface `open` of driver `ipmi`: the BMC of the agent's own host through `/dev/ipmi0`, by `ipmi-rs`.
//!
//! The kernel's interface blocks, so it has a thread of its own and serves one job at a time. No login, no session, no
//! password. It was tried without hardware only: against a missing device. What it does with a real one rests on
//! `ipmi-rs`.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipmi_rs::File;
use ipmi_rs_core::connection::{IpmiConnection as _, LogicalUnit, Request, RequestTargetAddress};
use picket_common::id::HostId;

use super::Completions;
use crate::bmc::{Completion, DriverError, ErrorClass, Job, SHUTTING_DOWN};
use crate::clock;
use crate::ipmi::settings::Settings;
use crate::ipmi::{Reply, power};

/// The kernel's first BMC.
const DEVICE: &str = "/dev/ipmi0";
const DRIVER: &str = "ipmi";

/// Whether `job` is for this interface.
pub fn serves(job: &Job) -> bool {
    job.bmc.options.get("interface").is_some_and(|interface| interface == "open")
}

/// See the module.
pub struct Open {
    completions: Completions,
    /// The way to the thread, which starts with the first job; `None` after the end.
    thread: Mutex<Thread>,
}

enum Thread {
    NotYet,
    Running(Sender<(Job, Duration)>),
    Ended,
}

impl Open {
    /// Costs nothing until the first job.
    pub fn new(completions: Completions) -> Self {
        Self { completions, thread: Mutex::new(Thread::NotYet) }
    }

    /// Takes jobs and returns at once.
    pub fn submit(&self, jobs: Vec<Job>) {
        let now = clock::boottime();
        let mut refused = Vec::new();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*thread, Thread::NotYet) {
            match self.spawn() {
                Ok(sender) => *thread = Thread::Running(sender),
                Err(error) => tracing::warn!(%error, "no thread for the local BMC"),
            }
        }
        let code = if matches!(*thread, Thread::Ended) { SHUTTING_DOWN } else { "driver-closed" };
        for job in jobs {
            let unsent = match &*thread {
                Thread::Running(sender) => sender.send((job, now)).err().map(|unsent| unsent.0.0),
                Thread::NotYet | Thread::Ended => Some(job),
            };
            refused
                .extend(unsent.map(|job| {
                    fail(&job, now, ErrorClass::Connection, code, "the local BMC is not served any more".into(), false)
                }));
        }
        drop(thread);
        if !refused.is_empty() {
            (self.completions)(refused);
        }
    }

    /// Nothing is kept for a host.
    pub fn forget(&self, _host: &HostId) {}

    /// Takes no more jobs; one that is in the kernel ends by its timeout.
    pub fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Thread::Ended;
        Box::pin(std::future::ready(()))
    }

    fn spawn(&self) -> std::io::Result<Sender<(Job, Duration)>> {
        let (sender, jobs) = mpsc::channel::<(Job, Duration)>();
        let completions = std::sync::Arc::clone(&self.completions);
        std::thread::Builder::new().name("ipmi-open".into()).spawn(move || {
            for (job, taken) in jobs {
                completions(vec![serve(&job, taken)]);
            }
        })?;
        Ok(sender)
    }
}

/// Asks the local BMC, blocking for at most what is left of the job's timeout.
fn serve(job: &Job, taken: Duration) -> Completion {
    let begun = clock::boottime();
    let left = job.timeout.saturating_sub(begun.saturating_sub(taken));
    if left.is_zero() {
        return fail(job, begun, ErrorClass::Deadline, "queued", "the time was over before the request's turn came".into(), false);
    }
    if let Err(wrong) = Settings::parse(&job.bmc.username, job.bmc.password.expose(), &job.bmc.options) {
        return fail(job, begun, ErrorClass::Setting, wrong.code(), wrong.to_string(), false);
    }
    // Opened for each job: an answer that comes too late then goes to a closed file and never to a later question.
    let mut device = match File::new(DEVICE, left) {
        Ok(device) => device,
        Err(error) => {
            let text = format!("{DEVICE} cannot be opened: {error}; is the kernel module ipmi_devintf loaded?");
            return fail(job, begun, ErrorClass::Connection, "no-device", text, false);
        }
    };
    let mut request = Request::new(power::message(job.ask), RequestTargetAddress::Bmc(LogicalUnit::Zero));
    let (netfn, command) = (request.netfn(), request.cmd());
    let begun = clock::boottime();
    match device.send_recv(&mut request) {
        Err(error) => fail(job, begun, ErrorClass::Connection, "device", format!("{DEVICE}: {error}"), true),
        Ok(response) if response.netfn() != netfn || response.cmd() != command => {
            let text = "the local BMC answered another question".into();
            fail(job, begun, ErrorClass::Protocol, "other-answer", text, true)
        }
        Ok(response) => {
            let reply = Reply::new(begun, response.cc(), response.data());
            match power::answer(job.ask, &reply) {
                Ok(answer) => Completion { ticket: job.ticket, begun, result: Ok(answer) },
                Err(no) => fail(job, begun, no.class(), &no.code(), no.to_string(), no.maybe_sent()),
            }
        }
    }
}

fn fail(job: &Job, begun: Duration, class: ErrorClass, code: &str, text: String, maybe_sent: bool) -> Completion {
    let error = DriverError { driver: DRIVER, address: DEVICE.into(), class, code: code.into(), text, maybe_sent };
    Completion { ticket: job.ticket, begun, result: Err(error) }
}
