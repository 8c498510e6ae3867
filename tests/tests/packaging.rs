//! The packaged settings are true: the daemons take them as they are, and every default they show is the default.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use picket_tests::harness::program;
use picket_tests::peers::process::run;

fn packaged(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

/// What `check-config` says of a file; an error when it refuses it.
fn check_config(daemon: &str, file: &Path) -> Result<String> {
    let state = tempfile::tempdir()?;
    let mut command = Command::new(program(daemon)?);
    command.arg("check-config").arg("--config").arg(file).arg("--state-dir").arg(state.path());
    let output = run(&command, "")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A commented-out key: `# key = value`.
fn shown(line: &str) -> Option<&str> {
    let setting = line.strip_prefix("# ")?;
    let (key, _) = setting.split_once(" = ")?;
    key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then_some(setting)
}

/// What `check-config` says of the file with every commented-out key in force; and how many keys those are.
fn check_config_in_force(daemon: &str, file: &Path) -> Result<(String, usize)> {
    let text = std::fs::read_to_string(file)?;
    let settings: Vec<&str> = text.lines().map(|line| shown(line).unwrap_or(line)).collect();
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("settings.toml");
    std::fs::write(&copy, settings.join("\n"))?;
    let keys = text.lines().filter_map(shown).count();
    Ok((check_config(daemon, &copy).with_context(|| settings.join("\n"))?, keys))
}

#[test]
fn the_agent_takes_its_packaged_file() -> Result<()> {
    let file = packaged("agent.toml");
    let (in_force, keys) = check_config_in_force("picket-agent", &file)?;
    for said in [check_config("picket-agent", &file)?, in_force] {
        assert!(said.starts_with("configuration: ok\n"), "{said}");
    }
    assert_eq!(keys, 7, "every key of the agent is shown; templates of programs are examples");
    Ok(())
}

#[test]
fn the_aggregator_takes_its_packaged_file_and_shows_its_defaults() -> Result<()> {
    let file = packaged("aggregator.toml");
    let without_name = |text: String| text.lines().filter(|line| !line.starts_with("advertise")).map(String::from).collect();
    let as_it_is: Vec<String> = without_name(check_config("picket-aggregator", &file)?);
    let (in_force, keys) = check_config_in_force("picket-aggregator", &file)?;
    assert!(in_force.contains("advertise = \"picket.example.org\""), "{in_force}");
    assert_eq!(as_it_is, without_name(in_force) as Vec<String>);
    assert_eq!(keys, 7, "every key of the aggregator is shown");
    Ok(())
}

/// The examples among the comments: lines that are indented by three.
#[test]
fn the_examples_of_receivers_are_taken() -> Result<()> {
    let text = std::fs::read_to_string(packaged("aggregator.toml"))?;
    let examples = text.split_once("#   [[notify]]").context("no examples")?.1;
    let examples: Vec<&str> = examples.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("aggregator.toml");
    std::fs::write(&file, format!("[[notify]]\n{}", examples.join("\n")))?;
    let said = check_config("picket-aggregator", &file)?;
    for kind in ["email", "webhook", "alertmanager", "snmp", "exec"] {
        ensure!(said.contains(&format!("type = \"{kind}\"")), "{kind} is not in {said}");
    }
    Ok(())
}

/// What the notifications are numbered as in the MIB is what is sent.
#[test]
fn the_mib_numbers_what_is_sent() -> Result<()> {
    let mib = std::fs::read_to_string(packaged("PICKET-MIB.txt"))?;
    let numbered = |parent: &str| -> Vec<String> {
        let arc = format!("::= {{ {parent} ");
        let blocks = mib.match_indices(&arc).map(|(at, _)| (&mib[..at], &mib[at + arc.len()..]));
        let name = |before: &str| {
            let head = before.lines().rev().find(|line| line.contains("-TYPE") && !line.starts_with(' '));
            head.and_then(|line| line.split(' ').next()).unwrap_or_default().to_owned()
        };
        blocks.map(|(before, after)| format!("{} {}", after.split(' ').next().unwrap_or_default(), name(before))).collect()
    };
    assert_eq!(numbered("picketNotifications"), ["1 picketAlertFiring", "2 picketAlertResolved", "3 picketTest"]);
    let objects =
        ["Id", "Kind", "Severity", "Zone", "Cluster", "Host", "Agent", "Summary", "Starts", "Change", "Site", "Delivery", "Ends"];
    let wanted: Vec<String> = (1..)
        .zip(objects)
        .map(|(arc, name)| format!("{arc} picket{}{name}", if matches!(name, "Site" | "Delivery") { "" } else { "Alert" }))
        .collect();
    assert_eq!(numbered("picketObjects"), wanted);
    Ok(())
}

#[test]
fn a_key_that_is_none_is_refused() -> Result<()> {
    for (daemon, name) in [("picket-agent", "agent.toml"), ("picket-aggregator", "aggregator.toml")] {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join(name);
        std::fs::write(&file, format!("lisstn = 1\n{}", std::fs::read_to_string(packaged(name))?))?;
        let error = check_config(daemon, &file).err().context("taken")?.to_string();
        ensure!(error.contains(":1: unknown key `lisstn`"), "{error}");
    }
    Ok(())
}
