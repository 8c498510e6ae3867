//! The session table of one BMC and its life: half-open, up, idle too long, gone. No bytes here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::bmc::Privilege;
use super::crypto::{Keyed, PacketKeys, Suite};

/// A handshake that stalls frees its place after this long.
const HALF_OPEN: Duration = Duration::from_secs(15);
/// Sequence numbers further ahead than this are not accepted (§6.12.13 asks for at least 16).
const WINDOW: u32 = 32;

/// The sessions of one BMC.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    list: Vec<Session>,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Ours: what the console puts into its packets.
    pub(crate) id: u32,
    /// The console's: what we put into ours.
    pub(crate) remote: u32,
    pub(crate) peer: SocketAddr,
    pub(crate) suite: Suite,
    pub(crate) last_heard: Instant,
    /// Highest privilege asked for at Open Session, 0 for "any".
    pub(crate) asked: u8,
    pub(crate) rakp: Option<Rakp>,
    pub(crate) up: Option<Up>,
}

/// What RAKP 1 brought and RAKP 2 answered.
pub(crate) struct Rakp {
    pub(crate) console_random: [u8; 16],
    pub(crate) bmc_random: [u8; 16],
    pub(crate) role: u8,
    pub(crate) user: String,
    pub(crate) key: Keyed,
    pub(crate) sik: Keyed,
    pub(crate) limit: Privilege,
}

impl std::fmt::Debug for Rakp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rakp").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a session that is up needs.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) keys: PacketKeys,
    pub(crate) user: Arc<str>,
    pub(crate) limit: Privilege,
    pub(crate) privilege: Privilege,
    sent: u32,
    heard: u32,
    seen: u32,
}

/// What the sequence number of a packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    New,
    Replay,
    OutOfWindow,
}

impl Up {
    pub(crate) const fn new(keys: PacketKeys, user: Arc<str>, limit: Privilege) -> Self {
        Self { keys, user, limit, privilege: Privilege::User, sent: 0, heard: 0, seen: 0 }
    }

    /// The next number of ours; 0 is never used in a session.
    pub(crate) const fn next_sequence(&mut self) -> u32 {
        self.sent = match self.sent.wrapping_add(1) {
            0 => 1,
            next => next,
        };
        self.sent
    }

    /// Judges a number and remembers it.
    pub(crate) fn arrives(&mut self, sequence: u32) -> Arrival {
        let ahead = sequence.wrapping_sub(self.heard);
        let behind = self.heard.wrapping_sub(sequence);
        if ahead != 0 && ahead <= WINDOW {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.heard = sequence;
            return Arrival::New;
        }
        match 1u32.checked_shl(behind) {
            None => Arrival::OutOfWindow,
            Some(bit) if self.seen & bit != 0 => Arrival::Replay,
            Some(bit) => {
                self.seen |= bit;
                Arrival::New
            }
        }
    }
}

impl Sessions {
    /// Drops sessions that were silent too long.
    pub(crate) fn expire(&mut self, now: Instant, idle: Duration) {
        self.list.retain(|session| {
            let limit = if session.up.is_some() { idle } else { HALF_OPEN };
            now.saturating_duration_since(session.last_heard) < limit
        });
    }

    pub(crate) const fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn up_count(&self) -> usize {
        self.list.iter().filter(|session| session.up.is_some()).count()
    }

    pub(crate) fn find(&mut self, id: u32) -> Option<&mut Session> {
        self.list.iter_mut().find(|session| session.id == id)
    }

    /// A half-open session of the same console and id: its Open Session was sent again.
    pub(crate) fn reopened(&mut self, peer: SocketAddr, remote: u32) -> Option<&mut Session> {
        self.list.iter_mut().find(|session| session.peer == peer && session.remote == remote && session.rakp.is_none())
    }

    pub(crate) fn push(&mut self, session: Session) {
        self.list.push(session);
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<Session> {
        let place = self.list.iter().position(|session| session.id == id)?;
        Some(self.list.swap_remove(place))
    }

    pub(crate) fn forget_all(&mut self) {
        self.list.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_taken_once_and_within_the_window() {
        let keys = PacketKeys::new(Suite::Three, &Keyed::new(Suite::Three, b"k"));
        let mut up = Up::new(keys, Arc::from(""), Privilege::User);
        let table = [
            (1, Arrival::New),
            (1, Arrival::Replay),
            (3, Arrival::New),
            (2, Arrival::New),
            (2, Arrival::Replay),
            (35, Arrival::New),
            (3, Arrival::OutOfWindow),
            (4, Arrival::New),
            (4, Arrival::Replay),
            (35 + WINDOW + 1, Arrival::OutOfWindow),
            (35 + WINDOW, Arrival::New),
        ];
        for (sequence, want) in table {
            assert_eq!(up.arrives(sequence), want, "{sequence}");
        }
    }
}
