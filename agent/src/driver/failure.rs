//! A driver's failure before it knows whose it is: what the drivers that think in futures have in common.

use crate::bmc::{Bmc, DriverError, ErrorClass, NOT_SUPPORTED};
use crate::driver::Descriptor;

/// Becomes a [`DriverError`] when driver and BMC are added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub class: ErrorClass,
    pub code: String,
    pub text: String,
    pub maybe_sent: bool,
}

impl Failure {
    pub(super) fn new(class: ErrorClass, code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { class, code: code.into(), text: text.into(), maybe_sent: false }
    }

    pub(super) fn setting(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Setting, code, text)
    }

    pub(super) fn protocol(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Protocol, code, text)
    }

    pub(super) fn connection(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Connection, code, text)
    }

    /// This BMC cannot do it.
    pub(super) fn not_supported(text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Refused, NOT_SUPPORTED, text)
    }

    /// The host was taken away from this agent, or was given other settings.
    pub(super) fn forgotten() -> Self {
        Self::connection("forgotten", "the host was removed, disabled or given other settings")
    }

    pub(super) fn at(self, driver: &'static Descriptor, bmc: &Bmc) -> DriverError {
        let port = bmc.port.or(driver.default_port).map_or(String::new(), |port| format!(":{port}"));
        DriverError {
            driver: driver.name,
            address: format!("{}{port}", bmc.address),
            class: self.class,
            code: self.code,
            text: self.text,
            maybe_sent: self.maybe_sent,
        }
    }
}
