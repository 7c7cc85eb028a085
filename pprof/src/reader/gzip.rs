//! Decompression that stops at a limit, whatever the file announces.

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::MultiGzDecoder;

use super::ReadError;

/// ID1, ID2 and the one compression method there is (RFC 1952, 2.3.1).
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// The bytes themselves if they aren't gzip. At most `limit` bytes.
pub(super) fn decompress(bytes: &[u8], limit: usize) -> Result<Cow<'_, [u8]>, ReadError> {
    let plain: Cow<'_, [u8]> = if bytes.starts_with(&MAGIC) {
        let mut plain = Vec::new();
        MultiGzDecoder::new(bytes)
            // One byte more than allowed tells a file that reaches the limit from one that goes beyond.
            .take((limit as u64).saturating_add(1))
            .read_to_end(&mut plain)
            .map_err(ReadError::Gzip)?;
        plain.into()
    } else {
        bytes.into()
    };
    if plain.len() > limit {
        return Err(ReadError::TooLarge { limit });
    }
    Ok(plain)
}
