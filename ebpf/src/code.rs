//! What the instructions around an address tell: how a thread came there, and what it has put on its stack.

/// Whether the eight bytes before a return address, little endian, end with a call instruction.
///
/// Intel SDM, volume 2, "CALL": E8 with 32 bits of distance, or FF /2 with any operand. Prefixes stand before these.
#[inline(always)]
#[must_use]
pub fn ends_with_call(bytes: u64) -> bool {
    // The nth byte before the return address.
    let byte = |nth: u32| bytes >> (64 - 8 * nth) & 0xff;
    let is_call = |length: u32| byte(length) == 0xff && byte(length - 1) >> 3 & 7 == 2;
    let form = |length: u32| (byte(length - 1) >> 6, byte(length - 1) & 7);
    if byte(5) == 0xe8 {
        return true;
    }
    // call *reg, *(reg)
    if is_call(2) {
        let (mode, operand) = form(2);
        if mode == 3 || mode == 0 && operand != 4 && operand != 5 {
            return true;
        }
    }
    // call *(reg, index), *disp8(reg)
    if is_call(3) {
        let (mode, operand) = form(3);
        if mode == 0 && operand == 4 && byte(1) & 7 != 5 || mode == 1 && operand != 4 {
            return true;
        }
    }
    // call *disp8(reg, index)
    if is_call(4) && form(4) == (1, 4) {
        return true;
    }
    // call *disp32(rip), *disp32(reg)
    if is_call(6) {
        let (mode, operand) = form(6);
        if mode == 0 && operand == 5 || mode == 2 && operand != 4 {
            return true;
        }
    }
    // call *disp32(reg, index), *disp32(, index)
    is_call(7) && {
        let (mode, operand) = form(7);
        operand == 4 && (mode == 2 || mode == 0 && byte(5) & 7 == 5)
    }
}

/// Whether the eight bytes before an address, little endian, end with `syscall` (0F 05).
#[inline(always)]
#[must_use]
pub fn ends_with_syscall(bytes: u64) -> bool {
    bytes >> 48 == 0x050f
}

/// Bytes between a thread's stack pointer and its return address, by the eight bytes of code that it stands before,
/// little endian: where a function that keeps a frame pointer has not made its frame yet, or not any more. `None`
/// elsewhere: there the frame pointer leads to it.
///
/// Intel SDM, volume 2: `push %rbp` (55), `mov %rsp,%rbp` (48 89 E5 or 48 8B EC), `ret` (C3, C2, and F3 C3 for old
/// branch predictors), each behind `endbr64` (F3 0F 1E FA) too.
#[inline(always)]
#[must_use]
pub fn frame_in_the_making(bytes: u64) -> Option<u64> {
    let bytes = if bytes as u32 == 0xfa1e_0ff3 {
        bytes >> 32
    } else {
        bytes
    };
    let first = bytes & 0xff;
    let three = bytes & 0x00ff_ffff;
    let is_entered = first == 0x55;
    let is_left = first == 0xc3 || first == 0xc2 || bytes & 0xffff == 0xc3f3;
    if is_entered || is_left {
        Some(0)
    } else if three == 0x00e5_8948 || three == 0x00ec_8b48 {
        Some(8)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(code: &[u8]) -> u64 {
        let mut bytes = [0x90; 8];
        bytes[8 - code.len()..].copy_from_slice(code);
        u64::from_le_bytes(bytes)
    }

    #[test]
    fn every_form_of_call_is_one() {
        for code in [
            &[0xe8, 0x0f, 0xf6, 0xfe, 0xff][..],
            &[0xff, 0xd0],
            &[0x41, 0xff, 0xd4],
            &[0xff, 0x10],
            &[0x41, 0xff, 0x17],
            &[0xff, 0x14, 0x24],
            &[0xff, 0x14, 0xc8],
            &[0xff, 0x50, 0x18],
            &[0xff, 0x54, 0x24, 0x08],
            &[0xff, 0x15, 0x00, 0x01, 0x02, 0x03],
            &[0x41, 0xff, 0x92, 0x00, 0x01, 0x00, 0x00],
            &[0xff, 0x94, 0x24, 0x00, 0x01, 0x00, 0x00],
            &[0xff, 0x14, 0xc5, 0x00, 0x10, 0x40, 0x00],
        ] {
            assert!(ends_with_call(before(code)), "{code:x?}");
        }
    }

    #[test]
    fn what_leads_nowhere_back_is_none() {
        for code in [
            // nopl 0(%rax); ret; jmp *%rbx; push %rbx; hlt; int3; jmp *disp32(rip); call *(%rsp) cut short.
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0][..],
            &[0xc3],
            &[0xff, 0xe3],
            &[0xff, 0xf3],
            &[0xf4],
            &[0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc],
            &[0xff, 0x25, 0, 0, 0, 0],
            &[0xff, 0x14],
            &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0],
        ] {
            assert!(!ends_with_call(before(code)), "{code:x?}");
        }
    }

    #[test]
    fn a_system_call_is_known_by_its_instruction() {
        let before = |code: [u8; 8]| ends_with_syscall(u64::from_le_bytes(code));
        // mov $0xca,%eax; syscall
        assert!(before([0, 0xb8, 0xca, 0, 0, 0, 0x0f, 0x05]));
        // ret; nopw: what stands before a function's first byte
        assert!(!before([0x05, 0xc3, 0x66, 0x0f, 0x1f, 0x44, 0, 0]));
        assert!(!before([0, 0, 0, 0, 0, 0, 0x05, 0x0f]));
    }

    #[test]
    fn first_and_last_instructions_say_where_the_return_address_is() {
        let at = |code: &[u8]| {
            let mut bytes = [0x90; 8];
            bytes[..code.len()].copy_from_slice(code);
            frame_in_the_making(u64::from_le_bytes(bytes))
        };
        for entry_or_exit in [
            &[0x55, 0x48, 0x89, 0xe5][..],
            &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5],
            &[0xc3],
            &[0xf3, 0xc3],
            &[0xc2, 0x08, 0x00],
        ] {
            assert_eq!(at(entry_or_exit), Some(0), "{entry_or_exit:x?}");
        }
        assert_eq!(at(&[0x48, 0x89, 0xe5]), Some(8));
        assert_eq!(at(&[0x48, 0x8b, 0xec]), Some(8));
        // leave; pop %rbp; mov %rbp,%rsp; push %rbx; endbr64 alone.
        for body in [
            &[0xc9, 0xc3][..],
            &[0x5d, 0xc3],
            &[0x48, 0x89, 0xec],
            &[0x53],
            &[0xf3, 0x0f, 0x1e, 0xfa],
        ] {
            assert_eq!(at(body), None, "{body:x?}");
        }
    }
}
