//! Names, addresses and connections. Tells what failed here from what failed there.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::turn::Turn;
use crate::sign::Sign;

/// Most names being looked up at once: a lookup that hangs keeps its thread.
const MAX_LOOKUPS: usize = 32;
/// Most addresses of one name that are tried, all at once.
const MAX_ADDRESSES: usize = 4;

/// Finds and opens the way to a host.
pub(super) struct Dialler {
    lookups: Arc<Semaphore>,
}

impl Dialler {
    pub(super) fn new() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }

    /// The addresses of `host` that may be called.
    pub(super) async fn resolve(&self, host: &str, port: u16, turn: &Turn<'_>) -> Result<Vec<SocketAddr>, Sign> {
        let host = host.trim_matches(['[', ']']);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return if is_callable(ip) { Ok(vec![SocketAddr::new(ip, port)]) } else { Err(not_callable(host)) };
        }
        let unresolved = |why: &dyn std::fmt::Display| Sign::CannotTell(format!("the name {host} cannot be resolved: {why}"));
        let found = turn.within(self.look_up(host.to_owned(), port)).await;
        let found = found.ok_or_else(|| unresolved(&"no answer in time"))?.map_err(|error| unresolved(&error))?;
        if found.is_empty() {
            return Err(unresolved(&"it has no address"));
        }
        let callable: Vec<SocketAddr> = found.into_iter().filter(|at| is_callable(at.ip())).take(MAX_ADDRESSES).collect();
        if callable.is_empty() { Err(not_callable(host)) } else { Ok(callable) }
    }

    /// The place goes with the thread, which nothing can end.
    async fn look_up(&self, host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
        let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let lookup = tokio::task::spawn_blocking(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            drop(place);
            found
        });
        lookup.await.map_err(io::Error::other)?
    }

    /// A TCP connection to `host`: of a name's addresses to the first that accepts one.
    pub(super) async fn connect(&self, host: &str, port: u16, turn: &Turn<'_>) -> Result<TcpStream, Sign> {
        let addresses = self.resolve(host, port, turn).await?;
        let connected = turn.within(connect_any(&addresses)).await;
        connected.unwrap_or_else(|| Err(turn.silent(format!("{} accepts no connection within {}", at(&addresses), turn.given()))))
    }
}

async fn connect_any(addresses: &[SocketAddr]) -> Result<TcpStream, Sign> {
    let dial = |at: &SocketAddr| {
        let at = *at;
        async move { TcpStream::connect(at).await.map_err(|error| failed(&error, &format!("{at} cannot be connected to"))) }
    };
    let mut tries: FuturesUnordered<_> = addresses.iter().map(dial).collect();
    let mut verdict = Sign::CannotTell("it has no address".into());
    while let Some(tried) = tries.next().await {
        match tried {
            Ok(stream) => return Ok(stream),
            // One address that refuses says more than another that cannot be called from here.
            Err(sign) if !matches!(verdict, Sign::Dead(_)) => verdict = sign,
            Err(_) => {}
        }
    }
    Err(verdict)
}

/// Addresses, for people.
pub(super) fn at(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether a check may call there: anywhere but link-local (where clouds keep their secrets), multicast, broadcast, nowhere.
pub(super) fn is_callable(ip: IpAddr) -> bool {
    let link_local = match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !link_local && !ip.to_canonical().is_multicast() && !ip.to_canonical().is_unspecified()
}

fn not_callable(host: &str) -> Sign {
    Sign::CannotTell(format!("{host} is not checked: link-local, multicast, broadcast and unspecified addresses are refused"))
}

/// What a failed connection means. Only what the other side, or a router near it, did counts as dead.
pub(super) fn failed(error: &io::Error, what: &str) -> Sign {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, NotConnected, TimedOut, UnexpectedEof};
    let text = format!("{what}: {error}");
    let theirs = matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected | TimedOut | UnexpectedEof
    );
    // Nobody answers for the address on its own network.
    let nobody = Errno::from_io_error(error).is_some_and(|errno| [Errno::HOSTUNREACH, Errno::HOSTDOWN].contains(&errno));
    if theirs || nobody { Sign::Dead(text) } else { Sign::CannotTell(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_check_goes() {
        for (ip, callable) in [
            ("10.0.0.1", true),
            ("127.0.0.1", true),
            ("fd00::1", true),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
            ("255.255.255.255", false),
            ("0.0.0.0", false),
            ("::", false),
        ] {
            assert_eq!(is_callable(ip.parse().unwrap()), callable, "{ip}");
        }
    }

    #[test]
    fn what_fails_here_is_no_death() {
        let sign = |errno: Errno| failed(&io::Error::from(errno), "x");
        for errno in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::HOSTDOWN, Errno::TIMEDOUT] {
            assert!(matches!(sign(errno), Sign::Dead(_)), "{errno}");
        }
        for errno in [
            Errno::NETUNREACH,
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::ADDRNOTAVAIL,
            Errno::PERM,
            Errno::ACCESS,
            Errno::AFNOSUPPORT,
            Errno::NETDOWN,
        ] {
            assert!(matches!(sign(errno), Sign::CannotTell(_)), "{errno}");
        }
    }
}
