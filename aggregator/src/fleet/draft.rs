//! What one event has changed so far: gathered while it is applied, written out once at the end, each row a single time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use picket_common::clock::Now;
use picket_common::id::{AgentId, HostId, OperationId};
use picket_common::wire::down::{Command, Reply};
use picket_common::wire::topic::Public;

use super::view::{HostRow, PowerRow, Row};
use super::{Decision, Effect, Fleet, Record, Told, json};

/// Changes of one agent's assignment.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) upsert: BTreeSet<HostId>,
    pub(super) remove: BTreeSet<HostId>,
    /// A difference would not tell all of it (another epoch, another owner).
    pub(super) whole: bool,
}

#[derive(Debug, Default)]
pub(super) struct Draft {
    /// History, removals and rows that are written as they come.
    pub(super) records: Vec<Record>,
    /// Rows to write as they are at the end.
    pub(super) hosts: BTreeSet<HostId>,
    pub(super) power: BTreeSet<HostId>,
    pub(super) reported: BTreeSet<HostId>,
    /// Hosts whose status may have changed: it is concluded anew, and their state is published.
    pub(super) status: BTreeSet<HostId>,
    /// Hosts whose host-HA was set otherwise.
    pub(super) reconsidered: BTreeSet<HostId>,
    pub(super) agents: BTreeSet<AgentId>,
    pub(super) operations: BTreeSet<OperationId>,
    pub(super) parts: BTreeSet<(OperationId, HostId)>,
    /// Assignments to bump and tell.
    pub(super) touched: BTreeMap<AgentId, Touched>,
    /// Agents whose host-HA may have changed.
    pub(super) ha: BTreeSet<AgentId>,
    pub(super) answer: Option<Effect>,
    pub(super) events: Vec<Effect>,
    /// Presence documents to publish.
    pub(super) presence: BTreeSet<AgentId>,
    pub(super) replies: Vec<Effect>,
    pub(super) assigns: Vec<Effect>,
    pub(super) commands: Vec<Effect>,
}

impl Draft {
    pub(super) fn put(&mut self, row: Row) {
        self.records.push(Record::Put(Box::new(row)));
    }

    pub(super) fn clear(&mut self, topic: Public) {
        self.events.push(Effect::Retain(topic, Bytes::new()));
    }

    pub(super) fn reply(&mut self, agent: &AgentId, reply: Reply) {
        self.replies.push(Effect::Tell(agent.clone(), Told::Reply(reply)));
    }

    pub(super) fn command(&mut self, agent: &AgentId, command: Command) {
        self.commands.push(Effect::Tell(agent.clone(), Told::Command(command)));
    }
}

/// Topic of a host's retained state.
pub(super) fn state_topic(host: &HostRow) -> Public {
    Public::State(host.zone.clone(), host.cluster.clone(), host.id.clone())
}

/// A document's JSON; types of the API always have one.
pub(super) fn bytes_of(document: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(document).map(Bytes::from).unwrap_or_default()
}

impl Fleet {
    /// Changes a host's settings in the view and marks them to be written.
    pub(super) fn edit_host(&mut self, host: &HostId, edit: impl FnOnce(&mut HostRow)) {
        if let Some(row) = self.view.hosts.get_mut(host) {
            edit(std::sync::Arc::make_mut(row));
            self.draft.hosts.insert(host.clone());
        }
    }

    /// Changes what is known of a host's power and marks it to be written and published.
    pub(super) fn edit_power(&mut self, host: &HostId, edit: impl FnOnce(&mut PowerRow)) {
        if let Some(row) = self.view.power.get_mut(host) {
            edit(std::sync::Arc::make_mut(row));
            self.draft.power.insert(host.clone());
            self.draft.status.insert(host.clone());
        }
    }

    /// Marks a host's assignment as changed for the agent in charge.
    pub(super) fn touch(&mut self, host: &HostRow) {
        let Some(agent) = self.view.agent_of(host).map(|row| row.id.clone()) else { return };
        let touched = self.draft.touched.entry(agent).or_default();
        touched.remove.remove(&host.id);
        touched.upsert.insert(host.id.clone());
    }

    /// Ends the event: bumps assignments, writes rows, orders the effects.
    pub(super) fn finish(&mut self, now: Now) -> Decision {
        for (agent, touched) in std::mem::take(&mut self.draft.touched) {
            self.reassign(&agent, &touched, now);
        }
        self.retell_ha(now);
        self.settle_statuses(now);
        self.look_soon(now);
        let (outbox, deliveries) = self.router.take();
        let mut draft = std::mem::take(&mut self.draft);
        self.write_rows(&mut draft);
        draft.records.extend(outbox);
        let mut effects: Vec<Effect> = draft.answer.into_iter().collect();
        effects.append(&mut draft.events);
        effects.extend(draft.power.union(&draft.status).filter_map(|host| self.state_retained(host)));
        effects.extend(draft.presence.iter().filter_map(|agent| self.presence_retained(agent)));
        effects.append(&mut draft.replies);
        effects.append(&mut draft.assigns);
        effects.append(&mut draft.commands);
        effects.extend(deliveries);
        Decision { records: draft.records, effects }
    }

    pub(super) fn write_rows(&self, draft: &mut Draft) {
        let Self { view, .. } = self;
        let hosts = draft.hosts.iter().filter_map(|id| view.hosts.get(id)).map(|row| Row::Host((**row).clone()));
        let power = draft.power.iter().filter_map(|id| view.power.get(id)).map(|row| Row::Power((**row).clone()));
        let agents = draft.agents.iter().filter_map(|id| view.agents.get(id)).map(|row| Row::Agent((**row).clone()));
        let operations = draft.operations.iter().filter_map(|id| view.operations.get(id));
        let operations = operations.map(|operation| Row::Operation(operation.row.clone()));
        let parts = draft.parts.iter().filter_map(|(id, host)| view.operations.get(id)?.parts.get(host));
        let parts = parts.map(|part| Row::Part((**part).clone()));
        let reported = draft.reported.iter().filter_map(|id| Some((id, view.reported.get(id)?)));
        let reported = reported.map(|(id, reported)| Row::Reported(reported.row(id)));
        let rows = hosts.chain(power).chain(reported).chain(agents).chain(operations).chain(parts);
        draft.records.extend(rows.map(|row| Record::Put(Box::new(row))));
    }

    fn state_retained(&self, host: &HostId) -> Option<Effect> {
        let host = self.view.hosts.get(host)?;
        Some(Effect::Retain(state_topic(host), bytes_of(&json::state_document(&self.view, host))))
    }

    fn presence_retained(&self, agent: &AgentId) -> Option<Effect> {
        let row = self.view.agents.get(agent)?;
        Some(Effect::Retain(Public::Agent(agent.clone()), bytes_of(&json::agent_json(&self.view, row))))
    }
}
