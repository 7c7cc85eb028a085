//! Owns the recognition of DWARF expressions in call frame information. Nothing is evaluated: an expression either
//! has one of the few shapes that compilers and assembly authors write, or it is "other".

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use leadsman_ebpf::registers::number;

use super::cursor::Cursor;

const DW_OP_DEREF: u8 = 0x06;
const DW_OP_MUL: u8 = 0x1e;
const DW_OP_PLUS: u8 = 0x22;
const DW_OP_PLUS_UCONST: u8 = 0x23;
const DW_OP_LIT0: u8 = 0x30;
const DW_OP_LIT8: u8 = 0x38;
const DW_OP_LIT15: u8 = 0x3f;
const DW_OP_BREG0: u8 = 0x70;
const DW_OP_BREG15: u8 = 0x7f;

/// Before and behind the literal in GNU ld's description of a lazy PLT entry (`elf_x86_64_eh_frame_plt` in
/// bfd/elf64-x86-64.c): breg7 8; breg16 0; lit15; and; **litN**; ge; lit3; shl; plus.
const PLT_HEAD: &[u8] = &[0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a];
const PLT_TAIL: &[u8] = &[0x2a, 0x33, 0x24, 0x22];

/// What an expression for the CFA says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CfaExpression {
    /// rsp + 8 + 8 * ((pc & 15) >= threshold)
    Plt { threshold: u8 },
    /// \*(register + offset) + plus
    Deref {
        register: u8,
        offset: i32,
        plus: u32,
    },
    /// \*(rsp + offset + 8 * index) + plus
    DerefIndexed { index: u8, offset: i32, plus: u32 },
    /// Something else.
    Other,
}

impl CfaExpression {
    pub(super) fn recognize(expression: &[u8]) -> Self {
        Self::plt(expression)
            .or_else(|| Self::deref(expression))
            .unwrap_or(Self::Other)
    }

    fn plt(expression: &[u8]) -> Option<Self> {
        let inner = expression.strip_prefix(PLT_HEAD)?;
        let &[literal] = inner.strip_suffix(PLT_TAIL)? else {
            return None;
        };
        (DW_OP_LIT0..=DW_OP_LIT15)
            .contains(&literal)
            .then_some(Self::Plt {
                threshold: literal & 15,
            })
    }

    fn deref(expression: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(expression);
        let (register, offset) = base_register(&mut cursor)?;
        let mut operation = cursor.u8()?;
        let index = if operation == DW_OP_DEREF {
            None
        } else {
            let (index, 0) = register_behind(operation, &mut cursor)? else {
                return None;
            };
            let scaled = [DW_OP_LIT8, DW_OP_MUL, DW_OP_PLUS];
            if register != number::RSP || cursor.bytes(3)? != scaled {
                return None;
            }
            operation = cursor.u8()?;
            Some(index)
        };
        if operation != DW_OP_DEREF {
            return None;
        }
        let mut plus = 0;
        if !cursor.is_empty() {
            if cursor.u8()? != DW_OP_PLUS_UCONST {
                return None;
            }
            plus = u32::try_from(cursor.uleb128()?).ok()?;
        }
        cursor.is_empty().then_some(match index {
            None => Self::Deref {
                register,
                offset,
                plus,
            },
            Some(index) => Self::DerefIndexed {
                index,
                offset,
                plus,
            },
        })
    }
}

/// The register and offset of an expression that is one `DW_OP_bregN offset`.
pub(super) fn register_plus(expression: &[u8]) -> Option<(u8, i32)> {
    let mut cursor = Cursor::new(expression);
    let base = base_register(&mut cursor)?;
    cursor.is_empty().then_some(base)
}

fn base_register(cursor: &mut Cursor<'_>) -> Option<(u8, i32)> {
    let operation = cursor.u8()?;
    register_behind(operation, cursor)
}

fn register_behind(operation: u8, cursor: &mut Cursor<'_>) -> Option<(u8, i32)> {
    if !(DW_OP_BREG0..=DW_OP_BREG15).contains(&operation) {
        return None;
    }
    let offset = i32::try_from(cursor.sleb128()?).ok()?;
    Some((operation & number::R15, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_recognized() {
        let plt = [
            0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22,
        ];
        assert_eq!(
            CfaExpression::recognize(&plt),
            CfaExpression::Plt { threshold: 11 }
        );
        assert_eq!(
            CfaExpression::recognize(&[0x76, 0x70, 0x06]),
            CfaExpression::Deref {
                register: number::RBP,
                offset: -16,
                plus: 0
            }
        );
        assert_eq!(
            CfaExpression::recognize(&[0x77, 0x88, 0x01, 0x06, 0x23, 0x08]),
            CfaExpression::Deref {
                register: number::RSP,
                offset: 136,
                plus: 8
            }
        );
        assert_eq!(
            CfaExpression::recognize(&[0x77, 0x08, 0x79, 0x00, 0x38, 0x1e, 0x22, 0x06, 0x23, 0x08]),
            CfaExpression::DerefIndexed {
                index: number::R9,
                offset: 8,
                plus: 8
            }
        );
        assert_eq!(register_plus(&[0x76, 0x78]), Some((number::RBP, -8)));
    }

    #[test]
    fn anything_longer_or_shorter_is_something_else() {
        for expression in [
            &[][..],
            &[0x76],
            &[0x76, 0x70],
            &[0x76, 0x70, 0x06, 0x06],
            &[0x76, 0x70, 0x06, 0x23, 0x08, 0x23, 0x08],
            &[
                0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x40, 0x2a, 0x33, 0x24, 0x22,
            ],
            &[0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x2a, 0x33, 0x24, 0x22],
            // Another scale, a displaced index, another base.
            &[0x77, 0x08, 0x79, 0x00, 0x34, 0x1e, 0x22, 0x06],
            &[0x77, 0x08, 0x79, 0x08, 0x38, 0x1e, 0x22, 0x06],
            &[0x76, 0x08, 0x79, 0x00, 0x38, 0x1e, 0x22, 0x06],
        ] {
            assert_eq!(CfaExpression::recognize(expression), CfaExpression::Other);
        }
        assert_eq!(register_plus(&[0x76, 0x78, 0x06]), None);
    }
}
