//! Which addresses a BMC may have: the agent's own file decides, not the centre (`allowed_bmc_networks`).
//!
//! Loopback, link-local, multicast, unspecified and the agent's own addresses are refused unless the file allows them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::bmc::{Bmc, DriverError, ErrorClass};

/// The agent's rule for BMC addresses.
#[derive(Debug, Clone, Default)]
pub struct AllowedNetworks {
    /// Networks allowed by the agent's own file; when not empty, *only* these.
    pub networks: Vec<IpNet>,
}

impl AllowedNetworks {
    /// Whether a BMC may live at `ip`.
    #[must_use]
    pub fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if !self.networks.is_empty() {
            return self.networks.iter().any(|network| network.contains(&ip));
        }
        let never = ip.is_loopback() || ip.is_multicast() || ip.is_unspecified();
        let link_local = match ip {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        !never && !link_local && !is_own(ip)
    }

    /// The address of `bmc` if it is a literal IP, checked; `None` if it is a name that has to be resolved first.
    ///
    /// # Errors
    /// `address-not-allowed`, class Setting.
    pub fn literal(&self, driver: &'static str, bmc: &Bmc, default_port: u16) -> Result<Option<SocketAddr>, DriverError> {
        let Ok(ip) = bmc.address.trim_matches(['[', ']']).parse::<IpAddr>() else { return Ok(None) };
        let address = SocketAddr::new(ip, bmc.port.unwrap_or(default_port));
        self.check(driver, bmc, address).map(Some)
    }

    /// The address of `bmc`, checked: an IP address as it is, of a name's addresses the first that is allowed.
    ///
    /// # Errors
    /// `address-not-allowed`, class Setting; `name`, class Connection, for a name that has no address.
    pub async fn resolve(&self, driver: &'static str, bmc: &Bmc, default_port: u16) -> Result<SocketAddr, DriverError> {
        if let Some(address) = self.literal(driver, bmc, default_port)? {
            return Ok(address);
        }
        let no_address = |why: String| DriverError {
            driver,
            address: bmc.address.clone(),
            class: ErrorClass::Connection,
            code: "name".into(),
            text: format!("the name {} cannot be resolved: {why}", bmc.address),
            maybe_sent: false,
        };
        let target = (bmc.address.as_str(), bmc.port.unwrap_or(default_port));
        let found = tokio::net::lookup_host(target).await.map_err(|cause| no_address(cause.to_string()))?;
        let found: Vec<SocketAddr> = found.collect();
        let chosen = found.iter().find(|address| self.allows(address.ip())).or(found.first()).copied();
        self.check(driver, bmc, chosen.ok_or_else(|| no_address("it has no address".into()))?)
    }

    /// `address` if it is allowed.
    ///
    /// # Errors
    /// `address-not-allowed`, class Setting.
    pub fn check(&self, driver: &'static str, bmc: &Bmc, address: SocketAddr) -> Result<SocketAddr, DriverError> {
        if self.allows(address.ip()) {
            return Ok(address);
        }
        Err(DriverError {
            driver,
            address: bmc.address.clone(),
            class: ErrorClass::Setting,
            code: "address-not-allowed".into(),
            text: format!(
                "{address} may not be a BMC's address; list its network in allowed_bmc_networks of the agent's own file to allow it"
            ),
            maybe_sent: false,
        })
    }
}

/// Whether `ip` is one of this machine's own addresses: a socket can be bound to it.
fn is_own(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_addresses_need_the_agents_own_word() {
        let closed = AllowedNetworks::default();
        for bad in [
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "169.254.1.1",
            "fe80::1",
            "224.0.0.1",
            "0.0.0.0",
            "::ffff:127.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!closed.allows(bad.parse().unwrap()), "{bad}");
        }
        assert!(closed.allows("10.7.0.9".parse().unwrap()));
        let open = AllowedNetworks { networks: vec!["127.0.0.0/8".parse().unwrap()] };
        assert!(open.allows("127.8.9.1".parse().unwrap()));
        assert!(!open.allows("10.7.0.9".parse().unwrap()), "a list is the whole list");
    }
}
