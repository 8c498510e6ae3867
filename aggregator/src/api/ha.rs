//! Host-HA: its gates, its pauses, and what people order.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::Json as Shown;
use axum::extract::State;
use axum::http::StatusCode;
use picket_common::api::ha::{HaEnablement, PauseBody, PauseWindow};

use super::extract::{Id, Json};
use super::operations::check_reason;
use super::power::scope_of;
use super::problem::ApiError;
use super::who::Who;
use super::{Api, not_found};
use crate::fleet::Request;
use crate::fleet::request::{Gate, PauseSpec, Until};

type Answered<T> = Result<Shown<T>, ApiError>;

/// `POST …/ha/{enable,disable}` of a zone, a cluster or a host.
pub(super) async fn turn<T, const OPEN: bool>(State(api): State<Api>, Who(who): Who, Id(id): Id<T>) -> Answered<HaEnablement>
where
    T: FromStr + Into<Gate>,
    T::Err: Display,
{
    let gate = id.into();
    let (scope, id) = scope_of(&gate);
    api.change(&who, Request::SetHa(gate, OPEN)).await?;
    Ok(Shown(HaEnablement { scope, id, ha_enabled: OPEN }))
}

/// `POST …/pause` of a cluster or a host.
pub(super) async fn pause<T>(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<T>,
    Json(body): Json<PauseBody>,
) -> Answered<PauseWindow>
where
    T: FromStr + Into<Gate>,
    T::Err: Display,
{
    let gate = id.into();
    check_reason(body.reason.as_deref())?;
    let until = match (body.until, body.minutes) {
        (Some(end), None) => Until::At(end),
        (None, Some(minutes)) => Until::After(Duration::from_secs(u64::from(minutes) * 60)),
        _ => return Err(ApiError::invalid("until", "say when it ends, with either `until` or `minutes`")),
    };
    api.change(&who, Request::Pause(gate.clone(), PauseSpec { until, reason: body.reason })).await?;
    let (scope, id) = scope_of(&gate);
    let kind = if scope == "host" { "host" } else { "cluster" };
    let set = api.view(&who).ha.get(&gate).and_then(|set| set.pause.clone());
    set.map(Shown).ok_or_else(|| not_found(kind, &id))
}

/// `DELETE …/pause`; there need not be one.
pub(super) async fn resume<T>(State(api): State<Api>, Who(who): Who, Id(id): Id<T>) -> Result<StatusCode, ApiError>
where
    T: FromStr + Into<Gate>,
    T::Err: Display,
{
    api.change(&who, Request::Resume(id.into())).await?;
    Ok(StatusCode::NO_CONTENT)
}
