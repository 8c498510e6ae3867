//! Who may switch off how many of a cluster: each agent owns one power-down a window, cut off or not; what the cap leaves beyond
//! that is leased, for a while, to agents with unwell hosts. It only counts.
//!
//! An agent takes its lease for what it may have had within the window, beyond its own one. So it never has more than the greatest
//! lease that was good within a window, and all agents together never more than the cap, or one each if that is more: what was
//! leased counts until the window has passed it, unless its agent has said since what it did with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use picket_common::failure_cap::Cap;
use picket_common::id::AgentId;
use serde::{Deserialize, Serialize};

/// How long a lease is good.
const LEASE: Duration = Duration::from_secs(600);
/// A lease is renewed when so much of it is left.
const RENEW: Duration = Duration::from_secs(300);
/// Clocks of agents and the centre may differ by less than this.
const SLACK: Duration = Duration::from_secs(60);
/// What an agent may always have within a window.
const FLOOR: u32 = 1;

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::fleet) struct Grant {
    /// Whose.
    agent: AgentId,
    /// How many it may have had within the window, beyond its own one.
    pub(super) count: u16,
    /// Until when it is good.
    pub(super) until: Timestamp,
}

/// A power-down that an agent told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Down {
    agent: AgentId,
    at: Timestamp,
}

/// What was leased of a cluster's cap, and what its agents had.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::fleet) struct Ledger {
    grants: Vec<Grant>,
    downs: Vec<Down>,
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

impl Ledger {
    /// Whether nothing in it counts.
    pub(super) const fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.downs.is_empty()
    }

    /// All agents that were leased something which counts.
    pub(super) fn agents(&self) -> BTreeSet<AgentId> {
        self.grants.iter().map(|grant| grant.agent.clone()).collect()
    }

    /// An agent told of a power-down.
    pub(super) fn note_down(&mut self, agent: &AgentId, at: Timestamp, now: Timestamp) {
        self.downs.push(Down { agent: agent.clone(), at: at.min(now) });
    }

    /// An agent has told all that it did up to `heard`: what it was leased before and did not use counts no more.
    pub(super) fn settle(&mut self, agent: &AgentId, heard: Timestamp) {
        self.grants.retain(|grant| grant.agent != *agent || later(grant.until, SLACK) >= heard);
    }

    /// Forgets what the window has passed.
    pub(super) fn forget(&mut self, cap: Cap, now: Timestamp) {
        self.grants.retain(|grant| later(later(grant.until, SLACK), cap.window) > now);
        self.downs.retain(|down| later(down.at, cap.window) > now);
    }

    /// The lease of an agent that is good now.
    pub(super) fn grant(&self, agent: &AgentId, now: Timestamp) -> Option<&Grant> {
        self.grants.iter().rfind(|grant| grant.agent == *agent).filter(|grant| now < grant.until)
    }

    /// How many power-downs an agent told of.
    pub(super) fn downs_of(&self, agent: &AgentId) -> u32 {
        count(self.downs.iter().filter(|down| down.agent == *agent).count())
    }

    /// Most power-downs that an agent may have had within the window, as far as is known here.
    fn committed(&self, agent: &AgentId, has_floor: bool) -> u32 {
        let held = self.grants.iter().filter(|grant| grant.agent == *agent).map(|grant| u32::from(grant.count)).max().unwrap_or(0);
        let floor = if has_floor || held > 0 { FLOOR } else { 0 };
        (floor + held).max(self.downs_of(agent))
    }

    /// Leases to those that need any, as far as there is something left. `agents` = all that have hosts of the cluster; `needs` =
    /// how many each needs beyond its own one, of those that can hear it.
    pub(super) fn lease(&mut self, agents: &BTreeSet<AgentId>, needs: &BTreeMap<AgentId, u32>, cap: Cap, now: Timestamp) {
        self.forget(cap, now);
        for (agent, need) in needs {
            let last = self.grant(agent, now).cloned();
            if *need == 0 && last.is_none() {
                continue;
            }
            let left = u32::from(cap.most).saturating_sub(FLOOR + self.others(agent, agents));
            let give = u16::try_from((*need).min(left)).unwrap_or(u16::MAX);
            let is_fine = last.as_ref().is_some_and(|last| last.count == give && later(now, RENEW) < last.until);
            if is_fine || (give == 0 && last.as_ref().is_none_or(|last| last.count == 0)) {
                continue;
            }
            self.keep(Grant { agent: agent.clone(), count: give, until: later(now, LEASE) });
        }
    }

    /// What all but one may have had.
    fn others(&self, agent: &AgentId, agents: &BTreeSet<AgentId>) -> u32 {
        let known = self.grants.iter().map(|grant| &grant.agent).chain(self.downs.iter().map(|down| &down.agent));
        let others: BTreeSet<&AgentId> = agents.iter().chain(known).filter(|other| *other != agent).collect();
        others.into_iter().map(|other| self.committed(other, agents.contains(other))).sum()
    }

    /// Keeps a lease; earlier ones of the agent that were no greater, and end no later, are in it.
    fn keep(&mut self, new: Grant) {
        self.grants.retain(|grant| grant.agent != new.agent || grant.count > new.count || grant.until > new.until);
        self.grants.push(new);
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use picket_common::failure_cap::PowerDowns;
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn agent(n: usize) -> AgentId {
        format!("r{n}").parse().unwrap()
    }

    fn agents(count: usize) -> BTreeSet<AgentId> {
        (1..=count).map(agent).collect()
    }

    fn needs(of: &[(usize, u32)]) -> BTreeMap<AgentId, u32> {
        of.iter().map(|(n, need)| (agent(*n), *need)).collect()
    }

    fn lease(ledger: &mut Ledger, count: usize, of: &[(usize, u32)], cap: u16, now: i64) -> Vec<u16> {
        ledger.lease(&agents(count), &needs(of), Cap { most: cap, ..Cap::CLUSTER }, at(now));
        (1..=count).map(|n| ledger.grant(&agent(n), at(now)).map_or(0, |grant| grant.count)).collect()
    }

    #[test]
    fn what_the_floors_leave_goes_to_those_in_need() {
        let ledger = &mut Ledger::default();
        assert_eq!(lease(ledger, 3, &[(1, 0), (2, 0), (3, 0)], 5, 0), [0, 0, 0]);
        assert!(ledger.is_empty());
        assert_eq!(lease(ledger, 3, &[(1, 1)], 5, 0), [1, 0, 0], "not more than it needs");
        assert_eq!(lease(ledger, 3, &[(1, 1), (2, 9)], 5, 0), [1, 1, 0]);
        assert_eq!(lease(ledger, 3, &[(3, 9)], 5, 0), [1, 1, 0], "nothing is left");
        assert_eq!(lease(&mut Ledger::default(), 3, &[(1, 9)], 3, 0), [0, 0, 0], "one each is the cap");
        assert_eq!(lease(&mut Ledger::default(), 1, &[(1, 9)], 3, 0), [2]);
        assert_eq!(lease(&mut Ledger::default(), 1, &[(1, 9)], 0, 0), [0]);
    }

    #[test]
    fn a_lease_counts_until_the_window_has_passed_it_or_its_agent_has_told() {
        let mut ledger = Ledger::default();
        assert_eq!(lease(&mut ledger, 2, &[(1, 9)], 4, 0), [2, 0]);
        assert_eq!(lease(&mut ledger, 2, &[(2, 9)], 4, 599), [2, 0]);
        assert_eq!(lease(&mut ledger, 2, &[(2, 9)], 4, 600), [0, 0], "it is over, and may have been used");
        assert_eq!(lease(&mut ledger.clone(), 2, &[(2, 9)], 4, 600 + 60 + 3600), [0, 2]);
        ledger.settle(&agent(1), at(660));
        assert_eq!(lease(&mut ledger.clone(), 2, &[(2, 9)], 4, 661), [0, 0], "not so close to its end");
        ledger.settle(&agent(1), at(661));
        assert_eq!(lease(&mut ledger.clone(), 2, &[(2, 9)], 4, 661), [0, 2]);
        for second in [100, 200] {
            ledger.note_down(&agent(1), at(second), at(300));
        }
        assert_eq!(lease(&mut ledger, 2, &[(2, 9)], 4, 661), [0, 1], "it had its own and one of the lease");
    }

    #[test]
    fn a_lease_is_renewed_in_time_and_follows_the_need() {
        let mut ledger = Ledger::default();
        let until = |ledger: &Ledger, now| ledger.grant(&agent(1), at(now)).unwrap().until;
        lease(&mut ledger, 1, &[(1, 1)], 5, 0);
        lease(&mut ledger, 1, &[(1, 1)], 5, 299);
        assert_eq!(until(&ledger, 299), at(600));
        lease(&mut ledger, 1, &[(1, 1)], 5, 300);
        assert_eq!((until(&ledger, 300), ledger.grants.len()), (at(900), 1));
        assert_eq!(lease(&mut ledger, 1, &[(1, 3)], 5, 301), [3]);
        assert_eq!((lease(&mut ledger, 1, &[(1, 1)], 5, 302), ledger.grants.len()), (vec![1], 2), "the greater one still counts");
        assert_eq!(lease(&mut ledger, 1, &[(1, 0)], 5, 303), [0]);
    }

    #[test]
    fn those_that_went_away_still_had_what_they_had() {
        let mut ledger = Ledger::default();
        ledger.note_down(&agent(9), at(0), at(0));
        assert_eq!(lease(&mut ledger, 1, &[(1, 9)], 3, 1), [1]);
    }

    /// An agent as it counts for itself.
    #[derive(Debug, Clone, Default)]
    struct Rack {
        unwell: u32,
        connected: bool,
        lease: u16,
        until: Option<Timestamp>,
        downs: PowerDowns,
        untold: Vec<Timestamp>,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Pass(u16),
        Unwell(usize, u32),
        Connect(usize, bool),
        Down(usize),
        Report(usize),
        Heartbeat(usize),
        Survey,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let rack = 0_usize..4;
        prop_oneof![
            3 => (1_u16..900).prop_map(Step::Pass),
            2 => (rack.clone(), 0_u32..5).prop_map(|(rack, unwell)| Step::Unwell(rack, unwell)),
            1 => (rack.clone(), any::<bool>()).prop_map(|(rack, is)| Step::Connect(rack, is)),
            6 => rack.clone().prop_map(Step::Down),
            2 => rack.clone().prop_map(Step::Report),
            2 => rack.prop_map(Step::Heartbeat),
            4 => Just(Step::Survey),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn never_more_than_the_cap_or_one_each(
            count in 1_usize..=4,
            most in 0_u16..=6,
            window in 600_u64..=7200,
            steps in proptest::collection::vec(step(), 1..300),
        ) {
            let cap = Cap { most, window: Duration::from_secs(window) };
            let mut racks = vec![Rack { connected: true, ..Rack::default() }; count];
            let (mut ledger, mut now) = (Ledger::default(), at(0));
            let mut all: Vec<Timestamp> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(seconds) => now = later(now, Duration::from_secs(seconds.into())),
                    Step::Unwell(n, unwell) => racks.get_mut(n).into_iter().for_each(|rack| rack.unwell = unwell),
                    Step::Connect(n, is) => racks.get_mut(n).into_iter().for_each(|rack| rack.connected = is),
                    Step::Down(n) => {
                        let Some(rack) = racks.get_mut(n) else { continue };
                        let lease = if rack.until.is_some_and(|until| now < until) { usize::from(rack.lease) } else { 0 };
                        if rack.downs.count(cap, now) < 1 + lease {
                            rack.downs.note(cap, now);
                            rack.untold.push(now);
                            all.push(now);
                        }
                    }
                    Step::Report(n) | Step::Heartbeat(n) => {
                        let is_heartbeat = matches!(step, Step::Heartbeat(_));
                        let Some(rack) = racks.get_mut(n).filter(|rack| rack.connected) else { continue };
                        if !is_heartbeat {
                            rack.untold.drain(..).for_each(|at| ledger.note_down(&agent(n + 1), at, now));
                        } else if rack.untold.is_empty() {
                            ledger.settle(&agent(n + 1), now);
                        }
                    }
                    Step::Survey => {
                        let hear = racks.iter().enumerate().filter(|(_, rack)| rack.connected);
                        let needs = hear.map(|(n, rack)| (agent(n + 1), rack.unwell)).collect();
                        ledger.lease(&agents(count), &needs, cap, now);
                        for (n, rack) in racks.iter_mut().enumerate().filter(|(_, rack)| rack.connected) {
                            let grant = ledger.grant(&agent(n + 1), now);
                            (rack.lease, rack.until) = grant.map_or((0, None), |grant| (grant.count, Some(grant.until)));
                        }
                    }
                    Step::Restart => {
                        ledger = serde_json::from_str(&serde_json::to_string(&ledger).unwrap()).unwrap();
                    }
                }
                let had = all.iter().filter(|at| later(**at, cap.window) > now).count();
                let most = usize::from(cap.most).max(count);
                prop_assert!(had <= most, "{} within a window, at most {}: {:?}", had, most, ledger);
            }
        }
    }
}
