//! A program for each delivery: the same JSON as a webhook's body on its standard input, no shell, nothing of the daemon's
//! environment, its own process group. Exit code 0 means that it has taken the news; whatever else, a signal or no end in time is
//! a failure that is tried again until the news are given up. A program that does not want them says 0.
//!
//! It runs as the aggregator's user, within its sandbox. What it leaves behind when it ends by itself is its own affair; what has
//! to be ended is ended with all its group.

use std::convert::Infallible;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::{Letter, again, never};
use crate::config::notify::Exec;
use crate::fleet::Undelivered;

/// The `PATH` of programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of its standard error that are read, and characters that are shown.
const READ: u64 = 16 * 1024;
const SHOWN: usize = 300;
/// How long its standard error may stay open when it has ended: something it left behind holds it.
const LINGER: Duration = Duration::from_millis(250);

/// Ends the program with its group when the attempt is over, if it has not ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0
            && let Err(error) = kill_process_group(leader, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, "a program of a receiver could not be ended");
        }
    }
}

pub(super) async fn send(way: &Exec, letter: &Letter<'_>) -> Result<(), Undelivered> {
    let body = letter.json().map_err(|error| never(error.to_string()))?;
    let started = |error: std::io::Error| again(format!("{} could not be started: {error}", way.program.display()));
    let mut child = command(way).spawn().map_err(started)?;
    let mut group = Group(pid(&child));
    let stdin = child.stdin.take();
    let mut reading = tokio::spawn(words(child.stderr.take()));
    let feeding = async {
        feed(stdin, &body).await;
        std::future::pending::<Infallible>().await
    };
    let status = tokio::select! {
        status = child.wait() => status,
        never = feeding => match never {},
    };
    group.0 = None;
    let said = timeout(LINGER, &mut reading).await;
    reading.abort();
    judge(status.map_err(started)?, &said.ok().and_then(Result::ok).unwrap_or_default())
}

/// Writes the input and closes it.
async fn feed(pipe: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut pipe) = pipe
        && let Err(error) = pipe.write_all(input).await
    {
        // What it does not read is its own affair.
        tracing::debug!(%error, "a program of a receiver did not read its input");
    }
}

fn command(way: &Exec) -> Command {
    let mut command = Command::new(&way.program);
    command.args(&way.arguments).env_clear().env("PATH", PATH).env("LANG", "C.UTF-8").current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// The beginning of what it says on its standard error. Reads no further: a program that says more is told so by its pipe.
async fn words(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe
        && let Err(error) = pipe.take(READ).read_to_end(&mut bytes).await
    {
        tracing::debug!(%error, "what a program of a receiver says could not be read");
    }
    let text = String::from_utf8_lossy(&bytes);
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

fn judge(status: ExitStatus, said: &str) -> Result<(), Undelivered> {
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(again(format!("the program ended with code {code}{said}"))),
        (None, signal) => Err(again(format!("the program was ended by signal {}{said}", signal.unwrap_or_default()))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use picket_common::api::{Change, Notification};

    use super::*;
    use crate::notify::tests::{around, delivery};

    async fn run(script: &str) -> Result<(), Undelivered> {
        let way = Exec { program: PathBuf::from("/bin/sh"), arguments: vec!["-c".into(), script.into()] };
        let (around, delivery) = (around(), delivery(&[(Change::Firing, "h1")]));
        let letter = Letter { delivery: &delivery, around: &around, is_test: false };
        tokio::time::timeout(Duration::from_secs(20), send(&way, &letter)).await.unwrap()
    }

    #[tokio::test]
    async fn how_it_ends_is_what_came_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("got");
        run(&format!("cat > {}", file.display())).await.unwrap();
        let got: Notification = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!((got.alerts.len(), got.receiver.as_str(), got.version.as_str()), (1, "ops", "1"));
        run("exec <&-; exit 0").await.unwrap();
        run("sleep 30 & exit 0").await.unwrap();
        for (script, wanted) in [
            ("echo no such pager >&2; exit 75", "code 75: no such pager"),
            ("exit 1", "code 1"),
            ("kill -9 $$", "signal 9"),
            ("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3", "code"),
        ] {
            let error = run(script).await.unwrap_err();
            assert!(error.why.contains(wanted) && !error.is_final, "{error:?}");
        }
    }

    #[tokio::test]
    async fn at_the_deadline_its_whole_group_ends() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let way = Exec { program: PathBuf::from("/bin/sh"), arguments: vec!["-c".into(), script] };
        let (around, delivery) = (around(), delivery(&[(Change::Firing, "h1")]));
        let letter = Letter { delivery: &delivery, around: &around, is_test: false };
        assert!(tokio::time::timeout(Duration::from_millis(500), send(&way, &letter)).await.is_err());
        let grandchild: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        let stat = PathBuf::from(format!("/proc/{grandchild}/stat"));
        let ended = async {
            while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    }
}
