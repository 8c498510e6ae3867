//! `[[notify]]` sections of the settings: who is told of alerts, which ones, how, and by which pace. Secrets are named by file
//! only; the files are read when something is sent, so that a changed secret needs no reload. Opens no file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_snmp::{AuthProtocol, Oid, PrivProtocol};
use lettre::message::Mailbox;
use picket_common::alert::{AlertKind, Severity};
use picket_common::config::ConfigError;
use picket_common::id::{ClusterId, ReceiverId, ZoneId};
use reqwest::Url;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{host_port, is_host_name};
use crate::fleet::route::{ATTEMPT_LIMIT, Receiver};

/// Most receivers: each costs a task, and a place in every change of an alert.
const MAX_RECEIVERS: usize = 64;
/// Most recipients of one mail.
const MAX_RECIPIENTS: usize = 50;
/// Most words of a command.
const MAX_WORDS: usize = 64;
const DAY: u64 = 24 * 3600;
/// How long Alertmanager is reminded of what ended.
const KEEP_ALIVE: Duration = Duration::from_secs(15 * 60);
/// Under which Picket's notifications are unless `enterprise` says otherwise: a number in Net-SNMP's playground, for Picket has
/// none of its own.
const DEFAULT_ENTERPRISE: &str = "1.3.6.1.4.1.8072.9999.9999.8443";
const TRAP_PORT: u16 = 162;

/// A receiver of alerts.
#[derive(Debug, Clone)]
pub struct Notify {
    /// What it is told, and when.
    pub receiver: Receiver,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How it is told.
    pub way: Way,
}

/// How a receiver is told.
#[derive(Debug, Clone)]
pub enum Way {
    /// By e-mail.
    Email(Email),
    /// By a signed POST.
    Webhook(Webhook),
    /// As an alert in Prometheus' Alertmanager.
    Alertmanager(Alertmanager),
    /// By SNMP notifications.
    Snmp(Snmp),
    /// By a program.
    Exec(Exec),
}

/// See [`Way::Email`].
#[derive(Debug, Clone)]
pub struct Email {
    /// The mail server's name, as in its certificate.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// What protects the connection.
    pub tls: MailTls,
    /// PEM file of the authorities that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// User name, and file of the password.
    pub login: Option<(String, PathBuf)>,
    /// From whom.
    pub from: Mailbox,
    /// To whom.
    pub to: Vec<Mailbox>,
}

/// What protects a connection to a mail server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// STARTTLS, which the server must have (port 587).
    Starttls,
    /// TLS from the first byte (port 465).
    Tls,
    /// Nothing; only to this machine itself (port 25).
    None,
}

/// See [`Way::Webhook`].
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where to.
    pub url: Url,
    /// File of the keys for signing: one `whsec_…` in each line.
    pub secret_file: PathBuf,
    /// File of a bearer token.
    pub token_file: Option<PathBuf>,
    /// As [`Email::ca_file`].
    pub ca_file: Option<PathBuf>,
}

/// See [`Way::Alertmanager`].
#[derive(Debug, Clone)]
pub struct Alertmanager {
    /// Its address, as of its own page.
    pub url: Url,
    /// File of a bearer token.
    pub token_file: Option<PathBuf>,
    /// As [`Email::ca_file`].
    pub ca_file: Option<PathBuf>,
    /// What is not told again for so long counts as ended.
    pub ends_after: Duration,
}

/// See [`Way::Snmp`].
#[derive(Debug, Clone)]
pub struct Snmp {
    /// `host:port`.
    pub target: String,
    /// Whether each is to be acknowledged.
    pub inform: bool,
    /// Under which the notifications are.
    pub enterprise: Oid,
    /// Which version, with what it takes.
    pub version: SnmpVersion,
}

/// A version of SNMP.
#[derive(Debug, Clone)]
pub enum SnmpVersion {
    /// Version 2c: the community is sent in clear text.
    V2c {
        /// File of the community.
        community_file: PathBuf,
    },
    /// Version 3, user-based security.
    V3 {
        /// The user.
        username: String,
        /// Algorithm, and file of the pass phrase, for authentication.
        auth: (AuthProtocol, PathBuf),
        /// The same for encryption.
        privacy: Option<(PrivProtocol, PathBuf)>,
        /// The engine whose users the receiver knows, for traps; absent = one made for this site.
        engine_id: Option<Vec<u8>>,
    },
}

/// See [`Way::Exec`].
#[derive(Debug, Clone)]
pub struct Exec {
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Way {
    /// Its name in the settings.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Webhook(_) => "webhook",
            Self::Alertmanager(_) => "alertmanager",
            Self::Snmp(_) => "snmp",
            Self::Exec(_) => "exec",
        }
    }

    /// Where it leads, for people; an URL's path may be a secret, so it is left out.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Self::Email(email) => {
                let to: Vec<&str> = email.to.iter().map(|to| to.email.as_ref()).collect();
                format!("{} by {}", to.join(" "), host_port(&email.server, email.port))
            }
            Self::Webhook(Webhook { url, .. }) | Self::Alertmanager(Alertmanager { url, .. }) => url.origin().ascii_serialization(),
            Self::Snmp(snmp) => snmp.target.clone(),
            Self::Exec(exec) => exec.program.display().to_string(),
        }
    }

    /// The files it reads when it sends: the key that names each, and its path.
    #[must_use]
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        fn one<'a>(key: &'static str, file: Option<&'a PathBuf>) -> Option<(&'static str, &'a Path)> {
            file.map(|file| (key, file.as_path()))
        }
        let files = match self {
            Self::Email(email) => {
                vec![one("ca_file", email.ca_file.as_ref()), one("password_file", email.login.as_ref().map(|login| &login.1))]
            }
            Self::Webhook(hook) => vec![
                one("secret_file", Some(&hook.secret_file)),
                one("token_file", hook.token_file.as_ref()),
                one("ca_file", hook.ca_file.as_ref()),
            ],
            Self::Alertmanager(to) => vec![one("token_file", to.token_file.as_ref()), one("ca_file", to.ca_file.as_ref())],
            Self::Snmp(snmp) => match &snmp.version {
                SnmpVersion::V2c { community_file } => vec![one("community_file", Some(community_file))],
                SnmpVersion::V3 { auth, privacy, .. } => {
                    vec![one("auth_file", Some(&auth.1)), one("priv_file", privacy.as_ref().map(|privacy| &privacy.1))]
                }
            },
            Self::Exec(exec) => vec![one("command", Some(&exec.program))],
        };
        files.into_iter().flatten().collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Email,
    Webhook,
    Alertmanager,
    Snmp,
    Exec,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Webhook => "webhook",
            Self::Alertmanager => "alertmanager",
            Self::Snmp => "snmp",
            Self::Exec => "exec",
        }
    }
}

/// A section as it is written: the keys of all types.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    name: ReceiverId,
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    kinds: Vec<AlertKind>,
    #[serde(default)]
    zones: Vec<ZoneId>,
    #[serde(default)]
    clusters: Vec<ClusterId>,
    severity: Option<Severity>,
    #[serde(default, deserialize_with = "pause")]
    group_wait: Option<Duration>,
    #[serde(default, deserialize_with = "pause")]
    group_interval: Option<Duration>,
    #[serde(default, deserialize_with = "repetition")]
    repeat_interval: Option<Duration>,
    #[serde(default, deserialize_with = "attempt")]
    timeout: Option<Duration>,
    #[serde(default, deserialize_with = "url")]
    url: Option<Url>,
    secret_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    server: Option<String>,
    port: Option<u16>,
    tls: Option<MailTls>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "mailbox")]
    from: Option<Mailbox>,
    #[serde(default, deserialize_with = "mailboxes")]
    to: Option<Vec<Mailbox>>,
    #[serde(default, deserialize_with = "target")]
    target: Option<String>,
    version: Option<Version>,
    inform: Option<bool>,
    #[serde(default, deserialize_with = "oid")]
    enterprise: Option<Oid>,
    community_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "auth")]
    auth: Option<AuthProtocol>,
    auth_file: Option<PathBuf>,
    #[serde(default, rename = "priv", deserialize_with = "privacy")]
    privacy: Option<PrivProtocol>,
    priv_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "engine_id")]
    engine_id: Option<Vec<u8>>,
    #[serde(default, deserialize_with = "command")]
    command: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Version {
    #[serde(rename = "2c")]
    V2c,
    #[serde(rename = "3")]
    V3,
}

/// The receivers of one file.
pub(super) fn checked(file: &str, text: &str, sections: Vec<Spanned<Section>>) -> Result<Vec<Notify>, ConfigError> {
    let mut found: Vec<Notify> = Vec::new();
    for section in sections {
        let at = section.span().start;
        let section = section.into_inner();
        let name = section.name.clone();
        let refuse = |why: String| ConfigError::at(file, text, at, format!("[[notify]] {name}: {why}"));
        if found.iter().any(|notify| notify.receiver.id == name) {
            return Err(refuse("there is another receiver of this name".into()));
        }
        if found.len() >= MAX_RECEIVERS {
            return Err(refuse(format!("there can be {MAX_RECEIVERS} receivers at most")));
        }
        found.push(section.checked().map_err(refuse)?);
    }
    Ok(found)
}

/// Receivers of an earlier file and of a later one: whoever is named again is as the later one says.
pub(super) fn overridden(mut earlier: Vec<Notify>, later: Vec<Notify>) -> Vec<Notify> {
    earlier.retain(|one| !later.iter().any(|other| other.receiver.id == one.receiver.id));
    earlier.extend(later);
    earlier
}

impl Section {
    /// The keys that not every type has: whether it is given, and whose it is.
    fn keys(&self) -> [(&'static str, bool, &'static [Kind]); 22] {
        use Kind::{Alertmanager, Email, Exec, Snmp, Webhook};
        [
            ("url", self.url.is_some(), &[Webhook, Alertmanager]),
            ("secret_file", self.secret_file.is_some(), &[Webhook]),
            ("token_file", self.token_file.is_some(), &[Webhook, Alertmanager]),
            ("ca_file", self.ca_file.is_some(), &[Email, Webhook, Alertmanager]),
            ("server", self.server.is_some(), &[Email]),
            ("port", self.port.is_some(), &[Email]),
            ("tls", self.tls.is_some(), &[Email]),
            ("username", self.username.is_some(), &[Email, Snmp]),
            ("password_file", self.password_file.is_some(), &[Email]),
            ("from", self.from.is_some(), &[Email]),
            ("to", self.to.is_some(), &[Email]),
            ("target", self.target.is_some(), &[Snmp]),
            ("version", self.version.is_some(), &[Snmp]),
            ("inform", self.inform.is_some(), &[Snmp]),
            ("enterprise", self.enterprise.is_some(), &[Snmp]),
            ("community_file", self.community_file.is_some(), &[Snmp]),
            ("auth", self.auth.is_some(), &[Snmp]),
            ("auth_file", self.auth_file.is_some(), &[Snmp]),
            ("priv", self.privacy.is_some(), &[Snmp]),
            ("priv_file", self.priv_file.is_some(), &[Snmp]),
            ("engine_id", self.engine_id.is_some(), &[Snmp]),
            ("command", self.command.is_some(), &[Exec]),
        ]
    }

    fn checked(self) -> Result<Notify, String> {
        if let Some((key, _, of)) = self.keys().into_iter().find(|(_, given, of)| *given && !of.contains(&self.kind)) {
            let of: Vec<&str> = of.iter().map(|kind| kind.as_str()).collect();
            return Err(format!("`{key}` is a key of type {}, not of {}", of.join(" and "), self.kind.as_str()));
        }
        let pace = self.pace();
        let receiver = Receiver {
            id: self.name.clone(),
            kinds: self.kinds.clone(),
            zones: self.zones.clone(),
            clusters: self.clusters.clone(),
            severity: self.severity.unwrap_or(Severity::Info),
            group_wait: self.group_wait.unwrap_or(pace.group_wait),
            group_interval: self.group_interval.unwrap_or(pace.group_interval),
            repeat_interval: self.repeat_interval.unwrap_or(pace.repeat_interval),
            keep_alive: pace.keep_alive,
        };
        let timeout = self.timeout.unwrap_or(Duration::from_secs(if self.kind == Kind::Email { 120 } else { 60 }));
        let repeat_interval = receiver.repeat_interval;
        Ok(Notify { receiver, timeout, way: self.way(repeat_interval)? })
    }

    fn pace(&self) -> Pace {
        let seconds = Duration::from_secs;
        match self.kind {
            Kind::Alertmanager => Pace {
                group_wait: Duration::ZERO,
                group_interval: Duration::ZERO,
                repeat_interval: seconds(60),
                keep_alive: Some(KEEP_ALIVE),
            },
            Kind::Email | Kind::Webhook | Kind::Snmp | Kind::Exec => {
                Pace { group_wait: seconds(30), group_interval: seconds(300), repeat_interval: seconds(4 * 3600), keep_alive: None }
            }
        }
    }

    fn way(self, repeat_interval: Duration) -> Result<Way, String> {
        match self.kind {
            Kind::Email => self.email().map(Way::Email),
            Kind::Webhook => {
                let url = needed("url", self.url)?;
                in_private(&url, self.token_file.as_ref())?;
                let secret_file = needed("secret_file", self.secret_file)?;
                Ok(Way::Webhook(Webhook { url, secret_file, token_file: self.token_file, ca_file: self.ca_file }))
            }
            Kind::Alertmanager => {
                let url = needed("url", self.url)?;
                in_private(&url, self.token_file.as_ref())?;
                // As long as Prometheus gives it: a lost repetition or two end nothing.
                let ends_after = (4 * repeat_interval).max(Duration::from_secs(300));
                Ok(Way::Alertmanager(Alertmanager { url, token_file: self.token_file, ca_file: self.ca_file, ends_after }))
            }
            Kind::Snmp => self.snmp().map(Way::Snmp),
            Kind::Exec => {
                let mut words = needed("command", self.command)?.into_iter();
                let program = words.next().map(PathBuf::from).filter(|path| path.is_absolute());
                let program = program.ok_or("`command` begins with the program's absolute path")?;
                Ok(Way::Exec(Exec { program, arguments: words.collect() }))
            }
        }
    }

    fn email(self) -> Result<Email, String> {
        let server = needed("server", self.server)?;
        if !is_host_name(&server) {
            return Err(format!("`server`: {server:?} is neither a host name nor an IP address (the port has its own key)"));
        }
        let tls = self.tls.unwrap_or(MailTls::Starttls);
        if tls == MailTls::None && !is_loopback(&server) {
            return Err("`tls = \"none\"` is for a server on this machine only: use \"starttls\" or \"tls\"".into());
        }
        let login = match (self.username, self.password_file) {
            (Some(name), Some(file)) => Some((name, file)),
            (None, None) => None,
            (Some(_), None) => return Err("`username` takes `password_file`".into()),
            (None, Some(_)) => return Err("`password_file` takes `username`".into()),
        };
        let port = self.port.unwrap_or(match tls {
            MailTls::Starttls => 587,
            MailTls::Tls => 465,
            MailTls::None => 25,
        });
        let (from, to) = (needed("from", self.from)?, needed("to", self.to)?);
        Ok(Email { server, port, tls, ca_file: self.ca_file, login, from, to })
    }

    fn snmp(self) -> Result<Snmp, String> {
        let target = needed("target", self.target)?;
        let enterprise = match self.enterprise {
            Some(enterprise) => enterprise,
            None => Oid::parse(DEFAULT_ENTERPRISE).map_err(|error| error.to_string())?,
        };
        let inform = self.inform.unwrap_or(true);
        let version = match self.version.unwrap_or(Version::V3) {
            Version::V2c => {
                let v3 = [
                    ("username", self.username.is_some()),
                    ("auth", self.auth.is_some()),
                    ("auth_file", self.auth_file.is_some()),
                    ("priv", self.privacy.is_some()),
                    ("priv_file", self.priv_file.is_some()),
                    ("engine_id", self.engine_id.is_some()),
                ];
                if let Some((key, _)) = v3.into_iter().find(|(_, given)| *given) {
                    return Err(format!("`{key}` is of version \"3\", not of \"2c\""));
                }
                SnmpVersion::V2c { community_file: needed("community_file", self.community_file)? }
            }
            Version::V3 => {
                if self.community_file.is_some() {
                    return Err("`community_file` is of version \"2c\", not of \"3\"".into());
                }
                let username = needed("username", self.username)?;
                if !(1..=32).contains(&username.len()) {
                    return Err("`username` has 1 to 32 bytes".into());
                }
                let auth = (self.auth.unwrap_or(AuthProtocol::Sha256), needed("auth_file", self.auth_file)?);
                let privacy = match (self.privacy, self.priv_file) {
                    (protocol, Some(file)) => Some((protocol.unwrap_or(PrivProtocol::Aes128), file)),
                    (Some(_), None) => return Err("`priv` takes `priv_file`".into()),
                    (None, None) => None,
                };
                SnmpVersion::V3 { username, auth, privacy, engine_id: self.engine_id }
            }
        };
        Ok(Snmp { target, inform, enterprise, version })
    }
}

struct Pace {
    group_wait: Duration,
    group_interval: Duration,
    repeat_interval: Duration,
    keep_alive: Option<Duration>,
}

fn needed<T>(key: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("`{key}` is missing"))
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A token must not travel where others can read it.
fn in_private(url: &Url, token_file: Option<&PathBuf>) -> Result<(), String> {
    let is_open = url.scheme() == "http" && !url.host_str().is_some_and(is_loopback);
    if is_open && token_file.is_some() { Err("a token is sent by https only, or to this machine itself".into()) } else { Ok(()) }
}

fn within<E: serde::de::Error>(given: i64, least: u64, most: u64) -> Result<Option<Duration>, E> {
    match u64::try_from(given) {
        Ok(seconds) if (least..=most).contains(&seconds) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(E::custom(format!("must be {least} to {most} seconds, not {given}"))),
    }
}

fn pause<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    within(i64::deserialize(deserializer)?, 0, DAY)
}

fn repetition<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    within(i64::deserialize(deserializer)?, 10, 30 * DAY)
}

fn attempt<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    // Well before the core takes it for failed.
    within(i64::deserialize(deserializer)?, 1, ATTEMPT_LIMIT.as_secs() * 4 / 5)
}

fn text<'de, D: Deserializer<'de>, T>(deserializer: D, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, D::Error> {
    read(&String::deserialize(deserializer)?).map(Some).map_err(serde::de::Error::custom)
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    text(deserializer, |given| {
        let url: Url = given.parse().map_err(|error| format!("not a URL: {error}"))?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        match url.scheme() {
            "http" | "https" if !is_plain => Err("a URL here has no user, password or fragment: use `token_file`".into()),
            "http" | "https" => Ok(url),
            other => Err(format!("{other:?} is neither http nor https")),
        }
    })
}

fn read_mailbox(given: &str) -> Result<Mailbox, String> {
    let mailbox: Mailbox = given.parse().map_err(|error| format!("{given:?} is not a mail address: {error}"))?;
    // Others take a server with SMTPUTF8, which is not asked for.
    let address: &str = mailbox.email.as_ref();
    if address.is_ascii() { Ok(mailbox) } else { Err(format!("{given:?}: the address itself is in ASCII only")) }
}

fn mailbox<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mailbox>, D::Error> {
    text(deserializer, read_mailbox)
}

fn mailboxes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Mailbox>>, D::Error> {
    let given = Vec::<String>::deserialize(deserializer)?;
    if !(1..=MAX_RECIPIENTS).contains(&given.len()) {
        return Err(serde::de::Error::custom(format!("takes 1 to {MAX_RECIPIENTS} mail addresses")));
    }
    given.iter().map(|one| read_mailbox(one)).collect::<Result<_, _>>().map(Some).map_err(serde::de::Error::custom)
}

fn target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer, |given| {
        if given.parse::<std::net::SocketAddr>().is_ok() {
            return Ok(given.to_owned());
        }
        if is_host_name(given) {
            return Ok(host_port(given, TRAP_PORT));
        }
        let parts = given.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        match parts {
            Some((host, port)) if is_host_name(host) => Ok(host_port(host, port)),
            _ => Err(format!("{given:?} is neither HOST nor HOST:PORT")),
        }
    })
}

fn oid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Oid>, D::Error> {
    text(deserializer, |given| {
        let oid = Oid::parse(given).map_err(|_| format!("{given:?} is not an object identifier"))?;
        let is_fit = oid.arcs().starts_with(&[1, 3, 6, 1, 4, 1]) && (7..=64).contains(&oid.len());
        if is_fit { Ok(oid) } else { Err(format!("{given:?} is not below 1.3.6.1.4.1 (enterprises)")) }
    })
}

fn auth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<AuthProtocol>, D::Error> {
    text(deserializer, |given| match given {
        "sha" => Ok(AuthProtocol::Sha1),
        "sha224" => Ok(AuthProtocol::Sha224),
        "sha256" => Ok(AuthProtocol::Sha256),
        "sha384" => Ok(AuthProtocol::Sha384),
        "sha512" => Ok(AuthProtocol::Sha512),
        other => Err(format!("{other:?} is not one of sha, sha224, sha256, sha384, sha512")),
    })
}

fn privacy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PrivProtocol>, D::Error> {
    text(deserializer, |given| match given {
        "aes" => Ok(PrivProtocol::Aes128),
        "aes256" => Ok(PrivProtocol::Aes256Blumenthal),
        other => Err(format!("{other:?} is not one of aes, aes256")),
    })
}

fn engine_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    text(deserializer, |given| {
        let bytes = hex::decode(given.trim_start_matches("0x")).ok().filter(|bytes| (5..=32).contains(&bytes.len()));
        let is_fit = |bytes: &Vec<u8>| bytes.iter().any(|byte| *byte != 0) && bytes.iter().any(|byte| *byte != 0xff);
        bytes.filter(is_fit).ok_or_else(|| format!("{given:?} is not 5 to 32 bytes in hex"))
    })
}

fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    let is_fit = (1..=MAX_WORDS).contains(&words.len()) && !words.iter().any(|word| word.contains('\0'));
    let refuse = || serde::de::Error::custom("a command is a list: the program's absolute path and its arguments, without a shell");
    if is_fit { Ok(Some(words)) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        notify: Vec<Spanned<Section>>,
    }

    fn read(text: &str) -> Result<Vec<Notify>, String> {
        let told = |error: ConfigError| error.to_string();
        let file: File = picket_common::config::parse("a.toml", text).map_err(told)?;
        checked("a.toml", text, file.notify).map_err(told)
    }

    /// A section after two lines, with these lines of its own from line 6 on.
    fn section(kind: &str, lines: &str) -> Result<Notify, String> {
        let text = format!("# a\n\n[[notify]]\nname = \"ops\"\ntype = \"{kind}\"\n{lines}\n");
        read(&text).map(|mut found| found.pop().unwrap())
    }

    const MAIL: &str = "server = \"mail.example\"\nfrom = \"Picket <picket@example.org>\"\nto = [\"ops@example.org\"]";
    const V3: &str = "target = \"nms.example\"\nusername = \"picket\"\nauth_file = \"/a\"";

    #[test]
    fn every_type_has_working_defaults() {
        let mail = section("email", MAIL).unwrap();
        let Way::Email(email) = &mail.way else { panic!("{mail:?}") };
        assert_eq!((email.tls, email.port, email.login.is_none()), (MailTls::Starttls, 587, true));
        assert_eq!(mail.way.target(), "ops@example.org by mail.example:587");
        let seconds = |notify: &Notify| {
            let Receiver { group_wait, group_interval, repeat_interval, .. } = &notify.receiver;
            [group_wait, group_interval, repeat_interval].map(Duration::as_secs)
        };
        assert_eq!(seconds(&mail), [30, 300, 4 * 3600]);
        assert_eq!((mail.receiver.severity, mail.receiver.keep_alive), (Severity::Info, None));

        let hook = section("webhook", "url = \"https://a.example/x?key=1\"\nsecret_file = \"/s\"").unwrap();
        assert_eq!((hook.way.target().as_str(), hook.way.files().len()), ("https://a.example", 1));
        let alertmanager = section("alertmanager", "url = \"http://am.example:9093\"").unwrap();
        assert_eq!((seconds(&alertmanager), alertmanager.receiver.keep_alive), ([0, 0, 60], Some(KEEP_ALIVE)));

        let v3 = section("snmp", V3).unwrap();
        let Way::Snmp(snmp) = &v3.way else { panic!("{v3:?}") };
        assert_eq!((snmp.target.as_str(), snmp.inform), ("nms.example:162", true));
        assert_eq!(snmp.enterprise.to_string(), DEFAULT_ENTERPRISE);
        let SnmpVersion::V3 { auth: (AuthProtocol::Sha256, _), privacy: None, .. } = &snmp.version else { panic!("{snmp:?}") };

        let exec = section("exec", "command = [\"/usr/bin/page\", \"--now\"]").unwrap();
        let Way::Exec(exec) = &exec.way else { panic!("{exec:?}") };
        assert_eq!((exec.program.as_path(), exec.arguments.as_slice()), (Path::new("/usr/bin/page"), &["--now".to_owned()][..]));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let mail = |line: &str| section("email", &format!("{line}\n{MAIL}"));
        let hook = |line: &str| section("webhook", &format!("{line}\nsecret_file = \"/s\""));
        let snmp = |line: &str| section("snmp", &format!("{line}\n{V3}"));
        for (found, wanted) in [
            (mail("group_wait = -1"), "a.toml:6: must be 0 to 86400 seconds, not -1"),
            (mail("repeat_interval = 3"), "a.toml:6: must be 10 to 2592000 seconds"),
            (mail("timeout = 300"), "a.toml:6: must be 1 to 240 seconds"),
            (mail("kinds = [\"bmc-lst\"]"), "a.toml:6: unknown variant `bmc-lst`"),
            (mail("severity = \"grave\""), "a.toml:6: unknown variant `grave`"),
            (mail("zones = [\"Z\"]"), "a.toml:6: \"Z\" is not a valid zone id"),
            (
                mail("url = \"https://a.example\""),
                "a.toml:3: [[notify]] ops: `url` is a key of type webhook and alertmanager, not of email",
            ),
            (mail("tls = \"none\""), "a.toml:3: [[notify]] ops: `tls = \"none\"` is for a server on this machine only"),
            (mail("username = \"u\""), "a.toml:3: [[notify]] ops: `username` takes `password_file`"),
            (mail("password = \"x\""), "a.toml:6: unknown key `password`; did you mean `password_file`?"),
            (section("email", "from = \"nobody\""), "a.toml:6: \"nobody\" is not a mail address"),
            (section("email", "to = []"), "a.toml:6: takes 1 to 50 mail addresses"),
            (section("email", "server = \"a\""), "a.toml:3: [[notify]] ops: `from` is missing"),
            (hook("url = \"ftp://a.example\""), "a.toml:6: \"ftp\" is neither http nor https"),
            (hook("url = \"https://u:p@a.example\""), "a.toml:6: a URL here has no user"),
            (hook("url = \"http://a.example\"\ntoken_file = \"/t\""), "a.toml:3: [[notify]] ops: a token is sent by https only"),
            (section("webhook", "url = \"http://a.example\""), "a.toml:3: [[notify]] ops: `secret_file` is missing"),
            (snmp("auth = \"md5\""), "a.toml:6: \"md5\" is not one of sha"),
            (snmp("priv = \"aes\""), "a.toml:3: [[notify]] ops: `priv` takes `priv_file`"),
            (snmp("version = \"2c\""), "a.toml:3: [[notify]] ops: `username` is of version \"3\""),
            (snmp("community_file = \"/c\""), "a.toml:3: [[notify]] ops: `community_file` is of version \"2c\""),
            (snmp("enterprise = \"1.3.6.1.2\""), "a.toml:6: \"1.3.6.1.2\" is not below 1.3.6.1.4.1"),
            (snmp("engine_id = \"00\""), "a.toml:6: \"00\" is not 5 to 32 bytes"),
            (section("snmp", "target = \"a b\""), "a.toml:6: \"a b\" is neither HOST nor HOST:PORT"),
            (
                section("exec", "command = [\"page\"]"),
                "a.toml:3: [[notify]] ops: `command` begins with the program's absolute path",
            ),
            (section("exec", "command = \"page\""), "a.toml:6: invalid type: string"),
        ] {
            let error = found.unwrap_err();
            assert!(error.starts_with(wanted), "{error}\nwanted: {wanted}");
        }
        let twice = "[[notify]]\nname = \"a\"\ntype = \"exec\"\ncommand = [\"/a\"]\n".repeat(2);
        assert_eq!(read(&twice).unwrap_err(), "a.toml:5: [[notify]] a: there is another receiver of this name");
    }

    #[test]
    fn a_later_file_replaces_receivers_by_name() {
        let file = |names: &[(&str, &str)]| {
            let text: Vec<String> = names
                .iter()
                .map(|(name, program)| format!("[[notify]]\nname = \"{name}\"\ntype = \"exec\"\ncommand = [\"{program}\"]\n"))
                .collect();
            read(&text.concat()).unwrap()
        };
        let all = overridden(file(&[("a", "/1"), ("b", "/1")]), file(&[("a", "/2"), ("c", "/2")]));
        let told: Vec<String> = all.iter().map(|notify| format!("{} {}", notify.receiver.id, notify.way.target())).collect();
        assert_eq!(told, ["b /1", "a /2", "c /2"]);
    }
}
