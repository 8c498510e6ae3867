//! A small world for tests: a fleet, a store in memory, what was published, and after every event the checks that always hold.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use picket_common::alert::AlertState;
use picket_common::api::{AuditEntry, CloudEvent, Field, HistoryEntry, HistoryWhat, RackBody, ZoneBody};
use picket_common::clock::Now;
use picket_common::command::Action;
use picket_common::id::{AgentId, HostId, OperationId};
use picket_common::power::{Cause, Management, PowerState};
use picket_common::seal::{Sealed, SealingKey};
use picket_common::wire::assign::{Assign, SiteSettings as ToldSettings};
use picket_common::wire::down::{Command, Reply};
use picket_common::wire::report::{
    Gone, Heartbeat, Hello, ManagementReport, OperationReport, PowerReport, Progress, Report, Reports, Up,
};
use picket_common::wire::topic::Public;
use picket_common::wire::{Generation, Incarnation, Session, Time};
use uuid::Uuid;

use super::draft::{bytes_of, state_topic};
use super::request::{BmcChange, ClusterSpec, Gate, Given, HostSpec};
use super::view::{JoinTokenRow, PowerRow, Row, RowKey, SealedPassword, Settings};
use super::*;

pub(crate) const STORE: Uuid = Uuid::from_u128(0x570e);
pub(crate) const LIFE: Uuid = Uuid::from_u128(0x11fe);

pub(crate) fn id<T: std::str::FromStr<Err = picket_common::id::IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn operation(n: u128) -> OperationId {
    OperationId(Uuid::from_u128(n))
}

pub(crate) fn journal(n: u128) -> Incarnation {
    Incarnation(Uuid::from_u128(0xb007 << 64 | n))
}

pub(crate) fn session(n: u128) -> Session {
    Session(Uuid::from_u128(0x5e55 << 64 | n))
}

pub(crate) fn sealed(key: u8) -> SealedPassword {
    SealedPassword { agent_key: SealingKey([key; 32]), agent: Sealed(vec![key; 40]), recovery: Sealed(vec![0; 40]) }
}

pub(crate) fn given(key: u8, address: &str, username: &str) -> Given {
    Given { address: address.into(), username: username.into(), password: sealed(key) }
}

pub(crate) fn ipmi(address: &str) -> BmcChange {
    BmcChange { driver: Field::Set("ipmi".into()), address: Field::Set(address.into()), ..BmcChange::default() }
}

/// A BMC with a login: name `admin`, and a password sealed to the agent with this key.
pub(crate) fn with_login(address: &str, key: u8) -> BmcChange {
    let (username, password) = (Field::Set("admin".into()), Field::Set(given(key, address, "admin")));
    BmcChange { username, password, ..ipmi(address) }
}

pub(crate) fn cluster_spec(zone: &str) -> ClusterSpec {
    ClusterSpec {
        zone: id(zone),
        poll_interval: None,
        action_timeout: None,
        bmc: Field::Keep,
        ha: Field::Keep,
        brakes: Field::Keep,
    }
}

pub(crate) fn spec(cluster: &str, rack: &str, bmc: Option<BmcChange>) -> HostSpec {
    HostSpec {
        cluster: id(cluster),
        zone: None,
        rack: id(rack),
        bmc,
        maintenance: false,
        poll_interval: None,
        action_timeout: None,
        labels: BTreeMap::new(),
        ha: Field::Keep,
    }
}

/// A receiver of everything, with the intervals that are the default.
pub(crate) fn receiver(name: &str) -> route::Receiver {
    route::Receiver {
        id: id(name),
        kinds: Vec::new(),
        zones: Vec::new(),
        clusters: Vec::new(),
        severity: picket_common::alert::Severity::Info,
        group_wait: Duration::from_secs(30),
        group_interval: Duration::from_secs(300),
        repeat_interval: Duration::from_secs(4 * 3600),
        keep_alive: None,
    }
}

pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) now: Now,
    pub(crate) rows: BTreeMap<RowKey, Row>,
    pub(crate) history: Vec<(HostId, HistoryEntry)>,
    pub(crate) audit: Vec<AuditEntry>,
    pub(crate) answers: Vec<KeptAnswer>,
    pub(crate) retained: BTreeMap<Public, Bytes>,
    pub(crate) events: Vec<CloudEvent>,
    /// What receivers were sent.
    pub(crate) deliveries: Vec<Delivery>,
    /// Who is told, also after a restart.
    pub(crate) telling: Telling,
    /// Effects of the last event.
    pub(crate) effects: Vec<Effect>,
    /// Records of the last event.
    pub(crate) records: usize,
    requests: u64,
    /// Whether all is checked after every event: with many hosts that takes long.
    checked: bool,
}

impl World {
    pub(crate) fn empty() -> Self {
        let (fleet, records) = Fleet::new(STORE, LIFE, Settings::default(), [], 1);
        assert!(records.is_empty());
        Self {
            fleet,
            now: Now { boottime: Duration::from_secs(1_000), wall: Timestamp::from_second(1_800_000_000).unwrap() },
            rows: BTreeMap::new(),
            history: Vec::new(),
            audit: Vec::new(),
            answers: Vec::new(),
            retained: BTreeMap::new(),
            events: Vec::new(),
            deliveries: Vec::new(),
            telling: Telling::default(),
            effects: Vec::new(),
            records: 0,
            requests: 0,
            checked: true,
        }
    }

    /// As [`World::running`], without the checks after every event.
    pub(crate) fn unchecked(hosts: usize) -> Self {
        Self { checked: false, ..Self::empty() }.with(hosts).up(hosts)
    }

    /// Zone z1, cluster c1, rack r1 with agent r1 (sealing key 1), hosts h1 … with BMCs, not enabled.
    pub(crate) fn of(hosts: usize) -> Self {
        Self::empty().with(hosts)
    }

    fn with(self, hosts: usize) -> Self {
        let mut world = self;
        world.ground("z1", "c1", "r1");
        world.join("r1", "r1", 1);
        for n in 1..=hosts {
            let host = spec("c1", "r1", Some(ipmi(&format!("10.0.{}.{}", n / 250, n % 250))));
            world.ask(Request::PutHost(id(&format!("h{n}")), host)).unwrap();
        }
        world
    }

    /// The same, hosts enabled, agent connected with its assignment.
    pub(crate) fn running(hosts: usize) -> Self {
        Self::of(hosts).up(hosts)
    }

    fn up(self, hosts: usize) -> Self {
        let mut world = self;
        for n in 1..=hosts {
            world.enable(&format!("h{n}"), true);
        }
        world.hello("r1", 1, 1);
        world.settle("r1", 1);
        world
    }

    pub(crate) fn ground(&mut self, zone: &str, cluster: &str, rack: &str) {
        self.ask(Request::PutZone(id(zone), ZoneBody {})).unwrap();
        self.ask(Request::PutCluster(id(cluster), cluster_spec(zone))).unwrap();
        self.ask(Request::PutRack(id(rack), RackBody { zone: id(zone) })).unwrap();
    }

    pub(crate) fn token(&mut self, token: &str, agent: &str, rack: &str) -> Result<Answer, Rejection> {
        self.ask(Request::AddJoinToken(JoinTokenRow {
            id: token.into(),
            secret: "5ec".into(),
            agent: id(agent),
            rack: id(rack),
            expires_at: self.now.after(Duration::from_secs(3600)).wall,
            used: None,
        }))
    }

    pub(crate) fn use_token(&mut self, token: &str, csr: &str, key: u8) -> Result<Answer, Rejection> {
        self.ask(Request::Join {
            token_id: token.into(),
            csr: csr.into(),
            certificate: format!("certificate for {csr} at {}", self.now.wall),
            public_key: format!("public key of {csr}"),
            sealing_key: SealingKey([key; 32]),
        })
    }

    pub(crate) fn join(&mut self, agent: &str, rack: &str, key: u8) {
        let token = format!("token-{}", self.requests);
        self.token(&token, agent, rack).unwrap();
        self.use_token(&token, &token, key).unwrap();
    }

    pub(crate) fn enable(&mut self, host: &str, open: bool) {
        self.ask(Request::SetOobm(Gate::Host(id(host)), open)).unwrap();
    }

    pub(crate) fn apply(&mut self, event: Event) {
        let Decision { records, effects } = self.fleet.apply(event, self.now);
        self.records = records.len();
        self.commit(records);
        for effect in &effects {
            match effect {
                Effect::Retain(topic, body) if body.is_empty() => drop(self.retained.remove(topic)),
                Effect::Retain(topic, body) => drop(self.retained.insert(topic.clone(), body.clone())),
                Effect::Event(event, _) => self.events.push((**event).clone()),
                Effect::Notify(delivery) => self.deliveries.push((**delivery).clone()),
                Effect::Answer(..) | Effect::Tell(..) | Effect::GaveUp(_) => {}
            }
        }
        self.effects = effects;
        self.check();
    }

    fn commit(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Put(row) => drop(self.rows.insert(row.key(), *row)),
                Record::Remove(key) => {
                    if let RowKey::Host(host) = &key {
                        self.history.retain(|(of, _)| of != host);
                    }
                    self.rows.remove(&key);
                }
                Record::History(host, entry) => {
                    if let Some((_, last)) = self.history.last() {
                        assert!(last.sequence < entry.sequence, "sequences grow");
                    }
                    self.history.push((host, *entry));
                }
                Record::Audit(entry) => self.audit.push(*entry),
                Record::Answer(answer) => self.answers.push(*answer),
            }
        }
    }

    /// What must hold after every event: the store is the view, retained state is complete and true, event ids are unique.
    fn check(&self) {
        if !self.checked {
            return;
        }
        let (again, repairs) =
            Fleet::new(STORE, LIFE, Settings::default(), self.rows.values().cloned(), self.fleet.next_sequence());
        assert!(repairs.is_empty(), "{repairs:?}");
        let (was, is) = (self.fleet.view(), again.view());
        assert_eq!(was.zones, is.zones);
        assert_eq!(was.clusters, is.clusters);
        assert_eq!(was.racks, is.racks);
        assert_eq!(was.hosts, is.hosts);
        assert_eq!(was.power, is.power);
        assert_eq!(was.agents, is.agents);
        assert_eq!(was.join_tokens, is.join_tokens);
        assert_eq!(was.witness_tokens, is.witness_tokens);
        assert_eq!(was.operations, is.operations);
        assert_eq!(was.pending, is.pending);
        assert_eq!(was.facts, is.facts);
        assert_eq!(was.reported, is.reported);
        was.hosts.values().for_each(|host| self.fleet.assert_status(host));
        assert_eq!(was.settings.api, is.settings.api);
        assert_eq!(was.ha, is.ha);
        assert_eq!(self.fleet.ledgers, again.ledgers);
        assert_eq!(was.alerts, is.alerts);
        assert_eq!(was.silences, is.silences);
        assert_eq!(was.rack_hosts, is.rack_hosts);
        assert_eq!(was.cluster_hosts, is.cluster_hosts);
        assert_eq!(self.fleet.open, again.open);
        assert_eq!(self.fleet.done, again.done);
        assert_eq!(self.fleet.done_parts, again.done_parts);
        assert_eq!(self.fleet.resolved, again.resolved);
        let states = self.retained.keys().filter(|topic| matches!(topic, Public::State(..))).count();
        assert_eq!(states, was.hosts.len(), "retained state is complete and has nothing else");
        for host in was.hosts.values() {
            assert_eq!(self.retained[&state_topic(host)], bytes_of(&state_document(&was, host)), "{}", host.id);
        }
        let firing = was.alerts.values().filter(|alert| alert.state == AlertState::Firing).count();
        assert_eq!(self.retained.keys().filter(|topic| matches!(topic, Public::Alert(_))).count(), firing);
        let ids: std::collections::BTreeSet<_> = self.events.iter().map(|event| (&event.source, &event.id)).collect();
        assert_eq!(ids.len(), self.events.len(), "event ids are unique per source");
    }

    pub(crate) fn restart(&mut self) {
        let (fleet, repairs) =
            Fleet::new(STORE, LIFE, Settings::default(), self.rows.values().cloned(), self.fleet.next_sequence());
        assert!(repairs.is_empty());
        self.fleet = fleet;
        self.fleet.tell(self.telling.clone());
    }

    /// Says who is told, from now on.
    pub(crate) fn tell(&mut self, telling: Telling) {
        self.telling = telling;
        self.restart();
    }

    /// The last delivery arrived, or did not.
    pub(crate) fn attempted(&mut self, result: Result<(), Undelivered>) {
        let Delivery { id, receiver, .. } = self.deliveries.last().unwrap().clone();
        self.apply(Event::Attempted { receiver, delivery: id, result });
    }

    pub(crate) fn ask(&mut self, request: Request) -> Result<Answer, Rejection> {
        self.ask_under(request, Terms::default())
    }

    pub(crate) fn ask_under(&mut self, request: Request, terms: Terms) -> Result<Answer, Rejection> {
        self.requests += 1;
        let (id, principal) = (RequestId(self.requests), "admin".into());
        self.apply(Event::Asked { id, principal, request: Box::new(request), terms: Box::new(terms) });
        let answers = self.effects.iter().position(|effect| matches!(effect, Effect::Answer(..))).unwrap();
        match self.effects.remove(answers) {
            Effect::Answer(id, answer) => {
                assert_eq!(id, RequestId(self.requests));
                if answer.is_err() {
                    assert_eq!((self.records, self.effects.len()), (0, 0), "a rejected request changes nothing");
                }
                answer
            }
            _ => unreachable!(),
        }
    }

    pub(crate) fn order(&mut self, n: u128, host: &str, operation: impl Into<Action>) -> Result<Answer, Rejection> {
        let id_ = self::operation(n);
        self.ask(Request::Power {
            id: id_,
            host: id(host),
            operation: operation.into(),
            timeout: None,
            reason: None,
            on_if_off: false,
        })
    }

    /// Time passes, and ticks come as they are asked for.
    pub(crate) fn pass(&mut self, seconds: u64) {
        let end = self.now.after(Duration::from_secs(seconds));
        while let Some(wake) = self.fleet.next_wake().filter(|wake| *wake <= end.boottime) {
            self.now = self.now.after(wake.saturating_sub(self.now.boottime));
            self.apply(Event::Tick);
        }
        self.now = end;
    }

    pub(crate) fn heard(&mut self, agent: &str, heard: Heard) {
        self.apply(Event::Heard(id(agent), heard));
    }

    pub(crate) fn hello(&mut self, agent: &str, session_: u128, boot: u128) {
        let next = self.fleet.view.agents.get(&id::<AgentId>(agent)).map_or(1, |row| row.acked + 1);
        self.hello_with(agent, session_, boot, next, None);
    }

    pub(crate) fn hello_with(&mut self, agent: &str, session_: u128, boot: u128, next: u64, generation: Option<Generation>) {
        self.heard(
            agent,
            Heard::Hello(Hello {
                session: session(session_),
                boot: journal(boot),
                version: "0.1.0".into(),
                generation,
                oldest: 1,
                next,
                nonce: 5,
            }),
        );
    }

    /// A heartbeat that holds the newest assignment and has nothing outstanding.
    pub(crate) fn settle(&mut self, agent: &str, session_: u128) {
        self.heartbeat(agent, session_, &[], |_| {});
    }

    pub(crate) fn heartbeat(&mut self, agent: &str, session_: u128, overdue: &[&str], edit: impl FnOnce(&mut Heartbeat)) {
        let row = self.fleet.view.agents[&id::<AgentId>(agent)].clone();
        let mut heartbeat = Heartbeat {
            session: session(session_),
            boot: row.boot.unwrap_or(journal(1)),
            generation: Some(row.generation),
            next: row.acked + 1,
            outbox: 0,
            overdue: overdue.iter().map(|host| id(host)).collect(),
            nonce: 6,
        };
        edit(&mut heartbeat);
        self.heard(agent, Heard::Up(Up::Heartbeat(heartbeat)));
    }

    pub(crate) fn gone(&mut self, agent: &str, session_: u128) {
        self.heard(agent, Heard::Gone(Gone { session: session(session_) }));
    }

    /// Reports with the next sequences of the agent's journal.
    pub(crate) fn report(&mut self, agent: &str, reports: Vec<Report>) {
        let row = self.fleet.view.agents[&id::<AgentId>(agent)].clone();
        let boot = row.boot.unwrap_or(journal(1));
        self.batch(agent, Reports { boot, oldest: row.acked + 1, first: row.acked + 1, reports });
    }

    pub(crate) fn batch(&mut self, agent: &str, reports: Reports) {
        self.heard(agent, Heard::Up(Up::Reports(reports)));
    }

    pub(crate) fn wire_now(&self) -> Time {
        self.now.wall.into()
    }

    pub(crate) fn power_report(&self, host: &str, new: PowerState) -> Report {
        let view = &self.fleet.view;
        let key: HostId = id(host);
        Report::Power(PowerReport {
            host: key.clone(),
            enablement: view.hosts.get(&key).map_or(0, |row| row.enablement),
            old: view.power.get(&key).map_or(PowerState::Unknown, |row| row.power),
            new,
            cause: Cause::Poll,
            observed_at: self.wire_now(),
            error: None,
        })
    }

    pub(crate) fn management_report(&self, host: &str, new: Management, error: Option<picket_common::command::BmcError>) -> Report {
        let enablement = self.fleet.view.hosts[&id::<HostId>(host)].enablement;
        Report::Management(ManagementReport { host: id(host), enablement, new, observed_at: self.wire_now(), error })
    }

    pub(crate) fn progress(&self, n: u128, host: &str, progress: Progress) -> Report {
        Report::Operation(OperationReport { operation: operation(n), host: id(host), at: self.wire_now(), progress })
    }

    pub(crate) fn power(&self, host: &str) -> PowerRow {
        (*self.fleet.view.power[&id::<HostId>(host)]).clone()
    }

    pub(crate) fn replies(&self) -> Vec<Reply> {
        let reply = |effect: &Effect| match effect {
            Effect::Tell(_, Told::Reply(reply)) => Some(reply.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(reply).collect()
    }

    pub(crate) fn commands(&self) -> Vec<Command> {
        let command = |effect: &Effect| match effect {
            Effect::Tell(_, Told::Command(command)) => Some(command.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(command).collect()
    }

    /// Assignments told to an agent.
    pub(crate) fn assigns(&self, agent: &str) -> Vec<Assign> {
        let told = self.told_assign(agent);
        told.filter(|assign| !matches!(assign, Assign::Settings(_) | Assign::Ha(_) | Assign::Surroundings(_))).collect()
    }

    /// Settings of the site told to an agent.
    pub(crate) fn site_settings(&self, agent: &str) -> Vec<ToldSettings> {
        let settings = |assign| match assign {
            Assign::Settings(settings) => Some(settings),
            _ => None,
        };
        self.told_assign(agent).filter_map(settings).collect()
    }

    fn told_assign(&self, agent: &str) -> impl Iterator<Item = Assign> {
        let assign = move |effect: &Effect| match effect {
            Effect::Tell(to, Told::Assign(assign)) if to.as_str() == agent => Some(assign.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(assign).flatten()
    }

    /// A host's part of an operation.
    pub(crate) fn part(&self, n: u128, host: &str) -> super::view::PartRow {
        (*self.fleet.view.operations[&operation(n)].parts[&id::<HostId>(host)]).clone()
    }

    pub(crate) fn host(&self, host: &str) -> super::view::HostRow {
        (*self.fleet.view.hosts[&id::<HostId>(host)]).clone()
    }

    pub(crate) fn history_of(&self, host: &str) -> Vec<HistoryWhat> {
        self.history.iter().filter(|(of, _)| of.as_str() == host).map(|(_, entry)| entry.what.clone()).collect()
    }

    /// Kinds of the events since the last call.
    pub(crate) fn event_kinds(&mut self) -> Vec<String> {
        let kinds = self.events.iter().map(|event| format!("{} {}", event.kind, event.subject)).collect();
        self.events.clear();
        kinds
    }
}
