//! Who asks, and under which conditions: the bearer token and the headers every request has, read once. Never shows a token.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};

use super::Api;
use super::audit::Trail;
use super::problem::ApiError;
use crate::authorise::{Principal, principal};
use crate::clock;
use crate::fleet::etag::{Precondition, Tags};

/// One who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// As its token says.
    pub principal: Principal,
    /// SHA-256 of its token, hex.
    pub token_sha256: String,
    /// What it demands of what it changes.
    pub precondition: Precondition,
    /// What is written down of its request.
    pub trail: Trail,
}

/// A known caller: every role reads. Every route but health and join takes it.
#[derive(Debug)]
pub struct Who(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Who
where
    Api: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        caller(&Api::from_ref(state), &parts.headers, parts.extensions.get()).map(Self)
    }
}

/// Who asks, by the headers; `trail` is laid by the frame around every request.
pub fn caller(api: &Api, headers: &HeaderMap, trail: Option<&Trail>) -> Result<Caller, ApiError> {
    let trail = trail.ok_or(ApiError::Internal)?;
    let token = bearer(headers).ok_or(ApiError::TokenMissing)?;
    let token_sha256 = hex::encode(Sha256::digest(token.as_bytes()));
    let wall = clock::now().wall;
    let principal = principal(&api.context.view.load(), &token_sha256, wall).map_err(ApiError::TokenRefused)?;
    api.limits.uses.note(&principal.token, wall);
    trail.by(&principal);
    let (matches, none_matches) = (tags(headers, &header::IF_MATCH)?, tags(headers, &header::IF_NONE_MATCH)?);
    let precondition = Precondition::Headers { matches, none_matches };
    Ok(Caller { principal, token_sha256, precondition, trail: trail.clone() })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer")).then(|| token.trim()).filter(|token| token.starts_with("pkt_"))
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().map_err(|_| ApiError::invalid(name.as_str(), "is not ASCII")))
        .collect::<Result<_, _>>()?;
    if values.is_empty() {
        return Ok(None);
    }
    Tags::parse(&values.join(",")).map(Some).map_err(|error| ApiError::invalid(name.as_str(), error.to_string()))
}
