//! Picket's central daemon.

pub mod clock;
pub mod context;
pub mod fleet;
pub mod store;
