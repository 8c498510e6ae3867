//! What the journal keeps of a host that is watched over. Pure data; decides nothing.

use picket_common::clock::Now;
use picket_common::command::BmcError;
use picket_common::ha::settings::HealthCheck;
use picket_common::ha::{Evidence, Gate, HaState};
use picket_common::id::{HostId, OperationId};
use picket_common::wire::Time;
use picket_common::wire::ha::{HaReport, Proof};
use picket_common::wire::report::Report;
use serde::{Deserialize, Serialize};

use super::fencing::Stepper;
use crate::rack::moment::{MachineBoot, Moment};

/// Where a host stands in host-HA, and all that changes a decision about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaRow {
    /// Which host.
    pub host: HostId,
    /// Where it stands.
    pub state: HaState,
    /// Counts up with each change that is told.
    pub version: u64,
    /// Since when it stands there.
    pub since: Moment,
    /// When the last change was told.
    pub changed: Time,
    /// Why it stands there.
    pub why: String,
    /// Place nothing new there.
    pub quarantined: bool,
    /// It is known to be broken.
    pub acked: bool,
    /// It was fenced by this evidence, and not released since. Outlives everything but a release.
    pub mark: Option<Evidence>,
    /// An operator switched it off.
    pub commanded_off: bool,
    /// An operator ordered it off; one that is read before this is that order's doing.
    pub off_ordered: Option<Moment>,
    /// A cycle, reset or on had an unknown outcome; an Off that is read before this may be its doing.
    pub doubt: Option<Moment>,
    /// The health checks of which one has passed since it was enabled.
    pub passed: Option<Vec<HealthCheck>>,
    /// How long the state may last.
    pub deadline: Option<Moment>,
    /// Its gates were closed while an off may have been under way: reading goes on until this, and nothing more is sent.
    pub closing: Option<Moment>,
    /// The driver's last error in its fence.
    pub error: Option<BmcError>,
    /// What proves that it is off.
    pub proof: Option<Proof>,
    /// The order that its fence belongs to.
    pub operation: Option<OperationId>,
    /// Gates that this order overrides.
    pub overrides: Vec<Gate>,
    /// Orders that wait for the end of its fence.
    pub orders: Vec<FenceOrder>,
    /// Its fence or recovery under way.
    pub stepper: Option<Stepper>,
    /// It was proven off, and nobody had ordered it.
    pub off_by_proof: bool,
    /// Its policy is to switch it on again after its fence; how often that was ordered.
    pub restarts: Option<u8>,
}

/// Somebody's order to fence, which waits for its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceOrder {
    /// Which operation.
    pub operation: OperationId,
    /// After this it is told how far the fence is, and no more.
    pub deadline: Moment,
}

impl HaRow {
    /// A host that nobody watched over so far.
    #[must_use]
    pub fn new(host: HostId, boot: MachineBoot, now: Now) -> Self {
        Self {
            host,
            state: HaState::Disabled,
            version: 0,
            since: Moment::at(boot, now),
            changed: now.wall.into(),
            why: "host-HA is disabled".into(),
            quarantined: false,
            acked: false,
            mark: None,
            commanded_off: false,
            off_ordered: None,
            doubt: None,
            passed: None,
            deadline: None,
            closing: None,
            error: None,
            proof: None,
            operation: None,
            overrides: Vec::new(),
            orders: Vec::new(),
            stepper: None,
            off_by_proof: false,
            restarts: None,
        }
    }

    /// The row in the terms of this boot of the machine.
    pub fn see_from(&mut self, boot: MachineBoot, now: Now) {
        let here = |moment: Moment| moment.seen_from(boot, now);
        self.since = here(self.since);
        for moment in [&mut self.off_ordered, &mut self.doubt, &mut self.deadline, &mut self.closing] {
            *moment = moment.map(here);
        }
        for order in &mut self.orders {
            order.deadline = here(order.deadline);
        }
    }

    /// Counts a change. Higher than any number that another agent gave before, as far as clocks agree: hosts move between racks.
    pub fn count_change(&mut self, now: Now) {
        let wall = u64::try_from(Time::from(now.wall).0).unwrap_or(0);
        self.version = self.version.saturating_add(1).max(wall);
        self.changed = now.wall.into();
    }

    /// As it travels to the aggregator.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::Ha(Box::new(HaReport {
            host: self.host.clone(),
            version: self.version,
            at: self.changed,
            state: self.state.clone(),
            why: self.why.clone(),
            quarantined: self.quarantined,
            acked: self.acked,
            error: self.error.clone(),
            proof: self.proof.clone(),
            operation: self.operation,
        }))
    }
}
