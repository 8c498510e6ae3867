//! Reports: each reaches the history exactly once and in order, or a gap says what is missing.
//!
//! An agent's reach ends at its rack: what it says of other hosts is counted, acknowledged and forgotten.

use std::sync::Arc;

use picket_common::api::{EventWhat, HistoryWhat};
use picket_common::clock::Now;
use picket_common::id::{AgentId, HostId};
use picket_common::power::{Cause, Management, PowerEvent, PowerState};
use picket_common::wire::down::Reply;
use picket_common::wire::report::{ManagementReport, PowerReport, Report, Reports, Snapshot};

use super::Fleet;
use super::events::Kind;
use super::view::HostRow;

/// The event that a reported state stands for; gates are not the agent's to report.
const fn event_of(state: PowerState) -> Option<PowerEvent> {
    match state {
        PowerState::On => Some(PowerEvent::On),
        PowerState::Off => Some(PowerEvent::Off),
        PowerState::Unknown => Some(PowerEvent::Unknown),
        PowerState::Disabled => None,
    }
}

const fn host_of(report: &Report) -> &HostId {
    match report {
        Report::Power(report) => &report.host,
        Report::Management(report) => &report.host,
        Report::Operation(report) => &report.host,
        Report::Snapshot(snapshot) => &snapshot.host,
    }
}

impl Fleet {
    pub(super) fn reports(&mut self, agent: &AgentId, reports: Reports, now: Now) {
        let boot = reports.boot;
        self.adopt_journal(agent, boot, now);
        if self.view.presence.get(agent).is_some_and(|presence| presence.connected) {
            self.seen(agent, now);
        }
        let expected = self.acked(agent) + 1;
        let from = expected.max(reports.oldest);
        if reports.first > from {
            self.ask_again(agent, boot, from, now);
            return;
        }
        if let Some(link) = self.links.get_mut(agent) {
            link.reports_at = Some(now.boottime);
        }
        if from > expected {
            self.gap(agent, expected, from - 1, now);
        }
        let known = usize::try_from(from - reports.first).unwrap_or(usize::MAX).min(reports.reports.len());
        self.counters.duplicate += known as u64;
        let mut acked = from - 1;
        for report in reports.reports.into_iter().skip(known) {
            acked += 1;
            self.report(agent, || format!("{agent}:{boot}:{acked}"), report, now);
        }
        if acked >= expected {
            self.edit_agent(agent, |row| row.acked = acked);
        }
        self.draft.reply(agent, Reply::Ack { boot, up_to: acked });
        self.note_caught_up(agent);
    }

    /// Reports are lost for good: each host of the agent may have missed changes.
    fn gap(&mut self, agent: &AgentId, first: u64, last: u64, now: Now) {
        self.counters.gap = self.counters.gap.saturating_add(last - first + 1);
        for host in self.view.hosts_of(agent).iter() {
            self.history(host, None, now.wall, HistoryWhat::Gap { first, last }, now);
        }
    }

    fn report(&mut self, agent: &AgentId, id: impl FnOnce() -> String, report: Report, now: Now) {
        let Some(host) = self.view.hosts.get(host_of(&report)).cloned() else {
            self.counters.unknown_host += 1;
            return;
        };
        if self.view.agent_of(&host).is_none_or(|row| row.id != *agent) {
            self.counters.foreign_host += 1;
            return;
        }
        match report {
            Report::Power(report) => self.power_report(&host, id(), report, now),
            Report::Management(report) => self.management_report(&host, id(), report, now),
            Report::Operation(report) => self.operation_report(&host, id(), &report, now),
            Report::Snapshot(snapshot) => self.snapshot(&host, id(), snapshot, now),
        }
    }

    /// Whether a report of this enablement may change the view; counts it if not.
    fn is_current(&mut self, host: &HostRow, enablement: u64) -> bool {
        let current = host.enablement == enablement;
        self.counters.old_enablement += u64::from(!current);
        current
    }

    fn power_report(&mut self, host: &Arc<HostRow>, id: String, report: PowerReport, now: Now) {
        let PowerReport { enablement, old, new, cause, observed_at, error, .. } = report;
        let at = observed_at.timestamp();
        let what = HistoryWhat::Power { old, new, cause, bmc_error: error.clone() };
        let sequence = self.history(&host.id, Some(id.clone()), at, what.clone(), now);
        if !self.is_current(host, enablement) {
            return;
        }
        let Some(current) = self.view.power.get(&host.id).map(|row| row.power) else { return };
        let Some(next) = event_of(new).and_then(|event| current.step(event)) else {
            self.counters.ignored += 1;
            return;
        };
        self.edit_power(&host.id, |row| {
            if row.power != next {
                row.power = next;
                row.power_since = at;
            }
            row.sequence = sequence;
            match error {
                Some(error) => row.error = Some(error),
                None if next != PowerState::Unknown && matches!(row.management, None | Some(Management::Reachable)) => {
                    row.error = None;
                }
                None => {}
            }
        });
        self.host_event(host, id, Kind::Power, at, EventWhat::History(what));
    }

    fn management_report(&mut self, host: &Arc<HostRow>, id: String, report: ManagementReport, now: Now) {
        let ManagementReport { enablement, new, observed_at, error, .. } = report;
        let at = observed_at.timestamp();
        let what = HistoryWhat::Management { new, bmc_error: error.clone() };
        let sequence = self.history(&host.id, Some(id.clone()), at, what.clone(), now);
        if !self.is_current(host, enablement) {
            return;
        }
        if self.view.power.get(&host.id).is_none_or(|row| row.power == PowerState::Disabled) {
            self.counters.ignored += 1;
            return;
        }
        self.edit_power(&host.id, |row| {
            if row.management != Some(new) {
                row.management = Some(new);
                row.management_since = Some(at);
            }
            row.sequence = sequence;
            if error.is_some() || (new == Management::Reachable && row.power != PowerState::Unknown) {
                row.error = error;
            }
        });
        self.host_event(host, id, Kind::Management, at, EventWhat::History(what));
        self.settle_alerts(host, at, now);
    }

    /// All that the agent knows, after a gap: what differs from the view is a change that nobody saw happen.
    fn snapshot(&mut self, host: &Arc<HostRow>, id: String, snapshot: Snapshot, now: Now) {
        let Snapshot { enablement, power, power_since, management, management_since, error, .. } = snapshot;
        let at = power_since.timestamp();
        let what = HistoryWhat::Snapshot { power, management };
        let sequence = self.history(&host.id, Some(id.clone()), now.wall, what, now);
        if !self.is_current(host, enablement) {
            return;
        }
        let Some(before) = self.view.power.get(&host.id).cloned() else { return };
        let Some(next) = event_of(power).and_then(|event| before.power.step(event)) else {
            self.counters.ignored += 1;
            return;
        };
        self.edit_power(&host.id, |row| {
            row.power = next;
            row.power_since = at;
            row.management = management;
            row.management_since = management.map(|_| management_since.timestamp());
            row.error = error.clone();
            row.sequence = sequence;
        });
        if before.power != next {
            let what = HistoryWhat::Power { old: before.power, new: next, cause: Cause::Poll, bmc_error: error.clone() };
            self.host_event(host, id.clone(), Kind::Power, at, EventWhat::History(what));
        }
        if let Some(new) = management.filter(|_| before.management != management) {
            let what = HistoryWhat::Management { new, bmc_error: error };
            let at = management_since.timestamp();
            self.host_event(host, format!("{id}:management"), Kind::Management, at, EventWhat::History(what));
        }
        self.settle_alerts(host, management_since.timestamp(), now);
    }
}
