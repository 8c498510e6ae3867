//! Health check `icmp`: an echo is answered. By the kernel's unprivileged ping sockets, which need no capability.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

use super::dial::{Dialler, failed};
use super::turn::Turn;
use crate::sign::Sign;

/// An echo that is not answered is sent again after this: one lost packet is no death.
const AGAIN: Duration = Duration::from_secs(1);

/// Pings until an answer comes or the time is over. Of a name, its first address.
pub(super) async fn ping(dialler: &Dialler, address: &str, turn: &Turn<'_>) -> Result<Sign, Sign> {
    let found = dialler.resolve(address, 0, turn).await?;
    let Some(ip) = found.first().map(SocketAddr::ip) else { return Err(Sign::CannotTell("it has no address".into())) };
    let socket = open(ip).map_err(|error| unopened(ip, &error))?;
    let nonce = nonce()?;
    let mut sequence = 0_u16;
    let mut unreachable = None;
    while !turn.left().is_zero() {
        sequence = sequence.wrapping_add(1);
        let pause = AGAIN.min(turn.left());
        match timeout(pause, exchange(&socket, ip, sequence, nonce)).await {
            Ok(Ok(())) => return Ok(Sign::Alive),
            Ok(Err(error)) => match failed(&error, &format!("no echo from {ip}")) {
                Sign::Dead(why) => {
                    unreachable = Some(why);
                    sleep(pause).await;
                }
                sign => return Err(sign),
            },
            Err(_) => {}
        }
    }
    Err(turn.silent(unreachable.unwrap_or_else(|| format!("no echo from {ip} within {}", turn.given()))))
}

fn nonce() -> Result<[u8; 8], Sign> {
    let random = getrandom::u64().map_err(|error| Sign::CannotTell(format!("no random bytes: {error}")))?;
    Ok(random.to_be_bytes())
}

/// A socket that hears the answers of `ip` to itself only: the kernel matches the identifier.
fn open(ip: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match ip {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::from(SocketAddr::new(ip, 0)))?;
    // A datagram socket is one to tokio, whatever its protocol.
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

fn unopened(ip: IpAddr, error: &io::Error) -> Sign {
    if [Some(Errno::ACCESS), Some(Errno::PERM)].contains(&Errno::from_io_error(error)) {
        return Sign::CannotTell(format!(
            "{ip} cannot be pinged: {error}; the group of the agent's user must lie in the range of net.ipv4.ping_group_range"
        ));
    }
    failed(error, &format!("{ip} cannot be pinged"))
}

async fn exchange(socket: &UdpSocket, ip: IpAddr, sequence: u16, nonce: [u8; 8]) -> io::Result<()> {
    socket.send(&request(ip, sequence, nonce)).await?;
    let mut answer = [0; 64];
    loop {
        let length = socket.recv(&mut answer).await?;
        if is_answer(ip, answer.get(..length).unwrap_or_default(), nonce) {
            return Ok(());
        }
    }
}

/// An echo request; checksum and identifier are the kernel's business.
fn request(ip: IpAddr, sequence: u16, nonce: [u8; 8]) -> Vec<u8> {
    let kind = if ip.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0, 0, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&nonce);
    packet
}

/// Whether it is an echo reply with our nonce, to this or an earlier request.
fn is_answer(ip: IpAddr, packet: &[u8], nonce: [u8; 8]) -> bool {
    let kind = if ip.is_ipv4() { 0 } else { 129 };
    packet.first() == Some(&kind) && packet.get(8..16) == Some(&nonce[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_echo_counts() {
        for (ip, asked, answered) in [("10.0.0.1", 8, 0), ("fd00::1", 128, 129)] {
            let ip: IpAddr = ip.parse().unwrap();
            let mut packet = request(ip, 7, [1; 8]);
            assert_eq!((packet[0], packet.len()), (asked, 16));
            assert!(!is_answer(ip, &packet, [1; 8]), "our own request, as loopback shows it");
            packet[0] = answered;
            assert!(is_answer(ip, &packet, [1; 8]));
            assert!(!is_answer(ip, &packet, [2; 8]) && !is_answer(ip, &packet[..12], [1; 8]) && !is_answer(ip, &[], [1; 8]));
        }
    }
}
