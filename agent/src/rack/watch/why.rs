//! Why a host stands where it stands, in sentences for people. Pure text.

use picket_common::ha::Ineligible;
use picket_common::wire::ha::HaClosed;

/// Nothing is missing.
pub const ELIGIBLE: &str = "its gates are open and its health check passed";

/// An HA gate is closed.
pub const fn closed(closed: HaClosed) -> &'static str {
    match closed {
        HaClosed::Zone => "host-HA is disabled for its zone",
        HaClosed::Cluster => "host-HA is disabled for its cluster",
        HaClosed::Host => "host-HA is disabled for the host",
    }
}

/// Something is missing.
pub const fn missing(why: Ineligible) -> &'static str {
    match why {
        Ineligible::PowerDisabled => "out-of-band management is disabled for it, or it has no BMC",
        Ineligible::CannotProve => "its driver cannot prove that a host is off",
        Ineligible::Maintenance => "people work on it",
        Ineligible::CommandedOff => "an operator switched it off; on, cycle or reset ends this",
        Ineligible::NoHealthCheck => "it has no health check",
        Ineligible::NeverHealthy => "none of its health checks has passed since it was enabled or they were changed",
    }
}
