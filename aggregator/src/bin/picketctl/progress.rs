//! How far a bulk of work is: one line on stderr of a terminal, nothing elsewhere. Never writes to stdout.

use std::cell::Cell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, if somebody sees it.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    done: Cell<usize>,
    failed: Cell<usize>,
}

impl Progress {
    /// For so many hosts; one is no bulk.
    pub fn new(total: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:32} {msg}  {elapsed}").ok();
        let seen = total > 1 && std::io::stderr().is_terminal();
        let bar = style.filter(|_| seen).map(|style| {
            let length = u64::try_from(total).unwrap_or(u64::MAX);
            ProgressBar::new(length).with_style(style).with_message(message(0, 0, total))
        });
        Self { bar, total, done: Cell::new(0), failed: Cell::new(0) }
    }

    /// One host's part has ended.
    pub fn step(&self, ok: bool) {
        let counter = if ok { &self.done } else { &self.failed };
        counter.set(counter.get() + 1);
        if let Some(bar) = &self.bar {
            bar.set_message(message(self.done.get(), self.failed.get(), self.total));
            bar.inc(1);
        }
    }
}

impl Drop for Progress {
    /// The bar leaves the screen: the results follow.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn message(done: usize, failed: usize, total: usize) -> String {
    format!("{done} done, {failed} failed, {} pending", total.saturating_sub(done + failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted() {
        let progress = Progress::new(5);
        for ok in [true, false, true] {
            progress.step(ok);
        }
        let (done, failed) = (progress.done.get(), progress.failed.get());
        assert_eq!(message(done, failed, progress.total), "2 done, 1 failed, 2 pending");
    }
}
