//! The witness of a host: runs on it, says whether it is well and what files look like, and writes a sign of life. For
//! agents of its site only. Decides nothing, orders nothing.

mod beat;
mod doors;
mod own;
mod server;
mod settings;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use picket_common::id::HostId;
use tokio::net::TcpListener;

use self::own::OwnFiles;
use self::server::Server;
pub use self::settings::{Absolute, Config, Heartbeat, Interval};
use crate::stamps::Looker;

/// Why there is no witness.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The address is not to be had.
    #[error("the witness cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// A thread could not be started.
    #[error("the witness's threads could not start")]
    Thread(#[source] io::Error),
}

/// A witness that listens.
pub struct Witness {
    listener: TcpListener,
    server: Arc<Server>,
}

impl Witness {
    /// Starts the witness of `host`: from now on the heartbeat is written, and calls wait to be answered.
    ///
    /// # Errors
    /// [`WitnessError`].
    pub async fn start(host: HostId, config: Config, tls: Arc<rustls::ServerConfig>) -> Result<Self, WitnessError> {
        let listener = listen(config.listen).await.map_err(|error| WitnessError::Listen(config.listen, error))?;
        if let Some(heartbeat) = config.heartbeat {
            beat::start(heartbeat).map_err(WitnessError::Thread)?;
        }
        let own = OwnFiles::start(config.own_files).map_err(WitnessError::Thread)?;
        let looker = Looker::within(config.allowed_paths.into_iter().map(|Absolute(path)| path).collect());
        Ok(Self { listener, server: Arc::new(Server::new(host, tls, looker, own)) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers, for ever.
    pub async fn serve(self) {
        server::serve(self.server, self.listener).await;
    }
}

/// Where there is no IPv6, everywhere means IPv4.
async fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(at).await {
        Err(error) if at.is_ipv6() && at.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, at.port())).await
        }
        other => other,
    }
}
