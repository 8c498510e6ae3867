//! What there is to see besides the inventory: agents, the summary, histories, drivers, health. Changes nothing.

use axum::Json as Shown;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use picket_common::api::ha::HaView;
use picket_common::api::{Agent, HistoryEntry, Page, Summary};
use picket_common::id::{AgentId, HostId};

use super::extract::{Id, Params, page_token};
use super::inventory::paged;
use super::problem::ApiError;
use super::who::Who;
use super::{Api, AsItIs, not_found};
use crate::fleet::{Rejection, ha, json};

type Answered<T> = Result<Shown<T>, ApiError>;

pub(super) async fn agents(State(api): State<Api>, Who(who): Who, params: Params) -> Answered<Page<Agent>> {
    let page = params.only(&["limit", "page_token"])?.page()?;
    let view = api.view(&who);
    Ok(Shown(paged(&view.agents, page, |row| Some(json::agent_json(&view, row)))))
}

pub(super) async fn agent(State(api): State<Api>, Who(who): Who, Id(id): Id<AgentId>) -> Answered<Agent> {
    let view = api.view(&who);
    view.agents.get(&id).map(|row| Shown(json::agent_json(&view, row))).ok_or_else(|| not_found("agent", &id))
}

pub(super) async fn summary(State(api): State<Api>, Who(who): Who) -> Shown<Summary> {
    Shown(json::summary(&api.view(&who)))
}

/// `GET /v1/hosts/{h}/history`: newest first.
pub(super) async fn history(
    State(api): State<Api>,
    Who(who): Who,
    Id(host): Id<HostId>,
    params: Params,
) -> Answered<Page<HistoryEntry>> {
    let page = params.only(&["limit", "page_token"])?.page::<u64>()?;
    if !api.view(&who).hosts.contains_key(&host) {
        return Err(not_found("host", &host));
    }
    // One more than asked for tells whether there is a next page.
    let read = api.context.archive.history(&host, page.after, page.limit + 1).await;
    let mut items = read.map_err(|error| Rejection::Store(error.0))?;
    let more = items.len() > page.limit;
    items.truncate(page.limit);
    let next_page_token = items.last().filter(|_| more).map(|last| page_token(&last.sequence));
    Ok(Shown(Page { items, next_page_token }))
}

/// `GET /v1/hosts/{h}/ha`: where it stands in host-HA, why, and what would end it.
pub(super) async fn ha(State(api): State<Api>, Who(who): Who, Id(host): Id<HostId>) -> Answered<HaView> {
    let view = api.view(&who);
    view.hosts.get(&host).map(|row| Shown(ha::ha_view(&view, row))).ok_or_else(|| not_found("host", &host))
}

pub(super) async fn livez(State(api): State<Api>) -> Response {
    if api.context.health.alive() { "ok\n".into_response() } else { plain_failure("something hangs\n".to_owned()) }
}

pub(super) async fn readyz(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let verbose = params.only(&["verbose"])?.value("verbose").is_some();
    let checks = api.context.health.checks();
    let ready = checks.iter().all(|check| check.problem.is_none());
    let mut text = String::new();
    if verbose {
        for check in &checks {
            text += &check.problem.map_or_else(|| format!("[+] {} ok\n", check.name), |why| format!("[-] {}: {why}\n", check.name));
        }
    }
    text += if ready { "ready\n" } else { "not ready\n" };
    Ok(if ready { text.into_response() } else { plain_failure(text) })
}

fn plain_failure(text: String) -> Response {
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    response.extensions_mut().insert(AsItIs);
    response
}
