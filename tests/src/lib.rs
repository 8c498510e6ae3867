//! Harness.

pub mod eventually;
pub mod peers;
pub mod ports;
