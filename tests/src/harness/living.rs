//! Operating systems of hosts, as a `tcp` health check sees them: a port that accepts connections as long as the host lives.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::ports;

/// Hosts that live until they are told not to.
#[derive(Debug)]
pub struct Living {
    runtime: Runtime,
    hosts: BTreeMap<String, (SocketAddr, Option<JoinHandle<()>>)>,
}

impl Living {
    /// All of them alive, each on a port of its own of one address.
    ///
    /// # Errors
    /// When there is no address or port.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut living = Self { runtime, hosts: BTreeMap::new() };
        let ip: Ipv4Addr = ports::address()?;
        for name in names {
            let socket = listening((ip, 0).into())?;
            let address = socket.local_addr()?.as_socket().context("no address")?;
            living.hosts.insert(name.to_owned(), (address, None));
            living.serve(name, socket)?;
        }
        Ok(living)
    }

    fn serve(&mut self, name: &str, socket: Socket) -> Result<()> {
        let guard = self.runtime.enter();
        let listener = TcpListener::from_std(socket.into())?;
        drop(guard);
        // Accepted and closed: more than that a health check does not want to know.
        let accepting = async move { while listener.accept().await.is_ok() {} };
        self.hosts.get_mut(name).context("no such host")?.1 = Some(self.runtime.spawn(accepting));
        Ok(())
    }

    /// Where a host can be asked whether it lives.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn address(&self, name: &str) -> Result<SocketAddr> {
        Ok(self.hosts.get(name).context("no such host")?.0)
    }

    /// The host dies: connections are refused when this returns.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let task = self.hosts.get_mut(name).context("no such host")?.1.take();
        if let Some(task) = task {
            task.abort();
            // Its end drops the listener.
            self.runtime.block_on(task).ok();
        }
        Ok(())
    }

    /// The host lives again, where it did.
    ///
    /// # Errors
    /// When there is no such host, or somebody took its port.
    pub fn revive(&mut self, name: &str) -> Result<()> {
        let socket = listening(self.address(name)?)?;
        self.serve(name, socket)
    }
}

fn listening(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Connections of its earlier life linger.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).with_context(|| format!("{address}"))?;
    socket.listen(64)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_host_dies_and_lives_again() {
        let mut hosts = Living::new(["h1", "h2"]).unwrap();
        let is_alive = |hosts: &Living, name| TcpStream::connect(hosts.address(name).unwrap()).is_ok();
        for _ in 0..3 {
            assert!(is_alive(&hosts, "h1") && is_alive(&hosts, "h2"));
            hosts.kill("h1").unwrap();
            assert!(!is_alive(&hosts, "h1") && is_alive(&hosts, "h2"));
            hosts.revive("h1").unwrap();
        }
    }
}
