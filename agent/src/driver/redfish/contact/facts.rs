//! Learning what a BMC is and can do. What it does not tell stays out of the facts; only the system itself must be readable.

use std::time::Duration;

use picket_common::facts::{Capability, Facts};

use super::super::failure::Progress;
use super::super::settings::Trust;
use super::account::Found;
use super::{Contact, Login, Trouble, reading};
use crate::bmc::{Answer, Ask};
use crate::clock;
use crate::redfish::answer::System;
use crate::redfish::details::{self, Details, RestorePolicy};
use crate::redfish::power;

/// The most accounts that are looked at for the login's role.
const MOST_ACCOUNTS: usize = 16;

impl Contact {
    /// Reads the system, its manager and the login's own account, and the system once more: that one is the reading, and
    /// its time the latency.
    pub(super) async fn inspect(&mut self, progress: &Progress) -> Result<Answer, Trouble> {
        let (_, details, _) = self.details(progress).await?;
        let firmware = self.firmware(&details, progress).await?;
        let account = self.find_account(MOST_ACCOUNTS, progress).await;
        let (role, has_account) = match account {
            Ok(Found::Account { role, .. }) => (role, true),
            Ok(Found::NoService | Found::Missing) | Err(Trouble::Failed(_) | Trouble::NotNow(..)) => (None, false),
            Err(Trouble::LoggedOut(failure)) => return Err(Trouble::LoggedOut(failure)),
        };
        let indicator = self.has_indicator(&details, progress).await?;
        let before = clock::boottime();
        let (system, _) = self.read_system(progress).await?;
        let latency = clock::boottime().saturating_sub(before);
        let reading = reading(&system)?;
        let mut capabilities = self.power_capabilities(&system, progress).await?;
        let others = [
            (indicator, Capability::Identify),
            (details.boot.as_ref().is_some_and(crate::redfish::boot::Boot::is_useful), Capability::Bootdev),
            (has_account, Capability::ChangePassword),
        ];
        capabilities.extend(others.into_iter().filter_map(|(so, capability)| so.then_some(capability)));
        let facts = self.facts(&system, &details, firmware, role, latency, capabilities);
        Ok(Answer::Facts(Box::new(facts.bounded()), reading))
    }

    fn facts(
        &self,
        system: &System,
        details: &Details,
        firmware: Option<String>,
        role: Option<String>,
        latency: Duration,
        capabilities: Vec<Capability>,
    ) -> Facts {
        let machine = self.root.as_ref().map(|root| root.machine.clone()).unwrap_or_default();
        let named = |name: String| Some(name).filter(|name| !name.is_empty());
        Facts {
            identity: system.uuid.clone().or_else(|| details.serial.clone()),
            manufacturer: details.manufacturer.clone().or_else(|| named(machine.manufacturer)),
            product: details.model.clone().or_else(|| named(machine.product)),
            firmware: firmware.or_else(|| named(machine.firmware)),
            protocol: Some(self.protocol()),
            privilege: role,
            certificate: self.line.peer.shown().0.map(hex::encode),
            latency_us: Some(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)),
            warnings: self.warnings(details, &capabilities),
            capabilities,
            quirks: self.quirks_in_force(),
        }
    }

    async fn firmware(&self, details: &Details, progress: &Progress) -> Result<Option<String>, Trouble> {
        let Some(manager) = details.manager.clone() else { return Ok(None) };
        let (_, reply) = self.get(manager, &self.who(), "reading the manager", progress).await?;
        Ok(if reply.status == 200 { details::firmware(&reply.body) } else { None })
    }

    async fn has_indicator(&self, details: &Details, progress: &Progress) -> Result<bool, Trouble> {
        let Some(chassis) = details.chassis.clone().filter(|_| details.light.is_none()) else {
            return Ok(details.light.is_some());
        };
        let (_, reply) = self.get(chassis, &self.who(), "reading the chassis", progress).await?;
        let chassis = Details::read(&reply.body, &self.line.origin);
        Ok(reply.status == 200 && chassis.is_ok_and(|chassis| chassis.light.is_some()))
    }

    /// Which reset types are offered. A BMC that names none is believed to have the three that every one has.
    async fn power_capabilities(&mut self, system: &System, progress: &Progress) -> Result<Vec<Capability>, Trouble> {
        let Some(action) = system.reset.clone() else { return Ok(Vec::new()) };
        let allowed = match (action.allowed, action.info) {
            (None, Some(info)) => self.action_info(info, progress).await?,
            (allowed, _) => allowed,
        };
        let offers = |ask: Ask| power::reset_type(ask, allowed.as_deref()).is_ok();
        let able = [
            (offers(Ask::On) && offers(Ask::Off), Capability::Power),
            (offers(Ask::Soft), Capability::Soft),
            (offers(Ask::Reset), Capability::Reset),
            (allowed.is_some() && offers(Ask::Diag), Capability::Diag),
        ];
        Ok(able.into_iter().filter_map(|(so, capability)| so.then_some(capability)).collect())
    }

    fn protocol(&self) -> String {
        let redfish = match self.root.as_ref().and_then(|root| root.version.as_deref()) {
            Some(version) => format!("Redfish {version}"),
            None => "Redfish".to_owned(),
        };
        let channel = if self.settings.scheme == "http" { "plain HTTP" } else { self.line.peer.shown().1.unwrap_or("TLS") };
        let login = if matches!(self.login, Login::Session(_)) { "session" } else { "basic" };
        format!("{redfish}, {channel}, {login}")
    }

    fn quirks_in_force(&self) -> Vec<String> {
        let known = [
            (!self.quirks.name.is_empty(), self.quirks.name),
            (self.line.takes_any_encoding(), "any-encoding"),
            (self.settings.close, "connection-close"),
        ];
        let known = known.into_iter().filter_map(|(so, name)| so.then_some(name));
        known.chain(self.etag_quirk).map(str::to_owned).collect()
    }

    fn warnings(&self, details: &Details, capabilities: &[Capability]) -> Vec<String> {
        let plain = self.settings.scheme == "http";
        let known = [
            (plain, "plain-http"),
            (!plain && self.settings.trust == Trust::Insecure, "insecure-tls"),
            (matches!(self.login, Login::Basic { .. }), "basic-authentication"),
            (details.restore_policy == Some(RestorePolicy::On), "power-restore-always-on"),
            (details.restore_policy == Some(RestorePolicy::Previous), "power-restore-previous"),
            // Lit until it is put out: Redfish has no timer.
            (capabilities.contains(&Capability::Identify), "identify-has-no-timer"),
        ];
        known.into_iter().filter(|(so, _)| *so).map(|(_, word)| word.to_owned()).collect()
    }
}
