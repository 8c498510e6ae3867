//! Picket's central daemon.

pub mod broker;
pub mod clock;
pub mod config;
pub mod context;
pub mod dispatch;
pub mod fleet;
pub mod ingest;
pub mod pki;
pub mod store;
