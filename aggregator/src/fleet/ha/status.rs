//! What an orchestrator may conclude of a host, and how host-HA shows it. Only Down may release workloads, so Down is said only as
//! long as the agent in charge vouches that the host is Fenced and nothing says otherwise.

use picket_common::api::ha::{HaView, HostHa, Judged};
use picket_common::api::{EventWhat, HistoryWhat};
use picket_common::clock::Now;
use picket_common::ha::explain::{Known, explain};
use picket_common::ha::{Fencing, HaName, HaState, HostStatus, Way};
use picket_common::id::HostId;
use picket_common::power::PowerState;
use picket_common::wire::ha::{HaClosed, JudgedReport};

use super::alerts::Moved;
use super::reports::act_name;
use super::settings::{closed, in_force, settings_json};
use crate::fleet::Fleet;
use crate::fleet::events::Kind;
use crate::fleet::reports::journal_name;
use crate::fleet::request::Gate;
use crate::fleet::view::{HostRow, Reported, View};

/// How a host counts for its neighbours: in storms, and as somewhere to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// It counts towards a storm: as its agent said last, however long ago.
    pub is_unwell: bool,
    /// It passes its health checks, and its agent vouches for that now.
    pub is_well: bool,
}

/// How a host counts for its neighbours; none = host-HA does not watch over it.
#[must_use]
pub fn standing(view: &View, host: &HostRow) -> Option<Standing> {
    if closed(view, host).is_some() {
        return None;
    }
    let row = view.reported.get(&host.id)?;
    let report = row.report.as_ref()?;
    let is_well = matches!(report.state, HaState::Available { failures: 0 } | HaState::Recovered);
    Some(Standing {
        is_unwell: report.state.is_unwell() && !report.acked && !is_off_by_itself(row),
        is_well: is_well && is_vouched_for(view, host, row),
    })
}

/// A host that was found off is not part of a storm: nothing was or will be sent to it.
fn is_off_by_itself(row: &Reported) -> bool {
    match row.state() {
        Some(HaState::Fencing(Fencing { way: Way::Proof, .. })) => true,
        Some(HaState::Fenced(_)) => row.proof().is_some_and(|proof| !proof.off_sent),
        _ => false,
    }
}

const fn closed_name(closed: HaClosed) -> &'static str {
    match closed {
        HaClosed::Zone => "zone",
        HaClosed::Cluster => "cluster",
        HaClosed::Host => "host",
    }
}

/// The journal of the agent in charge of a host, as its reports are told apart by.
pub(super) fn journal_of(view: &View, host: &HostRow) -> Option<String> {
    let agent = view.agent_of(host)?;
    let journal = journal_name(agent.rolled_back, agent.boot?);
    Some(format!("{}:{journal}", agent.id))
}

/// Whether the agent in charge vouches now for what was reported.
fn is_vouched_for(view: &View, host: &HostRow, row: &Reported) -> bool {
    let is_read = view.power.get(&host.id).is_some_and(|power| !power.stale && power.power != PowerState::Disabled);
    is_read && !row.doubted && journal_of(view, host).is_some_and(|journal| journal == row.journal)
}

fn is_on(view: &View, host: &HostRow) -> bool {
    view.power.get(&host.id).is_some_and(|power| power.power == PowerState::On)
}

/// What an orchestrator may conclude now, and why, in one sentence.
fn conclude(view: &View, host: &HostRow, row: &Reported) -> (HostStatus, String) {
    if let Some(closed) = closed(view, host) {
        return (HostStatus::Unknown, format!("host-HA of its {} is disabled", closed_name(closed)));
    }
    let Some(report) = &row.report else {
        return (HostStatus::Unknown, "its agent has not said where it stands".to_owned());
    };
    if !is_vouched_for(view, host, row) {
        return (HostStatus::Unknown, "nobody vouches now for what its agent said last".to_owned());
    }
    match report.state.host_status() {
        HostStatus::Down if is_on(view, host) => (HostStatus::Disconnected, "it is fenced, and its BMC reads On".to_owned()),
        status => (status, report.why.clone()),
    }
}

/// What orchestrators are told of a host.
#[must_use]
pub fn host_status(view: &View, host: &HostRow) -> HostStatus {
    view.reported.get(&host.id).map_or(HostStatus::Unknown, |row| row.status)
}

/// The name of a host's state: `disabled` while nothing is known.
#[must_use]
pub fn ha_name(view: &View, host: &HostRow) -> HaName {
    let state = view.reported.get(&host.id).and_then(|row| row.state().map(HaState::name));
    if closed(view, host).is_some() { HaName::Disabled } else { state.unwrap_or(HaName::Disabled) }
}

/// Where a host stands, in lists; none while its agent has said nothing.
#[must_use]
pub fn host_ha(view: &View, host: &HostRow) -> Option<HostHa> {
    let row = view.reported.get(&host.id)?;
    let report = row.report.as_ref()?;
    if let Some(closed) = closed(view, host) {
        // Also while its agent has not taken it up yet: here it holds at once.
        return Some(HostHa {
            state: HaName::Disabled,
            since: row.since.max(row.status_since),
            why: format!("host-HA of its {} is disabled", closed_name(closed)),
            quarantined: false,
            held: None,
            attempt: None,
            reason: None,
        });
    }
    Some(HostHa {
        state: report.state.name(),
        since: row.since,
        why: report.why.clone(),
        quarantined: report.quarantined,
        held: report.state.held(),
        attempt: report.state.attempt(),
        reason: report.state.reason().map(str::to_owned),
    })
}

/// `GET /v1/hosts/{h}/ha`.
#[must_use]
pub fn ha_view(view: &View, host: &HostRow) -> HaView {
    let nothing = Reported::default();
    let row = view.reported.get(&host.id).map_or(&nothing, |row| &**row);
    let report = row.report.as_ref();
    let closed = closed(view, host).map(closed_name);
    let settings = in_force(view, host);
    let judged = row.judged.as_ref();
    let (explain, would_end) = explain(&Known {
        host: &host.id,
        state: row.state(),
        why: report.map_or("", |report| &report.why),
        settings: &settings,
        closed,
        is_fresh: is_vouched_for(view, host, row),
        is_on: is_on(view, host),
        quarantined: report.is_some_and(|report| report.quarantined),
        acked: report.is_some_and(|report| report.acked),
        error: report.and_then(|report| report.error.as_ref()),
        judged: judged.map(|judged| &judged.judgement),
    });
    let newest = [judged, row.planned.as_ref()].into_iter().flatten().max_by_key(|judged| judged.at);
    HaView {
        ha: host_ha(view, host),
        host_status: row.status,
        closed: closed.map(str::to_owned),
        acked: report.is_some_and(|report| report.acked),
        explain,
        would_end,
        proof: row.proof(),
        error: report.and_then(|report| report.error.clone()),
        judged: newest.map(judged_json),
        // Names and values: they always have a JSON form.
        settings: serde_json::to_value(settings_json(view, host)).unwrap_or_default(),
    }
}

fn judged_json(report: &JudgedReport) -> Judged {
    Judged {
        at: report.at.timestamp(),
        act: act_name(report.act).to_owned(),
        attempt: report.attempt,
        held_by: report.judgement.held_by(),
        judgement: report.judgement.clone(),
    }
}

impl Fleet {
    /// Something is set there of host-HA, or a host moved: what hangs on that is looked at again when the event ends.
    pub(in crate::fleet) fn reconsider_ha(&mut self, at: &Gate) {
        let is_there = |host: &HostRow| match at {
            Gate::Zone(zone) => host.zone == *zone,
            Gate::Cluster(cluster) => host.cluster == *cluster,
            Gate::Host(id) => host.id == *id,
        };
        let hosts = self.view.reported.keys().filter(|id| self.view.hosts.get(*id).is_some_and(|host| is_there(host)));
        self.draft.reconsidered.extend(hosts.cloned());
    }

    /// The end of an event: hosts of which something changed that their status hangs on.
    pub(in crate::fleet) fn settle_statuses(&mut self, now: Now) {
        for id in std::mem::take(&mut self.draft.reconsidered) {
            let Some(host) = self.view.hosts.get(&id).cloned() else { continue };
            self.settle_ha_alerts(&host, &Moved::Nowhere, now);
            self.draft.status.insert(id);
        }
        for host in self.draft.status.clone() {
            self.settle_status(&host, now);
        }
    }

    /// The first event of a process: what was repaired at its start may have changed what can be concluded.
    pub(in crate::fleet) fn review_statuses(&mut self) {
        let differs = |(host, row): &(&HostId, &std::sync::Arc<Reported>)| {
            self.view.hosts.get(*host).is_some_and(|host| conclude(&self.view, host, row).0 != row.status)
        };
        let hosts: Vec<HostId> = self.view.reported.iter().filter(differs).map(|(host, _)| host.clone()).collect();
        self.draft.status.extend(hosts);
    }

    /// Says what an orchestrator may conclude, if that is not what it was told last.
    fn settle_status(&mut self, host: &HostId, now: Now) {
        let (Some(host), Some(row)) = (self.view.hosts.get(host).cloned(), self.view.reported.get(host).cloned()) else { return };
        let (status, why) = conclude(&self.view, &host, &row);
        if status == row.status {
            return;
        }
        let proof = (status == HostStatus::Down).then(|| row.proof().map(Box::new)).flatten();
        let what = HistoryWhat::HostStatus { old: row.status, new: status, why, proof };
        let sequence = self.history(&host.id, None, now.wall, what.clone(), now);
        self.edit_reported(&host.id, |row| {
            row.status = status;
            row.status_since = now.wall;
            row.sequence = sequence;
        });
        let id = self.own_id(sequence);
        self.host_event(&host, id, Kind::HostStatus, now.wall, EventWhat::History(what));
    }

    /// What is to be so after every event, for tests.
    #[cfg(test)]
    pub(in crate::fleet) fn assert_status(&self, host: &HostRow) {
        let Some(row) = self.view.reported.get(&host.id) else { return };
        assert_eq!(row.status, conclude(&self.view, host, row).0, "{}", host.id);
        if row.status == HostStatus::Down {
            assert!(matches!(row.state(), Some(HaState::Fenced(picket_common::ha::Fenced { returned: false, .. }))), "{row:?}");
            let power = &self.view.power[&host.id];
            assert!(!power.stale && power.power != PowerState::On && power.power != PowerState::Disabled, "{power:?}");
            assert!(!row.doubted && closed(&self.view, host).is_none());
        }
    }
}
