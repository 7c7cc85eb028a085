//! The shipper's decisions: batches and what became of their profiles in, actions out. No sockets, files or clocks.

use std::collections::BTreeMap;

use ipc_proto::ids::WindowId;
use ipc_proto::sample::Taken;
use ipc_proto::symbolized::SymbolizedBatch;

use crate::file_name::WindowStart;
use crate::labels::Labelled;
use crate::profile::{self, BatchFault};
use crate::store::StoreError;

/// What the event loop is to do.
#[derive(Debug)]
pub enum Action {
    /// Store a profile and say what became of it ([`Engine::on_stored`]).
    Store(Outgoing),
    /// Tell the symbolizer that a window is off its account.
    Acknowledge(Taken),
    /// Storing fails since now, for this reason: warn once.
    WarnStore(StoreError),
    /// Storing works again, so many samples later.
    StoreRecovered {
        /// Samples dropped meanwhile.
        dropped: u64,
    },
}

/// A profile on its way to the store.
#[derive(Debug)]
pub struct Outgoing {
    /// The window.
    pub window: WindowId,
    /// Its start.
    pub start: WindowStart,
    /// The same, exactly.
    pub start_nanos: u64,
    /// Its samples.
    pub samples: u64,
    /// Samples of the window that relabelling dropped; they are on the account already.
    pub relabelled_away: u64,
    /// The gzip pprof.
    pub profile: Vec<u8>,
}

/// Windows that may wait for the remote store's word: as many as the symbolizer keeps.
const MAX_WAITING: usize = 64;

/// Samples on the edge to the store since the start: produced = delivered + dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Samples of windows received.
    pub produced: u64,
    /// Samples of windows stored.
    pub delivered: u64,
    /// Samples of windows that could not be stored, by cause.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Windows stored.
    pub windows: u64,
    /// Bytes of profiles stored.
    pub bytes: u64,
    /// Windows that could not be stored.
    pub failed_windows: u64,
    /// Whether the last one couldn't.
    pub failing: bool,
}

/// The engine.
#[derive(Debug, Default)]
pub struct Engine {
    account: Account,
    /// Samples dropped since storing began to fail, with the cause that was warned about.
    failing: Option<(&'static str, u64)>,
    /// Windows that the remote side has not settled yet, by start and number; `None` without a remote store.
    waiting: Option<BTreeMap<(u64, u64), Taken>>,
}

impl Engine {
    /// The symbolizer keeps each window until the remote side has settled it, too ([`Self::on_settled`]).
    #[must_use]
    pub fn with_remote_store(self) -> Self {
        Self {
            waiting: Some(BTreeMap::new()),
            ..self
        }
    }

    /// The remote side delivered, spooled or dropped a window.
    pub fn on_settled(&mut self, start: u64, window: u64) -> Option<Action> {
        let taken = self.waiting.as_mut()?.remove(&(start, window))?;
        Some(Action::Acknowledge(taken))
    }

    /// The account so far.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// A window with names arrived, and its samples' labels.
    ///
    /// # Errors
    /// The batch refers to what is not in it: its sender is not to be listened to any more.
    pub fn on_batch(
        &mut self,
        batch: &SymbolizedBatch,
        labelled: &Labelled,
    ) -> Result<Action, BatchFault> {
        let profile = profile::build(batch, labelled)?;
        let (mut samples, mut relabelled_away) = (0u64, 0u64);
        for (sample, series) in batch.samples.0.iter().zip(&labelled.of_sample) {
            let sum = match series {
                Some(_) => &mut samples,
                None => &mut relabelled_away,
            };
            *sum = sum.saturating_add(sample.count);
        }
        let account = &mut self.account;
        account.produced = account
            .produced
            .saturating_add(samples)
            .saturating_add(relabelled_away);
        if relabelled_away > 0 {
            let dropped = account.dropped.entry("relabelling").or_default();
            *dropped = dropped.saturating_add(relabelled_away);
        }
        Ok(Action::Store(Outgoing {
            window: batch.window,
            start_nanos: batch.start,
            start: WindowStart::from_nanos(batch.start),
            samples,
            relabelled_away,
            profile,
        }))
    }

    /// What became of a profile.
    pub fn on_stored(
        &mut self,
        outgoing: &Outgoing,
        result: Result<(), StoreError>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        match result {
            Ok(()) => {
                self.account.delivered = self.account.delivered.saturating_add(outgoing.samples);
                self.account.windows += 1;
                self.account.failing = false;
                self.account.bytes += outgoing.profile.len() as u64;
                if let Some((_, dropped)) = self.failing.take() {
                    actions.push(Action::StoreRecovered { dropped });
                }
            }
            Err(error) => {
                let cause = error.cause();
                self.account.failed_windows += 1;
                self.account.failing = true;
                let count = self.account.dropped.entry(cause).or_default();
                *count = count.saturating_add(outgoing.samples);
                let (warned, dropped) = self.failing.unwrap_or(("", 0));
                if warned != cause {
                    actions.push(Action::WarnStore(error));
                }
                self.failing = Some((cause, dropped.saturating_add(outgoing.samples)));
            }
        }
        // Dropped here is counted here: either way the symbolizer need not keep the window for the local store.
        let taken = Taken {
            window: outgoing.window,
            samples: outgoing.samples.saturating_add(outgoing.relabelled_away),
        };
        let settled = match &mut self.waiting {
            None => Some(taken),
            Some(waiting) => {
                waiting.insert((outgoing.start_nanos, outgoing.window.0), taken);
                let surplus = waiting.len() > MAX_WAITING;
                surplus
                    .then(|| waiting.pop_first())
                    .flatten()
                    .map(|(_, taken)| taken)
            }
        };
        actions.extend(settled.map(Action::Acknowledge));
        actions
    }
}

#[cfg(test)]
mod tests {
    use ipc_proto::codec::List;
    use ipc_proto::symbolized::{SymbolizedProcess, SymbolizedSample};
    use rustix::io::Errno;

    use super::*;
    use crate::labels::Series;

    fn batch(window: u64, count: u64) -> SymbolizedBatch {
        SymbolizedBatch {
            window: WindowId(window),
            frequency: 19,
            strings: List(vec![ipc_proto::codec::Bytes::default()]),
            processes: List(vec![SymbolizedProcess {
                executable: ipc_proto::symbolized::NONE,
                ..SymbolizedProcess::default()
            }]),
            samples: List(vec![SymbolizedSample {
                count,
                ..SymbolizedSample::default()
            }]),
            ..SymbolizedBatch::default()
        }
    }

    /// The labels of a window of one sample, kept or dropped.
    fn labelled(is_kept: bool) -> Labelled {
        Labelled {
            series: vec![Series::default()],
            of_sample: vec![is_kept.then_some(0)],
        }
    }

    fn store(engine: &mut Engine, window: u64, result: Result<(), StoreError>) -> Vec<Action> {
        let batch = batch(window, 10);
        let Ok(Action::Store(outgoing)) = engine.on_batch(&batch, &labelled(true)) else {
            panic!("a sound batch is stored");
        };
        engine.on_stored(&outgoing, result)
    }

    #[test]
    fn every_window_is_acknowledged_and_the_account_balances() {
        let mut engine = Engine::default();
        let full = Err(StoreError::Full(Errno::NOSPC));
        let read_only = Err(StoreError::Unwritable(Errno::ROFS));
        for (window, result) in [Ok(()), full, full, read_only, Ok(()), Ok(())]
            .into_iter()
            .enumerate()
        {
            let actions = store(&mut engine, window as u64, result);
            assert!(actions.iter().any(|action| matches!(
                action,
                Action::Acknowledge(Taken { samples: 10, window: WindowId(taken) })
                    if *taken == window as u64
            )));
        }
        let account = engine.account();
        assert_eq!(account.produced, 60);
        assert_eq!((account.delivered, account.windows), (30, 3));
        assert_eq!(
            account.dropped,
            BTreeMap::from([("store_full", 20), ("store_unwritable", 10)])
        );
    }

    #[test]
    fn what_relabelling_drops_is_counted_once_and_acknowledged() {
        let mut engine = Engine::default();
        let Ok(Action::Store(outgoing)) = engine.on_batch(&batch(0, 10), &labelled(false)) else {
            panic!("a sound batch is stored");
        };
        let actions = engine.on_stored(&outgoing, Ok(()));
        assert!(matches!(
            &actions[..],
            [Action::Acknowledge(Taken { samples: 10, .. })]
        ));
        let account = engine.account();
        assert_eq!((account.produced, account.delivered), (10, 0));
        assert_eq!(account.dropped, BTreeMap::from([("relabelling", 10)]));
    }

    #[test]
    fn with_a_remote_store_a_window_is_acknowledged_when_both_have_it() {
        let mut engine = Engine::default().with_remote_store();
        assert!(store(&mut engine, 3, Ok(())).is_empty());
        assert!(engine.on_settled(0, 4).is_none());
        assert!(matches!(
            engine.on_settled(0, 3),
            Some(Action::Acknowledge(Taken {
                window: WindowId(3),
                ..
            }))
        ));
        assert!(engine.on_settled(0, 3).is_none());
    }

    #[test]
    fn a_failing_store_is_warned_about_once_and_so_is_its_recovery() {
        let mut engine = Engine::default();
        let warnings = |actions: &[Action]| {
            actions
                .iter()
                .filter(|action| !matches!(action, Action::Acknowledge(_)))
                .count()
        };
        let full = Err(StoreError::Full(Errno::NOSPC));
        assert_eq!(warnings(&store(&mut engine, 0, full)), 1);
        assert_eq!(warnings(&store(&mut engine, 1, full)), 0);
        let actions = store(&mut engine, 2, Ok(()));
        assert!(matches!(actions[0], Action::StoreRecovered { dropped: 20 }));
        assert_eq!(warnings(&store(&mut engine, 3, Ok(()))), 0);
    }
}
