//! The user registers of one frame, x86-64.

/// DWARF numbers of the x86-64 registers (System V ABI, figure 3.36).
pub mod number {
    pub const RAX: u8 = 0;
    pub const RDX: u8 = 1;
    pub const RCX: u8 = 2;
    pub const RBX: u8 = 3;
    pub const RSI: u8 = 4;
    pub const RDI: u8 = 5;
    pub const RBP: u8 = 6;
    pub const RSP: u8 = 7;
    pub const R8: u8 = 8;
    pub const R9: u8 = 9;
    pub const R10: u8 = 10;
    pub const R11: u8 = 11;
    pub const R12: u8 = 12;
    pub const R13: u8 = 13;
    pub const R14: u8 = 14;
    pub const R15: u8 = 15;
    /// The return address column.
    pub const RA: u8 = 16;
}

/// General registers of a frame, with the program counter.
///
/// `known` has one bit for each DWARF register number: the youngest frame (and one interrupted by a signal) knows them
/// all, a frame that was found by its frame pointer only that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// Values by DWARF register number, 0 to 15.
    pub general: [u64; 16],
    /// The program counter.
    pub pc: u64,
    /// Bit n set: `general[n]` holds what it held in this frame.
    pub known: u32,
    /// 1 when `pc` is where execution stands, 0 when it is a return address (then the call lies before it).
    pub pc_is_exact: u32,
}

/// `known` of a frame whose every register is known.
pub const ALL_KNOWN: u32 = 0xffff;

impl Registers {
    /// The address to look up rows and mappings with: a call's own address rather than its return address, since a
    /// call may be a function's last instruction.
    #[inline(always)]
    #[must_use]
    pub fn lookup_pc(&self) -> u64 {
        self.pc.wrapping_sub(1 - (self.pc_is_exact as u64 & 1))
    }

    /// The stack pointer.
    #[inline(always)]
    #[must_use]
    pub fn rsp(&self) -> u64 {
        self.general[number::RSP as usize]
    }

    /// The frame pointer register.
    #[inline(always)]
    #[must_use]
    pub fn rbp(&self) -> u64 {
        self.general[number::RBP as usize]
    }
}
