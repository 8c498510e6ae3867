//! Harness: whole Picket daemons over real sockets, and the simulated and foreign BMCs they talk to.

pub mod bmcsim;
pub mod eventually;
pub mod harness;
pub mod peers;
pub mod ports;
