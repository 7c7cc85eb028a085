//! What user space needs to walk a stack that the walker could not: the youngest frame's registers, the top of its stack,
//! and a further piece of it, of the stack that a signal interrupted, when the handler runs on another, or from above the
//! pages that a new frame has not touched yet.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use leadsman_ebpf::abi::SnapshotHead;
use leadsman_ebpf::limits::{FURTHER_BYTES, MAX_KERNEL_FRAMES, RED_ZONE_BYTES, SNAPSHOT_BYTES};

use crate::maps::{SCRATCH, Scratch};
use crate::memory::{opaque, user_word};

const PAGE: u64 = 4096;
/// Pages of a stack that has all of its room.
pub(crate) const WHOLE: u64 = SNAPSHOT_BYTES as u64 / PAGE;
const RED_ZONE: u64 = RED_ZONE_BYTES as u64;
const STACK: u64 = SNAPSHOT_BYTES as u64 - RED_ZONE;
const FURTHER: u64 = FURTHER_BYTES as u64;

/// Bytes of a snapshot behind its head.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// Of the stack, its red zone included; zero when nothing could be read.
    pub(crate) stack: u64,
    /// Of the further piece.
    pub(crate) further: u64,
}

/// Puts a snapshot behind the kernel frames, of each piece at most `pages`.
#[inline(always)]
pub(crate) fn take(pages: u64) -> Snapshot {
    let taken = take_stacks(pages);
    Snapshot {
        stack: taken & HALF,
        further: taken >> 32,
    }
}

const HALF: u64 = u32::MAX as u64;

/// [`take`] as a global function, which the verifier checks once: the stack's bytes below those of the further piece.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn take_stacks(pages: u64) -> u64 {
    let Some((scratch, head)) = place() else {
        return 0;
    };
    // SAFETY: `head` has room for a head and both pieces behind it.
    unsafe {
        let rsp = (*scratch).first.rsp();
        (*head).registers = (*scratch).first;
        // Volatile: LLVM would call its memset, which older verifiers walk byte by byte.
        (&raw mut (*head).further_start).write_volatile(0);
        (&raw mut (*head).further_bytes).write_volatile(0);
        let red_zone = head.add(1).cast::<u8>();
        // Zeros where it lies in a page that nobody has touched yet.
        bpf_probe_read_user(
            red_zone.cast(),
            RED_ZONE_BYTES as u32,
            rsp.wrapping_sub(RED_ZONE) as *const _,
        );
        let stack = red_zone.add(RED_ZONE_BYTES);
        let bytes = read::<STACK>(stack, rsp, pages);
        let mut start = interrupted_stack(bytes);
        if start == 0 {
            start = first_touched(rsp.wrapping_add(bytes));
        }
        let mut further = 0;
        let bytes = opaque(bytes);
        if start != 0 && bytes <= STACK {
            further = read::<FURTHER>(stack.add(bytes as usize), start, pages);
            (*head).further_start = start;
            (*head).further_bytes = further;
        }
        if bytes | further == 0 {
            return 0;
        }
        RED_ZONE + bytes | further << 32
    }
}

/// Pages in a frame that may be untouched: two buffers of 16 KiB.
const UNTOUCHED: u64 = 8;

/// Where the stack can be read from `address` upwards: a function that has just made room for its frame has its return
/// address above pages that nobody has touched. Zero when that is nowhere.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn first_touched(address: u64) -> u64 {
    let mut address = address;
    let mut tried = 0;
    while tried <= UNTOUCHED {
        if user_word(address).is_some() {
            return address;
        }
        address = (address & !(PAGE - 1)).wrapping_add(PAGE);
        tried += 1;
    }
    0
}

/// The scratch space, and where in its words the head stands.
#[inline(always)]
fn place() -> Option<(*mut Scratch, *mut SnapshotHead)> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the map value is this CPU's own, and `words` has more than the most kernel frames.
    unsafe {
        let frames = opaque(u64::from((*scratch).header.kernel_frames));
        if frames > MAX_KERNEL_FRAMES as u64 {
            return None;
        }
        let words = (&raw mut (*scratch).words).cast::<u64>();
        Some((scratch, words.add(frames as usize).cast()))
    }
}

/// Copies a stack from `address` upwards to `to`, at most `pages` and `MOST` bytes; returns the bytes. A read must not run
/// past the stack's end: fewer pages with each try.
///
/// # Safety
/// `to` has room for `MOST` bytes.
#[inline(always)]
unsafe fn read<const MOST: u64>(to: *mut u8, address: u64, pages: u64) -> u64 {
    // Counted by a constant: old verifiers do not see that an unknown number which is not zero falls to zero.
    let mut tried = WHOLE;
    while tried > 0 {
        if tried <= pages {
            let mut bytes = opaque(tried * PAGE - (address & (PAGE - 1))) & !7;
            if bytes > MOST {
                bytes = MOST;
            }
            bytes = opaque(bytes);
            if bytes > MOST {
                return 0;
            }
            // SAFETY: the caller has the room.
            if unsafe { bpf_probe_read_user(to.cast(), bytes as u32, address as *const _) } == 0 {
                return bytes;
            }
        }
        tried -= 1;
    }
    0
}

/// Words of a signal frame's `sigcontext` (arch/x86/include/uapi/asm/sigcontext.h) from its `rsp` to its selectors, whose
/// address is 8 modulo 16: the frame's own is what a `call` would leave (`align_sigframe`, arch/x86/kernel/signal.c).
const RSP_TO_SELECTORS: usize = 3;
/// `cs` and `ss` of 64-bit user code, `__USER_CS` and `__USER_DS` (arch/x86/include/asm/segment.h), as `sigcontext` has
/// them; `gs` and `fs` between them are zero.
const SELECTORS: u64 = 0x002b_0000_0000_0033;

/// Words among which one call looks for a signal frame: the verifier walks them one by one, but once for all calls.
const SEARCHED: u64 = 128;

/// The stack pointer of what a signal interrupted, where that is another stack: the one of the first signal frame within
/// the `bytes` of stack copied, whose own lies outside of them; zero when there is none.
#[inline(always)]
fn interrupted_stack(bytes: u64) -> u64 {
    let mut word = 0;
    while word < STACK / 8 {
        let found = interrupted_stack_from(word, bytes);
        if found != 0 || word * 8 >= bytes {
            return found;
        }
        word += SEARCHED;
    }
    0
}

/// [`interrupted_stack`] among the words from `word` on. A global function, as above.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn interrupted_stack_from(word: u64, bytes: u64) -> u64 {
    let Some((scratch, head)) = place() else {
        return 0;
    };
    let word = opaque(word);
    if word >= STACK / 8 {
        return 0;
    }
    // SAFETY: behind the head is room for a red zone, a whole stack and a further piece; the loop stays within it.
    unsafe {
        let rsp = (*scratch).first.rsp();
        let stack = head.add(1).cast::<u8>().add(RED_ZONE_BYTES);
        let first = opaque(8 - (rsp & 8)) + word * 8;
        let stack = stack.add(first as usize).cast::<u64>();
        let mut word = RSP_TO_SELECTORS + 1;
        while word <= RSP_TO_SELECTORS + SEARCHED as usize {
            let before = stack.add(word - RSP_TO_SELECTORS).read();
            // Both are even: halved, their difference has a sign. LLVM must not make a branch of it.
            let distance = before.wrapping_sub(rsp) >> 1;
            let is_inside = opaque(distance.wrapping_sub(bytes >> 1)) >> 63;
            // One branch, which ends the loop: verifiers before 6.x remember each that may be taken, at most 8,192.
            if (stack.add(word).read() ^ SELECTORS) | is_inside == 0 {
                // Behind what was copied now are the words of an older snapshot.
                let is_fresh = word as u64 * 8 + first < bytes;
                return if is_fresh { before } else { 0 };
            }
            word += 2;
        }
    }
    0
}
