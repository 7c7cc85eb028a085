//! Offsets of kernel structure fields, read from the running kernel's BTF (`/sys/kernel/btf/vmlinux`).
//!
//! Only what the sampler asks for: named members of one struct, anonymous members descended into. Format:
//! Documentation/bpf/btf.rst, "BTF Type and String Encoding".
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

use ipc_proto::codec::{DecodeError, Reader, Wire};
use thiserror::Error;

/// Why an offset could not be found.
#[derive(Debug, Error)]
pub(crate) enum BtfError {
    /// Not the format expected.
    #[error("kernel BTF is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// Not the magic number of native-endian BTF.
    #[error("kernel BTF starts with {0:#06x}, not 0xeb9f")]
    Magic(u16),
    /// No such struct.
    #[error("kernel BTF has no struct {0}")]
    NoStruct(&'static str),
    /// A type of a kind that did not exist when this was written.
    #[error("kernel BTF has a type of unknown kind {0}")]
    UnknownKind(u32),
}

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KINDS: u32 = 20;

/// The types and strings of one BTF blob.
#[derive(Debug)]
pub(crate) struct Btf<'a> {
    /// Bytes of each type's record, by type id - 1.
    types: Vec<&'a [u8]>,
    strings: &'a [u8],
}

struct Type<'a> {
    name: u32,
    kind: u32,
    entries: u32,
    bitfields: bool,
    rest: Reader<'a>,
}

fn type_of(bytes: &[u8]) -> Result<Type<'_>, DecodeError> {
    let mut rest = Reader::new(bytes);
    let name = u32::decode(&mut rest)?;
    let info = u32::decode(&mut rest)?;
    let _size_or_type = u32::decode(&mut rest)?;
    Ok(Type {
        name,
        kind: info >> 24 & 31,
        entries: info & 0xffff,
        bitfields: info >> 31 == 1,
        rest,
    })
}

/// Bytes behind a type's twelve common ones.
fn trailing_bytes(kind: u32, entries: u32) -> Result<usize, BtfError> {
    let entries = entries as usize;
    Ok(match kind {
        1 | 14 | 17 => 4, // INT, VAR, DECL_TAG
        3 => 12,          // ARRAY
        KIND_STRUCT | KIND_UNION | 15 | 19 => entries.saturating_mul(12), // and DATASEC, ENUM64
        6 | 13 => entries.saturating_mul(8), // ENUM, FUNC_PROTO
        kind if kind < KINDS => 0,
        kind => return Err(BtfError::UnknownKind(kind)),
    })
}

impl<'a> Btf<'a> {
    /// Splits a blob into its types.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let mut header = Reader::new(bytes);
        let magic = u16::decode(&mut header)?;
        if magic != 0xeb9f {
            return Err(BtfError::Magic(magic));
        }
        let _version_and_flags = u16::decode(&mut header)?;
        let header_length = u32::decode(&mut header)? as usize;
        let type_offset = u32::decode(&mut header)? as usize;
        let type_length = u32::decode(&mut header)? as usize;
        let string_offset = u32::decode(&mut header)? as usize;
        let string_length = u32::decode(&mut header)? as usize;
        let section = |offset: usize, length: usize| {
            let mut reader = Reader::new(bytes);
            reader.take(header_length)?;
            reader.take(offset)?;
            reader.take(length)
        };
        let strings = section(string_offset, string_length)?;
        let mut rest = section(type_offset, type_length)?;
        let mut types = Vec::with_capacity(rest.len() / 24);
        while !rest.is_empty() {
            let first = type_of(rest)?;
            let length = trailing_bytes(first.kind, first.entries)?.saturating_add(12);
            let mut reader = Reader::new(rest);
            types.push(reader.take(length)?);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(Self { types, strings })
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let text = self.strings.get(offset as usize..).unwrap_or_default();
        text.strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Byte offsets of named members of a struct; `None` for each it does not have.
    pub(crate) fn offsets<const N: usize>(
        &self,
        structure: &'static str,
        members: [&str; N],
    ) -> Result<[Option<u32>; N], BtfError> {
        for bytes in &self.types {
            let found = type_of(bytes)?;
            if found.kind == KIND_STRUCT
                && found.entries > 0
                && self.is_named(found.name, structure)
            {
                let mut offsets = [None; N];
                self.find_members(bytes, 0, 0, &members, &mut offsets)?;
                return Ok(offsets);
            }
        }
        Err(BtfError::NoStruct(structure))
    }

    fn find_members(
        &self,
        bytes: &[u8],
        base: u32,
        depth: u32,
        members: &[&str],
        offsets: &mut [Option<u32>],
    ) -> Result<(), BtfError> {
        let mut found = type_of(bytes)?;
        if (found.kind != KIND_STRUCT && found.kind != KIND_UNION) || depth > 8 {
            return Ok(());
        }
        for _ in 0..found.entries {
            let name = u32::decode(&mut found.rest)?;
            let type_id = u32::decode(&mut found.rest)?;
            let bits = u32::decode(&mut found.rest)?;
            // With bitfields the upper eight bits are the field's width.
            let bits = if found.bitfields {
                bits & 0x00ff_ffff
            } else {
                bits
            };
            let offset = base.saturating_add(bits / 8);
            if name == 0 || self.is_named(name, "") {
                let inner = (type_id as usize)
                    .checked_sub(1)
                    .and_then(|index| self.types.get(index));
                if let Some(inner) = inner {
                    self.find_members(inner, offset, depth.saturating_add(1), members, offsets)?;
                }
                continue;
            }
            for (member, slot) in members.iter().zip(offsets.iter_mut()) {
                if slot.is_none() && self.is_named(name, member) {
                    *slot = Some(offset);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Btf;

    #[test]
    fn finds_the_running_kernels_task_struct() {
        let bytes =
            std::fs::read("/sys/kernel/btf/vmlinux").expect("this machine's kernel has BTF");
        let btf = Btf::parse(&bytes).expect("well-formed");
        let [flags, leader, missing] = btf
            .offsets("task_struct", ["flags", "group_leader", "no_such_member"])
            .expect("has the struct");
        assert!(flags.is_some_and(|offset| offset > 0 && offset < 4096));
        assert!(leader.is_some_and(|offset| offset > flags.unwrap_or(0)));
        assert_eq!(missing, None);
        assert!(btf.offsets("no_such_struct", ["a"]).is_err());
    }

    #[test]
    fn truncated_btf_is_an_error() {
        let bytes =
            std::fs::read("/sys/kernel/btf/vmlinux").expect("this machine's kernel has BTF");
        for length in [0, 1, 23, 24, 4096, bytes.len() / 2] {
            assert!(Btf::parse(&bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
