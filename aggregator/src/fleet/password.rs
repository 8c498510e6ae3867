//! The centre's half of a password change: the new password is kept as pending until a login has proven which one is in force.
//!
//! ```text
//! asked ─▶ pending, durable ─▶ sent ─▶ agent: journals it, sets it, logs in with it ─▶ report
//!             │                          new: it becomes the host's, under the reserved revision
//!             │                          old: dropped        neither: both kept, somebody must look
//!             └ never begun (refused, expired, taken back before it was sent): dropped
//! ```
//!
//! The command is sent again with the same bytes and the same revision after a crash of either side; the report may come long
//! after the operation ended, and again. A change whose end nobody knows stays, until a report or a person says.

use std::sync::Arc;

use picket_common::api::{HistoryWhat, PasswordChange, PasswordChangeState};
use picket_common::clock::Now;
use picket_common::command::{OperationState, Outcome, Refusal};
use picket_common::driver;
use picket_common::id::{HostId, OperationId};
use picket_common::wire::down::{ChangePassword, PowerCommand};
use picket_common::wire::report::{InForce, PasswordReport};

use super::commands::{Order, check_order};
use super::enablement::standing_refusal;
use super::request::{Answer, Given, Rejection};
use super::settings::not_found;
use super::view::{HostRow, PendingPasswordRow, Row, RowKey, View};
use super::{Fleet, Record, effective};

/// Whether the operation of a pending change goes on.
fn is_open(view: &View, pending: &PendingPasswordRow) -> bool {
    let part = view.operations.get(&pending.operation).and_then(|operation| operation.parts.get(&pending.host));
    part.is_some_and(|part| part.state != OperationState::Done)
}

/// A host's password change that is not over, as shown.
#[must_use]
pub fn password_change(view: &View, host: &HostId) -> Option<PasswordChange> {
    let pending = view.pending.get(host)?;
    let state = match pending.neither_since {
        _ if is_open(view, pending) => PasswordChangeState::Open,
        Some(_) => PasswordChangeState::Neither,
        None => PasswordChangeState::Unresolved,
    };
    Some(PasswordChange { operation: pending.operation, since: pending.neither_since.unwrap_or(pending.asked_at), state })
}

impl Fleet {
    /// Accepts a password change, or refuses it: gates, settings, another change, what it was sealed for.
    pub(super) fn change_password(
        &mut self,
        principal: &str,
        host: &HostId,
        given: Given,
        order: Order,
        now: Now,
    ) -> Result<Answer, Rejection> {
        let row = self.view.hosts.get(host).cloned().ok_or_else(|| not_found("host", host))?;
        if self.view.operations.contains_key(&order.id) {
            return Ok(Answer::Accepted(order.id));
        }
        if let Some(refusal) = standing_refusal(&self.view, &row) {
            return Err(Rejection::Refused(refusal));
        }
        if let Some(pending) = self.view.pending.get(host) {
            return Err(Rejection::PasswordChanging { host: host.clone(), operation: pending.operation });
        }
        self.check_given(&row, &given)?;
        let base_revision = row.bmc.as_ref().map_or(0, |bmc| bmc.revision);
        let pending = PendingPasswordRow {
            host: host.clone(),
            operation: order.id,
            address: given.address,
            username: given.username,
            password: given.password,
            base_revision,
            revision: base_revision + 1,
            asked_at: now.wall,
            neither_since: None,
        };
        check_order(&order)?;
        let (id, part) = (order.id, self.part_of(&row, &order, now.wall)?);
        self.keep_pending(pending);
        self.accept(principal, order, vec![part], now);
        Ok(Answer::Accepted(id))
    }

    /// Whether a new password is sealed for what is in force, and there is an old one it can take the place of.
    fn check_given(&self, host: &HostRow, given: &Given) -> Result<(), Rejection> {
        let Some(bmc) = effective::bmc(&self.view, host) else {
            return Err(Rejection::Refused(Refusal::HostNotConfigured));
        };
        if bmc.driver.value == driver::NULL.name {
            return Err(Rejection::Refused(Refusal::NotSupported));
        }
        if bmc.password.is_none() {
            return Err(Rejection::Refused(Refusal::PasswordNeeded));
        }
        let key = self.view.agent_of(host).map(|agent| agent.sealing_key);
        if key != Some(given.password.agent_key) || bmc.address != given.address || bmc.username.value != given.username {
            let text = "the BMC's address, user name or agent changed while it was sealed";
            return Err(Rejection::PasswordNeededAgain(text.into()));
        }
        Ok(())
    }

    /// Refuses what would change a BMC's settings while its password is being changed.
    pub(super) fn no_password_change(&self, host: &HostId) -> Result<(), Rejection> {
        match self.view.pending.get(host).filter(|pending| is_open(&self.view, pending)) {
            Some(pending) => Err(Rejection::PasswordChanging { host: host.clone(), operation: pending.operation }),
            None => Ok(()),
        }
    }

    /// The command of a change that may be sent; absent when what it was sealed for is not in force any more. Before it is sent
    /// for the first time the revision it starts from is the present one; afterwards it never changes.
    pub(super) fn password_command(&mut self, host: &HostRow, command: PowerCommand, is_first: bool) -> Option<ChangePassword> {
        let pending = self.view.pending.get(&host.id).filter(|pending| pending.operation == command.operation).cloned()?;
        let mut pending = (*pending).clone();
        if is_first {
            let given =
                Given { address: pending.address.clone(), username: pending.username.clone(), password: pending.password.clone() };
            self.check_given(host, &given).ok()?;
            let base = host.bmc.as_ref().map_or(0, |bmc| bmc.revision);
            if pending.base_revision != base {
                (pending.base_revision, pending.revision) = (base, base + 1);
                self.keep_pending(pending.clone());
            }
        }
        let PendingPasswordRow { password, base_revision, revision, .. } = pending;
        Some(ChangePassword { command, password: password.agent, base_revision, revision })
    }

    /// An operation on a host ended: a change that was never begun leaves nothing behind.
    pub(super) fn password_operation_ended(&mut self, id: OperationId, host: &HostId, outcome: &Outcome) {
        let never_begun = matches!(outcome, Outcome::Refused(_) | Outcome::Expired | Outcome::Cancelled);
        if never_begun && self.view.pending.get(host).is_some_and(|pending| pending.operation == id) {
            self.forget_pending(host);
        }
    }

    /// Which password a BMC takes, proven by a login. Only the change that is pending can be resolved, and only once.
    pub(super) fn password_report(&mut self, host: &Arc<HostRow>, id: String, report: &PasswordReport, now: Now) {
        let pending = self.view.pending.get(&host.id).cloned();
        let Some(pending) = pending.filter(|pending| pending.operation == report.operation) else {
            self.counters.ignored += 1;
            return;
        };
        let at = report.observed_at.timestamp();
        if report.in_force == InForce::Neither && pending.neither_since.is_some() {
            self.counters.ignored += 1;
            return;
        }
        let what = HistoryWhat::PasswordChange { operation_id: pending.operation, in_force: report.in_force };
        self.history(&host.id, Some(id), at, what, now);
        match report.in_force {
            InForce::New => self.adopt(host, &pending, now),
            InForce::Old => self.forget_pending(&host.id),
            InForce::Neither => {
                self.keep_pending(PendingPasswordRow { neither_since: Some(at), ..(*pending).clone() });
            }
        }
        self.settle_alerts(host, at, now);
    }

    /// Somebody says how a change ended that is over and was never resolved.
    pub(super) fn resolve_password(&mut self, host: &HostId, in_force: InForce, now: Now) -> Result<Answer, Rejection> {
        let row = self.view.hosts.get(host).cloned().ok_or_else(|| not_found("host", host))?;
        let pending = self.view.pending.get(host).cloned().ok_or_else(|| not_found("password change of host", host))?;
        self.no_password_change(host)?;
        let what = HistoryWhat::PasswordChange { operation_id: pending.operation, in_force };
        match in_force {
            InForce::New => self.adopt(&row, &pending, now),
            InForce::Old => self.forget_pending(host),
            InForce::Neither => {
                return Err(Rejection::Invalid {
                    field: "in_force",
                    text: "say new or old; if neither works, set a password".into(),
                });
            }
        }
        self.history(host, None, now.wall, what, now);
        self.settle_alerts(&row, now.wall, now);
        Ok(Answer::Done { created: false })
    }

    /// The new password is the host's from now on; one that inherited its login has one of its own.
    fn adopt(&mut self, host: &HostRow, pending: &PendingPasswordRow, now: Now) {
        let before = super::refusal(&self.view, host);
        self.edit_host(&host.id, |row| {
            if let Some(bmc) = &mut row.bmc {
                bmc.username = Some(pending.username.clone());
                bmc.password = Some(pending.password.clone());
                // As the agent has it, unless other settings changed meanwhile.
                let as_reserved = bmc.revision == pending.base_revision;
                bmc.revision = if as_reserved { pending.revision } else { bmc.revision.max(pending.revision) + 1 };
            }
        });
        self.forget_pending(&host.id);
        self.touch(host);
        self.settle_host(&host.id, before, now);
    }

    /// After a change of a host's settings: a password set by hand, or sealed for another place, ends what was pending.
    pub(super) fn settle_pending(&mut self, host: &HostId, is_new_password: bool) {
        let Some(pending) = self.view.pending.get(host) else { return };
        let bmc = self.view.hosts.get(host).and_then(|row| row.bmc.as_ref());
        if is_new_password || bmc.is_none_or(|bmc| bmc.address != pending.address) {
            self.forget_pending(host);
        }
    }

    pub(super) fn forget_pending(&mut self, host: &HostId) {
        if self.view.pending.remove(host).is_some() {
            self.draft.records.push(Record::Remove(RowKey::Pending(host.clone())));
        }
    }

    pub(super) fn keep_pending(&mut self, row: PendingPasswordRow) {
        self.draft.put(Row::Pending(row.clone()));
        self.view.pending.insert(row.host.clone(), Arc::new(row));
    }
}
