//! Picket's central daemon.

pub mod api;
pub mod authorise;
pub mod clock;
pub mod config;
pub mod context;
pub mod dispatch;
pub mod fleet;
pub mod ingest;
pub mod store;
