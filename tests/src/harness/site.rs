//! One site: an aggregator, its admin's `picketctl`, and the agents that join it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::{Agent, program};
use crate::eventually::eventually;
use crate::peers::process::{Process, run};
use crate::ports;

/// Far above what any start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A site; all its processes are killed when it is dropped.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
    aggregator: Option<Process>,
    api: String,
    mqtt: String,
}

/// What a program said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// Its standard output as JSON.
    ///
    /// # Errors
    /// When it is not JSON; quotes both outputs.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {self:?}"))
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Site {
    /// Makes a site and starts its aggregator, with 1 s polls.
    ///
    /// # Errors
    /// When anything does not start.
    pub fn start() -> Result<Self> {
        Self::start_with("[oobm]\nsync_interval = 1\naction_timeout = 30\n")
    }

    /// The same with other settings below the listeners'.
    ///
    /// # Errors
    /// When anything does not start.
    pub fn start_with(settings: &str) -> Result<Self> {
        // Both listeners on one address, for one name is advertised; it is this test's own, so any two ports are free.
        let api = ports::tcp()?;
        let mqtt = SocketAddr::new(api.ip(), if api.port() == 8883 { 8884 } else { 8883 });
        let (api, mqtt) = (api.to_string(), mqtt.to_string());
        let folder = tempfile::tempdir()?;
        let mut site = Self { folder, aggregator: None, api, mqtt };
        site.write_settings(settings)?;
        let mut init = site.aggregator_command()?;
        init.arg("init").arg("--token-file").arg(site.token_file()).arg("--recovery-key-file").arg(site.path("recovery.key"));
        let output = run(&init, "")?;
        ensure!(output.status.success(), "init: {}", String::from_utf8_lossy(&output.stderr));
        site.start_aggregator()?;
        Ok(site)
    }

    fn write_settings(&self, settings: &str) -> Result<()> {
        let Self { api, mqtt, .. } = self;
        let host = api.rsplit_once(':').context("no port")?.0;
        let listeners = format!("listen = \"{api}\"\nmqtt_listen = \"{mqtt}\"\nadvertise = \"{host}\"\n");
        let text = format!("site = \"test\"\nlog = \"info,picket_aggregator=debug\"\n{listeners}{settings}");
        Ok(std::fs::write(self.path("aggregator.toml"), text)?)
    }

    /// Puts other settings below the listeners' and has the running aggregator read them again (SIGHUP).
    ///
    /// # Errors
    /// When there is no aggregator.
    pub fn reload(&mut self, settings: &str) -> Result<()> {
        self.write_settings(settings)?;
        self.aggregator.as_mut().context("no aggregator")?.signal(Signal::HUP)
    }

    fn aggregator_command(&self) -> Result<Command> {
        let mut command = Command::new(program("picket-aggregator")?);
        command.arg("--config").arg(self.path("aggregator.toml")).arg("--state-dir").arg(self.path("aggregator"));
        Ok(command)
    }

    /// Starts the aggregator, or starts it again, and waits until it answers.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_aggregator(&mut self) -> Result<()> {
        let mut command = self.aggregator_command()?;
        command.arg("run");
        let mut process = Process::start(&command, &self.path("aggregator.log"))?;
        process.ready(PATIENCE, || {
            let answer = self.ctl(&["-o", "json", "summary"])?;
            ensure!(answer.code == 0, "{answer:?}");
            Ok(())
        })?;
        self.aggregator = Some(process);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill_aggregator(&mut self) {
        if let Some(mut process) = self.aggregator.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop_aggregator(&mut self) -> Result<()> {
        self.aggregator.take().context("no aggregator")?.terminate(Duration::from_secs(20))?;
        Ok(())
    }

    /// Process id of the aggregator while it runs.
    #[must_use]
    pub fn aggregator_pid(&self) -> Option<u32> {
        self.aggregator.as_ref().map(Process::id)
    }

    /// A path in the site's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// File with the admin's token.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.path("admin.token")
    }

    /// File with the site's CA certificate.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.path("aggregator/pki/ca.pem")
    }

    /// `https://…` of the API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.api)
    }

    /// `host:port` of the gate.
    #[must_use]
    pub fn mqtt(&self) -> &str {
        &self.mqtt
    }

    /// All the aggregator ever logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.path("aggregator.log"))?)
    }

    /// `picketctl` as this site's admin, to be given arguments.
    ///
    /// # Errors
    /// When it was not built.
    pub fn ctl_command(&self) -> Result<Command> {
        let mut command = Command::new(program("picketctl")?);
        command.env("PICKET_CONFIG_DIR", self.path("ctl")).env("NO_COLOR", "1");
        command.arg("--url").arg(self.url()).arg("--ca").arg(self.ca_file()).arg("--token-file").arg(self.token_file());
        Ok(command)
    }

    /// Runs `picketctl`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Answer> {
        self.ctl_with(arguments, "")
    }

    /// Runs `picketctl` with something on its standard input.
    ///
    /// # Errors
    /// When it does not start.
    pub fn ctl_with(&self, arguments: &[&str], input: &str) -> Result<Answer> {
        let mut command = self.ctl_command()?;
        command.args(arguments);
        Ok(run(&command, input)?.into())
    }

    /// Runs `picketctl` on a terminal of its own, on which `typed` is typed; standard output and error are both what it shows.
    ///
    /// # Errors
    /// When `script` (util-linux) is not there.
    pub fn ctl_on_terminal(&self, arguments: &[&str], typed: &str) -> Result<Answer> {
        let mut ctl = self.ctl_command()?;
        ctl.args(arguments);
        let words = std::iter::once(ctl.get_program()).chain(ctl.get_args()).map(|word| quoted(&word.to_string_lossy()));
        let line = words.collect::<Vec<_>>().join(" ");
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--return", "--flush", "--command"])
            .arg(format!("stty cols 160 rows 50; exec {line}"))
            .arg("/dev/null");
        script.envs(ctl.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
        Ok(run(&script, typed)?.into())
    }

    /// Runs `picketctl -o json`, which has to succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let answer = self.ctl(&[&["-o", "json"], arguments].concat())?;
        ensure!(answer.code == 0, "picketctl {arguments:?}: {answer:?}");
        answer.json()
    }

    /// Calls the API with `picketctl api`; gives the body, also of a problem.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut arguments = vec!["-o", "json", "api", method, path];
        if body.is_some() {
            arguments.extend(["--data", "-"]);
        }
        let answer = self.ctl_with(&arguments, &body.map(Value::to_string).unwrap_or_default())?;
        if answer.out.trim().is_empty() { Ok(Value::String(answer.err)) } else { answer.json() }
    }

    /// Makes a zone, a cluster and a rack that lies in it.
    ///
    /// # Errors
    /// When the aggregator says no.
    pub fn place(&self, zone: &str, cluster: &str, rack: &str) -> Result<()> {
        for (kind, id, body) in [
            ("zones", zone, serde_json::json!({})),
            ("clusters", cluster, serde_json::json!({ "zone": zone })),
            ("racks", rack, serde_json::json!({ "zone": zone })),
        ] {
            let answer = self.api("PUT", &format!("/v1/{kind}/{id}"), Some(&body))?;
            ensure!(answer.get("id").is_some_and(|found| found == id), "{kind}/{id}: {answer}");
        }
        Ok(())
    }

    /// A new agent for `rack`, joined and started.
    ///
    /// # Errors
    /// When it cannot join or start.
    pub fn join(&self, rack: &str) -> Result<Agent> {
        self.join_as(rack, rack)
    }

    /// The same under a name that is not the rack's.
    ///
    /// # Errors
    /// When it cannot join or start.
    pub fn join_as(&self, rack: &str, agent: &str) -> Result<Agent> {
        self.join_with(rack, agent, "")
    }

    /// The same with more in its `agent.toml`.
    ///
    /// # Errors
    /// When it cannot join or start.
    pub fn join_with(&self, rack: &str, agent: &str, settings: &str) -> Result<Agent> {
        let token = self.json(&["agents", "token", "--rack", rack, "--agent", agent])?;
        let token = token.get("token").and_then(Value::as_str).context("no token")?;
        Agent::join(agent, &self.path(&format!("agent-{agent}")), token, settings)
    }

    /// The witness of `host`, joined and started; `settings` are those of its section.
    ///
    /// # Errors
    /// When it cannot join or start.
    pub fn witness(&self, host: &str, settings: &str) -> Result<Agent> {
        let token = self.json(&["agents", "token", "--host", host])?;
        let token = token.get("token").and_then(Value::as_str).context("no token")?;
        Agent::join(host, &self.path(&format!("witness-{host}")), token, &format!("[witness]\n{settings}"))
    }

    /// Imports hosts, one JSON object each, as `hosts import` takes them.
    ///
    /// # Errors
    /// When one is refused.
    pub fn import(&self, hosts: &[Value]) -> Result<()> {
        let lines: Vec<String> = hosts.iter().map(Value::to_string).collect();
        let answer = self.ctl_with(&["hosts", "import", "-"], &lines.join("\n"))?;
        ensure!(answer.code == 0, "import: {answer:?}");
        Ok(())
    }

    /// A host as the API shows it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn host(&self, host: &str) -> Result<Value> {
        self.json(&["hosts", "show", host])
    }

    /// Waits until a host's field has a value.
    ///
    /// # Errors
    /// When it does not within the time; shows the host.
    pub fn until(&self, host: &str, field: &str, wanted: &str, timeout: Duration) -> Result<()> {
        eventually(timeout, || {
            let shown = self.host(host)?;
            if shown.get(field).and_then(Value::as_str) == Some(wanted) {
                return Ok(());
            }
            bail!("{host}: {field} is not {wanted}: {shown}")
        })
    }

    /// A consumer's certificate, key and the CA, as files in a folder.
    ///
    /// # Errors
    /// When the aggregator says no.
    pub fn consumer(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path(&format!("consumer-{name}"));
        let text = folder.display().to_string();
        let answer = self.ctl(&["consumers", "issue", name, "--out", &text])?;
        ensure!(answer.code == 0, "consumer: {answer:?}");
        Ok(folder)
    }

    /// The site's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A word as a shell takes it for itself.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A test that fails shows what the daemons said last.
impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let entries = std::fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let agents = entries.map(|entry| entry.path().join("agent.log"));
        for log in std::iter::once(self.path("aggregator.log")).chain(agents) {
            if let Ok(text) = std::fs::read_to_string(&log) {
                let lines: Vec<&str> = text.lines().collect();
                let last = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
                eprintln!("--- {} ends:\n{}", log.display(), last.join("\n"));
            }
        }
    }
}
