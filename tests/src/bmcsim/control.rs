//! The HTTP control API: ground truth out, faults and hand-made changes in. For loopback; it asks for no password.
//!
//! `{select}` is a name, a pattern with `*`, several of them with commas, or `all`.
//!
//! | request | does |
//! |---|---|
//! | `GET /` , `GET /stats` | how many BMCs; sums of all counters |
//! | `GET /bmcs`, `GET /bmcs/{name}` | the truth about all, about one |
//! | `GET`, `DELETE /bmcs/{name}/calls?since=N` | the record of calls; forgets it |
//! | `GET /bmcs/{name}/changes` | power changes that really happened, with times |
//! | `POST /bmcs/{select}/power` `{"state":"on"}`, `{"toggle":true}`, `"stagger_ms":N` | flips power by hand |
//! | `POST /bmcs/power` `{"select":"…"}` or `{"names":[…]}` with the same | the same for many in one request |
//! | `PUT`, `GET`, `DELETE /bmcs/{select}/faults`, `/faults` for all | faults |
//! | `GET`, `PUT /bmcs/{select}/profile` | character; PUT merges keys |
//! | `POST /bmcs/{select}/password` `{"user":"…","password":"…"}` | changes a password by hand |
//! | `POST /bmcs/{select}/users` `{"user","password","privilege"}` | adds or changes a user |
//! | `POST /bmcs/{select}/password-required` `{"user":"…"}` | the user may only change its password (Redfish) |
//! | `POST /bmcs/{select}/guid` | the machine is another one: another GUID |
//! | `GET`, `POST /bmcs/{select}/certificate` | PEM; swaps it |
//! | `GET /ca.pem` | the simulator CA, when there is one |
//! | `POST /bmcs/{select}/ac` `{"present":false}` | mains lost and back |
//! | `POST /bmcs/{select}/reboot` `{"silence_ms":N}` | restarts the BMC |
//! | `DELETE /bmcs/{select}/sessions` | ends sessions without a word |

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::bmc::Privilege;
use super::faults::Faults;
use super::fleet::{BmcHandle, Fleet};

/// The API's routes.
pub(crate) fn router(fleet: Fleet) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/stats", get(stats))
        .route("/ca.pem", get(authority))
        .route("/bmcs", get(list))
        .route("/bmcs/power", post(power_of_many))
        .route("/faults", put(all_faults).delete(clear_all_faults))
        .route("/bmcs/{select}", get(show))
        .route("/bmcs/{select}/calls", get(calls).delete(forget_calls))
        .route("/bmcs/{select}/changes", get(changes))
        .route("/bmcs/{select}/power", post(power))
        .route("/bmcs/{select}/faults", get(faults).put(set_faults).delete(clear_faults))
        .route("/bmcs/{select}/profile", get(profile).put(set_profile))
        .route("/bmcs/{select}/password", post(password))
        .route("/bmcs/{select}/users", post(users))
        .route("/bmcs/{select}/password-required", post(password_required))
        .route("/bmcs/{select}/guid", post(swap_guid))
        .route("/bmcs/{select}/certificate", get(certificate).post(swap_certificate))
        .route("/bmcs/{select}/ac", post(ac))
        .route("/bmcs/{select}/reboot", post(reboot))
        .route("/bmcs/{select}/sessions", axum::routing::delete(forget_sessions))
        .with_state(fleet)
}

type Answer = Result<Response, Refused>;

/// A request that cannot be done.
struct Refused {
    status: StatusCode,
    why: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.why}))).into_response()
    }
}

fn refuse(status: StatusCode, why: impl std::fmt::Display) -> Refused {
    Refused { status, why: why.to_string() }
}

fn chosen(fleet: &Fleet, select: &str) -> Result<Vec<BmcHandle>, Refused> {
    let chosen = fleet.select(select);
    if chosen.is_empty() { Err(refuse(StatusCode::NOT_FOUND, format!("no BMC is meant by {select:?}"))) } else { Ok(chosen) }
}

fn one(fleet: &Fleet, name: &str) -> Result<BmcHandle, Refused> {
    fleet.named(name).ok_or_else(|| refuse(StatusCode::NOT_FOUND, format!("no BMC is named {name:?}")))
}

fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| refuse(StatusCode::BAD_REQUEST, error))
}

fn done(count: usize) -> Response {
    Json(json!({"bmcs": count})).into_response()
}

async fn index(State(fleet): State<Fleet>) -> Response {
    done(fleet.all().len())
}

async fn stats(State(fleet): State<Fleet>) -> Response {
    Json(fleet.totals()).into_response()
}

async fn authority(State(fleet): State<Fleet>) -> Answer {
    fleet.authority_pem().map(IntoResponse::into_response).ok_or_else(|| refuse(StatusCode::NOT_FOUND, "started without --ca"))
}

async fn list(State(fleet): State<Fleet>) -> Response {
    Json(fleet.all().iter().map(BmcHandle::truth).collect::<Vec<_>>()).into_response()
}

async fn show(State(fleet): State<Fleet>, Path(select): Path<String>) -> Answer {
    if let Some(bmc) = fleet.named(&select) {
        return Ok(Json(bmc.truth()).into_response());
    }
    Ok(Json(chosen(&fleet, &select)?.iter().map(BmcHandle::truth).collect::<Vec<_>>()).into_response())
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
}

async fn calls(State(fleet): State<Fleet>, Path(name): Path<String>, Query(since): Query<Since>) -> Answer {
    Ok(Json(one(&fleet, &name)?.calls(since.since)).into_response())
}

async fn forget_calls(State(fleet): State<Fleet>, Path(select): Path<String>) -> Answer {
    let chosen = chosen(&fleet, &select)?;
    chosen.iter().for_each(BmcHandle::forget_calls);
    Ok(done(chosen.len()))
}

async fn changes(State(fleet): State<Fleet>, Path(name): Path<String>) -> Answer {
    Ok(Json(one(&fleet, &name)?.changes()).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Power {
    state: Option<PowerWord>,
    #[serde(default)]
    toggle: bool,
    #[serde(default)]
    stagger_ms: u64,
    select: Option<String>,
    names: Option<Vec<String>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum PowerWord {
    On,
    Off,
}

async fn power(State(fleet): State<Fleet>, Path(select): Path<String>, body: axum::body::Bytes) -> Answer {
    flip(chosen(&fleet, &select)?, &parsed(&body)?)
}

async fn power_of_many(State(fleet): State<Fleet>, body: axum::body::Bytes) -> Answer {
    let wanted: Power = parsed(&body)?;
    let select = match (&wanted.names, &wanted.select) {
        (Some(names), _) => names.join(","),
        (None, Some(select)) => select.clone(),
        (None, None) => "all".into(),
    };
    flip(chosen(&fleet, &select)?, &wanted)
}

/// Flips at once, or one after another in the background when there is a stagger.
fn flip(chosen: Vec<BmcHandle>, wanted: &Power) -> Answer {
    let state = match (wanted.state, wanted.toggle) {
        (Some(word), false) => Some(word == PowerWord::On),
        (None, true) => None,
        _ => return Err(refuse(StatusCode::BAD_REQUEST, "give either \"state\" or \"toggle\"")),
    };
    let apply = move |bmc: &BmcHandle| match state {
        Some(on) => bmc.set_power(on),
        None => {
            bmc.toggle();
        }
    };
    let count = chosen.len();
    if wanted.stagger_ms == 0 {
        chosen.iter().for_each(apply);
    } else {
        let step = Duration::from_millis(wanted.stagger_ms);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(step);
            for bmc in chosen {
                ticks.tick().await;
                apply(&bmc);
            }
        });
    }
    Ok(done(count))
}

async fn faults(State(fleet): State<Fleet>, Path(select): Path<String>) -> Answer {
    Ok(Json(one(&fleet, &select)?.faults()).into_response())
}

async fn set_faults(State(fleet): State<Fleet>, Path(select): Path<String>, body: axum::body::Bytes) -> Answer {
    let (chosen, faults) = (chosen(&fleet, &select)?, parsed::<Faults>(&body)?);
    chosen.iter().for_each(|bmc| bmc.set_faults(faults.clone()));
    Ok(done(chosen.len()))
}

async fn clear_faults(State(fleet): State<Fleet>, Path(select): Path<String>) -> Answer {
    let chosen = chosen(&fleet, &select)?;
    chosen.iter().for_each(BmcHandle::clear_faults);
    Ok(done(chosen.len()))
}

async fn all_faults(state: State<Fleet>, body: axum::body::Bytes) -> Answer {
    set_faults(state, Path("all".into()), body).await
}

async fn clear_all_faults(state: State<Fleet>) -> Answer {
    clear_faults(state, Path("all".into())).await
}

async fn profile(State(fleet): State<Fleet>, Path(select): Path<String>) -> Answer {
    Ok(Json(one(&fleet, &select)?.profile()).into_response())
}

async fn set_profile(State(fleet): State<Fleet>, Path(select): Path<String>, body: axum::body::Bytes) -> Answer {
    let (chosen, patch) = (chosen(&fleet, &select)?, parsed::<Value>(&body)?);
    let patched: Result<Vec<_>, _> = chosen.iter().map(|bmc| bmc.profile().patched(&patch)).collect();
    let patched = patched.map_err(|error| refuse(StatusCode::BAD_REQUEST, error))?;
    let count = chosen.len();
    chosen.iter().zip(patched).for_each(|(bmc, profile)| bmc.set_profile(profile));
    Ok(done(count))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Password {
    user: String,
    password: String,
    #[serde(default = "administrator")]
    privilege: Privilege,
}

const fn administrator() -> Privilege {
    Privilege::Administrator
}

async fn password(State(fleet): State<Fleet>, Path(select): Path<String>, body: axum::body::Bytes) -> Answer {
    let (chosen, wanted) = (chosen(&fleet, &select)?, parsed::<Password>(&body)?);
    let changed = chosen.iter().filter(|bmc| bmc.set_password(&wanted.user, &wanted.password)).count();
    if changed == 0 { Err(refuse(StatusCode::NOT_FOUND, "no such user")) } else { Ok(done(changed)) }
}

async fn users(State(fleet): State<Fleet>, Path(select): Path<String>, body: axum::body::Bytes) -> Answer {
    let (chosen, wanted) = (chosen(&fleet, &select)?, parsed::<Password>(&body)?);
    chosen.iter().for_each(|bmc| bmc.set_user(&wanted.user, &wanted.password, wanted.privilege));
    Ok(done(chosen.len()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfUser {
    user: String,
}

async fn password_required(State(fleet): State<Fleet>, Path(select): Path<String>, body: axum::body::Bytes) -> Answer {
    let (chosen, wanted) = (chosen(&fleet, &select)?, parsed::<OfUser>(&body)?);
    let changed = chosen.iter().filter(|bmc| bmc.require_password_change(&wanted.user)).count();
    if changed == 0 { Err(refuse(StatusCode::NOT_FOUND, "no such user")) } else { Ok(done(changed)) }
}

async fn swap_guid(State(fleet): State<Fleet>, Path(select): Path<String>) -> Answer {
    let chosen = chosen(&fleet, &select)?;
    chosen.iter().for_each(BmcHandle::swap_guid);
    Ok(done(chosen.len()))
}

async fn certificate(State(fleet): State<Fleet>, Path(name): Path<String>) -> Answer {
    let pem = one(&fleet, &name)?.certificate();
    pem.map(IntoResponse::into_response).ok_or_else(|| refuse(StatusCode::INTERNAL_SERVER_ERROR, "no certificate could be made"))
}

async fn swap_certificate(State(fleet): State<Fleet>, Path(select): Path<String>) -> Answer {
    let chosen = chosen(&fleet, &select)?;
    for bmc in &chosen {
        bmc.swap_certificate().map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    }
    Ok(done(chosen.len()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mains {
    present: bool,
}

async fn ac(State(fleet): State<Fleet>, Path(select): Path<String>, body: axum::body::Bytes) -> Answer {
    let (chosen, mains) = (chosen(&fleet, &select)?, parsed::<Mains>(&body)?);
    chosen.iter().for_each(|bmc| bmc.set_ac(mains.present));
    Ok(done(chosen.len()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    silence_ms: u64,
}

async fn reboot(State(fleet): State<Fleet>, Path(select): Path<String>, body: axum::body::Bytes) -> Answer {
    let (chosen, restart) = (chosen(&fleet, &select)?, parsed::<Restart>(&body)?);
    chosen.iter().for_each(|bmc| bmc.reboot(Duration::from_millis(restart.silence_ms)));
    Ok(done(chosen.len()))
}

async fn forget_sessions(State(fleet): State<Fleet>, Path(select): Path<String>) -> Answer {
    let chosen = chosen(&fleet, &select)?;
    chosen.iter().for_each(BmcHandle::forget_sessions);
    Ok(done(chosen.len()))
}
