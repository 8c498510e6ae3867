//! IPMI 2.0 over RMCP+: one BMC's session as a state machine. No sockets, no clock, no randomness of its own.
//!
//! ```text
//!            request            capabilities        status 0             code right          code right
//!   Idle ──────────────▶ Caps ──────────────▶ Open ─────────▶ Rakp1 ──────────────▶ Rakp3 ──────────────▶ Up
//!    ▲                    │ silence: go on      │ refused: next suite     │ refused: next privilege       │
//!    └────────────────────┴─────────────────────┴── failed ──────────────┴────── silent, closed ─────────┘
//! ```
//!
//! The shell hands in what the network and the clock brought (`handle_datagram`, `handle_timeout`) and what is wanted
//! (`request`, `close`), then asks what to do next (`poll_transmit`, `poll_timeout`, `poll_event`). Time is the
//! `Duration` since boot; randomness comes through [`Random`].

pub mod boot;
pub mod command;
pub mod crypto;
pub mod failure;
pub mod guard;
pub mod guid;
pub mod inspect;
mod job;
mod live;
pub mod login;
pub mod power;
pub mod quirks;
pub mod request;
pub mod script;
pub mod session;
pub mod settings;
pub mod suite;
#[cfg(test)]
pub(crate) mod testbmc;
#[cfg(test)]
mod tests;
pub mod unusable;
pub mod user;
mod window;
pub mod wire;

pub use failure::Failure;
pub use request::{Drops, Event, Reply, Request, Resend};
pub use script::{About, Next, Script};
pub use session::Session;
pub use settings::{SettingError, Settings};

/// Where a session's random bytes come from: the operating system's in the daemon, a seed in tests.
pub trait Random {
    /// Overwrites `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}
