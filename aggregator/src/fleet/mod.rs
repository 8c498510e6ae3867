//! FLEET: the pure core of the aggregator. Takes events, decides, and says what must be durable and what must follow.
//! Holds memory only: no clock, no sockets, no files, no channels.
//!
//! ```text
//!            ┌ agents ── reports ┐                      ┌ records  → store, one transaction
//! Event ──▶  ┤ commands          ├──▶ view, draft ──▶  ┤
//!            └ settings ── join ─┘   (enablement,       └ effects  → answers, events, retained documents, words to agents,
//!                                     alerts ─ route,               deliveries
//!                                     assign)
//! ```

mod agents;
mod alerts;
mod assign;
#[cfg(test)]
mod asyncapi;
mod bmc;
pub mod classify;
mod commands;
mod defaults;
mod draft;
pub mod effective;
mod enablement;
pub mod etag;
mod events;
mod facts;
pub mod ha;
mod import;
mod join;
pub mod json;
mod password;
mod rebuild;
mod reports;
pub mod request;
mod reseal;
pub mod route;
mod settings;
pub mod site;
pub mod summary;
mod terms;
#[cfg(test)]
pub(crate) mod testing;
mod tokens;
pub mod view;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use picket_common::alert::AlertKind;
use picket_common::api;
use picket_common::clock::Now;
use picket_common::id::{AgentId, ClusterId, HostId, OperationId, ReceiverId};
use picket_common::wire::assign::Assign;
use picket_common::wire::down::{Command, Reply};
use picket_common::wire::report::{Gone, Hello, Up};

use agents::Link;
pub use commands::{MAX_HOSTS, MAX_SPREAD};
use draft::Draft;
pub use enablement::{gates, refusal, standing_refusal};
pub use json::state_document;
pub use request::{Answer, Rejection, Request, RequestId};
pub use reseal::secrets;
pub use route::{Delivery, GivenUp, Telling, Undelivered};
pub use terms::{AnswerKey, HttpAnswer, KeptAnswer, Note, Once, Terms};
pub use view::View;

/// What can happen to the fleet.
#[derive(Debug)]
pub enum Event {
    /// An agent spoke. The gate has proven who it is.
    Heard(AgentId, Heard),
    /// An agent's connection ended without its will being told.
    Disconnected(AgentId),
    /// The API asks for something that changes state.
    Asked {
        /// Joins the answer to the asker.
        id: RequestId,
        /// Who asks.
        principal: Arc<str>,
        /// For what.
        request: Box<Request>,
        /// On which terms.
        terms: Box<Terms>,
    },
    /// The aggregator's own file was read again.
    Configured(Box<view::Settings>, Telling),
    /// The shell tried to deliver news to a receiver.
    Attempted {
        /// To whom.
        receiver: ReceiverId,
        /// Which delivery.
        delivery: Arc<str>,
        /// Whether it arrived.
        result: Result<(), Undelivered>,
    },
    /// Something is to be written down that changes nothing of the fleet.
    Noted {
        /// Joins the answer to the asker.
        id: RequestId,
        /// What.
        note: Box<Note>,
    },
    /// Time passed: deadlines and staleness are looked at.
    Tick,
}

/// What an agent can say, decoded.
#[derive(Debug)]
pub enum Heard {
    /// Channel `hello`.
    Hello(Hello),
    /// Channel `up`.
    Up(Up),
    /// Channel `gone`: its will.
    Gone(Gone),
}

/// What follows from an event. `records` are durable before any of `effects` happens.
#[derive(Debug, Default)]
pub struct Decision {
    /// Changes to the store, one transaction.
    pub records: Vec<Record>,
    /// What to do afterwards, in order.
    pub effects: Vec<Effect>,
}

/// One change to the store: a row put or removed, or a line of history appended.
#[derive(Debug, Clone)]
pub enum Record {
    /// A zone, cluster, rack, host, agent, token, operation, alert, silence or outbox as it is now.
    Put(Box<view::Row>),
    /// It is gone.
    Remove(view::RowKey),
    /// A line of a host's history.
    History(picket_common::id::HostId, Box<api::HistoryEntry>),
    /// A line of the audit log; the store puts it into its chain.
    Audit(Box<api::AuditEntry>),
    /// An answer to be given again.
    Answer(Box<KeptAnswer>),
}

/// What happens after the store's commit.
#[derive(Debug)]
pub enum Effect {
    /// Answer a request.
    Answer(RequestId, Result<Answer, Rejection>),
    /// Say something to an agent, signed on its way out.
    Tell(AgentId, Told),
    /// Publish an event to consumers (MQTT and SSE).
    Event(Box<api::CloudEvent>, EventTopic),
    /// Publish a retained public document; an empty body clears it.
    Retain(picket_common::wire::topic::Public, Bytes),
    /// Deliver news of alerts to a receiver, and say what came of it.
    Notify(Box<Delivery>),
    /// News that could not be delivered are not tried again: for the log.
    GaveUp(Box<GivenUp>),
}

/// Where an event goes on MQTT, beside SSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTopic {
    /// A topic of the public tree.
    Topic(picket_common::wire::topic::Public),
    /// SSE only.
    None,
}

/// What is said to an agent.
#[derive(Debug)]
pub enum Told {
    /// Channel `ack`.
    Reply(Reply),
    /// Channel `cmd`.
    Command(Command),
    /// Channel `assign`, all parts in order.
    Assign(Vec<Assign>),
}

/// What was ignored, and how often: for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Words of agents that are not known (any more).
    pub unknown_agent: u64,
    /// Reports about hosts that are not known (any more).
    pub unknown_host: u64,
    /// Reports about hosts that another agent, or none, is in charge of.
    pub foreign_host: u64,
    /// Reports of an earlier enablement: kept in the history only.
    pub old_enablement: u64,
    /// Reports that mean nothing in the present state: kept in the history only.
    pub ignored: u64,
    /// Reports about operations that are not known (any more).
    pub unknown_operation: u64,
    /// Reports that were already durable.
    pub duplicate: u64,
    /// Reports that an agent lost before they could be sent.
    pub gap: u64,
    /// Times an agent was asked to send again.
    pub resend: u64,
    /// Words of a connection that is not the agent's present one.
    pub old_session: u64,
}

/// Something that is due at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Look whether the agent was heard.
    Presence(AgentId),
    /// The host's turn in a staggered operation.
    Begin(OperationId, HostId),
    /// The deadline of a host's part: if it was not sent it has expired.
    Expire(OperationId, HostId),
    /// The deadline and its grace are over: what was sent has no result.
    GiveUp(OperationId, HostId),
    /// Old operations and alerts go.
    Purge,
    /// An alert has been held for as long as it has to, or for too long.
    Alert(Arc<str>),
    /// A silence begins, ends or goes.
    Silence(Arc<str>),
    /// Agents hear what goes on around their hosts.
    Around,
}

/// The fleet: its view and all that is needed to go on from it.
#[derive(Debug)]
pub struct Fleet {
    view: View,
    store: uuid::Uuid,
    life: uuid::Uuid,
    next_sequence: u64,
    links: BTreeMap<AgentId, Link>,
    timers: BTreeSet<(Duration, Timer)>,
    open: BTreeMap<HostId, BTreeSet<OperationId>>,
    done: BTreeSet<(Timestamp, OperationId)>,
    done_parts: usize,
    resolved: BTreeSet<(Timestamp, Arc<str>)>,
    settings_version: u64,
    ha_version: u64,
    /// What was leased of each cluster's cap.
    ledgers: BTreeMap<ClusterId, ha::Ledger>,
    lookout: ha::Lookout,
    /// How long a cause must hold before its alert fires.
    hold_for: BTreeMap<AlertKind, Duration>,
    /// The timer of each alert that waits for one.
    alert_due: BTreeMap<Arc<str>, Duration>,
    power_memory: BTreeMap<HostId, alerts::Memory>,
    router: route::Router,
    started: bool,
    purge_armed: bool,
    counters: Counters,
    draft: Draft,
}

impl Fleet {
    /// Takes in one event. The view shows the outcome at once; the decision's records must be durable before its effects happen.
    /// If they cannot be made durable, build the fleet anew from the store.
    pub fn apply(&mut self, event: Event, now: Now) -> Decision {
        if !self.started {
            self.start(now);
        }
        match event {
            Event::Heard(agent, heard) => self.heard(&agent, heard, now),
            Event::Disconnected(agent) => self.disconnected(&agent),
            Event::Asked { id, principal, request, terms } => {
                let answer = self.asked_under(&principal, *request, *terms, now);
                self.draft.answer = Some(Effect::Answer(id, answer));
            }
            Event::Configured(settings, telling) => {
                self.configured(*settings, now);
                self.hold_for = telling.hold;
                self.router.configure(telling.receivers, &self.view.alerts, now);
            }
            Event::Attempted { receiver, delivery, result } => {
                self.router.attempted(&receiver, &delivery, result, &self.view.alerts, now);
            }
            Event::Noted { id, note } => {
                self.draft.records.push(note.record(now));
                self.draft.answer = Some(Effect::Answer(id, Ok(Answer::Done { created: true })));
            }
            Event::Tick => self.tick(now),
        }
        self.finish(now)
    }

    /// Says what is told to whom; before the first event.
    pub fn tell(&mut self, telling: Telling) {
        self.hold_for = telling.hold;
        self.router.set(telling.receivers);
    }

    /// A snapshot of all that is known; shares its memory with the fleet.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// When [`Event::Tick`] is needed next, on the monotonic clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        if !self.started {
            return Some(Duration::ZERO);
        }
        [self.timers.first().map(|(at, _)| *at), self.router.next_wake()].into_iter().flatten().min()
    }

    /// What was ignored so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Sequence that the next line of history will get.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    fn asked(&mut self, principal: &str, request: Request, now: Now) -> Result<Answer, Rejection> {
        match request {
            Request::PutZone(id, _) => Ok(self.put_zone(id)),
            Request::DeleteZone(id) => self.delete_zone(&id),
            Request::PutCluster(id, spec) => self.put_cluster(id, spec, now),
            Request::PatchCluster(id, change) => self.patch_cluster(&id, change, now),
            Request::DeleteCluster(id) => self.delete_cluster(&id),
            Request::PutRack(id, body) => self.put_rack(id, body),
            Request::DeleteRack(id) => self.delete_rack(&id, now),
            Request::PutHost(id, spec) => self.put_host(id, spec, now),
            Request::PatchHost(id, change) => self.patch_host(&id, change, now),
            Request::DeleteHost(id) => self.delete_host(&id, now),
            Request::ImportHosts(import) => self.import_hosts(import, now),
            Request::SetOobm(gate, open) => self.set_oobm(&gate, open, now),
            Request::SetHa(gate, open) => self.set_ha(&gate, open),
            Request::Pause(at, spec) => self.pause_ha(principal, &at, spec, now),
            Request::Resume(at) => self.resume_ha(&at),
            Request::Power { id, host, operation, timeout, reason, on_if_off } => {
                let stagger = Duration::ZERO;
                let order = commands::Order { id, operation, timeout, reason, on_if_off, stagger };
                self.order(principal, &host, order, now)
            }
            Request::Ha { id, host, action, timeout, reason } => {
                self.order_ha(principal, &host, ha::Word { id, action, timeout, reason }, now)
            }
            Request::Operate(bulk) => self.operate(principal, bulk, now),
            Request::ChangePassword { id, host, password, timeout, reason } => {
                let operation = picket_common::command::Action::ChangePassword;
                let order = commands::Order { id, operation, timeout, reason, on_if_off: false, stagger: Duration::ZERO };
                self.change_password(principal, &host, password, order, now)
            }
            Request::ResolvePassword { host, in_force } => self.resolve_password(&host, in_force, now),
            Request::Reseal(rack, key, items) => self.reseal(&rack, key, items, now),
            Request::PatchSettings(patch) => self.patch_settings(patch, now),
            Request::CancelOperation(id) => self.cancel(id, now),
            Request::AddJoinToken(row) => self.add_join_token(row, now),
            Request::AddWitnessToken(row) => self.add_witness_token(row, now),
            Request::JoinWitness { token_id, csr, certificate, .. } => self.join_witness(&token_id, csr, certificate, now),
            Request::Join { token_id, csr, certificate, public_key, sealing_key } => {
                self.join(join::Joining { token_id, csr, certificate, public_key, sealing_key }, now)
            }
            Request::AddApiToken(row) => self.add_api_token(row, now),
            Request::RemoveApiToken(id) => self.remove_api_token(&id, now),
            Request::AckAlert { id, comment } => self.ack_alert(principal, &id, comment, now),
            Request::AddSilence(spec) => self.add_silence(principal, spec, now),
            Request::EndSilence(id) => self.end_silence(&id, now),
        }
    }

    fn arm(&mut self, at: Duration, timer: Timer) {
        self.timers.insert((at, timer));
    }

    fn tick(&mut self, now: Now) {
        self.tick_timers(now);
        self.router.tick(&self.view.alerts, now);
    }

    fn tick_timers(&mut self, now: Now) {
        while let Some((at, timer)) = self.timers.pop_first() {
            if at > now.boottime {
                self.timers.insert((at, timer));
                return;
            }
            match timer {
                Timer::Presence(agent) => self.look_for(&agent, now),
                Timer::Begin(id, host) => self.begin(id, &host, now),
                Timer::Expire(id, host) => self.expire(id, &host, now),
                Timer::GiveUp(id, host) => self.give_up(id, &host, now),
                Timer::Purge => self.purge(now),
                Timer::Alert(id) => self.alert_is_due(&id, at, now),
                Timer::Silence(id) => self.silence_is_due(&id, now),
                Timer::Around => self.around_is_due(at, now),
            }
        }
    }
}
