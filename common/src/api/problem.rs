//! Errors, and pages of lists.

use serde::{Deserialize, Serialize};

use super::LineError;
use crate::command::BmcError;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, by id.
    pub items: Vec<T>,
    /// Give this as `page_token` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_page_token: Option<String>,
}

/// RFC 9457 `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A URI reference naming the kind of problem: `/problems/{code}`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short, the same for all problems of this code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What exactly is wrong here, naming the field or thing.
    pub detail: String,
    /// Stable code.
    pub code: String,
    /// To find it in the log.
    pub request_id: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// The driver's own error.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bmc_error: Option<BmcError>,
    /// Of a file that was refused: what is wrong in which line, the first hundred.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<LineError>,
}
