//! The view as the API and the public MQTT tree show it. Only translates; decides nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use picket_common::alert::AlertState;
use picket_common::api;
use picket_common::command::{BmcError, OperationState, Outcome};
use picket_common::power::PowerState;

use super::agents::LOST_AFTER;
use super::assign::poll_interval;
use super::enablement::standing_refusal;
use super::view::{AgentRow, BmcRow, ClusterRow, HostRow, OperationHostRow, OperationRow, PowerRow, RackRow, View, ZoneRow};

/// The retained state of a host.
#[must_use]
pub fn state_document(view: &View, host: &HostRow) -> api::StateDocument {
    let power = view.power.get(&host.id);
    let since = power.map_or(Timestamp::UNIX_EPOCH, |row| row.power_since);
    let management_since = power.and_then(|row| row.management_since);
    api::StateDocument {
        host: host.id.clone(),
        zone: host.zone.clone(),
        cluster: host.cluster.clone(),
        power: power.map_or(PowerState::Disabled, |row| row.power),
        since,
        management: power.and_then(|row| row.management),
        ha: "disabled".into(),
        host_status: "unknown".into(),
        seq: power.map_or(0, |row| row.sequence),
        observed_at: management_since.map_or(since, |management| management.max(since)),
        stale_after: LOST_AFTER.as_secs(),
        stale: power.is_none_or(|row| row.stale),
    }
}

/// A host.
#[must_use]
pub fn host_json(view: &View, host: &HostRow) -> api::Host {
    let power: Option<&PowerRow> = view.power.get(&host.id).map(|row| &**row);
    let agent = view.agent_of(host);
    let cluster = view.clusters.get(&host.cluster);
    api::Host {
        id: host.id.clone(),
        zone: host.zone.clone(),
        cluster: host.cluster.clone(),
        rack: host.rack.clone(),
        agent: agent.map(|agent| agent.id.clone()),
        power: power.map_or(PowerState::Disabled, |row| row.power),
        power_since: power.map_or(Timestamp::UNIX_EPOCH, |row| row.power_since),
        management: power.and_then(|row| row.management),
        management_since: power.and_then(|row| row.management_since),
        error: power.and_then(|row| row.error.clone()),
        fresh_at: agent.and_then(|agent| fresh_at(view, host, agent)),
        stale: power.is_none_or(|row| row.stale),
        oobm_enabled: host.oobm.unwrap_or(false),
        refusal: standing_refusal(view, host).map(|refusal| refusal.code().into()),
        maintenance: host.maintenance,
        bmc: host.bmc.as_ref().map(|bmc| bmc_json(bmc, agent.map(|agent| &**agent))),
        poll_interval: poll_interval(view, host),
        action_timeout: cluster.and_then(|cluster| cluster.action_timeout).unwrap_or(view.settings.action_timeout),
        labels: host.labels.clone(),
    }
}

/// When the agent last vouched for the host: at its last word, unless that named the host as overdue.
fn fresh_at(view: &View, host: &HostRow, agent: &AgentRow) -> Option<Timestamp> {
    let presence = view.presence.get(&agent.id)?;
    if presence.overdue.contains(&host.id) { presence.overdue_vouched.get(&host.id).copied() } else { presence.vouched_at }
}

fn bmc_json(bmc: &BmcRow, agent: Option<&AgentRow>) -> api::Bmc {
    let key = agent.map(|agent| agent.sealing_key);
    api::Bmc {
        driver: bmc.driver.clone(),
        address: bmc.address.clone(),
        port: bmc.port,
        username: bmc.username.clone(),
        password_set: bmc.password.as_ref().is_some_and(|password| Some(password.agent_key) == key),
        options: bmc.options.clone(),
    }
}

/// A zone.
#[must_use]
pub fn zone_json(zone: &ZoneRow) -> api::Zone {
    api::Zone { id: zone.id.clone(), oobm_enabled: zone.oobm.unwrap_or(true) }
}

/// A cluster.
#[must_use]
pub fn cluster_json(cluster: &ClusterRow) -> api::Cluster {
    api::Cluster {
        id: cluster.id.clone(),
        body: api::ClusterBody {
            zone: cluster.zone.clone(),
            poll_interval: cluster.poll_interval,
            action_timeout: cluster.action_timeout,
        },
        oobm_enabled: cluster.oobm.unwrap_or(true),
    }
}

/// A rack.
#[must_use]
pub fn rack_json(rack: &RackRow) -> api::Rack {
    api::Rack { id: rack.id.clone(), body: api::RackBody { zone: rack.zone.clone() }, agent: rack.agent.clone(), epoch: rack.epoch }
}

/// An agent with its presence.
#[must_use]
pub fn agent_json(view: &View, agent: &AgentRow) -> api::Agent {
    let presence = view.presence.get(&agent.id);
    api::Agent {
        id: agent.id.clone(),
        rack: agent.rack.clone(),
        connected: presence.is_some_and(|presence| presence.connected),
        last_seen: presence.and_then(|presence| presence.last_seen),
        version: presence.and_then(|presence| presence.version.clone()),
        outbox: presence.map_or(0, |presence| presence.outbox),
        hosts: view.hosts_of(&agent.id).len() as u64,
        up_to_date: presence.is_some_and(|presence| presence.generation == Some(agent.generation)),
    }
}

/// An operation.
#[must_use]
pub fn operation_json(operation: &OperationRow) -> api::Operation {
    api::Operation {
        id: operation.id,
        action: operation.operation.into(),
        principal: operation.principal.clone(),
        reason: operation.reason.clone(),
        accepted_at: operation.accepted_at,
        deadline: operation.deadline,
        done: operation.hosts.iter().all(|part| part.state == OperationState::Done),
        hosts: operation.hosts.iter().map(operation_host_json).collect(),
    }
}

fn operation_host_json(part: &OperationHostRow) -> api::OperationHost {
    let outcome = part.outcome.as_ref();
    let power = match outcome {
        Some(Outcome::Read(power)) => Some(*power),
        _ => None,
    };
    let refusal = match outcome {
        Some(Outcome::Refused(refusal)) => Some(refusal.code().to_owned()),
        _ => None,
    };
    let bmc_error: Option<BmcError> = match outcome {
        Some(Outcome::Failed(error)) => Some(error.clone()),
        _ => None,
    };
    api::OperationHost {
        host: part.host.clone(),
        state: part.state,
        result: outcome.map(|outcome| outcome.as_str().into()),
        power,
        refusal,
        detail: outcome.and_then(outcome_detail),
        bmc_error,
        sent_at: part.sent_at,
        admitted_at: part.admitted_at,
        done_at: part.done_at,
    }
}

/// One sentence about how an operation ended, where its result's name does not say it all.
#[must_use]
pub fn outcome_detail(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Changed | Outcome::Unchanged => None,
        Outcome::Read(power) => Some(format!("the host is {power}")),
        Outcome::Refused(refusal) => Some(refusal.to_string()),
        Outcome::Failed(error) => Some(error.to_string()),
        Outcome::Expired => Some("its deadline passed before it was begun".into()),
        Outcome::Cancelled => Some("it was taken back before it was begun".into()),
        Outcome::Unknown(text) => Some(text.clone()),
    }
}

/// Counts of all hosts; reads every host once.
#[must_use]
pub fn summary(view: &View) -> api::Summary {
    let mut summary = api::Summary {
        agents_connected: view.presence.values().filter(|presence| presence.connected).count() as u64,
        agents: view.agents.len() as u64,
        alerts_firing: view.alerts.values().filter(|alert| alert.state == AlertState::Firing).count() as u64,
        zones: view.zones.keys().map(|id| (id.clone(), api::Counts::default())).collect(),
        clusters: view.clusters.keys().map(|id| (id.clone(), api::Counts::default())).collect(),
        racks: view.racks.keys().map(|id| (id.clone(), api::Counts::default())).collect(),
        ..api::Summary::default()
    };
    for host in view.hosts.values() {
        let (power, stale) = view.power.get(&host.id).map_or((PowerState::Disabled, true), |row| (row.power, row.stale));
        count(&mut summary.hosts, power, stale);
        count_in(&mut summary.zones, &host.zone, power, stale);
        count_in(&mut summary.clusters, &host.cluster, power, stale);
        count_in(&mut summary.racks, &host.rack, power, stale);
    }
    summary
}

fn count_in<K: Ord>(counts: &mut BTreeMap<K, api::Counts>, key: &K, power: PowerState, stale: bool) {
    if let Some(counts) = counts.get_mut(key) {
        count(counts, power, stale);
    }
}

const fn count(counts: &mut api::Counts, power: PowerState, stale: bool) {
    match power {
        PowerState::On => counts.on += 1,
        PowerState::Off => counts.off += 1,
        PowerState::Unknown => counts.unknown += 1,
        PowerState::Disabled => counts.disabled += 1,
    }
    counts.stale += stale as u64;
}
