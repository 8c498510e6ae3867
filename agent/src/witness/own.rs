//! Which files are the host's own: all files in some folders, looked through again and again. On a thread of its own, for
//! storage may hang; meanwhile the last list holds.

use std::cmp::Reverse;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, sleep};
use std::time::Duration;

use picket_common::ha::settings::MAX_FILES;

use super::settings::Absolute;

/// Pause between two looks.
const AGAIN: Duration = Duration::from_secs(10);

/// The list as it was last seen.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnFiles(Arc<Mutex<Vec<String>>>);

impl OwnFiles {
    /// Starts looking; nothing ends it but the process. Without folders there is nothing to look at.
    pub(super) fn start(folders: Vec<Absolute>) -> io::Result<Self> {
        let files = Self::default();
        if !folders.is_empty() {
            let into = files.clone();
            Builder::new().name("own-files".into()).spawn(move || {
                loop {
                    let seen = list(&folders);
                    *into.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
                    sleep(AGAIN);
                }
            })?;
        }
        Ok(files)
    }

    /// The list.
    pub(super) fn now(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The real paths of the files in these folders, not in folders below; the most lately written first, so many as may be asked about.
fn list(folders: &[Absolute]) -> Vec<String> {
    let mut files = Vec::new();
    for Absolute(folder) in folders {
        match entries(Path::new(folder)) {
            Ok(found) => files.extend(found),
            Err(error) => tracing::debug!(folder, %error, "own files not listed"),
        }
    }
    files.sort_by_key(|(modified, _)| Reverse(*modified));
    let mut paths: Vec<String> = Vec::new();
    for (_, path) in files {
        if paths.len() < MAX_FILES && !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

fn entries(folder: &Path) -> io::Result<Vec<(std::time::SystemTime, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        // One that is just going is none of ours any more; links may lead to where the file is known to others.
        let Ok(path) = entry?.path().canonicalize() else { continue };
        let Ok(seen) = path.metadata() else { continue };
        if let (true, Ok(modified), Ok(path)) = (seen.is_file(), seen.modified(), path.into_os_string().into_string()) {
            files.push((modified, path));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_the_folders_the_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().canonicalize().unwrap().join(name).to_str().unwrap().to_owned();
        for folder in ["mine", "mine/sub", "pool"] {
            std::fs::create_dir(path(folder)).unwrap();
        }
        for (age, name) in ["mine/a", "pool/image", "mine/sub/no"].into_iter().enumerate() {
            let file = File::create(path(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(100 - age as u64)).unwrap();
        }
        std::os::unix::fs::symlink(path("pool/image"), path("mine/link")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("mine/broken")).unwrap();
        let folders = [Absolute(path("mine")), Absolute(path("gone"))];
        assert_eq!(list(&folders), [path("mine/a"), path("pool/image")]);
        for n in 0..MAX_FILES {
            File::create(path(&format!("mine/{n}"))).unwrap();
        }
        assert_eq!(list(&folders).len(), MAX_FILES);
        assert!(!list(&folders).contains(&path("mine/a")), "the oldest is left out");
    }

    use std::fs::File;
}
