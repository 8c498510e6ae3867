//! Host-HA: its gates, its pauses, and what people order.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::Json as Shown;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use picket_common::api::ha::{FenceBody, HaEnablement, PauseBody, PauseWindow};
use picket_common::command::HaAction;
use picket_common::id::{HostId, OperationId};

use super::extract::{Id, Json};
use super::operations::{Accepted, accepted, check_reason, check_timeout};
use super::power::{operation_of, scope_of};
use super::problem::ApiError;
use super::who::Who;
use super::{Api, not_found, uuid_now};
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

/// What can be ordered, as routes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Fence,
    Plan,
    Confirm,
    Abort,
    Ack,
    Release,
    ResetCounters,
    EndCliff,
}

impl Verb {
    fn action(self, body: &FenceBody) -> Result<HaAction, ApiError> {
        let stray = |field, given| match given {
            true => Err(ApiError::invalid(field, "does not belong to this operation")),
            false => Ok(()),
        };
        stray("overrides", !body.overrides.is_empty() && self != Self::Fence)?;
        stray("force", body.force && self != Self::Confirm)?;
        if self != Self::Plan && body.reason.as_deref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err(ApiError::invalid("reason", "is missing: say why, it is written down with the operation"));
        }
        Ok(match self {
            Self::Fence => HaAction::Fence { overrides: body.overrides.iter().copied().collect() },
            Self::Plan => HaAction::Plan,
            Self::Confirm => HaAction::Confirm { force: body.force },
            Self::Abort => HaAction::Abort,
            Self::Ack => HaAction::Ack,
            Self::Release => HaAction::Release,
            Self::ResetCounters => HaAction::ResetCounters,
            Self::EndCliff => HaAction::EndCliff,
        })
    }
}

/// Makes the handler of a route that says a word about a host.
macro_rules! verbs {
    ($($name:ident: $verb:ident;)*) => {$(
        pub(super) async fn $name(
            State(api): State<Api>,
            Who(who): Who,
            Id(host): Id<HostId>,
            headers: HeaderMap,
            Json(body): Json<FenceBody>,
        ) -> Result<Response, ApiError> {
            let action = Verb::$verb.action(&body)?;
            let FenceBody { reason, timeout, overrides: _, force: _ } = body;
            check_timeout(timeout)?;
            check_reason(reason.as_deref())?;
            let id = OperationId(uuid_now());
            let answer = api.change(&who, Request::Ha { id, host, action, timeout, reason }).await?;
            Ok(accepted(&api, &who, Accepted { id: operation_of(&answer, id), headers: &headers, generated: None }).await)
        }
    )*};
}

verbs! {
    fence: Fence;
    plan: Plan;
    confirm: Confirm;
    abort: Abort;
    ack: Ack;
    release: Release;
    reset_counters: ResetCounters;
    end_cliff: EndCliff;
}
