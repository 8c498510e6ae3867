//! Host-HA's settings, gates and pauses: checked, kept, and which of them are in force: the host's own, else its cluster's, else
//! the default.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use picket_common::api::ha::{Brakes, BrakesOwn, BrakesPatch, BrakesView, HaOwn, HaPatch, PauseWindow};
use picket_common::api::{Field, Origin, Valued};
use picket_common::clock::Now;
use picket_common::ha::settings::{
    ActivityCheck, HaSettings, HealthCheck, LEAST_CONFIRMATIONS, MAX_CHECKS, MAX_FILES, MAX_NEIGHBOURS, Neighbour,
};
use picket_common::id::{ClusterId, HostId, MAX_ID_LEN};
use picket_common::wire::ha::HaClosed;
use serde_json::{Map, Value};

use crate::fleet::alerts::Until;
use crate::fleet::bmc::{invalid, is_address};
use crate::fleet::request::{Answer, Gate, PauseSpec, Rejection};
use crate::fleet::settings::not_found;
use crate::fleet::view::{HaRow, HaSet, HostRow, Row, RowKey, View};
use crate::fleet::{Fleet, Record};

/// What stands for the host's id in the texts of checks.
const HOST: &str = "{host}";
/// Longest text of a check, in bytes, with the longest id in it.
const MAX_TEXT: usize = 1024;
/// All texts of a level's activity checks, in bytes: a host's must fit one frame.
const MAX_TEXTS: usize = 24 * 1024;
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(31 * 24 * 3600);

/// A gate as somebody set it.
#[must_use]
pub fn gate(view: &View, of: &Gate) -> Option<bool> {
    view.ha.get(of).and_then(|set| set.gate)
}

/// The first HA gate of a host that is closed: absent = enabled for zone and cluster, disabled for the host.
#[must_use]
pub fn closed(view: &View, host: &HostRow) -> Option<HaClosed> {
    let of = |at: Gate| gate(view, &at);
    if of(Gate::Zone(host.zone.clone())) == Some(false) {
        return Some(HaClosed::Zone);
    }
    if of(Gate::Cluster(host.cluster.clone())) == Some(false) {
        return Some(HaClosed::Cluster);
    }
    (of(Gate::Host(host.id.clone())) != Some(true)).then_some(HaClosed::Host)
}

/// Whether host-HA was ever set up for a host: its agent is told of it.
pub(super) fn is_concerned(view: &View, host: &HostId) -> bool {
    view.ha.contains_key(&Gate::Host(host.clone()))
}

/// The pause that is over a host, its own or its cluster's: the one that ends last.
#[must_use]
pub fn pause<'a>(view: &'a View, host: &HostRow) -> Option<&'a PauseWindow> {
    let of = |at: Gate| view.ha.get(&at).and_then(|set| set.pause.as_ref());
    let both = [of(Gate::Host(host.id.clone())), of(Gate::Cluster(host.cluster.clone()))];
    both.into_iter().flatten().max_by_key(|pause| pause.until)
}

/// The settings in force for a host, its id in its checks.
#[must_use]
pub fn in_force(view: &View, host: &HostRow) -> HaSettings {
    let (own, cluster) = levels(view, host);
    let mut settings = own.over(&cluster);
    for check in &mut settings.health {
        texts_of_health(check).into_iter().for_each(|text| name(text, host));
    }
    for check in &mut settings.activity {
        texts_of_activity(check).into_iter().for_each(|text| name(text, host));
    }
    settings
}

fn name(text: &mut String, host: &HostRow) {
    if text.contains(HOST) {
        *text = text.replace(HOST, host.id.as_str());
    }
}

fn levels(view: &View, host: &HostRow) -> (HaOwn, HaOwn) {
    let of = |at: Gate| view.ha.get(&at).map(|set| set.settings.clone()).unwrap_or_default();
    (of(Gate::Host(host.id.clone())), of(Gate::Cluster(host.cluster.clone())))
}

/// The same by name, each with where it comes from; empty while nobody set anything of host-HA for the host.
#[must_use]
pub fn settings_json(view: &View, host: &HostRow) -> BTreeMap<String, Valued<Value>> {
    let (own, cluster) = levels(view, host);
    if own == HaOwn::default() && cluster == HaOwn::default() && !is_concerned(view, &host.id) {
        return BTreeMap::new();
    }
    let (own, cluster) = (object(&own), object(&cluster));
    let from = |name: &str| match (own.contains_key(name), cluster.contains_key(name)) {
        (true, _) => Origin::Host,
        (false, true) => Origin::Cluster,
        (false, false) => Origin::Default,
    };
    let all = object(&in_force(view, host));
    all.into_iter().map(|(name, value)| (name.clone(), Valued { value, from: from(&name) })).collect()
}

/// A struct's JSON; settings always have one.
fn object(of: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The brakes in force for a cluster.
pub(super) fn brakes(view: &View, cluster: &ClusterId) -> Brakes {
    let own = view.ha.get(&Gate::Cluster(cluster.clone())).map(|set| set.brakes.clone()).unwrap_or_default();
    own.over(&BrakesOwn::default())
}

/// The same as they are shown; none while nobody set up anything of host-HA in the cluster.
#[must_use]
pub fn brakes_json(view: &View, cluster: &ClusterId) -> Option<BrakesView> {
    let agents = super::tell::agents_of(view, cluster).len();
    if agents == 0 && !view.ha.contains_key(&Gate::Cluster(cluster.clone())) {
        return None;
    }
    let (brakes, agents) = (brakes(view, cluster), u16::try_from(agents).unwrap_or(u16::MAX));
    Some(BrakesView { worst_case: brakes.cap.max(agents), brakes, agents })
}

fn texts_of_health(check: &mut HealthCheck) -> Vec<&mut String> {
    match check {
        HealthCheck::Witness { address, .. } | HealthCheck::Tcp { address, .. } | HealthCheck::Icmp { address } => vec![address],
        HealthCheck::Http { url } => vec![url],
        HealthCheck::Exec { check } => vec![check],
    }
}

fn texts_of_activity(check: &mut ActivityCheck) -> Vec<&mut String> {
    match check {
        ActivityCheck::Files { paths } => paths.iter_mut().collect(),
        ActivityCheck::Witness { paths, neighbours } => {
            paths.iter_mut().chain(neighbours.iter_mut().map(|neighbour| &mut neighbour.address)).collect()
        }
        ActivityCheck::Heartbeat { path } => vec![path],
        ActivityCheck::Exec { check } => vec![check],
    }
}

impl Fleet {
    /// What will be set there, if that can be; changes nothing. `whole` = fields that are not given are inherited from then on.
    pub(in crate::fleet) fn planned_ha(
        &self,
        at: &Gate,
        ha: Field<HaPatch>,
        brakes: Field<BrakesPatch>,
        whole: bool,
    ) -> Result<HaSet, Rejection> {
        let mut set = self.view.ha.get(at).map(|set| (**set).clone()).unwrap_or_default();
        set.settings = match ha {
            Field::Keep => set.settings,
            Field::Unset => HaOwn::default(),
            Field::Set(patch) if whole => HaOwn::default().patched(patch),
            Field::Set(patch) => set.settings.patched(patch),
        };
        set.brakes = match brakes {
            Field::Keep => set.brakes,
            Field::Unset => BrakesOwn::default(),
            Field::Set(patch) if whole => BrakesOwn::default().patched(patch),
            Field::Set(patch) => set.brakes.patched(patch),
        };
        check_settings(&set.settings)?;
        check_brakes(&set.brakes)?;
        Ok(set)
    }

    /// Keeps what is set there, and tells the agents it concerns.
    pub(in crate::fleet) fn keep_ha(&mut self, at: Gate, set: HaSet) {
        if self.view.ha.get(&at).map_or(set == HaSet::default(), |before| **before == set) {
            return;
        }
        // Rows always have a JSON form.
        let json = serde_json::to_string(&set).unwrap_or_default();
        self.draft.put(Row::Ha(HaRow { of: at.clone(), json }));
        self.view.ha.insert(at.clone(), Arc::new(set));
        self.concern_ha_at(&at);
        self.reconsider_ha(&at);
    }

    /// A zone, cluster or host is gone.
    pub(in crate::fleet) fn forget_ha(&mut self, at: &Gate) {
        if self.view.ha.remove(at).is_some() {
            self.draft.records.push(Record::Remove(RowKey::Ha(at.clone())));
        }
    }

    /// A stored row. One that does not read closes its gate: nothing is done on the word of what nobody can read.
    pub(in crate::fleet) fn load_ha(&mut self, row: HaRow) {
        let unreadable = || HaSet { gate: Some(false), ..HaSet::default() };
        let set = serde_json::from_str(&row.json).unwrap_or_else(|_| unreadable());
        self.view.ha.insert(row.of, Arc::new(set));
    }

    /// Opens or closes an HA gate.
    pub(in crate::fleet) fn set_ha(&mut self, at: &Gate, open: bool) -> Result<Answer, Rejection> {
        self.is_there(at)?;
        let mut set = self.planned_ha(at, Field::Keep, Field::Keep, false)?;
        set.gate = Some(open);
        self.keep_ha(at.clone(), set);
        Ok(Answer::Done { created: false })
    }

    /// Nothing disruptive is done by itself for a while.
    pub(in crate::fleet) fn pause_ha(
        &mut self,
        principal: &str,
        at: &Gate,
        spec: PauseSpec,
        now: Now,
    ) -> Result<Answer, Rejection> {
        self.is_there(at)?;
        let until = match spec.until {
            Until::At(end) => end,
            Until::After(time) => now.wall.saturating_add(time).unwrap_or(Timestamp::MAX),
        };
        let last = now.wall.saturating_add(LONGEST_PAUSE).unwrap_or(Timestamp::MAX);
        if until <= now.wall || until > last {
            let text = format!("{until} is not within {} days from now", LONGEST_PAUSE.as_secs() / (24 * 3600));
            return Err(invalid("until", text));
        }
        let mut set = self.planned_ha(at, Field::Keep, Field::Keep, false)?;
        set.pause = Some(PauseWindow { owner: principal.to_owned(), until, reason: spec.reason });
        self.keep_ha(at.clone(), set);
        Ok(Answer::Done { created: false })
    }

    /// Ends a pause; there need not be one.
    pub(in crate::fleet) fn resume_ha(&mut self, at: &Gate) -> Result<Answer, Rejection> {
        self.is_there(at)?;
        let mut set = self.planned_ha(at, Field::Keep, Field::Keep, false)?;
        set.pause = None;
        self.keep_ha(at.clone(), set);
        Ok(Answer::Done { created: false })
    }

    fn is_there(&self, at: &Gate) -> Result<(), Rejection> {
        match at {
            Gate::Zone(id) if !self.view.zones.contains_key(id) => Err(not_found("zone", id)),
            Gate::Cluster(id) if !self.view.clusters.contains_key(id) => Err(not_found("cluster", id)),
            Gate::Host(id) if !self.view.hosts.contains_key(id) => Err(not_found("host", id)),
            Gate::Zone(_) | Gate::Cluster(_) | Gate::Host(_) => Ok(()),
        }
    }
}

/// A number that must lie within bounds.
type Bounded = (&'static str, Option<u32>, u32, u32);

fn check_numbers(numbers: &[Bounded]) -> Result<(), Rejection> {
    for &(field, value, least, most) in numbers {
        if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
            return Err(invalid(field, format!("{value} is not within {least} to {most}")));
        }
    }
    Ok(())
}

fn check_settings(own: &HaOwn) -> Result<(), Rejection> {
    const DAY: u32 = 24 * 3600;
    check_numbers(&[
        ("ha.health_interval", own.health_interval.map(u32::from), 1, 3600),
        ("ha.health_timeout", own.health_timeout.map(u32::from), 1, 600),
        ("ha.failures", own.failures.map(u32::from), 1, 100),
        ("ha.activity_interval", own.activity_interval.map(u32::from), 1, 3600),
        ("ha.activity_timeout", own.activity_timeout.map(u32::from), 1, 600),
        ("ha.samples", own.samples.map(u32::from), 1, 100),
        ("ha.recheck", own.recheck, 1, DAY),
        ("ha.recovery_attempts", own.recovery_attempts.map(u32::from), 0, 10),
        ("ha.boot_wait", own.boot_wait, 1, DAY),
        ("ha.stable", own.stable, 1, DAY),
        ("ha.fence_attempts", own.fence_attempts.map(u32::from), 1, 1000),
        ("ha.fence_retry", own.fence_retry, 1, DAY),
        ("ha.settle", own.settle.map(u32::from), 1, 600),
        ("ha.confirmations", own.confirmations.map(u32::from), u32::from(LEAST_CONFIRMATIONS), 10),
        ("ha.confirm_within", own.confirm_within.map(u32::from), 1, 600),
        ("ha.startup_quiet", own.startup_quiet, 0, 3600),
    ])?;
    check_health(own.health.as_deref().unwrap_or_default())?;
    check_activity(own.activity.as_deref().unwrap_or_default())
}

fn check_brakes(own: &BrakesOwn) -> Result<(), Rejection> {
    check_numbers(&[
        ("brakes.cap", own.cap.map(u32::from), 0, 1000),
        ("brakes.cap_window", own.cap_window, 60, 7 * 24 * 3600),
        ("brakes.storm_rack", own.storm_rack.map(u32::from), 1, 100),
        ("brakes.storm_cluster", own.storm_cluster.map(u32::from), 1, 100),
        ("brakes.storm_zone", own.storm_zone.map(u32::from), 1, 100),
        ("brakes.cool_down", own.cool_down, 0, 24 * 3600),
        ("brakes.cliff", own.cliff.map(u32::from), 0, 100),
    ])
}

fn check_health(checks: &[HealthCheck]) -> Result<(), Rejection> {
    const FIELD: &str = "ha.health";
    if checks.len() > MAX_CHECKS {
        return Err(invalid(FIELD, format!("at most {MAX_CHECKS} checks")));
    }
    for check in checks {
        match check {
            HealthCheck::Witness { address, port } => check_place(FIELD, address, *port)?,
            HealthCheck::Tcp { address, port } => check_place(FIELD, address, Some(*port))?,
            HealthCheck::Icmp { address } => check_place(FIELD, address, None)?,
            HealthCheck::Http { url } => check_url(FIELD, url)?,
            HealthCheck::Exec { check } => check_program(FIELD, check)?,
        }
    }
    Ok(())
}

fn check_activity(checks: &[ActivityCheck]) -> Result<(), Rejection> {
    const FIELD: &str = "ha.activity";
    if checks.len() > MAX_CHECKS {
        return Err(invalid(FIELD, format!("at most {MAX_CHECKS} checks")));
    }
    let mut texts = 0;
    for check in checks {
        match check {
            ActivityCheck::Files { paths } => check_paths(FIELD, paths)?,
            ActivityCheck::Witness { paths, neighbours } => {
                check_paths(FIELD, paths)?;
                if neighbours.len() > MAX_NEIGHBOURS {
                    return Err(invalid(FIELD, format!("at most {MAX_NEIGHBOURS} neighbours")));
                }
                neighbours.iter().try_for_each(|Neighbour { address, port, .. }| check_place(FIELD, address, *port))?;
            }
            ActivityCheck::Heartbeat { path } => check_path(FIELD, path)?,
            ActivityCheck::Exec { check } => check_program(FIELD, check)?,
        }
        texts += texts_of_activity(&mut check.clone()).into_iter().map(|text| longest(text)).sum::<usize>();
    }
    if texts > MAX_TEXTS {
        return Err(invalid(FIELD, format!("at most {MAX_TEXTS} bytes of paths altogether")));
    }
    Ok(())
}

/// A text's length with the longest id in it.
fn longest(text: &str) -> usize {
    text.len() + text.matches(HOST).count() * MAX_ID_LEN
}

fn check_text(field: &'static str, text: &str) -> Result<(), Rejection> {
    if text.is_empty() || longest(text) > MAX_TEXT || text.chars().any(char::is_control) {
        let shown: String = text.chars().take(32).collect();
        return Err(invalid(field, format!("{shown:?} is empty, longer than {MAX_TEXT} bytes, or holds control characters")));
    }
    Ok(())
}

fn check_place(field: &'static str, address: &str, port: Option<u16>) -> Result<(), Rejection> {
    check_text(field, address)?;
    if !is_address(&address.replace(HOST, "h")) {
        return Err(invalid(field, format!("{address:?} is not an IP address or host name; give it without scheme, port or path")));
    }
    if port == Some(0) { Err(invalid(field, "0 is not a port; use 1 to 65535")) } else { Ok(()) }
}

fn check_url(field: &'static str, url: &str) -> Result<(), Rejection> {
    check_text(field, url)?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let is_plain = |authority: &str| !authority.is_empty() && !authority.contains('@');
    if !authority.is_some_and(is_plain) || url.contains(char::is_whitespace) {
        return Err(invalid(field, format!("{url:?} is not an http:// or https:// URL without a login")));
    }
    Ok(())
}

/// A program by its name in the agent's own file: never a path or a command.
fn check_program(field: &'static str, name: &str) -> Result<(), Rejection> {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if name.is_empty() || name.len() > 64 || !is_name(name) {
        let shown: String = name.chars().take(32).collect();
        return Err(invalid(field, format!("{shown:?} is not the name of a check in the agent's own file")));
    }
    Ok(())
}

fn check_path(field: &'static str, path: &str) -> Result<(), Rejection> {
    check_text(field, path)?;
    if path.starts_with('/') {
        return Ok(());
    }
    Err(invalid(field, format!("{path:?} is not an absolute path")))
}

/// None is what the host's own witness tells.
fn check_paths(field: &'static str, paths: &[String]) -> Result<(), Rejection> {
    if paths.len() > MAX_FILES {
        return Err(invalid(field, format!("a check takes at most {MAX_FILES} paths")));
    }
    paths.iter().try_for_each(|path| check_path(field, path))
}
