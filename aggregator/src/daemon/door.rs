//! The API's door: how many connections there may be, and how long one may take to say what it wants. What stands at it idle
//! must not use up the descriptors that the gate needs too.

use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::Server;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::gate::{Caps, Seat, Seats};

/// Connections in all.
const TOTAL: usize = 2048;
/// Connections from one address.
const PER_ADDRESS: usize = 256;
/// Time for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time for a request's header, from the connection's start or the request before.
const HEADER: Duration = Duration::from_secs(10);

/// The API's server on `listener`: HTTP/1.1 over TLS (the one protocol whose waits have limits).
pub(super) fn server(listener: std::net::TcpListener, tls: RustlsConfig) -> io::Result<Server<std::net::SocketAddr, Door>> {
    let door = RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE).acceptor(Counting::new(TOTAL, PER_ADDRESS));
    let mut server = axum_server::from_tcp(listener)?.acceptor(door).http1_only();
    server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADER);
    Ok(server)
}

/// What lets connections in.
pub(super) type Door = RustlsAcceptor<Counting>;

/// Lets in as many connections as there are seats.
#[derive(Debug, Clone)]
pub(super) struct Counting(Seats);

impl Counting {
    fn new(total: usize, per_address: usize) -> Self {
        // Nobody proves anything here before a request: all count alike.
        Self(Seats::new(Caps { total, per_address, unproved: total, unproved_per_address: per_address }))
    }

    fn seat(&self, stream: TcpStream) -> io::Result<Seated> {
        let from = stream.peer_addr()?;
        let seat = self.0.take(from.ip()).map_err(|full| {
            tracing::debug!(%from, %full, "API connection refused");
            io::Error::other(full)
        })?;
        stream.set_nodelay(true)?;
        Ok(Seated { stream, _seat: seat })
    }
}

impl<S> Accept<TcpStream, S> for Counting {
    type Stream = Seated;
    type Service = S;
    type Future = Ready<io::Result<(Seated, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        ready(self.seat(stream).map(|seated| (seated, service)))
    }
}

/// A connection with its seat, given up together.
#[derive(Debug)]
pub(super) struct Seated {
    stream: TcpStream,
    _seat: Seat,
}

impl AsyncRead for Seated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
