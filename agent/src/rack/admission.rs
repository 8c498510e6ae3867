//! May this command be carried out here and now? Pure: looks, decides, changes nothing.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::Refusal;
use picket_common::wire::Time;
use picket_common::wire::assign::HostAssignment;
use picket_common::wire::down::PowerCommand;

/// Most operations that wait for one BMC.
pub const MAX_QUEUED: usize = 16;

/// The aggregator's clock, measured by a signed echo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CentreClock {
    /// When the nonce was sent (boottime).
    pub sent: Duration,
    /// What the aggregator's clock said when it answered.
    pub at: Time,
}

impl CentreClock {
    /// The latest it can be at the aggregator: the whole round trip is charged against deadlines.
    #[must_use]
    pub fn latest(self, now: Duration) -> Time {
        let passed = i64::try_from(now.saturating_sub(self.sent).as_micros()).unwrap_or(i64::MAX);
        Time(self.at.0.saturating_add(passed))
    }
}

/// What the rack knows that bears on a command.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// The host's assignment, if it is ours.
    pub assignment: Option<&'a HostAssignment>,
    /// Newest owner epoch heard of.
    pub epoch: u64,
    /// The measured clock, if any.
    pub clock: Option<CentreClock>,
    /// Operations of this host not ended.
    pub queued: usize,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on; so much time is left.
    Admitted(Duration),
    /// Too late.
    Expired,
    /// Policy says no.
    Refused(Refusal),
}

/// Judges a command that was not seen before.
#[must_use]
pub fn admit(command: &PowerCommand, standing: Standing<'_>, now: Now) -> Verdict {
    let centre_now = standing.clock.map_or(Time::from(now.wall), |clock| clock.latest(now.boottime));
    let left = u64::try_from(command.deadline.0.saturating_sub(centre_now.0)).unwrap_or(0);
    if left == 0 {
        return Verdict::Expired;
    }
    match refusal(command, standing) {
        Some(refusal) => Verdict::Refused(refusal),
        None => Verdict::Admitted(Duration::from_micros(left).min(Duration::from_secs(3600))),
    }
}

fn refusal(command: &PowerCommand, standing: Standing<'_>) -> Option<Refusal> {
    if command.epoch < standing.epoch {
        return Some(Refusal::StaleEpoch);
    }
    let Some(assignment) = standing.assignment else { return Some(Refusal::NotAssigned) };
    if let Some(refusal) = assignment.refusal {
        return Some(refusal);
    }
    if assignment.bmc.is_none() {
        return Some(Refusal::HostNotConfigured);
    }
    if command.enablement < assignment.enablement {
        // Given before the host was disabled and enabled again.
        return Some(Refusal::HostDisabled);
    }
    if standing.queued >= MAX_QUEUED {
        return Some(Refusal::Busy);
    }
    if standing.clock.is_none() && !command.action.is_idempotent() {
        return Some(Refusal::ClockUnknown);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use picket_common::command::Action;
    use picket_common::id::OperationId;
    use picket_common::wire::Generation;
    use picket_common::wire::assign::BmcAssignment;

    fn assignment() -> HostAssignment {
        HostAssignment {
            host: "h".parse().unwrap(),
            zone: "z".parse().unwrap(),
            cluster: "c".parse().unwrap(),
            enablement: 3,
            refusal: None,
            bmc: Some(BmcAssignment {
                driver: "null".into(),
                address: "x".into(),
                port: None,
                username: String::new(),
                password: None,
                options: vec![],
                revision: 1,
            }),
            poll_interval_ms: 1000,
        }
    }

    fn command(action: Action) -> PowerCommand {
        PowerCommand {
            operation: OperationId(uuid::Uuid::nil()),
            host: "h".parse().unwrap(),
            action,
            on_if_off: false,
            deadline: Time(1_000_000),
            epoch: 5,
            generation: Generation { store: uuid::Uuid::nil(), counter: 1 },
            enablement: 3,
        }
    }

    #[test]
    fn the_table() {
        let ours = assignment();
        let mut disabled = assignment();
        disabled.refusal = Some(Refusal::ClusterDisabled);
        let mut bare = assignment();
        bare.bmc = None;
        let mut newer = assignment();
        newer.enablement = 4;
        let clock = Some(CentreClock { sent: Duration::from_secs(10), at: Time(0) });
        let good = Standing { assignment: Some(&ours), epoch: 5, clock, queued: 0 };
        let at = |ms| Now { boottime: Duration::from_secs(10) + Duration::from_millis(ms), wall: jiff::Timestamp::MAX };
        let refused = Verdict::Refused;
        let off = command(Action::Off);
        let table = [
            (off.clone(), good, 400, Verdict::Admitted(Duration::from_millis(600))),
            (off.clone(), good, 1000, Verdict::Expired),
            (off.clone(), good, 5000, Verdict::Expired),
            (off.clone(), Standing { epoch: 6, ..good }, 0, refused(Refusal::StaleEpoch)),
            (off.clone(), Standing { assignment: None, ..good }, 0, refused(Refusal::NotAssigned)),
            (off.clone(), Standing { assignment: Some(&disabled), ..good }, 0, refused(Refusal::ClusterDisabled)),
            (off.clone(), Standing { assignment: Some(&bare), ..good }, 0, refused(Refusal::HostNotConfigured)),
            (off.clone(), Standing { assignment: Some(&newer), ..good }, 0, refused(Refusal::HostDisabled)),
            (off.clone(), Standing { queued: MAX_QUEUED, ..good }, 0, refused(Refusal::Busy)),
            (command(Action::Reset), good, 0, Verdict::Admitted(Duration::from_secs(1))),
        ];
        for (command, standing, ms, verdict) in table {
            assert_eq!(admit(&command, standing, at(ms)), verdict, "{command:?} {standing:?}");
        }
        let unmeasured = Standing { clock: None, ..good };
        let early = Now { boottime: Duration::ZERO, wall: jiff::Timestamp::UNIX_EPOCH };
        assert_eq!(admit(&command(Action::Cycle), unmeasured, early), refused(Refusal::ClockUnknown));
        assert!(matches!(admit(&off, unmeasured, early), Verdict::Admitted(_)));
    }
}
