//! Host-HA in the API: settings as asked, where a host stands, and what people order. Times in seconds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Field;
use crate::command::BmcError;
use crate::failure_cap::Cap;
use crate::ha::settings::{ActivityCheck, HaSettings, HealthCheck, Mode, NothingToCheck};
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

/// What stands of a patch: each value that somebody set, and what is in force where nobody did.
macro_rules! own {
    ($(#[$doc:meta])* $own:ident of $patch:ident over $whole:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $own {
            $(
                #[doc = concat!("See [`", stringify!($patch), "::", stringify!($field), "`].")]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }

        impl $own {
            /// The same after a change.
            #[must_use]
            pub fn patched(&self, patch: $patch) -> Self {
                Self { $($field: patch.$field.over(self.$field.clone()),)* }
            }

            /// What is in force: this, else `inherited`, else the default.
            #[must_use]
            pub fn over(&self, inherited: &Self) -> $whole {
                let default = $whole::default();
                $whole { $($field: self.$field.clone().or_else(|| inherited.$field.clone()).unwrap_or(default.$field),)* }
            }
        }

        impl $patch {
            /// What it changes, by name: to which value, as JSON.
            #[must_use]
            pub fn changes(&self) -> Vec<(&'static str, String)> {
                let mut changes = Vec::new();
                $(match &self.$field {
                    Field::Keep => {}
                    Field::Unset => changes.push((stringify!($field), "null".to_owned())),
                    Field::Set(value) => changes.push((stringify!($field), serde_json::to_string(value).unwrap_or_default())),
                })*
                changes
            }
        }
    };
}

own! {
    /// `ha` of a cluster or host as somebody set it; what is absent is inherited.
    HaOwn of HaPatch over HaSettings {
        policy: OutagePolicy,
        mode: Mode,
        health: Vec<HealthCheck>,
        activity: Vec<ActivityCheck>,
        nothing_to_check: NothingToCheck,
        health_interval: u16,
        health_timeout: u16,
        failures: u8,
        activity_interval: u16,
        activity_timeout: u16,
        samples: u8,
        recheck: u32,
        recovery_attempts: u8,
        boot_wait: u32,
        stable: u32,
        fence_attempts: u16,
        fence_retry: u32,
        settle: u16,
        confirmations: u8,
        confirm_within: u16,
        startup_quiet: u32,
        identity_waived: bool,
        fence_on_return: bool,
    }
}

own! {
    /// `brakes` of a cluster as somebody set them; what is absent is the default.
    BrakesOwn of BrakesPatch over Brakes {
        cap: u16,
        cap_window: u32,
        storm_rack: u8,
        storm_cluster: u8,
        storm_zone: u8,
        cool_down: u32,
        cliff: u8,
        somewhere_to_go: bool,
        isolation: bool,
    }
}

/// `brakes` of a cluster in force: see [`BrakesPatch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the brake of its name in `BrakesPatch`")]
pub struct Brakes {
    pub cap: u16,
    pub cap_window: u32,
    pub storm_rack: u8,
    pub storm_cluster: u8,
    pub storm_zone: u8,
    pub cool_down: u32,
    pub cliff: u8,
    pub somewhere_to_go: bool,
    pub isolation: bool,
}

impl Default for Brakes {
    fn default() -> Self {
        Self {
            cap: Cap::CLUSTER.most,
            cap_window: 3600,
            storm_rack: 30,
            storm_cluster: 20,
            storm_zone: 10,
            cool_down: 600,
            cliff: 50,
            somewhere_to_go: true,
            isolation: true,
        }
    }
}

/// `brakes` in `GET /v1/clusters/{c}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakesView {
    /// In force.
    #[serde(flatten)]
    pub brakes: Brakes,
    /// How many agents have hosts with HA of the cluster: each may switch off one within the window, cut off or not.
    pub agents: u16,
    /// Most power-downs within the window, if all agents are cut off: the cap, or one an agent if that is more.
    pub worst_case: u16,
}

/// Body of `POST /v1/{hosts,clusters}/{id}/pause`: until when nothing disruptive is done by itself; one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseBody {
    /// Until then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    /// For so many minutes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub minutes: Option<u32>,
    /// Why (at most 500 characters).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// A window in which nothing disruptive is done by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseWindow {
    /// Whose it is.
    pub owner: String,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// Answer of `…/ha/{enable,disable}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaEnablement {
    /// `host`, `cluster` or `zone`.
    pub scope: String,
    /// Its id.
    pub id: String,
    /// Its HA gate now.
    pub ha_enabled: bool,
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
    /// What kind of that state: what is missing (`ineligible`), why nothing is done (`degraded`), `released`, `restarting` or
    /// `returned` (`fenced`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
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
    /// To what: `off`, `reset`, `plan`, `proof`.
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
