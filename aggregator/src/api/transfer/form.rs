//! Which form a file has: said by `Content-Type` and `Accept`, or seen from its first character.

use axum::http::{HeaderMap, HeaderName, header};

use super::super::problem::ApiError;

/// A form of a file of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// CSV (RFC 4180) with a first line that names its columns.
    Table,
    /// JSON: one object a line, or one array of objects.
    Lines,
}

/// Its names as a media type, the first being the one that is answered with.
const TABLE: [&str; 1] = ["text/csv"];
const LINES: [&str; 5] =
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines", "application/json"];

/// What says nothing: `curl --data-binary` and the like send these.
const UNSAID: [&str; 3] = ["", "application/octet-stream", "application/x-www-form-urlencoded"];

impl Form {
    /// The media type of an answer.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Table => "text/csv; charset=utf-8",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// The form that a request's body is said to have; none when nothing is said.
    ///
    /// # Errors
    /// [`ApiError::UnsupportedMedia`].
    pub fn said(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let text = value(headers, &header::CONTENT_TYPE);
        let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media = parts.next().unwrap_or_default();
        let charset = parts.find_map(|part| part.strip_prefix("charset=").map(|name| name.trim_matches('"').to_owned()));
        let is_utf8 = charset.is_none_or(|name| matches!(name.as_str(), "utf-8" | "utf8" | "us-ascii"));
        match media.as_str() {
            _ if !is_utf8 => Err(ApiError::UnsupportedMedia),
            media if TABLE.contains(&media) => Ok(Some(Self::Table)),
            media if LINES.contains(&media) => Ok(Some(Self::Lines)),
            media if UNSAID.contains(&media) => Ok(None),
            _ => Err(ApiError::UnsupportedMedia),
        }
    }

    /// The form that a text most likely has: JSON begins with a bracket, and no column does.
    pub fn seen(text: &[u8]) -> Self {
        let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
        if matches!(first, Some(b'{' | b'[')) { Self::Lines } else { Self::Table }
    }

    /// The form that is wanted of an answer (RFC 9110 §12.5.1): the one with the higher weight, JSON when both have the same.
    ///
    /// # Errors
    /// [`ApiError::NotAcceptable`].
    pub fn wanted(headers: &HeaderMap) -> Result<Self, ApiError> {
        let text = value(headers, &header::ACCEPT);
        if text.trim().is_empty() {
            return Ok(Self::Lines);
        }
        let weight = |form: Self| text.split(',').filter_map(|range| weight(range, form)).max().map_or(0, |(_, weight)| weight);
        match (weight(Self::Table), weight(Self::Lines)) {
            (0, 0) => Err(ApiError::NotAcceptable),
            (table, lines) if table > lines => Ok(Self::Table),
            _ => Ok(Self::Lines),
        }
    }
}

/// How exactly one range of `Accept` names a form, and its weight in thousandths; none when it does not name it. The most exact
/// range counts.
fn weight(range: &str, form: Form) -> Option<(u8, u16)> {
    let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
    let media = parts.next()?;
    let (group, names) = match form {
        Form::Table => ("text/*", &TABLE[..]),
        // Several objects are no JSON document.
        Form::Lines => ("application/*", &LINES[..4]),
    };
    let exact = match media.as_str() {
        "*/*" => 0,
        media if media == group => 1,
        media if names.contains(&media) => 2,
        _ => return None,
    };
    let weight = parts.find_map(|part| part.strip_prefix("q=").map(thousandths)).unwrap_or(1000);
    Some((exact, weight))
}

/// `0.75` → 750 (RFC 9110 §12.4.2); what cannot be read is 0: it is not wanted.
fn thousandths(text: &str) -> u16 {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{rest:0<3}");
    if rest.len() > 3 { 0 } else { digits.parse().map_or(0, |weight: u16| weight.min(1000)) }
}

fn value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        [(name, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn bodies_say_their_form() {
        let said = |value: &str| Form::said(&headers(header::CONTENT_TYPE, value)).map_err(|_| ());
        for (value, wanted) in [
            ("text/csv", Ok(Some(Form::Table))),
            ("Text/CSV; header=present; charset=\"UTF-8\"", Ok(Some(Form::Table))),
            ("application/x-ndjson", Ok(Some(Form::Lines))),
            ("application/json", Ok(Some(Form::Lines))),
            ("application/x-www-form-urlencoded", Ok(None)),
            ("text/csv; charset=iso-8859-1", Err(())),
            ("application/xml", Err(())),
            ("text/plain", Err(())),
        ] {
            assert_eq!(said(value), wanted, "{value}");
        }
        assert_eq!(Form::said(&HeaderMap::new()).unwrap(), None);
        for (text, wanted) in [("\n {", Form::Lines), ("[", Form::Lines), ("id,rack", Form::Table), ("", Form::Table)] {
            assert_eq!(Form::seen(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn answers_have_the_form_that_is_wanted() {
        let wanted = |value: &str| Form::wanted(&headers(header::ACCEPT, value)).map_err(|_| ());
        for (value, form) in [
            ("*/*", Ok(Form::Lines)),
            ("text/csv", Ok(Form::Table)),
            ("text/*", Ok(Form::Table)),
            ("application/x-ndjson", Ok(Form::Lines)),
            ("text/csv;q=0.5, application/x-ndjson;q=0.25", Ok(Form::Table)),
            ("text/csv;q=0.5, */*", Ok(Form::Lines)),
            ("text/csv;q=0, */*;q=0.1", Ok(Form::Lines)),
            ("application/*;q=0.2, text/csv;q=0.3", Ok(Form::Table)),
            ("application/json", Err(())),
            ("text/html, image/png", Err(())),
            ("text/csv;q=0", Err(())),
        ] {
            assert_eq!(wanted(value), form, "{value}");
        }
        assert_eq!(Form::wanted(&HeaderMap::new()).unwrap(), Form::Lines);
    }
}
