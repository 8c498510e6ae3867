//! `fence_picket`: a fence-agents compatible program, by which Pacemaker, medik8s and others have hosts fenced by Picket. It speaks the
//! HTTP API with a token of its own and nothing else, and never says that a host is off before Picket has proven it.
//!
//! Exit codes: 0 done (status: on), 1 failed, 2 status is off.

mod act;
mod describe;
mod options;
mod telling;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use picket_aggregator::client::failure::Failure;
use picket_aggregator::client::{Client, Target, secret_input};
use picket_common::secret::Secret;
use zeroize::Zeroizing;

use act::{Failed, Fencer};
use options::{Action, Given, Misuse, Options, Telling, TokenFrom};
use telling::Log;

/// Longest input on stdin, in bytes.
const MAX_STDIN: u64 = 1 << 20;

/// Longest time that a program has to print the token.
const SCRIPT: Duration = Duration::from_secs(30);

/// It failed, whatever for.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("fence_picket: TLS was set up twice");
    }
    let given = match given() {
        Ok(given) => given,
        Err(misuse) => return ExitCode::from(misused(None, &misuse)),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ExitCode::from(misused(None, &Misuse(format!("Failed: no runtime: {error}")))),
    };
    ExitCode::from(runtime.block_on(run(given)))
}

/// What was asked: on the command line, or else on stdin.
fn given() -> Result<Given, Misuse> {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.peek().is_some() {
        return Given::from_words(words);
    }
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin().lock().take(MAX_STDIN).read_to_string(&mut text);
    read.map_err(|error| Misuse(format!("Failed: stdin: {error}")))?;
    Ok(Given::from_lines(&text))
}

/// Says why nothing is done, as fence-agents do.
fn misused(log: Option<&Log>, misuse: &Misuse) -> u8 {
    let plain = Log::new(&Telling { quiet: false, verbose: false, file: None }).ok();
    if let Some(log) = log.or(plain.as_ref()) {
        log.error(&misuse.0);
        log.error("Please use '-h' for usage");
    }
    FAILED
}

async fn run(given: Given) -> u8 {
    let log = match Log::new(&given.telling()) {
        Ok(log) => log,
        Err(misuse) => return misused(None, &misuse),
    };
    given.warnings.iter().for_each(|warning| log.warning(warning));
    if let Some(text) = asked_about_itself(&given) {
        return print(&log, &text);
    }
    let in_pacemaker = std::env::var_os("PCMK_service").is_some_and(|service| service == "pacemaker-fenced");
    let options = match given.checked(in_pacemaker) {
        Ok(options) => options,
        Err(misuse) => return misused(Some(&log), &misuse),
    };
    match carried_out(&options, &log).await {
        Ok((text, code)) if print(&log, &text) == 0 => code,
        Ok(_) => FAILED,
        Err(failed) => {
            failed.causes().for_each(|cause| log.error(cause));
            log.error(failed.words());
            FAILED
        }
    }
}

/// What is answered without asking anybody.
fn asked_about_itself(given: &Given) -> Option<String> {
    let text = if given.has("help") {
        describe::usage()
    } else if given.has("version") {
        Ok(concat!(env!("CARGO_PKG_VERSION"), "\n").to_owned())
    } else if given.action() == Ok(Action::Metadata) {
        describe::metadata()
    } else {
        return None;
    };
    text.ok()
}

fn print(log: &Log, text: &str) -> u8 {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => 0,
        Err(error) => {
            log.error(&format!("stdout: {error}"));
            FAILED
        }
    }
}

/// What is printed, and the exit code.
async fn carried_out(options: &Options, log: &Log) -> Result<(String, u8), Failed> {
    if options.action == Action::ValidateAll {
        return Ok((String::new(), 0));
    }
    let client = client(options).await.map_err(Failed::before_all)?;
    if matches!(options.action, Action::Off | Action::Reboot) && !options.delay.is_zero() {
        log.debug(&format!("waiting {} s before fencing", options.delay.as_secs()));
        tokio::time::sleep(options.delay).await;
    }
    Fencer { client: &client, options, log }.act().await
}

async fn client(options: &Options) -> Result<Client, Failure> {
    let ca_pem = options
        .ca_file
        .as_deref()
        .map(|path| std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display()))));
    let token = match &options.token {
        TokenFrom::Here(token) => token.clone(),
        TokenFrom::File(path) => secret_input::from_file(path)?,
        TokenFrom::Script(program) => printed_by(program).await?,
    };
    let target =
        Target { url: options.url.clone(), ca_pem: ca_pem.transpose()?, token: Some(token), connect_within: options.login_timeout };
    Client::new("fence_picket", &target)
}

/// The first line that a program prints.
async fn printed_by(program: &Path) -> Result<Secret<String>, Failure> {
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", program.display()));
    let mut command = tokio::process::Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = tokio::time::timeout(SCRIPT, command.output()).await;
    let output = output.map_err(|_| wrong(format!("it printed no token within {} s", SCRIPT.as_secs())))?;
    let output = output.map_err(|error| wrong(error.to_string()))?;
    if !output.status.success() {
        return Err(wrong(format!("it failed ({})", output.status)));
    }
    let text = Zeroizing::new(output.stdout);
    secret_input::first_line(text.as_slice()).map_err(|error| wrong(error.to_string()))
}
