//! One host of a file, whatever the file's form.

use picket_common::api::HostBody;
use picket_common::id::{ClusterId, HostId, RackId};

use super::super::problem::ApiError;

/// A line that holds a host, or what is wrong with it.
#[derive(Debug)]
pub struct Entry {
    /// Line of the file, from 1.
    pub line: u64,
    /// Which host, if that could be read.
    pub id: Option<HostId>,
    /// The host.
    pub host: Result<Given, ApiError>,
}

/// A host as a file gives it.
#[derive(Debug)]
pub struct Given {
    /// Its own gate; absent = stays as it is.
    pub oobm: Option<bool>,
    /// The rest, as `PUT` of a host takes it.
    pub body: HostBody,
}

/// Where hosts go that do not say it themselves.
#[derive(Debug, Default)]
pub struct Defaults {
    /// Their cluster.
    pub cluster: Option<ClusterId>,
    /// Their rack.
    pub rack: Option<RackId>,
}

/// A host's id.
pub fn host_id(text: &str) -> Result<HostId, ApiError> {
    text.parse().map_err(|error: picket_common::id::IdError| ApiError::invalid("id", error.to_string()))
}
