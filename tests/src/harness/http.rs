//! The API as programs speak it: any token, any header, streams of events. What people do goes through `picketctl`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Certificate, Client, Response};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::Site;

/// Longer than any request of a test is told to wait.
const PATIENCE: Duration = Duration::from_secs(90);

/// A client with a token; clones share its connections.
#[derive(Clone)]
pub struct Http {
    runtime: Arc<Runtime>,
    client: Client,
    url: String,
    token: Option<String>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("url", &self.url).finish_non_exhaustive()
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers; names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body; null when it is none of JSON.
    pub body: Value,
}

impl Http {
    /// With the token of the site's first admin.
    ///
    /// # Errors
    /// When the site's files cannot be read.
    pub fn admin(site: &Site) -> Result<Self> {
        // Another test of this process may have been first.
        rustls::crypto::ring::default_provider().install_default().ok();
        let ca = Certificate::from_pem(&std::fs::read(site.ca_file())?)?;
        let client = Client::builder().tls_certs_only([ca]).no_proxy().build()?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let token = std::fs::read_to_string(site.token_file())?.trim().to_owned();
        Ok(Self { runtime: Arc::new(runtime), client, url: site.url(), token: Some(token) })
    }

    /// The same client with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client without any.
    #[must_use]
    pub fn as_stranger(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<reqwest::RequestBuilder> {
        let mut request = self.client.request(method.parse()?, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        Ok(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
    }

    /// One request.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Result<Reply> {
        let mut request = self.request(method, path, headers)?.timeout(PATIENCE);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        self.runtime.block_on(async {
            let response = request.send().await.with_context(|| format!("{method} {path}"))?;
            let status = response.status().as_u16();
            let text = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            let headers = response.headers().iter().map(text).collect();
            let body = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
            Ok(Reply { status, headers, body })
        })
    }

    /// GET.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.call("GET", path, &[], None)
    }

    /// POST.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.call("POST", path, &[], Some(body))
    }

    /// Follows events; `last` is where an earlier stream ended. When it returns, nothing that happens is missed any more.
    ///
    /// # Errors
    /// When the stream is refused.
    pub fn follow(&self, path: &str, last: Option<&str>) -> Result<EventStream> {
        let headers: Vec<_> = last.iter().map(|last| ("last-event-id", *last)).collect();
        let request = self.request("GET", path, &headers)?;
        let response = self.runtime.block_on(request.send())?;
        ensure!(response.status() == 200, "{path}: HTTP {}", response.status());
        let heard = Arc::new(Mutex::new(Heard::default()));
        let task = self.runtime.spawn(listen(response, Arc::clone(&heard)));
        Ok(EventStream { heard, task, _runtime: Arc::clone(&self.runtime) })
    }
}

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its `id`, by which a stream is taken up again.
    pub id: String,
    /// Its `event`: what kind.
    pub kind: String,
    /// Its `data`.
    pub data: Value,
}

#[derive(Debug, Default)]
struct Heard {
    events: Vec<Event>,
    is_over: bool,
}

/// A stream of events that is being read.
#[derive(Debug)]
pub struct EventStream {
    heard: Arc<Mutex<Heard>>,
    task: JoinHandle<()>,
    _runtime: Arc<Runtime>,
}

impl EventStream {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.heard().events.clone()
    }

    /// Whether the other end has ended it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.heard().is_over
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(mut response: Response, heard: Arc<Mutex<Heard>>) {
    let locked = || heard.lock().unwrap_or_else(PoisonError::into_inner);
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        text.extend_from_slice(&chunk);
        // An event ends with an empty line; one cut in two by the connection's end never happened for its listener.
        while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = text.drain(..end + 2).collect();
            locked().events.extend(event(&String::from_utf8_lossy(&block)));
        }
    }
    locked().is_over = true;
}

/// The event of a block of lines (WHATWG HTML §9.2); none when it has no data.
fn event(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_start);
    let data = serde_json::from_str(field("data")?).unwrap_or(Value::Null);
    let text = |name| field(name).unwrap_or_default().to_owned();
    Some(Event { id: text("id"), kind: text("event"), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_stream() {
        let read = event("id: 7-ab\nevent: io.picket.power.changed.v1\ndata: {\"a\":1}\n\n").unwrap();
        assert_eq!(
            (read.id.as_str(), read.kind.as_str(), &read.data["a"]),
            ("7-ab", "io.picket.power.changed.v1", &Value::from(1))
        );
        assert_eq!(event(": heartbeat\nid: 9-ab\n\n"), None);
    }
}
