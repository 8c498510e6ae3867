//! Operations: of many hosts at once, what would come of one, what came of it, and taking it back.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use axum::Json as Shown;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use picket_common::api::{BulkDryRun, DryRun, Operation, OperationRequest, OperationWord, Page};
use picket_common::command::{Action, Persistence, Refusal};
use picket_common::id::{HostId, OperationId};
use picket_common::power::PowerState;
use picket_common::secret::Secret;

use super::extract::{Id, Params, body, page_token, parse};
use super::power::{identify_seconds, preferred_wait};
use super::problem::ApiError;
use super::who::{Caller, Who};
use super::{Api, HoldsSecret, not_found, select, uuid_now};
use crate::fleet::json::{Parts, operation_json, warnings};
use crate::fleet::request::Bulk;
use crate::fleet::view::HostRow;
use crate::fleet::{MAX_HOSTS, Request, View, standing_refusal};

type Answered<T> = Result<Shown<T>, ApiError>;

/// Longest time an operation may take, in seconds.
const MAX_TIMEOUT: u64 = 3600;
/// Longest reason, in characters.
const MAX_REASON: usize = 500;
/// Longest pause between the starts of two hosts, in milliseconds.
const MAX_STAGGER_MS: u64 = 3_600_000;
/// Largest body, in bytes: the most hosts with the longest names.
const MAX_BODY: usize = MAX_HOSTS * 70;

pub(super) fn check_timeout(timeout: Option<u64>) -> Result<(), ApiError> {
    match timeout {
        Some(seconds) if !(1..=MAX_TIMEOUT).contains(&seconds) => {
            Err(ApiError::invalid("timeout", format!("use 1 to {MAX_TIMEOUT} seconds")))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_reason(reason: Option<&str>) -> Result<(), ApiError> {
    match reason {
        Some(reason) if reason.chars().count() > MAX_REASON => {
            Err(ApiError::invalid("reason", format!("is longer than {MAX_REASON} characters")))
        }
        Some(reason) if reason.chars().any(char::is_control) => Err(ApiError::invalid("reason", "holds control characters")),
        _ => Ok(()),
    }
}

/// `POST /v1/operations`.
pub(super) async fn operate(
    State(api): State<Api>,
    Who(who): Who,
    headers: HeaderMap,
    request: HttpRequest,
) -> Result<Response, ApiError> {
    let asked: OperationRequest = parse(&body(request, MAX_BODY).await?)?;
    let (view, dry_run) = (api.view(&who), asked.dry_run);
    let bulk = bulk(&view, asked)?;
    let id = bulk.id;
    let request = Request::Operate(bulk);
    if dry_run {
        api.rehearse(&who, &request)?;
        return rehearse(&view, &request).map(IntoResponse::into_response);
    }
    api.change(&who, request).await?;
    Ok(accepted(&api, &who, Accepted { id, headers: &headers, generated: None }).await)
}

fn bulk(view: &View, asked: OperationRequest) -> Result<Bulk, ApiError> {
    let operation = action(&asked)?;
    check_timeout(asked.timeout)?;
    check_reason(asked.reason.as_deref())?;
    let stagger_ms = match (asked.stagger, asked.stagger_ms) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("stagger", "give it in seconds or in milliseconds, not both")),
        (Some(seconds), None) => seconds.saturating_mul(1000),
        (None, milliseconds) => milliseconds.unwrap_or(0),
    };
    if stagger_ms > MAX_STAGGER_MS {
        return Err(ApiError::invalid("stagger", format!("at most {} seconds", MAX_STAGGER_MS / 1000)));
    }
    let hosts = match (asked.select, asked.hosts) {
        (Some(text), None) => select::hosts(view, &text)?.into_iter().collect(),
        (None, Some(hosts)) => each_once(hosts)?,
        _ => return Err(ApiError::invalid("hosts", "name them with either `select` or `hosts`")),
    };
    let OperationRequest { timeout, reason, on_if_off, .. } = asked;
    Ok(Bulk { id: OperationId(uuid_now()), hosts, operation, timeout, reason, on_if_off, stagger_ms })
}

/// A host named twice is most likely a mistake, and harmless: it is begun once, where it is named first.
fn each_once(hosts: Vec<HostId>) -> Result<Vec<HostId>, ApiError> {
    if hosts.len() > MAX_HOSTS {
        return Err(ApiError::invalid("hosts", format!("at most {MAX_HOSTS} at a time")));
    }
    let mut seen = BTreeSet::new();
    Ok(hosts.into_iter().filter(|host| seen.insert(host.clone())).collect())
}

fn action(asked: &OperationRequest) -> Result<Action, ApiError> {
    let stray = |field: &'static str, given: bool| match given {
        true => Err(ApiError::invalid(field, "does not belong to this operation")),
        false => Ok(()),
    };
    let (is_identify, is_bootdev) = (asked.operation == OperationWord::Identify, asked.operation == OperationWord::Bootdev);
    stray("seconds", asked.seconds.is_some() && !is_identify)?;
    stray("device", asked.device.is_some() && !is_bootdev)?;
    stray("persistence", asked.persistence.is_some() && !is_bootdev)?;
    Ok(match asked.operation {
        OperationWord::On => Action::On,
        OperationWord::Off => Action::Off,
        OperationWord::Cycle => Action::Cycle,
        OperationWord::Reset => Action::Reset,
        OperationWord::Soft => Action::Soft,
        OperationWord::Status => Action::Status,
        OperationWord::Diag => Action::Diag,
        OperationWord::Test => Action::Test,
        OperationWord::Identify => Action::Identify { seconds: identify_seconds(asked.seconds)? },
        OperationWord::Bootdev => Action::Bootdev {
            device: asked.device.ok_or_else(|| ApiError::invalid("device", "is missing"))?,
            persistence: asked.persistence.unwrap_or(Persistence::Once),
        },
    })
}

/// What a bulk would meet here, host by host; nothing is done.
fn rehearse(view: &View, request: &Request) -> Answered<BulkDryRun> {
    let Request::Operate(bulk) = request else { return Err(ApiError::Internal) };
    let unknown: Vec<&str> = bulk.hosts.iter().filter(|id| !view.hosts.contains_key(*id)).map(HostId::as_str).take(10).collect();
    if !unknown.is_empty() {
        return Err(ApiError::invalid("hosts", format!("not known: {}", unknown.join(", "))));
    }
    if bulk.hosts.is_empty() || bulk.hosts.len() > MAX_HOSTS {
        return Err(ApiError::invalid("hosts", format!("{} hosts are named; 1 to {MAX_HOSTS} can be", bulk.hosts.len())));
    }
    let rows = bulk.hosts.iter().filter_map(|id| view.hosts.get(id));
    let hosts: Vec<DryRun> = rows.map(|row| would(view, row, bulk.operation, bulk.on_if_off)).collect();
    let refused = hosts.iter().filter(|host| host.refusal.is_some()).count() as u64;
    let total = hosts.len() as u64;
    Ok(Shown(BulkDryRun {
        dry_run: true,
        total,
        refused,
        duration_ms: bulk.stagger_ms.saturating_mul((total - refused).saturating_sub(1)),
        warnings: warnings(hosts.iter().filter(|host| host.maintenance).map(|host| &host.host)),
        hosts,
    }))
}

/// What an operation would meet here, without the agent's part.
pub(super) fn would(view: &View, host: &HostRow, action: Action, on_if_off: bool) -> DryRun {
    let power = view.power.get(&host.id);
    let (power, is_stale) = power.map_or((PowerState::Disabled, true), |row| (row.power, row.stale));
    let needs_on = matches!(action, Action::Cycle | Action::Reset) && !on_if_off;
    let is_off = (needs_on && power == PowerState::Off).then_some(Refusal::HostIsOff);
    let refusal = standing_refusal(view, host).or(is_off);
    let detail = match (refusal, action, power) {
        (Some(refusal), ..) => format!("would be refused: {refusal}"),
        (None, Action::On, PowerState::On) | (None, Action::Off, PowerState::Off) => "is there already".to_owned(),
        (None, action, _) => format!("would be sent to the agent: {action}"),
    };
    let mut warnings = Vec::new();
    if host.maintenance {
        warnings.push("the host is in maintenance".to_owned());
    }
    if is_stale {
        warnings.push("nobody vouches for its state now".to_owned());
    }
    DryRun {
        host: host.id.clone(),
        action,
        power,
        maintenance: host.maintenance,
        refusal: refusal.map(|refusal| refusal.code().to_owned()),
        detail,
        warnings,
    }
}

/// An operation that was accepted.
pub(super) struct Accepted<'a> {
    pub(super) id: OperationId,
    pub(super) headers: &'a HeaderMap,
    /// A generated password that its asker wants to see.
    pub(super) generated: Option<Secret<String>>,
}

/// 202 with the operation and where it is found; 200 when it is over within the time that the asker would wait.
pub(super) async fn accepted(api: &Api, who: &Caller, accepted: Accepted<'_>) -> Response {
    let Accepted { id, headers, generated } = accepted;
    let wait = preferred_wait(headers);
    let mut operation = followed(api, who, id, wait.unwrap_or_default()).await;
    let holds_secret = generated.is_some().then_some(HoldsSecret);
    if let (Some(operation), Some(generated)) = (&mut operation, generated) {
        operation.generated_password = Some(generated.expose().clone());
    }
    let done = wait.is_some() && operation.as_ref().is_some_and(|operation| operation.done);
    let status = if done { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, Shown(operation)).into_response();
    if let Some(holds_secret) = holds_secret {
        response.extensions_mut().insert(holds_secret);
    }
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
    response
}

/// How often a waiting request looks at the view: a look costs less than a microsecond.
const LOOK: Duration = Duration::from_millis(25);

/// The operation once it is done, or as it is when `wait` is over.
async fn followed(api: &Api, who: &Caller, id: OperationId, wait: Duration) -> Option<Operation> {
    let done = async {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            if api.context.view.load().operations.get(&id).is_none_or(|operation| operation.open == 0) {
                return;
            }
        }
    };
    // Whether it is over or the time is: it is shown as it is.
    drop(tokio::time::timeout(wait, done).await);
    shown(&api.view(who), id, Parts::All)
}

fn shown(view: &View, id: OperationId, parts: Parts) -> Option<Operation> {
    view.operations.get(&id).map(|operation| operation_json(view, operation, parts))
}

/// `GET /v1/operations`: newest first.
pub(super) async fn operations(State(api): State<Api>, Who(who): Who, params: Params) -> Answered<Page<Operation>> {
    let params = params.only(&["limit", "page_token", "state", "host"])?;
    let is_open = params.one_of("state", &[("open", true), ("done", false)])?;
    let host = params.parse::<HostId>("host")?;
    let page = params.page::<OperationId>()?;
    let view = api.view(&who);
    let end = page.after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rows = view.operations.range((Bound::Unbounded, end)).rev().map(|(_, operation)| operation).filter(|operation| {
        is_open.is_none_or(|open| open == (operation.open > 0))
            && host.as_ref().is_none_or(|host| operation.parts.contains_key(host))
    });
    let items: Vec<_> = rows.by_ref().take(page.limit).map(|operation| operation_json(&view, operation, Parts::First)).collect();
    let next_page_token = items.last().filter(|_| rows.next().is_some()).map(|last: &Operation| page_token(&last.id));
    Ok(Shown(Page { items, next_page_token }))
}

/// Words of the parameter `hosts`: which parts are shown.
const PARTS: [(&str, Parts); 4] = [("all", Parts::All), ("none", Parts::None), ("open", Parts::Open), ("failed", Parts::Failed)];

pub(super) async fn operation(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<OperationId>,
    params: Params,
) -> Answered<Operation> {
    let parts = params.only(&["hosts"])?.one_of("hosts", &PARTS)?.unwrap_or(Parts::All);
    shown(&api.view(&who), id, parts).map(Shown).ok_or_else(|| not_found("operation", &id))
}

pub(super) async fn cancel(State(api): State<Api>, Who(who): Who, Id(id): Id<OperationId>) -> Answered<Operation> {
    api.change(&who, Request::CancelOperation(id)).await?;
    shown(&api.view(&who), id, Parts::All).map(Shown).ok_or_else(|| not_found("operation", &id))
}
