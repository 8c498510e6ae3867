//! A witness's daemon: no rack, no journal, no uplink.

use std::time::Duration;

use picket_common::id::HostId;
use tokio::time::interval;

use super::signals::{Signals, Told};
use super::{Reload, RunError, notify_ready};
use crate::config::Config;
use crate::identity::Identity;
use crate::tls;
use crate::witness::Witness;

/// How often systemd is told that all is well.
const PULSE: Duration = Duration::from_secs(5);

/// Runs the witness of `host` until it is told to stop; SIGHUP changes the log's filter.
///
/// # Errors
/// [`RunError`].
pub async fn witness(host: HostId, identity: &Identity, config: Config, reload: Reload) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let Some(settings) = config.witness else { return Err(RunError::NoWitness(host)) };
    let witness = Witness::start(host.clone(), settings, tls::witness_server(identity)?).await?;
    let address = witness.address().map_or_else(|_| "unknown".to_owned(), |address| address.to_string());
    tracing::info!(%host, address, "witness of this host");
    let serving = tokio::spawn(witness.serve());
    let mut pulse = interval(PULSE);
    notify_ready();
    loop {
        tokio::select! {
            told = signals.next() => match told {
                Told::Stop => break,
                Told::Reload => reload.relog(),
            },
            _ = pulse.tick() => drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog])),
        }
    }
    sd_notify::notify(&[sd_notify::NotifyState::Stopping]).ok();
    serving.abort();
    Ok(())
}
