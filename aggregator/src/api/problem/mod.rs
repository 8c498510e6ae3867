//! Every way a request can end badly, as RFC 9457 problems with stable codes. Never shows a value that came in with a password.

mod kinds;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use picket_common::api::{LineError, Problem};

use kinds::Kind;

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
    /// The body has a form that is not read here.
    #[error("the body is said to have a form that is not read here")]
    UnsupportedMedia,
    /// The answer is wanted in a form that there is not.
    #[error("the answer is wanted in a form that there is not")]
    NotAcceptable,
    /// Lines of a file are wrong: none of it was done.
    #[error("{refused} of {total} hosts are refused, so nothing was changed; {}", first(errors))]
    Import {
        /// How many there are.
        total: usize,
        /// How many of them are refused.
        refused: usize,
        /// The first of these.
        errors: Vec<LineError>,
    },
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

impl ApiError {
    /// A bad field, path segment or query parameter.
    pub fn invalid(field: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), text: text.into() }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::TokenMissing => kinds::UNAUTHENTICATED,
            Self::TokenRefused(_) => kinds::TOKEN_REFUSED,
            Self::Denied(denied) => denied_kind(denied),
            Self::Malformed(_) => kinds::MALFORMED_JSON,
            Self::UnknownField(_) => kinds::UNKNOWN_FIELD,
            Self::Invalid { .. } => kinds::INVALID_VALUE,
            Self::TooLarge(_) => kinds::BODY_TOO_LARGE,
            Self::TooSlow(_) => kinds::BODY_TOO_SLOW,
            Self::TooMany(_) => kinds::TOO_MANY_REQUESTS,
            Self::NoRoute(_) => kinds::NO_SUCH_ROUTE,
            Self::UnsupportedMedia => kinds::UNSUPPORTED_MEDIA_TYPE,
            Self::NotAcceptable => kinds::NOT_ACCEPTABLE,
            Self::Import { .. } => kinds::IMPORT_REFUSED,
            Self::KeyUnderWay => kinds::KEY_UNDER_WAY,
            Self::KeyUsed => kinds::IDEMPOTENCY_KEY_USED,
            Self::AnswerLost => kinds::ANSWER_LOST,
            Self::JoinRefused => kinds::JOIN_REFUSED,
            Self::Rejected(rejection) => rejection_kind(rejection),
            Self::Internal => kinds::INTERNAL,
            Self::Status(status) => kinds::of_status(*status),
        }
    }

    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind().code
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.kind().hint
    }

    /// Whether nothing was asked of anything there is.
    #[must_use]
    pub fn asks_for_nothing(&self) -> bool {
        matches!(self, Self::NoRoute(_) | Self::Status(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED))
    }

    /// As the JSON that goes out.
    #[must_use]
    pub fn problem(&self, request_id: &str) -> Problem {
        let Kind { status, code, title, meaning: _, hint, retryable } = self.kind();
        let errors = if let Self::Import { errors, .. } = self { errors.clone() } else { Vec::new() };
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
            errors,
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

/// The first wrong line, for who reads no further.
fn first(errors: &[LineError]) -> String {
    errors.first().map_or_else(String::new, |error| format!("line {}: {}", error.line, error.detail))
}

fn denied_kind(denied: &Denied) -> Kind {
    let forbidden = |hint| Kind { hint: Some(hint), ..kinds::FORBIDDEN };
    match denied {
        Denied::Role { .. } => forbidden("use a token with that role"),
        Denied::Scope(_) => forbidden("use a token whose scope has it"),
        Denied::More(_) => forbidden("ask for less, or let somebody with more make it"),
        // As if it were not there, to the letter.
        Denied::Hidden { .. } => kinds::NOT_FOUND,
    }
}

/// Each rejection's place in HTTP.
const fn rejection_kind(rejection: &Rejection) -> Kind {
    match rejection {
        Rejection::NotFound { .. } => kinds::NOT_FOUND,
        Rejection::InUse { .. } => kinds::IN_USE,
        Rejection::Invalid { .. } => kinds::INVALID_VALUE,
        Rejection::ZoneMismatch(_) => kinds::ZONE_MISMATCH,
        Rejection::Hosts(_) => kinds::IMPORT_REFUSED,
        Rejection::PasswordNeededAgain(_) => kinds::PASSWORD_NEEDED_AGAIN,
        Rejection::PasswordChanging { .. } => kinds::PASSWORD_CHANGING,
        Rejection::Refused(refusal) => kinds::of_refusal(*refusal),
        Rejection::PreconditionRequired(_) => kinds::PRECONDITION_REQUIRED,
        Rejection::PreconditionFailed(_) => kinds::PRECONDITION_FAILED,
        Rejection::TokenUsed => kinds::TOKEN_USED,
        Rejection::TokenExpired(_) => kinds::TOKEN_EXPIRED,
        Rejection::TooLate(_) => kinds::TOO_LATE,
        Rejection::Store(_) => kinds::STORE_UNAVAILABLE,
    }
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
    use picket_common::command::Refusal;

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
