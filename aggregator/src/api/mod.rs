//! The HTTP API: routes, and the frame around every answer (request id, security headers, problems). Decides nothing: it turns
//! bodies into typed requests, asks the core, and shows the view.
//!
//! ```text
//! bytes ─▶ extract ─▶ Request ─▶ authorise ─▶ Asker::ask ─▶ Answer ─▶ view ─▶ JSON
//!             └────────── ApiError ◀──┴─────────── Rejection ┘   ─▶ problem+json
//! ```

mod alerts;
mod audit;
mod bucket;
mod etag;
mod events;
mod extract;
mod ha;
mod idempotency;
mod inventory;
mod join;
mod observe;
mod operations;
mod power;
mod problem;
mod receivers;
mod seal;
mod select;
mod site;
mod tokens;
mod transfer;
mod who;

use std::sync::{Arc, Mutex};

use axum::Json as Shown;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use picket_common::api::{BootdevRequest, IdentifyRequest, TestRequest};
use picket_common::id::{ClusterId, HostId, ZoneId};
use picket_common::seal::SealingKey;
use tracing::Instrument;

use crate::authorise::{Action, authorise, is_everywhere, visible};
use crate::clock;
use crate::context::Context;
use crate::fleet::{Answer, Terms, View};
use crate::notify::Notifier;
use crate::pki::Authority;
use audit::Trail;
use bucket::Bucket;
use who::Caller;

pub use problem::ApiError;

/// What every handler has at hand.
#[derive(Clone)]
struct Api {
    context: Context,
    authority: Arc<Authority>,
    recovery: SealingKey,
    notifier: Notifier,
    limits: Arc<Limits>,
}

/// Bounds on what costs more than a moment.
struct Limits {
    joins: Mutex<Bucket>,
    subscribers: Arc<tokio::sync::Semaphore>,
    uses: tokens::Uses,
    throttle: audit::Throttle,
    verifying: tokio::sync::Mutex<()>,
    under_way: idempotency::UnderWay,
}

/// Most SSE subscribers at a time: each holds a connection and a place in the events.
const MAX_SUBSCRIBERS: usize = 512;

impl Api {
    /// All that `caller` may see.
    fn view(&self, caller: &Caller) -> Arc<View> {
        let whole = self.context.view.load_full();
        let scope = &caller.principal.scope;
        if is_everywhere(scope) { whole } else { Arc::new(visible(&whole, scope)) }
    }

    /// Whether `caller` may ask for a request whose outcome it only wants to know.
    fn rehearse(&self, caller: &Caller, request: &crate::fleet::Request) -> Result<(), ApiError> {
        caller.trail.rehearses(request);
        self.authorise(caller, request)
    }

    /// Whether `caller` may ask for a request.
    fn authorise(&self, caller: &Caller, request: &crate::fleet::Request) -> Result<(), ApiError> {
        Ok(authorise(&self.context.view.load(), &caller.principal, Action::Change(request))?)
    }

    /// Authorises and asks.
    async fn change(&self, caller: &Caller, request: crate::fleet::Request) -> Result<Answer, ApiError> {
        let (audit, once) = caller.trail.asks(&request);
        self.authorise(caller, &request)?;
        let terms = Terms { precondition: caller.precondition.clone(), audit: Some(audit), once };
        let answer = self.context.asker.ask(&caller.principal.name, request, terms).await?;
        caller.trail.recorded();
        Ok(answer)
    }
}

/// All routes. The caller serves them over TLS.
pub fn router(context: Context, authority: Arc<Authority>, notifier: Notifier) -> Router {
    let recovery = authority.recovery_key();
    let subscribers = Arc::new(tokio::sync::Semaphore::new(MAX_SUBSCRIBERS));
    let limits = Arc::new(Limits {
        joins: Mutex::new(join::bucket()),
        subscribers,
        uses: tokens::Uses::default(),
        throttle: audit::Throttle::default(),
        verifying: tokio::sync::Mutex::default(),
        under_way: idempotency::UnderWay::default(),
    });
    let api = Api { context, authority, recovery, notifier, limits };
    Router::new()
        .merge(inventory_routes())
        .merge(power_routes())
        .merge(ha_routes())
        .route("/v1/agents", get(observe::agents))
        .route("/v1/agents/{agent}", get(observe::agent))
        .route("/v1/agents/tokens", post(join::token))
        .route("/v1/agents/join", post(join::join))
        .route("/v1/consumers", post(join::consumer))
        .merge(alert_routes())
        .route("/v1/summary", get(observe::summary))
        .route("/v1/drivers", get(site::drivers))
        .route("/v1/settings", get(site::settings).patch(site::patch_settings))
        .route("/v1/audit", get(audit::log))
        .route("/v1/audit/verify", get(audit::verify))
        .route("/v1/tokens", get(tokens::list).post(tokens::make))
        .route("/v1/tokens/{token}", get(tokens::one).delete(tokens::revoke))
        .route("/v1/events", get(events::events))
        .route("/livez", get(observe::livez))
        .route("/readyz", get(observe::readyz))
        .route("/v1/import/hosts", post(transfer::import))
        .route("/v1/export/hosts", get(transfer::export))
        .fallback(no_route)
        .layer(from_fn_with_state(api.clone(), idempotency::once))
        .layer(from_fn_with_state(api.clone(), frame))
        .with_state(api)
}

fn inventory_routes() -> Router<Api> {
    use inventory as i;
    Router::new()
        .route("/v1/zones", get(i::zones))
        .route("/v1/zones/{zone}", get(i::zone).put(i::put_zone).delete(i::delete_zone))
        .route("/v1/clusters", get(i::clusters))
        .route("/v1/clusters/{cluster}", get(i::cluster).put(i::put_cluster).patch(i::patch_cluster).delete(i::delete_cluster))
        .route("/v1/racks", get(i::racks))
        .route("/v1/racks/{rack}", get(i::rack).put(i::put_rack).delete(i::delete_rack))
        .route("/v1/racks/{rack}/secrets", get(site::rack_secrets).post(site::reseal))
        .route("/v1/hosts", get(i::hosts))
        .route("/v1/hosts/{host}", get(i::host).put(i::put_host).patch(i::patch_host).delete(i::delete_host))
        .route("/v1/hosts/{host}/history", get(observe::history))
        .route("/v1/hosts/{host}/ha", get(observe::ha))
}

fn power_routes() -> Router<Api> {
    use {operations as o, power as p};
    Router::new()
        .route("/v1/hosts/{host}/oobm/enable", post(p::turn::<HostId, true>))
        .route("/v1/hosts/{host}/oobm/disable", post(p::turn::<HostId, false>))
        .route("/v1/clusters/{cluster}/oobm/enable", post(p::turn::<ClusterId, true>))
        .route("/v1/clusters/{cluster}/oobm/disable", post(p::turn::<ClusterId, false>))
        .route("/v1/zones/{zone}/oobm/enable", post(p::turn::<ZoneId, true>))
        .route("/v1/zones/{zone}/oobm/disable", post(p::turn::<ZoneId, false>))
        .route("/v1/hosts/{host}/power", post(p::power))
        .route("/v1/hosts/{host}/identify", post(p::ordered::<IdentifyRequest>))
        .route("/v1/hosts/{host}/bootdev", post(p::ordered::<BootdevRequest>))
        .route("/v1/hosts/{host}/bmc/test", post(p::ordered::<TestRequest>))
        .route("/v1/hosts/{host}/bmc/change-password", post(p::change_password))
        .route("/v1/hosts/{host}/bmc/resolve-password", post(p::resolve_password))
        .route("/v1/operations", get(o::operations).post(o::operate))
        .route("/v1/operations/{operation}", get(o::operation).delete(o::cancel))
}

fn ha_routes() -> Router<Api> {
    use ha as h;
    Router::new()
        .route("/v1/hosts/{host}/ha/enable", post(h::turn::<HostId, true>))
        .route("/v1/hosts/{host}/ha/disable", post(h::turn::<HostId, false>))
        .route("/v1/clusters/{cluster}/ha/enable", post(h::turn::<ClusterId, true>))
        .route("/v1/clusters/{cluster}/ha/disable", post(h::turn::<ClusterId, false>))
        .route("/v1/zones/{zone}/ha/enable", post(h::turn::<ZoneId, true>))
        .route("/v1/zones/{zone}/ha/disable", post(h::turn::<ZoneId, false>))
        .route("/v1/hosts/{host}/ha/reset-counters", post(h::reset_counters))
        .route("/v1/hosts/{host}/ha/end-cliff", post(h::end_cliff))
        .route("/v1/hosts/{host}/fence", post(h::fence))
        .route("/v1/hosts/{host}/fence/plan", post(h::plan))
        .route("/v1/hosts/{host}/fence/confirm", post(h::confirm))
        .route("/v1/hosts/{host}/fence/abort", post(h::abort))
        .route("/v1/hosts/{host}/fence/ack", post(h::ack))
        .route("/v1/hosts/{host}/fence/release", post(h::release))
        .route("/v1/hosts/{host}/pause", post(h::pause::<HostId>).delete(h::resume::<HostId>))
        .route("/v1/clusters/{cluster}/pause", post(h::pause::<ClusterId>).delete(h::resume::<ClusterId>))
}

fn alert_routes() -> Router<Api> {
    use {alerts as a, receivers as r};
    Router::new()
        .route("/v1/alerts", get(a::alerts))
        .route("/v1/alerts/{alert}", get(a::alert))
        .route("/v1/alerts/{alert}/ack", post(a::ack))
        .route("/v1/alerts/{alert}/silence", post(a::silence_alert))
        .route("/v1/receivers", get(r::receivers))
        .route("/v1/receivers/{receiver}", get(r::receiver))
        .route("/v1/receivers/{receiver}/test", post(r::test))
        .route("/v1/silences", get(a::silences).post(a::add_silence))
        .route("/v1/silences/{silence}", get(a::silence).delete(a::end_silence))
}

async fn no_route(request: Request) -> ApiError {
    ApiError::NoRoute(request.uri().path().chars().take(200).collect())
}

/// Says that an answer is as it should be although its status is an error's.
#[derive(Clone)]
struct AsItIs;

/// Says that an answer holds a secret: it is given once, and kept nowhere.
#[derive(Clone)]
struct HoldsSecret;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Around every answer: its id, its line in the audit log, the security headers, and errors as problems.
async fn frame(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let id = uuid_now().to_string();
    let trail = Trail::new(&request, &id);
    request.extensions_mut().insert(trail.clone());
    let span = tracing::info_span!("request", request_id = %id, method = %request.method(), path = %request.uri().path());
    let answered = async {
        let response = next.run(request).await;
        let error = error_of(&response);
        match audit::conclude(&api, &trail, response.status(), error.as_ref()).await {
            Ok(()) => finished(response, error, &id),
            Err(error) => finished(error.clone().into_response(), Some(error), &id),
        }
    };
    let mut response = answered.instrument(span).await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    let csp = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.insert(header::CONTENT_SECURITY_POLICY, csp);
    response
}

/// The error behind an answer, if it is one: ours, or a status that the HTTP library answered by itself.
fn error_of(response: &Response) -> Option<ApiError> {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let ours = response.extensions().get::<ApiError>().cloned();
    ours.or_else(|| (is_error && response.extensions().get::<AsItIs>().is_none()).then_some(ApiError::Status(status)))
}

fn finished(mut response: Response, error: Option<ApiError>, id: &str) -> Response {
    let status = response.status();
    let Some(error) = error else {
        tracing::debug!(status = status.as_u16(), "answered");
        return response;
    };
    if status.is_server_error() {
        tracing::error!(status = status.as_u16(), error = %error, "request failed");
    } else {
        tracing::debug!(status = status.as_u16(), error = %error, "request refused");
    }
    let mut answer = error.answer(id);
    // 405 says what is allowed.
    if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

/// A UUIDv7 of this instant.
fn uuid_now() -> uuid::Uuid {
    let wall = clock::now().wall;
    let seconds = u64::try_from(wall.as_second()).unwrap_or(0);
    let nanos = u32::try_from(wall.subsec_nanosecond()).unwrap_or(0);
    uuid::Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos))
}

fn not_found(kind: &'static str, id: &impl std::fmt::Display) -> ApiError {
    crate::fleet::Rejection::NotFound { kind, id: id.to_string() }.into()
}

#[cfg(test)]
mod tests;
