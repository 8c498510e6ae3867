//! Redfish (DMTF DSP0266) without sockets: which requests to make and what the answers mean.
//!
//! Never does I/O and never reads a clock. Whatever a BMC sends is data of unknown quality: absent, `null` and oddly typed members
//! are tolerated where they do not matter and are an error where they do.

pub mod account;
pub mod answer;
pub mod boot;
pub mod details;
pub mod etag;
pub mod fault;
pub mod light;
pub mod link;
pub mod power;
pub mod quirks;
pub mod request;

/// The longest body that is read, in bytes; a ComputerSystem is 2–20 KiB.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// The longest wait that a `Retry-After` is granted, in seconds.
pub const MAX_RETRY_AFTER_S: u64 = 30;
