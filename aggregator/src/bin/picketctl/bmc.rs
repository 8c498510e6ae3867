//! BMCs beyond power: tested, known, lit, told what to boot from, given new passwords. A password is read, sent and forgotten; one
//! made at random is shown only to who asks for it.

use picket_common::api::HostFacts;
use picket_common::facts::Capability;
use picket_common::id::HostId;
use picket_common::power::PowerState;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Ended;
use crate::cli::{BmcCommand, OrderArgs};
use crate::client::Client;
use crate::confirm::confirm;
use crate::failure::{Failure, over_all};
use crate::hosts::each;
use crate::orders::{self, Order, Outcome, RESULTS};
use crate::output::{Column, Output, Shown, column, maybe, power as shape, wide};
use crate::places::without_null;
use crate::secret_input;
use crate::select::{named, rows};

/// A host with what is known of its BMC.
#[derive(Deserialize)]
struct Known {
    #[serde(alias = "id")]
    host: HostId,
    result: Option<String>,
    power: Option<PowerState>,
    detail: Option<String>,
    facts: Option<HostFacts>,
}

fn fact<T: ToString>(known: &Known, of: impl Fn(&HostFacts) -> Option<T>) -> Shown {
    maybe(known.facts.as_ref().and_then(of).map(|fact| fact.to_string()))
}

fn several(words: Vec<String>) -> Option<String> {
    Some(words.join(" ")).filter(|words| !words.is_empty())
}

fn capability(capability: &Capability) -> String {
    serde_json::to_value(capability).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

const MANUFACTURER: Column<Known> = column("MANUFACTURER", |k, _| fact(k, |f| f.facts.manufacturer.clone()));
const PRODUCT: Column<Known> = column("PRODUCT", |k, _| fact(k, |f| f.facts.product.clone()));
const FIRMWARE: Column<Known> = column("FIRMWARE", |k, _| fact(k, |f| f.facts.firmware.clone()));
const PROTOCOL: Column<Known> = column("PROTOCOL", |k, _| fact(k, |f| f.facts.protocol.clone()));
const WARNINGS: Column<Known> = column("WARNINGS", |k, _| fact(k, |f| several(f.facts.warnings.clone())));
const PRIVILEGE: Column<Known> = wide("PRIVILEGE", |k, _| fact(k, |f| f.facts.privilege.clone()));
const IDENTITY: Column<Known> = wide("IDENTITY", |k, _| fact(k, |f| f.facts.identity.clone()));
const CERTIFICATE: Column<Known> = wide("CERTIFICATE", |k, _| fact(k, |f| f.facts.certificate.clone()));
const QUIRKS: Column<Known> = wide("QUIRKS", |k, _| fact(k, |f| several(f.facts.quirks.clone())));
const ABILITIES: Column<Known> =
    wide("CAPABILITIES", |k, _| fact(k, |f| several(f.facts.capabilities.iter().map(capability).collect())));

const TESTS: &[Column<Known>] = &[
    column("HOST", |k, _| (&k.host).into()),
    column("RESULT", |k, _| maybe(k.result.as_ref())),
    column("POWER", |k, _| k.power.map_or_else(|| maybe(None::<&str>), |power| shape(power, false))),
    column("LATENCY", |k, _| fact(k, |f| f.facts.latency_us.map(milliseconds))),
    PRODUCT,
    FIRMWARE,
    PROTOCOL,
    WARNINGS,
    column("DETAIL", |k, _| maybe(k.detail.as_ref())),
    PRIVILEGE,
    IDENTITY,
    CERTIFICATE,
    QUIRKS,
    ABILITIES,
];

/// `1.3 ms`.
fn milliseconds(microseconds: u32) -> String {
    format!("{}.{} ms", microseconds / 1000, microseconds % 1000 / 100)
}

const FACTS: &[Column<Known>] = &[
    column("HOST", |k, _| (&k.host).into()),
    MANUFACTURER,
    PRODUCT,
    FIRMWARE,
    PROTOCOL,
    WARNINGS,
    column("IDENTITY-DIFFERS", |k, _| fact(k, |f| f.identity_differs.then_some("yes"))),
    PRIVILEGE,
    IDENTITY,
    CERTIFICATE,
    QUIRKS,
    ABILITIES,
    wide("OBSERVED", |k, _| fact(k, |f| Some(f.observed_at))),
];

/// What became of a password change.
#[derive(Deserialize)]
struct Password {
    host: HostId,
    result: Option<String>,
    generated_password: Option<String>,
    detail: Option<String>,
}

const PASSWORDS: &[Column<Password>] = &[
    column("HOST", |p, _| (&p.host).into()),
    column("RESULT", |p, _| maybe(p.result.as_ref())),
    column("PASSWORD", |p, _| maybe(p.generated_password.as_ref())),
    column("DETAIL", |p, _| maybe(p.detail.as_ref())),
];

/// `bmc …`.
pub async fn bmc(client: &Client, out: &Output, command: BmcCommand) -> Ended {
    match command {
        BmcCommand::Test { hosts, order } => {
            let outcomes = harmless(client, &hosts, Order::new("test", "bmc/test", fields(&order, json!({})))).await?;
            ended(out, &outcomes, TESTS)
        }
        BmcCommand::Facts { hosts } => {
            let hosts = named(client, &hosts).await?;
            let (found, codes) = each(&hosts, |host| async move { client.one(&format!("/v1/hosts/{host}")).await }).await;
            match found.as_slice() {
                [host] if hosts.len() == 1 => out.one(&known(host), FACTS, "host")?,
                found => out.list(&found.iter().map(known).collect::<Vec<_>>(), FACTS, "host")?,
            }
            Ok(over_all(&codes))
        }
        BmcCommand::Identify { hosts, seconds, off, order } => {
            let seconds = if off { 0 } else { seconds };
            let order = Order::new("identify", "identify", fields(&order, json!({ "seconds": seconds })));
            ended(out, &harmless(client, &hosts, order).await?, RESULTS)
        }
        BmcCommand::Bootdev { device, hosts, persistent, yes, order } => {
            let persistence = if persistent { "persistent" } else { "once" };
            let fields = fields(&order, json!({ "device": device, "persistence": persistence }));
            let hosts = named(client, &hosts).await?;
            confirm(client, &format!("Boot from {device}:"), &hosts, yes).await?;
            ended(out, &orders::carried_out(client, &hosts, &Order::new("bootdev", "bootdev", fields)).await?, RESULTS)
        }
        BmcCommand::ChangePassword { hosts, password_file, password_stdin, show, yes, order } => {
            let password = match password_file {
                Some(file) => Some(secret_input::from_file(&file)?),
                None if password_stdin => Some(secret_input::from_stdin()?),
                None => None,
            };
            let password = password.as_ref().map(|password| password.expose());
            let fields = fields(&order, json!({ "password": password, "return_generated": show }));
            let hosts = named(client, &hosts).await?;
            confirm(client, "Change the BMC password of", &hosts, yes).await?;
            let order = Order::new("change-password", "bmc/change-password", fields);
            ended(out, &orders::one_by_one(client, &hosts, &order).await, PASSWORDS)
        }
        BmcCommand::ResolvePassword { host, in_force } => {
            let body = json!({ "in_force": in_force });
            let path = format!("/v1/hosts/{host}/bmc/resolve-password");
            client.json(Method::POST, &path, Some(&body)).await?;
            eprintln!("{host}: the {in_force} password is in force");
            Ok(0)
        }
        BmcCommand::Repin { hosts, yes } => {
            let hosts = named(client, &hosts).await?;
            confirm(client, "Take what answers now for", &hosts, yes).await?;
            let body = json!({ "bmc": { "repin": true } });
            let repinned = |host| {
                let body = &body;
                async move { client.json(Method::PATCH, &format!("/v1/hosts/{host}"), Some(body)).await }
            };
            let (_, codes) = each(&hosts, repinned).await;
            Ok(over_all(&codes))
        }
    }
}

/// The parameters of an order, those that all have among them.
fn fields(order: &OrderArgs, own: Value) -> Value {
    let mut fields = own;
    fields["timeout"] = json!(order.timeout);
    fields["reason"] = json!(order.reason);
    without_null(fields)
}

/// A host as it is shown, with what is known of its BMC alone.
fn known(host: &Value) -> Value {
    without_null(json!({ "host": host["id"], "facts": host["facts"] }))
}

/// An order that nobody is asked about.
async fn harmless(client: &Client, words: &[String], order: Order) -> Result<Vec<Outcome>, Failure> {
    let hosts = named(client, words).await?;
    if hosts.len() > 1 {
        rows(client, &hosts).await?;
    }
    orders::carried_out(client, &hosts, &order).await
}

fn ended<T: serde::de::DeserializeOwned>(out: &Output, outcomes: &[Outcome], columns: &[Column<T>]) -> Ended {
    let rows: Vec<Value> = outcomes.iter().map(|outcome| outcome.row.clone()).collect();
    out.list(&rows, columns, "host")?;
    Ok(over_all(&outcomes.iter().map(|outcome| outcome.code).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown_by};

    fn facts() -> Value {
        json!({"manufacturer": "Supermicro", "product": "X11", "firmware": "1.74", "protocol": "IPMI 2.0, cipher suite 17",
            "privilege": "operator", "identity": "guid", "certificate": null, "latency_us": 1349, "capabilities": ["power", "change-password"],
            "quirks": [], "warnings": ["insecure-tls"], "observed_at": "2026-01-01T00:00:00Z", "identity_pinned": "guid",
            "identity_differs": false})
    }

    #[test]
    fn tables_are_as_they_were() {
        let tests = [
            json!({"host": "h1", "state": "done", "result": "read", "power": "on", "facts": facts()}),
            json!({"host": "h2", "state": "done", "result": "failed", "detail": "no answer"}),
        ];
        let wanted = "\
HOST  RESULT  POWER  LATENCY  PRODUCT  FIRMWARE  PROTOCOL                   WARNINGS      DETAIL
h1    read    ● on   1.3 ms   X11      1.74      IPMI 2.0, cipher suite 17  insecure-tls  -
h2    failed  -      -        -        -         -                          -             no answer
";
        assert_eq!(shown_by(&at(Format::Table, true), &tests, TESTS, "host", false), wanted);
        let known = known(&json!({"id": "h1", "power": "on", "facts": facts()}));
        let csv = shown_by(&at(Format::Csv, false), std::slice::from_ref(&known), FACTS, "host", false);
        assert!(csv.ends_with(",operator,guid,,,power change-password,2026-01-01T00:00:00Z\n"), "{csv}");
        let table = shown_by(&at(Format::Table, false), &[known], FACTS, "host", true);
        assert!(table.starts_with("HOST              h1\nMANUFACTURER      Supermicro\n"), "{table}");
        let passwords =
            [json!({"host": "h1", "result": "changed", "generated_password": "Abc1"}), json!({"host": "h2", "result": "failed"})];
        let wanted = "HOST  RESULT   PASSWORD  DETAIL\nh1    changed  Abc1      -\nh2    failed   -         -\n";
        assert_eq!(shown_by(&at(Format::Table, false), &passwords, PASSWORDS, "host", false), wanted);
    }
}
