//! Health check `http`: a GET is answered with 2xx or 3xx; where 3xx points to is not followed. And one request with its answer, for witnesses too.
//!
//! Over HTTPS any certificate is accepted, one that is too old or of nobody's authority too: whether the host is alive does not
//! depend on it, and nothing secret is sent or believed.

use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::http::uri::Scheme;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::{Dialler, failed};
use super::turn::Turn;
use crate::sign::Sign;

/// Asks once.
pub(super) async fn get(dialler: &Dialler, tls: &Arc<ClientConfig>, url: &str, turn: &Turn<'_>) -> Result<Sign, Sign> {
    let Target { secure, host, port, request } = target(url).ok_or_else(|| {
        Sign::CannotTell(format!(
            "{url:?} is not http://HOST or https://HOST with or without a port and a path, and without a login"
        ))
    })?;
    let asked = async {
        let stream = dialler.connect(&host, port, turn).await?;
        if secure {
            exchange(secured(stream, Arc::clone(tls), &host).await?, request, 0).await
        } else {
            exchange(stream, request, 0).await
        }
    };
    let (status, _) =
        turn.within(asked).await.unwrap_or_else(|| Err(turn.silent(format!("{url} does not answer within {}", turn.given()))))?;
    if status.is_success() || status.is_redirection() { Ok(Sign::Alive) } else { Ok(Sign::Dead(format!("{url} answers {status}"))) }
}

struct Target {
    secure: bool,
    host: String,
    port: u16,
    request: Request<Full<Bytes>>,
}

fn target(url: &str) -> Option<Target> {
    let uri: Uri = url.parse().ok()?;
    let secure = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        _ => return None,
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = request("GET", authority.as_str(), path, Bytes::new())?;
    // A port that is no number is not read as one, and must not become the usual one.
    let port = if authority.as_str() == authority.host() { Some(if secure { 443 } else { 80 }) } else { authority.port_u16() };
    Some(Target { secure, host: authority.host().to_owned(), port: port?, request })
}

/// A request for one connection of its own.
pub(super) fn request(method: &str, host: &str, path: &str, body: Bytes) -> Option<Request<Full<Bytes>>> {
    let request = Request::builder().method(method).uri(path).header(HOST, host).header(USER_AGENT, "picket-agent");
    request.header(CONNECTION, "close").body(Full::new(body)).ok()
}

/// The TLS layer over a connection. What TLS itself objects to is no death: something answers there.
pub(super) async fn secured(stream: TcpStream, tls: Arc<ClientConfig>, host: &str) -> Result<TlsStream<TcpStream>, Sign> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|_| Sign::CannotTell(format!("{host:?} is not a name")))?;
    TlsConnector::from(tls).connect(name, stream).await.map_err(|error| broken(&error, &format!("{host}: TLS failed")))
}

/// One request and its answer; of the body at most `most` bytes, with 0 none is read.
pub(super) async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, most: usize) -> Result<(StatusCode, Bytes), Sign>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let unanswered = |error: hyper::Error| explained(&error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unanswered)?;
    // Ends with this function, whatever becomes of it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        // The connection was over before it was asked anything; why, it knows itself.
        Err(error) if error.is_canceled() => {
            return Err(match driver.join_next().await {
                Some(Ok(Err(error))) => explained(&error),
                _ => explained(&error),
            });
        }
        Err(error) => return Err(explained(&error)),
    };
    let status = response.status();
    if most == 0 {
        return Ok((status, Bytes::new()));
    }
    match Limited::new(response.into_body(), most).collect().await {
        Ok(body) => Ok((status, body.to_bytes())),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(explained(&error)),
            Err(error) => Err(Sign::CannotTell(format!("its answer is not read: {error}"))),
        },
    }
}

/// What it means that a request was not answered.
fn explained(error: &hyper::Error) -> Sign {
    // A request that was cancelled may carry the connection's own error: that is the one that counts.
    let mut error = error;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(io) = this.downcast_ref::<io::Error>() {
            return broken(io, "no answer");
        }
        error = this.downcast_ref().unwrap_or(error);
        cause = this.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Sign::Dead("the connection was closed without an answer".into());
    }
    Sign::CannotTell(format!("it does not answer in HTTP: {error}"))
}

/// As [`failed`]; but an objection of TLS is no failed connection.
fn broken(error: &io::Error, what: &str) -> Sign {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => Sign::CannotTell(format!("{what}: {error}")),
        None => failed(error, what),
    }
}

/// TLS settings that take any server.
///
/// # Errors
/// When rustls has no protocol version for its own provider.
pub(super) fn any_server() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let verifier = Arc::new(AnyServer { schemes });
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyServer {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let read =
            |url: &str| target(url).map(|target| (target.secure, target.host, target.port, target.request.uri().to_string()));
        for (url, secure, host, port, path) in [
            ("http://h1", false, "h1", 80, "/"),
            ("https://h1/x?y", true, "h1", 443, "/x?y"),
            ("http://[fd00::1]:8080/", false, "[fd00::1]", 8080, "/"),
        ] {
            assert_eq!(read(url), Some((secure, host.to_owned(), port, path.to_owned())), "{url}");
        }
        for bad in ["", "h1", "/x", "ftp://h1", "http://", "http://user@h1", "http://a:b@h1", "http://h1:99999"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
