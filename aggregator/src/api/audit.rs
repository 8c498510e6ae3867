//! The audit log: what is written down of each request, and its being read. A change writes its own line in its own transaction;
//! what was refused, failed, or changed nothing of the fleet is written here before it is answered. Never writes a secret: of a
//! body only what the typed request says of itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request as HttpRequest, State};
use axum::http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use picket_common::api::{AuditEntry, AuditResult, AuditVerdict, Page};
use serde_json::{Map, Value};

use super::bucket::Bucket;
use super::extract::{Params, page_token};
use super::problem::ApiError;
use super::who::Who;
use super::{Api, Shown};
use crate::authorise::{Action, Principal, authorise};
use crate::clock;
use crate::context::AuditQuery;
use crate::fleet::classify::{Deed, Right, classify};
use crate::fleet::summary::summary;
use crate::fleet::{Note, Once, Rejection, Request};

/// Longest path that is written down, in characters.
const MAX_PATH: usize = 200;
/// Longest reason, in characters.
const MAX_REASON: usize = 500;

/// What is known of a request while it is being answered; clones are the same request.
#[derive(Debug, Clone)]
pub struct Trail(Arc<Mutex<Facts>>);

#[derive(Debug)]
struct Facts {
    entry: AuditEntry,
    /// Whether asking changes nothing, whatever is asked.
    safe: bool,
    /// Whether the line is written already.
    recorded: bool,
    once: Option<Once>,
}

impl Trail {
    /// Of a request that has just come.
    pub fn new(request: &HttpRequest, id: &str) -> Self {
        let method = request.method();
        let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical().to_string());
        let entry = AuditEntry {
            from,
            method: Some(method.to_string()),
            path: Some(request.uri().path().chars().take(MAX_PATH).collect()),
            reason: reason(request.headers()),
            request_id: Some(id.to_owned()),
            ..AuditEntry::new(Timestamp::UNIX_EPOCH, "-", AuditResult::Granted)
        };
        let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        Self(Arc::new(Mutex::new(Facts { entry, safe, recorded: false, once: None })))
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody known asks.
    pub fn by(&self, principal: &Principal) {
        let mut facts = self.facts();
        facts.entry.principal = principal.name.to_string();
        facts.entry.token = Some(principal.token.to_string());
    }

    /// An agent asks with a join token.
    pub fn by_join(&self, token_id: &str) {
        self.facts().entry.principal = format!("join:{token_id}");
    }

    /// It is about this, in one line.
    pub fn about(&self, resource: impl ToString, words: impl ToString) {
        let mut facts = self.facts();
        facts.entry.resource = Some(resource.to_string());
        facts.entry.summary = Some(words.to_string());
    }

    /// It asks for a change of the fleet: the line that goes with it if it is granted, and its key if it has one.
    pub fn asks(&self, request: &Request) -> (Box<AuditEntry>, Option<Box<Once>>) {
        let class = classify(request);
        let mut facts = self.facts();
        facts.entry.resource = Some(class.target.to_string());
        facts.entry.summary = summary(request);
        if let Some(why) = request.reason() {
            facts.entry.reason = Some(why.to_owned());
        }
        let removed = facts.entry.method.as_deref() == Some("DELETE") && class.deed == Deed::Change;
        let status = if removed { StatusCode::NO_CONTENT } else { StatusCode::OK };
        let entry = AuditEntry { status: Some(status.as_u16()), ..facts.entry.clone() };
        (Box::new(entry), facts.once.clone().filter(|_| class.deed == Deed::ActOnce).map(Box::new))
    }

    /// It only asks what would come of a request.
    pub fn rehearses(&self, request: &Request) {
        drop(self.asks(request));
        let mut facts = self.facts();
        let words = facts.entry.summary.take().unwrap_or_default();
        facts.entry.summary = Some(format!("dry run: {words}"));
    }

    /// Its line is written: with the change that was granted, now or when it was asked for first.
    pub fn recorded(&self) {
        self.facts().recorded = true;
    }

    /// The request's id.
    pub fn request_id(&self) -> String {
        self.facts().entry.request_id.clone().unwrap_or_default()
    }

    /// It was asked under a key.
    pub fn once(&self, once: Once) {
        self.facts().once = Some(once);
    }

    /// The line that is still to be written, now that the answer is known.
    fn conclusion(&self, status: StatusCode, error: Option<&ApiError>, throttle: &Throttle) -> Option<AuditEntry> {
        let facts = self.facts();
        let refused_login = matches!(error, Some(ApiError::TokenMissing | ApiError::TokenRefused(_)));
        if facts.recorded || (facts.safe && !refused_login) || error.is_some_and(ApiError::asks_for_nothing) {
            return None;
        }
        let entry = AuditEntry { status: Some(status.as_u16()), ..facts.entry.clone() };
        let Some(error) = error else { return Some(entry) };
        let suppressed = throttle.admit(entry.token.as_deref(), clock::now().boottime)?;
        let result = if status.is_server_error() { AuditResult::Failed } else { AuditResult::Refused };
        let suppressed = Some(suppressed).filter(|count| *count > 0);
        Some(AuditEntry { result, code: Some(error.code().to_owned()), suppressed, ..entry })
    }
}

/// `X-Reason`: why, for changes whose body has no place to say so. What cannot be shown in one line is left out.
fn reason(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-reason")?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect())
}

/// Writes what is still to be written of a request, before it is answered. What was granted and cannot be written down is not
/// answered as granted.
pub async fn conclude(api: &Api, trail: &Trail, status: StatusCode, error: Option<&ApiError>) -> Result<(), ApiError> {
    let Some(entry) = trail.conclusion(status, error, &api.limits.throttle) else { return Ok(()) };
    let granted = entry.result == AuditResult::Granted;
    match api.context.asker.note(Note::Audit(entry)).await {
        Err(error) if granted => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "a refusal was not written into the audit log");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Refusals that are written down of one token at once, and then one more each second: whoever asks in a loop fills no disk.
const BURST: u32 = 100;
const REFILL: Duration = Duration::from_secs(1);

/// Tokens whose refusals are counted; above that those are forgotten that were not refused lately, for tokens come and go.
const MAX_COUNTED: usize = 1_000;

/// How many refusals are written down; those that are not are counted and told with the next one that is.
#[derive(Debug, Default)]
pub struct Throttle {
    strangers: Mutex<Level>,
    /// By token.
    known: Mutex<HashMap<String, Level>>,
}

#[derive(Debug)]
struct Level {
    bucket: Bucket,
    suppressed: u64,
}

impl Default for Level {
    fn default() -> Self {
        Self { bucket: Bucket::new(BURST, REFILL), suppressed: 0 }
    }
}

impl Throttle {
    /// Whether one more is written down, and how many were not before it.
    fn admit(&self, token: Option<&str>, now: Duration) -> Option<u64> {
        match token {
            None => self.strangers.lock().unwrap_or_else(PoisonError::into_inner).admit(now),
            Some(token) => {
                let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.len() >= MAX_COUNTED {
                    known.retain(|_, level| !level.bucket.is_full(now));
                }
                known.entry(token.to_owned()).or_default().admit(now)
            }
        }
    }
}

impl Level {
    fn admit(&mut self, now: Duration) -> Option<u64> {
        if self.bucket.take(now) {
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

/// `GET /v1/audit`: oldest first, as an export is verified; or `order=newest` first.
pub(super) async fn log(
    State(api): State<Api>,
    Who(who): Who,
    params: Params,
) -> Result<Shown<Page<Map<String, Value>>>, ApiError> {
    authorise(&api.context.view.load(), &who.principal, Action::Site(Right::Audit))?;
    let params = params.only(&["limit", "page_token", "order", "since", "until", "principal"])?;
    let page = params.page::<u64>()?;
    let query = AuditQuery {
        newest_first: params.one_of("order", &[("newest", true), ("oldest", false)])?.unwrap_or(false),
        after: page.after,
        limit: page.limit,
        since: params.parse("since")?,
        until: params.parse("until")?,
        principal: params.value("principal").map(str::to_owned),
    };
    let found = api.context.archive.audit(query).await.map_err(|error| Rejection::Store(error.0))?;
    Ok(Shown(Page { items: found.records, next_page_token: found.next.map(|last| page_token(&last)) }))
}

/// `GET /v1/audit/verify`: one at a time, for it reads all there is.
pub(super) async fn verify(State(api): State<Api>, Who(who): Who, params: Params) -> Result<Shown<AuditVerdict>, ApiError> {
    authorise(&api.context.view.load(), &who.principal, Action::Site(Right::Audit))?;
    params.only(&[])?;
    let _one = api.limits.verifying.try_lock().map_err(|_| ApiError::TooMany(5))?;
    let verdict = api.context.archive.audit_verdict().await.map_err(|error| Rejection::Store(error.0))?;
    if let Some(fault) = &verdict.fault {
        tracing::error!(fault, "the audit log is not what was written");
    }
    Ok(Shown(verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_in_a_loop_are_counted_and_fill_nothing() {
        let (throttle, at) = (Throttle::default(), Duration::from_secs(9));
        let written = |token| (0..1000).filter(|_| throttle.admit(token, at).is_some()).count();
        assert_eq!(written(Some("a")), 100);
        assert_eq!(written(Some("b")), 100, "one does not use up what another has");
        assert_eq!(written(None), 100);
        let mut level = Level::default();
        assert_eq!((0..105).filter_map(|_| level.admit(at)).sum::<u64>(), 0);
        assert_eq!(level.admit(at + REFILL), Some(5));
    }

    #[test]
    fn tokens_that_are_gone_are_forgotten() {
        let throttle = Throttle::default();
        for second in 0..5_000 {
            let token = second.to_string();
            assert_eq!(throttle.admit(Some(&token), Duration::from_secs(second)), Some(0));
        }
        assert!(throttle.known.lock().unwrap().len() <= MAX_COUNTED);
    }
}
