//! A finished walk's record to the ring buffer; full means counted, never waited for.

use aya_ebpf::bindings::{
    BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_ringbuf_output, bpf_ringbuf_query};
use leadsman_ebpf::abi::{Counter, RECORD_WORDS, RecordHeader};
use leadsman_ebpf::limits::{MAX_KERNEL_FRAMES, RED_ZONE_BYTES, SNAPSHOT_BYTES};
use leadsman_ebpf::registers::Registers;
use leadsman_ebpf::stop::StopReason;

use crate::maps::{RECORDS, Scratch, count, raise};
use crate::memory::opaque;

const PAGE: u64 = 4096;

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
    scratch.header.stop = stop;
    let mut words = u64::from(scratch.frames);
    let mut snapshot_bytes = 0;
    let mut wants_snapshot = StopReason::number_wants_snapshot(stop);
    if wants_snapshot && waiting >= size / 4 * 3 {
        // Rather many stacks cut short than some lost: what is left of the ring is for samples without a snapshot.
        wants_snapshot = false;
        count(Counter::Withheld, 1);
    }
    if wants_snapshot {
        words = u64::from(kernel_frames) + (size_of::<Registers>() / 8) as u64;
        // The fuller the ring, the smaller: most stacks end within a page or two.
        let pages = SNAPSHOT_BYTES as u64 / PAGE;
        let pages = if waiting < size / 4 { pages } else { 2 };
        snapshot_bytes = take_snapshot(scratch, pages);
        scratch.header.user_frames = 0;
        count(Counter::Snapshots, 1);
    } else {
        scratch.header.user_frames = (words as u16).wrapping_sub(kernel_frames);
        count(Counter::Frames, u64::from(scratch.header.user_frames));
    }
    scratch.header.snapshot_bytes = snapshot_bytes as u16;
    if wants_snapshot && snapshot_bytes == 0 {
        // The stack could not be read at all: nothing for user space to finish.
        scratch.header.stop = StopReason::StackUnreadable as u8;
        words = u64::from(kernel_frames);
    }
    let bytes = opaque(size_of::<RecordHeader>() as u64 + 8 * words + snapshot_bytes);
    if bytes > (size_of::<RecordHeader>() + 8 * RECORD_WORDS) as u64 {
        count(Counter::WalkRefused, 1);
        return;
    }
    // A snapshot is a process or table that the sampler should learn about now.
    let wake = if wants_snapshot || waiting > size / 4 {
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

/// Puts the first frame's registers and the top of its stack, at most `pages` of it, behind the kernel frames; returns the
/// stack's bytes.
#[inline(always)]
fn take_snapshot(scratch: &mut Scratch, mut pages: u64) -> u64 {
    let frames = opaque(u64::from(scratch.header.kernel_frames));
    if frames > MAX_KERNEL_FRAMES as u64 {
        return 0;
    }
    // SAFETY: `words` holds the most kernel frames, registers and a whole snapshot.
    unsafe {
        let registers = scratch
            .words
            .as_mut_ptr()
            .add(frames as usize)
            .cast::<Registers>();
        *registers = scratch.first;
        let stack = registers.add(1);
        let rsp = scratch.first.rsp();
        const RED_ZONE: u64 = RED_ZONE_BYTES as u64;
        // Zeros where it lies in a page that nobody has touched yet.
        bpf_probe_read_user(
            stack.cast(),
            RED_ZONE_BYTES as u32,
            rsp.wrapping_sub(RED_ZONE) as *const _,
        );
        let stack = stack.cast::<u8>().add(RED_ZONE_BYTES);
        // The read must not run past the stack's end: fewer pages with each try.
        while pages > 0 {
            let mut bytes = opaque(pages * PAGE - (rsp & (PAGE - 1))) & !7;
            if bytes > SNAPSHOT_BYTES as u64 - RED_ZONE {
                bytes = SNAPSHOT_BYTES as u64 - RED_ZONE;
            }
            bytes = opaque(bytes);
            if bytes > SNAPSHOT_BYTES as u64 - RED_ZONE {
                return 0;
            }
            if bpf_probe_read_user(stack.cast(), bytes as u32, rsp as *const _) == 0 {
                return RED_ZONE + bytes;
            }
            pages -= 1;
        }
    }
    0
}
