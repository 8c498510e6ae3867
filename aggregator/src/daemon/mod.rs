//! The daemon around the core: opens what it needs, starts every part, watches them, and stops them in order. Decides nothing.
//!
//! Every part started here is critical: one that ends before it is told to ends the process (systemd starts it again, from the
//! last commit). A gate connection's own task is not started here; it ends alone.

mod door;
mod sockets;
mod watchdog;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum_server::tls_rustls::RustlsConfig;
use picket_common::id::SiteId;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::broker::{Broker, BrokerError, Inbound};
use crate::config::{Config, LoadError, host_port};
use crate::context::{Archive, Asker, Context, EventBus, Health};
use crate::fleet::{Event, Telling, View};
use crate::gate::{self, AgentKeys, Gate, GateConfig, GateError, Limits};
use crate::notify::{self, Notifier};
use crate::pki::{Authority, GateTls, PkiError};
use crate::publish::{Documents, Publisher, Status};
use crate::run::{Core, Parts};
use crate::store::{Store, StoreError};
use crate::{api, clock, ingest, init};
use sockets::Addresses;

/// Events waiting for the core: agents wait (and the gate holds back its acknowledgements) when it is behind.
const EVENTS: usize = 1024;
/// How long requests under way may take when the daemon stops.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// The gate among the parts.
const GATE: &str = "the gate";
/// How long the core may take to finish what is queued when the daemon stops.
const LAST_COMMITS: Duration = Duration::from_secs(20);

/// Why the daemon ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// `init` was never run.
    #[error("there is no site in {0}: run `picket-aggregator init` first (with the same --state-dir)")]
    NotMade(PathBuf),
    /// The certificates say another site than the settings.
    #[error("the authority is of site {made:?}, the settings say {configured:?}")]
    Site {
        /// As at `init`.
        made: SiteId,
        /// As set now.
        configured: SiteId,
    },
    /// The authority could not be read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The store could not be opened, or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker did not start.
    #[error("starting the broker")]
    Broker(#[from] BrokerError),
    /// The gate could not listen.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// A socket, file or signal could not be set up.
    #[error("{action}")]
    Setup {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A part ended that must not.
    #[error("{0} ended")]
    Ended(&'static str),
    /// A part panicked.
    #[error("{0} panicked")]
    Panicked(&'static str),
}

impl DaemonError {
    fn setup(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Setup { action, source }
    }
}

/// Puts a log filter in force.
pub type SetLog = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// How the settings are read again, and the log's filter is changed, at SIGHUP.
pub struct Reload {
    /// Reads the settings.
    pub load: Box<dyn Fn() -> Result<Config, LoadError> + Send + Sync>,
    /// Puts a filter in force: `log` of the settings.
    pub log: SetLog,
}

/// Runs the aggregator until SIGTERM or SIGINT; SIGHUP reads its settings again.
///
/// # Errors
/// Any [`DaemonError`].
pub async fn serve(config: &Config, state_dir: &Path, reload: Reload) -> Result<(), DaemonError> {
    let signals = Signals::new()?;
    let authority = authority(config, state_dir)?;
    let store = Store::open(state_dir)?;
    sockets::forget_addresses(state_dir);
    let running = start(config, state_dir, authority, store).await?;
    tell_systemd(&[NotifyState::Ready]);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), site = %config.site, "running");
    running.until(signals, reload, config.clone()).await
}

fn authority(config: &Config, state_dir: &Path) -> Result<Authority, DaemonError> {
    if !init::is_done(state_dir) {
        return Err(DaemonError::NotMade(state_dir.to_owned()));
    }
    let mut authority = Authority::load(state_dir)?;
    if *authority.site() != config.site {
        return Err(DaemonError::Site { made: authority.site().clone(), configured: config.site.clone() });
    }
    authority.reissue_server(&init::server_names(config, state_dir), clock::now())?;
    Ok(authority)
}

/// What was started.
struct Running {
    tasks: JoinSet<&'static str>,
    core: oneshot::Receiver<Result<(), StoreError>>,
    events: mpsc::Sender<Event>,
    stop: watch::Sender<bool>,
    api: axum_server::Handle<std::net::SocketAddr>,
    notifier: Notifier,
}

async fn start(config: &Config, state_dir: &Path, authority: Authority, store: Store) -> Result<Running, DaemonError> {
    let api_listener = sockets::listen(config.listen)?;
    let api_address = api_listener.local_addr().map_err(DaemonError::setup("reading the API's address"))?;
    let view = Arc::new(ArcSwap::from_pointee(View::default()));
    let health = Arc::new(Health::default());
    let archive = Archive::new(Arc::new(store.clone()));
    let bus = EventBus::new(archive.clone(), store.last_event()?);
    let (events, queue) = mpsc::channel(EVENTS);
    let (inbound, heard) = mpsc::channel(EVENTS);
    let (stop, stopping) = watch::channel(false);
    let status =
        Status { site: config.site.clone(), status: "running", version: env!("CARGO_PKG_VERSION"), since: clock::now().wall };
    let broker = Broker::embedded(Arc::new(Documents::new(Arc::clone(&view), status)), inbound)?;
    let asker = Asker::new(events.clone());
    let advertised_api = host_port(&config.advertise, api_address.port());
    let notifier = Notifier::new(
        notify::Place {
            site: config.site.clone(),
            name: config.advertise.clone(),
            api: &advertised_api,
            state_dir,
            store: store.incarnation(),
        },
        Handle::current(),
        events.clone(),
        config.notify.clone(),
    );
    let core = Core::new(Parts {
        events: queue,
        stop: stopping,
        runtime: Handle::current(),
        store: store.clone(),
        settings: config.settings.clone(),
        telling: telling(config),
        view: Arc::clone(&view),
        asker: asker.clone(),
        health: Arc::clone(&health),
        broker: broker.clone(),
        publisher: Publisher::new(broker.clone(), bus.clone()),
        notifier: notifier.clone(),
        key: authority.signing_key()?,
    })?;
    let gate_tls = GateTls::new(authority.gate_material(Vec::new())?)?;
    let gate_config = GateConfig { limits: Limits::default(), site: config.site.clone(), keys: agent_keys(Arc::clone(&view)) };
    let gate = Gate::bind(sockets::usable(config.mqtt_listen), gate_tls, gate_config, broker.clone()).await?;
    let addresses = Addresses { api: api_address, mqtt: gate.local_addr() };
    let context = Context {
        site: config.site.clone(),
        advertised_api: advertised_api.into(),
        advertised_mqtt: host_port(&config.advertise, addresses.mqtt.port()).into(),
        asker,
        view,
        events: bus,
        archive,
        health: Arc::clone(&health),
    };
    let tls = RustlsConfig::from_config(Arc::new(authority.server_tls_for_api()?));
    let handle = axum_server::Handle::new();
    let server = door::server(api_listener, tls).map_err(DaemonError::setup("listening for the API"))?.handle(handle.clone());
    let router = api::router(context, Arc::new(authority), notifier.clone());

    let mut tasks = JoinSet::new();
    let mut told = stop.subscribe();
    tasks.spawn(named(GATE, gate.run(async move { drop(told.wait_for(|stop| *stop).await) })));
    tasks.spawn(named("the API", async move {
        if let Err(error) = server.serve(router.into_make_service_with_connect_info::<std::net::SocketAddr>()).await {
            tracing::error!(%error, "API failed");
        }
    }));
    tasks.spawn(named("ingest", listen_to_agents(heard, events.clone())));
    tasks.spawn(named("the broker's probe", watchdog::probe(broker, Arc::clone(&health))));
    tasks.spawn(named("the watchdog", watchdog::feed(health)));
    addresses.write(state_dir)?;
    Ok(Running { tasks, core: on_its_own_thread(core)?, events, stop, api: handle, notifier })
}

/// What the core has to know of who is told of alerts.
fn telling(config: &Config) -> Telling {
    let receivers = config.notify.iter().map(|notify| notify.receiver.clone()).collect();
    Telling { receivers, hold: BTreeMap::new() }
}

/// An agent's key is the one it joined with last.
fn agent_keys(view: Arc<ArcSwap<View>>) -> AgentKeys {
    AgentKeys::new(move |agent, spki_sha256| view.load().agents.get(agent).is_some_and(|row| row.public_key == spki_sha256))
}

async fn named(name: &'static str, work: impl Future<Output = ()>) -> &'static str {
    work.await;
    name
}

/// What agents say, decoded, to the core. Waits when the core is behind, and so makes agents wait.
async fn listen_to_agents(mut heard: mpsc::Receiver<Inbound>, events: mpsc::Sender<Event>) {
    while let Some(inbound) = heard.recv().await {
        let event = match inbound {
            Inbound::Disconnected { agent } => Ok(Event::Disconnected(agent)),
            Inbound::Message { agent, channel, payload } => ingest::read(agent, channel, &payload),
        };
        match event {
            Ok(event) => {
                if events.send(event).await.is_err() {
                    return;
                }
            }
            Err(dropped) => {
                tracing::warn!(agent = %dropped.agent, reason = dropped.reason.code(), error = %dropped, "message dropped");
            }
        }
    }
}

fn on_its_own_thread(core: Core) -> Result<oneshot::Receiver<Result<(), StoreError>>, DaemonError> {
    let (sender, receiver) = oneshot::channel();
    // A panic drops the sender, which says so.
    let work = move || drop(sender.send(core.run()));
    std::thread::Builder::new().name("core".into()).spawn(work).map_err(DaemonError::setup("starting the core"))?;
    Ok(receiver)
}

impl Running {
    /// Waits for a signal to stop, or for a part to fail; then stops everything.
    async fn until(mut self, mut signals: Signals, reload: Reload, mut config: Config) -> Result<(), DaemonError> {
        loop {
            let ended = tokio::select! {
                signal = signals.next() => match signal {
                    Told::Stop(name) => {
                        tracing::info!(signal = name, "stopping");
                        tell_systemd(&[NotifyState::Stopping]);
                        return self.stop().await;
                    }
                    Told::Reload => {
                        self.reload(&reload, &mut config).await;
                        continue;
                    }
                },
                ended = self.tasks.join_next() => match ended {
                    Some(Ok(name)) => DaemonError::Ended(name),
                    Some(Err(error)) if error.is_panic() => DaemonError::Panicked("a part of the daemon"),
                    _ => DaemonError::Ended("a part of the daemon"),
                },
                ended = &mut self.core => match ended {
                    Ok(Ok(())) => DaemonError::Ended("the core"),
                    Ok(Err(error)) => error.into(),
                    Err(_) => DaemonError::Panicked("the core"),
                },
            };
            return Err(ended);
        }
    }

    /// Puts changed settings in force. What is wrong with them is said, and the old ones hold.
    async fn reload(&self, reload: &Reload, config: &mut Config) {
        let new = match (reload.load)() {
            Ok(new) => new,
            Err(error) => {
                return tracing::error!(error = &error as &dyn std::error::Error, "settings not reloaded, the old ones hold");
            }
        };
        let fixed = [
            ("site", new.site != config.site),
            ("listen", new.listen != config.listen),
            ("mqtt_listen", new.mqtt_listen != config.mqtt_listen),
            ("advertise", new.advertise != config.advertise),
        ];
        for (key, _) in fixed.into_iter().filter(|(_, changed)| *changed) {
            tracing::warn!(key, "this setting takes a restart");
        }
        if let Err(error) = (reload.log)(&new.log) {
            tracing::error!(error, "log filter not changed");
        }
        self.notifier.configure(new.notify.clone());
        // Only a core that has ended does not take it, and that ends the daemon.
        drop(self.events.send(Event::Configured(Box::new(new.settings.clone()), telling(&new))).await);
        (config.log, config.settings, config.notify) = (new.log, new.settings, new.notify);
        tracing::info!("settings reloaded");
    }

    /// Requests under way get their answers; then the core commits what is queued, and who is connected by MQTT is told; then
    /// nothing is left to lose.
    async fn stop(mut self) -> Result<(), DaemonError> {
        self.api.graceful_shutdown(Some(LAST_REQUESTS));
        let quiet = async { while self.api.connection_count() > 0 && self.tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(LAST_REQUESTS, quiet).await);
        self.stop.send_replace(true);
        let told = async { while self.tasks.join_next().await.is_some_and(|ended| !matches!(ended, Ok(GATE))) {} };
        let (core, _) =
            tokio::join!(tokio::time::timeout(LAST_COMMITS, self.core), tokio::time::timeout(2 * gate::LAST_WORDS, told),);
        self.tasks.abort_all();
        match core {
            Ok(Ok(ended)) => Ok(ended?),
            Ok(Err(_)) => Err(DaemonError::Panicked("the core")),
            Err(_) => Err(DaemonError::Ended("waiting for the core")),
        }
    }
}

/// What a signal tells the daemon to do.
enum Told {
    /// Stop; the signal's name.
    Stop(&'static str),
    /// Read the settings again.
    Reload,
}

/// The signals that stop the daemon, and the one that makes it read its settings again.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let listen = |kind| signal(kind).map_err(DaemonError::setup("listening for signals"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

/// Tells systemd, if it is there.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
