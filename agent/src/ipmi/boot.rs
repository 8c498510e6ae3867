//! The boot device: Set System Boot Options, parameter 5, between "set in progress" and "set complete", and read back.

use ipmi_rs_core::connection::{IpmiCommand, Message, NetFn, NotEnoughData};
use picket_common::command::{BootDevice, Persistence};

use super::command::{DeviceId, GetDeviceId};
use super::quirks::{Quirk, Quirks};
use super::request::Reply;
use super::script::Turn;
use super::settings::Settings;
use super::unusable::Unusable;
use crate::bmc::{Answer, Ask};

/// CC 0x80: the parameter is not supported.
const CC_NO_PARAMETER: u8 = 0x80;
/// CC 0x81: somebody else's "set in progress".
const CC_IN_PROGRESS: u8 = 0x81;
/// CC 0xC1: the command is not supported.
const CC_NO_COMMAND: u8 = 0xC1;

/// Device selectors (table 28-14, parameter 5, data 2 bits 5:2).
const NO_OVERRIDE: u8 = 0;
const PXE: u8 = 1;
const DISK: u8 = 2;
const SETUP: u8 = 6;
const PRIMARY_REMOTE_MEDIA: u8 = 9;

/// Set System Boot Options (§28.12).
#[derive(Debug, Clone, Copy)]
pub enum SetBootOption {
    /// Parameter 0: whether somebody is setting boot options.
    InProgress(bool),
    /// Parameter 3: the flags hold longer than the 60 s after which BMCs clear them unless the host is restarted.
    KeepFlags,
    /// Parameter 5.
    Flags(BootFlags),
}

impl From<SetBootOption> for Message {
    fn from(option: SetBootOption) -> Self {
        let data = match option {
            SetBootOption::InProgress(begun) => vec![0, u8::from(begun)],
            SetBootOption::KeepFlags => vec![3, 0x08],
            SetBootOption::Flags(flags) => flags.parameter(),
        };
        Self::new_request(NetFn::Chassis, 0x08, data)
    }
}

/// Boot flags: parameter 5 as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootFlags {
    /// The BMC shall heed them.
    pub valid: bool,
    /// For every boot, not only the next.
    pub persistent: bool,
    /// The host boots by UEFI.
    pub uefi: bool,
    /// Device selector.
    pub device: u8,
}

impl BootFlags {
    fn wanted(device: BootDevice, persistence: Persistence, uefi: bool, quirks: Quirks) -> Self {
        let device = match device {
            BootDevice::None => NO_OVERRIDE,
            BootDevice::Pxe => PXE,
            BootDevice::Disk if uefi && quirks.has(Quirk::UefiDisk) => PRIMARY_REMOTE_MEDIA,
            BootDevice::Disk => DISK,
            BootDevice::Bios => SETUP,
        };
        // "No override" for every boot and for the next are the same.
        let persistent = persistence == Persistence::Persistent && device != NO_OVERRIDE;
        Self { valid: true, persistent, uefi, device }
    }

    fn parameter(self) -> Vec<u8> {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = bit(self.valid, 0x80) | bit(self.persistent, 0x40) | bit(self.uefi, 0x20);
        vec![5, flags, self.device << 2, 0, 0, 0]
    }

    /// Whether what is read back does what was asked for. Whether UEFI is shown again differs between BMCs, and some show
    /// the device alone (OpenIPMI's lanserv).
    fn is_met_by(self, shown: Self) -> bool {
        if self.device == NO_OVERRIDE {
            return !shown.valid || shown.device == NO_OVERRIDE;
        }
        let shows_no_flags = !shown.valid && !shown.persistent && !shown.uefi;
        shown.device == self.device && (shows_no_flags || (shown.valid && shown.persistent == self.persistent))
    }
}

impl std::fmt::Display for BootFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.valid {
            return f.write_str("no valid boot flags");
        }
        let device = match self.device {
            NO_OVERRIDE => "no override".to_owned(),
            PXE => "network".to_owned(),
            DISK => "disk".to_owned(),
            SETUP => "firmware setup".to_owned(),
            PRIMARY_REMOTE_MEDIA => "primary remote media".to_owned(),
            other => format!("device {other}"),
        };
        write!(f, "{device}, {}", if self.persistent { "for every boot" } else { "for the next boot" })
    }
}

/// Get System Boot Options (§28.13), parameter 5.
#[derive(Debug, Clone, Copy)]
pub struct GetBootFlags;

impl From<GetBootFlags> for Message {
    fn from(_: GetBootFlags) -> Self {
        Self::new_request(NetFn::Chassis, 0x09, vec![5, 0, 0])
    }
}

impl IpmiCommand for GetBootFlags {
    type Output = BootFlags;
    type Error = NotEnoughData;

    fn parse_success_response(data: &[u8]) -> Result<BootFlags, NotEnoughData> {
        let [_version, parameter, flags, device, ..] = *data else { return Err(NotEnoughData) };
        // Bit 7 of the parameter number: the parameter is marked invalid or locked.
        let valid = flags & 0x80 != 0 && parameter & 0x80 == 0;
        Ok(BootFlags { valid, persistent: flags & 0x40 != 0, uefi: flags & 0x20 != 0, device: device >> 2 & 0x0F })
    }
}

/// Which answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Device,
    Begin {
        again: bool,
    },
    /// Somebody else's "set in progress" is taken back.
    Clear,
    Keep,
    Flags,
    Complete(Option<u8>),
    ReadBack,
}

/// Setting the boot device, step by step.
///
/// ```text
/// [Device] ─▶ Begin ─▶ [Keep] ─▶ Flags ─▶ Complete ─▶ ReadBack ─▶ end
///              ▲  │ 0x81, once            (also when Flags were refused: then the end)
///              └─ Clear
/// ```
#[derive(Debug)]
pub struct Setting {
    device: BootDevice,
    persistence: Persistence,
    flags: BootFlags,
    in_progress: bool,
    stage: Stage,
}

impl Setting {
    /// Begins; the first request is [`Self::first`].
    #[must_use]
    pub fn new(device: BootDevice, persistence: Persistence, settings: &Settings) -> Self {
        // Which kind of BMC it is matters to this alone.
        let ask_who = device == BootDevice::Disk && settings.boots_by_uefi;
        let stage = if ask_who { Stage::Device } else { Stage::Begin { again: false } };
        let quirks = settings.wishes.in_force(Quirks::default(), None);
        let flags = BootFlags::wanted(device, persistence, settings.boots_by_uefi, quirks);
        Self { device, persistence, flags, in_progress: false, stage }
    }

    /// The first request.
    #[must_use]
    pub fn first(&self) -> Message {
        match self.stage {
            Stage::Device => GetDeviceId.into(),
            _ => SetBootOption::InProgress(true).into(),
        }
    }

    /// Whether the flags were sent: a failure from then on does not mean that they are not set.
    #[must_use]
    pub const fn is_order_out(&self) -> bool {
        matches!(self.stage, Stage::Flags | Stage::Complete(None) | Stage::ReadBack)
    }

    /// Takes the answer to the request before.
    pub fn next(&mut self, reply: &Reply, settings: &Settings) -> Turn {
        let code = reply.completion_code;
        match self.stage {
            Stage::Device => {
                let device: Option<DeviceId> = GetDeviceId::parse_success_response(reply.data()).ok().filter(|_| code == 0);
                let quirks = settings.wishes.in_force(Quirks::default(), device.as_ref());
                self.flags = BootFlags::wanted(self.device, self.persistence, settings.boots_by_uefi, quirks);
                self.send(Stage::Begin { again: false }, SetBootOption::InProgress(true))
            }
            Stage::Begin { .. } if code == CC_NO_COMMAND => self.end(Err(Unusable::Unsupported { ask: self.ask(), code })),
            Stage::Begin { again: true } if code == CC_IN_PROGRESS => self.end(Err(Unusable::Code { ask: self.ask(), code })),
            // Set long ago by somebody who went away; whoever is really at it sets the flags again.
            Stage::Begin { again: false } if code == CC_IN_PROGRESS => self.send(Stage::Clear, SetBootOption::InProgress(false)),
            Stage::Begin { .. } => {
                // Optional (§28.12): a BMC may not know parameter 0.
                self.in_progress = code == 0;
                if self.flags.device == NO_OVERRIDE { self.set_flags() } else { self.send(Stage::Keep, SetBootOption::KeepFlags) }
            }
            Stage::Clear => self.send(Stage::Begin { again: true }, SetBootOption::InProgress(true)),
            // Not every BMC has this parameter; then the flags hold for a minute.
            Stage::Keep => self.set_flags(),
            Stage::Flags if self.in_progress => {
                self.send(Stage::Complete((code != 0).then_some(code)), SetBootOption::InProgress(false))
            }
            Stage::Flags if code != 0 => self.refused(code),
            Stage::Complete(Some(code)) => self.refused(code),
            Stage::Flags | Stage::Complete(None) => {
                self.stage = Stage::ReadBack;
                Turn::Send(GetBootFlags.into())
            }
            Stage::ReadBack => self.end(self.read_back(reply)),
        }
    }

    fn set_flags(&mut self) -> Turn {
        self.send(Stage::Flags, SetBootOption::Flags(self.flags))
    }

    fn refused(&self, code: u8) -> Turn {
        self.end(Err(match code {
            CC_NO_PARAMETER => Unusable::Unsupported { ask: self.ask(), code },
            _ => Unusable::Code { ask: self.ask(), code },
        }))
    }

    fn read_back(&self, reply: &Reply) -> Result<Answer, Unusable> {
        let shown = GetBootFlags::parse_success_response(reply.data()).ok().filter(|_| reply.completion_code == 0);
        match shown {
            Some(shown) if self.flags.is_met_by(shown) => Ok(Answer::Done),
            Some(shown) => Err(Unusable::NotTaken { wanted: self.flags.to_string(), shown: shown.to_string() }),
            None => Err(Unusable::NotReadBack { code: reply.completion_code }),
        }
    }

    const fn ask(&self) -> Ask {
        Ask::Bootdev { device: self.device, persistence: self.persistence }
    }

    fn send(&mut self, stage: Stage, option: SetBootOption) -> Turn {
        self.stage = stage;
        Turn::Send(option.into())
    }

    const fn end(&self, result: Result<Answer, Unusable>) -> Turn {
        Turn::End(result)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn settings(options: &[(&str, &str)]) -> Settings {
        let options: BTreeMap<String, String> = options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Settings::parse("u", "p", &options).unwrap()
    }

    /// Plays a BMC: (netfn command, data) to (code, data); returns what was sent and how it ended.
    fn play(
        mut setting: Setting,
        settings: &Settings,
        mut bmc: impl FnMut(u8, &[u8]) -> (u8, Vec<u8>),
    ) -> (Vec<Vec<u8>>, Result<Answer, Unusable>) {
        let mut message = setting.first();
        let mut sent = Vec::new();
        for _ in 0..20 {
            sent.push([&[message.cmd()], message.data()].concat());
            let (code, data) = bmc(message.cmd(), message.data());
            match setting.next(&Reply::new(Duration::ZERO, code, &data), settings) {
                Turn::Send(next) => message = next,
                Turn::End(result) => return (sent, result),
                Turn::SendOnce(_) | Turn::Try(_) => panic!("all of it may be repeated and must be answered"),
            }
        }
        panic!("no end: {sent:02x?}");
    }

    /// Takes the flags and shows them.
    fn ordinary() -> impl FnMut(u8, &[u8]) -> (u8, Vec<u8>) {
        let mut flags = vec![0; 5];
        move |command, data| match (command, data) {
            (8, [5, rest @ ..]) => {
                flags = rest.to_vec();
                (0, Vec::new())
            }
            (9, [5, ..]) => (0, [&[1, 5], flags.as_slice()].concat()),
            (1, _) => (0, vec![0x20, 1, 2, 0x34, 2, 0, 0x7C, 0x2A, 0, 1, 9]),
            _ => (0, Vec::new()),
        }
    }

    #[test]
    fn the_flags_go_between_begin_and_complete() {
        use BootDevice::{Bios, Disk, None, Pxe};
        use Persistence::{Once, Persistent};
        let legacy = settings(&[("boot_mode", "legacy")]);
        for (device, persistence, flags) in [
            (Pxe, Once, [5, 0x80, 1 << 2, 0, 0, 0]),
            (Pxe, Persistent, [5, 0xC0, 1 << 2, 0, 0, 0]),
            (Disk, Once, [5, 0x80, 2 << 2, 0, 0, 0]),
            (Bios, Once, [5, 0x80, 6 << 2, 0, 0, 0]),
        ] {
            let (sent, result) = play(Setting::new(device, persistence, &legacy), &legacy, ordinary());
            assert_eq!(result, Ok(Answer::Done));
            let set = [&[8], &flags[..]].concat();
            assert_eq!(sent, [vec![8, 0, 1], vec![8, 3, 8], set, vec![8, 0, 0], vec![9, 5, 0, 0]], "{device:?}");
        }
        let (sent, result) = play(Setting::new(None, Persistent, &legacy), &legacy, ordinary());
        assert_eq!(result, Ok(Answer::Done));
        assert_eq!(sent, [vec![8, 0, 1], vec![8, 5, 0x80, 0, 0, 0, 0], vec![8, 0, 0], vec![9, 5, 0, 0]]);
    }

    #[test]
    fn a_disk_by_uefi_depends_on_the_bmc_and_the_option() {
        for (options, selector) in
            [(&[][..], PRIMARY_REMOTE_MEDIA), (&[("quirks", "no-uefidisk")], DISK), (&[("boot_mode", "legacy")], DISK)]
        {
            let settings = settings(options);
            let (sent, result) = play(Setting::new(BootDevice::Disk, Persistence::Once, &settings), &settings, ordinary());
            assert_eq!(result, Ok(Answer::Done));
            let flags = sent.iter().find(|message| message.starts_with(&[8, 5])).unwrap();
            assert_eq!(flags[3], selector << 2, "{options:?}");
        }
    }

    #[test]
    fn what_bmcs_refuse() {
        let settings = settings(&[]);
        let pxe = || Setting::new(BootDevice::Pxe, Persistence::Once, &settings);
        let ask = pxe().ask();
        // Neither parameter 0 nor 3 is known: that does not matter.
        let mut bmc = ordinary();
        let (sent, result) =
            play(pxe(), &settings, |cmd, data| if cmd == 8 && data[0] != 5 { (0x80, Vec::new()) } else { bmc(cmd, data) });
        assert_eq!(result, Ok(Answer::Done));
        assert_eq!(sent.len(), 4, "nothing is completed that was not begun: {sent:02x?}");
        // The flags are refused: the setting is completed all the same.
        for (code, expected) in [(0xCC, Unusable::Code { ask, code: 0xCC }), (0x80, Unusable::Unsupported { ask, code: 0x80 })] {
            let (sent, result) = play(pxe(), &settings, |cmd, data| (if cmd == 8 && data[0] == 5 { code } else { 0 }, Vec::new()));
            assert_eq!(result, Err(expected));
            assert_eq!(sent.last(), Some(&vec![8, 0, 0]));
        }
        let (_, result) = play(pxe(), &settings, |_, _| (0xC1, Vec::new()));
        assert_eq!(result, Err(Unusable::Unsupported { ask, code: 0xC1 }));
        // Left in progress by somebody: taken back, once.
        let (mut bmc, mut first) = (ordinary(), true);
        let (sent, result) = play(pxe(), &settings, |cmd, data| {
            if cmd == 8 && data == [0, 1] && std::mem::take(&mut first) { (0x81, Vec::new()) } else { bmc(cmd, data) }
        });
        assert_eq!(result, Ok(Answer::Done));
        assert_eq!(sent[..3], [vec![8, 0, 1], vec![8, 0, 0], vec![8, 0, 1]]);
        let (_, result) = play(pxe(), &settings, |cmd, data| (if (cmd, data) == (8, &[0, 1]) { 0x81 } else { 0 }, Vec::new()));
        assert_eq!(result, Err(Unusable::Code { ask, code: 0x81 }));
    }

    #[test]
    fn acknowledged_is_not_taken() {
        let settings = settings(&[]);
        for (shown, taken) in [
            (vec![1, 5, 0x80, 1 << 2, 0, 0, 0], true),
            (vec![1, 5, 0xA0, 1 << 2, 0, 0, 0], true),
            (vec![1, 5, 0xC0, 1 << 2, 0, 0, 0], false),
            (vec![1, 5, 0x80, 2 << 2, 0, 0, 0], false),
            (vec![1, 5, 0x00, 1 << 2, 0, 0, 0], true),
            (vec![1, 5, 0x20, 1 << 2, 0, 0, 0], false),
            (vec![1, 5, 0x00, 2 << 2, 0, 0, 0], false),
            (vec![1, 0x85, 0xA0, 1 << 2, 0, 0, 0], false),
            (vec![1, 5, 0x80], false),
        ] {
            let setting = Setting::new(BootDevice::Pxe, Persistence::Once, &settings);
            let (_, result) = play(setting, &settings, |cmd, _| (0, if cmd == 9 { shown.clone() } else { Vec::new() }));
            assert_eq!(result.is_ok(), taken, "{shown:02x?}: {result:?}");
        }
        let none = Setting::new(BootDevice::None, Persistence::Once, &settings);
        let (_, result) = play(none, &settings, |cmd, _| (0, if cmd == 9 { vec![1, 5, 0, 4, 0, 0, 0] } else { Vec::new() }));
        assert_eq!(result, Ok(Answer::Done), "flags that are not valid override nothing");
    }
}
