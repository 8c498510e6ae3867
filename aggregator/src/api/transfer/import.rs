//! `POST /v1/import/hosts`: a file's hosts, checked line by line and asked for in one request. Nothing of a file is done while one
//! line of it is wrong, unless `partial` is asked for.

use std::collections::BTreeMap;

use axum::extract::{Request as HttpRequest, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use picket_common::api::{ImportLine, ImportResult, LineError, MAX_IMPORT, MAX_IMPORT_HOSTS};
use picket_common::id::HostId;
use tracing::Instrument as _;

use super::super::extract::{Params, body};
use super::super::problem::ApiError;
use super::super::who::{Caller, Who};
use super::super::{Api, seal, uuid_now};
use super::entry::{Defaults, Entry, Given};
use super::form::Form;
use super::{lines, table};
use crate::authorise::{Action, authorise};
use crate::fleet::classify::{Right, Target};
use crate::fleet::etag::Precondition;
use crate::fleet::request::{Import, ImportedHost, Put, Way};
use crate::fleet::{Answer, Rejection, Request, Terms};

/// Wrong lines that an answer names; it says how many there are.
const MAX_ERRORS: usize = 100;

/// A line of the file: what it asks for, or why it cannot.
struct Line {
    line: u64,
    id: Option<HostId>,
    host: Result<ImportedHost, ApiError>,
}

/// What became of a line.
struct Done {
    line: u64,
    id: Option<HostId>,
    put: Result<Put, ApiError>,
}

pub async fn import(State(api): State<Api>, Who(who): Who, params: Params, request: HttpRequest) -> Result<Response, ApiError> {
    // A line says what is to be, whatever is.
    let who = Caller { precondition: Precondition::None, ..who };
    authorise(&api.context.view.load(), &who.principal, Action::At(Right::Configure, Target::Imported(&[])))?;
    let params = params.only(&["dry_run", "partial", "cluster", "rack"])?;
    let (dry_run, partial) = (params.truth("dry_run")?, params.truth("partial")?);
    let defaults = Defaults { cluster: params.parse("cluster")?, rack: params.parse("rack")? };
    let form = Form::said(request.headers())?;
    let text = body(request, MAX_IMPORT).await?;
    let (reading, reader) = (api.clone(), who.clone());
    // Sealing takes a fraction of a millisecond a password: with thousands of them not in the way of other requests.
    let read = move || sealed(&reading, &reader, entries(&text, form, &defaults)?);
    let span = tracing::Span::current();
    let lines = tokio::task::spawn_blocking(move || span.in_scope(read)).await.map_err(|error| {
        tracing::error!(%error, "an import was not read to its end");
        ApiError::Internal
    })??;
    let is_broken = lines.iter().any(|line| line.host.is_err());
    let way = match (dry_run, partial) {
        (true, _) => Way::Check,
        (false, true) => Way::Each,
        // What else is wrong is told as well.
        (false, false) if is_broken => Way::Check,
        (false, false) => Way::Whole,
    };
    let done = asked(&api, &who, lines, way, dry_run).in_current_span().await?;
    let refused = done.iter().filter(|done| done.put.is_err()).count();
    if refused > 0 && !partial { Err(refusal(done, refused)) } else { Ok(answer(&done)) }
}

/// The hosts of a file, each at most once.
fn entries(text: &[u8], form: Option<Form>, defaults: &Defaults) -> Result<Vec<Entry>, ApiError> {
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err(ApiError::invalid("body", "is UTF-16; save the file as UTF-8"));
    }
    // Spreadsheets begin UTF-8 with a byte order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::invalid("body", "holds no host"));
    }
    let mut entries = match form.unwrap_or_else(|| Form::seen(text)) {
        Form::Table => table::entries(text, defaults)?,
        Form::Lines => lines::entries(text, defaults)?,
    };
    match entries.len() {
        0 => return Err(ApiError::invalid("body", "holds no host")),
        1..=MAX_IMPORT_HOSTS => {}
        many => return Err(ApiError::invalid("body", format!("holds {many} hosts; split it up, {MAX_IMPORT_HOSTS} at a time"))),
    }
    let mut seen = BTreeMap::new();
    for entry in &mut entries {
        let Some(id) = entry.id.clone() else { continue };
        if let Some(first) = seen.get(&id) {
            entry.host = Err(ApiError::invalid("id", format!("host {id} is in line {first} already")));
        } else {
            seen.insert(id, entry.line);
        }
    }
    Ok(entries)
}

/// What is asked for, passwords sealed.
fn sealed(api: &Api, who: &Caller, entries: Vec<Entry>) -> Result<Vec<Line>, ApiError> {
    let (whole, view) = (api.context.view.load_full(), api.view(who));
    let host = |id: &HostId, given: Given| {
        let Given { oobm, body } = given;
        let target = Target::Host(id, Some(&body.cluster), Some(&body.rack));
        authorise(&whole, &who.principal, Action::At(Right::Configure, target))?;
        Ok(ImportedHost { id: id.clone(), spec: seal::host_spec(&view, &api.recovery, id, body)?, oobm })
    };
    let line = |entry: Entry| {
        let Entry { line, id, host: given } = entry;
        let host = given.and_then(|given| host(id.as_ref().ok_or(ApiError::Internal)?, given));
        Line { line, id, host }
    };
    Ok(entries.into_iter().map(line).collect())
}

/// Asks for what can be asked for, and joins the answers to their lines.
async fn asked(api: &Api, who: &Caller, lines: Vec<Line>, way: Way, dry_run: bool) -> Result<Vec<Done>, ApiError> {
    let (mut hosts, mut places) = (Vec::new(), Vec::new());
    let mut done = Vec::new();
    for (place, Line { line, id, host }) in lines.into_iter().enumerate() {
        let put = host.map(|host| {
            hosts.push(host);
            places.push(place);
            // Until it is known.
            Put::Unchanged
        });
        done.push(Done { line, id, put });
    }
    if hosts.is_empty() {
        return Ok(done);
    }
    let request = Request::ImportHosts(Import { hosts, way });
    let answered = if way == Way::Check { checked(api, who, request, dry_run).await } else { api.change(who, request).await };
    let puts: Vec<(usize, Result<Put, ApiError>)> = match answered {
        Ok(Answer::Imported(puts)) => puts.into_iter().map(|put| put.map_err(ApiError::from)).enumerate().collect(),
        Ok(Answer::Done { .. } | Answer::Accepted(_) | Answer::Resealed { .. } | Answer::Joined { .. }) => {
            return Err(ApiError::Internal);
        }
        Err(ApiError::Rejected(Rejection::Hosts(refused))) => {
            refused.into_iter().map(|(place, rejection)| (place, Err(rejection.into()))).collect()
        }
        Err(error) => return Err(error),
    };
    for (asked, put) in puts {
        if let Some(done) = places.get(asked).and_then(|place| done.get_mut(*place)) {
            done.put = put;
        }
    }
    Ok(done)
}

/// What would come of a request: it is not written down as one that was granted.
async fn checked(api: &Api, who: &Caller, request: Request, dry_run: bool) -> Result<Answer, ApiError> {
    if dry_run {
        api.rehearse(who, &request)?;
    } else {
        drop(who.trail.asks(&request));
        api.authorise(who, &request)?;
    }
    Ok(api.context.asker.ask(&who.principal.name, request, Terms::default()).await?)
}

fn refusal(done: Vec<Done>, refused: usize) -> ApiError {
    let total = done.len();
    let error = |done: Done| {
        let Done { line, id, put } = done;
        let error = put.err()?;
        Some(LineError {
            line,
            id,
            code: error.code().to_owned(),
            detail: error.to_string(),
            hint: error.hint().map(str::to_owned),
        })
    };
    ApiError::Import { total, refused, errors: done.into_iter().filter_map(error).take(MAX_ERRORS).collect() }
}

/// A line of JSON for each line of the file.
fn answer(done: &[Done]) -> Response {
    let mut text = Vec::new();
    for Done { line, id, put } in done {
        let (result, problem) = match put {
            Ok(Put::Created) => (ImportResult::Created, None),
            Ok(Put::Changed) => (ImportResult::Changed, None),
            Ok(Put::Unchanged) => (ImportResult::Unchanged, None),
            Err(error) => (ImportResult::Refused, Some(error.problem(&uuid_now().to_string()))),
        };
        let line = ImportLine { line: *line, id: id.clone(), result, problem };
        text.append(&mut serde_json::to_vec(&line).unwrap_or_default());
        text.push(b'\n');
    }
    ([(header::CONTENT_TYPE, Form::Lines.media_type())], text).into_response()
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// The hosts that a text holds, as they are read.
    pub fn read(text: &[u8]) -> Result<Vec<Entry>, ApiError> {
        entries(text, None, &Defaults::default())
    }
}
