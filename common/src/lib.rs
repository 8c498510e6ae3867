//! The words Picket's daemons share, the decisions both trust, and the bytes between them.
//!
//! No async, no sockets, no files, no clock, no randomness: time and nonces come in as arguments.

pub mod clock;
pub mod id;
pub mod secret;
