//! A TCP connection that can be cut: stands between an agent and the gate, as a network does.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How long a held byte waits before it looks again whether it may go on.
const PAUSE: Duration = Duration::from_millis(20);

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// They pass.
    Whole,
    /// Those there are broken, new ones are closed at once.
    Refused,
    /// They stand, but nothing arrives, as behind a pulled cable; new ones are taken and hang likewise.
    Silent,
}

/// A relay to one address. Its threads end with the process.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    line: Line,
    streams: Vec<TcpStream>,
}

impl Shared {
    fn line(&self) -> Line {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).line
    }
}

impl Proxy {
    /// A relay on a free port of `upstream`'s own IP address, so that its certificate fits.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn start(upstream: SocketAddr) -> Result<Self> {
        let ip: IpAddr = upstream.ip();
        let listener = TcpListener::bind((ip, 0)).context("proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { upstream, state: Mutex::new(State { line: Line::Whole, streams: Vec::new() }) });
        let served = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                served.serve(client).ok();
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the line, or mends it.
    pub fn set(&self, line: Line) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.line = line;
        if line == Line::Refused {
            for stream in state.streams.drain(..) {
                stream.shutdown(Shutdown::Both).ok();
            }
        }
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.line == Line::Refused {
            return Ok(());
        }
        let gate = TcpStream::connect(self.upstream)?;
        state.streams.extend([client.try_clone()?, gate.try_clone()?]);
        for (from, to) in [(client.try_clone()?, gate.try_clone()?), (gate, client)] {
            let shared = self.clone();
            thread::spawn(move || shared.relay(from, to));
        }
        Ok(())
    }

    fn relay(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            while self.line() == Line::Silent {
                thread::sleep(PAUSE);
            }
            if to.write_all(buffer.get(..read).unwrap_or_default()).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}
