//! Certificates and TLS settings of simulated BMCs. Keys live in memory only.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library's settings.
    #[error("cannot set up TLS")]
    Settings(#[from] rustls::Error),
}

/// The simulator's own certificate authority.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("picket-bmcsim CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// A BMC's certificate and what serves it.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) pem: String,
    pub(crate) sha256: String,
}

impl Identity {
    /// Makes a key and a certificate for this name and address.
    pub(crate) fn new(name: &str, address: Option<IpAddr>, authority: Option<&Authority>) -> Result<Self, TlsError> {
        use sha2::Digest as _;
        let key = KeyPair::generate()?;
        let mut names = vec![name.to_owned()];
        names.extend(address.map(|address| address.to_string()));
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named(name);
        let certificate = match authority {
            Some(authority) => params.signed_by(&key, &authority.issuer)?,
            None => params.self_signed(&key)?,
        };
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        // Thousands of BMCs: no memory for resumption, as in real ones.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let sha256 = hex::encode(sha2::Sha256::digest(certificate.der()));
        Ok(Self { config: Arc::new(config), pem: certificate.pem(), sha256 })
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
