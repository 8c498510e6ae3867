//! Which certificate a BMC may show, and what TLS errors mean. Signatures are always verified; there is no way around that.
//!
//! One TLS configuration serves all BMCs. Every BMC is called by a made-up name of its own (`b7.bmc.invalid`), which carries
//! from the URL through the connection pool to the resolver and to this verifier: so connections, resumed sessions and pins of two
//! BMCs can never be mixed up, not even where they share an address.

use std::cell::Cell;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use super::failure::Failure;
use super::settings::Trust;
use crate::bmc::{Bmc, ErrorClass};

/// SHA-256 of an end-entity certificate.
pub(super) type Fingerprint = [u8; 32];

/// What the resolver and the verifier must know about one BMC, and what they found out.
#[derive(Debug)]
pub(super) struct Peer {
    pub bmc: Arc<Bmc>,
    pub port: u16,
    trust: Trust,
    state: Mutex<PeerState>,
}

#[derive(Debug, Default)]
struct PeerState {
    /// The only certificate accepted; `None` before the first contact.
    pin: Option<Fingerprint>,
    /// The certificate of the latest handshake; not yet proven to be the peer's own.
    seen: Option<Fingerprint>,
    /// Of the latest handshake whose signature was good.
    version: Option<&'static str>,
    /// Why the latest attempt was refused on our side.
    refusal: Option<Failure>,
}

impl Peer {
    pub(super) fn new(bmc: Arc<Bmc>, port: u16, trust: Trust, remembered: Option<Fingerprint>) -> Self {
        let pin = match trust {
            Trust::Pinned { named } => named.or(remembered),
            Trust::Ca | Trust::Insecure => None,
        };
        Self { bmc, port, trust, state: Mutex::new(PeerState { pin, ..PeerState::default() }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refuse(&self, failure: Failure) {
        self.state().refusal = Some(failure);
    }

    pub(super) fn take_refusal(&self) -> Option<Failure> {
        self.state().refusal.take()
    }

    /// After an answer over a finished handshake: from now on the certificate seen is the only one. Returns it if it is new.
    pub(super) fn pin_seen(&self) -> Option<Fingerprint> {
        let mut state = self.state();
        if !matches!(self.trust, Trust::Pinned { .. }) || state.pin.is_some() {
            return None;
        }
        state.pin = state.seen;
        state.pin
    }

    /// Certificate and TLS version of the latest whole handshake, for facts.
    pub(super) fn shown(&self) -> (Option<Fingerprint>, Option<&'static str>) {
        let state = self.state();
        (state.seen, state.version)
    }

    fn judge(&self, shown: Fingerprint) -> Result<(), Failure> {
        let state = self.state();
        if let Some(pin) = state.pin.filter(|pin| *pin != shown) {
            return Err(Failure::setting(
                "certificate-changed",
                format!(
                    "the BMC shows the certificate sha256:{}, but sha256:{} is pinned; if it was changed on purpose, set option pin to the new one",
                    hex::encode(shown),
                    hex::encode(pin)
                ),
            ));
        }
        Ok(())
    }
}

/// All BMCs in contact, by their made-up names.
#[derive(Debug, Default)]
pub(super) struct Peers(RwLock<HashMap<String, Arc<Peer>>>);

impl Peers {
    pub(super) fn find(&self, name: &str) -> Option<Arc<Peer>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn add(&self, name: String, peer: Arc<Peer>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, peer);
    }

    pub(super) fn remove(&self, name: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// The TLS configuration for all BMCs. `roots` are DER certificates from the agent's own configuration.
///
/// # Errors
/// A root that is no certificate.
pub(super) fn config(peers: Arc<Peers>, roots: &[Vec<u8>]) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier { peers, provider: Arc::clone(&provider), ca: ca_verifier(&provider, roots)? };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // The made-up names must not go out.
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::in_memory_sessions(4096);
    Ok(config)
}

fn ca_verifier(provider: &Arc<CryptoProvider>, roots: &[Vec<u8>]) -> Result<Option<Arc<WebPkiServerVerifier>>, rustls::Error> {
    if roots.is_empty() {
        return Ok(None);
    }
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(root.clone()))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map(Some)
        .map_err(|error| rustls::Error::General(error.to_string()))
}

#[derive(Debug)]
struct Verifier {
    peers: Arc<Peers>,
    provider: Arc<CryptoProvider>,
    ca: Option<Arc<WebPkiServerVerifier>>,
}

impl Verifier {
    fn verify_ca(
        &self,
        peer: &Peer,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Failure> {
        let Some(ca) = &self.ca else {
            return Err(Failure::setting("no-ca", "tls=ca needs a CA bundle in the agent's own file, and it names none"));
        };
        let address = peer.bmc.address.trim_matches(['[', ']']);
        let name = match address.parse::<IpAddr>() {
            Ok(ip) => ServerName::from(ip),
            Err(_) => ServerName::try_from(address)
                .map_err(|_| Failure::setting("bad-address", format!("{address:?} cannot stand in a certificate")))?,
        };
        ca.verify_server_cert(end_entity, intermediates, &name, &[], now).map(|_| ()).map_err(|error| untrusted(&error))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ServerName::DnsName(name) = server_name else {
            return Err(rustls::Error::General("not one of our names".into()));
        };
        let peer = self.peers.find(name.as_ref()).ok_or_else(|| rustls::Error::General("the host was forgotten".into()))?;
        let shown: Fingerprint = Sha256::digest(end_entity).into();
        let judged = match peer.trust {
            Trust::Insecure => Ok(()),
            Trust::Ca => self.verify_ca(&peer, end_entity, intermediates, now),
            Trust::Pinned { .. } => peer.judge(shown),
        };
        match judged {
            Ok(()) => {
                peer.state().seen = Some(shown);
                JUDGED.set(Some(peer));
                Ok(ServerCertVerified::assertion())
            }
            Err(failure) => {
                peer.refuse(failure);
                Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verified = rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms);
        note_version("TLS 1.2", verified.is_ok());
        verified
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verified = rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms);
        note_version("TLS 1.3", verified.is_ok());
        verified
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

thread_local! {
    /// Whose certificate was judged last on this thread. rustls judges the certificate and then at once, in the same call, the
    /// signature; only which of the two signature methods it calls tells the version, and that one is not told the name.
    static JUDGED: Cell<Option<Arc<Peer>>> = const { Cell::new(None) };
}

fn note_version(version: &'static str, verified: bool) {
    if let Some(peer) = JUDGED.take().filter(|_| verified) {
        peer.state().version = Some(version);
    }
}

/// The TLS error in the chain of causes of `error`, if there is one.
pub(super) fn find_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        // An io::Error hides what it wraps from source().
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(tls);
        }
        next = inner.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}

/// With `tls=ca`: what to tell about a certificate that does not verify.
fn untrusted(error: &rustls::Error) -> Failure {
    let text = format!(
        "the BMC's certificate does not verify against the agent's CA bundle ({error}); give the BMC one that does, or use tls=pinned"
    );
    Failure::setting("certificate-untrusted", text)
}

/// What to tell about a TLS error. What rustls will never speak needs another driver; the text names it.
pub(super) fn explain(error: &rustls::Error) -> Failure {
    const OTHER: &str = "use driver ipmi, or exec with a program that can";
    let setting = |code: &str, why: &str| Failure::setting(code, format!("{why}; {OTHER}"));
    match error {
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
        | rustls::Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            setting("tls-too-old", "the BMC speaks only TLS 1.1 or older")
        }
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity)
        | rustls::Error::PeerIncompatible(_) => setting(
            "tls-no-common-cipher",
            "the BMC offers no cipher suite with forward secrecy and AEAD (static RSA, CBC or DHE only)",
        ),
        rustls::Error::InvalidCertificate(CertificateError::BadSignature)
        | rustls::Error::InvalidCertificate(CertificateError::UnsupportedSignatureAlgorithmContext { .. })
        | rustls::Error::InvalidCertificate(CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }) => setting(
            "tls-weak-key",
            "the BMC's certificate has a key that is too weak (RSA below 2048 bits) or its signature is wrong",
        ),
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if format!("{other:?}").contains("UnsupportedCertVersion") =>
        {
            setting("tls-certificate-v1", "the BMC's certificate is of X.509 version 1")
        }
        rustls::Error::InvalidCertificate(CertificateError::BadEncoding) => {
            setting("tls-bad-certificate", "the BMC's certificate cannot be read")
        }
        rustls::Error::InvalidCertificate(why) => {
            setting("tls-bad-certificate", &format!("the BMC's certificate is unusable: {why}"))
        }
        rustls::Error::InvalidMessage(_) => {
            Failure::setting("not-tls", "the BMC does not speak TLS at this port; check the port, or the BMC's HTTPS setting")
        }
        other => {
            Failure::new(ErrorClass::Connection, "tls", format!("the TLS handshake failed: {other}; if it never works, {OTHER}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::{InvalidMessage, OtherError, PeerIncompatible};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{self:?}")]
    struct UnsupportedCertVersion;

    #[test]
    fn what_rustls_cannot_do_names_the_way_out() {
        for (error, code, ways_out) in [
            (rustls::Error::AlertReceived(AlertDescription::ProtocolVersion), "tls-too-old", true),
            (rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13), "tls-too-old", true),
            (rustls::Error::AlertReceived(AlertDescription::HandshakeFailure), "tls-no-common-cipher", true),
            (rustls::Error::InvalidCertificate(CertificateError::BadSignature), "tls-weak-key", true),
            (
                rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(UnsupportedCertVersion)))),
                "tls-certificate-v1",
                true,
            ),
            (rustls::Error::InvalidCertificate(CertificateError::BadEncoding), "tls-bad-certificate", true),
            (rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), "not-tls", false),
            (rustls::Error::DecryptError, "tls", true),
        ] {
            let failure = explain(&error);
            assert_eq!(failure.code, code);
            assert_eq!(failure.text.contains("ipmi") && failure.text.contains("exec"), ways_out, "{}", failure.text);
        }
    }

    #[test]
    fn tls_errors_are_found_inside_io_errors() {
        let hidden = std::io::Error::other(std::io::Error::other(rustls::Error::DecryptError));
        assert_eq!(find_error(&hidden), Some(&rustls::Error::DecryptError));
        assert_eq!(find_error(&std::io::Error::other("plain")), None);
    }
}
