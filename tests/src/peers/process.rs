//! A child process that cannot outlive its test.
//!
//! Each runs in a process group of its own, killed by its id when the value is dropped; should the test itself be killed,
//! the kernel kills the child. Never kills by name.

use crate::eventually::eventually;
use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// How much of a log an error quotes, in bytes.
const QUOTED: usize = 2_000;

/// A running child, in its own process group, with its output in a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with no input and both outputs appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(command: &Command, log: &Path) -> Result<Self> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let output = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("{}", log.display()))?;
        let mut bound = bound_to_this_process(command)?;
        bound.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn(bound).with_context(|| format!("{name} does not start"))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// Tries `probe` until it gives `Ok`; fails at once when the process ends before.
    ///
    /// # Errors
    /// When the process ended or the time was up: both quote the end of the log.
    pub fn ready<T>(&mut self, timeout: Duration, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
        let waited = eventually(timeout, || {
            // An exit ends the waiting, so it travels as a success here.
            match self.exit_status()? {
                Some(status) => Ok(Err(anyhow!("ended with {status}"))),
                None => probe().map(Ok),
            }
        });
        waited.and_then(|found| found).with_context(|| format!("{} is not ready; its log ends:\n{}", self.name, self.log_end()))
    }

    /// The process id, which is its group's too.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it did.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("state of {}", self.name))
    }

    /// Sends one signal to the process alone: to ask it to end, to reload, to stand still (`STOP`) or go on (`CONT`).
    ///
    /// # Errors
    /// When there is no such process any more.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exit_status()? {
            bail!("{} ended before with {status}", self.name);
        }
        kill_process(self.pid(), signal).with_context(|| format!("signal to {}", self.name))
    }

    /// Asks the process to end and waits for it.
    ///
    /// # Errors
    /// When it still runs after `timeout`.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        eventually(timeout, || self.exit_status()?.with_context(|| format!("{} still runs", self.name)))
    }

    /// Kills the process and its whole group, and waits for it. Does nothing when it has ended.
    pub fn kill(&mut self) {
        // Not after the process was waited for: its id may be another's by then.
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_process_group(self.pid(), Signal::KILL).ok();
            self.child.wait().ok();
        }
    }

    /// Everything written so far, by this start and earlier ones with the same log.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log).with_context(|| format!("{}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_end(&self) -> String {
        let log = self.log().unwrap_or_else(|error| format!("{error:#}"));
        let start = log.char_indices().rev().map(|(at, _)| at).take(QUOTED).last().unwrap_or(0);
        log.get(start..).unwrap_or_default().to_owned()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command` to its end with `input`, for clients that answer and leave.
///
/// # Errors
/// When it cannot be started or its output not be read. A failure it reports itself is in the `Output`.
pub fn run(command: &Command, input: &str) -> Result<Output> {
    let mut bound = bound_to_this_process(command)?;
    bound.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(bound).with_context(|| format!("{} does not start", command.get_program().display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).or_else(gone_is_fine)?;
    }
    Ok(child.wait_with_output()?)
}

/// A client that ends without reading its input is judged by its answer, not by the pipe.
fn gone_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// The same command, in a new process group, told by the kernel to die with the thread that starts it.
fn bound_to_this_process(command: &Command) -> Result<Command> {
    use std::os::unix::process::CommandExt;
    let mut bound = Command::new(super::program("setpriv")?);
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(key, value),
            None => bound.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bound.current_dir(folder);
    }
    bound.process_group(0);
    Ok(bound)
}

type Request = (Command, Sender<io::Result<Child>>);

/// Starts a command from a thread that lives as long as this process: the parent-death signal follows the starting
/// thread, and a test's own thread may end (a runtime's pool threads do) while the fixture is still wanted.
fn spawn(command: Command) -> Result<Child> {
    static STARTER: LazyLock<Sender<Request>> = LazyLock::new(|| {
        let (requests, inbox) = channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                // The asker waits for the answer, so it is there to take it.
                answer.send(command.spawn()).ok();
            }
        });
        requests
    });
    let (answer, started) = channel();
    STARTER.send((command, answer)).map_err(|_| anyhow!("the starting thread is gone"))?;
    Ok(started.recv()??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::ensure;
    use rustix::process::test_kill_process;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_dropped_process_takes_its_children_along() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start(&shell("sleep 1000 & echo $!; wait"), &folder.path().join("log")).unwrap();
        let log = process.log.clone();
        let grandchild: i32 = process.ready(LIMIT, || Ok(std::fs::read_to_string(&log)?.trim().parse()?)).unwrap();
        let grandchild = Pid::from_raw(grandchild).unwrap();
        test_kill_process(grandchild).unwrap();
        drop(process);
        eventually(LIMIT, || {
            ensure!(gone_or_unreaped(grandchild), "{grandchild:?} lives");
            Ok(())
        })
        .unwrap();
    }

    /// A killed orphan is init's to reap; where no init does, a zombie is as dead as it gets.
    fn gone_or_unreaped(pid: Pid) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).map_or(true, |stat| stat.contains(") Z "))
    }

    #[test]
    fn an_early_end_is_told_with_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::start(&shell("echo no such port; exit 3"), &folder.path().join("log")).unwrap();
        let error = process.ready(LIMIT, || -> Result<()> { bail!("not yet") }).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no such port") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn outlives_the_thread_that_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut process = std::thread::spawn(move || Process::start(&shell("exec sleep 1000"), &log)).join().unwrap().unwrap();
        process.signal(Signal::CONT).unwrap();
        assert!(process.exit_status().unwrap().is_none());
        assert!(!process.terminate(LIMIT).unwrap().success());
    }

    #[test]
    fn runs_a_client_with_input() {
        let output = run(&shell("cat; echo err >&2; exit 2"), "in").unwrap();
        assert_eq!((output.stdout.as_slice(), output.status.code()), (b"in".as_slice(), Some(2)));
    }
}
