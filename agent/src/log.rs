//! Where the log goes: journald with fields under systemd, one JSON object a line otherwise. And what of the agent's reports is in
//! it: whoever looks at the rack only finds there what the centre is told.

use picket_common::command::{BmcError, Outcome};
use picket_common::facts::Facts;
use picket_common::power::Management;
use picket_common::wire::report::{Progress, Report};
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

/// Tells what is reported: changes and ends only, so a BMC that stays as it is says nothing more.
pub fn report(report: &Report) {
    match report {
        Report::Power(change) => tracing::info!(host = %change.host, old = %change.old, new = %change.new, "power changed"),
        Report::Management(change) if change.new == Management::Reachable => {
            tracing::info!(host = %change.host, "bmc reachable");
        }
        Report::Management(change) => {
            let Told { driver, code, text } = Told::of(change.error.as_ref());
            tracing::warn!(host = %change.host, management = %change.new, driver, code, text, "bmc in trouble");
        }
        Report::Operation(end) => {
            let Progress::Done(outcome) = &end.progress else { return };
            let (operation, host, result) = (end.operation, &end.host, outcome.as_str());
            match outcome {
                Outcome::Failed(error) => {
                    let Told { driver, code, text } = Told::of(Some(error));
                    tracing::warn!(%operation, %host, result, driver, code, text, "operation ended");
                }
                Outcome::Unknown(text) => tracing::warn!(%operation, %host, result, text, "operation ended"),
                _ => tracing::info!(%operation, %host, result, "operation ended"),
            }
        }
        Report::Facts(learned) => {
            let Facts { protocol, privilege, product, firmware, quirks, warnings, .. } = &learned.facts;
            tracing::info!(host = %learned.host, revision = learned.revision, ?protocol, ?privilege, ?product, ?firmware, ?quirks, ?warnings, "bmc learned");
        }
        Report::Password(proven) => {
            tracing::info!(operation = %proven.operation, host = %proven.host, in_force = proven.in_force.as_str(), "bmc password proven");
        }
        Report::Ha(ha) => {
            tracing::info!(host = %ha.host, state = %ha.state.name(), why = %ha.why, "host-ha state changed");
        }
        Report::Judged(judged) => {
            let held = judged.judgement.held_by();
            tracing::info!(host = %judged.host, act = ?judged.act, attempt = judged.attempt, ?held, "gates asked");
        }
        Report::Snapshot(_) => {}
    }
}

/// A driver's error in the words of the log.
struct Told<'a> {
    driver: &'a str,
    code: &'a str,
    text: &'a str,
}

impl<'a> Told<'a> {
    fn of(error: Option<&'a BmcError>) -> Self {
        error.map_or(Self { driver: "", code: "", text: "" }, |error| Self {
            driver: &error.driver,
            code: &error.code,
            text: &error.text,
        })
    }
}
