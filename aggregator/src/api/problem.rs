//! Every way a request can end badly, as RFC 9457 problems with stable codes. Never shows a value that came in with a password.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use picket_common::api::Problem;
use picket_common::command::Refusal;

use crate::authorise::{Denied, Unknown};
use crate::fleet::Rejection;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No bearer token.
    #[error("no bearer token was given")]
    TokenMissing,
    /// A bearer token that proves nothing.
    #[error("{0}")]
    TokenRefused(Unknown),
    /// Known, but may not.
    #[error("{0}")]
    Denied(#[from] Denied),
    /// The body is not JSON.
    #[error("the body is not valid JSON: {0}")]
    Malformed(String),
    /// The body has a field that does not belong there.
    #[error("{0}")]
    UnknownField(String),
    /// A field, path segment or query parameter is wrong.
    #[error("{field}: {text}")]
    Invalid {
        /// Its name, as in JSON or in the URL.
        field: String,
        /// What is wrong.
        text: String,
    },
    /// The body is larger than this many bytes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// The body did not come in time.
    #[error("the body did not arrive within {0} seconds")]
    TooSlow(u64),
    /// Too many of these at once.
    #[error("too many requests of this kind; try again in {0} s")]
    TooMany(u64),
    /// No such route.
    #[error("there is nothing at {0}")]
    NoRoute(String),
    /// A join that proves nothing. One text for all causes: a guesser learns nothing.
    #[error("the join token is not known here, is too old, or the proof is wrong")]
    JoinRefused,
    /// The fleet said no.
    #[error("{0}")]
    Rejected(#[from] Rejection),
    /// A request with this idempotency key is being answered.
    #[error("a request with this idempotency key is being answered just now")]
    KeyUnderWay,
    /// The idempotency key was used for another body.
    #[error("this idempotency key was used for another body")]
    KeyUsed,
    /// The request was carried out, and what it was answered is not known any more.
    #[error(
        "a request with this idempotency key was carried out, and its answer is not kept: it held a secret, or the aggregator ended before it was made"
    )]
    AnswerLost,
    /// Something broke here; the cause is in the log under the request's id.
    #[error("the aggregator could not do this; its log has the cause under this request's id")]
    Internal,
    /// A status that the HTTP library answered by itself.
    #[error("{0}")]
    Status(StatusCode),
}

/// The content type of problems (RFC 9457 §3).
pub const PROBLEM: &str = "application/problem+json";

/// The parts of a problem that its kind decides.
struct Kind {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    hint: Option<&'static str>,
    retryable: bool,
}

const fn kind(status: StatusCode, code: &'static str, title: &'static str, hint: Option<&'static str>) -> Kind {
    Kind { status, code, title, hint, retryable: false }
}

const fn retryable(kind: Kind) -> Kind {
    Kind { retryable: true, ..kind }
}

impl ApiError {
    /// A bad field, path segment or query parameter.
    pub fn invalid(field: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), text: text.into() }
    }

    fn kind(&self) -> Kind {
        const TOKEN: Option<&str> = Some("send `Authorization: Bearer pkt_…`; `picketctl login` stores a token");
        match self {
            Self::TokenMissing => kind(StatusCode::UNAUTHORIZED, "unauthenticated", "Who are you?", TOKEN),
            Self::TokenRefused(_) => kind(StatusCode::UNAUTHORIZED, "token-refused", "Token refused", TOKEN),
            Self::Denied(denied) => denied_kind(denied),
            Self::Malformed(_) => kind(StatusCode::BAD_REQUEST, "malformed-json", "Not JSON", Some("send one JSON object")),
            Self::UnknownField(_) => {
                kind(StatusCode::BAD_REQUEST, "unknown-field", "Unknown field", Some("check its spelling, or leave it out"))
            }
            Self::Invalid { .. } => kind(StatusCode::BAD_REQUEST, "invalid-value", "Invalid value", None),
            Self::TooLarge(_) => kind(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large", Some("split it up")),
            Self::TooSlow(_) => retryable(kind(StatusCode::REQUEST_TIMEOUT, "body-too-slow", "Body too slow", None)),
            Self::TooMany(_) => retryable(kind(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", None)),
            Self::NoRoute(_) => kind(StatusCode::NOT_FOUND, "no-such-route", "No such route", Some("all resources lie under /v1")),
            Self::KeyUnderWay => {
                retryable(kind(StatusCode::CONFLICT, "idempotency-key-under-way", "Under way", Some("send it again in a moment")))
            }
            Self::KeyUsed => {
                kind(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-used", "Key used", Some("use a new key for a new request"))
            }
            Self::AnswerLost => kind(
                StatusCode::CONFLICT,
                "idempotency-answer-lost",
                "Answer not kept",
                Some("look at what there is now; to do it once more, use a new key"),
            ),
            Self::JoinRefused => {
                kind(StatusCode::FORBIDDEN, "join-refused", "Join refused", Some("make a new token: `picketctl agents token`"))
            }
            Self::Rejected(rejection) => rejection_kind(rejection),
            Self::Internal => retryable(kind(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", None)),
            Self::Status(status) => status_kind(*status),
        }
    }

    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind().code
    }

    /// Whether nothing was asked of anything there is.
    #[must_use]
    pub fn asks_for_nothing(&self) -> bool {
        matches!(self, Self::NoRoute(_) | Self::Status(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED))
    }

    /// As the JSON that goes out.
    #[must_use]
    pub fn problem(&self, request_id: &str) -> Problem {
        let Kind { status, code, title, hint, retryable } = self.kind();
        Problem {
            kind: format!("/problems/{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
            code: code.to_owned(),
            request_id: request_id.to_owned(),
            retryable,
            hint: hint.map(str::to_owned),
            bmc_error: None,
        }
    }

    /// The whole answer.
    pub fn answer(&self, request_id: &str) -> Response {
        let problem = self.problem(request_id);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let content_type = HeaderValue::from_static(PROBLEM);
        let mut response = (self.kind().status, [(header::CONTENT_TYPE, content_type)], body).into_response();
        match self {
            Self::TokenMissing | Self::TokenRefused(_) => {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::TooMany(seconds) => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            _ => {}
        }
        response
    }
}

fn denied_kind(denied: &Denied) -> Kind {
    let forbidden = |hint| kind(StatusCode::FORBIDDEN, "forbidden", "Not allowed", Some(hint));
    match denied {
        Denied::Role { .. } => forbidden("use a token with that role"),
        Denied::Scope(_) => forbidden("use a token whose scope has it"),
        Denied::More(_) => forbidden("ask for less, or let somebody with more make it"),
        // As if it were not there, to the letter.
        Denied::Hidden { .. } => kind(StatusCode::NOT_FOUND, "not-found", "Not found", None),
    }
}

/// Each rejection's place in HTTP.
fn rejection_kind(rejection: &Rejection) -> Kind {
    match rejection {
        Rejection::NotFound { .. } => kind(StatusCode::NOT_FOUND, "not-found", "Not found", None),
        Rejection::InUse { .. } => kind(StatusCode::CONFLICT, "in-use", "Still in use", Some("remove or move what uses it first")),
        Rejection::Invalid { .. } => kind(StatusCode::BAD_REQUEST, "invalid-value", "Invalid value", None),
        Rejection::ZoneMismatch(_) => {
            kind(StatusCode::BAD_REQUEST, "zone-mismatch", "Zones differ", Some("a host's cluster and rack lie in one zone"))
        }
        Rejection::PasswordNeededAgain(_) => kind(
            StatusCode::CONFLICT,
            "password-needed-again",
            "Password needed again",
            Some("send bmc.password with the change: it is sealed for one host, address and user"),
        ),
        Rejection::PasswordChanging { .. } => retryable(kind(
            StatusCode::CONFLICT,
            "password-changing",
            "Password is being changed",
            Some("wait for that operation; if it is over and was never resolved, say which password is in force"),
        )),
        Rejection::Refused(refusal) => refusal_kind(*refusal),
        Rejection::PreconditionRequired(_) => kind(
            StatusCode::PRECONDITION_REQUIRED,
            "precondition-required",
            "If-Match needed",
            Some("read it, and send its ETag in If-Match; * changes it whatever it is now"),
        ),
        Rejection::PreconditionFailed(_) => kind(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "Changed meanwhile",
            Some("read it again, and look whether the change still makes sense"),
        ),
        Rejection::TokenUsed => {
            kind(StatusCode::CONFLICT, "token-used", "Token used", Some("make a new token: `picketctl agents token`"))
        }
        Rejection::TokenExpired(_) => {
            kind(StatusCode::GONE, "token-expired", "Token expired", Some("make a new token: `picketctl agents token`"))
        }
        Rejection::TooLate(_) => kind(StatusCode::CONFLICT, "too-late", "Too late", None),
        Rejection::Store(_) => retryable(kind(
            StatusCode::SERVICE_UNAVAILABLE,
            "store-unavailable",
            "Store unavailable",
            Some("nothing was changed; try again, and look at the aggregator's disk"),
        )),
    }
}

/// Each refusal: the conflict with its own code, and what to do about it.
const fn refusal_kind(refusal: Refusal) -> Kind {
    let (hint, again) = match refusal {
        Refusal::ZoneDisabled => ("`picketctl oobm enable zone ID`", false),
        Refusal::ClusterDisabled => ("`picketctl oobm enable cluster ID`", false),
        Refusal::HostDisabled => ("`picketctl oobm enable host ID`", false),
        Refusal::HostNotConfigured => ("give the host a bmc: `picketctl hosts set ID --driver … --address …`", false),
        Refusal::PasswordNeeded => ("`picketctl hosts set ID --password-file F`", false),
        Refusal::RackWithoutAgent => ("make a join token for the rack: `picketctl agents token --rack R`", false),
        Refusal::NotAssigned => ("the agent will have the host in a moment", true),
        Refusal::HostIsOff => ("switch it on, or say on_if_off", false),
        Refusal::Busy => ("wait for its operations: `picketctl op wait ID`", true),
        Refusal::StaleEpoch => ("ask again: the rack has a new owner", true),
        Refusal::ClockUnknown => ("try again in a few seconds", true),
        Refusal::JournalUnavailable => ("look at the agent's disk", true),
        Refusal::NotSupported => ("use another operation", false),
    };
    Kind { status: StatusCode::CONFLICT, code: refusal.code(), title: "Refused", hint: Some(hint), retryable: again }
}

fn status_kind(status: StatusCode) -> Kind {
    let (code, title) = match status {
        StatusCode::NOT_FOUND => ("no-such-route", "No such route"),
        StatusCode::METHOD_NOT_ALLOWED => ("method-not-allowed", "Method not allowed"),
        StatusCode::PAYLOAD_TOO_LARGE => ("body-too-large", "Body too large"),
        status if status.is_server_error() => ("internal", "Internal error"),
        _ => ("bad-request", "Bad request"),
    };
    Kind { status, code, title, hint: None, retryable: status.is_server_error() }
}

impl IntoResponse for ApiError {
    /// The status with the error beside it: `super::frame` writes the body, for it knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.kind().status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_a_conflict_with_its_code() {
        for refusal in Refusal::ALL {
            let problem = ApiError::from(Rejection::Refused(refusal)).problem("r1");
            assert_eq!((problem.status, problem.code.as_str()), (409, refusal.code()));
            assert_eq!(problem.kind, format!("/problems/{}", refusal.code()));
            assert!(problem.hint.is_some() && problem.request_id == "r1");
        }
    }

    #[test]
    fn every_rejection_has_its_status() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        for (rejection, status, code, again) in [
            (Rejection::NotFound { kind: "host", id: "h1".into() }, 404, "not-found", false),
            (Rejection::InUse { kind: "rack", id: "r1".into(), by: "2 hosts".into() }, 409, "in-use", false),
            (Rejection::Invalid { field: "bmc.address", text: "empty".into() }, 400, "invalid-value", false),
            (Rejection::ZoneMismatch("x".into()), 400, "zone-mismatch", false),
            (Rejection::PasswordNeededAgain("x".into()), 409, "password-needed-again", false),
            (Rejection::PreconditionRequired("zone/z1".into()), 428, "precondition-required", false),
            (Rejection::PreconditionFailed("x".into()), 412, "precondition-failed", false),
            (Rejection::TokenUsed, 409, "token-used", false),
            (Rejection::TokenExpired(at), 410, "token-expired", false),
            (Rejection::TooLate("x".into()), 409, "too-late", false),
            (Rejection::Store("full".into()), 503, "store-unavailable", true),
        ] {
            let problem = ApiError::from(rejection).problem("r");
            assert_eq!((problem.status, problem.code.as_str(), problem.retryable), (status, code, again));
        }
    }
}
