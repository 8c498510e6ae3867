//! What the gates look at for one host, gathered in one instant from what the rack knows. Decides nothing: [`policy::judge`] does.

use std::time::Duration;

use picket_common::clock::Now;
use picket_common::command::Refusal;
use picket_common::failure_cap::{Cap, PowerDowns};
use picket_common::ha::Gate;
use picket_common::ha::settings::HaSettings;
use picket_common::id::{ClusterId, HostId};
use picket_common::policy::{self, Circumstances, Connection, Counted, Identity, Judgement, Pause};
use picket_common::wire::Time;
use picket_common::wire::ha::{self, Act, ClusterHa};

use super::Attempt;
use crate::rack::brakes::{Brakes, Scene};

/// An answer of the network within this shows that it works.
const LATELY: Duration = Duration::from_secs(60);

/// The host that something is to be done to.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Which.
    pub host: &'a HostId,
    /// Its settings.
    pub settings: &'a HaSettings,
    /// The identity that its BMC must have.
    pub pinned: Option<&'a str>,
    /// The identity that its BMC says it has.
    pub found: Option<&'a str>,
    /// Whether its driver can prove.
    pub can_prove: bool,
    /// Its power gates.
    pub power: Result<(), Refusal>,
    /// Whether its HA gates are open.
    pub is_watched: bool,
    /// Whether people work on it.
    pub maintenance: bool,
    /// A window in which nothing disruptive is done.
    pub pause: Option<&'a ha::Pause>,
    /// Whether this agent is in charge.
    pub owns: bool,
    /// Whether its newest health check says Dead.
    pub is_dead: bool,
    /// Whether its activity was found inactive.
    pub is_inactive: bool,
    /// On whose behalf, and what was done so far.
    pub standing: Standing<'a>,
}

/// What a fence under way brings with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing<'a> {
    /// Who ordered it, unless it is automatic.
    pub principal: Option<&'a str>,
    /// Gates that the principal overrides.
    pub overrides: &'a [Gate],
    /// Whether an off was possibly sent.
    pub is_finishing: bool,
    /// Whether it was counted.
    pub is_counted: bool,
    /// When an off was last sent.
    pub tried: Option<Time>,
}

impl<'a> Standing<'a> {
    /// Of a fence.
    #[must_use]
    pub fn of(attempt: &'a Attempt) -> Self {
        Self {
            principal: attempt.principal().map(String::as_str),
            overrides: &attempt.overrides,
            is_finishing: attempt.off_possibly_sent,
            is_counted: attempt.is_counted,
            tried: attempt.tried,
        }
    }
}

/// What is around it.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// What time it is.
    pub now: Now,
    /// What the aggregator's clock says, once it was measured.
    pub centre_now: Option<Time>,
    /// All hosts of the rack that host-HA knows, and what the centre says of others.
    pub scene: Scene<'a>,
    /// The rules of the host's cluster.
    pub cluster: &'a ClusterHa,
    /// Most power-downs of this agent within an hour.
    pub agent_cap: u16,
    /// Whether the agent's own network works.
    pub connection: Connection,
    /// What the rack remembers.
    pub brakes: &'a Brakes,
}

/// The rules of a cluster that the centre has said nothing of: the defaults, and a cap of the agent's floor.
#[must_use]
pub fn rules_unheard_of(cluster: ClusterId, zone: picket_common::id::ZoneId) -> ClusterHa {
    ClusterHa {
        cluster,
        zone,
        cap: 1,
        cap_window: 3600,
        agents: 1,
        storm: [30, 20, 10],
        cool_down: 600,
        cliff: Some(50),
        somewhere_to_go: true,
        isolation: true,
    }
}

/// The cap of a cluster.
#[must_use]
pub fn cap_of(rules: &ClusterHa) -> Cap {
    Cap { most: rules.cap, window: Duration::from_secs(rules.cap_window.into()) }
}

/// The cap of an agent.
#[must_use]
pub const fn agent_cap(most: u16) -> Cap {
    Cap { most, ..Cap::AGENT }
}

/// Whether the agent's own network works, by how long ago each reference address (if there are any) and each other BMC answered;
/// `None` = never.
#[must_use]
pub fn connection(answered: impl Iterator<Item = Option<Duration>>) -> Connection {
    let mut worst = Connection::Nobody;
    for ago in answered {
        if ago.is_some_and(|ago| ago <= LATELY) {
            return Connection::Answers;
        }
        worst = Connection::Silent;
    }
    worst
}

/// Whether a BMC is the machine that was pinned. A waiver covers silence, not another machine.
#[must_use]
pub fn identity(pinned: Option<&str>, found: Option<&str>, waived: bool) -> Identity {
    match (pinned, found) {
        (Some(pinned), Some(found)) if pinned == found => Identity::Same,
        (Some(_), Some(_)) => Identity::Differs,
        (None, _) | (_, None) if waived => Identity::Waived,
        (None, _) | (_, None) => Identity::Unreadable,
    }
}

/// Asks all gates that apply to `act`.
#[must_use]
pub fn judge(act: Act, subject: Subject<'_>, around: Around<'_>) -> Judgement {
    let Around { now, centre_now, scene, cluster: rules, brakes, .. } = around;
    let Standing { principal, overrides, is_finishing, is_counted, tried } = subject.standing;
    let none = PowerDowns::default();
    let cap = cap_of(rules);
    let others_well = rules.somewhere_to_go.then(|| scene.others_well(subject.host, &rules.cluster));
    let centre_clock = centre_now.unwrap_or(now.wall.into());
    let pause = subject.pause.filter(|pause| centre_clock < pause.until);
    let seen = Circumstances {
        now: now.wall,
        sends: act != Act::Proof,
        identity: &[identity(subject.pinned, subject.found, subject.settings.identity_waived)],
        can_prove: subject.can_prove,
        power: subject.power,
        ha: subject.is_watched,
        maintenance: subject.maintenance,
        pause: pause.map(|pause| Pause { owner: &pause.owner, until: pause.until.timestamp() }),
        owns: subject.owns,
        quiet_left: brakes.quiet_left(Duration::from_secs(subject.settings.startup_quiet.into()), now),
        is_finishing,
        connection: if rules.isolation { around.connection } else { Connection::Waived },
        others_well,
        cliff: brakes.cliff(rules),
        shares: &scene.shares(rules),
        cool_down_left: brakes.cool_down_left(rules, now),
        caps: &[
            Counted { scope: "cluster", downs: brakes.of_cluster(&rules.cluster).unwrap_or(&none), cap },
            Counted { scope: "agent", downs: brakes.of_agent(), cap: agent_cap(around.agent_cap) },
        ],
        is_counted,
        budget: Some(brakes.budget(scene, &rules.cluster, cap, centre_now, now)),
        slot: scene.slot(subject.host, tried),
        is_dead: subject.is_dead,
        is_inactive: subject.is_inactive,
        principal,
        overrides,
    };
    policy::judge(&seen)
}
