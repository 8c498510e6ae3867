//! `picket-agent join TOKEN`: proves the token's secret to the aggregator it names, and nobody else, and keeps the certificate.
//!
//! The server must present a chain whose root has the key that the token names; before that nothing is sent.

use std::path::Path;
use std::time::Duration;

use picket_common::api::{JoinRequest, JoinResponse, Problem};
use picket_common::join::{self, JoinToken};
use picket_common::pin::PinnedRoot;
use picket_common::seal;
use picket_common::secret::Secret;

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
    let tls = PinnedRoot::new(&token.ca_hash).client_config().map_err(|_| JoinError::Made("TLS configuration"))?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
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
