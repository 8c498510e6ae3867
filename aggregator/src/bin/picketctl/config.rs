//! Stored logins: `config.toml` (where) and `credentials.toml` (tokens, readable by their owner alone). Flags and environment
//! come first.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use picket_common::secret::Secret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::Global;
use crate::client::{CONNECT_TIMEOUT, Target};
use crate::failure::Failure;
use crate::secret_input;

/// Name of the login that is made without a name.
pub const DEFAULT_CONTEXT: &str = "default";

/// `config.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The login that is used when none is named.
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One login.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `https://host:port`.
    pub url: String,
    /// CA certificate, PEM.
    pub ca: Option<String>,
}

/// `credentials.toml`. Serialize is written out by hand: a [`Secret`] has none.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    #[serde(default)]
    tokens: BTreeMap<String, Secret<String>>,
}

/// Where the two files lie.
pub fn directory() -> Result<PathBuf, Failure> {
    if let Some(dir) = std::env::var_os("PICKET_CONFIG_DIR") {
        return Ok(dir.into());
    }
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    base.map(|base| base.join("picket")).ok_or_else(|| Failure::Usage("HOME is not set; set PICKET_CONFIG_DIR".into()))
}

/// Whom to talk to: flag, then environment, then file.
pub fn target(global: &Global) -> Result<Target, Failure> {
    target_in(&directory()?, global)
}

fn target_in(dir: &Path, global: &Global) -> Result<Target, Failure> {
    let config: Config = read(&dir.join("config.toml"))?;
    let name = global.context.clone().or_else(|| config.current.clone()).unwrap_or_else(|| DEFAULT_CONTEXT.into());
    let stored = config.contexts.get(&name).cloned();
    if global.context.is_some() && stored.is_none() {
        return Err(no_context(&name));
    }
    let url = match (&global.url, &stored) {
        (Some(url), _) => url.clone(),
        (None, Some(stored)) => stored.url.clone(),
        (None, None) => return Err(Failure::Usage("no aggregator is known: `picketctl login URL …`, or --url".into())),
    };
    // A stored token and CA belong to the stored address: they go nowhere else.
    let same = stored.filter(|stored| trimmed(&stored.url) == trimmed(&url));
    let ca_pem = match (&global.ca, &same) {
        (Some(path), _) => Some(read_ca(path)?),
        (None, Some(stored)) => stored.ca.clone(),
        (None, None) => None,
    };
    let token = match &global.token_file {
        Some(path) => Some(secret_input::from_file(path)?),
        None if same.is_some() => credentials(dir)?.tokens.remove(&name),
        None => None,
    };
    Ok(Target { url: trimmed(&url).to_owned(), ca_pem, token, connect_within: CONNECT_TIMEOUT })
}

/// A context that is not there.
pub fn no_context(name: &str) -> Failure {
    Failure::Usage(format!("there is no context {name:?}; `picketctl context list` shows them, `picketctl login` makes one"))
}

fn trimmed(url: &str) -> &str {
    url.trim_end_matches('/')
}

/// A CA file.
pub fn read_ca(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn read<T: DeserializeOwned + Default>(path: &Path) -> Result<T, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(Failure::Usage(format!("{}: {error}", path.display()))),
    };
    // The message alone: the whole error shows the line, which may hold a token.
    toml::from_str(&text).map_err(|error| Failure::Usage(format!("{}: {}", path.display(), error.message())))
}

fn credentials(dir: &Path) -> Result<Credentials, Failure> {
    let path = dir.join("credentials.toml");
    if let Ok(metadata) = fs::metadata(&path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        return Err(Failure::Usage(format!("{} can be read by others: chmod 600 it", path.display())));
    }
    read(&path)
}

/// Stores a login and makes it the current one.
pub fn store(name: &str, context: Context, token: &Secret<String>) -> Result<PathBuf, Failure> {
    let dir = directory()?;
    store_in(&dir, name, context, token)?;
    Ok(dir)
}

fn store_in(dir: &Path, name: &str, context: Context, token: &Secret<String>) -> Result<(), Failure> {
    let mut config: Config = read(&dir.join("config.toml"))?;
    let mut credentials = credentials(dir)?;
    config.current = Some(name.to_owned());
    config.contexts.insert(name.to_owned(), context);
    credentials.tokens.insert(name.to_owned(), token.clone());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| local(dir, &error))?;
    write_credentials(dir, &credentials)?;
    write_config(dir, &config)
}

/// All logins, and the names of those with a token.
pub fn stored(dir: &Path) -> Result<(Config, Vec<String>), Failure> {
    Ok((read(&dir.join("config.toml"))?, credentials(dir)?.tokens.into_keys().collect()))
}

/// Makes a login the one that is used when none is named.
pub fn choose(dir: &Path, name: &str) -> Result<(), Failure> {
    let mut config: Config = read(&dir.join("config.toml"))?;
    if !config.contexts.contains_key(name) {
        return Err(no_context(name));
    }
    config.current = Some(name.to_owned());
    write_config(dir, &config)
}

/// Forgets a login: its token first, so that none is left without a place.
pub fn forget(dir: &Path, name: &str) -> Result<(), Failure> {
    let mut config: Config = read(&dir.join("config.toml"))?;
    config.contexts.remove(name).ok_or_else(|| no_context(name))?;
    config.current.take_if(|current| current == name);
    let mut credentials = credentials(dir)?;
    if credentials.tokens.remove(name).is_some() {
        write_credentials(dir, &credentials)?;
    }
    write_config(dir, &config)
}

fn write_config(dir: &Path, config: &Config) -> Result<(), Failure> {
    let text = toml::to_string(config).map_err(|error| Failure::Local(error.to_string()))?;
    write(&dir.join("config.toml"), &text, 0o644)
}

fn write_credentials(dir: &Path, credentials: &Credentials) -> Result<(), Failure> {
    let shown: BTreeMap<_, _> = credentials.tokens.iter().map(|(name, token)| (name, token.expose())).collect();
    let text = toml::to_string(&BTreeMap::from([("tokens", shown)])).map_err(|error| Failure::Local(error.to_string()))?;
    write(&dir.join("credentials.toml"), &zeroize::Zeroizing::new(text), 0o600)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let written = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    written().map_err(|error| local(path, &error))
}

fn local(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Local(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn stored_logins_come_back_and_stay_private() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("picket");
        let context = Context { url: "https://a:8443".into(), ca: Some("PEM".into()) };
        store_in(&dir, "one", context.clone(), &secret("pkt_1")).unwrap();
        store_in(&dir, "two", Context { url: "https://b:8443/".into(), ca: None }, &secret("pkt_2")).unwrap();
        let target = |global: &Global| target_in(&dir, global);
        let two = target(&Global::default()).unwrap();
        assert_eq!((two.url.as_str(), two.token.unwrap().expose().as_str()), ("https://b:8443", "pkt_2"));
        let one = target(&Global { context: Some("one".into()), ..Global::default() }).unwrap();
        assert_eq!((one.ca_pem.as_deref(), one.token.unwrap().expose().as_str()), (Some("PEM"), "pkt_1"));

        // Another address gets neither the stored token nor the stored CA.
        let other = target(&Global { url: Some("https://evil".into()), context: Some("one".into()), ..Global::default() }).unwrap();
        assert!(other.token.is_none() && other.ca_pem.is_none());
        assert!(target(&Global { context: Some("three".into()), ..Global::default() }).is_err());

        let path = dir.join("credentials.toml");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(target(&Global::default()).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "[tokens]\none = 'pkt_secret\n").unwrap();
        assert!(!target(&Global::default()).unwrap_err().to_string().contains("pkt_secret"));
    }

    #[test]
    fn logins_are_chosen_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for name in ["one", "two"] {
            store_in(dir, name, Context { url: format!("https://{name}"), ca: None }, &secret("pkt_x")).unwrap();
        }
        choose(dir, "one").unwrap();
        assert_eq!(target_in(dir, &Global::default()).unwrap().url, "https://one");
        assert!(choose(dir, "three").unwrap_err().to_string().contains("no context \"three\""));
        forget(dir, "one").unwrap();
        let (config, tokens) = stored(dir).unwrap();
        assert_eq!((config.current, config.contexts.len(), tokens), (None, 1, vec!["two".to_owned()]));
        assert!(!fs::read_to_string(dir.join("credentials.toml")).unwrap().contains("one"));
        assert!(forget(dir, "one").is_err());
    }

    #[test]
    fn nothing_known_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert!(target_in(dir.path(), &Global::default()).unwrap_err().to_string().contains("login"));
        let token = dir.path().join("token");
        fs::write(&token, "pkt_x\n").unwrap();
        let global = Global { url: Some("https://a/".into()), token_file: Some(token), ..Global::default() };
        let target = target_in(dir.path(), &global).unwrap();
        assert_eq!((target.url.as_str(), target.token.unwrap().expose().as_str()), ("https://a", "pkt_x"));
    }
}
