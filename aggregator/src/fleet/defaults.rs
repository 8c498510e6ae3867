//! What a cluster's hosts inherit: put, changed, and carried to every host whose settings in force change with it.

use std::sync::Arc;

use picket_common::api::Field;
use picket_common::clock::Now;
use picket_common::id::{ClusterId, HostId};

use super::Fleet;
use super::assign::{Assigned, assigned};
use super::bmc::{check_driver, check_options, check_port, check_username, invalid, unless_empty};
use super::request::{Answer, ClusterChange, ClusterSpec, DefaultsChange, Gate, Rejection};
use super::settings::{check_seconds, not_found};
use super::view::{ClusterRow, DefaultsRow, Row};

/// With those of a host and of the site a host has no more than the wire takes.
const MAX_OPTIONS: usize = 10;
const MAX_OPTIONS_LEN: usize = 4 * 1024;

/// The defaults after `change`. `whole` = fields that are not given go; else they stay.
fn merge(base: &DefaultsRow, change: DefaultsChange, whole: bool) -> Result<DefaultsRow, Rejection> {
    let nothing = DefaultsRow::default();
    let kept = if whole { &nothing } else { base };
    let username = unless_empty(change.username);
    let leaves_login = matches!(username, Field::Unset);
    let driver = unless_empty(change.driver).over(kept.driver.clone());
    let mut defaults = DefaultsRow {
        driver: driver.map(|driver| check_driver(&driver)).transpose()?,
        port: change.port.over(kept.port),
        username: username.over(kept.username.clone()),
        password: None,
        options: change.options.over(Some(kept.options.clone())).unwrap_or_default(),
    };
    check_port(defaults.port)?;
    check_username(defaults.username.as_deref().unwrap_or_default())?;
    check_options(&defaults.options, MAX_OPTIONS, MAX_OPTIONS_LEN)?;
    if defaults.driver.is_none() && !defaults.options.is_empty() {
        return Err(invalid("bmc.options", "belong to a driver; give the cluster's bmc.driver with them"));
    }
    defaults.password = match change.password {
        Field::Set(given) => match &defaults.username {
            None => return Err(invalid("bmc.username", "is missing; a cluster's password is given together with its user name")),
            Some(username) if *username != given.username => {
                return Err(Rejection::PasswordNeededAgain("the user name changed while it was sealed".into()));
            }
            Some(_) => Some(given.password),
        },
        Field::Unset => None,
        Field::Keep if leaves_login => None,
        Field::Keep if base.password.is_some() && base.username != defaults.username => {
            return Err(Rejection::PasswordNeededAgain("it is bound to the user name, which changes".into()));
        }
        Field::Keep => base.password.clone(),
    };
    Ok(defaults)
}

impl Fleet {
    pub(super) fn put_cluster(&mut self, id: ClusterId, spec: ClusterSpec, now: Now) -> Result<Answer, Rejection> {
        let before = self.view.clusters.get(&id).cloned();
        let base = before.as_ref().map(|row| row.bmc.clone()).unwrap_or_default();
        let ClusterSpec { zone, poll_interval, action_timeout, bmc, ha, brakes } = spec;
        let at = Gate::Cluster(id.clone());
        let planned = self.planned_ha(&at, ha, brakes, true)?;
        let bmc = match bmc {
            Field::Keep => base,
            Field::Unset => DefaultsRow::default(),
            Field::Set(change) => merge(&base, change, true)?,
        };
        let oobm = before.as_ref().and_then(|row| row.oobm);
        let answer = self.change_cluster(before, ClusterRow { id, zone, oobm, poll_interval, action_timeout, bmc }, now)?;
        self.keep_ha(at, planned);
        Ok(answer)
    }

    pub(super) fn patch_cluster(&mut self, id: &ClusterId, change: ClusterChange, now: Now) -> Result<Answer, Rejection> {
        let before = self.view.clusters.get(id).cloned().ok_or_else(|| not_found("cluster", id))?;
        let at = Gate::Cluster(id.clone());
        let planned = self.planned_ha(&at, change.ha, change.brakes, false)?;
        let mut row = (*before).clone();
        row.zone = change.zone.unwrap_or(row.zone);
        row.poll_interval = change.poll_interval.over(row.poll_interval);
        row.action_timeout = change.action_timeout.over(row.action_timeout);
        row.bmc = match change.bmc {
            Field::Keep => row.bmc,
            Field::Unset => DefaultsRow::default(),
            Field::Set(change) => merge(&before.bmc, change, false)?,
        };
        let answer = self.change_cluster(Some(before), row, now)?;
        self.keep_ha(at, planned);
        Ok(answer)
    }

    fn change_cluster(&mut self, before: Option<Arc<ClusterRow>>, row: ClusterRow, now: Now) -> Result<Answer, Rejection> {
        check_seconds("poll_interval", row.poll_interval)?;
        check_seconds("action_timeout", row.action_timeout)?;
        if !self.view.zones.contains_key(&row.zone) {
            return Err(not_found("zone", &row.zone));
        }
        let hosts = self.view.hosts_of_cluster(&row.id);
        if before.as_ref().is_some_and(|before| before.zone != row.zone) && !hosts.is_empty() {
            let id = &row.id;
            return Err(Rejection::ZoneMismatch(format!("cluster {id} has hosts, so it stays in its zone; move the hosts first")));
        }
        let created = before.is_none();
        if before.as_deref() == Some(&row) {
            return Ok(Answer::Done { created });
        }
        if before.as_ref().is_some_and(|before| before.bmc != row.bmc) {
            // To an agent other settings end a change, and nobody would learn how.
            hosts.iter().try_for_each(|host| self.no_password_change(host))?;
        }
        let assigned = self.assigned_to(hosts.iter());
        self.draft.put(Row::Cluster(row.clone()));
        self.view.clusters.insert(row.id.clone(), Arc::new(row));
        self.retell_all(assigned, now);
        Ok(Answer::Done { created })
    }

    /// What the agents are told of these hosts, to be compared after a change.
    pub(super) fn assigned_to<'a>(&self, hosts: impl Iterator<Item = &'a HostId>) -> Vec<(HostId, Assigned)> {
        hosts.filter_map(|id| self.view.hosts.get(id)).map(|row| (row.id.clone(), assigned(&self.view, row))).collect()
    }

    pub(super) fn retell_all(&mut self, before: Vec<(HostId, Assigned)>, now: Now) {
        for (host, assigned) in before {
            self.retell(&host, &assigned, now);
        }
    }

    /// After a change: where what is told of a host's BMC is not what it was, its revision grows, and its agent hears of it.
    pub(super) fn retell(&mut self, host: &HostId, before: &Assigned, now: Now) {
        let Some(row) = self.view.hosts.get(host).cloned() else { return };
        let after = assigned(&self.view, &row);
        if after.bmc != before.bmc {
            let reserved = self.view.pending.get(host).map_or(0, |pending| pending.revision);
            self.edit_host(host, |row| {
                if let Some(bmc) = &mut row.bmc {
                    bmc.revision = bmc.revision.max(reserved) + 1;
                }
            });
            self.forget_settled(host);
        }
        if after != *before {
            self.touch(&row);
        }
        self.settle_host(host, before.refusal, now);
    }
}
