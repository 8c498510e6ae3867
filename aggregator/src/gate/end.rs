//! Why a connection came to nothing or ended, and what its other side is told of it. Does nothing.

use std::io;

use picket_common::id::SiteId;

use super::packet::{PacketError, Reason};
use crate::broker::Cut;
use crate::pki::IdentityError;

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("no TLS handshake in time")]
    HandshakeTime,
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error("no client certificate")]
    NoCertificate,
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the certificate is of site {0}")]
    Site(SiteId),
    #[error("the certificate's key is revoked, or not the agent's")]
    Revoked,
    #[error("no CONNECT in time")]
    ConnectTime,
    #[error("the connection ended before its CONNECT")]
    Ended,
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("CONNECT refused: {1}")]
    Connect(Reason, &'static str),
    #[error("cut before it began")]
    Cut,
    #[error("reading")]
    Io(#[from] io::Error),
}

impl Refused {
    /// What the CONNACK says, where there is one.
    pub(super) const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Packet(PacketError::NotConnect) => None,
            Self::Packet(error) => Some(error.reason()),
            Self::Connect(reason, _) => Some(*reason),
            _ => None,
        }
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("it said good-bye")]
    Disconnect,
    #[error("it left, and its will is to be said")]
    LeftWill,
    #[error("the other side closed the connection")]
    Closed,
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("not allowed: {1}")]
    Denied(Reason, &'static str),
    #[error("nothing was heard for 1.5 times its keep-alive")]
    Silent,
    #[error("an answer is longer than it takes packets")]
    Unanswerable,
    #[error("it does not read what is sent")]
    NotReading,
    #[error("it does not acknowledge what is sent")]
    NotAcknowledging,
    #[error("the daemon stops")]
    Stopping,
    #[error("cut: {0}")]
    Cut(Cut),
    #[error("its task failed")]
    Failed,
}

impl End {
    /// What a DISCONNECT says, where one can still be said.
    pub(super) const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Disconnect | Self::LeftWill | Self::Closed | Self::Io(_) | Self::NotReading | Self::Failed => None,
            Self::Packet(error) => Some(error.reason()),
            Self::Denied(reason, _) => Some(*reason),
            Self::Silent => Some(Reason::KeepAlive),
            Self::Unanswerable => Some(Reason::TooLarge),
            Self::NotAcknowledging | Self::Cut(Cut::TooSlow) => Some(Reason::Quota),
            Self::Stopping | Self::Cut(Cut::Stopping) => Some(Reason::ShuttingDown),
            Self::Cut(Cut::TakenOver) => Some(Reason::TakenOver),
            Self::Cut(Cut::Gap) => Some(Reason::Implementation),
            Self::Cut(Cut::Revoked) => Some(Reason::Administrative),
        }
    }

    /// Whether the other side may be in the middle of a word.
    pub(super) const fn is_interruption(&self) -> bool {
        matches!(self, Self::Packet(_) | Self::Denied(..))
    }

    /// Whether the daemon stops. The core stops too, so it is not told that its own agents are gone.
    pub(super) const fn is_stop(&self) -> bool {
        matches!(self, Self::Stopping | Self::Cut(Cut::Stopping))
    }
}
