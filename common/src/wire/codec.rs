//! The frame: `"PK"`, version, kind, then postcard; downward messages also carry a key id and an Ed25519 signature.
//!
//! ```text
//! up:    50 4B | version 1 | kind | postcard
//! down:  50 4B | version 1 | kind | key id (8) | signature (64) | postcard
//! signed bytes: "picket signed message v1\0" kind, length of agent id (1), agent id, key id, postcard
//! ```
//! Lengths are capped before anything is decoded, the signature is verified before decoding, bytes left over are an error,
//! and [`Message::check`] bounds what postcard itself cannot.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::id::AgentId;

/// First bytes of every frame.
pub const MAGIC: [u8; 2] = *b"PK";
/// Version of the messages.
pub const VERSION: u8 = 1;
/// Longest frame, in bytes; both ends set their MQTT packet cap a little above it.
pub const MAX_FRAME_LEN: usize = 64 * 1024;
/// Longest MQTT packet between agent and broker: a frame, its topic and header.
pub const MAX_PACKET_LEN: usize = MAX_FRAME_LEN + 512;

const HEADER_LEN: usize = 4;
const KEY_ID_LEN: usize = 8;
const SIGNATURE_LEN: usize = 64;
const DOMAIN: &[u8] = b"picket signed message v1\0";

/// Why bytes were not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not `"PK"`, or shorter than a header.
    #[error("not a Picket frame")]
    NotAFrame,
    /// Another version.
    #[error("message version {0} is not known here (this side speaks {VERSION})")]
    Version(u8),
    /// Another kind than the topic calls for.
    #[error("message kind {got} on a topic for kind {expected}")]
    Kind {
        /// What the topic carries.
        expected: u8,
        /// What came.
        got: u8,
    },
    /// Over the cap.
    #[error("message of {len} bytes is over the limit of {max}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// postcard refused it.
    #[error("message does not decode: {0}")]
    Decode(String),
    /// Bytes after the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// A value out of its bounds.
    #[error("field {0} is out of bounds")]
    Bounds(&'static str),
    /// Signed by no key that is trusted here.
    #[error("message is signed by an unknown key")]
    UnknownKey,
    /// The signature is wrong: forged, damaged, or meant for another agent.
    #[error("message signature is wrong")]
    Signature,
}

/// A message with its place in the frame.
pub trait Message: Serialize + DeserializeOwned {
    /// Kind byte; never reused.
    const KIND: u8;

    /// Bounds that the types do not express.
    ///
    /// # Errors
    /// [`WireError::Bounds`] naming the field.
    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }
}

/// Encodes an upward message.
///
/// # Errors
/// [`WireError::TooLong`], [`WireError::Bounds`].
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, WireError> {
    message.check()?;
    let frame = postcard::to_extend(message, vec![MAGIC[0], MAGIC[1], VERSION, M::KIND]).map_err(decode_error)?;
    capped(frame)
}

/// Decodes an upward message.
///
/// # Errors
/// Any [`WireError`] but those of signatures.
pub fn decode<M: Message>(frame: &[u8]) -> Result<M, WireError> {
    payload(header::<M>(frame)?)
}

/// The aggregator's signing key.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// From a 32-byte seed.
    ///
    /// # Errors
    /// [`WireError::UnknownKey`] when the seed is not a key.
    pub fn from_seed(seed: &crate::secret::Secret<[u8; 32]>) -> Result<Self, WireError> {
        Ed25519KeyPair::from_seed_unchecked(seed.expose()).map(Self).map_err(|_| WireError::UnknownKey)
    }

    /// The public half, given to agents at join.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        let mut key = [0; 32];
        key.copy_from_slice(self.0.public_key().as_ref());
        VerifyingKey(key)
    }
}

/// The public half of the aggregator's signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct VerifyingKey(pub [u8; 32]);

impl VerifyingKey {
    /// First 8 bytes of the key's SHA-256.
    #[must_use]
    pub fn id(&self) -> [u8; KEY_ID_LEN] {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.0);
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(digest.as_ref().split_at(KEY_ID_LEN).0);
        id
    }
}

/// Encodes and signs a downward message for `agent`.
///
/// # Errors
/// [`WireError::TooLong`], [`WireError::Bounds`].
pub fn sign<M: Message>(key: &SigningKey, agent: &AgentId, message: &M) -> Result<Vec<u8>, WireError> {
    message.check()?;
    let body = postcard::to_stdvec(message).map_err(decode_error)?;
    let key_id = key.verifying_key().id();
    let signature = key.0.sign(&signed_bytes(M::KIND, agent, key_id, &body));
    let mut frame = vec![MAGIC[0], MAGIC[1], VERSION, M::KIND];
    frame.extend_from_slice(&key_id);
    frame.extend_from_slice(signature.as_ref());
    frame.extend_from_slice(&body);
    capped(frame)
}

/// Verifies and decodes a downward message meant for `agent`; `keys` are the aggregator's keys trusted here.
///
/// # Errors
/// Any [`WireError`].
pub fn verify<M: Message>(keys: &[VerifyingKey], agent: &AgentId, frame: &[u8]) -> Result<M, WireError> {
    let rest = header::<M>(frame)?;
    let (key_id, rest) = rest.split_first_chunk::<KEY_ID_LEN>().ok_or(WireError::NotAFrame)?;
    let (signature, body) = rest.split_at_checked(SIGNATURE_LEN).ok_or(WireError::NotAFrame)?;
    let key = keys.iter().find(|key| key.id() == *key_id).ok_or(WireError::UnknownKey)?;
    UnparsedPublicKey::new(&ED25519, key.0)
        .verify(&signed_bytes(M::KIND, agent, *key_id, body), signature)
        .map_err(|_| WireError::Signature)?;
    payload(body)
}

fn signed_bytes(kind: u8, agent: &AgentId, key_id: [u8; KEY_ID_LEN], body: &[u8]) -> Vec<u8> {
    let id = agent.as_str().as_bytes();
    // An id is at most 63 bytes, so its length fits one byte.
    let len = u8::try_from(id.len()).unwrap_or(u8::MAX);
    [DOMAIN, &[kind, len], id, &key_id, body].concat()
}

fn header<M: Message>(frame: &[u8]) -> Result<&[u8], WireError> {
    if frame.len() > MAX_FRAME_LEN {
        return Err(WireError::TooLong { len: frame.len(), max: MAX_FRAME_LEN });
    }
    match frame.split_first_chunk::<HEADER_LEN>() {
        Some(([a, b, version, kind], rest)) if [*a, *b] == MAGIC => {
            if *version != VERSION {
                return Err(WireError::Version(*version));
            }
            if *kind != M::KIND {
                return Err(WireError::Kind { expected: M::KIND, got: *kind });
            }
            Ok(rest)
        }
        _ => Err(WireError::NotAFrame),
    }
}

fn payload<M: Message>(body: &[u8]) -> Result<M, WireError> {
    let (message, rest) = postcard::take_from_bytes::<M>(body).map_err(decode_error)?;
    if !rest.is_empty() {
        return Err(WireError::Trailing(rest.len()));
    }
    message.check()?;
    Ok(message)
}

fn capped(frame: Vec<u8>) -> Result<Vec<u8>, WireError> {
    if frame.len() > MAX_FRAME_LEN {
        return Err(WireError::TooLong { len: frame.len(), max: MAX_FRAME_LEN });
    }
    Ok(frame)
}

fn decode_error(error: postcard::Error) -> WireError {
    WireError::Decode(error.to_string())
}

/// `Ok` when `len` is within `max`.
pub(crate) const fn bound(field: &'static str, len: usize, max: usize) -> Result<(), WireError> {
    if len > max { Err(WireError::Bounds(field)) } else { Ok(()) }
}
