//! How results look: tables for people, JSON and its kin for programs, names for pipes. Results go to stdout and nothing else does.
//! On a terminal a state has a shape, and a colour unless refused; neither ever says what the word does not.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};

use comfy_table::{Cell, Color, Table, presets};
use jiff::Timestamp;
use picket_common::hostset;
use picket_common::id::HostId;
use picket_common::power::PowerState;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::{Format, Global};
use crate::client::typed;
use crate::failure::Failure;

/// Where results go and how.
pub struct Output {
    format: Format,
    columns: Vec<String>,
    header: bool,
    look: Look,
    colour: bool,
}

/// A column of a table.
pub struct Column<T> {
    /// Heading; a shape may stand before it.
    pub head: &'static str,
    /// Only on wide screens.
    pub wide: bool,
    /// What stands in it.
    pub cell: fn(&T, &Look) -> Shown,
}

/// What a cell may depend on besides its row.
#[derive(Clone, Copy)]
pub struct Look {
    /// The present.
    pub now: Timestamp,
    /// Whether shapes are shown.
    shapes: bool,
}

/// A cell: the text for people, and for programs where that differs.
pub struct Shown {
    shape: Option<char>,
    text: String,
    exact: Option<String>,
    tone: Option<Color>,
}

impl<T: std::fmt::Display> From<T> for Shown {
    fn from(text: T) -> Self {
        Self { shape: None, text: text.to_string(), exact: None, tone: None }
    }
}

impl Shown {
    /// With what programs read instead.
    pub fn exactly(mut self, exact: impl std::fmt::Display) -> Self {
        self.exact = Some(exact.to_string());
        self
    }

    fn exact(self) -> String {
        self.exact.unwrap_or(self.text)
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

impl<T> Column<T> {
    fn head(&self, look: Look) -> &'static str {
        if look.shapes { self.head } else { bare(self.head) }
    }

    /// As programs and `--columns` call it.
    fn name(&self) -> String {
        bare(self.head).to_lowercase()
    }
}

/// A heading without its shape.
fn bare(head: &str) -> &str {
    head.trim_start_matches(|c: char| !c.is_ascii_alphanumeric())
}

impl Output {
    /// Results as asked for; shapes and colour on a terminal, colour only if nobody refused it (no-color.org).
    pub fn new(global: &Global) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let terminal = std::io::stdout().is_terminal() && set("TERM").is_none_or(|term| term != "dumb");
        Self {
            format: global.output,
            columns: global.columns.clone(),
            header: !global.no_header,
            look: Look { now: picket_aggregator::clock::now().wall, shapes: terminal },
            colour: terminal && set("NO_COLOR").is_none(),
        }
    }

    /// Whether results are for people.
    pub const fn is_table(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Whether results are whole documents, as the API gives them.
    pub const fn is_document(&self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl | Format::Yaml)
    }

    /// Shows a list.
    ///
    /// # Errors
    /// [`Failure::NoAnswer`] when the items are not what they should be, [`Failure::Usage`] for columns that are not there.
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
        let names = || items.iter().map(|item| plain(&word(&item[name])));
        Ok(match (self.format, items) {
            (Format::Json, [item]) if single => format!("{item:#}\n"),
            (Format::Json, items) => format!("{:#}\n", Value::Array(items.to_vec())),
            (Format::Jsonl, items) => items.iter().map(|item| format!("{item}\n")).collect(),
            (Format::Yaml, [item]) if single => yaml(item)?,
            (Format::Yaml, items) => yaml(&items)?,
            (Format::Name, _) => names().map(|name| name + "\n").collect(),
            (Format::Folded, _) => folded(names()),
            (Format::Csv, items) => self.csv(&rows(items)?, &self.chosen(columns)?)?,
            (Format::Table | Format::Wide, [item]) if single => self.details(&typed(item.clone())?, &self.chosen(columns)?),
            (Format::Table | Format::Wide, items) => self.table(&rows(items)?, &self.chosen(columns)?),
        })
    }

    /// The columns asked for; unasked, all that fit the format.
    fn chosen<'a, T>(&self, columns: &'a [Column<T>]) -> Result<Vec<&'a Column<T>>, Failure> {
        if self.columns.is_empty() {
            return Ok(columns.iter().collect());
        }
        let find = |wanted: &String| {
            let found = columns.iter().find(|column| column.name() == wanted.to_lowercase());
            let there = || columns.iter().map(Column::name).collect::<Vec<_>>().join(", ");
            found.ok_or_else(|| Failure::Usage(format!("there is no column {wanted:?} here; there are {}", there())))
        };
        self.columns.iter().map(find).collect()
    }

    fn table<T>(&self, rows: &[T], columns: &[&Column<T>]) -> String {
        let fits = |column: &&&Column<T>| !column.wide || self.format == Format::Wide || !self.columns.is_empty();
        let columns: Vec<_> = columns.iter().filter(fits).collect();
        let mut table = self.empty_table();
        if self.header {
            table.set_header(columns.iter().map(|column| Cell::new(column.head(self.look))));
        }
        for row in rows {
            table.add_row(columns.iter().map(|column| self.cell((column.cell)(row, &self.look))));
        }
        lines(&table)
    }

    /// One thing: a line for each column, the wide ones too.
    fn details<T>(&self, item: &T, columns: &[&Column<T>]) -> String {
        let mut table = self.empty_table();
        for column in columns {
            let head = self.header.then(|| Cell::new(column.head(self.look)));
            table.add_row(head.into_iter().chain([self.cell((column.cell)(item, &self.look))]));
        }
        lines(&table)
    }

    fn csv<T>(&self, rows: &[T], columns: &[&Column<T>]) -> Result<String, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Local(format!("CSV: {error}"));
        let mut writer = csv::Writer::from_writer(Vec::new());
        if self.header {
            writer.write_record(columns.iter().map(|column| column.name())).map_err(|error| failed(&error))?;
        }
        for row in rows {
            let cells = columns.iter().map(|column| (column.cell)(row, &self.look).exact());
            writer.write_record(cells).map_err(|error| failed(&error))?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(&error))?;
        String::from_utf8(bytes).map_err(|error| failed(&error))
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

    fn cell(&self, shown: Shown) -> Cell {
        let text = plain(&shown.text);
        let cell = match shown.shape.filter(|_| self.look.shapes) {
            Some(shape) => Cell::new(format!("{shape} {text}")),
            None => Cell::new(text),
        };
        match shown.tone.filter(|_| self.colour) {
            Some(tone) => cell.fg(tone),
            None => cell,
        }
    }
}

fn rows<T: DeserializeOwned>(items: &[Value]) -> Result<Vec<T>, Failure> {
    items.iter().map(|item| typed(item.clone())).collect()
}

/// YAML by `serde-saphyr`: `serde_yaml` is archived, its forks rest or stand on a translated C library; this one is maintained, has
/// no unsafe code, and quotes what readers of YAML 1.1 take for something else (`on`, `off`, `no`).
fn yaml(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| Failure::Local(format!("YAML: {error}")))
}

/// Names as one host set; what is no name of a host stands for itself.
fn folded(names: impl Iterator<Item = String>) -> String {
    let (mut hosts, mut others) = (BTreeSet::new(), Vec::new());
    for name in names {
        match name.parse::<HostId>() {
            Ok(host) => drop(hosts.insert(host)),
            Err(_) => others.push(name),
        }
    }
    let folded = Some(hostset::fold(&hosts)).filter(|text| !text.is_empty());
    let words: Vec<String> = folded.into_iter().chain(others).collect();
    if words.is_empty() { String::new() } else { words.join(",") + "\n" }
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
    Shown { shape: Some(shape), text: format!("{state}{mark}"), exact: Some(state.to_string()), tone: Some(tone) }
}

/// A word with a shape before it.
pub fn shaped(shape: char, word: &str) -> Shown {
    Shown { shape: Some(shape), ..word.into() }
}

/// A value that may be absent.
pub fn maybe(value: Option<impl std::fmt::Display>) -> Shown {
    value.map_or_else(|| Shown::from("-").exactly(""), |value| value.to_string().into())
}

/// Yes or no.
pub fn yes_no(value: bool) -> Shown {
    if value { "yes".into() } else { "no".into() }
}

/// How long ago: `12s`, `5m`, `3h`, `9d`; for programs the time itself.
pub fn age(then: Timestamp, look: &Look) -> Shown {
    let seconds = look.now.duration_since(then).as_secs().max(0);
    let text = match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    };
    Shown::from(text).exactly(then)
}

/// As [`age`], of what may not have happened.
pub fn maybe_age(then: Option<Timestamp>, look: &Look) -> Shown {
    then.map_or_else(|| maybe(None::<&str>), |then| age(then, look))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An output as on a machine whose clock says half past midnight of 2026's first day.
    pub fn at(format: Format, terminal: bool) -> Output {
        let look = Look { now: "2026-01-01T00:30:00Z".parse().unwrap(), shapes: terminal };
        Output { format, columns: Vec::new(), header: true, look, colour: false }
    }

    /// What would be printed.
    pub fn shown<T: DeserializeOwned>(out: &Output, items: &[Value], columns: &[Column<T>], single: bool) -> String {
        shown_by(out, items, columns, "id", single)
    }

    /// What would be printed of things that are named by the field `name`.
    pub fn shown_by<T: DeserializeOwned>(out: &Output, items: &[Value], columns: &[Column<T>], name: &str, single: bool) -> String {
        out.rendered(items, columns, name, single).unwrap()
    }

    #[test]
    fn ages() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let look = Look { now, shapes: false };
        for (seconds, wanted) in [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")]
        {
            let then = now - jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(then, &look).text, wanted);
        }
        assert_eq!(age(now, &look).exact(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
    }

    const COLUMNS: &[Column<Value>] = &[
        column("HOST", |v, _| v["id"].as_str().unwrap_or_default().into()),
        column("▲ POWER", |_, _| power(PowerState::Off, true)),
        column("SINCE", |_, look| age(look.now, look)),
        wide("NOTE", |v, _| maybe(v["note"].as_str())),
    ];

    fn items() -> Vec<Value> {
        vec![
            serde_json::json!({"id": "r07n01", "note": "a, \"b\"\nc", "power": "off"}),
            serde_json::json!({"id": "r07n02", "power": "no"}),
            serde_json::json!({"id": "x y"}),
        ]
    }

    #[test]
    fn every_format_has_its_form() {
        let table = "HOST    POWER        SINCE\nr07n01  off (stale)  0s\nr07n02  off (stale)  0s\nx y     off (stale)  0s\n";
        let wide = "\
HOST    POWER        SINCE  NOTE
r07n01  off (stale)  0s     a, \"b\"\u{fffd}c
r07n02  off (stale)  0s     -
x y     off (stale)  0s     -
";
        let csv = "host,power,since,note\nr07n01,off,2026-01-01T00:30:00Z,\"a, \"\"b\"\"\nc\"\nr07n02,off,2026-01-01T00:30:00Z,\n\
                   x y,off,2026-01-01T00:30:00Z,\n";
        let yaml = "- id: r07n01\n  note: |-\n    a, \"b\"\n    c\n  power: \"off\"\n- id: r07n02\n  power: \"no\"\n- id: x y\n";
        let jsonl = "{\"id\":\"r07n01\",\"note\":\"a, \\\"b\\\"\\nc\",\"power\":\"off\"}\n{\"id\":\"r07n02\",\"power\":\"no\"}\n{\"id\":\"x y\"}\n";
        for (format, wanted) in [
            (Format::Table, table),
            (Format::Wide, wide),
            (Format::Csv, csv),
            (Format::Yaml, yaml),
            (Format::Jsonl, jsonl),
            (Format::Name, "r07n01\nr07n02\nx y\n"),
            (Format::Folded, "r07n[01-02],x y\n"),
        ] {
            assert_eq!(shown(&at(format, false), &items(), COLUMNS, false), wanted, "{format:?}");
        }
        let json = shown(&at(Format::Json, false), &items(), COLUMNS, false);
        assert_eq!(serde_json::from_str::<Vec<Value>>(&json).unwrap(), items());
        assert_eq!(shown(&at(Format::Folded, false), &[], COLUMNS, false), "");
        assert_eq!(shown(&at(Format::Yaml, false), &items()[1..2], COLUMNS, true), "id: r07n02\npower: \"no\"\n");
        assert_eq!(
            shown(&at(Format::Table, false), &items()[1..2], COLUMNS, true),
            "HOST   r07n02\nPOWER  off (stale)\nSINCE  0s\nNOTE   -\n"
        );
    }

    #[test]
    fn shapes_and_colour_are_for_terminals() {
        let one = &items()[1..2];
        let shapes = "HOST    ▲ POWER        SINCE\nr07n02  ■ off (stale)  0s\n";
        assert_eq!(shown(&at(Format::Table, true), one, COLUMNS, false), shapes);
        let coloured = Output { colour: true, ..at(Format::Table, true) };
        let coloured = shown(&coloured, one, COLUMNS, false);
        assert!(coloured.contains("\u{1b}[") && coloured.contains("■ off"), "{coloured}");
        assert!(!shown(&at(Format::Csv, true), one, COLUMNS, false).contains('■'));
    }

    #[test]
    fn columns_can_be_chosen() {
        let chosen = |format, names: &str, header| {
            let columns = names.split(',').map(str::to_owned).collect();
            Output { columns, header, ..at(format, false) }.rendered(&items()[1..2], COLUMNS, "id", false)
        };
        assert_eq!(chosen(Format::Table, "note,HOST", true).unwrap(), "NOTE  HOST\n-     r07n02\n");
        assert_eq!(chosen(Format::Csv, "power,host", false).unwrap(), "off,r07n02\n");
        let error = chosen(Format::Csv, "colour", true).unwrap_err().to_string();
        assert_eq!(error, "there is no column \"colour\" here; there are host, power, since, note");
    }
}
