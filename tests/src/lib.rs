//! Harness: whole Picket daemons over real sockets, and the simulated BMCs they talk to.

pub mod bmcsim;
