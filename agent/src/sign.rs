//! Signs of life: what is asked of a check and what it answers. Pure words: no sockets, no clock.

use std::time::Duration;

use picket_common::ha::settings::{ActivityCheck, HealthCheck};
use picket_common::id::HostId;

/// What to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Whether a host is well.
    Health(HealthCheck),
    /// What a host's files look like, or whether it is active.
    Activity(ActivityCheck),
    /// Whether the agent's own network works: an address of the agent's own file answers.
    Reference(String),
}

/// A check to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckJob {
    /// Chosen by the asker, handed back in the [`CheckDone`].
    pub ticket: u64,
    /// About whom; a witness must have a certificate with this name. For a reference nobody.
    pub host: Option<HostId>,
    /// What.
    pub check: Check,
    /// It is over after this: with [`Sign::Dead`] for health, [`Sign::CannotTell`] for activity.
    pub timeout: Duration,
}

/// A check's end; every job gets exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckDone {
    /// The job's ticket.
    pub ticket: u64,
    /// When it was begun (boottime).
    pub begun: Duration,
    /// What it found.
    pub sign: Sign,
}

/// What a check found, with its reason in one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sign {
    /// It answers, or the program says so.
    Alive,
    /// It refuses or is silent, or the program says so. Whether the path to it works is for the asker to judge.
    Dead(String),
    /// It could not be found out.
    CannotTell(String),
    /// What its files look like: Alive or Dead by comparison with what they looked like before. Files that are gone are left out.
    Stamps(Vec<Stamp>),
}

/// What a file looks like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    /// Its path.
    pub path: String,
    /// When it was last written, in nanoseconds since the Unix epoch.
    pub modified: i128,
    /// Its length in bytes.
    pub length: u64,
}

/// What an agent and a witness say to each other: JSON over HTTPS.
pub mod witness {
    use picket_common::id::HostId;
    use serde::{Deserialize, Serialize};

    use super::Stamp;

    /// `GET`: whether the host is well; answered with a [`Health`].
    pub const HEALTH: &str = "/v1/health";
    /// `POST` a [`FilesAsked`]: what files look like; answered with a [`FilesSeen`].
    pub const FILES: &str = "/v1/files";
    /// Most bytes of a question or an answer: the most files, of the longest paths, escaped.
    pub const MOST_BYTES: usize = 512 * 1024;

    /// The host's own word.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct Health {
        /// Who speaks.
        pub host: HostId,
        /// Whether it is well.
        pub well: bool,
        /// Files of its own on shared storage, if its witness was told where they are.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub files: Vec<String>,
    }

    /// Which files to look at.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct FilesAsked {
        /// Absolute paths.
        pub paths: Vec<String>,
    }

    /// What they look like; those that are gone are left out.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct FilesSeen {
        /// One for each file that is there.
        pub files: Vec<Stamp>,
    }
}
