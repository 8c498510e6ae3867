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
use super::packet::{self, DENIED, Packet, Publish};
use super::rate::Bucket;
use super::rights::{self, Readable};
use super::session::End;
use crate::broker::{AgentSeat, Broker, ConsumerSeat, Inbound, Qos};
use crate::clock;
use crate::pki::Role;
use picket_common::wire::topic;

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

pub(super) struct Reader<S> {
    input: ReadHalf<S>,
    buffer: BytesMut,
    control: mpsc::Sender<Control>,
    max_packet: usize,
    silence: Duration,
    bucket: Bucket,
    role: Role,
}

impl<S: AsyncRead> Reader<S> {
    pub(super) fn new(
        input: ReadHalf<S>,
        buffer: BytesMut,
        control: mpsc::Sender<Control>,
        limits: &Limits,
        holder: &Holder,
        keep_alive_seconds: u16,
    ) -> Self {
        let keep_alive = match keep_alive_seconds {
            0 => MAX_KEEP_ALIVE_SECONDS,
            seconds => seconds.min(MAX_KEEP_ALIVE_SECONDS),
        };
        let rate = match holder {
            Holder::Agent(_) => limits.agent_rate,
            Holder::Consumer(_) => limits.consumer_rate,
        };
        Self {
            input,
            buffer,
            control,
            max_packet: limits.max_packet,
            silence: Duration::from_secs(keep_alive.into()) * 3 / 2,
            bucket: Bucket::new(rate, rate.saturating_mul(BURST_SECONDS)),
            role: holder.role(),
        }
    }

    /// Reads to the end of the session.
    pub(super) async fn run(mut self, broker: &Broker, holder: &Holder) -> End {
        loop {
            if let Err(end) = self.step(broker, holder).await {
                return end;
            }
        }
    }

    async fn step(&mut self, broker: &Broker, holder: &Holder) -> Result<(), End> {
        let packet = self.next().await?;
        if let Packet::PubAck(id) = packet {
            // Not paid for: there are as many as we sent messages, and one that answers nothing does nothing.
            return self.ask(Control::Acked(id)).await;
        }
        sleep(self.bucket.take(clock::now().boottime)).await;
        let mut out = BytesMut::new();
        match packet {
            Packet::Publish(publish) => return self.publish(broker, publish).await,
            Packet::Subscribe { id, filters } => return self.subscribe(broker, holder, id, filters).await,
            Packet::Unsubscribe { id, filters } => {
                filters.iter().for_each(|filter| unsubscribe(holder, filter));
                packet::unsuback(&mut out, id);
            }
            Packet::PingReq => packet::pingresp(&mut out),
            Packet::Disconnect => return Err(End::Disconnect),
            Packet::Connect(_) => return Err(End::Denied("a second CONNECT")),
            Packet::PubAck(_) => {}
        }
        self.ask(Control::Packet(out)).await
    }

    /// The next packet. The time a packet may take counts while we wait for the client, not while we are busy ourselves.
    async fn next(&mut self) -> Result<Packet, End> {
        let silence = sleep(self.silence);
        tokio::pin!(silence);
        loop {
            if let Some(packet) = packet::decode(&mut self.buffer, self.max_packet)? {
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
        let (Some(channel), Role::Agent(agent)) = (channel, &self.role) else {
            warn!(peer = %self.role, topic = publish.topic, "publish denied");
            return Err(End::Denied("publishing there"));
        };
        let message = Inbound::Message { agent: agent.clone(), channel, payload: publish.payload };
        broker.hand_over(message).await.map_err(|_| End::Stopping)?;
        let Some(id) = publish.id else { return Ok(()) };
        let mut out = BytesMut::new();
        packet::puback(&mut out, id);
        self.ask(Control::Packet(out)).await
    }

    async fn subscribe(&mut self, broker: &Broker, holder: &Holder, id: u16, filters: Vec<(String, Qos)>) -> Result<(), End> {
        let granted: Vec<bool> = filters.iter().map(|(filter, qos)| subscribe(holder, &self.role, filter, *qos)).collect();
        warn_of_denied(&self.role, &filters, &granted);
        let code = |(granted, (_, qos)): (&bool, &(String, Qos))| match (granted, qos) {
            (false, _) => DENIED,
            (true, Qos::AtMostOnce) => 0,
            (true, Qos::AtLeastOnce) => 1,
        };
        let codes: Vec<u8> = granted.iter().zip(&filters).map(code).collect();
        let mut out = BytesMut::new();
        packet::suback(&mut out, id, &codes);
        self.ask(Control::Packet(out)).await?;
        if matches!(holder, Holder::Agent(_)) {
            return Ok(());
        }
        // Read after the subscription stands, so that no change falls between the two.
        // A filter named twice stands at its last level (§3.8.4), and is answered with one snapshot.
        let wanted: BTreeMap<String, Qos> = filters.into_iter().zip(granted).filter(|(_, yes)| *yes).map(|(f, _)| f).collect();
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

    async fn ask(&self, control: Control) -> Result<(), End> {
        self.control.send(control).await.map_err(|_| End::Closed)
    }
}

fn subscribe(holder: &Holder, role: &Role, filter: &str, qos: Qos) -> bool {
    match (rights::subscribe(role, filter), holder) {
        (Some(Readable::Own(channel)), Holder::Agent(seat)) => seat.subscribe(channel),
        (Some(Readable::Public), Holder::Consumer(seat)) => seat.subscribe(filter, qos),
        _ => false,
    }
}

/// One line for a packet, however many filters it has.
fn warn_of_denied(role: &Role, filters: &[(String, Qos)], granted: &[bool]) {
    let denied = || filters.iter().zip(granted).filter(|(_, granted)| !**granted);
    if let Some(((first, _), _)) = denied().next() {
        let first: String = first.chars().take(200).collect();
        warn!(peer = %role, denied = denied().count(), first, "subscriptions denied");
    }
}

fn unsubscribe(holder: &Holder, filter: &str) {
    match holder {
        Holder::Agent(seat) => {
            if let Some((agent, channel)) = topic::parse_internal(filter)
                && agent == *seat.agent()
            {
                seat.unsubscribe(channel);
            }
        }
        Holder::Consumer(seat) => seat.unsubscribe(filter),
    }
}
