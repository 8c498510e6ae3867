//! Host sets as people write them: `r07n[01-48/2],r08n01` → names. Ranges keep their zeros. Knows nothing of what hosts exist.

use picket_common::id::HostId;

/// Most hosts of one command: the largest fleet ten times over.
const MAX_HOSTS: usize = 100_000;

/// The hosts that `words` name, in order, each once. A word `-` stands for `stdin`'s words.
///
/// # Errors
/// Which word is wrong, and why.
pub fn expand(words: &[String], stdin: impl FnOnce() -> Result<String, String>) -> Result<Vec<HostId>, String> {
    let mut texts = Vec::new();
    let mut stdin = Some(stdin);
    for word in words {
        if word == "-" {
            let read = stdin.take().ok_or("`-` may stand once")?;
            texts.extend(read()?.split_whitespace().map(str::to_owned));
        } else {
            texts.push(word.clone());
        }
    }
    let mut names = Vec::new();
    for part in texts.iter().flat_map(|text| outside_brackets(text)).filter(|part| !part.is_empty()) {
        if part.starts_with('@') {
            return Err(format!("{part:?}: groups are not supported yet; use `hosts list -o name` and `-`"));
        }
        let room = MAX_HOSTS.saturating_sub(names.len());
        names.extend(product(part, room)?);
    }
    let mut seen = std::collections::HashSet::new();
    let mut hosts = Vec::new();
    for name in names {
        let host: HostId = name.parse().map_err(|error: picket_common::id::IdError| error.to_string())?;
        if seen.insert(host.clone()) {
            hosts.push(host);
        }
    }
    if hosts.is_empty() { Err("no host is named".into()) } else { Ok(hosts) }
}

/// Splits at the commas that are not in brackets.
fn outside_brackets(text: &str) -> Vec<&str> {
    let mut inside = false;
    let split = text.split(move |c| {
        inside = (inside || c == '[') && c != ']';
        c == ',' && !inside
    });
    split.map(str::trim).collect()
}

/// All names of one part: the product of its bracketed ranges.
fn product(part: &str, room: usize) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut rest = part;
    while let Some((before, after)) = rest.split_once('[') {
        let (ranges, tail) = after.split_once(']').ok_or_else(|| format!("{part:?}: a '[' is not closed"))?;
        let values = values(ranges, room).map_err(|why| format!("{part:?}: {why}"))?;
        if names.len().saturating_mul(values.len()) > room {
            return Err(format!("{part:?}: more than {MAX_HOSTS} hosts"));
        }
        names = names.iter().flat_map(|name| values.iter().map(move |value| format!("{name}{before}{value}"))).collect();
        rest = tail;
    }
    if rest.contains(']') {
        return Err(format!("{part:?}: a ']' was not opened"));
    }
    for name in &mut names {
        name.push_str(rest);
    }
    if names.len() > room { Err(format!("more than {MAX_HOSTS} hosts")) } else { Ok(names) }
}

/// `01-03,7,10-20/5` → 01 02 03 7 10 15 20.
fn values(ranges: &str, room: usize) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    for range in ranges.split(',') {
        let bad = || format!("{range:?} is not a range: write 01-48, 7 or 0-10/2");
        let (span, step) = match range.split_once('/') {
            Some((span, step)) => (span, number(step).filter(|step| *step > 0).ok_or_else(bad)?),
            None => (range, 1),
        };
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        let (from, to) = (number(first).ok_or_else(bad)?, number(last).ok_or_else(bad)?);
        if from > to {
            return Err(bad());
        }
        let width = if first.starts_with('0') { first.len() } else { 0 };
        if usize::try_from((to - from) / step).unwrap_or(usize::MAX).saturating_add(values.len()) >= room {
            return Err(format!("more than {MAX_HOSTS} hosts"));
        }
        let mut value = Some(from);
        while let Some(next) = value.filter(|value| *value <= to) {
            values.push(format!("{next:0width$}"));
            value = next.checked_add(step);
        }
    }
    Ok(values)
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<String, String> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let hosts = expand(&words, || Ok("x1 x2\nx3\n".into()))?;
        Ok(hosts.iter().map(HostId::as_str).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn sets_expand() {
        for (text, wanted) in [
            ("h1", "h1"),
            ("h1 h2 h1", "h1 h2"),
            ("h1,h2", "h1 h2"),
            ("r07n[01-03]", "r07n01 r07n02 r07n03"),
            ("r07n[8-11]", "r07n8 r07n9 r07n10 r07n11"),
            ("n[098-101]", "n098 n099 n100 n101"),
            ("r[1-2]n[1,5]-bmc", "r1n1-bmc r1n5-bmc r2n1-bmc r2n5-bmc"),
            ("n[0-6/3],m1", "n0 n3 n6 m1"),
            ("a -", "a x1 x2 x3"),
        ] {
            assert_eq!(names(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (text, wanted) in [
            ("n[1-", "not closed"),
            ("n1]", "not opened"),
            ("n[3-1]", "not a range"),
            ("n[a-b]", "not a range"),
            ("n[]", "not a range"),
            ("n[1-5/0]", "not a range"),
            ("n[1-99999999]", "more than 100000"),
            ("n[1-1000]x[1-1000]", "more than 100000"),
            ("n[1-60000],m[1-60000]", "more than 100000"),
            ("n[0-18446744073709551615/9223372036854775808]", ""),
            ("N1", "not a valid host id"),
            ("@rack:r1", "groups"),
            (",", "no host"),
            ("- -", "once"),
        ] {
            match names(text) {
                Err(why) => assert!(why.contains(wanted), "{text}: {why}"),
                Ok(names) => assert_eq!(wanted, "", "{text} became {names}"),
            }
        }
    }
}
