//! The driver contract and the table of drivers. A driver is one file or folder here and one line in `run.rs`.
//!
//! The contract is built for many BMCs: jobs come in batches, answers go back in batches, nothing here blocks, and a driver
//! is free to serve all BMCs from one socket. The one who asks keeps at most one job of a BMC in flight.

use std::sync::Arc;

pub use picket_common::driver::Descriptor;
use picket_common::id::HostId;

use crate::bmc::{Bmc, Completion, Job};

pub mod address;
pub mod exec;
mod failure;
pub mod ipmi;
pub mod ipmitool;
pub mod null;
pub mod open;
pub mod process;
mod program;
pub mod redfish;

/// Where drivers deliver answers; called from any thread, never blocks.
pub type Completions = Arc<dyn Fn(Vec<Completion>) + Send + Sync>;

/// One way to talk to BMCs.
pub trait Driver: Send + Sync {
    /// What this driver is.
    fn descriptor(&self) -> &'static Descriptor;

    /// Whether the readings of this BMC can prove that its host is off.
    fn can_prove(&self, _bmc: &Bmc) -> bool {
        self.descriptor().can_prove
    }

    /// Takes jobs and returns at once; each job is answered exactly once through [`Completions`], what the driver or this BMC
    /// cannot do with [`crate::bmc::NOT_SUPPORTED`].
    fn submit(&self, jobs: Vec<Job>);

    /// Drops what is kept for a host (sessions are closed politely); its outstanding jobs still complete.
    fn forget(&self, host: &HostId);

    /// Closes every kept session, within about two seconds; jobs after this are answered with `Connection`.
    fn shutdown(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}
