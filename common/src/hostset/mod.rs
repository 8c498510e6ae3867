//! Host sets: ClusterShell's NodeSet grammar as text, as algebra and folded back. Knows no host by itself: whoever resolves a set
//! says who is in a group.
//!
//! ```text
//! set      := term (space term)*                     the union of the terms
//! term     := operand (operator operand)*            from left to right, no operator binds tighter; spaces may stand around
//! operator := ','  union    '!'  difference    '&'  intersection    '^'  in exactly one of both
//! operand  := (text | '[' ranges ']' | '*' | '?')+   a host, or hosts: r07n[01-48], dc[1-4]n[1-100], r07*
//!           | '@' kind ':' value | '@all' | '@*'     a group: @zone:z1 @cluster:c2 @rack:r[01-08] @agent:a1 @state:off
//!                                                    @ha:fenced @status:down @label:os=linux
//! ranges   := range (',' range)*    range := first ['-' last ['/' step]]    leading zeros are kept: 01-48
//! ```
//!
//! Three things are stricter than in ClusterShell, because what a set names may be switched off: a group that nobody knows is an
//! error and not empty, a text is bounded in what it may make, and every fault names its place. Two are wider: spaces between
//! operands are a union, and brackets may touch.
//!
//! Why not a crate: `nodeset` 0.6 reads ClusterShell's own configuration and runs its commands to resolve groups, has parentheses
//! without a bound on their depth and expansion without a bound on its size, no wildcards, and needs the archived `serde_yaml`;
//! `hostlist` 0.3 knows neither groups nor operators nor steps. Both panic on some texts or answer without a place.

mod fold;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::ha::{HaName, HostStatus};
use crate::id::{AgentId, ClusterId, HostId, IdError, RackId, ZoneId};
use crate::power::PowerState;
use pattern::Pattern;

pub use fold::{fold, fold_last};

/// Most hosts that one set may name: the largest fleet ten times over.
pub const MAX_HOSTS: usize = 100_000;

/// Most names that resolving one set may make or look at, over all its operands: what a text can cost is bounded.
const MAX_WORK: usize = 10 * MAX_HOSTS;

/// A host set as it was written, not yet resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSet {
    terms: Vec<Term>,
}

/// Operands and the operators between them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    first: Operand,
    rest: Vec<(Operator, Operand)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Union,
    Difference,
    Intersection,
    SymmetricDifference,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Operand {
    /// Where it begins, in characters from 1.
    at: usize,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Hosts(Pattern),
    Groups(Vec<Group>),
}

/// A group of hosts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Every host: `@all`.
    All,
    /// `@zone:z1`.
    Zone(ZoneId),
    /// `@cluster:c1`.
    Cluster(ClusterId),
    /// `@rack:r07`.
    Rack(RackId),
    /// `@agent:a1`.
    Agent(AgentId),
    /// `@state:off`.
    State(PowerState),
    /// `@ha:fenced`.
    Ha(HaName),
    /// `@status:down`.
    Status(HostStatus),
    /// `@label:key=value`.
    Label {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("@all"),
            Self::Zone(id) => write!(f, "@zone:{id}"),
            Self::Cluster(id) => write!(f, "@cluster:{id}"),
            Self::Rack(id) => write!(f, "@rack:{id}"),
            Self::Agent(id) => write!(f, "@agent:{id}"),
            Self::State(state) => write!(f, "@state:{state}"),
            Self::Ha(state) => write!(f, "@ha:{state}"),
            Self::Status(status) => write!(f, "@status:{status}"),
            Self::Label { key, value } => write!(f, "@label:{key}={value}"),
        }
    }
}

/// What of a host decides which groups it is in.
#[derive(Debug, Clone, Copy)]
pub struct Traits<'a> {
    /// Its zone.
    pub zone: &'a ZoneId,
    /// Its cluster.
    pub cluster: &'a ClusterId,
    /// Its rack.
    pub rack: &'a RackId,
    /// The agent in charge.
    pub agent: Option<&'a AgentId>,
    /// Its power state.
    pub power: PowerState,
    /// Where it stands in host-HA.
    pub ha: HaName,
    /// What an orchestrator may conclude.
    pub status: HostStatus,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

impl Group {
    /// Whether a host like this is in the group.
    #[must_use]
    pub fn holds(&self, host: &Traits<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Zone(zone) => host.zone == zone,
            Self::Cluster(cluster) => host.cluster == cluster,
            Self::Rack(rack) => host.rack == rack,
            Self::Agent(agent) => host.agent == Some(agent),
            Self::State(state) => host.power == *state,
            Self::Ha(state) => host.ha == *state,
            Self::Status(status) => host.status == *status,
            Self::Label { key, value } => host.labels.get(key) == Some(value),
        }
    }
}

/// Who knows which hosts there are.
pub trait Groups {
    /// The hosts of a group; `None` when there is no such zone, cluster, rack or agent.
    fn members(&self, group: &Group) -> Option<Vec<HostId>>;
}

impl<F: Fn(&Group) -> Option<Vec<HostId>>> Groups for F {
    fn members(&self, group: &Group) -> Option<Vec<HostId>> {
        self(group)
    }
}

/// What is wrong with a host set, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host set: {fault}, at character {at}")]
pub struct HostSetError {
    /// Where, in characters from 1.
    pub at: usize,
    /// What.
    pub fault: Fault,
}

/// What is wrong with a host set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing is there.
    #[error("no host is named")]
    Empty,
    /// A character that has no place there.
    #[error("{0:?} cannot stand here; names are made of a-z, 0-9, '.', '_' and '-'")]
    Character(char),
    /// A group begins where no operand may.
    #[error("an operator is missing before '@'")]
    GroupInside,
    /// An operator without its operand.
    #[error("a host or group is missing {side} {operator:?}")]
    Operand {
        /// Which operator.
        operator: char,
        /// `before` or `after`.
        side: &'static str,
    },
    /// A bracket without its other half.
    #[error("this '[' is not closed")]
    Open,
    /// A bracket without its other half.
    #[error("this ']' was not opened")]
    Closed,
    /// Not a range.
    #[error("{0:?} is not a range; write 01-48, 7 or 0-10/2")]
    Range(String),
    /// The last number is less than the first.
    #[error("the range {0:?} runs backwards")]
    Backwards(String),
    /// The ends do not say how wide the numbers are.
    #[error("the ends of {0:?} have different widths; write 08-99,100 or 008-100")]
    Width(String),
    /// A name that no host can have.
    #[error(transparent)]
    Name(#[from] IdError),
    /// No such kind of group.
    #[error(
        "{0:?} is not a group; there are @all, @zone:…, @cluster:…, @rack:…, @agent:…, @state:…, @ha:…, @status:… and \
         @label:key=value"
    )]
    Group(String),
    /// No such power state.
    #[error("{0:?} is not a power state; use on, off, unknown or disabled")]
    State(String),
    /// No such HA state.
    #[error(
        "{0:?} is not an HA state; use disabled, ineligible, available, suspect, checking, degraded, recovering, recovered, \
         fencing or fenced"
    )]
    Ha(String),
    /// No such host status.
    #[error("{0:?} is not a host status; use up, disconnected, down or unknown")]
    Status(String),
    /// Not a label.
    #[error("{0:?} is not a label; write @label:key=value")]
    Label(String),
    /// A wildcard in a group.
    #[error("{0:?} stands for hosts only, not in the name of a group")]
    Wildcard(char),
    /// No name has room for it.
    #[error("this is longer than any name")]
    TooLong,
    /// Nobody knows the group.
    #[error("there is no {0}")]
    Unknown(Group),
    /// Too many hosts.
    #[error("more than {max} hosts", max = MAX_HOSTS)]
    TooMany,
    /// Too many groups in one operand.
    #[error("more than {max} groups", max = parse::MAX_GROUPS)]
    TooManyGroups,
    /// Too much to make.
    #[error("more than {max} names would have to be looked at", max = MAX_WORK)]
    TooMuch,
}

impl FromStr for HostSet {
    type Err = HostSetError;
    fn from_str(text: &str) -> Result<Self, HostSetError> {
        Self::parse(text)
    }
}

impl HostSet {
    /// Reads a host set. The time this takes grows with the text's length alone.
    ///
    /// # Errors
    /// [`HostSetError`] with the place of the first fault.
    pub fn parse(text: &str) -> Result<Self, HostSetError> {
        parse::parse(text).map(|terms| Self { terms })
    }

    /// The groups that somebody must know to resolve this, [`Group::All`] for wildcards too; each once.
    #[must_use]
    pub fn groups(&self) -> BTreeSet<Group> {
        let operands =
            self.terms.iter().flat_map(|term| std::iter::once(&term.first).chain(term.rest.iter().map(|(_, operand)| operand)));
        let mut groups = BTreeSet::new();
        for operand in operands {
            match &operand.what {
                What::Groups(named) => groups.extend(named.iter().cloned()),
                What::Hosts(pattern) if pattern.has_wildcards() => drop(groups.insert(Group::All)),
                What::Hosts(_) => {}
            }
        }
        groups
    }

    /// The hosts of the set. Hosts that are named need not exist; those that a group or wildcard brings do.
    ///
    /// # Errors
    /// [`HostSetError`] at the operand: too many hosts, names that no host can have, groups that are not known.
    pub fn resolve(&self, known: &impl Groups) -> Result<BTreeSet<HostId>, HostSetError> {
        self.resolve_within(known, MAX_WORK)
    }

    fn resolve_within(&self, known: &impl Groups, work: usize) -> Result<BTreeSet<HostId>, HostSetError> {
        let mut resolver = Resolver { known, work, all: None };
        let mut hosts = BTreeSet::new();
        for term in &self.terms {
            let mut set = resolver.operand(&term.first)?;
            for (operator, operand) in &term.rest {
                set = operator.apply(set, resolver.operand(operand)?);
                within_cap(&set, operand.at)?;
            }
            hosts.extend(set);
            within_cap(&hosts, term.first.at)?;
        }
        Ok(hosts)
    }

    /// The hosts of a set that names them all itself.
    ///
    /// # Errors
    /// As [`HostSet::resolve`]; every group is unknown here.
    pub fn expand(&self) -> Result<BTreeSet<HostId>, HostSetError> {
        self.resolve(&|_: &Group| None)
    }
}

fn within_cap(hosts: &BTreeSet<HostId>, at: usize) -> Result<(), HostSetError> {
    if hosts.len() > MAX_HOSTS { Err(HostSetError { at, fault: Fault::TooMany }) } else { Ok(()) }
}

impl Operator {
    const fn of(character: char) -> Option<Self> {
        match character {
            ',' => Some(Self::Union),
            '!' => Some(Self::Difference),
            '&' => Some(Self::Intersection),
            '^' => Some(Self::SymmetricDifference),
            _ => None,
        }
    }

    /// Takes time in what is right, which was paid for, and in what goes: many small operands behind a large one cost little.
    fn apply(self, mut left: BTreeSet<HostId>, right: BTreeSet<HostId>) -> BTreeSet<HostId> {
        match self {
            Self::Union => left.extend(right),
            Self::Difference => {
                for host in &right {
                    left.remove(host);
                }
            }
            Self::Intersection => left.retain(|host| right.contains(host)),
            Self::SymmetricDifference => {
                for host in right {
                    if !left.remove(&host) {
                        left.insert(host);
                    }
                }
            }
        }
        left
    }
}

/// Resolving under way: what may still be made, and all hosts once they were asked for.
struct Resolver<'a, G> {
    known: &'a G,
    work: usize,
    all: Option<Vec<HostId>>,
}

impl<G: Groups> Resolver<'_, G> {
    fn operand(&mut self, operand: &Operand) -> Result<BTreeSet<HostId>, HostSetError> {
        let placed = |fault| HostSetError { at: operand.at, fault };
        match &operand.what {
            What::Groups(groups) => {
                let mut hosts = BTreeSet::new();
                for group in groups {
                    hosts.extend(self.group(group).map_err(placed)?);
                }
                Ok(hosts)
            }
            What::Hosts(pattern) if pattern.has_wildcards() => {
                let all = self.group(&Group::All).map_err(placed)?;
                self.spend(all.len().saturating_mul(pattern.weight() - 1)).map_err(placed)?;
                Ok(all.into_iter().filter(|host| pattern.matches(host.as_str())).collect())
            }
            What::Hosts(pattern) => {
                let count = pattern.count();
                if count > MAX_HOSTS {
                    return Err(placed(Fault::TooMany));
                }
                self.spend(count).map_err(placed)?;
                let hosts = pattern.names().map(|name| name.parse());
                hosts.collect::<Result<_, IdError>>().map_err(|error| placed(error.into()))
            }
        }
    }

    fn group(&mut self, group: &Group) -> Result<Vec<HostId>, Fault> {
        let hosts = match (group, &self.all) {
            (Group::All, Some(all)) => all.clone(),
            _ => self.known.members(group).ok_or_else(|| Fault::Unknown(group.clone()))?,
        };
        if *group == Group::All && self.all.is_none() {
            self.all = Some(hosts.clone());
        }
        let looked_at = self.looked_at(group);
        self.spend(looked_at.max(hosts.len()).max(1))?;
        Ok(hosts)
    }

    /// Hosts looked at to find a group's, beside its own: who is on, or has a label, no index says.
    fn looked_at(&mut self, group: &Group) -> usize {
        if !matches!(group, Group::State(_) | Group::Ha(_) | Group::Status(_) | Group::Label { .. }) {
            return 0;
        }
        if self.all.is_none() {
            self.all = self.known.members(&Group::All);
        }
        self.all.as_ref().map_or(0, Vec::len)
    }

    fn spend(&mut self, names: usize) -> Result<(), Fault> {
        self.work = self.work.checked_sub(names).ok_or(Fault::TooMuch)?;
        Ok(())
    }
}

/// The order in which people count: `n2` before `n10`, and among equal numbers the shorter writing first.
#[must_use]
pub fn natural_order(left: &str, right: &str) -> Ordering {
    let (mut left_rest, mut right_rest) = (left, right);
    loop {
        let (left_text, left_number, left_tail) = pattern::split_number(left_rest);
        let (right_text, right_number, right_tail) = pattern::split_number(right_rest);
        let by_number = || {
            let (short, long) = (left_number.trim_start_matches('0'), right_number.trim_start_matches('0'));
            (short.len(), short, left_number.len()).cmp(&(long.len(), long, right_number.len()))
        };
        let order = left_text.cmp(right_text).then_with(by_number);
        if order != Ordering::Equal || (left_tail.is_empty() && right_tail.is_empty()) {
            return order;
        }
        (left_rest, right_rest) = (left_tail, right_tail);
    }
}

/// The hosts as people count them.
#[must_use]
pub fn in_natural_order(hosts: &BTreeSet<HostId>) -> Vec<HostId> {
    let mut hosts: Vec<HostId> = hosts.iter().cloned().collect();
    hosts.sort_by(|left, right| natural_order(left.as_str(), right.as_str()));
    hosts
}
