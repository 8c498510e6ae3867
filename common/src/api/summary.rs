//! How many hosts are in which state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ha::{HaName, HostStatus};
use crate::id::{ClusterId, RackId, ZoneId};

/// `GET /v1/summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// All hosts.
    pub hosts: Counts,
    /// By zone.
    pub zones: BTreeMap<ZoneId, Counts>,
    /// By cluster.
    pub clusters: BTreeMap<ClusterId, Counts>,
    /// By rack.
    pub racks: BTreeMap<RackId, Counts>,
    /// Agents heard now.
    pub agents_connected: u64,
    /// Agents known.
    pub agents: u64,
    /// Alerts firing.
    pub alerts_firing: u64,
}

/// Hosts by state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Hosts that are on.
    pub on: u64,
    /// Hosts that are off.
    pub off: u64,
    /// Hosts whose state cannot be told.
    pub unknown: u64,
    /// Hosts that may not be touched.
    pub disabled: u64,
    /// Hosts among these whose state is stale.
    pub stale: u64,
    /// By state in host-HA; those that none is in are left out.
    #[serde(default)]
    pub ha: BTreeMap<HaName, u64>,
    /// By host status; those that none has are left out.
    #[serde(default)]
    pub host_status: BTreeMap<HostStatus, u64>,
}
