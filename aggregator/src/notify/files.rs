//! Secrets and certificates of the ways out, read from their files each time something is sent.

use std::io::Read as _;
use std::path::Path;

use picket_common::secret::Secret;
use zeroize::Zeroizing;

use super::again;
use crate::fleet::Undelivered;

/// Largest file.
const MOST: u64 = 1 << 20;

/// A file's text; `key` is what the settings call it. One that cannot be read may be there the next time.
pub(super) fn text(key: &str, path: &Path) -> Result<Zeroizing<String>, Undelivered> {
    let mut text = Zeroizing::new(String::new());
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(again(format!("{key} {}: {error}", path.display()))),
    }
}

/// A secret: the file's text without the end of its line.
pub(super) fn secret(key: &str, path: &Path) -> Result<Secret<String>, Undelivered> {
    let text = text(key, path)?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() { Err(again(format!("{key} {} is empty", path.display()))) } else { Ok(Secret::new(secret.to_owned())) }
}
