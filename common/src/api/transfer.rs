//! Hosts in files: as they are exported, as they are imported again, and what becomes of each. Never holds a password.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Problem;
use crate::id::{ClusterId, HostId, RackId, ZoneId};

/// Largest file of hosts that can be imported at once, in bytes: [`MAX_IMPORT_HOSTS`] with some 400 bytes each.
pub const MAX_IMPORT: usize = 8 * 1024 * 1024;

/// Most hosts of an import: they are one transaction, and nothing else is decided meanwhile.
pub const MAX_IMPORT_HOSTS: usize = 20_000;

/// A host as `GET /v1/export/hosts` gives it and `POST /v1/import/hosts` takes it: what is its own, not what it inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its id.
    pub id: HostId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its rack.
    pub rack: RackId,
    /// Its own gate; left out in an import = stays as it is, closed for a new host.
    pub oobm_enabled: bool,
    /// Its BMC; absent = not configured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bmc: Option<BmcRecord>,
    /// Whether people work on it.
    pub maintenance: bool,
    /// Poll interval, in seconds; absent = the cluster's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub poll_interval: Option<u64>,
    /// Time an operation may take, in seconds; absent = the cluster's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action_timeout: Option<u64>,
    /// Free words.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub labels: BTreeMap<String, String>,
}

/// A host's own BMC settings in a file; what is absent is inherited. An import takes `password` too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcRecord {
    /// Driver name, lower case.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub driver: Option<String>,
    /// IP address or name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// Login name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub username: Option<String>,
    /// The driver's options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub options: BTreeMap<String, String>,
}

/// What became of a host of an import: one line of the answer, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportLine {
    /// Line of the file, from 1.
    pub line: u64,
    /// Which host, if that could be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<HostId>,
    /// What became of it.
    pub result: ImportResult,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<Problem>,
}

/// See [`ImportLine::result`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportResult {
    /// It is new.
    Created,
    /// It was there, otherwise.
    Changed,
    /// It was there just so.
    Unchanged,
    /// It was not done.
    Refused,
}

impl ImportResult {
    /// Lower-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// What is wrong with one line of a file of which nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineError {
    /// Line of the file, from 1.
    pub line: u64,
    /// Which host, if that could be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<HostId>,
    /// Stable code.
    pub code: String,
    /// What exactly is wrong, naming the field.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}
