//! What kind of BMC it is: suites, limits, delays, and how it answers where vendors differ. Faults are elsewhere.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chassis::Delays;

/// One BMC's character. `PUT /bmcs/{select}/profile` merges the given keys into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// From "power up" to On, ms.
    pub on_delay_ms: u64,
    /// From "power down" to Off, ms.
    pub off_delay_ms: u64,
    /// From a soft shutdown's order to Off, ms.
    pub soft_delay_ms: u64,
    /// How long a cycle stays off, ms.
    pub cycle_pause_ms: u64,

    /// Cipher suites offered: 17 and 3 are known.
    pub suites: Vec<u8>,
    /// IPMI completion code of "off" when off: 0 (as most) or 0xD5 (as Dell).
    pub off_when_off: u8,
    /// IPMI completion code of "cycle" when off: 0xD5, 0xCC, or 0, which turns on as some do.
    pub cycle_when_off: u8,
    /// IPMI completion code of "reset" when off; 0 is accepted and does nothing.
    pub reset_when_off: u8,
    /// Bits 6:5 of the chassis status: 0 stays off, 1 as before, 2 always on, 3 unknown.
    pub restore_policy: u8,
    /// BMC key Kg, at most 20 bytes; empty: none.
    pub kg: String,
    /// Longest IPMI password: 20 bytes, or 16 as older ones.
    pub password_max: usize,
    /// IPMI sessions at a time, half-open ones included.
    pub ipmi_sessions: usize,
    /// An IPMI session silent for so long is gone (IPMI 2.0 §6.12.15: 60 s ± 3 s).
    pub ipmi_idle_ms: u64,
    /// Answers RAKP 1 of an unknown user with 0x0D; otherwise with silence, as some do.
    pub tells_unknown_user: bool,
    /// RAKP 2 status when the asked privilege is above the user's limit.
    pub privilege_status: u8,
    /// Refuses to open at anything but the user's exact maximum (Xyratex).
    pub exact_privilege: bool,
    /// Executes an exact replay of a datagram again, as `ipmi_sim` does, instead of dropping it.
    pub executes_replays: bool,

    /// Refused logins before the user is locked; 0: never.
    pub lockout_after: u32,
    /// How long a user stays locked, ms.
    pub lockout_ms: u64,

    /// HTTP status of a Redfish reset that asks for what is so already: 204, 409 (Dell) or 400 (iLO).
    pub redfish_already: u16,
    /// The reset types it allows.
    pub reset_types: Vec<String>,
    /// Shows the reset types by `@Redfish.ActionInfo` instead of `AllowableValues`.
    pub action_info: bool,
    /// Where the reset action's target is; empty: the usual place.
    pub reset_target: String,
    /// The system's id in its URI.
    pub system_id: String,
    /// More systems listed beside it (always on, nothing to be done with them).
    pub other_systems: Vec<String>,
    /// Whether there is a session service (404 otherwise; then basic authentication only).
    pub session_service: bool,
    /// Redfish sessions at a time; one more is 503 with Retry-After, as Dell's RAC0218.
    pub redfish_sessions: usize,
    /// A Redfish session silent for so long is gone.
    pub redfish_idle_ms: u64,
    /// PATCH needs If-Match: 428 without, 412 when it does not match.
    pub needs_if_match: bool,
    /// ETags are weak (`W/"…"`) in headers, and only the strong form is accepted back.
    pub weak_etags: bool,
    /// Says PoweringOn and PoweringOff while under way; otherwise the old state.
    pub transitional_states: bool,
    /// Manufacturer.
    pub manufacturer: String,
    /// Model.
    pub model: String,
    /// BMC firmware, `major.minor`.
    pub firmware: String,
    /// IPMI: IANA number of the manufacturer.
    pub manufacturer_id: u32,
    /// IPMI: product number.
    pub product_id: u16,
    /// IPMI: in which order the system GUID's bytes are sent.
    pub guid_order: GuidOrder,
    /// IPMI: Chassis Identify has one byte; two are 0xC7, as of old.
    pub identify_one_byte: bool,
    /// IPMI: login codes are made with the privilege of Open Session (`opensesspriv`).
    pub open_session_privilege: bool,
    /// IPMI: a GUID, boot options and users are unknown (0xC1).
    pub bare: bool,
    /// Redfish: which of the two indicator properties a system has.
    pub led: Led,
    /// Redfish: what `BootSourceOverrideTarget` may be.
    pub boot_targets: Vec<String>,
    /// Redfish: any If-Match is 412.
    pub refuses_if_match: bool,
    /// Shortest password that Redfish takes; a shorter one is against policy (400).
    pub password_min: usize,
    /// Redfish: empty account slots beside the users, as Dell has them.
    pub empty_accounts: u8,
    /// Redfish: members of a page of the accounts; 0 is all on one.
    pub account_page: usize,
}

/// Orders of a GUID's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuidOrder {
    /// As it is written (RFC 4122).
    Written,
    /// The last byte first, as the specification has it (§20.8).
    Reversed,
    /// The first three fields the other way round.
    Smbios,
}

/// Indicator properties of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Led {
    /// `LocationIndicatorActive` and `IndicatorLED`.
    Both,
    /// `LocationIndicatorActive` alone.
    Location,
    /// `IndicatorLED` alone.
    Indicator,
    /// Neither.
    None,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            on_delay_ms: 500,
            off_delay_ms: 500,
            soft_delay_ms: 3_000,
            cycle_pause_ms: 1_000,
            suites: vec![3, 17],
            off_when_off: 0,
            cycle_when_off: 0xD5,
            reset_when_off: 0xD5,
            restore_policy: 0,
            kg: String::new(),
            password_max: 20,
            ipmi_sessions: 15,
            ipmi_idle_ms: 60_000,
            tells_unknown_user: true,
            privilege_status: 0x0A,
            exact_privilege: false,
            executes_replays: false,
            lockout_after: 0,
            lockout_ms: 60_000,
            redfish_already: 204,
            reset_types: [
                "On",
                "ForceOff",
                "GracefulShutdown",
                "GracefulRestart",
                "ForceRestart",
                "Nmi",
                "ForceOn",
                "PushPowerButton",
                "PowerCycle",
            ]
            .map(String::from)
            .to_vec(),
            action_info: false,
            reset_target: String::new(),
            system_id: "1".into(),
            other_systems: Vec::new(),
            session_service: true,
            redfish_sessions: 16,
            redfish_idle_ms: 1_800_000,
            needs_if_match: false,
            weak_etags: false,
            transitional_states: true,
            manufacturer: "Picket".into(),
            model: "bmcsim".into(),
            firmware: "1.23".into(),
            manufacturer_id: 0,
            product_id: 0,
            guid_order: GuidOrder::Written,
            identify_one_byte: false,
            open_session_privilege: false,
            bare: false,
            led: Led::Both,
            boot_targets: ["None", "Pxe", "Hdd", "Cd", "BiosSetup", "UefiHttp"].map(String::from).to_vec(),
            refuses_if_match: false,
            password_min: 1,
            empty_accounts: 0,
            account_page: 0,
        }
    }
}

impl Profile {
    /// The delays as durations.
    #[must_use]
    pub const fn delays(&self) -> Delays {
        Delays {
            on: Duration::from_millis(self.on_delay_ms),
            off: Duration::from_millis(self.off_delay_ms),
            soft: Duration::from_millis(self.soft_delay_ms),
            pause: Duration::from_millis(self.cycle_pause_ms),
        }
    }

    /// This profile with the keys of `patch` (a JSON object) put over it.
    ///
    /// # Errors
    /// When a key is unknown or a value has the wrong type.
    pub fn patched(&self, patch: &serde_json::Value) -> Result<Self, serde_json::Error> {
        let mut whole = serde_json::to_value(self)?;
        if let (Some(whole), Some(patch)) = (whole.as_object_mut(), patch.as_object()) {
            whole.extend(patch.clone());
        }
        serde_json::from_value(whole)
    }
}
