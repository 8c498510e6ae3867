//! The watchdog is fed only while the core makes progress and the broker passes its own probe: a daemon that hangs is restarted.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::tell_systemd;
use crate::broker::Broker;
use crate::context::Health;

const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How often the log says that something hangs when no watchdog does.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Sends probes through the broker for ever; ends when the broker is gone for good.
pub(super) async fn probe(broker: Broker, health: Arc<Health>) {
    loop {
        match broker.probe().await {
            Ok(()) => health.broker_probe(),
            Err(crate::broker::BrokerError::Stuck) => tracing::warn!("broker did not pass the probe"),
            Err(error) => return tracing::error!(%error, "broker failed"),
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

/// Feeds systemd's watchdog for ever.
pub(super) async fn feed(health: Arc<Health>) {
    let watched = sd_notify::watchdog_enabled();
    // Thrice within its time: one lost message must not cost a restart.
    let every = watched.map_or(LOOK_EVERY, |within| within / 3);
    loop {
        tokio::time::sleep(every).await;
        if health.alive() {
            tell_systemd(&[NotifyState::Watchdog]);
        } else {
            let problems: Vec<_> = health.checks().iter().filter_map(|check| check.problem).collect();
            tracing::error!(?problems, "daemon hangs, the watchdog is not fed");
        }
    }
}
