//! Trust in a server of which only the hash of its authority's key is known: for the first contact, before a CA certificate is at
//! hand. Judges certificates; opens no connection and asks no clock, rustls brings both.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::certificate;

/// Trusts the one root whose key has the hash, if the server sends it, and what follows from it by the ordinary rules.
#[derive(Debug)]
pub struct PinnedRoot {
    hash: String,
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl PinnedRoot {
    /// `hash` is the SHA-256 of the root's SubjectPublicKeyInfo, in hex.
    #[must_use]
    pub fn new(hash: &str) -> Arc<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Arc::new(Self { hash: hash.to_ascii_lowercase(), provider, found: Mutex::new(None) })
    }

    /// TLS settings that trust so and show no certificate of their own.
    ///
    /// # Errors
    /// When rustls has no protocol version for its own provider.
    pub fn client_config(self: &Arc<Self>) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions()?;
        Ok(builder.dangerous().with_custom_certificate_verifier(Arc::clone(self) as _).with_no_client_auth())
    }

    /// The root, once a server has proven to follow from it.
    #[must_use]
    pub fn found(&self) -> Option<CertificateDer<'static>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_root(&self, certificate: &CertificateDer<'_>) -> bool {
        key_hash(certificate).is_some_and(|hash| hash == self.hash)
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo, hex.
fn key_hash(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(certificate::spki_sha256(parsed.public_key().raw))
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = intermediates.iter().find(|certificate| self.is_root(certificate));
        let root =
            root.ok_or_else(|| rustls::Error::General("the CA's key does not have the given hash".into()))?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(root.clone())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(root);
        Ok(verified)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    struct Ca {
        root: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Ca { root, issuer: Issuer::new(params, key) }
    }

    fn leaf(ca: &Ca, name: &str) -> CertificateDer<'static> {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.signed_by(&KeyPair::generate().unwrap(), &ca.issuer).unwrap().der().clone()
    }

    #[test]
    fn only_what_follows_from_the_pinned_root_is_trusted() {
        let (ours, other) = (ca(), ca());
        let hash = key_hash(&ours.root).unwrap();
        let (good, foreign, elsewhere) = (leaf(&ours, "aggr"), leaf(&other, "aggr"), leaf(&ours, "elsewhere"));
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        let name = ServerName::try_from("aggr").unwrap();
        for (what, hash, end, sent, trusted) in [
            ("the root and its own", &*hash, &good, vec![&ours.root], true),
            ("in capitals", &*hash.to_uppercase(), &good, vec![&ours.root], true),
            ("among others", &*hash, &good, vec![&other.root, &ours.root], true),
            ("no root", &*hash, &good, vec![], false),
            ("another root", &*hash, &foreign, vec![&other.root], false),
            ("our root, but not its own", &*hash, &foreign, vec![&other.root, &ours.root], false),
            ("another name", &*hash, &elsewhere, vec![&ours.root], false),
            ("another hash", &*"0".repeat(64), &good, vec![&ours.root], false),
            ("no hash", "", &good, vec![&ours.root], false),
        ] {
            let pin = PinnedRoot::new(hash);
            let sent: Vec<_> = sent.into_iter().cloned().collect();
            let verdict = pin.verify_server_cert(end, &sent, &name, &[], now);
            assert_eq!(verdict.is_ok(), trusted, "{what}: {verdict:?}");
            assert_eq!(pin.found().is_some_and(|found| found == ours.root), trusted, "{what}");
        }
    }
}
