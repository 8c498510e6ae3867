//! The centre's half of a password change: the new password is kept as pending until a login has proven which one is in force.
//!
//! ```text
//! asked ─▶ pending, durable ─▶ sent ─▶ agent: journals it, sets it, logs in with it ─▶ report
//!             │                          new: it becomes the host's, under the reserved revision
//!             │                          old: kept aside, for a slow BMC may yet take the new one; in nobody's way
//!             │                          neither: both kept, somebody must look
//!             └ never begun (refused, expired, taken back): dropped
//! ```
//!
//! The command is sent again with the same bytes and the same revision after a crash of either side; the report may come long
//! after the operation ended, and again. To the agent any later revision ends the change, so while it is not known which password
//! is in force, what would make one is refused; a password set by hand is what ends it.

use std::sync::Arc;

use jiff::Timestamp;
use picket_common::api::{HistoryWhat, PasswordChange, PasswordChangeState};
use picket_common::clock::Now;
use picket_common::command::{OperationState, Outcome, Refusal};
use picket_common::driver;
use picket_common::id::{HostId, OperationId};
use picket_common::wire::down::{ChangePassword, PowerCommand};
use picket_common::wire::report::{InForce, PasswordReport};

use super::commands::{Order, check_order};
use super::enablement::standing_refusal;
use super::request::{Answer, Given, Rejection};
use super::settings::not_found;
use super::view::{HostRow, PendingPasswordRow, Row, RowKey, View};
use super::{Fleet, Record, effective};

/// Whether the operation of a pending change goes on.
pub(super) fn is_open(view: &View, pending: &PendingPasswordRow) -> bool {
    let part = view.operations.get(&pending.operation).and_then(|operation| operation.parts.get(&pending.host));
    part.is_some_and(|part| part.state != OperationState::Done)
}

/// A host's password change that is not over, as shown.
#[must_use]
pub fn password_change(view: &View, host: &HostId) -> Option<PasswordChange> {
    let pending = view.pending.get(host).filter(|pending| !pending.is_settled())?;
    let state = match pending.told {
        _ if is_open(view, pending) => PasswordChangeState::Open,
        Some(_) => PasswordChangeState::Neither,
        None => PasswordChangeState::Unresolved,
    };
    let since = pending.told.map_or(pending.asked_at, |(_, at)| at);
    Some(PasswordChange { operation: pending.operation, since, state })
}

/// Whether a host has no BMC any more, or one at another address than the new password was sealed for.
fn is_elsewhere(row: &HostRow, pending: &PendingPasswordRow) -> bool {
    row.bmc.as_ref().is_none_or(|bmc| bmc.address != pending.address)
}

impl Fleet {
    /// Accepts a password change, or refuses it: gates, settings, another change, what it was sealed for.
    pub(super) fn change_password(
        &mut self,
        principal: &str,
        host: &HostId,
        given: Given,
        order: Order,
        now: Now,
    ) -> Result<Answer, Rejection> {
        let row = self.view.hosts.get(host).cloned().ok_or_else(|| not_found("host", host))?;
        if self.view.operations.contains_key(&order.id) {
            return Ok(Answer::Accepted(order.id));
        }
        if let Some(refusal) = standing_refusal(&self.view, &row) {
            return Err(Rejection::Refused(refusal));
        }
        self.no_password_change(host)?;
        self.check_given(&row, &given)?;
        let base_revision = row.bmc.as_ref().map_or(0, |bmc| bmc.revision);
        let pending = PendingPasswordRow {
            host: host.clone(),
            operation: order.id,
            address: given.address,
            username: given.username,
            password: given.password,
            base_revision,
            revision: base_revision + 1,
            asked_at: now.wall,
            told: None,
        };
        check_order(&order)?;
        let (id, part) = (order.id, self.part_of(&row, &order, now.wall)?);
        self.keep_pending(pending);
        self.accept(principal, order, vec![part], now);
        Ok(Answer::Accepted(id))
    }

    /// Whether a new password is sealed for what is in force, and there is an old one it can take the place of.
    fn check_given(&self, host: &HostRow, given: &Given) -> Result<(), Rejection> {
        let Some(bmc) = effective::bmc(&self.view, host) else {
            return Err(Rejection::Refused(Refusal::HostNotConfigured));
        };
        if bmc.driver.value == driver::NULL.name {
            return Err(Rejection::Refused(Refusal::NotSupported));
        }
        if bmc.password.is_none() {
            return Err(Rejection::Refused(Refusal::PasswordNeeded));
        }
        let key = self.view.agent_of(host).map(|agent| agent.sealing_key);
        if key != Some(given.password.agent_key) || bmc.address != given.address || bmc.username.value != given.username {
            let text = "the BMC's address, user name or agent changed while it was sealed";
            return Err(Rejection::PasswordNeededAgain(text.into()));
        }
        Ok(())
    }

    /// Refuses what would change a BMC's settings while it is not known which password it takes.
    pub(super) fn no_password_change(&self, host: &HostId) -> Result<(), Rejection> {
        match self.view.pending.get(host).filter(|pending| !pending.is_settled()) {
            Some(pending) => Err(Rejection::PasswordChanging { host: host.clone(), operation: pending.operation }),
            None => Ok(()),
        }
    }

    /// The same for a host's own settings: once the operation is over, another password or another BMC ends what is pending.
    pub(super) fn may_change_bmc(&self, row: &HostRow, is_new_password: bool) -> Result<(), Rejection> {
        let Some(pending) = self.view.pending.get(&row.id) else { return Ok(()) };
        let ends_it = is_new_password || is_elsewhere(row, pending);
        if ends_it && !is_open(&self.view, pending) { Ok(()) } else { self.no_password_change(&row.id) }
    }

    /// The command of a change: the same bytes and revisions each time. The first time it is absent when what it was sealed for
    /// is not in force any more.
    pub(super) fn password_command(&self, host: &HostRow, command: PowerCommand, is_first: bool) -> Option<ChangePassword> {
        let pending = self.view.pending.get(&host.id).filter(|pending| pending.operation == command.operation)?;
        let PendingPasswordRow { address, username, password, base_revision, revision, .. } = &**pending;
        if is_first {
            let given = Given { address: address.clone(), username: username.clone(), password: password.clone() };
            self.check_given(host, &given).ok()?;
        }
        let (base_revision, revision) = (*base_revision, *revision);
        Some(ChangePassword { command, password: password.agent.clone(), base_revision, revision })
    }

    /// An operation on a host ended: a change that was never begun leaves nothing behind.
    pub(super) fn password_operation_ended(&mut self, id: OperationId, host: &HostId, outcome: &Outcome) {
        let never_begun = matches!(outcome, Outcome::Refused(_) | Outcome::Expired | Outcome::Cancelled);
        if never_begun && self.view.pending.get(host).is_some_and(|pending| pending.operation == id) {
            self.forget_pending(host);
        }
    }

    /// Which password a BMC takes, proven by a login. The agent may say it again, and may come to another verdict while its BMC
    /// makes up its mind; what was settled by another password is settled.
    pub(super) fn password_report(&mut self, host: &Arc<HostRow>, id: String, report: &PasswordReport, now: Now) {
        let pending = self.view.pending.get(&host.id).cloned();
        let is_news = |pending: &Arc<PendingPasswordRow>| {
            pending.operation == report.operation && pending.told.map(|(told, _)| told) != Some(report.in_force)
        };
        let Some(pending) = pending.filter(is_news) else {
            self.counters.ignored += 1;
            return;
        };
        self.settle_password(host, &pending, Some(id), (report.in_force, report.observed_at.timestamp()), now);
    }

    /// Somebody says how a change ended that is over and was never resolved.
    pub(super) fn resolve_password(&mut self, host: &HostId, in_force: InForce, now: Now) -> Result<Answer, Rejection> {
        let row = self.view.hosts.get(host).cloned().ok_or_else(|| not_found("host", host))?;
        let pending = self.view.pending.get(host).filter(|pending| !pending.is_settled()).cloned();
        let pending = pending.ok_or_else(|| not_found("password change of host", host))?;
        if is_open(&self.view, &pending) {
            return Err(Rejection::PasswordChanging { host: host.clone(), operation: pending.operation });
        }
        if in_force == InForce::Neither {
            return Err(Rejection::Invalid { field: "in_force", text: "say new or old; if neither works, set a password".into() });
        }
        self.settle_password(&row, &pending, None, (in_force, now.wall), now);
        Ok(Answer::Done { created: false })
    }

    fn settle_password(
        &mut self,
        host: &HostRow,
        pending: &PendingPasswordRow,
        report: Option<String>,
        told: (InForce, Timestamp),
        now: Now,
    ) {
        let (in_force, at) = told;
        let what = HistoryWhat::PasswordChange { operation_id: pending.operation, in_force };
        self.history(&host.id, report, at, what, now);
        match in_force {
            InForce::New => self.adopt(host, pending, now),
            InForce::Old | InForce::Neither => self.keep_pending(PendingPasswordRow { told: Some(told), ..pending.clone() }),
        }
        self.settle_alerts(host, at, now);
    }

    /// The new password is the host's from now on; one that inherited its login has one of its own.
    fn adopt(&mut self, host: &HostRow, pending: &PendingPasswordRow, now: Now) {
        let before = super::refusal(&self.view, host);
        self.edit_host(&host.id, |row| {
            if let Some(bmc) = &mut row.bmc {
                bmc.username = Some(pending.username.clone());
                bmc.password = Some(pending.password.clone());
                // As the agent has it, unless other settings changed meanwhile.
                let as_reserved = bmc.revision == pending.base_revision;
                bmc.revision = if as_reserved { pending.revision } else { bmc.revision.max(pending.revision) + 1 };
            }
        });
        self.forget_pending(&host.id);
        self.touch(host);
        self.settle_host(&host.id, before, now);
    }

    /// After a change of a host's settings: a password set by hand, or another BMC, ends what was pending.
    pub(super) fn settle_pending(&mut self, host: &HostId, is_new_password: bool) {
        let (Some(pending), Some(row)) = (self.view.pending.get(host), self.view.hosts.get(host)) else { return };
        if is_new_password || is_elsewhere(row, pending) {
            self.forget_pending(host);
        }
    }

    /// The revision grew: to the agent that ends a change, so what it may yet say of one that was settled is past.
    pub(super) fn forget_settled(&mut self, host: &HostId) {
        if self.view.pending.get(host).is_some_and(|pending| pending.is_settled()) {
            self.forget_pending(host);
        }
    }

    pub(super) fn forget_pending(&mut self, host: &HostId) {
        if self.view.pending.remove(host).is_some() {
            self.draft.records.push(Record::Remove(RowKey::Pending(host.clone())));
        }
    }

    pub(super) fn keep_pending(&mut self, row: PendingPasswordRow) {
        self.draft.put(Row::Pending(row.clone()));
        self.view.pending.insert(row.host.clone(), Arc::new(row));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use picket_common::api::Field;
    use picket_common::command::{BmcError, ErrorClass};
    use picket_common::seal::{Sealed, SealingKey};
    use picket_common::wire::assign::{Assign, BmcAssignment};
    use picket_common::wire::down::Command;
    use picket_common::wire::report::{Progress, Report, Reports};
    use proptest::prelude::*;

    use super::super::json::host_json;
    use super::super::request::{BmcChange, ClusterChange, DefaultsChange, Gate, GivenShared, HostChange, HostSpec};
    use super::super::testing::*;
    use super::super::view::{SealedPassword, SharedPassword};
    use super::super::{Request, reseal};
    use super::*;

    fn new(byte: u8) -> Given {
        let password = SealedPassword { agent: Sealed(vec![byte]), recovery: Sealed(vec![byte, 0]), ..sealed(1) };
        Given { password, ..given(1, "10.0.0.1", "admin") }
    }

    fn change(world: &mut World, n: u128, given: Given) -> Result<Answer, Rejection> {
        let (id, host) = (operation(n), id("h1"));
        world.ask(Request::ChangePassword { id, host, password: given, timeout: None, reason: None })
    }

    /// A host with a login of its own.
    fn ready() -> World {
        let mut world = World::running(1);
        world.ask(Request::PutHost(id("h1"), spec("c1", "r1", Some(with_login("10.0.0.1", 1))))).unwrap();
        world
    }

    fn told(world: &World, n: u128, in_force: InForce) -> Report {
        let revision = world.host("h1").bmc.map_or(0, |bmc| bmc.revision);
        Report::Password(PasswordReport {
            host: id("h1"),
            operation: operation(n),
            revision,
            observed_at: world.wire_now(),
            in_force,
        })
    }

    fn commands(world: &World) -> Vec<ChangePassword> {
        let change = |command| match command {
            Command::ChangePassword(change) => Some(change),
            _ => None,
        };
        world.commands().into_iter().filter_map(change).collect()
    }

    fn password(world: &World) -> Vec<u8> {
        world.host("h1").bmc.unwrap().password.unwrap().agent.0
    }

    fn state(world: &World) -> Option<PasswordChangeState> {
        password_change(&world.fleet.view(), &id("h1")).map(|change| change.state)
    }

    fn outcome(world: &World, n: u128) -> Option<Outcome> {
        world.part(n, "h1").outcome
    }

    fn patch(world: &mut World, edit: impl FnOnce(&mut BmcChange)) -> Result<Answer, Rejection> {
        let mut bmc = BmcChange::default();
        edit(&mut bmc);
        world.ask(Request::PatchHost(id("h1"), HostChange { bmc: Field::Set(bmc), ..HostChange::default() }))
    }

    fn is_changing(answer: Result<Answer, Rejection>) -> bool {
        matches!(answer, Err(Rejection::PasswordChanging { .. }))
    }

    const FAILED: fn() -> Outcome =
        || Outcome::Failed(BmcError { driver: "ipmi".into(), class: ErrorClass::Refused, code: "0x80".into(), text: "no".into() });

    #[test]
    fn from_asking_to_the_new_one() {
        let mut world = ready();
        let (before, old) = (world.host("h1").bmc.unwrap().revision, password(&world));
        assert!(matches!(change(&mut world, 1, new(7)), Ok(Answer::Accepted(_))));
        let sent = commands(&world);
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].password.clone(), sent[0].base_revision, sent[0].revision), (Sealed(vec![7]), before, before + 1));
        assert_eq!((state(&world), password(&world)), (Some(PasswordChangeState::Open), old));
        world.report("r1", vec![told(&world, 1, InForce::New), world.progress(1, "h1", Progress::Done(Outcome::Changed))]);
        let bmc = world.host("h1").bmc.unwrap();
        assert_eq!((bmc.revision, bmc.password.unwrap().agent.0, bmc.username.as_deref()), (before + 1, vec![7], Some("admin")));
        let assigns = world.assigns("r1");
        let [Assign::Delta(delta)] = &assigns[..] else { panic!("{assigns:?}") };
        let assigned = delta.upsert[0].bmc.clone().unwrap();
        assert_eq!((assigned.revision, assigned.password), (before + 1, Some(Sealed(vec![7]))), "the bytes that were sent");
        assert_eq!((state(&world), outcome(&world, 1)), (None, Some(Outcome::Changed)));
        let lines = world.history_of("h1");
        let line = HistoryWhat::PasswordChange { operation_id: operation(1), in_force: InForce::New };
        assert_eq!(lines.iter().filter(|what| **what == line).count(), 1);
        world.report("r1", vec![told(&world, 1, InForce::New), told(&world, 1, InForce::Old)]);
        assert_eq!((world.host("h1").bmc.unwrap().revision, password(&world)), (before + 1, vec![7]), "said again, and too late");
    }

    #[test]
    fn refusals() {
        let bare = || spec("c1", "r1", Some(ipmi("10.0.0.1")));
        let null = || {
            let driver = Field::Set("null".to_owned());
            HostSpec { bmc: Some(BmcChange { driver, ..with_login("10.0.0.1", 1) }), ..bare() }
        };
        let refused = |refusal| Rejection::Refused(refusal);
        let ask = |prepare: &dyn Fn(&mut World), given: Given| {
            let mut world = ready();
            prepare(&mut world);
            change(&mut world, 1, given).unwrap_err()
        };
        let nothing = |_: &mut World| {};
        assert_eq!(ask(&|world| world.enable("h1", false), new(7)), refused(Refusal::HostDisabled));
        let without = |world: &mut World| {
            patch(world, |bmc| bmc.password = Field::Unset).unwrap();
        };
        assert_eq!(ask(&without, new(7)), refused(Refusal::PasswordNeeded), "there is no old one to log in with");
        let by_null = |world: &mut World| drop(world.ask(Request::PutHost(id("h1"), null())).unwrap());
        assert_eq!(ask(&by_null, new(7)), refused(Refusal::NotSupported));
        for stale in [given(1, "10.0.0.2", "admin"), given(1, "10.0.0.1", "root"), given(2, "10.0.0.1", "admin")] {
            assert!(matches!(ask(&nothing, stale), Rejection::PasswordNeededAgain(_)));
        }
        let mut world = ready();
        world.ask(Request::DeleteHost(id("h1"))).unwrap();
        assert!(matches!(change(&mut world, 1, new(7)), Err(Rejection::NotFound { kind: "host", .. })));
    }

    #[test]
    fn nothing_else_of_the_bmc_changes_meanwhile() {
        let mut world = ready();
        world.ground("z1", "c1", "r2");
        change(&mut world, 1, new(7)).unwrap();
        assert!(is_changing(change(&mut world, 2, new(8))), "two never overlap");
        assert!(is_changing(patch(&mut world, |bmc| bmc.port = Field::Set(7))));
        assert!(is_changing(patch(&mut world, |bmc| bmc.password = Field::Set(new(9)))));
        let elsewhere = HostChange { rack: Some(id("r2")), ..HostChange::default() };
        assert!(world.ask(Request::PatchHost(id("h1"), elsewhere)).is_err());
        let bmc = Field::Set(DefaultsChange { port: Field::Set(7), ..DefaultsChange::default() });
        let defaults = || Request::PatchCluster(id("c1"), ClusterChange { bmc: bmc.clone(), ..ClusterChange::default() });
        assert!(is_changing(world.ask(defaults())), "nor through its cluster");
        let maintenance = HostChange { maintenance: Some(true), ..HostChange::default() };
        world.ask(Request::PatchHost(id("h1"), maintenance)).unwrap();
        world.report("r1", vec![told(&world, 1, InForce::Old), world.progress(1, "h1", Progress::Done(FAILED()))]);
        world.ask(defaults()).unwrap();
        patch(&mut world, |bmc| bmc.port = Field::Set(8)).unwrap();
    }

    #[test]
    fn what_was_never_begun_leaves_nothing() {
        let gate = |world: &mut World| drop(world.ask(Request::SetOobm(Gate::Cluster(id("c1")), false)).unwrap());
        let cancel = |world: &mut World| drop(world.ask(Request::CancelOperation(operation(1))).unwrap());
        let expire = |world: &mut World| world.pass(61);
        let other_agent = |world: &mut World| {
            world.join("r1", "r1", 2);
            world.hello("r1", 2, 1);
        };
        type End<'a> = (&'a str, &'a dyn Fn(&mut World));
        let ends: [End<'_>; 4] = [("gate", &gate), ("cancel", &cancel), ("expire", &expire), ("other agent", &other_agent)];
        for (name, end) in ends {
            let mut world = ready();
            world.gone("r1", 1);
            change(&mut world, 1, new(7)).unwrap();
            assert_eq!(commands(&world), [], "{name}");
            end(&mut world);
            assert_eq!((state(&world), commands(&world)), (None, vec![]), "{name}");
            assert_eq!(world.part(1, "h1").state, OperationState::Done, "{name}");
        }
        let mut world = ready();
        change(&mut world, 1, new(7)).unwrap();
        world.report("r1", vec![world.progress(1, "h1", Progress::Done(Outcome::Refused(Refusal::Busy)))]);
        assert_eq!(state(&world), None, "the agent never began it");
        change(&mut world, 2, new(8)).unwrap();
    }

    #[test]
    fn the_same_bytes_are_sent_again_after_a_crash() {
        let mut world = ready();
        change(&mut world, 1, new(7)).unwrap();
        let sent = commands(&world);
        world.restart();
        world.hello("r1", 2, 1);
        let again = commands(&world);
        let same =
            |change: &ChangePassword| (change.password.clone(), change.base_revision, change.revision, change.command.deadline);
        assert_eq!(again.iter().map(same).collect::<Vec<_>>(), sent.iter().map(same).collect::<Vec<_>>());
        world.report("r1", vec![told(&world, 1, InForce::New)]);
        world.restart();
        assert_eq!((password(&world), state(&world)), (vec![7], None));
    }

    #[test]
    fn an_end_that_nobody_knows_waits_for_a_report_or_a_person() {
        let unresolved = || {
            let mut world = ready();
            change(&mut world, 1, new(7)).unwrap();
            world.pass(200);
            assert!(matches!(outcome(&world, 1), Some(Outcome::Unknown(_))));
            assert_eq!(state(&world), Some(PasswordChangeState::Unresolved));
            world
        };
        let resolve = |world: &mut World, in_force| world.ask(Request::ResolvePassword { host: id("h1"), in_force });
        let mut world = unresolved();
        assert!(is_changing(patch(&mut world, |bmc| bmc.port = Field::Set(7))), "it would end the change at the agent");
        world.hello("r1", 2, 1);
        world.report("r1", vec![told(&world, 1, InForce::New)]);
        assert_eq!((password(&world), state(&world)), (vec![7], None), "long after the operation");

        let mut world = unresolved();
        world.hello("r1", 2, 1);
        world.report("r1", vec![told(&world, 1, InForce::Neither), told(&world, 1, InForce::Neither)]);
        assert_eq!(state(&world), Some(PasswordChangeState::Neither));
        let view = world.fleet.view();
        let error = host_json(&view, &world.host("h1")).error.unwrap();
        assert!(error.code == "password-change" && error.text.contains("neither"), "{error}");
        let revision = world.host("h1").bmc.unwrap().revision;
        patch(&mut world, |bmc| bmc.password = Field::Set(new(9))).unwrap();
        assert_eq!((password(&world), state(&world)), (vec![9], None), "a password set by hand ends it");
        assert!(world.host("h1").bmc.unwrap().revision > revision + 1, "above the reserved one");

        let mut world = unresolved();
        assert!(matches!(resolve(&mut world, InForce::Neither), Err(Rejection::Invalid { .. })));
        resolve(&mut world, InForce::New).unwrap();
        assert_eq!((password(&world), state(&world)), (vec![7], None));
        assert!(matches!(resolve(&mut world, InForce::New), Err(Rejection::NotFound { .. })));
        let mut world = unresolved();
        resolve(&mut world, InForce::Old).unwrap();
        assert_eq!((password(&world), state(&world)), (vec![1; 40], None));
        let mut world = ready();
        change(&mut world, 1, new(7)).unwrap();
        assert!(is_changing(resolve(&mut world, InForce::New)), "it goes on");
    }

    #[test]
    fn a_slow_bmc_may_yet_take_the_new_one() {
        let settled = || {
            let mut world = ready();
            change(&mut world, 1, new(7)).unwrap();
            world.report("r1", vec![told(&world, 1, InForce::Old), world.progress(1, "h1", Progress::Done(FAILED()))]);
            assert_eq!((password(&world), state(&world)), (vec![1; 40], None), "the old one works");
            world
        };
        let mut world = settled();
        world.pass(1800);
        world.hello("r1", 2, 1);
        world.report("r1", vec![told(&world, 1, InForce::New)]);
        assert_eq!(password(&world), vec![7]);
        let mut world = settled();
        patch(&mut world, |bmc| bmc.port = Field::Set(7)).unwrap();
        world.report("r1", vec![told(&world, 1, InForce::New)]);
        assert_eq!(password(&world), vec![1; 40], "other settings ended it at the agent");
        let mut world = settled();
        change(&mut world, 2, new(8)).unwrap();
        world.report("r1", vec![told(&world, 1, InForce::New), told(&world, 2, InForce::New)]);
        assert_eq!(password(&world), vec![8], "another change takes its place");
    }

    #[test]
    fn a_host_that_inherits_gets_a_login_of_its_own() {
        let mut world = World::running(2);
        let shared = SharedPassword { copies: vec![(SealingKey([1; 32]), Sealed(vec![3]))], recovery: Sealed(vec![3, 0]) };
        let login = |byte: u8| {
            let password = SharedPassword { copies: vec![(SealingKey([1; 32]), Sealed(vec![byte]))], ..shared.clone() };
            let given = GivenShared { username: "root".into(), password };
            let bmc =
                DefaultsChange { username: Field::Set("root".into()), password: Field::Set(given), ..DefaultsChange::default() };
            Request::PatchCluster(id("c1"), ClusterChange { bmc: Field::Set(bmc), ..ClusterChange::default() })
        };
        world.ask(login(3)).unwrap();
        let mine = Given { username: "root".into(), ..new(7) };
        change(&mut world, 1, mine).unwrap();
        world.report("r1", vec![told(&world, 1, InForce::New), world.progress(1, "h1", Progress::Done(Outcome::Changed))]);
        let bmc = world.host("h1").bmc.unwrap();
        assert_eq!((bmc.username.as_deref(), bmc.password.unwrap().agent.0), (Some("root"), vec![7]));
        let revision = |world: &World, host: &str| world.host(host).bmc.unwrap().revision;
        let before = (revision(&world, "h1"), revision(&world, "h2"));
        world.ask(login(4)).unwrap();
        assert_eq!((revision(&world, "h1"), revision(&world, "h2")), (before.0, before.1 + 1), "the cluster's is not its own now");
    }

    #[test]
    fn an_agent_that_was_replaced_gets_what_was_sealed_anew() {
        let mut world = ready();
        change(&mut world, 1, new(7)).unwrap();
        world.join("r1", "r1", 2);
        world.hello("r1", 2, 2);
        assert_eq!(state(&world), Some(PasswordChangeState::Unresolved), "its old journal alone knew");
        let view = world.fleet.view();
        let secrets = reseal::secrets(&view, &id("r1"), |sealed| sealed.0.len().to_string());
        assert_eq!(
            secrets.iter().map(|item| (item.recovery.as_str(), item.sealed)).collect::<Vec<_>>(),
            [("40", false), ("2", false)]
        );
        let items = |agent: u8| {
            let recovery = [Sealed(vec![0; 40]), Sealed(vec![7, 0])];
            let owners = secrets.iter().map(|item| item.belongs.clone());
            let item = |(belongs, recovery)| super::super::request::Reseal { belongs, recovery, agent: Sealed(vec![agent]) };
            owners.zip(recovery).map(item).collect::<Vec<_>>()
        };
        let ask = |world: &mut World, key: u8, items| world.ask(Request::Reseal(id("r1"), SealingKey([key; 32]), items));
        assert!(matches!(ask(&mut world, 1, items(5)), Err(Rejection::Invalid { field: "sealing_key", .. })), "the agent before");
        let before = world.host("h1").bmc.unwrap().revision;
        assert!(matches!(ask(&mut world, 2, items(5)), Ok(Answer::Resealed { resealed: 2, skipped: 0 })));
        let bmc = world.host("h1").bmc.unwrap();
        assert_eq!((bmc.password.unwrap().agent.0, super::super::refusal(&world.fleet.view(), &world.host("h1"))), (vec![5], None));
        assert!(bmc.revision > before, "the agent must take it for news");
        world.ask(Request::ResolvePassword { host: id("h1"), in_force: InForce::New }).unwrap();
        assert_eq!(password(&world), vec![5]);
        patch(&mut world, |bmc| bmc.password = Field::Set(Given { password: sealed(2), ..new(9) })).unwrap();
        assert!(matches!(ask(&mut world, 2, items(6)), Ok(Answer::Resealed { resealed: 1, skipped: 1 })), "the rest was changed");
    }

    /// What is on its way to the agent.
    #[derive(Debug, Clone)]
    enum Word {
        Change(ChangePassword),
        Settings(BmcAssignment),
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Ask,
        Hear,
        Lose,
        /// The agent sends the new password; the BMC takes it or not.
        Set(bool),
        Report,
        LoseReport,
        Kill,
        Hello,
    }

    /// An agent's journal and its BMC, as far as passwords are concerned.
    struct Rack {
        bmc: Vec<u8>,
        assignment: BmcAssignment,
        change: Option<ChangePassword>,
        seen: Vec<OperationId>,
        wire: VecDeque<Word>,
        outbox: Vec<Report>,
        first: u64,
        sessions: u128,
        asked: u8,
    }

    impl Rack {
        fn take(&mut self, world: &mut World, step: Step) {
            match step {
                Step::Ask => {
                    self.asked += 1;
                    drop(change(world, u128::from(self.asked), new(self.asked)));
                }
                Step::Hear => {
                    if let Some(word) = self.wire.pop_front() {
                        self.hear(world, word);
                    }
                    return;
                }
                Step::Lose => drop(self.wire.pop_front()),
                Step::Set(takes) => return self.set(world, takes),
                Step::Report => self.report(world),
                Step::LoseReport => {}
                Step::Kill => {
                    world.restart();
                    world.apply(super::super::Event::Tick);
                    self.wire.clear();
                    return;
                }
                Step::Hello => {
                    self.sessions += 1;
                    world.hello_with("r1", self.sessions, 1, self.first + self.outbox.len() as u64, None);
                }
            }
            self.listen(world);
        }

        fn listen(&mut self, world: &World) {
            self.wire.extend(commands(world).into_iter().map(Word::Change));
            for assign in world.assigns("r1") {
                let hosts = match assign {
                    Assign::Part(part) => part.hosts,
                    Assign::Delta(delta) => delta.upsert,
                    Assign::Settings(_) | Assign::Ha(_) | Assign::Surroundings(_) => continue,
                };
                self.wire.extend(hosts.into_iter().filter_map(|host| host.bmc).map(Word::Settings));
            }
        }

        fn hear(&mut self, world: &World, word: Word) {
            match word {
                Word::Settings(bmc) => {
                    if self.change.as_ref().is_some_and(|change| bmc.revision > change.base_revision) {
                        self.change = None;
                    }
                    self.assignment = bmc;
                }
                Word::Change(change) if self.seen.contains(&change.command.operation) => {}
                Word::Change(change) => {
                    self.seen.push(change.command.operation);
                    if change.base_revision == self.assignment.revision && self.change.is_none() {
                        self.change = Some(change);
                    } else {
                        let n = change.command.operation.0.as_u128();
                        self.outbox.push(world.progress(n, "h1", Progress::Done(Outcome::Refused(Refusal::Busy))));
                    }
                }
            }
        }

        fn set(&mut self, world: &World, takes: bool) {
            let Some(change) = self.change.take() else { return };
            let n = change.command.operation.0.as_u128();
            if takes {
                self.bmc.clone_from(&change.password.0);
            }
            self.outbox.push(told(world, n, if takes { InForce::New } else { InForce::Old }));
            self.outbox.push(world.progress(n, "h1", Progress::Done(if takes { Outcome::Changed } else { FAILED() })));
        }

        fn report(&mut self, world: &mut World) {
            let (first, reports) = (self.first, self.outbox.clone());
            if !reports.is_empty() {
                world.batch("r1", Reports { boot: journal(1), oldest: first, first, reports });
                let acked = world.fleet.view().agents.values().next().unwrap().acked;
                let known = usize::try_from(acked + 1 - self.first).unwrap().min(self.outbox.len());
                self.outbox.drain(..known);
                self.first = acked + 1;
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Ask),
            4 => Just(Step::Hear),
            1 => Just(Step::Lose),
            3 => any::<bool>().prop_map(Step::Set),
            2 => Just(Step::Report),
            1 => Just(Step::LoseReport),
            2 => Just(Step::Kill),
            3 => Just(Step::Hello),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// Killed at any point, with words lost in both directions: in the end both ends have the password that works.
        #[test]
        fn both_ends_come_to_the_password_that_works(steps in proptest::collection::vec(step(), 0..60)) {
            let mut world = ready();
            let assigned = super::super::assign::host_assignment(&world.fleet.view(), &world.host("h1")).bmc.unwrap();
            let mut rack = Rack {
                bmc: vec![1; 40],
                assignment: assigned,
                change: None,
                seen: Vec::new(),
                wire: VecDeque::new(),
                outbox: Vec::new(),
                first: 1,
                sessions: 1,
                asked: 0,
            };
            for step in steps {
                rack.take(&mut world, step);
            }
            for _ in 0..4 {
                rack.take(&mut world, Step::Hello);
                while !rack.wire.is_empty() {
                    rack.take(&mut world, Step::Hear);
                }
                rack.take(&mut world, Step::Set(true));
                rack.take(&mut world, Step::Report);
            }
            prop_assert!(rack.outbox.is_empty() && rack.change.is_none());
            prop_assert_eq!(&password(&world), &rack.bmc, "the centre");
            prop_assert_eq!(&rack.assignment.password.as_ref().unwrap().0, &rack.bmc, "the agent's assignment");
            prop_assert_eq!(state(&world), None);
            prop_assert!(change(&mut world, 200, new(200)).is_ok(), "and the next one can begin");
        }
    }
}
