//! Host sets resolved against the view: who is in a group is known here. Names in a set need not exist; whoever acts on them checks.

use std::collections::BTreeSet;

use picket_common::hostset::{Group, HostSet, Traits};
use picket_common::id::HostId;
use picket_common::power::PowerState;

use super::problem::ApiError;
use crate::fleet::view::HostRow;
use crate::fleet::{View, ha};

/// The hosts of `text`, read as the field or parameter `select`.
pub fn hosts(view: &View, text: &str) -> Result<BTreeSet<HostId>, ApiError> {
    let wrong = |error: picket_common::hostset::HostSetError| ApiError::invalid("select", error.to_string());
    HostSet::parse(text).map_err(wrong)?.resolve(&|group: &Group| members(view, group)).map_err(wrong)
}

/// The hosts of a group; none when there is no such zone, cluster, rack or agent.
fn members(view: &View, group: &Group) -> Option<Vec<HostId>> {
    match group {
        Group::All => Some(view.hosts.keys().cloned().collect()),
        Group::Cluster(id) => view.clusters.contains_key(id).then(|| view.hosts_of_cluster(id).iter().cloned().collect()),
        Group::Rack(id) => {
            view.racks.contains_key(id).then(|| view.rack_hosts.get(id).cloned().unwrap_or_default().iter().cloned().collect())
        }
        Group::Agent(id) => view.agents.contains_key(id).then(|| view.hosts_of(id).iter().cloned().collect()),
        Group::Zone(id) => view.zones.contains_key(id).then(|| {
            let clusters = view.clusters.values().filter(|cluster| cluster.zone == *id);
            clusters.flat_map(|cluster| view.hosts_of_cluster(&cluster.id)).collect()
        }),
        Group::State(_) | Group::Ha(_) | Group::Status(_) | Group::Label { .. } => {
            Some(view.hosts.values().filter(|row| holds(view, group, row)).map(|row| row.id.clone()).collect())
        }
    }
}

fn holds(view: &View, group: &Group, row: &HostRow) -> bool {
    group.holds(&Traits {
        zone: &row.zone,
        cluster: &row.cluster,
        rack: &row.rack,
        agent: view.agent_of(row).map(|agent| &agent.id),
        power: view.power.get(&row.id).map_or(PowerState::Disabled, |power| power.power),
        ha: ha::ha_name(view, row),
        status: ha::host_status(view, row),
        labels: &row.labels,
    })
}
