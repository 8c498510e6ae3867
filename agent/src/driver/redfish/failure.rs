//! A failure before it knows its BMC's address, and how far a job had come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bmc::{Bmc, DriverError, ErrorClass, NOT_SUPPORTED};
use crate::clock;

/// Becomes a [`DriverError`] when the BMC's address is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub class: ErrorClass,
    pub code: String,
    pub text: String,
    pub maybe_sent: bool,
}

impl Failure {
    pub(super) fn new(class: ErrorClass, code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { class, code: code.into(), text: text.into(), maybe_sent: false }
    }

    pub(super) fn setting(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Setting, code, text)
    }

    pub(super) fn protocol(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Protocol, code, text)
    }

    pub(super) fn connection(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Connection, code, text)
    }

    /// This BMC cannot do it.
    pub(super) fn not_supported(text: impl Into<String>) -> Self {
        Self::new(ErrorClass::Refused, NOT_SUPPORTED, text)
    }

    /// The host was taken away from this agent, or was given other settings.
    pub(super) fn forgotten() -> Self {
        Self::connection("forgotten", "the host was removed, disabled or given other settings")
    }

    pub(super) fn at(self, bmc: &Bmc) -> DriverError {
        let port = bmc.port.unwrap_or(super::DEFAULT_PORT);
        DriverError {
            driver: super::DESCRIPTOR.name,
            address: format!("{}:{port}", bmc.address),
            class: self.class,
            code: self.code,
            text: self.text,
            maybe_sent: self.maybe_sent,
        }
    }
}

/// How far a job has come; read by the one who keeps its deadline.
#[derive(Debug)]
pub(super) struct Progress {
    begun: Mutex<Duration>,
    step: Mutex<&'static str>,
    order_out: AtomicBool,
    forgotten: Arc<AtomicBool>,
}

impl Progress {
    /// `forgotten` becomes true when the host is taken away.
    pub(super) fn new(forgotten: Arc<AtomicBool>) -> Self {
        Self {
            begun: Mutex::new(clock::boottime()),
            step: Mutex::new("waiting for its turn"),
            order_out: AtomicBool::new(false),
            forgotten,
        }
    }

    /// Looked at before anything that changes something goes out: between reading and ordering the host may have been taken
    /// away.
    ///
    /// # Errors
    /// It was.
    pub(super) fn still_wanted(&self) -> Result<(), Failure> {
        if self.forgotten.load(Ordering::SeqCst) { Err(Failure::forgotten()) } else { Ok(()) }
    }

    /// The request whose answer will count goes out now.
    pub(super) fn begin(&self, step: &'static str) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = clock::boottime();
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    pub(super) fn begun(&self) -> Duration {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn step(&self) -> &'static str {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an order is on its way without an answer.
    pub(super) fn set_order_out(&self, out: bool) {
        self.order_out.store(out, Ordering::SeqCst);
    }

    pub(super) fn is_order_out(&self) -> bool {
        self.order_out.load(Ordering::SeqCst)
    }
}
