//! Agents, the line that makes one, and certificates for consumers. A key is written for its owner alone and never printed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use picket_common::api::{Agent, ConsumerCertificate, JoinToken};
use picket_common::id::{RackId, ZoneId};
use reqwest::Method;
use serde_json::json;

use crate::Ended;
use crate::cli::{AgentCommand, ConsumerCommand};
use crate::client::{Client, typed};
use crate::failure::Failure;
use crate::output::{Column, Output, column, maybe, maybe_age, print, shaped, yes_no};
use crate::places::without_null;
use crate::sight;

const AGENTS: &[Column<Agent>] = &[
    column("AGENT", |a, _| (&a.id).into()),
    column("RACK", |a, _| (&a.rack).into()),
    column("CONNECTED", |a, _| if a.connected { shaped('●', "yes") } else { shaped('▲', "no") }),
    column("SEEN", |a, look| maybe_age(a.last_seen, look)),
    column("VERSION", |a, _| maybe(a.version.as_ref())),
    column("OUTBOX", |a, _| a.outbox.into()),
    column("HOSTS", |a, _| a.hosts.into()),
    column("UP-TO-DATE", |a, _| yes_no(a.up_to_date)),
];

const TOKENS: &[Column<JoinToken>] = &[
    column("AGENT", |t, _| (&t.agent).into()),
    column("EXPIRES", |t, _| sight::seconds(t.expires_at).into()),
    column("COMMAND", |t, _| (&t.command).into()),
];

/// `agents …`.
pub async fn agents(client: &Client, out: &Output, command: AgentCommand) -> Ended {
    match command {
        AgentCommand::List => out.list(&client.all("/v1/agents", &[], usize::MAX).await?, AGENTS, "id")?,
        AgentCommand::Show { id } => out.one(&client.one(&format!("/v1/agents/{id}")).await?, AGENTS, "id")?,
        AgentCommand::Token { rack, host, zone, agent, ttl } => {
            if let (Some(rack), Some(zone)) = (&rack, zone) {
                make_rack(client, rack, &zone).await?;
            }
            let body = without_null(json!({"rack": rack, "host": host, "agent": agent, "ttl": ttl}));
            let made = client.json(Method::POST, "/v1/agents/tokens", Some(&body)).await?;
            if out.is_table() {
                let token: JoinToken = typed(made)?;
                let place = host.map_or_else(|| "the rack's controller".to_owned(), |host| format!("host {host}"));
                eprintln!("Paste this on {place} before {} (it works once):", sight::seconds(token.expires_at));
                print(&format!("{}\n", token.command))?;
            } else {
                out.one(&made, TOKENS, "token")?;
            }
        }
    }
    Ok(0)
}

/// Makes the rack if it is new; one that is there stays as it is.
async fn make_rack(client: &Client, rack: &RackId, zone: &ZoneId) -> Result<(), Failure> {
    let path = format!("/v1/racks/{rack}");
    match client.one(&path).await {
        Ok(found) if found["zone"] == zone.as_str() => Ok(()),
        Ok(found) => Err(Failure::Usage(format!("rack {rack} stands in zone {}", found["zone"]))),
        Err(Failure::Problem(problem)) if problem.status == 404 => {
            client.json(Method::PUT, &path, Some(&json!({ "zone": zone }))).await.map(drop)
        }
        Err(failure) => Err(failure),
    }
}

const FILES: &[Column<serde_json::Value>] = &[
    column("NAME", |f, _| f["name"].as_str().unwrap_or_default().into()),
    column("CERTIFICATE", |f, _| f["certificate"].as_str().unwrap_or_default().into()),
    column("PRIVATE-KEY", |f, _| f["private_key"].as_str().unwrap_or_default().into()),
    column("CA", |f, _| f["ca"].as_str().unwrap_or_default().into()),
    column("MQTT", |f, _| f["mqtt"].as_str().unwrap_or_default().into()),
    column("EXPIRES", |f, _| f["expires_at"].as_str().unwrap_or_default().into()),
];

/// `consumers …`.
pub async fn consumers(client: &Client, out: &Output, command: ConsumerCommand) -> Ended {
    let ConsumerCommand::Issue { name, out: dir, days } = command;
    let path = |ending: &str| dir.join(format!("{name}.{ending}"));
    for taken in [path("pem"), path("key")] {
        if taken.exists() {
            return Err(Failure::Usage(format!("{} is there already", taken.display())));
        }
    }
    let body = without_null(json!({"name": name, "days": days}));
    let made: ConsumerCertificate = typed(client.json(Method::POST, "/v1/consumers", Some(&body)).await?)?;
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&dir).map_err(|error| failed(&dir, &error))?;
    let private_key = zeroize::Zeroizing::new(made.private_key);
    write(&path("key"), &private_key, 0o600, true)?;
    write(&path("pem"), &made.certificate, 0o644, true)?;
    write(&dir.join("ca.pem"), &made.ca, 0o644, false)?;
    let shown = json!({
        "name": made.name, "certificate": path("pem"), "private_key": path("key"), "ca": dir.join("ca.pem"),
        "mqtt": made.mqtt, "expires_at": made.expires_at,
    });
    if out.is_table() {
        eprintln!("good until {}; MQTT is at {}", sight::seconds(made.expires_at), made.mqtt);
        let files = [path("pem"), path("key"), dir.join("ca.pem")];
        print(&files.iter().map(|file| format!("{}\n", file.display())).collect::<String>())?;
    } else {
        out.one(&shown, FILES, "name")?;
    }
    Ok(0)
}

/// Writes a file for whom `mode` says.
pub fn write(path: &Path, text: &str, mode: u32, new: bool) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    options.write(true).mode(mode);
    if new {
        options.create_new(true)
    } else {
        options.create(true).truncate(true)
    };
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Local(format!("{}: {error}", path.display()))
}
