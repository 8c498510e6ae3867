//! Who this agent is: its keys and certificate, and whom it trusts. Files in the state directory, readable by the owner only.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use picket_common::certificate::{self, Role};
use picket_common::id::{AgentId, HostId};
use picket_common::secret::Secret;
use picket_common::wire::codec::VerifyingKey;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

/// Why the identity could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No identity yet.
    #[error(
        "this agent has not joined: run `picket-agent join TOKEN` (get the token with `picketctl agents token --rack RACK`, or for a witness `--host HOST`)"
    )]
    NotJoined,
    /// A file could not be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A file's content is wrong.
    #[error("{path} is damaged: {what}; join again")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// An identity in memory.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Agent id; a witness's is its host's.
    pub agent: AgentId,
    /// `host:port` of the gate.
    pub mqtt: String,
    /// Certificate and chain, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub private_key: Secret<String>,
    /// Whom to trust, PEM.
    pub ca: String,
    /// Who may sign messages to this agent.
    pub verifying_keys: Vec<VerifyingKey>,
    /// Opens passwords.
    pub sealing_key: Secret<[u8; 32]>,
}

impl Identity {
    /// Whose witness this is, if it is one: its certificate says so.
    #[must_use]
    pub fn witness(&self) -> Option<HostId> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        match certificate::identity(&certificate).ok()?.identity.role {
            Role::Witness(host) => Some(host),
            Role::Agent(_) | Role::Consumer(_) => None,
        }
    }
}

/// `identity.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    agent: AgentId,
    site: String,
    mqtt: String,
    verifying_keys: Vec<String>,
}

/// The files.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// In the state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("identity") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn read(&self, name: &str) -> Result<String, IdentityError> {
        let path = self.path(name);
        fs::read_to_string(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => IdentityError::NotJoined,
            _ => IdentityError::File { path, source },
        })
    }

    /// Writes a file whole or not at all, for the owner's eyes only.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn write(&self, name: &str, text: &str) -> Result<(), IdentityError> {
        let path = self.path(name);
        let draft = self.path(&format!("{name}.new"));
        let fail = |source| IdentityError::File { path: path.clone(), source };
        fs::create_dir_all(&self.dir).map_err(fail)?;
        let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft).map_err(fail)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
        fs::rename(&draft, &path).map_err(fail)?;
        fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(fail)
    }

    /// A file's text, or what `make` gives, kept from now on: a key is made once.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn read_or_make(&self, name: &str, make: impl FnOnce() -> String) -> Result<String, IdentityError> {
        match self.read(name) {
            Err(IdentityError::NotJoined) => {
                let text = make();
                self.write(name, &text)?;
                Ok(text)
            }
            other => other,
        }
    }

    /// The identity.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(&self) -> Result<Identity, IdentityError> {
        let document: Document = serde_json::from_str(&self.read("identity.json")?)
            .map_err(|_| IdentityError::Damaged { path: self.path("identity.json"), what: "not the JSON it was written as" })?;
        let damaged = |name: &str, what| IdentityError::Damaged { path: self.path(name), what };
        let verifying_keys = document
            .verifying_keys
            .iter()
            .map(|text| key_of(text).map(VerifyingKey))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| damaged("identity.json", "a verifying key is not 32 bytes of hex"))?;
        let sealing = key_of(self.read("sealing.key")?.trim()).ok_or_else(|| damaged("sealing.key", "not 32 bytes of hex"))?;
        Ok(Identity {
            agent: document.agent,
            mqtt: document.mqtt,
            certificate: self.read("agent.crt")?,
            private_key: Secret::new(self.read("agent.key")?),
            ca: self.read("ca.crt")?,
            verifying_keys,
            sealing_key: Secret::new(sealing),
        })
    }

    /// Keeps what a join brought; `identity.json` is written last, so a crash leaves "not joined".
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn keep(&self, joined: &picket_common::api::JoinResponse) -> Result<(), IdentityError> {
        self.write("agent.crt", &joined.certificate)?;
        self.write("ca.crt", &joined.ca)?;
        let document = Document {
            agent: joined.agent.clone(),
            site: joined.site.clone(),
            mqtt: joined.mqtt.clone(),
            verifying_keys: joined.verifying_keys.clone(),
        };
        let text = serde_json::to_string_pretty(&document).unwrap_or_default();
        self.write("identity.json", &text)
    }

    /// Whether the agent has joined.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.path("identity.json").exists()
    }
}

/// 32 bytes from hex.
#[must_use]
pub fn key_of(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}
