//! Symbolizer and debuginfo-uploader: executables offered, and what became of them.

use crate::codec::Bytes;
use crate::ids::BuildId;
use crate::limits::MAX_PATH;
use crate::{messages, wire_enum, wire_struct};

messages! {
    /// What the symbolizer says.
    pub enum OfferMessage {
        /// With one fd: the executable, read-only; and a second one where it has a separate debug file.
        Offer(DebuginfoOffer) = 1,
    }
}

messages! {
    /// What the uploader answers.
    pub enum VerdictMessage {
        /// Each offer gets one at once, and perhaps a later one: [`Verdict::Busy`].
        Verdict(DebuginfoVerdict) = 1,
        /// Says how many offers more are welcome; without it none is.
        Room(OfferRoom) = 2,
    }
}

wire_struct! {
    /// An executable seen for the first time.
    pub struct DebuginfoOffer {
        /// Its build ID, by which profiles name it too.
        pub build_id: BuildId,
        /// Path, for logs.
        pub path: Bytes<MAX_PATH>,
        /// Size in bytes.
        pub size: u64,
        /// Size of the debug file in bytes; 0: there is none.
        pub debug_size: u64,
    }
}

wire_enum! {
    /// What the uploader does with an offer.
    pub enum Verdict {
        /// Taken.
        Accepted = 0 => "accepted",
        /// That build ID was offered before.
        Known = 1 => "known",
        /// No store is configured, or uploads are disabled.
        NotWanted = 2 => "not_wanted",
        /// The file is not what the offer says: not regular, not ELF, another size, writable.
        Refused = 3 => "refused",
        /// No room for it, or the store was away for too long: offer it again when there is room.
        Busy = 4 => "busy",
    }
}

wire_struct! {
    /// Room for offers, beyond what was said before on this link.
    pub struct OfferRoom {
        /// So many offers more.
        pub offers: u32,
    }
}

wire_struct! {
    /// The answer to an offer.
    pub struct DebuginfoVerdict {
        /// The offer's build ID.
        pub build_id: BuildId,
        /// A [`Verdict`] number.
        pub verdict: u8,
    }
}
