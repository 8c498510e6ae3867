//! `mosquitto_pub` as an independent MQTT publisher, honest or not.

use super::mosquitto::Broker;
use super::process::run;
use anyhow::{Result, ensure};

/// Publishes one message with QoS 1 and waits for the broker's acknowledgement.
///
/// # Errors
/// With what the client wrote, when the broker did not take it.
pub fn publish(broker: &Broker, topic: &str, payload: &str, retain: bool) -> Result<()> {
    let mut command = broker.client("mosquitto_pub")?;
    command.args(["-d", "-q", "1", "-s", "-t", topic]);
    if retain {
        command.arg("-r");
    }
    let output = run(&command, payload)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // With MQTT 5 a refusal is an acknowledgement too, and mosquitto_pub ends well.
    let taken = said.contains("received PUBACK") && !said.contains("Warning: Publish");
    ensure!(output.status.success() && taken, "mosquitto_pub: {}", said.trim());
    Ok(())
}
