//! Changes of passwords: BMCs that take, refuse, lose and postpone them, and an agent that dies at every step.

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use picket_common::seal::{Belongs, Sealed, public_of, seal};
use picket_common::wire::down::ChangePassword;
use picket_common::wire::report::{InForce, PasswordReport};
use proptest::prelude::*;

use super::*;

/// What a BMC does with a new password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    /// Sets it.
    Takes,
    /// Says that it does not.
    Refuses,
    /// Does not know how.
    CannotAtAll,
    /// Sets it, and the answer is lost.
    TakesUnheard,
    /// Does not, and the answer is lost.
    LosesIt,
    /// Says that it did, and did not.
    Lies,
    /// Says that it did not, and did.
    LiesTheOtherWay,
    /// Sets it some seconds after the answer was lost.
    Later(u64),
    /// Sets something else (a truncated password).
    Breaks,
    /// Something else, and the answer is lost.
    BreaksUnheard,
}

impl Set {
    const ALL: [Self; 12] = [
        Self::Takes,
        Self::Refuses,
        Self::CannotAtAll,
        Self::TakesUnheard,
        Self::LosesIt,
        Self::Lies,
        Self::LiesTheOtherWay,
        Self::Later(1),
        Self::Later(20),
        Self::Later(600),
        Self::Breaks,
        Self::BreaksUnheard,
    ];
}

pub(super) fn set(
    bmc: &mut Bmc,
    new: &Secret<String>,
    now: Duration,
    error: impl FnOnce(ErrorClass, bool) -> DriverError,
) -> Result<Answer, DriverError> {
    let new = new.expose().clone();
    match bmc.set {
        Set::Takes | Set::TakesUnheard | Set::LiesTheOtherWay => bmc.password = new,
        Set::Breaks | Set::BreaksUnheard => bmc.password = "something else".into(),
        Set::Later(seconds) => bmc.late = Some((now + Duration::from_secs(seconds), new)),
        Set::Refuses | Set::CannotAtAll | Set::LosesIt | Set::Lies => {}
    }
    match bmc.set {
        Set::Takes | Set::Lies | Set::Breaks => Ok(Answer::Done),
        Set::Refuses | Set::LiesTheOtherWay => Err(error(ErrorClass::Refused, false)),
        Set::CannotAtAll => {
            bmc.code = NOT_SUPPORTED;
            let error = error(ErrorClass::Refused, false);
            bmc.code = "c";
            Err(DriverError { code: NOT_SUPPORTED.into(), ..error })
        }
        Set::TakesUnheard | Set::LosesIt | Set::Later(_) | Set::BreaksUnheard => Err(error(ErrorClass::Deadline, true)),
    }
}

pub(super) fn refuse(bmc: &mut Bmc, now: Duration) {
    bmc.refused.push(now);
    bmc.in_a_row.push(now);
    bmc.worst = bmc.worst.max(bmc.in_a_row.iter().filter(|at| now - **at < PAUSE).count());
}

const PAUSE: Duration = Duration::from_secs(15 * 60);

/// When the agent dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// Before the records are durable.
    Before,
    /// Once they are, before anything is done.
    After,
    /// Once it is done; the BMC hears of it, and its answers are lost.
    Sent,
}

impl World {
    /// Whether the agent dies of this decision; then it is alive again, as its journal knew it.
    pub(super) fn dies(&mut self, decision: &mut Decision) -> bool {
        let Some((left, crash)) = self.crash else { return false };
        if left > 0 {
            self.crash = Some((left - 1, crash));
            return false;
        }
        self.crash = None;
        if crash != Crash::Before {
            std::mem::take(&mut decision.records).into_iter().for_each(|record| self.keep(record));
        }
        if crash == Crash::Sent {
            for (_, job) in std::mem::take(&mut decision.jobs) {
                self.answer(&job);
            }
        }
        self.restart();
        true
    }

    fn sealed(&self, host: &str, address: &str, password: &str) -> Sealed {
        let key = public_of(&settings(self.machine_boot).sealing_key).unwrap();
        let belongs = Belongs::Host { host: &id(host), address, username: "admin" };
        seal(&key, belongs, &Secret::new(password.into()), &mut UnwrapErr(SysRng)).unwrap()
    }

    fn with_password(&self, host: &str, revision: u64, password: &str) -> HostAssignment {
        let mut assignment = assignment(host, 1, None);
        let bmc = assignment.bmc.as_mut().unwrap();
        bmc.password = Some(self.sealed(host, "10.0.0.1", password));
        bmc.revision = revision;
        assignment
    }

    /// A host whose BMC takes `old`, as its assignment of revision 7 says.
    fn guarded() -> Self {
        let mut world = Self::new(&["h"]);
        world.bmc("h").password = "old".into();
        world.assign(vec![world.with_password("h", 7, "old")]);
        world.run(15);
        world
    }

    fn change(&self, number: u128, base_revision: u64, new: &str) -> Event {
        let password = self.sealed("h", "10.0.0.1", new);
        let command = self.command(number, "h", Action::ChangePassword);
        let change = ChangePassword { command, password, base_revision, revision: base_revision + 1 };
        Event::Commanded(Command::ChangePassword(change))
    }

    fn verdicts(&self) -> Vec<InForce> {
        let verdict = |report: &Report| match report {
            Report::Password(PasswordReport { in_force, .. }) => Some(*in_force),
            _ => None,
        };
        self.reports.iter().filter_map(verdict).collect()
    }

    fn sets(&mut self) -> usize {
        self.bmc("h").asked.iter().filter(|ask| **ask == Ask::SetPassword).count()
    }

    /// The password that the rack uses.
    fn used(&self) -> String {
        self.rack.hosts[0].as_ref().unwrap().bmc.as_ref().unwrap().password.expose().clone()
    }

    fn most_refused_within_a_pause(&mut self) -> usize {
        let refused = &self.bmc("h").refused;
        let within = |from: Duration| refused.iter().filter(|at| **at >= from && **at - from < PAUSE).count();
        refused.iter().map(|from| within(*from)).max().unwrap_or(0)
    }

    /// What must hold, however it went.
    fn judge(&mut self, what: &str) {
        assert!(self.sets() <= 1, "{what}: set {} times", self.sets());
        let refused = self.most_refused_within_a_pause();
        // A BMC that takes on the new one late may refuse a third, when a crash hides the second: one worked between them.
        let late = usize::from(matches!(self.bmc("h").set, Set::Later(_)));
        assert!(refused <= 2 + late, "{what}: {refused} refused logins within a pause: {:?}", self.bmc("h").refused);
        assert!(self.bmc("h").worst <= 2, "{what}: and none worked between them: {:?}", self.bmc("h").refused);
        let (used, taken) = (self.used(), self.bmc("h").password.clone());
        match taken.as_str() {
            "old" | "new" => {
                assert_eq!(used, taken, "{what}: {:?} {:?}", self.outcomes(1), self.verdicts());
                assert_eq!(self.management("h").last(), Some(&Management::Reachable), "{what}");
                assert_eq!(self.changes("h").last().unwrap().1, On, "{what}");
            }
            _ => {
                assert_eq!(self.verdicts(), [InForce::Neither], "{what}");
                assert_eq!(self.management("h").last(), Some(&Management::AuthBlocked), "{what}");
            }
        }
        let told = self.verdicts().last().copied();
        match (taken.as_str(), self.outcomes(1).as_slice()) {
            // It never arrived, or was lost before it was taken on.
            (_, []) => assert_eq!((taken.as_str(), told), ("old", None), "{what}"),
            ("new", [_]) => assert_eq!(told, Some(InForce::New), "{what}"),
            ("old", [_]) => assert_eq!(told, Some(InForce::Old), "{what}"),
            (_, [outcome]) => assert!(matches!(outcome, Outcome::Unknown(_)), "{what}: {outcome:?}"),
            (_, outcomes) => panic!("{what}: {outcomes:?}"),
        }
    }
}

#[test]
fn a_password_is_changed_and_used_before_the_assignment_knows_of_it() {
    let mut world = World::guarded();
    let reports = world.reports.len();
    world.apply(world.change(1, 7, "new"));
    world.run(60);
    assert_eq!(world.outcomes(1), [Outcome::Changed]);
    assert_eq!(world.verdicts(), [InForce::New]);
    assert_eq!(world.bmc("h").password, "new");
    assert!(world.bmc("h").refused.is_empty());
    let asked: Vec<Ask> =
        world.bmc("h").asked.iter().copied().filter(|ask| matches!(ask, Ask::TryLogin | Ask::SetPassword)).collect();
    assert_eq!(asked, [Ask::TryLogin, Ask::SetPassword, Ask::TryLogin]);
    let said: Vec<&Report> = world.reports[reports..].iter().filter(|report| !matches!(report, Report::Facts(_))).collect();
    let [Report::Operation(_), Report::Password(password), Report::Operation(_)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(password.revision, 8);

    // Neither the same assignment again nor an older one, nor a restart takes it back.
    world.assign(vec![world.with_password("h", 7, "old")]);
    world.run(30);
    world.assign(vec![world.with_password("h", 3, "older")]);
    world.restart();
    world.run(30);
    assert_eq!(world.used(), "new");
    assert!(world.bmc("h").refused.is_empty());

    // The assignment that knows of it ends the change, and disturbs nobody: not even an operation under way.
    world.bmc("h").lazy = true;
    world.order(2, "h", PowerOperation::Off);
    world.run(3);
    let reports = world.reports.len();
    world.assign(vec![world.with_password("h", 8, "new")]);
    assert!(world.journal.changes.is_empty());
    world.bmc("h").lazy = false;
    world.bmc("h").power = Reading::Off;
    world.run(30);
    assert_eq!(world.outcomes(2), [Outcome::Changed]);
    let management = world.reports[reports..].iter().filter(|report| matches!(report, Report::Management(_))).count();
    assert_eq!((world.used().as_str(), management), ("new", 0));

    // And the next change starts from there.
    world.apply(world.change(3, 8, "newer"));
    world.run(30);
    assert_eq!(world.outcomes(3), [Outcome::Changed]);
    assert_eq!(world.used(), "newer");
}

#[test]
fn no_password_is_shown_to_anybody() {
    const CANARIES: [&str; 2] = ["c4nary-old", "c4nary-new"];
    for set in Set::ALL {
        let mut world = World::new(&["h"]);
        world.bmc("h").password = CANARIES[0].into();
        world.assign(vec![world.with_password("h", 7, CANARIES[0])]);
        world.run(15);
        world.bmc("h").set = set;
        world.apply(world.change(1, 7, CANARIES[1]));
        let mut shown = String::new();
        for _ in 0..10 {
            shown += &format!("{:?} {:?} {:?}", world.flying, world.journal, world.reports);
            let answers: Vec<Completion> = std::mem::take(&mut world.flying).iter().map(|job| world.answer(job)).collect();
            shown += &format!("{answers:?}");
            world.apply(Event::Completed(answers));
        }
        assert!(shown.contains("SetPassword") && shown.contains("Secret(…)"));
        for canary in CANARIES {
            assert!(!shown.contains(canary), "{set:?}");
        }
    }
}

#[test]
fn every_bmc_ends_with_a_password_that_works_or_is_told_of() {
    use InForce::{Neither, New, Old};
    let table: [(Set, &str, &[InForce], &str, usize); 12] = [
        (Set::Takes, "changed", &[New], "", 0),
        (Set::Refuses, "failed", &[Old], "t; the old password still works", 0),
        (Set::CannotAtAll, "refused", &[Old], "", 0),
        (Set::TakesUnheard, "changed", &[New], "", 0),
        (Set::LosesIt, "failed", &[Old], "t; the old password still works", 1),
        (Set::Lies, "failed", &[Old], "the BMC accepted the new password, but does not take it; the old password still works", 1),
        (Set::LiesTheOtherWay, "changed", &[New], "", 1),
        (Set::Later(1), "changed", &[New], "", 0),
        (Set::Later(20), "failed", &[Old, New], "t; the old password still works", 2),
        (Set::Later(600), "failed", &[Old, New], "t; the old password still works", 2),
        (Set::Breaks, "unknown", &[Neither], "", 10),
        (Set::BreaksUnheard, "unknown", &[Neither], "", 10),
    ];
    for (set, result, verdicts, text, refused) in table {
        let mut world = World::guarded();
        world.bmc("h").set = set;
        world.apply(world.change(1, 7, "new"));
        world.run(3600 + 60);
        let outcomes = world.outcomes(1);
        assert_eq!(outcomes.iter().map(Outcome::as_str).collect::<Vec<_>>(), [result], "{set:?} {outcomes:?}");
        if let Outcome::Failed(error) = &outcomes[0] {
            assert_eq!(error.text, text, "{set:?}");
        }
        assert_eq!(world.verdicts(), verdicts, "{set:?}");
        assert_eq!(world.bmc("h").refused.len(), refused, "{set:?}");
        world.judge(&format!("{set:?}"));
        let unknown = world.changes("h").iter().filter(|(_, new, _)| *new == Unknown).count();
        let expected = usize::from(matches!(set, Set::Breaks | Set::BreaksUnheard));
        assert_eq!(unknown, expected, "{set:?}: as long as one password works the power is known");
    }
}

#[test]
fn neither_password_is_said_so_and_the_right_one_found_again() {
    for right in ["old", "new"] {
        let mut world = World::guarded();
        world.bmc("h").set = Set::Breaks;
        world.apply(world.change(1, 7, "new"));
        world.run(3600);
        let error = world.rack.rows().next().unwrap().error.clone().unwrap();
        assert!(error.text.contains("neither the new password nor the old one works"), "{error}");
        assert_eq!(error.class, ErrorClass::Auth);
        world.order(2, "h", PowerOperation::Off);
        world.run(5);
        assert!(
            matches!(&world.outcomes(2)[..], [Outcome::Failed(error)] if error.text.contains("neither")),
            "{:?}",
            world.outcomes(2)
        );
        // Somebody sets it by hand.
        world.restart();
        world.bmc("h").password = right.into();
        world.run(20 * 60);
        assert_eq!(world.used(), right);
        assert_eq!(world.management("h").last(), Some(&Management::Reachable));
        assert_eq!(world.verdicts().len(), 2, "{:?}", world.verdicts());
        assert!(world.most_refused_within_a_pause() <= 2);
        world.order(3, "h", PowerOperation::Off);
        world.run(10);
        assert_eq!(world.outcomes(3), [Outcome::Changed], "{right}");
    }
}

#[test]
fn a_bmc_that_falls_silent_keeps_the_change_in_doubt_over_restarts_and_disabling() {
    for (set, password) in [(Set::TakesUnheard, "new"), (Set::LosesIt, "old")] {
        let mut world = World::guarded();
        world.bmc("h").set = set;
        world.apply(world.change(1, 7, "new"));
        while world.sets() == 0 {
            let answers = std::mem::take(&mut world.flying).iter().map(|job| world.answer(job)).collect();
            world.apply(Event::Completed(answers));
        }
        world.bmc("h").status = Some(ErrorClass::Connection);
        world.run(60);
        let [Outcome::Unknown(text)] = &world.outcomes(1)[..] else { panic!("{:?}", world.outcomes(1)) };
        assert!(text.contains("both are kept, and tried until one works"), "{text}");
        assert_eq!(world.management("h").last(), Some(&Management::Lost));
        world.apply(world.change(2, 7, "newer"));
        assert_eq!(world.outcomes(2), [Outcome::Refused(Refusal::Busy)], "one change at a time");
        world.restart();
        world.run(60);
        let closed = HostAssignment { enablement: 2, refusal: Some(Refusal::HostDisabled), ..world.with_password("h", 7, "old") };
        world.assign(vec![closed.clone()]);
        world.run(600);
        world.restart();
        world.assign(vec![HostAssignment { enablement: 3, refusal: None, ..closed }]);
        world.run(60);
        assert!(world.verdicts().is_empty());
        // Away and back again with the same settings.
        world.assign(vec![]);
        world.restart();
        world.run(60);
        world.assign(vec![HostAssignment { enablement: 3, ..world.with_password("h", 7, "old") }]);
        world.run(60);
        assert_eq!(world.sets(), 1);
        // An order given in doubt is carried out once a password is proven.
        world.bmc("h").status = None;
        let mut order = world.command(3, "h", PowerOperation::Off);
        order.enablement = 3;
        world.apply(Event::Commanded(Command::Power(order)));
        world.run(15);
        assert_eq!(world.outcomes(3), [Outcome::Changed], "{set:?}");
        assert_eq!((world.used().as_str(), world.verdicts().len()), (password, 1), "{set:?}");
        assert_eq!(world.orders("h").iter().filter(|ask| **ask == Ask::Off).count(), 1);
        assert!(world.most_refused_within_a_pause() <= 1);
    }
}

#[test]
fn other_settings_win_over_a_doubt() {
    for address in ["10.0.0.1", "10.0.0.2"] {
        let mut world = World::guarded();
        world.bmc("h").set = Set::BreaksUnheard;
        world.apply(world.change(1, 7, "new"));
        world.run(60);
        assert_eq!(world.verdicts(), [InForce::Neither]);
        let mut renewed = world.with_password("h", 9, "x");
        let bmc = renewed.bmc.as_mut().unwrap();
        bmc.address = address.into();
        bmc.password = Some(world.sealed("h", address, "something else"));
        world.assign(vec![renewed]);
        world.run(30);
        assert!(world.journal.changes.is_empty());
        assert_eq!((world.used().as_str(), world.verdicts().len()), ("something else", 1));
        assert_eq!(world.management("h").last(), Some(&Management::Reachable), "at once: new credentials lift the pause");
    }
}

#[test]
fn other_settings_with_the_same_password_leave_a_change_as_it_is() {
    for (set, verdict, used) in [(Set::TakesUnheard, None, "new"), (Set::Takes, Some(InForce::New), "new")] {
        let mut world = World::guarded();
        let known = world.journal.assignments[0].clone();
        world.bmc("h").set = set;
        world.apply(world.change(1, 7, "new"));
        if verdict.is_none() {
            while world.sets() == 0 {
                let answers = std::mem::take(&mut world.flying).iter().map(|job| world.answer(job)).collect();
                world.apply(Event::Completed(answers));
            }
            world.bmc("h").status = Some(ErrorClass::Connection);
        }
        world.run(60);
        assert_eq!(world.verdicts().last().copied(), verdict);
        // Somebody sets an option; it has the number that was meant for the new password, and the old one in it.
        for revision in [8, 9] {
            let mut edited = known.clone();
            let bmc = edited.bmc.as_mut().unwrap();
            bmc.options = vec![("o".into(), revision.to_string())];
            bmc.revision = revision;
            world.assign(vec![edited]);
            world.run(20);
        }
        world.restart();
        world.bmc("h").status = None;
        world.run(20);
        assert_eq!((world.used().as_str(), world.verdicts()), (used, vec![InForce::New]));
        assert!(world.bmc("h").refused.is_empty());
        let bmc = world.rack.hosts[0].as_ref().unwrap().bmc.clone().unwrap();
        assert_eq!((bmc.options["o"].as_str(), bmc.revision), ("9", 10), "a session of the old password is none of this one");
        // What the aggregator makes of it is what the rack has already.
        let told = |world: &World| world.reports.iter().filter(|report| !matches!(report, Report::Facts(_))).count();
        let before = told(&world);
        let mut adopted = world.with_password("h", 10, "new");
        adopted.bmc.as_mut().unwrap().options = vec![("o".into(), "9".into())];
        world.assign(vec![adopted]);
        world.run(20);
        assert!(world.journal.changes.is_empty());
        assert_eq!(told(&world), before, "nobody is disturbed");
    }
}

#[test]
fn change_after_change_may_fail_as_long_as_the_old_password_works() {
    let mut world = World::guarded();
    world.bmc("h").set = Set::LosesIt;
    for number in 1..6 {
        world.apply(world.change(number, 7, "new"));
        world.run(30);
        let [Outcome::Failed(error)] = &world.outcomes(number)[..] else { panic!("{number}: {:?}", world.outcomes(number)) };
        assert!(error.text.ends_with("the old password still works"), "{error}");
    }
    assert_eq!((world.bmc("h").refused.len(), world.bmc("h").worst), (5, 1));
    // Nor does an agent that dies in mid-login count what was not refused.
    world.bmc("h").set = Set::Takes;
    for number in 6..10 {
        world.apply(world.change(number, 7, "old"));
        world.crash = Some((0, Crash::Sent));
        world.run(30);
        assert_eq!(world.outcomes(number), [Outcome::Changed], "{number}");
        world.assign(vec![world.with_password("h", 8, "old")]);
        world.assign(vec![world.with_password("h", 7, "old")]);
    }
    assert!(world.management("h").iter().all(|state| *state == Management::Reachable), "{:?}", world.management("h"));
}

#[test]
fn other_settings_end_a_change_under_way() {
    // Until so many answers came: nothing was sent, the new password was, it is being proven.
    for (answers, result, told) in [(0, "refused", 1), (1, "unknown", 0), (2, "unknown", 0)] {
        let mut world = World::guarded();
        world.apply(world.change(1, 7, "new"));
        for _ in 0..answers {
            let answers = std::mem::take(&mut world.flying).iter().map(|job| world.answer(job)).collect();
            world.apply(Event::Completed(answers));
        }
        let password = world.bmc("h").password.clone();
        world.assign(vec![world.with_password("h", 8, &password)]);
        assert_eq!(world.outcomes(1).iter().map(Outcome::as_str).collect::<Vec<_>>(), [result], "{answers}");
        assert_eq!(world.verdicts().len(), told, "{answers}");
        assert!(world.journal.changes.is_empty(), "{answers}");
        world.flying.clear();
        world.run(30);
        assert_eq!(world.management("h").last(), Some(&Management::Reachable), "{answers}");
    }
}

#[test]
fn a_change_that_cannot_begin_is_refused() {
    let refused = |world: &mut World, change: Event| {
        world.apply(change);
        world.run(5);
        assert_eq!((world.sets(), world.journal.changes.len()), (0, 0));
        let [Outcome::Refused(refusal)] = world.outcomes(1)[..] else { panic!("{:?}", world.outcomes(1)) };
        refusal
    };
    let edited = |world: &World, edit: &dyn Fn(&mut ChangePassword)| {
        let Event::Commanded(Command::ChangePassword(mut change)) = world.change(1, 7, "new") else { unreachable!() };
        edit(&mut change);
        Event::Commanded(Command::ChangePassword(change))
    };
    let world = &mut World::guarded();
    assert_eq!(refused(world, world.change(1, 6, "new")), Refusal::Busy, "other settings than it starts from");
    let world = &mut World::guarded();
    let foreign = world.sealed("h", "10.0.0.9", "new");
    let change = edited(world, &|change| change.password = foreign.clone());
    assert_eq!(refused(world, change), Refusal::PasswordNeeded);
    let world = &mut World::guarded();
    let change = edited(world, &|change| change.command.epoch = 0);
    assert_eq!(refused(world, change), Refusal::StaleEpoch);
    let world = &mut World::guarded();
    world.rack.set_journal(false);
    let change = world.change(1, 7, "new");
    assert_eq!(refused(world, change), Refusal::JournalUnavailable);
    let world = &mut World::guarded();
    world.assign(vec![HostAssignment { refusal: Some(Refusal::ZoneDisabled), ..world.with_password("h", 7, "old") }]);
    let change = world.change(1, 7, "new");
    assert_eq!(refused(world, change), Refusal::ZoneDisabled);
}

#[test]
fn an_old_password_that_does_not_work_is_no_fault_of_the_change() {
    let mut world = World::guarded();
    world.bmc("h").password = "changed by hand".into();
    world.apply(world.change(1, 7, "new"));
    world.run(120);
    assert!(matches!(&world.outcomes(1)[..], [Outcome::Failed(error)] if error.text.ends_with("the new password was not sent")));
    assert_eq!((world.sets(), world.verdicts()), (0, vec![InForce::Old]));
    assert_eq!(world.bmc("h").refused.len(), 2);
    assert_eq!(world.management("h").last(), Some(&Management::AuthBlocked));
    // Nothing was sent: the new one is never tried.
    world.run(2 * 3600);
    world.bmc("h").password = "new".into();
    world.run(2 * 3600);
    assert_eq!(world.used(), "old");

    let mut world = World::guarded();
    world.bmc("h").status = Some(ErrorClass::Connection);
    world.apply(world.change(1, 7, "new"));
    world.run(60);
    assert!(matches!(&world.outcomes(1)[..], [Outcome::Failed(error)] if error.class == ErrorClass::Connection));
    world.bmc("h").status = None;
    world.apply(world.change(2, 7, "new"));
    world.run(60);
    assert_eq!(world.outcomes(2), [Outcome::Changed], "a change that came to nothing does not hinder the next");
}

#[test]
fn a_change_waits_its_turn_is_cancelled_and_expires_like_any_order() {
    let mut world = World::guarded();
    world.bmc("h").lazy = true;
    world.order(5, "h", PowerOperation::Off);
    world.apply(world.change(1, 7, "new"));
    world.run(5);
    world.apply(Event::Commanded(Command::Cancel { operation: OperationId(uuid::Uuid::from_u128(1)), host: id("h") }));
    assert_eq!((world.outcomes(1), world.verdicts()), (vec![Outcome::Cancelled], vec![InForce::Old]));
    world.apply(world.change(2, 7, "new"));
    world.run(120);
    let [Outcome::Changed] = world.outcomes(2)[..] else { panic!("{:?}", world.outcomes(2)) };

    let mut world = World::guarded();
    world.bmc("h").lazy = true;
    let late = world.change(1, 7, "new");
    let mut first = world.command(5, "h", PowerOperation::Off);
    first.deadline = world.now.after(Duration::from_secs(60)).wall.into();
    world.apply(Event::Commanded(Command::Power(first)));
    world.apply(late);
    world.run(120);
    assert_eq!((world.outcomes(1), world.verdicts(), world.sets()), (vec![Outcome::Expired], vec![InForce::Old], 0));
}

#[test]
fn an_aggregator_that_missed_the_verdict_is_told_again() {
    for (set, verdict) in [(Set::Takes, InForce::New), (Set::Refuses, InForce::Old), (Set::Breaks, InForce::Neither)] {
        let mut world = World::guarded();
        world.bmc("h").set = set;
        world.apply(world.change(1, 7, "new"));
        world.run(60);
        world.restart();
        world.apply(Event::Missed);
        assert_eq!(world.verdicts(), [verdict, verdict]);
    }
}

#[test]
fn a_facts_revision_is_that_of_the_password_in_force() {
    let mut world = World::guarded();
    world.run(60);
    world.apply(world.change(1, 7, "new"));
    world.run(120);
    assert_eq!(world.facts().iter().map(|facts| facts.revision).collect::<Vec<_>>(), [7, 8]);
    world.assign(vec![world.with_password("h", 8, "new")]);
    world.run(120);
    assert_eq!(world.facts().len(), 2);
}

/// One agent that dies once, at each of its decisions in turn, in each way, with each kind of BMC.
#[test]
fn killed_at_any_step_a_change_ends_with_the_password_that_works() {
    for set in Set::ALL {
        for crash in [Crash::Before, Crash::After, Crash::Sent] {
            for step in 0.. {
                let mut world = World::guarded();
                world.bmc("h").set = set;
                world.crash = Some((step, crash));
                world.apply(world.change(1, 7, "new"));
                world.run(2 * 3600);
                world.judge(&format!("{set:?}, killed {crash:?} step {step}"));
                if world.crash.is_some() {
                    assert!(step >= 3, "{set:?}: {step} steps");
                    break;
                }
                // Two hours are enough for the verdict, and what follows are only rounds of the same.
                if step > 40 {
                    break;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// An agent that dies again and again, and a BMC that is away now and then.
    #[test]
    fn whatever_happens_a_change_ends_with_the_password_that_works(
        set in prop::sample::select(Set::ALL.iter().copied().filter(|set| !matches!(set, Set::Later(_))).collect::<Vec<_>>()),
        mishaps in prop::collection::vec(
            (0u32..6, prop::sample::select(vec![Crash::Before, Crash::After, Crash::Sent]), 0u64..40, any::<bool>()), 0..8),
    ) {
        let mut world = World::guarded();
        world.bmc("h").set = set;
        for (number, (step, crash, seconds, away)) in mishaps.iter().enumerate() {
            world.crash = Some((*step, *crash));
            if number == 0 {
                world.apply(world.change(1, 7, "new"));
            }
            world.bmc("h").status = away.then_some(ErrorClass::Connection);
            world.run(*seconds);
        }
        world.bmc("h").status = None;
        world.crash = None;
        if mishaps.is_empty() {
            world.apply(world.change(1, 7, "new"));
        }
        world.run(2 * 3600);
        world.judge(&format!("{set:?} {mishaps:?}"));
    }
}
