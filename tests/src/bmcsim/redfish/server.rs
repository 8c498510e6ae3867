//! Listeners and connections of the Redfish side: TCP, TLS, keep-alive, and the faults that live there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::super::bmc::Bmc;
use super::super::clock;
use super::super::faults::{Cut, Step, Unplug};
use super::http::{HttpReply, read};
use super::tls::{Authority, Identity};
use super::{Outcome, Spoil, handle};

/// A connection without a request for so long is closed.
const IDLE: Duration = Duration::from_secs(120);
/// How often a refused port is tried again when it cannot be bound at once.
const REBIND: Duration = Duration::from_millis(50);

/// The certificate of a BMC, made when first needed.
pub(crate) fn identity(bmc: &Bmc, authority: Option<&Authority>) -> Option<Arc<Identity>> {
    let mut state = bmc.lock();
    if state.web.identity.is_none() {
        match Identity::new(&bmc.name, bmc.redfish.map(|address| address.ip()), authority) {
            Ok(identity) => state.web.identity = Some(Arc::new(identity)),
            Err(error) => tracing::error!(%error, bmc = bmc.name, "no certificate"),
        }
    }
    state.web.identity.clone()
}

/// Serves one BMC until the runtime ends.
pub(crate) async fn listen(bmc: Arc<Bmc>, listener: std::net::TcpListener, authority: Option<Arc<Authority>>) {
    let Some(address) = bmc.redfish else { return };
    let mut listener = TcpListener::from_std(listener).ok();
    loop {
        let changed = bmc.changed.notified();
        let refuses = unplug(&bmc) == Some(Unplug::Refused);
        if refuses {
            listener = None;
            changed.await;
            continue;
        }
        let Some(open) = &listener else {
            listener = bind(address);
            if listener.is_none() {
                tokio::time::sleep(REBIND).await;
            }
            continue;
        };
        tokio::select! {
            () = changed => {}
            accepted = open.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(connection(Arc::clone(&bmc), stream, authority.clone()));
                }
            }
        }
    }
}

fn bind(address: SocketAddr) -> Option<TcpListener> {
    std_listener(address).and_then(TcpListener::from_std).ok()
}

/// A non-blocking listener with a backlog for many clients at once.
pub(crate) fn std_listener(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn unplug(bmc: &Bmc) -> Option<Unplug> {
    bmc.lock().faults.as_ref().and_then(|faults| faults.unplug)
}

/// What a fault does to a connection before any request.
enum Early {
    Go,
    Hang,
    Cut,
}

fn early(bmc: &Bmc, cut: Cut) -> Early {
    let mut state = bmc.lock();
    if state.is_silent(clock::now()) {
        return Early::Hang;
    }
    match state.faults.as_ref() {
        Some(faults) if faults.drop_at == Some(cut) => Early::Cut,
        Some(faults) if faults.unplug == Some(Unplug::Silent) => Early::Hang,
        Some(faults) if faults.hang_at == Some(Step::Tls) && cut == Cut::Accept => Early::Hang,
        _ => Early::Go,
    }
}

async fn connection(bmc: Arc<Bmc>, stream: TcpStream, authority: Option<Arc<Authority>>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    match early(&bmc, Cut::Accept) {
        Early::Go => {}
        Early::Hang => return hang(&bmc, stream).await,
        Early::Cut => return,
    }
    let Some(identity) = identity(&bmc, authority.as_deref()) else { return };
    let Ok(mut stream) = TlsAcceptor::from(Arc::clone(&identity.config)).accept(stream).await else { return };
    if matches!(early(&bmc, Cut::Tls), Early::Cut) {
        return;
    }
    let mut buffer = Vec::new();
    while let Ok(Some(request)) = tokio::time::timeout(IDLE, read(&mut stream, &mut buffer)).await {
        match handle(&bmc, clock::now(), &request) {
            Outcome::Hang => return hang(&bmc, stream).await,
            Outcome::Cut => return,
            Outcome::Reply { reply, after, spoil } => {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                let bodiless = request.method == "HEAD";
                if !write(&mut stream, &reply, request.close, spoil, bodiless).await || request.close {
                    break;
                }
            }
        }
    }
    if let Err(error) = stream.shutdown().await {
        tracing::trace!(%error, "connection not closed cleanly");
    }
}

/// Keeps a connection without a word until its faults change; then it is cut, as after a plug was pulled.
async fn hang<S>(bmc: &Bmc, stream: S) {
    loop {
        let changed = bmc.changed.notified();
        let still = bmc.lock().is_silent(clock::now()) || bmc.lock().faults.is_some();
        if !still {
            break;
        }
        if tokio::time::timeout(Duration::from_secs(1), changed).await.is_ok() {
            break;
        }
    }
    drop(stream);
}

/// Writes an answer; false when the connection is no longer of use.
async fn write<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    reply: &HttpReply,
    close: bool,
    spoil: Spoil,
    bodiless: bool,
) -> bool {
    match spoil {
        Spoil::No => {
            let mut whole = reply.head(u64::try_from(reply.body.len()).ok(), close).into_bytes();
            if !bodiless {
                whole.extend_from_slice(&reply.body);
            }
            stream.write_all(&whole).await.is_ok() && stream.flush().await.is_ok()
        }
        Spoil::Truncate => {
            let mut whole = reply.head(u64::try_from(reply.body.len().max(2)).ok(), close).into_bytes();
            whole.extend_from_slice(reply.body.get(..reply.body.len() / 2).unwrap_or(&[]));
            if stream.write_all(&whole).await.is_ok() && stream.flush().await.is_err() {
                tracing::trace!("connection was gone before it was cut");
            }
            false
        }
        Spoil::Huge(bytes) => {
            let head = reply.head(Some(bytes), close);
            stream.write_all(head.as_bytes()).await.is_ok() && pour(stream, Some(bytes), false).await
        }
        Spoil::Endless => {
            let head = reply.head(None, close);
            stream.write_all(head.as_bytes()).await.is_ok() && pour(stream, None, true).await
        }
    }
}

/// Pours blanks into a body, which JSON allows without end.
async fn pour<S: AsyncWrite + Unpin>(stream: &mut S, mut left: Option<u64>, chunked: bool) -> bool {
    const BLOCK: usize = 16 * 1024;
    let blanks = [b' '; BLOCK];
    loop {
        let take = left.map_or(BLOCK, |left| usize::try_from(left).unwrap_or(BLOCK).min(BLOCK));
        if take == 0 {
            return stream.flush().await.is_ok();
        }
        let block = blanks.get(..take).unwrap_or(&blanks);
        let written = if chunked {
            stream.write_all(format!("{take:x}\r\n").as_bytes()).await.is_ok()
                && stream.write_all(block).await.is_ok()
                && stream.write_all(b"\r\n").await.is_ok()
        } else {
            stream.write_all(block).await.is_ok()
        };
        if !written {
            return false;
        }
        left = left.map(|left| left - u64::try_from(take).unwrap_or(left).min(left));
    }
}
