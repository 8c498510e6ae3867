//! `picketctl`: the admin's command line. Speaks the HTTP API and nothing else; results go to stdout, everything else to stderr.

mod agents;
mod alerts;
mod audit;
mod bmc;
mod cli;
mod config;
mod confirm;
mod context;
mod events;
mod fence;
mod ha;
mod hosts;
mod login;
mod op;
mod orders;
mod output;
mod places;
mod pm;
mod power;
mod program;
mod progress;
mod select;
mod sight;
mod site;
#[cfg(test)]
mod testing;
mod tokens;
mod transfer;

use std::process::ExitCode;

use clap::Parser;
use picket_aggregator::client::{self, failure, secret_input};

use cli::{Cli, Command};
use client::Client;
use failure::Failure;
use output::Output;

/// What the program calls itself.
const NAME: &str = "picketctl";

/// How a command ended when it did not fail: most end with 0.
type Ended = Result<u8, Failure>;

fn main() -> ExitCode {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("picketctl: TLS was set up twice");
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::Local(format!("no runtime: {error}"))),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    eprintln!("picketctl: {failure}");
    ExitCode::from(failure.exit_code())
}

async fn run(cli: Cli) -> Ended {
    let out = Output::new(&cli.global);
    let client = || Client::new(NAME, &config::target(&cli.global)?);
    match cli.command {
        Command::Login(command) => login::login(&command, cli.global.context.as_deref()).await,
        Command::Context(command) => context::context(&out, command),
        Command::Zones(command) => places::zones(&client()?, &out, command).await,
        Command::Clusters(command) => places::clusters(&client()?, &out, command).await,
        Command::Racks(command) => places::racks(&client()?, &out, command).await,
        Command::Hosts(command) => hosts::hosts(client(), &out, command).await,
        Command::Oobm(command) => power::oobm(&client()?, &out, command).await,
        Command::Power(command) => power::power(&client()?, &out, command).await,
        Command::Ha(command) => ha::ha(&client()?, &out, command).await,
        Command::Fence(command) => fence::fence(&client()?, &out, command).await,
        Command::Bmc(command) => bmc::bmc(&client()?, &out, command).await,
        Command::Pm(command) => pm::pm(&client()?, command).await,
        Command::Op(command) => op::op(&client()?, &out, command).await,
        Command::Agents(command) => agents::agents(&client()?, &out, command).await,
        Command::Drivers(command) => site::drivers(&client()?, &out, command).await,
        Command::Settings(command) => site::settings(&client()?, &out, command).await,
        Command::Secrets(command) => site::secrets(&client()?, &out, command).await,
        Command::Consumers(command) => agents::consumers(&client()?, &out, command).await,
        Command::Tokens(command) => tokens::tokens(&client()?, &out, command).await,
        Command::Alerts(command) => alerts::alerts(&client()?, &out, command).await,
        Command::Silences(command) => alerts::silences(&client()?, &out, command).await,
        Command::Audit(command) => audit::audit(client(), &out, command).await,
        Command::Events(command) => events::events(&client()?, &out, command).await,
        Command::History(command) => sight::history(&client()?, &out, &command).await,
        Command::Summary => sight::summary(&client()?, &out).await,
        Command::Api(command) => sight::api(&client()?, &out, command).await,
        Command::Completion { shell } => program::completion(shell),
        Command::Man(command) => program::man(&command),
    }
}
