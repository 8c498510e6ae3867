//! Drivers and their options.

use serde::{Deserialize, Serialize};

/// `GET /v1/drivers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// Name.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Port used when none is set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default_port: Option<u16>,
    /// Whether its readings can prove that a host is off.
    #[serde(default)]
    pub can_prove: bool,
    /// Whether there may be more options, which only an agent's own file knows.
    #[serde(default)]
    pub own_options: bool,
    /// Its options.
    #[serde(default)]
    pub options: Vec<DriverOption>,
}

/// One option of a driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverOption {
    /// Key in `options`.
    pub name: String,
    /// `one-of`, `any-of`, `number`, `switch`, `text` or `key`.
    pub kind: String,
    /// The words it takes.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub values: Vec<String>,
    /// Least number it takes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub min: Option<u32>,
    /// Greatest number it takes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max: Option<u32>,
    /// The value when it is not set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub default: Option<String>,
    /// What it does.
    pub help: String,
}
