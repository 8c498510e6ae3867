//! Assignments: what an agent is told of its hosts, whole or as a difference, in parts that fit a frame.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::Refusal;
use picket_common::id::{AgentId, HostId};
use picket_common::wire::Generation;
use picket_common::wire::assign::{Assign, BmcAssignment, Delta, HostAssignment, MAX_HOSTS_PER_PART, MAX_OPTIONS, Part};
use picket_common::wire::codec::MAX_FRAME_LEN;

use super::draft::Touched;
use super::view::{AgentRow, HostRow, View};
use super::{Effect, Fleet, Told, effective, refusal};

/// Room for hosts in one part: the frame without its header, key id, signature, and the part's own fields.
const ROOM: usize = MAX_FRAME_LEN - 256;

/// A host as its agent needs to know it.
pub(super) fn host_assignment(view: &View, host: &HostRow) -> HostAssignment {
    HostAssignment {
        host: host.id.clone(),
        zone: host.zone.clone(),
        cluster: host.cluster.clone(),
        enablement: host.enablement,
        refusal: refusal(view, host),
        bmc: bmc_assignment(view, host),
        poll_interval_ms: poll_interval_ms(view, host),
    }
}

/// What settings decide of what an agent is told of a host; the revision counts its changes, so it is not among it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) bmc: Option<BmcAssignment>,
    pub(super) refusal: Option<Refusal>,
    poll_interval_ms: u32,
}

/// See [`Assigned`].
pub(super) fn assigned(view: &View, host: &HostRow) -> Assigned {
    let bmc = bmc_assignment(view, host).map(|bmc| BmcAssignment { revision: 0, ..bmc });
    Assigned { bmc, refusal: refusal(view, host), poll_interval_ms: poll_interval_ms(view, host) }
}

/// The BMC's settings in force, with the password as the agent in charge can open it; absent while they are not complete.
fn bmc_assignment(view: &View, host: &HostRow) -> Option<BmcAssignment> {
    let bmc = effective::bmc(view, host).filter(effective::Bmc::is_complete)?;
    let password = bmc.password.zip(view.agent_of(host));
    let password = password.and_then(|(password, agent)| password.value.copy_for(&agent.sealing_key));
    let mut options: Vec<_> = effective::options(view, host).into_iter().collect();
    if options.len() > MAX_OPTIONS {
        // Only where a host was made with more than it may have now: its own go first.
        options.sort_by_key(|(_, value)| value.from);
        options.truncate(MAX_OPTIONS);
    }
    Some(BmcAssignment {
        driver: bmc.driver.value.to_owned(),
        address: bmc.address.to_owned(),
        port: bmc.port.value,
        username: bmc.username.value.to_owned(),
        password: password.cloned(),
        options: options.into_iter().map(|(key, option)| (key, option.value)).collect(),
        revision: host.bmc.as_ref().map_or(0, |own| own.revision),
    })
}

fn poll_interval_ms(view: &View, host: &HostRow) -> u32 {
    // The wire takes 1 s to 1 h; settings of the aggregator's file are brought into that.
    u32::try_from(effective::poll_interval(view, host).value.clamp(1, 3600) * 1000).unwrap_or(u32::MAX)
}

/// An upper bound of a host's length in postcard: texts take their length and up to 2 bytes for it, numbers up to 10.
fn length_bound(host: &HostAssignment) -> usize {
    let text = |text: &str| text.len() + 2;
    let names = text(host.host.as_str()) + text(host.zone.as_str()) + text(host.cluster.as_str());
    let bmc = host.bmc.as_ref().map_or(0, |bmc| {
        let options: usize = bmc.options.iter().map(|(key, value)| text(key) + text(value)).sum();
        let password = bmc.password.as_ref().map_or(0, |sealed| sealed.0.len() + 3);
        text(&bmc.driver) + text(&bmc.address) + text(&bmc.username) + password + options + 20
    });
    names + bmc + 20
}

/// Cuts hosts into parts that fit, at least one; of the first, so much is filled already.
pub(super) fn cut<T>(hosts: Vec<T>, filled: usize, length_bound: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut cut: Vec<Vec<T>> = vec![Vec::new()];
    let mut filled = filled;
    for host in hosts {
        let length = length_bound(&host);
        let is_full = cut.last().is_some_and(|part| part.len() >= MAX_HOSTS_PER_PART || filled + length > ROOM);
        if is_full {
            cut.push(Vec::new());
            filled = 0;
        }
        filled += length;
        if let Some(part) = cut.last_mut() {
            part.push(host);
        }
    }
    cut
}

fn parts(generation: Generation, epoch: u64, hosts: Vec<HostAssignment>) -> Vec<Assign> {
    let cut = cut(hosts, 0, length_bound);
    let of = u16::try_from(cut.len()).unwrap_or(u16::MAX);
    (0..of).zip(cut).map(|(part, hosts)| Assign::Part(Part { generation, epoch, part, of, hosts })).collect()
}

impl Fleet {
    /// Bumps an agent's generation and, if it is connected, tells it what changed.
    pub(super) fn reassign(&mut self, agent: &AgentId, touched: &Touched, now: Now) {
        let Some(base) = self.view.agents.get(agent).map(|row| row.generation) else { return };
        let generation = Generation { store: self.life, counter: base.counter + 1 };
        self.edit_agent(agent, |row| row.generation = generation);
        self.draft.presence.insert(agent.clone());
        let Some(link) = self.links.get(agent) else { return };
        if link.session.is_none() {
            return;
        }
        let delta = (link.told == Some(base) && !touched.whole).then(|| self.delta(agent, base, generation, touched)).flatten();
        match delta {
            Some(delta) => self.tell_assign(agent, generation, vec![delta], now.boottime),
            None => self.tell_whole_assignment(agent, now),
        }
    }

    fn delta(&self, agent: &AgentId, base: Generation, generation: Generation, touched: &Touched) -> Option<Assign> {
        if touched.upsert.len() > MAX_HOSTS_PER_PART || touched.remove.len() > MAX_HOSTS_PER_PART {
            return None;
        }
        let hosts = touched.upsert.iter().filter_map(|id| self.view.hosts.get(id));
        let upsert: Vec<_> = hosts.map(|host| host_assignment(&self.view, host)).collect();
        let remove: Vec<HostId> = touched.remove.iter().cloned().collect();
        let length = upsert.iter().map(length_bound).sum::<usize>() + remove.iter().map(|id| id.as_str().len() + 2).sum::<usize>();
        (length <= ROOM).then(|| Assign::Delta(Delta { base, generation, epoch: self.epoch_of(agent), upsert, remove }))
    }

    /// Tells an agent its whole assignment.
    pub(super) fn tell_whole_assignment(&mut self, agent: &AgentId, now: Now) {
        let Some(generation) = self.view.agents.get(agent).map(|row| row.generation) else { return };
        let hosts = self.view.hosts_of(agent);
        let hosts = hosts.iter().filter_map(|id| self.view.hosts.get(id)).map(|host| host_assignment(&self.view, host)).collect();
        let parts = parts(generation, self.epoch_of(agent), hosts);
        self.tell_assign(agent, generation, parts, now.boottime);
    }

    fn tell_assign(&mut self, agent: &AgentId, generation: Generation, assign: Vec<Assign>, at: Duration) {
        let link = self.links.entry(agent.clone()).or_default();
        link.told = Some(generation);
        link.told_at = Some(at);
        self.draft.assigns.push(Effect::Tell(agent.clone(), Told::Assign(assign)));
    }

    /// The assignment an agent will hold once this event is told.
    pub(super) fn coming_generation(&self, agent: &AgentRow) -> Generation {
        let bump = u64::from(self.draft.touched.contains_key(&agent.id));
        Generation { counter: agent.generation.counter + bump, ..agent.generation }
    }

    /// Owner epoch of the rack that an agent guards, or guarded.
    pub(super) fn epoch_of(&self, agent: &AgentId) -> u64 {
        self.view.agents.get(agent).and_then(|row| self.view.racks.get(&row.rack)).map_or(0, |rack| rack.epoch)
    }
}

#[cfg(test)]
mod tests {
    use picket_common::seal::Sealed;
    use picket_common::wire::codec::{SigningKey, sign};
    use proptest::prelude::*;

    use super::*;

    fn host(n: usize, name: usize, options: usize, value: usize, password: usize) -> HostAssignment {
        let id = format!("h{n}{}", "x".repeat(name));
        HostAssignment {
            host: id.parse().unwrap(),
            zone: "z".repeat(name + 1).parse().unwrap(),
            cluster: "c".repeat(name + 1).parse().unwrap(),
            enablement: u64::MAX,
            refusal: Some(Refusal::NotSupported),
            bmc: Some(BmcAssignment {
                driver: "redfish".into(),
                address: "a".repeat(value.min(255)),
                port: Some(u16::MAX),
                username: "u".repeat(value.min(255)),
                password: Some(Sealed(vec![1; password])),
                options: (0..options).map(|i| (format!("k{i}"), "v".repeat(value))).collect(),
                revision: u64::MAX,
            }),
            poll_interval_ms: 3_600_000,
        }
    }

    proptest! {
        #[test]
        fn every_part_fits_its_frame(
            count in 0_usize..600, name in 0_usize..50, options in 0_usize..=32, value in 0_usize..=512, password in 0_usize..=512
        ) {
            let key = SigningKey::from_seed(&picket_common::secret::Secret::new([7; 32])).unwrap();
            let agent: AgentId = "r1".parse().unwrap();
            let hosts: Vec<_> = (0..count.min(40_000 / (options * value + 60))).map(|n| host(n, name, options, value, password)).collect();
            for host in &hosts {
                prop_assert!(postcard::to_stdvec(host).unwrap().len() <= length_bound(host));
            }
            let generation = Generation { store: uuid::Uuid::max(), counter: u64::MAX };
            let parts = parts(generation, u64::MAX, hosts.clone());
            let mut got = Vec::new();
            for (n, part) in parts.iter().enumerate() {
                sign(&key, &agent, part).unwrap();
                let Assign::Part(part) = part else { panic!("a part") };
                prop_assert_eq!((usize::from(part.part), usize::from(part.of)), (n, parts.len()));
                got.extend(part.hosts.clone());
            }
            prop_assert_eq!(got, hosts);
        }
    }
}
