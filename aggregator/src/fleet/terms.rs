//! What comes along with a request beside what is asked, and what that adds to the decision.

use picket_common::clock::Now;

use super::Fleet;
use super::etag::Precondition;
use super::request::{Answer, Rejection, Request};

/// What comes along with a request.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// What must hold of what is there.
    pub precondition: Precondition,
}

impl Fleet {
    /// Grants a request whose terms hold. The check and the change are one step: nothing comes between.
    pub(super) fn asked_under(&mut self, principal: &str, request: Request, terms: &Terms, now: Now) -> Result<Answer, Rejection> {
        terms.precondition.check(&self.view, &request)?;
        self.asked(principal, request, now)
    }
}
