//! Every way a stack walk ends, numbered once.
//!
//! The numbers are part of the ring buffer's and the sockets' formats: a retired number stays reserved.

/// Why a walk of a user stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StopReason {
    /// The frame's return address is undefined by its unwind table: a thread's or process's first frame.
    EndOfStack = 1,
    /// The return address was zero: the kernel or a runtime pushed it below the first frame.
    ReturnAddressZero = 2,
    /// The frame pointer chain ended in zero.
    FramePointerZero = 3,
    /// The sample has no user stack: a kernel thread, or a process that has given up its memory, at its
    /// end or for its next program.
    KernelThread = 4,
    /// The frame's return address was pushed by no call: the first function of a stack that was laid out by hand, a
    /// coroutine's for instance (see [`root`](crate::root)).
    MadeStack = 5,

    /// More frames than [`MAX_USER_FRAMES`](crate::limits::MAX_USER_FRAMES): the root side was cut.
    DepthLimit = 16,
    /// The process was not known to the kernel side yet.
    ProcessUnknown = 17,
    /// A pc lay in no executable mapping of the process.
    NoMapping = 18,
    /// The executable's unwind table was not there yet.
    TableMissing = 19,
    /// No row covered the pc, and its frame pointer was not plausible.
    NoRow = 20,
    /// The row's rule is one the table format does not express.
    UnsupportedRule = 21,
    /// The rule needs a register whose value was lost in a younger frame.
    RegisterLost = 22,
    /// The stack could not be read: paged out, or no stack at all.
    StackUnreadable = 23,
    /// The next frame would not lie further up the stack.
    StackNotGrowing = 24,
    /// The frame pointer of code without a table was not plausible.
    FramePointerImplausible = 25,
    /// A 32-bit process: its stacks are counted, never walked.
    Compat32 = 26,
    /// The user registers of a sample taken in the kernel could not be read.
    RegistersUnreadable = 27,
    /// The snapshot ended before the stack did.
    SnapshotExhausted = 28,
    /// The unwind table led outside its own bounds.
    TableInvalid = 29,
    /// The process was gone before its mappings were known.
    MappingsUnknown = 30,
    /// The executable could not be opened or parsed, and its code keeps no frame pointer.
    ExecutableUnreadable = 31,
    /// The kernel refused a step of the walk itself (tail call, scratch space).
    WalkRefused = 32,
}

impl StopReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 22] = [
        Self::EndOfStack,
        Self::ReturnAddressZero,
        Self::FramePointerZero,
        Self::KernelThread,
        Self::MadeStack,
        Self::DepthLimit,
        Self::ProcessUnknown,
        Self::NoMapping,
        Self::TableMissing,
        Self::NoRow,
        Self::UnsupportedRule,
        Self::RegisterLost,
        Self::StackUnreadable,
        Self::StackNotGrowing,
        Self::FramePointerImplausible,
        Self::Compat32,
        Self::RegistersUnreadable,
        Self::SnapshotExhausted,
        Self::TableInvalid,
        Self::MappingsUnknown,
        Self::ExecutableUnreadable,
        Self::WalkRefused,
    ];

    /// The reason with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// Whether the stack is whole: the walk reached its thread's root.
    #[must_use]
    pub fn is_complete(self) -> bool {
        (self as u8) < Self::DepthLimit as u8
    }

    /// Whether the stack must be finished in user space from a snapshot: the kernel side lacked something that
    /// user space has or will have.
    #[must_use]
    pub fn wants_snapshot(self) -> bool {
        Self::number_wants_snapshot(self as u8)
    }

    /// [`StopReason::wants_snapshot`] by number, which is what the BPF programs have.
    #[inline(always)]
    #[must_use]
    pub fn number_wants_snapshot(number: u8) -> bool {
        number == Self::ProcessUnknown as u8
            || number == Self::NoMapping as u8
            || number == Self::TableMissing as u8
    }

    /// The name used in metrics, on the page and in summaries: lower case, words joined by `_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EndOfStack => "end_of_stack",
            Self::ReturnAddressZero => "return_address_zero",
            Self::FramePointerZero => "frame_pointer_zero",
            Self::KernelThread => "kernel_thread",
            Self::MadeStack => "made_stack",
            Self::DepthLimit => "depth_limit",
            Self::ProcessUnknown => "process_unknown",
            Self::NoMapping => "no_mapping",
            Self::TableMissing => "table_missing",
            Self::NoRow => "no_row",
            Self::UnsupportedRule => "unsupported_rule",
            Self::RegisterLost => "register_lost",
            Self::StackUnreadable => "stack_unreadable",
            Self::StackNotGrowing => "stack_not_growing",
            Self::FramePointerImplausible => "frame_pointer_implausible",
            Self::Compat32 => "compat_32_bit",
            Self::RegistersUnreadable => "registers_unreadable",
            Self::SnapshotExhausted => "snapshot_exhausted",
            Self::TableInvalid => "table_invalid",
            Self::MappingsUnknown => "mappings_unknown",
            Self::ExecutableUnreadable => "executable_unreadable",
            Self::WalkRefused => "walk_refused",
        }
    }

    /// The reason of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// What it means, in one line for people.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::EndOfStack | Self::ReturnAddressZero | Self::FramePointerZero => {
                "whole: the thread's first frame was reached"
            }
            Self::KernelThread => "no user stack: a kernel thread, or a process at its end",
            Self::MadeStack => "whole: the first function of a coroutine was reached",
            Self::DepthLimit => "more than 1,024 frames: the youngest are kept",
            Self::ProcessUnknown => "the process was too young to be known, and gone before it was",
            Self::NoMapping => {
                "a return address lies in no code of the process, or in code replaced just then"
            }
            Self::TableMissing => "the executable's unwind table was not ready yet",
            Self::NoRow => "code without call frame information, and without a frame pointer there",
            Self::UnsupportedRule => "call frame information of a kind that no compiler emits",
            Self::RegisterLost => "the caller's place depends on a register that was overwritten",
            Self::StackUnreadable => "the stack's page was not in memory",
            Self::StackNotGrowing => {
                "the caller would lie below its callee: no stack, or one being changed"
            }
            Self::FramePointerImplausible => {
                "code without call frame information: build it with it, or with -fno-omit-frame-pointer"
            }
            Self::Compat32 => "32-bit processes are counted, their stacks are not walked",
            Self::RegistersUnreadable => "the thread's registers could not be read",
            Self::SnapshotExhausted => {
                "a first sample's stack was larger than what is copied of it"
            }
            Self::TableInvalid => "the unwind table contradicts itself: please report it",
            Self::MappingsUnknown => "the process was gone before its mappings could be read",
            Self::ExecutableUnreadable => {
                "the executable could not be read, and keeps no frame pointer"
            }
            Self::WalkRefused => "the kernel refused the walk: please report it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_USER_FRAMES;

    #[test]
    fn reasons_have_a_number_a_name_and_an_explanation() {
        for reason in StopReason::ALL {
            assert_eq!(StopReason::from_number(reason as u8), Some(reason));
            assert_eq!(StopReason::from_name(reason.name()), Some(reason));
            let is_whole =
                reason.explanation().starts_with("whole") || reason == StopReason::KernelThread;
            assert_eq!(is_whole, reason.is_complete(), "{reason:?}");
        }
        assert_eq!(StopReason::from_name("unknown"), None);
    }

    #[test]
    fn the_depth_limit_says_the_limit() {
        let text = StopReason::DepthLimit.explanation();
        let digits = text.bytes().filter(u8::is_ascii_digit);
        let limit = digits.fold(0, |limit, digit| 10 * limit + usize::from(digit - b'0'));
        assert_eq!(limit, MAX_USER_FRAMES);
    }
}
