//! CPU time (user and system) as the kernel accounts it: of a running process, of ended children, of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Kernel ticks of `/proc/…/stat` a second: USER_HZ, 100 wherever Linux runs these programs.
const TICKS: u64 = 100;

/// CPU time a process has used so far.
#[derive(Debug, Clone)]
pub struct Used {
    threads: BTreeMap<String, Duration>,
    whole: Duration,
}

impl Used {
    /// Of the process `pid`, all threads.
    pub fn of(pid: u32) -> Result<Self> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
            let entry = entry?;
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let nanoseconds = text.split_whitespace().next().context("empty schedstat")?.parse()?;
            threads.insert(entry.file_name().to_string_lossy().into_owned(), Duration::from_nanos(nanoseconds));
        }
        Ok(Self { threads, whole: stat(&format!("/proc/{pid}/stat"), 11)? })
    }

    /// What was used since `before`: exact to the nanosecond from the threads' own accounts, or, when a thread ended in
    /// between and took its account along, from the process's, exact to 10 ms.
    pub fn since(&self, before: &Self) -> Duration {
        if before.threads.keys().any(|thread| !self.threads.contains_key(thread)) {
            return self.whole.saturating_sub(before.whole);
        }
        self.total().saturating_sub(before.total())
    }

    /// What was used since the process began.
    pub fn total(&self) -> Duration {
        self.threads.values().sum()
    }
}

/// CPU time of all children of this process that ended and were waited for; exact to 10 ms, so measure many.
pub fn of_ended_children() -> Result<Duration> {
    stat("/proc/self/stat", 13)
}

/// Two neighbouring fields of a `stat` file, user and system time, counted from the field after the program's name.
fn stat(path: &str, first: usize) -> Result<Duration> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    // The name is in brackets and may hold anything.
    let (_, fields) = text.rsplit_once(") ").context("no program name")?;
    let ticks: Vec<u64> = fields.split(' ').skip(first).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * (1000 / TICKS)))
}

/// Time of all cores since the machine started.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    idle: f64,
    all: f64,
}

impl Cores {
    /// Now.
    pub fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("empty /proc/stat")?;
        // user nice system idle iowait irq softirq steal; guest time is in user time already.
        let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { idle: ticks.iter().skip(3).take(2).sum(), all: ticks.iter().sum() })
    }

    /// Share of the cores that was busy since `before`, 0 to 1.
    pub fn busy_since(self, before: Self) -> f64 {
        let all = self.all - before.all;
        if all > 0.0 { 1.0 - (self.idle - before.idle) / all } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::process::Command;

    #[test]
    fn a_busy_process_uses_cpu() {
        let before = Used::of(std::process::id()).unwrap();
        let began = super::super::now();
        while began.elapsed() < Duration::from_millis(50) {
            black_box(began);
        }
        let used = Used::of(std::process::id()).unwrap().since(&before);
        assert!(used > Duration::from_millis(5), "{used:?}");
    }

    #[test]
    fn ended_children_are_counted() {
        let before = of_ended_children().unwrap();
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
        assert!(of_ended_children().unwrap() > before);
    }
}
