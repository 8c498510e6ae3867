//! Which ETags a PATCH is tried with. BMCs disagree about what they accept: the one of the header or of the body
//! (Lenovo XCC wants the body's), with or without the mark of weakness, with doubled quotes (Gigabyte), or none at all.

/// The longest ETag that is sent back, in bytes.
const MAX_LEN: usize = 256;

/// One try: what `If-Match` says, and what facts call it when that was needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// `None`: without `If-Match`.
    pub if_match: Option<String>,
    /// Empty for the standard's way.
    pub quirk: &'static str,
}

/// The tries, in their order: as given, as a strong tag, the body's, none; without any tag none and then `*`. The next one is
/// tried only when the BMC says that it did nothing because of the one before (412, 428).
#[must_use]
pub fn ladder(header: Option<&str>, body: Option<&str>) -> Vec<Rung> {
    let usable = |tag: &&str| !tag.is_empty() && tag.len() <= MAX_LEN && tag.bytes().all(|byte| (0x20..0x7F).contains(&byte));
    let (header, body) = (header.filter(usable), body.filter(usable));
    let rung = |tag: &str, quirk| Rung { if_match: Some(tag.to_owned()), quirk };
    let mut rungs = Vec::new();
    for (tag, quirk) in [(header, ""), (body, if header.is_some() { "body-etag" } else { "" })] {
        let Some(tag) = tag else { continue };
        rungs.push(rung(tag, quirk));
        rungs.push(rung(&strong(tag), "weak-etag"));
    }
    let without = Rung { if_match: None, quirk: if rungs.is_empty() { "" } else { "no-etag" } };
    let any = rungs.is_empty().then(|| rung("*", "any-etag"));
    rungs.push(without);
    rungs.extend(any);
    let mut seen: Vec<Rung> = Vec::new();
    for rung in rungs {
        if seen.iter().all(|other| other.if_match != rung.if_match) {
            seen.push(rung);
        }
    }
    seen
}

/// Without the mark of weakness, and in one pair of quotes.
fn strong(tag: &str) -> String {
    let bare = tag.strip_prefix("W/").or_else(|| tag.strip_prefix("w/")).unwrap_or(tag);
    format!("\"{}\"", bare.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_in_its_order() {
        let tries = |header: Option<&str>, body: Option<&str>| -> Vec<String> {
            let rungs = ladder(header, body).into_iter();
            rungs.map(|rung| format!("{} {}", rung.if_match.as_deref().unwrap_or("-"), rung.quirk)).collect()
        };
        let long = "x".repeat(MAX_LEN + 1);
        for (header, body, expected) in [
            (Some("\"a\""), Some("\"a\""), &["\"a\" ", "- no-etag"][..]),
            (Some("W/\"a\""), Some("\"a\""), &["W/\"a\" ", "\"a\" weak-etag", "- no-etag"]),
            (Some("W/\"a\""), None, &["W/\"a\" ", "\"a\" weak-etag", "- no-etag"]),
            (Some("\"a\""), Some("W/\"b\""), &["\"a\" ", "W/\"b\" body-etag", "\"b\" weak-etag", "- no-etag"]),
            (None, Some("\"\"b\"\""), &["\"\"b\"\" ", "\"b\" weak-etag", "- no-etag"]),
            (Some("bare"), None, &["bare ", "\"bare\" weak-etag", "- no-etag"]),
            (None, None, &["- ", "* any-etag"]),
            (Some(""), Some("a\r\nX: y"), &["- ", "* any-etag"]),
            (Some(long.as_str()), None, &["- ", "* any-etag"]),
        ] {
            assert_eq!(tries(header, body), expected, "{header:?} {body:?}");
        }
    }
}
