//! Keys and codes of RMCP+ cipher suites 3 and 17 (IPMI 2.0 §13.28–13.32). Never the agent's code: this judges it.

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128Dec, Aes128Enc};
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use sha2::Sha256;

/// A suite this simulator speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

impl Suite {
    pub(crate) const fn from_id(id: u8) -> Option<Self> {
        match id {
            3 => Some(Self::Three),
            17 => Some(Self::Seventeen),
            _ => None,
        }
    }

    pub(crate) const fn id(self) -> u8 {
        match self {
            Self::Three => 3,
            Self::Seventeen => 17,
        }
    }

    /// Authentication, integrity and confidentiality algorithm numbers.
    pub(crate) const fn algorithms(self) -> [u8; 3] {
        match self {
            Self::Three => [1, 1, 1],
            Self::Seventeen => [3, 4, 1],
        }
    }

    /// Length of the integrity code in a packet, and of RAKP 4's.
    pub(crate) const fn code_len(self) -> usize {
        match self {
            Self::Three => 12,
            Self::Seventeen => 16,
        }
    }
}

/// A keyed HMAC, ready to be used many times.
#[derive(Clone)]
pub(crate) enum Keyed {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

/// A computed code of 20 or 32 bytes.
pub(crate) struct Code {
    bytes: [u8; 32],
    len: usize,
}

impl Code {
    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// The first `len` bytes.
    pub(crate) fn truncated(&self, len: usize) -> &[u8] {
        self.bytes.get(..len.min(self.len)).unwrap_or(&[])
    }
}

impl Keyed {
    /// Keys shorter than a block are padded with zeros by HMAC itself, so IPMI's 20-byte padding of passwords changes nothing.
    pub(crate) fn new(suite: Suite, key: &[u8]) -> Self {
        let mut block = [0u8; 64];
        block.iter_mut().zip(key).for_each(|(slot, byte)| *slot = *byte);
        match suite {
            Suite::Three => Self::Sha1(Hmac::new(&Array::from(block))),
            Suite::Seventeen => Self::Sha256(Hmac::new(&Array::from(block))),
        }
    }

    pub(crate) fn code(&self, parts: &[&[u8]]) -> Code {
        let mut bytes = [0u8; 32];
        let len = match self {
            Self::Sha1(keyed) => {
                let mut mac = keyed.clone();
                parts.iter().for_each(|part| mac.update(part));
                copy(&mut bytes, &mac.finalize().into_bytes())
            }
            Self::Sha256(keyed) => {
                let mut mac = keyed.clone();
                parts.iter().for_each(|part| mac.update(part));
                copy(&mut bytes, &mac.finalize().into_bytes())
            }
        };
        Code { bytes, len }
    }
}

fn copy(to: &mut [u8; 32], from: &[u8]) -> usize {
    to.iter_mut().zip(from).for_each(|(slot, byte)| *slot = *byte);
    from.len()
}

/// What protects the packets of a session that is up.
#[derive(Clone)]
pub(crate) struct PacketKeys {
    integrity: Keyed,
    encrypt: Aes128Enc,
    decrypt: Aes128Dec,
    code_len: usize,
}

impl std::fmt::Debug for PacketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PacketKeys")
    }
}

impl PacketKeys {
    /// K1 and K2 from the session integrity key: the constants are 20 bytes also with SHA-256.
    pub(crate) fn new(suite: Suite, sik: &Keyed) -> Self {
        let (k1, k2) = (sik.code(&[&[1; 20]]), sik.code(&[&[2; 20]]));
        let mut aes = [0u8; 16];
        aes.iter_mut().zip(k2.as_slice()).for_each(|(slot, byte)| *slot = *byte);
        Self {
            integrity: Keyed::new(suite, k1.as_slice()),
            encrypt: Aes128Enc::new(&Array::from(aes)),
            decrypt: Aes128Dec::new(&Array::from(aes)),
            code_len: suite.code_len(),
        }
    }

    /// Appends the integrity trailer's code over everything from `from` on.
    pub(crate) fn seal(&self, packet: &mut Vec<u8>, from: usize) {
        let code = self.integrity.code(&[packet.get(from..).unwrap_or(&[])]);
        packet.extend_from_slice(code.truncated(self.code_len));
    }

    /// Whether a packet (from its authentication type on) carries the right code; the packet without it.
    pub(crate) fn checked<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        let (covered, code) = packet.split_at_checked(packet.len().checked_sub(self.code_len)?)?;
        (self.integrity.code(&[covered]).truncated(self.code_len) == code).then_some(covered)
    }

    /// Appends IV and ciphertext of `plain` (AES-CBC, padded 1, 2, 3, … and a pad length; IPMI 2.0 §13.29).
    pub(crate) fn encrypt(&self, iv: [u8; 16], plain: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&iv);
        let start = out.len();
        out.extend_from_slice(plain);
        let pad = 15 - plain.len() % 16;
        out.extend((1..=15u8).take(pad));
        out.push(u8::try_from(pad).unwrap_or(0));
        let mut previous = iv;
        let (blocks, _) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<16>();
        for block in blocks {
            block.iter_mut().zip(previous).for_each(|(byte, mask)| *byte ^= mask);
            self.encrypt.encrypt_block(block.into());
            previous = *block;
        }
    }

    /// Decrypts IV and ciphertext into `out`.
    pub(crate) fn decrypt(&self, payload: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (blocks, rest) = payload.as_chunks::<16>();
        let (iv, blocks) = blocks.split_first()?;
        if !rest.is_empty() || blocks.is_empty() {
            return None;
        }
        out.clear();
        let mut previous = *iv;
        for block in blocks {
            let mut plain = *block;
            self.decrypt.decrypt_block((&mut plain).into());
            plain.iter_mut().zip(previous).for_each(|(byte, mask)| *byte ^= mask);
            out.extend_from_slice(&plain);
            previous = *block;
        }
        let pad = usize::from(out.pop()?);
        out.truncate(out.len().checked_sub(pad)?);
        Some(())
    }
}
