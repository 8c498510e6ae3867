use proptest::prelude::*;

use super::*;

fn states() -> Vec<(&'static str, HaState)> {
    let fencing = |way: Way, sent: bool| HaState::Fencing(Fencing { off_possibly_sent: sent, ..Fencing::new(way) });
    let fenced = |returned: bool, released: bool| {
        HaState::Fenced(Fenced { evidence: Evidence::Readings(3), restarting: false, returned, released })
    };
    vec![
        ("disabled", HaState::Disabled),
        ("ineligible", HaState::Ineligible(Ineligible::NeverHealthy)),
        ("available", HaState::Available { failures: 0 }),
        ("available-2", HaState::Available { failures: 2 }),
        ("suspect", HaState::Suspect),
        ("checking", HaState::Checking { dead: 0 }),
        ("checking-5", HaState::Checking { dead: 5 }),
        ("degraded", HaState::Degraded(Degraded::Active)),
        ("recovering", HaState::Recovering { attempt: 1 }),
        ("recovered", HaState::Recovered),
        ("proving", fencing(Way::Proof, false)),
        ("policy", fencing(Way::Order(By::Policy), false)),
        ("policy-sent", fencing(Way::Order(By::Policy), true)),
        ("named", fencing(Way::Order(By::Principal("ann".into())), true)),
        ("fenced", fenced(false, false)),
        ("returned", fenced(true, false)),
        ("released", fenced(false, true)),
    ]
}

fn events() -> Vec<(&'static str, HaEvent)> {
    use HaEvent as E;
    vec![
        ("enabled", E::Enabled(None)),
        ("enabled-but", E::Enabled(Some(Ineligible::NoHealthCheck))),
        ("enabled-fenced", E::EnabledFenced(Evidence::Readings(3))),
        ("disabled", E::Disabled),
        ("eligible", E::Eligible),
        ("ineligible", E::Ineligible(Ineligible::Maintenance)),
        ("hc-passed", E::HealthPassed),
        ("hc-failed", E::HealthFailed),
        ("start-check", E::StartActivityCheck),
        ("alive", E::Activity(Activity::Alive)),
        ("dead", E::Activity(Activity::Dead)),
        ("cannot-tell", E::Activity(Activity::CannotTell)),
        ("overdue", E::Overdue),
        ("recheck", E::RecheckDue),
        ("stable", E::Stable),
        ("off-seen", E::OffSeen),
        ("ordered", E::Ordered("ann".into())),
        ("held", E::Held(Gate::Cap)),
        ("passed", E::Passed),
        ("intended", E::OffIntended),
        ("attempt-failed", E::AttemptFailed),
        ("proven", E::Proven(Evidence::Readings(3))),
        ("contradicted", E::Contradicted),
        ("confirmed", E::Confirmed("ann".into())),
        ("aborted", E::Aborted),
        ("restarting", E::Restarting),
        ("seen-on", E::SeenOn),
        ("released", E::Released),
    ]
}

/// What tells states of one name apart.
fn shown(state: &HaState) -> String {
    let name = state.name();
    match state {
        HaState::Ineligible(why) => format!("{name}({why:?})"),
        HaState::Available { failures } => format!("{name}({failures})"),
        HaState::Checking { dead } => format!("{name}({dead})"),
        HaState::Degraded(why) => format!("{name}({why:?})"),
        HaState::Recovering { attempt } => format!("{name}({attempt})"),
        HaState::Fencing(Fencing { way, attempt, held, off_possibly_sent }) => {
            let way = match way {
                Way::Proof => "proof".to_owned(),
                Way::Order(By::Policy) => "policy".to_owned(),
                Way::Order(By::Principal(who)) => format!("by {who}"),
            };
            let held = held.map(|gate| format!(" held {gate:?}")).unwrap_or_default();
            let sent = if *off_possibly_sent { " sent" } else { "" };
            format!("{name}({way} #{attempt}{held}{sent})")
        }
        HaState::Fenced(Fenced { evidence, restarting, returned, released }) => {
            let restarting = if *restarting { " restarting" } else { "" };
            let returned = if *returned { " returned" } else { "" };
            let released = if *released { " released" } else { "" };
            format!("{name}({evidence:?}{restarting}{returned}{released})")
        }
        HaState::Disabled | HaState::Suspect | HaState::Recovered => name.to_string(),
    }
}

/// Every state with every event; what means nothing is left out.
fn grid(rules: &Rules) -> String {
    let mut grid = String::new();
    for (name, state) in states() {
        grid += &format!("{name}:\n");
        for (event, happened) in events() {
            if let Some(next) = state.step(&happened, rules) {
                let next = if next == state { "=".to_owned() } else { shown(&next) };
                grid += &format!("    {event:<14} {next}\n");
            }
        }
    }
    grid
}

#[test]
fn the_whole_grid() {
    let wanted = include_str!("grid.txt");
    let grid = grid(&Rules::default());
    assert!(grid == wanted, "the grid is now:\n{grid}");
}

#[test]
fn what_follows_inactivity_is_the_policys() {
    let inactive = |policy: OutagePolicy, recovery_attempts: u8| {
        let rules = Rules { policy, recovery_attempts, ..Rules::default() };
        shown(&HaState::Checking { dead: 5 }.step(&HaEvent::Activity(Activity::Dead), &rules).unwrap())
    };
    for (policy, attempts, wanted) in [
        (OutagePolicy::Nothing, 1, "degraded(Policy)"),
        (OutagePolicy::Blink, 1, "degraded(Policy)"),
        (OutagePolicy::PowerOff, 0, "fencing(policy #1)"),
        (OutagePolicy::PowerOff, 1, "recovering(1)"),
        (OutagePolicy::Reboot, 2, "recovering(1)"),
    ] {
        assert_eq!(inactive(policy, attempts), wanted, "{policy:?} {attempts}");
    }
}

#[test]
fn recovery_is_tried_as_often_as_allowed() {
    let rules = Rules { recovery_attempts: 2, ..Rules::default() };
    let second = HaState::Recovering { attempt: 1 }.step(&HaEvent::Overdue, &rules).unwrap();
    assert_eq!(second, HaState::Recovering { attempt: 2 });
    assert_eq!(shown(&second.step(&HaEvent::Overdue, &rules).unwrap()), "fencing(policy #1)");
}

fn any_event() -> impl Strategy<Value = HaEvent> {
    prop::sample::select(events().into_iter().map(|(_, event)| event).collect::<Vec<_>>())
}

proptest! {
    /// No path leads to Fenced but through a proof or through somebody who vouches for it.
    #[test]
    fn fenced_means_proven(happened in prop::collection::vec(any_event(), 0..200)) {
        let rules = Rules::default();
        let mut state = HaState::Disabled;
        for event in happened {
            let Some(next) = state.step(&event, &rules) else { continue };
            if next.name() == HaName::Fenced && state.name() != HaName::Fenced {
                let known = matches!(event, HaEvent::Proven(_) | HaEvent::Confirmed(_) | HaEvent::EnabledFenced(_));
                prop_assert!(known, "{state:?} by {event:?}");
            }
            if next.host_status() == HostStatus::Down && state.host_status() != HostStatus::Down {
                prop_assert!(matches!(event, HaEvent::Proven(_) | HaEvent::Confirmed(_)), "{state:?} by {event:?}");
            }
            state = next;
        }
    }

    /// A proof never sends: no path sets its mark.
    #[test]
    fn a_proof_sends_nothing(happened in prop::collection::vec(any_event(), 0..200)) {
        let rules = Rules::default();
        let mut state = HaState::Available { failures: 0 };
        for event in happened {
            state = state.step(&event, &rules).unwrap_or(state);
            if let HaState::Fencing(Fencing { way: Way::Proof, off_possibly_sent, .. }) = &state {
                prop_assert!(!off_possibly_sent);
            }
        }
    }
}
