//! The rack in virtual time, with BMCs that are two lines of code each.

mod assignments;
mod commands;
mod facts;
mod logins;
mod operations;
mod password;
mod polling;
mod traps;
mod watch;

use picket_common::command::{Action, BmcError, BootDevice, ErrorClass, Outcome, Persistence, Refusal};
use picket_common::facts::Facts;
use picket_common::power::PowerState::{self, Off, On, Unknown};
use picket_common::power::{Cause, Management, PowerOperation};
use picket_common::wire::assign::{BmcAssignment, Part};
use picket_common::wire::down::PowerCommand;
use picket_common::wire::report::{FactsReport, OperationReport, Progress};

use super::*;
use crate::bmc::{Answer, Ask, DriverError, NOT_SUPPORTED, PowerReply, Reading};

/// A BMC of the test.
#[derive(Clone)]
struct Bmc {
    power: Reading,
    /// Status requests fail like this.
    status: Option<ErrorClass>,
    /// Orders fail like this; `true` = it may have arrived.
    order: Option<(ErrorClass, bool)>,
    /// Code of those failures.
    code: &'static str,
    /// Orders are accepted and do nothing.
    lazy: bool,
    /// What it says it is; absent = that question fails.
    facts: Option<Facts>,
    /// What it takes.
    password: String,
    /// What it does with a new one.
    set: password::Set,
    /// What it takes from then on.
    late: Option<(Duration, String)>,
    /// When it refused a login.
    refused: Vec<Duration>,
    /// Those since a login worked.
    in_a_row: Vec<Duration>,
    /// Most of those within a pause.
    worst: usize,
    asked: Vec<Ask>,
}

/// A rack, its BMCs, a clock, and everything that was decided.
struct World {
    rack: Rack,
    now: Now,
    bmcs: HashMap<HostId, Bmc>,
    flying: Vec<Job>,
    reports: Vec<Report>,
    journal: Restored,
    heartbeats: Vec<Pulse>,
    counter: u64,
    machine_boot: MachineBoot,
    /// How hosts answer their checks.
    lives: HashMap<HostId, watch::Life>,
    /// Looks at activity so far.
    looked: Vec<(HostId, crate::sign::Check)>,
    /// The agent's own network works.
    network: bool,
    /// What the BMC of `h` said, by when the request was begun.
    readings: Vec<(Time, Reading)>,
    /// Checks under way, and when they end.
    checking: Vec<(Duration, CheckDone)>,
    /// Health checks: whose, when they end, and whether the host answers.
    healths: Vec<(HostId, Duration, bool)>,
    /// Dies at the so many-th decision that records something.
    crash: Option<(u32, password::Crash)>,
}

fn settings(machine_boot: MachineBoot) -> Settings {
    Settings {
        boot: Incarnation(uuid::Uuid::nil()),
        machine_boot,
        sealing_key: Secret::new([1; 32]),
        max_in_flight: 8,
        references: vec![],
        proving_templates: vec![],
        seed: 42,
    }
}

fn start() -> Now {
    Now {
        boottime: Duration::from_secs(1000),
        wall: jiff::Timestamp::UNIX_EPOCH.saturating_add(jiff::SignedDuration::from_secs(1_800_000_000)).unwrap(),
    }
}

fn id(text: &str) -> HostId {
    text.parse().unwrap()
}

fn generation(counter: u64) -> Generation {
    Generation { store: uuid::Uuid::nil(), counter }
}

fn assignment(host: &str, enablement: u64, refusal: Option<Refusal>) -> HostAssignment {
    let bmc = BmcAssignment {
        driver: "ipmi".into(),
        address: "10.0.0.1".into(),
        port: None,
        username: "admin".into(),
        password: None,
        options: vec![],
        revision: 1,
    };
    HostAssignment {
        host: id(host),
        zone: "z".parse().unwrap(),
        cluster: "c".parse().unwrap(),
        enablement,
        refusal,
        bmc: Some(bmc),
        poll_interval_ms: 10_000,
    }
}

impl World {
    fn new(hosts: &[&str]) -> Self {
        let now = start();
        let facts = Some(Facts { identity: Some("guid".into()), latency_us: Some(7), ..Facts::default() });
        let bmc = Bmc {
            power: Reading::On,
            status: None,
            order: None,
            code: "c",
            lazy: false,
            facts,
            password: String::new(),
            set: password::Set::Takes,
            late: None,
            refused: vec![],
            in_a_row: vec![],
            worst: 0,
            asked: vec![],
        };
        let machine_boot = MachineBoot(uuid::Uuid::nil());
        let mut world = Self {
            rack: Rack::restore(settings(machine_boot), Restored::default(), now),
            machine_boot,
            now,
            bmcs: hosts.iter().map(|host| (id(host), bmc.clone())).collect(),
            flying: vec![],
            reports: vec![],
            journal: Restored::default(),
            heartbeats: vec![],
            counter: 0,
            lives: HashMap::new(),
            looked: Vec::new(),
            network: true,
            readings: vec![],
            checking: vec![],
            healths: vec![],
            crash: None,
        };
        world.apply(Event::Measured(CentreClock { sent: now.boottime, at: now.wall.into() }));
        world.assign(hosts.iter().map(|host| assignment(host, 1, None)).collect());
        world
    }

    fn assign(&mut self, hosts: Vec<HostAssignment>) {
        self.counter += 1;
        let part = Part { generation: generation(self.counter), epoch: 1, part: 0, of: 1, hosts };
        self.apply(Event::Assigned(Assign::Part(part)));
    }

    fn apply(&mut self, event: Event) {
        let mut decision = Decision::default();
        self.rack.apply(event, self.now, &mut decision);
        self.sends_what_it_intends(&decision);
        if !decision.records.is_empty() && self.dies(&mut decision) {
            return;
        }
        for record in decision.records {
            self.keep(record);
        }
        self.flying.extend(decision.jobs.into_iter().map(|(_, job)| job));
        for job in decision.checks {
            let done = self.check(&job);
            self.checking.push(done);
        }
        self.heartbeats.extend(decision.heartbeat);
    }

    /// The journal, as far as a restart needs it.
    fn keep(&mut self, record: Record) {
        match record {
            Record::Report(report) => self.reports.push(*report),
            Record::Host(row) => {
                self.journal.rows.retain(|kept| kept.host != row.host);
                self.journal.rows.push(row);
            }
            Record::Assignment(row) => {
                self.journal.assignments.retain(|kept| kept.host != row.host);
                self.journal.assignments.push(row);
            }
            Record::Remove(host) => {
                self.journal.assignments.retain(|kept| kept.host != host);
                self.journal.rows.retain(|kept| kept.host != host);
                self.journal.facts.retain(|kept| kept.host != host);
            }
            Record::Generation(generation, epoch) => (self.journal.generation, self.journal.epoch) = (generation, epoch),
            Record::Operation(operation) => {
                self.journal.operations.retain(|kept| kept.command.operation != operation.command.operation);
                self.journal.operations.push(operation);
            }
            Record::OperationEnded(operation, _) => self.journal.operations.retain(|kept| kept.command.operation != operation),
            Record::Seen(operation, host, until) => self.journal.seen.push((operation, host, until)),
            Record::Unseen(operation, host) => self.journal.seen.retain(|kept| kept.0 != operation || kept.1 != host),
            Record::Facts(row) => {
                self.journal.facts.retain(|kept| kept.host != row.host);
                self.journal.facts.push(*row);
            }
            Record::Password(change) => {
                self.journal.changes.retain(|kept| kept.host != change.host);
                self.journal.changes.push(*change);
            }
            Record::PasswordEnded(host) => self.journal.changes.retain(|kept| kept.host != host),
            Record::HaRules(rules) => self.journal.watch.rules = Some(*rules),
            Record::Brakes(row) => self.journal.brakes = Some(*row),
            Record::Surroundings(told) => self.journal.watch.surroundings = Some(*told),
            Record::HostHa(row) => {
                self.journal.watch.hosts.retain(|kept| kept.host != row.host);
                self.journal.watch.hosts.push(*row);
            }
            Record::HostHaGone(host) => self.journal.watch.hosts.retain(|kept| kept.host != host),
            Record::Ha(row) => {
                self.journal.watch.rows.retain(|kept| kept.host != row.host);
                self.journal.watch.rows.push(*row);
            }
            Record::HaGone(host) => self.journal.watch.rows.retain(|kept| kept.host != host),
            Record::Trim(_) => {}
        }
    }

    /// kill -9: all that was not journalled is gone, requests under way included.
    fn restart(&mut self) {
        self.flying.clear();
        self.checking.clear();
        let journal = std::mem::take(&mut self.journal);
        self.journal = Restored {
            generation: journal.generation,
            epoch: journal.epoch,
            assignments: journal.assignments.clone(),
            rows: journal.rows.clone(),
            operations: journal.operations.clone(),
            seen: journal.seen.clone(),
            facts: journal.facts.clone(),
            changes: journal.changes.clone(),
            watch: journal.watch.clone(),
            brakes: journal.brakes.clone(),
        };
        self.rack = Rack::restore(settings(self.machine_boot), journal, self.now);
        self.apply(Event::Measured(CentreClock { sent: self.now.boottime, at: self.now.wall.into() }));
    }

    /// The machine was switched off and on again within no time, and lost its clock: it is `ahead` of the true time.
    fn reboot(&mut self, ahead: jiff::SignedDuration) {
        self.machine_boot = MachineBoot(uuid::Uuid::from_u128(self.machine_boot.0.as_u128() + 1));
        self.now = Now { boottime: Duration::from_secs(20), wall: self.now.wall.saturating_add(ahead).unwrap() };
        self.restart();
    }

    /// Lets time pass; BMCs answer after 5 ms.
    fn run(&mut self, for_seconds: u64) {
        self.run_for(Duration::from_secs(for_seconds));
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now.boottime + time;
        while self.now.boottime < end {
            self.apply(Event::Tick);
            self.now = self.now.after(Duration::from_millis(5));
            let answers: Vec<Completion> = std::mem::take(&mut self.flying).into_iter().map(|job| self.answer(&job)).collect();
            let checked = self.checked();
            if !checked.is_empty() {
                self.apply(Event::Checked(checked));
            }
            if answers.is_empty() {
                let answer = self.checking.iter().map(|(at, _)| *at).min().unwrap_or(end);
                let next = self.rack.next_wake().min(answer).min(end).max(self.now.boottime);
                self.now = self.now.after(next.saturating_sub(self.now.boottime));
            } else {
                self.apply(Event::Completed(answers));
            }
        }
    }

    fn answer(&mut self, job: &Job) -> Completion {
        let bmc = self.bmcs.get_mut(&job.bmc.host).unwrap();
        bmc.asked.push(job.ask);
        if let Some((_, password)) = bmc.late.take_if(|(at, _)| *at <= self.now.boottime) {
            bmc.password = password;
        }
        if bmc.status.is_none() && *job.bmc.password.expose() == bmc.password {
            bmc.in_a_row.clear();
        }
        let code = bmc.code.to_owned();
        let error =
            |class, maybe_sent| DriverError { driver: "ipmi", address: "x".into(), class, code, text: "t".into(), maybe_sent };
        let result = match (job.ask, bmc.status, bmc.order) {
            (Ask::Status | Ask::Inspect | Ask::TryLogin | Ask::SetPassword, Some(class), _) => Err(error(class, false)),
            _ if *job.bmc.password.expose() != bmc.password => {
                password::refuse(bmc, self.now.boottime);
                Err(error(ErrorClass::Auth, false))
            }
            (Ask::TryLogin, None, _) => Ok(Answer::Done),
            (Ask::SetPassword, None, _) => password::set(bmc, job.new_password.as_ref().unwrap(), self.now.boottime, error),
            (Ask::Status, None, _) => {
                if job.bmc.host.as_str() == "h" {
                    self.readings.push((self.now.wall.into(), bmc.power));
                }
                Ok(Answer::Reading(bmc.power))
            }
            (Ask::Inspect, None, _) => match &bmc.facts {
                Some(facts) => Ok(Answer::Facts(Box::new(facts.clone()), bmc.power)),
                None => Err(error(ErrorClass::Protocol, false)),
            },
            (Ask::Identify { .. } | Ask::Bootdev { .. }, _, None) => Ok(Answer::Done),
            (ask, _, Some((ErrorClass::Refused, _))) => {
                let _ = ask;
                Ok(Answer::Power(PowerReply::NotInThisState))
            }
            (_, _, Some((class, maybe_sent))) => Err(error(class, maybe_sent)),
            (ask, _, None) => {
                if !bmc.lazy {
                    bmc.power = match ask {
                        Ask::Off | Ask::Soft => Reading::Off,
                        Ask::Diag => bmc.power,
                        _ => Reading::On,
                    };
                }
                Ok(Answer::Power(PowerReply::Accepted))
            }
        };
        Completion { ticket: job.ticket, begun: self.now.boottime, result }
    }

    fn bmc(&mut self, host: &str) -> &mut Bmc {
        self.bmcs.get_mut(host).unwrap()
    }

    fn command(&self, number: u128, host: &str, action: impl Into<Action>) -> PowerCommand {
        PowerCommand {
            operation: OperationId(uuid::Uuid::from_u128(number)),
            host: id(host),
            action: action.into(),
            on_if_off: false,
            deadline: self.now.after(Duration::from_secs(30)).wall.into(),
            epoch: 1,
            generation: generation(self.counter),
            enablement: 1,
        }
    }

    fn order(&mut self, number: u128, host: &str, action: impl Into<Action>) {
        let command = self.command(number, host, action);
        self.apply(Event::Commanded(Command::Power(command)));
    }

    fn outcomes(&self, number: u128) -> Vec<Outcome> {
        self.reports
            .iter()
            .filter_map(|report| match report {
                Report::Operation(OperationReport { operation, progress: Progress::Done(outcome), .. })
                    if operation.0.as_u128() == number =>
                {
                    Some(outcome.clone())
                }
                _ => None,
            })
            .collect()
    }

    fn changes(&self, host: &str) -> Vec<(PowerState, PowerState, Cause)> {
        let power = |report: &Report| match report {
            Report::Power(change) if change.host.as_str() == host => Some((change.old, change.new, change.cause)),
            _ => None,
        };
        self.reports.iter().filter_map(power).collect()
    }

    fn management(&self, host: &str) -> Vec<Management> {
        let management = |report: &Report| match report {
            Report::Management(change) if change.host.as_str() == host => Some(change.new),
            _ => None,
        };
        self.reports.iter().filter_map(management).collect()
    }

    fn orders(&mut self, host: &str) -> Vec<Ask> {
        self.bmc(host).asked.iter().copied().filter(|ask| !matches!(ask, Ask::Status | Ask::Inspect)).collect()
    }

    fn facts(&self) -> Vec<&FactsReport> {
        self.reports.iter().filter_map(|report| if let Report::Facts(facts) = report { Some(facts) } else { None }).collect()
    }

    fn inspections(&mut self, host: &str) -> usize {
        self.bmc(host).asked.iter().filter(|ask| **ask == Ask::Inspect).count()
    }
}
