//! A host's fence, as far as its watch is concerned: begun, fed with what is heard, ended. Pure.

use picket_common::clock::Now;
use picket_common::ha::{Evidence, Gate, HaEvent};
use picket_common::id::OperationId;
use picket_common::wire::ha::Proof;

use crate::rack::fence::{Health, Offs};
use crate::rack::{Decision, Rack};

impl Rack {
    /// An Off that nobody ordered was confirmed.
    pub(super) fn begin_proof(&mut self, slot: usize, offs: Offs, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        let address = host.assignment.bmc.as_ref().map(|bmc| bmc.address.clone()).unwrap_or_default();
        let device = format!("{} {address}", host.driver);
        let said = format!("its BMC reads Off, and nobody ordered it; {}", offs.health_said());
        if !self.ha_event(slot, &HaEvent::OffSeen, &said, now, decision) {
            return;
        }
        let Some(watch) = self.watch_mut(slot) else { return };
        watch.row.proof = Some(Proof {
            readings: offs.times().map(|at| (at, device.clone())).collect(),
            health: offs.health_said().to_owned(),
            off_sent: false,
            attempt: 1,
        });
        self.ha_event(slot, &HaEvent::Proven(Evidence::Readings(offs.len())), said, now, decision);
    }

    pub(super) fn fence_health(&mut self, _slot: usize, _health: Health<'_>, _now: Now, _decision: &mut Decision) {}

    pub(super) fn begin_order(&mut self, _slot: usize, _by: &str, _overrides: &[Gate], _now: Now, _decision: &mut Decision) {}

    pub(super) fn plan(&mut self, _slot: usize, _operation: OperationId, _now: Now, _decision: &mut Decision) {}

    pub(super) fn reset_counters(&mut self, _slot: usize, _now: Now, _decision: &mut Decision) {}

    pub(super) fn end_cliff(&mut self, _now: Now, _decision: &mut Decision) {}
}
