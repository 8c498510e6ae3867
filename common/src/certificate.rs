//! Who a certificate names: exactly one `picket://` URI among its names. Reads nothing else of the subject, checks no signature
//! and no date (TLS does so).

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::id::{AgentId, ConsumerId, HostId, SiteId};

const SCHEME: &str = "picket://";

/// What a certificate's holder is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// A rack's agent.
    Agent(AgentId),
    /// A reader of the public tree.
    Consumer(ConsumerId),
    /// A host's own witness: a server for agents, and nobody's client.
    Witness(HostId),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => write!(f, "agent/{id}"),
            Self::Consumer(id) => write!(f, "consumer/{id}"),
            Self::Witness(id) => write!(f, "witness/{id}"),
        }
    }
}

/// A role within a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Which site's authority named it.
    pub site: SiteId,
    /// What it is.
    pub role: Role,
}

/// A peer as its certificate shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub identity: Identity,
    /// SHA-256 of its key's SubjectPublicKeyInfo, lower-case hex.
    pub spki_sha256: String,
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate.
    #[error("the certificate does not parse")]
    Malformed,
    /// No `picket://` name, or more than one.
    #[error("the certificate has {0} picket names, not one")]
    Names(usize),
    /// The name is none of ours.
    #[error("{0:?} is not picket://<site>/agent/<id>, …/consumer/<id> or …/witness/<id>")]
    NotOurs(String),
}

/// The URI of `role` at `site`.
#[must_use]
pub fn uri(site: &SiteId, role: &Role) -> String {
    format!("{SCHEME}{site}/{role}")
}

/// Reads who `certificate` names, and its key's hash.
///
/// # Errors
/// [`IdentityError`].
pub fn identity(certificate: &CertificateDer<'_>) -> Result<Peer, IdentityError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Malformed)?;
    let names = parsed.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris[..] else { return Err(IdentityError::Names(uris.len())) };
    let identity = parse(uri).ok_or_else(|| IdentityError::NotOurs(uri.chars().take(160).collect()))?;
    Ok(Peer { identity, spki_sha256: spki_sha256(parsed.public_key().raw) })
}

/// SHA-256 of a SubjectPublicKeyInfo (DER), lower-case hex: the name of a key in revocations.
#[must_use]
pub fn spki_sha256(spki: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, spki).as_ref())
}

fn parse(uri: &str) -> Option<Identity> {
    let mut parts = uri.strip_prefix(SCHEME)?.split('/');
    let site = parts.next()?.parse().ok()?;
    let role = match (parts.next()?, parts.next()?) {
        ("agent", id) => Role::Agent(id.parse().ok()?),
        ("consumer", id) => Role::Consumer(id.parse().ok()?),
        ("witness", id) => Role::Witness(id.parse().ok()?),
        _ => return None,
    };
    if parts.next().is_some() { None } else { Some(Identity { site, role }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_round_trip_and_others_are_refused() {
        let site: SiteId = "s1".parse().unwrap();
        let witness = Role::Witness("h1".parse().unwrap());
        for role in [Role::Agent("r07".parse().unwrap()), Role::Consumer("grafana".parse().unwrap()), witness] {
            assert_eq!(parse(&uri(&site, &role)), Some(Identity { site: site.clone(), role }));
        }
        for bad in [
            "picket://s1/agent/",
            "picket://s1/agent/a/b",
            "picket://s1/agent/a#b",
            "picket://s1/admin/a",
            "picket:///agent/a",
            "picket://S1/agent/a",
            "picket://s1/agent",
            "https://s1/agent/a",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
