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
}
