//! Where the log goes: journald with fields under systemd, one JSON object a line otherwise.

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Reads a filter such as `info,picket_agent::uplink=debug`.
///
/// # Errors
/// The filter's own.
pub fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(text)
}

/// Changes the filter of the log that was started.
pub type Handle = reload::Handle<EnvFilter, Registry>;

/// Starts logging.
///
/// # Errors
/// The filter's own.
pub fn start(text: &str) -> Result<Handle, ParseError> {
    let (filter, handle) = reload::Layer::new(filter(text)?);
    let registry = tracing_subscriber::registry().with(filter);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    match journal {
        Some(journal) => registry.with(journal).try_init().ok(),
        None => registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init().ok(),
    };
    Ok(handle)
}
