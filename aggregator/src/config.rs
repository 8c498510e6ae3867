//! The aggregator's settings: `aggregator.toml`, then `conf.d/*.toml` beside it in order of their names, each overriding the keys
//! of those before it. Opens no socket and changes nothing.

pub mod notify;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use picket_common::config::{ConfigError, parse};
use picket_common::id::SiteId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use tracing_subscriber::EnvFilter;

use crate::fleet::site;
use crate::fleet::view::Settings;
use notify::Notify;

/// Where the settings are unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/picket/aggregator.toml";
/// Where the state is unless `--state-dir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/picket-aggregator";

const DEFAULT_SITE: &str = "picket";
const DEFAULT_LOG: &str = "info";
const DEFAULT_API_PORT: u16 = 8443;
const DEFAULT_MQTT_PORT: u16 = 8883;

/// Why the settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or folder could not be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What it says was refused.
    #[error(transparent)]
    Refused(#[from] ConfigError),
    /// No `advertise`, and the machine has no name that could stand in its place.
    #[error("this machine's name {0:?} is no host name: set `advertise` to the name agents and people reach it by")]
    Name(String),
}

/// The settings in force.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the site, in every certificate.
    pub site: SiteId,
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where the gate listens for MQTT.
    pub mqtt_listen: SocketAddr,
    /// Host name or IP address agents and people reach this machine by.
    pub advertise: String,
    /// What is logged: a level, or `target=level` directives.
    pub log: String,
    /// What it says of the site's settings; the API may set others over them.
    pub settings: Settings,
    /// Who is told of alerts.
    pub notify: Vec<Notify>,
}

/// One file: what it leaves out stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    site: Option<SiteId>,
    listen: Option<SocketAddr>,
    mqtt_listen: Option<SocketAddr>,
    #[serde(default, deserialize_with = "host_name")]
    advertise: Option<String>,
    #[serde(default, deserialize_with = "log_filter")]
    log: Option<String>,
    #[serde(default)]
    oobm: Oobm,
    #[serde(default)]
    notify: Vec<Spanned<notify::Section>>,
    /// What `notify` says.
    #[serde(skip)]
    receivers: Vec<Notify>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Oobm {
    #[serde(default, deserialize_with = "seconds")]
    sync_interval: Option<u64>,
    #[serde(default, deserialize_with = "seconds")]
    action_timeout: Option<u64>,
    #[serde(default, deserialize_with = "poolsize")]
    sync_poolsize: Option<u32>,
    #[serde(default)]
    ipmitool: Ipmitool,
}

/// Defaults of the driver's options; CloudStack's names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ipmitool {
    #[serde(default, deserialize_with = "interface")]
    interface: Option<String>,
    #[serde(default, deserialize_with = "retries")]
    retries: Option<u32>,
    #[serde(default, deserialize_with = "of_the_agent")]
    #[expect(dead_code, reason = "only there to say where it belongs")]
    path: Option<()>,
}

impl File {
    fn overridden_by(self, later: Self) -> Self {
        Self {
            site: later.site.or(self.site),
            listen: later.listen.or(self.listen),
            mqtt_listen: later.mqtt_listen.or(self.mqtt_listen),
            advertise: later.advertise.or(self.advertise),
            log: later.log.or(self.log),
            oobm: Oobm {
                sync_interval: later.oobm.sync_interval.or(self.oobm.sync_interval),
                action_timeout: later.oobm.action_timeout.or(self.oobm.action_timeout),
                sync_poolsize: later.oobm.sync_poolsize.or(self.oobm.sync_poolsize),
                ipmitool: Ipmitool {
                    interface: later.oobm.ipmitool.interface.or(self.oobm.ipmitool.interface),
                    retries: later.oobm.ipmitool.retries.or(self.oobm.ipmitool.retries),
                    path: None,
                },
            },
            notify: Vec::new(),
            receivers: notify::overridden(self.receivers, later.receivers),
        }
    }

    fn settled(self, machine_name: &str) -> Result<Config, LoadError> {
        let any = |port| SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
        let advertise = match self.advertise {
            Some(name) => name,
            None if is_host_name(machine_name) => machine_name.to_owned(),
            None => return Err(LoadError::Name(machine_name.to_owned())),
        };
        let site = match self.site {
            Some(site) => site,
            None => DEFAULT_SITE.parse().map_err(|_| LoadError::Name(DEFAULT_SITE.into()))?,
        };
        Ok(Config {
            site,
            listen: self.listen.unwrap_or_else(|| any(DEFAULT_API_PORT)),
            mqtt_listen: self.mqtt_listen.unwrap_or_else(|| any(DEFAULT_MQTT_PORT)),
            advertise,
            log: self.log.unwrap_or_else(|| DEFAULT_LOG.into()),
            settings: Settings {
                sync_interval: self.oobm.sync_interval,
                action_timeout: self.oobm.action_timeout,
                sync_poolsize: self.oobm.sync_poolsize,
                ipmitool_interface: self.oobm.ipmitool.interface,
                ipmitool_retries: self.oobm.ipmitool.retries,
            },
            notify: self.receivers,
        })
    }
}

impl Config {
    /// Reads `file` (or the default one, which may be missing) and `conf.d/*.toml` beside it.
    ///
    /// # Errors
    /// Any [`LoadError`].
    pub fn load(file: Option<&Path>) -> Result<Self, LoadError> {
        let machine = rustix::system::uname();
        Self::load_on(file, &machine.nodename().to_string_lossy().to_lowercase())
    }

    fn load_on(file: Option<&Path>, machine_name: &str) -> Result<Self, LoadError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let mut merged = match std::fs::read_to_string(path) {
            Ok(text) => read(path, &text)?,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => File::default(),
            Err(source) => return Err(LoadError::Read { path: path.to_owned(), source }),
        };
        for path in drop_ins(&path.with_file_name("conf.d"))? {
            let text = std::fs::read_to_string(&path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
            merged = merged.overridden_by(read(&path, &text)?);
        }
        merged.settled(machine_name)
    }
}

fn read(path: &Path, text: &str) -> Result<File, ConfigError> {
    let name = path.display().to_string();
    let mut file: File = parse(&name, text)?;
    file.receivers = notify::checked(&name, text, std::mem::take(&mut file.notify))?;
    Ok(file)
}

/// The `*.toml` files of a folder by name; none when there is no such folder.
fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read { path: folder.to_owned(), source };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let given = i64::deserialize(deserializer)?;
    match u64::try_from(given) {
        Ok(seconds @ 1..=3600) => Ok(Some(seconds)),
        _ => Err(D::Error::custom(format!("must be 1 to 3600 seconds, not {given}"))),
    }
}

fn poolsize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let sync_poolsize = Some(whole(deserializer)?);
    within(Settings { sync_poolsize, ..Settings::default() }).map(|settings| settings.sync_poolsize)
}

fn retries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let ipmitool_retries = Some(whole(deserializer)?);
    within(Settings { ipmitool_retries, ..Settings::default() }).map(|settings| settings.ipmitool_retries)
}

fn interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let ipmitool_interface = Some(String::deserialize(deserializer)?);
    within(Settings { ipmitool_interface, ..Settings::default() }).map(|settings| settings.ipmitool_interface)
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let given = i64::deserialize(deserializer)?;
    u32::try_from(given).map_err(|_| D::Error::custom(format!("{given} is not a number of things")))
}

/// The same bounds as through the API.
fn within<E: serde::de::Error>(settings: Settings) -> Result<Settings, E> {
    site::check(&settings).map_err(E::custom)?;
    Ok(settings)
}

fn of_the_agent<'de, D: Deserializer<'de>>(_: D) -> Result<Option<()>, D::Error> {
    Err(D::Error::custom("a program's path is the agent's own affair: set it in agent.toml"))
}

fn log_filter<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<EnvFilter>() {
        Ok(_) => Ok(Some(text)),
        Err(error) => Err(D::Error::custom(format!("{text:?} is neither a level nor `target=level` directives: {error}"))),
    }
}

fn host_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_host_name(&text) {
        Ok(Some(text))
    } else {
        Err(D::Error::custom(format!("{text:?} is neither a host name nor an IP address (give no port: it is that of `listen`)")))
    }
}

/// Whether it can stand in a certificate and a URL: an IP address, or dot-separated labels (RFC 1123 §2.1).
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    text.parse::<std::net::IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label))
}

/// `host:port`, with brackets where the host is an IPv6 address.
#[must_use]
pub fn host_port(host: &str, port: u16) -> String {
    if host.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let root = format!("{}/", folder.path().display());
        Config::load_on(Some(&folder.path().join("aggregator.toml")), "node1.example")
            .map_err(|error| error.to_string().replace(&root, ""))
    }

    #[test]
    fn everything_has_a_working_default() {
        let config = load(&[("aggregator.toml", "")]).unwrap();
        assert_eq!(config.site.as_str(), "picket");
        assert_eq!((config.listen.to_string(), config.mqtt_listen.to_string()), ("[::]:8443".into(), "[::]:8883".into()));
        assert_eq!((config.advertise.as_str(), config.log.as_str()), ("node1.example", "info"));
        assert_eq!(config.settings, Settings::default(), "the file says nothing");
    }

    #[test]
    fn later_files_override_keys_not_files() {
        let config = load(&[
            ("aggregator.toml", "site = \"s1\"\nadvertise = \"a.example\"\n[oobm]\nsync_interval = 3600\naction_timeout = 1\n"),
            ("conf.d/20.toml", "advertise = \"2001:db8::1\"\n[oobm]\nsync_interval = 5\n"),
            ("conf.d/10.toml", "log = \"warn,picket_aggregator=debug\"\n[oobm]\nsync_interval = 7\n"),
            ("conf.d/30.toml.off", "nonsense"),
        ])
        .unwrap();
        assert_eq!((config.site.as_str(), config.advertise.as_str()), ("s1", "2001:db8::1"));
        assert_eq!((config.settings.sync_interval, config.settings.action_timeout), (Some(5), Some(1)));
        assert_eq!(config.log, "warn,picket_aggregator=debug");
    }

    #[test]
    fn the_seeds_settings_under_their_names() {
        let text = "[oobm]\nsync_poolsize = 50\nipmitool.interface = \"lan\"\nipmitool.retries = 3\n";
        let settings = load(&[("aggregator.toml", text), ("conf.d/1.toml", "[oobm.ipmitool]\nretries = 4\n")]).unwrap().settings;
        let wanted = (Some(50), Some("lan"), Some(4));
        assert_eq!((settings.sync_poolsize, settings.ipmitool_interface.as_deref(), settings.ipmitool_retries), wanted);
    }

    #[test]
    fn refusals_name_file_line_and_reason() {
        for (file, text, wanted) in [
            (
                "aggregator.toml",
                "listen = \"[::]:1\"\nmqtt_lissten = 1\n",
                "aggregator.toml:2: unknown key `mqtt_lissten`; did you mean `mqtt_listen`?",
            ),
            (
                "conf.d/10.toml",
                "\n[oobm]\nsync_intervall = 3\n",
                "conf.d/10.toml:3: unknown key `sync_intervall`; did you mean `sync_interval`?",
            ),
            ("aggregator.toml", "[oobm]\nsync_interval = 0\n", "aggregator.toml:2: must be 1 to 3600 seconds, not 0"),
            ("aggregator.toml", "[oobm]\n\naction_timeout = -3\n", "aggregator.toml:3: must be 1 to 3600 seconds, not -3"),
            ("aggregator.toml", "[oobm]\naction_timeout = 3601\n", "aggregator.toml:2: must be 1 to 3600 seconds, not 3601"),
            ("aggregator.toml", "[oobm]\nsync_poolsize = 0\n", "aggregator.toml:2: sync_poolsize: 0 is not within 1 to 65536"),
            ("aggregator.toml", "[oobm]\nsync_poolsize = -1\n", "aggregator.toml:2: -1 is not a number"),
            (
                "aggregator.toml",
                "[oobm]\nipmitool.interface = \"serial\"\n",
                "aggregator.toml:2: ipmitool.interface: \"serial\" is not one of lanplus, lan, open",
            ),
            (
                "aggregator.toml",
                "[oobm.ipmitool]\nretries = 11\n",
                "aggregator.toml:2: ipmitool.retries: \"11\" is not within 1 to 10",
            ),
            (
                "aggregator.toml",
                "[oobm]\nipmitool.path = \"/bin/x\"\n",
                "aggregator.toml:2: a program's path is the agent's own affair",
            ),
            ("aggregator.toml", "advertise = \"a.example:8443\"\n", "aggregator.toml:1: \"a.example:8443\" is neither a host name"),
            ("aggregator.toml", "log = \"x=loud\"\n", "aggregator.toml:1: \"x=loud\" is neither a level"),
            ("aggregator.toml", "site = \"Site 1\"\n", "aggregator.toml:1: \"Site 1\" is not a valid site id"),
            ("aggregator.toml", "listen = \"8443\"\n", "aggregator.toml:1: invalid socket address"),
            ("aggregator.toml", "site = \n", "aggregator.toml:1: "),
            (
                "aggregator.toml",
                "[[notify]]\nname = \"a\"\ntype = \"exec\"\ncommand = [\"/bin/a\"]\n\n[[notify]]\nname = \"b\"\ntype = \"fax\"\n",
                "aggregator.toml:8: unknown variant `fax`, expected one of `email`, `webhook`",
            ),
            (
                "conf.d/10.toml",
                "[[notify]]\nname = \"a\"\ntype = \"email\"\nservr = \"mail\"\n",
                "conf.d/10.toml:4: unknown key `servr`; did you mean `server`?",
            ),
        ] {
            let error = load(&[("aggregator.toml", ""), (file, text)]).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
        assert_eq!(load(&[]).unwrap_err(), "reading aggregator.toml");
    }

    #[test]
    fn host_names_and_ports() {
        for good in ["a", "a-1.example", "10.0.0.1", "::1", "AGG"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a-", "a:1", "[::1]", "a b", "a/b", &"a".repeat(64)] {
            assert!(!is_host_name(bad), "{bad}");
        }
        assert_eq!(host_port("::1", 1), "[::1]:1");
        assert_eq!(host_port("a.example", 2), "a.example:2");
    }
}
