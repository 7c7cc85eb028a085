//! Symbolizer and debuginfo-uploader: executables offered, and what became of them.

use crate::codec::Bytes;
use crate::ids::BuildId;
use crate::limits::MAX_PATH;
use crate::{messages, wire_enum, wire_struct};

messages! {
    /// What the symbolizer says.
    pub enum OfferMessage {
        /// With one fd: the executable, read-only.
        Offer(DebuginfoOffer) = 1,
    }
}

messages! {
    /// What the uploader answers.
    pub enum VerdictMessage {
        /// Each offer gets one.
        Verdict(DebuginfoVerdict) = 1,
    }
}

wire_struct! {
    /// An executable seen for the first time.
    pub struct DebuginfoOffer {
        /// Its build ID.
        pub build_id: BuildId,
        /// Path, for logs.
        pub path: Bytes<MAX_PATH>,
        /// Size in bytes.
        pub size: u64,
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
        /// Too many under way: offer again later.
        Busy = 4 => "busy",
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
