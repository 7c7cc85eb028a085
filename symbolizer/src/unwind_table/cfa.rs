//! Owns the interpreter of call frame instructions (DWARF 5, 6.4.2): one pass over an FDE's bytes gives its rows to a
//! [`RowSink`]. It never evaluates an expression, never allocates, and does a bounded amount of work per byte.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use leadsman_ebpf::registers::number;
use leadsman_ebpf::step::{SIGCONTEXT, SIGCONTEXT_ORDER, SIGCONTEXT_RIP};

use super::cursor::{Cursor, PointerBases};
use super::expression::{CfaExpression, register_plus};
use super::frame::{Cfa, Frame, RegisterRule};
use super::omission::Omission;

/// Takes the rows of functions, ascending within each function.
pub(super) trait RowSink {
    /// `frame` holds from `start` up to `end`, `start < end`.
    fn row(&mut self, start: u64, end: u64, frame: &Frame);
    /// From `start` up to `end` the rules could not be read.
    fn unreadable(&mut self, start: u64, end: u64, omission: Omission);
}

/// States that `DW_CFA_remember_state` can put aside; compilers nest one or two.
const REMEMBERED_STATES: usize = 16;

/// `DW_CFA_*`.
mod instruction {
    pub(super) const ADVANCE_LOC: u8 = 0b01;
    pub(super) const OFFSET: u8 = 0b10;
    pub(super) const RESTORE: u8 = 0b11;

    pub(super) const NOP: u8 = 0x00;
    pub(super) const SET_LOC: u8 = 0x01;
    pub(super) const ADVANCE_LOC1: u8 = 0x02;
    pub(super) const ADVANCE_LOC2: u8 = 0x03;
    pub(super) const ADVANCE_LOC4: u8 = 0x04;
    pub(super) const OFFSET_EXTENDED: u8 = 0x05;
    pub(super) const RESTORE_EXTENDED: u8 = 0x06;
    pub(super) const UNDEFINED: u8 = 0x07;
    pub(super) const SAME_VALUE: u8 = 0x08;
    pub(super) const REGISTER: u8 = 0x09;
    pub(super) const REMEMBER_STATE: u8 = 0x0a;
    pub(super) const RESTORE_STATE: u8 = 0x0b;
    pub(super) const DEF_CFA: u8 = 0x0c;
    pub(super) const DEF_CFA_REGISTER: u8 = 0x0d;
    pub(super) const DEF_CFA_OFFSET: u8 = 0x0e;
    pub(super) const DEF_CFA_EXPRESSION: u8 = 0x0f;
    pub(super) const EXPRESSION: u8 = 0x10;
    pub(super) const OFFSET_EXTENDED_SF: u8 = 0x11;
    pub(super) const DEF_CFA_SF: u8 = 0x12;
    pub(super) const DEF_CFA_OFFSET_SF: u8 = 0x13;
    pub(super) const VAL_OFFSET: u8 = 0x14;
    pub(super) const VAL_OFFSET_SF: u8 = 0x15;
    pub(super) const VAL_EXPRESSION: u8 = 0x16;
    pub(super) const GNU_ARGS_SIZE: u8 = 0x2e;
    pub(super) const GNU_NEGATIVE_OFFSET_EXTENDED: u8 = 0x2f;
}

/// What the instructions of an FDE or CIE are read with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program<'a> {
    /// The instructions.
    pub instructions: &'a [u8],
    /// Where they stand, for pc-relative operands.
    pub address: u64,
    /// Bytes of code per unit of `DW_CFA_advance_loc`.
    pub code_alignment: u64,
    /// Bytes per unit of a register's offset.
    pub data_alignment: i64,
    /// Encoding of `DW_CFA_set_loc`.
    pub pointer_encoding: u8,
    /// Bases of that encoding.
    pub bases: PointerBases,
    /// The state behind the CIE's instructions, which `DW_CFA_restore` goes back to.
    pub initial: &'a Frame,
}

/// Runs programs; reused from function to function for its stack of states.
#[derive(Debug)]
pub(super) struct Interpreter {
    remembered: [Frame; REMEMBERED_STATES],
    depth: usize,
}

impl Default for Interpreter {
    fn default() -> Self {
        Self {
            remembered: [Frame::EMPTY; REMEMBERED_STATES],
            depth: 0,
        }
    }
}

impl Interpreter {
    /// Gives `sink` the rows of a function at `start..end`; where the program turns out to be unreadable, the rows
    /// before that place stand and the rest is said to be unreadable. Returns the state at the program's end.
    pub(super) fn run(
        &mut self,
        program: &Program<'_>,
        start: u64,
        end: u64,
        sink: &mut impl RowSink,
    ) -> Result<Frame, Omission> {
        self.depth = 0;
        let mut frame = *program.initial;
        let mut location = start;
        let result = self.execute(program, &mut frame, &mut location, end, sink);
        match result {
            Ok(()) => {
                if location < end {
                    sink.row(location, end, &frame);
                }
                Ok(frame)
            }
            Err(omission) => {
                sink.unreadable(location, end, omission);
                Err(omission)
            }
        }
    }

    #[inline(always)]
    fn execute(
        &mut self,
        program: &Program<'_>,
        frame: &mut Frame,
        location: &mut u64,
        end: u64,
        sink: &mut impl RowSink,
    ) -> Result<(), Omission> {
        const BAD: Omission = Omission::BadInstruction;
        let mut cursor = Cursor::new(program.instructions);
        while let Some(operation) = cursor.u8() {
            // Nearly every second one. A branch of its own is predicted better than the jump below.
            if operation == instruction::DEF_CFA_OFFSET {
                define_offset(&mut cursor, frame)?;
                continue;
            }
            let low = operation & 0x3f;
            let delta = match operation >> 6 {
                instruction::ADVANCE_LOC => u64::from(low),
                instruction::OFFSET => {
                    let factored = cursor.uleb128().ok_or(BAD)?;
                    if let Some(position) = Frame::position(u64::from(low)) {
                        frame.set(position, program.offset(factored)?);
                    }
                    continue;
                }
                instruction::RESTORE => {
                    frame.restore(u64::from(low), program.initial);
                    continue;
                }
                _ => match low {
                    instruction::NOP => continue,
                    instruction::ADVANCE_LOC1 => u64::from(cursor.u8().ok_or(BAD)?),
                    instruction::ADVANCE_LOC2 => u64::from(cursor.u16().ok_or(BAD)?),
                    instruction::ADVANCE_LOC4 => u64::from(cursor.u32().ok_or(BAD)?),
                    instruction::SET_LOC => {
                        let next = program.location(&mut cursor).ok_or(BAD)?;
                        if next < *location {
                            return Err(BAD);
                        }
                        if advance(frame, location, next, end, sink) {
                            return Ok(());
                        }
                        continue;
                    }
                    instruction::REMEMBER_STATE => {
                        *self
                            .remembered
                            .get_mut(self.depth)
                            .ok_or(Omission::StateStack)? = *frame;
                        self.depth = self.depth.saturating_add(1);
                        continue;
                    }
                    instruction::RESTORE_STATE => {
                        self.depth = self.depth.checked_sub(1).ok_or(Omission::StateStack)?;
                        *frame = *self
                            .remembered
                            .get(self.depth)
                            .ok_or(Omission::StateStack)?;
                        continue;
                    }
                    _ => {
                        program.define(low, &mut cursor, frame)?;
                        continue;
                    }
                },
            };
            let next = delta
                .checked_mul(program.code_alignment)
                .and_then(|bytes| location.checked_add(bytes))
                .ok_or(BAD)?;
            if advance(frame, location, next, end, sink) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Ends the row at `next`; true when the function ends there or before.
#[inline(always)]
fn advance(
    frame: &Frame,
    location: &mut u64,
    next: u64,
    end: u64,
    sink: &mut impl RowSink,
) -> bool {
    if next >= end {
        // What follows would describe bytes behind the function.
        return true;
    }
    if next > *location {
        sink.row(*location, next, frame);
        *location = next;
    }
    false
}

/// `DW_CFA_def_cfa_offset`.
#[inline(always)]
fn define_offset(cursor: &mut Cursor<'_>, frame: &mut Frame) -> Result<(), Omission> {
    const BAD: Omission = Omission::BadInstruction;
    let offset = cursor.uleb128().ok_or(BAD)? as i64;
    let Cfa::Register { register, .. } = frame.cfa else {
        return Err(BAD);
    };
    frame.cfa = Cfa::Register { register, offset };
    Ok(())
}

impl Program<'_> {
    /// The rule "saved at CFA + factored offset".
    #[inline(always)]
    fn offset(&self, factored: u64) -> Result<RegisterRule, Omission> {
        self.signed(factored as i64).map(RegisterRule::Offset)
    }

    #[inline(always)]
    fn signed(&self, factored: i64) -> Result<i32, Omission> {
        factored
            .checked_mul(self.data_alignment)
            .and_then(|offset| i32::try_from(offset).ok())
            .ok_or(Omission::BadInstruction)
    }

    fn location(&self, cursor: &mut Cursor<'_>) -> Option<u64> {
        let consumed = self.instructions.len().checked_sub(cursor.rest().len())?;
        let address = self.address.wrapping_add(consumed as u64);
        cursor.pointer(self.pointer_encoding, address, &self.bases)
    }

    /// Carries out an instruction that defines the CFA or a register, but for `DW_CFA_def_cfa_offset`.
    fn define(
        &self,
        operation: u8,
        cursor: &mut Cursor<'_>,
        frame: &mut Frame,
    ) -> Result<(), Omission> {
        const BAD: Omission = Omission::BadInstruction;
        match operation {
            instruction::DEF_CFA => {
                let register = cursor.uleb128().ok_or(BAD)?;
                let offset = cursor.uleb128().ok_or(BAD)?;
                frame.cfa = register_cfa(register, offset as i64)?;
            }
            instruction::DEF_CFA_SF => {
                let register = cursor.uleb128().ok_or(BAD)?;
                let offset = cursor.sleb128().ok_or(BAD)?;
                let offset = offset.checked_mul(self.data_alignment).ok_or(BAD)?;
                frame.cfa = register_cfa(register, offset)?;
            }
            instruction::DEF_CFA_REGISTER => {
                let register = cursor.uleb128().ok_or(BAD)?;
                let Cfa::Register { offset, .. } = frame.cfa else {
                    return Err(BAD);
                };
                frame.cfa = register_cfa(register, offset)?;
            }
            instruction::DEF_CFA_OFFSET_SF => {
                let offset = cursor.sleb128().ok_or(BAD)?;
                let offset = offset.checked_mul(self.data_alignment).ok_or(BAD)?;
                let Cfa::Register { register, .. } = frame.cfa else {
                    return Err(BAD);
                };
                frame.cfa = Cfa::Register { register, offset };
            }
            instruction::DEF_CFA_EXPRESSION => {
                let expression = expression(cursor)?;
                frame.cfa = CfaExpression::recognize(expression).into();
            }
            instruction::RESTORE_EXTENDED => {
                let register = cursor.uleb128().ok_or(BAD)?;
                frame.restore(register, self.initial);
            }
            instruction::GNU_ARGS_SIZE => {
                cursor.uleb128().ok_or(BAD)?;
            }
            _ => {
                let register = cursor_register(operation, cursor)?;
                let rule = self.register_rule(operation, register, cursor, frame)?;
                if let Some(position) = Frame::position(register) {
                    frame.set(position, rule);
                }
            }
        }
        Ok(())
    }

    fn register_rule(
        &self,
        operation: u8,
        register: u64,
        cursor: &mut Cursor<'_>,
        frame: &mut Frame,
    ) -> Result<RegisterRule, Omission> {
        const BAD: Omission = Omission::BadInstruction;
        Ok(match operation {
            instruction::UNDEFINED => RegisterRule::Undefined,
            instruction::SAME_VALUE => RegisterRule::Same,
            instruction::OFFSET_EXTENDED => self.offset(cursor.uleb128().ok_or(BAD)?)?,
            instruction::OFFSET_EXTENDED_SF => {
                RegisterRule::Offset(self.signed(cursor.sleb128().ok_or(BAD)?)?)
            }
            instruction::GNU_NEGATIVE_OFFSET_EXTENDED => {
                let factored = (cursor.uleb128().ok_or(BAD)? as i64)
                    .checked_neg()
                    .ok_or(BAD)?;
                RegisterRule::Offset(self.signed(factored)?)
            }
            instruction::VAL_OFFSET => {
                let factored = cursor.uleb128().ok_or(BAD)? as i64;
                RegisterRule::ValueOffset(self.signed(factored)?)
            }
            instruction::VAL_OFFSET_SF => {
                RegisterRule::ValueOffset(self.signed(cursor.sleb128().ok_or(BAD)?)?)
            }
            instruction::REGISTER => {
                let other = cursor.uleb128().ok_or(BAD)?;
                u16::try_from(other)
                    .map(RegisterRule::Register)
                    .map_err(|_error| BAD)?
            }
            instruction::EXPRESSION => {
                let base = register_plus(expression(cursor)?);
                frame.note_sigcontext(register, base);
                base.map_or(RegisterRule::Expression, |(register, offset)| {
                    RegisterRule::Based { register, offset }
                })
            }
            instruction::VAL_EXPRESSION => {
                expression(cursor)?;
                RegisterRule::ValueExpression
            }
            _ => return Err(BAD),
        })
    }
}

/// The register operand that all remaining instructions begin with.
fn cursor_register(operation: u8, cursor: &mut Cursor<'_>) -> Result<u64, Omission> {
    if !(instruction::OFFSET_EXTENDED..=instruction::VAL_EXPRESSION).contains(&operation)
        && operation != instruction::GNU_NEGATIVE_OFFSET_EXTENDED
    {
        return Err(Omission::BadInstruction);
    }
    cursor.uleb128().ok_or(Omission::BadInstruction)
}

fn register_cfa(register: u64, offset: i64) -> Result<Cfa, Omission> {
    let register = u16::try_from(register).map_err(|_error| Omission::BadInstruction)?;
    Ok(Cfa::Register { register, offset })
}

fn expression<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Omission> {
    cursor
        .uleb128()
        .and_then(|length| cursor.bytes(length))
        .ok_or(Omission::BadInstruction)
}

impl Frame {
    #[inline(always)]
    fn restore(&mut self, register: u64, initial: &Frame) {
        if let Some(position) = Self::position(register) {
            self.set(position, initial.rule(position));
        }
    }

    /// Notes whether an expression rule is the one of a signal frame for that register.
    fn note_sigcontext(&mut self, register: u64, base: Option<(u8, i32)>) {
        let Some(offset) = sigcontext_offset(register) else {
            return;
        };
        let there = base == Some((number::RSP, offset));
        let bit = 1_u32.checked_shl(register as u32).unwrap_or(0);
        self.in_sigcontext = self.in_sigcontext & !bit | if there { bit } else { 0 };
    }
}

/// Where the kernel saves a register in a signal frame, bytes from rsp behind the handler's return address.
pub(super) fn sigcontext_offset(register: u64) -> Option<i32> {
    let offset = if register == u64::from(number::RA) {
        SIGCONTEXT_RIP
    } else {
        let nth = SIGCONTEXT_ORDER
            .iter()
            .position(|&saved| u64::from(saved) == register)?;
        (nth as u64).checked_mul(8)?
    };
    i32::try_from(SIGCONTEXT.checked_add(offset)?).ok()
}
