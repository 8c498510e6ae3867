//! Driver `exec`: runs a program of this machine by a template of the agent's own file, or any fence agent.
//!
//! The centre only names a template; what runs, with which words, is the agent's own file's alone. Values that come from the
//! centre stay values: no shell, no option, no file name is made of them.

mod template;
mod text;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use picket_common::driver::Descriptor;
pub use picket_common::driver::EXEC as DESCRIPTOR;
use picket_common::facts::Facts;
use picket_common::id::HostId;
use picket_common::secret::Secret;
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::sync::watch;

pub use self::template::Template;
use self::template::{Input, Reading as Mapping, Signs};
use self::text::{NEW_PASSWORD_FILE, PASSWORD_FILE, Slot, Text, Values, clean, plain_option};
use super::Completions;
use super::address::AllowedNetworks;
use super::failure::Failure;
use super::process::{Ended, Exit, PrivateFile, Runner};
use super::program::{Call, Programs, Recipe, Turn};
use crate::bmc::{Answer, Ask, Bmc, ErrorClass, NOT_SUPPORTED, PowerReply, Reading};

/// The one option that every template has.
const TEMPLATE: &str = "template";

/// `[exec.NAME]` of the agent's own file, by name.
pub type Templates = BTreeMap<String, Template>;

/// The driver.
pub type Exec = Programs<Catalogue>;

/// The templates and how they are run.
pub struct Catalogue {
    templates: watch::Receiver<Arc<Templates>>,
}

impl Exec {
    /// A driver that answers into `completions`. The templates may change: a job keeps to those that it began with.
    #[must_use]
    pub fn new(
        completions: Completions,
        templates: watch::Receiver<Arc<Templates>>,
        allowed: AllowedNetworks,
        runner: Arc<Runner>,
        handle: Handle,
    ) -> Self {
        Self::with(Catalogue { templates }, runner, allowed, completions, handle)
    }
}

/// The program of each template, by its name: for those who check whether it is there.
pub fn programs(templates: &Templates) -> impl Iterator<Item = (&str, &PathBuf)> {
    templates.iter().map(|(name, template)| (name.as_str(), &template.program))
}

impl Recipe for Catalogue {
    const DESCRIPTOR: &'static Descriptor = &DESCRIPTOR;

    fn can_prove(&self, bmc: &Bmc) -> bool {
        template(&self.templates(), bmc).is_ok_and(|(_, template)| template.can_prove)
    }

    async fn serve(&self, turn: &mut Turn<'_>) -> Result<Answer, Failure> {
        let templates = self.templates();
        let (name, template) = template(&templates, turn.bmc())?;
        check_options(name, template, turn.bmc())?;
        let action = template.action(turn.ask()).ok_or_else(|| {
            let text = format!("template {name} has no action for {:?}", turn.ask());
            Failure::new(ErrorClass::Refused, NOT_SUPPORTED, text)
        })?;
        let at = turn.address(&DESCRIPTOR, template.port.unwrap_or_default()).await?;
        let call = call(template, turn, at, action)?;
        let ended = turn.run(call).await?;
        let secrets = [turn.bmc().password.expose().as_str(), new_password(turn)];
        judge(template, turn.ask(), &ended, &secrets).map(|answer| match answer {
            Answer::Reading(reading) if turn.ask() == Ask::Inspect => Answer::Facts(Box::new(facts(name, template)), reading),
            answer => answer,
        })
    }

    /// Nothing is remembered.
    fn forget(&self, _host: &HostId) {}
}

impl Catalogue {
    fn templates(&self) -> Arc<Templates> {
        Arc::clone(&self.templates.borrow())
    }
}

fn template<'a>(templates: &'a Templates, bmc: &Bmc) -> Result<(&'a str, &'a Template), Failure> {
    let names = || match templates.is_empty() {
        true => "the agent's own file has no [exec.NAME]".to_owned(),
        false => format!("the agent's own file has {}", templates.keys().cloned().collect::<Vec<_>>().join(", ")),
    };
    let Some(name) = bmc.options.get(TEMPLATE).map(|name| name.trim()).filter(|name| !name.is_empty()) else {
        return Err(Failure::setting("template-missing", format!("option `{TEMPLATE}` is missing; {}", names())));
    };
    let found = templates.get_key_value(name).map(|(name, template)| (name.as_str(), template));
    found.ok_or_else(|| Failure::setting("unknown-template", format!("there is no template {name:?}; {}", names())))
}

fn check_options(name: &str, template: &Template, bmc: &Bmc) -> Result<(), Failure> {
    let known = template.options();
    let Some(unknown) = bmc.options.keys().find(|option| *option != TEMPLATE && !known.contains(&option.as_str())) else {
        return Ok(());
    };
    let known: Vec<&str> = std::iter::once(TEMPLATE).chain(known).collect();
    let text = format!("unknown option {unknown:?}; template {name} knows {}", known.join(", "));
    Err(Failure::setting("unknown-option", text))
}

fn new_password<'a>(turn: &Turn<'a>) -> &'a str {
    turn.job().new_password.as_ref().map_or("", |password| password.expose().as_str())
}

/// The program with everything filled in.
fn call<'a>(template: &'a Template, turn: &Turn<'_>, at: SocketAddr, action: &[Text]) -> Result<Call<'a>, Failure> {
    let nothing = BTreeMap::new();
    let values = Values {
        bmc: turn.bmc(),
        at,
        port: turn.bmc().port.or(template.port),
        ask: turn.ask(),
        action: &[],
        new_password: new_password(turn),
        files: &nothing,
    };
    let words: Result<Vec<String>, Failure> = action.iter().map(|word| Ok(word.fill(&values)?.expose().clone())).collect();
    let words = words?;
    let values = Values { action: &words, ..values };
    let files = files(template, &values)?;
    let paths: BTreeMap<String, String> = files.iter().map(|(name, file)| (name.clone(), file.path())).collect();
    let values = Values { files: &paths, ..values };
    let mut arguments = Vec::new();
    for argument in &template.arguments {
        if argument.is_action() {
            arguments.extend_from_slice(&words);
        } else {
            arguments.push(argument.fill_argument(&values)?);
        }
    }
    let input = match &template.input {
        Input::Text(text) => text.fill(&values)?.expose().as_bytes().to_vec(),
        Input::Fence { set, allow } => fence_lines(set, allow, &values)?,
    };
    Ok(Call {
        path: &template.program,
        arguments,
        input: Secret::new(input),
        files: files.into_values().collect(),
        farewell: Signal::TERM,
        carries_order: true,
        limit: template.limit,
    })
}

/// The private files that the template's texts name.
fn files(template: &Template, values: &Values<'_>) -> Result<BTreeMap<String, PrivateFile>, Failure> {
    let mut texts = Vec::new();
    if template.uses(&Slot::PasswordFile) {
        texts.push((PASSWORD_FILE, Secret::new(clean("password", values.bmc.password.expose())? + "\n")));
    }
    if template.uses(&Slot::NewPasswordFile) {
        texts.push((NEW_PASSWORD_FILE, Secret::new(clean("new password", values.new_password)? + "\n")));
    }
    for (name, text) in &template.files {
        texts.push((name, text.fill(values)?));
    }
    let file = |(name, text): (&str, Secret<String>)| {
        let made = PrivateFile::new(text.expose().as_bytes());
        made.map(|file| (name.to_owned(), file))
            .map_err(|cause| Failure::setting("no-private-file", format!("no private file can be made: {cause}")))
    };
    texts.into_iter().map(file).collect()
}

/// What a fence agent reads: one `name=value` a line.
fn fence_lines(set: &BTreeMap<String, String>, allow: &[String], values: &Values<'_>) -> Result<Vec<u8>, Failure> {
    let mut lines = Vec::with_capacity(512);
    let mut line = |name: &str, value: &str| {
        for part in [name, "=", value, "\n"] {
            lines.extend_from_slice(part.as_bytes());
        }
    };
    line("action", &values.action.join(" "));
    line("ip", &values.at.ip().to_string());
    if let Some(port) = values.port {
        line("ipport", &port.to_string());
    }
    if !values.bmc.username.is_empty() {
        line("username", &shielded(&clean("username", &values.bmc.username)?));
    }
    if !values.bmc.password.expose().is_empty() {
        line("password", Secret::new(shielded(&clean("password", values.bmc.password.expose())?)).expose());
    }
    for (name, value) in set {
        line(name, value);
    }
    for name in allow.iter().filter(|name| values.bmc.options.contains_key(*name)) {
        line(name, &plain_option(values.bmc, name)?);
    }
    Ok(lines)
}

/// Fence agents strip a value of spaces around it and of one pair of quotes: a value with either gets a pair of its own.
fn shielded(value: &str) -> String {
    let bare = value.trim() == value && !(value.starts_with('"') && value.ends_with('"'));
    if bare { value.to_owned() } else { format!("\"{value}\"") }
}

/// What the program's end says.
fn judge(template: &Template, ask: Ask, ended: &Ended, secrets: &[&str]) -> Result<Answer, Failure> {
    let said = || ended.words(secrets);
    let reads = matches!(ask, Ask::Status | Ask::Inspect) || (ask == Ask::TryLogin && !template.has_test());
    if reads && let Some(reading) = reading(&template.reading, ended) {
        return Ok(if ask == Ask::TryLogin { Answer::Done } else { Answer::Reading(reading) });
    }
    if ended.exit == Exit::Code(0) {
        return match ask {
            _ if reads => {
                let text = format!("the program said neither on nor off: {}", said());
                Err(Failure::protocol("neither-on-nor-off", text))
            }
            Ask::On | Ask::Off | Ask::Soft | Ask::Reset | Ask::Diag => Ok(Answer::Power(PowerReply::Accepted)),
            _ => Ok(Answer::Done),
        };
    }
    let how = match ended.exit {
        Exit::Code(code) => format!("exit-{code}"),
        Exit::Signal(signal) => format!("signal-{signal}"),
    };
    let is_power = matches!(ask, Ask::On | Ask::Off | Ask::Soft | Ask::Reset | Ask::Diag);
    if shows(&template.auth, ended) {
        return Err(Failure::new(ErrorClass::Auth, how, format!("the login was refused: {}", said())));
    }
    if is_power && shows(&template.already, ended) {
        return Ok(Answer::Power(PowerReply::NotInThisState));
    }
    // A program does not say how far it came.
    let maybe_sent = !matches!(ask, Ask::Status | Ask::Inspect | Ask::TryLogin);
    Err(Failure { maybe_sent, ..Failure::connection(how.clone(), format!("the program failed ({how}): {}", said())) })
}

/// On or Off, if exactly one of them is told.
fn reading(mapping: &Mapping, ended: &Ended) -> Option<Reading> {
    let Exit::Code(code) = ended.exit else { return None };
    let (on, off) = match mapping {
        Mapping::Exit { on, off } => (on.contains(&code), off.contains(&code)),
        _ if code != 0 => return None,
        Mapping::Output { on, off } => {
            let said = ended.out.trim();
            (on.iter().any(|words| words.trim() == said), off.iter().any(|words| words.trim() == said))
        }
        Mapping::Pattern { on, off } => (on.is_match(&ended.out), off.is_match(&ended.out)),
    };
    match (on, off) {
        (true, false) => Some(Reading::On),
        (false, true) => Some(Reading::Off),
        _ => None,
    }
}

fn shows(signs: &Signs, ended: &Ended) -> bool {
    let by_exit = matches!(ended.exit, Exit::Code(code) if signs.exit.contains(&code));
    by_exit || signs.pattern.as_ref().is_some_and(|pattern| pattern.is_match(&ended.err) || pattern.is_match(&ended.out))
}

fn facts(name: &str, template: &Template) -> Facts {
    let program = template.program.file_name().unwrap_or_default().to_string_lossy();
    let facts =
        Facts { protocol: Some(format!("exec {name} ({program})")), capabilities: template.capabilities(), ..Facts::default() };
    facts.bounded()
}

#[cfg(test)]
mod tests;
