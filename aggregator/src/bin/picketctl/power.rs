//! Switching hosts and gates, after asking.

use std::io::IsTerminal;

use futures_util::{StreamExt, stream};
use picket_common::api::DryRun;
use picket_common::power::PowerOperation;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Ended;
use crate::cli::{Gate, GateScope, OobmCommand, Power};
use crate::client::{Client, escaped};
use crate::confirm::{ask, confirm};
use crate::failure::{Failure, over_all};
use crate::orders::{self, Order, Outcome};
use crate::output::{Column, Output, column, maybe, plain, power as shape, yes_no};
use crate::places::without_null;
use crate::progress::Progress;
use crate::select::{named, rows};

const PLANS: &[Column<DryRun>] = &[
    column("HOST", |d, _| (&d.host).into()),
    column("POWER", |d, _| shape(d.power, false)),
    column("MAINTENANCE", |d, _| yes_no(d.maintenance)),
    column("REFUSAL", |d, _| maybe(d.refusal.as_ref())),
    column("DETAIL", |d, _| (&d.detail).into()),
];

/// `power …`.
pub async fn power(client: &Client, out: &Output, command: Power) -> Ended {
    if command.exit_state && command.operation != PowerOperation::Status {
        return Err(Failure::Usage("--exit-state goes with status".into()));
    }
    let hosts = named(client, &command.hosts).await?;
    let order = order(&command);
    if command.operation != PowerOperation::Status && !command.dry_run {
        confirm(client, &format!("Power {}", command.operation), &hosts, command.yes).await?;
    } else if hosts.len() > 1 {
        // A slip in one of many names is told before anything is asked.
        rows(client, &hosts).await?;
    }
    let outcomes = orders::carried_out(client, &hosts, &order).await?;
    if command.dry_run {
        show_plans(out, &outcomes)?
    } else {
        orders::show(out, &order, &outcomes)?
    }
    let codes: Vec<u8> = outcomes.iter().map(|outcome| outcome.code).collect();
    let state = command.exit_state.then(|| state_code(&outcomes)).flatten();
    Ok(state.unwrap_or_else(|| over_all(&codes)))
}

fn order(command: &Power) -> Order {
    let Power { operation, timeout, reason, dry_run, on_if_off, stagger, .. } = command;
    let fields = without_null(json!({ "timeout": timeout, "reason": reason, "on_if_off": on_if_off }));
    let order = Order::new(operation.as_str(), "power", fields);
    Order { stagger: *stagger, waits: waits(command), dry_run: *dry_run, ..order }
}

/// Whether to wait: as told; otherwise on a terminal, and for a status, whose id alone would be of no use.
fn waits(command: &Power) -> bool {
    if command.no_wait {
        return false;
    }
    command.wait || command.operation == PowerOperation::Status || std::io::stdout().is_terminal()
}

fn show_plans(out: &Output, outcomes: &[Outcome]) -> Result<(), Failure> {
    let rows = outcomes.iter().map(|outcome| outcome.row.clone());
    let (plans, failed): (Vec<_>, Vec<_>) = rows.partition(|row| row.get("maintenance").is_some());
    for row in &failed {
        eprintln!("{}: {}", plain(row["host"].as_str().unwrap_or_default()), plain(row["detail"].as_str().unwrap_or_default()));
    }
    out.list(&plans, PLANS, "host")
}

/// `--exit-state`: 3 when any cannot be told, 2 when any is off, 0 when all are on; none when a host was not read at all.
fn state_code(outcomes: &[Outcome]) -> Option<u8> {
    let states: Option<Vec<&str>> = outcomes.iter().map(|outcome| outcome.row["power"].as_str()).collect();
    let states = states?;
    Some(match () {
        () if states.iter().any(|state| !matches!(*state, "on" | "off")) => 3,
        () if states.contains(&"off") => 2,
        () => 0,
    })
}

/// A gate, as it is now.
#[derive(Deserialize)]
struct GateRow {
    scope: String,
    id: String,
    #[serde(alias = "oobm_enabled", alias = "ha_enabled")]
    enabled: bool,
}

const GATES: &[Column<GateRow>] =
    &[column("SCOPE", |g, _| (&g.scope).into()), column("ID", |g, _| (&g.id).into()), column("OOBM", |g, _| yes_no(g.enabled))];

const HA_GATES: &[Column<GateRow>] =
    &[column("SCOPE", |g, _| (&g.scope).into()), column("ID", |g, _| (&g.id).into()), column("HA", |g, _| yes_no(g.enabled))];

/// Which gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gates {
    /// Of out-of-band management.
    Oobm,
    /// Of host-HA.
    Ha,
}

/// Gates set at the same time.
const AT_ONCE: usize = 32;

/// `oobm …`.
pub async fn oobm(client: &Client, out: &Output, command: OobmCommand) -> Ended {
    match command {
        OobmCommand::Enable(gate) => turn(client, out, Gates::Oobm, &gate, true).await,
        OobmCommand::Disable(gate) => turn(client, out, Gates::Oobm, &gate, false).await,
    }
}

/// Opens or shuts gates.
pub async fn turn(client: &Client, out: &Output, gates: Gates, gate: &Gate, opens: bool) -> Ended {
    let ids = gate_ids(client, gates, gate, opens).await?;
    let verb = if opens { "enable" } else { "disable" };
    let (which, columns) = match gates {
        Gates::Oobm => ("oobm", GATES),
        Gates::Ha => ("ha", HA_GATES),
    };
    let collection = match gate.scope {
        GateScope::Host => "hosts",
        GateScope::Cluster => "clusters",
        GateScope::Zone => "zones",
    };
    let progress = Progress::new(ids.len());
    let each = stream::iter(&ids).map(|id| {
        let progress = &progress;
        async move {
            let path = format!("/v1/{collection}/{}/{which}/{verb}", escaped(id));
            let answer = client.json(Method::POST, &path, None).await;
            progress.step(answer.is_ok());
            (id, answer)
        }
    });
    let answers: Vec<_> = each.buffered(AT_ONCE).collect().await;
    drop(progress);
    let codes: Vec<u8> = answers.iter().map(|(_, answer)| answer.as_ref().map_or_else(Failure::exit_code, |_| 0)).collect();
    let mut done: Vec<Value> = Vec::new();
    for (id, answer) in answers {
        match answer {
            Ok(gate) => done.push(gate),
            Err(failure) => eprintln!("{}: {failure}", plain(id)),
        }
    }
    out.list(&done, columns, "id")?;
    Ok(over_all(&codes))
}

/// The gates that are meant, asked about when they are to be shut: hosts as hosts are, a cluster or zone by its name.
async fn gate_ids(client: &Client, gates: Gates, gate: &Gate, opens: bool) -> Result<Vec<String>, Failure> {
    let what = match gates {
        Gates::Oobm => "out-of-band management",
        Gates::Ha => "host-HA",
    };
    if gate.scope == GateScope::Host {
        let hosts = named(client, &gate.ids).await?;
        if !opens {
            confirm(client, &format!("Disable {what} of"), &hosts, gate.yes).await?;
        }
        return Ok(hosts.iter().map(ToString::to_string).collect());
    }
    if !opens && !gate.yes {
        let names = gate.ids.join(" ");
        let of = if gates == Gates::Oobm { String::new() } else { format!("{what} of ") };
        ask(&format!("Disable {of}all hosts of {names}? Type {names}: "), std::slice::from_ref(&names))?;
    }
    Ok(gate.ids.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown, shown_by};

    #[test]
    fn states_become_exit_codes() {
        let outcomes = |states: &[Option<&str>]| -> Vec<Outcome> {
            states.iter().map(|state| Outcome { row: json!({ "power": state }), code: 0 }).collect()
        };
        for (states, wanted) in [
            (&[Some("on")][..], Some(0)),
            (&[Some("off")], Some(2)),
            (&[Some("on"), Some("off")], Some(2)),
            (&[Some("unknown"), Some("off")], Some(3)),
            (&[Some("disabled")], Some(3)),
            (&[None, Some("on")], None),
        ] {
            assert_eq!(state_code(&outcomes(states)), wanted, "{states:?}");
        }
    }

    #[test]
    fn tables_are_as_they_were() {
        let plans = [
            json!({"host": "h1", "operation": "off", "power": "on", "maintenance": false, "detail": "would be sent to the agent: off"}),
            json!({"host": "h2", "operation": "off", "power": "disabled", "maintenance": true, "refusal": "host-disabled",
                "detail": "would be refused: d"}),
        ];
        let wanted = "\
HOST  POWER       MAINTENANCE  REFUSAL        DETAIL
h1    ● on        no           -              would be sent to the agent: off
h2    – disabled  yes          host-disabled  would be refused: d
";
        assert_eq!(shown_by(&at(Format::Table, true), &plans, PLANS, "host", false), wanted);
        let gates = [json!({"scope": "cluster", "id": "c1", "oobm_enabled": false})];
        assert_eq!(shown(&at(Format::Table, false), &gates, GATES, false), "SCOPE    ID  OOBM\ncluster  c1  no\n");
    }
}
