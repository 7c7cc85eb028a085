//! The identities that cross process borders.

use crate::codec::{Bytes, DecodeError, Reader, Wire, Writer};
use crate::limits::MAX_BUILD_ID;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl Wire for $name {
            fn encode(&self, writer: &mut Writer) {
                self.0.encode(writer);
            }
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                <$inner>::decode(reader).map(Self)
            }
        }
    };
}

id!(
    /// A user-visible process id (the kernel's tgid).
    Pid(u32)
);
id!(
    /// A user-visible thread id (the kernel's pid).
    Tid(u32)
);
id!(
    /// One program image of one process: a new one with each exec. Given by the sampler, never reused.
    ImageId(u64)
);
id!(
    /// An executable while the sampler runs; also the number of its unwind table. Given by the sampler, never reused.
    ExecutableId(u32)
);
id!(
    /// A window, counted from the sampler's start.
    WindowId(u64)
);

/// The build-id note's bytes.
pub type BuildId = Bytes<MAX_BUILD_ID>;
