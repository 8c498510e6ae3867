//! The keyed hashes and the cipher of a session: expanded once, wiped on drop. Never sees a packet's layout.

use aes::Aes128;
use aes::cipher::block_padding::NoPadding;
use aes::cipher::{Block, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::suite::Suite;

/// Bytes of an AES block, and of the initialization vector before every encrypted payload.
pub const BLOCK: usize = 16;

/// Bytes of an HMAC's key block, the same for SHA-1 and SHA-256.
const HMAC_BLOCK: usize = 64;

/// A keyed hash with its key already absorbed.
#[derive(Clone)]
pub enum Mac {
    /// HMAC-SHA1.
    Sha1(Hmac<Sha1>),
    /// HMAC-SHA256.
    Sha256(Hmac<Sha256>),
}

impl Mac {
    /// The suite's HMAC under `key`; of a key longer than 64 bytes (none exists in IPMI) only the first 64 count.
    #[must_use]
    pub fn new(suite: Suite, key: &[u8]) -> Self {
        let mut block = [0u8; HMAC_BLOCK];
        for (slot, byte) in block.iter_mut().zip(key) {
            *slot = *byte;
        }
        let mac = match suite {
            Suite::Three => Self::Sha1(Hmac::new(&block.into())),
            Suite::Seventeen => Self::Sha256(Hmac::new(&block.into())),
        };
        block.zeroize();
        mac
    }

    /// The hash of `parts`, one after another.
    #[must_use]
    pub fn sum(&self, parts: &[&[u8]]) -> Digest {
        match self {
            Self::Sha1(mac) => {
                let mut mac = mac.clone();
                parts.iter().for_each(|part| mac.update(part));
                Digest::new(mac.finalize().into_bytes().as_slice())
            }
            Self::Sha256(mac) => {
                let mut mac = mac.clone();
                parts.iter().for_each(|part| mac.update(part));
                Digest::new(mac.finalize().into_bytes().as_slice())
            }
        }
    }
}

/// A hash value; compared in constant time, wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Digest {
    bytes: [u8; 32],
    len: usize,
}

impl Digest {
    fn new(value: &[u8]) -> Self {
        let mut bytes = [0u8; 32];
        for (slot, byte) in bytes.iter_mut().zip(value) {
            *slot = *byte;
        }
        Self { bytes, len: value.len().min(32) }
    }

    /// The whole value.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// The first `len` bytes.
    #[must_use]
    pub fn prefix(&self, len: usize) -> &[u8] {
        self.bytes.get(..len.min(self.len)).unwrap_or(&self.bytes)
    }

    /// Whether the first `code.len()` bytes equal `code`, in constant time; an empty code never matches.
    #[must_use]
    pub fn matches(&self, code: &[u8]) -> bool {
        !code.is_empty() && code.len() <= self.len && bool::from(self.prefix(code.len()).ct_eq(code))
    }
}

/// What protects a live session's packets: K1 for integrity, K2 for encryption (IPMI 2.0 §13.32).
pub struct SessionKeys {
    suite: Suite,
    integrity: Mac,
    cipher: Aes128,
}

impl SessionKeys {
    /// Derives both keys from the session integrity key. The constants are 20 bytes long with SHA-256 too.
    #[must_use]
    pub fn derive(suite: Suite, sik: &Digest) -> Self {
        let base = Mac::new(suite, sik.as_slice());
        let k1 = base.sum(&[&[0x01; 20]]);
        let k2 = base.sum(&[&[0x02; 20]]);
        let mut key = [0u8; BLOCK];
        for (slot, byte) in key.iter_mut().zip(k2.as_slice()) {
            *slot = *byte;
        }
        let cipher = Aes128::new(&key.into());
        key.zeroize();
        Self { suite, integrity: Mac::new(suite, k1.as_slice()), cipher }
    }

    /// Bytes of a packet's authentication code.
    #[must_use]
    pub const fn code_len(&self) -> usize {
        self.suite.code_len()
    }

    /// Appends the authentication code of `packet[from..]`.
    pub fn sign(&self, packet: &mut Vec<u8>, from: usize) {
        let digest = self.integrity.sum(&[packet.get(from..).unwrap_or_default()]);
        packet.extend_from_slice(digest.prefix(self.code_len()));
    }

    /// Whether `code` is the authentication code of `signed`.
    #[must_use]
    pub fn verify(&self, signed: &[u8], code: &[u8]) -> bool {
        code.len() == self.code_len() && self.integrity.sum(&[signed]).matches(code)
    }

    /// Encrypts `blocks` in place; its length is a multiple of [`BLOCK`], else nothing happens.
    pub fn encrypt(&self, iv: [u8; BLOCK], blocks: &mut [u8]) {
        let len = blocks.len();
        let done = cbc::Encryptor::inner_iv_init(&self.cipher, &iv.into()).encrypt_padded::<NoPadding>(blocks, len);
        debug_assert!(done.is_ok(), "the caller pads to whole blocks");
    }

    /// Decrypts `blocks` in place; `false` if its length is not a multiple of [`BLOCK`].
    #[must_use]
    pub fn decrypt(&self, iv: [u8; BLOCK], blocks: &mut [u8]) -> bool {
        let iv: Block<Aes128> = iv.into();
        cbc::Decryptor::inner_iv_init(&self.cipher, &iv).decrypt_padded::<NoPadding>(blocks).is_ok()
    }
}
