//! A profile as bytes. Checks nothing: the builder's profiles are valid.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use crate::proto::Profile;

/// The profile as a plain protocol buffer.
#[must_use]
pub fn encode(profile: &Profile) -> Vec<u8> {
    profile.encode_to_vec()
}

/// The profile as it is stored in a file: gzip around the protocol buffer. Equal profiles give equal bytes.
#[must_use]
pub fn write_gzip(profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_gzip_to(profile, &mut bytes).expect("a Vec takes every byte");
    bytes
}

/// Bytes, such as an encoded profile, as gzip.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("a Vec takes every byte")
}

/// Writes what [`write_gzip`] returns.
///
/// # Errors
/// Those of `output`.
pub fn write_gzip_to<W: Write>(profile: &Profile, output: W) -> io::Result<()> {
    let mut encoder = GzEncoder::new(output, Compression::default());
    encoder.write_all(&encode(profile))?;
    encoder.finish()?.flush()
}
