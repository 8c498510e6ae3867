//! What a request asks for, in one line for the audit log. Names what is set and never a password: only that there is one.

use std::collections::BTreeSet;
use std::fmt::Display;

use picket_common::api::ha::{BrakesPatch, HaPatch};
use picket_common::api::{Field, SettingsPatch};
use picket_common::command::{Action, HaAction};
use picket_common::hostset::fold;
use picket_common::id::HostId;

use super::request::{BmcChange, Bulk, ClusterChange, ClusterSpec, DefaultsChange, HostChange, HostSpec, Import, Request, Until};

/// Longest line, in bytes: labels and the like can be long.
const MAX_LINE: usize = 500;

/// `a=1 b=2`.
#[derive(Default)]
struct Words(String);

impl Words {
    fn word(mut self, name: &str, value: impl Display) -> Self {
        let space = if self.0.is_empty() { "" } else { " " };
        self.0 += &format!("{space}{name}={value}");
        self
    }

    fn maybe(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.word(name, value),
            None => self,
        }
    }

    fn field<T: Display>(self, name: &str, field: &Field<T>) -> Self {
        match field {
            Field::Keep => self,
            Field::Unset => self.word(name, "null"),
            Field::Set(value) => self.word(name, value),
        }
    }

    /// A field of which only is said that it is set.
    fn hidden<T>(self, name: &str, field: &Field<T>) -> Self {
        match field {
            Field::Keep => self,
            Field::Unset => self.word(name, "null"),
            Field::Set(_) => self.word(name, "set"),
        }
    }

    /// What a part of the request changes, name by name.
    fn changes<T>(self, part: &str, field: &Field<T>, changes: impl Fn(&T) -> Vec<(&'static str, String)>) -> Self {
        match field {
            Field::Set(patch) => {
                changes(patch).into_iter().fold(self, |words, (name, value)| words.word(&format!("{part}.{name}"), value))
            }
            Field::Keep | Field::Unset => self.hidden(part, field),
        }
    }

    fn line(self) -> Option<String> {
        let mut line = self.0;
        line.retain(|c| !c.is_control());
        if line.len() > MAX_LINE {
            let end = (0..=MAX_LINE).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
            line.truncate(end);
            line.push('…');
        }
        (!line.is_empty()).then_some(line)
    }
}

/// What `request` asks for, in one line.
#[must_use]
pub fn summary(request: &Request) -> Option<String> {
    let words = Words::default();
    match request {
        Request::PutZone(..)
        | Request::DeleteZone(_)
        | Request::DeleteCluster(_)
        | Request::DeleteRack(_)
        | Request::DeleteHost(_)
        | Request::CancelOperation(_)
        | Request::RemoveApiToken(_)
        | Request::AckAlert { .. }
        | Request::EndSilence(_)
        | Request::Resume(_) => words,
        Request::AddSilence(spec) => words.word("matchers", spec.matchers.len()),
        Request::PutCluster(_, spec) => cluster(words, spec),
        Request::PatchCluster(_, change) => cluster_change(words, change),
        Request::PutRack(_, body) => words.word("zone", &body.zone),
        Request::PutHost(_, spec) => host(words, spec),
        Request::PatchHost(_, change) => host_change(words, change),
        Request::ImportHosts(import) => imported(words, import),
        Request::SetOobm(_, open) => words.word("oobm", if *open { "enabled" } else { "disabled" }),
        Request::SetHa(_, open) => words.word("ha", if *open { "enabled" } else { "disabled" }),
        Request::Pause(_, spec) => match spec.until {
            Until::At(end) => words.word("until", end),
            Until::After(time) => words.word("minutes", time.as_secs() / 60),
        },
        Request::Power { operation, timeout, on_if_off, .. } => ordered(words, operation, *timeout, *on_if_off),
        Request::Ha { action, timeout, .. } => ordered(words, &Action::Ha(*action), *timeout, false),
        Request::Operate(bulk) => operate(words, bulk),
        Request::ChangePassword { timeout, .. } => words.word("operation", "change-password").maybe("timeout", *timeout),
        Request::ResolvePassword { in_force, .. } => words.word("in_force", format_args!("{in_force:?}")),
        Request::Reseal(_, _, items) => words.word("passwords", items.len()),
        Request::PatchSettings(patch) => settings(words, patch),
        Request::AddJoinToken(row) => words.word("agent", &row.agent).word("rack", &row.rack).word("expires_at", row.expires_at),
        Request::AddWitnessToken(row) => words.word("witness", &row.host).word("expires_at", row.expires_at),
        Request::Join { public_key, .. } | Request::JoinWitness { public_key, .. } => words.word("public_key", public_key),
        Request::AddApiToken(row) => {
            let scope = serde_json::to_string(&row.scope).unwrap_or_default();
            let role = crate::authorise::role_name(row.role);
            words.word("name", &row.name).word("role", role).word("scope", scope).maybe("expires_at", row.expires_at)
        }
    }
    .line()
}

fn cluster(words: Words, spec: &ClusterSpec) -> Words {
    let ClusterSpec { zone, poll_interval, action_timeout, bmc, ha, brakes } = spec;
    let words = words.word("zone", zone).maybe("poll_interval", *poll_interval).maybe("action_timeout", *action_timeout);
    let words = words.changes("ha", ha, HaPatch::changes).changes("brakes", brakes, BrakesPatch::changes);
    defaults(words, bmc)
}

fn cluster_change(words: Words, change: &ClusterChange) -> Words {
    let ClusterChange { zone, poll_interval, action_timeout, bmc, ha, brakes } = change;
    let words = words.maybe("zone", zone.as_ref());
    let words = words.changes("ha", ha, HaPatch::changes).changes("brakes", brakes, BrakesPatch::changes);
    defaults(words.field("poll_interval", poll_interval).field("action_timeout", action_timeout), bmc)
}

fn defaults(words: Words, bmc: &Field<DefaultsChange>) -> Words {
    let Field::Set(DefaultsChange { driver, port, username, password, options }) = bmc else { return words.hidden("bmc", bmc) };
    let words = words.field("bmc.driver", driver).field("bmc.port", port).field("bmc.username", username);
    words.hidden("bmc.password", password).hidden("bmc.options", options)
}

/// What a host of an import is to be, in one line.
pub(super) fn host_line(spec: &HostSpec, oobm: Option<bool>) -> Option<String> {
    host(Words::default(), spec).maybe("oobm", oobm.map(|open| if open { "enabled" } else { "disabled" })).line()
}

fn imported(words: Words, import: &Import) -> Words {
    let hosts: BTreeSet<HostId> = import.hosts.iter().map(|host| host.id.clone()).collect();
    words.word("hosts", hosts.len()).word("names", fold(&hosts))
}

fn host(words: Words, spec: &HostSpec) -> Words {
    let HostSpec { cluster, zone: _, rack, bmc: own, maintenance, poll_interval, action_timeout, labels, ha } = spec;
    let words = words.word("cluster", cluster).word("rack", rack).word("maintenance", maintenance);
    let words = words.maybe("poll_interval", *poll_interval).maybe("action_timeout", *action_timeout);
    let words = if labels.is_empty() { words } else { words.word("labels", labels.len()) };
    let words = words.changes("ha", ha, HaPatch::changes);
    match own {
        Some(own) => bmc(words, own),
        None => words,
    }
}

fn host_change(words: Words, change: &HostChange) -> Words {
    let HostChange { cluster, rack, bmc: own, maintenance, poll_interval, action_timeout, labels, ha } = change;
    let words = words.maybe("cluster", cluster.as_ref()).maybe("rack", rack.as_ref()).maybe("maintenance", *maintenance);
    let words = words.field("poll_interval", poll_interval).field("action_timeout", action_timeout);
    let words = words.maybe("labels", labels.as_ref().map(std::collections::BTreeMap::len));
    let words = words.changes("ha", ha, HaPatch::changes);
    match own {
        Field::Set(own) => bmc(words, own),
        Field::Keep | Field::Unset => words.hidden("bmc", own),
    }
}

fn bmc(words: Words, change: &BmcChange) -> Words {
    let BmcChange { driver, address, port, username, password, options, repin } = change;
    let words = words.field("bmc.driver", driver).field("bmc.address", address).field("bmc.port", port);
    let words = words.field("bmc.username", username).hidden("bmc.password", password).hidden("bmc.options", options);
    if *repin { words.word("bmc.repin", true) } else { words }
}

fn ordered(words: Words, operation: &Action, timeout: Option<u64>, on_if_off: bool) -> Words {
    let words = words.word("operation", operation.as_str());
    let words = match operation {
        Action::Identify { seconds } => words.word("seconds", seconds),
        Action::Bootdev { device, persistence } => {
            words.word("device", format_args!("{device:?}")).word("persistence", format_args!("{persistence:?}"))
        }
        Action::Ha(HaAction::Fence { overrides }) if !overrides.is_empty() => {
            let names = serde_json::to_string(overrides).unwrap_or_default();
            words.word("overrides", names)
        }
        Action::Ha(HaAction::Confirm { force: true }) => words.word("force", true),
        Action::On
        | Action::Off
        | Action::Cycle
        | Action::Reset
        | Action::Soft
        | Action::Status
        | Action::Diag
        | Action::Test
        | Action::ChangePassword
        | Action::Ha(_) => words,
    };
    let words = words.maybe("timeout", timeout);
    if on_if_off { words.word("on_if_off", true) } else { words }
}

fn operate(words: Words, bulk: &Bulk) -> Words {
    let Bulk { id: _, hosts, operation, timeout, reason: _, on_if_off, stagger_ms } = bulk;
    let words = ordered(words, operation, *timeout, *on_if_off).word("hosts", hosts.len());
    let words = if *stagger_ms > 0 { words.word("stagger_ms", stagger_ms) } else { words };
    let named: Vec<&str> = hosts.iter().map(HostId::as_str).collect();
    words.word("names", named.join(","))
}

fn settings(words: Words, patch: &SettingsPatch) -> Words {
    let SettingsPatch { sync_interval, action_timeout, sync_poolsize, ipmitool_interface, ipmitool_retries } = patch;
    let words = words.field("sync_interval", sync_interval).field("action_timeout", action_timeout);
    let words = words.field("sync_poolsize", sync_poolsize).field("ipmitool.interface", ipmitool_interface);
    words.field("ipmitool.retries", ipmitool_retries)
}

#[cfg(test)]
mod tests {
    use super::super::request::Given;
    use super::super::testing::{id, ipmi, operation, sealed, spec};
    use super::*;

    #[test]
    fn a_line_says_what_is_asked_and_no_secret() {
        let own = BmcChange { port: Field::Unset, ..ipmi("10.0.0.1") };
        let password = Given { address: "10.0.0.1".into(), username: "root".into(), password: sealed(7) };
        let with_password = BmcChange { password: Field::Set(password), ..BmcChange::default() };
        let change = HostChange { bmc: Field::Set(with_password), maintenance: Some(true), ..HostChange::default() };
        let bulk = |count: usize| Bulk {
            id: operation(1),
            hosts: (0..count).map(|n| id(&format!("h{n}"))).collect(),
            operation: Action::Identify { seconds: 5 },
            timeout: Some(9),
            reason: None,
            on_if_off: false,
            stagger_ms: 100,
        };
        for (request, wanted) in [
            (Request::DeleteZone(id("z1")), None),
            (
                Request::PutHost(id("h1"), spec("c1", "r1", Some(own))),
                Some("cluster=c1 rack=r1 maintenance=false bmc.driver=ipmi bmc.address=10.0.0.1 bmc.port=null"),
            ),
            (Request::PatchHost(id("h1"), change), Some("maintenance=true bmc.password=set")),
            (Request::Operate(bulk(2)), Some("operation=identify seconds=5 timeout=9 hosts=2 stagger_ms=100 names=h0,h1")),
        ] {
            assert_eq!(summary(&request).as_deref(), wanted);
        }
        let long = summary(&Request::Operate(bulk(10_000))).unwrap();
        assert!(long.len() <= MAX_LINE + 3 && long.ends_with('…'), "{long}");
    }
}
