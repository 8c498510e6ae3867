//! The thread that serves Redfish, the control API and the scenario: one small tokio runtime of its own, so that a simulator
//! can live inside any test, async or not.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::control;
use super::fleet::{BmcHandle, Fleet};
use super::redfish::server::listen;
use super::scenario::Scenario;

/// A running thread; ends when dropped.
#[derive(Debug)]
pub(crate) struct Net {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread serves.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) redfish: Vec<(BmcHandle, TcpListener)>,
    pub(crate) control: Option<TcpListener>,
    pub(crate) scenario: Option<Scenario>,
    pub(crate) fleet: Fleet,
}

impl Net {
    /// Starts to serve.
    pub(crate) fn start(threads: usize, served: Served) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("bmcsim-web")
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("bmcsim-net".into()).spawn(move || {
            runtime.block_on(async move {
                serve(served);
                // Told to stop, or the simulator is gone: both end it.
                drop(stopped.await);
            });
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the web thread of the simulator panicked");
        }
    }
}

fn serve(served: Served) {
    for (bmc, listener) in served.redfish {
        tokio::spawn(listen(Arc::clone(&bmc.bmc), listener, bmc.authority.clone()));
    }
    if let Some(scenario) = served.scenario {
        tokio::spawn(scenario.play(served.fleet.clone()));
    }
    if let Some(control) = served.control {
        tokio::spawn(async move {
            let result = match tokio::net::TcpListener::from_std(control) {
                Ok(listener) => axum::serve(listener, control::router(served.fleet)).await,
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                tracing::error!(%error, "the control API ended");
            }
        });
    }
}
