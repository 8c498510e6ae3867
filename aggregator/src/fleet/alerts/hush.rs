//! Alerts that nobody is told of for now: by a silence, because people work on the host, or because another alert explains them.
//! They fire all the same, and are shown.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use picket_common::alert::{AlertKind, AlertState, Matcher};
use picket_common::api::Alert;
use picket_common::clock::Now;
use picket_common::id::{AgentId, HostId};

use super::{Subject, check_comment};
use crate::fleet::request::{Answer, Gate, Rejection};
use crate::fleet::view::{HostRow, Row, RowKey, SilenceRow};
use crate::fleet::{Fleet, Record, Timer};

/// What stands for the host's maintenance among the silences.
const MAINTENANCE: &str = "maintenance";
/// Most silences that have not ended: each is asked about every alert.
const MAX_SILENCES: usize = 1_000;
const MAX_MATCHERS: usize = 16;
/// Longest silence.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a silence that ended is still shown.
const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);
/// The wall clock may be set: a silence is looked at this often at least.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// A silence to be made; its id was made by the asker.
#[derive(Debug, Clone)]
pub struct SilenceSpec {
    /// Its id.
    pub id: String,
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// From when on; absent = now.
    pub starts_at: Option<Timestamp>,
    /// Until when.
    pub ends_at: Until,
    /// Why.
    pub comment: Option<String>,
    /// The place it is confined to: who may do something there may make it.
    pub within: Option<Gate>,
}

impl SilenceSpec {
    /// A silence of that id.
    #[must_use]
    pub fn new(id: String, matchers: Vec<Matcher>, starts_at: Option<Timestamp>, ends_at: Until, comment: Option<String>) -> Self {
        let within = confinement(&matchers);
        Self { id, matchers, starts_at, ends_at, comment, within }
    }
}

/// The host, cluster or zone that alerts must have exactly to be covered by all of `matchers`.
#[must_use]
pub fn confinement(matchers: &[Matcher]) -> Option<Gate> {
    let exact = |name: &str| matchers.iter().find_map(|matcher| matcher.exact_value(name));
    let host = || exact("host").and_then(|id| id.parse().ok()).map(Gate::Host);
    let cluster = || exact("cluster").and_then(|id| id.parse().ok()).map(Gate::Cluster);
    let zone = || exact("zone").and_then(|id| id.parse().ok()).map(Gate::Zone);
    host().or_else(cluster).or_else(zone)
}

/// When a silence ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// Then.
    At(Timestamp),
    /// So long after it began.
    After(Duration),
}

fn is_active(silence: &SilenceRow, now: Now) -> bool {
    silence.starts_at <= now.wall && now.wall < silence.ends_at
}

impl Fleet {
    /// Says of an alert what keeps it from being told.
    pub(super) fn hush(&self, alert: &mut Alert, now: Now) {
        let covers =
            |silence: &SilenceRow| is_active(silence, now) && silence.matchers.iter().all(|matcher| matcher.matches(&alert.labels));
        let mut silenced_by: Vec<String> =
            self.view.silences.values().filter(|silence| covers(silence)).map(|silence| silence.id.clone()).collect();
        let host = alert.host.as_ref().and_then(|host| self.view.hosts.get(host));
        if host.is_some_and(|host| host.maintenance) {
            silenced_by.push(MAINTENANCE.into());
        }
        alert.silenced_by = silenced_by;
        let refusal = host.filter(|_| alert.kind == AlertKind::FenceRefused).and_then(|host| self.explains_refusal(host));
        alert.inhibited_by = host.and_then(|host| self.lost_agent_of(host)).into_iter().chain(refusal).collect();
    }

    /// The firing alert that explains all others of a host.
    fn lost_agent_of(&self, host: &HostRow) -> Option<String> {
        let id = Subject::Agent(self.view.agent_of(host)?).alert_id(AlertKind::AgentLost);
        let fires = self.view.alerts.get(&id).is_some_and(|alert| alert.state == AlertState::Firing);
        fires.then(|| id.to_string())
    }

    /// Looks again at what keeps these alerts from being told.
    pub(super) fn review(&mut self, alerts: &[Arc<Alert>], now: Now) {
        for alert in alerts {
            let mut again = (**alert).clone();
            self.hush(&mut again, now);
            if again.silenced_by != alert.silenced_by || again.inhibited_by != alert.inhibited_by {
                self.keep_alert(again, now);
            }
        }
    }

    fn review_all(&mut self, now: Now) {
        let open: Vec<Arc<Alert>> = self.view.alerts.values().filter(|alert| alert.ends_at.is_none()).cloned().collect();
        self.review(&open, now);
    }

    /// The same for one host's.
    pub(in crate::fleet) fn review_host(&mut self, host: &HostId, now: Now) {
        let Some(row) = self.view.hosts.get(host).cloned() else { return };
        let alerts = self.open_alerts_of(&row);
        self.review(&alerts, now);
    }

    pub(super) fn review_hosts_of(&mut self, agent: &AgentId, now: Now) {
        for host in self.view.hosts_of(agent).iter() {
            self.review_host(host, now);
        }
    }

    /// Makes a silence.
    pub(in crate::fleet) fn add_silence(&mut self, principal: &str, spec: SilenceSpec, now: Now) -> Result<Answer, Rejection> {
        let SilenceSpec { id, matchers, starts_at, ends_at, comment, within: _ } = spec;
        check_comment(comment.as_deref())?;
        let starts_at = starts_at.unwrap_or(now.wall);
        let ends_at = match ends_at {
            Until::At(at) => at,
            Until::After(time) => starts_at.saturating_add(time).unwrap_or(Timestamp::MAX),
        };
        self.check_silence(&matchers, starts_at, ends_at, now)?;
        let (created_by, created_at) = (principal.to_owned(), now.wall);
        let row = SilenceRow { id, matchers, starts_at, ends_at, created_by, created_at, comment };
        self.keep_silence(row, now);
        Ok(Answer::Done { created: true })
    }

    fn check_silence(&self, matchers: &[Matcher], starts_at: Timestamp, ends_at: Timestamp, now: Now) -> Result<(), Rejection> {
        let invalid = |field, text: &str| Err(Rejection::Invalid { field, text: text.to_owned() });
        if !(1..=MAX_MATCHERS).contains(&matchers.len()) {
            return invalid(
                "matchers",
                &format!("1 to {MAX_MATCHERS} of them: to silence everything, say so with host=* and agent=*"),
            );
        }
        if ends_at <= starts_at || ends_at <= now.wall {
            return invalid("ends_at", "the silence would end before it begins, or has ended already");
        }
        if ends_at > starts_at.saturating_add(LONGEST).unwrap_or(Timestamp::MAX) {
            return invalid("ends_at", "a silence lasts for a year at most");
        }
        if self.view.silences.values().filter(|silence| silence.ends_at > now.wall).count() >= MAX_SILENCES {
            return invalid("matchers", &format!("there are {MAX_SILENCES} silences already: end some"));
        }
        Ok(())
    }

    /// Ends a silence now; one that has not begun never will.
    pub(in crate::fleet) fn end_silence(&mut self, id: &str, now: Now) -> Result<Answer, Rejection> {
        let missing = || Rejection::NotFound { kind: "silence", id: id.to_owned() };
        let row = self.view.silences.get(id).cloned().ok_or_else(missing)?;
        if row.ends_at > now.wall {
            let starts_at = row.starts_at.min(now.wall);
            self.keep_silence(SilenceRow { starts_at, ends_at: now.wall, ..(*row).clone() }, now);
        }
        Ok(Answer::Done { created: false })
    }

    fn keep_silence(&mut self, row: SilenceRow, now: Now) {
        self.draft.put(Row::Silence(row.clone()));
        let row = Arc::new(row);
        self.view.silences.insert(row.id.as_str().into(), Arc::clone(&row));
        self.arm_silence(&row, now);
        self.review_all(now);
    }

    /// A silence is looked at when it begins, when it ends, and when it is long over.
    pub(super) fn arm_silence(&mut self, silence: &SilenceRow, now: Now) {
        let gone = silence.ends_at.saturating_add(KEEP_FOR).unwrap_or(Timestamp::MAX);
        let next = [silence.starts_at, silence.ends_at, gone].into_iter().find(|at| *at > now.wall).unwrap_or(now.wall);
        let left = Duration::try_from(next.duration_since(now.wall)).unwrap_or_default();
        // A moment later, so that rounding does not wake it before its time, again and again.
        let wait = left.min(LOOK_EVERY).saturating_add(Duration::from_millis(1));
        self.arm(now.boottime.saturating_add(wait), Timer::Silence(silence.id.as_str().into()));
    }

    /// A silence's time may have come.
    pub(in crate::fleet) fn silence_is_due(&mut self, id: &Arc<str>, now: Now) {
        let Some(row) = self.view.silences.get(id).cloned() else { return };
        let gone = row.ends_at.saturating_add(KEEP_FOR).unwrap_or(Timestamp::MAX);
        if gone <= now.wall {
            self.view.silences.remove(id);
            self.draft.records.push(Record::Remove(RowKey::Silence(id.to_string())));
        } else {
            self.arm_silence(&row, now);
        }
        self.review_all(now);
    }
}
