//! Owns the packing of a logical [`Frame`] into the kernel's [`Rule`]. What a rule can't say becomes a marker with a
//! reason, never a wrong rule.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use leadsman_ebpf::registers::number;
use leadsman_ebpf::rule::{Kind, Rule};

use super::cfa::sigcontext_offset;
use super::frame::{
    CALLEE_SAVED, Cfa, Frame, GoFrame, Position, RA, RBP, RSP, RegisterRule, slot_below, slot_place,
};
use super::omission::Omission;

/// A packed rule, and what it could not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub rule: Rule,
    /// Why the rule is [`Rule::UNSUPPORTED`], or [`Omission::RegisterLost`].
    pub omission: Option<Omission>,
}

/// Packs the rules in force at one address.
#[inline(always)]
pub(super) fn pack(frame: &Frame) -> Packed {
    if frame.is_regular()
        && frame.go == GoFrame::No
        && let Cfa::Register { register, offset } = frame.cfa
        && register < 16
        && let Ok(offset) = i32::try_from(offset)
        && let Some(rule) = Rule::from_places(
            Kind::register(register as u8),
            offset,
            frame.live_slots(register, offset),
        )
    {
        return Packed {
            rule,
            omission: None,
        };
    }
    pack_rare(frame)
}

#[cold]
fn pack_rare(frame: &Frame) -> Packed {
    match rare_rule(frame) {
        Ok((rule, lost)) => Packed {
            rule,
            omission: lost.then_some(Omission::RegisterLost),
        },
        Err(omission) => Packed {
            rule: Rule::UNSUPPORTED,
            omission: Some(omission),
        },
    }
}

/// The rule, and whether a register was lost by it.
fn rare_rule(frame: &Frame) -> Result<(Rule, bool), Omission> {
    if frame.go != GoFrame::No {
        return Ok((go_rule(frame)?, false));
    }
    if frame.rule(RA) == RegisterRule::Undefined {
        return Ok((Rule::END, false));
    }
    if frame.is_signal() {
        return is_rt_sigframe(frame)
            .then_some((Rule::SIGNAL, false))
            .ok_or(Omission::SignalFrame);
    }
    let returns_in = match frame.rule(RA) {
        RegisterRule::Offset(-8) => None,
        RegisterRule::Register(register) => Some(register),
        _ => return Err(Omission::ReturnAddress),
    };
    if !matches!(
        frame.rule(RSP),
        RegisterRule::Unspecified | RegisterRule::ValueOffset(0)
    ) {
        return Err(Omission::StackPointer);
    }
    let (kind, offset) = match returns_in {
        None => kind(frame)?,
        Some(register) => return_in_register(frame, register)?,
    };
    let base = match (kind, frame.cfa) {
        (Kind::REALIGNED | Kind::REALIGNING, _) => SlotBase {
            register: number::RBP,
            behind: 8,
            is_cfa: false,
        },
        // What is saved relative to the CFA's own register is saved relative to the CFA.
        (_, Cfa::Register { register, offset }) => SlotBase {
            register: register as u8,
            behind: offset,
            is_cfa: true,
        },
        _ => SlotBase {
            register: NO_REGISTER,
            behind: 0,
            is_cfa: true,
        },
    };
    let mut slots = 0;
    let mut lost = false;
    for position in 0..CALLEE_SAVED {
        let (place, register_lost) = place(position, frame.rule(position), base);
        slots |= place;
        lost |= register_lost;
    }
    let rule = Rule::from_places(kind, offset, slots).ok_or(Omission::CfaOffset)?;
    Ok((rule, lost))
}

/// The rule of a Go function. When rsp has moved by more than the return address, rbp was pushed right behind it: every
/// function with a frame does so (cmd/internal/obj/x86/obj6.go).
fn go_rule(frame: &Frame) -> Result<Rule, Omission> {
    match frame.go {
        GoFrame::Root => return Ok(Rule::END),
        GoFrame::Signal => return Ok(Rule::SIGNAL),
        GoFrame::No | GoFrame::Plain | GoFrame::SwitchesStack => {}
    }
    let Cfa::Register { register, offset } = frame.cfa else {
        return Err(Omission::CfaExpression);
    };
    let offset = i32::try_from(offset).map_err(|_error| Omission::CfaOffset)?;
    let register = u8::try_from(register).map_err(|_error| Omission::CfaRegister)?;
    if register > number::R15 {
        return Err(Omission::CfaRegister);
    }
    let has_frame = register != number::RSP || offset >= 16;
    if frame.go == GoFrame::SwitchesStack && has_frame {
        return Ok(Rule::SWITCHED);
    }
    let rbp_slot = if has_frame { 2 } else { 0 };
    Rule::new(Kind::register(register), offset, rbp_slot, [0; 5]).ok_or(Omission::CfaOffset)
}

/// What slots are counted from: `behind` bytes above a register, and whether that is the CFA.
#[derive(Clone, Copy)]
struct SlotBase {
    register: u8,
    behind: i64,
    is_cfa: bool,
}

/// The base register of a CFA that is in no register plus an offset.
const NO_REGISTER: u8 = u8::MAX;

/// Whether callee-saved registers are saved at addresses relative to rbp, and none relative to the CFA.
fn has_slots_on_rbp_only(frame: &Frame) -> bool {
    let mut on_rbp = false;
    for position in 0..CALLEE_SAVED {
        match frame.rule(position) {
            RegisterRule::Based {
                register: number::RBP,
                ..
            } => on_rbp = true,
            RegisterRule::Offset(_) => return false,
            _ => {}
        }
    }
    on_rbp
}

/// The kind and its offset field for a return address in a register.
fn return_in_register(frame: &Frame, register: u16) -> Result<(Kind, i32), Omission> {
    const OTHER: Omission = Omission::ReturnAddress;
    let Cfa::Register {
        register: base,
        offset,
    } = frame.cfa
    else {
        return Err(OTHER);
    };
    if base != u16::from(number::RSP) {
        return Err(OTHER);
    }
    let register = u8::try_from(register).map_err(|_error| OTHER)?;
    let offset = i32::try_from(offset).map_err(|_error| Omission::CfaOffset)?;
    let field = Rule::realigning(register, offset).ok_or(OTHER)?;
    Ok((Kind::RETURN_IN_REGISTER, field))
}

/// The kind, and its offset field.
fn kind(frame: &Frame) -> Result<(Kind, i32), Omission> {
    match frame.cfa {
        Cfa::Undefined => Err(Omission::CfaRegister),
        Cfa::Register { register, offset } => {
            let offset = i32::try_from(offset).map_err(|_error| Omission::CfaOffset)?;
            let register = u8::try_from(register)
                .ok()
                .filter(|&register| register < 16)
                .ok_or(Omission::CfaRegister)?;
            if register == number::RBP || !has_slots_on_rbp_only(frame) {
                return Ok((Kind::register(register), offset));
            }
            let field = Rule::realigning(register, offset).ok_or(Omission::CfaOffset)?;
            Ok((Kind::REALIGNING, field))
        }
        Cfa::Plt { threshold } => Ok((Kind::PLT, i32::from(threshold))),
        Cfa::Deref {
            register: number::RBP,
            offset,
            plus: 0,
        } if has_slots_on_rbp_only(frame) => Ok((Kind::REALIGNED, offset)),
        Cfa::Deref {
            register,
            offset,
            plus,
        } => {
            let field = Rule::deref(register, offset, plus).ok_or(Omission::CfaOffset)?;
            Ok((Kind::DEREF, field))
        }
        Cfa::DerefIndexed {
            index,
            offset,
            plus,
        } => {
            let field = Rule::deref(index, offset, plus).ok_or(Omission::CfaOffset)?;
            Ok((Kind::DEREF_INDEXED, field))
        }
        Cfa::Expression => Err(Omission::CfaExpression),
    }
}

/// A register's bits in a rule, and whether it is lost.
fn place(position: Position, rule: RegisterRule, base: SlotBase) -> (u64, bool) {
    let (shift, width, greatest) = slot_place(position);
    let slot = match rule {
        RegisterRule::Unspecified | RegisterRule::Same => Some(0),
        RegisterRule::Offset(offset) if base.is_cfa => slot_below(0, offset),
        RegisterRule::Based { register, offset } if register == base.register => {
            i32::try_from(base.behind)
                .ok()
                .and_then(|behind| slot_below(behind, offset))
        }
        _ => None,
    };
    let everything = 1_u64.wrapping_shl(width).wrapping_sub(1);
    let (bits, lost) = match slot.filter(|&slot| slot <= greatest) {
        Some(slot) => (u64::from(slot), false),
        None => (everything, true),
    };
    (bits.wrapping_shl(shift), lost)
}

/// Registers without which a signal frame would be of no use.
const SIGNAL_REGISTERS: [u8; 8] = [
    number::RA,
    number::RSP,
    number::RBP,
    number::RBX,
    number::R12,
    number::R13,
    number::R14,
    number::R15,
];

/// Whether the rules are those of the kernel's `rt_sigframe`, as C libraries and the vDSO describe it: the CFA is the
/// saved rsp, and registers stand in `uc_mcontext`.
fn is_rt_sigframe(frame: &Frame) -> bool {
    let saved_rsp = sigcontext_offset(u64::from(number::RSP));
    let cfa = match frame.cfa {
        Cfa::Deref {
            register: number::RSP,
            offset,
            plus: 0,
        } => Some(offset) == saved_rsp,
        _ => false,
    };
    cfa && SIGNAL_REGISTERS
        .iter()
        .all(|&register| frame.in_sigcontext & 1_u32.wrapping_shl(u32::from(register)) != 0)
}

const _: () = assert!(RBP == 0, "rbp's slot is the wide one");

#[cfg(test)]
mod tests {
    use super::*;
    use leadsman_ebpf::rule::{RBP_LOST, SLOT_LOST};

    fn frame(cfa: Cfa, rules: &[(Position, RegisterRule)]) -> Frame {
        let mut frame = Frame::EMPTY;
        frame.cfa = cfa;
        frame.set(RA, RegisterRule::Offset(-8));
        for &(position, rule) in rules {
            frame.set(position, rule);
        }
        frame
    }

    fn on_rsp(offset: i64) -> Cfa {
        Cfa::Register {
            register: u16::from(number::RSP),
            offset,
        }
    }

    const REALIGNED: Cfa = Cfa::Deref {
        register: number::RBP,
        offset: -16,
        plus: 0,
    };

    fn on_rbp(offset: i32) -> RegisterRule {
        RegisterRule::Based {
            register: number::RBP,
            offset,
        }
    }

    #[test]
    fn a_plain_frame_packs_as_the_constructor_does() {
        let packed = pack(&frame(
            on_rsp(56),
            &[
                (RBP, RegisterRule::Offset(-48)),
                (1, RegisterRule::Offset(-56)),
                (5, RegisterRule::Offset(-16)),
            ],
        ));
        let rule = Rule::new(Kind::register(number::RSP), 56, 6, [7, 0, 0, 0, 2]);
        assert_eq!(Some(packed.rule), rule);
        assert_eq!(packed.omission, None);
    }

    #[test]
    fn a_realigned_frame_counts_its_slots_from_rbp() {
        let packed = pack(&frame(REALIGNED, &[(RBP, on_rbp(0)), (5, on_rbp(-8))]));
        let rule = Rule::new(Kind::REALIGNED, -16, 1, [0, 0, 0, 0, 2]);
        assert_eq!(Some(packed.rule), rule);
        assert_eq!(packed.omission, None);
    }

    #[test]
    fn other_registers_lead_to_frames_too() {
        let r10 = Cfa::Register {
            register: number::R10.into(),
            offset: 0,
        };
        let packed = pack(&frame(r10, &[(RBP, on_rbp(0))]));
        let field = Rule::realigning(number::R10, 0).expect("in range");
        let rule = Rule::new(Kind::REALIGNING, field, 1, [0; 5]);
        assert_eq!((Some(packed.rule), packed.omission), (rule, None));

        let rsp = Cfa::Deref {
            register: number::RSP,
            offset: 48,
            plus: 56,
        };
        let packed = pack(&frame(rsp, &[(RBP, RegisterRule::Offset(-16))]));
        let field = Rule::deref(number::RSP, 48, 56).expect("in range");
        let rule = Rule::new(Kind::DEREF, field, 2, [0; 5]);
        assert_eq!((Some(packed.rule), packed.omission), (rule, None));

        // Saved relative to the CFA's own register: relative to the CFA.
        let rbp = Cfa::Register {
            register: number::RBP.into(),
            offset: 16,
        };
        let packed = pack(&frame(rbp, &[(RBP, on_rbp(0)), (1, on_rbp(-8))]));
        let rule = Rule::new(Kind::register(number::RBP), 16, 2, [3, 0, 0, 0, 0]);
        assert_eq!((Some(packed.rule), packed.omission), (rule, None));
    }

    #[test]
    fn what_a_slot_can_not_say_is_lost() {
        let packed = pack(&frame(
            on_rsp(4096),
            &[
                (RBP, RegisterRule::Offset(-8 * 4095)),
                (1, RegisterRule::Offset(-8 * 31)),
                (2, RegisterRule::Undefined),
                (3, RegisterRule::Offset(8)),
                (4, on_rbp(-8)),
                (5, RegisterRule::Offset(-16)),
            ],
        ));
        // r14 on rbp makes rbp the base, as in the frames that have such rules; with the CFA in a plain register
        // there is no kind for it, and the CFA-based ones win.
        assert_eq!(packed.rule.rbp_slot(), u64::from(RBP_LOST));
        for position in 0..4 {
            assert_eq!(packed.rule.slot(position), u64::from(SLOT_LOST));
        }
        assert_eq!(packed.rule.slot(4), 2);
        assert_eq!(packed.omission, Some(Omission::RegisterLost));
    }

    #[test]
    fn the_end_of_a_stack_needs_no_cfa() {
        let packed = pack(&frame(Cfa::Undefined, &[(RA, RegisterRule::Undefined)]));
        assert_eq!(packed.rule, Rule::END);
    }

    #[test]
    fn unknown_shapes_become_markers_with_their_reason() {
        for (frame, omission) in [
            (frame(Cfa::Expression, &[]), Omission::CfaExpression),
            (
                frame(on_rsp(16), &[(RA, RegisterRule::Offset(-16))]),
                Omission::ReturnAddress,
            ),
            (
                frame(on_rsp(16), &[(RSP, RegisterRule::Offset(-16))]),
                Omission::StackPointer,
            ),
            (frame(on_rsp(1 << 21), &[]), Omission::CfaOffset),
            (frame(on_rsp(1 << 40), &[]), Omission::CfaOffset),
            (
                frame(
                    Cfa::Register {
                        register: 17,
                        offset: 0,
                    },
                    &[],
                ),
                Omission::CfaRegister,
            ),
        ] {
            let packed = pack(&frame);
            assert_eq!(packed.rule, Rule::UNSUPPORTED);
            assert_eq!(packed.omission, Some(omission));
        }
    }

    #[test]
    fn a_signal_frame_must_be_the_kernels() {
        let mut frame = frame(
            Cfa::Deref {
                register: number::RSP,
                offset: 160,
                plus: 0,
            },
            &[],
        );
        frame.mark_signal();
        assert_eq!(pack(&frame).omission, Some(Omission::SignalFrame));
        frame.in_sigcontext = 0x1ffff;
        assert_eq!(pack(&frame).rule, Rule::SIGNAL);
        frame.in_sigcontext &= !(1 << number::RBP);
        assert_eq!(pack(&frame).omission, Some(Omission::SignalFrame));
    }
}
