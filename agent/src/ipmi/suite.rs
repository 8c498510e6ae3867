//! The cipher suites Picket speaks, and nothing weaker: 17 (SHA-256) and 3 (SHA-1). Suites 0, 1, 2, 6, 7 and 11 lack
//! authentication, integrity or encryption and cannot be named here.

/// A cipher suite by its number in IPMI 2.0 table 22-20.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

impl Suite {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Three => 3,
            Self::Seventeen => 17,
        }
    }

    /// Algorithm numbers of authentication, integrity and confidentiality (tables 13-17 to 13-19).
    #[must_use]
    pub const fn algorithms(self) -> [u8; 3] {
        match self {
            Self::Three => [0x01, 0x01, 0x01],
            Self::Seventeen => [0x03, 0x04, 0x01],
        }
    }

    /// Bytes of a full HMAC: the key exchange codes of RAKP 2 and 3.
    #[must_use]
    pub const fn hmac_len(self) -> usize {
        match self {
            Self::Three => 20,
            Self::Seventeen => 32,
        }
    }

    /// Bytes of a truncated HMAC: RAKP 4's integrity check value and every packet's authentication code.
    #[must_use]
    pub const fn code_len(self) -> usize {
        match self {
            Self::Three => 12,
            Self::Seventeen => 16,
        }
    }
}
