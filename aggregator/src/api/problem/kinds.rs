//! The one table of problem codes: status, what a code means, what to do. `aggregator/docs/problems.md` is made of it.

use axum::http::StatusCode;
use picket_common::command::Refusal;

/// The parts of a problem that its kind decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable code: the last part of the problem's `type`.
    pub code: &'static str,
    /// Short, the same for all problems of this code.
    pub title: &'static str,
    /// What it means, for the table.
    pub meaning: &'static str,
    /// What to do.
    pub hint: Option<&'static str>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

/// Constants, and the list of them all: none can be left out of it.
macro_rules! kinds {
    ($($name:ident: $status:ident $code:literal $title:literal, $meaning:literal, $hint:expr $(, $retryable:ident)?;)*) => {
        $(pub const $name: Kind = Kind {
            status: StatusCode::$status,
            code: $code,
            title: $title,
            meaning: $meaning,
            hint: $hint,
            retryable: kinds!(@ $($retryable)?),
        };)*
        /// All of them but refusals.
        #[cfg(test)]
        const KINDS: &[Kind] = &[$($name),*];
    };
    (@ retryable) => { true };
    (@) => { false };
}

const TOKEN: Option<&str> = Some("send `Authorization: Bearer pkt_…`; `picketctl login` stores a token");
const NEW_TOKEN: Option<&str> = Some("make a new token: `picketctl agents token`");

kinds! {
    UNAUTHENTICATED: UNAUTHORIZED "unauthenticated" "Who are you?", "no bearer token was sent", TOKEN;
    TOKEN_REFUSED: UNAUTHORIZED "token-refused" "Token refused", "the bearer token is not known, or has expired", TOKEN;
    FORBIDDEN: FORBIDDEN "forbidden" "Not allowed", "the token's role or scope does not reach that far",
        Some("use a token whose role and scope have it");
    JOIN_REFUSED: FORBIDDEN "join-refused" "Join refused", "the join token is not known, is too old, or the proof is wrong", NEW_TOKEN;
    MALFORMED_JSON: BAD_REQUEST "malformed-json" "Not JSON", "the body, or a line of it, is not JSON", Some("send one JSON object");
    UNKNOWN_FIELD: BAD_REQUEST "unknown-field" "Unknown field", "the body has a field that does not belong there",
        Some("check its spelling, or leave it out");
    INVALID_VALUE: BAD_REQUEST "invalid-value" "Invalid value", "a field, path segment, parameter or header has a wrong value", None;
    ZONE_MISMATCH: BAD_REQUEST "zone-mismatch" "Zones differ", "a host, its cluster and its rack are not in one zone",
        Some("a host's cluster and rack lie in one zone");
    BAD_REQUEST: BAD_REQUEST "bad-request" "Bad request", "the request is no HTTP that can be answered", None;
    NO_SUCH_ROUTE: NOT_FOUND "no-such-route" "No such route", "the path leads nowhere", Some("all resources lie under /v1");
    NOT_FOUND: NOT_FOUND "not-found" "Not found", "there is no such thing, or the token's scope does not show it", None;
    METHOD_NOT_ALLOWED: METHOD_NOT_ALLOWED "method-not-allowed" "Method not allowed", "the path has no such method; `Allow` names them",
        None;
    NOT_ACCEPTABLE: NOT_ACCEPTABLE "not-acceptable" "Not acceptable", "`Accept` wants a form that there is not",
        Some("ask for text/csv or application/x-ndjson");
    BODY_TOO_SLOW: REQUEST_TIMEOUT "body-too-slow" "Body too slow", "the body did not arrive in time", None, retryable;
    IN_USE: CONFLICT "in-use" "Still in use", "what is to be removed is named by something else",
        Some("remove or move what uses it first");
    PASSWORD_NEEDED_AGAIN: CONFLICT "password-needed-again" "Password needed again",
        "a stored password cannot be opened any more after the change", Some(
        "send bmc.password with the change: it is sealed for one host, address and user");
    PASSWORD_CHANGING: CONFLICT "password-changing" "Password is being changed",
        "the BMC's password is being changed; its settings stay as they are meanwhile", Some(
        "wait for that operation; if it is over and was never resolved, say which password is in force"), retryable;
    TOKEN_USED: CONFLICT "token-used" "Token used", "the join token was used by another agent", NEW_TOKEN;
    TOO_LATE: CONFLICT "too-late" "Too late", "what is to be taken back has begun", None;
    KEY_UNDER_WAY: CONFLICT "idempotency-key-under-way" "Under way", "a request with this idempotency key is being answered",
        Some("send it again in a moment"), retryable;
    ANSWER_LOST: CONFLICT "idempotency-answer-lost" "Answer not kept",
        "a request with this idempotency key was carried out, and its answer is not kept",
        Some("look at what there is now; to do it once more, use a new key");
    TOKEN_EXPIRED: GONE "token-expired" "Token expired", "the join token is too old", NEW_TOKEN;
    PRECONDITION_FAILED: PRECONDITION_FAILED "precondition-failed" "Changed meanwhile",
        "what is there is not what `If-Match` or `If-None-Match` names",
        Some("read it again, and look whether the change still makes sense");
    BODY_TOO_LARGE: PAYLOAD_TOO_LARGE "body-too-large" "Body too large", "the body is longer than this route takes", Some("split it up");
    UNSUPPORTED_MEDIA_TYPE: UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "Unsupported form",
        "`Content-Type` names a form or a charset that is not read",
        Some("send text/csv or application/x-ndjson, in UTF-8");
    IDEMPOTENCY_KEY_USED: UNPROCESSABLE_ENTITY "idempotency-key-used" "Key used", "the idempotency key was used for another body",
        Some("use a new key for a new request");
    IMPORT_REFUSED: UNPROCESSABLE_ENTITY "import-refused" "Import refused",
        "lines of an imported file are wrong, so none of it was done; `errors` names them",
        Some("mend these lines and send the file again; `partial=true` takes the others");
    PRECONDITION_REQUIRED: PRECONDITION_REQUIRED "precondition-required" "If-Match needed",
        "what is there is changed only by who has seen it",
        Some("read it, and send its ETag in If-Match; * changes it whatever it is now");
    TOO_MANY_REQUESTS: TOO_MANY_REQUESTS "too-many-requests" "Too many requests", "too many of this kind; `Retry-After` says when", None,
        retryable;
    INTERNAL: INTERNAL_SERVER_ERROR "internal" "Internal error", "something broke; the log has the cause under the request's id", None,
        retryable;
    STORE_UNAVAILABLE: SERVICE_UNAVAILABLE "store-unavailable" "Store unavailable", "the store cannot be written now",
        Some("nothing was changed; try again, and look at the aggregator's disk"), retryable;
}

/// Each refusal: the conflict with its own code, and what to do about it.
pub const fn of_refusal(refusal: Refusal) -> Kind {
    let (hint, retryable) = match refusal {
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
        Refusal::HostFenced => ("`picketctl fence release ID` when it may live again", false),
        Refusal::HostIsUp => ("fence it, or say force if it is not the host that answers", false),
        Refusal::HaDisabled => ("`picketctl ha enable host ID`", false),
    };
    Kind { status: StatusCode::CONFLICT, code: refusal.code(), title: "Refused", meaning: "", hint: Some(hint), retryable }
}

/// A status that the HTTP library answered by itself.
pub fn of_status(status: StatusCode) -> Kind {
    let kind = match status {
        StatusCode::NOT_FOUND => NO_SUCH_ROUTE,
        StatusCode::METHOD_NOT_ALLOWED => METHOD_NOT_ALLOWED,
        StatusCode::PAYLOAD_TOO_LARGE => BODY_TOO_LARGE,
        status if status.is_server_error() => INTERNAL,
        _ => BAD_REQUEST,
    };
    Kind { status, ..kind }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// All kinds, with their meaning: those of refusals are the refusals' own words.
    fn all() -> Vec<(Kind, String)> {
        let refusals = Refusal::ALL.map(|refusal| (of_refusal(refusal), refusal.to_string()));
        let mut all: Vec<_> = KINDS.iter().map(|kind| (*kind, kind.meaning.to_owned())).chain(refusals).collect();
        all.sort_by_key(|(kind, _)| (kind.status, kind.code));
        all
    }

    fn page() -> String {
        let mut page = "\
# Problems of the HTTP API

Every error is `application/problem+json` (RFC 9457): `type` is `/problems/` and the code, `code` is stable, `detail` names the field or
thing, `hint` says what to do, `retryable` whether the same request may succeed later. Refusals (409, title `Refused`) are also what an
operation's result names.

Made of `aggregator/src/api/problem/kinds.rs`; its test says when it is to be made anew.

| status | code | retryable | meaning | hint |
|---|---|---|---|---|
"
        .to_owned();
        for (kind, meaning) in all() {
            let Kind { status, code, hint, retryable, .. } = kind;
            let (again, hint) = (if retryable { "yes" } else { "" }, hint.unwrap_or_default());
            page += &format!("| {} | `{code}` | {again} | {meaning} | {hint} |\n", status.as_u16());
        }
        page
    }

    #[test]
    fn the_page_of_problems_is_complete() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/problems.md");
        if std::env::var_os("PICKET_WRITE_DOCS").is_some() {
            std::fs::write(&file, page()).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(written == page(), "{} is not what the table says: run this test with PICKET_WRITE_DOCS=1", file.display());
    }

    #[test]
    fn codes_are_told_apart_and_say_something() {
        let all = all();
        let codes: BTreeSet<_> = all.iter().map(|(kind, _)| kind.code).collect();
        assert_eq!(codes.len(), all.len(), "a code stands for one thing");
        for (kind, meaning) in &all {
            assert!(kind.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{kind:?}");
            assert!(!kind.title.is_empty() && !meaning.is_empty() && !meaning.contains('|'), "{kind:?}");
            assert!(kind.status.is_client_error() || kind.status.is_server_error(), "{kind:?}");
        }
    }
}
