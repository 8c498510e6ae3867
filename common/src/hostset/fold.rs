//! Names back to text: hosts that differ in numbers only are folded, along every number there is. Never loses or adds a host.

use std::collections::{BTreeMap, BTreeSet};

use super::pattern::{MAX_DIGITS, split_number};
use crate::id::HostId;

/// A number as it is written. Ordered by length first, so that `9` stands before `10` and next to nothing padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Number {
    digits: usize,
    value: u64,
}

impl Number {
    fn is_padded(self) -> bool {
        let needed = self.value.checked_ilog10().unwrap_or(0) + 1;
        usize::try_from(needed).is_ok_and(|needed| needed < self.digits)
    }
}

type Numbers = BTreeSet<Number>;

/// Numbers for each place of a name: all their combinations.
type Block = Vec<Numbers>;

/// The shortest text found that names exactly these hosts: `dc[1-4]n[1-100],r07n[01-03,05]`.
#[must_use]
pub fn fold(hosts: &BTreeSet<HostId>) -> String {
    folded(hosts, split_all)
}

/// As [`fold`], but along the number at a name's end only, as powerman and its kin write sets: `r07n[01-48],r08n[01-48]`.
#[must_use]
pub fn fold_last(hosts: &BTreeSet<HostId>) -> String {
    folded(hosts, split_last)
}

fn folded(hosts: &BTreeSet<HostId>, split: fn(&str) -> (Vec<String>, Vec<Number>)) -> String {
    let mut shapes: BTreeMap<Vec<String>, Vec<Vec<Number>>> = BTreeMap::new();
    for host in hosts {
        let (texts, numbers) = split(host.as_str());
        shapes.entry(texts).or_default().push(numbers);
    }
    let words = shapes.iter().flat_map(|(texts, names)| {
        let blocks = blocks(names);
        blocks.iter().map(|block| written(texts, block)).collect::<Vec<_>>()
    });
    words.collect::<Vec<_>>().join(",")
}

/// A name as the texts around its numbers, and the numbers. Digits that are too many for a number stay text.
fn split_all(name: &str) -> (Vec<String>, Vec<Number>) {
    let (mut texts, mut numbers) = (vec![String::new()], Vec::new());
    let mut rest = name;
    while !rest.is_empty() {
        let (before, digits, after) = split_number(rest);
        if let Some(text) = texts.last_mut() {
            text.push_str(before);
        }
        match number(digits) {
            Some(number) => {
                numbers.push(number);
                texts.push(String::new());
            }
            None => texts.last_mut().into_iter().for_each(|text| text.push_str(digits)),
        }
        rest = after;
    }
    (texts, numbers)
}

/// As [`split_all`], with the number at the end only.
fn split_last(name: &str) -> (Vec<String>, Vec<Number>) {
    let text = name.trim_end_matches(|c: char| c.is_ascii_digit());
    match number(name.get(text.len()..).unwrap_or_default()) {
        Some(number) => (vec![text.to_owned(), String::new()], vec![number]),
        None => (vec![name.to_owned()], Vec::new()),
    }
}

fn number(digits: &str) -> Option<Number> {
    let value = digits.parse().ok().filter(|_| digits.len() <= MAX_DIGITS)?;
    Some(Number { digits: digits.len(), value })
}

/// Blocks that together are exactly `names`. Merging along one place is exact whatever came before; the order of places only
/// decides how few blocks are left, so the last place first and the first place first are both tried.
fn blocks(names: &[Vec<Number>]) -> Vec<Block> {
    let places = names.first().map_or(0, Vec::len);
    let single: Vec<Block> = names.iter().map(|name| name.iter().map(|number| Numbers::from([*number])).collect()).collect();
    let backwards = (0..places).rev().fold(single.clone(), merged);
    let forwards = (0..places).fold(single, merged);
    if forwards.len() < backwards.len() { forwards } else { backwards }
}

/// Blocks that differ in one place only become one.
fn merged(blocks: Vec<Block>, place: usize) -> Vec<Block> {
    let mut merged: BTreeMap<Block, Numbers> = BTreeMap::new();
    for mut block in blocks {
        let numbers = block.get_mut(place).map(std::mem::take).unwrap_or_default();
        merged.entry(block).or_default().extend(numbers);
    }
    let filled = merged.into_iter().map(|(mut block, numbers)| {
        if let Some(empty) = block.get_mut(place) {
            *empty = numbers;
        }
        block
    });
    let mut blocks: Vec<Block> = filled.collect();
    blocks.sort();
    blocks
}

fn written(texts: &[String], block: &Block) -> String {
    let mut word = String::new();
    for (index, text) in texts.iter().enumerate() {
        word.push_str(text);
        if let Some(numbers) = block.get(index) {
            let ranges = ranges(numbers);
            word.push_str(&if numbers.len() > 1 { format!("[{ranges}]") } else { ranges });
        }
    }
    word
}

/// `01-03,7`.
fn ranges(numbers: &Numbers) -> String {
    let mut runs: Vec<(Number, Number)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, last)) if follows(*first, *last, *number) => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let word = |number: &Number| format!("{:0digits$}", number.value, digits = number.digits);
    let words =
        runs.iter().map(|(first, last)| if first == last { word(first) } else { format!("{}-{}", word(first), word(last)) });
    words.collect::<Vec<_>>().join(",")
}

/// Whether a run from `first` to `last` goes on with `next`: one more, and written as the range would write it.
fn follows(first: Number, last: Number, next: Number) -> bool {
    let same_width = next.digits == last.digits || (!first.is_padded() && !next.is_padded());
    last.value.checked_add(1) == Some(next.value) && same_width
}
