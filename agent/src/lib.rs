//! Picket's rack daemon.

pub mod bmc;
pub mod clock;
pub mod driver;
pub mod redfish;
