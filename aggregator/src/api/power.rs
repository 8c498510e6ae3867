//! Gates of enablement, and operations of one host: power, identify LED, boot device, test, password.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::Json as Shown;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use picket_common::api::{
    BootdevRequest, ChangePasswordRequest, Enablement, IdentifyRequest, PowerRequest, ResolvePasswordRequest, TestRequest,
};
use picket_common::command::{self, MAX_IDENTIFY_SECONDS, Persistence};
use picket_common::id::{HostId, OperationId};
use serde::de::DeserializeOwned;

use super::extract::{Id, Json};
use super::inventory::host_of;
use super::operations::{Accepted, accepted, check_reason, check_timeout, would};
use super::problem::ApiError;
use super::who::{Caller, Who};
use super::{Api, not_found, seal, uuid_now};
use crate::fleet::request::Gate;
use crate::fleet::{Answer, Request};

type Answered<T> = Result<Shown<T>, ApiError>;

/// `POST …/oobm/{enable,disable}` of a zone, a cluster or a host.
pub(super) async fn turn<T, const OPEN: bool>(State(api): State<Api>, Who(who): Who, Id(id): Id<T>) -> Answered<Enablement>
where
    T: FromStr + Into<Gate>,
    T::Err: Display,
{
    let gate = id.into();
    let (scope, id) = scope_of(&gate);
    api.change(&who, Request::SetOobm(gate, OPEN)).await?;
    Ok(Shown(Enablement { scope, id, oobm_enabled: OPEN }))
}

/// What kind of thing a gate is of, and its id.
pub(super) fn scope_of(gate: &Gate) -> (String, String) {
    let (scope, id) = match gate {
        Gate::Zone(id) => ("zone", id.to_string()),
        Gate::Cluster(id) => ("cluster", id.to_string()),
        Gate::Host(id) => ("host", id.to_string()),
    };
    (scope.to_owned(), id)
}

/// What is asked of one host, whatever it is.
pub(super) struct Asked {
    operation: command::Action,
    timeout: Option<u64>,
    reason: Option<String>,
    on_if_off: bool,
}

/// A body that asks for an operation.
pub(super) trait Order: DeserializeOwned {
    /// Which.
    fn asked(self) -> Result<Asked, ApiError>;
}

impl Order for IdentifyRequest {
    fn asked(self) -> Result<Asked, ApiError> {
        let Self { seconds, timeout, reason } = self;
        let operation = command::Action::Identify { seconds: identify_seconds(seconds)? };
        Ok(Asked { operation, timeout, reason, on_if_off: false })
    }
}

impl Order for BootdevRequest {
    fn asked(self) -> Result<Asked, ApiError> {
        let Self { device, persistence, timeout, reason } = self;
        let operation = command::Action::Bootdev { device, persistence: persistence.unwrap_or(Persistence::Once) };
        Ok(Asked { operation, timeout, reason, on_if_off: false })
    }
}

impl Order for TestRequest {
    fn asked(self) -> Result<Asked, ApiError> {
        let Self { timeout, reason } = self;
        Ok(Asked { operation: command::Action::Test, timeout, reason, on_if_off: false })
    }
}

impl Asked {
    fn request(self, host: HostId) -> Result<(OperationId, Request), ApiError> {
        let Self { operation, timeout, reason, on_if_off } = self;
        check_timeout(timeout)?;
        check_reason(reason.as_deref())?;
        let id = OperationId(uuid_now());
        Ok((id, Request::Power { id, host, operation, timeout, reason, on_if_off }))
    }
}

/// `POST /v1/hosts/{h}/identify` and the like.
pub(super) async fn ordered<T: Order>(
    State(api): State<Api>,
    Who(who): Who,
    Id(host): Id<HostId>,
    headers: HeaderMap,
    Json(body): Json<T>,
) -> Result<Response, ApiError> {
    order(&api, &who, &headers, host, body.asked()?).await
}

async fn order(api: &Api, who: &Caller, headers: &HeaderMap, host: HostId, asked: Asked) -> Result<Response, ApiError> {
    let (id, request) = asked.request(host)?;
    let answer = api.change(who, request).await?;
    Ok(accepted(api, who, Accepted { id: operation_of(&answer, id), headers, generated: None }).await)
}

/// The operation that a request made, or had made before.
pub(super) const fn operation_of(answer: &Answer, asked: OperationId) -> OperationId {
    match answer {
        Answer::Accepted(id) => *id,
        Answer::Done { .. } | Answer::Imported(_) | Answer::Joined { .. } | Answer::Resealed { .. } => asked,
    }
}

pub(super) async fn power(
    State(api): State<Api>,
    Who(who): Who,
    Id(host): Id<HostId>,
    headers: HeaderMap,
    Json(body): Json<PowerRequest>,
) -> Result<Response, ApiError> {
    let PowerRequest { operation, timeout, reason, dry_run, on_if_off } = body;
    let asked = Asked { operation: operation.into(), timeout, reason, on_if_off };
    if !dry_run {
        return order(&api, &who, &headers, host, asked).await;
    }
    let (_, request) = asked.request(host.clone())?;
    api.rehearse(&who, &request)?;
    let view = api.view(&who);
    let row = view.hosts.get(&host).ok_or_else(|| not_found("host", &host))?;
    Ok(Shown(would(&view, row, operation.into(), on_if_off)).into_response())
}

/// How long the LED is lit when nobody says: IPMI's own default (IPMI 2.0 §28.5).
const IDENTIFY_SECONDS: u16 = 15;

/// Seconds that an identify LED can be lit.
pub(super) fn identify_seconds(seconds: Option<u16>) -> Result<u16, ApiError> {
    match seconds.unwrap_or(IDENTIFY_SECONDS) {
        seconds @ 0..=MAX_IDENTIFY_SECONDS => Ok(seconds),
        _ => Err(ApiError::invalid("seconds", format!("use 0 to {MAX_IDENTIFY_SECONDS}"))),
    }
}

pub(super) async fn change_password(
    State(api): State<Api>,
    Who(who): Who,
    Id(host): Id<HostId>,
    headers: HeaderMap,
    Json(body): Json<ChangePasswordRequest>,
) -> Result<Response, ApiError> {
    check_timeout(body.timeout)?;
    check_reason(body.reason.as_deref())?;
    if body.return_generated && body.password.is_some() {
        return Err(ApiError::invalid("return_generated", "there is nothing generated when a password is given"));
    }
    let (password, generated) = seal::new_password(&api.view(&who), &api.recovery, &host, &body)?;
    let id = OperationId(uuid_now());
    let request = Request::ChangePassword { id, host, password, timeout: body.timeout, reason: body.reason };
    let answer = api.change(&who, request).await?;
    Ok(accepted(&api, &who, Accepted { id: operation_of(&answer, id), headers: &headers, generated }).await)
}

/// Says by hand how a password change ended that was never resolved.
pub(super) async fn resolve_password(
    State(api): State<Api>,
    Who(who): Who,
    Id(host): Id<HostId>,
    Json(body): Json<ResolvePasswordRequest>,
) -> Result<Response, ApiError> {
    api.change(&who, Request::ResolvePassword { host: host.clone(), in_force: body.in_force }).await?;
    host_of(&api.view(&who), &host).map(IntoResponse::into_response).ok_or_else(|| not_found("host", &host))
}

/// Longest wait for an operation in one request, in seconds.
const MAX_WAIT: u64 = 60;

/// `Prefer: wait=N` (RFC 7240 §4.3); what cannot be read is no preference, as the RFC wants it.
pub(super) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let seconds: u64 = preferences.find_map(|preference| preference.strip_prefix("wait="))?.trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(seconds.min(MAX_WAIT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefer_wait() {
        let wait = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("prefer", value.parse().unwrap());
            preferred_wait(&headers).map(|wait| wait.as_secs())
        };
        for (value, wanted) in [
            ("wait=30", Some(30)),
            ("respond-async, wait=5", Some(5)),
            ("wait=\"7\"", Some(7)),
            ("wait=900", Some(60)),
            ("wait=0", Some(0)),
            ("wait=-1", None),
            ("wait", None),
            ("return=minimal", None),
        ] {
            assert_eq!(wait(value), wanted, "{value}");
        }
    }
}
