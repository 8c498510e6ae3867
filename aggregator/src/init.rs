//! `picket-aggregator init`: makes the site's authority and keys, and the first admin token. Done once; never overwrites.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use picket_common::api::{Role, Scope};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::clock;
use crate::config::{Config, is_host_name};
use crate::fleet::Record;
use crate::fleet::view::{ApiTokenRow, Row};
use crate::pki::{Authority, PkiError};
use crate::store::{Store, StoreError};

/// Name of the first admin, in histories.
const ADMIN: &str = "admin";
/// File with the names of `init --name`, one a line: the server certificate is made anew at each start.
const NAMES: &str = "names";

/// Why the site could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// It is there already.
    #[error("{0} holds a site already: `init` is done once, and never makes new keys over old ones")]
    Done(PathBuf),
    /// A name that can stand in no certificate.
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
    /// A file or folder could not be made.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}")]
    Random(getrandom::Error),
    /// The authority could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The token could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the admin may say.
#[derive(Debug, Default)]
pub struct Options {
    /// Further names and IP addresses of this machine, for its certificate.
    pub names: Vec<String>,
    /// The token goes into this new file (0600) and is not shown.
    pub token_file: Option<PathBuf>,
    /// The recovery key goes into this new file (0600) and is not shown.
    pub recovery_key_file: Option<PathBuf>,
}

/// What the admin must keep; nothing of it can be had again.
pub struct Made {
    /// SHA-256 of the CA's public key, hex.
    pub ca_sha256: String,
    /// The admin's bearer token.
    pub token: Zeroizing<String>,
    /// The recovery key's private half.
    pub recovery_key: Zeroizing<String>,
}

/// Whether `state_dir` holds a site.
#[must_use]
pub fn is_done(state_dir: &Path) -> bool {
    state_dir.join("pki").exists()
}

/// Makes the site in `state_dir`.
///
/// # Errors
/// Any [`InitError`]; then there is no site, and `init` can be run again.
pub fn init(config: &Config, state_dir: &Path, options: &Options) -> Result<Made, InitError> {
    if is_done(state_dir) {
        return Err(InitError::Done(state_dir.to_owned()));
    }
    if let Some(bad) = options.names.iter().find(|name| !is_host_name(name)) {
        return Err(InitError::Name(bad.clone()));
    }
    let folder = DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
    folder.map_err(failed("making the folder", state_dir))?;
    let token = make_token()?;
    let token_file = options.token_file.as_deref().map(new_private_file).transpose()?;
    let recovery_file = options.recovery_key_file.as_deref().map(new_private_file).transpose()?;
    keep_token(state_dir, &token)?;
    let names_file = state_dir.join(NAMES);
    std::fs::write(&names_file, options.names.join("\n")).map_err(failed("writing", &names_file))?;
    // Last: this is what makes it a site.
    let (authority, recovery) = Authority::init(state_dir, &config.site, &server_names(config, state_dir), clock::now())?;
    let made = Made { ca_sha256: authority.ca_spki_sha256(), token, recovery_key: recovery.to_line() };
    let kept = token_file.map_or(Ok(()), |file| file.keep(&made.token));
    let kept = kept.and_then(|()| recovery_file.map_or(Ok(()), |file| file.keep(&made.recovery_key)));
    if let Err(error) = kept {
        // Nobody was told these keys: a site without them would be of no use.
        let pki = state_dir.join("pki");
        std::fs::remove_dir_all(&pki).map_err(failed("removing", &pki))?;
        return Err(error);
    }
    Ok(made)
}

/// All names of this machine, for its certificate.
#[must_use]
pub fn server_names(config: &Config, state_dir: &Path) -> Vec<String> {
    let given = std::fs::read_to_string(state_dir.join(NAMES)).unwrap_or_default();
    let machine = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let mut names = vec![config.advertise.clone(), machine, "localhost".into(), "127.0.0.1".into(), "::1".into()];
    names.extend(given.lines().map(str::to_owned));
    names.retain(|name| is_host_name(name));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn make_token() -> Result<Zeroizing<String>, InitError> {
    let mut random = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *random).map_err(InitError::Random)?;
    Ok(Zeroizing::new(format!("pkt_{}", BASE64_URL_SAFE_NO_PAD.encode(*random))))
}

/// Stores the token's hash, in place of those that an interrupted `init` left and nobody was told.
fn keep_token(state_dir: &Path, token: &str) -> Result<(), StoreError> {
    let store = Store::open(state_dir)?;
    let left = store.load()?.rows.into_iter().filter(|row| matches!(row, Row::ApiToken(_))).map(|row| Record::Remove(row.key()));
    let hash = hex::encode(Sha256::digest(token.as_bytes()));
    let row = ApiTokenRow { hash, name: ADMIN.into(), role: Role::Admin, scope: Scope::default(), expires_at: None };
    let records: Vec<Record> = left.chain([Record::Put(Box::new(Row::ApiToken(row)))]).collect();
    store.commit(&records)
}

/// A file made before there is anything to keep in it, so that a bad path is found out in time.
struct PrivateFile {
    path: PathBuf,
    file: File,
}

fn new_private_file(path: &Path) -> Result<PrivateFile, InitError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed("making", path))?;
    Ok(PrivateFile { path: path.to_owned(), file })
}

impl PrivateFile {
    fn keep(mut self, secret: &str) -> Result<(), InitError> {
        let written = writeln!(self.file, "{secret}").and_then(|()| self.file.sync_all());
        written.map_err(failed("writing", &self.path))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> InitError {
    let path = path.to_owned();
    move |source| InitError::File { action, path, source }
}
