//! `mosquitto_sub` as an independent MQTT consumer that keeps what it hears.

use super::mosquitto::Broker;
use super::process::Process;
use crate::eventually::eventually;
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::TempDir;

const SUBSCRIBE: Duration = Duration::from_secs(10);

/// One message as it came.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its quality of service.
    pub qos: u8,
    /// When it came, in the client's own form.
    tst: String,
    /// 1 when the broker had it retained.
    pub retain: u8,
    /// Its payload, as text.
    #[serde(default)]
    pub payload: String,
    /// Its properties; none in MQTT 3.1.1.
    #[serde(default)]
    pub properties: Properties,
}

/// A message's properties in MQTT 5.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", default)]
pub struct Properties {
    /// Content type.
    pub content_type: Option<String>,
    /// 1 for a payload in UTF-8.
    pub payload_format_indicator: Option<u8>,
    /// User properties; of those with the same name the last.
    pub user_properties: BTreeMap<String, String>,
}

impl Message {
    /// When it came, by the clock of this machine.
    ///
    /// # Errors
    /// When the client wrote something else than its time.
    pub fn time(&self) -> Result<Timestamp> {
        Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.fZ%z", &self.tst).with_context(|| self.tst.clone())
    }

    /// The payload as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.payload).with_context(|| format!("payload of {}: {:?}", self.topic, self.payload))
    }
}

/// A subscription; it lives as long as this value.
#[derive(Debug)]
pub struct MosquittoSub {
    process: Process,
    _folder: TempDir,
}

impl MosquittoSub {
    /// Subscribes to a topic filter with QoS 1 and waits until the broker has granted it.
    ///
    /// # Errors
    /// With what the client wrote, when the broker refused the connection or the subscription.
    pub fn start(broker: &Broker, filter: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut command = broker.client("mosquitto_sub")?;
        // -d tells when the subscription stands; messages are the lines that begin with a brace.
        command.args(["-d", "-q", "1", "-F", "%j", "-t", filter]);
        let mut process = Process::start(&command, &folder.path().join("log"))?;
        let log = folder.path().join("log");
        process.ready(SUBSCRIBE, || {
            let said = std::fs::read_to_string(&log)?;
            // From 128 on a code says why not.
            let code = said.lines().find_map(|line| line.strip_prefix("Subscribed (mid: 1): ")?.parse::<u8>().ok());
            let granted = code.is_some_and(|code| code < 128);
            ensure!(granted, "{filter} is not subscribed");
            Ok(())
        })?;
        Ok(Self { process, _folder: folder })
    }

    /// All messages heard so far, in order.
    ///
    /// # Errors
    /// When the client's output cannot be read as its own JSON.
    pub fn messages(&self) -> Result<Vec<Message>> {
        let said = self.process.log()?;
        // The last line may be half written.
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }

    /// Waits until the messages heard so far satisfy `wanted`, and gives what it makes of them.
    ///
    /// # Errors
    /// The last error of `wanted`, when it did not within `timeout`.
    pub fn wait_for<T>(&self, timeout: Duration, mut wanted: impl FnMut(&[Message]) -> Result<T>) -> Result<T> {
        eventually(timeout, || wanted(&self.messages()?))
    }

    /// Whether the client still runs: a broker that throws it out ends its connection, and it tries again for ever.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.exit_status()?.is_none())
    }

    /// Everything the client wrote: its own protocol trace and the messages.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn trace(&self) -> Result<String> {
        self.process.log()
    }
}
