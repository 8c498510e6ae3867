//! Picket's central daemon.

pub mod api;
pub mod authorise;
pub mod broker;
pub mod client;
pub mod clock;
pub mod config;
pub mod context;
pub mod daemon;
pub mod dispatch;
pub mod fleet;
pub mod gate;
pub mod ingest;
pub mod init;
pub mod notify;
pub mod pki;
pub mod publish;
pub mod run;
pub mod store;
