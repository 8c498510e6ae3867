//! Reports: each reaches the history exactly once and in order, or a gap says what is missing.
//!
//! An agent's reach ends at its rack: what it says of other hosts is counted, acknowledged and forgotten.

use std::sync::Arc;

use picket_common::api::{EventWhat, HistoryWhat};
use picket_common::clock::Now;
use picket_common::id::{AgentId, HostId};
use picket_common::power::{Cause, Management, PowerEvent, PowerState};
use picket_common::wire::Incarnation;
use picket_common::wire::down::Reply;
use picket_common::wire::report::{ManagementReport, PowerReport, Report, Reports, Snapshot};

use super::Fleet;
use super::alerts::Reading;
use super::events::Kind;
use super::view::HostRow;

/// The event that a reported state stands for; gates are not the agent's to report.
const fn event_of(state: PowerState) -> Option<PowerEvent> {
    match state {
        PowerState::On => Some(PowerEvent::On),
        PowerState::Off => Some(PowerEvent::Off),
        PowerState::Unknown => Some(PowerEvent::Unknown),
        PowerState::Disabled => None,
    }
}

/// What the sequences of a journal are unique within.
pub(super) fn journal_name(rolled_back: u64, boot: Incarnation) -> String {
    match rolled_back {
        0 => boot.to_string(),
        times => format!("{boot}.{times}"),
    }
}

fn host_of(report: &Report) -> &HostId {
    match report {
        Report::Power(report) => &report.host,
        Report::Management(report) => &report.host,
        Report::Operation(report) => &report.host,
        Report::Snapshot(snapshot) => &snapshot.host,
        Report::Facts(report) => &report.host,
        Report::Password(report) => &report.host,
        Report::Ha(report) => &report.host,
        Report::Judged(report) => &report.host,
    }
}

impl Fleet {
    pub(super) fn reports(&mut self, agent: &AgentId, reports: Reports, now: Now) {
        let boot = reports.boot;
        self.adopt_journal(agent, boot, now);
        if self.view.presence.get(agent).is_some_and(|presence| presence.connected) {
            self.seen(agent, now);
        }
        let expected = self.acked(agent) + 1;
        let from = expected.max(reports.oldest);
        if reports.first > from {
            self.ask_again(agent, boot, from, now);
            return;
        }
        if let Some(link) = self.links.get_mut(agent) {
            link.reports_at = Some(now.boottime);
        }
        if from > expected {
            self.gap(agent, expected, from - 1, now);
        }
        let known = usize::try_from(from - reports.first).unwrap_or(usize::MAX).min(reports.reports.len());
        self.counters.duplicate += known as u64;
        let mut acked = from - 1;
        let journal = self.journal_name(agent, boot);
        for report in reports.reports.into_iter().skip(known) {
            acked += 1;
            self.report(agent, || format!("{agent}:{journal}:{acked}"), report, now);
        }
        if acked >= expected {
            self.edit_agent(agent, |row| row.acked = acked);
        }
        self.draft.reply(agent, Reply::Ack { boot, up_to: acked });
        if from > expected {
            // Asked for what it has no more, the agent says how all its hosts are now. Only once: what is acknowledged has moved on.
            self.resend(agent, boot, expected);
        }
        self.note_caught_up(agent);
    }

    /// What the sequences of a journal are unique within: after it was rolled back they come again, for other reports.
    fn journal_name(&self, agent: &AgentId, boot: Incarnation) -> String {
        journal_name(self.view.agents.get(agent).map_or(0, |row| row.rolled_back), boot)
    }

    /// Reports are lost for good: each host of the agent may have missed changes.
    pub(super) fn gap(&mut self, agent: &AgentId, first: u64, last: u64, now: Now) {
        self.counters.gap = self.counters.gap.saturating_add(last - first + 1);
        for host in self.view.hosts_of(agent).iter() {
            self.history(host, None, now.wall, HistoryWhat::Gap { first, last }, now);
            self.doubt_power(host);
            self.doubt_ha(host);
        }
    }

    fn report(&mut self, agent: &AgentId, id: impl FnOnce() -> String, report: Report, now: Now) {
        let Some(host) = self.view.hosts.get(host_of(&report)).cloned() else {
            self.counters.unknown_host += 1;
            return;
        };
        if self.view.agent_of(&host).is_none_or(|row| row.id != *agent) {
            self.counters.foreign_host += 1;
            return;
        }
        match report {
            Report::Power(report) => self.power_report(&host, id(), report, now),
            Report::Management(report) => self.management_report(&host, id(), report, now),
            Report::Operation(report) => self.operation_report(&host, id(), &report, now),
            Report::Snapshot(snapshot) => self.snapshot(&host, id(), snapshot, now),
            Report::Facts(report) => self.facts_report(&host, id(), report, now),
            Report::Password(report) => self.password_report(&host, id(), &report, now),
            Report::Ha(report) => self.ha_report(&host, id(), *report, now),
            Report::Judged(report) => self.judged_report(&host, id(), report, now),
        }
    }

    /// Whether a report of this enablement may change the view; counts it if not.
    fn is_current(&mut self, host: &HostRow, enablement: u64) -> bool {
        let current = host.enablement == enablement;
        self.counters.old_enablement += u64::from(!current);
        current
    }

    fn power_report(&mut self, host: &Arc<HostRow>, id: String, report: PowerReport, now: Now) {
        let PowerReport { enablement, old, new, cause, observed_at, error, .. } = report;
        let at = observed_at.timestamp();
        let what = HistoryWhat::Power { old, new, cause, bmc_error: error.clone() };
        let sequence = self.history(&host.id, Some(id.clone()), at, what.clone(), now);
        if !self.is_current(host, enablement) {
            return;
        }
        let Some(current) = self.view.power.get(&host.id).map(|row| row.power) else { return };
        let Some(next) = event_of(new).and_then(|event| current.step(event)) else {
            self.counters.ignored += 1;
            return;
        };
        self.edit_power(&host.id, |row| {
            if row.power != next {
                row.power = next;
                row.power_since = at;
            }
            row.sequence = sequence;
            match error {
                Some(error) => row.error = Some(error),
                None if next != PowerState::Unknown && matches!(row.management, None | Some(Management::Reachable)) => {
                    row.error = None;
                }
                None => {}
            }
        });
        self.host_event(host, id, Kind::Power, at, EventWhat::History(what));
        self.note_power(host, Reading { before: current, after: next, cause, at }, now);
    }

    fn management_report(&mut self, host: &Arc<HostRow>, id: String, report: ManagementReport, now: Now) {
        let ManagementReport { enablement, new, observed_at, error, .. } = report;
        let at = observed_at.timestamp();
        let what = HistoryWhat::Management { new, bmc_error: error.clone() };
        let sequence = self.history(&host.id, Some(id.clone()), at, what.clone(), now);
        if !self.is_current(host, enablement) {
            return;
        }
        if self.view.power.get(&host.id).is_none_or(|row| row.power == PowerState::Disabled) {
            self.counters.ignored += 1;
            return;
        }
        let is_again = self.view.power.get(&host.id).is_some_and(|row| row.management == Some(new));
        self.edit_power(&host.id, |row| {
            if row.management != Some(new) {
                row.management = Some(new);
                row.management_since = Some(at);
            }
            row.sequence = sequence;
            if error.is_some() || (new == Management::Reachable && row.power != PowerState::Unknown) {
                row.error = error;
            }
        });
        self.host_event(host, id, Kind::Management, at, EventWhat::History(what));
        self.settle_alerts(host, at, now);
        if is_again {
            self.count_alert(host, new, now);
        }
    }

    /// All that the agent knows, after a gap: what differs from the view is a change that nobody saw happen.
    fn snapshot(&mut self, host: &Arc<HostRow>, id: String, snapshot: Snapshot, now: Now) {
        let Snapshot { enablement, power, power_since, management, management_since, error, .. } = snapshot;
        let at = power_since.timestamp();
        let what = HistoryWhat::Snapshot { power, management };
        let sequence = self.history(&host.id, Some(id.clone()), now.wall, what, now);
        if !self.is_current(host, enablement) {
            return;
        }
        let Some(before) = self.view.power.get(&host.id).cloned() else { return };
        let Some(next) = event_of(power).and_then(|event| before.power.step(event)) else {
            self.counters.ignored += 1;
            return;
        };
        self.forget_power(&host.id);
        self.edit_power(&host.id, |row| {
            row.power = next;
            row.power_since = at;
            row.management = management;
            row.management_since = management.map(|_| management_since.timestamp());
            row.error = error.clone();
            row.sequence = sequence;
        });
        if before.power != next {
            let what = HistoryWhat::Power { old: before.power, new: next, cause: Cause::Poll, bmc_error: error.clone() };
            self.host_event(host, id.clone(), Kind::Power, at, EventWhat::History(what));
        }
        if let Some(new) = management.filter(|_| before.management != management) {
            let what = HistoryWhat::Management { new, bmc_error: error };
            let at = management_since.timestamp();
            self.host_event(host, format!("{id}:management"), Kind::Management, at, EventWhat::History(what));
        }
        self.settle_alerts(host, management_since.timestamp(), now);
    }
}

#[cfg(test)]
mod tests {
    use picket_common::command::{BmcError, ErrorClass};
    use picket_common::wire::Time;
    use proptest::prelude::*;

    use super::super::testing::*;
    use super::*;

    fn batch(world: &World, oldest: u64, first: u64, states: &[PowerState]) -> Reports {
        let reports = states.iter().map(|state| world.power_report("h1", *state)).collect();
        Reports { boot: journal(1), oldest, first, reports }
    }

    fn ids(world: &World) -> Vec<u64> {
        let number = |id: &String| id.rsplit(':').next().unwrap().parse().unwrap();
        world.history.iter().filter_map(|(_, entry)| entry.id.as_ref()).map(number).collect()
    }

    #[test]
    fn a_change_reaches_history_view_event_document_and_ack_together() {
        let mut world = World::running(1);
        world.event_kinds();
        world.report("r1", vec![world.power_report("h1", PowerState::On)]);
        let row = world.power("h1");
        assert_eq!((row.power, row.power_since, row.stale), (PowerState::On, world.now.wall, false));
        let (_, line) = world.history.last().unwrap().clone();
        assert_eq!(line.id, Some(format!("r1:{}:1", journal(1))));
        assert_eq!((line.sequence, line.recorded_at), (row.sequence, world.now.wall));
        let event = world.events.last().unwrap().clone();
        assert_eq!(Some(&event.id), line.id.as_ref());
        assert_eq!(event.source, "/z1/c1/h1");
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["data"]["kind"], "power");
        assert_eq!(json["data"]["new"], "on");
        assert_eq!(world.event_kinds(), ["io.picket.power.changed.v1 h1"]);
        assert_eq!(world.replies(), [Reply::Ack { boot: journal(1), up_to: 1 }]);
        assert_eq!(world.fleet.view().agents.values().next().unwrap().acked, 1);
    }

    #[test]
    fn sequence_rules() {
        use PowerState::{Off, On};
        let mut world = World::running(1);
        let ack = |up_to| vec![Reply::Ack { boot: journal(1), up_to }];
        let resend = |from| vec![Reply::Resend { boot: journal(1), from }];
        for (name, oldest, first, states, wanted, lines) in [
            ("in order", 1, 1, &[On, Off][..], ack(2), vec![1, 2]),
            ("again", 1, 1, &[On, Off], ack(2), vec![1, 2]),
            ("overlapping", 1, 2, &[Off, On, Off], ack(4), vec![1, 2, 3, 4]),
            ("a hole", 3, 6, &[On], resend(5), vec![1, 2, 3, 4]),
            ("a hole, at once again", 3, 6, &[On], vec![], vec![1, 2, 3, 4]),
            ("the hole is filled", 3, 5, &[On, Off], ack(6), vec![1, 2, 3, 4, 5, 6]),
            ("empty", 3, 7, &[], ack(6), vec![1, 2, 3, 4, 5, 6]),
            ("lost for good", 9, 9, &[On], [ack(9), resend(7)].concat(), vec![1, 2, 3, 4, 5, 6, 9]),
            ("the gap is asked about once", 9, 9, &[On, On], ack(10), vec![1, 2, 3, 4, 5, 6, 9, 10]),
        ] {
            world.batch("r1", batch(&world, oldest, first, states));
            assert_eq!(world.replies(), wanted, "{name}");
            assert_eq!(ids(&world), lines, "{name}");
        }
        assert!(world.history_of("h1").contains(&HistoryWhat::Gap { first: 7, last: 8 }));
        let late = batch(&world, 20, 21, &[On]);
        world.pass(2);
        world.batch("r1", late);
        assert_eq!(world.replies(), resend(20), "what is lost is not asked for");
        let counters = world.fleet.counters();
        assert_eq!((counters.duplicate, counters.gap, counters.resend), (4, 2, 4));
    }

    #[test]
    fn a_new_journal_counts_anew_and_an_earlier_one_is_remembered() {
        let mut world = World::running(1);
        world.report("r1", vec![world.power_report("h1", PowerState::On)]);
        let before = world.fleet.view().hosts.values().next().unwrap().enablement;
        world.hello_with("r1", 2, 2, 1, None);
        assert!(world.replies().contains(&Reply::Resend { boot: journal(2), from: 1 }));
        assert_eq!(world.power("h1").power, PowerState::Unknown, "the new journal knows nothing of the host");
        assert!(world.fleet.view().hosts.values().next().unwrap().enablement > before);
        world.report("r1", vec![world.power_report("h1", PowerState::Off)]);
        assert_eq!(world.power("h1").power, PowerState::Off);
        world.hello_with("r1", 3, 1, 2, None);
        assert!(world.replies().contains(&Reply::Ack { boot: journal(1), up_to: 1 }), "{:?}", world.replies());
        assert_eq!(world.power("h1").power, PowerState::Unknown);
    }

    #[test]
    fn an_agent_does_not_reach_beyond_its_rack() {
        let mut world = World::running(1);
        world.ground("z1", "c1", "r2");
        world.join("r2", "r2", 2);
        world.hello("r2", 7, 7);
        let lines = world.history.len();
        world.report("r2", vec![world.power_report("h1", PowerState::Off), world.power_report("h9", PowerState::Off)]);
        assert_eq!(world.replies(), [Reply::Ack { boot: journal(7), up_to: 2 }], "or it would send them for ever");
        assert_eq!(world.power("h1").power, PowerState::Unknown);
        assert_eq!(world.history.len(), lines);
        let counters = world.fleet.counters();
        assert_eq!((counters.foreign_host, counters.unknown_host), (1, 1));
        world.heard("r9", super::super::Heard::Up(picket_common::wire::report::Up::Reports(batch(&world, 1, 1, &[]))));
        assert_eq!(world.fleet.counters().unknown_agent, 1);
        assert!(world.effects.is_empty());
    }

    #[test]
    fn an_earlier_enablement_is_history_only() {
        let mut world = World::running(1);
        let late = world.power_report("h1", PowerState::On);
        let management = world.management_report("h1", Management::Lost, None);
        world.enable("h1", false);
        world.event_kinds();
        world.report("r1", vec![late.clone(), management]);
        assert_eq!(world.power("h1").power, PowerState::Disabled);
        world.enable("h1", true);
        world.report("r1", vec![late]);
        assert_eq!(world.power("h1").power, PowerState::Unknown);
        assert_eq!(ids(&world), [1, 2, 3]);
        assert_eq!(world.fleet.counters().old_enablement, 3);
        let kinds = world.event_kinds();
        assert!(kinds.iter().all(|kind| !kind.contains("management") && !kind.contains("alert")), "{kinds:?}");
    }

    #[test]
    fn the_drivers_error_stays_as_long_as_it_holds() {
        let error =
            BmcError { driver: "ipmi".into(), class: ErrorClass::Connection, code: "timeout".into(), text: "no answer".into() };
        let mut world = World::running(1);
        let Report::Power(mut report) = world.power_report("h1", PowerState::Unknown) else { panic!() };
        report.error = Some(error.clone());
        world.report("r1", vec![Report::Power(report), world.management_report("h1", Management::Degraded, Some(error.clone()))]);
        assert_eq!(world.power("h1").error, Some(error.clone()));
        world.report("r1", vec![world.power_report("h1", PowerState::On)]);
        assert_eq!(world.power("h1").error, Some(error), "still degraded");
        world.report("r1", vec![world.management_report("h1", Management::Reachable, None)]);
        assert_eq!(world.power("h1").error, None);
    }

    #[test]
    fn a_snapshot_shows_what_nobody_saw_happen() {
        let mut world = World::running(1);
        world.report("r1", vec![world.power_report("h1", PowerState::On)]);
        world.event_kinds();
        let enablement = world.fleet.view().hosts.values().next().unwrap().enablement;
        let at = world.wire_now();
        let snapshot = Snapshot {
            host: id("h1"),
            enablement,
            power: PowerState::Off,
            power_since: Time(at.0 - 5),
            management: Some(Management::Lost),
            management_since: at,
            error: None,
        };
        world.batch("r1", Reports { boot: journal(1), oldest: 5, first: 5, reports: vec![Report::Snapshot(snapshot)] });
        assert_eq!(world.power("h1").power, PowerState::Off);
        assert_eq!(world.power("h1").power_since, Time(at.0 - 5).timestamp());
        assert_eq!(
            world.event_kinds(),
            ["io.picket.power.changed.v1 h1", "io.picket.management.changed.v1 h1", "io.picket.alert.firing.v1 h1"]
        );
        let lines = world.history_of("h1");
        assert!(matches!(lines[lines.len() - 2..], [HistoryWhat::Gap { first: 2, last: 4 }, HistoryWhat::Snapshot { .. }]));
    }

    /// What can happen between an agent and the aggregator.
    #[derive(Debug, Clone)]
    enum Step {
        Change(bool),
        Send { skip: usize, count: usize },
        Deliver(usize),
        Duplicate(usize),
        Lose(usize),
        Trim(usize),
        Hello,
        Restart,
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<bool>().prop_map(Step::Change),
            4 => (0_usize..4, 1_usize..5).prop_map(|(skip, count)| Step::Send { skip, count }),
            5 => any::<usize>().prop_map(Step::Deliver),
            2 => any::<usize>().prop_map(Step::Duplicate),
            2 => any::<usize>().prop_map(Step::Lose),
            1 => (0_usize..4).prop_map(Step::Trim),
            1 => Just(Step::Hello),
            1 => Just(Step::Restart),
            1 => Just(Step::Wait),
        ]
    }

    /// An agent's outbox and the batches under way.
    struct Sender {
        outbox: Vec<(u64, Report)>,
        next: u64,
        under_way: Vec<Reports>,
        sessions: u128,
    }

    impl Sender {
        fn oldest(&self) -> u64 {
            self.outbox.first().map_or(self.next, |(sequence, _)| *sequence)
        }

        fn batch(&self, skip: usize, count: usize) -> Option<Reports> {
            let first = self.outbox.get(skip)?.0;
            let reports = self.outbox.iter().skip(skip).take(count).map(|(_, report)| report.clone()).collect();
            Some(Reports { boot: journal(1), oldest: self.oldest(), first, reports })
        }

        fn hear(&mut self, replies: &[Reply]) {
            for reply in replies {
                match reply {
                    Reply::Ack { up_to, .. } => self.outbox.retain(|(sequence, _)| sequence > up_to),
                    Reply::Resend { from, .. } => {
                        let skip = self.outbox.iter().take_while(|(sequence, _)| sequence < from).count();
                        self.under_way.extend(self.batch(skip, 256));
                    }
                    Reply::Clock { .. } => {}
                }
            }
        }

        fn take(&mut self, world: &mut World, step: Step) {
            match step {
                Step::Change(on) => {
                    let report = world.power_report("h1", if on { PowerState::On } else { PowerState::Off });
                    self.outbox.push((self.next, report));
                    self.next += 1;
                }
                Step::Send { skip, count } => self.under_way.extend(self.batch(skip, count)),
                Step::Deliver(n) if !self.under_way.is_empty() => {
                    let batch = self.under_way.remove(n % self.under_way.len());
                    world.batch("r1", batch);
                    self.hear(&world.replies());
                }
                Step::Duplicate(n) if !self.under_way.is_empty() => {
                    let again = self.under_way[n % self.under_way.len()].clone();
                    self.under_way.push(again);
                }
                Step::Lose(n) if !self.under_way.is_empty() => drop(self.under_way.remove(n % self.under_way.len())),
                Step::Trim(count) => drop(self.outbox.drain(..count.min(self.outbox.len()))),
                Step::Hello => {
                    self.sessions += 1;
                    world.hello_with("r1", self.sessions, 1, self.next, None);
                    self.hear(&world.replies());
                }
                Step::Restart => world.restart(),
                Step::Wait => world.pass(2),
                Step::Deliver(_) | Step::Duplicate(_) | Step::Lose(_) => {}
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
        #[test]
        fn nothing_is_lost_or_doubled(steps in prop::collection::vec(step(), 0..60)) {
            let mut world = World::running(1);
            let mut sender = Sender { outbox: Vec::new(), next: 1, under_way: Vec::new(), sessions: 1 };
            for step in steps {
                sender.take(&mut world, step);
            }
            // Faults stop: it must converge by itself.
            for _ in 0..3 {
                world.pass(2);
                let late = std::mem::take(&mut sender.under_way);
                late.into_iter().rev().for_each(|batch| world.batch("r1", batch));
                world.pass(2);
                sender.take(&mut world, Step::Hello);
                if let Some(batch) = sender.batch(0, 256) {
                    world.batch("r1", batch);
                    sender.hear(&world.replies());
                }
            }
            prop_assert!(sender.outbox.is_empty(), "all acknowledged");
            let mut expected = 1;
            for (_, line) in &world.history {
                match (&line.what, &line.id) {
                    (HistoryWhat::Gap { first, last }, _) => {
                        prop_assert_eq!(*first, expected);
                        expected = last + 1;
                    }
                    (_, Some(id)) => {
                        prop_assert_eq!(id, &format!("r1:{}:{expected}", journal(1)));
                        expected += 1;
                    }
                    (_, None) => {}
                }
            }
            // What was trimmed at the very end, with nothing after it, shows as a gap only when the next report comes.
            world.batch("r1", Reports {
                boot: journal(1), oldest: sender.next, first: sender.next, reports: vec![world.power_report("h1", PowerState::On)]
            });
            let trimmed = world.history.iter().any(|(_, line)| matches!(line.what, HistoryWhat::Gap { last, .. } if last == sender.next - 1));
            prop_assert!(expected == sender.next || trimmed, "{expected} {}", sender.next);
            prop_assert_eq!(world.power("h1").power, PowerState::On);
        }
    }
}
