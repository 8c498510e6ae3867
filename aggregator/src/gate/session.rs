//! One connection from its first byte to its last: handshake, identity, CONNECT, then reading and writing side by side.
//!
//! The two run in a task of their own beneath this one, so that whatever ends them, a panic too, the seat is given up and
//! the agent's last words are said.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use picket_common::id::{AgentId, ConsumerId, SiteId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use super::packet::{self, ConnAck, Connect, Packet, PacketError};
use super::read::{Holder, Reader};
use super::write::Writer;
use super::{Shared, rights, seats};
use crate::broker::{Cut, Delivery};
use crate::pki::{IdentityError, Peer, Role, identity};

/// Requests from reading to writing; few, because one may be a snapshot of all hosts.
const CONTROLS: usize = 4;

type Stream = TlsStream<TcpStream>;

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no TLS handshake in time")]
    HandshakeTime,
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error("no client certificate")]
    NoCertificate,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the certificate is of site {0}")]
    Site(SiteId),
    #[error("the certificate's key is revoked, or not the agent's")]
    Revoked,
    #[error("no CONNECT in time")]
    ConnectTime,
    #[error("the connection ended before its CONNECT")]
    Ended,
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("the first packet is not a CONNECT")]
    NotConnect,
    #[error("CONNECT refused: {0}")]
    Connect(&'static str),
    #[error("cut before it began")]
    Cut,
    #[error("reading")]
    Io(#[from] io::Error),
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("it said good-bye")]
    Disconnect,
    #[error("the other side closed the connection")]
    Closed,
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("not allowed: {0}")]
    Denied(&'static str),
    #[error("nothing was heard for 1.5 times its keep-alive")]
    Silent,
    #[error("it does not read what is sent")]
    NotReading,
    #[error("it does not acknowledge what is sent")]
    NotAcknowledging,
    #[error("the daemon stops")]
    Stopping,
    #[error("cut: {0:?}")]
    Cut(Cut),
    #[error("its task failed")]
    Failed,
}

/// Serves a connection to its end.
pub(super) async fn run(shared: Arc<Shared>, seat: seats::Seat, stream: TcpStream, from: SocketAddr) {
    match serve(&shared, seat, stream).await {
        Ok((role, End::Disconnect | End::Closed)) => debug!(%from, peer = %role, "session ended"),
        Ok((role, end @ (End::Denied(_) | End::Packet(_)))) => warn!(%from, peer = %role, %end, "session ended"),
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
    let limits = &shared.config.limits;
    let handshake = TlsAcceptor::from(shared.tls.current()).accept(stream);
    let mut stream = timeout(limits.handshake, handshake).await.map_err(|_| Refused::HandshakeTime)?.map_err(Refused::Handshake)?;
    let peer = peer(&stream, &shared.config.site)?;
    seat.proved();
    let (_open, mut revoked) = shared.open(&peer).ok_or(Refused::Revoked)?;

    let mut buffer = BytesMut::new();
    let connect = tokio::select! {
        connect = timeout(limits.connect, first_packet(&mut stream, &mut buffer, limits.max_packet)) => connect,
        _ = cut(&mut revoked) => return Err(Refused::Cut),
    };
    let role = peer.identity.role;
    let connect = match connect.map_err(|_| Refused::ConnectTime)? {
        Ok(connect) => connect,
        Err(refused) => {
            if let Refused::Packet(PacketError::Level(level)) = refused {
                refuse_level(shared, &mut stream, level).await;
            }
            return Err(refused);
        }
    };
    if !rights::client_id(&role, &connect.client_id) {
        answer(shared, &mut stream, ConnAck::ClientId).await;
        return Err(Refused::Connect("its client id is not its own"));
    }
    if connect.will.as_ref().is_some_and(|will| !rights::will(&role, will)) {
        answer(shared, &mut stream, ConnAck::NotAuthorized).await;
        return Err(Refused::Connect("its will is not allowed"));
    }
    let guest = Guest { shared: shared.clone(), stream, buffer, connect, revoked };
    let end = match &role {
        Role::Agent(agent) => guest.agent(agent).await?,
        Role::Consumer(consumer) => guest.consumer(consumer).await?,
    };
    Ok((role, end))
}

fn peer(stream: &Stream, site: &SiteId) -> Result<Peer, Refused> {
    let (_, tls) = stream.get_ref();
    let certificate = tls.peer_certificates().and_then(<[_]>::first).ok_or(Refused::NoCertificate)?;
    let peer = identity(certificate)?;
    if peer.identity.site == *site { Ok(peer) } else { Err(Refused::Site(peer.identity.site)) }
}

async fn first_packet(stream: &mut Stream, buffer: &mut BytesMut, max: usize) -> Result<Connect, Refused> {
    loop {
        match packet::decode(buffer, max)? {
            Some(Packet::Connect(connect)) => return Ok(connect),
            Some(_) => return Err(Refused::NotConnect),
            None if stream.read_buf(buffer).await? == 0 => return Err(Refused::Ended),
            None => {}
        }
    }
}

async fn refuse_level(shared: &Shared, stream: &mut Stream, level: u8) {
    let mut out = BytesMut::new();
    if level == 5 {
        packet::connack_v5_refusal(&mut out);
    } else {
        packet::connack(&mut out, ConnAck::Level);
    }
    last_bytes(shared, stream, &out).await;
}

async fn answer(shared: &Shared, stream: &mut Stream, code: ConnAck) {
    let mut out = BytesMut::new();
    packet::connack(&mut out, code);
    last_bytes(shared, stream, &out).await;
}

/// Writes to a connection that ends anyway; if that fails there is nobody to tell.
async fn last_bytes(shared: &Shared, stream: &mut Stream, bytes: &[u8]) {
    let written = timeout(shared.config.limits.write, async {
        stream.write_all(bytes).await?;
        stream.shutdown().await
    });
    if !matches!(written.await, Ok(Ok(()))) {
        debug!("refusal not delivered");
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
            answer(&self.shared, &mut self.stream, ConnAck::Unavailable).await;
            broker.unseat_agent(&seat, link.cut, None).await;
            return Err(Refused::Connect("the connection before it has not ended, or it was cut itself"));
        }
        info!(%agent, "agent connected");
        let will = self.connect.will.take().map(|will| will.payload);
        let mut leash = link.cut;
        let end = self.session(Holder::Agent(seat.clone()), link.queue, &mut leash).await;
        let will = if matches!(end, End::Disconnect) { None } else { will };
        broker.unseat_agent(&seat, leash, will).await;
        Ok(end)
    }

    async fn consumer(mut self, consumer: &ConsumerId) -> Result<End, Refused> {
        let max = self.shared.config.limits.max_per_consumer;
        let Some((seat, mut link)) = self.shared.broker.seat_consumer(consumer, &self.connect.client_id, max) else {
            answer(&self.shared, &mut self.stream, ConnAck::Unavailable).await;
            return Err(Refused::Connect("the consumer has too many connections"));
        };
        debug!(%consumer, client_id = self.connect.client_id, "consumer connected");
        Ok(self.session(Holder::Consumer(seat), link.queue, &mut link.cut).await)
    }

    async fn session(self, holder: Holder, queue: mpsc::Receiver<Delivery>, leash: &mut watch::Receiver<Option<Cut>>) -> End {
        let Self { shared, stream, buffer, connect, mut revoked } = self;
        let limits = shared.config.limits;
        let (control, controls) = mpsc::channel(CONTROLS);
        let (input, output) = tokio::io::split(stream);
        let reader = Reader::new(input, buffer, control, &limits, &holder, connect.keep_alive_seconds);
        let writer = Writer::new(output, queue, controls, &limits);
        // A set of one: dropping it ends the task, whichever way this one ends.
        let mut task = JoinSet::new();
        let broker = shared.broker.clone();
        task.spawn(async move {
            tokio::select! {
                end = reader.run(&broker, &holder) => end,
                end = writer.run() => end,
            }
        });
        let end = tokio::select! {
            end = task.join_next() => return end.and_then(Result::ok).unwrap_or(End::Failed),
            why = cut(leash) => End::Cut(why),
            why = cut(&mut revoked) => End::Cut(why),
        };
        task.shutdown().await;
        end
    }
}
