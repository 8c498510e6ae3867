//! One simulated host's power, with realistic delays. Knows no protocol; time comes in.
//!
//! What is planned happens when someone looks: [`Chassis::advance`] applies every step whose time has come, with the exact
//! time at which it was due, so no timer is needed for thousands of hosts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::clock;

/// How many power changes are remembered.
const CHANGES_KEPT: usize = 4096;

/// What can be done to a chassis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Power up.
    On,
    /// Power down, hard.
    Off,
    /// Down, a pause, up.
    Cycle,
    /// Warm reset.
    Reset,
    /// Diagnostic interrupt (NMI).
    Diag,
    /// Shut down by ACPI; takes longer.
    Soft,
}

/// How a chassis took an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    /// It will happen.
    Accepted,
    /// It was so already.
    Unchanged,
    /// Makes no sense in this state (cycle or reset while off).
    WrongState,
}

/// The power as Redfish can say it; IPMI knows only a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Running.
    On,
    /// Not running.
    Off,
    /// Off, about to be on.
    PoweringOn,
    /// On, about to be off.
    PoweringOff,
}

/// How long things take.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// From the order to On.
    pub on: Duration,
    /// From the order to Off.
    pub off: Duration,
    /// From a soft shutdown's order to Off.
    pub soft: Duration,
    /// How long a cycle stays off.
    pub pause: Duration,
}

/// A change that really happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change {
    /// When, in microseconds since the Unix epoch.
    pub at_unix_us: u64,
    /// Whether the host is on since then.
    pub on: bool,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    at: Instant,
    on: bool,
}

/// One host's power.
#[derive(Debug)]
pub struct Chassis {
    on: bool,
    plan: VecDeque<Step>,
    changes: VecDeque<Change>,
    resets: u64,
    diags: u64,
}

impl Chassis {
    /// A chassis that is on or off and has nothing planned.
    #[must_use]
    pub const fn new(on: bool) -> Self {
        Self { on, plan: VecDeque::new(), changes: VecDeque::new(), resets: 0, diags: 0 }
    }

    /// Lets happen what is due by `now`.
    pub fn advance(&mut self, now: Instant) {
        while let Some(step) = self.plan.front().copied().filter(|step| step.at <= now) {
            self.plan.pop_front();
            self.become_state(step.on, step.at);
        }
    }

    /// Whether the host runs; call [`Chassis::advance`] first.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// The state with its transition; call [`Chassis::advance`] first.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match (self.on, self.plan.front().map(|step| step.on)) {
            (true, Some(false)) => Phase::PoweringOff,
            (false, Some(true)) => Phase::PoweringOn,
            (true, _) => Phase::On,
            (false, _) => Phase::Off,
        }
    }

    /// Resets that were really done.
    #[must_use]
    pub const fn resets(&self) -> u64 {
        self.resets
    }

    /// Diagnostic interrupts that were really raised.
    #[must_use]
    pub const fn diags(&self) -> u64 {
        self.diags
    }

    /// The changes so far, oldest first (the last 4,096).
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        self.changes.iter().copied()
    }

    /// Flips the power at once, as a hand on the button or a pulled plug would; whatever was planned is forgotten.
    pub fn set(&mut self, on: bool, now: Instant) {
        self.advance(now);
        self.plan.clear();
        self.become_state(on, now);
    }

    /// Takes an order.
    pub fn act(&mut self, action: Action, now: Instant, delays: Delays) -> Taken {
        self.advance(now);
        match action {
            Action::On => self.move_to(true, now + delays.on),
            Action::Off => self.move_to(false, now + delays.off),
            Action::Soft => self.move_to(false, now + delays.soft),
            Action::Cycle | Action::Reset | Action::Diag if !self.on => Taken::WrongState,
            Action::Cycle => {
                let off = now + delays.off;
                self.plan = VecDeque::from([Step { at: off, on: false }, Step { at: off + delays.pause + delays.on, on: true }]);
                self.advance(now);
                Taken::Accepted
            }
            Action::Reset => {
                self.resets += 1;
                Taken::Accepted
            }
            Action::Diag => {
                self.diags += 1;
                Taken::Accepted
            }
        }
    }

    /// Plans to be `on` at `at`. An order that is already under way keeps its earlier time: pressing twice does not delay.
    fn move_to(&mut self, on: bool, at: Instant) -> Taken {
        match self.plan.front().copied() {
            None if self.on == on => return Taken::Unchanged,
            Some(step) if step.on == on && self.plan.len() == 1 => self.plan = VecDeque::from([Step { at: at.min(step.at), on }]),
            _ => self.plan = VecDeque::from([Step { at, on }]),
        }
        if self.on == on {
            self.plan.clear();
        }
        Taken::Accepted
    }

    fn become_state(&mut self, on: bool, at: Instant) {
        if self.on == on {
            return;
        }
        self.on = on;
        if self.changes.len() == CHANGES_KEPT {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { at_unix_us: clock::unix_us_at(at), on });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    const DELAYS: Delays = Delays { on: ms(10_000), off: ms(5_000), soft: ms(60_000), pause: ms(1_000) };

    #[test]
    fn off_takes_its_time_and_says_so() {
        let t = clock::now();
        let mut chassis = Chassis::new(true);
        assert_eq!(chassis.act(Action::Off, t, DELAYS), Taken::Accepted);
        assert_eq!((chassis.is_on(), chassis.phase()), (true, Phase::PoweringOff));
        chassis.advance(t + ms(4_999));
        assert!(chassis.is_on());
        chassis.advance(t + ms(5_000));
        assert_eq!((chassis.is_on(), chassis.phase()), (false, Phase::Off));
        assert_eq!(chassis.act(Action::Off, t + ms(5_001), DELAYS), Taken::Unchanged);
        assert_eq!(chassis.changes().count(), 1);
    }

    #[test]
    fn a_second_order_does_not_delay_the_first_and_hard_overtakes_soft() {
        let t = clock::now();
        let mut chassis = Chassis::new(true);
        chassis.act(Action::Soft, t, DELAYS);
        chassis.act(Action::Off, t + ms(1_000), DELAYS);
        chassis.act(Action::Off, t + ms(5_000), DELAYS);
        chassis.advance(t + ms(6_000));
        assert!(!chassis.is_on());
    }

    #[test]
    fn cycle_is_down_then_up_and_means_nothing_when_off() {
        let t = clock::now();
        let mut chassis = Chassis::new(true);
        assert_eq!(chassis.act(Action::Cycle, t, DELAYS), Taken::Accepted);
        chassis.advance(t + ms(5_500));
        assert_eq!(chassis.phase(), Phase::PoweringOn);
        chassis.advance(t + ms(16_000));
        assert_eq!(chassis.changes().map(|change| change.on).collect::<Vec<_>>(), [false, true]);
        let mut off = Chassis::new(false);
        assert_eq!(off.act(Action::Cycle, t, DELAYS), Taken::WrongState);
        assert_eq!(off.act(Action::Reset, t, DELAYS), Taken::WrongState);
        assert_eq!(off.resets(), 0);
    }

    #[test]
    fn an_order_against_the_one_under_way_wins() {
        let t = clock::now();
        let mut chassis = Chassis::new(true);
        chassis.act(Action::Off, t, DELAYS);
        assert_eq!(chassis.act(Action::On, t + ms(1_000), DELAYS), Taken::Accepted);
        chassis.advance(t + ms(60_000));
        assert!(chassis.is_on());
        assert_eq!(chassis.changes().count(), 0);
    }
}
