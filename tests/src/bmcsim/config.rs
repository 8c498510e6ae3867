//! How many BMCs, where, and whose: what a simulator is started with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::bmc::Privilege;
use super::profile::Profile;

/// A simulator's settings. `Config::default()` has no BMC and a control API on a free loopback port.
#[derive(Debug, Clone)]
pub struct Config {
    /// BMCs that speak IPMI alone.
    pub ipmi: usize,
    /// BMCs that speak Redfish alone.
    pub redfish: usize,
    /// BMCs that speak both, for one chassis.
    pub dual: usize,
    /// The first BMC's address; the next have the next addresses.
    pub address: Ipv4Addr,
    /// UDP port of IPMI; 0 takes free ones.
    pub ipmi_port: u16,
    /// TCP port of Redfish; 0 takes free ones.
    pub redfish_port: u16,
    /// All BMCs on `address`, with consecutive ports instead of addresses.
    pub port_per_bmc: bool,
    /// Names are this, `-`, and a number of four digits from 1.
    pub name_prefix: String,
    /// Users of every BMC; the first gets id 2.
    pub users: Vec<(String, String, Privilege)>,
    /// Character of every BMC.
    pub profile: Profile,
    /// Which hosts are on at the start.
    pub initial: Initial,
    /// Where the control API listens; `None`: nowhere.
    pub control: Option<SocketAddr>,
    /// Threads for the IPMI side.
    pub ipmi_threads: usize,
    /// Threads for Redfish and control.
    pub web_threads: usize,
    /// Certificates come from one simulator CA (`GET /ca.pem`) instead of being self-signed.
    pub authority: bool,
    /// Seed of GUIDs and dice: the same seed gives the same BMCs.
    pub seed: u64,
}

/// Which hosts are on at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// All.
    On,
    /// None.
    Off,
    /// Every other one, beginning with on.
    Alternate,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ipmi: 0,
            redfish: 0,
            dual: 0,
            address: Ipv4Addr::new(127, 20, 0, 1),
            ipmi_port: 6230,
            redfish_port: 4430,
            port_per_bmc: false,
            name_prefix: "bmc".into(),
            users: vec![("admin".into(), "password".into(), Privilege::Administrator)],
            profile: Profile::default(),
            initial: Initial::On,
            control: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            ipmi_threads: 1,
            web_threads: 1,
            authority: false,
            seed: 1,
        }
    }
}

/// Where one BMC is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) ipmi: Option<SocketAddr>,
    pub(crate) redfish: Option<SocketAddr>,
}

impl Config {
    /// How many BMCs in all.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.ipmi + self.redfish + self.dual
    }

    /// The places of all BMCs: IPMI first, then Redfish, then both. `None` when addresses or ports run out.
    pub(crate) fn places(&self) -> Option<Vec<Place>> {
        (0..self.count())
            .map(|index| {
                let speaks_ipmi = index < self.ipmi || index >= self.ipmi + self.redfish;
                let speaks_redfish = index >= self.ipmi;
                let address = if self.port_per_bmc { self.address } else { nth(self.address, index)? };
                let at = |base: u16| -> Option<SocketAddr> {
                    let step = if self.port_per_bmc && base != 0 { u16::try_from(index).ok()? } else { 0 };
                    Some(SocketAddr::new(IpAddr::V4(address), base.checked_add(step)?))
                };
                Some(Place {
                    name: format!("{}-{:04}", self.name_prefix, index + 1),
                    ipmi: if speaks_ipmi { Some(at(self.ipmi_port)?) } else { None },
                    redfish: if speaks_redfish { Some(at(self.redfish_port)?) } else { None },
                })
            })
            .collect()
    }
}

/// The n-th address after `base`, stepping over .0 and .255 so that no address looks like a network or a broadcast.
fn nth(base: Ipv4Addr, n: usize) -> Option<Ipv4Addr> {
    let [a, b, c, d] = base.octets();
    let start = (u32::from_be_bytes([0, a, b, c])) * 254 + u32::from(d.clamp(1, 254)) - 1;
    let place = start.checked_add(u32::try_from(n).ok()?)?;
    let [overflow, a, b, c] = (place / 254).to_be_bytes();
    let d = u8::try_from(place % 254).ok()? + 1;
    (overflow == 0).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_one_another_over_the_edges() {
        let base = Ipv4Addr::new(127, 20, 0, 1);
        for (n, want) in [(0, [127, 20, 0, 1]), (253, [127, 20, 0, 254]), (254, [127, 20, 1, 1]), (254 * 256, [127, 21, 0, 1])] {
            assert_eq!(nth(base, n), Some(Ipv4Addr::from(want)), "{n}");
        }
        assert_eq!(nth(Ipv4Addr::new(255, 255, 255, 254), 1), None);
    }

    #[test]
    fn places_by_address_and_by_port() {
        let config = Config { ipmi: 1, redfish: 1, dual: 1, ..Config::default() };
        let places = config.places().unwrap();
        let kinds: Vec<_> =
            places.iter().map(|place| (place.name.as_str(), place.ipmi.is_some(), place.redfish.is_some())).collect();
        assert_eq!(kinds, [("bmc-0001", true, false), ("bmc-0002", false, true), ("bmc-0003", true, true)]);
        assert_eq!(places.last().unwrap().ipmi, Some(SocketAddr::from(([127, 20, 0, 3], 6230))));
        let by_port = Config { port_per_bmc: true, ..config }.places().unwrap();
        assert_eq!(by_port.last().unwrap().redfish, Some(SocketAddr::from(([127, 20, 0, 1], 4432))));
    }
}
