//! A BMC's "no", and answers that do not serve. A completion code is never a reading.

use crate::bmc::{Ask, ErrorClass, NOT_SUPPORTED};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A completion code other than success.
    #[error("the BMC answers {ask:?} with completion code {code:#04x} ({})", meaning(*.ask, *.code))]
    Code {
        /// What was asked.
        ask: Ask,
        /// Completion code.
        code: u8,
    },
    /// A completion code that says that the BMC cannot do this at all.
    #[error("the BMC does not support {ask:?} (completion code {code:#04x})")]
    Unsupported {
        /// What was asked.
        ask: Ask,
        /// Completion code.
        code: u8,
    },
    /// Success, with fewer bytes than Get Chassis Status has.
    #[error("the BMC's chassis status has {len} bytes")]
    Short {
        /// Bytes received.
        len: usize,
    },
    /// The boot flags read back are not those that were acknowledged.
    #[error("the BMC acknowledged the boot device ({wanted}), but shows {shown}")]
    NotTaken {
        /// What was asked for.
        wanted: String,
        /// What is read back.
        shown: String,
    },
    /// The boot flags were acknowledged and cannot be read back.
    #[error("the BMC acknowledged the boot device, but does not show it (completion code {code:#04x})")]
    NotReadBack {
        /// Completion code; 0 with too few bytes.
        code: u8,
    },
    /// No user id has the login's name.
    #[error("the BMC shows no user named {name:?}, so no password was set")]
    NoUser {
        /// The name.
        name: String,
    },
    /// More than one user id has the login's name.
    #[error("the BMC has several users named {name:?} (ids {ids:?}), so no password was set")]
    SeveralUsers {
        /// The name.
        name: String,
        /// Their ids.
        ids: Vec<u8>,
    },
    /// The password is longer than this BMC keeps.
    #[error("this BMC keeps 16 bytes of a password; choose one of at most 16")]
    KeepsSixteen,
}

impl Unusable {
    /// What may be done about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Code { code: 0xC3, .. } => ErrorClass::Deadline,
            Self::Code { code: 0xD4, .. } | Self::NoUser { .. } | Self::SeveralUsers { .. } | Self::KeepsSixteen => {
                ErrorClass::Setting
            }
            Self::Code { .. } | Self::Unsupported { .. } | Self::NotTaken { .. } | Self::NotReadBack { .. } => ErrorClass::Refused,
            Self::Short { .. } => ErrorClass::Protocol,
        }
    }

    /// Short stable code.
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::Code { code, .. } => format!("{code:#04x}"),
            Self::Unsupported { .. } => NOT_SUPPORTED.into(),
            Self::Short { .. } => "short-answer".into(),
            Self::NotTaken { .. } => "not-taken".into(),
            Self::NotReadBack { .. } => "not-read-back".into(),
            Self::NoUser { .. } => "no-such-user".into(),
            Self::SeveralUsers { .. } => "several-users".into(),
            Self::KeepsSixteen => "too-long".into(),
        }
    }

    /// Whether it may have been carried out all the same: the code does not say that nothing was done.
    #[must_use]
    pub const fn maybe_sent(&self) -> bool {
        match self {
            Self::Code { ask: Ask::Status | Ask::Inspect | Ask::TryLogin, .. } => false,
            Self::Code { code, .. } => matches!(*code, 0xC3 | 0xCE | 0xFF),
            Self::NotReadBack { .. } => true,
            _ => false,
        }
    }
}

/// Completion codes: the command's own (§28.12, §22.30), then the generic ones (table 5-2).
const fn meaning(ask: Ask, code: u8) -> &'static str {
    match (ask, code) {
        (Ask::Bootdev { .. }, 0x80) => "the parameter is not supported",
        (Ask::Bootdev { .. }, 0x81) => "somebody else is setting boot options",
        (Ask::Bootdev { .. }, 0x82) => "the parameter is read-only",
        (Ask::SetPassword, 0x80) => "the password test failed",
        (Ask::SetPassword, 0x81) => "the password test failed: wrong length",
        (_, 0xC0) => "busy",
        (_, 0xC1) => "command not supported",
        (_, 0xC2) => "command not supported for this unit",
        (_, 0xC3) => "timeout",
        (_, 0xC7) => "wrong request length",
        (_, 0xC9) => "parameter out of range",
        (Ask::SetPassword, 0xCC) => "invalid data: against the BMC's rules for passwords?",
        (_, 0xCC) => "invalid data field",
        (_, 0xCE) => "no response could be provided",
        (_, 0xD0 | 0xD1) => "a firmware or repository update is going on",
        (_, 0xD2) => "the BMC is starting",
        (_, 0xD3) => "destination unavailable",
        (_, 0xD4) => "insufficient privilege level",
        (_, 0xD5) => "not possible in this state",
        (_, 0xD6) => "command disabled",
        (_, 0xFF) => "unspecified error; a BMC that is starting says this",
        _ => "see IPMI table 5-2",
    }
}
