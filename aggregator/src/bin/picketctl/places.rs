//! Zones, clusters and racks.

use picket_common::api::{Cluster, Rack, Zone};
use reqwest::Method;
use serde_json::{Value, json};

use crate::Ended;
use crate::cli::{ClusterCommand, RackCommand, ZoneCommand};
use crate::client::Client;
use crate::output::{Column, Output, column, maybe, yes_no};

const ZONES: &[Column<Zone>] = &[column("ZONE", |z, _| (&z.id).into()), column("OOBM", |z, _| yes_no(z.oobm_enabled))];

const CLUSTERS: &[Column<Cluster>] = &[
    column("CLUSTER", |c, _| (&c.id).into()),
    column("ZONE", |c, _| (&c.body.zone).into()),
    column("OOBM", |c, _| yes_no(c.oobm_enabled)),
    column("POLL", |c, _| maybe(c.body.poll_interval)),
    column("TIMEOUT", |c, _| maybe(c.body.action_timeout)),
];

const RACKS: &[Column<Rack>] = &[
    column("RACK", |r, _| (&r.id).into()),
    column("ZONE", |r, _| (&r.body.zone).into()),
    column("AGENT", |r, _| maybe(r.agent.as_ref())),
    column("EPOCH", |r, _| r.epoch.into()),
];

/// `zones …`.
pub async fn zones(client: &Client, out: &Output, command: ZoneCommand) -> Ended {
    match command {
        ZoneCommand::Add { id } => {
            let made = client.json(Method::PUT, &format!("/v1/zones/{id}"), Some(&json!({}))).await?;
            out.one(&made, ZONES, "id")?;
        }
        ZoneCommand::List => out.list(&client.all("/v1/zones", &[], usize::MAX).await?, ZONES, "id")?,
        ZoneCommand::Show { id } => out.one(&client.one(&format!("/v1/zones/{id}")).await?, ZONES, "id")?,
        ZoneCommand::Rm { id } => removed(client, &format!("/v1/zones/{id}")).await?,
    }
    Ok(0)
}

/// `clusters …`.
pub async fn clusters(client: &Client, out: &Output, command: ClusterCommand) -> Ended {
    match command {
        ClusterCommand::Add { id, zone, poll_interval, action_timeout } => {
            let body = without_null(json!({"zone": zone, "poll_interval": poll_interval, "action_timeout": action_timeout}));
            let made = client.json(Method::PUT, &format!("/v1/clusters/{id}"), Some(&body)).await?;
            out.one(&made, CLUSTERS, "id")?;
        }
        ClusterCommand::List { zone } => {
            let filter = [("zone", zone.map(|zone| zone.to_string()))];
            out.list(&client.all("/v1/clusters", &filter, usize::MAX).await?, CLUSTERS, "id")?;
        }
        ClusterCommand::Show { id } => out.one(&client.one(&format!("/v1/clusters/{id}")).await?, CLUSTERS, "id")?,
        ClusterCommand::Rm { id } => removed(client, &format!("/v1/clusters/{id}")).await?,
    }
    Ok(0)
}

/// `racks …`.
pub async fn racks(client: &Client, out: &Output, command: RackCommand) -> Ended {
    match command {
        RackCommand::Add { id, zone } => {
            let made = client.json(Method::PUT, &format!("/v1/racks/{id}"), Some(&json!({"zone": zone}))).await?;
            out.one(&made, RACKS, "id")?;
        }
        RackCommand::List { zone } => {
            let filter = [("zone", zone.map(|zone| zone.to_string()))];
            out.list(&client.all("/v1/racks", &filter, usize::MAX).await?, RACKS, "id")?;
        }
        RackCommand::Show { id } => out.one(&client.one(&format!("/v1/racks/{id}")).await?, RACKS, "id")?,
        RackCommand::Rm { id } => removed(client, &format!("/v1/racks/{id}")).await?,
    }
    Ok(0)
}

/// Removes a resource and says so.
pub async fn removed(client: &Client, path: &str) -> Result<(), crate::failure::Failure> {
    client.json(Method::DELETE, path, None).await?;
    eprintln!("removed {}", path.trim_start_matches("/v1/"));
    Ok(())
}

/// An object without its null fields: what is not given is not sent.
pub fn without_null(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    value
}
