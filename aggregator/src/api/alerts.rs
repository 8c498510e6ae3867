//! Alerts and silences: what fires and fired, taking note of it, and not being told for a while.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Shown;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use picket_common::alert::{AlertKind, AlertState, Matcher, Severity};
use picket_common::api::{AckRequest, Alert, AlertSilenceRequest, Page, Silence, SilenceRequest};
use picket_common::id::{AgentId, ClusterId, HostId, RackId, ZoneId};

use super::etag::Tagged;
use super::extract::{self, Id, Json, Params};
use super::inventory::paged;
use super::problem::ApiError;
use super::who::{Caller, Who};
use super::{Api, not_found, uuid_now};
use crate::clock;
use crate::fleet::etag::ETag;
use crate::fleet::request::{SilenceSpec, Until};
use crate::fleet::view::SilenceRow;
use crate::fleet::{Request, View};

type Answered<T> = Result<Shown<T>, ApiError>;

/// Longest comment, in characters.
const MAX_COMMENT: usize = 500;
/// Longest silence, in seconds.
const MAX_DURATION: u64 = 365 * 24 * 3600;

/// Which alerts are wanted; absent = all.
struct Filter {
    state: Option<AlertState>,
    kind: Option<AlertKind>,
    severity: Option<Severity>,
    host: Option<HostId>,
    agent: Option<AgentId>,
    zone: Option<ZoneId>,
    cluster: Option<ClusterId>,
    rack: Option<RackId>,
    silenced: Option<bool>,
    acked: Option<bool>,
}

const PARAMETERS: [&str; 12] =
    ["limit", "page_token", "state", "kind", "severity", "host", "agent", "zone", "cluster", "rack", "silenced", "acked"];

impl Filter {
    fn of(params: &Params) -> Result<Self, ApiError> {
        let states = [AlertState::Pending, AlertState::Firing, AlertState::Resolved].map(|state| (state.as_str(), state));
        let severities = [Severity::Info, Severity::Warning, Severity::Critical].map(|severity| (severity.as_str(), severity));
        let answers = [("true", true), ("false", false)];
        Ok(Self {
            state: params.one_of("state", &states)?,
            kind: params.parse("kind")?,
            severity: params.one_of("severity", &severities)?,
            host: params.parse("host")?,
            agent: params.parse("agent")?,
            zone: params.parse("zone")?,
            cluster: params.parse("cluster")?,
            rack: params.parse("rack")?,
            silenced: params.one_of("silenced", &answers)?,
            acked: params.one_of("acked", &answers)?,
        })
    }

    fn wants(&self, alert: &Alert) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        let hushed = !alert.silenced_by.is_empty() || !alert.inhibited_by.is_empty();
        is(self.state.as_ref(), Some(&alert.state))
            && is(self.kind.as_ref(), Some(&alert.kind))
            && is(self.severity.as_ref(), Some(&alert.severity))
            && is(self.host.as_ref(), alert.host.as_ref())
            && is(self.agent.as_ref(), alert.agent.as_ref())
            && is(self.zone.as_ref(), Some(&alert.zone))
            && is(self.cluster.as_ref(), alert.cluster.as_ref())
            && is(self.rack.as_ref(), alert.rack.as_ref())
            && is(self.silenced.as_ref(), Some(&hushed))
            && is(self.acked.as_ref(), Some(&alert.acked_by.is_some()))
    }
}

/// Ids of alerts and silences are texts here.
fn by_text(page: extract::Page<String>) -> extract::Page<Arc<str>> {
    extract::Page { limit: page.limit, after: page.after.map(Arc::from) }
}

pub(super) async fn alerts(State(api): State<Api>, Who(who): Who, params: Params) -> Answered<Page<Alert>> {
    let params = params.only(&PARAMETERS)?;
    let filter = Filter::of(&params)?;
    let page = by_text(params.page()?);
    Ok(Shown(paged(&api.view(&who).alerts, page, |alert: &Alert| filter.wants(alert).then(|| alert.clone()))))
}

fn alert_of(view: &View, id: &str) -> Result<Alert, ApiError> {
    view.alerts.get(id).map(|alert| Alert::clone(alert)).ok_or_else(|| not_found("alert", &id))
}

pub(super) async fn alert(State(api): State<Api>, Who(who): Who, Id(id): Id<String>) -> Answered<Alert> {
    alert_of(&api.view(&who), &id).map(Shown)
}

/// `POST /v1/alerts/{id}/ack`
pub(super) async fn ack(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<String>,
    Json(body): Json<AckRequest>,
) -> Answered<Alert> {
    let comment = checked(body.comment)?;
    api.change(&who, Request::AckAlert { id: id.clone(), comment }).await?;
    alert_of(&api.view(&who), &id).map(Shown)
}

/// `POST /v1/alerts/{id}/silence`
pub(super) async fn silence_alert(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<String>,
    Json(body): Json<AlertSilenceRequest>,
) -> Result<Response, ApiError> {
    let AlertSilenceRequest { duration, comment } = body;
    // Who may take note of it may silence it.
    api.authorise(&who, &Request::AckAlert { id: id.clone(), comment: None })?;
    let alert = alert_of(&api.view(&who), &id)?;
    // What tells it from all others; its zone, cluster and rack may change.
    let exact = |name: &str| alert.labels.get(name).map(|value| Matcher::exact(name, value));
    let matchers: Result<Vec<Matcher>, String> = ["kind", "host", "agent"].into_iter().filter_map(exact).collect();
    let matchers = matchers.map_err(|_| ApiError::Internal)?;
    let request = SilenceRequest { matchers, starts_at: None, ends_at: None, duration: Some(duration), comment };
    make_silence(&api, &who, request).await
}

/// `POST /v1/silences`
pub(super) async fn add_silence(
    State(api): State<Api>,
    Who(who): Who,
    Json(body): Json<SilenceRequest>,
) -> Result<Response, ApiError> {
    make_silence(&api, &who, body).await
}

async fn make_silence(api: &Api, who: &Caller, request: SilenceRequest) -> Result<Response, ApiError> {
    let SilenceRequest { matchers, starts_at, ends_at, duration, comment } = request;
    let comment = checked(comment)?;
    let ends_at = match (ends_at, duration) {
        (Some(at), None) => Until::At(at),
        (None, Some(seconds @ 1..=MAX_DURATION)) => Until::After(Duration::from_secs(seconds)),
        (None, Some(_)) => return Err(ApiError::invalid("duration", format!("use 1 to {MAX_DURATION} seconds"))),
        (Some(_), Some(_)) => return Err(ApiError::invalid("ends_at", "give either this or `duration`")),
        (None, None) => return Err(ApiError::invalid("duration", "is missing: say for how many seconds, or give `ends_at`")),
    };
    let id = uuid_now().to_string();
    let spec = SilenceSpec::new(id.clone(), matchers, starts_at, ends_at, comment);
    api.change(who, Request::AddSilence(spec)).await?;
    silence_of(&api.view(who), &id).map(|silence| (StatusCode::CREATED, silence).into_response())
}

pub(super) async fn silences(State(api): State<Api>, Who(who): Who, params: Params) -> Answered<Page<Silence>> {
    let params = params.only(&["limit", "page_token", "state"])?;
    let states = ["pending", "active", "expired"].map(|state| (state, state));
    let state = params.one_of("state", &states)?;
    let now = clock::now().wall;
    let wanted = |row: &SilenceRow| {
        let silence = silence_json(row, now);
        state.is_none_or(|state| state == silence.state).then_some(silence)
    };
    Ok(Shown(paged(&api.view(&who).silences, by_text(params.page()?), wanted)))
}

pub(super) async fn silence(State(api): State<Api>, Who(who): Who, Id(id): Id<String>) -> Result<Tagged<Silence>, ApiError> {
    silence_of(&api.view(&who), &id)
}

fn silence_of(view: &View, id: &str) -> Result<Tagged<Silence>, ApiError> {
    let row = view.silences.get(id).ok_or_else(|| not_found("silence", &id))?;
    Ok(Tagged { tag: ETag::silence(row), shown: silence_json(row, clock::now().wall) })
}

/// `DELETE /v1/silences/{id}`: it ends now, and stays to be seen for a day.
pub(super) async fn end_silence(State(api): State<Api>, Who(who): Who, Id(id): Id<String>) -> Result<StatusCode, ApiError> {
    api.change(&who, Request::EndSilence(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn silence_json(row: &SilenceRow, now: Timestamp) -> Silence {
    let SilenceRow { id, matchers, starts_at, ends_at, created_by, created_at, comment } = row.clone();
    let state = match (starts_at <= now, now < ends_at) {
        (true, true) => "active",
        (false, true) => "pending",
        (_, false) => "expired",
    };
    Silence { id, matchers, starts_at, ends_at, created_by, created_at, comment, state: state.into() }
}

fn checked(comment: Option<String>) -> Result<Option<String>, ApiError> {
    match comment {
        Some(comment) if comment.chars().count() > MAX_COMMENT => {
            Err(ApiError::invalid("comment", format!("at most {MAX_COMMENT} characters")))
        }
        comment => Ok(comment.filter(|comment| !comment.trim().is_empty())),
    }
}
