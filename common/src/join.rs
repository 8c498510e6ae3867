//! The join token and the proof that both sides know it. The secret itself never crosses the wire.
//!
//! ```text
//! pkj1.<sha256 of the CA's public key, hex>.<token id>.<secret>@<host:port>
//! ```

use std::fmt;
use std::str::FromStr;

use ring::hmac;

use crate::secret::Secret;

const PREFIX: &str = "pkj1";

/// A join token, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the CA certificate's SubjectPublicKeyInfo, lower-case hex.
    pub ca_hash: String,
    /// Which token.
    pub id: String,
    /// Its secret, hex.
    pub secret: Secret<String>,
    /// The API's `host:port`.
    pub api: String,
}

/// Why a text is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: expected pkj1.<64 hex>.<id>.<secret>@<host:port>, as printed by `picketctl agents token`")]
pub struct JoinTokenError;

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let (token, api) = text.trim().split_once('@').ok_or(JoinTokenError)?;
        let parts: Vec<&str> = token.split('.').collect();
        let [PREFIX, ca_hash, id, secret] = parts[..] else { return Err(JoinTokenError) };
        let is_hex = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let host_port = api.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if ca_hash.len() != 64 || !is_hex(ca_hash) || !is_hex(id) || !is_hex(secret) || !host_port || text.len() > 512 {
            return Err(JoinTokenError);
        }
        Ok(Self { ca_hash: ca_hash.into(), id: id.into(), secret: Secret::new(secret.into()), api: api.into() })
    }
}

impl fmt::Display for JoinToken {
    /// Writes the token **with its secret**: for showing it once to the admin who asked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}.{}@{}", self.ca_hash, self.id, self.secret.expose(), self.api)
    }
}

/// HMAC-SHA256 with a key derived from the token's secret over `label` and all `parts`, length-prefixed.
///
/// Labels: `request` over (CA hash, token id, CSR, sealing key); `response` over (CA hash, token id, agent, certificate, CA,
/// MQTT address, verifying keys joined by commas).
#[must_use]
pub fn proof(secret: &Secret<String>, label: &str, parts: &[&str]) -> String {
    hex::encode(hmac::sign(&key(secret), &message(label, parts)).as_ref())
}

/// Whether `proof` is right; takes the same time whatever it holds.
#[must_use]
pub fn verify(secret: &Secret<String>, label: &str, parts: &[&str], proof: &str) -> bool {
    hex::decode(proof).is_ok_and(|tag| hmac::verify(&key(secret), &message(label, parts), &tag).is_ok())
}

fn key(secret: &Secret<String>) -> hmac::Key {
    let base = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&base, b"picket join v1").as_ref())
}

fn message(label: &str, parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in std::iter::once(&label).chain(parts) {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_round_trips_and_nonsense_is_refused() {
        let text = format!("pkj1.{}.0a1b.{}@aggr.example:8443", "ab".repeat(32), "cd".repeat(32));
        let token: JoinToken = text.parse().unwrap();
        assert_eq!(token.to_string(), text);
        for bad in
            ["", "pkj1", "pkj1.ab.cd.ef@h:1", &text.replace("pkj1", "pkj2"), &text.replace(":8443", ""), &text.replace('@', ".")]
        {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
        assert!(!format!("{token:?}").contains("cdcd"));
    }

    #[test]
    fn proof_covers_everything() {
        let secret = Secret::new("s".to_owned());
        let good = proof(&secret, "request", &["a", "b"]);
        assert!(verify(&secret, "request", &["a", "b"], &good));
        assert!(!verify(&secret, "response", &["a", "b"], &good));
        assert!(!verify(&secret, "request", &["ab", ""], &good));
        assert!(!verify(&Secret::new("t".to_owned()), "request", &["a", "b"], &good));
        assert!(!verify(&secret, "request", &["a", "b"], "zz"));
    }
}
