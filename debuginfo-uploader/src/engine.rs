//! The uploader's decisions: which offers are wanted, and their count.

use std::collections::{BTreeMap, HashSet, VecDeque};

use ipc_proto::debuginfo::{DebuginfoOffer, Verdict};
use ipc_proto::ids::BuildId;

use crate::offered_file::Fault;

/// Build IDs remembered; the oldest are forgotten first, and may then be offered again.
const MAX_KNOWN: usize = 16 * 1024;
/// Fewer bytes would not tell files apart.
const MIN_BUILD_ID: usize = 4;

/// The engine.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    known: HashSet<BuildId>,
    order: VecDeque<BuildId>,
    /// Offers by verdict.
    pub(crate) verdicts: BTreeMap<&'static str, u64>,
    /// Bytes of the distinct executables offered.
    pub(crate) bytes: u64,
}

impl Engine {
    /// An offer came with a file of which `checked` is known.
    pub(crate) fn on_offer(
        &mut self,
        offer: &DebuginfoOffer,
        checked: Result<(), Fault>,
    ) -> Verdict {
        let verdict = self.judge(offer, checked);
        *self.verdicts.entry(verdict.name()).or_default() += 1;
        verdict
    }

    fn judge(&mut self, offer: &DebuginfoOffer, checked: Result<(), Fault>) -> Verdict {
        if let Err(fault) = checked {
            log::warn!("{} refused: {fault}", offer.path.text());
            return Verdict::Refused;
        }
        if offer.build_id.0.len() < MIN_BUILD_ID {
            return Verdict::Refused;
        }
        if !self.known.insert(offer.build_id.clone()) {
            return Verdict::Known;
        }
        self.order.push_back(offer.build_id.clone());
        self.bytes = self.bytes.saturating_add(offer.size);
        if self.known.len() > MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        // There is no store that could want it.
        Verdict::NotWanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_proto::codec::Bytes;

    fn offer(build_id: &[u8]) -> DebuginfoOffer {
        DebuginfoOffer {
            build_id: Bytes(build_id.to_vec()),
            path: Bytes(b"/bin/x".to_vec()),
            size: 10,
            debug_size: 0,
        }
    }

    #[test]
    fn each_build_id_counts_once() {
        let mut engine = Engine::default();
        assert_eq!(engine.on_offer(&offer(b"abcd"), Ok(())), Verdict::NotWanted);
        assert_eq!(engine.on_offer(&offer(b"abcd"), Ok(())), Verdict::Known);
        assert_eq!(engine.on_offer(&offer(b"abce"), Ok(())), Verdict::NotWanted);
        assert_eq!(engine.bytes, 20);
        let counts: Vec<_> = engine.verdicts.into_iter().collect();
        assert_eq!(counts, [("known", 1), ("not_wanted", 2)]);
    }

    #[test]
    fn a_bad_file_does_not_make_its_build_id_known() {
        let mut engine = Engine::default();
        let refused = engine.on_offer(&offer(b"abcd"), Err(Fault::Format));
        assert_eq!(refused, Verdict::Refused);
        assert_eq!(engine.on_offer(&offer(b"abcd"), Ok(())), Verdict::NotWanted);
        assert_eq!(engine.on_offer(&offer(b""), Ok(())), Verdict::Refused);
    }

    #[test]
    fn memory_is_bounded() {
        let mut engine = Engine::default();
        for number in 0..2 * MAX_KNOWN as u32 {
            engine.on_offer(&offer(&number.to_le_bytes()), Ok(()));
        }
        assert_eq!(
            (engine.known.len(), engine.order.len()),
            (MAX_KNOWN, MAX_KNOWN)
        );
        let first = engine.on_offer(&offer(&0u32.to_le_bytes()), Ok(()));
        assert_eq!(first, Verdict::NotWanted, "forgotten");
    }
}
