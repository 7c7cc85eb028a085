//! Windows under way: the stacks that arrived, the snapshots that still wait to be walked, and the account of both.
//! Decides when a window is complete; names nothing.

use std::collections::BTreeMap;

use ipc_proto::codec::List;
use ipc_proto::ids::{ExecutableId, WindowId};
use ipc_proto::sample::{CountedStack, Frame, Snapshot, WindowEnd};
use leadsman_ebpf::stop::StopReason;

/// Bytes of all windows' stacks and snapshots; more are dropped and counted.
const MAX_BYTES: usize = 48 << 20;
/// Snapshots that wait for a table or a file, over all windows; more are finished with what there is.
const MAX_WAITING: usize = 512;

/// A snapshot and the executable whose table it waits for.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) snapshot: Snapshot,
    pub(crate) missing: ExecutableId,
}

impl Waiting {
    /// Bytes that it holds.
    fn bytes(&self) -> usize {
        let snapshot = &self.snapshot;
        snapshot.stack.0.len() + snapshot.further.0.len() + size_of::<Self>()
    }
}

/// One window.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) id: WindowId,
    /// When its first sample came: its start, should its end never be told. CLOCK_MONOTONIC nanoseconds.
    pub(crate) opened: u64,
    /// Told by the sampler, and when.
    pub(crate) end: Option<(WindowEnd, u64)>,
    pub(crate) stacks: Vec<CountedStack>,
    pub(crate) waiting: Vec<Waiting>,
    /// Executables that its frames are in, once it ended.
    pub(crate) used: Vec<ExecutableId>,
    /// Samples received for it.
    pub(crate) received: u64,
    /// Of these, dropped here, by cause.
    pub(crate) dropped: BTreeMap<&'static str, u64>,
    bytes: usize,
}

impl Window {
    fn new(id: WindowId, now: u64) -> Self {
        Self {
            id,
            opened: now,
            end: None,
            stacks: Vec::new(),
            waiting: Vec::new(),
            used: Vec::new(),
            received: 0,
            dropped: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Counts samples of it as dropped.
    pub(crate) fn drop_samples(&mut self, cause: &'static str, samples: u64) {
        *self.dropped.entry(cause).or_default() += samples;
    }

    /// Samples dropped here.
    pub(crate) fn dropped_samples(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// All windows that were not handed on.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    open: BTreeMap<WindowId, Window>,
    bytes: usize,
}

impl Windows {
    fn entry(&mut self, id: WindowId, now: u64) -> &mut Window {
        self.open.entry(id).or_insert_with(|| Window::new(id, now))
    }

    /// A stack of a window, counted before.
    pub(crate) fn add(&mut self, id: WindowId, stack: CountedStack, now: u64) {
        let bytes = stack_bytes(&stack);
        let full = self.bytes + bytes > MAX_BYTES;
        let window = self.entry(id, now);
        window.received = window.received.saturating_add(stack.count);
        if full {
            window.drop_samples("symbolizer_memory", stack.count);
            return;
        }
        window.bytes += bytes;
        window.stacks.push(stack);
        self.bytes += bytes;
    }

    /// A snapshot arrived: its sample is on the window's account from now on.
    pub(crate) fn receive_snapshot(&mut self, id: WindowId, now: u64) {
        let window = self.entry(id, now);
        window.received = window.received.saturating_add(1);
    }

    /// A walked snapshot is a stack like others.
    pub(crate) fn finish(
        &mut self,
        snapshot: Snapshot,
        user: Vec<Frame>,
        stop: StopReason,
        now: u64,
    ) {
        let stack = CountedStack {
            image: snapshot.image,
            tid: snapshot.tid,
            thread_name: snapshot.thread_name,
            cgroup: snapshot.cgroup,
            count: 1,
            stop: stop as u8,
            kernel: snapshot.kernel,
            user: List(user),
        };
        let window = self.entry(snapshot.window, now);
        // It was counted when it arrived.
        window.received = window.received.saturating_sub(1);
        self.add(snapshot.window, stack, now);
    }

    /// Keeps a snapshot until the table of `missing` is there; gives it back when there is no room.
    pub(crate) fn wait(&mut self, waiting: Waiting, now: u64) -> Option<Waiting> {
        let bytes = waiting.bytes();
        let count: usize = self.open.values().map(|window| window.waiting.len()).sum();
        if count >= MAX_WAITING || self.bytes + bytes > MAX_BYTES {
            return Some(waiting);
        }
        let window = self.entry(waiting.snapshot.window, now);
        window.bytes += bytes;
        window.waiting.push(waiting);
        self.bytes += bytes;
        None
    }

    /// Takes out the snapshots that wait for an executable's table; all of a window's when `missing` is `None`.
    pub(crate) fn take_waiting(
        &mut self,
        only: Option<WindowId>,
        missing: Option<ExecutableId>,
    ) -> Vec<Waiting> {
        let mut taken = Vec::new();
        for window in self.open.values_mut() {
            if only.is_some_and(|id| id != window.id) {
                continue;
            }
            let (take, keep): (Vec<_>, Vec<_>) = std::mem::take(&mut window.waiting)
                .into_iter()
                .partition(|waiting| missing.is_none_or(|id| id == waiting.missing));
            window.waiting = keep;
            for waiting in &take {
                let bytes = waiting.bytes();
                window.bytes -= bytes;
                self.bytes -= bytes;
            }
            taken.extend(take);
        }
        taken
    }

    /// The sampler sent all of a window.
    pub(crate) fn end(&mut self, end: WindowEnd, now: u64) {
        let window = self.entry(end.window, now);
        window.end = Some((end, now));
    }

    /// The oldest window.
    pub(crate) fn first(&self) -> Option<&Window> {
        self.open.values().next()
    }

    /// All windows, oldest first.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Window> {
        self.open.values_mut()
    }

    /// Takes the oldest window out.
    pub(crate) fn take_first(&mut self) -> Option<Window> {
        let (_, window) = self.open.pop_first()?;
        self.bytes -= window.bytes;
        Some(window)
    }

    /// Whether a later window than `id` ended: messages come in order, so nothing follows for `id`.
    pub(crate) fn is_passed(&self, id: WindowId) -> bool {
        self.open
            .range((std::ops::Bound::Excluded(id), std::ops::Bound::Unbounded))
            .any(|(_, later)| later.end.is_some())
    }

    /// The newest window's number; 0 when there is none.
    pub(crate) fn newest(&self) -> u64 {
        self.open.last_key_value().map_or(0, |(id, _)| id.0)
    }

    /// Samples of all windows.
    #[cfg(test)]
    pub(crate) fn samples(&self) -> u64 {
        self.open.values().map(|window| window.received).sum()
    }

    /// Bytes of all windows.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of windows.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

fn stack_bytes(stack: &CountedStack) -> usize {
    size_of::<CountedStack>()
        + stack.kernel.0.len() * size_of::<u64>()
        + stack.user.0.len() * size_of::<Frame>()
        + stack.thread_name.0.len()
}

#[cfg(test)]
mod tests {
    use ipc_proto::codec::Bytes;

    use super::*;

    fn stack(count: u64, frames: usize) -> CountedStack {
        CountedStack {
            count,
            user: List(vec![Frame::default(); frames]),
            ..CountedStack::default()
        }
    }

    fn snapshot(window: u64) -> Snapshot {
        Snapshot {
            window: WindowId(window),
            stack: Bytes(vec![0; 16 << 10]),
            ..Snapshot::default()
        }
    }

    fn waiting(window: u64, missing: u32) -> Waiting {
        Waiting {
            snapshot: snapshot(window),
            missing: ExecutableId(missing),
        }
    }

    #[test]
    fn samples_are_counted_once_however_they_come() {
        let mut windows = Windows::default();
        windows.add(WindowId(3), stack(5, 2), 0);
        windows.receive_snapshot(WindowId(3), 0);
        assert_eq!(windows.samples(), 6);
        assert!(windows.wait(waiting(3, 9), 0).is_none());
        assert_eq!(windows.samples(), 6);
        assert!(windows.take_waiting(None, Some(ExecutableId(8))).is_empty());
        let taken = windows.take_waiting(None, Some(ExecutableId(9)));
        assert_eq!(taken.len(), 1);
        for waiting in taken {
            windows.finish(waiting.snapshot, Vec::new(), StopReason::EndOfStack, 0);
        }
        assert_eq!(windows.samples(), 6);
        let window = windows.take_first().unwrap();
        assert_eq!((window.received, window.stacks.len()), (6, 2));
        assert_eq!(windows.bytes(), 0, "everything was given back");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let mut windows = Windows::default();
        for _ in 0..MAX_BYTES / (1000 * size_of::<Frame>()) + 10 {
            windows.add(WindowId(1), stack(2, 1000), 0);
        }
        assert!(windows.bytes() <= MAX_BYTES);
        let window = windows.take_first().unwrap();
        let kept: u64 = window.stacks.iter().map(|stack| stack.count).sum();
        assert!(window.dropped_samples() > 0);
        assert_eq!(window.received, kept + window.dropped_samples());
    }

    #[test]
    fn only_so_many_snapshots_wait() {
        let mut windows = Windows::default();
        for _ in 0..MAX_WAITING {
            assert!(windows.wait(waiting(1, 1), 0).is_none());
        }
        assert!(windows.wait(waiting(2, 1), 0).is_some());
        assert_eq!(windows.take_waiting(Some(WindowId(2)), None).len(), 0);
        assert_eq!(
            windows.take_waiting(Some(WindowId(1)), None).len(),
            MAX_WAITING
        );
        assert_eq!(windows.bytes(), 0);
    }
}
