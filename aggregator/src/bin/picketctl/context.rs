//! Stored logins: looked at, chosen, forgotten. Tokens are never shown.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Ended;
use crate::cli::ContextCommand;
use crate::config::{self, Config};
use crate::output::{Column, Output, column, yes_no};

/// A login as it is shown.
#[derive(Deserialize)]
struct Row {
    name: String,
    url: String,
    current: bool,
    ca: bool,
    token: bool,
}

const CONTEXTS: &[Column<Row>] = &[
    column("CONTEXT", |c, _| (&c.name).into()),
    column("URL", |c, _| (&c.url).into()),
    column("CURRENT", |c, _| yes_no(c.current)),
    column("CA", |c, _| if c.ca { "stored".into() } else { "system".into() }),
    column("TOKEN", |c, _| yes_no(c.token)),
];

/// `context …`.
pub fn context(out: &Output, command: ContextCommand) -> Ended {
    let dir = config::directory()?;
    match command {
        ContextCommand::List => out.list(&rows(&config::stored(&dir)?), CONTEXTS, "name")?,
        ContextCommand::Show { name } => {
            let (config, tokens) = config::stored(&dir)?;
            let name = name.or_else(|| config.current.clone()).unwrap_or_else(|| config::DEFAULT_CONTEXT.into());
            let found = rows(&(config, tokens)).into_iter().find(|row| row["name"] == name.as_str());
            out.one(&found.ok_or_else(|| config::no_context(&name))?, CONTEXTS, "name")?;
        }
        ContextCommand::Use { name } => {
            config::choose(&dir, &name)?;
            eprintln!("context {name} is in use from now on");
        }
        ContextCommand::Rm { name } => {
            config::forget(&dir, &name)?;
            eprintln!("forgot context {name} and its token");
        }
    }
    Ok(0)
}

fn rows((config, tokens): &(Config, Vec<String>)) -> Vec<Value> {
    let row = |(name, context): (&String, &config::Context)| {
        json!({"name": name, "url": context.url, "current": config.current.as_ref() == Some(name), "ca": context.ca.is_some(),
            "token": tokens.contains(name)})
    };
    config.contexts.iter().map(row).collect()
}
