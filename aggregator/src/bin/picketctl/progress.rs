//! How far a bulk of work is: one line on stderr of a terminal, nothing elsewhere. Never writes to stdout.

use std::cell::Cell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, if somebody sees it.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    counted: Cell<(u64, u64)>,
}

impl Progress {
    /// For so many hosts; one is no bulk.
    pub fn new(total: usize) -> Self {
        let total = u64::try_from(total).unwrap_or(u64::MAX);
        let style = ProgressStyle::with_template("{bar:32} {msg}  {elapsed}").ok();
        let seen = total > 1 && std::io::stderr().is_terminal();
        let bar = style.filter(|_| seen).map(|style| ProgressBar::new(total).with_style(style));
        Self { bar, total, counted: Cell::new((0, 0)) }
    }

    /// One host's part has ended, well or not.
    pub fn step(&self, ok: bool) {
        let (done, failed) = self.counted.get();
        self.show(if ok { (done + 1, failed) } else { (done, failed + 1) });
    }

    /// So many are done, so many failed.
    pub fn show(&self, counted: (u64, u64)) {
        self.counted.set(counted);
        if let Some(bar) = &self.bar {
            bar.set_message(message(counted, self.total));
            bar.set_position(counted.0 + counted.1);
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

fn message((done, failed): (u64, u64), total: u64) -> String {
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
        assert_eq!(message(progress.counted.get(), progress.total), "2 done, 1 failed, 2 pending");
    }
}
