//! Running programs, for the drivers that need one: bounded in number, in time and in output. Knows no BMC.
//!
//! A program runs without a shell, without a terminal, with three words of environment and in a session of its own, so that
//! all its children end with it. Secrets reach it by standard input or by a [`PrivateFile`]: never by its command line or
//! environment, which others on the machine can read, and never by a disk.
//!
//! What a program leaves running in a session of its own making escapes; systemd ends that with the agent. The session is made by
//! `setsid` of util-linux, which becomes the program; where there is none, the program gets a process group only.

use std::collections::HashSet;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use picket_common::id::HostId;
use picket_common::secret::Secret;
use rustix::fs::{Access, MemfdFlags, SealFlags, access, fcntl_add_seals, memfd_create};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Where programs are looked for, and what their own `PATH` is.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Fewest processes an agent can do with: one place for an order, two for polls, one of them for BMCs that are silent.
pub const LEAST_PROCESSES: usize = 4;
/// Most processes at once that can be asked for; each takes about five file descriptors.
pub const MOST_PROCESSES: usize = 1024;

/// Bytes kept of each output; the rest is read and dropped.
const KEPT: usize = 64 * 1024;
/// How long a program has to end by itself when it is told to, at most.
const GRACE: Duration = Duration::from_millis(500);
/// How long the output of a program that has ended may stay open: something it left behind holds it.
const LINGER: Duration = Duration::from_millis(250);
/// How long an order under way may still take when the agent stops.
const FAREWELL: Duration = Duration::from_millis(1500);
/// How long all programs together may take to end when the agent stops.
const SHUTDOWN: Duration = Duration::from_millis(2500);

/// Runs programs, a bounded number at once.
#[derive(Debug)]
pub struct Runner {
    polls: Semaphore,
    orders: Semaphore,
    /// A part of the places for polls: BMCs that did not answer last time, or were never asked, hold no more than these, so
    /// that programs which hang leave room for the others.
    doubtful: Semaphore,
    sizes: (u32, u32),
    answered: Mutex<HashSet<HostId>>,
    closing: watch::Sender<bool>,
    setsid: Option<PathBuf>,
}

/// The right to run programs, one at a time.
#[derive(Debug)]
pub struct Place<'a> {
    runner: &'a Runner,
    is_order: bool,
    _place: SemaphorePermit<'a>,
    _doubtful: Option<SemaphorePermit<'a>>,
}

/// What to run.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its file, or a bare name that is looked for in [`PATH`].
    pub path: &'a Path,
    /// Its arguments; everybody on the machine can read them.
    pub arguments: Vec<String>,
    /// Its standard input.
    pub input: Secret<Vec<u8>>,
    /// Files that its arguments name; they are gone when it has ended.
    pub files: Vec<PrivateFile>,
    /// The signal that asks it to end.
    pub farewell: Signal,
}

/// A program that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// The first 64 KiB of its standard output; may hold secrets.
    pub out: String,
    /// The first 64 KiB of its standard error; may hold secrets.
    pub err: String,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// A program that did not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// There is no such program.
    #[error("there is no program {}", .0.display())]
    Missing(PathBuf),
    /// It could not be started.
    #[error("{} could not be started", path.display())]
    Start {
        /// Which.
        path: PathBuf,
        /// The system's error.
        #[source]
        cause: std::io::Error,
    },
    /// It was ended at its deadline.
    #[error("it did not end in time")]
    Deadline,
    /// It was ended because the agent stops.
    #[error("the agent is shutting down")]
    Closing,
}

/// A file in memory that this process alone holds, readable under its [`path`](Self::path) by programs of the same user as
/// long as this value lives. Nothing of it is ever on a disk or inherited by a program.
#[derive(Debug)]
pub struct PrivateFile(OwnedFd);

impl PrivateFile {
    /// A file with this content, which nobody can change.
    ///
    /// # Errors
    /// The system's, when it has no memory or no descriptor left.
    pub fn new(content: &[u8]) -> std::io::Result<Self> {
        let memory = memfd_create("picket", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = std::fs::File::from(memory);
        file.write_all(content)?;
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(Self(file.into()))
    }

    /// Where a program finds it. Each that opens it reads from the beginning.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// `program` where it lies, if it is there: a path as it is, a bare name by [`PATH`].
#[must_use]
pub fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    std::env::split_paths(PATH).map(|folder| folder.join(program)).find(|file| file.is_file())
}

impl Runner {
    /// Runs at most `max` programs at once, of at least [`LEAST_PROCESSES`].
    #[must_use]
    pub fn new(max: usize) -> Self {
        let max = max.clamp(LEAST_PROCESSES, MOST_PROCESSES);
        let orders = max / 4;
        let polls = max - orders;
        let size = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            polls: Semaphore::new(polls),
            orders: Semaphore::new(orders),
            doubtful: Semaphore::new(polls / 2),
            sizes: (size(polls), size(orders)),
            answered: Mutex::default(),
            closing: watch::Sender::new(false),
            setsid: find(Path::new("setsid")),
        }
    }

    /// Waits for a place. An order does not queue behind polls.
    ///
    /// # Errors
    /// [`Broken::Closing`] when the agent stops.
    pub async fn place(&self, host: &HostId, is_order: bool) -> Result<Place<'_>, Broken> {
        let doubtful = !is_order && !self.answered().contains(host);
        let place = async {
            let doubtful = if doubtful { Some(self.doubtful.acquire().await.ok()?) } else { None };
            let place = match self.polls.try_acquire() {
                Ok(place) => place,
                Err(_) if is_order => self.orders.acquire().await.ok()?,
                Err(_) => self.polls.acquire().await.ok()?,
            };
            Some(Place { runner: self, is_order, _place: place, _doubtful: doubtful })
        };
        let mut closing = self.closing.subscribe();
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => Err(Broken::Closing),
            place = place => place.ok_or(Broken::Closing),
        }
    }

    /// Remembers whether a host's BMC answered at all.
    pub fn set_answered(&self, host: &HostId, answered: bool) {
        let mut hosts = self.answered();
        if answered {
            if !hosts.contains(host) {
                hosts.insert(host.clone());
            }
        } else {
            hosts.remove(host);
        }
    }

    fn answered(&self) -> MutexGuard<'_, HashSet<HostId>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program in a session of its own: `setsid` is not the leader of a group, so it needs no process besides.
    fn command(&self, path: &Path, arguments: &[String]) -> Command {
        let mut command = match &self.setsid {
            Some(setsid) => Command::new(setsid),
            None => Command::new(path),
        };
        if self.setsid.is_some() {
            command.arg(path);
        } else {
            command.process_group(0);
        }
        command.args(arguments).env_clear().env("PATH", PATH).env("LANG", "C").env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Ends all programs, polls at once and orders a moment later; nothing is started any more.
    pub async fn shutdown(&self) {
        self.closing.send_replace(true);
        let ended = async {
            let polls = self.polls.acquire_many(self.sizes.0).await;
            let orders = self.orders.acquire_many(self.sizes.1).await;
            drop((polls, orders));
        };
        if timeout(SHUTDOWN, ended).await.is_err() {
            tracing::warn!("not all programs ended in time");
        }
    }
}

impl Place<'_> {
    /// Runs a program for at most `left`, and ends it and its children by then.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn run(&self, program: Program<'_>, left: Duration) -> Result<Ended, Broken> {
        let path = find(program.path).ok_or_else(|| Broken::Missing(program.path.to_owned()))?;
        let start = |cause| Broken::Start { path: path.clone(), cause };
        if *self.runner.closing.borrow() {
            return Err(Broken::Closing);
        }
        access(&path, Access::EXEC_OK).map_err(|cause| start(cause.into()))?;
        let child = self.runner.command(&path, &program.arguments).spawn().map_err(start)?;
        let session = Session::of(&child).ok_or_else(|| start(std::io::ErrorKind::NotFound.into()))?;
        self.supervise(child, session, &program, left).await
    }

    async fn supervise(
        &self,
        mut child: Child,
        mut session: Session,
        program: &Program<'_>,
        left: Duration,
    ) -> Result<Ended, Broken> {
        let out = Capture::of(child.stdout.take());
        let err = Capture::of(child.stderr.take());
        let feeding = feed(child.stdin.take(), program.input.clone());
        let grace = GRACE.min(left / 2);
        let why = tokio::select! {
            biased;
            ended = child.wait() => Ok(ended),
            () = self.closed() => Err(Broken::Closing),
            () = tokio::time::sleep(left - grace) => Err(Broken::Deadline),
        };
        let result = match why {
            Ok(Ok(status)) => {
                session.is_reaped = true;
                if !(out.drained(LINGER).await && err.drained(LINGER).await) {
                    session.signal(Signal::KILL);
                }
                Ok(Ended { exit: exit(status), out: out.text(), err: err.text() })
            }
            Ok(Err(cause)) => Err(Broken::Start { path: program.path.to_owned(), cause }),
            Err(why) => {
                session.signal(program.farewell);
                session.is_reaped = timeout(grace, child.wait()).await.is_ok();
                session.signal(Signal::KILL);
                if !session.is_reaped && timeout(GRACE, child.wait()).await.is_err() {
                    tracing::warn!(program = %program.path.display(), "a program does not even end when killed");
                }
                session.is_reaped = true;
                Err(why)
            }
        };
        feeding.abort();
        result
    }

    /// Done when what runs here has to end because the agent stops: a poll at once, an order after a moment.
    async fn closed(&self) {
        let mut closing = self.runner.closing.subscribe();
        if closing.wait_for(|closing| *closing).await.is_err() {
            return;
        }
        if self.is_order {
            tokio::time::sleep(FAREWELL).await;
        }
    }
}

fn exit(status: ExitStatus) -> Exit {
    status.code().map_or_else(|| Exit::Signal(status.signal().unwrap_or_default()), Exit::Code)
}

/// All processes of a program; they are killed if this is dropped before the program was seen to end.
struct Session {
    leader: Pid,
    is_reaped: bool,
}

impl Session {
    fn of(child: &Child) -> Option<Self> {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)?;
        Some(Self { leader, is_reaped: false })
    }

    /// Signals all of its processes; the leader by itself too, which may not lead a group yet.
    fn signal(&self, signal: Signal) {
        let group = kill_process_group(self.leader, signal);
        let leader = if self.is_reaped { Ok(()) } else { kill_process(self.leader, signal) };
        for result in [group, leader] {
            if let Err(error) = result
                && error != rustix::io::Errno::SRCH
            {
                tracing::warn!(%error, "a program's processes could not be signalled");
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal(Signal::KILL);
        }
    }
}

/// Writes the input and closes it. A program that does not read it is its own business.
fn feed(pipe: Option<tokio::process::ChildStdin>, input: Secret<Vec<u8>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Some(mut pipe) = pipe
            && let Err(error) = pipe.write_all(input.expose()).await
        {
            tracing::trace!(%error, "a program did not read its input");
        }
    })
}

/// Reads an output to its end and keeps the beginning.
struct Capture {
    kept: Arc<Mutex<Vec<u8>>>,
    reading: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Capture {
    fn of(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (done, reading) = watch::channel(false);
        let into = Arc::clone(&kept);
        let task = tokio::spawn(async move {
            if let Some(pipe) = pipe {
                keep(pipe, &into).await;
            }
            done.send_replace(true);
        });
        Self { kept, reading, task }
    }

    /// Whether the output comes to its end within `limit`.
    async fn drained(&self, limit: Duration) -> bool {
        let mut reading = self.reading.clone();
        timeout(limit, reading.wait_for(|done| *done)).await.is_ok()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(mut pipe: impl AsyncRead + Unpin, kept: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 8192];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}

impl Ended {
    /// What it said, for people: the end of its standard error (or else output) with every secret struck out, in one line.
    #[must_use]
    pub fn words(&self, secrets: &[&str]) -> String {
        const SHOWN: usize = 300;
        let said = if self.err.trim().is_empty() { &self.out } else { &self.err };
        let mut said = said.clone();
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            said = said.replace(*secret, "(secret)");
        }
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let line: String = lines.join("; ").chars().filter(|c| !c.is_control()).collect();
        let from = line.len().saturating_sub(SHOWN);
        // Of an output that was cut, the end may be the beginning of a secret.
        if said.len() >= KEPT {
            return line.get(..line.floor_char_boundary(SHOWN)).unwrap_or_default().to_owned();
        }
        line.get(line.ceil_char_boundary(from)..).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests;
