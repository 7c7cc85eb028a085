//! Roots that no table names: the first function of a stack that was laid out by hand.
//!
//! `makecontext`, boost.context and their like write a return address into a new stack that no call pushed: glibc's
//! `__start_context`, boost's `finish`. Tables describe that code as if it had a caller, or not at all, so a walk goes
//! on into whatever lies above. Such an address gives itself away: the instruction before it is no call.

use crate::stop::StopReason;

/// Whether a walk that ends for the [`StopReason`] of this number may stand behind the root of such a stack: it then
/// matters how its last frame was entered.
#[inline(always)]
#[must_use]
pub fn may_hide_root(stop: u8) -> bool {
    stop == StopReason::ReturnAddressZero as u8
        || stop == StopReason::FramePointerZero as u8
        || stop == StopReason::NoMapping as u8
        || stop == StopReason::StackUnreadable as u8
        || stop == StopReason::StackNotGrowing as u8
        || stop == StopReason::FramePointerImplausible as u8
}
