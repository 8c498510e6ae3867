//! Handles to running BMCs, one or many: what tests, the control API and scenarios do by hand. Never speaks a BMC protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::bmc::{Bmc, Call, Counters, Privilege, Source, User};
use super::chassis::{Change, Phase};
use super::clock;
use super::faults::Faults;
use super::profile::Profile;
use super::redfish::server::identity;
use super::redfish::tls::{Authority, Identity, TlsError};

/// One BMC; cheap to clone.
#[derive(Debug, Clone)]
pub struct BmcHandle {
    pub(crate) bmc: Arc<Bmc>,
    pub(crate) authority: Option<Arc<Authority>>,
}

/// One BMC as it really is.
#[derive(Debug, Clone, Serialize)]
pub struct Truth {
    /// Name.
    pub name: String,
    /// Where it speaks IPMI (UDP).
    pub ipmi: Option<SocketAddr>,
    /// Where it speaks Redfish (TCP, TLS).
    pub redfish: Option<SocketAddr>,
    /// The system's UUID; also the IPMI GUID, its bytes in the same order.
    pub uuid: uuid::Uuid,
    /// Serial number.
    pub serial: String,
    /// `on` or `off`, truly.
    pub power: &'static str,
    /// The same with the transition under way.
    pub phase: Phase,
    /// Warm resets really done.
    pub resets: u64,
    /// Diagnostic interrupts really raised.
    pub diags: u64,
    /// Whether the identify light is lit.
    pub identify: bool,
    /// Boot target and whether it holds once, always or not.
    pub boot: super::bmc::Boot,
    /// Users, without passwords.
    pub users: Vec<UserTruth>,
    /// IPMI sessions that are up, and half-open ones with them.
    pub ipmi_sessions: usize,
    /// Redfish sessions.
    pub redfish_sessions: usize,
    /// Sums since the start.
    pub counters: Counters,
    /// Faults in place.
    pub faults: Faults,
}

/// A user without its password.
#[derive(Debug, Clone, Serialize)]
pub struct UserTruth {
    /// Id in both protocols.
    pub id: u8,
    /// Name.
    pub name: String,
    /// Highest privilege.
    pub privilege: Privilege,
    /// Whether it may log in.
    pub enabled: bool,
    /// Whether it is locked out now.
    pub locked: bool,
}

impl BmcHandle {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.bmc.name
    }

    /// Where it speaks IPMI.
    #[must_use]
    pub fn ipmi(&self) -> Option<SocketAddr> {
        self.bmc.ipmi
    }

    /// Where it speaks Redfish.
    #[must_use]
    pub fn redfish(&self) -> Option<SocketAddr> {
        self.bmc.redfish
    }

    /// Everything about it now.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let now = clock::now();
        let mut state = self.bmc.lock();
        state.chassis.advance(now);
        let idle = Duration::from_millis(state.profile.ipmi_idle_ms);
        state.ipmi.expire(now, idle);
        let user = |user: &User| UserTruth {
            id: user.id,
            name: user.name.clone(),
            privilege: user.limit,
            enabled: user.enabled,
            locked: user.locked_until.is_some_and(|end| now < end),
        };
        Truth {
            name: self.bmc.name.clone(),
            ipmi: self.bmc.ipmi,
            redfish: self.bmc.redfish,
            uuid: state.guid,
            serial: self.bmc.serial(),
            power: if state.chassis.is_on() { "on" } else { "off" },
            phase: state.chassis.phase(),
            resets: state.chassis.resets(),
            diags: state.chassis.diags(),
            identify: state.identify.is_lit(now),
            boot: state.boot.clone(),
            users: state.users.iter().map(user).collect(),
            ipmi_sessions: state.ipmi.len(),
            redfish_sessions: state.web.session_count(),
            counters: state.counters,
            faults: state.faults.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// Whether the host really runs.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let mut state = self.bmc.lock();
        state.chassis.advance(clock::now());
        state.chassis.is_on()
    }

    /// Flips the power at once, as a hand on the machine would.
    pub fn set_power(&self, on: bool) {
        self.bmc.lock().set_power(on, clock::now());
    }

    /// Turns the power over, and tells what it is now.
    pub fn toggle(&self) -> bool {
        let now = clock::now();
        let mut state = self.bmc.lock();
        state.chassis.advance(now);
        let on = !state.chassis.is_on();
        state.set_power(on, now);
        on
    }

    /// The calls after number `since` (0: all that are remembered, at most 10,000).
    #[must_use]
    pub fn calls(&self, since: u64) -> Vec<Call> {
        self.bmc.lock().calls.iter().filter(|call| call.number > since).cloned().collect()
    }

    /// How many orders of this kind (`on`, `off`, `cycle`, `reset`, `soft`, `diag`) came over IPMI or Redfish.
    #[must_use]
    pub fn orders(&self, action: &str) -> usize {
        self.bmc.lock().calls.iter().filter(|call| call.source != Source::Hand && call.action == action).count()
    }

    /// Forgets the calls so far; their numbers go on.
    pub fn forget_calls(&self) {
        self.bmc.lock().calls.clear();
    }

    /// The power changes that really happened, oldest first.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.bmc.lock().changes(clock::now())
    }

    /// Sums since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.bmc.lock().counters
    }

    /// The faults in place.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.bmc.lock().faults.as_deref().cloned().unwrap_or_default()
    }

    /// Puts these faults in place of the ones before.
    pub fn set_faults(&self, faults: Faults) {
        self.bmc.lock().set_faults(faults);
        self.bmc.changed.notify_waiters();
    }

    /// Mends everything.
    pub fn clear_faults(&self) {
        self.set_faults(Faults::default());
    }

    /// Its character.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.bmc.lock().profile.clone()
    }

    /// Changes its character.
    pub fn set_profile(&self, profile: Profile) {
        let mut state = self.bmc.lock();
        state.profile = profile;
        state.web.forget_shown();
    }

    /// Changes a user's password by hand; false when there is no such user.
    #[must_use]
    pub fn set_password(&self, user: &str, password: &str) -> bool {
        self.bmc.lock().set_password(Source::Hand, "", user, password.as_bytes(), clock::now())
    }

    /// From now on this user may do nothing over Redfish but change its password; false when there is no such user.
    #[must_use]
    pub fn require_password_change(&self, user: &str) -> bool {
        let mut state = self.bmc.lock();
        let found = state.users.iter_mut().find(|found| found.name == user);
        found.map(|user| user.must_change = true).is_some()
    }

    /// The machine is another one: it has another GUID.
    pub fn swap_guid(&self) {
        let mut state = self.bmc.lock();
        state.guid = uuid::Builder::from_random_bytes(state.rng.bytes16()).into_uuid();
        state.web.forget_shown();
    }

    /// Adds a user, or changes the one of that name.
    pub fn set_user(&self, name: &str, password: &str, limit: Privilege) {
        let mut state = self.bmc.lock();
        if let Some(user) = state.users.iter_mut().find(|user| user.name == name) {
            *user = User::new(user.id, name, password, limit);
            return;
        }
        let id = state.users.iter().map(|user| user.id).max().unwrap_or(1).saturating_add(1);
        state.users.push(User::new(id, name, password, limit));
    }

    /// Takes the mains away (the host is off, the BMC silent) or gives them back (the restore policy decides).
    pub fn set_ac(&self, present: bool) {
        self.bmc.lock().set_ac(present, clock::now());
        self.bmc.changed.notify_waiters();
    }

    /// Restarts the BMC: sessions are gone, and it is silent for a while. The host runs on.
    pub fn reboot(&self, silence: Duration) {
        let now = clock::now();
        let mut state = self.bmc.lock();
        state.silent_until = Some(now + silence);
        state.ipmi.forget_all();
        state.web.forget_sessions();
        state.record(Source::Hand, "", "bmc-restart", "done");
        drop(state);
        self.bmc.changed.notify_waiters();
    }

    /// Ends all sessions without a word.
    pub fn forget_sessions(&self) {
        let mut state = self.bmc.lock();
        state.ipmi.forget_all();
        state.web.forget_sessions();
    }

    /// The Redfish certificate (PEM); `None` when it could not be made.
    #[must_use]
    pub fn certificate(&self) -> Option<String> {
        identity(&self.bmc, self.authority.as_deref()).map(|identity| identity.pem.clone())
    }

    /// SHA-256 of the certificate's DER, in hex.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        identity(&self.bmc, self.authority.as_deref()).map(|identity| identity.sha256.clone())
    }

    /// Makes another key and a self-signed certificate for new connections.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn swap_certificate(&self) -> Result<(), TlsError> {
        let identity = Identity::new(&self.bmc.name, self.bmc.redfish.map(|address| address.ip()), None)?;
        self.bmc.lock().web.identity = Some(Arc::new(identity));
        Ok(())
    }
}

/// All BMCs of a simulator; cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet {
    pub(crate) bmcs: Arc<Vec<BmcHandle>>,
    pub(crate) authority: Option<Arc<Authority>>,
}

impl Fleet {
    /// All, in the order of their numbers.
    #[must_use]
    pub fn all(&self) -> &[BmcHandle] {
        &self.bmcs
    }

    /// The one of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<BmcHandle> {
        self.bmcs.iter().find(|bmc| bmc.name() == name).cloned()
    }

    /// Those a selector means: names and patterns with `*`, separated by commas; `all` is all.
    #[must_use]
    pub fn select(&self, selector: &str) -> Vec<BmcHandle> {
        let patterns: Vec<&str> = selector.split(',').map(str::trim).collect();
        let meant = |name: &str| patterns.iter().any(|pattern| *pattern == "all" || matches(pattern, name));
        self.bmcs.iter().filter(|bmc| meant(bmc.name())).cloned().collect()
    }

    /// The simulator CA's certificate (PEM), when it has one.
    #[must_use]
    pub fn authority_pem(&self) -> Option<String> {
        self.authority.as_ref().map(|authority| authority.pem())
    }

    /// Sums over all BMCs.
    #[must_use]
    pub fn totals(&self) -> Counters {
        self.bmcs.iter().map(BmcHandle::counters).fold(Counters::default(), |a, b| Counters {
            datagrams: a.datagrams + b.datagrams,
            datagrams_dropped: a.datagrams_dropped + b.datagrams_dropped,
            http_requests: a.http_requests + b.http_requests,
            status_reads: a.status_reads + b.status_reads,
            logins: a.logins + b.logins,
            logins_refused: a.logins_refused + b.logins_refused,
            logins_begun: a.logins_begun + b.logins_begun,
            orders: a.orders + b.orders,
            logouts: a.logouts + b.logouts,
        })
    }
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => {
            let Some(tail) = name.strip_prefix(start) else { return false };
            (0..=tail.len()).filter_map(|at| tail.get(at..)).any(|tail| matches(rest, tail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, want) in [
            ("bmc-1", "bmc-1", true),
            ("bmc-1", "bmc-12", false),
            ("bmc-*", "bmc-12", true),
            ("*2", "bmc-12", true),
            ("b*1*", "bmc-2", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }
}
