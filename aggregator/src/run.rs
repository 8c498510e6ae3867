//! The heart of the aggregator: one thread, one owner of all state. Everything else feeds it or follows from it.
//!
//! A commit that fails undoes its decision: whoever asked is told so, agents get no acknowledgement (and so send again), reads
//! go on from the last view, and the store is opened again with back-off. Only damage ends the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use picket_common::clock::Now;
use picket_common::id::AgentId;
use picket_common::wire::codec::SigningKey;
use picket_common::wire::report::Hello;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::broker::Broker;
use crate::clock;
use crate::context::{Asker, Health, Published};
use crate::dispatch;
use crate::fleet::view::Settings;
use crate::fleet::{Decision, Effect, Event, Fleet, Heard, Rejection, Telling, Told, View};
use crate::notify::Notifier;
use crate::publish::Publisher;
use crate::store::{Store, StoreError};

impl Core {
    /// Runs until told to stop. Blocks its thread: a sync of the store must not stall the runtime.
    ///
    /// # Errors
    /// [`StoreError`] that opening the store again cannot help.
    pub fn run(mut self) -> Result<(), StoreError> {
        while let Some(events) = self.next_events() {
            let now = clock::now();
            self.recover_if_due(now)?;
            let Some(decision) = self.decide(events, now) else { continue }; // the only deciding: pure
            let told = self.numbered(&decision.effects, now);
            let durable = self.parts.store.commit_with(&decision.records, &told); // before anyone learns of it
            self.follow(durable, decision.effects, told, now); // the only acting
        }
        if let State::Working(fleet) = &self.state {
            tracing::info!(ignored = ?fleet.counters(), "core stops");
        }
        Ok(())
    }
}

/// Most events that share a transaction: an agent's whole backlog comes in few, and an asker waits for one transaction.
const MAX_BATCH: usize = 256;
/// The core shows that it lives at least this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// What the core is made of.
pub struct Parts {
    /// What happens.
    pub events: mpsc::Receiver<Event>,
    /// Becomes `true` when the daemon stops: what is in `events` is still done.
    pub stop: watch::Receiver<bool>,
    /// The runtime whose channels and timers these are.
    pub runtime: Handle,
    /// Where decisions become durable.
    pub store: Store,
    /// What the aggregator's own file says of the site's settings.
    pub settings: Settings,
    /// What it says of who is told of alerts.
    pub telling: Telling,
    /// Where snapshots are read.
    pub view: Arc<ArcSwap<View>>,
    /// Who waits for answers.
    pub asker: Asker,
    /// What works.
    pub health: Arc<Health>,
    /// Reaches agents.
    pub broker: Broker,
    /// Reaches consumers.
    pub publisher: Publisher,
    /// Reaches receivers of alerts.
    pub notifier: Notifier,
    /// Signs what is said to agents.
    pub key: SigningKey,
}

/// The one owner of all state.
pub struct Core {
    parts: Parts,
    state: State,
    /// Sequence of the last event that is durable.
    last_event: u64,
    /// What each connected agent said when it came: told again to a fleet that is built anew.
    hellos: HashMap<AgentId, Hello>,
}

enum State {
    Working(Box<Fleet>),
    /// The store failed: there is nothing to decide on until it can be read again.
    Degraded {
        retry_at: Duration,
        delay: Duration,
    },
}

impl Core {
    /// Builds the fleet from the store.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub fn new(parts: Parts) -> Result<Self, StoreError> {
        let (fleet, last_event) = rebuilt(&parts.store, parts.settings.clone(), parts.telling.clone())?;
        parts.view.store(Arc::new(fleet.view()));
        parts.health.store(true);
        parts.health.core_progress();
        Ok(Self { parts, state: State::Working(Box::new(fleet)), last_event, hellos: HashMap::new() })
    }

    /// Waits for an event and takes what else is ready; [`Event::Tick`] when time has passed. `None`: stop.
    fn next_events(&mut self) -> Option<Vec<Event>> {
        let wait = self.wait();
        let Parts { events, stop, runtime, health, .. } = &mut self.parts;
        health.core_progress();
        let first = runtime.block_on(async {
            tokio::select! {
                biased;
                event = events.recv() => event,
                () = stopped(stop) => {
                    events.close();
                    events.recv().await
                }
                () = tokio::time::sleep(wait) => Some(Event::Tick),
            }
        })?;
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(event) = events.try_recv()
        {
            batch.push(event);
        }
        Some(batch)
    }

    fn wait(&self) -> Duration {
        let due = match &self.state {
            State::Working(fleet) => fleet.next_wake(),
            State::Degraded { retry_at, .. } => Some(*retry_at),
        };
        due.map_or(HEARTBEAT, |due| due.saturating_sub(clock::now().boottime).min(HEARTBEAT))
    }

    /// All that follows from `events`; `None` while there is no fleet to decide.
    fn decide(&mut self, events: Vec<Event>, now: Now) -> Option<Decision> {
        for event in &events {
            self.remember(event);
        }
        let State::Working(fleet) = &mut self.state else {
            events.into_iter().for_each(|event| self.turn_away(event));
            return None;
        };
        let mut whole = Decision::default();
        let overdue = fleet.next_wake().is_some_and(|due| due <= now.boottime);
        // A flood of events must not keep time from passing.
        for event in events.into_iter().chain(overdue.then_some(Event::Tick)) {
            let Decision { records, effects } = fleet.apply(event, now);
            whole.records.extend(records);
            whole.effects.extend(effects);
        }
        Some(whole)
    }

    fn remember(&mut self, event: &Event) {
        match event {
            Event::Heard(agent, Heard::Hello(hello)) => drop(self.hellos.insert(agent.clone(), hello.clone())),
            Event::Heard(agent, Heard::Gone(gone)) => {
                self.hellos.retain(|known, hello| known != agent || hello.session != gone.session);
            }
            Event::Disconnected(agent) => drop(self.hellos.remove(agent)),
            // A fleet that is built anew starts from the file as it is now.
            Event::Configured(settings, telling) => {
                (self.parts.settings, self.parts.telling) = ((**settings).clone(), telling.clone());
            }
            Event::Heard(..) | Event::Asked { .. } | Event::Attempted { .. } | Event::Noted { .. } | Event::Tick => {}
        }
    }

    fn turn_away(&self, event: Event) {
        if let Event::Asked { id, .. } | Event::Noted { id, .. } = event {
            self.parts.asker.answer(id, Err(unavailable()));
        }
    }

    /// The events among `effects` with their numbers, to be stored with what they tell of.
    fn numbered(&self, effects: &[Effect], now: Now) -> Vec<Arc<Published>> {
        let events = effects.iter().filter_map(|effect| if let Effect::Event(event, _) = effect { Some(event) } else { None });
        events.zip(self.last_event + 1..).map(|(event, n)| Arc::new(Published::new(n, now.wall, (**event).clone()))).collect()
    }

    /// Acts on what became durable: shows the view, then does what follows (a document is in the view before anybody is told
    /// of it). When it did not become durable, nothing of it happens.
    fn follow(&mut self, durable: Result<(), StoreError>, effects: Vec<Effect>, told: Vec<Arc<Published>>, now: Now) {
        if let Err(error) = durable {
            return self.degrade(&error, effects, now);
        }
        let State::Working(fleet) = &self.state else { return };
        self.parts.view.store(Arc::new(fleet.view()));
        self.last_event = told.last().map_or(self.last_event, |event| event.sequence);
        let mut told = told.into_iter();
        for effect in effects {
            match effect {
                Effect::Answer(id, answer) => self.parts.asker.answer(id, answer),
                Effect::Tell(agent, told) => self.tell(&agent, &told),
                Effect::Event(_, topic) => told.by_ref().take(1).for_each(|event| self.parts.publisher.event(event, &topic)),
                Effect::Retain(topic, body) => self.parts.publisher.retain(&topic, body),
                Effect::Notify(delivery) => self.parts.notifier.deliver(*delivery),
                Effect::GaveUp(given_up) => self.parts.notifier.gave_up(&given_up),
            }
        }
    }

    fn tell(&self, agent: &AgentId, told: &Told) {
        let frames = match dispatch::signed(&self.parts.key, agent, told) {
            Ok(frames) => frames,
            Err(error) => return tracing::error!(%agent, %error, "message is out of bounds, not sent"),
        };
        for (channel, frame) in frames {
            if !self.parts.broker.tell(agent, channel, frame) {
                // Not connected, or cut for being slow: it says hello again and is told what it needs then.
                return tracing::debug!(%agent, channel = channel.as_str(), "agent does not listen");
            }
        }
    }

    fn degrade(&mut self, error: &StoreError, effects: Vec<Effect>, now: Now) {
        tracing::error!(error = error as &dyn std::error::Error, "store cannot be written");
        self.parts.health.store(false);
        self.state = State::Degraded { retry_at: now.boottime + FIRST_RETRY, delay: FIRST_RETRY };
        for effect in effects {
            if let Effect::Answer(id, _) = effect {
                self.parts.asker.answer(id, Err(unavailable()));
            }
        }
    }

    fn recover_if_due(&mut self, now: Now) -> Result<(), StoreError> {
        let State::Degraded { retry_at, delay } = self.state else { return Ok(()) };
        if now.boottime < retry_at {
            return Ok(());
        }
        let Parts { store, settings, telling, .. } = &self.parts;
        match store.reopen().and_then(|()| rebuilt(store, settings.clone(), telling.clone())) {
            Ok((fleet, last_event)) => {
                tracing::info!("store works again");
                self.last_event = last_event;
                self.state = State::Working(Box::new(fleet));
                self.parts.health.store(true);
                self.greet_again();
                Ok(())
            }
            Err(error) if error.is_final() => Err(error),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "store still fails");
                let delay = (delay * 2).min(LAST_RETRY);
                self.state = State::Degraded { retry_at: now.boottime + delay, delay };
                Ok(())
            }
        }
    }

    /// The agents that are connected said hello to a fleet that is gone.
    fn greet_again(&mut self) {
        let now = clock::now();
        let State::Working(fleet) = &self.state else { return };
        let view = fleet.view();
        let hellos = self.hellos.iter().map(|(agent, hello)| {
            // It has reported more since: its hello as it was would look like one of a journal rolled back.
            let acked = view.agents.get(agent).filter(|row| row.boot == Some(hello.boot)).map_or(0, |row| row.acked);
            let hello = Hello { next: hello.next.max(acked + 1), ..hello.clone() };
            Event::Heard(agent.clone(), Heard::Hello(hello))
        });
        let hellos = hellos.collect();
        let Some(decision) = self.decide(hellos, now) else { return };
        let told = self.numbered(&decision.effects, now);
        let durable = self.parts.store.commit_with(&decision.records, &told);
        self.follow(durable, decision.effects, told, now);
    }
}

/// Until the daemon stops; a sender that is gone says so too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

fn unavailable() -> Rejection {
    Rejection::Store("it failed and is being opened again; nothing was changed".into())
}

/// The fleet as the store knows it, and its last event.
fn rebuilt(store: &Store, settings: Settings, telling: Telling) -> Result<(Fleet, u64), StoreError> {
    let loaded = store.load()?;
    let (mut fleet, records) = Fleet::new(store.incarnation(), uuid::Uuid::new_v4(), settings, loaded.rows, loaded.next_sequence);
    store.commit(&records)?;
    fleet.tell(telling);
    Ok((fleet, store.last_event()?))
}
