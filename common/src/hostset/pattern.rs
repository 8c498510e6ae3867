//! One operand that names hosts: text, ranges and wildcards in a row. Makes names and compares names; never asks who exists.

use crate::id::MAX_ID_LEN;

/// Longest number of a range, in digits: always within 64 bits.
pub(super) const MAX_DIGITS: usize = 18;

/// Text, ranges and wildcards in a row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pattern {
    pub(super) parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// As it is.
    Text(String),
    /// Any of these numbers.
    Ranges(Vec<Range>),
    /// `?`: any one character.
    One,
    /// `*`: any characters, or none.
    Any,
}

/// Numbers `first`, `first + step`, … up to `last`, with zeros before them up to `width`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) step: u64,
    /// Digits of every number; 0 = as many as it needs.
    pub(super) width: usize,
}

impl Range {
    fn count(&self) -> usize {
        let steps = self.last.saturating_sub(self.first) / self.step.max(1);
        usize::try_from(steps).unwrap_or(usize::MAX).saturating_add(1)
    }

    /// Length of its shortest number.
    fn least_length(&self) -> usize {
        let needed = self.first.checked_ilog10().and_then(|digits| usize::try_from(digits).ok()).unwrap_or(0) + 1;
        needed.max(self.width)
    }

    fn numbers(&self) -> impl Iterator<Item = String> + use<> {
        let Self { first, last, step, width } = *self;
        let next = move |number: &u64| number.checked_add(step).filter(|next| *next <= last);
        std::iter::successors(Some(first), next).map(move |number| format!("{number:0width$}"))
    }

    /// Whether `digits` is one of the numbers as they are written.
    fn holds(&self, digits: &str) -> bool {
        let written_so = if self.width == 0 { digits == "0" || !digits.starts_with('0') } else { digits.len() == self.width };
        let number = digits.parse::<u64>().ok().filter(|number| (self.first..=self.last).contains(number));
        written_so && number.is_some_and(|number| (number - self.first).is_multiple_of(self.step.max(1)))
    }
}

impl Pattern {
    pub(super) fn has_wildcards(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::One | Part::Any))
    }

    /// What comparing a name takes, in comparisons of a usual pattern; at least one.
    pub(super) fn weight(&self) -> usize {
        let ranges = self.parts.iter().map(|part| if let Part::Ranges(ranges) = part { ranges.len() } else { 0 });
        ranges.sum::<usize>().max(self.parts.len() / 8).max(1)
    }

    /// Names this makes; more than can be counted is [`usize::MAX`].
    pub(super) fn count(&self) -> usize {
        self.parts.iter().fold(1, |count: usize, part| match part {
            Part::Ranges(ranges) => {
                count.saturating_mul(ranges.iter().fold(0, |sum: usize, range| sum.saturating_add(range.count())))
            }
            Part::Text(_) | Part::One | Part::Any => count,
        })
    }

    /// Length of the shortest name that fits, in bytes.
    pub(super) fn least_length(&self) -> usize {
        let least = |part: &Part| match part {
            Part::Text(text) => text.len(),
            Part::Ranges(ranges) => ranges.iter().map(Range::least_length).min().unwrap_or(0),
            Part::One => 1,
            Part::Any => 0,
        };
        self.parts.iter().map(least).sum()
    }

    /// The names of a pattern without wildcards. The caller has looked at [`Pattern::count`] and [`Pattern::least_length`].
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let begin = vec![String::new()];
        let names = self.parts.iter().fold(begin, |names, part| match part {
            Part::Text(text) => names.into_iter().map(|name| name + text).collect(),
            Part::Ranges(ranges) => {
                let numbers: Vec<String> = ranges.iter().flat_map(Range::numbers).collect();
                names.iter().flat_map(|name| numbers.iter().map(move |number| format!("{name}{number}"))).collect()
            }
            Part::One | Part::Any => names,
        });
        names.into_iter()
    }

    /// Whether a name fits. Follows all ways to read the name at once: bit `n` says that its first `n` bytes can be read so far.
    pub(super) fn matches(&self, name: &str) -> bool {
        const { assert!(MAX_ID_LEN < 64, "one bit for each place in a name") }
        if name.len() > MAX_ID_LEN {
            return false;
        }
        let read = self.parts.iter().fold(1_u64, |places, part| part.read(name, places));
        read & (1 << name.len()) != 0
    }
}

impl Part {
    /// From the places of `places` to those after this part.
    fn read(&self, name: &str, places: u64) -> u64 {
        let upto = u64::MAX >> (63 - name.len());
        let from = |place: usize| name.get(place..).filter(|_| places & (1 << place) != 0);
        match self {
            Self::One => (places << 1) & upto,
            Self::Any if places == 0 => 0,
            Self::Any => (u64::MAX << places.trailing_zeros()) & upto,
            Self::Text(text) => {
                let fits = (0..=name.len()).filter(|place| from(*place).is_some_and(|rest| rest.starts_with(text.as_str())));
                fits.fold(0, |after, place| after | 1 << (place + text.len()))
            }
            Self::Ranges(ranges) => {
                let mut after = 0;
                for place in 0..=name.len() {
                    let rest = from(place).unwrap_or_default();
                    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                    for length in 1..=digits.min(MAX_DIGITS) {
                        let number = rest.get(..length).unwrap_or_default();
                        if ranges.iter().any(|range| range.holds(number)) {
                            after |= 1 << (place + length);
                        }
                    }
                }
                after
            }
        }
    }
}

/// The text before the first digit, the digits, and the rest.
pub(super) fn split_number(text: &str) -> (&str, &str, &str) {
    let start = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let (before, rest) = text.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    (before, digits, after)
}
