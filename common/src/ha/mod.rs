//! Host-HA: where a host stands, and what moves it. The agent runs it from its journal; the aggregator and its askers read it.
//! Decides nothing about when to check, and sends nothing.
//!
//! ```text
//!  Disabled ──▶ Ineligible ◀──▶ Available ◀──────────── Recovered ◀──┐
//!                                 │    ▲  ▲                          │ health passed
//!                 3 failed checks │    │  └───── Degraded ◀────┐     │
//!                                 ▼    │ passed     ▲ │ recheck│ Recovering ──▶ next attempt
//!                               Suspect┘      active│ ▼        │   ▲  │
//!                                 └───▶ Checking ───┴ Suspect  │   │  │ spent
//!                                          └────── inactive ───┼───┘  ▼
//!   any but Disabled ── off seen (proof), ordered (order) ─────┴─▶ Fencing ──▶ Fenced
//! ```
//!
//! The state says what is outstanding, so a restart goes on from it. `None` = the event means nothing here.

pub mod explain;
pub mod settings;
mod status;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use status::{HaName, HostStatus};

/// Where a host stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HaState {
    /// One of its HA gates is closed.
    Disabled,
    /// Its gates are open, and something is missing.
    Ineligible(Ineligible),
    /// It is well.
    Available {
        /// Health checks that failed one after another: fewer than make it suspect.
        failures: u8,
    },
    /// Its health checks fail.
    Suspect,
    /// Its health checks fail, and its activity is looked at.
    Checking {
        /// Samples that said Dead, one after another.
        dead: u8,
    },
    /// Its health checks fail, and nothing is done about it.
    Degraded(Degraded),
    /// It was reset, and is given time to boot.
    Recovering {
        /// Which attempt, from 1.
        attempt: u8,
    },
    /// It passed a health check after a reset, and is watched for a while.
    Recovered,
    /// It is being fenced.
    Fencing(Fencing),
    /// It is proven off.
    Fenced(Fenced),
}

/// Why a host is not watched over although its gates are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ineligible {
    /// A power gate of host, cluster or zone is closed, or it has no BMC.
    PowerDisabled,
    /// Its driver cannot prove that a host is off.
    CannotProve,
    /// People work on it.
    Maintenance,
    /// An operator switched it off.
    CommandedOff,
    /// It has no health check.
    NoHealthCheck,
    /// None of its health checks has passed since it was enabled or they changed: a wrong port must not fence a healthy host.
    NeverHealthy,
}

/// Why nothing is done about a host whose health checks fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Degraded {
    /// Its files are being written.
    Active,
    /// Its activity cannot be told.
    CannotTell,
    /// Its BMC says Off while the host answers: the BMC speaks for another machine, or lies.
    Contradiction,
    /// It answered again after an off was possibly sent.
    StillAlive,
    /// An administrator ended its fence.
    Aborted,
    /// The policy of its cluster is to do nothing, or to light its LED.
    Policy,
}

/// How a fence came about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// An Off was read that nobody ordered: it is to be proven, nothing is sent.
    Proof,
    /// The host is to be switched off.
    Order(By),
}

/// In whose name something is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// The cluster's policy: health Dead and activity inactive.
    Policy,
    /// Somebody who takes the place of that evidence.
    Principal(String),
}

/// A fence under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fencing {
    /// Proof or order.
    pub way: Way,
    /// Which attempt, from 1.
    pub attempt: u16,
    /// What it waits for.
    pub held: Option<Gate>,
    /// Whether an off was sent, or may have been.
    pub off_possibly_sent: bool,
}

/// A fence that was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// By what.
    pub evidence: Evidence,
    /// It is being switched on again, as its policy says.
    pub restarting: bool,
    /// It was seen On, or it answered: it is not down any more.
    pub returned: bool,
    /// An administrator released it: it may be switched on, and is watched over again once it passes a health check.
    pub released: bool,
}

/// What proves that a host is off. Never the answer to an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// So many authenticated Off readings one after another, the health check after them not Alive.
    Readings(u8),
    /// Somebody with the right to say so vouches for it.
    Vouched(String),
    /// BMC and host are silent, and all of the host's outlets read Off.
    Outlets,
    /// BMC and host are silent, and its storage heartbeat is stale for longer than its watchdog allows.
    Heartbeat,
}

/// What a disruptive act waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// The device is not the one that was pinned, or does not say.
    Identity,
    /// The driver cannot prove.
    Driver,
    /// A gate of power or HA is closed.
    Enablement,
    /// People work on the host, or a pause window is open.
    Maintenance,
    /// Another agent may be in charge.
    Ownership,
    /// The agent has not been up for long.
    StartupQuiet,
    /// The agent's own network may be what failed.
    Isolation,
    /// No other host of the cluster is well.
    SomewhereToGo,
    /// Many hosts of the rack went from well to unwell at once.
    Cliff,
    /// Many hosts are unwell.
    Storm,
    /// The cluster or the agent has switched off as many as it may within the hour.
    Cap,
    /// The aggregator's leased share is used up.
    Budget,
    /// Another host of the rack is being switched off.
    InFlight,
    /// Health is not Dead, or activity not inactive.
    Evidence,
}

impl Gate {
    /// All gates, in the order in which they are asked.
    pub const ALL: [Self; 14] = [
        Self::Identity,
        Self::Driver,
        Self::Enablement,
        Self::Maintenance,
        Self::Ownership,
        Self::StartupQuiet,
        Self::Isolation,
        Self::SomewhereToGo,
        Self::Cliff,
        Self::Storm,
        Self::Cap,
        Self::Budget,
        Self::InFlight,
        Self::Evidence,
    ];
}

/// A set of gates; in JSON and on the wire the list of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Gate>", into = "Vec<Gate>")]
pub struct GateSet(u16);

impl GateSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// Whether there is none in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Those in it, in the order in which they are asked.
    pub fn iter(self) -> impl Iterator<Item = Gate> {
        Gate::ALL.into_iter().filter(move |gate| self.0 & bit(*gate) != 0)
    }
}

const fn bit(gate: Gate) -> u16 {
    1 << gate as u16
}

impl FromIterator<Gate> for GateSet {
    fn from_iter<T: IntoIterator<Item = Gate>>(gates: T) -> Self {
        Self(gates.into_iter().map(bit).fold(0, |set, bit| set | bit))
    }
}

impl From<Vec<Gate>> for GateSet {
    fn from(gates: Vec<Gate>) -> Self {
        gates.into_iter().collect()
    }
}

impl From<GateSet> for Vec<Gate> {
    fn from(set: GateSet) -> Self {
        set.iter().collect()
    }
}

/// What can happen to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HaEvent {
    /// All HA gates are open; what is missing, if anything.
    Enabled(Option<Ineligible>),
    /// All HA gates are open, and it was fenced before they were closed and is not released.
    EnabledFenced(Evidence),
    /// An HA gate was closed.
    Disabled,
    /// Nothing is missing any more.
    Eligible,
    /// Something is missing.
    Ineligible(Ineligible),
    /// A health check said Alive.
    HealthPassed,
    /// A health check said Dead, and the path to it is known to work.
    HealthFailed,
    /// The activity of a suspect is to be looked at.
    StartActivityCheck,
    /// A sample of its activity.
    Activity(Activity),
    /// The state has lasted as long as it may.
    Overdue,
    /// A degraded host is looked at again.
    RecheckDue,
    /// A recovered host was well for long enough.
    Stable,
    /// A confirmed Off that nobody ordered.
    OffSeen,
    /// A named principal wants it fenced.
    Ordered(String),
    /// A gate does not pass.
    Held(Gate),
    /// All gates pass: an attempt goes on.
    Passed,
    /// The intent to send an off is journalled: from here on it may have been sent.
    OffIntended,
    /// An attempt ended without proof.
    AttemptFailed,
    /// Enough Off readings one after another, or the power-lost proof.
    Proven(Evidence),
    /// The BMC says Off or the proof was complete, and the host answers; or another device of it reads On.
    Contradicted,
    /// An administrator vouches that the host is off.
    Confirmed(String),
    /// An administrator ends the fence.
    Aborted,
    /// A fenced host is switched on again by its policy.
    Restarting,
    /// A fenced host was read On.
    SeenOn,
    /// An administrator releases a fenced host.
    Released,
}

/// What a sample of a host's activity says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Activity {
    /// Something of its own changed since the last sample.
    Alive,
    /// Nothing of its own changed.
    Dead,
    /// It could not be told: a time-out, an error, no list. Counts for neither.
    CannotTell,
}

/// What is done about a host that is Dead and inactive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutagePolicy {
    /// It is told.
    Nothing,
    /// It is switched off.
    #[default]
    PowerOff,
    /// It is switched off, proven off, and switched on again.
    Reboot,
    /// Its identify LED is lit.
    Blink,
}

/// The numbers of the state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Failed health checks that make a host suspect.
    pub failures: u8,
    /// Dead samples, one after another, that make it inactive.
    pub samples: u8,
    /// Resets before it is switched off; none = it is switched off at once.
    pub recovery_attempts: u8,
    /// What is done in the end.
    pub policy: OutagePolicy,
}

impl Default for Rules {
    fn default() -> Self {
        Self { failures: 3, samples: 6, recovery_attempts: 1, policy: OutagePolicy::PowerOff }
    }
}

impl HaState {
    /// The state after `event`; `None` when the event means nothing here. The same state again is `Some`.
    #[must_use]
    pub fn step(&self, event: &HaEvent, rules: &Rules) -> Option<Self> {
        if let Some(next) = self.in_every_state(event) {
            return Some(next);
        }
        match self {
            Self::Disabled => match event {
                HaEvent::Enabled(missing) => Some(missing.map_or(Self::Available { failures: 0 }, Self::Ineligible)),
                // What happened to it meanwhile nobody saw, so it does not count as down.
                HaEvent::EnabledFenced(evidence) => {
                    Some(Self::Fenced(Fenced { evidence: evidence.clone(), restarting: false, returned: true, released: false }))
                }
                _ => None,
            },
            Self::Ineligible(_) => match event {
                HaEvent::Eligible => Some(Self::Available { failures: 0 }),
                HaEvent::Ineligible(reason) => Some(Self::Ineligible(*reason)),
                _ => None,
            },
            Self::Fencing(fencing) => fencing.step(event),
            Self::Fenced(fenced) => fenced.step(event),
            Self::Available { .. }
            | Self::Suspect
            | Self::Checking { .. }
            | Self::Degraded(_)
            | Self::Recovering { .. }
            | Self::Recovered => self.watched(event, rules),
        }
    }

    /// Edges that every state has, Disabled apart.
    fn in_every_state(&self, event: &HaEvent) -> Option<Self> {
        match (self, event) {
            (_, HaEvent::Disabled) => Some(Self::Disabled),
            (Self::Disabled, _) => None,
            (_, HaEvent::Ordered(who)) => {
                let off_possibly_sent = matches!(self, Self::Fencing(fencing) if fencing.off_possibly_sent);
                let way = Way::Order(By::Principal(who.clone()));
                Some(Self::Fencing(Fencing { off_possibly_sent, ..Fencing::new(way) }))
            }
            (_, HaEvent::Confirmed(who)) => Some(Self::fenced(Evidence::Vouched(who.clone()))),
            _ => None,
        }
    }

    /// Edges of the states in which a host is watched over.
    fn watched(&self, event: &HaEvent, rules: &Rules) -> Option<Self> {
        use HaEvent as E;
        match (self, event) {
            (_, E::OffSeen) => Some(Self::Fencing(Fencing::new(Way::Proof))),
            (_, E::Contradicted) => Some(Self::Degraded(Degraded::Contradiction)),
            // A host that was just reset is not judged by what it is missing: its recovery ends first.
            (Self::Recovering { .. }, E::Ineligible(_)) => None,
            (_, E::Ineligible(reason)) => Some(Self::Ineligible(*reason)),

            (Self::Available { failures }, E::HealthFailed) if failures + 1 < rules.failures => {
                Some(Self::Available { failures: failures + 1 })
            }
            (Self::Available { .. } | Self::Recovered, E::HealthFailed) => Some(Self::Suspect),
            (Self::Suspect | Self::Checking { .. } | Self::Degraded(_) | Self::Recovering { .. }, E::HealthFailed) => {
                Some(self.clone())
            }

            (Self::Recovering { .. }, E::HealthPassed) => Some(Self::Recovered),
            (Self::Recovered, E::HealthPassed) => Some(Self::Recovered),
            (_, E::HealthPassed) => Some(Self::Available { failures: 0 }),

            (Self::Suspect, E::StartActivityCheck) => Some(Self::Checking { dead: 0 }),
            (Self::Checking { .. }, E::Activity(Activity::Alive)) => Some(Self::Degraded(Degraded::Active)),
            (Self::Checking { .. }, E::Activity(Activity::CannotTell)) => Some(self.clone()),
            (Self::Checking { dead }, E::Activity(Activity::Dead)) if dead + 1 < rules.samples => {
                Some(Self::Checking { dead: dead + 1 })
            }
            (Self::Checking { .. }, E::Activity(Activity::Dead)) => Some(rules.inactive()),
            (Self::Checking { .. }, E::Overdue) => Some(Self::Degraded(Degraded::CannotTell)),

            (Self::Degraded(_), E::RecheckDue) => Some(Self::Suspect),
            (Self::Recovering { attempt }, E::Overdue) => Some(rules.recovery_failed(*attempt)),
            (Self::Recovered, E::Stable) => Some(Self::Available { failures: 0 }),
            _ => None,
        }
    }

    fn ordered(by: By) -> Self {
        Self::Fencing(Fencing::new(Way::Order(by)))
    }

    const fn fenced(evidence: Evidence) -> Self {
        Self::Fenced(Fenced { evidence, restarting: false, returned: false, released: false })
    }
}

impl Rules {
    /// What follows when a host is Dead and inactive.
    fn inactive(&self) -> HaState {
        match self.policy {
            OutagePolicy::Nothing | OutagePolicy::Blink => HaState::Degraded(Degraded::Policy),
            OutagePolicy::PowerOff | OutagePolicy::Reboot if self.recovery_attempts == 0 => HaState::ordered(By::Policy),
            OutagePolicy::PowerOff | OutagePolicy::Reboot => HaState::Recovering { attempt: 1 },
        }
    }

    fn recovery_failed(&self, attempt: u8) -> HaState {
        if attempt < self.recovery_attempts { HaState::Recovering { attempt: attempt + 1 } } else { HaState::ordered(By::Policy) }
    }
}

impl Fencing {
    /// Its first attempt.
    #[must_use]
    pub const fn new(way: Way) -> Self {
        Self { way, attempt: 1, held: None, off_possibly_sent: false }
    }

    /// Whether nobody ordered it.
    #[must_use]
    pub const fn is_automatic(&self) -> bool {
        matches!(self.way, Way::Proof | Way::Order(By::Policy))
    }

    fn step(&self, event: &HaEvent) -> Option<HaState> {
        use HaEvent as E;
        let stay = |next: Self| Some(HaState::Fencing(next));
        match event {
            E::Proven(evidence) => Some(HaState::fenced(evidence.clone())),
            E::Contradicted => Some(HaState::Degraded(Degraded::Contradiction)),
            E::Aborted => Some(HaState::Degraded(Degraded::Aborted)),
            E::HealthPassed if !self.is_automatic() => stay(self.clone()),
            // An Off was read of a host that is well: the BMC speaks for another machine, or lies.
            E::HealthPassed if self.way == Way::Proof => Some(HaState::Degraded(Degraded::Contradiction)),
            E::HealthPassed if self.off_possibly_sent => Some(HaState::Degraded(Degraded::StillAlive)),
            E::HealthPassed => Some(HaState::Available { failures: 0 }),
            E::Held(gate) => stay(Self { held: Some(*gate), ..self.clone() }),
            E::Passed => stay(Self { held: None, ..self.clone() }),
            // What is to be proven only sends nothing.
            E::OffIntended if self.way == Way::Proof => None,
            E::OffIntended => stay(Self { off_possibly_sent: true, ..self.clone() }),
            E::AttemptFailed => stay(Self { attempt: self.attempt.saturating_add(1), ..self.clone() }),
            // Something of ours was outstanding after all: the Off may be the first half of a cycle.
            E::OffSeen | E::HealthFailed => stay(self.clone()),
            _ => None,
        }
    }
}

impl Fenced {
    fn step(&self, event: &HaEvent) -> Option<HaState> {
        match event {
            HaEvent::Released => Some(HaState::Fenced(Self { released: true, ..self.clone() })),
            HaEvent::HealthPassed if self.released => Some(HaState::Available { failures: 0 }),
            // It answers: whatever its BMC says, it is not down.
            HaEvent::HealthPassed => Some(HaState::Fenced(Self { returned: true, ..self.clone() })),
            HaEvent::Restarting if !self.returned => Some(HaState::Fenced(Self { restarting: true, ..self.clone() })),
            HaEvent::SeenOn => Some(HaState::Fenced(Self { returned: true, ..self.clone() })),
            HaEvent::HealthFailed | HaEvent::OffSeen => Some(HaState::Fenced(self.clone())),
            _ => None,
        }
    }
}
