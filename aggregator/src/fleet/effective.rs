//! Which settings are in force: the host's own, else its cluster's, else the site's, else the default. The one place that says so.
//!
//! ```text
//!                 host ──▶ cluster ──▶ site (API, then file) ──▶ default
//! driver            ×         ×                                     –       without one the host is not configured
//! address           ×
//! port              ×         × same driver                         driver's
//! name, password    ×         ×  the pair is never taken from two places
//! options           ×         × same driver     × ipmitool's        driver's        key by key
//! poll interval     ×         ×                  ×                  10 s
//! action timeout    ×         ×                  ×                  60 s
//! ```
//!
//! Port and options belong to a driver: a host with another one than its cluster's gets neither. A host with a login name of its
//! own gets no password from its cluster, not even under the same name: what is sent to a BMC is what somebody gave for it.

use std::collections::BTreeMap;

use picket_common::api::{Origin, Valued};
use picket_common::driver::{self, Descriptor};
use picket_common::seal::{Sealed, SealingKey};

use super::view::{BmcRow, ClusterRow, HostRow, SealedPassword, Settings, SharedPassword, SiteSettings, View};

/// Poll interval when nobody sets it, in seconds.
pub const DEFAULT_SYNC_INTERVAL: u64 = 10;
/// Time-out of operations when nobody sets it, in seconds.
pub const DEFAULT_ACTION_TIMEOUT: u64 = 60;
/// Driver without a BMC: it needs neither address nor login.
const NULL: &str = driver::NULL.name;

/// A host's BMC settings in force.
#[derive(Debug, Clone)]
pub struct Bmc<'a> {
    /// Driver name; empty when nobody names one.
    pub driver: Valued<&'a str>,
    /// IP address or name.
    pub address: &'a str,
    /// Port; absent = the driver's own.
    pub port: Valued<Option<u16>>,
    /// Login name.
    pub username: Valued<&'a str>,
    /// Login password.
    pub password: Option<Valued<Password<'a>>>,
}

/// A password in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Password<'a> {
    /// The host's own.
    Own(&'a SealedPassword),
    /// Its cluster's.
    Shared(&'a SharedPassword),
}

impl<'a> Password<'a> {
    /// The copy that the agent with this key can open.
    #[must_use]
    pub fn copy_for(self, key: &SealingKey) -> Option<&'a Sealed> {
        match self {
            Self::Own(password) => (password.agent_key == *key).then_some(&password.agent),
            Self::Shared(password) => password.copy_for(key),
        }
    }
}

impl Bmc<'_> {
    /// Whether nothing is missing that the driver cannot do without.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.driver.value == NULL || !(self.driver.value.is_empty() || self.address.is_empty())
    }
}

const fn valued<T>(value: T, from: Origin) -> Valued<T> {
    Valued { value, from }
}

/// A host's BMC settings in force, whether they are complete or not; absent when it has none. See [`options`] for the rest.
#[must_use]
pub fn bmc<'a>(view: &'a View, host: &'a HostRow) -> Option<Bmc<'a>> {
    Some(bmc_of(view.clusters.get(&host.cluster).map(|cluster| &**cluster), host.bmc.as_ref()?))
}

/// The same for settings and a cluster that need not be in the view.
pub(super) fn bmc_of<'a>(cluster: Option<&'a ClusterRow>, own: &'a BmcRow) -> Bmc<'a> {
    let defaults = cluster.map(|cluster| &cluster.bmc);
    let driver = match (&own.driver, defaults.and_then(|defaults| defaults.driver.as_deref())) {
        (Some(driver), _) => valued(driver.as_str(), Origin::Host),
        (None, Some(driver)) => valued(driver, Origin::Cluster),
        (None, None) => valued("", Origin::Default),
    };
    let (username, password) = login(defaults.filter(|_| driver.value != NULL), own);
    let port = match (own.port, of_driver(cluster, driver.value).and_then(|cluster| cluster.bmc.port)) {
        (Some(port), _) => valued(Some(port), Origin::Host),
        (None, Some(port)) => valued(Some(port), Origin::Cluster),
        (None, None) => valued(None, Origin::Default),
    };
    Bmc { driver, address: &own.address, port, username, password }
}

/// Name and password, both of one source.
fn login<'a>(defaults: Option<&'a super::view::DefaultsRow>, own: &'a BmcRow) -> (Valued<&'a str>, Option<Valued<Password<'a>>>) {
    if let Some(username) = &own.username {
        let password = own.password.as_ref().map(|password| valued(Password::Own(password), Origin::Host));
        return (valued(username, Origin::Host), password);
    }
    match defaults.and_then(|defaults| Some((defaults.username.as_deref()?, defaults.password.as_ref()))) {
        Some((username, password)) => {
            let password = password.map(|password| valued(Password::Shared(password), Origin::Cluster));
            (valued(username, Origin::Cluster), password)
        }
        None => (valued("", Origin::Default), None),
    }
}

/// The cluster, if its port and options are for this driver.
fn of_driver<'a>(cluster: Option<&'a ClusterRow>, driver: &str) -> Option<&'a ClusterRow> {
    cluster.filter(|cluster| cluster.bmc.driver.as_deref().is_none_or(|its| its == driver))
}

/// The driver's options in force that somebody set, key by key; its own defaults are not among them.
#[must_use]
pub fn options(view: &View, host: &HostRow) -> BTreeMap<String, Valued<String>> {
    let Some(bmc) = bmc(view, host) else { return BTreeMap::new() };
    let driver = bmc.driver.value;
    let cluster = of_driver(view.clusters.get(&host.cluster).map(|cluster| &**cluster), driver);
    let mut options: BTreeMap<String, Valued<String>> = BTreeMap::new();
    for (key, value) in site_options(&view.settings, driver) {
        options.insert(key.to_owned(), valued(value, Origin::Global));
    }
    for (key, value) in cluster.iter().flat_map(|cluster| &cluster.bmc.options) {
        options.insert(key.clone(), valued(value.clone(), Origin::Cluster));
    }
    for (key, value) in host.bmc.iter().flat_map(|own| &own.options) {
        options.insert(key.clone(), valued(value.clone(), Origin::Host));
    }
    options
}

/// The same together with what the driver takes when nobody sets it.
#[must_use]
pub fn options_with_defaults(view: &View, host: &HostRow) -> BTreeMap<String, Valued<String>> {
    let descriptor = bmc(view, host).and_then(|bmc| descriptor(&bmc));
    let defaults = descriptor.into_iter().flat_map(|driver| driver.options);
    let mut all: BTreeMap<String, Valued<String>> =
        defaults.filter_map(|option| Some((option.name.to_owned(), valued(option.default?.to_owned(), Origin::Default)))).collect();
    all.extend(options(view, host));
    all
}

/// What is known of the driver in force.
#[must_use]
pub fn descriptor(bmc: &Bmc<'_>) -> Option<&'static Descriptor> {
    driver::find(bmc.driver.value)
}

/// Options that the site's settings give to all hosts with a driver.
fn site_options(settings: &SiteSettings, driver: &str) -> impl Iterator<Item = (&'static str, String)> {
    let is_ipmitool = driver == driver::IPMITOOL.name;
    let interface = site(settings, |one| one.ipmitool_interface.clone()).map(|value| ("interface", value));
    let retries = site(settings, |one| one.ipmitool_retries).map(|value| ("retries", value.to_string()));
    interface.into_iter().chain(retries).filter(move |_| is_ipmitool)
}

/// A site-wide setting: the API's, else the file's.
pub(super) fn site<T>(settings: &SiteSettings, of: impl Fn(&Settings) -> Option<T>) -> Option<T> {
    of(&settings.api).or_else(|| of(&settings.file))
}

fn inherited(host: Option<u64>, cluster: Option<u64>, site: Option<u64>, default: u64) -> Valued<u64> {
    match (host, cluster, site) {
        (Some(value), ..) => valued(value, Origin::Host),
        (None, Some(value), _) => valued(value, Origin::Cluster),
        (None, None, Some(value)) => valued(value, Origin::Global),
        (None, None, None) => valued(default, Origin::Default),
    }
}

/// A host's poll interval in force, in seconds.
#[must_use]
pub fn poll_interval(view: &View, host: &HostRow) -> Valued<u64> {
    let cluster = view.clusters.get(&host.cluster).and_then(|cluster| cluster.poll_interval);
    inherited(host.poll_interval, cluster, site(&view.settings, |one| one.sync_interval), DEFAULT_SYNC_INTERVAL)
}

/// A host's time-out of operations in force, in seconds.
#[must_use]
pub fn action_timeout(view: &View, host: &HostRow) -> Valued<u64> {
    let cluster = view.clusters.get(&host.cluster).and_then(|cluster| cluster.action_timeout);
    inherited(host.action_timeout, cluster, site(&view.settings, |one| one.action_timeout), DEFAULT_ACTION_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use picket_common::api::{Field, SettingsPatch};
    use picket_common::wire::assign::BmcAssignment;
    use proptest::option::weighted;
    use proptest::prelude::*;

    use super::super::assign::host_assignment;
    use super::super::request::{BmcChange, ClusterChange, DefaultsChange, GivenShared, HostChange};
    use super::super::testing::*;
    use super::super::{Answer, Rejection, Request};
    use super::*;

    /// One field of one level, set to one of a few values or unset.
    #[derive(Debug, Clone)]
    enum Step {
        Cluster(Setting),
        Host(usize, Setting),
        Site(Setting),
    }

    #[derive(Debug, Clone)]
    enum Setting {
        Driver(Option<&'static str>),
        Port(Option<u16>),
        Login(Option<(&'static str, u8)>),
        Options(Option<Vec<(&'static str, u8)>>),
        Poll(Option<u64>),
        Timeout(Option<u64>),
    }

    fn setting() -> impl Strategy<Value = Setting> {
        prop_oneof![
            weighted(0.8, prop_oneof![Just("ipmi"), Just("ipmitool"), Just("null")]).prop_map(Setting::Driver),
            weighted(0.8, 1_u16..3).prop_map(Setting::Port),
            weighted(0.8, (prop_oneof![Just("admin"), Just("root")], 1_u8..3)).prop_map(Setting::Login),
            weighted(0.8, proptest::collection::vec((prop_oneof![Just("interface"), Just("a")], 1_u8..3), 0..3))
                .prop_map(Setting::Options),
            weighted(0.8, 1_u64..4).prop_map(Setting::Poll),
            weighted(0.8, 1_u64..4).prop_map(Setting::Timeout),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            setting().prop_map(Step::Cluster),
            (1_usize..3, setting()).prop_map(|(host, setting)| Step::Host(host, setting)),
            setting().prop_map(Step::Site)
        ]
    }

    fn field<T, U>(value: Option<T>, make: impl FnOnce(T) -> U) -> Field<U> {
        value.map_or(Field::Unset, |value| Field::Set(make(value)))
    }

    fn words(options: Vec<(&str, u8)>) -> BTreeMap<String, String> {
        options.into_iter().map(|(key, value)| (key.to_owned(), value.to_string())).collect()
    }

    fn cluster_change(setting: Setting) -> ClusterChange {
        let none = ClusterChange::default;
        let bmc = |bmc| ClusterChange { bmc: Field::Set(bmc), ..none() };
        let with = DefaultsChange::default;
        match setting {
            Setting::Driver(driver) => bmc(DefaultsChange { driver: field(driver, str::to_owned), ..with() }),
            Setting::Port(port) => bmc(DefaultsChange { port: field(port, |port| port), ..with() }),
            Setting::Options(options) => bmc(DefaultsChange { options: field(options, words), ..with() }),
            Setting::Login(None) => bmc(DefaultsChange { username: Field::Unset, ..with() }),
            Setting::Login(Some((name, byte))) => {
                let copies = vec![(SealingKey([1; 32]), Sealed(vec![byte, 9]))];
                let password = SharedPassword { copies, recovery: Sealed(vec![byte]) };
                let given = GivenShared { username: name.to_owned(), password };
                bmc(DefaultsChange { username: Field::Set(name.to_owned()), password: Field::Set(given), ..with() })
            }
            Setting::Poll(seconds) => ClusterChange { poll_interval: field(seconds, |seconds| seconds), ..none() },
            Setting::Timeout(seconds) => ClusterChange { action_timeout: field(seconds, |seconds| seconds), ..none() },
        }
    }

    fn host_change(host: usize, setting: Setting) -> HostChange {
        let none = HostChange::default;
        let bmc = |bmc| HostChange { bmc: Field::Set(bmc), ..none() };
        let with = BmcChange::default;
        match setting {
            Setting::Driver(driver) => bmc(BmcChange { driver: field(driver, str::to_owned), ..with() }),
            Setting::Port(port) => bmc(BmcChange { port: field(port, |port| port), ..with() }),
            Setting::Options(options) => bmc(BmcChange { options: field(options, words), ..with() }),
            Setting::Login(None) => bmc(BmcChange { username: Field::Unset, ..with() }),
            Setting::Login(Some((name, byte))) => {
                let mut given = given(1, &format!("10.0.0.{host}"), name);
                given.password.agent = Sealed(vec![byte]);
                bmc(BmcChange { username: Field::Set(name.to_owned()), password: Field::Set(given), ..with() })
            }
            Setting::Poll(seconds) => HostChange { poll_interval: field(seconds, |seconds| seconds), ..none() },
            Setting::Timeout(seconds) => HostChange { action_timeout: field(seconds, |seconds| seconds), ..none() },
        }
    }

    fn site_change(setting: Setting) -> SettingsPatch {
        let none = SettingsPatch::default;
        match setting {
            Setting::Poll(seconds) => SettingsPatch { sync_interval: field(seconds, |seconds| seconds), ..none() },
            Setting::Timeout(seconds) => SettingsPatch { action_timeout: field(seconds, |seconds| seconds), ..none() },
            Setting::Port(port) => SettingsPatch { ipmitool_retries: field(port, u64::from), ..none() },
            _ => SettingsPatch { ipmitool_interface: Field::Set("lan".into()), ..none() },
        }
    }

    fn take(world: &mut World, step: Step) -> Result<Answer, Rejection> {
        world.ask(match step {
            Step::Cluster(setting) => Request::PatchCluster(id("c1"), cluster_change(setting)),
            Step::Host(host, setting) => Request::PatchHost(id(&format!("h{host}")), host_change(host, setting)),
            Step::Site(setting) => Request::PatchSettings(site_change(setting)),
        })
    }

    /// What the agent is told of a host's BMC, and under which revision.
    fn told(view: &View, host: &HostRow) -> (Option<BmcAssignment>, u64) {
        let bmc = host_assignment(view, host).bmc.map(|bmc| BmcAssignment { revision: 0, ..bmc });
        (bmc, host.bmc.as_ref().map_or(0, |own| own.revision))
    }

    /// The rule in the words of the table above, field by field.
    fn is_in_force(view: &View, host: &HostRow) {
        let (own, cluster) = (host.bmc.as_ref().unwrap(), &view.clusters[&host.cluster]);
        let (defaults, api) = (&cluster.bmc, &view.settings.api);
        let driver = own.driver.clone().or(defaults.driver.clone());
        let same_driver = defaults.driver.is_none() || defaults.driver == driver;
        let bmc = bmc(view, host).unwrap();
        assert_eq!(bmc.driver.value, driver.clone().unwrap_or_default());
        assert_eq!(bmc.port.value, own.port.or(defaults.port.filter(|_| same_driver)));
        let copy = |password: Valued<Password<'_>>| password.value.copy_for(&SealingKey([1; 32])).cloned();
        let is_null = driver.as_deref() == Some("null");
        let (name, password) = match (&own.username, &defaults.username) {
            (Some(name), _) => (name.as_str(), own.password.as_ref().map(|password| password.agent.clone())),
            (None, Some(name)) if !is_null => {
                (name.as_str(), defaults.password.as_ref().and_then(|password| password.copy_for(&SealingKey([1; 32])).cloned()))
            }
            _ => ("", None),
        };
        assert_eq!((bmc.username.value, bmc.password.and_then(copy)), (name, password));
        let options = options(view, host);
        let is_ipmitool = driver.as_deref() == Some("ipmitool");
        for (key, global) in [
            ("interface", api.ipmitool_interface.clone().filter(|_| is_ipmitool)),
            ("retries", api.ipmitool_retries.map(|n| n.to_string()).filter(|_| is_ipmitool)),
            ("a", None),
        ] {
            let shared = defaults.options.get(key).filter(|_| same_driver);
            let wanted = own.options.get(key).or(shared).cloned().or(global);
            assert_eq!(options.get(key).map(|option| option.value.clone()), wanted, "{key}");
        }
        let poll = host.poll_interval.or(cluster.poll_interval).or(api.sync_interval).unwrap_or(10);
        let timeout = host.action_timeout.or(cluster.action_timeout).or(api.action_timeout).unwrap_or(60);
        assert_eq!((poll_interval(view, host).value, action_timeout(view, host).value), (poll, timeout));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn host_then_cluster_then_site_then_default(steps in proptest::collection::vec(step(), 1..40)) {
            let mut world = World::running(2);
            let hosts = ["h1", "h2"];
            for step in steps {
                let view = world.fleet.view();
                let before = hosts.map(|host| told(&view, &world.host(host)));
                let taken = take(&mut world, step.clone()).is_ok();
                let view = world.fleet.view();
                for (name, (bmc, revision)) in hosts.into_iter().zip(before) {
                    let host = world.host(name);
                    is_in_force(&view, &host);
                    let after = told(&view, &host);
                    prop_assert_eq!(after.1 > revision, after.0 != bmc, "{:?} of {}, taken: {}", step, name, taken);
                    prop_assert!(after.1 >= revision && (taken || after.1 == revision));
                }
            }
        }
    }

    #[test]
    fn each_value_says_where_it_comes_from() {
        let mut world = World::running(2);
        for step in [
            Step::Cluster(Setting::Driver(Some("ipmitool"))),
            Step::Cluster(Setting::Port(Some(7))),
            Step::Cluster(Setting::Login(Some(("admin", 1)))),
            Step::Cluster(Setting::Options(Some(vec![("a", 1), ("b", 1)]))),
            Step::Cluster(Setting::Poll(Some(3))),
            Step::Site(Setting::Timeout(Some(4))),
            Step::Site(Setting::Options(None)),
            Step::Host(1, Setting::Driver(None)),
            Step::Host(1, Setting::Options(Some(vec![("b", 2)]))),
        ] {
            take(&mut world, step).unwrap();
        }
        let view = world.fleet.view();
        let shown =
            |host: &str| serde_json::to_value(super::super::json::whole_host_json(&view, &world.host(host)).effective).unwrap();
        let (h1, h2) = (shown("h1"), shown("h2"));
        let of = |json: &serde_json::Value, field: &str| format!("{} {}", json[field]["value"], json[field]["from"]);
        for (json, field, wanted) in [
            (&h1, "driver", r#""ipmitool" "cluster""#),
            (&h1, "address", r#""10.0.0.1" "host""#),
            (&h1, "port", r#"7 "cluster""#),
            (&h1, "username", r#""admin" "cluster""#),
            (&h1, "password_set", r#"true "cluster""#),
            (&h1, "poll_interval", r#"3 "cluster""#),
            (&h1, "action_timeout", r#"4 "global""#),
            (&h1["options"], "a", r#""1" "cluster""#),
            (&h1["options"], "b", r#""2" "host""#),
            (&h1["options"], "interface", r#""lan" "global""#),
            (&h1["options"], "retries", r#""1" "default""#),
            (&h2, "driver", r#""ipmi" "host""#),
            (&h2, "port", r#"623 "default""#),
            (&h2, "username", r#""admin" "cluster""#),
            (&h2["options"], "a", "null null"),
            (&h2["options"], "interface", r#""lanplus" "default""#),
        ] {
            assert_eq!(of(json, field), wanted, "{field}");
        }
    }
}
