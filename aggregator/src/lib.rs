//! Picket's central daemon.

pub mod broker;
pub mod clock;
pub mod fleet;
pub mod gate;
pub mod pki;
