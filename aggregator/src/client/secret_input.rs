//! Secrets from files, stdin or a prompt: never from the command line or the environment, where others can read them.

use std::io::{IsTerminal, Read};
use std::path::Path;

use picket_common::secret::Secret;

use super::failure::Failure;

/// Longest secret, in bytes.
const MAX_LEN: u64 = 4096;

/// The first line of a file.
///
/// # Errors
/// [`Failure::Usage`] when it cannot be read.
pub fn from_file(path: &Path) -> Result<Secret<String>, Failure> {
    let wrong = |error: std::io::Error| Failure::Usage(format!("{}: {error}", path.display()));
    first_line(std::fs::File::open(path).map_err(wrong)?).map_err(wrong)
}

/// The first line of stdin.
///
/// # Errors
/// [`Failure::Usage`] when it cannot be read.
pub fn from_stdin() -> Result<Secret<String>, Failure> {
    first_line(std::io::stdin().lock()).map_err(|error| Failure::Usage(format!("stdin: {error}")))
}

/// Asks on the terminal, if there is one.
///
/// # Errors
/// [`Failure::Local`] when the terminal fails.
pub fn from_prompt(prompt: &str) -> Result<Option<Secret<String>>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    let text = rpassword::prompt_password(prompt).map_err(|error| Failure::Local(format!("the terminal: {error}")))?;
    Ok((!text.is_empty()).then(|| Secret::new(text)))
}

/// The first line of `source`, without its end.
///
/// # Errors
/// As reading it, or when it is no text.
pub fn first_line(source: impl Read) -> std::io::Result<Secret<String>> {
    let mut text = zeroize::Zeroizing::new(String::new());
    source.take(MAX_LEN).read_to_string(&mut text)?;
    Ok(Secret::new(text.lines().next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_without_its_end() {
        for (text, wanted) in [("s3cret\n", "s3cret"), ("s3cret", "s3cret"), ("a b \r\nx", "a b "), ("", "")] {
            assert_eq!(first_line(text.as_bytes()).unwrap().expose(), wanted);
        }
    }
}
