//! Text to terms. Reads each character once; every fault names the place where a person would look.

use super::pattern::{MAX_DIGITS, Part, Pattern, Range};
use super::{Fault, Group, HostSetError, Operand, Operator, Term, What};
use crate::ha::{HaName, HostStatus};
use crate::id::MAX_ID_LEN;
use crate::power::PowerState;

/// Most groups that one operand may name: `@rack:r[001-999]`.
pub(super) const MAX_GROUPS: usize = 1000;

/// Most parts of one operand: a name has 63 characters, and a part that adds none is `*` or a slip.
const MAX_PARTS: usize = 128;

/// Longest value of a group, in bytes: above the longest label with its name.
const MAX_VALUE: usize = 512;

/// Terms of a text.
pub(super) fn parse(text: &str) -> Result<Vec<Term>, HostSetError> {
    let mut cursor = Cursor { rest: text, at: 1 };
    let mut terms = Vec::new();
    cursor.skip_spaces();
    while cursor.peek().is_some() {
        terms.push(cursor.term()?);
        cursor.skip_spaces();
    }
    if terms.is_empty() { Err(HostSetError { at: 1, fault: Fault::Empty }) } else { Ok(terms) }
}

/// A place in the text: what is still to be read, and its first character's number.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next()?;
        self.rest = characters.as_str();
        self.at += 1;
        Some(next)
    }

    fn skip_spaces(&mut self) {
        self.take_while(char::is_whitespace);
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.at += taken.chars().count();
        self.rest = rest;
        taken
    }

    const fn fault(&self, fault: Fault) -> HostSetError {
        HostSetError { at: self.at, fault }
    }

    fn term(&mut self) -> Result<Term, HostSetError> {
        if let Some(operator) = self.peek().filter(|c| Operator::of(*c).is_some()) {
            return Err(self.fault(Fault::Operand { operator, side: "before" }));
        }
        let mut term = Term { first: self.operand()?, rest: Vec::new() };
        loop {
            let mut ahead = *self;
            ahead.skip_spaces();
            let place = ahead;
            let Some((character, operator)) = ahead.next().and_then(|c| Some((c, Operator::of(c)?))) else { return Ok(term) };
            ahead.skip_spaces();
            if ahead.peek().is_none_or(|c| Operator::of(c).is_some()) {
                return Err(place.fault(Fault::Operand { operator: character, side: "after" }));
            }
            *self = ahead;
            term.rest.push((operator, self.operand()?));
        }
    }

    fn operand(&mut self) -> Result<Operand, HostSetError> {
        let begin = *self;
        if self.peek() == Some('@') {
            self.next();
            let groups = self.groups(begin)?;
            return Ok(Operand { at: begin.at, what: What::Groups(groups) });
        }
        let pattern = self.pattern(MAX_ID_LEN, |c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))?;
        Ok(Operand { at: begin.at, what: What::Hosts(pattern) })
    }

    /// Text, ranges and wildcards up to a space or operator, for names of at most so many bytes: a text that none has room for is
    /// not made a thousand times over before that is seen.
    fn pattern(&mut self, longest: usize, is_text: impl Fn(char) -> bool + Copy) -> Result<Pattern, HostSetError> {
        let mut parts = Vec::new();
        let begin = *self;
        while let Some(character) = self.peek() {
            let part = match character {
                '[' => Part::Ranges(self.ranges()?),
                '*' | '?' => {
                    self.next();
                    if character == '*' { Part::Any } else { Part::One }
                }
                c if is_text(c) => Part::Text(self.take_while(is_text).to_owned()),
                c if c.is_whitespace() || Operator::of(c).is_some() => break,
                ']' => return Err(self.fault(Fault::Closed)),
                '@' => return Err(self.fault(Fault::GroupInside)),
                c => return Err(self.fault(Fault::Character(c))),
            };
            parts.push(part);
            if parts.len() > MAX_PARTS {
                return Err(begin.fault(Fault::TooLong));
            }
        }
        let pattern = Pattern { parts };
        if pattern.least_length() > longest { Err(begin.fault(Fault::TooLong)) } else { Ok(pattern) }
    }

    /// What stands in brackets.
    fn ranges(&mut self) -> Result<Vec<Range>, HostSetError> {
        let open = *self;
        self.next();
        let mut ranges = Vec::new();
        loop {
            self.skip_spaces();
            let place = *self;
            let text = self.take_while(|c| !matches!(c, ',' | ']' | '[' | '@' | '!' | '&' | '^'));
            let end = self.peek();
            if !matches!(end, Some(',' | ']')) {
                return Err(open.fault(Fault::Open));
            }
            ranges.push(range(text.trim_end()).map_err(|fault| place.fault(fault))?);
            self.next();
            if end == Some(']') {
                return Ok(ranges);
            }
        }
    }

    /// What follows an `@` at `begin`.
    fn groups(&mut self, begin: Self) -> Result<Vec<Group>, HostSetError> {
        let named = |end: Self| begin.rest.strip_suffix(end.rest).unwrap_or(begin.rest).chars().take(80).collect::<String>();
        if self.peek() == Some('*') {
            self.next();
            return self.all(begin);
        }
        let kind = self.take_while(|c| c.is_ascii_lowercase());
        if self.peek() != Some(':') {
            if kind == "all" {
                return self.all(begin);
            }
            self.take_while(|c| !c.is_whitespace() && Operator::of(c).is_none());
            return Err(begin.fault(Fault::Group(named(*self))));
        }
        if !matches!(kind, "zone" | "cluster" | "rack" | "agent" | "state" | "ha" | "status" | "label") {
            return Err(begin.fault(Fault::Group(named(*self))));
        }
        self.next();
        let place = *self;
        // Ids are checked as ids below; labels are free words.
        let pattern = self.pattern(MAX_VALUE, |c| {
            !c.is_whitespace() && !c.is_control() && !matches!(c, '[' | ']' | '*' | '?' | '@') && Operator::of(c).is_none()
        })?;
        if let Some(wildcard) = pattern.parts.iter().find_map(|part| match part {
            Part::One => Some('?'),
            Part::Any => Some('*'),
            Part::Text(_) | Part::Ranges(_) => None,
        }) {
            return Err(place.fault(Fault::Wildcard(wildcard)));
        }
        if pattern.count() > MAX_GROUPS {
            return Err(place.fault(Fault::TooManyGroups));
        }
        pattern.names().map(|value| group(kind, &value)).collect::<Result<_, _>>().map_err(|fault| place.fault(fault))
    }

    /// `@all` has nothing after it.
    fn all(&self, begin: Self) -> Result<Vec<Group>, HostSetError> {
        match self.peek() {
            Some(c) if !c.is_whitespace() && Operator::of(c).is_none() => {
                let word = begin.rest.split(char::is_whitespace).next().unwrap_or_default();
                Err(begin.fault(Fault::Group(word.chars().take(80).collect())))
            }
            _ => Ok(vec![Group::All]),
        }
    }
}

fn group(kind: &str, value: &str) -> Result<Group, Fault> {
    Ok(match kind {
        "zone" => Group::Zone(value.parse()?),
        "cluster" => Group::Cluster(value.parse()?),
        "rack" => Group::Rack(value.parse()?),
        "agent" => Group::Agent(value.parse()?),
        "state" => {
            let state = PowerState::ALL.into_iter().find(|state| state.as_str() == value);
            Group::State(state.ok_or_else(|| Fault::State(value.to_owned()))?)
        }
        "ha" => {
            let state = HaName::ALL.into_iter().find(|state| state.as_str() == value);
            Group::Ha(state.ok_or_else(|| Fault::Ha(value.to_owned()))?)
        }
        "status" => {
            let status = HostStatus::ALL.into_iter().find(|status| status.as_str() == value);
            Group::Status(status.ok_or_else(|| Fault::Status(value.to_owned()))?)
        }
        _ => {
            let pair = value.split_once('=').filter(|(key, _)| !key.is_empty());
            let (key, value) = pair.ok_or_else(|| Fault::Label(value.to_owned()))?;
            Group::Label { key: key.to_owned(), value: value.to_owned() }
        }
    })
}

/// `01-48`, `7`, `0-10/2`.
fn range(text: &str) -> Result<Range, Fault> {
    let bad = || Fault::Range(text.chars().take(80).collect());
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (span, number(step).filter(|step| *step > 0).ok_or_else(bad)?),
        None => (text, 1),
    };
    let (first, last) = span.split_once('-').map_or((span, span), |(first, last)| (first.trim_end(), last.trim_start()));
    let range = Range {
        first: number(first).ok_or_else(bad)?,
        last: number(last).ok_or_else(bad)?,
        step,
        width: if [first, last].iter().any(|end| end.len() > 1 && end.starts_with('0')) { first.len() } else { 0 },
    };
    if range.width != 0 && first.len() != last.len() {
        return Err(Fault::Width(text.to_owned()));
    }
    if range.first > range.last {
        return Err(Fault::Backwards(text.to_owned()));
    }
    Ok(range)
}

fn number(text: &str) -> Option<u64> {
    let digits = (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
