//! A record of the spool as bytes: header, checksum, zstd. Reads what a crash or a bad disk left without trusting it.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use prost::Message;
use thiserror::Error;

use crate::remote::parcel::Parcel;

/// First bytes, with the format's version.
const MAGIC: [u8; 4] = *b"LSP1";
/// Magic, checksum of all that follows it, length of the parcel, length of its compressed form: little endian.
const HEADER: usize = 16;
/// Bytes of a parcel that is read back: far more than is ever written.
pub const MAX_PARCEL: usize = 64 << 20;
/// zstd's level: profiles shrink by four fifths at a few milliseconds a megabyte.
const LEVEL: i32 = 3;

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// Shorter or longer than its header says.
    #[error("it is cut or has bytes behind its end")]
    Length,
    /// Another kind of file, or another version's.
    #[error("it is no record of this version")]
    Magic,
    /// A bit is not what was written.
    #[error("its checksum is wrong")]
    Checksum,
    /// Larger than anything that is written.
    #[error("it says to hold {0} bytes")]
    TooLarge(u32),
    /// What is inside is no parcel, checksum or not.
    #[error("its content is malformed")]
    Content,
}

/// The record of a parcel.
///
/// # Errors
/// The parcel is larger than [`MAX_PARCEL`].
pub fn encode(parcel: &Parcel) -> Result<Vec<u8>, RecordFault> {
    let plain = parcel.encode_to_vec();
    let length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    if plain.len() > MAX_PARCEL {
        return Err(RecordFault::TooLarge(length));
    }
    let packed = zstd::bulk::compress(&plain, LEVEL).map_err(|_no_memory| RecordFault::Content)?;
    let packed_length = u32::try_from(packed.len()).map_err(|_range| RecordFault::Content)?;
    let mut body = Vec::with_capacity(packed.len().saturating_add(HEADER));
    body.extend(length.to_le_bytes());
    body.extend(packed_length.to_le_bytes());
    body.extend(packed);
    let mut record = Vec::with_capacity(body.len().saturating_add(HEADER));
    record.extend(MAGIC);
    record.extend(crc32fast::hash(&body).to_le_bytes());
    record.extend(body);
    Ok(record)
}

/// The parcel of a record.
///
/// # Errors
/// [`RecordFault`].
pub fn decode(record: &[u8]) -> Result<Parcel, RecordFault> {
    let (magic, rest) = record.split_first_chunk().ok_or(RecordFault::Length)?;
    if *magic != MAGIC {
        return Err(RecordFault::Magic);
    }
    let (checksum, body) = rest.split_first_chunk().ok_or(RecordFault::Length)?;
    let (length, rest) = body.split_first_chunk().ok_or(RecordFault::Length)?;
    let (packed_length, packed) = rest.split_first_chunk().ok_or(RecordFault::Length)?;
    if u32::try_from(packed.len()) != Ok(u32::from_le_bytes(*packed_length)) {
        return Err(RecordFault::Length);
    }
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return Err(RecordFault::Checksum);
    }
    let length = u32::from_le_bytes(*length);
    let capacity = usize::try_from(length).unwrap_or(usize::MAX);
    if capacity > MAX_PARCEL {
        return Err(RecordFault::TooLarge(length));
    }
    // zstd makes nothing of nothing; a frame of nothing has a header.
    if packed.is_empty() {
        return Err(RecordFault::Content);
    }
    let plain =
        zstd::bulk::decompress(packed, capacity).map_err(|_malformed| RecordFault::Content)?;
    if plain.len() != capacity {
        return Err(RecordFault::Content);
    }
    Parcel::decode(plain.as_slice()).map_err(|_malformed| RecordFault::Content)
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic"
)]
mod tests {
    use super::*;
    use crate::remote::parcel::{Label, Series};

    fn parcel() -> Parcel {
        let series = |samples: u64| Series {
            labels: vec![Label {
                name: "comm".to_owned(),
                value: format!("program {samples}"),
            }],
            profile: vec![3; 300].into(),
            samples,
        };
        Parcel {
            series: vec![series(1), series(2)],
        }
    }

    #[test]
    fn a_record_reads_back() {
        let record = encode(&parcel()).unwrap();
        assert_eq!(decode(&record), Ok(parcel()));
    }

    #[test]
    fn a_record_cut_anywhere_is_none() {
        let record = encode(&parcel()).unwrap();
        for length in 0..record.len() {
            assert_eq!(decode(&record[..length]), Err(RecordFault::Length));
        }
        let mut longer = record;
        longer.push(0);
        assert_eq!(decode(&longer), Err(RecordFault::Length));
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let record = encode(&parcel()).unwrap();
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_sound_checksum_makes_nothing_sound() {
        for (length, content) in [(u32::MAX, &b"x"[..]), (10, b"no zstd"), (0, b"")] {
            let mut body = length.to_le_bytes().to_vec();
            body.extend((content.len() as u32).to_le_bytes());
            body.extend(content);
            let mut record = MAGIC.to_vec();
            record.extend(crc32fast::hash(&body).to_le_bytes());
            record.extend(body);
            assert!(decode(&record).is_err());
        }
    }
}
