//! API tokens kept and revoked. Only their hashes are known here.

use std::sync::Arc;

use jiff::Timestamp;
use picket_common::api::{Role, Scope};
use picket_common::clock::Now;

use super::request::{Answer, Rejection};
use super::settings::not_found;
use super::view::{ApiTokenRow, Row, RowKey, token_id};
use super::{Fleet, Record};

/// Most tokens: each is a row that every start reads.
const MAX_TOKENS: usize = 10_000;

impl Fleet {
    pub(super) fn add_api_token(&mut self, row: ApiTokenRow, now: Now) -> Result<Answer, Rejection> {
        let expired = |row: &ApiTokenRow| row.expires_at.is_some_and(|end| end <= now.wall);
        let gone: Vec<_> = self.view.api_tokens.values().filter(|row| expired(row)).map(|row| row.hash.clone()).collect();
        let created = !self.view.api_tokens.contains_key(row.hash.as_str());
        if created && self.view.api_tokens.len() - gone.len() >= MAX_TOKENS {
            let text = format!("there are {MAX_TOKENS} tokens, which is the most; revoke some");
            return Err(Rejection::Invalid { field: "name", text });
        }
        for hash in gone {
            self.forget_token(hash);
        }
        self.draft.put(Row::ApiToken(row.clone()));
        self.view.api_tokens.insert(row.hash.as_str().into(), Arc::new(row));
        Ok(Answer::Done { created })
    }

    /// Revokes a token; not the last one that may do everything, for then nobody could make another.
    pub(super) fn remove_api_token(&mut self, id: &str, now: Now) -> Result<Answer, Rejection> {
        let row = self.view.api_token(id).cloned().ok_or_else(|| not_found("token", id))?;
        let another = self.view.api_tokens.values().any(|other| other.hash != row.hash && is_whole_admin(other, now.wall));
        if is_whole_admin(&row, now.wall) && !another {
            let by = "the site: it is the last one of an admin for everything; make another first".into();
            return Err(Rejection::InUse { kind: "token", id: token_id(&row.hash).to_owned(), by });
        }
        self.forget_token(row.hash.clone());
        Ok(Answer::Done { created: false })
    }

    fn forget_token(&mut self, hash: String) {
        self.view.api_tokens.remove(hash.as_str());
        self.draft.records.push(Record::Remove(RowKey::ApiToken(hash)));
    }
}

/// Whether a token may do everything everywhere, and goes on to for the time being.
fn is_whole_admin(row: &ApiTokenRow, wall: Timestamp) -> bool {
    row.role == Role::Admin && row.scope == Scope::default() && row.expires_at.is_none_or(|end| end > wall)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Request;
    use super::super::testing::*;
    use super::*;

    fn token(hash: &str, role: Role, expires_at: Option<Timestamp>) -> Request {
        let hash = format!("{hash}{}", "0".repeat(48));
        Request::AddApiToken(ApiTokenRow { hash, name: "ann".into(), role, scope: Scope::default(), expires_at })
    }

    #[test]
    fn tokens_come_and_go_but_one_admin_stays() {
        let mut world = World::empty();
        let end = world.now.after(Duration::from_secs(60)).wall;
        world.ask(token("aaaaaaaaaaaaaaaa", Role::Admin, None)).unwrap();
        world.ask(token("bbbbbbbbbbbbbbbb", Role::Viewer, Some(end))).unwrap();
        let remove = |id: &str| Request::RemoveApiToken(id.into());
        assert!(matches!(world.ask(remove("aaaaaaaaaaaaaaaa")), Err(Rejection::InUse { .. })));
        for unknown in ["", "aaaa", "aaaaaaaaaaaaaaa0", "cccccccccccccccc"] {
            assert!(matches!(world.ask(remove(unknown)), Err(Rejection::NotFound { .. })), "{unknown}");
        }
        world.ask(token("dddddddddddddddd", Role::Admin, Some(end))).unwrap();
        world.ask(remove("aaaaaaaaaaaaaaaa")).unwrap();
        world.now = world.now.after(Duration::from_secs(61));
        world.ask(token("eeeeeeeeeeeeeeee", Role::Admin, None)).unwrap();
        assert_eq!(world.fleet.view().api_tokens.len(), 1, "expired ones go when another comes");
        assert_eq!(world.rows.len(), 1);
    }
}
