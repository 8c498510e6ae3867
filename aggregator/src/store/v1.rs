//! Rows as schema 1 kept them, frozen: what a store of Picket 0.1 holds is read by these and by nothing else. Never changed; what is
//! of `picket_common` here is pinned there, for it crosses the wire and only grows at its end.

use std::collections::BTreeMap;

use jiff::Timestamp;
use picket_common::api;
use picket_common::command::{Action, BmcError, OperationState, Outcome};
use picket_common::id::{AgentId, ClusterId, HostId, OperationId, RackId, ZoneId};
use picket_common::power::{Management, PowerState};
use picket_common::seal::{Sealed, SealingKey};
use picket_common::wire::{Generation, Incarnation};
use serde::{Deserialize, Serialize};

use super::Cause;
use crate::fleet::view;

/// Version byte of these rows.
pub(super) const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
pub(super) enum Row {
    Zone(ZoneRow),
    Cluster(ClusterRow),
    Rack(RackRow),
    Host(HostRow),
    Power(PowerRow),
    Agent(AgentRow),
    JoinToken(JoinTokenRow),
    ApiToken(ApiTokenRow),
    Operation(OperationRow),
    Alert(AlertRow),
}

#[derive(Serialize, Deserialize)]
pub(super) struct ZoneRow {
    pub(super) id: ZoneId,
    pub(super) oobm: Option<bool>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ClusterRow {
    pub(super) id: ClusterId,
    pub(super) zone: ZoneId,
    pub(super) oobm: Option<bool>,
    pub(super) poll_interval: Option<u64>,
    pub(super) action_timeout: Option<u64>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RackRow {
    pub(super) id: RackId,
    pub(super) zone: ZoneId,
    pub(super) agent: Option<AgentId>,
    pub(super) epoch: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct HostRow {
    pub(super) id: HostId,
    pub(super) zone: ZoneId,
    pub(super) cluster: ClusterId,
    pub(super) rack: RackId,
    pub(super) oobm: Option<bool>,
    pub(super) enablement: u64,
    pub(super) bmc: Option<BmcRow>,
    pub(super) maintenance: bool,
    pub(super) poll_interval: Option<u64>,
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct BmcRow {
    pub(super) driver: String,
    pub(super) address: String,
    pub(super) port: Option<u16>,
    pub(super) username: String,
    pub(super) password: Option<SealedPassword>,
    pub(super) options: BTreeMap<String, String>,
    pub(super) revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SealedPassword {
    pub(super) agent_key: SealingKey,
    pub(super) agent: Sealed,
    pub(super) recovery: Sealed,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PowerRow {
    pub(super) host: HostId,
    pub(super) power: PowerState,
    pub(super) power_since: Timestamp,
    pub(super) management: Option<Management>,
    pub(super) management_since: Option<Timestamp>,
    pub(super) error: Option<BmcError>,
    pub(super) sequence: u64,
    pub(super) stale: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AgentRow {
    pub(super) id: AgentId,
    pub(super) rack: RackId,
    pub(super) sealing_key: SealingKey,
    pub(super) public_key: String,
    pub(super) boot: Option<Incarnation>,
    pub(super) acked: u64,
    pub(super) earlier: Vec<(Incarnation, u64)>,
    pub(super) rolled_back: u64,
    pub(super) generation: Generation,
}

#[derive(Serialize, Deserialize)]
pub(super) struct JoinTokenRow {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) agent: AgentId,
    pub(super) rack: RackId,
    pub(super) expires_at: Timestamp,
    pub(super) used: Option<(String, String)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ApiTokenRow {
    pub(super) hash: String,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) scope: Scope,
    pub(super) expires_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Role {
    Viewer,
    Operator,
    Fencer,
    Admin,
    Auditor,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Scope {
    pub(super) zones: Vec<ZoneId>,
    pub(super) clusters: Vec<ClusterId>,
    pub(super) hosts: Vec<HostId>,
}

/// Of `operation` schema 1 knew the first six.
#[derive(Serialize, Deserialize)]
pub(super) struct OperationRow {
    pub(super) id: OperationId,
    pub(super) operation: Action,
    pub(super) on_if_off: bool,
    pub(super) principal: String,
    pub(super) reason: Option<String>,
    pub(super) accepted_at: Timestamp,
    pub(super) deadline: Timestamp,
    pub(super) hosts: Vec<OperationHostRow>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct OperationHostRow {
    pub(super) host: HostId,
    pub(super) state: OperationState,
    pub(super) outcome: Option<Outcome>,
    pub(super) cancelling: bool,
    pub(super) sent_at: Option<Timestamp>,
    pub(super) sent_enablement: Option<u64>,
    pub(super) admitted_at: Option<Timestamp>,
    pub(super) done_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AlertRow {
    pub(super) id: String,
    pub(super) json: String,
}

/// A row, after its version byte, as the rows that stand for it now.
pub(super) fn read(body: &[u8]) -> Result<Vec<view::Row>, Cause> {
    let row = match postcard::take_from_bytes(body)? {
        (row, []) => row,
        (_, rest) => return Err(format!("{} bytes follow the row", rest.len()).into()),
    };
    Ok(match row {
        Row::Zone(ZoneRow { id, oobm }) => vec![view::Row::Zone(view::ZoneRow { id, oobm })],
        Row::Cluster(row) => vec![view::Row::Cluster(cluster(row))],
        Row::Rack(RackRow { id, zone, agent, epoch }) => vec![view::Row::Rack(view::RackRow { id, zone, agent, epoch })],
        Row::Host(row) => vec![view::Row::Host(host(row))],
        Row::Power(row) => vec![view::Row::Power(power(row))],
        Row::Agent(row) => vec![view::Row::Agent(agent(row))],
        Row::JoinToken(row) => vec![view::Row::JoinToken(join_token(row))],
        Row::ApiToken(row) => vec![view::Row::ApiToken(api_token(row))],
        Row::Operation(row) => operation(row),
        Row::Alert(AlertRow { id, json }) => vec![view::Row::Alert(view::AlertRow { id, json })],
    })
}

fn cluster(row: ClusterRow) -> view::ClusterRow {
    let ClusterRow { id, zone, oobm, poll_interval, action_timeout } = row;
    view::ClusterRow { id, zone, oobm, poll_interval, action_timeout, bmc: view::DefaultsRow::default() }
}

/// All that a host had was its own. Only a name that nobody gave is inherited from now on: as long as its cluster has none, it is
/// what it was.
fn host(row: HostRow) -> view::HostRow {
    let HostRow { id, zone, cluster, rack, oobm, enablement, bmc, maintenance, poll_interval, labels } = row;
    let bmc = bmc.map(|bmc| {
        let BmcRow { driver, address, port, username, password, options, revision } = bmc;
        let username = (password.is_some() || !username.is_empty()).then_some(username);
        let password =
            password.map(|SealedPassword { agent_key, agent, recovery }| view::SealedPassword { agent_key, agent, recovery });
        view::BmcRow { driver: Some(driver), address, port, username, password, options, revision }
    });
    view::HostRow { id, zone, cluster, rack, oobm, enablement, bmc, maintenance, poll_interval, action_timeout: None, labels }
}

fn power(row: PowerRow) -> view::PowerRow {
    let PowerRow { host, power, power_since, management, management_since, error, sequence, stale } = row;
    view::PowerRow { host, power, power_since, management, management_since, error, sequence, stale }
}

fn agent(row: AgentRow) -> view::AgentRow {
    let AgentRow { id, rack, sealing_key, public_key, boot, acked, earlier, rolled_back, generation } = row;
    view::AgentRow { id, rack, sealing_key, public_key, boot, acked, earlier, rolled_back, generation }
}

fn join_token(row: JoinTokenRow) -> view::JoinTokenRow {
    let JoinTokenRow { id, secret, agent, rack, expires_at, used } = row;
    view::JoinTokenRow { id, secret, agent, rack, expires_at, used }
}

fn api_token(row: ApiTokenRow) -> view::ApiTokenRow {
    let ApiTokenRow { hash, name, role, scope: Scope { zones, clusters, hosts }, expires_at } = row;
    let role = match role {
        Role::Viewer => api::Role::Viewer,
        Role::Operator => api::Role::Operator,
        Role::Fencer => api::Role::Fencer,
        Role::Admin => api::Role::Admin,
        Role::Auditor => api::Role::Auditor,
    };
    view::ApiTokenRow { hash, name, role, scope: api::Scope { zones, clusters, hosts }, expires_at }
}

/// An operation kept its parts within itself.
fn operation(row: OperationRow) -> Vec<view::Row> {
    let OperationRow { id, operation, on_if_off, principal, reason, accepted_at, deadline, hosts } = row;
    let part = |part| {
        let OperationHostRow { host, state, outcome, cancelling, sent_at, sent_enablement, admitted_at, done_at } = part;
        view::Row::Part(view::PartRow {
            operation: id,
            host,
            state,
            outcome,
            cancelling,
            maintenance: false,
            starts_at: accepted_at,
            deadline,
            sent_at,
            sent_enablement,
            admitted_at,
            done_at,
        })
    };
    let whole = view::OperationRow { id, operation, on_if_off, principal, reason, accepted_at, deadline, stagger_ms: 0 };
    std::iter::once(view::Row::Operation(whole)).chain(hosts.into_iter().map(part)).collect()
}
