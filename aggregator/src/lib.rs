//! Picket's central daemon.

pub mod clock;
pub mod fleet;
pub mod ingest;
