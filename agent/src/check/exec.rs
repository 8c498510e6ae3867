//! Checks `exec`: a program of the agent's own file. The centre only names it: what runs, with which words, is that file's alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use picket_common::secret::Secret;
use rustix::process::Signal;
use serde::Deserialize;

use super::turn::{self, Turn};
use crate::driver::process::{self, Broken, Exit, Runner};
use crate::sign::Sign;

/// `[check.NAME]` of the agent's own file, by name.
pub type Programs = BTreeMap<String, Program>;

/// A program that tells about a host: exit code 0 is alive, 1 is dead, any other cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// An absolute path, or a bare name that is looked for where the system keeps programs.
    program: PathBuf,
    /// Its arguments; `{host}` is the host's name.
    #[serde(default)]
    args: Vec<Argument>,
}

/// An argument as it was written: `{host}` is a placeholder, `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Argument(String);

impl TryFrom<String> for Argument {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match fill(&text, "") {
            Some(_) => Ok(Self(text)),
            None => Err(format!("{text:?}: there is one placeholder, {{host}}; write {{{{ or }}}} for a brace")),
        }
    }
}

fn fill(text: &str, host: &str) -> Option<String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let known = [("{{", "{"), ("}}", "}"), ("{host}", host)];
        let (after, value) = known.iter().find_map(|(written, value)| Some((from.strip_prefix(written)?, *value)))?;
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

/// Names of checks whose program is not there, with the program.
pub fn missing(programs: &Programs) -> impl Iterator<Item = (&str, &PathBuf)> {
    let all = programs.iter().map(|(name, check)| (name.as_str(), &check.program));
    all.filter(|(_, program)| process::find(program).is_none())
}

/// Runs the check of this name. A program that does not end by itself is ended with all its children.
pub(super) async fn run(runner: &Runner, programs: &Programs, name: &str, turn: &Turn<'_>) -> Result<Sign, Sign> {
    let cannot = |why: String| Sign::CannotTell(format!("check {name}: {why}"));
    let check = programs.get(name).ok_or_else(|| cannot("the agent's own file has no such check".into()))?;
    let host = turn.job.host.as_ref().ok_or_else(|| cannot("it is about no host".into()))?;
    let arguments: Option<Vec<String>> = check.args.iter().map(|argument| fill(&argument.0, host.as_str())).collect();
    let arguments = arguments.ok_or_else(|| cannot("its arguments are wrong".into()))?;

    let place = turn.within(runner.place(host, false)).await.ok_or_else(turn::crowded)?;
    let place = place.map_err(|broken| cannot(broken.to_string()))?;
    turn.begin()?;
    let program = process::Program {
        path: &check.program,
        arguments,
        input: Secret::new(Vec::new()),
        files: Vec::new(),
        farewell: Signal::TERM,
    };
    let ended = place.run(program, turn.left()).await;
    runner.set_answered(host, ended.is_ok());
    let ended = ended.map_err(|broken| match broken {
        Broken::Deadline => turn.silent(format!("check {name} did not end within {}", turn.given())),
        broken => cannot(broken.to_string()),
    })?;
    let said = ended.words(&[]);
    match ended.exit {
        Exit::Code(0) => Ok(Sign::Alive),
        Exit::Code(1) if said.is_empty() => Ok(Sign::Dead(format!("check {name} says so"))),
        Exit::Code(1) => Ok(Sign::Dead(format!("check {name} says: {said}"))),
        Exit::Code(code) => Err(cannot(format!("exit code {code}: {said}"))),
        Exit::Signal(signal) => Err(cannot(format!("ended by signal {signal}: {said}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        for (text, filled) in [("", ""), ("--host={host}", "--host=h1"), ("{{{host}}}", "{h1}"), ("a{{b}}", "a{b}")] {
            assert_eq!(fill(text, "h1").as_deref(), Some(filled), "{text}");
        }
        for bad in ["{", "}", "{address}", "{host", "x}y", "{ host }"] {
            assert!(Argument::try_from(bad.to_owned()).unwrap_err().contains("one placeholder, {host}"), "{bad}");
        }
    }
}
