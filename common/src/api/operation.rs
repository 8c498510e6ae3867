//! Operations: what is asked, how far it is, and how it ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::HostFacts;
use crate::command::{Action, BmcError, BootDevice, HaAction, OperationState, Persistence};
use crate::ha::GateSet;
use crate::id::{HostId, OperationId};
use crate::power::{PowerOperation, PowerState};
use crate::secret::Secret;
use crate::wire::report::InForce;

/// `POST /v1/hosts/{h}/power`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// What to do.
    pub operation: PowerOperation,
    /// Time it may take, in seconds (1 – 3600); absent = the cluster's or the global one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why, for the history (at most 500 characters).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// For cycle and reset of a host that is off: switch it on instead of refusing.
    #[serde(default)]
    pub on_if_off: bool,
}

/// An operation's action in JSON: the field `operation` names it, its parameters stand beside it. (The derived form of [`Action`]
/// itself is the wire's.)
#[derive(Serialize, Deserialize)]
#[serde(remote = "Action", tag = "operation", rename_all = "kebab-case")]
pub(super) enum ActionJson {
    On,
    Off,
    Cycle,
    Reset,
    Soft,
    Status,
    Diag,
    Identify {
        seconds: u16,
    },
    Bootdev {
        device: BootDevice,
        persistence: Persistence,
    },
    Test,
    ChangePassword,
    #[serde(untagged)]
    Ha(#[serde(with = "HaActionJson")] HaAction),
}

/// The same of what people order of host-HA.
#[derive(Serialize, Deserialize)]
#[serde(remote = "HaAction", tag = "operation")]
pub(super) enum HaActionJson {
    #[serde(rename = "fence")]
    Fence {
        #[serde(skip_serializing_if = "GateSet::is_empty", default)]
        overrides: GateSet,
    },
    #[serde(rename = "fence-plan")]
    Plan,
    #[serde(rename = "fence-confirm")]
    Confirm {
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        force: bool,
    },
    #[serde(rename = "fence-abort")]
    Abort,
    #[serde(rename = "fence-ack")]
    Ack,
    #[serde(rename = "fence-release")]
    Release,
    #[serde(rename = "ha-reset-counters")]
    ResetCounters,
    #[serde(rename = "ha-end-cliff")]
    EndCliff,
}

/// `POST /v1/operations`: one operation of many hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationRequest {
    /// Host set: `r07n[01-48],@cluster:c2!@state:off`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub select: Option<String>,
    /// Hosts by name, in place of `select`; they are begun in this order.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hosts: Option<Vec<HostId>>,
    /// What to do.
    pub operation: OperationWord,
    /// For `identify`: how long, in seconds (0 – 255); 0 puts it out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<u16>,
    /// For `bootdev`: from what.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub device: Option<BootDevice>,
    /// For `bootdev`: for how long; absent = once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub persistence: Option<Persistence>,
    /// Time each host may take from its own start, in seconds (1 – 3600); absent = the host's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why, for the history (at most 500 characters).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Pause between the starts of two hosts, in seconds (at most 3600).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stagger: Option<u64>,
    /// The same in milliseconds, in place of `stagger`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stagger_ms: Option<u64>,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// For cycle and reset of a host that is off: switch it on instead of refusing.
    #[serde(default)]
    pub on_if_off: bool,
}

/// What can be asked of many hosts at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the action of its name")]
pub enum OperationWord {
    On,
    Off,
    Cycle,
    Reset,
    Soft,
    Status,
    Diag,
    Identify,
    Bootdev,
    Test,
}

/// `POST /v1/hosts/{h}/identify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentifyRequest {
    /// How long, in seconds (0 – 255); 0 puts it out, absent = 15.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<u16>,
    /// Time it may take, in seconds (1 – 3600).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// `POST /v1/hosts/{h}/bootdev`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootdevRequest {
    /// From what.
    pub device: BootDevice,
    /// For how long; absent = once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub persistence: Option<Persistence>,
    /// Time it may take, in seconds (1 – 3600).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// `POST /v1/hosts/{h}/bmc/test`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestRequest {
    /// Time it may take, in seconds (1 – 3600).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout: Option<u64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// `POST /v1/hosts/{h}/bmc/change-password`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePasswordRequest {
    /// The new password; absent = one is generated.
    #[serde(default)]
    pub password: Option<Secret<String>>,
    /// Whether the answer shows the generated one. It can never be read again.
    #[serde(default)]
    pub return_generated: bool,
    /// Time it may take, in seconds (1 – 3600).
    #[serde(default)]
    pub timeout: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
}

/// `POST /v1/hosts/{h}/bmc/resolve-password`: how a password change ended that is over and was never resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolvePasswordRequest {
    /// `new` or `old`.
    pub in_force: InForce,
}

/// An operation, as `GET /v1/operations/{id}` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What was asked: `operation`, and its parameters beside it.
    #[serde(flatten, with = "ActionJson")]
    pub action: Action,
    /// Who asked.
    pub principal: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Nothing is begun after this; with a stagger each host has an earlier one of its own.
    pub deadline: Timestamp,
    /// Pause between the starts of two hosts, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stagger_ms: Option<u64>,
    /// Whether every host's part has ended.
    pub done: bool,
    /// How many hosts are how far.
    #[serde(default)]
    pub counts: OperationCounts,
    /// What whoever asked should know.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// Per host; in lists only the first ones of an operation with many.
    pub hosts: Vec<OperationHost>,
    /// The generated password: only in the answer to the request that asked for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generated_password: Option<String>,
}

/// How many parts of an operation are how far, and how those that ended did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCounts {
    /// All.
    pub total: u64,
    /// Durable here, not sent.
    pub accepted: u64,
    /// Sent to their agents.
    pub sent: u64,
    /// Taken on by their agents.
    pub admitted: u64,
    /// Ended.
    pub done: u64,
    /// Those that ended, by result.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub results: BTreeMap<String, u64>,
}

/// One host's part of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationHost {
    /// Which host.
    pub host: HostId,
    /// How far.
    pub state: OperationState,
    /// `changed`, `unchanged`, `read`, `refused`, `failed`, `expired`, `cancelled` or `unknown`, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub result: Option<String>,
    /// The state read, for result `read`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub power: Option<PowerState>,
    /// The refusal's code, for result `refused`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusal: Option<String>,
    /// One sentence about the result.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    /// The driver's own error, for result `failed`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bmc_error: Option<BmcError>,
    /// When it is begun, where the operation has a stagger.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub starts_at: Option<Timestamp>,
    /// When it was handed to the broker.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sent_at: Option<Timestamp>,
    /// When the agent took it on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub admitted_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub done_at: Option<Timestamp>,
    /// What whoever asked should know of this host.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// What is known of its BMC, for `test`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub facts: Option<Box<HostFacts>>,
}

/// Answer of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// Which host.
    pub host: HostId,
    /// What was asked: `operation`, and its parameters beside it.
    #[serde(flatten, with = "ActionJson")]
    pub action: Action,
    /// Its state now.
    pub power: PowerState,
    /// Whether people work on it.
    pub maintenance: bool,
    /// The refusal's code, if it would be refused here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refusal: Option<String>,
    /// One sentence.
    pub detail: String,
    /// What whoever asks should know: maintenance, a state that is stale.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
}

/// Answer of a dry run of many hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkDryRun {
    /// Always true: nothing was done.
    pub dry_run: bool,
    /// How many hosts it would concern.
    pub total: u64,
    /// How many of them would be refused here.
    pub refused: u64,
    /// Time from the first start to the last, in milliseconds.
    pub duration_ms: u64,
    /// What whoever asks should know.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// Per host.
    pub hosts: Vec<DryRun>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ha::Gate;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Shown {
        #[serde(flatten, with = "ActionJson")]
        action: Action,
        reason: String,
    }

    #[test]
    fn an_action_is_named_by_one_field() {
        let overrides: GateSet = [Gate::Storm, Gate::Cap].into_iter().collect();
        for (action, fields) in [
            (Action::Identify { seconds: 5 }, r#""operation":"identify","seconds":5"#),
            (Action::Ha(HaAction::Fence { overrides: GateSet::default() }), r#""operation":"fence""#),
            (Action::Ha(HaAction::Fence { overrides }), r#""operation":"fence","overrides":["storm","cap"]"#),
            (Action::Ha(HaAction::Plan), r#""operation":"fence-plan""#),
            (Action::Ha(HaAction::Confirm { force: true }), r#""operation":"fence-confirm","force":true"#),
            (Action::Ha(HaAction::Confirm { force: false }), r#""operation":"fence-confirm""#),
            (Action::Ha(HaAction::Abort), r#""operation":"fence-abort""#),
            (Action::Ha(HaAction::Ack), r#""operation":"fence-ack""#),
            (Action::Ha(HaAction::Release), r#""operation":"fence-release""#),
            (Action::Ha(HaAction::ResetCounters), r#""operation":"ha-reset-counters""#),
            (Action::Ha(HaAction::EndCliff), r#""operation":"ha-end-cliff""#),
        ] {
            let shown = Shown { action, reason: "x".into() };
            let json = format!(r#"{{{fields},"reason":"x"}}"#);
            assert_eq!(serde_json::to_string(&shown).unwrap(), json);
            assert_eq!(serde_json::from_str::<Shown>(&json).unwrap(), shown);
            assert!(fields.contains(&format!(r#""operation":"{action}""#)), "{fields}");
        }
        assert!(serde_json::from_str::<Shown>(r#"{"operation":"explode","reason":"x"}"#).is_err());
    }
}
