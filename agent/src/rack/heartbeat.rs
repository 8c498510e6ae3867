//! What the agent says at each heartbeat, and which hosts it names as overdue. Pure.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::id::HostId;
use picket_common::wire::Generation;
use picket_common::wire::report::MAX_OVERDUE;

use super::Rack;

/// How often the agent says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// What a heartbeat says beside the outbox's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// Assignment in force.
    pub generation: Option<Generation>,
    /// Hosts not read in time.
    pub overdue: Vec<HostId>,
}

impl Rack {
    /// A heartbeat names no more than [`MAX_OVERDUE`] hosts. When there are more, the next one goes on where this one stopped:
    /// a full list is taken as cut, and what was named before it stays overdue.
    pub(super) fn pulse(&mut self, now: Now) -> Pulse {
        let from = self.overdue_from.min(self.hosts.len());
        let (before, after) = self.hosts.split_at_checked(from).unwrap_or_default();
        let slots = (from..).zip(after).chain((0..).zip(before));
        let overdue = slots.filter_map(|(slot, host)| Some((slot, host.as_ref().filter(|host| host.is_overdue(now.boottime))?)));
        let named: Vec<(usize, HostId)> = overdue.take(MAX_OVERDUE).map(|(slot, host)| (slot, host.row.host.clone())).collect();
        self.overdue_from = named.last().filter(|_| named.len() == MAX_OVERDUE).map_or(0, |(slot, _)| slot + 1);
        Pulse { generation: self.assignments.generation, overdue: named.into_iter().map(|(_, host)| host).collect() }
    }
}
