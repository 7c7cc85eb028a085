//! Reads of the sampled thread: its stack through a window, its registers, kernel fields by BTF offsets.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use leadsman_ebpf::limits::STACK_WINDOW_BYTES;
use leadsman_ebpf::step::Stack;
use leadsman_ebpf::stop::StopReason;

use crate::maps::Scratch;

/// Hides a value from LLVM, so that a bound check behind it survives for the verifier, which sees through.
///
/// A real instruction: an empty barrier with debug info makes kernels refuse the line info.
#[inline(always)]
pub(crate) fn opaque(mut value: u64) -> u64 {
    // SAFETY: copies a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value) };
    value
}

/// 1 when `a <= b`, else 0, without a branch that the verifier would follow twice. Both below 2^63.
#[inline(always)]
pub(crate) fn not_above(a: u64, b: u64) -> u64 {
    opaque(a.wrapping_sub(b).wrapping_sub(1) >> 63)
}

/// The sampled thread's stack.
pub(crate) struct UserStack(pub *mut Scratch);

impl Stack for UserStack {
    const UNREADABLE: StopReason = StopReason::StackUnreadable;

    #[inline(always)]
    fn word(&mut self, address: u64) -> Option<u64> {
        // SAFETY: the scratch space is this CPU's own; the reads behind the mask stay within `window`.
        unsafe {
            let scratch = &mut *self.0;
            let window = scratch.window.as_mut_ptr();
            let mut distance = address.wrapping_sub(scratch.window_start);
            if distance > (STACK_WINDOW_BYTES - 8) as u64 || distance & 7 != 0 {
                distance = 0;
                scratch.helpers += 1;
                if bpf_probe_read_user(
                    window.cast(),
                    STACK_WINDOW_BYTES as u32,
                    address as *const _,
                ) == 0
                {
                    scratch.window_start = address;
                } else {
                    // Near the stack's end: just the word, and nothing kept.
                    scratch.window_start = 1;
                    scratch.helpers += 1;
                    if bpf_probe_read_user(window.cast(), 8, address as *const _) != 0 {
                        return None;
                    }
                }
            }
            let distance = opaque(distance) & (STACK_WINDOW_BYTES - 8) as u64;
            Some(
                window
                    .cast::<u8>()
                    .add(distance as usize)
                    .cast::<u64>()
                    .read_volatile(),
            )
        }
    }
}

/// `size_of::<T>()` bytes of kernel memory.
#[inline(always)]
pub(crate) fn read_kernel<T>(destination: *mut T, address: u64) -> bool {
    // SAFETY: the helper writes exactly the destination, or fails.
    unsafe {
        bpf_probe_read_kernel(
            destination.cast(),
            size_of::<T>() as u32,
            address as *const _,
        ) == 0
    }
}

/// Eight bytes of the sampled process's memory.
#[inline(always)]
pub(crate) fn user_word(address: u64) -> Option<u64> {
    let mut value = 0u64;
    // SAFETY: the helper writes exactly the destination, or fails.
    let failed = unsafe { bpf_probe_read_user((&raw mut value).cast(), 8, address as *const _) };
    (failed == 0).then_some(value)
}

/// A kernel field of type u64 at `base + offset`; 0 when it can't be read.
#[inline(always)]
pub(crate) fn kernel_word(base: u64, offset: u32) -> u64 {
    let mut value = 0u64;
    if read_kernel(&raw mut value, base.wrapping_add(u64::from(offset))) {
        value
    } else {
        0
    }
}

/// A kernel field of type u32.
#[inline(always)]
pub(crate) fn kernel_half(base: u64, offset: u32) -> u32 {
    let mut value = 0u32;
    if read_kernel(&raw mut value, base.wrapping_add(u64::from(offset))) {
        value
    } else {
        0
    }
}
