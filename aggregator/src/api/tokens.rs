//! API tokens: made (shown once, kept as a hash), listed, revoked. Never shows one again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use picket_common::api::{NewToken, Page, Scope, Token, TokenRequest};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::etag::Tagged;
use super::extract::{Id, Json, Params};
use super::inventory::paged;
use super::problem::ApiError;
use super::who::{Caller, Who};
use super::{Api, HoldsSecret, Shown, not_found};
use crate::authorise::{Action, authorise, sees_token};
use crate::clock;
use crate::fleet::Request;
use crate::fleet::classify::Right;
use crate::fleet::etag::ETag;
use crate::fleet::view::{ApiTokenRow, token_id};

/// Longest name, in characters.
const MAX_NAME: usize = 64;

/// Longest life, in seconds: ten years.
const MAX_TTL: u64 = 315_360_000;

/// Most zones, clusters and hosts of a scope together: each request of the token looks through them.
const MAX_SCOPE: usize = 1000;

/// When tokens were last used, since this process started: told, never decided on.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<Arc<str>, Timestamp>>);

impl Uses {
    /// A token of the fleet was used; its number is bounded there.
    pub(super) fn note(&self, id: &Arc<str>, at: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(id), at);
    }

    fn of(&self, id: &str) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

fn shown(api: &Api, row: &ApiTokenRow) -> Token {
    let id = token_id(&row.hash).to_owned();
    Token {
        last_used_at: api.limits.uses.of(&id),
        id,
        name: row.name.clone(),
        role: row.role,
        scope: row.scope.clone(),
        expires_at: row.expires_at,
    }
}

/// Whether `caller` may look at tokens at all; which ones, its scope says.
fn may_look(api: &Api, caller: &Caller) -> Result<(), ApiError> {
    // Everywhere in its own scope: the right alone is asked for here.
    let unscoped = crate::authorise::Principal { scope: Scope::default(), ..caller.principal.clone() };
    authorise(&api.context.view.load(), &unscoped, Action::Site(Right::Grant)).map_err(ApiError::from)
}

pub(super) async fn list(State(api): State<Api>, Who(who): Who, params: Params) -> Result<Shown<Page<Token>>, ApiError> {
    may_look(&api, &who)?;
    let page = params.only(&["limit", "page_token"])?.page::<String>()?;
    let page = super::extract::Page { limit: page.limit, after: page.after.map(Arc::<str>::from) };
    let view = api.context.view.load();
    let wanted = |row: &ApiTokenRow| sees_token(&view, &who.principal, row).then(|| shown(&api, row));
    Ok(Shown(paged(&view.api_tokens, page, wanted)))
}

pub(super) async fn one(State(api): State<Api>, Who(who): Who, Id(id): Id<String>) -> Result<Tagged<Token>, ApiError> {
    may_look(&api, &who)?;
    let view = api.context.view.load();
    let row = view.api_token(&id).filter(|row| sees_token(&view, &who.principal, row));
    row.map(|row| Tagged { tag: ETag::token(row), shown: shown(&api, row) }).ok_or_else(|| not_found("token", &id))
}

pub(super) async fn make(State(api): State<Api>, Who(who): Who, Json(body): Json<TokenRequest>) -> Result<Response, ApiError> {
    check(&body)?;
    let secret = random_token()?;
    let hash = hex::encode(Sha256::digest(secret.as_bytes()));
    let expires_at = match body.ttl {
        Some(ttl) => Some(clock::now().after(Duration::from_secs(ttl)).wall),
        None => who.principal.expires_at,
    };
    let row = ApiTokenRow { hash, name: body.name, role: body.role, scope: body.scope, expires_at };
    let (token, tag) = (shown(&api, &row), ETag::token(&row));
    api.change(&who, Request::AddApiToken(row)).await?;
    let shown = NewToken { token, secret: secret.to_string() };
    Ok((StatusCode::CREATED, Extension(HoldsSecret), Tagged { tag, shown }).into_response())
}

pub(super) async fn revoke(State(api): State<Api>, Who(who): Who, Id(id): Id<String>) -> Result<StatusCode, ApiError> {
    api.change(&who, Request::RemoveApiToken(id.clone())).await?;
    api.limits.uses.forget(&id);
    Ok(StatusCode::NO_CONTENT)
}

fn check(body: &TokenRequest) -> Result<(), ApiError> {
    let TokenRequest { name, scope, ttl, role: _ } = body;
    if !(1..=MAX_NAME).contains(&name.chars().count()) || name.chars().any(char::is_control) || name.trim() != name {
        return Err(ApiError::invalid("name", format!("use 1 to {MAX_NAME} characters, none of them a control character")));
    }
    // These stand in histories and in the audit log for what is no token.
    if matches!(name.as_str(), "-" | "picket") || name.starts_with("join:") {
        return Err(ApiError::invalid("name", "is a name that Picket uses itself"));
    }
    if scope.zones.len() + scope.clusters.len() + scope.hosts.len() > MAX_SCOPE {
        return Err(ApiError::invalid("scope", format!("names more than {MAX_SCOPE} places; name clusters or zones instead")));
    }
    match ttl {
        Some(ttl) if !(60..=MAX_TTL).contains(ttl) => Err(ApiError::invalid("ttl", format!("use 60 to {MAX_TTL} seconds"))),
        _ => Ok(()),
    }
}

fn random_token() -> Result<Zeroizing<String>, ApiError> {
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *random).map_err(|error| {
        tracing::error!(%error, "no random bytes");
        ApiError::Internal
    })?;
    Ok(Zeroizing::new(format!("pkt_{}", BASE64_URL_SAFE_NO_PAD.encode(*random))))
}
