//! The agent's heart: events in, one decision, journal, then acts. Everything else hangs off this loop.

mod reload;
mod signals;
mod witness;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use picket_common::command::Outcome;
use picket_common::id::HostId;
use picket_common::wire::assign::Assign;
use picket_common::wire::down::Command;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use self::reload::InForce;
pub use self::reload::Reload;
use self::signals::{Signals, Told};
pub use self::witness::witness;

use crate::bmc::{Ask, Completion};
use crate::check::{self, Checks, Programs};
use crate::clock;
use crate::config::Config;
use crate::driver::exec::{Exec, Templates};
use crate::driver::ipmi::{Ipmi, IpmiError};
use crate::driver::ipmitool::Ipmitool;
use crate::driver::null::Null;
use crate::driver::process::Runner;
use crate::driver::redfish::{self, Kept, Redfish, Unreadable};
use crate::driver::{Completions, Driver};
use crate::identity::Identity;
use crate::journal::{Journal, JournalError, Outbox};
use crate::rack::moment::MachineBoot;
use crate::rack::{Decision, Event, Rack, Record, Restored, Settings};
use crate::sign::CheckDone;
use crate::status::Status;
use crate::uplink::{Gauge, Say, Uplink};
use crate::witness::WitnessError;
use crate::work::Work;
use crate::{log, tls, uplink};

/// Most events decided on in one transaction.
const MAX_EVENTS: usize = 1024;
/// Polls that are due within this are started together: fewer wake-ups, and a delay far below any poll's jitter.
const GRAIN: Duration = Duration::from_millis(25);
/// Pause between tries to get the journal back.
const JOURNAL_PAUSE: Duration = Duration::from_secs(5);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The identity's keys or certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The gate's address is not `host:port`.
    #[error("the aggregator's MQTT address {0:?} is not host:port; join again")]
    Address(String),
    /// The `ipmi` driver could not start.
    #[error("driver ipmi could not start")]
    Ipmi(#[from] IpmiError),
    /// The `redfish` driver could not start.
    #[error("driver redfish could not start")]
    Redfish(#[from] redfish::StartError),
    /// The CA bundle for BMCs cannot be read.
    #[error("bmc_ca {path}")]
    BmcCa {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The signals cannot be listened to.
    #[error("the signals cannot be listened to")]
    Signals(#[source] std::io::Error),
    /// The witness could not start.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// A witness that is told nothing to witness.
    #[error("this is the witness of host {0}, but the file has no section [witness]")]
    NoWitness(HostId),
    /// An agent that is told to be a witness.
    #[error(
        "the file has a section [witness], but this is an agent; a host's witness joins by itself, with a state folder of its own"
    )]
    NotWitness,
    /// A thread could not be started.
    #[error("the core's thread could not start")]
    Thread(#[source] std::io::Error),
    /// The core ended by itself: a bug, or a corrupt journal.
    #[error("the core stopped; the log says why")]
    CoreStopped,
}

/// Runs until it is told to stop, then closes BMC sessions and the uplink; SIGHUP reads the agent's own file again.
///
/// # Errors
/// [`RunError`].
pub async fn run(identity: Identity, config: Config, state_dir: &Path, reload: Reload) -> Result<(), RunError> {
    if config.witness.is_some() {
        return Err(RunError::NotWitness);
    }
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let journal = Journal::open(&journal_file(state_dir), uuid::Uuid::new_v4())?;
    let (events, inbox) = channel();
    let completions: Completions = {
        let events = events.clone();
        Arc::new(move |mut completions: Vec<Completion>| {
            completions.retain(|completion| !completion.is_left_undone());
            tell(&events, Event::Completed(completions));
        })
    };
    let (templates, exec) = watch::channel(Arc::new(config.exec.clone()));
    let (programs, checks) = checks(&identity, &config, events.clone())?;
    let work = Arc::new(Work::new(drivers(&config, exec, &journal, &completions)?, completions));
    let gauge = Arc::new(Gauge::default());
    let (say, said) = tokio::sync::mpsc::unbounded_channel();
    let core = Core::new(journal, inbox, work.clone(), checks.clone(), say, gauge.clone(), &identity, &config, state_dir)?;

    let (host, port) = identity.mqtt.rsplit_once(':').ok_or_else(|| RunError::Address(identity.mqtt.clone()))?;
    let settings = uplink::Settings {
        agent: identity.agent.clone(),
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().map_err(|_| RunError::Address(identity.mqtt.clone()))?,
        tls: tls::mutual(&identity)?,
        verifying_keys: identity.verifying_keys.clone(),
        boot: core.journal.boot(),
        generation: core.generation,
    };
    let reader = core.journal.reader();
    let for_uplink = events.clone();
    let uplink = Uplink::new(settings, reader, Arc::new(move |event| tell(&for_uplink, event)), said, gauge);
    let uplink = tokio::spawn(uplink.run());

    let mut in_force = InForce { config, reload, templates, programs, events };
    let (ended, mut core_ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("core".into()).spawn(move || {
        core.run();
        ended.send(()).ok();
    });
    let thread = thread.map_err(RunError::Thread)?;
    notify_ready();
    let stopped = loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => break true,
                Told::Reload => in_force.reload(),
            },
            _ = &mut core_ended => break false,
        }
    };
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
    tokio::join!(work.shutdown(), checks.shutdown());
    // Dropping the connection makes the broker tell our will at once; the core's thread ends with the process, for every
    // commit is durable by itself.
    uplink.abort();
    if stopped {
        return Ok(());
    }
    thread.join().ok();
    Err(RunError::CoreStopped)
}

/// Where the journal is.
#[must_use]
pub fn journal_file(state_dir: &Path) -> PathBuf {
    state_dir.join("journal.redb")
}

fn tell(events: &Sender<Event>, event: Event) {
    // The core is gone only while the process ends.
    events.send(event).ok();
}

fn notify_ready() {
    sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();
    tracing::info!("agent ready");
}

fn drivers(
    config: &Config,
    templates: watch::Receiver<Arc<Templates>>,
    journal: &Journal,
    completions: &Completions,
) -> Result<Vec<Box<dyn Driver>>, RunError> {
    let ipmi = Ipmi::new(completions.clone(), config.allowed())?.serving_local(config.local_bmc_host.clone());
    let settings = redfish::Config { allowed: config.allowed(), roots: bmc_roots(config)? };
    let redfish =
        Redfish::new(completions.clone(), settings, tokio::runtime::Handle::current(), Arc::new(redfish_memory(journal)))?;
    let (runner, handle) = (Arc::new(Runner::new(config.max_processes.0)), tokio::runtime::Handle::current());
    let local = config.local_bmc_host.clone();
    let ipmitool =
        Ipmitool::new(completions.clone(), config.ipmitool.clone(), config.allowed(), local, runner.clone(), handle.clone());
    let exec = Exec::new(completions.clone(), templates, config.allowed(), runner, handle);
    config.missing_programs().iter().for_each(|missing| tracing::warn!("{missing}"));
    let null = Null::new(completions.clone());
    Ok(vec![Box::new(ipmi), Box::new(redfish), Box::new(ipmitool), Box::new(exec), Box::new(null)])
}

/// What makes checks, and what tells it of other programs.
fn checks(
    identity: &Identity,
    config: &Config,
    events: Sender<Event>,
) -> Result<(watch::Sender<Arc<Programs>>, Arc<Checks>), RunError> {
    let (sender, programs) = watch::channel(Arc::new(config.check.clone()));
    let tools = check::Tools { witness: tls::ToWitness::new(identity)?, programs, max_processes: config.max_processes.0 };
    let done = Arc::new(move |done: Vec<CheckDone>| tell(&events, Event::Checked(done)));
    let checks = Checks::new(tools, done, tokio::runtime::Handle::current()).map_err(tls::TlsError::from)?;
    Ok((sender, Arc::new(checks)))
}

fn bmc_roots(config: &Config) -> Result<Vec<Vec<u8>>, RunError> {
    let Some(path) = &config.bmc_ca else { return Ok(Vec::new()) };
    let pem = std::fs::read_to_string(path).map_err(|source| RunError::BmcCa { path: path.clone(), source })?;
    Ok(tls::certificates(&pem, "bmc_ca file")?.iter().map(|certificate| certificate.to_vec()).collect())
}

fn redfish_memory(journal: &Journal) -> Kept {
    let (load, store) = (journal.reader(), journal.reader());
    let load = move |host: &HostId| {
        load.memory(host).map_err(|error| {
            tracing::warn!(%error, %host, "driver memory not read");
            Unreadable
        })
    };
    let store = move |host: &HostId, bytes: &[u8]| {
        if let Err(error) = store.set_memory(host, Some(bytes)) {
            tracing::warn!(%error, %host, "driver memory not kept");
        }
    };
    Kept::new(Box::new(load), Box::new(store))
}

/// The loop and what it owns.
struct Core {
    rack: Rack,
    journal: Journal,
    broken: Option<Broken>,
    inbox: Receiver<Event>,
    work: Arc<Work>,
    checks: Arc<Checks>,
    say: UnboundedSender<Say>,
    gauge: Arc<Gauge>,
    settings: Settings,
    status: Status,
    state_dir: PathBuf,
    generation: Option<picket_common::wire::Generation>,
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "the wiring of the whole daemon meets here once")]
    fn new(
        journal: Journal,
        inbox: Receiver<Event>,
        work: Arc<Work>,
        checks: Arc<Checks>,
        say: UnboundedSender<Say>,
        gauge: Arc<Gauge>,
        identity: &Identity,
        config: &Config,
        state_dir: &Path,
    ) -> Result<Self, RunError> {
        let settings = Settings {
            boot: journal.boot(),
            machine_boot: MachineBoot(clock::machine_boot()),
            sealing_key: identity.sealing_key.clone(),
            max_in_flight: config.max_in_flight.0,
            references: config.reference_addresses.iter().map(|address| address.as_str().to_owned()).collect(),
            proving_templates: Vec::new(),
            seed: getrandom::u64().unwrap_or(1),
        };
        let restored = journal.load()?;
        let generation = restored.generation;
        let now = clock::now();
        let rack = Rack::restore(settings.clone(), restored, now);
        let status = Status {
            agent: identity.agent.clone(),
            at: now.wall,
            pid: std::process::id(),
            connected: false,
            hosts: 0,
            on: 0,
            off: 0,
            unknown: 0,
            disabled: 0,
            inspected: 0,
            outbox: 0,
            refused_messages: 0,
            journal: true,
        };
        let state_dir = state_dir.to_owned();
        Ok(Self { rack, journal, broken: None, inbox, work, checks, say, gauge, settings, status, state_dir, generation })
    }

    fn run(mut self) {
        let mut events = Vec::new();
        while self.next_events(&mut events) {
            let mut decision = Decision::default();
            let now = clock::now();
            if self.broken.is_some() {
                events.retain(is_harmless);
            }
            for event in events.drain(..) {
                self.rack.apply(event, now, &mut decision); // the only deciding: pure
            }
            self.rack.apply(Event::Tick, now, &mut decision);
            if self.broken.is_some() {
                self.limp(decision, now.boottime);
                continue;
            }
            match self.journal.record(&decision.records) {
                // Only after it is durable.
                Ok(outbox) => {
                    log_reports(&decision.records);
                    self.act(decision, outbox, now.boottime);
                }
                Err(error) => self.break_down(&error, now.boottime),
            }
        }
    }

    /// Waits for an event or the next due time, then takes all that is there. False when nobody is left to tell anything.
    fn next_events(&mut self, events: &mut Vec<Event>) -> bool {
        let wait = self.rack.next_wake().saturating_sub(clock::boottime()).max(GRAIN);
        match self.inbox.recv_timeout(wait) {
            Ok(event) => events.push(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        while events.len() < MAX_EVENTS {
            let Ok(event) = self.inbox.try_recv() else { break };
            events.push(event);
        }
        true
    }

    fn act(&mut self, mut decision: Decision, outbox: Outbox, decided: Duration) {
        if outbox.oldest > 0 {
            self.say.send(Say::Queued(outbox)).ok();
        }
        if let Some(pulse) = decision.heartbeat {
            self.write_status();
            self.say.send(Say::Pulse(pulse)).ok();
            sd_notify::notify(&[sd_notify::NotifyState::Watchdog]).ok();
        }
        for (driver, host) in decision.forget {
            self.work.forget(&driver, &host);
        }
        if !decision.jobs.is_empty() {
            // The commit may have taken long: its time is the jobs' time too, and what is too late by now is not begun.
            let late = clock::boottime().saturating_sub(decided);
            decision.jobs.iter_mut().for_each(|(_, job)| job.timeout = job.timeout.saturating_sub(late));
            self.work.start(decision.jobs);
        }
        self.checks.start(decision.checks);
    }

    fn write_status(&mut self) {
        self.status.count(&self.rack);
        self.status.at = clock::now().wall;
        self.status.connected = self.gauge.connected.load(Ordering::Relaxed);
        self.status.outbox = self.gauge.outbox.load(Ordering::Relaxed);
        self.status.refused_messages = self.gauge.refused.load(Ordering::Relaxed);
        self.status.journal = self.broken.is_none();
        if let Err(error) = self.status.write(&self.state_dir) {
            tracing::debug!(%error, "status file not written");
        }
    }

    /// The journal failed: nothing of that decision happens, and the rack is what the journal last knew, if it can be read.
    fn break_down(&mut self, error: &JournalError, now: Duration) {
        tracing::error!(%error, source = ?std::error::Error::source(error), "journal failed");
        self.broken = Some(Broken { try_at: now.saturating_add(JOURNAL_PAUSE), refused: Vec::new() });
        match self.journal.load() {
            // Operations wait in the journal; until it works nothing is ordered, and none is carried on.
            Ok(restored) => self.restore(Restored { operations: Vec::new(), ..restored }),
            Err(error) => tracing::warn!(%error, "journal cannot be read"),
        }
        self.rack.set_journal(false);
    }

    fn restore(&mut self, restored: Restored) {
        let rack = Rack::restore(self.settings.clone(), restored, clock::now());
        let earlier = std::mem::replace(&mut self.rack, rack);
        self.rack.inherit(&earlier);
    }

    /// Without a journal BMCs are still read, so that the agent sees what it can; nothing is ordered, and commands are refused.
    /// The refusals are kept until they can be journalled, for the aggregator to hear.
    fn limp(&mut self, mut decision: Decision, now: Duration) {
        decision.jobs.retain(|(_, job)| job.ask == Ask::Status);
        decision.records.retain(is_refusal);
        if let Some(broken) = &mut self.broken {
            decision.records.truncate(MAX_EVENTS.saturating_sub(broken.refused.len()));
            broken.refused.append(&mut decision.records);
        }
        self.act(decision, Outbox::default(), now);
        if self.broken.as_ref().is_some_and(|broken| now >= broken.try_at) {
            self.mend(now);
        }
    }

    fn mend(&mut self, now: Duration) {
        let refused = self.broken.as_ref().map(|broken| broken.refused.clone()).unwrap_or_default();
        let mended = self
            .journal
            .reopen()
            .and_then(|()| self.journal.record(&refused))
            .and_then(|outbox| Ok((outbox, self.journal.load()?)));
        match mended {
            Ok((outbox, restored)) => {
                self.broken = None;
                self.restore(restored);
                tracing::info!("journal works again");
                self.act(Decision::default(), outbox, now);
            }
            Err(error) => {
                tracing::warn!(%error, "journal still fails");
                if let Some(broken) = &mut self.broken {
                    broken.try_at = now.saturating_add(JOURNAL_PAUSE);
                }
            }
        }
    }
}

/// What may be looked at while nothing can be journalled: answers of BMCs, the clock, settings, and commands, which are refused. An assignment comes again; acknowledgements too.
const fn is_harmless(event: &Event) -> bool {
    matches!(
        event,
        Event::Completed(_)
            | Event::Measured(_)
            | Event::Checked(_)
            | Event::Configured { .. }
            | Event::Tick
            | Event::Assigned(Assign::Settings(_))
            | Event::Commanded(Command::Power(_) | Command::ChangePassword(_) | Command::Ha(_))
    )
}

fn log_reports(records: &[Record]) {
    let reports = records.iter().filter_map(|record| if let Record::Report(report) = record { Some(report) } else { None });
    reports.for_each(|report| log::report(report));
}

/// While the journal cannot be written.
struct Broken {
    try_at: Duration,
    refused: Vec<Record>,
}

fn is_refusal(record: &Record) -> bool {
    use picket_common::wire::report::{Progress, Report};
    let Record::Report(report) = record else { return matches!(record, Record::Seen(..)) };
    matches!(**report, Report::Operation(ref report) if matches!(report.progress, Progress::Done(Outcome::Refused(_) | Outcome::Expired)))
}
