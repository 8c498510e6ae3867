//! What a BMC is and can do, as its driver learned it at first contact or at `bmc test`. Decides nothing.

use serde::{Deserialize, Serialize};

use crate::wire::codec::{WireError, bound};

/// Longest text of a fact, in bytes.
pub const MAX_TEXT: usize = 160;
/// Most quirks or warnings.
pub const MAX_LIST: usize = 16;

/// What was learned. Absent = the BMC does not say, or the driver cannot ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What tells this machine from all others: IPMI system GUID (§20.8) or Redfish system UUID, else its serial number.
    pub identity: Option<String>,
    /// Manufacturer, by name or IANA number.
    pub manufacturer: Option<String>,
    /// Product, by name or number.
    pub product: Option<String>,
    /// Firmware version of the BMC.
    pub firmware: Option<String>,
    /// How it is talked to: `IPMI 2.0, cipher suite 17`, `Redfish 1.6, TLS 1.3, session`, `ipmitool 1.8.19 lanplus`.
    pub protocol: Option<String>,
    /// Privilege of the login: `operator`, `administrator`, a Redfish role.
    pub privilege: Option<String>,
    /// SHA-256 of its TLS certificate, hex.
    pub certificate: Option<String>,
    /// Time of one status request in a live session, in microseconds.
    pub latency_us: Option<u32>,
    /// What it can do.
    pub capabilities: Vec<Capability>,
    /// Names of the quirks that are in force, by detection, table or option.
    pub quirks: Vec<String>,
    /// What an operator should know: `insecure-tls`, `cipher-suite-3`, `power-restore-always-on`, ….
    pub warnings: Vec<String>,
}

/// Something a BMC can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Hard on and off.
    Power,
    /// Shutdown by the operating system.
    Soft,
    /// Warm reset.
    Reset,
    /// Diagnostic interrupt.
    Diag,
    /// Identify LED.
    Identify,
    /// Boot device.
    Bootdev,
    /// Setting the login's own password.
    ChangePassword,
}

impl Facts {
    /// Whether these are facts of the same machine, software and abilities: what is measured anew each time does not count.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let lasting = |facts: &Self| Self { latency_us: None, ..facts.clone() };
        lasting(self) == lasting(other)
    }

    /// Texts cut and lists shortened to what the wire allows.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let texts = [
            &mut self.identity,
            &mut self.manufacturer,
            &mut self.product,
            &mut self.firmware,
            &mut self.protocol,
            &mut self.privilege,
            &mut self.certificate,
        ];
        for text in texts.into_iter().flatten().chain(&mut self.quirks).chain(&mut self.warnings) {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
        }
        self.capabilities.truncate(MAX_LIST);
        self.quirks.truncate(MAX_LIST);
        self.warnings.truncate(MAX_LIST);
        self
    }

    /// # Errors
    /// [`WireError::Bounds`] for what [`Facts::bounded`] would have cut.
    pub(crate) fn check(&self) -> Result<(), WireError> {
        let texts =
            [&self.identity, &self.manufacturer, &self.product, &self.firmware, &self.protocol, &self.privilege, &self.certificate];
        let texts = texts.into_iter().flatten().chain(&self.quirks).chain(&self.warnings);
        texts.map(String::len).try_for_each(|len| bound("facts", len, MAX_TEXT))?;
        bound("capabilities", self.capabilities.len(), MAX_LIST)?;
        bound("quirks", self.quirks.len(), MAX_LIST)?;
        bound("warnings", self.warnings.len(), MAX_LIST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_facts_pass_the_check() {
        let long = "é".repeat(200);
        let facts = Facts {
            identity: Some(long.clone()),
            warnings: vec![long; 20],
            capabilities: vec![Capability::Power; 40],
            ..Facts::default()
        };
        assert!(facts.check().is_err());
        assert_eq!(facts.bounded().check(), Ok(()));
    }
}
