//! What people order about hosts that are watched over: accepted, sent and ended as operations are; what can be refused here is.

use picket_common::clock::Now;
use picket_common::command::{Action, HaAction, Refusal};
use picket_common::id::{HostId, OperationId};
use picket_common::wire::down::PowerCommand;
use picket_common::wire::ha::{HaCommand, MAX_PRINCIPAL};
use picket_common::wire::report::MAX_TEXT;

use super::settings::{closed, is_concerned};
use crate::fleet::Fleet;
use crate::fleet::bmc::invalid;
use crate::fleet::commands::Order;
use crate::fleet::enablement::standing_refusal;
use crate::fleet::request::{Answer, Rejection};
use crate::fleet::view::{HostRow, OperationRow, View};

/// Time a fence is given when nobody says, in seconds: its attempts, and what holds it for a while.
const FENCE_TIMEOUT: u64 = 600;

/// A person's word.
#[derive(Debug)]
pub(in crate::fleet) struct Word {
    pub(in crate::fleet) id: OperationId,
    pub(in crate::fleet) action: HaAction,
    pub(in crate::fleet) timeout: Option<u64>,
    pub(in crate::fleet) reason: Option<String>,
}

/// Why a word about a host would be refused now. What is said of a host whose gates are closed meanwhile (that it is known to be
/// broken, that it may live again) still reaches its agent: the mark of a fence outlives them.
pub(in crate::fleet) fn refusal(view: &View, host: &HostRow, action: HaAction) -> Option<Refusal> {
    if !is_concerned(view, &host.id) {
        return Some(Refusal::HaDisabled);
    }
    let is_disabled = || closed(view, host).is_some().then_some(Refusal::HaDisabled);
    let nobody = || view.agent_of(host).is_none().then_some(Refusal::RackWithoutAgent);
    match action {
        HaAction::Fence { .. } => standing_refusal(view, host).or_else(is_disabled),
        HaAction::Confirm { .. } => is_disabled().or_else(nobody),
        HaAction::Plan | HaAction::Abort | HaAction::Ack | HaAction::Release | HaAction::ResetCounters | HaAction::EndCliff => {
            nobody()
        }
    }
}

/// A word as it is sent: bound to the same as an operation of the BMC would be.
pub(in crate::fleet) fn command(action: HaAction, bound: PowerCommand, asked: &OperationRow) -> HaCommand {
    let PowerCommand { operation, host, deadline, epoch, generation, enablement, action: _, on_if_off: _ } = bound;
    HaCommand {
        operation,
        host,
        verb: action.into(),
        by: cut_to(&asked.principal, MAX_PRINCIPAL),
        reason: cut_to(asked.reason.as_deref().unwrap_or_default(), MAX_TEXT),
        deadline,
        epoch,
        generation,
        enablement,
    }
}

/// The wire counts bytes, people count characters.
fn cut_to(text: &str, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

impl Fleet {
    /// Accepts a person's word about a host, or refuses it.
    pub(in crate::fleet) fn order_ha(&mut self, principal: &str, host: &HostId, word: Word, now: Now) -> Result<Answer, Rejection> {
        let Word { id, action, timeout, reason } = word;
        if reason.is_none() && action != HaAction::Plan {
            return Err(invalid("reason", format!("is missing: say why, {} is written down with it", action.as_str())));
        }
        let timeout = match action {
            HaAction::Fence { .. } => timeout.or(Some(FENCE_TIMEOUT)),
            _ => timeout,
        };
        let stagger = std::time::Duration::ZERO;
        let order = Order { id, operation: Action::Ha(action), timeout, reason, on_if_off: false, stagger };
        self.order(principal, host, order, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, most, wanted) in [("", 3, ""), ("abc", 3, "abc"), ("abcd", 3, "abc"), ("aé", 2, "a"), ("電電", 5, "電")] {
            assert_eq!(cut_to(text, most), wanted);
        }
    }
}
