//! What goes out to a client: answers, live messages and retained documents, with flow control. Reads nothing itself.
//!
//! Live messages and retained documents take turns, so that neither a large snapshot nor a storm of changes holds up the
//! other, and none is sent while a snapshot is being read. A live change of a document takes the older one out of what is still to be sent.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Limits;
use super::packet::{self, ConnAck};
use super::read::Control;
use super::session::End;
use crate::broker::{Delivery, Qos};
use crate::clock;

/// QoS 1 messages a client may owe us the acknowledgement of.
const WINDOW: usize = 128;
/// Bytes gathered for one write.
const BATCH: usize = 32 * 1024;

pub(super) struct Writer<S> {
    output: WriteHalf<S>,
    queue: mpsc::Receiver<Delivery>,
    control: mpsc::Receiver<Control>,
    write_time: Duration,
    acknowledge_time: Duration,
    state: State,
}

/// What is to be sent and what is owed; pure but for the clock of `progress`.
struct State {
    out: BytesMut,
    snapshot: BTreeMap<String, (Bytes, Qos)>,
    /// A snapshot is being read: live messages wait in their queue.
    held: bool,
    in_flight: HashSet<u16>,
    last_id: u16,
    /// When the client last acknowledged something, or began to owe (since boot).
    progress: Duration,
}

impl<S: AsyncWrite> Writer<S> {
    pub(super) fn new(
        output: WriteHalf<S>,
        queue: mpsc::Receiver<Delivery>,
        control: mpsc::Receiver<Control>,
        limits: &Limits,
    ) -> Self {
        Self { output, queue, control, write_time: limits.write, acknowledge_time: limits.acknowledge, state: State::new() }
    }

    /// Writes to the end of the session, beginning with the CONNACK.
    pub(super) async fn run(mut self) -> End {
        packet::connack(&mut self.state.out, ConnAck::Accepted);
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    async fn step(&mut self) -> Result<(), End> {
        self.gather();
        if !self.state.out.is_empty() {
            let written = timeout(self.write_time, async {
                self.output.write_all(&self.state.out).await?;
                self.output.flush().await
            });
            written.await.map_err(|_| End::NotReading)??;
            self.state.out.clear();
            return Ok(());
        }
        let patience = (self.state.progress + self.acknowledge_time).saturating_sub(clock::now().boottime);
        tokio::select! {
            control = self.control.recv() => self.state.control(control.ok_or(End::Closed)?),
            delivery = self.queue.recv(), if self.state.takes_live() => self.state.live(delivery.ok_or(End::Stopping)?),
            () = sleep(patience), if !self.state.in_flight.is_empty() => return Err(End::NotAcknowledging),
        }
        Ok(())
    }

    /// Takes what is ready, up to a batch.
    fn gather(&mut self) {
        while self.state.out.len() < BATCH {
            let mut idle = true;
            if let Ok(control) = self.control.try_recv() {
                self.state.control(control);
                idle = false;
            }
            if self.state.takes_live()
                && let Ok(delivery) = self.queue.try_recv()
            {
                self.state.live(delivery);
                idle = false;
            }
            if idle & !self.state.retained() {
                return;
            }
        }
    }
}

impl State {
    fn new() -> Self {
        let (out, snapshot, in_flight) = (BytesMut::new(), BTreeMap::new(), HashSet::new());
        Self { out, snapshot, held: false, in_flight, last_id: 0, progress: clock::now().boottime }
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < WINDOW
    }

    fn takes_live(&self) -> bool {
        self.has_room() && !self.held
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::Packet(bytes) => self.out.extend_from_slice(&bytes),
            Control::Acked(id) => {
                if self.in_flight.remove(&id) {
                    self.progress = clock::now().boottime;
                }
            }
            // Who asked has gone: then the session ends anyway.
            Control::Hold(held) => self.held = held.send(()).is_ok(),
            Control::Snapshot(documents, qos) => {
                self.held = false;
                self.snapshot.extend(documents.into_iter().map(|(topic, payload)| (topic, (payload, qos))));
            }
        }
    }

    fn live(&mut self, delivery: Delivery) {
        let Delivery { topic, payload, qos, retained } = delivery;
        if retained {
            self.snapshot.remove(&*topic);
        }
        // To a subscription that stands, a retained change is sent as any message (§3.3.1.3).
        self.send(&topic, &payload, qos, false);
    }

    /// Sends the next retained document; `false` when there is none, or no room.
    fn retained(&mut self) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some((topic, (payload, qos))) = self.snapshot.pop_first() else { return false };
        self.send(&topic, &payload, qos, true);
        true
    }

    fn send(&mut self, topic: &str, payload: &[u8], qos: Qos, retain: bool) {
        let id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(self.next_id()),
        };
        packet::publish_out(&mut self.out, topic, payload, id, retain);
    }

    /// A packet id not in use; the window is far smaller than their number.
    fn next_id(&mut self) -> u16 {
        if self.in_flight.is_empty() {
            self.progress = clock::now().boottime;
        }
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.in_flight.insert(self.last_id) {
                return self.last_id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Packet, Publish, decode};
    use super::*;

    fn sent(state: &mut State) -> Vec<Publish> {
        let mut publishes = Vec::new();
        // A server's PUBLISH reads as a client's.
        while let Some(packet) = decode(&mut state.out, 1 << 20).unwrap() {
            match packet {
                Packet::Publish(publish) => publishes.push(publish),
                other => panic!("{other:?}"),
            }
        }
        publishes
    }

    fn live(topic: &str, payload: &'static str, retained: bool) -> Delivery {
        Delivery { topic: topic.into(), payload: payload.into(), qos: Qos::AtLeastOnce, retained }
    }

    #[test]
    fn an_older_document_never_follows_a_newer_one() {
        let mut state = State::new();
        let documents = [("a", "old"), ("b", "old")].map(|(topic, payload)| (topic.to_owned(), payload.into()));
        state.control(Control::Snapshot(documents.into(), Qos::AtLeastOnce));
        state.live(live("a", "new", true));
        state.live(live("b", "an event on the same topic", false));
        while state.retained() {}
        let sent: Vec<_> = sent(&mut state).into_iter().map(|p| (p.topic, p.payload, p.retain)).collect();
        let wanted = [("a", "new", false), ("b", "an event on the same topic", false), ("b", "old", true)];
        assert_eq!(sent, wanted.map(|(topic, payload, retain)| (topic.to_owned(), payload.into(), retain)));
    }

    #[test]
    fn the_window_holds_and_acknowledgements_open_it() {
        let mut state = State::new();
        let documents = (0..300).map(|i| (format!("t{i:03}"), Bytes::from_static(b"x"))).collect();
        state.control(Control::Snapshot(documents, Qos::AtLeastOnce));
        while state.retained() {}
        let first = sent(&mut state);
        assert_eq!(first.len(), WINDOW);
        let ids: HashSet<u16> = first.iter().filter_map(|p| p.id).collect();
        assert_eq!(ids.len(), WINDOW, "every id is used once");
        state.control(Control::Acked(9999));
        assert!(!state.retained(), "an acknowledgement of nothing opens nothing");
        state.control(Control::Acked(3));
        state.control(Control::Acked(3));
        assert!(state.retained() && !state.retained());
        state.last_id = u16::MAX;
        for id in 1..=u16::MAX {
            state.control(Control::Acked(id));
        }
        assert!(state.retained());
        assert_eq!(sent(&mut state).last().unwrap().id, Some(1), "ids wrap past 0");
    }
}
