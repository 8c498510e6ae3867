//! Reads Rust far enough to see what a file names: comments, texts and tests are blanked, `use` trees become whole paths.

use std::path::Path;

/// A path that a source file names, such as `std::fs::File`; `self`, `super` and `crate` are resolved to `crate::…`.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    pub line: usize,
    pub path: String,
}

/// All paths that `text`, the file `file` within a crate's `src`, names outside its tests.
pub fn named(file: &Path, text: &str) -> Vec<Named> {
    let code = without_tests(&without_comments_and_texts(text));
    let here = module_of(file);
    let children: Vec<&str> = code.lines().filter_map(child).collect();
    let (mut imports, mut inline) = (Vec::new(), Vec::new());
    let mut scanner = Scanner { code: code.as_bytes(), at: 0, line: 1 };
    while let Some((line, word)) = scanner.word() {
        if word == "use" {
            imports.extend(scanner.tree("").into_iter().map(|import| (line, import)));
        } else {
            inline.push((line, scanner.rest_of_path(word)));
        }
    }
    let resolve = |path: &str| resolved(&here, &children, path.trim_start_matches("::"));
    let whole = inline.iter().filter(|(_, path)| path.contains("::")).map(|(line, path)| (*line, imported(path, &imports)));
    let imported = imports.iter().map(|(line, import)| (*line, import.path.clone()));
    imported.chain(whole).map(|(line, path)| Named { line, path: resolve(&path) }).collect()
}

/// What a `use` brings in, and under which name.
struct Import {
    path: String,
    name: String,
}

/// `Timestamp::now` after `use jiff::Timestamp` is `jiff::Timestamp::now`.
fn imported(path: &str, imports: &[(usize, Import)]) -> String {
    let (first, rest) = path.split_once("::").unwrap_or((path, ""));
    match imports.iter().find(|(_, import)| import.name == first) {
        Some((_, import)) => format!("{}::{rest}", import.path),
        None => path.to_owned(),
    }
}

/// Files that a `mod` line under `#[cfg(test)]` names: they hold tests only.
pub fn test_modules(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.windows(2).filter(|pair| matches!(pair, ["#[cfg(test)]", _])).filter_map(|pair| child(pair.get(1)?)).collect()
}

/// `mod name;`, with whatever visibility.
fn child(line: &str) -> Option<&str> {
    let (before, rest) = line.trim().split_once("mod ")?;
    let visible = before.is_empty() || before.starts_with("pub");
    rest.strip_suffix(';').filter(|_| visible)
}

/// `rack/host.rs` → `["rack", "host"]`, `rack/mod.rs` → `["rack"]`, `lib.rs` → `[]`.
fn module_of(file: &Path) -> Vec<String> {
    let plain = file.with_extension("");
    let mut parts: Vec<String> = plain.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

fn resolved(here: &[String], children: &[&str], path: &str) -> String {
    let mut module = here.to_vec();
    let mut rest: Vec<&str> = path.split("::").collect();
    match rest.first() {
        Some(&"crate") => module.clear(),
        Some(&("self" | "super")) => {}
        Some(first) if children.contains(first) => rest.insert(0, "self"),
        _ => return path.to_owned(),
    }
    rest.remove(0);
    if path.starts_with("super") {
        module.pop();
    }
    while rest.first() == Some(&"super") {
        module.pop();
        rest.remove(0);
    }
    let parts = module.iter().map(String::as_str).chain(rest);
    std::iter::once("crate").chain(parts).collect::<Vec<_>>().join("::")
}

/// Blanks comments, string and character literals; every line stays where it is.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| literal(rest)).unwrap_or(0);
        if skipped == 0 {
            code.push(first);
            rest = rest.split_at(first.len_utf8()).1;
            // The `r` of a raw text must be its own word, not the end of another.
            if first.is_alphanumeric() || first == '_' {
                let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                code.push_str(rest.split_at(word).0);
                rest = rest.split_at(word).1;
            }
        } else {
            let (blanked, after) = rest.split_at(skipped);
            code.extend(blanked.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
        }
    }
    code
}

fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then(|| text.find("*/").map_or(text.len(), |end| end + 2))
}

/// How long the literal is that `text` begins with: `"…"`, `b"…"`, `r#"…"#`, `'…'`.
fn literal(text: &str) -> Option<usize> {
    let plain = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - plain.len();
    if let Some(raw) = plain.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inner = raw.split_at(hashes).1.strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = inner.find(&close).map_or(inner.len(), |end| end + close.len());
        return Some(prefix + 1 + hashes + 1 + end);
    }
    if plain.starts_with('"') {
        return Some(prefix + quoted(plain, '"')?);
    }
    // A lifetime has no closing quote after its first character.
    let inner = plain.strip_prefix('\'')?;
    let is_character = inner.starts_with('\\') || inner.chars().nth(1) == Some('\'');
    if is_character { Some(prefix + quoted(plain, '\'')?) } else { None }
}

/// Length of a quoted text with its quotes; `\` hides the next character.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut hidden = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if hidden => hidden = false,
            '\\' => hidden = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Blanks each item that `#[cfg(test)]` stands before.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, item) = rest.split_at(at);
        kept.push_str(before);
        let (blanked, after) = item.split_at(item_end(item));
        kept.extend(blanked.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    kept + rest
}

/// Where the item ends: at a `;` outside all braces, or at the brace that closes its first one.
fn item_end(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// Walks over code from word to word.
struct Scanner<'a> {
    code: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.code.get(self.at).copied()
    }

    fn step(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.step();
        }
    }

    fn takes(&mut self, text: &str) -> bool {
        let there = self.code.get(self.at..).is_some_and(|code| code.starts_with(text.as_bytes()));
        self.at += if there { text.len() } else { 0 };
        there
    }

    /// The identifier here, if there is one.
    fn identifier(&mut self) -> Option<&'a str> {
        let rest = self.code.get(self.at..)?;
        let len = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        self.at += len;
        rest.get(..len).and_then(|word| std::str::from_utf8(word).ok()).filter(|word| !word.is_empty())
    }

    /// The next identifier, and its line.
    fn word(&mut self) -> Option<(usize, &'a str)> {
        loop {
            self.peek()?;
            let line = self.line;
            if let Some(word) = self.identifier() {
                return Some((line, word));
            }
            self.step();
        }
    }

    /// A path in the middle of code, from its first word on.
    fn rest_of_path(&mut self, first: &str) -> String {
        let mut path = first.to_owned();
        loop {
            let before = self.at;
            let next = if self.takes("::") { self.identifier() } else { None };
            let Some(next) = next else {
                self.at = before;
                return path;
            };
            path = format!("{path}::{next}");
        }
    }

    /// All that a `use` tree brings in from here on, each with `prefix` before it.
    fn tree(&mut self, prefix: &str) -> Vec<Import> {
        self.skip_blanks();
        if self.takes("{") {
            return self.branches(prefix);
        }
        let word = if self.takes("*") { "*" } else { self.identifier().unwrap_or_default() };
        let path = match (prefix, word) {
            ("", word) => word.to_owned(),
            (prefix, "self") => prefix.to_owned(),
            (prefix, word) => format!("{prefix}::{word}"),
        };
        if self.takes("::") {
            return self.tree(&path);
        }
        let own = path.rsplit("::").next().unwrap_or_default().to_owned();
        vec![Import { name: self.alias().unwrap_or(own), path }]
    }

    fn branches(&mut self, prefix: &str) -> Vec<Import> {
        let mut imports = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                None => return imports,
                Some(b'}') => {
                    self.step();
                    return imports;
                }
                Some(b',') => self.step(),
                _ => {
                    let before = self.at;
                    imports.extend(self.tree(prefix));
                    // Nothing that belongs in a tree: what else stands there must not hold us up.
                    if self.at == before {
                        self.step();
                    }
                }
            }
        }
    }

    /// ` as name`.
    fn alias(&mut self) -> Option<String> {
        self.skip_blanks();
        if self.takes("as ") { self.identifier().map(String::from) } else { None }
    }
}
