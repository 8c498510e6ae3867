//! `pm`: the words and the text of powerman 2.3 and 2.4 (`powerman(1)`), for hands and scripts that know them. Where powerman has
//! an exit code it is powerman's: 209 no such node, 210 a command with errors, 211 a query with errors. It asks as `power` does,
//! which powerman does not: `alias pm='picketctl pm --yes'` is the old manner.

use std::collections::BTreeSet;

use picket_common::command::MAX_IDENTIFY_SECONDS;
use picket_common::hostset::{fold_last, in_natural_order};
use picket_common::id::HostId;
use serde_json::json;

use crate::Ended;
use crate::cli::Pm;
use crate::client::Client;
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::orders::{self, Order, Outcome};
use crate::output::{plain, print};
use crate::select::{known, read, resolved};

/// No such node (`CP_ERR_NOSUCHNODES`).
const NO_SUCH_NODES: u8 = 209;
/// A command completed with errors (`CP_ERR_COM_COMPLETE`).
const COMMAND_ERRORS: u8 = 210;
/// A query completed with errors (`CP_ERR_QRY_COMPLETE`).
const QUERY_ERRORS: u8 = 211;

/// `pm …`.
pub async fn pm(client: &Client, command: Pm) -> Ended {
    let all = all(client).await?;
    if command.list {
        print(&listed(&all, command.exprange))?;
        return Ok(0);
    }
    let targets = if command.hosts.is_empty() { all.clone() } else { targets(client, &command.hosts).await? };
    let absent: BTreeSet<HostId> = targets.difference(&all).cloned().collect();
    if !absent.is_empty() {
        print(&format!("No such nodes: {}\n", fold_last(&absent)))?;
        return Ok(NO_SUCH_NODES);
    }
    let targets = in_natural_order(&targets);
    let order = order(&command);
    if !matches!(order.operation, "status" | "identify") {
        confirm(client, &format!("Power {}", order.operation), &targets, command.yes).await?;
    }
    let outcomes = orders::carried_out(client, &targets, &order).await?;
    let (text, code) = if order.operation == "status" { queried(&outcomes, command.exprange) } else { commanded(&outcomes) };
    print(&text)?;
    Ok(code)
}

async fn all(client: &Client) -> Result<BTreeSet<HostId>, Failure> {
    let everyone = ["@all".to_owned()];
    targets(client, &everyone).await
}

async fn targets(client: &Client, words: &[String]) -> Result<BTreeSet<HostId>, Failure> {
    let set = read(words)?;
    resolved(&set, &known(client, &set).await?)
}

/// A light that is put on stays on for as long as BMCs can be told at most.
fn order(command: &Pm) -> Order {
    let power = |operation| Order::new(operation, "power", json!({}));
    let light = |seconds: u16| Order::new("identify", "identify", json!({ "seconds": seconds }));
    match command {
        Pm { on: true, .. } => power("on"),
        Pm { off: true, .. } => power("off"),
        Pm { cycle: true, .. } => power("cycle"),
        Pm { reset: true, .. } => power("reset"),
        Pm { flash: true, .. } => light(MAX_IDENTIFY_SECONDS),
        Pm { unflash: true, .. } => light(0),
        _ => power("status"),
    }
}

fn listed(hosts: &BTreeSet<HostId>, expanded: bool) -> String {
    if expanded {
        return in_natural_order(hosts).iter().map(|host| format!("{host}\n")).collect();
    }
    format!("{}\n", fold_last(hosts))
}

/// What went wrong, a line for each host.
fn errors(outcomes: &[Outcome]) -> String {
    let failed = outcomes.iter().filter(|outcome| outcome.code != 0);
    let word = |outcome: &Outcome, name: &str| plain(outcome.row[name].as_str().unwrap_or("unknown"));
    let line = |outcome: &Outcome| {
        let why = if outcome.row["detail"].is_string() { word(outcome, "detail") } else { word(outcome, "result") };
        format!("{}: {why}\n", word(outcome, "host"))
    };
    failed.map(line).collect()
}

fn commanded(outcomes: &[Outcome]) -> (String, u8) {
    let errors = errors(outcomes);
    if errors.is_empty() {
        ("Command completed successfully\n".to_owned(), 0)
    } else {
        (errors + "Command completed with errors\n", COMMAND_ERRORS)
    }
}

fn queried(outcomes: &[Outcome], expanded: bool) -> (String, u8) {
    let mut text = errors(outcomes);
    let code = if text.is_empty() { 0 } else { QUERY_ERRORS };
    let state = |outcome: &Outcome| match outcome.row["power"].as_str() {
        Some("on") => "on",
        Some("off") => "off",
        _ => "unknown",
    };
    let host = |outcome: &Outcome| outcome.row["host"].as_str().and_then(|host| host.parse::<HostId>().ok());
    let read: Vec<(HostId, &str)> = outcomes.iter().filter_map(|outcome| Some((host(outcome)?, state(outcome)))).collect();
    if expanded {
        text += &read.iter().map(|(host, state)| format!("{host}: {state}\n")).collect::<String>();
    } else {
        for wanted in ["on", "off", "unknown"] {
            let hosts: BTreeSet<HostId> = read.iter().filter(|(_, state)| *state == wanted).map(|(host, _)| host.clone()).collect();
            text += &format!("{:<9}{}\n", format!("{wanted}:"), fold_last(&hosts));
        }
    }
    if code != 0 {
        text += "Query completed with errors\n";
    }
    (text, code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(states: &[(&str, &str)]) -> Vec<Outcome> {
        let one = |(host, state): &(&str, &str)| match *state {
            "dead" => Outcome { row: json!({"host": host, "result": "failed", "detail": "connect timeout"}), code: 3 },
            "done" => Outcome { row: json!({"host": host, "result": "changed"}), code: 0 },
            power => Outcome { row: json!({"host": host, "result": "read", "power": power}), code: 0 },
        };
        states.iter().map(one).collect()
    }

    /// As powerman 2.3.27 prints it, with `vpcd` behind it and one device that is not there.
    #[test]
    fn the_text_is_powermans() {
        let read =
            outcomes(&[("login1", "on"), ("n-bmc", "on"), ("r07n01", "on"), ("r07n02", "on"), ("r07n04", "off"), ("x2y", "on")]);
        let text = "on:      login1,n-bmc,r07n[01-02],x2y\noff:     r07n04\nunknown: \n";
        assert_eq!(queried(&read, false), (text.to_owned(), 0));
        assert_eq!(queried(&read[..2], true), ("login1: on\nn-bmc: on\n".to_owned(), 0));
        let some = outcomes(&[("r07n01", "off"), ("t1", "dead"), ("t2", "disabled")]);
        let text = "t1: connect timeout\non:      \noff:     r07n01\nunknown: t[1-2]\nQuery completed with errors\n";
        assert_eq!(queried(&some, false), (text.to_owned(), 211));
        assert_eq!(commanded(&outcomes(&[("a", "done"), ("b", "done")])), ("Command completed successfully\n".to_owned(), 0));
        let text = "b: connect timeout\nCommand completed with errors\n";
        assert_eq!(commanded(&outcomes(&[("a", "done"), ("b", "dead")])), (text.to_owned(), 210));
        let all: BTreeSet<HostId> =
            ["r08n1", "r08n2", "r08n10", "login1", "x2y"].into_iter().map(|host| host.parse().unwrap()).collect();
        assert_eq!(listed(&all, false), "login1,r08n[1-2,10],x2y\n");
        assert_eq!(listed(&all, true), "login1\nr08n1\nr08n2\nr08n10\nx2y\n");
    }
}
