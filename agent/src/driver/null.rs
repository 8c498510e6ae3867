//! Driver `null`: no hardware. It remembers the last order per host and can never prove anything.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

pub use picket_common::driver::NULL as DESCRIPTOR;
use picket_common::facts::{Capability, Facts};
use picket_common::id::HostId;

use super::{Completions, Descriptor, Driver};
use crate::bmc::{Answer, Ask, Completion, Job, PowerReply, Reading};
use crate::clock;

/// See the module.
pub struct Null {
    completions: Completions,
    last: Mutex<HashMap<HostId, Reading>>,
}

impl Null {
    /// A null driver that answers into `completions`; every host starts On.
    #[must_use]
    pub fn new(completions: Completions) -> Self {
        Self { completions, last: Mutex::default() }
    }

    fn answer(&self, job: &Job) -> Completion {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let value = last.entry(job.bmc.host.clone()).or_insert(Reading::On);
        let answer = match job.ask {
            Ask::Status => Answer::Reading(*value),
            Ask::On => order(value, Reading::On),
            Ask::Off | Ask::Soft => order(value, Reading::Off),
            Ask::Reset | Ask::Diag => Answer::Power(PowerReply::Accepted),
            Ask::Identify { .. } | Ask::Bootdev { .. } | Ask::TryLogin | Ask::SetPassword => Answer::Done,
            Ask::Inspect => Answer::Facts(Box::new(facts()), *value),
        };
        Completion { ticket: job.ticket, begun: clock::boottime(), result: Ok(answer) }
    }
}

/// What a machine that does not exist is: it can do everything, and is nobody.
fn facts() -> Facts {
    use Capability::{Bootdev, ChangePassword, Diag, Identify, Power, Reset, Soft};
    let capabilities = vec![Power, Soft, Reset, Diag, Identify, Bootdev, ChangePassword];
    Facts { protocol: Some("null".into()), capabilities, ..Facts::default() }
}

fn order(value: &mut Reading, wanted: Reading) -> Answer {
    *value = wanted;
    Answer::Power(PowerReply::Accepted)
}

impl Driver for Null {
    fn descriptor(&self) -> &'static Descriptor {
        &DESCRIPTOR
    }

    fn submit(&self, jobs: Vec<Job>) {
        (self.completions)(jobs.iter().map(|job| self.answer(job)).collect());
    }

    fn forget(&self, host: &HostId) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    fn shutdown(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}
