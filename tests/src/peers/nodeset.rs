//! ClusterShell's `nodeset`, which says what a host set means.

use super::process::run;
use super::program;
use anyhow::{Result, ensure};
use std::process::Command;

/// The names of a set, in ClusterShell's order.
///
/// # Errors
/// When it is not installed, or the set is none.
pub fn expand(set: &str) -> Result<Vec<String>> {
    Ok(nodeset(&["-e", "-S", "\n", set], "")?.lines().map(str::to_owned).collect())
}

/// Names as one set.
///
/// # Errors
/// When it is not installed.
pub fn fold(names: &[String]) -> Result<String> {
    // It takes the last character of its input for a line's end.
    Ok(nodeset(&["-f"], &(names.join("\n") + "\n"))?.trim_end().to_owned())
}

fn nodeset(arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program("nodeset")?);
    let output = run(command.args(arguments), input)?;
    ensure!(output.status.success(), "nodeset {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
