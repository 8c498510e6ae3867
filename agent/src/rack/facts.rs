//! When a BMC is asked what it is and can do, and what becomes of the answer. Pure. Costs a poll nothing: the question takes
//! the place of one, once per revision of the BMC's settings and once more when the BMC came back from being lost.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::facts::Facts;
use picket_common::id::HostId;
use picket_common::power::Management;
use picket_common::wire::report::{FactsReport, Report};
use serde::{Deserialize, Serialize};

use super::host::Host;
use super::moment::Moment;
use super::{Decision, Rack, Record};
use crate::bmc::{DriverError, NOT_SUPPORTED};

/// Least time after the first good reading: a host that was just enabled has more urgent things to tell.
const SETTLE: Duration = Duration::from_secs(10);
/// Over how long the questions to a rack's BMCs are spread, at least …
const SPREAD: Duration = Duration::from_secs(20);
/// … and per host: asking is a login, about a hundred times the work of a poll.
const SPREAD_PER_HOST: Duration = Duration::from_millis(20);
/// Least time between two questions, but for the first answer.
const ASK_AGAIN: Duration = Duration::from_secs(24 * 3600);
/// Pause after a question that was not answered.
const TRY_AGAIN: Duration = Duration::from_secs(3600);

/// What is journalled of a BMC's facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsRow {
    /// Which host.
    pub host: HostId,
    /// Revision of the BMC settings they were learned with.
    pub revision: u64,
    /// When.
    pub learned: Moment,
    /// What was learned.
    pub facts: Facts,
}

impl FactsRow {
    /// As it travels to the aggregator.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::Facts(FactsReport {
            host: self.host.clone(),
            revision: self.revision,
            observed_at: self.learned.wall,
            facts: self.facts.clone(),
        })
    }
}

impl Host {
    /// Whether it should be asked now what it is.
    #[must_use]
    pub fn wants_inspection(&self, now: Duration) -> bool {
        self.inspect_due.is_some_and(|due| due <= now)
    }

    /// Whether it is known what its BMC is.
    fn knows_facts(&self) -> bool {
        let revision = self.bmc.as_ref().map(|bmc| bmc.revision);
        self.facts.as_ref().map(|row| row.revision) == revision
    }
}

impl Rack {
    /// How many hosts need not be asked any more what their BMC is, for status.
    #[must_use]
    pub fn inspected(&self) -> usize {
        self.hosts.iter().flatten().filter(|host| host.cannot_inspect || (host.facts.is_some() && host.knows_facts())).count()
    }

    /// The BMC was read: is it time to ask it what it is? `was` is how it was doing before.
    pub(super) fn plan_inspection(&mut self, slot: usize, was: Option<Management>, now: Now) {
        let Some(host) = self.host(slot) else { return };
        let came_back = was == Some(Management::Lost);
        let known = host.knows_facts();
        if host.inspect_due.is_some() || host.cannot_inspect || (known && !came_back) {
            return;
        }
        let earliest = host.inspected.filter(|_| known).map_or(Duration::ZERO, |at| at.saturating_add(ASK_AGAIN));
        let hosts = u32::try_from(self.by_id.len()).unwrap_or(u32::MAX);
        let spread = SPREAD.max(SPREAD_PER_HOST.saturating_mul(hosts));
        let share = (self.draw_jitter() - 0.8) / 0.4;
        let due = now.boottime.saturating_add(SETTLE).saturating_add(spread.mul_f64(share.clamp(0.0, 1.0)));
        if let Some(host) = self.host_mut(slot) {
            host.inspect_due = Some(due.max(earliest));
        }
    }

    /// The BMC said what it is. `asked` = somebody waits for the answer.
    pub(super) fn learn_facts(&mut self, slot: usize, facts: Facts, asked: bool, now: Now, decision: &mut Decision) {
        let Some(host) = self.host_mut(slot) else { return };
        let Some(revision) = host.bmc.as_ref().map(|bmc| bmc.revision) else { return };
        host.inspect_due = None;
        host.inspected = Some(now.boottime);
        host.cannot_inspect = false;
        let facts = facts.bounded();
        let same = host.facts.as_ref().is_some_and(|row| row.revision == revision && row.facts.same_as(&facts));
        let row = FactsRow { host: host.row.host.clone(), revision, learned: Moment::at(host.boot, now), facts };
        if asked || !same {
            decision.records.push(Record::Report(Box::new(row.report())));
        }
        decision.records.push(Record::Facts(Box::new(row.clone())));
        host.facts = Some(Box::new(row));
    }

    /// The BMC did not say what it is: nobody waits for it, so that is asked again much later, or never.
    pub(super) fn inspection_failed(&mut self, slot: usize, error: &DriverError, now: Now) {
        let Some(host) = self.host_mut(slot) else { return };
        host.inspected = Some(now.boottime);
        host.cannot_inspect = error.code == NOT_SUPPORTED;
        host.inspect_due = (!host.cannot_inspect).then(|| now.boottime.saturating_add(TRY_AGAIN));
    }
}
