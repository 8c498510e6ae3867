//! What the grammar makes besides a parser: completions for shells, and manual pages.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::aot;

use crate::Ended;
use crate::cli::{Cli, Man, Shell};
use crate::failure::Failure;
use crate::output::print;

/// `completion SHELL`.
pub fn completion(shell: Shell) -> Ended {
    print(&completions(shell)?)?;
    Ok(0)
}

fn completions(shell: Shell) -> Result<String, Failure> {
    let shell = match shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    let mut script = Vec::new();
    aot::generate(shell, &mut Cli::command(), "picketctl", &mut script);
    String::from_utf8(script).map_err(|error| Failure::Local(format!("the completion script: {error}")))
}

/// `man DIR`.
pub fn man(command: &Man) -> Ended {
    pages(&command.dir).map_err(|error| Failure::Local(format!("{}: {error}", command.dir.display())))?;
    Ok(0)
}

/// One page for each command: `picketctl.1`, `picketctl-hosts.1`, `picketctl-hosts-list.1`, ….
fn pages(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
