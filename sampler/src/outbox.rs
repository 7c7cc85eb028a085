//! What waits to be sent to the symbolizer: bounded in bytes, so that a slow one costs samples, never memory.

use std::collections::VecDeque;

use ipc_proto::header::Message;
use ipc_proto::sample::SamplerMessage;

/// Bytes of messages with samples that may wait.
const MAX_SAMPLE_BYTES: usize = 16 << 20;
/// Messages without samples that may wait: images, mappings, executables, window ends.
const MAX_OTHERS: usize = 1 << 17;

/// A message and the samples that travel with it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: SamplerMessage,
    pub(crate) samples: u64,
    bytes: usize,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Outgoing>,
    sample_bytes: usize,
    samples: u64,
    others: usize,
}

impl Outbox {
    /// Queues a message; `false`: there is no room for it.
    pub(crate) fn push(&mut self, message: SamplerMessage, samples: u64) -> bool {
        let bytes = if samples > 0 {
            message.encode_body().len()
        } else {
            0
        };
        if samples > 0 && self.sample_bytes + bytes > MAX_SAMPLE_BYTES
            || samples == 0 && self.others >= MAX_OTHERS
        {
            return false;
        }
        self.sample_bytes += bytes;
        self.samples += samples;
        self.others += usize::from(samples == 0);
        self.queue.push_back(Outgoing {
            message,
            samples,
            bytes,
        });
        true
    }

    /// Puts messages without samples before all others, in their order: a new symbolizer must hear them first.
    pub(crate) fn push_front(&mut self, messages: Vec<SamplerMessage>) {
        for message in messages.into_iter().rev() {
            self.others += 1;
            self.queue.push_front(Outgoing {
                message,
                samples: 0,
                bytes: 0,
            });
        }
    }

    /// Forgets what only the last symbolizer was to hear: a new one is told anew.
    pub(crate) fn forget_announcements(&mut self) {
        self.queue.retain(|outgoing| {
            outgoing.samples > 0 || matches!(outgoing.message, SamplerMessage::WindowEnd(_))
        });
        self.others = self
            .queue
            .iter()
            .filter(|outgoing| outgoing.samples == 0)
            .count();
    }

    /// The message to send next.
    pub(crate) fn front_mut(&mut self) -> Option<&mut Outgoing> {
        self.queue.front_mut()
    }

    /// The first message was sent.
    pub(crate) fn pop(&mut self) {
        if let Some(outgoing) = self.queue.pop_front() {
            self.sample_bytes -= outgoing.bytes;
            self.samples -= outgoing.samples;
            self.others -= usize::from(outgoing.samples == 0);
        }
    }

    /// Samples that wait.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
