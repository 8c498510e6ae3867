//! Words about the program itself.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Shells that can be made to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// Z shell.
    Zsh,
    /// Friendly interactive shell.
    Fish,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Directory to write to; made if it is new.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
