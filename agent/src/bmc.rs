//! What is said to a driver and what a driver says back. Pure words: no sockets, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use picket_common::command::ErrorClass;
use picket_common::command::{BootDevice, Persistence};
use picket_common::facts::Facts;
use picket_common::id::HostId;
use picket_common::secret::Secret;
use serde::{Deserialize, Serialize};

/// One BMC's settings, as a driver needs them. Shown without the values of its options: one of them is a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Bmc {
    /// The host this BMC controls: the key under which drivers keep sessions.
    pub host: HostId,
    /// IP address or name; checked against `allowed_bmc_networks` after resolving, by the driver, before the first byte.
    pub address: String,
    /// Port, or the driver's default.
    pub port: Option<u16>,
    /// Login name; may be empty.
    pub username: String,
    /// Login password.
    pub password: Secret<String>,
    /// The driver's own options, by the names of its [`crate::driver::Descriptor`].
    pub options: BTreeMap<String, String>,
    /// Grows whenever any setting of this BMC changes; a kept session of another revision must not be used.
    pub revision: u64,
}

impl std::fmt::Debug for Bmc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let options: Vec<&str> = self.options.keys().map(String::as_str).collect();
        f.debug_struct("Bmc")
            .field("host", &self.host)
            .field("address", &self.address)
            .field("port", &self.port)
            .field("username", &self.username)
            .field("options", &options)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// What is asked of a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ask {
    /// Read the power state now.
    Status,
    /// Switch on.
    On,
    /// Switch off hard, never gracefully.
    Off,
    /// Ask the operating system to shut down (ACPI), never hard.
    Soft,
    /// Warm reset. Not idempotent: never sent twice.
    Reset,
    /// Diagnostic interrupt (NMI). Not idempotent: never sent twice.
    Diag,
    /// Light the identify LED for so many seconds; 0 puts it out.
    Identify {
        /// For how long (0 – 255).
        seconds: u16,
    },
    /// Choose what the host boots from.
    Bootdev {
        /// From what.
        device: BootDevice,
        /// For the next boot only, or until changed.
        persistence: Persistence,
    },
    /// Learn what the BMC is and can do, in a session made anew, and read the power.
    Inspect,
    /// Only log in, in a session made anew with the job's password: proves or refutes it. Kept sessions of the host are dropped first.
    TryLogin,
    /// Set the login's own password to the job's `new_password`. Not idempotent: never sent twice.
    SetPassword,
}

impl Ask {
    /// Whether doing it twice equals doing it once, so that a driver may retransmit it.
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        match self {
            Self::Status | Self::On | Self::Off | Self::Identify { .. } | Self::Bootdev { .. } | Self::Inspect | Self::TryLogin => {
                true
            }
            Self::Soft | Self::Reset | Self::Diag | Self::SetPassword => false,
        }
    }
}

/// A request with everything a driver needs to serve it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Chosen by the asker, handed back in the [`Completion`].
    pub ticket: u64,
    /// Whom to ask.
    pub bmc: Arc<Bmc>,
    /// What to ask.
    pub ask: Ask,
    /// For [`Ask::SetPassword`]: what to set.
    pub new_password: Option<Secret<String>>,
    /// The driver completes the job with [`ErrorClass::Deadline`] or better once this has passed.
    pub timeout: Duration,
}

/// A job's end; every job gets exactly one.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The job's ticket.
    pub ticket: u64,
    /// When the request behind the answer was begun (boottime): a reading is evidence only for what came before this.
    pub begun: Duration,
    /// The answer.
    pub result: Result<Answer, DriverError>,
}

/// Code of the error that a driver gives to jobs it leaves undone because the agent stops.
pub const SHUTTING_DOWN: &str = "shutting-down";

impl Completion {
    /// Whether the agent's own stop ended the request. It says nothing about the BMC: the request counts as never answered,
    /// as after a crash, and what it was for goes on from the journal.
    #[must_use]
    pub fn is_left_undone(&self) -> bool {
        self.result.as_ref().is_err_and(|error| error.code == SHUTTING_DOWN)
    }
}

/// A BMC's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Status`].
    Reading(Reading),
    /// To a power order.
    Power(PowerReply),
    /// To [`Ask::Inspect`].
    Facts(Box<Facts>, Reading),
    /// To [`Ask::Identify`], [`Ask::Bootdev`], [`Ask::SetPassword`]: taken; to [`Ask::TryLogin`]: the login works.
    Done,
}

/// One authenticated reading of the power state. Anything doubtful is an error, never a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reading {
    /// The BMC says On.
    On,
    /// The BMC says Off.
    Off,
    /// On its way (Redfish `PoweringOn`, `PoweringOff`, `Paused`): neither On nor Off.
    Transitioning,
}

/// How a BMC took a power order. None of these proves that anything happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PowerReply {
    /// Accepted; not yet done.
    Accepted,
    /// Refused in a way that can mean "already there" (IPMI 0xD5, Redfish 409, 400): read, then decide.
    NotInThisState,
}

/// A typed failure; travels to the log, the API and the alert as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{driver} {address}: {text} ({code})")]
pub struct DriverError {
    /// Driver name.
    pub driver: &'static str,
    /// The BMC, as configured (address and port).
    pub address: String,
    /// What kind.
    pub class: ErrorClass,
    /// Short stable code: `timeout`, `rakp2-hmac`, `0xd5`, `http-503`, `address-not-allowed`, ….
    pub code: String,
    /// One sentence for people: what was asked, what came back, what to do. Never a secret.
    pub text: String,
    /// Whether the order may have reached the BMC although no usable answer came back.
    pub maybe_sent: bool,
}

/// Code of the error for what a driver or BMC cannot do.
pub const NOT_SUPPORTED: &str = "not-supported";

impl DriverError {
    /// As it travels to the aggregator: texts cut to what the wire allows.
    #[must_use]
    pub fn to_wire(&self) -> picket_common::command::BmcError {
        picket_common::command::BmcError {
            driver: self.driver.to_owned(),
            class: self.class,
            code: cut(&self.code, 64),
            text: cut(&self.text, picket_common::wire::report::MAX_TEXT),
        }
    }
}

/// `text`, cut at a character boundary to at most `max` bytes.
#[must_use]
pub fn cut(text: &str, max: usize) -> String {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default().to_owned()
}
