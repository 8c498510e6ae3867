//! `[exec.NAME]` of the agent's own file: which program, what it is told, what its answers mean. Checked when the file is read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use picket_common::facts::Capability;
use regex_lite::Regex;
use serde::Deserialize;

use super::text::{NEW_PASSWORD_FILE, PASSWORD_FILE, Place, Slot, Text};
use crate::bmc::Ask;

/// Longest time a template may give its program; the request's own time is a limit besides.
const MOST_SECONDS: u64 = 300;

/// A template, checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct Template {
    /// An absolute path, or a bare name.
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<Text>,
    pub(super) input: Input,
    pub(super) files: BTreeMap<String, Text>,
    pub(super) port: Option<u16>,
    pub(super) limit: Option<Duration>,
    pub(super) reading: Reading,
    pub(super) auth: Signs,
    pub(super) already: Signs,
    pub(super) can_prove: bool,
    actions: BTreeMap<Verb, Vec<Text>>,
}

/// What the program reads.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// A text.
    Text(Text),
    /// The lines of a fence agent: these settings, and the host's options of these names.
    Fence {
        /// From the agent's own file.
        set: BTreeMap<String, String>,
        /// Names that the host's options may set.
        allow: Vec<String>,
    },
}

/// What can be asked of a program, by the names the actions have in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    Status,
    Start,
    Stop,
    Soft,
    Reboot,
    Diag,
    Blink,
    Unblink,
    Boot,
    Test,
    Password,
}

/// How On and Off are told.
#[derive(Debug, Clone)]
pub(super) enum Reading {
    /// By exit codes.
    Exit { on: Vec<i32>, off: Vec<i32> },
    /// By the whole output, trimmed, with exit code 0.
    Output { on: Vec<String>, off: Vec<String> },
    /// By what is found in the output, with exit code 0.
    Pattern { on: Regex, off: Regex },
}

/// How a failure shows what it means. Without any, it is not recognised.
#[derive(Debug, Clone, Default)]
pub(super) struct Signs {
    pub exit: Vec<i32>,
    pub pattern: Option<Regex>,
}

/// One word, or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a word or a list of words")]
enum Words {
    One(String),
    Many(Vec<String>),
}

/// One exit code, or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "an exit code or a list of exit codes")]
enum Codes {
    One(i32),
    Many(Vec<i32>),
}

impl From<Words> for Vec<String> {
    fn from(words: Words) -> Self {
        match words {
            Words::One(word) => vec![word],
            Words::Many(words) => words,
        }
    }
}

impl From<Codes> for Vec<i32> {
    fn from(codes: Codes) -> Self {
        match codes {
            Codes::One(code) => vec![code],
            Codes::Many(codes) => codes,
        }
    }
}

/// As it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    program: Option<PathBuf>,
    args: Option<Vec<String>>,
    syntax: Option<String>,
    #[serde(alias = "fence-agent")]
    fence_agent: Option<PathBuf>,
    stdin: Option<String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    actions: WrittenActions,
    #[serde(default)]
    reading: WrittenReading,
    #[serde(default)]
    auth: WrittenSigns,
    #[serde(default)]
    already: WrittenSigns,
    #[serde(default)]
    set: BTreeMap<String, String>,
    #[serde(default)]
    allow: Vec<String>,
    port: Option<u16>,
    timeout: Option<u64>,
    #[serde(default)]
    can_prove: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenActions {
    status: Option<Words>,
    start: Option<Words>,
    stop: Option<Words>,
    soft: Option<Words>,
    reboot: Option<Words>,
    diag: Option<Words>,
    blink: Option<Words>,
    unblink: Option<Words>,
    boot: Option<Words>,
    test: Option<Words>,
    password: Option<Words>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenReading {
    on_exit: Option<Codes>,
    off_exit: Option<Codes>,
    on_output: Option<Words>,
    off_output: Option<Words>,
    on_pattern: Option<String>,
    off_pattern: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSigns {
    exit: Option<Codes>,
    pattern: Option<String>,
}

impl WrittenActions {
    fn read(self, defaults: &[(Verb, &str)]) -> Result<BTreeMap<Verb, Vec<Text>>, String> {
        let given = [
            (Verb::Status, self.status),
            (Verb::Start, self.start),
            (Verb::Stop, self.stop),
            (Verb::Soft, self.soft),
            (Verb::Reboot, self.reboot),
            (Verb::Diag, self.diag),
            (Verb::Blink, self.blink),
            (Verb::Unblink, self.unblink),
            (Verb::Boot, self.boot),
            (Verb::Test, self.test),
            (Verb::Password, self.password),
        ];
        let mut actions = BTreeMap::new();
        for (verb, word) in defaults {
            actions.insert(*verb, vec![Text::read(word, Place::Action)?]);
        }
        for (verb, words) in given {
            let Some(words) = words else { continue };
            let words: Vec<String> = words.into();
            let words: Result<Vec<Text>, String> = words.iter().map(|word| Text::read(word, Place::Action)).collect();
            actions.insert(verb, words?);
        }
        if !actions.contains_key(&Verb::Status) {
            return Err("actions.status is missing: without it the power state can never be known".into());
        }
        Ok(actions)
    }
}

impl TryFrom<WrittenReading> for Reading {
    type Error = String;

    fn try_from(written: WrittenReading) -> Result<Self, String> {
        let WrittenReading { on_exit, off_exit, on_output, off_output, on_pattern, off_pattern } = written;
        let reading = match (on_exit, off_exit, on_output, off_output, on_pattern, off_pattern) {
            // As fence agents do.
            (None, None, None, None, None, None) => Self::Exit { on: vec![0], off: vec![2] },
            (Some(on), Some(off), None, None, None, None) => Self::Exit { on: on.into(), off: off.into() },
            (None, None, Some(on), Some(off), None, None) => Self::Output { on: on.into(), off: off.into() },
            (None, None, None, None, Some(on), Some(off)) => Self::Pattern { on: pattern(&on)?, off: pattern(&off)? },
            _ => return Err(
                "reading takes both of one kind: on_exit and off_exit, or on_output and off_output, or on_pattern and off_pattern"
                    .into(),
            ),
        };
        let overlap = match &reading {
            Self::Exit { on, off } => on.iter().any(|code| off.contains(code)),
            Self::Output { on, off } => on.iter().any(|output| off.contains(output)),
            Self::Pattern { on, off } => on.as_str() == off.as_str(),
        };
        if overlap { Err("reading means the same by on and off".into()) } else { Ok(reading) }
    }
}

impl TryFrom<WrittenSigns> for Signs {
    type Error = String;

    fn try_from(written: WrittenSigns) -> Result<Self, String> {
        let exit: Vec<i32> = written.exit.map(Into::into).unwrap_or_default();
        if exit.contains(&0) {
            return Err("exit code 0 is success, not a sign of a failure".into());
        }
        Ok(Self { exit, pattern: written.pattern.as_deref().map(pattern).transpose()? })
    }
}

fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| format!("{text:?} is not a regular expression: {error}"))
}

impl TryFrom<Written> for Template {
    type Error = String;

    fn try_from(mut written: Written) -> Result<Self, String> {
        let (program, arguments, fence) = written.command_line()?;
        let input = written.input(fence)?;
        let arguments: Result<Vec<Text>, String> = arguments.iter().map(|text| Text::read(text, Place::Argument)).collect();
        let files: Result<BTreeMap<String, Text>, String> =
            written.files.iter().map(|(name, text)| Ok((name.clone(), Text::read(text, Place::File)?))).collect();
        let defaults: &[(Verb, &str)] = if fence {
            &[(Verb::Status, "status"), (Verb::Start, "on"), (Verb::Stop, "off"), (Verb::Test, "monitor")]
        } else {
            &[]
        };
        let limit = match written.timeout {
            Some(seconds @ 1..=MOST_SECONDS) => Some(Duration::from_secs(seconds)),
            Some(seconds) => return Err(format!("timeout is {seconds}; use 1 to {MOST_SECONDS}")),
            None => None,
        };
        let template = Self {
            program,
            arguments: arguments?,
            input,
            files: files?,
            port: written.port,
            limit,
            reading: written.reading.try_into()?,
            auth: written.auth.try_into()?,
            already: written.already.try_into()?,
            can_prove: written.can_prove,
            actions: written.actions.read(defaults)?,
        };
        template.check()?;
        Ok(template)
    }
}

impl Written {
    /// Program, arguments, and whether it is a fence agent.
    fn command_line(&mut self) -> Result<(PathBuf, Vec<String>, bool), String> {
        let (program, args, syntax, fence) = (self.program.take(), self.args.take(), self.syntax.take(), self.fence_agent.take());
        let (program, arguments, fence) = match (program, args, syntax, fence) {
            (Some(program), args, None, None) => (program, args.unwrap_or_default(), false),
            (program, None, Some(syntax), None) => {
                let (program, arguments) = split(&syntax, program)?;
                (program, arguments, false)
            }
            (None, None, None, Some(agent)) => (agent, Vec::new(), true),
            _ => return Err("give either program and args, or syntax, or fence_agent".into()),
        };
        let bare = program.components().count() == 1 && !program.as_os_str().is_empty();
        if bare || program.is_absolute() {
            return Ok((program, arguments, fence));
        }
        Err(format!("{} is neither an absolute path nor a bare name", program.display()))
    }

    fn input(&mut self, fence: bool) -> Result<Input, String> {
        let (set, allow) = (std::mem::take(&mut self.set), std::mem::take(&mut self.allow));
        if !fence {
            if !set.is_empty() || !allow.is_empty() {
                return Err("set and allow are for fence_agent only".into());
            }
            return Text::read(self.stdin.as_deref().unwrap_or_default(), Place::Input).map(Input::Text);
        }
        if self.stdin.is_some() || !self.files.is_empty() {
            return Err("a fence agent reads its own lines: stdin and files are not for it".into());
        }
        let names = set.keys().chain(&allow);
        let own = ["action", "ip", "ipaddr", "ipport", "username", "login", "password", "passwd"];
        for name in names {
            if own.contains(&name.as_str()) {
                return Err(format!("`{name}` is the host's own and cannot be set here"));
            }
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
                return Err(format!("{name:?} is not the name of a fence agent's option"));
            }
        }
        if set.values().any(|value| value.chars().any(char::is_control)) {
            return Err("a value in set has a line break or other control character".into());
        }
        Ok(Input::Fence { set, allow })
    }
}

/// The seed's way to write a command line: `$IPMI_EXEC --username $IPMI_Username …`, split as a shell would, without one.
fn split(syntax: &str, program: Option<PathBuf>) -> Result<(PathBuf, Vec<String>), String> {
    let words = shlex::split(syntax).ok_or("syntax has a quote that does not end")?;
    let mut words = words.into_iter();
    let first = words.next().ok_or("syntax is empty")?;
    let program = match (first.eq_ignore_ascii_case("$IPMI_EXEC"), program) {
        (true, Some(program)) => program,
        (true, None) => return Err("syntax begins with $IPMI_EXEC: say which program that is with `program`".into()),
        (false, None) if !first.contains('$') => first.into(),
        (false, _) => {
            return Err("syntax begins with $IPMI_EXEC (and `program` says which that is), or with the program itself".into());
        }
    };
    let arguments: Result<Vec<String>, String> = words.map(|word| placeholders(&word)).collect();
    Ok((program, arguments?))
}

/// The seed's variables as placeholders; braces stay braces.
fn placeholders(word: &str) -> Result<String, String> {
    let escaped = word.replace('{', "{{").replace('}', "}}");
    let mut parts = escaped.split('$');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        text.push_str(match name.to_ascii_uppercase().as_str() {
            "IPMI_USERNAME" => "{username}",
            "IPMI_ACTION" => "{action}",
            "IPMI_HOST" => "{host}",
            "IPMI_PORT" => "{port}",
            "IPMI_PASSWORD_FILE" => "{password_file}",
            "IPMI_PASSWORD" => {
                return Err(format!(
                    "${name} would put the password on the command line, where every user of the machine can read it: write $IPMI_password_file if the program can read it from a file, else leave it out and use stdin = \"{{password}}\""
                ));
            }
            _ => {
                return Err(format!(
                    "${name} means nothing here; there are $IPMI_EXEC, $IPMI_username, $IPMI_password_file, $IPMI_action, $IPMI_host, $IPMI_port"
                ));
            }
        });
        text.push_str(rest);
    }
    Ok(text)
}

impl Template {
    fn check(&self) -> Result<(), String> {
        let reads_action = self.slots().any(|slot| *slot == Slot::Action) || matches!(self.input, Input::Fence { .. });
        if !reads_action {
            return Err("nothing has {action}: the program could not know what to do".into());
        }
        for slot in self.slots() {
            if let Slot::File(name) = slot
                && !self.files.contains_key(name)
            {
                return Err(format!("{{file:{name}}} has no text: files.{name} is missing"));
            }
        }
        if let Some(name) = [PASSWORD_FILE, NEW_PASSWORD_FILE].into_iter().find(|name| self.files.contains_key(*name)) {
            return Err(format!("files.{name} is made already; use another name"));
        }
        Ok(())
    }

    /// All placeholders but those of the actions.
    fn slots(&self) -> impl Iterator<Item = &Slot> {
        let input = match &self.input {
            Input::Text(text) => Some(text),
            Input::Fence { .. } => None,
        };
        self.arguments.iter().chain(self.files.values()).chain(input).flat_map(Text::slots)
    }

    /// Whether a placeholder stands anywhere.
    pub(super) fn uses(&self, slot: &Slot) -> bool {
        self.slots().any(|used| used == slot)
    }

    /// Names of the options it takes from hosts, beside `template`.
    pub(super) fn options(&self) -> Vec<&str> {
        let named = self.slots().filter_map(|slot| match slot {
            Slot::Option(name) => Some(name.as_str()),
            _ => None,
        });
        let allowed = match &self.input {
            Input::Fence { allow, .. } => allow.as_slice(),
            Input::Text(_) => &[],
        };
        let mut names: Vec<&str> = named.chain(allowed.iter().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The words for `ask`, if the program can do that.
    pub(super) fn action(&self, ask: Ask) -> Option<&[Text]> {
        let words = |verb| self.actions.get(&verb).map(Vec::as_slice);
        match ask {
            Ask::Status | Ask::Inspect => words(Verb::Status),
            Ask::On => words(Verb::Start),
            Ask::Off => words(Verb::Stop),
            Ask::Soft => words(Verb::Soft),
            Ask::Reset => words(Verb::Reboot),
            Ask::Diag => words(Verb::Diag),
            Ask::Identify { seconds: 0 } => words(Verb::Unblink),
            Ask::Identify { .. } => words(Verb::Blink),
            Ask::Bootdev { .. } => words(Verb::Boot),
            Ask::TryLogin => words(Verb::Test).or_else(|| words(Verb::Status)),
            Ask::SetPassword => words(Verb::Password),
        }
    }

    /// Whether the login is tried by an action of its own, so that it says nothing about the power.
    pub(super) fn has_test(&self) -> bool {
        self.actions.contains_key(&Verb::Test)
    }

    /// What hosts of this template can do.
    pub(super) fn capabilities(&self) -> Vec<Capability> {
        let has = |verb| self.actions.contains_key(&verb);
        [
            (has(Verb::Start) && has(Verb::Stop), Capability::Power),
            (has(Verb::Soft), Capability::Soft),
            (has(Verb::Reboot), Capability::Reset),
            (has(Verb::Diag), Capability::Diag),
            (has(Verb::Blink), Capability::Identify),
            (has(Verb::Boot), Capability::Bootdev),
            (has(Verb::Password), Capability::ChangePassword),
        ]
        .into_iter()
        .filter_map(|(can, capability)| can.then_some(capability))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use picket_common::config::parse;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        exec: BTreeMap<String, Template>,
    }

    fn read(text: &str) -> Result<Template, String> {
        let file: File = parse("agent.toml", text).map_err(|error| error.to_string())?;
        Ok(file.exec.into_values().next().unwrap())
    }

    const SEED: &str = "[exec.ilo]
program = \"/usr/local/bin/ilo\"
syntax = '$IPMI_EXEC --username $IPMI_Username --password-file $IPMI_password_file --command \"$IPMI_ACTION\" --host $IPMI_HOST'
actions = { status = \"status\", start = \"on\", stop = \"off\", reboot = \"reset\", blink = [\"led\", \"{seconds}\"], test = \"test\" }
";

    #[test]
    fn the_seeds_syntax_is_a_command_line_without_a_shell() {
        let seed = read(SEED).unwrap();
        let args = SEED.replace(
            &SEED.lines().nth(2).map(|line| format!("{line}\n")).unwrap(),
            "args = [\"--username\", \"{username}\", \"--password-file\", \"{password_file}\", \"--command\", \"{action}\", \"--host\", \"{host}\"]\n",
        );
        let plain = read(&args).unwrap();
        assert_eq!((seed.program, &seed.arguments), (plain.program, &plain.arguments));
        assert_eq!(seed.arguments.len(), 8);
        assert_eq!(seed.actions.len(), 6);
        let braces = "[exec.x]\nsyntax = '/bin/x {a}$IPMI_ACTION \"two words\"'\nactions.status = \"s\"\n";
        let braces = read(braces).unwrap();
        assert_eq!(braces.arguments[0], Text::read("{{a}}{action}", Place::Argument).unwrap());
        assert_eq!(braces.arguments[1], Text::read("two words", Place::Argument).unwrap());
    }

    #[test]
    fn capabilities_and_options() {
        let template = read(
            "[exec.vm]\nprogram = \"curl\"\nargs = [\"http://{host}/{action}?id={option:vm}\", \"--netrc-file\", \"{file:netrc}\"]\nfiles.netrc = \"machine {host} login {username} password {password}\"\nactions = { status = \"s\", start = \"1\", stop = \"0\", soft = \"2\", unblink = \"3\" }\nreading = { on_pattern = 'On', off_pattern = 'Off' }\n",
        )
        .unwrap();
        assert_eq!(template.options(), ["vm"]);
        assert_eq!(template.capabilities(), [Capability::Power, Capability::Soft]);
        assert!(template.action(Ask::Identify { seconds: 0 }).is_some() && template.action(Ask::Identify { seconds: 1 }).is_none());
        assert!(template.action(Ask::TryLogin).is_some(), "a reading tries the login as well");
        assert!(template.uses(&Slot::Password) && !template.uses(&Slot::PasswordFile));
        assert!(!template.can_prove);
    }

    #[test]
    fn a_fence_agent_needs_its_name_only() {
        let template =
            read("[exec.i]\nfence-agent = \"fence_ipmilan\"\nset = { lanplus = \"1\" }\nallow = [\"cipher\"]\n").unwrap();
        assert_eq!(template.program, PathBuf::from("fence_ipmilan"));
        assert_eq!(template.options(), ["cipher"]);
        assert!(template.action(Ask::Reset).is_none(), "its reboot is off and on, and may be cut short between");
        assert!(matches!(template.reading, Reading::Exit { ref on, ref off } if *on == [0] && *off == [2]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let start = "[exec.x]\nprogram = \"/bin/x\"\nargs = [\"{action}\"]\nactions.status = \"s\"\n";
        for (text, said) in [
            ("[exec.x]\nprogam = \"/bin/x\"\n".to_owned(), "agent.toml:2: unknown key `progam`; did you mean `program`?"),
            (format!("{start}actions.strat = \"on\"\n"), "unknown key `strat`; did you mean `start`?"),
            (format!("{start}reading = {{ on_exit = 0 }}\n"), "reading takes both of one kind"),
            (format!("{start}reading = {{ on_exit = 0, off_exit = [0, 2] }}\n"), "the same by on and off"),
            (format!("{start}reading = {{ on_pattern = '(', off_pattern = 'x' }}\n"), "not a regular expression"),
            (format!("{start}reading = {{ on_exit = \"0\", off_exit = 2 }}\n"), "an exit code or a list of exit codes"),
            (format!("{start}auth = {{ exit = 0 }}\n"), "exit code 0 is success"),
            (format!("{start}timeout = 0\n"), "timeout is 0; use 1 to 300"),
            (format!("{start}set = {{ a = \"b\" }}\n"), "for fence_agent only"),
            (format!("{start}files.password = \"x\"\n"), "made already"),
            (format!("{start}fence_agent = \"fence_x\"\n"), "either program and args, or syntax, or fence_agent"),
            ("[exec.x]\nprogram = \"/bin/x\"\nargs = [\"{action}\"]\n".into(), "actions.status is missing"),
            ("[exec.x]\nprogram = \"/bin/x\"\nargs = [\"a\"]\nactions.status = \"s\"\n".into(), "nothing has {action}"),
            (
                "[exec.x]\nprogram = \"bin/x\"\nargs = [\"{action}\"]\nactions.status = \"s\"\n".into(),
                "neither an absolute path nor",
            ),
            (
                "[exec.x]\nprogram = \"/bin/x\"\nargs = [\"{action}\", \"-P\", \"{password}\"]\nactions.status = \"s\"\n".into(),
                "read by every user",
            ),
            (
                "[exec.x]\nprogram = \"/bin/x\"\nargs = [\"{action}{file:a}\"]\nactions.status = \"s\"\n".into(),
                "files.a is missing",
            ),
            (SEED.replace("$IPMI_password_file", "$IPMI_password"), "would put the password on the command line"),
            (SEED.replace("$IPMI_HOST", "$HOME"), "$HOME means nothing here"),
            (SEED.replace("program = \"/usr/local/bin/ilo\"\n", ""), "say which program that is"),
            (SEED.replace("--host", "\"--host"), "a quote that does not end"),
            ("[exec.x]\nfence_agent = \"fence_x\"\nallow = [\"ip\"]\n".into(), "the host's own"),
            ("[exec.x]\nfence_agent = \"fence_x\"\nset = { \"a=b\" = \"c\" }\n".into(), "not the name of a fence agent's option"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with("agent.toml:") && error.contains(said), "{text}\n{error}");
        }
    }
}
