//! The words Picket's daemons share, the decisions both trust, and the bytes between them.
//!
//! No async, no sockets, no files, no clock, no randomness: time and nonces come in as arguments.

pub mod alert;
pub mod api;
pub mod audit;
pub mod certificate;
pub mod clock;
pub mod command;
pub mod config;
pub mod driver;
pub mod enablement;
pub mod facts;
pub mod failure_cap;
pub mod ha;
pub mod hostset;
pub mod id;
pub mod join;
pub mod pin;
pub mod policy;
pub mod power;
pub mod seal;
pub mod secret;
pub mod wire;
