//! What agents report of host-HA: the newest word on each host is kept, each change reaches history and events once. What is not
//! newer is no news: an agent says it again after a gap, or under a new enablement, so that it can be trusted again.

use std::sync::Arc;

use picket_common::api::ha::{OffReading, Proof};
use picket_common::api::{EventWhat, HistoryWhat};
use picket_common::clock::Now;
use picket_common::ha::{By, Evidence, Fenced, HaState, Way};
use picket_common::id::HostId;
use picket_common::power::PowerState;
use picket_common::wire::ha::{Act, HaReport, JudgedReport};

use super::alerts::Moved;
use super::around::is_power_down;
use super::status::journal_of;
use crate::fleet::events::Kind;
use crate::fleet::view::{HostRow, Reported, ReportedRow, RowKey};
use crate::fleet::{Fleet, Record};

impl Reported {
    /// As the store keeps it.
    pub(in crate::fleet) fn row(&self, host: &HostId) -> ReportedRow {
        // Maps with keys that are no texts would not render; there are none.
        ReportedRow { host: host.clone(), json: serde_json::to_string(self).unwrap_or_default() }
    }

    /// Where the host stands, as its agent said last.
    pub(in crate::fleet) fn state(&self) -> Option<&HaState> {
        self.report.as_ref().map(|report| &report.state)
    }

    /// What proves that it is off.
    pub(in crate::fleet) fn proof(&self) -> Option<Proof> {
        let report = self.report.as_ref()?;
        let by = self.by.clone().unwrap_or_else(|| "unknown".to_owned());
        let reading =
            |(at, device): &(picket_common::wire::Time, String)| OffReading { at: at.timestamp(), device: device.clone() };
        report.proof.as_ref().map(|proof| Proof {
            readings: proof.readings.iter().map(reading).collect(),
            health: proof.health.clone(),
            off_sent: proof.off_sent,
            attempt: proof.attempt,
            by,
        })
    }

    /// Whether what its agent does to it may have led to this power state: an off of its fence, a reset to recover it, an on after
    /// its fence. What is only proven was somebody else's doing.
    pub(in crate::fleet) fn may_have_led_to(&self, power: PowerState) -> bool {
        match (self.state(), power) {
            (Some(HaState::Fencing(fencing)), PowerState::Off) => fencing.off_possibly_sent,
            (Some(HaState::Recovering { .. } | HaState::Recovered), PowerState::On | PowerState::Off) => true,
            (Some(HaState::Fenced(fenced)), PowerState::On) => fenced.restarting,
            _ => false,
        }
    }

    /// Whether a report of the journal that spoke last is newer than what is known, or makes it trusted again.
    fn takes(&self, journal: &str, version: u64) -> bool {
        let known = self.report.as_ref().filter(|_| self.journal == journal).map(|report| report.version);
        known.is_none_or(|known| version > known || (version == known && self.doubted))
    }
}

/// The state as far as a change of it is news: how many checks or samples failed so far is not.
fn gist(state: &HaState) -> HaState {
    match state {
        HaState::Available { .. } => HaState::Available { failures: 0 },
        HaState::Checking { .. } => HaState::Checking { dead: 0 },
        other => other.clone(),
    }
}

fn is_news(before: Option<&HaReport>, after: &HaReport) -> bool {
    let Some(before) = before else { return true };
    let beside = |report: &HaReport| (report.quarantined, report.acked, report.error.clone());
    gist(&before.state) != gist(&after.state) || beside(before) != beside(after)
}

/// In whose name a fence is; `before` = what was known of that.
fn in_whose_name(state: &HaState, before: Option<&str>) -> Option<String> {
    match state {
        HaState::Fencing(fencing) => Some(match &fencing.way {
            Way::Proof => "proof".to_owned(),
            Way::Order(By::Policy) => "policy".to_owned(),
            Way::Order(By::Principal(who)) => who.clone(),
        }),
        HaState::Fenced(Fenced { evidence: Evidence::Vouched(who), .. }) => Some(who.clone()),
        HaState::Fenced(_) => before.map(str::to_owned),
        _ => None,
    }
}

impl Fleet {
    /// Where a host stands. Whoever reports is in charge of it: others were turned away before.
    pub(in crate::fleet) fn ha_report(&mut self, host: &Arc<HostRow>, id: String, report: HaReport, now: Now) {
        let Some(journal) = journal_of(&self.view, host) else { return };
        let before = self.view.reported.get(&host.id).cloned().unwrap_or_default();
        if !before.takes(&journal, report.version) {
            self.counters.ignored += 1;
            return;
        }
        let at = report.at.timestamp();
        let is_news = is_news(before.report.as_ref(), &report);
        let is_power_down = is_power_down(before.report.as_ref(), &report);
        let is_same_state = before.state().is_some_and(|state| state.name() == report.state.name());
        let old = before.state().map(HaState::name);
        let by = in_whose_name(&report.state, before.by.as_deref());
        let mut after = Reported {
            journal,
            report: Some(report),
            doubted: false,
            since: if is_same_state { before.since } else { at },
            by,
            ..(*before).clone()
        };
        if is_news && let Some(what) = changed(old, &after) {
            after.sequence = self.history(&host.id, Some(id.clone()), at, what.clone(), now);
            self.host_event(host, id, Kind::Ha, at, EventWhat::History(what));
        }
        self.edit_reported(&host.id, |row| *row = after);
        if is_power_down {
            self.note_power_down(&host.id, at, now);
        }
        self.settle_ha_alerts(host, &Moved::From(before.state()), now);
    }

    /// What the gates said. The same answers again, with other numbers in them, are no line of history.
    pub(in crate::fleet) fn judged_report(&mut self, host: &Arc<HostRow>, id: String, report: JudgedReport, now: Now) {
        let before = self.view.reported.get(&host.id).cloned().unwrap_or_default();
        let is_plan = report.act == Act::Plan;
        let last = if is_plan { &before.planned } else { &before.judged };
        if last.as_ref() == Some(&report) {
            self.counters.ignored += 1;
            return;
        }
        let mut sequence = before.sequence;
        if last.as_ref().is_none_or(|last| answers(last) != answers(&report)) {
            let what = HistoryWhat::Gates {
                act: act_name(report.act).to_owned(),
                attempt: report.attempt,
                held_by: report.judgement.held_by(),
                judgement: report.judgement.clone(),
                operation_id: report.operation,
            };
            sequence = self.history(&host.id, Some(id), report.at.timestamp(), what, now);
        }
        self.edit_reported(&host.id, |row| {
            row.sequence = sequence;
            *(if is_plan { &mut row.planned } else { &mut row.judged }) = Some(report);
        });
        self.settle_ha_alerts(host, &Moved::Nowhere, now);
    }

    /// Reports of the host were lost: what was said last is not trusted until it is said again.
    pub(in crate::fleet) fn doubt_ha(&mut self, host: &HostId) {
        if self.view.reported.get(host).is_some_and(|row| !row.doubted && row.report.is_some()) {
            self.edit_reported(host, |row| row.doubted = true);
        }
    }

    pub(in crate::fleet) fn forget_reported(&mut self, host: &HostRow, now: Now) {
        if self.view.reported.remove(&host.id).is_some() {
            self.draft.records.push(Record::Remove(RowKey::Reported(host.id.clone())));
        }
        self.settle_cluster_alerts(&host.cluster, false, now);
    }

    /// Changes what is known of a host in host-HA, and marks it to be written, concluded from and published.
    pub(super) fn edit_reported(&mut self, host: &HostId, edit: impl FnOnce(&mut Reported)) {
        edit(Arc::make_mut(self.view.reported.entry(host.clone()).or_default()));
        self.draft.reported.insert(host.clone());
        self.draft.status.insert(host.clone());
    }
}

/// The line of history of a change.
fn changed(old: Option<picket_common::ha::HaName>, after: &Reported) -> Option<HistoryWhat> {
    let report = after.report.as_ref()?;
    Some(HistoryWhat::Ha {
        old,
        new: report.state.name(),
        reason: report.state.reason().map(str::to_owned),
        why: report.why.clone(),
        quarantined: report.quarantined,
        held: report.state.held(),
        attempt: report.state.attempt(),
        operation_id: report.operation,
        bmc_error: report.error.clone(),
        proof: after.proof().map(Box::new),
    })
}

/// What tells one judgement from another.
fn answers(report: &JudgedReport) -> impl PartialEq + use<> {
    let answers = report.judgement.0.iter().map(|answer| (answer.gate, answer.verdict, answer.overridden_by.clone()));
    (report.act, report.attempt, report.operation, answers.collect::<Vec<_>>())
}

/// As in JSON.
pub(super) const fn act_name(act: Act) -> &'static str {
    match act {
        Act::Off => "off",
        Act::Reset => "reset",
        Act::Plan => "plan",
        Act::Proof => "proof",
    }
}
