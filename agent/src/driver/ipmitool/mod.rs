//! Driver `ipmitool`: runs the program of that name, one process for each question. For BMCs that the agent's own `ipmi`
//! driver cannot talk to, IPMI 1.5 among them; `ipmi` costs a thousandth and its readings prove more.
//!
//! The password reaches it by a private file, the BMC key by its input; neither is on its command line. Its readings never
//! prove that a host is off: within a session, ipmitool 1.8.19 takes an answer that nobody authenticated.

mod answer;
mod settings;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use picket_common::driver::Descriptor;
pub use picket_common::driver::IPMITOOL as DESCRIPTOR;
use picket_common::id::HostId;
use picket_common::secret::Secret;
use rustix::process::Signal;
use serde::Deserialize;
use tokio::runtime::Handle;

use self::answer::Asked;
use self::settings::{Interface, Settings};
use super::Completions;
use super::address::AllowedNetworks;
use super::failure::Failure;
use super::process::{Ended, PrivateFile, Runner};
use super::program::{Call, Programs, Recipe, Turn};
use crate::bmc::{Answer, Ask, Bmc};
use crate::clock;
use crate::ipmi;
use crate::ipmi::guard::Guard;
use crate::ipmi::suite::Suite;

/// Port of RMCP.
const DEFAULT_PORT: u16 = 623;
/// More than this is cut off by some versions of the program without a word.
const MAX_NEW_PASSWORD: usize = 16;

/// `[ipmitool]` of the agent's own file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The program: an absolute path, or a bare name that is looked for where the system keeps programs.
    pub path: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { path: "ipmitool".into() }
    }
}

/// The driver.
pub type Ipmitool = Programs<Tool>;

/// How `ipmitool` is run.
pub struct Tool {
    path: PathBuf,
    local_host: Option<HostId>,
    version: Mutex<Option<String>>,
    /// The suite that worked last, by host; of a BMC that is known to take one, a refusal means that its sessions are used up.
    suites: Mutex<HashMap<HostId, (u64, Suite)>>,
    /// Logins that stayed unanswered, by host.
    guards: Mutex<HashMap<HostId, Guard>>,
}

impl Ipmitool {
    /// A driver that runs `config.path` and answers into `completions`. Interface `open` serves `local_host` and no other.
    #[must_use]
    pub fn new(
        completions: Completions,
        config: Config,
        allowed: AllowedNetworks,
        local_host: Option<HostId>,
        runner: Arc<Runner>,
        handle: Handle,
    ) -> Self {
        let tool =
            Tool { path: config.path, local_host, version: Mutex::default(), suites: Mutex::default(), guards: Mutex::default() };
        Self::with(tool, runner, allowed, completions, handle)
    }
}

/// Where the BMC is.
#[derive(Clone, Copy)]
enum Where {
    Local,
    At(std::net::SocketAddr),
}

impl Recipe for Tool {
    const DESCRIPTOR: &'static Descriptor = &DESCRIPTOR;

    fn can_prove(&self, _bmc: &Bmc) -> bool {
        DESCRIPTOR.can_prove
    }

    async fn serve(&self, turn: &mut Turn<'_>) -> Result<Answer, Failure> {
        let settings = Settings::read(turn.bmc())?;
        self.check_guard(&turn.bmc().host)?;
        let place = match settings.interface {
            Interface::Open => self.local(turn.bmc())?,
            Interface::Lan | Interface::Lanplus => Where::At(turn.address(&DESCRIPTOR, DEFAULT_PORT).await?),
        };
        let version = self.version(turn).await?;
        let known = self.known_suite(turn.bmc());
        let suites: Vec<Option<Suite>> = match known {
            Some(suite) if settings.suites.contains(&suite) => vec![Some(suite)],
            _ if settings.suites.is_empty() => vec![None],
            _ => settings.suites.iter().copied().map(Some).collect(),
        };
        let mut result = Err(Failure::setting("no-common-suite", "no cipher suite is left to try"));
        for suite in suites {
            let session = Session { tool: self, settings: &settings, place, suite, version: &version };
            result = session.serve(turn).await;
            if let (Ok(_), Some(suite)) = (&result, suite) {
                self.suites().insert(turn.bmc().host.clone(), (turn.bmc().revision, suite));
            }
            if !result.as_ref().is_err_and(answer::is_suite_refusal) {
                break;
            }
        }
        self.guarded(&turn.bmc().host, result)
    }

    fn forget(&self, host: &HostId) {
        self.suites().remove(host);
        self.guards().remove(host);
    }
}

impl Tool {
    fn local(&self, bmc: &Bmc) -> Result<Where, Failure> {
        if self.local_host.as_ref() == Some(&bmc.host) {
            return Ok(Where::Local);
        }
        let text =
            "interface=open reaches the agent's own machine; name this host as local_bmc_host in the agent's own file to allow it";
        Err(Failure::setting("address-not-allowed", text))
    }

    /// What the program calls itself. Asked until it is there once, so that it may be installed while the agent runs.
    async fn version(&self, turn: &mut Turn<'_>) -> Result<String, Failure> {
        let known = self.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(version) = known {
            return Ok(version);
        }
        let ended = turn.run(self.call(vec!["-V".into()], Vec::new())).await.map_err(missing)?;
        let Some(version) = ended.out.trim().strip_prefix("ipmitool version ") else {
            let text = format!("{} is not ipmitool: it says {:?}", self.path.display(), ended.words(&[]));
            return Err(Failure::setting("ipmitool-missing", text));
        };
        let version = version.to_owned();
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version.clone());
        Ok(version)
    }

    fn call(&self, arguments: Vec<String>, files: Vec<PrivateFile>) -> Call<'_> {
        Call {
            path: &self.path,
            arguments,
            input: Secret::new(Vec::new()),
            files,
            // It closes its session when it is interrupted, and leaves it to the BMC when it is terminated.
            farewell: Signal::INT,
            carries_order: false,
            limit: None,
        }
    }

    /// No login is begun for now where two stayed unanswered.
    fn check_guard(&self, host: &HostId) -> Result<(), Failure> {
        let is_shut = self.guards().get(host).is_some_and(|guard| guard.is_shut(clock::boottime()));
        if is_shut { Err(answer::of_protocol(&ipmi::Failure::LoginsPaused)) } else { Ok(()) }
    }

    /// Counts a login that stays unanswered as refused: the second one pauses them.
    fn guarded(&self, host: &HostId, result: Result<Answer, Failure>) -> Result<Answer, Failure> {
        match &result {
            Ok(_) => drop(self.guards().remove(host)),
            Err(failure) if answer::is_refusal_by_silence(failure) => {
                self.guards().entry(host.clone()).or_default().refused(clock::boottime());
                self.check_guard(host)?;
            }
            Err(_) => {}
        }
        result
    }

    fn guards(&self) -> MutexGuard<'_, HashMap<HostId, Guard>> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suites(&self) -> MutexGuard<'_, HashMap<HostId, (u64, Suite)>> {
        self.suites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_suite(&self, bmc: &Bmc) -> Option<Suite> {
        self.suites().get(&bmc.host).filter(|(revision, _)| *revision == bmc.revision).map(|(_, suite)| *suite)
    }
}

fn missing(failure: Failure) -> Failure {
    if failure.code != "program-missing" {
        return failure;
    }
    let text = format!("{}; install the package ipmitool, or set [ipmitool] path in the agent's own file", failure.text);
    Failure { text, code: "ipmitool-missing".into(), ..failure }
}

/// One way to ask one BMC.
struct Session<'a> {
    tool: &'a Tool,
    settings: &'a Settings<'a>,
    place: Where,
    suite: Option<Suite>,
    version: &'a str,
}

impl Session<'_> {
    async fn serve(&self, turn: &mut Turn<'_>) -> Result<Answer, Failure> {
        match turn.ask() {
            Ask::Inspect => self.inspect(turn).await,
            Ask::SetPassword => self.set_password(turn).await,
            ask => {
                let ended = self.run(turn, settings::command(ask), &[], None, true).await?;
                self.judge(turn, ask, &ended, None)
            }
        }
    }

    fn judge(&self, turn: &Turn<'_>, ask: Ask, ended: &Ended, new_password: Option<&str>) -> Result<Answer, Failure> {
        let password = turn.bmc().password.expose().as_str();
        let key = self.settings.kg.as_ref().map_or(String::new(), |key| String::from_utf8_lossy(key.expose()).into_owned());
        let secrets = [password, new_password.unwrap_or_default(), &key];
        let asked = Asked {
            ask,
            interface: self.settings.interface,
            suite: self.suite,
            key_set: self.settings.kg.is_some(),
            secrets: &secrets,
        };
        answer::judge(&asked, ended)
    }

    /// Runs `ipmitool` with a command; `typed` follows what the login itself has typed in.
    async fn run(
        &self,
        turn: &mut Turn<'_>,
        command: Vec<String>,
        typed: &[u8],
        file: Option<PrivateFile>,
        carries_order: bool,
    ) -> Result<Ended, Failure> {
        let no_memory = |cause: std::io::Error| Failure::setting("no-private-file", format!("no private file: {cause}"));
        let mut files: Vec<PrivateFile> = file.into_iter().collect();
        let mut arguments = match self.place {
            Where::Local => ["-I", "open", "-v"].map(str::to_owned).to_vec(),
            Where::At(address) => {
                let password = PrivateFile::new(self.settings.password_line().expose()).map_err(no_memory)?;
                let arguments = self.settings.remote(address, &password.path(), self.suite, turn.ask());
                files.push(password);
                arguments
            }
        };
        arguments.extend(command);
        let mut call = self.tool.call(arguments, files);
        call.input = Secret::new([self.settings.typed().expose(), typed].concat());
        call.carries_order = carries_order;
        turn.run(call).await.map_err(missing)
    }

    async fn inspect(&self, turn: &mut Turn<'_>) -> Result<Answer, Failure> {
        let no_memory = |cause: std::io::Error| Failure::setting("no-private-file", format!("no private file: {cause}"));
        let script = PrivateFile::new(settings::INSPECTION).map_err(no_memory)?;
        let command = vec!["exec".to_owned(), script.path()];
        let ended = self.run(turn, command, &[], Some(script), false).await?;
        if let Some((facts, reading)) = answer::facts(self.settings, self.suite, self.version, &ended) {
            return Ok(Answer::Facts(Box::new(facts.bounded()), reading));
        }
        // Not even the power could be read: say why, as for a mere reading.
        self.judge(turn, Ask::Status, &ended, None)?;
        Err(Failure::protocol("other-output", "ipmitool did not say the power state"))
    }

    /// Finds the user's number by its exact name, then sets its password, which is typed in twice.
    async fn set_password(&self, turn: &mut Turn<'_>) -> Result<Answer, Failure> {
        let Some(new) = turn.job().new_password.as_ref() else {
            return Err(Failure::setting("no-password", "there is no new password to set"));
        };
        let new = new.expose();
        if new.is_empty() || new.len() > MAX_NEW_PASSWORD || new.chars().any(char::is_control) {
            let text = format!(
                "ipmitool sets passwords of 1 to {MAX_NEW_PASSWORD} bytes without control characters (its versions differ in what they make of more)"
            );
            return Err(Failure::setting("bad-new-password", text));
        }
        let list = ["-c", "user", "list"].map(str::to_owned).to_vec();
        let ended = self.run(turn, list, &[], None, false).await?;
        self.judge(turn, Ask::Inspect, &ended, None)?;
        let id = settings::user_id(&ended.out, &turn.bmc().username).map_err(|no| answer::of_command(&no))?;
        let typed = Secret::new(format!("{new}\n{new}\n").into_bytes());
        let command = ["user", "set", "password", &id.to_string()].map(str::to_owned).to_vec();
        let ended = self.run(turn, command, typed.expose(), None, true).await?;
        self.judge(turn, Ask::SetPassword, &ended, Some(new))
    }
}
