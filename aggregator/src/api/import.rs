//! `POST /v1/import/hosts`: NDJSON, one host a line (the host's body and its `id`). Every line stands for itself: it is done as a
//! whole or not at all, and has its own line of result, in order.

use axum::body::{Body, Bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use picket_common::api::{HostBody, Problem};
use picket_common::id::HostId;
use serde::Serialize;
use serde_json::Value;

use super::extract::{MAX_IMPORT, body, parse, parse_value};
use super::problem::ApiError;
use super::who::{Caller, Who};
use super::{Api, seal};
use crate::fleet::etag::Precondition;
use crate::fleet::{Answer, Request};

/// Lines asked for at the same time: they share the store's commits.
const AT_ONCE: usize = 64;

/// Most lines: what [`MAX_IMPORT`] holds of the shortest useful line.
const MAX_LINES: usize = 100_000;

/// What became of a line.
#[derive(Debug, Serialize)]
struct Line {
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<HostId>,
    /// `created`, `changed` or `refused`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
}

pub(super) async fn hosts(State(api): State<Api>, Who(who): Who, request: HttpRequest) -> Result<Response, ApiError> {
    // A line says what is to be, whatever is.
    let who = Caller { precondition: Precondition::None, ..who };
    let bytes = body(request, MAX_IMPORT).await?;
    let lines: Vec<_> = lines(&bytes).collect();
    if lines.len() > MAX_LINES {
        return Err(ApiError::invalid("body", format!("has more than {MAX_LINES} lines")));
    }
    // `buffered` begins the lines in order, and each line's first step is its place in the core's queue: two lines of one host
    // keep their order.
    let results = stream::iter(lines).map(move |(line, bytes)| import(api.clone(), who.clone(), line, bytes)).buffered(AT_ONCE);
    let body = Body::from_stream(results.map(|result| {
        let mut json = serde_json::to_vec(&result)?;
        json.push(b'\n');
        Ok::<_, serde_json::Error>(json)
    }));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// The lines that hold something, with their numbers from 1.
fn lines(bytes: &Bytes) -> impl Iterator<Item = (usize, Bytes)> {
    let numbered = bytes.split(|byte| *byte == b'\n').enumerate();
    numbered.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace)).map(|(index, line)| (index + 1, bytes.slice_ref(line)))
}

async fn import(api: Api, who: Caller, line: usize, bytes: Bytes) -> Line {
    let mut id = None;
    match import_line(&api, &who, &bytes, &mut id).await {
        Ok(Answer::Done { created: true }) => Line { line, id, result: "created", problem: None },
        Ok(_) => Line { line, id, result: "changed", problem: None },
        Err(error) => Line { line, id, result: "refused", problem: Some(error.problem(&super::uuid_now().to_string())) },
    }
}

async fn import_line(api: &Api, who: &Caller, bytes: &[u8], id: &mut Option<HostId>) -> Result<Answer, ApiError> {
    let mut fields: serde_json::Map<String, Value> = parse(bytes)?;
    let Some(Value::String(text)) = fields.remove("id") else {
        return Err(ApiError::invalid("id", "is missing, or not a string"));
    };
    let host: HostId = text.parse().map_err(|error: picket_common::id::IdError| ApiError::invalid("id", error.to_string()))?;
    *id = Some(host.clone());
    let body: HostBody = parse_value(Value::Object(fields))?;
    let spec = seal::host_spec(&api.view(who), &api.recovery, &host, body)?;
    api.change(who, Request::PutHost(host, spec)).await
}
