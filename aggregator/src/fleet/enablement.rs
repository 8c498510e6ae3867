//! Enablement: gates opened and closed, and what that does to every host they concern. One host never stops the others.

use std::sync::Arc;

use picket_common::api::{EventWhat, HistoryWhat};
use picket_common::clock::Now;
use picket_common::command::Refusal;
use picket_common::enablement::Gates;
use picket_common::id::{AgentId, HostId};
use picket_common::power::{Cause, PowerState};

use super::Fleet;
use super::events::Kind;
use super::request::{Answer, Gate, Rejection};
use super::view::{HostRow, Row, View};

/// The three gates of a host.
#[must_use]
pub fn gates(view: &View, host: &HostRow) -> Gates {
    Gates {
        zone: view.zones.get(&host.zone).and_then(|zone| zone.oobm),
        cluster: view.clusters.get(&host.cluster).and_then(|cluster| cluster.oobm),
        host: host.oobm,
    }
}

/// Why a host may not be touched, as its agent is told: gates, then settings. See [`standing_refusal`] for the rest.
#[must_use]
pub fn refusal(view: &View, host: &HostRow) -> Option<Refusal> {
    if let Err(refusal) = gates(view, host).resolve() {
        return Some(refusal);
    }
    let Some(bmc) = &host.bmc else { return Some(Refusal::HostNotConfigured) };
    let password = bmc.password.as_ref()?;
    let agent = view.agent_of(host)?;
    (password.agent_key != agent.sealing_key).then_some(Refusal::PasswordNeeded)
}

/// Why an order for a host would be refused now, whatever the order: [`refusal`], then a rack that nobody guards.
#[must_use]
pub fn standing_refusal(view: &View, host: &HostRow) -> Option<Refusal> {
    refusal(view, host).or_else(|| view.agent_of(host).is_none().then_some(Refusal::RackWithoutAgent))
}

/// Whether a host with this refusal is polled at all, once an agent has what it needs.
pub(super) const fn is_open(refusal: Option<Refusal>) -> bool {
    !matches!(refusal, Some(Refusal::ZoneDisabled | Refusal::ClusterDisabled | Refusal::HostDisabled | Refusal::HostNotConfigured))
}

/// Whether nobody vouches for a host's state. Disabled needs nobody: the aggregator itself made it so.
fn is_stale(view: &View, host: &HostRow) -> bool {
    if view.power.get(&host.id).is_none_or(|row| row.power == PowerState::Disabled) {
        return false;
    }
    if refusal(view, host).is_some() {
        return true;
    }
    let presence = view.agent_of(host).and_then(|agent| view.presence.get(&agent.id));
    presence.is_none_or(|presence| !presence.connected || !presence.caught_up || presence.overdue.contains(&host.id))
}

impl Fleet {
    /// Looks again whether a host is stale; true if that flipped.
    pub(super) fn restale(&mut self, host: &HostId) -> bool {
        let Some(row) = self.view.hosts.get(host) else { return false };
        let stale = is_stale(&self.view, row);
        let flipped = self.view.power.get(host).is_some_and(|row| row.stale != stale);
        if flipped {
            self.edit_power(host, |row| row.stale = stale);
        }
        flipped
    }

    /// Looks again at all hosts of an agent; true if any flipped.
    pub(super) fn restale_all(&mut self, agent: &AgentId) -> bool {
        let hosts = self.view.hosts_of(agent);
        hosts.iter().fold(false, |flipped, host| self.restale(host) | flipped)
    }

    /// Opens or closes a gate.
    pub(super) fn set_oobm(&mut self, gate: &Gate, open: bool, now: Now) -> Result<Answer, Rejection> {
        let hosts = self.concerned(gate, open)?;
        if self.gate_state(gate) != Some(open) {
            let before: Vec<_> = hosts.iter().filter_map(|id| self.view.hosts.get(id)).map(|row| self.with_refusal(row)).collect();
            self.turn(gate, open);
            for (host, before) in before {
                self.settle_host(&host, before, now);
            }
        }
        Ok(Answer::Done { created: false })
    }

    pub(super) fn with_refusal(&self, host: &HostRow) -> (HostId, Option<Refusal>) {
        (host.id.clone(), refusal(&self.view, host))
    }

    fn concerned(&self, gate: &Gate, open: bool) -> Result<imbl::OrdSet<HostId>, Rejection> {
        let missing = |kind, id: &str| Rejection::NotFound { kind, id: id.into() };
        match gate {
            Gate::Zone(id) => {
                if !self.view.zones.contains_key(id) {
                    return Err(missing("zone", id.as_str()));
                }
                let clusters = self.view.clusters.values().filter(|cluster| cluster.zone == *id);
                Ok(imbl::OrdSet::unions(clusters.map(|cluster| self.view.hosts_of_cluster(&cluster.id))))
            }
            Gate::Cluster(id) => {
                if !self.view.clusters.contains_key(id) {
                    return Err(missing("cluster", id.as_str()));
                }
                Ok(self.view.hosts_of_cluster(id))
            }
            Gate::Host(id) => {
                let host = self.view.hosts.get(id).ok_or_else(|| missing("host", id.as_str()))?;
                if open && host.bmc.is_none() {
                    return Err(Rejection::Refused(Refusal::HostNotConfigured));
                }
                Ok(imbl::OrdSet::unit(id.clone()))
            }
        }
    }

    fn gate_state(&self, gate: &Gate) -> Option<bool> {
        match gate {
            Gate::Zone(id) => self.view.zones.get(id).map(|row| row.oobm.unwrap_or(true)),
            Gate::Cluster(id) => self.view.clusters.get(id).map(|row| row.oobm.unwrap_or(true)),
            Gate::Host(id) => self.view.hosts.get(id).map(|row| row.oobm.unwrap_or(false)),
        }
    }

    fn turn(&mut self, gate: &Gate, open: bool) {
        match gate {
            Gate::Zone(id) => {
                if let Some(row) = self.view.zones.get_mut(id) {
                    let row = Arc::make_mut(row);
                    row.oobm = Some(open);
                    self.draft.put(Row::Zone(row.clone()));
                }
            }
            Gate::Cluster(id) => {
                if let Some(row) = self.view.clusters.get_mut(id) {
                    let row = Arc::make_mut(row);
                    row.oobm = Some(open);
                    self.draft.put(Row::Cluster(row.clone()));
                }
            }
            Gate::Host(id) => self.edit_host(id, |row| row.oobm = Some(open)),
        }
    }

    /// After something that may open or close a host: brings its state, its agent, its alerts and operations in line.
    pub(super) fn settle_host(&mut self, host: &HostId, before: Option<Refusal>, now: Now) {
        let Some(row) = self.view.hosts.get(host).cloned() else { return };
        let after = refusal(&self.view, &row);
        if before != after {
            self.touch(&row);
        }
        match (is_open(before), is_open(after)) {
            (false, true) => {
                self.edit_host(host, |row| row.enablement += 1);
                self.set_power(&row, PowerState::Unknown, Cause::Enablement, now);
            }
            (true, false) => {
                self.edit_host(host, |row| row.enablement += 1);
                self.set_power(&row, PowerState::Disabled, Cause::Enablement, now);
                self.refuse_unsent(host, after.unwrap_or(Refusal::HostDisabled), now);
            }
            _ => {
                self.restale(host);
            }
        }
    }

    /// Sets a host's state by our own decision; what was known of its BMC is known no more.
    pub(super) fn set_power(&mut self, host: &HostRow, new: PowerState, cause: Cause, now: Now) {
        let Some(old) = self.view.power.get(&host.id).map(|row| row.power) else { return };
        if old != new {
            let what = HistoryWhat::Power { old, new, cause, bmc_error: None };
            let sequence = self.history(&host.id, None, now.wall, what.clone(), now);
            self.edit_power(&host.id, |row| {
                row.power = new;
                row.power_since = now.wall;
                row.sequence = sequence;
            });
            let id = self.own_id(sequence);
            self.host_event(host, id.clone(), Kind::Power, now.wall, EventWhat::History(what.clone()));
            if cause == Cause::Enablement {
                self.host_event(host, format!("{id}:enablement"), Kind::Enablement, now.wall, EventWhat::History(what));
            }
        }
        self.edit_power(&host.id, |row| {
            row.management = None;
            row.management_since = None;
            row.error = None;
        });
        self.settle_alerts(host, now.wall, now);
        self.restale(&host.id);
    }
}
