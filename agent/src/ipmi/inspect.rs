//! Learning what a BMC is and can do: chassis status, device id, system GUID, boot flags, the login's own account, and the
//! time of one status request. Only the chassis status must be answered; everything else a BMC may lack.

use std::time::Duration;

use ipmi_rs_core::connection::{IpmiCommand as _, Message};
use picket_common::facts::{Capability, Facts};

use super::boot::GetBootFlags;
use super::command::{ChassisStatus, DeviceId, GetChassisStatus, GetDeviceId, GetSystemGuid, RestorePolicy};
use super::quirks::{Quirk, Quirks, maker};
use super::request::Reply;
use super::script::{About, Turn};
use super::settings::{Interface, Privilege, Settings};
use super::suite::Suite;
use super::unusable::Unusable;
use super::user::{GetUserAccess, Looked, Lookup};
use super::{guid, power};
use crate::bmc::{Answer, Ask};

/// Which answer is waited for.
enum Stage {
    First,
    Device,
    Guid,
    Boot,
    Lookup(Lookup),
    Account,
    Last,
}

/// See the module.
pub struct Inspection {
    stage: Stage,
    device: Option<DeviceId>,
    guid: Option<[u8; 16]>,
    boots: bool,
    /// The login's own privilege limit, as the BMC's user table has it.
    limit: Option<u8>,
}

impl Inspection {
    /// Begins; the first request is a chassis status.
    #[must_use]
    pub const fn new() -> Self {
        Self { stage: Stage::First, device: None, guid: None, boots: false, limit: None }
    }

    /// Takes the answer to the request before; `None` for one that did not come and may be missing.
    pub fn next(&mut self, now: Duration, reply: Option<&Reply>, settings: &Settings, about: &About) -> Turn {
        let data = reply.filter(|reply| reply.completion_code == 0).map(Reply::data);
        match &mut self.stage {
            Stage::First => match reply.map(|reply| reply.completion_code) {
                Some(0) => self.go_on(Stage::Device, GetDeviceId),
                code => Turn::End(Err(Unusable::Code { ask: Ask::Inspect, code: code.unwrap_or(0xFF) })),
            },
            Stage::Device => {
                self.device = data.and_then(|data| GetDeviceId::parse_success_response(data).ok());
                self.go_on(Stage::Guid, GetSystemGuid)
            }
            Stage::Guid => {
                self.guid = data.and_then(|data| GetSystemGuid::parse_success_response(data).ok());
                self.go_on(Stage::Boot, GetBootFlags)
            }
            Stage::Boot => {
                self.boots = data.is_some_and(|data| GetBootFlags::parse_success_response(data).is_ok());
                if settings.interface == Interface::Open || settings.username.is_empty() {
                    return self.last();
                }
                let lookup = Lookup::new(settings.username.clone()).short();
                let first = lookup.first();
                self.go_on(Stage::Lookup(lookup), first)
            }
            Stage::Lookup(lookup) => match lookup.next(reply) {
                Looked::Send(message) => Turn::Try(message),
                Looked::Found(ids) => match ids.as_slice() {
                    [id] => {
                        let id = *id;
                        self.go_on(Stage::Account, GetUserAccess(id))
                    }
                    _ => self.last(),
                },
            },
            Stage::Account => {
                self.limit = data.and_then(|data| GetUserAccess::parse_success_response(data).ok()).map(|it| it.privilege_limit);
                self.last()
            }
            Stage::Last => Turn::End(self.end(now, reply, settings, about)),
        }
    }

    fn go_on(&mut self, stage: Stage, message: impl Into<Message>) -> Turn {
        self.stage = stage;
        Turn::Try(message.into())
    }

    fn last(&mut self) -> Turn {
        self.stage = Stage::Last;
        Turn::Send(GetChassisStatus.into())
    }

    fn end(&self, now: Duration, reply: Option<&Reply>, settings: &Settings, about: &About) -> Result<Answer, Unusable> {
        let refused = |code| Unusable::Code { ask: Ask::Inspect, code };
        let reply = reply.ok_or_else(|| refused(0xCE))?;
        if reply.completion_code != 0 {
            return Err(refused(reply.completion_code));
        }
        let reading = power::reading(reply)?;
        let status = GetChassisStatus::parse_success_response(reply.data());
        let status = status.map_err(|_| Unusable::Short { len: reply.data().len() })?;
        let latency = now.saturating_sub(reply.begun);
        let quirks = settings.wishes.in_force(about.detected, self.device.as_ref());
        let facts = Facts {
            identity: self.guid.and_then(guid::text),
            manufacturer: self.device.map(|device| maker(device.manufacturer)),
            product: self.device.map(|device| format!("{:#06x}", device.product)),
            firmware: self.device.map(|device| format!("{}.{:02x}", device.firmware.0, device.firmware.1)),
            protocol: Some(match about.suite {
                Some(suite) => format!("IPMI 2.0, cipher suite {}", suite.number()),
                None => "IPMI 2.0, kernel interface".to_owned(),
            }),
            privilege: about.privilege.map(|privilege| privilege.name().to_owned()),
            certificate: None,
            latency_us: Some(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)),
            capabilities: self.capabilities(),
            quirks: quirks.iter().map(|quirk| quirk.name().to_owned()).collect(),
            warnings: warnings(&status, quirks, about),
        };
        Ok(Answer::Facts(Box::new(facts.bounded()), reading))
    }

    fn capabilities(&self) -> Vec<Capability> {
        let mut able = vec![Capability::Power, Capability::Soft, Capability::Reset, Capability::Diag, Capability::Identify];
        if self.boots {
            able.push(Capability::Bootdev);
        }
        if self.limit.is_some_and(|limit| (Privilege::Administrator.number()..0x0F).contains(&limit)) {
            able.push(Capability::ChangePassword);
        }
        able
    }
}

impl Default for Inspection {
    fn default() -> Self {
        Self::new()
    }
}

fn warnings(status: &ChassisStatus, quirks: Quirks, about: &About) -> Vec<String> {
    let capabilities = about.capabilities;
    let known = [
        (about.suite == Some(Suite::Three), "cipher-suite-3"),
        (status.restore_policy == RestorePolicy::On, "power-restore-always-on"),
        (status.restore_policy == RestorePolicy::Previous, "power-restore-previous"),
        (status.power_fault || status.control_fault || status.overload, "power-fault"),
        (capabilities.is_some_and(|it| it.anonymous), "anonymous-login"),
        (capabilities.is_some_and(|it| it.unauthenticated), "sessions-without-authentication"),
        (quirks.has(Quirk::ShortPassword), "password-cut-to-16-bytes"),
    ];
    let known = known.into_iter().filter(|(so, _)| *so).map(|(_, word)| word.to_owned());
    known
        .chain(quirks.iter().filter(|quirk| quirk.drops_a_check()).map(|quirk| format!("check-dropped-{}", quirk.name())))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bmc::Reading;
    use crate::ipmi::command::AuthCapabilities;

    fn inspect(options: &[(&str, &str)], about: &About, bmc: impl Fn(u8, u8, &[u8]) -> (u8, Vec<u8>)) -> (Facts, usize) {
        let options: BTreeMap<String, String> = options.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let settings = Settings::parse("root", "p", &options).unwrap();
        let mut inspection = Inspection::new();
        let mut message: Message = GetChassisStatus.into();
        for asked in 1..50 {
            let (code, data) = bmc(message.netfn_raw(), message.cmd(), message.data());
            let reply = Reply::new(Duration::from_secs(1), code, &data);
            let reply = (code != 0xEE).then_some(&reply);
            match inspection.next(Duration::from_millis(1002), reply, &settings, about) {
                Turn::Send(next) | Turn::Try(next) => message = next,
                Turn::SendOnce(_) => panic!("nothing is ordered"),
                Turn::End(Ok(Answer::Facts(facts, Reading::Off))) => return (*facts, asked),
                Turn::End(other) => panic!("{other:?}"),
            }
        }
        panic!("no end");
    }

    #[test]
    fn facts_of_a_bmc_that_tells_all() {
        let about = About {
            suite: Some(Suite::Three),
            privilege: Some(Privilege::Operator),
            capabilities: Some(AuthCapabilities {
                rmcp_plus: Some(true),
                bmc_key_set: false,
                anonymous: true,
                unauthenticated: false,
            }),
            detected: Quirks::default().with(Quirk::OpenSessionPrivilege),
        };
        let (facts, _) =
            inspect(&[("quirks", "nochecksumcheck"), ("kg", "never-shown")], &about, |netfn, cmd, data| match (netfn, cmd, data) {
                (0, 1, _) => (0, vec![0x40, 0, 0x40]),
                (6, 1, _) => (0, vec![0x20, 1, 3, 0x45, 2, 0, 0x7C, 0x2A, 0, 1, 9, 0, 0, 0, 0]),
                (6, 0x37, _) => (0, vec![0x44; 16]),
                (0, 9, [5, 0, 0]) => (0, vec![1, 5, 0, 0, 0, 0, 0]),
                (6, 0x44, [0x0E, 1]) => (0, vec![2, 2, 0, 0x0F]),
                (6, 0x46, [1]) => (0, vec![0; 16]),
                (6, 0x46, [2]) => (0, b"root\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()),
                (6, 0x44, [0x0E, 2]) => (0, vec![2, 2, 0, 0x34]),
                other => panic!("{other:02x?}"),
            });
        let texts = |list: &[String]| list.join(" ");
        assert_eq!(facts.manufacturer.as_deref(), Some("Supermicro"));
        assert_eq!((facts.product.as_deref(), facts.firmware.as_deref()), (Some("0x0901"), Some("3.45")));
        assert_eq!(facts.protocol.as_deref(), Some("IPMI 2.0, cipher suite 3"));
        assert_eq!((facts.privilege.as_deref(), facts.latency_us), (Some("operator"), Some(2000)));
        assert_eq!(facts.capabilities.len(), 7);
        assert_eq!(texts(&facts.quirks), "opensesspriv nochecksumcheck uefidisk");
        let warnings = "cipher-suite-3 power-restore-always-on anonymous-login check-dropped-nochecksumcheck";
        assert_eq!(texts(&facts.warnings), warnings);
        assert!(!format!("{facts:?}").contains("never-shown"));
    }

    #[test]
    fn facts_of_a_bmc_that_tells_nothing_but_its_status() {
        for missing in [0xC1, 0xD4, 0xEE] {
            let (facts, _) =
                inspect(
                    &[],
                    &About::default(),
                    |netfn, cmd, _| {
                        if (netfn, cmd) == (0, 1) { (0, vec![0, 0, 0]) } else { (missing, Vec::new()) }
                    },
                );
            assert_eq!((facts.identity, facts.manufacturer, facts.product), (None, None, None));
            assert!(!facts.capabilities.contains(&Capability::ChangePassword));
            assert!(!facts.capabilities.contains(&Capability::Bootdev));
        }
    }
}
