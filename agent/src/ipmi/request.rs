//! What a session is asked and what it tells: plain words, no behaviour.

use std::time::Duration;

use ipmi_rs_core::connection::Message;

use super::failure::Failure;
use super::settings::Privilege;

/// CC 0xC0, node busy.
pub const CC_BUSY: u8 = 0xC0;
/// CC 0xD4, insufficient privilege level.
pub const CC_PRIVILEGE: u8 = 0xD4;

/// Whether a request may be sent again when its answer is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// Doing it twice equals doing it once.
    Freely,
    /// Only after the BMC answered that it lacked the privilege, so did nothing.
    Never,
}

/// What is asked of the BMC. Its message may hold a password, so it is never shown.
#[derive(Clone)]
pub struct Request {
    /// The command.
    pub message: Message,
    /// Whether it may be sent again.
    pub resend: Resend,
    /// When it fails if it has no answer yet (time since boot).
    pub deadline: Duration,
    /// In a session made for it; the kept one is closed first.
    pub anew: bool,
    /// In a session at exactly this level, instead of what the settings say.
    pub privilege: Option<Privilege>,
    /// Whether "insufficient privilege" is a reason to log in at another level; otherwise it is an answer.
    pub escalate: bool,
}

impl Request {
    /// A request in whatever session there is.
    #[must_use]
    pub const fn new(message: Message, resend: Resend, deadline: Duration) -> Self {
        Self { message, resend, deadline, anew: false, privilege: None, escalate: true }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let command = (self.message.netfn_raw(), self.message.cmd());
        f.debug_struct("Request").field("command", &command).field("resend", &self.resend).finish_non_exhaustive()
    }
}

/// A command's answer: verified, decrypted, and to this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// When the first copy of the answered request was sent (time since boot).
    pub begun: Duration,
    /// Completion code.
    pub completion_code: u8,
    data: [u8; Self::ROOM],
    len: usize,
}

impl Reply {
    /// The longest answer kept; no command of [`super::command`] has a longer one.
    const ROOM: usize = 64;

    /// An answer with the first bytes of `data`.
    #[must_use]
    pub fn new(begun: Duration, completion_code: u8, data: &[u8]) -> Self {
        let mut kept = [0u8; Self::ROOM];
        for (slot, byte) in kept.iter_mut().zip(data) {
            *slot = *byte;
        }
        Self { begun, completion_code, data: kept, len: data.len().min(Self::ROOM) }
    }

    /// What followed the completion code.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.data.get(..self.len).unwrap_or_default()
    }
}

/// What a session has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The request's end.
    Done(Result<Reply, Failure>),
    /// [`Session::close`](super::Session::close) is through.
    Closed,
}

/// Packets that were not believed, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    /// Not a packet at all.
    pub malformed: u32,
    /// Not expected in this state, or of another session.
    pub unexpected: u32,
    /// In a session, but not both authenticated and encrypted.
    pub unprotected: u32,
    /// The authentication code is wrong.
    pub forged: u32,
    /// Outside of the sequence window.
    pub replayed: u32,
    /// A true answer to another question.
    pub late: u32,
}
