//! An agent's assignment: which hosts, with which BMCs, and whether they may be touched. Channel `assign`; signed.

use serde::{Deserialize, Serialize};

use super::Generation;
use super::codec::{Message, WireError, bound};
use crate::command::Refusal;
use crate::id::{ClusterId, HostId, ZoneId};
use crate::seal::{MAX_SEALED_LEN, Sealed};

/// Most hosts of one agent.
pub const MAX_HOSTS: usize = 20_000;
/// Most hosts in one part; a part also obeys the frame's cap.
pub const MAX_HOSTS_PER_PART: usize = 256;
/// Most options of one BMC.
pub const MAX_OPTIONS: usize = 32;
/// Most polls in flight at once that a site may ask for.
pub const MAX_IN_FLIGHT: u32 = 65_536;
/// Most parts of one assignment.
pub const MAX_PARTS: u16 = 4096;

/// Kind 18, channel `assign`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Assign {
    /// One part of a whole assignment; applied when all parts of a generation are there.
    Part(Part),
    /// The difference from an assignment that the agent holds.
    Delta(Delta),
    /// Settings of the site that agents follow; told at every hello and at every change.
    Settings(SiteSettings),
    /// What host-HA watches over, and how.
    Ha(super::ha::HaPart),
    /// What goes on around the agent's hosts.
    Surroundings(super::ha::Surroundings),
}

/// See [`Assign::Settings`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSettings {
    /// Which version: an older one of the same store is ignored.
    pub version: Generation,
    /// Most polls in flight at once; the agent's own file may say less.
    pub max_in_flight: u32,
}

/// See [`Assign::Part`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Which assignment.
    pub generation: Generation,
    /// Owner epoch of the rack.
    pub epoch: u64,
    /// Number of this part, from 0.
    pub part: u16,
    /// How many parts there are.
    pub of: u16,
    /// Hosts of this part.
    pub hosts: Vec<HostAssignment>,
}

/// See [`Assign::Delta`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The assignment this builds on.
    pub base: Generation,
    /// The assignment it leads to.
    pub generation: Generation,
    /// Owner epoch of the rack.
    pub epoch: u64,
    /// New and changed hosts.
    pub upsert: Vec<HostAssignment>,
    /// Hosts that are no longer the agent's.
    pub remove: Vec<HostId>,
}

/// One host as its agent needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAssignment {
    /// Which host.
    pub host: HostId,
    /// Its zone, for names in logs.
    pub zone: ZoneId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Grows with every change of the gates that concern it; a host enabled anew starts at Unknown.
    pub enablement: u64,
    /// Why it may not be touched; absent = it may.
    pub refusal: Option<Refusal>,
    /// Its BMC; absent when not configured.
    pub bmc: Option<BmcAssignment>,
    /// Poll interval, in milliseconds.
    pub poll_interval_ms: u32,
}

/// A BMC's settings with the password sealed to this agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcAssignment {
    /// Driver name.
    pub driver: String,
    /// IP address or name.
    pub address: String,
    /// Port, or the driver's default.
    pub port: Option<u16>,
    /// Login name.
    pub username: String,
    /// The password; absent = none was set.
    pub password: Option<Sealed>,
    /// The driver's options.
    pub options: Vec<(String, String)>,
    /// Grows whenever one of the above changes.
    pub revision: u64,
}

impl Message for Assign {
    const KIND: u8 = 18;

    fn check(&self) -> Result<(), WireError> {
        let hosts = match self {
            Self::Part(part) => {
                if part.of == 0 || part.of > MAX_PARTS || part.part >= part.of {
                    return Err(WireError::Bounds("part"));
                }
                &part.hosts
            }
            Self::Delta(delta) => {
                bound("remove", delta.remove.len(), MAX_HOSTS_PER_PART)?;
                &delta.upsert
            }
            Self::Settings(settings) => {
                let fits = (1..=MAX_IN_FLIGHT).contains(&settings.max_in_flight);
                return if fits { Ok(()) } else { Err(WireError::Bounds("max_in_flight")) };
            }
            Self::Ha(part) => return part.check(),
            Self::Surroundings(surroundings) => return surroundings.check(),
        };
        bound("hosts", hosts.len(), MAX_HOSTS_PER_PART)?;
        hosts.iter().try_for_each(check_host)
    }
}

fn check_host(host: &HostAssignment) -> Result<(), WireError> {
    if !(1_000..=3_600_000).contains(&host.poll_interval_ms) {
        return Err(WireError::Bounds("poll_interval_ms"));
    }
    host.bmc.as_ref().map_or(Ok(()), check_bmc)
}

pub(super) fn check_bmc(bmc: &BmcAssignment) -> Result<(), WireError> {
    bound("driver", bmc.driver.len(), 32)?;
    bound("address", bmc.address.len(), 255)?;
    bound("username", bmc.username.len(), 255)?;
    bound("password", bmc.password.as_ref().map_or(0, |sealed| sealed.0.len()), MAX_SEALED_LEN)?;
    bound("options", bmc.options.len(), MAX_OPTIONS)?;
    bmc.options.iter().try_for_each(|(key, value)| {
        bound("options key", key.len(), 64)?;
        bound("options value", value.len(), 512)
    })
}
