//! What concerns the site as a whole: its settings, the drivers its agents have, and passwords sealed anew to an agent that took
//! another's place.

use axum::Json as Shown;
use axum::extract::{Request as HttpRequest, State};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use picket_common::api::{DriverInfo, DriverOption, Page, RackSecrets, ResealAnswer, ResealRequest, Settings, SettingsPatch};
use picket_common::command::Refusal;
use picket_common::driver::{DRIVERS, Descriptor, OptionDescriptor, OptionKind};
use picket_common::id::RackId;
use picket_common::seal::{MAX_SEALED_LEN, Sealed, SealingKey};

use super::etag::Tagged;
use super::extract::{Id, Json, body, parse};
use super::problem::ApiError;
use super::who::Who;
use super::{Api, not_found};
use crate::authorise::{Action, authorise};
use crate::fleet::classify::{Right, Target};
use crate::fleet::etag::ETag;
use crate::fleet::request::Reseal;
use crate::fleet::{Answer, Rejection, Request, View, json, secrets};

type Answered<T> = Result<Shown<T>, ApiError>;

/// Largest body of passwords sealed anew, in bytes: those of a full rack and its clusters.
const MAX_SECRETS: usize = 8 * 1024 * 1024;

fn settings_of(view: &View) -> Tagged<Settings> {
    Tagged { tag: ETag::settings(&view.settings), shown: json::settings_json(view) }
}

pub(super) async fn settings(State(api): State<Api>, Who(who): Who) -> Tagged<Settings> {
    settings_of(&api.view(&who))
}

pub(super) async fn patch_settings(
    State(api): State<Api>,
    Who(who): Who,
    Json(patch): Json<SettingsPatch>,
) -> Result<Tagged<Settings>, ApiError> {
    api.change(&who, Request::PatchSettings(patch)).await?;
    Ok(settings_of(&api.view(&who)))
}

pub(super) async fn drivers(_: Who) -> Shown<Page<DriverInfo>> {
    Shown(Page { items: DRIVERS.map(driver).into(), next_page_token: None })
}

fn driver(driver: &Descriptor) -> DriverInfo {
    DriverInfo {
        name: driver.name.to_owned(),
        summary: driver.summary.to_owned(),
        default_port: driver.default_port,
        can_prove: driver.can_prove,
        own_options: driver.own_options,
        options: driver.options.iter().map(option).collect(),
    }
}

fn option(option: &OptionDescriptor) -> DriverOption {
    let (min, max) = match option.kind {
        OptionKind::Number(min, max) => (Some(min), Some(max)),
        _ => (None, None),
    };
    DriverOption {
        name: option.name.to_owned(),
        kind: option.kind.as_str().to_owned(),
        values: option.kind.values().iter().map(|&word| word.to_owned()).collect(),
        min,
        max,
        default: option.default.map(str::to_owned),
        help: option.help.to_owned(),
    }
}

/// `GET /v1/racks/{r}/secrets`: sealed to the recovery key, which is not here.
pub(super) async fn rack_secrets(State(api): State<Api>, Who(who): Who, Id(id): Id<RackId>) -> Answered<RackSecrets> {
    let view = api.context.view.load_full();
    authorise(&view, &who.principal, Action::At(Right::Configure, Target::Rack(&id, None)))?;
    let rack = view.racks.get(&id).ok_or_else(|| not_found("rack", &id))?;
    let agent = rack.agent.as_ref().and_then(|agent| view.agents.get(agent));
    let agent = agent.ok_or(ApiError::Rejected(Rejection::Refused(Refusal::RackWithoutAgent)))?;
    Ok(Shown(RackSecrets {
        agent: agent.id.clone(),
        sealing_key: hex::encode(agent.sealing_key.0),
        items: secrets(&view, &id, |sealed| BASE64_STANDARD.encode(&sealed.0)),
    }))
}

/// `POST /v1/racks/{r}/secrets`: sealed anew to the rack's agent.
pub(super) async fn reseal(
    State(api): State<Api>,
    Who(who): Who,
    Id(id): Id<RackId>,
    request: HttpRequest,
) -> Answered<ResealAnswer> {
    let asked: ResealRequest = parse(&body(request, MAX_SECRETS).await?)?;
    let mut key = [0; 32];
    hex::decode_to_slice(&asked.sealing_key, &mut key).map_err(|_| ApiError::invalid("sealing_key", "is not 64 hex digits"))?;
    let items: Result<Vec<Reseal>, ApiError> = asked
        .items
        .into_iter()
        .map(|item| {
            let (recovery, agent) = (sealed("items.recovery", &item.recovery)?, sealed("items.sealed", &item.sealed)?);
            Ok(Reseal { belongs: item.belongs, recovery, agent })
        })
        .collect();
    match api.change(&who, Request::Reseal(id, SealingKey(key), items?)).await? {
        Answer::Resealed { resealed, skipped } => Ok(Shown(ResealAnswer { resealed, skipped })),
        Answer::Done { .. } | Answer::Accepted(_) | Answer::Imported(_) | Answer::Joined { .. } => Err(ApiError::Internal),
    }
}

fn sealed(field: &'static str, text: &str) -> Result<Sealed, ApiError> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| ApiError::invalid(field, "is not base64"))?;
    if bytes.len() > MAX_SEALED_LEN {
        return Err(ApiError::invalid(field, format!("is longer than {MAX_SEALED_LEN} bytes")));
    }
    Ok(Sealed(bytes))
}
