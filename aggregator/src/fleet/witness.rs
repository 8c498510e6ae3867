//! Witnesses that join: their tokens, and whether the certificate that was made for one counts. To the fleet a witness is no more
//! than its host's name: agents call it, it never calls.

use std::sync::Arc;

use picket_common::clock::Now;
use picket_common::id::HostId;

use super::join::MAX_JOIN_TOKENS;
use super::request::{Answer, Rejection};
use super::settings::not_found;
use super::view::{Row, RowKey, WitnessTokenRow};
use super::{Fleet, Record};

impl Fleet {
    pub(super) fn add_witness_token(&mut self, row: WitnessTokenRow, now: Now) -> Result<Answer, Rejection> {
        if !self.view.hosts.contains_key(&row.host) {
            return Err(not_found("host", &row.host));
        }
        self.remove_witness_tokens(|token| token.expires_at < now.wall);
        if self.view.witness_tokens.len() >= MAX_JOIN_TOKENS {
            let text = format!("{MAX_JOIN_TOKENS} tokens of witnesses are good, which is the most; wait until some are too old");
            return Err(Rejection::Invalid { field: "host", text });
        }
        self.keep_witness_token(row);
        Ok(Answer::Done { created: true })
    }

    fn keep_witness_token(&mut self, row: WitnessTokenRow) {
        self.draft.put(Row::WitnessToken(row.clone()));
        self.view.witness_tokens.insert(row.id.as_str().into(), Arc::new(row));
    }

    fn remove_witness_tokens(&mut self, goes: impl Fn(&WitnessTokenRow) -> bool) {
        let gone: Vec<_> = self.view.witness_tokens.values().filter(|row| goes(row)).map(|row| row.id.clone()).collect();
        for id in gone {
            self.view.witness_tokens.remove(id.as_str());
            self.draft.records.push(Record::Remove(RowKey::WitnessToken(id)));
        }
    }

    /// The tokens of a host that goes.
    pub(super) fn forget_witness(&mut self, host: &HostId) {
        self.remove_witness_tokens(|token| token.host == *host);
    }

    /// A witness joins. The same request again gets the same certificate: a lost answer must not burn the token.
    pub(super) fn join_witness(&mut self, token_id: &str, csr: String, certificate: String, now: Now) -> Result<Answer, Rejection> {
        let token = self.view.witness_tokens.get(token_id).cloned().ok_or_else(|| not_found("token", token_id))?;
        if token.expires_at < now.wall {
            return Err(Rejection::TokenExpired(token.expires_at));
        }
        let agent = token.host.as_str().parse();
        let agent =
            agent.map_err(|_| Rejection::Invalid { field: "host", text: "its name cannot stand in a certificate".into() })?;
        match &token.used {
            Some((used, _)) if *used != csr => return Err(Rejection::TokenUsed),
            Some((_, certificate)) => return Ok(Answer::Joined { agent, certificate: certificate.clone() }),
            None => {}
        }
        self.keep_witness_token(WitnessTokenRow { used: Some((csr, certificate.clone())), ..(*token).clone() });
        Ok(Answer::Joined { agent, certificate })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Request;
    use super::super::testing::*;
    use super::*;

    fn token(world: &mut World, token: &str, host: &str) -> Result<Answer, Rejection> {
        let expires_at = world.now.after(Duration::from_secs(3600)).wall;
        let row = WitnessTokenRow { id: token.into(), secret: "5ec".into(), host: id(host), expires_at, used: None };
        world.ask(Request::AddWitnessToken(row))
    }

    fn join(world: &mut World, token: &str, csr: &str) -> Result<Answer, Rejection> {
        let certificate = format!("certificate at {}", world.now.wall);
        world.ask(Request::JoinWitness { token_id: token.into(), csr: csr.into(), certificate, public_key: "key".into() })
    }

    #[test]
    fn tokens() {
        let mut world = World::of(1);
        assert!(matches!(token(&mut world, "t", "h9"), Err(Rejection::NotFound { kind: "host", .. })));
        assert!(matches!(join(&mut world, "t", "csr"), Err(Rejection::NotFound { kind: "token", .. })));
        token(&mut world, "t", "h1").unwrap();
        let joined = |answer| match answer {
            Ok(Answer::Joined { agent, certificate }) => (agent.to_string(), certificate),
            other => panic!("{other:?}"),
        };
        let first = joined(join(&mut world, "t", "csr"));
        assert_eq!(first.0, "h1");
        world.pass(10);
        assert_eq!(joined(join(&mut world, "t", "csr")), first, "a lost answer must not burn the token");
        assert_eq!(world.records, 0);
        assert_eq!(join(&mut world, "t", "other").err(), Some(Rejection::TokenUsed));
        world.restart();
        assert_eq!(join(&mut world, "t", "other").err(), Some(Rejection::TokenUsed), "it is remembered");
        token(&mut world, "u", "h1").unwrap();
        world.now = world.now.after(Duration::from_secs(3601));
        assert!(matches!(join(&mut world, "u", "csr"), Err(Rejection::TokenExpired(_))));
        token(&mut world, "v", "h1").unwrap();
        assert_eq!(world.fleet.view().witness_tokens.len(), 1, "expired ones go");
        world.ask(Request::DeleteHost(id("h1"))).unwrap();
        assert!(world.fleet.view().witness_tokens.is_empty());
    }
}
