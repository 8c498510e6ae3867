//! Agents as they come and go: presence, connections, and what has to be said when one is back. Lost never means "host off".

use std::sync::Arc;
use std::time::Duration;

use picket_common::clock::Now;
use picket_common::id::{AgentId, HostId};
use picket_common::power::{Cause, PowerState};
use picket_common::wire::down::Reply;
use picket_common::wire::report::{Gone, Heartbeat, Hello, MAX_OVERDUE, Up};
use picket_common::wire::{Generation, Incarnation, Session};

use super::ha::{ToldAround, ToldHa};
use super::view::{AgentRow, Presence};
use super::{Fleet, Heard, Timer};

/// An agent that says nothing for this long is lost: three heartbeats of 5 s.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(15);
/// Not more than one request to send again in this time.
const RESEND_PAUSE: Duration = Duration::from_secs(1);
/// Reports that a heartbeat speaks of are asked for when none has come for this long.
const REPORTS_LATE: Duration = Duration::from_secs(5);
/// Not more than one assignment sent again in this time.
const ASSIGN_PAUSE: Duration = Duration::from_secs(2);
/// Journals remembered per agent; more would let one that makes a new one at each start fill the store.
const MAX_EARLIER: usize = 8;

/// What is remembered of an agent's connection, in memory only.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The connection; none = nothing said now would reach it.
    pub(super) session: Option<Session>,
    /// The connection whose will was told.
    gone: Option<Session>,
    /// The assignment it was last sent, or says it holds.
    pub(super) told: Option<Generation>,
    /// When an assignment was last sent.
    pub(super) told_at: Option<Duration>,
    resend_at: Option<Duration>,
    /// What it was told of host-HA in this connection.
    pub(super) told_ha: Option<ToldHa>,
    /// What it was told of what goes on around its hosts.
    pub(super) told_around: Option<ToldAround>,
    /// When reports last came.
    pub(super) reports_at: Option<Duration>,
    /// Sequence up to which reports must have come before its hosts are fresh again.
    catch_up: u64,
    /// Whether a presence timer is set.
    armed: bool,
    /// Whether the process before this one left fresh hosts of it: if it stays away, that it is lost is news.
    was_fresh: bool,
}

fn passed(since: Option<Duration>, pause: Duration, now: Now) -> bool {
    since.is_none_or(|since| now.boottime.saturating_sub(since) >= pause)
}

impl Fleet {
    pub(super) fn heard(&mut self, agent: &AgentId, heard: Heard, now: Now) {
        if !self.view.agents.contains_key(agent) {
            self.counters.unknown_agent += 1;
            return;
        }
        match heard {
            Heard::Hello(hello) => self.hello(agent, hello, now),
            Heard::Up(Up::Heartbeat(heartbeat)) => self.heartbeat(agent, heartbeat, now),
            Heard::Up(Up::Reports(reports)) => self.reports(agent, reports, now),
            Heard::Gone(gone) => self.gone(agent, &gone, now),
        }
    }

    fn hello(&mut self, agent: &AgentId, hello: Hello, now: Now) {
        let is_new = self.adopt_journal(agent, hello.boot, now);
        self.edit_presence(agent, |presence| presence.version = Some(hello.version));
        self.draft.reply(agent, Reply::Clock { nonce: hello.nonce, at: now.wall.into() });
        self.check_journal(agent, hello.session, hello.next, now);
        let acked = self.acked(agent);
        let boot = hello.boot;
        if is_new || hello.oldest > acked + 1 {
            // What it has no more, it answers with how all its hosts are now.
            self.resend(agent, boot, acked + 1);
        } else {
            self.draft.reply(agent, Reply::Ack { boot, up_to: acked });
        }
        self.connect(agent, hello.session, hello.generation, hello.next, now);
        if self.is_behind(agent) {
            self.tell_whole_assignment(agent, now);
        }
    }

    fn heartbeat(&mut self, agent: &AgentId, heartbeat: Heartbeat, now: Now) {
        let link = self.links.entry(agent.clone()).or_default();
        if link.session != Some(heartbeat.session) {
            let taken = link.session.is_some() && self.view.presence.get(agent).is_some_and(|presence| presence.connected);
            if taken || link.gone == Some(heartbeat.session) {
                self.counters.old_session += 1;
                return;
            }
        }
        self.adopt_journal(agent, heartbeat.boot, now);
        self.draft.reply(agent, Reply::Clock { nonce: heartbeat.nonce, at: now.wall.into() });
        self.note_overdue(agent, &heartbeat);
        if self.is_connected(agent, heartbeat.session) {
            self.seen(agent, now);
            self.edit_presence(agent, |presence| presence.vouched_at = Some(now.wall));
            self.note_generation(agent, heartbeat.generation);
        } else {
            // The first word of a connection whose hello was lost with an earlier aggregator process.
            self.check_journal(agent, heartbeat.session, heartbeat.next, now);
            self.connect(agent, heartbeat.session, heartbeat.generation, heartbeat.next, now);
        }
        self.edit_presence(agent, |presence| presence.outbox = heartbeat.outbox);
        self.mend(agent, &heartbeat, now);
    }

    /// Sends again what the heartbeat shows to be missing at either end.
    fn mend(&mut self, agent: &AgentId, heartbeat: &Heartbeat, now: Now) {
        let Some(link) = self.links.get(agent) else { return };
        let assign = passed(link.told_at, ASSIGN_PAUSE, now);
        let late = passed(link.reports_at, REPORTS_LATE, now);
        if assign && self.is_behind(agent) {
            self.tell_whole_assignment(agent, now);
        }
        let acked = self.acked(agent);
        if late && heartbeat.next.saturating_sub(1) > acked {
            self.ask_again(agent, heartbeat.boot, acked + 1, now);
        }
    }

    fn gone(&mut self, agent: &AgentId, gone: &Gone, now: Now) {
        let link = self.links.entry(agent.clone()).or_default();
        if link.session != Some(gone.session) {
            self.counters.old_session += 1;
            return;
        }
        link.gone = Some(gone.session);
        self.lose(agent, now);
    }

    /// Nothing said now reaches the agent; whether it is lost, time will tell.
    pub(super) fn disconnected(&mut self, agent: &AgentId) {
        if let Some(link) = self.links.get_mut(agent) {
            link.session = None;
            self.edit_presence(agent, |presence| presence.session = None);
        }
    }

    fn is_connected(&self, agent: &AgentId, session: Session) -> bool {
        let is_heard = self.view.presence.get(agent).is_some_and(|presence| presence.connected);
        is_heard && self.links.get(agent).is_some_and(|link| link.session == Some(session))
    }

    /// A connection begins: the agent is heard, and is told what waits for it.
    fn connect(&mut self, agent: &AgentId, session: Session, generation: Option<Generation>, next: u64, now: Now) {
        let link = self.links.entry(agent.clone()).or_default();
        link.session = Some(session);
        link.gone = None;
        link.was_fresh = false;
        link.told = generation;
        link.told_ha = None;
        link.told_around = None;
        link.catch_up = next.saturating_sub(1);
        // Give the agent time to send what it has before asking for it.
        link.reports_at = Some(now.boottime);
        let was_connected = self.view.presence.get(agent).is_some_and(|presence| presence.connected);
        self.edit_presence(agent, |presence| {
            presence.session = Some(session);
            presence.connected = true;
            presence.caught_up = false;
            presence.generation = generation;
            presence.vouched_at = Some(now.wall);
        });
        self.seen(agent, now);
        if !was_connected {
            self.presence_event(agent, true, Some(session), now);
        }
        self.draft.presence.insert(agent.clone());
        let caught_up = self.acked(agent) >= next.saturating_sub(1);
        self.edit_presence(agent, |presence| presence.caught_up = caught_up);
        self.restale_all(agent);
        self.tell_settings(agent);
        self.draft.ha.insert(agent.clone());
        self.settle_agent_alert(agent, false, now);
        self.redispatch(agent, now);
    }

    /// The agent was heard: its time starts anew.
    pub(super) fn seen(&mut self, agent: &AgentId, now: Now) {
        self.edit_presence(agent, |presence| {
            presence.last_seen = Some(now.wall);
            presence.last_seen_boottime = now.boottime;
        });
        self.arm_presence(agent, now.boottime + LOST_AFTER);
    }

    pub(super) fn arm_presence(&mut self, agent: &AgentId, at: Duration) {
        let link = self.links.entry(agent.clone()).or_default();
        if !link.armed {
            link.armed = true;
            self.arm(at, Timer::Presence(agent.clone()));
        }
    }

    /// The presence timer: moves on if the agent was heard meanwhile, else the agent is lost.
    pub(super) fn look_for(&mut self, agent: &AgentId, now: Now) {
        let Some(link) = self.links.get_mut(agent) else { return };
        link.armed = false;
        let presence = self.view.presence.get(agent).filter(|presence| presence.connected);
        match presence.map(|presence| presence.last_seen_boottime + LOST_AFTER) {
            Some(due) if due > now.boottime => self.arm_presence(agent, due),
            _ => {
                self.lose(agent, now);
                self.settle_agent_alert(agent, true, now);
            }
        }
    }

    /// A process begins: nobody vouches for the agent's hosts until it is heard, and it gets its time for that.
    pub(super) fn await_agent(&mut self, agent: &AgentId, now: Now) {
        let flipped = self.restale_all(agent);
        self.links.entry(agent.clone()).or_default().was_fresh = flipped;
        self.arm_presence(agent, now.boottime + LOST_AFTER);
    }

    fn lose(&mut self, agent: &AgentId, now: Now) {
        let was_connected = self.view.presence.get(agent).is_some_and(|presence| presence.connected);
        let link = self.links.entry(agent.clone()).or_default();
        let session = link.session.take();
        let was_fresh = std::mem::take(&mut link.was_fresh);
        self.edit_presence(agent, |presence| {
            presence.connected = false;
            presence.caught_up = false;
            presence.session = None;
        });
        self.draft.presence.insert(agent.clone());
        self.restale_all(agent);
        if was_connected || was_fresh {
            self.presence_event(agent, false, session, now);
        }
    }

    /// Notes which hosts are overdue, of those the agent is in charge of.
    fn note_overdue(&mut self, agent: &AgentId, heartbeat: &Heartbeat) {
        let mine = self.view.hosts_of(agent);
        let before = self.view.presence.get(agent).map(|presence| presence.overdue.clone()).unwrap_or_default();
        let named: imbl::OrdSet<HostId> = heartbeat.overdue.iter().filter(|host| mine.contains(*host)).cloned().collect();
        // A full list was cut: who was overdue and is not named now may have been cut off.
        let overdue = if heartbeat.overdue.len() >= MAX_OVERDUE { named.union(before.clone()) } else { named };
        if overdue == before {
            return;
        }
        self.edit_presence(agent, |presence| {
            let vouched = presence.vouched_at;
            presence.overdue_vouched = overdue
                .iter()
                .filter_map(|host| {
                    let known = presence.overdue_vouched.get(host).copied();
                    let at = if before.contains(host) { known } else { vouched };
                    at.map(|at| (host.clone(), at))
                })
                .collect();
            presence.overdue = overdue.clone();
        });
        for host in before.union(overdue).iter() {
            self.restale(host);
        }
    }

    fn note_generation(&mut self, agent: &AgentId, generation: Option<Generation>) {
        let before = self.view.presence.get(agent).and_then(|presence| presence.generation);
        if before != generation {
            self.edit_presence(agent, |presence| presence.generation = generation);
            self.draft.presence.insert(agent.clone());
        }
    }

    /// Reports arrived: once all that was outstanding at the connection is here, the hosts are fresh.
    pub(super) fn note_caught_up(&mut self, agent: &AgentId) {
        let acked = self.acked(agent);
        let Some(link) = self.links.get(agent) else { return };
        let waiting = self.view.presence.get(agent).is_some_and(|presence| presence.connected && !presence.caught_up);
        if waiting && acked >= link.catch_up {
            self.edit_presence(agent, |presence| presence.caught_up = true);
            self.restale_all(agent);
        }
    }

    /// Asks for reports from a sequence on, not more often than once a second.
    pub(super) fn ask_again(&mut self, agent: &AgentId, boot: Incarnation, from: u64, now: Now) {
        let link = self.links.entry(agent.clone()).or_default();
        if passed(link.resend_at, RESEND_PAUSE, now) {
            link.resend_at = Some(now.boottime);
            self.resend(agent, boot, from);
        }
    }

    /// Asks for reports from a sequence on. An agent that has them no more says how all its hosts are now.
    pub(super) fn resend(&mut self, agent: &AgentId, boot: Incarnation, from: u64) {
        self.counters.resend += 1;
        self.draft.reply(agent, Reply::Resend { boot, from });
    }

    pub(super) fn acked(&self, agent: &AgentId) -> u64 {
        self.view.agents.get(agent).map_or(0, |row| row.acked)
    }

    /// Whether the agent is not known to have been sent its present assignment.
    fn is_behind(&self, agent: &AgentId) -> bool {
        let wanted = self.view.agents.get(agent).map(|row| row.generation);
        let holds = self.view.presence.get(agent).and_then(|presence| presence.generation);
        wanted != holds
    }

    pub(super) fn edit_agent(&mut self, agent: &AgentId, edit: impl FnOnce(&mut AgentRow)) {
        if let Some(row) = self.view.agents.get_mut(agent) {
            edit(Arc::make_mut(row));
            self.draft.agents.insert(agent.clone());
        }
    }

    pub(super) fn edit_presence(&mut self, agent: &AgentId, edit: impl FnOnce(&mut Presence)) {
        let entry = self.view.presence.entry(agent.clone()).or_default();
        edit(Arc::make_mut(entry));
    }

    /// Makes `boot` the agent's journal; whether it was never seen before.
    ///
    /// An agent that comes with another journal does not know what the one before it reported, so it would not report a state
    /// that it believes to be unchanged: its hosts start anew at Unknown, under a new enablement.
    pub(super) fn adopt_journal(&mut self, agent: &AgentId, boot: Incarnation, now: Now) -> bool {
        let Some(row) = self.view.agents.get(agent) else { return false };
        let Some(before) = row.boot else {
            self.edit_agent(agent, |row| row.boot = Some(boot));
            return true;
        };
        if before == boot {
            return false;
        }
        let known = row.earlier.iter().find(|(earlier, _)| *earlier == boot).map(|(_, acked)| *acked);
        self.edit_agent(agent, |row| {
            row.earlier.retain(|(earlier, _)| *earlier != boot);
            row.earlier.push((before, row.acked));
            let surplus = row.earlier.len().saturating_sub(MAX_EARLIER);
            row.earlier.drain(..surplus);
            row.boot = Some(boot);
            row.acked = known.unwrap_or(0);
        });
        for host in self.view.hosts_of(agent).iter() {
            self.start_anew(host, now);
        }
        known.is_none()
    }

    /// A new connection whose next sequence was durable long ago: the agent's journal is an older copy of itself. What it reports
    /// from now on has new content under used sequences, and it no longer knows what it reported after the copy was made.
    fn check_journal(&mut self, agent: &AgentId, session: Session, next: u64, now: Now) {
        let acked = self.acked(agent);
        let is_new = self.links.get(agent).is_none_or(|link| link.session != Some(session));
        if !is_new || next == 0 || next > acked {
            return;
        }
        self.gap(agent, next, acked, now);
        self.edit_agent(agent, |row| {
            row.acked = next - 1;
            row.rolled_back += 1;
        });
        for host in self.view.hosts_of(agent).iter() {
            self.start_anew(host, now);
        }
    }

    /// Nobody vouches for the host's state any more: Unknown, under a new enablement, until its agent has read it.
    pub(super) fn start_anew(&mut self, host: &HostId, now: Now) {
        let Some(row) = self.view.hosts.get(host).cloned() else { return };
        if !super::enablement::is_open(super::refusal(&self.view, &row)) {
            return;
        }
        self.edit_host(host, |row| row.enablement += 1);
        self.touch(&row);
        self.set_power(&row, PowerState::Unknown, Cause::Poll, now);
    }
}

#[cfg(test)]
mod tests {
    use picket_common::wire::assign::Assign;

    use super::super::json::{agent_json, host_json};
    use super::super::testing::*;
    use super::*;

    fn presence(world: &World) -> Presence {
        (**world.fleet.view().presence.values().next().unwrap()).clone()
    }

    #[test]
    fn a_hello_is_answered() {
        let mut world = World::of(2);
        world.event_kinds();
        world.hello("r1", 1, 1);
        assert_eq!(world.replies(), [Reply::Clock { nonce: 5, at: world.wire_now() }, Reply::Resend { boot: journal(1), from: 1 }]);
        assert!(matches!(&world.assigns("r1")[..], [Assign::Part(part)] if part.hosts.len() == 2));
        assert_eq!(world.event_kinds(), ["io.picket.agent.connected.v1 r1"]);
        let generation = world.fleet.view().agents.values().next().unwrap().generation;
        world.hello_with("r1", 2, 1, 1, Some(generation));
        assert!(world.assigns("r1").is_empty(), "it has it");
        assert!(world.replies().contains(&Reply::Ack { boot: journal(1), up_to: 0 }));
        assert!(world.event_kinds().is_empty(), "it was not away");
        let json = agent_json(&world.fleet.view(), world.fleet.view().agents.values().next().unwrap());
        assert_eq!((json.connected, json.up_to_date, json.hosts, json.version.as_deref()), (true, true, 2, Some("0.1.0")));
    }

    #[test]
    fn a_heartbeat_mends() {
        let mut world = World::running(1);
        world.pass(3);
        world.heartbeat("r1", 1, &[], |heartbeat| heartbeat.generation = None);
        assert_eq!(world.assigns("r1").len(), 1, "an assignment was lost");
        world.pass(1);
        world.heartbeat("r1", 1, &[], |heartbeat| heartbeat.generation = None);
        assert!(world.assigns("r1").is_empty(), "not that fast");
        let has_resend = |world: &World| world.replies().contains(&Reply::Resend { boot: journal(1), from: 1 });
        world.heartbeat("r1", 1, &[], |heartbeat| heartbeat.next = 3);
        assert!(!has_resend(&world));
        world.pass(2);
        world.heartbeat("r1", 1, &[], |heartbeat| heartbeat.next = 3);
        assert!(has_resend(&world), "nothing came for five seconds");
        assert_eq!(world.replies().first(), Some(&Reply::Clock { nonce: 6, at: world.wire_now() }));
    }

    #[test]
    fn an_agent_that_has_reports_no_more_is_asked_how_its_hosts_are() {
        let mut world = World::running(1);
        world.report("r1", vec![world.power_report("h1", PowerState::On)]);
        let hello = |session_, oldest, next| {
            let (session, boot) = (session(session_), journal(1));
            Heard::Hello(Hello { session, boot, version: "0.1.0".into(), generation: None, oldest, next, nonce: 5 })
        };
        world.heard("r1", hello(2, 2, 2));
        assert_eq!(world.replies()[1..], [Reply::Ack { boot: journal(1), up_to: 1 }], "nothing is missing");
        world.heard("r1", hello(3, 4, 4));
        assert_eq!(
            world.replies()[1..],
            [Reply::Resend { boot: journal(1), from: 2 }],
            "2 and 3 are lost, and nothing follows them"
        );
        assert!(world.power("h1").stale);
    }

    #[test]
    fn a_journal_that_was_rolled_back_goes_on_from_where_it_is() {
        let mut world = World::running(1);
        let states = [PowerState::On, PowerState::Off, PowerState::On];
        world.report("r1", states.map(|state| world.power_report("h1", state)).to_vec());
        world.heartbeat("r1", 1, &[], |heartbeat| heartbeat.next = 2);
        assert_eq!(world.power("h1").power, PowerState::On, "a word overtaken by reports of the same connection");
        world.gone("r1", 1);
        world.hello_with("r1", 2, 1, 2, None);
        assert!(world.replies().contains(&Reply::Ack { boot: journal(1), up_to: 1 }), "{:?}", world.replies());
        assert_eq!(world.power("h1").power, PowerState::Unknown, "it does not know what it said");
        assert!(world.history_of("h1").contains(&picket_common::api::HistoryWhat::Gap { first: 2, last: 3 }));
        world.report("r1", vec![world.power_report("h1", PowerState::Off)]);
        assert_eq!(world.power("h1").power, PowerState::Off, "and its reports count again");
        assert_eq!(world.history.last().unwrap().1.id, Some(format!("r1:{}.1:2", journal(1))), "under ids never used");
        world.gone("r1", 2);
        world.heartbeat("r1", 3, &[], |heartbeat| heartbeat.next = 1);
        assert_eq!(world.fleet.view().agents.values().next().unwrap().acked, 0, "the same when the hello was not heard");
    }

    #[test]
    fn connections() {
        let mut world = World::running(1);
        world.heartbeat("r1", 9, &[], |_| {});
        assert!(world.effects.is_empty(), "an older or a cloned connection");
        assert_eq!(world.fleet.counters().old_session, 1);
        world.apply(super::super::Event::Disconnected(id("r1")));
        assert!(presence(&world).connected, "not lost yet");
        world.pass(14);
        assert!(!world.power("h1").stale);
        world.pass(1);
        assert!(!presence(&world).connected && world.power("h1").stale);
        world.heartbeat("r1", 2, &[], |_| {});
        assert!(presence(&world).connected && !world.power("h1").stale, "as good as a hello");
        world.gone("r1", 2);
        world.heartbeat("r1", 2, &[], |_| {});
        assert!(!presence(&world).connected, "a late word of a connection that is gone");
    }

    #[test]
    fn hosts_are_fresh_when_all_that_was_outstanding_has_come() {
        let mut world = World::running(1);
        world.gone("r1", 1);
        world.hello_with("r1", 2, 1, 3, None);
        assert!(world.power("h1").stale);
        world.report("r1", vec![world.power_report("h1", PowerState::On)]);
        assert!(world.power("h1").stale);
        world.report("r1", vec![world.power_report("h1", PowerState::Off)]);
        assert!(!world.power("h1").stale);
    }

    #[test]
    fn fresh_at_is_the_last_word_that_did_not_name_the_host() {
        let mut world = World::running(1);
        let vouched = world.now.wall;
        let fresh_at = |world: &World| {
            let view = world.fleet.view();
            host_json(&view, view.hosts.values().next().unwrap()).fresh_at
        };
        for _ in 0..2 {
            world.pass(5);
            world.heartbeat("r1", 1, &["h1"], |_| {});
            assert_eq!(fresh_at(&world), Some(vouched));
        }
        world.settle("r1", 1);
        assert_eq!(fresh_at(&world), Some(world.now.wall));
    }
}
