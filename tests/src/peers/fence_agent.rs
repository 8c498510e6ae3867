//! Fence agents as cluster managers run them: options on stdin, an answer in text, an exit code.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::process::run;
use super::program;
use crate::harness::Answer;

/// A fence agent with the options that every call of it has.
#[derive(Debug, Clone)]
pub struct FenceAgent {
    program: std::path::PathBuf,
    options: String,
}

impl FenceAgent {
    /// The real `fence_ipmilan`.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn ipmilan(options: &[(&str, &str)]) -> Result<Self> {
        Ok(Self::new(&program("fence_ipmilan")?, options))
    }

    /// A program of that kind.
    #[must_use]
    pub fn new(program: &Path, options: &[(&str, &str)]) -> Self {
        let options = options.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        Self { program: program.to_owned(), options }
    }

    /// Has an action carried out, with further options.
    ///
    /// # Errors
    /// When it does not start.
    pub fn act(&self, action: &str, more: &str) -> Result<Answer> {
        let input = format!("action={action}\n{}{more}", self.options);
        Ok(run(&self.command(), &input)?.into())
    }

    /// Runs it with words on the command line, and nothing on stdin.
    ///
    /// # Errors
    /// When it does not start.
    pub fn with_words(&self, words: &[&str]) -> Result<Answer> {
        let mut command = self.command();
        command.args(words);
        Ok(run(&command, "")?.into())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        // Whoever runs the tests may be run by Pacemaker himself.
        command.env_remove("PCMK_service");
        command
    }
}

/// `xmllint`: what `xml` is not, by a RELAX NG grammar; empty when it is right.
///
/// # Errors
/// When it is not installed.
pub fn xmllint(xml: &str, grammar: &Path) -> Result<String> {
    let mut command = Command::new(program("xmllint")?);
    command.args(["--noout", "--relaxng"]).arg(grammar).arg("-");
    let answer: Answer = run(&command, xml)?.into();
    Ok(if answer.code == 0 { String::new() } else { answer.err })
}
