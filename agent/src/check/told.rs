//! Which files are a host's own, as its witness last told: for activity checks that name none. Not kept over a restart; until the
//! witness tells them again, such a check cannot tell.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use picket_common::ha::settings::MAX_FILES;
use picket_common::id::HostId;

use crate::sign::Sign;

/// Most bytes of paths that one host may tell.
const MOST_BYTES: usize = 32 * 1024;

/// What each host's witness told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<HostId, Vec<String>>>);

impl Told {
    /// The witness of `host` tells its files. Too many are cut: the first are those that were written last.
    pub(super) fn keep(&self, host: &HostId, files: Vec<String>) {
        let mut left = MOST_BYTES;
        let fits = |path: &String| {
            left = left.saturating_sub(path.len());
            left > 0
        };
        let files: Vec<String> = files.into_iter().take(MAX_FILES).take_while(fits).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), files);
    }

    /// `paths`, or if there are none, what the witness of `host` told.
    pub(super) fn or_told(&self, paths: &[String], host: Option<&HostId>) -> Result<Vec<String>, Sign> {
        if !paths.is_empty() {
            return Ok(paths.to_vec());
        }
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let files = host.and_then(|host| told.get(host)).filter(|files| !files.is_empty()).cloned();
        files.ok_or_else(|| Sign::CannotTell("the check names no files, and the host's witness has told of none".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_witness_told_stands_in_for_what_is_not_named() {
        let told = Told::default();
        let (h1, h2): (HostId, HostId) = ("h1".parse().unwrap(), "h2".parse().unwrap());
        let named = vec!["/x".to_owned()];
        assert_eq!(told.or_told(&named, None), Ok(named.clone()));
        assert!(matches!(told.or_told(&[], Some(&h1)), Err(Sign::CannotTell(_))));
        told.keep(&h1, vec!["/a".into(), "/b".into()]);
        assert_eq!(told.or_told(&[], Some(&h1)), Ok(vec!["/a".to_owned(), "/b".to_owned()]));
        assert!(told.or_told(&[], Some(&h2)).is_err() && told.or_told(&[], None).is_err());
        assert_eq!(told.or_told(&named, Some(&h1)), Ok(named), "a name given goes first");
        told.keep(&h1, vec!["/a".into(); 1000]);
        assert_eq!(told.or_told(&[], Some(&h1)).unwrap().len(), MAX_FILES);
        told.keep(&h1, vec!["a".repeat(MOST_BYTES / 2 - 1); 3]);
        assert_eq!(told.or_told(&[], Some(&h1)).unwrap().len(), 2);
        told.keep(&h1, Vec::new());
        assert!(told.or_told(&[], Some(&h1)).is_err(), "a host without files has none");
    }
}
