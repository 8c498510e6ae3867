//! Mutual TLS: the agent's or witness's certificate, and the site's authority as the only one it trusts.

use std::sync::Arc;

use picket_common::certificate::{Role, identity};
use picket_common::id::HostId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

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
    /// The authorities make no verifier.
    #[error("the CA bundle cannot judge anybody; join again")]
    Verifier(#[from] VerifierBuilderError),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(identity: &Identity) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in certificates(&identity.ca, "CA bundle")? {
        roots.add(root)?;
    }
    Ok(roots)
}

/// Certificate, chain, and private key.
type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn own(identity: &Identity) -> Result<Own, TlsError> {
    let chain = certificates(&identity.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(identity.private_key.expose().as_bytes()).map_err(|_| TlsError::Pem("private key"))?;
    Ok((chain, key))
}

/// A client configuration for the gate.
///
/// # Errors
/// [`TlsError`].
pub fn mutual(identity: &Identity) -> Result<Arc<ClientConfig>, TlsError> {
    let (chain, key) = own(identity)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(identity)?)
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

/// How an agent calls witnesses: each must have the certificate of the host that is meant, whatever its address.
#[derive(Debug, Clone)]
pub struct ToWitness {
    base: ClientConfig,
    roots: Arc<RootCertStore>,
}

impl ToWitness {
    /// As this agent.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        let (chain, key) = own(identity)?;
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        // Replaced for each call: this one trusts nobody.
        let mut base = builder.with_root_certificates(RootCertStore::empty()).with_client_auth_cert(chain, key)?;
        base.enable_sni = false;
        base.resumption = Resumption::disabled();
        Ok(Self { base, roots: Arc::new(roots(identity)?) })
    }

    /// To the witness of `host`.
    #[must_use]
    pub fn of(&self, host: &HostId) -> Arc<ClientConfig> {
        let verifier = WitnessOf { host: host.clone(), roots: Arc::clone(&self.roots), provider: provider() };
        let mut config = self.base.clone();
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Arc::new(config)
    }
}

/// Judges by the ordinary rules, but for the name: not where it is but who it is must be right.
#[derive(Debug)]
struct WitnessOf {
    host: HostId,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for WitnessOf {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match identity(end_entity) {
            Ok(peer) if peer.identity.role == Role::Witness(self.host.clone()) => Ok(ServerCertVerified::assertion()),
            _ => Err(rustls::Error::General(format!("the certificate is not that of the witness of host {}", self.host))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A witness's side: whoever connects must have a certificate of the site. Whose it is has to be looked at afterwards:
/// [`is_agent`].
///
/// # Errors
/// [`TlsError`].
pub fn witness_server(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = own(identity)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity)?), provider()).build()?;
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    // A resumed session would skip the check of the certificate's date.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Whether a certificate is an agent's.
#[must_use]
pub fn is_agent(certificate: &CertificateDer<'_>) -> bool {
    identity(certificate).is_ok_and(|peer| matches!(peer.identity.role, Role::Agent(_)))
}
