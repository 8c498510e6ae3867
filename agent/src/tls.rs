//! The agent's side of mutual TLS: its certificate, and the site's authority as the only one it trusts.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::identity::Identity;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text does not hold what it should.
    #[error("the {0} is not usable PEM; join again")]
    Pem(&'static str),
    /// rustls refused them together.
    #[error("the certificate and key do not fit together; join again")]
    Rustls(#[from] rustls::Error),
}

/// A client configuration for the gate.
///
/// # Errors
/// [`TlsError`].
pub fn mutual(identity: &Identity) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(&identity.ca, "CA bundle")? {
        roots.add(root)?;
    }
    let chain = certificates(&identity.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(identity.private_key.expose().as_bytes()).map_err(|_| TlsError::Pem("private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// The certificates of a PEM text; at least one.
///
/// # Errors
/// [`TlsError::Pem`].
pub fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or(TlsError::Pem(what))
}
