//! The ways out of the alerts: takes deliveries that the core has decided on, sends each once, and says what came of it. Decides
//! neither what is told nor when it is tried again; keeps nothing that must survive, but the boots of SNMP engines.
//!
//! ```text
//! Effect::Notify ─▶ Notifier ─▶ one attempt, within its receiver's time ─▶ Event::Attempted
//!                      │            email  webhook  alertmanager  snmp  exec
//!                      └─▶ a tally of each receiver, for people
//! ```

mod alertmanager;
mod email;
mod exec;
mod files;
mod http;
mod snmp;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use picket_common::alert::{AlertKind, AlertState, Severity};
use picket_common::api::{self, Alert, Change, News, Notification};
use picket_common::id::{ReceiverId, SiteId, ZoneId};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::clock;
use crate::config::notify::{Notify, Way};
use crate::fleet::route::GroupKey;
use crate::fleet::{Delivery, Event, GivenUp, Undelivered};
use snmp::Engines;

/// What all ways out say of this site.
#[derive(Debug)]
struct Around {
    site: SiteId,
    /// Host name or address of this machine.
    name: String,
    /// `https://host:port` of the API.
    url: String,
    engines: Engines,
}

/// A delivery on its way.
#[derive(Clone, Copy)]
struct Letter<'a> {
    delivery: &'a Delivery,
    around: &'a Around,
    /// Whether somebody only wants to know if it arrives.
    is_test: bool,
}

impl Letter<'_> {
    /// Where an alert is to be seen.
    fn link(&self, alert: &Alert) -> String {
        format!("{}/v1/alerts/{}", self.around.url, alert.id)
    }

    fn json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let Delivery { id, receiver, group, news, .. } = self.delivery;
        let common = [("zone", Some(group.zone.to_string())), ("kind", Some(group.kind.to_string()))];
        let cluster = ("cluster", group.cluster.as_ref().map(ToString::to_string));
        let group = common.into_iter().chain([cluster]).filter_map(|(name, value)| Some((name.to_owned(), value?)));
        serde_json::to_vec(&Notification {
            version: "1".into(),
            delivery: id.to_string(),
            receiver: receiver.to_string(),
            site: self.around.site.to_string(),
            group: group.collect(),
            alerts: news.to_vec(),
        })
    }
}

/// It may arrive the next time.
fn again(why: impl Into<String>) -> Undelivered {
    Undelivered { is_final: false, why: why.into() }
}

/// It never will.
fn never(why: impl Into<String>) -> Undelivered {
    Undelivered { is_final: true, why: why.into() }
}

/// Which parts of the present delivery have arrived: they are not sent again with the rest. Lost with the process; then the whole
/// is sent again, with the same id.
#[derive(Debug, Default)]
struct Progress {
    delivery: Arc<str>,
    done: BTreeSet<String>,
}

impl Progress {
    fn begin(&mut self, delivery: &Arc<str>) {
        if self.delivery != *delivery {
            *self = Self { delivery: Arc::clone(delivery), done: BTreeSet::new() };
        }
    }

    fn is_done(&self, part: &str) -> bool {
        self.done.contains(part)
    }

    fn done(&mut self, part: &str) {
        self.done.insert(part.to_owned());
    }
}

/// How it went with a receiver since the daemon started.
#[derive(Debug, Clone, Default)]
struct Tally {
    under_way: bool,
    delivered: u64,
    failed: u64,
    given_up: u64,
    last_delivered_at: Option<Timestamp>,
    last_error: Option<String>,
    last_error_at: Option<Timestamp>,
}

/// One receiver.
struct Line {
    notify: ArcSwap<Notify>,
    /// One attempt at a time, whatever happens to the core between two.
    progress: tokio::sync::Mutex<Progress>,
    tally: Mutex<Tally>,
}

impl Line {
    fn new(notify: Notify) -> Self {
        Self { notify: ArcSwap::from_pointee(notify), progress: tokio::sync::Mutex::default(), tally: Mutex::default() }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends; ends within the receiver's time.
    async fn attempt(&self, letter: Letter<'_>) -> Result<(), Undelivered> {
        let notify = self.notify.load_full();
        let work = async {
            let (mut own, mut shared);
            let progress = if letter.is_test {
                own = Progress::default();
                &mut own
            } else {
                shared = self.progress.lock().await;
                &mut *shared
            };
            progress.begin(&letter.delivery.id);
            match &notify.way {
                Way::Email(way) => email::send(way, &letter, progress).await,
                Way::Webhook(way) => webhook::send(way, &letter).await,
                Way::Alertmanager(way) => alertmanager::send(way, &letter).await,
                Way::Snmp(way) => snmp::send(way, &letter, progress).await,
                Way::Exec(way) => exec::send(way, &letter).await,
            }
        };
        let late = |_| Err(again(format!("it was not done within {} s", notify.timeout.as_secs())));
        tokio::time::timeout(notify.timeout, work).await.unwrap_or_else(late)
    }

    /// Counts an attempt, and says in the log when a receiver begins to fail and when it works again.
    fn note(&self, delivery: &Delivery, result: &Result<(), Undelivered>) {
        let now = clock::now().wall;
        let mut tally = self.tally();
        tally.under_way = false;
        let failed_before = tally.last_error.is_some();
        let (receiver, id) = (&delivery.receiver, &delivery.id);
        match result {
            Ok(()) => {
                tally.delivered += 1;
                tally.last_delivered_at = Some(now);
                tally.last_error = None;
                if failed_before {
                    tracing::info!(%receiver, delivery = %id, "receiver takes alerts again");
                }
            }
            Err(Undelivered { why, .. }) => {
                tally.failed += 1;
                tally.last_error = Some(why.clone());
                tally.last_error_at = Some(now);
                if failed_before {
                    tracing::debug!(%receiver, delivery = %id, why, "receiver still does not take alerts");
                } else {
                    tracing::warn!(%receiver, delivery = %id, why, "receiver does not take alerts");
                }
            }
        }
    }

    fn shown(&self, engines: &Engines) -> api::Receiver {
        let (notify, tally) = (self.notify.load(), self.tally().clone());
        let receiver = &notify.receiver;
        let engine_id = if let Way::Snmp(way) = &notify.way { engines.id_for(&way.version) } else { None };
        api::Receiver {
            name: receiver.id.clone(),
            kind: notify.way.kind().to_owned(),
            target: notify.way.target(),
            kinds: receiver.kinds.clone(),
            zones: receiver.zones.clone(),
            clusters: receiver.clusters.clone(),
            severity: receiver.severity,
            group_wait: receiver.group_wait.as_secs(),
            group_interval: receiver.group_interval.as_secs(),
            repeat_interval: receiver.repeat_interval.as_secs(),
            engine_id,
            under_way: tally.under_way,
            delivered: tally.delivered,
            failed: tally.failed,
            given_up: tally.given_up,
            last_delivered_at: tally.last_delivered_at,
            last_error: tally.last_error,
            last_error_at: tally.last_error_at,
        }
    }
}

/// Where a notifier is.
pub struct Place<'a> {
    /// Name of the site.
    pub site: SiteId,
    /// Host name or address of this machine.
    pub name: String,
    /// `host:port` of the API.
    pub api: &'a str,
    /// The state folder.
    pub state_dir: &'a Path,
    /// Which store this is.
    pub store: Uuid,
}

/// All receivers. Cheap to clone.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    around: Around,
    runtime: Handle,
    events: mpsc::Sender<Event>,
    lines: ArcSwap<BTreeMap<ReceiverId, Arc<Line>>>,
}

impl Notifier {
    /// Tells `receivers` on `runtime`, and the core through `events` what came of it.
    #[must_use]
    pub fn new(place: Place<'_>, runtime: Handle, events: mpsc::Sender<Event>, receivers: Vec<Notify>) -> Self {
        let Place { site, name, api, state_dir, store } = place;
        let around = Around { site, name, url: format!("https://{api}"), engines: Engines::new(state_dir, store) };
        let notifier = Self(Arc::new(Inner { around, runtime, events, lines: ArcSwap::default() }));
        notifier.configure(receivers);
        notifier
    }

    /// Puts other receivers in force; one that stays keeps its tally, and what is under way to it.
    pub fn configure(&self, receivers: Vec<Notify>) {
        let before = self.0.lines.load_full();
        let line = |notify: Notify| {
            let id = notify.receiver.id.clone();
            let line = before.get(&id).cloned();
            let line = match line {
                Some(line) => {
                    line.notify.store(Arc::new(notify));
                    line
                }
                None => Arc::new(Line::new(notify)),
            };
            (id, line)
        };
        self.0.lines.store(Arc::new(receivers.into_iter().map(line).collect()));
    }

    fn line(&self, receiver: &str) -> Option<Arc<Line>> {
        self.0.lines.load().get(receiver).cloned()
    }

    /// Sends a delivery, and tells the core what came of it. The core has one under way to each receiver at most.
    pub fn deliver(&self, delivery: Delivery) {
        let Some(line) = self.line(delivery.receiver.as_str()) else {
            // The settings changed meanwhile; the core learns of it by the same event.
            return tracing::debug!(receiver = %delivery.receiver, "no such receiver any more");
        };
        line.tally().under_way = true;
        let inner = Arc::clone(&self.0);
        self.0.runtime.spawn(async move {
            let result = line.attempt(Letter { delivery: &delivery, around: &inner.around, is_test: false }).await;
            line.note(&delivery, &result);
            let Delivery { id, receiver, .. } = delivery;
            // A core that has ended sends it again when it is back.
            drop(inner.events.send(Event::Attempted { receiver, delivery: id, result }).await);
        });
    }

    /// News that are not tried again: somebody was not told.
    pub fn gave_up(&self, given_up: &GivenUp) {
        let GivenUp { receiver, delivery, news, why } = given_up;
        tracing::error!(%receiver, %delivery, news, why, "alerts could not be delivered and are given up");
        if let Some(line) = self.line(receiver.as_str()) {
            line.tally().given_up += u64::try_from(*news).unwrap_or(u64::MAX);
        }
    }

    /// All receivers, by name.
    #[must_use]
    pub fn receivers(&self) -> Vec<api::Receiver> {
        self.0.lines.load().values().map(|line| line.shown(&self.0.around.engines)).collect()
    }

    /// Sends something that is no alert to a receiver, now and once; `None`: there is no such receiver.
    pub async fn test(&self, receiver: &ReceiverId, by: &str) -> Option<Result<(), Undelivered>> {
        let line = self.line(receiver.as_str())?;
        let delivery = test_delivery(receiver, by, clock::now().wall)?;
        Some(line.attempt(Letter { delivery: &delivery, around: &self.0.around, is_test: true }).await)
    }
}

/// A delivery that says that it is a test. It bears a kind that matters least, for whoever reads no further.
fn test_delivery(receiver: &ReceiverId, by: &str, now: Timestamp) -> Option<Delivery> {
    let zone: ZoneId = "test".parse().ok()?;
    let kind = AlertKind::BmcInsecure;
    let summary = format!("a test of receiver {receiver}, asked for by {by}: nothing is wrong");
    let mut alert = Alert {
        id: format!("test.{receiver}"),
        kind,
        state: AlertState::Resolved,
        severity: Severity::Info,
        host: None,
        agent: None,
        zone: zone.clone(),
        cluster: None,
        rack: None,
        labels: BTreeMap::new(),
        starts_at: now,
        ends_at: Some(now),
        summary,
        bmc_error: None,
        count: 1,
        acked_by: None,
        acked_at: None,
        ack_comment: None,
        silenced_by: Vec::new(),
        inhibited_by: Vec::new(),
    };
    alert.complete();
    let id: Arc<str> = Uuid::new_v4().simple().to_string().into();
    let news = Arc::new([News { change: Change::Resolved, alert }]);
    let group = GroupKey { zone, cluster: None, kind };
    Some(Delivery { thread: Arc::clone(&id), id, receiver: receiver.clone(), group, made_at: now, news })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::route::Receiver;

    pub(super) fn around() -> Around {
        Around {
            site: "test".parse().unwrap(),
            name: "picket.example".into(),
            url: "https://picket.example:8443".into(),
            engines: Engines::new(Path::new("/nonexistent"), Uuid::from_u128(7)),
        }
    }

    /// News of hosts of one cluster, whose BMCs are lost.
    pub(super) fn delivery(news: &[(Change, &str)]) -> Delivery {
        let news = news.iter().map(|(change, host)| {
            let ended = (*change == Change::Resolved).then_some("2027-01-15T08:05:00Z");
            let state = if ended.is_some() { "resolved" } else { "firing" };
            let mut alert: Alert = serde_json::from_value(serde_json::json!({
                "id": format!("bmc-lost.{host}"), "kind": "bmc-lost", "state": state, "host": host, "zone": "z1", "cluster": "c1",
                "rack": "r1", "starts_at": "2027-01-15T08:00:00Z", "ends_at": ended,
                "summary": format!("the BMC of {host} does not answer"),
            }))
            .unwrap();
            alert.complete();
            News { change: *change, alert }
        });
        let (zone, cluster) = ("z1".parse().unwrap(), Some("c1".parse().unwrap()));
        Delivery {
            id: "d1".into(),
            receiver: "ops".parse().unwrap(),
            group: GroupKey { zone, cluster, kind: AlertKind::BmcLost },
            thread: "d1".into(),
            made_at: "2027-01-15T08:06:00Z".parse().unwrap(),
            news: news.collect(),
        }
    }

    fn by_program(name: &str, script: &str, timeout: Duration) -> Notify {
        let receiver = Receiver {
            id: name.parse().unwrap(),
            kinds: Vec::new(),
            zones: Vec::new(),
            clusters: Vec::new(),
            severity: Severity::Info,
            group_wait: Duration::ZERO,
            group_interval: Duration::ZERO,
            repeat_interval: Duration::from_secs(3600),
            keep_alive: None,
        };
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Notify { receiver, timeout, way: Way::Exec(crate::config::notify::Exec { program: "/bin/sh".into(), arguments }) }
    }

    #[tokio::test]
    async fn what_comes_of_attempts_is_told_and_tallied() {
        let (events, mut heard) = mpsc::channel(4);
        let folder = tempfile::tempdir().unwrap();
        let place = Place {
            site: "test".parse().unwrap(),
            name: "localhost".into(),
            api: "localhost:1",
            state_dir: folder.path(),
            store: Uuid::from_u128(7),
        };
        let ops = |script: &str| vec![by_program("ops", script, Duration::from_millis(300))];
        let notifier = Notifier::new(place, Handle::current(), events, ops("exit 75"));
        let mut next = async || match tokio::time::timeout(Duration::from_secs(20), heard.recv()).await {
            Ok(Some(Event::Attempted { delivery, result, .. })) => (delivery.to_string(), result),
            other => panic!("{other:?}"),
        };
        notifier.deliver(delivery(&[(Change::Firing, "h1")]));
        assert_eq!(next().await, ("d1".into(), Err(again("the program ended with code 75"))));
        notifier.configure(ops("sleep 60"));
        notifier.deliver(delivery(&[(Change::Firing, "h1")]));
        assert_eq!(next().await, ("d1".into(), Err(again("it was not done within 0 s"))));
        notifier.configure(ops("exit 0"));
        notifier.deliver(delivery(&[(Change::Firing, "h1")]));
        assert_eq!(next().await, ("d1".into(), Ok(())));
        let given_up = GivenUp { receiver: "ops".parse().unwrap(), delivery: "d2".into(), news: 3, why: "it was refused".into() };
        notifier.gave_up(&given_up);
        let [shown] = &notifier.receivers()[..] else { panic!() };
        assert_eq!((shown.delivered, shown.failed, shown.given_up, shown.under_way), (1, 2, 3, false));
        assert!(shown.last_error.is_none() && shown.last_error_at.is_some() && shown.last_delivered_at.is_some());
        assert_eq!(notifier.test(&"ops".parse().unwrap(), "ann").await, Some(Ok(())));
        notifier.configure(Vec::new());
        assert_eq!(notifier.test(&"ops".parse().unwrap(), "ann").await, None);
        notifier.deliver(delivery(&[(Change::Firing, "h1")]));
        assert!(notifier.receivers().is_empty());
    }
}
