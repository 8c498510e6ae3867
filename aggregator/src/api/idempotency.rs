//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a POST that is sent again under its key is answered again, not
//! done again, over restarts too. A key belongs to a token, a method and a path.
//!
//! ```text
//! key new ──▶ the handler; the promise of an answer is durable with the change ──▶ the answer is kept, then given
//! key known, same body ──▶ the kept answer, or of a promise (ended between the two): its operation
//! key known, other body ──▶ 422          key under way ──▶ 409
//! ```

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use picket_common::api::MAX_IMPORT;
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use super::extract::body;
use super::operations::{Accepted, accepted};
use super::problem::{ApiError, PROBLEM};
use super::who::{Caller, caller};
use super::{Api, AsItIs, HoldsSecret};
use crate::clock;
use crate::fleet::{AnswerKey, HttpAnswer, KeptAnswer, Note, Once, Rejection};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Longest key, in characters.
const MAX_KEY: usize = 255;

/// Largest answer that is kept, in bytes; in place of a larger one its operation is shown again.
const MAX_ANSWER: usize = 64 * 1024;

/// Headers of an answer that are kept with it.
const HEADERS: [HeaderName; 4] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG, header::RETRY_AFTER];

/// Where a key is not needed: a join's certificate request is its key, and an import is the same however often it is sent.
const WITHOUT: [&str; 2] = ["/v1/agents/join", "/v1/import/hosts"];

/// Keys of requests that are being answered.
#[derive(Debug, Default)]
pub struct UnderWay(Mutex<HashSet<AnswerKey>>);

/// Ends with the request, however that ends.
struct Running {
    api: Api,
    key: AnswerKey,
}

impl Running {
    /// None when a request with this key is under way.
    fn begin(api: &Api, key: &AnswerKey) -> Option<Self> {
        let mut running = api.limits.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(key.clone()).then(|| Self { api: api.clone(), key: key.clone() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.api.limits.under_way.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Around every route: does nothing unless the request has a key.
pub(super) async fn once(State(api): State<Api>, request: HttpRequest, next: Next) -> Response {
    let has_key = request.method() == Method::POST && request.headers().contains_key(KEY);
    if !has_key || WITHOUT.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    answered(&api, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn answered(api: &Api, request: HttpRequest, next: Next) -> Result<Response, ApiError> {
    let given = key_of(request.headers())?;
    let who = caller(api, request.headers(), request.extensions().get())?;
    let path = request.uri().path().to_owned();
    let (parts, content) = request.into_parts();
    // As large as any route takes; each looks at its own limit.
    let bytes = body(HttpRequest::from_parts(parts.clone(), content), MAX_IMPORT).await?;
    let digest = |text: &[u8]| hex::encode(Sha256::digest(text));
    let key = AnswerKey { token: who.principal.token.to_string(), key: digest(format!("POST\n{path}\n{given}").as_bytes()) };
    let once = Once { key: key.clone(), fingerprint: digest(&bytes) };
    // Before looking: what ends in between has kept its answer by then.
    let running = Running::begin(api, &key);
    let known = api.context.archive.answer(key, clock::now().wall).await.map_err(|error| Rejection::Store(error.0))?;
    match (known, running) {
        (Some(known), _) => again(api, &who, &parts.headers, &once, known).await,
        (None, None) => Err(ApiError::KeyUnderWay),
        (None, Some(running)) => {
            who.trail.once(once.clone());
            let request = HttpRequest::from_parts(parts, Body::from(bytes));
            let api = api.clone();
            // A task of its own: it goes on to its end when the asker is gone, so its key stays taken until it is known what came
            // of it.
            let work = async move {
                let response = next.run(request).await;
                let response = keep(&api, once, response, &who.trail.request_id()).await;
                drop(running);
                response
            };
            tokio::spawn(work.in_current_span()).await.map_err(|error| {
                tracing::error!(%error, "a request under a key did not end");
                ApiError::Internal
            })?
        }
    }
}

fn key_of(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all(KEY).iter();
    let text = values.next().and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let is_good = (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !is_good || values.next().is_some() {
        return Err(ApiError::invalid(KEY.as_str(), format!("use one key of 1 to {MAX_KEY} visible ASCII characters")));
    }
    Ok(text.to_owned())
}

/// The answer to a request that was made before.
async fn again(api: &Api, who: &Caller, headers: &HeaderMap, once: &Once, known: KeptAnswer) -> Result<Response, ApiError> {
    if known.fingerprint != once.fingerprint {
        return Err(ApiError::KeyUsed);
    }
    let mut response = match (known.answer, known.operation) {
        (Some(answer), _) => given(answer),
        (None, Some(id)) => accepted(api, who, Accepted { id, headers, generated: None }).await,
        (None, None) => return Err(ApiError::AnswerLost),
    };
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    // Nothing was done; what was has its line in the audit log, with what came of it.
    who.trail.recorded();
    Ok(response)
}

fn given(answer: HttpAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.extensions_mut().insert(AsItIs);
    response
}

/// Keeps an answer, unless the same request may well be answered otherwise later.
async fn keep(api: &Api, once: Once, response: Response, request_id: &str) -> Result<Response, ApiError> {
    let error = response.extensions().get::<ApiError>().cloned();
    if error.as_ref().is_some_and(|error| error.problem(request_id).retryable) || response.status().is_server_error() {
        return Ok(response);
    }
    let (parts, content) = response.into_parts();
    let bytes = axum::body::to_bytes(content, usize::MAX).await.map_err(|error| {
        tracing::error!(%error, "an answer could not be read");
        ApiError::Internal
    })?;
    if bytes.len() > MAX_ANSWER {
        // That of an operation of many hosts: its promise, which was kept with it, leads to it.
        return Ok(Response::from_parts(parts, Body::from(bytes)));
    }
    let answer = match &error {
        // The frame will write it; what is kept is what it writes.
        Some(error) => HttpAnswer {
            status: parts.status.as_u16(),
            headers: vec![(header::CONTENT_TYPE.to_string(), PROBLEM.to_owned())],
            body: serde_json::to_string(&error.problem(request_id)).unwrap_or_default(),
        },
        None => HttpAnswer {
            status: parts.status.as_u16(),
            headers: HEADERS
                .iter()
                .filter_map(|name| Some((name.to_string(), parts.headers.get(name)?.to_str().ok()?.into())))
                .collect(),
            body: String::from_utf8_lossy(&bytes).into_owned(),
        },
    };
    let answer = Some(answer).filter(|_| parts.extensions.get::<HoldsSecret>().is_none());
    let Once { key, fingerprint } = once;
    let kept = KeptAnswer { key, fingerprint, at: Timestamp::UNIX_EPOCH, operation: None, answer };
    api.context.asker.note(Note::Answer(kept)).await?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}
