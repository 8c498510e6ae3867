//! The public tree's way through rumqttd's router: one topic, one link, a bounded window. Names rumqttd; nothing else does.
//!
//! The router keeps an entry for every topic and every filter it ever saw, and its log drops what a reader has not read when
//! it is full. So it sees one fixed topic, ours is inside the message, and no more is under way than its log holds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::{Notification, Router, RouterConfig};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use super::seat::{Consumers, Cut};
use super::{BrokerError, Form, MAX_PUBLIC_LEN, Message};

const TOPIC: &str = "bus";
/// Messages under way in the router; its link's buffer pauses at 200.
const WINDOW_MESSAGES: usize = 128;
/// Bytes under way in the router. One message more may join, so at most 1 MiB: below one of the log's segments.
const WINDOW_BYTES: usize = 768 * 1024;
const SEGMENT_BYTES: usize = 1024 * 1024;
const SEGMENTS: usize = 3;
const _: () = assert!(WINDOW_BYTES + MAX_PUBLIC_LEN <= SEGMENT_BYTES);

/// What goes into the bus.
pub(super) enum Feed {
    Message { topic: Arc<str>, message: Message, retain: bool },
    Probe(oneshot::Sender<()>),
}

/// Starts the router and the task that feeds and reads it.
pub(super) fn start(feed: mpsc::Receiver<Feed>, consumers: Arc<Consumers>) -> Result<(), BrokerError> {
    let config = RouterConfig {
        max_connections: 8,
        max_outgoing_packet_count: 200,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    };
    let router = Router::new(0, config).spawn();
    let (mut tx, rx, _) = LinkBuilder::new("picket", router).build().map_err(|_| BrokerError::Stopped)?;
    tx.subscribe(TOPIC).map_err(|_| BrokerError::Stopped)?;
    let bus = Bus { tx, rx, consumers, window: Window::default(), probes: HashMap::new() };
    tokio::spawn(bus.run(feed));
    Ok(())
}

struct Bus {
    tx: LinkTx,
    rx: LinkRx,
    consumers: Arc<Consumers>,
    window: Window,
    probes: HashMap<u64, oneshot::Sender<()>>,
}

impl Bus {
    async fn run(mut self, mut feed: mpsc::Receiver<Feed>) {
        loop {
            let done = tokio::select! {
                item = feed.recv(), if self.window.is_open() => match item {
                    Some(item) => self.put(item),
                    None => return,
                },
                notification = self.rx.next() => match notification {
                    Ok(Some(notification)) => self.take(notification).await,
                    Ok(None) => Ok(()),
                    Err(_) => Err(BrokerError::Stopped),
                },
            };
            if let Err(cause) = done {
                // The feed is dropped here: from now on every probe fails, and the watchdog ends the process.
                error!(%cause, "router failed, all consumers are cut");
                self.consumers.cut_all(Cut::Gap);
                return;
            }
        }
    }

    fn put(&mut self, item: Feed) -> Result<(), BrokerError> {
        let bytes = match item {
            Feed::Message { topic, message, retain } => frame(self.window.next, &topic, &message, retain)?,
            Feed::Probe(done) => {
                self.probes.retain(|_, waiting| !waiting.is_closed());
                self.probes.insert(self.window.next, done);
                frame(self.window.next, "", &Message::opaque(Bytes::new()), false)?
            }
        };
        self.window.sent(bytes.len());
        self.tx.publish(TOPIC, bytes).map(drop).map_err(|_| BrokerError::Stopped)
    }

    async fn take(&mut self, notification: Notification) -> Result<(), BrokerError> {
        match notification {
            Notification::Forward(forward) => self.arrived(forward.publish.payload),
            // The link's buffer was full and has been emptied: the router waits to be told.
            Notification::Unschedule => return self.rx.wake().await.map_err(|_| BrokerError::Stopped),
            Notification::Disconnect(..) => return Err(BrokerError::Stopped),
            _ => {}
        }
        Ok(())
    }

    fn arrived(&mut self, bytes: Bytes) {
        let Some(Arrived { seq, retain, topic, message }) = unframe(bytes) else { return };
        let lost = self.window.received(seq);
        if lost > 0 {
            error!(lost, "router lost public messages, all consumers are cut");
            self.consumers.cut_all(Cut::Gap);
        }
        if !topic.is_empty() {
            self.consumers.deliver(&topic, &Arc::new(message), retain);
        } else if self.probes.remove(&seq).is_none_or(|done| done.send(()).is_err()) {
            info!("probe came back after its time");
        }
    }
}

/// What is under way, in order.
#[derive(Debug, Default)]
struct Window {
    next: u64,
    under_way: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Window {
    fn is_open(&self) -> bool {
        self.under_way.len() < WINDOW_MESSAGES && self.bytes < WINDOW_BYTES
    }

    fn sent(&mut self, len: usize) {
        self.under_way.push_back((self.next, len));
        self.bytes += len;
        self.next += 1;
    }

    /// Takes `seq` and everything before it off; how many before it never arrived.
    fn received(&mut self, seq: u64) -> usize {
        let mut lost = 0;
        while let Some(&(oldest, len)) = self.under_way.front()
            && oldest <= seq
        {
            self.under_way.pop_front();
            self.bytes -= len;
            lost += usize::from(oldest != seq);
        }
        lost
    }
}

/// What precedes a payload on its way through the router.
#[derive(Serialize, Deserialize)]
struct Header<'a, F> {
    seq: u64,
    retain: bool,
    topic: &'a str,
    form: F,
}

fn frame(seq: u64, topic: &str, message: &Message, retain: bool) -> Result<Bytes, BrokerError> {
    let header = Header { seq, retain, topic, form: message.form() };
    // Into memory nothing fails to be written.
    let mut bytes = postcard::to_stdvec(&header).map_err(|_| BrokerError::Stopped)?;
    bytes.extend_from_slice(message.payload());
    Ok(bytes.into())
}

struct Arrived {
    seq: u64,
    retain: bool,
    topic: Arc<str>,
    message: Message,
}

fn unframe(bytes: Bytes) -> Option<Arrived> {
    let (Header { seq, retain, topic, form }, payload) = postcard::take_from_bytes::<Header<'_, Form>>(&bytes).ok()?;
    Some(Arrived { seq, retain, topic: topic.into(), message: Message::new(bytes.slice_ref(payload), form) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        let event = Message::event(r#"{"data":1}"#.into(), vec![("id".into(), "7".into())], 8..9);
        for (topic, message, retain) in [
            ("a/b", Message::document("x".into()), true),
            ("", Message::opaque(Bytes::new()), false),
            ("t", Message::document(Bytes::new()), true),
            ("e", event, false),
        ] {
            let arrived = unframe(frame(7, topic, &message, retain).unwrap()).unwrap();
            assert_eq!((arrived.seq, &*arrived.topic, arrived.message, arrived.retain), (7, topic, message, retain));
        }
        assert!(unframe(Bytes::from_static(b"\0\0\x05abc")).is_none());
        assert!(unframe(Bytes::new()).is_none());
    }

    #[test]
    fn the_window_counts_what_is_lost() {
        let mut window = Window::default();
        for _ in 0..WINDOW_MESSAGES {
            assert!(window.is_open());
            window.sent(10);
        }
        assert!(!window.is_open());
        assert_eq!(window.received(0), 0);
        assert!(window.is_open());
        assert_eq!(window.received(4), 3);
        assert_eq!(window.received(4), 0);
        assert_eq!(window.bytes, (WINDOW_MESSAGES - 5) * 10);
        window.sent(WINDOW_BYTES);
        assert!(!window.is_open());
    }
}
