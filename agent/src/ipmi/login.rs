//! One login: Open Session and RAKP 1 to 4 (IPMI 2.0 §13.15–13.24). Makes and checks messages; knows no time and never
//! decides what to try next.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::crypto::{Mac, SessionKeys};
use super::quirks::{Quirk, Quirks};
use super::settings::{Privilege, Settings};
use super::suite::Suite;
use super::wire;

/// Where a login stands: which answer it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Get Channel Authentication Capabilities.
    Capabilities,
    /// Open Session Response.
    Open,
    /// RAKP 2.
    Rakp1,
    /// RAKP 4.
    Rakp3,
    /// The session is up.
    Session,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Capabilities => "get channel authentication capabilities",
            Self::Open => "open session",
            Self::Rakp1 => "RAKP 1",
            Self::Rakp3 => "RAKP 3",
            Self::Session => "a request in the session",
        })
    }
}

/// Why an answer ended a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The BMC answered with an RMCP+ status code (table 13-15).
    Status(u8),
    /// The BMC chose other algorithms than the ones proposed.
    OtherSuite([u8; 3]),
    /// The BMC could not prove that it knows the password.
    WrongPassword,
    /// The BMC's proof was all zeros.
    ZeroCode,
    /// The BMC's last proof, made with the BMC key, is wrong.
    WrongBmcKey,
    /// The BMC gave the session id 0.
    ZeroSessionId,
}

/// What an answer means: `None` is "not an answer to this login", to be dropped.
pub type Heard<T> = Option<Result<T, Rejection>>;

/// The values of one login, from the first random byte to the session keys.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Login {
    #[zeroize(skip)]
    suite: Suite,
    #[zeroize(skip)]
    privilege: Privilege,
    tag: u8,
    local_id: u32,
    remote_id: u32,
    console_random: [u8; 16],
    bmc_random: [u8; 16],
    guid: [u8; 16],
    /// The role byte of RAKP 1.
    role: u8,
    /// The role byte the BMC uses in its codes: [`Self::role`], except with the `opensesspriv` fault.
    hashed_role: u8,
    /// Which of the settings' passwords the BMC proved to hold.
    password: usize,
}

/// What a login ends in.
pub struct Established {
    /// Keys of the session.
    pub keys: SessionKeys,
    /// The console's session id: on packets to us.
    pub local_id: u32,
    /// The BMC's session id: on packets from us.
    pub remote_id: u32,
    /// What the BMC's proofs show of how it makes them.
    pub detected: Quirks,
}

impl Login {
    /// A login that proposes `suite` at `privilege`. `tag` is 0–9: ipmisim answers with the tag's digit in ASCII.
    #[must_use]
    pub fn new(suite: Suite, privilege: Privilege, name_only: bool, tag: u8, local_id: u32, console_random: [u8; 16]) -> Self {
        let role = privilege.number() | if name_only { 0x10 } else { 0 };
        Self {
            suite,
            privilege,
            tag,
            local_id,
            remote_id: 0,
            console_random,
            bmc_random: [0; 16],
            guid: [0; 16],
            role,
            hashed_role: role,
            password: 0,
        }
    }

    /// The proposed suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The privilege level asked for.
    #[must_use]
    pub const fn privilege(&self) -> Privilege {
        self.privilege
    }

    /// The console's session id.
    #[must_use]
    pub const fn local_id(&self) -> u32 {
        self.local_id
    }

    /// Writes the message that `stage` waits for an answer to.
    pub fn write(&self, stage: Stage, settings: &Settings, out: &mut Vec<u8>) {
        match stage {
            Stage::Open => self.write_open(out),
            Stage::Rakp1 => self.write_rakp_1(settings, out),
            Stage::Rakp3 => self.write_rakp_3(settings, out),
            Stage::Capabilities | Stage::Session => out.clear(),
        }
    }

    fn write_open(&self, out: &mut Vec<u8>) {
        let [auth, integrity, confidentiality] = self.suite.algorithms();
        wire::encode_handshake(
            out,
            wire::PAYLOAD_OPEN_REQUEST,
            &[
                &[self.tag, self.privilege.number(), 0, 0],
                &self.local_id.to_le_bytes(),
                &[0, 0, 0, 8, auth, 0, 0, 0],
                &[1, 0, 0, 8, integrity, 0, 0, 0],
                &[2, 0, 0, 8, confidentiality, 0, 0, 0],
            ],
        );
    }

    fn write_rakp_1(&self, settings: &Settings, out: &mut Vec<u8>) {
        wire::encode_handshake(
            out,
            wire::PAYLOAD_RAKP_1,
            &[
                &[self.tag, 0, 0, 0],
                &self.remote_id.to_le_bytes(),
                &self.console_random,
                &[self.role, 0, 0, name_len(settings)],
                &settings.username,
            ],
        );
    }

    fn write_rakp_3(&self, settings: &Settings, out: &mut Vec<u8>) {
        let Some(password) = settings.passwords.get(self.password) else { return out.clear() };
        let code = Mac::new(self.suite, password.expose()).sum(&[
            &self.bmc_random,
            &self.local_id.to_le_bytes(),
            &[self.hashed_role, name_len(settings)],
            &settings.username,
        ]);
        let head = [&[self.tag, 0, 0, 0], &self.remote_id.to_le_bytes()[..], code.as_slice()];
        wire::encode_handshake(out, wire::PAYLOAD_RAKP_3, &head);
    }

    /// Reads an Open Session Response. A refusal may be as short as tag and status.
    pub fn on_open(&mut self, payload: &[u8]) -> Heard<()> {
        let status = self.status(payload)?;
        if status != 0 {
            return Some(Err(Rejection::Status(status)));
        }
        let (_, ids) = payload.split_first_chunk::<8>()?;
        let (remote_id, algorithms) = ids.split_first_chunk::<4>()?;
        let chosen = [*algorithms.get(4)?, *algorithms.get(12)?, *algorithms.get(20)?].map(|number| number & 0x3F);
        self.remote_id = u32::from_le_bytes(*remote_id);
        Some(if chosen != self.suite.algorithms() {
            Err(Rejection::OtherSuite(chosen))
        } else if self.remote_id == 0 {
            Err(Rejection::ZeroSessionId)
        } else {
            Ok(())
        })
    }

    /// Reads RAKP 2 and checks the BMC's proof that it knows the password.
    pub fn on_rakp_2(&mut self, payload: &[u8], settings: &Settings) -> Heard<()> {
        let status = self.status(payload)?;
        if status != 0 {
            return Some(Err(Rejection::Status(status)));
        }
        let (bmc_random, rest) = payload.get(8..)?.split_first_chunk::<16>()?;
        let (guid, rest) = rest.split_first_chunk::<16>()?;
        let code = rest.get(..self.suite.hmac_len())?;
        self.bmc_random = *bmc_random;
        self.guid = *guid;
        if code.iter().all(|byte| *byte == 0) {
            return Some(Err(Rejection::ZeroCode));
        }
        Some(self.prove(code, settings).ok_or(Rejection::WrongPassword))
    }

    /// Finds the password form and role byte that make `code`. Only the BMC's one answer is used: trying forms here is
    /// not another login.
    fn prove(&mut self, code: &[u8], settings: &Settings) -> Option<()> {
        for (index, password) in settings.passwords.iter().enumerate() {
            let mac = Mac::new(self.suite, password.expose());
            for role in self.roles(settings) {
                let expected = mac.sum(&[
                    &self.local_id.to_le_bytes(),
                    &self.remote_id.to_le_bytes(),
                    &self.console_random,
                    &self.bmc_random,
                    &self.guid,
                    &[role, name_len(settings)],
                    &settings.username,
                ]);
                if expected.matches(code) {
                    self.password = index;
                    self.hashed_role = role;
                    return Some(());
                }
            }
        }
        None
    }

    /// Reads RAKP 4 and checks the BMC's proof that it holds the same session key.
    pub fn on_rakp_4(&self, payload: &[u8], settings: &Settings) -> Heard<Established> {
        let status = self.status(payload)?;
        if status != 0 {
            return Some(Err(Rejection::Status(status)));
        }
        let code = payload.get(8..)?.get(..self.suite.code_len())?;
        let password = settings.passwords.get(self.password)?;
        let base = Mac::new(self.suite, settings.bmc_key.as_ref().unwrap_or(password).expose());
        for role in [self.hashed_role, self.role] {
            let session_integrity_key =
                base.sum(&[&self.console_random, &self.bmc_random, &[role, name_len(settings)], &settings.username]);
            let proof = Mac::new(self.suite, session_integrity_key.as_slice()).sum(&[
                &self.console_random,
                &self.remote_id.to_le_bytes(),
                &self.guid,
            ]);
            if proof.matches(code) {
                let keys = SessionKeys::derive(self.suite, &session_integrity_key);
                let detected = self.detected();
                return Some(Ok(Established { keys, local_id: self.local_id, remote_id: self.remote_id, detected }));
            }
        }
        Some(Err(Rejection::WrongBmcKey))
    }

    /// The status of an answer to this login: by the console's session id, or in a refusal without one by the tag.
    fn status(&self, payload: &[u8]) -> Option<u8> {
        let [tag, status, ..] = *payload else { return None };
        let ours = match payload.get(4..8) {
            Some(id) => id == self.local_id.to_le_bytes(),
            None => status != 0 && (tag == self.tag || tag == b'0' + self.tag),
        };
        ours.then_some(status)
    }

    fn detected(&self) -> Quirks {
        let role =
            if self.hashed_role == self.role { Quirks::default() } else { Quirks::default().with(Quirk::OpenSessionPrivilege) };
        if self.password == 0 { role } else { role.with(Quirk::ShortPassword) }
    }

    /// Role bytes the BMC may have put into its codes.
    fn roles(&self, settings: &Settings) -> [u8; 2] {
        let plain = self.privilege.number();
        if settings.wishes.off.has(Quirk::OpenSessionPrivilege) {
            [self.role, self.role]
        } else if settings.tolerates(Quirk::OpenSessionPrivilege) {
            [plain, self.role]
        } else {
            [self.role, plain]
        }
    }
}

fn name_len(settings: &Settings) -> u8 {
    u8::try_from(settings.username.len()).unwrap_or(u8::MAX)
}
