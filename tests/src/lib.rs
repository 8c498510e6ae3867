//! Harness: whole Picket daemons over real sockets, the simulated and foreign BMCs they talk to, and benches.

pub mod bench;
pub mod bmcsim;
pub mod eventually;
pub mod harness;
pub mod judged;
pub mod peers;
pub mod ports;
pub mod watched;
