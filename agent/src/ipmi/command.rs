//! The IPMI commands that `ipmi-rs-core` lacks, in its manner: a command becomes a message and reads its own answer.

use ipmi_rs_core::connection::{IpmiCommand, Message, NetFn, NotEnoughData};

use super::settings::Privilege;

/// What the host does when mains power returns (table 28-3). Matters to fencing at the outlet: all but
/// [`RestorePolicy::StayOff`] can switch a fenced host on again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestorePolicy {
    /// Stays off.
    StayOff,
    /// Returns to what it was.
    Previous,
    /// Switches on.
    On,
    /// The BMC does not say.
    Unknown,
}

/// Get Chassis Status (§28.2).
#[derive(Debug, Clone, Copy)]
pub struct GetChassisStatus;

/// The answer to [`GetChassisStatus`], whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChassisStatus {
    /// System power is on.
    pub power_on: bool,
    /// Power overload caused a shut-down.
    pub overload: bool,
    /// A fault was found in the main power subsystem.
    pub power_fault: bool,
    /// The controller could not switch power as told.
    pub control_fault: bool,
    /// What happens when mains power returns.
    pub restore_policy: RestorePolicy,
    /// Byte 2 as sent: why power went off last, and bit 4: the last on came by an IPMI command.
    pub last_power_event: u8,
    /// Byte 3 as sent: intrusion, lock-out, drive fault, cooling fault, identify state.
    pub misc: u8,
}

impl From<GetChassisStatus> for Message {
    fn from(_: GetChassisStatus) -> Self {
        Self::new_request(NetFn::Chassis, 0x01, Vec::new())
    }
}

impl IpmiCommand for GetChassisStatus {
    type Output = ChassisStatus;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<ChassisStatus, NotEnoughData> {
        let [power, last_power_event, misc, ..] = *data else { return Err(NotEnoughData) };
        Ok(ChassisStatus {
            power_on: power & 0x01 != 0,
            overload: power & 0x02 != 0,
            power_fault: power & 0x08 != 0,
            control_fault: power & 0x10 != 0,
            restore_policy: match (power >> 5) & 0x03 {
                0 => RestorePolicy::StayOff,
                1 => RestorePolicy::Previous,
                2 => RestorePolicy::On,
                _ => RestorePolicy::Unknown,
            },
            last_power_event,
            misc,
        })
    }
}

/// Chassis Control (§28.3). Cycle is missing on purpose: it cannot be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChassisControl {
    /// Off, hard.
    PowerDown,
    /// On.
    PowerUp,
    /// Warm reset.
    HardReset,
    /// Ask the operating system to shut down.
    SoftShutdown,
    /// Non-maskable interrupt, for a crash dump.
    DiagnosticInterrupt,
}

impl From<ChassisControl> for Message {
    fn from(control: ChassisControl) -> Self {
        let number = match control {
            ChassisControl::PowerDown => 0,
            ChassisControl::PowerUp => 1,
            ChassisControl::HardReset => 3,
            ChassisControl::DiagnosticInterrupt => 4,
            ChassisControl::SoftShutdown => 5,
        };
        Self::new_request(NetFn::Chassis, 0x02, vec![number])
    }
}

/// Chassis Identify (§28.5): the LED that shows which host is meant.
#[derive(Debug, Clone, Copy)]
pub struct ChassisIdentify {
    /// Seconds to blink; 0 stops.
    pub seconds: u8,
    /// With the second byte, which takes back somebody's "blink until told otherwise"; old BMCs refuse it.
    pub whole: bool,
}

impl From<ChassisIdentify> for Message {
    fn from(identify: ChassisIdentify) -> Self {
        let data = if identify.whole { vec![identify.seconds, 0] } else { vec![identify.seconds] };
        Self::new_request(NetFn::Chassis, 0x04, data)
    }
}

/// Get System GUID (§22.14).
#[derive(Debug, Clone, Copy)]
pub struct GetSystemGuid;

impl From<GetSystemGuid> for Message {
    fn from(_: GetSystemGuid) -> Self {
        Self::new_request(NetFn::App, 0x37, Vec::new())
    }
}

impl IpmiCommand for GetSystemGuid {
    type Output = [u8; 16];
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<[u8; 16], NotEnoughData> {
        data.first_chunk().copied().ok_or(NotEnoughData)
    }
}

/// Get Device ID (§20.1), also in the 11-byte form without auxiliary revision that simple BMCs send.
#[derive(Debug, Clone, Copy)]
pub struct GetDeviceId;

/// What tells BMC models apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceId {
    /// Firmware revision, major (binary) and minor (BCD).
    pub firmware: (u8, u8),
    /// IANA number of the manufacturer.
    pub manufacturer: u32,
    /// The manufacturer's product number.
    pub product: u16,
}

impl From<GetDeviceId> for Message {
    fn from(_: GetDeviceId) -> Self {
        Self::new_request(NetFn::App, 0x01, Vec::new())
    }
}

impl IpmiCommand for GetDeviceId {
    type Output = DeviceId;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<DeviceId, NotEnoughData> {
        let [_, _, major, minor, _, _, m0, m1, m2, p0, p1, ..] = *data else { return Err(NotEnoughData) };
        Ok(DeviceId {
            firmware: (major & 0x7F, minor),
            manufacturer: u32::from_le_bytes([m0, m1, m2 & 0x0F, 0]),
            product: u16::from_le_bytes([p0, p1]),
        })
    }
}

/// Get Channel Authentication Capabilities (§22.13) for this channel, sent before a session.
#[derive(Debug, Clone, Copy)]
pub struct GetAuthCapabilities {
    /// Ask for the IPMI 2.0 extension (bit 7 of the channel); some BMCs answer only without.
    pub extended: bool,
    /// For sessions at this level.
    pub privilege: Privilege,
}

/// The part of the answer to [`GetAuthCapabilities`] that matters to RMCP+.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthCapabilities {
    /// Whether the channel offers IPMI 2.0 sessions; `None` when the answer lacks the extension.
    pub rmcp_plus: Option<bool>,
    /// A BMC key (Kg) other than zeros is set.
    pub bmc_key_set: bool,
    /// A user without name or password may log in.
    pub anonymous: bool,
    /// IPMI 1.5 sessions without any authentication are offered.
    pub unauthenticated: bool,
}

impl GetAuthCapabilities {
    /// Network function and command.
    pub const NUMBERS: (u8, u8) = (0x06, 0x38);

    /// The request's data.
    #[must_use]
    pub const fn data(self) -> [u8; 2] {
        [if self.extended { 0x8E } else { 0x0E }, self.privilege.number()]
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// Too few bytes.
    pub fn parse(data: &[u8]) -> Result<AuthCapabilities, NotEnoughData> {
        let [_, types, status, extended, ..] = *data else { return Err(NotEnoughData) };
        Ok(AuthCapabilities {
            rmcp_plus: (types & 0x80 != 0).then_some(extended & 0x02 != 0),
            bmc_key_set: status & 0x20 != 0,
            anonymous: status & 0x01 != 0,
            unauthenticated: types & 0x01 != 0,
        })
    }
}

/// Set Session Privilege Level (§22.18).
#[derive(Debug, Clone, Copy)]
pub struct SetSessionPrivilege(pub Privilege);

impl From<SetSessionPrivilege> for Message {
    fn from(set: SetSessionPrivilege) -> Self {
        Self::new_request(NetFn::App, 0x3B, vec![set.0.number()])
    }
}

/// Close Session (§22.19), by the BMC's session id.
#[derive(Debug, Clone, Copy)]
pub struct CloseSession(pub u32);

impl From<CloseSession> for Message {
    fn from(close: CloseSession) -> Self {
        Self::new_request(NetFn::App, 0x3C, close.0.to_le_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chassis_status_is_read_whole() {
        let table = [
            (vec![0x01, 0x00, 0x00], Some((true, RestorePolicy::StayOff))),
            (vec![0x20, 0x10, 0x40], Some((false, RestorePolicy::Previous))),
            (vec![0x41, 0x00, 0x00, 0x00], Some((true, RestorePolicy::On))),
            (vec![0x60, 0x00, 0x00], Some((false, RestorePolicy::Unknown))),
            (vec![0x01, 0x00], None),
            (vec![], None),
        ];
        for (bytes, expected) in table {
            let status = GetChassisStatus::parse_success_response(&bytes).ok();
            assert_eq!(status.map(|status| (status.power_on, status.restore_policy)), expected, "{bytes:02x?}");
        }
        let faults = GetChassisStatus::parse_success_response(&[0x1A, 0x0B, 0x0C]).unwrap();
        assert!(faults.overload && faults.power_fault && faults.control_fault && !faults.power_on);
    }

    #[test]
    fn requests_have_the_specified_bytes() {
        let table: [(Message, u8, u8, Vec<u8>); 9] = [
            (ChassisControl::PowerDown.into(), 0x00, 0x02, vec![0]),
            (ChassisControl::PowerUp.into(), 0x00, 0x02, vec![1]),
            (ChassisControl::HardReset.into(), 0x00, 0x02, vec![3]),
            (ChassisControl::SoftShutdown.into(), 0x00, 0x02, vec![5]),
            (SetSessionPrivilege(Privilege::Operator).into(), 0x06, 0x3B, vec![3]),
            (CloseSession(0x0403_0201).into(), 0x06, 0x3C, vec![1, 2, 3, 4]),
            (ChassisControl::DiagnosticInterrupt.into(), 0x00, 0x02, vec![4]),
            (ChassisIdentify { seconds: 15, whole: false }.into(), 0x00, 0x04, vec![15]),
            (ChassisIdentify { seconds: 0, whole: true }.into(), 0x00, 0x04, vec![0, 0]),
        ];
        for (message, netfn, command, data) in table {
            assert_eq!((message.netfn_raw(), message.cmd(), message.data()), (netfn, command, data.as_slice()));
        }
    }

    #[test]
    fn short_device_ids_are_read() {
        let eleven = [0x20, 0x01, 0x82, 0x34, 0x02, 0xBF, 0xA2, 0x02, 0x00, 0x00, 0x01];
        let id = GetDeviceId::parse_success_response(&eleven).unwrap();
        assert_eq!(id, DeviceId { firmware: (2, 0x34), manufacturer: 674, product: 0x0100 });
        assert!(GetDeviceId::parse_success_response(&eleven[..10]).is_err());
    }

    #[test]
    fn capabilities_without_the_extension_leave_rmcp_plus_open() {
        let parse = |data: &[u8]| GetAuthCapabilities::parse(data).ok().map(|caps| (caps.rmcp_plus, caps.bmc_key_set));
        assert_eq!(parse(&[1, 0x97, 0x24, 0x03]), Some((Some(true), true)));
        assert_eq!(parse(&[1, 0x84, 0x04, 0x01]), Some((Some(false), false)));
        assert_eq!(parse(&[1, 0x17, 0x04, 0x00]), Some((None, false)));
        assert_eq!(parse(&[1, 0x17, 0x04]), None);
    }
}
