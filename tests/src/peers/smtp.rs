//! aiosmtpd as a mail server that keeps what it is given, one JSON line for each message, and can be told to refuse recipients.

use super::process::{Process, run};
use super::python_program;
use crate::eventually::eventually;
use crate::peers::certificate::Identity;
use crate::ports;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Python's start, with room for a machine that builds at the same time.
const START: Duration = Duration::from_secs(30);

/// Recipients that begin with `nobody` are refused for good, the first time those that begin with `later` are put off.
const SERVER: &str = r#"
import asyncio, email, email.policy, json, os, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
host, port, out, certificate, key, user, password = sys.argv[1:]
class Handler:
    seen = set()
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("later") and address not in self.seen:
            self.seen.add(address)
            return "451 4.7.1 come again"
        envelope.rcpt_tos.append(address)
        return "250 OK"
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        line = json.dumps({
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "tls": session.ssl is not None,
            "user": getattr(session, "who", None),
            "headers": {name: str(value) for name, value in mail.items()}, "body": mail.get_content(),
        })
        with open(out, "a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        return "250 OK"
def login(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.login == user.encode() and data.password == password.encode()
    session.who = user if good else None
    return AuthResult(success=good, handled=good)
options = {}
if certificate:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    options = {"tls_context": context, "require_starttls": True, "auth_required": True, "authenticator": login}
async def main():
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(Handler(), **options), host, int(port))
    await server.serve_forever()
asyncio.run(main())
"#;

/// A message as it came.
#[derive(Clone, Debug, Deserialize)]
pub struct Mail {
    /// Its recipients.
    pub to: Vec<String>,
    /// Whether the connection was encrypted.
    pub tls: bool,
    /// Who had logged in.
    pub user: Option<String>,
    /// Its headers.
    pub headers: std::collections::BTreeMap<String, String>,
    /// Its text.
    pub body: String,
}

impl Mail {
    /// A header; empty when there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A mail server, running or stopped; its address stays the same.
#[derive(Debug)]
pub struct Smtp {
    process: Option<Process>,
    folder: TempDir,
    address: SocketAddr,
    identity: Option<Identity>,
}

impl Smtp {
    /// The user it knows when it has a certificate, and the password.
    pub const LOGIN: (&'static str, &'static str) = ("picket", "mail-secret");

    /// A server that is not running yet: without TLS and logins.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn stopped() -> Result<Self> {
        Ok(Self { process: None, folder: TempDir::new()?, address: ports::tcp()?, identity: None })
    }

    /// With STARTTLS and a login, both needed; `identity` makes its certificate.
    ///
    /// # Errors
    /// When there is no free port, or no certificate.
    pub fn secured(identity: impl FnOnce(SocketAddr) -> Result<Identity>) -> Result<Self> {
        let server = Self::stopped()?;
        let identity = Some(identity(server.address)?);
        Ok(Self { identity, ..server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// When it is not installed or does not listen.
    pub fn start(&mut self) -> Result<()> {
        self.stop();
        let path =
            |of: fn(&Identity) -> &PathBuf| self.identity.as_ref().map(|one| of(one).display().to_string()).unwrap_or_default();
        let mut command = Command::new(python_program("alerts", "python")?);
        command.args(["-c", SERVER, &self.address.ip().to_string(), &self.address.port().to_string()]).arg(self.out());
        command.args([path(|one| &one.certificate), path(|one| &one.key)]).args([Self::LOGIN.0, Self::LOGIN.1]);
        let mut process = Process::start(&command, &self.folder.path().join("log"))?;
        let address = self.address;
        process.ready(START, || TcpStream::connect(address).context("the mail server does not listen"))?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.process = None;
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("mails")
    }

    /// All messages so far, in order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn mails(&self) -> Result<Vec<Mail>> {
        let text = if self.out().exists() { std::fs::read_to_string(self.out())? } else { String::new() };
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Waits until the messages so far satisfy `wanted`, and gives what it makes of them.
    ///
    /// # Errors
    /// The last error of `wanted`.
    pub fn wait_for<T>(&self, timeout: Duration, mut wanted: impl FnMut(&[Mail]) -> Result<T>) -> Result<T> {
        eventually(timeout, || wanted(&self.mails()?))
    }
}

/// Whether the Standard Webhooks convention's own library takes a request for genuine.
///
/// # Errors
/// With what it says against it.
pub fn verify_webhook(secret: &str, headers: &[(&str, &str)], body: &str) -> Result<()> {
    const VERIFY: &str = "
import json, sys
from standardwebhooks.webhooks import Webhook
given = json.load(sys.stdin)
Webhook(given['secret']).verify(given['body'].encode(), given['headers'])
";
    let mut command = Command::new(python_program("alerts", "python")?);
    command.args(["-c", VERIFY]);
    let headers: serde_json::Map<String, serde_json::Value> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
    let given = serde_json::json!({ "secret": secret, "headers": headers, "body": body });
    let output = run(&command, &given.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
