//! Host-HA at the centre: what agents are told of it (settings, gates, what goes on around them, what they may spend), what people
//! order, and what became of it. Decides nothing about a host's state: its agent does.
//!
//! ```text
//!  settings, gates, budget ── tell ──▶ agents ── reports ──▶ status, alerts
//!  people ── orders ─────────────────▶
//! ```

mod alerts;
mod around;
mod budget;
mod orders;
#[cfg(test)]
mod reported;
mod reports;
mod settings;
mod status;
mod tell;
#[cfg(test)]
mod tests;

pub(super) use around::{Lookout, ToldAround};
pub(super) use budget::Ledger;
pub(super) use orders::{Word, command, refusal};
pub use settings::{brakes_json, closed, gate, in_force, pause, settings_json};
pub use status::{Standing, ha_name, ha_view, host_ha, host_status, standing};
pub(super) use tell::ToldHa;
