//! Interface `open` of driver `ipmi`: the BMC of the agent's own host through `/dev/ipmi0`, by `ipmi-rs`.
//!
//! The kernel's interface blocks, so it has a thread of its own and serves one job at a time. No login, no session, no
//! password; so there is nothing to try a login with, and no password to set. It was tried without hardware only: against a missing device. What it does with a real one rests on
//! `ipmi-rs`.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipmi_rs::File;
use ipmi_rs_core::connection::{IpmiConnection as _, LogicalUnit, Message, Request, RequestTargetAddress};
use picket_common::id::HostId;

use super::Completions;
use crate::bmc::{Ask, Completion, DriverError, ErrorClass, Job, NOT_SUPPORTED, SHUTTING_DOWN};
use crate::clock;
use crate::ipmi::login::Stage;
use crate::ipmi::settings::Settings;
use crate::ipmi::{About, Failure, Next, Reply, Script};

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

/// Serves a job, blocking for at most what is left of its timeout.
fn serve(job: &Job, taken: Duration) -> Completion {
    let begun = clock::boottime();
    let deadline = taken.saturating_add(job.timeout);
    if deadline <= begun {
        return fail(job, begun, ErrorClass::Deadline, "queued", "the time was over before the request's turn came".into(), false);
    }
    if matches!(job.ask, Ask::TryLogin | Ask::SetPassword) {
        let text = format!("{:?} is not supported here: {DEVICE} needs no login", job.ask);
        return fail(job, begun, ErrorClass::Refused, NOT_SUPPORTED, text, false);
    }
    let settings = match Settings::parse(&job.bmc.username, job.bmc.password.expose(), &job.bmc.options) {
        Ok(settings) => settings,
        Err(wrong) => return fail(job, begun, ErrorClass::Setting, wrong.code(), wrong.to_string(), false),
    };
    match Script::new(job.ask, None, &settings) {
        Ok(script) => play(job, script, &settings, deadline, exchange),
        Err(wrong) => fail(job, begun, ErrorClass::Setting, wrong.code(), wrong.to_string(), false),
    }
}

/// Why there is no answer.
struct NoAnswer {
    class: ErrorClass,
    code: &'static str,
    text: String,
    sent: bool,
}

/// Drives a script from request to request; `exchange` sends one and waits for its answer so long.
fn play(
    job: &Job,
    mut script: Script,
    settings: &Settings,
    deadline: Duration,
    exchange: impl Fn(&Message, Duration) -> Result<Reply, NoAnswer>,
) -> Completion {
    let mut request = script.begin(clock::boottime(), deadline);
    loop {
        let begun = clock::boottime();
        let ended = exchange(&request.message, request.deadline.saturating_sub(begun));
        // The kernel's interface tells silence from failure by its text alone: what may be missing counts as missing.
        let missing = Failure::Silent { stage: Stage::Session, sent: true };
        let next = script.next(clock::boottime(), deadline, ended.as_ref().map_err(|_| &missing), settings, &About::default());
        match (next, ended) {
            (Next::Ask(next), _) => request = next,
            (Next::End(result), ended) => {
                let begun = ended.map_or(begun, |reply| reply.begun);
                return match result {
                    Ok(answer) => Completion { ticket: job.ticket, begun, result: Ok(answer) },
                    Err(no) => fail(job, begun, no.class(), &no.code(), no.to_string(), no.maybe_sent()),
                };
            }
            (Next::Failed, ended) => {
                let no = ended.err().unwrap_or_else(NoAnswer::unclear);
                return fail(job, begun, no.class, no.code, no.text, no.sent && script.is_order_out());
            }
        }
    }
}

impl NoAnswer {
    fn unclear() -> Self {
        Self { class: ErrorClass::Protocol, code: "unclear", text: "an answer that fits nothing".into(), sent: true }
    }
}

/// Asks the local BMC one thing. The device is opened for each: an answer that comes too late then goes to a closed file
/// and never to a later question.
fn exchange(message: &Message, left: Duration) -> Result<Reply, NoAnswer> {
    let mut device = File::new(DEVICE, left).map_err(|error| NoAnswer {
        class: ErrorClass::Connection,
        code: "no-device",
        text: format!("{DEVICE} cannot be opened: {error}; is the kernel module ipmi_devintf loaded?"),
        sent: false,
    })?;
    let mut request = Request::new(message.clone(), RequestTargetAddress::Bmc(LogicalUnit::Zero));
    let (netfn, command) = (request.netfn(), request.cmd());
    let begun = clock::boottime();
    match device.send_recv(&mut request) {
        Err(error) => {
            Err(NoAnswer { class: ErrorClass::Connection, code: "device", text: format!("{DEVICE}: {error}"), sent: true })
        }
        Ok(response) if response.netfn() != netfn || response.cmd() != command => Err(NoAnswer {
            class: ErrorClass::Protocol,
            code: "other-answer",
            text: "the local BMC answered another question".into(),
            sent: true,
        }),
        Ok(response) => Ok(Reply::new(begun, response.cc(), response.data())),
    }
}

fn fail(job: &Job, begun: Duration, class: ErrorClass, code: &str, text: String, maybe_sent: bool) -> Completion {
    let error = DriverError { driver: DRIVER, address: DEVICE.into(), class, code: code.into(), text, maybe_sent };
    Completion { ticket: job.ticket, begun, result: Err(error) }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use picket_common::command::{BootDevice, Persistence};
    use picket_common::secret::Secret;

    use super::*;
    use crate::bmc::{Answer, Bmc, PowerReply, Reading};

    fn job(ask: Ask) -> Job {
        let bmc = Bmc {
            host: "own".parse().unwrap(),
            address: String::new(),
            port: None,
            username: String::new(),
            password: Secret::new(String::new()),
            options: BTreeMap::from([("interface".into(), "open".into())]),
            revision: 1,
        };
        Job { ticket: 3, bmc: Arc::new(bmc), ask, new_password: None, timeout: Duration::from_secs(5) }
    }

    /// A local BMC without a system GUID that takes the flags and the rest.
    fn ask(ask: Ask) -> (Completion, Vec<(u8, u8)>) {
        let job = job(ask);
        let settings = Settings::parse("", "", &job.bmc.options).unwrap();
        let (seen, flags) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let script = Script::new(ask, None, &settings).unwrap();
        let completion = play(&job, script, &settings, clock::boottime() + job.timeout, |message, left| {
            assert!(!left.is_zero());
            seen.borrow_mut().push((message.netfn_raw(), message.cmd()));
            let (code, data) = match (message.netfn_raw(), message.cmd(), message.data()) {
                (0, 1, _) => (0, vec![1, 0, 0]),
                (6, 1, _) => (0, vec![0x20, 1, 2, 0x34, 2, 0, 0xA2, 2, 0, 0, 1]),
                (6, 0x37, _) => return Err(NoAnswer::unclear()),
                (0, 8, [5, rest @ ..]) => {
                    flags.replace(rest.to_vec());
                    (0, Vec::new())
                }
                (0, 9, _) => (0, [&[1, 5], flags.borrow().as_slice()].concat()),
                (0, 2 | 4 | 8, _) => (0, Vec::new()),
                other => panic!("{other:02x?}"),
            };
            Ok(Reply::new(clock::boottime(), code, &data))
        });
        (completion, seen.into_inner())
    }

    #[test]
    fn scripts_play_without_a_session() {
        let accepted = Ok(Answer::Power(PowerReply::Accepted));
        assert_eq!(ask(Ask::Diag).0.result, accepted);
        assert_eq!(ask(Ask::Identify { seconds: 9 }).0.result, Ok(Answer::Done));
        let device = Ask::Bootdev { device: BootDevice::Pxe, persistence: Persistence::Once };
        assert_eq!(ask(device).0.result, Ok(Answer::Done));
        let (completion, seen) = ask(Ask::Inspect);
        let Ok(Answer::Facts(facts, Reading::On)) = completion.result else { panic!("{completion:?}") };
        assert_eq!((facts.manufacturer.as_deref(), facts.identity), (Some("Dell"), None));
        assert_eq!(facts.protocol.as_deref(), Some("IPMI 2.0, kernel interface"));
        assert_eq!(facts.privilege, None);
        assert!(!seen.iter().any(|command| matches!(command, (6, 0x44 | 0x46))), "no login, no account: {seen:?}");
    }

    #[test]
    fn there_is_no_login_to_try_or_change() {
        for ask in [Ask::TryLogin, Ask::SetPassword] {
            let error = serve(&job(ask), clock::boottime()).result.unwrap_err();
            assert_eq!((error.class, error.code.as_str()), (ErrorClass::Refused, NOT_SUPPORTED));
        }
    }
}
