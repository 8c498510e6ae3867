//! Consumers of the public MQTT tree.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::ConsumerId;

/// `POST /v1/consumers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerRequest {
    /// Name of the consumer.
    pub name: ConsumerId,
    /// How long its certificate is good, in days (1 – 825); absent = 90.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub days: Option<u32>,
}

/// A consumer's certificate and key: shown once, the key is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerCertificate {
    /// Name of the consumer.
    pub name: ConsumerId,
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub private_key: String,
    /// CA bundle, PEM.
    pub ca: String,
    /// Where MQTT is: `host:port`.
    pub mqtt: String,
    /// Not usable after this.
    pub expires_at: Timestamp,
}
