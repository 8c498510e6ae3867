//! POSTs for the ways out that speak HTTP: no redirects, no proxies of the environment, little of the answer read.

use std::path::Path;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, StatusCode, Url};

use super::{again, files, never};
use crate::fleet::Undelivered;

/// Bytes of an answer that are read, for the words in it.
const READ: usize = 2_000;
/// Characters of an answer that are shown.
const SHOWN: usize = 200;

/// What is posted.
pub(super) struct Post<'a> {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) token_file: Option<&'a Path>,
    pub(super) ca_file: Option<&'a Path>,
}

impl Post<'_> {
    pub(super) async fn send(self) -> Result<(), Undelivered> {
        let Self { url, mut headers, body, token_file, ca_file } = self;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(file) = token_file {
            let token = files::secret("token_file", file)?;
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| again("token_file holds no token"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let sent = client(ca_file)?.post(url).headers(headers).body(body).send().await;
        // The URL may hold a secret.
        let response = sent.map_err(|error| again(words(&error.without_url())))?;
        let status = response.status();
        match judge(status) {
            Verdict::Arrived => Ok(()),
            Verdict::Again => Err(again(format!("answered {status}{}", said(response).await))),
            Verdict::Never => Err(never(format!("answered {status}{}", said(response).await))),
        }
    }
}

fn client(ca_file: Option<&Path>) -> Result<Client, Undelivered> {
    let mut builder = Client::builder().redirect(Policy::none()).retry(reqwest::retry::never()).no_proxy();
    builder = builder.user_agent(concat!("picket-aggregator/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = ca_file {
        let pem = files::text("ca_file", file)?;
        let certificates = Certificate::from_pem_bundle(pem.as_bytes());
        let certificates = certificates.map_err(|error| again(format!("ca_file: {}", words(&error))))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| again(words(&error)))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Arrived,
    Again,
    Never,
}

/// What an answer means. A login that is refused is for people to put right, and so is a redirection: the news wait for it.
fn judge(status: StatusCode) -> Verdict {
    match status {
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED
        | StatusCode::REQUEST_TIMEOUT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => Verdict::Again,
        status if status.is_success() => Verdict::Arrived,
        status if status.is_client_error() => Verdict::Never,
        _ => Verdict::Again,
    }
}

/// The beginning of an answer's body.
async fn said(mut response: Response) -> String {
    let mut body = Vec::new();
    while body.len() < READ
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(chunk.get(..READ.min(chunk.len())).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&body);
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

/// An error with all its causes: reqwest's own words say little.
fn words(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_mean() {
        let verdict = |code: u16| judge(StatusCode::from_u16(code).unwrap());
        for code in [200, 201, 202, 204] {
            assert_eq!(verdict(code), Verdict::Arrived, "{code}");
        }
        for code in [301, 302, 307, 401, 403, 407, 408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(verdict(code), Verdict::Again, "{code}");
        }
        for code in [400, 404, 405, 410, 413, 422] {
            assert_eq!(verdict(code), Verdict::Never, "{code}");
        }
    }
}
