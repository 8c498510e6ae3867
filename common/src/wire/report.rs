//! What an agent says: sequenced reports that must not be lost, and unsequenced words about itself.

use serde::{Deserialize, Serialize};

use super::codec::{Message, WireError, bound};
use super::{Generation, Incarnation, Session, Time};
use crate::command::{BmcError, Outcome};
use crate::facts::Facts;
use crate::id::{HostId, OperationId};
use crate::power::{Cause, Management, PowerState};

/// Most reports in one message.
pub const MAX_REPORTS: usize = 256;
/// Most overdue hosts named in one heartbeat; more are cut, and said to be.
pub const MAX_OVERDUE: usize = 512;
/// Longest text within a report, in bytes.
pub const MAX_TEXT: usize = 1024;

/// Kind 1, channel `up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Up {
    /// Reports out of the outbox, in sequence without holes.
    Reports(Reports),
    /// The agent lives, and which hosts it could not read in time.
    Heartbeat(Heartbeat),
}

/// Reports `first`, `first + 1`, … of one journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reports {
    /// Whose sequence this is.
    pub boot: Incarnation,
    /// Oldest sequence still in the outbox: what lies before can never be sent again.
    pub oldest: u64,
    /// Sequence of the first report.
    pub first: u64,
    /// The reports.
    pub reports: Vec<Report>,
}

/// Something that must reach the history exactly once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// A power state changed.
    Power(PowerReport),
    /// The management state changed.
    Management(ManagementReport),
    /// An operation went on or ended.
    Operation(OperationReport),
    /// All that is known of a host, after a gap.
    Snapshot(Snapshot),
    /// What a BMC is and can do was learned, or is not what it was.
    Facts(FactsReport),
    /// Which password a BMC takes after a change of it.
    Password(PasswordReport),
    /// Where a host stands in host-HA.
    Ha(Box<super::ha::HaReport>),
    /// What the gates said.
    Judged(super::ha::JudgedReport),
}

/// A power change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerReport {
    /// Which host.
    pub host: HostId,
    /// Which enablement of the host it belongs to; a report of an earlier one is history, not state.
    pub enablement: u64,
    /// State before.
    pub old: PowerState,
    /// State after.
    pub new: PowerState,
    /// Why.
    pub cause: Cause,
    /// When the reading was taken.
    pub observed_at: Time,
    /// The error behind Unknown.
    pub error: Option<BmcError>,
}

/// A change of how the BMC can be talked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagementReport {
    /// Which host.
    pub host: HostId,
    /// Which enablement of the host it belongs to.
    pub enablement: u64,
    /// State after.
    pub new: Management,
    /// When.
    pub observed_at: Time,
    /// The last typed error.
    pub error: Option<BmcError>,
}

/// What a BMC is and can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactsReport {
    /// Which host.
    pub host: HostId,
    /// Revision of the BMC settings it was learned with.
    pub revision: u64,
    /// When.
    pub observed_at: Time,
    /// What was learned.
    pub facts: Facts,
}

/// Which password a BMC takes, proven by a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordReport {
    /// Which host.
    pub host: HostId,
    /// The operation that changed it.
    pub operation: OperationId,
    /// [`super::down::ChangePassword::revision`] of the change.
    pub revision: u64,
    /// When.
    pub observed_at: Time,
    /// Which.
    pub in_force: InForce,
}

/// See [`PasswordReport::in_force`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InForce {
    /// The new one: keep it.
    New,
    /// The old one: drop the new one.
    Old,
    /// Both are refused: keep both, somebody must look.
    Neither,
}

impl InForce {
    /// Lower-case name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Old => "old",
            Self::Neither => "neither",
        }
    }
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationReport {
    /// Which operation.
    pub operation: OperationId,
    /// Which of its hosts.
    pub host: HostId,
    /// When.
    pub at: Time,
    /// How far.
    pub progress: Progress,
}

/// Steps of an operation that the agent reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Taken on.
    Admitted,
    /// Ended.
    Done(Outcome),
}

/// All that the agent knows of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which host.
    pub host: HostId,
    /// Which enablement of the host it belongs to.
    pub enablement: u64,
    /// Power state.
    pub power: PowerState,
    /// Since when.
    pub power_since: Time,
    /// Management state; absent before the first answer or failure.
    pub management: Option<Management>,
    /// Since when.
    pub management_since: Time,
    /// The last typed error.
    pub error: Option<BmcError>,
}

/// "I live." Carries no state that must not be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// This connection.
    pub session: Session,
    /// The journal.
    pub boot: Incarnation,
    /// Assignment in force.
    pub generation: Option<Generation>,
    /// Sequence the next report will get.
    pub next: u64,
    /// Reports not yet acknowledged.
    pub outbox: u64,
    /// Hosts without a reading for longer than three poll intervals.
    pub overdue: Vec<HostId>,
    /// To be echoed in a signed [`super::down::Reply::Clock`].
    pub nonce: u64,
}

/// Kind 2, channel `hello`: first words of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// This connection.
    pub session: Session,
    /// The journal.
    pub boot: Incarnation,
    /// The agent's version.
    pub version: String,
    /// Assignment in force.
    pub generation: Option<Generation>,
    /// Oldest sequence still in the outbox.
    pub oldest: u64,
    /// Sequence the next report will get.
    pub next: u64,
    /// To be echoed.
    pub nonce: u64,
}

/// Kind 3, channel `gone`: the will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The connection that ended.
    pub session: Session,
}

impl Message for Up {
    const KIND: u8 = 1;
    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Reports(reports) => {
                bound("reports", reports.reports.len(), MAX_REPORTS)?;
                if reports.first < reports.oldest || reports.first.checked_add(MAX_REPORTS as u64).is_none() {
                    return Err(WireError::Bounds("first"));
                }
                reports.reports.iter().try_for_each(check_report)
            }
            Self::Heartbeat(heartbeat) => bound("overdue", heartbeat.overdue.len(), MAX_OVERDUE),
        }
    }
}

impl Message for Hello {
    const KIND: u8 = 2;
    fn check(&self) -> Result<(), WireError> {
        bound("version", self.version.len(), 64)
    }
}

impl Message for Gone {
    const KIND: u8 = 3;
}

fn check_report(report: &Report) -> Result<(), WireError> {
    match report {
        Report::Power(PowerReport { error, .. })
        | Report::Management(ManagementReport { error, .. })
        | Report::Snapshot(Snapshot { error, .. }) => error.as_ref().map_or(Ok(()), check_error),
        Report::Operation(OperationReport { progress: Progress::Done(outcome), .. }) => match outcome {
            Outcome::Failed(error) => check_error(error),
            Outcome::Unknown(text) => bound("outcome", text.len(), MAX_TEXT),
            _ => Ok(()),
        },
        Report::Operation(_) | Report::Password(_) => Ok(()),
        Report::Facts(report) => report.facts.check(),
        Report::Ha(report) => report.error.as_ref().map_or(Ok(()), check_error).and_then(|()| report.check()),
        Report::Judged(report) => report.check(),
    }
}

fn check_error(error: &BmcError) -> Result<(), WireError> {
    bound("error.driver", error.driver.len(), 32)?;
    bound("error.code", error.code.len(), 64)?;
    bound("error.text", error.text.len(), MAX_TEXT)
}
