//! Hosts that hang, with whole daemons: fenced step by step, or left alone, each with its reason; and fenced without the aggregator.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use picket_tests::eventually::{all_the_while, eventually};
use picket_tests::harness::Site;
use picket_tests::watched::{PATIENCE, QUICK, Watched};

fn quick(ipmi: usize, redfish: usize) -> Watched {
    let own = "[check.slow]\nprogram = \"sleep\"\nargs = [\"30\"]\n";
    Watched::set_with(Site::start_with("[oobm]\nsync_interval = 2\n").unwrap(), ipmi, redfish, &QUICK, own)
}

fn names(rack: &Watched) -> Vec<String> {
    rack.bmcs().iter().map(|bmc| bmc.name().to_owned()).collect()
}

/// The states that a host went through, oldest first, each with its reason.
fn story(rack: &Watched, host: &str) -> Vec<(String, String)> {
    let history = rack.site.json(&["history", host, "--limit", "1000"]).unwrap();
    let lines = history.as_array().unwrap().iter().rev().filter(|line| line["kind"] == "ha");
    let text = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let mut story: Vec<(String, String)> = lines.map(|line| (text(line, "new"), text(line, "why"))).collect();
    story.dedup_by(|next, before| next.0 == before.0);
    story
}

fn states(rack: &Watched, host: &str) -> Vec<String> {
    story(rack, host).into_iter().map(|(state, _)| state).collect()
}

/// A file of a host's, written ten times a second while this lives.
struct Writer {
    goes_on: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Writer {
    fn start(file: PathBuf) -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        let until = Arc::clone(&goes_on);
        let thread = std::thread::spawn(move || {
            let mut turn = 0_u64;
            while until.load(Ordering::Relaxed) {
                turn += 1;
                std::fs::write(&file, turn.to_string()).unwrap();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { goes_on, thread: Some(thread) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn disk(folder: &Path, host: &str) -> PathBuf {
    let file = folder.join(host);
    std::fs::write(&file, "0").unwrap();
    file
}

#[test]
fn a_hung_host_is_fenced_and_those_that_write_or_cannot_be_told_are_not() {
    let mut rack = quick(3, 2);
    let [hung, writing, slow, paused, well] = &names(&rack)[..] else { panic!("five hosts") };
    let folder = rack.site.path("vm");
    std::fs::create_dir_all(&folder).unwrap();
    for host in [hung, writing, paused] {
        let activity = format!("activity=files:{}", disk(&folder, host).display());
        rack.ok(&["ha", "set", "host", host, &activity]);
    }
    rack.ok(&["ha", "set", "host", slow, "activity=exec:slow"]);
    let _writer = Writer::start(folder.join(writing));
    rack.ok(&["ha", "pause", "host", paused, "--for", "1h", "--reason", "PDU"]);
    for host in [hung, writing, slow, paused] {
        rack.living.kill(host).unwrap();
    }

    rack.until_ha(hung, "fenced", "down");
    let story = story(&rack, hung);
    let wanted = ["suspect", "checking", "recovering", "fencing", "fenced"];
    assert_eq!(story.iter().rev().take(5).rev().map(|(state, _)| state.as_str()).collect::<Vec<_>>(), wanted, "{story:?}");
    assert!(story.iter().all(|(_, why)| !why.is_empty()), "{story:?}");
    let bmc = rack.bmc(hung);
    assert_eq!((bmc.is_on(), bmc.orders("reset"), bmc.orders("off")), (false, 1, 1));

    rack.until_ha(writing, "degraded", "disconnected");
    rack.until_ha(slow, "degraded", "disconnected");
    // It waits for its pause to end, before the reset: healed, it is well again, and nothing was sent.
    rack.until_ha(paused, "recovering", "disconnected");
    rack.living.revive(paused).unwrap();
    rack.until_ha(paused, "available", "up");
    let left_alone = || {
        for host in [writing, slow, paused, well] {
            let bmc = rack.bmc(host);
            ensure!(bmc.is_on() && bmc.orders("off") + bmc.orders("reset") == 0, "{host}: {:?}", states(&rack, host));
        }
        Ok(())
    };
    all_the_while(Duration::from_secs(10), left_alone).unwrap();
}

#[test]
fn an_own_path_that_is_broken_tells_nothing() {
    let mut rack = quick(2, 1);
    for host in names(&rack) {
        rack.living.kill(&host).unwrap();
    }
    let nobody_is_suspected = || {
        let shown = rack.site.json(&["ha", "show", "@all"])?;
        let rows = shown.as_array().context("no list")?;
        // Until the others were last heard of is too long ago, the first of them may look like the only one.
        ensure!(rows.iter().all(|row| row["host_status"] != "down" && row["state"] != "fencing"), "{shown}");
        ensure!(rack.orders() == 0, "something was sent: {shown}");
        Ok(())
    };
    all_the_while(Duration::from_secs(30), nobody_is_suspected).unwrap();
}

/// The aggregator is away from before the host hangs until long after it was fenced.
#[test]
fn without_the_aggregator_a_host_is_fenced_all_the_same_and_the_whole_story_told_afterwards() {
    let mut rack = quick(2, 1);
    let host = names(&rack)[0].clone();
    rack.until_fit(&host);
    rack.site.stop_aggregator().unwrap();
    rack.living.kill(&host).unwrap();
    let bmc = rack.bmc(&host);
    eventually(PATIENCE, || {
        ensure!(!bmc.is_on(), "still on");
        Ok(())
    })
    .unwrap();
    rack.site.start_aggregator().unwrap();
    rack.until_ha(&host, "fenced", "down");
    let states = states(&rack, &host);
    let wanted = ["suspect", "checking", "recovering", "fencing", "fenced"];
    assert_eq!(states.iter().rev().take(5).rev().map(String::as_str).collect::<Vec<_>>(), wanted, "{states:?}");
    assert_eq!((bmc.orders("reset"), bmc.orders("off")), (1, 1));
}
