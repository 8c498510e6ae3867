//! A change of a BMC's login password, from what is recorded before anything is sent to the password that works in the end.
//! Pure; knows nothing of requests or clocks, and of passwords only their sealed form.
//!
//! ```text
//!   Pending ──▶ Doubt ──▶ New      used until an assignment comes with another password than the old one
//!      │         ▲  │ ◀──── │
//!      │         │  ▼       │      a settled password that is refused is in doubt again
//!      └───────▶  Old
//! ```
//! `Doubt` is journalled before the new password is sent: found after a crash, it may or may not have been set. Then the two
//! are tried one after another until one works; a round in which both are refused says so once, and the next one begins.

use picket_common::id::{HostId, OperationId};
use picket_common::seal::Sealed;
use picket_common::wire::report::InForce;
use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// One change; journalled with each step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordChange {
    /// Whose BMC.
    pub host: HostId,
    /// The operation that changes it.
    pub operation: OperationId,
    /// Revision of the BMC settings it started from, or of later ones with the same password.
    pub base_revision: u64,
    /// Revision that the BMC settings will have with the new password.
    pub revision: u64,
    /// The assignment's password, as it came.
    pub old: Option<Sealed>,
    /// The new password, sealed to this agent for this host, address and user.
    pub new: Sealed,
    /// How far it is.
    pub stage: Stage,
}

/// How far a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Recorded; nothing was sent.
    Pending,
    /// The new password may have been set.
    Doubt(Doubt),
    /// The new one works, and is used although the assignment still has the old one.
    New,
    /// The old one works.
    Old {
        /// Until when a BMC may yet take on what it was sent; absent = nothing was sent.
        late_until: Option<Moment>,
    },
}

/// Which passwords were tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// The one to try next.
    pub next: Which,
    /// The other one was refused in this round.
    pub refused: bool,
    /// That neither works was told.
    pub told: bool,
}

/// One of the two passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// The one to be set.
    New,
    /// The one of the assignment.
    Old,
}

impl Which {
    const fn other(self) -> Self {
        match self {
            Self::New => Self::Old,
            Self::Old => Self::New,
        }
    }
}

/// What a refused password means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The other one is to be tried.
    TryOther,
    /// Both are refused; `first` = nobody was told yet.
    Neither {
        /// See there.
        first: bool,
    },
}

impl PasswordChange {
    /// Whether another change of the host has to wait.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Old { .. })
    }

    /// Whether nothing was sent yet.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        matches!(self.stage, Stage::Pending)
    }

    /// Whether it is not known which password works, and which one to try next.
    #[must_use]
    pub const fn doubt(&self) -> Option<Which> {
        match self.stage {
            Stage::Doubt(doubt) => Some(doubt.next),
            Stage::Pending | Stage::New | Stage::Old { .. } => None,
        }
    }

    /// Whether the new password is used.
    #[must_use]
    pub const fn uses_new(&self) -> bool {
        matches!(self.stage, Stage::New)
    }

    /// What the aggregator was told last.
    #[must_use]
    pub const fn verdict(&self) -> Option<InForce> {
        match self.stage {
            Stage::Pending | Stage::Doubt(Doubt { told: false, .. }) => None,
            Stage::Doubt(Doubt { told: true, .. }) => Some(InForce::Neither),
            Stage::New => Some(InForce::New),
            Stage::Old { .. } => Some(InForce::Old),
        }
    }

    /// The new password is about to be sent.
    pub const fn send(&mut self) {
        self.stage = Stage::Doubt(Doubt { next: Which::New, refused: false, told: false });
    }

    /// The BMC said that it does not take it: the old one is the better guess, and a guess that is refused counts as a refused
    /// login.
    pub const fn guess_old(&mut self) {
        if let Stage::Doubt(Doubt { refused: false, told, .. }) = self.stage {
            self.stage = Stage::Doubt(Doubt { next: Which::Old, refused: false, told });
        }
    }

    /// Nothing was sent, or will be.
    pub const fn withdraw(&mut self) {
        self.stage = Stage::Old { late_until: None };
    }

    /// A login with this password worked. `late_until`: how long the BMC may yet take on the new one.
    pub const fn prove(&mut self, which: Which, late_until: Moment) -> InForce {
        match which {
            Which::New => {
                self.stage = Stage::New;
                InForce::New
            }
            Which::Old => {
                self.stage = Stage::Old { late_until: Some(late_until) };
                InForce::Old
            }
        }
    }

    /// A settled password was refused: gives the one that is in doubt now, unless nothing speaks for the other one.
    pub fn reopen(&mut self, now: Moment) -> Option<Which> {
        let next = match self.stage {
            Stage::New => Which::New,
            Stage::Old { late_until: Some(until) } if until.boottime > now.boottime => Which::Old,
            Stage::Old { .. } | Stage::Pending | Stage::Doubt(_) => return None,
        };
        self.stage = Stage::Doubt(Doubt { next, refused: false, told: false });
        Some(next)
    }

    /// A login with the password that was to be tried next was refused.
    pub const fn refuse(&mut self) -> Option<Refused> {
        let Stage::Doubt(Doubt { next, refused, told }) = self.stage else { return None };
        if refused {
            self.stage = Stage::Doubt(Doubt { next: Which::New, refused: false, told: true });
            return Some(Refused::Neither { first: !told });
        }
        self.stage = Stage::Doubt(Doubt { next: next.other(), refused: true, told });
        Some(Refused::TryOther)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::time::Duration;

    use picket_common::wire::Time;

    use super::super::moment::MachineBoot;
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment { boot: MachineBoot(uuid::Uuid::nil()), boottime: Duration::from_secs(seconds), wall: Time(0) }
    }

    fn change(stage: Stage) -> PasswordChange {
        PasswordChange {
            host: "h".parse().unwrap(),
            operation: OperationId(uuid::Uuid::nil()),
            base_revision: 1,
            revision: 2,
            old: None,
            new: Sealed(vec![]),
            stage,
        }
    }

    fn name(stage: Stage) -> String {
        match stage {
            Stage::Doubt(Doubt { next, refused, told }) => {
                format!("Doubt({next:?}{}{})", if refused { ",refused" } else { "" }, if told { ",told" } else { "" })
            }
            Stage::Old { late_until } => format!("Old{}", late_until.map_or("", |_| "(late)")),
            stage => format!("{stage:?}"),
        }
    }

    #[test]
    fn the_whole_grid() {
        let doubt = |next, refused, told| Stage::Doubt(Doubt { next, refused, told });
        let stages = [
            Stage::Pending,
            doubt(Which::New, false, false),
            doubt(Which::Old, true, false),
            doubt(Which::Old, false, false),
            doubt(Which::New, true, false),
            doubt(Which::New, false, true),
            doubt(Which::Old, true, true),
            Stage::New,
            Stage::Old { late_until: None },
            Stage::Old { late_until: Some(at(9)) },
        ];
        let mut grid = String::new();
        for stage in stages {
            let change = change(stage);
            let after = |act: &dyn Fn(&mut PasswordChange) -> bool| {
                let mut change = change.clone();
                if act(&mut change) { name(change.stage) } else { "-".into() }
            };
            let cells = [
                after(&|change| change.refuse().is_some()),
                after(&|change| change.reopen(at(8)).is_some()),
                after(&|change| change.reopen(at(9)).is_some()),
            ];
            let told = change.verdict().map_or("-".to_owned(), |verdict| format!("{verdict:?}"));
            writeln!(grid, "{:<16} {told:<8}| {}", name(stage), cells.join(" ")).unwrap();
        }
        // Stage, what was told | a candidate refused, a settled one refused in time, and too late to mean anything.
        let wanted = "\
Pending          -       | - - -
Doubt(New)       -       | Doubt(Old,refused) - -
Doubt(Old,refused) -       | Doubt(New,told) - -
Doubt(Old)       -       | Doubt(New,refused) - -
Doubt(New,refused) -       | Doubt(New,told) - -
Doubt(New,told)  Neither | Doubt(Old,refused,told) - -
Doubt(Old,refused,told) Neither | Doubt(New,told) - -
New              New     | - Doubt(New) Doubt(New)
Old              Old     | - - -
Old(late)        Old     | - Doubt(Old) -
";
        assert_eq!(grid, wanted);
    }

    #[test]
    fn that_neither_works_is_told_once() {
        let mut change = change(Stage::Pending);
        change.send();
        let told: Vec<_> = (0..6).filter_map(|_| change.refuse()).collect();
        let (first, again) = (Refused::Neither { first: true }, Refused::Neither { first: false });
        assert_eq!(told, [Refused::TryOther, first, Refused::TryOther, again, Refused::TryOther, again]);
        assert_eq!(change.prove(Which::Old, at(9)), InForce::Old);
        assert!(!change.is_open());
    }
}
