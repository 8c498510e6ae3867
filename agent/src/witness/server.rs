//! The witness's two answers, over mutual TLS: `GET /v1/health` and `POST /v1/files`. Everything that comes in is bounded in
//! size, time and number.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use picket_common::ha::settings::MAX_FILES;
use picket_common::id::HostId;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::doors::Doors;
use super::own::OwnFiles;
use crate::sign::witness::{FILES, FilesAsked, FilesSeen, HEALTH, Health, MOST_BYTES};
use crate::stamps::{Looker, Unseen};
use crate::tls;

/// A handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A look at files takes no longer.
const LOOK: Duration = Duration::from_secs(20);
/// A question with its answer takes no longer.
const CONNECTION: Duration = Duration::from_secs(30);
/// Pause after a connection that could not be taken: of descriptors there may be some again.
const PAUSE: Duration = Duration::from_millis(100);

/// What it answers from.
pub(super) struct Server {
    host: HostId,
    tls: TlsAcceptor,
    looker: Looker,
    own: OwnFiles,
    doors: Doors,
}

type Answer = Response<Full<Bytes>>;

impl Server {
    pub(super) fn new(host: HostId, tls: Arc<rustls::ServerConfig>, looker: Looker, own: OwnFiles) -> Self {
        Self { host, tls: TlsAcceptor::from(tls), looker, own, doors: Doors::default() }
    }
}

/// Takes connections, for ever.
pub(super) async fn serve(server: Arc<Server>, listener: TcpListener) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "no connection taken");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some(inside) = server.doors.enter(from.ip()) else {
            tracing::warn!(%from, "too many connections");
            continue;
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            if timeout(CONNECTION, server.converse(stream)).await.is_err() {
                tracing::debug!(%from, "a connection took too long");
            }
            drop(inside);
        });
    }
}

impl Server {
    /// One connection: who it is, then its one question.
    async fn converse(&self, stream: TcpStream) {
        let stream = match timeout(HANDSHAKE, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "handshake failed"),
            Err(_) => return tracing::debug!("no handshake in time"),
        };
        let (_, session) = stream.get_ref();
        let is_agent = session.peer_certificates().and_then(<[_]>::first).is_some_and(tls::is_agent);
        let service = service_fn(|request| async move {
            let answer =
                if is_agent { self.answer(request).await } else { refusal(StatusCode::FORBIDDEN, "only agents are answered") };
            Ok::<_, Infallible>(answer)
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.keep_alive(false).max_buf_size(64 * 1024);
        if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "a connection broke");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, HEALTH) => json(&Health { host: self.host.clone(), well: true, files: self.own.now() }),
            (&Method::POST, FILES) => self.files(request.into_body()).await.unwrap_or_else(|refused| refused),
            (_, HEALTH | FILES) => refusal(StatusCode::METHOD_NOT_ALLOWED, "no such method here"),
            _ => refusal(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }

    async fn files(&self, body: Incoming) -> Result<Answer, Answer> {
        let body = Limited::new(body, MOST_BYTES).collect().await;
        let body = body.map_err(|error| refusal(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()))?.to_bytes();
        let FilesAsked { paths } =
            serde_json::from_slice(&body).map_err(|error| refusal(StatusCode::BAD_REQUEST, &error.to_string()))?;
        if paths.is_empty() || paths.len() > MAX_FILES {
            return Err(refusal(StatusCode::BAD_REQUEST, &format!("ask about 1 to {MAX_FILES} files")));
        }
        match timeout(LOOK, self.looker.look(paths)).await {
            Ok(Ok(files)) => Ok(json(&FilesSeen { files })),
            Ok(Err(error)) => Err(refusal(status(&error), &error.to_string())),
            Err(_) => Err(refusal(StatusCode::GATEWAY_TIMEOUT, "the storage does not answer")),
        }
    }
}

const fn status(unseen: &Unseen) -> StatusCode {
    match unseen {
        Unseen::Relative(_) => StatusCode::BAD_REQUEST,
        Unseen::Forbidden(_) => StatusCode::FORBIDDEN,
        Unseen::Failed { .. } | Unseen::Thread(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn json(answer: &impl Serialize) -> Answer {
    match serde_json::to_vec(answer) {
        Ok(text) => plain(StatusCode::OK, "application/json", text.into()),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refusal(status: StatusCode, why: &str) -> Answer {
    plain(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(why.as_bytes()))
}

fn plain(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
