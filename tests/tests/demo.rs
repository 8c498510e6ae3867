//! `tests/demo` as a user runs it: shows what it promises, and Ctrl-C leaves nothing running.

#![expect(clippy::unwrap_used, reason = "the helper of a test fails as the test does")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use picket_tests::eventually::eventually;
use picket_tests::harness::program;
use picket_tests::peers::process::Process;
use rustix::process::Signal;

const PATIENCE: Duration = Duration::from_secs(120);

/// Processes whose command line names `folder`: all daemons of the demo are started with paths in it.
fn running_in(folder: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(folder)).collect()
}

#[test]
fn the_demo_shows_a_rack_and_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("demo.log");
    let mut command = Command::new(program("picket-demo").unwrap());
    command.env("TMPDIR", folder.path());
    let mut demo = Process::start(&command, &log).unwrap();
    demo.ready(PATIENCE, || {
        let text = fs::read_to_string(&log)?;
        anyhow::ensure!(text.contains("Ctrl-C ends it"), "{text}");
        Ok(())
    })
    .unwrap();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("all 96 hosts imported, enabled and shown as they really are"), "{text}");
    assert!(text.contains("by operation") && text.contains("seen by polling"), "{text}");
    assert!(text.contains("and nothing was sent") && text.contains("host status down"), "{text}");
    let here = folder.path().display().to_string();
    assert_eq!(running_in(&here).len(), 3, "an aggregator and two agents: {:?}", running_in(&here));

    demo.signal(Signal::INT).unwrap();
    eventually(PATIENCE, || {
        anyhow::ensure!(demo.exit_status()?.is_some_and(|status| status.success()), "still there");
        Ok(())
    })
    .unwrap();
    assert_eq!(running_in(&here), Vec::<String>::new());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["demo.log"], "the folder of the site is gone too");
}
