//! Alerts of host-HA, each with its true cause: what came of a fence, what holds it, and what contradicts it. Each fires once for
//! what it speaks of and ends when the state moves on; attempts that fail are counted in the one alert.
//!
//! | alert | fires while |
//! |---|---|
//! | `fence-succeeded` | Fenced, neither returned nor released; for a day at most, or until acknowledged; begun by that change only |
//! | `fence-failed` | an attempt of the fence has failed, or the host lives although an off was possibly sent |
//! | `fence-unconfirmed` | all attempts have failed |
//! | `fence-refused` | a gate holds the fence; waiting for one's turn is no refusal |
//! | `fence-broken` | the fenced host came back, and nobody released or restarted it |
//! | `bmc-contradiction` | the host is degraded for that |
//! | `cap-reached`, `storm-held` | a host of the cluster is held by that; they explain its `fence-refused` |

use std::sync::Arc;

use picket_common::alert::AlertKind;
use picket_common::clock::Now;
use picket_common::ha::settings::HaSettings;
use picket_common::ha::{Degraded, Evidence, Fenced, Fencing, Gate, HaState, Way};
use picket_common::id::{ClusterId, HostId};
use picket_common::policy::GateAnswer;
use picket_common::wire::ha::{Act, HaReport, JudgedReport};

use super::settings::{closed, in_force};
use crate::fleet::Fleet;
use crate::fleet::alerts::{Cause, Subject};
use crate::fleet::view::{HostRow, Reported};

/// Kinds of a host that hold as long as its state does.
const OF_STATE: [AlertKind; 5] = [
    AlertKind::FenceFailed,
    AlertKind::FenceUnconfirmed,
    AlertKind::FenceRefused,
    AlertKind::FenceBroken,
    AlertKind::BmcContradiction,
];

/// Kinds of a cluster.
const OF_CLUSTER: [AlertKind; 2] = [AlertKind::CapReached, AlertKind::StormHeld];

/// The alert of a cluster that a gate's refusal belongs to.
const fn cluster_kind(gate: Gate) -> Option<AlertKind> {
    match gate {
        Gate::Cap | Gate::Budget => Some(AlertKind::CapReached),
        Gate::Storm | Gate::Cliff => Some(AlertKind::StormHeld),
        _ => None,
    }
}

const fn is_proven_off(state: &HaState) -> bool {
    matches!(state, HaState::Fenced(Fenced { returned: false, released: false, .. }))
}

/// Whether a host's state changed: some alerts are begun by that only.
pub(super) enum Moved<'a> {
    /// It was in this state before, as far as that is known.
    From(Option<&'a HaState>),
    /// Something else changed.
    Nowhere,
}

/// What is said of a host, and how often it happened.
struct Said {
    summary: String,
    count: u64,
}

/// A host's report and what its alerts need beside it.
struct Told<'a> {
    host: &'a HostId,
    report: &'a HaReport,
    row: &'a Reported,
    settings: &'a HaSettings,
}

impl Told<'_> {
    /// The driver's own error, else what the agent said.
    fn because(&self) -> String {
        self.report.error.as_ref().map_or_else(|| self.report.why.clone(), ToString::to_string)
    }

    fn said(&self, kind: AlertKind) -> Option<Said> {
        let once = |summary| Some(Said { summary, count: 1 });
        let host = self.host;
        match (kind, &self.report.state) {
            (AlertKind::FenceFailed, HaState::Fencing(fencing)) if fencing.attempt > 1 => Some(self.failed(fencing)),
            (AlertKind::FenceFailed, HaState::Degraded(Degraded::StillAlive)) => {
                once(format!("the fence of {host} was stopped: it answers although an off was possibly sent; {}", self.because()))
            }
            (AlertKind::FenceUnconfirmed, HaState::Fencing(fencing)) if fencing.attempt > self.settings.fence_attempts => {
                let attempts = fencing.attempt - 1;
                once(format!("{host} could not be proven off by {attempts} attempts, it may still run: {}", self.because()))
            }
            (AlertKind::FenceRefused, HaState::Fencing(Fencing { held: Some(gate), .. })) => once(self.refused(*gate)),
            (AlertKind::FenceBroken, HaState::Fenced(Fenced { returned: true, released: false, restarting: false, .. })) => {
                once(format!("{host} is fenced and came back, and nobody released it: {}", self.report.why))
            }
            (AlertKind::BmcContradiction, HaState::Degraded(Degraded::Contradiction)) => {
                once(format!("the BMC of {host} contradicts what is seen of {host}: {}", self.report.why))
            }
            _ => None,
        }
    }

    fn failed(&self, fencing: &Fencing) -> Said {
        let failed = fencing.attempt - 1;
        let what = if fencing.way == Way::Proof { "proving that" } else { "fencing" };
        let off = if fencing.way == Way::Proof { " is off" } else { "" };
        let times = if failed == 1 { "once".to_owned() } else { format!("{failed} times") };
        Said { summary: format!("{what} {}{off} has failed {times}: {}", self.host, self.because()), count: failed.into() }
    }

    fn refused(&self, gate: Gate) -> String {
        let inputs = self.row.judged.as_ref().and_then(|judged| answer(judged, gate)).map(|answer| format!(": {}", answer.inputs));
        format!("the fence of {} is held by gate {gate}{}", self.host, inputs.unwrap_or_default())
    }

    /// What is said when it is fenced.
    fn succeeded(&self, fenced: &Fenced) -> String {
        let host = self.host;
        let by = match self.row.by.as_deref() {
            Some("policy") => " by its policy".to_owned(),
            Some("proof") => ", found off".to_owned(),
            Some(who) => format!(" by order of {who}"),
            None => String::new(),
        };
        let proof = self.report.proof.as_ref();
        let sent = match proof.map(|proof| proof.off_sent) {
            Some(true) => "; an off was sent",
            Some(false) => "; nothing was sent",
            None => "",
        };
        match &fenced.evidence {
            Evidence::Vouched(who) => format!("{host} is fenced: {who} vouches that it is off"),
            Evidence::Readings(count) => {
                let device = proof.and_then(|proof| proof.readings.last()).map(|(_, device)| format!(" of {device}"));
                format!("{host} is fenced{by}: {count} Off readings{}{sent}", device.unwrap_or_default())
            }
            Evidence::Outlets => format!("{host} is fenced{by}: it and its BMC are silent, and all its outlets read Off{sent}"),
            Evidence::Heartbeat => {
                format!("{host} is fenced{by}: it and its BMC are silent, and its storage heartbeat is stale{sent}")
            }
        }
    }
}

fn answer(judged: &JudgedReport, gate: Gate) -> Option<&GateAnswer> {
    judged.judgement.0.iter().find(|answer| answer.gate == gate)
}

/// The gate that holds what is to be done to a host, be it a fence or a reset to recover it.
fn held(row: &Reported) -> Option<Gate> {
    let reset = || row.judged.as_ref().filter(|judged| judged.act == Act::Reset && judged.at.timestamp() >= row.since);
    match row.state()? {
        HaState::Fencing(fencing) => fencing.held,
        HaState::Recovering { .. } => reset().and_then(|judged| judged.judgement.held_by()),
        _ => None,
    }
}

impl Fleet {
    /// Brings the alerts of a host in line with where it stands.
    pub(super) fn settle_ha_alerts(&mut self, host: &HostRow, moved: &Moved<'_>, now: Now) {
        let Some(row) = self.view.reported.get(&host.id).cloned() else { return };
        let settings = in_force(&self.view, host);
        let report = row.report.as_ref().filter(|_| closed(&self.view, host).is_none());
        let told = report.map(|report| Told { host: &host.id, report, row: &row, settings: &settings });
        let holds_one = held(&row).and_then(cluster_kind).is_some();
        self.settle_cluster_alerts(&host.cluster, holds_one, now);
        for kind in OF_STATE {
            let said = told.as_ref().and_then(|told| told.said(kind));
            let may_begin = match kind {
                // What was fenced before host-HA was disabled has not come back for that.
                AlertKind::FenceBroken => matches!(moved, Moved::From(Some(before)) if **before != HaState::Disabled),
                // Waiting for one's turn is no refusal; it does not end one either.
                AlertKind::FenceRefused => told.as_ref().and_then(|told| told.report.state.held()) != Some(Gate::InFlight),
                _ => true,
            };
            let is_open = self.open_alert(&Subject::Host(host).alert_id(kind)).is_some();
            if is_open || may_begin {
                self.settle_said(host, kind, said, told.as_ref(), now);
            }
        }
        let fenced = told.as_ref().and_then(|told| match &told.report.state {
            HaState::Fenced(fenced) if is_proven_off(&told.report.state) => Some((told, fenced)),
            _ => None,
        });
        match fenced {
            None => self.hold(Subject::Host(host), AlertKind::FenceSucceeded, None, now),
            // Only the change into it: what was acknowledged, or is a day old, is not told again.
            Some((told, fenced)) if matches!(moved, Moved::From(before) if !before.is_some_and(is_proven_off)) => {
                let since = told.report.at.timestamp();
                let cause = Cause { summary: told.succeeded(fenced), bmc_error: None, since };
                self.hold(Subject::Host(host), AlertKind::FenceSucceeded, Some(cause), now);
            }
            Some(_) => {}
        }
    }

    fn settle_said(&mut self, host: &HostRow, kind: AlertKind, said: Option<Said>, told: Option<&Told<'_>>, now: Now) {
        let subject = Subject::Host(host);
        let (bmc_error, since) = told.map_or((None, now.wall), |told| (told.report.error.clone(), told.report.at.timestamp()));
        let cause = said.as_ref().map(|said| Cause { summary: said.summary.clone(), bmc_error, since });
        self.hold(subject, kind, cause.clone(), now);
        if let (Some(said), Some(cause)) = (said, cause) {
            self.revise(subject, kind, &cause, said.count, now);
        }
    }

    /// Brings the alerts of a cluster in line with what holds its hosts; `holds_one` = one of them may be held by such a gate. Else
    /// there is nothing to begin, and every host need not be looked at.
    pub(in crate::fleet) fn settle_cluster_alerts(&mut self, cluster: &ClusterId, holds_one: bool, now: Now) {
        let Some(cluster) = self.view.clusters.get(cluster).cloned() else { return };
        let is_told = |kind: &AlertKind| self.open_alert(&Subject::Cluster(&cluster).alert_id(*kind)).is_some();
        if !holds_one && !OF_CLUSTER.iter().any(is_told) {
            return;
        }
        let hosts = self.view.hosts_of_cluster(&cluster.id);
        let mut waiting: Vec<(AlertKind, Arc<Reported>, HostId, Gate)> = Vec::new();
        for id in hosts.iter() {
            let (Some(host), Some(row)) = (self.view.hosts.get(id), self.view.reported.get(id)) else { continue };
            if let Some(gate) = held(row).filter(|_| closed(&self.view, host).is_none())
                && let Some(kind) = cluster_kind(gate)
            {
                waiting.push((kind, Arc::clone(row), id.clone(), gate));
            }
        }
        for kind in OF_CLUSTER {
            let mut of_kind = waiting.iter().filter(|(of, ..)| *of == kind);
            let count = of_kind.clone().count() as u64;
            let cause = of_kind.next().map(|(_, row, host, gate)| {
                let inputs = row.judged.as_ref().and_then(|judged| answer(judged, *gate)).map(|answer| answer.inputs.clone());
                let inputs = inputs.unwrap_or_else(|| format!("gate {gate}"));
                let others = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
                let summary = format!("cluster {}: {host}{others} must wait: {inputs}", cluster.id);
                Cause { summary, bmc_error: None, since: now.wall }
            });
            let subject = Subject::Cluster(&cluster);
            self.hold(subject, kind, cause.clone(), now);
            if let Some(cause) = cause {
                self.revise(subject, kind, &cause, count, now);
            }
        }
    }

    /// The firing alert of a host's cluster that explains why its fence is held.
    pub(in crate::fleet) fn explains_refusal(&self, host: &HostRow) -> Option<String> {
        let kind = cluster_kind(held(self.view.reported.get(&host.id)?)?)?;
        let cluster = self.view.clusters.get(&host.cluster)?;
        self.firing_alert(&Subject::Cluster(cluster).alert_id(kind))
    }
}
