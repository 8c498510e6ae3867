//! Publishing: the outbox goes up over mutual-TLS MQTT until the aggregator says it has it for good; what comes down is
//! verified before anything else looks at it. Never waits for the core, and the core never waits for it.
//!
//! MQTT's own acknowledgement means nothing here: a broker may forget. The outbox is trimmed only on the aggregator's signed ack.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use picket_common::id::AgentId;
use picket_common::wire::codec::{self, MAX_PACKET_LEN, Message, VerifyingKey, WireError};
use picket_common::wire::down::{Command, Reply};
use picket_common::wire::report::{Gone, Heartbeat, Hello, Report, Reports, Up};
use picket_common::wire::topic::{Channel, internal, parse_internal};
use picket_common::wire::{Generation, Incarnation, Session, assign::Assign};
use rumqttc::{AsyncClient, Incoming, LastWill, MqttOptions, NetworkOptions, QoS, SubscribeFilter, SubscribeReasonCode, Transport};
use tokio::sync::mpsc;

use crate::clock;
use crate::journal::{JournalError, Outbox, Reader};
use crate::rack::admission::CentreClock;
use crate::rack::{Event, Pulse};

/// Most reports sent and not yet acknowledged.
const WINDOW: u64 = 1024;
/// Reports read from the journal at once.
const BATCH: usize = 128;
/// Silence after which what was sent and not acknowledged is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(10);
/// First and longest pause between connections, before jitter.
const PAUSE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(15));
/// MQTT keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the core tells the uplink.
#[derive(Debug)]
pub enum Say {
    /// The outbox changed.
    Queued(Outbox),
    /// A heartbeat is due.
    Pulse(Pulse),
}

/// What others may see of it.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Whether the aggregator is connected.
    pub connected: AtomicBool,
    /// Messages refused for their signature or form.
    pub refused: AtomicU64,
    /// Reports not yet acknowledged.
    pub outbox: AtomicU64,
}

/// What a connection needs.
pub struct Settings {
    /// Agent id, also the MQTT client id.
    pub agent: AgentId,
    /// Gate's host.
    pub host: String,
    /// Gate's port.
    pub port: u16,
    /// Mutual TLS.
    pub tls: Arc<rustls::ClientConfig>,
    /// Who may sign.
    pub verifying_keys: Vec<VerifyingKey>,
    /// The journal's incarnation.
    pub boot: Incarnation,
    /// Assignment in force at start.
    pub generation: Option<Generation>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("connection")]
    Connection(#[source] Box<rumqttc::ConnectionError>),
    #[error("the broker refused a subscription")]
    Subscription,
    #[error("the connection stands still")]
    Stalled,
    #[error("the client is gone")]
    Client(#[from] rumqttc::ClientError),
    #[error("own message does not encode")]
    Wire(#[from] WireError),
    #[error("the outbox cannot be read")]
    Journal(#[from] JournalError),
}

/// The uplink; [`Uplink::run`] never returns while the core lives.
pub struct Uplink {
    settings: Settings,
    outbox: Reader,
    events: Arc<dyn Fn(Event) + Send + Sync>,
    say: mpsc::UnboundedReceiver<Say>,
    gauge: Arc<Gauge>,
    generation: Option<Generation>,
}

impl Uplink {
    /// An uplink that tells the core through `events`. The core says at most one thing per decision, so `say` is bounded by it.
    pub fn new(
        settings: Settings,
        outbox: Reader,
        events: Arc<dyn Fn(Event) + Send + Sync>,
        say: mpsc::UnboundedReceiver<Say>,
        gauge: Arc<Gauge>,
    ) -> Self {
        let generation = settings.generation;
        Self { settings, outbox, events, say, gauge, generation }
    }

    /// Connects for ever, with growing pauses.
    pub async fn run(mut self) {
        let mut pause = PAUSE.0;
        loop {
            let begun = clock::boottime();
            let Err(error) = self.connection().await else { return };
            if self.gauge.connected.swap(false, Ordering::Relaxed) {
                tracing::warn!(error = %Chain(&error), "uplink lost");
            } else {
                tracing::info!(error = %Chain(&error), "uplink not reached");
            }
            let lived = clock::boottime().saturating_sub(begun) > Duration::from_secs(30);
            pause = if lived { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            if !self.wait(jittered(pause)).await {
                return;
            }
        }
    }

    /// Waits between connections; what is said meanwhile is in the journal or will be said again.
    async fn wait(&mut self, pause: Duration) -> bool {
        let until = tokio::time::sleep(pause);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return true,
                said = self.say.recv() => match said {
                    Some(Say::Queued(outbox)) => self.measure(outbox, None),
                    Some(Say::Pulse(pulse)) => self.generation = pulse.generation,
                    None => return false,
                },
            }
        }
    }

    fn measure(&self, outbox: Outbox, acked: Option<u64>) {
        let oldest = acked.map_or(outbox.oldest, |acked| outbox.oldest.max(acked + 1));
        self.gauge.outbox.store(outbox.next.saturating_sub(oldest.max(1)), Ordering::Relaxed);
    }

    /// One connection, from TLS to its end. `Ok` means that the core is gone.
    async fn connection(&mut self) -> Result<(), LinkError> {
        let session = Session(uuid::Uuid::new_v4());
        let (client, mut packets) = self.open(session)?;
        let mut link = Link::new(client, session, self.outbox.outbox(0, 0)?.1);
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                packet = packets.recv() => match packet {
                    Some(Ok(packet)) => self.incoming(&mut link, packet).await?,
                    Some(Err(error)) => return Err(LinkError::Connection(Box::new(error))),
                    None => return Err(LinkError::Subscription),
                },
                said = self.say.recv() => match said {
                    Some(said) => self.said(&mut link, said).await?,
                    None => {
                        link.client.disconnect().await?;
                        return Ok(());
                    }
                },
                _ = ticks.tick() => self.resend_if_silent(&mut link).await?,
            }
        }
    }

    /// Starts the client. Its event loop lives in a task of its own, so that nothing here can cut a packet in two.
    fn open(
        &self,
        session: Session,
    ) -> Result<(AsyncClient, mpsc::Receiver<Result<Incoming, rumqttc::ConnectionError>>), LinkError> {
        let settings = &self.settings;
        let mut options = MqttOptions::new(settings.agent.as_str(), &settings.host, settings.port);
        options.set_transport(Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(settings.tls.clone())));
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(MAX_PACKET_LEN, MAX_PACKET_LEN);
        // Far below the client's own limit: its collision handling is never reached.
        options.set_inflight(32);
        let gone = codec::encode(&Gone { session })?;
        options.set_last_will(LastWill::new(internal(&settings.agent, Channel::Gone), gone, QoS::AtLeastOnce, false));
        let (client, mut eventloop) = AsyncClient::new(options, 64);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(10);
        network.set_tcp_nodelay(true);
        eventloop.set_network_options(network);
        let (tx, rx) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let event = match eventloop.poll().await {
                    Ok(rumqttc::Event::Outgoing(_) | rumqttc::Event::Incoming(Incoming::PubAck(_) | Incoming::PingResp)) => {
                        continue;
                    }
                    Ok(rumqttc::Event::Incoming(packet)) => Ok(packet),
                    Err(error) => Err(error),
                };
                let last = event.is_err();
                if tx.send(event).await.is_err() || last {
                    return;
                }
            }
        });
        Ok((client, rx))
    }

    async fn incoming(&mut self, link: &mut Link, packet: Incoming) -> Result<(), LinkError> {
        match packet {
            Incoming::ConnAck(_) => {
                let filters =
                    Channel::DOWN.map(|channel| SubscribeFilter::new(internal(&self.settings.agent, channel), QoS::AtLeastOnce));
                link.client.subscribe_many(filters).await?;
            }
            Incoming::SubAck(ack) => {
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return Err(LinkError::Subscription);
                }
                self.hello(link).await?;
            }
            Incoming::Publish(publish) => self.received(link, &publish.topic, &publish.payload).await?,
            _ => {}
        }
        Ok(())
    }

    async fn hello(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let (_, outbox) = self.outbox.outbox(0, 0)?;
        let hello = Hello {
            session: link.session,
            boot: self.settings.boot,
            version: env!("CARGO_PKG_VERSION").into(),
            generation: self.generation,
            oldest: outbox.oldest,
            next: outbox.next,
            nonce: link.nonce(),
        };
        self.publish(link, Channel::Hello, codec::encode(&hello)?).await?;
        link.ready = true;
        self.gauge.connected.store(true, Ordering::Relaxed);
        tracing::info!(agent = %self.settings.agent, outbox = outbox.next.saturating_sub(outbox.oldest), "uplink up");
        self.pump(link).await
    }

    async fn received(&mut self, link: &mut Link, topic: &str, payload: &[u8]) -> Result<(), LinkError> {
        let Some((_, channel)) = parse_internal(topic).filter(|(agent, _)| *agent == self.settings.agent) else {
            self.refuse(topic, "not a topic of this agent");
            return Ok(());
        };
        match channel {
            Channel::Ack => match self.verified::<Reply>(topic, payload) {
                Some(reply) => self.reply(link, reply).await?,
                None => return Ok(()),
            },
            Channel::Cmd => {
                if let Some(command) = self.verified::<Command>(topic, payload) {
                    (self.events)(Event::Commanded(command));
                }
            }
            Channel::Assign => {
                if let Some(assign) = self.verified::<Assign>(topic, payload) {
                    (self.events)(Event::Assigned(assign));
                }
            }
            Channel::Up | Channel::Hello | Channel::Gone => self.refuse(topic, "not a channel to the agent"),
        }
        Ok(())
    }

    fn verified<M: Message>(&self, topic: &str, payload: &[u8]) -> Option<M> {
        match codec::verify(&self.settings.verifying_keys, &self.settings.agent, payload) {
            Ok(message) => Some(message),
            Err(error) => {
                self.refuse(topic, &error.to_string());
                None
            }
        }
    }

    fn refuse(&self, topic: &str, why: &str) {
        self.gauge.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(topic, why, "message refused");
    }

    async fn reply(&mut self, link: &mut Link, reply: Reply) -> Result<(), LinkError> {
        match reply {
            Reply::Ack { boot, up_to } if boot == self.settings.boot && up_to < link.next => {
                if up_to > link.acked {
                    link.acked = up_to;
                    // Progress: a later request for what is gone is another gap.
                    link.missed = false;
                }
                link.cursor = link.cursor.max(link.acked + 1);
                link.heard = clock::boottime();
                (self.events)(Event::Acked { boot, up_to });
                self.pump(link).await?;
            }
            Reply::Resend { boot, from } if boot == self.settings.boot => {
                let (_, outbox) = self.outbox.outbox(from, 1)?;
                link.heard = clock::boottime();
                if from < outbox.oldest && !link.missed {
                    link.missed = true;
                    (self.events)(Event::Missed);
                }
                link.cursor = from.clamp(outbox.oldest, outbox.next);
                link.acked = link.cursor.saturating_sub(1);
                self.pump(link).await?;
            }
            Reply::Clock { nonce, at } => {
                if let Some(sent) = link.take_nonce(nonce) {
                    (self.events)(Event::Measured(CentreClock { sent, at }));
                }
            }
            Reply::Ack { .. } | Reply::Resend { .. } => {}
        }
        Ok(())
    }

    async fn said(&mut self, link: &mut Link, said: Say) -> Result<(), LinkError> {
        match said {
            Say::Queued(outbox) => {
                link.next = link.next.max(outbox.next);
                self.measure(outbox, Some(link.acked));
                self.pump(link).await
            }
            Say::Pulse(pulse) => {
                self.generation = pulse.generation;
                if !link.ready {
                    return Ok(());
                }
                let heartbeat = Heartbeat {
                    session: link.session,
                    boot: self.settings.boot,
                    generation: pulse.generation,
                    next: link.next,
                    outbox: self.gauge.outbox.load(Ordering::Relaxed),
                    overdue: pulse.overdue,
                    nonce: link.nonce(),
                };
                self.publish(link, Channel::Up, codec::encode(&Up::Heartbeat(heartbeat))?).await
            }
        }
    }

    /// Sends what the window allows.
    async fn pump(&mut self, link: &mut Link) -> Result<(), LinkError> {
        while link.ready && link.cursor < link.next && link.cursor.saturating_sub(link.acked) <= WINDOW {
            let (reports, outbox) = self.outbox.outbox(link.cursor, BATCH)?;
            link.next = link.next.max(outbox.next);
            let Some((first, _)) = reports.first() else { return Ok(()) };
            let first = *first;
            let reports: Vec<Report> = reports.into_iter().map(|(_, report)| report).collect();
            let (frame, taken) = self.frame(outbox.oldest.min(first), first, reports)?;
            self.publish(link, Channel::Up, frame).await?;
            if link.cursor == link.acked + 1 {
                link.heard = clock::boottime();
            }
            link.cursor = first + taken;
        }
        Ok(())
    }

    /// A frame of as many of the reports as fit.
    fn frame(&self, oldest: u64, first: u64, mut reports: Vec<Report>) -> Result<(Vec<u8>, u64), WireError> {
        loop {
            let taken = u64::try_from(reports.len()).unwrap_or(0);
            let up = Up::Reports(Reports { boot: self.settings.boot, oldest, first, reports: reports.clone() });
            match codec::encode(&up) {
                Err(WireError::TooLong { .. }) if reports.len() > 1 => reports.truncate(reports.len() / 2),
                frame => return Ok((frame?, taken)),
            }
        }
    }

    async fn resend_if_silent(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let unacked = link.cursor > link.acked + 1;
        if unacked && clock::boottime().saturating_sub(link.heard) > RESEND_AFTER {
            link.cursor = link.acked + 1;
            link.heard = clock::boottime();
            self.pump(link).await?;
        }
        Ok(())
    }

    async fn publish(&self, link: &Link, channel: Channel, frame: Vec<u8>) -> Result<(), LinkError> {
        let publish = link.client.publish(internal(&self.settings.agent, channel), QoS::AtLeastOnce, false, frame);
        // The event loop may be waiting for us while we wait for it; a connection that stands still is given up.
        tokio::time::timeout(KEEP_ALIVE, publish).await.map_err(|_| LinkError::Stalled)??;
        Ok(())
    }
}

/// One connection's state.
struct Link {
    client: AsyncClient,
    session: Session,
    ready: bool,
    /// Next sequence to send.
    cursor: u64,
    /// Last sequence the aggregator has for good.
    acked: u64,
    /// Sequence the next report will get.
    next: u64,
    /// Last progress.
    heard: Duration,
    /// The core was told that reports are lost for good.
    missed: bool,
    nonces: Vec<(u64, Duration)>,
}

impl Link {
    fn new(client: AsyncClient, session: Session, outbox: Outbox) -> Self {
        Self {
            client,
            session,
            ready: false,
            cursor: outbox.oldest,
            acked: outbox.oldest.saturating_sub(1),
            next: outbox.next,
            heard: clock::boottime(),
            missed: false,
            nonces: Vec::new(),
        }
    }

    /// A nonce, remembered with the time it is sent; the last four count.
    fn nonce(&mut self) -> u64 {
        let nonce = getrandom::u64().unwrap_or_else(|_| u64::try_from(clock::boottime().as_nanos()).unwrap_or(0));
        if self.nonces.len() >= 4 {
            self.nonces.remove(0);
        }
        self.nonces.push((nonce, clock::boottime()));
        nonce
    }

    fn take_nonce(&mut self, nonce: u64) -> Option<Duration> {
        let place = self.nonces.iter().position(|(known, _)| *known == nonce)?;
        Some(self.nonces.remove(place).1)
    }
}

/// Between half and all of `pause`.
fn jittered(pause: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX);
    pause.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

/// An error with its causes, on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
