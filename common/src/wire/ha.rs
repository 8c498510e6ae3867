//! Host-HA between the centre and the rack: what is to be watched and how, what people order, what became of it.
//! Parts of [`super::assign::Assign`], [`super::down::Command`] and [`super::report::Report`].

use serde::{Deserialize, Serialize};

use super::assign::{BmcAssignment, MAX_HOSTS_PER_PART, MAX_PARTS};
use super::codec::{WireError, bound};
use super::report::MAX_TEXT;
use super::{Generation, Time};
use crate::command::BmcError;
use crate::ha::settings::{ActivityCheck, HaSettings, HealthCheck, MAX_CHECKS, MAX_FILES, MAX_NEIGHBOURS};
use crate::ha::{Gate, HaState};
use crate::id::{ClusterId, HostId, OperationId, ZoneId};
use crate::policy::Judgement;

/// Most clusters of one message.
pub const MAX_CLUSTERS: usize = 256;
/// Most levels of a host, its own BMC apart, and most devices of a level.
pub const MAX_LEVELS: usize = 4;
/// Longest name of a principal.
pub const MAX_PRINCIPAL: usize = 128;
/// Longest text of a check: an address, a URL, a path.
const MAX_PLACE: usize = 1024;

/// One part of what an agent must know for host-HA; applied when all parts of a version are there. Replaces what was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaPart {
    /// Which version; an older one of the same store is ignored.
    pub version: Generation,
    /// Owner epoch of the rack.
    pub epoch: u64,
    /// Number of this part, from 0.
    pub part: u16,
    /// How many parts there are.
    pub of: u16,
    /// Most power-downs of this agent within an hour.
    pub agent_cap: u16,
    /// The clusters its hosts are in; all in part 0.
    pub clusters: Vec<ClusterHa>,
    /// Hosts of this part: all that ever had an HA gate open or settings for it.
    pub hosts: Vec<HostHa>,
}

/// A cluster's rules for disruptive acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterHa {
    /// Which.
    pub cluster: ClusterId,
    /// Its zone.
    pub zone: ZoneId,
    /// Most power-downs of the whole cluster within the window.
    pub cap: u16,
    /// The window, in seconds.
    pub cap_window: u32,
    /// How many agents have hosts of it: each owns a floor of one power-down a window.
    pub agents: u16,
    /// Share of hosts that may be unwell at once, in percent: of a rack, of the cluster, of the zone.
    pub storm: [u8; 3],
    /// Time after a storm before anything disruptive is done, in seconds.
    pub cool_down: u32,
    /// Share of a rack's hosts that may go from well to unwell within 30 s, in percent; absent = not looked at.
    pub cliff: Option<u8>,
    /// Whether another host of the cluster must be well.
    pub somewhere_to_go: bool,
    /// Whether a reference address or another BMC must answer.
    pub isolation: bool,
}

/// What host-HA needs to know of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHa {
    /// Which.
    pub host: HostId,
    /// The first HA gate that is closed; absent = all are open.
    pub closed: Option<HaClosed>,
    /// Whether people work on it.
    pub maintenance: bool,
    /// A window in which nothing disruptive is done.
    pub pause: Option<Pause>,
    /// The identity that its BMC must have.
    pub identity: Option<String>,
    /// Its settings in force.
    pub settings: HaSettings,
    /// What else can switch it off, after its own BMC: all devices of a level must be proven off.
    pub levels: Vec<Vec<BmcAssignment>>,
}

/// Which HA gate is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HaClosed {
    /// The zone's.
    Zone,
    /// The cluster's.
    Cluster,
    /// The host's own.
    Host,
}

/// A window in which nothing disruptive is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Whose it is.
    pub owner: String,
    /// Until when, by the aggregator's clock.
    pub until: Time,
}

/// What goes on around an agent's hosts, and what it may spend; told when it changes, and before a lease ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surroundings {
    /// When, by the aggregator's clock: an older word is ignored.
    pub at: Time,
    /// Owner epoch of the rack.
    pub epoch: u64,
    /// By cluster.
    pub clusters: Vec<ClusterSurroundings>,
}

/// Hosts of a cluster and its zone that other agents watch over, and the share of the cap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSurroundings {
    /// Which.
    pub cluster: ClusterId,
    /// Hosts with HA of the cluster in other racks.
    pub hosts: u32,
    /// Unwell ones among them.
    pub unwell: u32,
    /// Ones that pass their health checks.
    pub well: u32,
    /// Hosts with HA of the zone in other racks.
    pub zone_hosts: u32,
    /// Unwell ones among them.
    pub zone_unwell: u32,
    /// How many power-downs of the cluster the agent may have had within the cap's window, beyond its own floor of one. What it had
    /// counts against each lease alike: a new lease gives nothing back.
    pub lease: u16,
    /// Until when, by the aggregator's clock.
    pub lease_until: Time,
}

/// A person's word about a host, with its name and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaCommand {
    /// Which operation; with the host, the key against doing it twice.
    pub operation: OperationId,
    /// Which host.
    pub host: HostId,
    /// What.
    pub verb: HaVerb,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Not begun after this, by the aggregator's clock.
    pub deadline: Time,
    /// Owner epoch of the rack.
    pub epoch: u64,
    /// Assignment the aggregator had sent when it gave this command.
    pub generation: Generation,
    /// Enablement of the host it was given under.
    pub enablement: u64,
}

/// What a person can order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HaVerb {
    /// Fence it; done when it is Fenced, or not any more Fencing.
    Fence {
        /// Gates that are overridden.
        overrides: Vec<Gate>,
    },
    /// Only ask all gates.
    Plan,
    /// It is off, the principal says.
    Confirm {
        /// Although it reads On or answers.
        force: bool,
    },
    /// End its fence.
    Abort,
    /// It is known to be broken: not counted in storms any more.
    Ack,
    /// It may live again.
    Release,
    /// Forget its counters and the cluster's power-downs that this agent counted.
    ResetCounters,
    /// The sudden loss of many hosts of its rack was looked at: go on.
    EndCliff,
}

/// Where a host stands; one for each change of the state or of what is beside it (a failed check or sample fewer than matter is
/// none). It is said again, under the same version, beside each [`super::report::Snapshot`] and when the host's enablement is a new
/// one: the aggregator does not trust what it heard before reports were lost, or from another journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaReport {
    /// Which host.
    pub host: HostId,
    /// Counts up with each change; one that is not higher is old news.
    pub version: u64,
    /// When it changed.
    pub at: Time,
    /// Where it stands.
    pub state: HaState,
    /// Why, in one sentence.
    pub why: String,
    /// Place nothing new there.
    pub quarantined: bool,
    /// It is known to be broken.
    pub acked: bool,
    /// The driver's last error in its fence, until the fence ends.
    pub error: Option<BmcError>,
    /// What proves Fenced.
    pub proof: Option<Proof>,
    /// The order it belongs to.
    pub operation: Option<OperationId>,
}

/// The readings behind a verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// When each Off reading was begun, and its device: driver and address.
    pub readings: Vec<(Time, String)>,
    /// The health check after them, in one sentence.
    pub health: String,
    /// Whether an off was sent for it.
    pub off_sent: bool,
    /// Which attempt.
    pub attempt: u16,
}

/// What the gates said to a disruptive act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedReport {
    /// Which host.
    pub host: HostId,
    /// When.
    pub at: Time,
    /// To what.
    pub act: Act,
    /// Which attempt.
    pub attempt: u16,
    /// The order it belongs to.
    pub operation: Option<OperationId>,
    /// All answers.
    pub judgement: Judgement,
}

/// What the gates are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// A hard off.
    Off,
    /// A reset for recovery.
    Reset,
    /// Nothing: somebody wants to see the answers.
    Plan,
    /// To take an Off that nobody ordered for a fence. Nothing is sent, so most gates are not asked.
    Proof,
}

impl HaPart {
    pub(super) fn check(&self) -> Result<(), WireError> {
        if self.of == 0 || self.of > MAX_PARTS || self.part >= self.of {
            return Err(WireError::Bounds("part"));
        }
        bound("clusters", self.clusters.len(), MAX_CLUSTERS)?;
        bound("hosts", self.hosts.len(), MAX_HOSTS_PER_PART)?;
        self.hosts.iter().try_for_each(HostHa::check)
    }
}

impl HostHa {
    fn check(&self) -> Result<(), WireError> {
        bound("identity", self.identity.as_ref().map_or(0, String::len), 512)?;
        bound("pause.owner", self.pause.as_ref().map_or(0, |pause| pause.owner.len()), MAX_PRINCIPAL)?;
        bound("levels", self.levels.len(), MAX_LEVELS)?;
        for level in &self.levels {
            bound("level", level.len(), MAX_LEVELS)?;
            level.iter().try_for_each(super::assign::check_bmc)?;
        }
        check_settings(&self.settings)
    }
}

fn check_settings(settings: &HaSettings) -> Result<(), WireError> {
    bound("health", settings.health.len(), MAX_CHECKS)?;
    bound("activity", settings.activity.len(), MAX_CHECKS)?;
    for check in &settings.health {
        let place = match check {
            HealthCheck::Witness { address, .. } | HealthCheck::Tcp { address, .. } | HealthCheck::Icmp { address } => address,
            HealthCheck::Http { url } => url,
            HealthCheck::Exec { check } => check,
        };
        bound("health check", place.len(), MAX_PLACE)?;
    }
    for check in &settings.activity {
        let (paths, neighbours): (&[String], usize) = match check {
            ActivityCheck::Files { paths } => (paths, 0),
            ActivityCheck::Witness { paths, neighbours } => (paths, neighbours.len()),
            ActivityCheck::Heartbeat { path: place } | ActivityCheck::Exec { check: place } => (std::slice::from_ref(place), 0),
        };
        bound("paths", paths.len(), MAX_FILES)?;
        bound("neighbours", neighbours, MAX_NEIGHBOURS)?;
        paths.iter().try_for_each(|path| bound("path", path.len(), MAX_PLACE))?;
    }
    let at_least_one = [
        ("health_interval", settings.health_interval),
        ("health_timeout", settings.health_timeout),
        ("failures", settings.failures.into()),
        ("activity_interval", settings.activity_interval),
        ("activity_timeout", settings.activity_timeout),
        ("samples", settings.samples.into()),
        ("confirmations", settings.confirmations.into()),
        ("confirm_within", settings.confirm_within),
    ];
    at_least_one.into_iter().try_for_each(|(name, value)| if value == 0 { Err(WireError::Bounds(name)) } else { Ok(()) })
}

impl Surroundings {
    pub(super) fn check(&self) -> Result<(), WireError> {
        bound("clusters", self.clusters.len(), MAX_CLUSTERS)
    }
}

impl HaCommand {
    pub(super) fn check(&self) -> Result<(), WireError> {
        bound("by", self.by.len(), MAX_PRINCIPAL)?;
        bound("reason", self.reason.len(), MAX_TEXT)?;
        match &self.verb {
            HaVerb::Fence { overrides } => bound("overrides", overrides.len(), Gate::ALL.len()),
            _ => Ok(()),
        }
    }
}

impl HaReport {
    pub(super) fn check(&self) -> Result<(), WireError> {
        bound("why", self.why.len(), MAX_TEXT)?;
        let Some(proof) = &self.proof else { return Ok(()) };
        bound("readings", proof.readings.len(), 64)?;
        bound("health", proof.health.len(), MAX_TEXT)
    }
}

impl JudgedReport {
    pub(super) fn check(&self) -> Result<(), WireError> {
        bound("judgement", self.judgement.0.len(), Gate::ALL.len())?;
        self.judgement.0.iter().try_for_each(|answer| bound("inputs", answer.inputs.len(), MAX_TEXT))
    }
}
