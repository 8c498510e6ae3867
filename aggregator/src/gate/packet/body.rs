//! The fields packets are made of (MQTT 5 §1.5; 3.1.1 has a part of them): read within bounds, never past the end.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::PacketError::{self, Malformed};

const TOO_SHORT: PacketError = Malformed("too short");

/// What is left of a packet's variable header and payload, or of its properties.
pub(super) struct Body(Bytes);

impl Body {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> Result<u8, PacketError> {
        self.0.try_get_u8().map_err(|_| TOO_SHORT)
    }

    pub(super) fn u16(&mut self) -> Result<u16, PacketError> {
        self.0.try_get_u16().map_err(|_| TOO_SHORT)
    }

    pub(super) fn u32(&mut self) -> Result<u32, PacketError> {
        self.0.try_get_u32().map_err(|_| TOO_SHORT)
    }

    /// A packet id is never 0 (§2.2.1).
    pub(super) fn id(&mut self) -> Result<u16, PacketError> {
        match self.u16()? {
            0 => Err(PacketError::Protocol("packet id 0")),
            id => Ok(id),
        }
    }

    /// A variable byte integer (§1.5.5).
    pub(super) fn variable(&mut self) -> Result<u32, PacketError> {
        let (value, len) = variable(&self.0)?.ok_or(TOO_SHORT)?;
        self.0.advance(len);
        Ok(value)
    }

    /// The next `len` bytes as a body of their own.
    pub(super) fn part(&mut self, len: u32) -> Result<Self, PacketError> {
        let len = usize::try_from(len).map_err(|_| TOO_SHORT)?;
        if len > self.0.len() { Err(TOO_SHORT) } else { Ok(Self(self.0.split_to(len))) }
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, PacketError> {
        let len = self.u16()?;
        self.part(len.into()).map(|part| part.0)
    }

    /// UTF-8 without U+0000 (§1.5.4).
    pub(super) fn text(&mut self) -> Result<String, PacketError> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Malformed("text that is not UTF-8"))?;
        if text.contains('\0') { Err(Malformed("U+0000 in a text")) } else { Ok(text.to_owned()) }
    }

    /// All that is left. Copied: a slice would keep the connection's whole read buffer alive for as long as the message lives.
    pub(super) fn rest(&mut self) -> Bytes {
        let rest = Bytes::copy_from_slice(&self.0);
        self.0.clear();
        rest
    }
}

/// The variable byte integer at the beginning of `bytes`, and how many bytes it has; `None` when more are needed.
pub(super) fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, PacketError> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Malformed("variable byte integer")) }
}

pub(super) fn put_variable(out: &mut BytesMut, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        out.put_u8(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return;
        }
    }
}

/// How many bytes [`put_text`] writes.
pub(super) fn text_len(text: &str) -> usize {
    2 + text.floor_char_boundary(usize::from(u16::MAX))
}

/// Writes a text, as much of it as a text may have.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    let len = text.floor_char_boundary(usize::from(u16::MAX));
    out.put_u16(u16::try_from(len).unwrap_or_default());
    out.put_slice(text.as_bytes().get(..len).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_as_they_are_read() {
        for (value, len) in
            [(0_u32, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (2_097_151, 3), (2_097_152, 4), (268_435_455, 4)]
        {
            let mut out = BytesMut::new();
            put_variable(&mut out, usize::try_from(value).unwrap());
            assert_eq!(variable(&out), Ok(Some((value, len))));
            assert_eq!(variable(&out[..len - 1]), Ok(None));
        }
        assert_eq!(variable(&[0xff; 4]), Err(Malformed("variable byte integer")));
    }

    #[test]
    fn texts_are_written_as_they_are_read() {
        let (long, wide) = ("x".repeat(70_000), "ä".repeat(40_000));
        for (text, read) in [("", ""), ("grüße", "grüße"), (&long, &long[..65_535]), (&wide, &wide[..65_534])] {
            let mut out = BytesMut::new();
            put_text(&mut out, text);
            assert_eq!(out.len(), text_len(text));
            assert_eq!(Body::new(out.freeze()).text().as_deref(), Ok(read));
        }
    }
}
