//! One connection from its first byte to its last: handshake, identity, CONNECT, then reading and writing side by side.
//!
//! The two run in a task of their own beneath this one, so that whatever ends them, a panic too, the seat is given up and
//! the agent's last words are said.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use picket_common::id::{AgentId, ConsumerId, SiteId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::end::{End, Refused};
use super::packet::answer::{self, Welcome};
use super::packet::{self, Connect, Packet, PacketError, Reason, Version};
use super::read::{Holder, Reader, keep_alive_seconds};
use super::write::Writer;
use super::{Open, Shared, rights, seats};
use crate::broker::{Cut, Delivery};
use crate::pki::{Peer, Role, identity};

/// Requests from reading to writing; few, because one may be a snapshot of all hosts.
const CONTROLS: usize = 4;
/// Bytes of what a client was about to say that are read to nowhere, so that it hears why it is not listened to.
const DRAIN: usize = 1024 * 1024;

type Stream = TlsStream<TcpStream>;

/// Serves a connection to its end.
pub(super) async fn run(shared: Arc<Shared>, seat: seats::Seat, stream: TcpStream, from: SocketAddr) {
    match serve(&shared, seat, stream).await {
        Ok((role, End::Disconnect | End::LeftWill | End::Closed)) => debug!(%from, peer = %role, "session ended"),
        Ok((role, end @ (End::Denied(..) | End::Packet(_)))) => warn!(%from, peer = %role, %end, "session ended"),
        Ok((role, end)) => info!(%from, peer = %role, %end, "session ended"),
        Err(Refused::Ended | Refused::HandshakeTime) => debug!(%from, "connection came to nothing"),
        Err(refused) => {
            let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
            info!(%from, %refused, cause, "connection refused");
        }
    }
}

async fn serve(shared: &Arc<Shared>, mut seat: seats::Seat, stream: TcpStream) -> Result<(Role, End), Refused> {
    stream.set_nodelay(true)?;
    let handshake = TlsAcceptor::from(shared.tls.current()).accept(stream);
    let handshake = timeout(shared.config.limits.handshake, handshake);
    let mut stream = handshake.await.map_err(|_| Refused::HandshakeTime)?.map_err(Refused::Handshake)?;
    let (peer, _open, mut revoked) = match who(shared, &mut seat, &stream) {
        Ok(who) => who,
        Err(refused) => return turn_away(shared, &mut stream, BytesMut::new(), refused).await,
    };
    let role = peer.identity.role;

    let mut buffer = BytesMut::new();
    let (connect, greeting) = match first_words(shared, &role, &mut stream, &mut buffer, &mut revoked).await {
        Ok(connect) => connect,
        Err((answer, refused)) => return turn_away(shared, &mut stream, answer, refused).await,
    };
    let guest = Guest { shared: shared.clone(), stream, buffer, connect, greeting, revoked };
    let end = match &role {
        Role::Agent(agent) => guest.agent(agent).await?,
        Role::Consumer(consumer) => guest.consumer(consumer).await?,
        // Turned away before: it has no business here.
        Role::Witness(_) => return Err(Refused::Revoked),
    };
    Ok((role, end))
}

/// Who it is by its certificate, and its entry among the live sessions.
fn who(
    shared: &Arc<Shared>,
    seat: &mut seats::Seat,
    stream: &Stream,
) -> Result<(Peer, Open, watch::Receiver<Option<Cut>>), Refused> {
    let peer = peer(stream, &shared.config.site)?;
    seat.proved();
    let (open, revoked) = shared.open(&peer).ok_or(Refused::Revoked)?;
    Ok((peer, open, revoked))
}

fn peer(stream: &Stream, site: &SiteId) -> Result<Peer, Refused> {
    let (_, tls) = stream.get_ref();
    let certificate = tls.peer_certificates().and_then(<[_]>::first).ok_or(Refused::NoCertificate)?;
    let peer = identity(certificate)?;
    if peer.identity.site == *site { Ok(peer) } else { Err(Refused::Site(peer.identity.site)) }
}

/// Its CONNECT, and the CONNACK that lets it in; or the CONNACK that does not.
async fn first_words(
    shared: &Shared,
    role: &Role,
    stream: &mut Stream,
    buffer: &mut BytesMut,
    revoked: &mut watch::Receiver<Option<Cut>>,
) -> Result<(Connect, BytesMut), (BytesMut, Refused)> {
    let limits = &shared.config.limits;
    let connect = tokio::select! {
        connect = timeout(limits.connect, first_packet(stream, buffer, limits.max_packet)) => connect,
        _ = cut(revoked) => return Err((BytesMut::new(), Refused::Cut)),
    };
    let unheard = |_| Err((Version::Mqtt311, Refused::ConnectTime));
    let mut connect = connect.unwrap_or_else(unheard).map_err(|(version, refused)| (no(version, usize::MAX, &refused), refused))?;
    let assigned_client_id = assign_client_id(role, &mut connect);
    let greeting = admit(role, &connect).and_then(|()| greeting(role, &connect, assigned_client_id, limits.max_packet));
    match greeting {
        Ok(greeting) => Ok((connect, greeting)),
        Err(refused) => Err((no(connect.version, connect.takes.packet_len, &refused), refused)),
    }
}

/// The CONNACK that lets it in.
fn greeting(role: &Role, connect: &Connect, assigned_client_id: Option<String>, max_packet: usize) -> Result<BytesMut, Refused> {
    let holds = keep_alive_seconds(connect.keep_alive_seconds);
    let welcome = Welcome {
        assigned_client_id,
        keep_alive_seconds: (holds != connect.keep_alive_seconds).then_some(holds),
        expires_at_once: connect.session_expiry_seconds > 0,
        max_packet,
        retain: rights::may_retain(role),
    };
    let mut greeting = BytesMut::new();
    answer::welcome(&mut greeting, connect.version, &welcome);
    let fits = greeting.len() <= connect.takes.packet_len;
    fits.then_some(greeting).ok_or(Refused::Connect(Reason::TooLarge, "the answer is longer than it takes packets"))
}

/// The CONNECT; or why there is none, with the version in which that can be said.
async fn first_packet(stream: &mut Stream, buffer: &mut BytesMut, max: usize) -> Result<Connect, (Version, Refused)> {
    loop {
        let version = packet::understood(buffer);
        match packet::decode(buffer, max, None) {
            Ok(Some(Packet::Connect(connect))) => return Ok(connect),
            Ok(Some(_)) => return Err((version, PacketError::NotConnect.into())),
            Ok(None) => {}
            Err(error) => return Err((version, error.into())),
        }
        match stream.read_buf(buffer).await {
            Ok(0) => return Err((version, Refused::Ended)),
            Ok(_) => {}
            Err(error) => return Err((version, error.into())),
        }
    }
}

/// Who gives itself no name in MQTT 5 is given one (§3.1.3.1): an agent its own, a consumer one that nobody else has.
fn assign_client_id(role: &Role, connect: &mut Connect) -> Option<String> {
    if connect.version == Version::Mqtt311 || !connect.client_id.is_empty() {
        return None;
    }
    connect.client_id = match role {
        Role::Agent(agent) => agent.to_string(),
        Role::Consumer(_) | Role::Witness(_) => format!("auto-{}", Uuid::new_v4().simple()),
    };
    Some(connect.client_id.clone())
}

fn admit(role: &Role, connect: &Connect) -> Result<(), Refused> {
    if !rights::client_id(role, &connect.client_id) {
        return Err(Refused::Connect(Reason::ClientId, "its client id is not its own"));
    }
    let Some(will) = &connect.will else { return Ok(()) };
    if connect.version == Version::Mqtt5 && will.retain && !rights::may_retain(role) {
        return Err(Refused::Connect(Reason::Retain, "its will is not to be retained"));
    }
    if rights::will(role, will) { Ok(()) } else { Err(Refused::Connect(Reason::NotAuthorized, "its will is not allowed")) }
}

/// The CONNACK of a refusal.
fn no(version: Version, max: usize, refused: &Refused) -> BytesMut {
    let mut out = BytesMut::new();
    if let Some(reason) = refused.reason() {
        answer::refusal(&mut out, version, reason, &refused.to_string(), max);
    }
    out
}

/// Says a last word and closes; if that fails there is nobody to tell.
async fn turn_away<T>(shared: &Shared, stream: &mut Stream, answer: BytesMut, refused: Refused) -> Result<T, Refused> {
    let written = timeout(shared.config.limits.farewell, async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        if !answer.is_empty() && matches!(refused, Refused::Packet(_)) {
            drain(stream).await;
        }
        io::Result::Ok(())
    });
    if !matches!(written.await, Ok(Ok(()))) {
        debug!("refusal not delivered");
    }
    Err(refused)
}

/// Reads on to nowhere until the other side closes too. Who is interrupted in the middle of a packet is still writing: if we
/// closed at once, its next byte would be answered by a reset, and what we said would be lost.
async fn drain(input: &mut (impl AsyncRead + Unpin)) {
    let mut left = DRAIN;
    let mut nowhere = BytesMut::new();
    while left > 0 {
        nowhere.clear();
        match input.read_buf(&mut nowhere).await {
            Ok(0) | Err(_) => return,
            Ok(read) => left = left.saturating_sub(read),
        }
    }
}

/// Resolves when the connection is to end.
async fn cut(cut: &mut watch::Receiver<Option<Cut>>) -> Cut {
    match cut.wait_for(Option::is_some).await {
        Ok(why) => why.unwrap_or(Cut::Stopping),
        Err(_) => Cut::Stopping,
    }
}

/// A client whose CONNECT is fine.
struct Guest {
    shared: Arc<Shared>,
    stream: Stream,
    buffer: BytesMut,
    connect: Connect,
    /// The CONNACK.
    greeting: BytesMut,
    revoked: watch::Receiver<Option<Cut>>,
}

impl Guest {
    async fn agent(mut self, agent: &AgentId) -> Result<End, Refused> {
        let broker = self.shared.broker.clone();
        let (seat, mut link) = broker.seat_agent(agent);
        let seat = Arc::new(seat);
        let free = tokio::select! {
            () = seat.predecessor_gone() => true,
            // The connection before has been cut, but the core does not take its last words: the agent comes again.
            () = tokio::time::sleep(self.shared.config.limits.connect) => false,
            _ = cut(&mut link.cut) => false,
            _ = cut(&mut self.revoked) => false,
        };
        if !free {
            let refused = Refused::Connect(Reason::Unavailable, "the connection before it has not ended, or it was cut itself");
            let refused = self.turn_away(refused).await;
            broker.unseat_agent(&seat, link.cut, None).await;
            return refused;
        }
        info!(%agent, "agent connected");
        let will = self.connect.will.take().map(|will| will.payload);
        let end = self.session(Holder::Agent(seat.clone()), link.queue, link.cut.clone()).await;
        if !end.is_stop() {
            let will = if matches!(end, End::Disconnect) { None } else { will };
            broker.unseat_agent(&seat, link.cut, will).await;
        }
        Ok(end)
    }

    async fn consumer(mut self, consumer: &ConsumerId) -> Result<End, Refused> {
        let max = self.shared.config.limits.max_per_consumer;
        let Some((seat, link)) = self.shared.broker.seat_consumer(consumer, &self.connect.client_id, max) else {
            return self.turn_away(Refused::Connect(Reason::Quota, "the consumer has too many connections")).await;
        };
        debug!(%consumer, client_id = self.connect.client_id, "consumer connected");
        Ok(self.session(Holder::Consumer(seat), link.queue, link.cut).await)
    }

    async fn turn_away(&mut self, refused: Refused) -> Result<End, Refused> {
        let answer = no(self.connect.version, self.connect.takes.packet_len, &refused);
        turn_away(&self.shared, &mut self.stream, answer, refused).await
    }

    async fn session(self, holder: Holder, queue: mpsc::Receiver<Delivery>, mut leash: watch::Receiver<Option<Cut>>) -> End {
        let Self { shared, stream, buffer, connect, greeting, mut revoked } = self;
        let limits = shared.config.limits;
        let (control, controls) = mpsc::channel(CONTROLS);
        let (input, output) = tokio::io::split(stream);
        let mut reader = Reader::new(input, buffer, control, &limits, &holder, &connect);
        let mut writer = Writer::new(output, queue, controls, &limits, &connect, greeting);
        // A set of one: dropping it ends the task, whichever way this one ends.
        let mut task = JoinSet::new();
        let broker = shared.broker.clone();
        task.spawn(async move {
            let end = tokio::select! {
                end = reader.run(&broker, &holder) => end,
                end = writer.run() => end,
                why = cut(&mut leash) => End::Cut(why),
                why = cut(&mut revoked) => End::Cut(why),
            };
            part(reader, writer, &end, connect.version, limits.farewell).await;
            end
        });
        task.join_next().await.and_then(Result::ok).unwrap_or(End::Failed)
    }
}

/// Ends the connection in good order, if the other side lets us. Nothing it says any more counts.
async fn part(reader: Reader<Stream>, mut writer: Writer<Stream>, end: &End, version: Version, farewell: Duration) {
    if matches!(end, End::Io(_) | End::NotReading) {
        return;
    }
    let parted = timeout(farewell, async {
        writer.close(end).await?;
        if version == Version::Mqtt5 && end.is_interruption() {
            drain(&mut reader.into_input()).await;
        }
        io::Result::Ok(())
    });
    if !matches!(parted.await, Ok(Ok(()))) {
        debug!("the other side did not see its connection end");
    }
}
