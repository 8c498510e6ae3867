//! Why a host stands where it stands in host-HA, and what would end that: sentences for people, a thought each. Decides nothing.

use super::settings::{ActivityCheck, HaSettings, HealthCheck, Mode, NothingToCheck};
use super::{By, Degraded, Evidence, Fenced, Fencing, Gate, HaState, Ineligible, OutagePolicy, Way};
use crate::command::BmcError;
use crate::id::HostId;
use crate::policy::Judgement;

/// What is known of a host.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Which.
    pub host: &'a HostId,
    /// Where it stands; `None` = its agent has said nothing yet.
    pub state: Option<&'a HaState>,
    /// Why, as its agent said.
    pub why: &'a str,
    /// Its settings in force.
    pub settings: &'a HaSettings,
    /// The first HA gate that is closed: `zone`, `cluster` or `host`.
    pub closed: Option<&'a str>,
    /// Whether its agent vouches for all this now.
    pub is_fresh: bool,
    /// Whether its BMC reads On now.
    pub is_on: bool,
    /// Place nothing new there.
    pub quarantined: bool,
    /// It is known to be broken.
    pub acked: bool,
    /// The driver's last error in its fence.
    pub error: Option<&'a BmcError>,
    /// What the gates said last to an act on it.
    pub judged: Option<&'a Judgement>,
}

/// Why it stands there, and what would end it.
#[must_use]
pub fn explain(known: &Known<'_>) -> (Vec<String>, Vec<String>) {
    let mut words = Words::default();
    match (known.closed, known.state) {
        (Some(gate), _) => {
            words.because(format!("host-HA is disabled: the gate of its {gate} is closed"));
            words.until(format!("its {gate}'s gate of host-HA is opened"));
        }
        (None, None) => {
            words.because("its agent has not said where it stands");
            words.until("its agent is connected, holds the newest settings, and takes it up");
        }
        (None, Some(state)) => words.of_state(known, state),
    }
    (words.because, words.until)
}

#[derive(Default)]
struct Words {
    because: Vec<String>,
    until: Vec<String>,
}

impl Words {
    fn because(&mut self, text: impl Into<String>) {
        self.because.push(text.into());
    }

    fn until(&mut self, text: impl Into<String>) {
        self.until.push(text.into());
    }

    fn of_state(&mut self, known: &Known<'_>, state: &HaState) {
        if !known.is_fresh {
            self.because("this is what its agent said last; nobody vouches for it now, so its host status is unknown");
            self.until("its agent is heard again and says where it stands");
        }
        if !known.why.is_empty() {
            self.because(known.why);
        }
        match state {
            HaState::Disabled => {
                self.because("its agent has not taken up yet that its gates of host-HA are open");
                self.until("its agent holds the newest settings");
            }
            HaState::Ineligible(reason) => self.ineligible(known, *reason),
            HaState::Available { failures } => self.available(known, *failures),
            HaState::Suspect => {
                self.because(format!("{} health checks failed one after another", known.settings.failures));
                self.until("a health check passes: it is available again");
                self.what_follows(known);
            }
            HaState::Checking { dead } => self.checking(known, *dead),
            HaState::Degraded(why) => self.degraded(known, *why),
            HaState::Recovering { attempt } => {
                let HaSettings { recovery_attempts, boot_wait, .. } = known.settings;
                self.because(format!("it was reset, attempt {attempt} of {recovery_attempts}, and is given {boot_wait} s to boot"));
                self.until("a health check passes: it has recovered");
                let next = if *attempt < *recovery_attempts { "it is reset again" } else { "it is fenced" };
                self.until(format!("{boot_wait} s are over without one: {next}"));
            }
            HaState::Recovered => {
                self.because("it passed a health check after a reset, and is watched for a while");
                self.until(format!("it stays well for {} s: it is available again", known.settings.stable));
                self.until("a health check fails: it is suspect");
            }
            HaState::Fencing(fencing) => self.fencing(known, fencing),
            HaState::Fenced(fenced) => self.fenced(known, fenced),
        }
        if known.quarantined {
            self.because("it is quarantined: place nothing new there");
        }
        if known.acked {
            self.because("somebody said that it is known to be broken: it does not count in storms");
        }
        if !matches!(state, HaState::Disabled | HaState::Ineligible(_)) {
            self.standing_rules(known);
        }
    }

    /// What holds for it in every state.
    fn standing_rules(&mut self, known: &Known<'_>) {
        let HaSettings { activity, nothing_to_check, mode, .. } = known.settings;
        if activity.is_empty() {
            self.because(match nothing_to_check {
                NothingToCheck::AssumeActive => {
                    "it has no activity check, and nothing_to_check is assume-active: it may be writing, so it is never reset or \
                     fenced by policy"
                }
                NothingToCheck::AssumeInactive => {
                    "it has no activity check, and nothing_to_check is assume-inactive: its health alone decides"
                }
            });
        }
        if *mode == Mode::Observe {
            self.because("mode is observe: all is decided, and nothing is sent");
        }
    }

    fn ineligible(&mut self, known: &Known<'_>, reason: Ineligible) {
        match reason {
            Ineligible::PowerDisabled => {
                self.because("a power gate of host, cluster or zone is closed, or it has no BMC");
                self.until("it has a BMC, and power management is enabled for host, cluster and zone");
            }
            Ineligible::CannotProve => {
                self.because("its driver cannot prove that a host is off");
                self.until("it has a driver that can, such as ipmi or redfish");
            }
            Ineligible::Maintenance => {
                self.because("people work on it");
                self.until("its maintenance ends");
            }
            Ineligible::CommandedOff => {
                self.because("an operator switched it off");
                self.until("an operator switches it on again");
            }
            Ineligible::NoHealthCheck => {
                self.because("it has no health check");
                self.until("it or its cluster gets one: witness, tcp, http, icmp or exec");
            }
            Ineligible::NeverHealthy => {
                let checks: Vec<String> = known.settings.health.iter().map(health).collect();
                let checks = checks.join(", ");
                self.because(format!("none of its health checks ({checks}) has passed since it was enabled or they changed"));
                self.until("one of them passes; if it is well, look at their addresses and ports");
            }
        }
    }

    fn available(&mut self, known: &Known<'_>, failures: u8) {
        let most = known.settings.failures;
        if failures == 0 {
            self.because("its health checks pass");
        } else {
            self.because(format!("{failures} health checks failed one after another, fewer than {most}"));
        }
        self.until(format!("{most} health checks fail one after another: it is suspect"));
        self.until(format!("its BMC reads Off for {} s and nobody ordered it: it is fenced by proof", known.settings.settle));
    }

    /// What is done about a host whose health checks fail.
    fn what_follows(&mut self, known: &Known<'_>) {
        let HaSettings { activity, nothing_to_check, samples, .. } = known.settings;
        match (activity.is_empty(), nothing_to_check) {
            (true, NothingToCheck::AssumeActive) => self.until("it is taken for active: degraded, and nothing is done"),
            (true, NothingToCheck::AssumeInactive) => self.until(format!("it is taken for inactive: {}", inactive(known.settings))),
            (false, _) => {
                let checks: Vec<String> = activity.iter().map(sample).collect();
                self.until(format!("its activity is looked at {samples} times ({})", checks.join(", ")));
            }
        }
    }

    fn checking(&mut self, known: &Known<'_>, dead: u8) {
        let HaSettings { samples, .. } = known.settings;
        self.because(format!("its health checks fail, and {dead} of {samples} samples say that it does nothing"));
        self.until("a health check passes: it is available again");
        self.until("one sample shows that it writes: degraded, and nothing is done");
        self.until(format!("{samples} samples say that it does nothing: {}", inactive(known.settings)));
        let most = known.settings.checking_within().as_secs();
        self.until(format!("{most} s are over without a verdict: degraded, and nothing is done"));
    }

    fn degraded(&mut self, known: &Known<'_>, why: Degraded) {
        self.because(match why {
            Degraded::Active => "its health checks fail, and it still writes: nothing is done",
            Degraded::CannotTell => "its health checks fail, and whether it writes cannot be told: nothing is done",
            Degraded::Contradiction => {
                "its BMC says Off while it answers, or one of its devices reads On: the BMC speaks for another machine, or lies"
            }
            Degraded::StillAlive => "it answered although an off was sent, or may have been: its fence was stopped",
            Degraded::Aborted => "an administrator ended its fence",
            Degraded::Policy => "its health checks fail and it does nothing; its policy is not to switch it off",
        });
        if why == Degraded::Contradiction {
            self.until(format!("somebody finds out which machine its BMC belongs to (`picketctl bmc test {}`)", known.host));
        }
        self.until("a health check passes: it is available again");
        self.until(format!("it is looked at again every {} s", known.settings.recheck));
        if matches!(why, Degraded::Policy | Degraded::Active | Degraded::CannotTell) {
            self.until(format!("somebody orders it: `picketctl fence {} --reason …`", known.host));
        }
    }

    fn fencing(&mut self, known: &Known<'_>, fencing: &Fencing) {
        self.because(match &fencing.way {
            Way::Proof => "its BMC reads Off and nobody ordered it: it is to be proven off, and nothing is sent".to_owned(),
            Way::Order(By::Policy) => "its health checks fail and it does nothing: it is switched off by policy".to_owned(),
            Way::Order(By::Principal(who)) => format!("{who} ordered it"),
        });
        let HaSettings { fence_attempts, fence_retry, confirmations, confirm_within, .. } = known.settings;
        self.because(format!("attempt {}", fencing.attempt));
        if fencing.off_possibly_sent {
            self.because("an off was sent, or may have been");
        }
        if let Some(error) = known.error {
            self.because(format!("its BMC: {error}"));
        }
        if fencing.attempt > *fence_attempts {
            self.because(format!(
                "unconfirmed after {fence_attempts} attempts: it may still run; tried again every {fence_retry} s"
            ));
        }
        if let Some(gate) = fencing.held {
            self.held(known, gate);
        }
        self.until(format!(
            "its BMC reads Off {confirmations} times one after another within {confirm_within} s, and it does not answer: it is fenced"
        ));
        if fencing.attempt > *fence_attempts {
            self.until("if it and its BMC lost their power: all of its outlets read Off");
            self.until("or its storage heartbeat is stale for more than twice the time-out of the watchdog its witness holds");
            self.until(format!("an administrator vouches that it is off: `picketctl fence confirm {} --reason …`", known.host));
        }
        match (&fencing.way, fencing.off_possibly_sent) {
            (Way::Order(By::Principal(_)), _) => {}
            (Way::Proof, _) => self.until("it answers: its BMC contradicts it, degraded"),
            (Way::Order(By::Policy), true) => self.until("it answers: degraded, for an off was possibly sent"),
            (Way::Order(By::Policy), false) => self.until("it answers: available again, for nothing was sent"),
        }
        self.until(format!("an administrator ends it: `picketctl fence abort {} --reason …`", known.host));
    }

    /// What its fence waits for: the gate that holds it first, with what it saw, then the others in the way.
    fn held(&mut self, known: &Known<'_>, gate: Gate) {
        let answers = known.judged.map_or(&[][..], |judged| &judged.0);
        let inputs = answers.iter().find(|answer| answer.gate == gate).map(|answer| format!(": {}", answer.inputs));
        self.because(format!("held by gate {gate}{}", inputs.unwrap_or_default()));
        self.until(format!("gate {gate}: {}", opens(gate)));
        for answer in answers.iter().filter(|answer| answer.gate != gate && !answer.lets_through()) {
            self.because(format!("gate {} is in the way too: {}", answer.gate, answer.inputs));
            self.until(format!("gate {}: {}", answer.gate, opens(answer.gate)));
        }
    }

    fn fenced(&mut self, known: &Known<'_>, fenced: &Fenced) {
        self.because(match &fenced.evidence {
            Evidence::Readings(count) => {
                format!("it is proven off: {count} Off readings one after another, and no answer after them")
            }
            Evidence::Vouched(who) => format!("{who} vouches that it is off"),
            Evidence::Outlets => "it and its BMC are silent, and all of its outlets read Off".to_owned(),
            Evidence::Heartbeat => {
                "it and its BMC are silent, and its storage heartbeat is stale for longer than its watchdog allows".to_owned()
            }
        });
        if fenced.returned {
            self.because("it was seen On, or answered, or nobody watched it for a while: it is not down any more");
        } else if known.is_on {
            self.because("its BMC reads On now, so its host status is not down");
        }
        if fenced.restarting {
            self.because("its policy is reboot: it is switched on again");
        }
        if fenced.released {
            self.because("it is released: it may be switched on");
            self.until("a health check passes: it is available again");
        } else {
            self.until(format!(
                "somebody releases it (`picketctl fence release {} --reason …`): then it may be switched on, and is watched over \
                 again once a health check passes",
                known.host
            ));
        }
        if fenced.returned && !fenced.released && known.settings.fence_on_return {
            self.until("it is fenced again: fence_on_return is set");
        }
    }
}

/// What a host that is Dead and inactive has to expect.
fn inactive(settings: &HaSettings) -> String {
    match (settings.policy, settings.recovery_attempts) {
        (OutagePolicy::Nothing, _) => "degraded, and nothing is done".to_owned(),
        (OutagePolicy::Blink, _) => "its identify LED is lit".to_owned(),
        (OutagePolicy::PowerOff | OutagePolicy::Reboot, 0) => "it is fenced".to_owned(),
        (OutagePolicy::PowerOff | OutagePolicy::Reboot, attempts) => format!("it is reset, up to {attempts} times, then fenced"),
    }
}

/// What makes a gate let an act pass.
const fn opens(gate: Gate) -> &'static str {
    match gate {
        Gate::Identity => "its BMC says that it is the machine that was pinned; or pin it anew, or waive it for this host",
        Gate::Driver => "a driver that can prove",
        Gate::Enablement => "power management and host-HA are enabled for host, cluster and zone",
        Gate::Maintenance => "the maintenance or the pause window ends",
        Gate::Ownership => "its agent knows that it is in charge: it must hear the aggregator",
        Gate::StartupQuiet => "the quiet time after its agent's start is over",
        Gate::Isolation => "a reference address or another BMC answers its agent",
        Gate::SomewhereToGo => "another host of the cluster passes its health checks",
        Gate::Cliff => "the hosts of the rack are well again, or somebody who looked says go on (`picketctl ha end-cliff`)",
        Gate::Storm => "fewer hosts are unwell and the cool-down is over; hosts known to be broken can be acknowledged",
        Gate::Cap => "the hour slides on; or somebody resets the counters (`picketctl ha reset-counters`)",
        Gate::Budget => "its agent hears the aggregator and gets a share of the cluster's cap, or the hour slides on",
        Gate::InFlight => "the attempt on another host of the rack ends",
        Gate::Evidence => "its health checks say dead and its activity says nothing, or somebody orders it",
    }
}

fn health(check: &HealthCheck) -> String {
    match check {
        HealthCheck::Witness { address, .. } => format!("witness {address}"),
        HealthCheck::Tcp { address, port } => format!("tcp {address}:{port}"),
        HealthCheck::Http { url } => format!("http {url}"),
        HealthCheck::Icmp { address } => format!("icmp {address}"),
        HealthCheck::Exec { check } => format!("exec {check}"),
    }
}

fn sample(check: &ActivityCheck) -> String {
    match check {
        ActivityCheck::Files { paths } => format!("{} files", paths.len()),
        ActivityCheck::Witness { paths, .. } => format!("{} files, by its neighbours' witnesses", paths.len()),
        ActivityCheck::Heartbeat { path } => format!("heartbeat {path}"),
        ActivityCheck::Exec { check } => format!("exec {check}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::ErrorClass;
    use crate::policy::{GateAnswer, Verdict};

    fn settings() -> HaSettings {
        HaSettings {
            health: vec![HealthCheck::Tcp { address: "10.0.0.1".into(), port: 22 }],
            activity: vec![ActivityCheck::Files { paths: vec!["/a".into()] }],
            ..HaSettings::default()
        }
    }

    fn fencing(way: Way) -> Fencing {
        Fencing::new(way)
    }

    /// All states there are, with a word that must be said of why, and one of what would end it.
    fn states() -> Vec<(HaState, &'static str, &'static str)> {
        let by = |who: &str| Way::Order(By::Principal(who.into()));
        let fenced = |evidence| Fenced { evidence, restarting: false, returned: false, released: false };
        let mut states = vec![
            (HaState::Disabled, "not taken up", "newest settings"),
            (HaState::Available { failures: 0 }, "health checks pass", "3 health checks fail"),
            (HaState::Available { failures: 2 }, "2 health checks failed", "suspect"),
            (HaState::Suspect, "3 health checks failed", "looked at 6 times (1 files)"),
            (HaState::Checking { dead: 2 }, "2 of 6 samples", "480 s are over"),
            (HaState::Recovering { attempt: 1 }, "attempt 1 of 1", "it is fenced"),
            (HaState::Recovered, "after a reset", "60 s"),
            (HaState::Fencing(fencing(Way::Proof)), "nothing is sent", "contradicts"),
            (HaState::Fencing(fencing(Way::Order(By::Policy))), "by policy", "nothing was sent"),
            (
                HaState::Fencing(Fencing { off_possibly_sent: true, ..fencing(Way::Order(By::Policy)) }),
                "an off was sent, or may have been",
                "degraded",
            ),
            (HaState::Fencing(fencing(by("ann"))), "ann ordered it", "fence abort h1"),
            (HaState::Fencing(Fencing { attempt: 11, ..fencing(by("ann")) }), "unconfirmed after 10 attempts", "outlets read Off"),
            (HaState::Fenced(fenced(Evidence::Readings(3))), "3 Off readings", "fence release h1"),
            (HaState::Fenced(fenced(Evidence::Vouched("bob".into()))), "bob vouches", "release"),
            (HaState::Fenced(fenced(Evidence::Outlets)), "outlets", "release"),
            (HaState::Fenced(fenced(Evidence::Heartbeat)), "heartbeat", "release"),
            (HaState::Fenced(Fenced { returned: true, ..fenced(Evidence::Readings(3)) }), "not down any more", "release"),
            (
                HaState::Fenced(Fenced { released: true, ..fenced(Evidence::Readings(3)) }),
                "may be switched on",
                "a health check passes",
            ),
            (HaState::Fenced(Fenced { restarting: true, ..fenced(Evidence::Readings(3)) }), "switched on again", "release"),
        ];
        states.extend(
            [
                (Ineligible::PowerDisabled, "power gate", "power management is enabled"),
                (Ineligible::CannotProve, "cannot prove", "redfish"),
                (Ineligible::Maintenance, "people work", "maintenance ends"),
                (Ineligible::CommandedOff, "switched it off", "switches it on"),
                (Ineligible::NoHealthCheck, "no health check", "witness"),
                (Ineligible::NeverHealthy, "tcp 10.0.0.1:22", "ports"),
            ]
            .map(|(reason, why, end)| (HaState::Ineligible(reason), why, end)),
        );
        states.extend(
            [
                (Degraded::Active, "still writes", "passes"),
                (Degraded::CannotTell, "cannot be told", "again every 300 s"),
                (Degraded::Contradiction, "another machine", "bmc test h1"),
                (Degraded::StillAlive, "stopped", "passes"),
                (Degraded::Aborted, "administrator ended", "passes"),
                (Degraded::Policy, "policy", "picketctl fence h1"),
            ]
            .map(|(why, said, end)| (HaState::Degraded(why), said, end)),
        );
        states
    }

    static HOST: std::sync::LazyLock<HostId> = std::sync::LazyLock::new(|| "h1".parse().unwrap());

    fn said<'a>(edit: impl FnOnce(&mut Known<'a>), state: &'a HaState, settings: &'a HaSettings) -> (String, String) {
        let mut known = Known {
            host: &HOST,
            state: Some(state),
            why: "as the agent said",
            settings,
            closed: None,
            is_fresh: true,
            is_on: false,
            quarantined: false,
            acked: false,
            error: None,
            judged: None,
        };
        edit(&mut known);
        let (because, until) = explain(&known);
        assert!(!because.is_empty() && !until.is_empty(), "{state:?}");
        (because.join("\n"), until.join("\n"))
    }

    #[test]
    fn every_state_says_why_and_what_would_end_it() {
        for (state, why, end) in states() {
            let (because, until) = said(|_| {}, &state, &settings());
            assert!(because.contains("as the agent said"), "{state:?}: {because}");
            assert!(because.contains(why), "{state:?}: {because}");
            assert!(until.contains(end), "{state:?}: {until}");
        }
    }

    #[test]
    fn what_is_not_so_everywhere() {
        let available = HaState::Available { failures: 0 };
        let (because, until) = said(|known| known.closed = Some("cluster"), &available, &settings());
        assert_eq!((because.as_str(), until.contains("cluster")), ("host-HA is disabled: the gate of its cluster is closed", true));
        assert!(said(|known| known.state = None, &available, &settings()).0.contains("has not said"));
        assert!(said(|known| known.is_fresh = false, &available, &settings()).0.contains("host status is unknown"));
        assert!(said(|known| known.quarantined = true, &available, &settings()).0.contains("place nothing new"));
        assert!(said(|known| known.acked = true, &available, &settings()).0.contains("known to be broken"));
        let observing = HaSettings { mode: Mode::Observe, ..settings() };
        assert!(said(|_| {}, &available, &observing).0.contains("nothing is sent"));
        let fenced = HaState::Fenced(Fenced {
            evidence: Evidence::Vouched("bob".into()),
            restarting: false,
            returned: false,
            released: false,
        });
        assert!(said(|known| known.is_on = true, &fenced, &settings()).0.contains("reads On now"));
    }

    #[test]
    fn t07_a_host_with_nothing_to_check_says_what_is_assumed() {
        for (assumed, said_of, follows) in [
            (NothingToCheck::AssumeActive, "assume-active: it may be writing, so it is never reset or fenced", "taken for active"),
            (NothingToCheck::AssumeInactive, "assume-inactive: its health alone decides", "taken for inactive: it is reset"),
        ] {
            let settings = HaSettings { activity: Vec::new(), nothing_to_check: assumed, ..settings() };
            for (state, ..) in states() {
                let (because, until) = said(|_| {}, &state, &settings);
                let expected = !matches!(state, HaState::Disabled | HaState::Ineligible(_));
                assert_eq!(because.contains(said_of), expected, "{state:?}: {because}");
                assert_eq!(until.contains(follows), state == HaState::Suspect, "{state:?}: {until}");
            }
        }
    }

    #[test]
    fn a_held_fence_names_every_gate_in_the_way_with_what_it_saw() {
        let answer = |gate, verdict, inputs: &str| GateAnswer { gate, verdict, inputs: inputs.into(), overridden_by: None };
        for gate in Gate::ALL {
            let judged = Judgement(vec![
                answer(Gate::Driver, Verdict::Pass, "it can prove"),
                answer(gate, Verdict::Refuse, "seen this"),
                answer(Gate::Evidence, Verdict::CannotTell, "seen that"),
            ]);
            let state = HaState::Fencing(Fencing { held: Some(gate), ..fencing(Way::Order(By::Policy)) });
            let (because, until) = said(|known| known.judged = Some(&judged), &state, &settings());
            assert!(until.contains(&format!("gate {gate}: ")), "{until}");
            if gate != Gate::Driver && gate != Gate::Evidence {
                assert!(because.contains(&format!("held by gate {gate}: seen this")), "{because}");
                assert!(because.contains("gate evidence is in the way too: seen that"), "{because}");
                assert!(!because.contains("it can prove"), "{because}");
            }
        }
    }

    #[test]
    fn t19_the_drivers_own_error_is_told() {
        let error = BmcError { driver: "ipmi".into(), class: ErrorClass::Auth, code: "rakp".into(), text: "wrong password".into() };
        let state = HaState::Fencing(Fencing { attempt: 12, ..fencing(Way::Order(By::Policy)) });
        let (because, _) = said(|known| known.error = Some(&error), &state, &settings());
        assert!(because.contains("wrong password") && !because.contains("not configured"), "{because}");
    }
}
