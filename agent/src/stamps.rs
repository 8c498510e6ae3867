//! Looking at files on storage that may hang. Reads none, writes none.
//!
//! A look at a hung mount never returns, and nothing can end it. So each runs on a thread of its own, in a place that it keeps
//! until it returns; a mount has few places, so that one that hangs leaves the others theirs.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, open, readlink, statx};
use rustix::io::Errno;
use tokio::sync::{Semaphore, oneshot};

use crate::sign::Stamp;

/// Most looks at once.
const MAX_THREADS: usize = 64;
/// Most looks at once on one mount.
const PER_MOUNT: usize = 4;
/// Mounts remembered before those at rest are forgotten.
const MAX_MOUNTS: usize = 256;
/// Bytes of stack of a thread that does nothing but ask the kernel.
const STACK: usize = 128 * 1024;

/// Why a file's looks are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// Not an absolute path.
    #[error("{0:?} is not an absolute path")]
    Relative(String),
    /// The system said no, or the folder of a missing file is missing too.
    #[error("{path} cannot be looked at: {why}")]
    Failed {
        /// Which file.
        path: String,
        /// The system's words.
        why: String,
    },
    /// It may not be asked for.
    #[error("{0} does not lie in a folder that this witness may look into")]
    Forbidden(String),
    /// No thread.
    #[error("there is no thread to look with: {0}")]
    Thread(String),
}

type Look = dyn Fn(&str) -> Result<Option<Stamp>, Unseen> + Send + Sync;
type Mounts = dyn Fn() -> String + Send + Sync;

/// Looks at files.
pub struct Looker {
    look: Arc<Look>,
    mounts: Box<Mounts>,
    places: Arc<Semaphore>,
    by_mount: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Looker {
    /// Looks at any file.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts threads: no value to be had by the way")]
    pub fn new() -> Self {
        Self::with(Arc::new(stamp), Box::new(mounts))
    }

    /// Looks only at files that lie in one of these folders once all symbolic links are followed.
    #[must_use]
    pub fn within(folders: Vec<String>) -> Self {
        Self::with(Arc::new(move |path: &str| stamp_within(&folders, path)), Box::new(mounts))
    }

    fn with(look: Arc<Look>, mounts: Box<Mounts>) -> Self {
        Self { look, mounts, places: Arc::new(Semaphore::new(MAX_THREADS)), by_mount: Mutex::default() }
    }

    /// What these files look like; those that are not there are left out. May never return: give it a time.
    ///
    /// # Errors
    /// [`Unseen`] for the first that cannot be looked at: what it would have shown is not known, whatever others show.
    pub async fn look(&self, paths: Vec<String>) -> Result<Vec<Stamp>, Unseen> {
        if let Some(relative) = paths.iter().find(|path| !path.starts_with('/') || path.contains('\0')) {
            return Err(Unseen::Relative(relative.clone()));
        }
        let table = (self.mounts)();
        let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for path in paths {
            groups.entry(mount_of(&table, &path)).or_default().push(path);
        }
        let looks = groups.into_iter().map(|(mount, paths)| self.look_on(mount.to_owned(), paths));
        let mut stamps: Vec<Stamp> = try_join_all(looks).await?.into_iter().flatten().collect();
        stamps.sort();
        Ok(stamps)
    }

    async fn look_on(&self, mount: String, paths: Vec<String>) -> Result<Vec<Stamp>, Unseen> {
        let no_thread = |error: &dyn std::fmt::Display| Unseen::Thread(error.to_string());
        // The mount's place first: who waits for that holds none that others need.
        let here = self.mount(&mount).acquire_owned().await.map_err(|error| no_thread(&error))?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|error| no_thread(&error))?;
        let (tell, told) = oneshot::channel();
        let look = Arc::clone(&self.look);
        let thread = std::thread::Builder::new().name("look".into()).stack_size(STACK).spawn(move || {
            let seen = paths.iter().map(|path| look(path)).collect::<Result<Vec<_>, _>>();
            drop((here, place));
            tell.send(seen).ok();
        });
        thread.map_err(|error| no_thread(&error))?;
        let seen = told.await.map_err(|error| no_thread(&error))??;
        Ok(seen.into_iter().flatten().collect())
    }

    fn mount(&self, mount: &str) -> Arc<Semaphore> {
        let mut mounts = self.by_mount.lock().unwrap_or_else(PoisonError::into_inner);
        if mounts.len() > MAX_MOUNTS {
            mounts.retain(|_, places| places.available_permits() < PER_MOUNT);
        }
        Arc::clone(mounts.entry(mount.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(PER_MOUNT))))
    }
}

/// The kernel's table of mounts; reading it touches none of them.
fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_else(|error| {
        tracing::debug!(%error, "the mounts are not known: all files share a few places");
        String::new()
    })
}

/// The mount point that a path lies below, as the table writes it. A symbolic link on the way is not followed: that could hang.
fn mount_of<'a>(table: &'a str, path: &str) -> &'a str {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let holds = |point: &&str| {
        let rest = path.strip_prefix(unescaped(point).trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    points.filter(holds).max_by_key(|point| point.len()).unwrap_or("/")
}

/// Spaces and the like stand as octal numbers in the table.
fn unescaped(point: &str) -> String {
    let known = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    known.iter().fold(point.to_owned(), |text, (octal, sign)| text.replace(octal, sign))
}

/// What a file looks like now, asked of the server that keeps it: a network file system's memory may be a minute old.
fn stamp(path: &str) -> Result<Option<Stamp>, Unseen> {
    match statx(CWD, path, AtFlags::STATX_FORCE_SYNC, StatxFlags::MTIME | StatxFlags::SIZE) {
        Ok(seen) => Ok(Some(of(path, &seen))),
        Err(errno) => missing(path, errno),
    }
}

/// A file that is not there is left out; but when its folder is missing too, its storage probably is not mounted.
fn missing(path: &str, errno: Errno) -> Result<Option<Stamp>, Unseen> {
    let failed = |why: String| Unseen::Failed { path: path.to_owned(), why };
    if ![Errno::NOENT, Errno::NOTDIR].contains(&errno) {
        return Err(failed(errno.to_string()));
    }
    let folder = Path::new(path).parent().unwrap_or(Path::new("/"));
    match statx(CWD, folder, AtFlags::STATX_FORCE_SYNC, StatxFlags::TYPE) {
        Ok(_) => Ok(None),
        Err(_) => Err(failed("its folder is not there either; is the storage mounted?".into())),
    }
}

fn of(path: &str, seen: &Statx) -> Stamp {
    let modified = i128::from(seen.stx_mtime.tv_sec) * 1_000_000_000 + i128::from(seen.stx_mtime.tv_nsec);
    Stamp { path: path.to_owned(), modified, length: seen.stx_size }
}

/// As [`stamp`], for a file that really lies in one of the folders. What is looked at is what was judged: the file is held meanwhile.
fn stamp_within(folders: &[String], path: &str) -> Result<Option<Stamp>, Unseen> {
    let failed = |errno: Errno| Unseen::Failed { path: path.to_owned(), why: errno.to_string() };
    let forbidden = || Unseen::Forbidden(path.to_owned());
    // Whether a file elsewhere exists is nobody's business either.
    let lexical = Path::new(path).components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !lexical || !folders.iter().any(|folder| Path::new(path).starts_with(folder)) {
        return Err(forbidden());
    }
    let file = match hold(Path::new(path)) {
        Ok(file) if lies_within(folders, &file) => file,
        Ok(_) => return Err(forbidden()),
        Err(errno) => {
            let folder = Path::new(path).parent().map(hold);
            return match folder {
                Some(Ok(folder)) if !lies_within(folders, &folder) => Err(forbidden()),
                _ => missing(path, errno),
            };
        }
    };
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    statx(&file, "", flags, StatxFlags::MTIME | StatxFlags::SIZE).map(|seen| Some(of(path, &seen))).map_err(failed)
}

/// A handle on a file that can neither be read nor written through it.
fn hold(path: &Path) -> Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Whether a held file or folder lies in one of the folders, or is one.
fn lies_within(folders: &[String], held: &OwnedFd) -> bool {
    let Ok(place) = real_path(held) else { return false };
    let roots = folders.iter().filter_map(|folder| hold(Path::new(folder)).ok());
    roots.filter_map(|root| real_path(&root).ok()).any(|root| Path::new(&place).starts_with(root))
}

/// Where a held file lies.
fn real_path(file: &OwnedFd) -> io::Result<String> {
    let link = readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())?;
    link.into_string().map_err(|_| io::Error::other("its path is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Condvar;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::eventually::eventually;

    const TABLE: &str = "22 1 8:1 / / rw - ext4 x rw\n\
        30 22 0:5 / /hung rw - nfs x rw\n\
        31 22 0:6 / /hung/well rw - nfs x rw\n\
        32 22 0:7 / /a\\040b rw - nfs x rw\n";

    #[test]
    fn mounts_are_told_apart() {
        for (path, mount) in [
            ("/x", "/"),
            ("/hung", "/hung"),
            ("/hung/x", "/hung"),
            ("/hungry", "/"),
            ("/hung/well/x", "/hung/well"),
            ("/a b/c", "/a\\040b"),
        ] {
            assert_eq!(mount_of(TABLE, path), mount, "{path}");
        }
        assert_eq!(mount_of("", "/x"), "/");
        assert!(mount_of(&mounts(), "/proc/self/stat").starts_with("/proc"), "the real table");
    }

    /// A gate that holds looks below `/hung` until it opens.
    fn gated() -> (Looker, Arc<(Mutex<bool>, Condvar)>) {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let held = Arc::clone(&gate);
        let look = move |path: &str| {
            if path.starts_with("/hung") {
                drop(held.1.wait_while(held.0.lock().unwrap(), |open| !*open).unwrap());
            }
            Ok(Some(Stamp { path: path.to_owned(), modified: 1, length: 1 }))
        };
        (Looker::with(Arc::new(look), Box::new(|| TABLE.to_owned())), gate)
    }

    #[tokio::test]
    async fn a_hung_mount_holds_up_nobody_else() {
        let (looker, gate) = gated();
        let look = |path: &str| timeout(Duration::from_millis(50), looker.look(vec![path.to_owned()]));
        for _ in 0..3 * PER_MOUNT {
            assert!(look("/hung/x").await.is_err());
        }
        assert_eq!(looker.places.available_permits(), MAX_THREADS - PER_MOUNT, "a stuck look keeps its place, and has no more");
        let look = |path: &str| timeout(Duration::from_secs(20), looker.look(vec![path.to_owned()]));
        look("/x").await.unwrap().unwrap();
        assert!(timeout(Duration::from_millis(50), looker.look(vec!["/x".into(), "/hung/x".into()])).await.is_err());
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        look("/hung/x").await.unwrap().unwrap();
        eventually("all places are free", || looker.places.available_permits() == MAX_THREADS);
    }

    #[tokio::test]
    async fn files_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("a"), "one").unwrap();
        let looker = Looker::new();
        let first = looker.look(vec![path("a"), path("gone")]).await.unwrap();
        assert_eq!(first.iter().map(|stamp| (stamp.path.clone(), stamp.length)).collect::<Vec<_>>(), [(path("a"), 3)]);
        assert_eq!(looker.look(vec![path("a")]).await.unwrap(), first);
        std::fs::File::options()
            .write(true)
            .open(path("a"))
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH + Duration::new(7, 9))
            .unwrap();
        assert_eq!(looker.look(vec![path("a")]).await.unwrap()[0].modified, 7_000_000_009);
        assert!(matches!(looker.look(vec!["a".into()]).await, Err(Unseen::Relative(_))));
        let error = looker.look(vec![path("a"), path("unmounted/x")]).await.unwrap_err();
        assert!(error.to_string().contains("is the storage mounted?"), "{error}");
    }

    #[tokio::test]
    async fn a_witness_looks_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for folder in ["open", "open/sub", "opener", "secret"] {
            std::fs::create_dir(path(folder)).unwrap();
        }
        for file in ["open/a", "open/sub/b", "opener/c", "secret/d"] {
            std::fs::write(path(file), "x").unwrap();
        }
        symlink(path("secret"), path("open/out")).unwrap();
        symlink("../secret/d", path("open/direct")).unwrap();
        symlink("sub/b", path("open/in")).unwrap();
        symlink(path("open"), path("alias")).unwrap();
        let looker = Looker::within(vec![path("open")]);
        for good in ["open/a", "open/sub/b", "open/in"] {
            assert_eq!(looker.look(vec![path(good)]).await.unwrap().len(), 1, "{good}");
        }
        assert_eq!(looker.look(vec![path("open/gone")]).await, Ok(vec![]));
        for bad in [
            "secret/d",
            "secret/gone",
            "opener/c",
            "open/../secret/d",
            "open/sub/../a",
            "open/out/d",
            "open/out/gone",
            "open/direct",
            "alias/a",
        ] {
            assert_eq!(looker.look(vec![path("open/a"), path(bad)]).await, Err(Unseen::Forbidden(path(bad))), "{bad}");
        }
        let through_a_link = Looker::within(vec![path("alias")]);
        assert_eq!(through_a_link.look(vec![path("alias/a")]).await.unwrap().len(), 1);
        assert!(Looker::within(Vec::new()).look(vec![path("open/a")]).await.is_err(), "nothing allowed is nothing");
    }
}
