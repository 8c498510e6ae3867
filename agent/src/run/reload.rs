//! Reading the agent's own file again while it runs. It is checked as a whole first: what is wrong with it is said, and what was
//! in force stays in force.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use super::tell;
use crate::check::Programs;
use crate::config::{Config, LoadError};
use crate::driver::exec::Templates;
use crate::log;
use crate::rack::Event;

/// How the file is read again, and the log's filter changed.
pub struct Reload {
    /// Reads the file.
    pub load: Box<dyn Fn() -> Result<Config, LoadError> + Send>,
    /// The log.
    pub log: log::Handle,
}

impl Reload {
    /// Reads the file whole, and what it says of the log.
    fn read(&self) -> Result<(Config, EnvFilter), Wrong> {
        let new = (self.load)()?;
        let filter = log::filter(&new.log).map_err(|source| Wrong::Log { text: new.log.clone(), source })?;
        Ok((new, filter))
    }

    fn set(&self, filter: EnvFilter) {
        if let Err(error) = self.log.reload(filter) {
            tracing::error!(%error, "log filter not changed");
        }
    }

    /// Puts what the file says of the log in force, and nothing else, unless there is anything wrong with the file.
    pub(super) fn relog(&self) {
        match self.read() {
            Ok((_, filter)) => {
                self.set(filter);
                tracing::info!("settings reloaded: the log's; others take a restart");
            }
            Err(error) => not_reloaded(&error),
        }
    }
}

fn not_reloaded(error: &Wrong) {
    tracing::error!(error = error as &dyn std::error::Error, "settings not reloaded, the old ones hold");
}

/// Why a file is not put in force.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("log is {text:?}")]
    Log {
        text: String,
        #[source]
        source: ParseError,
    },
}

/// The settings in force, and who has to know of other ones.
pub(super) struct InForce {
    pub(super) config: Config,
    pub(super) reload: Reload,
    pub(super) templates: watch::Sender<Arc<Templates>>,
    pub(super) programs: watch::Sender<Arc<Programs>>,
    pub(super) events: Sender<Event>,
}

impl InForce {
    /// Puts the file in force, unless there is anything wrong with it.
    pub(super) fn reload(&mut self) {
        match self.reload.read() {
            Ok((new, filter)) => self.take(new, filter),
            Err(error) => not_reloaded(&error),
        }
    }

    fn take(&mut self, new: Config, filter: EnvFilter) {
        let missing = new.missing_programs();
        let Config {
            log,
            allowed_bmc_networks,
            max_in_flight,
            local_bmc_host,
            bmc_ca,
            max_processes,
            ipmitool,
            exec,
            reference_addresses,
            check,
            witness,
        } = new;
        let fixed = [
            ("allowed_bmc_networks", allowed_bmc_networks != self.config.allowed_bmc_networks),
            ("local_bmc_host", local_bmc_host != self.config.local_bmc_host),
            ("bmc_ca", bmc_ca != self.config.bmc_ca),
            ("max_processes", max_processes != self.config.max_processes),
            ("ipmitool", ipmitool != self.config.ipmitool),
            ("witness", witness != self.config.witness),
            ("reference_addresses", reference_addresses != self.config.reference_addresses),
        ];
        for (key, _) in fixed.into_iter().filter(|(_, changed)| *changed) {
            tracing::warn!(key, "this setting takes a restart");
        }
        self.reload.set(filter);
        tell(&self.events, Event::Configured { max_in_flight: max_in_flight.0 });
        self.templates.send_replace(Arc::new(exec.clone()));
        self.programs.send_replace(Arc::new(check.clone()));
        self.config.log = log;
        self.config.max_in_flight = max_in_flight;
        self.config.exec = exec;
        self.config.check = check;
        missing.iter().for_each(|missing| tracing::warn!("{missing}"));
        tracing::info!("settings reloaded");
    }
}
