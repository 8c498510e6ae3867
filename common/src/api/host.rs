//! Hosts, and their BMCs' settings: as asked, as in force, and where each comes from.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Field;
use super::ha::{HaPatch, HostHa, PauseWindow};
use crate::command::BmcError;
use crate::facts::Facts;
use crate::ha::HostStatus;
use crate::id::{AgentId, ClusterId, HostId, OperationId, RackId, ZoneId};
use crate::power::{Management, PowerState};
use crate::secret::Secret;

/// A BMC's settings in `PUT` of a host: the whole of what is its own. What is left out, `null` or empty is inherited from the
/// cluster, then from the site, then the driver's default; a stored password stays as long as address and name do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcBody {
    /// Driver name, in any case: `ipmi`, `redfish`, `null`.
    #[serde(default)]
    pub driver: Option<String>,
    /// IP address or name.
    #[serde(default)]
    pub address: Option<String>,
    /// Port; absent = the driver's default.
    #[serde(default)]
    pub port: Option<u16>,
    /// Login name.
    #[serde(default)]
    pub username: Option<String>,
    /// Login password; write-only.
    #[serde(default)]
    pub password: Option<Secret<String>>,
    /// The driver's options.
    #[serde(default)]
    pub options: Option<BTreeMap<String, String>>,
}

/// A BMC's settings in `PATCH` of a host: what is left out or empty stays, `null` is inherited from then on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmcPatch {
    /// Driver name, in any case.
    #[serde(default)]
    pub driver: Field<String>,
    /// IP address or name.
    #[serde(default)]
    pub address: Field<String>,
    /// Port.
    #[serde(default)]
    pub port: Field<u16>,
    /// Login name; `null` takes the password along, for the pair is never made of two sources.
    #[serde(default)]
    pub username: Field<String>,
    /// Login password; write-only. A password of its own makes the login name the host's own as well.
    #[serde(default)]
    pub password: Field<Secret<String>>,
    /// The driver's options; replaces all of the host's own.
    #[serde(default)]
    pub options: Field<BTreeMap<String, String>>,
    /// Take the machine that answers now for the right one: its identity is pinned anew.
    #[serde(default)]
    pub repin: bool,
}

/// `PUT /v1/hosts/{h}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostBody {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its zone; when given it must be the cluster's.
    #[serde(default)]
    pub zone: Option<ZoneId>,
    /// Its rack.
    pub rack: RackId,
    /// Its BMC; absent = not configured.
    #[serde(default)]
    pub bmc: Option<BmcBody>,
    /// Whether people work on it.
    #[serde(default)]
    pub maintenance: bool,
    /// Poll interval in seconds (1 – 3600); absent = the cluster's.
    #[serde(default)]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds (1 – 3600); absent = the cluster's.
    #[serde(default)]
    pub action_timeout: Option<u64>,
    /// Free words for people and programs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its host-HA. Left out = stays as it is, so that whoever knows nothing of it does not take the checks away; given, it is the
    /// whole of what is its own.
    #[serde(default)]
    pub ha: Field<HaPatch>,
}

/// `PATCH /v1/hosts/{h}`: only what is given changes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPatch {
    /// Its cluster.
    #[serde(default)]
    pub cluster: Option<ClusterId>,
    /// Its rack.
    #[serde(default)]
    pub rack: Option<RackId>,
    /// Its BMC, field by field; `null` = not configured any more.
    #[serde(default)]
    pub bmc: Field<BmcPatch>,
    /// Whether people work on it.
    #[serde(default)]
    pub maintenance: Option<bool>,
    /// Poll interval in seconds (1 – 3600).
    #[serde(default)]
    pub poll_interval: Field<u64>,
    /// Time an operation may take, in seconds (1 – 3600).
    #[serde(default)]
    pub action_timeout: Field<u64>,
    /// Replaces all labels.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Its host-HA, field by field; `null` = nothing of its own.
    #[serde(default)]
    pub ha: Field<HaPatch>,
}

/// A BMC's settings in force, as shown: never the password. See [`Effective`] for where each comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bmc {
    /// Driver name, lower case.
    pub driver: String,
    /// IP address or name.
    pub address: String,
    /// Port, if set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// Login name.
    pub username: String,
    /// Whether a password is stored and sealed to the agent in charge.
    pub password_set: bool,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The host's own.
    Host,
    /// Its cluster's.
    Cluster,
    /// The site's settings.
    Global,
    /// Nobody set it.
    Default,
}

/// A value in force, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Valued<T> {
    /// The value.
    pub value: T,
    /// From where.
    pub from: Origin,
}

/// All settings of a host that are in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// Its BMC's; absent when not configured.
    #[serde(flatten)]
    pub bmc: Option<EffectiveBmc>,
    /// Poll interval, in seconds.
    pub poll_interval: Valued<u64>,
    /// Time an operation may take, in seconds.
    pub action_timeout: Valued<u64>,
    /// Its host-HA, by name; absent while nobody set anything of it for the host.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub ha: BTreeMap<String, Valued<serde_json::Value>>,
}

/// See [`Effective::bmc`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectiveBmc {
    /// Driver name.
    pub driver: Valued<String>,
    /// IP address or name.
    pub address: Valued<String>,
    /// Port; absent where the driver has none.
    pub port: Valued<Option<u16>>,
    /// Login name.
    pub username: Valued<String>,
    /// Whether there is a password that the agent in charge can open.
    pub password_set: Valued<bool>,
    /// The driver's options, its defaults among them.
    pub options: BTreeMap<String, Valued<String>>,
}

/// What a BMC is and can do, as learned at first contact or at the last test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// What was learned.
    #[serde(flatten)]
    pub facts: Facts,
    /// When.
    pub observed_at: Timestamp,
    /// The identity of the machine that is taken for the right one: that of the first contact, or of the last `repin`.
    pub identity_pinned: Option<String>,
    /// Whether the machine that answered last is another one.
    pub identity_differs: bool,
}

/// A password change of a host that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordChange {
    /// The operation.
    pub operation: OperationId,
    /// Since when.
    pub since: Timestamp,
    /// `open`: under way; `unresolved`: the operation ended and nobody knows which password is in force; `neither`: the BMC
    /// takes neither the old nor the new one.
    pub state: PasswordChangeState,
}

/// See [`PasswordChange::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PasswordChangeState {
    /// Under way.
    Open,
    /// Over, without a word on which password is in force.
    Unresolved,
    /// Both are refused.
    Neither,
}

/// `GET /v1/hosts/{h}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its rack.
    pub rack: RackId,
    /// The agent in charge.
    pub agent: Option<AgentId>,
    /// Power state.
    pub power: PowerState,
    /// Since when.
    pub power_since: Timestamp,
    /// How the BMC can be talked to; absent before the first answer or failure.
    pub management: Option<Management>,
    /// Since when.
    pub management_since: Option<Timestamp>,
    /// The driver's last error, while it holds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<BmcError>,
    /// When the agent last vouched for this state.
    pub fresh_at: Option<Timestamp>,
    /// The state is older than three polls, or the agent is lost.
    pub stale: bool,
    /// The host's own gate.
    pub oobm_enabled: bool,
    /// The host's own HA gate.
    #[serde(default)]
    pub ha_enabled: bool,
    /// A window in which nothing disruptive is done to it by itself, its own or its cluster's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pause: Option<PauseWindow>,
    /// Why it may not be touched, by code; absent = it may.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusal: Option<String>,
    /// Whether people work on it.
    pub maintenance: bool,
    /// Its BMC.
    pub bmc: Option<Bmc>,
    /// Effective poll interval, in seconds.
    pub poll_interval: u64,
    /// Effective time-out of operations, in seconds.
    pub action_timeout: u64,
    /// Free words.
    pub labels: BTreeMap<String, String>,
    /// Where each setting comes from; with one host only, not in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effective: Option<Box<Effective>>,
    /// What its BMC is and can do; with one host only, not in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facts: Option<Box<HostFacts>>,
    /// A password change that is not over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub password_change: Option<PasswordChange>,
    /// Where it stands in host-HA; absent while its agent has said nothing of that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ha: Option<HostHa>,
    /// What an orchestrator may conclude: only `down` may release workloads.
    #[serde(default)]
    pub host_status: HostStatus,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_tells_left_out_from_null() {
        for (json, wanted) in [("{}", Field::Keep), (r#"{"port":null}"#, Field::Unset), (r#"{"port":623}"#, Field::Set(623))] {
            assert_eq!(serde_json::from_str::<BmcPatch>(json).unwrap().port, wanted, "{json}");
        }
        assert_eq!([Field::Keep, Field::Unset, Field::Set(2)].map(|field| field.over(Some(1))), [Some(1), None, Some(2)]);
    }

    #[test]
    fn effective_settings_read_back() {
        let valued = |value: &str| Valued { value: value.to_owned(), from: Origin::Cluster };
        let seconds = Valued { value: 10, from: Origin::Default };
        let bmc = EffectiveBmc {
            driver: valued("ipmi"),
            address: valued("10.0.0.1"),
            port: Valued { value: None, from: Origin::Default },
            username: valued("admin"),
            password_set: Valued { value: true, from: Origin::Host },
            options: [("suite".to_owned(), valued("3"))].into(),
        };
        for bmc in [None, Some(bmc)] {
            let effective = Effective { bmc, poll_interval: seconds, action_timeout: seconds, ha: BTreeMap::new() };
            let json = serde_json::to_string(&effective).unwrap();
            assert_eq!(serde_json::from_str::<Effective>(&json).unwrap(), effective, "{json}");
        }
    }
}
