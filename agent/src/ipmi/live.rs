//! A session that is up: its keys, ids and counters, and how a message is put into a packet of it.

use std::time::Duration;

use ipmi_rs_core::connection::Message;

use super::Random;
use super::crypto::{BLOCK, SessionKeys};
use super::login::Established;
use super::settings::Privilege;
use super::window::Window;
use super::wire::{self, LanRequest};

/// See the module.
pub struct Live {
    pub keys: SessionKeys,
    pub local_id: u32,
    pub remote_id: u32,
    pub port: u8,
    pub privilege: Privilege,
    pub sequence: u32,
    pub rq_seq: u8,
    pub window: Window,
    pub last_heard: Duration,
}

impl Live {
    pub fn new(established: Established, port: u8, privilege: Privilege, now: Duration) -> Self {
        let Established { keys, local_id, remote_id, detected: _ } = established;
        Self { keys, local_id, remote_id, port, privilege, sequence: 0, rq_seq: 0, window: Window::default(), last_heard: now }
    }

    /// Writes `message` with the next sequence numbers: a copy is never an exact replay, which BMCs execute again.
    pub fn write(&mut self, random: &mut impl Random, message: &Message, out: &mut Vec<u8>) {
        // 0 is the number of packets outside of sessions.
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        let mut iv = [0u8; BLOCK];
        random.fill(&mut iv);
        let request = LanRequest { netfn: message.netfn_raw(), rq_seq: self.rq_seq, command: message.cmd(), data: message.data() };
        wire::encode_session(out, &self.keys, self.remote_id, self.sequence, iv, &request);
        self.rq_seq = (self.rq_seq + 1) & 0x3F;
    }
}
