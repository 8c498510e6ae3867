//! Bytes, paths and query strings → typed values, or a problem that names what is wrong. Never repeats a value of a body: it may
//! be a password in the wrong place.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::BytesMut;
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;

use super::problem::ApiError;

/// Largest body of a route that does not say otherwise, in bytes: the largest host body is a few KiB.
pub const MAX_BODY: usize = 64 * 1024;

/// Most bytes read and thrown away of a body that is too large.
const MAX_REST: usize = 4 * 1024 * 1024;

/// A body must be there within this: a slow sender must not hold a connection for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Items of a page unless asked otherwise.
const DEFAULT_LIMIT: usize = 100;

/// Most items of a page: one answer stays below about a megabyte.
const MAX_LIMIT: usize = 1000;

/// The id in the path.
#[derive(Debug)]
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T>
where
    T::Err: std::fmt::Display,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::invalid("path", "not valid UTF-8 after percent-decoding"))?;
        let (name, text) = params.iter().next().ok_or(ApiError::Internal)?;
        text.parse().map(Self).map_err(|error: T::Err| ApiError::invalid(name, error.to_string()))
    }
}

/// A JSON body of a route.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        parse(&body(request, MAX_BODY).await?).map(Self)
    }
}

/// The whole body, at most `limit` bytes.
pub async fn body(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(BODY_TIMEOUT, bounded(request, limit)).await;
    read.map_err(|_| ApiError::TooSlow(BODY_TIMEOUT.as_secs()))?
}

/// Of a body that is too large the rest is read away, within reason: a connection that ends with bytes unread is reset, and
/// then the sender never sees why.
async fn bounded(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    let said = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > limit.saturating_add(MAX_REST)) {
        return Err(ApiError::TooLarge(limit));
    }
    let mut chunks = request.into_body().into_data_stream();
    let (mut kept, mut length) = (BytesMut::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::Status(StatusCode::BAD_REQUEST))?;
        length = length.saturating_add(chunk.len());
        if length <= limit {
            kept.extend_from_slice(&chunk);
        } else if length > limit.saturating_add(MAX_REST) {
            break;
        }
    }
    if length <= limit { Ok(kept.freeze()) } else { Err(ApiError::TooLarge(limit)) }
}

/// Parses a JSON body; an empty one counts as `{}`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes };
    // serde would take an array for a struct, field by field in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::invalid("body", "expected an object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| json_error(&error))?;
    json.end().map_err(|error| ApiError::Malformed(format!("something follows the object at column {}", error.column())))?;
    Ok(value)
}

/// Like [`parse`], for what was taken apart already.
pub fn parse_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| json_error(&error))
}

fn json_error(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let inner = error.inner();
    let text = inner.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    if !inner.is_data() {
        return ApiError::Malformed(format!("{text} at line {} column {}", inner.line(), inner.column()));
    }
    if text.starts_with("unknown field") {
        return ApiError::UnknownField(text.to_owned());
    }
    let path = error.path().to_string();
    if let Some(missing) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let prefix = if path == "." { String::new() } else { format!("{path}.") };
        return ApiError::invalid(format!("{prefix}{missing}"), "is missing");
    }
    let field = if path == "." { "body".to_owned() } else { path };
    ApiError::invalid(field, without_value(text))
}

/// serde says `invalid type: string "…", expected …`: the value is left out.
fn without_value(text: &str) -> String {
    let Some((what, rest)) = text.split_once(": ").filter(|(what, _)| what.starts_with("invalid ")) else {
        return text.to_owned();
    };
    // The value may hold ", expected" itself; what serde appended is the last one.
    let expected = rest.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
    format!("{what}, expected {expected}")
}

/// The query string's parameters, each known.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::try_from_uri(&parts.uri).map_err(|_| ApiError::invalid("query", "not a query string"))?;
        Ok(Self(pairs))
    }
}

impl Params {
    /// Refuses parameters that are not in `known`, and repeated ones.
    pub fn only(self, known: &[&str]) -> Result<Self, ApiError> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(ApiError::invalid(shown(name), format!("is not a parameter here; known: {known}")));
            }
            if self.0.iter().skip(index + 1).any(|(other, _)| other == name) {
                return Err(ApiError::invalid(shown(name), "is given twice"));
            }
        }
        Ok(self)
    }

    /// The parameter's value, if it is given.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The parameter's value, parsed.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        let parsed = self.value(name).map(str::parse).transpose();
        parsed.map_err(|error: T::Err| ApiError::invalid(name, error.to_string()))
    }

    /// The parameter's value as one of a few words.
    pub fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        words.iter().find(|(word, _)| *word == value).map(|(_, known)| Some(*known)).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            ApiError::invalid(name, format!("use one of: {}", words.join(", ")))
        })
    }

    /// The parameter as a switch: absent is `false`.
    pub fn truth(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.one_of(name, &[("true", true), ("false", false)])?.unwrap_or(false))
    }

    /// `limit` and `page_token`.
    pub fn page<K: FromStr>(&self) -> Result<Page<K>, ApiError> {
        let limit = match self.parse::<usize>("limit")? {
            None => DEFAULT_LIMIT,
            Some(limit @ 1..=MAX_LIMIT) => limit,
            Some(_) => return Err(ApiError::invalid("limit", format!("use 1 to {MAX_LIMIT}"))),
        };
        Ok(Page { limit, after: self.value("page_token").map(after).transpose()? })
    }
}

fn shown(name: &str) -> String {
    name.chars().take(40).collect()
}

/// Which part of a list.
#[derive(Debug)]
pub struct Page<K> {
    /// At most so many items.
    pub limit: usize,
    /// Those behind this id.
    pub after: Option<K>,
}

/// The token of the page behind `last`.
pub fn page_token(last: &impl std::fmt::Display) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(last.to_string())
}

fn after<K: FromStr>(token: &str) -> Result<K, ApiError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| ApiError::invalid("page_token", "not a token of an earlier page"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use picket_common::api::{HostBody, PowerRequest};
    use picket_common::id::HostId;

    fn host(json: &str) -> String {
        parse::<HostBody>(json.as_bytes()).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn bodies_are_refused_by_field_and_without_values() {
        for (json, wanted) in [
            ("{", "the body is not valid JSON: EOF while parsing an object at line 1 column 1"),
            (" [1,2]", "body: expected an object"),
            ("7", "body: invalid type, expected struct HostBody"),
            (r#"{"cluster":"c1","rack":"r1"} x"#, "the body is not valid JSON: something follows the object at column 30"),
            (r#"{"cluster":"c1"}"#, "rack: is missing"),
            (r#"{"cluster":"c1","rack":"r1","bmc":"hunter2"}"#, "bmc: invalid type, expected struct BmcBody"),
            (r#"{"cluster":"c1","rack":"r1","bmc":{"password":4711}}"#, "bmc.password: invalid type, expected a string"),
            (r#"{"cluster":"c1","rack":"r1","bmc":{"port":70000}}"#, "bmc.port: invalid value, expected u16"),
            (r#"{"cluster":"c1","rack":"r1","bmc":{"port":"hunter2, expected x"}}"#, "bmc.port: invalid type, expected u16"),
            (r#"{"cluster":"c1","rack":"r1","poll_interval":-3}"#, "poll_interval: invalid value, expected u64"),
        ] {
            let text = host(json);
            assert_eq!(text, wanted, "{json}");
            assert!(!text.contains("hunter2") && !text.contains("4711"));
        }
        assert!(host(r#"{"cluster":"C 1","rack":"r1"}"#).contains("cluster: \"C 1\" is not a valid cluster id"));
        assert!(host(r#"{"cluster":"c1","rack":"r1","bcm":{"password":"hunter2"}}"#).starts_with("unknown field `bcm`"));
        let power = parse::<PowerRequest>(br#"{"operation":"explode"}"#).unwrap_err().to_string();
        assert!(power.starts_with("operation: unknown variant `explode`, expected one of `on`"), "{power}");
    }

    #[test]
    fn pages_and_parameters() {
        let params = |query: &str| {
            let uri: axum::http::Uri = format!("/v1/hosts?{query}").parse().unwrap();
            Params(Query::try_from_uri(&uri).unwrap().0)
        };
        let token = page_token(&"r07n01");
        let page = params(&format!("limit=5&page_token={token}")).page::<HostId>().unwrap();
        assert_eq!((page.limit, page.after.unwrap().as_str()), (5, "r07n01"));
        assert_eq!(params("").page::<HostId>().unwrap().limit, 100);
        for bad in ["limit=0", "limit=1001", "limit=-1", "limit=x", "page_token=%21", "page_token=QUJD"] {
            let error = params(bad).page::<HostId>().unwrap_err().to_string();
            assert!(error.starts_with(bad.split('=').next().unwrap()), "{error}");
        }
        assert!(params("a=1").only(&["b"]).unwrap_err().to_string().starts_with("a: is not a parameter"));
        assert!(params("a=1&a=2").only(&["a"]).unwrap_err().to_string().contains("twice"));
        assert!(params("state=onn").one_of("state", &[("on", 1)]).unwrap_err().to_string().contains("one of: on"));
    }
}
