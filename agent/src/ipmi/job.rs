//! The request a session serves at the moment: how far it got and what was already tried for it.

use std::time::Duration;

use super::request::Request;
use super::settings::{Privilege, Settings};
use super::suite::Suite;

/// A kept session that is silent this long is thrown away (a retry inside a session that lost its place never works).
pub const SILENCE: Duration = Duration::from_secs(5);
/// Below this silence a session is kept: two copies of a request fit in.
const LEAST_SILENCE: Duration = Duration::from_secs(2);
/// Most session openings for one request: two suites at three privilege levels, one reopening and one restart.
const MAX_ATTEMPTS: u8 = 8;

/// See the module.
pub struct Job {
    pub request: Request,
    /// How long a kept session may be silent, so that there is time to open another within the deadline.
    pub silence: Duration,
    /// Something of this BMC was heard since the request came.
    pub heard: bool,
    /// A copy of the request was sent and not refused since.
    pub sent: bool,
    /// The one reopening after silence was used.
    pub reopened: bool,
    /// The one new login after a muddle of retransmissions was used.
    pub restarted: bool,
    /// Levels at which a session for it may be opened, in their order.
    pub privileges: &'static [Privilege],
    /// Where in them this request is.
    pub privilege: usize,
    attempts: u8,
    tried: [bool; 2],
    /// Every refusal of a suite so far was "insufficient resources".
    pub only_resources: bool,
}

impl Job {
    /// `likely` is the level to begin with, if it is one of those that are allowed.
    pub fn new(request: Request, now: Duration, settings: &Settings, likely: Option<Privilege>) -> Self {
        let privileges = request.privilege.map_or(settings.privileges, Privilege::alone);
        let privilege = likely.and_then(|likely| privileges.iter().position(|level| *level == likely)).unwrap_or(0);
        let half = request.deadline.saturating_sub(now) / 2;
        Self {
            request,
            silence: SILENCE.min(half.max(LEAST_SILENCE)),
            heard: false,
            sent: false,
            reopened: false,
            restarted: false,
            privileges,
            privilege,
            attempts: 0,
            tried: [false; 2],
            only_resources: true,
        }
    }

    /// The level it is at.
    pub fn level(&self) -> Privilege {
        self.privileges.get(self.privilege).copied().unwrap_or(Privilege::User)
    }

    /// Counts one more opening; the count when there were too many.
    pub fn attempt(&mut self) -> Result<(), u8> {
        self.attempts += 1;
        if self.attempts > MAX_ATTEMPTS { Err(self.attempts - 1) } else { Ok(()) }
    }

    pub fn refuse_suite(&mut self, suite: Suite) {
        match suite {
            Suite::Seventeen => self.tried[0] = true,
            Suite::Three => self.tried[1] = true,
        }
    }

    /// The first suite not refused yet.
    pub fn next_suite(&self, settings: &Settings) -> Option<Suite> {
        let refused = |suite: &Suite| match suite {
            Suite::Seventeen => self.tried[0],
            Suite::Three => self.tried[1],
        };
        settings.suites.iter().copied().find(|suite| !refused(suite))
    }

    /// Another privilege level: every suite may be tried again.
    pub fn forget_suites(&mut self) {
        self.tried = [false; 2];
        self.only_resources = true;
    }
}
