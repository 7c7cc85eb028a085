//! The sixteen bytes before each message's body.

use crate::codec::{DecodeError, Reader, Wire, Writer};

/// First bytes of every message: "LDSM".
pub const MAGIC: u32 = u32::from_le_bytes(*b"LDSM");
/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;
/// Flag: the body is the content of the first file descriptor, a sealed memfd.
pub const BODY_IN_MEMFD: u16 = 1;

/// Head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which message of the channel's direction.
    pub number: u16,
    /// [`BODY_IN_MEMFD`] or 0.
    pub flags: u16,
    /// Bytes of the body, wherever it is.
    pub body: u32,
    /// Counts the messages of this direction from 0: a lost or doubled one is a violation.
    pub sequence: u32,
}

impl Wire for Header {
    fn encode(&self, writer: &mut Writer) {
        MAGIC.encode(writer);
        self.number.encode(writer);
        self.flags.encode(writer);
        self.body.encode(writer);
        self.sequence.encode(writer);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let magic = u32::decode(reader)?;
        if magic != MAGIC {
            return Err(DecodeError::UnknownNumber {
                kind: "magic",
                number: magic,
            });
        }
        let header = Self {
            number: u16::decode(reader)?,
            flags: u16::decode(reader)?,
            body: u32::decode(reader)?,
            sequence: u32::decode(reader)?,
        };
        if header.flags & !BODY_IN_MEMFD != 0 {
            return Err(DecodeError::OutOfRange {
                what: "header flags",
                value: header.flags.into(),
            });
        }
        Ok(header)
    }
}

/// All messages of one direction of one channel.
pub trait Message: Sized {
    /// The number of this message in its header.
    fn number(&self) -> u16;
    /// The body's bytes.
    fn encode_body(&self) -> Vec<u8>;
    /// The message of that number and body.
    ///
    /// # Errors
    /// An unknown number or a malformed body.
    fn decode_body(number: u16, body: &[u8]) -> Result<Self, DecodeError>;
}
