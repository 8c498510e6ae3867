//! Sealing of BMC passwords: to the owning agent and to the site's recovery key, so that nobody between can read them.
//!
//! HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256) with HKDF-SHA256 and ChaCha20-Poly1305. What the password belongs
//! to (host, address, user) is authenticated with it: a sealed password moved to another address does not open.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal_with_rng};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::id::{ClusterId, HostId};
use crate::secret::Secret;

type Public = <X25519HkdfSha256 as Kem>::PublicKey;
type Private = <X25519HkdfSha256 as Kem>::PrivateKey;
type Encapped = <X25519HkdfSha256 as Kem>::EncappedKey;

const INFO: &[u8] = b"picket bmc password v1";
const KEY_LEN: usize = 32;

/// Longest sealed text taken from outside, in bytes: a password of 255 bytes with room to spare.
pub const MAX_SEALED_LEN: usize = 512;

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key is not an X25519 key of 32 bytes.
    #[error("not an X25519 key")]
    Key,
    /// Sealed for another key, another host, address or user, or damaged.
    #[error("the sealed password does not open: it belongs to another key, host, address or user")]
    Open,
    /// The cipher refused the input.
    #[error("the password could not be sealed")]
    Seal,
}

/// An X25519 public key: whom to seal to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SealingKey(pub [u8; KEY_LEN]);

/// A sealed password: 32 bytes of encapsulated key, then the ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(pub Vec<u8>);

/// What a sealed password belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Belongs<'a> {
    /// One host's BMC.
    Host {
        /// The host.
        host: &'a HostId,
        /// The BMC's address as configured.
        address: &'a str,
        /// The login name.
        username: &'a str,
    },
    /// All hosts of a cluster that have no password of their own.
    Cluster {
        /// The cluster.
        cluster: &'a ClusterId,
        /// The login name.
        username: &'a str,
    },
}

impl Belongs<'_> {
    /// Length-prefixed parts; a cluster's begin with a word that no host id can be, for ids are lower case.
    fn bytes(&self) -> Vec<u8> {
        let parts = match self {
            Self::Host { host, address, username } => [host.as_str(), address, username],
            Self::Cluster { cluster, username } => ["CLUSTER", cluster.as_str(), username],
        };
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// Makes a key pair from `random` (32 bytes of true randomness).
#[must_use]
pub fn key_pair(random: &Secret<[u8; KEY_LEN]>) -> (Secret<[u8; KEY_LEN]>, SealingKey) {
    let (private, public) = X25519HkdfSha256::derive_keypair(random.expose());
    (Secret::new(private.to_bytes().into()), SealingKey(public.to_bytes().into()))
}

/// The public half of a private key.
///
/// # Errors
/// [`SealError::Key`].
pub fn public_of(private: &Secret<[u8; KEY_LEN]>) -> Result<SealingKey, SealError> {
    let private = Private::from_bytes(private.expose()).map_err(|_| SealError::Key)?;
    Ok(SealingKey(X25519HkdfSha256::sk_to_pk(&private).to_bytes().into()))
}

/// Seals `password` to `key`.
///
/// # Errors
/// [`SealError::Key`], [`SealError::Seal`].
pub fn seal(
    key: &SealingKey,
    belongs: Belongs<'_>,
    password: &Secret<String>,
    rng: &mut impl CryptoRng,
) -> Result<Sealed, SealError> {
    let public = Public::from_bytes(&key.0).map_err(|_| SealError::Key)?;
    let (encapped, ciphertext) = single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        INFO,
        password.expose().as_bytes(),
        &belongs.bytes(),
        rng,
    )
    .map_err(|_| SealError::Seal)?;
    let mut bytes = encapped.to_bytes().to_vec();
    bytes.extend_from_slice(&ciphertext);
    Ok(Sealed(bytes))
}

/// Opens a sealed password.
///
/// # Errors
/// [`SealError::Key`], [`SealError::Open`].
pub fn open(private: &Secret<[u8; KEY_LEN]>, belongs: Belongs<'_>, sealed: &Sealed) -> Result<Secret<String>, SealError> {
    let private = Private::from_bytes(private.expose()).map_err(|_| SealError::Key)?;
    let (encapped, ciphertext) = sealed.0.split_at_checked(KEY_LEN).ok_or(SealError::Open)?;
    let encapped = Encapped::from_bytes(encapped).map_err(|_| SealError::Open)?;
    let plain = single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
        &OpModeR::Base,
        &private,
        &encapped,
        INFO,
        ciphertext,
        &belongs.bytes(),
    )
    .map(Zeroizing::new)
    .map_err(|_| SealError::Open)?;
    std::str::from_utf8(&plain).map(|text| Secret::new(text.to_owned())).map_err(|_| SealError::Open)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence that only looks random: enough to test with.
    struct Counter(u64);
    impl rand_core::TryRng for Counter {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            let mut bytes = [0; 4];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            let mut bytes = [0; 8];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
            out.fill_with(|| {
                self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                self.0.to_be_bytes()[0]
            });
            Ok(())
        }
    }
    impl rand_core::TryCryptoRng for Counter {}

    #[test]
    fn opens_only_where_it_belongs() {
        let (private, public) = key_pair(&Secret::new([7; 32]));
        assert_eq!(public_of(&private).unwrap(), public);
        let host: HostId = "r07n01".parse().unwrap();
        let other: HostId = "r07n02".parse().unwrap();
        let cluster: ClusterId = "r07n01".parse().unwrap();
        let of = |host, address, username| Belongs::Host { host, address, username };
        let belongs = of(&host, "10.0.0.1", "admin");
        let sealed = seal(&public, belongs, &Secret::new("s3cret".into()), &mut Counter(1)).unwrap();
        assert!(!sealed.0.windows(6).any(|w| w == b"s3cret"));
        assert_eq!(open(&private, belongs, &sealed).unwrap().expose(), "s3cret");
        for wrong in [
            of(&other, "10.0.0.1", "admin"),
            of(&host, "10.0.0.2", "admin"),
            of(&host, "10.0.0.1", "root"),
            of(&host, "10.0.0.1a", "dmin"),
            Belongs::Cluster { cluster: &cluster, username: "admin" },
        ] {
            assert_eq!(open(&private, wrong, &sealed), Err(SealError::Open));
        }
        let (stranger, _) = key_pair(&Secret::new([8; 32]));
        assert_eq!(open(&stranger, belongs, &sealed), Err(SealError::Open));
        assert_eq!(open(&private, belongs, &Sealed(vec![1; 10])), Err(SealError::Open));
    }
}
