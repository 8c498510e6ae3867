//! What can be asked of `fence_picket`, by the names that fence-agents have for it: on the command line, or as `name=value` lines on
//! stdin. One table is all of it: both ways in, the usage and the metadata are read from there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, Command};
use picket_common::ha::Gate;
use picket_common::id::HostId;
use picket_common::secret::Secret;

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing; on stdin `1`, `yes`, `on`, `true` and their opposites.
    Flag,
    /// Any text.
    Text,
    /// A time in whole seconds.
    Seconds,
    /// A whole number.
    Integer,
}

impl Kind {
    /// As metadata calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "boolean",
            Self::Text => "string",
            Self::Seconds => "second",
            Self::Integer => "integer",
        }
    }
}

/// One option.
#[derive(Debug)]
pub struct Known {
    /// On the command line, without dashes; on stdin with `_` for `-`.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// The older name on stdin, where it is another.
    pub old: Option<&'static str>,
    /// What it takes.
    pub kind: Kind,
    /// What stands for its value in the usage.
    pub value: &'static str,
    /// Unless it is given.
    pub default: Option<&'static str>,
    /// Whether an order needs it.
    pub required: bool,
    /// Where it stands in lists.
    pub order: u8,
    /// One sentence.
    pub help: &'static str,
}

const fn flag(order: u8, long: &'static str, short: Option<char>, help: &'static str) -> Known {
    Known { long, short, old: None, kind: Kind::Flag, value: "", default: None, required: false, order, help }
}

const fn text(order: u8, long: &'static str, value: &'static str, help: &'static str) -> Known {
    Known { kind: Kind::Text, value, ..flag(order, long, None, help) }
}

const fn seconds(long: &'static str, default: &'static str, help: &'static str) -> Known {
    Known { kind: Kind::Seconds, value: "seconds", default: Some(default), ..flag(200, long, None, help) }
}

/// All options, in the order of lists. Names, letters, kinds and orders are those of fence-agents 4.12 where it has the option.
pub const OPTIONS: &[Known] = &[
    Known { short: Some('o'), required: true, default: Some("reboot"), ..text(1, "action", "action", "Fencing action") },
    text(1, "ca-file", "file", "CA certificate (PEM) of the Picket aggregator; without it the system's are trusted"),
    Known {
        short: Some('a'),
        old: Some("ipaddr"),
        required: true,
        ..text(1, "ip", "ip", "IP address or hostname of the Picket aggregator")
    },
    Known {
        short: Some('u'),
        kind: Kind::Integer,
        default: Some("8443"),
        ..text(1, "ipport", "port", "TCP port of the Picket aggregator")
    },
    Known { short: Some('l'), old: Some("login"), ..text(1, "username", "name", "Not used: the token says who asks") },
    text(1, "overrides", "gates", "Gates of Picket that this order overrides, by name: storm,cap"),
    Known {
        short: Some('p'),
        old: Some("passwd"),
        ..text(1, "password", "password", "Token for Picket's API; on stdin only, never on the command line")
    },
    Known {
        short: Some('S'),
        old: Some("passwd_script"),
        ..text(1, "password-script", "script", "Program to run to retrieve the token; without arguments, and without a shell")
    },
    Known { short: Some('n'), old: Some("port"), required: true, ..text(1, "plug", "id", "Id of the host in Picket") },
    text(1, "reason", "text", "Why, for Picket's history and audit"),
    flag(1, "ssl", Some('z'), "Use SSL connection with verifying certificate (always)"),
    flag(1, "ssl-secure", None, "Use SSL connection with verifying certificate (always)"),
    text(1, "token-file", "file", "File with the token, one line"),
    flag(50, "quiet", Some('q'), "Disable logging to stderr. Does not affect --debug-file."),
    flag(51, "verbose", Some('v'), "Verbose mode. Multiple -v flags can be stacked on the command line (e.g., -vvv)."),
    Known {
        kind: Kind::Integer,
        ..text(52, "verbose-level", "level", "Level of debugging detail in output; from 1 on it is verbose")
    },
    Known { short: Some('D'), old: Some("debug"), ..text(53, "debug-file", "debugfile", "Write debug information to given file") },
    flag(54, "version", Some('V'), "Display version information and exit"),
    flag(55, "help", Some('h'), "Display help and exit"),
    Known {
        default: Some(","),
        ..text(100, "plug-separator", "char", "Separator for plug parameter when specifying more than 1 plug")
    },
    Known {
        short: Some('C'),
        default: Some(","),
        ..text(100, "separator", "char", "Separator for CSV created by 'list' operation")
    },
    seconds("delay", "0", "Wait X seconds before fencing is started"),
    text(200, "disable-timeout", "true/false", "Disable timeout (true/false) (default: true when run from Pacemaker 2.0+)"),
    seconds("login-timeout", "5", "Wait X seconds for a connection to the aggregator"),
    seconds("power-timeout", "120", "Wait X seconds for ON, or for proof of OFF"),
    seconds("power-wait", "0", "Wait X seconds after ON/OFF"),
    seconds("shell-timeout", "10", "Wait X seconds for an answer of the aggregator"),
    seconds("stonith-status-sleep", "1", "Not used: the aggregator tells when it is done"),
    Known { kind: Kind::Integer, default: Some("1"), ..text(201, "retry-on", "attempts", "Count of attempts to retry power on") },
];

/// The option of that name, with `-` and `_` alike, or by its older name.
fn known(name: &str) -> Option<&'static Known> {
    let dashed = name.replace('_', "-");
    OPTIONS.iter().find(|known| known.long == dashed || known.old == Some(name))
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Switch on; what was fenced is released.
    On,
    /// Fence: off, and proven.
    Off,
    /// Fence, release, switch on.
    Reboot,
    /// Read the power now.
    Status,
    /// The hosts' names.
    List,
    /// The hosts' names and power.
    ListStatus,
    /// Whether Picket can be asked.
    Monitor,
    /// What this program takes, as XML.
    Metadata,
    /// Whether what is given is all and makes sense.
    ValidateAll,
}

impl Action {
    /// The actions' names, in the order of metadata.
    pub const NAMES: [&str; 10] =
        ["on", "off", "reboot", "status", "list", "list-status", "monitor", "metadata", "manpage", "validate-all"];

    fn named(name: &str) -> Option<Self> {
        Some(match name.to_lowercase().as_str() {
            "on" => Self::On,
            "off" => Self::Off,
            "reboot" => Self::Reboot,
            "status" => Self::Status,
            "list" => Self::List,
            "list-status" => Self::ListStatus,
            "monitor" => Self::Monitor,
            "metadata" | "meta-data" | "manpage" => Self::Metadata,
            "validate-all" => Self::ValidateAll,
            _ => return None,
        })
    }

    /// Whether it is about hosts that must be named.
    const fn needs_a_host(self) -> bool {
        matches!(self, Self::On | Self::Off | Self::Reboot | Self::Status | Self::ValidateAll)
    }

    /// Lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Reboot => "reboot",
            Self::Status => "status",
            Self::List => "list",
            Self::ListStatus => "list-status",
            Self::Monitor => "monitor",
            Self::Metadata => "metadata",
            Self::ValidateAll => "validate-all",
        }
    }
}

/// Asked wrongly: what is said of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// What was given, by long name.
#[derive(Debug, Default)]
pub struct Given {
    values: BTreeMap<&'static str, String>,
    password: Option<Secret<String>>,
    verbose: u8,
    /// What was not understood and is ignored.
    pub warnings: Vec<String>,
}

impl Given {
    /// The command line.
    ///
    /// # Errors
    /// An option that is not there, or a token where others can read it.
    pub fn from_words(words: impl Iterator<Item = std::ffi::OsString>) -> Result<Self, Misuse> {
        let matches = grammar().try_get_matches_from(words).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Misuse(format!("Parse error: {line}"))
        })?;
        let mut given = Self::default();
        for known in OPTIONS {
            match known.kind {
                Kind::Flag if known.long == "verbose" => given.verbose = matches.get_count(known.long),
                Kind::Flag if matches.get_flag(known.long) => drop(given.values.insert(known.long, "1".to_owned())),
                Kind::Flag => {}
                Kind::Text | Kind::Seconds | Kind::Integer => {
                    let value = matches.get_one::<String>(known.long);
                    given.values.extend(value.map(|value| (known.long, value.clone())));
                }
            }
        }
        if given.values.remove("password").is_some() {
            let hint = "others can read the command line: give the token on stdin, with --token-file or with --password-script";
            return Err(Misuse(format!("Failed: {hint}")));
        }
        let rest: Vec<&str> = matches.get_many::<String>(REST).into_iter().flatten().map(String::as_str).collect();
        if !rest.is_empty() {
            given.warnings.push(format!("Unused arguments on command line: {rest:?}"));
        }
        Ok(given)
    }

    /// The lines of stdin. What is not known is ignored with a warning, which never shows a value: it may be a secret.
    pub fn from_lines(text: &str) -> Self {
        let mut given = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            given.put(name, unquoted);
        }
        given
    }

    fn put(&mut self, name: &str, value: &str) {
        // Pacemaker always sends it; whom it means stands in `plug`.
        if name == "nodename" {
            return;
        }
        let ignored = |why: &str| format!("Parse error: Ignoring {why} '{name}'");
        let Some(known) = known(name) else {
            // Verified anyway; but who relies on it is told.
            self.warnings.push(match name.replace('_', "-").as_str() {
                "ssl-insecure" => ignored("option (the certificate is always verified: see ca_file)"),
                _ => ignored("unknown option"),
            });
            return;
        };
        match (known.kind, value.to_lowercase().as_str()) {
            (Kind::Flag, "1" | "yes" | "on" | "true") if known.long == "verbose" => self.verbose = 1,
            (Kind::Flag, "1" | "yes" | "on" | "true") => drop(self.values.insert(known.long, "1".to_owned())),
            (Kind::Flag, "0" | "no" | "off" | "false") => drop(self.values.remove(known.long)),
            (Kind::Flag, _) => self.warnings.push(ignored("option because it does not have value")),
            _ if known.long == "password" => self.password = Some(Secret::new(value.to_owned())),
            _ => drop(self.values.insert(known.long, value.to_owned())),
        }
    }

    fn text(&self, long: &str) -> Option<&str> {
        let default = || OPTIONS.iter().find(|known| known.long == long)?.default;
        self.values.get(long).map(String::as_str).or_else(default)
    }

    /// Whether a flag is set.
    pub fn has(&self, long: &str) -> bool {
        self.values.contains_key(long)
    }

    fn number(&self, long: &str) -> Result<u64, Misuse> {
        let kind = OPTIONS.iter().find(|known| known.long == long).map(|known| known.kind);
        let what = if kind == Some(Kind::Seconds) { "time in seconds" } else { "integer" };
        let wrong = || Misuse(format!("Failed: The value you have entered for --{long} is not a valid {what}"));
        self.text(long).map_or(Ok(0), |text| text.parse().map_err(|_| wrong()))
    }

    fn seconds(&self, long: &str) -> Result<Duration, Misuse> {
        self.number(long).map(Duration::from_secs)
    }

    /// What is to be done.
    ///
    /// # Errors
    /// Not an action.
    pub fn action(&self) -> Result<Action, Misuse> {
        let name = self.text("action").unwrap_or_default();
        Action::named(name).ok_or_else(|| Misuse(format!("Failed: Unrecognised action '{}'", name.to_lowercase())))
    }

    /// How much is told, and where.
    pub fn telling(&self) -> Telling {
        let level = self.text("verbose-level").and_then(|level| level.parse::<u8>().ok());
        Telling {
            quiet: self.has("quiet"),
            verbose: level.unwrap_or(self.verbose) > 0,
            file: self.text("debug-file").map(PathBuf::from),
        }
    }

    /// All of it, checked. `in_pacemaker`: Pacemaker itself watches the time.
    ///
    /// # Errors
    /// The first thing that is missing or makes no sense.
    pub fn checked(self, in_pacemaker: bool) -> Result<Options, Misuse> {
        let action = self.action()?;
        let missing = |what: &str| Misuse(format!("Failed: You have to enter {what}"));
        let ip = self.text("ip").filter(|ip| !ip.is_empty()).ok_or_else(|| missing("fence address"))?;
        let port = u16::try_from(self.number("ipport")?).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| Misuse("Failed: The value you have entered for --ipport is not a valid port".into()))?;
        let path = |long: &str| self.text(long).map(PathBuf::from);
        let token = match (path("token-file"), path("password-script"), &self.password) {
            (Some(file), _, _) => TokenFrom::File(file),
            (None, Some(script), _) => TokenFrom::Script(script),
            (None, None, Some(password)) => TokenFrom::Here(password.clone()),
            (None, None, None) => return Err(missing("password, password script or token file")),
        };
        let hosts = self.hosts()?;
        if hosts.is_empty() && action.needs_a_host() {
            return Err(missing("plug number or machine identification"));
        }
        let unlimited = match self.text("disable-timeout") {
            Some(word) => matches!(word.to_lowercase().as_str(), "1" | "yes" | "on" | "true"),
            None => in_pacemaker,
        };
        let default_reason = || format!("fence_picket: {}", action.as_str());
        Ok(Options {
            action,
            url: url(ip, port),
            ca_file: path("ca-file"),
            token,
            hosts,
            reason: self.text("reason").filter(|reason| !reason.is_empty()).map_or_else(default_reason, str::to_owned),
            overrides: self.overrides()?,
            separator: self.text("separator").unwrap_or(",").to_owned(),
            delay: self.seconds("delay")?,
            login_timeout: self.seconds("login-timeout")?.max(Duration::from_secs(1)),
            answer_timeout: self.seconds("shell-timeout")?.max(Duration::from_secs(1)),
            power_timeout: Some(self.seconds("power-timeout")?).filter(|time| !unlimited && !time.is_zero()),
            power_wait: self.seconds("power-wait")?,
            retry_on: self.number("retry-on")?,
        })
    }

    fn hosts(&self) -> Result<Vec<HostId>, Misuse> {
        let separator = self.text("plug-separator").filter(|separator| !separator.is_empty()).unwrap_or(",");
        let names = self.text("plug").into_iter().flat_map(|plugs| plugs.split(separator)).map(str::trim);
        let id = |name: &str| name.parse().map_err(|error| Misuse(format!("Failed: --plug: {error}")));
        names.filter(|name| !name.is_empty()).map(id).collect()
    }

    fn overrides(&self) -> Result<Vec<Gate>, Misuse> {
        let names = self.text("overrides").into_iter().flat_map(|gates| gates.split(',')).map(str::trim);
        let gate = |name: &str| {
            let known = Gate::ALL.into_iter().find(|gate| serde_json::to_value(gate).is_ok_and(|word| word == name));
            known.ok_or_else(|| Misuse(format!("Failed: --overrides: there is no gate '{name}'")))
        };
        names.filter(|name| !name.is_empty()).map(gate).collect()
    }
}

/// How much is told, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// Nothing on stderr.
    pub quiet: bool,
    /// Debugging too.
    pub verbose: bool,
    /// Everything, in this file as well.
    pub file: Option<PathBuf>,
}

/// Where the token is.
#[derive(Debug)]
pub enum TokenFrom {
    /// It was given.
    Here(Secret<String>),
    /// In a file.
    File(PathBuf),
    /// A program prints it.
    Script(PathBuf),
}

/// All that was asked, checked.
#[derive(Debug)]
pub struct Options {
    /// What is to be done.
    pub action: Action,
    /// `https://host:port` of the aggregator.
    pub url: String,
    /// CA to trust; absent = the system's.
    pub ca_file: Option<PathBuf>,
    /// Where the token is.
    pub token: TokenFrom,
    /// The hosts.
    pub hosts: Vec<HostId>,
    /// Why.
    pub reason: String,
    /// Gates that are overridden.
    pub overrides: Vec<Gate>,
    /// Between the columns of lists.
    pub separator: String,
    /// Pause before a fence.
    pub delay: Duration,
    /// Longest time to make a connection.
    pub login_timeout: Duration,
    /// Longest time for an answer that is not waited for on purpose.
    pub answer_timeout: Duration,
    /// Longest time for a host to be on, or proven off; absent = the caller watches the time.
    pub power_timeout: Option<Duration>,
    /// Pause after on and off.
    pub power_wait: Duration,
    /// How often a failed `on` is tried again.
    pub retry_on: u64,
}

/// Name of the words that belong to no option.
const REST: &str = "words";

/// As `getopt_long` reads: long names may be cut short, the last of several counts, a value may begin with a dash.
fn grammar() -> Command {
    let option = |known: &'static Known| {
        let arg = Arg::new(known.long).long(known.long);
        let arg = known.short.map_or(arg.clone(), |short| arg.short(short));
        match known.kind {
            Kind::Flag if known.long == "verbose" => arg.action(ArgAction::Count),
            Kind::Flag => arg.action(ArgAction::SetTrue).overrides_with(known.long),
            _ => arg.action(ArgAction::Set).overrides_with(known.long).allow_hyphen_values(true),
        }
    };
    Command::new("fence_picket")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .infer_long_args(true)
        .color(clap::ColorChoice::Never)
        .args(OPTIONS.iter().map(option))
        .arg(Arg::new(REST).num_args(0..))
}

/// The API's address: `--ip` may be one already, or have a port of its own.
fn url(ip: &str, port: u16) -> String {
    match ip.matches(':').count() {
        _ if ip.contains("://") => ip.trim_end_matches('/').to_owned(),
        0 => format!("https://{ip}:{port}"),
        1 => format!("https://{ip}"),
        _ if ip.starts_with('[') => format!("https://{ip}:{port}"),
        _ => format!("https://[{ip}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Given, Misuse> {
        Given::from_words(text.split(' ').filter(|word| !word.is_empty()).map(Into::into))
    }

    fn checked(given: Given) -> Result<Options, String> {
        given.checked(false).map_err(|misuse| misuse.0)
    }

    #[test]
    fn the_command_line_is_read_as_getopt_does() {
        let given = words("-o off -a aggr --token-file t -n r07n01,r07n02 --delay 5 -vv --reason=x --reason -y").unwrap();
        assert!(given.telling().verbose && given.warnings.is_empty());
        let options = checked(given).unwrap();
        assert_eq!((options.action, options.url.as_str()), (Action::Off, "https://aggr:8443"));
        assert_eq!(options.hosts, ["r07n01".parse().unwrap(), "r07n02".parse().unwrap()]);
        assert_eq!((options.delay, options.reason.as_str()), (Duration::from_secs(5), "-y"));
        assert!(matches!(options.token, TokenFrom::File(_)));
        // A long name that is cut short, a word too many.
        let given = words("--act=status --ip 10.0.0.1 --tok t --plug h1 too many").unwrap();
        assert_eq!(given.warnings, [r#"Unused arguments on command line: ["too", "many"]"#]);
        assert_eq!(checked(given).unwrap().action, Action::Status);
        for wrong in ["--colour red", "-X", "-o"] {
            assert!(words(wrong).unwrap_err().0.starts_with("Parse error: "), "{wrong}");
        }
    }

    #[test]
    fn no_token_on_the_command_line() {
        for wrong in ["-o off -a a -n h1 -p pkt_secret", "--password=pkt_secret"] {
            let misuse = words(wrong).unwrap_err().0;
            assert!(misuse.contains("stdin") && !misuse.contains("pkt_secret"), "{misuse}");
        }
    }

    #[test]
    fn stdin_is_read_as_fence_agents_do() {
        let text = "# by the cluster manager\n\naction=off\nipaddr=10.0.0.1\npasswd=pkt_secret\nport=\"r07n01\"\n nodename=n1 \n\
                    power_timeout=30\ndebug-file=/tmp/f\nverbose=yes\nssl=maybe\ncolour=pkt_other\nssl_insecure=1\nquiet\n";
        let given = Given::from_lines(text);
        let warnings = given.warnings.join("\n");
        for named in ["'ssl'", "'colour'", "'ssl_insecure'", "'quiet'"] {
            assert!(warnings.contains(named), "{named}: {warnings}");
        }
        assert!(given.warnings.len() == 4 && !warnings.contains("pkt_"), "{warnings}");
        let telling = Telling { quiet: false, verbose: true, file: Some("/tmp/f".into()) };
        assert_eq!(given.telling(), telling);
        let options = checked(given).unwrap();
        assert_eq!((options.action, options.url.as_str()), (Action::Off, "https://10.0.0.1:8443"));
        assert_eq!(options.power_timeout, Some(Duration::from_secs(30)));
        assert_eq!(options.reason, "fence_picket: off");
        let TokenFrom::Here(token) = options.token else { unreachable!() };
        assert_eq!(token.expose(), "pkt_secret");
    }

    #[test]
    fn what_is_missing_is_said_in_their_words() {
        for (lines, wanted) in [
            ("", "Failed: You have to enter fence address"),
            ("ip=a", "Failed: You have to enter password, password script or token file"),
            ("ip=a\npassword=p", "Failed: You have to enter plug number or machine identification"),
            ("ip=a\npassword=p\nplug=h1\naction=explode", "Failed: Unrecognised action 'explode'"),
            ("ip=a\npassword=p\nplug=H 1", "Failed: --plug: "),
            (
                "ip=a\npassword=p\nplug=h1\ndelay=1m",
                "Failed: The value you have entered for --delay is not a valid time in seconds",
            ),
            ("ip=a\npassword=p\nplug=h1\nretry_on=x", "Failed: The value you have entered for --retry-on is not a valid integer"),
            ("ip=a\npassword=p\nplug=h1\noverrides=colour", "Failed: --overrides: there is no gate 'colour'"),
            ("ip=a\nipport=99999\npassword=p\nplug=h1", "Failed: The value you have entered for --ipport is not a valid port"),
        ] {
            let told = checked(Given::from_lines(lines)).err().unwrap_or_default();
            assert!(told.starts_with(wanted), "{lines:?}: {told}");
        }
        for (lines, action) in [
            ("action=list", Action::List),
            ("action=MONITOR", Action::Monitor),
            ("plug=h1", Action::Reboot),
            ("action=off\nplug=h1\noverrides=storm, cap", Action::Off),
        ] {
            let lines = format!("ip=a\npassword=p\n{lines}");
            assert_eq!(checked(Given::from_lines(&lines)).unwrap().action, action, "{lines}");
        }
    }

    #[test]
    fn pacemaker_watches_the_time_itself() {
        let lines = "ip=a\npassword=p\nplug=h1\n";
        let timeout = |more: &str, in_pacemaker| {
            Given::from_lines(&format!("{lines}{more}")).checked(in_pacemaker).unwrap().power_timeout.map(|time| time.as_secs())
        };
        assert_eq!([timeout("", false), timeout("", true)], [Some(120), None]);
        assert_eq!([timeout("disable_timeout=true", false), timeout("disable_timeout=false", true)], [None, Some(120)]);
        assert_eq!(timeout("power_timeout=0", false), None);
    }

    #[test]
    fn addresses() {
        for (ip, wanted) in [
            ("aggr", "https://aggr:8443"),
            ("aggr:9", "https://aggr:9"),
            ("fd00::1", "https://[fd00::1]:8443"),
            ("[fd00::1]", "https://[fd00::1]:8443"),
            ("https://aggr/", "https://aggr"),
        ] {
            assert_eq!(url(ip, 8443), wanted);
        }
    }
}
