//! HTTP/1.1, as little as a BMC needs: requests read with limits, answers written whole. Not a general server.

use std::fmt::Write as _;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest request head.
const HEAD_LIMIT: usize = 16 * 1024;
/// Longest request body.
const BODY_LIMIT: usize = 64 * 1024;

/// A request.
#[derive(Debug, Default)]
pub(crate) struct HttpRequest {
    pub(crate) method: String,
    /// Path without query and without trailing slash.
    pub(crate) path: String,
    /// What follows the `?`.
    pub(crate) query: String,
    pub(crate) authorization: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) if_match: Option<String>,
    pub(crate) close: bool,
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct HttpReply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl HttpReply {
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { status, headers: Vec::new(), body: serde_json::to_vec(body).unwrap_or_default() }
    }

    pub(crate) const fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Status line and headers for a body of `length` bytes; `None` is chunked.
    pub(crate) fn head(&self, length: Option<u64>, close: bool) -> String {
        let mut head = String::with_capacity(256);
        let written = write!(head, "HTTP/1.1 {} {}\r\nOData-Version: 4.0\r\n", self.status, reason(self.status)).is_ok();
        debug_assert!(written, "writing to a string does not fail");
        if !self.body.is_empty() || length.is_none() {
            head.push_str("Content-Type: application/json; charset=utf-8\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        match length {
            None => head.push_str("Transfer-Encoding: chunked\r\n"),
            Some(_) if self.status == 204 => {}
            Some(length) => {
                head.push_str("Content-Length: ");
                head.push_str(&length.to_string());
                head.push_str("\r\n");
            }
        }
        if close {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        428 => "Precondition Required",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// Reads the next request from `stream`, with `buffer` holding what was read ahead. `None` at the end of the connection or
/// when what comes is not HTTP.
pub(crate) async fn read<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<HttpRequest> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if buffer.len() > HEAD_LIMIT || !more(stream, buffer).await {
            return None;
        }
    };
    let (mut request, length, expects) = head(buffer.get(..end)?)?;
    if length > BODY_LIMIT {
        return None;
    }
    let whole = end + 4 + length;
    if expects && buffer.len() < whole {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        stream.flush().await.ok()?;
    }
    while buffer.len() < whole {
        if !more(stream, buffer).await {
            return None;
        }
    }
    request.body = buffer.get(end + 4..whole)?.to_vec();
    buffer.drain(..whole);
    Some(request)
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> bool {
    buffer.reserve(4096);
    matches!(stream.read_buf(buffer).await, Ok(read) if read > 0)
}

fn head(bytes: &[u8]) -> Option<(HttpRequest, usize, bool)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target, version) = (first.next()?, first.next()?, first.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = path.trim_end_matches('/');
    let mut request = HttpRequest {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        close: version == "HTTP/1.0",
        ..HttpRequest::default()
    };
    let (mut length, mut expects) = (0, false);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("content-length") {
            length = value.parse().ok()?;
        } else if is("transfer-encoding") {
            return None;
        } else if is("authorization") {
            request.authorization = Some(value.into());
        } else if is("x-auth-token") {
            request.token = Some(value.into());
        } else if is("if-match") {
            request.if_match = Some(value.into());
        } else if is("connection") {
            request.close = value.eq_ignore_ascii_case("close");
        } else if is("expect") {
            expects = true;
        }
    }
    Some((request, length, expects))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_and_rubbish_is_not() {
        let (request, length, expects) =
            head(b"POST /redfish/v1/Systems/?$top=1 HTTP/1.1\r\nContent-Length: 5\r\nX-AUTH-token: t\r\nConnection: Close")
                .unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str(), length, expects), ("POST", "/redfish/v1/Systems", 5, false));
        assert_eq!((request.token.as_deref(), request.close), (Some("t"), true));
        for bad in [&b"\x16\x03\x01"[..], b"GET", b"GET / HTTP/1.1\r\nnonsense", b"GET / HTTP/1.1\r\nContent-Length: -1"] {
            assert!(head(bad).is_none(), "{bad:?}");
        }
    }
}
