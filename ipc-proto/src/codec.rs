//! Checked little-endian encoding: a cursor that never panics and never allocates more than its input could fill.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]

use thiserror::Error;

/// What was malformed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("message ends {missing} bytes early")]
    Truncated {
        /// Bytes that the value needs beyond the end.
        missing: usize,
    },
    /// Bytes stand behind the last value.
    #[error("{0} bytes behind the message's end")]
    Trailing(usize),
    /// A list or string is longer than its bound.
    #[error("list of {length} entries, at most {max} allowed")]
    TooLong {
        /// Length announced.
        length: usize,
        /// Length allowed.
        max: usize,
    },
    /// An enum's number is not one of its own.
    #[error("unknown {kind} {number}")]
    UnknownNumber {
        /// Which enum.
        kind: &'static str,
        /// The number found.
        number: u32,
    },
    /// A value is outside its range.
    #[error("{what} out of range: {value}")]
    OutOfRange {
        /// Which value.
        what: &'static str,
        /// What it was.
        value: u64,
    },
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Number of bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Takes values from a buffer.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(DecodeError::Truncated {
                missing: count.saturating_sub(self.rest.len()),
            }),
        }
    }

    /// Bytes not yet taken.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`].
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing(self.rest.len()))
        }
    }
}

/// A value with one encoding.
pub trait Wire: Sized {
    /// Appends the value.
    fn encode(&self, writer: &mut Writer);
    /// Takes a value.
    ///
    /// # Errors
    /// What was malformed; the reader's position is then unspecified.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The value's bytes.
    #[must_use]
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.encode(&mut writer);
        writer.into_bytes()
    }

    /// The value that fills `bytes` exactly.
    ///
    /// # Errors
    /// What was malformed.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn encode(&self, writer: &mut Writer) {
                writer.put(&self.to_le_bytes());
            }
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let taken = reader.take(size_of::<Self>())?;
                let bytes = taken.try_into().map_err(|_size| DecodeError::Truncated { missing: 0 })?;
                Ok(Self::from_le_bytes(bytes))
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, i64, f64);

impl Wire for bool {
    fn encode(&self, writer: &mut Writer) {
        u8::from(*self).encode(writer);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::decode(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            number => Err(DecodeError::UnknownNumber {
                kind: "bool",
                number: number.into(),
            }),
        }
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn encode(&self, writer: &mut Writer) {
        writer.put(self);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader
            .take(N)?
            .try_into()
            .map_err(|_size| DecodeError::Truncated { missing: 0 })
    }
}

/// At most `MAX` bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes<const MAX: usize>(pub Vec<u8>);

impl<const MAX: usize> Bytes<MAX> {
    /// The first `MAX` bytes of `bytes`.
    #[must_use]
    pub fn cut(bytes: &[u8]) -> Self {
        Self(bytes.get(..MAX).unwrap_or(bytes).to_vec())
    }

    /// The bytes as text, what is no UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl<const MAX: usize> Wire for Bytes<MAX> {
    fn encode(&self, writer: &mut Writer) {
        debug_assert!(self.0.len() <= MAX, "longer than its bound");
        (self.0.len() as u32).encode(writer);
        writer.put(&self.0);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = u32::decode(reader)? as usize;
        if length > MAX {
            return Err(DecodeError::TooLong { length, max: MAX });
        }
        Ok(Self(reader.take(length)?.to_vec()))
    }
}

/// Values of a list that room is made for at once.
const FIRST_CAPACITY: usize = 1024;

/// At most `MAX` values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Wire, const MAX: usize> Wire for List<T, MAX> {
    fn encode(&self, writer: &mut Writer) {
        debug_assert!(self.0.len() <= MAX, "longer than its bound");
        (self.0.len() as u32).encode(writer);
        for value in &self.0 {
            value.encode(writer);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = u32::decode(reader)? as usize;
        if length > MAX {
            return Err(DecodeError::TooLong { length, max: MAX });
        }
        // Every value takes at least one byte, but more in memory: what a message announces is not allocated before
        // it came.
        let mut values = Vec::with_capacity(length.min(reader.remaining()).min(FIRST_CAPACITY));
        for _ in 0..length {
            values.push(T::decode(reader)?);
        }
        Ok(Self(values))
    }
}

/// Declares a struct whose encoding is its fields in order.
#[macro_export]
macro_rules! wire_struct {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl $crate::codec::Wire for $name {
            fn encode(&self, writer: &mut $crate::codec::Writer) {
                let Self { $($field,)* } = self;
                $($crate::codec::Wire::encode($field, writer);)*
            }
            fn decode(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                $(let $field = <$type as $crate::codec::Wire>::decode(reader)?;)*
                Ok(Self { $($field,)* })
            }
        }
    };
}

/// Declares a fieldless enum encoded as a `u8`.
#[macro_export]
macro_rules! wire_enum {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant = $number,)* }

        impl $name {
            /// All values in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name used in logs, metrics and arguments.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The value of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl $crate::codec::Wire for $name {
            fn encode(&self, writer: &mut $crate::codec::Writer) {
                (*self as u8).encode(writer);
            }
            fn decode(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::DecodeError> {
                match u8::decode(reader)? {
                    $($number => Ok(Self::$variant),)*
                    number => Err($crate::codec::DecodeError::UnknownNumber { kind: stringify!($name), number: number.into() }),
                }
            }
        }
    };
}

/// Declares an enum of messages: each variant holds one wire type and has a number for the header.
#[macro_export]
macro_rules! messages {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident($type:ty) = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name { $($(#[$variant_doc])* $variant($type),)* }

        impl $crate::header::Message for $name {
            fn number(&self) -> u16 {
                match self { $(Self::$variant(_) => $number,)* }
            }
            fn encode_body(&self) -> Vec<u8> {
                match self { $(Self::$variant(message) => $crate::codec::Wire::to_bytes(message),)* }
            }
            fn decode_body(number: u16, body: &[u8]) -> Result<Self, $crate::codec::DecodeError> {
                match number {
                    $($number => <$type as $crate::codec::Wire>::from_bytes(body).map(Self::$variant),)*
                    number => Err($crate::codec::DecodeError::UnknownNumber { kind: stringify!($name), number: number.into() }),
                }
            }
        }
    };
}
