//! `picket-agent join TOKEN`: proves the token's secret to the aggregator it names, and nobody else, and keeps the certificate.
//!
//! The server must present a chain whose root has the key that the token names; before that nothing is sent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use picket_common::api::{JoinRequest, JoinResponse, Problem};
use picket_common::join::{self, JoinToken};
use picket_common::seal;
use picket_common::secret::Secret;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::identity::{Files, IdentityError, key_of};

/// Largest answer read.
const MAX_ANSWER: usize = 256 * 1024;

/// Why the agent could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has joined before.
    #[error(
        "this agent has joined already (state directory {0}); use another --state-dir, or remove its identity folder to start anew"
    )]
    Already(String),
    /// The keys could not be made or kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A key or request could not be made.
    #[error("the {0} could not be made")]
    Made(&'static str),
    /// The aggregator could not be reached, or is not the one the token names.
    #[error("the aggregator at {api} could not be asked: {hint}")]
    Unreachable {
        /// `host:port`.
        api: String,
        /// What to look at.
        hint: &'static str,
        /// The client's error.
        #[source]
        source: reqwest::Error,
    },
    /// The aggregator said no.
    #[error("the aggregator refused: {title}: {detail} ({code})")]
    Refused {
        /// Problem title.
        title: String,
        /// Problem detail.
        detail: String,
        /// Problem code.
        code: String,
    },
    /// The answer is not one.
    #[error("the aggregator's answer is not to be trusted: {0}")]
    Answer(&'static str),
}

/// Joins; gives the agent's id.
///
/// # Errors
/// [`JoinError`].
pub async fn join(token: &JoinToken, state_dir: &Path) -> Result<JoinResponse, JoinError> {
    let files = Files::new(state_dir);
    if files.is_joined() {
        return Err(JoinError::Already(state_dir.display().to_string()));
    }
    let (csr, sealing_key) = keys(&files)?;
    let request = JoinRequest {
        proof: join::proof(&token.secret, "request", &[&token.ca_hash, &token.id, &csr, &sealing_key]),
        token_id: token.id.clone(),
        csr,
        sealing_key,
    };
    let response = ask(token, &request).await?;
    let keys = response.verifying_keys.join(",");
    let parts = [&token.ca_hash, &token.id, response.agent.as_str(), &response.certificate, &response.ca, &response.mqtt, &keys];
    if !join::verify(&token.secret, "response", &parts, &response.proof) {
        return Err(JoinError::Answer("it does not prove that the aggregator knows the token"));
    }
    if response.verifying_keys.is_empty() || response.verifying_keys.iter().any(|key| key_of(key).is_none()) {
        return Err(JoinError::Answer("its signing keys are not keys"));
    }
    files.keep(&response)?;
    Ok(response)
}

/// The agent's certificate request and public sealing key. Kept, so that a second try after a lost answer sends the same.
fn keys(files: &Files) -> Result<(String, String), JoinError> {
    let fresh = rcgen::KeyPair::generate().map_err(|_| JoinError::Made("key"))?.serialize_pem();
    let key = files.read_or_make("agent.key", || fresh)?;
    let key = rcgen::KeyPair::from_pem(&key).map_err(|_| JoinError::Made("key"))?;
    let request = rcgen::CertificateParams::default().serialize_request(&key).and_then(|csr| csr.pem());
    let request = request.map_err(|_| JoinError::Made("certificate request"))?;
    let csr = files.read_or_make("agent.csr", || request)?;

    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| JoinError::Made("sealing key"))?;
    let (private, _) = seal::key_pair(&Secret::new(random));
    let private = files.read_or_make("sealing.key", || hex::encode(private.expose()))?;
    let private = key_of(private.trim()).ok_or(JoinError::Made("sealing key"))?;
    let public = seal::public_of(&Secret::new(private)).map_err(|_| JoinError::Made("sealing key"))?;
    Ok((csr, hex::encode(public.0)))
}

async fn ask(token: &JoinToken, request: &JoinRequest) -> Result<JoinResponse, JoinError> {
    let unreachable = |source: reqwest::Error| JoinError::Unreachable {
        api: token.api.clone(),
        hint: if source.is_timeout() {
            "no answer; is the address right and the port open?"
        } else {
            "is it running, and is it the one that made the token?"
        },
        source,
    };
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(pinned_tls(&token.ca_hash)?)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(20))
        .build()
        .map_err(unreachable)?;
    let mut response =
        client.post(format!("https://{}/v1/agents/join", token.api)).json(request).send().await.map_err(unreachable)?;
    let ok = response.status().is_success();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err(JoinError::Answer("it is too long"));
        }
    }
    if ok {
        return serde_json::from_slice(&body).map_err(|_| JoinError::Answer("it is not the JSON of a join"));
    }
    let Problem { title, detail, code, .. } =
        serde_json::from_slice(&body).map_err(|_| JoinError::Answer("it is neither a join nor a problem"))?;
    Err(JoinError::Refused { title, detail, code })
}

fn pinned_tls(ca_hash: &str) -> Result<ClientConfig, JoinError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Pinned { ca_hash: ca_hash.to_owned(), provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| JoinError::Made("TLS configuration"))?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Trusts the root whose public key the token names, if the server sends it, and then verifies as usual.
#[derive(Debug)]
struct Pinned {
    ca_hash: String,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn verifier(&self, chain: &[CertificateDer<'_>]) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
        let root = chain
            .iter()
            .find(|certificate| spki_sha256(certificate).as_deref() == Some(self.ca_hash.as_str()))
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo, hex.
fn spki_sha256(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(hex::encode(ring::digest::digest(&ring::digest::SHA256, parsed.public_key().raw)))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier(intermediates)?.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
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
