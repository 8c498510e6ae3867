//! One simulated BMC: its chassis, users, faults, counters and the record of every call. Both protocols act on it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::chassis::{Action, Change, Chassis, Phase, Taken};
use super::faults::{Faults, Lie, Refuse, Request, Said};
use super::profile::Profile;
use super::rng::Rng;
use super::{clock, ipmi, redfish};

/// How many calls are remembered for each BMC.
const CALLS_KEPT: usize = 10_000;

/// What a user may do (IPMI 2.0 §6.8). Redfish: ReadOnly, Operator, Administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Privilege {
    /// Reads.
    User = 2,
    /// Reads and controls power.
    Operator = 3,
    /// Everything.
    Administrator = 4,
}

impl Privilege {
    /// From IPMI's number; callback (1) counts as none.
    #[must_use]
    pub const fn from_ipmi(number: u8) -> Option<Self> {
        match number {
            2 => Some(Self::User),
            3 => Some(Self::Operator),
            4 | 5 => Some(Self::Administrator),
            _ => None,
        }
    }

    /// Redfish's role id.
    #[must_use]
    pub const fn role(self) -> &'static str {
        match self {
            Self::User => "ReadOnly",
            Self::Operator => "Operator",
            Self::Administrator => "Administrator",
        }
    }
}

/// One user of a BMC.
#[derive(Debug, Clone)]
pub struct User {
    /// IPMI user id, 2 and up; Redfish account id.
    pub id: u8,
    /// Login name, at most 16 bytes for IPMI.
    pub name: String,
    /// Password.
    pub password: Vec<u8>,
    /// Highest privilege.
    pub limit: Privilege,
    /// Whether it may log in.
    pub enabled: bool,
    pub(crate) failures: u32,
    pub(crate) locked_until: Option<Instant>,
    pub(crate) revision: u32,
    /// Redfish: may do nothing but change its password.
    pub(crate) must_change: bool,
}

impl User {
    /// An enabled user.
    #[must_use]
    pub fn new(id: u8, name: &str, password: &str, limit: Privilege) -> Self {
        Self {
            id,
            name: name.into(),
            password: password.as_bytes().to_vec(),
            limit,
            enabled: true,
            failures: 0,
            locked_until: None,
            revision: 1,
            must_change: false,
        }
    }
}

/// Where a call came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// IPMI over LAN.
    Ipmi,
    /// Redfish.
    Redfish,
    /// The control API, the library or the scenario: a hand on the machine.
    Hand,
}

/// One call as it was carried out: the ground truth. Status reads are only counted, see [`Counters`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Number of the call at this BMC, from 1.
    pub number: u64,
    /// When, in microseconds since the Unix epoch.
    pub at_unix_us: u64,
    /// By which way.
    pub source: Source,
    /// Who; empty for a hand.
    pub user: String,
    /// What: `on`, `off`, `cycle`, `reset`, `diag`, `soft`, `login`, `login-refused`, `logout`, `set-password`, `identify`, ….
    pub action: String,
    /// What became of it: `accepted`, `unchanged`, `wrong-state`, `refused`, `ignored`, `done`, or a detail.
    pub result: String,
    /// Whether the host was on before.
    pub was_on: bool,
}

/// Sums since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// IPMI datagrams received.
    pub datagrams: u64,
    /// IPMI datagrams dropped because they were garbage, not authenticated, or replayed.
    pub datagrams_dropped: u64,
    /// HTTP requests received.
    pub http_requests: u64,
    /// Power state reads answered, both protocols.
    pub status_reads: u64,
    /// Logins that succeeded.
    pub logins: u64,
    /// Logins that were refused.
    pub logins_refused: u64,
    /// IPMI logins begun: RAKP 1, copies not counted. With a wrong password it is the client that gives up, after RAKP 2.
    pub logins_begun: u64,
    /// Power orders received (accepted or not).
    pub orders: u64,
    /// Sessions closed by their owner.
    pub logouts: u64,
}

/// One BMC.
#[derive(Debug)]
pub(crate) struct Bmc {
    pub(crate) name: String,
    pub(crate) ipmi: Option<SocketAddr>,
    pub(crate) redfish: Option<SocketAddr>,
    pub(crate) changed: Notify,
    state: Mutex<State>,
}

/// Everything about a BMC that changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) guid: uuid::Uuid,
    pub(crate) chassis: Chassis,
    pub(crate) users: Vec<User>,
    pub(crate) profile: Profile,
    pub(crate) faults: Option<Box<Faults>>,
    pub(crate) fault_memory: FaultMemory,
    pub(crate) ipmi: ipmi::Sessions,
    pub(crate) web: redfish::Web,
    pub(crate) counters: Counters,
    pub(crate) calls: VecDeque<Call>,
    pub(crate) call_number: u64,
    pub(crate) silent_until: Option<Instant>,
    pub(crate) ac_lost: Option<bool>,
    pub(crate) identify: Identify,
    pub(crate) boot: Boot,
    pub(crate) boot_parameters: BTreeMap<u8, Vec<u8>>,
    /// A password that was acknowledged and takes effect then.
    pub(crate) late_password: Option<LatePassword>,
    pub(crate) rng: Rng,
}

/// See [`State::late_password`].
#[derive(Debug)]
pub(crate) struct LatePassword {
    due: Instant,
    user: String,
    password: Vec<u8>,
}

/// What faults must remember between requests.
#[derive(Debug, Default)]
pub(crate) struct FaultMemory {
    refused: BTreeMap<usize, u32>,
    lied: usize,
    pub(crate) answers: u64,
}

/// The identify light.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identify {
    /// Dark.
    #[default]
    Off,
    /// Lit until told otherwise.
    On,
    /// Lit until then (shown as on).
    #[serde(skip)]
    Until(Instant),
}

impl Identify {
    pub(crate) fn is_lit(self, now: Instant) -> bool {
        match self {
            Self::Off => false,
            Self::On => true,
            Self::Until(end) => now < end,
        }
    }
}

/// What is booted next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// Redfish's word: `None`, `Pxe`, `Hdd`, `Cd`, `BiosSetup`, ….
    pub target: String,
    /// Redfish's word: `Disabled`, `Once`, `Continuous`.
    pub enabled: String,
}

impl Default for Boot {
    fn default() -> Self {
        Self { target: "None".into(), enabled: "Disabled".into() }
    }
}

/// Why a login did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginRefusal {
    Unknown,
    Locked,
    Password,
}

impl Bmc {
    pub(crate) fn new(name: String, ipmi: Option<SocketAddr>, redfish: Option<SocketAddr>, state: State) -> Self {
        Self { name, ipmi, redfish, changed: Notify::new(), state: Mutex::new(state) }
    }

    /// The state; a panic elsewhere does not lose it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serial number, stable for a name.
    pub(crate) fn serial(&self) -> String {
        format!("SN-{}", self.name.to_uppercase())
    }
}

impl State {
    pub(crate) fn new(profile: Profile, users: Vec<User>, on: bool, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            guid: uuid::Builder::from_random_bytes(rng.bytes16()).into_uuid(),
            chassis: Chassis::new(on),
            users,
            profile,
            faults: None,
            fault_memory: FaultMemory::default(),
            ipmi: ipmi::Sessions::default(),
            web: redfish::Web::default(),
            counters: Counters::default(),
            calls: VecDeque::new(),
            call_number: 0,
            silent_until: None,
            ac_lost: None,
            identify: Identify::default(),
            boot: Boot::default(),
            boot_parameters: BTreeMap::new(),
            late_password: None,
            rng,
        }
    }

    /// Writes a call down.
    pub(crate) fn record(&mut self, source: Source, user: &str, action: impl Into<String>, result: impl Into<String>) {
        self.call_number += 1;
        if self.calls.len() == CALLS_KEPT {
            self.calls.pop_front();
        }
        self.calls.push_back(Call {
            number: self.call_number,
            at_unix_us: clock::unix_us(),
            source,
            user: user.into(),
            action: action.into(),
            result: result.into(),
            was_on: self.chassis.is_on(),
        });
    }

    /// Carries out a power order (or pretends to) and writes it down.
    pub(crate) fn order(&mut self, source: Source, user: &str, action: Action, now: Instant) -> Taken {
        self.chassis.advance(now);
        self.counters.orders += 1;
        if self.faults.as_ref().is_some_and(|faults| faults.ignore.contains(&action)) {
            self.record(source, user, word(action), "ignored");
            return Taken::Accepted;
        }
        if let Some(reboot) = self.faults.as_ref().and_then(|faults| faults.reboot) {
            self.silent_until = Some(now + Duration::from_millis(reboot.silence_ms));
            self.ipmi.forget_all();
            self.web.forget_sessions();
            if !reboot.executes {
                self.record(source, user, word(action), "lost-in-reboot");
                return Taken::Accepted;
            }
        }
        let was_on = self.chassis.is_on();
        let taken = self.chassis.act(action, now, self.profile.delays());
        let result = match taken {
            Taken::Accepted => "accepted",
            Taken::Unchanged => "unchanged",
            Taken::WrongState => "wrong-state",
        };
        self.record(source, user, word(action), result);
        if let Some(call) = self.calls.back_mut() {
            call.was_on = was_on;
        }
        taken
    }

    /// Flips the power by hand.
    pub(crate) fn set_power(&mut self, on: bool, now: Instant) {
        self.chassis.advance(now);
        self.record(Source::Hand, "", if on { "on" } else { "off" }, "done");
        self.chassis.set(on, now);
    }

    /// Takes the mains away or gives them back; then the restore policy decides.
    pub(crate) fn set_ac(&mut self, present: bool, now: Instant) {
        self.chassis.advance(now);
        match (present, self.ac_lost) {
            (false, None) => {
                self.ac_lost = Some(self.chassis.is_on());
                self.chassis.set(false, now);
                self.ipmi.forget_all();
                self.web.forget_sessions();
            }
            (true, Some(was_on)) => {
                self.ac_lost = None;
                let on = match self.profile.restore_policy {
                    1 => was_on,
                    2 => true,
                    _ => false,
                };
                if on {
                    self.chassis.act(Action::On, now, self.profile.delays());
                }
            }
            _ => {}
        }
        self.record(Source::Hand, "", "ac", if present { "back" } else { "lost" });
    }

    /// Whether the BMC is dead to the network: rebooting, or without mains.
    pub(crate) fn is_silent(&mut self, now: Instant) -> bool {
        if self.silent_until.is_some_and(|end| end <= now) {
            self.silent_until = None;
        }
        self.silent_until.is_some() || self.ac_lost.is_some()
    }

    /// What a status read says: the truth, unless told to lie.
    pub(crate) fn reading(&mut self, now: Instant) -> Said {
        self.chassis.advance(now);
        self.counters.status_reads += 1;
        let truth = match self.chassis.phase() {
            Phase::On => Said::On,
            Phase::Off => Said::Off,
            Phase::PoweringOn => Said::PoweringOn,
            Phase::PoweringOff => Said::PoweringOff,
        };
        let Some(Lie { readings, repeat }) = self.faults.as_ref().and_then(|faults| faults.lie.as_ref()) else { return truth };
        let place = if *repeat && !readings.is_empty() { self.fault_memory.lied % readings.len() } else { self.fault_memory.lied };
        self.fault_memory.lied = self.fault_memory.lied.saturating_add(1);
        match readings.get(place).copied() {
            None | Some(Said::Truth) => truth,
            Some(said) => said,
        }
    }

    /// The refusal set for this kind of request, counted down.
    pub(crate) fn refusal(&mut self, request: Request, fits: impl Fn(&Refuse) -> bool) -> Option<Refuse> {
        let faults = self.faults.as_ref()?;
        let memory = &self.fault_memory.refused;
        let (index, rule) = faults.refuse.iter().enumerate().find(|(index, rule)| {
            let used = memory.get(index).copied().unwrap_or(0);
            (rule.on == request || rule.on == Request::Any) && fits(rule) && rule.times.is_none_or(|times| used < times)
        })?;
        let rule = rule.clone();
        *self.fault_memory.refused.entry(index).or_default() += 1;
        Some(rule)
    }

    /// Puts faults in place (or none), and forgets what the old ones had counted.
    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.faults = (faults != Faults::default()).then(|| Box::new(faults));
        self.fault_memory = FaultMemory::default();
    }

    /// Changes a password; the user's Redfish sessions end. Faults may leave it undone, or do it later.
    pub(crate) fn set_password(&mut self, source: Source, by: &str, user: &str, password: &[u8], now: Instant) -> bool {
        let faults = self.faults.as_deref().filter(|_| source != Source::Hand);
        let (ignored, late_ms) = faults.map_or((false, 0), |faults| (faults.ignore_password, faults.password_late_ms));
        if ignored {
            self.record(source, by, "set-password", "ignored");
            return true;
        }
        if late_ms > 0 {
            let due = now + Duration::from_millis(late_ms);
            self.late_password = Some(LatePassword { due, user: user.into(), password: password.to_vec() });
            self.record(source, by, "set-password", "late");
            return true;
        }
        if !self.apply_password(user, password) {
            return false;
        }
        self.record(source, by, "set-password", "done");
        true
    }

    fn apply_password(&mut self, user: &str, password: &[u8]) -> bool {
        let Some(found) = self.users.iter_mut().find(|found| found.name == user) else { return false };
        found.password = password.to_vec();
        found.revision += 1;
        found.failures = 0;
        found.locked_until = None;
        found.must_change = false;
        self.web.forget_sessions_of(user);
        true
    }

    /// The enabled, unlocked user of this name.
    pub(crate) fn may_log_in(&mut self, name: &str, now: Instant) -> Result<&mut User, LoginRefusal> {
        if let Some(late) = self.late_password.take_if(|late| late.due <= now) {
            self.apply_password(&late.user, &late.password);
        }
        let user = self.users.iter_mut().find(|user| user.enabled && user.name == name).ok_or(LoginRefusal::Unknown)?;
        match user.locked_until {
            Some(end) if now < end => Err(LoginRefusal::Locked),
            Some(_) => {
                user.locked_until = None;
                user.failures = 0;
                Ok(user)
            }
            None => Ok(user),
        }
    }

    /// Counts a login that succeeded.
    pub(crate) fn login_succeeded(&mut self, source: Source, name: &str, detail: &str) {
        self.counters.logins += 1;
        if let Some(user) = self.users.iter_mut().find(|user| user.name == name) {
            user.failures = 0;
        }
        self.record(source, name, "login", detail);
    }

    /// Counts a login that failed, and locks the user after too many.
    pub(crate) fn login_failed(&mut self, source: Source, name: &str, why: LoginRefusal, now: Instant) {
        self.counters.logins_refused += 1;
        let (after, lock) = (self.profile.lockout_after, Duration::from_millis(self.profile.lockout_ms));
        if why == LoginRefusal::Password
            && let Some(user) = self.users.iter_mut().find(|user| user.name == name)
        {
            user.failures += 1;
            if after > 0 && user.failures >= after {
                user.locked_until = Some(now + lock);
            }
        }
        let why = match why {
            LoginRefusal::Unknown => "unknown-user",
            LoginRefusal::Locked => "locked",
            LoginRefusal::Password => "wrong-password",
        };
        self.record(source, name, "login-refused", why);
    }

    /// The changes that really happened, up to now.
    pub(crate) fn changes(&mut self, now: Instant) -> Vec<Change> {
        self.chassis.advance(now);
        self.chassis.changes().collect()
    }
}

/// An action as calls name it.
pub(crate) const fn word(action: Action) -> &'static str {
    match action {
        Action::On => "on",
        Action::Off => "off",
        Action::Cycle => "cycle",
        Action::Reset => "reset",
        Action::Diag => "diag",
        Action::Soft => "soft",
    }
}
