//! Private files: 0600, written whole or not at all. Knows nothing of what they hold.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::PkiError;

/// Longest file read, in bytes: far above any key or certificate.
const MAX_FILE_LEN: u64 = 64 * 1024;

/// A folder being written; it gets its name only when complete.
pub(super) struct Draft {
    path: PathBuf,
}

impl Draft {
    pub(super) fn new(home: &Path) -> Result<Self, PkiError> {
        let path = home.with_extension("new");
        if path.exists() {
            // What an interrupted `init` left: nobody was ever told these keys.
            std::fs::remove_dir_all(&path).map_err(failed("removing", &path))?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed("creating", &path))?;
        Ok(Self { path })
    }

    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), PkiError> {
        create(&self.path.join(name), content)
    }

    pub(super) fn publish(self, home: &Path) -> Result<(), PkiError> {
        sync_folder(&self.path)?;
        std::fs::rename(&self.path, home).map_err(failed("creating", home))?;
        home.parent().map_or(Ok(()), sync_folder)
    }
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, PkiError> {
    let mut text = Zeroizing::new(String::new());
    File::open(path).and_then(|file| file.take(MAX_FILE_LEN).read_to_string(&mut text)).map_err(failed("reading", path))?;
    Ok(text)
}

/// Replaces a file by `content`: a reader sees the old one or the new one.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let draft = path.with_extension("new");
    if draft.exists() {
        std::fs::remove_file(&draft).map_err(failed("removing", &draft))?;
    }
    create(&draft, content)?;
    std::fs::rename(&draft, path).map_err(failed("replacing", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn create(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .map_err(failed("writing", path))
}

fn sync_folder(path: &Path) -> Result<(), PkiError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("syncing", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PkiError {
    let path = path.to_owned();
    move |source| PkiError::File { action, path, source }
}
