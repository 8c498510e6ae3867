//! A TCP connection that can be cut: stands between an agent and the gate, as a network does.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

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
    /// The line was cut or mended.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    line: Line,
    streams: Vec<TcpStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the caller for as long as nothing may arrive.
    fn wait_while_silent(&self) {
        let waited = self.changed.wait_while(self.state(), |state| state.line == Line::Silent);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
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
        let state = Mutex::new(State { line: Line::Whole, streams: Vec::new() });
        let shared = Arc::new(Shared { upstream, state, changed: Condvar::new() });
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
        let mut state = self.shared.state();
        state.line = line;
        self.shared.changed.notify_all();
        if line == Line::Refused {
            for stream in state.streams.drain(..) {
                stream.shutdown(Shutdown::Both).ok();
            }
        }
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) -> Result<()> {
        let mut state = self.state();
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
            self.wait_while_silent();
            if to.write_all(buffer.get(..read).unwrap_or_default()).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}
