//! The gates before every disruptive automatic act: a hard off, and a reset for recovery. Each answers with what it saw; the whole
//! vector is stored with the decision and shown. Cannot-tell refuses. Sends nothing and remembers nothing.
//!
//! All gates are asked every time, so that people see everything that is in the way and not only the first thing. An Off that
//! nobody ordered passes the first five only: nothing is sent for it, so nothing that limits sending applies.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::Refusal;
use crate::failure_cap::{Cap, PowerDowns};
use crate::ha::Gate;
use crate::id::HostId;

/// How a gate answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is open.
    Pass,
    /// It is closed.
    Refuse,
    /// It cannot see: closed.
    CannotTell,
}

/// One gate's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateAnswer {
    /// Which gate.
    pub gate: Gate,
    /// What it says.
    pub verdict: Verdict,
    /// What it saw, in one sentence.
    pub inputs: String,
    /// The principal who lets the act through although this gate says no.
    pub overridden_by: Option<String>,
}

impl GateAnswer {
    /// Whether it does not stand in the way.
    #[must_use]
    pub const fn lets_through(&self) -> bool {
        matches!(self.verdict, Verdict::Pass) || self.overridden_by.is_some()
    }
}

/// All gates' answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement(pub Vec<GateAnswer>);

impl Judgement {
    /// The first gate in the way.
    #[must_use]
    pub fn held_by(&self) -> Option<Gate> {
        self.0.iter().find(|answer| !answer.lets_through()).map(|answer| answer.gate)
    }
}

/// Whether the device is the machine that was pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// It is.
    Same,
    /// It is another one.
    Differs,
    /// It does not say.
    Unreadable,
    /// The host's settings say that it need not say.
    Waived,
}

/// A share of hosts that may be unwell at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// `rack`, `cluster` or `zone`.
    pub scope: &'static str,
    /// Unwell hosts, this one included.
    pub unwell: u32,
    /// Enabled hosts.
    pub hosts: u32,
    /// Most of them that may be unwell, in percent.
    pub percent: u32,
}

/// So many unwell hosts are never a storm: else no host of a small cluster could be fenced.
pub const STORM_FLOOR: u32 = 3;

impl Share {
    /// Most hosts that may be unwell.
    #[must_use]
    pub const fn most(self) -> u32 {
        let share = self.hosts.saturating_mul(self.percent) / 100;
        if share > STORM_FLOOR { share } else { STORM_FLOOR }
    }
}

/// An open window in which nothing disruptive is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause<'a> {
    /// Whose it is.
    pub owner: &'a str,
    /// Until when.
    pub until: Timestamp,
}

/// Whether the agent's own network works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// A reference address or another BMC answered lately.
    Answers,
    /// None of them did.
    Silent,
    /// There is none that could.
    Nobody,
    /// The cluster's settings say that none need.
    Waived,
}

/// Why a host has to wait for the rack's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot<'a> {
    /// This host has it.
    Taken(&'a HostId),
    /// It is free, and this host waits for it that was tried less recently.
    Promised(&'a HostId),
}

/// One count against its cap.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    /// `cluster` or `agent`.
    pub scope: &'static str,
    /// What counts.
    pub downs: &'a PowerDowns,
    /// How many may.
    pub cap: Cap,
}

/// What the gates look at, gathered in the instant in which it is to be sent.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// What time it is.
    pub now: Timestamp,
    /// Whether something is to be sent; else an Off that nobody ordered is to be taken for a fence.
    pub sends: bool,
    /// Of each device of the level.
    pub identity: &'a [Identity],
    /// Whether all drivers of the level can prove.
    pub can_prove: bool,
    /// The power gates.
    pub power: Result<(), Refusal>,
    /// Whether the HA gates are open.
    pub ha: bool,
    /// Whether people work on the host.
    pub maintenance: bool,
    /// An open pause window.
    pub pause: Option<Pause<'a>>,
    /// Whether this agent is in charge.
    pub owns: bool,
    /// What is left of the quiet time after the agent's start.
    pub quiet_left: Duration,
    /// Whether an off of this fence was possibly sent already.
    pub is_finishing: bool,
    /// Whether the agent's own network works.
    pub connection: Connection,
    /// Other enabled hosts of the cluster that pass their health checks; `None` = waived.
    pub others_well: Option<u32>,
    /// The hosts that went from well to unwell at once, while the cliff holds.
    pub cliff: Option<u32>,
    /// Unwell hosts by rack, cluster and zone.
    pub shares: &'a [Share],
    /// What is left of the cool-down after a storm.
    pub cool_down_left: Duration,
    /// The caps; a fence that was counted already is not asked again.
    pub caps: &'a [Counted<'a>],
    /// Whether this fence was counted.
    pub is_counted: bool,
    /// What the aggregator leaves this agent to spend on the cluster.
    pub budget: Option<u32>,
    /// Who else has the rack's slot, or comes first.
    pub slot: Option<Slot<'a>>,
    /// Whether the newest health check says Dead.
    pub is_dead: bool,
    /// Whether its activity was found inactive.
    pub is_inactive: bool,
    /// Who ordered it.
    pub principal: Option<&'a str>,
    /// Gates that the principal overrides, with a reason that is audited.
    pub overrides: &'a [Gate],
}

/// Asks all gates that apply.
#[must_use]
pub fn judge(seen: &Circumstances<'_>) -> Judgement {
    let always = [
        identity(seen),
        yes(Gate::Driver, seen.can_prove, "the driver can prove that a host is off", "the driver cannot prove that a host is off"),
        enablement(seen),
        maintenance(seen),
        yes(Gate::Ownership, seen.owns, "this agent is in charge", "another agent is in charge, or may be"),
    ];
    let of_sending = || {
        [
            quiet(seen),
            isolation(seen),
            somewhere(seen),
            cliff(seen),
            storm(seen),
            cap(seen),
            budget(seen),
            in_flight(seen),
            evidence(seen),
        ]
    };
    let overridden = |answer: GateAnswer| {
        let by = seen.principal.filter(|_| answer.verdict != Verdict::Pass && seen.overrides.contains(&answer.gate));
        GateAnswer { overridden_by: by.map(str::to_owned), ..answer }
    };
    Judgement(always.into_iter().chain(seen.sends.then(of_sending).into_iter().flatten()).map(overridden).collect())
}

fn answer(gate: Gate, verdict: Verdict, inputs: impl Into<String>) -> GateAnswer {
    GateAnswer { gate, verdict, inputs: inputs.into(), overridden_by: None }
}

fn yes(gate: Gate, passes: bool, well: &str, else_: &str) -> GateAnswer {
    if passes { answer(gate, Verdict::Pass, well) } else { answer(gate, Verdict::Refuse, else_) }
}

fn identity(seen: &Circumstances<'_>) -> GateAnswer {
    let gate = Gate::Identity;
    if seen.identity.contains(&Identity::Differs) {
        return answer(gate, Verdict::Refuse, "the BMC is not the one that was pinned");
    }
    if seen.identity.is_empty() || seen.identity.contains(&Identity::Unreadable) {
        return answer(gate, Verdict::CannotTell, "the BMC does not say which machine it belongs to");
    }
    if seen.identity.contains(&Identity::Waived) {
        return answer(gate, Verdict::Pass, "waived for this host");
    }
    answer(gate, Verdict::Pass, "the BMC is the one that was pinned")
}

fn enablement(seen: &Circumstances<'_>) -> GateAnswer {
    match (seen.power, seen.ha) {
        (Err(refusal), _) => answer(Gate::Enablement, Verdict::Refuse, refusal.to_string()),
        (Ok(()), false) => answer(Gate::Enablement, Verdict::Refuse, "host-HA is disabled for the host, its cluster or its zone"),
        (Ok(()), true) => answer(Gate::Enablement, Verdict::Pass, "power and HA gates are open"),
    }
}

fn maintenance(seen: &Circumstances<'_>) -> GateAnswer {
    if seen.maintenance {
        return answer(Gate::Maintenance, Verdict::Refuse, "people work on the host");
    }
    match seen.pause {
        Some(pause) => answer(Gate::Maintenance, Verdict::Refuse, format!("paused by {} until {}", pause.owner, pause.until)),
        None => answer(Gate::Maintenance, Verdict::Pass, "nobody works on it, nothing is paused"),
    }
}

fn quiet(seen: &Circumstances<'_>) -> GateAnswer {
    let left = seen.quiet_left.as_secs();
    match (seen.quiet_left.is_zero(), seen.is_finishing) {
        (true, _) => answer(Gate::StartupQuiet, Verdict::Pass, "the agent has been up for long enough"),
        (false, true) => {
            answer(Gate::StartupQuiet, Verdict::Pass, "an off was possibly sent before the agent started: it is finished")
        }
        (false, false) => answer(Gate::StartupQuiet, Verdict::Refuse, format!("the agent started not long ago: {left} s left")),
    }
}

fn isolation(seen: &Circumstances<'_>) -> GateAnswer {
    let (verdict, inputs) = match seen.connection {
        Connection::Answers => (Verdict::Pass, "a reference address or another BMC answers"),
        Connection::Waived => (Verdict::Pass, "waived for the cluster"),
        Connection::Silent => (Verdict::Refuse, "no reference address and no other BMC answers: the agent may be cut off"),
        Connection::Nobody => (Verdict::CannotTell, "there is no reference address and no other BMC to ask"),
    };
    answer(Gate::Isolation, verdict, inputs)
}

fn somewhere(seen: &Circumstances<'_>) -> GateAnswer {
    match seen.others_well {
        None => answer(Gate::SomewhereToGo, Verdict::Pass, "waived for the cluster"),
        Some(0) => answer(Gate::SomewhereToGo, Verdict::Refuse, "no other enabled host of the cluster passes its health checks"),
        Some(well) => answer(Gate::SomewhereToGo, Verdict::Pass, format!("{well} other hosts of the cluster are well")),
    }
}

fn cliff(seen: &Circumstances<'_>) -> GateAnswer {
    match seen.cliff {
        None => answer(Gate::Cliff, Verdict::Pass, "no sudden loss of many hosts"),
        Some(fell) => answer(
            Gate::Cliff,
            Verdict::Refuse,
            format!("{fell} hosts of the rack fell ill within 30 s: held until they are well, or an administrator says go"),
        ),
    }
}

fn storm(seen: &Circumstances<'_>) -> GateAnswer {
    if let Some(share) = seen.shares.iter().find(|share| share.unwell > share.most()) {
        let Share { scope, unwell, hosts, percent } = *share;
        let most = share.most();
        let inputs = format!(
            "{unwell} of the {scope}'s {hosts} hosts are unwell, more than {most} (at least {STORM_FLOOR}, or {percent} %)"
        );
        return answer(Gate::Storm, Verdict::Refuse, inputs);
    }
    if !seen.cool_down_left.is_zero() {
        let left = seen.cool_down_left.as_secs();
        return answer(Gate::Storm, Verdict::Refuse, format!("a storm ended not long ago: {left} s left"));
    }
    answer(Gate::Storm, Verdict::Pass, "few hosts are unwell")
}

fn cap(seen: &Circumstances<'_>) -> GateAnswer {
    if seen.is_counted {
        return answer(Gate::Cap, Verdict::Pass, "this fence is counted already");
    }
    let full = seen.caps.iter().find_map(|counted| Some((counted, counted.downs.next_allowed(counted.cap, seen.now)?)));
    match full {
        None => answer(Gate::Cap, Verdict::Pass, "there is room under the caps"),
        Some((Counted { scope, cap, .. }, next)) => {
            let (most, window) = (cap.most, cap.window.as_secs());
            let inputs = format!("the {scope} has had its {most} power-downs within {window} s; the next may be at {next}");
            answer(Gate::Cap, Verdict::Refuse, inputs)
        }
    }
}

fn budget(seen: &Circumstances<'_>) -> GateAnswer {
    match seen.budget.filter(|_| !seen.is_counted) {
        None => answer(Gate::Budget, Verdict::Pass, "nothing to spend is asked for"),
        Some(0) => answer(Gate::Budget, Verdict::Refuse, "the agent's share of the cluster's power-downs is used up"),
        Some(left) => answer(Gate::Budget, Verdict::Pass, format!("{left} left of the agent's share")),
    }
}

fn in_flight(seen: &Circumstances<'_>) -> GateAnswer {
    match seen.slot {
        None => answer(Gate::InFlight, Verdict::Pass, "no other host of the rack is being switched off"),
        Some(Slot::Taken(host)) => answer(Gate::InFlight, Verdict::Refuse, format!("{host} is being switched off")),
        Some(Slot::Promised(host)) => {
            answer(Gate::InFlight, Verdict::Refuse, format!("{host} comes first: it was tried less recently"))
        }
    }
}

fn evidence(seen: &Circumstances<'_>) -> GateAnswer {
    match (seen.principal, seen.is_dead, seen.is_inactive) {
        (Some(who), _, _) => answer(Gate::Evidence, Verdict::Pass, format!("ordered by {who}")),
        (None, true, true) => answer(Gate::Evidence, Verdict::Pass, "its health check says Dead and it is inactive"),
        (None, false, _) => answer(Gate::Evidence, Verdict::Refuse, "its newest health check does not say Dead"),
        (None, true, false) => answer(Gate::Evidence, Verdict::Refuse, "it was not found inactive"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    /// Everything is as it should be: all gates pass.
    fn fine() -> Circumstances<'static> {
        Circumstances {
            now: NOW,
            sends: true,
            identity: &[Identity::Same],
            can_prove: true,
            power: Ok(()),
            ha: true,
            maintenance: false,
            pause: None,
            owns: true,
            quiet_left: Duration::ZERO,
            is_finishing: false,
            connection: Connection::Answers,
            others_well: Some(1),
            cliff: None,
            shares: &[],
            cool_down_left: Duration::ZERO,
            caps: &[],
            is_counted: false,
            budget: Some(1),
            slot: None,
            is_dead: true,
            is_inactive: true,
            principal: None,
            overrides: &[],
        }
    }

    fn refusals(seen: &Circumstances<'_>) -> Vec<(Gate, Verdict)> {
        judge(seen).0.iter().filter(|answer| !answer.lets_through()).map(|answer| (answer.gate, answer.verdict)).collect()
    }

    #[test]
    fn each_gate_alone() {
        let mut full = PowerDowns::default();
        (0..3).for_each(|_| full.note(Cap::CLUSTER, NOW));
        let caps = [Counted { scope: "cluster", downs: &full, cap: Cap::CLUSTER }];
        let pause = Pause { owner: "ann", until: NOW + Duration::from_secs(1) };
        let storm = [Share { scope: "rack", unwell: 13, hosts: 40, percent: 30 }];
        let host: HostId = "h1".parse().unwrap();
        let quiet = Duration::from_secs(300);
        let (refuse, cannot_tell) = (Verdict::Refuse, Verdict::CannotTell);
        let cases: Vec<(Circumstances<'_>, Gate, Verdict)> = vec![
            (Circumstances { identity: &[Identity::Same, Identity::Differs], ..fine() }, Gate::Identity, refuse),
            (Circumstances { identity: &[Identity::Unreadable], ..fine() }, Gate::Identity, cannot_tell),
            (Circumstances { identity: &[], ..fine() }, Gate::Identity, cannot_tell),
            (Circumstances { can_prove: false, ..fine() }, Gate::Driver, refuse),
            (Circumstances { power: Err(Refusal::ZoneDisabled), ..fine() }, Gate::Enablement, refuse),
            (Circumstances { ha: false, ..fine() }, Gate::Enablement, refuse),
            (Circumstances { maintenance: true, ..fine() }, Gate::Maintenance, refuse),
            (Circumstances { pause: Some(pause), ..fine() }, Gate::Maintenance, refuse),
            (Circumstances { owns: false, ..fine() }, Gate::Ownership, refuse),
            (Circumstances { quiet_left: quiet, ..fine() }, Gate::StartupQuiet, refuse),
            (Circumstances { connection: Connection::Silent, ..fine() }, Gate::Isolation, refuse),
            (Circumstances { connection: Connection::Nobody, ..fine() }, Gate::Isolation, cannot_tell),
            (Circumstances { others_well: Some(0), ..fine() }, Gate::SomewhereToGo, refuse),
            (Circumstances { cliff: Some(20), ..fine() }, Gate::Cliff, refuse),
            (Circumstances { shares: &storm, ..fine() }, Gate::Storm, refuse),
            (Circumstances { cool_down_left: quiet, ..fine() }, Gate::Storm, refuse),
            (Circumstances { caps: &caps, ..fine() }, Gate::Cap, refuse),
            (Circumstances { budget: Some(0), ..fine() }, Gate::Budget, refuse),
            (Circumstances { slot: Some(Slot::Taken(&host)), ..fine() }, Gate::InFlight, refuse),
            (Circumstances { slot: Some(Slot::Promised(&host)), ..fine() }, Gate::InFlight, refuse),
            (Circumstances { is_dead: false, ..fine() }, Gate::Evidence, refuse),
            (Circumstances { is_inactive: false, ..fine() }, Gate::Evidence, refuse),
        ];
        for (seen, gate, verdict) in &cases {
            assert_eq!(refusals(seen), [(*gate, *verdict)], "{seen:?}");
            assert_eq!(judge(seen).held_by(), Some(*gate));
        }
    }

    #[test]
    fn all_pass_when_all_is_well_and_each_says_what_it_saw() {
        let judgement = judge(&fine());
        assert_eq!(judgement.held_by(), None);
        assert_eq!(judgement.0.len(), 14);
        assert!(judgement.0.iter().all(|answer| !answer.inputs.is_empty()));
    }

    #[test]
    fn what_is_waived() {
        let mut full = PowerDowns::default();
        (0..3).for_each(|_| full.note(Cap::CLUSTER, NOW));
        let caps = [Counted { scope: "cluster", downs: &full, cap: Cap::CLUSTER }];
        for seen in [
            Circumstances { identity: &[Identity::Waived], ..fine() },
            Circumstances { quiet_left: Duration::from_secs(9), is_finishing: true, ..fine() },
            Circumstances { others_well: None, ..fine() },
            Circumstances { connection: Connection::Waived, ..fine() },
            Circumstances { caps: &caps, is_counted: true, budget: Some(0), ..fine() },
            Circumstances { is_dead: false, is_inactive: false, principal: Some("ann"), ..fine() },
            Circumstances { cliff: Some(9), principal: Some("ann"), overrides: &[Gate::Cliff], ..fine() },
        ] {
            assert_eq!(refusals(&seen), [], "{seen:?}");
        }
        // Nobody but a principal overrides.
        assert_eq!(
            refusals(&Circumstances { cliff: Some(9), overrides: &[Gate::Cliff], ..fine() }),
            [(Gate::Cliff, Verdict::Refuse)]
        );
    }

    #[test]
    fn a_proof_is_asked_about_the_machine_and_who_may_touch_it_and_nothing_else() {
        let mut full = PowerDowns::default();
        (0..9).for_each(|_| full.note(Cap::CLUSTER, NOW));
        let caps = [Counted { scope: "cluster", downs: &full, cap: Cap::CLUSTER }];
        let storm = [Share { scope: "rack", unwell: 40, hosts: 40, percent: 30 }];
        let host: HostId = "h1".parse().unwrap();
        let proof = || Circumstances {
            sends: false,
            quiet_left: Duration::from_secs(300),
            connection: Connection::Silent,
            others_well: Some(0),
            cliff: Some(40),
            shares: &storm,
            caps: &caps,
            budget: Some(0),
            slot: Some(Slot::Taken(&host)),
            is_dead: false,
            is_inactive: false,
            ..fine()
        };
        assert_eq!(judge(&proof()).0.len(), 5);
        assert_eq!(refusals(&proof()), []);
        let pause = Pause { owner: "ann", until: NOW + Duration::from_secs(1) };
        for (seen, gate) in [
            (Circumstances { identity: &[Identity::Differs], ..proof() }, Gate::Identity),
            (Circumstances { can_prove: false, ..proof() }, Gate::Driver),
            (Circumstances { power: Err(Refusal::HostDisabled), ..proof() }, Gate::Enablement),
            (Circumstances { ha: false, ..proof() }, Gate::Enablement),
            (Circumstances { maintenance: true, ..proof() }, Gate::Maintenance),
            (Circumstances { pause: Some(pause), ..proof() }, Gate::Maintenance),
            (Circumstances { owns: false, ..proof() }, Gate::Ownership),
        ] {
            assert_eq!(judge(&seen).held_by(), Some(gate));
        }
    }

    #[test]
    fn t22_a_small_cluster_can_still_fence() {
        let two = [Share { scope: "cluster", unwell: 1, hosts: 2, percent: 20 }];
        assert_eq!(refusals(&Circumstances { shares: &two, ..fine() }), []);
        for (unwell, hosts, percent, is_storm) in [(3, 2, 20, false), (4, 10, 30, true), (12, 40, 30, false), (13, 40, 30, true)] {
            let shares = [Share { scope: "rack", unwell, hosts, percent }];
            assert_eq!(!refusals(&Circumstances { shares: &shares, ..fine() }).is_empty(), is_storm, "{shares:?}");
        }
    }
}
