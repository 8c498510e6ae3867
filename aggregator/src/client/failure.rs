//! Why a command failed, and the exit code that says so. Codes: 0 all ok · 1 some failed · 2 usage · 3 none succeeded · 4 auth ·
//! 5 timed out, outcome unknown · 6 refused by policy · 7 aggregator unreachable · 8 not found.

use std::fmt;

use picket_common::api::Problem;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// Asked wrongly.
    Usage(String),
    /// The aggregator said no.
    Problem(Box<Problem>),
    /// No connection to the aggregator: nothing was asked.
    Unreachable(String),
    /// No answer, or none that is understood: what was asked may have been heard.
    NoAnswer(String),
    /// Waited long enough; what became of it is not known.
    TimedOut(String),
    /// A host set without a host.
    Nobody(String),
    /// Hosts that are not there, as a set.
    Absent(String),
    /// Something on this machine: a file, a terminal.
    Local(String),
}

/// Some hosts failed.
pub const SOME_FAILED: u8 = 1;
/// Asked wrongly.
pub const USAGE: u8 = 2;
/// None succeeded.
pub const NONE_SUCCEEDED: u8 = 3;
/// Who are you, or you may not.
pub const AUTH: u8 = 4;
/// Timed out, outcome unknown.
pub const UNKNOWN: u8 = 5;
/// Policy said no.
pub const REFUSED: u8 = 6;
/// No answer.
pub const UNREACHABLE: u8 = 7;
/// No such thing.
pub const NOT_FOUND: u8 = 8;

impl Failure {
    /// The exit code of a command that failed like this.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Problem(problem) => match problem.status {
                401 | 403 => AUTH,
                404 => NOT_FOUND,
                409 | 410 => REFUSED,
                400 | 405 | 413 | 422 => USAGE,
                _ => NONE_SUCCEEDED,
            },
            Self::Unreachable(_) | Self::NoAnswer(_) => UNREACHABLE,
            Self::TimedOut(_) => UNKNOWN,
            Self::Nobody(_) | Self::Absent(_) => NOT_FOUND,
            Self::Local(_) => NONE_SUCCEEDED,
        }
    }

    /// One line, for a table.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Problem(problem) => format!("{} ({})", problem.detail, problem.code),
            Self::Unreachable(text) | Self::NoAnswer(text) => text.clone(),
            Self::Usage(text) | Self::TimedOut(text) | Self::Local(text) => text.clone(),
            Self::Nobody(_) | Self::Absent(_) => self.to_string(),
        }
    }

    /// Whether the same question may be answered in a moment: no answer, or one that says that something is broken there.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NoAnswer(_) => true,
            Self::Problem(problem) => problem.status >= 500 || problem.status == 429,
            Self::Usage(_) | Self::TimedOut(_) | Self::Nobody(_) | Self::Absent(_) | Self::Local(_) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => {
                write!(f, "{}: {} [{}]", problem.title, problem.detail, problem.code)?;
                if let Some(error) = &problem.bmc_error {
                    write!(f, "\n  BMC: {error}")?;
                }
                if let Some(hint) = &problem.hint {
                    write!(f, "\n  hint: {hint}")?;
                }
                if problem.status >= 500 {
                    write!(f, "\n  request: {}", problem.request_id)?;
                }
                Ok(())
            }
            Self::Unreachable(text) => write!(f, "the aggregator cannot be reached: {text}"),
            Self::NoAnswer(text) => write!(f, "the aggregator gave no answer: {text}"),
            Self::Nobody(set) => write!(f, "no host is in {set:?}"),
            Self::Absent(set) => write!(f, "there is no host {set}; nothing was done"),
            Self::Usage(text) | Self::TimedOut(text) | Self::Local(text) => f.write_str(text),
        }
    }
}

/// The exit code over many: all ok, some failed, or the one reason why none succeeded.
#[must_use]
pub fn over_all(codes: &[u8]) -> u8 {
    let mut failed = codes.iter().copied().filter(|code| *code != 0);
    let Some(first) = failed.next() else { return 0 };
    if codes.contains(&0) {
        return SOME_FAILED;
    }
    if failed.all(|code| code == first) { first } else { NONE_SUCCEEDED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_over_many() {
        for (codes, wanted) in
            [(&[][..], 0), (&[0, 0], 0), (&[0, 6], 1), (&[6], 6), (&[6, 6], 6), (&[6, 5], 3), (&[3], 3), (&[8, 8, 8], 8)]
        {
            assert_eq!(over_all(codes), wanted, "{codes:?}");
        }
    }

    #[test]
    fn problems_by_status() {
        for (status, wanted) in [(400, 2), (401, 4), (403, 4), (404, 8), (409, 6), (413, 2), (429, 3), (500, 3), (503, 3)] {
            let problem = Problem {
                kind: "/problems/x".into(),
                title: "T".into(),
                status,
                detail: "d".into(),
                code: "x".into(),
                request_id: "r".into(),
                retryable: false,
                hint: Some("do it".into()),
                bmc_error: None,
                errors: Vec::new(),
            };
            let failure = Failure::Problem(Box::new(problem));
            assert_eq!(failure.exit_code(), wanted);
            assert!(failure.to_string().starts_with("T: d [x]\n  hint: do it"));
        }
    }
}
