//! The events as they happen: numbered over all restarts, the last ones in memory, the rest read from the store. Whoever listens
//! pulls at his own pace, so nobody is held up and nothing piles up for a slow one; one who falls behind all that is kept is told
//! so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use picket_common::api::CloudEvent;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::archive::{Archive, KeptEvents};

/// Events in memory for those who follow closely: about 4 MB.
const RECENT: usize = 4_096;
/// Events a listener takes at a time: what is held for one who stops reading.
const AT_ONCE: usize = 256;

/// An event with its JSON, rendered once for all who get it.
#[derive(Debug)]
pub struct Published {
    /// Its place among all events of the store, from 1.
    pub sequence: u64,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The event.
    pub event: CloudEvent,
    /// The same in structured mode (CloudEvents JSON event format §3).
    pub json: Bytes,
}

impl Published {
    /// Renders an event; types of the API always have a JSON form.
    #[must_use]
    pub fn new(sequence: u64, recorded_at: Timestamp, event: CloudEvent) -> Self {
        let json = serde_json::to_vec(&event).map(Bytes::from).unwrap_or_default();
        Self { sequence, recorded_at, event, json }
    }

    /// Reads one as it was stored.
    ///
    /// # Errors
    /// When it is no event.
    pub fn read(sequence: u64, recorded_at: Timestamp, json: &[u8]) -> serde_json::Result<Self> {
        let event = serde_json::from_slice(json)?;
        Ok(Self { sequence, recorded_at, event, json: Bytes::copy_from_slice(json) })
    }

    /// Names the place behind it: its sequence, and a mark by which a store put back from a backup shows that it is another event.
    #[must_use]
    pub fn cursor(&self) -> String {
        let digest = hex::encode(Sha256::digest(self.event.id.as_bytes()));
        format!("{}-{}", self.sequence, digest.get(..8).unwrap_or_default())
    }
}

/// Where a listener begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// With what happens from now on.
    Now,
    /// Behind the event with this cursor.
    Cursor(String),
    /// With what was recorded since then.
    Since(Timestamp),
}

/// The events; clones are the same.
#[derive(Clone)]
pub struct EventBus(Arc<Shared>);

struct Shared {
    recent: Mutex<VecDeque<Arc<Published>>>,
    /// Sequence of the last event.
    last: watch::Sender<u64>,
    archive: Archive,
}

/// What is in memory behind a place.
enum Recent {
    /// These, and perhaps more.
    Events(VecDeque<Arc<Published>>),
    /// Nothing: it is the last one.
    Nothing,
    /// It is too long ago.
    Older,
}

impl EventBus {
    /// Goes on behind event `last` of `archive`.
    #[must_use]
    pub fn new(archive: Archive, last: u64) -> Self {
        let recent = Mutex::new(VecDeque::with_capacity(RECENT));
        Self(Arc::new(Shared { recent, last: watch::Sender::new(last), archive }))
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Arc<Published>>> {
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who listens. The event is durable already.
    pub fn publish(&self, event: Arc<Published>) {
        let sequence = event.sequence;
        let mut recent = self.recent();
        // One commit that was durable although it said otherwise leaves a hole here: the store has what is missing.
        if recent.back().is_some_and(|last| last.sequence + 1 != sequence) {
            recent.clear();
        }
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(event);
        self.0.last.send_replace(sequence);
    }

    /// What is in memory behind `at`.
    fn behind(&self, at: u64) -> Recent {
        let recent = self.recent();
        if at >= *self.0.last.borrow() {
            return Recent::Nothing;
        }
        match recent.front() {
            Some(first) if first.sequence <= at + 1 => {
                let skip = usize::try_from(at + 1 - first.sequence).unwrap_or(usize::MAX);
                Recent::Events(recent.iter().skip(skip).take(AT_ONCE).cloned().collect())
            }
            _ => Recent::Older,
        }
    }

    /// Begins to listen. When it cannot begin where it is asked to, the first thing told is [`Next::Resync`].
    pub async fn subscribe(&self, from: From) -> Subscription {
        let mut last = self.0.last.subscribe();
        let now = *last.borrow_and_update();
        let at = match from {
            From::Now => Some(now),
            From::Cursor(cursor) => self.place_of(&cursor).await,
            From::Since(time) => self.since(time, now).await,
        };
        Subscription { bus: self.clone(), last, at: at.unwrap_or(now), resync: at.is_none(), ready: VecDeque::new() }
    }

    /// The sequence of a cursor, if that very event is still there.
    async fn place_of(&self, cursor: &str) -> Option<u64> {
        let sequence: u64 = cursor.split_once('-')?.0.parse().ok()?;
        let before = sequence.checked_sub(1)?;
        let found = match self.behind(before) {
            Recent::Events(events) => events.front().cloned(),
            Recent::Nothing => None,
            Recent::Older => self.0.archive.events(before, 1).await.ok()?.events.into_iter().next(),
        };
        found.filter(|event| event.sequence == sequence && event.cursor() == cursor).map(|event| event.sequence)
    }

    /// The place before what was recorded since then; none when that is longer ago than what is kept.
    async fn since(&self, time: Timestamp, now: u64) -> Option<u64> {
        let before = self.0.archive.events_before(time).await.ok()?.min(now);
        let oldest = self.0.archive.events(0, 1).await.ok()?.oldest;
        // Nothing was ever dropped, or something that was kept happened before.
        let whole = oldest.is_none_or(|oldest| oldest == 1 || before >= oldest);
        whole.then_some(before)
    }
}

/// One listener's place in the events.
pub struct Subscription {
    bus: EventBus,
    last: watch::Receiver<u64>,
    /// The last event taken.
    at: u64,
    resync: bool,
    ready: VecDeque<Arc<Published>>,
}

/// What a listener hears next.
#[derive(Debug)]
pub enum Next {
    /// An event.
    Event(Arc<Published>),
    /// Events were lost to this listener: read the state anew.
    Resync,
    /// What was missed cannot be read now.
    Failed,
}

impl Subscription {
    /// Waits for the next event. Safe to cancel.
    pub async fn next(&mut self) -> Next {
        loop {
            if std::mem::take(&mut self.resync) {
                return Next::Resync;
            }
            if let Some(event) = self.ready.pop_front() {
                self.at = event.sequence;
                return Next::Event(event);
            }
            match self.bus.behind(self.at) {
                Recent::Events(events) => self.ready = events,
                // The bus lives as long as this, so waiting cannot fail.
                Recent::Nothing => drop(self.last.changed().await),
                Recent::Older => match self.bus.0.archive.events(self.at, AT_ONCE).await {
                    Ok(kept) => self.take(kept),
                    Err(error) => {
                        tracing::error!(%error, "missed events cannot be read");
                        return Next::Failed;
                    }
                },
            }
        }
    }

    fn take(&mut self, kept: KeptEvents) {
        let KeptEvents { oldest, events, through } = kept;
        match oldest {
            Some(oldest) if oldest <= self.at + 1 => {
                // All that was read is behind this place, and what cannot be read is passed over.
                self.at = self.at.max(through.min(events.first().map_or(through, |first| first.sequence.saturating_sub(1))));
                self.ready = events.into();
            }
            Some(oldest) => {
                self.resync = true;
                self.at = oldest - 1;
            }
            None => {
                self.resync = true;
                self.at = *self.bus.0.last.borrow();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use picket_common::api::{AuditVerdict, EventData, EventWhat, HistoryEntry};
    use picket_common::id::HostId;

    use super::super::archive::{ArchiveError, ArchiveSource, AuditPage, AuditQuery};
    use super::*;
    use crate::fleet::{AnswerKey, KeptAnswer};

    fn event(sequence: u64) -> Arc<Published> {
        let data = EventData { host: None, zone: None, cluster: None, agent: None, what: EventWhat::Presence { connected: true } };
        let event = CloudEvent {
            specversion: "1.0".into(),
            id: format!("e{sequence}"),
            source: "/agent/a".into(),
            kind: "io.picket.agent.connected.v1".into(),
            subject: "a".into(),
            time: Timestamp::UNIX_EPOCH,
            datacontenttype: "application/json".into(),
            data,
        };
        Arc::new(Published::new(sequence, Timestamp::from_second(i64::try_from(sequence).unwrap()).unwrap(), event))
    }

    /// Keeps events `oldest` to `newest`.
    struct Kept {
        oldest: AtomicU64,
        newest: AtomicU64,
    }

    #[expect(clippy::unimplemented, reason = "only events are asked for here")]
    impl ArchiveSource for Kept {
        fn history(&self, _: &HostId, _: Option<u64>, _: usize) -> Result<Vec<HistoryEntry>, ArchiveError> {
            unimplemented!()
        }
        fn audit(&self, _: &AuditQuery) -> Result<AuditPage, ArchiveError> {
            unimplemented!()
        }
        fn audit_verdict(&self) -> Result<AuditVerdict, ArchiveError> {
            unimplemented!()
        }
        fn answer(&self, _: &AnswerKey, _: Timestamp) -> Result<Option<KeptAnswer>, ArchiveError> {
            unimplemented!()
        }
        fn events(&self, after: u64, limit: usize) -> Result<KeptEvents, ArchiveError> {
            let (oldest, newest) = (self.oldest.load(Ordering::SeqCst), self.newest.load(Ordering::SeqCst));
            let events: Vec<_> = (oldest.max(after + 1)..=newest).take(limit).map(event).collect();
            let through = events.last().map_or(after, |event| event.sequence);
            Ok(KeptEvents { oldest: (oldest <= newest).then_some(oldest), events, through })
        }
        fn events_before(&self, at: Timestamp) -> Result<u64, ArchiveError> {
            Ok(u64::try_from(at.as_second() - 1).unwrap().min(self.newest.load(Ordering::SeqCst)))
        }
    }

    /// A daemon started with events `oldest` to `newest` in its store.
    fn bus(oldest: u64, newest: u64) -> (EventBus, Arc<Kept>) {
        let kept = Arc::new(Kept { oldest: oldest.into(), newest: newest.into() });
        (EventBus::new(Archive::new(Arc::clone(&kept) as Arc<dyn ArchiveSource>), newest), kept)
    }

    fn publish(bus: &EventBus, kept: &Kept, sequence: u64) {
        kept.newest.store(sequence, Ordering::SeqCst);
        bus.publish(event(sequence));
    }

    async fn heard(subscription: &mut Subscription, count: usize) -> String {
        let mut words = Vec::new();
        for _ in 0..count {
            words.push(match subscription.next().await {
                Next::Event(event) => event.event.id.clone(),
                other => format!("{other:?}"),
            });
        }
        words.join(" ")
    }

    fn cursor(sequence: u64) -> From {
        From::Cursor(event(sequence).cursor())
    }

    #[tokio::test]
    async fn events_are_resumed_from_the_store_and_from_memory() {
        let (bus, kept) = bus(3, 5);
        for sequence in 6..=7 {
            publish(&bus, &kept, sequence);
        }
        for (from, wanted) in [
            (From::Now, "e8"),
            (cursor(3), "e4 e5 e6 e7 e8"),
            (cursor(5), "e6 e7 e8"),
            (cursor(6), "e7 e8"),
            (cursor(7), "e8"),
            (cursor(2), "Resync e8"),
            (cursor(9), "Resync e8"),
            (From::Cursor("6-00000000".into()), "Resync e8"),
            (From::Cursor("e6".into()), "Resync e8"),
            (From::Cursor("0-".into()), "Resync e8"),
            (From::Since(Timestamp::from_second(6).unwrap()), "e6 e7 e8"),
            (From::Since(Timestamp::from_second(4).unwrap()), "e4 e5 e6 e7 e8"),
            (From::Since(Timestamp::from_second(3).unwrap()), "Resync e8"),
            (From::Since(Timestamp::from_second(99).unwrap()), "e8"),
        ] {
            let (again, kept) = (EventBus::new(bus.0.archive.clone(), 5), &kept);
            for sequence in 6..=7 {
                publish(&again, kept, sequence);
            }
            let mut subscription = again.subscribe(from.clone()).await;
            publish(&again, kept, 8);
            assert_eq!(heard(&mut subscription, wanted.split(' ').count()).await, wanted, "{from:?}");
            kept.newest.store(7, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn who_reads_slowly_misses_nothing_that_is_kept_and_is_told_of_the_rest() {
        let (bus, kept) = bus(1, 0);
        let mut slow = bus.subscribe(From::Now).await;
        publish(&bus, &kept, 1);
        assert_eq!(heard(&mut slow, 1).await, "e1");
        let behind = RECENT as u64 + 1_000;
        for sequence in 2..=behind {
            publish(&bus, &kept, sequence);
        }
        assert!(slow.ready.is_empty() && bus.recent().len() == RECENT, "nothing piles up for it");
        for sequence in 2..=behind {
            assert_eq!(heard(&mut slow, 1).await, format!("e{sequence}"));
        }
        for sequence in behind + 1..=behind * 2 {
            publish(&bus, &kept, sequence);
        }
        kept.oldest.store(behind + 500, Ordering::SeqCst);
        assert_eq!(heard(&mut slow, 2).await, format!("Resync e{}", behind + 500));
    }

    #[tokio::test]
    async fn a_hole_in_memory_is_filled_from_the_store() {
        let (bus, kept) = bus(1, 0);
        publish(&bus, &kept, 1);
        let mut subscription = bus.subscribe(From::Now).await;
        // 2 was committed, but nobody was told.
        publish(&bus, &kept, 3);
        assert_eq!(heard(&mut subscription, 2).await, "e2 e3");
    }
}
