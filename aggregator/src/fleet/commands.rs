//! Power operations: accepted durably, sent when the agent can hear, ended exactly once.
//!
//! ```text
//! accepted ──▶ sent ──▶ admitted ──▶ done      accepted past the deadline: expired
//!     │          │          │          ▲       sent or admitted, a minute past it: unknown, until a late result says more
//!     └──────────┴──────────┴──────────┘       taken back, or its gate closed, before it was sent: cancelled, refused
//! ```

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use picket_common::api::{EventWhat, HistoryWhat};
use picket_common::clock::Now;
use picket_common::command::{Action, OperationState, Outcome, Refusal};
use picket_common::id::{AgentId, HostId, OperationId};
use picket_common::wire::down::{Command, PowerCommand};
use picket_common::wire::report::{OperationReport, Progress};

use super::enablement::standing_refusal;
use super::events::Kind;
use super::request::{Answer, Rejection};
use super::view::{HostRow, OperationHostRow, OperationRow, RowKey};
use super::{Fleet, Record, Timer, json};

/// Operations of one host that are not done; more would only wait for the same BMC.
const MAX_OPEN: usize = 16;
/// How long after its deadline a sent operation may still bring a result.
const GRACE: Duration = Duration::from_secs(60);
/// How long, and how many, ended operations are kept.
const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);
const KEEP: usize = 10_000;
/// How often what is too old is looked for.
const PURGE_EVERY: Duration = Duration::from_secs(600);
const MAX_REASON: usize = 1024;
const NO_RESULT: &str = "no result from the agent";
/// Begins as [`NO_RESULT`]: a late result still says more.
const OVERTAKEN: &str = "no result from the agent: the host was moved, taken over or disabled meanwhile";

/// An order for a power operation.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: OperationId,
    pub(super) host: HostId,
    pub(super) operation: Action,
    pub(super) timeout: Option<u64>,
    pub(super) reason: Option<String>,
    pub(super) on_if_off: bool,
}

fn is_open(row: &OperationRow) -> bool {
    row.hosts.iter().any(|part| part.state != OperationState::Done)
}

impl Fleet {
    /// Accepts an operation, or refuses it: gates, settings, password, agent, queue, time-out, in this order.
    pub(super) fn order(&mut self, principal: &str, order: Order, now: Now) -> Result<Answer, Rejection> {
        let Order { id, host, operation, timeout, reason, on_if_off } = order;
        let missing = || Rejection::NotFound { kind: "host", id: host.to_string() };
        let row = self.view.hosts.get(&host).cloned().ok_or_else(missing)?;
        if self.view.operations.contains_key(&id) {
            return Ok(Answer::Accepted(id));
        }
        if let Some(refusal) = standing_refusal(&self.view, &row) {
            return Err(Rejection::Refused(refusal));
        }
        if self.open.get(&host).is_some_and(|open| open.len() >= MAX_OPEN) {
            return Err(Rejection::Refused(Refusal::Busy));
        }
        let timeout = self.timeout_of(&row, timeout)?;
        if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
            return Err(Rejection::Invalid { field: "reason", text: format!("at most {MAX_REASON} bytes") });
        }
        let what = HistoryWhat::OperationAccepted {
            operation_id: id,
            action: operation.into(),
            principal: principal.into(),
            reason: reason.clone(),
        };
        self.history(&host, None, now.wall, what, now);
        let part = OperationHostRow {
            host: host.clone(),
            state: OperationState::Accepted,
            outcome: None,
            cancelling: false,
            sent_at: None,
            sent_enablement: None,
            admitted_at: None,
            done_at: None,
        };
        let deadline = now.after(timeout);
        let accepted = OperationRow {
            id,
            operation,
            on_if_off,
            principal: principal.into(),
            reason,
            accepted_at: now.wall,
            deadline: deadline.wall,
            hosts: vec![part],
        };
        self.view.operations.insert(id, Arc::new(accepted));
        self.draft.operations.insert(id);
        self.open.entry(host.clone()).or_default().insert(id);
        self.arm(deadline.boottime, Timer::Expire(id));
        self.arm(deadline.boottime + GRACE, Timer::GiveUp(id));
        self.dispatch(id, &row, now);
        Ok(Answer::Accepted(id))
    }

    fn timeout_of(&self, host: &HostRow, timeout: Option<u64>) -> Result<Duration, Rejection> {
        let cluster = || self.view.clusters.get(&host.cluster).and_then(|cluster| cluster.action_timeout);
        let seconds = timeout.or_else(cluster).unwrap_or(self.view.settings.action_timeout);
        if (1..=3600).contains(&seconds) {
            return Ok(Duration::from_secs(seconds));
        }
        Err(Rejection::Invalid { field: "timeout", text: format!("{seconds} is not within 1 to 3600 seconds") })
    }

    /// Sends an operation to the host's agent if it hears us now and the deadline has not passed; else it waits.
    fn dispatch(&mut self, id: OperationId, host: &HostRow, now: Now) {
        let Some(agent) = self.view.agent_of(host).cloned() else { return };
        let Some(row) = self.view.operations.get(&id).cloned() else { return };
        let hears = self.links.get(&agent.id).is_some_and(|link| link.session.is_some());
        if !hears || row.deadline <= now.wall {
            return;
        }
        let command = PowerCommand {
            operation: id,
            host: host.id.clone(),
            action: row.operation,
            on_if_off: row.on_if_off,
            deadline: row.deadline.into(),
            epoch: self.epoch_of(&agent.id),
            generation: self.coming_generation(&agent),
            enablement: host.enablement,
        };
        self.draft.command(&agent.id, Command::Power(command));
        self.edit_part(id, &host.id, |part| {
            part.state = OperationState::Sent;
            part.sent_at = part.sent_at.or(Some(now.wall));
            part.sent_enablement = part.sent_enablement.or(Some(host.enablement));
        });
    }

    /// An agent is back: what waited for it, or may not have reached it, is sent. The agent knows what it has seen.
    pub(super) fn redispatch(&mut self, agent: &AgentId, now: Now) {
        if self.open.is_empty() {
            return;
        }
        for host in self.view.hosts_of(agent).iter() {
            self.redispatch_host(host, now);
        }
    }

    /// The same for one host. What was sent under another enablement may have been done by an agent, or a journal, that is not in
    /// charge any more: the one that is would not know, and do it again.
    pub(super) fn redispatch_host(&mut self, host: &HostId, now: Now) {
        let Some(row) = self.view.hosts.get(host).cloned() else { return };
        for id in self.open.get(host).cloned().unwrap_or_default() {
            let Some(part) = self.part(id, host) else { continue };
            match (part.state, part.cancelling) {
                (OperationState::Sent, _) if part.sent_enablement != Some(row.enablement) => {
                    self.end(id, host, None, Outcome::Unknown(OVERTAKEN.into()), now.wall, now);
                }
                (OperationState::Sent, true) => self.tell_cancel(id, &row),
                (OperationState::Accepted | OperationState::Sent, _) => self.dispatch(id, &row, now),
                (OperationState::Admitted | OperationState::Done, _) => {}
            }
        }
    }

    fn tell_cancel(&mut self, id: OperationId, host: &HostRow) {
        let Some(agent) = self.view.agent_of(host).map(|row| row.id.clone()) else { return };
        if self.links.get(&agent).is_some_and(|link| link.session.is_some()) {
            self.draft.command(&agent, Command::Cancel { operation: id, host: host.id.clone() });
        }
    }

    /// Takes back what was not begun; what was sent, the agent decides.
    pub(super) fn cancel(&mut self, id: OperationId, now: Now) -> Result<Answer, Rejection> {
        let missing = || Rejection::NotFound { kind: "operation", id: id.to_string() };
        let row = self.view.operations.get(&id).cloned().ok_or_else(missing)?;
        if !is_open(&row) {
            return Err(Rejection::TooLate(format!("operation {id} has ended")));
        }
        if row.hosts.iter().any(|part| part.state == OperationState::Admitted) {
            return Err(Rejection::TooLate(format!("operation {id} was taken on by the agent")));
        }
        for part in &row.hosts {
            match part.state {
                OperationState::Accepted => self.end(id, &part.host, None, Outcome::Cancelled, now.wall, now),
                OperationState::Sent => {
                    self.edit_part(id, &part.host, |part| part.cancelling = true);
                    if let Some(host) = self.view.hosts.get(&part.host).cloned() {
                        self.tell_cancel(id, &host);
                    }
                }
                OperationState::Admitted | OperationState::Done => {}
            }
        }
        Ok(Answer::Done { created: false })
    }

    /// The agent says how far an operation is.
    pub(super) fn operation_report(&mut self, host: &Arc<HostRow>, id: String, report: &OperationReport, now: Now) {
        let operation = report.operation;
        let at = report.at.timestamp();
        match (&report.progress, self.part(operation, &host.id).cloned()) {
            (Progress::Admitted, Some(part)) if part.state != OperationState::Done => {
                self.edit_part(operation, &host.id, |part| {
                    part.state = OperationState::Admitted;
                    part.admitted_at = Some(at);
                });
            }
            (Progress::Admitted, Some(_)) => self.counters.ignored += 1,
            (Progress::Admitted, None) => self.counters.unknown_operation += 1,
            (Progress::Done(outcome), Some(part)) if accepts(&part) => {
                self.end(operation, &host.id, Some(id), outcome.clone(), at, now);
            }
            (Progress::Done(outcome), part) => {
                if part.is_some() {
                    self.counters.ignored += 1;
                } else {
                    self.counters.unknown_operation += 1;
                }
                self.history(&host.id, Some(id), at, done_line(operation, outcome), now);
            }
        }
    }

    /// Ends an operation on a host: history, event, row. `report` is the id of the agent's report, if it was the agent who said so.
    fn end(&mut self, id: OperationId, host: &HostId, report: Option<String>, outcome: Outcome, at: Timestamp, now: Now) {
        let what = done_line(id, &outcome);
        let sequence = self.history(host, report.clone(), at, what.clone(), now);
        // An agent whose clock is far behind must not make it so old that it goes at once.
        let accepted_at = self.view.operations.get(&id).map_or(now.wall, |row| row.accepted_at);
        let done_at = at.max(accepted_at).min(now.wall);
        if let Some(before) = self.part(id, host).and_then(|part| part.done_at) {
            self.done.remove(&(before, id));
        }
        self.edit_part(id, host, |part| {
            part.state = OperationState::Done;
            part.outcome = Some(outcome);
            part.done_at = Some(done_at);
        });
        if let Some(open) = self.open.get_mut(host) {
            open.remove(&id);
            if open.is_empty() {
                self.open.remove(host);
            }
        }
        if let Some(row) = self.view.hosts.get(host).cloned() {
            let event = report.unwrap_or_else(|| self.own_id(sequence));
            self.host_event(&row, event, Kind::Operation, at, EventWhat::History(what));
        }
        if self.view.operations.get(&id).is_some_and(|row| !is_open(row)) {
            self.done.insert((done_at, id));
            self.trim_operations(now);
            self.arm_purge(now);
        }
    }

    /// A gate closed: what was not sent is refused; what was sent, the agent refuses itself.
    pub(super) fn refuse_unsent(&mut self, host: &HostId, refusal: Refusal, now: Now) {
        for id in self.open.get(host).cloned().unwrap_or_default() {
            if self.part(id, host).is_some_and(|part| part.state == OperationState::Accepted) {
                self.end(id, host, None, Outcome::Refused(refusal), now.wall, now);
            }
        }
    }

    /// A host goes away: nothing unsent is sent any more; what was sent may or may not happen, and its result has no place to go.
    pub(super) fn abandon_operations(&mut self, host: &HostRow, now: Now) {
        for id in self.open.get(&host.id).cloned().unwrap_or_default() {
            let is_unsent = self.part(id, &host.id).is_some_and(|part| part.state == OperationState::Accepted);
            if is_unsent {
                self.end(id, &host.id, None, Outcome::Cancelled, now.wall, now);
            } else {
                self.tell_cancel(id, host);
                self.end(id, &host.id, None, Outcome::Unknown("the host was removed meanwhile".into()), now.wall, now);
            }
        }
    }

    /// The deadline: what was not sent has expired.
    pub(super) fn expire(&mut self, id: OperationId, now: Now) {
        self.end_all(id, &[OperationState::Accepted], |_| Outcome::Expired, now);
    }

    /// The deadline and its grace are over: what has not ended never told its result.
    pub(super) fn give_up(&mut self, id: OperationId, now: Now) {
        let outcome = |part: &OperationHostRow| {
            let cancelled = if part.cancelling { " about taking it back" } else { "" };
            Outcome::Unknown(format!("{NO_RESULT}{cancelled}"))
        };
        self.end_all(id, &[OperationState::Sent, OperationState::Admitted], outcome, now);
    }

    fn end_all(&mut self, id: OperationId, states: &[OperationState], outcome: impl Fn(&OperationHostRow) -> Outcome, now: Now) {
        let Some(row) = self.view.operations.get(&id).cloned() else { return };
        for part in row.hosts.iter().filter(|part| states.contains(&part.state)) {
            self.end(id, &part.host, None, outcome(part), now.wall, now);
        }
    }

    fn part(&self, id: OperationId, host: &HostId) -> Option<&OperationHostRow> {
        self.view.operations.get(&id)?.hosts.iter().find(|part| part.host == *host)
    }

    fn edit_part(&mut self, id: OperationId, host: &HostId, edit: impl FnOnce(&mut OperationHostRow)) {
        let Some(row) = self.view.operations.get_mut(&id) else { return };
        if let Some(part) = Arc::make_mut(row).hosts.iter_mut().find(|part| part.host == *host) {
            edit(part);
            self.draft.operations.insert(id);
        }
    }

    fn trim_operations(&mut self, now: Now) {
        let oldest = now.wall.saturating_sub(KEEP_FOR).unwrap_or(Timestamp::MIN);
        while self.done.first().is_some_and(|(ended, _)| *ended < oldest || self.done.len() > KEEP) {
            let Some((_, id)) = self.done.pop_first() else { return };
            self.view.operations.remove(&id);
            self.draft.records.push(Record::Remove(RowKey::Operation(id)));
        }
    }

    pub(super) fn arm_purge(&mut self, now: Now) {
        if !std::mem::replace(&mut self.purge_armed, true) {
            self.arm(now.boottime + PURGE_EVERY, Timer::Purge);
        }
    }

    pub(super) fn purge(&mut self, now: Now) {
        self.trim_operations(now);
        self.trim_alerts(now);
        self.purge_armed = false;
        if !self.done.is_empty() || !self.resolved.is_empty() {
            self.arm_purge(now);
        }
    }

    /// After a restart: takes the stored operations up again.
    pub(super) fn index_operation(&mut self, row: &OperationRow) {
        for part in row.hosts.iter().filter(|part| part.state != OperationState::Done) {
            self.open.entry(part.host.clone()).or_default().insert(row.id);
        }
        if let Some(ended) = row.hosts.iter().filter_map(|part| part.done_at).max().filter(|_| !is_open(row)) {
            self.done.insert((ended, row.id));
        }
    }

    /// After a restart: sets the deadlines of what is not done.
    pub(super) fn arm_operations(&mut self, now: Now) {
        let open: Vec<_> = self.open.values().flatten().filter_map(|id| self.view.operations.get(id)).cloned().collect();
        for row in open {
            let left = Duration::try_from(row.deadline.duration_since(now.wall)).unwrap_or_default();
            self.arm(now.boottime + left, Timer::Expire(row.id));
            self.arm(now.boottime + left + GRACE, Timer::GiveUp(row.id));
        }
    }
}

/// Whether an agent's result still counts: the operation has not ended, or ended only because none had come.
fn accepts(part: &OperationHostRow) -> bool {
    match (&part.state, &part.outcome) {
        (OperationState::Done, Some(Outcome::Unknown(text))) => text.starts_with(NO_RESULT),
        (OperationState::Done, _) => false,
        _ => true,
    }
}

fn done_line(operation_id: OperationId, outcome: &Outcome) -> HistoryWhat {
    HistoryWhat::OperationDone { operation_id, result: outcome.as_str().into(), detail: json::outcome_detail(outcome) }
}

#[cfg(test)]
mod tests {
    use picket_common::api;
    use picket_common::wire::report::Report;

    use super::super::request::Gate;
    use super::super::testing::*;
    use super::super::{Request, view};
    use super::*;

    fn shown(world: &World, n: u128) -> (OperationState, Option<String>) {
        let json = json::operation_json(&world.fleet.view().operations[&operation(n)]);
        let api::OperationHost { state, result, .. } = json.hosts[0].clone();
        (state, result)
    }

    fn ended(result: &str) -> (OperationState, Option<String>) {
        (OperationState::Done, Some(result.into()))
    }

    fn sent(world: &World) -> usize {
        world.commands().iter().filter(|command| matches!(command, Command::Power(_))).count()
    }

    const SENT: (OperationState, Option<String>) = (OperationState::Sent, None);

    #[test]
    fn refusals_in_their_order() {
        use super::super::request::HostSpec;
        let mut world = World::running(1);
        let order = |world: &mut World, host: &str| world.order(1, host, Action::Off).err();
        assert!(matches!(order(&mut world, "h9"), Some(Rejection::NotFound { kind: "host", .. })));
        let with_password = |address: &str| {
            let mut bmc = ipmi(address);
            bmc.password = Some(sealed(1));
            spec("c1", "r1", Some(bmc))
        };
        world.ask(Request::PutHost(id("pw"), with_password("10.0.0.9"))).unwrap();
        world.enable("pw", true);
        world.ask(Request::PutHost(id("bare"), HostSpec { bmc: Some(ipmi("10.0.0.8")), ..spec("c1", "r1", None) })).unwrap();
        world.enable("bare", true);
        world.ask(Request::PutHost(id("bare"), spec("c1", "r1", None))).unwrap();
        assert_eq!(order(&mut world, "bare"), Some(Rejection::Refused(Refusal::HostNotConfigured)));
        world.join("r1", "r1", 2);
        assert_eq!(order(&mut world, "pw"), Some(Rejection::Refused(Refusal::PasswordNeeded)));
        world.ground("z1", "c1", "r2");
        world.ask(Request::PutHost(id("alone"), spec("c1", "r2", Some(ipmi("10.0.0.7"))))).unwrap();
        world.enable("alone", true);
        assert_eq!(order(&mut world, "alone"), Some(Rejection::Refused(Refusal::RackWithoutAgent)));
        for timeout in [0, 3601] {
            let request = Request::Power {
                id: operation(1),
                host: id("h1"),
                operation: Action::On,
                timeout: Some(timeout),
                reason: None,
                on_if_off: false,
            };
            assert!(matches!(world.ask(request), Err(Rejection::Invalid { field: "timeout", .. })));
        }
        for n in 1..=16 {
            world.order(n, "h1", Action::Status).unwrap();
        }
        let busy = world.order(17, "h1", Action::Status).err();
        assert_eq!(busy, Some(Rejection::Refused(Refusal::Busy)));
        world.report("r1", vec![world.progress(3, "h1", Progress::Done(Outcome::Changed))]);
        world.order(17, "h1", Action::Status).unwrap();
    }

    #[test]
    fn from_order_to_result() {
        let mut world = World::running(1);
        assert!(matches!(world.order(1, "h1", Action::Off), Ok(Answer::Accepted(id)) if id == operation(1)));
        let Command::Power(command) = world.commands().remove(0) else { panic!() };
        let view = world.fleet.view();
        let (host, agent, rack) =
            (view.hosts.values().next().unwrap(), view.agents.values().next().unwrap(), view.racks.values().next().unwrap());
        assert_eq!(
            (command.enablement, command.generation, command.epoch, command.deadline),
            (host.enablement, agent.generation, rack.epoch, world.now.after(Duration::from_secs(60)).wall.into())
        );
        assert_eq!(shown(&world, 1), SENT);
        world.report("r1", vec![world.progress(1, "h1", Progress::Admitted)]);
        assert_eq!(shown(&world, 1), (OperationState::Admitted, None));
        world.event_kinds();
        world.report("r1", vec![world.progress(1, "h1", Progress::Done(Outcome::Changed))]);
        assert_eq!(shown(&world, 1), ended("changed"));
        assert_eq!(world.event_kinds(), ["io.picket.operation.done.v1 h1"]);
        let lines = world.history_of("h1");
        assert!(matches!(
            &lines[lines.len() - 2..],
            [HistoryWhat::OperationAccepted { .. }, HistoryWhat::OperationDone { result, .. }] if result == "changed"
        ));
        world.pass(200);
        assert_eq!(shown(&world, 1), ended("changed"), "its timers find it done");
    }

    #[test]
    fn an_absent_agent_gets_it_when_it_is_back_or_it_expires() {
        let mut world = World::running(1);
        world.gone("r1", 1);
        world.order(1, "h1", Action::On).unwrap();
        assert_eq!((sent(&world), shown(&world, 1)), (0, (OperationState::Accepted, None)));
        world.hello("r1", 2, 1);
        assert_eq!((sent(&world), shown(&world, 1)), (1, SENT));
        world.hello("r1", 3, 1);
        assert_eq!(sent(&world), 1, "it may not have reached it: the agent knows what it has seen");
        world.report("r1", vec![world.progress(1, "h1", Progress::Admitted)]);
        world.hello("r1", 4, 1);
        assert_eq!(sent(&world), 0);
        world.gone("r1", 4);
        world.order(2, "h1", Action::On).unwrap();
        world.pass(59);
        assert_eq!(shown(&world, 2), (OperationState::Accepted, None));
        world.pass(1);
        assert_eq!(shown(&world, 2), ended("expired"));
        world.hello("r1", 5, 1);
        assert_eq!(sent(&world), 0);
    }

    #[test]
    fn no_result_is_unknown_until_a_late_one_comes() {
        let mut world = World::running(1);
        world.order(1, "h1", Action::Cycle).unwrap();
        world.pass(119);
        assert_eq!(shown(&world, 1), SENT);
        world.pass(1);
        assert_eq!(shown(&world, 1), ended("unknown"));
        world.report("r1", vec![world.progress(1, "h1", Progress::Done(Outcome::Changed))]);
        assert_eq!(shown(&world, 1), ended("changed"));
        world.report("r1", vec![world.progress(1, "h1", Progress::Done(Outcome::Unchanged))]);
        assert_eq!(shown(&world, 1), ended("changed"), "only once");
        world.report("r1", vec![world.progress(9, "h1", Progress::Done(Outcome::Unchanged))]);
        assert_eq!(world.fleet.counters().unknown_operation, 1);
    }

    #[test]
    fn nothing_is_sent_again_under_another_enablement() {
        let another_journal = |world: &mut World| world.hello_with("r1", 2, 2, 1, None);
        let another_agent = |world: &mut World| {
            world.join("new", "r1", 9);
            world.hello("new", 4, 4);
        };
        let off_and_on = |world: &mut World| {
            world.gone("r1", 1);
            world.enable("h1", false);
            world.enable("h1", true);
            world.hello("r1", 2, 1);
        };
        type Change<'a> = (&'a str, &'a dyn Fn(&mut World));
        let changes: [Change<'_>; 3] = [("journal", &another_journal), ("agent", &another_agent), ("gate", &off_and_on)];
        for (name, change) in changes {
            for cancelling in [false, true] {
                let mut world = World::running(1);
                world.order(1, "h1", Action::Cycle).unwrap();
                if cancelling {
                    world.ask(Request::CancelOperation(operation(1))).unwrap();
                }
                change(&mut world);
                assert_eq!(world.commands(), [], "{name}");
                assert_eq!(shown(&world, 1), ended("unknown"), "{name}");
            }
        }
        let mut world = World::running(1);
        world.order(1, "h1", Action::Cycle).unwrap();
        off_and_on(&mut world);
        world.report("r1", vec![world.progress(1, "h1", Progress::Done(Outcome::Changed))]);
        assert_eq!(shown(&world, 1), ended("changed"), "a late result says more");
    }

    #[test]
    fn a_result_dated_before_its_order_is_not_old() {
        let mut world = World::running(1);
        world.order(1, "h1", Action::On).unwrap();
        let accepted_at = world.now.wall;
        let Report::Operation(mut report) = world.progress(1, "h1", Progress::Done(Outcome::Changed)) else { panic!() };
        report.at = jiff::Timestamp::UNIX_EPOCH.into();
        world.pass(3);
        world.report("r1", vec![Report::Operation(report)]);
        assert_eq!(shown(&world, 1), ended("changed"));
        assert_eq!(world.fleet.view().operations[&operation(1)].hosts[0].done_at, Some(accepted_at));
    }

    #[test]
    fn deadlines_survive_a_restart() {
        let mut world = World::running(1);
        world.gone("r1", 1);
        world.order(1, "h1", Action::On).unwrap();
        world.now = world.now.after(Duration::from_secs(30));
        world.restart();
        world.pass(29);
        assert_eq!(shown(&world, 1), (OperationState::Accepted, None));
        world.pass(1);
        assert_eq!(shown(&world, 1), ended("expired"));
    }

    #[test]
    fn taking_back() {
        let mut world = World::running(1);
        let cancel = |world: &mut World, n| world.ask(Request::CancelOperation(operation(n)));
        assert!(matches!(cancel(&mut world, 9), Err(Rejection::NotFound { kind: "operation", .. })));
        world.order(1, "h1", Action::On).unwrap();
        cancel(&mut world, 1).unwrap();
        assert!(matches!(world.commands()[..], [Command::Cancel { .. }]));
        assert_eq!(shown(&world, 1), SENT, "the agent says what came of it");
        world.hello("r1", 2, 1);
        assert!(matches!(world.commands()[..], [Command::Cancel { .. }]), "not the order again");
        world.report("r1", vec![world.progress(1, "h1", Progress::Done(Outcome::Cancelled))]);
        assert_eq!(shown(&world, 1), ended("cancelled"));
        assert!(matches!(cancel(&mut world, 1), Err(Rejection::TooLate(_))));
        world.order(2, "h1", Action::On).unwrap();
        world.report("r1", vec![world.progress(2, "h1", Progress::Admitted)]);
        assert!(matches!(cancel(&mut world, 2), Err(Rejection::TooLate(_))));
        world.gone("r1", 2);
        world.order(3, "h1", Action::On).unwrap();
        cancel(&mut world, 3).unwrap();
        assert_eq!(shown(&world, 3), ended("cancelled"));
    }

    #[test]
    fn closing_a_gate_refuses_what_was_not_sent() {
        let mut world = World::running(1);
        world.order(1, "h1", Action::On).unwrap();
        world.gone("r1", 1);
        world.order(2, "h1", Action::On).unwrap();
        world.ask(Request::SetOobm(Gate::Cluster(id("c1")), false)).unwrap();
        assert_eq!(shown(&world, 1), SENT);
        let operation = json::operation_json(&world.fleet.view().operations[&operation(2)]);
        assert_eq!(operation.hosts[0].refusal.as_deref(), Some("cluster-disabled"));
        assert!(operation.done);
    }

    #[test]
    fn old_operations_go() {
        let mut world = World::running(1);
        world.order(1, "h1", Action::On).unwrap();
        world.report("r1", vec![world.progress(1, "h1", Progress::Done(Outcome::Changed))]);
        world.pass(24 * 3600 - 1000);
        assert!(world.rows.contains_key(&view::RowKey::Operation(operation(1))));
        world.pass(2000);
        assert!(!world.rows.contains_key(&view::RowKey::Operation(operation(1))));
        assert!(world.fleet.view().operations.is_empty());
    }
}
