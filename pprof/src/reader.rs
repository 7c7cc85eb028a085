//! Reads anybody's profile: gzip or plain, ids in any order, functions and mappings missing. Bounded before it allocates;
//! what breaks the format's rules gets a [`ReadError`], never a panic. Opens no file.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

mod check;
mod gzip;
mod wire;

use prost::Message;
use thiserror::Error;

use crate::proto::Profile;

/// How large a profile may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the protocol buffer, decompressed.
    pub decompressed: usize,
    /// Bytes of memory that the decoded profile takes, about.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            decompressed: 512 << 20,
            memory: 2 << 30,
        }
    }
}

/// Why bytes are no profile that can be used.
#[derive(Debug, Error)]
pub enum ReadError {
    /// There are none.
    #[error("empty, not a pprof profile")]
    Empty,
    /// They begin like gzip and go on otherwise.
    #[error("not a whole gzip file: {0}")]
    Gzip(#[source] std::io::Error),
    /// More than [`Limits::decompressed`].
    #[error("larger than {limit} bytes decompressed, which is the limit")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::memory`].
    #[error("would take {needed} bytes of memory, {limit} is the limit")]
    TooMuchMemory {
        /// What it would take.
        needed: usize,
        /// The limit.
        limit: usize,
    },
    /// No protocol buffer, or one of something else.
    #[error("not a pprof profile: broken at byte {offset}")]
    Wire {
        /// Where the field begins that can't be read, in decompressed bytes.
        offset: usize,
    },
    /// A field has another type than in a profile.
    #[error("not a pprof profile: {0}")]
    Message(#[source] prost::DecodeError),
    /// The string table is missing or its first string is not "".
    #[error("not a pprof profile: its string table does not begin with \"\"")]
    StringTable,
    /// A string's index leads outside the table.
    #[error("the {what} is string {index}, but there are {strings}")]
    StringIndex {
        /// What the string is.
        what: &'static str,
        /// Its index.
        index: i64,
        /// How many strings there are.
        strings: usize,
    },
    /// Two entries of a table have the same id.
    #[error("{table} id {id} is given twice")]
    DuplicateId {
        /// `mapping`, `location` or `function`.
        table: &'static str,
        /// The id.
        id: u64,
    },
    /// An entry has the id 0, which stands for none.
    #[error("a {table} has the id 0")]
    ZeroId {
        /// `mapping`, `location` or `function`.
        table: &'static str,
    },
    /// A sample refers to a location that is not there.
    #[error("sample {sample} refers to location {id}, which is not there")]
    MissingLocation {
        /// Which sample, from 0.
        sample: usize,
        /// The location's id.
        id: u64,
    },
    /// A sample has not one value for each sample type.
    #[error("sample {sample} has {values} values for {types} sample types")]
    Values {
        /// Which sample, from 0.
        sample: usize,
        /// How many values it has.
        values: usize,
        /// How many sample types there are.
        types: usize,
    },
}

/// Reads a profile within the default [`Limits`].
///
/// # Errors
/// A [`ReadError`] when the bytes are no valid profile.
pub fn read(bytes: &[u8]) -> Result<Profile, ReadError> {
    read_within(bytes, Limits::default())
}

/// Reads a profile: gzip (RFC 1952, also several members) or a plain `perftools.profiles.Profile`. Strings that are not
/// UTF-8 get replacement characters. What it returns has a string table that begins with "", string indexes that are all
/// valid, unique ids, and for each sample existing locations and one value for each sample type; mappings and functions
/// referred to may be missing.
///
/// # Errors
/// A [`ReadError`] when the bytes are no valid profile or go beyond `limits`.
pub fn read_within(bytes: &[u8], limits: Limits) -> Result<Profile, ReadError> {
    let plain = gzip::decompress(bytes, limits.decompressed)?;
    if plain.is_empty() {
        return Err(ReadError::Empty);
    }
    let survey = wire::survey(&plain)?;
    if survey.memory > limits.memory {
        return Err(ReadError::TooMuchMemory {
            needed: survey.memory,
            limit: limits.memory,
        });
    }
    let plain = if survey.all_utf8 {
        plain
    } else {
        wire::with_utf8_strings(&plain)?.into()
    };
    let profile = Profile::decode(plain.as_ref()).map_err(ReadError::Message)?;
    check::check(&profile)?;
    Ok(profile)
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "a test fails by panicking"
)]
mod tests;
