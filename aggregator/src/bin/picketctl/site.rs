//! What concerns the site as a whole: its settings, the drivers, and stored passwords sealed anew. The recovery key is read here,
//! used here and sent nowhere.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use picket_aggregator::pki::RecoveryPrivateKey;
use picket_common::api::{DriverInfo, DriverOption, RackSecret, RackSecrets, ResealAnswer, SecretOwner, Setting, SettingValue};
use picket_common::id::RackId;
use picket_common::seal::{Belongs, Sealed, SealingKey, open, seal};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Ended;
use crate::cli::{DriverCommand, SecretCommand, SettingsCommand};
use crate::client::{Client, typed};
use crate::failure::{Failure, NONE_SUCCEEDED, SOME_FAILED};
use crate::output::{Column, Output, column, maybe, print, yes_no};
use crate::secret_input;

/// A setting with its name.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    setting: Setting,
}

fn value(value: Option<&SettingValue>) -> Option<String> {
    value.map(|value| match value {
        SettingValue::Number(number) => number.to_string(),
        SettingValue::Text(text) => text.clone(),
    })
}

const SETTINGS: &[Column<Named>] = &[
    column("SETTING", |s, _| (&s.name).into()),
    column("VALUE", |s, _| maybe(value(s.setting.value.as_ref()))),
    column("DEFAULT", |s, _| maybe(value(s.setting.default.as_ref()))),
    column("SET-BY", |s, _| {
        maybe(serde_json::to_value(s.setting.source).ok().and_then(|source| source.as_str().map(str::to_owned)))
    }),
];

/// `settings …`.
pub async fn settings(client: &Client, out: &Output, command: SettingsCommand) -> Ended {
    let answer = match command {
        SettingsCommand::Show => client.one("/v1/settings").await?,
        SettingsCommand::Set { values, unset } => {
            client.json(Method::PATCH, "/v1/settings", Some(&changes(&values, &unset))).await?
        }
    };
    if out.is_document() {
        out.one::<Value>(&answer, &[], "name")?;
    } else {
        out.list(&lines(&answer), SETTINGS, "name")?;
    }
    Ok(0)
}

/// Numbers go as numbers, what is unset as null.
fn changes(values: &[(String, String)], unset: &[String]) -> Value {
    let set =
        values.iter().map(|(name, text)| (name.clone(), text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number))));
    let unset = unset.iter().map(|name| (name.clone(), Value::Null));
    Value::Object(set.chain(unset).collect::<Map<_, _>>())
}

fn lines(settings: &Value) -> Vec<Value> {
    let settings = settings.as_object().into_iter().flatten();
    let line = |(name, setting): (&String, &Value)| {
        let mut line = setting.clone();
        line["name"] = json!(name);
        line
    };
    settings.map(line).collect()
}

const DRIVERS: &[Column<DriverInfo>] = &[
    column("DRIVER", |d, _| (&d.name).into()),
    column("PORT", |d, _| maybe(d.default_port)),
    column("PROVES-OFF", |d, _| yes_no(d.can_prove)),
    column("OPTIONS", |d, _| d.options.len().into()),
    column("SUMMARY", |d, _| (&d.summary).into()),
];

const OPTIONS: &[Column<DriverOption>] = &[
    column("OPTION", |o, _| (&o.name).into()),
    column("TAKES", |o, _| takes(o).into()),
    column("DEFAULT", |o, _| maybe(o.default.as_ref())),
    column("HELP", |o, _| (&o.help).into()),
];

/// `one-of a b`, `number 1-60`, `text`.
fn takes(option: &DriverOption) -> String {
    match (option.min, option.max) {
        (Some(min), Some(max)) => format!("{} {min}-{max}", option.kind),
        _ if option.values.is_empty() => option.kind.clone(),
        _ => format!("{} {}", option.kind, option.values.join(" ")),
    }
}

/// `drivers …`.
pub async fn drivers(client: &Client, out: &Output, command: DriverCommand) -> Ended {
    let drivers = client.all("/v1/drivers", &[], usize::MAX).await?;
    match command {
        DriverCommand::List => out.list(&drivers, DRIVERS, "name")?,
        DriverCommand::Show { name } => {
            let driver = drivers.into_iter().find(|driver| driver["name"] == name.as_str());
            let driver =
                driver.ok_or_else(|| Failure::Usage(format!("there is no driver {name:?}; see `picketctl drivers list`")))?;
            if out.is_document() {
                out.one::<Value>(&driver, &[], "name")?;
            } else {
                out.list(driver["options"].as_array().map_or(&[][..], Vec::as_slice), OPTIONS, "name")?;
            }
        }
    }
    Ok(0)
}

/// `secrets …`.
pub async fn secrets(client: &Client, out: &Output, command: SecretCommand) -> Ended {
    let SecretCommand::Reseal { rack, recovery_key_file } = command;
    reseal(client, out, &rack, &recovery_key_file).await
}

async fn reseal(client: &Client, out: &Output, rack: &RackId, file: &Path) -> Ended {
    let line = secret_input::from_file(file)?;
    let key = RecoveryPrivateKey::from_line(line.expose())
        .map_err(|_| Failure::Usage(format!("{} holds no recovery key: one line pkr1.…", file.display())))?;
    let path = format!("/v1/racks/{rack}/secrets");
    let stored: RackSecrets = typed(client.one(&path).await?)?;
    let missing: Vec<&RackSecret> = stored.items.iter().filter(|item| !item.sealed).collect();
    let mut items = Vec::new();
    let mut failed = 0_usize;
    for item in &missing {
        match resealed(&key, &stored.sealing_key, item) {
            Ok(sealed) => items.push(sealed),
            Err(why) => {
                failed += 1;
                eprintln!("{}: {why}", owner(&item.belongs));
            }
        }
    }
    let body = json!({ "sealing_key": stored.sealing_key, "items": items });
    let answer =
        if items.is_empty() { json!({"resealed": 0, "skipped": 0}) } else { client.json(Method::POST, &path, Some(&body)).await? };
    let ResealAnswer { resealed, skipped } = typed(answer.clone())?;
    if out.is_table() {
        let there = stored.items.len() - missing.len();
        print(&format!(
            "{resealed} sealed to agent {}, {there} were there, {skipped} changed meanwhile, {failed} do not open\n",
            stored.agent
        ))?;
    } else {
        out.one::<Value>(&answer, &[], "resealed")?;
    }
    Ok(match (failed, resealed) {
        (0, _) => 0,
        (_, 0) => NONE_SUCCEEDED,
        _ => SOME_FAILED,
    })
}

/// One secret, opened and sealed to the agent.
fn resealed(key: &RecoveryPrivateKey, sealing_key: &str, item: &RackSecret) -> Result<Value, String> {
    let mut agent = [0; 32];
    hex::decode_to_slice(sealing_key, &mut agent).map_err(|_| "the agent's key is no key".to_owned())?;
    let sealed = BASE64_STANDARD.decode(&item.recovery).map_err(|_| "the stored copy is not base64".to_owned())?;
    let belongs = belongs(&item.belongs);
    let password = open(key.key(), belongs, &Sealed(sealed)).map_err(|error| error.to_string())?;
    let anew = seal(&SealingKey(agent), belongs, &password, &mut UnwrapErr(SysRng)).map_err(|error| error.to_string())?;
    let mut sent = serde_json::to_value(&item.belongs).map_err(|error| error.to_string())?;
    sent["recovery"] = json!(item.recovery);
    sent["sealed"] = json!(BASE64_STANDARD.encode(&anew.0));
    Ok(sent)
}

fn belongs(owner: &SecretOwner) -> Belongs<'_> {
    match owner {
        SecretOwner::Host { host, address, username } | SecretOwner::Pending { host, address, username } => {
            Belongs::Host { host, address, username }
        }
        SecretOwner::Cluster { cluster, username } => Belongs::Cluster { cluster, username },
    }
}

fn owner(owner: &SecretOwner) -> String {
    match owner {
        SecretOwner::Host { host, .. } => format!("host {host}"),
        SecretOwner::Pending { host, .. } => format!("host {host}, new password"),
        SecretOwner::Cluster { cluster, .. } => format!("cluster {cluster}"),
    }
}

#[cfg(test)]
mod tests {
    use picket_common::seal::key_pair;
    use picket_common::secret::Secret;

    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown_by};

    #[test]
    fn tables_are_as_they_were() {
        let settings = json!({
            "sync_interval": {"value": 30, "default": 10, "source": "api"},
            "ipmitool.interface": {"value": null, "default": null, "source": "default"},
        });
        let wanted = "\
SETTING             VALUE  DEFAULT  SET-BY
ipmitool.interface  -      -        default
sync_interval       30     10       api
";
        assert_eq!(shown_by(&at(Format::Table, false), &lines(&settings), SETTINGS, "name", false), wanted);
        let option = |name: &str, kind: &str, more: Value| {
            let mut option = json!({"name": name, "kind": kind, "help": "h"});
            option.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            option
        };
        let options = [
            option("retries", "number", json!({"min": 0, "max": 9, "default": "1"})),
            option("suite", "one-of", json!({"values": ["3", "17"]})),
            option("path", "text", json!({})),
        ];
        let wanted = "\
OPTION   TAKES        DEFAULT  HELP
retries  number 0-9   1        h
suite    one-of 3 17  -        h
path     text         -        h
";
        assert_eq!(shown_by(&at(Format::Table, false), &options, OPTIONS, "name", false), wanted);
    }

    #[test]
    fn settings_are_sent_as_what_they_are() {
        let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
        let body = changes(&[pair("sync_interval=30"), pair("ipmitool.interface=lanplus")], &["action_timeout".to_owned()]);
        assert_eq!(body, json!({"sync_interval": 30, "ipmitool.interface": "lanplus", "action_timeout": null}));
    }

    #[test]
    fn what_the_recovery_key_opens_the_agent_opens() {
        let (recovery, recovery_public) = key_pair(&Secret::new([1; 32]));
        let (agent, agent_public) = key_pair(&Secret::new([2; 32]));
        let key = RecoveryPrivateKey::from_line(&format!("pkr1.{}", hex::encode(recovery.expose()))).unwrap();
        let owner = SecretOwner::Host { host: "h1".parse().unwrap(), address: "10.0.0.1".into(), username: "admin".into() };
        let password = Secret::new("hunter2".to_owned());
        let stored = seal(&recovery_public, belongs(&owner), &password, &mut UnwrapErr(SysRng)).unwrap();
        let item = RackSecret { belongs: owner.clone(), recovery: BASE64_STANDARD.encode(&stored.0), sealed: false };
        let sent = resealed(&key, &hex::encode(agent_public.0), &item).unwrap();
        assert!(!sent.to_string().contains("hunter2") && sent["kind"] == "host" && sent["recovery"] == item.recovery.as_str());
        let sealed = Sealed(BASE64_STANDARD.decode(sent["sealed"].as_str().unwrap()).unwrap());
        assert_eq!(open(&agent, belongs(&owner), &sealed).unwrap().expose(), "hunter2");
        let moved = RackSecret {
            belongs: SecretOwner::Host { host: "h2".parse().unwrap(), address: "10.0.0.1".into(), username: "admin".into() },
            ..item
        };
        assert!(resealed(&key, &hex::encode(agent_public.0), &moved).is_err());
    }
}
