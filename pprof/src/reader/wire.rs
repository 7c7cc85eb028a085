//! A look at the protocol buffer's fields before they are decoded: what they will take in memory, and whether the strings
//! are UTF-8. A two-byte field can become a message of 72 bytes, so the length alone bounds nothing.
//! Source: <https://protobuf.dev/programming-guides/encoding/>; field numbers as in proto.rs.

use std::mem::size_of;

use super::ReadError;
use crate::proto::{Function, Label, Line, Location, Mapping, Sample, ValueType};

const STRING_TABLE: u64 = 6;

/// What a profile's bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// Bytes of memory when decoded, about: vectors grow by doubling.
    pub(super) memory: usize,
    /// Whether each string can be one in Rust.
    pub(super) all_utf8: bool,
}

/// Looks over a profile.
pub(super) fn survey(profile: &[u8]) -> Result<Survey, ReadError> {
    let mut entries: usize = 0;
    let mut all_utf8 = true;
    for field in Fields::new(profile, 0) {
        let field = field?;
        let within = |body: &[u8], cost: fn(u64, Value<'_>) -> usize| {
            Fields::new(body, field.offset)
                .map(|inner| inner.map(|inner| cost(inner.number, inner.value)))
                .try_fold(0usize, |sum, cost| Ok(sum.saturating_add(cost?)))
        };
        let cost = match (field.number, field.value) {
            (1 | 11, Value::Bytes(_)) => size_of::<ValueType>(),
            (2, Value::Bytes(body)) => {
                size_of::<Sample>().saturating_add(within(body, sample_field)?)
            }
            (3, Value::Bytes(_)) => size_of::<Mapping>(),
            (4, Value::Bytes(body)) => {
                size_of::<Location>().saturating_add(within(body, location_field)?)
            }
            (5, Value::Bytes(_)) => size_of::<Function>(),
            (STRING_TABLE, Value::Bytes(text)) => {
                all_utf8 &= std::str::from_utf8(text).is_ok();
                size_of::<String>().saturating_add(text.len())
            }
            (13, value) => numbers(value),
            _ => 0,
        };
        entries = entries.saturating_add(cost);
    }
    Ok(Survey {
        memory: entries.saturating_mul(2),
        all_utf8,
    })
}

fn sample_field(number: u64, value: Value<'_>) -> usize {
    match number {
        1 | 2 => numbers(value),
        3 => size_of::<Label>(),
        _ => 0,
    }
}

fn location_field(number: u64, _: Value<'_>) -> usize {
    if number == 4 { size_of::<Line>() } else { 0 }
}

/// Memory of a repeated number, packed or not: each ends in a byte without the continuation bit.
fn numbers(value: Value<'_>) -> usize {
    let count = match value {
        Value::Bytes(packed) => packed.iter().filter(|byte| **byte < 0x80).count(),
        Value::Number => 1,
    };
    count.saturating_mul(size_of::<u64>())
}

/// The same profile with replacement characters where its strings are not UTF-8.
pub(super) fn with_utf8_strings(profile: &[u8]) -> Result<Vec<u8>, ReadError> {
    let mut repaired = Vec::with_capacity(profile.len());
    for field in Fields::new(profile, 0) {
        let field = field?;
        match (field.number, field.value) {
            (STRING_TABLE, Value::Bytes(text)) => {
                let text = String::from_utf8_lossy(text).into_owned();
                prost::encoding::string::encode(STRING_TABLE as u32, &text, &mut repaired);
            }
            _ => repaired.extend_from_slice(field.whole),
        }
    }
    Ok(repaired)
}

#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    /// Length-delimited.
    Bytes(&'a [u8]),
    /// A varint, or 4 or 8 bytes.
    Number,
}

#[derive(Clone, Copy, Debug)]
struct Field<'a> {
    number: u64,
    value: Value<'a>,
    /// Key and value.
    whole: &'a [u8],
    /// Where it begins in the profile.
    offset: usize,
}

/// The fields of one message, in order; ends with the first that is broken.
struct Fields<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Fields<'a> {
    /// `offset` is where the message (or the field that holds it) begins.
    fn new(message: &'a [u8], offset: usize) -> Self {
        Self {
            rest: message,
            offset,
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let offset = self.offset;
        let Some((number, value, after)) = field(self.rest) else {
            self.rest = &[];
            return Some(Err(ReadError::Wire { offset }));
        };
        let length = self.rest.len().saturating_sub(after.len());
        let whole = self.rest.get(..length).unwrap_or_default();
        self.rest = after;
        self.offset = offset.saturating_add(length);
        Some(Ok(Field {
            number,
            value,
            whole,
            offset,
        }))
    }
}

/// Number and value of the first field, and what follows it.
fn field(bytes: &[u8]) -> Option<(u64, Value<'_>, &[u8])> {
    let (key, rest) = varint(bytes)?;
    let (value, rest) = match key & 7 {
        0 => (Value::Number, varint(rest)?.1),
        1 => (Value::Number, rest.get(8..)?),
        2 => {
            let (length, rest) = varint(rest)?;
            let (body, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Value::Bytes(body), rest)
        }
        5 => (Value::Number, rest.get(4..)?),
        _ => return None,
    };
    Some((key >> 3, value, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << index.saturating_mul(7);
        if *byte < 0x80 {
            return Some((value, bytes.get(index.saturating_add(1)..)?));
        }
    }
    None
}
