//! Tokens for the API: made, looked at, revoked. A new one is printed or written once, for its owner alone.

use std::path::Path;

use picket_common::api::{NewToken, Scope, Token};
use reqwest::Method;
use serde_json::{Value, json};

use crate::Ended;
use crate::cli::TokenCommand;
use crate::client::{Client, escaped, typed};
use crate::failure::Failure;
use crate::output::{Column, Output, column, maybe, maybe_age, print};
use crate::places::{removed, without_null};
use crate::select::named;
use crate::sight::seconds;

const TOKENS: &[Column<Token>] = &[
    column("TOKEN", |t, _| (&t.id).into()),
    column("NAME", |t, _| (&t.name).into()),
    column("ROLE", |t, _| role(t).into()),
    column("SCOPE", |t, _| scope(&t.scope).into()),
    column("EXPIRES", |t, _| maybe(t.expires_at.map(seconds))),
    column("USED", |t, look| maybe_age(t.last_used_at, look)),
];

fn role(token: &Token) -> String {
    serde_json::to_value(token.role).ok().and_then(|role| role.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `everywhere`, or `zone z1, cluster c1, host h1`.
fn scope(scope: &Scope) -> String {
    fn each<'a, T: std::fmt::Display>(kind: &'a str, ids: &'a [T]) -> impl Iterator<Item = String> + 'a {
        ids.iter().map(move |id| format!("{kind} {id}"))
    }
    let places: Vec<String> =
        each("zone", &scope.zones).chain(each("cluster", &scope.clusters)).chain(each("host", &scope.hosts)).collect();
    if places.is_empty() { "everywhere".to_owned() } else { places.join(", ") }
}

/// `tokens …`.
pub async fn tokens(client: &Client, out: &Output, command: TokenCommand) -> Ended {
    let path = |id: &str| format!("/v1/tokens/{}", escaped(id));
    match command {
        TokenCommand::List => out.list(&client.all("/v1/tokens", &[], usize::MAX).await?, TOKENS, "id")?,
        TokenCommand::Show { id } => out.one(&client.one(&path(&id)).await?, TOKENS, "id")?,
        TokenCommand::Rm { id } => removed(client, &path(&id)).await?,
        TokenCommand::Add { name, role, zone, cluster, hosts, ttl, out: file } => {
            if let Some(file) = file.as_deref().filter(|file| file.exists()) {
                return Err(Failure::Usage(format!("{} is there already", file.display())));
            }
            let hosts = if hosts.is_empty() { Vec::new() } else { named(client, &hosts).await? };
            let scope = json!({ "zones": zone, "clusters": cluster, "hosts": hosts });
            let body = without_null(json!({ "name": name, "role": role, "scope": scope, "ttl": ttl }));
            made(out, client.json(Method::POST, "/v1/tokens", Some(&body)).await?, file.as_deref())?;
        }
    }
    Ok(0)
}

fn made(out: &Output, mut answer: Value, file: Option<&Path>) -> Result<(), Failure> {
    let NewToken { token, secret } = typed(answer.clone())?;
    let secret = zeroize::Zeroizing::new(secret);
    if let Some(file) = file {
        crate::agents::write(file, &format!("{}\n", *secret), 0o600, true)?;
        if let Value::Object(fields) = &mut answer {
            fields.remove("secret");
        }
    }
    if out.is_table() {
        let until = token.expires_at.map_or_else(|| "for ever".to_owned(), |at| format!("until {}", seconds(at)));
        eprintln!(
            "token {} of {}: {} {}, good {until}; it is not shown again",
            token.id,
            token.name,
            role(&token),
            scope(&token.scope)
        );
        return if file.is_none() { print(&format!("{}\n", *secret)) } else { Ok(()) };
    }
    out.one(&answer, TOKENS, "id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;
    use crate::output::tests::{at, shown};

    #[test]
    fn tables_are_as_they_were() {
        let tokens = [
            json!({"id": "0123456789abcdef", "name": "ann", "role": "admin", "scope": {}, "last_used_at": "2026-01-01T00:29:00Z"}),
            json!({"id": "fedcba9876543210", "name": "ci", "role": "operator", "scope": {"clusters": ["c1"], "hosts": ["h1"]},
                "expires_at": "2026-01-08T00:00:00Z"}),
        ];
        let wanted = "\
TOKEN             NAME  ROLE      SCOPE                EXPIRES               USED
0123456789abcdef  ann   admin     everywhere           -                     60s
fedcba9876543210  ci    operator  cluster c1, host h1  2026-01-08T00:00:00Z  -
";
        assert_eq!(shown(&at(Format::Table, true), &tokens, TOKENS, false), wanted);
    }
}
