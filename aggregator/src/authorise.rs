//! Who may do what: principal × request → yes, or why not. Decides only; never reads a token's text, a clock or a header.
//!
//! Today `admin` alone is enforced: reading needs any token, everything that changes something needs an admin. A token with a
//! scope grants nothing until scopes are enforced: it must never grant more than it says.

use std::sync::Arc;

use jiff::Timestamp;
use picket_common::api::{Role, Scope};

use crate::fleet::{Request, View};

/// Who asks, as its token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// For the history.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// Where.
    pub scope: Scope,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Look at something.
    Read,
    /// Make a certificate for an MQTT consumer.
    IssueConsumer,
    /// Change the fleet.
    Change(&'a Request),
}

/// Why a token is no proof of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No token of that hash.
    #[error("the token is not known here")]
    Token,
    /// Too old.
    #[error("the token expired at {0}")]
    Expired(Timestamp),
}

/// Why a known principal may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Its role does not reach.
    #[error("this takes the role {}; the token has {}", role_name(*.needed), role_name(*.has))]
    Role {
        /// The role it takes.
        needed: Role,
        /// The role of the token.
        has: Role,
    },
    /// Scopes are not enforced yet.
    #[error("the token is limited to a scope, and scopes are not supported yet, so it grants nothing")]
    Scoped,
}

/// Lower-case name, as in JSON.
#[must_use]
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Fencer => "fencer",
        Role::Admin => "admin",
        Role::Auditor => "auditor",
    }
}

/// The principal whose token has this SHA-256 (hex).
///
/// # Errors
/// [`Unknown`].
pub fn principal(view: &View, token_sha256: &str, wall: Timestamp) -> Result<Principal, Unknown> {
    let row = view.api_tokens.get(token_sha256).ok_or(Unknown::Token)?;
    match row.expires_at {
        Some(end) if end <= wall => Err(Unknown::Expired(end)),
        _ => Ok(Principal { name: row.name.as_str().into(), role: row.role, scope: row.scope.clone() }),
    }
}

/// Whether `principal` may.
///
/// # Errors
/// [`Denied`].
pub fn authorise(principal: &Principal, action: Action<'_>) -> Result<(), Denied> {
    if principal.scope != Scope::default() {
        return Err(Denied::Scoped);
    }
    let needed = needed(action);
    let granted = match principal.role {
        Role::Admin => true,
        Role::Viewer | Role::Operator | Role::Fencer | Role::Auditor => needed == Role::Viewer,
    };
    // Until the finer roles are enforced, whatever is more than reading takes an admin; say so.
    if granted { Ok(()) } else { Err(Denied::Role { needed: Role::Admin, has: principal.role }) }
}

/// The least role an action is meant for.
const fn needed(action: Action<'_>) -> Role {
    match action {
        Action::Read => Role::Viewer,
        Action::IssueConsumer => Role::Admin,
        Action::Change(request) => match request {
            Request::Power { .. } | Request::CancelOperation(_) => Role::Operator,
            Request::PutZone(..)
            | Request::DeleteZone(_)
            | Request::PutCluster(..)
            | Request::DeleteCluster(_)
            | Request::PutRack(..)
            | Request::DeleteRack(_)
            | Request::PutHost(..)
            | Request::PatchHost(..)
            | Request::DeleteHost(_)
            | Request::SetOobm(..)
            | Request::AddJoinToken(_)
            | Request::Join { .. }
            | Request::AddApiToken(_) => Role::Admin,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::view::ApiTokenRow;

    fn row(role: Role, expires_at: Option<Timestamp>) -> Arc<ApiTokenRow> {
        Arc::new(ApiTokenRow { hash: "aa".into(), name: "ann".into(), role, scope: Scope::default(), expires_at })
    }

    #[test]
    fn tokens_are_known_and_expire() {
        let end: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let before = end - jiff::SignedDuration::from_secs(1);
        let mut view = View::default();
        view.api_tokens.insert("aa".into(), row(Role::Admin, Some(end)));
        assert_eq!(principal(&view, "aa", before).unwrap().name.as_ref(), "ann");
        assert_eq!(principal(&view, "aa", end), Err(Unknown::Expired(end)));
        assert_eq!(principal(&view, "ab", before), Err(Unknown::Token));
    }

    #[test]
    fn only_admin_changes_anything() {
        let zone = Request::DeleteZone("z1".parse().unwrap());
        let cancel = Request::CancelOperation(picket_common::id::OperationId(uuid::Uuid::nil()));
        for (role, reads, changes) in [
            (Role::Viewer, true, false),
            (Role::Operator, true, false),
            (Role::Fencer, true, false),
            (Role::Auditor, true, false),
            (Role::Admin, true, true),
        ] {
            let who = Principal { name: "x".into(), role, scope: Scope::default() };
            assert_eq!(authorise(&who, Action::Read).is_ok(), reads);
            for action in [Action::Change(&zone), Action::Change(&cancel), Action::IssueConsumer] {
                assert_eq!(authorise(&who, action).is_ok(), changes, "{role:?}");
            }
        }
    }

    #[test]
    fn a_scoped_token_grants_nothing_yet() {
        let scope = Scope { zones: vec!["z1".parse().unwrap()], ..Scope::default() };
        let who = Principal { name: "x".into(), role: Role::Admin, scope };
        assert_eq!(authorise(&who, Action::Read), Err(Denied::Scoped));
    }
}
