//! TLS of the gate's listener: mutual, reloadable. Opens no socket.
//!
//! Sessions are never resumed: a resumed session would skip the check of the certificate's date and of its revocation.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};

use super::PkiError;

/// What the gate's listener is made of.
#[derive(Debug)]
pub struct TlsMaterial {
    /// The server's certificate, then any intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// Authorities whose clients are let in: the old one and the new one while it changes.
    pub ca_bundle: Vec<CertificateDer<'static>>,
    /// Their revocation lists.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
}

/// The gate's TLS settings; a reload reaches every handshake begun after it.
#[derive(Debug, Clone)]
pub struct GateTls(Arc<ArcSwap<ServerConfig>>);

impl GateTls {
    /// Builds the settings.
    ///
    /// # Errors
    /// [`PkiError::Tls`], [`PkiError::Verifier`].
    pub fn new(material: TlsMaterial) -> Result<Self, PkiError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(mutual(material)?))))
    }

    /// Replaces the settings; what does not build leaves the old ones in force.
    ///
    /// # Errors
    /// As for [`GateTls::new`].
    pub fn reload(&self, material: TlsMaterial) -> Result<(), PkiError> {
        self.0.store(Arc::new(mutual(material)?));
        Ok(())
    }

    /// The settings in force.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

/// TLS 1.3 and 1.2 on ring, whatever provider the process has installed.
pub(super) fn builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?)
}

fn mutual(material: TlsMaterial) -> Result<ServerConfig, PkiError> {
    let mut config = wants_client_certificate(material.ca_bundle, material.crls)?.with_single_cert(material.chain, material.key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn wants_client_certificate(
    ca_bundle: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>, PkiError> {
    let mut roots = RootCertStore::empty();
    for authority in ca_bundle {
        roots.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(crls)
        // A bundle may hold an authority that has revoked nothing yet and so has no list.
        .allow_unknown_revocation_status()
        .only_check_end_entity_revocation()
        .build()?;
    Ok(builder()?.with_client_cert_verifier(verifier))
}
