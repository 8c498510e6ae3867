//! Acting: hands the rack's jobs to the drivers. The only stage that touches BMCs; never decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use picket_common::id::HostId;

use crate::bmc::{Completion, DriverError, ErrorClass, Job};
use crate::clock;
use crate::driver::{Completions, Driver};

/// The drivers by name.
pub struct Work {
    drivers: BTreeMap<&'static str, Box<dyn Driver>>,
    completions: Completions,
}

impl Work {
    /// Takes the drivers; jobs for any other name are answered with a setting error.
    #[must_use]
    pub fn new(drivers: Vec<Box<dyn Driver>>, completions: Completions) -> Self {
        Self { drivers: drivers.into_iter().map(|driver| (driver.descriptor().name, driver)).collect(), completions }
    }

    /// Starts jobs; returns at once.
    pub fn start(&self, jobs: Vec<(Arc<str>, Job)>) {
        let mut by_driver: BTreeMap<&'static str, Vec<Job>> = BTreeMap::new();
        let mut refused = Vec::new();
        for (name, job) in jobs {
            match self.find(&name) {
                _ if job.timeout.is_zero() => refused.push(too_late(&job)),
                Some(driver) => by_driver.entry(driver.descriptor().name).or_default().push(job),
                None => refused.push(self.no_such_driver(&name, &job)),
            }
        }
        for (name, jobs) in by_driver {
            if let Some(driver) = self.drivers.get(name) {
                driver.submit(jobs);
            }
        }
        if !refused.is_empty() {
            (self.completions)(refused);
        }
    }

    /// Closes what a driver keeps for a host.
    pub fn forget(&self, driver: &str, host: &HostId) {
        if let Some(driver) = self.find(driver) {
            driver.forget(host);
        }
    }

    /// Closes every kept session; takes about two seconds at most.
    pub async fn shutdown(&self) {
        for driver in self.drivers.values() {
            if tokio::time::timeout(Duration::from_secs(3), driver.shutdown()).await.is_err() {
                tracing::warn!(driver = driver.descriptor().name, "driver did not close its sessions in time");
            }
        }
    }

    fn find(&self, name: &str) -> Option<&dyn Driver> {
        let exact = self.drivers.get(name);
        exact.or_else(|| self.drivers.values().find(|driver| driver.descriptor().name.eq_ignore_ascii_case(name))).map(Box::as_ref)
    }

    fn no_such_driver(&self, name: &str, job: &Job) -> Completion {
        let known: Vec<&str> = self.drivers.keys().copied().collect();
        let error = DriverError {
            driver: "picket",
            address: job.bmc.address.clone(),
            class: ErrorClass::Setting,
            code: "unknown-driver".into(),
            text: format!("this agent has no driver {name:?}; it has {}", known.join(", ")),
            maybe_sent: false,
        };
        Completion { ticket: job.ticket, begun: clock::boottime(), result: Err(error) }
    }
}

/// Nothing is begun when its time is over.
fn too_late(job: &Job) -> Completion {
    let error = DriverError {
        driver: "picket",
        address: job.bmc.address.clone(),
        class: ErrorClass::Deadline,
        code: "too-late".into(),
        text: "the time given to the request was over before it could be sent".into(),
        maybe_sent: false,
    };
    Completion { ticket: job.ticket, begun: clock::boottime(), result: Err(error) }
}
