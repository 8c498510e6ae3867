//! The view as the API and the public MQTT tree show it. Only translates; decides nothing.

use std::sync::Arc;

use jiff::Timestamp;
use picket_common::alert::AlertState;
use picket_common::api::ha::HaOwn;
use picket_common::api::{self, Origin, SettingSource, SettingValue, Valued};
use picket_common::command::{Action, BmcError, ErrorClass, OperationState, Outcome};
use picket_common::driver;
use picket_common::ha::{HaName, HostStatus};
use picket_common::id::{HostId, ZoneId};
use picket_common::power::PowerState;

use super::agents::LOST_AFTER;
use super::effective;
use super::enablement::standing_refusal;
use super::ha;
use super::password::password_change;
use super::request::Gate;
use super::view::{
    AgentRow, ClusterRow, DefaultsRow, HostRow, Operation, OperationRow, PartRow, PowerRow, RackRow, Settings, View, ZoneRow,
};

/// The retained state of a host.
#[must_use]
pub fn state_document(view: &View, host: &HostRow) -> api::StateDocument {
    let power = view.power.get(&host.id);
    let since = power.map_or(Timestamp::UNIX_EPOCH, |row| row.power_since);
    let management_since = power.and_then(|row| row.management_since);
    let ha = ha::host_ha(view, host);
    api::StateDocument {
        host: host.id.clone(),
        zone: host.zone.clone(),
        cluster: host.cluster.clone(),
        power: power.map_or(PowerState::Disabled, |row| row.power),
        since,
        management: power.and_then(|row| row.management),
        ha: ha::ha_name(view, host),
        host_status: ha::host_status(view, host),
        quarantined: ha.as_ref().is_some_and(|ha| ha.quarantined),
        seq: power.map_or(0, |row| row.sequence).max(view.reported.get(&host.id).map_or(0, |row| row.sequence)),
        observed_at: [Some(since), management_since, ha.map(|ha| ha.since)].into_iter().flatten().max().unwrap_or(since),
        stale_after: LOST_AFTER.as_secs(),
        stale: power.is_none_or(|row| row.stale),
    }
}

/// A host.
#[must_use]
pub fn host_json(view: &View, host: &HostRow) -> api::Host {
    let power: Option<&PowerRow> = view.power.get(&host.id).map(|row| &**row);
    let agent = view.agent_of(host);
    let password_change = password_change(view, &host.id);
    let is_neither = password_change.as_ref().is_some_and(|change| change.state == api::PasswordChangeState::Neither);
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
        error: if is_neither { Some(neither(view, host)) } else { power.and_then(|row| row.error.clone()) },
        fresh_at: agent.and_then(|agent| fresh_at(view, host, agent)),
        stale: power.is_none_or(|row| row.stale),
        oobm_enabled: host.oobm.unwrap_or(false),
        ha_enabled: ha::gate(view, &Gate::Host(host.id.clone())).unwrap_or(false),
        pause: ha::pause(view, host).cloned(),
        refusal: standing_refusal(view, host).map(|refusal| refusal.code().into()),
        maintenance: host.maintenance,
        bmc: bmc_json(view, host),
        poll_interval: effective::poll_interval(view, host).value,
        action_timeout: effective::action_timeout(view, host).value,
        labels: host.labels.clone(),
        effective: None,
        facts: None,
        password_change,
        ha: ha::host_ha(view, host),
        host_status: ha::host_status(view, host),
    }
}

/// A host with all that is known of it: where its settings come from, and its BMC's facts.
#[must_use]
pub fn whole_host_json(view: &View, host: &HostRow) -> api::Host {
    api::Host {
        effective: Some(Box::new(effective_json(view, host))),
        facts: facts_json(view, &host.id).map(Box::new),
        ..host_json(view, host)
    }
}

/// What the host's error is when the BMC is known to take neither password, whatever else it said last.
fn neither(view: &View, host: &HostRow) -> BmcError {
    BmcError {
        driver: effective::bmc(view, host).map(|bmc| bmc.driver.value.to_owned()).unwrap_or_default(),
        class: ErrorClass::Auth,
        code: "password-change".into(),
        text: "after a password change the BMC takes neither the old nor the new password: set the one it takes".into(),
    }
}

fn effective_json(view: &View, host: &HostRow) -> api::Effective {
    let key = view.agent_of(host).map(|agent| agent.sealing_key);
    let bmc = effective::bmc(view, host).map(|bmc| {
        let descriptor = effective::descriptor(&bmc);
        let is_open = |password: effective::Password<'_>| key.is_some_and(|key| password.copy_for(&key).is_some());
        api::EffectiveBmc {
            driver: Valued { value: bmc.driver.value.to_owned(), from: bmc.driver.from },
            address: Valued { value: bmc.address.to_owned(), from: Origin::Host },
            port: Valued { value: bmc.port.value.or_else(|| descriptor?.default_port), from: bmc.port.from },
            username: Valued { value: bmc.username.value.to_owned(), from: bmc.username.from },
            password_set: bmc.password.map_or(Valued { value: false, from: Origin::Default }, |password| Valued {
                value: is_open(password.value),
                from: password.from,
            }),
            options: effective::options_with_defaults(view, host),
        }
    });
    api::Effective {
        bmc,
        poll_interval: effective::poll_interval(view, host),
        action_timeout: effective::action_timeout(view, host),
        ha: ha::settings_json(view, host),
    }
}

/// What is known of a host's BMC.
#[must_use]
pub fn facts_json(view: &View, host: &HostId) -> Option<api::HostFacts> {
    view.facts.get(host).map(|row| api::HostFacts {
        facts: row.facts.clone(),
        observed_at: row.observed_at,
        identity_pinned: row.pinned.clone(),
        identity_differs: row.identity_differs(),
    })
}

/// The site's settings.
#[must_use]
pub fn settings_json(view: &View) -> api::Settings {
    let number = SettingValue::Number;
    let of = |value: &dyn Fn(&Settings) -> Option<SettingValue>, default: Option<SettingValue>| {
        let (set, file) = (value(&view.settings.api), value(&view.settings.file));
        let source = match (&set, &file) {
            (Some(_), _) => SettingSource::Api,
            (None, Some(_)) => SettingSource::File,
            (None, None) => SettingSource::Default,
        };
        api::Setting { value: set.or(file).or_else(|| default.clone()), default, source }
    };
    let of_driver = |name: &str| {
        let option = driver::IPMITOOL.options.iter().find(|option| option.name == name);
        option
            .and_then(|option| option.default)
            .map(|text| text.parse().map_or_else(|_| SettingValue::Text(text.to_owned()), SettingValue::Number))
    };
    [
        ("sync_interval", of(&|one| one.sync_interval.map(number), Some(number(effective::DEFAULT_SYNC_INTERVAL)))),
        ("action_timeout", of(&|one| one.action_timeout.map(number), Some(number(effective::DEFAULT_ACTION_TIMEOUT)))),
        ("sync_poolsize", of(&|one| one.sync_poolsize.map(|most| number(most.into())), None)),
        ("ipmitool.interface", of(&|one| one.ipmitool_interface.clone().map(SettingValue::Text), of_driver("interface"))),
        ("ipmitool.retries", of(&|one| one.ipmitool_retries.map(|most| number(most.into())), of_driver("retries"))),
    ]
    .into_iter()
    .map(|(name, setting)| (name.to_owned(), setting))
    .collect()
}

/// When the agent last vouched for the host: at its last word, unless that named the host as overdue.
fn fresh_at(view: &View, host: &HostRow, agent: &AgentRow) -> Option<Timestamp> {
    let presence = view.presence.get(&agent.id)?;
    if presence.overdue.contains(&host.id) { presence.overdue_vouched.get(&host.id).copied() } else { presence.vouched_at }
}

fn bmc_json(view: &View, host: &HostRow) -> Option<api::Bmc> {
    let bmc = effective::bmc(view, host)?;
    let key = view.agent_of(host).map(|agent| agent.sealing_key);
    Some(api::Bmc {
        driver: bmc.driver.value.to_owned(),
        address: bmc.address.to_owned(),
        port: bmc.port.value,
        username: bmc.username.value.to_owned(),
        password_set: bmc.password.zip(key).is_some_and(|(password, key)| password.value.copy_for(&key).is_some()),
        options: effective::options(view, host).into_iter().map(|(key, option)| (key, option.value)).collect(),
    })
}

/// A zone.
#[must_use]
pub fn zone_json(view: &View, zone: &ZoneRow) -> api::Zone {
    let ha_enabled = ha::gate(view, &Gate::Zone(zone.id.clone())).unwrap_or(true);
    api::Zone { id: zone.id.clone(), oobm_enabled: zone.oobm.unwrap_or(true), ha_enabled }
}

/// A cluster.
#[must_use]
pub fn cluster_json(view: &View, cluster: &ClusterRow) -> api::Cluster {
    let set = view.ha.get(&Gate::Cluster(cluster.id.clone()));
    api::Cluster {
        id: cluster.id.clone(),
        body: api::ClusterSettings {
            zone: cluster.zone.clone(),
            poll_interval: cluster.poll_interval,
            action_timeout: cluster.action_timeout,
            bmc: (cluster.bmc != DefaultsRow::default()).then(|| defaults_json(view, cluster)),
        },
        oobm_enabled: cluster.oobm.unwrap_or(true),
        ha_enabled: set.and_then(|set| set.gate).unwrap_or(true),
        ha: set.map(|set| set.settings.clone()).filter(|own| *own != HaOwn::default()),
        brakes: ha::brakes_json(view, &cluster.id),
        pause: set.and_then(|set| set.pause.clone()),
    }
}

fn defaults_json(view: &View, cluster: &ClusterRow) -> api::BmcDefaults {
    let DefaultsRow { driver, port, username, password, options } = &cluster.bmc;
    let agents = agents_of_zone(view, &cluster.zone);
    let without = agents.filter(|agent| password.as_ref().is_some_and(|password| password.copy_for(&agent.sealing_key).is_none()));
    api::BmcDefaults {
        driver: driver.clone(),
        port: *port,
        username: username.clone(),
        password_set: password.is_some(),
        agents_without_password: without.map(|agent| agent.id.clone()).collect(),
        options: options.clone(),
    }
}

/// The agents in charge of a zone's racks.
pub fn agents_of_zone<'a>(view: &'a View, zone: &'a ZoneId) -> impl Iterator<Item = &'a AgentRow> {
    let racks = view.racks.values().filter(move |rack| rack.zone == *zone);
    racks.filter_map(|rack| view.agents.get(rack.agent.as_ref()?)).map(|agent| &**agent)
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

/// Which parts of an operation are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// All.
    All,
    /// None; the counts say how far it is.
    None,
    /// Those that have not ended.
    Open,
    /// Those that ended otherwise than asked for.
    Failed,
    /// As many as a list has room for.
    First,
}

/// Parts of an operation that a list shows.
const FIRST: usize = 16;
/// Hosts that a warning names.
const NAMED: usize = 10;

/// An operation.
#[must_use]
pub fn operation_json(view: &View, operation: &Operation, parts: Parts) -> api::Operation {
    let row = &operation.row;
    let wanted = |part: &&Arc<PartRow>| match parts {
        Parts::All | Parts::First => true,
        Parts::None => false,
        Parts::Open => part.state != OperationState::Done,
        Parts::Failed => part.outcome.as_ref().is_some_and(|outcome| !outcome.is_success()),
    };
    let most = if parts == Parts::First { FIRST } else { usize::MAX };
    api::Operation {
        id: row.id,
        action: row.operation,
        principal: row.principal.clone(),
        reason: row.reason.clone(),
        accepted_at: row.accepted_at,
        deadline: row.deadline,
        stagger_ms: (row.stagger_ms > 0).then_some(row.stagger_ms),
        done: operation.open == 0,
        counts: counts(operation),
        warnings: warnings(operation.parts.values().filter(|part| part.maintenance).map(|part| &part.host)),
        hosts: operation.parts.values().filter(wanted).take(most).map(|part| part_json(view, row, part)).collect(),
        generated_password: None,
    }
}

/// What whoever asks should know of hosts in maintenance.
pub fn warnings<'a>(in_maintenance: impl Iterator<Item = &'a HostId>) -> Vec<String> {
    let hosts: Vec<&str> = in_maintenance.map(HostId::as_str).collect();
    let named = hosts.get(..NAMED).unwrap_or(&hosts).join(", ");
    match hosts.len() {
        0 => Vec::new(),
        1 => vec![format!("{named} is in maintenance")],
        count if count > NAMED => vec![format!("{count} hosts are in maintenance: {named} and {} more", count - NAMED)],
        count => vec![format!("{count} hosts are in maintenance: {named}")],
    }
}

fn counts(operation: &Operation) -> api::OperationCounts {
    let mut counts = api::OperationCounts { total: operation.parts.len() as u64, ..api::OperationCounts::default() };
    for part in operation.parts.values() {
        match part.state {
            OperationState::Accepted => counts.accepted += 1,
            OperationState::Sent => counts.sent += 1,
            OperationState::Admitted => counts.admitted += 1,
            OperationState::Done => counts.done += 1,
        }
        if let Some(outcome) = &part.outcome {
            *counts.results.entry(outcome.as_str().to_owned()).or_default() += 1;
        }
    }
    counts
}

fn part_json(view: &View, operation: &OperationRow, part: &PartRow) -> api::OperationHost {
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
    let is_tested = operation.operation == Action::Test && part.state == OperationState::Done;
    api::OperationHost {
        host: part.host.clone(),
        state: part.state,
        result: outcome.map(|outcome| outcome.as_str().into()),
        power,
        refusal,
        detail: outcome.and_then(outcome_detail),
        bmc_error,
        starts_at: (operation.stagger_ms > 0).then_some(part.starts_at),
        sent_at: part.sent_at,
        admitted_at: part.admitted_at,
        done_at: part.done_at,
        warnings: if part.maintenance { vec!["the host is in maintenance".to_owned()] } else { Vec::new() },
        facts: is_tested.then(|| facts_json(view, &part.host)).flatten().map(Box::new),
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
        let counted = Counted::of(view, host);
        counted.count(&mut summary.hosts);
        let places =
            [summary.zones.get_mut(&host.zone), summary.clusters.get_mut(&host.cluster), summary.racks.get_mut(&host.rack)];
        places.into_iter().flatten().for_each(|counts| counted.count(counts));
    }
    summary
}

/// What a host counts as.
struct Counted {
    power: PowerState,
    stale: bool,
    ha: HaName,
    status: HostStatus,
}

impl Counted {
    fn of(view: &View, host: &HostRow) -> Self {
        let (power, stale) = view.power.get(&host.id).map_or((PowerState::Disabled, true), |row| (row.power, row.stale));
        Self { power, stale, ha: ha::ha_name(view, host), status: ha::host_status(view, host) }
    }

    fn count(&self, counts: &mut api::Counts) {
        match self.power {
            PowerState::On => counts.on += 1,
            PowerState::Off => counts.off += 1,
            PowerState::Unknown => counts.unknown += 1,
            PowerState::Disabled => counts.disabled += 1,
        }
        counts.stale += u64::from(self.stale);
        *counts.ha.entry(self.ha).or_default() += 1;
        *counts.host_status.entry(self.status).or_default() += 1;
    }
}
