//! One step of a walk: (registers, rule, stack) -> the caller's registers, or the reason the walk ends.
//!
//! Pure: the stack arrives through [`Stack`]. In BPF that reads the sampled thread's memory through a small
//! window; in the symbolizer it reads a snapshot.

use crate::registers::{ALL_KNOWN, Registers, number};
use crate::rule::{Kind, RBP_LOST, Rule, SLOT_LOST, SLOT_REGISTERS};
use crate::stop::StopReason;

/// Reads words of the walked thread's stack.
pub trait Stack {
    /// The eight bytes at `address`, native endian; `None` when they cannot be read.
    fn word(&mut self, address: u64) -> Option<u64>;

    /// Why a word could not be read.
    const UNREADABLE: StopReason;
}

/// `rt_sigframe` (arch/x86/include/asm/sigframe.h): at the return from the handler rsp stands behind `pretcode`, so
/// `uc` is at rsp, and `uc_mcontext` (struct sigcontext_64) 40 bytes into it: r8..r15, rdi, rsi, rbp, rbx, rdx, rax,
/// rcx, rsp, rip.
pub const SIGCONTEXT: u64 = 40;
/// sigcontext's general registers in order, by DWARF number.
pub const SIGCONTEXT_ORDER: [u8; 16] = [
    number::R8,
    number::R9,
    number::R10,
    number::R11,
    number::R12,
    number::R13,
    number::R14,
    number::R15,
    number::RDI,
    number::RSI,
    number::RBP,
    number::RBX,
    number::RDX,
    number::RAX,
    number::RCX,
    number::RSP,
];
/// Where rip stands in sigcontext, behind them.
pub const SIGCONTEXT_RIP: u64 = 16 * 8;

/// Replaces `registers` by the caller's.
///
/// # Errors
/// The reason why there is no caller ([`StopReason::is_complete`]) or why it can't be found.
#[inline(always)]
pub fn step<S: Stack>(
    registers: &mut Registers,
    rule: Rule,
    stack: &mut S,
) -> Result<(), StopReason> {
    let kind = rule.kind();
    let offset = rule.offset();
    let rbp = registers.rbp();
    let rsp = registers.rsp();
    let on_rbp = kind == Kind::REALIGNED || kind == Kind::REALIGNING;
    if on_rbp && registers.known >> number::RBP & 1 == 0 {
        return Err(StopReason::RegisterLost);
    }

    let cfa = if kind.0 < 16 {
        if registers.known >> kind.0 & 1 == 0 {
            return Err(StopReason::RegisterLost);
        }
        registers.general[(kind.0 & 15) as usize].wrapping_add(offset)
    } else if kind == Kind::PLT {
        rsp.wrapping_add(8)
            .wrapping_add((((registers.pc & 15) >= offset) as u64) << 3)
    } else if kind == Kind::SIGNAL {
        return step_signal(registers, stack);
    } else if kind == Kind::SWITCHED {
        return follow_frame_pointer(registers, stack);
    } else if kind == Kind::END {
        return Err(StopReason::EndOfStack);
    } else if kind == Kind::UNCOVERED {
        return Err(StopReason::NoRow);
    } else if kind == Kind::UNSUPPORTED {
        return Err(StopReason::UnsupportedRule);
    } else if kind == Kind::REALIGNED {
        match stack.word(rbp.wrapping_add(offset)) {
            Some(cfa) => cfa,
            None => return Err(S::UNREADABLE),
        }
    } else {
        let register = rule.register();
        if registers.known >> register & 1 == 0 {
            return Err(StopReason::RegisterLost);
        }
        let value = registers.general[(register & 15) as usize];
        if kind == Kind::REALIGNING {
            value.wrapping_add(rule.realigning_offset())
        } else if kind == Kind::RETURN_IN_REGISTER {
            rsp.wrapping_add(rule.realigning_offset())
        } else {
            let base = if kind == Kind::DEREF_INDEXED {
                rsp.wrapping_add(value << 3)
            } else {
                value
            };
            match stack.word(base.wrapping_add(rule.deref_offset())) {
                Some(pointer) => pointer.wrapping_add(rule.addend()),
                None => return Err(S::UNREADABLE),
            }
        }
    };

    let in_register = kind == Kind::RETURN_IN_REGISTER;
    if cfa < rsp || cfa == rsp && !in_register {
        return Err(StopReason::StackNotGrowing);
    }
    let register = registers.general[(rule.register() & 15) as usize];
    let slot_base = if on_rbp { rbp.wrapping_add(8) } else { cfa };

    // Scratch registers keep their values as far as tables say, and no compiler computes a CFA from one behind a call: only
    // assembly does, whose own functions leave it alone (OpenSSL).
    let mut known = registers.known;
    // The lowest slots first: the stack window then moves upwards only.
    if rule.slots() != 0 {
        let mut position = 0;
        while position < SLOT_REGISTERS.len() {
            let register = SLOT_REGISTERS[position];
            let slot = rule.slot(position as u32);
            if slot == SLOT_LOST as u64 {
                known &= !(1 << register);
            } else if slot != 0 {
                match stack.word(slot_base.wrapping_sub(slot << 3)) {
                    Some(value) => {
                        registers.general[register as usize] = value;
                        known |= 1 << register;
                    }
                    None => return Err(S::UNREADABLE),
                }
            }
            position += 1;
        }
    }
    let rbp_slot = rule.rbp_slot();
    if rbp_slot == RBP_LOST as u64 {
        known &= !(1 << number::RBP);
    } else if rbp_slot != 0 {
        match stack.word(slot_base.wrapping_sub(rbp_slot << 3)) {
            Some(value) => {
                registers.general[number::RBP as usize] = value;
                known |= 1 << number::RBP;
            }
            None => return Err(S::UNREADABLE),
        }
    }
    let return_address = if in_register {
        register
    } else {
        match stack.word(cfa.wrapping_sub(8)) {
            Some(word) => word,
            None => return Err(S::UNREADABLE),
        }
    };
    if return_address == 0 {
        return Err(StopReason::ReturnAddressZero);
    }
    registers.general[number::RSP as usize] = cfa;
    registers.pc = return_address;
    registers.known = known;
    registers.pc_is_exact = 0;
    Ok(())
}

/// The registers that the kernel saved when it pushed a signal frame: all of them, exactly where the thread stood.
#[inline(always)]
fn step_signal<S: Stack>(registers: &mut Registers, stack: &mut S) -> Result<(), StopReason> {
    let context = registers.rsp().wrapping_add(SIGCONTEXT);
    let mut position = 0;
    while position < SIGCONTEXT_ORDER.len() {
        match stack.word(context.wrapping_add(position as u64 * 8)) {
            Some(value) => registers.general[SIGCONTEXT_ORDER[position] as usize] = value,
            None => return Err(S::UNREADABLE),
        }
        position += 1;
    }
    let Some(pc) = stack.word(context.wrapping_add(SIGCONTEXT_RIP)) else {
        return Err(S::UNREADABLE);
    };
    if pc == 0 {
        return Err(StopReason::ReturnAddressZero);
    }
    registers.pc = pc;
    registers.known = ALL_KNOWN;
    registers.pc_is_exact = 1;
    Ok(())
}

/// Greatest distance between two frames of a frame pointer chain that is believed, bytes.
const MAX_FRAME_BYTES: u64 = 1 << 23;

/// One step by the frame pointer, for code that no row covers: `[rbp]` is the caller's rbp, `[rbp + 8]` the return
/// address. The caller checks that the return address lies in an executable mapping, as for every frame.
///
/// # Errors
/// [`StopReason::FramePointerZero`] at the root; [`StopReason::FramePointerImplausible`] when rbp does not look like
/// a frame pointer: unaligned, below the stack pointer or far above it.
#[inline(always)]
pub fn step_frame_pointer<S: Stack>(
    registers: &mut Registers,
    stack: &mut S,
) -> Result<(), StopReason> {
    let rbp = registers.rbp();
    let rsp = registers.rsp();
    if registers.known >> number::RBP & 1 == 0 {
        return Err(StopReason::RegisterLost);
    }
    if rbp != 0 && (rbp & 7 != 0 || rbp < rsp || rbp.wrapping_sub(rsp) > MAX_FRAME_BYTES) {
        return Err(StopReason::FramePointerImplausible);
    }
    follow_frame_pointer(registers, stack)
}

/// One step from a youngest frame whose return address stands `pushed` bytes above its stack pointer, as
/// [`frame_in_the_making`](crate::code::frame_in_the_making) has it. `false`, and nothing is changed, unless the
/// address there is one that `returns_to` a call.
#[inline(always)]
pub fn step_unframed<S: Stack>(
    registers: &mut Registers,
    pushed: u64,
    stack: &mut S,
    returns_to: impl FnOnce(u64) -> bool,
) -> bool {
    let rsp = registers.rsp();
    let mut rbp = registers.rbp();
    if pushed != 0 {
        match stack.word(rsp) {
            Some(saved) => rbp = saved,
            None => return false,
        }
    }
    let above = rsp.wrapping_add(pushed);
    let Some(return_address) = stack.word(above) else {
        return false;
    };
    if !returns_to(return_address) {
        return false;
    }
    // Whatever else the caller keeps in registers is still there.
    registers.general[number::RBP as usize] = rbp;
    registers.general[number::RSP as usize] = above.wrapping_add(8);
    registers.pc = return_address;
    registers.pc_is_exact = 0;
    true
}

/// The step itself, wherever rbp leads.
#[inline(always)]
fn follow_frame_pointer<S: Stack>(
    registers: &mut Registers,
    stack: &mut S,
) -> Result<(), StopReason> {
    let rbp = registers.rbp();
    if registers.known >> number::RBP & 1 == 0 {
        return Err(StopReason::RegisterLost);
    }
    if rbp == 0 {
        return Err(StopReason::FramePointerZero);
    }
    let Some(caller_rbp) = stack.word(rbp) else {
        return Err(S::UNREADABLE);
    };
    let Some(return_address) = stack.word(rbp.wrapping_add(8)) else {
        return Err(S::UNREADABLE);
    };
    if return_address == 0 {
        return Err(StopReason::ReturnAddressZero);
    }
    registers.general[number::RBP as usize] = caller_rbp;
    registers.general[number::RSP as usize] = rbp.wrapping_add(16);
    registers.pc = return_address;
    // A function that keeps a frame pointer may have saved any other register anywhere.
    registers.known = 1 << number::RBP | 1 << number::RSP;
    registers.pc_is_exact = 0;
    Ok(())
}

#[cfg(test)]
mod recorded;
#[cfg(test)]
mod tests;
