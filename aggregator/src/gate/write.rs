//! What goes out to a client: answers, live messages and retained documents, with flow control. Reads nothing itself.
//!
//! Live messages and retained documents take turns, so that neither a large snapshot nor a storm of changes holds up the
//! other, and none is sent while a snapshot is being read. A live change of a document takes the older one out of what is still to be sent.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::Limits;
use super::end::End;
use super::packet::answer::{self, Outgoing};
use super::packet::{Connect, Takes, Version};
use super::read::Control;
use crate::broker::{Delivery, Message, Qos};
use crate::clock;

/// QoS 1 messages a client may owe us the acknowledgement of, unless it wants fewer.
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
    version: Version,
    window: usize,
    /// Longest packet the client takes.
    max_packet: usize,
    /// A message was longer.
    has_skipped: bool,
    out: BytesMut,
    snapshot: BTreeMap<String, (Message, Qos)>,
    /// A snapshot is being read: live messages wait in their queue.
    held: bool,
    in_flight: HashSet<u16>,
    last_id: u16,
    /// When the client last acknowledged something, or began to owe (since boot).
    progress: Duration,
}

impl<S: AsyncWrite> Writer<S> {
    /// `greeting` is what is sent first: the CONNACK.
    pub(super) fn new(
        output: WriteHalf<S>,
        queue: mpsc::Receiver<Delivery>,
        control: mpsc::Receiver<Control>,
        limits: &Limits,
        connect: &Connect,
        greeting: BytesMut,
    ) -> Self {
        let state = State::new(connect.version, connect.takes, greeting);
        Self { output, queue, control, write_time: limits.write, acknowledge_time: limits.acknowledge, state }
    }

    /// Writes to the end of the session.
    pub(super) async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }

    /// Says why it ends, when there is a word for it, and that nothing follows: to a client an end without that is an attack.
    pub(super) async fn close(&mut self, end: &End) -> io::Result<()> {
        self.state.last_word(end);
        self.output.write_all_buf(&mut self.state.out).await?;
        self.output.shutdown().await
    }

    async fn step(&mut self) -> Result<(), End> {
        self.gather();
        if !self.state.out.is_empty() {
            // Whatever interrupts this, what is left in `out` is what has not been written.
            let written = timeout(self.write_time, async {
                self.output.write_all_buf(&mut self.state.out).await?;
                self.output.flush().await
            });
            return Ok(written.await.map_err(|_| End::NotReading)??);
        }
        let patience = (self.state.progress + self.acknowledge_time).saturating_sub(clock::now().boottime);
        tokio::select! {
            control = self.control.recv() => self.state.control(control.ok_or(End::Closed)?),
            delivery = self.queue.recv(), if self.state.takes_live() => self.state.live(&delivery.ok_or(End::Stopping)?),
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
                self.state.live(&delivery);
                idle = false;
            }
            if idle & !self.state.retained() {
                return;
            }
        }
    }
}

impl State {
    fn new(version: Version, takes: Takes, out: BytesMut) -> Self {
        Self {
            version,
            window: WINDOW.min(takes.unacknowledged),
            max_packet: takes.packet_len,
            has_skipped: false,
            out,
            snapshot: BTreeMap::new(),
            held: false,
            in_flight: HashSet::new(),
            last_id: 0,
            progress: clock::now().boottime,
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.window
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
                let documents = documents.into_iter().map(|(topic, json)| (topic, (Message::document(json), qos)));
                self.snapshot.extend(documents);
            }
        }
    }

    fn live(&mut self, delivery: &Delivery) {
        let Delivery { topic, message, terms, retained } = delivery;
        if *retained {
            self.snapshot.remove(&**topic);
        }
        // To a subscription that stands, a retained change is sent as any message, unless it asked (§3.3.1.3).
        self.send(topic, message, terms.qos, *retained && terms.retain_as_published);
    }

    /// Sends the next retained document; `false` when there is none, or no room.
    fn retained(&mut self) -> bool {
        if !self.has_room() {
            return false;
        }
        let Some((topic, (message, qos))) = self.snapshot.pop_first() else { return false };
        self.send(&topic, &message, qos, true);
        true
    }

    /// A message too long for the client counts as sent (MQTT 5 §3.1.2.11.4).
    fn send(&mut self, topic: &str, message: &Message, qos: Qos, retain: bool) {
        let id = match qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(self.next_id()),
        };
        let before = self.out.len();
        answer::publish(&mut self.out, self.version, &Outgoing { topic, message, id, retain });
        let len = self.out.len() - before;
        if len <= self.max_packet {
            return;
        }
        self.out.truncate(before);
        if let Some(id) = id {
            self.in_flight.remove(&id);
        }
        if !std::mem::replace(&mut self.has_skipped, true) {
            info!(topic, len, max = self.max_packet, "a client does not get what is longer than it takes packets");
        }
    }

    fn last_word(&mut self, end: &End) {
        if let (Version::Mqtt5, Some(reason)) = (self.version, end.reason()) {
            answer::disconnect(&mut self.out, reason, &end.to_string(), self.max_packet);
        }
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
    use bytes::Bytes;

    use super::super::packet::{Packet, Publish, decode};
    use super::*;
    use crate::broker::{Cut, Terms};

    const ALL: Takes = Takes { unacknowledged: usize::MAX, packet_len: usize::MAX };

    fn mqtt311() -> State {
        State::new(Version::Mqtt311, ALL, BytesMut::new())
    }

    fn sent(state: &mut State) -> Vec<Publish> {
        let mut publishes = Vec::new();
        // A server's PUBLISH reads as a client's.
        while let Some(packet) = decode(&mut state.out, 1 << 20, Some(state.version)).unwrap() {
            match packet {
                Packet::Publish(publish) => publishes.push(publish),
                other => panic!("{other:?}"),
            }
        }
        publishes
    }

    fn live(topic: &str, payload: &'static str, retained: bool, retain_as_published: bool) -> Delivery {
        let message = Message::document(payload.into()).into();
        Delivery { topic: topic.into(), message, terms: Terms { qos: Qos::AtLeastOnce, retain_as_published }, retained }
    }

    fn documents(count: usize) -> Control {
        let documents = (0..count).map(|i| (format!("t{i:03}"), Bytes::from_static(b"x"))).collect();
        Control::Snapshot(documents, Qos::AtLeastOnce)
    }

    #[test]
    fn an_older_document_never_follows_a_newer_one() {
        let mut state = mqtt311();
        let documents = [("a", "old"), ("b", "old")].map(|(topic, payload)| (topic.to_owned(), payload.into()));
        state.control(Control::Snapshot(documents.into(), Qos::AtLeastOnce));
        state.live(&live("a", "new", true, false));
        state.live(&live("b", "an event on the same topic", false, false));
        while state.retained() {}
        let sent: Vec<_> = sent(&mut state).into_iter().map(|p| (p.topic, p.payload, p.retain)).collect();
        let wanted = [("a", "new", false), ("b", "an event on the same topic", false), ("b", "old", true)];
        assert_eq!(sent, wanted.map(|(topic, payload, retain)| (topic.to_owned(), payload.into(), retain)));
    }

    #[test]
    fn a_change_is_marked_as_retained_for_who_asked_for_it() {
        let mut state = State::new(Version::Mqtt5, ALL, BytesMut::new());
        for (retained, as_published) in [(true, true), (true, false), (false, true), (false, false)] {
            state.live(&live("a", "x", retained, as_published));
        }
        let marks: Vec<bool> = sent(&mut state).into_iter().map(|publish| publish.retain).collect();
        assert_eq!(marks, [true, false, false, false]);
    }

    #[test]
    fn the_window_holds_and_acknowledgements_open_it() {
        for (version, unacknowledged, window) in
            [(Version::Mqtt311, usize::MAX, WINDOW), (Version::Mqtt5, 65_535, WINDOW), (Version::Mqtt5, 7, 7)]
        {
            let mut state = State::new(version, Takes { unacknowledged, ..ALL }, BytesMut::new());
            state.control(documents(300));
            while state.retained() {}
            let first = sent(&mut state);
            assert_eq!(first.len(), window);
            let ids: HashSet<u16> = first.iter().filter_map(|p| p.id).collect();
            assert_eq!(ids.len(), window, "every id is used once");
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

    #[test]
    fn what_is_too_long_for_the_client_is_not_sent_and_not_waited_for() {
        let mut state = State::new(Version::Mqtt5, Takes { packet_len: 40, unacknowledged: 1 }, BytesMut::new());
        state.live(&live("a", "a document that is far too long for it, as one can see", true, false));
        assert!(state.out.is_empty() && state.has_room());
        // 2 of header, 3 of topic, 2 of id, 1 + 21 of properties: 11 remain.
        state.live(&live("a", "hello world!", true, false));
        assert!(state.out.is_empty() && state.has_room());
        state.live(&live("a", "hello world", true, false));
        assert_eq!(sent(&mut state).pop().unwrap().payload, "hello world");
        assert!(!state.has_room());
    }

    #[test]
    fn the_last_word_follows_what_was_begun() {
        let mut state = State::new(Version::Mqtt5, ALL, BytesMut::from(&b"rest of a packet"[..]));
        state.last_word(&End::Cut(Cut::TakenOver));
        assert_eq!(&state.out[..16], b"rest of a packet");
        assert_eq!((state.out[16], state.out[18]), (0xe0, 0x8e));
        for end in [End::Disconnect, End::Closed, End::Failed] {
            let mut state = State::new(Version::Mqtt5, ALL, BytesMut::new());
            state.last_word(&end);
            assert!(state.out.is_empty(), "{end}");
        }
        let mut state = mqtt311();
        state.last_word(&End::Cut(Cut::TakenOver));
        assert!(state.out.is_empty(), "3.1.1 has no such word");
    }
}
