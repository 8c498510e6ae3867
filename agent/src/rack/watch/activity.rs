//! Whether a host that does not answer still writes: samples of its files and of what programs say. Pure.
//!
//! What its files look like is kept in memory only: after a restart the first sample is compared with nothing, and counts for
//! neither.

use std::collections::BTreeMap;
use std::time::Duration;

use picket_common::ha::Activity;
use picket_common::ha::settings::{ActivityCheck, HaSettings};

use crate::sign::{CheckDone, Sign, Stamp};

/// How long after its time-out an answer is waited for: the shell answers every check.
const GRACE: Duration = Duration::from_secs(5);

/// Time and length of each file.
type Looks = BTreeMap<String, (i128, u64)>;

/// What is known of a host's activity since its health checks began to fail.
#[derive(Debug, Default)]
pub struct Samples {
    under_way: Option<Sample>,
    /// What the files of each check looked like last.
    looks: BTreeMap<usize, Looks>,
    /// When the last sample was begun (boottime).
    last: Option<Duration>,
}

#[derive(Debug)]
struct Sample {
    /// Whether it is only to be compared with.
    is_baseline: bool,
    limit: Duration,
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    ticket: u64,
    /// Which of the host's activity checks.
    check: usize,
    answer: Option<Sign>,
}

/// What a sample came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// What it says.
    pub activity: Activity,
    /// Why, in one sentence.
    pub said: String,
}

impl Samples {
    /// Whether there is nothing yet to compare with, nor on its way.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.under_way.is_none() && self.last.is_none()
    }

    /// Whether a sample is under way.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// When the next sample is due (boottime); `None` while one is under way.
    #[must_use]
    pub fn due(&self, settings: &HaSettings, now: Duration) -> Option<Duration> {
        let interval = Duration::from_secs(settings.activity_interval.into());
        if self.is_busy() { None } else { Some(self.last.map_or(now, |last| last.saturating_add(interval))) }
    }

    /// When the sample under way must be looked at although nothing is answered.
    #[must_use]
    pub fn limit(&self) -> Option<Duration> {
        self.under_way.as_ref().map(|sample| sample.limit)
    }

    /// A sample begins, with a ticket for each check.
    pub fn begin(&mut self, is_baseline: bool, tickets: &[(u64, usize)], settings: &HaSettings, now: Duration) {
        let asked = |(ticket, check): &(u64, usize)| Asked { ticket: *ticket, check: *check, answer: None };
        let timeout = Duration::from_secs(settings.activity_timeout.into());
        self.last = Some(now);
        self.under_way = Some(Sample {
            is_baseline,
            limit: now.saturating_add(timeout).saturating_add(GRACE),
            asked: tickets.iter().map(asked).collect(),
        });
    }

    /// Takes an answer in, if it is one of these checks.
    pub fn answered(&mut self, done: &CheckDone) {
        let asked = self.under_way.iter_mut().flat_map(|sample| &mut sample.asked).find(|asked| asked.ticket == done.ticket);
        if let Some(asked) = asked {
            asked.answer = Some(done.sign.clone());
        }
    }

    /// What the sample under way came to, if it is over and was not only to be compared with.
    pub fn conclude(&mut self, now: Duration) -> Option<Found> {
        let is_over = |sample: &mut Sample| now >= sample.limit || sample.asked.iter().all(|asked| asked.answer.is_some());
        let sample = self.under_way.take_if(is_over)?;
        let found: Vec<Found> = sample.asked.into_iter().map(|asked| self.judge(asked)).collect();
        if sample.is_baseline { None } else { Some(together(found)) }
    }

    fn judge(&mut self, asked: Asked) -> Found {
        let says = |activity, said: String| Found { activity, said };
        match asked.answer {
            Some(Sign::Alive) => says(Activity::Alive, "its activity check says so".into()),
            Some(Sign::Dead(why)) => says(Activity::Dead, why),
            Some(Sign::CannotTell(why)) => says(Activity::CannotTell, why),
            Some(Sign::Stamps(stamps)) => self.compare(asked.check, stamps),
            None => says(Activity::CannotTell, "the check gave no answer".into()),
        }
    }

    fn compare(&mut self, check: usize, stamps: Vec<Stamp>) -> Found {
        let looks: Looks = stamps.into_iter().map(|stamp| (stamp.path, (stamp.modified, stamp.length))).collect();
        let before = self.looks.insert(check, looks.clone());
        let Some(before) = before else {
            return Found { activity: Activity::CannotTell, said: "there is no earlier sample to compare with".into() };
        };
        if looks.is_empty() {
            return Found { activity: Activity::CannotTell, said: "none of its files is there".into() };
        }
        match looks.iter().find(|(path, look)| before.get(*path) != Some(look)) {
            Some((path, _)) => Found { activity: Activity::Alive, said: format!("{path} was written") },
            None => Found { activity: Activity::Dead, said: format!("none of its {} files was written", looks.len()) },
        }
    }

    /// Forgets everything: the host answers, or its checks are others.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// One Alive is active; only all Dead is dead.
fn together(found: Vec<Found>) -> Found {
    let place = |wanted: Activity| found.iter().position(|found| found.activity == wanted);
    let place = place(Activity::Alive).or_else(|| place(Activity::CannotTell)).unwrap_or(0);
    let nothing = Found { activity: Activity::CannotTell, said: "there is nothing to check".into() };
    found.into_iter().nth(place).unwrap_or(nothing)
}

/// Whether a check needs an earlier sample to compare with.
#[must_use]
pub const fn is_compared(check: &ActivityCheck) -> bool {
    match check {
        ActivityCheck::Files { .. } | ActivityCheck::Witness { .. } | ActivityCheck::Heartbeat { .. } => true,
        ActivityCheck::Exec { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(files: &[(&str, i128)]) -> Sign {
        let stamp = |(path, modified): &(&str, i128)| Stamp { path: (*path).to_owned(), modified: *modified, length: 1 };
        Sign::Stamps(files.iter().map(stamp).collect())
    }

    fn sample(samples: &mut Samples, is_baseline: bool, signs: &[Sign]) -> Option<Activity> {
        let now = Duration::from_secs(100);
        let tickets: Vec<(u64, usize)> = (0..signs.len()).map(|check| (check as u64, check)).collect();
        samples.begin(is_baseline, &tickets, &HaSettings::default(), now);
        for (ticket, sign) in (0..).zip(signs) {
            samples.answered(&CheckDone { ticket, begun: now, sign: sign.clone() });
        }
        samples.conclude(now).map(|found| found.activity)
    }

    #[test]
    fn samples_are_compared_with_the_one_before() {
        use Activity::{Alive, CannotTell, Dead};
        let slow = || Sign::CannotTell("time-out".into());
        let table: Vec<(&str, Vec<Sign>, Vec<Sign>, Activity)> = vec![
            ("t04 nothing was written", vec![stamps(&[("a", 1)])], vec![stamps(&[("a", 1)])], Dead),
            ("one file was written", vec![stamps(&[("a", 1), ("b", 1)])], vec![stamps(&[("a", 1), ("b", 2)])], Alive),
            ("a new file", vec![stamps(&[("a", 1)])], vec![stamps(&[("a", 1), ("b", 1)])], Alive),
            ("a file is gone", vec![stamps(&[("a", 1), ("b", 1)])], vec![stamps(&[("a", 1)])], Dead),
            ("all files are gone", vec![stamps(&[("a", 1)])], vec![stamps(&[])], CannotTell),
            ("t05 slow storage", vec![stamps(&[("a", 1)])], vec![slow()], CannotTell),
            (
                "t08 two pools, one active",
                vec![stamps(&[("a", 1)]), stamps(&[("b", 1)])],
                vec![stamps(&[("a", 1)]), stamps(&[("b", 2)])],
                Alive,
            ),
            ("two pools, one slow", vec![stamps(&[("a", 1)]), stamps(&[("b", 1)])], vec![stamps(&[("a", 1)]), slow()], CannotTell),
            ("no baseline", vec![slow()], vec![stamps(&[("a", 1)])], CannotTell),
            ("a program says dead", vec![], vec![Sign::Dead("1".into())], Dead),
            ("a program says alive, the files do not", vec![stamps(&[("a", 1)])], vec![stamps(&[("a", 1)]), Sign::Alive], Alive),
        ];
        for (name, baseline, then, wanted) in table {
            let mut samples = Samples::default();
            assert_eq!(sample(&mut samples, true, &baseline), None, "{name}");
            assert_eq!(sample(&mut samples, false, &then), Some(wanted), "{name}");
        }
    }
}
