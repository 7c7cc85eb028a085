//! One window's stacks: equal ones counted, bounded, and cut into batches at its end.

use std::collections::HashMap;

use ipc_proto::codec::{Bytes, List};
use ipc_proto::ids::{ImageId, Tid, WindowId};
use ipc_proto::limits::{MAX_FRAMES, MAX_INLINE};
use ipc_proto::sample::{CountedStack, Frame, SampleBatch};

/// Bytes of distinct stacks that a window holds at most.
const MAX_BYTES: usize = 48 * 1024 * 1024;
/// Bytes of a batch before it is cut: with its header it stays one datagram.
const BATCH_BYTES: usize = MAX_INLINE - 4096 - 64 - 16 * MAX_FRAMES;

/// What two samples must have in common to be counted as one stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StackKey {
    pub(crate) image: ImageId,
    pub(crate) tid: u32,
    pub(crate) thread_name: Vec<u8>,
    pub(crate) cgroup: u64,
    pub(crate) stop: u8,
    pub(crate) kernel: Vec<u64>,
    /// Mapping index and address of each frame.
    pub(crate) user: Vec<(u32, u64)>,
}

impl StackKey {
    /// Upper bound of its encoding.
    fn bytes(&self) -> usize {
        64 + self.thread_name.len() + 8 * self.kernel.len() + 12 * self.user.len()
    }
}

/// The stacks counted so far.
#[derive(Debug, Default)]
pub(crate) struct Window {
    stacks: HashMap<StackKey, u64>,
    bytes: usize,
}

impl Window {
    /// Counts one sample; `false`: the window is full.
    pub(crate) fn count(&mut self, key: StackKey) -> bool {
        if let Some(count) = self.stacks.get_mut(&key) {
            *count += 1;
            return true;
        }
        if self.bytes + key.bytes() > MAX_BYTES {
            return false;
        }
        self.bytes += key.bytes();
        self.stacks.insert(key, 1);
        true
    }

    /// Empties the window into batches that fit a datagram, each with its samples' number.
    pub(crate) fn take_batches(&mut self, window: WindowId) -> Vec<(SampleBatch, u64)> {
        self.bytes = 0;
        let mut batches = Vec::new();
        let mut stacks = Vec::new();
        let (mut bytes, mut samples) = (0, 0);
        for (key, count) in std::mem::take(&mut self.stacks) {
            if bytes + key.bytes() > BATCH_BYTES && !stacks.is_empty() {
                batches.push((
                    SampleBatch {
                        window,
                        stacks: List(std::mem::take(&mut stacks)),
                    },
                    samples,
                ));
                (bytes, samples) = (0, 0);
            }
            bytes += key.bytes();
            samples += count;
            stacks.push(counted(key, count));
        }
        if !stacks.is_empty() {
            batches.push((
                SampleBatch {
                    window,
                    stacks: List(stacks),
                },
                samples,
            ));
        }
        batches
    }
}

fn counted(key: StackKey, count: u64) -> CountedStack {
    let user = key
        .user
        .into_iter()
        .map(|(mapping, address)| Frame { mapping, address })
        .collect();
    CountedStack {
        image: key.image,
        tid: Tid(key.tid),
        thread_name: Bytes::cut(&key.thread_name),
        cgroup: key.cgroup,
        count,
        stop: key.stop,
        kernel: List(key.kernel),
        user: List(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc_proto::codec::Wire;

    fn key(tid: u32, frames: usize) -> StackKey {
        StackKey {
            image: ImageId(1),
            tid,
            thread_name: b"0123456789abcdef".to_vec(),
            cgroup: 1,
            stop: 1,
            kernel: vec![7; 127],
            user: vec![(3, 4); frames],
        }
    }

    #[test]
    fn equal_stacks_are_one() {
        let mut window = Window::default();
        for tid in [1, 2, 1, 1] {
            assert!(window.count(key(tid, 3)));
        }
        let batches = window.take_batches(WindowId(9));
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].1, 4);
        let mut counts: Vec<u64> = batches[0]
            .0
            .stacks
            .0
            .iter()
            .map(|stack| stack.count)
            .collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 3]);
        assert!(window.take_batches(WindowId(10)).is_empty());
    }

    #[test]
    fn batches_fit_a_datagram_and_lose_nothing() {
        let mut window = Window::default();
        for tid in 0..500 {
            assert!(window.count(key(tid, 1024)));
        }
        let batches = window.take_batches(WindowId(1));
        assert_eq!(batches.iter().map(|(_, samples)| samples).sum::<u64>(), 500);
        for (batch, _) in &batches {
            assert!(
                batch.to_bytes().len() <= MAX_INLINE - 16,
                "{} bytes",
                batch.to_bytes().len()
            );
        }
    }

    #[test]
    fn a_full_window_refuses() {
        let mut window = Window::default();
        let accepted = (0..100_000)
            .take_while(|tid| window.count(key(*tid, 1024)))
            .count();
        assert!(accepted > 1000 && accepted < 10_000, "{accepted}");
        assert!(window.count(key(0, 1024)), "a known stack still counts");
    }
}
