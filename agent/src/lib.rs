//! Picket's rack daemon: polls the BMCs of a rack, keeps their power state, acts near the hardware, with or without the centre.

pub mod bmc;
pub mod check;
pub mod clock;
pub mod config;
pub mod driver;
#[cfg(test)]
mod eventually;
pub mod identity;
pub mod ipmi;
pub mod join;
pub mod journal;
pub mod log;
pub mod observe;
pub mod rack;
pub mod redfish;
pub mod run;
pub mod sign;
pub mod stamps;
pub mod status;
pub mod tls;
pub mod uplink;
pub mod witness;
pub mod work;
