//! Fencing by people's word: ordered, planned, vouched for, ended, released. Never says fenced before the agent has proven it.

use std::io::IsTerminal;

use picket_common::api::ha::{HaView, Judged};
use picket_common::ha::Gate;
use picket_common::id::HostId;
use picket_common::policy::{GateAnswer, Verdict};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Ended;
use crate::cli::{Fence, FenceVerb, Follow, Said};
use crate::client::{Client, typed};
use crate::confirm::confirm;
use crate::failure::{Failure, REFUSED, over_all};
use crate::orders::{self, Order, Outcome};
use crate::output::{Column, Output, column, maybe, plain};
use crate::places::without_null;
use crate::select::{named, rows};

/// `fence …`.
pub async fn fence(client: &Client, out: &Output, command: Fence) -> Ended {
    let Fence { verb, hosts, reason, overrides, follow } = command;
    let Some(verb) = verb else {
        let hosts = named(client, &hosts).await?;
        let fields =
            json!({ "reason": reason, "overrides": overrides.iter().map(|name| gate(name)).collect::<Result<Vec<_>, _>>()? });
        let order = order("fence", "fence", fields, &follow);
        if !follow.yes {
            foretell(client, &hosts).await?;
        }
        confirm(client, "Fence", &hosts, follow.yes).await?;
        return ended(client, out, &hosts, &order).await;
    };
    if !hosts.is_empty() || reason.is_some() || !overrides.is_empty() {
        return Err(Failure::Usage("what belongs to the verb stands after it: `picketctl fence release HOST --reason WHY`".into()));
    }
    match verb {
        FenceVerb::Plan { hosts, timeout } => plan(client, out, &hosts, timeout).await,
        FenceVerb::Confirm { said, force } => {
            let what = "Vouch for the power being off, of";
            word(client, out, "fence/confirm", Some(what), &said, json!({ "force": force })).await
        }
        FenceVerb::Abort(said) => word(client, out, "fence/abort", None, &said, json!({})).await,
        FenceVerb::Ack(said) => word(client, out, "fence/ack", None, &said, json!({})).await,
        FenceVerb::Release(said) => word(client, out, "fence/release", Some("Release"), &said, json!({})).await,
    }
}

/// A word about hosts, after asking where it can do harm.
pub async fn word(client: &Client, out: &Output, route: &'static str, asks: Option<&str>, said: &Said, fields: Value) -> Ended {
    let hosts = named(client, &said.hosts).await?;
    match asks {
        Some(what) => confirm(client, what, &hosts, said.follow.yes).await?,
        // A slip in one of many names is told before anything is asked.
        None if hosts.len() > 1 => drop(rows(client, &hosts).await?),
        None => {}
    }
    let mut fields = fields;
    fields["reason"] = json!(said.reason);
    ended(client, out, &hosts, &order(route, route, fields, &said.follow)).await
}

fn order(operation: &'static str, route: &'static str, fields: Value, follow: &Follow) -> Order {
    let mut fields = fields;
    fields["timeout"] = json!(follow.timeout);
    let waits = !follow.no_wait && (follow.wait || std::io::stdout().is_terminal());
    Order { waits, ..Order::new(operation, route, without_null(fields)) }
}

async fn ended(client: &Client, out: &Output, hosts: &[HostId], order: &Order) -> Ended {
    let outcomes = orders::one_by_one(client, hosts, order).await;
    orders::show(out, order, &outcomes)?;
    Ok(over_all(&outcomes.iter().map(|outcome| outcome.code).collect::<Vec<_>>()))
}

fn gate(name: &str) -> Result<Gate, Failure> {
    let word = |gate: &Gate| serde_json::to_value(gate).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
    let all = || Gate::ALL.iter().map(word).collect::<Vec<_>>().join(", ");
    let found = Gate::ALL.into_iter().find(|gate| word(gate) == name);
    found.ok_or_else(|| Failure::Usage(format!("there is no gate {name:?}; there are {}", all())))
}

/// What the gates say to the fence of one host.
struct Planned {
    host: HostId,
    judged: Result<Judged, Failure>,
}

/// Has all gates asked.
async fn planned(client: &Client, hosts: &[HostId], timeout: Option<u64>) -> Vec<Planned> {
    let order = Order::new("plan", "fence/plan", without_null(json!({ "timeout": timeout })));
    let outcomes = orders::one_by_one(client, hosts, &order).await;
    let mut planned = Vec::new();
    for (host, outcome) in hosts.iter().zip(outcomes) {
        planned.push(Planned { host: host.clone(), judged: judged(client, host, &outcome).await });
    }
    planned
}

async fn judged(client: &Client, host: &HostId, outcome: &Outcome) -> Result<Judged, Failure> {
    if outcome.code != 0 {
        let word = |name: &str| outcome.row[name].as_str().map(str::to_owned);
        let why = word("detail").or_else(|| word("refusal")).or_else(|| word("result"));
        return Err(Failure::Local(why.unwrap_or_else(|| "the gates did not answer".into())));
    }
    let view: HaView = typed(client.one(&format!("/v1/hosts/{host}/ha")).await?)?;
    view.judged.ok_or_else(|| Failure::Local("the gates' answers are not here yet".into()))
}

/// A gate's answer, as it is shown.
#[derive(Deserialize)]
pub struct GateRow {
    host: HostId,
    #[serde(flatten)]
    answer: GateAnswer,
}

/// A gate's name, as in JSON.
fn gate_name(gate: Gate) -> String {
    serde_json::to_value(gate).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

const ANSWER: Column<GateRow> = column("ANSWER", |g, _| match g.answer.verdict {
    Verdict::Pass => "pass".into(),
    Verdict::Refuse => "refuse".into(),
    Verdict::CannotTell => "cannot-tell".into(),
});
const GATE: Column<GateRow> = column("GATE", |g, _| gate_name(g.answer.gate).into());
const INPUTS: Column<GateRow> = column("WHAT IT SAW", |g, _| (&g.answer.inputs).into());
const OVERRIDDEN: Column<GateRow> = column("OVERRIDDEN", |g, _| maybe(g.answer.overridden_by.as_ref()));

/// Gates of one host.
pub const GATES: &[Column<GateRow>] = &[GATE, ANSWER, INPUTS, OVERRIDDEN];

const GATES_OF_HOSTS: &[Column<GateRow>] = &[column("HOST", |g, _| (&g.host).into()), GATE, ANSWER, INPUTS, OVERRIDDEN];

/// The gates' answers, a row each.
pub fn gate_rows(host: &HostId, judged: &Judged) -> Vec<Value> {
    let row = |answer: &GateAnswer| {
        let mut row = serde_json::to_value(answer).unwrap_or_default();
        row["host"] = json!(host);
        row
    };
    judged.judgement.0.iter().map(row).collect()
}

async fn plan(client: &Client, out: &Output, words: &[String], timeout: Option<u64>) -> Ended {
    let hosts = named(client, words).await?;
    if hosts.len() > 1 {
        rows(client, &hosts).await?;
    }
    let planned = planned(client, &hosts, timeout).await;
    let mut codes = Vec::new();
    let mut shown = Vec::new();
    for Planned { host, judged } in &planned {
        match judged {
            Ok(judged) => {
                codes.push(if judged.held_by.is_some() { REFUSED } else { 0 });
                shown.extend(gate_rows(host, judged));
            }
            Err(failure) => {
                codes.push(failure.exit_code());
                eprintln!("{host}: {}", plain(&failure.line()));
            }
        }
    }
    out.list(&shown, if hosts.len() > 1 { GATES_OF_HOSTS } else { GATES }, "host")?;
    Ok(over_all(&codes))
}

/// Says on stderr what the gates say to the fences that are about to be ordered. That they cannot be asked stops nothing.
async fn foretell(client: &Client, hosts: &[HostId]) -> Result<(), Failure> {
    if hosts.len() > 1 {
        rows(client, hosts).await?;
    }
    for Planned { host, judged } in planned(client, hosts, None).await {
        eprintln!("{}", plain(&foretold(&host, &judged)));
    }
    Ok(())
}

fn foretold(host: &HostId, judged: &Result<Judged, Failure>) -> String {
    match judged {
        Err(failure) => format!("{host}: no plan: {}", failure.line()),
        Ok(judged) => {
            let closed = judged.judgement.0.iter().filter(|answer| !answer.lets_through());
            let closed: Vec<String> = closed.map(|answer| format!("{}: {}", gate_name(answer.gate), answer.inputs)).collect();
            if closed.is_empty() { format!("{host}: all gates pass") } else { format!("{host}: held by {}", closed.join("; ")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown_by};
    use picket_common::policy::Judgement;

    fn judged() -> Judged {
        let answer = |gate, verdict, inputs: &str, by: Option<&str>| GateAnswer {
            gate,
            verdict,
            inputs: inputs.into(),
            overridden_by: by.map(str::to_owned),
        };
        let judgement = Judgement(vec![
            answer(Gate::Identity, Verdict::Pass, "the BMC is the one that was pinned", None),
            answer(Gate::Isolation, Verdict::CannotTell, "nothing to ask", Some("ann")),
            answer(Gate::Storm, Verdict::Refuse, "4 of 10 hosts of the rack", None),
        ]);
        let held_by = judgement.held_by();
        Judged { at: "2026-01-01T00:00:00Z".parse().unwrap(), act: "plan".into(), attempt: 1, judgement, held_by }
    }

    #[test]
    fn gates_are_a_table() {
        let host: HostId = "h1".parse().unwrap();
        let wanted = "\
GATE       ANSWER       WHAT IT SAW                         OVERRIDDEN
identity   pass         the BMC is the one that was pinned  -
isolation  cannot-tell  nothing to ask                      ann
storm      refuse       4 of 10 hosts of the rack           -
";
        assert_eq!(shown_by(&at(Format::Table, false), &gate_rows(&host, &judged()), GATES, "host", false), wanted);
        assert_eq!(foretold(&host, &Ok(judged())), "h1: held by storm: 4 of 10 hosts of the rack");
        assert_eq!(foretold(&host, &Err(Failure::Local("no agent".into()))), "h1: no plan: no agent");
    }

    #[test]
    fn gates_by_name() {
        assert_eq!(gate("somewhere-to-go").unwrap(), Gate::SomewhereToGo);
        let told = gate("colour").unwrap_err();
        assert!(told.exit_code() == 2 && told.to_string().contains("identity, driver"), "{told}");
    }
}
