//! Logging in and out. A login goes on when the job that wanted it is over its deadline: a session whose name nobody learns
//! could never be deleted, and a BMC has few.

use std::sync::Arc;
use std::time::Duration;

use picket_common::id::HostId;
use picket_common::secret::Secret;

use super::failure::Failure;
use super::http::{Credentials, Line, Reply};
use super::memory::{Memory, RedfishMemory};
use crate::bmc::{Bmc, ErrorClass};
use crate::redfish::answer;
use crate::redfish::fault::{Exchange, Fault, Verdict, verdict};
use crate::redfish::link::Path;
use crate::redfish::quirks::Quirks;
use crate::redfish::request::Request;

/// The longest a login may take; afterwards the next job tries again.
const LOGIN: Duration = Duration::from_secs(60);

/// A host's memory, kept off the async threads.
#[derive(Clone)]
pub(super) struct Keeper {
    pub host: HostId,
    pub memories: Arc<dyn Memory>,
}

impl Keeper {
    pub(super) async fn load(&self) -> Result<Option<RedfishMemory>, Failure> {
        let Self { host, memories } = self.clone();
        blocking(move || memories.load(&host)).await
    }

    pub(super) async fn store(&self, memory: &RedfishMemory) -> Result<(), Failure> {
        let Self { host, memories } = self.clone();
        let memory = memory.clone();
        blocking(move || memories.store(&host, &memory)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::connection("shutting-down", "the agent is shutting down"))
}

/// A session that was made here.
pub(super) struct Session {
    pub token: Secret<String>,
    /// Where it is deleted; a few BMCs do not tell.
    pub path: Option<Path>,
}

/// How a login ended without a session.
pub(super) enum NoSession {
    /// There is no session service.
    NoService(Failure),
    /// All sessions are in use.
    UsedUp(Failure),
    /// Later, perhaps after so long.
    NotNow(Option<Duration>, Failure),
    /// For good.
    Failed(Failure),
}

impl From<Failure> for NoSession {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What a login needs.
pub(super) struct LogIn {
    pub line: Arc<Line>,
    pub bmc: Arc<Bmc>,
    pub sessions: Path,
    pub quirks: Quirks,
    pub keeper: Keeper,
    pub memory: RedfishMemory,
}

impl LogIn {
    /// Logs in once. The session is in the stored memory before it is handed out.
    pub(super) async fn run(mut self) -> Result<(Session, RedfishMemory), NoSession> {
        let request = Request::log_in(self.sessions.clone(), &self.bmc.username, self.bmc.password.expose());
        let posted = tokio::time::timeout(LOGIN, post(&self.line, request, &Credentials::None)).await;
        let reply = posted
            .map_err(|_| Failure::connection("login-timeout", format!("no answer to the login within {} s", LOGIN.as_secs())))?
            .map_err(|failure| Failure { maybe_sent: false, ..failure })?;
        let session = self.session(reply)?;
        if let Some(path) = &session.path {
            self.memory.add_session(path.as_str());
            self.keeper.store(&self.memory).await?;
        }
        Ok((session, self.memory))
    }

    fn session(&self, reply: Reply) -> Result<Session, NoSession> {
        let fault = Fault::read_of(reply.status, &reply.body);
        let secrets = [self.bmc.password.expose().as_str()];
        let failure = |class, code: String, what: &str| Failure::new(class, code, told(&secrets, what, reply.status, &fault));
        let code = format!("http-{}", reply.status);
        let used_up = fault.is_sessions_used_up(&self.quirks);
        match verdict(Exchange::LogIn, reply.status, &fault, &self.quirks) {
            Verdict::Good => {}
            Verdict::NotLoggedIn => return Err(failure(ErrorClass::Auth, "login-refused".into(), "the login was refused").into()),
            _ if used_up => {
                let what = "all sessions of the BMC are in use; close some, or set option auth=basic";
                return Err(NoSession::UsedUp(failure(ErrorClass::Refused, "sessions-used-up".into(), what)));
            }
            Verdict::NotHere => {
                return Err(NoSession::NoService(failure(ErrorClass::Setting, code, "there is no session service")));
            }
            Verdict::NotNow => {
                return Err(NoSession::NotNow(reply.retry_after, failure(ErrorClass::Refused, code, "the BMC takes no login now")));
            }
            Verdict::Failed { class, .. } => return Err(failure(class, code, "the login failed").into()),
            Verdict::NotInThisState | Verdict::OtherTag => {
                return Err(failure(ErrorClass::Refused, code, "the login failed").into());
            }
        }
        let path = reply.location.as_deref().and_then(Path::of).or_else(|| answer::own_link(&reply.body));
        let token = reply.token.ok_or_else(|| Failure::protocol("no-token", "the BMC made a session, but gave no usable token"))?;
        Ok(Session { token, path })
    }
}

/// A POST. Only a redirect to the same resource with or without its trailing slash is followed: that is one request, not two.
pub(super) async fn post(line: &Line, request: Request, who: &Credentials<'_>) -> Result<Reply, Failure> {
    let reply = line.send(&request, who).await?;
    if !matches!(reply.status, 307 | 308) {
        return Ok(reply);
    }
    let target = reply.location.as_deref().and_then(|location| Path::at(&line.origin, location));
    match target.filter(|target| target.is_same_resource(&request.path) && *target != request.path) {
        Some(path) => line.send(&Request { path, ..request }, who).await,
        None => Ok(reply),
    }
}

/// What became of a session that is remembered from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leftover {
    /// It need not be remembered any longer.
    Gone,
    /// It may still be open.
    Kept,
    /// The login was refused: another try could lock the account.
    Refused,
}

/// Deletes a session that is remembered from before, unless the BMC has given its name to somebody else since.
pub(super) async fn delete_leftover(line: &Line, bmc: &Bmc, path: Path, who: &Credentials<'_>) -> Leftover {
    if let Ok(reply) = line.send(&Request::get(path.clone()), who).await {
        let foreign = answer::session_user(&reply.body).is_some_and(|user| user != bmc.username);
        match reply.status {
            404 => return Leftover::Gone,
            200 if foreign => return Leftover::Gone,
            401 => return Leftover::Refused,
            _ => {}
        }
    }
    match line.send(&Request::log_out(path), who).await {
        Ok(reply) if matches!(reply.status, 200..300 | 404) => Leftover::Gone,
        Ok(reply) if reply.status == 401 => Leftover::Refused,
        _ => Leftover::Kept,
    }
}

/// One sentence about an HTTP answer. A BMC that echoes a password does not get it into a log.
pub(super) fn told(secrets: &[&str], what: &str, status: u16, fault: &Fault) -> String {
    let hide = |said: String, secret: &&str| if secret.is_empty() { said } else { said.replace(*secret, "…") };
    let said = secrets.iter().fold(fault.text.clone(), hide);
    if said.is_empty() { format!("{what} (HTTP {status})") } else { format!("{what} (HTTP {status}: {said})") }
}
