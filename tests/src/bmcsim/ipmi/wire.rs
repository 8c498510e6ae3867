//! Framing: RMCP and ASF (§13.1–13.2), IPMI 1.5 and 2.0 session headers (§13.6), and the message inside. Reads and writes
//! bytes; decides nothing.

/// ASF's and DMTF's enterprise number.
const ASF_IANA: [u8; 4] = [0, 0, 0x11, 0xBE];

/// A datagram, taken apart as far as it goes without keys.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    /// ASF presence ping with its tag.
    Ping(u8),
    /// IPMI 1.5 framing, no authentication.
    Old(&'a [u8]),
    /// IPMI 2.0 framing.
    New { payload_type: u8, session: u32, sequence: u32, payload: &'a [u8], from_auth_type: &'a [u8] },
}

/// Takes a datagram apart; `None` for garbage.
pub(crate) fn parse(datagram: &[u8]) -> Option<Incoming<'_>> {
    match datagram {
        [6, _, _, 6, iana @ .., 0x80, tag, _, _] if *iana == ASF_IANA => Some(Incoming::Ping(*tag)),
        [6, _, _, 7, rest @ ..] => match rest {
            [0, _, _, _, _, 0, 0, 0, 0, len, message @ ..] => Some(Incoming::Old(message.get(..usize::from(*len))?)),
            [6, kind, s0, s1, s2, s3, q0, q1, q2, q3, l0, l1, payload @ ..] => Some(Incoming::New {
                payload_type: *kind,
                session: u32::from_le_bytes([*s0, *s1, *s2, *s3]),
                sequence: u32::from_le_bytes([*q0, *q1, *q2, *q3]),
                payload: payload.get(..usize::from(u16::from_le_bytes([*l0, *l1])))?,
                from_auth_type: rest,
            }),
            _ => None,
        },
        _ => None,
    }
}

/// A request message (§13.8).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) netfn: u8,
    pub(crate) command: u8,
    pub(crate) data: &'a [u8],
    header: [u8; 5],
}

/// Reads a request message and checks both checksums.
pub(crate) fn message(bytes: &[u8]) -> Option<Message<'_>> {
    let [to, netfn_lun, check, from, sequence, command, data @ .., last] = bytes else { return None };
    if sum(&[*to, *netfn_lun, *check]) != 0 || sum(bytes.get(3..)?) != 0 {
        return None;
    }
    let _ = last;
    Some(Message { netfn: netfn_lun >> 2, command: *command, data, header: [*to, *netfn_lun, *from, *sequence, *command] })
}

/// Appends the response message to `request`.
pub(crate) fn response(request: &Message<'_>, code: u8, data: &[u8], out: &mut Vec<u8>) {
    let [to, netfn_lun, from, sequence, command] = request.header;
    let head = [from, ((netfn_lun >> 2) | 1) << 2 | (sequence & 3)];
    out.extend_from_slice(&head);
    out.push(sum(&head).wrapping_neg());
    let start = out.len();
    out.extend_from_slice(&[to, (sequence & 0xFC) | (netfn_lun & 3), command, code]);
    out.extend_from_slice(data);
    let check = sum(out.get(start..).unwrap_or(&[])).wrapping_neg();
    out.push(check);
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Appends an ASF pong.
pub(crate) fn pong(tag: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[6, 0, 0xFF, 6]);
    out.extend_from_slice(&ASF_IANA);
    out.extend_from_slice(&[0x40, tag, 0, 16]);
    out.extend_from_slice(&ASF_IANA);
    // OEM, then "IPMI supported, ASF 1.0", no interactions, reserved.
    out.extend_from_slice(&[0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0]);
}

/// Appends a whole IPMI 1.5 packet without authentication around `message`.
pub(crate) fn old_packet(message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[6, 0, 0xFF, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.push(u8::try_from(message.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(message);
}

/// Appends a whole unauthenticated IPMI 2.0 packet.
pub(crate) fn plain_packet(payload_type: u8, session: u32, sequence: u32, payload: &[u8], out: &mut Vec<u8>) {
    header(payload_type, session, sequence, out);
    set_length(out, payload.len());
    out.extend_from_slice(payload);
}

/// Where the authentication type stands in a packet: integrity covers everything from here.
pub(crate) const AUTH_TYPE_AT: usize = 4;
/// Where a 2.0 packet's payload begins.
pub(crate) const PAYLOAD_AT: usize = 16;

/// Appends RMCP and session headers with a length of 0, to be set later.
pub(crate) fn header(payload_type: u8, session: u32, sequence: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[6, 0, 0xFF, 7, 6, payload_type]);
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
}

/// Sets the payload's length in a packet begun by [`header`].
pub(crate) fn set_length(out: &mut [u8], len: usize) {
    let len = u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes();
    if let Some(place) = out.get_mut(PAYLOAD_AT - 2..PAYLOAD_AT) {
        place.copy_from_slice(&len);
    }
}

/// Appends integrity padding, its length and the next-header byte (§13.6).
pub(crate) fn trailer(out: &mut Vec<u8>) {
    // From the authentication type through the next header, in multiples of four.
    let pad = (4 - (out.len() - AUTH_TYPE_AT + 2) % 4) % 4;
    out.extend(std::iter::repeat_n(0xFF, pad));
    out.push(u8::try_from(pad).unwrap_or(0));
    out.push(7);
}

/// Whether what lies after the payload is well-formed padding: `covered` ends with pad, pad length, next header.
pub(crate) fn trailer_is_sound(covered: &[u8], payload_len: usize) -> bool {
    let Some(after) = covered.get(PAYLOAD_AT - AUTH_TYPE_AT + payload_len..) else { return false };
    matches!(after, [pad @ .., len, 7] if pad.len() == usize::from(*len))
}
