//! Host-HA in virtual time: hosts that die, hang, write, heal and are switched off, each with its whole story.

use std::collections::BTreeMap;

use picket_common::ha::settings::{ActivityCheck, HaSettings, HealthCheck};
use picket_common::ha::{HaName, HaState, HostStatus};
use picket_common::wire::ha::{ClusterHa, HaCommand, HaPart, HaReport, HaVerb};

use super::*;
use crate::sign::{Check, Sign, Stamp};

/// How a host answers its checks.
#[derive(Clone, Default)]
pub(super) struct Life {
    /// It does not answer health checks.
    pub(super) hung: bool,
    /// Its files, and when they were written.
    pub(super) files: BTreeMap<String, i128>,
    /// They are written all the time.
    pub(super) writes: bool,
    /// Its storage is too slow to be looked at.
    pub(super) slow_storage: bool,
}

impl World {
    /// How a check ends, and when. A host that is off answers nothing, but its files are there.
    pub(super) fn check(&mut self, job: &CheckJob) -> (Duration, CheckDone) {
        let (soon, late) = (Duration::from_millis(3), job.timeout);
        let network = self.network;
        let (after, sign) = match (&job.check, &job.host) {
            (Check::Reference(_), _) if network => (soon, Sign::Alive),
            (Check::Health(_), Some(host)) if network => {
                let is_on = self.bmcs.get(host).is_none_or(|bmc| bmc.power == Reading::On);
                let hung = self.lives.get(host).is_some_and(|life| life.hung);
                if is_on && !hung { (soon, Sign::Alive) } else { (late, Sign::Dead("no answer".into())) }
            }
            (Check::Activity(check), Some(host)) => self.look(host, check, late),
            _ => (late, Sign::Dead("no answer".into())),
        };
        let done = CheckDone { ticket: job.ticket, begun: self.now.boottime, sign };
        (self.now.boottime + after, done)
    }

    fn look(&mut self, host: &HostId, check: &ActivityCheck, late: Duration) -> (Duration, Sign) {
        let now = i128::try_from(self.now.boottime.as_nanos()).unwrap();
        let life = self.lives.entry(host.clone()).or_default();
        if life.slow_storage {
            return (late, Sign::CannotTell("time-out".into()));
        }
        let ActivityCheck::Files { paths } = check else { return (late, Sign::CannotTell("not here".into())) };
        let stamp = |path: &String| {
            let modified = if life.writes { now } else { life.files.get(path).copied()? };
            Some(Stamp { path: path.clone(), modified, length: 1 })
        };
        (Duration::from_millis(3), Sign::Stamps(paths.iter().filter_map(stamp).collect()))
    }

    /// The checks that are over.
    pub(super) fn checked(&mut self) -> Vec<CheckDone> {
        let now = self.now.boottime;
        let (done, checking): (Vec<_>, Vec<_>) = std::mem::take(&mut self.checking).into_iter().partition(|(at, _)| *at <= now);
        self.checking = checking;
        done.into_iter().map(|(_, done)| done).collect()
    }

    /// A rack whose hosts are watched over, and well.
    fn watched(hosts: &[&str], change: impl Fn(&mut HaSettings)) -> Self {
        let mut world = Self::new(hosts);
        for host in hosts {
            let files = BTreeMap::from([("/vm/a".to_owned(), 1), ("/vm/b".to_owned(), 1)]);
            world.lives.insert(id(host), Life { files, ..Life::default() });
        }
        world.run(40);
        let watched = hosts.iter().map(|host| watched_host(host, &change)).collect();
        world.tell_ha(1, watched);
        world.run(15);
        for host in hosts {
            assert_eq!(world.state(host).name(), HaName::Available, "{}", world.why(host));
        }
        world
    }

    fn tell_ha(&mut self, version: u64, hosts: Vec<HostHa>) {
        let part = HaPart {
            version: generation(version),
            epoch: 1,
            part: 0,
            of: 1,
            agent_cap: 6,
            clusters: vec![cluster()],
            hosts,
        };
        self.apply(Event::Assigned(Assign::Ha(part)));
    }

    fn told(&self, host: &str) -> Vec<&HaReport> {
        let of = |report| match report {
            &Report::Ha(ref told) if told.host.as_str() == host => Some(&**told),
            _ => None,
        };
        self.reports.iter().filter_map(of).collect()
    }

    fn state(&self, host: &str) -> HaState {
        self.told(host).last().map_or(HaState::Disabled, |told| told.state.clone())
    }

    fn why(&self, host: &str) -> String {
        self.told(host).last().map_or_else(String::new, |told| told.why.clone())
    }

    /// The names of its states, one after another.
    fn story(&self, host: &str) -> Vec<HaName> {
        let mut story: Vec<HaName> = self.told(host).iter().map(|told| told.state.name()).collect();
        story.dedup();
        story
    }

    fn verb(&mut self, number: u128, host: &str, verb: HaVerb) {
        let command = HaCommand {
            operation: OperationId(uuid::Uuid::from_u128(number)),
            host: id(host),
            verb,
            by: "ann".into(),
            reason: "because".into(),
            deadline: self.now.after(Duration::from_secs(60)).wall.into(),
            epoch: 1,
            generation: generation(self.counter),
            enablement: 1,
        };
        self.apply(Event::Commanded(Command::Ha(command)));
    }

    fn life(&mut self, host: &str) -> &mut Life {
        self.lives.entry(id(host)).or_default()
    }
}

fn cluster() -> ClusterHa {
    ClusterHa {
        cluster: "c".parse().unwrap(),
        zone: "z".parse().unwrap(),
        cap: 3,
        cap_window: 3600,
        agents: 1,
        storm: [30, 20, 10],
        cool_down: 600,
        cliff: Some(50),
        somewhere_to_go: true,
        isolation: true,
    }
}

fn watched_host(host: &str, change: impl Fn(&mut HaSettings)) -> HostHa {
    let mut settings = HaSettings {
        health: vec![HealthCheck::Tcp { address: "192.0.2.1".into(), port: 22 }],
        activity: vec![ActivityCheck::Files { paths: vec!["/vm/a".into(), "/vm/b".into()] }],
        ..HaSettings::default()
    };
    change(&mut settings);
    HostHa {
        host: id(host),
        closed: None,
        maintenance: false,
        pause: None,
        identity: Some("guid".into()),
        settings,
        levels: vec![],
    }
}

#[test]
fn a_host_that_is_switched_off_at_the_chassis_is_fenced_within_a_minute() {
    for number in 0..10 {
        let mut world = World::watched(&["h", "other"], |_| ());
        world.run(number);
        world.bmc("h").power = Reading::Off;
        world.bmc("h").order = Some((ErrorClass::Refused, false));
        let lost = world.now.boottime;
        while !matches!(world.state("h"), HaState::Fenced(_)) {
            world.run(1);
            assert!(world.now.boottime - lost < Duration::from_secs(60), "{:?}", world.story("h"));
        }
        assert!(world.now.boottime - lost > Duration::from_secs(30), "a reboot passes through off");
        assert_eq!(world.orders("h"), [], "nothing is sent");
        let told = world.told("h");
        let last = told.last().unwrap();
        assert_eq!(last.state.host_status(), HostStatus::Down);
        let proof = last.proof.as_ref().unwrap();
        assert!(proof.readings.len() >= 3 && !proof.off_sent, "{proof:?}");
        assert_eq!(told.iter().filter(|told| matches!(told.state, HaState::Fenced(_))).count(), 1);
        assert_eq!(world.state("other").name(), HaName::Available);
    }
}
