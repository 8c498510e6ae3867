//! Power that changed without our doing: an alert when polling finds a host On that was Off, or the other way round.
//!
//! It fires for a change between two readings that polling made itself, with nothing of ours between them. It does not fire for
//! Unknown, for the first reading after enabling, after a journal was lost or taken over, or after a gap: then nobody knows what
//! happened meanwhile. It ends when the state is what it was, when an operation of ours changes the power, when the host is
//! disabled or removed, when somebody acknowledges it, and after a day.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use picket_common::alert::AlertKind;
use picket_common::clock::Now;
use picket_common::command::{Action, ErrorClass, HaAction, OperationState, Outcome};
use picket_common::id::HostId;
use picket_common::power::{Cause as PowerCause, PowerState};

use super::{Cause, Subject};
use crate::fleet::Fleet;
use crate::fleet::view::HostRow;

/// How long such an alert fires at most.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long an order whose outcome is not known may still take effect: a shutdown that the operating system took its time for.
const LATE_EFFECT: SignedDuration = SignedDuration::from_mins(15);

/// Longer than an order takes, with its place in a staggered one.
const LONGEST_ORDER: SignedDuration = SignedDuration::from_hours(4);

/// What is remembered of a host's power beside its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) enum Memory {
    /// It is Unknown now; this was read before.
    Was(PowerState),
    /// Reports were lost: the next reading tells nothing about a change.
    Unsure,
}

/// A power report that was taken in.
#[derive(Debug, Clone, Copy)]
pub(in crate::fleet) struct Reading {
    pub(in crate::fleet) before: PowerState,
    pub(in crate::fleet) after: PowerState,
    pub(in crate::fleet) cause: PowerCause,
    pub(in crate::fleet) at: Timestamp,
}

impl Fleet {
    /// A power report was taken in: was it our doing?
    pub(in crate::fleet) fn note_power(&mut self, host: &HostRow, reading: Reading, now: Now) {
        let Reading { before, after, cause, at } = reading;
        let memory = self.power_memory.get(&host.id).copied();
        let known = match (before, memory) {
            (_, Some(Memory::Unsure)) => None,
            (PowerState::On | PowerState::Off, _) => Some(before),
            (_, Some(Memory::Was(state))) => Some(state),
            (PowerState::Unknown | PowerState::Disabled, None) => None,
        };
        if !matches!(after, PowerState::On | PowerState::Off) {
            if let Some(known) = known {
                self.power_memory.insert(host.id.clone(), Memory::Was(known));
            }
            return;
        }
        self.power_memory.remove(&host.id);
        let Some(known) = known.filter(|known| *known != after) else { return };
        let subject = Subject::Host(host);
        let is_back = self.open_alert(&subject.alert_id(AlertKind::HostPowerChanged)).is_some();
        let is_ours = matches!(cause, PowerCause::Command(_))
            || self.view.reported.get(&host.id).is_some_and(|row| row.may_have_led_to(after))
            || self.is_late_effect(&host.id, after, now);
        let cause = (!is_back && !is_ours).then(|| Cause {
            summary: format!("{} was switched {known} → {after}, and not by Picket", host.id),
            bmc_error: None,
            since: at,
        });
        self.hold(subject, AlertKind::HostPowerChanged, cause, now);
    }

    /// Nobody knows what happened to a host's power meanwhile.
    pub(in crate::fleet) fn doubt_power(&mut self, host: &HostId) {
        self.power_memory.insert(host.clone(), Memory::Unsure);
    }

    /// A host's power is told anew: the next reading is the first one.
    pub(in crate::fleet) fn forget_power(&mut self, host: &HostId) {
        self.power_memory.remove(host);
    }

    /// A host that may not be touched has no power change to speak of.
    pub(super) fn settle_power_alert(&mut self, host: &HostRow, power: PowerState, now: Now) {
        if power == PowerState::Disabled {
            self.hold(Subject::Host(host), AlertKind::HostPowerChanged, None, now);
        }
    }

    /// Whether an operation of ours whose outcome is open may have led to `state`.
    fn is_late_effect(&self, host: &HostId, state: PowerState, now: Now) -> bool {
        let since = now.wall.saturating_sub(LATE_EFFECT).unwrap_or(Timestamp::MIN);
        let oldest = since.saturating_sub(LONGEST_ORDER).unwrap_or(Timestamp::MIN);
        // Ids grow with time: the newest come first.
        let lately = self.view.operations.values().rev().take_while(|operation| operation.row.accepted_at >= oldest);
        lately.filter(|operation| leads_to(operation.row.operation, state)).any(|operation| {
            let part = operation.parts.get(host);
            part.is_some_and(|part| part.done_at.is_none_or(|at| at >= since) && may_have_done(part.state, part.outcome.as_ref()))
        })
    }
}

const fn leads_to(action: Action, state: PowerState) -> bool {
    match action {
        Action::On => matches!(state, PowerState::On),
        Action::Off | Action::Soft | Action::Ha(HaAction::Fence { .. }) => matches!(state, PowerState::Off),
        Action::Cycle | Action::Reset => matches!(state, PowerState::On | PowerState::Off),
        Action::Status
        | Action::Diag
        | Action::Identify { .. }
        | Action::Bootdev { .. }
        | Action::Test
        | Action::ChangePassword
        | Action::Ha(_) => false,
    }
}

/// Whether an order was sent and nobody knows yet what came of it. What ended as it should has had its effect; what failed has
/// none, unless the BMC took it and only the time was over.
fn may_have_done(state: OperationState, outcome: Option<&Outcome>) -> bool {
    match (state, outcome) {
        (OperationState::Sent | OperationState::Admitted, _) | (OperationState::Done, Some(Outcome::Unknown(_))) => true,
        (OperationState::Done, Some(Outcome::Failed(error))) => error.class == ErrorClass::Deadline,
        _ => false,
    }
}
