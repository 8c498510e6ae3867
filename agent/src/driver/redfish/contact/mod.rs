//! One BMC under one revision of its settings: from the service root to the answer, and what is kept between jobs.
//!
//! In the steady state a status is one GET. An order is a GET and a POST: the GET shows that connection and login are alive, so
//! that the POST, which is never repeated, does not meet a dead one. Between the two it is looked once more whether the host is
//! still this agent's. What is rarer than power is in the files beside: changes by PATCH, accounts, facts.

mod account;
mod change;
mod facts;

use std::sync::Arc;
use std::time::Duration;

use picket_common::secret::Secret;
use tokio::task::JoinHandle;

use super::Shared;
use super::failure::{Failure, Progress};
use super::http::{Credentials, Line, Reply};
use super::login::{self, Keeper, Leftover, LogIn, NoSession, Session, told};
use super::memory::{RedfishMemory, RememberedSystem};
use super::settings::{Auth, Named, Settings, Trust};
use super::tls::Peer;
use crate::bmc::{Answer, Ask, Bmc, ErrorClass, Job, PowerReply, Reading};
use crate::clock;
use crate::redfish::answer::{self, Collection, ResetAction, Root, System};
use crate::redfish::fault::{Exchange, Fault, Verdict, verdict};
use crate::redfish::link::Path;
use crate::redfish::power;
use crate::redfish::quirks::{self, Machine, Quirks};
use crate::redfish::request::Request;

/// The most redirects of one GET that are followed, all on the same host.
const MAX_HOPS: u8 = 2;

/// The most pages of the collection of systems that are read.
const MAX_PAGES: u8 = 8;

/// The most times that one job waits for a BMC that says "not now".
const MAX_WAITS: u8 = 3;

/// Time kept for the answer when a job waits for a BMC.
const WAIT_MARGIN: Duration = Duration::from_millis(500);

/// The most time spent on deleting sessions of an earlier run.
const TIDY: Duration = Duration::from_secs(3);

/// The most time spent on closing a session before another one is made.
const LEAVE: Duration = Duration::from_secs(2);

/// Why an attempt did not end in an answer.
enum Trouble {
    Failed(Failure),
    /// The session is over; the failure tells if there will be no other.
    LoggedOut(Failure),
    /// The BMC wants to be left alone so long.
    NotNow(Option<Duration>, Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

enum Login {
    None,
    Basic { only_now: bool },
    Session(Session),
}

/// See the module.
pub(super) struct Contact {
    pub revision: u64,
    bmc: Arc<Bmc>,
    settings: Settings,
    line: Arc<Line>,
    keeper: Keeper,
    memory: RedfishMemory,
    root: Option<Root>,
    quirks: Quirks,
    login: Login,
    pending: Option<JoinHandle<Result<(Session, RedfishMemory), NoSession>>>,
    /// A login was made during the present job: no other will be.
    logged_in_now: bool,
    /// The kept session was closed for the present job.
    left_now: bool,
    /// The password that the present job sets: not to be shown, whoever echoes it.
    new_password: Option<Secret<String>>,
    /// How the last PATCH had to be tagged, when that was not the standard's way.
    etag_quirk: Option<&'static str>,
    /// Sessions of an earlier run have been dealt with.
    tidied: bool,
    system: Option<Path>,
    /// The remembered path led nowhere.
    relist: bool,
    members: Vec<Path>,
    reset: Option<ResetAction>,
    info: Option<(Path, Option<Vec<String>>)>,
}

impl Contact {
    pub(super) async fn open(shared: &Shared, bmc: &Arc<Bmc>) -> Result<Self, Failure> {
        let settings = Settings::read(bmc)?;
        let keeper = Keeper { host: bmc.host.clone(), memories: Arc::clone(&shared.memories) };
        let address = settings.origin.to_string();
        let memory = keeper.load().await?;
        if let Some(memory) = memory.as_ref().filter(|memory| memory.version != RedfishMemory::VERSION) {
            let text = format!(
                "what is remembered of this BMC has the unknown version {}; its pinned certificate cannot be checked",
                memory.version
            );
            return Err(Failure::setting("memory-version", text));
        }
        let memory = memory.filter(|memory| memory.address == address).unwrap_or_else(|| RedfishMemory::new(address));
        if settings.trust == Trust::Insecure {
            tracing::warn!(host = %bmc.host, address = %settings.origin, scheme = settings.scheme, "certificate is not checked: tls=insecure");
        }
        let peer = Peer::new(Arc::clone(bmc), settings.port, settings.trust, memory.pin);
        let line = Line::new(shared.client.clone(), Arc::clone(&shared.peers), shared.next_name(), peer, &settings);
        Ok(Self {
            revision: bmc.revision,
            bmc: Arc::clone(bmc),
            settings,
            line: Arc::new(line),
            keeper,
            memory,
            root: None,
            quirks: quirks::of(&Machine::default()),
            login: Login::None,
            pending: None,
            logged_in_now: false,
            left_now: false,
            new_password: None,
            etag_quirk: None,
            tidied: false,
            system: None,
            relist: false,
            members: Vec::new(),
            reset: None,
            info: None,
        })
    }

    /// Does what is asked; `ends` is the job's deadline (boottime).
    pub(super) async fn ask(&mut self, job: &Job, ends: Duration, progress: &Progress) -> Result<Answer, Failure> {
        self.logged_in_now = false;
        self.left_now = false;
        self.new_password.clone_from(&job.new_password);
        let result = self.attempts(job.ask, ends, progress).await;
        self.new_password = None;
        result
    }

    async fn attempts(&mut self, ask: Ask, ends: Duration, progress: &Progress) -> Result<Answer, Failure> {
        if matches!(self.login, Login::Basic { only_now: true }) {
            self.login = Login::None;
        }
        let mut waits = 0;
        loop {
            match self.attempt(ask, progress).await {
                Ok(answer) => {
                    let spare = ends.saturating_sub(clock::boottime()) / 2;
                    self.tidy(spare.min(TIDY)).await;
                    return Ok(answer);
                }
                Err(Trouble::Failed(failure)) => return Err(failure),
                Err(Trouble::LoggedOut(failure)) => {
                    let Login::Session(dead) = std::mem::replace(&mut self.login, Login::None) else { return Err(failure) };
                    self.memory.sessions.retain(|known| dead.path.as_ref().is_none_or(|dead| dead.as_str() != known));
                    if self.logged_in_now {
                        return Err(failure);
                    }
                }
                Err(Trouble::NotNow(Some(wait), _)) if waits < MAX_WAITS && clock::boottime() + wait + WAIT_MARGIN < ends => {
                    waits += 1;
                    tokio::time::sleep(wait).await;
                }
                Err(Trouble::NotNow(_, failure)) => return Err(failure),
            }
        }
    }

    async fn attempt(&mut self, ask: Ask, progress: &Progress) -> Result<Answer, Trouble> {
        if matches!(ask, Ask::Inspect | Ask::TryLogin) && !std::mem::replace(&mut self.left_now, true) {
            self.leave().await;
        }
        self.reach(progress).await?;
        self.log_in(ask, progress).await?;
        match ask {
            Ask::TryLogin => return self.prove_login(progress).await,
            Ask::SetPassword => return self.set_password(progress).await,
            _ => self.find_system(progress).await?,
        }
        match ask {
            Ask::Inspect => self.inspect(progress).await,
            Ask::Identify { seconds } => self.identify(seconds > 0, progress).await,
            Ask::Bootdev { device, persistence } => self.set_boot_device(device, persistence, progress).await,
            Ask::On | Ask::Off | Ask::Soft | Ask::Reset | Ask::Diag => self.order(ask, progress).await,
            Ask::Status | Ask::TryLogin | Ask::SetPassword => self.status(progress).await,
        }
    }

    /// Ends the session, so that the next login is a new one; as far as that can be done shortly.
    async fn leave(&mut self) {
        let Login::Session(session) = std::mem::replace(&mut self.login, Login::None) else { return };
        let Some(path) = session.path else { return };
        let who = Credentials::Token(&session.token);
        let deleted = tokio::time::timeout(LEAVE, self.line.send(&Request::log_out(path.clone()), &who)).await;
        // A session that is over already (401, 404) need not be remembered either.
        if deleted.is_ok_and(|reply| reply.is_ok_and(|reply| matches!(reply.status, 200..300 | 401 | 404))) {
            self.memory.sessions.retain(|known| known != path.as_str());
            if let Err(failure) = self.keeper.store(&self.memory).await {
                tracing::debug!(host = %self.bmc.host, failure.text, "memory not stored");
            }
        }
    }

    /// Logging in proved the password, where a session was made; basic authentication proves it by the first request.
    async fn prove_login(&mut self, progress: &Progress) -> Result<Answer, Trouble> {
        if !matches!(self.login, Login::Session(_)) {
            self.list(progress).await?;
        }
        Ok(Answer::Done)
    }

    /// One sentence about an HTTP answer, without any password in it.
    fn told(&self, what: &str, status: u16, fault: &Fault) -> String {
        let new = self.new_password.as_ref().map(|new| new.expose().as_str());
        told(&[self.bmc.password.expose(), new.unwrap_or_default()], what, status, fault)
    }

    /// The first contact: TLS, pin, service root. No credentials go out before this.
    async fn reach(&mut self, progress: &Progress) -> Result<(), Trouble> {
        if self.root.is_some() {
            return Ok(());
        }
        let step = "reading the service root";
        let (_, mut reply) = self.get(Path::service_root(), &Credentials::None, step, progress).await?;
        if let Some(pin) = self.line.peer.pin_seen() {
            tracing::info!(host = %self.bmc.host, address = %self.line.origin, pin = hex::encode(pin), "certificate pinned at first use");
            self.memory.pin = Some(pin);
            self.keeper.store(&self.memory).await?;
        }
        if reply.status == 401 && self.settings.auth != Auth::Session {
            // Against DSP0266 §13.3.1, some want a login even for the root.
            (_, reply) = self.get(Path::service_root(), &Credentials::Basic(&self.bmc), step, progress).await?;
        }
        if matches!(reply.status, 404 | 501) {
            return Err(Failure::protocol("no-redfish", "there is no Redfish service at this address").into());
        }
        self.expect_good(&reply, step)?;
        let root = Root::read(&reply.body, &self.line.origin).map_err(|error| bad_answer(&error))?;
        self.quirks = quirks::of(&root.machine);
        self.root = Some(root);
        Ok(())
    }

    async fn log_in(&mut self, ask: Ask, progress: &Progress) -> Result<(), Trouble> {
        if !matches!(self.login, Login::None) {
            return Ok(());
        }
        let sessions = self.root.as_ref().and_then(|root| root.sessions.clone());
        match (self.settings.auth, sessions) {
            (Auth::Auto | Auth::Session, Some(sessions)) => self.make_session(sessions, ask, progress).await,
            (Auth::Session, None) => {
                Err(Failure::setting("no-session-service", "the BMC has no session service; set option auth to auto or basic")
                    .into())
            }
            (Auth::Basic, _) | (Auth::Auto, None) => {
                self.login = Login::Basic { only_now: false };
                Ok(())
            }
        }
    }

    async fn make_session(&mut self, sessions: Path, ask: Ask, progress: &Progress) -> Result<(), Trouble> {
        progress.begin("logging in");
        let pending = self.pending.get_or_insert_with(|| {
            let log_in = LogIn {
                line: Arc::clone(&self.line),
                bmc: Arc::clone(&self.bmc),
                sessions,
                quirks: self.quirks,
                keeper: self.keeper.clone(),
                memory: self.memory.clone(),
            };
            tokio::spawn(log_in.run())
        });
        let ended = pending.await;
        self.pending = None;
        self.logged_in_now = true;
        let ended = ended.map_err(|_| Failure::connection("login-lost", "the login was broken off"))?;
        match ended {
            Ok((session, memory)) => {
                self.memory = memory;
                self.login = Login::Session(session);
                Ok(())
            }
            Err(NoSession::NoService(_)) if self.settings.auth == Auth::Auto => {
                self.login = Login::Basic { only_now: false };
                Ok(())
            }
            Err(NoSession::UsedUp(failure)) => self.without_session(ask, failure).await,
            Err(NoSession::NotNow(wait, failure)) => Err(Trouble::NotNow(wait, failure)),
            Err(NoSession::NoService(failure) | NoSession::Failed(failure)) => Err(failure.into()),
        }
    }

    /// All sessions are in use: perhaps by those of our earlier run; and an order may do without.
    async fn without_session(&mut self, ask: Ask, failure: Failure) -> Result<(), Trouble> {
        if self.settings.auth == Auth::Session {
            return Err(failure.into());
        }
        if !self.tidied && !self.memory.sessions.is_empty() {
            self.login = Login::Basic { only_now: true };
            let tidied = self.tidy(TIDY).await;
            self.login = Login::None;
            if tidied == Leftover::Refused {
                let text = "the BMC has no free session and refused basic authentication";
                return Err(Failure::new(ErrorClass::Auth, "login-refused", text).into());
            }
            return Err(Trouble::NotNow(Some(Duration::ZERO), failure));
        }
        if ask == Ask::Status {
            return Err(failure.into());
        }
        self.login = Login::Basic { only_now: true };
        Ok(())
    }

    /// Deletes the sessions that an earlier run left behind, once, as far as it can be done within `limit`. Tells whether a
    /// login was refused on the way.
    async fn tidy(&mut self, limit: Duration) -> Leftover {
        if std::mem::replace(&mut self.tidied, true) {
            return Leftover::Gone;
        }
        let own = match &self.login {
            Login::Session(session) => session.path.as_ref().map(Path::as_str),
            Login::Basic { .. } | Login::None => None,
        };
        let leftovers: Vec<Path> =
            self.memory.sessions.iter().filter(|path| Some(path.as_str()) != own).filter_map(|path| Path::parse(path)).collect();
        let mut gone = Vec::new();
        let mut last = Leftover::Gone;
        let deleting = async {
            for path in leftovers {
                last = login::delete_leftover(&self.line, &self.bmc, path.clone(), &self.who()).await;
                // One refusal is enough: each further try could be one more refused login.
                if last != Leftover::Gone {
                    break;
                }
                gone.push(path);
            }
        };
        let in_time = tokio::time::timeout(limit, deleting).await.is_ok();
        tracing::debug!(host = %self.bmc.host, deleted = gone.len(), in_time, "sessions of an earlier run");
        if !gone.is_empty() {
            self.memory.sessions.retain(|session| !gone.iter().any(|path| path.as_str() == session));
            if let Err(failure) = self.keeper.store(&self.memory).await {
                tracing::debug!(host = %self.bmc.host, %failure.text, "memory not stored");
            }
        }
        last
    }

    fn who(&self) -> Credentials<'_> {
        match &self.login {
            Login::None => Credentials::None,
            Login::Basic { .. } => Credentials::Basic(&self.bmc),
            Login::Session(session) => Credentials::Token(&session.token),
        }
    }

    async fn find_system(&mut self, progress: &Progress) -> Result<(), Trouble> {
        if self.system.is_some() {
            return Ok(());
        }
        let remembered = self.remembered().filter(|_| !self.relist).and_then(|system| Path::parse(&system.path));
        let system = match (remembered, self.settings.system.clone()) {
            (Some(path), _) | (None, Named::Path(path)) => path,
            (None, Named::Only) => {
                self.list(progress).await?;
                self.only_member()?
            }
            (None, Named::Id(id)) => {
                let systems = self.list(progress).await?;
                // Some know a system by a name, too, and redirect to its path (sushy-tools).
                self.members.iter().find(|member| member.last_segment() == id).cloned().unwrap_or_else(|| systems.child(&id))
            }
        };
        self.system = Some(system);
        Ok(())
    }

    /// Reads the members; returns the collection's path.
    async fn list(&mut self, progress: &Progress) -> Result<Path, Trouble> {
        let Some(systems) = self.root.as_ref().map(|root| root.systems.clone()) else {
            return Err(Failure::protocol("no-redfish", "no service root").into());
        };
        let mut members = Vec::new();
        let mut next = Some(systems.clone());
        for _ in 0..MAX_PAGES {
            let Some(page) = next.take() else { break };
            let step = "listing the systems";
            let (_, reply) = self.get(page, &self.who(), step, progress).await?;
            self.expect_good(&reply, step)?;
            let page = Collection::read(&reply.body, &self.line.origin).map_err(|error| bad_answer(&error))?;
            members.extend(page.members);
            next = page.next;
        }
        members.sort();
        members.dedup();
        self.members = members;
        Ok(systems)
    }

    fn only_member(&self) -> Result<Path, Failure> {
        match self.members.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(Failure::new(ErrorClass::Refused, "no-system", "the BMC lists no system (it may still be starting)")),
            _ => Err(Failure::setting(
                "several-systems",
                format!("the BMC has several systems; set option system to one of {}", self.member_names()),
            )),
        }
    }

    fn member_names(&self) -> String {
        let names: Vec<&str> = self.members.iter().take(32).map(Path::as_str).collect();
        names.join(", ")
    }

    fn remembered(&self) -> Option<&RememberedSystem> {
        self.memory.system.as_ref().filter(|system| system.named == self.settings.named())
    }

    async fn status(&mut self, progress: &Progress) -> Result<Answer, Trouble> {
        let (system, _) = self.read_system(progress).await?;
        Ok(Answer::Reading(reading(&system)?))
    }

    async fn read_system(&mut self, progress: &Progress) -> Result<(System, Reply), Trouble> {
        let Some(path) = self.system.clone() else {
            return Err(Failure::protocol("no-system", "no system was found").into());
        };
        let step = "reading the system";
        let (path, reply) = self.get(path, &self.who(), step, progress).await?;
        if reply.status == 404 {
            return Err(self.system_not_there(&path).into());
        }
        self.expect_good(&reply, step)?;
        let system = System::read(&reply.body, &self.line.origin, &path).map_err(|error| bad_answer(&error))?;
        self.recognise(path, &system).await?;
        self.reset.clone_from(&system.reset);
        Ok((system, reply))
    }

    fn system_not_there(&mut self, path: &Path) -> Failure {
        let remembered = self.remembered().is_some();
        self.system = None;
        self.relist = true;
        if self.settings.system == Named::Only || (remembered && !self.settings.named().starts_with('/')) {
            return Failure::new(
                ErrorClass::Refused,
                "http-404",
                format!("the system {path} is no longer there; the systems will be listed again"),
            );
        }
        let there = if self.members.is_empty() { String::new() } else { format!("; there are {}", self.member_names()) };
        Failure::setting("no-such-system", format!("option system={:?}: the BMC has no such system{there}", self.settings.named()))
    }

    /// The host must still be the one that was chosen first; what is new about it is remembered.
    async fn recognise(&mut self, path: Path, system: &System) -> Result<(), Failure> {
        let known = self.remembered().and_then(|system| system.uuid.clone());
        if let (Some(known), Some(shown)) = (&known, &system.uuid)
            && known != shown
        {
            let text = format!(
                "the system {path} has the UUID {shown}, but {known} was chosen; if the machine was replaced on purpose, name it anew with option system"
            );
            self.system = None;
            return Err(Failure::setting("system-changed", text));
        }
        let now = RememberedSystem {
            named: self.settings.named().to_owned(),
            path: path.as_str().to_owned(),
            uuid: system.uuid.clone().or(known),
        };
        if self.memory.system.as_ref() != Some(&now) {
            self.memory.system = Some(now);
            self.keeper.store(&self.memory).await?;
        }
        self.system = Some(path);
        self.relist = false;
        Ok(())
    }

    async fn order(&mut self, ask: Ask, progress: &Progress) -> Result<Answer, Trouble> {
        match self.read_system(progress).await {
            Ok(_) => {}
            // A BMC that cannot show the system now may still switch it: where to post is known.
            Err(Trouble::Failed(failure))
                if self.reset.is_some() && matches!(failure.class, ErrorClass::Refused | ErrorClass::Protocol) =>
            {
                tracing::info!(host = %self.bmc.host, code = failure.code, text = failure.text, "system unreadable before an order");
            }
            Err(trouble) => return Err(trouble),
        }
        let Some(action) = self.reset.clone() else {
            return Err(
                Failure::new(ErrorClass::Refused, "no-reset-action", "the system has no ComputerSystem.Reset action").into()
            );
        };
        let allowed = match (action.allowed, action.info) {
            (None, Some(info)) => self.action_info(info, progress).await?,
            (allowed, _) => allowed,
        };
        let reset_type = power::reset_type(ask, allowed.as_deref()).map_err(|error| match ask {
            Ask::Diag => Failure::not_supported(error.to_string()),
            _ => Failure::new(ErrorClass::Refused, "reset-type-not-offered", error.to_string()),
        })?;
        self.post_reset(ask, Request::reset(action.target, reset_type), reset_type, progress).await
    }

    /// The reset types of an `ActionInfo`, read once.
    async fn action_info(&mut self, path: Path, progress: &Progress) -> Result<Option<Vec<String>>, Trouble> {
        if let Some((_, allowed)) = self.info.as_ref().filter(|(known, _)| *known == path) {
            return Ok(allowed.clone());
        }
        let step = "reading the allowed reset types";
        let (_, reply) = self.get(path.clone(), &self.who(), step, progress).await?;
        self.expect_good(&reply, step)?;
        let allowed = answer::allowed_by_info(&reply.body).map_err(|error| bad_answer(&error))?;
        self.info = Some((path, allowed.clone()));
        Ok(allowed)
    }

    async fn post_reset(&self, ask: Ask, request: Request, reset_type: &str, progress: &Progress) -> Result<Answer, Trouble> {
        progress.begin("waiting for the answer to the order");
        progress.still_wanted()?;
        progress.set_order_out(true);
        let posted = login::post(&self.line, request, &self.who()).await;
        progress.set_order_out(false);
        let reply = posted?;
        let fault = Fault::read_of(reply.status, &reply.body);
        let told = self.told(&format!("ResetType {reset_type}"), reply.status, &fault);
        let code = format!("http-{}", reply.status);
        match verdict(Exchange::Order, reply.status, &fault, &self.quirks) {
            Verdict::Good => Ok(Answer::Power(PowerReply::Accepted)),
            Verdict::NotInThisState => {
                tracing::info!(host = %self.bmc.host, code, text = told, "order refused in this state");
                Ok(Answer::Power(PowerReply::NotInThisState))
            }
            Verdict::NotLoggedIn => Err(Trouble::LoggedOut(Failure::new(ErrorClass::Auth, "login-refused", told))),
            Verdict::NotNow => {
                let wait = reply.retry_after.filter(|_| ask.is_idempotent());
                Err(Trouble::NotNow(wait, Failure::new(ErrorClass::Refused, code, told)))
            }
            Verdict::NotHere | Verdict::OtherTag => Err(Failure::new(ErrorClass::Refused, code, told).into()),
            Verdict::Failed { class, maybe_done } => {
                Err(Failure { maybe_sent: maybe_done, ..Failure::new(class, code, told) }.into())
            }
        }
    }

    /// A GET: redirects on the same host are followed, and a connection that broke is opened anew once.
    async fn get(
        &self,
        path: Path,
        who: &Credentials<'_>,
        step: &'static str,
        progress: &Progress,
    ) -> Result<(Path, Reply), Failure> {
        let mut path = path;
        let mut hops = 0;
        let mut again = true;
        loop {
            progress.begin(step);
            let reply = match self.line.send(&Request::get(path.clone()), who).await {
                Err(failure) if again && failure.code == "connection-lost" => {
                    again = false;
                    continue;
                }
                Ok(reply) if again && reply.status == 406 => {
                    again = false;
                    continue;
                }
                other => other.map_err(|failure| Failure { maybe_sent: false, ..failure })?,
            };
            if !matches!(reply.status, 301 | 302 | 307 | 308) {
                return Ok((path, reply));
            }
            let location = reply.location.as_deref().unwrap_or_default();
            path = Path::at(&self.line.origin, location).filter(|_| hops < MAX_HOPS).ok_or_else(|| {
                let location: String = location.chars().filter(|c| !c.is_control()).take(120).collect();
                Failure::protocol(
                    "redirect-refused",
                    format!("{step}: the BMC redirects to {location:?}; only its own paths are followed"),
                )
            })?;
            hops += 1;
        }
    }

    /// Whether a GET got what it wanted.
    fn expect_good(&self, reply: &Reply, step: &str) -> Result<(), Trouble> {
        let fault = Fault::read_of(reply.status, &reply.body);
        let told = self.told(step, reply.status, &fault);
        let code = format!("http-{}", reply.status);
        if fault.change_first.is_some() {
            let text = format!("{told}; nothing else is served before the login's password is changed");
            return Err(Failure::setting("password-change-required", text).into());
        }
        match verdict(Exchange::Read, reply.status, &fault, &self.quirks) {
            Verdict::Good => Ok(()),
            Verdict::NotLoggedIn => Err(Trouble::LoggedOut(Failure::new(ErrorClass::Auth, "login-refused", told))),
            // With basic authentication, some say 403 for a wrong password: counting it as one keeps the account from being locked.
            Verdict::Failed { .. }
                if reply.status == 403 && matches!(self.login, Login::Basic { .. }) && !fault.is_about_rights() =>
            {
                Err(Failure::new(ErrorClass::Auth, "login-refused", told).into())
            }
            Verdict::NotNow => Err(Trouble::NotNow(reply.retry_after, Failure::new(ErrorClass::Refused, code, told))),
            Verdict::NotHere | Verdict::NotInThisState | Verdict::OtherTag => {
                Err(Failure::new(ErrorClass::Refused, code, told).into())
            }
            Verdict::Failed { class, .. } => Err(Failure::new(class, code, told).into()),
        }
    }

    /// Ends the contact politely: the session is deleted and the connection closed, as far as it can be done within `limit`.
    pub(super) async fn end(mut self, limit: Duration) {
        let ending = async {
            if let Some(pending) = self.pending.take()
                && let Ok(Ok((session, memory))) = pending.await
            {
                self.memory = memory;
                self.login = Login::Session(session);
            }
            let Login::Session(session) = &self.login else { return };
            let Some(path) = &session.path else { return };
            let deleted = self.line.send_last(&Request::log_out(path.clone()), &Credentials::Token(&session.token)).await;
            if deleted.is_ok() {
                self.memory.sessions.retain(|known| known != path.as_str());
                if let Err(failure) = self.keeper.store(&self.memory).await {
                    tracing::debug!(host = %self.bmc.host, failure.text, "memory not stored");
                }
            }
        };
        if tokio::time::timeout(limit, ending).await.is_err() {
            tracing::debug!(host = %self.bmc.host, address = %self.line.origin, "session not deleted in time");
        }
    }
}

fn reading(system: &System) -> Result<Reading, Failure> {
    power::reading(system.power_state.as_deref()).map_err(|error| {
        let code = if system.power_state.is_none() { "no-power-state" } else { "unknown-power-state" };
        Failure::protocol(code, error.to_string())
    })
}

fn bad_answer(error: &answer::AnswerError) -> Failure {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::protocol("bad-answer", format!("{error}{cause}"))
}
