//! Decodes the perf records that tell what processes do: `PERF_RECORD_MMAP2`, `COMM`, `FORK`, `EXIT`, `CGROUP`, `LOST`.
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

/// What a process did, and when (CLOCK_MONOTONIC, nanoseconds).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SidebandEvent {
    pub(crate) time: u64,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) kind: SidebandKind,
}

/// What it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SidebandKind {
    /// Mapped something executable.
    Mapped(NewMapping),
    /// Took a new name; with an exec it became a new program.
    Named { comm: Vec<u8>, exec: bool },
    /// Was born, a child of `parent`; a thread when `parent` is its own process.
    Forked { parent: u32 },
    /// The thread ended.
    Exited,
}

/// An executable mapping as the kernel reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewMapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) file_offset: u64,
    /// Empty when the kernel gave none.
    pub(crate) build_id: Vec<u8>,
    /// 0 when the kernel gave a build ID instead.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Path, or a name like `//anon` or `[vdso]`.
    pub(crate) path: Vec<u8>,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Something to know.
    Event(SidebandEvent),
    /// A cgroup was made.
    Cgroup {
        /// Inode number of its directory.
        id: u64,
        /// From the root of its tree.
        path: Vec<u8>,
    },
    /// The ring was full: so many records are missing.
    Lost(u64),
    /// Of no interest.
    Other,
}

/// Record types and `misc` bits of include/uapi/linux/perf_event.h.
const MMAP2: u32 = 10;
const COMM: u32 = 3;
const LOST: u32 = 2;
const EXIT: u32 = 4;
const FORK: u32 = 7;
const CGROUP: u32 = 19;
const MISC_COMM_EXEC: u16 = 1 << 13;
const MISC_MMAP_BUILD_ID: u16 = 1 << 14;
const PROT_EXEC: u32 = 4;
/// `sample_id` behind each record: pid, tid (u32), time (u64).
const SAMPLE_ID: usize = 16;

/// Decodes one record with its header.
pub(crate) fn decode(record: &[u8]) -> Result<Record, DecodeError> {
    let mut reader = Reader::new(record);
    let kind = u32::decode(&mut reader)?;
    let misc = u16::decode(&mut reader)?;
    let _size = u16::decode(&mut reader)?;
    if kind == LOST {
        let _id = u64::decode(&mut reader)?;
        return Ok(Record::Lost(u64::decode(&mut reader)?));
    }
    if ![MMAP2, COMM, EXIT, FORK, CGROUP].contains(&kind) {
        return Ok(Record::Other);
    }
    let body = reader
        .remaining()
        .checked_sub(SAMPLE_ID)
        .ok_or(DecodeError::Truncated { missing: SAMPLE_ID })?;
    let mut body = Reader::new(reader.take(body)?);
    let _pid_tid = u64::decode(&mut reader)?;
    let time = u64::decode(&mut reader)?;
    if kind == CGROUP {
        return Ok(Record::Cgroup {
            id: u64::decode(&mut body)?,
            path: until_nul(&mut body)?,
        });
    }
    let pid = u32::decode(&mut body)?;
    let (tid, kind) = match kind {
        MMAP2 => {
            let tid = u32::decode(&mut body)?;
            match mapping(&mut body, misc)? {
                Some(mapping) => (tid, SidebandKind::Mapped(mapping)),
                None => return Ok(Record::Other),
            }
        }
        COMM => {
            let tid = u32::decode(&mut body)?;
            let exec = misc & MISC_COMM_EXEC != 0;
            (
                tid,
                SidebandKind::Named {
                    comm: until_nul(&mut body)?,
                    exec,
                },
            )
        }
        _ => {
            let parent = u32::decode(&mut body)?;
            let tid = u32::decode(&mut body)?;
            (
                tid,
                if kind == FORK {
                    SidebandKind::Forked { parent }
                } else {
                    SidebandKind::Exited
                },
            )
        }
    };
    Ok(Record::Event(SidebandEvent {
        time,
        pid,
        tid,
        kind,
    }))
}

fn mapping(body: &mut Reader<'_>, misc: u16) -> Result<Option<NewMapping>, DecodeError> {
    let start = u64::decode(body)?;
    let length = u64::decode(body)?;
    let file_offset = u64::decode(body)?;
    let mut identity = Reader::new(body.take(24)?);
    let (mut build_id, mut device, mut inode) = (Vec::new(), 0, 0);
    if misc & MISC_MMAP_BUILD_ID != 0 {
        let length = u8::decode(&mut identity)?;
        let _reserved = identity.take(3)?;
        build_id = identity.take(usize::from(length.min(20)))?.to_vec();
    } else {
        let major = u32::decode(&mut identity)?;
        let minor = u32::decode(&mut identity)?;
        device = u64::from(major) << 32 | u64::from(minor);
        inode = u64::decode(&mut identity)?;
    }
    let protection = u32::decode(body)?;
    let _flags = u32::decode(body)?;
    if protection & PROT_EXEC == 0 {
        return Ok(None);
    }
    let end = start.saturating_add(length);
    Ok(Some(NewMapping {
        start,
        end,
        file_offset,
        build_id,
        device,
        inode,
        path: until_nul(body)?,
    }))
}

fn until_nul(body: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let text = body.take(body.remaining())?;
    Ok(text
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
        .to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, misc: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&misc.to_le_bytes());
        bytes.extend_from_slice(&((8 + body.len() + 16) as u16).to_le_bytes());
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&7u32.to_le_bytes());
        bytes.extend_from_slice(&8u32.to_le_bytes());
        bytes.extend_from_slice(&99u64.to_le_bytes());
        bytes
    }

    fn words(values: &[u32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn an_exec_is_told_from_a_rename() {
        let mut body = words(&[7, 8]);
        body.extend_from_slice(b"cc1\0\0\0\0\0");
        for (misc, exec) in [(MISC_COMM_EXEC, true), (0, false)] {
            let kind = SidebandKind::Named {
                comm: b"cc1".to_vec(),
                exec,
            };
            let event = SidebandEvent {
                time: 99,
                pid: 7,
                tid: 8,
                kind,
            };
            assert_eq!(decode(&record(COMM, misc, &body)), Ok(Record::Event(event)));
        }
    }

    #[test]
    fn mappings_carry_a_build_id_or_an_inode() {
        let mut head = words(&[7, 8]);
        for value in [0x1000u64, 0x2000, 0x3000] {
            head.extend_from_slice(&value.to_le_bytes());
        }
        let mut with_build_id = head.clone();
        with_build_id.extend_from_slice(&[20, 0, 0, 0]);
        with_build_id.extend_from_slice(&[0xab; 20]);
        with_build_id.extend_from_slice(&words(&[5, 2]));
        with_build_id.extend_from_slice(b"/usr/lib/libc.so.6\0\0\0\0\0\0");
        let Ok(Record::Event(event)) = decode(&record(MMAP2, MISC_MMAP_BUILD_ID, &with_build_id))
        else {
            panic!("not decoded");
        };
        let SidebandKind::Mapped(mapping) = event.kind else {
            panic!("no mapping")
        };
        assert_eq!(
            (mapping.start, mapping.end, mapping.file_offset),
            (0x1000, 0x3000, 0x3000)
        );
        assert_eq!(mapping.build_id, [0xab; 20]);
        assert_eq!(mapping.path, b"/usr/lib/libc.so.6");

        let mut data = head;
        data.extend_from_slice(&[0; 24]);
        data.extend_from_slice(&words(&[3, 2]));
        data.extend_from_slice(b"/x\0\0\0\0\0\0");
        assert_eq!(
            decode(&record(MMAP2, 0, &data)),
            Ok(Record::Other),
            "not executable"
        );
    }

    #[test]
    fn a_new_cgroup_has_its_number_and_path() {
        let mut body = 4711u64.to_le_bytes().to_vec();
        body.extend_from_slice(b"/system.slice/x.service\0");
        let cgroup = Record::Cgroup {
            id: 4711,
            path: b"/system.slice/x.service".to_vec(),
        };
        assert_eq!(decode(&record(CGROUP, 0, &body)), Ok(cgroup));
        assert!(decode(&record(CGROUP, 0, &[1, 2, 3])).is_err());
    }

    #[test]
    fn truncated_records_are_errors() {
        let whole = record(FORK, 0, &words(&[7, 1, 8, 1, 0, 0]));
        assert!(matches!(decode(&whole), Ok(Record::Event(_))));
        // pid, parent and thread, and the time behind the body, must be there.
        for length in 0..8 + 12 + SAMPLE_ID {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
    }
}
