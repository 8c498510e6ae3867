//! The site's certificate authority: who is who on Picket's sockets, and the keys the aggregator signs and seals with.
//!
//! Identity is one URI name in the certificate, `picket://<site>/agent/<id>`, `…/consumer/<id>` or `…/witness/<id>`; the common
//! name is for people and is never read. The authority never keeps the recovery key's private half, and takes nothing from a
//! request for a certificate but its key.

mod files;
mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use picket_common::certificate;
use picket_common::clock::Now;
use picket_common::id::{AgentId, ConsumerId, HostId, SiteId};
use picket_common::seal::{self, SealingKey};
use picket_common::secret::Secret;
use picket_common::wire::codec::SigningKey;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

pub use picket_common::certificate::{Identity, IdentityError, Peer, Role, identity, spki_sha256};
pub use tls::{GateTls, TlsMaterial};

/// Longest life of an agent's certificate, in days; it is renewed at two thirds.
pub const MAX_AGENT_DAYS: u16 = 30;
/// Longest life of a witness's certificate, in days: nobody renews it by itself.
pub const MAX_WITNESS_DAYS: u16 = 825;
/// Longest life of a consumer's certificate, in days: nobody renews it by itself.
pub const MAX_CONSUMER_DAYS: u16 = 825;

const CA_DAYS: u16 = 20 * 365;
/// A server certificate is made again at any start ([`Authority::reissue_server`]), so this only bounds one process's life.
const SERVER_DAYS: u16 = 2 * 365;
/// Machines whose clock is behind by up to this much still accept what was just issued.
const BACKDATE: Duration = Duration::from_secs(3600);
/// Longest signing request looked at, in bytes of PEM; one with a P-256 key has about 500.
const MAX_CSR_LEN: usize = 8 * 1024;

const DIRECTORY: &str = "pki";
const SITE: &str = "site";
const CA_KEY: &str = "ca.key";
const CA_CERT: &str = "ca.pem";
const SERVER_KEY: &str = "server.key";
const SERVER_CERT: &str = "server.pem";
const SIGNING_SEED: &str = "signing.seed";
const RECOVERY_KEY: &str = "recovery.pub";

/// Why the authority could not do something.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// `init` was called where an authority is already.
    #[error("{0} already holds a certificate authority; it is never overwritten")]
    Exists(PathBuf),
    /// A stored file does not hold what it should.
    #[error("{path} does not hold {expected}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Making a key or certificate failed.
    #[error("making a certificate")]
    Certificate(#[from] rcgen::Error),
    /// TLS refused the keys or certificates.
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    /// The revocation list or CA bundle makes no verifier.
    #[error("setting up the check of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A signing request that is malformed, does not prove possession of its key, or has a kind of key not taken here.
    #[error("not a usable certificate request: {0}")]
    Request(&'static str),
    /// A name that can stand in no certificate.
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
    /// The operating system gave no random bytes.
    #[error("no random bytes")]
    Random(#[source] getrandom::Error),
    /// A key of Picket's own does not work.
    #[error("the {0} key is not usable")]
    Key(&'static str),
}

/// The private half of the site's recovery key: shown once to the admin at `init`, kept offline, never stored here.
#[derive(Debug, Clone)]
pub struct RecoveryPrivateKey(Secret<[u8; 32]>);

const RECOVERY_PREFIX: &str = "pkr1.";

impl RecoveryPrivateKey {
    /// The line to keep: `pkr1.` and 64 hex digits.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{RECOVERY_PREFIX}{}", hex::encode(self.0.expose())))
    }

    /// Reads such a line.
    ///
    /// # Errors
    /// [`PkiError::Key`].
    pub fn from_line(line: &str) -> Result<Self, PkiError> {
        let mut key = [0; 32];
        let digits = line.trim().strip_prefix(RECOVERY_PREFIX).ok_or(PkiError::Key("recovery"))?;
        hex::decode_to_slice(digits, &mut key).map_err(|_| PkiError::Key("recovery"))?;
        Ok(Self(Secret::new(key)))
    }

    /// The key itself.
    #[must_use]
    pub const fn key(&self) -> &Secret<[u8; 32]> {
        &self.0
    }
}

/// The site's certificate authority with the aggregator's own keys.
pub struct Authority {
    dir: PathBuf,
    site: SiteId,
    ca_pem: String,
    ca_key: KeyPair,
    server_pem: String,
    server_key: KeyPair,
    signing_seed: Secret<[u8; 32]>,
    recovery: SealingKey,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("site", &self.site).field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes the authority of `site` in `dir/pki` (files 0600), with a server certificate for `names` (host names and IP
    /// addresses). All files appear together or not at all.
    ///
    /// # Errors
    /// [`PkiError::Exists`] when there is one already; [`PkiError::Name`]; [`PkiError::File`]; failures of the crypto library.
    pub fn init(dir: &Path, site: &SiteId, names: &[String], now: Now) -> Result<(Self, RecoveryPrivateKey), PkiError> {
        let home = dir.join(DIRECTORY);
        if home.exists() {
            return Err(PkiError::Exists(home));
        }
        let ca_key = KeyPair::generate()?;
        let ca_pem = ca_params(site, now)?.self_signed(&ca_key)?.pem();
        let server_key = KeyPair::generate()?;
        let server_pem = {
            let issuer = Issuer::from_ca_cert_pem(&ca_pem, &ca_key)?;
            server_params(names, now)?.signed_by(&server_key, &issuer)?.pem()
        };
        let signing_seed = random_key()?;
        SigningKey::from_seed(&signing_seed).map_err(|_| PkiError::Key("signing"))?;
        let (private, recovery) = seal::key_pair(&random_key()?);

        let draft = files::Draft::new(&home)?;
        draft.write(SITE, site.as_str().as_bytes())?;
        draft.write(CA_KEY, Zeroizing::new(ca_key.serialize_pem()).as_bytes())?;
        draft.write(CA_CERT, ca_pem.as_bytes())?;
        draft.write(SERVER_KEY, Zeroizing::new(server_key.serialize_pem()).as_bytes())?;
        draft.write(SERVER_CERT, server_pem.as_bytes())?;
        draft.write(SIGNING_SEED, Zeroizing::new(hex::encode(signing_seed.expose())).as_bytes())?;
        draft.write(RECOVERY_KEY, hex::encode(recovery.0).as_bytes())?;
        draft.publish(&home)?;

        let site = site.clone();
        let authority = Self { dir: home, site, ca_pem, ca_key, server_pem, server_key, signing_seed, recovery };
        Ok((authority, RecoveryPrivateKey(private)))
    }

    /// Loads the authority that [`Authority::init`] made in `dir`.
    ///
    /// # Errors
    /// [`PkiError::File`], [`PkiError::Damaged`].
    pub fn load(dir: &Path) -> Result<Self, PkiError> {
        let home = dir.join(DIRECTORY);
        let text = |name: &str| files::read(&home.join(name));
        let damaged = |name: &str, expected| PkiError::Damaged { path: home.join(name), expected };
        let key = |name: &str| {
            KeyPair::from_pem(&text(name)?).map_err(|_| PkiError::Damaged { path: home.join(name), expected: "a private key" })
        };
        let bytes = |name: &str, expected| {
            let mut key = [0; 32];
            hex::decode_to_slice(text(name)?.trim(), &mut key).map_err(|_| damaged(name, expected))?;
            Ok::<_, PkiError>(key)
        };
        let authority = Self {
            site: text(SITE)?.trim().parse().map_err(|_| damaged(SITE, "a site id"))?,
            ca_pem: text(CA_CERT)?.to_string(),
            ca_key: key(CA_KEY)?,
            server_pem: text(SERVER_CERT)?.to_string(),
            server_key: key(SERVER_KEY)?,
            signing_seed: Secret::new(bytes(SIGNING_SEED, "a signing key")?),
            recovery: SealingKey(bytes(RECOVERY_KEY, "a recovery key")?),
            dir: home.clone(),
        };
        authority.signing_key()?;
        authority.issuer().map_err(|_| damaged(CA_CERT, "a CA certificate"))?;
        Ok(authority)
    }

    /// Makes a new server certificate for `names`, with the same key, and stores it. Listeners take it at their next reload.
    ///
    /// # Errors
    /// [`PkiError::Name`], [`PkiError::File`], failures of the crypto library.
    pub fn reissue_server(&mut self, names: &[String], now: Now) -> Result<(), PkiError> {
        let pem = server_params(names, now)?.signed_by(&self.server_key, &self.issuer()?)?.pem();
        files::replace(&self.dir.join(SERVER_CERT), pem.as_bytes())?;
        self.server_pem = pem;
        Ok(())
    }

    /// The site this authority speaks for.
    #[must_use]
    pub const fn site(&self) -> &SiteId {
        &self.site
    }

    /// The CA's certificate, PEM: what agents and consumers trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the CA key's SubjectPublicKeyInfo, lower-case hex: what a join token carries.
    #[must_use]
    pub fn ca_spki_sha256(&self) -> String {
        spki_sha256(&self.ca_key.subject_public_key_info())
    }

    /// The aggregator's key that signs every message to an agent.
    ///
    /// # Errors
    /// [`PkiError::Key`]; checked at load, so not expected.
    pub fn signing_key(&self) -> Result<SigningKey, PkiError> {
        SigningKey::from_seed(&self.signing_seed).map_err(|_| PkiError::Key("signing"))
    }

    /// The public half of the site's recovery key.
    #[must_use]
    pub const fn recovery_key(&self) -> SealingKey {
        self.recovery
    }

    /// A certificate for `agent` over the key in `csr_pem`, and that key's SPKI hash. Subject, names and extensions asked for
    /// are ignored; the request must be signed by its own key (elliptic curves only). `days` is cut to [`MAX_AGENT_DAYS`].
    ///
    /// # Errors
    /// [`PkiError::Request`]; failures of the crypto library.
    pub fn sign_agent(&self, csr_pem: &str, agent: &AgentId, now: Now, days: u16) -> Result<(String, String), PkiError> {
        self.sign(csr_pem, &Role::Agent(agent.clone()), now, days.min(MAX_AGENT_DAYS))
    }

    /// As [`Authority::sign_agent`], for the witness of `host`: a server's certificate, good for no client. `days` is cut to
    /// [`MAX_WITNESS_DAYS`].
    ///
    /// # Errors
    /// [`PkiError::Request`]; failures of the crypto library.
    pub fn sign_witness(&self, csr_pem: &str, host: &HostId, now: Now, days: u16) -> Result<(String, String), PkiError> {
        self.sign(csr_pem, &Role::Witness(host.clone()), now, days.min(MAX_WITNESS_DAYS))
    }

    fn sign(&self, csr_pem: &str, role: &Role, now: Now, days: u16) -> Result<(String, String), PkiError> {
        let spki = requested_key(csr_pem)?;
        let key = SubjectPublicKeyInfo::from_der(&spki).map_err(|_| PkiError::Request("its key is of a kind not taken here"))?;
        let certificate = role_params(role, &self.site, now, days)?.signed_by(&key, &self.issuer()?)?;
        Ok((certificate.pem(), spki_sha256(&spki)))
    }

    /// A certificate and private key (both PEM) for a consumer of the public MQTT tree. `days` is cut to
    /// [`MAX_CONSUMER_DAYS`]. The key is not kept.
    ///
    /// # Errors
    /// Failures of the crypto library.
    pub fn issue_consumer(&self, consumer: &ConsumerId, now: Now, days: u16) -> Result<(String, Zeroizing<String>), PkiError> {
        let key = KeyPair::generate()?;
        let params = role_params(&Role::Consumer(consumer.clone()), &self.site, now, days.min(MAX_CONSUMER_DAYS))?;
        let certificate: Certificate = params.signed_by(&key, &self.issuer()?)?;
        Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
    }

    /// TLS for the HTTP API: server authentication only; the chain carries the root, so that a joining agent can compare its
    /// hash with the token's.
    ///
    /// # Errors
    /// [`PkiError::Tls`], [`PkiError::Damaged`].
    pub fn server_tls_for_api(&self) -> Result<rustls::ServerConfig, PkiError> {
        let chain = vec![self.server_certificate()?, self.ca_certificate()?];
        Ok(tls::builder()?.with_no_client_auth().with_single_cert(chain, self.server_private_key())?)
    }

    /// What the gate's listener needs: the server's certificate, the CA to check clients against, and `crls`.
    ///
    /// # Errors
    /// [`PkiError::Damaged`].
    pub fn gate_material(&self, crls: Vec<CertificateRevocationListDer<'static>>) -> Result<TlsMaterial, PkiError> {
        Ok(TlsMaterial {
            chain: vec![self.server_certificate()?],
            key: self.server_private_key(),
            ca_bundle: vec![self.ca_certificate()?],
            crls,
        })
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_pem(&self.ca_pem, &self.ca_key)
    }

    fn server_private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.server_key.serialize_der().into())
    }

    fn server_certificate(&self) -> Result<CertificateDer<'static>, PkiError> {
        self.certificate(&self.server_pem, SERVER_CERT)
    }

    fn ca_certificate(&self) -> Result<CertificateDer<'static>, PkiError> {
        self.certificate(&self.ca_pem, CA_CERT)
    }

    fn certificate(&self, pem: &str, name: &str) -> Result<CertificateDer<'static>, PkiError> {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| PkiError::Damaged { path: self.dir.join(name), expected: "a certificate" })
    }
}

fn requested_key(csr_pem: &str) -> Result<Vec<u8>, PkiError> {
    if csr_pem.len() > MAX_CSR_LEN {
        return Err(PkiError::Request("it is too long"));
    }
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|_| PkiError::Request("not PEM"))?;
    let (rest, request) =
        X509CertificationRequest::from_der(der.as_ref()).map_err(|_| PkiError::Request("not a PKCS #10 request"))?;
    if !rest.is_empty() {
        return Err(PkiError::Request("bytes follow it"));
    }
    let spki = &request.certification_request_info.subject_pki;
    if ![OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519].contains(&spki.algorithm.algorithm) {
        return Err(PkiError::Request("its key is of a kind not taken here"));
    }
    request.verify_signature().map_err(|_| PkiError::Request("it is not signed by its own key"))?;
    Ok(spki.raw.to_vec())
}

fn ca_params(site: &SiteId, now: Now) -> Result<CertificateParams, PkiError> {
    let mut params = params(&format!("Picket CA of {site}"), now, CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn server_params(names: &[String], now: Now) -> Result<CertificateParams, PkiError> {
    let mut params = params("picket-aggregator", now, SERVER_DAYS)?;
    params.subject_alt_names = names.iter().map(|name| subject_name(name)).collect::<Result<_, _>>()?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn role_params(role: &Role, site: &SiteId, now: Now, days: u16) -> Result<CertificateParams, PkiError> {
    let mut params = params(&role.to_string(), now, days)?;
    let uri = certificate::uri(site, role);
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(|_| PkiError::Name(uri.clone()))?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match role {
        Role::Agent(_) | Role::Consumer(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Role::Witness(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
    };
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(common_name: &str, now: Now, days: u16) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // A clock at the end of time would make a certificate without a date; the epoch is the honest answer to that.
    let now = OffsetDateTime::from_unix_timestamp(now.wall.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = now.checked_sub(time::Duration::try_from(BACKDATE).unwrap_or_default()).unwrap_or(now);
    params.not_after = now.checked_add(time::Duration::days(days.into())).unwrap_or(now);
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// 16 random bytes, positive (RFC 5280 §4.1.2.2).
fn serial() -> Result<SerialNumber, PkiError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(PkiError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

fn subject_name(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || PkiError::Name(name.chars().take(80).collect());
    rustls::pki_types::DnsName::try_from(name).map_err(|_| bad())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| bad())?))
}

fn random_key() -> Result<Secret<[u8; 32]>, PkiError> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut()).map_err(PkiError::Random)?;
    Ok(Secret::new(*key))
}

#[cfg(test)]
mod tests;
