//! The API's listening socket, and telling others where the sockets are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use super::DaemonError;

/// File in the state directory that names the real addresses, for harnesses that listen on port 0.
const FILE: &str = "addresses.json";

/// Where the daemon listens.
pub(super) struct Addresses {
    pub(super) api: SocketAddr,
    pub(super) mqtt: SocketAddr,
}

/// Removes what an earlier process left: whoever finds the file finds this process's addresses.
pub(super) fn forget_addresses(state_dir: &Path) {
    if let Err(error) = std::fs::remove_file(state_dir.join(FILE))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "old addresses are still there");
    }
}

impl Addresses {
    /// Writes them, readable by all, and says them in the log.
    pub(super) fn write(&self, state_dir: &Path) -> Result<(), DaemonError> {
        let (api, mqtt) = (reachable(self.api), reachable(self.mqtt));
        let json = serde_json::json!({ "api": api.to_string(), "mqtt": mqtt.to_string() });
        let (path, draft) = (state_dir.join(FILE), state_dir.join("addresses.new"));
        // Whoever waits for the file finds it whole.
        std::fs::write(&draft, json.to_string())
            .and_then(|()| std::fs::rename(&draft, &path))
            .map_err(DaemonError::setup(format!("writing {}", path.display())))?;
        tracing::info!(%api, %mqtt, "listening");
        Ok(())
    }
}

/// An address that a program on this machine can connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    // On Linux a socket on `[::]` takes IPv4 too.
    if address.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())) } else { address }
}

/// `address`, or on a machine whose kernel has no IPv6 the IPv4 one that means the same.
pub(super) fn usable(address: SocketAddr) -> SocketAddr {
    let no_ipv6 = |error: std::io::Error| error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    let any = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    if any && UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err_and(no_ipv6) {
        return SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    }
    address
}

pub(super) fn listen(address: SocketAddr) -> Result<TcpListener, DaemonError> {
    let bound = TcpListener::bind(usable(address));
    let listener = bound.map_err(DaemonError::setup(format!("listening on {address}")))?;
    listener.set_nonblocking(true).map_err(DaemonError::setup("listening for the API"))?;
    Ok(listener)
}
