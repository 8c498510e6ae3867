//! How results look: tables for people, JSON for programs, names for pipes. Colour never says what shape and word do not.

use std::io::{IsTerminal, Write};

use comfy_table::{Cell, Color, Table, presets};
use jiff::Timestamp;
use picket_common::power::PowerState;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::Format;
use crate::client::typed;
use crate::failure::Failure;

/// Where results go and how.
pub struct Output {
    format: Format,
    colour: bool,
    now: Timestamp,
}

/// A column of a table.
pub struct Column<T> {
    /// Heading.
    pub head: &'static str,
    /// Only on wide screens.
    pub wide: bool,
    /// What stands in it.
    pub cell: fn(&T, &Look) -> Shown,
}

/// What a cell may depend on besides its row.
pub struct Look {
    /// The present.
    pub now: Timestamp,
}

/// A cell.
pub struct Shown {
    text: String,
    tone: Option<Color>,
}

impl<T: std::fmt::Display> From<T> for Shown {
    fn from(text: T) -> Self {
        Self { text: text.to_string(), tone: None }
    }
}

/// A column of every width.
pub const fn column<T>(head: &'static str, cell: fn(&T, &Look) -> Shown) -> Column<T> {
    Column { head, wide: false, cell }
}

/// A column of wide tables.
pub const fn wide<T>(head: &'static str, cell: fn(&T, &Look) -> Shown) -> Column<T> {
    Column { head, wide: true, cell }
}

impl Output {
    /// Results in `format`; colour on a terminal that did not refuse it (no-color.org).
    pub fn new(format: Format) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = std::io::stdout().is_terminal() && !refused;
        Self { format, colour, now: picket_aggregator::clock::now().wall }
    }

    /// Whether results are for people.
    pub const fn is_table(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Shows a list.
    ///
    /// # Errors
    /// [`Failure::Unreachable`] when the items are not what they should be.
    pub fn list<T: DeserializeOwned>(&self, items: &[Value], columns: &[Column<T>], name: &str) -> Result<(), Failure> {
        print(&self.rendered(items, columns, name, false)?)
    }

    /// Shows one thing.
    ///
    /// # Errors
    /// As [`Output::list`].
    pub fn one<T: DeserializeOwned>(&self, item: &Value, columns: &[Column<T>], name: &str) -> Result<(), Failure> {
        print(&self.rendered(std::slice::from_ref(item), columns, name, true)?)
    }

    fn rendered<T: DeserializeOwned>(
        &self,
        items: &[Value],
        columns: &[Column<T>],
        name: &str,
        single: bool,
    ) -> Result<String, Failure> {
        Ok(match (self.format, items) {
            (Format::Json, [item]) if single => format!("{item:#}\n"),
            (Format::Json, items) => format!("{:#}\n", Value::Array(items.to_vec())),
            (Format::Jsonl, items) => items.iter().map(|item| format!("{item}\n")).collect(),
            (Format::Name, items) => items.iter().map(|item| format!("{}\n", plain(&word(&item[name])))).collect(),
            (Format::Table | Format::Wide, [item]) if single => self.details(&typed(item.clone())?, columns),
            (Format::Table | Format::Wide, items) => {
                let rows: Vec<T> = items.iter().map(|item| typed(item.clone())).collect::<Result<_, _>>()?;
                self.table(&rows, columns)
            }
        })
    }

    fn table<T>(&self, rows: &[T], columns: &[Column<T>]) -> String {
        let columns: Vec<_> = columns.iter().filter(|column| !column.wide || self.format == Format::Wide).collect();
        let mut table = self.empty_table();
        table.set_header(columns.iter().map(|column| Cell::new(column.head)));
        for row in rows {
            table.add_row(columns.iter().map(|column| self.cell((column.cell)(row, &self.look()))));
        }
        lines(&table)
    }

    /// One thing: a line for each column, the wide ones too.
    fn details<T>(&self, item: &T, columns: &[Column<T>]) -> String {
        let mut table = self.empty_table();
        for column in columns {
            table.add_row([Cell::new(column.head), self.cell((column.cell)(item, &self.look()))]);
        }
        lines(&table)
    }

    fn empty_table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }

    const fn look(&self) -> Look {
        Look { now: self.now }
    }

    fn cell(&self, shown: Shown) -> Cell {
        let cell = Cell::new(plain(&shown.text));
        match shown.tone.filter(|_| self.colour) {
            Some(tone) => cell.fg(tone),
            None => cell,
        }
    }
}

/// Writes results; a reader who has left is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Local(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end())).collect()
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Text of others must not steer the terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A power state: shape, word and colour, with a mark when it is old.
pub fn power(state: PowerState, stale: bool) -> Shown {
    let (shape, tone) = match state {
        PowerState::On => ('●', Color::Green),
        PowerState::Off => ('■', Color::Red),
        PowerState::Unknown => ('▲', Color::Yellow),
        PowerState::Disabled => ('–', Color::DarkGrey),
    };
    let mark = if stale { " (stale)" } else { "" };
    Shown { text: format!("{shape} {state}{mark}"), tone: Some(tone) }
}

/// A value that may be absent.
pub fn maybe(value: Option<impl std::fmt::Display>) -> Shown {
    value.map_or_else(|| "-".into(), |value| value.to_string().into())
}

/// Yes or no.
pub fn yes_no(value: bool) -> Shown {
    if value { "yes".into() } else { "no".into() }
}

/// How long ago: `12s`, `5m`, `3h`, `9d`.
pub fn age(then: Timestamp, look: &Look) -> Shown {
    let seconds = look.now.duration_since(then).as_secs().max(0);
    let text = match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    };
    text.into()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An output as on a machine whose clock says half past midnight of 2026's first day.
    pub fn at(format: Format, colour: bool) -> Output {
        Output { format, colour, now: "2026-01-01T00:30:00Z".parse().unwrap() }
    }

    /// What would be printed.
    pub fn shown<T: DeserializeOwned>(out: &Output, items: &[Value], columns: &[Column<T>], single: bool) -> String {
        out.rendered(items, columns, "id", single).unwrap()
    }

    #[test]
    fn ages() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (seconds, wanted) in [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")]
        {
            let then = now - jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(then, &Look { now }).text, wanted);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }
}
