//! The driver's UDP sockets: a few source ports per address family, with large receive buffers.
//!
//! One port serves everyone; the others are for sessions that are opened again, because some BMCs know a session by the
//! console's address and port. Errors of a socket are values: a route that disappears must not end anything.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Source ports per address family.
pub const PORTS: u8 = 4;
/// Receive buffer asked for; the kernel's `net.core.rmem_max` may give less.
const RECEIVE_BUFFER: usize = 4 << 20;

/// See the module.
pub struct Ports {
    v4: Vec<UdpSocket>,
    /// Empty on hosts without IPv6.
    v6: Vec<UdpSocket>,
    receive_buffer: usize,
}

impl Ports {
    /// Opens the sockets; IPv6 is left out where there is none.
    ///
    /// # Errors
    /// An IPv4 socket cannot be had.
    pub fn open() -> io::Result<Self> {
        let family = |ip: IpAddr| (0..PORTS).map(|_| open(ip)).collect::<io::Result<Vec<_>>>();
        let v4 = family(Ipv4Addr::UNSPECIFIED.into())?;
        let v6 = family(Ipv6Addr::UNSPECIFIED.into()).unwrap_or_else(|error| {
            tracing::info!(%error, "no IPv6: BMCs are reached over IPv4 only");
            Vec::new()
        });
        let receive_buffer = match v4.first() {
            Some(socket) => socket2::SockRef::from(socket).recv_buffer_size()?,
            None => 0,
        };
        Ok(Self { v4, v6, receive_buffer })
    }

    /// Bytes of receive buffer that the first socket really got.
    pub const fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// Every socket with its number: 0–3 IPv4, 4–7 IPv6.
    pub fn all(&self) -> impl Iterator<Item = (u8, &UdpSocket)> {
        (0..).zip(&self.v4).chain((PORTS..).zip(&self.v6))
    }

    /// Sends to `to` from the `port`-th source port of its family.
    ///
    /// # Errors
    /// The socket's own, or no IPv6 here.
    pub fn send(&self, port: u8, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let sockets = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = sockets.get(usize::from(port)).ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.send_to(datagram, to).map(|_| ())
    }

    /// Receives one datagram from socket number `number`.
    ///
    /// # Errors
    /// The socket's own; `WouldBlock` when there is no more.
    pub fn receive(&self, number: u8, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let socket = match number.checked_sub(PORTS) {
            None => self.v4.get(usize::from(number)),
            Some(index) => self.v6.get(usize::from(index)),
        };
        socket.ok_or(io::ErrorKind::AddrNotAvailable)?.recv_from(buffer)
    }
}

fn open(ip: IpAddr) -> io::Result<UdpSocket> {
    let address = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if ip.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Refused or cut down on some systems; the budget reads what was given.
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        tracing::debug!(%error, "receive buffer not raised");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
