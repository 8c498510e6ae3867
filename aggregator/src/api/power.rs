//! Gates of enablement, power operations, and what became of them.

use std::ops::Bound;
use std::time::Duration;

use axum::Json as Shown;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use picket_common::api::{DryRun, Enablement, Host, Operation, Page, PowerRequest};
use picket_common::command::Refusal;
use picket_common::id::{ClusterId, HostId, OperationId, ZoneId};
use picket_common::power::{PowerOperation, PowerState};

use super::extract::{Id, Json, Params, page_token};
use super::inventory::host_of;
use super::problem::ApiError;
use super::who::{Caller, Who};
use super::{Api, not_found, uuid_now};
use crate::fleet::request::Gate;
use crate::fleet::{Answer, Request, json};

type Answered<T> = Result<Shown<T>, ApiError>;

async fn set_gate(api: &Api, who: &Caller, gate: Gate, open: bool) -> Answered<Enablement> {
    let (scope, id) = match &gate {
        Gate::Zone(id) => ("zone", id.to_string()),
        Gate::Cluster(id) => ("cluster", id.to_string()),
        Gate::Host(id) => ("host", id.to_string()),
    };
    api.change(who, Request::SetOobm(gate, open)).await?;
    Ok(Shown(Enablement { scope: scope.to_owned(), id, oobm_enabled: open }))
}

pub(super) async fn enable_host(State(api): State<Api>, Who(who): Who, Id(id): Id<HostId>) -> Answered<Enablement> {
    set_gate(&api, &who, Gate::Host(id), true).await
}

pub(super) async fn disable_host(State(api): State<Api>, Who(who): Who, Id(id): Id<HostId>) -> Answered<Enablement> {
    set_gate(&api, &who, Gate::Host(id), false).await
}

pub(super) async fn enable_cluster(State(api): State<Api>, Who(who): Who, Id(id): Id<ClusterId>) -> Answered<Enablement> {
    set_gate(&api, &who, Gate::Cluster(id), true).await
}

pub(super) async fn disable_cluster(State(api): State<Api>, Who(who): Who, Id(id): Id<ClusterId>) -> Answered<Enablement> {
    set_gate(&api, &who, Gate::Cluster(id), false).await
}

pub(super) async fn enable_zone(State(api): State<Api>, Who(who): Who, Id(id): Id<ZoneId>) -> Answered<Enablement> {
    set_gate(&api, &who, Gate::Zone(id), true).await
}

pub(super) async fn disable_zone(State(api): State<Api>, Who(who): Who, Id(id): Id<ZoneId>) -> Answered<Enablement> {
    set_gate(&api, &who, Gate::Zone(id), false).await
}

/// Longest time an operation may take, in seconds.
const MAX_TIMEOUT: u64 = 3600;

/// Longest reason, in characters.
const MAX_REASON: usize = 500;

pub(super) async fn power(
    State(api): State<Api>,
    Who(who): Who,
    Id(host): Id<HostId>,
    headers: HeaderMap,
    Json(body): Json<PowerRequest>,
) -> Result<Response, ApiError> {
    check(&body)?;
    let PowerRequest { operation, timeout, reason, dry_run, on_if_off } = body;
    let id = OperationId(uuid_now());
    let request = Request::Power { id, host: host.clone(), operation: operation.into(), timeout, reason, on_if_off };
    if dry_run {
        api.authorise(&who, &request)?;
        let found = host_of(&api.view(&who), &host).ok_or_else(|| not_found("host", &host))?;
        return Ok(Shown(would(&found.shown, operation, on_if_off)).into_response());
    }
    let id = match api.change(&who, request).await? {
        Answer::Accepted(id) => id,
        Answer::Done { .. } | Answer::Joined { .. } => id,
    };
    let wait = preferred_wait(&headers);
    let operation = followed(&api, id, wait.unwrap_or_default()).await;
    let done = wait.is_some() && operation.as_ref().is_some_and(|operation| operation.done);
    let status = if done { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, Shown(operation)).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/operations/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    if wait.is_some() {
        headers.insert("preference-applied", HeaderValue::from_static("wait"));
    }
    if !done {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

fn check(body: &PowerRequest) -> Result<(), ApiError> {
    if body.timeout.is_some_and(|seconds| !(1..=MAX_TIMEOUT).contains(&seconds)) {
        return Err(ApiError::invalid("timeout", format!("use 1 to {MAX_TIMEOUT} seconds")));
    }
    match &body.reason {
        Some(reason) if reason.chars().count() > MAX_REASON => {
            Err(ApiError::invalid("reason", format!("is longer than {MAX_REASON} characters")))
        }
        Some(reason) if reason.chars().any(char::is_control) => Err(ApiError::invalid("reason", "holds control characters")),
        _ => Ok(()),
    }
}

/// What an operation would meet here, without the agent's part.
fn would(host: &Host, operation: PowerOperation, on_if_off: bool) -> DryRun {
    let needs_on = matches!(operation, PowerOperation::Cycle | PowerOperation::Reset) && !on_if_off;
    let is_off = (needs_on && host.power == PowerState::Off).then(|| Refusal::HostIsOff.code().to_owned());
    let refusal = host.refusal.clone().or(is_off);
    let detail = match &refusal {
        Some(code) => match Refusal::ALL.into_iter().find(|refusal| refusal.code() == code) {
            Some(refusal) => format!("would be refused: {refusal}"),
            None => format!("would be refused: {code}"),
        },
        None => match (operation, host.power) {
            (PowerOperation::On, PowerState::On) | (PowerOperation::Off, PowerState::Off) => "is there already".to_owned(),
            (operation, _) => format!("would be sent to the agent: {operation}"),
        },
    };
    DryRun { host: host.id.clone(), operation, power: host.power, maintenance: host.maintenance, refusal, detail }
}

/// Longest wait for an operation in one request, in seconds.
const MAX_WAIT: u64 = 60;

/// `Prefer: wait=N` (RFC 7240 §4.3); what cannot be read is no preference, as the RFC wants it.
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let seconds: u64 = preferences.find_map(|preference| preference.strip_prefix("wait="))?.trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(seconds.min(MAX_WAIT)))
}

/// How often a waiting request looks at the view: a look costs less than a microsecond.
const LOOK: Duration = Duration::from_millis(25);

/// The operation once it is done, or as it is when `wait` is over.
async fn followed(api: &Api, id: OperationId, wait: Duration) -> Option<Operation> {
    // Its asker ordered it, so all of it is the asker's to see.
    let look = || api.context.view.load().operations.get(&id).map(|row| json::operation_json(row));
    let done = async {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            if let Some(operation) = look().filter(|operation| operation.done) {
                return operation;
            }
        }
    };
    match tokio::time::timeout(wait, done).await {
        Ok(operation) => Some(operation),
        Err(_) => look(),
    }
}

/// `GET /v1/operations`: newest first.
pub(super) async fn operations(State(api): State<Api>, Who(who): Who, params: Params) -> Answered<Page<Operation>> {
    let page = params.only(&["limit", "page_token"])?.page::<OperationId>()?;
    let view = api.view(&who);
    let end = page.after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rows = view.operations.range((Bound::Unbounded, end)).rev();
    let items: Vec<_> = rows.by_ref().take(page.limit).map(|(_, row)| json::operation_json(row)).collect();
    let next_page_token = items.last().filter(|_| rows.next().is_some()).map(|last: &Operation| page_token(&last.id));
    Ok(Shown(Page { items, next_page_token }))
}

pub(super) async fn operation(State(api): State<Api>, Who(who): Who, Id(id): Id<OperationId>) -> Answered<Operation> {
    let found = api.view(&who).operations.get(&id).map(|row| json::operation_json(row));
    found.map(Shown).ok_or_else(|| not_found("operation", &id))
}

pub(super) async fn cancel(State(api): State<Api>, Who(who): Who, Id(id): Id<OperationId>) -> Answered<Operation> {
    api.change(&who, Request::CancelOperation(id)).await?;
    let found = api.view(&who).operations.get(&id).map(|row| json::operation_json(row));
    found.map(Shown).ok_or_else(|| not_found("operation", &id))
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
