//! Operations on one host or thousands: accepted durably, sent when their time has come and the agent can hear, ended exactly once
//! per host.
//!
//! ```text
//! accepted ──▶ sent ──▶ admitted ──▶ done      accepted past the deadline: expired
//!     │          │          │          ▲       sent or admitted, a minute past it: unknown, until a late result says more
//!     └──────────┴──────────┴──────────┘       taken back, or its gate closed, before it was sent: cancelled, refused
//! ```
//!
//! Each host's part stands for itself: its start (staggered ones begin one after the other), its deadline, reckoned from its own
//! start, its result. What happens to one costs the same with ten thousand others beside it.

use std::collections::BTreeSet;
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
use super::request::{Answer, Bulk, Rejection};
use super::settings::{check_seconds, not_found};
use super::view::{HostRow, Operation, OperationRow, PartRow, RowKey};
use super::{Fleet, Record, Timer, effective, ha, json};

/// Most hosts of one operation.
pub const MAX_HOSTS: usize = 10_000;
/// Longest time from the first start of an operation to the last.
pub const MAX_SPREAD: Duration = Duration::from_secs(24 * 3600);
/// Operations of one host that are not done; more would only wait for the same BMC.
const MAX_OPEN: usize = 16;
/// How long after its deadline a sent operation may still bring a result.
const GRACE: Duration = Duration::from_secs(60);
/// How long, and how many, ended operations are kept, and how many parts of such.
const KEEP_FOR: Duration = Duration::from_secs(24 * 3600);
const KEEP: usize = 10_000;
const KEEP_PARTS: usize = 200_000;
/// How often what is too old is looked for.
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// Longest reason, in characters.
const MAX_REASON: usize = 500;
/// Unknown hosts named in a refusal.
const MAX_NAMED: usize = 10;
const NO_RESULT: &str = "no result from the agent";
/// Begins as [`NO_RESULT`]: a late result still says more.
const OVERTAKEN: &str = "no result from the agent: the host was moved, taken over or disabled meanwhile";

/// An order for an operation, whatever its hosts.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) id: OperationId,
    pub(super) operation: Action,
    pub(super) timeout: Option<u64>,
    pub(super) reason: Option<String>,
    pub(super) on_if_off: bool,
    pub(super) stagger: Duration,
}

/// Whether an order is within bounds, whoever it is for.
pub(super) fn check_order(order: &Order) -> Result<(), Rejection> {
    if order.reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON) {
        return Err(Rejection::Invalid { field: "reason", text: format!("at most {MAX_REASON} characters") });
    }
    check_seconds("timeout", order.timeout)
}

/// Why an order for a host would be refused now: what stands in the way of any, then too many others.
fn refusal_now(fleet: &Fleet, host: &HostRow, action: Action) -> Option<Refusal> {
    let is_full = || fleet.open.get(&host.id).is_some_and(|open| open.len() >= MAX_OPEN);
    let standing = match action {
        Action::Ha(action) => ha::refusal(&fleet.view, host, action),
        _ => standing_refusal(&fleet.view, host),
    };
    standing.or_else(|| is_full().then_some(Refusal::Busy))
}

impl Fleet {
    /// Accepts an operation of one host, or refuses it: gates, settings, password, agent, queue, bounds, in this order.
    pub(super) fn order(&mut self, principal: &str, host: &HostId, order: Order, now: Now) -> Result<Answer, Rejection> {
        let row = self.view.hosts.get(host).cloned().ok_or_else(|| not_found("host", host))?;
        let id = order.id;
        if self.view.operations.contains_key(&id) {
            return Ok(Answer::Accepted(id));
        }
        let part = self.part_of(&row, &order, now.wall)?;
        check_order(&order)?;
        self.accept(principal, order, vec![part], now);
        Ok(Answer::Accepted(id))
    }

    /// Accepts an operation of many hosts. A host that is not known is most likely a mistake: then nothing is done at all. A host
    /// that is refused is so in its own part.
    pub(super) fn operate(&mut self, principal: &str, bulk: Bulk, now: Now) -> Result<Answer, Rejection> {
        let Bulk { id, hosts, operation, timeout, reason, on_if_off, stagger_ms } = bulk;
        if self.view.operations.contains_key(&id) {
            return Ok(Answer::Accepted(id));
        }
        let stagger = Duration::from_millis(stagger_ms);
        let order = Order { id, operation, timeout, reason, on_if_off, stagger };
        check_order(&order)?;
        let rows = self.rows_of(&hosts, stagger)?;
        if matches!(operation, Action::ChangePassword | Action::Ha(_)) {
            let text = format!("{operation} takes one host at a time");
            return Err(Rejection::Invalid { field: "operation", text });
        }
        let (mut parts, mut refused) = (Vec::with_capacity(rows.len()), Vec::new());
        let mut start = now;
        for row in rows {
            match refusal_now(self, &row, operation) {
                None => {
                    parts.push(self.part_of(&row, &order, start.wall)?);
                    start = start.after(stagger);
                }
                Some(refusal) => {
                    refused.push((row.id.clone(), refusal));
                    parts.push(unstarted(&row, &order, now.wall, now.wall));
                }
            }
        }
        self.accept(principal, order, parts, now);
        for (host, refusal) in refused {
            self.end(id, &host, None, Outcome::Refused(refusal), now.wall, now);
        }
        Ok(Answer::Accepted(id))
    }

    /// The hosts of a bulk, all known, each once.
    fn rows_of(&self, hosts: &[HostId], stagger: Duration) -> Result<Vec<Arc<HostRow>>, Rejection> {
        let invalid = |text: String| Rejection::Invalid { field: "hosts", text };
        if hosts.is_empty() {
            return Err(invalid("no host is named".into()));
        }
        if hosts.len() > MAX_HOSTS {
            return Err(invalid(format!("{} hosts are more than {MAX_HOSTS}; split them up", hosts.len())));
        }
        let pauses = u32::try_from(hosts.len() - 1).unwrap_or(u32::MAX);
        if stagger.saturating_mul(pauses) > MAX_SPREAD {
            let text = format!("the last of {} hosts would begin more than a day after the first", hosts.len());
            return Err(Rejection::Invalid { field: "stagger", text });
        }
        let unknown: Vec<&str> = hosts.iter().filter(|id| !self.view.hosts.contains_key(*id)).map(HostId::as_str).collect();
        if !unknown.is_empty() {
            let named = unknown.get(..MAX_NAMED).unwrap_or(&unknown).join(", ");
            let more = unknown.len().saturating_sub(MAX_NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            return Err(invalid(format!("not known: {named}{more}; nothing was done")));
        }
        let mut seen = BTreeSet::new();
        let once = hosts.iter().filter(|id| seen.insert(*id));
        Ok(once.filter_map(|id| self.view.hosts.get(id)).cloned().collect())
    }

    /// A host's part of an order that begins at `start`, or why it is refused.
    pub(super) fn part_of(&self, host: &HostRow, order: &Order, start: Timestamp) -> Result<PartRow, Rejection> {
        if let Some(refusal) = refusal_now(self, host, order.operation) {
            return Err(Rejection::Refused(refusal));
        }
        let seconds = order.timeout.unwrap_or_else(|| effective::action_timeout(&self.view, host).value).clamp(1, 3600);
        let deadline = start.saturating_add(Duration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        Ok(unstarted(host, order, start, deadline))
    }

    /// Takes an order on: its operation and parts are there from now on, and those whose time has come are sent.
    pub(super) fn accept(&mut self, principal: &str, order: Order, parts: Vec<PartRow>, now: Now) {
        let Order { id, operation, reason, on_if_off, stagger, .. } = order;
        let row = OperationRow {
            id,
            operation,
            on_if_off,
            principal: principal.into(),
            reason: reason.clone(),
            accepted_at: now.wall,
            deadline: parts.iter().map(|part| part.deadline).max().unwrap_or(now.wall),
            stagger_ms: u64::try_from(stagger.as_millis()).unwrap_or(u64::MAX),
        };
        let hosts: Vec<(HostId, Timestamp)> = parts.iter().map(|part| (part.host.clone(), part.starts_at)).collect();
        self.view.operations.insert(id, Arc::new(Operation::new(row, parts)));
        self.draft.operations.insert(id);
        for (host, starts_at) in hosts {
            let what = HistoryWhat::OperationAccepted {
                operation_id: id,
                action: operation,
                principal: principal.into(),
                reason: reason.clone(),
            };
            self.history(&host, None, now.wall, what, now);
            self.draft.parts.insert((id, host.clone()));
            self.open.entry(host.clone()).or_default().insert(id);
            if starts_at > now.wall {
                self.arm(at(starts_at, now), Timer::Begin(id, host));
            } else {
                self.begin(id, &host, now);
            }
        }
    }

    /// A part's time has come: it is sent if its agent hears, and has until its deadline.
    pub(super) fn begin(&mut self, id: OperationId, host: &HostId, now: Now) {
        let Some(part) = self.part(id, host).filter(|part| part.state == OperationState::Accepted) else { return };
        self.arm(at(part.deadline, now), Timer::Expire(id, host.clone()));
        if let Some(row) = self.view.hosts.get(host).cloned() {
            self.dispatch(id, &row, now);
        }
    }

    /// Sends a part to the host's agent if it hears us now and the deadline has not passed; else it waits.
    fn dispatch(&mut self, id: OperationId, host: &HostRow, now: Now) {
        let Some(agent) = self.view.agent_of(host).cloned() else { return };
        let Some(operation) = self.view.operations.get(&id).cloned() else { return };
        let Some(part) = operation.parts.get(&host.id) else { return };
        let hears = self.links.get(&agent.id).is_some_and(|link| link.session.is_some());
        if !hears || part.deadline <= now.wall {
            return;
        }
        let command = PowerCommand {
            operation: id,
            host: host.id.clone(),
            action: operation.row.operation,
            on_if_off: operation.row.on_if_off,
            deadline: part.deadline.into(),
            epoch: self.epoch_of(&agent.id),
            generation: self.coming_generation(&agent),
            enablement: host.enablement,
        };
        let command = match operation.row.operation {
            Action::ChangePassword => match self.password_command(host, command, part.sent_at.is_none()) {
                Some(change) => Command::ChangePassword(change),
                None if part.sent_at.is_none() => return self.end(id, &host.id, None, Outcome::Cancelled, now.wall, now),
                None => return,
            },
            Action::Ha(action) => Command::Ha(ha::command(action, command, &operation.row)),
            _ => Command::Power(command),
        };
        self.draft.command(&agent.id, command);
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
                (OperationState::Accepted, _) if part.starts_at > now.wall => {}
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

    /// Takes back what was not begun; of what was sent, the agent decides.
    pub(super) fn cancel(&mut self, id: OperationId, now: Now) -> Result<Answer, Rejection> {
        let operation = self.view.operations.get(&id).cloned().ok_or_else(|| not_found("operation", id))?;
        if operation.open == 0 {
            return Err(Rejection::TooLate(format!("operation {id} has ended")));
        }
        let can_be = |part: &&Arc<PartRow>| matches!(part.state, OperationState::Accepted | OperationState::Sent);
        let parts: Vec<Arc<PartRow>> = operation.parts.values().filter(can_be).cloned().collect();
        if parts.is_empty() {
            return Err(Rejection::TooLate(format!("operation {id} was taken on by the agent")));
        }
        for part in parts {
            if part.state == OperationState::Accepted {
                self.end(id, &part.host, None, Outcome::Cancelled, now.wall, now);
                continue;
            }
            self.edit_part(id, &part.host, |part| part.cancelling = true);
            if let Some(host) = self.view.hosts.get(&part.host).cloned() {
                self.tell_cancel(id, &host);
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
        let accepted_at = self.view.operations.get(&id).map_or(now.wall, |operation| operation.row.accepted_at);
        let done_at = at.max(accepted_at).min(now.wall);
        self.audit_end(id, host, &outcome, now);
        self.password_operation_ended(id, host, &outcome);
        let before = self.view.operations.get(&id).and_then(|operation| operation.ended_at());
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
        self.settle_operation(id, before, now);
    }

    /// An operation whose last part has ended is kept for a while.
    fn settle_operation(&mut self, id: OperationId, before: Option<Timestamp>, now: Now) {
        let Some(operation) = self.view.operations.get(&id) else { return };
        let (ended, parts) = (operation.ended_at(), operation.parts.len());
        match before {
            Some(before) => drop(self.done.remove(&(before, id))),
            None if ended.is_some() => self.done_parts += parts,
            None => {}
        }
        if let Some(ended) = ended {
            self.done.insert((ended, id));
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

    /// A part's deadline: if it was not sent it has expired; else its result has a little longer.
    pub(super) fn expire(&mut self, id: OperationId, host: &HostId, now: Now) {
        match self.part(id, host).map(|part| part.state) {
            Some(OperationState::Accepted) => self.end(id, host, None, Outcome::Expired, now.wall, now),
            Some(OperationState::Sent | OperationState::Admitted) => {
                self.arm(now.boottime + GRACE, Timer::GiveUp(id, host.clone()));
            }
            Some(OperationState::Done) | None => {}
        }
    }

    /// The deadline and its grace are over: what has not ended never told its result.
    pub(super) fn give_up(&mut self, id: OperationId, host: &HostId, now: Now) {
        let open = |part: &&Arc<PartRow>| matches!(part.state, OperationState::Sent | OperationState::Admitted);
        let Some(part) = self.part(id, host).filter(open) else { return };
        let cancelled = if part.cancelling { " about taking it back" } else { "" };
        let outcome = Outcome::Unknown(format!("{NO_RESULT}{cancelled}"));
        self.end(id, host, None, outcome, now.wall, now);
    }

    fn part(&self, id: OperationId, host: &HostId) -> Option<&Arc<PartRow>> {
        self.view.operations.get(&id)?.parts.get(host)
    }

    fn edit_part(&mut self, id: OperationId, host: &HostId, edit: impl FnOnce(&mut PartRow)) {
        let Some(operation) = self.view.operations.get_mut(&id) else { return };
        let operation = Arc::make_mut(operation);
        let Some(part) = operation.parts.get_mut(host) else { return };
        let was_open = part.state != OperationState::Done;
        let part = Arc::make_mut(part);
        edit(part);
        let is_open = part.state != OperationState::Done;
        operation.open = operation.open + usize::from(is_open) - usize::from(was_open);
        self.draft.parts.insert((id, host.clone()));
    }

    fn trim_operations(&mut self, now: Now) {
        let oldest = now.wall.saturating_sub(KEEP_FOR).unwrap_or(Timestamp::MIN);
        let is_surplus =
            |ended: Timestamp, count: usize, parts: usize| ended < oldest || count > KEEP || (parts > KEEP_PARTS && count > 1);
        while let Some((ended, id)) = self.done.first().copied() {
            if !is_surplus(ended, self.done.len(), self.done_parts) {
                return;
            }
            self.done.pop_first();
            let Some(operation) = self.view.operations.remove(&id) else { continue };
            self.done_parts = self.done_parts.saturating_sub(operation.parts.len());
            self.draft.operations.remove(&id);
            self.draft.records.push(Record::Remove(RowKey::Operation(id)));
            for host in operation.parts.keys() {
                self.draft.parts.remove(&(id, host.clone()));
                self.draft.records.push(Record::Remove(RowKey::Part(id, host.clone())));
            }
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

    /// After a restart: takes a stored operation up again.
    pub(super) fn index_operation(&mut self, operation: &Operation) {
        for part in operation.parts.values().filter(|part| part.state != OperationState::Done) {
            self.open.entry(part.host.clone()).or_default().insert(operation.row.id);
        }
        if let Some(ended) = operation.ended_at() {
            self.done.insert((ended, operation.row.id));
            self.done_parts += operation.parts.len();
        }
    }

    /// After a restart: sets the starts and deadlines of what is not done.
    pub(super) fn arm_operations(&mut self, now: Now) {
        let ids = self.open.iter().flat_map(|(host, ids)| ids.iter().map(move |id| (*id, host.clone())));
        for (id, host) in ids.collect::<Vec<_>>() {
            let Some(part) = self.part(id, &host) else { continue };
            let (state, starts_at, deadline) = (part.state, part.starts_at, at(part.deadline, now));
            match state {
                OperationState::Accepted if starts_at > now.wall => self.arm(at(starts_at, now), Timer::Begin(id, host)),
                OperationState::Accepted => self.arm(deadline, Timer::Expire(id, host)),
                OperationState::Sent | OperationState::Admitted => self.arm(deadline + GRACE, Timer::GiveUp(id, host)),
                OperationState::Done => {}
            }
        }
    }
}

/// When a time comes, on the monotonic clock.
fn at(time: Timestamp, now: Now) -> Duration {
    now.boottime + Duration::try_from(time.duration_since(now.wall)).unwrap_or_default()
}

fn unstarted(host: &HostRow, order: &Order, starts_at: Timestamp, deadline: Timestamp) -> PartRow {
    PartRow {
        operation: order.id,
        host: host.id.clone(),
        state: OperationState::Accepted,
        outcome: None,
        cancelling: false,
        maintenance: host.maintenance,
        starts_at,
        deadline,
        sent_at: None,
        sent_enablement: None,
        admitted_at: None,
        done_at: None,
    }
}

/// Whether an agent's result still counts: the operation has not ended, or ended only because none had come.
fn accepts(part: &PartRow) -> bool {
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
        let view = world.fleet.view();
        let json = json::operation_json(&view, &view.operations[&operation(n)], json::Parts::All);
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
        let with_password = |address: &str| spec("c1", "r1", Some(with_login(address, 1)));
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
    fn a_reason_is_as_long_in_any_script() {
        let mut world = World::running(1);
        let order = |world: &mut World, n, reason: &str| {
            let (host, operation, reason) = (id("h1"), Action::Status, Some(reason.to_owned()));
            world.ask(Request::Power {
                id: super::super::testing::operation(n),
                host,
                operation,
                timeout: None,
                reason,
                on_if_off: false,
            })
        };
        order(&mut world, 1, &"電".repeat(500)).unwrap();
        assert!(matches!(order(&mut world, 2, &"x".repeat(501)), Err(Rejection::Invalid { field: "reason", .. })));
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
        assert_eq!(world.part(1, "h1").done_at, Some(accepted_at));
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
        let view = world.fleet.view();
        let operation = json::operation_json(&view, &view.operations[&operation(2)], json::Parts::All);
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
