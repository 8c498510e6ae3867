//! The architecture, checked: which module may name which, and the one place each outside thing is named in.
//! Checks dependencies, not lengths; tests within the sources may name what they like.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use source::{Named, named, test_modules};

/// Modules that decide: memory only, no clock, no sockets, no files.
const PURE: [(&str, &[&str]); 2] =
    [("agent", &["bmc", "sign", "observe", "rack", "ipmi", "redfish"]), ("aggregator", &["fleet", "ingest", "authorise"])];

/// Crates that a pure module may name: they compute, and nothing else.
const PURE_CRATES: [&str; 20] = [
    "aes",
    "base64",
    "bytes",
    "cbc",
    "core",
    "crate",
    "hex",
    "hmac",
    "imbl",
    "ipmi_rs_core",
    "jiff",
    "picket_common",
    "serde",
    "serde_json",
    "sha1",
    "sha2",
    "std",
    "subtle",
    "thiserror",
    "zeroize",
];

/// What `common` may name besides; of `rustls` and `x509_parser` it takes the judging of certificates, no connection.
const COMMON_CRATES: [&str; 9] = ["hpke", "postcard", "rand_core", "ring", "rustls", "strsim", "toml", "uuid", "x509_parser"];

/// What no pure code may name, wherever it comes from: sockets, files, processes, threads, clocks, randomness.
const WORLD: [&str; 18] = [
    "std::env",
    "std::fs",
    "std::io::stdin",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "ring::rand",
    "uuid::Uuid::now_v7",
    "uuid::Uuid::new_v4",
    "tokio",
];

/// Modules in which the parts meet: they may name all of their crate.
const WIRING: [(&str, &[&str]); 2] = [("agent", &["main", "run", ""]), ("aggregator", &["main", "run", "daemon", "init", ""])];

/// Modules of values that every part of the shell may name.
const COMMON_GROUND: [(&str, &[&str]); 2] = [("agent", &["clock"]), ("aggregator", &["clock", "context"])];

/// The only edges between modules of the shell, each with its reason.
const EDGES: [(&str, &str, &str, &str); 18] = [
    ("agent", "work", "driver", "acting is handing jobs to drivers"),
    ("agent", "check", "driver", "its programs are run as drivers run theirs"),
    ("agent", "check", "stamps", "storage that hangs is looked at in one place"),
    ("agent", "check", "tls", "whose certificate a witness must have"),
    ("agent", "config", "check", "what a check's section holds is for checks to say"),
    ("agent", "config", "witness", "what a witness's section holds is for the witness to say"),
    ("agent", "witness", "stamps", "storage that hangs is looked at in one place"),
    ("agent", "witness", "tls", "whose certificate a caller must have"),
    ("agent", "config", "driver", "the rule for BMC addresses is the file's; drivers obey it"),
    ("agent", "uplink", "journal", "it reads the outbox, which only the core writes"),
    ("agent", "join", "identity", "joining makes the identity"),
    ("agent", "tls", "identity", "the TLS settings are made of the identity"),
    ("aggregator", "gate", "broker", "it seats connections there"),
    ("aggregator", "gate", "pki", "who a certificate names is read in one place"),
    ("aggregator", "api", "pki", "joins are signed and tokens are told by the authority"),
    ("aggregator", "publish", "broker", "it publishes there"),
    ("aggregator", "notify", "config", "a way out is made of its section of the settings"),
    ("aggregator", "api", "notify", "it shows receivers and tries them"),
];

/// The one place of each outside thing: (crates, path, where).
const PLACES: [(&[&str], &str, &[&str]); 19] = [
    (&["agent", "aggregator"], "redb", &["agent/src/journal/", "aggregator/src/store/"]),
    (&["agent", "aggregator"], "rumqttc", &["agent/src/uplink.rs", "aggregator/src/broker/"]),
    (&["agent", "aggregator"], "rumqttd", &["aggregator/src/broker/"]),
    (&["agent", "aggregator"], "axum", &["aggregator/src/api/"]),
    (&["agent", "aggregator"], "axum_server", &["aggregator/src/daemon/"]),
    (
        &["agent", "aggregator"],
        "reqwest",
        &[
            "agent/src/driver/redfish/",
            "agent/src/join.rs",
            "aggregator/src/client/",
            "aggregator/src/bin/picketctl/",
            "aggregator/src/notify/",
            "aggregator/src/config/",
        ],
    ),
    (&["aggregator"], "lettre", &["aggregator/src/notify/", "aggregator/src/config/"]),
    (&["aggregator"], "async_snmp", &["aggregator/src/notify/", "aggregator/src/config/"]),
    (&["agent"], "hyper", &["agent/src/check/", "agent/src/witness/"]),
    (&["agent"], "std::net::UdpSocket", &["agent/src/driver/", "agent/src/check/"]),
    (&["agent"], "std::net::TcpStream", &["agent/src/driver/"]),
    (&["agent"], "tokio::net", &["agent/src/driver/", "agent/src/check/", "agent/src/witness/"]),
    (&["agent"], "socket2", &["agent/src/driver/", "agent/src/check/"]),
    (&["agent"], "ipmi_rs", &["agent/src/driver/open.rs"]),
    (&["agent", "aggregator"], "jiff::Timestamp::now", &["agent/src/clock.rs", "aggregator/src/clock.rs"]),
    (&["agent", "aggregator"], "std::time::Instant::now", &["agent/src/clock.rs", "aggregator/src/clock.rs"]),
    (&["agent", "aggregator"], "tokio::time::Instant::now", &["agent/src/clock.rs", "aggregator/src/clock.rs"]),
    (&["agent", "aggregator"], "std::time::SystemTime::now", &["agent/src/clock.rs", "aggregator/src/clock.rs"]),
    (&["agent", "aggregator"], "rustix::time", &["agent/src/clock.rs", "aggregator/src/clock.rs"]),
];

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

/// Whether `path` is `prefix` or lies in it.
fn lies_in(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn listed(table: &[(&str, &'static [&'static str])], package: &str) -> &'static [&'static str] {
    table.iter().find(|(name, _)| *name == package).map_or(&[], |(_, modules)| modules)
}

/// The module of the crate's root that a path leads into: `crate::rack::Event` → `rack`; a name of the root itself is none.
fn module_in<'a>(path: &'a str, modules: &BTreeSet<String>) -> Option<&'a str> {
    path.strip_prefix("crate::")?.split("::").next().filter(|module| modules.contains(*module))
}

fn root_module(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    let name = first.strip_suffix(".rs").unwrap_or(first);
    if name == "lib" { "" } else { name }
}

/// Whether a first segment can only be a crate: a lower-case name that is no primitive type.
fn crate_of(path: &str) -> Option<&str> {
    let first = path.split("::").next()?;
    let lower = first.starts_with(|c: char| c.is_ascii_lowercase()) && first.contains(|c: char| c.is_ascii_lowercase());
    let primitive = matches!(first, "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize");
    (lower && !primitive && !matches!(first, "str" | "char" | "bool" | "f32" | "f64")).then_some(first)
}

/// One source file of a package.
struct Source<'a> {
    package: &'a str,
    /// Within `src`, with `/`.
    file: &'a str,
    text: &'a str,
    /// All modules of the crate's root.
    modules: &'a BTreeSet<String>,
}

impl Source<'_> {
    fn faults(&self) -> Vec<Fault> {
        let named = named(Path::new(self.file), self.text);
        let whole = format!("{}/src/{}", self.package, self.file);
        let found = named.iter().flat_map(|named| self.rules_broken(&whole, named).into_iter().map(move |rule| (named, rule)));
        found.map(|(named, rule)| Fault { file: whole.clone(), line: named.line, rule }).collect()
    }

    fn rules_broken(&self, whole: &str, named: &Named) -> Vec<String> {
        let module = root_module(self.file);
        let path = &named.path;
        let mut rules = Vec::new();
        if self.package == "common" {
            rules.extend(self.purity(path, "common", &[&PURE_CRATES[..], &COMMON_CRATES].concat()));
        } else if listed(&PURE, self.package).contains(&module) {
            rules.extend(self.purity(path, module, &PURE_CRATES));
            rules.extend(self.pure_edge(path, module));
        } else if !self.file.starts_with("bin/") {
            rules.extend(self.shell_edge(path, module));
        }
        rules.extend(self.daemon_edge(path));
        rules.extend(self.place(path, whole));
        rules
    }

    /// Rules 2 and 3: pure code names no part of the world, and no crate that might.
    fn purity(&self, path: &str, module: &str, crates: &[&str]) -> Option<String> {
        if WORLD.iter().any(|world| lies_in(path, world)) {
            return Some(format!("`{module}` is pure, so it must not name `{path}`: hand it in as a value"));
        }
        // `uuid` is a value on the wire; the two ways to make one are refused above.
        let name = crate_of(path)?;
        let local = self.modules.contains(name) || !self.is_crate(name);
        (!local && !crates.contains(&name) && name != "uuid")
            .then(|| format!("`{module}` is pure, so it must not name crate `{name}`"))
    }

    /// A lower-case first segment is a crate when some Cargo.toml of ours names it; else a module or variable here.
    fn is_crate(&self, name: &str) -> bool {
        dependencies().contains(name) || matches!(name, "std" | "core" | "alloc")
    }

    /// Rule 3: pure modules import only pure modules.
    fn pure_edge(&self, path: &str, module: &str) -> Option<String> {
        let to = module_in(path, self.modules)?;
        let pure = listed(&PURE, self.package);
        (!pure.contains(&to)).then(|| format!("`{module}` is pure, so it must not name `{path}`: `{to}` is not"))
    }

    /// Rule 4: modules of the shell meet in the wiring, not in one another.
    fn shell_edge(&self, path: &str, module: &str) -> Option<String> {
        let to = module_in(path, self.modules)?;
        let free = [PURE, COMMON_GROUND].iter().any(|table| listed(table, self.package).contains(&to));
        let wired = listed(&WIRING, self.package).contains(&module) || to == module || free;
        // Common ground itself stands on pure modules and on itself only.
        let edge = EDGES.iter().any(|(package, from, onto, _)| (*package, *from, *onto) == (self.package, module, to));
        (!wired && !edge).then(|| format!("`{module}` must not name `{path}`: modules of the shell meet in `run`"))
    }

    /// Rule 1, in the sources: neither daemon names the other, `common` names neither.
    fn daemon_edge(&self, path: &str) -> Option<String> {
        let name = crate_of(path)?;
        let other = matches!(name, "picket_agent" | "picket_aggregator" | "picket_tests");
        let own = name.strip_prefix("picket_") == Some(self.package);
        (other && !own).then(|| format!("`{}` must not name crate `{name}`", self.package))
    }

    /// Rule 5: each outside thing has one place.
    fn place(&self, path: &str, whole: &str) -> Option<String> {
        let (_, thing, places) = PLACES.iter().find(|(packages, thing, places)| {
            let here = places.iter().any(|place| whole == *place || (place.ends_with('/') && whole.starts_with(place)));
            packages.contains(&self.package) && lies_in(path, thing) && !here
        })?;
        Some(format!("`{thing}` must be named only in {}", places.join(", ")))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifest(package: &str) -> toml::Table {
    let path = root().join(package).join("Cargo.toml");
    std::fs::read_to_string(&path).unwrap().parse().unwrap()
}

/// Names of the crates a section of a package's manifest asks for, as sources spell them.
fn asked_for(package: &str, section: &str) -> Vec<String> {
    let manifest = manifest(package);
    let section = manifest.get(section).and_then(toml::Value::as_table);
    section.map(|section| section.keys().map(|name| name.replace('-', "_")).collect()).unwrap_or_default()
}

const PACKAGES: [&str; 4] = ["common", "agent", "aggregator", "tests"];

fn dependencies() -> &'static BTreeSet<String> {
    static ALL: std::sync::OnceLock<BTreeSet<String>> = std::sync::OnceLock::new();
    let sections = ["dependencies", "dev-dependencies"];
    ALL.get_or_init(|| {
        PACKAGES.iter().flat_map(|package| sections.iter().flat_map(|section| asked_for(package, section))).collect()
    })
}

/// All `.rs` files beneath a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let below = paths.into_iter().flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    below.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// A package's sources that are not tests: (within `src`, text).
fn sources(package: &str) -> Vec<(String, String)> {
    let folder = root().join(package).join("src");
    let all: Vec<(PathBuf, String)> =
        files(&folder).into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect();
    let tests: Vec<PathBuf> = all
        .iter()
        .flat_map(|(path, text)| test_modules(text).into_iter().map(|name| path.with_file_name(name)).collect::<Vec<_>>())
        .collect();
    let is_test = |path: &Path| tests.iter().any(|test| path.with_extension("") == *test || path.starts_with(test));
    let kept = all.into_iter().filter(|(path, _)| !is_test(path));
    kept.map(|(path, text)| (path.strip_prefix(&folder).unwrap().to_string_lossy().into_owned(), text)).collect()
}

fn modules(sources: &[(String, String)]) -> BTreeSet<String> {
    let here = sources.iter().map(|(file, _)| root_module(file));
    here.filter(|module| !matches!(*module, "" | "main" | "bin")).map(String::from).collect()
}

#[test]
fn every_module_names_only_what_it_may() {
    let mut faults = Vec::new();
    for package in ["common", "agent", "aggregator"] {
        let sources = sources(package);
        let modules = modules(&sources);
        assert!(sources.len() > 10, "{package}: the sources were not found");
        for (file, text) in &sources {
            faults.extend(Source { package, file, text, modules: &modules }.faults());
        }
    }
    let told: Vec<String> = faults.iter().map(Fault::to_string).collect();
    assert!(told.is_empty(), "\n{}", told.join("\n"));
}

#[test]
fn the_daemons_do_not_depend_on_each_other() {
    for (package, others) in [
        ("common", &["picket_agent", "picket_aggregator", "picket_tests", "tokio", "rustix", "getrandom", "reqwest"][..]),
        ("agent", &["picket_aggregator", "picket_tests"]),
        ("aggregator", &["picket_agent", "picket_tests"]),
    ] {
        let asked = [asked_for(package, "dependencies"), asked_for(package, "dev-dependencies")].concat();
        assert!(!asked.is_empty());
        let wrong: Vec<_> = asked.iter().filter(|name| others.contains(&name.as_str())).collect();
        assert!(wrong.is_empty(), "{package}/Cargo.toml must not ask for {wrong:?}");
    }
}

#[test]
fn every_dependency_is_named_by_a_source() {
    let unused: Vec<String> = PACKAGES.iter().flat_map(|package| unused_dependencies(package)).collect();
    assert!(unused.is_empty(), "\n{}", unused.join("\n"));
}

fn unused_dependencies(package: &str) -> Vec<String> {
    let src = crates_named(&root().join(package).join("src"));
    let tests = crates_named(&root().join(package).join("tests"));
    let unnamed = asked_for(package, "dependencies").into_iter().filter(|name| !src.contains(name));
    let needless = asked_for(package, "dev-dependencies").into_iter().filter(|name| !src.contains(name) && !tests.contains(name));
    let hint = |name: &String| if tests.contains(name) { ", only tests do: it belongs to dev-dependencies" } else { "" };
    let told = unnamed.map(|name| format!("{package}/Cargo.toml: no source names `{name}`{}", hint(&name)));
    told.chain(needless.map(|name| format!("{package}/Cargo.toml: no test names `{name}`"))).collect()
}

/// Every word before a `::` beneath a folder.
fn crates_named(folder: &Path) -> BTreeSet<String> {
    let texts = files(folder).into_iter().map(|file| std::fs::read_to_string(file).unwrap());
    texts.flat_map(|text| text.split("::").map(last_word).collect::<Vec<_>>()).collect()
}

fn last_word(text: &str) -> String {
    let start = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    text.get(start..).unwrap_or_default().to_owned()
}

#[test]
fn every_exception_is_still_needed() {
    let unused = EDGES.iter().filter(|(package, from, to, reason)| {
        assert!(!reason.is_empty());
        let sources = sources(package);
        let modules = modules(&sources);
        !sources
            .iter()
            .filter(|(file, _)| root_module(file) == *from)
            .any(|(file, text)| named(Path::new(file), text).iter().any(|named| module_in(&named.path, &modules) == Some(to)))
    });
    let unused: Vec<_> = unused.map(|(package, from, to, _)| format!("{package}: {from} → {to}")).collect();
    assert!(unused.is_empty(), "no source needs these edges: {unused:?}");
}

mod checker {
    use super::*;

    /// The rules that `text` as file `file` breaks, with the line.
    fn broken(package: &str, file: &str, text: &str) -> Vec<String> {
        let modules =
            ["rack", "bmc", "clock", "journal", "uplink", "work", "driver", "run", "gate", "store", "fleet", "ipmi", "api"];
        let modules = modules.into_iter().map(String::from).collect();
        Source { package, file, text, modules: &modules }.faults().iter().map(Fault::to_string).collect()
    }

    #[test]
    fn pure_modules_are_held_to_it() {
        for (text, wanted) in [
            ("\nuse tokio::sync::mpsc;", "agent/src/rack/host.rs:2: `rack` is pure, so it must not name `tokio::sync::mpsc`"),
            ("use std::{fmt, fs::File};", "agent/src/rack/host.rs:1: `rack` is pure, so it must not name `std::fs::File`"),
            ("use std::net::{\n    IpAddr,\n    UdpSocket,\n};", "`std::net::UdpSocket`"),
            ("fn f() { std::process::exit(1) }", "`std::process::exit`"),
            ("use crate::clock;", "`crate::clock`"),
            ("use super::super::clock;", "`crate::clock`"),
            ("use super::{mod_local, super::{clock as time}};", "`crate::clock`"),
            ("fn f() { crate::journal::open() }", "`crate::journal::open`"),
            ("use reqwest::Client;", "must not name crate `reqwest`"),
            ("use rustix::time::ClockId;", "must not name crate `rustix`"),
            ("let id = uuid::Uuid::new_v4();", "`uuid::Uuid::new_v4`"),
        ] {
            let told = broken("agent", "rack/host.rs", text);
            assert!(told.iter().any(|told| told.contains(wanted)), "{text}: {told:?}");
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        for text in [
            "use std::net::{IpAddr, SocketAddr};\nuse picket_common::id::HostId;\nuse crate::bmc::Bmc;\nuse super::Event;",
            "// use tokio::sync;\n/* use std::fs; */ const A: &str = \"use tokio::x\"; const B: char = '\"'; fn f<'a>(x: &'a str) {}",
            "const RAW: &str = r#\"tokio::spawn(\"x\")\"#;",
            "#[cfg(test)]\nmod tests {\n    use tokio::time;\n    fn f() { if true { std::fs::read() } }\n}\n",
            "#[cfg(test)]\nuse crate::clock;\n",
            "fn f() { u64::try_from(1); journal::x(); Self::new() }",
        ] {
            assert_eq!(broken("agent", "rack/host.rs", text), Vec::<String>::new(), "{text}");
        }
        assert_eq!(broken("agent", "work.rs", "use crate::driver::Driver;\nuse crate::clock;"), Vec::<String>::new());
        assert_eq!(broken("agent", "run.rs", "use crate::uplink::Uplink;"), Vec::<String>::new());
    }

    #[test]
    fn what_follows_a_test_still_counts() {
        let told = broken("agent", "rack/host.rs", "#[cfg(test)]\nfn f() { }\nuse tokio::sync;\n");
        assert!(told.iter().any(|told| told.starts_with("agent/src/rack/host.rs:3: ")), "{told:?}");
    }

    #[test]
    fn shell_modules_do_not_meet() {
        for (package, file, text) in [
            ("agent", "uplink.rs", "use crate::work::Work;"),
            ("agent", "driver/mod.rs", "use super::journal::Journal;"),
            ("aggregator", "gate/read.rs", "use crate::store::Store;"),
            ("aggregator", "api/mod.rs", "fn f() { crate::store::open() }"),
        ] {
            let told = broken(package, file, text);
            assert!(told.iter().any(|told| told.contains("modules of the shell meet in `run`")), "{file} {text}: {told:?}");
        }
    }

    #[test]
    fn outside_things_have_their_place() {
        for (package, file, text) in [
            ("agent", "run.rs", "use redb::Database;"),
            ("agent", "run.rs", "use rumqttc::QoS;"),
            ("aggregator", "gate/mod.rs", "use rumqttd::Broker;"),
            ("agent", "run.rs", "let now = jiff::Timestamp::now();"),
            ("agent", "run.rs", "use jiff::Timestamp;\nlet now = Timestamp::now();"),
            ("agent", "run.rs", "use std::time::{Duration, Instant as Clock};\nlet now = Clock::now();"),
            ("aggregator", "run.rs", "use axum::http::StatusCode;"),
            ("agent", "uplink.rs", "use std::net::UdpSocket;"),
        ] {
            let told = broken(package, file, text);
            assert!(told.iter().any(|told| told.contains("must be named only in")), "{file} {text}: {told:?}");
        }
        assert_eq!(broken("agent", "journal/mod.rs", "use redb::Database;"), Vec::<String>::new());
    }

    #[test]
    fn no_daemon_names_the_other() {
        assert_eq!(broken("agent", "run.rs", "use picket_aggregator::fleet;").len(), 1);
        assert_eq!(broken("common", "power.rs", "use picket_agent::bmc;").len(), 1);
        assert_eq!(broken("aggregator", "bin/picketctl/op.rs", "use picket_aggregator::clock;"), Vec::<String>::new());
    }
}
