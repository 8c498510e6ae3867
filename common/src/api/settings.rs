//! Settings of the whole site, changeable at run time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Field;

/// `GET /v1/settings`, by name.
pub type Settings = BTreeMap<String, Setting>;

/// One setting of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The value in force; `null` = nothing is set.
    pub value: Option<SettingValue>,
    /// The value when nobody sets it.
    pub default: Option<SettingValue>,
    /// Who set it.
    pub source: SettingSource,
}

/// A setting's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SettingValue {
    /// A number.
    Number(u64),
    /// A word.
    Text(String),
}

/// Who set a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingSource {
    /// `PATCH /v1/settings`: goes before the file.
    Api,
    /// The aggregator's own file.
    File,
    /// Nobody.
    Default,
}

/// `PATCH /v1/settings`: what is left out stays, `null` goes back to the file's value, or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsPatch {
    /// Poll interval, in seconds (1 – 3600).
    #[serde(default)]
    pub sync_interval: Field<u64>,
    /// Time an operation may take, in seconds (1 – 3600).
    #[serde(default)]
    pub action_timeout: Field<u64>,
    /// Most polls that an agent may have in flight (1 – 65536).
    #[serde(default)]
    pub sync_poolsize: Field<u64>,
    /// Option `interface` of hosts with the driver `ipmitool`.
    #[serde(default, rename = "ipmitool.interface")]
    pub ipmitool_interface: Field<String>,
    /// Option `retries` of hosts with the driver `ipmitool`.
    #[serde(default, rename = "ipmitool.retries")]
    pub ipmitool_retries: Field<u64>,
}
