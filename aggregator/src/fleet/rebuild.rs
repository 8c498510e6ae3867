//! The fleet built anew from the store's rows, and what a restart has to put right. A row that contradicts its gates is repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use picket_common::alert::AlertState;
use picket_common::api;
use picket_common::clock::Now;
use picket_common::id::AgentId;
use picket_common::power::PowerState;
use picket_common::wire::Generation;

use super::draft::Draft;
use super::enablement::is_open;
use super::route::Router;
use super::view::{HostRow, Operation, PartRow, PowerRow, Reported, Row, RowKey, Settings, SiteSettings, View};
use super::{Counters, Fleet, Record, ha, refusal};

impl Fleet {
    /// Builds the fleet from what is stored. `store` is the store's incarnation, which events are named after; `life` is new for
    /// each fleet that is built, and assignments are counted within it: a store put back from a backup counts anew what agents
    /// have seen, and they must not take it for old. `file` are the settings of the aggregator's own file. `next_sequence` is the first
    /// free sequence of the history. The records put right what contradicts itself; make them durable before the first event.
    pub fn new(
        store: uuid::Uuid,
        life: uuid::Uuid,
        file: Settings,
        rows: impl IntoIterator<Item = Row>,
        next_sequence: u64,
    ) -> (Self, Vec<Record>) {
        let mut fleet = Self {
            view: View { settings: SiteSettings { file, api: Settings::default() }, ..View::default() },
            store,
            life,
            next_sequence,
            links: BTreeMap::new(),
            timers: BTreeSet::new(),
            open: BTreeMap::new(),
            done: BTreeSet::new(),
            done_parts: 0,
            resolved: BTreeSet::new(),
            settings_version: 1,
            ha_version: 0,
            ledgers: BTreeMap::new(),
            lookout: ha::Lookout::default(),
            hold_for: BTreeMap::new(),
            alert_due: BTreeMap::new(),
            power_memory: BTreeMap::new(),
            router: Router::new(store),
            started: false,
            purge_armed: false,
            counters: Counters::default(),
            draft: Draft::default(),
        };
        let mut parts = Vec::new();
        for row in rows {
            match row {
                Row::Part(part) => parts.push(part),
                row => fleet.load(row),
            }
        }
        fleet.load_parts(parts);
        fleet.repair();
        let mut draft = std::mem::take(&mut fleet.draft);
        fleet.write_rows(&mut draft);
        (fleet, draft.records)
    }

    fn load(&mut self, row: Row) {
        let view = &mut self.view;
        match row {
            Row::Zone(row) => drop(view.zones.insert(row.id.clone(), Arc::new(row))),
            Row::Cluster(row) => drop(view.clusters.insert(row.id.clone(), Arc::new(row))),
            Row::Rack(row) => drop(view.racks.insert(row.id.clone(), Arc::new(row))),
            Row::Agent(row) => drop(view.agents.insert(row.id.clone(), Arc::new(row))),
            Row::JoinToken(row) => drop(view.join_tokens.insert(row.id.as_str().into(), Arc::new(row))),
            Row::WitnessToken(row) => drop(view.witness_tokens.insert(row.id.as_str().into(), Arc::new(row))),
            Row::ApiToken(row) => drop(view.api_tokens.insert(row.hash.as_str().into(), Arc::new(row))),
            Row::Host(row) => {
                self.index_host(&row);
                self.view.hosts.insert(row.id.clone(), Arc::new(row));
            }
            Row::Power(row) => {
                self.next_sequence = self.next_sequence.max(row.sequence + 1);
                self.view.power.insert(row.host.clone(), Arc::new(row));
            }
            // With its parts: see `load_parts`.
            Row::Operation(row) => drop(view.operations.insert(row.id, Arc::new(Operation::new(row, [])))),
            Row::Part(_) => {}
            Row::Pending(row) => drop(view.pending.insert(row.host.clone(), Arc::new(row))),
            Row::Facts(row) => drop(view.facts.insert(row.host.clone(), Arc::new(row))),
            // What does not read is as good as not set: the file's settings and the defaults hold.
            Row::Settings(row) => view.settings.api = serde_json::from_str(&row.json).unwrap_or_default(),
            Row::Silence(row) => drop(view.silences.insert(row.id.as_str().into(), Arc::new(row))),
            Row::Outbox(row) => self.router.load(row),
            Row::Ha(row) => self.load_ha(row),
            Row::Budget(row) => self.load_ledger(row),
            // One that does not read is as good as none: nobody knows where the host stands until its agent says so.
            Row::Reported(row) => {
                let reported: Reported = serde_json::from_str(&row.json).unwrap_or_default();
                self.view.reported.insert(row.host, Arc::new(reported));
            }
            Row::Alert(row) => {
                // One that does not read is an alert lost, not a fleet that does not start.
                if let Ok(alert) = serde_json::from_str::<api::Alert>(&row.json) {
                    self.load_alert(row.id.as_str().into(), alert);
                }
            }
        }
    }

    /// Gives the operations their parts. A part whose operation is gone belongs to nothing.
    fn load_parts(&mut self, parts: Vec<PartRow>) {
        let mut of: BTreeMap<_, Vec<PartRow>> = BTreeMap::new();
        for part in parts {
            of.entry(part.operation).or_default().push(part);
        }
        for (id, operation) in std::mem::take(&mut self.view.operations) {
            let whole = Operation::new(operation.row.clone(), of.remove(&id).unwrap_or_default());
            self.index_operation(&whole);
            self.view.operations.insert(id, Arc::new(whole));
        }
        let orphans = of.into_values().flatten();
        self.draft.records.extend(orphans.map(|part| Record::Remove(RowKey::Part(part.operation, part.host))));
    }

    fn load_alert(&mut self, id: Arc<str>, mut alert: api::Alert) {
        alert.complete();
        if let (AlertState::Resolved, Some(ended)) = (alert.state, alert.ends_at) {
            self.resolved.insert((ended, id.clone()));
        }
        self.view.alerts.insert(id, Arc::new(alert));
    }

    fn repair(&mut self) {
        let hosts: Vec<Arc<HostRow>> = self.view.hosts.values().cloned().collect();
        let mut bumped: BTreeSet<AgentId> = BTreeSet::new();
        for host in hosts {
            if self.repair_host(&host) {
                bumped.extend(self.view.agent_of(&host).map(|agent| agent.id.clone()));
            }
        }
        // An assignment of another life says nothing about ours.
        bumped.extend(self.view.agents.values().filter(|row| row.generation.store != self.life).map(|row| row.id.clone()));
        let life = self.life;
        for agent in bumped {
            self.edit_agent(&agent, |row| row.generation = Generation { store: life, counter: row.generation.counter + 1 });
        }
    }

    /// Brings a host's power row in line with its gates; true if its agent must hear of it.
    fn repair_host(&mut self, host: &HostRow) -> bool {
        let open = is_open(refusal(&self.view, host));
        let wrong = match self.view.power.get(&host.id).map(|row| row.power) {
            None => true,
            Some(PowerState::Disabled) => open,
            Some(_) => !open,
        };
        if !wrong {
            return false;
        }
        let sequence = self.next_sequence;
        let before = self.view.power.get(&host.id);
        let power_since = before.map_or(Timestamp::UNIX_EPOCH, |row| row.power_since);
        let power = PowerRow {
            host: host.id.clone(),
            power: if open { PowerState::Unknown } else { PowerState::Disabled },
            power_since,
            management: None,
            management_since: None,
            error: None,
            sequence,
            stale: open,
        };
        self.view.power.insert(host.id.clone(), Arc::new(power));
        self.draft.power.insert(host.id.clone());
        self.edit_host(&host.id, |row| row.enablement += 1);
        true
    }

    /// The first event of a process: now times can be reckoned. Hosts are stale until their agent is heard, for nobody knows what
    /// happened meanwhile; agents get their time before they count as lost.
    pub(super) fn start(&mut self, now: Now) {
        self.started = true;
        let agents: Vec<AgentId> = self.view.agents.keys().cloned().collect();
        for agent in agents {
            self.await_agent(&agent, now);
        }
        self.review_statuses();
        self.arm_operations(now);
        self.start_alerts(now);
        if !self.done.is_empty() || !self.resolved.is_empty() {
            self.arm_purge(now);
        }
    }
}
