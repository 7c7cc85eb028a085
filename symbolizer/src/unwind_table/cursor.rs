//! Owns byte-wise reading of call frame information: fixed-width integers, LEB128 and encoded pointers. Every read
//! is checked and takes from the front; nothing here allocates or panics.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

/// The bytes that are still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

/// What relative pointers are relative to (LSB Core, 10.5.1 "DWARF Exception Header Encoding").
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PointerBases {
    /// Address of `.text`.
    pub text: Option<u64>,
    /// Address of `.got` (for `.eh_frame`) or of the section itself (for `.eh_frame_hdr`).
    pub data: Option<u64>,
}

/// `DW_EH_PE_*`.
pub(super) mod encoding {
    pub(in super::super) const ABSOLUTE: u8 = 0x00;
    pub(in super::super) const OMIT: u8 = 0xff;
    pub(in super::super) const FORMAT: u8 = 0x0f;
    pub(in super::super) const APPLICATION: u8 = 0x70;
    pub(in super::super) const INDIRECT: u8 = 0x80;
    pub(in super::super) const PCREL: u8 = 0x10;
    pub(in super::super) const TEXTREL: u8 = 0x20;
    pub(in super::super) const DATAREL: u8 = 0x30;
    pub(in super::super) const ALIGNED: u8 = 0x50;
    pub(in super::super) const PCREL_SDATA4: u8 = 0x1b;
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline(always)]
    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    pub(super) const fn is_empty(self) -> bool {
        self.rest.is_empty()
    }

    #[inline(always)]
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>()?;
        self.rest = tail;
        Some(*head)
    }

    #[inline(always)]
    pub(super) fn u8(&mut self) -> Option<u8> {
        let (&head, tail) = self.rest.split_first()?;
        self.rest = tail;
        Some(head)
    }

    #[inline(always)]
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    #[inline(always)]
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    #[inline(always)]
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    /// The next `count` bytes.
    #[inline(always)]
    pub(super) fn bytes(&mut self, count: u64) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(usize::try_from(count).ok()?)?;
        self.rest = tail;
        Some(head)
    }

    /// Bytes up to a zero, which is taken too.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.rest.iter().position(|&byte| byte == 0)?;
        let string = self.bytes(length as u64)?;
        self.u8()?;
        Some(string)
    }

    /// An unsigned LEB128; `None` when it does not fit 64 bits.
    #[inline(always)]
    pub(super) fn uleb128(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        self.long_uleb128(first)
    }

    fn long_uleb128(&mut self, first: u8) -> Option<u64> {
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7_u32;
        loop {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits.checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
            shift = shift.checked_add(7)?;
        }
    }

    /// A signed LEB128; `None` when it does not fit 64 bits.
    #[inline(always)]
    pub(super) fn sleb128(&mut self) -> Option<i64> {
        let first = self.u8()?;
        if first < 0x80 {
            return Some(i64::from((first << 1) as i8 >> 1));
        }
        self.long_sleb128(first)
    }

    fn long_sleb128(&mut self, first: u8) -> Option<i64> {
        let mut value = i64::from(first & 0x7f);
        let mut shift = 7_u32;
        loop {
            let byte = self.u8()?;
            let bits = byte & 0x7f;
            if shift == 63 && bits != 0 && bits != 0x7f {
                return None;
            }
            value |= i64::from(bits).checked_shl(shift)?;
            shift = shift.checked_add(7)?;
            if byte < 0x80 {
                if byte & 0x40 != 0 && shift < 64 {
                    value |= (-1_i64).checked_shl(shift)?;
                }
                return Some(value);
            }
        }
    }

    /// A pointer in `DW_EH_PE_*` encoding that stands at `address`; `None` also for encodings that need memory
    /// (indirect) or a base that is not known.
    #[inline(always)]
    pub(super) fn pointer(
        &mut self,
        encoding: u8,
        address: u64,
        bases: &PointerBases,
    ) -> Option<u64> {
        if encoding == encoding::PCREL_SDATA4 {
            let offset = self.u32()? as i32;
            return Some(address.wrapping_add(i64::from(offset) as u64));
        }
        self.rare_pointer(encoding, address, bases)
    }

    fn rare_pointer(&mut self, encoding: u8, address: u64, bases: &PointerBases) -> Option<u64> {
        if encoding & encoding::INDIRECT != 0 {
            return None;
        }
        let base = match encoding & encoding::APPLICATION {
            encoding::ABSOLUTE => 0,
            encoding::PCREL => address,
            encoding::TEXTREL => bases.text?,
            encoding::DATAREL => bases.data?,
            encoding::ALIGNED => {
                self.bytes(address.wrapping_neg() & 7)?;
                return self.u64();
            }
            _ => return None,
        };
        Some(base.wrapping_add(self.value(encoding)?))
    }

    /// A number in the format of a pointer encoding, sign-extended where the format is signed.
    #[inline(always)]
    pub(super) fn value(&mut self, encoding: u8) -> Option<u64> {
        match encoding & encoding::FORMAT {
            0x00 | 0x04 | 0x0c => self.u64(),
            0x01 => self.uleb128(),
            0x02 => self.u16().map(u64::from),
            0x03 => self.u32().map(u64::from),
            0x09 => self.sleb128().map(|value| value as u64),
            0x0a => self.u16().map(|value| i64::from(value as i16) as u64),
            0x0b => self.u32().map(|value| i64::from(value as i32) as u64),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn leb128_agrees_with_dwarf_examples() {
        for (bytes, value) in [(&[2][..], 2), (&[0x80, 1], 128), (&[0xb9, 0x64], 12857)] {
            assert_eq!(Cursor::new(bytes).uleb128(), Some(value));
        }
        for (bytes, value) in [
            (&[0x7e][..], -2),
            (&[0xff, 0], 127),
            (&[0x81, 0x7f], -127),
            (&[0x80, 0x7f], -128),
        ] {
            assert_eq!(Cursor::new(bytes).sleb128(), Some(value));
        }
        assert_eq!(Cursor::new(&[0xff; 40]).uleb128(), None);
        assert_eq!(Cursor::new(&[0xff; 40]).sleb128(), None);
        assert_eq!(Cursor::new(&[0x80]).uleb128(), None);
    }

    #[test]
    fn an_aligned_pointer_skips_to_the_next_multiple_of_eight() {
        let bytes = [0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        let pointer =
            Cursor::new(&bytes).pointer(encoding::ALIGNED, 0x1005, &PointerBases::default());
        assert_eq!(pointer, Some(9));
    }

    proptest! {
        #[test]
        fn leb128_agrees_with_gimli(bytes in proptest::collection::vec(any::<u8>(), 0..14)) {
            use gimli::Reader as _;
            let reader = gimli::EndianSlice::new(&bytes, gimli::LittleEndian);
            let unsigned = Cursor::new(&bytes).uleb128();
            prop_assert_eq!(unsigned, reader.clone().read_uleb128().ok());
            let signed = Cursor::new(&bytes).sleb128();
            prop_assert_eq!(signed, reader.clone().read_sleb128().ok());
        }
    }
}
