//! Who is told what, and when: tables of single cases, and random lives of alerts, receivers and the daemon.

use std::collections::{BTreeMap, BTreeSet};

use picket_common::alert::AlertState;
use picket_common::api::Change;
use proptest::prelude::*;

use super::super::testing::{STORE, id, receiver};
use super::*;

fn alert(host: &str, kind: AlertKind, now: Now) -> Alert {
    let mut alert: Alert = serde_json::from_value(serde_json::json!({
        "id": format!("{kind}.{host}"), "kind": kind, "state": "firing", "host": host, "zone": "z1", "cluster": "c1", "rack": "r1",
        "starts_at": now.wall, "summary": "for a test",
    }))
    .unwrap();
    alert.complete();
    alert
}

/// A router, the alerts, the store and what left the daemon.
struct Rig {
    router: Router,
    receivers: Vec<Receiver>,
    alerts: Alerts,
    rows: BTreeMap<RowKey, Row>,
    now: Now,
    /// Deliveries whose attempt has not ended.
    under_way: BTreeMap<ReceiverId, Delivery>,
    sent: Vec<Delivery>,
    given_up: Vec<GivenUp>,
}

impl Rig {
    fn new(receivers: Vec<Receiver>) -> Self {
        let now = Now { boottime: Duration::from_secs(1_000), wall: Timestamp::from_second(1_800_000_000).unwrap() };
        let mut rig = Self {
            router: Router::new(STORE),
            receivers,
            alerts: Alerts::default(),
            rows: BTreeMap::new(),
            now,
            under_way: BTreeMap::new(),
            sent: Vec::new(),
            given_up: Vec::new(),
        };
        rig.restart();
        rig
    }

    /// The process ends without a word and begins again.
    fn restart(&mut self) {
        self.router = Router::new(STORE);
        self.router.set(self.receivers.clone());
        for row in self.rows.values() {
            let Row::Outbox(row) = row else { panic!() };
            self.router.load(row.clone());
        }
        self.under_way.clear();
        self.router.start(&self.alerts, self.now);
        self.commit();
    }

    /// The settings are read again.
    fn configure(&mut self, receivers: Vec<Receiver>) {
        self.receivers = receivers;
        self.router.configure(self.receivers.clone(), &self.alerts, self.now);
        self.under_way.retain(|id, _| self.receivers.iter().any(|receiver| receiver.id == *id));
        self.commit();
    }

    fn commit(&mut self) {
        let (records, effects) = self.router.take();
        for record in records {
            match record {
                Record::Put(row) => drop(self.rows.insert(row.key(), *row)),
                Record::Remove(key) => drop(self.rows.remove(&key)),
                Record::History(..) | Record::Audit(_) | Record::Answer(_) => panic!(),
            }
        }
        for effect in effects {
            match effect {
                Effect::Notify(delivery) => {
                    let before = self.under_way.insert(delivery.receiver.clone(), (*delivery).clone());
                    let given_up = |id| self.given_up.iter().any(|given_up| given_up.delivery == id);
                    let is_free = |before: Delivery| before.id == delivery.id || given_up(before.id);
                    assert!(before.is_none_or(is_free), "one at a time to each receiver");
                    self.sent.push(*delivery);
                }
                Effect::GaveUp(given_up) => self.given_up.push(*given_up),
                _ => panic!(),
            }
        }
    }

    fn set(&mut self, alert: &Alert) {
        self.alerts.insert(alert.id.as_str().into(), Arc::new(alert.clone()));
        self.router.changed(alert, self.now);
        self.commit();
    }

    fn fire(&mut self, host: &str) -> Alert {
        let alert = alert(host, AlertKind::BmcLost, self.now);
        self.set(&alert);
        alert
    }

    fn resolve(&mut self, host: &str) {
        let alert = (*self.alerts[&*format!("bmc-lost.{host}")]).clone();
        self.set(&Alert { state: AlertState::Resolved, ends_at: Some(self.now.wall), ..alert });
    }

    fn pass(&mut self, seconds: u64) {
        let end = self.now.after(Duration::from_secs(seconds));
        while let Some(wake) = self.router.next_wake().filter(|wake| *wake <= end.boottime) {
            self.now = self.now.after(wake.saturating_sub(self.now.boottime));
            self.router.tick(&self.alerts, self.now);
            self.commit();
        }
        self.now = end;
    }

    fn answer(&mut self, receiver: &str, result: Result<(), Undelivered>) {
        let delivery = self.under_way.remove(receiver).expect("nothing is under way");
        self.router.attempted(&delivery.receiver, &delivery.id, result, &self.alerts, self.now);
        self.commit();
    }

    fn ok(&mut self, receiver: &str) {
        self.answer(receiver, Ok(()));
    }

    fn fail(&mut self, receiver: &str) {
        self.answer(receiver, Err(Undelivered { is_final: false, why: "refused".into() }));
    }

    /// What was sent since the last call: "receiver: change alert, …".
    fn told(&mut self) -> Vec<String> {
        let line = |delivery: &Delivery| {
            let news = delivery.news.iter().map(|news| format!("{:?} {}", news.change, news.alert.id).to_lowercase());
            format!("{}: {}", delivery.receiver, news.collect::<Vec<_>>().join(", "))
        };
        self.sent.drain(..).map(|delivery| line(&delivery)).collect()
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_first_news_wait_for_others_and_the_next_for_the_interval() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    rig.fire("h1");
    rig.pass(20);
    rig.fire("h2");
    rig.pass(9);
    assert_eq!(rig.told(), NOTHING);
    rig.pass(1);
    assert_eq!(rig.told(), ["mail: firing bmc-lost.h1, firing bmc-lost.h2"], "30 s after the first");
    rig.ok("mail");
    rig.pass(10);
    rig.fire("h3");
    rig.resolve("h1");
    rig.pass(289);
    assert_eq!(rig.told(), NOTHING);
    rig.pass(1);
    assert_eq!(rig.told(), ["mail: resolved bmc-lost.h1, firing bmc-lost.h3"], "300 s after the last");
    rig.ok("mail");
    rig.pass(3_600);
    rig.resolve("h2");
    rig.resolve("h3");
    rig.pass(29);
    assert_eq!(rig.told(), NOTHING);
    rig.pass(1);
    assert_eq!(rig.told(), ["mail: resolved bmc-lost.h2, resolved bmc-lost.h3"], "news of an old group wait for others only");
    rig.ok("mail");
    assert!(rig.rows.is_empty(), "and nothing is left: {:?}", rig.rows);
    rig.pass(24 * 3600);
    assert_eq!(rig.told(), NOTHING);
}

#[test]
fn what_is_over_before_anybody_was_told_is_no_news() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    rig.fire("h1");
    rig.pass(10);
    rig.resolve("h1");
    rig.pass(3_600);
    assert_eq!(rig.told(), NOTHING);
}

#[test]
fn another_time_of_an_alert_is_told_after_the_end_of_the_one_before() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    rig.fire("h1");
    rig.pass(30);
    rig.ok("mail");
    rig.told();
    rig.pass(10);
    rig.resolve("h1");
    rig.pass(10);
    rig.fire("h1");
    rig.pass(290);
    assert_eq!(rig.told(), ["mail: resolved bmc-lost.h1, firing bmc-lost.h1"]);
}

#[test]
fn an_alert_that_ends_while_its_news_are_under_way_is_resolved_afterwards() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    rig.fire("h1");
    rig.pass(30);
    rig.resolve("h1");
    rig.pass(3_600);
    assert!(rig.router.needs("bmc-lost.h1"));
    assert_eq!(rig.told(), ["mail: firing bmc-lost.h1"; 8], "the sender hangs: the attempt is taken for failed and repeated");
}

#[test]
fn what_fires_on_is_repeated_until_somebody_takes_note() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    let alert = rig.fire("h1");
    rig.pass(30);
    rig.ok("mail");
    rig.told();
    rig.pass(4 * 3600 - 1);
    assert_eq!(rig.told(), NOTHING);
    rig.pass(1);
    assert_eq!(rig.told(), ["mail: repeated bmc-lost.h1"]);
    rig.ok("mail");
    rig.pass(3600);
    rig.restart();
    rig.pass(3 * 3600 - 1);
    assert_eq!(rig.told(), NOTHING, "a restart does not bring the repetition forward");
    rig.pass(1);
    assert_eq!(rig.told(), ["mail: repeated bmc-lost.h1"]);
    rig.ok("mail");
    rig.set(&Alert { acked_by: Some("ann".into()), ..alert });
    rig.pass(24 * 3600);
    assert_eq!(rig.told(), NOTHING);
    rig.resolve("h1");
    rig.pass(30);
    assert_eq!(rig.told(), ["mail: resolved bmc-lost.h1"], "its end is told all the same");
}

#[test]
fn what_is_silenced_is_told_when_the_silence_is_over_and_its_end_always() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    let loud = rig.fire("h1");
    let quiet = Alert { silenced_by: vec!["s1".into()], ..loud.clone() };
    rig.set(&quiet);
    rig.pass(3600);
    assert_eq!(rig.told(), NOTHING);
    rig.set(&loud);
    rig.pass(30);
    assert_eq!(rig.told(), ["mail: firing bmc-lost.h1"]);
    rig.ok("mail");
    rig.set(&Alert { inhibited_by: vec!["agent-lost.r1".into()], ..loud.clone() });
    rig.pass(24 * 3600);
    assert_eq!(rig.told(), NOTHING, "no repetition");
    rig.resolve("h1");
    rig.pass(30);
    assert_eq!(rig.told(), ["mail: resolved bmc-lost.h1"]);
}

#[test]
fn each_group_has_its_own_delivery() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    rig.fire("h1");
    rig.set(&alert("h1", AlertKind::BmcInsecure, rig.now));
    rig.set(&Alert { cluster: Some(id("c2")), ..alert("h2", AlertKind::BmcLost, rig.now) });
    rig.set(&Alert { cluster: None, host: None, agent: Some(id("r1")), ..alert("r1", AlertKind::AgentLost, rig.now) });
    rig.pass(30);
    let mut told = Vec::new();
    while !rig.under_way.is_empty() {
        told.extend(rig.told());
        rig.ok("mail");
    }
    told.sort();
    assert_eq!(
        told,
        ["mail: firing agent-lost.r1", "mail: firing bmc-insecure.h1", "mail: firing bmc-lost.h1", "mail: firing bmc-lost.h2"]
    );
}

#[test]
fn only_what_a_receiver_wants() {
    let all = receiver("x");
    let host = alert("h1", AlertKind::BmcLost, Rig::new(vec![]).now);
    let agent = Alert { host: None, cluster: None, ..alert("r1", AlertKind::AgentLost, Rig::new(vec![]).now) };
    for (name, receiver, wants_host, wants_agent) in [
        ("everything", all.clone(), true, true),
        ("a kind", Receiver { kinds: vec![AlertKind::AgentLost], ..all.clone() }, false, true),
        ("two kinds", Receiver { kinds: vec![AlertKind::AgentLost, AlertKind::BmcLost], ..all.clone() }, true, true),
        ("a zone", Receiver { zones: vec![id("z1")], ..all.clone() }, true, true),
        ("another zone", Receiver { zones: vec![id("z2")], ..all.clone() }, false, false),
        ("a cluster", Receiver { clusters: vec![id("c1")], ..all.clone() }, true, false),
        ("what is critical", Receiver { severity: Severity::Critical, ..all.clone() }, false, true),
        ("what is at least a warning", Receiver { severity: Severity::Warning, ..all }, true, true),
    ] {
        assert_eq!((receiver.wants(&host), receiver.wants(&agent)), (wants_host, wants_agent), "{name}");
    }
}

#[test]
fn a_receiver_that_fails_is_tried_again_later_and_holds_up_nobody() {
    let mut rig = Rig::new(vec![receiver("good"), receiver("bad")]);
    rig.fire("h1");
    rig.pass(30);
    rig.ok("good");
    rig.told();
    let first = rig.under_way["bad"].id.clone();
    let mut pauses = Vec::new();
    for _ in 0..9 {
        rig.fail("bad");
        let failed = rig.now;
        while rig.under_way.is_empty() {
            rig.pass(1);
        }
        assert_eq!(rig.under_way["bad"].id, first, "the same delivery");
        pauses.push(rig.now.boottime.saturating_sub(failed.boottime).as_secs());
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
    rig.told();
    rig.fire("h2");
    rig.resolve("h1");
    rig.pass(300);
    assert_eq!(rig.told(), ["good: resolved bmc-lost.h1, firing bmc-lost.h2"]);
    rig.ok("good");
    rig.pass(600);
    rig.told();
    rig.ok("bad");
    rig.pass(1);
    assert_eq!(rig.told(), ["bad: resolved bmc-lost.h1, firing bmc-lost.h2"], "at once: it has waited for long enough");
}

#[test]
fn a_delivery_is_given_up_after_a_day_or_when_it_never_can_arrive() {
    let mut rig = Rig::new(vec![receiver("bad")]);
    rig.fire("h1");
    rig.pass(30);
    let mut attempts = 0;
    while rig.given_up.is_empty() {
        attempts += 1;
        rig.fail("bad");
        if attempts % 40 == 0 {
            rig.restart();
        }
        rig.pass(600);
    }
    assert!((140..160).contains(&attempts), "{attempts} attempts within a day");
    assert_eq!((rig.given_up[0].news, rig.given_up[0].why.as_str()), (1, "refused"));
    rig.told();
    rig.fire("h2");
    rig.pass(300);
    assert_eq!(rig.told(), ["bad: firing bmc-lost.h2"], "the next is tried all the same");
    rig.answer("bad", Err(Undelivered { is_final: true, why: "400".into() }));
    assert_eq!(rig.given_up.len(), 2);
    assert!(rig.under_way.is_empty());
}

#[test]
fn a_restart_sends_again_what_was_under_way_and_nothing_else() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    rig.fire("h1");
    rig.pass(30);
    let before = rig.under_way["mail"].clone();
    rig.resolve("h1");
    rig.restart();
    rig.pass(1);
    let again = rig.under_way["mail"].clone();
    assert_eq!((&again.id, &again.thread, &again.news), (&before.id, &before.thread, &before.news));
    rig.ok("mail");
    rig.restart();
    rig.told();
    rig.pass(300);
    assert_eq!(rig.told(), ["mail: resolved bmc-lost.h1"]);
    assert_eq!(rig.under_way["mail"].thread, before.id, "the same thread");
    rig.ok("mail");
    rig.restart();
    rig.pass(24 * 3600);
    assert_eq!(rig.told(), NOTHING);
}

#[test]
fn a_receiver_that_is_gone_or_new() {
    let mut rig = Rig::new(vec![receiver("old")]);
    rig.fire("h1");
    rig.pass(30);
    rig.ok("old");
    rig.receivers = vec![receiver("new")];
    rig.restart();
    assert!(rig.rows.is_empty());
    rig.told();
    rig.pass(30);
    assert_eq!(rig.told(), ["new: firing bmc-lost.h1"]);
}

#[test]
fn receivers_that_change_while_it_runs() {
    let mut rig = Rig::new(vec![receiver("stays"), receiver("goes")]);
    rig.fire("h1");
    rig.pass(30);
    let (first, gone) = (rig.under_way["stays"].clone(), rig.under_way["goes"].clone());
    rig.told();
    let minute = Duration::from_secs(60);
    rig.configure(vec![Receiver { repeat_interval: 10 * minute, ..receiver("stays") }, receiver("comes")]);
    assert_eq!(rig.told(), NOTHING, "what is under way is not sent twice");
    rig.router.attempted(&gone.receiver, &gone.id, Ok(()), &rig.alerts, rig.now);
    rig.commit();
    assert!(rig.rows.keys().all(|key| !format!("{key:?}").contains("goes")), "nothing is left of it");
    rig.ok("stays");
    assert_eq!(first.news.len(), 1);
    rig.pass(30);
    assert_eq!(rig.told(), ["comes: firing bmc-lost.h1"]);
    rig.ok("comes");
    rig.pass(580);
    assert_eq!(rig.told(), ["stays: repeated bmc-lost.h1"], "by the new interval");
    rig.ok("stays");
    // One that no longer wants to hear of it is told its end all the same.
    let other = |name| Receiver { kinds: vec![AlertKind::AgentLost], ..receiver(name) };
    rig.configure(vec![other("stays"), other("comes")]);
    rig.fire("h2");
    rig.resolve("h1");
    rig.pass(300);
    let mut told = rig.told();
    told.sort();
    assert_eq!(told, ["comes: resolved bmc-lost.h1", "stays: resolved bmc-lost.h1"]);
    rig.ok("stays");
    rig.ok("comes");
    rig.configure(vec![receiver("stays")]);
    rig.pass(300);
    assert_eq!(rig.told(), ["stays: firing bmc-lost.h2"]);
}

#[test]
fn who_is_not_reminded_any_more_is_not_told_ends_again() {
    let minute = Duration::from_secs(60);
    let reminded = |keep_alive| Receiver { repeat_interval: minute, keep_alive, ..receiver("am") };
    let told_end = || {
        let mut rig = Rig::new(vec![reminded(Some(15 * minute))]);
        rig.fire("h1");
        rig.pass(30);
        rig.ok("am");
        rig.resolve("h1");
        rig.pass(300);
        rig.ok("am");
        rig.told();
        assert!(!rig.rows.is_empty());
        rig
    };
    let mut running = told_end();
    running.configure(vec![reminded(None)]);
    let mut restarted = told_end();
    restarted.receivers = vec![reminded(None)];
    restarted.restart();
    for mut rig in [running, restarted] {
        rig.pass(3600);
        assert_eq!(rig.told(), NOTHING);
        assert!(!rig.router.needs("bmc-lost.h1"));
        rig.fire("h2");
        rig.pass(300);
        rig.ok("am");
        assert_eq!(rig.rows.len(), 1);
    }
}

#[test]
fn a_host_that_moves_is_told_where_it_was() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    let here = rig.fire("h1");
    rig.pass(30);
    let thread = rig.under_way["mail"].thread.clone();
    rig.ok("mail");
    rig.set(&Alert { cluster: Some(id("c2")), ..here });
    rig.told();
    rig.pass(600);
    assert_eq!(rig.told(), NOTHING, "it is the same alert");
    rig.resolve("h1");
    rig.pass(30);
    assert_eq!(rig.under_way["mail"].thread, thread);
    assert_eq!(rig.told(), ["mail: resolved bmc-lost.h1"]);
}

#[test]
fn a_receiver_that_forgets_is_reminded() {
    let minute = Duration::from_secs(60);
    let alertmanager = Receiver {
        group_wait: Duration::ZERO,
        group_interval: Duration::ZERO,
        repeat_interval: minute,
        keep_alive: Some(15 * minute),
        ..receiver("am")
    };
    let mut rig = Rig::new(vec![alertmanager]);
    let alert = rig.fire("h1");
    rig.pass(0);
    assert_eq!(rig.told(), ["am: firing bmc-lost.h1"]);
    rig.ok("am");
    rig.set(&Alert { acked_by: Some("ann".into()), silenced_by: vec!["s".into()], ..alert });
    for _ in 0..3 {
        rig.pass(60);
        assert_eq!(rig.told(), ["am: repeated bmc-lost.h1"]);
        rig.ok("am");
    }
    rig.resolve("h1");
    for n in 0..15 {
        rig.pass(if n == 0 { 0 } else { 60 });
        assert_eq!(rig.told(), ["am: resolved bmc-lost.h1"], "{n}");
        rig.ok("am");
    }
    assert!(rig.router.needs("bmc-lost.h1"));
    rig.pass(3600);
    assert_eq!(rig.told(), NOTHING);
    assert!(!rig.router.needs("bmc-lost.h1") && rig.rows.is_empty());
}

#[test]
fn more_than_fits_follows_at_once() {
    let mut rig = Rig::new(vec![receiver("mail")]);
    for n in 0..=MAX_NEWS {
        rig.fire(&format!("h{n}"));
    }
    rig.pass(30);
    assert_eq!(rig.sent.iter().map(|delivery| delivery.news.len()).collect::<Vec<_>>(), [MAX_NEWS]);
    rig.ok("mail");
    rig.pass(0);
    assert_eq!(rig.sent.iter().map(|delivery| delivery.news.len()).collect::<Vec<_>>(), [MAX_NEWS, 1]);
}

// ---- random lives ----

#[derive(Debug, Clone)]
enum Step {
    Fire(usize),
    Resolve(usize),
    Hush(usize, bool),
    Ack(usize),
    Move(usize),
    Pass(u64),
    /// An attempt arrives, or not; and the daemon learns of it, or dies before.
    Attempt {
        receiver: usize,
        arrives: bool,
        crash: bool,
    },
    Refuse(usize),
    Restart,
    /// The settings are read again, with other intervals.
    Configure(u64),
}

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
const RECEIVERS: [&str; 3] = ["all", "lost", "am"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..6_usize).prop_map(Step::Fire),
        5 => (0..6_usize).prop_map(Step::Resolve),
        2 => (0..6_usize, any::<bool>()).prop_map(|(n, on)| Step::Hush(n, on)),
        1 => (0..6_usize).prop_map(Step::Ack),
        1 => (0..6_usize).prop_map(Step::Move),
        8 => prop_oneof![1..40_u64, 200..400_u64, Just(2_500_u64)].prop_map(Step::Pass),
        9 => (0..3_usize, prop::bool::weighted(0.8), prop::bool::weighted(0.15))
            .prop_map(|(receiver, arrives, crash)| Step::Attempt { receiver, arrives, crash }),
        1 => (0..3_usize).prop_map(Step::Refuse),
        1 => Just(Step::Restart),
        1 => (60..3_600_u64).prop_map(Step::Configure),
    ]
}

/// What a receiver has heard: it throws away a delivery it has had.
#[derive(Debug, Default)]
struct Inbox {
    had: BTreeMap<String, Vec<News>>,
    believes: BTreeMap<String, Timestamp>,
    told: BTreeSet<(String, Timestamp, bool)>,
}

impl Inbox {
    fn take(&mut self, delivery: &Delivery, reminds: bool) {
        if let Some(had) = self.had.get(&*delivery.id) {
            assert_eq!(had[..], delivery.news[..], "the same key, the same content");
            return;
        }
        self.had.insert(delivery.id.to_string(), delivery.news.to_vec());
        for News { change, alert } in delivery.news.iter() {
            let believed = self.believes.get(&alert.id).copied();
            let key = |ended| (alert.id.clone(), alert.starts_at, ended);
            match change {
                Change::Firing => {
                    assert_eq!(believed, None, "{} fires already", alert.id);
                    assert!(self.told.insert(key(false)), "{} told twice", alert.id);
                    assert!(alert.silenced_by.is_empty(), "{} is silenced", alert.id);
                    self.believes.insert(alert.id.clone(), alert.starts_at);
                }
                Change::Repeated => assert_eq!(believed, Some(alert.starts_at), "{} was never told", alert.id),
                Change::Resolved => {
                    let is_news = self.told.insert(key(true));
                    assert!(is_news || reminds, "the end of {} told twice", alert.id);
                    if is_news {
                        assert_eq!(believed, Some(alert.starts_at), "the end of {} without its beginning", alert.id);
                        self.believes.remove(&alert.id);
                    }
                    assert_eq!((alert.state, alert.ends_at.is_some()), (AlertState::Resolved, true));
                }
            }
        }
    }
}

struct Life {
    rig: Rig,
    inboxes: [Inbox; 3],
}

impl Life {
    fn new() -> Self {
        let minute = Duration::from_secs(60);
        let lost = Receiver { kinds: vec![AlertKind::BmcLost], ..receiver("lost") };
        let am = Receiver {
            group_wait: Duration::ZERO,
            group_interval: Duration::ZERO,
            repeat_interval: 5 * minute,
            keep_alive: Some(15 * minute),
            ..receiver("am")
        };
        let all = Receiver { repeat_interval: 30 * minute, ..receiver("all") };
        Self { rig: Rig::new(vec![all, lost, am]), inboxes: Default::default() }
    }

    fn alert(&self, n: usize) -> Alert {
        let kind = if n < 3 { AlertKind::BmcLost } else { AlertKind::BmcAuthFailed };
        let blank = alert(HOSTS[n % 3], kind, self.rig.now);
        self.rig
            .alerts
            .get(blank.id.as_str())
            .map_or(Alert { state: AlertState::Resolved, ends_at: Some(self.rig.now.wall), ..blank }, |alert| (**alert).clone())
    }

    fn attempt(&mut self, n: usize, arrives: bool, result: Option<Result<(), Undelivered>>) {
        let Some(delivery) = self.rig.under_way.get(RECEIVERS[n]).cloned() else { return };
        if arrives {
            self.inboxes[n].take(&delivery, RECEIVERS[n] == "am");
        }
        match result {
            Some(result) => self.rig.answer(RECEIVERS[n], result),
            None => self.rig.restart(),
        }
    }

    /// What was given up, the daemon takes for told: so does the receiver here.
    fn give_up(&mut self) {
        for given_up in self.rig.given_up.drain(..) {
            let Some(n) = RECEIVERS.iter().position(|name| *name == given_up.receiver.as_str()) else { continue };
            self.rig.under_way.retain(|_, delivery| delivery.id != given_up.delivery);
            let delivery = self.rig.sent.iter().find(|delivery| delivery.id == given_up.delivery).unwrap();
            self.inboxes[n].take(delivery, RECEIVERS[n] == "am");
        }
    }

    fn take(&mut self, step: &Step) {
        // Two times of an alert never begin in the same moment.
        self.rig.now = self.rig.now.after(Duration::from_millis(1));
        match *step {
            Step::Fire(n) => {
                let before = self.alert(n);
                if before.state == AlertState::Resolved {
                    let fresh = Alert { starts_at: self.rig.now.wall, ends_at: None, acked_by: None, ..before };
                    self.rig.set(&Alert { state: AlertState::Firing, ..fresh });
                }
            }
            Step::Resolve(n) => {
                let before = self.alert(n);
                if before.state == AlertState::Firing {
                    self.rig.set(&Alert { state: AlertState::Resolved, ends_at: Some(self.rig.now.wall), ..before });
                }
            }
            Step::Hush(n, on) => {
                let silenced_by = if on { vec!["s1".into()] } else { Vec::new() };
                self.rig.set(&Alert { silenced_by, ..self.alert(n) });
            }
            Step::Ack(n) => self.rig.set(&Alert { acked_by: Some("ann".into()), ..self.alert(n) }),
            Step::Move(n) => self.rig.set(&Alert { cluster: Some(id("c2")), ..self.alert(n) }),
            Step::Pass(seconds) => self.rig.pass(seconds),
            Step::Attempt { receiver, arrives, crash } => {
                let failed = || Err(Undelivered { is_final: false, why: "x".into() });
                let result = if arrives { Ok(()) } else { failed() };
                self.attempt(receiver, arrives, (!crash).then_some(result));
            }
            Step::Refuse(n) => self.attempt(n, false, Some(Err(Undelivered { is_final: true, why: "x".into() }))),
            Step::Restart => self.rig.restart(),
            Step::Configure(seconds) => {
                let mut receivers = self.rig.receivers.clone();
                receivers[0].repeat_interval = Duration::from_secs(seconds);
                receivers[0].group_interval = Duration::from_secs(seconds / 10);
                self.rig.configure(receivers);
            }
        }
        self.give_up();
    }

    /// Everything arrives from now on, and nothing changes.
    fn settle(&mut self) {
        for n in 0..6 {
            self.take(&Step::Hush(n, false));
        }
        for _ in 0..40 {
            for n in 0..3 {
                self.attempt(n, true, Some(Ok(())));
            }
            self.rig.pass(60);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn each_receiver_is_told_each_thing_once_and_in_order(steps in prop::collection::vec(step(), 0..120)) {
        let mut life = Life::new();
        steps.iter().for_each(|step| life.take(step));
        life.settle();
        for (n, name) in RECEIVERS.into_iter().enumerate() {
            let wanted: BTreeMap<String, Timestamp> = life
                .rig
                .alerts
                .values()
                .filter(|alert| alert.state == AlertState::Firing && (name != "lost" || alert.kind == AlertKind::BmcLost))
                .map(|alert| (alert.id.clone(), alert.starts_at))
                .collect();
            prop_assert_eq!(&life.inboxes[n].believes, &wanted, "{}", name);
        }
        let needed = |alert: &&Arc<Alert>| alert.state == AlertState::Resolved && life.rig.router.needs(&alert.id);
        let late = life.rig.alerts.values().filter(needed).count();
        prop_assert_eq!(late, 0, "what ended and was told is needed no more");
    }
}
