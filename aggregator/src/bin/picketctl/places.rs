//! Zones, clusters and racks.

use picket_common::api::{Cluster, Rack, Zone};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::Ended;
use crate::cli::{ClusterCommand, ClusterSettings, RackCommand, Unset, ZoneCommand};
use crate::client::Client;
use crate::failure::Failure;
use crate::hosts;
use crate::output::{Column, Output, column, maybe, wide, yes_no};

const ZONES: &[Column<Zone>] = &[column("ZONE", |z, _| (&z.id).into()), column("OOBM", |z, _| yes_no(z.oobm_enabled))];

const CLUSTERS: &[Column<Cluster>] = &[
    column("CLUSTER", |c, _| (&c.id).into()),
    column("ZONE", |c, _| (&c.body.zone).into()),
    column("OOBM", |c, _| yes_no(c.oobm_enabled)),
    column("POLL", |c, _| maybe(c.body.poll_interval)),
    column("TIMEOUT", |c, _| maybe(c.body.action_timeout)),
    wide("DRIVER", |c, _| maybe(c.body.bmc.as_ref().and_then(|bmc| bmc.driver.clone()))),
    wide("PORT", |c, _| maybe(c.body.bmc.as_ref().and_then(|bmc| bmc.port))),
    wide("USER", |c, _| maybe(c.body.bmc.as_ref().and_then(|bmc| bmc.username.clone()))),
    wide("PASSWORD", |c, _| yes_no(c.body.bmc.as_ref().is_some_and(|bmc| bmc.password_set))),
    wide("WITHOUT-PASSWORD", |c, _| {
        let agents = c.body.bmc.iter().flat_map(|bmc| &bmc.agents_without_password).map(ToString::to_string);
        maybe(Some(agents.collect::<Vec<_>>().join(" ")).filter(|agents| !agents.is_empty()))
    }),
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
        ClusterCommand::Set { id, settings } => {
            let body = changes(&settings)?;
            let changed = client.edited(&format!("/v1/clusters/{id}"), |before| changed(before, &body, &settings)).await?;
            out.one(&changed, CLUSTERS, "id")?;
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

/// The change's body for what is given, but for options.
fn changes(settings: &ClusterSettings) -> Result<Value, Failure> {
    let ClusterSettings { zone, shared, unset } = settings;
    let mut body = hosts::shared(shared, None)?;
    if let Some(zone) = zone {
        body["zone"] = json!(zone);
    }
    for field in unset {
        match hosts::unset(*field) {
            Some((true, "address")) | None => return Err(Failure::Usage("a cluster has neither address nor labels".into())),
            Some((true, name)) => body["bmc"][name] = Value::Null,
            Some((false, name)) => body[name] = Value::Null,
        }
    }
    if body.as_object().is_some_and(Map::is_empty) && shared.options.is_empty() {
        return Err(Failure::Usage("nothing to set; see `picketctl clusters set --help`".into()));
    }
    Ok(body)
}

/// The change of a cluster as it is now: single options are changed within the whole.
fn changed(before: &Value, body: &Value, settings: &ClusterSettings) -> Value {
    let mut body = body.clone();
    let options = &settings.shared.options;
    if !options.is_empty() {
        let kept = if settings.unset.contains(&Unset::Options) { None } else { before["bmc"]["options"].as_object().cloned() };
        body["bmc"]["options"] = hosts::null_if_empty(hosts::changed(kept.unwrap_or_default(), options));
    }
    body
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
pub async fn removed(client: &Client, path: &str) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Format, SharedSettings};
    use crate::output::tests::{at, shown};

    #[test]
    fn tables_are_as_they_were() {
        let clusters = [
            json!({"id": "c1", "zone": "z1", "poll_interval": 30, "oobm_enabled": true,
                "bmc": {"driver": "ipmi", "username": "admin", "password_set": true, "agents_without_password": ["r08"], "options": {}}}),
            json!({"id": "c2", "zone": "z1", "oobm_enabled": false}),
        ];
        let wanted = "CLUSTER  ZONE  OOBM  POLL  TIMEOUT\nc1       z1    yes   30    -\nc2       z1    no    -     -\n";
        assert_eq!(shown(&at(Format::Table, false), &clusters, CLUSTERS, false), wanted);
        let csv = "cluster,zone,oobm,poll,timeout,driver,port,user,password,without-password\nc1,z1,yes,30,,ipmi,,admin,yes,r08\n";
        assert_eq!(shown(&at(Format::Csv, false), &clusters[..1], CLUSTERS, false), csv);
        let zones = [json!({"id": "z1", "oobm_enabled": true})];
        assert_eq!(shown(&at(Format::Table, false), &zones, ZONES, false), "ZONE  OOBM\nz1    yes\n");
        let racks = [json!({"id": "r1", "zone": "z1", "agent": null, "epoch": 3})];
        assert_eq!(shown(&at(Format::Table, false), &racks, RACKS, false), "RACK  ZONE  AGENT  EPOCH\nr1    z1    -      3\n");
    }

    #[test]
    fn what_hosts_inherit_is_changed_and_cleared() {
        let before = json!({"bmc": {"options": {"a": "1", "b": "2"}}});
        let body = |settings: &ClusterSettings| changes(settings).map(|body| changed(&before, &body, settings));
        let shared = SharedSettings {
            username: Some("admin".into()),
            options: vec![("a".into(), String::new()), ("c".into(), "3".into())],
            ..SharedSettings::default()
        };
        let settings = ClusterSettings { shared, unset: vec![Unset::Port, Unset::PollInterval], ..ClusterSettings::default() };
        let wanted = json!({"bmc": {"username": "admin", "port": null, "options": {"b": "2", "c": "3"}}, "poll_interval": null});
        assert_eq!(body(&settings).unwrap(), wanted);
        assert!(body(&ClusterSettings::default()).is_err());
        assert!(body(&ClusterSettings { unset: vec![Unset::Labels], ..ClusterSettings::default() }).is_err());
    }
}
