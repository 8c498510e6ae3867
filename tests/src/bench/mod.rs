//! Benches: whole processes over real sockets, several runs, medians, and ratios against a peer measured in the same run.
//!
//! A bench checks that every client did its work, never how fast: it prints figures, says on what machine and with what
//! build, and names what held each client back. `tests/bench` builds everything with optimisation and runs them.
//!
//! | file | for |
//! |---|---|
//! | `cpu` | CPU time of processes, of ended children, of the machine |
//! | `simulator` | `picket-bmcsim` as a process of its own, and its counters |
//! | `peers` | `ipmitool` and `ipmipower` reading the same BMCs |
//! | `sample` | one measurement, medians and ranges |
//! | `machine` | what it was measured on |
//! | `poll` | `poll`: what one status poll costs |
//! | `poll_report` | its tables and its JSON |
//! | `fence` | `fence`: where the time of a fence goes |
//! | `isolation` | `isolation`: what BMCs that hang cost a healthy one |

mod cpu;
pub mod fence;
pub mod isolation;
mod machine;
mod peers;
pub mod poll;
mod poll_report;
mod sample;
mod simulator;

use std::time::Instant;

use jiff::Timestamp;

#[expect(clippy::disallowed_methods, reason = "a bench measures real time, outside the daemons' clock")]
fn now() -> Instant {
    Instant::now()
}

/// The same by the wall clock, which the simulator and `mosquitto_sub` read too.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time, outside the daemons' clock")]
fn wall() -> Timestamp {
    Timestamp::now()
}
