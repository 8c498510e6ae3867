//! Zones, clusters and racks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Field;
use super::ha::{BrakesPatch, BrakesView, HaOwn, HaPatch, PauseWindow};
use crate::id::{AgentId, ClusterId, RackId, ZoneId};
use crate::secret::Secret;

/// `PUT /v1/zones/{z}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneBody {}

/// `GET /v1/zones/{z}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Its id.
    pub id: ZoneId,
    /// Its gate.
    pub oobm_enabled: bool,
    /// Its HA gate.
    #[serde(default)]
    pub ha_enabled: bool,
}

/// `PUT /v1/clusters/{c}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterBody {
    /// The zone it lies in.
    pub zone: ZoneId,
    /// Poll interval of its hosts, in seconds (1 – 3600); absent = the global one.
    #[serde(default)]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds (1 – 3600); absent = the global one.
    #[serde(default)]
    pub action_timeout: Option<u64>,
    /// What its hosts inherit where they have no BMC setting of their own. Left out = stays as it is, so that whoever knows
    /// nothing of it does not take the login away from a whole cluster; `null` = nothing.
    #[serde(default)]
    pub bmc: Field<BmcDefaultsBody>,
    /// What its hosts inherit of host-HA. Left out = stays as it is; given, it is the whole of it.
    #[serde(default)]
    pub ha: Field<HaPatch>,
    /// What bounds its power-downs. The same.
    #[serde(default)]
    pub brakes: Field<BrakesPatch>,
}

/// `PATCH /v1/clusters/{c}`: only what is given changes; `null` = nothing of its own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterPatch {
    /// The zone it lies in; changes only while it has no hosts.
    #[serde(default)]
    pub zone: Option<ZoneId>,
    /// Poll interval of its hosts, in seconds (1 – 3600).
    #[serde(default)]
    pub poll_interval: Field<u64>,
    /// Time an operation may take, in seconds (1 – 3600).
    #[serde(default)]
    pub action_timeout: Field<u64>,
    /// What its hosts inherit, field by field.
    #[serde(default)]
    pub bmc: Field<BmcDefaultsBody>,
    /// What its hosts inherit of host-HA, field by field.
    #[serde(default)]
    pub ha: Field<HaPatch>,
    /// What bounds its power-downs, field by field.
    #[serde(default)]
    pub brakes: Field<BrakesPatch>,
}

/// BMC settings that a cluster's hosts inherit: whole in `PUT`, field by field in `PATCH`. An address is always a host's own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcDefaultsBody {
    /// Driver name, in any case.
    #[serde(default)]
    pub driver: Field<String>,
    /// Port; inherited by hosts with this driver.
    #[serde(default)]
    pub port: Field<u16>,
    /// Login name. It is inherited together with the password: a host with a name of its own does not get this password.
    #[serde(default)]
    pub username: Field<String>,
    /// Login password; write-only.
    #[serde(default)]
    pub password: Field<Secret<String>>,
    /// The driver's options, inherited key by key by hosts with this driver; replaces all.
    #[serde(default)]
    pub options: Field<BTreeMap<String, String>>,
}

/// `GET /v1/clusters/{c}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// As put.
    #[serde(flatten)]
    pub body: ClusterSettings,
    /// Its gate.
    pub oobm_enabled: bool,
    /// Its HA gate.
    #[serde(default)]
    pub ha_enabled: bool,
    /// What its hosts inherit of host-HA; absent = nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ha: Option<HaOwn>,
    /// What bounds its power-downs; absent while nobody set anything of host-HA there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub brakes: Option<BrakesView>,
    /// A window in which nothing disruptive is done by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pause: Option<PauseWindow>,
}

/// A cluster's settings as shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// The zone it lies in.
    pub zone: ZoneId,
    /// Poll interval of its hosts, in seconds; absent = the global one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds; absent = the global one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action_timeout: Option<u64>,
    /// What its hosts inherit; absent = nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bmc: Option<BmcDefaults>,
}

/// BMC settings that a cluster's hosts inherit, as shown: never the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcDefaults {
    /// Driver name, lower case.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub driver: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// Login name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub username: Option<String>,
    /// Whether a password is stored.
    pub password_set: bool,
    /// Agents of the zone that have no copy of the password: their hosts need `secrets reseal`, or the password again.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub agents_without_password: Vec<AgentId>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
}

/// `PUT /v1/racks/{r}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RackBody {
    /// The zone it stands in.
    pub zone: ZoneId,
}

/// `GET /v1/racks/{r}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rack {
    /// Its id.
    pub id: RackId,
    /// As put.
    #[serde(flatten)]
    pub body: RackBody,
    /// The agent that guards it.
    pub agent: Option<AgentId>,
    /// Owner epoch.
    pub epoch: u64,
}

/// Answer of `…/oobm/{enable,disable}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enablement {
    /// `host`, `cluster` or `zone`.
    pub scope: String,
    /// Its id.
    pub id: String,
    /// Its gate now.
    pub oobm_enabled: bool,
}
