//! Making agents, witnesses and consumers known: join tokens, the join itself, consumers' certificates. A join is anonymous: the proof
//! counts, and one who has none learns nothing. Never logs a token, a proof or a key.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json as Shown};
use jiff::Timestamp;
use picket_common::api::{ConsumerCertificate, ConsumerRequest, JoinRequest, JoinResponse, JoinToken, JoinTokenRequest};
use picket_common::clock::Now;
use picket_common::id::AgentId;
use picket_common::join::{JoinToken as Token, proof, verify};
use picket_common::seal::SealingKey;
use picket_common::secret::Secret;

use super::audit::Trail;
use super::bucket::Bucket;
use super::extract::Json;
use super::problem::ApiError;
use super::who::Who;
use super::{Api, HoldsSecret, not_found};
use crate::authorise::{Action, authorise};
use crate::clock;
use crate::fleet::classify::Right;
use crate::fleet::view::{JoinTokenRow, WitnessTokenRow};
use crate::fleet::{Answer, Request, Terms};
use crate::pki::{MAX_AGENT_DAYS, MAX_CONSUMER_DAYS, MAX_WITNESS_DAYS, PkiError};

/// How long a join token may be used unless asked otherwise, in seconds.
const DEFAULT_TTL: u64 = 3600;

/// How long a consumer's certificate is good unless asked otherwise, in days.
const DEFAULT_CONSUMER_DAYS: u16 = 90;

pub(super) async fn token(
    State(api): State<Api>,
    Who(who): Who,
    Json(body): Json<JoinTokenRequest>,
) -> Result<(StatusCode, Extension<HoldsSecret>, Shown<JoinToken>), ApiError> {
    let ttl = match body.ttl.unwrap_or(DEFAULT_TTL) {
        ttl @ 60..=604_800 => ttl,
        _ => return Err(ApiError::invalid("ttl", "use 60 to 604800 seconds")),
    };
    authorise(&api.context.view.load(), &who.principal, Action::Site(Right::Enrol))?;
    let (id, secret) = (random_hex::<8>()?, random_hex::<32>()?);
    let expires_at = clock::now().after(Duration::from_secs(ttl)).wall;
    let token = Token {
        ca_hash: api.authority.ca_spki_sha256(),
        id: id.clone(),
        secret: Secret::new(secret.clone()),
        api: api.context.advertised_api.to_string(),
    }
    .to_string();
    let (agent, request) = match (body.rack, body.host) {
        (Some(rack), None) => {
            if !api.view(&who).racks.contains_key(&rack) {
                return Err(not_found("rack", &rack));
            }
            let agent = match body.agent {
                Some(agent) => agent,
                None => rack.as_str().parse().map_err(|_| ApiError::Internal)?,
            };
            let row = JoinTokenRow { id, secret, agent: agent.clone(), rack, expires_at, used: None };
            (agent, Request::AddJoinToken(row))
        }
        (None, Some(host)) => {
            if !api.view(&who).hosts.contains_key(&host) {
                return Err(not_found("host", &host));
            }
            if body.agent.is_some() {
                return Err(ApiError::invalid("agent", "a witness goes by its host's id; leave this out"));
            }
            let agent = host.as_str().parse().map_err(|_| ApiError::Internal)?;
            (agent, Request::AddWitnessToken(WitnessTokenRow { id, secret, host, expires_at, used: None }))
        }
        _ => return Err(ApiError::invalid("rack", "give either the rack that an agent will guard, or the host of a witness")),
    };
    api.change(&who, request).await?;
    let command = format!("picket-agent join {token}");
    Ok((StatusCode::CREATED, Extension(HoldsSecret), Shown(JoinToken { agent, token, command, expires_at })))
}

fn random_hex<const N: usize>() -> Result<String, ApiError> {
    let mut bytes = zeroize::Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut()).map_err(|error| broken("no random bytes", &error))?;
    Ok(hex::encode(bytes.as_slice()))
}

fn broken(what: &'static str, error: &dyn std::error::Error) -> ApiError {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    tracing::error!(error = %error, cause, "{what}");
    ApiError::Internal
}

pub(super) async fn join(
    State(api): State<Api>,
    Extension(trail): Extension<Trail>,
    Json(body): Json<JoinRequest>,
) -> Result<Shown<JoinResponse>, ApiError> {
    let now = clock::now();
    let row = Known::find(&api, &body.token_id).ok_or(ApiError::JoinRefused)?;
    let secret = row.secret();
    let ca_hash = api.authority.ca_spki_sha256();
    if !verify(&secret, "request", &[&ca_hash, &body.token_id, &body.csr, &body.sealing_key], &body.proof) {
        tracing::warn!(token_id = %body.token_id, "join with a wrong proof");
        return Err(ApiError::JoinRefused);
    }
    // Only now: else anybody could use up what those with a token need. Refusing costs no more than a hash.
    if !api.limits.joins.lock().unwrap_or_else(PoisonError::into_inner).take(now.boottime) {
        return Err(ApiError::TooMany(1));
    }
    trail.by_join(&body.token_id);
    let (agent, certificate) = joined(&api, &trail, &row, &body, now).await?;
    answer(&api, &secret, &ca_hash, &body.token_id, agent, certificate).map(Shown)
}

/// A token that the fleet knows, and whom it is for.
enum Known {
    Agent(Arc<JoinTokenRow>),
    Witness(Arc<WitnessTokenRow>),
}

impl Known {
    fn find(api: &Api, id: &str) -> Option<Self> {
        let view = api.context.view.load();
        let agent = view.join_tokens.get(id).cloned().map(Self::Agent);
        agent.or_else(|| view.witness_tokens.get(id).cloned().map(Self::Witness))
    }

    fn secret(&self) -> Secret<String> {
        Secret::new(match self {
            Self::Agent(row) => row.secret.clone(),
            Self::Witness(row) => row.secret.clone(),
        })
    }

    /// What the fleet is asked, with a certificate made for that one.
    fn request(&self, api: &Api, body: &JoinRequest, now: Now) -> Result<Request, ApiError> {
        let mut key = [0; 32];
        hex::decode_to_slice(&body.sealing_key, &mut key).map_err(|_| ApiError::invalid("sealing_key", "not 64 hex digits"))?;
        let signed = match self {
            Self::Agent(row) => api.authority.sign_agent(&body.csr, &row.agent, now, MAX_AGENT_DAYS),
            Self::Witness(row) => api.authority.sign_witness(&body.csr, &row.host, now, MAX_WITNESS_DAYS),
        };
        let (certificate, public_key) = signed.map_err(|error| match error {
            PkiError::Request(why) => ApiError::invalid("csr", why),
            error => broken("certificate not signed", &error),
        })?;
        let (token_id, csr) = (body.token_id.clone(), body.csr.clone());
        Ok(match self {
            Self::Agent(_) => Request::Join { token_id, csr, certificate, public_key, sealing_key: SealingKey(key) },
            Self::Witness(_) => Request::JoinWitness { token_id, csr, certificate, public_key },
        })
    }
}

async fn joined(api: &Api, trail: &Trail, row: &Known, body: &JoinRequest, now: Now) -> Result<(AgentId, String), ApiError> {
    let request = row.request(api, body, now)?;
    // Proven by the token, not by a principal: this does not pass through `authorise`.
    let (audit, _) = trail.asks(&request);
    let terms = Terms { audit: Some(audit), ..Terms::default() };
    match api.context.asker.ask(&format!("join:{}", body.token_id), request, terms).await? {
        Answer::Joined { agent, certificate } => {
            trail.recorded();
            Ok((agent, certificate))
        }
        other => {
            tracing::error!(answer = ?other, "join answered with something else");
            Err(ApiError::Internal)
        }
    }
}

fn answer(
    api: &Api,
    secret: &Secret<String>,
    ca_hash: &str,
    token_id: &str,
    agent: AgentId,
    certificate: String,
) -> Result<JoinResponse, ApiError> {
    let ca = api.authority.ca_pem().to_owned();
    let signing = api.authority.signing_key().map_err(|error| broken("signing key not usable", &error))?;
    let verifying_keys = vec![hex::encode(signing.verifying_key().0)];
    let mqtt = api.context.advertised_mqtt.to_string();
    let parts = [ca_hash, token_id, agent.as_str(), &certificate, &ca, &mqtt, &verifying_keys.join(",")];
    let proof = proof(secret, "response", &parts);
    Ok(JoinResponse { site: api.context.site.to_string(), agent, certificate, ca, verifying_keys, mqtt, proof })
}

pub(super) async fn consumer(
    State(api): State<Api>,
    Who(who): Who,
    Json(body): Json<ConsumerRequest>,
) -> Result<(StatusCode, Extension<HoldsSecret>, Shown<ConsumerCertificate>), ApiError> {
    authorise(&api.context.view.load(), &who.principal, Action::Site(Right::Enrol))?;
    let days = match body.days.map_or(Ok(DEFAULT_CONSUMER_DAYS), u16::try_from) {
        Ok(days @ 1..=MAX_CONSUMER_DAYS) => days,
        _ => return Err(ApiError::invalid("days", format!("use 1 to {MAX_CONSUMER_DAYS}"))),
    };
    who.trail.about(format_args!("consumer/{}", body.name), format_args!("days={days}"));
    let now = clock::now();
    let issued = api.authority.issue_consumer(&body.name, now, days);
    let (certificate, private_key) = issued.map_err(|error| broken("certificate not issued", &error))?;
    tracing::info!(consumer = %body.name, days, principal = %who.principal.name, "consumer certificate issued");
    let expires_at = now.after(Duration::from_secs(u64::from(days) * 86_400)).wall;
    let whole_second = Timestamp::from_second(expires_at.as_second()).unwrap_or(expires_at);
    Ok((
        StatusCode::CREATED,
        Extension(HoldsSecret),
        Shown(ConsumerCertificate {
            name: body.name,
            certificate,
            private_key: private_key.to_string(),
            ca: api.authority.ca_pem().to_owned(),
            mqtt: api.context.advertised_mqtt.to_string(),
            expires_at: whole_second,
        }),
    ))
}

/// Joins in a row that are let through at once: a site's racks may all be set up by one script.
const BURST: u32 = 64;

/// Time after which one more is let through: each signs a certificate and is written down.
const REFILL: Duration = Duration::from_millis(100);

/// What lets joins with a good proof through.
pub(super) const fn bucket() -> Bucket {
    Bucket::new(BURST, REFILL)
}
