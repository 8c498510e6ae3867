//! Alerts: one per kind and host (or agent, or cluster), firing while its cause holds, resolved once, each with the true cause.
//!
//! ```text
//!  cause ──▶ pending ──▶ firing ──▶ resolved ──▶ (a day later) gone
//!               │  held long enough   ▲   │
//!               └▶ gone               └───┘ the cause is back: the same alert, another time
//! ```

mod hush;
mod power;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use picket_common::alert::{AlertKind, AlertState};
use picket_common::api::{Alert, EventWhat};
use picket_common::clock::Now;
use picket_common::command::BmcError;
use picket_common::id::AgentId;
use picket_common::power::{Management, PowerState};
use picket_common::wire::topic::Public;

use super::draft::bytes_of;
use super::events::Kind;
use super::request::{Answer, Rejection};
use super::view::{AgentRow, AlertRow, ClusterRow, FactsRow, HostRow, Row, RowKey};
use super::{Effect, Fleet, Record, Timer};

pub use hush::{SilenceSpec, Until, confinement};
pub(super) use power::{Memory, Reading};

/// How long, and how many, resolved alerts are kept; longer only while a receiver has not been told.
const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);
const KEEP: usize = 1_000;
/// Longest comment, in bytes.
pub(super) const MAX_COMMENT: usize = 2_000;

/// The warning among a BMC's facts that is an alert.
const INSECURE: &str = "insecure-tls";

/// Kinds that follow from how a BMC can be talked to.
const MANAGEMENT: [AlertKind; 2] = [AlertKind::BmcLost, AlertKind::BmcAuthFailed];

const fn kind_of(management: Option<Management>) -> Option<AlertKind> {
    match management {
        Some(Management::Lost) => Some(AlertKind::BmcLost),
        Some(Management::AuthBlocked) => Some(AlertKind::BmcAuthFailed),
        Some(Management::Reachable | Management::Degraded) | None => None,
    }
}

/// What an alert speaks of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject<'a> {
    Host(&'a HostRow),
    Agent(&'a AgentRow),
    Cluster(&'a ClusterRow),
}

impl Subject<'_> {
    pub(super) fn alert_id(self, kind: AlertKind) -> Arc<str> {
        match self {
            Self::Host(host) => format!("{kind}.{}", host.id).into(),
            Self::Agent(agent) => format!("{kind}.{}", agent.id).into(),
            Self::Cluster(cluster) => format!("{kind}.{}", cluster.id).into(),
        }
    }
}

/// Why an alert fires.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    pub(super) summary: String,
    pub(super) bmc_error: Option<BmcError>,
    pub(super) since: Timestamp,
}

impl Cause {
    fn of_bmc(host: &HostRow, said: &str, bmc_error: Option<BmcError>, since: Timestamp) -> Self {
        let because = bmc_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        Self { summary: format!("the BMC of {} {said}{because}", host.id), bmc_error, since }
    }
}

impl Fleet {
    /// Brings a host's alerts in line with its management state; `at` is when that state began.
    pub(super) fn settle_alerts(&mut self, host: &HostRow, at: Timestamp, now: Now) {
        let Some(power) = self.view.power.get(&host.id).cloned() else { return };
        let holds = kind_of(power.management);
        for kind in MANAGEMENT {
            let said = if kind == AlertKind::BmcLost { "does not answer" } else { "refuses the login; logins are paused" };
            let cause = (holds == Some(kind)).then(|| Cause::of_bmc(host, said, power.error.clone(), at));
            self.hold(Subject::Host(host), kind, cause, now);
        }
        self.settle_power_alert(host, power.power, now);
        self.settle_facts_alerts(host, power.power, now);
    }

    /// What the facts of a host's BMC say: that it is another machine, or that nothing proves which one it is.
    fn settle_facts_alerts(&mut self, host: &HostRow, power: PowerState, now: Now) {
        let facts = self.view.facts.get(&host.id).filter(|row| power != PowerState::Disabled && row.revision >= row.least_revision);
        let facts = facts.cloned();
        let cause = |said: &str, row: &FactsRow| Cause::of_bmc(host, said, None, row.observed_at);
        let differs = facts.as_ref().filter(|row| row.identity_differs()).map(|row| {
            let name = |identity: &Option<String>| identity.clone().unwrap_or_default();
            let (found, pinned) = (name(&row.facts.identity), name(&row.pinned));
            cause(&format!("says that it is machine {found}, and {pinned} was expected"), row)
        });
        let insecure = facts.as_ref().filter(|row| row.facts.warnings.iter().any(|warning| warning == INSECURE));
        let insecure = insecure.map(|row| cause("is talked to without proof of who it is: its certificate is not checked", row));
        self.hold(Subject::Host(host), AlertKind::BmcIdentityChanged, differs, now);
        self.hold(Subject::Host(host), AlertKind::BmcInsecure, insecure, now);
    }

    /// Brings an agent's alert in line with whether it is heard. One that never was, or that guards nothing, is not missed.
    pub(super) fn settle_agent_alert(&mut self, agent: &AgentId, lost: bool, now: Now) {
        let Some(row) = self.view.agents.get(agent).cloned() else { return };
        let in_charge = self.view.racks.get(&row.rack).is_some_and(|rack| rack.agent.as_ref() == Some(agent));
        let hosts = self.view.hosts_of(agent).len();
        let cause = (lost && in_charge && row.boot.is_some()).then(|| Cause {
            summary: format!("agent {agent} of rack {} is not heard: nobody knows how its {hosts} hosts are", row.rack),
            bmc_error: None,
            since: now.wall,
        });
        self.hold(Subject::Agent(&row), AlertKind::AgentLost, cause, now);
        self.review_hosts_of(agent, now);
    }

    /// Brings one alert in line with its cause.
    pub(super) fn hold(&mut self, subject: Subject<'_>, kind: AlertKind, cause: Option<Cause>, now: Now) {
        let id = subject.alert_id(kind);
        let open = self.view.alerts.get(&id).filter(|alert| alert.state != AlertState::Resolved).cloned();
        match (open, cause) {
            (None, Some(cause)) => self.begin_alert(subject, id, kind, cause, now),
            (Some(alert), None) if alert.state == AlertState::Pending => self.drop_alert(&id),
            (Some(alert), None) => self.resolve(&alert, now),
            _ => {}
        }
    }

    /// An open alert says more than it did: the last error, how often. Nobody is told of it again for that.
    pub(super) fn revise(&mut self, subject: Subject<'_>, kind: AlertKind, cause: &Cause, count: u64, now: Now) {
        let Some(alert) = self.open_alert(&subject.alert_id(kind)) else { return };
        let (summary, bmc_error) = (cause.summary.clone(), cause.bmc_error.clone());
        let revised = Alert { summary, bmc_error, count: count.max(alert.count), ..(*alert).clone() };
        if revised != *alert {
            self.keep_alert(revised, now);
        }
    }

    fn begin_alert(&mut self, subject: Subject<'_>, id: Arc<str>, kind: AlertKind, cause: Cause, now: Now) {
        let hold = self.hold_for.get(&kind).copied().unwrap_or_default();
        let Some(mut alert) = self.new_alert(subject, &id, kind, cause) else { return };
        if let Some(before) = self.view.alerts.get(&id) {
            alert.starts_at = after(before.starts_at, alert.starts_at);
        }
        if let Some(ended) = self.view.alerts.get(&id).and_then(|alert| alert.ends_at) {
            self.resolved.remove(&(ended, id.clone()));
        }
        if hold.is_zero() {
            return self.fire(&alert, now);
        }
        self.look_at_alert(&id, now.boottime.saturating_add(hold));
        self.keep_alert(Alert { state: AlertState::Pending, ..alert }, now);
    }

    fn new_alert(&self, subject: Subject<'_>, id: &str, kind: AlertKind, cause: Cause) -> Option<Alert> {
        let (host, agent, zone, cluster, rack) = match subject {
            Subject::Host(host) => (Some(host.id.clone()), None, host.zone.clone(), Some(host.cluster.clone()), Some(&host.rack)),
            Subject::Agent(agent) => {
                (None, Some(agent.id.clone()), self.view.racks.get(&agent.rack)?.zone.clone(), None, Some(&agent.rack))
            }
            Subject::Cluster(cluster) => (None, None, cluster.zone.clone(), Some(cluster.id.clone()), None),
        };
        let mut alert = Alert {
            id: id.to_owned(),
            kind,
            state: AlertState::Firing,
            severity: kind.severity(),
            host,
            agent,
            zone,
            cluster,
            rack: rack.cloned(),
            labels: BTreeMap::new(),
            starts_at: cause.since,
            ends_at: None,
            summary: cause.summary,
            bmc_error: cause.bmc_error,
            count: 1,
            acked_by: None,
            acked_at: None,
            ack_comment: None,
            silenced_by: Vec::new(),
            inhibited_by: Vec::new(),
        };
        alert.complete();
        Some(alert)
    }

    fn fire(&mut self, alert: &Alert, now: Now) {
        let alert = Alert { state: AlertState::Firing, ..alert.clone() };
        self.alert_event(&alert, Kind::AlertFiring, alert.starts_at);
        if is_of_a_moment(alert.kind) {
            self.look_at_alert(&Arc::from(alert.id.as_str()), now.boottime.saturating_add(power::LONGEST));
        }
        self.keep_alert(alert, now);
    }

    fn resolve(&mut self, alert: &Alert, now: Now) {
        let alert = Alert { state: AlertState::Resolved, ends_at: Some(now.wall), ..alert.clone() };
        let id: Arc<str> = alert.id.as_str().into();
        self.alert_due.remove(&id);
        self.resolved.insert((now.wall, id));
        self.alert_event(&alert, Kind::AlertResolved, now.wall);
        self.keep_alert(alert, now);
        self.arm_purge(now);
    }

    /// An alert that never fired leaves nothing behind.
    fn drop_alert(&mut self, id: &Arc<str>) {
        self.alert_due.remove(id);
        self.view.alerts.remove(id);
        self.draft.records.push(Record::Remove(RowKey::Alert(id.to_string())));
    }

    /// The cause of an open alert was reported once more.
    pub(super) fn count_alert(&mut self, host: &HostRow, management: Management, now: Now) {
        let Some(kind) = kind_of(Some(management)) else { return };
        if let Some(alert) = self.open_alert(&Subject::Host(host).alert_id(kind)) {
            self.keep_alert(Alert { count: alert.count.saturating_add(1), ..(*alert).clone() }, now);
        }
    }

    pub(super) fn firing_alert(&self, id: &str) -> Option<String> {
        self.view.alerts.get(id).filter(|alert| alert.state == AlertState::Firing).map(|alert| alert.id.clone())
    }

    pub(super) fn open_alert(&self, id: &str) -> Option<Arc<Alert>> {
        self.view.alerts.get(id).filter(|alert| alert.state != AlertState::Resolved).cloned()
    }

    /// The open alerts of a host.
    fn open_alerts_of(&self, host: &HostRow) -> Vec<Arc<Alert>> {
        let open = AlertKind::ALL.into_iter().filter_map(|kind| self.open_alert(&Subject::Host(host).alert_id(kind)));
        // An agent or a cluster may bear the name of a host.
        open.filter(|alert| alert.host.as_ref() == Some(&host.id)).collect()
    }

    /// Ends all alerts of a host that goes away.
    pub(super) fn resolve_all(&mut self, host: &HostRow, now: Now) {
        for alert in self.open_alerts_of(host) {
            match alert.state {
                AlertState::Pending => self.drop_alert(&alert.id.as_str().into()),
                AlertState::Firing | AlertState::Resolved => self.resolve(&alert, now),
            }
        }
        self.power_memory.remove(&host.id);
    }

    /// A host that moved takes its open alerts along.
    pub(super) fn move_alerts(&mut self, host: &HostRow, now: Now) {
        for alert in self.open_alerts_of(host) {
            let (zone, cluster, rack) = (host.zone.clone(), Some(host.cluster.clone()), Some(host.rack.clone()));
            let mut alert = Alert { zone, cluster, rack, ..(*alert).clone() };
            alert.complete();
            self.keep_alert(alert, now);
        }
    }

    /// Somebody takes note of an alert: it is not repeated any more. One of a moment ends with it.
    pub(super) fn ack_alert(&mut self, principal: &str, id: &str, comment: Option<String>, now: Now) -> Result<Answer, Rejection> {
        check_comment(comment.as_deref())?;
        let known = self.view.alerts.get(id).ok_or_else(|| Rejection::NotFound { kind: "alert", id: id.to_owned() })?;
        if known.state == AlertState::Resolved {
            return Err(Rejection::TooLate(format!("alert {id} has ended")));
        }
        let (acked_by, acked_at) = (Some(principal.to_owned()), Some(now.wall));
        let alert = Alert { acked_by, acked_at, ack_comment: comment, ..(**known).clone() };
        match (alert.kind, alert.state) {
            (kind, AlertState::Firing) if is_of_a_moment(kind) => self.resolve(&alert, now),
            _ => self.keep_alert(alert, now),
        }
        Ok(Answer::Done { created: false })
    }

    fn look_at_alert(&mut self, id: &Arc<str>, at: Duration) {
        self.alert_due.insert(id.clone(), at);
        self.arm(at, Timer::Alert(id.clone()));
    }

    /// An alert's time has come: held for long enough it fires; one of a moment that nobody cares for is no news after a day.
    pub(super) fn alert_is_due(&mut self, id: &Arc<str>, at: Duration, now: Now) {
        if self.alert_due.get(id) != Some(&at) {
            return;
        }
        self.alert_due.remove(id);
        let Some(alert) = self.view.alerts.get(id).cloned() else { return };
        match (alert.state, alert.kind) {
            (AlertState::Pending, _) => self.fire(&alert, now),
            (AlertState::Firing, kind) if is_of_a_moment(kind) => self.resolve(&alert, now),
            _ => {}
        }
    }

    /// The first event of a process: what waits for its time goes on waiting, and what was held back is looked at anew.
    pub(super) fn start_alerts(&mut self, now: Now) {
        let open: Vec<Arc<Alert>> = self.view.alerts.values().filter(|alert| alert.ends_at.is_none()).cloned().collect();
        for alert in &open {
            let wait = match (alert.state, alert.kind) {
                (AlertState::Pending, kind) => self.hold_for.get(&kind).copied().unwrap_or_default(),
                (AlertState::Firing, kind) if is_of_a_moment(kind) => power::LONGEST,
                _ => continue,
            };
            let age = Duration::try_from(now.wall.duration_since(alert.starts_at)).unwrap_or_default();
            self.look_at_alert(&alert.id.as_str().into(), now.boottime.saturating_add(wait.saturating_sub(age)));
        }
        let silences: Vec<_> = self.view.silences.values().cloned().collect();
        silences.iter().for_each(|silence| self.arm_silence(silence, now));
        self.review(&open, now);
        self.router.start(&self.view.alerts, now);
    }

    fn alert_event(&mut self, alert: &Alert, kind: Kind, at: Timestamp) {
        let word = if kind == Kind::AlertFiring { "firing" } else { "resolved" };
        let id = self.own_id(format_args!("{}:{}:{word}", alert.id, alert.starts_at.as_microsecond()));
        let what = EventWhat::Alert(Box::new(alert.clone()));
        let host = alert.host.as_ref().and_then(|host| self.view.hosts.get(host)).cloned();
        match (host, &alert.agent) {
            (Some(host), _) => self.host_event(&host, id, kind, at, what),
            (None, Some(agent)) => self.agent_event(agent, id, kind, at, what),
            (None, None) if alert.host.is_none() => {
                if let Some(cluster) = alert.cluster.as_ref().and_then(|cluster| self.view.clusters.get(cluster)).cloned() {
                    self.cluster_event(&cluster, id, kind, at, what);
                }
            }
            (None, None) => {}
        }
    }

    /// Keeps an alert as it is now, publishes it as long as it fires, and lets receivers know.
    fn keep_alert(&mut self, mut alert: Alert, now: Now) {
        if alert.state != AlertState::Resolved {
            self.hush(&mut alert, now);
        }
        let id: Arc<str> = alert.id.as_str().into();
        let was_shown = self.view.alerts.get(&id).is_some_and(|alert| alert.state == AlertState::Firing);
        let json = serde_json::to_string(&alert).unwrap_or_default();
        self.draft.put(Row::Alert(AlertRow { id: id.to_string(), json }));
        if alert.state == AlertState::Firing {
            self.draft.events.push(Effect::Retain(Public::Alert(id.to_string()), bytes_of(&alert)));
        } else if was_shown {
            self.draft.clear(Public::Alert(id.to_string()));
        }
        self.router.changed(&alert, now);
        self.view.alerts.insert(id, Arc::new(alert));
    }

    /// Lets resolved alerts go that are too old or too many, but none that somebody has still to be told of.
    pub(super) fn trim_alerts(&mut self, now: Now) {
        let oldest = now.wall.saturating_sub(KEEP_FOR).unwrap_or(Timestamp::MIN);
        let surplus = self.resolved.len().saturating_sub(KEEP);
        let goes =
            |(at, (ended, id)): &(usize, &(Timestamp, Arc<str>))| (*ended < oldest || *at < surplus) && !self.router.needs(id);
        let gone: Vec<_> = self.resolved.iter().enumerate().filter(goes).map(|(_, entry)| entry.clone()).collect();
        for entry in gone {
            self.resolved.remove(&entry);
            self.drop_alert(&entry.1);
        }
    }
}

/// Whether it tells that something happened, and not that something is so: it ends with a day, or when somebody takes note of it.
const fn is_of_a_moment(kind: AlertKind) -> bool {
    matches!(kind, AlertKind::HostPowerChanged | AlertKind::FenceSucceeded)
}

/// When an alert began tells this time of it from the one before, also where the observer's clock stands still.
fn after(before: Timestamp, begins: Timestamp) -> Timestamp {
    let is_close = begins <= before && before.duration_since(begins) < SignedDuration::from_secs(1);
    if is_close { before.saturating_add(SignedDuration::from_micros(1)).unwrap_or(begins) } else { begins }
}

pub(super) fn check_comment(comment: Option<&str>) -> Result<(), Rejection> {
    let fits = comment.is_none_or(|comment| comment.len() <= MAX_COMMENT);
    if fits { Ok(()) } else { Err(Rejection::Invalid { field: "comment", text: format!("at most {MAX_COMMENT} bytes") }) }
}

#[cfg(test)]
mod tests;
