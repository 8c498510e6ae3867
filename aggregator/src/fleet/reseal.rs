//! Passwords sealed anew to an agent that took another's place. Whoever has the recovery key seals them elsewhere: here each is only
//! put in the place of the copy it was made from, if that is still the one in force.

use std::sync::Arc;

use picket_common::api::{RackSecret, SecretOwner};
use picket_common::clock::Now;
use picket_common::id::{ClusterId, HostId, RackId, ZoneId};
use picket_common::seal::{Sealed, SealingKey};

use super::password::is_open;
use super::request::{Answer, Rejection, Reseal};
use super::settings::not_found;
use super::view::{PendingPasswordRow, Row, SealedPassword, View};
use super::{Fleet, effective, json};

/// What a rack's agent is to be given, with the copy sealed to the recovery key: its hosts' own passwords, those of changes that are
/// not over, and those of its zone's clusters. `show` renders a copy.
pub fn secrets(view: &View, rack: &RackId, show: impl Fn(&Sealed) -> String) -> Vec<RackSecret> {
    let Some(row) = view.racks.get(rack) else { return Vec::new() };
    let key = row.agent.as_ref().and_then(|agent| view.agents.get(agent)).map(|agent| agent.sealing_key);
    let hosts = view.rack_hosts.get(rack).cloned().unwrap_or_default();
    let mut items = Vec::new();
    for cluster in view.clusters.values().filter(|cluster| cluster.zone == row.zone) {
        let Some((username, password)) = cluster.bmc.username.clone().zip(cluster.bmc.password.as_ref()) else { continue };
        items.push(RackSecret {
            belongs: SecretOwner::Cluster { cluster: cluster.id.clone(), username },
            recovery: show(&password.recovery),
            sealed: key.is_some_and(|key| password.copy_for(&key).is_some()),
        });
    }
    for host in hosts.iter().filter_map(|id| view.hosts.get(id)) {
        let Some(bmc) = effective::bmc(view, host) else { continue };
        let (address, username) = (bmc.address.to_owned(), bmc.username.value.to_owned());
        if let Some(effective::Password::Own(password)) = bmc.password.map(|password| password.value) {
            items.push(RackSecret {
                belongs: SecretOwner::Host { host: host.id.clone(), address, username },
                recovery: show(&password.recovery),
                sealed: key == Some(password.agent_key),
            });
        }
        if let Some(pending) = view.pending.get(&host.id) {
            let PendingPasswordRow { address, username, password, .. } = &**pending;
            items.push(RackSecret {
                belongs: SecretOwner::Pending { host: host.id.clone(), address: address.clone(), username: username.clone() },
                recovery: show(&password.recovery),
                sealed: key == Some(password.agent_key),
            });
        }
    }
    items
}

impl Fleet {
    /// Keeps what was sealed anew to the agent in charge. What was changed or removed since it was read is left alone.
    pub(super) fn reseal(&mut self, rack: &RackId, key: SealingKey, items: Vec<Reseal>, now: Now) -> Result<Answer, Rejection> {
        let row = self.view.racks.get(rack).cloned().ok_or_else(|| not_found("rack", rack))?;
        let agent = row.agent.as_ref().and_then(|agent| self.view.agents.get(agent));
        if agent.map(|agent| agent.sealing_key) != Some(key) {
            return Err(Rejection::Invalid {
                field: "sealing_key",
                text: "is not that of the rack's agent now; read the secrets again".into(),
            });
        }
        let hosts = self.view.rack_hosts.get(rack).cloned().unwrap_or_default();
        let assigned = self.assigned_to(hosts.iter());
        let (mut resealed, mut skipped) = (0, 0);
        for item in items {
            let taken = match &item.belongs {
                SecretOwner::Host { host, .. } => hosts.contains(host) && self.reseal_host(host, key, &item),
                SecretOwner::Pending { host, .. } => hosts.contains(host) && self.reseal_pending(host, key, &item),
                SecretOwner::Cluster { cluster, .. } => self.reseal_cluster(cluster, &row.zone, key, &item),
            };
            resealed += u64::from(taken);
            skipped += u64::from(!taken);
        }
        self.retell_all(assigned, now);
        Ok(Answer::Resealed { resealed, skipped })
    }

    fn reseal_host(&mut self, host: &HostId, key: SealingKey, item: &Reseal) -> bool {
        let password = self.view.hosts.get(host).and_then(|row| row.bmc.as_ref()?.password.as_ref());
        let is_same = password.is_some_and(|password| password.recovery == item.recovery);
        if is_same {
            let password = SealedPassword { agent_key: key, agent: item.agent.clone(), recovery: item.recovery.clone() };
            self.edit_host(host, |row| {
                if let Some(bmc) = &mut row.bmc {
                    bmc.password = Some(password);
                }
            });
        }
        is_same
    }

    /// A change under way was sent with the copy it was made with, or will not be sent at all: only one that is over is resealed.
    fn reseal_pending(&mut self, host: &HostId, key: SealingKey, item: &Reseal) -> bool {
        let pending = self.view.pending.get(host).filter(|pending| pending.password.recovery == item.recovery).cloned();
        let Some(pending) = pending.filter(|pending| !is_open(&self.view, pending)) else { return false };
        let password = SealedPassword { agent_key: key, agent: item.agent.clone(), recovery: item.recovery.clone() };
        self.keep_pending(PendingPasswordRow { password, ..(*pending).clone() });
        true
    }

    /// The agent's copy is added; those of agents that are gone are dropped with it.
    fn reseal_cluster(&mut self, cluster: &ClusterId, zone: &ZoneId, key: SealingKey, item: &Reseal) -> bool {
        let Some(row) = self.view.clusters.get(cluster).filter(|row| row.zone == *zone).cloned() else { return false };
        let mut row = (*row).clone();
        let Some(password) = row.bmc.password.as_mut().filter(|password| password.recovery == item.recovery) else {
            return false;
        };
        let keys: Vec<SealingKey> = json::agents_of_zone(&self.view, &row.zone).map(|agent| agent.sealing_key).collect();
        password.copies.retain(|(of, _)| *of != key && keys.contains(of));
        password.copies.push((key, item.agent.clone()));
        self.draft.put(Row::Cluster(row.clone()));
        self.view.clusters.insert(row.id.clone(), Arc::new(row));
        true
    }
}
