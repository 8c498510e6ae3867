//! One BMC's side of the shared HTTP client: a request out, a bounded answer in. Follows nothing, repeats nothing.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use picket_common::secret::Secret;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE, DATE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue,
    IF_MATCH, LOCATION, RETRY_AFTER,
};
use tokio::net::lookup_host;

use super::failure::Failure;
use super::settings::Settings;
use super::tls::{self, Peer, Peers};
use crate::bmc::{Bmc, ErrorClass};
use crate::driver::address::AllowedNetworks;
use crate::redfish::MAX_BODY_BYTES;
use crate::redfish::fault;
use crate::redfish::link::Origin;
use crate::redfish::request::{Method, Request};

/// How long an idle connection is kept: longer than all but rare poll intervals, shorter than BMCs remember.
const POOL_IDLE: Duration = Duration::from_secs(300);

/// How long a TCP and TLS handshake may take; old BMCs need seconds for one RSA signature.
const CONNECT: Duration = Duration::from_secs(15);

/// How long the body of an answer that is already good may still take.
const DRAIN: Duration = Duration::from_secs(1);

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// The client for all BMCs.
///
/// # Errors
/// The HTTP library cannot start.
pub(super) fn client(
    tls: rustls::ClientConfig,
    peers: Arc<Peers>,
    allowed: AllowedNetworks,
) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Resolver { peers, allowed: Arc::new(allowed) })
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(POOL_IDLE)
        .build()
}

/// Turns a BMC's made-up name into its real address, and lets nothing out to an address that is not allowed.
struct Resolver {
    peers: Arc<Peers>,
    allowed: Arc<AllowedNetworks>,
}

impl reqwest::dns::Resolve for Resolver {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let peer = self.peers.find(name.as_str());
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let peer = peer.ok_or("the host was forgotten")?;
            match addresses(&peer, &allowed).await {
                Ok(addresses) => Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs),
                Err(failure) => {
                    let text = failure.text.clone();
                    peer.refuse(failure);
                    Err(text.into())
                }
            }
        })
    }
}

async fn addresses(peer: &Peer, allowed: &AllowedNetworks) -> Result<Vec<std::net::SocketAddr>, Failure> {
    let host = peer.bmc.address.trim_matches(['[', ']']);
    let found = lookup_host((host, peer.port))
        .await
        .map_err(|error| Failure::connection("no-such-name", format!("{host} cannot be resolved: {error}")))?;
    let mut good = Vec::new();
    let mut refusal = None;
    for address in found {
        match allowed.check(super::DESCRIPTOR.name, &peer.bmc, address) {
            Ok(address) => good.push(address),
            Err(error) => refusal = Some(Failure::new(error.class, error.code, error.text)),
        }
    }
    match refusal {
        Some(refusal) if good.is_empty() => Err(refusal),
        _ if good.is_empty() => Err(Failure::connection("no-such-name", format!("{host} has no address"))),
        _ => Ok(good),
    }
}

/// Who asks.
pub(super) enum Credentials<'a> {
    None,
    Basic(&'a Bmc),
    Token(&'a Secret<String>),
}

/// An answer; its body is whole, or empty where nobody needs it.
pub(super) struct Reply {
    pub status: u16,
    pub location: Option<String>,
    pub token: Option<Secret<String>>,
    pub retry_after: Option<Duration>,
    pub etag: Option<String>,
    pub body: Vec<u8>,
}

/// The way to one BMC.
pub(super) struct Line {
    client: reqwest::Client,
    peers: Arc<Peers>,
    pub peer: Arc<Peer>,
    pub origin: Origin,
    name: String,
    base: String,
    close: bool,
    /// The BMC does not accept identity encoding (406, seen on HPE Gen10): leave it unsaid.
    any_encoding: AtomicBool,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.peers.remove(&self.name);
    }
}

impl Line {
    pub(super) fn new(client: reqwest::Client, peers: Arc<Peers>, name: String, peer: Peer, settings: &Settings) -> Self {
        let peer = Arc::new(peer);
        peers.add(name.clone(), Arc::clone(&peer));
        Self {
            client,
            peers,
            peer,
            origin: settings.origin.clone(),
            base: format!("{}://{name}:{}", settings.scheme, settings.port),
            name,
            close: settings.close,
            any_encoding: AtomicBool::new(false),
        }
    }

    /// One request and its answer. An answer of any status is `Ok`.
    ///
    /// # Errors
    /// With `maybe_sent` unless the connection could not even be made.
    pub(super) async fn send(&self, request: &Request, who: &Credentials<'_>) -> Result<Reply, Failure> {
        self.send_on(request, who, self.close).await
    }

    /// Whether the BMC wants encoding left unsaid.
    pub(super) fn takes_any_encoding(&self) -> bool {
        self.any_encoding.load(Ordering::Relaxed)
    }

    /// As [`Line::send`], and the connection is closed afterwards.
    pub(super) async fn send_last(&self, request: &Request, who: &Credentials<'_>) -> Result<Reply, Failure> {
        self.send_on(request, who, true).await
    }

    async fn send_on(&self, request: &Request, who: &Credentials<'_>, close: bool) -> Result<Reply, Failure> {
        let headers = self.headers(who, close)?;
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut out = self.client.request(method, format!("{}{}", self.base, request.path)).headers(headers);
        if let Some(tag) = &request.if_match {
            let tag = HeaderValue::from_str(tag).map_err(|_| Failure::protocol("bad-etag", "unusable ETag"))?;
            out = out.header(IF_MATCH, tag);
        }
        if let Some(body) = &request.body {
            out = out.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body.clone());
        }
        self.peer.take_refusal();
        let response = out.send().await.map_err(|error| self.explain(&error))?;
        let reply = read(response, request.method).await.map_err(|failure| Failure { maybe_sent: true, ..failure })?;
        if reply.status == 406 {
            self.any_encoding.store(true, Ordering::Relaxed);
        }
        Ok(reply)
    }

    fn headers(&self, who: &Credentials<'_>, close: bool) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        let host =
            HeaderValue::from_str(self.origin.host_header()).map_err(|_| Failure::setting("bad-address", "unusable address"))?;
        headers.insert(HOST, host);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert("odata-version", HeaderValue::from_static("4.0"));
        if !self.any_encoding.load(Ordering::Relaxed) {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match who {
            Credentials::None => {}
            Credentials::Basic(bmc) => {
                headers.insert(AUTHORIZATION, basic(bmc)?);
            }
            Credentials::Token(token) => {
                headers.insert(
                    AUTH_TOKEN,
                    sensitive(token.expose()).ok_or_else(|| Failure::protocol("bad-token", "unusable session token"))?,
                );
            }
        }
        Ok(headers)
    }

    /// What to tell about a request without an answer.
    fn explain(&self, error: &reqwest::Error) -> Failure {
        if let Some(refusal) = self.peer.take_refusal() {
            return refusal;
        }
        let maybe_sent = !error.is_connect();
        if let Some(tls) = tls::find_error(error) {
            return Failure { maybe_sent, ..tls::explain(tls) };
        }
        let cause = innermost(error);
        let (code, text) = match error {
            error if error.is_connect() && error.is_timeout() => {
                ("no-connection", format!("no connection within {} s", CONNECT.as_secs()))
            }
            error if error.is_connect() => ("no-connection", format!("no connection: {cause}")),
            _ => ("connection-lost", format!("the connection broke before an answer came: {cause}")),
        };
        Failure { maybe_sent, ..Failure::connection(code, text) }
    }
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string().chars().take(200).collect()
}

fn basic(bmc: &Bmc) -> Result<HeaderValue, Failure> {
    if bmc.username.contains(':') {
        return Err(Failure::setting("bad-username", "a user name with ':' cannot be used with basic authentication"));
    }
    let pair = Secret::new(format!("{}:{}", bmc.username, bmc.password.expose()));
    let value = Secret::new(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair.expose())));
    sensitive(value.expose()).ok_or_else(|| Failure::setting("bad-username", "unusable user name or password"))
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn read(response: reqwest::Response, method: Method) -> Result<Reply, Failure> {
    let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let mut reply = Reply {
        status: response.status().as_u16(),
        location: header(LOCATION).map(str::to_owned),
        token: header(AUTH_TOKEN)
            .filter(|token| !token.is_empty() && token.len() <= 4096)
            .map(|token| Secret::new(token.to_owned())),
        etag: header(ETAG).map(str::to_owned),
        retry_after: header(RETRY_AFTER).and_then(|value| fault::retry_after(value, header(DATE))),
        body: Vec::new(),
    };
    let encoded = response.headers().contains_key(reqwest::header::CONTENT_ENCODING)
        && header(reqwest::header::CONTENT_ENCODING) != Some("identity");
    let body = read_body(response);
    if method == Method::Get && reply.status < 300 {
        reply.body = body.await?;
        if encoded {
            return Err(Failure::protocol("encoded-body", "the BMC compresses its answers, although it was asked not to"));
        }
        return Ok(reply);
    }
    // The status has decided; a broken, endless or slow body must not undo that.
    if let Ok(Ok(body)) = tokio::time::timeout(DRAIN, body).await {
        reply.body = body;
    }
    Ok(reply)
}

async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, Failure> {
    let too_big = || Failure::protocol("body-too-big", format!("the BMC sends a body of more than {} KiB", MAX_BODY_BYTES / 1024));
    if response.content_length().is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_big());
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_BODY_BYTES => return Err(too_big()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => {
                let text = format!("the connection broke in the middle of an answer: {}", innermost(&error));
                return Err(Failure::new(ErrorClass::Connection, "connection-lost", text));
            }
        }
    }
}
