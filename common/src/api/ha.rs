//! Host-HA in the API: settings as asked, where a host stands, and what people order. Times in seconds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Field;
use crate::command::BmcError;
use crate::ha::settings::{ActivityCheck, HealthCheck, Mode, NothingToCheck};
use crate::ha::{Gate, HaName, HostStatus, OutagePolicy};
use crate::policy::Judgement;

/// `ha` of `PATCH` of a host or cluster: what is left out stays, `null` is inherited from then on. In `PUT` what is left out is
/// inherited. Texts of checks may hold `{host}`: the host's id, so that a cluster can say it once for all its hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is the setting of its name in `ha::settings::HaSettings`")]
pub struct HaPatch {
    pub policy: Field<OutagePolicy>,
    pub mode: Field<Mode>,
    pub health: Field<Vec<HealthCheck>>,
    pub activity: Field<Vec<ActivityCheck>>,
    pub nothing_to_check: Field<NothingToCheck>,
    pub health_interval: Field<u16>,
    pub health_timeout: Field<u16>,
    pub failures: Field<u8>,
    pub activity_interval: Field<u16>,
    pub activity_timeout: Field<u16>,
    pub samples: Field<u8>,
    pub recheck: Field<u32>,
    pub recovery_attempts: Field<u8>,
    pub boot_wait: Field<u32>,
    pub stable: Field<u32>,
    pub fence_attempts: Field<u16>,
    pub fence_retry: Field<u32>,
    pub settle: Field<u16>,
    pub confirmations: Field<u8>,
    pub confirm_within: Field<u16>,
    pub startup_quiet: Field<u32>,
    pub identity_waived: Field<bool>,
    pub fence_on_return: Field<bool>,
}

/// `brakes` of a cluster: what bounds its power-downs. The same rules as for [`HaPatch`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrakesPatch {
    /// Most power-downs within the window (3).
    pub cap: Field<u16>,
    /// The window (3600).
    pub cap_window: Field<u32>,
    /// Share of a rack's hosts that may be unwell at once, in percent (30).
    pub storm_rack: Field<u8>,
    /// Of the cluster's (20).
    pub storm_cluster: Field<u8>,
    /// Of the zone's (10).
    pub storm_zone: Field<u8>,
    /// Quiet time after a storm (600).
    pub cool_down: Field<u32>,
    /// Share of a rack's hosts that may fall ill within 30 s, in percent (50); 0 = not looked at.
    pub cliff: Field<u8>,
    /// Whether another host of the cluster must be well (true).
    pub somewhere_to_go: Field<bool>,
    /// Whether a reference address or another BMC must answer (true).
    pub isolation: Field<bool>,
}

/// `ha` of a host in lists and on MQTT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHa {
    /// Where it stands.
    pub state: HaName,
    /// Since when.
    pub since: Timestamp,
    /// Why, in one sentence.
    pub why: String,
    /// Place nothing new there.
    pub quarantined: bool,
    /// What its fence waits for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<Gate>,
    /// Which attempt of a fence or a recovery.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u16>,
}

/// `GET /v1/hosts/{h}/ha`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaView {
    /// Where it stands; absent while its agent has said nothing.
    #[serde(flatten)]
    pub ha: Option<HostHa>,
    /// What an orchestrator may conclude.
    pub host_status: HostStatus,
    /// The first HA gate that is closed: `zone`, `cluster`, `host`; absent = all are open.
    pub closed: Option<String>,
    /// It is known to be broken.
    pub acked: bool,
    /// Why it stands there, a sentence a line.
    pub explain: Vec<String>,
    /// What would end it, a sentence a line.
    pub would_end: Vec<String>,
    /// What proves Fenced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proof: Option<Proof>,
    /// The driver's last error in its fence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<BmcError>,
    /// What the gates said last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub judged: Option<Judged>,
    /// Its settings in force, by name: `{"policy": {"value": …, "from": "cluster"}}`.
    pub settings: serde_json::Value,
}

/// See [`HaView::proof`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Its Off readings.
    pub readings: Vec<OffReading>,
    /// The health check after them, in one sentence.
    pub health: String,
    /// Whether an off was sent for it.
    pub off_sent: bool,
    /// Which attempt.
    pub attempt: u16,
    /// Who or which policy.
    pub by: String,
}

/// One Off reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffReading {
    /// When it was begun.
    pub at: Timestamp,
    /// Driver and address.
    pub device: String,
}

/// What the gates said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// When.
    pub at: Timestamp,
    /// To what: `off`, `reset`, `plan`.
    pub act: String,
    /// Which attempt.
    pub attempt: u16,
    /// Each gate's answer.
    pub judgement: Judgement,
    /// The first gate in the way; absent = all pass.
    pub held_by: Option<Gate>,
}

/// Body of `POST /v1/hosts/{h}/fence`, of `…/fence/{plan,confirm,abort,ack,release}` and of `…/ha/{reset-counters,end-cliff}`: each
/// answers as a power operation does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FenceBody {
    /// Why; needed for all but `plan`.
    #[serde(default)]
    pub reason: Option<String>,
    /// For `fence`: gates that are overridden, by name.
    #[serde(default)]
    pub overrides: Vec<Gate>,
    /// For `confirm`: although it reads On or answers.
    #[serde(default)]
    pub force: bool,
    /// Time the operation may take, in seconds (1 – 3600).
    #[serde(default)]
    pub timeout: Option<u64>,
}
