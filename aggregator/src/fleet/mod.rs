//! FLEET: the pure core of the aggregator. Takes events, decides, and says what must be durable and what must follow.
//! Holds memory only: no clock, no sockets, no files, no channels.

pub mod request;
pub mod view;

use std::sync::Arc;

use bytes::Bytes;
use picket_common::api;
use picket_common::id::AgentId;
use picket_common::wire::assign::Assign;
use picket_common::wire::down::{Command, Reply};
use picket_common::wire::report::{Gone, Hello, Up};

pub use request::{Answer, Rejection, Request, RequestId};
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
    /// A zone, cluster, rack, host, agent, token, operation or alert as it is now.
    Put(Box<view::Row>),
    /// It is gone.
    Remove(view::RowKey),
    /// A line of a host's history.
    History(picket_common::id::HostId, Box<api::HistoryEntry>),
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
