//! Join tokens, and agents that join with one: the API has verified the proof and made the certificate, here it is decided whether
//! it counts.

use std::sync::Arc;

use picket_common::clock::Now;
use picket_common::id::{AgentId, RackId};
use picket_common::seal::SealingKey;
use picket_common::wire::Generation;

use super::request::{Answer, Rejection};
use super::settings::{fresh, not_found};
use super::view::{AgentRow, JoinTokenRow, Row, RowKey};
use super::{Fleet, Record};

/// Most join tokens: each is a row that every start reads. Above the racks of the largest site.
pub(super) const MAX_JOIN_TOKENS: usize = 10_000;

/// A join, as the API hands it in.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) token_id: String,
    pub(super) csr: String,
    pub(super) certificate: String,
    pub(super) public_key: String,
    pub(super) sealing_key: SealingKey,
}

impl Fleet {
    pub(super) fn add_join_token(&mut self, row: JoinTokenRow, now: Now) -> Result<Answer, Rejection> {
        if !self.view.racks.contains_key(&row.rack) {
            return Err(not_found("rack", &row.rack));
        }
        self.remove_tokens(|token| token.expires_at < now.wall);
        if self.view.join_tokens.len() >= MAX_JOIN_TOKENS {
            let text = format!("{MAX_JOIN_TOKENS} join tokens are good, which is the most; wait until some are too old");
            return Err(Rejection::Invalid { field: "rack", text });
        }
        self.keep_token(row);
        Ok(Answer::Done { created: true })
    }

    fn keep_token(&mut self, row: JoinTokenRow) {
        self.draft.put(Row::JoinToken(row.clone()));
        self.view.join_tokens.insert(row.id.as_str().into(), Arc::new(row));
    }

    pub(super) fn remove_tokens(&mut self, goes: impl Fn(&JoinTokenRow) -> bool) {
        let gone: Vec<_> = self.view.join_tokens.values().filter(|row| goes(row)).map(|row| row.id.clone()).collect();
        for id in gone {
            self.view.join_tokens.remove(id.as_str());
            self.draft.records.push(Record::Remove(RowKey::JoinToken(id)));
        }
    }

    /// An agent joins: it guards the rack from now on, under a higher epoch.
    pub(super) fn join(&mut self, joining: Joining, now: Now) -> Result<Answer, Rejection> {
        let Joining { token_id, csr, certificate, public_key, sealing_key } = joining;
        let token = self.view.join_tokens.get(token_id.as_str()).cloned();
        let token = token.ok_or_else(|| not_found("token", token_id))?;
        if token.expires_at < now.wall {
            return Err(Rejection::TokenExpired(token.expires_at));
        }
        let agent = token.agent.clone();
        match &token.used {
            Some((used, _)) if *used != csr => return Err(Rejection::TokenUsed),
            Some((_, certificate)) => return Ok(Answer::Joined { agent, certificate: certificate.clone() }),
            None => {}
        }
        if !self.view.racks.contains_key(&token.rack) {
            return Err(not_found("rack", &token.rack));
        }
        self.keep_token(JoinTokenRow { used: Some((csr, certificate.clone())), ..(*token).clone() });
        self.leave_other_rack(&agent, &token.rack, now);
        let epoch = self.epoch_of(&agent);
        self.enrol(&agent, &token.rack, public_key, sealing_key, now);
        self.take_over(&agent, &token.rack, epoch, now);
        Ok(Answer::Joined { agent, certificate })
    }

    /// An agent that guarded another rack does so no more.
    fn leave_other_rack(&mut self, agent: &AgentId, rack: &RackId, now: Now) {
        let Some(old) = self.view.agents.get(agent).map(|row| row.rack.clone()).filter(|old| old != rack) else { return };
        let was_in_charge = self.view.racks.get(&old).is_some_and(|row| row.agent.as_ref() == Some(agent));
        if was_in_charge {
            let hosts = self.view.hosts_of(agent);
            self.settle_agent_alert(agent, false, now);
            self.concern_ha_rack(&hosts);
            self.set_owner(&old, None, 0, now);
            for host in hosts.iter() {
                self.restale(host);
            }
        }
    }

    fn enrol(&mut self, agent: &AgentId, rack: &RackId, public_key: String, sealing_key: SealingKey, now: Now) {
        let row = match self.view.agents.get(agent) {
            Some(row) => AgentRow { rack: rack.clone(), sealing_key, public_key, ..(**row).clone() },
            None => AgentRow {
                id: agent.clone(),
                rack: rack.clone(),
                sealing_key,
                public_key,
                boot: None,
                acked: 0,
                earlier: Vec::new(),
                rolled_back: 0,
                generation: Generation { store: self.life, counter: fresh(now) },
            },
        };
        self.view.agents.insert(agent.clone(), Arc::new(row));
        self.draft.agents.insert(agent.clone());
        self.draft.presence.insert(agent.clone());
        self.draft.touched.entry(agent.clone()).or_default().whole = true;
    }

    /// Gives the rack to `agent`, under an epoch above `epoch`, its last one; the one before is left with nothing. The hosts start
    /// anew at Unknown, even if it is the same agent: it would not report again what it believes to be unchanged.
    fn take_over(&mut self, agent: &AgentId, rack: &RackId, epoch: u64, now: Now) {
        let before = self.view.racks.get(rack).and_then(|row| row.agent.clone());
        self.draft.ha.extend(before.clone());
        self.set_owner(rack, Some(agent.clone()), epoch, now);
        let hosts = self.view.rack_hosts.get(rack).cloned().unwrap_or_default();
        for host in hosts.iter() {
            self.start_anew(host, now);
        }
        if let Some(before) = before.filter(|before| before != agent) {
            self.settle_agent_alert(&before, false, now);
            self.draft.touched.entry(before).or_default().whole = true;
        }
        for host in hosts.iter() {
            self.restale(host);
        }
        self.concern_ha_rack(&hosts);
    }

    /// The epoch grows with the clock: a rack removed and made again, or known only from a backup, must not go back to epochs that
    /// agents have seen.
    fn set_owner(&mut self, rack: &RackId, agent: Option<AgentId>, above: u64, now: Now) {
        if let Some(row) = self.view.racks.get_mut(rack) {
            let row = Arc::make_mut(row);
            row.agent = agent;
            row.epoch = (row.epoch.max(above) + 1).max(fresh(now));
            self.draft.put(Row::Rack(row.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use picket_common::command::Refusal;
    use picket_common::power::PowerState;
    use picket_common::wire::assign::Assign;

    use super::super::testing::*;
    use super::super::{Request, json, refusal};
    use super::*;

    #[test]
    fn tokens() {
        let mut world = World::of(0);
        assert!(matches!(world.token("t", "r9", "r9"), Err(Rejection::NotFound { kind: "rack", .. })));
        assert!(matches!(world.use_token("t", "csr", 2), Err(Rejection::NotFound { kind: "token", .. })));
        world.token("t", "r1", "r1").unwrap();
        let certificate = |answer| match answer {
            Ok(Answer::Joined { certificate, .. }) => certificate,
            other => panic!("{other:?}"),
        };
        let first = certificate(world.use_token("t", "csr", 2));
        world.pass(10);
        let again = certificate(world.use_token("t", "csr", 2));
        assert_eq!(first, again, "a lost answer must not burn the token");
        assert_eq!(world.records, 0);
        assert_eq!(world.use_token("t", "other", 2).err(), Some(Rejection::TokenUsed));
        world.token("u", "r1", "r1").unwrap();
        world.now = world.now.after(Duration::from_secs(3601));
        assert!(matches!(world.use_token("u", "csr", 2), Err(Rejection::TokenExpired(_))));
        world.token("v", "r1", "r1").unwrap();
        assert_eq!(world.fleet.view().join_tokens.len(), 1, "expired ones go");
    }

    #[test]
    fn tokens_are_bounded() {
        let mut world = World::of(0);
        world.token("t", "r1", "r1").unwrap();
        let row = JoinTokenRow::clone(world.fleet.view.join_tokens.get("t").unwrap());
        for n in 1..MAX_JOIN_TOKENS {
            let row = JoinTokenRow { id: n.to_string(), ..row.clone() };
            world.rows.insert(RowKey::JoinToken(row.id.clone()), Row::JoinToken(row));
        }
        world.restart();
        assert!(matches!(world.token("u", "r1", "r1"), Err(Rejection::Invalid { .. })));
        world.now = world.now.after(Duration::from_secs(3601));
        world.token("u", "r1", "r1").unwrap();
    }

    #[test]
    fn another_agent_takes_the_rack_over() {
        let mut world = World::running(1);
        world.report("r1", vec![world.power_report("h1", PowerState::On)]);
        let epoch = |world: &World| world.fleet.view().racks.values().next().unwrap().epoch;
        let before = epoch(&world);
        world.join("new", "r1", 9);
        assert_eq!(epoch(&world), before + 1);
        let view = world.fleet.view();
        assert_eq!(view.racks.values().next().unwrap().agent.as_ref().unwrap().as_str(), "new");
        let assigns = world.assigns("r1");
        assert!(matches!(&assigns[..], [Assign::Part(part)] if part.hosts.is_empty() && part.of == 1), "{assigns:?}");
        let row = world.power("h1");
        assert_eq!((row.power, row.stale), (PowerState::Unknown, true), "the new one has not read it yet");
        world.hello("new", 4, 4);
        assert!(matches!(&world.assigns("new")[..], [Assign::Part(part)] if part.hosts.len() == 1 && part.epoch == before + 1));
        assert!(!world.power("h1").stale);
    }

    #[test]
    fn the_same_agent_joining_again_starts_its_hosts_anew() {
        let mut world = World::running(1);
        world.report("r1", vec![world.power_report("h1", PowerState::On)]);
        let before = world.fleet.view().hosts.values().next().unwrap().enablement;
        world.join("r1", "r1", 1);
        assert_eq!(world.power("h1").power, PowerState::Unknown, "it may be another machine");
        assert!(world.fleet.view().hosts.values().next().unwrap().enablement > before, "it must report what it knows already");
    }

    #[test]
    fn epochs_and_generations_never_go_back() {
        let mut world = World::of(0);
        let seen = |world: &World| {
            let view = world.fleet.view();
            let agent = &view.agents[&id::<AgentId>("r1")];
            (view.racks[&agent.rack].epoch, agent.generation.counter)
        };
        let mut last = seen(&world);
        let mut check = |world: &World, name: &str| {
            let now = seen(world);
            assert!(now.0 > last.0 && now.1 > last.1, "{name}: {now:?} after {last:?}");
            last = now;
        };
        world.join("r1", "r1", 1);
        check(&world, "again");
        world.ask(Request::PutRack(id("r2"), picket_common::api::RackBody { zone: id("z1") })).unwrap();
        world.join("r1", "r2", 1);
        check(&world, "another rack, within the same moment");
        world.pass(1);
        world.ask(Request::DeleteRack(id("r2"))).unwrap();
        world.ground("z1", "c1", "r2");
        world.join("r1", "r2", 1);
        check(&world, "a rack made again");
    }

    #[test]
    fn another_sealing_key_needs_the_passwords_again() {
        let mut world = World::of(0);
        let bmc = with_login("10.0.0.1", 1);
        world.ask(Request::PutHost(id("h1"), spec("c1", "r1", Some(bmc)))).unwrap();
        world.enable("h1", true);
        world.join("r1", "r1", 2);
        let view = world.fleet.view();
        let host = view.hosts.values().next().unwrap();
        assert_eq!(refusal(&view, host), Some(Refusal::PasswordNeeded));
        assert!(!json::host_json(&view, host).bmc.unwrap().password_set);
        world.hello("r1", 1, 1);
        let assigns = world.assigns("r1");
        let [Assign::Part(part)] = &assigns[..] else { panic!() };
        assert_eq!(part.hosts[0].refusal, Some(Refusal::PasswordNeeded));
        assert_eq!(part.hosts[0].bmc.as_ref().unwrap().password, None, "what it could not open is not sent");
        assert!(world.power("h1").stale, "nobody reads it");
    }
}
