//! A rack under host-HA, for tests: simulated BMCs, operating systems that live until they are told not to, an agent, an
//! aggregator, and a consumer who hears everything. Its helpers panic, as tests do.

#![expect(clippy::unwrap_used, reason = "the helper of a test fails as the test does")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::bmcsim::{BmcHandle, Simulator};
use crate::eventually::eventually;
use crate::harness::{Agent, Answer, Living, Site, hosts, simulator};
use crate::peers::certificate::Identity;
use crate::peers::mosquitto::{Broker, Protocol};
use crate::peers::mosquitto_sub::MosquittoSub;

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster whose hosts are found out in seconds, and whose brakes are off.
pub const QUICK: [&str; 20] = [
    "startup_quiet=0",
    "health_interval=1",
    "health_timeout=2",
    "failures=2",
    "activity_interval=1",
    "activity_timeout=2",
    "samples=2",
    "boot_wait=5",
    "stable=3",
    "settle=5",
    "recheck=3600",
    "confirmations=2",
    "nothing_to_check=assume-inactive",
    "cap=100",
    "storm_rack=100",
    "storm_cluster=100",
    "storm_zone=100",
    "cliff=0",
    "cool_down=0",
    "fence_retry=5",
];

/// A rack under host-HA, each host with a `tcp` health check, and a consumer who hears everything.
pub struct Watched {
    /// The aggregator.
    pub site: Site,
    /// The rack's agent.
    pub agent: Agent,
    simulator: Simulator,
    /// Their operating systems.
    pub living: Living,
    /// States, events and alerts, as a consumer heard them.
    pub heard: [MosquittoSub; 3],
}

impl Watched {
    /// All hosts on and well. `settings` are the cluster's.
    #[must_use]
    pub fn set(site: Site, ipmi: usize, redfish: usize, settings: &[&str]) -> Self {
        Self::set_with(site, ipmi, redfish, settings, "")
    }

    /// The same with more in the agent's own file.
    #[must_use]
    pub fn set_with(site: Site, ipmi: usize, redfish: usize, settings: &[&str], own: &str) -> Self {
        let simulator = simulator("r07n", ipmi, redfish).unwrap();
        let bmcs = simulator.fleet().all();
        bmcs.iter().for_each(|bmc| bmc.set_power(true));
        let living = Living::new(bmcs.iter().map(BmcHandle::name)).unwrap();
        site.place("z1", "c1", "r07").unwrap();
        let agent = site.join_with("r07", "r07", own).unwrap();
        site.import(&hosts(&simulator, "c1", "r07")).unwrap();
        let watcher = consumer(&site);
        let heard = ["state", "event", "alert"].map(|tree| MosquittoSub::start(&watcher, &format!("picket/v1/{tree}/#")).unwrap());
        let stage = Self { site, agent, simulator, living, heard };
        if !settings.is_empty() {
            stage.ok(&[&["ha", "set", "cluster", "c1"], settings].concat());
        }
        for bmc in stage.bmcs() {
            let check = format!("health=tcp:{}", stage.living.address(bmc.name()).unwrap());
            stage.ok(&["ha", "set", "host", bmc.name(), &check]);
        }
        stage.ok(&["oobm", "enable", "host", "@all"]);
        stage.ok(&["ha", "enable", "host", "@all"]);
        stage.until_ha("@all", "available", "up");
        stage
    }

    /// All BMCs.
    #[must_use]
    pub fn bmcs(&self) -> &[BmcHandle] {
        self.simulator.fleet().all()
    }

    /// The BMC of a host.
    #[must_use]
    pub fn bmc(&self, host: &str) -> BmcHandle {
        self.simulator.fleet().named(host).unwrap()
    }

    /// Runs `picketctl`.
    #[must_use]
    pub fn ctl(&self, words: &[&str]) -> Answer {
        self.site.ctl(words).unwrap()
    }

    /// Runs what must work, and gives what it prints.
    pub fn ok(&self, words: &[&str]) -> String {
        let answer = self.ctl(words);
        assert_eq!(answer.code, 0, "{words:?}: {answer:?}");
        answer.out
    }

    /// Waits until all hosts of a set stand there.
    pub fn until_ha(&self, set: &str, state: &str, status: &str) {
        eventually(PATIENCE, || {
            let rows = self.site.json(&["ha", "show", set])?;
            let stands = |row: &&Value| row["state"] != state || row["host_status"] != status;
            let others: Vec<&Value> = rows.as_array().into_iter().flatten().filter(stands).collect();
            ensure!(others.is_empty(), "not {state} and {status}: {} of {set}, as {:?}", others.len(), others.first());
            Ok(())
        })
        .unwrap();
    }

    /// Waits until nothing stands against fencing a host: what its BMC is, for one, must have been learned and pinned.
    pub fn until_fit(&self, host: &str) {
        eventually(PATIENCE, || {
            let plan = self.ctl(&["fence", "plan", host]);
            ensure!(plan.code == 0, "{plan:?}");
            Ok(())
        })
        .unwrap();
    }

    /// All power orders that reached the BMCs.
    #[must_use]
    pub fn orders(&self) -> usize {
        let of = |bmc: &BmcHandle| ["off", "on", "cycle", "reset", "soft"].iter().map(|action| bmc.orders(action)).sum::<usize>();
        self.bmcs().iter().map(of).sum()
    }

    /// The hosts whose retained state, as the consumer last heard it, has this host status.
    ///
    /// # Errors
    /// When what was heard cannot be read.
    pub fn told(&self, status: &str) -> Result<BTreeSet<String>> {
        let mut told = BTreeSet::new();
        for message in self.heard[0].messages()? {
            let Some(place) = message.topic.strip_prefix("picket/v1/state/") else { continue };
            let host = place.rsplit('/').next().unwrap_or_default().to_owned();
            if message.json().is_ok_and(|state| state["host_status"] == status) {
                told.insert(host);
            } else {
                told.remove(&host);
            }
        }
        Ok(told)
    }

    /// The alerts of a kind that ever fired, as (id, since).
    ///
    /// # Errors
    /// When `picketctl` fails.
    pub fn alerts(&self, kind: &str) -> Result<Vec<(String, String)>> {
        let all = self.site.json(&["alerts", "list", "--all", "--kind", kind])?;
        let text = |alert: &Value, name: &str| alert[name].as_str().unwrap_or_default().to_owned();
        Ok(all.as_array().into_iter().flatten().map(|alert| (text(alert, "id"), text(alert, "starts_at"))).collect())
    }

    /// Everything anybody was told by anything.
    #[must_use]
    pub fn everything_said(&self, hosts: &[String]) -> String {
        let histories: String = hosts.iter().map(|host| self.ok(&["-o", "json", "history", host])).collect();
        let explained: String = hosts.iter().map(|host| self.ok(&["ha", "explain", host])).collect();
        let heard: String = self.heard.iter().map(|heard| heard.trace().unwrap()).collect();
        let alerts = self.ok(&["-o", "json", "alerts", "list", "--all"]);
        [self.site.log().unwrap(), self.agent.log().unwrap(), heard, histories, explained, alerts].concat()
    }
}

fn consumer(site: &Site) -> Broker {
    let folder = site.consumer("watcher").unwrap();
    let identity = Identity { certificate: folder.join("watcher.pem"), key: folder.join("watcher.key") };
    let (address, ca_file) = (site.mqtt().parse().unwrap(), folder.join("ca.pem"));
    Broker { address, ca_file, identity: Some(identity), client_id: None, protocol: Protocol::V311 }
}
