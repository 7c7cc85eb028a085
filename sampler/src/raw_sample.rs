//! Decodes a ring buffer record: one sample as the BPF programs wrote it.
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
use ipc_proto::ids::ExecutableId;
use leadsman_ebpf::abi::MISSING_SHIFT;
use leadsman_ebpf::limits::{FURTHER_BYTES, MAX_KERNEL_FRAMES, MAX_USER_FRAMES, SNAPSHOT_BYTES};
use leadsman_ebpf::stop::StopReason;

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawSample {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub(crate) time: u64,
    /// The process, its start (CLOCK_BOOTTIME, nanoseconds) and which of its program images.
    pub(crate) tgid: u32,
    pub(crate) start_time: u64,
    pub(crate) exec_id: u32,
    pub(crate) tid: u32,
    /// The thread's name, NUL trimmed.
    pub(crate) comm: Vec<u8>,
    pub(crate) cgroup: u64,
    pub(crate) stop: StopReason,
    /// For [`StopReason::TableMissing`]: whose table lacked rows, and about where in its file.
    pub(crate) missing: (ExecutableId, u64),
    /// Leaf first; callers as return addresses.
    pub(crate) kernel: Vec<u64>,
    /// Leaf first; callers as their calls' addresses.
    pub(crate) user: Vec<u64>,
    /// For samples to be finished in user space.
    pub(crate) snapshot: Option<RawSnapshot>,
}

/// The youngest frame's registers and the stack above it; see `leadsman_ebpf::abi::SnapshotHead`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawSnapshot {
    /// By DWARF number, then the pc.
    pub(crate) registers: Vec<u64>,
    /// Whether the pc is where execution stood rather than behind a `syscall`.
    pub(crate) pc_is_exact: bool,
    pub(crate) stack: Vec<u8>,
    /// Where a second piece of stack stands, and its bytes; often none.
    pub(crate) further_start: u64,
    pub(crate) further: Vec<u8>,
}

/// Decodes a record; see `leadsman_ebpf::abi::RecordHeader`.
pub(crate) fn decode(record: &[u8]) -> Result<RawSample, DecodeError> {
    let mut reader = Reader::new(record);
    let time = u64::decode(&mut reader)?;
    let start_time = u64::decode(&mut reader)?;
    let cgroup = u64::decode(&mut reader)?;
    let page = u32::decode(&mut reader)?;
    let table = ExecutableId(u32::decode(&mut reader)?);
    let tgid = u32::decode(&mut reader)?;
    let tid = u32::decode(&mut reader)?;
    let comm = <[u8; 16]>::decode(&mut reader)?;
    let exec_id = u32::decode(&mut reader)?;
    let _cpu = u32::decode(&mut reader)?;
    let kernel_frames = bounded(
        "kernel frames",
        u16::decode(&mut reader)?,
        MAX_KERNEL_FRAMES,
    )?;
    let user_frames = bounded("user frames", u16::decode(&mut reader)?, MAX_USER_FRAMES)?;
    let snapshot_bytes = bounded("snapshot bytes", u16::decode(&mut reader)?, SNAPSHOT_BYTES)?;
    let stop = u8::decode(&mut reader)?;
    let stop = StopReason::from_number(stop).ok_or(DecodeError::UnknownNumber {
        kind: "stop reason",
        number: stop.into(),
    })?;
    let _reserved = u8::decode(&mut reader)?;
    let kernel = words(&mut reader, kernel_frames)?;
    let user = words(&mut reader, user_frames)?;
    let snapshot = if snapshot_bytes == 0 {
        None
    } else {
        let registers = words(&mut reader, 17)?;
        let _known = u32::decode(&mut reader)?;
        let pc_is_exact = u32::decode(&mut reader)? != 0;
        let further_start = u64::decode(&mut reader)?;
        let further_bytes = u64::decode(&mut reader)?;
        let further_bytes = bounded("further bytes of stack", further_bytes, FURTHER_BYTES)?;
        Some(RawSnapshot {
            registers,
            pc_is_exact,
            stack: reader.take(snapshot_bytes)?.to_vec(),
            further_start,
            further: reader.take(further_bytes)?.to_vec(),
        })
    };
    reader.finish()?;
    let comm = comm
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
        .to_vec();
    Ok(RawSample {
        time,
        tgid,
        start_time,
        exec_id,
        tid,
        comm,
        cgroup,
        stop,
        missing: (table, u64::from(page) << MISSING_SHIFT),
        kernel,
        user,
        snapshot,
    })
}

fn bounded(what: &'static str, value: impl Into<u64>, max: usize) -> Result<usize, DecodeError> {
    let value = value.into();
    usize::try_from(value)
        .ok()
        .filter(|value| *value <= max)
        .ok_or(DecodeError::OutOfRange { what, value })
}

fn words(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u64>, DecodeError> {
    (0..count).map(|_| u64::decode(reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as the BPF programs write it: header, frames, then registers and stack for a snapshot.
    fn record(kernel: u16, user: u16, stack: u16, stop: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&5u64.to_le_bytes());
        bytes.extend_from_slice(&4u64.to_le_bytes());
        bytes.extend_from_slice(&3u64.to_le_bytes());
        bytes.extend_from_slice(&(6u64 << 32 | 2).to_le_bytes());
        bytes.extend_from_slice(&10u32.to_le_bytes());
        bytes.extend_from_slice(&11u32.to_le_bytes());
        bytes.extend_from_slice(b"thread\0\0\0\0\0\0\0\0\0\0");
        bytes.extend_from_slice(&7u32.to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        for value in [kernel, user, stack] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&[stop, 0]);
        for frame in 0..u64::from(kernel) + u64::from(user) {
            bytes.extend_from_slice(&frame.to_le_bytes());
        }
        if stack > 0 {
            bytes.extend_from_slice(&[1; 17 * 8 + 8]);
            for value in [7, 16u64] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            bytes.extend(std::iter::repeat_n(9, usize::from(stack)));
            bytes.extend_from_slice(&[3; 16]);
        }
        bytes
    }

    #[test]
    fn frames_and_snapshots_are_told_apart() {
        let whole = decode(&record(2, 3, 0, StopReason::EndOfStack as u8)).expect("well-formed");
        assert_eq!((whole.kernel, whole.user), (vec![0, 1], vec![2, 3, 4]));
        assert_eq!(
            (whole.comm.as_slice(), whole.exec_id, whole.snapshot),
            (&b"thread"[..], 7, None)
        );
        let unfinished =
            decode(&record(1, 0, 64, StopReason::TableMissing as u8)).expect("well-formed");
        assert_eq!(unfinished.missing, (ExecutableId(6), 2 << 12));
        let snapshot = unfinished.snapshot.expect("has one");
        assert_eq!((snapshot.registers.len(), snapshot.stack.len()), (17, 64));
        assert_eq!((snapshot.further_start, snapshot.further), (7, vec![3; 16]));
    }

    #[test]
    fn malformed_records_are_errors() {
        let whole = record(2, 3, 64, StopReason::NoMapping as u8);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length} bytes");
        }
        assert!(
            decode(&record(128, 0, 0, 1)).is_err(),
            "too many kernel frames"
        );
        assert!(
            decode(&record(0, 0, 0, 255)).is_err(),
            "no such stop reason"
        );
    }
}
