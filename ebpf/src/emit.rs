//! A finished walk's record to the ring buffer; full means counted, never waited for.

use aya_ebpf::bindings::{
    BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query};
use leadsman_ebpf::abi::{Counter, RECORD_WORDS, RecordHeader, SnapshotHead};
use leadsman_ebpf::stop::StopReason;

use crate::PT_REGS_ORIG_AX;
use crate::maps::{RECORDS, Scratch, count, raise};
use crate::memory::opaque;
use crate::snapshot::{Snapshot, WHOLE, take};

/// Ends a walk for the [`StopReason`] numbered `stop`: writes the record, with a snapshot where user space can do better.
#[inline(always)]
pub(crate) fn emit(scratch: &mut Scratch, stop: u8) {
    let kernel_frames = scratch.header.kernel_frames;
    // SAFETY: the ring buffer is a map of this object.
    let (ring, waiting, size) = unsafe {
        let ring = (&raw const RECORDS).cast_mut().cast();
        let waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into());
        (
            ring,
            waiting,
            bpf_ringbuf_query(ring, BPF_RB_RING_SIZE.into()),
        )
    };
    count(Counter::Helpers, scratch.helpers);
    let mut stop = stop;
    let mut words = u64::from(scratch.frames);
    let mut snapshot = Snapshot::default();
    let mut wants_snapshot = StopReason::number_wants_snapshot(stop);
    if wants_snapshot && waiting >= size / 4 * 3 {
        // Rather many stacks cut short than some lost: what is left of the ring is for samples without a snapshot.
        wants_snapshot = false;
        count(Counter::Withheld, 1);
    }
    if wants_snapshot {
        words = u64::from(kernel_frames) + (size_of::<SnapshotHead>() / 8) as u64;
        // The fuller the ring, the smaller: most stacks end within a page or two.
        snapshot = take(if waiting < size / 4 { WHOLE } else { 2 });
        count(Counter::Snapshots, 1);
        if snapshot.stack == 0 {
            // The stack could not be read at all: nothing for user space to finish.
            stop = StopReason::StackUnreadable as u8;
            words = u64::from(kernel_frames);
        }
    }
    if stop == StopReason::StackUnreadable as u8 && is_in_exec(scratch) {
        stop = StopReason::KernelThread as u8;
        words = u64::from(kernel_frames);
    }
    if snapshot.stack == 0 {
        scratch.header.user_frames = (words as u16).wrapping_sub(kernel_frames);
        count(Counter::Frames, u64::from(scratch.header.user_frames));
    } else {
        scratch.header.user_frames = 0;
    }
    scratch.header.snapshot_bytes = snapshot.stack as u16;
    scratch.header.stop = stop;
    let bytes = size_of::<RecordHeader>() as u64 + 8 * words;
    let bytes = opaque(bytes + snapshot.stack + snapshot.further);
    if bytes > (size_of::<RecordHeader>() + 8 * RECORD_WORDS) as u64 {
        count(Counter::WalkRefused, 1);
        return;
    }
    // A snapshot is a process or table that the sampler should learn about now, and so is a process walked as its parent.
    let is_known = scratch.owner_tgid == scratch.header.tgid;
    let wake = if wants_snapshot || !is_known || waiting > size / 4 {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    // SAFETY: the record is at least `bytes` long.
    let written =
        unsafe { bpf_ringbuf_output(ring, (&raw mut scratch.header).cast(), bytes, wake.into()) };
    if written == 0 {
        count(Counter::Written, 1);
        raise(Counter::RingPeak, waiting + bytes);
    } else {
        count(Counter::RingFull, 1);
    }
}

/// `__NR_execve` and `__NR_execveat` (arch/x86/entry/syscalls/syscall_64.tbl).
const EXECVE: u64 = 59;
const EXECVEAT: u64 = 322;

/// Whether the sample was taken in a system call that replaces the process's program. From when the old program's memory
/// is given up until the new one's registers are set (fs/exec.c: `exec_mmap`, `start_thread`) there is no user stack.
#[inline(always)]
fn is_in_exec(scratch: &Scratch) -> bool {
    // The registers saved at the kernel's entry are this sample's only where it was taken in a system call.
    let number = scratch.saved[PT_REGS_ORIG_AX];
    scratch.first.pc_is_exact == 0 && (number == EXECVE || number == EXECVEAT)
}
