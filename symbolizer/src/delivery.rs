//! Named windows on their way to the shipper: kept until it took them, the oldest dropped when there are too many. Owns
//! the account of that edge; sends nothing itself.

use std::collections::{BTreeMap, VecDeque};

use ipc_proto::ids::WindowId;
use ipc_proto::symbolized::SymbolizedMessage;

/// Windows that may wait.
const MAX_WINDOWS: usize = 64;
/// Bytes of the windows that may wait, estimated; the newest is kept even when it alone is larger.
const MAX_BYTES: usize = 32 << 20;
/// Windows sent and not taken yet: the shipper has them in its socket or its hands.
const MAX_UNDER_WAY: usize = 4;

/// A window off our account: what the sampler is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) window: WindowId,
    /// Which sampler's.
    pub(crate) generation: u32,
    /// Samples received for it.
    pub(crate) samples: u64,
}

#[derive(Debug)]
struct Outgoing {
    settled: Settled,
    /// Samples in the message: those received without those dropped here.
    carried: u64,
    message: SymbolizedMessage,
    bytes: usize,
    sent: bool,
}

/// Samples on the edge to the shipper: produced = delivered + dropped + those in windows and in the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Samples received from the sampler.
    pub(crate) produced: u64,
    /// Samples the shipper took.
    pub(crate) delivered: u64,
    /// Samples dropped here, by cause.
    pub(crate) dropped: BTreeMap<&'static str, u64>,
}

impl Account {
    /// Counts samples as dropped.
    pub(crate) fn drop_samples(&mut self, cause: &'static str, samples: u64) {
        if samples > 0 {
            *self.dropped.entry(cause).or_default() += samples;
        }
    }

    /// Samples neither delivered nor dropped yet.
    pub(crate) fn queued(&self) -> u64 {
        let dropped: u64 = self.dropped.values().sum();
        self.produced
            .saturating_sub(self.delivered.saturating_add(dropped))
    }
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    queue: VecDeque<Outgoing>,
    bytes: usize,
    pub(crate) account: Account,
}

impl Delivery {
    /// Queues a window; returns those dropped for it.
    pub(crate) fn push(
        &mut self,
        settled: Settled,
        carried: u64,
        message: SymbolizedMessage,
    ) -> Vec<Settled> {
        let SymbolizedMessage::Batch(batch) = &message;
        let strings: usize = batch
            .strings
            .0
            .iter()
            .map(|text| text.0.capacity() + 24)
            .sum();
        let bytes = strings
            + batch.locations.0.len() * 96
            + batch.mappings.0.len() * 80
            + batch
                .samples
                .0
                .iter()
                .map(|sample| 72 + 4 * sample.locations.0.len())
                .sum::<usize>();
        self.bytes += bytes;
        self.queue.push_back(Outgoing {
            settled,
            carried,
            message,
            bytes,
            sent: false,
        });
        let mut dropped = Vec::new();
        while self.queue.len() > 1 && (self.queue.len() > MAX_WINDOWS || self.bytes > MAX_BYTES) {
            if let Some(oldest) = self.queue.pop_front() {
                self.bytes -= oldest.bytes;
                let cause = if oldest.sent {
                    "shipper_slow"
                } else {
                    "shipper_away"
                };
                self.account.drop_samples(cause, oldest.carried);
                dropped.push(oldest.settled);
            }
        }
        dropped
    }

    /// The message to send next.
    pub(crate) fn next(&self) -> Option<&SymbolizedMessage> {
        let under_way = self
            .queue
            .iter()
            .take_while(|outgoing| outgoing.sent)
            .count();
        if under_way >= MAX_UNDER_WAY {
            return None;
        }
        self.queue.get(under_way).map(|outgoing| &outgoing.message)
    }

    /// That message went.
    pub(crate) fn sent(&mut self) {
        if let Some(next) = self.queue.iter_mut().find(|outgoing| !outgoing.sent) {
            next.sent = true;
        }
    }

    /// The shipper took a window.
    pub(crate) fn taken(&mut self, window: WindowId) -> Option<Settled> {
        let position = self
            .queue
            .iter()
            .position(|outgoing| outgoing.sent && outgoing.settled.window == window)?;
        let taken = self.queue.remove(position)?;
        self.bytes -= taken.bytes;
        self.account.delivered = self.account.delivered.saturating_add(taken.carried);
        Some(taken.settled)
    }

    /// The link broke: what was sent and not taken goes again. The shipper stores a window it got twice once.
    pub(crate) fn link_down(&mut self) {
        for outgoing in &mut self.queue {
            outgoing.sent = false;
        }
    }

    /// Gives up what waits, at the end.
    pub(crate) fn give_up(&mut self) -> Vec<Settled> {
        let queue = std::mem::take(&mut self.queue);
        self.bytes = 0;
        queue
            .into_iter()
            .map(|outgoing| {
                self.account.drop_samples("shutdown", outgoing.carried);
                outgoing.settled
            })
            .collect()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Windows that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use ipc_proto::codec::List;
    use ipc_proto::symbolized::{SymbolizedBatch, SymbolizedSample};

    use super::*;

    fn settled(window: u64) -> Settled {
        Settled {
            window: WindowId(window),
            generation: 1,
            samples: 10,
        }
    }

    fn push(delivery: &mut Delivery, window: u64, frames: usize) -> Vec<Settled> {
        let sample = SymbolizedSample {
            count: 10,
            locations: List(vec![0; frames]),
            ..SymbolizedSample::default()
        };
        let batch = SymbolizedBatch {
            window: WindowId(window),
            samples: List(vec![sample]),
            ..SymbolizedBatch::default()
        };
        delivery.account.produced += 10;
        delivery.push(settled(window), 10, SymbolizedMessage::Batch(batch))
    }

    fn next(delivery: &Delivery) -> Option<u64> {
        delivery
            .next()
            .map(|SymbolizedMessage::Batch(batch)| batch.window.0)
    }

    #[test]
    fn a_window_stays_until_it_is_taken_and_goes_again_after_a_break() {
        let mut delivery = Delivery::default();
        for window in 0..3 {
            assert!(push(&mut delivery, window, 1).is_empty());
        }
        assert_eq!(next(&delivery), Some(0));
        delivery.sent();
        assert_eq!(next(&delivery), Some(1));
        delivery.sent();
        assert_eq!(delivery.taken(WindowId(0)), Some(settled(0)));
        assert_eq!(delivery.taken(WindowId(0)), None);
        assert_eq!(delivery.taken(WindowId(2)), None, "not sent yet");
        delivery.link_down();
        assert_eq!(next(&delivery), Some(1));
        assert_eq!(delivery.len(), 2);
        assert_eq!(delivery.account.queued(), 20);
        assert_eq!(delivery.give_up(), [settled(1), settled(2)]);
        let account = &delivery.account;
        assert_eq!(
            (account.produced, account.delivered, account.queued()),
            (30, 10, 0)
        );
    }

    #[test]
    fn the_oldest_is_dropped_by_number_and_by_bytes() {
        let mut delivery = Delivery::default();
        for window in 0..MAX_WINDOWS as u64 {
            assert!(push(&mut delivery, window, 1).is_empty());
        }
        assert_eq!(push(&mut delivery, 1000, 1), [settled(0)]);
        let dropped = push(&mut delivery, 1001, MAX_BYTES);
        assert_eq!(dropped.len(), MAX_WINDOWS);
        assert_eq!((delivery.len(), next(&delivery)), (1, Some(1001)));
        let dropped: u64 = delivery.account.dropped.values().sum();
        assert_eq!(dropped, 10 * (MAX_WINDOWS as u64 + 1));
    }

    #[test]
    fn only_so_many_are_under_way() {
        let mut delivery = Delivery::default();
        for window in 0..10 {
            push(&mut delivery, window, 1);
        }
        for _ in 0..MAX_UNDER_WAY {
            assert!(delivery.next().is_some());
            delivery.sent();
        }
        assert_eq!(next(&delivery), None);
        delivery.taken(WindowId(2));
        assert_eq!(next(&delivery), Some(MAX_UNDER_WAY as u64));
    }
}
