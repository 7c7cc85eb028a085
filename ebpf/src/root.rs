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

/// The number of the reason that a walk by frame pointers which stopped for the one numbered `stop`, before it had
/// followed any, really ends for. `is_called`: the frame that keeps none was found by a return address that a table led
/// to; `is_unreadable`: its executable has no table because it could not be read.
///
/// A frame pointer of zero is the root's where code keeps frame pointers. Code that keeps none leaves what the thread
/// began with, zero, and says nothing of its callers: so there it proves no root.
#[inline(always)]
#[must_use]
pub fn without_frame_pointer(stop: u8, is_called: bool, is_unreadable: bool) -> u8 {
    let is_zero = stop == StopReason::FramePointerZero as u8;
    if !is_zero && stop != StopReason::FramePointerImplausible as u8 {
        return stop;
    }
    if is_unreadable {
        StopReason::ExecutableUnreadable as u8
    } else if is_zero && !is_called {
        StopReason::FramePointerImplausible as u8
    } else {
        stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_a_root_where_something_called() {
        let zero = StopReason::FramePointerZero as u8;
        let implausible = StopReason::FramePointerImplausible as u8;
        let unreadable = StopReason::ExecutableUnreadable as u8;
        let lost = StopReason::RegisterLost as u8;
        for (stop, is_called, is_unreadable, expected) in [
            (zero, true, false, zero),
            (zero, false, false, implausible),
            (zero, true, true, unreadable),
            (implausible, true, false, implausible),
            (implausible, true, true, unreadable),
            (lost, false, true, lost),
        ] {
            let found = without_frame_pointer(stop, is_called, is_unreadable);
            assert_eq!(found, expected, "{stop} {is_called} {is_unreadable}");
        }
    }
}
