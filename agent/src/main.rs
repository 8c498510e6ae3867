//! `picket-agent`: the command line of the rack daemon.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use picket_agent::config::{Config, DEFAULT_FILE, DEFAULT_STATE_DIR};
use picket_agent::identity::{Files, Identity};
use picket_agent::run::{self, Reload};
use picket_agent::status::Status;
use picket_agent::{join, log};
use picket_common::join::JoinToken;

/// What the process ends with after a panic, as Rust's own programs do.
const PANICKED: i32 = 101;

/// Polls the BMCs of a rack, keeps their power state, acts near the hardware.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the journal and the identity are kept.
    #[arg(long, global = true, value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon (the default).
    Run,
    /// Join an aggregator with the token it printed.
    Join {
        /// `pkj1.…@host:port`, from `picketctl agents token`.
        token: JoinToken,
    },
    /// Check the configuration and the identity, and say what is wrong.
    CheckConfig,
    /// Show what the running daemon last said of itself.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let config = Config::load(arguments.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.command.unwrap_or(Command::Run) {
        Command::Run => {
            let log = log::start(&config.log).context("log")?;
            end_on_panic();
            let identity = Files::new(&arguments.state_dir).load()?;
            let file = arguments.config;
            let reload = Reload { load: Box::new(move || Config::load(file.as_deref())), log };
            match identity.witness() {
                Some(host) => runtime.block_on(run::witness(host, &identity, config, reload))?,
                None => runtime.block_on(run::run(identity, config, &arguments.state_dir, reload))?,
            }
        }
        Command::Join { token } => {
            let joined = runtime.block_on(join::join(&token, &arguments.state_dir))?;
            let identity = Files::new(&arguments.state_dir).load()?;
            println!("joined {} as {}; start it with: systemctl enable --now picket-agent", joined.site, name(&identity));
            if identity.witness().is_some() && config.witness.is_none() {
                println!("before that, give it a section [witness] in {DEFAULT_FILE}");
            }
        }
        Command::CheckConfig => check(&config, &Files::new(&arguments.state_dir))?,
        Command::Status { json } => show(&arguments.state_dir, json)?,
    }
    Ok(())
}

/// A part that panicked must not be missing in silence, be it a thread or a task: the process ends, and starts again from the
/// last commit.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(thread = std::thread::current().name(), %panic, "panicked: the agent ends");
        std::process::exit(PANICKED);
    }));
}

fn check(config: &Config, files: &Files) -> Result<()> {
    log::filter(&config.log).context("log")?;
    println!("configuration: ok");
    for missing in config.missing_programs() {
        println!("warning: {missing}");
    }
    match files.load() {
        Ok(identity) if identity.witness().is_some() => {
            println!("identity: {}", name(&identity));
            anyhow::ensure!(config.witness.is_some(), "a witness needs the section [witness]");
        }
        Ok(identity) => {
            println!("identity: {} at {}", name(&identity), identity.mqtt);
            anyhow::ensure!(config.witness.is_none(), "only a witness has the section [witness]: it joins by itself");
        }
        Err(error) => println!("identity: {error}"),
    }
    Ok(())
}

fn name(identity: &Identity) -> String {
    match identity.witness() {
        Some(host) => format!("witness of host {host}"),
        None => format!("agent {}", identity.agent),
    }
}

fn show(state_dir: &std::path::Path, json: bool) -> Result<()> {
    let status = Status::read(state_dir).context("no status: the daemon has not run with this state directory")?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    println!("agent     {} (pid {}, at {})", status.agent, status.pid, status.at);
    println!("uplink    {}", if status.connected { "connected" } else { "not connected: working on its own" });
    println!(
        "hosts     {} (● {} on, ■ {} off, ▲ {} unknown, – {} disabled)",
        status.hosts, status.on, status.off, status.unknown, status.disabled
    );
    println!("outbox    {} reports to be acknowledged", status.outbox);
    println!("refused   {} messages", status.refused_messages);
    println!("journal   {}", if status.journal { "works" } else { "FAILS: orders are refused" });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHILD: &str = "PICKET_TEST_PANIC";

    /// This test again, in a process of its own that only its hook can end with 101.
    #[test]
    fn a_panic_on_any_thread_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            end_on_panic();
            drop(std::thread::Builder::new().name("ipmi".into()).spawn(|| panic!("broken")).unwrap().join());
            return;
        }
        let name = "tests::a_panic_on_any_thread_ends_the_process";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let ended = again.args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert_eq!(ended.status.code(), Some(PANICKED), "{ended:?}");
    }
}
