//! Alerts: one per host and kind, firing while its cause holds, resolved once, each with the true cause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use picket_common::alert::{AlertKind, AlertState};
use picket_common::api::{Alert, EventWhat};
use picket_common::clock::Now;
use picket_common::command::BmcError;
use picket_common::power::Management;
use picket_common::wire::topic::Public;

use super::draft::bytes_of;
use super::events::Kind;
use super::view::{AlertRow, HostRow, Row, RowKey};
use super::{Effect, Fleet, Record};

/// How long, and how many, resolved alerts are kept.
const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);
const KEEP: usize = 1_000;

const KINDS: [AlertKind; 2] = [AlertKind::BmcLost, AlertKind::BmcAuthFailed];

const fn kind_of(management: Option<Management>) -> Option<AlertKind> {
    match management {
        Some(Management::Lost) => Some(AlertKind::BmcLost),
        Some(Management::AuthBlocked) => Some(AlertKind::BmcAuthFailed),
        Some(Management::Reachable | Management::Degraded) | None => None,
    }
}

fn labels(kind: AlertKind, host: &HostRow) -> BTreeMap<String, String> {
    let named = [
        ("kind", kind.as_str()),
        ("severity", kind.severity().as_str()),
        ("host", host.id.as_str()),
        ("zone", host.zone.as_str()),
        ("cluster", host.cluster.as_str()),
        ("rack", host.rack.as_str()),
    ];
    named.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn summary(kind: AlertKind, host: &HostRow, error: Option<&BmcError>) -> String {
    let said = match kind {
        AlertKind::BmcLost => "does not answer",
        AlertKind::BmcAuthFailed => "refuses the login; logins are paused",
        _ => "needs a look",
    };
    let cause = error.map(|error| format!(": {error}")).unwrap_or_default();
    format!("the BMC of {} {said}{cause}", host.id)
}

impl Fleet {
    /// Brings a host's alerts in line with its management state; `at` is when that state began.
    pub(super) fn settle_alerts(&mut self, host: &HostRow, at: Timestamp, now: Now) {
        let Some(power) = self.view.power.get(&host.id).cloned() else { return };
        let wanted = kind_of(power.management);
        for kind in KINDS {
            let id: Arc<str> = format!("{kind}.{}", host.id).into();
            let firing = self.view.alerts.get(&id).filter(|alert| alert.state == AlertState::Firing).cloned();
            match (firing, wanted == Some(kind)) {
                (None, true) => self.fire(host, id, kind, power.error.clone(), at),
                (Some(alert), false) => self.resolve(host, &alert, now),
                _ => {}
            }
        }
    }

    fn fire(&mut self, host: &HostRow, id: Arc<str>, kind: AlertKind, bmc_error: Option<BmcError>, at: Timestamp) {
        if let Some(ended) = self.view.alerts.get(&id).and_then(|alert| alert.ends_at) {
            self.resolved.remove(&(ended, id.clone()));
        }
        let alert = Alert {
            id: id.to_string(),
            kind,
            state: AlertState::Firing,
            severity: kind.severity(),
            host: Some(host.id.clone()),
            agent: None,
            zone: host.zone.clone(),
            cluster: Some(host.cluster.clone()),
            rack: Some(host.rack.clone()),
            labels: labels(kind, host),
            starts_at: at,
            ends_at: None,
            summary: summary(kind, host, bmc_error.as_ref()),
            bmc_error,
            count: 1,
            acked_by: None,
            acked_at: None,
            ack_comment: None,
            silenced_by: Vec::new(),
            inhibited_by: Vec::new(),
        };
        self.alert_event(host, &alert, Kind::AlertFiring, "firing", at);
        self.keep_alert(id, alert);
    }

    fn resolve(&mut self, host: &HostRow, alert: &Alert, now: Now) {
        let id: Arc<str> = alert.id.as_str().into();
        let alert = Alert { state: AlertState::Resolved, ends_at: Some(now.wall), ..alert.clone() };
        self.resolved.insert((now.wall, id.clone()));
        self.alert_event(host, &alert, Kind::AlertResolved, "resolved", now.wall);
        self.keep_alert(id, alert);
        self.trim_alerts(now);
        self.arm_purge(now);
    }

    /// Resolves all alerts of a host that goes away.
    pub(super) fn resolve_all(&mut self, host: &HostRow, now: Now) {
        for kind in KINDS {
            let id: Arc<str> = format!("{kind}.{}", host.id).into();
            if let Some(alert) = self.view.alerts.get(&id).filter(|alert| alert.state == AlertState::Firing).cloned() {
                self.resolve(host, &alert, now);
            }
        }
    }

    /// A host that moved takes its firing alerts along.
    pub(super) fn move_alerts(&mut self, host: &HostRow) {
        for kind in KINDS {
            let id: Arc<str> = format!("{kind}.{}", host.id).into();
            if let Some(alert) = self.view.alerts.get(&id).filter(|alert| alert.state == AlertState::Firing).cloned() {
                let (zone, cluster) = (host.zone.clone(), Some(host.cluster.clone()));
                let alert = Alert { zone, cluster, rack: Some(host.rack.clone()), labels: labels(kind, host), ..(*alert).clone() };
                self.keep_alert(id, alert);
            }
        }
    }

    fn alert_event(&mut self, host: &HostRow, alert: &Alert, kind: Kind, word: &str, at: Timestamp) {
        let id = self.own_id(format_args!("{}:{}:{word}", alert.id, alert.starts_at.as_microsecond()));
        self.host_event(host, id, kind, at, EventWhat::Alert(Box::new(alert.clone())));
    }

    /// Keeps an alert as it is now, and publishes it as long as it fires.
    fn keep_alert(&mut self, id: Arc<str>, alert: Alert) {
        let json = serde_json::to_string(&alert).unwrap_or_default();
        let body = if alert.state == AlertState::Firing { bytes_of(&alert) } else { bytes::Bytes::new() };
        self.draft.put(Row::Alert(AlertRow { id: id.to_string(), json }));
        self.draft.events.push(Effect::Retain(Public::Alert(id.to_string()), body));
        self.view.alerts.insert(id, Arc::new(alert));
    }

    /// Lets resolved alerts go that are too old or too many.
    pub(super) fn trim_alerts(&mut self, now: Now) {
        let oldest = now.wall.saturating_sub(KEEP_FOR).unwrap_or(Timestamp::MIN);
        while self.resolved.first().is_some_and(|(ended, _)| *ended < oldest || self.resolved.len() > KEEP) {
            let Some((_, id)) = self.resolved.pop_first() else { return };
            self.view.alerts.remove(&id);
            self.draft.records.push(Record::Remove(RowKey::Alert(id.to_string())));
        }
    }
}

#[cfg(test)]
mod tests {
    use picket_common::command::ErrorClass;

    use super::super::testing::*;
    use super::*;

    #[test]
    fn one_alert_per_cause_with_the_true_cause() {
        let error =
            BmcError { driver: "ipmi".into(), class: ErrorClass::Auth, code: "0x02".into(), text: "unauthorized name".into() };
        let mut world = World::running(1);
        world.event_kinds();
        let topic = |kind: &str| Public::Alert(format!("{kind}.h1"));
        for (management, firing, kinds) in [
            (Management::Degraded, None, &["management.changed"][..]),
            (Management::AuthBlocked, Some("bmc-auth-failed"), &["management.changed", "alert.firing"]),
            (Management::AuthBlocked, Some("bmc-auth-failed"), &["management.changed"]),
            (Management::Lost, Some("bmc-lost"), &["management.changed", "alert.firing", "alert.resolved"]),
            (Management::Reachable, None, &["management.changed", "alert.resolved"]),
            (Management::Lost, Some("bmc-lost"), &["management.changed", "alert.firing"]),
        ] {
            world.pass(1);
            world.settle("r1", 1);
            world.report("r1", vec![world.management_report("h1", management, Some(error.clone()))]);
            for kind in ["bmc-lost", "bmc-auth-failed"] {
                assert_eq!(world.retained.contains_key(&topic(kind)), firing == Some(kind), "{management} {kind}");
            }
            let wanted: Vec<_> = kinds.iter().map(|kind| format!("io.picket.{kind}.v1 h1")).collect();
            assert_eq!(world.event_kinds(), wanted, "{management}");
        }
        let view = world.fleet.view();
        let alert = &view.alerts["bmc-lost.h1"];
        assert_eq!(alert.summary, "the BMC of h1 does not answer: ipmi: unauthorized name (0x02)");
        assert_eq!(alert.bmc_error, Some(error));
        world.enable("h1", false);
        assert_eq!(world.fleet.view().alerts["bmc-lost.h1"].state, AlertState::Resolved);
        assert!(!world.retained.contains_key(&topic("bmc-lost")));
        world.pass(25 * 3600);
        assert!(world.fleet.view().alerts.is_empty());
    }

    #[test]
    fn alike_for_the_first_and_the_last_of_many() {
        let mut world = World::running(300);
        let reports = (1..=256).map(|n| world.management_report(&format!("h{n}"), Management::AuthBlocked, None)).collect();
        world.report("r1", reports);
        let reports = (257..=300).map(|n| world.management_report(&format!("h{n}"), Management::AuthBlocked, None)).collect();
        world.report("r1", reports);
        assert_eq!(world.fleet.view().alerts.len(), 300);
    }
}
