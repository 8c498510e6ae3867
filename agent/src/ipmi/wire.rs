//! Bytes on the wire: RMCP, the IPMI 1.5 and 2.0 session wrappers, the LAN message inside. Knows no state.
//!
//! [`decode`] is the one door for hostile bytes: it never panics, whatever it is given, and a fuzz target calls just it.

use super::crypto::{BLOCK, SessionKeys};

/// Payload type of an IPMI message.
pub const PAYLOAD_MESSAGE: u8 = 0x00;
/// Payload type of an Open Session Request; the response is one more.
pub const PAYLOAD_OPEN_REQUEST: u8 = 0x10;
/// Payload type of an Open Session Response.
pub const PAYLOAD_OPEN_RESPONSE: u8 = 0x11;
/// Payload type of RAKP message 1.
pub const PAYLOAD_RAKP_1: u8 = 0x12;
/// Payload type of RAKP message 2.
pub const PAYLOAD_RAKP_2: u8 = 0x13;
/// Payload type of RAKP message 3.
pub const PAYLOAD_RAKP_3: u8 = 0x14;
/// Payload type of RAKP message 4.
pub const PAYLOAD_RAKP_4: u8 = 0x15;

/// RMCP version 1, no acknowledge wanted, class IPMI (IPMI 2.0 §13.1.3).
const RMCP: [u8; 4] = [0x06, 0x00, 0xFF, 0x07];
const AUTH_NONE: u8 = 0x00;
const AUTH_RMCP_PLUS: u8 = 0x06;
const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;
/// Where the IPMI 2.0 session header's fields end and the payload begins, from the start of the datagram.
const PAYLOAD_AT: usize = 16;
/// Largest payload accepted: an IPMI message is far smaller.
const MAX_PAYLOAD: usize = 512;
const BMC_ADDRESS: u8 = 0x20;
const CONSOLE_ADDRESS: u8 = 0x81;

/// Why bytes are not a packet. Malformed packets are dropped and counted, never answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the headers say.
    #[error("truncated")]
    Truncated,
    /// Not RMCP class IPMI (an ASF pong, for instance).
    #[error("not an IPMI packet")]
    NotIpmi,
    /// A session wrapper other than none (before a session) or RMCP+.
    #[error("authentication type {0:#04x} is not spoken here")]
    AuthType(u8),
    /// A payload larger than any IPMI message.
    #[error("payload of {0} bytes")]
    Oversized(usize),
    /// The encrypted payload is not whole blocks, or its padding is impossible.
    #[error("encryption padding")]
    Padding,
    /// A checksum of the LAN message is wrong.
    #[error("message checksum")]
    Checksum,
}

/// A datagram taken apart; nothing in it is trusted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// An IPMI 1.5 wrapper without authentication: only the answer to Get Channel Authentication Capabilities.
    Plain {
        /// The LAN message.
        message: &'a [u8],
    },
    /// An RMCP+ wrapper.
    Plus(Plus<'a>),
}

/// The parts of an RMCP+ packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plus<'a> {
    /// Payload type without its two flag bits.
    pub kind: u8,
    /// The packet says its payload is encrypted.
    pub encrypted: bool,
    /// The packet says it carries an authentication code.
    pub authenticated: bool,
    /// Session id of the receiver; 0 before a session.
    pub session_id: u32,
    /// Session sequence number.
    pub sequence: u32,
    /// The payload as sent.
    pub payload: &'a [u8],
    /// Everything from the authentication type to the datagram's end: what the code covers, then the code.
    covered: &'a [u8],
}

impl<'a> Plus<'a> {
    /// Whether the authentication code at the end of the packet is right.
    #[must_use]
    pub fn verify(&self, keys: &SessionKeys) -> bool {
        let Some(split) = self.covered.len().checked_sub(keys.code_len()) else { return false };
        // The pad length and next header fields follow the payload and are covered too.
        let least = PAYLOAD_AT - RMCP.len() + self.payload.len() + 2;
        split >= least && self.covered.split_at_checked(split).is_some_and(|(signed, code)| keys.verify(signed, code))
    }

    /// The decrypted payload, in `scratch`.
    ///
    /// # Errors
    /// [`Malformed::Padding`] if it is not an initialization vector and whole blocks with a possible pad length.
    pub fn decrypt<'s>(&self, keys: &SessionKeys, scratch: &'s mut [u8; MAX_PAYLOAD]) -> Result<&'s [u8], Malformed> {
        let (iv, blocks) = self.payload.split_first_chunk::<BLOCK>().ok_or(Malformed::Padding)?;
        let plain = scratch.get_mut(..blocks.len()).ok_or(Malformed::Padding)?;
        plain.copy_from_slice(blocks);
        if !keys.decrypt(*iv, plain) {
            return Err(Malformed::Padding);
        }
        let pad = usize::from(*plain.last().ok_or(Malformed::Padding)?);
        let end = plain.len().checked_sub(pad + 1).filter(|_| pad < BLOCK).ok_or(Malformed::Padding)?;
        plain.get(..end).ok_or(Malformed::Padding)
    }

    /// The console's session id that open and RAKP answers carry in their payload, when there is one.
    #[must_use]
    pub fn console_id(&self) -> Option<u32> {
        self.payload.get(4..).and_then(<[u8]>::first_chunk).map(|id| u32::from_le_bytes(*id))
    }
}

/// The console's session id that a datagram names, in its header or in an open or RAKP answer; only for finding its
/// session, which checks everything.
#[must_use]
pub fn console_id(datagram: &[u8]) -> Option<u32> {
    let Ok(Packet::Plus(plus)) = decode(datagram) else { return None };
    match plus.kind {
        _ if plus.session_id != 0 => Some(plus.session_id),
        PAYLOAD_OPEN_RESPONSE | PAYLOAD_RAKP_2 | PAYLOAD_RAKP_4 => plus.console_id(),
        _ => None,
    }
}

/// Room for one decrypted payload.
pub type Scratch = [u8; MAX_PAYLOAD];

/// An empty [`Scratch`].
#[must_use]
pub const fn scratch() -> Scratch {
    [0; MAX_PAYLOAD]
}

/// Takes a datagram apart.
///
/// # Errors
/// [`Malformed`]: drop it.
pub fn decode(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (rmcp, covered) = bytes.split_first_chunk::<4>().ok_or(Malformed::Truncated)?;
    // Bit 7 of the class marks an RMCP acknowledge; the sequence number is not used by IPMI.
    if rmcp[0] != RMCP[0] || rmcp[3] != RMCP[3] {
        return Err(Malformed::NotIpmi);
    }
    match *covered.first().ok_or(Malformed::Truncated)? {
        AUTH_NONE => decode_plain(covered),
        AUTH_RMCP_PLUS => decode_plus(covered),
        other => Err(Malformed::AuthType(other)),
    }
}

fn decode_plain(covered: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (header, rest) = covered.split_first_chunk::<10>().ok_or(Malformed::Truncated)?;
    let message = rest.get(..usize::from(header[9])).ok_or(Malformed::Truncated)?;
    Ok(Packet::Plain { message })
}

fn decode_plus(covered: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (header, rest) = covered.split_first_chunk::<12>().ok_or(Malformed::Truncated)?;
    let [_, kind, i0, i1, i2, i3, s0, s1, s2, s3, l0, l1] = *header;
    let len = usize::from(u16::from_le_bytes([l0, l1]));
    if len > MAX_PAYLOAD {
        return Err(Malformed::Oversized(len));
    }
    Ok(Packet::Plus(Plus {
        kind: kind & !(ENCRYPTED | AUTHENTICATED),
        encrypted: kind & ENCRYPTED != 0,
        authenticated: kind & AUTHENTICATED != 0,
        session_id: u32::from_le_bytes([i0, i1, i2, i3]),
        sequence: u32::from_le_bytes([s0, s1, s2, s3]),
        payload: rest.get(..len).ok_or(Malformed::Truncated)?,
        covered,
    }))
}

/// Whether a LAN message's two checksums must be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Yes.
    Checked,
    /// No: before a session nothing rests on them (`CloudStack`'s ipmisim sends wrong ones), or by the quirk `nochecksumcheck`.
    Ignored,
}

/// A BMC's LAN message (IPMI 2.0 §13.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanReply<'a> {
    /// Network function, odd in a reply.
    pub netfn: u8,
    /// Requester's sequence number, 6 bits.
    pub rq_seq: u8,
    /// Command.
    pub command: u8,
    /// Completion code.
    pub completion_code: u8,
    /// What follows the completion code.
    pub data: &'a [u8],
}

/// Takes a LAN message apart.
///
/// # Errors
/// [`Malformed::Truncated`] or [`Malformed::Checksum`].
pub fn decode_reply(message: &[u8], checksums: Checksums) -> Result<LanReply<'_>, Malformed> {
    let (header, rest) = message.split_first_chunk::<7>().ok_or(Malformed::Truncated)?;
    let [requester, netfn, sum1, responder, seq, command, completion_code] = *header;
    let (sum2, data) = rest.split_last().ok_or(Malformed::Truncated)?;
    if checksums == Checksums::Checked {
        let body = checksum([responder, seq, command, completion_code].iter().chain(data));
        if checksum([requester, netfn].iter()) != sum1 || body != *sum2 {
            return Err(Malformed::Checksum);
        }
    }
    Ok(LanReply { netfn: netfn >> 2, rq_seq: seq >> 2, command, completion_code, data })
}

/// A console's LAN message.
#[derive(Debug, Clone, Copy)]
pub struct LanRequest<'a> {
    /// Network function, even in a request.
    pub netfn: u8,
    /// Requester's sequence number, 6 bits.
    pub rq_seq: u8,
    /// Command.
    pub command: u8,
    /// What follows the command.
    pub data: &'a [u8],
}

impl LanRequest<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let head = [BMC_ADDRESS, self.netfn << 2];
        out.extend_from_slice(&head);
        out.push(checksum(head.iter()));
        let body = [CONSOLE_ADDRESS, self.rq_seq << 2, self.command];
        out.extend_from_slice(&body);
        out.extend_from_slice(self.data);
        out.push(checksum(body.iter().chain(self.data)));
    }

    const fn len(&self) -> usize {
        7 + self.data.len()
    }
}

/// Writes `request` into `out` in an IPMI 1.5 wrapper without authentication.
pub fn encode_plain(out: &mut Vec<u8>, request: &LanRequest<'_>) {
    out.clear();
    out.extend_from_slice(&RMCP);
    out.extend_from_slice(&[AUTH_NONE, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.push(u8::try_from(request.len()).unwrap_or(u8::MAX));
    request.write(out);
}

/// Writes an open or RAKP message into `out`, outside any session.
pub fn encode_handshake(out: &mut Vec<u8>, kind: u8, payload: &[&[u8]]) {
    header(out, kind, 0, 0);
    payload.iter().for_each(|part| out.extend_from_slice(part));
    set_payload_len(out);
}

/// Writes `request` into `out`, encrypted and authenticated.
pub fn encode_session(
    out: &mut Vec<u8>,
    keys: &SessionKeys,
    session_id: u32,
    sequence: u32,
    iv: [u8; BLOCK],
    request: &LanRequest<'_>,
) {
    header(out, PAYLOAD_MESSAGE | ENCRYPTED | AUTHENTICATED, session_id, sequence);
    out.extend_from_slice(&iv);
    request.write(out);
    // Confidentiality trailer (§13.29): 1, 2, 3, … and the number of these bytes, to a whole block.
    let pad = (BLOCK - (request.len() + 1) % BLOCK) % BLOCK;
    let counted = (1u8..).take(pad);
    out.extend(counted);
    out.push(u8::try_from(pad).unwrap_or(0));
    if let Some(blocks) = out.get_mut(PAYLOAD_AT + BLOCK..) {
        keys.encrypt(iv, blocks);
    }
    set_payload_len(out);
    // Session trailer (§13.28.4): pad the covered part, which ends with pad length and next header, to a multiple of 4.
    let pad = (4 - (out.len() - RMCP.len() + 2) % 4) % 4;
    out.extend(std::iter::repeat_n(0xFF, pad));
    out.extend_from_slice(&[u8::try_from(pad).unwrap_or(0), 0x07]);
    keys.sign(out, RMCP.len());
}

fn header(out: &mut Vec<u8>, kind: u8, session_id: u32, sequence: u32) {
    out.clear();
    out.extend_from_slice(&RMCP);
    out.extend_from_slice(&[AUTH_RMCP_PLUS, kind]);
    out.extend_from_slice(&session_id.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
}

fn set_payload_len(out: &mut [u8]) {
    let len = u16::try_from(out.len().saturating_sub(PAYLOAD_AT)).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(PAYLOAD_AT - 2..PAYLOAD_AT) {
        field.copy_from_slice(&len.to_le_bytes());
    }
}

/// Two's complement of the sum (§13.8).
fn checksum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u8 {
    bytes.fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}
