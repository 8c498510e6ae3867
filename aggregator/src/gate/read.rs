//! What a client says after its CONNECT: each packet paid for, checked against its rights, and passed on. Writes nothing
//! itself: answers go to the writing side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tracing::warn;

use super::Limits;
use super::end::End;
use super::packet::{self, Asked, Connect, Packet, Publish, Reason, Retained, Subscribe, Version, answer};
use super::rate::Bucket;
use super::rights::{self, Readable};
use crate::broker::{AgentSeat, Broker, ConsumerSeat, Inbound, Qos, Subscribed};
use crate::clock;
use crate::pki::Role;

/// Longest keep-alive taken at its word; 0 (none) counts as this too, so that a dead peer is always noticed.
const MAX_KEEP_ALIVE_SECONDS: u16 = 300;
/// Seconds of the steady rate that may come at once: an agent's resend, a consumer's first subscriptions.
const BURST_SECONDS: u32 = 5;

/// Asked of the writing side.
#[derive(Debug)]
pub(super) enum Control {
    /// Send these bytes.
    Packet(BytesMut),
    /// The client has this message.
    Acked(u16),
    /// Send nothing live until the snapshot that follows, and say when that holds.
    Hold(oneshot::Sender<()>),
    /// Send these retained documents; live messages go on.
    Snapshot(Vec<(String, Bytes)>, Qos),
}

/// Who holds the connection, with the seat at the broker.
#[derive(Debug)]
pub(super) enum Holder {
    Agent(Arc<AgentSeat>),
    Consumer(ConsumerSeat),
}

impl Holder {
    fn role(&self) -> Role {
        match self {
            Self::Agent(seat) => Role::Agent(seat.agent().clone()),
            Self::Consumer(seat) => Role::Consumer(seat.consumer().clone()),
        }
    }
}

/// The keep-alive that holds for a client that asked for this one, in seconds.
pub(super) const fn keep_alive_seconds(asked: u16) -> u16 {
    if asked == 0 || asked > MAX_KEEP_ALIVE_SECONDS { MAX_KEEP_ALIVE_SECONDS } else { asked }
}

pub(super) struct Reader<S> {
    input: ReadHalf<S>,
    buffer: BytesMut,
    control: mpsc::Sender<Control>,
    max_packet: usize,
    /// Longest packet the client takes.
    max_answer: usize,
    version: Version,
    silence: Duration,
    bucket: Bucket,
    role: Role,
    denied_before: bool,
}

impl<S: AsyncRead> Reader<S> {
    pub(super) fn new(
        input: ReadHalf<S>,
        buffer: BytesMut,
        control: mpsc::Sender<Control>,
        limits: &Limits,
        holder: &Holder,
        connect: &Connect,
    ) -> Self {
        let rate = match holder {
            Holder::Agent(_) => limits.agent_rate,
            Holder::Consumer(_) => limits.consumer_rate,
        };
        Self {
            input,
            buffer,
            control,
            max_packet: limits.max_packet,
            max_answer: connect.takes.packet_len,
            version: connect.version,
            silence: Duration::from_secs(keep_alive_seconds(connect.keep_alive_seconds).into()) * 3 / 2,
            bucket: Bucket::new(rate, rate.saturating_mul(BURST_SECONDS)),
            role: holder.role(),
            denied_before: false,
        }
    }

    /// Reads to the end of the session.
    pub(super) async fn run(&mut self, broker: &Broker, holder: &Holder) -> End {
        loop {
            if let Err(end) = self.step(broker, holder).await {
                return end;
            }
        }
    }

    /// What is left when nothing it says counts any more.
    pub(super) fn into_input(self) -> ReadHalf<S> {
        self.input
    }

    async fn step(&mut self, broker: &Broker, holder: &Holder) -> Result<(), End> {
        let packet = self.next().await?;
        if let Packet::PubAck(id) = packet {
            // Not paid for: there are as many as we sent messages, and one that answers nothing does nothing.
            return self.ask(Control::Acked(id)).await;
        }
        sleep(self.bucket.take(clock::now().boottime)).await;
        match packet {
            Packet::Publish(publish) => self.publish(broker, publish).await,
            Packet::Subscribe(subscribe) => self.subscribe(broker, holder, subscribe).await,
            Packet::Unsubscribe { id, filters } => {
                let done: Vec<Reason> = filters.iter().map(|filter| unsubscribe(holder, &self.role, filter)).collect();
                self.answer(|out, version| answer::unsuback(out, version, id, &done)).await
            }
            Packet::PingReq => self.answer(|out, _| answer::pingresp(out)).await,
            Packet::Disconnect { leaves_will: false } => Err(End::Disconnect),
            Packet::Disconnect { leaves_will: true } => Err(End::LeftWill),
            Packet::Connect(_) => Err(End::Denied(Reason::Protocol, "a second CONNECT")),
            Packet::PubAck(_) => Ok(()),
        }
    }

    /// The next packet. The time a packet may take counts while we wait for the client, not while we are busy ourselves.
    async fn next(&mut self) -> Result<Packet, End> {
        let silence = sleep(self.silence);
        tokio::pin!(silence);
        loop {
            if let Some(packet) = packet::decode(&mut self.buffer, self.max_packet, Some(self.version))? {
                return Ok(packet);
            }
            tokio::select! {
                read = self.input.read_buf(&mut self.buffer) => if read? == 0 {
                    return Err(End::Closed);
                },
                () = &mut silence => return Err(End::Silent),
            }
        }
    }

    async fn publish(&mut self, broker: &Broker, publish: Publish) -> Result<(), End> {
        let channel = rights::publish(&self.role, &publish.topic, publish.retain);
        let (Some(channel), Role::Agent(agent)) = (channel, &self.role) else { return self.deny(&publish).await };
        let message = Inbound::Message { agent: agent.clone(), channel, payload: publish.payload };
        broker.hand_over(message).await.map_err(|_| End::Stopping)?;
        let Some(id) = publish.id else { return Ok(()) };
        self.answer(|out, version| answer::puback(out, version, id, Reason::Success)).await
    }

    /// Says no where MQTT can (5, at QoS 1); else the connection ends.
    async fn deny(&mut self, publish: &Publish) -> Result<(), End> {
        // Once: who goes on is in the log already.
        if !std::mem::replace(&mut self.denied_before, true) {
            let topic: String = publish.topic.chars().take(200).collect();
            warn!(peer = %self.role, topic, "publish denied");
        }
        if self.version == Version::Mqtt5 && publish.retain && !rights::may_retain(&self.role) {
            return Err(End::Denied(Reason::Retain, "retaining"));
        }
        match publish.id {
            Some(id) if self.version == Version::Mqtt5 => {
                self.answer(|out, version| answer::puback(out, version, id, Reason::NotAuthorized)).await
            }
            _ => Err(End::Denied(Reason::NotAuthorized, "publishing there")),
        }
    }

    async fn subscribe(&mut self, broker: &Broker, holder: &Holder, subscribe: Subscribe) -> Result<(), End> {
        let Subscribe { id, filters, identified } = subscribe;
        let granted: Vec<Result<Subscribed, Reason>> = filters
            .iter()
            .map(|asked| if identified { Err(Reason::SubscriptionId) } else { subscribe_to(holder, &self.role, asked) })
            .collect();
        warn_of_denied(&self.role, &filters, &granted);
        let levels: Vec<Result<Qos, Reason>> =
            granted.iter().zip(&filters).map(|(granted, asked)| granted.map(|_| asked.terms.qos)).collect();
        self.answer(|out, version| answer::suback(out, version, id, &levels)).await?;
        if matches!(holder, Holder::Agent(_)) {
            return Ok(());
        }
        // Read after the subscription stands, so that no change falls between the two.
        // A filter named twice stands at its last terms (§3.8.4), and is answered with one snapshot.
        let wanted: BTreeMap<String, Qos> = filters
            .into_iter()
            .zip(granted)
            .filter(|(asked, granted)| wants_retained(asked.retained, *granted))
            .map(|(asked, _)| (asked.filter, asked.terms.qos))
            .collect();
        for (filter, qos) in wanted {
            // And while nothing live is sent: what has been sent is then no newer than the snapshot, so the snapshot never
            // takes the client back.
            let (hold, held) = oneshot::channel();
            self.ask(Control::Hold(hold)).await?;
            held.await.map_err(|_| End::Closed)?;
            let documents = broker.retained(filter).await;
            self.ask(Control::Snapshot(documents, qos)).await?;
        }
        Ok(())
    }

    async fn answer(&self, write: impl FnOnce(&mut BytesMut, Version)) -> Result<(), End> {
        let mut out = BytesMut::new();
        write(&mut out, self.version);
        if out.len() > self.max_answer {
            return Err(End::Unanswerable);
        }
        self.ask(Control::Packet(out)).await
    }

    async fn ask(&self, control: Control) -> Result<(), End> {
        self.control.send(control).await.map_err(|_| End::Closed)
    }
}

fn subscribe_to(holder: &Holder, role: &Role, asked: &Asked) -> Result<Subscribed, Reason> {
    match (rights::subscribe(role, &asked.filter), holder) {
        (Some(Readable::Own(channel)), Holder::Agent(seat)) if seat.subscribe(channel) => Ok(Subscribed::New),
        (Some(Readable::Public), Holder::Consumer(seat)) => match seat.subscribe(&asked.filter, asked.terms) {
            Subscribed::Full => Err(Reason::Quota),
            subscribed => Ok(subscribed),
        },
        _ => Err(rights::why_not_subscribe(&asked.filter)),
    }
}

fn wants_retained(wanted: Retained, granted: Result<Subscribed, Reason>) -> bool {
    match (granted, wanted) {
        (Err(_), _) | (_, Retained::Never) => false,
        (Ok(_), Retained::Always) => true,
        (Ok(subscribed), Retained::IfNew) => subscribed == Subscribed::New,
    }
}

/// One line for a packet, however many filters it has.
fn warn_of_denied<T>(role: &Role, filters: &[Asked], granted: &[Result<T, Reason>]) {
    let denied = || filters.iter().zip(granted).filter(|(_, granted)| granted.is_err());
    if let Some((first, _)) = denied().next() {
        let first: String = first.filter.chars().take(200).collect();
        warn!(peer = %role, denied = denied().count(), first, "subscriptions denied");
    }
}

fn unsubscribe(holder: &Holder, role: &Role, filter: &str) -> Reason {
    let stood = match (rights::subscribe(role, filter), holder) {
        (Some(Readable::Own(channel)), Holder::Agent(seat)) => seat.unsubscribe(channel),
        (Some(Readable::Public), Holder::Consumer(seat)) => seat.unsubscribe(filter),
        _ => return rights::why_not_subscribe(filter),
    };
    if stood { Reason::Success } else { Reason::NoSubscription }
}
