//! Turns a driver's answer into what it means for a host: a power event, if any, and how the BMC is doing. Pure.

use std::time::Duration;

use picket_common::command::{BmcError, ErrorClass};
use picket_common::power::{Management, PowerEvent};

use crate::bmc::{DriverError, Reading};

/// Failed polls in a row after which a BMC is lost.
pub const LOST_AFTER: u32 = 3;
/// Refused logins in a row after which logins pause.
pub const BLOCKED_AFTER: u32 = 2;
/// How long logins pause: longer than the usual lock-out window of a BMC.
pub const BLOCKED_FOR: Duration = Duration::from_secs(15 * 60);

/// What one answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// For the power state machine; absent while the BMC is between On and Off.
    pub event: Option<PowerEvent>,
    /// How the BMC is doing now.
    pub management: Management,
    /// The failure, typed.
    pub error: Option<BmcError>,
    /// The streak after this answer.
    pub streak: Streak,
}

/// Failures in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    /// Requests without an answer.
    pub silent: u32,
    /// Refused logins.
    pub refused_logins: u32,
}

/// Judges a reading. `before` is the management state and streak so far.
#[must_use]
pub fn observe(result: Result<Reading, &DriverError>, before: Option<Management>, streak: Streak) -> Observation {
    match result {
        Ok(reading) => Observation {
            event: match reading {
                Reading::On => Some(PowerEvent::On),
                Reading::Off => Some(PowerEvent::Off),
                Reading::Transitioning => None,
            },
            management: Management::Reachable,
            error: None,
            streak: Streak::default(),
        },
        Err(error) => failure(error, before, streak),
    }
}

fn failure(error: &DriverError, before: Option<Management>, streak: Streak) -> Observation {
    let streak = match error.class {
        ErrorClass::Auth => Streak { silent: 0, refused_logins: streak.refused_logins.saturating_add(1) },
        ErrorClass::Connection | ErrorClass::Deadline => Streak { silent: streak.silent.saturating_add(1), ..streak },
        ErrorClass::Setting | ErrorClass::Refused | ErrorClass::Protocol => Streak { silent: 0, ..streak },
    };
    // Silence does not lift a block: only a login that works does, or new credentials.
    let blocked = streak.refused_logins >= BLOCKED_AFTER || before == Some(Management::AuthBlocked);
    let management = if blocked {
        Management::AuthBlocked
    } else if streak.silent >= LOST_AFTER {
        Management::Lost
    } else {
        Management::Degraded
    };
    let event = if error.class == ErrorClass::Auth { PowerEvent::AuthError } else { PowerEvent::Unknown };
    Observation { event: Some(event), management, error: Some(error.to_wire()), streak }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(class: ErrorClass) -> DriverError {
        DriverError { driver: "ipmi", address: "x".into(), class, code: "c".into(), text: "t".into(), maybe_sent: false }
    }

    #[test]
    fn readings() {
        let streak = Streak { silent: 2, refused_logins: 1 };
        for (reading, event) in
            [(Reading::On, Some(PowerEvent::On)), (Reading::Off, Some(PowerEvent::Off)), (Reading::Transitioning, None)]
        {
            let seen = observe(Ok(reading), Some(Management::Degraded), streak);
            assert_eq!((seen.event, seen.management, seen.streak), (event, Management::Reachable, Streak::default()));
        }
    }

    #[test]
    fn failures_never_mean_on_or_off() {
        use ErrorClass::{Auth, Connection, Deadline, Protocol, Refused, Setting};
        for class in [Auth, Connection, Deadline, Protocol, Refused, Setting] {
            let seen = observe(Err(&error(class)), None, Streak::default());
            assert!(matches!(seen.event, Some(PowerEvent::Unknown | PowerEvent::AuthError)), "{class:?}");
            assert_eq!(seen.management, Management::Degraded, "the first failure only degrades");
            assert!(seen.error.is_some());
        }
    }

    #[test]
    fn three_silences_lose_a_bmc_and_two_refusals_block_it() {
        let mut streak = Streak::default();
        let mut states = Vec::new();
        for _ in 0..4 {
            let seen = observe(Err(&error(ErrorClass::Connection)), None, streak);
            streak = seen.streak;
            states.push(seen.management);
        }
        assert_eq!(states, [Management::Degraded, Management::Degraded, Management::Lost, Management::Lost]);

        let first = observe(Err(&error(ErrorClass::Auth)), None, Streak::default());
        let second = observe(Err(&error(ErrorClass::Auth)), Some(first.management), first.streak);
        assert_eq!((first.management, second.management), (Management::Degraded, Management::AuthBlocked));
        let silent = observe(Err(&error(ErrorClass::Connection)), Some(second.management), second.streak);
        assert_eq!(silent.management, Management::AuthBlocked, "silence is no proof of a good password");
    }
}
