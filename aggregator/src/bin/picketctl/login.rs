//! `login`: finds out whether the aggregator is the right one and the token good, and only then stores both.

use std::sync::Arc;
use std::time::Duration;

use picket_common::pin::PinnedRoot;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Ended;
use crate::cli::Login;
use crate::client::{CONNECT_TIMEOUT, Client, Target};
use crate::config::{self, Context, DEFAULT_CONTEXT};
use crate::failure::Failure;
use crate::secret_input;

/// Stores a login after trying it.
pub async fn login(login: &Login, name: Option<&str>) -> Ended {
    let url = login.server.trim_end_matches('/').to_owned();
    let ca = match (&login.ca, &login.ca_hash) {
        (Some(path), _) => Some(config::read_ca(path)?),
        (None, Some(hash)) => Some(fetch_ca(&url, hash).await?),
        (None, None) => None,
    };
    let token = match &login.token_file {
        Some(path) => secret_input::from_file(path)?,
        None if login.token_stdin => secret_input::from_stdin()?,
        None => secret_input::from_prompt("Token: ")?
            .ok_or_else(|| Failure::Usage("give the token with --token-file or --token-stdin".into()))?,
    };
    let target = Target { url: url.clone(), ca_pem: ca.clone(), token: Some(token.clone()), connect_within: CONNECT_TIMEOUT };
    let client = Client::new(crate::NAME, &target)?;
    client.one("/v1/summary").await?;
    let name = name.unwrap_or(DEFAULT_CONTEXT);
    let dir = config::store(name, Context { url: url.clone(), ca }, &token)?;
    eprintln!("logged in to {url} as context {name}, stored in {}", dir.display());
    Ok(0)
}

/// A handshake that takes longer has failed.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The root that the server sends, if its key has this hash and the server's own certificate follows from it.
async fn fetch_ca(url: &str, hash: &str) -> Result<String, Failure> {
    let hash = hash.to_ascii_lowercase();
    if hash.len() != 64 || hex::decode(&hash).is_err() {
        return Err(Failure::Usage("--ca-hash takes 64 hex digits".into()));
    }
    let parsed = reqwest::Url::parse(url).map_err(|error| Failure::Usage(format!("{url:?} is not a URL: {error}")))?;
    let host = parsed.host_str().filter(|_| parsed.scheme() == "https");
    let host = host.ok_or_else(|| Failure::Usage("--ca-hash needs an https:// URL".into()))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = parsed.port_or_known_default().unwrap_or(443);
    let pinned = PinnedRoot::new(&hash);
    let handshake = tokio::time::timeout(HANDSHAKE, handshake(host, port, &pinned));
    handshake.await.map_err(|_| Failure::Unreachable("no TLS handshake within 10 s".into()))??;
    let der = pinned.found().ok_or_else(|| Failure::Unreachable("it sent no certificate".into()))?;
    Ok(pem(&der))
}

async fn handshake(host: String, port: u16, pinned: &Arc<PinnedRoot>) -> Result<(), Failure> {
    let unreachable = |error: std::io::Error| Failure::Unreachable(error.to_string());
    let config = pinned.client_config().map_err(|error| Failure::Local(format!("TLS: {error}")))?;
    let name = ServerName::try_from(host.clone()).map_err(|_| Failure::Usage(format!("{host:?} is not a host name")))?;
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(unreachable)?;
    Ok(())
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::prelude::BASE64_STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem + "\n-----END CERTIFICATE-----\n"
}
