//! Hosts as CSV (RFC 4180): the first line names the columns, in any order. Maps stand in one cell, `key=value;key=value`, with a
//! backslash before what would be taken for something else. Never repeats a cell: it may be a password in the wrong place.

use std::collections::BTreeMap;
use std::str::FromStr;

use csv::ByteRecord;
use picket_common::api::{BmcBody, BmcRecord, Field, HostBody, HostRecord};
use picket_common::id::HostId;
use picket_common::secret::Secret;

use super::super::problem::ApiError;
use super::entry::{Defaults, Entry, Given, host_id};

/// All columns, as an export has them.
pub const COLUMNS: [&str; 15] = [
    "id",
    "zone",
    "cluster",
    "rack",
    "oobm_enabled",
    "driver",
    "address",
    "port",
    "username",
    "password",
    "options",
    "maintenance",
    "poll_interval",
    "action_timeout",
    "labels",
];

/// What separates cells: spreadsheets write semicolons where the comma is the decimal point.
const DELIMITERS: [u8; 3] = *b",;\t";

/// The hosts of a text.
///
/// # Errors
/// When its first line does not name its columns.
pub fn entries(text: &[u8], defaults: &Defaults) -> Result<Vec<Entry>, ApiError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).delimiter(delimiter(text)).from_reader(text);
    let unreadable = |error: csv::Error| ApiError::invalid("body", format!("is not CSV: {error}"));
    let header = Header::read(reader.byte_headers().map_err(unreadable)?, defaults)?;
    let mut entries = Vec::new();
    for record in reader.into_byte_records() {
        let record = record.map_err(unreadable)?;
        if record.iter().any(|cell| !cell.is_empty()) {
            entries.push(header.entry(line_of(text, &record), &record, defaults));
        }
    }
    Ok(entries)
}

/// The line that a record begins in: the reader has it begin with the empty lines before it.
fn line_of(text: &[u8], record: &ByteRecord) -> u64 {
    let Some(position) = record.position() else { return 0 };
    let before = usize::try_from(position.byte()).ok().and_then(|at| text.get(at..)).unwrap_or_default();
    let empty = before.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|byte| **byte == b'\n').count();
    position.line() + empty as u64
}

/// The one that the first line has most of.
fn delimiter(text: &[u8]) -> u8 {
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |wanted: u8| first.iter().filter(|byte| **byte == wanted).count();
    DELIMITERS.into_iter().rev().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}

/// Which column stands where: for each cell its place among [`COLUMNS`].
struct Header(Vec<&'static str>);

impl Header {
    fn read(cells: &ByteRecord, defaults: &Defaults) -> Result<Self, ApiError> {
        let wrong = |text: String| ApiError::invalid("body", format!("line 1: {text}"));
        let mut found: Vec<&'static str> = Vec::new();
        for (n, cell) in (1..).zip(cells) {
            let name = String::from_utf8_lossy(cell).trim().to_ascii_lowercase().replace([' ', '-'], "_");
            let column = COLUMNS.into_iter().find(|column| *column == name).ok_or_else(|| {
                wrong(format!("cell {n} is not the name of a column; the first line names them: {}", COLUMNS.join(",")))
            })?;
            if found.contains(&column) {
                return Err(wrong(format!("the column {column} is there twice")));
            }
            found.push(column);
        }
        for (column, default) in [("id", false), ("cluster", defaults.cluster.is_some()), ("rack", defaults.rack.is_some())] {
            if !default && !found.contains(&column) {
                let or = if column == "id" { String::new() } else { format!(", or name it for all hosts: `?{column}=…`") };
                return Err(wrong(format!("the column {column} is missing; add it{or}")));
            }
        }
        Ok(Self(found))
    }

    fn entry(&self, line: u64, record: &ByteRecord, defaults: &Defaults) -> Entry {
        let host = self.cells(record).and_then(|cells| given(&cells, defaults));
        Entry { line, id: self.id(record), host }
    }

    /// Which host, whatever else is wrong with its line.
    fn id(&self, record: &ByteRecord) -> Option<HostId> {
        let cell = record.get(self.0.iter().position(|column| *column == "id")?)?;
        std::str::from_utf8(cell).ok()?.trim().parse().ok()
    }

    /// The cells that hold something, by column.
    fn cells<'a>(&self, record: &'a ByteRecord) -> Result<Cells<'a>, ApiError> {
        if record.len() != self.0.len() {
            let text = format!(
                "has {} cells where the first line has {}; a cell with a comma, a quote or a line break stands in quotes",
                record.len(),
                self.0.len()
            );
            return Err(ApiError::invalid("row", text));
        }
        let mut cells = BTreeMap::new();
        for (column, cell) in self.0.iter().zip(record) {
            let text = std::str::from_utf8(cell).map_err(|_| ApiError::invalid(*column, "is not UTF-8; save the file as UTF-8"))?;
            if !text.is_empty() {
                cells.insert(*column, text);
            }
        }
        Ok(Cells(cells))
    }
}

struct Cells<'a>(BTreeMap<&'static str, &'a str>);

impl Cells<'_> {
    /// As it stands there: a password or a name may well begin or end with a space.
    fn text(&self, column: &'static str) -> Option<String> {
        self.0.get(column).map(|text| (*text).to_owned())
    }

    /// Without what surrounds it.
    fn word(&self, column: &'static str) -> Option<&str> {
        self.0.get(column).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    fn id<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        let parsed = self.word(column).map(str::parse).transpose();
        parsed.map_err(|error: T::Err| ApiError::invalid(column, error.to_string()))
    }

    fn number<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, ApiError> {
        let parsed = self.word(column).map(str::parse).transpose();
        parsed.map_err(|_| ApiError::invalid(column, "expected a whole number that fits"))
    }

    fn truth(&self, column: &'static str) -> Result<Option<bool>, ApiError> {
        let word = self.word(column).map(str::to_ascii_lowercase);
        match word.as_deref() {
            None => Ok(None),
            Some("true" | "yes" | "1") => Ok(Some(true)),
            Some("false" | "no" | "0") => Ok(Some(false)),
            Some(_) => Err(ApiError::invalid(column, "expected true or false")),
        }
    }

    fn pairs(&self, column: &'static str) -> Result<BTreeMap<String, String>, ApiError> {
        self.0.get(column).map_or_else(|| Ok(BTreeMap::new()), |text| read_pairs(column, text))
    }
}

fn given(cells: &Cells<'_>, defaults: &Defaults) -> Result<Given, ApiError> {
    host_id(cells.word("id").ok_or_else(|| ApiError::invalid("id", "is missing"))?)?;
    let options = cells.pairs("options")?;
    let bmc = BmcBody {
        driver: cells.word("driver").map(str::to_owned),
        address: cells.word("address").map(str::to_owned),
        port: cells.number("port")?,
        username: cells.text("username"),
        password: cells.text("password").map(Secret::new),
        options: (!options.is_empty()).then_some(options),
    };
    let has_bmc = ["driver", "address", "port", "username", "password", "options"].iter().any(|name| cells.0.contains_key(name));
    let missing = |column| move || ApiError::invalid(column, "is missing");
    let body = HostBody {
        cluster: cells.id("cluster")?.or_else(|| defaults.cluster.clone()).ok_or_else(missing("cluster"))?,
        zone: cells.id("zone")?,
        rack: cells.id("rack")?.or_else(|| defaults.rack.clone()).ok_or_else(missing("rack"))?,
        bmc: has_bmc.then_some(bmc),
        maintenance: cells.truth("maintenance")?.unwrap_or(false),
        poll_interval: cells.number("poll_interval")?,
        action_timeout: cells.number("action_timeout")?,
        labels: cells.pairs("labels")?,
        ha: Field::Keep,
    };
    Ok(Given { oobm: cells.truth("oobm_enabled")?, body })
}

/// The first line of an export.
pub fn head() -> Vec<u8> {
    written(std::iter::once(COLUMNS.map(str::to_owned)))
}

/// The lines of hosts. The column of the password is there to be filled in.
pub fn rows<'a>(hosts: impl Iterator<Item = &'a HostRecord>) -> Vec<u8> {
    written(hosts.map(row))
}

fn row(host: &HostRecord) -> [String; COLUMNS.len()] {
    let HostRecord { id, zone, cluster, rack, oobm_enabled, bmc, maintenance, poll_interval, action_timeout, labels } = host;
    let none = BmcRecord::default();
    let BmcRecord { driver, address, port, username, options } = bmc.as_ref().unwrap_or(&none);
    let number = |number: &Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    [
        id.to_string(),
        zone.to_string(),
        cluster.to_string(),
        rack.to_string(),
        oobm_enabled.to_string(),
        driver.clone().unwrap_or_default(),
        address.clone().unwrap_or_default(),
        port.map(|port| port.to_string()).unwrap_or_default(),
        username.clone().unwrap_or_default(),
        String::new(),
        write_pairs(options),
        maintenance.to_string(),
        number(poll_interval),
        number(action_timeout),
        write_pairs(labels),
    ]
}

fn written(lines: impl Iterator<Item = [String; COLUMNS.len()]>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for line in lines {
        if let Err(error) = writer.write_record(&line) {
            tracing::error!(%error, "a line of an export was not written");
        }
    }
    writer.into_inner().unwrap_or_default()
}

/// `os=linux;row=7`.
pub fn write_pairs(map: &BTreeMap<String, String>) -> String {
    let pair = |(key, value): (&String, &String)| format!("{}={}", escaped(key, "\\;= "), escaped(value, "\\;"));
    map.iter().map(pair).collect::<Vec<_>>().join(";")
}

fn escaped(text: &str, special: &str) -> String {
    text.chars().flat_map(|c| special.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// The map of a cell. Spaces before a key are not part of it.
pub fn read_pairs(column: &'static str, text: &str) -> Result<BTreeMap<String, String>, ApiError> {
    let wrong = |text: &str| ApiError::invalid(column, format!("{text}; write key=value;key=value"));
    let (mut map, mut pair, mut is_escaped) = (BTreeMap::new(), Pair::default(), false);
    for c in text.chars() {
        match c {
            c if is_escaped => {
                pair.push(c);
                is_escaped = false;
            }
            '\\' => is_escaped = true,
            ';' => std::mem::take(&mut pair).end(&mut map).map_err(wrong)?,
            '=' if pair.value.is_none() => pair.value = Some(String::new()),
            ' ' if pair.value.is_none() && pair.key.is_empty() => {}
            c => pair.push(c),
        }
    }
    if is_escaped {
        return Err(wrong("ends with a backslash"));
    }
    pair.end(&mut map).map_err(wrong)?;
    Ok(map)
}

/// A pair as far as it was read.
#[derive(Default)]
struct Pair {
    key: String,
    /// Since the first `=`.
    value: Option<String>,
}

impl Pair {
    fn push(&mut self, c: char) {
        self.value.as_mut().unwrap_or(&mut self.key).push(c);
    }

    fn end(self, map: &mut BTreeMap<String, String>) -> Result<(), &'static str> {
        match (self.value, self.key) {
            (None, key) if key.is_empty() => Ok(()),
            (None, _) => Err("has a word without `=`"),
            (Some(_), key) if key.is_empty() => Err("has a value without a key"),
            (Some(value), key) => {
                if map.insert(key, value).is_some() {
                    Err("has a key twice")
                } else {
                    Ok(())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_stand_in_one_cell() {
        let map =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
        for (text, wanted) in [
            ("", Ok(map(&[]))),
            ("os=linux", Ok(map(&[("os", "linux")]))),
            ("os=linux; row=7;", Ok(map(&[("os", "linux"), ("row", "7")]))),
            ("empty=", Ok(map(&[("empty", "")]))),
            (r"a\=b=c=d\;e", Ok(map(&[("a=b", "c=d;e")]))),
            ("word", Err("options: has a word without `=`")),
            ("=x", Err("options: has a value without a key")),
            ("a=1;a=2", Err("options: has a key twice")),
            (r"a=1\", Err("options: ends with a backslash")),
        ] {
            match (read_pairs("options", text), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{text}"),
                (Err(error), Err(wanted)) => assert!(error.to_string().starts_with(wanted), "{text}: {error}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
