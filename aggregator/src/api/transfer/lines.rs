//! Hosts as JSON: one object a line (NDJSON), or one array of objects. A host may have its BMC in the form of HIL, `obm`.
//! Never repeats a value: it may be a password in the wrong place.

use picket_common::api::HostBody;
use picket_common::driver;
use picket_common::id::HostId;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::extract::{parse, parse_value};
use super::super::problem::ApiError;
use super::entry::{Defaults, Entry, Given, host_id};

/// The hosts of a text.
///
/// # Errors
/// When it is an array that cannot be read to its end: where its next object would begin is not known then.
pub fn entries(text: &[u8], defaults: &Defaults) -> Result<Vec<Entry>, ApiError> {
    if text.trim_ascii_start().first() == Some(&b'[') { array(text, defaults) } else { Ok(one_a_line(text, defaults)) }
}

fn one_a_line(text: &[u8], defaults: &Defaults) -> Vec<Entry> {
    let numbered = (1..).zip(text.split(|byte| *byte == b'\n'));
    let filled = numbered.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    filled.map(|(line, text)| entry(line, parse(text).map_err(of_one_line), defaults)).collect()
}

/// What is wrong within one line is told by its column alone.
fn of_one_line(error: ApiError) -> ApiError {
    match error {
        ApiError::Malformed(text) => ApiError::Malformed(text.replace(" at line 1 column ", " at column ")),
        error => error,
    }
}

fn array(text: &[u8], defaults: &Defaults) -> Result<Vec<Entry>, ApiError> {
    let mut cursor = Cursor { text, at: 0, line: 1 };
    cursor.takes(b'[');
    let mut entries = Vec::new();
    if !cursor.takes(b']') {
        loop {
            let (line, value) = cursor.value()?;
            let fields = if let Value::Object(fields) = value { Ok(fields) } else { Err(expected_object()) };
            entries.push(entry(line, fields, defaults));
            if cursor.takes(b']') {
                break;
            }
            if !cursor.takes(b',') {
                return Err(cursor.broken("expected `,` or `]`"));
            }
        }
    }
    if cursor.is_at_end() { Ok(entries) } else { Err(cursor.broken("something follows the array")) }
}

fn expected_object() -> ApiError {
    ApiError::invalid("body", "expected an object")
}

/// A place in a text.
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl Cursor<'_> {
    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn go(&mut self, length: usize) {
        let passed = self.rest().get(..length).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
        self.line += passed as u64;
        self.at += length;
    }

    fn skip_space(&mut self) {
        let space = self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.go(space);
    }

    fn takes(&mut self, wanted: u8) -> bool {
        self.skip_space();
        let is_next = self.rest().first() == Some(&wanted);
        if is_next {
            self.go(1);
        }
        is_next
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.rest().is_empty()
    }

    /// The next value, and the line it begins in.
    fn value(&mut self) -> Result<(u64, Value), ApiError> {
        self.skip_space();
        let line = self.line;
        let mut values = serde_json::Deserializer::from_slice(self.rest()).into_iter::<Value>();
        let value = values.next();
        let length = values.byte_offset();
        match value {
            Some(Ok(value)) => {
                self.go(length);
                Ok((line, value))
            }
            Some(Err(error)) => {
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or_default();
                let line = line + u64::try_from(error.line()).unwrap_or(1).saturating_sub(1);
                Err(ApiError::Malformed(format!("line {line}: {text}")))
            }
            None => Err(self.broken("the array is not closed")),
        }
    }

    fn broken(&self, text: &str) -> ApiError {
        ApiError::Malformed(format!("line {}: {text}", self.line))
    }
}

fn entry(line: u64, fields: Result<Map<String, Value>, ApiError>, defaults: &Defaults) -> Entry {
    let mut id = None;
    let host = fields.and_then(|fields| given(fields, defaults, &mut id));
    Entry { line, id, host }
}

fn given(mut fields: Map<String, Value>, defaults: &Defaults, id: &mut Option<HostId>) -> Result<Given, ApiError> {
    let obm = fields.remove("obm");
    let name = match (fields.remove("id"), &obm) {
        // HIL calls its hosts nodes.
        (None, Some(_)) => fields.remove("node"),
        (name, _) => name,
    };
    let Some(Value::String(text)) = name else { return Err(ApiError::invalid("id", "is missing, or not a string")) };
    *id = Some(host_id(&text)?);
    if let Some(obm) = obm {
        if fields.contains_key("bmc") {
            return Err(ApiError::invalid("obm", "stands in the place of `bmc`: give one of them"));
        }
        fields.insert("bmc".into(), bmc_of(parse_value(Value::Object(Map::from_iter([("obm".into(), obm)])))?)?);
    }
    let oobm = match fields.remove("oobm_enabled") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(open)) => Some(open),
        Some(_) => return Err(ApiError::invalid("oobm_enabled", "expected true or false")),
    };
    for (name, default) in
        [("cluster", defaults.cluster.as_ref().map(ToString::to_string)), ("rack", defaults.rack.as_ref().map(ToString::to_string))]
    {
        if let Some(default) = default {
            fields.entry(name).or_insert(Value::String(default));
        }
    }
    Ok(Given { oobm, body: parse_value::<HostBody>(Value::Object(fields))? })
}

/// `{"obm": {…}}`, so that what is wrong within is named by its whole path.
#[derive(Deserialize)]
struct Hil {
    obm: Obm,
}

/// A BMC as HIL registered it (`node_register`).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Obm {
    /// A URI: its last part names the driver.
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password: Option<String>,
}

fn bmc_of(Hil { obm }: Hil) -> Result<Value, ApiError> {
    let Obm { kind, host, user, password } = obm;
    let word = kind.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let driver = match word.as_str() {
        // HIL's driver without hardware.
        "mock" | "dummy" => driver::NULL.name,
        word => driver::find(word).map(|driver| driver.name).ok_or_else(|| {
            ApiError::invalid("obm.type", "has an ending that is no driver's: use …/obm/ipmi, or …/obm/mock for none")
        })?,
    };
    Ok(serde_json::json!({ "driver": driver, "address": host, "username": user, "password": password }))
}
