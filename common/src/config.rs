//! Reading a daemon's TOML text: unknown keys are errors that name the file, the line and the nearest valid key.
//! Never opens a file.

use serde::de::DeserializeOwned;

/// Why a configuration text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {text}")]
pub struct ConfigError {
    /// The file, as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub text: String,
}

impl ConfigError {
    /// What is wrong with the place at byte `offset` of `text`.
    #[must_use]
    pub fn at(file: &str, text: &str, offset: usize, what: String) -> Self {
        Self { file: file.to_owned(), line: line_of(text, offset), text: what }
    }
}

/// Parses `text`, which came from `file`.
///
/// # Errors
/// [`ConfigError`] for syntax, unknown keys and values of the wrong type or range.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text)
        .map_err(|error| ConfigError::at(file, text, error.span().map_or(0, |span| span.start), explain(error.message())))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&b| b == b'\n').count() + 1
}

/// Serde says "unknown field `x`, expected one of `a`, `b`": adds the nearest of them.
fn explain(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else { return message.to_owned() };
    let mut names = rest.split('`').step_by(2);
    let Some(unknown) = names.next() else { return message.to_owned() };
    let nearest = names
        .filter(|name| !name.is_empty())
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().max(3) / 2 + 1);
    match nearest {
        Some((_, name)) => format!("unknown key `{unknown}`; did you mean `{name}`?"),
        None => message.replacen("field", "key", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its name matters")]
        sync_interval: Option<u64>,
        #[expect(dead_code, reason = "only its name matters")]
        listen: Option<String>,
    }

    #[test]
    fn errors_name_file_line_and_nearest_key() {
        let error = parse::<Sample>("agent.toml", "listen = \"x\"\nsync_intervall = 3\n").unwrap_err();
        assert_eq!(error.to_string(), "agent.toml:2: unknown key `sync_intervall`; did you mean `sync_interval`?");
        let error = parse::<Sample>("agent.toml", "\nsync_interval = -3\n").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.text.contains("-3"), "{error}");
        let error = parse::<Sample>("agent.toml", "zzzzzzzzzz = 1\n").unwrap_err();
        assert!(error.text.contains("sync_interval"), "{error}");
    }
}
