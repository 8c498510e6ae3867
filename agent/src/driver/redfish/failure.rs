//! How far a job had come when it failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
pub(super) use crate::driver::failure::Failure;

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
