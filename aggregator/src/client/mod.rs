//! The HTTP API from the asker's side, for the programs of this package: one client, bounded waits, problems as failures. The
//! daemon does not use it.

pub mod failure;
pub mod operation;
pub mod secret_input;

use std::error::Error as _;
use std::time::Duration;

use picket_common::api::Problem;
use picket_common::secret::Secret;
pub use reqwest::Method;
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Response, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use failure::Failure;

/// An unreachable aggregator is noticed within this.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer that is not waited for on purpose must come within this.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Items of a page: the most the API gives.
const PAGE: usize = 1000;

/// Whom to talk to, and as whom.
#[derive(Debug)]
pub struct Target {
    /// `https://host:port`.
    pub url: String,
    /// CA certificate, PEM; absent = the system's.
    pub ca_pem: Option<String>,
    /// Bearer token.
    pub token: Option<Secret<String>>,
    /// It is unreachable when no connection is made within this; usually [`CONNECT_TIMEOUT`].
    pub connect_within: Duration,
}

/// Talks to one aggregator.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<Secret<String>>,
}

/// One page of a list, not looked into.
#[derive(Deserialize)]
struct Page {
    items: Vec<Value>,
    #[serde(default)]
    next_page_token: Option<String>,
}

impl Client {
    /// A client for `target`; `program` is what it calls itself.
    ///
    /// # Errors
    /// [`Failure::Usage`] for an address or CA that cannot be used.
    pub fn new(program: &str, target: &Target) -> Result<Self, Failure> {
        check_url(&target.url)?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(target.connect_within)
            .redirect(redirect::Policy::none())
            .user_agent(format!("{program}/{}", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &target.ca_pem {
            let bundle = Certificate::from_pem_bundle(pem.as_bytes());
            let bundle = bundle.map_err(|error| Failure::Usage(format!("the CA is not PEM: {}", chain(&error))))?;
            builder = builder.tls_certs_only(bundle);
        }
        let http = builder.build().map_err(|error| Failure::Usage(format!("TLS: {}", chain(&error))))?;
        Ok(Self { http, url: target.url.clone(), token: target.token.clone() })
    }

    /// Sends a request and gives the answer as it is, whatever its status.
    ///
    /// # Errors
    /// [`Failure::Unreachable`], [`Failure::NoAnswer`].
    pub async fn send(&self, call: Call<'_>) -> Result<Response, Failure> {
        let tag = self.seen(&call).await?;
        let mut request = self.http.request(call.method, format!("{}{}", self.url, call.path));
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        if let Some(timeout) = call.timeout {
            request = request.timeout(timeout);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        for (name, value) in call.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = call.body {
            let said = call.headers.iter().any(|(name, _)| *name == "content-type");
            request = if said { request } else { request.header("content-type", "application/json") };
            request = request.body(body);
        }
        request.send().await.map_err(|error| unanswered(&error))
    }

    /// The entity tag that a change must name: of what is there now, for who runs a command has just been told of it, or means it
    /// whatever it is.
    async fn seen(&self, call: &Call<'_>) -> Result<Option<HeaderValue>, Failure> {
        let changes = matches!(call.method, Method::PUT | Method::PATCH | Method::DELETE);
        if !changes || call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("if-match")) {
            return Ok(None);
        }
        let read = Box::pin(self.send(Call { timeout: call.timeout, ..Call::new(Method::GET, call.path) })).await?;
        Ok(read.headers().get("etag").cloned())
    }

    /// Sends and wants success.
    ///
    /// # Errors
    /// [`Failure::Problem`], and as [`Client::send`].
    pub async fn ask(&self, call: Call<'_>) -> Result<Response, Failure> {
        let response = self.send(call).await?;
        if response.status().is_success() { Ok(response) } else { Err(problem(response).await) }
    }

    /// Sends JSON and reads JSON; an answer without a body is null.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let call = Call { body: body.map(|body| body.to_string().into()), ..Call::new(method, path) };
        read(self.ask(call).await?).await
    }

    /// Reads one resource, and changes it (`PATCH`) as it was read: who changes it meanwhile wins, and this fails with 412.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn edited(&self, path: &str, change: impl Fn(&Value) -> Value) -> Result<Value, Failure> {
        let response = self.ask(Call::new(Method::GET, path)).await?;
        let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()).unwrap_or("*").to_owned();
        let body = change(&read(response).await?).to_string();
        let call = Call { headers: &[("if-match", tag)], body: Some(body.into()), ..Call::new(Method::PATCH, path) };
        read(self.ask(call).await?).await
    }

    /// Reads one resource.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn one(&self, path: &str) -> Result<Value, Failure> {
        self.json(Method::GET, path, None).await
    }

    /// Reads all pages of a list, at most `limit` items. `query` holds the filters.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn all(&self, path: &str, query: &[(&str, Option<String>)], limit: usize) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        while items.len() < limit {
            let size = PAGE.min(limit - items.len());
            let mut url = format!("{path}?limit={size}");
            let given = query.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
            for (name, value) in given.chain(token.as_deref().map(|token| ("page_token", token))) {
                url += &format!("&{name}={}", escaped(value));
            }
            let page: Page = typed(self.one(&url).await?)?;
            items.extend(page.items);
            match page.next_page_token {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        Ok(items)
    }
}

/// One request.
#[derive(Debug)]
pub struct Call<'a> {
    /// How.
    pub method: Method,
    /// What.
    pub path: &'a str,
    /// With which headers.
    pub headers: &'a [(&'a str, String)],
    /// With which body.
    pub body: Option<Vec<u8>>,
    /// Give up after this; absent = never.
    pub timeout: Option<Duration>,
}

impl<'a> Call<'a> {
    /// A request without body and headers.
    #[must_use]
    pub const fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, headers: &[], body: None, timeout: Some(ANSWER_TIMEOUT) }
    }
}

/// A token must not cross a network in the clear.
fn check_url(url: &str) -> Result<(), Failure> {
    let parsed = reqwest::Url::parse(url).map_err(|error| Failure::Usage(format!("{url:?} is not a URL: {error}")))?;
    let loopback = matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match parsed.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        _ => Err(Failure::Usage(format!("{url:?}: use https://host:port"))),
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3).
#[must_use]
pub fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Reads an answer's JSON.
///
/// # Errors
/// [`Failure::NoAnswer`] when it is cut off or is no JSON.
pub async fn read(response: Response) -> Result<Value, Failure> {
    let bytes = response.bytes().await.map_err(|error| unanswered(&error))?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|error| Failure::NoAnswer(format!("its answer is not JSON ({error})")))
}

/// What this version of the API says, as this version of the program reads it.
///
/// # Errors
/// [`Failure::NoAnswer`] when the other end speaks something else.
pub fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| Failure::NoAnswer(format!("its answer is not understood ({error})")))
}

/// The problem of an answer that is no success.
pub async fn problem(response: Response) -> Failure {
    let status = response.status();
    let bytes = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => Failure::Problem(Box::new(problem)),
        Err(_) => Failure::NoAnswer(format!("it answered {status} without a problem; is this a Picket aggregator?")),
    }
}

fn unanswered(error: &reqwest::Error) -> Failure {
    let never_sent = error.is_connect() || error.is_builder();
    if never_sent { Failure::Unreachable(chain(error)) } else { Failure::NoAnswer(chain(error)) }
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_escapes() {
        for good in ["https://a:8443", "http://127.0.0.1:1", "http://localhost:1"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in ["http://a", "ftp://a", "a:8443", "", "http://127.0.0.1.evil"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert_eq!(escaped("a b/ü~"), "a%20b%2F%C3%BC~");
    }
}
