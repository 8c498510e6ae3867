//! Loopback addresses and ports that no other test process uses.
//!
//! Linux answers on all of 127.0.0.0/8, so each test process takes addresses of its own and finds every port free there.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};

/// The next loopback address of this process: 127.x.y.z with x and y from the process id (15 bits of it, far from
/// 127.0.0.1 and 127.0.1.1), z counting from 1.
///
/// # Errors
/// When 254 addresses were given out.
pub fn address() -> Result<Ipv4Addr> {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let last = NEXT
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1))
        .ok()
        .context("this test process has used its 254 loopback addresses")?;
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ok(Ipv4Addr::new(127, 64 + (high & 0x7f), low, last))
}

/// A new address of this process with a TCP port that is free there.
///
/// # Errors
/// When there is no address left, or none can be bound.
pub fn tcp() -> Result<SocketAddr> {
    let listener = TcpListener::bind((address()?, 0)).context("no free TCP port")?;
    Ok(listener.local_addr()?)
}

/// A new address of this process with a UDP port that is free there.
///
/// # Errors
/// When there is no address left, or none can be bound.
pub fn udp() -> Result<SocketAddr> {
    let socket = UdpSocket::bind((address()?, 0)).context("no free UDP port")?;
    Ok(socket.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_loopback_and_differ() {
        let (one, two) = (tcp().unwrap(), udp().unwrap());
        assert!(one.ip().is_loopback() && two.ip().is_loopback());
        assert_ne!(one.ip(), two.ip());
        TcpListener::bind(one).unwrap();
        UdpSocket::bind(two).unwrap();
    }
}
